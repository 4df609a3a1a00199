//! RUN: a program in a container of its own, whose changes become the layer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use mica_container::network::{Fallback, NetworkMode, NetworkRequest, connect};
use mica_dockerfile::instruction::RunNetwork;
use mica_layer::diff::{DiffOptions, diff_upper};
use mica_network::{AddHost, DnsSettings};
use mica_plan::{RunStep, Step};
use mica_runtime::spec::{ContainerSpec, Lower, Mount, Rootfs, UserSpec};
use mica_runtime::{ExitStatus, Running, SocketWatch, Stdio, Stream};
use mica_store::Ingest;
use mica_sys::error::ErrorAt;
use mica_trace::{Fault, Record, ServeOptions, Served};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};

use crate::build::Build;
use crate::error::StepError;
use crate::event::Event;
use crate::failed;
use crate::filesystem::Chain;
use crate::limits;
use crate::outcomes::{Made, Outcomes};
use crate::request::BuildNetwork;
use crate::reuse::Seen;
use crate::run_mount::{self, Held};
use crate::traced::{self, StepTree, TreeBytes};

/// Lines of a step's output that are kept for its error.
const LINES_KEPT: usize = 40;
/// The longest line that is kept or shown; what is longer is cut into several.
const LINE_BYTES_MAX: usize = 16 * 1024;
/// Directory in an ingest for mounts of a running step.
const SCRATCH: &str = "scratch";
/// More paths than any build tool looks at, and the point where a record costs more than it brings. `what_was_used` and
/// the user's documentation name it in words.
const USES_MAX: usize = 500_000;
/// How often a running step looks whether it should end.
const POLL: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

/// A container as specified, with what must live as long as it runs.
struct Prepared {
    spec: ContainerSpec,
    /// The trees of the spec, in the order of their numbers.
    served: Vec<Served>,
    _held: Held,
}

/// How an attempt to run a step ended, if the step itself succeeded.
enum Attempt {
    Done(Made, Seen),
    /// The server ended before the step did.
    ServerDied(String),
}

/// One try of a step: a directory of its own, in which nothing is left of an earlier one.
struct Try<'t> {
    step: &'t Step,
    run: &'t RunStep,
    trees: &'t [StepTree],
    outcomes: &'t Outcomes,
    ingest: Ingest,
}

/// Runs the step and reads its layer.
pub(crate) fn execute(
    build: &Build<'_>,
    step: &Step,
    run: &RunStep,
    parent: &Arc<Chain>,
    outcomes: &Outcomes,
    output: &mut Vec<String>,
) -> Result<(Ingest, Made, Seen), StepError> {
    let trees = traced::trees(build, run, parent, outcomes)?;
    let mut untraced = match build.policy(step).exact {
        // All that the machine has is open to it.
        _ if run.insecure => Some("it ran with `--security=insecure`".to_owned()),
        true => Some("only equal layers counted for it".to_owned()),
        false => build.why_untraced().map(ToOwned::to_owned),
    };
    let (mut tried, tries) = (1, run.retries.saturating_add(1));
    loop {
        let turn = Try { step, run, trees: &trees, outcomes, ingest: build.store.ingest()? };
        match attempt(build, &turn, untraced.clone(), output) {
            Ok(Attempt::Done(made, seen)) => return Ok((turn.ingest, made, seen)),
            // Once at most: then it is not traced any more.
            Ok(Attempt::ServerDied(reason)) => {
                build.warn_once(&format!("{}: {reason}; it runs again without being traced", step.name));
                untraced = Some(reason);
            }
            Err(StepError::Exit { code, .. }) if tried < tries && !build.stopped() => {
                tried += 1;
                output.clear();
                let line = format!("exit code: {code}; try {tried} of {tries}");
                let (elapsed, bytes) = (Duration::ZERO, Vec::new());
                (build.events)(Event::StepOutput { step: step.id.0, elapsed, line, bytes });
            }
            Err(StepError::Exit { command, code, .. }) => {
                let kept = build.request.keep_failed && !build.stopped();
                let _ = std::fs::remove_dir_all(turn.ingest.path().join(SCRATCH));
                let kept =
                    kept.then(|| failed::keep(build, step, &trees, outcomes, turn.ingest, code)).flatten();
                return Err(StepError::Exit { command, code, tries: tried, kept });
            }
            Err(error) => return Err(error),
        }
    }
}

