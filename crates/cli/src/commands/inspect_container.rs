//! What `mica inspect` shows of a container: docker's fields, as far as they are known here.

use jiff::Timestamp;
use mica_container::{
    ContainerError, MadeContainer, MountSource, Settings, find_container, read_bound_ports,
};
use mica_store::{ContainerState, Store, StoreError, tree_size_bytes};
use serde_json::{Map, Value, json};

use crate::commands::ps::state_name;
use crate::commands::run::explain;
use crate::error::CliError;

/// What docker writes for a time that never was.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// The container of that name or ID, if there is one.
pub(crate) fn find(store: &Store, name: &str, with_size: bool) -> Result<Option<Value>, CliError> {
    let made = match find_container(store, name) {
        Ok(made) => made,
        // What cannot be a name of a container may be one of something else.
        Err(
            ContainerError::ContainerMissing { .. }
            | ContainerError::Store(StoreError::ContainerMissing(_) | StoreError::InvalidName { .. }),
        ) => return Ok(None),
        Err(error) => return Err(explain(error).code(1)),
    };
    let MadeContainer { container, settings, .. } = &made;
    let record = &container.record;
    // The image may have been removed by force.
    let image_size_bytes = || store.image(&record.image).ok().flatten().map_or(0, |image| image.size_bytes);
    let image_entrypoint = mica_container::find_image(store, &record.image.to_string())
        .ok()
        .and_then(|image| image.config.config.entrypoint)
        .unwrap_or_default();
    let (path, arguments) = settings.argv.split_first().map_or(("", &[][..]), |(path, rest)| (path, rest));
    let (entrypoint, command) = split_command(&settings.argv, &image_entrypoint);
    let network = format!("{:?}", settings.network).to_lowercase();
    let mut value = json!({
        "Id": record.id,
        "Created": time(Some(record.created_unix_ns)),
        "Path": path,
        "Args": arguments,
        "State": state(&record.state),
        "Image": record.image.to_string(),
        "Name": format!("/{}", record.name),
        "Driver": "overlay2",
        "HostConfig": {
            "AutoRemove": record.remove_on_exit,
            "Binds": binds(settings),
            "Init": settings.init,
            "NetworkMode": network,
            "PortBindings": port_bindings(settings),
            "Privileged": settings.privileged,
            "ReadonlyRootfs": settings.read_only,
            "ShmSize": settings.shm_size_bytes,
        },
        "Mounts": mounts(store, settings)?,
        "Config": {
            "Hostname": settings.hostname,
            "Domainname": settings.domainname,
            "User": settings.user,
            "Tty": settings.tty,
            "OpenStdin": settings.stdin_open,
            "ExposedPorts": exposed_ports(settings),
            "Env": settings.env,
            "Cmd": command,
            "Entrypoint": entrypoint,
            "Image": record.image_name,
            "WorkingDir": settings.cwd,
            "Labels": settings.labels,
            "StopTimeout": settings.stop_timeout_s,
        },
        "NetworkSettings": {
            "IPAddress": ip_address(&record.state, &network),
            "Ports": ports(&made),
        },
    });
    if with_size && let Some(object) = value.as_object_mut() {
        let own_bytes = tree_size_bytes(&container.path().join("upper"))?;
        object.insert("SizeRw".to_owned(), json!(own_bytes));
        object.insert("SizeRootFs".to_owned(), json!(own_bytes.saturating_add(image_size_bytes())));
    }
    Ok(Some(value))
}

fn time(unix_ns: Option<i64>) -> String {
    unix_ns
        .and_then(|unix_ns| Timestamp::from_nanosecond(i128::from(unix_ns)).ok())
        .map_or_else(|| NEVER.to_owned(), |time| time.to_string())
}

