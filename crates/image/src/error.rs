//! How a verb on images can fail, as facts.

use mica_layer::LayerError;
use mica_layer::write_tar::WriteTarError;
use mica_oci::{DiffId, Digest, DocumentError, ImageId, ReferenceError};
use mica_store::StoreError;
use mica_tree::IndexError;

use crate::change::ChangeError;
use crate::push::PushError;

/// Result of a call of this room.
pub type Result<T> = std::result::Result<T, ImageError>;

/// A verb on images that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A Linux call failed.
    #[error(transparent)]
    Sys(#[from] mica_sys::Error),
    /// The registry did not do what it was asked.
    #[error(transparent)]
    Registry(#[from] mica_registry_client::RegistryError),
    /// A manifest list cannot be.
    #[error(transparent)]
    List(#[from] crate::manifest_list::ListError),
    /// A name cannot be one.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// A document of the store is not what it should be.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// What the registry has cannot be pulled.
    #[error("{reference}: {source}")]
    Pull {
        /// What was pulled, in familiar form.
        reference: String,
        /// Why.
        source: Box<crate::pull::PullError>,
    },
    /// What the store has cannot be pushed.
    #[error("{}", push_text(reference, source))]
    Push {
        /// What was pushed, in familiar form.
        reference: String,
        /// Why.
        source: Box<PushError>,
    },
    /// No image has that name or ID.
    #[error("No such image: {text}")]
    NotFound {
        /// The name in full familiar form, or the text as it was given.
        text: String,
    },
    /// Several images have an ID that begins so.
    #[error("`{prefix}` is ambiguous: it begins the IDs of {}", list_ids(ids))]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Images that it fits.
        ids: Vec<ImageId>,
    },
    /// A name with a digest cannot be given to an image.
    #[error("`{reference}` has a digest; only names with a tag can be given")]
    TagWithDigest {
        /// The name.
        reference: String,
    },
    /// The image has several names, and was asked for by its ID.
    #[error(
        "conflict: unable to delete {} (must be forced) - image is referenced in multiple repositories",
        id.0.short()
    )]
    SeveralRepositories {
        /// The image.
        id: ImageId,
    },
    /// A container uses the image.
    #[error(
        "conflict: unable to delete {} ({}) - image is being used by {} container {}",
        id.0.short(),
        if *running { "cannot be forced" } else { "must be forced" },
        if *running { "running" } else { "stopped" },
        short(container)
    )]
    UsedBy {
        /// The image.
        id: ImageId,
        /// ID of the container.
        container: String,
        /// Whether the container runs.
        running: bool,
    },
    /// A container uses the image that the name leads to, and it is the only name.
    #[error(
        "conflict: unable to remove repository reference \"{reference}\" (must force) - container {} is using its referenced image {}",
        short(container),
        id.0.short()
    )]
    NameInUse {
        /// The name as it was given.
        reference: String,
        /// The image.
        id: ImageId,
        /// ID of the container.
        container: String,
    },
    /// A layer of an image that the store has is gone.
    #[error("layer {diff_id} is not in the store; load or pull the image again")]
    LayerMissing {
        /// The layer.
        diff_id: DiffId,
    },
    /// The index of a layer cannot be read.
    #[error("index of layer {diff_id}: {source}")]
    Index {
        /// The layer.
        diff_id: DiffId,
        /// Why.
        source: IndexError,
    },
    /// The image config does not fit the layers.
    #[error("the image config lists {diff_ids} layers, but {layers} are given")]
    LayerCount {
        /// How many the config has.
        diff_ids: usize,
        /// How many there are.
        layers: usize,
    },
    /// A tar does not begin like an archive, or lacks what every archive has.
    #[error("not an image archive: there is neither `manifest.json` nor `index.json`")]
    NotAnArchive,
    /// The archive lists no image.
    #[error("the archive lists no image")]
    NoImages,
    /// The layout has no such image.
    #[error("the layout has no image `{wanted}`; it has {offered}")]
    NotInLayout {
        /// What was wanted.
        wanted: String,
        /// What there is.
        offered: String,
    },
    /// The archive has nothing for this machine.
    #[error("no image of the archive is for {platform}; it has {offered}")]
    NoPlatform {
        /// What was wanted.
        platform: String,
        /// What there is.
        offered: String,
    },
    /// The name has no image of that platform.
    #[error(
        "image with reference {text} was found but does not provide the specified platform ({platform}); it has {}",
        offered.join(", ")
    )]
    PlatformMissing {
        /// The name or ID as it was given.
        text: String,
        /// What was wanted.
        platform: String,
        /// What is in the store.
        offered: Vec<String>,
    },
    /// A member is referred to and absent.
    #[error("the archive refers to `{member}`, which is not in it")]
    MemberMissing {
        /// Its path.
        member: String,
    },
    /// A member is not what it should be.
    #[error("`{member}` in the archive: {source}")]
    Member {
        /// Its path.
        member: String,
        /// Why.
        source: DocumentError,
    },
    /// A member is not a file.
    #[error("`{member}` in the archive is {what}")]
    MemberKind {
        /// Its path.
        member: String,
        /// What it is instead.
        what: &'static str,
    },
    /// Bytes of the archive are not what their digest says.
    #[error("`{member}` in the archive is damaged: expected {expected}, got {actual}")]
    MemberDigest {
        /// Its path.
        member: String,
        /// The digest it should have.
        expected: Digest,
        /// The digest of its bytes.
        actual: Digest,
    },
    /// A manifest is about something else than an image.
    #[error("manifest {digest} is not of an image: its config is `{media_type}`")]
    NotAnImage {
        /// The manifest.
        digest: Digest,
        /// Media type of its config.
        media_type: String,
    },
    /// A layer's form is not known.
    #[error("layer {digest} has the unknown media type `{media_type}`")]
    LayerMediaType {
        /// The layer's blob.
        digest: Digest,
        /// Its media type.
        media_type: String,
    },
    /// A layer is compressed in a way that layers are not.
    #[error("layer `{member}` is compressed with bzip2 or xz, which layers of images cannot be")]
    LayerCompression {
        /// Where its bytes are.
        member: String,
    },
    /// Indexes lie in each other too deep.
    #[error("the indexes of the archive are nested more than {max} deep")]
    Nesting {
        /// The limit.
        max: usize,
    },
    /// A layer cannot be applied.
    #[error("layer {position} of {count} (`{member}`): {source}")]
    Layer {
        /// Counted from 1, the lowest.
        position: usize,
        /// Of how many.
        count: usize,
        /// Where its bytes are.
        member: String,
        /// Why.
        source: LayerError,
    },
    /// A layer is another one than the image config says.
    #[error(
        "layer {position} of {count} (`{member}`) does not match the image config: expected {expected}, got {actual}"
    )]
    LayerDigest {
        /// Counted from 1, the lowest.
        position: usize,
        /// Of how many.
        count: usize,
        /// Where its bytes are.
        member: String,
        /// What the config says.
        expected: DiffId,
        /// What the bytes have.
        actual: DiffId,
    },
    /// The archive as a whole cannot be read.
    #[error("cannot read the archive: {source}")]
    Archive {
        /// Why.
        source: LayerError,
    },
    /// An archive cannot be written.
    #[error("cannot write the archive: {source}")]
    Write {
        /// Why.
        source: std::io::Error,
    },
    /// A layer cannot be written.
    #[error("layer {diff_id}: {source}")]
    WriteLayer {
        /// The layer.
        diff_id: DiffId,
        /// Why.
        source: WriteTarError,
    },
    /// A layer has other bytes than its digest says: its tree was altered.
    #[error("layer {diff_id} in the store was altered: its bytes now have {actual}")]
    LayerAltered {
        /// The layer.
        diff_id: DiffId,
        /// What its bytes have.
        actual: Digest,
    },
    /// What was built cannot be brought elsewhere.
    #[error(transparent)]
    Export(#[from] crate::export::ExportError),
    /// A layer cannot be made anew from stored ones.
    #[error(transparent)]
    Assemble(#[from] mica_layer::assemble::AssembleError),
    /// A change to the config is not understood.
    #[error(transparent)]
    Change(#[from] ChangeError),
}

/// Docker's own words name the reference themselves.
fn push_text(reference: &str, source: &PushError) -> String {
    match source {
        PushError::NoImage { .. } | PushError::NoTag { .. } | PushError::NoPlatform { .. } => {
            source.to_string()
        }
        _ => format!("{reference}: {source}"),
    }
}

fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

fn list_ids(ids: &[ImageId]) -> String {
    ids.iter().map(|id| id.0.short()).collect::<Vec<_>>().join(", ")
}
