//! Machines that share nothing but a cache.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use mica_build::{BuildReport, Reason, Verdict};
use mica_testkit::{Mica, Need, Outcome, bases, missing};
use tempfile::TempDir;

pub const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// Steps of all kinds, two stages, and a file that nothing looks at.
pub const DOCKERFILE: &str = "\
FROM base:1 AS one
WORKDIR /app
COPY . /app
RUN cat used > out; date +%s%N >> out; stat -c '%Y %n' used >> out
RUN mkdir -p /srv/new; cat out > /srv/new/o; chmod 700 /srv/new; rm /etc/gone; mkdir -p -m 0751 /opt/x
FROM base:1
COPY --from=one /app/out /out
RUN cat /out > /out2
";

/// Steps of [`DOCKERFILE`], in the order of reports.
pub const STEPS: usize = 6;

/// A machine: a store with a base image, and a project in a directory of its own.
pub struct Machine {
    pub mica: Mica,
    pub dir: TempDir,
}

/// Whether images can be built here by root; says why not.
pub fn can_build() -> bool {
    can_build_with(&[Need::Root])
}

/// The same for an ordinary user.
pub fn can_build_rootless() -> bool {
    can_build_with(&[Need::Unprivileged, Need::Tool("newuidmap")])
}

fn can_build_with(needs: &[Need]) -> bool {
    let reason = missing(needs).or_else(|| bases::busybox().err());
    if let Some(reason) = &reason {
        println!("skipped: {reason}");
    }
    reason.is_none()
}

impl Machine {
    pub fn new() -> Machine {
        let machine = Machine { mica: Mica::new(BINARY), dir: Mica::temporary_dir() };
        machine.mica.import(&base(machine.dir.path()), "base:1");
        fs::create_dir(machine.context()).expect("a directory");
        machine.write("Dockerfile", DOCKERFILE);
        machine.write("used", "used\n");
        machine.write("unused", "unused\n");
        machine
    }

    pub fn context(&self) -> PathBuf {
        self.dir.path().join("context")
    }

    /// Writes a file of the project with a time of its own: no checkout has the times of another.
    pub fn write(&self, name: &str, content: &str) {
        let path = self.context().join(name);
        fs::write(&path, content).expect("a file");
        let seconds = path.as_os_str().len() as u64 * 1000
            + u64::from(
                self.dir
                    .path()
                    .as_os_str()
                    .as_encoded_bytes()
                    .iter()
                    .map(|byte| u32::from(*byte))
                    .sum::<u32>(),
            );
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000 + seconds);
        fs::File::options().write(true).open(&path).and_then(|file| file.set_modified(time)).expect("a time");
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let context = self.context().display().to_string();
        let mut all = vec!["build", "-t", "app:1", "--explain=json", "--progress=plain"];
        all.extend(arguments);
        all.push(&context);
        self.mica.command(&all)
    }

    /// Builds, whatever comes of it.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        mica_testkit::run_bounded(self.command(arguments), std::time::Duration::from_secs(300))
    }

    /// Builds, and answers how each step came about.
    #[track_caller]
    pub fn build(&self, arguments: &[&str]) -> Built {
        let outcome = self.run(arguments);
        assert!(outcome.code == 0, "{arguments:?}: {outcome}");
        let report: BuildReport = serde_json::from_str(&outcome.stdout).expect("a report");
        Built {
            steps: report.steps.iter().map(|step| How::of(&step.verdict)).collect(),
            stderr: outcome.stderr,
        }
    }

    /// The image as people compare it: every path, type, mode, owner and content.
    pub fn tree(&self) -> mica_testkit::Tree {
        mica_testkit::SavedImage::of(&self.mica, "app:1").tree
    }

    /// Diff IDs of all layers of the store.
    pub fn layers(&self) -> Vec<String> {
        let directory = fs::read_dir(self.mica.root().join("layers")).expect("layers");
        directory.map(|entry| entry.expect("a layer").file_name().to_string_lossy().into_owned()).collect()
    }
}

/// What a build said.
pub struct Built {
    pub steps: Vec<How>,
    pub stderr: String,
}

/// How a step came about, in short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum How {
    Chain,
    Record,
    FromCache(String),
    FromCacheByRecord(String),
    Shared,
    /// Why.
    Ran(String),
}

impl How {
    fn of(verdict: &Verdict) -> How {
        match verdict {
            Verdict::Chain => How::Chain,
            Verdict::Record { .. } => How::Record,
            Verdict::Imported { cache, by_record: false, .. } => How::FromCache(cache.clone()),
            Verdict::Imported { cache, by_record: true, .. } => How::FromCacheByRecord(cache.clone()),
            Verdict::Shared => How::Shared,
            Verdict::Ran { reason: Reason::Changed(changed) } => How::Ran(changed.path.clone()),
            Verdict::Ran { reason } => How::Ran(format!("{reason:?}")),
        }
    }

    pub fn ran(&self) -> bool {
        matches!(self, How::Ran(_))
    }
}

impl Built {
    /// Every step was found by its layers in the cache of that name.
    #[track_caller]
    pub fn check_all_from(&self, cache: &str) {
        assert_eq!(self.steps, vec![How::FromCache(cache.to_owned()); self.steps.len()], "{}", self.stderr);
    }

    #[track_caller]
    pub fn check_all_ran(&self) {
        assert!(self.steps.iter().all(How::ran), "{:?}\n{}", self.steps, self.stderr);
    }
}

/// busybox with a file that a step removes, and a directory whose mode matters.
fn base(dir: &Path) -> PathBuf {
    let path = dir.join("base.tar");
    let root = dir.join("base");
    fs::create_dir(&root).expect("a directory");
    let busybox = bases::busybox().expect("busybox");
    let status = Command::new("tar").arg("-C").arg(&root).arg("-xf").arg(busybox).status().expect("tar");
    assert!(status.success());
    let script = "mkdir -p etc opt srv && echo x > etc/gone && chmod 2755 srv && chmod 0750 opt";
    let status = Command::new("sh").arg("-c").arg(script).current_dir(&root).status().expect("sh");
    assert!(status.success());
    let status = Command::new("tar")
        .args(["--sort=name", "--mtime=@1000000000", "--numeric-owner", "-C"])
        .arg(&root)
        .arg("-cf")
        .arg(&path)
        .arg(".")
        .status()
        .expect("tar");
    assert!(status.success());
    path
}

/// `local:DIR`
pub fn local_name(directory: &Path) -> String {
    format!("local:{}", directory.display())
}

/// `type=local,dest=DIR` with more keys.
pub fn to_local(directory: &Path, more: &str) -> String {
    format!("--cache-to=type=local,dest={}{more}", directory.display())
}

/// `type=local,src=DIR`
pub fn from_local(directory: &Path) -> String {
    format!("--cache-from=type=local,src={}", directory.display())
}
