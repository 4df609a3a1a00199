//! Tests that need root: each is a small world of network namespaces of its own, so the host is never touched.
//!
//! ```text
//! outside (198.51.100.2) ---- uplink ---- host (198.51.100.1, the test's thread) ---- bridge ---- containers
//! ```
//!
//! `outside` has no route back to the containers, so an answer from it proves the masquerade.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::Barrier;
use std::time::{Duration, Instant};

use mica_sys::netlink::unshare_network_of_thread;

use crate::bridge::{BridgeSettings, attach_bridge, bring_up_loopback, sweep};
use crate::error::Error;
use crate::link::{Links, MacAddress, VethPair};
use crate::namespace::NetworkNamespace;
use crate::port_publish::publish;
use crate::published_port::parse_publish;
use crate::rootless::{RootlessSettings, attach_rootless, sweep_rootless};
use crate::subnet::Ipv4Subnet;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const HOST: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
const WAIT: Duration = Duration::from_secs(5);

/// Runs `body` on a thread that is a fresh host; says if it was skipped.
fn in_world(name: &str, body: impl FnOnce(&NetworkNamespace, &BridgeSettings) + Send) {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: {name} needs root");
        return;
    }
    let state = tempfile::tempdir().unwrap();
    let settings = BridgeSettings::new(state.path().join("network"));
    std::thread::scope(|scope| {
        let world = scope.spawn(|| {
            if let Err(error) = unshare_network_of_thread() {
                println!("skipped: {name} needs network namespaces: {error}");
                return;
            }
            let outside = new_namespace();
            wire(&outside);
            body(&outside, &settings);
        });
        if let Err(panic) = world.join() {
            std::panic::resume_unwind(panic);
        }
    });
}

fn new_namespace() -> NetworkNamespace {
    let thread = std::thread::spawn(|| {
        unshare_network_of_thread().unwrap();
        NetworkNamespace::of_thread().unwrap()
    });
    thread.join().unwrap()
}

fn wire(outside: &NetworkNamespace) {
    let subnet = Ipv4Subnet::new(HOST, 24);
    let here = NetworkNamespace::of_thread().unwrap();
    bring_up_loopback(&here).unwrap();
    bring_up_loopback(outside).unwrap();
    let mut links = Links::open().unwrap();
    let pair = VethPair {
        host_name: "uplink",
        host_mac: MacAddress::of_ipv4(HOST),
        bridge_index: 0,
        mtu_bytes: 1400,
        container: outside.as_fd(),
        container_name: "downlink",
        container_mac: MacAddress::of_ipv4(OUTSIDE),
    };
    links.create_veth(&pair).unwrap();
    let uplink = links.find("uplink").unwrap().unwrap();
    links.add_address(uplink.index, HOST, subnet).unwrap();
    links.set_up(uplink.index, "uplink").unwrap();
    links.add_default_route(uplink.index, OUTSIDE).unwrap();
    let mut links = outside.run(Links::open).unwrap().unwrap();
    let downlink = links.find("downlink").unwrap().unwrap();
    links.add_address(downlink.index, OUTSIDE, subnet).unwrap();
    links.set_up(downlink.index, "downlink").unwrap();
}

/// Answers one connection with the address that it came from.
fn serve_peer_name(listener: TcpListener) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let (mut client, peer) = listener.accept().unwrap();
        client.write_all(peer.ip().to_string().as_bytes()).unwrap();
    })
}