fn attempt(
    build: &Build<'_>,
    turn: &Try<'_>,
    untraced: Option<String>,
    output: &mut Vec<String>,
) -> Result<Attempt, StepError> {
    let Try { step, run, trees, ingest, .. } = turn;
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
            hostname: &host_name(build),
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
    show_root(trees, ingest)?;
    let mut prepared = prepare(build, turn, untraced.is_none())?;
    prepared.spec.namespaces.network = network.runtime_network.clone();
    prepared.spec.watch_sockets = matches!(mode, NetworkMode::Bridge);
    let files = [("/etc/resolv.conf", &network.resolv_conf), ("/etc/hosts", &network.hosts)];
    let files = files.map(|(target, content)| Mount::File {
        target: target.into(),
        content: content.clone(),
        mode: 0o644,
    });
    // First, or a mount of the step's own over /etc, which may be read-only, would have to take them.
    prepared.spec.mounts.splice(0..0, files);
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).at("pipe2", "output of a step")?;
    let second = writer.try_clone().at("fcntl", "output of a step")?;
    let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Fd(writer), stderr: Stream::Fd(second) };
    let mounts: Vec<_> = prepared.served.iter().map(Served::mount).collect();
    let mut created = mica_runtime::spawn_with_trees(&prepared.spec, stdio, &mounts)?;
    drop(mounts);
    if !created.unkept_limits.is_empty() {
        let limits = created.unkept_limits.join(", ");
        build.warn_once(&format!("limits of steps are not kept here, no cgroup takes them: {limits}"));
    }
    let sockets = created.sockets.take();
    let mount_points: Vec<Vec<u8>> = created
        .created_mount_points
        .iter()
        .map(|point| {
            let path = point.path.as_os_str().as_bytes();
            path.strip_prefix(b"/").unwrap_or(path).to_vec()
        })
        .collect();
    let mut lines = Lines::new(build, step);
    let started = SystemTime::now();
    let ended = run_to_end(build, created.start()?, reader, &mut lines)?;
    network.disconnect();
    let network = match mode {
        NetworkMode::None => Some(false),
        NetworkMode::Bridge => sockets.map(SocketWatch::used),
        _ => None,
    };
    let Some(status) = ended else { return Err(StepError::Cancelled) };
    let is_traced = untraced.is_none();
    let record = match what_was_used(trees, prepared.served, untraced)? {
        Used::Known(record) => Ok(record),
        Used::Unknown(why) => {
            // Without tracing nobody expects it.
            if is_traced {
                let then = "its result is taken over on the same layers only";
                build.warn_once(&format!("{}: {why}; {then}", step.name));
            }
            Err(why)
        }
        Used::ServerDied(reason) => return Ok(Attempt::ServerDied(reason)),
    };
    if status.code() != 0 {
        output.extend(lines.kept);
        remove_mount_points(&turn.ingest, &mount_points);
        return Err(StepError::Exit {
            command: run.argv.join(" "),
            code: status.code(),
            tries: 1,
            kept: None,
        });
    }
    let tree = open_directory(ingest)?;
    let shown_time = Some(mica_trace::SHOWN_TIME);
    let fixed_time = build.times.fixed_since(started);
    let options = DiffOptions { userxattr: build.rootless(), mount_points, shown_time, fixed_time };
    let lower = trees.first().map(|tree| tree.merged.clone()).unwrap_or_default();
    let diff = diff_upper(tree.as_fd(), &lower, &options)?;
    let scratch = ingest.path().join(SCRATCH);
    std::fs::remove_dir_all(&scratch).at("rmdir", scratch)?;
    let made =
        Made { index: Arc::new(diff.index), diff_id: diff.diff_id, tar_size_bytes: diff.tar_size_bytes };
    let (record, why_not) = match record {
        Ok(record) => (Some(record), None),
        Err(why) => (None, Some(why)),
    };
    Ok(Attempt::Done(made, Seen { record, why_not, network, written: None }))
}

