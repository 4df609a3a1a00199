//! `mica rmi`: names and images go.

use mica_image::{ImageError, Removed};
use mica_oci::Platform;

use crate::error::CliError;
use crate::format::output::print;
use crate::session::Session;

/// Flags of `mica rmi`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove also what stopped containers or several names use
    #[arg(short, long)]
    force: bool,
    /// Do not delete untagged parents (there are none)
    #[arg(long)]
    no_prune: bool,
    /// Of several platforms, remove only this one (repeatable)
    #[arg(long)]
    platform: Vec<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Removes names and images.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let _ = args.no_prune;
    let store = session.open_store_to_free()?;
    let platforms: Vec<Platform> =
        args.platform.iter().map(|platform| Platform::parse(platform)).collect::<Result<_, _>>()?;
    let removal = match platforms.is_empty() {
        true => mica_image::remove(&store, &args.images, args.force)?,
        false => mica_image::remove_platforms(&store, &args.images, &platforms, args.force)?,
    };
    let lines = removal.removed.iter().map(|removed| match removed {
        Removed::Untagged(name) => format!("Untagged: {name}\n"),
        Removed::Deleted(digest) => format!("Deleted: {digest}\n"),
    });
    print(&lines.collect::<String>())?;
    let mut code = 0;
    for error in removal.errors {
        // With `--force`, what is gone already is as it should be.
        if !(args.force && matches!(error, ImageError::NotFound { .. })) {
            code = 1;
        }
        CliError::from(error).report();
    }
    Ok(code)
}
