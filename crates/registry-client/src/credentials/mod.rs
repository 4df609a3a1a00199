//! Logins of this user: docker's `config.json`, podman's `auth.json`, and the helper programs that these name.

mod edit;
mod helper;
mod keys;
mod login_file;

use std::path::PathBuf;

use crate::error::{RegistryError, Result};
use crate::registries::registry_of;
use crate::secret::Secret;
use edit::{edit, login, logins};
use helper::Helpers;
use keys::{docker_key, is_whole, servers};
use login_file::{LoginFile, encode};

/// What a registry is told of who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password, or a personal access token.
        password: Secret,
    },
    /// A refresh token of an earlier login (helpers call its user `<token>`).
    IdentityToken(Secret),
    /// A token that is sent as it is (`registrytoken`).
    RegistryToken(Secret),
}

impl Credential {
    /// User and password.
    pub fn basic(username: impl Into<String>, password: impl Into<String>) -> Credential {
        Credential::Basic { username: username.into(), password: Secret::new(password) }
    }
}

/// Where a login was kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// In this file, readable by whoever reads the file.
    File(PathBuf),
    /// By `docker-credential-<name>`.
    Helper(String),
}

/// The files and helpers that logins are in. Nothing is read before it is asked for.
///
/// Files are asked in this order: `REGISTRY_AUTH_FILE` if it is set, docker's `config.json`, podman's `auth.json` in
/// `XDG_RUNTIME_DIR` and in the user's settings. In each of them the entry counts that says most of the repository, and the
/// helper that the file names for it is asked before the file's own entry is used.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// podman's file, where `REGISTRY_AUTH_FILE` names one.
    override_file: Option<PathBuf>,
    /// docker's `config.json`.
    docker_config: Option<PathBuf>,
    /// podman's files.
    podman_files: Vec<PathBuf>,
    /// Helpers that are asked about every registry, after all files.
    default_helpers: Vec<String>,
    helpers: Helpers,
}

