//! Annotations: words of the user beside an image, in one of four places.

use std::collections::BTreeMap;

use mica_oci::Platform;

/// Where an annotation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnnotationPlace {
    /// In the manifest of an image.
    Manifest,
    /// In the index of several.
    Index,
    /// Where the manifest is referred to: in the index, or in the one of a layout.
    ManifestDescriptor,
    /// Where the index is referred to.
    IndexDescriptor,
}

/// An annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Annotation {
    /// Where it stands.
    pub place: AnnotationPlace,
    /// For the image of one platform only.
    pub platform: Option<Platform>,
    /// What it tells of.
    pub key: String,
    /// What it tells.
    pub value: String,
}

/// Adds those of a place; a later one goes over an earlier one.
pub(super) fn add(
    to: &mut BTreeMap<String, String>,
    annotations: &[Annotation],
    place: AnnotationPlace,
    platform: Option<&Platform>,
) {
    for annotation in annotations.iter().filter(|annotation| annotation.place == place) {
        let fits = match (&annotation.platform, platform) {
            (Some(wanted), Some(platform)) => wanted.is_same(platform),
            _ => true,
        };
        if fits {
            to.insert(annotation.key.clone(), annotation.value.clone());
        }
    }
}
