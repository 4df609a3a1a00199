//! The bridge of this host, and a container's place on it.

use std::fs;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use mica_sys::error::ErrorAt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::firewall;
use crate::lease::{Lease, LockedState, StateDir};
use crate::link::{Link, Links, MacAddress, VethPair};
use crate::namespace::NetworkNamespace;
use crate::subnet::{Ipv4Subnet, choose_subnet};

/// The bridge's name unless the settings say another.
pub const BRIDGE_NAME: &str = "mica0";
/// The container's end of the pair, as every container tool names it.
pub const CONTAINER_LINK_NAME: &str = "eth0";
/// A link name has at most this many bytes (`IFNAMSIZ` less the NUL).
const LINK_NAME_BYTES_MAX: usize = 15;
/// The host's ends are named by this and the address in hexadecimal, so that a leftover is found by its address.
const VETH_PREFIX: &str = "mv";
/// What an alias may hold (`IFALIASZ` less the NUL).
const ALIAS_BYTES_MAX: usize = 255;
const ALIAS_PREFIX: &str = "mica:";
/// Ethernet's, where the host's default route does not say another.
const MTU_BYTES_DEFAULT: u32 = 1500;

/// What the caller decides about the bridge.
#[derive(Debug, Clone)]
pub struct BridgeSettings {
    /// Name of the bridge, and of its nftables table.
    pub name: String,
    /// The containers' subnet. `None` takes what the bridge has, or the first default that is free on this host.
    pub subnet: Option<Ipv4Subnet>,
    /// Size of the largest packet; `None` takes that of the link of the host's default route.
    pub mtu_bytes: Option<u32>,
    /// Leases live here. One directory per bridge, on a local filesystem that is empty after a boot (`/run`).
    pub state_dir: PathBuf,
}

impl BridgeSettings {
    /// The defaults, with leases in `state_dir`.
    pub fn new(state_dir: impl Into<PathBuf>) -> Self {
        Self { name: BRIDGE_NAME.to_owned(), subnet: None, mtu_bytes: None, state_dir: state_dir.into() }
    }
}

/// Facts of a container's place on the bridge: what `inspect` shows, and what is stored with the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointFacts {
    /// The container's address.
    pub ipv4: Ipv4Addr,
    /// The subnet that it is in.
    pub subnet: Ipv4Subnet,
    /// The bridge's address, which is the container's default gateway and its way to the host.
    pub gateway: Ipv4Addr,
    /// Hardware address of the container's end, as `02:6d:0a:58:00:02`.
    pub mac: String,
    /// Name of the bridge.
    pub bridge: String,
    /// Name of the host's end.
    pub host_link: String,
    /// Name of the container's end.
    pub container_link: String,
}

/// A container's place on the bridge. The address is leased as long as this value lives, or a process that
/// inherited its [`lease`](Endpoint::lease); the links live as long as the container's namespace.
#[derive(Debug)]
pub struct Endpoint {
    facts: EndpointFacts,
    lease: Lease,
    state: StateDir,
}

/// What a sweep took back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Swept {
    /// Addresses whose holders are gone.
    pub addresses: Vec<Ipv4Addr>,
    /// Links whose holders are gone.
    pub links: Vec<String>,
    /// The bridge and its rules were removed, because nobody used them.
    pub is_bridge_removed: bool,
}

/// Sets the loopback link up, which is all that a container without a network gets.
pub fn bring_up_loopback(netns: &NetworkNamespace) -> Result<()> {
    let mut links = netns.run(Links::open)??;
    set_loopback_up(&mut links)
}

fn set_loopback_up(links: &mut Links) -> Result<()> {
    let Some(loopback) = links.find("lo")? else { return Ok(()) };
    links.set_up(loopback.index, "lo")
}

