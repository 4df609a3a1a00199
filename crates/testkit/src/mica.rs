//! Runs the binary on a store of its own, as a user would.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::leftovers;

/// How long one command may take: a build of an example over a slow mirror, several times over.
const DEADLINE: Duration = Duration::from_secs(900);

/// What a command did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// The exit code; 128 plus the signal's number for a killed one, as shells count.
    pub code: i32,
    /// Standard output, lossily as text.
    pub stdout: String,
    /// Standard error, lossily as text.
    pub stderr: String,
    /// How long it took.
    pub time: Duration,
}

/// A `mica` binary with a store of its own, removed at the end, and with settings of its own: no test reaches a registry
/// that it did not start, nor reads the logins of whoever runs it.
#[derive(Debug)]
pub struct Mica {
    binary: PathBuf,
    root: PathBuf,
    settings: TempDir,
    // Keeps the directory until the end; `None` for a store that someone else made.
    _dir: Option<TempDir>,
}

impl Mica {
    /// A new store for this binary (`env!("CARGO_BIN_EXE_mica")`; `MICA_BINARY` goes before it).
    ///
    /// The path is short because overlayfs options and unix sockets have limits that a test must not meet by accident.
    pub fn new(binary: &str) -> Mica {
        let dir = Mica::temporary_dir();
        let root = dir.path().join("r");
        Mica { binary: binary_path(binary), root, settings: settings(), _dir: Some(dir) }
    }

    /// A store at a place that the test chose and removes itself.
    pub fn at(binary: &str, root: &Path) -> Mica {
        Mica { binary: binary_path(binary), root: root.to_owned(), settings: settings(), _dir: None }
    }

    /// A directory that goes away with the value, on the filesystem where stores are made.
    pub fn temporary_dir() -> TempDir {
        let parent =
            std::env::var_os("MICA_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
        tempfile::Builder::new().prefix("mt").rand_bytes(4).tempdir_in(parent).expect("a temporary directory")
    }

    /// The store's directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The binary that runs.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A command to change before it is run.
    pub fn command<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--root").arg(&self.root).args(arguments).stdin(Stdio::null());
        isolate(&mut command, self.settings.path());
        command
    }

    /// Lets a registry on loopback (`127.0.0.1:PORT`) stand in for Docker Hub. Until then the Hub refuses connections.
    pub fn set_hub(&self, host: &str) {
        write_hub(self.settings.path(), host);
    }

    /// Where its settings and logins are, as `XDG_CONFIG_HOME`; docker's `config.json` is in `docker`.
    pub fn settings(&self) -> &Path {
        self.settings.path()
    }

