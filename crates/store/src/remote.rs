//! What is known of registries: which repositories have a blob, uploads that can be taken up again, and how a layer's tar
//! compresses. All of it saves work and none of it is needed: it is bounded, and forgotten when in doubt.

use crate::codec::{self, Count};
use crate::error::Result;
use crate::store::{Store, now_unix_seconds};
use mica_oci::{DiffId, Digest};
use rusqlite::{OptionalExtension, params};

/// So many repositories of a registry are remembered for a blob: to mount from one of them, one that is right is enough.
const SOURCES_MAX: i64 = 8;

/// So many sources are remembered in all, the newest.
const SOURCES_TOTAL_MAX: i64 = 100_000;

/// Registries forget an upload that was cut short after a week at the latest.
const UPLOADS_KEPT_SECONDS: i64 = 7 * 24 * 3600;

/// Longer than any location is; a registry that makes longer ones has its uploads begun anew.
const LOCATION_BYTES_MAX: usize = 16 << 10;

/// What a layer's tar becomes when it is compressed for a registry: always the same bytes, so this is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CompressedForm {
    /// Digest of the compressed bytes.
    pub digest: Digest,
    /// Their number.
    pub size_bytes: u64,
}

impl Store {
    /// Remembers that a repository (`registry`, `repository` as in a reference) has a blob. Old ones are forgotten, newest kept.
    pub fn put_blob_source(&self, digest: &Digest, registry: &str, repository: &str) -> Result<()> {
        self.put_blob_sources(std::slice::from_ref(digest), registry, repository)
    }

