//! The parent's side: starts the helper, hands it the spec, and waits.

use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use mica_sys::error::ErrorAt;
use mica_sys::namespace;
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions};
use serde::{Deserialize, Serialize};

use crate::cgroup::Cgroup;
use crate::error::{Result, RuntimeError};
use crate::helper::{self, HELPER_NAME};
use crate::socket_watch::SocketWatch;
use crate::spec::{ContainerSpec, ProcessSpec};
use crate::wire::{self, GO, Report, Request};

/// How the first process of a container ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// With this exit code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl ExitStatus {
    /// The exit code as a shell has it: 128 and the number for a signal.
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => code,
            Self::Signal(signal) => 128 + signal,
        }
    }
}

/// Something that was created in the root filesystem only to mount on it, outermost first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatedMountPoint {
    /// Absolute path in the container.
    pub path: PathBuf,
    /// What was created.
    pub kind: MountPointKind,
}

/// What is mounted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MountPointKind {
    /// A directory.
    Directory,
    /// A file.
    File,
}

/// The standard streams of a container's first process. With a terminal they are not used.
#[derive(Debug, Default)]
pub struct Stdio {
    /// Standard input.
    pub stdin: Stream,
    /// Standard output.
    pub stdout: Stream,
    /// Standard error.
    pub stderr: Stream,
}

/// One standard stream.
#[derive(Debug, Default)]
pub enum Stream {
    /// The caller's own.
    #[default]
    Inherit,
    /// This one.
    Fd(OwnedFd),
    /// /dev/null.
    Null,
}

/// A container that is set up and waits before its command is executed. Dropping it kills it.
#[derive(Debug)]
pub struct Created {
    process: ContainerProcess,
    /// The outer end of the terminal, if one was asked for.
    pub terminal: Option<OwnedFd>,
    /// What was created in the root filesystem to mount on: not the container's doing, not for a layer.
    pub created_mount_points: Vec<CreatedMountPoint>,
    /// Limits that were asked for and that this host does not let us set, by the names of their cgroup files.
    pub unkept_limits: Vec<&'static str>,
    /// The watch that [`ContainerSpec::watch_sockets`] asks for; none also where the kernel does not let us watch.
    pub sockets: Option<SocketWatch>,
}

/// A container whose command runs. Dropping it before it has ended kills it.
#[derive(Debug)]
pub struct Running {
    process: ContainerProcess,
    status: Option<ExitStatus>,
    /// The outer end of the terminal, if one was asked for.
    pub terminal: Option<OwnedFd>,
    /// As in [`Created`].
    pub sockets: Option<SocketWatch>,
}

/// An own process joins the container of `pid` with this.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct JoinSpec {
    pub process: ProcessSpec,
    pub rootless: bool,
    pub pid: i32,
}

#[derive(Debug)]
struct ContainerProcess {
    helper: Helper,
    socket: OwnedFd,
    pid: i32,
    pidfd: OwnedFd,
    cgroup: Option<Cgroup>,
    ended: bool,
}

/// Sets up a container up to, but not including, the execution of its command.
///
/// May be called from any thread, many at a time. An error of the command itself (not found, not executable) may
/// come from here or from [`Created::start`].
pub fn spawn(spec: &ContainerSpec, stdio: Stdio) -> Result<Created> {
    spawn_with_trees(spec, stdio, &[])
}

