//! A user with a home of their own.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use mica_testkit::{Mica, Outcome, PASSWORD, run_bounded};

pub const DEADLINE: Duration = Duration::from_secs(60);
/// base64 of `tester:swordfish`.
pub const AUTH: &str = "dGVzdGVyOnN3b3JkZmlzaA==";

/// A user with a home of their own.
pub struct User {
    home: tempfile::TempDir,
}

impl User {
    pub fn new() -> User {
        let user = User { home: Mica::temporary_dir() };
        user.write("registries.conf", "");
        user
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub fn config(&self) -> String {
        fs::read_to_string(self.at(".docker/config.json")).unwrap_or_default()
    }

    pub fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), text).unwrap();
    }

    pub fn program(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).env("HOME", self.home.path());
        for name in
            ["DOCKER_CONFIG", "REGISTRY_AUTH_FILE", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_DATA_HOME"]
        {
            command.env_remove(name);
        }
        // What the machine has in `/etc` is no part of the test.
        command.env("CONTAINERS_REGISTRIES_CONF", self.at("registries.conf"));
        command.env("PATH", format!("{}:{}", self.at("bin").display(), std::env::var("PATH").unwrap()));
        command
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let binary = std::env::var("MICA_BINARY").unwrap_or(env!("CARGO_BIN_EXE_mica").to_owned());
        self.program(&binary, arguments)
    }

    pub fn mica(&self, arguments: &[&str], stdin: &str) -> Outcome {
        let mut command = self.command(arguments);
        self.write("stdin", stdin);
        command.stdin(File::open(self.at("stdin")).unwrap());
        let outcome = run_bounded(command, DEADLINE);
        for text in [&outcome.stdout, &outcome.stderr] {
            assert!(
                !text.contains(PASSWORD) && !text.contains(AUTH),
                "{arguments:?} shows a secret: {outcome}"
            );
        }
        outcome
    }

    #[track_caller]
    pub fn check(&self, arguments: &[&str], stdin: &str, code: i32, stdout: &str, stderr: &str) {
        let outcome = self.mica(arguments, stdin);
        let (stdout, stderr) = (self.expand(stdout), self.expand(stderr));
        assert_eq!(
            (outcome.code, outcome.stdout.as_str()),
            (code, stdout.as_str()),
            "{arguments:?}: {outcome}"
        );
        assert_eq!(outcome.stderr, stderr, "{arguments:?}");
    }

    pub fn expand(&self, text: &str) -> String {
        text.replace("HOME", &self.home.path().display().to_string())
    }

    #[track_caller]
    pub fn ok(&self, program: &str, arguments: &[&str]) -> Outcome {
        let outcome = run_bounded(self.program(program, arguments), DEADLINE);
        assert_eq!(outcome.code, 0, "{program} {arguments:?}: {outcome}");
        outcome
    }
}

/// Ends the test early, with the reason, where something is not there.
#[macro_export]
macro_rules! needs {
    ($($need:expr),*) => {
        if let Some(reason) = mica_testkit::missing(&[$($need),*]) {
            println!("skipped: {reason}");
            return;
        }
    };
}
