//! One build: from a Dockerfile's text to a stored image.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::Dockerfile;
use mica_dockerfile::dockerignore::{Dockerignore, IgnoreError};
use mica_dockerfile::suggest::suggest;
use mica_oci::{ChainId, DiffId, ImageConfig, ImageId};
use mica_plan::{
    BaseImage, BaseRequest, CopySourceSpec, CopyStep, FileSource, FilesystemState, Graph, ImageKey,
    PlanOptions, PlatformTarget, StepId, needed_bases_with, plan,
};
use mica_store::{Forgotten, Lease, Store};
use mica_tree::{MergedIndex, Time};

use crate::assemble_image;
use crate::base::{BaseSource, Bases, Finder, image_name};
use crate::caches::Caches;
use crate::entitlements;
use crate::error::{BuildError, StepError};
use crate::event::{Event, Events};
use crate::exec_copy::SourceTree;
use crate::failed;
use crate::fetched::{FetchedContext, Fetcher};
use crate::filesystem::{Chain, Indexes};
use crate::inspect;
use crate::named::NamedContexts;
use crate::outcomes::{Outcome, Outcomes};
use crate::platforms;
use crate::policy;
use crate::remote::Remotes;
use crate::report;
use crate::request::{BuildRequest, Built, IgnoreFile};
use crate::reuse::{Key, Keys};
use crate::times::Times;
use crate::traced::without_owners;
use crate::verdict::{Reason, Verdict};

/// What a build needs that must outlive single steps.
pub(crate) struct Build<'a> {
    pub store: &'a Store,
    pub request: &'a BuildRequest,
    pub graph: &'a Graph,
    /// What the graph makes, for each platform in the order of the request.
    pub targets: &'a [PlatformTarget],
    pub times: Times,
    pub events: &'a Events<'a>,
    pub indexes: Indexes,
    ignore: Option<&'a Dockerignore>,
    bases: HashMap<String, Arc<Chain>>,
    context: OnceLock<(Arc<mica_context::SourceDir>, Arc<MergedIndex>)>,
    context_lock: Mutex<()>,
    /// The context as containers see it.
    context_without_owners: OnceLock<Arc<MergedIndex>>,
    /// Results of this build, by key: two stages with the same step run it once.
    pub produced: Mutex<HashMap<Key, Arc<Mutex<Option<Outcome>>>>>,
    /// What was found out about steps that have to run.
    pub looked_up: Mutex<HashMap<StepId, (Keys, Reason)>>,
    /// What is said of each step, with how long it ran in milliseconds.
    pub verdicts: Mutex<HashMap<StepId, (Verdict, u64)>>,
    /// Bytes of the indexes of layers that were looked at before they were taken over.
    pub looked_at_bytes: AtomicU64,
    /// Why steps cannot be traced here.
    untraced: OnceLock<Option<String>>,
    /// Set when a step failed: the others are ended.
    pub cancelled: AtomicBool,
    /// Set from outside, by a signal.
    pub interrupted: &'a AtomicBool,
    pub lease: Arc<Lease>,
    /// Results of steps from elsewhere, and for there.
    pub caches: &'a Caches,
    /// What the steps that are done were looked up by.
    pub done: Mutex<HashMap<StepId, Keys>>,
    /// Held while the directory of a cache mount is filled.
    pub mounts_lock: Mutex<()>,
    warned: Mutex<std::collections::BTreeSet<String>>,
    /// What ADD fetches.
    pub remotes: Remotes,
    /// Named build contexts that are files.
    pub named: NamedContexts,
}

/// What a build may ask of whoever called for it.
pub struct Outside<'a> {
    /// Base images that the store lacks.
    pub bases: &'a dyn BaseSource,
    /// Results of steps from elsewhere, and for there.
    pub caches: &'a Caches,
}

/// Damaged layers that one build makes again before it gives up.
const REPAIRS_MAX: usize = 16;

/// Builds an image and stores it under its names. `interrupted` may be set from outside to end the build.
///
/// A layer of an earlier build that turns out to be damaged is forgotten, and the build begins again: slower, and right.
pub fn build(
    store: &Store,
    request: &BuildRequest,
    outside: &Outside<'_>,
    events: &Events<'_>,
    interrupted: &AtomicBool,
) -> Result<Built, BuildError> {
    for _ in 0..REPAIRS_MAX {
        match build_once(store, request, outside, events, interrupted) {
            Err(BuildError::LayerDamaged { diff_id, chain_id, path, reason }) => {
                let message = format!("layer {diff_id} is damaged (`{path}`: {reason}); it is made again");
                forget_damaged(store, &diff_id, chain_id.as_ref())?;
                events(Event::Warning { message });
            }
            other => return other,
        }
    }
    build_once(store, request, outside, events, interrupted)
}

