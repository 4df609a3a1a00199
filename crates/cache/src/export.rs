//! Results of a build go to a place.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use mica_layer::encode::FORM;
use mica_layer::encode::{Algorithm, Form};
use mica_layer::verify::is_whole;
use mica_oci::{ChainId, Descriptor, DiffId, Digest, Manifest, media_type};
use mica_store::{CompressedForm, Layer, Store};
use mica_sys::error::ErrorAt;
use mica_tree::Index;

use crate::config::{self, ARTIFACT_TYPE, CONFIG_MEDIA_TYPE, Config, Key, Step, VERSION};
use crate::error::{CacheError, Result};
use crate::import::{Imports, is_layer};
use crate::incoming::unsaid;
use crate::mounts;
use crate::outgoing::{self, BytesContent, FileContent};
use crate::parallel;
use crate::part::{self, EMBEDDED_BYTES_MAX};
use crate::place::Place;

/// Which results go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Those whose layers are in the image.
    #[default]
    Min,
    /// Those of all steps of the build.
    Max,
}

/// How an export is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExportOptions {
    /// Which results go.
    pub mode: Mode,
    /// How layers are compressed.
    pub form: Form,
    /// Docker's media types instead of OCI's.
    pub docker_media_types: bool,
    /// Threads that compress.
    pub threads: usize,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self {
            mode: Mode::Min,
            form: Form::default(),
            docker_media_types: false,
            threads: std::thread::available_parallelism().map_or(1, |count| count.get()),
        }
    }
}

impl ExportOptions {
    pub(crate) fn media_type(&self) -> &'static str {
        match (self.form.algorithm(), self.docker_media_types) {
            (Algorithm::Gzip, false) => media_type::OCI_LAYER_GZIP,
            (Algorithm::Zstd, false) => media_type::OCI_LAYER_ZSTD,
            (Algorithm::Uncompressed, false) => media_type::OCI_LAYER,
            (Algorithm::Gzip, true) => media_type::DOCKER_LAYER_GZIP,
            (Algorithm::Zstd, true) => media_type::DOCKER_LAYER_ZSTD,
            (Algorithm::Uncompressed, true) => media_type::DOCKER_LAYER,
        }
    }
}

/// A result as the store has it.
#[derive(Debug, Clone)]
pub struct ExportedStep {
    /// The step on just its layers.
    pub exact: Option<[u8; 32]>,
    /// The step alone.
    pub record: Option<[u8; 32]>,
    /// The instruction.
    pub family: [u8; 32],
    /// The instruction and what it copies, without contents.
    pub shape: [u8; 32],
    /// The layer it made.
    pub diff_id: DiffId,
    /// Set if the layer is kept per chain.
    pub chain_id: Option<ChainId>,
    /// When it was made, seconds since 1970.
    pub made_unix_s: i64,
    /// Its time in images.
    pub created_seconds: i64,
    /// Whether it opened an IPv4 or IPv6 socket; `None` when nobody looked.
    pub network: Option<bool>,
    /// What the build notes of it, as JSON.
    pub facts: Option<Vec<u8>>,
    /// What it used: the number of its record in the store.
    pub inputs: Option<i64>,
    /// Its layer is in the image.
    pub is_in_image: bool,
}

/// What an export did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exported {
    /// Results.
    pub steps: usize,
    /// Blobs that the place did not have.
    pub sent: usize,
    /// Their bytes.
    pub sent_bytes: u64,
}

