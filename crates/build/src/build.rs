//! One build: from a Dockerfile's text to a stored image.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Instant;

use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::Dockerfile;
use mica_dockerfile::dockerignore::Dockerignore;
use mica_layer::verify::is_whole;
use mica_oci::{DiffId, Digest, ImageConfig, ImageId, Reference};
use mica_plan::{
    BaseImage, BaseRequest, FileSource, FilesystemState, Graph, ImageKey, Operation, PlanOptions, Step,
    StepId, definition_key, needed_bases_with, plan, step_key,
};
use mica_store::{CacheRecord, Layer, LayerRecord, Lease, Store};
use mica_tree::{Entry, Index, Kind, MergedIndex, Time};

use crate::assemble_image;
use crate::error::{BuildError, StepError};
use crate::event::{Event, Events};
use crate::exec_copy::{self, SourceTree};
use crate::exec_run;
use crate::filesystem::{Chain, Indexes};
use crate::run_state::{Made, Outcome, Progress};
use crate::workdir;

/// Network of RUN steps that do not say otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BuildNetwork {
    /// One of its own with a way out: the bridge as root, pasta otherwise.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// An ignore file.
#[derive(Debug, Clone)]
pub struct IgnoreFile {
    /// Name shown to people.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What is to be built.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// The Dockerfile.
    pub dockerfile: Source,
    /// The context directory; `None` when there is none (a Dockerfile on standard input).
    pub context: Option<PathBuf>,
    /// The ignore file that applies.
    pub ignore: Option<IgnoreFile>,
    /// Target, arguments, labels, platform.
    pub plan: PlanOptions,
    /// Names for the image.
    pub names: Vec<Reference>,
    /// Use no result of earlier builds.
    pub no_cache: bool,
    /// Network of RUN.
    pub network: BuildNetwork,
    /// Lines for /etc/hosts, `NAME:ADDRESS`.
    pub add_hosts: Vec<String>,
    /// The caller is in a user namespace.
    pub rootless: bool,
    /// Now, seconds since 1970; SOURCE_DATE_EPOCH when that is set.
    pub now_seconds: i64,
}

/// What a step depends on, as one digest.
type StepKey = [u8; 32];
/// What a COPY picked, as one digest, without the contents of files.
type Shape = [u8; 32];

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// Digest of the config.
    pub image: ImageId,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Warnings about the Dockerfile.
    pub warnings: Vec<Diagnostic>,
}

/// What a build needs that must outlive single steps.
pub(crate) struct Build<'a> {
    pub store: &'a Store,
    pub request: &'a BuildRequest,
    pub graph: &'a Graph,
    pub events: &'a Events<'a>,
    pub indexes: Indexes,
    ignore: Option<&'a Dockerignore>,
    bases: HashMap<String, Arc<Chain>>,
    context: OnceLock<(Arc<mica_context::SourceDir>, Arc<MergedIndex>)>,
    context_lock: Mutex<()>,
    /// Results of this build, by key: two stages with the same step run it once.
    produced: Mutex<HashMap<StepKey, Arc<Mutex<Option<Outcome>>>>>,
    /// Set when a step failed: the others are ended.
    pub cancelled: AtomicBool,
    /// Set from outside, by a signal.
    pub interrupted: &'a AtomicBool,
    lease: Lease,
    warned: Mutex<std::collections::BTreeSet<String>>,
}

