//! One build: from a Dockerfile's text to a stored image.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::Dockerfile;
use mica_dockerfile::dockerignore::Dockerignore;
use mica_oci::{ChainId, DiffId, Digest, ImageConfig, ImageId, Reference};
use mica_plan::{
    BaseImage, BaseRequest, FileSource, FilesystemState, Graph, ImageKey, PlanOptions, StepId,
    needed_bases_with, plan,
};
use mica_store::{Forgotten, Lease, Store};
use mica_tree::{MergedIndex, Time};

use crate::assemble_image;
use crate::base::{BaseSource, Bases, Finder, image_name};
use crate::error::{BuildError, StepError};
use crate::event::{Event, Events};
use crate::exec_copy::SourceTree;
use crate::filesystem::{Chain, Indexes};
use crate::outcomes::{Outcome, Outcomes};
use crate::policy::{self, CacheMode};
use crate::report;
use crate::reuse::{Key, Keys};
use crate::traced::without_owners;
use crate::verdict::{BuildReport, Reason, Verdict};

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
    /// Ask for base images even if they are there.
    pub pull: bool,
    /// Use no result of earlier builds.
    pub no_cache: bool,
    /// Stages, by name or number, that no result of earlier builds is used for.
    pub no_cache_stages: Vec<String>,
    /// On which layers results of earlier builds are used; a step's own comment can be stricter.
    pub cache: CacheMode,
    /// How old a result may be that was made with the network.
    pub cache_ttl_seconds: Option<u64>,
    /// Network of RUN.
    pub network: BuildNetwork,
    /// Lines for /etc/hosts, `NAME:ADDRESS`.
    pub add_hosts: Vec<String>,
    /// The caller is in a user namespace.
    pub rootless: bool,
    /// Say also what changed below steps that are taken over; costs a look at the earlier layers.
    pub explain: bool,
    /// Now, seconds since 1970; SOURCE_DATE_EPOCH when that is set.
    pub now_seconds: i64,
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// Digest of the config.
    pub image: ImageId,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// Warnings about the Dockerfile.
    pub warnings: Vec<Diagnostic>,
    /// What is said of each step.
    pub report: BuildReport,
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
    pub lease: Lease,
    warned: Mutex<std::collections::BTreeSet<String>>,
}

/// Damaged layers that one build makes again before it gives up.
const REPAIRS_MAX: usize = 16;

/// Builds an image and stores it under its names. `interrupted` may be set from outside to end the build.
///
/// A layer of an earlier build that turns out to be damaged is forgotten, and the build begins again: slower, and right.
pub fn build(
    store: &Store,
    request: &BuildRequest,
    bases: &dyn BaseSource,
    events: &Events<'_>,
    interrupted: &AtomicBool,
) -> Result<Built, BuildError> {
    for _ in 0..REPAIRS_MAX {
        match build_once(store, request, bases, events, interrupted) {
            Err(BuildError::LayerDamaged { diff_id, chain_id, path, reason }) => {
                let message = format!("layer {diff_id} is damaged (`{path}`: {reason}); it is made again");
                forget_damaged(store, &diff_id, chain_id.as_ref())?;
                events(Event::Warning { message });
            }
            other => return other,
        }
    }
    build_once(store, request, bases, events, interrupted)
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
    source: &dyn BaseSource,
    events: &Events<'_>,
    interrupted: &AtomicBool,
) -> Result<Built, BuildError> {
    let text = &request.dockerfile;
    let wrong = |diagnostics| BuildError::Dockerfile { source_text: text.clone(), diagnostics };
    let dockerfile = parse(text, &request.plan).map_err(wrong)?;
    events(Event::Dockerfile { name: text.name.to_string(), size_bytes: text.text.len() as u64 });
    let ignore = parse_ignore(request)?;
    let lease = store.lease()?;
    let finder = Finder { store, request, source, lease: &lease, events };
    let mut bases = Bases::default();
    loop {
        // Triggers of a base image may need further images.
        let known = |key: &ImageKey| bases.configs.get(&image_name(key));
        let requests = needed_bases_with(&dockerfile, &request.plan, &known).map_err(wrong)?;
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
        context_without_owners: OnceLock::new(),
        produced: Mutex::default(),
        looked_up: Mutex::default(),
        verdicts: Mutex::default(),
        looked_at_bytes: AtomicU64::new(0),
        untraced: OnceLock::new(),
        cancelled: AtomicBool::new(false),
        interrupted,
        lease,
        warned: Mutex::default(),
    };
    let outcomes = build.run();
    if let Some((directory, _)) = build.context.get() {
        directory.save();
    }
    let outcomes = outcomes.map_err(|error| build.of_base(error))?;
    let mut warnings = dockerfile.warnings.clone();
    warnings.extend(graph.warnings.iter().cloned());
    warnings.extend(policy::unknown_stages(request, &graph));
    let (image, manifest) = assemble_image::assemble_image(&build, &configs, &outcomes)?;
    let report = report::report(&build, &image, &outcomes)?;
    Ok(Built { image, manifest, warnings, report })
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
    let BuildError::Bases { source_text, failures, mut diagnostics } = error else { return error };
    let blank = BaseImage { config: ImageConfig::new(&options.platform) };
    let base = |key: &ImageKey| Some(configs.get(&image_name(key)).unwrap_or(&blank));
    add_problems(&mut diagnostics, plan(dockerfile, options, &base).err().unwrap_or_default());
    diagnostics.retain(|problem| !failures.iter().any(|failure| failure.span == problem.span));
    BuildError::Bases { source_text, failures, diagnostics }
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

    /// The context as containers see it: everything is root's.
    pub fn context_without_owners(
        &self,
    ) -> Result<(Arc<mica_context::SourceDir>, Arc<MergedIndex>), StepError> {
        let (directory, _) = self.context()?;
        let make = || Arc::new(MergedIndex::new([Arc::new(without_owners(directory.index()))]));
        let merged = self.context_without_owners.get_or_init(make).clone();
        Ok((directory, merged))
    }

    /// Why steps cannot be traced here; `None` when they can.
    pub fn why_untraced(&self) -> Option<&str> {
        let probe = || mica_trace::probe().err().map(|error| error.to_string());
        self.untraced.get_or_init(probe).as_deref()
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
