//! What is told while an image is pulled or pushed.

use mica_oci::Digest;

/// How a layer fares. The words are docker's; the command line spells them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// It is to be fetched.
    PullingFsLayer,
    /// For its turn, or for another process that fetches it.
    Waiting,
    /// Bytes so far, of all.
    Downloading(u64, u64),
    /// All its bytes are there and match.
    DownloadComplete,
    /// Compressed bytes that are applied so far, of all.
    Extracting(u64, u64),
    /// It is stored.
    PullComplete,
    /// It was stored before.
    AlreadyExists,
    /// It is looked up in the registry.
    Preparing,
    /// Bytes of its tar that are compressed so far, of all.
    Compressing(u64, u64),
    /// Bytes so far, of all.
    Pushing(u64, u64),
    /// The registry has it now.
    Pushed,
    /// The registry had it before.
    LayerAlreadyExists,
    /// The registry took it from this repository, such as `library/node`.
    MountedFrom(String),
    /// It is not sent, as its licence forbids to (foreign layers).
    SkippedForeign,
    /// It broke, and is tried again in so many seconds.
    Retrying(u64),
}

/// What is told while an image is pulled or pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TransferEvent {
    /// The layers of the image: digests of compressed blobs, the lowest first, when pulling; diff IDs, the topmost first, when
    /// pushing. Told once,
    /// before any layer's state, and not at all if nothing is to be done.
    Layers(Vec<Digest>),
    /// The layer at this position has a new state.
    Layer {
        /// From 0, as in [`TransferEvent::Layers`].
        position: usize,
        /// The state.
        state: LayerState,
    },
    /// What people should know, such as a mirror that failed.
    Warning(String),
}

/// Who is told, from several threads.
pub type Watch<'a> = dyn Fn(TransferEvent) + Sync + 'a;
