//! Removing images that nothing uses.

use mica_oci::{Digest, ImageId, Reference};
use mica_store::Store;

use crate::error::Result;
use crate::list::{has_labels, is_tag, unix_seconds};
use crate::remove::{Leftovers, Removed};

/// Which images may go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PruneFilter {
    /// Made before this time.
    pub until_unix_s: Option<i64>,
    /// Have all of these labels.
    pub labels: Vec<(String, Option<String>)>,
    /// Have none of these labels.
    pub labels_not: Vec<(String, Option<String>)>,
}

/// What went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Names, in familiar form.
    pub untagged: Vec<String>,
    /// Images and layers.
    pub deleted: Vec<Digest>,
    /// Space on disk that came back.
    pub reclaimed_bytes: u64,
}

/// Removes images that no container stands on: those without a tag, or with `all` those with tags too. An image of another
/// platform goes with its names. Without a filter downloads that were cut short go too.
pub fn prune(store: &Store, all: bool, filter: &PruneFilter) -> Result<Pruned> {
    let mut removed = Vec::new();
    let mut leftovers = Leftovers::default();
    for image in store.images()? {
        let id = &image.record.id;
        let has_tag = |names: &[String]| names.iter().any(|name| is_tag(name));
        if image.containers_count > 0 || has_tag(&image.other_names) || !all && has_tag(&image.names) {
            continue;
        }
        if filter.until_unix_s.is_some_and(|until| unix_seconds(&image.record.created) >= until) {
            continue;
        }
        if !filter.labels.is_empty() && !has_labels(store, id, &filter.labels)? {
            continue;
        }
        let mut is_kept = false;
        for label in &filter.labels_not {
            is_kept = is_kept || has_labels(store, id, std::slice::from_ref(label))?;
        }
        if is_kept {
            continue;
        }
        for name in image.names.iter().filter_map(|name| Reference::parse(name).ok()) {
            if !leads_to_one_in_use(store, &name, id)? {
                leftovers.untag(store, &name, id, &mut removed)?;
            }
        }
        leftovers.delete_unused(store, id, &mut removed)?;
    }
    // Of downloads that were cut short nothing is known that a filter could ask for.
    let keep_downloads = *filter != PruneFilter::default();
    let reclaimed_bytes = leftovers.collect(store, keep_downloads, &mut removed)?;
    let mut pruned = Pruned { reclaimed_bytes, ..Pruned::default() };
    for removed in removed {
        match removed {
            Removed::Untagged(name) => pruned.untagged.push(name),
            Removed::Deleted(digest) => pruned.deleted.push(digest),
        }
    }
    Ok(pruned)
}

/// Leads a name away from an image that is to go, if a container stands on one of another platform that the name has: then
/// the name stays with those.
fn leads_to_one_in_use(store: &Store, name: &Reference, id: &ImageId) -> Result<bool> {
    let name = name.canonical();
    for other in store.images_of(&name)?.iter().filter(|other| *other != id) {
        if !store.image_users(other)?.is_empty() {
            return Ok(store.remove_image_of(&name, id)?);
        }
    }
    Ok(false)
}