/// Builds an image and stores it under its names. `interrupted` may be set from outside to end the build.
pub fn build(
    store: &Store,
    request: &BuildRequest,
    events: &Events<'_>,
    interrupted: &AtomicBool,
) -> Result<Built, BuildError> {
    let source = &request.dockerfile;
    let wrong = |diagnostics| BuildError::Dockerfile { source_text: source.clone(), diagnostics };
    let dockerfile = parse(source, &request.plan).map_err(wrong)?;
    events(Event::Dockerfile { name: source.name.to_string(), size_bytes: source.text.len() as u64 });
    let ignore = parse_ignore(request)?;
    let lease = store.lease()?;
    let (mut configs, mut chains) = (HashMap::new(), HashMap::new());
    loop {
        // Triggers of a base image may need further images.
        let requests = needed_bases_with(&dockerfile, &request.plan, &|key| configs.get(&image_name(key)))
            .map_err(wrong)?;
        let new: Vec<_> =
            requests.into_iter().filter(|request| !chains.contains_key(&image_name(&request.key))).collect();
        if new.is_empty() {
            break;
        }
        load_bases(store, &lease, source, &new, events, &mut configs, &mut chains)
            .map_err(|error| and_what_else(error, &dockerfile, &request.plan, &configs))?;
    }
    let graph = plan_graph(&dockerfile, request, &configs).map_err(wrong)?;
    events(Event::Planned { names: graph.steps.iter().map(|step| step.name.clone()).collect() });
    let build = Build {
        store,
        request,
        graph: &graph,
        events,
        indexes: Indexes::default(),
        ignore: ignore.as_ref(),
        bases: chains,
        context: OnceLock::new(),
        context_lock: Mutex::new(()),
        produced: Mutex::default(),
        cancelled: AtomicBool::new(false),
        interrupted,
        lease,
        warned: Mutex::default(),
    };
    let outcomes = build.run();
    if let Some((directory, _)) = build.context.get() {
        directory.save();
    }
    let outcomes = outcomes?;
    let mut warnings = dockerfile.warnings.clone();
    warnings.extend(graph.warnings.iter().cloned());
    let (image, manifest) = assemble_image::assemble_image(&build, &configs, &outcomes)?;
    Ok(Built { image, manifest, warnings })
}

/// Parses the Dockerfile. If it is wrong, what planning the rest finds is told as well, so that nobody mends one line to
/// be told of the next.
fn parse(source: &Source, options: &PlanOptions) -> Result<Dockerfile, Vec<Diagnostic>> {
    let (dockerfile, mut problems) = mica_dockerfile::parse_dockerfile_partially(source.clone());
    match dockerfile {
        Some(dockerfile) if problems.is_empty() => return Ok(dockerfile),
        Some(dockerfile) => {
            let base = BaseImage { config: ImageConfig::new(&options.platform) };
            let mut more = needed_bases_with(&dockerfile, options, &|_| None).err().unwrap_or_default();
            more.extend(plan(&dockerfile, options, &|_| Some(&base)).err().unwrap_or_default());
            add_problems(&mut problems, more);
        }
        None => {}
    }
    Err(problems)
}

/// Adds what is not told yet of a place. An empty place is that of a flag: a target, say, which may be among what could not
/// be read.
fn add_problems(problems: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    for problem in more {
        let is_new = !problems.iter().any(|known| known.span == problem.span);
        if is_new && problem.span != mica_diagnostic::Span::default() {
            problems.push(problem);
        }
    }
    problems.sort_by_key(|problem| problem.span.start);
}

/// Absent base images, with all else that is wrong as far as it can be told without them.
fn and_what_else(
    error: BuildError,
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    configs: &BaseConfigs,
) -> BuildError {
    let BuildError::Dockerfile { source_text, mut diagnostics } = error else { return error };
    let blank = BaseImage { config: ImageConfig::new(&options.platform) };
    let base = |key: &ImageKey| Some(configs.get(&image_name(key)).unwrap_or(&blank));
    add_problems(&mut diagnostics, plan(dockerfile, options, &base).err().unwrap_or_default());
    BuildError::Dockerfile { source_text, diagnostics }
}

fn parse_ignore(request: &BuildRequest) -> Result<Option<Dockerignore>, BuildError> {
    let Some(file) = &request.ignore else { return Ok(None) };
    Dockerignore::parse(&file.text).map(Some).map_err(|errors| {
        let first = errors.into_iter().next();
        BuildError::Ignore {
            name: file.name.clone(),
            line: first.as_ref().map_or(1, |error| error.line()),
            message: first.map(|error| error.to_string()).unwrap_or_default(),
        }
    })
}

