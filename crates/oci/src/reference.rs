//! The name of an image: `registry/repository[:tag][@digest]`.
//!
//! Parsing gives what Go's `distribution/reference` gives in `ParseNormalizedNamed`, with one exception: a first
//! component that looks like a host name but is none (`foo_bar.com/a`) is refused, where Go makes a name without
//! registry of it. The familiar form differs from Go's where Go's would read as another image.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, DigestError, shorten};

/// The registry that is meant when none is named.
pub const DEFAULT_REGISTRY: &str = "docker.io";
/// The tag that is meant when none is named.
pub const DEFAULT_TAG: &str = "latest";
/// The most characters of a repository.
pub const REPOSITORY_LENGTH_MAX: usize = 255;
/// The most characters of a tag.
pub const TAG_LENGTH_MAX: usize = 128;

/// An older name of the default registry.
const LEGACY_DEFAULT_REGISTRY: &str = "index.docker.io";
/// Where docker.io keeps repositories of one component.
const OFFICIAL_PREFIX: &str = "library/";

/// Why a text does not name an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// Nothing was given.
    #[error("image name is empty")]
    Empty,
    /// The repository has upper-case letters and is otherwise fine.
    #[error("image name must be lowercase: `{reference}`")]
    Uppercase {
        /// The text as given.
        reference: String,
        /// The text that would be accepted.
        suggestion: String,
    },
    /// The repository is longer than registries accept.
    #[error(
        "image name is too long, at most {length_max} characters are allowed, found {length}: `{reference}`"
    )]
    TooLong {
        /// The text as given, shortened.
        reference: String,
        /// Characters found.
        length: usize,
        /// Characters allowed.
        length_max: usize,
    },
    /// The name is an image ID, which is not a name.
    #[error("image name must not be 64 hex digits, that is an image ID: `{reference}`")]
    LooksLikeId {
        /// The text as given.
        reference: String,
    },
    /// A user, perhaps with a password, stands before the registry. What was given is not repeated.
    #[error("image names hold no logins, found one before `@{registry}/`")]
    Login {
        /// What stands behind it.
        registry: String,
    },
    /// The registry is not a host with an optional port.
    #[error("invalid registry `{registry}` in image name: `{reference}`")]
    InvalidRegistry {
        /// The part that is wrong.
        registry: String,
        /// The text as given, shortened.
        reference: String,
    },
    /// A component of the repository is wrong.
    #[error("invalid component `{component}` in image name: `{reference}`")]
    InvalidRepository {
        /// The component that is wrong; it may be empty.
        component: String,
        /// The text as given, shortened.
        reference: String,
    },
    /// The tag is empty, too long, or has other characters than letters, digits, `_`, `.` and `-`.
    #[error("invalid tag `{tag}` in image name: `{reference}`")]
    InvalidTag {
        /// The part that is wrong.
        tag: String,
        /// The text as given, shortened.
        reference: String,
    },
    /// The digest is wrong.
    #[error("invalid digest in image name `{reference}`: {source}")]
    InvalidDigest {
        /// The text as given, shortened.
        reference: String,
        /// What is wrong with it.
        source: DigestError,
    },
}

/// The name of an image. The registry is always present, and `library/` too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// What a user may give for an image: a name, or an image ID in full.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyReference {
    /// A name.
    Name(Reference),
    /// A digest, given as 64 hex digits or with its algorithm.
    Id(Digest),
}

impl AnyReference {
    /// Reads a name or a full digest. Whether a short hex text is the beginning of an ID is for the store to say.
    pub fn parse(text: &str) -> Result<AnyReference, ReferenceError> {
        if let Ok(digest) = Digest::parse(&format!("sha256:{text}")).or_else(|_| Digest::parse(text)) {
            return Ok(AnyReference::Id(digest));
        }
        Reference::parse(text).map(AnyReference::Name)
    }
}

