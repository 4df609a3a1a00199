//! Loading: the images of an archive come into the store.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;

use mica_layer::compress::Compression;
use mica_layer::members::Range;
use mica_oci::{Descriptor, DiffId, Digest, ImageId, Manifest, Platform, chain_ids, media_type};
use mica_store::{ImageCommit, ImageRecord, Layer, Lease, Store};

use crate::apply_into_store::{IngestError, Keep, ingest_layer};
use crate::archive::Archive;
use crate::built::{image_record, uncompressed};
use crate::chain::{Chain, read_index};
use crate::error::{ImageError, Result};
use crate::index_images::put_own_first;
use crate::load_index::{Indexes, PlannedIndex, plan_indexes};
use crate::load_plan::{LayoutChoice, PlannedImage, PlannedLayer, plan, plan_one};
use crate::resolve::record;

/// Where an archive is.
pub enum Source {
    /// In a stream: copied before it is read, as its parts may come in any order.
    Stream(Box<dyn Read + Send>),
    /// In an open file; copied only if it is compressed.
    File(File),
    /// An OCI layout in an open directory.
    Directory(OwnedFd),
}

/// An image that was loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// Its names, in familiar form.
    pub names: Vec<String>,
    /// The image.
    pub id: ImageId,
}

/// Loads all images of an archive: docker's, or an OCI layout.
pub fn load(store: &Store, source: Source, rootless: bool) -> Result<Vec<Loaded>> {
    load_for(store, source, None, rootless)
}

/// As [`load`], but only images of a platform, if one is given; an archive without any is an error. Without, a name of several
/// platforms brings all of them, if the archive has them all, and leads to this machine's; else this machine's alone.
pub fn load_for(
    store: &Store,
    source: Source,
    platform: Option<&Platform>,
    rootless: bool,
) -> Result<Vec<Loaded>> {
    let lease = store.lease()?;
    let archive = match source {
        Source::Stream(reader) => Archive::of_stream(store, reader)?,
        Source::File(file) => Archive::of_file(store, file)?,
        Source::Directory(directory) => Archive::of_directory(directory),
    };
    let mut loaded = Vec::new();
    let mut images = planned(&archive, platform)?;
    let indexes = if platform.is_none() { plan_indexes(&archive, &images)? } else { Indexes::default() };
    for image in &images {
        let names = image.names.iter().map(mica_oci::Reference::familiar).collect();
        loaded.push(Loaded { names, id: image.id.clone() });
    }
    indexes.take_names(&mut images);
    for image in images.iter().chain(&indexes.images) {
        load_image(store, &lease, &archive, image, rootless)?;
    }
    for index in indexes.all.iter().filter(|index| !index.names.is_empty()) {
        let mut records: Vec<ImageRecord> = Vec::with_capacity(index.members.len());
        for image in index.members.iter().filter_map(|position| indexes.images.get(*position)) {
            if !records.iter().any(|known| known.id == image.id) {
                records.push(record(store, &image.id)?);
            }
        }
        put_own_first(&mut records);
        let digest = store.put_blob(&index.bytes)?;
        let names: Vec<String> = index.names.iter().map(mica_oci::Reference::canonical).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (blobs, target) = (std::slice::from_ref(&digest), Some(&digest));
        store.commit_images(
            &records,
            &ImageCommit { blobs, names: &names, target, ..ImageCommit::default() },
        )?;
    }
    // The archive may be gone tomorrow.
    store.make_durable()?;
    Ok(loaded)
}

/// Loads one image of an OCI layout without giving it a name.
pub fn load_nameless(
    store: &Store,
    directory: OwnedFd,
    choice: &LayoutChoice,
    platform: &Platform,
    rootless: bool,
) -> Result<ImageId> {
    let lease = store.lease()?;
    let archive = Archive::of_directory(directory);
    let image = plan_one(&archive, choice, platform)?;
    load_image(store, &lease, &archive, &image, rootless)?;
    store.make_durable()?;
    Ok(image.id)
}