/// Looks the needed images up in the store; all that are absent are told at once.
fn load_bases(
    store: &Store,
    lease: &Lease,
    source: &Source,
    requests: &[BaseRequest],
    events: &Events<'_>,
    configs: &mut BaseConfigs,
    chains: &mut HashMap<String, Arc<Chain>>,
) -> Result<(), BuildError> {
    let mut absent = Vec::new();
    for request in requests {
        let name = request.key.reference.canonical();
        let Some(id) = mica_image::resolve(store, &request.as_written)? else {
            absent.push(
                Diagnostic::error(
                    request.span,
                    format!("base image `{}` is not in the local store", request.as_written),
                )
                .note(format!("looked for `{name}` in `{}`", store.root().display()))
                .hint(format!(
                    "bring it in with `mica load -i ARCHIVE` or `mica import ROOTFS.tar {}`",
                    request.as_written
                )),
            );
            continue;
        };
        let config = mica_image::config(store, &id)?;
        let chain = Chain::of_image(store, &config.rootfs.diff_ids)?;
        // Another process may remove the image while this build stands on it.
        chain.protect(lease)?;
        events(Event::Base { name: name.clone() });
        chains.insert(image_name(&request.key), Arc::new(chain));
        configs.insert(image_name(&request.key), BaseImage { config });
    }
    match absent.is_empty() {
        true => Ok(()),
        false => Err(BuildError::Dockerfile { source_text: source.clone(), diagnostics: absent }),
    }
}

/// What a base is known by inside one build.
pub(crate) fn image_name(key: &ImageKey) -> String {
    format!("{} {}", key.reference.canonical(), key.platform)
}

fn plan_graph(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    configs: &HashMap<String, BaseImage>,
) -> Result<Graph, Vec<Diagnostic>> {
    plan(dockerfile, &request.plan, &|key| configs.get(&image_name(key)))
}

