//! Where an image comes from: what a place names, and the bytes of its documents and blobs.

use std::io::Read;
use std::path::Path;

use mica_layer::members::Range;
use mica_oci::image_layout::{ANNOTATION_CONTAINERD_NAME, ANNOTATION_REF_NAME};
use mica_oci::{Descriptor, Document, DocumentKind, ImageLayout, Index, Platform, Reference, media_type};
use mica_registry_client::Client;

use crate::docker_source::DockerImage;
use crate::error::{CopyError, Result};
use crate::files::Files;
use crate::place::{Place, as_digest};
use crate::verify::{check_bytes, read_error};

/// Names that a message lists.
const OFFERED_MAX: usize = 20;

/// A place that an image comes out of.
pub(crate) enum Source<'a> {
    Registry { client: &'a Client, reference: Reference, place: Place },
    Layout { files: Files, tag: Option<String> },
    Docker { files: Files, image: Box<DockerImage> },
}

/// A blob that is open.
pub(crate) enum Blob {
    /// In a file: can be read as often as needed.
    File(Range),
    /// From afar: once.
    Stream(Box<dyn Read + Send>),
}

impl<'a> Source<'a> {
    /// Opens a place. Archives that cannot be read in place are unfolded into `spool_dir`.
    pub fn open(client: &'a Client, place: &Place, spool_dir: &Path) -> Result<Self> {
        match place {
            Place::Registry(reference) => {
                Ok(Self::Registry { client, reference: reference.clone(), place: place.clone() })
            }
            Place::Layout(path, tag) => {
                Ok(Self::Layout { files: Files::of_directory(place, path)?, tag: tag.clone() })
            }
            Place::LayoutArchive(path, tag) => {
                Ok(Self::Layout { files: Files::of_archive(place, path, spool_dir)?, tag: tag.clone() })
            }
            Place::DockerArchive(path, name) => {
                let files = Files::of_archive(place, path, spool_dir)?;
                let image = Box::new(DockerImage::find(&files, name.as_ref())?);
                Ok(Self::Docker { files, image })
            }
        }
    }

    /// The place, for messages.
    pub fn place(&self) -> &Place {
        match self {
            Self::Registry { place, .. } => place,
            Self::Layout { files, .. } | Self::Docker { files, .. } => &files.place,
        }
    }

    /// The repository, if this is a registry: blobs may be mounted from there.
    pub fn repository(&self) -> Option<&Reference> {
        match self {
            Self::Registry { reference, .. } => Some(reference),
            _ => None,
        }
    }

    /// The manifest or index that the place names.
    pub fn root(&self, platform: Option<&Platform>) -> Result<(Descriptor, Vec<u8>)> {
        match self {
            Self::Registry { client, reference, place } => {
                let fetched = client.manifest(&reference.resolvable())?;
                let document =
                    Document::parse(&fetched.bytes, Some(&fetched.media_type)).map_err(|source| {
                        CopyError::Document {
                            place: place.boxed(),
                            member: fetched.digest.to_string(),
                            source,
                        }
                    })?;
                let announced = Some(fetched.media_type.as_str())
                    .filter(|name| media_type::is_index(name) || media_type::is_manifest(name));
                let media_type = announced.unwrap_or(document.media_type());
                let descriptor =
                    Descriptor::new(media_type, fetched.digest.clone(), fetched.bytes.len() as u64);
                check_bytes(place, &descriptor, &fetched.bytes)?;
                Ok((descriptor, fetched.bytes))
            }
            Self::Layout { files, tag } => {
                let descriptor = root_of_layout(files, tag.as_deref(), platform)?;
                let bytes = files.blob_document(&descriptor, DocumentKind::Manifest)?;
                Ok((descriptor, bytes))
            }
            Self::Docker { image, .. } => Ok((image.manifest.clone(), image.manifest_bytes.clone())),
        }
    }

    /// The bytes of a manifest, index or config, held against its descriptor.
    pub fn document(&self, descriptor: &Descriptor, kind: DocumentKind) -> Result<Vec<u8>> {
        match self {
            Self::Registry { client, reference, place } => {
                let bytes = match kind {
                    DocumentKind::ImageConfig => {
                        mica_oci::check_size(kind, descriptor.size).map_err(|source| {
                            CopyError::Document {
                                place: place.boxed(),
                                member: descriptor.digest.to_string(),
                                source,
                            }
                        })?;
                        client.blob_bytes(reference, descriptor)?
                    }
                    _ => {
                        let reference = reference.name_only().with_digest(descriptor.digest.clone());
                        client.manifest(&reference)?.bytes
                    }
                };
                check_bytes(place, descriptor, &bytes)?;
                Ok(bytes)
            }
            Self::Layout { files, .. } => files.blob_document(descriptor, kind),
            Self::Docker { files, image } => {
                if descriptor.digest == image.manifest.digest {
                    return Ok(image.manifest_bytes.clone());
                }
                let member = image.member(&descriptor.digest);
                let missing = || CopyError::Missing {
                    place: files.place.boxed(),
                    member: descriptor.digest.to_string(),
                };
                let bytes = files.document(&member, kind)?.ok_or_else(missing)?;
                check_bytes(&files.place, descriptor, &bytes)?;
                Ok(bytes)
            }
        }
    }

    /// Opens a blob. Its bytes are not checked yet.
    pub fn blob(&self, descriptor: &Descriptor) -> Result<Blob> {
        match self {
            Self::Registry { client, reference, .. } => {
                Ok(Blob::Stream(Box::new(client.blob(reference, descriptor, 0)?)))
            }
            Self::Layout { files, .. } => {
                Ok(Blob::File(files.require(&ImageLayout::blob_path(&descriptor.digest))?))
            }
            Self::Docker { files, image } => {
                Ok(Blob::File(files.require(&image.member(&descriptor.digest))?))
            }
        }
    }
}

