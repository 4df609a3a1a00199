//! A network without root, by the program `pasta`: it makes a tun device in the container's namespace, with the
//! host's own address, and speaks for it through ordinary sockets.
//!
//! ```text
//! <state_dir>/rootless/
//!     <container ID>      locked as long as the endpoint is used
//!     <container ID>.pid  written by pasta; named in its arguments, by which it is known again
//!     <container ID>.log  what pasta says while it starts
//! ```
//!
//! pasta runs on its own once it has started; when whoever held the lock was killed, the next sweep ends it.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek};
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_sys::error::ErrorAt;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::bridge::CONTAINER_LINK_NAME;
use crate::error::{Error, Result, Unavailable};
use crate::link::Links;
use crate::namespace::NetworkNamespace;

const PROGRAM: &str = "pasta";
const TUN_DEVICE: &str = "/dev/net/tun";
/// It takes 0.15 s; a busy machine may take longer.
const START_TIMEOUT: Duration = Duration::from_secs(15);
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// More is not read of what it says, nor of its arguments.
const TEXT_BYTES_MAX: u64 = 16 * 1024;

/// What the caller decides.
#[derive(Debug, Clone)]
pub struct RootlessSettings {
    /// As [`BridgeSettings::state_dir`](crate::BridgeSettings::state_dir); may be the same.
    pub state_dir: PathBuf,
    /// The program, if it is not to be looked for.
    pub program: Option<PathBuf>,
    /// Where the program is looked for: the value of `PATH`.
    pub search_path: String,
}

/// A container's network by way of pasta; ended by [`detach`](RootlessEndpoint::detach), or by a sweep once this
/// value is gone.
#[derive(Debug)]
pub struct RootlessEndpoint {
    /// The container's address, which is the host's own.
    pub ipv4: Option<Ipv4Addr>,
    places: Places,
    _lock: File,
}

/// The files of one container.
#[derive(Debug)]
struct Places {
    lock: PathBuf,
    pid: PathBuf,
    log: PathBuf,
}

/// Connects the container in `netns` to the network as the calling user.
///
/// The calling process is in the user namespace that owns `netns`, and has `CAP_SYS_ADMIN` in it. What stands in
/// the way is [`Error::RootlessUnavailable`], a fact; the caller decides if the host's network will do.
pub fn attach_rootless(
    settings: &RootlessSettings,
    container_id: &str,
    netns: &NetworkNamespace,
) -> Result<RootlessEndpoint> {
    let program = find_program(settings)?;
    check_tun_device()?;
    let places = Places::of(&settings.state_dir, container_id)?;
    let lock =
        lock_place(&places.lock)?.ok_or_else(|| mica_sys::Error::new("flock", &places.lock, Errno::AGAIN))?;
    end_program(&places)?; // of an earlier run of this container
    if let Err(error) = start_program(&program, &places, netns) {
        let _ = end_program(&places);
        let _ = fs::remove_file(&places.lock);
        return Err(error);
    }
    let ipv4 = netns.run(first_address)??;
    Ok(RootlessEndpoint { ipv4, places, _lock: lock })
}

impl RootlessEndpoint {
    /// Ends the program, and with it the container's network.
    pub fn detach(self) -> Result<()> {
        end_program(&self.places)?;
        remove_if_present(&self.places.lock)
    }
}

/// Ends the programs of containers that nobody holds any more; says how many.
pub fn sweep_rootless(settings: &RootlessSettings) -> Result<usize> {
    let directory = settings.state_dir.join("rootless");
    let entries = match fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        entries => entries.at("readdir", &directory)?,
    };
    let mut ended = 0;
    for entry in entries {
        let name = entry.at("readdir", &directory)?.file_name();
        let Some(id) = name.to_str().filter(|name| Path::new(name).extension().is_none()) else { continue };
        let Ok(places) = Places::of(&settings.state_dir, id) else { continue };
        if let Some(_lock) = lock_place(&places.lock)? {
            end_program(&places)?;
            remove_if_present(&places.lock)?;
            ended += 1;
        }
    }
    Ok(ended)
}