impl Build<'_> {
    pub fn rootless(&self) -> bool {
        self.request.rootless
    }

    /// Tells a warning, once in a build.
    pub fn warn_once(&self, message: &str) {
        let mut warned = self.warned.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if warned.insert(message.to_owned()) {
            (self.events)(Event::Warning { message: message.to_owned() });
        }
    }

    /// Directories that a step makes and that nobody had before.
    pub fn time_of_new_directories(&self) -> Time {
        Time { seconds: self.request.now_seconds, nanoseconds: 0 }
    }

    /// The rule that hides a path of the context: file, line, pattern.
    pub fn hidden_by(&self, path: &str) -> Option<(String, usize, String)> {
        let rules = self.ignore?;
        let name = self.request.ignore.as_ref()?.name.clone();
        let path = String::from_utf8(crate::place::clean(path)).ok()?;
        let ignored = rules.matches(&path);
        // The path must be there, or the rule is not the reason.
        let there = self.request.context.as_ref()?.join(&path).symlink_metadata().is_ok();
        let rule = ignored.by.filter(|_| ignored.is_ignored && there)?;
        Some((name, rule.line, rule.text.clone()))
    }

    /// What `--from` names, in words.
    pub fn place_name(&self, from: &FileSource) -> String {
        match from {
            FileSource::Context => "the build context".to_owned(),
            FileSource::State(FilesystemState::Scratch) => "an empty stage".to_owned(),
            FileSource::State(FilesystemState::Image(key)) => format!("image `{}`", key.reference.familiar()),
            FileSource::State(FilesystemState::NamedContext(name)) => format!("build context `{name}`"),
            FileSource::State(FilesystemState::Step(id)) => match self.graph.step(*id) {
                Some(step) => format!("the files after `{}`", step.name),
                None => "the stage".to_owned(),
            },
        }
    }

    /// The context, walked at first use.
    fn context(&self) -> Result<(Arc<mica_context::SourceDir>, Arc<MergedIndex>), StepError> {
        let _one = self.context_lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((directory, merged)) = self.context.get() {
            return Ok((directory.clone(), merged.clone()));
        }
        let Some(path) = &self.request.context else {
            return Err(StepError::Unsupported { what: "COPY without a build context" });
        };
        let started = Instant::now();
        let cache = self.store.context_directory().join(context_name(path));
        let directory = Arc::new(mica_context::SourceDir::open(path, self.ignore, Some(&cache))?);
        let merged = Arc::new(MergedIndex::new([directory.index().clone()]));
        (self.events)(Event::Context {
            entries: directory.index().entries().len(),
            elapsed: started.elapsed(),
        });
        let _ = self.context.set((directory.clone(), merged.clone()));
        Ok((directory, merged))
    }

    /// The files that a step reads besides its own.
    pub fn source(&self, from: &FileSource, outcomes: &Outcomes) -> Result<SourceTree, StepError> {
        Ok(match from {
            FileSource::Context => {
                let (directory, merged) = self.context()?;
                SourceTree::Context { directory, merged }
            }
            FileSource::State(state) => {
                let chain = self.chain(state, outcomes)?;
                let merged = chain.merged(&self.indexes)?;
                SourceTree::State { chain, merged }
            }
        })
    }

    /// The layers of a state whose step is done.
    pub fn chain(&self, state: &FilesystemState, outcomes: &Outcomes) -> Result<Arc<Chain>, StepError> {
        match state {
            FilesystemState::Scratch => Ok(Arc::default()),
            FilesystemState::Image(key) => self
                .bases
                .get(&image_name(key))
                .cloned()
                .ok_or(StepError::Unsupported { what: "an image nobody asked for" }),
            FilesystemState::NamedContext(_) => Err(StepError::Unsupported { what: "a named build context" }),
            FilesystemState::Step(id) => match outcomes.get(*id) {
                Some(outcome) => Ok(outcome.chain),
                None => Err(StepError::Cancelled),
            },
        }
    }

    /// Whether the build is to end: a step failed, or a signal came.
    pub fn stopped(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed) || self.interrupted.load(Ordering::Relaxed)
    }

    /// Does all steps, those that are known first and without starting a thread.
    fn run(&self) -> Result<Outcomes, BuildError> {
        let outcomes = Outcomes::new(self.graph.steps.len());
        let mut open = 0;
        for step in &self.graph.steps {
            let ready = step.inputs().into_iter().all(|state| outcomes.has(state));
            match ready.then(|| self.known(step, &outcomes)).transpose() {
                Ok(Some(Some(outcome))) => {
                    (self.events)(Event::StepCached { step: step.id.0 });
                    outcomes.set(step.id, Progress::Done(outcome));
                }
                Ok(_) => open += 1,
                Err(cause) => return Err(self.step_error(step, cause, Vec::new())),
            }
        }
        if open == 0 {
            return Ok(outcomes);
        }
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..open.min(cores.max(4)) {
                scope.spawn(|| self.work(&outcomes, &failed));
            }
        });
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(BuildError::Interrupted);
        }
        match failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(error) => Err(error),
            None => Ok(outcomes),
        }
    }

    /// One thread: takes steps whose inputs are done until none is left.
    fn work(&self, outcomes: &Outcomes, failed: &Mutex<Option<BuildError>>) {
        while let Some(id) = outcomes.next(self.graph, &|| self.stopped()) {
            let Some(step) = self.graph.step(id) else { return };
            let mut output = Vec::new();
            match self.perform(step, outcomes, &mut output) {
                Ok(outcome) => outcomes.set(id, Progress::Done(outcome)),
                Err(cause) => {
                    let first = !matches!(cause, StepError::Cancelled)
                        && !self.cancelled.swap(true, Ordering::Relaxed);
                    if first {
                        (self.events)(Event::StepFailed { step: id.0, message: cause.to_string() });
                        *failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                            Some(self.step_error(step, cause, output));
                    } else {
                        (self.events)(Event::StepCancelled { step: id.0 });
                    }
                    outcomes.wake();
                    return;
                }
            }
        }
    }

    fn step_error(&self, step: &Step, cause: StepError, output: Vec<String>) -> BuildError {
        match cause {
            StepError::Build(error) if !matches!(*error, BuildError::System(_)) => *error,
            cause => BuildError::Step {
                source_text: self.request.dockerfile.clone(),
                span: step.span,
                name: step.name.clone(),
                cause: Box::new(cause),
                output,
            },
        }
    }

    /// The result of a step if an earlier build had it, found without running or reading much.
    fn known(&self, step: &Step, outcomes: &Outcomes) -> Result<Option<Outcome>, StepError> {
        if self.request.no_cache {
            return Ok(None);
        }
        let parent = self.chain(&step.parent, outcomes)?;
        let Some((key, _)) = self.key(step, &parent, outcomes, false)? else { return Ok(None) };
        self.recorded(&key, &parent)
    }

    /// The key of a step and, for COPY, what it picked. `None`: the key needs contents that nobody has read, and no
    /// earlier result can have it, so the step may as well run.
    fn key(
        &self,
        step: &Step,
        parent: &Chain,
        outcomes: &Outcomes,
        read: bool,
    ) -> Result<Option<(StepKey, Option<Shape>)>, StepError> {
        let definition = definition_key(step);
        let (mut contents, mut shape) = (Vec::new(), None);
        match &step.operation {
            Operation::Copy(copy) => {
                let source = self.source(&copy.from, outcomes)?;
                let picked = exec_copy::pick(self, copy, &source)?;
                let mut found = exec_copy::contents(copy, &source, &picked, read)?;
                let shaped = combine(&definition, &found.shape);
                if found.digest.is_none() && !self.request.no_cache && self.store.cache_has_shape(&shaped)? {
                    found = exec_copy::contents(copy, &source, &picked, true)?;
                }
                shape = Some(shaped);
                match found.digest {
                    Some(digest) => contents.push(digest),
                    None => return Ok(None),
                }
            }
            Operation::Run(run) => contents = exec_run::mounted_contents(self, run, outcomes)?,
            Operation::Workdir(_) => {}
        }
        let parent = parent.chain_id().map(|chain| *blake3::hash(chain.to_string().as_bytes()).as_bytes());
        Ok(Some((step_key(parent.as_ref(), &definition, &contents), shape)))
    }

    fn recorded(&self, key: &[u8; 32], parent: &Chain) -> Result<Option<Outcome>, StepError> {
        let Some(record) = self.store.cache_get(key)? else { return Ok(None) };
        let Some(layer) = self.store.whole_layer(&record.diff_id, record.chain_id.as_ref(), is_whole)? else {
            return Ok(None);
        };
        let Ok(created_seconds) = record.extra.as_slice().try_into().map(i64::from_le_bytes) else {
            return Ok(None);
        };
        // Gone in this moment, by a collection of another process: as if it had never been.
        if !self.lease.protect_layer(&record.diff_id, record.chain_id.as_ref())? {
            return Ok(None);
        }
        let chain = Arc::new(parent.with(layer, record.diff_id));
        Ok(Some(Outcome { chain, created_seconds }))
    }

    fn perform(
        &self,
        step: &Step,
        outcomes: &Outcomes,
        output: &mut Vec<String>,
    ) -> Result<Outcome, StepError> {
        let parent = self.chain(&step.parent, outcomes)?;
        let key = self.key(step, &parent, outcomes, false)?;
        let Some((key, _)) = key else {
            // A COPY of files that no build has seen: it runs, and its key is known afterwards.
            let outcome = self.execute(step, &parent, outcomes, output)?;
            if let Some((key, shape)) = self.key(step, &parent, outcomes, true)? {
                self.record(&key, shape, &outcome)?;
            }
            return Ok(outcome);
        };
        let slot = self
            .produced
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .entry(key)
            .or_default()
            .clone();
        let mut slot = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(outcome) = &*slot {
            (self.events)(Event::StepCached { step: step.id.0 });
            return Ok(outcome.clone());
        }
        if !self.request.no_cache
            && let Some(outcome) = self.recorded(&key, &parent)?
        {
            (self.events)(Event::StepCached { step: step.id.0 });
            return Ok(outcome);
        }
        let outcome = self.execute(step, &parent, outcomes, output)?;
        // A file of the context may have changed since the key was made; what was copied is what counts.
        let (key, shape) = match &step.operation {
            Operation::Copy(_) => self.key(step, &parent, outcomes, true)?.unwrap_or((key, None)),
            _ => (key, None),
        };
        self.record(&key, shape, &outcome)?;
        *slot = Some(outcome.clone());
        Ok(outcome)
    }

    fn record(&self, key: &[u8; 32], shape: Option<[u8; 32]>, outcome: &Outcome) -> Result<(), StepError> {
        let Some((diff_id, chain_id)) = outcome.chain.top() else { return Ok(()) };
        let extra = outcome.created_seconds.to_le_bytes().to_vec();
        let shape = shape.unwrap_or_default();
        self.store.cache_put(key, &CacheRecord::new(shape, diff_id.clone(), chain_id.cloned(), extra))?;
        Ok(())
    }

    fn execute(
        &self,
        step: &Step,
        parent: &Arc<Chain>,
        outcomes: &Outcomes,
        output: &mut Vec<String>,
    ) -> Result<Outcome, StepError> {
        if self.stopped() {
            return Err(StepError::Cancelled);
        }
        let started = Instant::now();
        (self.events)(Event::StepStarted { step: step.id.0 });
        let ingest = self.store.ingest()?;
        let lower = parent.merged(&self.indexes)?;
        let made = match &step.operation {
            Operation::Copy(copy) => {
                let source = self.source(&copy.from, outcomes)?;
                let picked = exec_copy::pick(self, copy, &source)?;
                exec_copy::execute(self, copy, &lower, parent, &source, &picked, &ingest)?
            }
            Operation::Workdir(workdir) => workdir::execute(self, workdir, &lower, parent, &ingest)?,
            Operation::Run(run) => exec_run::execute(self, step, run, &lower, parent, &ingest, output)?,
        };
        let (layer, diff_id) = self.commit(ingest, made)?;
        let chain = Arc::new(parent.with(layer, diff_id));
        (self.events)(Event::StepFinished { step: step.id.0, elapsed: started.elapsed() });
        Ok(Outcome { chain, created_seconds: self.request.now_seconds })
    }

    fn commit(&self, ingest: mica_store::Ingest, made: Made) -> Result<(Layer, DiffId), StepError> {
        let bytes = made.index.encode();
        std::fs::write(ingest.index(), &bytes)
            .map_err(|error| mica_sys::Error::new("write", ingest.index(), error))?;
        let diff_id = DiffId(Digest::from_sha256(made.diff_id));
        let record = LayerRecord {
            diff_id: diff_id.clone(),
            chain_id: None,
            size_bytes: disk_size_bytes(&made.index) + bytes.len() as u64,
            tar_size_bytes: made.tar_size_bytes,
            origin: None,
        };
        // The lease is older than the layer, so no collection takes it.
        let layer = self.store.commit_layer(ingest, &record)?;
        self.indexes.put(&layer, made.index);
        Ok((layer, diff_id))
    }
}

