//! The layers of an image: what they show together, and where the bytes are.

use std::fs::File;
use std::io;
use std::sync::Arc;

use mica_oci::DiffId;
use mica_store::{Layer, Lease, Store};
use mica_sys::dir_at::open_beneath;
use mica_trace::{Contents, Files};
use mica_tree::MergedIndex;
use rustix::fs::{Mode, OFlags};

use crate::error::SlimError;

/// Layers, the lowest first.
#[derive(Debug)]
pub(crate) struct Stack {
    layers: Vec<Layer>,
    pub merged: Arc<MergedIndex>,
}

impl Stack {
    /// The layers of an image; the lease keeps them while it lives.
    pub fn of_image(store: &Store, diff_ids: &[DiffId], lease: &Lease) -> Result<Self, SlimError> {
        let layers = mica_image::Chain::of_image(store, diff_ids)?.layers().to_vec();
        let kept: Vec<_> =
            layers.iter().map(|layer| (&layer.record.diff_id, layer.record.chain_id.as_ref())).collect();
        if let (false, Some(diff_id)) = (lease.protect_layers(&kept)?, diff_ids.last()) {
            return Err(mica_image::ImageError::LayerMissing { diff_id: diff_id.clone() }.into());
        }
        let mut merged = MergedIndex::default();
        for layer in &layers {
            merged.push(Arc::new(mica_image::read_index(layer)?));
        }
        Ok(Self { layers, merged: Arc::new(merged) })
    }

    /// What is wrong when a file is not what the index of its layer says.
    pub fn damaged(&self, layer: usize, path: &[u8], reason: String) -> SlimError {
        let diff_id = self.layers.get(layer).map(|layer| layer.record.diff_id.to_string());
        let path = format!("/{}", String::from_utf8_lossy(path));
        SlimError::LayerDamaged { diff_id: diff_id.unwrap_or_default(), path, reason }
    }

    /// Opens the regular file at a position.
    pub fn open_at(&self, position: usize) -> io::Result<File> {
        self.open(&self.merged, position)
    }
}

impl Files for Stack {
    fn open(&self, tree: &MergedIndex, position: usize) -> io::Result<File> {
        let layer = self.layers.get(tree.layer_at(position)).ok_or(io::ErrorKind::NotFound)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(layer.tree_path(), flags, Mode::empty())?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = open_beneath(root, &tree.entry(position).path, flags, Mode::empty());
        Ok(file.map_err(|error| io::Error::other(error.to_string()))?.into())
    }
}

/// Only the paths of a record count here, so no file is read for its digest.
pub(crate) struct WithoutDigests;

impl Contents for WithoutDigests {
    fn content(&self, _: usize) -> io::Result<[u8; 32]> {
        Ok([0; 32])
    }
}
