//! `mica image ...`: the commands on images under their long names.

use crate::commands::{
    build, history, image_prune, images, import, inspect, load, pull, push, rmi, save, tag,
};
use crate::error::CliError;
use crate::session::Session;

/// Arguments of `mica image`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::Args>),
    /// Show the history of an image
    History(history::Args),
    /// Make an image of a root filesystem in a tar
    Import(import::Args),
    /// Show all that is known of images
    Inspect(inspect::ImageArgs),
    /// Load images from an archive
    Load(load::Args),
    /// List images
    #[command(visible_alias = "list")]
    Ls(images::Args),
    /// Remove images that nothing uses
    Prune(image_prune::Args),
    /// Pull an image from a registry
    Pull(pull::Args),
    /// Push an image to a registry
    Push(push::Args),
    /// Remove images
    #[command(visible_alias = "remove")]
    Rm(rmi::Args),
    /// Save images to an archive
    Save(save::Args),
    /// Give an image one more name
    Tag(tag::Args),
}

/// Runs the command that is meant.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    match args.command {
        Command::Build(args) => build::run(*args, session),
        Command::History(args) => history::run(args, session),
        Command::Import(args) => import::run(args, session),
        Command::Inspect(args) => inspect::run_image(args, session),
        Command::Load(args) => load::run(args, session),
        Command::Ls(args) => images::run(args, session),
        Command::Prune(args) => image_prune::run(args, session),
        Command::Pull(args) => pull::run(args, session),
        Command::Push(args) => push::run(args, session),
        Command::Rm(args) => rmi::run(args, session),
        Command::Save(args) => save::run(args, session),
        Command::Tag(args) => tag::run(args, session),
    }
}
