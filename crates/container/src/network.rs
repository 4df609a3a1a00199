//! The network of a container, made before the container: its namespace, address and names are known when the first
//! process is set up, so its files can be written and a lack be told at once.

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd};
use std::path::{Path, PathBuf};

use mica_network::{
    AddHost, BridgeSettings, DnsSettings, Endpoint, HostsSettings, NetworkNamespace, Publisher,
    RootlessEndpoint, RootlessSettings, RunningPublisher, Unavailable,
};
use mica_runtime::spec::Network;
use mica_sys::error::ErrorAt;

pub use mica_network::NetworkMode;

/// What follows when the network asked for is not to be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// The host's network, and a warning: for build steps, which are to work.
    HostWithWarning,
    /// Nothing but loopback, and a warning: for containers, which are not to meet the host's services unasked.
    LoopbackWithWarning,
}

/// What network a container is to have.
#[derive(Clone, Copy, Debug)]
pub struct NetworkRequest<'a> {
    /// Host, none or bridge.
    pub mode: NetworkMode,
    /// In a user namespace: `bridge` means what `pasta` gives.
    pub rootless: bool,
    /// The store, for the state of rootless networks.
    pub store_root: &'a Path,
    /// The container's host name.
    pub hostname: &'a str,
    /// Its domain; may be empty.
    pub domainname: &'a str,
    /// Names for its /etc/hosts.
    pub add_hosts: &'a [AddHost],
    /// Changes of its /etc/resolv.conf.
    pub dns: &'a DnsSettings,
    /// What follows when that network is not to be had.
    pub fallback: Fallback,
}

/// A network that is there; dropping it takes it back.
#[derive(Debug)]
pub struct ConnectedNetwork {
    /// For [`mica_runtime::spec::Namespaces::network`]; good as long as this value lives.
    pub runtime_network: Network,
    /// The mode that it came to be.
    pub mode: NetworkMode,
    /// The container's /etc/resolv.conf.
    pub resolv_conf: Vec<u8>,
    /// The container's /etc/hosts.
    pub hosts: Vec<u8>,
    /// The container's own address.
    pub ipv4: Option<Ipv4Addr>,
    /// What the user should know, one line each.
    pub warnings: Vec<String>,
    // Fields drop in this order: nobody may use the namespace when its address is given back.
    publisher: Option<RunningPublisher>,
    namespace: Option<NetworkNamespace>,
    place: Option<Place>,
}

#[derive(Debug)]
enum Place {
    Bridge(Endpoint),
    Rootless(RootlessEndpoint),
}

/// Makes the network of the container `container_id`. Fails only when the host's own files cannot be read: a network
/// that is not to be had becomes a warning.
pub fn connect(request: &NetworkRequest<'_>, container_id: &str) -> crate::Result<ConnectedNetwork> {
    let mut warnings = Vec::new();
    let (mut mode, mut namespace, mut place) = (request.mode, None, None);
    if mode == NetworkMode::Bridge {
        match make_place(request, container_id) {
            Ok((made_namespace, made_place)) => {
                (namespace, place) = (Some(made_namespace), Some(made_place));
            }
            Err(error) => {
                mode = match request.fallback {
                    Fallback::HostWithWarning => NetworkMode::Host,
                    Fallback::LoopbackWithWarning => NetworkMode::None,
                };
                warnings.push(warning(&error, mode));
            }
        }
    }
    let (ipv4, gateway) = match &place {
        Some(Place::Bridge(endpoint)) => {
            (Some(endpoint.facts().ipv4), Some(IpAddr::V4(endpoint.facts().gateway)))
        }
        Some(Place::Rootless(endpoint)) => (endpoint.ipv4, None),
        None => (None, None),
    };
    let resolv_conf = mica_network::resolv_conf(&mica_network::read_host_resolv_conf()?, mode, request.dns);
    if mode == NetworkMode::Bridge && resolv_conf.servers.is_empty() {
        warnings.push(
            "the host's name servers cannot be reached from the container, names will not be found: use `--dns`"
                .to_owned(),
        );
    }
    let host_hosts = match mode {
        NetworkMode::Host => std::fs::read_to_string("/etc/hosts").unwrap_or_default(),
        _ => String::new(),
    };
    let hosts = mica_network::hosts_file(&HostsSettings {
        mode,
        hostname: request.hostname,
        domainname: request.domainname,
        ipv4,
        host_gateway: gateway,
        add_hosts: request.add_hosts,
        host_hosts: &host_hosts,
    });
    let runtime_network = match (&namespace, mode) {
        // By way of our own descriptor: the helper is another process, and the namespace has no process yet.
        (Some(namespace), _) => {
            let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd());
            Network::Path(PathBuf::from(path))
        }
        (None, NetworkMode::Host) => Network::Host,
        (None, _) => Network::New,
    };
    Ok(ConnectedNetwork {
        runtime_network,
        mode,
        resolv_conf: resolv_conf.text.into_bytes(),
        hosts: hosts.into_bytes(),
        ipv4,
        warnings,
        publisher: None,
        namespace,
        place,
    })
}

