//! A shell, or another program, in what a failed step left. What it changes is thrown away afterwards: the state is looked at as
//! often as one likes.

use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use mica_container::network::{Fallback, NetworkMode, NetworkRequest, connect};
use mica_container::terminal::OwnTerminal;
use mica_context::SourceDir;
use mica_dockerfile::Dockerignore;
use mica_network::DnsSettings;
use mica_oci::DiffId;
use mica_runtime::spec::{ContainerSpec, Lower, Mount, Rootfs, SecretContent, UserSpec};
use mica_runtime::{Stdio, Stream};
use mica_ssh_agent::Served;
use mica_store::{CacheMount, CacheMountSharing, FailedStep, Ingest, Store, StoreError};
use mica_sys::error::ErrorAt;
use mica_tree::MergedIndex;
use rustix::fs::{Gid, Mode, Uid};

use crate::error::StepError;
use crate::exec_run::{HOSTNAME, Scratch, set_variables};
use crate::failed::{FailedState, KeptMount, KeptNetwork, KeptSource};
use crate::filesystem::{Chain, Indexes};
use crate::materialize;
use crate::run_mount::{SOCKET, SSH_AUTH_SOCK, as_variable};
use crate::secret::{SecretSource, SshSource};
use crate::traced::{StepTree, TreeBytes, without_owners};

/// How a failed step's state is opened.
pub struct DebugRequest<'a> {
    /// What is run there; the step's shell if it is empty.
    pub command: &'a [String],
    /// Mounted again where the step had them; the state itself has none.
    pub secrets: &'a [SecretSource],
    /// As `secrets`.
    pub ssh: &'a [SshSource],
    /// The caller is in a user namespace.
    pub rootless: bool,
    /// Our standard streams are a terminal, which the program gets for its own.
    pub is_terminal: bool,
    /// Told of what cannot be had as the step had it.
    pub warn: &'a dyn Fn(&str),
}

/// What the container stands on, for as long as it runs.
#[derive(Default)]
struct Held {
    _caches: Vec<CacheMount>,
    _agents: Vec<Served>,
}

/// Runs a program in what a failed step left, and answers its exit code.
pub fn debug(store: &Store, failed: &FailedStep, request: &DebugRequest<'_>) -> Result<i32, StepError> {
    let gone = || StepError::StateGone { id: failed.id.clone() };
    let state = FailedState::of(failed).ok_or_else(gone)?;
    let _held = failed.hold()?.ok_or_else(gone)?;
    // Before any thread is started.
    let terminal = if request.is_terminal { Some(OwnTerminal::new()?) } else { None };
    let chain = chain_of(store, &state.layers)?;
    let lease = store.lease()?;
    chain.protect(&lease)?;
    let ingest = store.ingest()?;
    show_root(&failed.tree(), &ingest.tree())?;
    let scratch = Scratch { ingest: &ingest };
    let mut lowers = vec![Lower::Directory(failed.tree())];
    lowers.extend(chain.lowers().into_iter().map(Lower::Directory));
    // An overlay wants two; and nothing at all is a stack too.
    lowers.push(Lower::Directory(scratch.directory("empty")?));
    let rootfs = Rootfs::Overlay {
        lowers,
        upper: ingest.tree(),
        work: scratch.directory("work")?,
        userxattr: request.rootless,
        volatile: true,
    };
    let mut spec = ContainerSpec::new(rootfs, request.command.to_vec());
    if request.command.is_empty() {
        spec.process.argv = vec![state.shell()];
    }
    spec.hostname = HOSTNAME.into();
    spec.rootless = request.rootless;
    spec.process.env = state.environment.iter().map(|(name, value)| format!("{name}={value}")).collect();
    if request.is_terminal {
        let term = std::env::var("TERM").unwrap_or_else(|_| "xterm".to_owned());
        set_variables(&mut spec.process.env, &[("TERM".to_owned(), term)]);
    }
    spec.process.cwd = if state.directory.is_empty() { "/".into() } else { state.directory.clone() };
    spec.process.user = UserSpec::Names(state.user.clone());
    spec.process.privileged = state.insecure;
    spec.process.terminal = request.is_terminal;
    let _mounted = mount_all(store, &state, request, &ingest, &mut spec)?;
    let hosts: Vec<_> =
        state.add_hosts.iter().map(|text| mica_network::parse_add_host(text)).collect::<Result<_, _>>()?;
    let network = connect(
        &NetworkRequest {
            mode: match state.network {
                KeptNetwork::None => NetworkMode::None,
                KeptNetwork::Host => NetworkMode::Host,
                KeptNetwork::Default => NetworkMode::Bridge,
            },
            rootless: request.rootless,
            store_root: store.root(),
            hostname: HOSTNAME,
            domainname: "",
            add_hosts: &hosts,
            dns: &DnsSettings::default(),
            fallback: Fallback::HostWithWarning,
        },
        &format!("debug-{}", std::process::id()),
    )?;
    network.warnings.iter().for_each(|warning| (request.warn)(warning));
    spec.namespaces.network = network.runtime_network.clone();
    let files = [("/etc/resolv.conf", &network.resolv_conf), ("/etc/hosts", &network.hosts)];
    let file = |(target, content): (&str, &Vec<u8>)| Mount::File {
        target: target.to_owned(),
        content: content.clone(),
        mode: 0o644,
    };
    spec.mounts.splice(0..0, files.map(file));
    let stdio = match terminal {
        Some(_) => Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null },
        None => Stdio::default(),
    };
    let created = mica_runtime::spawn(&spec, stdio)?;
    let code = match terminal {
        Some(terminal) => terminal.run(created)?,
        None => created.start()?.wait()?.code(),
    };
    network.disconnect();
    Ok(code)
}

