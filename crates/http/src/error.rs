//! Why no client could be made.

use std::path::PathBuf;

/// Result of a call of this room.
pub type Result<T> = std::result::Result<T, HttpError>;

/// A client that cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// This machine has no certificates of authorities, so that no host can be trusted.
    #[error(
        "no certificates of authorities were found on this machine (`SSL_CERT_FILE` and `SSL_CERT_DIR` name where they are)"
    )]
    NoAuthorities,
    /// A certificate or key of the settings cannot be used.
    #[error("cannot use `{}` for TLS: {problem}", .path.display())]
    TlsFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// What speaks HTTP could not be started.
    #[error("cannot start the network: {0}")]
    Start(String),
}
