//! Pools of connections: one per way of speaking TLS.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Url;

use crate::error::{HttpError, Result};
use crate::fault::root_cause;
use crate::host::is_loopback;
use crate::resolver::Resolver;
use crate::tls::{self, Tls};

/// Pools of connections, made when they are needed.
pub struct Clients {
    connect_timeout: Duration,
    resolver: Resolver,
    pools: Mutex<Vec<(Way, reqwest::Client)>>,
}

/// What connections of one pool have in common.
#[derive(Clone, PartialEq, Eq)]
struct Way {
    /// `None` for plain HTTP.
    tls: Option<Tls>,
    /// Never through a proxy: it would reach its own loopback, not ours. Go's clients do the same.
    is_direct: bool,
}

impl Clients {
    /// Costs nothing: pools, authorities and names are for the first message that needs them.
    pub fn new(connect_timeout: Duration) -> Clients {
        Clients { connect_timeout, resolver: Resolver::default(), pools: Mutex::default() }
    }

    /// The client for messages to the host of a URL, with TLS spoken so. Proxies are those of the environment.
    pub fn get(&self, url: &Url, tls: &Tls) -> Result<reqwest::Client> {
        let tls = (url.scheme() == "https").then(|| tls.clone());
        let way = Way { tls, is_direct: url.host_str().is_some_and(is_loopback) };
        // A thread that panicked with the lock left a whole list behind.
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, pool)) = pools.iter().find(|(other, _)| *other == way) {
            return Ok(pool.clone());
        }
        let config = match &way.tls {
            Some(tls) => tls::config(tls)?,
            None => tls::none()?,
        };
        let mut builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .dns_resolver(self.resolver.clone())
            .user_agent(concat!("mica/", env!("CARGO_PKG_VERSION")))
            // Followed by the caller's own code, which knows what must not go along.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(self.connect_timeout)
            // Servers close idle connections after a minute or so: a request should not meet one that is half closed.
            .pool_idle_timeout(Duration::from_secs(30))
            .tcp_nodelay(true)
            .http1_only();
        if way.is_direct {
            builder = builder.no_proxy();
        }
        let pool = builder.build().map_err(|error| HttpError::Start(root_cause(&error)))?;
        pools.push((way, pool.clone()));
        Ok(pool)
    }
}

impl std::fmt::Debug for Clients {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Clients").finish_non_exhaustive()
    }
}
