//! Projects that are checked out several times, and builders that differ in what must not matter.

use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Mica, Need, Outcome, bases, find_tool, missing, run_bounded};

pub const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// The base of these tests, or nothing after the reason was told.
fn base() -> Option<PathBuf> {
    if let Some(reason) = missing(&[Need::Root]) {
        println!("skipped: {reason}");
        return None;
    }
    match bases::busybox() {
        Ok(base) => Some(base),
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// A store with the image `base:1`.
pub fn store() -> Option<Mica> {
    let base = base()?;
    let mica = Mica::new(BINARY);
    mica.import(&base, "base:1");
    Some(mica)
}

/// A directory with a Dockerfile.
pub fn project(dockerfile: &str, files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = Mica::temporary_dir();
    fs::write(dir.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
    for (name, content) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(path, content).expect("a file");
    }
    dir
}

/// Builds without network; `flags` go before the context.
pub fn build(mica: &Mica, dir: &Path, flags: &[&str]) -> Command {
    let mut arguments = vec!["build", "--network=none", "--progress=plain"];
    arguments.extend(flags);
    let mut command = mica.command(&arguments);
    command.arg(dir).env_remove("SOURCE_DATE_EPOCH");
    command
}

/// The same command under another umask.
pub fn with_umask(umask: u32, command: &Command) -> Command {
    let mut wrapped = Command::new("sh");
    wrapped.args(["-c", &format!("umask {umask:04o}; exec \"$0\" \"$@\"")]);
    wrapped.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Runs it, insists on success.
#[track_caller]
pub fn ok(command: Command) -> Outcome {
    let outcome = run(command);
    assert!(outcome.code == 0, "{outcome}");
    outcome
}

pub fn run(command: Command) -> Outcome {
    run_bounded(command, Duration::from_secs(300))
}

/// The image ID of a build with `-q`.
#[track_caller]
pub fn id(mica: &Mica, dir: &Path, flags: &[&str]) -> String {
    ok(build(mica, dir, &[&["-q"], flags].concat())).stdout.trim().to_owned()
}

/// What is checked out: some of all that COPY and ADD know.
pub fn check_out(dir: &Path, umask: u32, time: SystemTime) {
    let write = |name: &str, content: &[u8], mode: u32| {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode & !umask)).expect("a mode");
    };
    write("a.txt", b"a\n", 0o666);
    write("src/deep/er/file", b"file\n", 0o666);
    write("src/run.sh", b"#!/bin/sh\necho run\n", 0o777);
    write("src/b", b"b\n", 0o666);
    let mut tar = Writer::default();
    tar.add(Entry { mtime: 1_000_000, uid: 7, ..Entry::dir("old") }, b"");
    tar.add(Entry { mtime: 1_700_000_000, mode: 0o600, gid: 8, ..Entry::file("old/new") }, b"new");
    tar.add(Entry::hard_link("old/again", "old/new"), b"");
    write("some.tar", &tar.finish(), 0o666);
    symlink("run.sh", dir.join("src/link")).expect("a link");
    set_times(dir, umask, time);
}

fn set_times(dir: &Path, umask: u32, time: SystemTime) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            set_times(&path, umask, time);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777 & !umask)).expect("a mode");
        }
        File::open(&path)
            .and_then(|file| file.set_times(FileTimes::new().set_modified(time)))
            .expect("a time");
    }
}

/// An ordinary user with subordinate ids, made for the test and taken back.
pub struct User {
    name: String,
    pub id: u32,
    program: tempfile::TempDir,
}

impl User {
    /// Nothing where there can be none; the reason is told.
    pub fn new() -> Option<User> {
        if find_tool("newuidmap").is_none() || find_tool("useradd").is_none() {
            println!("skipped: `useradd` or `newuidmap` is not installed");
            return None;
        }
        let name = format!("micarepro{}", std::process::id());
        let made = Command::new("useradd").args(["-M", "-d", "/nonexistent", &name]).status();
        if !made.is_ok_and(|status| status.success()) {
            println!("skipped: no user can be made");
            return None;
        }
        let id = Command::new("id").args(["-u", &name]).output().expect("id").stdout;
        let id = String::from_utf8_lossy(&id).trim().parse().expect("a number");
        let program = tempfile::tempdir().expect("a directory");
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).expect("a mode");
        fs::copy(BINARY, program.path().join("mica")).expect("a copy of the program");
        Some(User { name, id, program })
    }

    /// The user's own store.
    pub fn command(&self, root: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.program.path().join("mica"));
        command.arg("--root").arg(root.join("store")).args(arguments).stdin(Stdio::null());
        mica_testkit::isolate(&mut command, &root.join("settings"));
        command.env("HOME", root).current_dir("/").uid(self.id).gid(self.id);
        command
    }

    /// Gives a directory with all that is in it to the user.
    pub fn give(&self, path: &Path) {
        lchown(path, Some(self.id), Some(self.id)).expect("chown");
        if path.is_dir() && !path.is_symlink() {
            for entry in fs::read_dir(path).expect("a directory") {
                self.give(&entry.expect("an entry").path());
            }
        }
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}
