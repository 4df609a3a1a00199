//! What a RUN step is given with `--mount`: files of elsewhere, caches, memory, secrets, agents.

use mica_plan::{RunStep, StepMount};
use mica_runtime::spec::{Mount, SecretContent};
use mica_ssh_agent::Served;

use crate::build::Build;
use crate::cache_mount::{Caches, cache_name, caches};
use crate::error::StepError;
use crate::exec_run::Scratch;
use crate::materialize;
use crate::outcomes::Outcomes;
use crate::secret::Secret;
use crate::traced::StepTree;

/// What programs find their agent by.
pub(crate) const SSH_AUTH_SOCK: &str = "SSH_AUTH_SOCK";
/// Name of an agent's socket on the host.
pub(crate) const SOCKET: &str = "agent";

/// The mounts of a step, and what goes with them.
pub(crate) struct Given {
    /// In the order of the instruction.
    pub mounts: Vec<Mount>,
    /// Variables over those of the step: secrets among them.
    pub variables: Vec<(String, String)>,
    /// Lives as long as the step runs.
    pub held: Held,
}

/// What the mounts of a step stand on.
pub(crate) struct Held {
    caches: Caches,
    agents: Vec<Served>,
}

/// Prepares the mounts of a step. `trees` are those it sees: its own first, then one for each bind.
pub(crate) fn given(
    build: &Build<'_>,
    run: &RunStep,
    trees: &[StepTree],
    traced: bool,
    scratch: &Scratch<'_>,
    outcomes: &Outcomes,
) -> Result<Given, StepError> {
    let held = Held { caches: caches(build, run, outcomes)?, agents: Vec::new() };
    let mut given = Given { mounts: Vec::new(), variables: Vec::new(), held };
    let mut bound = 0;
    for mount in &run.mounts {
        match mount {
            StepMount::Tmpfs { target, size_bytes } => {
                let (target, size_bytes) = (target.clone(), *size_bytes);
                given.mounts.push(Mount::Tmpfs { target, size_bytes, mode: 0o1777, executable: true });
            }
            StepMount::Cache { target, read_only, .. } => {
                let Some(cache) = given.held.caches.get(&cache_name(build, mount, outcomes)?) else {
                    continue;
                };
                given.mounts.push(Mount::Bind {
                    source: cache.path().to_path_buf(),
                    target: target.clone(),
                    read_only: *read_only,
                    recursive: false,
                });
            }
            StepMount::Bind { target, source, read_write, .. } => {
                bound += 1;
                let make = |name: &str| scratch.directory(&format!("{name}-{bound}"));
                let (target, source) = (target.clone(), source.clone());
                given.mounts.push(match trees.get(bound) {
                    Some(_) if traced => Mount::Tree {
                        descriptor: bound,
                        place: make("lower")?,
                        upper: make("upper")?,
                        work: make("work")?,
                        userxattr: build.rootless(),
                        source,
                        target,
                        read_only: !read_write,
                    },
                    Some(tree) => Mount::Bind {
                        source: materialize::materialize(build.rootless(), tree, &source, make("upper")?)?,
                        target,
                        read_only: !read_write,
                        recursive: false,
                    },
                    None => continue,
                });
            }
            StepMount::Secret { .. } => add_secret(build, mount, &mut given)?,
            StepMount::Ssh { .. } => add_agent(build, run, mount, scratch, &mut given)?,
        }
    }
    Ok(given)
}

/// Reads a secret for the time of the step: into a file in memory, a variable, or both.
fn add_secret(build: &Build<'_>, mount: &StepMount, given: &mut Given) -> Result<(), StepError> {
    let StepMount::Secret { id, target, environment_name, required, mode, uid, gid, span } = mount else {
        return Ok(());
    };
    // The last one of a name counts, as it does for docker.
    let Some(source) = build.request.secrets.iter().rfind(|source| source.id == *id) else {
        return match required {
            true => Err(StepError::SecretMissing { id: id.clone(), span: *span }),
            false => Ok(()),
        };
    };
    let secret = source.read().map_err(|error| StepError::Secret { error, span: *span })?;
    if let Some(target) = target {
        given.mounts.push(Mount::Secret {
            target: target.clone(),
            content: SecretContent(secret.expose().to_vec()),
            mode: *mode,
            uid: *uid,
            gid: *gid,
        });
    }
    if let Some(name) = environment_name {
        let value = as_variable(&secret).ok_or(StepError::SecretNotText { id: id.clone(), span: *span })?;
        given.variables.push((name.clone(), value));
    }
    Ok(())
}

/// Serves an agent on a socket for the time of the step. Where nobody gave one, the step does without.
fn add_agent(
    build: &Build<'_>,
    run: &RunStep,
    mount: &StepMount,
    scratch: &Scratch<'_>,
    given: &mut Given,
) -> Result<(), StepError> {
    let StepMount::Ssh { id, target, required, mode, uid, gid, span } = mount else { return Ok(()) };
    // As BuildKit has it: the first one is what programs look for, be it there or not.
    let is_named = |(name, _): &(String, String)| name == SSH_AUTH_SOCK;
    if !given.variables.iter().chain(&run.environment).any(is_named) {
        given.variables.push((SSH_AUTH_SOCK.to_owned(), target.clone()));
    }
    let Some(source) = build.request.ssh.iter().rfind(|source| source.id == *id) else {
        return match required {
            true => Err(StepError::AgentMissing { id: id.clone(), span: *span }),
            false => Ok(()),
        };
    };
    let failed = |error| StepError::Agent { id: id.clone(), error, span: *span };
    let agent = source.open().map_err(failed)?;
    let directory = scratch.directory(&format!("agent-{}", given.held.agents.len()))?;
    let served = mica_ssh_agent::serve(agent, &directory, SOCKET, *mode, (*uid, *gid)).map_err(failed)?;
    given.held.agents.push(served);
    given.mounts.push(Mount::Bind {
        source: directory.join(SOCKET),
        target: target.clone(),
        read_only: false,
        recursive: false,
    });
    Ok(())
}

/// The secret as text.
pub(crate) fn as_variable(secret: &Secret) -> Option<String> {
    let text = std::str::from_utf8(secret.expose()).ok()?;
    (!text.contains('\0')).then(|| text.to_owned())
}
