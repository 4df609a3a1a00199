//! An ordinary user's outputs.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::process::Command;

use mica_testkit::{Need, missing};

use crate::Bench;

/// Without subordinate ids: one owner is all that an output needs.
const USER: u32 = 61_234;

#[test]
fn a_users_files_are_the_users() {
    if let Some(reason) = missing(&[Need::Root]) {
        return println!("skipped: {reason}");
    }
    let bench = Bench::new();
    let program = bench.path("mica");
    // By another process: a program that is open for writing does not run, and tests beside this one fork.
    assert!(Command::new("cp").arg(bench.mica.binary()).arg(&program).status().expect("cp").success());
    for name in ["", "context", "context/Dockerfile", "context/hello", "context/big", "base.tar", "mica"] {
        chown(bench.path(name), Some(USER), Some(USER)).unwrap();
    }
    let run = |arguments: &[String]| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(bench.path("root")).args(arguments).uid(USER).gid(USER);
        command.env("HOME", bench.dir.path()).env("XDG_CONFIG_HOME", bench.path("none"));
        let output = command.output().expect("mica");
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["import", &bench.text("base.tar"), "base"].map(str::to_owned));
    run(&bench.arguments(&[
        "-o",
        "@out",
        "-o",
        "type=oci,dest=@oci.tar",
        "-o",
        "type=tar,dest=@files.tar",
        "-t",
        "demo",
    ]));
    for name in ["out", "out/bin/tool", "out/data/big", "oci.tar", "files.tar"] {
        assert_eq!(fs::metadata(bench.path(name)).unwrap().uid(), USER, "{name}");
    }
}
