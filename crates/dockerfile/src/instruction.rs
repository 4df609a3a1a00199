//! Instructions as parsed: words are not expanded yet, every piece knows its place.

use crate::policy::CachePolicy;
use mica_diagnostic::Span;

/// A value and its place in the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spanned<T> {
    /// What stands there.
    pub value: T,
    /// Where it stands.
    pub span: Span,
}

/// A word as written (quotes, escapes and variables still in it), to be expanded with [`crate::expand`].
pub type Word = Spanned<String>;

/// A here-document that belongs to an instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter (`EOF`); the file's name for COPY and ADD.
    pub name: String,
    /// The body. Leading tabs are gone when it was written `<<-`.
    pub content: String,
    /// Whether variables in the body are expanded (the delimiter was not quoted). Matters to COPY and ADD; a shell sees to it in RUN.
    pub expand: bool,
    /// `<<-`: leading tabs are stripped.
    pub chomp: bool,
    /// The file descriptor before `<<`, if one was written (`3<<EOF`).
    pub file_descriptor: Option<u32>,
    /// Place of the body.
    pub span: Span,
}

/// A command in exec form or shell form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `["a", "b"]`
    Exec(Vec<String>),
    /// The text after the keyword and flags, continuations joined, comment lines removed.
    Shell(String),
}

/// `FROM [--platform=P] BASE [AS NAME]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct From {
    /// `--platform`
    pub platform: Option<Word>,
    /// An image, `scratch`, or the name of an earlier stage; variables of global scope.
    pub base: Word,
    /// The name after AS, lower-cased.
    pub name: Option<Word>,
}

/// One `KEY=VALUE` of ENV or LABEL, or `NAME[=DEFAULT]` of ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// Left of `=` (LABEL keys may hold variables and quotes).
    pub key: Word,
    /// Right of `=`; `None` only for ARG without a default.
    pub value: Option<Word>,
}

/// RUN
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `--mount=` values as written, in order.
    pub mounts: Vec<Spanned<RunMount>>,
    /// `--network=`: default, none or host.
    pub network: Option<Spanned<RunNetwork>>,
    /// `--security=insecure`
    pub insecure: bool,
    /// `--device=` values as written.
    pub devices: Vec<Word>,
    /// `--retry=`: how often it is tried again when it fails (mica alone has it).
    pub retries: u32,
    /// The command; with heredocs, the text of its first line (the redirections included).
    pub command: Command,
    /// Bodies in order of appearance. A RUN that consists of one heredoc only has an empty `Shell` remainder
    /// and is to be run as the body itself.
    pub heredocs: Vec<Heredoc>,
    /// The instruction's text after the keyword as BuildKit shows it in history (flags excluded).
    pub text: String,
}

/// `--network` of RUN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunNetwork {
    /// As the build was told.
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// `--mount=type=...` of RUN; values may hold variables, except `from`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunMount {
    /// The type.
    pub kind: RunMountKind,
    /// Where in the container; secrets and ssh have a default.
    pub target: Option<String>,
    /// Path inside `from`, or of the cache.
    pub source: Option<String>,
    /// Stage, image or named context; the build context when absent.
    pub from: Option<String>,
    /// `id=` of cache, secret, ssh.
    pub id: Option<String>,
    /// Read only. Default: true for bind, false for cache.
    pub read_only: bool,
    /// `sharing=` of cache.
    pub sharing: CacheSharing,
    /// `required` of secret and ssh.
    pub required: bool,
    /// `env=` of secret.
    pub env: Option<String>,
    /// `mode=`, octal as written.
    pub mode: Option<u32>,
    /// `uid=`
    pub uid: Option<u32>,
    /// `gid=`
    pub gid: Option<u32>,
    /// `size=` of tmpfs, bytes.
    pub size_bytes: Option<u64>,
    /// The whole value as written. A variable in an option that is not text (`uid=$UID`, `type=$T`) leaves its field
    /// at the default; [`crate::parse_run_mount`] reads this text again when variables are known.
    pub text: String,
}

/// Type of a RUN mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunMountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// An empty directory in memory.
    Tmpfs,
    /// A secret file or variable.
    Secret,
    /// An ssh agent's socket.
    Ssh,
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheSharing {
    /// Everybody.
    Shared,
    /// Everybody gets an own one.
    Private,
    /// One after the other.
    Locked,
}

/// A source of COPY or ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path or glob, or for ADD also a URL or git address; may hold variables.
    Path(Word),
    /// An inline file.
    Heredoc(Heredoc),
}

/// COPY and ADD.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// ADD rather than COPY.
    pub add: bool,
    /// `--from` (COPY only, never holds a variable).
    pub from: Option<Word>,
    /// `--chown`
    pub chown: Option<Word>,
    /// `--chmod`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, in order.
    pub excludes: Vec<Word>,
    /// `--checksum` (ADD).
    pub checksum: Option<Word>,
    /// `--keep-git-dir` (ADD).
    pub keep_git_dir: Option<bool>,
    /// `--unpack` (ADD).
    pub unpack: Option<bool>,
    /// At least one.
    pub sources: Vec<CopySource>,
    /// Last argument.
    pub destination: Word,
}

/// HEALTHCHECK
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`
    None,
    /// `CMD ...`; durations in nanoseconds, absent when not given.
    Check {
        /// `--interval`
        interval_ns: Option<i64>,
        /// `--timeout`
        timeout_ns: Option<i64>,
        /// `--start-period`
        start_period_ns: Option<i64>,
        /// `--start-interval`
        start_interval_ns: Option<i64>,
        /// `--retries`
        retries: Option<i32>,
        /// What to run.
        command: Command,
    },
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// ADD or COPY
    Copy(Copy),
    /// ARG
    Arg(Vec<KeyValue>),
    /// CMD
    Cmd(Command),
    /// ENTRYPOINT
    Entrypoint(Command),
    /// ENV
    Env(Vec<KeyValue>),
    /// EXPOSE
    Expose(Vec<Word>),
    /// HEALTHCHECK
    Healthcheck(Healthcheck),
    /// LABEL
    Label(Vec<KeyValue>),
    /// MAINTAINER
    Maintainer(String),
    /// ONBUILD: the trigger's text as written; it was checked to parse.
    Onbuild(String),
    /// RUN
    Run(Run),
    /// SHELL
    Shell(Vec<String>),
    /// STOPSIGNAL
    Stopsignal(Word),
    /// USER
    User(Word),
    /// VOLUME
    Volume(Vec<Word>),
    /// WORKDIR
    Workdir(Word),
}

/// One instruction of a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// What it says.
    pub kind: InstructionKind,
    /// Whole instruction, keyword to last byte, heredoc bodies included.
    pub span: Span,
    /// The text as BuildKit shows it in progress: continuations joined by blanks, flags included (`COPY --from=a /b /c`).
    pub text: String,
    /// What `# mica:` comments directly above say.
    pub policy: CachePolicy,
    /// Comment lines above, without their `#`.
    pub comments: Vec<String>,
}

/// A stage: FROM and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The FROM.
    pub from: From,
    /// Place of the FROM instruction.
    pub from_span: Span,
    /// Comment lines above the FROM, without their `#`.
    pub comments: Vec<String>,
    /// Position in the file, from 0.
    pub position: usize,
    /// What follows, up to the next FROM.
    pub instructions: Vec<Instruction>,
}
