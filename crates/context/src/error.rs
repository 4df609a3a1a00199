//! What can go wrong while a build context is read.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// A build context that cannot be used, or changed while it was.
#[derive(Debug, Error)]
pub enum ContextError {
    /// The path given as context is not there.
    #[error("the build context `{path}` does not exist")]
    Missing {
        /// As it was given.
        path: PathBuf,
    },
    /// The path given as context is not a directory.
    #[error("the build context `{path}` is not a directory")]
    NotADirectory {
        /// As it was given.
        path: PathBuf,
    },
    /// The user may not read a part of it.
    #[error("no permission to read `{path}` in the build context")]
    Denied {
        /// Relative to the context.
        path: PathBuf,
    },
    /// A file shrank, grew or went while it was read.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// Relative to the context.
        path: PathBuf,
    },
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
}

impl ContextError {
    /// Sorts a failed call on a path of the context into the cases that people can act on.
    pub(crate) fn on(error: mica_sys::Error) -> Self {
        match error.kind() {
            io::ErrorKind::PermissionDenied => Self::Denied { path: error.path },
            io::ErrorKind::NotFound => Self::Changed { path: error.path },
            _ => Self::System(error),
        }
    }
}
