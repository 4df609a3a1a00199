//! Why an agent cannot be had.

use std::path::PathBuf;

/// Why an agent cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Neither an agent's socket nor a key was named, and there is no agent in the environment.
    #[error("there is no ssh agent: SSH_AUTH_SOCK is not set")]
    NoAgent,
    /// What was named cannot be looked at.
    #[error("cannot read `{}`", .path.display())]
    Unreadable {
        /// What was named.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An agent's socket beside something else.
    #[error("`{}` is an agent's socket, and nothing else can be given beside it", .path.display())]
    SocketAmongKeys {
        /// The socket.
        path: PathBuf,
    },
    /// A file that is no key that can be used.
    #[error("`{}` {problem}", .path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: KeyProblem,
    },
    /// The socket cannot be made.
    #[error(transparent)]
    Sys(#[from] mica_sys::Error),
}

/// What is wrong with a key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    /// A passphrase protects it.
    #[error("is protected by a passphrase")]
    Encrypted,
    /// Another kind of key.
    #[error("is a key of a kind that cannot be used: {0}")]
    Unsupported(String),
    /// The other half of a key.
    #[error("is a public key")]
    Public,
    /// Nothing that is known.
    #[error("is no private key")]
    NotAKey,
    /// Larger than any key.
    #[error("is larger than any key")]
    TooLarge,
}