/// Writes results to a place, and the contents of these cache mounts. `known` are caches that the same build has read: what they have need not be compressed again.
pub fn export(
    place: &dyn Place,
    store: &Store,
    steps: &[ExportedStep],
    mounts: &[String],
    known: &Imports,
    options: &ExportOptions,
) -> Result<Exported> {
    let lease = store.lease()?;
    let guard = place.begin()?;
    let exporter = Exporter { place, store, known, options, exported: Mutex::default() };
    // Each layer once.
    let (mut layers, mut wanted): (Vec<&ExportedStep>, Vec<(&ExportedStep, usize)>) = Default::default();
    for step in steps.iter().filter(|step| options.mode == Mode::Max || step.is_in_image) {
        let known = layers.iter().position(|layer| layer.diff_id == step.diff_id);
        // Pruned since it was made: the other results are of use without it.
        if known.is_none() && !lease.protect_layer(&step.diff_id, step.chain_id.as_ref())? {
            continue;
        }
        wanted.push((step, known.unwrap_or(layers.len())));
        if known.is_none() {
            layers.push(step);
        }
    }
    let sent = parallel::for_each(&layers, |step| exporter.layer(step))?;
    let mut config = Config { version: VERSION, steps: Vec::new(), layers: Vec::new(), mounts: Vec::new() };
    let mut parts = Parts::new(EMBEDDED_BYTES_MAX);
    let mut positions = Vec::new();
    for found in sent {
        positions.push(found.is_some().then_some(config.layers.len()));
        if let Some(found) = found {
            config.layers.push(parts.layer(found, true)?);
        }
    }
    for (step, layer) in wanted {
        let Some(layer) = positions.get(layer).copied().flatten() else { continue };
        let step = parts.step(store, step, layer)?;
        if !config.steps.contains(&step) {
            config.steps.push(step);
        }
    }
    for id in mounts {
        config.mounts.extend(exporter.mount(id)?);
    }
    parallel::for_each(&parts.blobs, |(blob, bytes)| exporter.put_bytes(blob, bytes))?;
    let manifest = exporter.manifest(&config)?;
    place.publish(&manifest)?;
    let mut exported = *exporter.exported.lock().unwrap_or_else(PoisonError::into_inner);
    exported.steps = config.steps.len();
    drop(guard);
    place.tidy()?;
    Ok(exported)
}

/// A layer that is there, and its index.
pub(crate) struct Sent {
    pub diff_id: DiffId,
    pub tar_size_bytes: u64,
    pub blob: Option<Descriptor>,
    pub index: Index,
    pub encoded: Vec<u8>,
}

/// Small things on their way into a config, or beside it.
pub(crate) struct Parts {
    embedded_bytes_max: usize,
    /// Those that stand outside, with their bytes; each once.
    blobs: Vec<(Descriptor, Arc<[u8]>)>,
}

impl Parts {
    pub fn new(embedded_bytes_max: usize) -> Self {
        Self { embedded_bytes_max, blobs: Vec::new() }
    }

    fn part(&mut self, bytes: &[u8]) -> Result<config::Part> {
        let (part, blob) = part::fold(bytes, self.embedded_bytes_max)?;
        if let Some(blob) = blob
            && !self.blobs.iter().any(|(known, _)| known.digest == part.blob.digest)
        {
            self.blobs.push((part.blob.clone(), blob.into()));
        }
        Ok(part)
    }

    /// What is said of a layer; `whole`: with its index.
    pub fn layer(&mut self, sent: Sent, whole: bool) -> Result<config::Layer> {
        Ok(config::Layer {
            diff_id: sent.diff_id,
            tar_size: sent.tar_size_bytes,
            blob: sent.blob,
            unsaid: self.part(&unsaid(&sent.index).encode())?,
            index_digest: Digest::sha256(&sent.encoded),
            index: if whole { Some(self.part(&sent.encoded)?) } else { None },
        })
    }

    /// What is said of a result.
    pub fn step(&mut self, store: &Store, step: &ExportedStep, layer: usize) -> Result<Step> {
        let inputs = match step.inputs {
            Some(id) => store.step_inputs(id)?,
            None => None,
        };
        let inputs = match inputs.filter(|inputs| !inputs.is_empty()) {
            Some(inputs) => Some(self.part(&inputs)?),
            None => None,
        };
        Ok(Step {
            exact: step.exact.map(Key),
            record: step.record.map(Key),
            family: Key(step.family),
            shape: Key(step.shape),
            layer,
            made: step.made_unix_s,
            created: step.created_seconds,
            network: step.network,
            facts: step.facts.as_ref().and_then(|facts| serde_json::from_slice(facts).ok()),
            inputs,
        })
    }
}

/// A stored layer with its index; `None` if the store lost it.
pub(crate) fn stored(store: &Store, step: &ExportedStep) -> Result<Option<(Layer, Index, Vec<u8>)>> {
    let found = store.whole_layer(&step.diff_id, step.chain_id.as_ref(), is_whole)?;
    // One that depends on what is below it could not be stacked on anything else.
    let Some(layer) = found.filter(|layer| layer.record.chain_id.is_none()) else { return Ok(None) };
    let path = layer.index_path();
    let encoded = std::fs::read(&path).at("open", &path)?;
    let index = Index::decode(&encoded)
        .map_err(|error| CacheError::Malformed { what: "the index of a layer", reason: error.to_string() })?;
    Ok(Some((layer, index, encoded)))
}

struct Exporter<'a> {
    place: &'a dyn Place,
    store: &'a Store,
    known: &'a Imports,
    options: &'a ExportOptions,
    exported: Mutex<Exported>,
}

