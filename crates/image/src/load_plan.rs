//! What an archive says: its images, their names and where the bytes of their layers are. Nothing is stored here.

use std::collections::BTreeMap;

use mica_oci::docker_archive::{self, ArchiveImage};
use mica_oci::image_layout::{ANNOTATION_CONTAINERD_NAME, ANNOTATION_REF_NAME};
use mica_oci::{
    Descriptor, Digest, Document, DocumentError, DocumentKind, ImageConfig, ImageId, ImageLayout, Index,
    Manifest, Platform, Reference, image_id, media_type,
};

use crate::archive::Archive;
use crate::error::{ImageError, Result};

/// Indexes inside of indexes; real ones have one level.
const NESTING_MAX: usize = 4;
/// Descriptors that are looked at, in all indexes together.
pub(crate) const DESCRIPTORS_MAX: usize = 10_000;

/// An image as the archive describes it.
pub(crate) struct PlannedImage {
    pub id: ImageId,
    pub config: ImageConfig,
    pub config_bytes: Vec<u8>,
    pub names: Vec<Reference>,
    pub layers: Vec<PlannedLayer>,
    /// The manifest's bytes, if the archive has one that fits.
    pub manifest_bytes: Option<Vec<u8>>,
}

/// Where a layer's bytes are.
pub(crate) struct PlannedLayer {
    /// Path in the archive.
    pub member: String,
    /// What the manifest says of them.
    pub descriptor: Option<Descriptor>,
}

/// Reads what the archive says. `manifest.json` goes first: it has all names.
pub(crate) fn plan(archive: &Archive, platform: &Platform) -> Result<Vec<PlannedImage>> {
    let layout_index = archive.document(ImageLayout::INDEX_FILE, DocumentKind::Index)?;
    if let Some(bytes) = archive.document(docker_archive::MANIFEST_FILE, DocumentKind::DockerArchive)? {
        let images = docker_archive::parse_manifest(&bytes)
            .map_err(|source| member_error(docker_archive::MANIFEST_FILE, source))?;
        // Only to find manifests: a broken one beside a whole `manifest.json` does no harm.
        let manifests = layout_index.and_then(|bytes| Index::parse(&bytes).ok());
        let manifests = match manifests {
            Some(index) => all_manifests(archive, &index).unwrap_or_default(),
            None => Vec::new(),
        };
        if images.is_empty() {
            return Err(ImageError::NoImages);
        }
        return images.iter().map(|image| plan_docker(archive, image, &manifests)).collect();
    }
    let Some(bytes) = layout_index else { return Err(ImageError::NotAnArchive) };
    if let Some(bytes) = archive.document(ImageLayout::MARKER_FILE, DocumentKind::ImageLayout)? {
        ImageLayout::parse(&bytes).map_err(|source| member_error(ImageLayout::MARKER_FILE, source))?;
    }
    let index = Index::parse(&bytes).map_err(|source| member_error(ImageLayout::INDEX_FILE, source))?;
    plan_layout(archive, &index, platform)
}

fn member_error(member: &str, source: DocumentError) -> ImageError {
    ImageError::Member { member: member.to_owned(), source }
}

fn plan_docker(
    archive: &Archive,
    image: &ArchiveImage,
    manifests: &[(Manifest, Vec<u8>)],
) -> Result<PlannedImage> {
    let missing = || ImageError::MemberMissing { member: image.config.clone() };
    let bytes = archive.document(&image.config, DocumentKind::ImageConfig)?.ok_or_else(missing)?;
    let config = ImageConfig::parse(&bytes).map_err(|source| member_error(&image.config, source))?;
    let id = image_id(&bytes);
    // Where the name of the member is a digest, docker means it.
    let stem = image.config.rsplit('/').next().unwrap_or_default();
    let stem = stem.strip_suffix(".json").unwrap_or(stem);
    let named = Digest::parse(stem).or_else(|_| Digest::parse(&format!("sha256:{stem}")));
    if let Ok(expected) = named
        && expected.matches(&bytes) == Some(false)
    {
        return Err(ImageError::MemberDigest { member: image.config.clone(), expected, actual: id.0 });
    }
    let mut names = Vec::new();
    for name in image.repo_tags.iter().flatten() {
        names.push(Reference::parse(name)?.with_default_tag());
    }
    let manifest = manifests
        .iter()
        .find(|(manifest, _)| manifest.config.digest == id.0 && manifest.layers.len() == image.layers.len());
    let layer = |(position, member): (usize, &String)| {
        let descriptor = manifest.and_then(|(manifest, _)| manifest.layers.get(position)).cloned();
        match descriptor {
            Some(descriptor) if ImageLayout::blob_path(&descriptor.digest) == *member => {
                PlannedLayer { member: member.clone(), descriptor: Some(descriptor) }
            }
            _ => PlannedLayer { member: member.clone(), descriptor: None },
        }
    };
    let layers: Vec<PlannedLayer> = image.layers.iter().enumerate().map(layer).collect();
    let fits = layers.iter().all(|layer| layer.descriptor.is_some());
    let manifest_bytes = manifest.filter(|_| fits).map(|(_, bytes)| bytes.clone());
    Ok(PlannedImage { id, config, config_bytes: bytes, names, layers, manifest_bytes })
}

