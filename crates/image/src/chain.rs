//! The layers of an image as a stack: what they show, and what a layer above may ask of them.

use std::cell::OnceCell;
use std::fs::File;
use std::sync::Arc;

use mica_layer::apply::Parents;
use mica_layer::verify::is_whole;
use mica_oci::{DiffId, chain_ids};
use mica_store::{Layer, Store};
use mica_sys::dir_at::open_beneath;
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind, MergedIndex};
use rustix::fs::{Mode, OFlags};

use crate::error::{ImageError, Result};

/// Reads the index of a layer.
pub fn read_index(layer: &Layer) -> Result<Index> {
    let path = layer.index_path();
    let bytes = std::fs::read(&path).at("open", &path)?;
    Index::decode(&bytes)
        .map_err(|source| ImageError::Index { diff_id: layer.record.diff_id.clone(), source })
}

/// Opens a regular file of a layer's tree, through no symbolic link.
pub(crate) fn open_in_tree(tree: &File, path: &[u8]) -> mica_sys::Result<File> {
    Ok(open_beneath(tree, path, OFlags::RDONLY | OFlags::NOFOLLOW, Mode::empty())?.into())
}

/// Stored layers, the lowest first.
#[derive(Debug, Default)]
pub struct Chain {
    layers: Vec<Layer>,
    merged: OnceCell<Option<MergedIndex>>,
}

impl Chain {
    /// The layers of an image.
    pub fn of_image(store: &Store, diff_ids: &[DiffId]) -> Result<Self> {
        let mut chain = Self::default();
        for (diff_id, chain_id) in diff_ids.iter().zip(chain_ids(diff_ids)) {
            let layer = store.whole_layer(diff_id, Some(&chain_id), is_whole)?;
            chain.push(layer.ok_or_else(|| ImageError::LayerMissing { diff_id: diff_id.clone() })?);
        }
        Ok(chain)
    }

    /// The layers.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    pub(crate) fn push(&mut self, layer: Layer) {
        self.layers.push(layer);
        self.merged = OnceCell::new();
    }

    /// What the stack shows; `None` if an index cannot be read.
    fn merged(&self) -> Option<&MergedIndex> {
        let read = || {
            let indexes = self.layers.iter().map(|layer| read_index(layer).map(Arc::new));
            Some(MergedIndex::new(indexes.collect::<Result<Vec<_>>>().ok()?))
        };
        self.merged.get_or_init(read).as_ref()
    }
}

impl Parents for Chain {
    fn directory(&self, path: &[u8]) -> Option<Entry> {
        if self.layers.is_empty() {
            return None;
        }
        self.merged()?.get(path).filter(|entry| entry.is_directory()).cloned()
    }

    fn open_file(&self, path: &[u8]) -> Option<(Entry, File)> {
        let merged = self.merged()?;
        let shown = merged.get(path)?;
        let entry = match shown.kind {
            Kind::File { .. } => shown,
            Kind::Hardlink { .. } => merged.entry_of_link(shown)?,
            _ => return None,
        };
        let tree = File::open(self.layers.get(merged.layer_of(path)?)?.tree_path()).ok()?;
        Some((entry.clone(), open_in_tree(&tree, path).ok()?))
    }
}