fn read_all(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

fn link_names() -> Vec<String> {
    let mut names: Vec<_> =
        Links::open().unwrap().list().unwrap().into_iter().map(|link| link.name).collect();
    // What the kernel itself puts into every namespace (tunnel devices) is not ours.
    names.retain(|name| name.starts_with("mv") || name.starts_with("mica"));
    names
}

#[test]
fn root_a_container_reaches_the_outside_by_masquerade() {
    in_world("masquerade", |outside, settings| {
        let container = new_namespace();
        let endpoint = attach_bridge(settings, "c1", &container).unwrap();
        let facts = endpoint.facts().clone();
        assert_eq!(facts.ipv4.to_string(), "10.88.0.2");
        assert_eq!(facts.mac, "02:6d:0a:58:00:02");
        let mut links = container.run(Links::open).unwrap().unwrap();
        assert_eq!(links.find("eth0").unwrap().unwrap().mtu_bytes, 1400);

        let listener = outside.run(|| TcpListener::bind((OUTSIDE, 80)).unwrap()).unwrap();
        let server = serve_peer_name(listener);
        let seen = container.run(|| read_all((OUTSIDE, 80).into()).unwrap()).unwrap();
        assert_eq!(seen, HOST.to_string());
        server.join().unwrap();

        // The host itself is reached by the gateway's address, and sees who it is.
        let server = serve_peer_name(TcpListener::bind((facts.gateway, 81)).unwrap());
        let seen = container.run(|| read_all((facts.gateway, 81).into()).unwrap()).unwrap();
        assert_eq!(seen, facts.ipv4.to_string());
        server.join().unwrap();
        endpoint.detach().unwrap();
    });
}

#[test]
fn root_containers_reach_each_other_and_strangers_do_not_reach_them() {
    in_world("isolation", |outside, settings| {
        let (first, second) = (new_namespace(), new_namespace());
        let first_end = attach_bridge(settings, "c1", &first).unwrap();
        let second_end = attach_bridge(settings, "c2", &second).unwrap();
        let address = SocketAddr::from((first_end.facts().ipv4, 80));
        let listener = first.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
        let server = serve_peer_name(listener.try_clone().unwrap());
        let seen = second.run(|| read_all(address).unwrap()).unwrap();
        assert_eq!(seen, second_end.facts().ipv4.to_string());
        server.join().unwrap();

        // A neighbour of the host that routes through it is not let in.
        let mut links = outside.run(Links::open).unwrap().unwrap();
        let downlink = links.find("downlink").unwrap().unwrap();
        links.add_default_route(downlink.index, HOST).unwrap();
        let short = Duration::from_millis(300);
        let error = outside.run(|| TcpStream::connect_timeout(&address, short).unwrap_err()).unwrap();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        // That it was the rule that kept it out: without it the same stranger gets in.
        crate::firewall::remove_rules(&settings.name).unwrap();
        outside.run(|| TcpStream::connect_timeout(&address, WAIT).unwrap()).unwrap();
    });
}

#[test]
fn root_fifty_containers_leave_nothing() {
    in_world("fifty", |_outside, settings| {
        let (mut attaching, mut detaching) = (Duration::ZERO, Duration::ZERO);
        for number in 0..50u8 {
            let container = new_namespace();
            let started = Instant::now();
            let endpoint = attach_bridge(settings, "c", &container).unwrap();
            attaching += started.elapsed();
            assert_eq!(endpoint.facts().ipv4, Ipv4Addr::new(10, 88, 0, 2 + number));
            let started = Instant::now();
            endpoint.detach().unwrap();
            detaching += started.elapsed();
        }
        println!("50 containers: attach {attaching:?}, detach {detaching:?}");
        assert_eq!(link_names(), ["mica0"]);
        let swept = sweep(settings).unwrap();
        assert!(swept.is_bridge_removed && swept.addresses.is_empty() && swept.links.is_empty(), "{swept:?}");
        assert_eq!(link_names(), Vec::<String>::new());
        assert_eq!(std::fs::read_dir(settings.state_dir.join("leases")).unwrap().count(), 0);
        assert!(!sweep(settings).unwrap().is_bridge_removed);
    });
}

#[test]
fn root_parallel_attaches_get_distinct_addresses() {
    in_world("parallel", |_outside, settings| {
        let barrier = Barrier::new(8);
        // Threads begin in the namespace of the thread that starts them.
        let endpoints: Vec<_> = std::thread::scope(|scope| {
            let attach = || {
                let containers: Vec<_> = (0..4).map(|_| new_namespace()).collect();
                barrier.wait();
                let attach = |netns: &NetworkNamespace| attach_bridge(settings, "c", netns).unwrap();
                let endpoints: Vec<_> = containers.iter().map(attach).collect();
                (containers, endpoints)
            };
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(attach)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let mut addresses: Vec<_> =
            endpoints.iter().flat_map(|(_, ends)| ends.iter().map(|end| end.facts().ipv4)).collect();
        addresses.sort_unstable();
        addresses.dedup();
        assert_eq!(addresses.len(), 32);
        assert_eq!(link_names().len(), 33);
        assert_eq!(sweep(settings).unwrap(), crate::Swept::default());
        for (_containers, ends) in endpoints {
            for end in ends {
                end.detach().unwrap();
            }
        }
        assert!(sweep(settings).unwrap().is_bridge_removed);
    });
}

#[test]
fn root_what_a_dead_holder_left_is_swept() {
    in_world("dead holder", |_outside, settings| {
        let (kept, pinned) = (new_namespace(), new_namespace());
        let alive = attach_bridge(settings, "alive", &kept).unwrap();
        let dead = attach_bridge(settings, "dead", &pinned).unwrap();
        let facts = dead.facts().clone();
        drop(dead); // as the kernel does it when a monitor is killed; something keeps the namespace
        let swept = sweep(settings).unwrap();
        assert_eq!((swept.addresses, swept.links), (vec![facts.ipv4], vec![facts.host_link]));
        assert!(!swept.is_bridge_removed);

        // An endpoint handed on to another process by its descriptor stays leased.
        let (facts, lease) = (alive.facts().clone(), alive.lease().try_clone_to_owned().unwrap());
        drop(alive);
        assert_eq!(sweep(settings).unwrap(), crate::Swept::default());
        crate::Endpoint::inherit(settings, facts, lease).unwrap().detach().unwrap();
        assert!(sweep(settings).unwrap().is_bridge_removed);
    });
}

#[test]
fn root_links_of_an_ended_container_vanish_by_themselves() {
    in_world("release", |_outside, settings| {
        for _ in 0..3 {
            let container = new_namespace();
            let endpoint = attach_bridge(settings, "c", &container).unwrap();
            drop(container);
            endpoint.release().unwrap();
        }
        let deadline = Instant::now() + WAIT;
        while link_names() != ["mica0"] && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(link_names(), ["mica0"]);
        // An address whose link is still there is leased again all the same.
        let subnet = Some("10.88.0.0/16".parse().unwrap());
        let settings = BridgeSettings { subnet, ..settings.clone() };
        let pinned = new_namespace();
        let address = attach_bridge(&settings, "c", &pinned).unwrap();
        std::fs::write(settings.state_dir.join("next"), address.facts().ipv4.to_string()).unwrap();
        let expect = address.facts().clone();
        address.release().unwrap();
        let endpoint = attach_bridge(&settings, "c", &new_namespace()).unwrap();
        assert_eq!(*endpoint.facts(), expect);
    });
}

#[test]
fn root_a_failed_attach_leaves_nothing() {
    in_world("failed attach", |_outside, settings| {
        let container = new_namespace();
        let first = attach_bridge(settings, "c1", &container).unwrap();
        let error = attach_bridge(settings, "c1", &container).unwrap_err();
        assert_eq!(error.to_string(), "RTM_NEWLINK `mv0a580003`: File exists (os error 17)");
        assert_eq!(link_names().len(), 2);
        first.detach().unwrap();
        assert!(sweep(settings).unwrap().is_bridge_removed);
    });
}

#[test]
fn root_the_bridge_respects_the_host_and_its_owner() {
    in_world("respects", |_outside, settings| {
        let mut links = Links::open().unwrap();
        let uplink = links.find("uplink").unwrap().unwrap();
        links
            .add_address(uplink.index, "10.88.9.9".parse().unwrap(), "10.88.9.0/24".parse().unwrap())
            .unwrap();
        let asked = BridgeSettings { subnet: Some("10.88.0.0/16".parse().unwrap()), ..settings.clone() };
        let container = new_namespace();
        let error = attach_bridge(&asked, "c", &container).unwrap_err();
        assert!(matches!(error, Error::SubnetTaken { .. }), "{error}");
        let endpoint = attach_bridge(settings, "c", &container).unwrap();
        assert_eq!(endpoint.facts().ipv4.to_string(), "10.89.0.2");
        let error = attach_bridge(&asked, "c", &container).unwrap_err();
        assert_eq!(error.to_string(), "bridge `mica0` uses subnet 10.89.0.0/16, not 10.88.0.0/16");

        let other_dir = tempfile::tempdir().unwrap();
        let other = BridgeSettings::new(other_dir.path());
        let error = attach_bridge(&other, "c", &new_namespace()).unwrap_err();
        assert!(matches!(error, Error::BridgeIsOfOther { .. }), "{error}");
        sweep(&other).unwrap();
        assert_eq!(link_names().len(), 2);
        let taken = BridgeSettings { name: "uplink".to_owned(), ..BridgeSettings::new(other_dir.path()) };
        let error = attach_bridge(&taken, "c", &new_namespace()).unwrap_err();
        assert!(matches!(error, Error::BridgeIsOfOther { .. }), "{error}");
    });
}

#[test]
fn root_the_rules_read_as_documented() {
    in_world("rules", |_outside, settings| {
        let _endpoint = attach_bridge(settings, "c", &new_namespace()).unwrap();
        let _second = attach_bridge(settings, "c", &new_namespace()).unwrap();
        let nft = |arguments: &[&str]| std::process::Command::new("nft").args(arguments).output();
        let Ok(output) = nft(&["list", "ruleset"]) else {
            println!("skipped: nft is not installed");
            return;
        };
        let expect = "table ip mica0 {
\tchain postrouting {
\t\ttype nat hook postrouting priority srcnat; policy accept;
\t\tip saddr 10.88.0.0/16 oifname != \"mica0\" masquerade comment \"mica 1 10.88.0.0/16\"
\t}

\tchain forward {
\t\ttype filter hook forward priority filter; policy accept;
\t\tiifname \"mica0\" accept comment \"mica 1 10.88.0.0/16\"
\t\toifname \"mica0\" ct state established,related accept comment \"mica 1 10.88.0.0/16\"
\t\toifname \"mica0\" drop comment \"mica 1 10.88.0.0/16\"
\t}
}
";
        assert_eq!(String::from_utf8_lossy(&output.stdout), expect);
        // Whatever an administrator does to them, the next container finds them as they have to be.
        for change in [
            &["flush", "ruleset"][..],
            &["flush", "chain", "ip", "mica0", "forward"],
            &["add", "rule", "ip", "mica0", "forward", "accept"],
        ] {
            assert!(nft(change).unwrap().status.success(), "{change:?}");
            attach_bridge(settings, "c", &new_namespace()).unwrap();
            let output = nft(&["list", "ruleset"]).unwrap();
            assert_eq!(String::from_utf8_lossy(&output.stdout), expect, "{change:?}");
        }
    });
}

/// Sends `length` bytes both ways through `address`, ends its own side first, and reads to the end.
fn exchange(address: SocketAddr, length: usize) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect_timeout(&address, WAIT)?;
    stream.set_read_timeout(Some(WAIT))?;
    let mut writer = stream.try_clone()?;
    let sender = std::thread::spawn(move || {
        let bytes: Vec<u8> = (0..length).map(|at| (at % 251) as u8).collect();
        writer.write_all(&bytes)?;
        writer.shutdown(Shutdown::Write)
    });
    let mut received = Vec::new();
    stream.read_to_end(&mut received)?;
    sender.join().unwrap()?;
    Ok(received)
}

/// Sends back what comes; answers only after the other side has ended when `is_late`.
fn echo(listener: TcpListener, connections: usize, is_late: bool) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let threads: Vec<_> = (0..connections)
            .map(|_| {
                let (mut stream, _) = listener.accept().unwrap();
                std::thread::spawn(move || {
                    if is_late {
                        let mut all = Vec::new();
                        stream.read_to_end(&mut all).unwrap();
                        stream.write_all(&all).unwrap();
                    } else {
                        std::io::copy(&mut stream.try_clone().unwrap(), &mut stream).unwrap();
                    }
                })
            })
            .collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    })
}

