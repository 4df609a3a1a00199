//! containerd's `hosts.toml`: the hosts of one registry, in order (containerd `docs/hosts.md`).

use std::path::{Path, PathBuf};

use super::defaults::{API_PATH, registry_of};
use crate::endpoint::{ClientCertificate, Purpose, Scheme, Tls};
use crate::error::{Result, SettingsProblem};
use crate::settings_file::{Table, TomlFile, Value};

/// The file of one registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostsToml {
    /// The file.
    pub path: PathBuf,
    /// `[host."URL"]`, in order.
    pub hosts: Vec<Host>,
    /// What stands at the root: the registry itself.
    pub server: Host,
}

/// One host and how it is spoken to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Host {
    /// Scheme, host and path; `None` for a root without `server`.
    pub url: Option<Url>,
    /// What it can do, where that is said.
    pub capabilities: Option<Vec<Purpose>>,
    /// `skip_verify`, where it is set.
    pub skip_verify: Option<bool>,
    /// `ca` and `client`.
    pub tls: Tls,
    /// `[header]`.
    pub headers: Vec<(String, String)>,
}

/// Where a host is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// As it is written; https if nothing is written.
    pub scheme: Scheme,
    /// Host and port.
    pub host: String,
    /// What stands before the repository.
    pub path: String,
}

impl HostsToml {
    /// Reads the file of a directory, if it has one.
    pub fn read(dir: &Path) -> Result<Option<HostsToml>> {
        let path = dir.join("hosts.toml");
        let Some(file) = TomlFile::read(&path)? else { return Ok(None) };
        file.parse(|root| {
            let server = match root.get("server") {
                Some(value) => Some((value.string()?, value)).filter(|(text, _)| !text.is_empty()),
                None => None,
            };
            let hosts = root.get("host").map(|value| value.table()).transpose()?;
            let hosts = hosts.iter().flat_map(Table::entries);
            Ok(HostsToml {
                path: path.clone(),
                hosts: hosts
                    .map(|(url, value)| Host::read(dir, Some((url, value)), value.table()?))
                    .collect::<Result<_>>()?,
                server: Host::read(dir, server, root)?,
            })
        })
        .map(Some)
    }
}

impl Host {
    /// Whether it is asked for this. What is pushed goes to a mirror only if that is said: containerd would push to the first
    /// host, and what was meant for everybody would stay in a cache.
    pub fn takes(&self, purpose: Purpose, is_mirror: bool) -> bool {
        match &self.capabilities {
            Some(capabilities) => capabilities.contains(&purpose),
            None => purpose != Purpose::Push || !is_mirror,
        }
    }

    /// The schemes to try. Where containerd finds TLS settings for a plain host, it tries TLS first.
    pub fn schemes(&self, url: &Url) -> Vec<Scheme> {
        let has_tls = self.skip_verify.is_some() || self.tls != Tls::default();
        match url.scheme {
            Scheme::Https => vec![Scheme::Https],
            Scheme::Http if has_tls && !url.host.ends_with(":80") => vec![Scheme::Https, Scheme::Http],
            Scheme::Http => vec![Scheme::Http],
        }
    }

