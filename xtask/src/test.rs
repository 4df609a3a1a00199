//! All that CI runs: formatting, lints, unit tests, end-to-end tests as root and as an unprivileged user.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::Instant;

use mica_testkit::{bases, is_root};

use crate::tally::Tally;
use crate::{cargo, fuzz, packages, unprivileged};

/// Runs everything, prints the counts, and fails if anything failed.
pub fn run() -> Result<(), String> {
    let mut tally = Tally::default();
    let mut times = Vec::new();

    part(&mut times, "packages", || {
        let missing = packages::install(packages::TESTS);
        if !missing.is_empty() {
            println!("without {}: the tests that need them are skipped", missing.join(", "));
        }
        if let Err(reason) = packages::install_moto() {
            println!("without moto: the tests of buckets are skipped ({reason})");
        }
    });
    part(&mut times, "formatting", || {
        check(&mut tally, "cargo fmt", cargo::cargo(&["fmt", "--all", "--check"]))
    });
    part(&mut times, "lints", || {
        let lints = ["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"];
        check(&mut tally, "cargo clippy", cargo::cargo(&lints));
    });
    part(&mut times, "base images", || {
        for base in [bases::busybox(), bases::debian(), bases::debian_with_tools()] {
            if let Err(reason) = base {
                println!("no base image: {reason}");
            }
        }
    });
    part(&mut times, "tests", || {
        let mut command = cargo::cargo(&["test", "--workspace", "--no-fail-fast", "--", "--show-output"]);
        if is_root() {
            // They have their own run below, as the user that they are about.
            command.args(["--skip", "rootless_"]);
        }
        count(&mut tally, "cargo test", command);
    });
    part(&mut times, "fuzz targets", || {
        let mut format = cargo::cargo(&["fmt", "--check"]);
        format.current_dir(cargo::workspace().join("fuzz"));
        check(&mut tally, "cargo fmt of the fuzz targets", format);
        match fuzz::run(&fuzz::Options { seconds: None, targets: Vec::new() }) {
            Ok(failed) => failed.iter().for_each(|name| tally.step_failed(&format!("fuzz {name}"))),
            Err(problem) => tally.step_failed(&format!("fuzz targets: {problem}")),
        }
    });
    if is_root() {
        part(&mut times, "tests as an unprivileged user", || {
            if let Err(problem) = unprivileged::run(&mut tally) {
                println!("{problem}");
                tally.step_failed(&format!("tests as an unprivileged user: {problem}"));
            }
        });
    }

    println!();
    for (name, seconds) in times {
        println!("{seconds:7.1} s  {name}");
    }
    println!("{}", tally.summary());
    if tally.failed == 0 { Ok(()) } else { Err("not everything passed".into()) }
}

fn part(times: &mut Vec<(&'static str, f64)>, name: &'static str, work: impl FnOnce()) {
    println!("== {name}");
    let start = Instant::now();
    work();
    times.push((name, start.elapsed().as_secs_f64()));
}

fn check(tally: &mut Tally, name: &str, mut command: Command) {
    if !command.status().is_ok_and(|status| status.success()) {
        tally.step_failed(name);
    }
}

/// Runs test programs, shows their output as it comes, and counts it.
pub fn count(tally: &mut Tally, name: &str, mut command: Command) {
    let failed_before = tally.failed;
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let Ok(mut child) = child else { return tally.step_failed(name) };
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            println!("{line}");
            tally.line(&line);
        }
    }
    // A program that did not compile or was killed says no count of its own.
    let is_success = child.wait().is_ok_and(|status| status.success());
    if !is_success && tally.failed == failed_before {
        tally.step_failed(name);
    }
}
