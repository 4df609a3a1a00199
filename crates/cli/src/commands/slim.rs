//! `mica slim`: an image that holds only what its commands use.

use std::fmt::Write as _;
use std::time::Duration;

use mica_container::RunOptions;
use mica_oci::Reference;
use mica_slim::{Amount, Ending, Event, HttpCheck, SlimError, SlimRequest, Slimmed, Trial};
use serde_json::json;

use crate::error::CliError;
use crate::format::output::print;
use crate::format::size::human_size;
use crate::progress::{printable, printable_output};
use crate::session::Session;

/// Directories that are listed.
const REMOVED_SHOWN: usize = 10;

/// Flags of `mica slim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run this whole command, which must exit with 0; the image's own runs only with `--http`, `--for` or a COMMAND then
    #[arg(long, value_name = "COMMAND")]
    test: Vec<String>,
    /// The command is a server: stop it once this page answers with a status below 400 (`PORT`, `/PATH`, `PORT/PATH`)
    #[arg(long, value_name = "[PORT][/PATH]", value_parser = HttpCheck::parse)]
    http: Vec<HttpCheck>,
    /// Stop the command after this time (`30s`, `5m`), not before pages have answered
    #[arg(long = "for", value_name = "TIME", value_parser = parse_time)]
    run_for: Option<Duration>,
    /// How long a command may run, or a server may take to answer
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = parse_time)]
    timeout: Duration,
    /// Keep what this absolute path or glob matches, directories with all below
    #[arg(long, value_name = "PATTERN")]
    keep: Vec<String>,
    /// Keep packages whole of which a file is used (dpkg, apk), with the database of these
    #[arg(long)]
    keep_packages: bool,
    /// Keep nothing that is not used or asked for: no licences, certificates, time zones, /etc/passwd, /tmp
    #[arg(long)]
    no_default_keep: bool,
    /// Name of the slim image [default: that of IMAGE with the tag `slim`]
    #[arg(short, long, value_name = "NAME[:TAG]")]
    tag: Option<String>,
    /// Run this instead of the image's ENTRYPOINT
    #[arg(long, value_name = "COMMAND")]
    entrypoint: Option<String>,
    /// Set an environment variable of the commands, not of the image
    #[arg(short, long, value_name = "NAME=VALUE", allow_hyphen_values = true)]
    env: Vec<String>,
    /// Mount a directory of the host or a volume for the commands (`SOURCE:TARGET[:ro]`)
    #[arg(short, long, value_name = "MOUNT")]
    volume: Vec<String>,
    /// Network of the commands: bridge, host or none
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,
    /// Pass on a port of the host to the command, for a client of yours (with `--for`)
    #[arg(short, long, value_name = "PORT")]
    publish: Vec<String>,
    /// `text` or `json`
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: String,
    /// Only show the ID of the slim image
    #[arg(short, long)]
    quiet: bool,
    /// The image, and the command to run in it in place of its CMD
    #[arg(required = true, trailing_var_arg = true, value_name = "IMAGE [COMMAND] [ARGUMENT]")]
    image_and_command: Vec<String>,
}

/// Seconds, or what Go calls a duration.
fn parse_time(text: &str) -> Result<Duration, mica_dockerfile::AgeError> {
    let text = match text.bytes().all(|byte| byte.is_ascii_digit()) && !text.is_empty() {
        true => format!("{text}s"),
        false => text.to_owned(),
    };
    mica_dockerfile::parse_age(&text).map(Duration::from_secs)
}

/// Slims an image.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let is_json = match args.format.as_str() {
        "text" => false,
        "json" => true,
        other => return Err(CliError::new(format!("unknown format: `{other}`")).hint("use `text` or `json`")),
    };
    let Some((image, arguments)) = args.image_and_command.split_first() else {
        return Err(CliError::new("no image given"));
    };
    let store = session.open_store()?;
    mica_container::sweep(&store, session.rootless)?;
    let name = match &args.tag {
        Some(tag) => Reference::parse(tag)?,
        None => mica_slim::default_name(&store, image)?,
    };
    let request = SlimRequest {
        image: image.clone(),
        trials: trials(&args, arguments)?,
        options: RunOptions {
            entrypoint: args.entrypoint.clone(),
            env: args.env.clone(),
            volumes: args.volume.clone(),
            network: args.network.clone(),
            publish: args.publish.clone(),
            ..RunOptions::default()
        },
        keep: args.keep.clone(),
        default_keep: !args.no_default_keep,
        keep_packages: args.keep_packages,
        timeout: args.timeout,
        name,
        rootless: session.rootless,
    };
    let mut tell = |event: Event<'_>| show(event, args.quiet);
    let slimmed = mica_slim::slim(&store, &request, &mut tell).map_err(explain)?;
    print(&match (args.quiet, is_json) {
        (true, _) => format!("{}\n", slimmed.image),
        (false, true) => as_json(&slimmed),
        (false, false) => as_text(&slimmed),
    })?;
    Ok(0)
}

