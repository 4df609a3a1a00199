//! `mica why`: what the last build of an image did with each of its steps, and for what reason.

use mica_build::BuildReport;

use crate::commands::build::ExplainFormat;
use crate::commands::build_report;
use crate::error::CliError;
use crate::format::output::print;
use crate::format::verdict::explanation;
use crate::session::Session;

/// Flags of `mica why`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// How it is told
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ExplainFormat,
    /// The image
    image: String,
    /// One step: its number as in `[3/5]`, its line as `:12`, or a part of its name
    step: Option<String>,
}

/// Tells why.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let report = build_report::read(&store, &args.image)?;
    let steps = build_report::choose(&report, args.step.as_deref())?;
    match args.format {
        ExplainFormat::Text => print(&explanation(&report, &steps))?,
        ExplainFormat::Json => {
            let steps = steps.into_iter().cloned().collect();
            print_json(&BuildReport { steps, ..report })?;
        }
    }
    Ok(0)
}

/// A report as one JSON document.
pub(crate) fn print_json(report: &BuildReport) -> Result<(), CliError> {
    print(&(serde_json::to_string_pretty(report)? + "\n"))
}
