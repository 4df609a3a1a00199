//! Images: rows that refer to blobs and layers.

use crate::build_cache::{self, CacheRecord};
use crate::codec::{self, Count};
use crate::error::{Result, StoreError};
use crate::layer;
use crate::name;
use crate::store::Store;
use mica_oci::{ChainId, DiffId, Digest, ImageId};
use rusqlite::{Connection, OptionalExtension, Row, params};
use std::collections::HashMap;

/// What is known of an image beside its config and manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageRecord {
    /// Digest of the image config; that blob must be stored.
    pub id: ImageId,
    /// Digest of the manifest; that blob must be stored.
    pub manifest: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<DiffId>,
    /// The image it was built on, if it should be told.
    pub parent: Option<ImageId>,
    /// As the image config spells it.
    pub created: String,
    /// Size of its layers' tars together.
    pub size_bytes: u64,
    /// As the image config spells it.
    pub architecture: String,
    /// As the image config spells it.
    pub os: String,
    /// As the image config spells it; empty if it does not.
    pub variant: String,
}

/// An image and the names that lead to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageSummary {
    /// The image.
    pub record: ImageRecord,
    /// The names that lead to it, sorted.
    pub names: Vec<String>,
    /// Names that have it as the image of another platform, sorted (see [`Store::images_of`]).
    pub other_names: Vec<String>,
    /// How many containers stand on it.
    pub containers_count: u64,
}

/// All that becomes visible together with an image.
#[derive(Clone, Debug, Default)]
pub struct ImageCommit<'a> {
    /// Other blobs the image needs (compressed layers, an index): kept as long as it.
    pub blobs: &'a [Digest],
    /// Names that lead to it from now on.
    pub names: &'a [&'a str],
    /// What `names` lead to in their registry, if they were pulled: the digest of an index or of the image's own manifest.
    /// An image that a name leads to by an index stays *of that name* when another platform of the same index comes in
    /// (see [`Store::images_of`]); a name that is set without a target has one image.
    pub target: Option<&'a Digest>,
    /// Build cache records.
    pub cache: &'a [(crate::CacheKey, CacheRecord)],
}

impl Store {
    /// Makes an image known, without a name.
    pub fn put_image(&self, record: &ImageRecord) -> Result<()> {
        self.commit_image(record, &ImageCommit::default()).map(|_| ())
    }

    /// Makes an image, its names and build cache records visible in one step, after a look that all its layers
    /// and blobs are stored. Answers the images that the names led to before.
    pub fn commit_image(&self, record: &ImageRecord, with: &ImageCommit<'_>) -> Result<Vec<Option<ImageId>>> {
        self.commit_images(std::slice::from_ref(record), with)
    }

    /// As [`Store::commit_image`] for the images of several platforms: the names lead to the first, and with a target have
    /// the others beside it (see [`Store::images_of`]).
    pub fn commit_images(
        &self,
        records: &[ImageRecord],
        with: &ImageCommit<'_>,
    ) -> Result<Vec<Option<ImageId>>> {
        self.write(|transaction| {
            for record in records {
                let config: Digest = codec::parse(&record.id.to_string(), "digest")?;
                let chains = mica_oci::chain_ids(&record.layers);
                // Inside, because collection may be running: it holds this same lock while it decides.
                for blob in with.blobs.iter().chain([&config, &record.manifest]) {
                    if !self.has_blob(blob)? {
                        return Err(StoreError::BlobMissing(blob.clone()));
                    }
                }
                for (diff_id, chain_id) in record.layers.iter().zip(&chains) {
                    if !layer::exists(transaction, diff_id, Some(chain_id))? {
                        return Err(StoreError::LayerMissing(diff_id.clone()));
                    }
                }
                mica_sys::fail_point!("store.image.insert")?;
                insert(transaction, record, &chains)?;
                for blob in with.blobs {
                    transaction
                        .prepare_cached("INSERT OR IGNORE INTO image_blobs(image, digest) VALUES(?1, ?2)")?
                        .execute([record.id.to_string(), blob.to_string()])?;
                }
            }
            mica_sys::fail_point!("store.image.names")?;
            let mut previous = Vec::new();
            for name in with.names {
                let mut before = None;
                // The last one set is the one that a name leads to.
                for (position, record) in records.iter().rev().enumerate() {
                    let led_to = name::set(transaction, name, &record.id, with.target)?;
                    if position == 0 {
                        before = led_to;
                    }
                }
                previous.push(before);
            }
            for (key, record) in with.cache {
                build_cache::insert(transaction, key, record)?;
            }
            mica_sys::fail_point!("store.image.commit")?;
            Ok(previous)
        })
    }