impl Places {
    fn of(state_dir: &Path, container_id: &str) -> Result<Self> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(1..=128).contains(&container_id.len()) || !container_id.bytes().all(is_plain) {
            return Err(Error::ContainerIdInvalid { container_id: container_id.to_owned() });
        }
        let directory = state_dir.join("rootless");
        DirBuilder::new().recursive(true).mode(0o700).create(&directory).at("mkdir", &directory)?;
        // Absolute, because pasta changes its directory.
        let directory = fs::canonicalize(&directory).at("realpath", &directory)?;
        Ok(Self {
            lock: directory.join(container_id),
            pid: directory.join(format!("{container_id}.pid")),
            log: directory.join(format!("{container_id}.log")),
        })
    }
}

fn find_program(settings: &RootlessSettings) -> Result<PathBuf> {
    if let Some(program) = &settings.program {
        return Ok(program.clone());
    }
    let is_program = |path: &PathBuf| {
        path.is_absolute() && path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
    };
    let mut candidates =
        std::env::split_paths(&settings.search_path).map(|directory| directory.join(PROGRAM));
    candidates.find(is_program).ok_or(Error::RootlessUnavailable(Unavailable::NoProgram { program: PROGRAM }))
}

fn check_tun_device() -> Result<()> {
    match OpenOptions::new().read(true).write(true).open(TUN_DEVICE) {
        Ok(_) => Ok(()),
        Err(source) => {
            let path = PathBuf::from(TUN_DEVICE);
            Err(Error::RootlessUnavailable(Unavailable::NoTunDevice { path, source }))
        }
    }
}

fn start_program(program: &Path, places: &Places, netns: &NetworkNamespace) -> Result<()> {
    let mut log = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&places.log)
        .at("open", &places.log)?;
    let mut command = Command::new(program);
    command.args(["--config-net", "--quiet", "--ns-ifname", CONTAINER_LINK_NAME]);
    // The host's loopback services are not the container's to use; ports are published by our own proxy.
    command.args(["--no-map-gw", "-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    if rustix::process::geteuid().is_root() {
        command.args(["--runas", "0"]); // it would become `nobody`, who may not enter the namespace
    }
    command.arg("--pid").arg(&places.pid);
    // The namespace comes as standard input: pasta gives up capabilities first, and may then neither open another
    // process's namespace by way of /proc, nor does it keep other descriptors open.
    command.args(["--netns", "/proc/self/fd/0"]);
    command.stdin(Stdio::from(File::from(netns.try_clone()?.into_descriptor())));
    command.stdout(Stdio::null());
    command.stderr(Stdio::from(log.try_clone().at("fcntl", &places.log)?));
    let mut child = command.spawn().at("execve", program)?;
    let deadline = Instant::now() + START_TIMEOUT;
    let status = loop {
        // It goes into the background, and so ends here, when all is set up.
        match child.try_wait().at("waitpid", program)? {
            Some(status) => break Some(status),
            None if Instant::now() > deadline => break None,
            None => std::thread::sleep(Duration::from_millis(5)),
        }
    };
    if status.is_some_and(|status| status.success()) {
        let _ = fs::remove_file(&places.log);
        return Ok(());
    }
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    let mut text = Vec::new();
    let _ = log.rewind();
    let _ = log.take(TEXT_BYTES_MAX).read_to_end(&mut text);
    let _ = fs::remove_file(&places.log);
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|line| is_telling(line)).collect();
    let message = if status.is_none() { "it did not start in time".to_owned() } else { lines.join("; ") };
    Err(Error::RootlessUnavailable(Unavailable::ProgramFailed { program: program.to_path_buf(), message }))
}

/// Hosts without a system log make it complain about that too.
fn is_telling(line: &str) -> bool {
    let is_about_syslog = line.starts_with("Failed to send ") && line.ends_with(" to syslog");
    !line.is_empty() && !is_about_syslog
}

