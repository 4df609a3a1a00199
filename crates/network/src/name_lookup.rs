//! `/etc/resolv.conf` and `/etc/hosts` of a container, by docker's rules. Pure but for [`read_host_resolv_conf`].

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use mica_sys::error::ErrorAt;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

const HOST_RESOLV_CONF: &str = "/etc/resolv.conf";
/// Where systemd-resolved writes the servers behind its stub on 127.0.0.53 (systemd-resolved.service(8)).
const RESOLVED_RESOLV_CONF: &str = "/run/systemd/resolve/resolv.conf";
/// No resolver reads more of such a file.
const RESOLV_CONF_BYTES_MAX: u64 = 1024 * 1024;

/// What network a container gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NetworkMode {
    /// The host's own namespace.
    Host,
    /// A namespace with loopback only.
    None,
    /// A place on the bridge (as root), or what the rootless program gives. Names are looked up over IPv4.
    #[default]
    Bridge,
}

/// `--dns`, `--dns-search`, `--dns-option`: each that is given replaces what the host has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DnsSettings {
    /// Servers.
    pub servers: Vec<IpAddr>,
    /// Domains to search; a single `.` means none.
    pub search: Vec<String>,
    /// Options.
    pub options: Vec<String>,
}

/// A container's `resolv.conf`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvConf {
    /// The file's content.
    pub text: String,
    /// The servers in it. Empty means that the container resolves no names: the caller warns.
    pub servers: Vec<IpAddr>,
    /// Servers of the host that a container cannot reach: they are on the host's loopback, or IPv6 (the bridge has
    /// none), or no address.
    pub dropped: Vec<String>,
}

/// The host's file; where that names servers on loopback only and systemd-resolved runs, the servers behind it.
/// A host without one has an empty one.
pub fn read_host_resolv_conf() -> Result<String> {
    let text = read_bounded(Path::new(HOST_RESOLV_CONF))?.unwrap_or_default();
    let servers = servers_of(&text);
    let is_stub = !servers.is_empty() && servers.iter().all(|server| is_loopback(server));
    let behind = if is_stub { read_bounded(Path::new(RESOLVED_RESOLV_CONF))? } else { None };
    Ok(behind.unwrap_or(text))
}

fn read_bounded(path: &Path) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        file => {
            file.at("open", path)?.take(RESOLV_CONF_BYTES_MAX).read_to_end(&mut bytes).at("read", path)?
        }
    };
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// The container's file, from the host's. All but the settings' own lines is kept as it is. In bridge mode, the
/// servers are dropped that only the host can reach; none is invented in their place.
pub fn resolv_conf(host: &str, mode: NetworkMode, settings: &DnsSettings) -> ResolvConf {
    let mut conf = ResolvConf { text: String::new(), servers: settings.servers.clone(), dropped: Vec::new() };
    for line in host.lines() {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("nameserver") if !settings.servers.is_empty() => continue,
            Some("nameserver") => {
                let server = words.next().unwrap_or_default();
                match reachable(server, mode) {
                    Some(address) => conf.servers.push(address),
                    None => {
                        conf.dropped.push(server.to_owned());
                        continue;
                    }
                }
            }
            Some("search" | "domain") if !settings.search.is_empty() => continue,
            Some("options") if !settings.options.is_empty() => continue,
            _ => {}
        }
        conf.text.push_str(line);
        conf.text.push('\n');
    }
    for server in &settings.servers {
        let _ = writeln!(conf.text, "nameserver {server}");
    }
    if !settings.search.is_empty() && settings.search != ["."] {
        let _ = writeln!(conf.text, "search {}", settings.search.join(" "));
    }
    if !settings.options.is_empty() {
        let _ = writeln!(conf.text, "options {}", settings.options.join(" "));
    }
    conf
}

fn servers_of(text: &str) -> Vec<&str> {
    let server_of = |line| {
        let mut words = str::split_whitespace(line);
        if words.next() == Some("nameserver") { words.next() } else { None }
    };
    text.lines().filter_map(server_of).collect()
}

fn parse_server(server: &str) -> Option<IpAddr> {
    // `fe80::1%eth0` names a link of the host.
    server.parse().ok()
}

fn is_loopback(server: &str) -> bool {
    parse_server(server).is_some_and(|address| address.is_loopback())
}

