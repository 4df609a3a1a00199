//! Addresses of git repositories, as BuildKit reads them: where a build context or a source of ADD is git's, and what of it
//! is wanted.
//!
//! ```text
//! https://host/repo.git#REF:DIRECTORY        git@host:path#REF:DIRECTORY        github.com/owner/repo
//! https://host/repo.git?branch=NAME&subdir=DIRECTORY&submodules=false
//! ```

use thiserror::Error;

/// An address of git, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitAddress {
    /// What git is given, without what follows `?` or `#`. May hold a login: not for errors, see [`GitAddress::display`].
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// Directory in the repository; empty for its root.
    pub subdirectory: String,
    /// Last part of the path without `.git`.
    pub short_name: String,
    /// The commit that it must be, or the beginning of it; empty when any will do.
    pub checksum: String,
    /// Whether `.git` is to be there, if the address says.
    pub keep_git_dir: Option<bool>,
    /// Whether submodules are fetched, if the address says.
    pub submodules: Option<bool>,
    /// Which time files have.
    pub times: GitTimes,
    /// Whether the commit is asked for as such, and not what the reference leads to.
    pub fetch_by_commit: bool,
    /// `github.com/owner/repo`, which a path could be as well.
    pub could_be_path: bool,
    /// Nothing keeps others from reading and altering what comes: `git://`, `http://`.
    pub is_unencrypted: bool,
}

/// Which time files of a repository have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GitTimes {
    /// Nothing was said: that of the checkout.
    #[default]
    Unsaid,
    /// That of the checkout.
    Checkout,
    /// That of the commit.
    Commit,
}

/// A text that is no address of git, or a wrong one.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum GitAddressError {
    /// Neither a known protocol nor `user@host:path`.
    #[error("unknown protocol")]
    UnknownProtocol,
    /// A protocol that mica does not let git speak.
    #[error("{scheme}: invalid protocol")]
    InvalidProtocol {
        /// Which.
        scheme: String,
    },
    /// A path, or a web address that does not end in `.git`.
    #[error("invalid argument")]
    NotGit,
    /// A user or a host that programs would take for an option.
    #[error("a name that begins with `-`")]
    LikeOption,
    /// Not a URL at all.
    #[error("malformed URL: {problem}")]
    Malformed {
        /// Why.
        problem: &'static str,
    },
    /// A key that is not known.
    #[error("unexpected query {key:?}")]
    UnexpectedKey {
        /// Which.
        key: String,
    },
    /// A key without a value.
    #[error("query {key:?} has no value")]
    NoValue {
        /// Which.
        key: String,
    },
    /// A key that stands there twice.
    #[error("query {key:?} has multiple values")]
    SeveralValues {
        /// Which.
        key: String,
    },
    /// A value that the key cannot have.
    #[error("invalid {key} value: {value:?}")]
    InvalidValue {
        /// The key.
        key: &'static str,
        /// The value.
        value: String,
    },
    /// The same is said twice, and differently.
    #[error("{what} conflicts: {first:?} vs {second:?}")]
    Conflict {
        /// `ref` or `subdir`.
        what: &'static str,
        /// The one.
        first: String,
        /// The other.
        second: String,
    },
    /// A branch and a tag.
    #[error("branch conflicts with tag")]
    BranchAndTag,
}

impl GitAddressError {
    /// Whether the text was meant as an address of git all the same.
    pub fn is_git(&self) -> bool {
        !matches!(
            self,
            Self::UnknownProtocol | Self::InvalidProtocol { .. } | Self::NotGit | Self::Malformed { .. }
        )
    }
}

impl GitAddress {
    /// Reads an address.
    pub fn parse(text: &str) -> Result<Self, GitAddressError> {
        Self::parse_as(text, false)
    }

    /// Reads an address that is known to be git's, so that one of the web need not end in `.git`.
    pub fn parse_known(text: &str) -> Result<Self, GitAddressError> {
        Self::parse_as(text, true)
    }

