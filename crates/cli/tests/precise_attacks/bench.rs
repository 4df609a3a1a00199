//! A base, a store, and builds before and after an edit.

use std::fs;
use std::path::Path;
use std::process::Command;

use mica_testkit::{Mica, Need, Outcome, SavedImage, bases, differences, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A store with a base in it.
pub struct Bench {
    pub mica: Mica,
}

impl Bench {
    pub fn new(need: Need) -> Option<Bench> {
        let base = match missing(&[need]) {
            Some(reason) => Err(reason),
            None => bases::busybox(),
        };
        let base = base.map_err(|reason| println!("skipped: {reason}")).ok()?;
        let mica = Mica::new(BINARY);
        mica.import(&base, "base:1");
        Some(Bench { mica })
    }

    pub fn build(&self, context: &Path, name: &str, flags: &[&str]) -> Outcome {
        let context = context.to_string_lossy();
        let words =
            [&["build", "--progress=plain", "--network=none", "-t", name], flags, &[&*context]].concat();
        self.mica.run(&words)
    }

    /// Builds, edits, builds again, and compares with a build that uses no earlier result. Answers whether the last step
    /// ran after the edit.
    pub fn ran_again(&self, name: &str, dockerfile: &str, before: &str, edit: &str) -> bool {
        let context = Mica::temporary_dir();
        self.ran_again_in(context.path(), name, dockerfile, before, || shell(context.path(), edit))
    }

    pub fn ran_again_after(&self, name: &str, dockerfile: &str, before: &str, edit: impl FnOnce()) -> bool {
        let context = Mica::temporary_dir();
        self.ran_again_in(context.path(), name, dockerfile, before, edit)
    }

    pub fn ran_again_in(
        &self,
        context: &Path,
        name: &str,
        dockerfile: &str,
        before: &str,
        edit: impl FnOnce(),
    ) -> bool {
        fs::write(context.join("Dockerfile"), dockerfile).expect("a Dockerfile");
        shell(context, before);
        let first = self.build(context, "cached", &[]);
        assert!(first.code == 0, "{name}: {first}");
        edit();
        let cached = self.build(context, "cached", &[]);
        // Without tracing as well: over the layers as they are on disk.
        let fresh = self.build(context, "fresh", &["--no-cache", "--cache=exact"]);
        assert_eq!(cached.code, fresh.code, "{name}: {cached}\n{fresh}");
        assert!(!cached.stderr.contains("panicked at"), "{name}: {cached}");
        if cached.code == 0 {
            let (cached, fresh) = (SavedImage::of(&self.mica, "cached"), SavedImage::of(&self.mica, "fresh"));
            let differences = differences(&fresh.tree, &cached.tree, |_| false);
            assert!(differences.is_empty(), "{name}: stale: {differences:#?}");
        }
        // Nothing was taken over where the build ended, maybe before it came to a step.
        cached.code != 0 || last_step_ran(&cached.stderr)
    }
}

/// Whether the last instruction of a build was done, from its progress.
#[track_caller]
pub fn last_step_ran(progress: &str) -> bool {
    let is_step = |line: &&str| line.split_once("] ").is_some_and(|(left, _)| left.contains('/'));
    let last = progress.lines().filter(is_step).max_by_key(|line| {
        line.split_once('[').and_then(|(_, rest)| rest.split('/').next()?.parse::<u32>().ok())
    });
    let last = last.unwrap_or_else(|| panic!("no step in\n{progress}"));
    let number = last.split(' ').next().unwrap_or_default();
    !progress.lines().any(|line| line.starts_with(&format!("{number} CACHED")))
}

pub fn shell(directory: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(directory).status().expect("sh");
    assert!(status.success(), "{script}");
}