/// [`spawn`] of a container whose spec names mounts that are attached nowhere: `trees`, by their positions.
///
/// A tree that the spec names is the container's from then on: it can be attached once only. It is attached nowhere
/// outside of the container's mount namespace, and there it is seen through the overlay only.
pub fn spawn_with_trees(spec: &ContainerSpec, stdio: Stdio, trees: &[BorrowedFd<'_>]) -> Result<Created> {
    if trees.len() > wire::TREES_MAX {
        return Err(RuntimeError::TooManyTrees { count: trees.len(), max: wire::TREES_MAX });
    }
    let (cgroup, unkept_limits) = spec.cgroup.as_ref().map(Cgroup::create).unwrap_or_default();
    let procs = cgroup.as_ref().map(Cgroup::procs_files).unwrap_or_default();
    let mut cgroup = CgroupGuard(cgroup);
    let mut created = start_helper(spec, stdio, None, trees, procs)?;
    created.process.cgroup = cgroup.0.take();
    created.unkept_limits = unkept_limits;
    Ok(created)
}

/// Sets up a further process in the container whose first process is `pid`, up to the execution of its command.
pub fn exec_in(pid: i32, process: &ProcessSpec, rootless: bool, stdio: Stdio) -> Result<Created> {
    let name = format!("container process {pid}");
    let target = Pid::from_raw(pid)
        .ok_or_else(|| mica_sys::Error::new("pidfd_open", &name, rustix::io::Errno::SRCH))?;
    let pidfd = rustix::process::pidfd_open(target, PidfdFlags::empty()).at("pidfd_open", &name)?;
    let procs = crate::cgroup::procs_files_of(pid);
    let spec = JoinSpec { process: process.clone(), rootless, pid };
    start_helper(&spec, stdio, Some(pidfd), &[], procs)
}

fn start_helper(
    spec: &impl Serialize,
    stdio: Stdio,
    join: Option<OwnedFd>,
    trees: &[BorrowedFd<'_>],
    cgroup_procs: Vec<PathBuf>,
) -> Result<Created> {
    let spec_bytes = serde_json::to_vec(spec)?;
    let spec_file =
        rustix::fs::memfd_create("container-spec", MemfdFlags::CLOEXEC).at("memfd_create", "spec")?;
    let mut spec_file = std::fs::File::from(spec_file);
    spec_file.write_all(&spec_bytes).at("write", "spec")?;
    rustix::fs::seek(&spec_file, rustix::fs::SeekFrom::Start(0)).at("lseek", "spec")?;
    let (socket, helper_socket) = wire::pair()?;
    let mut helper = HelperGuard(Some(start_helper_process(helper_socket)?));
    let request = Request {
        parent_pid: rustix::process::getpid().as_raw_nonzero().get(),
        spec_bytes: spec_bytes.len() as u64,
        join: join.is_some(),
        cgroup_procs,
    };
    let null = match (&stdio.stdin, &stdio.stdout, &stdio.stderr) {
        (Stream::Null, ..) | (_, Stream::Null, _) | (.., Stream::Null) => Some(open_null()?),
        _ => None,
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let mut descriptors = vec![
        spec_file.as_fd(),
        stream(&stdio.stdin, stdin.as_fd(), null.as_ref()),
        stream(&stdio.stdout, stdout.as_fd(), null.as_ref()),
        stream(&stdio.stderr, stderr.as_fd(), null.as_ref()),
    ];
    descriptors.extend(join.as_ref().map(AsFd::as_fd));
    descriptors.extend(trees);
    wire::send(&socket, &request, &descriptors)?;
    // Our copies of the streams: a reader of the other end must not wait for us.
    drop(stdio);

    let mut cloned = None;
    let mut ready = None;
    // The helper and the first process report over the same socket, in either order.
    while cloned.is_none() || ready.is_none() {
        match wire::receive::<Report>(&socket)? {
            Some((Report::Cloned { pid }, descriptors)) => {
                cloned = descriptors.into_iter().next().map(|fd| (pid, fd))
            }
            Some((Report::Ready { created_mount_points, has_terminal, has_sockets }, descriptors)) => {
                let mut descriptors = descriptors.into_iter();
                let terminal = if has_terminal { descriptors.next() } else { None };
                let listener = if has_sockets { descriptors.next() } else { None };
                ready = Some((created_mount_points, terminal, listener));
            }
            Some((Report::Failed(failure), _)) => return Err(failure.into()),
            Some((Report::Started | Report::Exited(_), _)) | None => {
                return Err(RuntimeError::Died { during: "its set-up".to_owned() });
            }
        }
    }
    match (cloned, ready, helper.0.take()) {
        (Some((pid, pidfd)), Some((created_mount_points, terminal, listener)), Some(helper)) => {
            let process = ContainerProcess { helper, socket, pid, pidfd, cgroup: None, ended: false };
            let sockets = listener.map(SocketWatch::start).transpose()?;
            Ok(Created { process, terminal, created_mount_points, unkept_limits: Vec::new(), sockets })
        }
        _ => Err(RuntimeError::Died { during: "its set-up".to_owned() }),
    }
}

/// Starts the helper: a fork if this process has a single thread, this program executed anew otherwise.
///
/// The fork saves 0.6 ms: where `cpuid` traps, as in virtual machines, the start-up of the C library takes that long.
fn start_helper_process(socket: OwnedFd) -> Result<Helper> {
    if namespace::thread_count() == Some(1) {
        return match namespace::fork_process()? {
            Some(pid) => Ok(Helper(pid)),
            None => helper::run_forked(socket),
        };
    }
    // The socket is the helper's standard input, so nothing but the three streams crosses the execution: no descriptor
    // is ever without close-on-exec in a process that other threads may be starting programs from.
    let child = Command::new("/proc/self/exe").arg0(HELPER_NAME).env_clear().stdin(socket).spawn();
    let child = child.map_err(|source| RuntimeError::HelperStart { source })?;
    match i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        Some(pid) => Ok(Helper(pid)),
        None => Err(RuntimeError::Died { during: "its start".to_owned() }),
    }
}

/// The helper, a child of this process that only [`Helper::reap`] waits for.
#[derive(Debug)]
struct Helper(Pid);

impl Helper {
    fn reap(&self) {
        let _ = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(self.0), WaitOptions::empty()));
    }
}

