//! Why a build ended.

use mica_diagnostic::{Diagnostic, Source, Span};
use mica_oci::{ChainId, DiffId};
use thiserror::Error;

use crate::place::PlaceError;

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
    #[error("process \"{command}\" did not complete successfully: exit code: {code}")]
    Exit {
        /// The command as one text.
        command: String,
        /// Its exit code; 128 and the signal's number when one ended it.
        code: i32,
    },
    /// Something that this version cannot do.
    #[error("{what} is not supported yet")]
    Unsupported {
        /// What.
        what: &'static str,
    },
    /// A secret that is required was not given.
    #[error("secret `{id}` is required and was not given")]
    SecretMissing {
        /// Its name.
        id: String,
    },
    /// An archive cannot be unpacked.
    #[error(transparent)]
    Archive(#[from] mica_layer::LayerError),
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
