//! Exports: what was built leaves mica, as documents and blobs (an archive, a layout, a registry) or as plain files.
//!
//! ```text
//! config and layers of each platform --prepare_export--> a descriptor for every layer (kept, or compressed now), manifests, an index
//!     --> archive: a tar; layout: a directory; store; registry
//! what the layers show --> files: a directory or a tar
//! ```

mod annotation;
mod archive;
mod error;
mod files;
mod local;
mod place;

pub use annotation::{Annotation, AnnotationPlace};
pub use archive::ArchiveKind;
pub use error::ExportError;
pub use files::{FileTree, write_files_tar};
pub use local::{LocalMode, LocalWritten, write_local};
pub use place::PushExport;

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use mica_layer::encode::{Algorithm, Form};
use mica_oci::media_type::{self, Compression};
use mica_oci::{Descriptor, DiffId, Digest, ImageId, Index, Manifest, Platform, image_id};
use mica_store::{CompressedForm, Layer, Lease, Store};

use crate::built::{BuiltImage, platform_in_index};
use crate::chain::Chain;
use crate::error::{ImageError, Result};
use crate::push::bytes::{Written, write};
use crate::push::plan::{Bytes, Part, Plain, plain_of};

/// What every export needs.
#[derive(Clone, Copy)]
pub struct ExportContext<'a> {
    /// Where the layers are.
    pub store: &'a Store,
    /// Older than the look at what is there: keeps it.
    pub lease: &'a Lease,
    /// What was compressed for one output, for the next.
    pub compressed: &'a CompressedLayers,
    /// Asked now and then; the export ends when it says so.
    pub is_stopped: &'a (dyn Fn() -> bool + Sync),
}

/// Layers that were compressed a moment ago, in files that go with this value.
#[derive(Debug, Default)]
pub struct CompressedLayers {
    known: Mutex<HashMap<(DiffId, Form), Written>>,
}

impl ExportContext<'_> {
    fn known(&self) -> MutexGuard<'_, HashMap<(DiffId, Form), Written>> {
        self.compressed.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Compresses a layer, and remembers what came of it.
    fn compress(&self, diff_id: &DiffId, plain: &Plain, form: Form) -> Result<Written> {
        let key = (diff_id.clone(), form);
        if let Some(written) = self.known().get(&key) {
            return Ok(written.clone());
        }
        let written = write(self.store, diff_id, plain, form, &mut |_, _| !(self.is_stopped)())
            .map_err(|failure| failure.of(encode_error))?;
        let made = CompressedForm { digest: written.digest.clone(), size_bytes: written.size_bytes };
        self.store.put_compressed_form(diff_id, &form.name(), &made)?;
        self.known().insert(key, written.clone());
        Ok(written)
    }

    fn check(&self) -> Result<()> {
        match (self.is_stopped)() {
            true => Err(ExportError::Stopped.into()),
            false => Ok(()),
        }
    }
}

/// An image to be exported.
#[derive(Debug, Clone)]
pub struct ExportSource {
    /// What it is for.
    pub platform: Platform,
    /// Config and layers.
    pub image: BuiltImage,
}

/// In what form images are exported.
#[derive(Debug, Clone, Default)]
pub struct ExportOptions {
    /// Of layers that are not kept compressed.
    pub form: Form,
    /// Give that form also to layers that are kept in another one.
    pub force_compression: bool,
    /// Docker's media types in the place of OCI's.
    pub docker_types: bool,
    /// Make an index also of one image.
    pub makes_index: bool,
    /// What is written beside the images.
    pub annotations: Vec<Annotation>,
}

/// Images with all their documents, and where the bytes of their layers are.
#[derive(Debug)]
pub struct Export {
    images: Vec<ExportedImage>,
    /// The index of several.
    index: Option<Vec<u8>>,
    root: Descriptor,
}

#[derive(Debug)]
struct ExportedImage {
    id: ImageId,
    config: Vec<u8>,
    config_descriptor: Descriptor,
    manifest: Vec<u8>,
    descriptor: Descriptor,
    parts: Vec<Part>,
    diff_ids: Vec<DiffId>,
    created: Option<String>,
}

impl Export {
    /// What a name of it leads to: the manifest of one image, the index of several.
    pub fn root(&self) -> &Descriptor {
        &self.root
    }

    /// Image IDs and manifests.
    pub fn images(&self) -> impl Iterator<Item = (&ImageId, &Descriptor)> {
        self.images.iter().map(|image| (&image.id, &image.descriptor))
    }
}

