//! An archive as destination: a tar whose every byte has its place before the first is copied.
//!
//! Sizes are known from the manifests, so blobs are written where they belong, several at a time, and the same image gives
//! the same bytes whoever comes first. The file takes its name when it is whole.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use mica_layer::write_tar::{END, encode_header, padding};
use mica_oci::docker_archive::{self, ArchiveImage, Repositories};
use mica_oci::image_layout::ANNOTATION_CONTAINERD_NAME;
use mica_oci::{Descriptor, Digest, DocumentKind, ImageConfig, ImageLayout, Index, Manifest, Reference};
use mica_sys::atomic_file::{random_hex, sync_directory};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Kind, Time};

use crate::destination::{Blobs, Destination};
use crate::error::{CopyError, Result};
use crate::event::BlobState;
use crate::layout_destination::layout_entry;
use crate::place::Place;
use crate::plan::Plan;
use crate::source::{Blob, Source};
use crate::verify::stream;

/// An archive in the making.
pub(crate) struct ArchiveDestination {
    path: PathBuf,
    part: PathBuf,
    file: File,
    /// Where the bytes of each blob begin.
    offsets: BTreeMap<Digest, u64>,
    is_placed: bool,
}

impl ArchiveDestination {
    /// An OCI layout in a tar.
    pub fn layout(place: &Place, path: &Path, tag: Option<&str>, plan: &Plan) -> Result<Self> {
        let entries = plan.root().map(|root| layout_entry(root, tag)).into_iter().collect();
        let files = vec![
            (ImageLayout::INDEX_FILE, Index::oci(entries).to_canonical_json()),
            (ImageLayout::MARKER_FILE, ImageLayout::current().to_json()),
        ];
        Self::begin(place, path, plan, files)
    }

    /// What `docker save` writes: a layout, and the files that older programs look for.
    pub fn docker(
        place: &Place,
        path: &Path,
        name: Option<&Reference>,
        source: &Source<'_>,
        plan: &Plan,
    ) -> Result<Self> {
        let (Some(root), Some(manifest)) = (plan.root(), &plan.manifest) else {
            return Err(CopyError::NoSuchImage { place: source.place().boxed(), offered: "none".to_owned() });
        };
        if !manifest.is_image() {
            let media_type = manifest.artifact_type.as_ref().unwrap_or(&manifest.config.media_type).clone();
            return Err(CopyError::NotAnImage { digest: root.digest.clone(), media_type });
        }
        let bytes = source.document(&manifest.config, DocumentKind::ImageConfig)?;
        let config = ImageConfig::parse(&bytes).map_err(|error| CopyError::Document {
            place: source.place().boxed(),
            member: manifest.config.digest.to_string(),
            source: error,
        })?;
        let mut entry = layout_entry(root, name.and_then(Reference::tag));
        if let Some(name) = name {
            entry.annotations.insert(ANNOTATION_CONTAINERD_NAME.to_owned(), name.canonical());
        }
        let files = vec![
            (ImageLayout::INDEX_FILE, Index::oci(vec![entry]).to_canonical_json()),
            (docker_archive::MANIFEST_FILE, docker_manifest(manifest, &config, name)),
            (ImageLayout::MARKER_FILE, ImageLayout::current().to_json()),
            (docker_archive::REPOSITORIES_FILE, repositories(manifest, name)),
        ];
        Self::begin(place, path, plan, files)
    }

