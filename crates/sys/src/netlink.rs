//! Netlink without async and without a dependency: building messages, sending them, reading the answers.
//!
//! What a message means (links, addresses, nftables) is the caller's: see the room `network`. A socket belongs to
//! the network namespace of the thread that opened it, for ever; it may be used from any thread afterwards.
//!
//! Everything that comes from the kernel is still parsed with checked lengths: a message that lies about its size
//! ends the parse, it never panics.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use crate::error::{ErrorAt, Result};

/// Length of `struct nlmsghdr`.
const HEADER_BYTES: usize = 16;
/// Netlink aligns messages and attributes to this (`NLMSG_ALIGNTO`, `NLA_ALIGNTO`).
const ALIGN_BYTES: usize = 4;
/// The kernel fills at most 32 KiB per datagram of a dump (`netlink_dump`); twice that never truncates.
const RECEIVE_BYTES: usize = 64 * 1024;
/// A dump that yields more than this many messages is given up: no host has as many links or routes.
const DUMP_MESSAGES_MAX: usize = 1_000_000;
/// The kernel answers at once or not at all; a command must fail rather than hang.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Bits of an attribute's kind that are flags (`NLA_F_NESTED`, `NLA_F_NET_BYTEORDER`).
const ATTRIBUTE_KIND_MASK: u16 = 0x3fff;

/// Which kernel part a socket talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Links, addresses, routes (`NETLINK_ROUTE`).
    Route,
    /// nftables and conntrack (`NETLINK_NETFILTER`).
    Netfilter,
}

/// A message on its way to the kernel. The sequence number is set when it is sent.
#[derive(Debug, Clone)]
pub struct Message {
    kind: u16,
    flags: u16,
    payload: Vec<u8>,
}

impl Message {
    /// An empty message; `flags` are `NLM_F_*` beside `NLM_F_REQUEST` and `NLM_F_ACK`, which sending adds.
    pub fn new(kind: u16, flags: u16) -> Self {
        Self { kind, flags, payload: Vec::with_capacity(128) }
    }

    /// Appends bytes as they are, padded to four: the fixed struct that many messages begin with.
    #[must_use]
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.payload.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends an attribute. A value longer than an attribute can say (64 KiB) is cut, so that the message stays
    /// well formed; the kernel refuses it by its own rules.
    #[must_use]
    pub fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let value = value.get(..usize::from(u16::MAX) - ALIGN_BYTES).unwrap_or(value);
        let length = u16::try_from(value.len() + ALIGN_BYTES).unwrap_or(u16::MAX);
        self.payload.extend_from_slice(&length.to_ne_bytes());
        self.payload.extend_from_slice(&kind.to_ne_bytes());
        self.payload.extend_from_slice(value);
        self.pad();
        self
    }

    /// Appends a `u32` in the host's byte order (rtnetlink's).
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Appends a `u32` in network byte order (nftables').
    #[must_use]
    pub fn u32_be(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_be_bytes())
    }

    /// Appends a string with its closing NUL.
    #[must_use]
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Appends an attribute that holds what `fill` appends.
    #[must_use]
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.payload.len();
        self.payload.extend_from_slice(&[0; ALIGN_BYTES]);
        let mut filled = fill(self);
        let length = u16::try_from(filled.payload.len() - start).unwrap_or(u16::MAX);
        let kind = kind | libc::NLA_F_NESTED as u16;
        if let Some(header) = filled.payload.get_mut(start..start + ALIGN_BYTES) {
            header[..2].copy_from_slice(&length.to_ne_bytes());
            header[2..].copy_from_slice(&kind.to_ne_bytes());
        }
        filled
    }

    fn pad(&mut self) {
        self.payload.resize(self.payload.len().next_multiple_of(ALIGN_BYTES), 0);
    }

    fn write_to(&self, out: &mut Vec<u8>, sequence: u32, more_flags: u16) {
        let length = u32::try_from(HEADER_BYTES + self.payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&length.to_ne_bytes());
        out.extend_from_slice(&self.kind.to_ne_bytes());
        out.extend_from_slice(&(self.flags | more_flags | libc::NLM_F_REQUEST as u16).to_ne_bytes());
        out.extend_from_slice(&sequence.to_ne_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.payload);
    }
}

