//! What can go wrong, on either side of the wire.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Why a container could not be made or its command not be started.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The command is not there.
    #[error("exec: \"{command}\": {}", if *.searched { "executable file not found in $PATH".to_owned() } else { format!("stat {command}: no such file or directory") })]
    CommandNotFound {
        /// The command as given.
        command: String,
        /// Whether it was looked for in the `PATH`; otherwise it was a path itself.
        searched: bool,
    },
    /// The command is there but cannot be executed.
    #[error("exec: \"{command}\": {}", if *.directory { "is a directory" } else { "permission denied" })]
    CommandNotExecutable {
        /// The command as given.
        command: String,
        /// Whether it is a directory.
        directory: bool,
    },
    /// The kernel refused to execute the command that was found.
    #[error("exec {}: {}", .path.display(), errno_text(*.errno))]
    CommandRefused {
        /// Where it was found.
        path: PathBuf,
        /// Why.
        errno: i32,
    },
    /// There is no command.
    #[error("no command specified")]
    CommandMissing,
    /// The user has no entry and is no number.
    #[error("unable to find user {user}: no matching entries in passwd file")]
    UserNotFound {
        /// The user as given.
        user: String,
    },
    /// The group has no entry and is no number.
    #[error("unable to find group {group}: no matching entries in group file")]
    GroupNotFound {
        /// The group as given.
        group: String,
    },
    /// A user or group number beyond what the kernel knows.
    #[error("uids and gids must be in range 0-2147483647: `{number}`")]
    IdOutOfRange {
        /// The number as given.
        number: String,
    },
    /// A call failed while the container was set up.
    #[error("container set-up failed at {stage}: {call} `{}`: {}", .path.display(), errno_text(*.errno))]
    Setup {
        /// What was being set up.
        stage: Stage,
        /// The call.
        call: String,
        /// What it was made on.
        path: PathBuf,
        /// What the kernel answered.
        errno: i32,
    },
    /// A string of the process holds a zero byte.
    #[error("a zero byte in {what}: `{value}`")]
    ZeroByte {
        /// Which string.
        what: String,
        /// Its value.
        value: String,
    },
    /// A resource limit of a name that is not known.
    #[error("invalid ulimit type: `{name}`")]
    RlimitUnknown {
        /// The name as given.
        name: String,
    },
    /// The working directory is outside the container's root.
    #[error("the working directory `{cwd}` is outside of the container")]
    CwdOutside {
        /// As given.
        cwd: String,
    },
    /// A call of the parent failed.
    #[error(transparent)]
    Call(#[from] mica_sys::Error),
    /// The helper process could not be started.
    #[error("cannot start the container helper: {source}")]
    HelperStart {
        /// Why.
        source: std::io::Error,
    },
    /// The helper or the container's first process went away without saying why.
    #[error("the container's first process ended during {during}")]
    Died {
        /// What was going on.
        during: String,
    },
    /// More trees than can be handed over.
    #[error("a container can have {max} mounts of other trees at most, not {count}")]
    TooManyTrees {
        /// As many as were given.
        count: usize,
        /// As many as there can be.
        max: usize,
    },
    /// The spec or a message could not be written as JSON or read back.
    #[error("message between container processes: {source}")]
    Message {
        /// Why.
        #[from]
        source: serde_json::Error,
    },
}

/// Result of this room.
pub type Result<T> = std::result::Result<T, RuntimeError>;

impl RuntimeError {
    /// The exit code docker users expect: 127 command not found, 126 not executable, 125 the engine failed.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::CommandNotFound { .. } => 127,
            Self::CommandRefused { errno, .. } if *errno == libc::ENOENT => 127,
            Self::CommandNotExecutable { .. } | Self::CommandRefused { .. } => 126,
            _ => 125,
        }
    }

    /// Whether what the command needs to begin with is not there, an emulator or a loader: the command itself was found.
    pub fn is_interpreter_missing(&self) -> bool {
        matches!(self, Self::CommandRefused { errno, .. } if *errno == libc::ENOENT)
    }

    /// Whether the kernel does not know how to run the command: a program for another CPU, or a script without `#!`.
    pub fn is_unknown_format(&self) -> bool {
        matches!(self, Self::CommandRefused { errno, .. } if *errno == libc::ENOEXEC)
    }
}