fn state(state: &ContainerState) -> Value {
    let (mut pid, mut code, mut started, mut finished, mut out_of_memory) = (0, 0, None, None, false);
    match state {
        ContainerState::Created => {}
        ContainerState::Running { pid: own, started_unix_ns }
        | ContainerState::Paused { pid: own, started_unix_ns } => {
            (pid, started) = (*own, Some(*started_unix_ns));
        }
        ContainerState::Exited { code: own, started_unix_ns, finished_unix_ns, is_out_of_memory } => {
            (code, started, finished) = (*own, *started_unix_ns, *finished_unix_ns);
            out_of_memory = *is_out_of_memory;
        }
    }
    json!({
        "Status": state_name(state),
        "Running": state.is_live(),
        "Paused": matches!(state, ContainerState::Paused { .. }),
        "Restarting": false,
        "OOMKilled": out_of_memory,
        "Dead": false,
        "Pid": pid,
        "ExitCode": code,
        "Error": "",
        "StartedAt": time(started),
        "FinishedAt": time(finished),
    })
}

/// Entrypoint and command. They are stored as one; where the command line begins with the image's entrypoint, that is
/// the entrypoint.
fn split_command(argv: &[String], image_entrypoint: &[String]) -> (Value, Value) {
    let or_null = |words: &[String]| if words.is_empty() { Value::Null } else { json!(words) };
    match argv.strip_prefix(image_entrypoint) {
        Some(command) => (or_null(image_entrypoint), or_null(command)),
        None => (Value::Null, or_null(argv)),
    }
}

fn binds(settings: &Settings) -> Value {
    let binds: Vec<String> = settings
        .mounts
        .iter()
        .filter_map(|mount| {
            let source = match &mount.source {
                MountSource::Bind { path, .. } => path,
                MountSource::Volume { name, anonymous: false, .. } => name,
                _ => return None,
            };
            let options = if mount.read_only { ":ro" } else { "" };
            Some(format!("{source}:{}{options}", mount.target))
        })
        .collect();
    if binds.is_empty() { Value::Null } else { json!(binds) }
}

fn mounts(store: &Store, settings: &Settings) -> Result<Vec<Value>, CliError> {
    let mut mounts = Vec::new();
    for mount in &settings.mounts {
        let mut value = json!({ "Destination": mount.target, "Mode": "", "RW": !mount.read_only });
        let own = match &mount.source {
            MountSource::Bind { path, .. } => {
                json!({ "Type": "bind", "Source": path, "Propagation": "rprivate" })
            }
            MountSource::Volume { name, .. } => {
                let source = store.volume(name)?.map(|volume| volume.data_path).unwrap_or_default();
                json!({ "Type": "volume", "Name": name, "Source": source, "Driver": "local", "Propagation": "" })
            }
            MountSource::Tmpfs { .. } => json!({ "Type": "tmpfs", "Source": "", "Propagation": "" }),
        };
        if let (Value::Object(value), Value::Object(own)) = (&mut value, own) {
            value.extend(own);
        }
        mounts.push(value);
    }
    Ok(mounts)
}

/// Adds a list's item, or the list.
fn push(map: &mut Map<String, Value>, key: String, item: Value) {
    match map.get_mut(&key) {
        Some(Value::Array(items)) => items.push(item),
        _ => {
            map.insert(key, Value::Array(vec![item]));
        }
    }
}

/// What was asked for.
fn port_bindings(settings: &Settings) -> Value {
    let mut bindings = Map::new();
    for port in &settings.ports {
        let host_port = match (port.host_port.first, port.host_port.last) {
            (0, _) => String::new(),
            (first, last) if first == last => first.to_string(),
            (first, last) => format!("{first}-{last}"),
        };
        let host_ip = port.host_ip.map_or(String::new(), |ip| ip.to_string());
        let binding = json!({ "HostIp": host_ip, "HostPort": host_port });
        push(&mut bindings, format!("{}/{}", port.container_port, port.protocol), binding);
    }
    Value::Object(bindings)
}

