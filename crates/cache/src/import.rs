//! Caches that a build may take results from. Each is opened when it is first asked.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use mica_layer::apply::Mapping;
use mica_layer::verify::is_whole;
use mica_oci::{Descriptor, DiffId, Digest, Document, ImageConfig, Manifest, media_type};
use mica_store::{Layer, STEP_EXTRA_BYTES_MAX, STEP_INPUTS_BYTES_MAX, STEP_RECORDS_MAX, Store};
use mica_tree::Index;

use crate::config::{self, CONFIG_BYTES_MAX, CONFIG_MEDIA_TYPE, Config, INLINE_FIELD, Key, Step};
use crate::error::{CacheError, Result};
use crate::incoming;
use crate::interruptible::Interruptible;
use crate::part;
use crate::place::Place;
use crate::verified::Verified;

/// Images of one index that are looked at: one for each platform.
const IMAGES_MAX: usize = 32;

/// All caches of one build, in the order in which they are asked.
#[derive(Default)]
pub struct Imports {
    caches: Vec<Import>,
    warnings: Mutex<Vec<String>>,
}

/// One cache.
pub struct Import {
    place: Arc<dyn Place>,
    opened: OnceLock<Opened>,
}

/// Where the steps of each key stand: which document, which of its steps.
type Positions = HashMap<Key, Vec<(usize, usize)>>;

/// What stands in a cache.
#[derive(Default)]
struct Opened {
    config: Vec<Config>,
    by_exact: Positions,
    by_record: Positions,
    by_family: Positions,
    shapes: HashSet<Key>,
    /// Steps with which something is wrong.
    spoilt: Mutex<HashSet<(usize, usize)>>,
}

/// A result that a cache has.
#[derive(Clone, Copy)]
pub struct Found<'a> {
    imports: &'a Imports,
    import: &'a Import,
    position: (usize, usize),
    step: &'a Step,
    layer: &'a config::Layer,
}

impl Imports {
    /// Caches that are asked in this order.
    pub fn new(places: Vec<Arc<dyn Place>>) -> Self {
        let import = |place| Import { place, opened: OnceLock::new() };
        Self { caches: places.into_iter().map(import).collect(), warnings: Mutex::default() }
    }

    /// The same, whose downloads end when the flag is set.
    pub fn stopped_by(mut self, stop: &Arc<AtomicBool>) -> Self {
        for cache in &mut self.caches {
            cache.place = Arc::new(Interruptible { place: cache.place.clone(), stop: stop.clone() });
        }
        self
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// Whether any cache has a result of this shape.
    pub fn has_shape(&self, shape: &[u8; 32]) -> bool {
        self.caches.iter().any(|cache| self.open(cache).shapes.contains(&Key(*shape)))
    }

    /// Results on just these layers.
    pub fn by_exact(&self, key: &[u8; 32]) -> Vec<Found<'_>> {
        self.find(key, |opened| &opened.by_exact)
    }

    /// Results of this step, which are to be verified; of each cache the newest few first.
    pub fn by_record(&self, key: &[u8; 32]) -> Vec<Found<'_>> {
        self.find(key, |opened| &opened.by_record)
    }

    /// Results of the same instruction, whatever it copied.
    pub fn by_family(&self, key: &[u8; 32]) -> Vec<Found<'_>> {
        self.find(key, |opened| &opened.by_family)
    }

    fn find(&self, key: &[u8; 32], map: fn(&Opened) -> &Positions) -> Vec<Found<'_>> {
        let mut found = Vec::new();
        for import in &self.caches {
            let opened = self.open(import);
            let positions = map(opened).get(&Key(*key)).map(Vec::as_slice).unwrap_or_default();
            for position in positions.iter().take(STEP_RECORDS_MAX as usize) {
                let is_spoilt =
                    opened.spoilt.lock().unwrap_or_else(PoisonError::into_inner).contains(position);
                let config = opened.config.get(position.0).filter(|_| !is_spoilt);
                let Some((config, step)) =
                    config.and_then(|config| Some((config, config.steps.get(position.1)?)))
                else {
                    continue;
                };
                let Some(layer) = config.layers.get(step.layer) else { continue };
                found.push(Found { imports: self, import, position: *position, step, layer });
            }
        }
        found
    }

    /// Blobs that a cache has as the compressed form of a layer.
    pub(crate) fn blobs_of(&self, diff_id: &DiffId) -> Vec<Descriptor> {
        let opened = self.caches.iter().filter_map(|cache| cache.opened.get());
        let layers = opened.flat_map(|opened| &opened.config).flat_map(|config| &config.layers);
        layers.filter(|layer| layer.diff_id == *diff_id).filter_map(|layer| layer.blob.clone()).collect()
    }

    /// The content of a cache mount, if a cache has one.
    pub(crate) fn mount(&self, id: &str) -> Option<(&Import, &config::Mount)> {
        self.caches.iter().find_map(|import| {
            let mut configs = self.open(import).config.iter();
            let mount = configs.find_map(|config| config.mounts.iter().find(|mount| mount.id == id))?;
            Some((import, mount))
        })
    }

    /// What was wrong with caches since this was last asked.
    pub fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.warnings.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn warn(&self, message: String) {
        self.warnings.lock().unwrap_or_else(PoisonError::into_inner).push(message);
    }

    fn open<'a>(&self, import: &'a Import) -> &'a Opened {
        import.opened.get_or_init(|| match Opened::read(&*import.place) {
            Ok(opened) => opened,
            Err(error) => {
                self.warn(format!("cache {} is not used: {error}", import.place.name()));
                Opened::default()
            }
        })
    }
}

impl Import {
    pub(crate) fn place(&self) -> &dyn Place {
        &*self.place
    }
}

