//! Saving images: docker's archive and an OCI layout in one tar, always the same bytes for the same images.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};

use mica_layer::write_tar::{END, WriteTarError, encode_header, padding, write_tar};
use mica_oci::docker_archive::{self, ArchiveImage, Repositories};
use mica_oci::image_layout::{ANNOTATION_CONTAINERD_NAME, ANNOTATION_REF_NAME};
use mica_oci::{
    AnyReference, Descriptor, DiffId, Digest, ImageConfig, ImageId, ImageLayout, Index,
    MANIFEST_SIZE_BYTES_MAX, Manifest, Platform, Reference, chain_ids, media_type,
};
use mica_store::{Layer, Store};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Kind, Time};
use sha2::{Digest as _, Sha256};

use crate::built::uncompressed;
use crate::chain::{Chain, open_in_tree, read_index};
use crate::error::{ImageError, Result};
use crate::index_images::{SavedIndex, whole_index};
use crate::resolve::{config_bytes, record, require, resolve_platform};

/// Where the bytes of a blob are.
enum Bytes {
    Made(Vec<u8>),
    Blob,
    /// Written from the tree.
    Layer(Box<Layer>),
}

struct Saved {
    id: ImageId,
    names: Vec<Reference>,
    /// Whether it was asked for; else it is there for an index alone.
    is_asked: bool,
    manifest: Descriptor,
    layers: Vec<Descriptor>,
    diff_ids: Vec<DiffId>,
}

/// Writes the images that `texts` mean. A name saves that name; a repository without a tag saves all its tags; an ID saves
/// the image without a name.
pub fn save(store: &Store, texts: &[String], out: &mut dyn Write) -> Result<()> {
    save_for(store, texts, None, out)
}

/// As [`save`], with the images of a platform, if one is given.
pub fn save_for(
    store: &Store,
    texts: &[String],
    platform: Option<&Platform>,
    out: &mut dyn Write,
) -> Result<()> {
    let lease = store.lease()?;
    let mut blobs: BTreeMap<Digest, (u64, Bytes)> = BTreeMap::new();
    let mut images: Vec<Saved> = Vec::new();
    let mut indexes: Vec<SavedIndex> = Vec::new();
    for text in texts {
        for (id, name) in expand(store, text)? {
            let id = match (platform, &name) {
                (None, _) => id,
                (Some(platform), Some(name)) => resolve_platform(store, &name.canonical(), platform)?,
                (Some(platform), None) => resolve_platform(store, text, platform)?,
            };
            let mut add = |id: &ImageId| match images.iter().position(|image| image.id == *id) {
                Some(position) => Ok(position),
                None => {
                    images.push(collect(store, &lease, id, &mut blobs)?);
                    Ok::<_, ImageError>(images.len() - 1)
                }
            };
            let position = add(&id)?;
            // All platforms of a name go together, where all of them are here.
            let index = match (platform, &name) {
                (None, Some(name)) => whole_index(store, name)?,
                _ => None,
            };
            let members = index.iter().flat_map(|index| &index.members);
            let members = members.map(|(id, _)| add(id)).collect::<Result<Vec<_>>>()?;
            let Some(image) = images.get_mut(position) else { continue };
            image.is_asked = true;
            let Some(name) = name else { continue };
            if !image.names.contains(&name) {
                image.names.push(name.clone());
            }
            if let Some(index) = index
                && !indexes.iter().any(|known| known.name == name)
            {
                let manifests = members.iter().filter_map(|position| images.get(*position));
                indexes.push(index.saved(name, manifests.map(|image| &image.manifest)));
            }
        }
    }
    for index in &indexes {
        let bytes = Bytes::Made(index.bytes.clone());
        blobs.insert(index.descriptor.digest.clone(), (index.descriptor.size, bytes));
    }
    write_archive(store, &images, &indexes, &blobs, out)
}