    /// Writes all but the blobs.
    fn begin(place: &Place, path: &Path, plan: &Plan, files: Vec<(&str, Vec<u8>)>) -> Result<Self> {
        if std::fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(CopyError::NotReplaceable { place: place.boxed() });
        }
        let part = path.with_file_name(format!(".tmp-{}", random_hex(8)?));
        let file = File::create_new(&part).at("open", &part)?;
        let mut archive =
            Self { path: path.to_path_buf(), part, file, offsets: BTreeMap::new(), is_placed: false };
        let mut sizes: BTreeMap<&Digest, (u64, Option<&[u8]>)> =
            plan.blobs.iter().map(|blob| (&blob.digest, (blob.size, None))).collect();
        for document in &plan.documents {
            sizes.insert(&document.descriptor.digest, (document.descriptor.size, Some(&document.bytes)));
        }
        let mut offset = archive.header(0, "blobs", directory(), 0o755)?;
        let algorithms: BTreeSet<&str> = sizes.keys().map(|digest| digest.algorithm().name()).collect();
        for algorithm in algorithms {
            offset = archive.header(offset, &format!("blobs/{algorithm}"), directory(), 0o755)?;
            for (digest, (size_bytes, bytes)) in
                sizes.iter().filter(|(digest, _)| digest.algorithm().name() == algorithm)
            {
                offset =
                    archive.header(offset, &ImageLayout::blob_path(digest), file_of(*size_bytes), 0o644)?;
                match bytes {
                    Some(bytes) => archive.write(bytes, offset)?,
                    None => {
                        archive.offsets.insert((*digest).clone(), offset);
                    }
                }
                offset += size_bytes + padding(*size_bytes) as u64;
            }
        }
        for (name, bytes) in files {
            let size_bytes = bytes.len() as u64;
            offset = archive.header(offset, name, file_of(size_bytes), 0o644)?;
            archive.write(&bytes, offset)?;
            offset += size_bytes + padding(size_bytes) as u64;
        }
        archive.write(&END, offset)?;
        Ok(archive)
    }

    /// Writes a header; answers where it ends.
    fn header(&self, offset: u64, path: &str, kind: Kind, mode: u32) -> Result<u64> {
        let path = path.as_bytes().to_vec();
        let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() };
        let mut header = Vec::new();
        encode_header(&entry, None, &mut header);
        self.write(&header, offset)?;
        Ok(offset + header.len() as u64)
    }

    fn write(&self, bytes: &[u8], offset: u64) -> Result<()> {
        Ok(self.file.write_all_at(bytes, offset).at("pwrite", &self.part)?)
    }
}

fn directory() -> Kind {
    Kind::Directory { opaque: false, implied: false }
}

fn file_of(size: u64) -> Kind {
    Kind::File { size, content: None }
}

fn docker_manifest(manifest: &Manifest, config: &ImageConfig, name: Option<&Reference>) -> Vec<u8> {
    let diff_ids = config.rootfs.diff_ids.iter();
    docker_archive::manifest_to_json(&[ArchiveImage {
        config: ImageLayout::blob_path(&manifest.config.digest),
        repo_tags: name.map(|name| vec![name.familiar()]),
        layers: manifest.layers.iter().map(|layer| ImageLayout::blob_path(&layer.digest)).collect(),
        layer_sources: diff_ids
            .zip(&manifest.layers)
            .map(|(diff_id, layer)| (diff_id.to_string(), layer.clone()))
            .collect(),
        ..ArchiveImage::default()
    }])
}

fn repositories(manifest: &Manifest, name: Option<&Reference>) -> Vec<u8> {
    let mut repositories = Repositories::new();
    if let (Some(top), Some(name)) = (manifest.layers.last(), name) {
        let tags = BTreeMap::from([(name.tag().unwrap_or_default().to_owned(), top.digest.hex().to_owned())]);
        repositories.insert(name.familiar_name(), tags);
    }
    docker_archive::repositories_to_json(&repositories)
}

impl Destination for ArchiveDestination {
    fn blob(&self, blobs: &Blobs<'_>, descriptor: &Descriptor) -> Result<BlobState> {
        let place = blobs.source.place();
        let Some(begin) = self.offsets.get(&descriptor.digest) else {
            // A document that is named as a blob as well: it is written.
            return Ok(BlobState::Exists);
        };
        let take = |bytes: &[u8], so_far: u64| {
            // No more than the descriptor's size comes here, so the next blob's place is safe.
            self.write(bytes, begin + so_far - bytes.len() as u64)?;
            blobs.progress(descriptor, so_far);
            Ok(())
        };
        match blobs.source.blob(descriptor)? {
            Blob::File(range) => stream(place, descriptor, range, blobs.stop, take)?,
            Blob::Stream(reader) => stream(place, descriptor, reader, blobs.stop, take)?,
        }
        Ok(BlobState::Copied)
    }

    fn finish(mut self: Box<Self>, _plan: &Plan) -> Result<()> {
        self.file.sync_all().at("fsync", &self.part)?;
        rustix::fs::rename(&self.part, &self.path).at("rename", &self.path)?;
        self.is_placed = true;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_directory(parent.unwrap_or(Path::new(".")))?;
        Ok(())
    }
}

impl Drop for ArchiveDestination {
    fn drop(&mut self) {
        if !self.is_placed {
            // Nothing more can be done about it.
            let _ = std::fs::remove_file(&self.part);
        }
    }
}
