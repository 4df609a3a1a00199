//! Verbs on images: find, show, name, remove, load, save, import, keep what a build made, and bring it elsewhere.
//!
//! Here is what joins the rooms below for one image or all of them. Not here: how layers become trees and tars
//! (`mica-layer`), where bytes and rows are (`mica-store`), the documents as values (`mica-oci`), building
//! (`mica-build`), tables and prompts (`mica-cli`).
//!
//! **Nouns**: an *image* is an image config and layers, known by its *image ID*, the digest of the config's exact
//! bytes; a *name* is a canonical reference that leads to it, with a tag or with a digest, and may have images of other
//! platforms beside it, of one *index*; a *dangling* image has no name with a tag; an *archive* is what
//! `docker save` writes or an OCI layout, in a tar or as a directory; a *member* is a file of an archive; a *manifest list* is an index that
//! is put together by hand, of images that registries have.
//!
//! **Invariants**
//! 1. A name moves only after all it leads to is stored, in one transaction.
//! 2. Bytes of a foreign config, manifest or layer are kept as they are: loading never changes an image ID, and what is
//!    saved has the digests that it had. A layer whose tar mica would write in the same bytes is kept once, as a tree.
//! 3. Every layer's tar is hashed while it is applied and compared with the image config; nothing is committed before.
//! 4. Paths inside an archive are looked up among its members only; they never become paths of the machine.
//! 5. Saving the same images gives the same bytes.
//! 6. An image that a container stands on is never removed.
//! 7. An export is made from values, and needs no row of an image; what it writes for people is never written through a link
//!    that leads out of its place.
//!
//! **Wire formats**: docker's archive (`manifest.json`) and the OCI image layout (image spec, `image-layout.md`); `save`
//! writes both in one tar, as docker does since version 25.
//!
//! **Several at once, and a kill**: work in progress is under a lease and in `ingest/`; what a kill leaves there is
//! swept by the store. Layers that were finished before the kill are found again by the next attempt.
//!
//! Start reading at `load`. Tests: tables in each file, `tests/` with images made from tars, with the archives of other
//! tools, and with those tools themselves where they are installed.

mod apply_into_store;
mod archive;
mod built;
mod chain;
mod change;
mod error;
mod export;
mod history;
mod import;
mod index_images;
mod inspect;
mod list;
mod load;
mod load_index;
mod load_plan;
mod manifest_list;
mod prune;
mod pull;
mod push;
mod remake;
mod remove;
mod resolve;
mod save;
mod tag;
mod transfer_event;
mod transfer_failure;

pub use built::{BuiltImage, platform_in_index, put_built, put_built_index};
pub use chain::{Chain, read_index};
pub use change::{ChangeError, apply_change};
pub use error::{ImageError, Result};
pub use export::{
    Annotation, AnnotationPlace, ArchiveKind, CompressedLayers, Export, ExportContext, ExportError,
    ExportOptions, ExportSource, FileTree, LocalMode, LocalWritten, PushExport, prepare_export,
    write_files_tar, write_local,
};
pub use history::{HistoryRow, history};
pub use import::{ImportOptions, import};
pub use index_images::lead_to_own;
pub use inspect::inspect;
pub use list::{ListFilter, ListRow, list};
pub use load::{Loaded, Source, load, load_for, load_nameless};
pub use load_plan::LayoutChoice;
pub use manifest_list::{
    ListError, ListMember, ManifestList, PlatformChange, RemoteManifest, remote_manifest,
};
pub use prune::{PruneFilter, Pruned, prune};
pub use pull::{PullError, PullRequest, Pulled, pull};
pub use push::{PushError, PushRequest, Pushed, push};
pub use remake::{BasePart, rewrite_image_times, rewrite_times, squash};
pub use remove::{Removal, Removed, remove, remove_platforms};
pub use resolve::{config, config_bytes, manifest, record, require, resolve, resolve_platform};
pub use save::{save, save_for};
pub use tag::tag;
pub use transfer_event::{LayerState, TransferEvent, Watch};

use mica_layer::apply::Mapping;
pub use mica_layer::encode::{Algorithm, Form, FormError};

/// How layers are written: as the root of the machine, or inside the user namespace that mica entered.
pub fn mapping(rootless: bool) -> Mapping {
    if rootless { Mapping::Rootless { userxattr: true, ignore_unmapped: true } } else { Mapping::Root }
}