/// The images that a text means, with the name under which each is saved.
fn expand(store: &Store, text: &str) -> Result<Vec<(ImageId, Option<Reference>)>> {
    let id = match require(store, text) {
        Ok(id) => Some(id),
        // A repository may have other tags than `latest`.
        Err(ImageError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let reference = match AnyReference::parse(text) {
        Ok(AnyReference::Name(reference)) => reference,
        _ => return Ok(vec![(id.ok_or_else(|| crate::resolve::not_found(text))?, None)]),
    };
    if reference.is_name_only() {
        let mut found = Vec::new();
        for image in store.images()? {
            let names = image.names.iter().filter_map(|name| Reference::parse(name).ok());
            let tagged = names.filter(|name| name.name() == reference.name() && name.digest().is_none());
            found.extend(tagged.map(|name| (image.record.id.clone(), Some(name))));
        }
        found.sort_by_key(|(_, name)| name.as_ref().map(Reference::canonical));
        if !found.is_empty() {
            return Ok(found);
        }
    }
    let id = id.ok_or_else(|| crate::resolve::not_found(text))?;
    let name = reference.with_default_tag();
    let is_name = name.digest().is_none() && store.name(&name.canonical())?.as_ref() == Some(&id);
    Ok(vec![(id, is_name.then_some(name))])
}

fn collect(
    store: &Store,
    lease: &mica_store::Lease,
    id: &ImageId,
    blobs: &mut BTreeMap<Digest, (u64, Bytes)>,
) -> Result<Saved> {
    let record = record(store, id)?;
    let bytes = config_bytes(store, id)?;
    let config = ImageConfig::parse(&bytes)?;
    let diff_ids = config.rootfs.diff_ids.clone();
    let chain = Chain::of_image(store, &diff_ids)?;
    for (layer, _) in chain.layers().iter().zip(chain_ids(&diff_ids)) {
        lease.protect_layer(&layer.record.diff_id, layer.record.chain_id.as_ref())?;
    }
    let manifest_bytes = store.read_blob(&record.manifest, MANIFEST_SIZE_BYTES_MAX)?;
    let manifest = Manifest::parse(&manifest_bytes)?;
    let mut sources = Vec::new();
    for (layer, descriptor) in chain.layers().iter().zip(&manifest.layers) {
        sources.extend(source_of(store, layer, descriptor)?);
    }
    let is_whole = sources.len() == diff_ids.len() && manifest.layers.len() == diff_ids.len();
    let (manifest, manifest_bytes, sources) = match is_whole {
        true => (manifest, manifest_bytes, sources),
        // The manifest speaks of compressed layers whose bytes are not here (they were made for a push).
        false => {
            let mut layers = Vec::new();
            let mut sources = Vec::new();
            for layer in chain.layers() {
                let descriptor = own_descriptor(store, layer)?;
                sources.extend(source_of(store, layer, &descriptor)?);
                layers.push(descriptor);
            }
            let manifest = Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, &bytes), layers);
            let bytes = manifest.to_canonical_json();
            (manifest, bytes, sources)
        }
    };
    for (descriptor, source) in manifest.layers.iter().zip(sources) {
        blobs.insert(descriptor.digest.clone(), (descriptor.size, source));
    }
    let descriptor = Descriptor::of(manifest.media_type(), &manifest_bytes);
    blobs.insert(id.0.clone(), (bytes.len() as u64, Bytes::Made(bytes)));
    blobs.insert(descriptor.digest.clone(), (descriptor.size, Bytes::Made(manifest_bytes)));
    let (id, names, is_asked) = (id.clone(), Vec::new(), false);
    Ok(Saved { id, names, is_asked, manifest: descriptor, layers: manifest.layers, diff_ids })
}

fn own_descriptor(store: &Store, layer: &Layer) -> Result<Descriptor> {
    if let Some((digest, media_type)) = &layer.record.origin
        && let Some(size_bytes) = store.blob_size_bytes(digest)?
    {
        return Ok(Descriptor::new(media_type, digest.clone(), size_bytes));
    }
    Ok(uncompressed(&layer.record.diff_id, layer.record.tar_size_bytes))
}

/// Where the bytes of a layer with that descriptor are, if they are here.
fn source_of(store: &Store, layer: &Layer, descriptor: &Descriptor) -> Result<Option<Bytes>> {
    if store.blob_size_bytes(&descriptor.digest)? == Some(descriptor.size) {
        return Ok(Some(Bytes::Blob));
    }
    let is_tar =
        descriptor.digest == layer.record.diff_id.0 && descriptor.size == layer.record.tar_size_bytes;
    Ok(is_tar.then(|| Bytes::Layer(Box::new(layer.clone()))))
}

fn write_archive(
    store: &Store,
    images: &[Saved],
    indexes: &[SavedIndex],
    blobs: &BTreeMap<Digest, (u64, Bytes)>,
    out: &mut dyn Write,
) -> Result<()> {
    let mut out = io::BufWriter::with_capacity(256 << 10, out);
    let algorithms: BTreeSet<&str> = blobs.keys().map(|digest| digest.algorithm().name()).collect();
    write_header(&mut out, "blobs", directory(), 0o755)?;
    for algorithm in algorithms {
        write_header(&mut out, &format!("blobs/{algorithm}"), directory(), 0o755)?;
        for (digest, (size_bytes, bytes)) in
            blobs.iter().filter(|(digest, _)| digest.algorithm().name() == algorithm)
        {
            write_header(&mut out, &ImageLayout::blob_path(digest), file(*size_bytes), 0o644)?;
            write_bytes(store, digest, *size_bytes, bytes, &mut out)?;
            write_padding(&mut out, *size_bytes)?;
        }
    }
    for (name, bytes) in [
        (ImageLayout::INDEX_FILE, layout_index(images, indexes).to_canonical_json()),
        (docker_archive::MANIFEST_FILE, docker_archive::manifest_to_json(&docker_images(images))),
        (ImageLayout::MARKER_FILE, ImageLayout::current().to_json()),
        (docker_archive::REPOSITORIES_FILE, docker_archive::repositories_to_json(&repositories(images))),
    ] {
        write_header(&mut out, name, file(bytes.len() as u64), 0o644)?;
        out.write_all(&bytes).map_err(write_error)?;
        write_padding(&mut out, bytes.len() as u64)?;
    }
    out.write_all(&END).map_err(write_error)?;
    out.flush().map_err(write_error)
}

