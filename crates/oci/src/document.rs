//! What manifests, indexes and configs have in common: bounds, errors, reading, writing.

use std::collections::BTreeMap;

use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Map, Value};

use crate::digest::{Digest, shorten};
use crate::index::Index;
use crate::manifest::Manifest;
use crate::media_type;

/// The largest manifest or index that is read: the distribution spec asks registries for at least 4 MB, and clients
/// of other makes stop there.
pub const MANIFEST_SIZE_BYTES_MAX: u64 = 4 << 20;

/// The largest image config that is read; histories of big images reach some hundred kilobytes.
pub const CONFIG_SIZE_BYTES_MAX: u64 = 8 << 20;

/// The kinds of document of this room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DocumentKind {
    /// Config and layers of one platform.
    Manifest,
    /// Manifests by platform.
    Index,
    /// What an image runs and what it is made of.
    ImageConfig,
    /// The `oci-layout` file.
    ImageLayout,
    /// `manifest.json` or `repositories` of a docker archive.
    DockerArchive,
}

impl DocumentKind {
    /// The most bytes a document of this kind may have.
    pub const fn size_bytes_max(self) -> u64 {
        match self {
            DocumentKind::Manifest | DocumentKind::Index => MANIFEST_SIZE_BYTES_MAX,
            DocumentKind::ImageConfig | DocumentKind::DockerArchive => CONFIG_SIZE_BYTES_MAX,
            DocumentKind::ImageLayout => 64 << 10,
        }
    }

    /// The kind in words, for messages.
    pub const fn name(self) -> &'static str {
        match self {
            DocumentKind::Manifest => "manifest",
            DocumentKind::Index => "index",
            DocumentKind::ImageConfig => "image config",
            DocumentKind::ImageLayout => "image layout",
            DocumentKind::DockerArchive => "docker archive",
        }
    }
}

impl std::fmt::Display for DocumentKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.pad(self.name())
    }
}

/// What is wrong with a document.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// More bytes than any honest document has.
    #[error("{kind} is too large, at most {size_bytes_max} bytes are allowed: {size_bytes}")]
    TooLarge {
        /// What was to be read.
        kind: DocumentKind,
        /// How large it is.
        size_bytes: u64,
        /// How large it may be.
        size_bytes_max: u64,
    },
    /// Not JSON, or JSON of another shape.
    #[error("invalid {kind}: {source}")]
    Json {
        /// What was to be read.
        kind: DocumentKind,
        /// Where the reading stopped.
        source: serde_json::Error,
    },
    /// Another schema than 2.
    #[error("unsupported schema version of {kind}, expected 2: {found}")]
    SchemaVersion {
        /// What was to be read.
        kind: DocumentKind,
        /// The version in the document.
        found: i64,
    },
    /// The document names another type than it has or than it was announced as.
    #[error("{kind} has another media type, expected `{expected}`: `{found}`")]
    MediaTypeMismatch {
        /// What was to be read.
        kind: DocumentKind,
        /// The announced type, or the one that the shape asks for.
        expected: String,
        /// The type in the document.
        found: String,
    },
    /// The document has fields of a manifest and of an index; readers would not agree on what it is (CVE-2021-41190).
    #[error("{kind} is ambiguous, it also has the field `{field}`")]
    Ambiguous {
        /// What was to be read.
        kind: DocumentKind,
        /// The field of the other kind.
        field: &'static str,
    },
    /// A type that is neither a manifest nor an index.
    #[error("unsupported manifest media type: `{media_type}`")]
    UnsupportedMediaType {
        /// The type that was found.
        media_type: String,
    },
    /// A text that is not a media type.
    #[error("invalid media type in `{field}`: `{value}`")]
    InvalidMediaType {
        /// The field it stands in.
        field: &'static str,
        /// What stands there, shortened.
        value: String,
    },
    /// A size that others cannot represent.
    #[error("invalid size of `{digest}`: {size_bytes}")]
    InvalidSize {
        /// The blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
    },
    /// A required field is absent or empty.
    #[error("missing required field: `{field}`")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// Another version of the layout.
    #[error("unsupported image layout version, expected `1.0.0`: `{found}`")]
    LayoutVersion {
        /// The version in the document.
        found: String,
    },
    /// `rootfs.type` is not `layers`.
    #[error("unsupported rootfs type, expected `layers`: `{found}`")]
    RootFsType {
        /// The type in the document.
        found: String,
    },
}

