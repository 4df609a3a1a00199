//! A registry in this process, over plain sockets and threads, that can be told to misbehave.
//!
//! Made for tests of clients: everything in memory, every request in a log, faults as data ([`When`], [`Fault`]). It follows
//! the distribution specification where no fault says otherwise, and never uses mica's own code.

mod auth;
mod connection;
mod fault;
mod serve;
mod state;

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use rustls::ServerConfig;

use crate::docker_registry::{PASSWORD, USER};
use crate::{Certificates, RegistryHttp};
pub use auth::{FakeAuth, TokenRules};
use connection::Head;
pub use fault::{Fault, When};
use state::State;

/// How uploads are located.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Locations {
    /// `http://host/v2/…`, as docker-registry does.
    #[default]
    Absolute,
    /// `/v2/…`.
    Relative,
    /// Absolute with a query that changes with every reply; only the last one is accepted.
    Changing,
}

/// One repository that a search may find.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// Its name.
    pub name: String,
    /// In one line.
    pub description: String,
    /// Stars.
    pub stars: u64,
    /// Whether it is official.
    pub official: bool,
}

/// How it behaves. The default is plain HTTP for everybody, with deletion, mounts and pages of 1000.
#[derive(Debug, Clone)]
pub struct FakeOptions<'a> {
    /// Whom it lets in.
    pub auth: FakeAuth,
    /// It speaks TLS alone, with these.
    pub tls: Option<&'a Certificates>,
    /// It insists on a client's certificate.
    pub client_certificate: bool,
    /// GET of a blob is answered with 307 to this base, such as `http://127.0.0.1:123`, and the path.
    pub redirect_blobs: Option<String>,
    /// Tags and repositories in one page at most.
    pub page_size: usize,
    /// What uploads ask for as `OCI-Chunk-Min-Length`. Smaller chunks, but for the last, are refused.
    pub chunk_min_length: Option<u64>,
    /// How uploads are located.
    pub locations: Locations,
    /// Whether blobs can be mounted from other repositories.
    pub mounts: bool,
    /// Whether manifests and blobs can be deleted.
    pub deletes: bool,
    /// What `/v1/search` knows; without any it answers 404.
    pub search: Vec<Found>,
}

impl Default for FakeOptions<'_> {
    fn default() -> Self {
        FakeOptions {
            auth: FakeAuth::None,
            tls: None,
            client_certificate: false,
            redirect_blobs: None,
            page_size: 1000,
            chunk_min_length: None,
            locations: Locations::Absolute,
            mounts: true,
            deletes: true,
            search: Vec::new(),
        }
    }
}

impl FakeOptions<'_> {
    /// The same without certificates, which do not live as long as the registry's threads.
    fn without_tls(self) -> FakeOptions<'static> {
        let FakeOptions { auth, tls: _, client_certificate, redirect_blobs, page_size, .. } = self;
        let FakeOptions { chunk_min_length, locations, mounts, deletes, search, .. } = self;
        FakeOptions {
            auth,
            tls: None,
            client_certificate,
            redirect_blobs,
            page_size,
            chunk_min_length,
            locations,
            mounts,
            deletes,
            search,
        }
    }
}

/// One request as it came, and what became of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Such as `GET`.
    pub method: String,
    /// With the query.
    pub path: String,
    /// In their order, names in lower case.
    pub headers: Vec<(String, String)>,
    /// What came of its body, up to 64 KiB.
    pub body: Vec<u8>,
    /// How many bytes of its body came.
    pub received_bytes: u64,
    /// How many of them came when another connection went on with the upload already: what still lay in sockets when a client
    /// was killed.
    pub late_bytes: u64,
    /// The reply's; 0 if there was none.
    pub status: u16,
    /// Bytes of the reply's body that were sent. The client need not have got all of them: sockets hold some megabytes.
    pub sent_bytes: u64,
    /// Which connection it came over, from 0.
    pub connection: usize,
}

impl Request {
    /// The first header of this (lower-case) name.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// A registry that does what it is told. It ends with the value.
#[derive(Debug)]
pub struct FakeRegistry {
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

/// What its threads share.
#[derive(Debug)]
pub(crate) struct Shared {
    port: u16,
    tls: Option<Arc<ServerConfig>>,
    client_tls: Option<Arc<rustls::ClientConfig>>,
    stop: AtomicBool,
    connections: AtomicUsize,
    sockets: Mutex<Vec<TcpStream>>,
    state: Mutex<State>,
}

impl Shared {
    /// A test that panicked while it held the lock has failed already.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    fn base_url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme(), self.port)
    }

    /// As the client calls it, which may know it as the proxy in front.
    fn base_url_for(&self, head: &Head) -> String {
        match head.header("host") {
            Some(host) => format!("{}://{host}", self.scheme()),
            None => self.base_url(),
        }
    }
}

impl FakeRegistry {
    /// One for everybody, over plain HTTP.
    pub fn new() -> FakeRegistry {
        FakeRegistry::start(FakeOptions::default())
    }

