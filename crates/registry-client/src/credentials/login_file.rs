//! One file of logins: docker's `config.json` or podman's `auth.json`, which are one format.
//!
//! Errors name keys, never values.

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::Credential;
use super::keys::{Fit, fit, is_whole, servers};
use crate::error::{RegistryError, Result, SettingsProblem};
use crate::secret::Secret;
use crate::settings_file;

/// What a file says of the login for a repository.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// The helper that is asked first.
    pub helper: Option<NamedHelper>,
    /// What stands in the file itself.
    pub credential: Option<Credential>,
}

/// A helper that a file names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NamedHelper {
    /// Without `docker-credential-`.
    pub name: String,
    /// What it is asked about, one after the other.
    pub servers: Vec<String>,
}

/// The file, read.
pub(crate) struct LoginFile<'a> {
    path: &'a Path,
    root: Map<String, Value>,
}

impl<'a> LoginFile<'a> {
    /// Reads a file; one that is not there or empty has nothing.
    pub fn read(path: &'a Path) -> Result<LoginFile<'a>> {
        let text = settings_file::read(path)?.unwrap_or_default();
        if text.trim().is_empty() {
            return Ok(LoginFile { path, root: Map::new() });
        }
        // The message of the parser could hold a part of the text.
        let root = serde_json::from_str(&text).map_err(|error| RegistryError::Settings {
            path: path.to_owned(),
            line: Some(error.line()).filter(|line| *line > 0),
            problem: SettingsProblem::Syntax {
                format: "JSON",
                message: match error.classify() {
                    serde_json::error::Category::Eof => "it ends too early".to_owned(),
                    _ => format!("something else was expected in column {}", error.column()),
                },
            },
        })?;
        match root {
            Value::Object(root) => Ok(LoginFile { path, root }),
            _ => Err(wrong(path, "", "an object")),
        }
    }

    /// The values, to be changed and written back.
    pub fn into_values(self) -> Map<String, Value> {
        self.root
    }

    /// What it says of a repository.
    pub fn login(&self, registry: &str, repository: &str) -> Result<Login> {
        let (mut helper, mut credential) = (self.named_helper(registry, repository)?, None);
        if let Some((fit, key, value)) = self.best("auths", registry, repository)? {
            credential = self.credential(key, value)?;
            // A login for a part of the registry is not the business of a helper for more of it.
            helper = helper.filter(|(part, _)| credential.is_none() || *part >= fit.0);
        }
        Ok(Login { helper: helper.map(|(_, helper)| helper), credential })
    }

    /// The helper for a registry as a whole.
    pub fn helper(&self, registry: &str) -> Result<Option<NamedHelper>> {
        Ok(self.named_helper(registry, "")?.map(|(_, helper)| helper))
    }

    /// The helper, and the length of the part of the registry that it is for.
    fn named_helper(&self, registry: &str, repository: &str) -> Result<Option<(usize, NamedHelper)>> {
        let (part, key, name) = match self.best("credHelpers", registry, repository)? {
            Some((fit, key, value)) => (fit.0, key, self.text(&format!("credHelpers.{key}"), value)?),
            None => match self.root.get("credsStore").filter(|value| !value.is_null()) {
                Some(value) => (0, registry, self.text("credsStore", value)?),
                None => return Ok(None),
            },
        };
        let servers = if part > 0 { vec![key.to_owned()] } else { servers(registry) };
        let helper = NamedHelper { name: name.to_owned(), servers };
        Ok(Some((part, helper)).filter(|_| !name.is_empty()))
    }

    /// Whether there is an entry, even an empty one, for a registry as a whole.
    pub fn has_entry(&self, registry: &str) -> Result<bool> {
        Ok(self.object("auths")?.is_some_and(|auths| auths.keys().any(|key| is_whole(key, registry))))
    }

    /// Headers for every request.
    pub fn http_headers(&self) -> Result<Vec<(String, String)>> {
        let Some(headers) = self.object("HttpHeaders")? else { return Ok(Vec::new()) };
        let header = |(name, value): (&String, &Value)| {
            Ok((name.clone(), self.text(&format!("HttpHeaders.{name}"), value)?.to_owned()))
        };
        headers.iter().map(header).collect()
    }

    fn best(&self, section: &str, registry: &str, repository: &str) -> Result<Option<(Fit, &str, &Value)>> {
        let Some(entries) = self.object(section)? else { return Ok(None) };
        let mut fitting: BTreeMap<_, _> = BTreeMap::new();
        for (key, value) in entries {
            if let Some(fit) = fit(key, registry, repository) {
                fitting.entry(fit).or_insert((key.as_str(), value));
            }
        }
        Ok(fitting.pop_last().map(|(fit, (key, value))| (fit, key, value)))
    }

    fn object(&self, key: &str) -> Result<Option<&Map<String, Value>>> {
        match self.root.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(object)),
            Some(_) => Err(wrong(self.path, key, "an object")),
        }
    }

    fn text<'v>(&self, key: &str, value: &'v Value) -> Result<&'v str> {
        value.as_str().ok_or_else(|| wrong(self.path, key, "a string"))
    }

    fn credential(&self, key: &str, value: &Value) -> Result<Option<Credential>> {
        let place = |field: &str| format!("auths.{key}.{field}");
        let Value::Object(entry) = value else {
            return if value.is_null() {
                Ok(None)
            } else {
                Err(wrong(self.path, &format!("auths.{key}"), "an object"))
            };
        };
        let field = |name: &str| -> Result<Option<&str>> {
            let value = entry.get(name).filter(|value| !value.is_null());
            let text = value.map(|value| self.text(&place(name), value)).transpose()?;
            Ok(text.filter(|text| !text.is_empty()))
        };
        if let Some(token) = field("registrytoken")? {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = field("identitytoken")? {
            return Ok(Some(Credential::IdentityToken(Secret::new(token))));
        }
        let (username, password) = match field("auth")? {
            Some(auth) => {
                decode(auth).ok_or_else(|| wrong(self.path, &place("auth"), "`user:password` in base64"))?
            }
            None => match (field("username")?, field("password")?) {
                (Some(username), Some(password)) => (username.to_owned(), password.to_owned()),
                _ => return Ok(None),
            },
        };
        Ok(Some(Credential::basic(username, password)))
    }
}

/// User and password; only the password may hold colons.
fn decode(auth: &str) -> Option<(String, String)> {
    // Some tools leave the padding out.
    let bare = auth.trim().trim_end_matches('=');
    let bytes = STANDARD.decode(format!("{bare}{}", "=".repeat((4 - bare.len() % 4) % 4))).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    let (username, password) = text.split_once(':')?;
    // Very old dockers padded with zeros.
    Some((username.to_owned(), password.trim_matches('\0').to_owned()))
}

/// As it stands in `auth`.
pub(crate) fn encode(username: &str, password: &Secret) -> String {
    STANDARD.encode(format!("{username}:{}", password.reveal()))
}

/// A value is of another type than it must be.
pub(crate) fn wrong(path: &Path, key: &str, expected: &'static str) -> RegistryError {
    let key = if key.is_empty() { "the file" } else { key };
    RegistryError::Settings {
        path: path.to_owned(),
        line: None,
        problem: SettingsProblem::WrongType { key: key.to_owned(), expected },
    }
}
