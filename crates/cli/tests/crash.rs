//! kill -9 at any moment, and a full disk: the store opens, lists and builds again, and nothing stays behind.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::{Mica, Need, Random, bases, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
/// Each round is a killed command and a whole one.
const ROUNDS: u64 = 40;
const SEED: u64 = 20_261_121;

fn base(needs: &[Need]) -> Option<PathBuf> {
    let base = match missing(needs) {
        Some(reason) => Err(reason),
        None => bases::busybox(),
    };
    base.map_err(|reason| println!("skipped: {reason}")).ok()
}

fn write(dir: &Path, name: &str, content: impl AsRef<[u8]>) {
    fs::write(dir.join(name), content).expect("a file of the context");
}

/// A context whose every round differs, so that no round is served from the cache alone.
fn write_context(dir: &Path, round: u64) {
    let dockerfile = "FROM base:1 AS one\n\
        RUN mkdir /made && for i in 1 2 3 4 5 6 7 8; do echo $i > /made/$i; done\n\
        COPY round /round\n\
        RUN cat /round && dd if=/dev/zero of=/made/big bs=64k count=32 2>/dev/null\n\
        FROM base:1\n\
        COPY round /other\n\
        RUN sleep 0.02; cp /other /copied; rm -r /var\n\
        COPY --from=one /made /made\n";
    write(dir, "Dockerfile", dockerfile);
    write(dir, "round", format!("round {round}"));
}

/// Starts a command in a process group of its own and kills it after a while. False if it had ended before.
fn kill_after(mut command: Command, delay: Duration, whole_group: bool) -> bool {
    let mut child =
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starting mica");
    std::thread::sleep(delay);
    let had_ended = child.try_wait().expect("waiting").is_some();
    if whole_group && !had_ended {
        let group = rustix::process::Pid::from_child(&child);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    }
    let _ = child.kill();
    child.wait().expect("waiting");
    !had_ended
}

/// A better guess of how long a command takes, after it was too late to kill it: the machine was busier at first.
fn shorter(whole: Duration) -> Duration {
    (whole * 4 / 5).max(Duration::from_millis(5))
}

/// Unfinished bytes and directories that a command may have while it works, and no longer.
fn unfinished(root: &Path) -> Vec<PathBuf> {
    let mut left: Vec<PathBuf> =
        fs::read_dir(root.join("ingest")).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let containers = fs::read_dir(root.join("containers")).into_iter().flatten().flatten();
    left.extend(containers.map(|entry| entry.path()).filter(|path| path.is_dir()));
    left
}

#[track_caller]
fn check_nothing_unfinished(mica: &Mica, round: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let left = unfinished(mica.root());
        if left.is_empty() {
            break;
        }
        assert!(Instant::now() < deadline, "{round}: unfinished: {left:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
    mica.check_nothing_left();
}

fn check_killed_builds(needs: &[Need]) {
    let Some(base) = base(needs) else { return };
    let mica = Mica::new(BINARY);
    mica.import(&base, "base:1");
    let context = Mica::temporary_dir();
    let path = context.path().to_string_lossy().into_owned();
    write_context(context.path(), ROUNDS);
    let mut whole = mica.ok(&["build", "-t", "crash:1", &path]).time;
    let mut random = Random::new(SEED);
    let mut killed = 0;
    for round in 0..ROUNDS {
        write_context(context.path(), round);
        let delay = Duration::from_micros(random.below(whole.as_micros() as u64 * 11 / 10));
        let name = format!("round {round}, seed {SEED}, killed after {delay:?}");
        let command = mica.command(&["build", "-t", "crash:1", &path]);
        if kill_after(command, delay, random.below(4) == 0) {
            killed += 1;
        } else {
            whole = shorter(whole);
        }
        let listed = mica.ok(&["images"]).stdout;
        assert!(listed.contains("base"), "{name}: {listed}");
        mica.ok(&["build", "-t", "crash:1", &path]);
        let said = mica.ok(&["run", "--rm", "--network=none", "crash:1", "cat", "/copied", "/made/8"]).stdout;
        assert_eq!(said, format!("round {round}8\n"), "{name}");
        check_nothing_unfinished(&mica, &name);
    }
    println!("{killed} of {ROUNDS} builds were killed at work");
    assert!(killed > ROUNDS / 3, "only {killed} builds were killed at work");
}

fn check_killed_runs(needs: &[Need]) {
    let Some(base) = base(needs) else { return };
    let mica = Mica::new(BINARY);
    mica.import(&base, "base:1");
    let work = [
        "run",
        "--rm",
        "--network=none",
        "base:1",
        "sh",
        "-c",
        "echo x > /file; sleep 0.05; rm /bin/busybox",
    ];
    let mut whole = mica.run(&work).time;
    let mut random = Random::new(SEED + 1);
    for round in 0..ROUNDS {
        let delay = Duration::from_micros(random.below(whole.as_micros() as u64 * 11 / 10));
        let name = format!("round {round}, seed {}, killed after {delay:?}", SEED + 1);
        if !kill_after(mica.command(&work), delay, random.below(4) == 0) {
            whole = shorter(whole);
        }
        // The image is never changed, whatever happened to the container.
        assert_eq!(
            mica.ok(&["run", "--rm", "--network=none", "base:1", "echo", "fine"]).stdout,
            "fine\n",
            "{name}"
        );
        mica.ok(&["ps", "-a"]);
        check_nothing_unfinished(&mica, &name);
    }
    assert_eq!(mica.ok(&["ps", "-aq"]).stdout, "");
    mica.ok(&["rmi", "base:1"]);
}

#[test]
fn root_builds_killed_at_random_moments_leave_a_good_store() {
    check_killed_builds(&[Need::Root]);
}

#[test]
fn root_runs_killed_at_random_moments_leave_nothing() {
    check_killed_runs(&[Need::Root]);
}

#[test]
fn rootless_builds_killed_at_random_moments_leave_a_good_store() {
    check_killed_builds(&[Need::Unprivileged, Need::Tool("newuidmap")]);
}

#[test]
fn rootless_runs_killed_at_random_moments_leave_nothing() {
    check_killed_runs(&[Need::Unprivileged, Need::Tool("newuidmap")]);
}

/// A small filesystem, unmounted at the end.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    fn new(size_mb: u32) -> SmallDisk {
        let disk = SmallDisk { dir: Mica::temporary_dir() };
        let size = format!("size={size_mb}m,mode=755");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "none"]).arg(disk.dir.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "cannot mount a tmpfs");
        disk
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.dir.path()).status();
    }
}

