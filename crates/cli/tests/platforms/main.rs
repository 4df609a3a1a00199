//! Builds for other platforms than this machine's, and for several at once.

mod emulated;
mod index;
mod parallel;
mod unserved;

use std::path::Path;

use mica_testkit::{Mica, Outcome, bases, run_bounded};

/// The binary under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A build of a few files, on a machine that does much else.
const DEADLINE: std::time::Duration = std::time::Duration::from_secs(240);

/// A directory with a Dockerfile, removed at the end.
pub struct Project(tempfile::TempDir);

impl Project {
    /// With this Dockerfile.
    pub fn new(dockerfile: &str) -> Project {
        let project = Project(Mica::temporary_dir());
        project.write("Dockerfile", dockerfile.as_bytes());
        project
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a file in.
    pub fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path().join(name), bytes).expect("a file of the project");
    }

    /// Builds it with these flags, whatever the result.
    pub fn build(&self, mica: &Mica, flags: &[&str]) -> Outcome {
        let path = self.path().to_string_lossy();
        run_bounded(mica.command(&[&["build"], flags, &[&path]].concat()), DEADLINE)
    }

    /// Builds it and insists on success.
    #[track_caller]
    pub fn ok(&self, mica: &Mica, flags: &[&str]) -> Outcome {
        let outcome = self.build(mica, flags);
        assert!(outcome.code == 0, "{flags:?}: {outcome}");
        outcome
    }
}

/// A store with a busybox for this machine, `box`. An error is a reason to skip.
pub fn mica_with_busybox() -> Result<Mica, String> {
    let base = bases::busybox()?;
    let mica = Mica::new(BINARY);
    mica.import(&base, "box");
    Ok(mica)
}

/// What a template shows of an image.
#[track_caller]
pub fn shown(mica: &Mica, flags: &[&str], template: &str) -> String {
    let command = [&["image", "inspect", "-f", template], flags].concat();
    mica.ok(&command).stdout.trim().to_owned()
}
