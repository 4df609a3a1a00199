//! Layers on their way in: each is downloaded into a file and, at the same time, unfolded, hashed and applied from it;
//! several at once.

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use mica_layer::LayerError;
use mica_layer::verify::is_whole;
use mica_oci::{ChainId, Descriptor, DiffId, Reference};
use mica_registry_client::{Client, RegistryError};
use mica_store::{Download, Layer, Lease, PartialBlob, Store, StoreError};

use super::below::{Below, Layers};
use super::error::PullError;
use super::follow::{Follow, Progress};
use crate::apply_into_store::{IngestError, Ingested, Keep, ingest_layer};
use crate::error::ImageError;
use crate::transfer_event::{LayerState, TransferEvent, Watch};

/// Layers that come in at the same time: docker's default, and enough to keep the network busy while others are applied.
const LAYERS_AT_ONCE: usize = 3;
/// Tries of a layer whose bytes are wrong, each from its beginning. Connections that break are the client's to mend.
const TRIES_MAX: u32 = 3;
const COPY_SIZE_BYTES: usize = 256 << 10;
/// Bars need no more.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// A layer of the image that is pulled.
pub(super) struct RemoteLayer<'a> {
    pub descriptor: &'a Descriptor,
    pub diff_id: &'a DiffId,
    pub chain_id: ChainId,
}

impl RemoteLayer<'_> {
    /// Whether the store has the layer, whatever the bytes it came in.
    pub fn is_stored(&self, store: &Store) -> bool {
        matches!(store.layer(self.diff_id, Some(&self.chain_id)), Ok(Some(layer)) if layer.is_trusted)
    }
}

/// How bringing in a layer failed.
pub(super) type Failure = crate::transfer_failure::Failure<PullError>;

impl From<PullError> for Failure {
    fn from(error: PullError) -> Self {
        Failure::Own(error)
    }
}

/// Another layer has failed.
const STOPPED: Failure = Failure::Own(PullError::Stopped);

/// Brings all layers into the store that are not there. What was finished stays there when another layer fails.
pub(super) fn fetch_layers(
    store: &Store,
    client: &Client,
    lease: &Lease,
    reference: &Reference,
    layers: &[RemoteLayer<'_>],
    rootless: bool,
    watch: &Watch<'_>,
) -> Result<(), Failure> {
    let slots = Layers::new(layers.len());
    let fetch = Fetch { store, client, lease, reference, layers, rootless, watch, slots: &slots };
    let mut missing = Vec::new();
    for (position, layer) in layers.iter().enumerate() {
        match fetch.stored(layer)? {
            Some(stored) => {
                fetch.tell(position, LayerState::AlreadyExists);
                slots.done(position, stored);
            }
            None => missing.push(position),
        }
    }
    for position in &missing {
        fetch.tell(*position, LayerState::PullingFsLayer);
    }
    for position in missing.iter().skip(LAYERS_AT_ONCE) {
        fetch.tell(*position, LayerState::Waiting);
    }
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        while let Some(position) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
            if slots.any_failed() {
                return;
            }
            if let Err(failure) = fetch.layer(*position) {
                slots.failed(*position);
                failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
            }
        }
    };
    match missing.len() {
        0 => {}
        1 => work(),
        count => std::thread::scope(|scope| {
            // This thread works as well: where no other can be had, layers come one after the other.
            for _ in 1..count.min(LAYERS_AT_ONCE) {
                let _ = std::thread::Builder::new().spawn_scoped(scope, work);
            }
            work();
        }),
    }
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    // The one that stopped the others, not those that were stopped.
    match failures.into_iter().min_by_key(|failure| matches!(failure, Failure::Own(PullError::Stopped))) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

struct Fetch<'a> {
    store: &'a Store,
    client: &'a Client,
    lease: &'a Lease,
    reference: &'a Reference,
    layers: &'a [RemoteLayer<'a>],
    rootless: bool,
    watch: &'a Watch<'a>,
    slots: &'a Layers,
}

