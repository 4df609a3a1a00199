//! What is copied: the documents of an image, each after those it refers to, and the blobs that they name.

use std::collections::{BTreeMap, BTreeSet};

use mica_oci::{
    Descriptor, Digest, Document, DocumentKind, ImageConfig, Index, Manifest, Platform, media_type,
};

use crate::error::{CopyError, Result};
use crate::source::{Source, select};

/// Indexes inside of indexes; real ones have one level.
const NESTING_MAX: usize = 4;
/// Descriptors in all documents together.
const DESCRIPTORS_MAX: u64 = 100_000;
/// Bytes of all documents together: they are held in memory. A manifest has some kilobytes.
const DOCUMENTS_SIZE_BYTES_MAX: u64 = 64 << 20;

/// A manifest or index that is copied.
pub(crate) struct PlannedDocument {
    pub descriptor: Descriptor,
    pub bytes: Vec<u8>,
}

/// What is copied.
pub(crate) struct Plan {
    /// Each after those it refers to; the last one is what the destination will name.
    pub documents: Vec<PlannedDocument>,
    /// Configs, layers, and whatever else manifests name, in their order, each once.
    pub blobs: Vec<Descriptor>,
    /// Layers that stay where their licence wants them.
    pub foreign: Vec<Descriptor>,
    /// The manifest that is named, parsed, if it is no index.
    pub manifest: Option<Manifest>,
}

/// What a destination asks of a plan.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted<'a> {
    /// Only this platform.
    pub platform: Option<&'a Platform>,
    /// One image, not an index: where several are for this machine's platform, that one.
    pub is_single: bool,
    /// Foreign layers too.
    pub foreign: bool,
}

impl Plan {
    /// Reads all documents of an image.
    pub fn make(source: &Source<'_>, wanted: Wanted<'_>) -> Result<Plan> {
        let (descriptor, bytes) = source.root(wanted.platform)?;
        let (descriptor, bytes) = narrow(source, descriptor, bytes, wanted)?;
        let mut walk = Walk {
            source,
            wanted,
            plan: Plan { documents: Vec::new(), blobs: Vec::new(), foreign: Vec::new(), manifest: None },
            documents: BTreeSet::new(),
            blobs: BTreeMap::new(),
            descriptors: 0,
            size_bytes: 0,
        };
        walk.visit(descriptor, bytes, 0)?;
        Ok(walk.plan)
    }

    /// What the destination will name.
    pub fn root(&self) -> Option<&Descriptor> {
        self.documents.last().map(|document| &document.descriptor)
    }
}

/// From an index to its manifest for one platform, if one is asked for.
fn narrow(
    source: &Source<'_>,
    mut descriptor: Descriptor,
    mut bytes: Vec<u8>,
    wanted: Wanted<'_>,
) -> Result<(Descriptor, Vec<u8>)> {
    let host = Platform::host();
    for _ in 0..=NESTING_MAX {
        match (parse(source, &descriptor, &bytes)?, wanted.platform) {
            (Document::Index(index), Some(platform)) => {
                descriptor = select(source.place(), &index, platform)?.clone();
            }
            (Document::Index(index), None) if wanted.is_single => {
                let images: Vec<&Descriptor> = index.images().collect();
                // What is alone is what the user means.
                descriptor = match images.as_slice() {
                    [one] => (*one).clone(),
                    _ => select(source.place(), &index, &host)?.clone(),
                };
            }
            (Document::Manifest(manifest), Some(platform)) => {
                check_platform(source, &manifest, &descriptor, platform)?;
                return Ok((descriptor, bytes));
            }
            _ => return Ok((descriptor, bytes)),
        }
        bytes = source.document(&descriptor, DocumentKind::Manifest)?;
    }
    Err(CopyError::Nesting { place: source.place().boxed(), max: NESTING_MAX })
}

fn parse(source: &Source<'_>, descriptor: &Descriptor, bytes: &[u8]) -> Result<Document> {
    // What the descriptor calls it decides only if the document does not say.
    let told = Some(descriptor.media_type.as_str())
        .filter(|name| media_type::is_index(name) || media_type::is_manifest(name));
    Document::parse(bytes, told).map_err(|error| CopyError::Document {
        place: source.place().boxed(),
        member: descriptor.digest.to_string(),
        source: error,
    })
}

