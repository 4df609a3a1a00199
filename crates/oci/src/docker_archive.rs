//! The JSON files of `docker save`.
//!
//! `manifest.json` lists the images of an archive; `repositories` is its older sister, still read by old tools. Paths
//! in them are names of archive entries and come from outside: nothing may be opened by them outside the archive.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::absent::null_as_default;
use crate::descriptor::Descriptor;
use crate::document::{DocumentError, DocumentKind, parse_json, to_compact_json};

/// Name of the list of images in an archive.
pub const MANIFEST_FILE: &str = "manifest.json";
/// Name of the older list of names in an archive.
pub const REPOSITORIES_FILE: &str = "repositories";

/// `repositories`: repository, then tag, then the name of the topmost layer.
pub type Repositories = BTreeMap<String, BTreeMap<String, String>>;

/// One image of `manifest.json`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ArchiveImage {
    /// Entry that holds the image config.
    pub config: String,
    /// Names, in familiar form with tag; docker writes `null` when there are none.
    #[serde(default)]
    pub repo_tags: Option<Vec<String>>,
    /// Entries that hold the layers' tars, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<String>,
    /// Image ID of the parent, in archives of the classic builder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<String>,
    /// Descriptors of the layers by diff ID.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub layer_sources: BTreeMap<String, Descriptor>,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Reads `manifest.json`.
pub fn parse_manifest(bytes: &[u8]) -> Result<Vec<ArchiveImage>, DocumentError> {
    parse_json(DocumentKind::DockerArchive, bytes)
}

/// Writes `manifest.json`.
pub fn manifest_to_json(images: &[ArchiveImage]) -> Vec<u8> {
    to_compact_json(&images)
}

/// Reads `repositories`.
pub fn parse_repositories(bytes: &[u8]) -> Result<Repositories, DocumentError> {
    parse_json(DocumentKind::DockerArchive, bytes)
}

/// Writes `repositories`.
pub fn repositories_to_json(repositories: &Repositories) -> Vec<u8> {
    to_compact_json(repositories)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_writes_it() {
        let json = br#"[{"Config":"blobs/sha256/aa","RepoTags":["hello-world:latest"],"Layers":["blobs/sha256/bb"]},{"Config":"c.json","RepoTags":null,"Layers":[]}]"#;
        let images = parse_manifest(json).unwrap();
        assert_eq!(images.len(), 2);
        assert_eq!(images[1].repo_tags, None);
        assert_eq!(manifest_to_json(&images), json);
    }

    #[test]
    fn broken() {
        for bad in ["null", "", "{}", "[{}]", "[null]", r#"[{"Config":null}]"#] {
            assert!(parse_manifest(bad.as_bytes()).is_err(), "{bad}");
        }
        let names = br#"{"hello-world":{"latest":"abc"}}"#;
        assert_eq!(repositories_to_json(&parse_repositories(names).unwrap()), names);
    }
}