#[test]
fn root_published_streams_reach_the_container() {
    in_world("publish tcp", |outside, settings| {
        let container = new_namespace();
        let endpoint = attach_bridge(settings, "c", &container).unwrap();
        let ports = [parse_publish("8080:80").unwrap(), parse_publish("127.0.0.1::81").unwrap()].concat();
        let publisher = publish(&ports).unwrap();
        let chosen = publisher.bound().iter().find(|bound| bound.container_port == 81).unwrap().host_port;
        let running = publisher.serve_on_thread(&container, Some(endpoint.facts().ipv4)).unwrap();

        // Nobody listens yet: the client is told so.
        assert!(exchange(([127, 0, 0, 1], 8080).into(), 10).is_err());

        let everywhere = container.run(|| TcpListener::bind("0.0.0.0:80").unwrap()).unwrap();
        let local = container.run(|| TcpListener::bind("127.0.0.1:81").unwrap()).unwrap();
        let servers = [echo(everywhere, 22, false), echo(local, 2, true)];
        let expect: Vec<u8> = (0..3_000_000).map(|at| (at % 251) as u8).collect();
        assert_eq!(exchange(([127, 0, 0, 1], 8080).into(), expect.len()).unwrap(), expect);
        let seen = outside.run(|| exchange((HOST, 8080).into(), 1000).unwrap()).unwrap();
        assert_eq!(seen, expect[..1000]);
        std::thread::scope(|scope| {
            for number in 0..20 {
                let expect = &expect;
                scope.spawn(move || {
                    let length = 1 + number * 40_000;
                    assert_eq!(exchange(([127, 0, 0, 1], 8080).into(), length).unwrap(), expect[..length]);
                });
            }
        });
        for length in [0, 700_000] {
            assert_eq!(exchange(([127, 0, 0, 1], chosen).into(), length).unwrap(), expect[..length]);
        }
        servers.into_iter().for_each(|server| server.join().unwrap());

        let error = publish(&ports).unwrap_err();
        assert_eq!(error.to_string(), "port is already allocated: 0.0.0.0 port 8080/tcp");
        running.stop().unwrap();
        drop(publish(&ports).unwrap());
    });
}