    fn parse_as(text: &str, is_known: bool) -> Result<Self, GitAddressError> {
        if text.starts_with("./") || text.starts_with("../") {
            return Err(GitAddressError::NotGit);
        }
        if text.bytes().any(|byte| byte < b' ' || byte == 0x7f) {
            return Err(GitAddressError::Malformed { problem: "a control character" });
        }
        let mut address = Self { could_be_path: text.starts_with("github.com/"), ..Self::default() };
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let (bare, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut fragment = fragment.to_owned();
        match scheme_of(text) {
            _ if address.could_be_path => address.remote = bare.to_owned(),
            Some(scheme) => {
                let scheme = scheme.to_ascii_lowercase();
                if !["http", "https", "ssh", "git"].contains(&scheme.as_str()) {
                    return Err(GitAddressError::InvalidProtocol { scheme });
                }
                let after = &bare[scheme.len()..];
                let path = check_url(after.trim_start_matches("://"))?;
                let is_web = scheme.starts_with("http");
                if is_web && !is_known && !path.ends_with(".git") {
                    return Err(GitAddressError::NotGit);
                }
                address.is_unencrypted = matches!(scheme.as_str(), "http" | "git");
                address.remote = format!("{scheme}{after}");
                fragment = unescape(&fragment, false)
                    .ok_or(GitAddressError::Malformed { problem: "an escape that is none" })?;
            }
            None if is_scp(bare) => address.remote = bare.to_owned(),
            None => return Err(GitAddressError::UnknownProtocol),
        }
        // git and ssh read their words as options; no user and no host is called that.
        let authority = address.remote.split_once("://").map_or(address.remote.as_str(), |(_, rest)| rest);
        // Of `-u@h:a://b` the whole begins with it: there is no scheme.
        if [address.remote.as_str(), authority, address.host()].iter().any(|name| name.starts_with('-')) {
            return Err(GitAddressError::LikeOption);
        }
        let (reference, subdirectory) = fragment.split_once(':').unwrap_or((&fragment, ""));
        (address.reference, address.subdirectory) = (reference.to_owned(), subdirectory.to_owned());
        let last = address.remote.rsplit('/').next().unwrap_or_default();
        address.short_name = last.strip_suffix(".git").unwrap_or(last).to_owned();
        address.read_query(query)?;
        Ok(address)
    }

    fn read_query(&mut self, query: &str) -> Result<(), GitAddressError> {
        let mut seen: Vec<(String, String)> = Vec::new();
        // As Go reads a query: what cannot be read is not there.
        for pair in query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Some(key), Some(value)) = (unescape(key, true), unescape(value, true)) else { continue };
            if seen.iter().any(|(other, _)| *other == key) {
                return Err(GitAddressError::SeveralValues { key });
            }
            seen.push((key, value));
        }
        let (mut tag, mut branch) = (None, None);
        for (key, value) in seen {
            let may_be_empty = matches!(key.as_str(), "submodules" | "keep-git-dir" | "fetch-by-commit");
            if value.is_empty() && !may_be_empty {
                return Err(GitAddressError::NoValue { key });
            }
            match key.as_str() {
                "ref" => set(&mut self.reference, "ref", value)?,
                "tag" => tag = Some(below("refs/tags/", value)),
                "branch" => branch = Some(below("refs/heads/", value)),
                "subdir" => set(&mut self.subdirectory, "subdir", value)?,
                "checksum" | "commit" => self.checksum = value,
                "keep-git-dir" => self.keep_git_dir = Some(truth("keep-git-dir", value)?),
                "submodules" => self.submodules = Some(truth("submodules", value)?),
                "fetch-by-commit" => self.fetch_by_commit = truth("fetch-by-commit", value)?,
                "mtime" => {
                    self.times = match value.as_str() {
                        "checkout" => GitTimes::Checkout,
                        "commit" => GitTimes::Commit,
                        _ => return Err(GitAddressError::InvalidValue { key: "mtime", value }),
                    }
                }
                _ => return Err(GitAddressError::UnexpectedKey { key }),
            }
        }
        match (tag, branch) {
            (Some(_), Some(_)) => return Err(GitAddressError::BranchAndTag),
            (Some(name), None) | (None, Some(name)) => set(&mut self.reference, "ref", name)?,
            (None, None) => {}
        }
        if self.reference.is_empty() && !self.checksum.is_empty() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    /// The address for people: no login, no query.
    pub fn display(&self) -> String {
        without_login(&self.remote)
    }

