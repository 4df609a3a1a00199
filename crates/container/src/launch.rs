//! From a made container to a running one, and from an ended one to what is kept of it.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use mica_runtime::spec::{Lower, Mount, Namespaces, Rootfs, Seccomp, UserSpec};
use mica_runtime::{
    CapabilitySet, ContainerSpec, CreatedMountPoint, ExitStatus, ProcessSpec, Running, Stdio, Stream,
};
use mica_store::{Container, ContainerState, Store};
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Sharing};
use rustix::pipe::PipeFlags;

use crate::create::{image_layers, now_unix_ns, remove_anonymous_volumes};
use crate::error::{ContainerError, Result};
use crate::log::{LogWriter, log_path};
use crate::network::{self, ConnectedNetwork, Fallback, NetworkMode, NetworkRequest};
use crate::settings::{BOUND_PORTS_FILE, Settings};
use crate::volume_mount::MountSource;

/// How many milliseconds others may look at a lock.
const LOCK_TRIES: u32 = 200;

/// A container and where it lives.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// The store.
    pub store: &'a Store,
    /// The container.
    pub container: &'a Container,
    /// Its settings.
    pub settings: &'a Settings,
    /// In a user namespace that mica entered.
    pub rootless: bool,
}

/// A running container, and our ends of its streams.
#[derive(Debug)]
pub(crate) struct Launched {
    pub running: Running,
    pub streams: Streams,
    pub log: Option<LogWriter>,
    pub warnings: Vec<String>,
    started_unix_ns: i64,
    pub network: ConnectedNetwork,
    lock: Lock,
}

/// Our ends of a process's streams. With a terminal, its outer end is both input and output.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub terminal: Option<OwnedFd>,
    pub input: Option<OwnedFd>,
    pub outputs: [Option<OwnedFd>; 2],
}

/// Pipes for a process, or nothing where it gets a terminal.
pub(crate) fn make_streams(tty: bool, stdin_open: bool) -> Result<(Stdio, Streams)> {
    if tty {
        let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
        return Ok((stdio, Streams::default()));
    }
    let pipe = || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).at("pipe2", "container");
    let (output, output_inner) = pipe()?;
    let (error, error_inner) = pipe()?;
    let (input, input_inner) = match stdin_open {
        true => {
            let (inner, outer) = pipe()?;
            rustix::io::ioctl_fionbio(&outer, true).at("ioctl FIONBIO", "container")?;
            (Some(outer), Stream::Fd(inner))
        }
        false => (None, Stream::Null),
    };
    let stdio =
        Stdio { stdin: input_inner, stdout: Stream::Fd(output_inner), stderr: Stream::Fd(error_inner) };
    Ok((stdio, Streams { terminal: None, input, outputs: [Some(output), Some(error)] }))
}

