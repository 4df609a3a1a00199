//! Trees served for real, under an overlay in a mount namespace of their own. The program has a `main` of its own, because
//! each test is a process: it may enter a user namespace, which only a single thread can, and it may be told to die. The
//! words on its command line choose the tests whose names hold one of them.

mod faults;
mod operations;
mod serving;
mod strace;
mod support;

use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// A test, and what its children do by name.
type Test = (&'static str, fn());
type Actor = (&'static str, fn());

/// A test that takes this long hangs.
const DEADLINE: Duration = Duration::from_secs(200);
const POLL: Duration = Duration::from_millis(10);

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let tests: Vec<Test> = [operations::TESTS, serving::TESTS, faults::TESTS, strace::TESTS].concat();
    let actors: Vec<Actor> = [operations::ACTORS, serving::ACTORS, faults::ACTORS, strace::ACTORS].concat();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["child", name, mount, run] => {
            support::mount_and_enter(mount, run.as_ref());
            actors.iter().find(|(other, _)| *other == name).unwrap().1();
            return ExitCode::SUCCESS;
        }
        ["test", name] => {
            if name.starts_with("rootless_") {
                mica_sys::idmap::enter_user_namespace().unwrap();
            }
            tests.iter().chain(faults::BODIES).find(|(other, _)| *other == name).unwrap().1();
            return ExitCode::SUCCESS;
        }
        _ => {}
    }
    let skipped = skipped(&arguments);
    let words: Vec<&String> =
        arguments.iter().filter(|word| !word.starts_with('-') && !skipped.contains(word)).collect();
    let chosen = tests.iter().map(|(name, _)| *name).filter(|name| {
        (words.is_empty() || words.iter().any(|word| name.contains(word.as_str())))
            && !skipped.iter().any(|word| name.contains(word.as_str()))
    });
    let mut code = ExitCode::SUCCESS;
    for name in chosen {
        if arguments.iter().any(|argument| argument == "--list") {
            println!("{name}: test");
        } else if let Some(reason) = reason_to_skip(name) {
            println!("skipped: {name}: {reason}");
        } else {
            let passed = run(name);
            println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
            if !passed {
                code = ExitCode::FAILURE;
            }
        }
    }
    code
}

/// The words behind `--skip`.
fn skipped(arguments: &[String]) -> Vec<&String> {
    let pairs = arguments.windows(2);
    pairs.filter(|pair| pair[0] == "--skip").map(|pair| &pair[1]).collect()
}

fn reason_to_skip(name: &str) -> Option<String> {
    match (name.starts_with("rootless_"), rustix::process::geteuid().is_root()) {
        (true, true) => return Some("needs an unprivileged user (`cargo xtask test` runs it as one)".into()),
        (false, false) => return Some("needs root".into()),
        _ => {}
    }
    let device = std::fs::File::options().read(true).write(true).open("/dev/fuse");
    device.err().map(|error| format!("/dev/fuse: {error}"))
}

/// Runs a test as a process, for a bounded time.
fn run(name: &str) -> bool {
    let mut child = Command::new("/proc/self/exe").args(["test", name]).spawn().unwrap();
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.success();
        }
        if start.elapsed() > DEADLINE {
            println!("{name} hangs");
            child.kill().unwrap();
            child.wait().unwrap();
            return false;
        }
        std::thread::sleep(POLL);
    }
}
