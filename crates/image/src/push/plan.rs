//! What a name's push consists of: which documents go, and where the bytes of each blob come from.

use std::collections::HashSet;

use mica_layer::encode::Form;
use mica_layer::verify::is_whole;
use mica_oci::media_type::{self, Compression};
use mica_oci::{
    ChainId, Descriptor, DiffId, Digest, ImageConfig, ImageId, Index, MANIFEST_SIZE_BYTES_MAX, Manifest,
    Platform, Reference, chain_ids,
};
use mica_store::{Layer, Store};

use crate::error::{ImageError, Result};
use crate::index_images::{image_of, read_index};
use crate::push::bytes::Written;
use crate::push::error::PushError;
use crate::resolve::{config_bytes, record};

/// The tar of a layer.
#[derive(Clone, Debug)]
pub(crate) enum Plain {
    /// Written from its tree.
    Tree(Box<Layer>),
    /// Kept as it came.
    Blob(Digest),
}

/// Where the bytes of a blob come from.
#[derive(Clone, Debug)]
pub(crate) enum Bytes {
    /// They are kept.
    Blob,
    /// A tar.
    Tar(Plain),
    /// A tar, in this form.
    Compressed(Plain, Form),
    /// They were written a moment ago.
    Written(Written),
    /// They live elsewhere, and are not sent.
    Foreign,
    /// They are not here: the layer is, in another form. The registry may have them.
    Absent,
}

/// A blob that goes to the registry.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// What the manifest says of it; of a layer that was never compressed, only the media type is known.
    pub descriptor: Descriptor,
    /// Set if digest and size in the descriptor are yet to be found out.
    pub is_unknown: bool,
    /// Set for layers.
    pub diff_id: Option<DiffId>,
    pub bytes: Bytes,
}

impl Part {
    /// What it is shown as.
    pub fn shown(&self) -> Digest {
        self.diff_id.as_ref().map_or_else(|| self.descriptor.digest.clone(), |diff_id| diff_id.0.clone())
    }

    /// Whether both are the same bytes.
    fn is_same(&self, other: &Part) -> bool {
        self.is_unknown == other.is_unknown
            && match self.is_unknown {
                true => self.diff_id == other.diff_id,
                false => self.descriptor.digest == other.descriptor.digest,
            }
    }
}

/// A document that goes to the registry after the blobs it names.
#[derive(Clone, Debug)]
pub(crate) enum PlannedDocument {
    /// Exactly these bytes.
    Exact { digest: Digest, media_type: String, bytes: Vec<u8> },
    /// Made when the digests of all layers are known: config, and for each layer the position of its part.
    Made { config: Box<Descriptor>, layers: Vec<usize>, is_docker: bool },
    /// An index that was made here, with its bytes and the position of the document for each of its manifests.
    MadeIndex { index: Box<Index>, bytes: Vec<u8>, members: Vec<usize> },
}

/// All that a push sends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Layers, the lowest first, each once; then configs.
    pub layers: Vec<Part>,
    pub configs: Vec<Part>,
    /// The last of them gets the tag.
    pub documents: Vec<PlannedDocument>,
    /// The index that could not be pushed whole, and the image that is pushed instead.
    pub instead_of: Option<Digest>,
    /// The manifest that the name had in a registry and that could not be pushed again, as bytes of it are not here.
    pub remade: Option<Digest>,
    /// The image, if it is one.
    pub image: Option<ImageId>,
    /// The images of an index that is made anew.
    pub members: Vec<ImageId>,
}

impl Plan {
    pub fn add_layer(&mut self, part: Part) -> usize {
        match self.layers.iter().position(|known| known.is_same(&part)) {
            Some(position) => position,
            None => {
                self.layers.push(part);
                self.layers.len() - 1
            }
        }
    }

    pub fn add_config(&mut self, descriptor: &Descriptor) {
        let is_known = |part: &Part| part.descriptor.digest == descriptor.digest;
        if !self.configs.iter().any(is_known) {
            let descriptor = descriptor.clone();
            self.configs.push(Part { descriptor, is_unknown: false, diff_id: None, bytes: Bytes::Blob });
        }
    }
}

