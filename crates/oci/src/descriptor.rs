//! What names a blob: media type, digest, size.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::absent::{empty_as_none, is_blank, null_as_default};
use crate::digest::{Digest, shorten};
use crate::document::DocumentError;
use crate::media_type;
use crate::platform::Platform;

/// What names a blob (image spec, `descriptor.md`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// The kind of the bytes.
    pub media_type: String,
    /// The digest of the bytes.
    pub digest: Digest,
    /// How many bytes; named as on the wire.
    pub size: u64,
    /// Other places where the bytes may be.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
    /// Free notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The bytes themselves in base64, if they were embedded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    /// What the named manifest runs on; only in an index.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// The kind of artifact that the named manifest is.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub artifact_type: Option<String>,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl Descriptor {
    /// A descriptor without any of the optional fields.
    pub fn new(media_type: &str, digest: Digest, size: u64) -> Descriptor {
        Descriptor {
            media_type: media_type.to_owned(),
            digest,
            size,
            urls: Vec::new(),
            annotations: BTreeMap::new(),
            data: None,
            platform: None,
            artifact_type: None,
            extra: Map::new(),
        }
    }

    /// The descriptor of these bytes, with SHA-256.
    pub fn of(media_type: &str, bytes: &[u8]) -> Descriptor {
        Descriptor::new(media_type, Digest::sha256(bytes), bytes.len() as u64)
    }

    /// The empty descriptor: `{}`, for artifacts that have no config.
    pub fn empty() -> Descriptor {
        Descriptor::of(media_type::OCI_EMPTY, b"{}")
    }

    /// Whether this names BuildKit's statement about another manifest of the index, rather than an image.
    pub fn is_attestation(&self) -> bool {
        self.annotations.get(crate::image_layout::ANNOTATION_REFERENCE_TYPE).map(String::as_str)
            == Some("attestation-manifest")
    }

    /// Holds the descriptor against the image spec's schema.
    pub fn validate(&self) -> Result<(), DocumentError> {
        let media_types =
            [("mediaType", Some(&self.media_type)), ("artifactType", self.artifact_type.as_ref())];
        for (field, value) in media_types {
            if let Some(value) = value.filter(|value| !media_type::is_well_formed(value)) {
                return Err(DocumentError::InvalidMediaType { field, value: shorten(value) });
            }
        }
        // Everyone else keeps sizes in signed 64 bits.
        if i64::try_from(self.size).is_err() {
            return Err(DocumentError::InvalidSize { digest: self.digest.clone(), size_bytes: self.size });
        }
        if let Some(platform) = &self.platform {
            for (field, value) in
                [("platform.architecture", &platform.architecture), ("platform.os", &platform.os)]
            {
                if value.is_empty() {
                    return Err(DocumentError::Missing { field });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn empty_is_as_the_spec_says() {
        assert_eq!(
            serde_json::to_string(&Descriptor::empty()).unwrap(),
            r#"{"mediaType":"application/vnd.oci.empty.v1+json","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}"#
        );
    }

    #[test]
    fn unknown_fields_survive() {
        let text = format!(
            r#"{{"mediaType":"a/b","digest":"{}","size":1,"annotations":null,"later":{{"deep":[1,2.5]}}}}"#,
            Digest::sha256(b"x")
        );
        let descriptor: Descriptor = serde_json::from_str(&text).unwrap();
        let written = serde_json::to_string(&descriptor).unwrap();
        assert!(written.ends_with(r#""size":1,"later":{"deep":[1,2.5]}}"#), "{written}");
    }

    #[test]
    fn sizes_beyond_signed_are_refused() {
        let mut descriptor = Descriptor::of("a/b", b"");
        descriptor.size = u64::MAX;
        assert!(matches!(descriptor.validate(), Err(DocumentError::InvalidSize { .. })));
    }
}
