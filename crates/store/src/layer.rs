//! Layers: a tree in the form overlayfs wants, its index, and the row that makes them visible.

use crate::codec::{self, Count};
use crate::error::{Result, StoreError};
use crate::ingest::Ingest;
use crate::store::{Store, now_unix_seconds};
use crate::trash::Trash;
use mica_oci::{ChainId, DiffId, Digest};
use mica_sys::error::{Error, ErrorAt};
use mica_sys::lock;
use rusqlite::{Connection, OptionalExtension, Row, params};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// What is known of a layer beside its tree and index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerRecord {
    /// Digest of the uncompressed tar.
    pub diff_id: DiffId,
    /// Set if the tree depends on what is below it, and so is kept once per chain.
    pub chain_id: Option<ChainId>,
    /// What the layer takes on disk, tree and index.
    pub size_bytes: u64,
    /// Size of the uncompressed tar.
    pub tar_size_bytes: u64,
    /// The compressed blob the layer came from, and its media type. The blob is kept as long as the layer.
    pub origin: Option<(Digest, String)>,
}

/// A committed layer.
#[derive(Clone, Debug)]
pub struct Layer {
    /// What is known of it.
    pub record: LayerRecord,
    /// `false` if the machine was switched off before the layer was on disk for sure: compare the tree with the
    /// index before trusting it, then say [`Store::mark_layer_verified`] or [`Store::drop_layer`].
    pub is_trusted: bool,
    directory: PathBuf,
}

impl Layer {
    /// The directory of the layer.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The tree, a lower directory for overlayfs.
    pub fn tree_path(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// The index of the tree.
    pub fn index_path(&self) -> PathBuf {
        self.directory.join("index")
    }
}

/// What became of a layer that was to be forgotten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forgotten {
    /// It was not there.
    Absent,
    /// It is gone.
    Removed {
        /// Names of the images that miss it now, or their IDs where they have none; sorted.
        images: Vec<String>,
        /// The compressed blob it came from, and its media type: it can be had again from there. Unless an image
        /// lists the blob or a lease protects it, the next collection takes it now that the layer is gone.
        origin: Option<(Digest, String)>,
        /// How many build cache records stood on it; with any, the next build makes it again.
        records_count: u64,
    },
    /// Containers run on it: only its records are gone. To be said again once they have ended.
    InUse {
        /// IDs of the containers.
        containers: Vec<String>,
        /// How many build cache records stood on it.
        records_count: u64,
    },
}

/// A row and what only this file needs of it.
struct Found {
    record: LayerRecord,
    boot_id: String,
    index_size_bytes: u64,
}

/// In the place of a boot ID, which has another form: so not of this one.
const DISTRUSTED: &str = "distrusted";

impl Store {
    /// Makes what is in `ingest` a layer. If the layer is there already, `ingest` is thrown away and that one is
    /// returned; so it is if two processes make the same one at once.
    pub fn commit_layer(&self, ingest: Ingest, record: &LayerRecord) -> Result<Layer> {
        let tree = ingest.tree();
        if !std::fs::symlink_metadata(&tree).is_ok_and(|metadata| metadata.is_dir()) {
            return Err(StoreError::IngestIncomplete { path: tree });
        }
        let index = ingest.index();
        let index_size_bytes = match std::fs::symlink_metadata(&index) {
            Ok(metadata) if metadata.is_file() => metadata.len(),
            _ => return Err(StoreError::IngestIncomplete { path: index }),
        };
        let boot_id = self.boot_id()?;
        let name = codec::layer_directory(&record.diff_id, record.chain_id.as_ref());
        let place = self.layout().layers().join(&name);
        let mut trash = Trash::new(self);
        let result = self.write(|transaction| {
            if let Some(found) = find(transaction, &record.diff_id, record.chain_id.as_ref())?
                && is_intact(&place, &found, boot_id)?
                && (found.boot_id.is_empty() || found.boot_id == boot_id)
            {
                transaction
                    .prepare_cached("UPDATE layers SET last_used=?1 WHERE directory=?2")?
                    .execute(params![now_unix_seconds(), name])?;
                return Ok(Layer { record: found.record, is_trusted: true, directory: place.clone() });
            }
            // Left by a kill between rename and commit, or damaged by a power cut: ours is known to be whole.
            trash.take(&["layers", &name])?;
            mica_sys::fail_point!("store.layer.rename")?;
            rustix::fs::rename(ingest.path(), &place).at("rename", &place)?;
            let inserted = insert(transaction, record, &name, index_size_bytes, boot_id);
            if inserted.is_err() {
                // Nothing may stand in `layers/` without its row; if this fails too, gc removes it.
                let _ = rustix::fs::rename(&place, ingest.path());
            }
            inserted?;
            mica_sys::fail_point!("store.layer.commit")?;
            Ok(Layer { record: record.clone(), is_trusted: true, directory: place.clone() })
        });
        let layer = trash.end(result)?;
        self.keep_reserve();
        Ok(layer)
    }

