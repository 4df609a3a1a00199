//! Links, addresses and routes by rtnetlink. Each value speaks to the network namespace that it was opened in.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use mica_sys::netlink::{Family, Message, Reply, Socket, attributes};

use crate::error::Result;
use crate::subnet::Ipv4Subnet;

/// Length of `struct ifinfomsg`.
const LINK_HEADER_BYTES: usize = 16;
/// Length of `struct ifaddrmsg`.
const ADDRESS_HEADER_BYTES: usize = 8;
/// Length of `struct rtmsg`.
const ROUTE_HEADER_BYTES: usize = 12;
/// `VETH_INFO_PEER` of `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;
/// Flags of a request that makes something new.
const CREATE: u16 = (libc::NLM_F_CREATE | libc::NLM_F_EXCL) as u16;
const AF_INET: u8 = libc::AF_INET as u8;

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl MacAddress {
    /// The address that a link with `address` gets: locally administered, and the same for the same IPv4 address,
    /// so that neighbours' caches stay true when an address is leased again.
    pub fn of_ipv4(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([0x02, 0x6d, a, b, c, d])
    }

    /// The other end of the same pair: it differs in one bit of the second byte.
    pub(crate) fn of_host_side(self) -> Self {
        let [a, b, rest @ ..] = self.0;
        let [c, d, e, f] = rest;
        Self([a, b | 0x80, c, d, e, f])
    }
}

impl std::fmt::Display for MacAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// A link as the kernel tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Link {
    pub index: u32,
    pub name: String,
    /// `bridge`, `veth`; empty for a device.
    pub kind: String,
    pub alias: String,
    /// The bridge that it is a port of.
    pub master: Option<u32>,
    pub mtu_bytes: u32,
}

/// An IPv4 route of the host, as far as this room asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Route {
    pub destination: Ipv4Subnet,
    pub link_index: Option<u32>,
}

/// A pair of links to make: one end here as a port of the bridge, one in the container.
#[derive(Debug)]
pub(crate) struct VethPair<'a> {
    pub host_name: &'a str,
    pub host_mac: MacAddress,
    pub bridge_index: u32,
    pub mtu_bytes: u32,
    pub container: BorrowedFd<'a>,
    pub container_name: &'a str,
    pub container_mac: MacAddress,
}

/// The links, addresses and routes of one network namespace.
#[derive(Debug)]
pub(crate) struct Links {
    socket: Socket,
}

impl Links {
    /// Those of the calling thread's namespace.
    pub fn open() -> Result<Self> {
        Ok(Self { socket: Socket::open(Family::Route)? })
    }

    /// All links.
    pub fn list(&mut self) -> Result<Vec<Link>> {
        let message = Message::new(libc::RTM_GETLINK, 0).raw(&link_header(0, 0, 0));
        let replies = self.socket.dump(&message, "RTM_GETLINK", "all links")?;
        Ok(replies.iter().filter_map(parse_link).collect())
    }

    /// The link of that name.
    pub fn find(&mut self, name: &str) -> Result<Option<Link>> {
        let message =
            Message::new(libc::RTM_GETLINK, 0).raw(&link_header(0, 0, 0)).string(libc::IFLA_IFNAME, name);
        Ok(self.socket.get(&message, "RTM_GETLINK", name)?.as_ref().and_then(parse_link))
    }

    /// The link of that index.
    pub fn find_index(&mut self, index: u32) -> Result<Option<Link>> {
        let message = Message::new(libc::RTM_GETLINK, 0).raw(&link_header(index, 0, 0));
        Ok(self.socket.get(&message, "RTM_GETLINK", &format!("link {index}"))?.as_ref().and_then(parse_link))
    }

    /// Makes a bridge, down and without an address.
    pub fn create_bridge(&mut self, name: &str, mac: MacAddress) -> Result<()> {
        // The hardware address is given, because a bridge without one takes that of a port, and changes it (and so
        // every neighbour's cache) when that port goes away.
        let message = Message::new(libc::RTM_NEWLINK, CREATE)
            .raw(&link_header(0, 0, 0))
            .string(libc::IFLA_IFNAME, name)
            .attribute(libc::IFLA_ADDRESS, &mac.0)
            .nest(libc::IFLA_LINKINFO, |info| info.string(libc::IFLA_INFO_KIND, "bridge"));
        Ok(self.socket.request(&message, "RTM_NEWLINK", name)?)
    }

