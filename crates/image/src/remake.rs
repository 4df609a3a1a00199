//! Layers made anew from stored ones: with other times, or several as one.

use std::fs::File;
use std::os::fd::AsFd;
use std::sync::Arc;

use mica_layer::assemble::{AssembleOptions, Item, Source, assemble};
use mica_layer::verify::is_whole;
use mica_oci::{DiffId, Digest, History, ImageId};
use mica_store::{Layer, LayerRecord, Lease, Store};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Flat, Index, Kind, MergedIndex, Time};
use rustix::fs::{Mode, OFlags};

use crate::built::BuiltImage;
use crate::chain::{Chain, open_in_tree, read_index};
use crate::error::{ImageError, Result};

/// How much of an image comes from the one that it was built on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BasePart {
    /// That image; none for `scratch`.
    pub id: Option<ImageId>,
    /// So many of the layers, the lowest ones.
    pub layers: usize,
    /// So many entries of the history, the first ones.
    pub history: usize,
}

/// The layer in which no time is later than `epoch` (seconds since 1970), all else being as in this one: itself, where that
/// is so already. Only for layers that do not depend on what is below them, as all that are built here. Answers its diff ID
/// with the length of its tar. The caller holds the lease since before the layer was looked up.
pub fn rewrite_times(
    store: &Store,
    lease: &Lease,
    layer: &DiffId,
    epoch: i64,
    rootless: bool,
) -> Result<(DiffId, u64)> {
    let missing = || ImageError::LayerMissing { diff_id: layer.clone() };
    let found = store.whole_layer(layer, None, is_whole)?.ok_or_else(missing)?;
    lease.protect_layer(layer, found.record.chain_id.as_ref())?;
    let index = read_index(&found)?;
    let has_attributes = |entry: &Entry| !matches!(entry.kind, Kind::Hardlink { .. } | Kind::Whiteout);
    // A tar has whole seconds.
    let is_later = |entry: &Entry| has_attributes(entry) && entry.mtime.seconds > epoch;
    if !index.entries().iter().any(is_later) {
        return Ok((found.record.diff_id, found.record.tar_size_bytes));
    }
    let item = |(position, entry): (usize, Entry)| {
        let mtime = if is_later(&entry) { Time { seconds: epoch, nanoseconds: 0 } } else { entry.mtime };
        let source = match entry.kind {
            Kind::File { .. } => Source::File { token: position, read_xattrs: false },
            _ => Source::None,
        };
        Item { entry: Entry { mtime, ..entry }, source }
    };
    let paths: Vec<Vec<u8>> = index.entries().iter().map(|entry| entry.path.clone()).collect();
    let items = index.into_entries().into_iter().enumerate().map(item).collect();
    let tree = open_tree(&found)?;
    let open = |position: usize| match paths.get(position) {
        Some(path) => open_in_tree(&tree, path).map_err(|error| error.source),
        None => Err(std::io::ErrorKind::NotFound.into()),
    };
    make(store, items, &open, rootless)
}

/// As [`rewrite_times`], for all layers of an image but those of its base, and for the times that its config tells.
pub fn rewrite_image_times(
    store: &Store,
    lease: &Lease,
    image: &BuiltImage,
    base: &BasePart,
    epoch: i64,
    rootless: bool,
) -> Result<BuiltImage> {
    let mut made = image.clone();
    for layer in made.layers.iter_mut().skip(base.layers) {
        *layer = rewrite_times(store, lease, &layer.0, epoch, rootless)?;
    }
    made.config.rootfs.diff_ids = made.layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
    let limit = jiff::Timestamp::from_second(epoch).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let clamp = |text: &mut Option<String>| {
        if let Some(time) = text.as_ref().and_then(|text| text.parse::<jiff::Timestamp>().ok())
            && time > limit
        {
            *text = Some(limit.to_string());
        }
    };
    clamp(&mut made.config.created);
    for entry in made.config.history.iter_mut().skip(base.history) {
        clamp(&mut entry.created);
    }
    Ok(made)
}