/// What a tree takes on a disk with blocks of 4 KiB.
fn disk_size_bytes(index: &Index) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size, .. } => size.div_ceil(BLOCK_BYTES) * BLOCK_BYTES,
        Kind::Directory { .. } => BLOCK_BYTES,
        _ => 0,
    };
    index.entries().iter().map(size).sum()
}

/// Two digests as one.
fn combine(a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(a).update(b);
    *hasher.finalize().as_bytes()
}

/// Name of the stat cache of a context directory.
fn context_name(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    blake3::hash(path.as_os_str().as_bytes()).to_hex().as_str()[..32].to_owned()
}

/// The steps of a build and how far each is.
pub(crate) struct Outcomes {
    steps: Mutex<Vec<Progress>>,
    changed: Condvar,
}

impl Outcomes {
    fn new(count: usize) -> Self {
        Self { steps: Mutex::new(vec![Progress::Waiting; count]), changed: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Progress>> {
        self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The result of a step that is done.
    pub fn get(&self, id: StepId) -> Option<Outcome> {
        match self.lock().get(id.0) {
            Some(Progress::Done(outcome)) => Some(outcome.clone()),
            _ => None,
        }
    }

    fn has(&self, state: &FilesystemState) -> bool {
        match state {
            FilesystemState::Step(id) => self.get(*id).is_some(),
            _ => true,
        }
    }

    fn set(&self, id: StepId, progress: Progress) {
        if let Some(slot) = self.lock().get_mut(id.0) {
            *slot = progress;
        }
        self.changed.notify_all();
    }

    fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// The next step whose inputs are done, marked as running; waits for one. `None` when all are done or begun, or
    /// the build is to stop.
    fn next(&self, graph: &Graph, stopped: &dyn Fn() -> bool) -> Option<StepId> {
        let mut steps = self.lock();
        loop {
            if stopped() || !steps.iter().any(|step| matches!(step, Progress::Waiting)) {
                return None;
            }
            let done = |state: &FilesystemState| match state {
                FilesystemState::Step(id) => matches!(steps.get(id.0), Some(Progress::Done(_))),
                _ => true,
            };
            let ready = graph.steps.iter().find(|step| {
                matches!(steps.get(step.id.0), Some(Progress::Waiting)) && step.inputs().into_iter().all(done)
            });
            if let Some(step) = ready {
                steps[step.id.0] = Progress::Running;
                return Some(step.id);
            }
            // A signal sets a flag and wakes nobody.
            let pause = std::time::Duration::from_millis(100);
            steps =
                self.changed.wait_timeout(steps, pause).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}

/// Configs of the base images, by [`image_name`].
pub(crate) type BaseConfigs = HashMap<String, BaseImage>;

/// The config a stage begins with, if it begins with an image.
pub(crate) fn base_config<'c>(configs: &'c BaseConfigs, key: Option<&ImageKey>) -> Option<&'c ImageConfig> {
    Some(&configs.get(&image_name(key?))?.config)
}
