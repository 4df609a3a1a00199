//! `mica save`: images into one tar.

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use mica_oci::Platform;

use crate::error::CliError;
use crate::format::output::write_whole;
use crate::session::Session;

/// Flags of `mica save`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Write to a file, instead of stdout
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Of several platforms, save this one
    #[arg(long)]
    platform: Option<String>,
    /// Images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

/// Saves images.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let store = session.open_store()?;
    let save = |out: &mut dyn io::Write| mica_image::save_for(&store, &args.images, platform.as_ref(), out);
    let Some(path) = args.output else {
        let mut out = io::stdout().lock();
        if out.is_terminal() {
            return Err(
                CliError::new("cowardly refusing to save to a terminal").hint("use `-o FILE` or redirect")
            );
        }
        save(&mut out)?;
        return Ok(0);
    };
    write_whole(&path, &mut |out| Ok(save(out)?))?;
    Ok(0)
}