    /// The layer of that diff ID: the one kept for `chain` if it depends on what is below it, else the shared one.
    pub fn layer(&self, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<Option<Layer>> {
        let boot_id = self.boot_id()?;
        self.read(|connection| {
            for chain in [None, chain].into_iter().take(1 + usize::from(chain.is_some())) {
                let Some(found) = find(connection, diff_id, chain)? else { continue };
                let directory = self.layout().layers().join(codec::layer_directory(diff_id, chain));
                if is_intact(&directory, &found, boot_id)? {
                    let is_trusted = found.boot_id.is_empty() || found.boot_id == boot_id;
                    return Ok(Some(Layer { record: found.record, is_trusted, directory }));
                }
            }
            Ok(None)
        })
    }

    /// All layers, without a look at their directories.
    pub fn layers(&self) -> Result<Vec<LayerRecord>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM layers"))?;
            let mut rows = statement.query([])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push(from_row(row)?.record);
            }
            Ok(records)
        })
    }

    /// As [`Store::layer`], for whoever is about to use its tree: one that the machine may have been switched off on is
    /// compared with its index by `is_whole(tree, index)` first. If it is damaged it is dropped, and is as absent.
    pub fn whole_layer(
        &self,
        diff_id: &DiffId,
        chain: Option<&ChainId>,
        is_whole: impl FnOnce(&Path, &Path) -> bool,
    ) -> Result<Option<Layer>> {
        let Some(mut layer) = self.layer(diff_id, chain)? else { return Ok(None) };
        if !layer.is_trusted {
            if !is_whole(&layer.tree_path(), &layer.index_path()) {
                self.drop_layer(&layer)?;
                return Ok(None);
            }
            self.mark_layer_verified(&layer)?;
            layer.is_trusted = true;
        }
        Ok(Some(layer))
    }

    /// Says that a layer with `is_trusted == false` was compared with its index and is whole. It was read after a
    /// start of the machine, so it is on disk.
    pub fn mark_layer_verified(&self, layer: &Layer) -> Result<()> {
        let name = directory_name(layer);
        self.write(|transaction| {
            transaction.execute("UPDATE layers SET boot_id='' WHERE directory=?1", [&name])?;
            Ok(())
        })
    }

    /// Says that a layer was found damaged that only its image can bring back: it is compared with its index before it is
    /// used again, and the same layer that comes in again takes its place.
    pub fn distrust_layer(&self, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<()> {
        let name = codec::layer_directory(diff_id, chain);
        self.write(|transaction| {
            transaction.execute("UPDATE layers SET boot_id=?1 WHERE directory=?2", [DISTRUSTED, &name])?;
            Ok(())
        })
    }

    /// Removes a layer that the machine was switched off on and that turned out to be damaged, as
    /// [`Store::forget_layer`] does; no container runs on it yet.
    pub fn drop_layer(&self, layer: &Layer) -> Result<()> {
        self.forget_layer(&layer.record.diff_id, layer.record.chain_id.as_ref()).map(|_| ())
    }

    /// Forgets a layer that turned out to be damaged, as its record spells it (no chain: the shared one). The records
    /// that stand on it always go, so that the next build makes it again. So do its row and directory, even if images
    /// need it: they are broken already, miss it from now on, and are whole again once it was made or pulled again.
    /// Under a running container nothing is pulled away.
    pub fn forget_layer(&self, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<Forgotten> {
        let name = codec::layer_directory(diff_id, chain);
        let mut trash = Trash::new(self);
        let result = self.write(|transaction| {
            let Some(found) = find(transaction, diff_id, chain)? else { return Ok(Forgotten::Absent) };
            let records_count = drop_records(transaction, diff_id, chain)?;
            mica_sys::fail_point!("store.layer.forget")?;
            let containers = self.running_on(transaction, diff_id, chain)?;
            if !containers.is_empty() {
                return Ok(Forgotten::InUse { containers, records_count });
            }
            transaction.execute("DELETE FROM layers WHERE directory=?1", [&name])?;
            trash.take(&["layers", &name])?;
            let images = images_of(transaction, diff_id, chain)?;
            Ok(Forgotten::Removed { images, origin: found.record.origin, records_count })
        });
        trash.end(result)
    }

    /// IDs of the running containers whose image needs the layer.
    fn running_on(
        &self,
        connection: &Connection,
        diff_id: &DiffId,
        chain: Option<&ChainId>,
    ) -> Result<Vec<String>> {
        let mut statement = connection.prepare_cached(&format!(
            "SELECT id FROM containers WHERE image IN({IMAGES_OF_LAYER}) ORDER BY sequence"
        ))?;
        let ids: Vec<String> = statement
            .query_map([diff_id.to_string(), codec::text_or_empty(chain)], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        let mut running = Vec::new();
        for id in ids {
            if lock::is_held(self.layout().containers().join(&id).join("lock"))? {
                running.push(id);
            }
        }
        Ok(running)
    }

    /// Makes all that was committed so far survive a power cut: one syncfs for everything. Meant to run off the
    /// user's path, but before "done" is said about bytes that cannot be made again.
    pub fn make_durable(&self) -> Result<()> {
        let boot_id = self.boot_id()?;
        let last: Option<i64> = self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT max(id) FROM layers WHERE boot_id=?1 AND boot_id != ''")?
                .query_row([boot_id], |row| row.get(0))?)
        })?;
        mica_sys::atomic_file::sync_filesystem(self.root())?;
        mica_sys::fail_point!("store.durable.mark")?;
        if let Some(last) = last {
            self.write(|transaction| {
                // Rows of this boot only, up to the last one that was there before the sync.
                transaction.execute(
                    "UPDATE layers SET boot_id='' WHERE boot_id=?1 AND boot_id != '' AND id<=?2",
                    params![boot_id, last],
                )?;
                Ok(())
            })?;
        }
        self.bare(|connection| {
            // Syncs the log and moves it into the database; if readers are in the way, the next one does it.
            connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
            Ok(())
        })
    }
}

