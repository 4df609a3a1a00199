//! The thread that passes on what comes to published ports: one epoll loop, streams here, datagrams in
//! `proxy_datagram`.
//!
//! Streams are registered edge-triggered and pumped in both directions until neither moves. Memory is held only for
//! bytes that one side sent and the other does not take; the end of one direction (a half-close) is passed on and
//! the other direction goes on.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use mica_sys::error::ErrorAt;
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, Shutdown, SocketFlags, SocketType, sockopt};

use crate::error::Result;
use crate::port_publish::HostSocket;
use crate::proxy_datagram::Datagrams;
use crate::published_port::Protocol;

/// Connections of one container at once; more wait in the backlog.
const CONNECTIONS_MAX: usize = 1024;
/// Largest datagram, and a good size for one read of a stream.
pub(crate) const SCRATCH_BYTES: usize = 64 * 1024;
/// Reads of one connection in a row; then the others have their turn.
const ROUNDS_MAX: usize = 16;
/// Accepts, or datagrams, of one socket in a row.
pub(crate) const BURST_MAX: usize = 64;
const EVENTS_MAX: usize = 256;
/// How often things without an event are looked at: idle datagram flows, sockets that paused for want of
/// descriptors.
const TICK: Duration = Duration::from_secs(1);
/// The key of the socket that ends the loop; host sockets are counted from the next, connections from `FIRST_ID`.
const STOP_KEY: u64 = 0;
const FIRST_ID: u64 = 1 << 32;

/// Where registered sockets are told apart.
#[derive(Debug)]
pub(crate) struct Poll {
    epoll: OwnedFd,
    next_id: u64,
}

impl Poll {
    /// A key that was never used, so that an event for something closed finds nothing.
    pub fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    pub fn add(
        &self,
        socket: &OwnedFd,
        key: u64,
        flags: epoll::EventFlags,
    ) -> std::result::Result<(), Errno> {
        epoll::add(&self.epoll, socket, epoll::EventData::new_u64(key), flags)
    }

    fn set(&self, socket: &OwnedFd, key: u64, flags: epoll::EventFlags) -> std::result::Result<(), Errno> {
        epoll::modify(&self.epoll, socket, epoll::EventData::new_u64(key), flags)
    }
}

/// The loop's state.
#[derive(Debug)]
pub(crate) struct Proxy {
    poll: Poll,
    _stop: OwnedFd,
    sockets: Vec<HostSocket>,
    addresses: Vec<IpAddr>,
    connections: HashMap<u64, Connection>,
    /// Connections that used up their rounds and have more to move.
    unfinished: Vec<u64>,
    datagrams: Datagrams,
    is_paused: bool,
    scratch: Vec<u8>,
}

#[derive(Debug)]
struct Connection {
    client: OwnedFd,
    server: OwnedFd,
    container_port: u16,
    /// While it is being made: which address is tried next.
    next_address: Option<usize>,
    to_server: Pipe,
    to_client: Pipe,
}

/// One direction of a connection.
#[derive(Debug, Default)]
struct Pipe {
    waiting: Vec<u8>,
    sent: usize,
    is_source_ended: bool,
    is_end_passed_on: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Moved {
    /// Nothing moves until an event.
    Blocked,
    /// There is more.
    More,
    /// All was moved, and the end too.
    Ended,
}

/// Which end of a pipe is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failed {
    Source,
    Target,
}