fn planned(archive: &Archive, platform: Option<&Platform>) -> Result<Vec<PlannedImage>> {
    let Some(platform) = platform else { return plan(archive, &Platform::host()) };
    let images = plan(archive, platform)?;
    let mut indexes = plan_indexes(archive, &images)?;
    let runs = |image: &PlannedImage| {
        let own = image.config.platform();
        platform.runs().iter().position(|runs| runs.is_same(&own))
    };
    let (mut fit, others): (Vec<_>, Vec<_>) = images.into_iter().partition(|image| runs(image).is_some());
    // `manifest.json` has one image of a name; the index that the name leads to has all of them.
    let fits: Vec<Option<usize>> = indexes.images.iter().map(runs).collect();
    let best = |index: &PlannedIndex| {
        let fitting = index.members.iter().filter_map(|member| Some((fits.get(*member).copied()??, *member)));
        fitting.min().map(|(_, member)| member)
    };
    indexes.all.retain(|index| best(index).is_some());
    indexes.take_names(&mut fit);
    for index in indexes.all {
        if let Some(best) = best(&index).and_then(|best| indexes.images.get_mut(best)) {
            best.names.extend(index.names);
        }
    }
    for member in indexes.images.into_iter().filter(|image| !image.names.is_empty()) {
        match fit.iter_mut().find(|image| image.id == member.id) {
            Some(known) => known.names.extend(member.names),
            None => fit.push(member),
        }
    }
    if fit.is_empty() {
        let offered: Vec<String> = others.iter().map(|image| image.config.platform().to_string()).collect();
        return Err(ImageError::NoPlatform { platform: platform.to_string(), offered: offered.join(", ") });
    }
    Ok(fit)
}

fn load_image(
    store: &Store,
    lease: &Lease,
    archive: &Archive,
    image: &PlannedImage,
    rootless: bool,
) -> Result<()> {
    let diff_ids = &image.config.rootfs.diff_ids;
    if diff_ids.len() != image.layers.len() {
        return Err(ImageError::LayerCount { diff_ids: diff_ids.len(), layers: image.layers.len() });
    }
    let mut below = Chain::default();
    let mut descriptors = Vec::new();
    let mut blobs = Vec::new();
    let mut size_bytes: u64 = 0;
    let count = diff_ids.len();
    for (position, ((diff_id, chain_id), planned)) in
        diff_ids.iter().zip(chain_ids(diff_ids)).zip(&image.layers).enumerate()
    {
        let at = Position { position: position + 1, count, planned, diff_id };
        let known = store.layer(diff_id, Some(&chain_id))?.filter(|layer| layer.is_trusted);
        let known = known.filter(|layer| {
            lease.protect_layer(diff_id, layer.record.chain_id.as_ref()).is_ok_and(|is_there| is_there)
        });
        let layer = match known {
            Some(layer) => {
                size_bytes = size_bytes.saturating_add(read_index(&layer)?.content_size_bytes());
                blobs.extend(at.keep_blob_of_known(store, lease, archive, &layer)?);
                layer
            }
            None => {
                let reader = archive.require(&planned.member)?;
                let (layer, content_size_bytes) = at.apply(store, reader, &below, rootless, &chain_id)?;
                size_bytes = size_bytes.saturating_add(content_size_bytes);
                layer
            }
        };
        descriptors.push(descriptor_of(store, &layer)?);
        below.push(layer);
    }
    store.put_blob(&image.config_bytes)?;
    let manifest = match &image.manifest_bytes {
        Some(bytes) => store.put_blob(bytes)?,
        None => {
            let config = Descriptor::of(media_type::OCI_CONFIG, &image.config_bytes);
            store.put_blob(&Manifest::oci(config, descriptors).to_canonical_json())?
        }
    };
    let names: Vec<String> = image.names.iter().map(mica_oci::Reference::canonical).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let record = image_record(image.id.clone(), manifest, &image.config, size_bytes);
    store.commit_image(&record, &ImageCommit { blobs: &blobs, names: &names, ..ImageCommit::default() })?;
    Ok(())
}

/// What a manifest says of a layer as the store has it.
fn descriptor_of(store: &Store, layer: &Layer) -> Result<Descriptor> {
    let record = &layer.record;
    if let Some((digest, media_type)) = &record.origin
        && let Some(size_bytes) = store.blob_size_bytes(digest)?
    {
        return Ok(Descriptor::new(media_type, digest.clone(), size_bytes));
    }
    Ok(uncompressed(&record.diff_id, record.tar_size_bytes))
}

