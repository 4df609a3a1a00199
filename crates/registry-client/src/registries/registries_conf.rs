//! containers-registries.conf(5), version 2, and version 1 as podman still takes it; containers-registries.conf.d(5).

use std::collections::BTreeMap;
use std::path::Path;

use mica_oci::Reference;

use super::defaults::registry_of;
use super::paths::Paths;
use crate::error::{RegistryError, Result, SettingsProblem};
use crate::settings_file::{Place, Table, TomlFile};

/// All files together.
#[derive(Clone, Debug, Default)]
pub(crate) struct RegistriesConf {
    /// `[[registry]]`.
    pub registries: Vec<Namespace>,
    /// `unqualified-search-registries`.
    pub search: Vec<String>,
    /// `[aliases]`: short names and what they stand for.
    pub aliases: BTreeMap<String, Alias>,
    /// `credential-helpers`.
    pub credential_helpers: Vec<String>,
}

/// What a short name stands for.
#[derive(Clone, Debug)]
pub(crate) struct Alias {
    /// The full name, without tag and digest.
    pub name: String,
    /// Where it is said.
    pub place: Place,
}

/// `[[registry]]`: settings of all names that begin with a prefix.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    /// The beginning of the names, or `*.` and a domain.
    pub prefix: String,
    /// What takes the prefix's place; empty: nothing changes.
    pub location: String,
    /// `insecure`, where it is set.
    pub insecure: Option<bool>,
    /// Nothing of it may be used.
    pub blocked: bool,
    /// Mirrors, in order.
    pub mirrors: Vec<Mirror>,
    /// Where it is said.
    pub place: Place,
}

/// `[[registry.mirror]]`.
#[derive(Clone, Debug)]
pub(crate) struct Mirror {
    /// What takes the prefix's place.
    pub location: String,
    /// `insecure`, where it is set.
    pub insecure: Option<bool>,
    /// Which references it is for.
    pub fit_for: FitFor,
    /// Where it is said.
    pub place: Place,
}

/// `pull-from-mirror`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FitFor {
    All,
    Digests,
    Tags,
}

impl FitFor {
    /// Whether a mirror is asked for this reference.
    pub fn takes(self, reference: &Reference) -> bool {
        match self {
            FitFor::All => true,
            FitFor::Digests => reference.digest().is_some(),
            FitFor::Tags => reference.digest().is_none(),
        }
    }
}

impl RegistriesConf {
    /// Reads the file and its drop-ins, as podman does: drop-ins in the order of their names, directory after directory; what
    /// comes later counts more. If the user has a file, the system's drop-ins are not read.
    pub fn read(paths: &Paths) -> Result<RegistriesConf> {
        let mut conf = RegistriesConf::default();
        let mut of_user = false;
        for path in &paths.registries_conf {
            if let Some(file) = TomlFile::read(path)? {
                file.parse(|root| conf.add(root, true))?;
                of_user = paths.registries_conf_of_user.as_ref() == Some(path);
                break;
            }
            if let Some(variable) = paths.registries_conf_named_by {
                let problem = SettingsProblem::Absent { variable };
                return Err(RegistryError::Settings { path: path.clone(), line: None, problem });
            }
        }
        let skipped = match of_user {
            true => paths.registries_conf_d.len().saturating_sub(1),
            false => 0,
        };
        for dir in paths.registries_conf_d.iter().skip(skipped) {
            for name in drop_ins(dir)? {
                if let Some(file) = TomlFile::read(&dir.join(name))? {
                    file.parse(|root| conf.add(root, false))?;
                }
            }
        }
        Ok(conf)
    }

    /// The `[[registry]]` with the longest prefix that a name begins with, and how much of the name that is.
    pub fn namespace(&self, name: &str) -> Option<(&Namespace, usize)> {
        let matching = |namespace| matched(name, namespace).map(|length| (namespace, length));
        // Of equal ones the first, as podman has it.
        self.registries.iter().rev().filter_map(matching).max_by_key(|(namespace, _)| namespace.prefix.len())
    }

