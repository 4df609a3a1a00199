//! Datagrams of published ports: a flow per client, which is a connected socket in the container's namespace, so
//! that answers find their way back.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::epoll;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, SocketType};

use crate::port_publish::HostSocket;
use crate::proxy::{BURST_MAX, Poll, connect_socket};

/// Clients of one container at once; the one that was silent longest makes room.
const FLOWS_MAX: usize = 1024;
/// A client that was silent for this long (docker's number) is forgotten.
const IDLE_MAX: Duration = Duration::from_secs(90);

/// All flows of a container.
#[derive(Debug, Default)]
pub(crate) struct Datagrams {
    flows: HashMap<u64, Flow>,
    by_client: HashMap<(usize, SocketAddr), u64>,
}

#[derive(Debug)]
struct Flow {
    /// Position of the host socket that the client speaks to.
    position: usize,
    client: SocketAddr,
    container_port: u16,
    server: OwnedFd,
    next_address: usize,
    /// Sent again to the next address when this one refuses; none once there was an answer.
    first: Option<Vec<u8>>,
    last_used: Instant,
}

impl Datagrams {
    pub fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// Datagrams of clients wait at the host's socket.
    pub fn receive(
        &mut self,
        position: usize,
        socket: &HostSocket,
        addresses: &[IpAddr],
        poll: &mut Poll,
        scratch: &mut [u8],
    ) {
        for _ in 0..BURST_MAX {
            let (length, client) =
                match rustix::net::recvfrom(&socket.socket, &mut *scratch, RecvFlags::empty()) {
                    Ok((_, length, Some(client))) => (length, client),
                    Err(Errno::AGAIN) => return,
                    // An answer of ours could not be delivered: that client's affair.
                    _ => continue,
                };
            let Ok(client) = SocketAddr::try_from(client) else { continue };
            let bytes = scratch.get(..length).unwrap_or_default();
            let id = match self.by_client.get(&(position, client)) {
                Some(id) => *id,
                None => match self.open(position, socket.container_port, client, bytes, addresses, poll) {
                    Some(id) => id,
                    None => continue,
                },
            };
            self.send(id, bytes, addresses, poll);
        }
    }

    fn open(
        &mut self,
        position: usize,
        container_port: u16,
        client: SocketAddr,
        bytes: &[u8],
        addresses: &[IpAddr],
        poll: &mut Poll,
    ) -> Option<u64> {
        if self.flows.len() >= FLOWS_MAX {
            let oldest = self.flows.iter().min_by_key(|(_, flow)| flow.last_used).map(|(id, _)| *id);
            self.close(oldest?);
        }
        let id = poll.new_id();
        let (server, next_address) = connect(poll, id, addresses, 0, container_port)?;
        let first = Some(bytes.to_vec());
        let last_used = Instant::now();
        let flow = Flow { position, client, container_port, server, next_address, first, last_used };
        self.flows.insert(id, flow);
        self.by_client.insert((position, client), id);
        Some(id)
    }

    fn send(&mut self, id: u64, bytes: &[u8], addresses: &[IpAddr], poll: &Poll) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        flow.last_used = Instant::now();
        // The first try may only tell that the one before was refused; a full buffer loses the datagram, as any
        // network may.
        for _ in 0..=addresses.len() {
            let Some(flow) = self.flows.get(&id) else { return };
            match rustix::net::send(&flow.server, bytes, SendFlags::NOSIGNAL) {
                Err(Errno::CONNREFUSED) => self.refused(id, addresses, poll),
                _ => return,
            }
        }
    }

    /// The container refused: perhaps its program listens on another of its addresses.
    fn refused(&mut self, id: u64, addresses: &[IpAddr], poll: &Poll) {
        let Some(flow) = self.flows.get_mut(&id) else { return };
        let Some(first) = flow.first.as_deref() else {
            // It answered before, so the address is right, and the program is gone for now.
            return;
        };
        match connect(poll, id, addresses, flow.next_address, flow.container_port) {
            Some((server, next_address)) => {
                let _ = rustix::net::send(&server, first, SendFlags::NOSIGNAL);
                (flow.server, flow.next_address) = (server, next_address);
            }
            None => self.close(id),
        }
    }

    /// The container's side of a flow has something: answers, or a refusal.
    pub fn answer(
        &mut self,
        id: u64,
        sockets: &[HostSocket],
        addresses: &[IpAddr],
        poll: &Poll,
        scratch: &mut [u8],
    ) {
        for _ in 0..BURST_MAX {
            let Some(flow) = self.flows.get_mut(&id) else { return };
            match rustix::net::recv(&flow.server, &mut *scratch, RecvFlags::empty()) {
                Ok((_, length)) => {
                    flow.first = None;
                    flow.last_used = Instant::now();
                    let Some(socket) = sockets.get(flow.position) else { return };
                    let bytes = scratch.get(..length).unwrap_or_default();
                    let _ = rustix::net::sendto(&socket.socket, bytes, SendFlags::NOSIGNAL, &flow.client);
                }
                Err(Errno::CONNREFUSED) => self.refused(id, addresses, poll),
                Err(Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// Forgets clients that were silent for long.
    pub fn close_idle(&mut self) {
        let idle: Vec<u64> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.last_used.elapsed() > IDLE_MAX)
            .map(|(id, _)| *id)
            .collect();
        for id in idle {
            self.close(id);
        }
    }

    fn close(&mut self, id: u64) {
        if let Some(flow) = self.flows.remove(&id) {
            self.by_client.remove(&(flow.position, flow.client));
        }
    }
}

fn connect(poll: &Poll, id: u64, addresses: &[IpAddr], next: usize, port: u16) -> Option<(OwnedFd, usize)> {
    for (position, address) in addresses.iter().enumerate().skip(next) {
        let Ok(server) = connect_socket(SocketAddr::new(*address, port), SocketType::DGRAM) else { continue };
        if poll.add(&server, id, epoll::EventFlags::IN).is_ok() {
            return Some((server, position + 1));
        }
    }
    None
}
