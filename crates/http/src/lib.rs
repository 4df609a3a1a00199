//! What any room needs that speaks HTTP: whom to trust, how names become addresses, clients, and what a failure means.
//!
//! Not here: what is asked of whom, logins, redirects, retries and bounds on what comes (each room that speaks has its own:
//! `mica-registry-client` to registries, `mica-context` to whatever a build fetches). Nothing here waits or has threads.
//!
//! # Nouns
//!
//! [`Tls`]: whom to trust, what to show. [`Clients`]: one pool of connections per way of speaking TLS, made when it is needed.
//! [`Fault`]: what a failed exchange means; [`HttpError`]: why no client could be made.
//!
//! # Invariants
//!
//! 1. Names are looked up without the C library, and nobody is asked but whom `/etc/hosts` and `/etc/resolv.conf` name.
//! 2. Files of authorities are read for TLS alone.
//! 3. A client follows no redirect, tries nothing again, sends no `Referer`, and never takes a proxy to this machine's loopback:
//!    who uses it decides what may go along to another host.
//! 4. No fault holds a URL, a user or a query.
//!
//! Start reading at `clients.rs`, then `fault.rs`. Tested where it is used, over loopback alone.

mod clients;
mod error;
mod fault;
mod host;
mod resolver;
mod tls;

pub use clients::Clients;
pub use error::{HttpError, Result};
pub use fault::{BadReply, Fault, TlsProblem};
pub use host::{address_of, host_of, is_loopback, split_port};
pub use tls::{ClientCertificate, Tls};
