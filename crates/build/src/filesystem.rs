//! Stacks of layers: what a step starts from, and what it leaves.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock};

use mica_oci::{ChainId, DiffId, ImageId, chain_id};
use mica_store::{Layer, Lease, Store};
use mica_trace::Watched;
use mica_tree::{Index, Kind, MergedIndex};
use rustix::fs::{Mode, OFlags, ResolveFlags};

use crate::error::{BuildError, StepError};
use crate::owner;

/// A stack of layers, lowest first.
#[derive(Debug, Default)]
pub(crate) struct Chain {
    layers: Vec<Layer>,
    diff_ids: Vec<DiffId>,
    /// The image that has exactly these layers, if they were looked up for it.
    image: Option<ImageId>,
    merged: OnceLock<Arc<MergedIndex>>,
}

impl Chain {
    /// The stack of an image's layers as the store has them.
    pub fn of_image(store: &Store, diff_ids: &[DiffId]) -> Result<Self, BuildError> {
        let layers = mica_image::Chain::of_image(store, diff_ids)?.layers().to_vec();
        Ok(Self { layers, diff_ids: diff_ids.to_vec(), ..Self::default() })
    }

    /// The same, as the layers of that image.
    pub fn named(mut self, image: &ImageId) -> Self {
        self.image = Some(image.clone());
        self
    }

    /// The image whose layers were looked up.
    pub fn image(&self) -> Option<&ImageId> {
        self.image.as_ref()
    }

    /// Keeps collections of other processes away from the stack for as long as the lease lives.
    pub fn protect(&self, lease: &Lease) -> Result<(), BuildError> {
        let layers: Vec<_> =
            self.layers.iter().map(|layer| (&layer.record.diff_id, layer.record.chain_id.as_ref())).collect();
        match (lease.protect_layers(&layers)?, self.diff_ids.last()) {
            (false, Some(diff_id)) => Err(BuildError::LayerMissing { diff_id: diff_id.clone() }),
            _ => Ok(()),
        }
    }

    /// This stack with one more layer on top.
    pub fn with(&self, layer: Layer, diff_id: DiffId) -> Self {
        let mut layers = self.layers.clone();
        let mut diff_ids = self.diff_ids.clone();
        layers.push(layer);
        diff_ids.push(diff_id);
        Self { layers, diff_ids, ..Self::default() }
    }

    /// Diff IDs, lowest first.
    pub fn diff_ids(&self) -> &[DiffId] {
        &self.diff_ids
    }

    /// The topmost layer.
    pub fn top_layer(&self) -> Option<(&Layer, &DiffId)> {
        Some((self.layers.last()?, self.diff_ids.last()?))
    }

    /// The topmost layer, as the store knows it.
    pub fn top(&self) -> Option<(&DiffId, Option<&ChainId>)> {
        Some((self.diff_ids.last()?, self.layers.last()?.record.chain_id.as_ref()))
    }

    /// The layers as the store knows them.
    pub fn identities(&self) -> Vec<(DiffId, Option<ChainId>)> {
        let identity = |layer: &Layer| (layer.record.diff_id.clone(), layer.record.chain_id.clone());
        self.layers.iter().map(identity).collect()
    }

    /// Diff IDs with the lengths of the tars.
    pub fn sizes(&self) -> Vec<(DiffId, u64)> {
        self.diff_ids
            .iter()
            .cloned()
            .zip(self.layers.iter().map(|layer| layer.record.tar_size_bytes))
            .collect()
    }

    /// Whether there is no layer at all.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// A layer, counted from the lowest.
    pub fn layer(&self, position: usize) -> Option<&Layer> {
        self.layers.get(position)
    }

    /// `None` for an empty stack.
    pub fn chain_id(&self) -> Option<ChainId> {
        chain_id(&self.diff_ids)
    }

    /// Directories for an overlay mount, topmost first.
    pub fn lowers(&self) -> Vec<PathBuf> {
        self.layers.iter().rev().map(Layer::tree_path).collect()
    }

    /// What the stack shows.
    pub fn merged(&self, indexes: &Indexes) -> Result<Arc<MergedIndex>, BuildError> {
        if let Some(merged) = self.merged.get() {
            return Ok(merged.clone());
        }
        let layers = self.layers.iter().map(|layer| indexes.get(layer)).collect::<Result<Vec<_>, _>>()?;
        Ok(self.merged.get_or_init(|| Arc::new(MergedIndex::new(layers))).clone())
    }

