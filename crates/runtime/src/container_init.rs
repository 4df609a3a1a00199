//! The container's first process, from its clone to the execution of the command.

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;

use mica_sys::error::ErrorAt;
use mica_sys::namespace::{self, Namespaces};
use mica_sys::{mount, process};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::Mode;

use crate::error::{AtStage, Failure, Stage};
use crate::spec::{ContainerSpec, Network, ProcessSpec};
use crate::wire::{self, GO, Report};
use crate::{CreatedMountPoint, device, process_setup, rootfs};

/// The descriptors of the container's first process.
pub(crate) struct Lines {
    /// To the parent: reports, and the go from it.
    pub parent: OwnedFd,
    /// To the helper: one byte before the command is executed, another if that fails; closed by the execution.
    pub helper: OwnedFd,
    /// A pidfd of the helper, to see whether it is still there.
    pub helper_pidfd: OwnedFd,
    /// Standard input, output, error.
    pub streams: [OwnedFd; 3],
}

/// The byte that says that the command is about to be executed.
pub(crate) const EXECUTING: u8 = b'x';
/// The byte that takes it back.
pub(crate) const FAILED: u8 = b'f';

/// Sets up the container and becomes its command. Never returns.
pub(crate) fn run_container(
    spec: &ContainerSpec,
    cgroup_procs: &[PathBuf],
    trees: Vec<OwnedFd>,
    lines: Lines,
) -> ! {
    let result = set_up(spec, cgroup_procs, trees, &lines);
    finish(result, spec.init, lines)
}

/// Becomes a further process of a container that this process has joined. Never returns.
pub(crate) fn run_joined(spec: &ProcessSpec, rootless: bool, lines: Lines) -> ! {
    let result = set_up_joined(spec, rootless, &lines);
    finish(result, false, lines)
}

struct SetUp {
    command: process_setup::ReadyCommand,
    created_mount_points: Vec<CreatedMountPoint>,
    terminal: Option<OwnedFd>,
}

fn set_up(
    spec: &ContainerSpec,
    cgroup_procs: &[PathBuf],
    trees: Vec<OwnedFd>,
    lines: &Lines,
) -> Result<SetUp, Failure> {
    die_with_helper(lines)?;
    rustix::process::umask(Mode::empty());
    for procs in cgroup_procs {
        std::fs::write(procs, "0").at("write", procs).stage(Stage::Cgroup)?;
    }
    if crate::cgroup::is_unified() {
        namespace::unshare(Namespaces::CGROUP).stage(Stage::Namespaces)?;
    }
    let mut root = rootfs::build(spec, trees)?;
    if !spec.namespaces.uts_host {
        if !spec.hostname.is_empty() {
            let name = &spec.hostname;
            rustix::system::sethostname(name.as_bytes()).at("sethostname", name).stage(Stage::Network)?;
        }
        if !spec.domainname.is_empty() {
            let name = &spec.domainname;
            rustix::system::setdomainname(name.as_bytes()).at("setdomainname", name).stage(Stage::Network)?;
        }
    }
    if matches!(spec.namespaces.network, Network::New) {
        namespace::bring_loopback_up().stage(Stage::Network)?;
    }
    let terminal = if spec.process.terminal {
        let (outer, inner) = device::open_terminal(&root).stage(Stage::Terminal)?;
        device::mount_console(&mut root, &outer).stage(Stage::Terminal)?;
        Some((outer, inner))
    } else {
        None
    };
    mount::pivot_into(root.fd()).stage(Stage::Pivot)?;
    let created_mount_points = std::mem::take(&mut root.created);
    // The last directory descriptor of ours: none may be open when the container's paths are walked.
    drop(root);
    let (command, terminal) = prepare(&spec.process, spec.rootless, spec.watch_sockets, terminal, lines)?;
    Ok(SetUp { command, created_mount_points, terminal })
}

