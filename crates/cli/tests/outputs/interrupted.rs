//! Signals and full disks in the middle of an export.

use std::io::Read;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};

use crate::Bench;

/// A pipe that nobody empties holds an export at a place that is known.
#[test]
fn a_signal_leaves_nothing_half_written() {
    let bench = Bench::new();
    bench.build(&["-t", "warm"]);
    let flags = ["-o", "type=oci,dest=@oci.tar", "-o", "@out", "-o", "-"];
    let mut command = bench.mica.command(&bench.arguments(&flags));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("mica");
    let mut out = child.stdout.take().expect("stdout");
    // It is at the tar now: what came before is whole.
    out.read_exact(&mut [0; 512]).expect("the beginning of a tar");
    kill_process(Pid::from_child(&child), Signal::INT).expect("a signal");
    let mut rest = Vec::new();
    out.read_to_end(&mut rest).expect("the rest");
    let mut said = String::new();
    child.stderr.take().expect("stderr").read_to_string(&mut said).expect("text");
    let status = child.wait().expect("mica");
    // The tar may have fitted into the pipe.
    if status.code() != Some(0) {
        assert_eq!(status.code(), Some(130), "{said}");
        assert!(said.contains("error: interrupted"), "{said}");
    }
    assert_eq!(bench.left(), ["base.tar", "context", "oci.tar", "out"]);
    assert!(bench.path("out/data/big").exists());
}

/// While files go out that no image of the store has, others clean up.
#[test]
fn collection_meanwhile_takes_nothing() {
    let bench = Bench::new();
    bench.build(&["-o", "type=tar,dest=@expect.tar"]);
    let mut command = bench.mica.command(&bench.arguments(&["-o", "-"]));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("mica");
    let mut out = child.stdout.take().expect("stdout");
    let mut found = vec![0; 512];
    out.read_exact(&mut found).expect("the beginning of a tar");
    bench.mica.ok(&["rmi", "-f", "base"]);
    bench.mica.ok(&["builder", "prune", "-a", "-f"]);
    bench.mica.ok(&["system", "prune", "-a", "-f"]);
    out.read_to_end(&mut found).expect("the rest");
    assert!(child.wait().expect("mica").success());
    assert!(found == std::fs::read(bench.path("expect.tar")).unwrap());
}

#[test]
fn what_cannot_be_written_leaves_what_was_there() {
    let bench = Bench::new();
    std::fs::write(bench.path("x.tar"), b"before").unwrap();
    // A limit on the size of files stands for a full disk.
    let mut command = std::process::Command::new("sh");
    let line = "ulimit -f 1000; trap '' XFSZ; exec \"$@\"";
    command.args(["-c", line, "sh"]).arg(bench.mica.binary()).arg("--root").arg(bench.mica.root());
    command.args(bench.arguments(&["-o", "type=tar,dest=@x.tar"]));
    bench.build(&["-t", "warm"]);
    let output = command.output().expect("mica");
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(std::fs::read(bench.path("x.tar")).unwrap(), b"before");
    assert_eq!(bench.left(), ["base.tar", "context", "x.tar"]);
}
