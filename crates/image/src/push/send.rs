//! Blobs on their way out, several at once: asked for, mounted, or sent.

use std::fs::File;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mica_layer::encode::{Algorithm, Form};
use mica_oci::{Descriptor, DiffId, Digest, Reference};
use mica_registry_client::{Client, Mounted, UploadWatch};
use mica_store::{CompressedForm, Lease, Store};

use super::bytes::{FileContent, Written, write};
use super::error::PushError;
use super::plan::{Bytes, Part, Plain};
use crate::transfer_event::{LayerState, TransferEvent, Watch};

/// Uploads at the same time: docker's default.
const UPLOADS_AT_ONCE: usize = 5;
/// Repositories that are asked for a blob: each one that does not have it costs a request and leaves an upload behind.
const MOUNTS_MAX: usize = 3;
/// Bars need no more.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// How sending a blob failed.
pub(crate) type Failure = crate::transfer_failure::Failure<PushError>;

impl From<PushError> for Failure {
    fn from(error: PushError) -> Self {
        Failure::Own(error)
    }
}

/// What all blobs of a push share.
pub(crate) struct Send<'a> {
    pub store: &'a Store,
    pub client: &'a Client,
    pub lease: &'a Lease,
    /// Where they go; only registry and repository count.
    pub reference: &'a Reference,
    pub watch: &'a Watch<'a>,
    stop: Arc<AtomicBool>,
    /// One layer at a time is compressed, on all cores, while others are sent.
    compressing: Mutex<()>,
}

impl<'a> Send<'a> {
    pub fn new(
        store: &'a Store,
        client: &'a Client,
        lease: &'a Lease,
        reference: &'a Reference,
        watch: &'a Watch<'a>,
    ) -> Self {
        let (stop, compressing) = (Arc::default(), Mutex::new(()));
        Send { store, client, lease, reference, watch, stop, compressing }
    }

