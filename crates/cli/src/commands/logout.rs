//! `logout`: takes a login away, from files and helpers.

use mica_oci::reference::DEFAULT_REGISTRY;
use mica_registry_client::{Credentials, registry_of};

use super::login::HUB_ADDRESS;
use crate::error::CliError;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Registry to log out from, Docker Hub if none is given
    server: Option<String>,
}

/// Runs the command.
pub(crate) fn run(args: Args) -> Result<u8, CliError> {
    let server = args.server.as_deref().filter(|server| !server.is_empty());
    let registry = registry_of(server.unwrap_or(DEFAULT_REGISTRY))?;
    let had = Credentials::of_user().erase(&registry)?;
    // Docker's own words, too.
    let shown = server.map_or(HUB_ADDRESS, |_| &registry);
    match had {
        true => println!("Removing login credentials for {shown}"),
        false => println!("Not logged in to {shown}"),
    }
    Ok(0)
}
