//! What a container is to be: everything [`crate::spawn`] needs, with docker's defaults as constants.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::capability::CapabilitySet;

/// A container: a root filesystem, what is mounted in it, which namespaces it has, and its first process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The files of the container.
    pub rootfs: Rootfs,
    /// Makes the root filesystem read-only (mounts in it are not).
    pub read_only: bool,
    /// The first process.
    pub process: ProcessSpec,
    /// Host name; unused when the host's UTS namespace is used.
    pub hostname: String,
    /// Domain name, if not empty; unused when the host's UTS namespace is used.
    pub domainname: String,
    /// Mounts in their order, after the standard ones (/proc, /dev, /sys).
    pub mounts: Vec<Mount>,
    /// Which namespaces are new.
    pub namespaces: Namespaces,
    /// Paths that are made empty or unreadable. Ignored when privileged.
    pub masked_paths: Vec<String>,
    /// Paths that are made read-only. Ignored when privileged.
    pub readonly_paths: Vec<String>,
    /// Runs a small init as process 1 that reaps orphans and forwards signals; the command is its child.
    pub init: bool,
    /// Host devices to have in /dev.
    pub devices: Vec<Device>,
    /// Kernel settings, `net.ipv4.ip_forward` = `1`.
    pub sysctls: Vec<(String, String)>,
    /// Resource limits, kept by a cgroup of its own; without any no cgroup is made.
    pub cgroup: Option<CgroupSpec>,
    /// Size of /dev/shm.
    pub shm_size_bytes: u64,
    /// Notes whether any process of the container opens a socket that reaches the network: [`crate::Created::sockets`].
    pub watch_sockets: bool,
    /// The caller is in a user namespace: device nodes are bound from the host, what the namespace may not do is skipped.
    pub rootless: bool,
}

/// A process in a container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProcessSpec {
    /// Command and arguments; the command is looked up in the `PATH` of `env` inside the container.
    pub argv: Vec<String>,
    /// Environment, `NAME=value`.
    pub env: Vec<String>,
    /// Working directory, created when absent.
    pub cwd: String,
    /// Who runs it.
    pub user: UserSpec,
    /// Capabilities of the bounding set, and of root.
    pub capabilities: CapabilitySet,
    /// All capabilities, no seccomp filter, nothing masked, all devices.
    pub privileged: bool,
    /// The filter of system calls.
    pub seccomp: Seccomp,
    /// Executing a setuid program gains nothing.
    pub no_new_privileges: bool,
    /// Gives the process a new terminal; the other end of it is [`crate::Created::terminal`].
    pub terminal: bool,
    /// Resource limits of the process.
    pub rlimits: Vec<Rlimit>,
}

/// Where the files of the container come from.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Rootfs {
    /// An overlay, mounted in the container's mount namespace only.
    Overlay {
        /// What lies below, topmost first.
        lowers: Vec<Lower>,
        /// Takes the changes.
        upper: PathBuf,
        /// Empty directory beside `upper`.
        work: PathBuf,
        /// Use `user.overlay.*` attributes (rootless).
        userxattr: bool,
        /// Never sync.
        volatile: bool,
    },
    /// A directory as it is.
    Directory(PathBuf),
}

/// One lower of an overlay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lower {
    /// A directory of the host.
    Directory(PathBuf),
    /// A mount that is attached nowhere, given to [`crate::spawn_with_trees`].
    Tree {
        /// Its position among the descriptors given.
        descriptor: usize,
        /// An existing directory where it is attached until the overlay has it, seen by nobody but the container's
        /// first process. A tree that is named more than once is attached at the place that is named first.
        place: PathBuf,
    },
}

/// A mount of the caller's.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Mount {
    /// A file or directory of the host.
    Bind {
        /// Absolute path on the host.
        source: PathBuf,
        /// Absolute path in the container.
        target: String,
        /// Read-only, with all that is mounted below.
        read_only: bool,
        /// With what is mounted below the source.
        recursive: bool,
    },
    /// A file or directory of a tree that is attached nowhere; what is written to it goes to a directory of its own.
    Tree {
        /// Position of the tree among the descriptors given to [`crate::spawn_with_trees`].
        descriptor: usize,
        /// As [`Lower::Tree`] has it.
        place: PathBuf,
        /// Takes the changes; never synced.
        upper: PathBuf,
        /// Empty directory beside `upper`.
        work: PathBuf,
        /// Use `user.overlay.*` attributes (rootless).
        userxattr: bool,
        /// Path in the tree; symlinks are followed as if the tree were the root. Empty is all of it.
        source: String,
        /// Absolute path in the container.
        target: String,
        /// Nothing can be written.
        read_only: bool,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Absolute path in the container.
        target: String,
        /// Most it may hold.
        size_bytes: Option<u64>,
        /// Permissions of its root.
        mode: u32,
        /// Whether programs in it can be executed.
        executable: bool,
    },
    /// A file with the given content; the file of the image below it is not changed.
    File {
        /// Absolute path in the container.
        target: String,
        /// What it contains.
        content: Vec<u8>,
        /// Its permissions.
        mode: u32,
    },
    /// A file that is in memory only, where nothing can be written.
    Secret {
        /// Absolute path in the container.
        target: String,
        /// What it contains.
        content: SecretContent,
        /// Its permissions.
        mode: u32,
        /// Its owner, as the container counts.
        uid: u32,
        /// Its group, as the container counts.
        gid: u32,
    },
}

