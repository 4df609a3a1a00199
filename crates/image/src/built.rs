//! Keeping what a build made.

use mica_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageId, Manifest, Reference, chain_ids, image_id, media_type,
};
use mica_store::{ImageCommit, ImageRecord, Store};

use crate::chain::read_index;
use crate::error::{ImageError, Result};

/// An image that a build made; its layers are stored already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// With `rootfs` and `history`.
    pub config: ImageConfig,
    /// Each layer with the size of its tar, the lowest first.
    pub layers: Vec<(DiffId, u64)>,
}

/// Stores config and manifest, and makes the image and its names visible in one step. Where all is so already, nothing
/// is written. An image that a name led to before stays, without that name.
pub fn put_built(store: &Store, image: &BuiltImage, names: &[Reference]) -> Result<(ImageId, Digest)> {
    let config = image.config.to_canonical_json();
    let id = image_id(&config);
    let layers: Vec<Descriptor> =
        image.layers.iter().map(|(diff_id, size)| uncompressed(diff_id, *size)).collect();
    let diff_ids = &image.config.rootfs.diff_ids;
    if !diff_ids.iter().eq(image.layers.iter().map(|(diff_id, _)| diff_id)) {
        return Err(ImageError::LayerCount { diff_ids: diff_ids.len(), layers: layers.len() });
    }
    let manifest = Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &config), layers).to_canonical_json();
    let digest = Digest::sha256(&manifest);
    let names: Vec<String> = names.iter().map(|name| name.with_default_tag().canonical()).collect();
    let known = store.image(&id)?;
    if let Some(known) = &known
        && known.manifest == digest
        && store.has_blob(&digest)?
        && store.has_blob(&id.0)?
    {
        let mut is_so = true;
        for name in &names {
            is_so = is_so && store.name(name)?.as_ref() == Some(&id);
        }
        if is_so {
            return Ok((id, digest));
        }
    }
    let size_bytes = match known {
        Some(known) => known.size_bytes,
        None => layers_size_bytes(store, diff_ids)?,
    };
    let _lease = store.lease()?;
    store.put_blob(&config)?;
    store.put_blob(&manifest)?;
    let record = image_record(id.clone(), digest.clone(), &image.config, size_bytes);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    store.commit_image(&record, &ImageCommit { names: &names, ..ImageCommit::default() })?;
    Ok((id, digest))
}

/// The descriptor of a layer as mica writes it: the tar itself.
pub(crate) fn uncompressed(diff_id: &DiffId, tar_size_bytes: u64) -> Descriptor {
    Descriptor::new(media_type::OCI_LAYER, diff_id.0.clone(), tar_size_bytes)
}

/// Size of the content of all layers, as docker counts.
pub(crate) fn layers_size_bytes(store: &Store, diff_ids: &[DiffId]) -> Result<u64> {
    let mut size_bytes: u64 = 0;
    for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
        let layer = store.layer(diff_id, Some(&chain_id))?;
        let layer = layer.ok_or_else(|| ImageError::LayerMissing { diff_id: diff_id.clone() })?;
        size_bytes = size_bytes.saturating_add(read_index(&layer)?.content_size_bytes());
    }
    Ok(size_bytes)
}

/// The row of an image with this config.
pub(crate) fn image_record(
    id: ImageId,
    manifest: Digest,
    config: &ImageConfig,
    size_bytes: u64,
) -> ImageRecord {
    ImageRecord {
        id,
        manifest,
        layers: config.rootfs.diff_ids.clone(),
        parent: None,
        created: config.created.clone().unwrap_or_default(),
        size_bytes,
        architecture: config.architecture.clone(),
        os: config.os.clone(),
        variant: config.variant.clone().unwrap_or_default(),
    }
}