    fn add(&mut self, root: Table<'_>, may_be_v1: bool) -> Result<()> {
        if let Some(old) = root.get("registries") {
            let other = ["registry", "unqualified-search-registries", "aliases"]
                .into_iter()
                .find(|key| root.get(key).is_some());
            if let (Some(other), _) | (None, Some(other)) = (other, (!may_be_v1).then_some("version 2")) {
                return Err(old.place().error(SettingsProblem::Conflict { key: "registries", other }));
            }
            return self.add_version_1(old.table()?);
        }
        if let Some(search) = root.strings("unqualified-search-registries")? {
            self.search = search.into_iter().map(search_registry).collect::<Result<_>>()?;
        }
        if let Some(helpers) = root.strings("credential-helpers")? {
            self.credential_helpers = helpers.into_iter().map(|(helper, _)| helper.to_owned()).collect();
        }
        for table in root.tables("registry")? {
            let namespace = Namespace::read(table)?;
            match self.registries.iter_mut().find(|known| known.prefix == namespace.prefix) {
                Some(known) => *known = namespace,
                None => self.registries.push(namespace),
            }
        }
        let aliases = root.get("aliases").map(|aliases| aliases.table()).transpose()?;
        for (name, value) in aliases.iter().flat_map(Table::entries) {
            match value.string()? {
                "" => self.aliases.remove(name),
                full => {
                    let alias = Alias { name: full.to_owned(), place: value.place() };
                    self.aliases.insert(name.to_owned(), alias)
                }
            };
        }
        Ok(())
    }

    /// `[registries.search]`, `[registries.insecure]` and `[registries.block]`.
    fn add_version_1(&mut self, registries: Table<'_>) -> Result<()> {
        let list = |key: &str| -> Result<_> {
            let table = registries.get(key).map(|value| value.table()).transpose()?;
            Ok(table.map(|table| table.strings("registries")).transpose()?.flatten().unwrap_or_default())
        };
        self.search = list("search")?.into_iter().map(search_registry).collect::<Result<_>>()?;
        let (insecure, block) = (list("insecure")?, list("block")?);
        for (is_blocked, (text, place)) in
            (insecure.into_iter().map(|item| (false, item))).chain(block.into_iter().map(|item| (true, item)))
        {
            let prefix = location("registries", text, &place)?;
            let mut namespace = Namespace {
                location: prefix.clone(),
                insecure: None,
                blocked: false,
                mirrors: Vec::new(),
                place,
                prefix,
            };
            let known = self.registries.iter().position(|known| known.prefix == namespace.prefix);
            if let Some(position) = known {
                namespace = self.registries.swap_remove(position);
            }
            match is_blocked {
                true => namespace.blocked = true,
                false => namespace.insecure = Some(true),
            }
            self.registries.push(namespace);
        }
        Ok(())
    }
}

impl Namespace {
    fn read(table: Table<'_>) -> Result<Namespace> {
        let text = |key: &'static str| -> Result<Option<String>> {
            let Some((text, place)) = table.string(key)?.filter(|(text, _)| !text.is_empty()) else {
                return Ok(None);
            };
            location(key, text, &place).map(Some)
        };
        let (prefix, location) = (text("prefix")?, text("location")?);
        let missing = |key, why| table.place().error(SettingsProblem::Missing { key, why });
        let wrong = |key, expected, found: &str| {
            table.place().error(SettingsProblem::WrongValue { key, expected, found: found.to_owned() })
        };
        let (prefix, location) = match (prefix, location) {
            (Some(prefix), Some(location)) => (prefix, location),
            (Some(prefix), None) if prefix.starts_with("*.") => (prefix, String::new()),
            (None, Some(location)) if location.starts_with("*.") => {
                return Err(wrong("location", "a host, with or without a path", &location));
            }
            (None, Some(location)) => (location.clone(), location),
            (Some(_), None) => {
                return Err(missing("location", "it says where the names with this prefix are"));
            }
            (None, None) => return Err(missing("prefix", "it says which names the table is about")),
        };
        if prefix.contains('*') && (prefix.rfind('*') != Some(0) || prefix.contains(['/', ':'])) {
            return Err(wrong("prefix", "`*.` and a domain if it has a `*`", &prefix));
        }
        let by_digest_only = table.boolean("mirror-by-digest-only")?.unwrap_or(false);
        let mirrors = table.tables("mirror")?;
        Ok(Namespace {
            insecure: table.boolean("insecure")?,
            blocked: table.boolean("blocked")?.unwrap_or(false),
            mirrors: mirrors
                .into_iter()
                .map(|mirror| Mirror::read(mirror, by_digest_only))
                .collect::<Result<_>>()?,
            place: table.place(),
            prefix,
            location,
        })
    }
}

