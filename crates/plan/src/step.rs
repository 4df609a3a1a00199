//! A step: one thing to do to a filesystem, as a value that does not depend on where in a graph it stands.

use crate::graph::{FilesystemState, StepId};
use mica_diagnostic::Span;
use mica_dockerfile::CachePolicy;
use mica_dockerfile::instruction::{CacheSharing, RunNetwork};
use mica_oci::Platform;

/// One planned change of a filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its place in [`crate::Graph::steps`]; every input of a step stands before it.
    pub id: StepId,
    /// What it starts from.
    pub parent: FilesystemState,
    /// What is done.
    pub operation: Operation,
    /// Name shown to people: `[2/3] RUN make`, `[build 2/3] RUN make`.
    pub name: String,
    /// Position of its stage in the Dockerfile.
    pub stage: usize,
    /// The instruction in the Dockerfile. A step of a base image's trigger has the place of the FROM.
    pub span: Span,
    /// Text for the image's history.
    pub created_by: String,
    /// What it is built for.
    pub platform: Platform,
    /// When an earlier result may be used, as comments above the instruction say. Not part of its key.
    pub policy: CachePolicy,
}

impl Step {
    /// Every filesystem that must be there before the step: the parent first, then those it reads from, in order of mention.
    pub fn inputs(&self) -> Vec<&FilesystemState> {
        let mut inputs = vec![&self.parent];
        match &self.operation {
            Operation::Run(run) => {
                inputs.extend(run.mounts.iter().filter_map(|mount| match mount {
                    StepMount::Bind { from: FileSource::State(state), .. }
                    | StepMount::Cache { from: Some(FileSource::State(state)), .. } => Some(state),
                    _ => None,
                }));
            }
            Operation::Copy(copy) => {
                if let FileSource::State(state) = &copy.from {
                    inputs.push(state);
                }
            }
            Operation::Workdir(_) => {}
        }
        inputs
    }

    /// As [`Step::inputs`], to be changed.
    pub(crate) fn inputs_mut(&mut self) -> Vec<&mut FilesystemState> {
        let mut inputs = vec![&mut self.parent];
        match &mut self.operation {
            Operation::Run(run) => {
                inputs.extend(run.mounts.iter_mut().filter_map(|mount| match mount {
                    StepMount::Bind { from: FileSource::State(state), .. }
                    | StepMount::Cache { from: Some(FileSource::State(state)), .. } => Some(state),
                    _ => None,
                }));
            }
            Operation::Copy(copy) => {
                if let FileSource::State(state) = &mut copy.from {
                    inputs.push(state);
                }
            }
            Operation::Workdir(_) => {}
        }
        inputs
    }
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Runs a program.
    Run(RunStep),
    /// Puts files in.
    Copy(CopyStep),
    /// Makes a directory.
    Workdir(WorkdirStep),
}

/// Where files come from that are not the step's own filesystem.
#[expect(
    clippy::large_enum_variant,
    reason = "there are as many as steps, and a box would be in every pattern"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FileSource {
    /// The build context.
    Context,
    /// A stage, an image, or a named context.
    State(FilesystemState),
}

/// RUN
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunStep {
    /// Program and arguments, the shell applied.
    pub argv: Vec<String>,
    /// Variables in order, PATH and the build arguments in scope included; part of the key.
    pub environment: Vec<(String, String)>,
    /// Proxy variables: given to the program, but neither in key nor in history.
    pub hidden_environment: Vec<(String, String)>,
    /// `user[:group]` as USER has it; empty for root.
    pub user: String,
    /// Absolute.
    pub directory: String,
    /// In order.
    pub mounts: Vec<StepMount>,
    /// `--network`
    pub network: RunNetwork,
    /// `--security=insecure`
    pub insecure: bool,
    /// `--device` values, variables expanded.
    pub devices: Vec<String>,
    /// How often it is tried again when it fails. Not part of its key.
    pub retries: u32,
    /// A heredoc that begins with `#!`: a file to be there (mode 0755, read only) while the program runs.
    pub script: Option<ScriptFile>,
}