    /// Remembers it of several blobs with one write.
    pub fn put_blob_sources(&self, digests: &[Digest], registry: &str, repository: &str) -> Result<()> {
        self.write(|transaction| {
            mica_sys::fail_point!("store.remote.source")?;
            for digest in digests {
                let digest = digest.to_string();
                // A new row and not an update: it is the newest again.
                transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO blob_sources(digest, registry, repository) VALUES(?1, ?2, ?3)",
                    )?
                    .execute([digest.as_str(), registry, repository])?;
                let sequence = transaction.last_insert_rowid();
                transaction
                    .prepare_cached(
                        "DELETE FROM blob_sources WHERE digest=?1 AND registry=?2 AND sequence <= (
                            SELECT sequence FROM blob_sources WHERE digest=?1 AND registry=?2
                            ORDER BY sequence DESC LIMIT 1 OFFSET ?3)",
                    )?
                    .execute(params![digest, registry, SOURCES_MAX])?;
                transaction
                    .prepare_cached("DELETE FROM blob_sources WHERE sequence <= ?1")?
                    .execute([sequence.saturating_sub(SOURCES_TOTAL_MAX)])?;
            }
            Ok(())
        })
    }

    /// Repositories of a registry that had a blob, the newest first; at most eight.
    pub fn blob_sources(&self, digest: &Digest, registry: &str) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT repository FROM blob_sources WHERE digest=?1 AND registry=?2
                 ORDER BY sequence DESC LIMIT ?3",
            )?;
            let rows =
                statement.query_map(params![digest.to_string(), registry, SOURCES_MAX], |row| row.get(0))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Forgets one that turned out to be wrong.
    pub fn remove_blob_source(&self, digest: &Digest, registry: &str, repository: &str) -> Result<()> {
        self.write(|transaction| {
            transaction
                .prepare_cached("DELETE FROM blob_sources WHERE digest=?1 AND registry=?2 AND repository=?3")?
                .execute([digest.to_string().as_str(), registry, repository])?;
            Ok(())
        })
    }

    /// Where the upload of a blob to a repository can be taken up again.
    pub fn upload(&self, registry: &str, repository: &str, digest: &Digest) -> Result<Option<String>> {
        self.read(|connection| {
            let begun_since = now_unix_seconds().saturating_sub(UPLOADS_KEPT_SECONDS);
            Ok(connection
                .prepare_cached(
                    "SELECT location FROM uploads WHERE registry=?1 AND repository=?2 AND digest=?3 AND begun > ?4",
                )?
                .query_row(params![registry, repository, digest.to_string(), begun_since], |row| row.get(0))
                .optional()?)
        })
    }

    /// Remembers it, or forgets it with `None`.
    pub fn set_upload(
        &self,
        registry: &str,
        repository: &str,
        digest: &Digest,
        location: Option<&str>,
    ) -> Result<()> {
        let now = now_unix_seconds();
        self.write(|transaction| {
            mica_sys::fail_point!("store.remote.upload")?;
            let digest = digest.to_string();
            match location.filter(|location| location.len() <= LOCATION_BYTES_MAX) {
                Some(location) => transaction
                    .prepare_cached(
                        "INSERT OR REPLACE INTO uploads(registry, repository, digest, location, begun)
                         VALUES(?1, ?2, ?3, ?4, ?5)",
                    )?
                    .execute(params![registry, repository, digest, location, now])?,
                None => transaction
                    .prepare_cached("DELETE FROM uploads WHERE registry=?1 AND repository=?2 AND digest=?3")?
                    .execute(params![registry, repository, digest])?,
            };
            // The table holds what was cut short within a week: a few rows.
            transaction
                .prepare_cached("DELETE FROM uploads WHERE begun <= ?1")?
                .execute([now.saturating_sub(UPLOADS_KEPT_SECONDS)])?;
            Ok(())
        })
    }

    /// What a layer becomes in this form (`form` names algorithm, level and version of the encoder, such as `gzip-6.1`).
    pub fn compressed_form(&self, diff_id: &DiffId, form: &str) -> Result<Option<CompressedForm>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT digest, size_bytes FROM compressed_forms WHERE diff_id=?1 AND form=?2",
            )?;
            let mut rows = statement.query([diff_id.to_string().as_str(), form])?;
            let Some(row) = rows.next()? else { return Ok(None) };
            Ok(Some(CompressedForm {
                digest: codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "digest")?,
                size_bytes: row.get::<_, Count>(1)?.0,
            }))
        })
    }

    /// Remembers it, as long as the layer is stored.
    pub fn put_compressed_form(
        &self,
        diff_id: &DiffId,
        form: &str,
        compressed: &CompressedForm,
    ) -> Result<()> {
        self.write(|transaction| {
            mica_sys::fail_point!("store.remote.form")?;
            transaction
                .prepare_cached(
                    "INSERT OR REPLACE INTO compressed_forms(diff_id, form, digest, size_bytes)
                     SELECT ?1, ?2, ?3, ?4 WHERE EXISTS(SELECT 1 FROM layers WHERE diff_id=?1)",
                )?
                .execute(params![
                    diff_id.to_string(),
                    form,
                    compressed.digest.to_string(),
                    Count(compressed.size_bytes)
                ])?;
            Ok(())
        })
    }

    /// The name of the form in which a layer has that digest, with its size.
    pub fn form_of_compressed(&self, diff_id: &DiffId, digest: &Digest) -> Result<Option<(String, u64)>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT form, size_bytes FROM compressed_forms WHERE diff_id=?1 AND digest=?2 ORDER BY form LIMIT 1",
            )?;
            let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, Count>(1)?.0));
            Ok(statement.query_row([diff_id.to_string(), digest.to_string()], row).optional()?)
        })
    }

    /// The layer whose compressed form has that digest.
    pub fn layer_of_compressed(&self, digest: &Digest) -> Result<Option<DiffId>> {
        self.read(|connection| {
            let text: Option<String> = connection
                .prepare_cached("SELECT diff_id FROM compressed_forms WHERE digest=?1 LIMIT 1")?
                .query_row([digest.to_string()], |row| row.get(0))
                .optional()?;
            text.map(|text| codec::parse(&text, "diff ID")).transpose()
        })
    }
}
