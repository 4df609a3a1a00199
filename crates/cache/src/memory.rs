//! A place in memory, for tests: what it holds can be altered.

use std::any::Any;
use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::{Mutex, MutexGuard, PoisonError};

use mica_oci::{Descriptor, Digest, Manifest};
use mica_registry_client::Content;

use crate::error::{CacheError, Result};
use crate::place::Place;

/// A place in memory, for tests.
#[derive(Debug, Default)]
pub struct MemoryPlace {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    root: Option<Vec<u8>>,
    blobs: BTreeMap<Digest, Vec<u8>>,
    puts: usize,
}

impl MemoryPlace {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The manifest.
    pub fn manifest(&self) -> Option<Vec<u8>> {
        self.lock().root.clone()
    }

    /// Puts another manifest there, whatever it is.
    pub fn set_manifest(&self, bytes: &[u8]) {
        self.lock().root = Some(bytes.to_vec());
    }

    /// Digests of all blobs.
    pub fn blobs(&self) -> Vec<Digest> {
        self.lock().blobs.keys().cloned().collect()
    }

    /// The bytes under a digest.
    pub fn blob(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.lock().blobs.get(digest).cloned()
    }

    /// Puts bytes under a digest, whatever they are; `None` takes them away.
    pub fn set_blob(&self, digest: &Digest, bytes: Option<Vec<u8>>) {
        match bytes {
            Some(bytes) => self.lock().blobs.insert(digest.clone(), bytes),
            None => self.lock().blobs.remove(digest),
        };
    }

    /// How many blobs were written.
    pub fn puts(&self) -> usize {
        self.lock().puts
    }
}

impl Place for MemoryPlace {
    fn name(&self) -> &str {
        "memory"
    }

    fn document(&self, child: Option<&Descriptor>) -> Result<Option<Vec<u8>>> {
        let state = self.lock();
        Ok(match child {
            Some(child) => state.blobs.get(&child.digest).cloned(),
            None => state.root.clone(),
        })
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        match self.blob(&blob.digest) {
            Some(bytes) => Ok(Box::new(Cursor::new(bytes))),
            None => Err(CacheError::BlobMissing { digest: blob.digest.clone() }),
        }
    }

    fn begin(&self) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        Ok(self.lock().blobs.contains_key(&blob.digest))
    }

    fn put(&self, blob: &Descriptor, content: &dyn Content) -> Result<()> {
        let failed = |source: io::Error| CacheError::Io { what: "cannot read a blob", source };
        let mut bytes = Vec::new();
        content.open(0).map_err(failed)?.read_to_end(&mut bytes).map_err(failed)?;
        let mut state = self.lock();
        state.puts += 1;
        state.blobs.insert(blob.digest.clone(), bytes);
        Ok(())
    }

    fn publish(&self, manifest: &Manifest) -> Result<()> {
        self.set_manifest(&manifest.to_canonical_json());
        Ok(())
    }
}
