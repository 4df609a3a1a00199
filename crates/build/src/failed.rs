//! What a failed RUN left: described so that it can be looked at later, and kept in the store.
//!
//! A description holds what the step was given, and no secret: of those only where they were mounted. Proxy variables, which
//! may hold passwords, are left out.

use std::path::PathBuf;

use mica_dockerfile::instruction::RunNetwork;
use mica_plan::{FileSource, RunStep, Step, StepMount};
use mica_store::{FailedStep, Ingest};
use serde::{Deserialize, Serialize};

use crate::build::Build;
use crate::cache_mount::cache_name;
use crate::error::StepError;
use crate::outcomes::Outcomes;
use crate::request::BuildNetwork;
use crate::traced::{StepTree, TreeBytes};

/// Raised when a description changes; others are not opened.
const VERSION: u32 = 1;
/// A longer ignore file is not kept; the whole context is shown then.
const IGNORE_BYTES_MAX: usize = 64 * 1024;

/// A failed step as people are told of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedState {
    version: u32,
    /// Its name as shown while building.
    pub step: String,
    /// Name of the Dockerfile.
    pub dockerfile: String,
    /// The line of its instruction, from 1.
    pub line: usize,
    /// Its exit code.
    pub code: i32,
    /// The build context, if it is a directory.
    pub context: Option<PathBuf>,
    /// What it ran.
    pub(crate) command: Vec<String>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) user: String,
    pub(crate) directory: String,
    /// Path and content of a script.
    pub(crate) script: Option<(String, String)>,
    pub(crate) mounts: Vec<KeptMount>,
    pub(crate) network: KeptNetwork,
    pub(crate) add_hosts: Vec<String>,
    pub(crate) insecure: bool,
    /// Diff IDs of the layers below, lowest first.
    pub(crate) layers: Vec<String>,
}

/// The network that the step had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeptNetwork {
    None,
    Default,
    Host,
}

/// A mount that the step had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeptMount {
    Bind { target: String, source: String, read_write: bool, from: KeptSource },
    Cache { target: String, name: String, read_only: bool },
    Tmpfs { target: String, size_bytes: Option<u64> },
    Secret { id: String, target: Option<String>, variable: Option<String>, mode: u32, uid: u32, gid: u32 },
    Ssh { id: String, target: String, mode: u32, uid: u32, gid: u32 },
}

/// Whose files were bound.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum KeptSource {
    /// Diff IDs, lowest first.
    Layers(Vec<String>),
    /// A directory, with the text of its ignore file.
    Context { path: PathBuf, ignore: Option<String> },
}

impl FailedState {
    /// What the store has of a failed step; `None` if another version wrote it.
    pub fn of(failed: &FailedStep) -> Option<Self> {
        let state: Self = serde_json::from_slice(&failed.description).ok()?;
        (state.version == VERSION).then_some(state)
    }

    /// What opens a shell: the one of the step's SHELL, where the step went through it.
    pub(crate) fn shell(&self) -> String {
        match self.command.as_slice() {
            [shell, .., flag, _] if flag == "-c" => shell.clone(),
            _ => "/bin/sh".to_owned(),
        }
    }

    /// Whether secrets or agents were among the mounts.
    pub fn had_secrets(&self) -> bool {
        self.mounts.iter().any(|mount| matches!(mount, KeptMount::Secret { .. } | KeptMount::Ssh { .. }))
    }
}

/// Which builds are builds of the same: those of one Dockerfile with one context.
pub(crate) fn context_of(build: &Build<'_>) -> String {
    format!("{} {}", build.context_name().unwrap_or_default(), build.request.dockerfile.name)
}

/// Keeps what the step wrote. That this cannot be done is no reason to tell less of why the step failed.
pub(crate) fn keep(
    build: &Build<'_>,
    step: &Step,
    trees: &[StepTree],
    outcomes: &Outcomes,
    ingest: Ingest,
    code: i32,
) -> Option<String> {
    let mica_plan::Operation::Run(run) = &step.operation else { return None };
    match try_keep(build, (step, run), trees, outcomes, ingest, code) {
        Ok(id) => Some(id),
        Err(error) => {
            build.warn_once(&format!("what the failed step left cannot be kept: {error}"));
            None
        }
    }
}

