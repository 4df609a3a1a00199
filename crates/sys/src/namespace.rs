//! New processes in new namespaces, joining existing ones, and the loopback interface of a new network namespace.
//!
//! Everything here is for the single-threaded helper of the runtime: a clone with the semantics of fork in a
//! process that has other threads leaves the child with whatever locks those threads held.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::process::Pid;

use crate::error::{Error, ErrorAt, Result};

/// Namespaces, as the flags that `clone3`, `unshare` and `setns` share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Namespaces(u64);

impl Namespaces {
    /// No namespace: with [`clone_process`] this is a fork.
    pub const NONE: Self = Self(0);
    /// The mount namespace.
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// The process id namespace.
    pub const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// The System V and POSIX message queue namespace.
    pub const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// The host name namespace.
    pub const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// The network namespace.
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);
    /// The cgroup namespace.
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// The user namespace.
    pub const USER: Self = Self(libc::CLONE_NEWUSER as u64);

    /// These and those.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all of `other` are among these.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

/// Which side of [`clone_process`] this is.
#[derive(Debug)]
pub enum Cloned {
    /// The new process.
    Child,
    /// The calling process; it learns the child's pid and holds a pidfd of it.
    Parent {
        /// Pid of the child as the caller's pid namespace counts.
        pid: Pid,
        /// A pidfd of the child (close-on-exec).
        pidfd: OwnedFd,
    },
}

#[repr(C, align(8))]
#[derive(Default)]
struct CloneArguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size_bytes: u64,
    tls: u64,
}

/// Clones this process as fork does, the child in the new `namespaces`.
///
/// Refuses (`EBUSY`) when this process has more than one thread and `/proc` can tell.
pub fn clone_process(namespaces: Namespaces) -> Result<Cloned> {
    if thread_count().is_some_and(|count| count > 1) {
        return Err(Error::new("clone3", "threads", rustix::io::Errno::BUSY));
    }
    let mut pidfd: libc::c_int = -1;
    let arguments = CloneArguments {
        flags: namespaces.0 | libc::CLONE_PIDFD as u64,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArguments::default()
    };
    // SAFETY: `arguments` is a `struct clone_args` of the size given; without CLONE_VM the child has its own copy of
    // memory, as after fork, and this process has one thread, so no lock can be held by a thread that is gone.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone3, &raw const arguments, std::mem::size_of::<CloneArguments>())
    };
    if pid == 0 {
        return Ok(Cloned::Child);
    }
    let pid = check(pid).at("clone3", "child")?;
    // SAFETY: the kernel has just stored a new descriptor there, and nobody else knows of it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match Pid::from_raw(pid as i32) {
        Some(pid) => Ok(Cloned::Parent { pid, pidfd }),
        None => Err(Error::new("clone3", "child", rustix::io::Errno::INVAL)),
    }
}

/// Forks this process; the child gets nothing.
///
/// The call is clone(2), which filters of system calls let pass, unlike clone3(2). Refuses threads as
/// [`clone_process`] does.
pub fn fork_process() -> Result<Option<Pid>> {
    if thread_count().is_some_and(|count| count > 1) {
        return Err(Error::new("clone", "threads", rustix::io::Errno::BUSY));
    }
    // SAFETY: this process has one thread, so no lock can be held by a thread that is gone in the child.
    let pid = check(unsafe { libc::fork() }.into()).at("clone", "child")?;
    Ok(Pid::from_raw(pid as i32))
}

/// How many threads this process has, if `/proc` is there to ask: each is one directory below `task`.
pub fn thread_count() -> Option<u64> {
    std::fs::metadata("/proc/self/task").ok().map(|metadata| metadata.nlink().saturating_sub(2))
}

/// Puts this process into new `namespaces` (for the process id namespace: its future children).
pub fn unshare(namespaces: Namespaces) -> Result<()> {
    // SAFETY: no pointers are passed; file descriptors and memory stay shared as they were.
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces.0) }).at("unshare", "namespaces")?;
    Ok(())
}

/// Joins the namespaces that `fd` stands for: a namespace file with one kind, or a pidfd with any.
pub fn join(fd: impl AsFd, namespaces: Namespaces) -> rustix::io::Result<()> {
    use std::os::fd::AsRawFd;
    // SAFETY: no pointers are passed, the descriptor is borrowed.
    check(unsafe { libc::syscall(libc::SYS_setns, fd.as_fd().as_raw_fd(), namespaces.0) }).map(drop)
}

/// Brings the loopback interface of the current network namespace up.
pub fn bring_loopback_up() -> Result<()> {
    use std::os::fd::AsRawFd;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )
    .at("socket", "lo")?;
    // SAFETY: an all-zero `ifreq` is a valid value of it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which `request` is, and it outlives the call.
    let answer = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    check(answer.into()).at("ioctl SIOCSIFFLAGS", "lo")?;
    Ok(())
}

/// The answer of a raw call: `-1` becomes the errno.
pub(crate) fn check(answer: libc::c_long) -> rustix::io::Result<libc::c_long> {
    if answer == -1 {
        let errno = std::io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
        Err(rustix::io::Errno::from_raw_os_error(errno))
    } else {
        Ok(answer)
    }
}
