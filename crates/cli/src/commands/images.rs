//! `mica images`: what images there are.

use mica_image::{ListFilter, ListRow};
use serde_json::{Value, json};

use crate::commands::filter;
use crate::error::CliError;
use crate::format::ago::{ago, date};
use crate::format::listing::{Column, render};
use crate::format::output::print;
use crate::format::size::human_size;
use crate::session::Session;

/// Flags of `mica images`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Show all images (also those in between)
    #[arg(short, long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Filter output: dangling=, label=, before=, since=, until=, reference=
    #[arg(short, long, value_name = "FILTER")]
    filter: Vec<String>,
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long)]
    format: Option<String>,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// Images of this name, or names that fit it
    #[arg(value_name = "REPOSITORY[:TAG]")]
    name: Option<String>,
}

const COLUMNS: [Column; 10] = [
    ("Containers", "CONTAINERS"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedSince", "CREATED"),
    ("Digest", "DIGEST"),
    ("ID", "IMAGE ID"),
    ("Repository", "REPOSITORY"),
    ("SharedSize", "SHARED SIZE"),
    ("Size", "SIZE"),
    ("Tag", "TAG"),
    ("UniqueSize", "UNIQUE SIZE"),
];

/// Lists images.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let mut wanted = ListFilter::default();
    for text in &args.filter {
        let (key, value) = filter::split(text)?;
        match key {
            "dangling" => wanted.dangling = Some(filter::boolean(text, value)?),
            "label" => wanted.labels.push(filter::label(value)),
            "before" => wanted.before.push(value.to_owned()),
            "since" => wanted.since.push(value.to_owned()),
            "until" => wanted.until_unix_s = Some(filter::until(value)?),
            "reference" => wanted.references.push(value.to_owned()),
            _ => return Err(filter::unknown(text, "dangling, label, before, since, until, reference")),
        }
    }
    wanted.references.extend(args.name.clone());
    let mut rows = mica_image::list(&store, &wanted)?;
    if !args.digests {
        // An image that has several digests and no tag in a repository has a row for each.
        rows.dedup_by(|one, other| {
            one.tag.is_none()
                && (&one.id, &one.repository, &one.tag) == (&other.id, &other.repository, &other.tag)
        });
    }
    if rows.is_empty()
        && let Some(word @ ("ls" | "list" | "rm" | "prune")) = args.name.as_deref()
    {
        eprintln!("hint: no image is named `{word}`; did you mean `mica image {word}`?");
    }
    if args.quiet {
        let lines = rows.iter().map(|row| format!("{}\n", shown_id(row, args.no_trunc)));
        print(&lines.collect::<String>())?;
        return Ok(0);
    }
    let values: Vec<Value> = rows.iter().map(|row| value_of(row, args.no_trunc)).collect();
    let shown: &[&str] = match args.digests {
        true => &["Repository", "Tag", "Digest", "ID", "CreatedSince", "Size"],
        false => &["Repository", "Tag", "ID", "CreatedSince", "Size"],
    };
    print(&render(&values, &COLUMNS, shown, args.format.as_deref())?)?;
    Ok(0)
}

fn shown_id(row: &ListRow, whole: bool) -> &str {
    if whole { row.id.0.as_str() } else { row.id.0.short() }
}

pub(crate) fn value_of(row: &ListRow, whole: bool) -> Value {
    let or_none = |text: Option<&str>| text.unwrap_or("<none>").to_owned();
    let (since, at) = match row.created_unix_s {
        0 => ("N/A".to_owned(), "N/A".to_owned()),
        created => (ago(created), date(created)),
    };
    json!({
        "Containers": row.containers_count.to_string(),
        "CreatedAt": at,
        "CreatedSince": since,
        "Digest": or_none(row.digest.as_ref().map(|digest| digest.as_str())),
        "ID": shown_id(row, whole),
        "Repository": or_none(row.repository.as_deref()),
        "SharedSize": "N/A",
        "Size": human_size(row.size_bytes),
        "Tag": or_none(row.tag.as_deref()),
        "UniqueSize": "N/A",
    })
}