#[test]
fn root_published_datagrams_reach_the_container() {
    in_world("publish udp", |_outside, settings| {
        let container = new_namespace();
        let endpoint = attach_bridge(settings, "c", &container).unwrap();
        let ports = [parse_publish("5353:53/udp").unwrap(), parse_publish("5354:54/udp").unwrap()].concat();
        let publisher = publish(&ports).unwrap();
        let _running = publisher.serve_on_thread(&container, Some(endpoint.facts().ipv4)).unwrap();
        for (bind, host_port, clients) in [("0.0.0.0:53", 5353, 5), ("127.0.0.1:54", 5354, 1)] {
            let server = container.run(|| UdpSocket::bind(bind).unwrap()).unwrap();
            server.set_read_timeout(Some(WAIT)).unwrap();
            let server = std::thread::spawn(move || {
                let mut buffer = [0; 2000];
                for _ in 0..clients * 3 {
                    let (length, peer) = server.recv_from(&mut buffer).unwrap();
                    server.send_to(&buffer[..length], peer).unwrap();
                }
            });
            let clients: Vec<_> = (0..clients).map(|_| UdpSocket::bind("127.0.0.1:0").unwrap()).collect();
            for round in 0..3u8 {
                for (number, client) in clients.iter().enumerate() {
                    client.set_read_timeout(Some(WAIT)).unwrap();
                    client.send_to(&[round, number as u8], ("127.0.0.1", host_port)).unwrap();
                }
                for (number, client) in clients.iter().enumerate() {
                    let mut buffer = [0; 100];
                    let (length, _) = client.recv_from(&mut buffer).unwrap();
                    assert_eq!(buffer[..length], [round, number as u8]);
                }
            }
            server.join().unwrap();
        }
    });
}

