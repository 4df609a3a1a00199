//! `mica load`: images out of an archive.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::path::PathBuf;

use mica_image::Source;
use mica_oci::Platform;

use crate::error::CliError;
use crate::format::output::print;
use crate::session::Session;

/// Flags of `mica load`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Read from a tar or the directory of an OCI layout, instead of stdin
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Load only images of this platform
    #[arg(long)]
    platform: Option<String>,
    /// Suppress the load output
    #[arg(short, long)]
    quiet: bool,
}

/// Loads images.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    // docker has a progress bar to suppress; here is none yet.
    let _ = args.quiet;
    let source = match &args.input {
        Some(path) => {
            let failed = |error| CliError::new(format!("cannot read `{}`: {error}", path.display()));
            let file = File::open(path).map_err(failed)?;
            match file.metadata().map_err(failed)?.is_dir() {
                true => Source::Directory(file.into()),
                false => Source::File(file),
            }
        }
        None if io::stdin().is_terminal() => {
            return Err(CliError::new("requested load from stdin, but stdin is empty")
                .hint("use `-i FILE` or redirect"));
        }
        None => Source::File(File::from(io::stdin().as_fd().try_clone_to_owned()?)),
    };
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let store = session.open_store()?;
    for image in mica_image::load_for(&store, source, platform.as_ref(), session.rootless)? {
        if image.names.is_empty() {
            print(&format!("Loaded image ID: {}\n", image.id))?;
        }
        for name in &image.names {
            print(&format!("Loaded image: {name}\n"))?;
        }
    }
    Ok(0)
}