/// A layer of the image that is being loaded.
struct Position<'a> {
    position: usize,
    count: usize,
    planned: &'a PlannedLayer,
    diff_id: &'a DiffId,
}

impl Position<'_> {
    fn failed(&self, error: IngestError) -> ImageError {
        let (position, count, member) = (self.position, self.count, self.planned.member.clone());
        match error {
            IngestError::Other(error) => error,
            IngestError::Layer(source) => ImageError::Layer { position, count, member, source },
        }
    }

    fn check(&self, actual: DiffId) -> Result<()> {
        if actual == *self.diff_id {
            return Ok(());
        }
        Err(ImageError::LayerDigest {
            position: self.position,
            count: self.count,
            member: self.planned.member.clone(),
            expected: self.diff_id.clone(),
            actual,
        })
    }

    fn apply(
        &self,
        store: &Store,
        reader: Range,
        below: &Chain,
        rootless: bool,
        chain_id: &mica_oci::ChainId,
    ) -> Result<(Layer, u64)> {
        let keep = match &self.planned.descriptor {
            Some(descriptor) => Keep::BytesOf(&descriptor.digest),
            None => Keep::Bytes,
        };
        let ingested = ingest_layer(store, reader, below, crate::mapping(rootless), keep);
        let ingested = ingested.map_err(|error| self.failed(error))?;
        self.check(ingested.diff_id())?;
        let media_type = match &self.planned.descriptor {
            Some(descriptor) => descriptor.media_type.clone(),
            None => media_type_of(ingested.compression)
                .ok_or_else(|| ImageError::LayerCompression { member: self.planned.member.clone() })?
                .to_owned(),
        };
        let content_size_bytes = ingested.content_size_bytes();
        let expected = self.planned.descriptor.as_ref().map(|descriptor| &descriptor.digest);
        let committed = ingested.commit(store, chain_id, &media_type, expected);
        Ok((committed?, content_size_bytes))
    }

    /// The layer is there, but perhaps not the blob that the manifest of this archive names.
    fn keep_blob_of_known(
        &self,
        store: &Store,
        lease: &Lease,
        archive: &Archive,
        layer: &Layer,
    ) -> Result<Option<Digest>> {
        let Some(descriptor) = &self.planned.descriptor else { return Ok(None) };
        let digest = &descriptor.digest;
        let is_made_of_tree = *digest == self.diff_id.0 && layer.record.origin.is_none();
        let is_origin = layer.record.origin.as_ref().is_some_and(|(origin, _)| origin == digest);
        if is_made_of_tree || is_origin {
            return Ok(None);
        }
        if lease.protect_blob(digest)? {
            return Ok(Some(digest.clone()));
        }
        let mut writer = store.blob_writer_for(digest)?;
        let mut reader = archive.require(&self.planned.member)?;
        io::copy(&mut reader, &mut writer)
            .map_err(|source| mica_sys::Error::new("write", &self.planned.member, source))?;
        writer.finish(Some(digest))?;
        self.check(unfolded_digest(store, digest).map_err(|error| self.failed(error))?)?;
        Ok(Some(digest.clone()))
    }
}

fn unfolded_digest(store: &Store, blob: &Digest) -> std::result::Result<DiffId, IngestError> {
    use sha2::Digest as _;
    let file = store.open_blob(blob)?;
    let (_, mut reader) = mica_layer::compress::decompress(file, mica_layer::compress::Limits::default())
        .map_err(IngestError::Layer)?;
    let mut hasher = sha2::Sha256::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count = reader.read(&mut buffer).map_err(|error| IngestError::Layer(error.into()))?;
        if count == 0 {
            return Ok(DiffId(Digest::from_sha256(hasher.finalize().into())));
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
}

/// `None` for what no registry would know.
fn media_type_of(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => Some(media_type::OCI_LAYER),
        Compression::Gzip => Some(media_type::OCI_LAYER_GZIP),
        Compression::Zstd => Some(media_type::OCI_LAYER_ZSTD),
        Compression::Bzip2 | Compression::Xz => None,
    }
}
