//! A scratch image of busybox, containers on it, and what they print.

use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use mica_runtime::spec::{Lower, Rootfs};
use mica_runtime::{ContainerSpec, Created, ExitStatus, Stdio, Stream};

const BUSYBOX: &str = "/bin/busybox";

/// What a container did.
#[derive(Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    #[expect(dead_code, reason = "shown by failing tests")]
    pub stderr: String,
}

/// Why no test of this program can run here.
pub fn reason_to_skip() -> Option<&'static str> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root");
    }
    let bytes = fs::read(BUSYBOX).unwrap_or_default();
    // A dynamically linked program names its interpreter.
    if bytes.is_empty() || bytes.windows(8).take(4096).any(|window| window == b"/lib64/l") {
        return Some("needs a statically linked busybox in /bin");
    }
    None
}

/// A directory with an image, an upper and a work directory.
pub struct Scratch {
    pub directory: tempfile::TempDir,
}

impl Scratch {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let image = directory.path().join("image");
        for name in ["bin", "etc", "tmp", "root"] {
            fs::create_dir_all(image.join(name)).unwrap();
        }
        fs::copy(BUSYBOX, image.join("bin/busybox")).unwrap();
        for name in [
            "sh", "true", "false", "cat", "id", "ls", "echo", "sleep", "mount", "unshare", "hostname",
            "stat", "tty", "kill", "env", "pwd", "touch", "readlink", "mkdir", "chmod", "grep", "ps", "wc",
            "test", "nproc", "umount", "mknod", "cut", "sort", "chroot", "ip", "date", "dd",
        ] {
            std::os::unix::fs::symlink("busybox", image.join("bin").join(name)).unwrap();
        }
        fs::write(
            image.join("etc/passwd"),
            "root:x:0:0::/root:/bin/sh\nanna:x:1000:100::/home/anna:/bin/sh\n",
        )
        .unwrap();
        fs::write(image.join("etc/group"), "root:x:0:\nusers:x:100:\nwheel:x:10:anna\n").unwrap();
        fs::create_dir(directory.path().join("upper")).unwrap();
        fs::create_dir(directory.path().join("work")).unwrap();
        Self { directory }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn overlay(&self, lowers: Vec<PathBuf>) -> Rootfs {
        self.overlay_of(lowers.into_iter().map(Lower::Directory).collect())
    }

    pub fn overlay_of(&self, lowers: Vec<Lower>) -> Rootfs {
        Rootfs::Overlay {
            lowers,
            upper: self.path("upper"),
            work: self.path("work"),
            userxattr: false,
            volatile: false,
        }
    }

    /// A container on an overlay of the image.
    pub fn spec(&self, argv: &[&str]) -> ContainerSpec {
        let argv = argv.iter().map(|argument| (*argument).to_owned()).collect();
        ContainerSpec::new(self.overlay(vec![self.path("image")]), argv)
    }

    /// A container that runs a shell script.
    pub fn script(&self, script: &str) -> ContainerSpec {
        self.spec(&["/bin/sh", "-c", script])
    }
}

/// Streams of which the outputs can be read.
pub fn piped() -> (Stdio, fs::File, fs::File) {
    let (out, out_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let (err, err_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
    let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Fd(out_write), stderr: Stream::Fd(err_write) };
    (stdio, out.into(), err.into())
}

/// Runs a container to its end.
pub fn try_run(spec: &ContainerSpec) -> mica_runtime::Result<Outcome> {
    let (stdio, out, err) = piped();
    finish(mica_runtime::spawn(spec, stdio)?, out, err)
}

pub fn finish(created: Created, mut out: fs::File, mut err: fs::File) -> mica_runtime::Result<Outcome> {
    let mut running = created.start()?;
    let (mut stdout, mut stderr) = (String::new(), String::new());
    out.read_to_string(&mut stdout).unwrap();
    err.read_to_string(&mut stderr).unwrap();
    let status = running.wait()?;
    Ok(Outcome { status, stdout, stderr })
}

/// Runs a container of `trees` to its end.
pub fn try_run_with_trees(spec: &ContainerSpec, trees: &[OwnedFd]) -> mica_runtime::Result<Outcome> {
    let (stdio, out, err) = piped();
    let trees: Vec<_> = trees.iter().map(AsFd::as_fd).collect();
    finish(mica_runtime::spawn_with_trees(spec, stdio, &trees)?, out, err)
}

pub fn run(spec: &ContainerSpec) -> Outcome {
    try_run(spec).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a script in a container of its own and compares its output, without the last line end.
pub fn check_script(change: impl Fn(&mut ContainerSpec), script: &str, expected: &str) {
    let scratch = Scratch::new();
    let mut spec = scratch.script(script);
    change(&mut spec);
    let outcome = run(&spec);
    assert_eq!(outcome.stdout.trim_end(), expected, "{script}: {outcome:?}");
}

/// Processes and mounts of containers that are still there.
pub fn leftovers() -> Vec<String> {
    let mut left = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let status = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent = status.rsplit(')').next().and_then(|rest| rest.split_whitespace().nth(1));
        if parent == Some(&std::process::id().to_string()) {
            left.push(status.trim().to_owned());
        }
    }
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    left.extend(mounts.lines().filter(|line| line.contains("/upper")).map(str::to_owned));
    left
}

/// Second lives of this program: `spawn-and-wait DIRECTORY` starts a container that sleeps and then waits for it, so
/// that a test can kill it.
pub fn child_main_if_requested() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, verb, directory] = arguments.as_slice() else { return };
    if verb != "spawn-and-wait" {
        return;
    }
    let directory = Path::new(directory);
    let rootfs = Rootfs::Overlay {
        lowers: vec![Lower::Directory(directory.join("image"))],
        upper: directory.join("upper"),
        work: directory.join("work"),
        userxattr: false,
        volatile: true,
    };
    let argv = ["/bin/sleep", "60"].map(str::to_owned).to_vec();
    let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
    let created = mica_runtime::spawn(&ContainerSpec::new(rootfs, argv), stdio).unwrap();
    // Half of the parents are killed before the command runs, the other half after.
    let before = std::process::id().is_multiple_of(2);
    let pid = created.pid();
    if before {
        println!("{pid}");
    }
    let mut running = created.start().unwrap();
    if !before {
        println!("{pid}");
    }
    let _ = running.wait();
    std::process::exit(0);
}
