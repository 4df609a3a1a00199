//! What the store takes on disk, and how much of it could be freed: every byte is counted once.

use crate::codec::{self, Count};
use crate::error::Result;
use crate::reserve::RESERVE_FILE;
use crate::store::Store;
use mica_oci::Digest;
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
    /// Images: layers that images need, all blobs, and downloads that were cut short. In use if a container stands on it.
    pub images: UsageOf,
    /// Containers: their directories. In use if running.
    pub containers: UsageOf,
    /// Volumes. In use if a container names it.
    pub volumes: UsageOf,
    /// Build cache: layers that only records need (or nothing), the inputs that records of steps keep, RUN cache
    /// mounts, and what failed steps left. Counts records.
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
        let mut blobs_in_use = Vec::new();
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
            let mut statement = connection.prepare_cached(BLOBS_IN_USE)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let digest: Digest = codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "digest")?;
                blobs_in_use.push(digest);
            }
            Ok(())
        })?;
        // Directories are there without any image too: those of the blobs are the store's own.
        let blobs = tree_size_bytes(&self.layout().blobs())?;
        usage.own_size_bytes += directories_size_bytes(&self.layout().blobs())?;
        usage.blobs_size_bytes = blobs.saturating_sub(usage.own_size_bytes);
        usage.images.size_bytes += usage.blobs_size_bytes;
        let in_use: u64 = blobs_in_use.iter().map(|digest| own_size_bytes(&self.blob_path(digest))).sum();
        usage.images.reclaimable_bytes += usage.blobs_size_bytes.saturating_sub(in_use);
        let downloads = self.downloads_size_bytes()?;
        usage.images.size_bytes += downloads;
        usage.images.reclaimable_bytes += downloads;
        let mounts = tree_size_bytes(&self.layout().cache())?;
        let directory = own_size_bytes(&self.layout().cache());
        usage.own_size_bytes += directory;
        usage.cache.size_bytes += mounts.saturating_sub(directory);
        let failed = tree_size_bytes(&self.layout().failed())?;
        let directory = own_size_bytes(&self.layout().failed());
        usage.own_size_bytes += directory;
        usage.cache.size_bytes += failed.saturating_sub(directory);
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
        usage.own_size_bytes += tree_size_bytes(&self.layout().ingest())?.saturating_sub(downloads);
        usage.own_size_bytes += tree_size_bytes(&self.context_directory())?;
        for name in ["format", RESERVE_FILE] {
            usage.own_size_bytes += tree_size_bytes(&self.root().join(name))?;
        }
        Ok(usage)
    }

    /// What downloads take, those that go on among them.
    fn downloads_size_bytes(&self) -> Result<u64> {
        let directory = self.layout().ingest();
        let mut sum = 0;
        for entry in std::fs::read_dir(&directory).at("readdir", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            if entry.file_name().as_encoded_bytes().starts_with(crate::download::PREFIX.as_bytes()) {
                sum += tree_size_bytes(&entry.path())?;
            }
        }
        Ok(sum)
    }
}

/// Blobs that stay when all images go that no container stands on: those of the others, and those that layers of the build
/// cache came from.
const BLOBS_IN_USE: &str = "
WITH used(image) AS (SELECT DISTINCT image FROM containers)
SELECT image FROM used
UNION SELECT manifest FROM images WHERE id IN used
UNION SELECT digest FROM image_blobs WHERE image IN used
UNION SELECT blob FROM layers AS l WHERE blob != '' AND (
    EXISTS(SELECT 1 FROM image_layers AS i WHERE i.diff_id=l.diff_id AND i.image IN used
        AND (l.chain_id='' OR i.chain_id=l.chain_id))
    OR EXISTS(SELECT 1 FROM cache AS c WHERE c.diff_id=l.diff_id AND c.chain_id=l.chain_id)
    OR EXISTS(SELECT 1 FROM step_records AS s WHERE s.diff_id=l.diff_id AND s.chain_id=l.chain_id))";

/// What a directory and those in it take themselves.
fn directories_size_bytes(path: &Path) -> Result<u64> {
    let mut sum = own_size_bytes(path);
    for entry in std::fs::read_dir(path).at("readdir", path)? {
        sum += own_size_bytes(&entry.at("readdir", path)?.path());
    }
    Ok(sum)
}

/// What a file takes, or a directory without what is in it.
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