/// The entry of `index.json` that is meant.
fn root_of_layout(files: &Files, tag: Option<&str>, platform: Option<&Platform>) -> Result<Descriptor> {
    let place = &files.place;
    let document_error = |member: &str, source| CopyError::Document {
        place: place.boxed(),
        member: member.to_owned(),
        source,
    };
    let Some(bytes) = files.document(ImageLayout::INDEX_FILE, DocumentKind::Index)? else {
        return Err(CopyError::NotThis {
            place: place.boxed(),
            what: "an OCI layout",
            file: ImageLayout::INDEX_FILE,
        });
    };
    if let Some(bytes) = files.document(ImageLayout::MARKER_FILE, DocumentKind::ImageLayout)? {
        ImageLayout::parse(&bytes).map_err(|source| document_error(ImageLayout::MARKER_FILE, source))?;
    }
    let index = Index::parse(&bytes).map_err(|source| document_error(ImageLayout::INDEX_FILE, source))?;
    let mut found: Vec<&Descriptor> = Vec::new();
    let fitting = index.manifests.iter().filter(|descriptor| match tag {
        Some(tag) => has_name(descriptor, tag) || as_digest(tag).as_ref() == Some(&descriptor.digest),
        None => !descriptor.is_attestation(),
    });
    for descriptor in fitting {
        // One image may have many names.
        if !found.iter().any(|known| known.digest == descriptor.digest) {
            found.push(descriptor);
        }
    }
    let offered = |descriptors: &[&Descriptor]| {
        let mut names: Vec<String> = descriptors.iter().map(|descriptor| shown_name(descriptor)).collect();
        names.dedup();
        shorten_list(&names)
    };
    match (found.as_slice(), platform) {
        ([one], _) => Ok((*one).clone()),
        ([], _) => {
            let all: Vec<&Descriptor> = index.manifests.iter().collect();
            Err(CopyError::NoSuchImage { place: place.boxed(), offered: offered(&all) })
        }
        (several, platform) => {
            let name = |descriptor: &Descriptor| descriptor.annotations.get(ANNOTATION_REF_NAME).cloned();
            let first = several.first().and_then(|descriptor| name(descriptor));
            let is_one_image = several.iter().all(|descriptor| name(descriptor) == first);
            if !is_one_image {
                return Err(CopyError::SeveralImages { place: place.boxed(), offered: offered(several) });
            }
            let group = Index::oci(several.iter().map(|descriptor| (*descriptor).clone()).collect());
            match platform {
                Some(platform) => select(place, &group, platform).cloned(),
                // Without a name they need not belong together.
                None if first.is_none() => {
                    Err(CopyError::SeveralImages { place: place.boxed(), offered: offered(several) })
                }
                None => Err(CopyError::SeveralManifests { place: place.boxed(), offered: platforms(&group) }),
            }
        }
    }
}

fn has_name(descriptor: &Descriptor, tag: &str) -> bool {
    let annotation = |key| descriptor.annotations.get(key).map(String::as_str);
    if annotation(ANNOTATION_REF_NAME) == Some(tag) || annotation(ANNOTATION_CONTAINERD_NAME) == Some(tag) {
        return true;
    }
    let canonical = |text: &str| Reference::parse(text).ok().map(|name| name.with_default_tag());
    // `app:1` is the full name that containerd wrote; a bare word is a tag and nothing more.
    tag.contains([':', '/'])
        && annotation(ANNOTATION_CONTAINERD_NAME)
            .is_some_and(|own| canonical(own).is_some_and(|own| canonical(tag) == Some(own)))
}

fn shown_name(descriptor: &Descriptor) -> String {
    let annotation = |key| descriptor.annotations.get(key).map(|name| format!("`{name}`"));
    annotation(ANNOTATION_REF_NAME).unwrap_or_else(|| format!("`{}`", descriptor.digest))
}

/// Some names in one line, however many there are.
pub(crate) fn shorten_list(names: &[String]) -> String {
    match names.len() {
        0 => "none".to_owned(),
        count if count > OFFERED_MAX => {
            let shown = names.get(..OFFERED_MAX).unwrap_or_default().join(", ");
            format!("{shown} and {} more", count - OFFERED_MAX)
        }
        _ => names.join(", "),
    }
}

fn platforms(index: &Index) -> String {
    shorten_list(&index.platforms().iter().map(Platform::to_string).collect::<Vec<_>>())
}

/// The manifest of an index for a platform.
pub(crate) fn select<'i>(place: &Place, index: &'i Index, platform: &Platform) -> Result<&'i Descriptor> {
    let found = index.select(platform);
    // What does not say what it is for is an artifact where others say it; alone, its config may say it.
    let found = found.filter(|found| found.platform.is_some() || index.platforms().is_empty());
    found.ok_or_else(|| CopyError::NoPlatform {
        place: place.boxed(),
        platform: platform.to_string(),
        offered: platforms(index),
    })
}

/// The start of a file: enough to tell how it is compressed.
pub(crate) fn start(files: &Files, mut range: Range) -> Result<Vec<u8>> {
    let mut start = Vec::new();
    let length = mica_layer::compress::MAGIC_SIZE_BYTES as u64;
    range.by_ref().take(length).read_to_end(&mut start).map_err(|error| read_error(&files.place, error))?;
    Ok(start)
}