/// Refuses a document for its size, before it is read or even fetched.
pub fn check_size(kind: DocumentKind, size_bytes: u64) -> Result<(), DocumentError> {
    let size_bytes_max = kind.size_bytes_max();
    if size_bytes > size_bytes_max {
        return Err(DocumentError::TooLarge { kind, size_bytes, size_bytes_max });
    }
    Ok(())
}

/// A document that a reference may name.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(clippy::large_enum_variant, reason = "documents are few and taken apart at once")]
pub enum Document {
    /// One platform.
    Manifest(Manifest),
    /// Many platforms.
    Index(Index),
}

impl Document {
    /// Reads a manifest or an index.
    ///
    /// `media_type` is what a registry or a descriptor announced; without it the document's own type decides, and
    /// without that its shape (both specs allow the field to be absent).
    pub fn parse(bytes: &[u8], media_type: Option<&str>) -> Result<Document, DocumentError> {
        #[derive(serde::Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Probe {
            #[serde(default)]
            schema_version: Option<i64>,
            #[serde(default)]
            media_type: Option<String>,
            #[serde(default)]
            manifests: Option<IgnoredAny>,
        }
        let probe: Probe = parse_json(DocumentKind::Manifest, bytes)?;
        if probe.schema_version == Some(1) {
            return Err(DocumentError::SchemaVersion { kind: DocumentKind::Manifest, found: 1 });
        }
        let announced = media_type.map(media_type::without_parameters).filter(|name| !name.is_empty());
        let own = probe.media_type.as_deref().filter(|name| !name.is_empty());
        // Registries that do not know better send these for anything.
        let announced = announced.filter(|name| {
            !matches!(
                *name,
                "application/json" | "application/octet-stream" | "text/plain" | "binary/octet-stream"
            )
        });
        let document = match announced.or(own) {
            Some(name) if media_type::is_index(name) => Document::Index(Index::parse(bytes)?),
            Some(name) if media_type::is_manifest(name) => Document::Manifest(Manifest::parse(bytes)?),
            Some(name) => return Err(DocumentError::UnsupportedMediaType { media_type: shorten(name) }),
            None if probe.manifests.is_some() => Document::Index(Index::parse(bytes)?),
            None => Document::Manifest(Manifest::parse(bytes)?),
        };
        if let (Some(expected), Some(found)) = (announced, own)
            && expected != found
        {
            return Err(DocumentError::MediaTypeMismatch {
                kind: document.kind(),
                expected: shorten(expected),
                found: shorten(found),
            });
        }
        Ok(document)
    }

    /// Which of both it is.
    pub fn kind(&self) -> DocumentKind {
        match self {
            Document::Manifest(_) => DocumentKind::Manifest,
            Document::Index(_) => DocumentKind::Index,
        }
    }

    /// The media type: the document's own, or the one of its shape.
    pub fn media_type(&self) -> &str {
        match self {
            Document::Manifest(manifest) => manifest.media_type(),
            Document::Index(index) => index.media_type(),
        }
    }
}

/// Reads JSON of bounded size.
pub(crate) fn parse_json<T: DeserializeOwned>(kind: DocumentKind, bytes: &[u8]) -> Result<T, DocumentError> {
    check_size(kind, bytes.len() as u64)?;
    serde_json::from_slice(bytes).map_err(|source| DocumentError::Json { kind, source })
}

