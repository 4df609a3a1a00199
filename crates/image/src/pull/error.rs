//! How pulling fails, as facts. The reference stands beside it ([`crate::ImageError::Pull`]).

use mica_layer::LayerError;
use mica_oci::{DiffId, Digest, DocumentError};

/// What is wrong with what a registry has.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PullError {
    /// The tag that was there is gone.
    #[error("manifest unknown: the registry does not have it any more")]
    NotFound,
    /// A manifest, index or config is not what it should be.
    #[error("`{digest}`: {source}")]
    Document {
        /// Its digest.
        digest: Digest,
        /// Why.
        source: DocumentError,
    },
    /// The index has nothing for the platform.
    #[error("no matching manifest for {platform} in the manifest list entries; there are {offered}")]
    NoPlatform {
        /// What was wanted.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// The index lists a manifest that the registry does not have.
    #[error(
        "its index lists manifest `{digest}` for {platform}, but the registry does not have that: manifest unknown"
    )]
    ManifestMissing {
        /// The manifest.
        digest: Digest,
        /// Which platform it is for.
        platform: String,
    },
    /// The image is for another platform than was asked for.
    #[error(
        "the image was found, but its platform ({found}) does not match the specified platform ({wanted})"
    )]
    Platform {
        /// That of the image.
        found: String,
        /// That which was asked for.
        wanted: String,
    },
    /// Indexes lie in each other too deep.
    #[error("index `{digest}`: indexes are nested more than {max} deep")]
    Nesting {
        /// The last of them.
        digest: Digest,
        /// The limit.
        max: usize,
    },
    /// A manifest is about something else than an image.
    #[error("manifest `{digest}` is not of an image: it holds `{media_type}`")]
    NotAnImage {
        /// The manifest.
        digest: Digest,
        /// What it is about.
        media_type: String,
    },
    /// The config does not fit the manifest.
    #[error("image config `{config}` lists {diff_ids} layers, but the manifest has {layers}")]
    LayerCount {
        /// Digest of the config.
        config: Digest,
        /// How many the config has.
        diff_ids: usize,
        /// How many the manifest has.
        layers: usize,
    },
    /// A layer's form is not known.
    #[error("layer `{digest}` has the unknown media type `{media_type}`")]
    LayerMediaType {
        /// The layer's blob.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer has other bytes than its digest says, time and again.
    #[error(
        "layer `{digest}`: the bytes that were sent have the digest `{actual}`, in each of {tries} tries"
    )]
    BlobDigest {
        /// What the manifest says.
        digest: Digest,
        /// What came.
        actual: Digest,
        /// How often it was tried.
        tries: u32,
    },
    /// A layer has another size than the manifest says.
    #[error("layer `{digest}` has {actual} bytes, but the manifest says {expected}")]
    BlobSize {
        /// The layer's blob.
        digest: Digest,
        /// What the manifest says.
        expected: u64,
        /// What is there.
        actual: u64,
    },
    /// Another layer failed; that one is told.
    #[error("another layer could not be pulled")]
    Stopped,
    /// A layer broke off on its way.
    #[error("layer `{digest}`: {source}")]
    Broken {
        /// The layer's blob.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// A layer came whole, and cannot be applied.
    #[error("layer {position} of {count} (`{digest}`): {source}")]
    Layer {
        /// Counted from 1, the lowest.
        position: usize,
        /// Of how many.
        count: usize,
        /// The layer's blob.
        digest: Digest,
        /// Why.
        source: LayerError,
    },
    /// A layer is another one than the image config says.
    #[error(
        "layer {position} of {count} (`{digest}`) does not match the image config: expected `{expected}`, got `{actual}`"
    )]
    LayerDigest {
        /// Counted from 1, the lowest.
        position: usize,
        /// Of how many.
        count: usize,
        /// The layer's blob.
        digest: Digest,
        /// What the config says.
        expected: DiffId,
        /// What the bytes have.
        actual: DiffId,
    },
}
