//! What errors of conversations speak of: what was asked for, what was said, why TLS failed.

use std::fmt;

use mica_oci::{Digest, Reference};
use mica_registry_api::ErrorReply;

/// What a conversation is about. Errors name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A registry as a whole.
    Registry(String),
    /// A repository, its tags, its uploads.
    Repository(Box<Reference>),
    /// A manifest or index, by tag or digest.
    Manifest(Box<Reference>),
    /// A blob of a repository.
    Blob(Box<Reference>, Digest),
}

impl Subject {
    /// A repository.
    pub fn repository(reference: &Reference) -> Subject {
        Subject::Repository(Box::new(reference.name_only()))
    }

    /// A manifest or index.
    pub fn manifest(reference: &Reference) -> Subject {
        Subject::Manifest(Box::new(reference.clone()))
    }

    /// A blob of the repository of a reference.
    pub fn blob(reference: &Reference, digest: &Digest) -> Subject {
        Subject::Blob(Box::new(reference.name_only()), digest.clone())
    }

    /// The registry as users name it: `docker.io` for Docker Hub.
    pub fn registry(&self) -> &str {
        match self {
            Subject::Registry(registry) => registry,
            Subject::Repository(reference) | Subject::Manifest(reference) | Subject::Blob(reference, _) => {
                reference.registry()
            }
        }
    }

    /// The reference, if it is about one.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Subject::Registry(_) => None,
            Subject::Repository(reference) | Subject::Manifest(reference) | Subject::Blob(reference, _) => {
                Some(reference)
            }
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Registry(registry) => write!(formatter, "registry `{registry}`"),
            Subject::Repository(reference) => write!(formatter, "repository `{}`", reference.name()),
            Subject::Manifest(reference) => write!(formatter, "`{reference}`"),
            Subject::Blob(reference, digest) => {
                write!(formatter, "blob `{digest}` of `{}`", reference.name())
            }
        }
    }
}

/// What a registry said when it refused, to be put behind a message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The status of the reply.
    pub status: u16,
    /// Host that sent it.
    pub host: String,
    /// Its own words: bounded and printable.
    pub reply: ErrorReply,
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reply.is_empty() {
            write!(formatter, "`{}` answered with status {}", self.host, self.status)
        } else {
            self.reply.fmt(formatter)
        }
    }
}

/// Why TLS could not be spoken with a host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsProblem {
    /// Its certificate was not signed by an authority that is trusted here.
    UnknownAuthority,
    /// Its certificate is for other names.
    NameMismatch,
    /// Its certificate was good until some time ago.
    Expired,
    /// Its certificate will be good only later: perhaps this machine's clock is wrong.
    NotYetValid,
    /// Its certificate is wrong in another way.
    Certificate(String),
    /// It wants a client certificate, or another one.
    ClientCertificate,
    /// It does not speak TLS on this port.
    NotSpoken,
    /// Another failure of the protocol.
    Protocol(String),
}

impl fmt::Display for TlsProblem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            TlsProblem::UnknownAuthority => {
                formatter.write_str("its certificate is signed by an unknown authority")
            }
            TlsProblem::NameMismatch => formatter.write_str("its certificate is for other names"),
            TlsProblem::Expired => formatter.write_str("its certificate has expired"),
            TlsProblem::NotYetValid => formatter.write_str("its certificate is not valid yet"),
            TlsProblem::Certificate(problem) => write!(formatter, "its certificate is not good: {problem}"),
            TlsProblem::ClientCertificate => formatter.write_str("it does not accept our client certificate"),
            TlsProblem::NotSpoken => formatter.write_str("it does not speak TLS"),
            TlsProblem::Protocol(problem) => write!(formatter, "{problem}"),
        }
    }
}
