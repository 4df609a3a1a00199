//! Collection: removes layers and blobs that nothing needs any more, while other processes work.
//!
//! What is needed: layers and blobs of images (containers stand on images), layers of build cache records (those of
//! steps' inputs are such too), those below what failed steps left, the blob a kept layer came from, what a living lease protects, and all that was stored
//! since the oldest living lease began. Deciding and renaming away happen in one write transaction, so no row can come
//! to refer to what is being taken; deleting happens after it.

use crate::codec::Count;
use crate::error::Result;
use crate::store::{Store, now_unix_seconds};
use crate::trash::Trash;
use mica_sys::error::ErrorAt;
use mica_sys::lock;
use rusqlite::{Connection, OptionalExtension};
use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;
use std::time::Duration;

/// Added before a lease's begin: the clock may be set back while it lives.
const CLOCK_SLACK_SECONDS: i64 = 600;

/// So many free pages of the database are left for what comes next.
const FREE_PAGES_KEPT: i64 = 64;
/// Gives back so many pages at most: 16 MiB.
const GIVE_BACK: &str = "PRAGMA incremental_vacuum(4096)";
/// As SQLite spells it in numbers.
const AUTO_VACUUM_INCREMENTAL: i64 = 2;

/// What to collect.
#[derive(Clone, Copy, Debug, Default)]
pub struct GcOptions {
    /// Build cache records stay, and with them their layers.
    pub keep_cache: bool,
    /// Of the build cache, only records unused for that long go.
    pub cache_unused_for: Option<Duration>,
    /// Directories of RUN cache mounts go too, if nobody uses them.
    pub cache_mounts: bool,
    /// Downloads that were cut short stay, to be gone on with.
    pub keep_downloads: bool,
    /// What failed steps left goes too, if nobody looks at it.
    pub failed_steps: bool,
}

/// What was freed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Space on disk.
    pub bytes: u64,
    /// Layers removed.
    pub layers: u64,
    /// Blobs removed.
    pub blobs: u64,
    /// Build cache records removed, those of steps' inputs among them.
    pub cache_records: u64,
    /// Directories of RUN cache mounts removed.
    pub cache_mounts: u64,
    /// Downloads removed that were cut short.
    pub downloads: u64,
    /// What failed steps had left, removed.
    pub failed_steps: u64,
}

impl Store {
    /// Removes what nothing needs. Other processes may go on; their leases are kept.
    pub fn gc(&self, options: GcOptions) -> Result<Freed> {
        self.sweep()?;
        // First, and with it what keeps their layers.
        let (failed_steps, failed_bytes) = match options.failed_steps {
            true => self.drop_failed_steps(|_| true)?,
            false => (0, 0),
        };
        let mut trash = Trash::new(self);
        let result = self.write(|transaction| {
            let mut freed = Freed { failed_steps, bytes: failed_bytes, ..Freed::default() };
            let stored_before = self.end_dead_leases(transaction)?;
            drop_records(transaction, options, &mut freed)?;
            self.collect_layers(transaction, stored_before, &mut trash, &mut freed)?;
            self.collect_blobs(transaction, stored_before, &mut trash, &mut freed)?;
            self.collect_orphans(transaction, &mut trash)?;
            if options.cache_mounts {
                self.collect_cache_mounts(&mut trash, &mut freed)?;
            }
            mica_sys::fail_point!("store.gc.commit")?;
            Ok(freed)
        });
        let mut freed = trash.end(result)?;
        if !options.keep_downloads {
            self.collect_downloads(&mut freed)?;
        }
        // All that was to go has gone: what is not given back now, on a full disk or beside another process, is so by
        // a later collection.
        let _ = self.bare(shrink_database);
        self.keep_reserve();
        Ok(freed)
    }

