//! Which endpoints a registry has: registries.conf v2, containerd's `hosts.toml`, docker's `certs.d` and `daemon.json`, and
//! defaults.
//!
//! What wins where several speak:
//!
//! 1. `[[registry]]` of registries.conf with the longest prefix says whether a name is blocked, which mirrors it has, and which
//!    location takes its prefix's place. As with podman, mirrors and locations are for pulls: what is pushed goes to the
//!    registry that the name says.
//! 2. Where it says neither mirrors nor another location, the first `hosts.toml` of the registry says which hosts there are.
//! 3. Where there is none, `registry-mirrors` of docker's `daemon.json` come before Docker Hub.
//! 4. How a host is spoken to is said by whoever names it: `insecure` of its table, `skip_verify`, `ca` and `client` of its
//!    `hosts.toml`. Certificates of `certs.d` are added, and docker's `insecure-registries` hold where `insecure` is not said.
//!
//! The user's files come before the system's. docs/registries.md tells all of this to users.

mod certs_d;
mod defaults;
mod docker_daemon;
mod hosts_toml;
mod paths;
mod registries_conf;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use mica_oci::Reference;
use mica_oci::reference::DEFAULT_REGISTRY;

use crate::endpoint::{Endpoint, Purpose};
use crate::error::{RegistryError, Result};
use certs_d::HostDirs;
use defaults::{Security, credentials_host, host_of};
use docker_daemon::DockerDaemon;
use hosts_toml::{Host, HostsToml, Url};
use registries_conf::{RegistriesConf, blocked, rewrite};

pub use defaults::registry_of;
pub use paths::Paths;

/// Settings about registries, read once. Directories of single hosts are read when the host is first asked for.
#[derive(Clone, Debug, Default)]
pub struct Registries {
    paths: Paths,
    conf: Arc<RegistriesConf>,
    docker: Arc<DockerDaemon>,
    hosts: Arc<Mutex<BTreeMap<String, Arc<HostDirs>>>>,
    /// Registries that the user called insecure on the command line.
    insecure: BTreeSet<String>,
}

impl Registries {
    /// Reads the files of this machine and user: nothing of them is an empty value. See [`Paths::of_user`] for where.
    pub fn load() -> Result<Registries> {
        Registries::read(Paths::of_user())
    }

    /// Reads other files.
    pub fn read(paths: Paths) -> Result<Registries> {
        Ok(Registries {
            conf: Arc::new(RegistriesConf::read(&paths)?),
            docker: Arc::new(DockerDaemon::read(&paths.docker_daemon)?),
            hosts: Arc::default(),
            insecure: BTreeSet::new(),
            paths,
        })
    }

    /// The same, but with this registry (`docker.io` for Docker Hub) plain http and any certificate will do, whatever files say:
    /// what a flag `--insecure` asks for. Its mirrors are not meant.
    pub fn with_insecure(mut self, registry: &str) -> Registries {
        self.insecure.insert(registry.to_owned());
        self
    }

    /// Where settings are looked for.
    pub fn paths(&self) -> &Paths {
        &self.paths
    }

    /// `credential-helpers` of registries.conf, for [`crate::Credentials::with_helpers`].
    pub fn credential_helpers(&self) -> &[String] {
        &self.conf.credential_helpers
    }

    /// Where to go for `reference`, in order: mirrors first. Never empty. Blocked registries are an error.
    pub fn endpoints(&self, reference: &Reference, purpose: Purpose) -> Result<Vec<Endpoint>> {
        let (registry, repository) = (reference.registry(), reference.repository());
        let Some((namespace, matched)) = self.conf.namespace(&reference.canonical()) else {
            return self.endpoints_of_host(registry, repository, None, purpose);
        };
        if namespace.blocked {
            return Err(blocked(reference.familiar(), &namespace.place));
        }
        if purpose == Purpose::Push {
            return self.endpoints_of_host(registry, repository, namespace.insecure, purpose);
        }
        let mut endpoints = Vec::new();
        for mirror in namespace.mirrors.iter().filter(|mirror| mirror.fit_for.takes(reference)) {
            let rewritten = rewrite(reference, matched, &mirror.location, &mirror.place)?;
            endpoints.push(Endpoint { is_mirror: true, ..self.endpoint(&rewritten, mirror.insecure)? });
        }
        let rewritten = rewrite(reference, matched, &namespace.location, &namespace.place)?;
        if endpoints.is_empty() && rewritten == *reference {
            return self.endpoints_of_host(registry, repository, namespace.insecure, purpose);
        }
        endpoints.push(self.endpoint(&rewritten, namespace.insecure)?);
        Ok(endpoints)
    }