/// The image with all layers but those of its base as one, as `docker build --squash` has it: what the history says of
/// them stays, without layers of their own, and one entry is added for the whole.
pub fn squash(
    store: &Store,
    lease: &Lease,
    image: &BuiltImage,
    base: &BasePart,
    rootless: bool,
) -> Result<BuiltImage> {
    let diff_ids: Vec<DiffId> = image.layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
    if diff_ids.len() <= base.layers {
        return Ok(image.clone());
    }
    let chain = Chain::of_image(store, &diff_ids)?;
    let layers: Vec<_> =
        chain.layers().iter().map(|layer| (&layer.record.diff_id, layer.record.chain_id.as_ref())).collect();
    lease.protect_layers(&layers)?;
    let stack = Stack::of(chain.layers())?;
    let item = |Flat { entry, position }: Flat| {
        let source = match (&entry.kind, position) {
            (Kind::File { .. }, Some(token)) => Source::File { token, read_xattrs: false },
            _ => Source::None,
        };
        Item { entry, source }
    };
    let items = stack.merged.flatten(base.layers).into_iter().map(item).collect();
    let layer = make(store, items, &|position| stack.open(position), rootless)?;
    let mut made = image.clone();
    made.layers.truncate(base.layers);
    made.layers.push(layer);
    made.config.rootfs.diff_ids = made.layers.iter().map(|(diff_id, _)| diff_id.clone()).collect();
    for entry in made.config.history.iter_mut().skip(base.history) {
        entry.empty_layer = true;
    }
    let id = mica_oci::image_id(&image.config.to_canonical_json());
    let comment = match &base.id {
        Some(base) => format!("merge {id} to {base}"),
        None => format!("create new from {id}"),
    };
    let created = made.config.created.clone();
    made.config.history.push(History { created, comment: Some(comment), ..History::default() });
    Ok(made)
}

/// What a stack of layers shows, and where the bytes of it are.
pub(crate) struct Stack {
    pub merged: MergedIndex,
    trees: Vec<File>,
}

impl Stack {
    /// The layers, the lowest first.
    pub fn of(layers: &[Layer]) -> Result<Self> {
        let indexes = layers.iter().map(|layer| read_index(layer).map(Arc::new));
        let merged = MergedIndex::new(indexes.collect::<Result<Vec<_>>>()?);
        let trees = layers.iter().map(open_tree).collect::<Result<_>>()?;
        Ok(Self { merged, trees })
    }

    /// Opens the regular file at a position.
    pub fn open(&self, position: usize) -> std::io::Result<File> {
        let tree = self.trees.get(self.merged.layer_at(position)).ok_or(std::io::ErrorKind::NotFound)?;
        open_in_tree(tree, &self.merged.entry(position).path).map_err(|error| error.source)
    }
}

fn open_tree(layer: &Layer) -> Result<File> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = layer.tree_path();
    Ok(File::from(rustix::fs::open(&path, flags, Mode::empty()).at("open", &path)?))
}

fn make(
    store: &Store,
    items: Vec<Item>,
    open: &mica_layer::assemble::OpenSource<'_>,
    rootless: bool,
) -> Result<(DiffId, u64)> {
    let ingest = store.ingest()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tree = rustix::fs::open(ingest.tree(), flags, Mode::empty()).at("open", ingest.tree())?;
    let made = assemble(tree.as_fd(), items, open, AssembleOptions { rootless })?;
    let index = made.index.encode();
    std::fs::write(ingest.index(), &index).at("write", ingest.index())?;
    let record = LayerRecord {
        diff_id: DiffId(Digest::from_sha256(made.diff_id)),
        chain_id: None,
        size_bytes: disk_size_bytes(&made.index) + index.len() as u64,
        tar_size_bytes: made.tar_size_bytes,
        origin: None,
    };
    let layer = store.commit_layer(ingest, &record)?;
    Ok((layer.record.diff_id, layer.record.tar_size_bytes))
}

/// What a tree takes on a disk with blocks of 4 KiB.
fn disk_size_bytes(index: &Index) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size, .. } => size.div_ceil(BLOCK_BYTES).saturating_mul(BLOCK_BYTES),
        Kind::Directory { .. } => BLOCK_BYTES,
        _ => 0,
    };
    index.entries().iter().map(size).fold(0, u64::saturating_add)
}