    /// Forgets what dead leases protected; answers before when a thing must have been stored to be collected.
    fn end_dead_leases(&self, connection: &Connection) -> Result<i64> {
        let directory = self.layout().ingest();
        let mut living = HashSet::new();
        let mut oldest = i64::MAX;
        for entry in std::fs::read_dir(&directory).at("readdir", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("lease-") || !lock::is_held(entry.path())? {
                continue;
            }
            if let Ok(metadata) = std::fs::symlink_metadata(entry.path()) {
                oldest = oldest.min(metadata.mtime().saturating_sub(CLOCK_SLACK_SECONDS));
                living.insert(name);
            }
        }
        let mut statement = connection.prepare("SELECT DISTINCT lease FROM protections")?;
        let leases: Vec<String> =
            statement.query_map([], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        for lease in leases.iter().filter(|lease| !living.contains(*lease)) {
            connection.execute("DELETE FROM protections WHERE lease=?1", [lease])?;
        }
        Ok(oldest)
    }

    fn collect_layers(
        &self,
        connection: &Connection,
        stored_before: i64,
        trash: &mut Trash,
        freed: &mut Freed,
    ) -> Result<()> {
        let mut statement = connection.prepare(
            "SELECT directory, size_bytes FROM layers AS l WHERE last_used < ?1
                AND NOT EXISTS(SELECT 1 FROM image_layers AS i WHERE i.diff_id=l.diff_id
                    AND (l.chain_id='' OR i.chain_id=l.chain_id))
                AND NOT EXISTS(SELECT 1 FROM cache AS c WHERE c.diff_id=l.diff_id AND c.chain_id=l.chain_id)
                AND NOT EXISTS(SELECT 1 FROM step_records AS s WHERE s.diff_id=l.diff_id AND s.chain_id=l.chain_id)
                AND NOT EXISTS(SELECT 1 FROM failed_layers AS f WHERE f.diff_id=l.diff_id AND f.chain_id=l.chain_id)
                AND NOT EXISTS(SELECT 1 FROM protections AS p WHERE p.kind='layer' AND p.object=l.directory)",
        )?;
        let unneeded: Vec<(String, u64)> = statement
            .query_map([stored_before], |row| Ok((row.get(0)?, row.get::<_, Count>(1)?.0)))?
            .collect::<rusqlite::Result<_>>()?;
        for (directory, size_bytes) in unneeded {
            connection.prepare_cached("DELETE FROM layers WHERE directory=?1")?.execute([&directory])?;
            if trash.take(&["layers", &directory])? {
                freed.layers += 1;
                freed.bytes += size_bytes;
            }
        }
        Ok(())
    }

    fn collect_blobs(
        &self,
        connection: &Connection,
        stored_before: i64,
        trash: &mut Trash,
        freed: &mut Freed,
    ) -> Result<()> {
        let blobs = self.layout().blobs();
        for algorithm in std::fs::read_dir(&blobs).at("readdir", &blobs)? {
            let algorithm = algorithm.at("readdir", &blobs)?;
            let directory = algorithm.path();
            let algorithm = algorithm.file_name().to_string_lossy().into_owned();
            for blob in std::fs::read_dir(&directory).at("readdir", &directory)? {
                let blob = blob.at("readdir", &directory)?;
                let hex = blob.file_name().to_string_lossy().into_owned();
                let digest = format!("{algorithm}:{hex}");
                let needed = connection.prepare_cached(crate::blob::NEEDED)?.query_row([&digest], |_| Ok(()));
                if needed.optional()?.is_some() {
                    continue;
                }
                let Ok(metadata) = blob.metadata() else { continue };
                if metadata.mtime() < stored_before && trash.take(&["blobs", &algorithm, &hex])? {
                    freed.blobs += 1;
                    freed.bytes += metadata.len();
                }
            }
        }
        Ok(())
    }

    /// Directories whose row was never committed. We hold the write lock, so nobody is between the two.
    fn collect_orphans(&self, connection: &Connection, trash: &mut Trash) -> Result<()> {
        let places = [
            ("layers", self.layout().layers(), "SELECT 1 FROM layers WHERE directory=?1"),
            ("containers", self.layout().containers(), "SELECT 1 FROM containers WHERE id=?1"),
            ("failed", self.layout().failed(), "SELECT 1 FROM failed_steps WHERE id=?1"),
        ];
        for (kind, path, sql) in places {
            let entries = match std::fs::read_dir(&path) {
                // A store of an older version has not all of them.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                entries => entries.at("readdir", &path)?,
            };
            for entry in entries {
                let name = entry.at("readdir", &path)?.file_name().to_string_lossy().into_owned();
                let known = connection.prepare_cached(sql)?.query_row([&name], |_| Ok(())).optional()?;
                if known.is_none() {
                    trash.take(&[kind, &name])?;
                }
            }
        }
        Ok(())
    }

    /// No row leads to them, so this needs no transaction: the lock says that nobody works on one.
    fn collect_downloads(&self, freed: &mut Freed) -> Result<()> {
        let directory = self.layout().ingest();
        for entry in std::fs::read_dir(&directory).at("readdir", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            if !entry.file_name().as_encoded_bytes().starts_with(crate::download::PREFIX.as_bytes()) {
                continue;
            }
            let lock::Probe::Taken(_unused) = lock::Lock::probe(entry.path())? else { continue };
            let size_bytes = crate::usage::tree_size_bytes(&entry.path())?;
            mica_sys::fail_point!("store.gc.download")?;
            crate::remove_tree::remove_tree(&entry.path())?;
            freed.downloads += 1;
            freed.bytes += size_bytes;
        }
        Ok(())
    }

    fn collect_cache_mounts(&self, trash: &mut Trash, freed: &mut Freed) -> Result<()> {
        let directory = self.layout().cache();
        for entry in std::fs::read_dir(&directory).at("readdir", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            let lock::Probe::Taken(_unused) = lock::Lock::probe(entry.path())? else { continue };
            let size_bytes = crate::usage::tree_size_bytes(&entry.path())?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if trash.take(&["cache", &name])? {
                freed.cache_mounts += 1;
                freed.bytes += size_bytes;
            }
        }
        Ok(())
    }
}

/// Gives back the pages that records left: the inputs of steps make the database large, and it does not shrink by
/// itself.
fn shrink_database(connection: &Connection) -> Result<()> {
    let number = |name| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let mut free_pages = number("freelist_count")?;
    if free_pages < FREE_PAGES_KEPT {
        return Ok(());
    }
    if number("auto_vacuum")? != AUTO_VACUUM_INCREMENTAL {
        // A database of version 1 is written anew, once.
        connection.execute_batch("PRAGMA auto_vacuum=INCREMENTAL; VACUUM;")?;
        free_pages = number("freelist_count")?;
    }
    while free_pages >= FREE_PAGES_KEPT {
        // In pieces, each a transaction: other writers get their turn in between, while the log is moved.
        let mut statement = connection.prepare_cached(GIVE_BACK)?;
        let mut rows = statement.query([])?;
        while rows.next()?.is_some() {}
        connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
        let free_before = std::mem::replace(&mut free_pages, number("freelist_count")?);
        if free_pages >= free_before {
            break;
        }
    }
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
    Ok(())
}

/// Drops records of both kinds by the same rule.
fn drop_records(connection: &Connection, options: GcOptions, freed: &mut Freed) -> Result<()> {
    if options.keep_cache {
        return Ok(());
    }
    let unused_since = match options.cache_unused_for {
        None => i64::MAX,
        Some(unused) => {
            now_unix_seconds().saturating_sub(i64::try_from(unused.as_secs()).unwrap_or(i64::MAX))
        }
    };
    let sum = "SELECT coalesce(sum(inputs_bytes), 0) FROM step_records WHERE last_used <= ?1";
    freed.bytes += connection.query_row(sum, [unused_since], |row| row.get::<_, Count>(0))?.0;
    for table in ["cache", "step_records"] {
        let sql = format!("DELETE FROM {table} WHERE last_used <= ?1");
        freed.cache_records += connection.execute(&sql, [unused_since])? as u64;
    }
    Ok(())
}