/// Bytes that nothing shows.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretContent(pub Vec<u8>);

impl std::fmt::Debug for SecretContent {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("SecretContent")
    }
}

/// Which namespaces the container has of its own; mount is always new.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Namespaces {
    /// Network.
    pub network: Network,
    /// Use the host's System V objects and message queues.
    pub ipc_host: bool,
    /// See the host's processes.
    pub pid_host: bool,
    /// Use the host's host name.
    pub uts_host: bool,
}

/// The network of a container.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Network {
    /// The host's.
    Host,
    /// A new one with nothing but the loopback interface.
    #[default]
    New,
    /// An existing network namespace, by its file.
    Path(PathBuf),
}

/// Who runs a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum UserSpec {
    /// By numbers.
    Ids {
        /// User id.
        uid: u32,
        /// Group id.
        gid: u32,
        /// Supplementary group ids.
        groups: Vec<u32>,
    },
    /// `user`, `user:group`, by name or number, looked up in the container's /etc/passwd and /etc/group; empty is root.
    Names(String),
}

/// The filter of system calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Seccomp {
    /// Docker's default filter.
    #[default]
    Default,
    /// None.
    Unconfined,
}

/// A device of the host for the container.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Device {
    /// Path on the host.
    pub source: PathBuf,
    /// Path in the container.
    pub target: String,
}

/// A resource limit of a process, getrlimit(2).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Rlimit {
    /// `nofile`, `nproc`, `core`, ... as docker's `--ulimit` spells it.
    pub name: String,
    /// Soft limit; none is unlimited.
    pub soft: Option<u64>,
    /// Hard limit; none is unlimited.
    pub hard: Option<u64>,
}

/// Limits of all processes of the container together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CgroupSpec {
    /// Name of the cgroup, unique on the host: the container's id.
    pub name: String,
    /// Memory.
    pub memory_bytes: Option<u64>,
    /// Memory and swap together, as docker counts.
    pub memory_swap_bytes: Option<u64>,
    /// Number of processes.
    pub pids: Option<u64>,
    /// Processor time in thousandths of a processor.
    pub cpu_millis: Option<u64>,
    /// Weight beside others, docker's shares: 1024 is that of everybody else.
    pub cpu_shares: Option<u64>,
    /// Processors, `0-2,7`.
    pub cpuset_cpus: Option<String>,
    /// Nodes of memory, `0`.
    pub cpuset_mems: Option<String>,
    /// The cgroup that it is put below, `/a/b`; one of mica's when absent.
    pub parent: Option<String>,
}

/// Paths docker masks.
pub const MASKED_PATHS: &[&str] = &[
    "/proc/asound",
    "/proc/acpi",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];

/// Paths docker makes read-only.
pub const READONLY_PATHS: &[&str] =
    &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The search path of a container whose environment has none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Docker's size of /dev/shm.
pub const SHM_SIZE_BYTES: u64 = 64 << 20;

impl ContainerSpec {
    /// A container with docker's defaults, a new network with nothing but loopback, and `/` as root's directory.
    pub fn new(rootfs: Rootfs, argv: Vec<String>) -> Self {
        let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
        Self {
            rootfs,
            read_only: false,
            process: ProcessSpec::new(argv),
            hostname: String::new(),
            domainname: String::new(),
            mounts: Vec::new(),
            namespaces: Namespaces::default(),
            masked_paths: owned(MASKED_PATHS),
            readonly_paths: owned(READONLY_PATHS),
            init: false,
            devices: Vec::new(),
            sysctls: Vec::new(),
            cgroup: None,
            shm_size_bytes: SHM_SIZE_BYTES,
            watch_sockets: false,
            rootless: false,
        }
    }
}

impl ProcessSpec {
    /// A process of root in `/` with docker's default search path, capabilities and filter.
    pub fn new(argv: Vec<String>) -> Self {
        Self {
            argv,
            env: vec![format!("PATH={DEFAULT_PATH}")],
            cwd: "/".to_owned(),
            user: UserSpec::Ids { uid: 0, gid: 0, groups: Vec::new() },
            capabilities: CapabilitySet::DEFAULT,
            privileged: false,
            seccomp: Seccomp::Default,
            no_new_privileges: false,
            terminal: false,
            rlimits: Vec::new(),
        }
    }
}
