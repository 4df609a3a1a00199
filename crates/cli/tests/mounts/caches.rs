//! `RUN --mount=type=cache`, `type=tmpfs` and `type=bind` with all their options.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::bench::{Bench, as_root_and_user, said};

/// What one step with these mounts says; what stands before it is taken from the cache.
#[track_caller]
fn check(bench: &Bench, before: &str, mounts: &str, command: &str, expect: &[&str]) {
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    let dockerfile = format!("{before}FROM box\nARG U=7 T=/c ID=an-id\nRUN {mounts} {command}; : {number}\n");
    let outcome = bench.builds(&dockerfile, &[]);
    assert_eq!(said(&outcome.stderr), expect, "{dockerfile}: {outcome}");
}

#[test]
fn root_caches_begin_with_what_they_are_told_and_keep_what_is_written() {
    as_root_and_user(|bench| {
        let stage = "FROM box AS s\nRUN mkdir -p /d/sub && echo one > /d/sub/a && chmod 710 /d/sub && chown 3:4 /d/sub\n";
        let from = "--mount=type=cache,id=f,target=/c,from=s,source=/d/sub";
        check(
            bench,
            stage,
            from,
            "echo said $(cat /c/a) $(stat -c %a-%u-%g /c); echo two > /c/a",
            &["one 710-3-4"],
        );
        check(bench, stage, from, "echo said $(cat /c/a)", &["two"]);
        // Other files, another cache.
        check(bench, &stage.replace("one", "1"), from, "echo said $(cat /c/a)", &["1"]);
        check(bench, stage, &from.replace("/d/sub", "/d"), "echo said $(cat /c/sub/a)", &["one"]);
        check(
            bench,
            stage,
            &format!("{from},ro"),
            "echo said $(echo x 2>&1 > /c/x | grep -o Read-only)",
            &["Read-only"],
        );
        // The whole of an image, and of one that is in the store.
        check(
            bench,
            "",
            "--mount=type=cache,id=i,target=/c,from=box",
            "echo said $(ls -d /c/etc)",
            &["/c/etc"],
        );

        let owner = "echo said $(stat -c %a-%u-%g /c) $(ls /c); touch /c/x";
        check(bench, "", "--mount=type=cache,target=/c", owner, &["755-0-0"]);
        check(bench, "", "--mount=type=cache,target=/c", owner, &["755-0-0 x"]);
        check(bench, "", "--mount=type=cache,target=$T,uid=$U,gid=8,mode=2770,id=$ID", owner, &["2770-7-8"]);
        check(
            bench,
            "",
            "--mount=type=cache,target=/c,uid=7,gid=8,mode=2770,id=an-id",
            owner,
            &["2770-7-8 x"],
        );
        // Another owner, another cache.
        check(bench, "", "--mount=type=cache,target=/c,uid=9", owner, &["755-9-0"]);
        check(bench, "", "--mount=type=cache,target=/c", owner, &["755-0-0 x"]);
        // Twice in one step is one.
        let twice = "--mount=type=cache,target=/c,sharing=locked --mount=type=cache,target=/e,id=/c,sharing=locked,ro";
        check(bench, "", twice, "echo said $(ls /e); touch /c/y; echo said $(ls /e)", &["x", "x y"]);
        let outcome = bench.builds(
            "FROM box\nRUN --mount=type=cache,target=/c echo said [$(ls /c)]\n",
            &["--no-cache", "--build-arg", "BUILDKIT_CACHE_MOUNT_NS=mine"],
        );
        assert_eq!(said(&outcome.stderr), ["[]"], "{outcome}");
    });
}

#[test]
fn root_what_a_cache_cannot_begin_with_is_underlined() {
    as_root_and_user(|bench| {
        let refuses = |source: &str, expect: &[&str]| {
            let mount = format!("--mount=type=cache,target=/c,from=box,source={source}");
            bench.refuses(
                &format!("FROM box\nRUN {mount} true\n"),
                &[],
                &[expect, &["Dockerfile:2:13"]].concat(),
            );
        };
        refuses("/nowhere", &["`/nowhere` is not in image `box"]);
        refuses("/etc/passwd", &["a cache cannot begin with `/etc/passwd`, which is no directory"]);
    });
}

