//! The listener of a seccomp filter: takes its notifications and lets the calls go on.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

use crate::namespace::check;

/// Room for what the kernel tells of a call (`struct seccomp_notif`), more than it uses today.
const NOTIFICATION_WORDS: usize = 32;

// The numbers of linux/seccomp.h, the same on all platforms that we run on.
const NOTIFICATION_RECEIVE: libc::c_ulong = 0xc050_2100;
const NOTIFICATION_SEND: libc::c_ulong = 0xc018_2101;
const NOTIFICATION_SET_FLAGS: libc::c_ulong = 0x4008_2104;

/// Takes the next notification of `listener`, which [`crate::process::load_seccomp_listener`] opened, and lets its call
/// go on in the kernel as if there were no filter.
///
/// Blocks until there is one; poll(2) tells that without. Whoever called may be gone by now, which is no error.
pub fn let_call_go_on(listener: impl AsFd) -> rustix::io::Result<()> {
    #[repr(C)]
    struct Response {
        id: u64,
        value: i64,
        error: i32,
        flags: u32,
    }
    let listener = listener.as_fd().as_raw_fd();
    // The kernel wants zeros; the first word will be the id.
    let mut notification = [0_u64; NOTIFICATION_WORDS];
    let pointer = notification.as_mut_ptr();
    // SAFETY: the kernel writes a `struct seccomp_notif`, for which there is room and which has no invalid values.
    match check(unsafe { libc::ioctl(listener, NOTIFICATION_RECEIVE as _, pointer) }.into()) {
        Ok(_) => {}
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error),
    }
    let [id, ..] = notification;
    let flags = libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32;
    let response = Response { id, value: 0, error: 0, flags };
    // SAFETY: `response` is a `struct seccomp_notif_resp`, which the kernel only reads.
    match check(unsafe { libc::ioctl(listener, NOTIFICATION_SEND as _, &raw const response) }.into()) {
        Ok(_) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Asks the kernel to run caller and listener on one processor in turns, which halves the way there and back.
///
/// Kernels before Linux 6.6 do not know that; then all stays as it was.
pub fn wake_in_turns(listener: impl AsFd) {
    const SYNCHRONOUS_WAKE_UP: libc::c_ulong = 1;
    // SAFETY: the argument is a number, no pointer.
    unsafe { libc::ioctl(listener.as_fd().as_raw_fd(), NOTIFICATION_SET_FLAGS as _, SYNCHRONOUS_WAKE_UP) };
}
