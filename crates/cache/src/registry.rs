//! A cache in a registry: a tag of a repository, or an image that carries the results of its own steps.

use std::any::Any;
use std::collections::HashMap;
use std::io::Read;
use std::sync::{Mutex, OnceLock, PoisonError};

use mica_oci::{Descriptor, Digest, MANIFEST_SIZE_BYTES_MAX, Manifest, Reference};
use mica_registry_client::{Client, Content, Mounted, RegistryError, UploadWatch};
use mica_store::Store;

use crate::error::{CacheError, Result};
use crate::place::Place;

/// Repositories that are asked for a blob: each one that does not have it costs a request and leaves an upload behind.
const MOUNTS_MAX: usize = 3;

/// Makes the client when the registry is asked for the first time.
pub type MakeClient = dyn Fn() -> std::result::Result<Client, RegistryError> + Send + Sync;

/// A cache in a registry.
pub struct RegistryPlace {
    name: String,
    reference: Reference,
    make: Box<MakeClient>,
    client: OnceLock<Client>,
    /// Knows which repositories of the registry have a blob.
    store: Store,
    /// Uploads that the wish for a mount has opened.
    uploads: Mutex<HashMap<Digest, String>>,
}

impl RegistryPlace {
    /// The cache of that name, which has a tag or a digest.
    pub fn new(reference: &Reference, store: &Store, make: Box<MakeClient>) -> Self {
        let reference = reference.with_default_tag();
        Self {
            name: format!("registry:{}", reference.familiar()),
            reference,
            make,
            client: OnceLock::new(),
            store: store.clone(),
            uploads: Mutex::default(),
        }
    }

    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = (self.make)()?;
        Ok(self.client.get_or_init(|| client))
    }

    fn uploads(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, String>> {
        self.uploads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers that the repository has a blob: a push of the image mounts it from here.
    fn note(&self, digest: &Digest) -> Result<()> {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        Ok(self.store.put_blob_source(digest, registry, repository)?)
    }

    /// Takes a blob from another repository of the registry.
    fn mount(&self, digest: &Digest) -> Result<bool> {
        let sources = self.store.blob_sources(digest, self.reference.registry())?;
        let others = sources.iter().filter(|source| *source != self.reference.repository());
        for source in others.take(MOUNTS_MAX) {
            match self.client()?.mount_blob(&self.reference, digest, source)? {
                Mounted::Yes => return Ok(true),
                Mounted::Upload(location) => {
                    self.uploads().insert(digest.clone(), location);
                }
                Mounted::No => {}
            }
            self.store.remove_blob_source(digest, self.reference.registry(), source)?;
        }
        Ok(false)
    }
}

struct NobodyWatches;

impl UploadWatch for NobodyWatches {
    fn sent(&self, _: u64) {}
    fn resumable(&self, _: Option<&str>) {}
}

impl Place for RegistryPlace {
    fn name(&self) -> &str {
        &self.name
    }

    fn document(&self, child: Option<&Descriptor>) -> Result<Option<Vec<u8>>> {
        let reference = match child {
            Some(child) if child.size > MANIFEST_SIZE_BYTES_MAX => {
                let size_bytes_max = MANIFEST_SIZE_BYTES_MAX;
                return Err(CacheError::TooLarge { what: "a document", size_bytes_max });
            }
            Some(child) => self.reference.name_only().with_digest(child.digest.clone()),
            None => self.reference.resolvable(),
        };
        match self.client()?.manifest(&reference) {
            Ok(fetched) => Ok(Some(fetched.bytes)),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        // What another one says of where it is may lead to places that the user never named.
        let blob = Descriptor::new(&blob.media_type, blob.digest.clone(), blob.size);
        match self.client()?.blob(&self.reference, &blob, 0) {
            Ok(reader) => Ok(Box::new(reader)),
            Err(RegistryError::NotFound { .. }) => Err(CacheError::BlobMissing { digest: blob.digest }),
            Err(error) => Err(error.into()),
        }
    }

    fn begin(&self) -> Result<Box<dyn Any + Send>> {
        Ok(Box::new(()))
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        let has = self.client()?.has_blob(&self.reference, &blob.digest)? || self.mount(&blob.digest)?;
        if has {
            self.note(&blob.digest)?;
        }
        Ok(has)
    }

    fn put(&self, blob: &Descriptor, content: &dyn Content) -> Result<()> {
        let begun = self.uploads().remove(&blob.digest);
        self.client()?.upload_blob(&self.reference, blob, content, begun.as_deref(), &NobodyWatches)?;
        self.note(&blob.digest)
    }

    fn publish(&self, manifest: &Manifest) -> Result<()> {
        let bytes = manifest.to_canonical_json();
        self.client()?.put_manifest(&self.reference, manifest.media_type(), &bytes)?;
        Ok(())
    }
}