    /// Gives a link the mark by which its owner is known.
    pub fn set_alias(&mut self, index: u32, alias: &str, name: &str) -> Result<()> {
        let message = Message::new(libc::RTM_NEWLINK, 0)
            .raw(&link_header(index, 0, 0))
            .attribute(libc::IFLA_IFALIAS, alias.as_bytes());
        Ok(self.socket.request(&message, "RTM_NEWLINK", name)?)
    }

    /// Makes a pair in one message: the host's end is a port of the bridge and up, the other end is born inside the
    /// container's namespace, so no name of it is ever seen here.
    pub fn create_veth(&mut self, pair: &VethPair<'_>) -> Result<()> {
        let up = libc::IFF_UP as u32;
        let descriptor = pair.container.as_raw_fd().to_ne_bytes();
        let message = Message::new(libc::RTM_NEWLINK, CREATE)
            .raw(&link_header(0, up, up))
            .string(libc::IFLA_IFNAME, pair.host_name)
            .attribute(libc::IFLA_ADDRESS, &pair.host_mac.0)
            .u32(libc::IFLA_MTU, pair.mtu_bytes)
            .u32(libc::IFLA_MASTER, pair.bridge_index)
            .nest(libc::IFLA_LINKINFO, |info| {
                info.string(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
                    data.nest(VETH_INFO_PEER, |peer| {
                        peer.raw(&link_header(0, 0, 0))
                            .string(libc::IFLA_IFNAME, pair.container_name)
                            .attribute(libc::IFLA_ADDRESS, &pair.container_mac.0)
                            .u32(libc::IFLA_MTU, pair.mtu_bytes)
                            .attribute(libc::IFLA_NET_NS_FD, &descriptor)
                    })
                })
            });
        Ok(self.socket.request(&message, "RTM_NEWLINK", pair.host_name)?)
    }

    /// Sets a link up.
    pub fn set_up(&mut self, index: u32, name: &str) -> Result<()> {
        let up = libc::IFF_UP as u32;
        let message = Message::new(libc::RTM_NEWLINK, 0).raw(&link_header(index, up, up));
        Ok(self.socket.request(&message, "RTM_NEWLINK", name)?)
    }

    /// Removes a link (of a pair: both ends); false if there is none of that name.
    pub fn delete(&mut self, name: &str) -> Result<bool> {
        let message =
            Message::new(libc::RTM_DELLINK, 0).raw(&link_header(0, 0, 0)).string(libc::IFLA_IFNAME, name);
        match self.socket.request(&message, "RTM_DELLINK", name) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a link an address. That it has it already is no error.
    pub fn add_address(&mut self, index: u32, address: Ipv4Addr, subnet: Ipv4Subnet) -> Result<()> {
        let mut header = [0; ADDRESS_HEADER_BYTES];
        header[0] = AF_INET;
        header[1] = subnet.prefix_bits();
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let message = Message::new(libc::RTM_NEWADDR, CREATE)
            .raw(&header)
            .attribute(libc::IFA_LOCAL, &address.octets())
            .attribute(libc::IFA_ADDRESS, &address.octets())
            .attribute(libc::IFA_BROADCAST, &subnet.broadcast().octets());
        match self.socket.request(&message, "RTM_NEWADDR", &address.to_string()) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// All IPv4 addresses: index of the link, the address, its subnet.
    pub fn addresses(&mut self) -> Result<Vec<(u32, Ipv4Addr, Ipv4Subnet)>> {
        let mut header = [0; ADDRESS_HEADER_BYTES];
        header[0] = AF_INET;
        let message = Message::new(libc::RTM_GETADDR, 0).raw(&header);
        let replies = self.socket.dump(&message, "RTM_GETADDR", "all addresses")?;
        Ok(replies.iter().filter_map(parse_address).collect())
    }

    /// Sends all that has no nearer route to `gateway`.
    pub fn add_default_route(&mut self, index: u32, gateway: Ipv4Addr) -> Result<()> {
        let mut header = [0; ROUTE_HEADER_BYTES];
        header[0] = AF_INET;
        header[4] = libc::RT_TABLE_MAIN;
        header[5] = libc::RTPROT_BOOT;
        header[6] = libc::RT_SCOPE_UNIVERSE;
        header[7] = libc::RTN_UNICAST;
        let message = Message::new(libc::RTM_NEWROUTE, CREATE)
            .raw(&header)
            .attribute(libc::RTA_GATEWAY, &gateway.octets())
            .u32(libc::RTA_OIF, index);
        Ok(self.socket.request(&message, "RTM_NEWROUTE", &format!("default via {gateway}"))?)
    }

    /// All IPv4 routes of all tables, the kernel's own (local, broadcast) among them.
    pub fn routes(&mut self) -> Result<Vec<Route>> {
        let mut header = [0; ROUTE_HEADER_BYTES];
        header[0] = AF_INET;
        let message = Message::new(libc::RTM_GETROUTE, 0).raw(&header);
        let replies = self.socket.dump(&message, "RTM_GETROUTE", "all routes")?;
        Ok(replies.iter().filter_map(parse_route).collect())
    }
}

/// `struct ifinfomsg`.
fn link_header(index: u32, flags: u32, changed_flags: u32) -> [u8; LINK_HEADER_BYTES] {
    let mut header = [0; LINK_HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&changed_flags.to_ne_bytes());
    header
}

fn parse_link(reply: &Reply) -> Option<Link> {
    if reply.kind != libc::RTM_NEWLINK {
        return None;
    }
    let mut link = Link {
        index: reply.u32_at(4)?,
        name: String::new(),
        kind: String::new(),
        alias: String::new(),
        master: None,
        mtu_bytes: 0,
    };
    for (kind, value) in reply.attributes(LINK_HEADER_BYTES) {
        match kind {
            libc::IFLA_IFNAME => link.name = parse_string(value),
            libc::IFLA_IFALIAS => link.alias = parse_string(value),
            libc::IFLA_MASTER => link.master = parse_u32(value),
            libc::IFLA_MTU => link.mtu_bytes = parse_u32(value)?,
            libc::IFLA_LINKINFO => {
                let found = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = found.map(|(_, value)| parse_string(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

fn parse_address(reply: &Reply) -> Option<(u32, Ipv4Addr, Ipv4Subnet)> {
    if reply.kind != libc::RTM_NEWADDR || *reply.payload.first()? != AF_INET {
        return None;
    }
    let prefix_bits = *reply.payload.get(1)?;
    let index = reply.u32_at(4)?;
    // IFA_LOCAL is ours, IFA_ADDRESS the peer's on a point-to-point link.
    let found = |wanted: u16| {
        reply
            .attributes(ADDRESS_HEADER_BYTES)
            .find(|(kind, _)| *kind == wanted)
            .and_then(|(_, v)| parse_ipv4(v))
    };
    let peer = found(libc::IFA_ADDRESS);
    let local = found(libc::IFA_LOCAL).or(peer)?;
    Some((index, local, Ipv4Subnet::new(peer.unwrap_or(local), prefix_bits)))
}

fn parse_route(reply: &Reply) -> Option<Route> {
    if reply.kind != libc::RTM_NEWROUTE || *reply.payload.first()? != AF_INET {
        return None;
    }
    let prefix_bits = *reply.payload.get(1)?;
    let mut destination = Ipv4Addr::UNSPECIFIED;
    let mut link_index = None;
    for (kind, value) in reply.attributes(ROUTE_HEADER_BYTES) {
        match kind {
            libc::RTA_DST => destination = parse_ipv4(value)?,
            libc::RTA_OIF => link_index = parse_u32(value),
            _ => {}
        }
    }
    Some(Route { destination: Ipv4Subnet::new(destination, prefix_bits), link_index })
}

fn parse_string(value: &[u8]) -> String {
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(value.len());
    String::from_utf8_lossy(value.get(..end).unwrap_or_default()).into_owned()
}

fn parse_u32(value: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(..4)?.try_into().ok()?))
}

fn parse_ipv4(value: &[u8]) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = value.get(..4)?.try_into().ok()?;
    Some(Ipv4Addr::from(octets))
}
