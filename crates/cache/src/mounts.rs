//! Contents of `RUN --mount=type=cache`: on request they travel too, and fill directories that are empty elsewhere.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;

use mica_context::SourceDir;
use mica_layer::apply::Mapping;
use mica_store::{CacheMount, Store};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind};
use rustix::fs::{Gid, Mode, Uid};

use crate::config;
use crate::error::{CacheError, Result};
use crate::export::ExportOptions;
use crate::import::Imports;
use crate::incoming;
use crate::outgoing::{self, Outgoing};
use crate::place::Place;

/// The longest id that is believed; ids are paths for the most part.
const ID_BYTES_MAX: usize = 4096;

/// The content of a cache mount as a compressed tar; `None` if there is none.
pub(crate) fn outgoing(
    store: &Store,
    id: &str,
    options: &ExportOptions,
) -> Result<Option<(Outgoing, config::Mount)>> {
    if store.is_cache_mount_empty(id)? {
        return Ok(None);
    }
    let mount = store.existing_cache_mount(id)?.ok_or(CacheError::MountInUse)?;
    let unreadable = |error: mica_context::ContextError| CacheError::Io {
        what: "cannot read it",
        source: io::Error::other(error.to_string()),
    };
    let source = SourceDir::open(mount.path(), None, None).map_err(unreadable)?;
    let index = travelling(source.index());
    if index.entries().is_empty() {
        return Ok(None);
    }
    let open = |entry: &Entry| source.open_file(entry).map_err(|error| io::Error::other(error.to_string()));
    let outgoing = outgoing::write(store, &index, &open, options)?;
    let said = said(&mount, id, &outgoing)?;
    Ok(Some((outgoing, said)))
}

fn said(mount: &CacheMount, id: &str, outgoing: &Outgoing) -> Result<config::Mount> {
    let metadata = std::fs::symlink_metadata(mount.path()).at("lstat", mount.path())?;
    Ok(config::Mount {
        id: id.to_owned(),
        diff_id: outgoing.diff_id.clone(),
        tar_size: outgoing.tar_size_bytes,
        blob: outgoing.blob.clone(),
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

/// The part of a mount's name that people have given it.
pub(crate) fn shown(id: &str) -> &str {
    id.split('\0').next().unwrap_or(id)
}

/// What of a directory a layer's tar can say: no whiteouts, whose names would hide others, and no sockets.
fn travelling(index: &Index) -> Index {
    let is_mark = |path: &[u8]| path.split(|byte| *byte == b'/').any(|part| part.starts_with(b".wh."));
    let stays = |entry: &&Entry| {
        let links_to_mark = matches!(&entry.kind, Kind::Hardlink { target } if is_mark(target));
        let device = matches!(entry.kind, Kind::CharDevice { rdev: (0, 0) } | Kind::Socket | Kind::Whiteout);
        is_mark(&entry.path) || links_to_mark || device
    };
    Index::from_sorted(index.entries().iter().filter(|entry| !stays(entry)).cloned().collect())
}

impl Imports {
    /// Fills the directory of a cache mount from the first cache that has its content, if it has none here. What goes wrong is
    /// told: the step finds it empty.
    pub fn fill_mount(&self, id: &str, store: &Store, mapping: Mapping) -> Result<()> {
        if self.is_empty() || !store.is_cache_mount_empty(id)? {
            return Ok(());
        }
        let Some((import, mount)) = self.mount(id) else { return Ok(()) };
        let place = import.place();
        if let Err(error) = fill(place, mount, store, mapping) {
            self.warn(format!(
                "the content of cache mount `{}` in cache {} is not used: {error}",
                shown(id),
                place.name()
            ));
        }
        Ok(())
    }
}

fn fill(place: &dyn Place, mount: &config::Mount, store: &Store, mapping: Mapping) -> Result<()> {
    if mount.id.len() > ID_BYTES_MAX {
        return Err(CacheError::TooLarge { what: "its id", size_bytes_max: ID_BYTES_MAX as u64 });
    }
    let ingest = store.ingest()?;
    let path = ingest.tree();
    let tree = File::open(&path).at("open", &path)?;
    let (_, actual) = incoming::apply(place, &mount.blob, mount.tar_size, &tree, mapping)?;
    if actual != mount.diff_id {
        return Err(CacheError::LayerDiffers { expected: mount.diff_id.clone(), actual });
    }
    match rustix::fs::fchown(&tree, Some(Uid::from_raw(mount.uid)), Some(Gid::from_raw(mount.gid))) {
        // An owner that the user namespace does not have is root's.
        Ok(()) | Err(rustix::io::Errno::INVAL | rustix::io::Errno::PERM) => {}
        Err(error) => return Err(mica_sys::Error::new("fchown", &path, error).into()),
    }
    rustix::fs::fchmod(&tree, Mode::from_raw_mode(mount.mode & 0o7777)).at("fchmod", &path)?;
    store.fill_cache_mount(&mount.id, &ingest)?;
    Ok(())
}
