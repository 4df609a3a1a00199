//! Where requests about one repository go, as settings and defaults decide it.

use std::fmt;

pub use mica_http::{ClientCertificate, Tls};

/// `http` or `https`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain: for loopback, and where settings allow it.
    Http,
    /// With TLS.
    Https,
}

/// What a request is for; endpoints may be fit for some of them only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A tag is turned into a digest.
    Resolve,
    /// Bytes are fetched by digest.
    Pull,
    /// Bytes are sent, or tags listed and removed.
    Push,
}

/// Where requests about one repository go.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Host and port as they stand in a URL, such as `registry-1.docker.io` or `[::1]:5000`.
    pub host: String,
    /// Schemes in the order in which they are tried; the next only if the first does not speak at all.
    pub schemes: Vec<Scheme>,
    /// What stands before the repository in every path: `/v2`, or another path of `hosts.toml` (`override_path`).
    pub path: String,
    /// The repository as this endpoint calls it.
    pub repository: String,
    /// How TLS is spoken.
    pub tls: Tls,
    /// Headers for every request (`hosts.toml` `[header]`, docker's `HttpHeaders`). May hold credentials: as secret as those.
    pub headers: Vec<(String, String)>,
    /// Registry that a mirror is asked for (`?ns=`), if it is containerd's kind of mirror.
    pub namespace: Option<String>,
    /// Not the registry itself: failures lead on to the next endpoint.
    pub is_mirror: bool,
    /// Host that credentials are looked for under: `docker.io` for Docker Hub, else as `host`.
    pub credentials_host: String,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Of the headers the names alone: their values may be credentials.
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        (formatter.debug_struct("Endpoint"))
            .field("host", &self.host)
            .field("schemes", &self.schemes)
            .field("path", &self.path)
            .field("repository", &self.repository)
            .field("tls", &self.tls)
            .field("headers", &headers)
            .field("namespace", &self.namespace)
            .field("is_mirror", &self.is_mirror)
            .field("credentials_host", &self.credentials_host)
            .finish()
    }
}
