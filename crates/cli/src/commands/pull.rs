//! `mica pull`: images out of a registry.

use mica_oci::{Platform, Reference};

use crate::commands::remote::{Puller, candidates, client, parse_reference, tell_warnings};
use crate::commands::wanted_platform::wanted_platform;
use crate::error::CliError;
use crate::format::output::print;
use crate::progress::Stream;
use crate::session::Session;

/// Flags of `mica pull`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Pull all tags of the repository
    #[arg(short, long)]
    all_tags: bool,
    /// Platform of the image [default: this machine's]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print the image's name and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// Accepted for docker's sake: there is no content trust
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    disable_content_trust: Option<Option<bool>>,
    /// What to pull
    #[arg(value_name = "NAME[:TAG|@DIGEST]")]
    name: String,
}

/// Pulls.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    // Layers are applied by threads of their own; it halves what an image of 100,000 files takes, and is no slower.
    mica_sys::process::share_one_heap();
    let platform = wanted_platform(args.platform.as_deref())?;
    let reference = parse_reference(&args.name)?;
    if args.all_tags && !reference.is_name_only() {
        return Err(CliError::new("tag can't be used with --all-tags/-a"));
    }
    let stream = if args.quiet { Stream::Quiet } else { Stream::Out };
    let client = client()?;
    let candidates = candidates(&client.settings().registries, &args.name)?;
    let store = session.open_store()?;
    let puller = Puller { store: &store, client: &client, rootless: session.rootless, stream };
    if args.all_tags {
        let name = candidates.first().unwrap_or(&reference).name_only();
        pull_all(&puller, &name, platform.as_ref())?;
        print(&format!("{}\n", name.canonical()))?;
        return Ok(0);
    }
    if reference.is_name_only() {
        stream.line("Using default tag: latest");
    }
    let (pulled, _) = puller.pull_any(&candidates, platform.as_ref())?;
    print(&format!("{}\n", pulled.canonical()))?;
    Ok(0)
}

/// Pulls every tag that the repository has.
fn pull_all(puller: &Puller<'_>, name: &Reference, platform: Option<&Platform>) -> Result<(), CliError> {
    let mut is_new = false;
    let tags = puller.client.tags(name);
    tell_warnings(puller.client, tags.is_err());
    for tag in tags? {
        let reference = name.with_tag(&tag)?;
        is_new |= puller.pull_without_status(&reference, platform)?.is_new;
    }
    puller.status(&name.familiar(), is_new);
    Ok(())
}