    /// Images that need a blob besides their own documents and layers, as they need the index that they are of.
    pub fn images_with_blob(&self, digest: &Digest) -> Result<Vec<ImageId>> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT b.image FROM image_blobs AS b JOIN images AS i ON i.id=b.image
                 WHERE b.digest=?1 ORDER BY i.sequence",
            )?;
            let mut rows = statement.query([digest.to_string()])?;
            let mut images = Vec::new();
            while let Some(row) = rows.next()? {
                images.push(codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "image ID")?);
            }
            Ok(images)
        })
    }

    /// The image of that id.
    pub fn image(&self, id: &ImageId) -> Result<Option<ImageRecord>> {
        self.read(|connection| find(connection, id))
    }

    /// All images, the newest in this store first.
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        self.read(|connection| {
            let sql = format!(
                "SELECT {COLUMNS}, (SELECT count(*) FROM containers WHERE image=images.id)
                 FROM images ORDER BY sequence DESC"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([])?;
            let mut images = Vec::new();
            let mut positions = HashMap::new();
            while let Some(row) = rows.next()? {
                let record = from_row(row)?;
                positions.insert(record.id.to_string(), images.len());
                images.push(ImageSummary {
                    record,
                    names: Vec::new(),
                    other_names: Vec::new(),
                    containers_count: row.get::<_, Count>(8)?.0,
                });
            }
            let mut at = |image: &str, put: &mut dyn FnMut(&mut ImageSummary)| {
                if let Some(image) = positions.get(image).and_then(|position| images.get_mut(*position)) {
                    put(image);
                }
            };
            let mut statement = connection
                .prepare_cached("SELECT image, diff_id FROM image_layers ORDER BY image, position")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let diff_id: DiffId = codec::parse(row.get_ref(1)?.as_str().unwrap_or(""), "diff ID")?;
                at(row.get_ref(0)?.as_str().unwrap_or(""), &mut |image| {
                    image.record.layers.push(diff_id.clone())
                });
            }
            let mut statement = connection.prepare_cached("SELECT image, name FROM names ORDER BY name")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let name: String = row.get(1)?;
                at(row.get_ref(0)?.as_str().unwrap_or(""), &mut |image| image.names.push(name.clone()));
            }
            let mut statement =
                connection.prepare_cached("SELECT image, name FROM name_images ORDER BY name")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let name: String = row.get(1)?;
                at(row.get_ref(0)?.as_str().unwrap_or(""), &mut |image| image.other_names.push(name.clone()));
            }
            Ok(images)
        })
    }

    /// Removes an image and the names that lead to it (unless [`Store::remove_image_of`] was asked to lead them to another);
    /// its bytes stay until they are collected. Refused while containers stand on it. `false` if it was not there.
    pub fn remove_image(&self, id: &ImageId) -> Result<bool> {
        self.write(|transaction| {
            let users = image_users(transaction, id)?;
            if !users.is_empty() {
                return Err(StoreError::ImageInUse { id: id.clone(), users });
            }
            Ok(transaction.execute("DELETE FROM images WHERE id=?1", [id.to_string()])? > 0)
        })
    }

    /// As [`Store::remove_image`], but an image stays that a name leads to: it may have come in again a moment ago.
    pub fn remove_unnamed_image(&self, id: &ImageId) -> Result<bool> {
        self.write(|transaction| {
            let users = image_users(transaction, id)?;
            if !users.is_empty() {
                return Err(StoreError::ImageInUse { id: id.clone(), users });
            }
            let sql = "DELETE FROM images WHERE id=?1 AND NOT EXISTS(SELECT 1 FROM names WHERE image=?1)";
            Ok(transaction.execute(sql, [id.to_string()])? > 0)
        })
    }

    /// IDs of the containers that stand on the image.
    pub fn image_users(&self, id: &ImageId) -> Result<Vec<String>> {
        self.read(|connection| image_users(connection, id))
    }

    /// The image whose manifest has that digest.
    pub fn image_of_manifest(&self, manifest: &Digest) -> Result<Option<ImageId>> {
        self.read(|connection| {
            let text: Option<String> = connection
                .query_row("SELECT id FROM images WHERE manifest=?1 LIMIT 1", [manifest.to_string()], |row| {
                    row.get(0)
                })
                .optional()?;
            text.map(|text| codec::parse(&text, "image ID")).transpose()
        })
    }

    /// Images whose id begins with `prefix`, with or without `sha256:` before it; at most 16 of them.
    pub fn resolve_id_prefix(&self, prefix: &str) -> Result<Vec<ImageId>> {
        let hex = prefix.strip_prefix("sha256:").unwrap_or(prefix);
        if hex.is_empty()
            || hex.len() > 64
            || !hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        {
            return Ok(Vec::new());
        }
        self.read(|connection| {
            // `g` sorts after every hex digit.
            let mut statement =
                connection.prepare_cached("SELECT id FROM images WHERE id>=?1 AND id<?2 LIMIT 16")?;
            let mut rows = statement.query([format!("sha256:{hex}"), format!("sha256:{hex}g")])?;
            let mut ids = Vec::new();
            while let Some(row) = rows.next()? {
                ids.push(codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "image ID")?);
            }
            Ok(ids)
        })
    }
}