#[test]
fn root_ports_are_chosen_and_refused() {
    in_world("choose", |_outside, _settings| {
        let port = parse_publish("7000-7002:80").unwrap();
        let publishers: Vec<_> = (0..3).map(|_| publish(&port).unwrap()).collect();
        let chosen: Vec<_> = publishers.iter().map(|publisher| publisher.bound()[0].host_port).collect();
        assert_eq!(chosen, [7000, 7001, 7002]);
        assert!(matches!(publish(&port).unwrap_err(), Error::PortAllocated { port: 7000, .. }));
        let unspecified: Vec<IpAddr> = publishers[0].bound().iter().map(|bound| bound.host_ip).collect();
        assert!(unspecified.iter().all(|ip| ip.is_unspecified()));
        let error = publish(&parse_publish("192.0.2.99:80:80").unwrap()).unwrap_err();
        assert_eq!(error.to_string(), "cannot publish 192.0.2.99 port 80/tcp");
        let any = publish(&parse_publish("80-84/udp").unwrap()).unwrap();
        assert!(any.bound().iter().all(|bound| bound.host_port > 0));
    });
}

/// A test that fails leaves no program behind either.
struct RootlessSweeper<'a>(&'a RootlessSettings);

impl Drop for RootlessSweeper<'_> {
    fn drop(&mut self) {
        let _ = sweep_rootless(self.0);
    }
}

