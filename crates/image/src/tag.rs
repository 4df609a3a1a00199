//! Giving an image one more name.

use mica_oci::{ImageId, Reference};
use mica_store::{ImageCommit, Store};

use crate::error::{ImageError, Result};
use crate::resolve::{name_of, of_index, record, require};

/// Lets `target` lead to the image that `source` means; an image that it led to before stays without it. Where `source` is
/// a name or the digest of an index, `target` gets all that it leads to: images of other platforms, and what it is in its registry.
pub fn tag(store: &Store, source: &str, target: &str) -> Result<ImageId> {
    let reference = Reference::parse(target)?;
    if reference.digest().is_some() {
        return Err(ImageError::TagWithDigest { reference: target.to_owned() });
    }
    let id = require(store, source)?;
    let name = reference.with_default_tag().canonical();
    if let Some(of) = name_of(store, source)?
        && let Some(copied) = store.copy_name(&of, &name)?
    {
        return Ok(copied);
    }
    if let Some((target, images)) = of_index(store, source)? {
        let records = images.iter().map(|id| record(store, id)).collect::<Result<Vec<_>>>()?;
        let names = [name.as_str()];
        let commit = ImageCommit { names: &names, target: Some(&target), ..ImageCommit::default() };
        store.commit_images(&records, &commit)?;
        return Ok(id);
    }
    store.set_name(&name, &id)?;
    Ok(id)
}