/// A message that came from the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// `nlmsg_type`.
    pub kind: u16,
    /// `nlmsg_flags`.
    pub flags: u16,
    /// `nlmsg_seq`.
    pub sequence: u32,
    /// What follows the header.
    pub payload: Vec<u8>,
}

impl Reply {
    /// The attributes that follow a fixed struct of `offset` bytes.
    pub fn attributes(&self, offset: usize) -> Attributes<'_> {
        attributes(self.payload.get(offset.next_multiple_of(ALIGN_BYTES)..).unwrap_or_default())
    }

    /// `u32` in the host's order at `offset` of the payload.
    pub fn u32_at(&self, offset: usize) -> Option<u32> {
        let bytes = self.payload.get(offset..offset.checked_add(4)?)?;
        Some(u32::from_ne_bytes(bytes.try_into().ok()?))
    }
}

/// The attributes in `bytes`: pairs of kind (without its flag bits) and value.
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

/// Iterator over attributes; ends at the first that does not fit.
#[derive(Debug, Clone)]
pub struct Attributes<'bytes> {
    rest: &'bytes [u8],
}

impl<'bytes> Iterator for Attributes<'bytes> {
    type Item = (u16, &'bytes [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.rest.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(self.rest.get(2..4)?.try_into().ok()?) & ATTRIBUTE_KIND_MASK;
        let value = self.rest.get(ALIGN_BYTES..length)?;
        self.rest = self.rest.get(length.next_multiple_of(ALIGN_BYTES)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Splits a datagram into messages; ends at the first that does not fit.
pub fn parse_replies(mut datagram: &[u8]) -> Vec<Reply> {
    let mut replies = Vec::new();
    while let Some((reply, length)) = parse_reply(datagram) {
        replies.push(reply);
        datagram = datagram.get(length.next_multiple_of(ALIGN_BYTES)..).unwrap_or_default();
    }
    replies
}

fn parse_reply(bytes: &[u8]) -> Option<(Reply, usize)> {
    let header = bytes.get(..HEADER_BYTES)?;
    let u16_at = |at: usize| Some(u16::from_ne_bytes(header.get(at..at + 2)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_ne_bytes(header.get(at..at + 4)?.try_into().ok()?));
    let length = usize::try_from(u32_at(0)?).ok()?;
    let payload = bytes.get(HEADER_BYTES..length)?.to_vec();
    Some((Reply { kind: u16_at(4)?, flags: u16_at(6)?, sequence: u32_at(8)?, payload }, length))
}

/// A netlink socket. Each request waits for its answer, so one socket serves one thread at a time.
#[derive(Debug)]
pub struct Socket {
    socket: OwnedFd,
    sequence: u32,
}

impl Socket {
    /// Opens a socket in the network namespace of the calling thread.
    pub fn open(family: Family) -> Result<Self> {
        let protocol = match family {
            Family::Route => None, // NETLINK_ROUTE is protocol 0
            Family::Netfilter => Some(rustix::net::netlink::NETFILTER),
        };
        let name = match family {
            Family::Route => "NETLINK_ROUTE",
            Family::Netfilter => "NETLINK_NETFILTER",
        };
        let socket =
            rustix::net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
                .at("socket", name)?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, 0)).at("bind", name)?;
        rustix::net::sockopt::set_socket_timeout(
            &socket,
            rustix::net::sockopt::Timeout::Recv,
            Some(ANSWER_TIMEOUT),
        )
        .at("setsockopt", name)?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Sends one message and waits until the kernel has done it. `call` and `object` name it in an error.
    pub fn request(&mut self, message: &Message, call: &'static str, object: &str) -> Result<()> {
        self.exchange(message, libc::NLM_F_ACK as u16).map(drop).at(call, object)
    }

    /// Asks for one object; `None` when the kernel says that there is none (`ENODEV`, `ENOENT`).
    pub fn get(&mut self, message: &Message, call: &'static str, object: &str) -> Result<Option<Reply>> {
        match self.exchange(message, libc::NLM_F_ACK as u16) {
            Ok(replies) => Ok(replies.into_iter().next()),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::ENOENT)) => Ok(None),
            Err(error) => Err(error).at(call, object),
        }
    }

    /// Asks for all objects of a kind. A dump that changed under our eyes (`EINTR`) is asked for again.
    pub fn dump(&mut self, message: &Message, call: &'static str, object: &str) -> Result<Vec<Reply>> {
        for _ in 0..16 {
            match self.exchange(message, libc::NLM_F_DUMP as u16) {
                Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
                result => return result.at(call, object),
            }
        }
        Err(io::Error::from_raw_os_error(libc::EINTR)).at(call, object)
    }

    /// Sends messages in one datagram, as one nftables transaction: all of them happen, or none.
    ///
    /// The first and the last are the marks of the batch, which the kernel does not acknowledge.
    pub fn transaction(&mut self, messages: &[Message], call: &'static str, object: &str) -> Result<()> {
        let mut bytes = Vec::with_capacity(1024);
        let mut waiting = Vec::new();
        for (position, message) in messages.iter().enumerate() {
            let is_mark = position == 0 || position + 1 == messages.len();
            let sequence = self.next_sequence();
            if !is_mark {
                waiting.push(sequence);
            }
            message.write_to(&mut bytes, sequence, if is_mark { 0 } else { libc::NLM_F_ACK as u16 });
        }
        let first = self.sequence.wrapping_sub(u32::try_from(messages.len()).unwrap_or(u32::MAX));
        self.send(&bytes).at(call, object)?;
        while !waiting.is_empty() {
            for reply in self.receive().at(call, object)? {
                let is_ours = reply.sequence.wrapping_sub(first) <= self.sequence.wrapping_sub(first);
                if !is_ours || reply.kind != libc::NLMSG_ERROR as u16 {
                    continue;
                }
                if let Err(error) = error_of(&reply) {
                    // The other answers of this transaction wait in the socket; their numbers are behind us, so
                    // the next request passes over them.
                    return Err(error).at(call, object);
                }
                waiting.retain(|sequence| *sequence != reply.sequence);
            }
        }
        Ok(())
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }

    fn exchange(&mut self, message: &Message, flags: u16) -> io::Result<Vec<Reply>> {
        let sequence = self.next_sequence();
        let mut bytes = Vec::with_capacity(256);
        message.write_to(&mut bytes, sequence, flags);
        self.send(&bytes)?;
        let mut replies = Vec::new();
        let mut is_interrupted = false;
        loop {
            for reply in self.receive()? {
                if reply.sequence != sequence {
                    continue;
                }
                is_interrupted |= reply.flags & libc::NLM_F_DUMP_INTR as u16 != 0;
                let is_done = i32::from(reply.kind) == libc::NLMSG_DONE;
                if is_done || i32::from(reply.kind) == libc::NLMSG_ERROR {
                    error_of(&reply)?;
                    if is_interrupted {
                        return Err(io::Error::from_raw_os_error(libc::EINTR));
                    }
                    return Ok(replies);
                }
                if replies.len() >= DUMP_MESSAGES_MAX {
                    return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
                }
                replies.push(reply);
            }
        }
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        let kernel = SocketAddrNetlink::new(0, 0);
        let sent = retry(|| rustix::net::sendto(&self.socket, bytes, SendFlags::empty(), &kernel))?;
        if sent == bytes.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EMSGSIZE)) }
    }

    fn receive(&self) -> io::Result<Vec<Reply>> {
        let mut buffer = vec![0; RECEIVE_BYTES];
        loop {
            let (_, length, sender) =
                retry(|| rustix::net::recvfrom(&self.socket, &mut buffer[..], RecvFlags::TRUNC)).map_err(
                    |error| match error.raw_os_error() {
                        Some(libc::EAGAIN) => io::Error::from_raw_os_error(libc::ETIMEDOUT),
                        _ => error,
                    },
                )?;
            let sender = sender.and_then(|sender| SocketAddrNetlink::try_from(sender).ok());
            if sender.is_some_and(|sender| sender.pid() != 0) {
                continue; // another process, not the kernel
            }
            let datagram =
                buffer.get(..length).ok_or_else(|| io::Error::from_raw_os_error(libc::EMSGSIZE))?;
            return Ok(parse_replies(datagram));
        }
    }
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// The errno of an `NLMSG_ERROR` or `NLMSG_DONE` message; zero is an acknowledgement.
fn error_of(reply: &Reply) -> io::Result<()> {
    let code = reply.u32_at(0).map_or(0, |code| i32::from_ne_bytes(code.to_ne_bytes()));
    match code {
        0.. => Ok(()),
        _ => Err(io::Error::from_raw_os_error(code.saturating_neg())),
    }
}

