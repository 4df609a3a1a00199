//! `mica image prune`: images that nothing uses go.

use mica_image::{PruneFilter, Pruned};

use crate::commands::filter;
use crate::error::CliError;
use crate::format::output::{confirm, print};
use crate::format::size::human_sum;
use crate::session::Session;

/// Flags of `mica image prune`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Remove all images that no container uses, not just dangling ones
    #[arg(short, long)]
    all: bool,
    /// Which of them: until=, label=, label!=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Removes unused images.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let (wanted, all) = parse(&args.filter, args.all)?;
    let warning = match all {
        true => "WARNING! This will remove all images without at least one container associated to them.",
        false => "WARNING! This will remove all dangling images.",
    };
    if !args.force && !confirm(warning)? {
        return Ok(0);
    }
    let store = session.open_store_to_free()?;
    let pruned = mica_image::prune(&store, all, &wanted)?;
    print(&text(&pruned))?;
    print(&format!("Total reclaimed space: {}\n", human_sum(pruned.reclaimed_bytes)))?;
    Ok(0)
}

/// The filters, and whether named images go too.
pub(crate) fn parse(filters: &[String], mut all: bool) -> Result<(PruneFilter, bool), CliError> {
    let mut wanted = PruneFilter::default();
    for text in filters {
        let (key, value) = filter::split(text)?;
        match key {
            "until" => wanted.until_unix_s = Some(filter::until(value)?),
            "label" => wanted.labels.push(filter::label(value)),
            "label!" => wanted.labels_not.push(filter::label(value)),
            "dangling" => all = !filter::boolean(text, value)?,
            _ => return Err(filter::unknown(text, "until, label, label!, dangling")),
        }
    }
    Ok((wanted, all))
}

/// What went, in docker's words; empty if nothing did.
pub(crate) fn text(pruned: &Pruned) -> String {
    if pruned.untagged.is_empty() && pruned.deleted.is_empty() {
        return String::new();
    }
    let untagged = pruned.untagged.iter().map(|name| format!("untagged: {name}\n"));
    let deleted = pruned.deleted.iter().map(|digest| format!("deleted: {digest}\n"));
    let lines: String = untagged.chain(deleted).collect();
    format!("Deleted Images:\n{lines}\n")
}
