//! Why a build ended.

use mica_diagnostic::{Diagnostic, Source, Span};
use mica_dockerfile::Finding;
use mica_oci::{ChainId, DiffId};
use mica_ssh_agent::AgentError;
use thiserror::Error;

use crate::place::PlaceError;
use crate::secret::SecretError;

/// Why a build ended. Facts only: the command line turns them into text, hints and an exit code.
#[derive(Debug, Error)]
pub enum BuildError {
    /// The Dockerfile is wrong; all that is wrong with it.
    #[error("the Dockerfile has {} problem(s)", .diagnostics.len())]
    Dockerfile {
        /// The text.
        source_text: Source,
        /// At least one.
        diagnostics: Vec<Diagnostic>,
    },
    /// The Dockerfile wants findings of its rules to be errors, and there are some.
    #[error("{} finding(s) in the Dockerfile", .findings.len())]
    Checks {
        /// The text.
        source_text: Source,
        /// At least one.
        findings: Vec<Finding>,
    },
    /// Base images cannot be had.
    #[error("{} base image(s) cannot be had", .failures.len())]
    Bases {
        /// The text.
        source_text: Source,
        /// At least one.
        failures: Vec<BaseFailure>,
        /// What else is wrong with the Dockerfile.
        diagnostics: Vec<Diagnostic>,
    },
    /// The ignore file is wrong.
    #[error("`{name}`, line {line}: {message}")]
    Ignore {
        /// Name of the file.
        name: String,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A step failed.
    #[error("{cause}")]
    Step {
        /// The text.
        source_text: Source,
        /// Its instruction.
        span: Span,
        /// Its name as shown while building.
        name: String,
        /// Why.
        cause: Box<StepError>,
        /// The last lines that it wrote.
        output: Vec<String>,
    },
    /// The build context cannot be used.
    #[error(transparent)]
    Context(#[from] mica_context::ContextError),
    /// What SOURCE_DATE_EPOCH names cannot be fetched.
    #[error("SOURCE_DATE_EPOCH: {source}")]
    Epoch {
        /// Why.
        #[source]
        source: Box<crate::remote::RemoteError>,
    },
    /// A named build context cannot be used.
    #[error("build context `{name}`: {source}")]
    NamedContext {
        /// As given.
        name: String,
        /// Why.
        #[source]
        source: mica_context::ContextError,
    },
    /// A layer that the store should have is gone.
    #[error("layer {diff_id} is not in the store")]
    LayerMissing {
        /// Which.
        diff_id: DiffId,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] mica_store::StoreError),
    /// The image could not be put together.
    #[error(transparent)]
    Image(#[from] mica_image::ImageError),
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
    /// A layer of the store is not what its index says.
    #[error("layer {diff_id} is damaged: `{path}`: {reason}")]
    LayerDamaged {
        /// Which.
        diff_id: DiffId,
        /// Set if the layer is kept per chain.
        chain_id: Option<ChainId>,
        /// The file, absolute in the image; `index` for the list of files itself.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A damaged layer cannot be made again while containers stand on it.
    #[error("layer {diff_id} is damaged, and in use by {}", .containers.join(", "))]
    DamagedInUse {
        /// Which.
        diff_id: DiffId,
        /// IDs of running containers.
        containers: Vec<String>,
    },
    /// A layer of a base image is not what its index says, and no step can make it again.
    #[error("base image `{image}` is damaged: layer {diff_id}, `{path}`: {reason}")]
    BaseDamaged {
        /// Canonical name.
        image: String,
        /// Which layer.
        diff_id: DiffId,
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The build was told to stop.
    #[error("interrupted")]
    Interrupted,
}

/// A base image that is not in the store and cannot be fetched.
#[derive(Debug, Error)]
#[error("base image `{as_written}`: {cause}")]
pub struct BaseFailure {
    /// Its name as the Dockerfile has it, variables expanded.
    pub as_written: String,
    /// The piece of the Dockerfile.
    pub span: Span,
    /// The stage that was probably meant.
    pub meant_stage: Option<String>,
    /// What it was wanted for.
    pub platform: String,
    /// Whether the store has it all the same: newer ones were asked for.
    pub is_present: bool,
    /// What images of that name in the store are for, if they are for something else.
    pub present_platforms: Vec<String>,
    /// Why it cannot be fetched.
    #[source]
    pub cause: Box<mica_image::ImageError>,
}

/// Why a step failed.
#[derive(Debug, Error)]
pub enum StepError {
    /// A source of COPY or ADD is not there.
    #[error("`{path}` is not in {place}")]
    SourceMissing {
        /// As written.
        path: String,
        /// `the build context`, or what else `--from` names.
        place: String,
        /// The piece of the Dockerfile.
        span: Span,
        /// The ignore rule that hides it: file, line, pattern.
        hidden_by: Option<Box<(String, usize, String)>>,
        /// A name that is there and looks like it.
        similar: Option<String>,
    },
    /// Files cannot go where they were meant to.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// `--chown` names somebody whom the image does not know.
    #[error("no {kind} `{name}` in `{file}` of the image")]
    UnknownOwner {
        /// `user` or `group`.
        kind: &'static str,
        /// As written.
        name: String,
        /// Where it was looked for.
        file: &'static str,
    },
    /// The program ended with a code other than 0.
    #[error("process \"{command}\" did not complete successfully: exit code: {code}{}", in_tries(*.tries))]
    Exit {
        /// The command as one text.
        command: String,
        /// Its exit code; 128 and the signal's number when one ended it.
        code: i32,
        /// How often it was tried.
        tries: u32,
        /// The name of the state that it left, if it is kept.
        kept: Option<String>,
    },
    /// The state of a failed step is not there any more, or another version wrote it.
    #[error("what failed step `{id}` left is not there any more")]
    StateGone {
        /// Its name.
        id: String,
    },
    /// A limit of steps is malformed.
    #[error("{0}")]
    Limit(mica_container::ContainerError),
    /// Something that this version cannot do.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// What ADD is to fetch cannot be had.
    #[error("{cause}")]
    Remote {
        /// The piece of the Dockerfile.
        span: Span,
        /// Why.
        cause: Box<crate::remote::RemoteError>,
    },
    /// A program for another system.
    #[error("RUN for {platform} is not supported: its programs need another operating system than this one")]
    OtherSystem {
        /// What the step is for.
        platform: String,
    },
    /// A program for another CPU, which nothing here stands in for.
    #[error("programs for {platform} do not run on this machine{}", absent.as_ref().map(|path| format!(
        ": their emulator is registered as `{path}`, which is not in the image"
    )).unwrap_or_else(|| ": no emulator is registered for them".to_owned()))]
    NotEmulated {
        /// What the step is for.
        platform: String,
        /// The emulator that would have to be in the image.
        absent: Option<String>,
    },
    /// A secret that is required was not given.
    #[error("secret `{id}` is required and was not given")]
    SecretMissing {
        /// Its name.
        id: String,
        /// The mount.
        span: Span,
    },
    /// A secret that was given cannot be read.
    #[error("{error}")]
    Secret {
        /// Why.
        #[source]
        error: SecretError,
        /// The mount.
        span: Span,
    },
    /// A secret that is no text was to be a variable.
    #[error("secret `{id}` is not text, and cannot be a variable")]
    SecretNotText {
        /// Its name.
        id: String,
        /// The mount.
        span: Span,
    },
    /// A cache was to begin with what is no directory.
    #[error("a cache cannot begin with `{path}`, which is no directory")]
    CacheSource {
        /// As written.
        path: String,
        /// The mount.
        span: Span,
    },
    /// An ssh agent that is required was not given.
    #[error("the ssh agent `{id}` is required and was not given")]
    AgentMissing {
        /// Its name.
        id: String,
        /// The mount.
        span: Span,
    },
    /// An ssh agent that was given cannot be used.
    #[error("ssh agent `{id}`: {error}")]
    Agent {
        /// Its name.
        id: String,
        /// Why.
        #[source]
        error: AgentError,
        /// The mount.
        span: Span,
    },
    /// An archive cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] mica_layer::LayerError),
    /// An archive that ADD names cannot be unpacked.
    #[error("`{name}`: {source}")]
    Unpack {
        /// As the Dockerfile has it.
        name: String,
        /// Why.
        #[source]
        source: Box<crate::unpack::UnpackError>,
    },
    /// What the step changed cannot be read.
    #[error(transparent)]
    Diff(#[from] mica_layer::diff::DiffError),
    /// The layer cannot be made.
    #[error(transparent)]
    Assemble(#[from] mica_layer::assemble::AssembleError),
    /// The container cannot be made.
    #[error(transparent)]
    Runtime(#[from] mica_runtime::RuntimeError),
    /// A container's network or name cannot be had.
    #[error(transparent)]
    Container(#[from] mica_container::ContainerError),
    /// `--add-host` is malformed.
    #[error(transparent)]
    Network(#[from] mica_network::Error),
    /// A file of the build context changed while a step used it.
    #[error("`{path}` of the build context changed while the step ran: {reason}")]
    ContextChanged {
        /// Relative to the context.
        path: String,
        /// What was seen.
        reason: String,
    },
    /// The step's files cannot be served.
    #[error(transparent)]
    Serve(#[from] mica_trace::ServeError),
    /// The build around it failed.
    #[error(transparent)]
    Build(Box<BuildError>),
    /// Another step failed first.
    #[error("cancelled")]
    Cancelled,
}

macro_rules! through_build_error {
    ($($error:ty),*) => {$(
        impl From<$error> for StepError {
            fn from(error: $error) -> Self {
                Self::Build(Box::new(error.into()))
            }
        }
    )*};
}

through_build_error!(
    mica_context::ContextError,
    mica_store::StoreError,
    mica_image::ImageError,
    mica_sys::Error
);

fn in_tries(tries: u32) -> String {
    match tries {
        1 => String::new(),
        tries => format!(", after {tries} tries"),
    }
}

impl StepError {
    /// The piece of the instruction that it is about, if it is not all of it.
    pub fn span(&self) -> Option<Span> {
        match self {
            Self::SourceMissing { span, .. }
            | Self::SecretMissing { span, .. }
            | Self::Secret { span, .. }
            | Self::SecretNotText { span, .. }
            | Self::CacheSource { span, .. }
            | Self::AgentMissing { span, .. }
            | Self::Agent { span, .. }
            | Self::Remote { span, .. } => Some(*span),
            _ => None,
        }
    }
}

impl BuildError {
    /// A layer that is not what its index says.
    pub(crate) fn damaged(layer: &mica_store::Layer, path: String, reason: &str) -> Self {
        let record = &layer.record;
        let (diff_id, chain_id) = (record.diff_id.clone(), record.chain_id.clone());
        Self::LayerDamaged { diff_id, chain_id, path, reason: reason.to_owned() }
    }
}

impl From<BuildError> for StepError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}
