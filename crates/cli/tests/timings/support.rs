//! A store with a base image that has a shell, and a directory to build in.

use std::fs;
use std::path::PathBuf;

use mica_testkit::{Mica, Need, bases, missing};

/// A place to build in.
pub struct Bench {
    pub mica: Mica,
    dir: tempfile::TempDir,
}

impl Bench {
    /// `None` where builds cannot run; says why.
    pub fn new(needs: &[Need]) -> Option<Bench> {
        let base = bases::busybox();
        let reason = missing(needs).or_else(|| base.as_ref().err().cloned());
        if let Some(reason) = reason {
            println!("skipped: {reason}");
            return None;
        }
        let bench = Bench { mica: Mica::new(env!("CARGO_BIN_EXE_mica")), dir: Mica::temporary_dir() };
        bench.mica.import(&base.ok()?, "base:1");
        fs::create_dir(bench.path("context")).ok()?;
        Some(bench)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A path as an argument.
    pub fn text(&self, name: &str) -> String {
        self.path(name).to_string_lossy().into_owned()
    }

    pub fn write(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).expect("a file");
    }

    pub fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Arguments of a build of `context`, with flags before it.
    pub fn build(&self, flags: &[&str]) -> Vec<String> {
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        ["build".to_owned()].into_iter().chain(flags).chain([self.text("context")]).collect()
    }
}