fn plan_layout(archive: &Archive, index: &Index, platform: &Platform) -> Result<Vec<PlannedImage>> {
    // Several manifests of one name are one image for several platforms.
    let mut groups: Vec<(Option<Reference>, Vec<Descriptor>)> = Vec::new();
    let mut positions: BTreeMap<String, usize> = BTreeMap::new();
    for descriptor in index.images().take(DESCRIPTORS_MAX) {
        let name = name_of(descriptor);
        let spelled = annotation(descriptor);
        match positions.get(&spelled).filter(|_| descriptor.platform.is_some()) {
            Some(position) => {
                if let Some((_, group)) = groups.get_mut(*position) {
                    group.push(descriptor.clone());
                }
            }
            None => {
                if descriptor.platform.is_some() {
                    positions.insert(spelled, groups.len());
                }
                groups.push((name, vec![descriptor.clone()]));
            }
        }
    }
    let mut images: Vec<PlannedImage> = Vec::new();
    for (name, group) in groups {
        let mut image = match group.as_slice() {
            [one] => plan_descriptor(archive, one, platform, 0)?,
            several => {
                let index = Index::oci(several.to_vec());
                plan_descriptor(archive, select(&index, platform)?, platform, 0)?
            }
        };
        image.names.extend(name);
        match images.iter_mut().find(|known| known.id == image.id) {
            Some(known) => known.names.append(&mut image.names),
            None => images.push(image),
        }
    }
    if images.is_empty() { Err(ImageError::NoImages) } else { Ok(images) }
}

/// Which image of a layout is meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayoutChoice {
    /// The only one there is, else the one that is called `latest`.
    Any,
    /// The one of that name: a tag, or a whole name.
    Name(String),
    /// The one with that digest of its manifest or index.
    Digest(Digest),
}

/// One image of a layout, whatever its name.
pub(crate) fn plan_one(
    archive: &Archive,
    choice: &LayoutChoice,
    platform: &Platform,
) -> Result<PlannedImage> {
    let Some(bytes) = archive.document(ImageLayout::INDEX_FILE, DocumentKind::Index)? else {
        return Err(ImageError::NotAnArchive);
    };
    let index = Index::parse(&bytes).map_err(|source| member_error(ImageLayout::INDEX_FILE, source))?;
    let all: Vec<&Descriptor> = index.images().take(DESCRIPTORS_MAX).collect();
    let is_called = |descriptor: &Descriptor, name: &str| {
        let value = |key| descriptor.annotations.get(key).map(String::as_str);
        let tag = |text: &str| {
            text.rsplit('/').next().and_then(|last| last.split_once(':')).map(|(_, tag)| tag.to_owned())
        };
        [value(ANNOTATION_REF_NAME), value(ANNOTATION_CONTAINERD_NAME)]
            .into_iter()
            .flatten()
            .any(|text| text == name || tag(text).as_deref() == Some(name))
    };
    let called = |name: &str| all.iter().copied().filter(|one| is_called(one, name)).collect::<Vec<_>>();
    let (wanted, group) = match choice {
        LayoutChoice::Any if all.len() == 1 => (String::new(), all.clone()),
        LayoutChoice::Any => ("latest".to_owned(), called("latest")),
        LayoutChoice::Name(name) => (name.clone(), called(name)),
        LayoutChoice::Digest(digest) => {
            (digest.to_string(), all.iter().copied().filter(|one| one.digest == *digest).collect())
        }
    };
    let mut image = match group.as_slice() {
        [] => {
            let offered = all.iter().map(|one| match annotation(one) {
                name if name.is_empty() => one.digest.to_string(),
                name => name,
            });
            return Err(ImageError::NotInLayout { wanted, offered: offered.collect::<Vec<_>>().join(", ") });
        }
        [one] => plan_descriptor(archive, one, platform, 0)?,
        several => {
            let index = Index::oci(several.iter().copied().cloned().collect());
            plan_descriptor(archive, select(&index, platform)?, platform, 0)?
        }
    };
    image.names.clear();
    Ok(image)
}

fn annotation(descriptor: &Descriptor) -> String {
    let value = |key| descriptor.annotations.get(key).cloned();
    value(ANNOTATION_CONTAINERD_NAME).or_else(|| value(ANNOTATION_REF_NAME)).unwrap_or_default()
}

