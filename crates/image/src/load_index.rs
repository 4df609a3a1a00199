//! Indexes of an archive: of a name, the images of all platforms come in where the archive has them all.

use std::collections::{HashMap, HashSet};

use mica_oci::{Descriptor, Digest, Document, DocumentKind, ImageLayout, Index, Platform, Reference};

use crate::archive::Archive;
use crate::error::Result;
use crate::load_plan::{DESCRIPTORS_MAX, PlannedImage, name_of, plan_descriptor, read_document};

/// An index that names of the archive lead to.
pub(crate) struct PlannedIndex {
    pub names: Vec<Reference>,
    pub bytes: Vec<u8>,
    /// Positions among [`Indexes::images`], in its order; at least one.
    pub members: Vec<usize>,
}

/// The indexes of an archive, with their images, each once.
#[derive(Default)]
pub(crate) struct Indexes {
    pub images: Vec<PlannedImage>,
    pub all: Vec<PlannedIndex>,
}

impl Indexes {
    /// Takes names that lead to an index from images that have them alone: a name moves once, to all that it leads to.
    pub fn take_names(&self, images: &mut [PlannedImage]) {
        let own: HashSet<String> =
            self.all.iter().flat_map(|index| &index.names).map(Reference::canonical).collect();
        for image in images {
            image.names.retain(|name| !own.contains(&name.canonical()));
        }
    }
}

/// The indexes that names of these images lead to. One that the archive does not have whole is left out, as are those that are
/// not understood: the images themselves were.
pub(crate) fn plan_indexes(archive: &Archive, images: &[PlannedImage]) -> Result<Indexes> {
    let mut indexes = Indexes::default();
    let bytes = archive.document(ImageLayout::INDEX_FILE, DocumentKind::Index)?;
    let Some(layout) = bytes.and_then(|bytes| Index::parse(&bytes).ok()) else { return Ok(indexes) };
    let names = images.iter().flat_map(|image| &image.names);
    let mut left: HashSet<String> = names.map(Reference::canonical).collect();
    let mut known: HashMap<Digest, Option<usize>> = HashMap::new();
    let mut members = Members { archive, known: HashMap::new(), left: DESCRIPTORS_MAX };
    for descriptor in layout.images().take(DESCRIPTORS_MAX) {
        let Some(name) = name_of(descriptor) else { continue };
        // The first of a name counts.
        if !left.remove(&name.canonical()) {
            continue;
        }
        let position = match known.get(&descriptor.digest) {
            Some(position) => *position,
            None => {
                let position = members.plan(descriptor, &mut indexes);
                known.insert(descriptor.digest.clone(), position);
                position
            }
        };
        if let Some(index) = position.and_then(|position| indexes.all.get_mut(position)) {
            index.names.push(name);
        }
    }
    Ok(indexes)
}

/// The images of indexes, by their manifests: one that several indexes have is read once.
struct Members<'a> {
    archive: &'a Archive,
    known: HashMap<Digest, Option<usize>>,
    /// Descriptors that are still looked at.
    left: usize,
}

impl Members<'_> {
    /// Plans an index without names; its position, if the archive has all of it.
    fn plan(&mut self, descriptor: &Descriptor, indexes: &mut Indexes) -> Option<usize> {
        let (document, bytes) = read_document(self.archive, descriptor).ok()?;
        let Document::Index(index) = document else { return None };
        let mut members = Vec::new();
        for descriptor in index.images() {
            self.left = self.left.checked_sub(1)?;
            members.push(self.member(descriptor, &mut indexes.images)?);
        }
        if members.is_empty() {
            return None;
        }
        indexes.all.push(PlannedIndex { names: Vec::new(), bytes, members });
        Some(indexes.all.len() - 1)
    }

    fn member(&mut self, descriptor: &Descriptor, images: &mut Vec<PlannedImage>) -> Option<usize> {
        if let Some(known) = self.known.get(&descriptor.digest) {
            return *known;
        }
        let image = plan_descriptor(self.archive, descriptor, &Platform::host(), 1).ok();
        let is_there = |image: &PlannedImage| {
            image.layers.iter().all(|layer| self.archive.require(&layer.member).is_ok())
        };
        let position = image.filter(is_there).map(|image| {
            images.push(image);
            images.len() - 1
        });
        self.known.insert(descriptor.digest.clone(), position);
        position
    }
}