impl Reference {
    /// Reads a name as a user writes it: `debian`, `debian:12`, `localhost:5000/a/b@sha256:...`.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if text.is_empty() {
            return Err(ReferenceError::Empty);
        }
        if is_identifier(text) {
            return Err(ReferenceError::LooksLikeId { reference: text.to_owned() });
        }
        // Digests have no slash, so what has one behind an `@` is a URL's idea of a registry.
        if let Some((registry, _)) = text.rsplit_once('@').and_then(|(_, rest)| rest.split_once('/')) {
            return Err(ReferenceError::Login { registry: shorten(registry) });
        }
        parse_normalized(text).map_err(|error| match error {
            ReferenceError::InvalidRepository { .. } => suggest_lowercase(text).unwrap_or(error),
            error => error,
        })
    }

    /// The registry's host and port, `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The full path in the registry: `library/debian`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if one was given.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// Whether there is neither a tag nor a digest.
    pub fn is_name_only(&self) -> bool {
        self.tag.is_none() && self.digest.is_none()
    }

    /// Registry and repository: `docker.io/library/debian`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Registry and repository as users write them: `debian`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.name();
        }
        // What is below `library/` in more than one component keeps the prefix, or it would read as another name.
        let official = self.repository.strip_prefix(OFFICIAL_PREFIX).filter(|rest| !rest.contains('/'));
        match (official, self.repository.split_once('/')) {
            // Bare, it would read as an image ID.
            (Some(official), _) if is_identifier(official) => self.repository.clone(),
            (Some(official), _) => official.to_owned(),
            // Bare, `docker.io/a.b/c` would read as a name in the registry `a.b`; Go prints it so nevertheless.
            (None, Some((first, _))) if looks_like_registry(first) => self.name(),
            (None, _) => self.repository.clone(),
        }
    }

    /// The whole name as users write it: `debian:12`.
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_name())
    }

    /// The whole name in full: `docker.io/library/debian:12`.
    pub fn canonical(&self) -> String {
        self.with_suffix(self.name())
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }

    /// The same name, tagged `latest` if it has neither tag nor digest.
    pub fn with_default_tag(&self) -> Reference {
        let tag = if self.is_name_only() { Some(DEFAULT_TAG.to_owned()) } else { self.tag.clone() };
        Reference { tag, ..self.clone() }
    }

    /// The one thing that is asked of a registry: the digest if there is one (then the tag is dropped), else the tag.
    pub fn resolvable(&self) -> Reference {
        if self.digest.is_some() { Reference { tag: None, ..self.clone() } } else { self.with_default_tag() }
    }

    /// The same name with this tag and without digest.
    pub fn with_tag(&self, tag: &str) -> Result<Reference, ReferenceError> {
        if !is_tag(tag) {
            return Err(ReferenceError::InvalidTag { tag: shorten(tag), reference: self.familiar_name() });
        }
        Ok(Reference { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same name and tag with this digest.
    pub fn with_digest(&self, digest: Digest) -> Reference {
        Reference { digest: Some(digest), ..self.clone() }
    }

    /// The same name without tag and digest.
    pub fn name_only(&self) -> Reference {
        Reference { tag: None, digest: None, ..self.clone() }
    }
}

/// Whether a text is a tag: `[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}`.
pub fn is_tag(text: &str) -> bool {
    text.len() <= TAG_LENGTH_MAX
        && !text.is_empty()
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// Whether a text is a repository, as in the distribution spec's `<name>`.
pub fn is_repository(text: &str) -> bool {
    text.len() <= REPOSITORY_LENGTH_MAX && text.split('/').all(is_path_component)
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let bytes = text.as_bytes();
    let (Some(&first), Some(&last)) = (bytes.first(), bytes.last()) else { return false };
    if !is_word(first) || !is_word(last) {
        return false;
    }
    // Between words stands nothing, one separator, two underscores, or dashes.
    bytes.split(|&byte| is_word(byte)).all(|separator| {
        matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|&byte| byte == b'-')
    })
}

/// A host name, an IPv4 address or an IPv6 address in brackets, with an optional port.
fn is_registry(text: &str) -> bool {
    let is_digits = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(rest) = text.strip_prefix('[') {
        let Some((address, port)) = rest.split_once(']') else { return false };
        return !address.is_empty()
            && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':')
            && (port.is_empty() || port.strip_prefix(':').is_some_and(is_digits));
    }
    let (host, port) = match text.split_once(':') {
        None => (text, None),
        Some((host, port)) => (host, Some(port)),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_digits)
}

/// 64 hex digits in lower case.
fn is_identifier(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Splits into registry and rest, as docker does.
fn split_registry(text: &str) -> (&str, String) {
    let (registry, rest) = match text.split_once('/') {
        Some((LEGACY_DEFAULT_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest)) if looks_like_registry(first) => (first, rest),
        // `localhost:5000` alone is the image `localhost` with a tag: one component is never a registry.
        _ => (DEFAULT_REGISTRY, text),
    };
    if registry == DEFAULT_REGISTRY && !rest.contains('/') {
        return (registry, format!("{OFFICIAL_PREFIX}{rest}"));
    }
    (registry, rest.to_owned())
}

/// Whether a first component is a host rather than an organisation: hosts have a dot or a port, organisations have no
/// upper-case letters.
fn looks_like_registry(component: &str) -> bool {
    component == "localhost" || component.contains(['.', ':']) || component.chars().any(char::is_uppercase)
}

fn parse_normalized(text: &str) -> Result<Reference, ReferenceError> {
    let reference = || shorten(text);
    let (registry, rest) = split_registry(text);
    let (rest, digest) = match rest.split_once('@') {
        None => (rest.as_str(), None),
        Some((rest, digest)) => (rest, Some(digest)),
    };
    let (repository, tag) = match rest.split_once(':') {
        None => (rest, None),
        Some((repository, tag)) => (repository, Some(tag)),
    };
    if !is_registry(registry) {
        return Err(ReferenceError::InvalidRegistry { registry: shorten(registry), reference: reference() });
    }
    if let Some(component) = repository.split('/').find(|component| !is_path_component(component)) {
        return Err(ReferenceError::InvalidRepository {
            component: shorten(component),
            reference: reference(),
        });
    }
    if repository.len() > REPOSITORY_LENGTH_MAX {
        return Err(ReferenceError::TooLong {
            reference: reference(),
            length: repository.len(),
            length_max: REPOSITORY_LENGTH_MAX,
        });
    }
    if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
        return Err(ReferenceError::InvalidTag { tag: shorten(tag), reference: reference() });
    }
    let digest = digest
        .map(Digest::parse)
        .transpose()
        .map_err(|source| ReferenceError::InvalidDigest { reference: reference(), source })?;
    Ok(Reference {
        registry: registry.to_owned(),
        repository: repository.to_owned(),
        tag: tag.map(str::to_owned),
        digest,
    })
}

/// The error for a name that is fine but for its upper-case letters; the tag may have some and keeps them.
fn suggest_lowercase(text: &str) -> Option<ReferenceError> {
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let path_start = name.find('/').map_or(0, |slash| slash + 1);
    let tag_start = name[path_start..].find(':').map_or(name.len(), |colon| path_start + colon);
    let mut suggestion = name[..tag_start].to_ascii_lowercase();
    suggestion.push_str(&name[tag_start..]);
    if let Some(digest) = digest {
        suggestion.push('@');
        suggestion.push_str(digest);
    }
    let is_better = suggestion != text && parse_normalized(&suggestion).is_ok();
    is_better.then(|| ReferenceError::Uppercase { reference: text.to_owned(), suggestion })
}

impl fmt::Display for Reference {
    /// The full form, which reads back as the same value.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.canonical())
    }
}