/// Gives the container in `netns` an address on the bridge, which is made if it is not there.
///
/// The calling thread's namespace is the host's. When this fails, nothing that it made for the container is left.
pub fn attach_bridge(
    settings: &BridgeSettings,
    container_id: &str,
    netns: &NetworkNamespace,
) -> Result<Endpoint> {
    check_link_name(&settings.name)?;
    let state = StateDir::open(&settings.state_dir)?;
    let mut links = Links::open()?;
    let mut container_links = netns.run(Links::open)??;

    let locked = state.lock()?;
    let (bridge, subnet) = ensure_bridge(settings, &mut links)?;
    enable_forwarding()?;
    firewall::write_rules(&settings.name, subnet)?;
    let mtu_bytes = match settings.mtu_bytes {
        Some(mtu_bytes) => mtu_bytes,
        None => mtu_of_default_route(&mut links)?,
    };

    let lease = locked.take(subnet, container_id)?;
    let mac = MacAddress::of_ipv4(lease.address);
    let facts = EndpointFacts {
        ipv4: lease.address,
        subnet,
        gateway: subnet.gateway(),
        mac: mac.to_string(),
        bridge: settings.name.clone(),
        host_link: veth_name(lease.address),
        container_link: CONTAINER_LINK_NAME.to_owned(),
    };
    let pair = VethPair {
        host_name: &facts.host_link,
        host_mac: mac.of_host_side(),
        bridge_index: bridge.index,
        mtu_bytes,
        container: netns.as_fd(),
        container_name: CONTAINER_LINK_NAME,
        container_mac: mac,
    };
    match connect(&mut links, &mut container_links, &pair, &facts) {
        Ok(()) => {
            drop(locked);
            Ok(Endpoint { facts, lease, state })
        }
        Err(error) => {
            // The first error is the one to tell; what stays behind here is swept.
            let _ = locked.release(lease);
            Err(error)
        }
    }
}

fn connect(
    links: &mut Links,
    container_links: &mut Links,
    pair: &VethPair<'_>,
    facts: &EndpointFacts,
) -> Result<()> {
    // The address was free, so a link of its name belongs to nobody: its container's namespace is kept alive by
    // something, but whoever leased the address is gone.
    links.delete(pair.host_name)?;
    links.create_veth(pair)?;
    let mut configure = || -> Result<()> {
        set_loopback_up(container_links)?;
        let link = container_links.find(pair.container_name)?.ok_or_else(|| {
            mica_sys::Error::new("RTM_GETLINK", pair.container_name, rustix::io::Errno::NODEV)
        })?;
        container_links.add_address(link.index, facts.ipv4, facts.subnet)?;
        container_links.set_up(link.index, pair.container_name)?;
        container_links.add_default_route(link.index, facts.gateway)
    };
    let result = configure();
    if result.is_err() {
        let _ = links.delete(pair.host_name);
    }
    result
}

impl Endpoint {
    /// What the container was given.
    pub fn facts(&self) -> &EndpointFacts {
        &self.facts
    }

    /// The descriptor that holds the lease. A process that inherits it (clear its close-on-exec flag) keeps the
    /// address after this one has ended; it becomes an endpoint again by [`Endpoint::inherit`].
    pub fn lease(&self) -> BorrowedFd<'_> {
        self.lease.file.as_fd()
    }

    /// The endpoint of which another process left the facts and the descriptor of the lease.
    pub fn inherit(settings: &BridgeSettings, facts: EndpointFacts, lease: OwnedFd) -> Result<Self> {
        let lease = Lease { address: facts.ipv4, file: lease.into() };
        Ok(Self { facts, lease, state: StateDir::open(&settings.state_dir)? })
    }

    /// Gives the address back, of a container whose last process has ended: the kernel removes the links together
    /// with the namespace, without anybody waiting for it. Should something keep the namespace, they are removed by
    /// a [`sweep`], or when the address is leased again. The bridge stays for others until a sweep, too.
    pub fn release(self) -> Result<()> {
        self.state.lock()?.release(self.lease)
    }

    /// Takes everything back now, the links too, whatever still runs in the container. Waiting for the kernel takes
    /// some 20 ms, so [`release`](Endpoint::release) is better where the container has ended.
    pub fn detach(self) -> Result<()> {
        // Not under the lock: the lease keeps others off this link, and removing it takes the kernel a while.
        Links::open()?.delete(&self.facts.host_link)?;
        self.state.lock()?.release(self.lease)
    }
}

/// Takes back what dead containers left, and the bridge with its rules when no container uses it.
pub fn sweep(settings: &BridgeSettings) -> Result<Swept> {
    check_link_name(&settings.name)?;
    let mut swept = Swept::default();
    if !settings.state_dir.is_dir() {
        return Ok(swept); // never used
    }
    let state = StateDir::open(&settings.state_dir)?;
    let locked = state.lock()?;
    let (removed, held) = locked.sweep()?;
    swept.addresses = removed;
    let mut links = Links::open()?;
    let Some(bridge) = links.find(&settings.name)? else { return Ok(swept) };
    if check_owner(&bridge, settings).is_err() {
        return Ok(swept);
    }
    let mut is_used = !held.is_empty();
    for link in links.list()?.into_iter().filter(|link| link.master == Some(bridge.index)) {
        match address_of_veth_name(&link.name) {
            Some(address) if !held.contains(&address) => {
                links.delete(&link.name)?;
                swept.links.push(link.name);
            }
            // A port that somebody added by hand keeps the bridge.
            _ => is_used = true,
        }
    }
    if !is_used {
        remove_bridge(settings, &mut links, &locked)?;
        swept.is_bridge_removed = true;
    }
    Ok(swept)
}

