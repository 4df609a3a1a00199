//! RUN: a program in a container of its own, whose changes become the layer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Instant;

use mica_container::network::{Fallback, NetworkMode, NetworkRequest, connect};
use mica_dockerfile::instruction::{CacheSharing, RunNetwork};
use mica_layer::diff::{DiffOptions, diff_upper};
use mica_network::{AddHost, DnsSettings};
use mica_plan::{RunStep, Step, StepMount};
use mica_runtime::spec::{ContainerSpec, Mount, Rootfs, UserSpec};
use mica_runtime::{Stdio, Stream};
use mica_store::{CacheMount, CacheMountSharing, Ingest};
use mica_sys::error::ErrorAt;
use mica_tree::MergedIndex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::build::{Build, BuildNetwork, Outcomes};
use crate::error::StepError;
use crate::event::Event;
use crate::filesystem::Chain;
use crate::run_state::Made;

/// Lines of a step's output that are kept for its error.
const LINES_KEPT: usize = 40;
/// The longest line that is kept or shown; what is longer is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// How often a running step looks whether it should end.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// Digests of what the step's mounts bring in, for its key.
pub(crate) fn mounted_contents(
    _build: &Build<'_>,
    run: &RunStep,
    _outcomes: &Outcomes,
) -> Result<Vec<[u8; 32]>, StepError> {
    for mount in &run.mounts {
        match mount {
            StepMount::Tmpfs { .. } | StepMount::Cache { from: None, .. } => {}
            StepMount::Cache { .. } => {
                return Err(StepError::Unsupported { what: "a cache mount with `from`" });
            }
            StepMount::Bind { .. } => return Err(StepError::Unsupported { what: "RUN --mount=type=bind" }),
            StepMount::Secret { required: false, .. } | StepMount::Ssh { required: false, .. } => {}
            StepMount::Secret { id, .. } => return Err(StepError::SecretMissing { id: id.clone() }),
            StepMount::Ssh { .. } => return Err(StepError::Unsupported { what: "RUN --mount=type=ssh" }),
        }
    }
    if run.insecure {
        return Err(StepError::Unsupported { what: "RUN --security=insecure" });
    }
    if !run.devices.is_empty() {
        return Err(StepError::Unsupported { what: "RUN --device" });
    }
    Ok(Vec::new())
}

/// A container as specified, with what must live as long as it runs.
struct Prepared {
    spec: ContainerSpec,
    _caches: Vec<CacheMount>,
}

/// Runs the step over `lower` in `ingest` and reads its layer.
#[allow(clippy::too_many_arguments)]
pub(crate) fn execute(
    build: &Build<'_>,
    step: &Step,
    run: &RunStep,
    lower: &MergedIndex,
    chain: &Chain,
    ingest: &Ingest,
    output: &mut Vec<String>,
) -> Result<Made, StepError> {
    let mode = match (run.network, build.request.network) {
        (RunNetwork::None, _) | (RunNetwork::Default, BuildNetwork::None) => NetworkMode::None,
        (RunNetwork::Host, _) | (RunNetwork::Default, BuildNetwork::Host) => NetworkMode::Host,
        (RunNetwork::Default, BuildNetwork::Default) => NetworkMode::Bridge,
    };
    let hosts = add_hosts(build)?;
    let network = connect(
        &NetworkRequest {
            mode,
            rootless: build.rootless(),
            store_root: build.store.root(),
            hostname: HOSTNAME,
            domainname: "",
            add_hosts: &hosts,
            dns: &DnsSettings::default(),
            fallback: Fallback::HostWithWarning,
        },
        &format!("build-{}-{}", std::process::id(), step.id.0),
    )?;
    for warning in &network.warnings {
        build.warn_once(warning);
    }
    let mut prepared = prepare(build, run, chain, ingest)?;
    prepared.spec.namespaces.network = network.runtime_network.clone();
    for (target, content) in [("/etc/resolv.conf", &network.resolv_conf), ("/etc/hosts", &network.hosts)] {
        prepared.spec.mounts.push(Mount::File {
            target: target.into(),
            content: content.clone(),
            mode: 0o644,
        });
    }
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).at("pipe2", "output of a step")?;
    let second = writer.try_clone().at("fcntl", "output of a step")?;
    let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Fd(writer), stderr: Stream::Fd(second) };
    let created = mica_runtime::spawn(&prepared.spec, stdio)?;
    let mount_points: Vec<Vec<u8>> = created
        .created_mount_points
        .iter()
        .map(|point| {
            let path = point.path.as_os_str().as_bytes();
            path.strip_prefix(b"/").unwrap_or(path).to_vec()
        })
        .collect();
    let mut running = created.start()?;
    let mut lines = Lines::new(build, step);
    let mut ended = false;
    let mut buffer = vec![0; 64 * 1024];
    let mut reader = File::from(reader);
    loop {
        if build.stopped() && !ended {
            running.kill(rustix::process::Signal::KILL.as_raw())?;
            ended = true;
        }
        if !readable(reader.as_fd())? {
            continue;
        }
        // Ends when every process of the container has: the kernel ends them with the first one.
        match reader.read(&mut buffer).at("read", "output of a step")? {
            0 => break,
            count => lines.take(&buffer[..count]),
        }
    }
    lines.finish();
    let status = running.wait()?;
    drop(running);
    network.disconnect();
    if ended {
        return Err(StepError::Cancelled);
    }
    if status.code() != 0 {
        output.extend(lines.kept);
        return Err(StepError::Exit { command: run.argv.join(" "), code: status.code() });
    }
    let tree = open_directory(ingest)?;
    let options = DiffOptions { userxattr: build.rootless(), mount_points };
    let diff = diff_upper(tree.as_fd(), lower, &options)?;
    for leftover in ["work", "empty"] {
        let path = ingest.path().join(leftover);
        if let Err(error) = std::fs::remove_dir_all(&path)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            return Err(mica_sys::Error::new("rmdir", path, error).into());
        }
    }
    Ok(Made { index: Arc::new(diff.index), diff_id: diff.diff_id, tar_size_bytes: diff.tar_size_bytes })
}