impl fmt::Debug for Reference {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.canonical())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text)
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Reference, D::Error> {
        let text = String::deserialize(deserializer)?;
        Reference::parse(&text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        let actual = match Reference::parse(text) {
            Ok(reference) => reference.canonical(),
            Err(error) => error.to_string(),
        };
        assert_eq!(actual, expect, "{text}");
    }

    #[test]
    fn names() {
        check("debian", "docker.io/library/debian");
        check("index.docker.io/debian:12", "docker.io/library/debian:12");
        check("localhost:5000/a/b", "localhost:5000/a/b");
        check("localhost:5000", "docker.io/library/localhost:5000");
    }

    #[test]
    fn errors_tell_what_to_do() {
        check("", "image name is empty");
        check("Ubuntu:18.04", "image name must be lowercase: `Ubuntu:18.04`");
        check("a//b", "invalid component `` in image name: `a//b`");
        check("a:-b", "invalid tag `-b` in image name: `a:-b`");
        check("a:", "invalid tag `` in image name: `a:`");
        check("-x.y/a", "invalid registry `-x.y` in image name: `-x.y/a`");
        check("foo_bar.com/a", "invalid registry `foo_bar.com` in image name: `foo_bar.com/a`");
        check("a@md5:00", "invalid digest in image name `a@md5:00`: unsupported digest algorithm: `md5`");
        check("me:hush@a.b/c:1", "image names hold no logins, found one before `@a.b/`");
        check("me@a.b/c", "image names hold no logins, found one before `@a.b/`");
        let id = "a".repeat(64);
        check(&id, &format!("image name must not be 64 hex digits, that is an image ID: `{id}`"));
        assert!(matches!(
            Reference::parse(&format!("a.b/{}", "a".repeat(256))),
            Err(ReferenceError::TooLong { length: 256, length_max: 255, .. })
        ));
    }

    #[test]
    fn suggestions_are_accepted() {
        for (text, expect) in [
            ("Ubuntu:18.04", "ubuntu:18.04"),
            ("Ubuntu:RC1", "ubuntu:RC1"),
            ("localhost:5000/Foo/bar:V1", "localhost:5000/foo/bar:V1"),
            ("a/B", "a/b"),
        ] {
            match Reference::parse(text) {
                Err(ReferenceError::Uppercase { suggestion, .. }) => {
                    assert_eq!(suggestion, expect);
                    assert!(Reference::parse(&suggestion).is_ok());
                }
                other => panic!("{text}: {other:?}"),
            }
        }
        // Lower case alone does not help here.
        assert!(matches!(Reference::parse("UB UNTU"), Err(ReferenceError::InvalidRepository { .. })));
    }

    #[test]
    fn familiar_names_stay_the_same_image() {
        let id = "a".repeat(64);
        for (text, expect) in [
            ("docker.io/library/debian", "debian"),
            ("docker.io/a.b/c", "docker.io/a.b/c"),
            ("docker.io/localhost/c", "docker.io/localhost/c"),
            ("docker.io/library/a/b", "library/a/b"),
            (&format!("docker.io/{id}"), &format!("library/{id}")),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!(reference.familiar(), expect);
            assert_eq!(Reference::parse(expect), Ok(reference));
        }
    }

    #[test]
    fn parts_change() {
        let debian = Reference::parse("debian:12").unwrap();
        assert_eq!(debian.with_tag("13").unwrap().familiar(), "debian:13");
        assert!(debian.with_tag("").is_err());
        let digest = Digest::sha256(b"");
        let pinned = debian.with_digest(digest.clone());
        assert_eq!(pinned.familiar(), format!("debian:12@{digest}"));
        assert_eq!(pinned.resolvable().familiar(), format!("debian@{digest}"));
        assert_eq!(pinned.name_only().with_default_tag().familiar(), "debian:latest");
    }
}