    /// A small file of the stack (passwd, group), links followed; `None` when it is not there. What was looked at and
    /// read is noted.
    pub fn read_small(&self, watched: &Watched<'_>, path: &str) -> Result<Option<Vec<u8>>, StepError> {
        let Ok(Some(resolved)) = watched.resolve(path.as_bytes(), true) else { return Ok(None) };
        if let Some(Kind::File { .. } | Kind::Hardlink { .. }) = resolved.entry.map(|entry| &entry.kind) {
            watched.note_content(&resolved.path);
        }
        let failed = |error: io::Error| mica_sys::Error::new("open", path, error);
        let file = match self.open_file(watched.tree(), &resolved.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error).into()),
        };
        let mut bytes = Vec::new();
        file.take(owner::FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
        Ok(Some(bytes))
    }

    /// Opens a regular file of what the stack shows. `path` holds no symbolic link: it comes out of the merged index.
    pub fn open_file(&self, merged: &MergedIndex, path: &[u8]) -> io::Result<File> {
        self.open_in_layer(merged.layer_of(path).ok_or(rustix::io::Errno::NOENT)?, path)
    }

    /// Opens a regular file of one layer, counted from the lowest.
    pub fn open_in_layer(&self, layer: usize, path: &[u8]) -> io::Result<File> {
        let layer = self.layers.get(layer).ok_or(rustix::io::Errno::NOENT)?;
        let tree = rustix::fs::open(
            layer.tree_path(),
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        Ok(File::from(rustix::fs::openat2(tree, path, flags, Mode::empty(), resolve)?))
    }
}

/// Indexes of layers, read at most once in a process.
#[derive(Debug, Default)]
pub(crate) struct Indexes {
    known: Mutex<HashMap<PathBuf, Arc<Index>>>,
}

impl Indexes {
    /// The index of a layer.
    pub fn get(&self, layer: &Layer) -> Result<Arc<Index>, BuildError> {
        let path = layer.index_path();
        if let Some(index) = self.lock().get(&path) {
            return Ok(index.clone());
        }
        let index = mica_image::read_index(layer)
            .map_err(|error| BuildError::damaged(layer, "index".into(), &error.to_string()))?;
        let index = Arc::new(index);
        self.lock().insert(path, index.clone());
        Ok(index)
    }

    /// Takes over an index that was just made.
    pub fn put(&self, layer: &Layer, index: Arc<Index>) {
        self.lock().insert(layer.index_path(), index);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, Arc<Index>>> {
        self.known.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

#[cfg(test)]
mod tests {
    use mica_tree::{Entry, Time};

    use super::*;

    #[test]
    fn what_is_looked_up_for_a_small_file_is_noted() {
        let entry = |(path, kind): &(&str, Kind)| Entry {
            path: path.as_bytes().to_vec(),
            kind: kind.clone(),
            mode: 0o755,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        let check = |entries: &[(&str, Kind)], expect: &[&str]| {
            let index = Index::new(entries.iter().map(entry).collect()).unwrap();
            let merged = MergedIndex::new([Arc::new(index)]);
            let watched = Watched::new(&merged);
            // The stack has no such layer on disk: the file is as good as absent.
            assert_eq!(Chain::default().read_small(&watched, "etc/passwd").unwrap(), None);
            let used = watched.finish(&mica_trace::NoContents).unwrap().uses;
            let used = used.iter().map(|used| {
                let read = matches!(used.value, mica_trace::Value::File { content: Some(_), .. });
                let path = String::from_utf8_lossy(&used.path);
                format!("{path} {}{}", used.value.kind_in_words(), if read { " read" } else { "" })
            });
            assert_eq!(used.collect::<Vec<_>>(), expect, "{entries:?}");
        };
        let directory = || Kind::Directory { opaque: false, implied: false };
        let file = || Kind::File { size: 1, content: Some([7; 32]) };
        let link = |target: &str| Kind::Symlink { target: target.into() };
        check(&[], &["etc nothing"]);
        check(&[("etc", file())], &["etc file"]);
        check(&[("etc", directory())], &["etc directory", "etc/passwd nothing"]);
        check(&[("etc", directory()), ("etc/passwd", file())], &["etc directory", "etc/passwd file read"]);
        check(
            &[("etc", link("/e")), ("e", directory()), ("e/passwd", file())],
            &["e directory", "e/passwd file read", "etc symbolic link"],
        );
        let first = ("a", file());
        let name = ("passwd", Kind::Hardlink { target: b"a".to_vec() });
        check(&[("etc", link(".")), first, name], &["etc symbolic link", "passwd file read"]);
    }
}
