//! What a container is to be: the user's options and the image's config, made into one document that is stored with
//! the container. Everything that a later `start` needs is in it.

use std::collections::BTreeMap;

use mica_network::{
    AddHost, BoundPort, DnsSettings, NetworkMode, PublishedPort, parse_add_host, parse_publish,
};
use mica_oci::ContainerConfig;
use mica_runtime::CapabilitySet;
use mica_runtime::spec::{CgroupSpec, Device, Rlimit};
use serde::{Deserialize, Serialize};

use crate::error::{ContainerError, Result};
use crate::volume_mount::{VolumeMount, parse_mount, parse_tmpfs, parse_volume};
use crate::{limit, process};

/// What the user gives to `run` and `create`, as typed.
#[derive(Clone, Debug, Default)]
#[allow(missing_docs)] // named as docker's flags
pub struct RunOptions {
    pub name: Option<String>,
    pub arguments: Vec<String>,
    pub entrypoint: Option<String>,
    pub env: Vec<String>,
    pub labels: Vec<String>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub hostname: Option<String>,
    pub domainname: Option<String>,
    pub tty: bool,
    pub interactive: bool,
    pub remove: bool,
    /// Started at once: `run`, not `create`.
    pub starts: bool,
    pub read_only: bool,
    pub init: bool,
    pub privileged: bool,
    pub cap_add: Vec<String>,
    pub cap_drop: Vec<String>,
    pub security_opt: Vec<String>,
    pub volumes: Vec<String>,
    pub mounts: Vec<String>,
    pub tmpfs: Vec<String>,
    pub devices: Vec<String>,
    pub sysctls: Vec<String>,
    pub ulimits: Vec<String>,
    pub shm_size: Option<String>,
    pub memory: Option<String>,
    pub memory_swap: Option<String>,
    pub cpus: Option<String>,
    pub pids_limit: Option<i64>,
    pub network: Option<String>,
    pub publish: Vec<String>,
    pub publish_all: bool,
    pub expose: Vec<String>,
    pub add_hosts: Vec<String>,
    pub dns: Vec<String>,
    pub dns_search: Vec<String>,
    pub dns_options: Vec<String>,
    pub stop_signal: Option<String>,
    pub stop_timeout_s: Option<i64>,
    pub pid_host: bool,
    pub ipc_host: bool,
    pub uts_host: bool,
    pub log: bool,
}

/// Everything about a container that was decided when it was made. Stored as `config.json`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Settings {
    /// Version of this document.
    pub version: u32,
    /// Command and arguments.
    pub argv: Vec<String>,
    /// Environment.
    pub env: Vec<String>,
    /// Working directory.
    pub cwd: String,
    /// `user[:group]`; empty is root.
    pub user: String,
    /// Notes.
    pub labels: BTreeMap<String, String>,
    /// Host name.
    pub hostname: String,
    /// Its domain.
    pub domainname: String,
    /// Has a terminal.
    pub tty: bool,
    /// Its standard input is kept open.
    pub stdin_open: bool,
    /// Its output is kept.
    pub log: bool,
    /// Its root filesystem is read-only.
    pub read_only: bool,
    /// Process 1 is a small init.
    pub init: bool,
    /// Everything is allowed.
    pub privileged: bool,
    /// Capabilities, as bits.
    pub capabilities: u64,
    /// Without a filter of system calls.
    pub seccomp_unconfined: bool,
    /// Setuid programs gain nothing.
    pub no_new_privileges: bool,
    /// What is mounted in it.
    pub mounts: Vec<VolumeMount>,
    /// Devices of the host.
    pub devices: Vec<Device>,
    /// Kernel settings.
    pub sysctls: Vec<(String, String)>,
    /// Limits of its processes.
    pub ulimits: Vec<Rlimit>,
    /// Limits of all its processes together.
    pub cgroup: Option<CgroupSpec>,
    /// Size of /dev/shm.
    pub shm_size_bytes: u64,
    /// Its network.
    pub network: NetworkMode,
    /// Ports that the host passes on.
    pub ports: Vec<PublishedPort>,
    /// Ports that are only named: `80/tcp`.
    pub exposed: Vec<String>,
    /// Names for its /etc/hosts.
    pub add_hosts: Vec<AddHost>,
    /// Changes of its /etc/resolv.conf.
    pub dns: DnsSettings,
    /// The signal that asks it to end.
    pub stop_signal: i32,
    /// Seconds between asking and ending.
    pub stop_timeout_s: i64,
    /// The host's processes are visible.
    pub pid_host: bool,
    /// The host's System V objects are.
    pub ipc_host: bool,
    /// The host's name is its own.
    pub uts_host: bool,
}