impl Fetch<'_> {
    fn tell(&self, position: usize, state: LayerState) {
        (self.watch)(TransferEvent::Layer { position, state });
    }

    /// The layer as the store has it, kept from collection.
    fn stored(&self, layer: &RemoteLayer<'_>) -> Result<Option<Layer>, Failure> {
        let stored = self.store.whole_layer(layer.diff_id, Some(&layer.chain_id), is_whole)?;
        let Some(stored) = stored else { return Ok(None) };
        let is_kept = self.lease.protect_layer(layer.diff_id, stored.record.chain_id.as_ref())?;
        Ok(is_kept.then_some(stored))
    }

    fn layer(&self, position: usize) -> Result<(), Failure> {
        let Some(layer) = self.layers.get(position) else { return Ok(()) };
        // The same layer further down: one of them is fetched, and the other taken from the store. It was begun before,
        // so this ends.
        let is_same = |other: &RemoteLayer<'_>| {
            other.descriptor.digest == layer.descriptor.digest || other.diff_id == layer.diff_id
        };
        if let Some(first) = self.layers.iter().take(position).position(is_same) {
            self.slots.wait_below(first + 1).ok_or(STOPPED)?;
            if let Some(stored) = self.stored(layer)? {
                self.slots.done(position, stored);
                self.tell(position, LayerState::AlreadyExists);
                return Ok(());
            }
        }
        let mut tries = 0;
        loop {
            tries += 1;
            match self.try_layer(position, layer) {
                // Bytes that a bad line or a bad mirror has spoilt may be right the next time.
                Err(Failure::Image(ImageError::Store(StoreError::DigestMismatch { actual, .. }))) => {
                    if tries == TRIES_MAX {
                        let digest = layer.descriptor.digest.clone();
                        return Err(PullError::BlobDigest { digest, actual, tries }.into());
                    }
                    self.tell(position, LayerState::Retrying(0));
                }
                Ok(stored) => {
                    self.slots.done(position, stored);
                    self.tell(position, LayerState::PullComplete);
                    return Ok(());
                }
                // A power cut may have spoilt the blob that was stored before: then it comes anew.
                Err(Failure::Own(_))
                    if tries < TRIES_MAX && self.store.drop_damaged_blob(&layer.descriptor.digest)? =>
                {
                    self.tell(position, LayerState::Retrying(0));
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn try_layer(&self, position: usize, layer: &RemoteLayer<'_>) -> Result<Layer, Failure> {
        let digest = &layer.descriptor.digest;
        let wait = &mut || self.tell(position, LayerState::Waiting);
        match self.store.download(digest, wait)? {
            Download::Stored => {
                // Perhaps another process has it applied already.
                if let Some(stored) = self.stored(layer)? {
                    return Ok(stored);
                }
                let size_bytes = self.store.blob_size_bytes(digest)?.unwrap_or_default();
                check_size(layer.descriptor, size_bytes)?;
                self.lease.protect_blob(digest)?;
                let follow = Follow {
                    file: self.store.open_blob(digest)?,
                    progress: Arc::new(Progress::whole(size_bytes)),
                    position: 0,
                };
                self.apply_while(position, layer, follow, |_| Ok(()))
            }
            Download::Partial(mut partial) => {
                if partial.size_bytes() > layer.descriptor.size {
                    partial.restart()?;
                }
                let progress = Arc::new(Progress::default());
                progress.advance(partial.size_bytes());
                let follow = Follow { file: partial.reader()?, progress: Arc::clone(&progress), position: 0 };
                self.apply_while(position, layer, follow, |is_hopeless| {
                    let fetched = self.fetch(position, layer, partial, &progress, is_hopeless);
                    // Only now does the applying side see the end of the stream.
                    if fetched.is_ok() {
                        progress.verified()
                    } else {
                        progress.broken()
                    }
                    fetched
                })
            }
        }
    }

    /// Applies the bytes of `follow` in another thread while `fetch` brings them in in this one, then commits the layer.
    fn apply_while(
        &self,
        position: usize,
        layer: &RemoteLayer<'_>,
        follow: Follow<Arc<Progress>>,
        fetch: impl FnOnce(&dyn Fn() -> bool) -> Result<(), Failure>,
    ) -> Result<Layer, Failure> {
        let progress = Arc::clone(&follow.progress);
        let is_in_vain = AtomicBool::new(false);
        let (applied, fetched) = std::thread::scope(|scope| {
            let (working, ended) = channel::<()>();
            let is_in_vain = &is_in_vain;
            let applying = std::thread::Builder::new().spawn_scoped(scope, move || {
                let _working = working;
                let below = Below::new(self.slots, position);
                let mapping = crate::mapping(self.rootless);
                let applied = ingest_layer(self.store, follow, &below, mapping, Keep::Nothing);
                if let Err(error) = &applied {
                    is_in_vain.store(!may_be_the_line(error), Ordering::Relaxed);
                }
                applied
            });
            let applying = match applying {
                Ok(applying) => applying,
                Err(error) => {
                    is_in_vain.store(true, Ordering::Relaxed);
                    return (Ok(Err(IngestError::Layer(error.into()))), Err(STOPPED));
                }
            };
            let fetched = fetch(&|| is_in_vain.load(Ordering::Relaxed) || self.slots.any_failed());
            if fetched.is_ok() {
                // The other end is dropped when the layer is applied.
                while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(TELL_EVERY) {
                    self.tell(position, LayerState::Extracting(progress.read_bytes(), layer.descriptor.size));
                }
            }
            (applying.join(), fetched)
        });
        let applied = applied.unwrap_or_else(|_| {
            Err(IngestError::Layer(LayerError::from(io::Error::other("the applying thread stopped"))))
        });
        match (fetched, applied) {
            (Ok(()), Ok(ingested)) => self.commit(position, layer, ingested),
            (Ok(()), Err(error)) => Err(self.unapplied(position, error)),
            (Err(_), Err(error)) if is_in_vain.into_inner() => Err(self.unapplied(position, error)),
            (Err(failure), _) => Err(failure),
        }
    }

    /// Fetches what is not there of a blob, and makes it visible once it is whole and matches its digest.
    fn fetch(
        &self,
        position: usize,
        layer: &RemoteLayer<'_>,
        mut partial: PartialBlob,
        progress: &Progress,
        is_hopeless: &dyn Fn() -> bool,
    ) -> Result<(), Failure> {
        let descriptor = layer.descriptor;
        let mut host = None;
        if partial.size_bytes() < descriptor.size {
            let broken = |source| PullError::Broken { digest: descriptor.digest.clone(), source };
            let mut reader = self.client.blob(self.reference, descriptor, partial.size_bytes())?;
            host = Some(reader.host());
            let mut buffer = vec![0; COPY_SIZE_BYTES];
            let mut told = Instant::now();
            self.tell(position, LayerState::Downloading(partial.size_bytes(), descriptor.size));
            loop {
                let count = match reader.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(count) => count,
                    Err(error) => return Err(registry_or(error, broken)),
                };
                let path = self.store.blob_path(&descriptor.digest);
                partial
                    .write_all(buffer.get(..count).unwrap_or_default())
                    .map_err(|source| mica_sys::Error::new("write", path, source))?;
                progress.advance(partial.size_bytes());
                if told.elapsed() >= TELL_EVERY {
                    self.tell(position, LayerState::Downloading(partial.size_bytes(), descriptor.size));
                    told = Instant::now();
                }
                // What is there is kept for the next try.
                if is_hopeless() && partial.size_bytes() < descriptor.size {
                    return Err(STOPPED);
                }
            }
        }
        check_size(descriptor, partial.size_bytes())?;
        partial.finish().inspect_err(|error| {
            if let (StoreError::DigestMismatch { expected, actual }, Some(host)) = (error, &host) {
                self.client.distrust(self.reference, host, expected, actual);
            }
        })?;
        self.tell(position, LayerState::DownloadComplete);
        self.lease.protect_blob(&descriptor.digest)?;
        Ok(())
    }

    fn commit(&self, position: usize, layer: &RemoteLayer<'_>, ingested: Ingested) -> Result<Layer, Failure> {
        let actual = ingested.diff_id();
        if actual != *layer.diff_id {
            return Err(PullError::LayerDigest {
                position: position + 1,
                count: self.layers.len(),
                digest: layer.descriptor.digest.clone(),
                expected: layer.diff_id.clone(),
                actual,
            }
            .into());
        }
        let origin = (layer.descriptor.digest.clone(), layer.descriptor.media_type.clone());
        Ok(ingested.commit_of_blob(self.store, &layer.chain_id, origin)?)
    }

    fn unapplied(&self, position: usize, error: IngestError) -> Failure {
        let Some(layer) = self.layers.get(position) else { return STOPPED };
        match error {
            IngestError::Other(error) => Failure::Image(error),
            // It may have failed for want of a layer below.
            IngestError::Layer(_) if self.slots.any_failed() => STOPPED,
            IngestError::Layer(source) => PullError::Layer {
                position: position + 1,
                count: self.layers.len(),
                digest: layer.descriptor.digest.clone(),
                source,
            }
            .into(),
        }
    }
}

/// Whether a layer may be unreadable only because its bytes were spoilt on their way: the digest will tell, at the end.
fn may_be_the_line(error: &IngestError) -> bool {
    !matches!(
        error,
        IngestError::Other(_) | IngestError::Layer(LayerError::Bomb(_) | LayerError::Write { .. })
    )
}

/// Errors of a blob's stream that the client raised keep their facts.
fn registry_or(error: io::Error, broken: impl FnOnce(io::Error) -> PullError) -> Failure {
    match error.downcast::<RegistryError>() {
        Ok(error) => error.into(),
        Err(error) => Failure::Own(broken(error)),
    }
}

fn check_size(descriptor: &Descriptor, actual: u64) -> Result<(), Failure> {
    if actual == descriptor.size {
        return Ok(());
    }
    let (digest, expected) = (descriptor.digest.clone(), descriptor.size);
    Err(PullError::BlobSize { digest, expected, actual }.into())
}