fn directory_name(layer: &Layer) -> String {
    codec::layer_directory(&layer.record.diff_id, layer.record.chain_id.as_ref())
}

const COLUMNS: &str =
    "diff_id, chain_id, size_bytes, tar_size_bytes, blob, media_type, boot_id, index_size_bytes";

fn find(connection: &Connection, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<Option<Found>> {
    let sql = format!("SELECT {COLUMNS} FROM layers WHERE diff_id=?1 AND chain_id=?2");
    let mut statement = connection.prepare_cached(&sql)?;
    let mut rows = statement.query([diff_id.to_string(), codec::text_or_empty(chain)])?;
    rows.next()?.map(from_row).transpose()
}

/// Whether there is a row for exactly this layer.
pub(crate) fn exists_exactly(
    connection: &Connection,
    diff_id: &DiffId,
    chain: Option<&ChainId>,
) -> Result<bool> {
    Ok(find(connection, diff_id, chain)?.is_some())
}

/// Whether there is a row for the layer, shared or of that chain.
pub(crate) fn exists(connection: &Connection, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<bool> {
    let mut statement = connection
        .prepare_cached("SELECT 1 FROM layers WHERE diff_id=?1 AND (chain_id='' OR chain_id=?2) LIMIT 1")?;
    let row =
        statement.query_row([diff_id.to_string(), codec::text_or_empty(chain)], |_| Ok(())).optional()?;
    Ok(row.is_some())
}

/// IDs of the images that need a layer; one kept per chain is needed by those of the chain.
const IMAGES_OF_LAYER: &str = "SELECT image FROM image_layers WHERE diff_id=?1 AND (?2='' OR chain_id=?2)";

fn images_of(connection: &Connection, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<Vec<String>> {
    let mut statement = connection.prepare_cached(&format!(
        "SELECT coalesce(n.name, i.id) AS label FROM images AS i LEFT JOIN names AS n ON n.image=i.id
         WHERE i.id IN({IMAGES_OF_LAYER}) ORDER BY label"
    ))?;
    let images = statement.query_map([diff_id.to_string(), codec::text_or_empty(chain)], |row| row.get(0))?;
    Ok(images.collect::<rusqlite::Result<_>>()?)
}

/// Drops the build cache records that stand on a layer, and says how many.
fn drop_records(connection: &Connection, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<u64> {
    let mut count = 0;
    for table in ["cache", "step_records"] {
        let sql = format!("DELETE FROM {table} WHERE diff_id=?1 AND chain_id=?2");
        let gone =
            connection.prepare_cached(&sql)?.execute([diff_id.to_string(), codec::text_or_empty(chain)])?;
        count += gone as u64;
    }
    Ok(count)
}

fn from_row(row: &Row<'_>) -> Result<Found> {
    let blob: Option<Digest> = codec::parse_option(row.get_ref(4)?.as_str().unwrap_or(""), "digest")?;
    let media_type: String = row.get(5)?;
    Ok(Found {
        record: LayerRecord {
            diff_id: codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "diff ID")?,
            chain_id: codec::parse_option(row.get_ref(1)?.as_str().unwrap_or(""), "chain ID")?,
            size_bytes: row.get::<_, Count>(2)?.0,
            tar_size_bytes: row.get::<_, Count>(3)?.0,
            origin: blob.map(|blob| (blob, media_type)),
        },
        boot_id: row.get(6)?,
        index_size_bytes: row.get::<_, Count>(7)?.0,
    })
}

fn insert(
    connection: &Connection,
    record: &LayerRecord,
    name: &str,
    index_size_bytes: u64,
    boot_id: &str,
) -> Result<()> {
    mica_sys::fail_point!("store.layer.insert")?;
    let (blob, media_type) = match &record.origin {
        Some((digest, media_type)) => (digest.to_string(), media_type.as_str()),
        None => (String::new(), ""),
    };
    // An update and not a replacement where there is a row: build cache records hang from it.
    connection
        .prepare_cached(
            "INSERT INTO layers(diff_id, chain_id, directory, size_bytes, tar_size_bytes, index_size_bytes, blob,
                media_type, boot_id, last_used) VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)
             ON CONFLICT(diff_id, chain_id) DO UPDATE SET size_bytes=?4, tar_size_bytes=?5, index_size_bytes=?6,
                blob=?7, media_type=?8, boot_id=?9, last_used=?10",
        )?
        .execute(params![
            record.diff_id.to_string(),
            codec::text_or_empty(record.chain_id.as_ref()),
            name,
            Count(record.size_bytes),
            Count(record.tar_size_bytes),
            Count(index_size_bytes),
            blob,
            media_type,
            boot_id,
            now_unix_seconds()
        ])?;
    Ok(())
}

/// A layer of this boot, or known to be on disk, needs its directory only; one of another boot must at least have
/// an index of the size that was committed.
fn is_intact(directory: &Path, found: &Found, boot_id: &str) -> Result<bool> {
    let at_risk = !found.boot_id.is_empty() && found.boot_id != boot_id;
    let path = if at_risk { directory.join("index") } else { directory.to_path_buf() };
    match rustix::fs::lstat(&path) {
        Ok(stat) if at_risk => {
            Ok(u64::try_from(stat.st_size).is_ok_and(|size| size == found.index_size_bytes))
        }
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(error) => Err(Error::new("lstat", &path, error).into()),
    }
}
