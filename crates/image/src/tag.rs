//! Giving an image one more name.

use mica_oci::{ImageId, Reference};
use mica_store::Store;

use crate::error::{ImageError, Result};
use crate::resolve::require;

/// Lets `target` lead to the image that `source` means; an image that it led to before stays without it.
pub fn tag(store: &Store, source: &str, target: &str) -> Result<ImageId> {
    let reference = Reference::parse(target)?;
    if reference.digest().is_some() {
        return Err(ImageError::TagWithDigest { reference: target.to_owned() });
    }
    let id = require(store, source)?;
    store.set_name(&reference.with_default_tag().canonical(), &id)?;
    Ok(id)
}