    /// What git is to fetch from: `github.com/owner/repo` is on the web.
    pub fn url(&self) -> String {
        if self.could_be_path { format!("https://{}", self.remote) } else { self.remote.clone() }
    }

    /// User and password of a web address, and the address without them.
    pub fn split_login(&self) -> (Option<(String, String)>, String) {
        let url = self.url();
        let Some((scheme @ ("http" | "https"), rest)) = url.split_once("://") else { return (None, url) };
        let end = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let Some((login, host)) = authority.rsplit_once('@') else { return (None, url) };
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        let plain = |text: &str| unescape(text, false).unwrap_or_else(|| text.to_owned());
        (Some((plain(user), plain(password))), format!("{scheme}://{host}{path}"))
    }

    /// The host that is asked, with its port.
    pub fn host(&self) -> &str {
        let rest = self.remote.split_once("://").map_or(self.remote.as_str(), |(_, rest)| rest);
        let is_scp = !self.remote.contains("://") && !self.could_be_path;
        let end = if is_scp { rest.find(':') } else { rest.find('/') };
        let authority = &rest[..end.unwrap_or(rest.len())];
        authority.rsplit_once('@').map_or(authority, |(_, host)| host)
    }
}

/// A URL as people may see it: no login, no query, no fragment.
pub fn without_login(url: &str) -> String {
    let bare = url.split(['#', '?']).next().unwrap_or_default();
    let Some((scheme, rest)) = bare.split_once("://") else { return bare.to_owned() };
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

/// An address as history and progress show it: a password is for the fetch alone. In BuildKit's spelling.
pub(crate) fn redacted(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    match authority.rsplit_once('@') {
        Some((login, host)) if login.contains(':') => format!("{scheme}://xxxxx:xxxxx@{host}{path}"),
        _ => url.to_owned(),
    }
}

/// `[a-zA-Z0-9]+` before `://`.
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_scheme = !scheme.is_empty() && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric());
    is_scheme.then_some(scheme)
}

/// Looks at what follows `://`, and answers its path.
fn check_url(rest: &str) -> Result<&str, GitAddressError> {
    let end = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let after = host.rfind(']').map_or(host, |end| &host[end..]);
    let port = after.rsplit_once(':').map_or("", |(_, port)| port);
    if !port.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(GitAddressError::Malformed { problem: "an invalid port" });
    }
    if authority.contains(' ') || unescape(path, false).is_none() {
        return Err(GitAddressError::Malformed { problem: "an escape that is none" });
    }
    Ok(path)
}

/// `user@host:path`
fn is_scp(text: &str) -> bool {
    let Some((user, rest)) = text.split_once('@') else { return false };
    let Some((host, _)) = rest.split_once(':') else { return false };
    let is_name = |name: &str, extra: char| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == extra)
    };
    is_name(user, '_') && is_name(host, '.')
}

fn set(field: &mut String, what: &'static str, value: String) -> Result<(), GitAddressError> {
    if !field.is_empty() && *field != value {
        return Err(GitAddressError::Conflict { what, first: field.clone(), second: value });
    }
    *field = value;
    Ok(())
}

fn below(prefix: &str, name: String) -> String {
    if name.starts_with(prefix) { name } else { format!("{prefix}{name}") }
}

