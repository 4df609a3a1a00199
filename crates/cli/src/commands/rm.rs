//! `mica rm`: containers go.

use clap::Args;
use mica_container::{ContainerError, find_container};
use mica_store::Store;

use crate::commands::run::{explain, print_line};
use crate::commands::start::for_each;
use crate::error::CliError;
use crate::session::Session;

/// Remove one or more containers
#[derive(Debug, Args)]
pub(crate) struct RmArgs {
    /// Kill those that run
    #[arg(short, long)]
    force: bool,
    /// Remove volumes that were made for them alone
    #[arg(short, long)]
    volumes: bool,
    /// Containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl RmArgs {
    /// Ends what runs, as the plain user: in a user namespace of its own, the next step, this process has no power over
    /// the namespaces of its containers. What fails here fails again there, and is told then.
    pub fn end_running(&self, session: &Session) {
        let Ok(store) = Store::open(&session.root) else { return };
        for made in self.containers.iter().filter_map(|name| find_container(&store, name).ok()) {
            if self.force && made.container.record.state.is_live() {
                let _ = mica_container::end_now(&made.container);
            }
        }
    }
}

/// `mica rm`.
pub(crate) fn rm(session: &Session, args: &RmArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    store.make_room();
    mica_container::sweep(&store, session.rootless)?;
    for_each(&args.containers, |name| {
        let made = match find_container(&store, name) {
            Err(error @ ContainerError::ContainerMissing { .. }) if args.force => {
                let _ = explain(error).report();
                return Ok(0);
            }
            made => made.map_err(explain)?,
        };
        mica_container::remove(&store, &made, args.force, args.volumes).map_err(explain)?;
        print_line(name);
        Ok(0)
    })
}