/// What planning asks the registry.
pub(super) struct Remote<'a> {
    /// Whether the repository has a document already: then all that it refers to is there as well.
    pub has_document: &'a dyn Fn(&Digest) -> Result<bool>,
    /// Whether the repository has a blob, or can be made to have it without its bytes.
    pub has_blob: &'a dyn Fn(&Descriptor) -> Result<bool>,
}

/// Decides what is pushed under `reference`, a name with a tag.
pub(super) fn plan(
    store: &Store,
    reference: &Reference,
    platform: Option<&Platform>,
    remote: &Remote<'_>,
) -> Result<Plan> {
    let name = reference.canonical();
    let images = store.images_of(&name)?;
    let Some(first) = images.first() else { return Err(absent(store, reference)?) };
    let target = store.target_of(&name)?;
    let index = match &target {
        Some(target) => read_index(store, target)?.map(|(index, bytes)| (target.clone(), index, bytes)),
        None => None,
    };
    if let (None, Some((digest, index, bytes))) = (platform, &index) {
        let document = PlannedDocument::Exact {
            digest: digest.clone(),
            media_type: index.media_type().to_owned(),
            bytes: bytes.clone(),
        };
        // As for an image: what no registry knows should not go there uncompressed.
        if !is_of_registry(store, &images, digest)?
            && let Some(plan) = made_index(store, index, bytes, remote)?
        {
            return Ok(plan);
        }
        let whole = match whole_index(store, index, remote)? {
            Some(plan) => Some(plan),
            None => (remote.has_document)(digest)?.then(Plan::default),
        };
        if let Some(mut plan) = whole {
            plan.documents.push(document);
            return Ok(plan);
        }
    }
    let id = match platform {
        None => of_platform(store, &images, &Platform::host())?.unwrap_or_else(|| first.clone()),
        Some(wanted) => of_platform(store, &images, wanted)?.ok_or_else(|| {
            failed(
                reference,
                PushError::NoPlatform { reference: reference.familiar(), platform: wanted.to_string() },
            )
        })?,
    };
    let target = target.filter(|_| index.is_none());
    let mut plan = image(store, &id, target.as_ref(), remote)?;
    plan.instead_of = index.filter(|_| platform.is_none()).map(|(digest, ..)| digest);
    plan.image = Some(id);
    Ok(plan)
}

pub(crate) fn failed(reference: &Reference, source: PushError) -> ImageError {
    ImageError::Push { reference: reference.familiar(), source: Box::new(source) }
}

fn absent(store: &Store, reference: &Reference) -> Result<ImageError> {
    let mut names = store.images()?.into_iter().flat_map(|image| image.names);
    let has_other =
        names.any(|name| Reference::parse(&name).is_ok_and(|name| name.name() == reference.name()));
    let error = match has_other {
        true => PushError::NoTag { reference: reference.familiar() },
        false => PushError::NoImage { repository: reference.familiar_name() },
    };
    Ok(failed(reference, error))
}

fn of_platform(store: &Store, images: &[ImageId], wanted: &Platform) -> Result<Option<ImageId>> {
    let mut found = Vec::new();
    for id in images {
        let record = record(store, id)?;
        found.push((id, Platform::with_variant(&record.os, &record.architecture, &record.variant)));
    }
    let fits = |wanted: Platform| found.iter().find(|(_, platform)| platform.is_same(&wanted));
    Ok(wanted.runs().into_iter().find_map(fits).map(|(id, _)| (*id).clone()))
}

