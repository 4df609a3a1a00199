//! What the process that will be the command does to itself, already inside the container's root: working directory,
//! streams, user, limits, capabilities, filter. Shared by the first process and by `exec_in`.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use mica_sys::error::ErrorAt;
use mica_sys::process;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};

use crate::capability::CapabilitySet;
use crate::command_path::find_command;
use crate::error::{AtStage, Failure, Stage};
use crate::seccomp;
use crate::spec::{self, ProcessSpec, Seccomp};
use crate::user::{User, resolve_user};

/// Most of /etc/passwd or /etc/group that is looked at.
const ACCOUNT_FILE_BYTES_MAX: u64 = 4 << 20;

/// Magic number of the filesystem of anonymous pipes, linux/magic.h.
const PIPEFS_MAGIC: u64 = 0x5049_5045;

/// A command that is ready to be executed.
pub(crate) struct ReadyCommand {
    path: PathBuf,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// The listener of the filter that tells of sockets; to be closed before the execution.
    pub sockets: Option<OwnedFd>,
}

/// Prepares everything but the execution. `streams` are standard input, output and error.
pub(crate) fn prepare(
    spec: &ProcessSpec,
    rootless: bool,
    watch_sockets: bool,
    streams: [BorrowedFd<'_>; 3],
    still_wanted: impl Fn() -> bool,
) -> Result<ReadyCommand, Failure> {
    let Some(command) = spec.argv.first().filter(|command| !command.is_empty()) else {
        return Err(Failure::CommandMissing);
    };
    let user = resolve_user(&spec.user, &read_account_file("/etc/passwd"), &read_account_file("/etc/group"))?;
    let mut env = spec.env.clone();
    if !env.iter().any(|variable| variable.starts_with("HOME=")) {
        env.push(format!("HOME={}", user.home));
    }
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter_directory(&spec.cwd)?;
    take_streams(spec, streams, &user)?;
    for limit in &spec.rlimits {
        set_rlimit(limit)?;
    }
    let arguments = strings(&spec.argv, "argument")?;
    let environment = strings(&env, "environment variable")?;
    process::reset_signals();
    let sockets = take_identity(spec, &user, rootless, watch_sockets)?;
    // The change of credentials has made the kernel forget it.
    process::die_with_parent().stage(Stage::Exec)?;
    if !still_wanted() {
        process::exit_now(0);
    }
    let path = find_command(command, &env)?;
    Ok(ReadyCommand { path, arguments, environment, sockets })
}

impl ReadyCommand {
    /// Executes the command; returns only when that failed.
    pub fn execute(&self) -> Failure {
        let refused = |errno| Failure::CommandRefused { path: self.path.clone(), errno };
        // Our own file is of the host: a container that runs it could get hold of it through /proc (CVE-2019-5736).
        if is_own_program(&self.path) {
            return refused(libc::EACCES);
        }
        match CString::new(self.path.as_os_str().as_encoded_bytes()) {
            Ok(path) => {
                let error = process::execute(&path, &self.arguments, &self.environment);
                refused(error.raw_os_error().unwrap_or(libc::EINVAL))
            }
            Err(_) => refused(libc::EINVAL),
        }
    }
}

fn is_own_program(path: &PathBuf) -> bool {
    match (std::fs::metadata(path), std::fs::metadata("/proc/self/exe")) {
        (Ok(command), Ok(own)) => (command.dev(), command.ino()) == (own.dev(), own.ino()),
        _ => false,
    }
}

fn read_account_file(path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let Ok(fd) = rustix::fs::openat(CWD, path, flags, Mode::empty()) else { return String::new() };
    let file = File::from(fd);
    if !file.metadata().is_ok_and(|metadata| metadata.is_file()) {
        return String::new();
    }
    let mut bytes = Vec::new();
    match file.take(ACCOUNT_FILE_BYTES_MAX).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

fn enter_directory(cwd: &str) -> Result<(), Failure> {
    let cwd = if cwd.is_empty() { "/" } else { cwd };
    match rustix::process::chdir(cwd) {
        Err(Errno::NOENT) => {
            std::fs::create_dir_all(cwd).at("mkdir", cwd).stage(Stage::WorkingDirectory)?;
            rustix::process::chdir(cwd).at("chdir", cwd).stage(Stage::WorkingDirectory)?;
        }
        other => other.at("chdir", cwd).stage(Stage::WorkingDirectory)?,
    }
    // A path through /proc/self/fd can lead to a directory of the host that is still open (CVE-2024-21626); the kernel
    // names such a place `(unreachable)/..`.
    match rustix::process::getcwd(Vec::new()) {
        Ok(path) if path.as_bytes().starts_with(b"/") => Ok(()),
        _ => Err(Failure::CwdOutside { cwd: cwd.to_owned() }),
    }
}

fn take_streams(spec: &ProcessSpec, streams: [BorrowedFd<'_>; 3], user: &User) -> Result<(), Failure> {
    let [input, output, error] = streams;
    for stream in streams {
        let is_pipe =
            rustix::fs::fstatfs(stream).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(PIPEFS_MAGIC));
        if spec.terminal || is_pipe {
            // So that the user can open /dev/stdout by name, as docker has it. What is not ours to give stays as it is.
            let _ = rustix::fs::fchown(stream, Some(rustix::fs::Uid::from_raw(user.uid)), None);
        }
    }
    if spec.terminal {
        process::take_controlling_terminal(input).stage(Stage::Terminal)?;
    } else {
        // Fails only when the process leads a session already, which is as good.
        let _ = rustix::process::setsid();
    }
    // Copies first: a stream given as number 1 must survive that 1 is overwritten.
    let copy = |stream: BorrowedFd<'_>| -> Result<OwnedFd, Failure> {
        rustix::io::fcntl_dupfd_cloexec(stream, 3).at("fcntl F_DUPFD_CLOEXEC", "stdio").stage(Stage::Stdio)
    };
    let (input, output, error) = (copy(input)?, copy(output)?, copy(error)?);
    rustix::stdio::dup2_stdin(input.as_fd()).at("dup2", "stdin").stage(Stage::Stdio)?;
    rustix::stdio::dup2_stdout(output.as_fd()).at("dup2", "stdout").stage(Stage::Stdio)?;
    rustix::stdio::dup2_stderr(error.as_fd()).at("dup2", "stderr").stage(Stage::Stdio)?;
    process::close_on_execute_from(3).stage(Stage::Stdio)
}

/// Answers the listener of the filter that tells of sockets, if one is wanted and the kernel lets us have it.
fn take_identity(
    spec: &ProcessSpec,
    user: &User,
    rootless: bool,
    watch_sockets: bool,
) -> Result<Option<OwnedFd>, Failure> {
    let _ = process::join_new_session_keyring();
    let wanted = if spec.privileged { CapabilitySet::ALL } else { spec.capabilities };
    let bounding = process::bound_capabilities(wanted.0).stage(Stage::Capabilities)?;
    let available = process::permitted_capabilities().stage(Stage::Capabilities)?;
    // The refusals of the default filter go before what this one answers, in whichever order they are loaded. A kernel
    // that has no such listener, or a listener already, is no failure: the parent sees that there is none.
    let sockets =
        if watch_sockets { process::load_seccomp_listener(&seccomp::socket_filter()).ok() } else { None };
    // While CAP_SYS_ADMIN is still there: without it a filter would need no_new_privs, which docker does not set.
    if spec.seccomp == Seccomp::Default && !spec.privileged {
        let filter = seccomp::default_filter(CapabilitySet(bounding));
        process::load_seccomp(&filter).stage(Stage::Seccomp)?;
    }
    process::keep_capabilities(true).stage(Stage::User)?;
    match process::set_groups(&user.groups) {
        // With a map of one id setgroups is not allowed in the user namespace; there is nothing to drop either.
        Err(error) if rootless && error.raw_os_error() == Some(libc::EPERM) && user.groups.is_empty() => {}
        other => other.stage(Stage::User)?,
    }
    process::set_ids(user.uid, user.gid).stage(Stage::User)?;
    process::keep_capabilities(false).stage(Stage::User)?;
    process::clear_ambient_capabilities().stage(Stage::Capabilities)?;
    let held = if user.uid == 0 { bounding & available } else { 0 };
    process::set_capabilities(held, held, 0).stage(Stage::Capabilities)?;
    if spec.no_new_privileges {
        process::set_no_new_privileges().stage(Stage::Capabilities)?;
    }
    Ok(sockets)
}

fn set_rlimit(limit: &spec::Rlimit) -> Result<(), Failure> {
    let resource = match limit.name.as_str() {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return Err(Failure::RlimitUnknown { name: limit.name.clone() }),
    };
    rustix::process::setrlimit(resource, Rlimit { current: limit.soft, maximum: limit.hard })
        .at("setrlimit", &limit.name)
        .stage(Stage::Rlimits)
}

fn strings(values: &[String], what: &str) -> Result<Vec<CString>, Failure> {
    values
        .iter()
        .map(|value| {
            CString::new(value.as_str()).map_err(|_| Failure::ZeroByte {
                what: what.to_owned(),
                value: value.escape_default().to_string(),
            })
        })
        .collect()
}