/// The image's own command, unless there are only tests, and the tests.
fn trials(args: &Args, arguments: &[String]) -> Result<Vec<Trial>, CliError> {
    let is_server = !args.http.is_empty() || args.run_for.is_some();
    let mut trials = Vec::new();
    if args.test.is_empty() || is_server || !arguments.is_empty() {
        let ending = match is_server {
            true => Ending::Stopped { checks: args.http.clone(), time: args.run_for.unwrap_or_default() },
            false => Ending::Exit,
        };
        trials.push(Trial { entrypoint: None, arguments: arguments.to_vec(), ending });
    }
    for test in &args.test {
        let mut words = mica_slim::parse_words(test)?.into_iter();
        trials.push(Trial { entrypoint: words.next(), arguments: words.collect(), ending: Ending::Exit });
    }
    Ok(trials)
}

/// What happens goes to stderr; a quiet run tells warnings only.
fn show(event: Event<'_>, quiet: bool) {
    match event {
        Event::Warning { text } => eprintln!("warning: {text}"),
        _ if quiet => {}
        Event::Started { command, on_result } => {
            let place = if on_result { "on the slim image, as a proof" } else { "to see what it uses" };
            eprintln!("Running `{}` {place}", printable(command));
        }
        Event::Output { line } => eprintln!("  {}", printable_output(line)),
        Event::Answered { port, path, status } => {
            eprintln!("Port {port} answered {status} at `{}`", printable(path));
        }
    }
}

fn as_text(slimmed: &Slimmed) -> String {
    let Slimmed { kept, all, removed, .. } = slimmed;
    let percent = kept.bytes as f64 * 100.0 / all.bytes.max(1) as f64;
    let mut text = format!(
        "Kept {} of {} files, {} of {} ({percent:.1}%){}\n",
        grouped(kept.files),
        grouped(all.files),
        human_size(kept.bytes),
        human_size(all.bytes),
        if removed.is_empty() { "" } else { "; gone are:" },
    );
    let sizable = removed.iter().filter(|directory| directory.removed.bytes > 0).count();
    let (shown, rest) = removed.split_at(sizable.min(REMOVED_SHOWN));
    let mut line = |place: &str, amount: Amount| {
        let word = if amount.files == 1 { "file" } else { "files" };
        let (size, files) = (human_size(amount.bytes), grouped(amount.files));
        let _ = writeln!(text, "  {size:>8}  {place}  ({files} {word})");
    };
    for directory in shown {
        line(&printable(&directory.path), directory.removed);
    }
    if !rest.is_empty() {
        let bytes = rest.iter().map(|directory| directory.removed.bytes).sum();
        let files = rest.iter().map(|directory| directory.removed.files).sum();
        line("elsewhere", Amount { files, bytes });
    }
    let _ = writeln!(text, "{}\n{}", slimmed.image, slimmed.name.familiar());
    text
}

fn as_json(slimmed: &Slimmed) -> String {
    let value = json!({
        "ID": slimmed.image.to_string(),
        "Name": slimmed.name.familiar(),
        "Source": slimmed.source.to_string(),
        "KeptFiles": slimmed.kept.files,
        "KeptBytes": slimmed.kept.bytes,
        "AllFiles": slimmed.all.files,
        "AllBytes": slimmed.all.bytes,
        "Removed": slimmed.removed.iter().map(|directory| json!({
            "Path": directory.path,
            "Files": directory.removed.files,
            "Bytes": directory.removed.bytes,
        })).collect::<Vec<_>>(),
    });
    format!("{value}\n")
}

/// `9,841`
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// An error with the output of the command that failed.
fn explain(error: SlimError) -> CliError {
    let SlimError::Failed { output, .. } = &error else { return CliError::from(error) };
    let output = output.iter().map(|line| format!("  {}\n", printable_output(line))).collect::<String>();
    let mut explained = CliError::from(error);
    if !output.is_empty() {
        explained.message = format!("{}\nits last output:\n{}", explained.message, output.trim_end());
    }
    explained
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let check = |number, expect: &str| assert_eq!(grouped(number), expect);
        check(0, "0");
        check(999, "999");
        check(1000, "1,000");
        check(1_234_567, "1,234,567");
    }

    #[test]
    fn times_are_seconds_or_durations() {
        let check = |text: &str, expect: Option<u64>| {
            assert_eq!(parse_time(text).ok().map(|time| time.as_secs()), expect, "{text}");
        };
        check("90", Some(90));
        check("1m30s", Some(90));
        check("0", None);
        check("", None);
        check("x", None);
    }
}
