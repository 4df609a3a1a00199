//! Exports as image layouts: in a tar (OCI's, or docker's with its own documents beside), or in a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;

use mica_layer::write_tar::END;
use mica_oci::docker_archive::{self, ArchiveImage, Repositories};
use mica_oci::image_layout::{ANNOTATION_CONTAINERD_NAME, ANNOTATION_CREATED, ANNOTATION_REF_NAME};
use mica_oci::{Digest, ImageLayout, Index, Reference};
use mica_sys::atomic_file::{self, Durability, random_hex};
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Sharing};

use super::{Export, ExportContext, ExportError};
use crate::error::{ImageError, Result};
use crate::push::PushError;
use crate::push::bytes::produce;
use crate::push::plan::{Bytes, Part};
use crate::save::{directory, file, write_error, write_header, write_padding};

/// What an archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArchiveKind {
    /// An OCI image layout.
    Oci,
    /// The same, with the documents that `docker load` reads.
    Docker,
}

/// The longest `index.json` of a layout that is added to.
const INDEX_BYTES_MAX: u64 = 64 << 20;

/// Where the bytes of a blob are.
enum Blob<'e> {
    Document(&'e [u8]),
    Layer(&'e Part),
}

impl Export {
    /// Writes a tar with all of it, always the same bytes. `names` are the names that it has in there.
    pub fn write_archive(
        &self,
        context: &ExportContext<'_>,
        kind: ArchiveKind,
        names: &[Reference],
        out: &mut dyn Write,
    ) -> Result<()> {
        if kind == ArchiveKind::Docker && self.images.len() > 1 {
            return Err(ExportError::SeveralPlatforms.into());
        }
        let mut out = io::BufWriter::with_capacity(256 << 10, out);
        let blobs = self.blobs();
        let algorithms: BTreeSet<&str> = blobs.keys().map(|digest| digest.algorithm().name()).collect();
        write_header(&mut out, ImageLayout::BLOBS_DIR, directory(), 0o755)?;
        for algorithm in algorithms {
            write_header(&mut out, &format!("{}/{algorithm}", ImageLayout::BLOBS_DIR), directory(), 0o755)?;
            for (digest, (size_bytes, blob)) in
                blobs.iter().filter(|(digest, _)| digest.algorithm().name() == algorithm)
            {
                context.check()?;
                write_header(&mut out, &ImageLayout::blob_path(digest), file(*size_bytes), 0o644)?;
                write_blob(context, digest, blob, &mut out)?;
                write_padding(&mut out, *size_bytes)?;
            }
        }
        let mut documents = vec![(ImageLayout::INDEX_FILE, self.layout_index(names).to_canonical_json())];
        if kind == ArchiveKind::Docker {
            documents.push((
                docker_archive::MANIFEST_FILE,
                docker_archive::manifest_to_json(&self.docker_images(names)),
            ));
        }
        documents.push((ImageLayout::MARKER_FILE, ImageLayout::current().to_json()));
        if kind == ArchiveKind::Docker {
            let repositories = docker_archive::repositories_to_json(&self.repositories(names));
            documents.push((docker_archive::REPOSITORIES_FILE, repositories));
        }
        for (name, bytes) in documents {
            write_header(&mut out, name, file(bytes.len() as u64), 0o644)?;
            out.write_all(&bytes).map_err(write_error)?;
            write_padding(&mut out, bytes.len() as u64)?;
        }
        out.write_all(&END).map_err(write_error)?;
        out.flush().map_err(write_error)
    }

    /// Adds all of it to the layout in a directory, which is made if it is not there. What has one of `names` there gives it
    /// up. The index is replaced when all else is in its place.
    pub fn write_layout(&self, context: &ExportContext<'_>, names: &[Reference], into: &Path) -> Result<()> {
        let shown = || into.display().to_string();
        std::fs::create_dir_all(into).at("mkdir", into)?;
        // Two that add to one layout take turns; what they read of its index must not be old when they write it.
        let _turn = Lock::directory(into, Sharing::Exclusive)?;
        let is_layout = into.join(ImageLayout::MARKER_FILE).is_file();
        let is_empty = std::fs::read_dir(into).at("opendir", into)?.next().is_none();
        if !is_layout && !is_empty {
            return Err(ExportError::NotALayout { path: shown() }.into());
        }
        let index_path = into.join(ImageLayout::INDEX_FILE);
        let mut index = self.layout_index(names);
        if is_layout && index_path.exists() {
            let wrong = |source| ExportError::Layout { path: index_path.display().to_string(), source };
            let mut bytes = Vec::new();
            let earlier = File::open(&index_path).at("open", &index_path)?;
            earlier.take(INDEX_BYTES_MAX).read_to_end(&mut bytes).at("read", &index_path)?;
            let mut earlier = Index::parse(&bytes).map_err(wrong)?;
            let is_ours = |descriptor: &mica_oci::Descriptor| {
                index.manifests.iter().any(|own| {
                    let name = |of: &mica_oci::Descriptor| of.annotations.get(ANNOTATION_REF_NAME).cloned();
                    let full =
                        |of: &mica_oci::Descriptor| of.annotations.get(ANNOTATION_CONTAINERD_NAME).cloned();
                    match name(own) {
                        Some(_) => name(own) == name(descriptor) && full(own) == full(descriptor),
                        None => own.digest == descriptor.digest && name(descriptor).is_none(),
                    }
                })
            };
            earlier.manifests.retain(|descriptor| !is_ours(descriptor));
            earlier.manifests.append(&mut index.manifests);
            index = earlier;
        }
        for (digest, (size_bytes, blob)) in &self.blobs() {
            context.check()?;
            let path = into.join(ImageLayout::blob_path(digest));
            if std::fs::symlink_metadata(&path)
                .is_ok_and(|found| found.is_file() && found.len() == *size_bytes)
            {
                continue;
            }
            let parent = path.parent().unwrap_or(into);
            std::fs::create_dir_all(parent).at("mkdir", parent)?;
            let part = parent.join(format!(".tmp-{}", random_hex(8)?));
            let written = write_file(context, digest, blob, &part)
                .and_then(|()| Ok(std::fs::rename(&part, &path).at("rename", &path)?));
            if written.is_err() {
                // The first error is the one to tell.
                let _ = std::fs::remove_file(&part);
            }
            written?;
        }
        atomic_file::write(
            into.join(ImageLayout::MARKER_FILE),
            &ImageLayout::current().to_json(),
            0o644,
            Durability::Kill,
        )?;
        Ok(atomic_file::write(&index_path, &index.to_canonical_json(), 0o644, Durability::Kill)?)
    }

    fn blobs(&self) -> BTreeMap<Digest, (u64, Blob<'_>)> {
        let mut blobs = BTreeMap::new();
        for image in &self.images {
            for part in &image.parts {
                let known = blobs.entry(part.descriptor.digest.clone());
                known.or_insert((part.descriptor.size, Blob::Layer(part)));
            }
            let config = (image.config.len() as u64, Blob::Document(&image.config));
            blobs.insert(image.config_descriptor.digest.clone(), config);
            let manifest = (image.manifest.len() as u64, Blob::Document(&image.manifest));
            blobs.insert(image.descriptor.digest.clone(), manifest);
        }
        if let Some(index) = &self.index {
            blobs.insert(self.root.digest.clone(), (index.len() as u64, Blob::Document(index)));
        }
        blobs
    }

    /// One descriptor a name, as containerd and docker write it. The time is that of the image, so that the same image is the
    /// same archive.
    fn layout_index(&self, names: &[Reference]) -> Index {
        let mut root = self.root.clone();
        if let Some(created) = self.images.iter().filter_map(|image| image.created.clone()).max() {
            root.annotations.entry(ANNOTATION_CREATED.to_owned()).or_insert(created);
        }
        let named = |name: &Reference| {
            let mut descriptor = root.clone();
            descriptor.annotations.insert(ANNOTATION_CONTAINERD_NAME.to_owned(), name.canonical());
            let tag = name.tag().unwrap_or_default().to_owned();
            descriptor.annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag);
            descriptor
        };
        match names {
            [] => Index::oci(vec![root.clone()]),
            names => Index::oci(names.iter().map(named).collect()),
        }
    }

    fn docker_images(&self, names: &[Reference]) -> Vec<ArchiveImage> {
        let image = |image: &super::ExportedImage| ArchiveImage {
            config: ImageLayout::blob_path(&image.id.0),
            repo_tags: (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect()),
            layers: image.parts.iter().map(|part| ImageLayout::blob_path(&part.descriptor.digest)).collect(),
            layer_sources: image
                .diff_ids
                .iter()
                .zip(&image.parts)
                .map(|(diff_id, part)| (diff_id.to_string(), part.descriptor.clone()))
                .collect(),
            ..ArchiveImage::default()
        };
        self.images.iter().map(image).collect()
    }

    fn repositories(&self, names: &[Reference]) -> Repositories {
        let mut repositories = Repositories::new();
        let top = self.images.first().and_then(|image| image.parts.last());
        for (name, top) in names.iter().filter_map(|name| Some((name, top?))) {
            let tags = repositories.entry(name.familiar_name()).or_default();
            tags.insert(name.tag().unwrap_or_default().to_owned(), top.descriptor.digest.hex().to_owned());
        }
        repositories
    }
}

