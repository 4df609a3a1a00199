//! Why a build ended.

use mica_diagnostic::{Diagnostic, Source, Span};
use mica_oci::DiffId;
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
    /// The build was told to stop.
    #[error("interrupted")]
    Interrupted,
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

impl From<BuildError> for StepError {
    fn from(error: BuildError) -> Self {
        Self::Build(Box::new(error))
    }
}
