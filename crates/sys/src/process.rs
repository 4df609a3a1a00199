//! What a process does to itself before it executes another program: signals, capabilities, seccomp, descriptors.
//!
//! The calls are of the calling thread or process; the runtime makes them in a process with one thread.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;

use crate::error::{Error, ErrorAt, Result};
use crate::namespace::check;

/// One instruction of a classic BPF program, as seccomp takes it (`struct sock_filter`).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BpfInstruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip when the test holds.
    pub jump_true: u8,
    /// Instructions to skip when it does not.
    pub jump_false: u8,
    /// Operand.
    pub value: u32,
}

/// Gives every signal its default action and unblocks all: a program expects SIGPIPE to kill it, Rust ignores it.
pub fn reset_signals() {
    // As the kernel has it: handler, flags, restorer, mask; all zero is the default action.
    let default = [0_u64; 4];
    for signal in 1..=64 {
        // The raw call, because the C library keeps 32 and 33 to itself, and its posix_spawn(3) leaves them ignored.
        // SAFETY: setting the default action installs no code of ours; `default` is as long as the kernel's
        // `struct sigaction`, and the old action is not asked for. Signals that cannot be set answer EINVAL.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), ptr::null_mut::<u64>(), 8_usize)
        };
    }
    let mut none = empty_signal_set();
    // SAFETY: `none` is an initialised set, the old set is not asked for.
    unsafe {
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Blocks every signal, so that [`next_signal`] can take them one by one.
pub fn block_signals() {
    let mut all = empty_signal_set();
    // SAFETY: `all` is an initialised set, the old set is not asked for.
    unsafe {
        libc::sigfillset(&raw mut all);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, ptr::null_mut());
    }
}

/// Waits for a blocked signal and takes it.
pub fn next_signal() -> i32 {
    let mut all = empty_signal_set();
    loop {
        // SAFETY: `all` is an initialised set; the details of the signal are not asked for.
        let signal = unsafe {
            libc::sigfillset(&raw mut all);
            libc::sigwaitinfo(&raw const all, ptr::null_mut())
        };
        if signal > 0 {
            return signal;
        }
    }
}

fn empty_signal_set() -> libc::sigset_t {
    // SAFETY: a `sigset_t` is plain integers; all zero is an empty set.
    unsafe { std::mem::zeroed() }
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
struct CapabilityWord {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities, capset(2).
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Sets the effective, permitted and inheritable capabilities (bit n is capability n).
pub fn set_capabilities(effective: u64, permitted: u64, inheritable: u64) -> Result<()> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let word = |shift: u32| CapabilityWord {
        effective: (effective >> shift) as u32,
        permitted: (permitted >> shift) as u32,
        inheritable: (inheritable >> shift) as u32,
    };
    let words = [word(0), word(32)];
    // SAFETY: header and two words are what version 3 of the call reads.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, words.as_ptr()) })
        .at("capset", "self")?;
    Ok(())
}

/// The permitted capabilities of this process.
pub fn permitted_capabilities() -> Result<u64> {
    let header = CapabilityHeader { version: CAPABILITY_VERSION, pid: 0 };
    let mut words = [CapabilityWord::default(); 2];
    // SAFETY: header and room for two words are what version 3 of the call reads and fills.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, words.as_mut_ptr()) })
        .at("capget", "self")?;
    Ok(u64::from(words[0].permitted) | u64::from(words[1].permitted) << 32)
}

/// Removes all but `keep` from the bounding set; returns what is left of it.
pub fn bound_capabilities(keep: u64) -> Result<u64> {
    let mut left = 0;
    for capability in 0..64_u32 {
        let present = match prctl(libc::PR_CAPBSET_READ, capability.into()) {
            Ok(present) => present == 1,
            // The first number the kernel does not know: there are no more.
            Err(_) => break,
        };
        if !present {
            continue;
        }
        if keep & (1 << capability) == 0 {
            prctl(libc::PR_CAPBSET_DROP, capability.into())
                .at("prctl PR_CAPBSET_DROP", capability.to_string())?;
        } else {
            left |= 1 << capability;
        }
    }
    Ok(left)
}

/// Whether a change of user id away from 0 keeps the permitted capabilities (until the next exec).
pub fn keep_capabilities(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into()).at("prctl PR_SET_KEEPCAPS", "self").map(drop)
}

/// Empties the ambient set.
pub fn clear_ambient_capabilities() -> Result<()> {
    prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL as u64)
        .at("prctl PR_CAP_AMBIENT", "self")
        .map(drop)
}

/// Makes this process and what it becomes unable to gain privileges by executing a program.
pub fn set_no_new_privileges() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1).at("prctl PR_SET_NO_NEW_PRIVS", "self").map(drop)
}

/// Makes the process killed with SIGKILL when the thread that created it ends.
///
/// The kernel forgets this on a change of credentials; call it again after one, and check that the parent lives.
pub fn die_with_parent() -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as u64).at("prctl PR_SET_PDEATHSIG", "self").map(drop)
}

/// Whether others of the same user may look into this process (`/proc/PID/exe`, ptrace).
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into()).at("prctl PR_SET_DUMPABLE", "self").map(drop)
}

fn prctl(option: libc::c_int, argument: u64) -> rustix::io::Result<libc::c_long> {
    // SAFETY: none of the options used in this file takes a pointer.
    check(unsafe { libc::prctl(option, argument, 0_u64, 0_u64, 0_u64) }.into())
}

