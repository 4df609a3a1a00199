//! What the container may not do.

use std::fs;
use std::path::{Path, PathBuf};

use mica_runtime::spec::{CgroupSpec, Rlimit, Seccomp, UserSpec};
use mica_runtime::{CapabilitySet, ContainerSpec};

use crate::Test;
use crate::support::{Scratch, check_script, finish, piped};

pub const TESTS: &[Test] = &[
    ("root_capabilities_are_dockers", root_capabilities_are_dockers),
    ("root_the_filter_refuses", root_the_filter_refuses),
    ("root_privileged_is_not_limited", root_privileged_is_not_limited),
    ("root_rlimits_are_set", root_rlimits_are_set),
    ("root_cgroup_limits_are_kept_where_they_can_be", root_cgroup_limits_are_kept_where_they_can_be),
];

const CAPABILITIES: &str = "grep Cap /proc/self/status | cut -f2";
const NONE: &str = "0000000000000000";
const DEFAULT: &str = "00000000a80425fb";

fn anna(spec: &mut ContainerSpec) {
    spec.process.user = UserSpec::Names("anna".to_owned());
}

fn root_capabilities_are_dockers() {
    check_script(|_| {}, CAPABILITIES, &[NONE, DEFAULT, DEFAULT, DEFAULT, NONE].join("\n"));
    check_script(anna, CAPABILITIES, &[NONE, NONE, NONE, DEFAULT, NONE].join("\n"));
    check_script(
        |spec| spec.process.capabilities = CapabilitySet::NONE,
        CAPABILITIES,
        &[NONE, NONE, NONE, NONE, NONE].join("\n"),
    );
    check_script(|_| {}, "grep -E 'NoNewPrivs|^Seccomp:' /proc/self/status | cut -f2", "0\n2");
    check_script(
        |spec| spec.process.no_new_privileges = true,
        "grep NoNewPrivs /proc/self/status | cut -f2",
        "1",
    );
}

fn root_the_filter_refuses() {
    check_script(|_| {}, "unshare -U true 2>&1", "unshare: unshare(0x10000000): Operation not permitted");
    check_script(
        |spec| spec.process.seccomp = Seccomp::Unconfined,
        "unshare -U true 2>&1; grep ^Seccomp: /proc/self/status | cut -f2",
        "0",
    );
    check_script(|_| {}, "mount -t tmpfs none /tmp 2>&1 | grep -c denied", "1");
    check_script(|_| {}, "mknod /tmp/node c 1 3 && echo made", "made");
    let admin = CapabilitySet::DEFAULT.with(CapabilitySet(1 << 21));
    check_script(
        |spec| spec.process.capabilities = admin,
        "mount -t tmpfs none /tmp && echo mounted",
        "mounted",
    );
}

fn root_privileged_is_not_limited() {
    check_script(
        |spec| spec.process.privileged = true,
        "mount -t tmpfs none /tmp && echo mounted; grep ^Seccomp: /proc/self/status | cut -f2; test -e /dev/loop0 && echo loop; \
         echo 1 > /proc/sys/net/ipv4/ip_forward && echo written",
        "mounted\n0\nloop\nwritten",
    );
}

fn root_rlimits_are_set() {
    let nofile = Rlimit { name: "nofile".to_owned(), soft: Some(99), hard: Some(100) };
    check_script(|spec| spec.process.rlimits = vec![nofile.clone()], "ulimit -Sn; ulimit -Hn", "99\n100");
}

fn root_cgroup_limits_are_kept_where_they_can_be() {
    let scratch = Scratch::new();
    let mut spec = scratch.script("cat /proc/self/cgroup");
    let name = format!("test-{}", std::process::id());
    spec.cgroup = Some(CgroupSpec {
        name: name.clone(),
        memory_bytes: Some(64 << 20),
        pids: Some(10),
        cpu_millis: Some(500),
        ..CgroupSpec::default()
    });
    let root = Path::new("/sys/fs/cgroup");
    let read = |path: PathBuf| fs::read_to_string(path).unwrap_or_default();
    let (stdio, out, err) = piped();
    let created = mica_runtime::spawn(&spec, stdio).unwrap();
    println!("limits that cannot be kept here: {:?}", created.unkept_limits);
    let all_kept = created.unkept_limits.is_empty();
    let memory = [("memory/mica", "memory.limit_in_bytes"), ("mica", "memory.max")]
        .map(|(parent, file)| read(root.join(parent).join(&name).join(file)))
        .concat();
    let outcome = finish(created, out, err).unwrap();
    assert_eq!(outcome.status.code(), 0);
    if all_kept {
        assert_eq!(memory.trim(), (64 << 20).to_string());
        assert!(
            outcome.stdout.contains("mica/test-") || outcome.stdout.trim() == "0::/",
            "{}",
            outcome.stdout
        );
    }
    fs::create_dir_all(root.join("pids/mica/left")).ok();
    mica_runtime::sweep_cgroups(std::time::Duration::ZERO);
    for parent in ["mica", "memory/mica", "pids/mica", "cpu/mica"] {
        let left: Vec<_> = fs::read_dir(root.join(parent)).into_iter().flatten().flatten().collect();
        assert!(left.iter().all(|entry| !entry.path().is_dir()), "{left:?}");
        let _ = fs::remove_dir(root.join(parent));
    }
}