impl ConnectedNetwork {
    /// Serves published ports until this value is dropped. `pid` is the container's first process.
    pub fn serve(&mut self, publisher: Publisher, pid: i32) -> crate::Result<()> {
        let running = match &self.namespace {
            Some(namespace) => publisher.serve_on_thread(namespace, self.ipv4)?,
            None => publisher.serve_on_thread(&NetworkNamespace::of_process(pid)?, self.ipv4)?,
        };
        self.publisher = Some(running);
        Ok(())
    }

    /// Lets go of everything, after the container's last process has ended; what cannot be taken back now is taken
    /// back by a sweep.
    pub fn disconnect(self) {
        drop(self);
    }
}

impl Drop for ConnectedNetwork {
    fn drop(&mut self) {
        self.publisher = None;
        self.namespace = None;
        let _ = match self.place.take() {
            Some(Place::Bridge(endpoint)) => endpoint.release(),
            Some(Place::Rootless(endpoint)) => endpoint.detach(),
            None => Ok(()),
        };
    }
}

/// Takes back what the networks of dead containers left: addresses, links, the unused bridge, programs.
pub fn sweep_networks(rootless: bool, store_root: &Path) -> crate::Result<()> {
    if rootless {
        mica_network::sweep_rootless(&rootless_settings(store_root))?;
    } else {
        mica_network::sweep(&BridgeSettings::new(BRIDGE_STATE))?;
    }
    Ok(())
}

/// One for all stores of the host, because the bridge is one.
const BRIDGE_STATE: &str = "/run/mica/network";

fn rootless_settings(store_root: &Path) -> RootlessSettings {
    RootlessSettings {
        state_dir: store_root.join("network"),
        program: None,
        search_path: std::env::var("PATH").unwrap_or_default(),
    }
}

fn make_place(
    request: &NetworkRequest<'_>,
    container_id: &str,
) -> mica_network::Result<(NetworkNamespace, Place)> {
    let namespace = new_namespace()?;
    let place = if request.rootless {
        let settings = rootless_settings(request.store_root);
        Place::Rootless(mica_network::attach_rootless(&settings, container_id, &namespace)?)
    } else {
        let settings = BridgeSettings::new(BRIDGE_STATE);
        Place::Bridge(mica_network::attach_bridge(&settings, container_id, &namespace)?)
    };
    Ok((namespace, place))
}

/// A thread of its own goes into the new namespace and ends there; ours stays in the host's.
fn new_namespace() -> mica_network::Result<NetworkNamespace> {
    std::thread::scope(|scope| {
        let make = || {
            mica_sys::netlink::unshare_network_of_thread()?;
            NetworkNamespace::of_thread()
        };
        let thread = std::thread::Builder::new().name("netns".to_owned()).spawn_scoped(scope, make);
        let thread = thread.at("clone", "network namespace")?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn warning(error: &mica_network::Error, instead: NetworkMode) -> String {
    let instead = match instead {
        NetworkMode::Host => "using the host's network",
        _ => "the container has loopback only",
    };
    let advice = match error {
        mica_network::Error::RootlessUnavailable(Unavailable::NoProgram { .. }) => {
            " (install the package `passt`)"
        }
        mica_network::Error::RootlessUnavailable(Unavailable::NoTunDevice { .. }) => {
            " (load the kernel module `tun` and make `/dev/net/tun` accessible)"
        }
        _ => "",
    };
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    format!("{text}{advice}: {instead}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_say_what_to_do() {
        let missing = mica_network::Error::RootlessUnavailable(Unavailable::NoProgram { program: "pasta" });
        assert_eq!(
            warning(&missing, NetworkMode::Host),
            "rootless network is not available: program is not in PATH: `pasta` (install the package `passt`): \
             using the host's network"
        );
    }

    #[test]
    fn root_loopback_needs_nothing() {
        let dns = DnsSettings::default();
        let request = NetworkRequest {
            mode: NetworkMode::None,
            rootless: false,
            store_root: Path::new("/nonexistent"),
            hostname: "h",
            domainname: "",
            add_hosts: &[],
            dns: &dns,
            fallback: Fallback::LoopbackWithWarning,
        };
        let network = connect(&request, "c").unwrap();
        assert!(matches!(network.runtime_network, Network::New));
        assert!(String::from_utf8_lossy(&network.hosts).starts_with("127.0.0.1\tlocalhost\n"));
        assert!(network.warnings.is_empty());
    }
}
