//! What can go wrong while a build context is read.

use std::io;
use std::path::PathBuf;

use mica_http::{Fault, HttpError};
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
    /// A URL cannot be fetched.
    #[error("cannot fetch `{url}`: {problem}")]
    Http {
        /// Without login and query.
        url: String,
        /// Why.
        problem: Box<HttpProblem>,
    },
    /// A git repository cannot be fetched.
    #[error("cannot fetch the git repository `{remote}`: {problem}")]
    Git {
        /// Without login and query.
        remote: String,
        /// Why.
        problem: Box<GitProblem>,
    },
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
}

/// Why a URL cannot be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum HttpProblem {
    /// It is no URL of the web.
    #[error("not a URL that can be fetched: {0}")]
    Url(String),
    /// The server has no such thing, or does not give it.
    #[error("`{host}` answered with status {status}")]
    Status {
        /// Who answered.
        host: String,
        /// The status.
        status: u16,
    },
    /// The exchange failed.
    #[error("{0}")]
    Exchange(Fault),
    /// It broke off in the middle, again and again.
    #[error("the transfer broke off after {received} bytes{}: {fault}", of(*.expected))]
    Incomplete {
        /// Bytes that came.
        received: u64,
        /// Bytes that should have come, if the server said.
        expected: Option<u64>,
        /// How it broke.
        fault: Fault,
    },
    /// Nothing can be asked at all.
    #[error(transparent)]
    Client(#[from] HttpError),
    /// A redirect that is not followed.
    #[error("redirect of `{host}` is not followed: {reason}")]
    Redirect {
        /// Who redirected.
        host: String,
        /// Why not.
        reason: &'static str,
    },
    /// More than is taken.
    #[error("larger than {size_bytes_max} bytes")]
    TooLarge {
        /// The bound.
        size_bytes_max: u64,
    },
    /// The value of a secret cannot stand in a header.
    #[error("its login holds characters that no header can have")]
    Login,
    /// The build was told to stop.
    #[error("interrupted")]
    Interrupted,
}

fn of(expected: Option<u64>) -> String {
    expected.map(|expected| format!(" of {expected}")).unwrap_or_default()
}

/// Why a git repository cannot be fetched.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum GitProblem {
    /// There is no `git` here.
    #[error("`git` is not installed")]
    NotInstalled,
    /// An address or a reference that git would take for an option, or for something else than it says.
    #[error("`{text}` is not taken as {what}")]
    Refused {
        /// `an address`, `a reference`.
        what: &'static str,
        /// Which.
        text: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("it has no `{reference}`")]
    NoReference {
        /// As asked for.
        reference: String,
    },
    /// Another commit than it must be.
    #[error("it is at commit `{found}`, expected `{expected}`")]
    Checksum {
        /// As asked for, perhaps only the beginning.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The directory that is asked for is not there, or leads out.
    #[error("its directory `{path}` {problem}")]
    Subdirectory {
        /// As asked for.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// `git` failed.
    #[error("`git {command}` failed: {message}")]
    Failed {
        /// What it was to do.
        command: &'static str,
        /// Its words, shortened.
        message: String,
    },
    /// The value of a secret cannot stand in a header.
    #[error("its login holds characters that no header can have")]
    Login,
    /// The build was told to stop.
    #[error("interrupted")]
    Interrupted,
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
