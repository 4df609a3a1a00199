//! Leases: what a running job made or is about to use is not collected.
//!
//! A lease is a locked file in `ingest/`; it ends when it is dropped or its process dies. While any lease is
//! alive, collection keeps all that was stored since the oldest began; what was there before and is only used
//! is named to it with [`Lease::protect_layers`] and [`Lease::protect_blob`].

use crate::codec;
use crate::error::Result;
use crate::layer;
use crate::store::Store;
use mica_oci::{ChainId, DiffId, Digest};
use mica_sys::atomic_file::random_hex;
use mica_sys::lock::{Lock, Sharing};
use rusqlite::Connection;

/// A promise that collection keeps, until it is dropped.
#[derive(Debug)]
pub struct Lease {
    store: Store,
    name: String,
    lock: Lock,
}

impl Store {
    /// Begins a lease. Take it before the first look at what is stored.
    pub fn lease(&self) -> Result<Lease> {
        let name = format!("lease-{}", random_hex(8)?);
        let lock = Lock::file(self.layout().ingest().join(&name), Sharing::Exclusive)?;
        Ok(Lease { store: self.clone(), name, lock })
    }
}

impl Lease {
    /// Keeps a layer; `false` if it is not there (any more).
    pub fn protect_layer(&self, diff_id: &DiffId, chain: Option<&ChainId>) -> Result<bool> {
        self.protect_layers(&[(diff_id, chain)])
    }

    /// Keeps several layers with one write; `false` if any of them is not there.
    pub fn protect_layers(&self, layers: &[(&DiffId, Option<&ChainId>)]) -> Result<bool> {
        self.store.write(|transaction| {
            let mut all = true;
            for (diff_id, chain) in layers {
                if layer::exists_exactly(transaction, diff_id, *chain)? {
                    self.protect(transaction, "layer", &codec::layer_directory(diff_id, *chain))?;
                } else {
                    all = false;
                }
            }
            Ok(all)
        })
    }

    /// Keeps a blob; `false` if it is not there (any more).
    pub fn protect_blob(&self, digest: &Digest) -> Result<bool> {
        self.store.write(|transaction| {
            self.protect(transaction, "blob", &digest.to_string())?;
            self.store.has_blob(digest)
        })
    }

    fn protect(&self, connection: &Connection, kind: &str, object: &str) -> Result<()> {
        connection
            .prepare_cached("INSERT OR IGNORE INTO protections(lease, kind, object) VALUES(?1,?2,?3)")?
            .execute([&self.name, kind, object])?;
        Ok(())
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Its rows mean nothing without the file; the next collection removes them.
        let _ = rustix::fs::unlink(self.lock.path());
    }
}