/// A file that exists only while its step runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScriptFile {
    /// Absolute: `/dev/pipes/EOF`.
    pub path: String,
    /// The file's content.
    pub content: String,
}

/// A mount of RUN. Targets are absolute; sources are relative to the root of what they come from, and begin with `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepMount {
    /// Files of the context, a stage, an image.
    Bind {
        /// Where in the container.
        target: String,
        /// Whose files.
        from: FileSource,
        /// Path there.
        source: String,
        /// Whether the step may write (what it writes is dropped).
        read_write: bool,
        /// The mount in the Dockerfile.
        span: Span,
    },
    /// A directory that outlives the build.
    Cache {
        /// Where in the container.
        target: String,
        /// Name of the directory (the target unless written).
        id: String,
        /// What an empty cache begins with.
        from: Option<FileSource>,
        /// Path there.
        source: String,
        /// Who else may use it meanwhile.
        sharing: CacheSharing,
        /// Whether the step may only read.
        read_only: bool,
        /// Mode of the directory when it is made.
        mode: u32,
        /// Owner of the directory when it is made.
        uid: u32,
        /// Group of the directory when it is made.
        gid: u32,
        /// The mount in the Dockerfile.
        span: Span,
    },
    /// An empty directory in memory.
    Tmpfs {
        /// Where in the container.
        target: String,
        /// Limit; the kernel's default when absent.
        size_bytes: Option<u64>,
    },
    /// A secret as a file, a variable, or both.
    Secret {
        /// Name given to `--secret`.
        id: String,
        /// Path of the file; `None` when only a variable was asked for.
        target: Option<String>,
        /// Name of the variable.
        environment_name: Option<String>,
        /// Whether the build fails without it.
        required: bool,
        /// Mode of the file.
        mode: u32,
        /// Owner of the file.
        uid: u32,
        /// Group of the file.
        gid: u32,
        /// The mount in the Dockerfile.
        span: Span,
    },
    /// An ssh agent's socket, announced in SSH_AUTH_SOCK.
    Ssh {
        /// Name given to `--ssh`.
        id: String,
        /// Path of the socket.
        target: String,
        /// Whether the build fails without it.
        required: bool,
        /// Mode of the socket.
        mode: u32,
        /// Owner of the socket.
        uid: u32,
        /// Group of the socket.
        gid: u32,
        /// The mount in the Dockerfile.
        span: Span,
    },
}

/// COPY or ADD
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyStep {
    /// ADD rather than COPY: local archives are unpacked, URLs fetched.
    pub add: bool,
    /// Where [`CopySourceSpec::Path`]s are looked up.
    pub from: FileSource,
    /// At least one, in order.
    pub sources: Vec<PlannedSource>,
    /// Absolute, `.` and `..` gone; ends in `/` when a directory was meant (written with `/` or `.` at its end).
    pub destination: String,
    /// `user[:group]`, names or numbers; root when absent.
    pub chown: Option<String>,
    /// `--chmod`
    pub chmod: Option<Chmod>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// Patterns of `--exclude`.
    pub excludes: Vec<String>,
    /// `--checksum`
    pub checksum: Option<String>,
    /// `--keep-git-dir`
    pub keep_git_dir: bool,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// A source of COPY or ADD and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSource {
    /// What is copied.
    pub spec: CopySourceSpec,
    /// The word in the Dockerfile.
    pub span: Span,
}

/// What is copied, variables expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySourceSpec {
    /// A path or glob below the root of [`CopyStep::from`], as written.
    Path(String),
    /// `http://` or `https://`
    Url(String),
    /// A git address.
    Git(String),
    /// An inline file (mode 0644).
    Heredoc {
        /// File name, when the destination is a directory.
        name: String,
        /// The file's content.
        content: String,
    },
}

/// `--chmod`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Chmod {
    /// 0 to 0o7777.
    Octal(u32),
    /// `u=rwX,go-w`
    Symbolic(String),
}

/// WORKDIR that has to exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkdirStep {
    /// Absolute, never `/`. Made with its parents, mode 0755, unless there.
    pub path: String,
    /// Owner of what is made, `user[:group]`; empty for root.
    pub user: String,
}
