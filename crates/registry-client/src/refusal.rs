//! What errors of conversations speak of: what was asked for, what was said.

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