/// The images without the column that says how long ago.
fn names(mica: &Mica) -> String {
    let listed = mica.ok(&["images", "--no-trunc"]).stdout;
    listed.lines().map(|line| line.split_whitespace().take(3).collect::<Vec<_>>().join(" ") + "\n").collect()
}

#[test]
fn root_a_full_disk_ends_the_build_and_loses_nothing() {
    let Some(base) = base(&[Need::Root, Need::Tool("mount")]) else { return };
    let disk = SmallDisk::new(48);
    let mica = Mica::at(BINARY, &disk.dir.path().join("r"));
    mica.import(&base, "base:1");
    let context = Mica::temporary_dir();
    let path = context.path().to_string_lossy().into_owned();
    write(context.path(), "Dockerfile", "FROM base:1\nRUN echo kept > /kept\n");
    mica.ok(&["build", "-t", "kept:1", &path]);
    let before = names(&mica);

    write(context.path(), "large", vec![7; 64 << 20]);
    let too_much: [(&str, &str); 3] = [
        ("RUN", "FROM base:1\nRUN dd if=/dev/zero of=/large bs=1M count=64\n"),
        ("COPY", "FROM base:1\nCOPY large /large\n"),
        (
            "two",
            "FROM base:1\nRUN dd if=/dev/zero of=/a bs=1M count=16\nRUN dd if=/dev/zero of=/b bs=1M count=64\n",
        ),
    ];
    for (name, dockerfile) in too_much {
        write(context.path(), "Dockerfile", dockerfile);
        let outcome = mica.fails(&["build", "-t", "large:1", &path], 1);
        assert!(outcome.stderr.to_lowercase().contains("no space left"), "{name}: {outcome}");
        assert!(!outcome.stderr.contains("panicked at"), "{name}: {outcome}");
        assert_eq!(names(&mica), before, "{name}");
    }
    let large = context.path().join("large.tar");
    let tar = Command::new("tar").args(["-cf", &large.to_string_lossy(), "-C", &path, "large"]).status();
    assert!(tar.is_ok_and(|status| status.success()));
    let outcome = mica.fails(&["import", &large.to_string_lossy(), "large:1"], 1);
    assert!(outcome.stderr.to_lowercase().contains("no space left"), "import: {outcome}");

    assert_eq!(names(&mica), before);
    assert_eq!(mica.ok(&["run", "--rm", "--network=none", "kept:1", "cat", "/kept"]).stdout, "kept\n");
    // And what failed gave its space back.
    write(context.path(), "Dockerfile", "FROM kept:1\nRUN echo more > /more\n");
    fs::remove_file(context.path().join("large")).expect("the large file");
    fs::remove_file(&large).expect("the large archive");
    mica.ok(&["build", "-t", "more:1", &path]);
    check_full_disk_is_clean(&mica);
}

#[track_caller]
fn check_full_disk_is_clean(mica: &Mica) {
    assert_eq!(unfinished(mica.root()), Vec::<PathBuf>::new());
    // The disk itself is a mount that names the store's parent, not the store.
    mica.check_nothing_left();
}