/// Host name of every step: what a step writes must not tell where it was built.
const HOSTNAME: &str = "mica";

fn add_hosts(build: &Build<'_>) -> Result<Vec<AddHost>, StepError> {
    Ok(build
        .request
        .add_hosts
        .iter()
        .map(|text| mica_network::parse_add_host(text))
        .collect::<Result<_, _>>()?)
}

fn open_directory(ingest: &Ingest) -> mica_sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(ingest.tree(), flags, Mode::empty()).at("open", ingest.tree())
}

fn readable(fd: std::os::fd::BorrowedFd<'_>) -> Result<bool, StepError> {
    let mut fds = [PollFd::new(&fd, PollFlags::IN)];
    match poll(&mut fds, Some(&POLL)) {
        Ok(count) => Ok(count > 0),
        Err(rustix::io::Errno::INTR) => Ok(false),
        Err(error) => Err(mica_sys::Error::new("poll", "output of a step", error).into()),
    }
}

fn prepare(build: &Build<'_>, run: &RunStep, chain: &Chain, ingest: &Ingest) -> Result<Prepared, StepError> {
    let make = |name: &str| {
        let path = ingest.path().join(name);
        std::fs::create_dir(&path).at("mkdir", &path).map(|()| path)
    };
    let mut lowers = chain.lowers();
    if lowers.is_empty() {
        lowers.push(make("empty")?);
    }
    let rootfs = Rootfs::Overlay {
        lowers,
        upper: ingest.tree(),
        work: make("work")?,
        userxattr: build.rootless(),
        // A layer that a power cut leaves half written is found by its boot ID.
        volatile: true,
    };
    let mut spec = ContainerSpec::new(rootfs, run.argv.clone());
    spec.hostname = HOSTNAME.into();
    spec.rootless = build.rootless();
    let variables = run.environment.iter().chain(&run.hidden_environment);
    spec.process.env = variables.map(|(name, value)| format!("{name}={value}")).collect();
    spec.process.cwd = if run.directory.is_empty() { "/".into() } else { run.directory.clone() };
    spec.process.user = UserSpec::Names(run.user.clone());
    let mut caches = Vec::new();
    for mount in &run.mounts {
        match mount {
            StepMount::Tmpfs { target, size_bytes } => {
                spec.mounts.push(Mount::Tmpfs {
                    target: target.clone(),
                    size_bytes: *size_bytes,
                    mode: 0o1777,
                });
            }
            StepMount::Cache { target, id, sharing, read_only, mode, .. } => {
                let sharing = match sharing {
                    CacheSharing::Shared => CacheMountSharing::Shared,
                    CacheSharing::Private => CacheMountSharing::Private,
                    CacheSharing::Locked => CacheMountSharing::Locked,
                };
                let cache = build.store.cache_mount(id, sharing, *mode)?;
                spec.mounts.push(Mount::Bind {
                    source: cache.path().to_path_buf(),
                    target: target.clone(),
                    read_only: *read_only,
                    recursive: false,
                });
                caches.push(cache);
            }
            // Refused or, where the Dockerfile allows it, left out when the key was made.
            StepMount::Bind { .. } | StepMount::Secret { .. } | StepMount::Ssh { .. } => {}
        }
    }
    if let Some(script) = &run.script {
        let content = script.content.clone().into_bytes();
        spec.mounts.push(Mount::File { target: script.path.clone(), content, mode: 0o755 });
    }
    Ok(Prepared { spec, _caches: caches })
}

/// A step's output as lines: told as events, the last ones kept.
struct Lines<'b> {
    build: &'b Build<'b>,
    step: usize,
    started: Instant,
    partial: Vec<u8>,
    kept: VecDeque<String>,
}

impl<'b> Lines<'b> {
    fn new(build: &'b Build<'_>, step: &Step) -> Self {
        let (partial, kept) = (Vec::new(), VecDeque::new());
        Self { build, step: step.id.0, started: Instant::now(), partial, kept }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            self.partial.extend_from_slice(&bytes[..end]);
            self.line();
            bytes = &bytes[end + 1..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() > LINE_BYTES_MAX {
            self.line();
        }
    }

    fn finish(&mut self) {
        if !self.partial.is_empty() {
            self.line();
        }
    }

    fn line(&mut self) {
        let line = String::from_utf8_lossy(&self.partial);
        // A progress bar redraws its line; what it drew last is what counts.
        let line = line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned();
        self.partial.clear();
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line.clone());
        (self.build.events)(Event::StepOutput { step: self.step, elapsed: self.started.elapsed(), line });
    }
}
