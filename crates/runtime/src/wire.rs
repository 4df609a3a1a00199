//! Messages between the parent, the helper and the container's first process: JSON in one packet each, with
//! descriptors beside it, over a `SOCK_SEQPACKET` pair.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use mica_sys::error::ErrorAt;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::{Failure, Result};
use crate::{CreatedMountPoint, ExitStatus};

/// What the helper is to do; the spec itself travels in the first descriptor beside it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    /// Pid of the parent, for the helper to see whether it is still there.
    pub parent_pid: i32,
    /// Length of the spec in its descriptor.
    pub spec_bytes: u64,
    /// Join the container of the pidfd after the standard streams, instead of making one. Otherwise all descriptors
    /// after the streams are trees.
    pub join: bool,
    /// The `cgroup.procs` files of the cgroups to join.
    pub cgroup_procs: Vec<std::path::PathBuf>,
}

/// What the helper and the container's first process tell the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Report {
    /// The first process exists; its pidfd is beside this.
    Cloned { pid: i32 },
    /// Set up, waiting for the go. Beside this, as far as they are there: the terminal's other end, the listener of the
    /// filter that tells of sockets.
    Ready { created_mount_points: Vec<CreatedMountPoint>, has_terminal: bool, has_sockets: bool },
    /// The command runs.
    Started,
    /// The first process has ended.
    Exited(ExitStatus),
    /// It did not come to that.
    Failed(Failure),
}

/// The byte that lets the first process execute its command: an explicit byte, because the end of a stream never
/// comes while some other process holds a copy of its descriptor.
pub(crate) const GO: u8 = b'g';

/// Largest message: a few hundred mount points or a failure with two paths.
const MESSAGE_BYTES_MAX: usize = 128 * 1024;
/// As many as the kernel lets travel with one message (`SCM_MAX_FD`).
const DESCRIPTORS_MAX: usize = 253;
/// Trees that a container can have: all but the spec and the three streams.
pub(crate) const TREES_MAX: usize = DESCRIPTORS_MAX - 4;

/// A connected pair, close-on-exec.
pub(crate) fn pair() -> Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .at("socketpair", "container")?)
}

/// Sends a message.
pub(crate) fn send(
    socket: impl AsFd,
    message: &impl Serialize,
    descriptors: &[BorrowedFd<'_>],
) -> Result<()> {
    let bytes = serde_json::to_vec(message)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(mica_sys::Error::new("sendmsg", "container", rustix::io::Errno::TOOMANYREFS).into());
    }
    rustix::io::retry_on_intr(|| {
        rustix::net::sendmsg(&socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)
    })
    .at("sendmsg", "container")?;
    Ok(())
}

/// Receives a message; nothing when the other side is gone.
pub(crate) fn receive<T: DeserializeOwned>(socket: impl AsFd) -> Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_BYTES_MAX];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(
            &socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        )
    });
    let length = match received {
        Ok(message) => message.bytes,
        Err(rustix::io::Errno::CONNRESET) => 0,
        Err(error) => return Err(mica_sys::Error::new("recvmsg", "container", error).into()),
    };
    let descriptors = control
        .drain()
        .flat_map(|message| match message {
            RecvAncillaryMessage::ScmRights(descriptors) => descriptors.collect::<Vec<_>>(),
            _ => Vec::new(),
        })
        .collect();
    match bytes.get(..length) {
        Some([]) | None => Ok(None),
        Some(message) => Ok(Some((serde_json::from_slice(message)?, descriptors))),
    }
}