fn reachable(server: &str, mode: NetworkMode) -> Option<IpAddr> {
    let address = parse_server(server);
    match mode {
        NetworkMode::Bridge => address.filter(|address| address.is_ipv4() && !address.is_loopback()),
        // In the host's namespace all is as on the host, and without a network nothing is asked.
        NetworkMode::Host | NetworkMode::None => address,
    }
}

/// The address of `--add-host`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HostAddress {
    /// As given.
    Ip(IpAddr),
    /// `host-gateway`: the address by which this container reaches its host.
    HostGateway,
}

/// A name for the container's `/etc/hosts`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddHost {
    /// The name.
    pub name: String,
    /// What it means.
    pub address: HostAddress,
}

/// Reads `name:address` or `name=address`; the address may be IPv6, with or without brackets, or `host-gateway`.
pub fn parse_add_host(spec: &str) -> Result<AddHost> {
    let wrong = || Error::AddHost { spec: spec.to_owned() };
    let (name, address) = spec.split_once('=').or_else(|| spec.split_once(':')).ok_or_else(wrong)?;
    // A name is one word of one line of the file.
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control() || c == '#') {
        return Err(wrong());
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    let address = match bare.parse() {
        _ if address == "host-gateway" => HostAddress::HostGateway,
        Ok(ip) => HostAddress::Ip(ip),
        Err(_) => return Err(Error::AddHostAddress { spec: spec.to_owned(), address: address.to_owned() }),
    };
    Ok(AddHost { name: name.to_owned(), address })
}

/// What `/etc/hosts` is made of.
#[derive(Debug, Clone, Copy)]
pub struct HostsSettings<'a> {
    /// The mode; host mode begins with the host's own file.
    pub mode: NetworkMode,
    /// The container's hostname, and its domain.
    pub hostname: &'a str,
    /// `--domainname`; may be empty.
    pub domainname: &'a str,
    /// The container's address, if it has one of its own.
    pub ipv4: Option<Ipv4Addr>,
    /// What `host-gateway` means: the bridge's address.
    pub host_gateway: Option<IpAddr>,
    /// `--add-host`.
    pub add_hosts: &'a [AddHost],
    /// The host's `/etc/hosts`.
    pub host_hosts: &'a str,
}

/// Names that every container has, in docker's order and spelling.
const HOSTS_DEFAULT: &str = "127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

