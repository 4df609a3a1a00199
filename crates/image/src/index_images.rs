//! The images of an index: what was built or pulled for several platforms, known by one digest.

use mica_oci::{
    Descriptor, Digest, Document, ImageId, Index, MANIFEST_SIZE_BYTES_MAX, Manifest, Platform, Reference,
};
use mica_store::{ImageRecord, Store};

use crate::error::Result;
use crate::resolve::record;

/// An index of the store, with its exact bytes.
pub(crate) fn read_index(store: &Store, digest: &Digest) -> Result<Option<(Index, Vec<u8>)>> {
    let Ok(bytes) = store.read_blob(digest, MANIFEST_SIZE_BYTES_MAX) else { return Ok(None) };
    match Document::parse(&bytes, None) {
        Ok(Document::Index(index)) => Ok(Some((index, bytes))),
        _ => Ok(None),
    }
}

/// The image that a manifest of an index is of, if it is stored.
pub(crate) fn image_of(store: &Store, descriptor: &Descriptor) -> Result<Option<ImageId>> {
    if let Some(id) = store.image_of_manifest(&descriptor.digest)? {
        return Ok(Some(id));
    }
    // An image is known by one manifest at a time, and may have had another when the index was made.
    let Ok(bytes) = store.read_blob(&descriptor.digest, MANIFEST_SIZE_BYTES_MAX) else { return Ok(None) };
    let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(None) };
    let id = ImageId(manifest.config.digest);
    Ok(store.image(&id)?.map(|_| id))
}

/// The one of several images that runs here, the best that this hardware runs.
fn own(records: &[ImageRecord]) -> Option<usize> {
    let of = |record: &ImageRecord| Platform::with_variant(&record.os, &record.architecture, &record.variant);
    let runs = Platform::host().runs();
    runs.iter().find_map(|runs| records.iter().position(|record| of(record).is_same(runs)))
}

/// Puts the image first that runs here: without a platform, a name of several means that one.
pub(crate) fn put_own_first(records: &mut [ImageRecord]) {
    if let Some(first) = own(records).and_then(|own| records.get_mut(..=own)) {
        first.rotate_right(1);
    }
}

/// Lets a name that has an image for this machine lead to it, whichever of its images came last.
pub fn lead_to_own(store: &Store, name: &Reference) -> Result<()> {
    let name = name.canonical();
    let records = store.images_of(&name)?;
    let records = records.iter().map(|id| record(store, id)).collect::<Result<Vec<_>>>()?;
    if let Some(own) = own(&records).filter(|own| *own > 0).and_then(|own| records.get(own)) {
        store.lead_name_to(&name, &own.id)?;
    }
    Ok(())
}

/// The images that came with an index and are stored, the one that runs here first, each once. Empty for a digest that is
/// no index, and for an index that only lies about.
pub(crate) fn images_of_index(store: &Store, digest: &Digest) -> Result<Vec<ImageId>> {
    let needing = store.images_with_blob(digest)?;
    if needing.is_empty() {
        return Ok(Vec::new());
    }
    let Some((index, _)) = read_index(store, digest)? else { return Ok(Vec::new()) };
    let mut images: Vec<ImageId> = Vec::new();
    for descriptor in index.images() {
        let found = image_of(store, descriptor)?.filter(|id| needing.contains(id));
        images.extend(found.filter(|id| !images.contains(id)));
    }
    let records = images.iter().map(|id| record(store, id)).collect::<Result<Vec<_>>>()?;
    if let Some(first) = own(&records).and_then(|own| images.get_mut(..=own)) {
        first.rotate_right(1);
    }
    Ok(images)
}

/// An index of which all images are stored.
pub(crate) struct WholeIndex {
    index: Index,
    bytes: Vec<u8>,
    /// Its images, with what it says of them.
    pub members: Vec<(ImageId, Descriptor)>,
}

/// An index as an archive has it.
pub(crate) struct SavedIndex {
    /// What leads to it.
    pub name: Reference,
    /// Of its bytes.
    pub descriptor: Descriptor,
    /// Its document.
    pub bytes: Vec<u8>,
}

/// What a name leads to, if that is an index and the name has all images of it.
pub(crate) fn whole_index(store: &Store, name: &Reference) -> Result<Option<WholeIndex>> {
    let name = name.canonical();
    let Some(target) = store.target_of(&name)? else { return Ok(None) };
    let Some((index, bytes)) = read_index(store, &target)? else { return Ok(None) };
    let own = store.images_of(&name)?;
    let mut members = Vec::new();
    for descriptor in index.images() {
        match image_of(store, descriptor)?.filter(|id| own.contains(id)) {
            Some(id) => members.push((id, descriptor.clone())),
            None => return Ok(None),
        }
    }
    Ok((!members.is_empty()).then_some(WholeIndex { index, bytes, members }))
}

impl WholeIndex {
    /// The index of these manifests, one for each of its images: of the manifests that it names its own bytes, else one that
    /// says the same of others.
    pub fn saved<'a>(self, name: Reference, manifests: impl Iterator<Item = &'a Descriptor>) -> SavedIndex {
        let of_other = |((_, own), other): (&(ImageId, Descriptor), &Descriptor)| Descriptor {
            media_type: other.media_type.clone(),
            digest: other.digest.clone(),
            size: other.size,
            ..own.clone()
        };
        let manifests: Vec<Descriptor> = self.members.iter().zip(manifests).map(of_other).collect();
        let bytes = match manifests == self.index.manifests {
            true => self.bytes,
            // What was stated of the others is not stated of these.
            false => Index { manifests, ..self.index.clone() }.to_canonical_json(),
        };
        SavedIndex { name, descriptor: Descriptor::of(self.index.media_type(), &bytes), bytes }
    }
}
