//! Speaks to registries: resolves names to endpoints, authenticates, fetches and pushes manifests and blobs.
//!
//! Not here: the grammar of the wire (`mica-registry-api`), where bytes are kept (`mica-store`), what an image is made of
//! (`mica-image`), progress, prompts and hints (`mica-cli`). Calls block and may come from many threads at once; what is
//! asynchronous stays inside.
//!
//! # Nouns
//!
//! [`Client`]: all conversations of one command; [`Settings`]: what it is made with. [`Registries`] says which [`Endpoint`]s a
//! registry has, mirrors first; [`Credentials`] which login. [`Patience`]: how long is waited, how often is tried.
//! [`BlobReader`]: the bytes of a blob, mended where the connection breaks. [`Content`], [`UploadWatch`]: a blob that is sent.
//! [`RegistryError`] names its [`Subject`], and what the registry said is a [`Refusal`]; a [`Warning`] is what went wrong and was made
//! good.
//!
//! # Invariants
//!
//! 1. Nothing is sent or read that was not asked for: a first request goes to the host without a ping and without login; a
//!    look at a manifest is one request; files of authorities are read for TLS alone, threads begin with the first call.
//! 2. A login goes to the host that it is for, in the scheme that it was asked in, and to the token server that this host
//!    names, over TLS or loopback. It never follows a redirect to another host, nor do configured headers and client
//!    certificates. No error, warning or debug output holds one, nor the query of any URL.
//! 3. What was asked for by digest has that digest (manifests and small blobs) or is handed over as a stream that never exceeds its
//!    size (blobs, whose digest the caller checks while it writes).
//! 4. Every wait, every retry, every redirect, every page and every document is bounded. A large transfer is bounded by its
//!    size and by progress, not by time.
//! 5. Text of the other side is shown only in a form that cannot control a terminal.
//! 6. When the last clone of a client is gone, its threads have ended.
//!
//! # On the wire
//!
//! HTTP/1.1, distribution spec 1.1.1 with docker's tokens. One exchange (`transport::Client::send`):
//!
//! ```text
//! send   for each endpoint          a mirror that fails or lacks it leads on       transport.rs
//! ask      for each scheme          the next only if this one is not spoken        exchange.rs
//!            for each try           failures that pass: backoff, Retry-After       retry.rs
//!              401 -> login, once   Basic, or a token that is kept while it lives  auth.rs
//! travel         for each hop       secrets stay at home                           exchange.rs
//!                  one message      pools of connections (mica-http), bounded waits  connection.rs, failure.rs
//! ```
//!
//! A blob that breaks is asked for again with `Range` from where it broke, from the registry on, because what it signed for its
//! storage may be too old by then (`blob.rs`).
//!
//! # Several at once, and a kill
//!
//! Clones share connections, tokens (whoever needs one that is being fetched waits for it) and what was learned of hosts.
//! Nothing here is kept on disk but logins, which are replaced as whole files; a kill leaves nothing behind. Other processes
//! are not known to this room.
//!
//! Start reading at `client.rs`, then `transport.rs`, `exchange.rs`, `blob.rs`. Tests in `tests/` speak to a registry of the
//! testkit that misbehaves as it is told, and to Debian's `docker-registry`, over loopback alone.

mod auth;
mod blob;
mod client;
mod connection;
mod credentials;
mod endpoint;
mod error;
mod exchange;
mod failure;
mod fetch;
mod push;
mod refusal;
mod registries;
mod retry;
mod search;
mod secret;
mod settings_file;
mod tags;
mod transport;
mod upload;

pub use client::{Client, Settings, Warning};
pub use credentials::{Credential, Credentials, Kept};
pub use endpoint::{ClientCertificate, Endpoint, Purpose, Scheme, Tls};
pub use error::{HelperProblem, RegistryError, Result, SettingsProblem};
pub use fetch::{BlobReader, FetchedManifest, ManifestHead};
pub use mica_http::TlsProblem;
pub use push::{Content, Mounted, UploadWatch};
pub use refusal::{Refusal, Subject};
pub use registries::{Paths, Registries, registry_of};
pub use retry::Patience;
pub use search::{SEARCH_LIMIT_DEFAULT, SEARCH_LIMIT_MAX, SearchQuery, SearchResult};
pub use secret::Secret;