/// Ends the program of these places, if it runs, and removes its files.
fn end_program(places: &Places) -> Result<()> {
    if let Some(pid) = read_pid(&places.pid) {
        // Opened first and checked then, so that the process checked is the process killed.
        match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(process) if is_program_of(pid, places) => {
                // It is the first process of a namespace of its own, so no other signal would end it.
                match rustix::process::pidfd_send_signal(&process, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => {
                        return Err(mica_sys::Error::new("pidfd_send_signal", PROGRAM, error).into());
                    }
                }
                let timeout = Timespec::try_from(STOP_TIMEOUT).ok();
                let mut poll = [PollFd::new(&process, PollFlags::IN)];
                rustix::event::poll(&mut poll, timeout.as_ref()).at("poll", PROGRAM)?;
            }
            Ok(_) | Err(Errno::SRCH) => {}
            Err(error) => return Err(mica_sys::Error::new("pidfd_open", PROGRAM, error).into()),
        }
    }
    remove_if_present(&places.pid)?;
    remove_if_present(&places.log)
}

fn read_pid(path: &Path) -> Option<Pid> {
    let text = read_text(path)?;
    Pid::from_raw(text.trim().parse::<i32>().ok().filter(|pid| *pid > 0)?)
}

/// A number may have gone to another process long since; the arguments of ours name our file.
fn is_program_of(pid: Pid, places: &Places) -> bool {
    let arguments = read_text(Path::new(&format!("/proc/{}/cmdline", pid.as_raw_nonzero())));
    let file = places.pid.to_string_lossy();
    arguments.is_some_and(|arguments| arguments.split('\0').any(|argument| argument == file))
}

fn read_text(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(TEXT_BYTES_MAX).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

fn first_address() -> Result<Option<Ipv4Addr>> {
    let addresses = Links::open()?.addresses()?;
    Ok(addresses.into_iter().map(|(_, address, _)| address).find(|address| !address.is_loopback()))
}

/// The file, locked; `None` if somebody holds it.
fn lock_place(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)
        .at("open", path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(mica_sys::Error::new("flock", path, error).into()),
    }
}

fn remove_if_present(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error).at("unlink", path)?,
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let settings = |program, search_path: &str| RootlessSettings {
            state_dir: dir.path().to_path_buf(),
            program,
            search_path: search_path.to_owned(),
        };
        let netns = NetworkNamespace::of_thread().unwrap();
        let error = attach_rootless(&settings(None, "relative::"), "c", &netns).unwrap_err();
        let Error::RootlessUnavailable(reason) = error else { panic!("{error}") };
        assert_eq!(reason.to_string(), "program is not in PATH: `pasta`");
        if check_tun_device().is_err() {
            println!("skipped: the tun device cannot be opened");
            return;
        }
        let error = attach_rootless(&settings(Some("/bin/false".into()), ""), "c", &netns).unwrap_err();
        let Error::RootlessUnavailable(reason) = error else { panic!("{error}") };
        assert_eq!(reason.to_string(), "`/bin/false` failed: ");
        assert_eq!(fs::read_dir(dir.path().join("rootless")).unwrap().count(), 0);
        for id in ["", "a/b", "..", "a.pid", "a b"] {
            let error = attach_rootless(&settings(Some("/bin/false".into()), ""), id, &netns).unwrap_err();
            assert!(matches!(error, Error::ContainerIdInvalid { .. }), "{id}: {error}");
        }
    }

    #[test]
    fn a_stranger_with_the_same_number_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = Places::of(dir.path(), "c").unwrap();
        let mut stranger = Command::new("sleep").arg("30").spawn().unwrap();
        for text in
            [stranger.id().to_string(), "0".into(), "-1".into(), "1".into(), "x".into(), String::new()]
        {
            fs::write(&places.pid, text).unwrap();
            end_program(&places).unwrap();
            assert!(!places.pid.exists());
        }
        assert!(stranger.try_wait().unwrap().is_none());
        stranger.kill().unwrap();
        stranger.wait().unwrap();
    }
}