/// What was being set up when a call failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// Reading the spec.
    Spec,
    /// Joining or making namespaces.
    Namespaces,
    /// Joining the cgroup.
    Cgroup,
    /// Mounting the root filesystem.
    Rootfs,
    /// Mounting in it.
    Mounts,
    /// /dev.
    Devices,
    /// Masked and read-only paths.
    ProtectedPaths,
    /// Kernel settings.
    Sysctls,
    /// Host name and loopback.
    Network,
    /// The terminal.
    Terminal,
    /// Changing the root.
    Pivot,
    /// The working directory.
    WorkingDirectory,
    /// Standard streams.
    Stdio,
    /// User, groups and home.
    User,
    /// Resource limits.
    Rlimits,
    /// Capabilities.
    Capabilities,
    /// The filter of system calls.
    Seccomp,
    /// Executing the command.
    Exec,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Spec => "spec",
            Self::Namespaces => "namespaces",
            Self::Cgroup => "cgroup",
            Self::Rootfs => "root filesystem",
            Self::Mounts => "mounts",
            Self::Devices => "devices",
            Self::ProtectedPaths => "masked and read-only paths",
            Self::Sysctls => "sysctls",
            Self::Network => "network",
            Self::Terminal => "terminal",
            Self::Pivot => "pivot_root",
            Self::WorkingDirectory => "working directory",
            Self::Stdio => "standard streams",
            Self::User => "user",
            Self::Rlimits => "resource limits",
            Self::Capabilities => "capabilities",
            Self::Seccomp => "seccomp",
            Self::Exec => "exec",
        })
    }
}

/// The kernel's text of an error number, in docker's lower case.
pub(crate) fn errno_text(errno: i32) -> String {
    let text = std::io::Error::from_raw_os_error(errno).to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut characters = text.chars();
    characters.next().map(|first| first.to_lowercase().chain(characters).collect()).unwrap_or_default()
}

/// A failure as it travels from the container's first process to the parent.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    CommandNotFound { command: String, searched: bool },
    CommandNotExecutable { command: String, directory: bool },
    CommandRefused { path: PathBuf, errno: i32 },
    CommandMissing,
    UserNotFound { user: String },
    GroupNotFound { group: String },
    IdOutOfRange { number: String },
    ZeroByte { what: String, value: String },
    RlimitUnknown { name: String },
    CwdOutside { cwd: String },
    Call { stage: Stage, call: String, path: PathBuf, errno: i32 },
}

impl Failure {
    pub(crate) fn call(stage: Stage, error: &mica_sys::Error) -> Self {
        Self::Call {
            stage,
            call: error.call.to_owned(),
            path: error.path.clone(),
            errno: error.raw_os_error().unwrap_or(libc::EINVAL),
        }
    }
}

impl From<Failure> for RuntimeError {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::CommandNotFound { command, searched } => Self::CommandNotFound { command, searched },
            Failure::CommandNotExecutable { command, directory } => {
                Self::CommandNotExecutable { command, directory }
            }
            Failure::CommandRefused { path, errno } => Self::CommandRefused { path, errno },
            Failure::CommandMissing => Self::CommandMissing,
            Failure::UserNotFound { user } => Self::UserNotFound { user },
            Failure::GroupNotFound { group } => Self::GroupNotFound { group },
            Failure::IdOutOfRange { number } => Self::IdOutOfRange { number },
            Failure::ZeroByte { what, value } => Self::ZeroByte { what, value },
            Failure::RlimitUnknown { name } => Self::RlimitUnknown { name },
            Failure::CwdOutside { cwd } => Self::CwdOutside { cwd },
            Failure::Call { stage, call, path, errno } => Self::Setup { stage, call, path, errno },
        }
    }
}

/// Names the stage a failed call belongs to.
pub(crate) trait AtStage<T> {
    fn stage(self, stage: Stage) -> std::result::Result<T, Failure>;
}

impl<T> AtStage<T> for mica_sys::Result<T> {
    fn stage(self, stage: Stage) -> std::result::Result<T, Failure> {
        self.map_err(|error| Failure::call(stage, &error))
    }
}
