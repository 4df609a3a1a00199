//! `-p` and `--add-host` against what docker's own client made of them.

use std::path::PathBuf;

use mica_network::{AddHost, HostAddress, PublishedPort, parse_add_host, parse_publish};
use serde_json::Value;

fn vectors() -> Option<Value> {
    let corpus = match std::env::var_os("MICA_CORPUS") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
    };
    let Ok(bytes) = std::fs::read(corpus.join("vectors/run-flags.json")) else {
        println!("skipped: corpus is absent");
        return None;
    };
    Some(serde_json::from_slice(&bytes).unwrap())
}

/// The values that follow `flag`.
fn values_of<'a>(arguments: &'a [Value], flag: &str) -> Vec<&'a str> {
    let pairs = arguments.windows(2).filter(|pair| pair[0] == flag);
    pairs.map(|pair| pair[1].as_str().unwrap()).collect()
}

fn show_port(port: &PublishedPort) -> String {
    let (first, last) = (port.host_port.first, port.host_port.last);
    let host = if first == last { first.to_string() } else { format!("{first}-{last}") };
    let ip = port.host_ip.map(|ip| ip.to_string()).unwrap_or_default();
    format!("{ip}|{host}|{}/{}", port.container_port, port.protocol)
}

/// docker leaves a port that was not given empty, where we say that any will do.
fn show_bindings(bindings: &Value) -> Vec<String> {
    let mut shown = Vec::new();
    for (container, hosts) in bindings.as_object().into_iter().flatten() {
        for host in hosts.as_array().into_iter().flatten() {
            let port = host["HostPort"].as_str().filter(|port| !port.is_empty()).unwrap_or("0");
            shown.push(format!("{}|{port}|{container}", host["HostIp"].as_str().unwrap()));
        }
    }
    shown.sort();
    shown
}

#[test]
fn published_ports_are_read_as_docker_reads_them() {
    let Some(vectors) = vectors() else { return };
    let mut checked = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let specs = values_of(case["args"].as_array().unwrap(), "-p");
        if specs.is_empty() {
            continue;
        }
        let ports: Result<Vec<_>, _> = specs.iter().map(|spec| parse_publish(spec)).collect();
        let found = ports.map(|ports| {
            let mut shown: Vec<_> = ports.concat().iter().map(show_port).collect();
            shown.sort();
            shown
        });
        if case.get("error").is_some() {
            assert!(found.is_err(), "{specs:?}");
        } else {
            let expect = show_bindings(&case["create_diff"]["HostConfig"]["PortBindings"]);
            assert_eq!(found.unwrap(), expect, "{specs:?}");
        }
        checked += 1;
    }
    assert!(checked > 5);
}

#[test]
fn added_hosts_are_read_as_docker_reads_them() {
    let Some(vectors) = vectors() else { return };
    let mut checked = 0;
    for case in vectors["cases"].as_array().unwrap() {
        let specs = values_of(case["args"].as_array().unwrap(), "--add-host");
        if specs.is_empty() {
            continue;
        }
        let hosts: Result<Vec<_>, _> = specs.iter().map(|spec| parse_add_host(spec)).collect();
        if case.get("error").is_some() {
            assert!(hosts.is_err(), "{specs:?}");
        } else {
            let show = |AddHost { name, address }: &AddHost| match address {
                HostAddress::Ip(ip) => format!("{name}:{ip}"),
                HostAddress::HostGateway => format!("{name}:host-gateway"),
            };
            let found: Vec<Value> = hosts.unwrap().iter().map(|host| show(host).into()).collect();
            assert_eq!(Value::from(found), case["create_diff"]["HostConfig"]["ExtraHosts"], "{specs:?}");
        }
        checked += 1;
    }
    assert!(checked > 0);
}
