//! Pulling: an image comes out of a registry into the store.

mod below;
mod error;
mod fetch_layers;
mod follow;
mod resolve_remote;

pub use error::PullError;

use std::io::Write;

use mica_oci::{
    CONFIG_SIZE_BYTES_MAX, Digest, Document, ImageConfig, ImageId, MANIFEST_SIZE_BYTES_MAX, Manifest,
    Platform, Reference, chain_ids, image_id, media_type,
};
use mica_registry_client::Client;
use mica_store::{ImageCommit, ImageRecord, Lease, Store};
use mica_sys::error::ErrorAt;

use crate::built::{image_record, layers_size_bytes};
use crate::error::{ImageError, Result};
use crate::resolve::record;
use crate::transfer_event::{TransferEvent, Watch};
use fetch_layers::{RemoteLayer, fetch_layers};
use resolve_remote::{Remote, resolve_remote};

/// Statements about one image that are kept; BuildKit makes one.
const ATTESTATIONS_MAX: usize = 4;

/// What is pulled.
#[derive(Clone, Copy, Debug)]
pub struct PullRequest<'a> {
    /// By tag, by digest, or by both (then the digest counts).
    pub reference: &'a Reference,
    /// The platform; this machine's if it is not said.
    pub platform: Option<&'a Platform>,
    /// Inside a user namespace.
    pub rootless: bool,
}

/// An image that was pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulled {
    /// The image.
    pub image: ImageId,
    /// What the reference leads to in the registry: an index or a manifest.
    pub target: Digest,
    /// Whether anything changed in the store.
    pub is_new: bool,
}