pub(crate) fn write_error(source: io::Error) -> ImageError {
    ImageError::Write { source }
}

pub(crate) fn directory() -> Kind {
    Kind::Directory { opaque: false, implied: false }
}

pub(crate) fn file(size: u64) -> Kind {
    Kind::File { size, content: None }
}

pub(crate) fn write_header(out: &mut impl Write, path: &str, kind: Kind, mode: u32) -> Result<()> {
    let path = path.as_bytes().to_vec();
    let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() };
    let mut header = Vec::new();
    encode_header(&entry, None, &mut header);
    out.write_all(&header).map_err(write_error)
}

/// What fills a content up to whole blocks.
pub(crate) fn write_padding(out: &mut impl Write, size_bytes: u64) -> Result<()> {
    out.write_all(&vec![0; padding(size_bytes)]).map_err(write_error)
}

fn write_bytes(
    store: &Store,
    digest: &Digest,
    size_bytes: u64,
    bytes: &Bytes,
    out: &mut impl Write,
) -> Result<()> {
    match bytes {
        Bytes::Made(bytes) => out.write_all(bytes).map_err(write_error),
        Bytes::Blob => {
            let mut file = io::Read::take(store.open_blob(digest)?, size_bytes);
            let copied = io::copy(&mut file, out).map_err(write_error)?;
            if copied == size_bytes {
                return Ok(());
            }
            Err(write_error(io::ErrorKind::UnexpectedEof.into()))
        }
        Bytes::Layer(layer) => {
            let diff_id = &layer.record.diff_id;
            let index = read_index(layer)?;
            let path = layer.tree_path();
            let tree = File::open(&path).at("open", &path)?;
            let mut open = |entry: &Entry| open_in_tree(&tree, &entry.path).map_err(|error| error.source);
            let mut hashing = Hashing { out, hasher: Sha256::new() };
            match write_tar(&index, &mut open, &mut hashing) {
                Ok(_) => {}
                Err(WriteTarError::Write { source }) => return Err(write_error(source)),
                Err(source) => return Err(ImageError::WriteLayer { diff_id: diff_id.clone(), source }),
            }
            let actual = Digest::from_sha256(hashing.hasher.finalize().into());
            if actual == diff_id.0 {
                return Ok(());
            }
            Err(ImageError::LayerAltered { diff_id: diff_id.clone(), actual })
        }
    }
}

struct Hashing<'a, W> {
    out: &'a mut W,
    hasher: Sha256,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// One descriptor a name, as containerd and docker write it.
fn layout_index(images: &[Saved], indexes: &[SavedIndex]) -> Index {
    let mut manifests = Vec::new();
    for image in images.iter().filter(|image| image.is_asked) {
        for name in &image.names {
            let index = indexes.iter().find(|index| index.name == *name);
            let mut descriptor = index.map_or(&image.manifest, |index| &index.descriptor).clone();
            descriptor.annotations.insert(ANNOTATION_CONTAINERD_NAME.to_owned(), name.canonical());
            descriptor
                .annotations
                .insert(ANNOTATION_REF_NAME.to_owned(), name.tag().unwrap_or_default().to_owned());
            manifests.push(descriptor);
        }
        if image.names.is_empty() {
            manifests.push(image.manifest.clone());
        }
    }
    Index::oci(manifests)
}

fn docker_images(images: &[Saved]) -> Vec<ArchiveImage> {
    let image = |image: &Saved| ArchiveImage {
        config: ImageLayout::blob_path(&image.id.0),
        repo_tags: (!image.names.is_empty()).then(|| image.names.iter().map(Reference::familiar).collect()),
        layers: image.layers.iter().map(|layer| ImageLayout::blob_path(&layer.digest)).collect(),
        layer_sources: image
            .diff_ids
            .iter()
            .zip(&image.layers)
            .map(|(diff_id, layer)| (diff_id.to_string(), layer.clone()))
            .collect(),
        ..ArchiveImage::default()
    };
    images.iter().filter(|saved| saved.is_asked).map(image).collect()
}

fn repositories(images: &[Saved]) -> Repositories {
    let mut repositories = Repositories::new();
    for image in images {
        let Some(top) = image.layers.last() else { continue };
        for name in &image.names {
            let tags = repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag().unwrap_or_default().to_owned(), top.digest.hex().to_owned());
        }
    }
    repositories
}