fn exposed_ports(settings: &Settings) -> Value {
    let published = settings.ports.iter().map(|port| format!("{}/{}", port.container_port, port.protocol));
    let ports: Map<String, Value> =
        settings.exposed.iter().cloned().chain(published).map(|port| (port, json!({}))).collect();
    if ports.is_empty() { Value::Null } else { Value::Object(ports) }
}

/// What is bound now; ports that are only exposed have nothing.
fn ports(made: &MadeContainer) -> Value {
    let mut ports = Map::new();
    if !made.container.record.state.is_live() {
        return Value::Object(ports);
    }
    for exposed in &made.settings.exposed {
        ports.insert(exposed.clone(), Value::Null);
    }
    for bound in read_bound_ports(&made.container) {
        let binding = json!({ "HostIp": bound.host_ip.to_string(), "HostPort": bound.host_port.to_string() });
        push(&mut ports, format!("{}/{}", bound.container_port, bound.protocol), binding);
    }
    Value::Object(ports)
}

/// The container's address, from the kernel's routes of its network namespace; empty if it has none of its own.
fn ip_address(state: &ContainerState, network: &str) -> String {
    let (ContainerState::Running { pid, .. } | ContainerState::Paused { pid, .. }) = state else {
        return String::new();
    };
    if network != "bridge" {
        return String::new();
    }
    let same = |a: &str, b: &str| match (std::fs::read_link(a), std::fs::read_link(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => false,
    };
    // A bridge that could not be had became the host's network.
    if same("/proc/self/ns/net", &format!("/proc/{pid}/ns/net")) {
        return String::new();
    }
    let routes = std::fs::read_to_string(format!("/proc/{pid}/net/fib_trie")).unwrap_or_default();
    local_address(&routes).unwrap_or_default()
}

/// The first address in `fib_trie` that is the namespace's own and not loopback.
fn local_address(routes: &str) -> Option<String> {
    let mut address = None;
    for line in routes.lines() {
        if let Some((_, text)) = line.split_once("|-- ") {
            address = text.trim().parse::<std::net::Ipv4Addr>().ok();
        } else if line.trim() == "/32 host LOCAL"
            && let Some(own) = address.filter(|own| !own.is_loopback())
        {
            return Some(own.to_string());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entrypoints_are_found_again() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let check = |argv: &str, image: &str, expect: Value| {
            let (entrypoint, command) = split_command(&words(argv), &words(image));
            assert_eq!(json!([entrypoint, command]), expect, "{argv} on {image}");
        };
        check("sh -c x", "", json!([null, ["sh", "-c", "x"]]));
        check("/entry sh", "/entry", json!([["/entry"], ["sh"]]));
        check("/entry", "/entry", json!([["/entry"], null]));
        check("sh", "/entry", json!([null, ["sh"]]));
    }

    #[test]
    fn addresses_are_read_from_routes() {
        let check = |routes: &str, expect: Option<&str>| {
            assert_eq!(local_address(routes).as_deref(), expect, "{routes}");
        };
        check("", None);
        check("Local:\n     |-- 127.0.0.1\n        /32 host LOCAL\n", None);
        check(
            "  |-- 10.88.0.0\n   /24 link UNICAST\n  |-- 10.88.0.2\n   /32 host LOCAL\n",
            Some("10.88.0.2"),
        );
        check("  |-- banana\n   /32 host LOCAL\n", None);
    }

    #[test]
    fn states_have_docker_s_fields() {
        let created = state(&ContainerState::Created);
        assert_eq!((&created["Running"], &created["StartedAt"]), (&json!(false), &json!(NEVER)));
        let exited = state(&ContainerState::Exited {
            code: 137,
            started_unix_ns: Some(1_000_000_001),
            finished_unix_ns: None,
            is_out_of_memory: true,
        });
        assert_eq!(
            [&exited["ExitCode"], &exited["OOMKilled"], &exited["StartedAt"], &exited["FinishedAt"]],
            [&json!(137), &json!(true), &json!("1970-01-01T00:00:01.000000001Z"), &json!(NEVER)]
        );
    }
}
