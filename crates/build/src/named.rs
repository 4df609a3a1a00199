//! Named build contexts that are files: looked up as the build context is where COPY reads them, and one layer where a
//! stage begins with them or a RUN mounts them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use mica_context::SourceDir;
use mica_dockerfile::dockerignore::Dockerignore;
use mica_plan::{CopySourceSpec, CopyStep, FileSource, FilesystemState, PlannedSource};
use mica_store::CacheRecord;
use mica_tree::MergedIndex;

use crate::build::{Build, ignore_error, lock};
use crate::error::{BuildError, StepError};
use crate::exec_copy::{self, SourceTree};
use crate::filesystem::Chain;
use crate::outcomes::Outcomes;

/// What is known of the named contexts of a build.
#[derive(Default)]
pub(crate) struct NamedContexts {
    known: Mutex<HashMap<String, Arc<Mutex<Known>>>>,
}

#[derive(Default)]
struct Known {
    directory: Option<(Arc<SourceDir>, Arc<MergedIndex>)>,
    chain: Option<Arc<Chain>>,
}

impl NamedContexts {
    fn slot(&self, name: &str) -> Arc<Mutex<Known>> {
        lock(&self.known).entry(name.to_owned()).or_default().clone()
    }

    /// Writes down which digests were learnt.
    pub fn save(&self) {
        for known in lock(&self.known).values() {
            if let Some((directory, _)) = &lock(known).directory {
                directory.save();
            }
        }
    }
}

impl Build<'_> {
    /// The files of a named context, walked at first use.
    pub(crate) fn named_source(&self, name: &str) -> Result<SourceTree, StepError> {
        let slot = self.named.slot(name);
        let mut known = lock(&slot);
        if let Some((directory, merged)) = &known.directory {
            return Ok(SourceTree::Context { directory: directory.clone(), merged: merged.clone() });
        }
        let given = self.request.named_directories.iter().find(|given| given.name == name);
        let Some(given) = given else {
            return Err(StepError::Unsupported { what: "a named build context that nobody gave" });
        };
        let rules = match &given.ignore {
            Some(file) => Some(Dockerignore::parse(&file.text).map_err(|errors| ignore_error(file, errors))?),
            None => None,
        };
        let cache = self.stat_cache(&given.path);
        let directory = SourceDir::open(&given.path, rules.as_ref(), cache.as_deref());
        let directory =
            Arc::new(directory.map_err(|source| BuildError::NamedContext { name: name.to_owned(), source })?);
        let merged = Arc::new(MergedIndex::new([self.times.context(directory.index())]));
        known.directory = Some((directory.clone(), merged.clone()));
        Ok(SourceTree::Context { directory, merged })
    }

    /// A named context as the one layer of a stack, taken over from an earlier build where its files are the same.
    pub(crate) fn named_chain(&self, name: &str, outcomes: &Outcomes) -> Result<Arc<Chain>, StepError> {
        let source = self.named_source(name)?;
        let slot = self.named.slot(name);
        let mut known = lock(&slot);
        if let Some(chain) = &known.chain {
            return Ok(chain.clone());
        }
        // As if all of it were copied.
        let all = PlannedSource { spec: CopySourceSpec::Path("/".to_owned()), span: Default::default() };
        let copy = CopyStep {
            add: false,
            from: FileSource::State(FilesystemState::NamedContext(name.to_owned())),
            sources: vec![all],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            excludes: Vec::new(),
            checksum: None,
            keep_git_dir: false,
            unpack: None,
        };
        let picked = exec_copy::pick(self, &copy, &source)?;
        let contents = exec_copy::contents(&copy, &source, &picked, true)?;
        let digest = contents.digest.unwrap_or(contents.shape);
        // Fixed times are part of what the layer holds.
        let times = self.times.key().unwrap_or_default();
        let key = *blake3::hash(&[b"named context ".as_slice(), &digest, &times].concat()).as_bytes();
        let nothing: Arc<Chain> = self.chain(&FilesystemState::Scratch, outcomes)?;
        let stored = match self.store.cache_get(&key)? {
            Some(record) => self.stored(&record.diff_id, record.chain_id.as_ref())?,
            None => None,
        };
        let layer = match stored {
            Some(layer) => layer,
            None => {
                let (ingest, made, _) = self.place(&nothing, |lower, ingest| {
                    exec_copy::place(self, &copy, lower, &nothing, &source, &picked, ingest)?
                        .make(self, &source, ingest)
                })?;
                let layer = self.commit(ingest, made)?;
                let diff_id = layer.record.diff_id.clone();
                self.store.cache_put(&key, &CacheRecord::new(key, diff_id, None, Vec::new()))?;
                layer
            }
        };
        let diff_id = layer.record.diff_id.clone();
        let chain = Arc::new(nothing.with(layer, diff_id));
        known.chain = Some(chain.clone());
        Ok(chain)
    }
}
