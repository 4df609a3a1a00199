//! `--allow`, `RUN --security`, `--network`, `--device`, `--retry`, and limits of steps.

use crate::bench::{Bench, as_root_and_user, said};

const CAPABILITIES: &str = "grep CapEff /proc/self/status | cut -f2";

#[test]
fn root_what_could_harm_the_machine_has_to_be_allowed() {
    as_root_and_user(|bench| {
        let host = "FROM box\nRUN echo said it\nRUN --network=host true\n";
        let expect = ["the network of the host", "is not allowed", "Dockerfile:3", "`--allow network.host`"];
        let outcome = bench.refuses(host, &[], &expect);
        assert!(said(&outcome.stderr).is_empty(), "refused before anything runs: {outcome}");
        bench.refuses(host, &["--allow", "security.insecure"], &expect);
        bench.builds(host, &["--allow", "network.host"]);
        // docker's `--network=host` allows it too.
        bench.builds(host, &["--network=host"]);
        let insecure = format!("FROM box\nRUN --security=insecure echo said $({CAPABILITIES})\n");
        bench.refuses(
            &insecure,
            &[],
            &["`--security=insecure`", "is not allowed", "`--allow security.insecure`"],
        );
        // All that is wrong at once.
        let both = "FROM box\nRUN --network=host true\nRUN --security=insecure true\nRUN --device=vendor.com/x true\n";
        bench.refuses(
            both,
            &[],
            &["Dockerfile:2", "Dockerfile:3", "Dockerfile:4", "devices of steps are not supported yet"],
        );
        // What is not built is not asked for.
        let other = "FROM box AS other\nRUN --network=host true\nFROM box\nRUN true\n";
        bench.builds(other, &[]);
        bench.refuses(other, &["--target=other"], &expect[..2]);
        bench.refuses("FROM box\n", &["--allow", "device"], &["invalid value `device` for `--allow`"]);
    });
}

#[test]
fn root_a_step_without_protection_has_all_rights_and_is_not_recorded() {
    as_root_and_user(|bench| {
        let allow = ["--allow", "security.insecure", "--explain=json"];
        let dockerfile = |first: &str| {
            format!(
                "FROM box\nRUN echo {first} > /unused\nRUN --security=insecure echo said $({CAPABILITIES}) $(grep Seccomp: /proc/self/status | cut -f2)\n"
            )
        };
        let outcome = bench.builds(&dockerfile("a"), &allow);
        let words: Vec<_> = said(&outcome.stderr)[0].split(' ').collect();
        assert_eq!(words[1], "0", "{outcome}");
        let all = u64::from_str_radix(words[0], 16).expect("capabilities");
        assert!(all.count_ones() > 35, "{outcome}");
        assert!(bench.builds(&dockerfile("a"), &allow).stderr.contains("CACHED"));
        // A watched step would be taken over here.
        let outcome = bench.builds(&dockerfile("b"), &allow);
        assert_eq!(said(&outcome.stderr).len(), 1, "{outcome}");
        // The others keep docker's rights.
        let dockerfile = format!("FROM box\nRUN --security=sandbox echo said $({CAPABILITIES})\n");
        assert_eq!(said(&bench.builds(&dockerfile, &[]).stderr), ["00000000a80425fb"]);
    });
}

#[test]
fn root_networks_of_single_steps() {
    as_root_and_user(|bench| {
        // The build itself has none here.
        let links = "echo said $(ls /sys/class/net | wc -l)";
        let dockerfile = format!("FROM box\nRUN --network=none {links}\nRUN --network=default {links}\n");
        assert_eq!(said(&bench.builds(&dockerfile, &[]).stderr), ["1", "1"]);
        let here = std::fs::read_link("/proc/self/ns/net").expect("a namespace");
        let network = "echo said $(readlink /proc/self/ns/net)";
        let dockerfile = format!("FROM box\nRUN --network=host {network}\n");
        let outcome = bench.builds(&dockerfile, &["--allow", "network.host"]);
        assert_eq!(said(&outcome.stderr), [here.to_string_lossy()]);
    });
}

/// What one step says with these flags.
#[track_caller]
fn check(bench: &Bench, flags: &[&str], command: &str, expect: &str) {
    let outcome =
        bench.builds(&format!("FROM box\nRUN echo said $({command})\n"), &[&["--no-cache"], flags].concat());
    assert_eq!(said(&outcome.stderr), [expect], "{flags:?}: {outcome}");
}