fn write_file(context: &ExportContext<'_>, digest: &Digest, blob: &Blob<'_>, path: &Path) -> Result<()> {
    let mut out = io::BufWriter::with_capacity(256 << 10, File::create_new(path).at("open", path)?);
    write_blob(context, digest, blob, &mut out)?;
    Ok(out.flush().at("write", path)?)
}

fn write_blob(
    context: &ExportContext<'_>,
    digest: &Digest,
    blob: &Blob<'_>,
    out: &mut impl Write,
) -> Result<()> {
    let part = match blob {
        Blob::Document(bytes) => return out.write_all(bytes).map_err(write_error),
        Blob::Layer(part) => part,
    };
    let store = context.store;
    let diff_id = part.diff_id.clone().unwrap_or_else(|| mica_oci::DiffId(digest.clone()));
    let mut watch = |_, _| !(context.is_stopped)();
    let written = match &part.bytes {
        Bytes::Blob => return copy(&mut store.open_blob(digest)?, part.descriptor.size, out),
        Bytes::Tar(plain) => {
            // The diff ID is compared on the way.
            return produce(store, &diff_id, plain, &mut watch, out)
                .map_err(|failure| failure.of(super::encode_error));
        }
        Bytes::Written(written) => written.clone(),
        Bytes::Compressed(plain, form) => {
            let written = context.compress(&diff_id, plain, *form)?;
            if written.digest != *digest {
                // What was remembered was wrong, and is right now: the next try succeeds.
                return Err(super::encode_error(PushError::OtherBytes { digest: diff_id.0 }));
            }
            written
        }
        Bytes::Foreign | Bytes::Absent => return Err(ImageError::LayerMissing { diff_id }),
    };
    let mut file = &*written.file;
    file.seek(SeekFrom::Start(0)).map_err(write_error)?;
    copy(&mut file, part.descriptor.size, out)
}

fn copy(from: &mut impl Read, size_bytes: u64, out: &mut impl Write) -> Result<()> {
    let copied = io::copy(&mut from.take(size_bytes), out).map_err(write_error)?;
    match copied == size_bytes {
        true => Ok(()),
        false => Err(write_error(io::ErrorKind::UnexpectedEof.into())),
    }
}
