//! An ssh agent for programs that shall sign and never learn a key: the user's own agent, or keys of files.
//!
//! Here: keys (`private_key`, their formats in `openssh_key` and `pem`), the two questions that are answered (`protocol`), and the
//! socket (`serve`). Not here: who may have the socket, and where it is mounted (`build`); adding, removing and locking keys.
//!
//! Nouns: an [`Agent`] is what answers; an *identity* is a public key with its comment; a [`Served`] is a socket that answers for
//! as long as it lives.
//!
//! Invariants
//! 1. Only "which keys are there" and "sign this" are answered, or handed on to the user's agent; everything else fails. A step
//!    can neither put keys into the user's agent nor lock it.
//! 2. A private key is in the memory of this process only, and no error and no `Debug` shows any of it.
//! 3. A client costs bounded memory: one message of 256 KiB, and so many clients at once.
//! 4. When a [`Served`] is dropped, nobody is connected any more, and no thread is left.
//!
//! Wire: draft-ietf-sshm-ssh-agent; keys: PROTOCOL.key of OpenSSH, PKCS #1 and #8. Start reading in `protocol`. Tested with keys of
//! `ssh-keygen` and with `ssh-add` as a client.

mod error;
mod modulus;
mod openssh_key;
mod pem;
mod private_key;
mod protocol;
mod reader;
mod serve;

pub use error::{AgentError, KeyProblem};
pub use protocol::Agent;
pub use serve::{Served, serve};