/// Whether a registry has the index, as far as is known.
fn is_of_registry(store: &Store, images: &[ImageId], index: &Digest) -> Result<bool> {
    for id in images {
        let mut names = store.names_of(id)?;
        names.extend(store.other_names_of(id)?);
        let mut names = names.iter().filter_map(|name| Reference::parse(name).ok());
        if names.any(|name| name.digest() == Some(index)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The plan of an index that was made here: each image as it would be pushed alone, and an index of what comes of them.
/// `None` if one of its images is not stored.
fn made_index(store: &Store, index: &Index, bytes: &[u8], remote: &Remote<'_>) -> Result<Option<Plan>> {
    let mut whole = Plan::default();
    let mut members = Vec::with_capacity(index.manifests.len());
    let mut positions: Vec<(Digest, usize)> = Vec::new();
    for descriptor in &index.manifests {
        let known = positions.iter().find(|(digest, _)| *digest == descriptor.digest);
        if let Some((_, position)) = known {
            members.push(*position);
            continue;
        }
        let Some(id) = image_of(store, descriptor)? else { return Ok(None) };
        let plan = image(store, &id, None, remote)?;
        let layers: Vec<usize> = plan.layers.into_iter().map(|part| whole.add_layer(part)).collect();
        for config in plan.configs {
            whole.add_config(&config.descriptor);
        }
        for mut document in plan.documents {
            if let PlannedDocument::Made { layers: own, .. } = &mut document {
                *own = own.iter().filter_map(|position| layers.get(*position).copied()).collect();
            }
            whole.documents.push(document);
        }
        // An image is one document.
        let position = whole.documents.len().saturating_sub(1);
        positions.push((descriptor.digest.clone(), position));
        members.push(position);
        whole.members.push(id);
    }
    let (index, bytes) = (Box::new(index.clone()), bytes.to_vec());
    whole.documents.push(PlannedDocument::MadeIndex { index, bytes, members });
    Ok(Some(whole))
}

/// The plan of an index without its own document, if all that it refers to is stored.
fn whole_index(store: &Store, index: &Index, remote: &Remote<'_>) -> Result<Option<Plan>> {
    let mut plan = Plan::default();
    let mut seen = HashSet::new();
    for descriptor in &index.manifests {
        if !seen.insert(&descriptor.digest) {
            continue;
        }
        let Ok(bytes) = store.read_blob(&descriptor.digest, MANIFEST_SIZE_BYTES_MAX) else { return Ok(None) };
        let Ok(manifest) = Manifest::parse(&bytes) else { return Ok(None) };
        let Some(parts) = exact_parts(store, &manifest, true)? else { return Ok(None) };
        if !are_there(&parts, remote)? {
            return Ok(None);
        }
        if !store.has_blob(&manifest.config.digest)? {
            return Ok(None);
        }
        for part in parts {
            plan.add_layer(part);
        }
        plan.add_config(&manifest.config);
        let (digest, media_type) = (descriptor.digest.clone(), manifest.media_type().to_owned());
        plan.documents.push(PlannedDocument::Exact { digest, media_type, bytes });
    }
    Ok(Some(plan))
}

/// The plan of one image: under the manifest that it has in a registry or came with, if its bytes are here or can be made
/// again; else under a new one.
fn image(store: &Store, id: &ImageId, target: Option<&Digest>, remote: &Remote<'_>) -> Result<Plan> {
    let record = record(store, id)?;
    for digest in target.into_iter().chain([&record.manifest]) {
        let Ok(bytes) = store.read_blob(digest, MANIFEST_SIZE_BYTES_MAX) else { continue };
        let Ok(manifest) = Manifest::parse(&bytes) else { continue };
        if manifest.config.digest.matches(&config_bytes(store, id)?) != Some(true) {
            continue;
        }
        // What is known of no registry should not go there uncompressed.
        let is_of_registry = target == Some(digest) || is_named_by_digest(store, id, digest)?;
        let Some(parts) = exact_parts(store, &manifest, is_of_registry)? else { continue };
        if !are_there(&parts, remote)? {
            continue;
        }
        let mut plan = Plan::default();
        for part in parts {
            plan.add_layer(part);
        }
        plan.add_config(&manifest.config);
        let (digest, media_type) = (digest.clone(), manifest.media_type().to_owned());
        plan.documents.push(PlannedDocument::Exact { digest, media_type, bytes });
        return Ok(plan);
    }
    let mut plan = made(store, id, &record.manifest, &record.layers)?;
    plan.remade = target.cloned();
    Ok(plan)
}

fn is_named_by_digest(store: &Store, id: &ImageId, digest: &Digest) -> Result<bool> {
    let names = store.names_of(id)?;
    Ok(names.iter().filter_map(|name| Reference::parse(name).ok()).any(|name| name.digest() == Some(digest)))
}

/// Where the bytes of all layers of a manifest are; `None` if it should not be pushed as it is.
fn exact_parts(store: &Store, manifest: &Manifest, plain_too: bool) -> Result<Option<Vec<Part>>> {
    let diff_ids = diff_ids_of(store, manifest)?;
    let chains = diff_ids.as_deref().map(chain_ids).unwrap_or_default();
    let mut parts = Vec::new();
    for (position, descriptor) in manifest.layers.iter().enumerate() {
        let diff_id = diff_ids.as_ref().and_then(|diff_ids| diff_ids.get(position));
        let bytes = match diff_id {
            _ if is_foreign(descriptor) => Bytes::Foreign,
            Some(diff_id) if !plain_too && descriptor.digest == diff_id.0 => return Ok(None),
            _ if store.blob_size_bytes(&descriptor.digest)? == Some(descriptor.size) => Bytes::Blob,
            Some(diff_id) => {
                made_again(store, descriptor, diff_id, chains.get(position))?.unwrap_or(Bytes::Absent)
            }
            None => return Ok(None),
        };
        let (descriptor, diff_id) = (descriptor.clone(), diff_id.cloned());
        parts.push(Part { descriptor, is_unknown: false, diff_id, bytes });
    }
    Ok(Some(parts))
}

/// Whether the registry has all that is not here, the bytes of some layers in the form that the manifest says.
fn are_there(parts: &[Part], remote: &Remote<'_>) -> Result<bool> {
    for part in parts.iter().filter(|part| matches!(part.bytes, Bytes::Absent)) {
        if !(remote.has_blob)(&part.descriptor)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The diff IDs of a manifest's layers, if it is of an image whose config is stored.
fn diff_ids_of(store: &Store, manifest: &Manifest) -> Result<Option<Vec<DiffId>>> {
    if !manifest.is_image() {
        return Ok(None);
    }
    let Ok(bytes) = store.read_blob(&manifest.config.digest, mica_oci::CONFIG_SIZE_BYTES_MAX) else {
        return Ok(None);
    };
    let Ok(config) = ImageConfig::parse(&bytes) else { return Ok(None) };
    let diff_ids = config.rootfs.diff_ids;
    Ok((diff_ids.len() == manifest.layers.len()).then_some(diff_ids))
}

fn is_foreign(descriptor: &Descriptor) -> bool {
    media_type::is_nondistributable(&descriptor.media_type) && !descriptor.urls.is_empty()
}

/// How the very bytes of a layer that are not kept can be made.
fn made_again(
    store: &Store,
    descriptor: &Descriptor,
    diff_id: &DiffId,
    chain: Option<&ChainId>,
) -> Result<Option<Bytes>> {
    let is_tar = descriptor.digest == diff_id.0;
    let form = store.form_of_compressed(diff_id, &descriptor.digest)?;
    let form = form.filter(|(_, size_bytes)| *size_bytes == descriptor.size);
    // A form of an earlier version has a name that is not known here.
    let form = form.and_then(|(name, _)| Form::of_name(&name));
    if !is_tar && form.is_none() {
        return Ok(None);
    }
    let Some(layer) = store.whole_layer(diff_id, chain, is_whole)? else { return Ok(None) };
    if is_tar && layer.record.tar_size_bytes != descriptor.size {
        return Ok(None);
    }
    let plain = plain_of(store, layer)?;
    Ok(plain.map(|plain| match form.filter(|_| !is_tar) {
        Some(form) => Bytes::Compressed(plain, form),
        None => Bytes::Tar(plain),
    }))
}

/// The tar of a layer, if mica has it or writes it.
pub(crate) fn plain_of(store: &Store, layer: Layer) -> Result<Option<Plain>> {
    match &layer.record.origin {
        None => Ok(Some(Plain::Tree(Box::new(layer)))),
        Some((digest, media_type)) => {
            let is_tar = media_type::layer_compression(media_type) == Some(Compression::None);
            Ok((is_tar && store.has_blob(digest)?).then(|| Plain::Blob(digest.clone())))
        }
    }
}

/// The plan of an image whose manifest is yet to be made: compressed layers as they are kept, all others compressed now.
fn made(store: &Store, id: &ImageId, manifest: &Digest, diff_ids: &[DiffId]) -> Result<Plan> {
    let manifest = store.read_blob(manifest, MANIFEST_SIZE_BYTES_MAX).ok();
    let manifest = manifest.and_then(|bytes| Manifest::parse(&bytes).ok());
    let is_docker = manifest.as_ref().is_some_and(|manifest| {
        media_type::is_docker(manifest.media_type()) || media_type::is_docker(&manifest.config.media_type)
    });
    let layer_type = if is_docker { media_type::docker_layer } else { media_type::oci_layer };
    let mut plan = Plan::default();
    let mut layers = Vec::new();
    for (position, (diff_id, chain_id)) in diff_ids.iter().zip(chain_ids(diff_ids)).enumerate() {
        let own = manifest.as_ref().filter(|manifest| manifest.layers.len() == diff_ids.len());
        let own = own.and_then(|manifest| manifest.layers.get(position));
        let part = match own.filter(|own| is_foreign(own)) {
            Some(own) => {
                let diff_id = Some(diff_id.clone());
                Part { descriptor: own.clone(), is_unknown: false, diff_id, bytes: Bytes::Foreign }
            }
            None => made_part(store, own, diff_id, &chain_id, &layer_type)?,
        };
        layers.push(plan.add_layer(part));
    }
    let config_type = if is_docker { media_type::DOCKER_CONFIG } else { media_type::OCI_CONFIG };
    let size_bytes = config_bytes(store, id)?.len() as u64;
    let config = Descriptor::new(config_type, id.0.clone(), size_bytes);
    plan.add_config(&config);
    plan.documents.push(PlannedDocument::Made { config: Box::new(config), layers, is_docker });
    Ok(plan)
}

fn made_part(
    store: &Store,
    own: Option<&Descriptor>,
    diff_id: &DiffId,
    chain_id: &ChainId,
    layer_type: &dyn Fn(Compression) -> &'static str,
) -> Result<Part> {
    let missing = || ImageError::LayerMissing { diff_id: diff_id.clone() };
    let layer = store.whole_layer(diff_id, Some(chain_id), is_whole)?.ok_or_else(missing)?;
    let own = own.map(|own| (own.digest.clone(), own.media_type.clone()));
    for (digest, media_type) in own.into_iter().chain(layer.record.origin.clone()) {
        let compression = media_type::layer_compression(&media_type);
        let Some(compression) = compression.filter(|compression| *compression != Compression::None) else {
            continue;
        };
        if let Some(size_bytes) = store.blob_size_bytes(&digest)? {
            let descriptor = Descriptor::new(layer_type(compression), digest, size_bytes);
            let diff_id = Some(diff_id.clone());
            return Ok(Part { descriptor, is_unknown: false, diff_id, bytes: Bytes::Blob });
        }
    }
    let plain = match plain_of(store, layer.clone())? {
        Some(plain) => plain,
        // Its bytes are gone; perhaps its tar is one that mica writes alike. It is compared while it is written.
        None => Plain::Tree(Box::new(layer)),
    };
    let form = Form::default();
    let known = store.compressed_form(diff_id, &form.name())?;
    let (digest, size_bytes, is_unknown) = match known {
        Some(known) => (known.digest, known.size_bytes, false),
        None => (diff_id.0.clone(), 0, true),
    };
    let descriptor = Descriptor::new(layer_type(Compression::Gzip), digest, size_bytes);
    Ok(Part { descriptor, is_unknown, diff_id: Some(diff_id.clone()), bytes: Bytes::Compressed(plain, form) })
}
