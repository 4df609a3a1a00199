//! `mica kill`: a signal for running containers.

use clap::Args;
use mica_container::{find_container, parse_signal};
use mica_store::Store;

use crate::commands::run::{explain, print_line};
use crate::commands::start::for_each;
use crate::error::CliError;
use crate::session::Session;

/// Kill one or more running containers
#[derive(Debug, Args)]
pub(crate) struct KillArgs {
    /// The signal
    #[arg(short, long, default_value = "KILL")]
    signal: String,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `mica kill`.
pub(crate) fn kill(session: &Session, args: &KillArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    let signal = parse_signal(&args.signal)?;
    for_each(&args.containers, |name| {
        let made = find_container(&store, name).map_err(explain)?;
        if signal == 9 && made.container.record.state.is_live() {
            mica_container::end_now(&made.container).map_err(explain)?;
        } else {
            mica_container::kill(&made.container, signal).map_err(explain)?;
        }
        print_line(name);
        Ok(0)
    })
}
