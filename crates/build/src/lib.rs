//! Runs a planned Dockerfile: looks results up, runs the steps that have none, and stores the image.
//!
//! Here: the request and what outlives single steps (`build`), base images (`base`), the order of steps and what runs at the same time
//! (`perform`), earlier results and their keys (`reuse`, with the rules in `policy`), COPY and ADD (`exec_copy`, with the
//! rules of what goes where in `place` and of what is kept in `previous`), RUN (`exec_run`, with the trees it sees in
//! `traced`), WORKDIR (`workdir`), the image's config (`assemble_image`), why each step ran (`verdict`), and what a build
//! tells while it runs ([`Event`]). Not here: what the Dockerfile means (`dockerfile`, `plan`), how files are served and
//! records verified (`trace`), containers (`runtime`, `container`), the bytes of layers (`layer`), fetching base
//! images ([`BaseSource`] is the caller's), printing (the command line).
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
//!
//! Several builds at the same time share the store and nothing else; of two that make the same layer, one is kept.
//!
//! Start reading at `build.rs`. Tests: tables for the pure parts here, real builds in `cli/tests`.

mod assemble_image;
mod base;
mod build;
mod chmod;
mod error;
mod event;
mod exec_copy;
mod exec_run;
mod filesystem;
mod materialize;
mod outcomes;
mod owner;
mod perform;
mod place;
#[cfg(test)]
mod place_tests;
mod policy;
#[cfg(test)]
mod policy_tests;
mod previous;
#[cfg(test)]
mod previous_tests;
mod report;
mod reuse;
mod traced;
mod verdict;
mod workdir;

pub use base::BaseSource;
pub use build::{BuildNetwork, BuildRequest, Built, IgnoreFile, build};
pub use error::{BaseFailure, BuildError, StepError};
pub use event::{Event, Events};
pub use place::PlaceError;
pub use policy::CacheMode;
pub use verdict::{BuildReport, Changed, Reason, StepReport, UnusedChanges, Verdict};