/// A key alone says yes; else what Go takes.
fn truth(key: &'static str, value: String) -> Result<bool, GitAddressError> {
    match value.as_str() {
        "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(GitAddressError::InvalidValue { key, value }),
    }
}

/// Percent signs resolved; `None` where one does not begin an escape, or the result is not text.
pub(crate) fn unescape(text: &str, plus_is_blank: bool) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                u8::try_from(digit(rest.next())? * 16 + digit(rest.next())?).ok()?
            }
            b'+' if plus_is_blank => b' ',
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logins_are_not_shown() {
        for (text, expect) in [
            ("https://me:hush@h/a.git?ref=hush#hush", "https://h/a.git"),
            ("https://h/a@b.git", "https://h/a@b.git"),
            ("git@h:a.git", "git@h:a.git"),
            ("https://hush@h", "https://h"),
        ] {
            assert_eq!(without_login(text), expect, "{text}");
        }
    }

    #[test]
    fn no_name_is_read_as_an_option() {
        for text in [
            "-et@h:a",
            "-git@h:a/hntp://#b",
            "git@-oProxyCommand=x:a",
            "ssh://-oProxyCommand=x/a",
            "ssh://git@-x/a",
            "https://-x/a.git",
        ] {
            let error = GitAddress::parse(text).expect_err(text);
            assert!(
                matches!(error, GitAddressError::LikeOption | GitAddressError::UnknownProtocol),
                "{text}: {error}"
            );
        }
        GitAddress::parse("git@h:-a.git").expect("a path is no name");
    }

    #[test]
    fn logins_are_taken_out() {
        let split = |text: &str| GitAddress::parse(text).unwrap().split_login();
        let login = Some(("me".to_owned(), "a@b".to_owned()));
        assert_eq!(split("https://me:a%40b@h/a.git"), (login, "https://h/a.git".to_owned()));
        assert_eq!(split("ssh://git@h/a.git"), (None, "ssh://git@h/a.git".to_owned()));
        assert_eq!(split("github.com/a/b"), (None, "https://github.com/a/b".to_owned()));
    }

    #[test]
    fn hosts() {
        for (text, expect) in [
            ("https://me:hush@h:8080/a.git", "h:8080"),
            ("git@h.example:a/b.git", "h.example"),
            ("github.com/a/b", "github.com"),
            ("ssh://git@h:22/a", "h:22"),
        ] {
            assert_eq!(GitAddress::parse(text).unwrap().host(), expect, "{text}");
        }
    }

    #[test]
    fn wrong_addresses() {
        for (text, expect) in [
            ("ext::sh -c id", "unknown protocol"),
            ("file:///etc", "file: invalid protocol"),
            ("ext://h/a.git", "ext: invalid protocol"),
            ("https://h:port/a.git", "malformed URL: an invalid port"),
            ("https://h/%zz.git", "malformed URL: an escape that is none"),
            ("https://h/a.git?tag=a&branch=b", "branch conflicts with tag"),
            ("https://h/a.git?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("https://h/a.git?ref=", "query \"ref\" has no value"),
            ("https://h/a.git?mtime=now", "invalid mtime value: \"now\""),
            ("https://h/a.git?subdir=a#:b", "subdir conflicts: \"b\" vs \"a\""),
        ] {
            assert_eq!(GitAddress::parse(text).unwrap_err().to_string(), expect, "{text}");
        }
    }

    #[test]
    fn keys_without_a_value_say_yes() {
        let address =
            GitAddress::parse("https://h/a.git?submodules&keep-git-dir=0&commit=abc&fetch-by-commit")
                .unwrap();
        assert_eq!((address.submodules, address.keep_git_dir), (Some(true), Some(false)));
        assert_eq!((address.reference.as_str(), address.fetch_by_commit), ("abc", true));
        assert!(GitAddress::parse("https://h/x").is_err());
        assert!(GitAddress::parse_known("https://h/x").is_ok());
    }
}
