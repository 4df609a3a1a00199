//! `mica stop`: containers are asked to end, then ended.

use clap::Args;
use mica_container::{find_container, parse_signal};
use mica_store::Store;

use crate::commands::run::{explain, print_line};
use crate::commands::start::for_each;
use crate::error::CliError;
use crate::session::Session;

/// Stop one or more running containers
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Signal to send instead of the container's own
    #[arg(short, long)]
    signal: Option<String>,
    /// Seconds to wait before killing it; -1 waits for ever
    #[arg(short = 't', long = "timeout", alias = "time", value_name = "SECONDS", allow_hyphen_values = true)]
    timeout_s: Option<i64>,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `mica stop`.
pub(crate) fn stop(session: &Session, args: &StopArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    let signal = args.signal.as_deref().map(parse_signal).transpose()?;
    for_each(&args.containers, |name| {
        let made = find_container(&store, name).map_err(explain)?;
        mica_container::stop(&made, signal, args.timeout_s).map_err(explain)?;
        print_line(name);
        Ok(0)
    })
}
