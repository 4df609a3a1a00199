//! What a failed step leaves: `mica debug`, and how long it is kept.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::bench::{Bench, as_root_and_user, said};

const FAILS: &str = "FROM box AS other\nRUN echo of-other > /o\nFROM box\nENV A=1\nWORKDIR /w\nUSER 7:8\n\
    RUN --mount=type=tmpfs,target=/t --mount=target=/ctx --mount=from=other,source=/o,target=/o \
    --mount=type=cache,target=/c,mode=777 --mount=type=secret,id=s,mode=444 --mount=type=secret,id=v,env=V \
    rm /etc/group-not-there; echo left > /tmp/left; echo cached > /c/x; exit 3\n";

fn looks(bench: &Bench, command: &str) -> String {
    bench.ok(&["debug", "--", "sh", "-c", command]).stdout.trim().to_owned()
}

/// IDs of what is kept, the newest first.
fn listed(bench: &Bench) -> Vec<String> {
    let text = bench.ok(&["debug", "--list"]).stdout;
    text.lines().skip(1).filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect()
}

fn directories(bench: &Bench) -> usize {
    fs::read_dir(bench.mica.root().join("failed")).map_or(0, Iterator::count)
}

#[test]
fn root_the_state_of_a_failed_step_is_opened_as_it_was() {
    as_root_and_user(|bench| {
        let file = bench.write("context/file", "of-context");
        fs::set_permissions(file, fs::Permissions::from_mode(0o644)).expect("permissions");
        let secret = bench.write("secret", "s3cr3t");
        let given = format!("id=s,src={}", secret.display());
        let outcome =
            bench.refuses(FAILS, &["--secret", &given], &["exit code: 3", "`mica debug` opens a shell"]);
        assert_eq!(outcome.code, 1);
        assert_eq!(listed(bench).len(), 1);
        assert_eq!(looks(bench, "id -u; id -g; pwd; echo $A"), "7\n8\n/w\n1");
        assert_eq!(looks(bench, "cat /tmp/left /o /ctx/file /c/x"), "left\nof-other\nof-contextcached");
        assert_eq!(
            looks(bench, "grep -c ' /t tmpfs' /proc/mounts; grep ^nobody /etc/passwd | wc -l"),
            "1\n1"
        );
        assert_eq!(looks(bench, "ls /run 2>&1 | wc -l; ls -a /run/secrets 2>/dev/null; echo [$V]"), "1\n[]");
        let outcome = bench.run(&["debug", "--", "sh", "-c", "exit 9"]);
        assert_eq!(outcome.code, 9, "{outcome}");
        assert!(outcome.stderr.contains("secrets and agents that the step had are not kept"), "{outcome}");
        // What is changed there is not there the next time.
        assert_eq!(looks(bench, "rm /tmp/left; touch /tmp/new; ls /tmp"), "new");
        assert_eq!(looks(bench, "ls /tmp"), "left");
        let id = listed(bench).remove(0);
        assert_eq!(bench.ok(&["debug", &id[..4], "--", "cat", "/tmp/left"]).stdout, "left\n");
        let outcome = bench.run(&["debug", "zz"]);
        assert!(outcome.code == 1 && outcome.stderr.contains("`mica debug --list`"), "{outcome}");
        // Nobody answers for a terminal.
        bench.refuses(
            FAILS,
            &["--debug"],
            &["warning: `--debug` opens a shell, which needs a terminal", "`mica debug`"],
        );
    });
}

#[test]
fn root_states_are_few_and_go_when_the_build_succeeds() {
    as_root_and_user(|bench| {
        let fails =
            |text: &str| format!("FROM box\nRUN echo below > /below\nRUN echo {text} > /left; exit 3\n");
        bench.refuses(&fails("one"), &[], &["exit code: 3"]);
        let first = listed(bench);
        bench.refuses(&fails("two"), &[], &["exit code: 3"]);
        assert_eq!(listed(bench).len(), 1, "of one Dockerfile the newest");
        assert_ne!(listed(bench), first);
        assert_eq!(looks(bench, "cat /left /below"), "two\nbelow");
        // The layers below stay, whatever is collected.
        bench.ok(&["image", "prune", "-af"]);
        bench.ok(&["builder", "prune", "-af", "--filter", "until=0s"]);
        assert_eq!(looks(bench, "cat /left /below"), "two\nbelow");
        // Those of other Dockerfiles stand beside it, up to four.
        for number in 0..5 {
            let file = bench.write(&format!("Dockerfile.{number}"), fails(&number.to_string()));
            let context = bench.dir.path().join("context");
            bench.ok(&["import", &bench.dir.path().join("base.tar").to_string_lossy(), "box"]);
            let outcome = bench.run(&[
                "build",
                "--network=none",
                "-f",
                &file.to_string_lossy(),
                &context.to_string_lossy(),
            ]);
            assert_eq!(outcome.code, 1, "{outcome}");
        }
        assert_eq!(listed(bench).len(), 4);
        assert_eq!(directories(bench), 4);
        assert_eq!(looks(bench, "cat /left"), "4");
        let before = listed(bench);
        // One that is told to keep nothing leaves them alone; one that succeeds takes its own away.
        let file = bench.write("Dockerfile.3", "FROM box\nRUN true\n");
        let context = bench.dir.path().join("context");
        bench.ok(&["build", "--network=none", "-f", &file.to_string_lossy(), &context.to_string_lossy()]);
        assert_eq!(listed(bench), [&before[..1], &before[2..]].concat());
        let used = || bench.ok(&["system", "df", "--format", "{{.Type}} {{.Size}}"]).stdout;
        let with_states = used();
        bench.ok(&["builder", "prune", "-f"]);
        assert!(listed(bench).is_empty());
        assert_eq!(directories(bench), 0);
        assert_ne!(used(), with_states, "they are counted");
        let outcome = bench.run(&["debug"]);
        assert!(outcome.code == 1 && outcome.stderr.contains("no failed step left anything"), "{outcome}");
        bench.refuses(&fails("again"), &[], &["exit code: 3"]);
        bench.ok(&["system", "prune", "-f"]);
        assert!(listed(bench).is_empty());
    });
}

#[test]
fn root_what_failed_for_another_reason_leaves_nothing() {
    as_root_and_user(|bench| {
        bench.refuses("FROM box\nCOPY nowhere /\n", &[], &["nowhere"]);
        bench.refuses("FROM box\nRUN --mount=type=secret,id=a,required true\n", &[], &["required"]);
        assert!(listed(bench).is_empty());
        // A retried step leaves the state of its last try.
        let dockerfile = "FROM box\nRUN --retry=2 --mount=type=cache,target=/c echo x >> /c/n; wc -l < /c/n > /try; echo said $(cat /try); exit 1\n";
        let outcome = bench.refuses(dockerfile, &[], &["after 3 tries"]);
        assert_eq!(said(&outcome.stderr), ["1", "2", "3"]);
        assert_eq!(looks(bench, "cat /try"), "3");
    });
}
