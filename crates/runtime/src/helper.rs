//! The helper: a process with one thread and nothing but a socket; our own program executed anew, or a fork of a
//! parent that has one thread.
//!
//! It clones the container's first process, which it outlives by a moment: it tells the parent when the command runs
//! and how it ended, and kills it when the parent goes away.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use mica_sys::error::ErrorAt;
use mica_sys::namespace::{self, Cloned, Namespaces};
use mica_sys::process;
use rustix::event::{PollFd, PollFlags};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use crate::container_init::{self, EXECUTING, FAILED, Lines};
use crate::error::{AtStage, Failure, Result, Stage};
use crate::spec::{ContainerSpec, Network, ProcessSpec};
use crate::wire::{self, Report, Request};
use crate::{ExitStatus, JoinSpec};

/// The name the helper is executed under.
pub(crate) const HELPER_NAME: &str = "mica-init";

/// What the helper was asked to make.
enum Task {
    Container { spec: Box<ContainerSpec>, cgroup_procs: Vec<PathBuf>, trees: Vec<OwnedFd> },
    Join { spec: Box<ProcessSpec>, rootless: bool },
}

/// Becomes the container helper if this process was executed as one, and then never returns.
///
/// To be called first thing in `main`, before any thread is started and anything is read or opened.
pub fn init_main_if_requested() {
    if std::env::args_os().next().is_some_and(|name| name == HELPER_NAME) {
        let code = match run() {
            Ok(()) => 0,
            Err(_) => 125,
        };
        process::exit_now(code);
    }
}

fn run() -> Result<()> {
    serve(rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3).at("fcntl F_DUPFD_CLOEXEC", "stdin")?)
}

/// Becomes the helper in a fork of the parent. Nothing of the parent is touched any more: its values are never dropped.
pub(crate) fn run_forked(socket: OwnedFd) -> ! {
    // The parent's handlers are the parent's business, and so are its files: a lock on one must end with the parent.
    process::reset_signals();
    let closed = process::close_all_but(&[&socket]);
    // A panic must not unwind into the parent's functions, which this process has a copy of.
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| closed.map(|()| serve(socket))));
    process::exit_now(if matches!(result, Ok(Ok(Ok(())))) { 0 } else { 125 })
}

fn serve(parent: OwnedFd) -> Result<()> {
    // Signals of the user's terminal are for the parent to act upon.
    let _ = rustix::process::setsid();
    let Some((request, descriptors)) = wire::receive::<Request>(&parent)? else { return Ok(()) };
    match start(&parent, &request, descriptors) {
        Ok(Some(container)) => container.watch(&parent),
        Ok(None) => Ok(()),
        Err(failure) => wire::send(&parent, &Report::Failed(failure), &[]),
    }
}

fn start(
    parent: &OwnedFd,
    request: &Request,
    descriptors: Vec<OwnedFd>,
) -> std::result::Result<Option<Container>, Failure> {
    let parent_pidfd = match Pid::from_raw(request.parent_pid) {
        Some(pid) => rustix::process::pidfd_open(pid, PidfdFlags::empty()).at("pidfd_open", "parent"),
        None => Err(mica_sys::Error::new("pidfd_open", "parent", rustix::io::Errno::SRCH)),
    }
    .stage(Stage::Spec)?;
    // If the parent is gone, its pid may already be another's.
    if rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get()) != Some(request.parent_pid) {
        return Ok(None);
    }
    let mut descriptors = descriptors.into_iter();
    let mut next = || descriptors.next().ok_or_else(|| spec_failure("descriptors"));
    let spec_file = next()?;
    let streams = [next()?, next()?, next()?];
    let (task, clone_flags) = if request.join {
        let joined = next()?;
        let spec: JoinSpec = read_spec(spec_file, request)?;
        join_container(&joined, &spec).stage(Stage::Namespaces)?;
        (Task::Join { spec: Box::new(spec.process), rootless: spec.rootless }, Namespaces::NONE)
    } else {
        let spec: ContainerSpec = read_spec(spec_file, request)?;
        let flags = new_namespaces(&spec)?;
        let cgroup_procs = request.cgroup_procs.clone();
        (Task::Container { spec: Box::new(spec), cgroup_procs, trees: descriptors.collect() }, flags)
    };
    let own_pidfd = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty())
        .at("pidfd_open", "helper");
    let helper_pidfd = own_pidfd.stage(Stage::Namespaces)?;
    let (events, helper) =
        rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at("pipe2", "helper").stage(Stage::Namespaces)?;
    match namespace::clone_process(clone_flags).stage(Stage::Namespaces)? {
        Cloned::Child => {
            drop((events, parent_pidfd));
            let Ok(parent) = parent.try_clone() else { process::exit_now(125) };
            let lines = Lines { parent, helper, helper_pidfd, streams };
            match task {
                Task::Container { spec, cgroup_procs, trees } => {
                    container_init::run_container(&spec, &cgroup_procs, trees, lines)
                }
                Task::Join { spec, rootless } => container_init::run_joined(&spec, rootless, lines),
            }
        }
        Cloned::Parent { pid, pidfd } => {
            let pid = pid.as_raw_nonzero().get();
            if wire::send(parent, &Report::Cloned { pid }, &[pidfd.as_fd()]).is_err() {
                let _ = rustix::process::pidfd_send_signal(&pidfd, Signal::KILL);
            }
            Ok(Some(Container { pidfd, events, parent_pidfd }))
        }
    }
}

