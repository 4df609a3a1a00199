//! `-p`: the text to values, as docker reads it. Pure.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A container's ports are published for one of these. (docker's `sctp` has no counterpart in a proxy.)
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Streams.
    Tcp,
    /// Datagrams.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// Ports from `first` to `last`, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PortRange {
    /// The lowest.
    pub first: u16,
    /// The highest.
    pub last: u16,
}

impl PortRange {
    /// `0`: the kernel chooses.
    pub const ANY: Self = Self { first: 0, last: 0 };

    /// One port.
    pub fn one(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// How many, less one.
    fn span(self) -> u16 {
        self.last - self.first
    }
}

/// One port of a container that the host passes on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct PublishedPort {
    /// The host's address to listen on; all of them, IPv6 too, if not given.
    pub host_ip: Option<IpAddr>,
    /// The host's port: exactly one, any ([`PortRange::ANY`]), or the first of these that is free.
    pub host_port: PortRange,
    /// The container's port.
    pub container_port: u16,
    /// What is passed on.
    pub protocol: Protocol,
}

/// Reads `[ip:][host port[-last]:]container port[-last][/protocol]`, or docker's long form
/// (`target=80,published=8080,protocol=tcp`). A range gives one value per container port.
pub fn parse_publish(spec: &str) -> Result<Vec<PublishedPort>> {
    if spec.contains('=') {
        return parse_long(spec);
    }
    // An address may hold colons with or without brackets, so fields are counted from the end.
    let mut from_end = spec.rsplitn(3, ':');
    let container = from_end.next().unwrap_or_default();
    let host_port = from_end.next().unwrap_or_default();
    let host_ip = from_end.next().unwrap_or_default();
    let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
    if container.is_empty() {
        return Err(Error::PublishWithoutPort { spec: spec.to_owned() });
    }
    ports_of(spec, host_ip, host_port, container, protocol)
}

fn parse_long(spec: &str) -> Result<Vec<PublishedPort>> {
    let (mut target, mut published, mut protocol) = ("", "", "");
    for field in spec.split(',') {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        match key.to_ascii_lowercase().as_str() {
            "target" => target = value,
            "published" => published = value,
            "protocol" => protocol = value,
            // Modes are of swarm's load balancer; on one host both mean the same.
            "mode" if matches!(value, "host" | "ingress") => {}
            _ => return Err(Error::PublishField { spec: spec.to_owned(), field: field.to_owned() }),
        }
    }
    if target.is_empty() {
        return Err(Error::PublishWithoutPort { spec: spec.to_owned() });
    }
    ports_of(spec, "", published, target, protocol)
}

fn ports_of(
    spec: &str,
    host_ip: &str,
    host_port: &str,
    container: &str,
    protocol: &str,
) -> Result<Vec<PublishedPort>> {
    let spec = spec.to_owned();
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "" | "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(Error::PublishProtocol { spec, protocol: protocol.to_owned() }),
    };
    let host_ip = match host_ip {
        "" => None,
        text => {
            let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
            let Ok(address) = bare.parse() else {
                return Err(Error::PublishHostAddress { spec, address: text.to_owned() });
            };
            Some(address)
        }
    };
    let containers = match parse_range(container) {
        Some(range) if range.first > 0 => range,
        _ => return Err(Error::PublishContainerPort { spec, port: container.to_owned() }),
    };
    let hosts = match host_port {
        "" => PortRange::ANY,
        text => match parse_range(text) {
            // `0` asks for any port; a range that begins with it asks for nothing that makes sense.
            Some(range) if range.first > 0 || range.last == 0 => range,
            _ => return Err(Error::PublishHostPort { spec, port: text.to_owned() }),
        },
    };
    let host_of: Box<dyn Fn(u16) -> PortRange> = if hosts == PortRange::ANY {
        Box::new(|_| PortRange::ANY)
    } else if hosts.span() == containers.span() {
        Box::new(move |offset| PortRange::one(hosts.first + offset))
    } else if containers.span() == 0 {
        Box::new(move |_| hosts)
    } else {
        let (host, container) = (host_port.to_owned(), container.to_owned());
        return Err(Error::PublishRanges { spec, host, container });
    };
    let port_of = |offset: u16| PublishedPort {
        host_ip,
        host_port: host_of(offset),
        container_port: containers.first + offset,
        protocol,
    };
    Ok((0..=containers.span()).map(port_of).collect())
}