/// Takes away what was made only to mount on it: the step did not make it, and whoever looks at what it left shall not find it.
fn remove_mount_points(ingest: &Ingest, mount_points: &[Vec<u8>]) {
    let Ok(tree) = open_directory(ingest) else { return };
    // The innermost first. What the step has put something into stays.
    for path in mount_points.iter().rev() {
        let parent = mica_tree::parent(path).unwrap_or_default();
        let name = path.get(parent.len()..).unwrap_or_default();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        let parent = if parent.is_empty() { b".".as_slice() } else { parent };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let Ok(parent) = mica_sys::dir_at::open_beneath(&tree, parent, flags, Mode::empty()) else {
            continue;
        };
        let Ok(stat) = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let _ = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => rustix::fs::unlinkat(&parent, name, AtFlags::REMOVEDIR),
            FileType::RegularFile if stat.st_size == 0 => {
                rustix::fs::unlinkat(&parent, name, AtFlags::empty())
            }
            _ => Ok(()),
        };
    }
}

/// Gives the upper directory's root what the image's root has: an overlay shows that one, and asks the lower for nothing.
fn show_root(trees: &[StepTree], ingest: &Ingest) -> Result<(), StepError> {
    let Some(root) = trees.first().and_then(|tree| tree.merged.get(b"")) else { return Ok(()) };
    let path = ingest.tree();
    let (uid, gid) = (rustix::fs::Uid::from_raw(root.uid), rustix::fs::Gid::from_raw(root.gid));
    match rustix::fs::chown(&path, Some(uid), Some(gid)) {
        // An owner that the user namespace does not have is root's on disk everywhere.
        Ok(()) | Err(rustix::io::Errno::INVAL) => {}
        Err(error) => return Err(mica_sys::Error::new("chown", path, error).into()),
    }
    Ok(rustix::fs::chmod(&path, Mode::from_raw_mode(root.mode)).at("chmod", path)?)
}

/// Shows the step's output until all of it has ended; `None` when it was made to end.
fn run_to_end(
    build: &Build<'_>,
    mut running: Running,
    reader: OwnedFd,
    lines: &mut Lines<'_>,
) -> Result<Option<ExitStatus>, StepError> {
    let mut ended = false;
    let mut buffer = vec![0; 64 * 1024];
    let mut reader = Some(File::from(reader));
    loop {
        if build.stopped() && !ended {
            running.kill(rustix::process::Signal::KILL.as_raw())?;
            ended = true;
        }
        let Some(output) = &mut reader else {
            // A step may go on for long after it has closed its output.
            if readable(running.pidfd())? {
                break;
            }
            continue;
        };
        if !readable(output.as_fd())? {
            continue;
        }
        // Ends when every process of the container has, at the latest: the kernel ends them with the first one.
        match output.read(&mut buffer).at("read", "output of a step")? {
            0 => reader = None,
            count => lines.take(&buffer[..count]),
        }
    }
    lines.finish();
    let status = running.wait()?;
    Ok((!ended).then_some(status))
}

/// What the servers of a step's trees have seen.
enum Used {
    Known(Record),
    Unknown(String),
    ServerDied(String),
}

fn what_was_used(
    trees: &[StepTree],
    served: Vec<Served>,
    untraced: Option<String>,
) -> Result<Used, StepError> {
    let mut record = Record::default();
    let mut unknown = untraced;
    let mut died = None;
    for (tree, served) in trees.iter().zip(served) {
        let observed = served.finish(tree);
        match observed.fault {
            Some(Fault::Damaged { layer, path, reason }) => return Err(tree.damaged(layer, &path, &reason)),
            Some(Fault::Died { reason }) => died = died.or(Some(reason)),
            None => {}
        }
        match observed.uses {
            Some(uses) => match tree.settle_times(uses) {
                Some(uses) => record.trees.push(uses),
                None => unknown = unknown.or(Some("a file that it used changed meanwhile".into())),
            },
            None if observed.overflow => {
                unknown = unknown.or(Some("it used more than 500,000 paths".to_owned()));
            }
            None => unknown = unknown.or(Some("what it used could not be read".into())),
        }
    }
    Ok(match (died, unknown) {
        (Some(reason), _) => Used::ServerDied(reason),
        (None, Some(why)) => Used::Unknown(why),
        (None, None) => Used::Known(record),
    })
}

/// Host name of every step: what a step writes must not tell where it was built.
pub(crate) const HOSTNAME: &str = "mica";

/// Longest host name that Linux takes (`__NEW_UTS_LEN`).
const HOSTNAME_BYTES_MAX: usize = 64;

