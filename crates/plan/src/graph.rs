//! The graph of steps that make one target, and what its image says.

use crate::step::{CopySourceSpec, Step};
use mica_diagnostic::Span;
use mica_oci::{ImageConfig, Platform, Reference};

/// Place of a step in [`Graph::steps`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StepId(pub usize);

/// An image for one platform: what a base is asked for by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// Which image, normalized.
    pub reference: Reference,
    /// For which platform.
    pub platform: Platform,
}

/// A filesystem that steps start from or read from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FilesystemState {
    /// Nothing.
    Scratch,
    /// An image as it is.
    Image(ImageKey),
    /// The files of a named build context (a directory, archive or git tree; an image one is [`FilesystemState::Image`]).
    NamedContext(String),
    /// What a step left.
    Step(StepId),
}

/// What is wanted of a Dockerfile.
#[derive(Debug, Clone)]
pub struct PlanOptions {
    /// Stage to build, by name or number; the last when absent.
    pub target: Option<String>,
    /// `--build-arg`, in order; the last of a name wins.
    pub build_args: Vec<(String, String)>,
    /// What is built for.
    pub platform: Platform,
    /// What builds.
    pub build_platform: Platform,
    /// `--label`
    pub labels: Vec<(String, String)>,
    /// Proxy variables for RUN when the Dockerfile does not declare them (`--build-arg HTTP_PROXY=` ends up here too).
    pub hidden_args: Vec<(String, String)>,
    /// `--build-context`
    pub named_contexts: Vec<NamedContext>,
    /// SOURCE_DATE_EPOCH of the caller's environment, seconds.
    pub source_date_epoch: Option<i64>,
    /// Whether several platforms are built, so names of steps tell which.
    pub multi_platform: bool,
    /// Whether the platform was asked for, so that the image says so whatever its base said.
    pub platform_is_given: bool,
}

impl PlanOptions {
    /// The last stage for that platform, built on it, nothing else said.
    pub fn for_platform(platform: Platform) -> Self {
        Self {
            target: None,
            build_args: Vec::new(),
            build_platform: platform.clone(),
            platform,
            labels: Vec::new(),
            hidden_args: Vec::new(),
            named_contexts: Vec::new(),
            source_date_epoch: None,
            multi_platform: false,
            platform_is_given: false,
        }
    }
}

/// `--build-context NAME=...`: stands for a stage or image of that name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedContext {
    /// As given.
    pub name: String,
    /// The image, when it is `docker-image://`; else files that the executor knows by the name.
    pub image: Option<Reference>,
}

/// An image that the target cannot be planned or built without.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseRequest {
    /// Which image, for which platform.
    pub key: ImageKey,
    /// The text in the Dockerfile, variables expanded.
    pub as_written: String,
    /// First mention.
    pub span: Span,
    /// Whether a stage begins with it, so its config matters; else only its files are read.
    pub is_base: bool,
}

/// A base image as far as planning needs it.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// Its config, as stored.
    pub config: ImageConfig,
}

/// All that has to be done for one target on one platform.
#[derive(Debug, Clone)]
pub struct Graph {
    /// Every step comes after all it needs. Only what the target needs is here.
    pub steps: Vec<Step>,
    /// The stage that was asked for.
    pub target: StageResult,
    /// Names of all stages in order of the file, needed or not: what is behind AS, else `stage-0`, `stage-1`, ...
    pub stage_names: Vec<String>,
    /// Where the times of the image come from, if SOURCE_DATE_EPOCH says so.
    pub source_date_epoch: Option<SourceDateEpoch>,
    /// Build arguments that nothing asks for.
    pub unused_args: Vec<String>,
    /// Arguments that the target depends on, in order of the file.
    pub args: Vec<DeclaredArg>,
}

/// What SOURCE_DATE_EPOCH means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceDateEpoch {
    /// That many seconds since 1970.
    Seconds(i64),
    /// The time of the build context: of the git commit or the HTTP answer; a directory has none.
    Context,
    /// The time of a named context.
    NamedContext(String),
    /// The time of what a stage fetches.
    Remote(CopySourceSpec),
}

/// An ARG that the target depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredArg {
    /// Its name.
    pub name: String,
    /// What it stands for, if it stands for anything.
    pub value: Option<String>,
    /// What the comment above says of it.
    pub description: Option<String>,
    /// Its instruction.
    pub span: Span,
}

impl Graph {
    /// The step of that id.
    pub fn step(&self, id: StepId) -> Option<&Step> {
        self.steps.get(id.0)
    }

    /// The image that a state stands on, through however many steps; `None` for what begins with nothing (an image
    /// without layers is nothing too) and for named contexts.
    pub fn base_of<'a>(&'a self, state: &'a FilesystemState) -> Option<&'a ImageKey> {
        let mut state = state;
        // Invariant 2: every parent stands before its step, so there are no more than that.
        for _ in 0..=self.steps.len() {
            match state {
                FilesystemState::Image(key) => return Some(key),
                FilesystemState::Step(id) => state = &self.step(*id)?.parent,
                FilesystemState::Scratch | FilesystemState::NamedContext(_) => return None,
            }
        }
        None
    }
}

/// What a stage is when all its steps are done.
#[derive(Debug, Clone)]
pub struct StageResult {
    /// Its files.
    pub state: FilesystemState,
    /// The image it begins with, through however many stages; `None` for scratch and named contexts.
    pub base: Option<ImageKey>,
    /// Its config without layers, history and creation time; those are the builder's.
    pub config: ImageConfig,
    /// Entries to add after those of the base.
    pub history: Vec<PlannedHistory>,
}

/// An entry of the image's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedHistory {
    /// `RUN /bin/sh -c make # buildkit`
    pub created_by: String,
    /// The step whose result is the entry's layer; `None` makes it an empty layer.
    pub step: Option<StepId>,
    /// Always [`HISTORY_COMMENT`].
    pub comment: &'static str,
}

impl PlannedHistory {
    /// Whether it adds no layer.
    pub fn empty_layer(&self) -> bool {
        self.step.is_none()
    }
}

/// Comment of every history entry, as every BuildKit writes it, because people and tools search for it.
pub const HISTORY_COMMENT: &str = "buildkit.dockerfile.v0";
