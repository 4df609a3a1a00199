//! `mica debug`: a look at what a failed step left.

use std::io::IsTerminal;

use mica_build::{DebugRequest, FailedState, SecretSource, SshSource};
use mica_store::{FailedStep, Store};

use crate::error::CliError;
use crate::format::ago::ago;
use crate::format::output::print;
use crate::format::table::Table;
use crate::progress;
use crate::session::Session;

/// Arguments of `mica debug`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// List what failed steps left
    #[arg(short, long)]
    list: bool,
    /// Which of it [default: the newest]; the beginning of its ID is enough
    #[arg(value_name = "ID")]
    id: Option<String>,
    /// What to run there [default: the step's shell]
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<String>,
}

/// Lists, or opens one.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let store = session.open_store()?;
    if args.list {
        return list(&store);
    }
    let failed = find(&store, args.id.as_deref())?;
    open(&store, &failed, session, &args.command, &[], &[])
}

fn list(store: &Store) -> Result<u8, CliError> {
    let mut table = Table::new(&["ID", "CREATED", "CODE", "DOCKERFILE", "STEP"]);
    for failed in store.failed_steps()? {
        let Some(state) = FailedState::of(&failed) else { continue };
        let place = match &state.context {
            Some(context) => context.join(&state.dockerfile).display().to_string(),
            None => state.dockerfile.clone(),
        };
        table.push(vec![
            failed.id.clone(),
            ago(failed.created_unix_s),
            state.code.to_string(),
            progress::printable(&format!("{place}:{}", state.line)).to_string(),
            progress::printable(&state.step).to_string(),
        ]);
    }
    print(&table.render())?;
    Ok(0)
}

fn find(store: &Store, id: Option<&str>) -> Result<FailedStep, CliError> {
    let mut steps = store.failed_steps()?;
    let Some(id) = id else {
        let newest = (!steps.is_empty()).then(|| steps.remove(0));
        return newest.ok_or_else(|| {
            CliError::new("no failed step left anything")
                .hint("it is kept when a RUN fails, until a build of the same Dockerfile succeeds")
        });
    };
    steps.retain(|step| step.id.starts_with(id));
    match steps.len() {
        0 => {
            let what = format!("there is nothing of a failed step `{id}`");
            Err(CliError::new(what).hint("`mica debug --list` lists what is there"))
        }
        1 => Ok(steps.remove(0)),
        _ => Err(CliError::new(format!("`{id}` is the beginning of several IDs")).hint("give more digits")),
    }
}

/// Opens what the newest build left that failed; for `build --debug`.
pub(crate) fn open_kept(
    session: &Session,
    store: &Store,
    id: &str,
    secrets: &[SecretSource],
    ssh: &[SshSource],
) -> Result<u8, CliError> {
    open(store, &find(store, Some(id))?, session, &[], secrets, ssh)
}

fn open(
    store: &Store,
    failed: &FailedStep,
    session: &Session,
    command: &[String],
    secrets: &[SecretSource],
    ssh: &[SshSource],
) -> Result<u8, CliError> {
    let is_terminal = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    if let Some(state) = FailedState::of(failed) {
        if is_terminal {
            let step = progress::printable(&state.step);
            eprintln!(
                "in the state that `{step}` left (exit code {}); what is changed here is dropped",
                state.code
            );
        }
        if state.had_secrets() && secrets.is_empty() && ssh.is_empty() {
            eprintln!("warning: secrets and agents that the step had are not kept, and not here");
        }
    }
    let warn = |text: &str| eprintln!("warning: {text}");
    let request =
        DebugRequest { command, secrets, ssh, rootless: session.rootless, is_terminal, warn: &warn };
    let code = mica_build::debug(store, failed, &request).map_err(|error| match &error {
        mica_build::StepError::Runtime(_) if command.is_empty() => {
            CliError::from(error).hint("an image without a shell has other programs: `mica debug -- COMMAND`")
        }
        _ => CliError::from(error),
    })?;
    Ok(u8::try_from(code).unwrap_or(1))
}
