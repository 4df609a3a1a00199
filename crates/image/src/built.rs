//! Keeping what a build made.

use mica_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageId, Index, Manifest, Platform, Reference, chain_ids,
    image_id, media_type,
};
use mica_store::{ImageCommit, ImageRecord, Store};

use crate::chain::read_index;
use crate::error::{ImageError, Result};
use crate::index_images::{put_own_first, read_index as read_index_of};

/// An image that a build made; its layers are stored already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuiltImage {
    /// With `rootfs` and `history`.
    pub config: ImageConfig,
    /// Each layer with the size of its tar, the lowest first.
    pub layers: Vec<(DiffId, u64)>,
}

impl BuiltImage {
    /// Image ID and the digest of the manifest that [`put_built`] gives it.
    pub fn digests(&self) -> (ImageId, Digest) {
        let documents = Documents::encode(self);
        (documents.id, documents.digest)
    }
}

/// The documents of an image that was built.
struct Documents {
    config: Vec<u8>,
    id: ImageId,
    manifest: Vec<u8>,
    digest: Digest,
}

impl Documents {
    fn of(image: &BuiltImage) -> Result<Self> {
        let diff_ids = &image.config.rootfs.diff_ids;
        if !diff_ids.iter().eq(image.layers.iter().map(|(diff_id, _)| diff_id)) {
            return Err(ImageError::LayerCount { diff_ids: diff_ids.len(), layers: image.layers.len() });
        }
        Ok(Self::encode(image))
    }

    fn encode(image: &BuiltImage) -> Self {
        let config = image.config.to_canonical_json();
        let layers = image.layers.iter().map(|(diff_id, size)| uncompressed(diff_id, *size)).collect();
        let manifest =
            Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &config), layers).to_canonical_json();
        Self { id: image_id(&config), config, digest: Digest::sha256(&manifest), manifest }
    }

    /// Stores them, and answers the row of the image.
    fn put(&self, store: &Store, image: &BuiltImage) -> Result<ImageRecord> {
        let size_bytes = match store.image(&self.id)? {
            Some(known) => known.size_bytes,
            None => layers_size_bytes(store, &image.config.rootfs.diff_ids)?,
        };
        store.put_blob(&self.config)?;
        store.put_blob(&self.manifest)?;
        Ok(image_record(self.id.clone(), self.digest.clone(), &image.config, size_bytes))
    }
}

/// Stores config and manifest, and makes the image and its names visible in one step. Where all is so already, nothing
/// is written. An image that a name led to before stays, without that name.
pub fn put_built(store: &Store, image: &BuiltImage, names: &[Reference]) -> Result<(ImageId, Digest)> {
    let documents = Documents::of(image)?;
    let names: Vec<String> = names.iter().map(|name| name.with_default_tag().canonical()).collect();
    let (id, digest) = (documents.id.clone(), documents.digest.clone());
    if let Some(known) = store.image(&id)?
        && known.manifest == digest
        && store.has_blob(&digest)?
        && store.has_blob(&id.0)?
    {
        let mut is_so = true;
        for name in &names {
            // An index is more than this image, even one of this image alone.
            let is_image = match store.target_of(name)? {
                Some(target) => read_index_of(store, &target)?.is_none(),
                None => true,
            };
            is_so = is_so && is_image && store.images_of(name)?.as_slice() == std::slice::from_ref(&id);
        }
        if is_so {
            return Ok((id, digest));
        }
    }
    let _lease = store.lease()?;
    let record = documents.put(store, image)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    store.commit_image(&record, &ImageCommit { names: &names, ..ImageCommit::default() })?;
    Ok((id, digest))
}

/// Stores the images of several platforms and an index of them, which the names then lead to. Answers the digest of each
/// image's config and manifest, in their order, and that of the index.
pub fn put_built_index(
    store: &Store,
    images: &[(Platform, BuiltImage)],
    names: &[Reference],
) -> Result<(Vec<(ImageId, Digest)>, Digest)> {
    let _lease = store.lease()?;
    let mut records: Vec<ImageRecord> = Vec::with_capacity(images.len());
    let (mut descriptors, mut ids) = (Vec::new(), Vec::new());
    for (platform, image) in images {
        let documents = Documents::of(image)?;
        descriptors.push(Descriptor {
            platform: Some(platform_in_index(platform, &image.config)),
            ..Descriptor::of(media_type::OCI_MANIFEST, &documents.manifest)
        });
        let record = documents.put(store, image)?;
        ids.push((documents.id, documents.digest));
        // A Dockerfile that does not care for its platform may give one image for two.
        if !records.iter().any(|known| known.id == record.id) {
            records.push(record);
        }
    }
    let index = Index::oci(descriptors).to_canonical_json();
    let digest = store.put_blob(&index)?;
    put_own_first(&mut records);
    let names: Vec<String> = names.iter().map(|name| name.with_default_tag().canonical()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (blobs, target) = (std::slice::from_ref(&digest), Some(&digest));
    store.commit_images(&records, &ImageCommit { blobs, names: &names, target, ..ImageCommit::default() })?;
    Ok((ids, digest))
}

/// What an index says of an image: the platform that was asked for, with what only the config knows.
pub fn platform_in_index(platform: &Platform, config: &ImageConfig) -> Platform {
    let platform = platform.normalized();
    Platform {
        os_version: platform.os_version.or_else(|| config.os_version.clone()),
        os_features: match platform.os_features.is_empty() {
            true => config.os_features.clone(),
            false => platform.os_features,
        },
        ..platform
    }
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
