//! Runs a planned Dockerfile: looks results up, runs the steps that have none, and stores the image.
//!
//! Here, by matter:
//!
//! | matter | files |
//! |---|---|
//! | what is asked for, what comes of it | `request`, `secret`, `entitlements`, `event`, `timing`, `report` |
//! | what outlives single steps | `build`, `base`, `platforms`, `inspect` (without building), `outcomes` |
//! | the order of steps, what runs at the same time | `perform` |
//! | earlier results | `reuse`, `policy`, `verdict`, `imported` and `caches` (from other machines) |
//! | COPY, ADD, WORKDIR | `exec_copy`, `place`, `select`, `previous`, `chmod`, `owner`, `remote`, `unpack`, `workdir` |
//! | contexts | `named`, `fetched`, `login` |
//! | RUN | `exec_run`, `traced`, `run_mount`, `cache_mount`, `materialize`, `limits`, `emulated` |
//! | what a failed step left | `failed`, `debug` |
//! | the image | `assemble_image`, `times`, `compare` (two builds) |
//!
//! Not here: what the Dockerfile means (`dockerfile`, `plan`), how files are served and records verified (`trace`),
//! containers (`runtime`, `container`), the bytes of layers (`layer`), fetching base images ([`BaseSource`] is the
//! caller's), bringing the image elsewhere (`image::export`), printing (the command line).
//!
//! Nouns: a *step* is a planned change of a filesystem; its *key* is what it does, what it starts from, and what it
//! reads from elsewhere; its *record* is what it used of the files below; its *outcome* is a stack of layers. A step runs
//! in an *ingest* directory of the store, and its layer becomes visible by one rename and one transaction.
//!
//! Invariants
//! 1. A hit yields what running would yield.
//! 2. Work that two stages share runs once.
//! 3. A failed or interrupted build leaves no name, no layer without an owner, no mount and no process: mounts live in
//!    the steps' own namespaces, processes end with their parent, ingest directories are swept when their lock is free.
//! 4. What succeeded before a failure is a hit of the next build.
//! 5. The build context is read only where a COPY or ADD names it, and a file whose attributes did not change is not
//!    opened again.
//! 6. What is fetched is held against its checksum before any of it is used, and goes with the build.
//!
//! Several builds at the same time share the store and nothing else; of two that make the same layer, one is kept.
//!
//! Start reading at `build.rs`. Tests: tables for the pure parts here, real builds in `cli/tests`.

mod assemble_image;
mod base;
mod build;
mod cache_mount;
mod caches;
mod chmod;
mod compare;
mod debug;
mod emulated;
mod entitlements;
mod error;
mod event;
mod exec_copy;
mod exec_run;
mod failed;
mod fetched;
mod filesystem;
mod imported;
mod inspect;
mod limits;
mod login;
mod materialize;
mod named;
mod outcomes;
mod owner;
mod perform;
mod place;
#[cfg(test)]
mod place_tests;
mod platforms;
mod policy;
#[cfg(test)]
mod policy_tests;
mod previous;
#[cfg(test)]
mod previous_tests;
mod remote;
mod report;
mod request;
mod reuse;
mod run_mount;
mod secret;
mod select;
mod times;
mod timing;
mod traced;
mod unpack;
mod verdict;
mod workdir;

pub use base::BaseSource;
pub use build::{Outside, build};
pub use caches::Caches;
pub use compare::{
    BuildSpan, Cause, Comparison, ContentDifference, DifferentPath, DifferentStep, PathDifference, TextLines,
    compare_builds,
};
pub use debug::{DebugRequest, debug};
pub use error::{BaseFailure, BuildError, StepError};
pub use event::{Event, Events};
pub use failed::FailedState;
pub use fetched::{ARCHIVE_START_SIZE_BYTES, FetchedContext, Fetcher, WebContext};
pub use inspect::{Inspected, inspect};
pub use place::PlaceError;
pub use policy::CacheMode;
pub use remote::RemoteError;
pub use report::keep_report;
pub use request::{
    BuildNetwork, BuildRequest, Built, BuiltPlatform, Entitlements, IgnoreFile, NamedDirectory, NamedImage,
    StepLimits,
};
pub use secret::{SECRET_BYTES_MAX, Secret, SecretError, SecretPlace, SecretSource, SshSource};
pub use timing::{PlannedStep, StepInput, StepResult};
pub use unpack::{UnpackError, is_archive};
pub use verdict::{BuildReport, Changed, Reason, StepReport, UnusedChanges, Verdict};
