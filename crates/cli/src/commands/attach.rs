//! `mica attach`: our streams, connected to a running container.

use clap::Args;
use mica_container::{AttachOptions, Attached, find_container};
use mica_store::Store;

use crate::commands::run::{exit_code, explain};
use crate::error::CliError;
use crate::session::Session;

/// Attach standard streams to a running container
#[derive(Debug, Args)]
pub(crate) struct AttachArgs {
    /// Do not pass standard input on
    #[arg(long)]
    no_stdin: bool,
    /// Container
    container: String,
}

/// `mica attach`.
pub(crate) fn attach(session: &Session, args: &AttachArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    let made = find_container(&store, &args.container).map_err(explain)?;
    let options = AttachOptions {
        stdin: made.settings.stdin_open && !args.no_stdin,
        tty: made.settings.tty,
        forward_signals: true,
    };
    match mica_container::attach(&made.container, options).map_err(explain)? {
        Attached::Exited(code) => Ok(exit_code(code)),
        Attached::Detached => Ok(0),
    }
}