/// Makes the documents. Layers whose digest in that form is not known are compressed now.
pub fn prepare_export(
    context: &ExportContext<'_>,
    sources: &[ExportSource],
    options: &ExportOptions,
) -> Result<Export> {
    let is_of_index = |annotation: &&Annotation| {
        matches!(annotation.place, AnnotationPlace::Index | AnnotationPlace::IndexDescriptor)
    };
    let is_single = sources.len() == 1 && !options.makes_index;
    if let Some(annotation) = options.annotations.iter().find(is_of_index).filter(|_| is_single) {
        return Err(ExportError::NoIndex { key: annotation.key.clone() }.into());
    }
    let mut images = Vec::new();
    for source in sources {
        images.push(image(context, source, options)?);
    }
    let single = match images.as_slice() {
        [image] if is_single => Some(image.descriptor.clone()),
        _ => None,
    };
    let (root, index) = match single {
        Some(descriptor) => (descriptor, None),
        None => {
            let make = if options.docker_types { Index::docker } else { Index::oci };
            let mut index = make(images.iter().map(|image| image.descriptor.clone()).collect());
            annotation::add(&mut index.annotations, &options.annotations, AnnotationPlace::Index, None);
            let bytes = index.to_canonical_json();
            let mut root = Descriptor::of(index.media_type(), &bytes);
            annotation::add(
                &mut root.annotations,
                &options.annotations,
                AnnotationPlace::IndexDescriptor,
                None,
            );
            (root, Some(bytes))
        }
    };
    Ok(Export { images, index, root })
}

fn image(
    context: &ExportContext<'_>,
    source: &ExportSource,
    options: &ExportOptions,
) -> Result<ExportedImage> {
    let config = source.image.config.to_canonical_json();
    let diff_ids: Vec<DiffId> = source.image.layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
    if source.image.config.rootfs.diff_ids != diff_ids {
        let expected = source.image.config.rootfs.diff_ids.len();
        return Err(ImageError::LayerCount { diff_ids: expected, layers: diff_ids.len() });
    }
    let chain = Chain::of_image(context.store, &diff_ids)?;
    let layers: Vec<_> =
        chain.layers().iter().map(|layer| (&layer.record.diff_id, layer.record.chain_id.as_ref())).collect();
    context.lease.protect_layers(&layers)?;
    let mut parts = Vec::new();
    for layer in chain.layers() {
        context.check()?;
        parts.push(part(context, layer, options)?);
    }
    let config_type = if options.docker_types { media_type::DOCKER_CONFIG } else { media_type::OCI_CONFIG };
    let config_descriptor = Descriptor::of(config_type, &config);
    let make = if options.docker_types { Manifest::docker } else { Manifest::oci };
    let mut manifest =
        make(config_descriptor.clone(), parts.iter().map(|part| part.descriptor.clone()).collect());
    let platform = Some(&source.platform);
    annotation::add(&mut manifest.annotations, &options.annotations, AnnotationPlace::Manifest, platform);
    let bytes = manifest.to_canonical_json();
    let mut descriptor = Descriptor::of(manifest.media_type(), &bytes);
    descriptor.platform = Some(platform_in_index(&source.platform, &source.image.config));
    let place = AnnotationPlace::ManifestDescriptor;
    annotation::add(&mut descriptor.annotations, &options.annotations, place, platform);
    Ok(ExportedImage {
        id: image_id(&config),
        config,
        config_descriptor,
        manifest: bytes,
        descriptor,
        parts,
        diff_ids,
        created: source.image.config.created.clone(),
    })
}

fn layer_type(options: &ExportOptions, compression: Compression) -> &'static str {
    match options.docker_types {
        true => media_type::docker_layer(compression),
        false => media_type::oci_layer(compression),
    }
}

fn compression_of(form: Form) -> Compression {
    match form.algorithm() {
        Algorithm::Uncompressed => Compression::None,
        Algorithm::Gzip => Compression::Gzip,
        Algorithm::Zstd => Compression::Zstd,
    }
}

/// A layer in the form in which it is kept, if that will do, else in the one that is asked for.
fn part(context: &ExportContext<'_>, layer: &Layer, options: &ExportOptions) -> Result<Part> {
    let (store, form) = (context.store, options.form);
    let diff_id = layer.record.diff_id.clone();
    let wanted = compression_of(form);
    let part = |compression, digest: Digest, size_bytes, bytes| {
        let descriptor = Descriptor::new(layer_type(options, compression), digest, size_bytes);
        Part { descriptor, is_unknown: false, diff_id: Some(diff_id.clone()), bytes }
    };
    if let Some((digest, media_type)) = &layer.record.origin
        && let Some(kept) = media_type::layer_compression(media_type)
        && (kept == wanted || (kept != Compression::None && !options.force_compression))
        && context.lease.protect_blob(digest)?
        && let Some(size_bytes) = store.blob_size_bytes(digest)?
    {
        return Ok(part(kept, digest.clone(), size_bytes, Bytes::Blob));
    }
    // Where its bytes are gone, perhaps its tar is one that mica writes alike; it is compared while it is written.
    let plain = plain_of(store, layer.clone())?.unwrap_or_else(|| Plain::Tree(Box::new(layer.clone())));
    if wanted == Compression::None {
        let size_bytes = layer.record.tar_size_bytes;
        return Ok(part(wanted, diff_id.0.clone(), size_bytes, Bytes::Tar(plain)));
    }
    let is_here = context.known().contains_key(&(diff_id.clone(), form));
    if let Some(known) = store.compressed_form(&diff_id, &form.name())?.filter(|_| !is_here) {
        return Ok(part(wanted, known.digest, known.size_bytes, Bytes::Compressed(plain, form)));
    }
    let written = context.compress(&diff_id, &plain, form)?;
    Ok(part(wanted, written.digest.clone(), written.size_bytes, Bytes::Written(written)))
}

fn encode_error(source: crate::push::PushError) -> ImageError {
    ExportError::Encode { source: Box::new(source) }.into()
}
