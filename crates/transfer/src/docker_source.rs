//! An image of a docker archive as a manifest and blobs: the manifest that the archive has, or else one that is made.
//!
//! Archives of docker before 25 and of `docker-archive:` have a config and layers, but no manifest. One is made then: OCI's,
//! of the config and the layers as they are. So the image keeps its ID and its layers their bytes; the manifest's digest is
//! new, and always the same for the same archive.

use std::collections::BTreeMap;

use mica_layer::compress::Compression as Found;
use mica_oci::docker_archive::{self, ArchiveImage};
use mica_oci::{
    Compression, Descriptor, Digest, Document, DocumentKind, ImageConfig, ImageLayout, Index, Manifest,
    Reference, media_type,
};
use sha2::{Digest as _, Sha256};

use crate::error::{CopyError, Result};
use crate::files::Files;
use crate::source::{shorten_list, start};
use crate::verify::read_error;

/// Descriptors of `index.json` that are looked at for a fitting manifest.
const LOOKED_AT_MAX: usize = 1_000;

/// An image of a docker archive.
pub(crate) struct DockerImage {
    /// Its manifest.
    pub manifest: Descriptor,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// Where blobs are.
    members: BTreeMap<Digest, String>,
}

impl DockerImage {
    /// The image of that name, or the only one.
    pub fn find(files: &Files, name: Option<&Reference>) -> Result<Self> {
        let document_error = |member: &str, source| CopyError::Document {
            place: files.place.boxed(),
            member: member.to_owned(),
            source,
        };
        let Some(bytes) = files.document(docker_archive::MANIFEST_FILE, DocumentKind::DockerArchive)? else {
            return Err(CopyError::NotThis {
                place: files.place.boxed(),
                what: "a docker archive",
                file: docker_archive::MANIFEST_FILE,
            });
        };
        let images = docker_archive::parse_manifest(&bytes)
            .map_err(|source| document_error(docker_archive::MANIFEST_FILE, source))?;
        let image = choose(files, &images, name)?;
        let Some(config_bytes) = files.document(&image.config, DocumentKind::ImageConfig)? else {
            return Err(CopyError::Missing { place: files.place.boxed(), member: image.config.clone() });
        };
        let config =
            ImageConfig::parse(&config_bytes).map_err(|source| document_error(&image.config, source))?;
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(CopyError::LayerCount {
                place: files.place.boxed(),
                diff_ids: diff_ids.len(),
                layers: image.layers.len(),
            });
        }
        let config = Descriptor::of(media_type::OCI_CONFIG, &config_bytes);
        if let Some(known) = known_manifest(files, image, &config.digest) {
            return Ok(known);
        }
        let mut members = BTreeMap::from([(config.digest.clone(), image.config.clone())]);
        let mut layers = Vec::new();
        for (member, diff_id) in image.layers.iter().zip(diff_ids) {
            let layer = describe_layer(files, member, &diff_id.0)?;
            members.insert(layer.digest.clone(), member.clone());
            layers.push(layer);
        }
        let manifest_bytes = Manifest::oci(config, layers).to_canonical_json();
        let manifest = Descriptor::of(media_type::OCI_MANIFEST, &manifest_bytes);
        Ok(Self { manifest, manifest_bytes, members })
    }

    /// The path of a blob in the archive.
    pub fn member(&self, digest: &Digest) -> String {
        self.members.get(digest).cloned().unwrap_or_else(|| ImageLayout::blob_path(digest))
    }
}

fn choose<'a>(
    files: &Files,
    images: &'a [ArchiveImage],
    name: Option<&Reference>,
) -> Result<&'a ArchiveImage> {
    let has_name = |image: &ArchiveImage, name: &Reference| {
        let names = image.repo_tags.iter().flatten();
        names.filter_map(|own| Reference::parse(own).ok()).any(|own| own.with_default_tag() == *name)
    };
    let offered = || {
        let names = images.iter().flat_map(|image| image.repo_tags.iter().flatten());
        shorten_list(&names.map(|name| format!("`{name}`")).collect::<Vec<_>>())
    };
    match (name, images) {
        (None, [one]) => Ok(one),
        (None, []) => Err(CopyError::NoSuchImage { place: files.place.boxed(), offered: offered() }),
        (None, _) => Err(CopyError::SeveralImages { place: files.place.boxed(), offered: offered() }),
        (Some(name), _) => images
            .iter()
            .find(|image| has_name(image, name))
            .ok_or_else(|| CopyError::NoSuchImage { place: files.place.boxed(), offered: offered() }),
    }
}

/// The manifest of the image, if the archive is a layout as well, as docker has written it since version 25. It only counts
/// if it is about the same config and the same files; a broken layout beside a whole `manifest.json` does no harm.
fn known_manifest(files: &Files, image: &ArchiveImage, config: &Digest) -> Option<DockerImage> {
    let bytes = files.document(ImageLayout::INDEX_FILE, DocumentKind::Index).ok()??;
    let index = Index::parse(&bytes).ok()?;
    let mut left: Vec<Descriptor> = index.manifests;
    let mut looked_at = 0;
    while let Some(descriptor) = left.pop() {
        looked_at += 1;
        if looked_at > LOOKED_AT_MAX {
            return None;
        }
        let Ok(bytes) = files.blob_document(&descriptor, DocumentKind::Manifest) else { continue };
        match Document::parse(&bytes, None) {
            Ok(Document::Index(index)) => left.extend(index.manifests),
            Ok(Document::Manifest(manifest)) if manifest.config.digest == *config => {
                let paths = manifest.layers.iter().map(|layer| ImageLayout::blob_path(&layer.digest));
                if paths.eq(image.layers.iter().cloned()) {
                    let descriptor = Descriptor::of(manifest.media_type(), &bytes);
                    let members = BTreeMap::from([(config.clone(), image.config.clone())]);
                    return Some(DockerImage { manifest: descriptor, manifest_bytes: bytes, members });
                }
            }
            _ => {}
        }
    }
    None
}

/// What a layer's file is. An uncompressed one has its diff ID as digest, which is checked when it is copied; of another one
/// the digest must be computed.
fn describe_layer(files: &Files, member: &str, diff_id: &Digest) -> Result<Descriptor> {
    let range = files.require(member)?;
    let size_bytes = range.size_bytes();
    let compression = match Found::detect(&start(files, range.clone())?) {
        Found::Gzip => Compression::Gzip,
        Found::Zstd => Compression::Zstd,
        // Nothing that a layer may be; what it is shows when it is copied.
        Found::None | Found::Bzip2 | Found::Xz => Compression::None,
    };
    let media_type = media_type::oci_layer(compression);
    if compression == Compression::None {
        return Ok(Descriptor::new(media_type, diff_id.clone(), size_bytes));
    }
    let mut hasher = Sha256::new();
    let mut reader = range;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let count =
            std::io::Read::read(&mut reader, &mut buffer).map_err(|error| read_error(&files.place, error))?;
        if count == 0 {
            break;
        }
        hasher.update(buffer.get(..count).unwrap_or_default());
    }
    Ok(Descriptor::new(media_type, Digest::from_sha256(hasher.finalize().into()), size_bytes))
}
