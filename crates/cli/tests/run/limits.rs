use crate::support::text;
use crate::world_or_skip;

#[test]
fn root_limits_are_kept_or_told() {
    let world = world_or_skip!();
    let output = world.mica(&[
        "run",
        "--rm",
        "--network=none",
        "-m",
        "64m",
        "--pids-limit",
        "20",
        "--cpus",
        "0.5",
        "box",
        "echo",
        "ok",
    ]);
    println!("{output:?}");
    assert_eq!(text(&output.stdout), "ok", "{output:?}");
    let stderr = text(&output.stderr);
    assert!(stderr.is_empty() || stderr.contains("resource limits are not kept"), "{stderr}");
}

#[test]
fn root_capabilities_are_as_asked() {
    let world = world_or_skip!();
    let check = |arguments: &[&str], expect: &str| {
        let mut all = arguments.to_vec();
        all.extend(["box", "grep", "CapEff", "/proc/self/status"]);
        assert_eq!(world.run(&all).trim_start_matches("CapEff:").trim(), expect, "{arguments:?}");
    };
    check(&[], "00000000a80425fb");
    check(&["--cap-drop", "ALL"], "0000000000000000");
    check(&["--cap-drop", "all", "--cap-add", "cap_chown"], "0000000000000001");
    check(&["--cap-add", "SYS_ADMIN"], "00000000a82425fb");
    let seccomp = |arguments: &[&str], expect: &str| {
        let mut all = arguments.to_vec();
        all.extend(["box", "grep", "Seccomp:", "/proc/self/status"]);
        assert_eq!(world.run(&all), format!("Seccomp:\t{expect}"), "{arguments:?}");
    };
    seccomp(&[], "2");
    seccomp(&["--security-opt", "seccomp=unconfined"], "0");
    seccomp(&["--privileged"], "0");
    let all =
        world.run(&["--security-opt=no-new-privileges", "box", "grep", "NoNewPrivs", "/proc/self/status"]);
    assert_eq!(all, "NoNewPrivs:\t1");
}
