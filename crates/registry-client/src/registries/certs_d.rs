//! Directories with one directory a registry: docker's and podman's certificates (containers-certs.d(5)), containerd's
//! `hosts.toml`.

use std::path::{Path, PathBuf};

use super::hosts_toml::HostsToml;
use crate::endpoint::{ClientCertificate, Tls};
use crate::error::{RegistryError, Result};
use crate::settings_file::names;

/// What the directories say of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct HostDirs {
    /// The first `hosts.toml`.
    pub hosts_toml: Option<HostsToml>,
    /// Certificates of all of them.
    pub tls: Tls,
}

impl HostDirs {
    /// Reads what there is for a host. `_default` is containerd's word for all hosts without a directory of their own.
    pub fn read(certs_d: &[PathBuf], host: &str) -> Result<HostDirs> {
        let mut found = HostDirs::default();
        let mut default = None;
        for root in certs_d {
            for dir in [root.join(with_port_as_word(host)), root.join(host)] {
                match read_dir(&dir) {
                    Ok((hosts_toml, tls)) => {
                        found.hosts_toml = found.hosts_toml.or(hosts_toml);
                        found.tls.authorities.extend(tls.authorities);
                        found.tls.client_certificates.extend(tls.client_certificates);
                    }
                    Err(error) if is_private(&error) => continue,
                    Err(error) => return Err(error),
                }
                if !host.contains(':') {
                    break;
                }
            }
            default = default.or_else(|| Some(root.join("_default")).filter(|dir| dir.is_dir()));
        }
        match default {
            Some(dir) if found == HostDirs::default() => {
                let (hosts_toml, tls) = read_dir(&dir)?;
                Ok(HostDirs { hosts_toml, tls })
            }
            _ => Ok(found),
        }
    }
}

/// docker's directories are often root's alone, because docker's daemon reads them: they are not about this user then.
fn is_private(error: &RegistryError) -> bool {
    matches!(error, RegistryError::Sys(error) if error.kind() == std::io::ErrorKind::PermissionDenied)
}

/// `host:5000` as containerd names directories where colons are no good: `host_5000_`.
fn with_port_as_word(host: &str) -> String {
    match mica_http::split_port(host) {
        (name, Some(port)) => format!("{name}_{port}_"),
        (name, None) => name.to_owned(),
    }
}

fn read_dir(dir: &Path) -> Result<(Option<HostsToml>, Tls)> {
    let mut tls = Tls::default();
    let names = names(dir)?;
    let has = |name: &str| names.iter().any(|known| known.to_str() == Some(name));
    for name in names.iter().filter_map(|name| name.to_str()) {
        match name.rsplit_once('.') {
            Some((_, "crt")) => tls.authorities.push(dir.join(name)),
            Some((stem, "cert")) => tls.client_certificates.push(ClientCertificate {
                certificate: dir.join(name),
                key: Some(format!("{stem}.key")).filter(|key| has(key)).map(|key| dir.join(key)),
            }),
            _ => {}
        }
    }
    let hosts_toml = if has("hosts.toml") { HostsToml::read(dir)? } else { None };
    Ok((hosts_toml, tls))
}