impl Credentials {
    /// Of this user, from `DOCKER_CONFIG`, `REGISTRY_AUTH_FILE`, `XDG_RUNTIME_DIR`, `XDG_CONFIG_HOME`, `HOME`.
    pub fn of_user() -> Credentials {
        let path = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let config_home = path("XDG_CONFIG_HOME").or_else(|| home.as_ref().map(|home| home.join(".config")));
        let docker = path("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let podman = [path("XDG_RUNTIME_DIR"), config_home];
        Credentials {
            override_file: path("REGISTRY_AUTH_FILE"),
            docker_config: docker.map(|dir| dir.join("config.json")),
            podman_files: podman.into_iter().flatten().map(|dir| dir.join("containers/auth.json")).collect(),
            default_helpers: Vec::new(),
            helpers: Helpers { search: std::env::var_os("PATH"), ..Helpers::default() },
        }
    }

    /// Of one `config.json` alone; its helpers are looked for in `PATH`.
    pub fn of_docker_config(path: impl Into<PathBuf>) -> Credentials {
        let helpers = Helpers { search: std::env::var_os("PATH"), ..Helpers::default() };
        Credentials { docker_config: Some(path.into()), helpers, ..Credentials::default() }
    }

    /// The same with helpers for all registries: `credential-helpers` of registries.conf, see
    /// [`crate::Registries::credential_helpers`].
    pub fn with_helpers(self, helpers: &[String]) -> Credentials {
        // podman's word for its own files.
        let is_program = |helper: &&String| helper.as_str() != "containers-auth.json";
        Credentials { default_helpers: helpers.iter().filter(is_program).cloned().collect(), ..self }
    }

    /// The login for a repository of a registry (`docker.io` for Docker Hub): the most specific one.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Option<Credential>> {
        let registry = registry_of(registry)?;
        for path in self.files() {
            let login = LoginFile::read(path)?.login(&registry, repository)?;
            let helper = login.helper.map_or(Ok(None), |helper| self.ask(&helper.name, &helper.servers))?;
            if let Some(credential) = helper.or(login.credential) {
                return Ok(Some(credential));
            }
        }
        for name in &self.default_helpers {
            if let Some(credential) = self.ask(name, &servers(&registry))? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    /// Keeps a login: with the helper that settings name, else in docker's `config.json` (mode 0600, other fields kept). Where
    /// `REGISTRY_AUTH_FILE` names a file, it takes the place of docker's.
    pub fn keep(&self, registry: &str, credential: &Credential) -> Result<Kept> {
        let registry = registry_of(registry)?;
        let file = self.override_file.as_ref().map(|file| (file, registry.as_str()));
        let file = file.or_else(|| self.docker_config.as_ref().map(|file| (file, docker_key(&registry))));
        let (path, key) = file.ok_or_else(|| RegistryError::NoLoginFile { registry: registry.clone() })?;
        let (username, secret) = match credential {
            Credential::Basic { username, .. } if username.contains(':') => {
                return Err(RegistryError::ColonInUsername);
            }
            Credential::Basic { username, password } => (Some(username.as_str()), password),
            Credential::IdentityToken(token) => (None, token),
            Credential::RegistryToken(token) => (None, token),
        };
        // A helper has no word for a registry token.
        let is_for_helper = !matches!(credential, Credential::RegistryToken(_));
        let helper = LoginFile::read(path)?.helper(&registry)?.filter(|_| is_for_helper);
        if let Some(helper) = &helper {
            self.helpers.store(&helper.name, key, username, secret)?;
        }
        edit(path, |root| {
            let entry = login(path, logins(path, root)?, key)?;
            for field in ["auth", "username", "password", "identitytoken", "registrytoken"] {
                entry.shift_remove(field);
            }
            // With a helper, the empty entry says that there is a login: docker writes it, too.
            if helper.is_none() {
                let (field, text) = match credential {
                    Credential::Basic { username, password } => ("auth", encode(username, password)),
                    Credential::IdentityToken(token) => ("identitytoken", token.reveal().to_owned()),
                    Credential::RegistryToken(token) => ("registrytoken", token.reveal().to_owned()),
                };
                entry.insert(field.to_owned(), text.into());
            }
            Ok(true)
        })?;
        Ok(helper.map_or_else(|| Kept::File(path.clone()), |helper| Kept::Helper(helper.name)))
    }

    /// Takes a login away wherever it is; `false` if there was none.
    pub fn erase(&self, registry: &str) -> Result<bool> {
        let registry = registry_of(registry)?;
        let mut had = false;
        for path in self.files() {
            let file = LoginFile::read(path)?;
            let has_entry = file.has_entry(&registry)?;
            if let Some(helper) = file.helper(&registry)? {
                for server in &helper.servers {
                    // Helpers do not say whether there was something to erase.
                    if has_entry || self.helpers.get(&helper.name, server)?.is_some() {
                        self.helpers.erase(&helper.name, server)?;
                        had = true;
                    }
                }
            }
            if has_entry {
                had |= edit(path, |root| {
                    let auths = logins(path, root)?;
                    let before = auths.len();
                    auths.retain(|key, _| !is_whole(key, &registry));
                    Ok(auths.len() < before)
                })?;
            }
        }
        Ok(had)
    }

    /// `HttpHeaders` of docker's `config.json`: for every request to every registry.
    pub fn http_headers(&self) -> Result<Vec<(String, String)>> {
        self.docker_config.as_ref().map_or(Ok(Vec::new()), |path| LoginFile::read(path)?.http_headers())
    }

    fn files(&self) -> impl Iterator<Item = &PathBuf> {
        self.override_file.iter().chain(&self.docker_config).chain(&self.podman_files)
    }

    fn ask(&self, helper: &str, servers: &[String]) -> Result<Option<Credential>> {
        for server in servers {
            if let Some(credential) = self.helpers.get(helper, server)? {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests;