fn chain_of(store: &Store, diff_ids: &[String]) -> Result<Arc<Chain>, StepError> {
    let parse = |text: &String| DiffId::parse(text).map_err(|_| StepError::Cancelled);
    let diff_ids: Vec<DiffId> = diff_ids.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Arc::new(Chain::of_image(store, &diff_ids)?))
}

/// An overlay shows the root of its upper directory: it must be as the step's was.
fn show_root(from: &Path, to: &Path) -> Result<(), StepError> {
    let metadata = std::fs::symlink_metadata(from).at("lstat", from)?;
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    rustix::fs::chown(to, Some(uid), Some(gid)).at("chown", to)?;
    Ok(rustix::fs::chmod(to, Mode::from_raw_mode(metadata.mode())).at("chmod", to)?)
}

/// The mounts that the step had. One that cannot be had any more is told of and left out: the rest is worth a look.
fn mount_all(
    store: &Store,
    state: &FailedState,
    request: &DebugRequest<'_>,
    ingest: &Ingest,
    spec: &mut ContainerSpec,
) -> Result<Held, StepError> {
    let scratch = Scratch { ingest };
    let mut held = Held::default();
    for (number, mount) in state.mounts.iter().enumerate() {
        let directory = |name: &str| scratch.directory(&format!("{name}-{number}"));
        let left_out = |target: &str, error: &dyn std::fmt::Display| {
            (request.warn)(&format!("`{target}` is not mounted: {error}"));
        };
        match mount {
            KeptMount::Tmpfs { target, size_bytes } => {
                let (target, size_bytes) = (target.clone(), *size_bytes);
                spec.mounts.push(Mount::Tmpfs { target, size_bytes, mode: 0o1777, executable: true });
            }
            KeptMount::Bind { target, source, read_write, from } => {
                let found = tree_of(store, from).and_then(|tree| {
                    materialize::materialize(request.rootless, &tree, source, directory("bound")?)
                });
                match found {
                    Ok(source) => spec.mounts.push(Mount::Bind {
                        source,
                        target: target.clone(),
                        read_only: !read_write,
                        recursive: false,
                    }),
                    Err(error) => left_out(target, &error),
                }
            }
            KeptMount::Cache { target, name, read_only } => {
                let begin = |_: &Path| Err(StoreError::InvalidName { what: "cache", value: name.clone() });
                // Shared, whoever has it: it is only looked at, and nobody shall wait.
                match store.try_cache_mount(name, CacheMountSharing::Shared, &begin) {
                    Ok(Some(cache)) => {
                        spec.mounts.push(Mount::Bind {
                            source: cache.path().to_owned(),
                            target: target.clone(),
                            read_only: *read_only,
                            recursive: false,
                        });
                        held._caches.push(cache);
                    }
                    Ok(None) => left_out(target, &"a build has the cache to itself"),
                    Err(_) => left_out(target, &"the cache is gone"),
                }
            }
            KeptMount::Secret { id, target, variable, mode, uid, gid } => {
                let Some(source) = request.secrets.iter().rfind(|source| source.id == *id) else { continue };
                let secret = match source.read() {
                    Ok(secret) => secret,
                    Err(error) => {
                        left_out(target.as_deref().unwrap_or(id), &error);
                        continue;
                    }
                };
                if let Some(target) = target {
                    spec.mounts.push(Mount::Secret {
                        target: target.clone(),
                        content: SecretContent(secret.expose().to_vec()),
                        mode: *mode,
                        uid: *uid,
                        gid: *gid,
                    });
                }
                if let (Some(name), Some(value)) = (variable, as_variable(&secret)) {
                    set_variables(&mut spec.process.env, &[(name.clone(), value)]);
                }
            }
            KeptMount::Ssh { id, target, mode, uid, gid } => {
                let Some(source) = request.ssh.iter().rfind(|source| source.id == *id) else { continue };
                let place = directory("agent")?;
                let owner = (*uid, *gid);
                let agent = source.open();
                match agent.and_then(|agent| mica_ssh_agent::serve(agent, &place, SOCKET, *mode, owner)) {
                    Ok(served) => {
                        held._agents.push(served);
                        let (source, target) = (place.join(SOCKET), target.clone());
                        set_variables(&mut spec.process.env, &[(SSH_AUTH_SOCK.to_owned(), target.clone())]);
                        spec.mounts.push(Mount::Bind { source, target, read_only: false, recursive: false });
                    }
                    Err(error) => left_out(target, &error),
                }
            }
        }
    }
    if let Some((path, content)) = &state.script {
        let (target, content) = (path.clone(), content.clone().into_bytes());
        spec.mounts.push(Mount::File { target, content, mode: 0o755 });
    }
    Ok(held)
}

fn tree_of(store: &Store, from: &KeptSource) -> Result<StepTree, StepError> {
    Ok(match from {
        KeptSource::Layers(layers) => {
            let chain = chain_of(store, layers)?;
            let merged = chain.merged(&Indexes::default())?;
            StepTree::lower(&chain, merged)
        }
        KeptSource::Context { path, ignore } => {
            let rules = ignore.as_deref().map(Dockerignore::parse).transpose().ok().flatten();
            let directory = Arc::new(SourceDir::open(path, rules.as_ref(), None)?);
            let merged = Arc::new(MergedIndex::new([Arc::new(without_owners(directory.index()))]));
            StepTree { name: String::new(), merged, bytes: TreeBytes::Context(directory) }
        }
    })
}
