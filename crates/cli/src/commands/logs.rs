//! `mica logs`: what a container has said.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::time::Duration;

use clap::Args;
use jiff::Timestamp;
use mica_container::{LogEntry, find_container, log_path};
use mica_store::Store;
use mica_sys::error::ErrorAt;

use crate::commands::run::explain;
use crate::error::CliError;
use crate::session::Session;

/// How often a followed log is looked at.
const FOLLOW_PAUSE: Duration = Duration::from_millis(50);

/// Fetch the logs of a container
#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only so many lines from the end, or `all`
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Show when each line came
    #[arg(short, long)]
    timestamps: bool,
    /// Only lines since then: RFC 3339, seconds since 1970, or how long ago (`10m`)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines until then
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// Container
    container: String,
}

/// `mica logs`.
pub(crate) fn logs(session: &Session, args: &LogsArgs) -> Result<u8, CliError> {
    let store = Store::open(&session.root)?;
    let made = find_container(&store, &args.container).map_err(|error| explain(error).code(1))?;
    let bounds = (
        args.since.as_deref().map(parse_time).transpose()?,
        args.until.as_deref().map(parse_time).transpose()?,
    );
    let path = log_path(&made.container);
    let mut reader = match File::open(&path) {
        Ok(file) => BufReader::new(file),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if made.settings.log {
                return Ok(0);
            }
            return Err(CliError::new(
                "the output of this container is not kept (`--rm` in the foreground, or `--log-driver none`)",
            ));
        }
        Err(error) => return Err(mica_sys::Error::new("open", path, error).into()),
    };
    let count_max = args.tail.parse::<usize>().ok();
    let mut line = Vec::new();
    let mut kept = std::collections::VecDeque::new();
    while read_entry(&mut reader, &mut line).at("read", &path)? {
        if let Some(entry) = parse_entry(&mut line).filter(|entry| is_within(entry, bounds)) {
            kept.push_back(entry);
            if count_max.is_some_and(|max| kept.len() > max) {
                kept.pop_front();
            }
        }
    }
    for entry in &kept {
        if !show(entry, args.timestamps) {
            return Ok(0);
        }
    }
    if !args.follow {
        return Ok(0);
    }
    loop {
        // Asked first: what was written before the end is still read after it.
        let is_over = !mica_sys::lock::is_held(made.container.lock_path())?;
        while read_entry(&mut reader, &mut line).at("read", &path)? {
            if let Some(entry) = parse_entry(&mut line).filter(|entry| is_within(entry, bounds))
                && !show(&entry, args.timestamps)
            {
                return Ok(0);
            }
        }
        if is_over {
            return Ok(0);
        }
        std::thread::sleep(FOLLOW_PAUSE);
    }
}

/// Reads on in a line; `true` when it is whole.
fn read_entry(reader: &mut BufReader<File>, line: &mut Vec<u8>) -> std::io::Result<bool> {
    reader.read_until(b'\n', line)?;
    Ok(line.ends_with(b"\n"))
}

/// A line cut off by a full disk is left out.
fn parse_entry(line: &mut Vec<u8>) -> Option<LogEntry> {
    let entry = serde_json::from_slice(line).ok();
    line.clear();
    entry
}

fn is_within(entry: &LogEntry, (since, until): (Option<Timestamp>, Option<Timestamp>)) -> bool {
    if since.is_none() && until.is_none() {
        return true;
    }
    let Ok(time) = entry.time.parse::<Timestamp>() else { return true };
    since.is_none_or(|since| time >= since) && until.is_none_or(|until| time <= until)
}

/// `false` when nobody reads it any more.
fn show(entry: &LogEntry, timestamps: bool) -> bool {
    let text = if timestamps { format!("{} {}", entry.time, entry.log) } else { entry.log.clone() };
    let result = match entry.stream.as_str() {
        "stderr" => std::io::stderr().write_all(text.as_bytes()),
        _ => std::io::stdout().write_all(text.as_bytes()).and_then(|()| std::io::stdout().flush()),
    };
    result.is_ok()
}

fn parse_time(text: &str) -> Result<Timestamp, CliError> {
    if let Ok(time) = text.parse::<Timestamp>() {
        return Ok(time);
    }
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok(Timestamp::from_millisecond((seconds * 1000.0) as i64)?);
    }
    if let Ok(span) = text.parse::<jiff::SignedDuration>() {
        return Ok(Timestamp::now().checked_sub(span)?);
    }
    if let Ok(date) = text.parse::<jiff::civil::DateTime>() {
        return Ok(date.to_zoned(jiff::tz::TimeZone::system())?.timestamp());
    }
    Err(CliError::new(format!("not a time: `{text}`")))
}