    /// The registry itself, without a repository (`Endpoint::repository` is empty): for login and search.
    pub fn endpoint_of(&self, registry: &str) -> Result<Endpoint> {
        let registry = registry_of(registry)?;
        let namespace = self.conf.namespace(&registry).map(|(namespace, _)| namespace);
        if let Some(namespace) = namespace.filter(|namespace| namespace.blocked) {
            return Err(blocked(registry, &namespace.place));
        }
        let dirs = self.dirs(&registry)?;
        let insecure = namespace.and_then(|namespace| namespace.insecure);
        match &dirs.hosts_toml {
            Some(hosts_toml) => self.endpoint_of_server(&registry, "", insecure, hosts_toml),
            None => self.endpoint_at(&registry, "", insecure),
        }
    }

    /// What a name without a registry may mean besides Docker Hub: aliases of short names (`[aliases]`) and
    /// `unqualified-search-registries` of registries.conf. Docker Hub alone where nothing is set.
    pub fn candidates(&self, as_written: &str) -> Result<Vec<Reference>> {
        let reference = Reference::parse(as_written)?;
        let name_end = as_written.find('@').unwrap_or(as_written.len());
        let (before_digest, digest) = as_written.split_at(name_end);
        let first_component = as_written.split_once('/').map(|(first, _)| first);
        let has_registry = reference.registry() != DEFAULT_REGISTRY
            || first_component.is_some_and(|first| registry_of(first).is_ok_and(|it| it == DEFAULT_REGISTRY));
        if has_registry {
            return Ok(vec![reference]);
        }
        let (name, tag) = before_digest.split_at(before_digest.find(':').unwrap_or(before_digest.len()));
        if let Some(alias) = self.conf.aliases.get(name) {
            let full = Reference::parse(&format!("{}{tag}{digest}", alias.name)).ok();
            let is_full = |full: &Reference| full.name() == alias.name;
            return full.filter(is_full).map(|full| vec![full]).ok_or_else(|| {
                alias.place.error(crate::error::SettingsProblem::WrongValue {
                    key: "aliases",
                    expected: "full image names without tag and digest",
                    found: alias.name.clone(),
                })
            });
        }
        if self.conf.search.is_empty() {
            return Ok(vec![reference]);
        }
        let in_registry = |registry: &String| Ok(Reference::parse(&format!("{registry}/{as_written}"))?);
        self.conf.search.iter().map(in_registry).collect()
    }

    /// Endpoints of a registry that registries.conf gives no other place.
    fn endpoints_of_host(
        &self,
        registry: &str,
        repository: &str,
        insecure: Option<bool>,
        purpose: Purpose,
    ) -> Result<Vec<Endpoint>> {
        let dirs = self.dirs(registry)?;
        let Some(hosts_toml) = &dirs.hosts_toml else {
            let mut endpoints = Vec::new();
            if registry == DEFAULT_REGISTRY && purpose != Purpose::Push {
                for url in &self.docker.mirrors {
                    endpoints.push(self.docker_mirror(url, repository)?);
                }
            }
            endpoints.push(self.endpoint_at(registry, repository, insecure)?);
            return Ok(endpoints);
        };
        let mut endpoints = Vec::new();
        for host in &hosts_toml.hosts {
            let Some(url) = &host.url else { continue };
            let is_mirror = url.host != host_of(registry);
            if host.takes(purpose, is_mirror) {
                let endpoint = self.endpoint_of_entry(registry, repository, host, url)?;
                endpoints.push(Endpoint { is_mirror, ..endpoint });
            }
        }
        if hosts_toml.server.url.is_none() || hosts_toml.server.takes(purpose, false) {
            endpoints.push(self.endpoint_of_server(registry, repository, insecure, hosts_toml)?);
        }
        match endpoints.is_empty() {
            false => Ok(endpoints),
            true => Err(RegistryError::NoEndpoint {
                registry: registry.to_owned(),
                purpose: match purpose {
                    Purpose::Resolve => "resolve",
                    Purpose::Pull => "pull",
                    Purpose::Push => "push",
                },
                path: hosts_toml.path.clone(),
            }),
        }
    }