impl Opened {
    fn read(place: &dyn Place) -> Result<Self> {
        let bytes = place.document(None)?.ok_or(CacheError::Absent)?;
        let mut opened = Self::default();
        match parse(&bytes)? {
            Document::Manifest(manifest) => opened.add(config_of(place, &manifest)?),
            Document::Index(index) => {
                let mut last = CacheError::NoInlineCache;
                for child in index.images().take(IMAGES_MAX) {
                    let manifest = child_of(place, child);
                    match manifest.and_then(|manifest| config_of(place, &manifest)) {
                        Ok(config) => opened.add(config),
                        Err(error) => last = error,
                    }
                }
                if opened.config.is_empty() {
                    return Err(last);
                }
            }
        }
        Ok(opened)
    }

    fn add(&mut self, config: Config) {
        let document = self.config.len();
        for (position, step) in config.steps.iter().enumerate() {
            if let Some(key) = step.exact {
                self.by_exact.entry(key).or_default().push((document, position));
            }
            if let Some(key) = step.record {
                self.by_record.entry(key).or_default().push((document, position));
            }
            self.by_family.entry(step.family).or_default().push((document, position));
            self.shapes.insert(step.shape);
        }
        self.config.push(config);
    }
}

fn parse(bytes: &[u8]) -> Result<Document> {
    Document::parse(bytes, None)
        .map_err(|error| CacheError::Malformed { what: "its manifest", reason: error.to_string() })
}

fn child_of(place: &dyn Place, child: &Descriptor) -> Result<Manifest> {
    let missing = || CacheError::BlobMissing { digest: child.digest.clone() };
    let bytes = place.document(Some(child))?.ok_or_else(missing)?;
    let actual = Digest::sha256(&bytes);
    if actual != child.digest {
        return Err(CacheError::BlobDamaged { expected: child.digest.clone(), actual });
    }
    match parse(&bytes)? {
        Document::Manifest(manifest) => Ok(manifest),
        Document::Index(_) => Err(CacheError::NotACache { media_type: child.media_type.clone() }),
    }
}

/// The document of a manifest: its config, or what stands in the config of an image.
fn config_of(place: &dyn Place, manifest: &Manifest) -> Result<Config> {
    let what = "its config";
    let is_cache = manifest.config.media_type == CONFIG_MEDIA_TYPE;
    if !is_cache && !manifest.is_image() {
        return Err(CacheError::NotACache { media_type: manifest.config.media_type.clone() });
    }
    let bytes = Verified::open(place, &manifest.config)?.whole(what, CONFIG_BYTES_MAX)?;
    if is_cache {
        return Config::parse(&bytes);
    }
    let image = ImageConfig::parse(&bytes)
        .map_err(|error| CacheError::Malformed { what, reason: error.to_string() })?;
    let field = image.extra.get(INLINE_FIELD).cloned().ok_or(CacheError::NoInlineCache)?;
    let mut config = Config::of_value(field)?;
    // The image says where the layers are; what the field says of that would be about another image.
    for layer in &mut config.layers {
        let position = image.rootfs.diff_ids.iter().position(|diff_id| *diff_id == layer.diff_id);
        layer.blob = position.and_then(|position| manifest.layers.get(position)).cloned();
    }
    Ok(config)
}

impl<'a> Found<'a> {
    /// Which cache has it.
    pub fn cache(&self) -> &'a str {
        self.import.place.name()
    }

    /// What is said of it.
    pub fn step(&self) -> &'a Step {
        self.step
    }

    /// The layer it made.
    pub fn diff_id(&self) -> &'a DiffId {
        &self.layer.diff_id
    }

    /// What the build noted of it, as it would stand in the store.
    pub fn facts(&self) -> Option<Vec<u8>> {
        let bytes = serde_json::to_vec(self.step.facts.as_ref()?).ok()?;
        (bytes.len() as u64 <= STEP_EXTRA_BYTES_MAX).then_some(bytes)
    }

    /// What it used, as it would stand in the store. What cannot be had is told, and the result is not looked at again.
    pub fn inputs(&self) -> Option<Vec<u8>> {
        let part = self.step.inputs.as_ref()?;
        let inputs = part::unfold(self.import.place(), part, "what a step used", STEP_INPUTS_BYTES_MAX);
        self.told(inputs)
    }

    /// The index of its layer, where that travels by itself.
    pub fn index(&self) -> Option<Index> {
        self.told(incoming::index(self.import.place(), self.layer)).flatten()
    }

    /// Brings its layer into the store, if it is not there. What is wrong with it is told, and the result is not looked at
    /// again.
    pub fn layer(&self, store: &Store, mapping: Mapping) -> Option<Layer> {
        self.told(self.bring(store, mapping))
    }

    fn bring(&self, store: &Store, mapping: Mapping) -> Result<Layer> {
        if let Some(layer) = store.whole_layer(&self.layer.diff_id, None, is_whole)? {
            return Ok(layer);
        }
        let missing = || CacheError::LayerMissing { diff_id: self.layer.diff_id.clone() };
        let blob = self.layer.blob.as_ref().ok_or_else(missing)?;
        incoming::layer(self.import.place(), self.layer, blob, store, mapping)
    }

    fn told<T>(&self, result: Result<T>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let opened = self.imports.open(self.import);
                let is_new =
                    opened.spoilt.lock().unwrap_or_else(PoisonError::into_inner).insert(self.position);
                if is_new {
                    let cache = self.cache();
                    self.imports.warn(format!("a result in cache {cache} is not used: {error}"));
                }
                None
            }
        }
    }
}

/// Whether a media type is one of a compressed or plain layer.
pub(crate) fn is_layer(name: &str) -> bool {
    [media_type::OCI_LAYER, media_type::DOCKER_LAYER].iter().any(|layer| name.starts_with(layer))
}