impl Context<'_> {
    /// Starts the container; on failure nothing of it runs, and a container that is to be removed is removed.
    pub(crate) fn launch(&self, terminal_size: Option<(u16, u16)>) -> Result<Launched> {
        self.launch_over(None, terminal_size)
    }

    /// [`Context::launch`] over a mount that is attached nowhere, in place of the image's layers.
    pub(crate) fn launch_over(
        &self,
        lower: Option<BorrowedFd<'_>>,
        terminal_size: Option<(u16, u16)>,
    ) -> Result<Launched> {
        let lock = self.hold()?;
        let result = self.try_launch(lock, lower, terminal_size);
        if result.is_err() && self.container.record.remove_on_exit {
            self.remove();
        }
        result
    }

    /// A later start finds them made already, so those of the first one count.
    fn keep_mount_points(&self, created: &[CreatedMountPoint]) -> Result<()> {
        let path = self.container.path().join(MOUNT_POINTS_FILE);
        if self.container.record.remove_on_exit || created.is_empty() {
            return Ok(());
        }
        let mut all = read_created_mount_points(self.container);
        all.extend(created.iter().filter(|point| !all.contains(point)).cloned().collect::<Vec<_>>());
        let bytes = serde_json::to_vec(&all).unwrap_or_default();
        std::fs::write(&path, bytes).at("write", &path)?;
        Ok(())
    }

    /// The container's lock. A short wait, because a look at it holds it for a moment; whoever holds it longer runs the
    /// container already.
    fn hold(&self) -> Result<Lock> {
        let path = self.container.lock_path();
        for _ in 0..LOCK_TRIES {
            if let Some(lock) = Lock::try_file(&path, Sharing::Exclusive)? {
                return Ok(lock);
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Err(ContainerError::AlreadyRunning { id: self.container.record.id.clone() })
    }

    fn try_launch(
        &self,
        lock: Lock,
        lower: Option<BorrowedFd<'_>>,
        terminal_size: Option<(u16, u16)>,
    ) -> Result<Launched> {
        let (id, settings) = (&self.container.record.id, self.settings);
        let mut warnings = Vec::new();
        // First of all, because a port that is taken is what most often fails.
        let publisher = match settings.network {
            NetworkMode::Bridge if !settings.ports.is_empty() => {
                Some(mica_network::publish(&settings.ports)?)
            }
            NetworkMode::Host if !settings.ports.is_empty() => {
                warnings.push("published ports are discarded when using host network mode".to_owned());
                None
            }
            _ => None,
        };
        let mut network = network::connect(
            &NetworkRequest {
                mode: settings.network,
                rootless: self.rootless,
                store_root: self.store.root(),
                hostname: &settings.hostname,
                domainname: &settings.domainname,
                add_hosts: &settings.add_hosts,
                dns: &settings.dns,
                fallback: Fallback::LoopbackWithWarning,
            },
            id,
        )?;
        warnings.append(&mut network.warnings);
        let spec = self.spec(&network, lower.is_some())?;
        if settings.cgroup.is_some() && !has_cgroups(self.rootless) {
            warnings.push("resource limits are not kept: no writable cgroups here".to_owned());
        }
        let log = match settings.log {
            true => Some(LogWriter::open(&log_path(self.container))?),
            false => None,
        };
        let (stdio, mut streams) = make_streams(settings.tty, settings.stdin_open)?;
        let trees: Vec<BorrowedFd<'_>> = lower.into_iter().collect();
        let mut created = mica_runtime::spawn_with_trees(&spec, stdio, &trees)?;
        if let Some(terminal) = created.terminal.take() {
            adopt_terminal(&terminal, terminal_size)?;
            streams.terminal = Some(terminal);
        }
        self.keep_mount_points(&created.created_mount_points)?;
        let pid = created.pid();
        if let Some(publisher) = publisher {
            let bound = serde_json::to_vec(publisher.bound()).unwrap_or_default();
            let path = self.container.path().join(BOUND_PORTS_FILE);
            std::fs::write(&path, bound).at("write", &path)?;
            network.serve(publisher, pid)?;
        }
        let started_unix_ns = now_unix_ns();
        self.store.update_state(id, &ContainerState::Running { pid, started_unix_ns })?;
        match created.start() {
            Ok(running) => Ok(Launched { running, streams, log, warnings, started_unix_ns, network, lock }),
            Err(error) => {
                if !self.container.record.remove_on_exit {
                    let state = ContainerState::Exited {
                        code: error.exit_code(),
                        started_unix_ns: Some(started_unix_ns),
                        finished_unix_ns: Some(now_unix_ns()),
                        is_out_of_memory: false,
                    };
                    self.store.update_state(id, &state)?;
                }
                Err(error.into())
            }
        }
    }

    /// Takes back and keeps what is to be; answers the exit code.
    pub(crate) fn finish(&self, launched: Launched, status: ExitStatus) -> Result<i32> {
        let Launched { running, log, started_unix_ns, network, lock, .. } = launched;
        let code = status.code();
        if let Some(mut log) = log {
            log.finish();
        }
        drop(running);
        network.disconnect();
        // Whoever waits for the lock finds the code in the file, even when its directory is gone.
        let _ = rustix::fs::ftruncate(&lock, 0);
        let _ = rustix::io::write(&lock, code.to_string().as_bytes());
        if self.container.record.remove_on_exit {
            self.store.discard_container(&self.container.record.id)?;
            remove_anonymous_volumes(self.store, self.settings);
        } else {
            let state = ContainerState::Exited {
                code,
                started_unix_ns: Some(started_unix_ns),
                finished_unix_ns: Some(now_unix_ns()),
                is_out_of_memory: false,
            };
            self.store.update_state(&self.container.record.id, &state)?;
        }
        drop(lock);
        Ok(code)
    }

    fn remove(&self) {
        let _ = self.store.discard_container(&self.container.record.id);
        remove_anonymous_volumes(self.store, self.settings);
    }

    /// What lies below the container's own directory, topmost first.
    fn lowers(&self, over_tree: bool) -> Result<Vec<Lower>> {
        if over_tree {
            let place = make_directory(&self.container.path().join("lower"), false)?;
            return Ok(vec![Lower::Tree { descriptor: 0, place }]);
        }
        let image = self.store.image(&self.container.record.image)?;
        let image = image
            .ok_or_else(|| ContainerError::ImageMissing { name: self.container.record.image.to_string() })?;
        Ok(image_layers(self.store, &image)?.into_iter().map(Lower::Directory).collect())
    }

    fn spec(&self, network: &ConnectedNetwork, over_tree: bool) -> Result<ContainerSpec> {
        let settings = self.settings;
        let rootfs = Rootfs::Overlay {
            lowers: self.lowers(over_tree)?,
            upper: make_directory(&self.container.path().join("upper"), false)?,
            // Emptied, because what an overlay that never syncs leaves there refuses the next mount.
            work: make_directory(&self.container.path().join("work"), true)?,
            userxattr: self.rootless,
            volatile: true,
        };
        let mut spec = ContainerSpec::new(rootfs, settings.argv.clone());
        spec.read_only = settings.read_only;
        spec.hostname.clone_from(&settings.hostname);
        spec.domainname.clone_from(&settings.domainname);
        spec.namespaces = Namespaces {
            network: network.runtime_network.clone(),
            ipc_host: settings.ipc_host,
            pid_host: settings.pid_host,
            uts_host: settings.uts_host,
        };
        spec.init = settings.init;
        spec.devices.clone_from(&settings.devices);
        spec.sysctls.clone_from(&settings.sysctls);
        spec.cgroup.clone_from(&settings.cgroup);
        spec.shm_size_bytes = settings.shm_size_bytes;
        spec.rootless = self.rootless;
        spec.process = process_spec(settings);
        for mount in &settings.mounts {
            let target = mount.target.clone();
            spec.mounts.push(match &mount.source {
                MountSource::Bind { path, .. } => {
                    Mount::Bind { source: path.into(), target, read_only: mount.read_only, recursive: true }
                }
                MountSource::Volume { name, .. } => {
                    let (volume, _) = self.store.create_volume(name)?;
                    Mount::Bind {
                        source: volume.data_path,
                        target,
                        read_only: mount.read_only,
                        recursive: true,
                    }
                }
                MountSource::Tmpfs { size_bytes, mode } => {
                    Mount::Tmpfs { target, size_bytes: *size_bytes, mode: *mode, executable: false }
                }
            });
        }
        let files = [
            ("/etc/resolv.conf", network.resolv_conf.clone()),
            ("/etc/hosts", network.hosts.clone()),
            ("/etc/hostname", format!("{}\n", settings.hostname).into_bytes()),
        ];
        for (target, content) in files {
            if !settings.mounts.iter().any(|mount| mount.target == target) {
                spec.mounts.push(Mount::File { target: target.to_owned(), content, mode: 0o644 });
            }
        }
        Ok(spec)
    }
}

/// What stands in a container's upper directory only to be mounted on: no change of the container's.
pub fn read_created_mount_points(container: &Container) -> Vec<CreatedMountPoint> {
    std::fs::read(container.path().join(MOUNT_POINTS_FILE))
        .ok()
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default()
}

const MOUNT_POINTS_FILE: &str = "mount-points.json";

/// The first process, or a model for further ones.
pub(crate) fn process_spec(settings: &Settings) -> ProcessSpec {
    let mut process = ProcessSpec::new(settings.argv.clone());
    process.env.clone_from(&settings.env);
    process.cwd.clone_from(&settings.cwd);
    process.user = UserSpec::Names(settings.user.clone());
    process.capabilities = CapabilitySet(settings.capabilities);
    process.privileged = settings.privileged;
    process.seccomp = if settings.seccomp_unconfined { Seccomp::Unconfined } else { Seccomp::Default };
    process.no_new_privileges = settings.no_new_privileges;
    process.terminal = settings.tty;
    process.rlimits.clone_from(&settings.ulimits);
    process
}

/// Reads and writes of the terminal's outer end never block; its size is set before the program asks for it.
pub(crate) fn adopt_terminal(terminal: &OwnedFd, size: Option<(u16, u16)>) -> Result<()> {
    rustix::io::ioctl_fionbio(terminal, true).at("ioctl FIONBIO", "terminal")?;
    if let Some(size) = size {
        resize(terminal, size);
    }
    Ok(())
}

pub(crate) fn resize(terminal: &OwnedFd, (rows, columns): (u16, u16)) {
    let size = rustix::termios::Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

fn has_cgroups(rootless: bool) -> bool {
    let root = Path::new("/sys/fs/cgroup");
    let is_writable = |path: &Path| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    !rootless
        && (root.join("cgroup.procs").exists() || root.join("memory/cgroup.procs").exists())
        && is_writable(root)
}

fn make_directory(path: &Path, emptied: bool) -> Result<std::path::PathBuf> {
    match rustix::fs::mkdir(path, rustix::fs::Mode::from_raw_mode(0o755)) {
        Err(rustix::io::Errno::EXIST) if emptied => {
            std::fs::remove_dir_all(path).at("rmdir", path)?;
            rustix::fs::mkdir(path, rustix::fs::Mode::from_raw_mode(0o755)).at("mkdir", path)?;
        }
        Err(rustix::io::Errno::EXIST) => {}
        made => made.at("mkdir", path)?,
    }
    Ok(path.to_path_buf())
}