/// Makes room for the layer to be made again.
pub(crate) fn forget_damaged(
    store: &Store,
    diff_id: &DiffId,
    chain_id: Option<&ChainId>,
) -> Result<(), BuildError> {
    match store.forget_layer(diff_id, chain_id)? {
        Forgotten::InUse { containers, .. } => {
            Err(BuildError::DamagedInUse { diff_id: diff_id.clone(), containers })
        }
        Forgotten::Absent | Forgotten::Removed { .. } => Ok(()),
    }
}

fn build_once(
    store: &Store,
    request: &BuildRequest,
    outside: &Outside<'_>,
    events: &Events<'_>,
    interrupted: &AtomicBool,
) -> Result<Built, BuildError> {
    let text = &request.dockerfile;
    let wrong = |diagnostics| BuildError::Dockerfile { source_text: text.clone(), diagnostics };
    let every = platforms::options(request);
    let dockerfile = parse(text, &request.plan).map_err(wrong)?;
    events(Event::Dockerfile { name: text.name.to_string(), size_bytes: text.text.len() as u64 });
    let ignore = parse_ignore(request)?;
    let lease = Arc::new(store.lease()?);
    let finder = Finder { store, request, source: outside.bases, lease: &lease, events };
    let mut bases = Bases::default();
    loop {
        // Triggers of a base image may need further images.
        let known = |key: &ImageKey| bases.configs.get(&image_name(key));
        let requests = platforms::needed_bases(&dockerfile, &every, &known).map_err(wrong)?;
        let is_new = |request: &BaseRequest| !bases.chains.contains_key(&image_name(&request.key));
        let new: Vec<_> = requests.into_iter().filter(is_new).collect();
        if new.is_empty() {
            break;
        }
        finder
            .find_all(&new, &mut bases)
            .map_err(|error| and_what_else(error, &dockerfile, &request.plan, &bases.configs))?;
    }
    let Bases { configs, chains } = bases;
    let known = |key: &ImageKey| configs.get(&image_name(key));
    let (planned, found) = inspect::plan(&dockerfile, request, &every, ignore.as_ref(), &known);
    let (graph, targets) = planned.map_err(wrong)?;
    entitlements::check(request, &graph).map_err(wrong)?;
    let findings = found.into_findings(text)?;
    events(Event::Planned { names: graph.steps.iter().map(|step| step.name.clone()).collect() });
    let stopped = || interrupted.load(Ordering::Relaxed);
    let fetcher = Fetcher { store, secrets: &request.secrets, stopped: &stopped };
    let times = Times::new(request, &graph, events, &|source| fetcher.time(source))?;
    let build = Build {
        store,
        request,
        graph: &graph,
        targets: &targets,
        times,
        events,
        indexes: Indexes::default(),
        ignore: ignore.as_ref(),
        bases: chains,
        context: OnceLock::new(),
        context_lock: Mutex::new(()),
        context_without_owners: OnceLock::new(),
        produced: Mutex::default(),
        looked_up: Mutex::default(),
        verdicts: Mutex::default(),
        looked_at_bytes: AtomicU64::new(0),
        untraced: OnceLock::new(),
        cancelled: AtomicBool::new(false),
        interrupted,
        lease,
        caches: outside.caches,
        done: Mutex::default(),
        mounts_lock: Mutex::default(),
        warned: Mutex::default(),
        remotes: Remotes::default(),
        named: NamedContexts::default(),
    };
    build.tell_graph();
    let outcomes = build.run();
    if let Some((directory, _)) = build.context.get() {
        directory.save();
    }
    build.named.save();
    let outcomes = outcomes.map_err(|error| build.of_base(error))?;
    let mut warnings = dockerfile.warnings.clone();
    warnings.extend(policy::unknown_stages(request, &graph));
    let (images, index) = assemble_image::assemble_images(&build, &configs, &outcomes)?;
    build.hand_results_over(&outcomes).map_err(of_step)?;
    let report = report::report(&build, &images, &outcomes)?;
    store.forget_failed_steps(&failed::context_of(&build))?;
    let unused_args = graph.unused_args.clone();
    let source_date_epoch = build.times.told();
    Ok(Built { images, index, source_date_epoch, warnings, findings, unused_args, report })
}

