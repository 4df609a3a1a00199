//! `mica save`: images into one tar.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};

use mica_oci::Platform;

use crate::error::CliError;
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
    let is_special = std::fs::metadata(&path).is_ok_and(|metadata| !metadata.is_file());
    if is_special {
        let mut file = File::options().write(true).open(&path).map_err(|error| failed(&path, &error))?;
        save(&mut file)?;
        return Ok(0);
    }
    // Beside it first: a failure must not leave half an archive under the name.
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let part = path.with_file_name(name);
    let mut file = File::create_new(&part).map_err(|error| failed(&path, &error))?;
    let saved = save(&mut file).map_err(CliError::from);
    let saved = saved.and_then(|()| std::fs::rename(&part, &path).map_err(|error| failed(&path, &error)));
    if saved.is_err() {
        // Nothing more can be done about it.
        let _ = std::fs::remove_file(&part);
    }
    saved.map(|()| 0)
}

fn failed(path: &Path, error: &io::Error) -> CliError {
    CliError::new(format!("cannot write `{}`: {error}", path.display()))
}
