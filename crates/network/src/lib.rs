//! The network of one container, whose network namespace exists already: a place on the host's bridge, published
//! ports, names; as root, or without root by `pasta`. No other program is needed: links, addresses, routes and
//! firewall rules are set by netlink messages of our own.
//!
//! Not here: making namespaces and writing files into the container (`runtime`), which network a container gets
//! (`cli`), warnings and hints (facts are returned), the framing of netlink messages (`mica_sys::netlink`). There is
//! no IPv6 on the bridge, no name server for containers, no network beside the one bridge.
//!
//! # Nouns
//!
//! *bridge* the host's switch for containers, with a *subnet* and the *gateway* address; *endpoint* a container's
//! place on it; *lease* the right to an address; *published port* a host's port that leads to a container's;
//! *publisher* what listens there; *sweep* taking back what dead holders left.
//!
//! # Invariants
//!
//! 1. What a container was given is taken back when it ends, whoever ends it. The kernel removes the links with the
//!    container's namespace and the lease's lock with the process that held it; the rest is found by a sweep.
//! 2. Two containers never have one address: addresses are given under a lock, and a bridge is marked (by its alias)
//!    with the state directory whose leases count.
//! 3. An attach that fails leaves nothing of the container behind.
//! 4. The bridge takes no subnet that the host has a route to.
//! 5. A published port is bound before anything else starts, or the error names it.
//! 6. Nothing but published ports leads from outside into a container.
//!
//! # On the host
//!
//! ```text
//! <state_dir>/{lock, next, leases/<address>}   lease.rs     <state_dir>/rootless/<container ID>{,.pid}   rootless.rs
//! mica0                     the bridge; alias `mica:<state_dir>`
//! mv0a580002                the host's end of the pair of 10.88.0.2; the container's end is `eth0`
//! table ip mica0            firewall.rs shows it as nft lists it
//! net.ipv4.ip_forward=1     set, and never set back: others may need it by then
//! ```
//!
//! A host whose own firewall drops what it forwards (docker's does) must allow the bridge there; no rule of ours can.
//!
//! # Several processes, and kills
//!
//! Attach, detach and sweep take `<state_dir>/lock` for some milliseconds; no lock but the lease is held while a
//! container runs. A kill between any two steps leaves a bridge that the next attach finishes, or a lease and a link
//! that the next attach or sweep takes back. A [`NetworkNamespace`], and so a [`RunningPublisher`], keeps the
//! namespace alive: a monitor drops both when its container ends.
//!
//! # Where to start
//!
//! `bridge.rs`, `attach_bridge`; then `port_publish.rs` for the trick with two namespaces.
//!
//! # How it is tested
//!
//! `tests.rs` builds small worlds (outside, host, containers) of namespaces that vanish with the test; it needs root,
//! or a user namespace. Parsers and files are tables. `tests/run_flags.rs` compares with docker's own client.

mod bridge;
mod error;
mod firewall;
mod lease;
mod link;
mod name_lookup;
mod namespace;
mod port_publish;
mod proxy;
mod proxy_datagram;
mod published_port;
mod rootless;
mod subnet;

pub use bridge::{
    BRIDGE_NAME, BridgeSettings, CONTAINER_LINK_NAME, Endpoint, EndpointFacts, Swept, attach_bridge,
    bring_up_loopback, sweep,
};
pub use error::{Error, Result, Unavailable};
pub use name_lookup::{
    AddHost, DnsSettings, HostAddress, HostsSettings, NetworkMode, ResolvConf, hosts_file, parse_add_host,
    read_host_resolv_conf, resolv_conf,
};
pub use namespace::NetworkNamespace;
pub use port_publish::{BoundPort, Publisher, RunningPublisher, publish};
pub use published_port::{PortRange, Protocol, PublishedPort, parse_publish};
pub use rootless::{RootlessEndpoint, RootlessSettings, attach_rootless, sweep_rootless};
pub use subnet::{Ipv4Subnet, choose_subnet, default_subnets};

#[cfg(test)]
mod tests;