/// The failure of something that no step is at fault for.
pub(crate) fn of_step(error: StepError) -> BuildError {
    match error {
        StepError::Build(error) => *error,
        _ => BuildError::Interrupted,
    }
}

/// Parses the Dockerfile. If it is wrong, what planning the rest finds is told as well, so that nobody mends one line to
/// be told of the next.
pub(crate) fn parse(source: &Source, options: &PlanOptions) -> Result<Dockerfile, Vec<Diagnostic>> {
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
    let BuildError::Bases { source_text, mut failures, mut diagnostics } = error else { return error };
    let stages = dockerfile.stages.iter().filter_map(|stage| Some(stage.from.name.as_ref()?.value.as_str()));
    let stages: Vec<&str> = stages.collect();
    for failure in &mut failures {
        failure.meant_stage = suggest(&failure.as_written, &stages).map(ToOwned::to_owned);
    }
    let blank = BaseImage { config: ImageConfig::new(&options.platform) };
    let base = |key: &ImageKey| Some(configs.get(&image_name(key)).unwrap_or(&blank));
    add_problems(&mut diagnostics, plan(dockerfile, options, &base).err().unwrap_or_default());
    diagnostics.retain(|problem| !failures.iter().any(|failure| failure.span == problem.span));
    BuildError::Bases { source_text, failures, diagnostics }
}

pub(crate) fn parse_ignore(request: &BuildRequest) -> Result<Option<Dockerignore>, BuildError> {
    let Some(file) = &request.ignore else { return Ok(None) };
    Dockerignore::parse(&file.text).map(Some).map_err(|errors| ignore_error(file, errors))
}

/// The first of the errors of an ignore file.
pub(crate) fn ignore_error(file: &IgnoreFile, errors: Vec<IgnoreError>) -> BuildError {
    let first = errors.into_iter().next();
    let line = first.as_ref().map_or(1, |error| error.line());
    let message = first.map(|error| error.to_string()).unwrap_or_default();
    // The line is told with the file.
    let message = message.trim_start_matches(&format!("line {line}: ")).to_owned();
    BuildError::Ignore { name: file.name.clone(), line, message }
}

