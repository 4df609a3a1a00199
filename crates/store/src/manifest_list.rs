//! Manifest lists that are being put together (`mica manifest create`), until they are pushed or removed.

use crate::error::{Result, StoreError};
use crate::store::Store;
use rusqlite::OptionalExtension;

/// As large as registries take a manifest.
const DOCUMENT_BYTES_MAX: usize = 4 << 20;

impl Store {
    /// Keeps the document of a list under a canonical reference, in place of the one that was there.
    pub fn put_manifest_list(&self, name: &str, document: &[u8]) -> Result<()> {
        if name.is_empty() {
            return Err(StoreError::InvalidName { what: "reference", value: name.to_owned() });
        }
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(StoreError::RecordTooLarge {
                what: "the documents of a manifest list",
                size_bytes: document.len() as u64,
                size_bytes_max: DOCUMENT_BYTES_MAX as u64,
            });
        }
        self.write(|transaction| {
            mica_sys::fail_point!("store.manifest_list.put")?;
            transaction
                .prepare_cached("INSERT OR REPLACE INTO manifest_lists(name, document) VALUES(?1, ?2)")?
                .execute((name, document))?;
            Ok(())
        })
    }

    /// The document of a list.
    pub fn manifest_list(&self, name: &str) -> Result<Option<Vec<u8>>> {
        self.read(|connection| {
            Ok(connection
                .prepare_cached("SELECT document FROM manifest_lists WHERE name=?1")?
                .query_row([name], |row| row.get(0))
                .optional()?)
        })
    }

    /// Removes a list; `false` if it was not there.
    pub fn remove_manifest_list(&self, name: &str) -> Result<bool> {
        self.write(|transaction| {
            Ok(transaction.execute("DELETE FROM manifest_lists WHERE name=?1", [name])? > 0)
        })
    }
}
