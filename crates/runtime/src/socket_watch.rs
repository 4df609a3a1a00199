//! Whether anything in a container opened a way to the network.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use mica_sys::error::ErrorAt;
use mica_sys::seccomp_notify;
use rustix::event::{EventfdFlags, PollFd, PollFlags};

use crate::error::Result;

/// Notes whether a process of the container opens a socket that can reach the network (AF_INET, AF_INET6 and whatever
/// else does not end in this kernel), or an io_uring, which opens sockets that nobody sees.
///
/// A thread answers the kernel, which asks about each such call, that it may go on. Nothing is refused and nothing
/// changed, but the calls wait for the answer: once this is gone they fail with `ENOSYS`. So it has to live as long as
/// the container does.
#[derive(Debug)]
pub struct SocketWatch {
    thread: Option<JoinHandle<()>>,
    used: Arc<AtomicBool>,
    stop: Arc<OwnedFd>,
}

impl SocketWatch {
    pub(crate) fn start(listener: OwnedFd) -> Result<Self> {
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .at("eventfd2", "sockets of a container")?;
        let (stop, used) = (Arc::new(stop), Arc::new(AtomicBool::new(false)));
        let (thread_stop, thread_used) = (Arc::clone(&stop), Arc::clone(&used));
        let thread = std::thread::Builder::new()
            .name("container sockets".to_owned())
            .spawn(move || answer(&listener, &thread_stop, &thread_used))
            .at("clone", "sockets of a container")?;
        Ok(Self { thread: Some(thread), used, stop })
    }

    /// Whether there was such a call. Ends the watch, so the container has to have ended.
    pub fn used(mut self) -> bool {
        self.end();
        self.used.load(Ordering::Acquire)
    }

    fn end(&mut self) {
        if let Some(thread) = self.thread.take() {
            let _ = rustix::io::write(&*self.stop, &1_u64.to_ne_bytes());
            // It waits for nothing but the two descriptors, one of which is ready now.
            if thread.join().is_err() {
                self.used.store(true, Ordering::Release);
            }
        }
    }
}

impl Drop for SocketWatch {
    fn drop(&mut self) {
        self.end();
    }
}

/// Answers until all processes under the filter are gone, or it is told to stop. What cannot be known counts as used.
fn answer(listener: &OwnedFd, stop: &OwnedFd, used: &AtomicBool) {
    seccomp_notify::wake_in_turns(listener);
    loop {
        let mut polls =
            [PollFd::new(listener, PollFlags::IN), PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN)];
        if rustix::io::retry_on_intr(|| rustix::event::poll(&mut polls, None)).is_err() {
            used.store(true, Ordering::Release);
            return;
        }
        let [asked, stopped] = polls.map(|poll| poll.revents());
        if asked.contains(PollFlags::IN) {
            used.store(true, Ordering::Release);
            if rustix::io::retry_on_intr(|| seccomp_notify::let_call_go_on(listener)).is_err() {
                return;
            }
        }
        // Also in the midst of calls: whoever still makes them then must not hold up the end.
        if !stopped.is_empty() || (!asked.is_empty() && !asked.contains(PollFlags::IN)) {
            return;
        }
    }
}