    fn read(dir: &Path, url: Option<(&str, Value<'_>)>, table: Table<'_>) -> Result<Host> {
        let override_path = table.boolean("override_path")?.unwrap_or(false);
        let url = match url {
            Some((text, value)) => Some(Url::parse(text, override_path).ok_or_else(|| {
                value.place().error(SettingsProblem::WrongValue {
                    key: "server",
                    expected: "the URL of a host",
                    found: without_user(text),
                })
            })?),
            None => None,
        };
        let capabilities = table.strings("capabilities")?.filter(|list| !list.is_empty());
        let capability =
            |(text, place): (&str, crate::settings_file::Place)| match text.to_ascii_lowercase().as_str() {
                "pull" => Ok(Purpose::Pull),
                "resolve" => Ok(Purpose::Resolve),
                "push" => Ok(Purpose::Push),
                _ => Err(place.error(SettingsProblem::WrongValue {
                    key: "capabilities",
                    expected: "`pull`, `resolve` or `push`",
                    found: text.to_owned(),
                })),
            };
        Ok(Host {
            url,
            capabilities: capabilities
                .map(|list| list.into_iter().map(capability).collect::<Result<Vec<_>>>())
                .transpose()?,
            skip_verify: table.boolean("skip_verify")?,
            tls: Tls {
                skip_verify: false,
                authorities: table
                    .get("ca")
                    .map(|value| authorities(dir, value))
                    .transpose()?
                    .unwrap_or_default(),
                client_certificates: (table.get("client"))
                    .map(|value| client_certificates(dir, value))
                    .transpose()?
                    .unwrap_or_default(),
            },
            headers: headers(table)?,
        })
    }
}

impl Url {
    /// Reads a URL, or a host without scheme.
    pub fn parse(text: &str, override_path: bool) -> Option<Url> {
        let (scheme, rest) = match (text.strip_prefix("http://"), text.strip_prefix("https://")) {
            (Some(rest), _) => (Scheme::Http, rest),
            (None, rest) => (Scheme::Https, rest.unwrap_or(text)),
        };
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        registry_of(host).ok()?;
        let path = path.trim_end_matches('/');
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~%+".contains(&byte);
        if !path.bytes().all(is_plain) || path.split('/').any(|part| matches!(part, "." | "..")) {
            return None;
        }
        let path = match override_path || path.ends_with(API_PATH) {
            true => path.to_owned(),
            false => format!("{path}{API_PATH}"),
        };
        Some(Url { scheme, host: host.to_owned(), path })
    }
}

/// User and password of a URL are nobody's business.
fn without_user(text: &str) -> String {
    match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) => format!("{}***{}", &text[..scheme + 3], &text[at..]),
        (None, Some(at)) => format!("***{}", &text[at..]),
        _ => text.to_owned(),
    }
}

/// A file or several.
fn authorities(dir: &Path, value: Value<'_>) -> Result<Vec<PathBuf>> {
    match value.items() {
        Some(items) => items.iter().map(|item| Ok(dir.join(item.string()?))).collect(),
        None => {
            Ok(vec![dir.join(value.string().map_err(|_| value.wrong("a string or an array of strings"))?)])
        }
    }
}

/// A file, several, or pairs of certificate and key.
fn client_certificates(dir: &Path, value: Value<'_>) -> Result<Vec<ClientCertificate>> {
    let wrong = || value.wrong("a file, an array of files, or an array of pairs of files");
    let one = |item: &Value<'_>| match item.items().as_deref() {
        None => {
            Ok(ClientCertificate { certificate: dir.join(item.string().map_err(|_| wrong())?), key: None })
        }
        Some([certificate, key]) => Ok(ClientCertificate {
            certificate: dir.join(certificate.string()?),
            // containerd takes an empty text for "in the same file".
            key: Some(key.string()?).filter(|key| !key.is_empty()).map(|key| dir.join(key)),
        }),
        Some(_) => Err(wrong()),
    };
    match value.items() {
        Some(items) => items.iter().map(one).collect(),
        None => Ok(vec![one(&value)?]),
    }
}

fn headers(table: Table<'_>) -> Result<Vec<(String, String)>> {
    let Some(table) = table.get("header").map(|value| value.table()).transpose()? else {
        return Ok(Vec::new());
    };
    let mut headers = Vec::new();
    for (name, value) in table.entries() {
        match value.items() {
            Some(items) => {
                for item in items {
                    headers.push((name.to_owned(), item.string()?.to_owned()));
                }
            }
            None => {
                let text = value.string().map_err(|_| value.wrong("a string or an array of strings"))?;
                headers.push((name.to_owned(), text.to_owned()));
            }
        }
    }
    Ok(headers)
}
