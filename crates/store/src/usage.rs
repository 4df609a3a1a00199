//! What the store takes on disk, and how much of it could be freed: every byte is counted once.

use crate::codec::Count;
use crate::error::Result;
use crate::reserve::RESERVE_FILE;
use crate::store::Store;
use mica_sys::error::ErrorAt;
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Things of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageOf {
    /// How many there are.
    pub count: u64,
    /// How many of them are in use.
    pub active_count: u64,
    /// What they take.
    pub size_bytes: u64,
    /// What removing those not in use would free.
    pub reclaimable_bytes: u64,
}

/// What the store takes on disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Images: layers that images need, and all blobs. In use if a container stands on it.
    pub images: UsageOf,
    /// Containers: their directories. In use if running.
    pub containers: UsageOf,
    /// Volumes. In use if a container names it.
    pub volumes: UsageOf,
    /// Build cache: layers that only records need (or nothing), the inputs that records of steps keep, and RUN cache
    /// mounts. Counts records.
    pub cache: UsageOf,
    /// Of the images' bytes, those of blobs.
    pub blobs_size_bytes: u64,
    /// The database without the inputs of steps, what is on its way in or out, stat caches.
    pub own_size_bytes: u64,
}

impl Store {
    /// Counts what is stored. Walks containers, volumes and cache mounts, not layers.
    pub fn usage(&self) -> Result<Usage> {
        let mut usage = Usage::default();
        let mut inputs_bytes = 0;
        self.read(|connection| {
            let one = |sql: &str| -> Result<u64> {
                Ok(connection.query_row(sql, [], |row| row.get::<_, Count>(0))?.0)
            };
            usage.images.count = one("SELECT count(*) FROM images")?;
            usage.images.active_count = one("SELECT count(DISTINCT image) FROM containers")?;
            let needed = "SELECT coalesce(sum(size_bytes), 0) FROM layers AS l WHERE EXISTS(
                SELECT 1 FROM image_layers AS i WHERE i.diff_id=l.diff_id
                AND (l.chain_id='' OR i.chain_id=l.chain_id)";
            let all = one("SELECT coalesce(sum(size_bytes), 0) FROM layers")?;
            let of_images = one(&format!("{needed})"))?;
            let of_containers = one(&format!("{needed} AND i.image IN (SELECT image FROM containers))"))?;
            usage.images.size_bytes = of_images;
            usage.images.reclaimable_bytes = of_images - of_containers;
            usage.cache.count =
                one("SELECT (SELECT count(*) FROM cache) + (SELECT count(*) FROM step_records)")?;
            inputs_bytes = one("SELECT coalesce(sum(inputs_bytes), 0) FROM step_records")?;
            usage.cache.size_bytes = all - of_images;
            Ok(())
        })?;
        // Directories are there without any image too: those of the blobs are the store's own.
        let blobs = tree_size_bytes(&self.layout().blobs())?;
        usage.own_size_bytes += directories_size_bytes(&self.layout().blobs())?;
        usage.blobs_size_bytes = blobs.saturating_sub(usage.own_size_bytes);
        usage.images.size_bytes += usage.blobs_size_bytes;
        let mounts = tree_size_bytes(&self.layout().cache())?;
        let directory = own_size_bytes(&self.layout().cache());
        usage.own_size_bytes += directory;
        usage.cache.size_bytes += mounts.saturating_sub(directory);
        let mut database = 0;
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            database += tree_size_bytes(&self.root().join(name))?;
        }
        let inputs_bytes = inputs_bytes.min(database);
        usage.own_size_bytes += database - inputs_bytes;
        usage.cache.size_bytes += inputs_bytes;
        usage.cache.reclaimable_bytes = usage.cache.size_bytes;
        for container in self.containers()? {
            let size_bytes = tree_size_bytes(container.path())?;
            let is_live = container.record.state.is_live();
            add(&mut usage.containers, is_live, size_bytes);
        }
        for volume in self.volumes()? {
            let size_bytes = tree_size_bytes(&self.layout().volumes().join(&volume.name))?;
            add(&mut usage.volumes, !self.volume_users(&volume.name)?.is_empty(), size_bytes);
        }
        for path in [self.layout().ingest(), self.context_directory()] {
            usage.own_size_bytes += tree_size_bytes(&path)?;
        }
        for name in ["format", RESERVE_FILE] {
            usage.own_size_bytes += tree_size_bytes(&self.root().join(name))?;
        }
        Ok(usage)
    }
}

/// What a directory and those in it take themselves.
fn directories_size_bytes(path: &Path) -> Result<u64> {
    let mut sum = own_size_bytes(path);
    for entry in std::fs::read_dir(path).at("readdir", path)? {
        sum += own_size_bytes(&entry.at("readdir", path)?.path());
    }
    Ok(sum)
}

/// What a directory takes without what is in it.
fn own_size_bytes(path: &Path) -> u64 {
    std::fs::symlink_metadata(path).map_or(0, |metadata| metadata.blocks() * 512)
}

fn add(of: &mut UsageOf, is_active: bool, size_bytes: u64) {
    of.count += 1;
    of.size_bytes += size_bytes;
    if is_active {
        of.active_count += 1;
    } else {
        of.reclaimable_bytes += size_bytes;
    }
}

/// What a tree takes on disk, as `du` counts: blocks, hard links once, other filesystems not at all. What
/// vanishes during the walk counts nothing.
pub fn tree_size_bytes(path: &Path) -> Result<u64> {
    let Ok(top) = std::fs::symlink_metadata(path) else { return Ok(0) };
    let mut size_bytes = top.blocks() * 512;
    let mut linked = HashSet::new();
    let mut directories = if top.is_dir() { vec![path.to_path_buf()] } else { Vec::new() };
    while let Some(directory) = directories.pop() {
        let entries = match std::fs::read_dir(&directory) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.at("readdir", &directory)?,
        };
        for entry in entries {
            let Ok(entry) = entry else { continue };
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.dev() != top.dev() {
                continue;
            }
            if metadata.is_dir() {
                directories.push(entry.path());
            } else if metadata.nlink() > 1 && !linked.insert(metadata.ino()) {
                continue;
            }
            size_bytes += metadata.blocks() * 512;
        }
    }
    Ok(size_bytes)
}
