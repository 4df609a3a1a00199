//! Copies images from one place to another without the store in between: registries, OCI layouts, archives.
//!
//! **Here**: what people write for a place ([`Place`]), and [`copy`], which reads all documents of an image, sees to it that the
//! destination has all blobs, and makes the destination's name lead to it. **Not here**: the wire (`mica-registry-client`), reading
//! tars (`mica-layer`), images of the store (`mica-image`: `pull`, `push`, `load`, `save`), progress (`mica-cli`).
//!
//! **Nouns**: a *place* is a repository with tag or digest, an *OCI layout* (a directory), a layout in a tar (*oci-archive*) or what
//! `docker save` writes (*docker-archive*); a *document* is a manifest or an index; a *blob* is a config, a layer, or what else a
//! manifest names; the *root* is the document that the place names; a *plan* is all documents and blobs below it.
//!
//! **Invariants**
//! 1. Bytes are copied as they are; no digest changes. The one exception is said at [`copy`]: archives without a manifest.
//! 2. Every byte is held against digest and size on its way; nothing unverified gets a name.
//! 3. Children before parents, blobs before documents; the destination's name moves last, in one step: `index.json` or the
//!    archive by one rename, a tag by one PUT. Other tags of a layout stay.
//! 4. What the destination has is not sent; within one registry blobs are mounted.
//! 5. Paths inside a place are looked up beneath its handle or among its members, through no symbolic link.
//! 6. Memory is bounded, whatever the image's size: documents (64 MiB in all) and a buffer for each of four blobs.
//! 7. The same image gives the same archive, byte for byte.
//!
//! **Places in skopeo's words**: `docker://NAME` or `NAME`, `oci:DIR[:TAG]`, `oci-archive:FILE[:TAG]`, `docker-archive:FILE[:NAME]`,
//! and a bare path (`./x`, `/x`) that is told by its content. For a layout, TAG may also be the digest of an entry.
//!
//! **What is copied**: all that is below the root: every platform, attestations that lie in the index. Not referrers that only a
//! registry's API knows. Foreign layers with an address of their own stay there, except into a docker archive. A docker archive
//! holds one image: `platform` or this machine's out of an index; its manifest keeps its digest, as the archive is a layout too.
//!
//! **Several at once, and a kill**: copies into one layout run side by side; only the moment of `index.json` is under a lock
//! of its directory. A kill leaves `.tmp-*` files, which the next copy into a layout takes away (their writers hold locks), beside an
//! archive one such file. What waits for an upload lies in files without a name.
//!
//! Start reading at `copy`. Tests: tables in each file; `tests/` has every pair of places, hostile layouts, and skopeo.

mod archive_destination;
mod copy;
mod destination;
mod docker_source;
mod error;
mod event;
mod files;
mod layout_destination;
mod place;
mod plan;
mod registry_destination;
mod source;
mod verify;

pub use copy::{Copied, CopyOptions, copy};
pub use error::{CopyError, Result};
pub use event::{BlobState, CopyEvent};
pub use place::{Place, PlaceError};