/// Pulls an image. The name moves only when all is stored; an image that it led to before stays without it.
pub fn pull(store: &Store, client: &Client, request: &PullRequest<'_>, watch: &Watch<'_>) -> Result<Pulled> {
    let reference = request.reference.resolvable();
    let lease = store.lease()?;
    if let Some(pulled) = is_there(store, client, &reference, request.platform)? {
        return Ok(pulled);
    }
    let failed =
        |source: PullError| ImageError::Pull { reference: reference.familiar(), source: Box::new(source) };
    let remote = resolve_remote(client, &reference, request.platform)?;
    let config_bytes = client.blob_bytes(&remote.reference, &remote.manifest.config)?;
    let config = ImageConfig::parse(&config_bytes).map_err(|source| {
        failed(PullError::Document { digest: remote.manifest.config.digest.clone(), source })
    })?;
    check_config(&remote, &config, request.platform, watch).map_err(failed)?;
    let diff_ids = &config.rootfs.diff_ids;
    let layers: Vec<RemoteLayer<'_>> = remote
        .manifest
        .layers
        .iter()
        .zip(diff_ids.iter().zip(chain_ids(diff_ids)))
        .map(|(descriptor, (diff_id, chain_id))| RemoteLayer { descriptor, diff_id, chain_id })
        .collect();
    let id = image_id(&config_bytes);
    let known = store.image(&id)?;
    // As docker: an image that is there has no layers to tell of, only a name to move.
    let is_quiet = known.is_some() && layers.iter().all(|layer| layer.is_stored(store));
    if !is_quiet {
        let digests = layers.iter().map(|layer| layer.descriptor.digest.clone()).collect();
        watch(TransferEvent::Layers(digests));
    }
    let watch_layers: &Watch<'_> = if is_quiet { &|_| {} } else { watch };
    fetch_layers(store, client, &lease, &remote.reference, &layers, request.rootless, watch_layers)
        .map_err(|failure| failure.of(failed))?;
    // A config may be named by another algorithm than an image ID is: it is kept under both.
    let mut blobs = keep_documents(store, &remote)?;
    store.put_blob(&config_bytes)?;
    let config_digest = &remote.manifest.config.digest;
    if *config_digest != id.0 {
        keep_document(store, config_digest, &config_bytes)?;
        blobs.push(config_digest.clone());
    }
    blobs.extend(keep_attestations(store, client, &lease, &remote));
    let manifest = remote.manifest_digest.clone();
    for layer in &layers {
        // What is written from the tree in these very bytes needs no blob; and what was stored before may have come in another
        // form, whose bytes are not here.
        if layer.descriptor.digest != layer.diff_id.0
            && store.has_blob(&layer.descriptor.digest)?
            && lease.protect_blob(&layer.descriptor.digest)?
        {
            blobs.push(layer.descriptor.digest.clone());
        }
    }
    let size_bytes = layers_size_bytes(store, diff_ids)?;
    let record = image_record(id.clone(), manifest, &config, size_bytes);
    let mut names = vec![reference.name_only().with_digest(remote.target.clone()).canonical()];
    if reference.digest().is_none() {
        names.push(reference.canonical());
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let commit =
        ImageCommit { blobs: &blobs, names: &names, target: Some(&remote.target), ..ImageCommit::default() };
    let previous = store.commit_image(&record, &commit)?;
    let sources: Vec<Digest> = remote
        .manifest
        .layers
        .iter()
        .chain([&remote.manifest.config])
        .map(|descriptor| descriptor.digest.clone())
        .collect();
    store.put_blob_sources(&sources, reference.registry(), reference.repository())?;
    if reference.digest().is_some() {
        // A tag can be pulled again; what was asked for by its digest may be gone from the registry tomorrow.
        store.make_durable()?;
    }
    let is_new = previous.iter().any(|previous| previous.as_ref() != Some(&id));
    Ok(Pulled { image: id, target: remote.target, is_new })
}

/// Whether the store has what the reference leads to, asking the registry one thing at most.
fn is_there(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Option<Pulled>> {
    let Some(id) = store.name(&reference.canonical())? else { return Ok(None) };
    let record = record(store, &id)?;
    if !is_whole(store, &record)? {
        return Ok(None);
    }
    let target = match reference.digest() {
        Some(digest) => digest.clone(),
        None => {
            let Some(head) = client.head_manifest(reference)? else {
                return Err(ImageError::Pull {
                    reference: reference.familiar(),
                    source: Box::new(PullError::NotFound),
                });
            };
            head.digest
        }
    };
    let of_target = store.name(&reference.name_only().with_digest(target.clone()).canonical())?;
    if of_target.as_ref() != Some(&id) || !is_for(store, &target, &record, platform)? {
        return Ok(None);
    }
    Ok(Some(Pulled { image: id, target, is_new: false }))
}

/// Whether everything that the image needs is stored. Documents are read, as a power cut may have spoilt them; layers have
/// their own mark for that.
fn is_whole(store: &Store, record: &ImageRecord) -> Result<bool> {
    for (diff_id, chain_id) in record.layers.iter().zip(chain_ids(&record.layers)) {
        if store.layer(diff_id, Some(&chain_id))?.is_none() {
            return Ok(false);
        }
    }
    Ok(store.read_blob(&record.id.0, CONFIG_SIZE_BYTES_MAX).is_ok()
        && store.read_blob(&record.manifest, MANIFEST_SIZE_BYTES_MAX).is_ok())
}

/// Whether the image is the one of `target` that is wanted: known without asking only if its index is stored.
fn is_for(store: &Store, target: &Digest, record: &ImageRecord, platform: Option<&Platform>) -> Result<bool> {
    if *target == record.manifest {
        return Ok(
            platform.is_none_or(|wanted| wanted.runs().iter().any(|runs| runs.is_same(&platform_of(record))))
        );
    }
    let Ok(bytes) = store.read_blob(target, MANIFEST_SIZE_BYTES_MAX) else { return Ok(false) };
    match Document::parse(&bytes, None) {
        Ok(Document::Index(index)) => {
            let host = Platform::host();
            let selected = index.select(platform.unwrap_or(&host));
            Ok(selected.is_some_and(|selected| selected.digest == record.manifest))
        }
        // The image was built here, and pushed: its own manifest speaks of plain layers.
        Ok(Document::Manifest(_)) => Ok(platform.is_none_or(|wanted| wanted.is_same(&platform_of(record)))),
        Err(_) => Ok(false),
    }
}

fn platform_of(record: &ImageRecord) -> Platform {
    Platform::with_variant(&record.os, &record.architecture, &record.variant)
}

/// The config must be of these layers and, if one was asked for, of this platform.
fn check_config(
    remote: &Remote,
    config: &ImageConfig,
    platform: Option<&Platform>,
    watch: &Watch<'_>,
) -> std::result::Result<(), PullError> {
    let (diff_ids, layers) = (config.rootfs.diff_ids.len(), remote.manifest.layers.len());
    if diff_ids != layers {
        let config = remote.manifest.config.digest.clone();
        return Err(PullError::LayerCount { config, diff_ids, layers });
    }
    for layer in &remote.manifest.layers {
        if media_type::layer_compression(&layer.media_type).is_none() {
            let (digest, media_type) = (layer.digest.clone(), layer.media_type.clone());
            return Err(PullError::LayerMediaType { digest, media_type });
        }
    }
    let found = config.platform();
    let runs = |wanted: &Platform| wanted.runs().iter().any(|platform| platform.is_same(&found));
    match platform {
        // An index knows better than a config, which some tools leave as they found it.
        Some(wanted) if !remote.of_index && !runs(wanted) => {
            Err(PullError::Platform { found: found.to_string(), wanted: wanted.to_string() })
        }
        None if !runs(&Platform::host()) => {
            watch(TransferEvent::Warning(format!(
                "the image is for {found}, this machine is {}",
                Platform::host()
            )));
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Stores the manifest, and the index that led to it, under their own digests.
fn keep_documents(store: &Store, remote: &Remote) -> Result<Vec<Digest>> {
    let mut kept = Vec::new();
    for (digest, bytes) in &remote.documents {
        keep_document(store, digest, bytes)?;
        kept.push(digest.clone());
    }
    Ok(kept)
}

/// Stores what the index states about the image, so that it can be pushed as the whole that it was. An image is none the worse
/// for want of it.
fn keep_attestations(store: &Store, client: &Client, lease: &Lease, remote: &Remote) -> Vec<Digest> {
    let mut kept = Vec::new();
    for attestation in remote.attestations.iter().take(ATTESTATIONS_MAX) {
        let keep = || -> Result<Vec<Digest>> {
            let named = remote.reference.name_only().with_digest(attestation.digest.clone());
            let bytes = match store.read_blob(&attestation.digest, MANIFEST_SIZE_BYTES_MAX) {
                Ok(bytes) => bytes,
                Err(_) => client.manifest(&named)?.bytes,
            };
            let manifest = Manifest::parse(&bytes)?;
            let mut blobs = Vec::new();
            for descriptor in manifest.layers.iter().chain([&manifest.config]) {
                if !store.has_blob(&descriptor.digest)? || !lease.protect_blob(&descriptor.digest)? {
                    keep_document(store, &descriptor.digest, &client.blob_bytes(&named, descriptor)?)?;
                }
                blobs.push(descriptor.digest.clone());
            }
            keep_document(store, &attestation.digest, &bytes)?;
            blobs.push(attestation.digest.clone());
            Ok(blobs)
        };
        kept.extend(keep().unwrap_or_default());
    }
    kept
}

fn keep_document(store: &Store, digest: &Digest, bytes: &[u8]) -> Result<()> {
    if store.read_blob(digest, bytes.len() as u64).is_err() {
        let mut writer = store.blob_writer_for(digest)?;
        writer.write_all(bytes).at("write", store.blob_path(digest))?;
        writer.finish(Some(digest))?;
    }
    Ok(())
}
