//! IPv4 subnets: parse, overlap, and the choice of one that the host does not use. Pure.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An IPv4 subnet; the host bits of the address are always zero. Stored as text, `10.88.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Subnet {
    address: Ipv4Addr,
    prefix_bits: u8,
}

impl Ipv4Subnet {
    /// The subnet of `prefix_bits` that `address` lies in; more than 32 bits count as 32.
    pub fn new(address: Ipv4Addr, prefix_bits: u8) -> Self {
        let prefix_bits = prefix_bits.min(32);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask_of(prefix_bits)), prefix_bits }
    }

    /// The first address, which names the subnet.
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Length of the prefix.
    pub fn prefix_bits(self) -> u8 {
        self.prefix_bits
    }

    /// The mask as an address.
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask_of(self.prefix_bits))
    }

    /// The address that the bridge takes: the first that a host can have.
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | 1)
    }

    /// The address that reaches all hosts of the subnet.
    pub fn broadcast(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask_of(self.prefix_bits))
    }

    /// Is `address` in the subnet?
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask_of(self.prefix_bits) == self.address.to_bits()
    }

    /// Do the two share an address?
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    /// First and last address that a container may have: all but the subnet's name, the gateway and broadcast.
    pub fn container_range(self) -> (Ipv4Addr, Ipv4Addr) {
        let first = self.address.to_bits().saturating_add(2);
        let last = self.broadcast().to_bits().saturating_sub(1);
        (Ipv4Addr::from_bits(first), Ipv4Addr::from_bits(last))
    }
}

fn mask_of(prefix_bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix_bits.min(32))).unwrap_or(0)
}

impl fmt::Display for Ipv4Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix_bits)
    }
}

impl From<Ipv4Subnet> for String {
    fn from(subnet: Ipv4Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Ipv4Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl FromStr for Ipv4Subnet {
    type Err = Error;

    /// `10.88.0.0/16`. Prefixes that leave no room for containers (longer than /29), or take a fair part of all
    /// addresses (shorter than /8), are refused.
    fn from_str(text: &str) -> Result<Self, Error> {
        let parsed = text.split_once('/').and_then(|(address, bits)| {
            let is_plain = (1..=2).contains(&bits.len()) && bits.bytes().all(|byte| byte.is_ascii_digit());
            Some((address.parse::<Ipv4Addr>().ok()?, bits.parse::<u8>().ok().filter(|_| is_plain)?))
        });
        match parsed {
            Some((address, bits @ 8..=29)) => Ok(Self::new(address, bits)),
            _ => Err(Error::SubnetInvalid { text: text.to_owned() }),
        }
    }
}

/// The subnets that a bridge takes by default, best first: private ranges away from what routers, virtual machines
/// and other container tools hand out. The sizes fall, so that a crowded host still finds a place.
pub fn default_subnets() -> Vec<Ipv4Subnet> {
    let large = (88..=103).map(|part| Ipv4Subnet::new(Ipv4Addr::new(10, part, 0, 0), 16));
    let small = (200..=215).map(|part| Ipv4Subnet::new(Ipv4Addr::new(192, 168, part, 0), 24));
    large.chain(small).collect()
}

/// The first default subnet that overlaps nothing of `taken`.
pub fn choose_subnet(taken: &[Ipv4Subnet]) -> Result<Ipv4Subnet, Error> {
    let candidates = default_subnets();
    let is_free = |candidate: &&Ipv4Subnet| !taken.iter().any(|taken| candidate.overlaps(*taken));
    candidates.iter().find(is_free).copied().ok_or(Error::NoFreeSubnet { tried: candidates.len() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_parse_and_bound() {
        let check = |text: &str, expect: Option<(&str, &str, &str, &str)>| {
            let found = text.parse::<Ipv4Subnet>().ok().map(|subnet| {
                let (first, last) = subnet.container_range();
                (subnet.to_string(), subnet.gateway().to_string(), first.to_string(), last.to_string())
            });
            let expect = expect.map(|(a, b, c, d)| (a.to_owned(), b.to_owned(), c.to_owned(), d.to_owned()));
            assert_eq!(found, expect, "{text}");
        };
        check("10.88.0.0/16", Some(("10.88.0.0/16", "10.88.0.1", "10.88.0.2", "10.88.255.254")));
        check("10.88.3.9/16", Some(("10.88.0.0/16", "10.88.0.1", "10.88.0.2", "10.88.255.254")));
        check("192.168.1.8/29", Some(("192.168.1.8/29", "192.168.1.9", "192.168.1.10", "192.168.1.14")));
        for text in
            ["", "/", "10.0.0.0", "10.0.0.0/30", "10.0.0.0/7", "10.0.0.0/+9", "10.0.0.0/016", "a/16", "::/16"]
        {
            check(text, None);
        }
    }

    #[test]
    fn the_choice_avoids_what_the_host_uses() {
        let check = |taken: &[&str], expect: Option<&str>| {
            let taken: Vec<_> = taken
                .iter()
                .map(|text| {
                    let (address, bits) = text.split_once('/').unwrap();
                    Ipv4Subnet::new(address.parse().unwrap(), bits.parse().unwrap())
                })
                .collect();
            assert_eq!(choose_subnet(&taken).ok().map(|subnet| subnet.to_string()).as_deref(), expect);
        };
        check(&[], Some("10.88.0.0/16"));
        check(&["10.88.7.0/24"], Some("10.89.0.0/16"));
        check(&["10.88.0.0/15", "10.90.1.1/32"], Some("10.91.0.0/16"));
        check(&["10.0.0.0/8"], Some("192.168.200.0/24"));
        check(&["10.0.0.0/8", "192.168.0.0/16"], None);
    }
}
