//! What a build tells while it runs. Printing is the command line's; everything here is a value.

use std::time::Duration;

use mica_image::TransferEvent;

use crate::timing::{PlannedStep, StepResult};
use crate::verdict::{Reason, Verdict};

/// Something that happened. `step` is the position in the graph's list of steps. The name of a base image is its canonical
/// one, with the platform and a space before it where several platforms are built.
#[derive(Debug, Clone)]
pub enum Event {
    /// The Dockerfile was read.
    Dockerfile {
        /// Its name.
        name: String,
        /// Its length.
        size_bytes: u64,
    },
    /// A warning about the Dockerfile or the way it is built.
    Warning {
        /// One line.
        message: String,
    },
    /// A base image was found in the store.
    Base {
        /// Canonical name.
        name: String,
    },
    /// A base image is asked for.
    BaseFetch {
        /// Canonical name.
        name: String,
    },
    /// Its layers are on their way.
    BaseTransfer {
        /// Canonical name.
        name: String,
        /// How they fare.
        event: TransferEvent,
    },
    /// A base image is stored.
    BaseFetched {
        /// Canonical name.
        name: String,
        /// Digest of what the name leads to in the registry.
        target: String,
        /// How long all of it took.
        elapsed: Duration,
    },
    /// A base image cannot be fetched.
    BaseFailed {
        /// Canonical name.
        name: String,
        /// One line.
        message: String,
    },
    /// The build context was walked.
    Context {
        /// Entries that may be copied.
        entries: usize,
        /// How long the walk took.
        elapsed: Duration,
    },
    /// The graph stands; these are the names of its steps.
    Planned {
        /// In order.
        names: Vec<String>,
    },
    /// What the steps wait for, in the same order; only where the request asks for timings.
    Graph {
        /// In order.
        steps: Vec<PlannedStep>,
    },
    /// What a step's result weighs, once it is known; only where the request asks for timings.
    StepResult {
        /// Which.
        step: usize,
        /// What is known of it.
        result: StepResult,
    },
    /// A step's result was known.
    StepCached {
        /// Which.
        step: usize,
        /// How.
        verdict: Verdict,
    },
    /// A step began to run.
    StepStarted {
        /// Which.
        step: usize,
        /// Why its result was not known.
        reason: Reason,
    },
    /// A step's program wrote a line, or mica says something of a step that goes on.
    StepOutput {
        /// Which.
        step: usize,
        /// Since the step began.
        elapsed: Duration,
        /// What is to be shown: the line without its end, as it was drawn last; bytes that are not UTF-8 are replaced.
        line: String,
        /// What the program wrote, each byte of it; empty if the line is mica's own.
        bytes: Vec<u8>,
    },
    /// A step is done.
    StepFinished {
        /// Which.
        step: usize,
        /// How long it took.
        elapsed: Duration,
    },
    /// A step failed; the build ends with an error that says more.
    StepFailed {
        /// Which.
        step: usize,
        /// One line.
        message: String,
    },
    /// A step was ended because another one failed.
    StepCancelled {
        /// Which.
        step: usize,
    },
    /// The image is stored.
    Exported {
        /// Digest of the manifest.
        manifest: String,
        /// Digest of the config.
        config: String,
        /// The names that it has now, canonical.
        names: Vec<String>,
        /// How long config, manifest and names took.
        elapsed: Duration,
    },
    /// The result is being brought somewhere.
    ExportStarted {
        /// Where, in words.
        name: String,
    },
    /// A part of that is done.
    ExportStep {
        /// Which.
        what: String,
        /// How long it took.
        elapsed: Duration,
    },
    /// All of it is done.
    ExportFinished {
        /// How long it took.
        elapsed: Duration,
    },
    /// It failed; an error says more.
    ExportFailed {
        /// One line.
        message: String,
    },
    /// The images of several platforms are stored, and their index.
    ExportedIndex {
        /// Digests of each image's manifest and config.
        images: Vec<(String, String)>,
        /// Digest of the index.
        index: String,
        /// The names that it has now, canonical.
        names: Vec<String>,
        /// How long all that was stored took.
        elapsed: Duration,
    },
}

/// Takes events; called from several threads.
pub type Events<'a> = dyn Fn(Event) + Sync + 'a;
