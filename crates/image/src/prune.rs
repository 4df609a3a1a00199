//! Removing images that nothing uses.

use mica_oci::{Digest, Reference};
use mica_store::Store;

use crate::error::Result;
use crate::list::{has_labels, unix_seconds};
use crate::remove::{Leftovers, Removed, untag};

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

/// Removes images that no container stands on: those without a name, or with `all` those with names too.
pub fn prune(store: &Store, all: bool, filter: &PruneFilter) -> Result<Pruned> {
    let mut removed = Vec::new();
    let mut leftovers = Leftovers::default();
    for image in store.images()? {
        let id = &image.record.id;
        if image.containers_count > 0 || !(all || image.names.is_empty()) {
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
            untag(store, &name, &mut removed)?;
        }
        match leftovers.delete(store, id, &mut removed) {
            // A container was made of it a moment ago.
            Err(crate::ImageError::Store(mica_store::StoreError::ImageInUse { .. })) => {}
            other => other?,
        }
    }
    let reclaimed_bytes = leftovers.collect(store, &mut removed)?;
    let mut pruned = Pruned { reclaimed_bytes, ..Pruned::default() };
    for removed in removed {
        match removed {
            Removed::Untagged(name) => pruned.untagged.push(name),
            Removed::Deleted(digest) => pruned.deleted.push(digest),
        }
    }
    Ok(pruned)
}
