//! Why a step's result was taken over or made anew. Values with everything in words, so that they can be kept beside the
//! image and told again later.

use serde::{Deserialize, Serialize};

/// How a step came to its result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    /// The same step on the same layers was done before: what every builder knows.
    Chain,
    /// The layers below are others, but nothing that the step used changed.
    Record {
        /// What changed below and was not used; `None` when nobody asked or the earlier layers are gone.
        unused: Option<UnusedChanges>,
    },
    /// A cache from elsewhere had the result.
    Imported {
        /// Which, as it is called for people.
        cache: String,
        /// The layers below are others, but nothing that the step used changed; else they are the same.
        by_record: bool,
        /// What changed below and was not used; `None` when nobody asked or the earlier layers are not here.
        unused: Option<UnusedChanges>,
    },
    /// Another step of this build did the same.
    Shared,
    /// It was done.
    Ran {
        /// Why.
        reason: Reason,
    },
}

/// Changes below a step that it does not depend on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnusedChanges {
    /// How many paths.
    pub count: usize,
    /// The first of them, absolute.
    pub first: Vec<String>,
}

/// Why a step was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "reason")]
pub enum Reason {
    /// No earlier result of this instruction with these arguments is known.
    First,
    /// `--no-cache` or `--no-cache-filter`.
    NoCache,
    /// A comment before the instruction says so.
    Never,
    /// The result is older than allowed.
    Expired {
        /// Its age.
        age_seconds: i64,
        /// The limit.
        ttl_seconds: i64,
    },
    /// It used the network, and stands on another base image now.
    NewBase,
    /// Something that it used is different.
    Changed(Changed),
    /// The layers below are others, and nothing is recorded of what the earlier run used; the text says why.
    Unrecorded {
        /// In words: `--cache=exact`, `tracing was not available`, `it used more than 500000 paths`, ...
        why: String,
    },
}

/// The first thing that a step used and that is different now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// Where the path stands: empty for the step's own files, else `the build context`, `stage build`, ...
    pub place: String,
    /// Absolute in the image; relative to the context for files of the context.
    pub path: String,
    /// One or two words for a short line: `changed`, `new`, `gone`, `mode changed`, ...
    pub what: String,
    /// The recorded value in words, empty when there is nothing to say.
    pub old: String,
    /// The present value in words.
    pub new: String,
}

/// What a build says of one of its steps, kept beside the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepReport {
    /// `[2/3] RUN make`
    pub name: String,
    /// Line of the instruction in the Dockerfile, from 1.
    pub line: usize,
    /// `RUN`, `COPY`, `ADD`, `WORKDIR`
    pub instruction: String,
    /// How it came to its result.
    #[serde(flatten)]
    pub verdict: Verdict,
    /// The layer that it made, `sha256:…`.
    pub diff_id: String,
    /// Number of the record of its inputs in the store, if there is one.
    pub record: Option<i64>,
    /// Whether it opened an IPv4 or IPv6 socket; `None` when nobody looked.
    pub network: Option<bool>,
    /// How long it ran, in milliseconds; 0 for a step that did not.
    pub elapsed_ms: u64,
    /// What the trees of the record are, in words: the step's own files first (empty), then its bind mounts.
    pub trees: Vec<String>,
}

/// The last build that made an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BuildReport {
    /// Format of this value; see [`BuildReport::VERSION`].
    pub version: u32,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// When, seconds since 1970.
    pub built_unix_s: i64,
    /// In the order of the graph.
    pub steps: Vec<StepReport>,
}

impl BuildReport {
    /// A reader of another version says that the report is not readable.
    pub const VERSION: u32 = 1;
}
