//! What holds where no file says otherwise.

use mica_http::{is_loopback, split_port};
use mica_oci::reference::DEFAULT_REGISTRY;

use crate::endpoint::{Endpoint, Scheme, Tls};
use crate::error::{RegistryError, Result};

/// The host that Docker Hub's registry is at.
pub(crate) const HUB_HOST: &str = "registry-1.docker.io";
/// Where all requests of the distribution API begin.
pub(crate) const API_PATH: &str = "/v2";

/// Other names of Docker Hub; the last is the host of its search and the one in docker's `config.json`.
const HUB_NAMES: [&str; 3] = [DEFAULT_REGISTRY, HUB_HOST, "index.docker.io"];

/// The registry that a text means which a user typed or a file holds: host and port, `docker.io` for Docker Hub. A scheme and
/// a path are dropped, as docker does.
pub fn registry_of(text: &str) -> Result<String> {
    let bare = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text);
    let host = bare.split_once('/').map_or(bare, |(host, _)| host);
    // What a reference takes as its registry is one.
    let is_registry = mica_oci::Reference::parse(&format!("{host}/a/a"))
        .is_ok_and(|reference| host == reference.registry() || HUB_NAMES.contains(&host))
        || is_single_label(host);
    match is_registry {
        true if HUB_NAMES.contains(&host) => Ok(DEFAULT_REGISTRY.to_owned()),
        true => Ok(host.to_owned()),
        false => Err(RegistryError::NotARegistry { text: text.to_owned() }),
    }
}

/// A host of one label without port is no registry in an image name, but one can log in to it.
fn is_single_label(host: &str) -> bool {
    !host.is_empty()
        && !host.starts_with('-')
        && !host.ends_with('-')
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
}

/// What settings say of the TLS of a host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Security {
    /// `insecure` or `skip_verify`, where it is set.
    pub insecure: Option<bool>,
    /// Authorities and client certificates.
    pub tls: Tls,
}

impl Security {
    /// Schemes in the order in which they are tried, and TLS as it is spoken.
    ///
    /// Loopback is plain first where it has a port of its own: nobody listens between, and registries on laptops rarely have
    /// certificates, so the first request is the right one. Its certificates, if it has any, are not checked, as with docker.
    /// Whoever gives an authority for it, or says that it is not insecure, means TLS and nothing else.
    pub fn decide(&self, host: &str) -> (Vec<Scheme>, Tls) {
        let insecure = match self.insecure {
            Some(insecure) => insecure,
            None => is_loopback(host) && self.tls.authorities.is_empty(),
        };
        let tls = Tls { skip_verify: insecure || self.tls.skip_verify, ..self.tls.clone() };
        let plain_first = is_loopback(host) && split_port(host).1.is_some_and(|port| port != "443");
        let schemes = match (insecure, plain_first) {
            (false, _) => vec![Scheme::Https],
            (true, true) => vec![Scheme::Http, Scheme::Https],
            (true, false) => vec![Scheme::Https, Scheme::Http],
        };
        (schemes, tls)
    }
}

/// The host that a registry is at, if no file says otherwise.
pub(crate) fn host_of(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { HUB_HOST } else { registry }
}

/// The endpoint at a registry itself.
pub(crate) fn endpoint(registry: &str, repository: &str, security: &Security) -> Endpoint {
    let host = host_of(registry);
    let (schemes, tls) = security.decide(host);
    Endpoint {
        host: host.to_owned(),
        schemes,
        path: API_PATH.to_owned(),
        repository: repository.to_owned(),
        tls,
        headers: Vec::new(),
        namespace: None,
        is_mirror: false,
        credentials_host: credentials_host(host),
    }
}

/// The host that credentials for another host are looked for under.
pub(crate) fn credentials_host(host: &str) -> String {
    if host == HUB_HOST { DEFAULT_REGISTRY.to_owned() } else { host.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Scheme::{Http, Https};

    #[test]
    fn texts_mean_registries() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(registry_of(text).ok().as_deref(), expect, "{text}");
        };
        check("docker.io", Some("docker.io"));
        check("index.docker.io", Some("docker.io"));
        check("registry-1.docker.io", Some("docker.io"));
        check("https://index.docker.io/v1/", Some("docker.io"));
        check("https://docker.io", Some("docker.io"));
        check("quay.io", Some("quay.io"));
        check("quay.io/org/repository", Some("quay.io"));
        check("http://Quay.io:80/v2/", Some("Quay.io:80"));
        check("localhost", Some("localhost"));
        check("localhost:5000", Some("localhost:5000"));
        check("[::1]:5000", Some("[::1]:5000"));
        check("myhost", Some("myhost"));
        check("10.0.0.1:5000", Some("10.0.0.1:5000"));
        for wrong in [
            "",
            "https://",
            "a b",
            "-x",
            "user@host:1",
            "a.b:port",
            "x.y\n",
            "ftp://x.y",
            "-a.b",
            "*.x.y",
            "x.y:1@2",
        ] {
            check(wrong, None);
        }
    }

    #[test]
    fn loopback_is_plain_first_and_all_else_is_not() {
        let check = |host: &str, schemes: &[Scheme], skip_verify: bool| {
            let (found, tls) = Security::default().decide(host);
            assert_eq!((found.as_slice(), tls.skip_verify), (schemes, skip_verify), "{host}");
        };
        for host in [
            "localhost:5000",
            "LOCALHOST:5000",
            "a.localhost:1",
            "127.0.0.1:5000",
            "127.9.9.9:80",
            "[::1]:5000",
            "[::ffff:127.0.0.1]:1",
        ] {
            check(host, &[Http, Https], true);
        }
        // The default port of https, written or not, is TLS's first.
        check("localhost", &[Https, Http], true);
        check("localhost:443", &[Https, Http], true);
        for host in [
            "example.com",
            "notlocalhost:5000",
            "localhost.example.com:5000",
            "128.0.0.1:5000",
            "[::2]:5000",
            "10.0.0.1",
            "127.0.0.1.example.com:1",
        ] {
            check(host, &[Https], false);
        }
    }

    #[test]
    fn what_is_said_of_a_host_counts_more_than_where_it_is() {
        let check = |insecure: Option<bool>,
                     has_authority: bool,
                     host: &str,
                     schemes: &[Scheme],
                     skip_verify: bool| {
            let authorities = has_authority.then(|| "/ca.crt".into()).into_iter().collect();
            let security = Security { insecure, tls: Tls { authorities, ..Tls::default() } };
            let (found, tls) = security.decide(host);
            assert_eq!((found.as_slice(), tls.skip_verify), (schemes, skip_verify), "{security:?} {host}");
        };
        check(Some(true), false, "example.com", &[Https, Http], true);
        check(Some(true), true, "example.com", &[Https, Http], true);
        check(Some(false), false, "example.com", &[Https], false);
        check(None, true, "example.com", &[Https], false);
        check(None, true, "localhost:5000", &[Https], false);
        check(Some(false), false, "localhost:5000", &[Https], false);
        check(Some(true), true, "localhost:5000", &[Http, Https], true);
    }

    #[test]
    fn docker_hub_is_at_another_host() {
        let hub = endpoint("docker.io", "library/debian", &Security::default());
        assert_eq!((hub.host.as_str(), hub.credentials_host.as_str()), ("registry-1.docker.io", "docker.io"));
        assert_eq!((hub.path.as_str(), hub.schemes.as_slice()), ("/v2", &[Https][..]));
        let other = endpoint("quay.io", "a/b", &Security::default());
        assert_eq!((other.host.as_str(), other.credentials_host.as_str()), ("quay.io", "quay.io"));
    }
}
