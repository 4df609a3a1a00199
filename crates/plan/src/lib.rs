//! Plans a Dockerfile: which steps make the target, and what its image will say.
//!
//! Here: arguments and their scopes, stages and what the target needs of them, triggers, every instruction's effect on
//! config, history and files, and the part of a step's cache key that is in the text. Not here: reading the language
//! (`mica-dockerfile`), naming and decoding images (`mica-oci`), fetching bases, matching files, running steps, looking
//! up keys (`mica-build`), layers and times of the image (the builder adds them to [`StageResult`]).
//!
//! # Nouns
//!
//! A [`Step`] does one [`Operation`] to a [`FilesystemState`] and so makes the next one. A [`Graph`] is the steps of one
//! target for one platform and its [`StageResult`]; [`join`] makes one of those of several platforms. A [`BaseRequest`] asks for an image, a [`BaseImage`] is the answer.
//! A *trigger* is an ONBUILD instruction, run in the stage that begins with the image or stage that has it. A
//! *definition* is all of a step that is not a file.
//!
//! ```text
//! Dockerfile, options --needed_bases_with--> requests --(the caller fetches)--> bases, until no new ones come
//! Dockerfile, options, bases --plan--> Graph --(the caller, per step)--> definition_key, step_key
//! ```
//!
//! # Invariants
//!
//! 1. Same inputs, same graph, same keys. No files, no clock, no environment, nothing fetched.
//! 2. Every input of a step stands before it in [`Graph::steps`]; there are no cycles.
//! 3. Only what the target needs is planned: a stage that nothing uses may be wrong. Its FROM and its `--from` may not.
//! 4. Config and history are those that BuildKit writes for the same file, to the letter.
//! 5. All words of an instruction see the variables as they were before it; only ARG sees its own earlier words. A
//!    variable is one list per stage: ENV and ARG both set it, and the later one counts, as with BuildKit.
//! 6. What variables add to a word, and what an EXPOSE names, is bounded; planning uses memory in proportion to its input.
//! 7. A step is a value: its key and its meaning do not depend on its place in the graph, so it can be kept, compared,
//!    and run out of order.
//!
//! # What is in a step's key
//!
//! The definition of [`definition_key`] (BLAKE3, versioned, every value with its length or a tag before it):
//!
//! | | RUN | COPY, ADD | WORKDIR |
//! |---|---|---|---|
//! | platform | yes | yes | yes |
//! | argv with the shell applied, heredoc bodies | yes | | |
//! | variables: ENV, PATH, ARGs declared so far, in order | all | only where a word uses them | only where the path does |
//! | user, directory | yes | directory, through the destination | user, path |
//! | network mode, `--security`, devices | yes | | |
//! | mounts: type, target, source, id, sharing, size, mode, owner, `required`, `env` | yes | | |
//! | sources as written after expansion, inline files | | yes | |
//! | `--chown --chmod --link --parents --exclude --checksum --keep-git-dir --unpack` | | yes | |
//! | kind of what is read from: context, nothing, another state | mounts | `--from` | |
//! | proxy variables that are not declared | no | no | no |
//! | values of secrets, contents of caches, ssh agents | no | | |
//! | name of the step, stage, place in the file, history text, comments, so also the policies that comments give | no | no | no |
//!
//! Files come in with [`step_key`]: what the parent is, and digests of what is read from elsewhere, by content. So
//! neither the name of a stage nor its position is in any key. An ARG misses at the first RUN after it, not where it is
//! declared, and not in a COPY that does not use it.
//!
//! Nothing is written and nothing locked. Keys are stored by the builder: a change of their encoding is a change of
//! format and raises the version in `cache_key.rs`; a test pins one value.
//!
//! Start reading at `step.rs` and `graph.rs`, then `planning.rs`, `reach.rs`, `stage_planner.rs`. `tests/steps.rs` has
//! the tables, `tests/keys.rs` what changes a key, `tests/corpus.rs` holds config, history and errors against recorded
//! answers of BuildKit.

mod base_name;
pub mod cache_key;
mod config_change;
mod copy;
mod environment;
mod git_address;
mod global_args;
mod go_format;
pub mod graph;
mod inspection;
mod join;
mod path;
mod planning;
mod platform_name;
mod ports;
mod reach;
mod run;
mod signal;
mod source_date_epoch;
mod stage_order;
mod stage_planner;
mod stage_table;
pub mod step;

pub use cache_key::{definition_key, step_key};
pub use git_address::{GitAddress, GitAddressError, GitTimes, without_login};
pub use graph::{
    BaseImage, BaseRequest, DeclaredArg, FilesystemState, Graph, HISTORY_COMMENT, ImageKey, NamedContext,
    PlanOptions, PlannedHistory, SourceDateEpoch, StageResult, StepId,
};
pub use inspection::IgnoreRules;
pub use join::{PlatformTarget, add_new, join};
pub use planning::{needed_bases, needed_bases_with, plan, plan_inspected};
pub use platform_name::meant_platform;
pub use step::{
    Chmod, CopySourceSpec, CopyStep, FileSource, Operation, PlannedSource, RunStep, ScriptFile, Step,
    StepMount, WorkdirStep,
};
