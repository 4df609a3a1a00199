//! The result: one layer, the config of the image, no name yet.

use std::os::fd::AsFd;

use mica_image::BuiltImage;
use mica_layer::assemble::{AssembleOptions, assemble};
use mica_oci::{DiffId, Digest, History, ImageConfig, ImageId};
use mica_store::{LayerRecord, Store};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind};
use rustix::fs::{Mode, OFlags};

use crate::error::SlimError;
use crate::keep::Kept;
use crate::pick::pick;
use crate::stack::Stack;

/// Makes the layer and stores it. The caller holds a lease.
pub(crate) fn make_layer(
    store: &Store,
    stack: &Stack,
    kept: &Kept,
    rootless: bool,
) -> Result<(DiffId, u64), SlimError> {
    let items = pick(&stack.merged, kept);
    let ingest = store.ingest()?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let tree = rustix::fs::open(ingest.tree(), flags, Mode::empty()).at("open", ingest.tree())?;
    let open = |position: usize| stack.open_at(position);
    let made = assemble(tree.as_fd(), items, &open, AssembleOptions { rootless })?;
    let index = made.index.encode();
    std::fs::write(ingest.index(), &index).at("write", ingest.index())?;
    let diff_id = DiffId(Digest::from_sha256(made.diff_id));
    let record = LayerRecord {
        diff_id: diff_id.clone(),
        chain_id: None,
        size_bytes: disk_size_bytes(&made.index) + index.len() as u64,
        tar_size_bytes: made.tar_size_bytes,
        origin: None,
    };
    store.commit_layer(ingest, &record)?;
    Ok((diff_id, made.tar_size_bytes))
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

/// The image with that one layer. It was made when its source was, so that the same uses give the same image.
pub(crate) fn built_image(source: &ImageId, config: &ImageConfig, layer: (DiffId, u64)) -> BuiltImage {
    let mut config = config.clone();
    config.history = vec![History {
        created: config.created.clone(),
        created_by: Some(format!("mica slim {source}")),
        ..History::default()
    }];
    config.rootfs.diff_ids = vec![layer.0.clone()];
    BuiltImage { config, layers: vec![layer] }
}
