//! What can be wrong with a cache.

use mica_layer::LayerError;
use mica_layer::write_tar::WriteTarError;
use mica_oci::{DiffId, Digest};
use mica_registry_client::RegistryError;
use mica_store::StoreError;

/// What can be wrong with a cache. The name of the cache is told by whoever tells the error.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// Nothing is there.
    #[error("there is no cache")]
    Absent,
    /// What is there is something else.
    #[error("what is there is no cache of mica: its config is of type `{media_type}`")]
    NotACache {
        /// What it is.
        media_type: String,
    },
    /// An image without a cache in it.
    #[error("the image was built without `--cache-to type=inline`")]
    NoInlineCache,
    /// A newer mica wrote it.
    #[error("its format has version {found}, and this mica reads {known}")]
    Version {
        /// What it says.
        found: u32,
        /// What is read here.
        known: u32,
    },
    /// A document cannot be read.
    #[error("{what} cannot be read: {reason}")]
    Malformed {
        /// Which.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// More than anybody writes.
    #[error("{what} is larger than {size_bytes_max} bytes")]
    TooLarge {
        /// Which.
        what: &'static str,
        /// The bound.
        size_bytes_max: u64,
    },
    /// A blob that the manifest names is not there.
    #[error("blob {digest} is missing")]
    BlobMissing {
        /// Which.
        digest: Digest,
    },
    /// A blob has other bytes.
    #[error("blob {expected} is damaged: its bytes have the digest {actual}")]
    BlobDamaged {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// A blob has another length.
    #[error("blob {digest} is damaged: it does not have {size_bytes} bytes")]
    BlobSize {
        /// Which.
        digest: Digest,
        /// How many it should have.
        size_bytes: u64,
    },
    /// The tar of a layer has another digest.
    #[error("layer {expected} is not what the cache says: its tar has the digest {actual}")]
    LayerDiffers {
        /// What was said.
        expected: DiffId,
        /// What came.
        actual: DiffId,
    },
    /// The index of a layer is not the one of its tar.
    #[error("layer {diff_id} is not what the cache says: its index is another one")]
    IndexDiffers {
        /// Which.
        diff_id: DiffId,
    },
    /// A layer is not in the store any more.
    #[error("layer {diff_id} is not in the store")]
    LayerMissing {
        /// Which.
        diff_id: DiffId,
    },
    /// A step of another build has a cache mount for itself.
    #[error("a step of another build has it")]
    MountInUse,
    /// A directory that is to hold a layout holds something else.
    #[error("`{path}` is no OCI layout, nor empty")]
    NotALayout {
        /// Which.
        path: String,
    },
    /// A layer's bytes are no layer.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// A layer cannot be written as tar.
    #[error(transparent)]
    WriteTar(#[from] WriteTarError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
    /// A registry said no.
    #[error(transparent)]
    Registry(#[from] Box<RegistryError>),
    /// A bucket said no.
    #[error("{what}: {reason}")]
    Bucket {
        /// What was done.
        what: &'static str,
        /// Why it failed, without anything that is secret.
        reason: String,
    },
    /// A stream broke.
    #[error("{what}: {source}")]
    Io {
        /// What was done.
        what: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl From<RegistryError> for CacheError {
    fn from(error: RegistryError) -> Self {
        Self::Registry(Box::new(error))
    }
}

/// A result of this room.
pub type Result<T> = std::result::Result<T, CacheError>;