#[test]
fn root_pasta_connects_and_is_ended_with_its_holder() {
    in_world("pasta", |outside, settings| {
        let search_path = std::env::var("PATH").unwrap_or_default();
        let state_dir = settings.state_dir.clone();
        let settings = RootlessSettings { state_dir, program: None, search_path };
        let _sweeper = RootlessSweeper(&settings);
        let container = new_namespace();
        let endpoint = match attach_rootless(&settings, "c1", &container) {
            Err(Error::RootlessUnavailable(reason)) => {
                println!("skipped: no rootless network here: {reason}");
                return;
            }
            endpoint => endpoint.unwrap(),
        };
        assert_eq!(endpoint.ipv4, Some(HOST));
        let listener = outside.run(|| TcpListener::bind((OUTSIDE, 80)).unwrap()).unwrap();
        let server = serve_peer_name(listener);
        let seen = container.run(|| read_all((OUTSIDE, 80).into()).unwrap()).unwrap();
        assert_eq!(seen, HOST.to_string());
        server.join().unwrap();

        let publisher = publish(&parse_publish("127.0.0.1:8080:80").unwrap()).unwrap();
        let running = publisher.serve_on_thread(&container, endpoint.ipv4).unwrap();
        let server = echo(container.run(|| TcpListener::bind("127.0.0.1:80").unwrap()).unwrap(), 1, true);
        assert_eq!(exchange(([127, 0, 0, 1], 8080).into(), 100_000).unwrap().len(), 100_000);
        server.join().unwrap();
        running.stop().unwrap();

        let second = attach_rootless(&settings, "c2", &new_namespace()).unwrap();
        assert_eq!(sweep_rootless(&settings).unwrap(), 0);
        let pid = std::fs::read_to_string(settings.state_dir.join("rootless/c1.pid")).unwrap();
        drop(endpoint); // as if its holder was killed
        assert_eq!(sweep_rootless(&settings).unwrap(), 1);
        assert!(!Path::new("/proc").join(pid.trim()).join("exe").exists());
        second.detach().unwrap();
        assert_eq!(std::fs::read_dir(settings.state_dir.join("rootless")).unwrap().count(), 0);
    });
}

#[test]
fn state_directories_need_not_exist_to_be_swept() {
    let settings = BridgeSettings::new(Path::new("/nonexistent/mica-network-test"));
    assert_eq!(sweep(&settings).unwrap(), crate::Swept::default());
}
