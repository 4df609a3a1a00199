//! Published ports: sockets on the host, passed on into the container without NAT.
//!
//! A socket stays for ever in the network namespace that it was made in. So the listening sockets are bound in the
//! host's namespace first; then one thread, and only it, moves into the container's namespace and connects from
//! there to the container's own address (for programs that listen on `127.0.0.1` only: to that). This needs no rule
//! and no route, works as root and rootless, through localhost too, and is gone with the thread. The price: the
//! container sees its own address as the client's.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::mpsc;
use std::thread::JoinHandle;

use mica_sys::error::ErrorAt;
use rustix::event::EventfdFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::namespace::NetworkNamespace;
use crate::proxy::Proxy;
use crate::published_port::{Protocol, PublishedPort};

/// More published ports than this are a mistake; each is one socket or two.
const PORTS_MAX: usize = 4096;
/// Clients that wait to be accepted; the kernel lowers it to `net.core.somaxconn`.
const BACKLOG: i32 = 512;
/// How often another port is tried when the kernel's choice for IPv4 is taken for IPv6.
const CHOICES_MAX: usize = 32;

/// A port that is bound: what `docker port` shows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundPort {
    /// The host's address.
    pub host_ip: IpAddr,
    /// The host's port, chosen if none was asked for.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
    /// What is passed on.
    pub protocol: Protocol,
}

/// A socket of the host and the container's port that it leads to.
#[derive(Debug)]
pub(crate) struct HostSocket {
    pub socket: OwnedFd,
    pub protocol: Protocol,
    pub container_port: u16,
}

/// Published ports that are bound, so nobody else can take them, but not yet served.
#[derive(Debug)]
pub struct Publisher {
    bound: Vec<BoundPort>,
    sockets: Vec<HostSocket>,
}

/// Published ports that are served, until this value is dropped or [`stop`](RunningPublisher::stop)ped.
///
/// It keeps the container's network namespace alive: stop it when the container ends.
#[derive(Debug)]
pub struct RunningPublisher {
    bound: Vec<BoundPort>,
    stop: OwnedFd,
    thread: Option<JoinHandle<Result<()>>>,
}

/// Binds the host's side of all ports, in the calling thread's network namespace; all of them, or none.
pub fn publish(ports: &[PublishedPort]) -> Result<Publisher> {
    if ports.len() > PORTS_MAX {
        return Err(Error::TooManyPorts { ports_max: PORTS_MAX });
    }
    let mut publisher = Publisher { bound: Vec::new(), sockets: Vec::new() };
    for port in ports {
        for (bound, socket) in bind_port(port)? {
            let (protocol, container_port) = (port.protocol, port.container_port);
            publisher.sockets.push(HostSocket { socket, protocol, container_port });
            publisher.bound.push(BoundPort {
                host_ip: bound.ip(),
                host_port: bound.port(),
                container_port,
                protocol,
            });
        }
    }
    Ok(publisher)
}

impl Publisher {
    /// What was bound.
    pub fn bound(&self) -> &[BoundPort] {
        &self.bound
    }

    /// Serves the ports on a thread of its own, which moves into the container's namespace `netns`.
    ///
    /// `container` is the container's address on its network, if it has one. Returns when the thread is in place.
    pub fn serve_on_thread(
        self,
        netns: &NetworkNamespace,
        container: Option<Ipv4Addr>,
    ) -> Result<RunningPublisher> {
        let netns = netns.try_clone()?;
        let stop = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .at("eventfd", "stop")?;
        let stop_of_thread = stop.try_clone().at("fcntl", "stop")?;
        let local = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let addresses: Vec<IpAddr> = container.map(IpAddr::V4).into_iter().chain(local).collect();
        let (started, is_started) = mpsc::channel();
        let sockets = self.sockets;
        let serve = move || -> Result<()> {
            let entered = netns.enter_for_ever();
            drop(netns);
            let proxy = entered.and_then(|()| Proxy::new(sockets, addresses, stop_of_thread));
            let mut proxy = match proxy {
                Ok(proxy) => proxy,
                Err(error) => {
                    let _ = started.send(Err(error));
                    return Ok(());
                }
            };
            let _ = started.send(Ok(()));
            proxy.serve()
        };
        let thread =
            std::thread::Builder::new().name("publish".to_owned()).spawn(serve).at("clone", "publish")?;
        match is_started.recv() {
            Ok(Ok(())) => Ok(RunningPublisher { bound: self.bound, stop, thread: Some(thread) }),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(mica_sys::Error::new("clone", "publish", Errno::CANCELED).into()),
        }
    }
}

impl RunningPublisher {
    /// What is served.
    pub fn bound(&self) -> &[BoundPort] {
        &self.bound
    }

    /// Closes all connections and sockets; says if serving had failed before.
    pub fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        // An eventfd that is at its limit is readable, which is all that is wanted.
        let _ = rustix::io::write(&self.stop, &1u64.to_ne_bytes());
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for RunningPublisher {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            let _ = self.end();
        }
    }
}

type Bound = Vec<(SocketAddr, OwnedFd)>;

/// Binds one published port: the first of its range that is free.
fn bind_port(port: &PublishedPort) -> Result<Bound> {
    let mut error = Errno::ADDRINUSE;
    let mut failed_port = port.host_port.first;
    if port.host_port.first == 0 {
        for _ in 0..CHOICES_MAX {
            match bind_addresses(port, 0) {
                Err(Errno::ADDRINUSE) => {}
                Err(other) => {
                    error = other;
                    break;
                }
                Ok(bound) => return Ok(bound),
            }
        }
    } else {
        for host_port in port.host_port.first..=port.host_port.last {
            match bind_addresses(port, host_port) {
                Err(Errno::ADDRINUSE) => {}
                Err(other) => {
                    (error, failed_port) = (other, host_port);
                    break;
                }
                Ok(bound) => return Ok(bound),
            }
        }
    }
    let host_ip = port.host_ip.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let protocol = port.protocol;
    Err(match error {
        Errno::ADDRINUSE => Error::PortAllocated { host_ip, port: failed_port, protocol },
        other => Error::PortBind { host_ip, port: failed_port, protocol, source: other.into() },
    })
}

/// Binds the address asked for, or the same port on all addresses of IPv4 and of IPv6.
fn bind_addresses(port: &PublishedPort, host_port: u16) -> std::result::Result<Bound, Errno> {
    if let Some(ip) = port.host_ip {
        return Ok(vec![bind_socket(SocketAddr::new(ip, host_port), port.protocol)?]);
    }
    let mut bound =
        vec![bind_socket(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), host_port), port.protocol)?];
    let chosen = bound.first().map_or(host_port, |(address, _)| address.port());
    match bind_socket(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), chosen), port.protocol) {
        Ok(second) => bound.push(second),
        Err(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL) => {} // a host without IPv6
        Err(error) => return Err(error),
    }
    Ok(bound)
}

fn bind_socket(address: SocketAddr, protocol: Protocol) -> std::result::Result<(SocketAddr, OwnedFd), Errno> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let kind = match protocol {
        Protocol::Tcp => SocketType::STREAM,
        Protocol::Udp => SocketType::DGRAM,
    };
    let socket = rustix::net::socket_with(family, kind, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK, None)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&socket, true)?;
    }
    if protocol == Protocol::Tcp {
        // Connections of a container that just ended must not keep its port from the next. (For UDP the option
        // would mean that two may bind the same port.)
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    if protocol == Protocol::Tcp {
        rustix::net::listen(&socket, BACKLOG)?;
    }
    let bound = SocketAddr::try_from(rustix::net::getsockname(&socket)?)?;
    Ok((bound, socket))
}