/// Moves the calling thread, and only it, into a new and empty network namespace.
pub fn unshare_network_of_thread() -> Result<()> {
    #[expect(
        unsafe_code,
        reason = "unshare is unsafe for flags that detach files or memory; this flag does not"
    )]
    // SAFETY: a network namespace shares no memory and no file table with the thread's process; sockets that are
    // open already stay where they were made, so no other thread sees a change.
    let result = unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) };
    result.at("unshare", "CLONE_NEWNET")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_the_kernel_reads_them() {
        let message = Message::new(16, 0x400).raw(&[7]).string(3, "lo").nest(18, |nest| nest.u32(1, 5));
        let mut bytes = Vec::new();
        message.write_to(&mut bytes, 9, 4);
        let replies = parse_replies(&bytes);
        assert_eq!(replies.len(), 1);
        let reply = &replies[0];
        assert_eq!((reply.kind, reply.flags, reply.sequence), (16, 0x405, 9));
        let found: Vec<_> = reply.attributes(1).collect();
        assert_eq!(found[0], (3, &b"lo\0"[..]));
        assert_eq!(found[1].0, 18);
        assert_eq!(attributes(found[1].1).collect::<Vec<_>>(), vec![(1, &5u32.to_ne_bytes()[..])]);
    }

    #[test]
    fn lying_lengths_end_the_parse() {
        let check = |bytes: &[u8], expect: usize| assert_eq!(attributes(bytes).count(), expect, "{bytes:?}");
        check(&[], 0);
        check(&[4, 0, 1], 0);
        check(&[0, 0, 1, 0], 0);
        check(&[3, 0, 1, 0], 0);
        check(&[4, 0, 1, 0], 1);
        check(&[200, 0, 1, 0, 1, 2, 3, 4], 0);
        check(&[5, 0, 1, 0, 9], 1);
        let mut message = Vec::new();
        Message::new(1, 0).write_to(&mut message, 1, 0);
        message[0] = 200;
        assert!(parse_replies(&message).is_empty());
        message[0] = 3;
        assert!(parse_replies(&message).is_empty());
    }

    #[test]
    fn links_are_listed_and_errors_name_the_call() {
        let mut socket = Socket::open(Family::Route).unwrap();
        let links =
            socket.dump(&Message::new(libc::RTM_GETLINK, 0).raw(&[0; 16]), "RTM_GETLINK", "links").unwrap();
        assert!(!links.is_empty());
        let absent =
            Message::new(libc::RTM_GETLINK, 0).raw(&[0; 16]).string(libc::IFLA_IFNAME, "no-such-link0");
        assert_eq!(socket.get(&absent, "RTM_GETLINK", "no-such-link0").unwrap(), None);
        let error = socket.request(&absent, "RTM_GETLINK", "no-such-link0").unwrap_err();
        assert_eq!(error.to_string(), "RTM_GETLINK `no-such-link0`: No such device (os error 19)");
    }
}