fn remove_bridge(settings: &BridgeSettings, links: &mut Links, _locked: &LockedState<'_>) -> Result<()> {
    links.delete(&settings.name)?;
    firewall::remove_rules(&settings.name)
}

/// The bridge as it has to be: ours, with an address, up.
fn ensure_bridge(settings: &BridgeSettings, links: &mut Links) -> Result<(Link, Ipv4Subnet)> {
    let name = &settings.name;
    if let Some(bridge) = links.find(name)? {
        // A bridge without an alias was left by a process killed right after making it.
        if !(bridge.kind == "bridge" && bridge.alias.is_empty()) {
            check_owner(&bridge, settings)?;
        }
        let found = links.addresses()?.into_iter().find(|(index, ..)| *index == bridge.index);
        if let Some((_, address, subnet)) = found.filter(|(_, address, subnet)| *address == subnet.gateway())
        {
            if let Some(expected) = settings.subnet.filter(|expected| *expected != subnet) {
                return Err(Error::BridgeSubnetDiffers { name: name.clone(), expected, actual: subnet });
            }
            finish_bridge(settings, links, &bridge, address, subnet)?;
            return Ok((bridge, subnet));
        }
        let subnet = free_subnet(settings, links)?;
        finish_bridge(settings, links, &bridge, subnet.gateway(), subnet)?;
        return Ok((bridge, subnet));
    }
    let subnet = free_subnet(settings, links)?;
    links.create_bridge(name, MacAddress::of_ipv4(subnet.gateway()))?;
    let bridge = links
        .find(name)?
        .ok_or_else(|| mica_sys::Error::new("RTM_GETLINK", name, rustix::io::Errno::NODEV))?;
    finish_bridge(settings, links, &bridge, subnet.gateway(), subnet)?;
    Ok((bridge, subnet))
}

/// Whatever of the bridge is not yet as it should be; a kill may have come between any two of these.
fn finish_bridge(
    settings: &BridgeSettings,
    links: &mut Links,
    bridge: &Link,
    address: Ipv4Addr,
    subnet: Ipv4Subnet,
) -> Result<()> {
    let name = &settings.name;
    let alias = alias_of(&settings.state_dir);
    if bridge.alias != alias {
        links.set_alias(bridge.index, &alias, name)?;
    }
    // A container could otherwise announce itself to the host as its IPv6 router (CVE-2020-13401).
    let ipv6 = format!("/proc/sys/net/ipv6/conf/{name}/disable_ipv6");
    if Path::new(&ipv6).exists() {
        write_setting(&ipv6, "1")?;
    }
    links.add_address(bridge.index, address, subnet)?;
    links.set_up(bridge.index, name)
}

fn check_owner(bridge: &Link, settings: &BridgeSettings) -> Result<()> {
    let expected = alias_of(&settings.state_dir);
    // When the other directory is gone, nobody can hold a lease in it.
    let is_orphan = bridge
        .alias
        .strip_prefix(ALIAS_PREFIX)
        .is_some_and(|owner| bridge.alias.len() < ALIAS_BYTES_MAX && !Path::new(owner).exists());
    if bridge.kind == "bridge" && (bridge.alias == expected || is_orphan) {
        return Ok(());
    }
    let actual = if bridge.alias.is_empty() { bridge.kind.clone() } else { bridge.alias.clone() };
    Err(Error::BridgeIsOfOther { name: settings.name.clone(), expected, actual })
}

/// The mark of a bridge: two programs with different state directories would lease the same addresses.
fn alias_of(state_dir: &Path) -> String {
    let path = fs::canonicalize(state_dir).unwrap_or_else(|_| state_dir.to_path_buf());
    let mut alias = format!("{ALIAS_PREFIX}{}", path.to_string_lossy());
    while alias.len() > ALIAS_BYTES_MAX {
        alias.pop();
    }
    alias
}