/// A manifest that stands alone says only in its config what it is for.
fn check_platform(
    source: &Source<'_>,
    manifest: &Manifest,
    descriptor: &Descriptor,
    platform: &Platform,
) -> Result<()> {
    if descriptor.platform.is_some() {
        return Ok(());
    }
    let none_fits = |offered: String| CopyError::NoPlatform {
        place: source.place().boxed(),
        platform: platform.to_string(),
        offered,
    };
    if !manifest.is_image() {
        return Err(none_fits("an artifact".to_owned()));
    }
    let bytes = source.document(&manifest.config, DocumentKind::ImageConfig)?;
    let config = ImageConfig::parse(&bytes).map_err(|error| CopyError::Document {
        place: source.place().boxed(),
        member: manifest.config.digest.to_string(),
        source: error,
    })?;
    let own = config.platform();
    if platform.runs().iter().any(|fit| fit.is_same(&own)) {
        return Ok(());
    }
    Err(none_fits(own.to_string()))
}

struct Walk<'a> {
    source: &'a Source<'a>,
    wanted: Wanted<'a>,
    plan: Plan,
    documents: BTreeSet<Digest>,
    /// Sizes of blobs.
    blobs: BTreeMap<Digest, u64>,
    descriptors: u64,
    size_bytes: u64,
}

impl Walk<'_> {
    fn visit(&mut self, descriptor: Descriptor, bytes: Vec<u8>, depth: usize) -> Result<()> {
        let place = || self.source.place().boxed();
        if depth > NESTING_MAX {
            return Err(CopyError::Nesting { place: place(), max: NESTING_MAX });
        }
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > DOCUMENTS_SIZE_BYTES_MAX {
            let (max, what) = (DOCUMENTS_SIZE_BYTES_MAX, "bytes of manifests");
            return Err(CopyError::TooMany { place: place(), max, what });
        }
        match parse(self.source, &descriptor, &bytes)? {
            Document::Index(index) => self.visit_index(&index, depth)?,
            Document::Manifest(manifest) => {
                self.blob(&manifest.config)?;
                for layer in &manifest.layers {
                    self.blob(layer)?;
                }
                if depth == 0 {
                    self.plan.manifest = Some(manifest);
                }
            }
        }
        self.plan.documents.push(PlannedDocument { descriptor, bytes });
        Ok(())
    }

    fn visit_index(&mut self, index: &Index, depth: usize) -> Result<()> {
        for child in &index.manifests {
            let is_document =
                media_type::is_index(&child.media_type) || media_type::is_manifest(&child.media_type);
            if !is_document {
                self.blob(child)?;
                continue;
            }
            self.count()?;
            if self.documents.insert(child.digest.clone()) {
                let bytes = self.source.document(child, DocumentKind::Manifest)?;
                self.visit(child.clone(), bytes, depth + 1)?;
            }
        }
        Ok(())
    }

    fn count(&mut self) -> Result<()> {
        self.descriptors += 1;
        if self.descriptors > DESCRIPTORS_MAX {
            let (place, max) = (self.source.place().boxed(), DESCRIPTORS_MAX);
            return Err(CopyError::TooMany { place, max, what: "descriptors" });
        }
        Ok(())
    }

    fn blob(&mut self, descriptor: &Descriptor) -> Result<()> {
        self.count()?;
        match self.blobs.insert(descriptor.digest.clone(), descriptor.size) {
            None => {}
            Some(known) if known == descriptor.size => return Ok(()),
            Some(known) => {
                return Err(CopyError::TwoSizes {
                    place: self.source.place().boxed(),
                    digest: descriptor.digest.clone(),
                    first: known,
                    second: descriptor.size,
                });
            }
        }
        let is_foreign =
            media_type::is_nondistributable(&descriptor.media_type) && !descriptor.urls.is_empty();
        match is_foreign && !self.wanted.foreign {
            true => self.plan.foreign.push(descriptor.clone()),
            false => self.plan.blobs.push(descriptor.clone()),
        }
        Ok(())
    }
}
