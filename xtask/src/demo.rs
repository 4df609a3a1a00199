//! From a fresh clone to an answering server, every command shown as a user would type it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::{bases, http};

use crate::{cargo, packages};

const PORT: u16 = 3333;
const CONTAINER: &str = "my-server";
/// Node.js on a busy machine needs seconds, not minutes.
const SERVER_PATIENCE: Duration = Duration::from_secs(30);

struct Demo {
    binary: PathBuf,
    store: PathBuf,
    is_running: bool,
}

/// Runs the demo.
pub fn run() -> Result<(), String> {
    let start = Instant::now();
    let dir = bases::build_dir().join("demo");
    std::fs::create_dir_all(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;

    println!("$ cargo build --release --package mica");
    let step = Instant::now();
    let built = cargo::executables(&["build", "--release", "--package", "mica"])?;
    let binary = built.into_iter().next_back().ok_or("cargo told no program")?;
    let size_bytes = std::fs::metadata(&binary).map_or(0, |metadata| metadata.len());
    println!("  one static file, {:.1} MB: {}", size_bytes as f64 / 1e6, binary.display());
    told(step);

    println!("$ mmdebstrap --variant=minbase … debian.tar");
    let step = Instant::now();
    if let Some(program) = packages::install(packages::DEMO).first() {
        return Err(format!("`{program}` is needed for the Debian base image"));
    }
    let base = bases::debian_in(&dir)?;
    println!("  the base image's files: {}", base.display());
    told(step);

    let mut demo = Demo { binary, store: dir.join("store"), is_running: false };
    let outcome = demo.build_and_run(&base);
    if let Err(problem) = &outcome {
        println!("  {problem}");
        if demo.is_running {
            let _ = demo.show(&["logs", CONTAINER]);
        }
    }
    demo.stop();
    outcome?;
    println!(
        "\nIt works. All of it took {:.1} s; the store is {}",
        start.elapsed().as_secs_f64(),
        demo.store.display()
    );
    Ok(())
}

impl Demo {
    fn build_and_run(&mut self, base: &Path) -> Result<(), String> {
        // A demo that was interrupted may have left its server.
        let _ = self.mica(&["rm", "-f", CONTAINER]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        if std::net::TcpStream::connect(("127.0.0.1", PORT)).is_ok() {
            return Err(format!("port {PORT} is in use by another program: stop it and run the demo again"));
        }
        self.show(&["import", &base.to_string_lossy(), "debian:12"])?;
        let example = cargo::workspace().join("examples/hello-world-server");
        self.show(&["build", "-t", "hello-world-server", &example.to_string_lossy()])?;
        self.show(&["image", "ls"])?;
        self.show(&["history", "hello-world-server"])?;
        self.is_running = true;
        let publish = format!("{PORT}:3000");
        self.show(&["run", "-d", "--rm", "-p", &publish, "--name", CONTAINER, "hello-world-server"])?;

        println!("$ curl http://localhost:{PORT}");
        let step = Instant::now();
        let answer = http::get(PORT, SERVER_PATIENCE)
            .map_err(|error| format!("the server does not answer: {error}"))?;
        let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
        println!("  {}", body.trim());
        told(step);
        if !answer.contains("<H2>Hello World</H2>") {
            return Err("the server's page is not the expected one".into());
        }
        // Node.js as a first process takes no notice of SIGTERM, so the usual ten seconds would be waited for nothing.
        self.show(&["stop", "-t", "1", CONTAINER])?;
        self.is_running = false;
        Ok(())
    }

    fn mica(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.env("MICA_ROOT", &self.store).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command as if it were typed: its words, its output, its time.
    fn show(&self, arguments: &[&str]) -> Result<(), String> {
        println!("$ mica {}", arguments.join(" "));
        let _ = std::io::stdout().flush();
        let step = Instant::now();
        let status = self.mica(arguments).status().map_err(|error| error.to_string())?;
        told(step);
        if status.success() {
            Ok(())
        } else {
            Err(format!("`mica {}` failed: {status}", arguments.join(" ")))
        }
    }

    fn stop(&mut self) {
        if self.is_running {
            self.is_running = false;
            let _ = self.mica(&["rm", "-f", CONTAINER]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        self.stop();
    }
}

fn told(step: Instant) {
    println!("  ({:.2} s)\n", step.elapsed().as_secs_f64());
}