    /// Brings all layers to the registry, the lower ones first. Answers their descriptors, in order.
    pub fn layers(&self, parts: &[Part]) -> Result<Vec<Descriptor>, Failure> {
        if parts.is_empty() {
            return Ok(Vec::new());
        }
        // As docker shows them: the topmost first.
        let shown = |position: usize| parts.len() - 1 - position;
        (self.watch)(TransferEvent::Layers(parts.iter().rev().map(Part::shown).collect()));
        for position in 0..parts.len() {
            self.tell(Some(position), LayerState::Preparing);
        }
        for position in UPLOADS_AT_ONCE..parts.len() {
            self.tell(Some(shown(position)), LayerState::Waiting);
        }
        let next = AtomicUsize::new(0);
        let done = Mutex::new(vec![None; parts.len()]);
        let failure = Mutex::new(None);
        let work = || {
            loop {
                let position = next.fetch_add(1, Ordering::Relaxed);
                let Some(part) = parts.get(position).filter(|_| !self.stop.load(Ordering::Relaxed)) else {
                    return;
                };
                match self.part(Some(shown(position)), part) {
                    Ok(descriptor) => {
                        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                        if let Some(place) = done.get_mut(position) {
                            *place = Some(descriptor);
                        }
                    }
                    Err(error) => {
                        // The first is told; what follows are those that it stopped.
                        failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        self.stop.store(true, Ordering::Relaxed);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..parts.len().min(UPLOADS_AT_ONCE) {
                // Where no thread can be had, the others do its work.
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        });
        if let Some(failure) = failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.into_iter().collect::<Option<_>>().ok_or(Failure::Own(PushError::Stopped))
    }

    /// Brings one blob to the registry. Answers its descriptor, whose digest may have been unknown before.
    pub fn part(&self, position: Option<usize>, part: &Part) -> Result<Descriptor, Failure> {
        let mut descriptor = part.descriptor.clone();
        let (plain, form) = match &part.bytes {
            Bytes::Foreign => {
                self.tell(position, LayerState::SkippedForeign);
                return Ok(descriptor);
            }
            // The plan has asked already.
            Bytes::Absent => {
                self.tell(position, LayerState::LayerAlreadyExists);
                return Ok(descriptor);
            }
            Bytes::Blob => {
                self.lease.protect_blob(&descriptor.digest)?;
                if let Asked::Send(location) = self.ask(position, &descriptor)? {
                    let file = Arc::new(self.store.open_blob(&descriptor.digest)?);
                    self.upload(position, &descriptor, file, location)?;
                }
                return Ok(descriptor);
            }
            Bytes::Written(written) => {
                if let Asked::Send(location) = self.ask(position, &descriptor)? {
                    self.upload(position, &descriptor, Arc::clone(&written.file), location)?;
                }
                return Ok(descriptor);
            }
            Bytes::Tar(plain) => (plain, Form::of(Algorithm::Uncompressed)),
            Bytes::Compressed(plain, form) => (plain, *form),
        };
        self.protect(plain)?;
        let diff_id = part.diff_id.clone().unwrap_or_else(|| DiffId(descriptor.digest.clone()));
        let mut location = None;
        if !part.is_unknown {
            match self.ask(position, &descriptor)? {
                Asked::IsThere => return Ok(descriptor),
                Asked::Send(opened) => location = opened,
            }
        }
        let written = self.write(position, &diff_id, plain, form)?;
        if part.is_unknown {
            descriptor.digest = written.digest.clone();
            descriptor.size = written.size_bytes;
            match self.ask(position, &descriptor)? {
                Asked::IsThere => return Ok(descriptor),
                Asked::Send(opened) => location = opened,
            }
        } else if written.digest != descriptor.digest {
            return Err(PushError::OtherBytes { digest: diff_id.0 }.into());
        }
        self.upload(position, &descriptor, Arc::clone(&written.file), location)?;
        Ok(descriptor)
    }

    fn tell(&self, position: Option<usize>, state: LayerState) {
        if let Some(position) = position {
            (self.watch)(TransferEvent::Layer { position, state });
        }
    }

    fn protect(&self, plain: &Plain) -> Result<(), Failure> {
        match plain {
            Plain::Tree(layer) => {
                self.lease.protect_layer(&layer.record.diff_id, layer.record.chain_id.as_ref())?;
            }
            Plain::Blob(digest) => {
                self.lease.protect_blob(digest)?;
            }
        }
        Ok(())
    }

    fn write(
        &self,
        position: Option<usize>,
        diff_id: &DiffId,
        plain: &Plain,
        form: Form,
    ) -> Result<Written, Failure> {
        let _turn = self.compressing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.stop.load(Ordering::Relaxed) {
            return Err(PushError::Stopped.into());
        }
        let is_compressed = form.algorithm() != Algorithm::Uncompressed;
        let mut told = Instant::now();
        let mut watch = |done: u64, all: u64| {
            if is_compressed && told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                self.tell(position, LayerState::Compressing(done, all));
            }
            !self.stop.load(Ordering::Relaxed)
        };
        let written = write(self.store, diff_id, plain, form, &mut watch)?;
        if is_compressed {
            let made = CompressedForm { digest: written.digest.clone(), size_bytes: written.size_bytes };
            self.store.put_compressed_form(diff_id, &form.name(), &made)?;
        }
        Ok(written)
    }

    /// Whether the registry has the blob now, perhaps from another of its repositories.
    pub fn has(&self, descriptor: &Descriptor) -> Result<bool, Failure> {
        Ok(matches!(self.ask(None, descriptor)?, Asked::IsThere))
    }

    /// Whether the registry has the blob, or can take it from another of its repositories.
    fn ask(&self, position: Option<usize>, descriptor: &Descriptor) -> Result<Asked, Failure> {
        let (registry, repository) = (self.reference.registry(), self.reference.repository());
        let digest = &descriptor.digest;
        if self.client.has_blob(self.reference, digest)? {
            self.tell(position, LayerState::LayerAlreadyExists);
            self.is_there(digest)?;
            return Ok(Asked::IsThere);
        }
        // What we knew is no longer so.
        self.store.remove_blob_source(digest, registry, repository)?;
        let mut location = None;
        let sources = self.store.blob_sources(digest, registry)?;
        for source in sources.iter().filter(|source| *source != repository).take(MOUNTS_MAX) {
            match self.client.mount_blob(self.reference, digest, source)? {
                Mounted::Yes => {
                    self.tell(position, LayerState::MountedFrom(source.clone()));
                    self.is_there(digest)?;
                    return Ok(Asked::IsThere);
                }
                Mounted::Upload(opened) => location = Some(opened),
                Mounted::No => {}
            }
            self.store.remove_blob_source(digest, registry, source)?;
        }
        // One that was begun before may have bytes already; one that was opened just now has none.
        Ok(Asked::Send(self.store.upload(registry, repository, digest)?.or(location)))
    }

    fn is_there(&self, digest: &Digest) -> Result<(), Failure> {
        Ok(self.store.put_blob_source(digest, self.reference.registry(), self.reference.repository())?)
    }

    fn upload(
        &self,
        position: Option<usize>,
        descriptor: &Descriptor,
        file: Arc<File>,
        location: Option<String>,
    ) -> Result<(), Failure> {
        let content = FileContent { file, stop: Arc::clone(&self.stop) };
        let told = Mutex::new(None);
        let watch = Uploading { send: self, position, descriptor, told };
        self.tell(position, LayerState::Pushing(0, descriptor.size));
        self.client.upload_blob(self.reference, descriptor, &content, location.as_deref(), &watch)?;
        self.tell(position, LayerState::Pushed);
        self.is_there(&descriptor.digest)
    }
}

enum Asked {
    /// Nothing is to be done.
    IsThere,
    /// It must be sent, perhaps into an upload that is open already.
    Send(Option<String>),
}

struct Uploading<'a> {
    send: &'a Send<'a>,
    position: Option<usize>,
    descriptor: &'a Descriptor,
    told: Mutex<Option<Instant>>,
}

impl UploadWatch for Uploading<'_> {
    fn sent(&self, bytes: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|told| told.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            drop(told);
            self.send.tell(self.position, LayerState::Pushing(bytes, self.descriptor.size));
        }
    }

    fn resumable(&self, location: Option<&str>) {
        let (registry, repository) = (self.send.reference.registry(), self.send.reference.repository());
        // Without it the next try begins at the start: no reason to fail.
        let _ = self.send.store.set_upload(registry, repository, &self.descriptor.digest, location);
    }
}