const COLUMNS: &str = "id, manifest, parent, created, size_bytes, architecture, os, variant";

fn from_row(row: &Row<'_>) -> Result<ImageRecord> {
    Ok(ImageRecord {
        id: codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "image ID")?,
        manifest: codec::parse(row.get_ref(1)?.as_str().unwrap_or(""), "digest")?,
        layers: Vec::new(),
        parent: codec::parse_option(row.get_ref(2)?.as_str().unwrap_or(""), "image ID")?,
        created: row.get(3)?,
        size_bytes: row.get::<_, Count>(4)?.0,
        architecture: row.get(5)?,
        os: row.get(6)?,
        variant: row.get(7)?,
    })
}

pub(crate) fn find(connection: &Connection, id: &ImageId) -> Result<Option<ImageRecord>> {
    let mut statement = connection.prepare_cached(&format!("SELECT {COLUMNS} FROM images WHERE id=?1"))?;
    let mut rows = statement.query([id.to_string()])?;
    let Some(row) = rows.next()? else { return Ok(None) };
    let mut record = from_row(row)?;
    let mut statement =
        connection.prepare_cached("SELECT diff_id FROM image_layers WHERE image=?1 ORDER BY position")?;
    let mut rows = statement.query([id.to_string()])?;
    while let Some(row) = rows.next()? {
        record.layers.push(codec::parse(row.get_ref(0)?.as_str().unwrap_or(""), "diff ID")?);
    }
    Ok(Some(record))
}

fn insert(connection: &Connection, record: &ImageRecord, chains: &[ChainId]) -> Result<()> {
    let id = record.id.to_string();
    // The config decides all of a record but the manifest: one image may be known by several over time.
    connection
        .prepare_cached(
            "INSERT INTO images(id, manifest, parent, created, size_bytes, architecture, os, variant)
             VALUES(?1,?2,?3,?4,?5,?6,?7,?8)
             ON CONFLICT(id) DO UPDATE SET manifest=?2, parent=?3, size_bytes=?5",
        )?
        .execute(params![
            id,
            record.manifest.to_string(),
            codec::text_or_empty(record.parent.as_ref()),
            record.created,
            Count(record.size_bytes),
            record.architecture,
            record.os,
            record.variant
        ])?;
    for (position, (diff_id, chain_id)) in record.layers.iter().zip(chains).enumerate() {
        connection
            .prepare_cached(
                "INSERT OR IGNORE INTO image_layers(image, position, diff_id, chain_id) VALUES(?1,?2,?3,?4)",
            )?
            .execute(params![
                id,
                i64::try_from(position).unwrap_or(i64::MAX),
                diff_id.to_string(),
                chain_id.to_string()
            ])?;
    }
    Ok(())
}

fn image_users(connection: &Connection, id: &ImageId) -> Result<Vec<String>> {
    let mut statement =
        connection.prepare_cached("SELECT id FROM containers WHERE image=?1 ORDER BY sequence")?;
    let users = statement.query_map([id.to_string()], |row| row.get(0))?;
    Ok(users.collect::<rusqlite::Result<_>>()?)
}
