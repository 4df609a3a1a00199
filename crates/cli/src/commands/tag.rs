//! `mica tag`: one more name for an image.

use crate::error::CliError;
use crate::session::Session;

/// Arguments of `mica tag`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A name or ID
    #[arg(value_name = "SOURCE_IMAGE[:TAG]")]
    source: String,
    /// The new name
    #[arg(value_name = "TARGET_IMAGE[:TAG]")]
    target: String,
}

/// Gives an image a name.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    mica_image::tag(&session.open_store()?, &args.source, &args.target)?;
    Ok(0)
}