/// The host name that the build asks for, or the one of every step.
fn host_name(build: &Build<'_>) -> String {
    let Some(given) = build.request.host_name() else { return HOSTNAME.to_owned() };
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if given.len() <= HOSTNAME_BYTES_MAX && given.bytes().all(is_part) {
        return given.to_owned();
    }
    build.warn_once("BUILDKIT_SANDBOX_HOSTNAME is not a host name; steps have the one they always have");
    HOSTNAME.to_owned()
}

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

/// Makes directories for mounts beside the step's tree; they are gone before its layer is committed.
pub(crate) struct Scratch<'i> {
    /// Whose.
    pub ingest: &'i Ingest,
}

impl Scratch<'_> {
    /// One of them.
    pub fn directory(&self, name: &str) -> mica_sys::Result<PathBuf> {
        let path = self.ingest.path().join(SCRATCH).join(name);
        std::fs::create_dir_all(&path).at("mkdir", &path)?;
        Ok(path)
    }
}

/// Sets variables over those of the same name.
pub(crate) fn set_variables(environment: &mut Vec<String>, variables: &[(String, String)]) {
    for (name, value) in variables {
        environment.retain(|entry| entry.split_once('=').is_none_or(|(known, _)| known != name));
        environment.push(format!("{name}={value}"));
    }
}

fn prepare(build: &Build<'_>, turn: &Try<'_>, traced: bool) -> Result<Prepared, StepError> {
    let Try { run, trees, ingest, outcomes, .. } = turn;
    let scratch = Scratch { ingest };
    let mut served = Vec::new();
    if traced {
        for tree in *trees {
            let options = ServeOptions { limit_uses: USES_MAX };
            served.push(mica_trace::serve(tree.merged.clone(), Arc::new(tree.bytes.clone()), options)?);
        }
    }
    let lowers = match trees.first().map(|tree| &tree.bytes) {
        Some(_) if traced => vec![Lower::Tree { descriptor: 0, place: scratch.directory("lower")? }],
        Some(TreeBytes::Layers(chain)) if !chain.is_empty() => {
            chain.lowers().into_iter().map(Lower::Directory).collect()
        }
        _ => vec![Lower::Directory(scratch.directory("empty")?)],
    };
    let rootfs = Rootfs::Overlay {
        lowers,
        upper: ingest.tree(),
        work: scratch.directory("work")?,
        userxattr: build.rootless(),
        // A layer that a power cut leaves half written is found by its boot ID.
        volatile: true,
    };
    let mut spec = ContainerSpec::new(rootfs, run.argv.clone());
    spec.hostname = host_name(build);
    spec.rootless = build.rootless();
    let variables = run.environment.iter().chain(&run.hidden_environment);
    spec.process.env = variables.map(|(name, value)| format!("{name}={value}")).collect();
    spec.process.env.extend(build.times.hidden_variable(run));
    spec.process.cwd = if run.directory.is_empty() { "/".into() } else { run.directory.clone() };
    spec.process.user = UserSpec::Names(run.user.clone());
    let mut given = run_mount::given(build, run, trees, traced, &scratch, outcomes)?;
    spec.mounts.append(&mut given.mounts);
    set_variables(&mut spec.process.env, &given.variables);
    spec.process.privileged = run.insecure;
    let name = format!("build-{}-{}", std::process::id(), turn.step.id.0);
    limits::apply(&build.request.limits, name, &mut spec)?;
    if let Some(script) = &run.script {
        let content = script.content.clone().into_bytes();
        spec.mounts.push(Mount::File { target: script.path.clone(), content, mode: 0o755 });
    }
    Ok(Prepared { spec, served, _held: given.held })
}

/// A line as people read it.
fn shown(bytes: &[u8]) -> String {
    let line = String::from_utf8_lossy(bytes.strip_suffix(b"\n").unwrap_or(bytes));
    // A progress bar redraws its line; what it drew last is what counts.
    line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default().to_owned()
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
            self.partial.extend_from_slice(&bytes[..=end]);
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
        let bytes = std::mem::take(&mut self.partial);
        let line = shown(&bytes);
        if self.kept.len() == LINES_KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(line.clone());
        let elapsed = self.started.elapsed();
        (self.build.events)(Event::StepOutput { step: self.step, elapsed, line, bytes });
    }
}
