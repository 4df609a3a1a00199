//! The command line: row 4, the only room that talks to people.
//!
//! Here: flags and environment (`commands`, one file each; `words` where docker reads them in its own way), tables (`format`),
//! progress of builds and transfers (`progress`), and errors with their exit codes (`error`) and advice (`advice`). Data goes to
//! stdout, all else to stderr. Not here: anything that a program could want to call; that is in the rooms below.

mod advice;
mod commands;
mod error;
mod format;
mod progress;
mod prompt;
mod session;
mod words;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::commands::*;
use crate::session::{Access, Session};

/// Build, store, ship and run container images, without a daemon
#[derive(Debug, Parser)]
// As docker: of a flag that can have one value, the last counts.
#[command(name = "mica", version, disable_help_subcommand = true, args_override_self = true)]
struct Cli {
    /// Where everything is kept [default: /var/lib/mica as root, $XDG_DATA_HOME/mica otherwise]
    #[arg(long, env = "MICA_ROOT", value_name = "DIR")]
    root: Option<std::path::PathBuf>,
    #[command(flatten)]
    daemon: DaemonFlags,
    #[command(subcommand)]
    command: Command,
}

/// docker's flags for its client's way to the daemon, taken so that scripts go on working.
#[derive(Debug, clap::Args)]
struct DaemonFlags {
    /// Accepted for docker's sake: errors say what there is to say
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    /// As `--debug`
    #[arg(short, long, hide = true, value_name = "LEVEL")]
    log_level: Option<LogLevel>,
    /// Accepted for docker's sake: there is no daemon
    #[arg(short = 'H', long, hide = true, value_name = "ADDRESS")]
    host: Vec<String>,
    /// As `--host`
    #[arg(short, long, hide = true, value_name = "NAME")]
    context: Option<String>,
}

/// docker's levels.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
    Fatal,
}

impl DaemonFlags {
    /// What goes on here and not where the flags want it.
    fn warning(&self) -> Option<String> {
        let flag = match &self.context {
            Some(name) if name != "default" => format!("--context {name}"),
            _ => format!("--host {}", self.host.last()?),
        };
        Some(format!(
            "`{flag}` is ignored: there is no daemon, mica itself does what is asked, on this machine"
        ))
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    // In docker's order of use; then the groups, then the rest by name.
    Run(Box<run::RunArgs>),
    Exec(exec::ExecArgs),
    Ps(ps::PsArgs),
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Pull an image from a registry
    Pull(pull::Args),
    /// Push an image to a registry
    Push(push::Args),
    /// List images
    Images(images::Args),
    /// Search a registry for images
    Search(search::Args),
    /// Show the version
    Version(version::Args),
    /// Show what this mica runs on
    Info(info::Args),
    /// Manage the build cache
    Builder(builder::Args),
    /// Build images, and manage the build cache
    #[command(hide = true)]
    Buildx(builder::Args),
    Container(container::ContainerArgs),
    /// Manage images
    Image(image::Args),
    /// Show and shrink what is stored
    System(system::Args),
    Attach(attach::AttachArgs),
    /// Copy an image between registries, OCI layouts and archives
    Copy(copy::Args),
    Create(Box<run::CreateCommandArgs>),
    /// Open a shell in the state that a failed step of a build left
    Debug(debug::Args),
    /// Show the history of an image
    History(history::Args),
    /// Make an image of a root filesystem in a tar
    Import(import::Args),
    /// List what the steps of an image used
    Inputs(inputs::Args),
    /// Show all that is known of images and containers
    Inspect(inspect::Args),
    Kill(kill::KillArgs),
    /// Load images from an archive
    Load(load::Args),
    /// Log in to a registry
    Login(login::Args),
    /// Log out from a registry
    Logout(logout::Args),
    Logs(logs::LogsArgs),
    /// Manage manifests and manifest lists
    Manifest(manifest::Args),
    Rm(rm::RmArgs),
    /// Remove images
    Rmi(rmi::Args),
    /// Save images to an archive
    Save(save::Args),
    /// Make an image that holds only what an image's commands use
    Slim(Box<slim::Args>),
    Start(start::StartArgs),
    Stop(stop::StopArgs),
    /// Give an image one more name
    Tag(tag::Args),
    /// List the tags of a repository in its registry
    Tags(tags::Args),
    Wait(wait::WaitArgs),
    /// Show why the steps of an image ran or did not
    Why(why::Args),
}

impl Command {
    /// What the command needs of the store.
    fn access(&self) -> Access {
        match self {
            Self::Copy(_)
            | Self::History(_)
            | Self::Images(_)
            | Self::Info(_)
            | Self::Inputs(_)
            | Self::Inspect(_)
            | Self::Manifest(_)
            | Self::Search(_)
            | Self::Tag(_)
            | Self::Tags(_)
            | Self::Version(_)
            | Self::Why(_) => Access::Records,
            // Looking and sending signals is done as the user: the owner of a user namespace may signal all that is in
            // it, and `exec` joins the container's own.
            Self::Ps(_)
            | Self::Stop(_)
            | Self::Kill(_)
            | Self::Logs(_)
            | Self::Wait(_)
            | Self::Exec(_)
            | Self::Attach(_) => Access::Records,
            Self::Builder(args) | Self::Buildx(args) if !args.needs_user_namespace() => Access::Records,
            Self::Container(args) if !args.needs_user_namespace() => Access::Records,
            _ => Access::Files,
        }
    }

