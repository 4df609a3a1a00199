//! How pushing fails before or beside the registry, as facts. The reference stands beside it ([`crate::ImageError::Push`]).

use mica_oci::Digest;

/// What is wrong with what should be pushed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PushError {
    /// A name with a digest cannot be pushed: what it leads to is decided by its digest.
    #[error("cannot push a digest reference")]
    Digest,
    /// No image has a name of that repository.
    #[error("An image does not exist locally with the tag: {repository}")]
    NoImage {
        /// The repository, in familiar form.
        repository: String,
    },
    /// The repository has other tags.
    #[error("tag does not exist: {reference}")]
    NoTag {
        /// Name and tag, in familiar form.
        reference: String,
    },
    /// The name has nothing for the platform that was asked for.
    #[error(
        "image with reference {reference} was found but does not provide the specified platform ({platform})"
    )]
    NoPlatform {
        /// Name and tag, in familiar form.
        reference: String,
        /// What was asked for.
        platform: String,
    },
    /// A layer could not be compressed.
    #[error("layer {digest}: cannot be compressed: {source}")]
    Compress {
        /// Its diff ID.
        digest: Digest,
        /// Why.
        source: std::io::Error,
    },
    /// The encoder makes other bytes of a layer than it made before under the same name; the new ones are remembered now.
    #[error("layer {digest}: the compressed bytes are not those that were remembered")]
    OtherBytes {
        /// Its diff ID.
        digest: Digest,
    },
    /// Another layer failed; that one is told.
    #[error("another layer could not be pushed")]
    Stopped,
}