    /// Starts one; it answers at once.
    pub fn start(options: FakeOptions<'_>) -> FakeRegistry {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port of loopback");
        let shared = Arc::new(Shared {
            port: listener.local_addr().expect("the address of a listener").port(),
            tls: options.tls.map(|certificates| certificates.server_config(options.client_certificate)),
            client_tls: options.tls.map(Certificates::client_config),
            stop: AtomicBool::new(false),
            connections: AtomicUsize::new(0),
            sockets: Mutex::default(),
            state: Mutex::new(State::new(options.without_tls())),
        });
        let accepting = std::thread::spawn({
            let shared = shared.clone();
            move || accept(&listener, &shared)
        });
        FakeRegistry { shared, accepting: Some(accepting) }
    }

    /// Port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.shared.port
    }

    /// `127.0.0.1:PORT`, as the registry of a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.shared.port)
    }

    /// `http://127.0.0.1:PORT`, or with https.
    pub fn base_url(&self) -> String {
        self.shared.base_url()
    }

    /// Speaks to it beside mica (with the password where it wants Basic). Such requests are in the log, too.
    pub fn http(&self) -> RegistryHttp {
        let http = RegistryHttp::new(self.port()).with_login(USER, PASSWORD);
        match &self.shared.client_tls {
            Some(config) => http.with_tls(config.clone()),
            None => http,
        }
    }

    /// Lets a fault happen. Several that fit one request happen together, as far as they can.
    pub fn fault(&self, when: When, fault: Fault) {
        self.shared.state().rules.push((when, fault));
    }

    /// Behaves from now on.
    pub fn clear_faults(&self) {
        self.shared.state().rules.clear();
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.state().log.clone()
    }

    /// Forgets the requests so far. Only between requests.
    pub fn clear_requests(&self) {
        self.shared.state().log.clear();
    }

    /// How many requests of a method there were whose path contains `part`.
    pub fn count(&self, method: &str, part: &str) -> usize {
        let fits = |request: &&Request| request.method == method && request.path.contains(part);
        self.shared.state().log.iter().filter(fits).count()
    }

    /// Bytes of bodies that were sent in answers to paths that contain `part`.
    pub fn sent_bytes(&self, part: &str) -> u64 {
        let state = self.shared.state();
        state.log.iter().filter(|request| request.path.contains(part)).map(|request| request.sent_bytes).sum()
    }

    /// Bytes of bodies that came in requests whose paths contain `part`, but for those that came too late.
    pub fn received_bytes(&self, part: &str) -> u64 {
        let state = self.shared.state();
        let fits = state.log.iter().filter(|request| request.path.contains(part));
        fits.map(|request| request.received_bytes - request.late_bytes).sum()
    }

    /// Takes a blob in, without a request. Answers its digest.
    pub fn put_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = format!("sha256:{}", crate::sha256(bytes));
        self.shared.state().put_blob(repository, &digest, bytes.into());
        digest
    }

    /// Takes bytes in under a digest that need not be theirs.
    pub fn put_blob_as(&self, repository: &str, digest: &str, bytes: &[u8]) {
        self.shared.state().put_blob(repository, digest, bytes.into());
    }

    /// Takes a manifest or index in under a tag or digest, without a request and whatever it says. Answers its digest.
    pub fn put_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) -> String {
        self.shared.state().put_manifest(repository, reference, media_type, bytes.into())
    }

    /// The bytes of a blob that a repository has.
    pub fn blob(&self, repository: &str, digest: &str) -> Option<Vec<u8>> {
        self.shared.state().blob(repository, digest).map(|bytes| bytes.to_vec())
    }

    /// Media type and bytes of what a tag or digest leads to.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, Vec<u8>)> {
        let state = self.shared.state();
        state.manifest(repository, reference).map(|(_, kept)| (kept.media_type.clone(), kept.bytes.to_vec()))
    }

    /// The tags of a repository, in order.
    pub fn tags(&self, repository: &str) -> Vec<String> {
        self.shared.state().tags(repository)
    }

    /// Takes a blob away from all repositories.
    pub fn remove_blob(&self, digest: &str) {
        self.shared.state().remove_blob(digest);
    }

    /// Uploads that have begun and not ended.
    pub fn open_uploads(&self) -> usize {
        self.shared.state().uploads.len()
    }

    /// Forgets all uploads and what came of them, as a registry that was restarted may.
    pub fn forget_uploads(&self) {
        self.shared.state().uploads.clear();
    }

    /// Forgets all tokens that it gave, as if they had expired.
    pub fn expire_tokens(&self) {
        self.shared.state().tokens.clear();
    }
}

impl Default for FakeRegistry {
    fn default() -> FakeRegistry {
        FakeRegistry::new()
    }
}

impl Drop for FakeRegistry {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(("127.0.0.1", self.shared.port));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        let sockets = self.shared.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        for socket in sockets.iter() {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopping() {
            return;
        }
        let Ok(stream) = stream else { continue };
        let number = shared.connections.fetch_add(1, Ordering::Relaxed);
        if let Ok(socket) = stream.try_clone() {
            shared.sockets.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(socket);
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            // How a client's connection ends is the client's business; what came of it is in the log.
            let _ = serve::connection(&shared, stream, number);
        });
    }
}