    /// Runs it, whatever the result.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        run_bounded(self.command(arguments), DEADLINE)
    }

    /// Runs it and insists on exit code 0.
    #[track_caller]
    pub fn ok<S: AsRef<OsStr>>(&self, arguments: &[S]) -> Outcome {
        let outcome = self.run(arguments);
        assert!(outcome.code == 0, "{}: {outcome}", words(arguments));
        outcome
    }

    /// Runs it and insists on this exit code.
    #[track_caller]
    pub fn fails<S: AsRef<OsStr>>(&self, arguments: &[S], code: i32) -> Outcome {
        let outcome = self.run(arguments);
        assert!(outcome.code == code, "{}: expected exit code {code}: {outcome}", words(arguments));
        outcome
    }

    /// Imports a root filesystem tar.
    #[track_caller]
    pub fn import(&self, tar: &Path, name: &str) {
        self.ok(&[OsStr::new("import"), tar.as_os_str(), OsStr::new(name)]);
    }

    /// Insists that no mount and no process of this store is left, after a moment for detached children to end.
    #[track_caller]
    pub fn check_nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let left = leftovers(&self.root);
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Mica {
    fn drop(&mut self) {
        if self._dir.is_none() {
            return;
        }
        if !std::thread::panicking() {
            self.check_nothing_left();
        }
        // Removed here and not by `TempDir`, which stops at the first file that it may not remove: a rootless store holds
        // files of subordinate ids, which only the user's own namespace can take away.
        if std::fs::remove_dir_all(&self.root).is_err() && !is_root() {
            let mut command = Command::new("unshare");
            command.args(["--user", "--map-auto", "--map-root-user", "rm", "-rf"]).arg(&self.root);
            let _ = run_bounded(command, Duration::from_secs(60));
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit code {}\n--- stdout\n{}\n--- stderr\n{}", self.code, self.stdout, self.stderr)
    }
}

/// A directory for [`isolate`].
fn settings() -> TempDir {
    let dir = Mica::temporary_dir();
    write_settings(dir.path());
    dir
}

/// Lets a `mica` find settings and logins in this directory alone. They are made where they are not: no registry is named but
/// Docker Hub, which is not there.
pub fn isolate(command: &mut Command, settings: &Path) {
    if !settings.join("registries.conf").exists() {
        write_settings(settings);
    }
    command
        .env("XDG_CONFIG_HOME", settings)
        .env("CONTAINERS_REGISTRIES_CONF", settings.join("registries.conf"))
        .env("DOCKER_CONFIG", settings.join("docker"))
        .env_remove("REGISTRY_AUTH_FILE")
        .env_remove("XDG_RUNTIME_DIR");
}

fn write_settings(settings: &Path) {
    write_hub(settings, "127.0.0.1:1");
    std::fs::create_dir_all(settings.join("docker")).expect("a directory for logins");
    std::fs::write(settings.join("registries.conf"), "").expect("settings");
}

fn write_hub(settings: &Path, host: &str) {
    let dir = settings.join("containerd/certs.d/docker.io");
    std::fs::create_dir_all(&dir).expect("a directory for settings");
    std::fs::write(dir.join("hosts.toml"), format!("server = \"http://{host}\"\n")).expect("settings");
}

/// Whether the test runs as root.
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The same command, with SIGINT as a shell's own: who runs the tests in the background has it ignored, and that is inherited.
pub fn with_interrupt(command: &Command) -> Command {
    let mut wrapped = Command::new("env");
    wrapped.arg("--default-signal=INT").arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Runs a command to its end or to the deadline, past which it is killed and the test fails.
///
/// Output goes through files, not pipes: a detached container's monitor may keep the descriptor open long after the
/// command itself has ended.
#[track_caller]
pub fn run_bounded(mut command: Command, deadline: Duration) -> Outcome {
    let stdout = tempfile::NamedTempFile::new().expect("a file for stdout");
    let stderr = tempfile::NamedTempFile::new().expect("a file for stderr");
    command.stdout(stdout.reopen().expect("a file for stdout"));
    command.stderr(stderr.reopen().expect("a file for stderr"));
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    let status = wait_until(&mut child, start + deadline);
    let read = |file: &Path| {
        let mut bytes = Vec::new();
        let _ = File::open(file).and_then(|mut file| std::io::Read::read_to_end(&mut file, &mut bytes));
        String::from_utf8_lossy(&bytes).into_owned()
    };
    let (stdout, stderr) = (read(stdout.path()), read(stderr.path()));
    let Some(status) = status else {
        panic!("{command:?} was killed after {deadline:?}\n--- stdout\n{stdout}\n--- stderr\n{stderr}");
    };
    Outcome { code: exit_code(status), stdout, stderr, time: start.elapsed() }
}

fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(status) = child.try_wait().expect("waiting for a child") {
            return Some(status);
        }
        if Instant::now() >= deadline {
            let _ = child.kill();
            let _ = child.wait();
            return None;
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    use std::os::unix::process::ExitStatusExt as _;
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

fn binary_path(built: &str) -> PathBuf {
    std::env::var_os("MICA_BINARY").map_or_else(|| PathBuf::from(built), PathBuf::from)
}

fn words<S: AsRef<OsStr>>(arguments: &[S]) -> String {
    let words: Vec<_> = arguments.iter().map(|word| word.as_ref().to_string_lossy()).collect();
    format!("`mica {}`", words.join(" "))
}