/// `80` or `80-90`: digits only, in order.
fn parse_range(text: &str) -> Option<PortRange> {
    let port = |text: &str| {
        let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_plain)
    };
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let range = PortRange { first: port(first)?, last: port(last)? };
    (range.first <= range.last).then_some(range)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(port: &PublishedPort) -> String {
        let ip = port.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
        let PortRange { first, last } = port.host_port;
        let host = if first == last { first.to_string() } else { format!("{first}..{last}") };
        format!("{ip}|{host}|{}/{}", port.container_port, port.protocol)
    }

    fn check(spec: &str, expect: &str) {
        let found = match parse_publish(spec) {
            Ok(ports) => ports.iter().map(show).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expect, "{spec}");
    }

    #[test]
    fn published_ports_parse() {
        check("80", "*|0|80/tcp");
        check("80/udp", "*|0|80/udp");
        check("8080:80", "*|8080|80/tcp");
        check(":80", "*|0|80/tcp");
        check("0:80", "*|0|80/tcp");
        check("8080:80/UDP", "*|8080|80/udp");
        check("8080:80/", "*|8080|80/tcp");
        check("127.0.0.1:8080:80", "127.0.0.1|8080|80/tcp");
        check("127.0.0.1::80", "127.0.0.1|0|80/tcp");
        check(":80:80", "*|80|80/tcp");
        check("[::1]:80:80", "::1|80|80/tcp");
        check("::1:80:80", "::1|80|80/tcp");
        check("[fe80::2]::80/udp", "fe80::2|0|80/udp");
        check("80-82", "*|0|80/tcp *|0|81/tcp *|0|82/tcp");
        check("8080-8082:80-82", "*|8080|80/tcp *|8081|81/tcp *|8082|82/tcp");
        check("8080-8082:80", "*|8080..8082|80/tcp");
        check("0:80-81", "*|0|80/tcp *|0|81/tcp");
        check("65535:65535", "*|65535|65535/tcp");
        check("target=80,published=8080,protocol=udp,mode=host", "*|8080|80/udp");
        check("target=80", "*|0|80/tcp");
    }

    #[test]
    fn wrong_published_ports_say_why() {
        check("", "no container port in published port: ``");
        check("8080:", "no container port in published port: `8080:`");
        check("8080:/tcp", "no container port in published port: `8080:/tcp`");
        check("53:53/xyz", "protocol of published port `53:53/xyz` is neither `tcp` nor `udp`: `xyz`");
        check("53:53/sctp", "protocol of published port `53:53/sctp` is neither `tcp` nor `udp`: `sctp`");
        let host = |spec, port| {
            check(
                spec,
                &format!("host port of published port `{spec}` is not a port or a range of ports: `{port}`"),
            );
        };
        host("70000:80", "70000");
        host("-1:80", "-1");
        host("9-8:80", "9-8");
        host("0-5:80", "0-5");
        host("+80:80", "+80");
        let container = |spec, port| {
            let text = format!("container port of published port `{spec}` is not a port or a range of ports");
            check(spec, &format!("{text}: `{port}`"));
        };
        container("0", "0");
        container("80:0", "0");
        container("80:x", "x");
        container("80:1-", "1-");
        container("80:1-2-3", "1-2-3");
        container("80:99999", "99999");
        check(
            "8080-8083:80-82",
            "ranges of published port `8080-8083:80-82` differ in length: `8080-8083` and `80-82`",
        );
        check("8080:80-82", "ranges of published port `8080:80-82` differ in length: `8080` and `80-82`");
        check(
            "localhost:80:80",
            "host address of published port `localhost:80:80` is not an IP address: `localhost`",
        );
        check("[::1:80:80", "host address of published port `[::1:80:80` is not an IP address: `[::1`");
        check("target=80,x=1", "field of published port `target=80,x=1` is not understood: `x=1`");
        check(
            "target=80,mode=both",
            "field of published port `target=80,mode=both` is not understood: `mode=both`",
        );
        check("published=80", "no container port in published port: `published=80`");
    }
}