    /// The root of a `hosts.toml`.
    fn endpoint_of_server(
        &self,
        registry: &str,
        repository: &str,
        insecure: Option<bool>,
        hosts_toml: &HostsToml,
    ) -> Result<Endpoint> {
        let server = &hosts_toml.server;
        match &server.url {
            Some(url) => {
                let endpoint = self.endpoint_of_entry(registry, repository, server, url)?;
                // The registry itself, at another address: who logs in to the registry is sent there as well.
                Ok(Endpoint { credentials_host: credentials_host(host_of(registry)), ..endpoint })
            }
            None => self.endpoint_at(registry, repository, insecure),
        }
    }

    /// A host of a `hosts.toml`, which says all there is to say, but for certificates in directories of its own.
    fn endpoint_of_entry(
        &self,
        registry: &str,
        repository: &str,
        host: &Host,
        url: &Url,
    ) -> Result<Endpoint> {
        let mut tls = host.tls.clone();
        let dirs = self.dirs(&url.host)?;
        tls.authorities.extend(dirs.tls.authorities.iter().cloned());
        tls.client_certificates.extend(dirs.tls.client_certificates.iter().cloned());
        tls.skip_verify = host.skip_verify.unwrap_or(false);
        let is_own = url.host == host_of(registry) || url.host == registry;
        Ok(Endpoint {
            host: url.host.clone(),
            schemes: host.schemes(url),
            path: url.path.clone(),
            repository: repository.to_owned(),
            tls,
            headers: host.headers.clone(),
            namespace: (!is_own).then(|| registry.to_owned()),
            is_mirror: false,
            credentials_host: credentials_host(&url.host),
        })
    }

    fn docker_mirror(&self, url: &Url, repository: &str) -> Result<Endpoint> {
        let endpoint = self.endpoint_at(&url.host, repository, None)?;
        let schemes = match url.scheme {
            crate::endpoint::Scheme::Http => vec![url.scheme],
            crate::endpoint::Scheme::Https => {
                endpoint.schemes.into_iter().filter(|scheme| *scheme == url.scheme).collect()
            }
        };
        Ok(Endpoint { schemes, path: url.path.clone(), is_mirror: true, ..endpoint })
    }

    /// Where registries.conf leads.
    fn endpoint(&self, reference: &Reference, insecure: Option<bool>) -> Result<Endpoint> {
        self.endpoint_at(reference.registry(), reference.repository(), insecure)
    }

    /// A registry at its own host, as all that is known of it says.
    fn endpoint_at(&self, registry: &str, repository: &str, insecure: Option<bool>) -> Result<Endpoint> {
        let dirs = self.dirs(registry)?;
        let docker_says = self.docker.is_insecure(registry).then_some(true);
        let user_says = self.insecure.contains(registry).then_some(true);
        let insecure = user_says.or(insecure).or(docker_says);
        let mut security = Security { insecure, tls: dirs.tls.clone() };
        let mut headers = Vec::new();
        // What a root without `server` says is about the registry's own host.
        if let Some(server) = dirs.hosts_toml.as_ref().map(|hosts_toml| &hosts_toml.server)
            && server.url.as_ref().is_none_or(|url| url.host == host_of(registry))
        {
            security.tls.authorities.extend(server.tls.authorities.iter().cloned());
            security.tls.client_certificates.extend(server.tls.client_certificates.iter().cloned());
            security.tls.skip_verify = server.skip_verify.unwrap_or(false);
            headers.clone_from(&server.headers);
        }
        Ok(Endpoint { headers, ..defaults::endpoint(registry, repository, &security) })
    }

    /// What the directories say of a host; read once.
    fn dirs(&self, host: &str) -> Result<Arc<HostDirs>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = hosts.get(host) {
            return Ok(known.clone());
        }
        let read = Arc::new(HostDirs::read(&self.paths.certs_d, host)?);
        hosts.insert(host.to_owned(), read.clone());
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
