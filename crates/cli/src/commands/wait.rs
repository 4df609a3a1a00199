//! `mica wait`: until containers end.

use clap::Args;
use mica_container::find_container;
use mica_store::Store;

use crate::commands::run::{explain, print_line};
use crate::commands::start::for_each;
use crate::error::CliError;
use crate::session::Session;

/// Wait until containers stop, then print their exit codes
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// `mica wait`.
pub(crate) fn wait(session: &Session, args: &WaitArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    for_each(&args.containers, |name| {
        let made = find_container(&store, name).map_err(explain)?;
        let code = mica_container::wait(&store, &made.container).map_err(explain)?;
        print_line(&code.to_string());
        Ok(0)
    })
}
