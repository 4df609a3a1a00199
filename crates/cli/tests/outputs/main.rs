//! Where the result of a build goes, `--output` and its sisters: every form looked at by other tools.

mod bad;
mod files;
mod images;
mod interrupted;
mod registry;
mod user;

use std::fs;
use std::path::{Path, PathBuf};

use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Mica, Outcome};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A store with the image `base`, and a context that builds on it.
struct Bench {
    mica: Mica,
    dir: tempfile::TempDir,
}

/// Files of all kinds, of several owners.
fn base_tar() -> Vec<u8> {
    let mut tar = Writer::default();
    tar.add(Entry::dir("etc"), b"");
    tar.add(Entry::file("etc/conf"), b"below\n");
    tar.add(Entry::dir("bin"), b"");
    tar.add(Entry { mode: 0o4755, mtime: 1_500_000_000, ..Entry::file("bin/tool") }, b"#!/bin/sh\n");
    tar.add(Entry { mode: 0o4755, ..Entry::hard_link("bin/twin", "bin/tool") }, b"");
    tar.add(Entry::symlink("bin/link", "tool"), b"");
    tar.add(Entry { uid: 1000, gid: 1000, mode: 0o700, ..Entry::dir("home") }, b"");
    tar.add(Entry { uid: 1000, gid: 1000, mode: 0o600, ..Entry::file("home/own") }, b"own\n");
    tar.add(Entry { mode: 0o4755, ..Entry::hard_link("etc/tool", "bin/tool") }, b"");
    tar.add(Entry { kind: b'6', ..Entry::file("etc/pipe") }, b"");
    tar.finish()
}

const DOCKERFILE: &str =
    "FROM base\nCOPY hello /data/\nLABEL made=here\nCOPY big /data/big\nCMD [\"/bin/tool\"]\n";

impl Bench {
    fn new() -> Self {
        let bench = Bench { mica: Mica::new(BINARY), dir: Mica::temporary_dir() };
        fs::create_dir(bench.path("context")).expect("a context");
        fs::write(bench.path("base.tar"), base_tar()).expect("a base");
        bench.mica.import(&bench.path("base.tar"), "base");
        bench.write("hello", b"hello\n");
        bench.write("big", &mica_testkit::images::random_tar("noise", 1_500_000, 7));
        bench.dockerfile(DOCKERFILE);
        bench
    }

    fn dockerfile(&self, text: &str) {
        self.write("Dockerfile", text.as_bytes());
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path("context").join(name), bytes).expect("a file of the context");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    /// Arguments of a build, in which `@name` is a path in the directory of the test.
    fn arguments(&self, flags: &[&str]) -> Vec<String> {
        let at = format!("{}/", self.dir.path().display());
        let flags = flags.iter().map(|flag| flag.replace('@', &at));
        ["build".to_owned()].into_iter().chain(flags).chain([self.text("context")]).collect()
    }

    #[track_caller]
    fn build(&self, flags: &[&str]) -> Outcome {
        self.mica.ok(&self.arguments(flags))
    }

    #[track_caller]
    fn fails(&self, flags: &[&str]) -> String {
        self.mica.fails(&self.arguments(flags), 1).stderr
    }

    /// Names in the directory of the test, hidden ones too.
    fn left(&self) -> Vec<String> {
        names(self.dir.path())
    }

    /// Names of all images, sorted.
    fn images(&self) -> String {
        let listed = self.mica.ok(&["images", "-a", "--format", "{{.Repository}}:{{.Tag}}"]).stdout;
        let mut lines: Vec<_> = listed.lines().map(|line| format!("{line}\n")).collect();
        lines.sort();
        lines.concat()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("a directory");
    let name =
        |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(path).expect("a file")).expect("JSON")
}