impl Proxy {
    pub fn new(sockets: Vec<HostSocket>, addresses: Vec<IpAddr>, stop: OwnedFd) -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).at("epoll_create1", "publish")?;
        let poll = Poll { epoll, next_id: FIRST_ID };
        poll.add(&stop, STOP_KEY, epoll::EventFlags::IN).at("epoll_ctl", "stop")?;
        for (socket, key) in sockets.iter().zip(STOP_KEY + 1..) {
            poll.add(&socket.socket, key, epoll::EventFlags::IN).at("epoll_ctl", "published port")?;
        }
        Ok(Self {
            poll,
            _stop: stop,
            sockets,
            addresses,
            connections: HashMap::new(),
            unfinished: Vec::new(),
            datagrams: Datagrams::default(),
            is_paused: false,
            scratch: vec![0; SCRATCH_BYTES],
        })
    }

    /// Serves until it is told to stop.
    pub fn serve(&mut self) -> Result<()> {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        loop {
            events.clear();
            let timeout = self.timeout();
            match epoll::wait(&self.poll.epoll, spare_capacity(&mut events), timeout.as_ref()) {
                Err(Errno::INTR) => continue,
                result => result.at("epoll_wait", "publish")?,
            };
            for id in std::mem::take(&mut self.unfinished) {
                self.advance(id);
            }
            for event in events.drain(..) {
                match event.data.u64() {
                    STOP_KEY => return Ok(()),
                    id @ FIRST_ID.. if self.connections.contains_key(&id) => self.advance(id),
                    id @ FIRST_ID.. => {
                        self.datagrams.answer(
                            id,
                            &self.sockets,
                            &self.addresses,
                            &self.poll,
                            &mut self.scratch,
                        );
                    }
                    key => self.receive((key - STOP_KEY - 1) as usize),
                }
            }
            self.datagrams.close_idle();
            self.resume();
        }
    }

    fn timeout(&self) -> Option<Timespec> {
        let timeout = if !self.unfinished.is_empty() {
            Duration::ZERO
        } else if self.is_paused || !self.datagrams.is_empty() {
            TICK
        } else {
            return None;
        };
        Timespec::try_from(timeout).ok()
    }

    /// A host socket has something.
    fn receive(&mut self, position: usize) {
        let Some(socket) = self.sockets.get(position) else { return };
        match socket.protocol {
            Protocol::Tcp => self.accept(position),
            Protocol::Udp => {
                self.datagrams.receive(position, socket, &self.addresses, &mut self.poll, &mut self.scratch);
            }
        }
    }

    fn accept(&mut self, position: usize) {
        for _ in 0..BURST_MAX {
            let Some(socket) = self.sockets.get(position) else { return };
            if self.connections.len() >= CONNECTIONS_MAX {
                return self.pause();
            }
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&socket.socket, flags) {
                Ok(client) => self.open(client, socket.container_port),
                Err(Errno::AGAIN) => return,
                Err(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => return self.pause(),
                Err(_) => {} // this client is gone (accept(2) lists what a network may answer); the next may be there
            }
        }
    }

    /// Stops listening, so that waiting clients do not wake the loop for nothing.
    fn pause(&mut self) {
        self.listen(epoll::EventFlags::empty());
        self.is_paused = true;
    }

    fn resume(&mut self) {
        if self.is_paused && self.connections.len() < CONNECTIONS_MAX {
            self.listen(epoll::EventFlags::IN);
            self.is_paused = false;
        }
    }

    fn listen(&self, flags: epoll::EventFlags) {
        for (socket, key) in self.sockets.iter().zip(STOP_KEY + 1..) {
            if socket.protocol == Protocol::Tcp {
                // Fails only for a socket that is not registered, and all are.
                let _ = self.poll.set(&socket.socket, key, flags);
            }
        }
    }

    fn open(&mut self, client: OwnedFd, container_port: u16) {
        // A client that vanished without a word is found out in the end.
        let _ = sockopt::set_socket_keepalive(&client, true);
        let _ = sockopt::set_tcp_nodelay(&client, true);
        let id = self.poll.new_id();
        let Some((server, next)) = connect(&self.poll, id, &self.addresses, 0, container_port) else {
            return reset(client);
        };
        if self.poll.add(&client, id, stream_flags()).is_err() {
            return reset(client);
        }
        let connection = Connection {
            client,
            server,
            container_port,
            next_address: Some(next),
            to_server: Pipe::default(),
            to_client: Pipe::default(),
        };
        self.connections.insert(id, connection);
        self.advance(id);
    }

    /// Moves what can be moved on a connection, and closes it when that was all.
    fn advance(&mut self, id: u64) {
        let Some(mut connection) = self.connections.remove(&id) else { return };
        if let Some(next) = connection.next_address {
            let state = sockopt::socket_error(&connection.server).and_then(|error| error);
            match state.and_then(|()| rustix::net::getpeername(&connection.server)) {
                Ok(_) => connection.next_address = None,
                Err(Errno::NOTCONN) => {
                    self.connections.insert(id, connection);
                    return;
                }
                Err(_) => {
                    let port = connection.container_port;
                    let Some((server, next)) = connect(&self.poll, id, &self.addresses, next, port) else {
                        return reset(connection.client);
                    };
                    connection.server = server;
                    connection.next_address = Some(next);
                    self.connections.insert(id, connection);
                    // It may be there already, and its event may have come before it was registered.
                    return self.unfinished.push(id);
                }
            }
        }
        let mut up = connection.to_server.pump(&connection.client, &connection.server, &mut self.scratch);
        if let Err(Failed::Target) = up {
            // A server that has heard enough may still be answering (a refused upload), so its side goes on.
            connection.to_server.abandon();
            up = Ok(Moved::Ended);
        }
        let down = connection.to_client.pump(&connection.server, &connection.client, &mut self.scratch);
        match (up, down) {
            (Err(_), _) | (_, Err(_)) => {
                reset(connection.client);
                reset(connection.server);
            }
            (Ok(Moved::Ended), Ok(Moved::Ended)) => {}
            (up, down) => {
                if up == Ok(Moved::More) || down == Ok(Moved::More) {
                    self.unfinished.push(id);
                }
                self.connections.insert(id, connection);
            }
        }
    }
}