/// Gives the process a new, empty session keyring: the caller's keys are not the container's.
pub fn join_new_session_keyring() -> Result<()> {
    const KEYCTL_JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    check(unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, ptr::null::<u8>()) })
        .at("keyctl", "session keyring")?;
    Ok(())
}

/// Sets the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: pointer and length are of one slice, which outlives the call.
    check(unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) })
        .at("setgroups", format!("{groups:?}"))?;
    Ok(())
}

/// Sets all user and group ids (real, effective, saved), group first.
pub fn set_ids(user_id: u32, group_id: u32) -> Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresgid, group_id, group_id, group_id) })
        .at("setresgid", group_id.to_string())?;
    // SAFETY: no pointers are passed.
    check(unsafe { libc::syscall(libc::SYS_setresuid, user_id, user_id, user_id) })
        .at("setresuid", user_id.to_string())?;
    Ok(())
}

/// Loads a seccomp filter. Needs CAP_SYS_ADMIN or no-new-privileges.
pub fn load_seccomp(program: &[BpfInstruction]) -> Result<()> {
    set_seccomp_filter(program, 0).at("seccomp", "filter").map(drop)
}

/// Loads a seccomp filter whose answer can be SECCOMP_RET_USER_NOTIF, and opens the listener (close-on-exec) for it.
///
/// Needs what [`load_seccomp`] needs. A process can have one such filter; where one has a listener already, inherited
/// ones too, the answer is `EBUSY`.
pub fn load_seccomp_listener(program: &[BpfInstruction]) -> Result<OwnedFd> {
    // A signal must not make a call fail that nobody expects to be interrupted; Linux before 5.19 does not know that.
    let (listener, killable) =
        (libc::SECCOMP_FILTER_FLAG_NEW_LISTENER, libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV);
    let number = match set_seccomp_filter(program, listener | killable) {
        Err(Errno::INVAL) => set_seccomp_filter(program, listener),
        other => other,
    }
    .at("seccomp", "listener")?;
    // SAFETY: the kernel has just opened this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(number as i32) })
}

fn set_seccomp_filter(program: &[BpfInstruction], flags: libc::c_ulong) -> rustix::io::Result<libc::c_long> {
    #[repr(C)]
    struct Program {
        length: u16,
        filter: *const BpfInstruction,
    }
    let length = u16::try_from(program.len()).map_err(|_| Errno::TOOBIG)?;
    let program = Program { length, filter: program.as_ptr() };
    const SECCOMP_SET_MODE_FILTER: libc::c_long = 1;
    // SAFETY: `program` is a `struct sock_fprog` over a slice that outlives the call; the kernel copies it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
}

/// Executes `path`; returns only when that failed.
pub fn execute(path: &CStr, arguments: &[CString], environment: &[CString]) -> Error {
    let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
        strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, envp) = (pointers(arguments), pointers(environment));
    // SAFETY: both arrays end in a null pointer and their strings outlive the call.
    unsafe { libc::execve(path.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    Error::new("execve", path.to_string_lossy().as_ref(), std::io::Error::last_os_error())
}

/// Closes every descriptor from `first` on when the next program is executed.
pub fn close_on_execute_from(first: u32) -> Result<()> {
    close_range(first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC).at("close_range", first.to_string())
}

/// Closes every descriptor above 2 that is not in `keep`. Only for a process that owns no other `OwnedFd` any more.
pub fn close_all_but(keep: &[&dyn AsRawFd]) -> Result<()> {
    let mut numbers: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok()).collect();
    numbers.sort_unstable();
    let mut first = 3;
    for number in numbers.into_iter().filter(|number| *number >= 3) {
        if number > first {
            close_range(first, number - 1, 0).at("close_range", first.to_string())?;
        }
        first = number + 1;
    }
    close_range(first, u32::MAX, 0).at("close_range", first.to_string())
}

fn close_range(first: u32, last: u32, flags: libc::c_uint) -> rustix::io::Result<()> {
    // SAFETY: no pointers are passed; the callers say which descriptors are meant.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(drop)
}

/// Lets all threads take memory from one heap. Else each has its own, and what one frees is not there for the others: a
/// process whose threads come and go, each with much memory for a while, would hold it many times over. Threads that do little
/// else than take memory would wait for each other. Large pieces go back to the kernel when they are freed. Before the first
/// thread.
pub fn share_one_heap() {
    // SAFETY: sets numbers of the allocator; only this thread exists. Without effect it would only cost memory.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        // Else this grows with the first large piece that is freed, and the next ones break up the heap.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
    }
}

/// Ends the process at once, without running destructors or exit handlers.
pub fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` runs nothing of this process.
    unsafe { libc::_exit(code) }
}

/// Makes `terminal` the controlling terminal of this process, which becomes the leader of a new session.
pub fn take_controlling_terminal(terminal: impl AsFd) -> Result<()> {
    rustix::process::setsid().at("setsid", "self")?;
    rustix::process::ioctl_tiocsctty(terminal).at("ioctl TIOCSCTTY", "terminal")
}

/// Makes the process group of this process the foreground one of `terminal`, if it is one.
pub fn take_foreground(terminal: impl AsFd) {
    // SAFETY: SIGTTOU, which a background process gets for this, is ignored meanwhile and then default again.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_IGN) };
    let _ = rustix::termios::tcsetpgrp(terminal, rustix::process::getpgrp());
    // SAFETY: as above.
    unsafe { libc::signal(libc::SIGTTOU, libc::SIG_DFL) };
}
