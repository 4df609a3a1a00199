//! `mica manifest ...`: manifests of registries, and lists of them that are put together by hand.

use mica_image::{ManifestList, PlatformChange};
use mica_oci::Reference;
use mica_registry_client::Client;
use mica_transfer::{CopyOptions, Place};

use crate::commands::copy::spool_dir;
use crate::commands::manifest_inspect::{self, InspectArgs};
use crate::commands::remote::{client_for, parse_reference};
use crate::error::CliError;
use crate::format::output::print;
use crate::session::Session;

/// Arguments of `mica manifest`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Add additional information to a local image manifest
    Annotate(AnnotateArgs),
    /// Create a local manifest list for annotating and pushing to a registry
    Create(CreateArgs),
    /// Display an image manifest, or manifest list
    Inspect(InspectArgs),
    /// Push a manifest list to a repository
    Push(PushArgs),
    /// Delete one or more manifest lists from local storage
    Rm(RmArgs),
}

/// Flags of `mica manifest create`.
#[derive(Debug, clap::Args)]
struct CreateArgs {
    /// Amend an existing manifest list
    #[arg(short, long)]
    amend: bool,
    /// Speak plain http to these registries, or take any certificate
    #[arg(long)]
    insecure: bool,
    /// What the list will be pushed as
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// Images of registries; of an index, all its manifests
    #[arg(value_name = "MANIFEST", required = true)]
    images: Vec<String>,
}

/// Flags of `mica manifest annotate`.
#[derive(Debug, clap::Args)]
struct AnnotateArgs {
    /// Set architecture
    #[arg(long, value_name = "ARCH")]
    arch: Option<String>,
    /// Set operating system
    #[arg(long)]
    os: Option<String>,
    /// Set operating system feature
    #[arg(long, value_name = "FEATURE", value_delimiter = ',')]
    os_features: Vec<String>,
    /// Set operating system version
    #[arg(long, value_name = "VERSION")]
    os_version: Option<String>,
    /// Set architecture variant
    #[arg(long)]
    variant: Option<String>,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
    /// A manifest of it
    #[arg(value_name = "MANIFEST")]
    image: String,
}

/// Flags of `mica manifest push`.
#[derive(Debug, clap::Args)]
struct PushArgs {
    /// Speak plain http to these registries, or take any certificate
    #[arg(long)]
    insecure: bool,
    /// Remove the local manifest list after push
    #[arg(short, long)]
    purge: bool,
    /// The list
    #[arg(value_name = "MANIFEST_LIST")]
    list: String,
}

/// Arguments of `mica manifest rm`.
#[derive(Debug, clap::Args)]
struct RmArgs {
    /// The lists
    #[arg(value_name = "MANIFEST_LIST", required = true)]
    lists: Vec<String>,
}

/// Runs the command that is meant.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    match args.command {
        Command::Annotate(args) => annotate(args, session),
        Command::Create(args) => create(args, session),
        Command::Inspect(args) => manifest_inspect::run(args, session),
        Command::Push(args) => push(args, session),
        Command::Rm(args) => rm(args, session),
    }
}

fn create(args: CreateArgs, session: &Session) -> Result<u8, CliError> {
    let name = parse_reference(&args.list)?;
    if name.digest().is_some() {
        return Err(CliError::new(format!("a manifest list cannot have a digest as name: `{}`", args.list)));
    }
    let images = args.images.iter().map(|image| parse_reference(image)).collect::<Result<Vec<_>, _>>()?;
    let client = client_for(args.insecure, &images)?;
    let store = session.open_store()?;
    let list = ManifestList::create(&store, &client, &name, &images, args.amend)?;
    print(&format!("Created manifest list {}\n", list.name.canonical()))?;
    Ok(0)
}

fn annotate(args: AnnotateArgs, session: &Session) -> Result<u8, CliError> {
    let store = session.open_store()?;
    let mut list = ManifestList::require(&store, &parse_reference(&args.list)?)?;
    let change = PlatformChange {
        architecture: args.arch,
        os: args.os,
        os_version: args.os_version,
        os_features: args.os_features,
        variant: args.variant,
    };
    list.annotate(&store, &parse_reference(&args.image)?, &change)?;
    Ok(0)
}

fn push(args: PushArgs, session: &Session) -> Result<u8, CliError> {
    let store = session.open_store()?;
    let list = ManifestList::require(&store, &parse_reference(&args.list)?)?;
    list.check()?;
    let mut names: Vec<Reference> = list.members.iter().map(|member| member.reference.clone()).collect();
    names.push(list.name.clone());
    let client = client_for(args.insecure, &names)?;
    copy_members(&client, &list, &|line| print(line))?;
    let digest = list.push(&client)?;
    if args.purge {
        ManifestList::remove(&store, &list.name)?;
    }
    print(&format!("{digest}\n"))?;
    Ok(0)
}

/// Brings what is in other repositories into the list's own: mounted within a registry, copied between two.
pub(crate) fn copy_members(
    client: &Client,
    list: &ManifestList,
    tell: &dyn Fn(&str) -> Result<(), CliError>,
) -> Result<(), CliError> {
    let options = CopyOptions { spool_dir: spool_dir(), ..CopyOptions::default() };
    for member in list.foreign_members() {
        let digest = &member.descriptor.digest;
        let from = Place::Registry(member.reference.with_digest(digest.clone()));
        let to = list.name.name_only().with_digest(digest.clone());
        let copied = mica_transfer::copy(client, &from, &Place::Registry(to.clone()), &options, &|_| {})?;
        tell(&format!("Pushed ref {} with digest: {}\n", to.canonical(), copied.digest))?;
    }
    Ok(())
}

/// Removes what can be removed; then tells of all that could not.
fn rm(args: RmArgs, session: &Session) -> Result<u8, CliError> {
    let store = session.open_store()?;
    let mut failures: Vec<CliError> = Vec::new();
    for list in &args.lists {
        let removed = parse_reference(list).and_then(|name| Ok(ManifestList::remove(&store, &name)?));
        failures.extend(removed.err());
    }
    match failures.len() {
        0 => Ok(0),
        1 => Err(failures.remove(0)),
        _ => {
            let messages: Vec<String> = failures.into_iter().map(|failure| failure.message).collect();
            Err(CliError::new(messages.join("\n")))
        }
    }
}