impl Pipe {
    fn pump(
        &mut self,
        from: &OwnedFd,
        to: &OwnedFd,
        scratch: &mut [u8],
    ) -> std::result::Result<Moved, Failed> {
        for _ in 0..ROUNDS_MAX {
            while let Some(rest) = self.waiting.get(self.sent..).filter(|rest| !rest.is_empty()) {
                match rustix::net::send(to, rest, SendFlags::NOSIGNAL) {
                    Ok(length) => self.sent += length,
                    Err(Errno::AGAIN) => return Ok(Moved::Blocked),
                    Err(Errno::INTR) => {}
                    Err(_) => return Err(Failed::Target),
                }
            }
            (self.waiting, self.sent) = (Vec::new(), 0);
            if self.is_source_ended {
                if !self.is_end_passed_on {
                    self.is_end_passed_on = true;
                    rustix::net::shutdown(to, Shutdown::Write).map_err(|_| Failed::Target)?;
                }
                return Ok(Moved::Ended);
            }
            match rustix::net::recv(from, &mut *scratch, RecvFlags::empty()) {
                Ok((_, 0)) => self.is_source_ended = true,
                Ok((_, length)) => {
                    let bytes = scratch.get(..length).unwrap_or_default();
                    let sent = match rustix::net::send(to, bytes, SendFlags::NOSIGNAL) {
                        Err(Errno::AGAIN | Errno::INTR) => 0,
                        result => result.map_err(|_| Failed::Target)?,
                    };
                    self.waiting = bytes.get(sent..).unwrap_or_default().to_vec();
                }
                Err(Errno::AGAIN) => return Ok(Moved::Blocked),
                Err(Errno::INTR) => {}
                Err(_) => return Err(Failed::Source),
            }
        }
        Ok(Moved::More)
    }

    /// Nobody takes what comes any more.
    fn abandon(&mut self) {
        *self = Self { is_source_ended: true, is_end_passed_on: true, ..Self::default() };
    }
}

fn stream_flags() -> epoll::EventFlags {
    epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::RDHUP | epoll::EventFlags::ET
}

/// Begins a connection to the first address, from `next` on, that does not refuse at once.
fn connect(poll: &Poll, id: u64, addresses: &[IpAddr], next: usize, port: u16) -> Option<(OwnedFd, usize)> {
    for (position, address) in addresses.iter().enumerate().skip(next) {
        let Ok(server) = connect_socket(SocketAddr::new(*address, port), SocketType::STREAM) else {
            continue;
        };
        let _ = sockopt::set_tcp_nodelay(&server, true);
        if poll.add(&server, id, stream_flags()).is_ok() {
            return Some((server, position + 1));
        }
    }
    None
}

/// A socket in the container's namespace that is connected, or about to be.
pub(crate) fn connect_socket(address: SocketAddr, kind: SocketType) -> std::result::Result<OwnedFd, Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error),
    }
}

/// Closes with a reset, so that the client learns that nobody got what it sent.
fn reset(client: OwnedFd) {
    let _ = sockopt::set_socket_linger(&client, Some(Duration::ZERO));
}
