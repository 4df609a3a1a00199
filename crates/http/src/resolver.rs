//! Names of hosts to addresses, without the C library: mica is one static file, and a static `getaddrinfo` loads whatever
//! name service modules the host has.
//!
//! `localhost` needs no file. All else is `/etc/hosts` and the name servers of `/etc/resolv.conf`. Where that file is absent
//! there are none: no server of strangers is asked in its place.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{LookupIpStrategy, ResolverConfig};
use hickory_resolver::net::NetError;
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::sync::OnceCell;

/// A name that was not found.
#[derive(Debug)]
pub(crate) struct NameError {
    pub host: String,
    pub problem: String,
}

impl fmt::Display for NameError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "cannot find host `{}`: {}", self.host, self.problem)
    }
}

impl std::error::Error for NameError {}

/// Reads the system's files with the first name that needs them.
#[derive(Clone, Default)]
pub(crate) struct Resolver {
    system: Arc<OnceCell<System>>,
}

struct System {
    resolver: TokioResolver,
    /// Why there are no name servers, if there are none.
    no_servers: Option<String>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let system = self.system.clone();
        Box::pin(async move {
            let host = name.as_str();
            if is_localhost(host) {
                return Ok(addresses([Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]));
            }
            let error = |problem| NameError { host: host.to_owned(), problem };
            let system = system
                .get_or_try_init(|| async { System::load() })
                .await
                .map_err(|problem: NetError| error(problem.to_string()))?;
            match system.resolver.lookup_ip(host).await {
                Ok(found) => Ok(addresses(found.iter().collect::<Vec<_>>())),
                Err(problem) => Err(error(system.explain(&problem)).into()),
            }
        })
    }
}

impl System {
    fn load() -> Result<System, NetError> {
        let (mut builder, no_servers) = match TokioResolver::builder_tokio() {
            Ok(builder) => (builder, None),
            Err(problem) => {
                let provider = TokioRuntimeProvider::default();
                let empty = ResolverConfig::from_parts(None, Vec::new(), Vec::new());
                let reason = format!("no name servers in `/etc/resolv.conf`: {problem}");
                (TokioResolver::builder_with_config(empty, provider), Some(reason))
            }
        };
        // Both families, so that connecting can take whichever answers first.
        builder.options_mut().ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
        Ok(System { resolver: builder.build()?, no_servers })
    }

    fn explain(&self, problem: &NetError) -> String {
        match &self.no_servers {
            Some(reason) => reason.clone(),
            None if problem.is_nx_domain() => "no such host".to_owned(),
            None if problem.is_no_records_found() => "the name has no address".to_owned(),
            None => problem.to_string(),
        }
    }
}

fn addresses(list: impl IntoIterator<Item = IpAddr, IntoIter: Send + 'static>) -> Addrs {
    // Port 0 stands for the one of the URL.
    Box::new(list.into_iter().map(|address| SocketAddr::new(address, 0)))
}

/// `localhost` and what is below it is this machine, whatever any file or server says (RFC 6761, section 6.3).
fn is_localhost(host: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    host == "localhost" || host.ends_with(".localhost")
}
