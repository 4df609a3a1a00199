//! `mica inputs`: what the steps of an image used.

use mica_build::{BuildReport, StepReport};
use mica_store::Store;
use mica_trace::Record;

use crate::commands::build::ExplainFormat;
use crate::commands::build_report;
use crate::error::CliError;
use crate::format::inputs::{InputKind, Tree, json, lines, summary};
use crate::format::output::print;
use crate::progress::printable;
use crate::session::Session;

/// Flags of `mica inputs`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only what was used so; may be given several times
    #[arg(long, value_name = "KIND")]
    kind: Vec<InputKind>,
    /// How it is told
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: ExplainFormat,
    /// The image
    image: String,
    /// One step: its number as in `[3/5]`, its line as `:12`, or a part of its name
    step: Option<String>,
}

/// Lists what was used.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let store = session.read_store()?;
    let report = build_report::read(&store, &args.image)?;
    let steps = build_report::choose(&report, args.step.as_deref())?;
    let only_one = args.step.is_some();
    let mut objects = Vec::new();
    for (position, step) in steps.iter().enumerate() {
        let record = match read_record(&store, &report, step) {
            Err(error) if only_one => return Err(error),
            record => record,
        };
        match (args.format, record) {
            (ExplainFormat::Json, Ok(record)) => {
                objects.extend(trees(step, &record).flat_map(|tree| json(&step.name, &tree, &args.kind)));
            }
            (ExplainFormat::Json, Err(error)) => {
                eprintln!("warning: {}", error.message);
            }
            (ExplainFormat::Text, Ok(record)) => {
                let sum = summary(&record, step.network);
                let list: String = trees(step, &record).map(|tree| lines(&tree, &args.kind)).collect();
                match only_one {
                    // Of one step the list is all of the data.
                    true => {
                        print(&list)?;
                        eprintln!("{sum}");
                    }
                    false => print(&format!("{}{}\n{sum}\n{list}", gap(position), printable(&step.name)))?,
                }
            }
            (ExplainFormat::Text, Err(error)) => {
                print(&format!("{}{}\n{}\n", gap(position), printable(&step.name), error.message))?;
            }
        }
    }
    if args.format == ExplainFormat::Json {
        let objects: Vec<String> = objects.iter().map(|object| object.to_string()).collect();
        print(&format!("[{}]\n", objects.join(",\n")))?;
    }
    Ok(0)
}

fn gap(position: usize) -> &'static str {
    if position == 0 { "" } else { "\n" }
}

fn trees<'a>(step: &'a StepReport, record: &'a Record) -> impl Iterator<Item = Tree<'a>> {
    record.trees.iter().enumerate().map(|(position, uses)| {
        // A tree without a name is shown all the same.
        let unnamed = if position == 0 { "" } else { "a bind mount" };
        Tree { place: step.trees.get(position).map_or(unnamed, String::as_str), uses }
    })
}

fn read_record(store: &Store, report: &BuildReport, step: &StepReport) -> Result<Record, CliError> {
    let name = printable(&step.name);
    let again = || format!("`mica build --no-cache` records it; `mica why` tells of line {}", step.line);
    let Some(id) = step.record else {
        return Err(CliError::new(format!("what `{name}` used is not recorded"))
            .hint("`--cache=exact` and `# mica: exact` record nothing, nor does a step that uses more than 500,000 paths; \
                   `mica info` says whether steps can be traced here at all"));
    };
    let Some(bytes) = store.step_inputs(id)? else {
        let what =
            format!("the record of what `{name}` used is gone: newer ones took its place, or it was pruned");
        return Err(CliError::new(what).hint(again()));
    };
    Record::decode(&bytes).map_err(|error| {
        let file = printable(&report.dockerfile);
        CliError::new(format!(
            "the record of what `{name}` ({file}:{}) used is not readable: {error}",
            step.line
        ))
        .hint(again())
    })
}
