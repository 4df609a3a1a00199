//! From what people write to an image, and from an image to its documents.

use mica_oci::{
    AnyReference, CONFIG_SIZE_BYTES_MAX, Digest, ImageConfig, ImageId, MANIFEST_SIZE_BYTES_MAX, Manifest,
    Platform, Reference,
};
use mica_store::{ImageRecord, Store};

use crate::error::{ImageError, Result};
use crate::index_images::images_of_index;

/// The image that `text` means: a name, an ID or the beginning of one, `name@digest`, or the digest of a manifest or an index.
///
/// Names come before the beginnings of IDs, as in docker: an image `cafe` is found although IDs may begin so.
pub fn resolve(store: &Store, text: &str) -> Result<Option<ImageId>> {
    if let Ok(digest) = Digest::parse(text) {
        return by_digest(store, &digest);
    }
    if let Ok(reference) = Reference::parse(text)
        && let Some(id) = by_reference(store, &reference)?
    {
        return Ok(Some(id));
    }
    let mut ids = store.resolve_id_prefix(text)?;
    match ids.len() {
        0 => match AnyReference::parse(text) {
            Ok(_) => Ok(None),
            Err(error) => Err(error.into()),
        },
        1 => Ok(ids.pop()),
        _ => Err(ImageError::Ambiguous { prefix: text.to_owned(), ids }),
    }
}

fn by_digest(store: &Store, digest: &Digest) -> Result<Option<ImageId>> {
    let id = ImageId(digest.clone());
    if store.image(&id)?.is_some() {
        return Ok(Some(id));
    }
    match store.image_of_manifest(digest)? {
        Some(id) => Ok(Some(id)),
        None => Ok(images_of_index(store, digest)?.into_iter().next()),
    }
}

fn by_reference(store: &Store, reference: &Reference) -> Result<Option<ImageId>> {
    if let Some(id) = store.name(&reference.resolvable().canonical())? {
        return Ok(Some(id));
    }
    // `name@digest` of an image that has that name under some tag, or as one of several platforms.
    let Some(digest) = reference.digest() else { return Ok(None) };
    let Some(id) = by_digest(store, digest)? else { return Ok(None) };
    let mut names = store.names_of(&id)?;
    names.extend(store.other_names_of(&id)?);
    let is_known =
        names.iter().any(|name| Reference::parse(name).is_ok_and(|own| own.name() == reference.name()));
    Ok(is_known.then_some(id))
}

/// The name in the store that `text` means, if it means an image by a name.
pub(crate) fn name_of(store: &Store, text: &str) -> Result<Option<String>> {
    if Digest::parse(text).is_ok() {
        return Ok(None);
    }
    let Ok(reference) = Reference::parse(text) else { return Ok(None) };
    let name = reference.resolvable().canonical();
    Ok(store.name(&name)?.map(|_| name))
}

/// The image of a platform among those that `text` means: a name may have several, the digest of an
/// index means all of them, anything else means one.
/// As in an index, a platform is served by the best that its hardware runs.
pub fn resolve_platform(store: &Store, text: &str, platform: &Platform) -> Result<ImageId> {
    let images = match name_of(store, text)? {
        Some(name) => store.images_of(&name)?,
        None => match of_index(store, text)? {
            Some((_, images)) => images,
            None => vec![require(store, text)?],
        },
    };
    let mut offered = Vec::new();
    for id in images {
        let record = record(store, &id)?;
        let variant = (!record.variant.is_empty()).then_some(record.variant);
        let own = Platform { variant, ..Platform::new(&record.os, &record.architecture) };
        offered.push((id, own));
    }
    let of_platform = |wanted: &Platform| offered.iter().find(|(_, own)| own.is_same(wanted));
    match platform.runs().iter().find_map(of_platform) {
        Some((id, _)) => Ok(id.clone()),
        None => Err(ImageError::PlatformMissing {
            text: text.to_owned(),
            platform: platform.to_string(),
            offered: offered.iter().map(|(_, own)| own.to_string()).collect(),
        }),
    }
}

/// The index that `text` is the digest of, with its images, if images came with it.
pub(crate) fn of_index(store: &Store, text: &str) -> Result<Option<(Digest, Vec<ImageId>)>> {
    let Ok(digest) = Digest::parse(text) else { return Ok(None) };
    let images = images_of_index(store, &digest)?;
    Ok((!images.is_empty()).then_some((digest, images)))
}

/// As [`resolve`], but nothing found is an error in docker's words.
pub fn require(store: &Store, text: &str) -> Result<ImageId> {
    resolve(store, text)?.ok_or_else(|| not_found(text))
}

pub(crate) fn not_found(text: &str) -> ImageError {
    let text = match Reference::parse(text) {
        Ok(reference) => reference.with_default_tag().familiar(),
        Err(_) => text.to_owned(),
    };
    ImageError::NotFound { text }
}

/// What the store knows of an image.
pub fn record(store: &Store, id: &ImageId) -> Result<ImageRecord> {
    store.image(id)?.ok_or_else(|| ImageError::NotFound { text: id.to_string() })
}

/// The image's config.
pub fn config(store: &Store, id: &ImageId) -> Result<ImageConfig> {
    Ok(ImageConfig::parse(&config_bytes(store, id)?)?)
}

/// The exact bytes of the image's config.
pub fn config_bytes(store: &Store, id: &ImageId) -> Result<Vec<u8>> {
    Ok(store.read_blob(&id.0, CONFIG_SIZE_BYTES_MAX)?)
}

/// The image's manifest, and its digest.
pub fn manifest(store: &Store, id: &ImageId) -> Result<(Digest, Manifest)> {
    let digest = record(store, id)?.manifest;
    let bytes = store.read_blob(&digest, MANIFEST_SIZE_BYTES_MAX)?;
    Ok((digest, Manifest::parse(&bytes)?))
}