/// Version of [`Settings`] as stored.
pub const SETTINGS_VERSION: u32 = 1;

/// docker's patience.
const STOP_TIMEOUT_S: i64 = 10;

fn wrong(what: &'static str, value: &str, reason: &str) -> ContainerError {
    ContainerError::OptionInvalid { what, value: value.to_owned(), reason: reason.to_owned() }
}

impl Settings {
    /// Decides everything. `host_env` answers `-e NAME`.
    pub fn decide(
        id: &str,
        image: &ContainerConfig,
        options: &RunOptions,
        host_env: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
        let argv = process::command(
            &list(&image.entrypoint),
            &list(&image.cmd),
            options.entrypoint.as_deref(),
            &options.arguments,
        )?;
        for variable in &options.env {
            process::check_variable(variable)?;
        }
        let short_id: String = id.chars().take(12).collect();
        let network = parse_network(options.network.as_deref())?;
        let hostname = match (&options.hostname, network) {
            (Some(hostname), _) => hostname.clone(),
            (None, NetworkMode::Host) => host_name(),
            _ => short_id,
        };
        let mut labels = image.labels.clone();
        for label in &options.labels {
            let (name, value) = label.split_once('=').unwrap_or((label, ""));
            if name.is_empty() {
                return Err(wrong("label", label, "empty name"));
            }
            labels.insert(name.to_owned(), value.to_owned());
        }
        let (seccomp_unconfined, no_new_privileges) = parse_security(&options.security_opt)?;
        let (ports, exposed) = ports(image, options)?;
        let cwd = options.workdir.clone().unwrap_or_else(|| image.working_dir.clone());
        if !cwd.is_empty() && !cwd.starts_with('/') {
            return Err(wrong("working directory", &cwd, "it must be absolute"));
        }
        let stop_signal = match options.stop_signal.as_deref().unwrap_or(&image.stop_signal) {
            "" => libc_sigterm(),
            signal => limit::parse_signal(signal)?,
        };
        Ok(Self {
            version: SETTINGS_VERSION,
            env: process::environment(&image.env, &options.env, &hostname, options.tty, host_env),
            argv,
            cwd: if cwd.is_empty() { "/".to_owned() } else { cwd },
            user: options.user.clone().unwrap_or_else(|| image.user.clone()),
            labels,
            hostname,
            domainname: options.domainname.clone().unwrap_or_default(),
            tty: options.tty,
            stdin_open: options.interactive,
            log: options.log,
            read_only: options.read_only,
            init: options.init,
            privileged: options.privileged,
            capabilities: capabilities(options)?.0,
            seccomp_unconfined,
            no_new_privileges,
            mounts: mounts(image, options)?,
            devices: options.devices.iter().map(|device| parse_device(device)).collect::<Result<_>>()?,
            sysctls: options.sysctls.iter().map(|sysctl| parse_sysctl(sysctl)).collect::<Result<_>>()?,
            ulimits: options
                .ulimits
                .iter()
                .map(|ulimit| limit::parse_ulimit(ulimit))
                .collect::<Result<_>>()?,
            cgroup: cgroup(id, options)?,
            shm_size_bytes: match options.shm_size.as_deref().map(limit::parse_size_bytes).transpose()? {
                None | Some(0) => mica_runtime::spec::SHM_SIZE_BYTES,
                Some(size_bytes) => size_bytes,
            },
            network,
            ports,
            exposed,
            add_hosts: options
                .add_hosts
                .iter()
                .map(|host| parse_add_host(host))
                .collect::<std::result::Result<_, _>>()?,
            dns: DnsSettings {
                servers: options
                    .dns
                    .iter()
                    .map(|text| text.parse().map_err(|_| wrong("DNS server", text, "not an IP address")))
                    .collect::<Result<_>>()?,
                search: options.dns_search.clone(),
                options: options.dns_options.clone(),
            },
            stop_signal,
            stop_timeout_s: options.stop_timeout_s.or(image.stop_timeout).unwrap_or(STOP_TIMEOUT_S),
            pid_host: options.pid_host,
            ipc_host: options.ipc_host,
            uts_host: options.uts_host,
        })
    }