    /// What an ordinary user has to do before entering a user namespace.
    fn prepare(&self, session: &Session) {
        match self {
            Self::Rm(args) => args.end_running(session),
            Self::Container(args) => args.end_running(session),
            _ => {}
        }
    }

    fn run(self, session: &Session) -> Result<u8, error::CliError> {
        match self {
            Self::Attach(args) => attach::attach(session, &args),
            Self::Build(args) => build::run(*args, session),
            Self::Builder(args) | Self::Buildx(args) => builder::run(args, session),
            Self::Container(args) => container::container(session, &args),
            Self::Copy(args) => copy::run(args),
            Self::Create(args) => run::create(session, &args),
            Self::Debug(args) => debug::run(args, session),
            Self::Exec(args) => exec::exec(session, &args),
            Self::History(args) => history::run(args, session),
            Self::Image(args) => image::run(args, session),
            Self::Images(args) => images::run(args, session),
            Self::Import(args) => import::run(args, session),
            Self::Info(args) => info::run(args, session),
            Self::Inputs(args) => inputs::run(args, session),
            Self::Inspect(args) => inspect::run(args, session),
            Self::Kill(args) => kill::kill(session, &args),
            Self::Load(args) => load::run(args, session),
            Self::Login(args) => login::run(args),
            Self::Logout(args) => logout::run(args),
            Self::Logs(args) => logs::logs(session, &args),
            Self::Manifest(args) => manifest::run(args, session),
            Self::Ps(args) => ps::ps(session, &args),
            Self::Pull(args) => pull::run(args, session),
            Self::Push(args) => push::run(args, session),
            Self::Rm(args) => rm::rm(session, &args),
            Self::Rmi(args) => rmi::run(args, session),
            Self::Run(args) => run::run(session, &args),
            Self::Save(args) => save::run(args, session),
            Self::Search(args) => search::run(args),
            Self::Slim(args) => slim::run(*args, session),
            Self::Start(args) => start::start(session, &args),
            Self::Stop(args) => stop::stop(session, &args),
            Self::System(args) => system::run(args, session),
            Self::Tag(args) => tag::run(args, session),
            Self::Tags(args) => tags::run(args),
            Self::Version(args) => version::run(args, session),
            Self::Wait(args) => wait::wait(session, &args),
            Self::Why(args) => why::run(args, session),
        }
    }
}

fn parse(words: &[OsString]) -> Result<Cli, clap::Error> {
    let mut matches = words::parse(Cli::command(), words)?;
    Cli::from_arg_matches_mut(&mut matches).map_err(|error| error.format(&mut Cli::command()))
}

fn main() -> ExitCode {
    // Before anything else: this program is also the first process of its containers, and their monitor.
    mica_runtime::init_main_if_requested();
    mica_container::monitor_main_if_requested();
    let words: Vec<OsString> = std::env::args_os().collect();
    let cli = match parse(&words) {
        Ok(cli) => cli,
        Err(error) => {
            let path = words::command_path(&Cli::command(), &words);
            let code = if error.use_stderr() { words::usage_code(&path) } else { 0 };
            let _ = words::with_short_usage(error, Cli::command(), &path).print();
            return ExitCode::from(code);
        }
    };
    if let Some(warning) = cli.daemon.warning() {
        eprintln!("warning: {warning}");
    }
    let outcome = Session::begin(cli.root)
        .and_then(|session| {
            if session.rootless {
                cli.command.prepare(&session);
            }
            session.enter(cli.command.access())
        })
        .and_then(|session| cli.command.run(&session));
    match outcome {
        Ok(code) => ExitCode::from(code),
        Err(error) => error.report(),
    }
}
