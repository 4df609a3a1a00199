//! A store with a busybox image, for root or for an ordinary user, and builds on it.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use mica_testkit::{Mica, Need, Outcome, bases, missing, run_bounded};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
const DEADLINE: Duration = Duration::from_secs(300);

/// A user made for the test, with a copy of the program where the user may reach it.
struct User {
    name: String,
    id: u32,
    program: PathBuf,
}

/// A store with the image `box`, and a build context.
pub struct Bench {
    pub mica: Mica,
    pub dir: tempfile::TempDir,
    user: Option<User>,
}

/// Runs a test as root, and again as an ordinary user.
pub fn as_root_and_user(test: impl Fn(&Bench)) {
    if let Some(reason) = missing(&[Need::Root, Need::Tool("busybox")]) {
        println!("skipped: {reason}");
        return;
    }
    test(&Bench::new(None));
    match User::new() {
        Ok(user) => test(&Bench::new(Some(user))),
        Err(reason) => println!("skipped as an ordinary user: {reason}"),
    }
}

impl User {
    fn new() -> Result<Self, String> {
        if let Some(reason) = missing(&[Need::Tool("newuidmap"), Need::Tool("useradd")]) {
            return Err(reason);
        }
        // Tests of this program run at the same time.
        static NUMBER: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let name = format!("micamnt{}-{number}", std::process::id());
        let made = Command::new("useradd").args(["-M", "-d", "/nonexistent", &name]).output();
        let made = made.map_err(|error| error.to_string())?;
        if !made.status.success() {
            return Err(String::from_utf8_lossy(&made.stderr).into_owned());
        }
        let id = Command::new("id").args(["-u", &name]).output().map_err(|error| error.to_string())?;
        let id = String::from_utf8_lossy(&id.stdout).trim().parse().map_err(|_| "no user id")?;
        Ok(Self { name, id, program: PathBuf::new() })
    }
}

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.name).output();
    }
}

fn give_to(path: &Path, id: u32) {
    chown(path, Some(id), Some(id)).expect("chown");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("a directory") {
            give_to(&entry.expect("an entry").path(), id);
        }
    }
}

impl Bench {
    fn new(user: Option<User>) -> Self {
        let dir = Mica::temporary_dir();
        fs::create_dir(dir.path().join("context")).expect("a context");
        let base = dir.path().join("base.tar");
        fs::copy(bases::busybox().expect("busybox"), &base).expect("a base");
        let mica = Mica::at(BINARY, &dir.path().join("store"));
        let user = user.map(|mut user| {
            user.program = dir.path().join("mica");
            // By another process: a program that is open for writing does not run, and tests beside this one fork.
            let copied = Command::new("cp").arg(mica.binary()).arg(&user.program).status();
            assert!(copied.expect("cp").success());
            give_to(dir.path(), user.id);
            give_to(mica.settings(), user.id);
            user
        });
        let bench = Self { mica, dir, user };
        bench.ok(&["import", &base.to_string_lossy(), "box"]);
        bench
    }

    pub fn is_user(&self) -> bool {
        self.user.is_some()
    }

    /// A file of the test, beside the context.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("permissions");
        if let Some(user) = &self.user {
            chown(&path, Some(user.id), Some(user.id)).expect("chown");
        }
        path
    }

    /// A new directory of the test.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::create_dir(&path).expect("a directory");
        if let Some(user) = &self.user {
            chown(&path, Some(user.id), Some(user.id)).expect("chown");
        }
        path
    }

    /// Another program, as whom the bench is for.
    pub fn as_who(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        if let Some(user) = &self.user {
            command.env("HOME", self.dir.path()).current_dir("/").uid(user.id).gid(user.id);
        }
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let command = self.mica.command(arguments);
        let Some(user) = &self.user else { return command };
        let mut as_user = Command::new(&user.program);
        as_user.args(command.get_args()).stdin(std::process::Stdio::null());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => as_user.env(name, value),
                None => as_user.env_remove(name),
            };
        }
        as_user.env("HOME", self.dir.path()).current_dir("/").uid(user.id).gid(user.id);
        as_user
    }

    pub fn run(&self, arguments: &[&str]) -> Outcome {
        run_bounded(self.command(arguments), DEADLINE)
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Outcome {
        let outcome = self.run(arguments);
        assert_eq!(outcome.code, 0, "{arguments:?}: {outcome}");
        outcome
    }

    /// A command that builds this Dockerfile as `t`. Nothing of it needs a network.
    pub fn build_command(&self, dockerfile: &str, arguments: &[&str]) -> Command {
        self.write("context/Dockerfile", dockerfile);
        let context = self.dir.path().join("context");
        let context = context.to_string_lossy();
        let mut all = vec!["build", "-t", "t"];
        for default in ["--network=none", "--progress=plain"] {
            let flag = default.split('=').next().unwrap_or_default();
            if !arguments.iter().any(|argument| argument.starts_with(flag)) {
                all.push(default);
            }
        }
        all.extend(arguments);
        all.push(&context);
        self.command(&all)
    }

    pub fn build(&self, dockerfile: &str, arguments: &[&str]) -> Outcome {
        run_bounded(self.build_command(dockerfile, arguments), DEADLINE)
    }

    /// Builds, and insists that it works.
    #[track_caller]
    pub fn builds(&self, dockerfile: &str, arguments: &[&str]) -> Outcome {
        let outcome = self.build(dockerfile, arguments);
        assert_eq!(outcome.code, 0, "{dockerfile}: {outcome}");
        outcome
    }

    /// Builds, and insists that it fails and says all of this.
    #[track_caller]
    pub fn refuses(&self, dockerfile: &str, arguments: &[&str], expect: &[&str]) -> Outcome {
        let outcome = self.build(dockerfile, arguments);
        assert_ne!(outcome.code, 0, "{dockerfile}: {outcome}");
        for text in expect {
            assert!(outcome.stderr.contains(text), "does not say `{text}`: {outcome}");
        }
        outcome
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.mica.check_nothing_left();
        if self.is_user() {
            // What belongs to subordinate ids goes with root's help.
            let _ = fs::remove_dir_all(self.mica.root());
        }
    }
}

/// What steps wrote with `echo said WORDS`, without what the progress puts before it.
pub fn said(stderr: &str) -> Vec<&str> {
    fn words(line: &str) -> Option<&str> {
        let (elapsed, written) = line.split_once(' ')?.1.split_once(' ')?;
        elapsed.parse::<f64>().ok()?;
        written.strip_prefix("said ")
    }
    stderr.lines().filter_map(words).collect()
}
