//! docker's `daemon.json`: `insecure-registries` and `registry-mirrors`.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::PathBuf;

use mica_http::address_of;

use super::defaults::registry_of;
use super::hosts_toml::Url;
use crate::error::{RegistryError, Result, SettingsProblem};
use crate::settings_file;

/// What it says of registries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct DockerDaemon {
    /// Mirrors of Docker Hub.
    pub mirrors: Vec<Url>,
    insecure_hosts: Vec<String>,
    insecure_networks: Vec<(IpAddr, u32)>,
}

impl DockerDaemon {
    /// Reads the files, those that are there and that this user may read: they are docker's daemon's.
    pub fn read(paths: &[PathBuf]) -> Result<DockerDaemon> {
        let mut all = DockerDaemon::default();
        for path in paths {
            match settings_file::read(path) {
                Ok(Some(text)) => all.add(&text).map_err(|(line, problem)| RegistryError::Settings {
                    path: path.clone(),
                    line,
                    problem,
                })?,
                Ok(None) => {}
                Err(RegistryError::Sys(error)) if error.kind() == ErrorKind::PermissionDenied => {}
                Err(error) => return Err(error),
            }
        }
        Ok(all)
    }

    /// Whether a host may be spoken to without TLS. A network holds addresses only: docker would also look names up.
    pub fn is_insecure(&self, host: &str) -> bool {
        let address = address_of(host);
        self.insecure_hosts.iter().any(|known| known == host)
            || address.is_some_and(|address| {
                self.insecure_networks.iter().any(|(network, bits)| in_network(address, *network, *bits))
            })
    }

    fn add(&mut self, text: &str) -> std::result::Result<(), (Option<usize>, SettingsProblem)> {
        #[derive(serde::Deserialize, Default)]
        #[serde(rename_all = "kebab-case", default)]
        struct File {
            insecure_registries: Vec<String>,
            registry_mirrors: Vec<String>,
        }
        if text.trim().is_empty() {
            return Ok(());
        }
        let file: File = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            (Some(error.line()), SettingsProblem::Syntax { format: "JSON", message })
        })?;
        let line = |item: &str| text.lines().position(|line| line.contains(item)).map(|line| line + 1);
        let wrong = |key, expected, found: &str| {
            (line(found), SettingsProblem::WrongValue { key, expected, found: found.to_owned() })
        };
        for item in &file.insecure_registries {
            // docker takes URLs too, and warns.
            let bare = item.strip_prefix("https://").or_else(|| item.strip_prefix("http://")).unwrap_or(item);
            match (network(bare), registry_of(bare)) {
                (Some(network), _) => self.insecure_networks.push(network),
                (None, Ok(host)) if !bare.trim_end_matches('/').contains('/') => {
                    self.insecure_hosts.push(host)
                }
                (None, _) => {
                    return Err(wrong(
                        "insecure-registries",
                        "hosts, with a port if need be, and networks",
                        item,
                    ));
                }
            }
        }
        for item in &file.registry_mirrors {
            let url = Url::parse(item, false).filter(|_| item.contains("://"));
            self.mirrors.push(url.ok_or_else(|| wrong("registry-mirrors", "URLs", item))?);
        }
        Ok(())
    }
}

/// `10.0.0.0/8`.
fn network(text: &str) -> Option<(IpAddr, u32)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits) = (address.parse().ok()?, bits.parse().ok()?);
    (bits <= bits_of(address).1).then_some((address, bits))
}

fn in_network(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let ((address, width), (network, network_width)) = (bits_of(address), bits_of(network));
    let shift = width.saturating_sub(bits);
    width == network_width
        && address.checked_shr(shift).unwrap_or(0) == network.checked_shr(shift).unwrap_or(0)
}

fn bits_of(address: IpAddr) -> (u128, u32) {
    match address {
        IpAddr::V4(address) => (u128::from(u32::from(address)), 32),
        IpAddr::V6(address) => (u128::from(address), 128),
    }
}