/// Two stages whose steps run at the same time.
fn two(mount: &str, first: &str, second: &str) -> String {
    format!(
        "FROM box AS one\nRUN {mount} {first}\nFROM box AS two\nRUN {mount} {second}\n\
         FROM box\nCOPY --from=one /etc/passwd /1\nCOPY --from=two /etc/passwd /2\n"
    )
}

/// Waits for a file of the other step.
fn meet(own: &str, other: &str) -> String {
    format!(
        "touch /meet/{own}; for i in $(seq 3000); do test -e /meet/{other} && break; sleep 0.01; done; test -e /meet/{other}"
    )
}

#[test]
fn root_steps_share_wait_or_get_their_own() {
    as_root_and_user(|bench| {
        // Shared: both are in at the same time.
        let shared = two("--mount=type=cache,target=/meet,id=shared", &meet("a", "b"), &meet("b", "a"));
        bench.builds(&shared, &["--no-cache"]);
        // Private: both are in, and neither sees the other's.
        let private =
            |own: &str, other: &str| format!("touch /c/{own}; {}; test $(ls /c) = {own}", meet(own, other));
        let mount = "--mount=type=cache,target=/meet,id=private-meet --mount=type=cache,target=/c,id=p,sharing=private";
        bench.builds(&two(mount, &private("a", "b"), &private("b", "a")), &["--no-cache"]);
        // Locked: whoever is in is alone, whatever the order of the mounts.
        let alone = "mkdir /c/in && sleep 0.3 && rmdir /c/in";
        let locked = |first: &str, second: &str| {
            format!(
                "--mount=type=cache,sharing=locked,id={first},target=/{first} --mount=type=cache,sharing=locked,id={second},target=/{second}"
            )
        };
        let dockerfile = two("MOUNTS", alone, alone);
        let dockerfile =
            dockerfile.replacen("MOUNTS", &locked("c", "d"), 1).replacen("MOUNTS", &locked("d", "c"), 1);
        for _ in 0..3 {
            bench.builds(&dockerfile, &["--no-cache"]);
        }
    });
}

#[test]
fn root_a_build_that_waits_for_a_cache_can_be_ended() {
    as_root_and_user(|bench| {
        // The failure of one step ends the other one, which waits for what the first has.
        let mount = "--mount=type=cache,target=/c,sharing=locked";
        let waits = "sleep 1; exit 3";
        bench.refuses(&two(mount, waits, waits), &["--no-cache"], &["exit code: 3"]);
    });
}

#[test]
fn root_memory_and_bound_files_of_a_step() {
    as_root_and_user(|bench| {
        let tmpfs = "--mount=type=tmpfs,target=/c";
        check(
            bench,
            "",
            &format!("{tmpfs},size=1m"),
            "echo said $(df -k /c | tail -1 | awk '{print $2}')",
            &["1024"],
        );
        check(
            bench,
            "",
            tmpfs,
            "echo said $(stat -c %a /c); cp /bin/busybox /c; echo said $(/c/busybox echo runs)",
            &["1777", "runs"],
        );
        bench.write("context/file", "of the context");
        let bind = "--mount=target=/f,source=file";
        check(
            bench,
            "",
            &format!("{bind},rw"),
            "echo said $(cat /f); echo new > /f; echo said $(cat /f)",
            &["of the context", "new"],
        );
        check(
            bench,
            "",
            bind,
            "echo said $(cat /f) $(echo x 2>&1 > /f | grep -o Read-only)",
            &["of the context Read-only"],
        );
        assert_eq!(
            std::fs::read(bench.dir.path().join("context/file")).expect("the file"),
            b"of the context"
        );
    });
}