/// Refuses a document that has one of the fields of the other kind.
pub(crate) fn check_unambiguous(
    kind: DocumentKind,
    bytes: &[u8],
    foreign_fields: &[&'static str],
) -> Result<(), DocumentError> {
    // The values are skipped, not kept: a hostile document would grow twentyfold as a tree.
    let fields: BTreeMap<String, IgnoredAny> = parse_json(kind, bytes)?;
    match foreign_fields.iter().find(|field| fields.contains_key(**field)) {
        Some(field) => Err(DocumentError::Ambiguous { kind, field }),
        None => Ok(()),
    }
}

/// Writes JSON in one line, as Go's `json.Marshal` does.
pub(crate) fn to_compact_json<T: Serialize>(value: &T) -> Vec<u8> {
    escape_as_go(&serde_json::to_vec(value).unwrap_or_else(|error| unreachable_json(&error)))
}

/// Writes JSON with two blanks of indentation, as BuildKit writes manifests and indexes.
pub(crate) fn to_indented_json<T: Serialize>(value: &T) -> Vec<u8> {
    escape_as_go(&serde_json::to_vec_pretty(value).unwrap_or_else(|error| unreachable_json(&error)))
}

/// The value as a JSON object.
pub(crate) fn to_object<T: Serialize>(value: &T) -> Map<String, Value> {
    match serde_json::to_value(value) {
        Ok(Value::Object(object)) => object,
        Ok(_) => unreachable!("a document is a struct, so it is an object"),
        Err(error) => unreachable_json(&error),
    }
}

/// Writing to memory fails only for maps whose keys are not strings, and no type of this room has such a map.
fn unreachable_json(error: &serde_json::Error) -> ! {
    unreachable!("documents can always be written: {error}")
}

/// Escapes what Go escapes and serde does not: `<`, `>`, `&` and two line separators.
///
/// In JSON these stand only inside strings, so the text can be changed without being read. Without this, a `&&` in a
/// history would give another digest than docker's for the same image.
fn escape_as_go(json: &[u8]) -> Vec<u8> {
    let mut escaped = Vec::with_capacity(json.len() + json.len() / 16);
    let mut rest = json;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'<' => escaped.extend_from_slice(b"\\u003c"),
            b'>' => escaped.extend_from_slice(b"\\u003e"),
            b'&' => escaped.extend_from_slice(b"\\u0026"),
            0xe2 if tail.starts_with(&[0x80, 0xa8]) || tail.starts_with(&[0x80, 0xa9]) => {
                escaped.extend_from_slice(if tail[1] == 0xa8 { b"\\u2028" } else { b"\\u2029" });
                rest = &tail[2..];
            }
            byte => escaped.push(byte),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_go() {
        let text = "a && b > c < d \u{2028}\u{2029} \u{2027} é \u{8}\u{1f} \"\\";
        let json = String::from_utf8(to_compact_json(&text)).unwrap();
        let expect = r#""a \u0026\u0026 b \u003e c \u003c d \u2028\u2029 "#.to_owned()
            + "\u{2027}"
            + r#" é \b\u001f \"\\""#;
        assert_eq!(json, expect);
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
    }

    fn check(json: &str, announced: Option<&str>, expect: &str) {
        let actual = match Document::parse(json.as_bytes(), announced) {
            Ok(document) => document.kind().name().to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(actual.starts_with(expect), "{json}: {actual}");
    }

    #[test]
    fn kinds_are_told_apart() {
        let config = serde_json::to_string(&crate::Descriptor::empty()).unwrap();
        let manifest = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[]}}"#);
        let index = r#"{"schemaVersion":2,"manifests":[]}"#;
        check(&manifest, None, "manifest");
        check(index, None, "index");
        check(index, Some("application/json"), "index");
        check(index, Some("application/vnd.oci.image.index.v1+json; charset=utf-8"), "index");
        check(index, Some(media_type::OCI_MANIFEST), "manifest is ambiguous");
        check(&manifest, Some(media_type::OCI_INDEX), "index is ambiguous");
        check(&manifest, Some("image/png"), "unsupported manifest media type: `image/png`");
        let both = format!(r#"{{"schemaVersion":2,"config":{config},"layers":[],"manifests":[]}}"#);
        check(&both, None, "index is ambiguous");
        let named =
            format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, media_type::OCI_INDEX);
        check(&named, Some(media_type::DOCKER_MANIFEST_LIST), "index has another media type");
        check(&named, None, "index");
        check(r#"{"schemaVersion":1,"name":"x"}"#, None, "unsupported schema version of manifest");
        check("[]", None, "invalid manifest");
        check("", None, "invalid manifest");
        check("null", None, "invalid manifest");
        check(&"[".repeat(100_000), None, "invalid manifest");
        check(&format!(r#"{{"x":{}"#, "[".repeat(100_000)), None, "invalid manifest");
        check(&" ".repeat(4 << 20), None, "invalid manifest");
        check(&" ".repeat((4 << 20) + 1), None, "manifest is too large");
    }
}