    /// Reads the stored document.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        serde_json::from_slice(bytes).map_err(|error| ContainerError::Document {
            what: "settings of the container".to_owned(),
            reason: error.to_string(),
        })
    }

    /// The document as stored.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

fn libc_sigterm() -> i32 {
    rustix::process::Signal::TERM.as_raw()
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn parse_network(text: Option<&str>) -> Result<NetworkMode> {
    match text.unwrap_or("default") {
        "default" | "bridge" => Ok(NetworkMode::Bridge),
        "host" => Ok(NetworkMode::Host),
        "none" => Ok(NetworkMode::None),
        other => Err(wrong("network", other, "only `bridge`, `host` and `none` are supported")),
    }
}

fn parse_security(options: &[String]) -> Result<(bool, bool)> {
    let (mut unconfined, mut no_new_privileges) = (false, false);
    for option in options {
        match option.replacen(':', "=", 1).as_str() {
            "seccomp=unconfined" => unconfined = true,
            "seccomp=builtin" => unconfined = false,
            "no-new-privileges" | "no-new-privileges=true" => no_new_privileges = true,
            "no-new-privileges=false" => no_new_privileges = false,
            // Neither is ever set up.
            "apparmor=unconfined" | "label=disable" => {}
            _ => return Err(wrong("--security-opt", option, "not supported")),
        }
    }
    Ok((unconfined, no_new_privileges))
}

fn capabilities(options: &RunOptions) -> Result<CapabilitySet> {
    let parse = |name: &String| match name.to_ascii_uppercase().as_str() {
        "ALL" => Ok(CapabilitySet::ALL),
        _ => CapabilitySet::parse_name(name).ok_or_else(|| wrong("capability", name, "not known")),
    };
    let is_all = |names: &[String]| names.iter().any(|name| name.eq_ignore_ascii_case("all"));
    let mut set = match (is_all(&options.cap_add), is_all(&options.cap_drop)) {
        (true, _) => CapabilitySet::ALL,
        (false, true) => CapabilitySet::NONE,
        _ => CapabilitySet::DEFAULT,
    };
    for name in options.cap_drop.iter().filter(|name| !name.eq_ignore_ascii_case("all")) {
        set = set.without(parse(name)?);
    }
    for name in &options.cap_add {
        set = set.with(parse(name)?);
    }
    if is_all(&options.cap_add) {
        for name in options.cap_drop.iter().filter(|name| !name.eq_ignore_ascii_case("all")) {
            set = set.without(parse(name)?);
        }
    }
    Ok(set)
}

fn mounts(image: &ContainerConfig, options: &RunOptions) -> Result<Vec<VolumeMount>> {
    let mut mounts = Vec::<VolumeMount>::new();
    let given = options
        .volumes
        .iter()
        .map(|text| parse_volume(text))
        .chain(options.mounts.iter().map(|text| parse_mount(text)))
        .chain(options.tmpfs.iter().map(|text| parse_tmpfs(text)));
    for mount in given {
        let mount = mount?;
        if mounts.iter().any(|other| other.target == mount.target) {
            return Err(ContainerError::DuplicateMount { target: mount.target });
        }
        mounts.push(mount);
    }
    for target in image.volumes.keys() {
        let Ok(mount) = parse_volume(target) else { continue };
        if !mounts.iter().any(|other| other.target == mount.target) {
            mounts.push(mount);
        }
    }
    // What is mounted on must be there before what is mounted in it.
    mounts.sort_by_key(|mount| mount.target.matches('/').count());
    Ok(mounts)
}

fn ports(image: &ContainerConfig, options: &RunOptions) -> Result<(Vec<PublishedPort>, Vec<String>)> {
    let mut ports = Vec::new();
    for text in &options.publish {
        ports.extend(parse_publish(text)?);
    }
    let mut exposed: Vec<String> = image.exposed_ports.keys().cloned().collect();
    exposed.extend(options.expose.iter().cloned());
    let mut all = Vec::new();
    for text in &exposed {
        if text.contains(':') {
            return Err(wrong("--expose", text, "it names a port of the container only"));
        }
        for port in parse_publish(text)? {
            if options.publish_all
                && !ports.iter().any(|other: &PublishedPort| {
                    other.container_port == port.container_port && other.protocol == port.protocol
                })
            {
                ports.push(port.clone());
            }
            all.push(format!("{}/{}", port.container_port, port.protocol));
        }
    }
    all.sort();
    all.dedup();
    Ok((ports, all))
}

fn parse_device(text: &str) -> Result<Device> {
    let fields: Vec<&str> = text.split(':').collect();
    let (source, target) = match *fields.as_slice() {
        [source] => (source, source),
        [source, target] if target.starts_with('/') => (source, target),
        [source, mode] => {
            check_device_mode(text, mode)?;
            (source, source)
        }
        [source, target, mode] => {
            check_device_mode(text, mode)?;
            (source, target)
        }
        _ => return Err(wrong("device", text, "too many colons")),
    };
    if !source.starts_with('/') || !target.starts_with('/') {
        return Err(wrong("device", text, "paths must be absolute"));
    }
    Ok(Device { source: source.into(), target: target.to_owned() })
}

fn check_device_mode(text: &str, mode: &str) -> Result<()> {
    if !mode.is_empty() && mode.bytes().all(|letter| matches!(letter, b'r' | b'w' | b'm')) {
        return Ok(());
    }
    Err(wrong("device", text, "bad mode"))
}

fn parse_sysctl(text: &str) -> Result<(String, String)> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(wrong("sysctl", text, "not `name=value`")),
    }
}

