//! `mica history`: how an image came to be.

use mica_oci::Platform;
use serde_json::{Value, json};

use crate::error::CliError;
use crate::format::ago::{ago, rfc3339, unix_seconds};
use crate::format::listing::{Column, render};
use crate::format::output::print;
use crate::format::size::human_size;
use crate::session::Session;

/// Flags of `mica history`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// `table`, `table TEMPLATE`, `json` or a template
    #[arg(long)]
    format: Option<String>,
    /// Sizes and dates for people
    #[arg(
        short = 'H',
        long,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        value_name = "BOOL"
    )]
    human: bool,
    /// Don't truncate output
    #[arg(long)]
    no_trunc: bool,
    /// Of several platforms, show this one
    #[arg(long)]
    platform: Option<String>,
    /// Only show image IDs
    #[arg(short, long)]
    quiet: bool,
    /// The image
    image: String,
}

const COLUMNS: [Column; 6] = [
    ("ID", "IMAGE"),
    ("CreatedSince", "CREATED"),
    ("CreatedAt", "CREATED AT"),
    ("CreatedBy", "CREATED BY"),
    ("Size", "SIZE"),
    ("Comment", "COMMENT"),
];

const CREATED_BY_LENGTH_MAX: usize = 45;

/// Shows the history of an image.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let id = match &args.platform {
        Some(platform) => mica_image::resolve_platform(&store, &args.image, &Platform::parse(platform)?)?,
        None => mica_image::require(&store, &args.image)?,
    };
    let mut rows: Vec<Value> = Vec::new();
    for row in mica_image::history(&store, &id)? {
        let shown_id = match &row.id {
            Some(id) if args.no_trunc => id.to_string(),
            Some(id) => id.0.short().to_owned(),
            None => "<missing>".to_owned(),
        };
        let created = unix_seconds(&row.created);
        let created_by = row.created_by.replace('\t', " ");
        rows.push(json!({
            "Comment": row.comment,
            "CreatedAt": if created == 0 { "N/A".to_owned() } else { rfc3339(created) },
            "CreatedBy": if args.no_trunc { created_by } else { shorten(&created_by, CREATED_BY_LENGTH_MAX) },
            "CreatedSince": if created == 0 { "N/A".to_owned() } else { ago(created) },
            "ID": shown_id,
            "Size": if args.human { human_size(row.size_bytes) } else { row.size_bytes.to_string() },
        }));
    }
    if args.quiet {
        let lines = rows.iter().filter_map(|row| Some(format!("{}\n", row.get("ID")?.as_str()?)));
        print(&lines.collect::<String>())?;
        return Ok(0);
    }
    let created = if args.human { "CreatedSince" } else { "CreatedAt" };
    let shown = ["ID", created, "CreatedBy", "Size", "Comment"];
    print(&render(&rows, &COLUMNS, &shown, args.format.as_deref())?)?;
    Ok(0)
}

/// At most that many characters, the last one `…` if some were cut.
pub(crate) fn shorten(text: &str, length_max: usize) -> String {
    match text.char_indices().nth(length_max) {
        None => text.to_owned(),
        Some(_) => text.chars().take(length_max - 1).chain(['…']).collect(),
    }
}