impl Build<'_> {
    pub fn rootless(&self) -> bool {
        self.request.rootless
    }

    /// A damaged layer of a base image cannot be made again by a step.
    fn of_base(&self, error: BuildError) -> BuildError {
        let BuildError::LayerDamaged { diff_id, chain_id, path, reason } = &error else { return error };
        let base = self.bases.iter().find(|(_, chain)| chain.diff_ids().contains(diff_id));
        let Some((name, _)) = base else { return error };
        // Else the image that is brought in again would find it there, and leave it as it is.
        if let Err(error) = self.store.distrust_layer(diff_id, chain_id.as_ref()) {
            return error.into();
        }
        let image = name.split(' ').next().unwrap_or(name).to_owned();
        let (diff_id, path, reason) = (diff_id.clone(), path.clone(), reason.clone());
        BuildError::BaseDamaged { image, diff_id, path, reason }
    }

    /// The image that a base is.
    pub fn base_image(&self, key: &ImageKey) -> Option<ImageId> {
        self.bases.get(&image_name(key))?.image().cloned()
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
        self.times.of_new_files()
    }

    /// The rule that hides a path of a context: file, line, pattern.
    pub fn hidden_by(&self, from: &FileSource, path: &str) -> Option<(String, usize, String)> {
        let of_named;
        let (rules, file, directory) = match from {
            FileSource::Context => {
                (self.ignore?, self.request.ignore.as_ref()?, self.request.context.as_ref()?)
            }
            FileSource::State(FilesystemState::NamedContext(name)) => {
                let given = self.request.named_directories.iter().find(|given| given.name == *name)?;
                let file = given.ignore.as_ref()?;
                of_named = Dockerignore::parse(&file.text).ok()?;
                (&of_named, file, &given.path)
            }
            FileSource::State(_) => return None,
        };
        let name = file.name.clone();
        let path = String::from_utf8(crate::place::clean(path)).ok()?;
        let ignored = rules.matches(&path);
        // The path must be there, or the rule is not the reason.
        let there = directory.join(&path).symlink_metadata().is_ok();
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

    /// The context that was fetched to a directory.
    fn fetched(&self, path: &std::path::Path) -> Option<&FetchedContext> {
        self.request.fetched.iter().find(|fetched| fetched.path == path).map(|fetched| &**fetched)
    }

    /// Where digests of a context's files are remembered; not of one whose directory goes when the build ends.
    pub fn stat_cache(&self, path: &std::path::Path) -> Option<std::path::PathBuf> {
        match self.fetched(path) {
            Some(_) => None,
            None => Some(self.store.context_directory().join(context_name(path))),
        }
    }

    /// What the build context is known by from one build to the next.
    pub fn context_name(&self) -> Option<String> {
        let path = self.request.context.as_ref()?;
        Some(match self.fetched(path) {
            Some(fetched) => blake3::hash(fetched.label.as_bytes()).to_hex().as_str()[..32].to_owned(),
            None => context_name(path),
        })
    }

    /// The context, walked at first use.
    fn context(&self) -> Result<(Arc<mica_context::SourceDir>, Arc<MergedIndex>), StepError> {
        let _one = self.context_lock.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some((directory, merged)) = self.context.get() {
            return Ok((directory.clone(), merged.clone()));
        }
        let Some(path) = &self.request.context else {
            // As BuildKit: a Dockerfile alone has a context with nothing in it.
            let empty = self.store.ingest()?;
            let directory = Arc::new(mica_context::SourceDir::open(&empty.tree(), None, None)?);
            let merged = Arc::new(MergedIndex::new([directory.index().clone()]));
            let _ = self.context.set((directory.clone(), merged.clone()));
            return Ok((directory, merged));
        };
        let started = Instant::now();
        let cache = self.stat_cache(path);
        let directory = Arc::new(mica_context::SourceDir::open(path, self.ignore, cache.as_deref())?);
        let index = self.times.context(directory.index());
        let merged = Arc::new(MergedIndex::new([index]));
        (self.events)(Event::Context {
            entries: directory.index().entries().len(),
            elapsed: started.elapsed(),
        });
        let _ = self.context.set((directory.clone(), merged.clone()));
        Ok((directory, merged))
    }

    /// The context as containers see it: everything is root's.
    pub fn context_without_owners(
        &self,
    ) -> Result<(Arc<mica_context::SourceDir>, Arc<MergedIndex>), StepError> {
        let (directory, _) = self.context()?;
        let make =
            || Arc::new(MergedIndex::new([self.times.context(&Arc::new(without_owners(directory.index())))]));
        let merged = self.context_without_owners.get_or_init(make).clone();
        Ok((directory, merged))
    }

    /// Why steps cannot be traced here; `None` when they can.
    pub fn why_untraced(&self) -> Option<&str> {
        let probe = || mica_trace::probe().err().map(|error| error.to_string());
        self.untraced.get_or_init(probe).as_deref()
    }

    /// The files that the words of a COPY are looked up in: none where all of it is fetched or inline.
    pub fn copy_source(&self, copy: &CopyStep, outcomes: &Outcomes) -> Result<SourceTree, StepError> {
        match copy.sources.iter().any(|source| matches!(source.spec, CopySourceSpec::Path(_))) {
            true => self.source(&copy.from, outcomes),
            false => self.source(&FileSource::State(FilesystemState::Scratch), outcomes),
        }
    }

    /// The files that a step reads besides its own.
    pub fn source(&self, from: &FileSource, outcomes: &Outcomes) -> Result<SourceTree, StepError> {
        Ok(match from {
            FileSource::Context => {
                let (directory, merged) = self.context()?;
                SourceTree::Context { directory, merged }
            }
            FileSource::State(FilesystemState::NamedContext(name)) => self.named_source(name)?,
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
            FilesystemState::NamedContext(name) => self.named_chain(name, outcomes),
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
}

/// What a mutex holds; a thread that panicked with it left values that are whole.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Name of a context directory, which its stat cache is kept under.
pub(crate) fn context_name(path: &std::path::Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    blake3::hash(path.as_os_str().as_bytes()).to_hex().as_str()[..32].to_owned()
}

/// Configs of the base images, by [`image_name`].
pub(crate) type BaseConfigs = HashMap<String, BaseImage>;

/// The config a stage begins with, if it begins with an image.
pub(crate) fn base_config<'c>(configs: &'c BaseConfigs, key: Option<&ImageKey>) -> Option<&'c ImageConfig> {
    Some(&configs.get(&image_name(key?))?.config)
}
