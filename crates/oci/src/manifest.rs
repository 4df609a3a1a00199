//! Config and layers of one platform; OCI's manifest and docker's schema 2 are one type here.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::absent::{empty_as_none, is_blank, null_as_default};
use crate::descriptor::Descriptor;
use crate::digest::shorten;
use crate::document::{DocumentError, DocumentKind, check_unambiguous, parse_json, to_indented_json};
use crate::media_type;

/// Config and layers of one platform (image spec, `manifest.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: i64,
    /// The document's own type; OCI allows it to be absent.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub media_type: Option<String>,
    /// The kind of artifact, when this is not an image.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub artifact_type: Option<String>,
    /// The image config.
    pub config: Descriptor,
    /// The layers, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub layers: Vec<Descriptor>,
    /// The manifest that this one says something about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// Free notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Manifest {
    /// An OCI manifest of this config and these layers, lowest first.
    pub fn oci(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest {
            schema_version: 2,
            media_type: Some(media_type::OCI_MANIFEST.to_owned()),
            artifact_type: None,
            config,
            layers,
            subject: None,
            annotations: BTreeMap::new(),
            extra: Map::new(),
        }
    }

    /// A docker schema 2 manifest of this config and these layers, lowest first.
    pub fn docker(config: Descriptor, layers: Vec<Descriptor>) -> Manifest {
        Manifest { media_type: Some(media_type::DOCKER_MANIFEST.to_owned()), ..Manifest::oci(config, layers) }
    }

    /// Reads a manifest. What it is is checked, but not everything the schema asks for: see [`Manifest::validate`].
    pub fn parse(bytes: &[u8]) -> Result<Manifest, DocumentError> {
        let kind = DocumentKind::Manifest;
        // The field that makes it ambiguous is looked for first, because a document of the other kind lacks ours.
        check_unambiguous(kind, bytes, &["manifests"])?;
        let manifest: Manifest = parse_json(kind, bytes)?;
        if manifest.schema_version != 2 {
            return Err(DocumentError::SchemaVersion { kind, found: manifest.schema_version });
        }
        if let Some(found) = manifest.media_type.as_deref().filter(|name| media_type::is_index(name)) {
            return Err(DocumentError::MediaTypeMismatch {
                kind,
                expected: media_type::OCI_MANIFEST.to_owned(),
                found: shorten(found),
            });
        }
        Ok(manifest)
    }

    /// The document's media type; OCI's when it does not say.
    pub fn media_type(&self) -> &str {
        self.media_type.as_deref().unwrap_or(media_type::OCI_MANIFEST)
    }

    /// Whether the config is an image config, so that this can be run.
    pub fn is_image(&self) -> bool {
        self.artifact_type.is_none() && media_type::is_image_config(&self.config.media_type)
    }

    /// The bytes to store, stable for equal values; for manifests made here, never for foreign ones.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        to_indented_json(self)
    }

    /// Holds the manifest against the image spec's schema, which is stricter than what is in use: images without layers
    /// exist.
    pub fn validate(&self) -> Result<(), DocumentError> {
        for (field, value) in [("mediaType", &self.media_type), ("artifactType", &self.artifact_type)] {
            if let Some(value) = value.as_ref().filter(|value| !media_type::is_well_formed(value)) {
                return Err(DocumentError::InvalidMediaType { field, value: shorten(value) });
            }
        }
        if self.layers.is_empty() {
            return Err(DocumentError::Missing { field: "layers" });
        }
        if self.config.media_type == media_type::OCI_EMPTY && self.artifact_type.is_none() {
            return Err(DocumentError::Missing { field: "artifactType" });
        }
        for descriptor in [&self.config].into_iter().chain(&self.layers).chain(&self.subject) {
            descriptor.validate()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_as_buildkit_writes_it() {
        let manifest = Manifest::oci(
            Descriptor::of(media_type::OCI_CONFIG, b"c"),
            vec![Descriptor::of(media_type::OCI_LAYER_GZIP, b"l")],
        );
        let expect = r#"{
  "schemaVersion": 2,
  "mediaType": "application/vnd.oci.image.manifest.v1+json",
  "config": {
    "mediaType": "application/vnd.oci.image.config.v1+json",
    "digest": "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6",
    "size": 1
  },
  "layers": [
    {
      "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip",
      "digest": "sha256:acac86c0e609ca906f632b0e2dacccb2b77d22b0621f20ebece1a4835b93f6f0",
      "size": 1
    }
  ]
}"#;
        let bytes = manifest.to_canonical_json();
        assert_eq!(String::from_utf8(bytes.clone()).unwrap(), expect);
        assert_eq!(Manifest::parse(&bytes).unwrap(), manifest);
        assert!(manifest.is_image());
        assert!(manifest.validate().is_ok());
    }

    #[test]
    fn artifacts_need_a_type() {
        let mut manifest = Manifest::oci(Descriptor::empty(), vec![Descriptor::empty()]);
        assert!(matches!(manifest.validate(), Err(DocumentError::Missing { field: "artifactType" })));
        manifest.artifact_type = Some("application/vnd.example+json".to_owned());
        assert!(manifest.validate().is_ok());
        assert!(!manifest.is_image());
    }
}
