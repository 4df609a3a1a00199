//! `mica container ...`: the commands of containers under their long names, and `prune`.

use clap::{Args, Subcommand};
use mica_container::find_container;
use mica_store::{Store, tree_size_bytes};

use crate::commands::run::{explain, print_line};
use crate::commands::{attach, exec, inspect, kill, logs, ps, rm, run, start, stop, wait};
use crate::error::CliError;
use crate::format::output::confirm;
use crate::format::size::human_sum;
use crate::session::Session;

/// Manage containers
#[derive(Debug, Args)]
pub(crate) struct ContainerArgs {
    #[command(subcommand)]
    command: ContainerCommand,
}

#[derive(Debug, Subcommand)]
enum ContainerCommand {
    Run(Box<run::RunArgs>),
    Create(Box<run::CreateCommandArgs>),
    Start(start::StartArgs),
    #[command(visible_aliases = ["ps", "list"])]
    Ls(ps::PsArgs),
    Stop(stop::StopArgs),
    Kill(kill::KillArgs),
    #[command(alias = "remove")]
    Rm(rm::RmArgs),
    Logs(logs::LogsArgs),
    Wait(wait::WaitArgs),
    Exec(exec::ExecArgs),
    Attach(attach::AttachArgs),
    /// Show all that is known of containers
    Inspect(inspect::ContainerArgs),
    Prune(PruneArgs),
}

impl ContainerArgs {
    /// As `RmArgs::end_running`.
    pub(crate) fn end_running(&self, session: &Session) {
        if let ContainerCommand::Rm(args) = &self.command {
            args.end_running(session);
        }
    }

    /// Whether files of the containers' users are touched.
    pub(crate) fn needs_user_namespace(&self) -> bool {
        use ContainerCommand as C;
        !matches!(
            self.command,
            C::Ls(_)
                | C::Stop(_)
                | C::Kill(_)
                | C::Logs(_)
                | C::Wait(_)
                | C::Exec(_)
                | C::Attach(_)
                | C::Inspect(_)
        )
    }
}

/// Remove all stopped containers
#[derive(Debug, Args)]
pub(crate) struct PruneArgs {
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// `mica container`.
pub(crate) fn container(session: &Session, args: &ContainerArgs) -> Result<u8, CliError> {
    match &args.command {
        ContainerCommand::Run(args) => run::run(session, args),
        ContainerCommand::Create(args) => run::create(session, args),
        ContainerCommand::Start(args) => start::start(session, args),
        ContainerCommand::Ls(args) => ps::ps(session, args),
        ContainerCommand::Stop(args) => stop::stop(session, args),
        ContainerCommand::Kill(args) => kill::kill(session, args),
        ContainerCommand::Rm(args) => rm::rm(session, args),
        ContainerCommand::Logs(args) => logs::logs(session, args),
        ContainerCommand::Wait(args) => wait::wait(session, args),
        ContainerCommand::Exec(args) => exec::exec(session, args),
        ContainerCommand::Attach(args) => attach::attach(session, args),
        ContainerCommand::Inspect(args) => inspect::run_container(args, session),
        ContainerCommand::Prune(args) => prune(session, args),
    }
}

fn prune(session: &Session, args: &PruneArgs) -> Result<u8, CliError> {
    if !args.force && !confirm("WARNING! This will remove all stopped containers.")? {
        return Ok(0);
    }
    let store = Store::open(&session.root)?;
    store.make_room();
    mica_container::sweep(&store, session.rootless)?;
    let (mut removed, mut size_bytes) = (Vec::new(), 0u64);
    for container in store.containers()? {
        if container.record.state.is_live() || mica_sys::lock::is_held(container.lock_path())? {
            continue;
        }
        let freed_bytes = tree_size_bytes(&container.path().join("upper")).unwrap_or(0);
        let made = find_container(&store, &container.record.id).map_err(explain)?;
        mica_container::remove(&store, &made, false, true).map_err(explain)?;
        size_bytes += freed_bytes;
        removed.push(container.record.id);
    }
    mica_container::network::sweep_networks(session.rootless, store.root())?;
    if !removed.is_empty() {
        print_line("Deleted Containers:");
        removed.iter().for_each(|id| print_line(id));
        print_line("");
    }
    print_line(&format!("Total reclaimed space: {}", human_sum(size_bytes)));
    Ok(0)
}
