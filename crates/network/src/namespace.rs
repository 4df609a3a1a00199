//! A network namespace held open, and work done inside it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mica_sys::error::ErrorAt;
use rustix::fs::{Mode, OFlags};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::error::Result;

/// A network namespace. It lives as long as this value, even when no process is in it any more; so a monitor must
/// let go of it when the container ends.
#[derive(Debug)]
pub struct NetworkNamespace {
    descriptor: OwnedFd,
    /// For errors: what it was opened from.
    name: String,
}

impl NetworkNamespace {
    /// The namespace of process `pid`. The caller knows that the process is alive and is the one it means.
    pub fn of_process(pid: i32) -> Result<Self> {
        Self::open(format!("/proc/{pid}/ns/net"))
    }

    /// The namespace of the calling thread.
    pub fn of_thread() -> Result<Self> {
        Self::open("/proc/thread-self/ns/net".to_owned())
    }

    /// Takes a descriptor of a namespace that somebody else opened.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor, name: "network namespace".to_owned() }
    }

    /// Another handle on the same namespace.
    pub fn try_clone(&self) -> Result<Self> {
        let descriptor = self.descriptor.try_clone().at("fcntl", &self.name)?;
        Ok(Self { descriptor, name: self.name.clone() })
    }

    /// The bare descriptor.
    pub(crate) fn into_descriptor(self) -> OwnedFd {
        self.descriptor
    }

    fn open(path: String) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let descriptor = rustix::fs::open(&path, flags, Mode::empty()).at("open", &path)?;
        Ok(Self { descriptor, name: path })
    }

    /// Runs `work` on a thread of its own inside the namespace; the calling thread stays where it is.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new()
                .name("netns".to_owned())
                .spawn_scoped(scope, || self.enter_for_ever().map(|()| work()))
                .at("clone", &self.name)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread, and only it, into the namespace; it has no way back, so it ends there.
    pub(crate) fn enter_for_ever(&self) -> Result<()> {
        move_into_link_name_space(self.descriptor.as_fd(), Some(LinkNameSpaceType::Network))
            .at("setns", &self.name)?;
        Ok(())
    }
}

impl AsFd for NetworkNamespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}
