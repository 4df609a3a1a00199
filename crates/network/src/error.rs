//! The one error of this room: a variant per way to fail, with the values that caused it.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use crate::published_port::Protocol;
use crate::subnet::Ipv4Subnet;

/// Result of this room.
pub type Result<T> = std::result::Result<T, Error>;

/// What can go wrong with a container's network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A Linux call failed; it names the call and the object.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
    /// The bridge's name cannot be a link's name.
    #[error("bridge name is not usable as a network interface name: `{name}`")]
    BridgeNameInvalid {
        /// The name asked for.
        name: String,
    },
    /// A link of that name exists and is no bridge of ours.
    #[error("network interface `{name}` exists and was not made for `{expected}` (it says `{actual}`)")]
    BridgeIsOfOther {
        /// Name of the link.
        name: String,
        /// The mark that our bridge would carry.
        expected: String,
        /// The mark (alias) that was found.
        actual: String,
    },
    /// The bridge exists with another subnet than the settings ask for.
    #[error("bridge `{name}` uses subnet {actual}, not {expected}")]
    BridgeSubnetDiffers {
        /// Name of the bridge.
        name: String,
        /// The subnet of the settings.
        expected: Ipv4Subnet,
        /// The subnet that the bridge has.
        actual: Ipv4Subnet,
    },
    /// The subnet of the settings is in use on this host.
    #[error("subnet {subnet} overlaps {taken}, which this host has a route or an address in")]
    SubnetTaken {
        /// The subnet of the settings.
        subnet: Ipv4Subnet,
        /// What is there already.
        taken: Ipv4Subnet,
    },
    /// Each default subnet overlaps something of this host.
    #[error("none of the {tried} default subnets is free on this host")]
    NoFreeSubnet {
        /// How many were tried.
        tried: usize,
    },
    /// Every address of the subnet is leased.
    #[error("no free address in subnet {subnet}")]
    NoFreeAddress {
        /// The subnet of the bridge.
        subnet: Ipv4Subnet,
    },
    /// Text that is not an IPv4 subnet with room for containers.
    #[error("not an IPv4 subnet of /8 to /29: `{text}`")]
    SubnetInvalid {
        /// The text.
        text: String,
    },
    /// `-p` without a container port.
    #[error("no container port in published port: `{spec}`")]
    PublishWithoutPort {
        /// What was given.
        spec: String,
    },
    /// `-p` with an unknown protocol.
    #[error("protocol of published port `{spec}` is neither `tcp` nor `udp`: `{protocol}`")]
    PublishProtocol {
        /// What was given.
        spec: String,
        /// The protocol in it.
        protocol: String,
    },
    /// `-p` with a host address that is none.
    #[error("host address of published port `{spec}` is not an IP address: `{address}`")]
    PublishHostAddress {
        /// What was given.
        spec: String,
        /// The address in it.
        address: String,
    },
    /// `-p` with a host port that is none.
    #[error("host port of published port `{spec}` is not a port or a range of ports: `{port}`")]
    PublishHostPort {
        /// What was given.
        spec: String,
        /// The port in it.
        port: String,
    },
    /// `-p` with a container port that is none.
    #[error("container port of published port `{spec}` is not a port or a range of ports: `{port}`")]
    PublishContainerPort {
        /// What was given.
        spec: String,
        /// The port in it.
        port: String,
    },
    /// `-p` with ranges of different lengths.
    #[error("ranges of published port `{spec}` differ in length: `{host}` and `{container}`")]
    PublishRanges {
        /// What was given.
        spec: String,
        /// The host's range.
        host: String,
        /// The container's range.
        container: String,
    },
    /// `-p` in its long form with a field that is unknown or has an impossible value.
    #[error("field of published port `{spec}` is not understood: `{field}`")]
    PublishField {
        /// What was given.
        spec: String,
        /// The field in it.
        field: String,
    },
    /// `--add-host` that is not `name:address`.
    #[error("additional host is not `name:address`: `{spec}`")]
    AddHost {
        /// What was given.
        spec: String,
    },
    /// `--add-host` whose address is none.
    #[error("address of additional host `{spec}` is not an IP address: `{address}`")]
    AddHostAddress {
        /// What was given.
        spec: String,
        /// The address in it.
        address: String,
    },
    /// Somebody else listens on that port.
    #[error("port is already allocated: {host_ip} port {port}/{protocol}")]
    PortAllocated {
        /// The address to bind.
        host_ip: IpAddr,
        /// The port; the first, if a range was given.
        port: u16,
        /// The protocol.
        protocol: Protocol,
    },
    /// A port cannot be bound for another reason (a privileged port, an address that is not ours).
    #[error("cannot publish {host_ip} port {port}/{protocol}")]
    PortBind {
        /// The address to bind.
        host_ip: IpAddr,
        /// The port.
        port: u16,
        /// The protocol.
        protocol: Protocol,
        /// What the kernel answered.
        source: io::Error,
    },
    /// More ports published than one container may have.
    #[error("more than {ports_max} ports published")]
    TooManyPorts {
        /// The limit.
        ports_max: usize,
    },
    /// A container's ID that cannot name a file.
    #[error("container ID is not usable as a file name: `{container_id}`")]
    ContainerIdInvalid {
        /// The ID.
        container_id: String,
    },
    /// Rootless networking is not to be had here; the reason is a fact, the caller chooses what follows.
    #[error("rootless network is not available")]
    RootlessUnavailable(#[source] Unavailable),
}

/// Why there is no rootless network.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The program is not installed.
    #[error("program is not in PATH: `{program}`")]
    NoProgram {
        /// The program's name.
        program: &'static str,
    },
    /// The tun device cannot be opened.
    #[error("cannot open `{path}`")]
    NoTunDevice {
        /// The device.
        path: PathBuf,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The program ran and gave up.
    #[error("`{program}` failed: {message}")]
    ProgramFailed {
        /// The program's path.
        program: PathBuf,
        /// The last lines that it wrote.
        message: String,
    },
}
