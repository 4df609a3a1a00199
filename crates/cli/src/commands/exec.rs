//! `mica exec`: another program in a running container.

use std::io::IsTerminal;

use clap::{ArgAction, Args};
use mica_container::{ExecOptions, find_container};
use mica_store::Store;

use crate::commands::run::{exit_code, explain};
use crate::error::CliError;
use crate::session::Session;

/// Run a command in a running container
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct ExecArgs {
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// Pass standard input on
    #[arg(short, long)]
    interactive: bool,
    /// Set an environment variable
    #[arg(short, long, value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// Working directory
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// User (`name|uid[:group|gid]`)
    #[arg(short, long)]
    user: Option<String>,
    /// Allow everything
    #[arg(long)]
    privileged: bool,
    /// Show help
    #[arg(short = 'h', long, action = ArgAction::Help)]
    help: Option<bool>,
    /// Container, and the command to run in it
    #[arg(required = true, num_args = 2.., trailing_var_arg = true, value_name = "CONTAINER COMMAND [ARGUMENT]")]
    container_and_command: Vec<String>,
}

/// `mica exec`.
pub(crate) fn exec(session: &Session, args: &ExecArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    let Some((container, command)) = args.container_and_command.split_first() else {
        return Err(CliError::new("no container given"));
    };
    if args.tty && args.interactive && !std::io::stdin().is_terminal() {
        return Err(CliError::new("the input device is not a TTY"));
    }
    let made = find_container(&store, container).map_err(|error| explain(error).code(1))?;
    let options = ExecOptions {
        argv: command.to_vec(),
        env: args.env.clone(),
        workdir: args.workdir.clone(),
        user: args.user.clone(),
        tty: args.tty,
        interactive: args.interactive,
        privileged: args.privileged,
        rootless: session.rootless,
    };
    let code = mica_container::exec(&made, &options).map_err(|error| {
        let is_of_command = matches!(error, mica_container::ContainerError::Runtime(_));
        let explained = explain(error);
        if is_of_command { explained } else { explained.code(1) }
    })?;
    Ok(exit_code(code))
}
