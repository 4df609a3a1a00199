//! The OCI image layout: names of its files, and names of annotations.
//!
//! ```text
//! oci-layout                {"imageLayoutVersion":"1.0.0"}
//! index.json                an index; a name stands in the annotation `org.opencontainers.image.ref.name`
//! blobs/<algorithm>/<hex>   the bytes
//! ```

use serde::{Deserialize, Serialize};

use crate::digest::{Digest, shorten};
use crate::document::{DocumentError, DocumentKind, parse_json, to_compact_json};

/// The image reference or tag of a manifest in `index.json`.
pub const ANNOTATION_REF_NAME: &str = "org.opencontainers.image.ref.name";
/// When the image was made, RFC 3339.
pub const ANNOTATION_CREATED: &str = "org.opencontainers.image.created";
/// Who is responsible for the image.
pub const ANNOTATION_AUTHORS: &str = "org.opencontainers.image.authors";
/// Where to learn more.
pub const ANNOTATION_URL: &str = "org.opencontainers.image.url";
/// Where the documentation is.
pub const ANNOTATION_DOCUMENTATION: &str = "org.opencontainers.image.documentation";
/// Where the source is.
pub const ANNOTATION_SOURCE: &str = "org.opencontainers.image.source";
/// Version of the packaged software.
pub const ANNOTATION_VERSION: &str = "org.opencontainers.image.version";
/// Revision of the source.
pub const ANNOTATION_REVISION: &str = "org.opencontainers.image.revision";
/// Who distributes the image.
pub const ANNOTATION_VENDOR: &str = "org.opencontainers.image.vendor";
/// SPDX expression of its licences.
pub const ANNOTATION_LICENSES: &str = "org.opencontainers.image.licenses";
/// Title for people.
pub const ANNOTATION_TITLE: &str = "org.opencontainers.image.title";
/// Description for people.
pub const ANNOTATION_DESCRIPTION: &str = "org.opencontainers.image.description";
/// Reference of the base image.
pub const ANNOTATION_BASE_NAME: &str = "org.opencontainers.image.base.name";
/// Digest of the base image.
pub const ANNOTATION_BASE_DIGEST: &str = "org.opencontainers.image.base.digest";
/// Full reference of an image, as containerd and docker write it into `index.json`.
pub const ANNOTATION_CONTAINERD_NAME: &str = "io.containerd.image.name";
/// BuildKit: what kind of statement a manifest of an index makes (`attestation-manifest`).
pub const ANNOTATION_REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// BuildKit: the manifest that the statement is about.
pub const ANNOTATION_REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// The `oci-layout` file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageLayout {
    /// Version of the layout.
    pub image_layout_version: String,
}

impl ImageLayout {
    /// Name of the file that marks a layout.
    pub const MARKER_FILE: &str = "oci-layout";
    /// Name of the index file.
    pub const INDEX_FILE: &str = "index.json";
    /// Name of the directory of blobs.
    pub const BLOBS_DIR: &str = "blobs";
    /// The only version.
    pub const VERSION: &str = "1.0.0";

    /// The marker of the only version.
    pub fn current() -> ImageLayout {
        ImageLayout { image_layout_version: ImageLayout::VERSION.to_owned() }
    }

    /// Reads the marker file and refuses another version.
    pub fn parse(bytes: &[u8]) -> Result<ImageLayout, DocumentError> {
        let layout: ImageLayout = parse_json(DocumentKind::ImageLayout, bytes)?;
        if layout.image_layout_version != ImageLayout::VERSION {
            return Err(DocumentError::LayoutVersion { found: shorten(&layout.image_layout_version) });
        }
        Ok(layout)
    }

    /// The marker file's bytes.
    pub fn to_json(&self) -> Vec<u8> {
        to_compact_json(self)
    }

    /// Where a blob is, relative to the layout: `blobs/sha256/<hex>`. A digest cannot lead anywhere else.
    pub fn blob_path(digest: &Digest) -> String {
        format!("{}/{}/{}", ImageLayout::BLOBS_DIR, digest.algorithm(), digest.hex())
    }

    /// The digest of the blob at a path that [`ImageLayout::blob_path`] gave; `None` for any other path.
    pub fn parse_blob_path(path: &str) -> Option<Digest> {
        let (algorithm, hex) = path.strip_prefix("blobs/")?.split_once('/')?;
        Digest::parse(&format!("{algorithm}:{hex}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marker() {
        let current = ImageLayout::current();
        assert_eq!(current.to_json(), br#"{"imageLayoutVersion":"1.0.0"}"#);
        assert_eq!(ImageLayout::parse(&current.to_json()).unwrap(), current);
        assert!(ImageLayout::parse(br#"{"imageLayoutVersion":"2"}"#).is_err());
        assert!(ImageLayout::parse(b"{}").is_err());
    }

    #[test]
    fn paths() {
        let digest = Digest::sha256(b"x");
        let path = ImageLayout::blob_path(&digest);
        assert_eq!(ImageLayout::parse_blob_path(&path), Some(digest));
        for bad in ["blobs/sha256/../../x", "blobs/sha256", "sha256/00", "blobs/sha256/00", ""] {
            assert_eq!(ImageLayout::parse_blob_path(bad), None, "{bad}");
        }
    }
}
