//! What can go wrong with containers.

use std::path::PathBuf;

/// Result of this room.
pub type Result<T> = std::result::Result<T, ContainerError>;

/// An error of this room, or of one below.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// A Linux call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] mica_store::StoreError),
    /// The runtime failed, or the command is not there or not executable.
    #[error(transparent)]
    Runtime(#[from] mica_runtime::RuntimeError),
    /// The network failed.
    #[error(transparent)]
    Network(#[from] mica_network::Error),
    /// No image of that name or id.
    #[error("no such image: {name}")]
    ImageMissing {
        /// As given.
        name: String,
    },
    /// A stored image lacks a layer.
    #[error("layer {diff_id} of image {image} is not stored")]
    LayerMissing {
        /// The image.
        image: String,
        /// The layer.
        diff_id: String,
    },
    /// A stored document cannot be read.
    #[error("cannot read {what}: {reason}")]
    Document {
        /// Which one.
        what: String,
        /// Why.
        reason: String,
    },
    /// Neither the image nor the user says what to run.
    #[error("no command specified")]
    CommandMissing,
    /// No container of that name or id.
    #[error("No such container: {name}")]
    ContainerMissing {
        /// As given.
        name: String,
    },
    /// The container must run for this.
    #[error("container {id} is not running")]
    NotRunning {
        /// Its id.
        id: String,
    },
    /// Somebody else has just started it.
    #[error("container {id} is already running")]
    AlreadyRunning {
        /// Its id.
        id: String,
    },
    /// The container must not run for this.
    #[error("container {id} is running: stop it first, or use `-f`")]
    StillRunning {
        /// Its id.
        id: String,
    },
    /// A value of an option is wrong.
    #[error("invalid {what}: `{value}`: {reason}")]
    OptionInvalid {
        /// Which option.
        what: &'static str,
        /// As given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The source of a bind mount is not there.
    #[error("bind source path does not exist: {}", .path.display())]
    BindSourceMissing {
        /// The source.
        path: PathBuf,
    },
    /// Two mounts on one place.
    #[error("duplicate mount point: {target}")]
    DuplicateMount {
        /// The place.
        target: String,
    },
    /// The process that watches over a container ended without a word.
    #[error("the monitor of container {id} ended unexpectedly")]
    MonitorDied {
        /// The container.
        id: String,
    },
    /// The monitor of a container said why it could not start it.
    #[error("{message}")]
    MonitorFailed {
        /// Its words.
        message: String,
        /// Exit code for the command line.
        code: i32,
    },
    /// The container's output goes to the terminal that started it.
    #[error("container {id} runs in the foreground elsewhere: its streams cannot be attached")]
    NotAttachable {
        /// Its id.
        id: String,
    },
}

impl ContainerError {
    /// The exit code docker users expect of `run`: 127 command not found, 126 not executable, 125 all else.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Runtime(error) => error.exit_code(),
            Self::MonitorFailed { code, .. } => *code,
            _ => 125,
        }
    }
}
