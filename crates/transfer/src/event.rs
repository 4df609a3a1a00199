//! What is told while copying.

use mica_oci::Digest;

/// How a blob fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BlobState {
    /// Bytes so far, of all.
    Copying(u64, u64),
    /// The destination has it now.
    Copied,
    /// The destination had it before.
    Exists,
    /// The registry took it from this repository, in familiar form.
    MountedFrom(String),
    /// It stays where it is, as its licence forbids to copy it (foreign layers).
    SkippedForeign,
}

/// What is told while copying, from several threads.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CopyEvent {
    /// What is to be copied. Told once, before all else.
    Planned {
        /// Manifests and indexes.
        documents: usize,
        /// Configs and layers, with their sizes.
        blobs: Vec<(Digest, u64)>,
    },
    /// A blob has a new state.
    Blob {
        /// The blob.
        digest: Digest,
        /// The state.
        state: BlobState,
    },
    /// All blobs are there; the manifests follow.
    WritingManifests,
}
