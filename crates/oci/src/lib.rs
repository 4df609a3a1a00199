//! The words of the image world as values: digests, references, platforms, manifests, indexes, image configs.
//!
//! Here is what can be said about an image without touching a file: parsing, writing, naming, choosing. Not here:
//! keeping bytes (`mica-store`), tars (`mica-layer`), fetching (the registry rooms), changing a config while building
//! (`mica-plan`), showing sizes and times (`mica-cli`). This room does no IO and knows no clock: times are texts in
//! RFC 3339.
//!
//! # Nouns
//!
//! [`Digest`]: hash of exact bytes. [`DiffId`], [`ChainId`], [`ImageId`]: digests with a meaning; they do not convert.
//! [`Descriptor`]: media type, digest, size. [`Manifest`]: config and layers of one platform. [`Index`]: manifests by
//! platform. [`Document`]: either. [`ImageConfig`]: what an image runs and is made of. [`Reference`]: name of an image.
//! [`Platform`]: what an image runs on.
//!
//! # Invariants
//!
//! 1. Bytes that we did not make are kept byte for byte by whoever holds them: `parse` gives a view, and
//!    `to_canonical_json` is only for documents made here. Re-encoding never changes a digest, because nobody does it.
//! 2. A [`Digest`] has a registered algorithm, the right length, lower-case hex; it is safe as a file name.
//! 3. A [`Reference`] is complete (registry, `library/`), and `parse(display(x)) == x`.
//! 4. Equal values are written as equal bytes, those that BuildKit writes for them.
//! 5. Fields that are not known are kept in `extra` and written again.
//! 6. No input makes this room panic, and every document is bounded: callers use [`check_size`] before they fetch, and
//!    every `parse` does again.
//!
//! # On the wire
//!
//! OCI image spec 1.1 and docker's schema 2, which differ in media types only: one Rust type serves both. Schema 1 is
//! refused. Digests with other algorithms than sha256, sha512 and blake3 are refused even where the image spec would
//! let them pass unread.
//!
//! Everything is a plain value: nothing to lock, nothing that a kill could leave behind.
//!
//! Start reading at `digest.rs`, then `reference.rs`, then `document.rs`. Tables stand in each file; `tests/vectors.rs`
//! holds the room against recorded answers of the Go libraries, `tests/properties.rs` against itself.

mod absent;
mod descriptor;
mod diff_id;
mod digest;
pub mod docker_archive;
mod document;
mod history;
mod image_config;
pub mod image_layout;
mod indent;
mod index;
mod manifest;
pub mod media_type;
pub mod platform;
pub mod reference;

pub use descriptor::Descriptor;
pub use diff_id::{ChainId, DiffId, ImageId, chain_id, chain_ids, image_id};
pub use digest::{Algorithm, Digest, DigestError};
pub use document::{
    CONFIG_SIZE_BYTES_MAX, Document, DocumentError, DocumentKind, MANIFEST_SIZE_BYTES_MAX, check_size,
};
pub use history::History;
pub use image_config::{ContainerConfig, Empty, Healthcheck, ImageConfig, RootFs};
pub use image_layout::ImageLayout;
pub use indent::indent_json;
pub use index::Index;
pub use manifest::Manifest;
pub use media_type::Compression;
pub use platform::{Platform, PlatformError};
pub use reference::{AnyReference, Reference, ReferenceError};
