//! How a conversation with a registry can fail, as facts.

use std::path::PathBuf;

use mica_http::{HttpError, TlsProblem};
use mica_oci::{Digest, DocumentError};

use crate::refusal::{Refusal, Subject};

/// Result of a call of this room.
pub type Result<T> = std::result::Result<T, RegistryError>;

/// A conversation with a registry that failed. Every variant that is about an image names registry, repository and
/// reference or digest; none ever holds a credential.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// A Linux call failed.
    #[error(transparent)]
    Sys(#[from] mica_sys::Error),
    /// The registry does not have it.
    #[error("{subject} not found: {refusal}")]
    NotFound {
        /// What was asked for.
        subject: Subject,
        /// The registry's words.
        refusal: Refusal,
    },
    /// The registry wants a login, or another one; perhaps it only hides that there is nothing.
    #[error("access to {subject} denied: {refusal}")]
    Denied {
        /// What was asked for.
        subject: Subject,
        /// The words of the registry, or of its token server.
        refusal: Refusal,
        /// Whether a login was sent.
        had_login: bool,
    },
    /// Too much was asked in too short a time.
    #[error("too many requests for {subject}: {refusal}")]
    TooManyRequests {
        /// What was asked for.
        subject: Subject,
        /// The registry's words.
        refusal: Refusal,
        /// Seconds after which it may be tried again, if the registry said so.
        retry_after_s: Option<u64>,
    },
    /// Another status than any that helps.
    #[error("{subject}: unexpected status {} from `{}`{}", .refusal.status, .refusal.host, after_colon(.refusal))]
    Status {
        /// What was asked for.
        subject: Subject,
        /// The registry's words.
        refusal: Refusal,
    },
    /// The registry deletes nothing; docker's must be told to (`REGISTRY_STORAGE_DELETE_ENABLED`).
    #[error("{subject} cannot be deleted, the registry does not allow it: {refusal}")]
    DeletionDisabled {
        /// What was to be deleted.
        subject: Subject,
        /// The registry's words.
        refusal: Refusal,
    },
    /// The answer is a web page: the host is no registry, or a portal or proxy stands before it.
    #[error("{subject}: `{host}` answered with HTML, not {expected}: is it a registry?")]
    HtmlReply {
        /// What was asked for.
        subject: Subject,
        /// Who answered.
        host: String,
        /// What should have come.
        expected: &'static str,
    },
    /// An answer that breaks the protocol.
    #[error("{subject}: invalid reply from `{host}`: {problem}")]
    InvalidReply {
        /// What was asked for.
        subject: Subject,
        /// Who answered.
        host: String,
        /// What is wrong with it.
        problem: String,
    },
    /// An answer that is larger than anything honest.
    #[error("{subject}: reply from `{host}` is too large, at most {size_bytes_max} bytes are allowed")]
    TooLarge {
        /// What was asked for.
        subject: Subject,
        /// Who answered.
        host: String,
        /// What is allowed.
        size_bytes_max: u64,
    },
    /// A manifest or index that is none, or that is not of its kind.
    #[error("{subject}: {source}")]
    Document {
        /// What was asked for.
        subject: Subject,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// Docker's schema 1, which no engine takes any more.
    #[error(
        "{subject}: docker's manifest schema 1 is not supported: the image must be pushed again by a newer tool"
    )]
    Schema1 {
        /// What was asked for.
        subject: Subject,
    },
    /// Bytes that are not those that were asked for.
    #[error("{subject}: digest of the bytes from `{host}` differs, expected `{expected}`: `{found}`")]
    DigestMismatch {
        /// What was asked for.
        subject: Subject,
        /// Who sent them.
        host: String,
        /// What was asked for, or what the registry said it was.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// A blob of another size than its descriptor says.
    #[error("{subject}: size of the bytes from `{host}` differs, expected {expected}: {found}")]
    SizeMismatch {
        /// What was asked for.
        subject: Subject,
        /// Who sent them.
        host: String,
        /// Bytes that the descriptor says.
        expected: u64,
        /// Bytes that the registry has or sent.
        found: u64,
    },
    /// A transfer that broke again and again.
    #[error(
        "{subject}: transfer from `{host}` broke {tries} times, last at byte {position}: {}",
        cause(subject, source)
    )]
    Broken {
        /// What was transferred.
        subject: Subject,
        /// With whom.
        host: String,
        /// Where it stopped.
        position: u64,
        /// Tries that brought nothing new, or tries in all.
        tries: u32,
        /// What happened the last time.
        source: Box<RegistryError>,
    },
    /// The host's name is not known.
    #[error("{subject}: cannot find host `{host}`: {problem}")]
    UnknownHost {
        /// What was asked for.
        subject: Subject,
        /// The host, or the proxy.
        host: String,
        /// What the name servers said.
        problem: String,
    },
    /// The host could not be reached, or the connection broke.
    #[error("{subject}: {action} `{host}` failed: {problem}")]
    Connection {
        /// What was asked for.
        subject: Subject,
        /// The host.
        host: String,
        /// What was being done.
        action: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// Nothing came for too long.
    #[error("{subject}: {action} `{host}` timed out after {seconds} s")]
    TimedOut {
        /// What was asked for.
        subject: Subject,
        /// The host.
        host: String,
        /// What was being done.
        action: &'static str,
        /// How long was waited.
        seconds: u64,
    },
    /// TLS with the host failed.
    #[error("{subject}: TLS with `{host}` failed: {problem}")]
    Tls {
        /// What was asked for.
        subject: Subject,
        /// The host.
        host: String,
        /// Why.
        problem: TlsProblem,
    },
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
    /// A redirect that is not followed.
    #[error("{subject}: redirect of `{host}` is not followed: {problem}")]
    Redirect {
        /// What was asked for.
        subject: Subject,
        /// Who redirected.
        host: String,
        /// Why not.
        problem: String,
    },
    /// A challenge that cannot be answered, or must not be.
    #[error("{subject}: cannot log in to `{host}`: {problem}")]
    Challenge {
        /// What was asked for.
        subject: Subject,
        /// Who asked.
        host: String,
        /// Why not.
        problem: String,
    },
    /// A host, path or header of the settings that no request can have.
    #[error("{subject}: invalid endpoint `{host}`: {problem}")]
    Endpoint {
        /// What was asked for.
        subject: Subject,
        /// The host of the settings.
        host: String,
        /// What is wrong.
        problem: String,
    },
    /// The threads that speak to registries could not be started.
    #[error("cannot start the network: {0}")]
    Start(String),
    /// The bytes to send could not be read.
    #[error("{subject}: cannot read what is to be sent: {source}")]
    Content {
        /// What was to be sent.
        subject: Subject,
        /// What went wrong.
        source: std::io::Error,
    },

    // Settings and logins.
    /// A settings file says something that it cannot say.
    #[error("`{}`{}: {problem}", path.display(), in_line(*.line))]
    Settings {
        /// The file.
        path: PathBuf,
        /// The line, from 1, if it is about one.
        line: Option<usize>,
        /// What is wrong.
        problem: SettingsProblem,
    },
    /// Settings forbid it.
    #[error("`{name}` is blocked by `{}`, line {line}", path.display())]
    Blocked {
        /// Registry, or registry and repository, that was asked for.
        name: String,
        /// The file that blocks.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// Settings leave no host for this purpose (`capabilities` of `hosts.toml`).
    #[error("`{}` names no host of `{registry}` that can {purpose}", path.display())]
    NoEndpoint {
        /// The registry.
        registry: String,
        /// `pull`, `resolve` or `push`.
        purpose: &'static str,
        /// The file.
        path: PathBuf,
    },
    /// A text does not name a registry.
    #[error("`{text}` is not a registry: expected a host, with a port if need be")]
    NotARegistry {
        /// The text.
        text: String,
    },
    /// A credential helper did not do what it was asked for.
    #[error("credential helper `{helper}` failed to {verb} the login for `{server}`: {problem}")]
    Helper {
        /// The program.
        helper: String,
        /// `get`, `store` or `erase`.
        verb: &'static str,
        /// What it was asked about.
        server: String,
        /// What went wrong.
        problem: HelperProblem,
    },
    /// A login can be kept nowhere.
    #[error("no place to keep a login for `{registry}`: neither DOCKER_CONFIG nor HOME is set")]
    NoLoginFile {
        /// The registry.
        registry: String,
    },
    /// Users and passwords are kept with a colon between them.
    #[error("a username cannot hold a colon")]
    ColonInUsername,
    /// A name is not one of an image.
    #[error(transparent)]
    Reference(#[from] mica_oci::ReferenceError),
}

impl From<HttpError> for RegistryError {
    fn from(error: HttpError) -> RegistryError {
        match error {
            HttpError::NoAuthorities => RegistryError::NoAuthorities,
            HttpError::TlsFile { path, problem } => RegistryError::TlsFile { path, problem },
            HttpError::Start(problem) => RegistryError::Start(problem),
            other => RegistryError::Start(other.to_string()),
        }
    }
}

fn after_colon(refusal: &Refusal) -> String {
    if refusal.reply.is_empty() { String::new() } else { format!(": {}", refusal.reply) }
}

/// What is wrong in a settings file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsProblem {
    /// It is not there, though it is named.
    #[error("there is no such file, but `{variable}` names it")]
    Absent {
        /// The variable of the environment.
        variable: &'static str,
    },
    /// A directory, or something else that is not read to its end.
    #[error("not a regular file")]
    NotAFile,
    /// More than settings ever need.
    #[error("larger than {size_bytes_max} bytes")]
    TooLarge {
        /// The bound.
        size_bytes_max: u64,
    },
    /// It is not text.
    #[error("not UTF-8 text")]
    NotUtf8,
    /// It is not in its format.
    #[error("invalid {format}: {message}")]
    Syntax {
        /// `TOML` or `JSON`.
        format: &'static str,
        /// What the parser says; never a value.
        message: String,
    },
    /// A value is of another type.
    #[error("`{key}` must be {expected}")]
    WrongType {
        /// Its key.
        key: String,
        /// What it must be.
        expected: &'static str,
    },
    /// A value is not one of those that there are.
    #[error("`{key}` must be {expected}, found `{found}`")]
    WrongValue {
        /// Its key.
        key: &'static str,
        /// What it can be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// A table lacks a value.
    #[error("`{key}` is missing: {why}")]
    Missing {
        /// The key.
        key: &'static str,
        /// What it is needed for.
        why: &'static str,
    },
    /// A location makes something of a name that is none, or that has another tag or digest.
    #[error(
        "`{name}` becomes `{rewritten}` here, which is not a full image name with the same tag and digest"
    )]
    Rewritten {
        /// The name.
        name: String,
        /// What it becomes.
        rewritten: String,
    },
    /// Two values exclude each other.
    #[error("`{key}` cannot stand together with `{other}`")]
    Conflict {
        /// One key.
        key: &'static str,
        /// The other one.
        other: &'static str,
    },
}

/// What went wrong with a credential helper.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelperProblem {
    /// It is not there.
    #[error("it is not in PATH")]
    NotFound,
    /// It cannot be the name of a program.
    #[error("not the name of a helper")]
    InvalidName,
    /// It says why it failed.
    #[error("{message}")]
    Failed {
        /// Its words, shortened.
        message: String,
    },
    /// It did not end.
    #[error("it did not answer within {seconds} seconds")]
    TimedOut {
        /// The time that it had.
        seconds: u64,
    },
    /// It said too much.
    #[error("it answered with more than {size_bytes_max} bytes")]
    TooLong {
        /// The bound.
        size_bytes_max: usize,
    },
    /// Its answer is not understood.
    #[error("its answer is not the JSON that it should be")]
    NotJson,
}

fn in_line(line: Option<usize>) -> String {
    line.map(|line| format!(", line {line}")).unwrap_or_default()
}

/// What happened, without saying once more to what.
fn cause(subject: &Subject, error: &RegistryError) -> String {
    let text = error.to_string();
    match text.strip_prefix(&format!("{subject}: ")) {
        Some(rest) => rest.to_owned(),
        None => text,
    }
}