impl Mirror {
    fn read(table: Table<'_>, by_digest_only: bool) -> Result<Mirror> {
        let Some((text, place)) = table.string("location")?.filter(|(text, _)| !text.is_empty()) else {
            let why = "it says where the mirror is";
            return Err(table.place().error(SettingsProblem::Missing { key: "location", why }));
        };
        let pull = table.string("pull-from-mirror")?.filter(|(text, _)| !text.is_empty());
        let fit_for = match (&pull, by_digest_only) {
            (Some((_, place)), true) => {
                return Err(place.error(SettingsProblem::Conflict {
                    key: "pull-from-mirror",
                    other: "mirror-by-digest-only",
                }));
            }
            (None, true) => FitFor::Digests,
            (None, false) => FitFor::All,
            (Some((text, place)), false) => match *text {
                "all" => FitFor::All,
                "digest-only" => FitFor::Digests,
                "tag-only" => FitFor::Tags,
                found => {
                    return Err(place.error(SettingsProblem::WrongValue {
                        key: "pull-from-mirror",
                        expected: "`all`, `digest-only` or `tag-only`",
                        found: found.to_owned(),
                    }));
                }
            },
        };
        let location = location("location", text, &place)?;
        Ok(Mirror { location, insecure: table.boolean("insecure")?, fit_for, place: table.place() })
    }
}

/// The name that a location makes of a name whose beginning it takes the place of.
pub(crate) fn rewrite(
    reference: &Reference,
    matched: usize,
    location: &str,
    place: &Place,
) -> Result<Reference> {
    let name = reference.canonical();
    let Some(rest) = name.get(matched..).filter(|_| !location.is_empty()) else {
        return Ok(reference.clone());
    };
    let written = format!("{location}{rest}");
    // `x/y` would be read as `docker.io/x/y`: the host must be one, and the tag and digest must stay.
    let parsed = Reference::parse(&written).ok().filter(|parsed| {
        parsed.canonical() == written
            && parsed.tag() == reference.tag()
            && parsed.digest() == reference.digest()
    });
    parsed.ok_or_else(|| place.error(SettingsProblem::Rewritten { name, rewritten: written }))
}

/// The length of what a prefix matches.
fn matched(name: &str, namespace: &Namespace) -> Option<usize> {
    let prefix = namespace.prefix.as_str();
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = name.split_once('/').map_or(name, |(host, _)| host);
        let bare = mica_http::split_port(host).0;
        return bare.strip_suffix(domain).map(|_| host.len());
    }
    let rest = name.strip_prefix(prefix)?;
    let ends = match rest.bytes().next() {
        None | Some(b'/' | b'@') => true,
        // After a host, it is another port's beginning; after a repository, a tag's.
        Some(b':') => prefix.contains('/'),
        Some(_) => false,
    };
    ends.then_some(prefix.len())
}

/// Checks a prefix or location: a host and maybe a path, no URL.
fn location(key: &'static str, text: &str, place: &Place) -> Result<String> {
    let trimmed = text.trim_end_matches('/');
    let is_odd = trimmed.contains("://") || trimmed.contains(|c: char| c.is_whitespace() || c.is_control());
    if trimmed.is_empty() || is_odd {
        let expected = "a host, with or without a path, and no scheme";
        return Err(place.error(SettingsProblem::WrongValue { key, expected, found: text.to_owned() }));
    }
    Ok(trimmed.to_owned())
}

fn search_registry((text, place): (&str, Place)) -> Result<String> {
    let text = text.trim_end_matches('/');
    match registry_of(text) {
        Ok(registry) if !text.contains('/') => Ok(registry),
        _ => Err(place.error(SettingsProblem::WrongValue {
            key: "unqualified-search-registries",
            expected: "hosts, with a port if need be",
            found: text.to_owned(),
        })),
    }
}

fn drop_ins(dir: &Path) -> Result<Vec<std::ffi::OsString>> {
    let mut names = crate::settings_file::names(dir)?;
    names.retain(|name| Path::new(name).extension().is_some_and(|extension| extension == "conf"));
    Ok(names)
}

/// A registry or name that may not be used.
pub(crate) fn blocked(name: String, place: &Place) -> RegistryError {
    RegistryError::Blocked { name, path: place.path.clone(), line: place.line }
}