fn try_keep(
    build: &Build<'_>,
    (step, run): (&Step, &RunStep),
    trees: &[StepTree],
    outcomes: &Outcomes,
    ingest: Ingest,
    code: i32,
) -> Result<String, StepError> {
    let request = build.request;
    let chains = || trees.iter().filter_map(|tree| tree.bytes.chain());
    let mut layers = Vec::new();
    chains().for_each(|chain| layers.extend(chain.identities()));
    let below = trees.first().and_then(|tree| tree.bytes.chain());
    let state = FailedState {
        version: VERSION,
        step: step.name.clone(),
        dockerfile: request.dockerfile.name.to_string(),
        line: request.dockerfile.line(step.span.start),
        code,
        context: request.context.as_deref().map(|path| std::path::absolute(path).unwrap_or(path.to_owned())),
        command: run.argv.clone(),
        environment: run.environment.clone(),
        user: run.user.clone(),
        directory: run.directory.clone(),
        script: run.script.as_ref().map(|script| (script.path.clone(), script.content.clone())),
        mounts: mounts(build, run, trees, outcomes)?,
        network: match (run.network, request.network) {
            (RunNetwork::None, _) | (RunNetwork::Default, BuildNetwork::None) => KeptNetwork::None,
            (RunNetwork::Host, _) | (RunNetwork::Default, BuildNetwork::Host) => KeptNetwork::Host,
            (RunNetwork::Default, BuildNetwork::Default) => KeptNetwork::Default,
        },
        add_hosts: request.add_hosts.clone(),
        insecure: run.insecure,
        layers: below.map(|chain| texts(chain.diff_ids())).unwrap_or_default(),
    };
    let description = serde_json::to_vec(&state).unwrap_or_default();
    Ok(build.store.keep_failed_step(ingest, &context_of(build), &description, &layers)?)
}

fn texts(diff_ids: &[mica_oci::DiffId]) -> Vec<String> {
    diff_ids.iter().map(ToString::to_string).collect()
}

fn mounts(
    build: &Build<'_>,
    run: &RunStep,
    trees: &[StepTree],
    outcomes: &Outcomes,
) -> Result<Vec<KeptMount>, StepError> {
    let mut bound = trees.iter().skip(1);
    let mut kept = Vec::new();
    for mount in &run.mounts {
        kept.push(match mount {
            StepMount::Bind { target, from, source, read_write, .. } => {
                let Some(tree) = bound.next() else { continue };
                let from = match (&tree.bytes, from, &build.request.context) {
                    (TreeBytes::Layers(chain), ..) => KeptSource::Layers(texts(chain.diff_ids())),
                    (_, FileSource::Context, Some(path)) => {
                        let ignore = build.request.ignore.as_ref().map(|file| file.text.clone());
                        let ignore = ignore.filter(|text| text.len() <= IGNORE_BYTES_MAX);
                        let path = std::path::absolute(path).unwrap_or(path.clone());
                        KeptSource::Context { path, ignore }
                    }
                    _ => continue,
                };
                let (target, source) = (target.clone(), source.clone());
                KeptMount::Bind { target, source, read_write: *read_write, from }
            }
            StepMount::Cache { target, read_only, .. } => {
                let name = cache_name(build, mount, outcomes)?;
                KeptMount::Cache { target: target.clone(), name, read_only: *read_only }
            }
            StepMount::Tmpfs { target, size_bytes } => {
                KeptMount::Tmpfs { target: target.clone(), size_bytes: *size_bytes }
            }
            StepMount::Secret { id, target, environment_name, mode, uid, gid, .. } => KeptMount::Secret {
                id: id.clone(),
                target: target.clone(),
                variable: environment_name.clone(),
                mode: *mode,
                uid: *uid,
                gid: *gid,
            },
            StepMount::Ssh { id, target, mode, uid, gid, .. } => {
                KeptMount::Ssh { id: id.clone(), target: target.clone(), mode: *mode, uid: *uid, gid: *gid }
            }
        });
    }
    Ok(kept)
}