/// Reaps the helper when the container did not come about.
struct HelperGuard(Option<Helper>);

impl Drop for HelperGuard {
    fn drop(&mut self) {
        if let Some(helper) = &self.0 {
            let _ = rustix::process::kill_process(helper.0, Signal::KILL);
            helper.reap();
        }
    }
}

/// Removes the cgroup when the container did not come about.
struct CgroupGuard(Option<Cgroup>);

impl Drop for CgroupGuard {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0.take() {
            cgroup.remove();
        }
    }
}

fn open_null() -> Result<OwnedFd> {
    let flags = rustix::fs::OFlags::RDWR | rustix::fs::OFlags::CLOEXEC;
    let null = rustix::fs::open("/dev/null", flags, rustix::fs::Mode::empty());
    Ok(null.at("open", "/dev/null")?)
}

fn stream<'a>(stream: &'a Stream, inherited: BorrowedFd<'a>, null: Option<&'a OwnedFd>) -> BorrowedFd<'a> {
    match stream {
        Stream::Inherit => inherited,
        Stream::Fd(fd) => fd.as_fd(),
        Stream::Null => null.map_or(inherited, AsFd::as_fd),
    }
}

impl Created {
    /// Pid of the first process, as the caller counts.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// A pidfd of the first process.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Executes the command; returns when it runs.
    pub fn start(self) -> Result<Running> {
        let Self { process, terminal, sockets, .. } = self;
        rustix::io::write(&process.socket, &[GO]).at("write", "container")?;
        match wire::receive::<Report>(&process.socket)? {
            Some((Report::Started, _)) => Ok(Running { process, status: None, terminal, sockets }),
            Some((Report::Failed(failure), _)) => Err(failure.into()),
            _ => Err(RuntimeError::Died { during: "the execution of its command".to_owned() }),
        }
    }
}

impl Running {
    /// Pid of the first process, as the caller counts.
    pub fn pid(&self) -> i32 {
        self.process.pid
    }

    /// A pidfd of the first process; readable when it has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.process.pidfd.as_fd()
    }

    /// Sends a signal to the first process. As process 1 of its namespace it ignores what it has no handler for,
    /// except SIGKILL and SIGSTOP.
    pub fn kill(&self, signal: i32) -> Result<()> {
        let name = format!("container process {}", self.process.pid);
        let signal = Signal::from_named_raw(signal)
            .ok_or_else(|| mica_sys::Error::new("pidfd_send_signal", &name, rustix::io::Errno::INVAL))?;
        match rustix::process::pidfd_send_signal(&self.process.pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => Ok(()),
            Err(error) => Err(mica_sys::Error::new("pidfd_send_signal", name, error).into()),
        }
    }

    /// Waits for the end of the first process, and with it of the container.
    pub fn wait(&mut self) -> Result<ExitStatus> {
        if let Some(status) = self.status {
            return Ok(status);
        }
        let status = match wire::receive::<Report>(&self.process.socket)? {
            Some((Report::Exited(status), _)) => status,
            // The helper was killed, and the container with it.
            _ => ExitStatus::Signal(libc::SIGKILL),
        };
        self.status = Some(status);
        self.process.end();
        Ok(status)
    }
}

impl ContainerProcess {
    /// Kills what still runs, reaps the helper, removes the cgroup.
    fn end(&mut self) {
        if self.ended {
            return;
        }
        self.ended = true;
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        self.helper.reap();
        if let Some(cgroup) = self.cgroup.take() {
            cgroup.remove();
        }
    }
}

impl Drop for ContainerProcess {
    fn drop(&mut self) {
        self.end();
    }
}
