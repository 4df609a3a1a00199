//! The client: what is shared by all conversations of one command.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use mica_oci::{Digest, Reference};
use tokio::runtime::Runtime;

use crate::auth::Logins;
use crate::connection::Connections;
use crate::credentials::Credentials;
use crate::endpoint::{Endpoint, Purpose, Scheme};
use crate::error::{RegistryError, Result};
use crate::refusal::Subject;
use crate::registries::Registries;
use crate::retry::Patience;

/// Warnings that are kept until somebody takes them.
const WARNINGS_MAX: usize = 100;

/// What a client is made with.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Where registries are.
    pub registries: Registries,
    /// Who asks.
    pub credentials: Credentials,
    /// How long is waited, and how often is tried.
    pub patience: Patience,
    /// Blobs are sent in chunks of so many bytes, if not in 64 MiB.
    pub chunk_size_bytes: Option<u64>,
}

/// Something that went wrong and was made good in another way.
#[derive(Debug)]
#[non_exhaustive]
pub enum Warning {
    /// A mirror failed; another place was asked.
    Mirror {
        /// The mirror.
        host: String,
        /// How it failed.
        error: RegistryError,
    },
    /// A mirror works, and does not have what was asked for; another place was asked. Worth telling only where that had it
    /// neither.
    Lacks {
        /// The mirror.
        host: String,
        /// What it said.
        error: RegistryError,
    },
}

impl Warning {
    /// Whether something is wrong, whatever became of the request.
    pub fn is_failure(&self) -> bool {
        matches!(self, Warning::Mirror { .. })
    }
}

impl std::fmt::Display for Warning {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Warning::Mirror { host, error } => write!(formatter, "mirror `{host}` was passed over: {error}"),
            Warning::Lacks { host, error } => write!(formatter, "mirror `{host}` was asked first: {error}"),
        }
    }
}

/// Speaks to registries. Cheap to clone; every call blocks the calling thread, and may be made from several at once.
///
/// Making one costs nothing: threads, connections and TLS begin with the first call. When the last clone is dropped (and the
/// last [`crate::BlobReader`], which holds one), its threads have ended, so that the process may clone namespaces again.
///
/// Never call or drop it in a thread that belongs to a tokio runtime.
#[derive(Clone)]
pub struct Client {
    shared: Arc<Shared>,
}

/// What the clones of a client share.
pub(crate) struct Shared {
    pub settings: Settings,
    pub connections: Connections,
    pub logins: Logins,
    /// The scheme that a host turned out to speak.
    schemes: Mutex<HashMap<String, Scheme>>,
    warnings: Mutex<Vec<Warning>>,
    /// Mirrors that could not be reached, or sent wrong bytes: they are not tried again.
    unreachable: Mutex<HashSet<String>>,
    /// docker's `HttpHeaders`, once they were read.
    http_headers: OnceLock<Vec<(String, String)>>,
    // Last, so that connections are gone when its threads are waited for.
    runtime: OnceLock<std::result::Result<Runtime, String>>,
}

impl Client {
    /// A client with these settings.
    pub fn new(settings: Settings) -> Client {
        let shared = Shared {
            connections: Connections::new(settings.patience.clone()),
            settings,
            logins: Logins::default(),
            schemes: Mutex::default(),
            warnings: Mutex::default(),
            unreachable: Mutex::default(),
            http_headers: OnceLock::new(),
            runtime: OnceLock::new(),
        };
        Client { shared: Arc::new(shared) }
    }

    /// The settings it was made with.
    pub fn settings(&self) -> &Settings {
        &self.shared.settings
    }

    /// What went wrong and was made good since this was asked last, in order.
    pub fn take_warnings(&self) -> Vec<Warning> {
        std::mem::take(&mut *lock(&self.shared.warnings))
    }

    /// Where to go for a reference, without mirrors that could not be reached before.
    pub(crate) fn endpoints(&self, reference: &Reference, purpose: Purpose) -> Result<Vec<Endpoint>> {
        let mut endpoints = self.settings().registries.endpoints(reference, purpose)?;
        let unreachable = lock(&self.shared.unreachable);
        // What is last is asked in any case: there must be somebody who says why.
        let last = endpoints.pop();
        endpoints.retain(|endpoint| !(endpoint.is_mirror && unreachable.contains(&endpoint.host)));
        endpoints.extend(last);
        Ok(endpoints)
    }

    /// Says that the bytes of a blob that came from `host` ([`crate::BlobReader::host`]) do not have its digest: if that is a
    /// mirror, it is not asked again. Answers whether it is one.
    pub fn distrust(&self, reference: &Reference, host: &str, expected: &Digest, found: &Digest) -> bool {
        let endpoints = self.settings().registries.endpoints(reference, Purpose::Pull).unwrap_or_default();
        let is_mirror = endpoints.iter().any(|endpoint| endpoint.is_mirror && endpoint.host == host);
        if is_mirror && lock(&self.shared.unreachable).insert(host.to_owned()) {
            let subject = Subject::blob(reference, expected);
            let (expected, found) = (expected.clone(), found.clone());
            let error = RegistryError::DigestMismatch { subject, host: host.to_owned(), expected, found };
            self.warn(Warning::Mirror { host: host.to_owned(), error });
        }
        is_mirror
    }

    /// Notes that a mirror failed; that it lacks something is no failure.
    pub(crate) fn pass_over(&self, mirror: &Endpoint, error: RegistryError) {
        let host = mirror.host.clone();
        match &error {
            RegistryError::NotFound { .. } => return self.warn(Warning::Lacks { host, error }),
            RegistryError::Connection { .. }
            | RegistryError::TimedOut { .. }
            | RegistryError::UnknownHost { .. }
            | RegistryError::Tls { .. } => {
                lock(&self.shared.unreachable).insert(mirror.host.clone());
            }
            _ => {}
        }
        self.warn(Warning::Mirror { host, error });
    }

    fn warn(&self, warning: Warning) {
        let mut warnings = lock(&self.shared.warnings);
        if warnings.len() < WARNINGS_MAX {
            warnings.push(warning);
        }
    }

    /// docker's `HttpHeaders`.
    pub(crate) fn http_headers(&self) -> Result<&[(String, String)]> {
        if let Some(headers) = self.shared.http_headers.get() {
            return Ok(headers);
        }
        let headers = self.settings().credentials.http_headers()?;
        Ok(self.shared.http_headers.get_or_init(|| headers))
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    pub(crate) fn patience(&self) -> &Patience {
        &self.shared.settings.patience
    }

    /// Runs a conversation in the calling thread; sockets and timers are driven by the client's own threads.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> Result<F::Output> {
        let runtime = self.shared.runtime.get_or_init(|| {
            // One thread drives many sockets, but each TLS stream is decrypted in the thread that drives it.
            let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(4));
            tokio::runtime::Builder::new_multi_thread()
                .worker_threads(threads)
                .thread_name("mica-registry")
                .enable_io()
                .enable_time()
                .build()
                .map_err(|error| error.to_string())
        });
        match runtime {
            Ok(runtime) => Ok(runtime.block_on(future)),
            Err(problem) => Err(RegistryError::Start(problem.clone())),
        }
    }

    /// The scheme that a host turned out to speak.
    pub(crate) fn scheme_of(&self, host: &str) -> Option<Scheme> {
        lock(&self.shared.schemes).get(host).copied()
    }

    pub(crate) fn remember_scheme(&self, host: &str, scheme: Scheme) {
        lock(&self.shared.schemes).insert(host.to_owned(), scheme);
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Client").finish_non_exhaustive()
    }
}

/// A thread that panicked with the lock left a whole value behind: every change here is one call.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
