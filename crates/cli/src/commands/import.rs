//! `mica import`: a root filesystem becomes an image.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use jiff::Timestamp;
use mica_image::ImportOptions;
use mica_oci::{Platform, Reference};

use crate::error::CliError;
use crate::format::output::print;
use crate::session::Session;

/// Flags of `mica import`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Apply a Dockerfile instruction to the image
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Set the commit message
    #[arg(short, long, default_value = "")]
    message: String,
    /// What the image runs on
    #[arg(long)]
    platform: Option<String>,
    /// A tar, plain or compressed; `-` is stdin
    #[arg(value_name = "FILE|-")]
    source: String,
    /// Name of the image
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

/// Imports a root filesystem.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let reference = args.name.as_deref().map(Reference::parse).transpose()?;
    let platform = match &args.platform {
        Some(platform) => Platform::parse(platform)?,
        None => Platform::host(),
    };
    let file = match args.source.as_str() {
        "-" => File::from(io::stdin().as_fd().try_clone_to_owned()?),
        source if source.starts_with("http://") || source.starts_with("https://") => {
            return Err(CliError::new("importing from an address is not supported yet")
                .hint(format!("try `curl -sSL {source} | mica import -`")));
        }
        source => {
            File::open(source).map_err(|error| CliError::new(format!("cannot read `{source}`: {error}")))?
        }
    };
    let store = session.open_store()?;
    let options = ImportOptions {
        reference,
        changes: args.change,
        message: args.message,
        origin: args.source,
        platform,
        created: Timestamp::now().to_string(),
        mapping: mica_image::mapping(session.rootless),
    };
    let id = mica_image::import(&store, file, &options)?;
    print(&format!("{id}\n"))?;
    Ok(0)
}