/// The name that a descriptor of `index.json` has. A bare tag, as many tools write it, names nothing.
pub(crate) fn name_of(descriptor: &Descriptor) -> Option<Reference> {
    let text = annotation(descriptor);
    if !text.contains(['/', ':']) {
        return None;
    }
    Reference::parse(&text).ok().filter(|name| name.digest().is_none()).map(|name| name.with_default_tag())
}

fn select<'a>(index: &'a Index, platform: &Platform) -> Result<&'a Descriptor> {
    let images: Vec<&Descriptor> = index.images().collect();
    let offered = || index.platforms().iter().map(Platform::to_string).collect::<Vec<_>>().join(", ");
    match (index.select(platform), images.as_slice()) {
        (Some(descriptor), _) => Ok(descriptor),
        // What is alone is what the user means.
        (None, [one]) => Ok(one),
        (None, []) => Err(ImageError::NoImages),
        (None, _) => Err(ImageError::NoPlatform { platform: platform.to_string(), offered: offered() }),
    }
}

/// A blob that is a document, held against its digest.
fn blob_document(archive: &Archive, descriptor: &Descriptor, kind: DocumentKind) -> Result<Vec<u8>> {
    let member = ImageLayout::blob_path(&descriptor.digest);
    let missing = || ImageError::MemberMissing { member: member.clone() };
    let bytes = archive.document(&member, kind)?.ok_or_else(missing)?;
    match descriptor.digest.matches(&bytes) {
        Some(true) => Ok(bytes),
        _ => {
            let (expected, actual) = (descriptor.digest.clone(), Digest::sha256(&bytes));
            Err(ImageError::MemberDigest { member, expected, actual })
        }
    }
}

pub(crate) fn read_document(archive: &Archive, descriptor: &Descriptor) -> Result<(Document, Vec<u8>)> {
    let bytes = blob_document(archive, descriptor, DocumentKind::Manifest)?;
    // What the descriptor calls it decides only if the document does not say.
    let told = Some(descriptor.media_type.as_str())
        .filter(|name| media_type::is_index(name) || media_type::is_manifest(name));
    let document = Document::parse(&bytes, told)
        .map_err(|source| member_error(&ImageLayout::blob_path(&descriptor.digest), source))?;
    Ok((document, bytes))
}

pub(crate) fn plan_descriptor(
    archive: &Archive,
    descriptor: &Descriptor,
    platform: &Platform,
    depth: usize,
) -> Result<PlannedImage> {
    if depth > NESTING_MAX {
        return Err(ImageError::Nesting { max: NESTING_MAX });
    }
    let (manifest, manifest_bytes) = match read_document(archive, descriptor)? {
        (Document::Index(index), _) => {
            return plan_descriptor(archive, select(&index, platform)?, platform, depth + 1);
        }
        (Document::Manifest(manifest), bytes) => (manifest, bytes),
    };
    if !manifest.is_image() {
        return Err(ImageError::NotAnImage {
            digest: descriptor.digest.clone(),
            media_type: manifest.artifact_type.unwrap_or(manifest.config.media_type),
        });
    }
    for layer in &manifest.layers {
        if media_type::layer_compression(&layer.media_type).is_none() {
            let (digest, media_type) = (layer.digest.clone(), layer.media_type.clone());
            return Err(ImageError::LayerMediaType { digest, media_type });
        }
    }
    let config_bytes = blob_document(archive, &manifest.config, DocumentKind::ImageConfig)?;
    let config = ImageConfig::parse(&config_bytes)
        .map_err(|source| member_error(&ImageLayout::blob_path(&manifest.config.digest), source))?;
    let layer = |descriptor: Descriptor| PlannedLayer {
        member: ImageLayout::blob_path(&descriptor.digest),
        descriptor: Some(descriptor),
    };
    Ok(PlannedImage {
        // The blob may be named by another algorithm; an image ID is always of this one.
        id: image_id(&config_bytes),
        config,
        config_bytes,
        names: Vec::new(),
        layers: manifest.layers.into_iter().map(layer).collect(),
        manifest_bytes: Some(manifest_bytes),
    })
}

/// All manifests of images that a layout has.
fn all_manifests(archive: &Archive, index: &Index) -> Result<Vec<(Manifest, Vec<u8>)>> {
    let mut manifests = Vec::new();
    let mut left: Vec<(Descriptor, usize)> =
        index.images().map(|descriptor| (descriptor.clone(), 0)).collect();
    let mut seen = 0;
    while let Some((descriptor, depth)) = left.pop() {
        seen += 1;
        if depth > NESTING_MAX || seen > DESCRIPTORS_MAX {
            break;
        }
        match read_document(archive, &descriptor) {
            Ok((Document::Manifest(manifest), bytes)) if manifest.is_image() => {
                manifests.push((manifest, bytes))
            }
            Ok((Document::Index(index), _)) => {
                left.extend(index.images().map(|descriptor| (descriptor.clone(), depth + 1)));
            }
            // For other platforms there may be nothing but the mention.
            _ => {}
        }
    }
    Ok(manifests)
}