/// The container's `/etc/hosts`. An added host whose `host-gateway` is unknown is left out.
pub fn hosts_file(settings: &HostsSettings<'_>) -> String {
    let mut text = match settings.mode {
        NetworkMode::Host => settings.host_hosts.to_owned(),
        NetworkMode::Bridge | NetworkMode::None => HOSTS_DEFAULT.to_owned(),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    for host in settings.add_hosts {
        let address = match host.address {
            HostAddress::Ip(ip) => Some(ip),
            HostAddress::HostGateway => settings.host_gateway,
        };
        if let Some(address) = address {
            let _ = writeln!(text, "{address}\t{}", host.name);
        }
    }
    let own = settings.ipv4.filter(|_| settings.mode == NetworkMode::Bridge && !settings.hostname.is_empty());
    if let Some(ipv4) = own {
        let (hostname, domainname) = (settings.hostname, settings.domainname);
        let _ = match domainname {
            "" => writeln!(text, "{ipv4}\t{hostname}"),
            _ => writeln!(text, "{ipv4}\t{hostname}.{domainname} {hostname}"),
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(servers: &[&str], search: &[&str], options: &[&str]) -> DnsSettings {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        DnsSettings {
            servers: servers.iter().map(|server| server.parse().unwrap()).collect(),
            search: words(search),
            options: words(options),
        }
    }

    #[test]
    fn resolv_conf_keeps_what_the_container_can_reach() {
        let check = |host: &str, mode, settings: DnsSettings, expect: &str, dropped: &[&str]| {
            let conf = resolv_conf(host, mode, &settings);
            assert_eq!(conf.text, expect, "{host:?}");
            assert_eq!(conf.dropped, dropped, "{host:?}");
            let lines = expect.lines().filter(|line| line.trim_start().starts_with("nameserver")).count();
            assert_eq!(conf.servers.len(), lines, "{host:?}");
        };
        use NetworkMode::{Bridge, Host, None};
        let host =
            "# by hand\nnameserver 10.0.0.1\nnameserver 127.0.0.1\nsearch a.test b.test\noptions ndots:2";
        check(
            host,
            Bridge,
            dns(&[], &[], &[]),
            "# by hand\nnameserver 10.0.0.1\nsearch a.test b.test\noptions ndots:2\n",
            &["127.0.0.1"],
        );
        check(host, Host, dns(&[], &[], &[]), &format!("{host}\n"), &[]);
        check(host, None, dns(&[], &[], &[]), &format!("{host}\n"), &[]);
        check(
            host,
            Bridge,
            dns(&["1.2.3.4", "::1"], &["c.test", "d.test"], &["timeout:1", "rotate"]),
            "# by hand\nnameserver 1.2.3.4\nnameserver ::1\nsearch c.test d.test\noptions timeout:1 rotate\n",
            &[],
        );
        check(
            host,
            Host,
            dns(&[], &["."], &[]),
            &format!("{}\n", host.replace("search a.test b.test\n", "")),
            &[],
        );
        check("nameserver 127.0.0.53\n", Bridge, dns(&[], &[], &[]), "", &["127.0.0.53"]);
        check(
            "nameserver ::1\nnameserver fe80::1%eth0\nnameserver 2001:db8::1\nnameserver\nnameserver x\n",
            Bridge,
            dns(&[], &[], &[]),
            "",
            &["::1", "fe80::1%eth0", "2001:db8::1", "", "x"],
        );
        check(
            "\tnameserver \t 9.9.9.9 # x\r\n",
            Bridge,
            dns(&[], &[], &[]),
            "\tnameserver \t 9.9.9.9 # x\n",
            &[],
        );
        check("domain x\n", Bridge, dns(&[], &["y"], &[]), "search y\n", &[]);
        check("", Bridge, dns(&[], &[], &[]), "", &[]);
    }

    #[test]
    fn servers_are_found_in_a_resolv_conf() {
        assert_eq!(
            servers_of("nameserver a\n#nameserver b\n nameserver\tc d\nnameserver\nsearch e"),
            ["a", "c"]
        );
    }

    #[test]
    fn added_hosts_parse() {
        let check = |spec: &str, expect: &str| {
            let found = match parse_add_host(spec) {
                Ok(AddHost { name, address: HostAddress::Ip(ip) }) => format!("{name} {ip}"),
                Ok(AddHost { name, address: HostAddress::HostGateway }) => format!("{name} gateway"),
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expect, "{spec}");
        };
        check("a:1.2.3.4", "a 1.2.3.4");
        check("b:host-gateway", "b gateway");
        check("c=::1", "c ::1");
        check("c:::1", "c ::1");
        check("c:[::1]", "c ::1");
        check("a:b", "address of additional host `a:b` is not an IP address: `b`");
        check("a:", "address of additional host `a:` is not an IP address: ``");
        check("a", "additional host is not `name:address`: `a`");
        check(":1.2.3.4", "additional host is not `name:address`: `:1.2.3.4`");
        check("a\nb:1.2.3.4", "additional host is not `name:address`: `a\nb:1.2.3.4`");
    }

    #[test]
    fn hosts_files_are_docker_s() {
        let added = ["db:10.1.1.1", "up:host-gateway", "six=::5"].map(|spec| parse_add_host(spec).unwrap());
        let settings = HostsSettings {
            mode: NetworkMode::Bridge,
            hostname: "c1",
            domainname: "",
            ipv4: Some(Ipv4Addr::new(10, 88, 0, 2)),
            host_gateway: Some(IpAddr::from([10, 88, 0, 1])),
            add_hosts: &added,
            host_hosts: "127.0.0.1 localhost\n10.9.9.9 printer",
        };
        let check = |settings: HostsSettings<'_>, expect: &str| assert_eq!(hosts_file(&settings), expect);
        let extra = "10.1.1.1\tdb\n10.88.0.1\tup\n::5\tsix\n";
        check(settings, &format!("{HOSTS_DEFAULT}{extra}10.88.0.2\tc1\n"));
        let with_domain = HostsSettings { domainname: "example.test", ..settings };
        check(with_domain, &format!("{HOSTS_DEFAULT}{extra}10.88.0.2\tc1.example.test c1\n"));
        let host = HostsSettings { mode: NetworkMode::Host, ..settings };
        check(host, &format!("127.0.0.1 localhost\n10.9.9.9 printer\n{extra}"));
        let none = HostsSettings { mode: NetworkMode::None, host_gateway: None, ..settings };
        check(none, &format!("{HOSTS_DEFAULT}10.1.1.1\tdb\n::5\tsix\n"));
    }
}
