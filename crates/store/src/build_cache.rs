//! Records of the build cache: from the key of a step to the layer it made.

use crate::codec;
use crate::error::{Result, StoreError};
use crate::layer;
use crate::store::{Store, now_unix_seconds};
use mica_oci::{ChainId, DiffId};
use rusqlite::{Connection, OptionalExtension, params};

/// Key of a step: the plan room says what is in it.
pub type CacheKey = [u8; 32];

/// "Last used" is written when it is older than this: a hit should not cost a write.
pub(crate) const TOUCH_AFTER_SECONDS: i64 = 24 * 60 * 60;

/// What a step made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CacheRecord {
    /// The definition part of the key alone, to tell "never ran" from "its inputs changed".
    pub shape: [u8; 32],
    /// The layer.
    pub diff_id: DiffId,
    /// Set if the layer is kept per chain.
    pub chain_id: Option<ChainId>,
    /// Seconds since 1970.
    pub created_unix_s: i64,
    /// Seconds since 1970, exact to a day.
    pub last_used_unix_s: i64,
    /// What else the build wants to know about it.
    pub extra: Vec<u8>,
}

impl CacheRecord {
    /// A record made and used now.
    pub fn new(shape: [u8; 32], diff_id: DiffId, chain_id: Option<ChainId>, extra: Vec<u8>) -> Self {
        let now = now_unix_seconds();
        Self { shape, diff_id, chain_id, created_unix_s: now, last_used_unix_s: now, extra }
    }
}

impl Store {
    /// The record of a key, if its layer is still there.
    pub fn cache_get(&self, key: &CacheKey) -> Result<Option<CacheRecord>> {
        let Some(record) = self.read(|connection| find(connection, key))? else { return Ok(None) };
        // The row may have outlived the directory: a power cut, or a kill in the middle of a collection.
        if self.layer(&record.diff_id, record.chain_id.as_ref())?.is_none() {
            return Ok(None);
        }
        let now = now_unix_seconds();
        if now.saturating_sub(record.last_used_unix_s) > TOUCH_AFTER_SECONDS {
            self.write(|transaction| {
                transaction.execute("UPDATE cache SET last_used=?1 WHERE key=?2", params![now, key])?;
                Ok(())
            })?;
        }
        Ok(Some(record))
    }

    /// Keeps a record, over an older one of the same key.
    pub fn cache_put(&self, key: &CacheKey, record: &CacheRecord) -> Result<()> {
        self.write(|transaction| insert(transaction, key, record))
    }

    /// Forgets a record.
    pub fn cache_remove(&self, key: &CacheKey) -> Result<bool> {
        self.write(|transaction| Ok(transaction.execute("DELETE FROM cache WHERE key=?1", [key])? > 0))
    }

    /// Whether a step of that shape ever left a record.
    pub fn cache_has_shape(&self, shape: &[u8; 32]) -> Result<bool> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT 1 FROM cache WHERE shape=?1 LIMIT 1")?;
            Ok(statement.query_row([shape], |_| Ok(())).optional()?.is_some())
        })
    }

    /// All records, the least recently used first.
    pub fn cache_records(&self) -> Result<Vec<(CacheKey, CacheRecord)>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT shape, diff_id, chain_id, created, last_used, extra, key FROM cache ORDER BY last_used",
            )?;
            let mut rows = statement.query([])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push((row.get(6)?, from_row(row)?));
            }
            Ok(records)
        })
    }
}

pub(crate) fn insert(connection: &Connection, key: &CacheKey, record: &CacheRecord) -> Result<()> {
    if !layer::exists_exactly(connection, &record.diff_id, record.chain_id.as_ref())? {
        return Err(StoreError::LayerMissing(record.diff_id.clone()));
    }
    mica_sys::fail_point!("store.cache.insert")?;
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO cache(key, shape, diff_id, chain_id, created, last_used, extra)
             VALUES(?1,?2,?3,?4,?5,?6,?7)",
        )?
        .execute(params![
            key,
            record.shape,
            record.diff_id.to_string(),
            codec::text_or_empty(record.chain_id.as_ref()),
            record.created_unix_s,
            record.last_used_unix_s,
            record.extra
        ])?;
    Ok(())
}

fn find(connection: &Connection, key: &CacheKey) -> Result<Option<CacheRecord>> {
    let mut statement = connection.prepare_cached(
        "SELECT shape, diff_id, chain_id, created, last_used, extra FROM cache WHERE key=?1",
    )?;
    let mut rows = statement.query([key])?;
    rows.next()?.map(from_row).transpose()
}

fn from_row(row: &rusqlite::Row<'_>) -> Result<CacheRecord> {
    Ok(CacheRecord {
        shape: row.get(0)?,
        diff_id: codec::parse(row.get_ref(1)?.as_str().unwrap_or(""), "diff ID")?,
        chain_id: codec::parse_option(row.get_ref(2)?.as_str().unwrap_or(""), "chain ID")?,
        created_unix_s: row.get(3)?,
        last_used_unix_s: row.get(4)?,
        extra: row.get(5)?,
    })
}
