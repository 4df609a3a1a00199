//! Hosts, as they stand in URLs.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use reqwest::Url;

/// Host and port of a URL, as errors name it: never user, path or query.
pub fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Host without port, and the port.
pub fn split_port(host: &str) -> (&str, Option<&str>) {
    match host.rsplit_once(':') {
        // The colons of `[::1]` are not its port's.
        Some((_, port)) if port.ends_with(']') => (host, None),
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    }
}

/// The address that a host is, if it is not a name.
pub fn address_of(host: &str) -> Option<IpAddr> {
    let name = split_port(host).0;
    name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name).parse().ok()
}

/// Whether a host is this machine: `localhost`, what is below it, 127.0.0.0/8 and ::1.
pub fn is_loopback(host: &str) -> bool {
    let name = split_port(host).0.trim_end_matches('.').to_ascii_lowercase();
    let mapped =
        |address: Ipv6Addr| address.to_ipv4_mapped().is_some_and(|address: Ipv4Addr| address.is_loopback());
    match address_of(host) {
        Some(IpAddr::V4(address)) => address.is_loopback(),
        Some(IpAddr::V6(address)) => address.is_loopback() || mapped(address),
        None => name == "localhost" || name.ends_with(".localhost"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_in_errors_have_no_secrets() {
        let url = Url::parse("https://user:hush@a.example:8443/hush?sig=hush#hush").unwrap();
        assert_eq!(host_of(&url), "a.example:8443");
        assert_eq!(host_of(&Url::parse("http://[::1]:80/").unwrap()), "[::1]");
    }
}
