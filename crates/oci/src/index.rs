//! Manifests by platform; OCI's index and docker's manifest list are one type here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::absent::{empty_as_none, is_blank, null_as_default};
use crate::descriptor::Descriptor;
use crate::digest::shorten;
use crate::document::{DocumentError, DocumentKind, check_unambiguous, parse_json, to_indented_json};
use crate::media_type;
use crate::platform::Platform;

/// Manifests by platform (image spec, `image-index.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// Always 2.
    pub schema_version: i64,
    /// The document's own type; OCI allows it to be absent.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub media_type: Option<String>,
    /// The kind of artifact, when this is not an image.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub artifact_type: Option<String>,
    /// The manifests, the author's preferred one first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub manifests: Vec<Descriptor>,
    /// The manifest that this index says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Index {
    /// An OCI index of these manifests.
    pub fn oci(manifests: Vec<Descriptor>) -> Index {
        Index {
            schema_version: 2,
            media_type: Some(media_type::OCI_INDEX.to_owned()),
            artifact_type: None,
            manifests,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// A docker manifest list of these manifests.
    pub fn docker(manifests: Vec<Descriptor>) -> Index {
        Index { media_type: Some(media_type::DOCKER_MANIFEST_LIST.to_owned()), ..Index::oci(manifests) }
    }

    /// Reads an index. What it is is checked, but not everything the schema asks for: see [`Index::validate`].
    pub fn parse(bytes: &[u8]) -> Result<Index, DocumentError> {
        let kind = DocumentKind::Index;
        check_unambiguous(kind, bytes, &["layers", "config", "fsLayers"])?;
        let index: Index = parse_json(kind, bytes)?;
        if index.schema_version != 2 {
            return Err(DocumentError::SchemaVersion { kind, found: index.schema_version });
        }
        if let Some(found) = index.media_type.as_deref().filter(|name| media_type::is_manifest(name)) {
            return Err(DocumentError::MediaTypeMismatch {
                kind,
                expected: media_type::OCI_INDEX.to_owned(),
                found: shorten(found),
            });
        }
        Ok(index)
    }

    /// The document's media type; OCI's when it does not say.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(media_type::OCI_INDEX)
    }

    /// The manifests that can be run, without statements about others.
    pub fn images(&self) -> impl Iterator<Item = &Descriptor> {
        self.manifests.iter().filter(|descriptor| !descriptor.is_attestation())
    }

    /// The best manifest for a platform: exactly this one, else the next that its hardware runs, else one that does not
    /// say what it is for. The first of equals wins.
    pub fn select(&self, platform: &Platform) -> Option<&Descriptor> {
        let of_platform = |wanted: &Platform| {
            self.images()
                .find(|descriptor| descriptor.platform.as_ref().is_some_and(|own| own.is_same(wanted)))
        };
        let of_any = || self.images().find(|descriptor| descriptor.platform.is_none());
        platform.runs().iter().find_map(of_platform).or_else(of_any)
    }

    /// The platforms on offer, in order, without repeats; for the message that the wanted one is absent.
    pub fn platforms(&self) -> Vec<Platform> {
        let mut platforms: Vec<Platform> = Vec::new();
        for platform in self.images().filter_map(|descriptor| descriptor.platform.as_ref()) {
            if !platforms.contains(platform) {
                platforms.push(platform.clone());
            }
        }
        platforms
    }

    /// The bytes to store, stable for equal values; for indexes made here, never for foreign ones.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        to_indented_json(self)
    }

    /// Holds the index against the image spec's schema.
    pub fn validate(&self) -> Result<(), DocumentError> {
        for (field, value) in [("mediaType", &self.media_type), ("artifactType", &self.artifact_type)] {
            if let Some(value) = value.as_ref().filter(|value| !media_type::is_well_formed(value)) {
                return Err(DocumentError::InvalidMediaType { field, value: shorten(value) });
            }
        }
        self.manifests.iter().chain(&self.subject).try_for_each(Descriptor::validate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn index_of(platforms: &[&str]) -> Index {
        let manifests = platforms.iter().map(|name| Descriptor {
            platform: Some(Platform::parse(name).unwrap()),
            ..Descriptor::of(media_type::OCI_MANIFEST, name.as_bytes())
        });
        Index::oci(manifests.collect())
    }

    fn check(offered: &[&str], wanted: &str, expect: Option<&str>) {
        let index = index_of(offered);
        let selected = index.select(&Platform::parse(wanted).unwrap());
        let expect = expect.map(|name| Digest::sha256(name.as_bytes()));
        assert_eq!(selected.map(|descriptor| &descriptor.digest), expect.as_ref(), "{wanted} of {offered:?}");
    }

    #[test]
    fn selects_the_best() {
        check(&["linux/386", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
        check(&["linux/386", "linux/arm64"], "linux/amd64", Some("linux/386"));
        check(&["linux/arm/v5", "linux/arm/v7"], "linux/arm", Some("linux/arm/v7"));
        check(&["linux/arm/v5", "linux/arm/v6"], "linux/arm/v7", Some("linux/arm/v6"));
        check(&["linux/arm64/v8"], "linux/arm64", Some("linux/arm64/v8"));
        check(&["linux/amd64/v2", "linux/amd64"], "linux/amd64", Some("linux/amd64"));
        check(&["linux/arm64"], "linux/amd64", None);
        check(&["windows/amd64"], "linux/amd64", None);
        check(&[], "linux/amd64", None);
    }

    #[test]
    fn attestations_are_no_images() {
        let mut index = index_of(&["linux/amd64"]);
        let mut attestation = Descriptor::of(media_type::OCI_MANIFEST, b"attestation");
        attestation.annotations.insert(
            crate::image_layout::ANNOTATION_REFERENCE_TYPE.to_owned(),
            "attestation-manifest".to_owned(),
        );
        index.manifests.insert(0, attestation);
        assert_eq!(index.select(&Platform::new("linux", "s390x")), None);
        assert_eq!(index.platforms(), [Platform::new("linux", "amd64")]);
        assert_eq!(Index::parse(&index.to_canonical_json()).unwrap(), index);
    }
}
