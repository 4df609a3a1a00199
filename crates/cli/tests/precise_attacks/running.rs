//! What happens while a step runs.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mica_testkit::{Mica, Need, SavedImage};

use crate::bench::{Bench, last_step_ran, shell};

/// A step waits for this file of a cache mount that the test looks for, and the test acts while it runs.
struct Waiting {
    build: std::process::Child,
}

impl Bench {
    /// Starts a build and waits until its last step says `here`.
    fn start_until_here(&self, context: &Path, name: &str) -> Waiting {
        let context = context.to_string_lossy();
        let log = fs::File::create(self.mica.root().with_extension("log")).expect("a log");
        let mut command = self.mica.command(&["build", "--progress=plain", "-t", name, &context]);
        let build = command.stdout(Stdio::null()).stderr(log).spawn().expect("starting mica");
        let waiting = Waiting { build };
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let log = fs::read_to_string(self.mica.root().with_extension("log")).unwrap_or_default();
            if log.lines().any(|line| line.ends_with(" here")) {
                return waiting;
            }
            assert!(Instant::now() < deadline, "the step does not start:\n{log}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Waiting {
    fn end(mut self) -> i32 {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.build.try_wait().expect("waiting") {
                return status.code().unwrap_or(-1);
            }
            assert!(Instant::now() <= deadline, "the build does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let _ = self.build.kill();
        let _ = self.build.wait();
    }
}

#[test]
fn root_a_file_of_the_context_that_changes_under_a_step_is_recorded_as_neither() {
    let Some(bench) = Bench::new(Need::Root) else { return };
    let context = Mica::temporary_dir();
    let context = context.path();
    // The step goes on when the file in the cache mount is there, which the second build puts there.
    let dockerfile = "FROM base:1\nRUN --mount=type=bind,target=/c \
        echo here; sleep 1; cat /c/f >/out\n";
    fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
    shell(context, "printf aaaa >f");
    let waiting = bench.start_until_here(context, "x");
    shell(context, "printf bbbb >f");
    assert_eq!(waiting.end(), 0);
    shell(context, "printf aaaa >f");
    assert!(last_step_ran(&bench.build(context, "x", &[]).stderr));
    let out = SavedImage::of(&bench.mica, "x");
    assert!(
        format!("{:?}", out.tree.get("out")).contains(&mica_testkit::sha256(b"aaaa")),
        "{:?}",
        out.tree.get("out")
    );
}

#[test]
fn root_a_step_without_output_is_ended_by_a_signal() {
    let Some(bench) = Bench::new(Need::Root) else { return };
    let context = Mica::temporary_dir();
    let context = context.path();
    for step in [
        "exec >/dev/null 2>&1; sleep 600",
        "sleep 600 & trap '' INT TERM; sleep 600",
        "kill -STOP $$; sleep 600",
    ] {
        let dockerfile = format!("FROM base:1\nRUN echo here; {step}\n");
        fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        for signal in [rustix::process::Signal::INT, rustix::process::Signal::KILL] {
            let waiting = bench.start_until_here(context, "x");
            let pid = rustix::process::Pid::from_child(&waiting.build);
            rustix::process::kill_process(pid, signal).expect("kill");
            assert_ne!(waiting.end(), 0, "{step}");
            bench.mica.check_nothing_left();
        }
    }
}