fn cgroup(id: &str, options: &RunOptions) -> Result<Option<CgroupSpec>> {
    let size = |text: &Option<String>| match text.as_deref() {
        None | Some("-1") => Ok(None),
        Some(text) => limit::parse_size_bytes(text).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0)),
    };
    let cgroup = CgroupSpec {
        name: id.to_owned(),
        memory_bytes: size(&options.memory)?,
        memory_swap_bytes: size(&options.memory_swap)?,
        pids: options.pids_limit.and_then(|limit| u64::try_from(limit).ok()).filter(|limit| *limit > 0),
        cpu_millis: options
            .cpus
            .as_deref()
            .map(limit::parse_cpu_millis)
            .transpose()?
            .filter(|millis| *millis > 0),
        ..CgroupSpec::default()
    };
    let is_limited = cgroup.memory_bytes.is_some()
        || cgroup.memory_swap_bytes.is_some()
        || cgroup.pids.is_some()
        || cgroup.cpu_millis.is_some();
    Ok(is_limited.then_some(cgroup))
}

/// The ports of a running container, as its monitor wrote them.
pub fn read_bound_ports(container: &mica_store::Container) -> Vec<BoundPort> {
    std::fs::read(container.path().join(BOUND_PORTS_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

pub(crate) const BOUND_PORTS_FILE: &str = "ports.json";

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(change: impl Fn(&mut RunOptions), image: &ContainerConfig) -> Result<Settings> {
        let mut options = RunOptions::default();
        change(&mut options);
        Settings::decide(&"0123456789abcdef".repeat(4), image, &options, |_| None)
    }

    fn image() -> ContainerConfig {
        ContainerConfig { cmd: Some(vec!["sh".to_owned()]), ..ContainerConfig::default() }
    }

    #[test]
    fn defaults_are_docker_s() {
        let settings = decide(|_| {}, &image()).unwrap();
        assert_eq!((settings.hostname.as_str(), settings.cwd.as_str()), ("0123456789ab", "/"));
        assert_eq!((settings.stop_signal, settings.stop_timeout_s), (15, 10));
        assert!(settings.cgroup.is_none());
        let again = Settings::parse(&settings.to_json()).unwrap();
        assert_eq!(again.argv, ["sh"]);
    }

    #[test]
    fn wrong_options_are_refused() {
        let check = |change: &dyn Fn(&mut RunOptions), expect: &str| {
            let found = decide(change, &image()).map(|_| ()).unwrap_err().to_string();
            assert_eq!(found, expect);
        };
        check(&|o| o.workdir = Some("rel".into()), "invalid working directory: `rel`: it must be absolute");
        check(&|o| o.labels = vec!["=x".into()], "invalid label: `=x`: empty name");
        check(&|o| o.security_opt = vec!["foo".into()], "invalid --security-opt: `foo`: not supported");
        check(&|o| o.cap_add = vec!["FOO".into()], "invalid capability: `FOO`: not known");
        check(&|o| o.volumes = vec!["/a:/b".into(), "/c:/b".into()], "duplicate mount point: /b");
        check(&|o| o.dns = vec!["foo".into()], "invalid DNS server: `foo`: not an IP address");
        check(
            &|o| o.devices = vec!["/dev/null:/dev/x:q".into()],
            "invalid device: `/dev/null:/dev/x:q`: bad mode",
        );
    }

    #[test]
    fn image_volumes_give_way_to_given_mounts() {
        let mut image = image();
        image.volumes.insert("/data".to_owned(), mica_oci::Empty {});
        image.volumes.insert("/cache".to_owned(), mica_oci::Empty {});
        let settings = decide(|o| o.volumes = vec!["v:/data/".into()], &image).unwrap();
        let targets: Vec<_> = settings.mounts.iter().map(|mount| mount.target.as_str()).collect();
        assert_eq!(targets, ["/data", "/cache"]);
    }

    #[test]
    fn capabilities_are_added_and_dropped() {
        let check = |add: &[&str], drop: &[&str], name: &str, expect: bool| {
            let words = |list: &[&str]| list.iter().map(|word| (*word).to_owned()).collect();
            let settings = decide(|o| (o.cap_add, o.cap_drop) = (words(add), words(drop)), &image()).unwrap();
            assert_eq!(
                CapabilitySet(settings.capabilities).has_name(name),
                expect,
                "{add:?} {drop:?} {name}"
            );
        };
        check(&[], &[], "CHOWN", true);
        check(&[], &[], "SYS_ADMIN", false);
        check(&["SYS_ADMIN"], &[], "SYS_ADMIN", true);
        check(&[], &["ALL"], "CHOWN", false);
        check(&["CHOWN"], &["ALL"], "CHOWN", true);
        check(&["ALL"], &["MKNOD"], "MKNOD", false);
        check(&["ALL"], &["MKNOD"], "SYS_ADMIN", true);
    }

    #[test]
    fn published_and_exposed_ports_meet() {
        let mut image = image();
        image.exposed_ports.insert("80/tcp".to_owned(), mica_oci::Empty {});
        image.exposed_ports.insert("53/udp".to_owned(), mica_oci::Empty {});
        let settings = decide(
            |o| {
                o.publish = vec!["8080:80".into()];
                o.publish_all = true;
            },
            &image,
        )
        .unwrap();
        assert_eq!(settings.ports.len(), 2);
        assert_eq!(settings.exposed, ["53/udp", "80/tcp"]);
    }
}
