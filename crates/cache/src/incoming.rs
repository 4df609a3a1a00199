//! A layer on its way in: unfolded, applied and hashed in one pass, and committed only if it is all that the cache says.

use std::fs::File;

use mica_layer::apply::{ApplyContext, Mapping, NoParents, apply_layer};
use mica_layer::compress::{Limits, decompress};
use mica_layer::tar_entry::TarLimits;
use mica_oci::{Descriptor, DiffId, Digest};
use mica_store::{Layer, LayerRecord, Store, tree_size_bytes};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind, compare_paths};

use crate::config;
use crate::error::{CacheError, Result};
use crate::outgoing;
use crate::part;
use crate::place::Place;
use crate::verified::Verified;

/// So much of an index cannot be said by a tar, at most: every directory of a layer would be a tenth of it.
const UNSAID_BYTES_MAX: u64 = 32 << 20;

/// The longest index of a layer that is read: one of two million paths takes 160 MB.
const INDEX_BYTES_MAX: u64 = 256 << 20;

/// What an index has that the layer's tar does not say: which directories are implied, and the root.
pub(crate) fn unsaid(index: &Index) -> Index {
    let is_unsaid =
        |entry: &&Entry| entry.path.is_empty() || matches!(entry.kind, Kind::Directory { implied: true, .. });
    Index::from_sorted(index.entries().iter().filter(is_unsaid).cloned().collect())
}

/// The entries that a tar gave, with what it could not say. `None` if the two do not fit.
fn complete(mut entries: Vec<Entry>, unsaid: Index) -> Option<Index> {
    for said in unsaid.into_entries() {
        if !said.is_directory() {
            return None;
        }
        match entries.binary_search_by(|entry| compare_paths(&entry.path, &said.path)) {
            Ok(at) => *entries.get_mut(at).filter(|entry| entry.is_directory())? = said,
            Err(0) if said.path.is_empty() => entries.insert(0, said),
            Err(_) => return None,
        }
    }
    Some(Index::from_sorted(entries))
}

/// The index of a layer, without the layer; `None` where it does not travel.
pub(crate) fn index(place: &dyn Place, said: &config::Layer) -> Result<Option<Index>> {
    let Some(part) = &said.index else { return Ok(None) };
    let bytes = part::unfold(place, part, "the index of a layer", INDEX_BYTES_MAX)?;
    if said.index_digest.matches(&bytes) != Some(true) {
        return Err(CacheError::IndexDiffers { diff_id: said.diff_id.clone() });
    }
    Index::decode(&bytes)
        .map(Some)
        .map_err(|error| CacheError::Malformed { what: "the index of a layer", reason: error.to_string() })
}

/// Brings a layer into the store.
pub(crate) fn layer(
    place: &dyn Place,
    said: &config::Layer,
    blob: &Descriptor,
    store: &Store,
    mapping: Mapping,
) -> Result<Layer> {
    // First, because it is small.
    let unsaid = part::unfold(place, &said.unsaid, "what is known of a layer", UNSAID_BYTES_MAX)?;
    let unsaid = Index::decode(&unsaid).map_err(|error| CacheError::Malformed {
        what: "what is known of a layer",
        reason: error.to_string(),
    })?;
    let ingest = store.ingest()?;
    let tree_path = ingest.tree();
    let tree = File::open(&tree_path).at("open", &tree_path)?;
    let (entries, diff_id) = apply(place, blob, said.tar_size, &tree, mapping)?;
    if diff_id != said.diff_id {
        return Err(CacheError::LayerDiffers { expected: said.diff_id.clone(), actual: diff_id });
    }
    let differs = || CacheError::IndexDiffers { diff_id: said.diff_id.clone() };
    let index = complete(entries, unsaid).ok_or_else(differs)?;
    let encoded = index.encode();
    if said.index_digest.matches(&encoded) != Some(true) {
        return Err(differs());
    }
    // Such a layer has no other bytes than those that mica writes of it; a tar of somebody else could not be pushed.
    let canonical = outgoing::digest_of(&index, &tree)?;
    if canonical != said.diff_id {
        return Err(CacheError::LayerDiffers { expected: said.diff_id.clone(), actual: canonical });
    }
    let path = ingest.index();
    std::fs::write(&path, &encoded).at("write", &path)?;
    let record = LayerRecord {
        diff_id: said.diff_id.clone(),
        chain_id: None,
        size_bytes: tree_size_bytes(ingest.path())?,
        tar_size_bytes: said.tar_size,
        origin: None,
    };
    Ok(store.commit_layer(ingest, &record)?)
}

/// Unfolds a blob into an empty directory.
pub(crate) fn apply(
    place: &dyn Place,
    blob: &Descriptor,
    tar_size_bytes: u64,
    tree: &File,
    mapping: Mapping,
) -> Result<(Vec<Entry>, DiffId)> {
    // What does not compress grows by a thousandth.
    let size_bytes_max = tar_size_bytes.saturating_add(tar_size_bytes / 8).saturating_add(64 << 10);
    if blob.size > size_bytes_max {
        return Err(CacheError::TooLarge { what: "a compressed layer", size_bytes_max });
    }
    let mut bytes = Verified::open(place, blob)?;
    // No more than was said, whatever it is compressed with.
    let limits = Limits { output_bytes_max: tar_size_bytes, ..Limits::default() };
    let context = ApplyContext { lower: &NoParents, mapping, limits: TarLimits::default() };
    let applied = decompress(bytes.clone(), limits).and_then(|(_, plain)| apply_layer(plain, tree, &context));
    // A decoder may stop before the end of its input; the digest of a blob covers all of it. That it is damaged says more
    // than what became of it.
    bytes.drain()?;
    let applied = applied?;
    Ok((applied.entries, DiffId(Digest::from_sha256(applied.diff_id))))
}