#[test]
fn root_limits_of_steps() {
    as_root_and_user(|bench| {
        let shm = "df -k /dev/shm | tail -1 | awk '{print $2}'";
        check(bench, &[], shm, "65536");
        check(bench, &["--shm-size=1m"], shm, "1024");
        check(bench, &["--ulimit", "nofile=77:88"], "ulimit -Sn; ulimit -Hn", "77 88");
        check(bench, &["--ulimit", "nofile=77:88", "--ulimit=nofile=66"], "ulimit -n", "66");
        check(
            bench,
            &["--force-rm", "--rm", "--isolation=default", "--memory-swap=-1", "--resource=memory=0"],
            "echo a",
            "a",
        );
        let outcome = bench.builds(
            "FROM box\nRUN true\n",
            &["--isolation=process", "--security-opt=a=b", "--resource=io=1"],
        );
        for text in ["`--isolation process`", "`--security-opt a=b`", "`--resource io`"] {
            assert!(outcome.stderr.contains(text), "{outcome}");
        }
        for (flag, expect) in [
            ("--ulimit=nofile", "no `=`"),
            ("--ulimit=files=1", "no such limit"),
            ("--shm-size=x", "invalid size"),
            ("--memory=1x", "unknown unit"),
            ("--cpuset-cpus=a", "invalid value `a`"),
        ] {
            bench.refuses("FROM box\n", &[flag], &[expect]);
        }
        bench.refuses("FROM box\n", &["-m", "20m", "--memory-swap", "10m"], &["less than `--memory`"]);
        bench.refuses("FROM box\n", &["-m", "2m"], &["at least 6m"]);
    });
}

#[test]
fn root_limits_of_cgroups_are_kept_or_told() {
    as_root_and_user(|bench| {
        let flags = [
            "-m",
            "64m",
            "--cpu-quota=50000",
            "--cpu-shares=512",
            "--cpuset-cpus=0",
            "--cgroup-parent=/mica-test-parent",
        ];
        let outcome = bench.builds("FROM box\nRUN cat /proc/self/cgroup | sed 's/^/said /'\n", &flags);
        let groups = said(&outcome.stderr).join("\n");
        println!("{groups}");
        let is_kept = groups.contains("mica-test-parent/build-");
        assert!(is_kept || outcome.stderr.contains("limits of steps are not kept here"), "{outcome}");
        // Nothing is left of it but the parent that was asked for.
        for controller in ["", "memory", "cpu", "cpuset"] {
            let parent = std::path::Path::new("/sys/fs/cgroup").join(controller).join("mica-test-parent");
            let left = std::fs::read_dir(&parent).into_iter().flatten().flatten();
            let left: Vec<_> = left.filter(|entry| entry.path().is_dir()).collect();
            assert!(left.is_empty(), "{left:?}");
            let _ = std::fs::remove_dir(&parent);
        }
    });
}

#[test]
fn root_a_step_is_tried_again_from_a_clean_layer() {
    as_root_and_user(|bench| {
        // The cache tells which try it is; the layer must be as it was.
        let count = "echo x >> /c/n; test ! -e /dirty && touch /dirty; echo said $(wc -l < /c/n)";
        let step = |retries: u32, works_at: u32| {
            format!(
                "FROM box\nRUN --retry={retries} --mount=type=cache,target=/c,id={retries}-{works_at} {count}; test $(wc -l < /c/n) = {works_at}\n"
            )
        };
        let outcome = bench.builds(&step(2, 3), &[]);
        assert_eq!(said(&outcome.stderr), ["1", "2", "3"], "{outcome}");
        assert!(outcome.stderr.contains("try 2 of 3") && outcome.stderr.contains("try 3 of 3"), "{outcome}");
        assert!(bench.ok(&["history", "--no-trunc", "t"]).stdout.contains("RUN /bin/sh -c echo x"));
        // How often is no part of the key.
        let dockerfile = "FROM box\nRUN --retry=5 echo a > /a\n";
        bench.builds(dockerfile, &[]);
        let outcome = bench.builds(&dockerfile.replace("--retry=5 ", ""), &[]);
        assert!(outcome.stderr.contains("CACHED"), "{outcome}");
        let outcome = bench.refuses(&step(1, 9), &[], &["exit code: 1, after 2 tries"]);
        assert_eq!(said(&outcome.stderr), ["1", "2"], "{outcome}");
        let outcome = bench.refuses(&step(0, 9), &[], &["exit code: 1\n"]);
        assert!(!outcome.stderr.contains("tries"), "{outcome}");
        for wrong in ["-1", "101", "x"] {
            bench.refuses(&format!("FROM box\nRUN --retry={wrong} true\n"), &[], &["Dockerfile:2"]);
        }
        bench.refuses("FROM box\nRUN --retry=101 true\n", &[], &["invalid number of retries: `101`"]);
    });
}