fn free_subnet(settings: &BridgeSettings, links: &mut Links) -> Result<Ipv4Subnet> {
    let own = links.find(&settings.name)?.map(|bridge| bridge.index);
    let routes = links.routes()?;
    let addresses = links.addresses()?;
    let taken: Vec<Ipv4Subnet> = routes
        .iter()
        .filter(|route| route.destination.prefix_bits() > 0 && (own.is_none() || route.link_index != own))
        .map(|route| route.destination)
        .chain(addresses.iter().filter(|(index, ..)| Some(*index) != own).map(|(.., subnet)| *subnet))
        .collect();
    let Some(subnet) = settings.subnet else { return choose_subnet(&taken) };
    match taken.into_iter().find(|taken| taken.overlaps(subnet)) {
        Some(taken) => Err(Error::SubnetTaken { subnet, taken }),
        None => Ok(subnet),
    }
}

fn mtu_of_default_route(links: &mut Links) -> Result<u32> {
    let routes = links.routes()?;
    let default =
        routes.iter().find(|route| route.destination.prefix_bits() == 0 && route.link_index.is_some());
    let Some(index) = default.and_then(|route| route.link_index) else { return Ok(MTU_BYTES_DEFAULT) };
    let mtu_bytes = links.find_index(index)?.map_or(MTU_BYTES_DEFAULT, |link| link.mtu_bytes);
    // A default route through `lo` or a jumbo link must not give containers frames that the bridge cannot carry.
    Ok(mtu_bytes.clamp(576, 9000))
}

fn enable_forwarding() -> Result<()> {
    write_setting("/proc/sys/net/ipv4/ip_forward", "1")
}

/// Writes a setting unless it has that value; a read-only `/proc/sys` is thus no obstacle where all is set already.
fn write_setting(path: &str, value: &str) -> Result<()> {
    if fs::read_to_string(path).is_ok_and(|found| found.trim() == value) {
        return Ok(());
    }
    Ok(fs::write(path, value).at("write", path)?)
}

fn check_link_name(name: &str) -> Result<()> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let is_usable = (1..=LINK_NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(is_plain)
        && !matches!(name, "." | ".." | "all" | "default");
    if is_usable { Ok(()) } else { Err(Error::BridgeNameInvalid { name: name.to_owned() }) }
}

fn veth_name(address: Ipv4Addr) -> String {
    format!("{VETH_PREFIX}{:08x}", address.to_bits())
}

fn address_of_veth_name(name: &str) -> Option<Ipv4Addr> {
    let hexadecimal = name.strip_prefix(VETH_PREFIX).filter(|rest| rest.len() == 8)?;
    let address = Ipv4Addr::from_bits(u32::from_str_radix(hexadecimal, 16).ok()?);
    (veth_name(address) == name).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn link_names_say_their_address() {
        let address = Ipv4Addr::new(10, 88, 0, 2);
        assert_eq!(veth_name(address), "mv0a580002");
        assert_eq!(address_of_veth_name("mv0a580002"), Some(address));
        for name in ["mv", "mv0a58000", "mv0A580002", "mv+a580002", "veth0a580002", "mv0a5800021"] {
            assert_eq!(address_of_veth_name(name), None, "{name}");
        }
    }

    #[test]
    fn facts_are_stored_as_text() {
        let subnet: Ipv4Subnet = "10.88.0.0/16".parse().unwrap();
        let facts = EndpointFacts {
            ipv4: Ipv4Addr::new(10, 88, 0, 2),
            subnet,
            gateway: subnet.gateway(),
            mac: MacAddress::of_ipv4(Ipv4Addr::new(10, 88, 0, 2)).to_string(),
            bridge: BRIDGE_NAME.to_owned(),
            host_link: veth_name(Ipv4Addr::new(10, 88, 0, 2)),
            container_link: CONTAINER_LINK_NAME.to_owned(),
        };
        let text = serde_json::to_string(&facts).unwrap();
        let expect = r#"{"ipv4":"10.88.0.2","subnet":"10.88.0.0/16","gateway":"10.88.0.1","#;
        assert!(text.starts_with(expect), "{text}");
        assert_eq!(serde_json::from_str::<EndpointFacts>(&text).unwrap(), facts);
        assert!(serde_json::from_str::<EndpointFacts>(&text.replace("/16", "/99")).is_err());
    }

    #[test]
    fn bridge_names_are_checked() {
        for name in ["", ".", "..", "a/b", "a b", "sixteen-bytes-xx", "all", "naïve", "a\0b"] {
            assert!(check_link_name(name).is_err(), "{name:?}");
        }
        for name in ["mica0", "br-1.2_x", "fifteen-bytes-x"] {
            assert!(check_link_name(name).is_ok(), "{name}");
        }
    }
}
