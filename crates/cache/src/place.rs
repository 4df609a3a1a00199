//! What a place has to be able to do.

use std::any::Any;
use std::io::Read;

use mica_oci::{Descriptor, Manifest};
use mica_registry_client::Content;

use crate::error::Result;

/// Where one cache is. `tests/places.rs` says what holds for each.
pub trait Place: Send + Sync {
    /// For people: `local:/srv/cache`, `registry:ghcr.io/me/app:cache`.
    fn name(&self) -> &str;

    /// The document of the place, or one that it refers to; `None` if there is none. At most
    /// [`mica_oci::MANIFEST_SIZE_BYTES_MAX`]; one that is referred to is held against its digest by the caller.
    fn document(&self, child: Option<&Descriptor>) -> Result<Option<Vec<u8>>>;

    /// The bytes of a blob, which the caller holds against their digest.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>>;

    /// Said before the first blob is written, and held until the manifest is.
    fn begin(&self) -> Result<Box<dyn Any + Send>>;

    /// Whether the place has a blob, or can take it from a neighbour without its bytes.
    fn has(&self, blob: &Descriptor) -> Result<bool>;

    /// Writes a blob that it does not have.
    fn put(&self, blob: &Descriptor, content: &dyn Content) -> Result<()>;

    /// Makes the place lead to this manifest, in one step. All that it names is there.
    fn publish(&self, manifest: &Manifest) -> Result<()>;

    /// After an export, when nothing is held any more: takes away what nobody needs.
    fn tidy(&self) -> Result<()> {
        Ok(())
    }
}
