//! How copying an image can fail, as facts.

use mica_layer::LayerError;
use mica_oci::{Digest, DocumentError};
use mica_registry_client::RegistryError;

use crate::place::Place;

/// Result of a call of this room.
pub type Result<T> = std::result::Result<T, CopyError>;

/// How copying fails.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CopyError {
    /// A registry did not do what it was asked.
    #[error(transparent)]
    Registry(Box<RegistryError>),
    /// A Linux call failed.
    #[error(transparent)]
    Sys(#[from] mica_sys::Error),
    /// A file of the place cannot be read.
    #[error("cannot read {place}: {source}")]
    Read {
        /// The place.
        place: Box<Place>,
        /// Why.
        source: std::io::Error,
    },
    /// An archive cannot be read.
    #[error("cannot read {place}: {source}")]
    Archive {
        /// The place.
        place: Box<Place>,
        /// Why.
        source: LayerError,
    },
    /// The place has none of the files that would make it one.
    #[error("{place} is not {what}: it has no `{file}`")]
    NotThis {
        /// The place.
        place: Box<Place>,
        /// What it should be.
        what: &'static str,
        /// What it lacks.
        file: &'static str,
    },
    /// What should be a file is something else: a link out of the layout, a directory, a device.
    #[error("`{member}` in {place} is {what}")]
    NotAFile {
        /// The place.
        place: Box<Place>,
        /// Path in it.
        member: String,
        /// What it is.
        what: &'static str,
    },
    /// A document of the place is not what it should be.
    #[error("`{member}` in {place}: {source}")]
    Document {
        /// The place.
        place: Box<Place>,
        /// Path in it, or digest.
        member: String,
        /// Why.
        source: DocumentError,
    },
    /// Something that is referred to is not there.
    #[error("{place} refers to `{member}` and does not have it")]
    Missing {
        /// The place.
        place: Box<Place>,
        /// Path in it, or digest.
        member: String,
    },
    /// The place has no image of that name.
    #[error("{place}: no image of that name; it has {offered}")]
    NoSuchImage {
        /// The place.
        place: Box<Place>,
        /// What there is.
        offered: String,
    },
    /// The place has several images, and nothing says which one is meant.
    #[error("{place} has several images, say which one after a colon: {offered}")]
    SeveralImages {
        /// The place.
        place: Box<Place>,
        /// What there is.
        offered: String,
    },
    /// Several manifests have one name; together they have no digest.
    #[error("{place}: several manifests have that name ({offered}), which together have no digest")]
    SeveralManifests {
        /// The place.
        place: Box<Place>,
        /// Their platforms.
        offered: String,
    },
    /// The image is not for that platform.
    #[error("no manifest of {place} is for {platform}; it has {offered}")]
    NoPlatform {
        /// The place.
        place: Box<Place>,
        /// What was wanted.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// Bytes are not what their descriptor says.
    #[error("{place} sent other bytes for {expected}: they have {actual}")]
    DigestMismatch {
        /// Where they came from.
        place: Box<Place>,
        /// What was to come.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are fewer or more bytes than the descriptor says.
    #[error("{place} has {} than {expected} bytes of {digest}", if *is_longer { "more" } else { "fewer" })]
    SizeMismatch {
        /// Where they came from.
        place: Box<Place>,
        /// What was to come.
        digest: Digest,
        /// How many bytes it has.
        expected: u64,
        /// Whether there were more.
        is_longer: bool,
    },
    /// Two descriptors give one blob different sizes.
    #[error("{place} gives {digest} two sizes: {first} and {second} bytes")]
    TwoSizes {
        /// The place.
        place: Box<Place>,
        /// The blob.
        digest: Digest,
        /// One of them.
        first: u64,
        /// The other.
        second: u64,
    },
    /// A digest of an algorithm that cannot be computed here.
    #[error("{place}: digests of `{digest}` cannot be checked, only SHA-256 and SHA-512 can")]
    Algorithm {
        /// The place.
        place: Box<Place>,
        /// The digest.
        digest: Digest,
    },
    /// Indexes lie in each other too deep.
    #[error("the indexes of {place} are nested more than {max} deep")]
    Nesting {
        /// The place.
        place: Box<Place>,
        /// The limit.
        max: usize,
    },
    /// More descriptors, or larger documents, than any image has.
    #[error("{place} has more than {max} {what}")]
    TooMany {
        /// The place.
        place: Box<Place>,
        /// The limit.
        max: u64,
        /// Of what.
        what: &'static str,
    },
    /// The destination asks for another digest than the image has.
    #[error("the destination {place} names another digest than the image has: {actual}")]
    DestinationDigest {
        /// The destination.
        place: Box<Place>,
        /// The digest of what is copied.
        actual: Digest,
    },
    /// A docker archive holds images only.
    #[error("{digest} is not an image (its config is `{media_type}`), so a docker archive cannot hold it")]
    NotAnImage {
        /// The manifest.
        digest: Digest,
        /// Media type of its config.
        media_type: String,
    },
    /// An archive of docker has another number of layers than its config says.
    #[error("{place}: the image config lists {diff_ids} layers, but the archive {layers}")]
    LayerCount {
        /// The place.
        place: Box<Place>,
        /// How many the config has.
        diff_ids: usize,
        /// How many there are.
        layers: usize,
    },
    /// The destination is something that an archive cannot be written to.
    #[error("{place} is not a regular file, so it cannot be replaced by an archive")]
    NotReplaceable {
        /// The destination.
        place: Box<Place>,
    },
}

impl From<RegistryError> for CopyError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}
