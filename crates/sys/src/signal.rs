//! Signals as something to read: for a loop that also waits for streams.

#![allow(unsafe_code)]

use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// Signals of this process, blocked and read from a descriptor instead. They stay blocked when it is dropped.
///
/// Make it before any other thread: a thread that does not block a signal is killed by it instead.
#[derive(Debug)]
pub struct SignalReader {
    fd: OwnedFd,
    signals: Vec<i32>,
}

impl SignalReader {
    /// Blocks `signals` in the calling thread, and in those that it starts.
    pub fn new(signals: &[i32]) -> Result<Self> {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that the other calls read; the old mask is not asked for.
        let fd = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK)
        };
        if fd < 0 {
            return Err(Error::new("signalfd", "signals", std::io::Error::last_os_error()));
        }
        // SAFETY: the kernel just made this descriptor, and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, signals: signals.to_vec() })
    }

    /// Lets the signals through again in the calling thread: those that have come and were not read take effect now.
    pub fn unblock(self) {
        let mut set = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that the other calls read; the old mask is not asked for.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for signal in &self.signals {
                libc::sigaddset(set.as_mut_ptr(), *signal);
            }
            libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), std::ptr::null_mut());
        }
    }

    /// The next signal that has come, without waiting.
    pub fn next(&self) -> Option<i32> {
        let mut bytes = [0u8; std::mem::size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.fd, &mut bytes) {
                // The number comes first, signalfd(2).
                Ok(count) if count >= 4 => {
                    let [a, b, c, d, ..] = bytes;
                    return i32::try_from(u32::from_ne_bytes([a, b, c, d])).ok();
                }
                Err(Errno::INTR) => {}
                _ => return None,
            }
        }
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_instead_of_acted_upon() {
        std::thread::spawn(|| {
            let reader = SignalReader::new(&[libc::SIGUSR2]).unwrap();
            assert_eq!(reader.next(), None);
            // SAFETY: raises a signal of the calling thread, which has just blocked it.
            unsafe { libc::raise(libc::SIGUSR2) };
            assert_eq!(reader.next(), Some(libc::SIGUSR2));
            assert_eq!(reader.next(), None);
        })
        .join()
        .unwrap();
    }
}