fn spec_failure(what: &'static str) -> Failure {
    Failure::call(Stage::Spec, &mica_sys::Error::new("read", what, rustix::io::Errno::BADMSG))
}

fn read_spec<T: serde::de::DeserializeOwned>(
    file: OwnedFd,
    request: &Request,
) -> std::result::Result<T, Failure> {
    let mut bytes = Vec::with_capacity(usize::try_from(request.spec_bytes).unwrap_or_default());
    File::from(file)
        .take(request.spec_bytes)
        .read_to_end(&mut bytes)
        .at("read", "spec")
        .stage(Stage::Spec)?;
    serde_json::from_slice(&bytes).map_err(|_| spec_failure("spec"))
}

fn new_namespaces(spec: &ContainerSpec) -> std::result::Result<Namespaces, Failure> {
    let mut flags = Namespaces::MOUNT;
    let own = &spec.namespaces;
    for (shared, namespace) in
        [(own.pid_host, Namespaces::PID), (own.ipc_host, Namespaces::IPC), (own.uts_host, Namespaces::UTS)]
    {
        if !shared {
            flags = flags.and(namespace);
        }
    }
    match &own.network {
        Network::Host => {}
        Network::New => flags = flags.and(Namespaces::NETWORK),
        Network::Path(path) => {
            let file = File::open(path).at("open", path).stage(Stage::Network)?;
            namespace::join(file, Namespaces::NETWORK).at("setns", path).stage(Stage::Network)?;
        }
    }
    Ok(flags)
}

/// Joins the namespaces of a container's first process; the user namespace only when it is another than ours.
fn join_container(pidfd: &OwnedFd, spec: &JoinSpec) -> mica_sys::Result<()> {
    // While this program is visible in the container nobody there may look into it (CVE-2019-5736).
    process::set_dumpable(false)?;
    let same = |kind: &str| {
        let link = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok();
        link("self") == link(&spec.pid.to_string())
    };
    let mut namespaces = Namespaces::MOUNT;
    for (kind, namespace) in [
        ("user", Namespaces::USER),
        ("pid", Namespaces::PID),
        ("net", Namespaces::NETWORK),
        ("ipc", Namespaces::IPC),
        ("uts", Namespaces::UTS),
        ("cgroup", Namespaces::CGROUP),
    ] {
        if !same(kind) {
            namespaces = namespaces.and(namespace);
        }
    }
    namespace::join(pidfd, namespaces).at("setns", format!("container process {}", spec.pid))?;
    rustix::process::chdir("/").at("chdir", "/")
}

struct Container {
    pidfd: OwnedFd,
    /// Bytes of the first process about the execution of its command; ends when that has happened.
    events: OwnedFd,
    parent_pidfd: OwnedFd,
}

impl Container {
    fn watch(self, parent: &OwnedFd) -> Result<()> {
        let mut last_event = None;
        let mut events_open = true;
        loop {
            let mut polls = Vec::with_capacity(3);
            polls.push(PollFd::new(&self.pidfd, PollFlags::IN));
            polls.push(PollFd::new(&self.parent_pidfd, PollFlags::IN));
            if events_open {
                polls.push(PollFd::new(&self.events, PollFlags::IN));
            }
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut polls, None)).at("poll", "container")?;
            let ready: Vec<bool> = polls.iter().map(|poll| !poll.revents().is_empty()).collect();
            if ready.get(1) == Some(&true) {
                let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
                let _ = self.reap();
                return Ok(());
            }
            // Before the end of the process: what it has written last is about the execution.
            if ready.get(2) == Some(&true) {
                let mut byte = [0];
                match rustix::io::retry_on_intr(|| rustix::io::read(&self.events, &mut byte)) {
                    Ok(1) => last_event = Some(byte[0]),
                    _ => {
                        // Only the first process held the other end: it is closed by the execution, or by its death.
                        events_open = false;
                        if last_event == Some(EXECUTING) {
                            wire::send(parent, &Report::Started, &[])?;
                        }
                    }
                }
                continue;
            }
            if ready.first() == Some(&true) {
                let status = self.reap()?;
                return if last_event == Some(FAILED) {
                    Ok(())
                } else {
                    wire::send(parent, &Report::Exited(status), &[])
                };
            }
        }
    }

    fn reap(&self) -> Result<ExitStatus> {
        let status = rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)
        })
        .at("waitid", "container")?;
        Ok(match status.as_ref().map(|status| (status.exit_status(), status.terminating_signal())) {
            Some((Some(code), _)) => ExitStatus::Code(code),
            Some((_, Some(signal))) => ExitStatus::Signal(signal),
            _ => ExitStatus::Signal(libc::SIGKILL),
        })
    }
}