impl Exporter<'_> {
    fn put_bytes(&self, blob: &Descriptor, bytes: &Arc<[u8]>) -> Result<()> {
        if self.place.has(blob)? {
            return Ok(());
        }
        self.place.put(blob, &BytesContent(bytes.clone()))?;
        self.sent(blob);
        Ok(())
    }

    fn sent(&self, blob: &Descriptor) {
        let mut exported = self.exported.lock().unwrap_or_else(PoisonError::into_inner);
        exported.sent += 1;
        exported.sent_bytes += blob.size;
    }

    /// Sends a layer of a result, if it is not there; `None` if the store lost it.
    fn layer(&self, step: &ExportedStep) -> Result<Option<Sent>> {
        let Some((layer, index, encoded)) = stored(self.store, step)? else { return Ok(None) };
        let blob = Some(self.blob(&layer, &index)?);
        let (diff_id, tar_size_bytes) = (step.diff_id.clone(), layer.record.tar_size_bytes);
        Ok(Some(Sent { diff_id, tar_size_bytes, blob, index, encoded }))
    }

    /// Sends the content of a cache mount, if there is any. One that cannot be read, as while a step of another build writes
    /// to it, is told and stays here.
    fn mount(&self, id: &str) -> Result<Option<config::Mount>> {
        let (outgoing, said) = match mounts::outgoing(self.store, id, self.options) {
            Ok(Some(found)) => found,
            Ok(None) => return Ok(None),
            Err(error) => {
                let id = mounts::shown(id);
                self.known.warn(format!("the content of cache mount `{id}` is not exported: {error}"));
                return Ok(None);
            }
        };
        if !self.place.has(&said.blob)? {
            self.place.put(&said.blob, outgoing.content())?;
            self.sent(&said.blob);
        }
        Ok(Some(said))
    }

    /// The compressed form of a layer, there or sent.
    fn blob(&self, layer: &Layer, index: &Index) -> Result<Descriptor> {
        let diff_id = &layer.record.diff_id;
        let is_remembered = self.options.form == Form::default();
        let wanted = self.options.media_type();
        let mut candidates = Vec::new();
        if let Some((digest, name)) = layer.record.origin.as_ref().filter(|(_, name)| is_layer(name)) {
            // Came as these bytes, which is as good as any.
            if let Some(size) = self.store.blob_size_bytes(digest)? {
                let blob = Descriptor::new(name, digest.clone(), size);
                if !self.place.has(&blob)? {
                    let file = Arc::new(self.store.open_blob(digest)?);
                    self.place.put(&blob, &FileContent(file))?;
                    self.sent(&blob);
                }
                return Ok(blob);
            }
        }
        if is_remembered && let Some(form) = self.store.compressed_form(diff_id, FORM)? {
            candidates.push(Descriptor::new(wanted, form.digest, form.size_bytes));
        }
        candidates.extend(self.known.blobs_of(diff_id).into_iter().filter(|blob| blob.media_type == wanted));
        for candidate in candidates {
            if self.place.has(&candidate)? {
                return Ok(candidate);
            }
        }
        let outgoing = outgoing::of_layer(self.store, layer, index, self.options)?;
        let blob = outgoing.blob.clone();
        if is_remembered {
            let form = CompressedForm { digest: blob.digest.clone(), size_bytes: blob.size };
            self.store.put_compressed_form(diff_id, FORM, &form)?;
        }
        if !self.place.has(&blob)? {
            self.place.put(&blob, outgoing.content())?;
            self.sent(&blob);
        }
        Ok(blob)
    }

    fn manifest(&self, config: &Config) -> Result<Manifest> {
        let bytes = config.to_json();
        if bytes.len() as u64 > config::CONFIG_BYTES_MAX {
            let size_bytes_max = config::CONFIG_BYTES_MAX;
            return Err(CacheError::TooLarge { what: "the list of results", size_bytes_max });
        }
        let descriptor = Descriptor::of(CONFIG_MEDIA_TYPE, &bytes);
        self.put_bytes(&descriptor, &bytes.into())?;
        let mut blobs = config.blobs();
        if blobs.is_empty() {
            // Registries want one.
            blobs.push(Descriptor::empty());
            self.put_bytes(&Descriptor::empty(), &Arc::from(&b"{}"[..]))?;
        }
        Ok(match self.options.docker_media_types {
            true => Manifest::docker(descriptor, blobs),
            false => {
                Manifest { artifact_type: Some(ARTIFACT_TYPE.to_owned()), ..Manifest::oci(descriptor, blobs) }
            }
        })
    }
}

impl From<io::Error> for CacheError {
    fn from(source: io::Error) -> Self {
        Self::Io { what: "a stream broke", source }
    }
}
