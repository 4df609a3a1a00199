//! Contents of cache mounts, which travel on request.

use std::fs;

use crate::support::{Machine, can_build, can_build_rootless, from_local, to_local};

const DOCKERFILE: &str = "\
FROM base:1
ARG ROUND
RUN --mount=type=cache,target=/var/cache/one --mount=type=cache,id=two,target=/c2,mode=0711,sharing=locked \
    echo $ROUND >> /var/cache/one/rounds; mkdir -p /c2/deep/er; ln -sf rounds /c2/link; echo x > /c2/deep/er/f; \
    ln -f /c2/deep/er/f /c2/hard; chown 7:8 /c2/deep; chmod 2770 /c2/deep; cat /var/cache/one/rounds > /out; ls -lnR /c2 | grep -v total >> /out
";

fn out(machine: &Machine) -> String {
    machine.mica.ok(&["run", "--rm", "--network=none", "app:1", "cat", "/out"]).stdout
}

fn machine() -> Machine {
    let machine = Machine::new();
    machine.write("Dockerfile", DOCKERFILE);
    machine
}

#[test]
fn root_contents_of_cache_mounts_travel_on_request() {
    if can_build() {
        check_mounts();
    }
}

#[test]
fn rootless_contents_of_cache_mounts_travel_on_request() {
    if can_build_rootless() {
        check_mounts();
    }
}

fn check_mounts() {
    let here = machine();
    let (none, all, one) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let some = format!("--cache-to=type=local,dest={},\"mounts=absent,two\"", one.path().display());
    let to = [to_local(none.path(), ",mode=max"), to_local(all.path(), ",mode=max,mounts=true"), some];
    here.build(&[&to[0], &to[1], &to[2], "--build-arg=ROUND=1"]);
    let build = |machine: &Machine, from: &std::path::Path, round: u32| {
        let built = machine.build(&[&from_local(from), &format!("--build-arg=ROUND={round}")]);
        assert!(!built.stderr.contains("WARN"), "{}", built.stderr);
        out(machine)
    };
    let without = build(&machine(), none.path(), 2);
    assert!(without.starts_with("2\n"), "{without}");
    let there = machine();
    let with = build(&there, all.path(), 2);
    assert!(with.starts_with("1\n2\n"), "{with}");
    assert!(with.contains("drwxrws---") && with.contains("link -> rounds"), "{with}");
    // What is there already is left alone.
    let more = build(&there, all.path(), 3);
    assert!(more.starts_with("1\n2\n3\n"), "{more}");
    let some = build(&machine(), one.path(), 2);
    assert!(some.starts_with("2\n"), "{some}");
    // A damaged one is told, and the step finds it empty.
    for entry in fs::read_dir(all.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            bytes.truncate(bytes.len() / 2);
            fs::write(&path, bytes).unwrap();
        }
    }
    let there = machine();
    let built = there.build(&[&from_local(all.path()), "--build-arg=ROUND=2"]);
    assert!(built.stderr.contains("the content of cache mount `two` in cache"), "{}", built.stderr);
    assert!(out(&there).starts_with("2\n"));
}