fn set_up_joined(spec: &ProcessSpec, rootless: bool, lines: &Lines) -> Result<SetUp, Failure> {
    die_with_helper(lines)?;
    let terminal =
        if spec.terminal { Some(device::open_joined_terminal().stage(Stage::Terminal)?) } else { None };
    let (command, terminal) = prepare(spec, rootless, false, terminal, lines)?;
    Ok(SetUp { command, created_mount_points: Vec::new(), terminal })
}

/// Prepares the command; with it the outer end of the `terminal`, which is given as outer and inner end.
fn prepare(
    spec: &ProcessSpec,
    rootless: bool,
    watch_sockets: bool,
    terminal: Option<(OwnedFd, OwnedFd)>,
    lines: &Lines,
) -> Result<(process_setup::ReadyCommand, Option<OwnedFd>), Failure> {
    let [input, output, error] = &lines.streams;
    let (outer, inner) = terminal.unzip();
    let streams = match &inner {
        Some(terminal) => [terminal.as_fd(); 3],
        None => [input.as_fd(), output.as_fd(), error.as_fd()],
    };
    match process_setup::prepare(spec, rootless, watch_sockets, streams, || helper_lives(lines)) {
        Ok(command) => Ok((command, outer)),
        Err(failure) => {
            // Closing it now would hang up the terminal of this very process, before it could report.
            std::mem::forget(outer);
            Err(failure)
        }
    }
}

/// Ends this process with the helper, also when the helper went away before the kernel was asked to see to that.
fn die_with_helper(lines: &Lines) -> Result<(), Failure> {
    process::die_with_parent().stage(Stage::Namespaces)?;
    if helper_lives(lines) { Ok(()) } else { process::exit_now(0) }
}

/// A parent outside of the pid namespace has no pid in it, so the answer of getppid(2) says nothing; a pidfd does.
fn helper_lives(lines: &Lines) -> bool {
    let mut polls = [PollFd::new(&lines.helper_pidfd, PollFlags::IN)];
    matches!(rustix::event::poll(&mut polls, Some(&rustix::event::Timespec::default())), Ok(0))
}

fn finish(result: Result<SetUp, Failure>, init: bool, lines: Lines) -> ! {
    let failure = match result {
        Ok(mut set_up) => {
            let sockets = set_up.command.sockets.take();
            let report = Report::Ready {
                created_mount_points: set_up.created_mount_points,
                has_terminal: set_up.terminal.is_some(),
                has_sockets: sockets.is_some(),
            };
            let descriptors: Vec<_> = set_up.terminal.iter().chain(&sockets).map(AsFd::as_fd).collect();
            if wire::send(&lines.parent, &report, &descriptors).is_err() || !wait_for_go(&lines) {
                process::exit_now(0);
            }
            drop((set_up.terminal, sockets));
            if init {
                // The command's process carries on from here; this one stays as the container's init.
                match namespace::fork_process() {
                    Ok(Some(pid)) => crate::tiny_init::run(pid, lines),
                    Ok(None) => become_group_leader(),
                    Err(error) => report_and_exit(&lines, Failure::call(Stage::Exec, &error)),
                }
            }
            let _ = rustix::io::write(&lines.helper, &[EXECUTING]);
            set_up.command.execute()
        }
        Err(failure) => failure,
    };
    report_and_exit(&lines, failure)
}

/// Under an init the command leads a process group of its own, in the terminal's foreground if there is one.
fn become_group_leader() {
    let _ = rustix::process::setpgid(None, None);
    let _ = process::die_with_parent();
    let stdin = std::io::stdin();
    process::take_foreground(&stdin);
}

fn report_and_exit(lines: &Lines, failure: Failure) -> ! {
    let _ = rustix::io::write(&lines.helper, &[FAILED]);
    let _ = wire::send(&lines.parent, &Report::Failed(failure), &[]);
    process::exit_now(125)
}

fn wait_for_go(lines: &Lines) -> bool {
    let mut byte = [0];
    matches!(rustix::io::retry_on_intr(|| rustix::io::read(&lines.parent, &mut byte)), Ok(1)) && byte == [GO]
}
