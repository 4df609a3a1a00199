//! Results of build steps that travel: from the store of one machine to a place that others read, and back.
//!
//! **Here**: the *cache manifest* and what stands in it ([`config`]), [`export`], [`Imports`], and the places that a cache can
//! be kept in. **Not here**: when a result may be taken over, and what a record says (`mica-build`: to this room keys are
//! 32 bytes and inputs are bytes); flags (`mica-cli`).
//!
//! **Nouns**: a *place* is where one cache is: a tag of an OCI layout, of a registry's repository, a name in a bucket
//! ([`Place`]). A *step* is a result: the keys it is found by, its layer, and what it used. A *part* is a small thing that
//! travels compressed, inside the document or as a blob of its own. *Unsaid* is what the index of a layer has and its tar has
//! not: which directories are there only for what is in them, and the root.
//!
//! ```text
//! manifest (OCI)      config: a document of media type application/vnd.mica.cache.config.v1+json
//!                     layers: every blob that the config names, so that a registry keeps them
//! config              version 1: steps (exact, record, family, shape, layer, times, facts, inputs), layers (diff ID, blob,
//!                     unsaid, digest of the index), contents of cache mounts
//! blobs               layers as compressed tars; inputs of steps that are too large to stand in the config
//! ```
//! An image can carry the same document for its own layers in its config, under [`config::INLINE_FIELD`].
//!
//! **Invariants**
//! 1. Blobs first, the manifest last and in one step: a half-made export is no cache.
//! 2. Nothing from outside is believed: sizes are bounded before they are read, blobs are held against their digest, a layer
//!    against its diff ID and the digest of its index, and mica must be able to write the very tar that came.
//! 3. What is wrong with one step of a cache costs that step alone; what is wrong with a cache costs the cache. Neither
//!    fails a build.
//! 4. Only layers of results that are taken over come into the store, through its `ingest`; a kill leaves nothing.
//! 5. A place is asked for the first time when the store has no answer.
//! 6. Blobs are named by their digest: what is there is not sent again.
//!
//! **Several at once**: exports into one place side by side; the last manifest counts, and blobs that only the other one has
//! go with `reset` alone, while nobody exports. Start reading in [`import`] and [`export`]. Tests: `tests/places.rs` is the
//! contract of every place, run for each driver; hostile caches in `tests/hostile.rs`.

pub mod config;
mod error;
mod export;
mod import;
mod incoming;
mod inline;
mod interruptible;
mod local;
mod memory;
mod mounts;
mod outgoing;
mod parallel;
mod part;
mod place;
mod registry;
mod s3;
mod verified;

pub use error::{CacheError, Result};
pub use mica_layer::encode::{Algorithm, Form, FormError};

pub use export::{ExportOptions, Exported, ExportedStep, Mode, export};
pub use import::{Found, Import, Imports};
pub use inline::inline;
pub use local::{LocalPlace, LocalTarget};
pub use memory::MemoryPlace;
pub use place::Place;
pub use registry::{MakeClient, RegistryPlace};
pub use s3::{S3Place, S3Settings};
