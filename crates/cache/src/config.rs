//! The document of a cache: which results there are, and where the bytes of each are.

use std::fmt;

use mica_oci::{Descriptor, DiffId, Digest};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::{CacheError, Result};

/// Media type of the document.
pub const CONFIG_MEDIA_TYPE: &str = "application/vnd.mica.cache.config.v1+json";
/// Media type of inputs and other parts: bytes of their own form, compressed with zstd.
pub const PART_MEDIA_TYPE: &str = "application/vnd.mica.cache.part.v1+zstd";
/// What kind of artifact the manifest is.
pub const ARTIFACT_TYPE: &str = "application/vnd.mica.cache.v1";
/// Field of an image's config that has the document for its own layers; BuildKit's is `moby.buildkit.cache.v0`.
pub const INLINE_FIELD: &str = "mica.cache.v1";
/// Version of the document. A reader of another version takes nothing.
pub const VERSION: u32 = 1;
/// The longest document that is read. One step takes some 1,000 bytes, and small inputs.
pub const CONFIG_BYTES_MAX: u64 = 64 << 20;

/// A key, as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(pub [u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
    }
}

impl Serialize for Key {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || serde::de::Error::custom("a key has 64 hexadecimal digits");
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut key = [0; 32];
        for (position, byte) in key.iter_mut().enumerate() {
            let digits = text.get(2 * position..2 * position + 2).ok_or_else(wrong)?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| wrong())?;
        }
        Ok(Self(key))
    }
}

/// All results of a cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Config {
    /// [`VERSION`].
    pub version: u32,
    /// The results, the newest of each key first.
    pub steps: Vec<Step>,
    /// Their layers.
    pub layers: Vec<Layer>,
    /// Contents of cache mounts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
}

/// One result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// The step on just its layers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exact: Option<Key>,
    /// The step alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub record: Option<Key>,
    /// The instruction.
    pub family: Key,
    /// The instruction and what it copies, without contents.
    pub shape: Key,
    /// Position in [`Config::layers`].
    pub layer: usize,
    /// When it was made, seconds since 1970: what `--cache-ttl` counts from.
    pub made: i64,
    /// Its time in images.
    pub created: i64,
    /// Whether it opened an IPv4 or IPv6 socket; absent when nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<bool>,
    /// What the build notes of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<serde_json::Value>,
    /// What it used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inputs: Option<Part>,
}

/// A layer of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Layer {
    /// Digest of its tar.
    pub diff_id: DiffId,
    /// Length of its tar.
    pub tar_size: u64,
    /// The compressed tar; absent in an image, whose manifest names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<Descriptor>,
    /// What the index has and the tar has not, as an index.
    pub unsaid: Part,
    /// Digest of the encoded index.
    pub index_digest: Digest,
    /// The index itself, for who only wants to compare; absent in an image, where it would be too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Part>,
}

/// A small thing that travels compressed; its bytes may stand in the descriptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Part {
    /// Length of what it unfolds to.
    pub size: u64,
    /// The compressed bytes.
    pub blob: Descriptor,
}

/// The content of a directory of `RUN --mount=type=cache`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mount {
    /// The mount's id.
    pub id: String,
    /// Digest of the tar.
    pub diff_id: DiffId,
    /// Length of the tar.
    pub tar_size: u64,
    /// The compressed tar.
    pub blob: Descriptor,
    /// Mode of the directory itself.
    pub mode: u32,
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
}

impl Config {
    /// Reads a document, and checks that all it refers to stands in it.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        if bytes.len() as u64 > CONFIG_BYTES_MAX {
            return Err(CacheError::TooLarge { what: "its config", size_bytes_max: CONFIG_BYTES_MAX });
        }
        Self::checked(serde_json::from_slice(bytes))
    }

    /// Reads a document that stands in another one.
    pub fn of_value(value: serde_json::Value) -> Result<Self> {
        Self::checked(serde_json::from_value(value))
    }

    fn checked(parsed: serde_json::Result<serde_json::Value>) -> Result<Self> {
        let wrong = |reason: String| CacheError::Malformed { what: "its config", reason };
        let value = parsed.map_err(|error| wrong(error.to_string()))?;
        // Another version may have other fields, and its version is then what is to be told.
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        let version = version.and_then(|version| u32::try_from(version).ok());
        match version {
            Some(VERSION) => {}
            Some(found) => return Err(CacheError::Version { found, known: VERSION }),
            None => return Err(wrong("it has no version".to_owned())),
        }
        let config: Self = serde_json::from_value(value).map_err(|error| wrong(error.to_string()))?;
        match config.steps.iter().find(|step| step.layer >= config.layers.len()) {
            Some(step) => Err(wrong(format!("a step has layer {} of {}", step.layer, config.layers.len()))),
            None => Ok(config),
        }
    }

    /// The document's bytes: equal results give equal bytes.
    pub fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Every blob that stands outside the document, each once.
    pub fn blobs(&self) -> Vec<Descriptor> {
        let mut blobs: Vec<Descriptor> = Vec::new();
        let mut known = std::collections::HashSet::new();
        let layers = self.layers.iter().flat_map(|layer| {
            let index = layer.index.iter().map(|part| &part.blob);
            layer.blob.iter().chain([&layer.unsaid.blob]).chain(index)
        });
        let inputs = self.steps.iter().filter_map(|step| step.inputs.as_ref().map(|part| &part.blob));
        let mounts = self.mounts.iter().map(|mount| &mount.blob);
        for blob in layers.chain(inputs).chain(mounts).filter(|blob| blob.data.is_none()) {
            if known.insert(blob.digest.clone()) {
                blobs.push(blob.clone());
            }
        }
        blobs
    }
}
