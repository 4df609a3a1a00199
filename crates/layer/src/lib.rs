//! Layers on disk: a tar becomes a tree that overlayfs can use, and a tree becomes a tar.
//!
//! **Here**: compressed streams ([`compress`]), reading tars ([`tar_entry`], [`sparse`]), applying a layer ([`apply`]), making
//! one from files that stand elsewhere ([`assemble`]: COPY), making one from the upper directory of an overlay ([`diff`]: RUN),
//! writing a layer as tar again ([`write_tar`]), compressing it for a registry ([`encode`]), and finding files in a tar by
//! their paths ([`members`]: archives of images).
//! **Not here**: what layers and stacks of them are as values (`tree`), where trees are kept and when they are durable
//! (`store`: nothing here calls fsync), mounting (`runtime`), media types and digests of blobs (`oci`, `image`).
//!
//! **Nouns**: *layer* a changeset, as tar or as *overlay-form tree*; *whiteout* a mark that a path of lower layers is gone;
//! *opaque* a directory that hides all that lower layers have in it; *implied* a directory that the tar does not have, only
//! something inside; *diff ID* the SHA-256 of every byte of the uncompressed tar.
//!
//! **Invariants**
//! 1. Nothing is written outside the tree, whatever the tar says: names are cleaned, links of the layer are followed as in a
//!    chroot, from what the layer itself made, and the kernel walks without links beneath one handle.
//! 2. A whiteout never removes what its own layer has, in whatever order the tar says it.
//! 3. No attribute of a tar speaks to overlayfs: its names are dropped, its marks are only made from whiteouts.
//! 4. The list of entries tells the truth also where the tree cannot (devices and owners without root's rights).
//! 5. Bad input is an error that names the entry, never a panic, never unbounded memory or output.
//! 6. A tree depends on lower layers only where [`apply::Applied`] says so; else it is the same on any stack.
//! 7. The tar of a layer that was made here is not kept: [`write_tar::write_tar`] makes it from index and tree, always the same
//!    bytes, whose SHA-256 is the diff ID that `assemble` and `diff` computed while they read the files once.
//! 8. So is its compressed form: the same bytes for every number of threads, under a name that changes when they do
//!    ([`encode::Form::name`]).
//!
//! **On disk** (Linux `Documentation/filesystems/overlayfs.rst`):
//! ```text
//! .wh.name in the tar       character device 0:0 `name`, or an empty file with the attribute overlay.whiteout
//! .wh..wh..opq in the tar   attribute overlay.opaque=y of the directory (`trusted.`, rootless `user.`)
//! ```
//!
//! **Several at once, and a kill**: nothing is shared; two processes apply into two directories. A kill leaves a part of a
//! tree, which whoever made the directory removes; no result is given before the last byte was read and hashed.
//!
//! **Start reading** at [`apply::apply_layer`] and [`write_tar::encode_header`]. **Tests**: tables of hostile tars in
//! `apply_tests.rs`, every byte of a tar altered one by one, trees compared with what GNU tar makes, steps in real overlays
//! read back as layers in `diff_tests.rs`.

pub mod apply;
pub mod assemble;
pub mod compress;
pub mod diff;
pub mod encode;
pub mod error;
pub(crate) mod form;
pub mod hashing;
pub(crate) mod holes;
pub mod members;
pub(crate) mod ordered;
pub(crate) mod pipeline;
pub mod sparse;
pub mod tar_entry;
pub(crate) mod tar_header;
pub(crate) mod tree_writer;
pub mod verify;
pub mod write_tar;

#[cfg(test)]
mod apply_tests;
#[cfg(test)]
mod diff_tests;
#[cfg(test)]
mod encode_tests;
#[cfg(test)]
mod fixed_time_tests;
#[cfg(test)]
mod root_tests;
#[cfg(test)]
mod tar_builder;
#[cfg(test)]
mod write_tests;

pub use error::LayerError;
