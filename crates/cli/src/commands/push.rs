//! `mica push`: images to a registry.

use std::collections::BTreeSet;

use mica_image::{ImageError, PushError, PushRequest, Pushed, TransferEvent};
use mica_oci::{Platform, Reference};
use mica_registry_client::{Client, RegistryError};
use mica_store::Store;

use crate::advice::registry::push_denied;
use crate::commands::remote::{client, parse_reference};
use crate::error::CliError;
use crate::format::output::print;
use crate::progress::{Stream, Transfer};
use crate::session::Session;

/// Flags of `mica push`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Push all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Push this platform's image alone [default: all that the name has]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print the image's name and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Accepted for docker's sake: there is no content trust
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    disable_content_trust: Option<Option<bool>>,
    /// What to push
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

/// Pushes.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let platform = args.platform.as_deref().map(Platform::parse).transpose()?;
    let reference = parse_reference(&args.name)?;
    if reference.digest().is_some() {
        return Err(
            CliError::new("cannot push a digest reference").hint("push by a tag: `mica push NAME:TAG`")
        );
    }
    if args.all_tags && !reference.is_name_only() {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    let stream = if args.quiet { Stream::Quiet } else { Stream::Out };
    let store = session.open_store()?;
    if !args.all_tags && reference.is_name_only() {
        stream.line("Using default tag: latest");
    }
    stream.line(&format!("The push refers to repository [{}]", reference.name()));
    let references = match args.all_tags {
        true => all_tags(&store, &reference)?,
        false => vec![reference.with_default_tag()],
    };
    let client = client()?;
    for reference in &references {
        push(&store, &client, reference, platform.as_ref(), stream)?;
    }
    if args.quiet {
        let shown = if args.all_tags { reference } else { reference.with_default_tag() };
        print(&format!("{}\n", shown.canonical()))?;
    }
    Ok(0)
}

/// Pushes one name, with docker's lines after the first.
pub(crate) fn push(
    store: &Store,
    client: &Client,
    reference: &Reference,
    platform: Option<&Platform>,
    stream: Stream,
) -> Result<Pushed, CliError> {
    let transfer = Transfer::start(stream);
    let watch = |event: TransferEvent| transfer.tell(event);
    let pushed = mica_image::push(store, client, &PushRequest { reference, platform }, &watch);
    drop(transfer);
    let pushed = pushed.map_err(|error| explain(reference, error))?;
    let tag = reference.tag().unwrap_or_default();
    stream.line(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size_bytes));
    Ok(pushed)
}

/// A failed push as people see it.
pub(crate) fn explain(reference: &Reference, error: ImageError) -> CliError {
    match error {
        ImageError::Registry(RegistryError::Denied { refusal, had_login, .. }) => {
            push_denied(reference, &refusal, had_login)
        }
        error => error.into(),
    }
}

/// All names of a repository that have a tag.
fn all_tags(store: &Store, repository: &Reference) -> Result<Vec<Reference>, CliError> {
    let mut found = BTreeSet::new();
    for image in store.images()? {
        let names = image.names.iter().filter_map(|name| Reference::parse(name).ok());
        found.extend(names.filter(|name| {
            name.digest().is_none() && name.tag().is_some() && name.name() == repository.name()
        }));
    }
    if found.is_empty() {
        let repository = repository.familiar_name();
        let source = Box::new(PushError::NoImage { repository: repository.clone() });
        return Err(ImageError::Push { reference: repository, source }.into());
    }
    Ok(found.into_iter().collect())
}
