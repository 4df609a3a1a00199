//! `--filter key=value`, as several commands have it.

use crate::error::CliError;
use crate::format::ago::parse_until;

/// Takes a filter apart.
pub(crate) fn split(filter: &str) -> Result<(&str, &str), CliError> {
    filter
        .split_once('=')
        .map(|(key, value)| (key.trim(), value.trim()))
        .ok_or_else(|| CliError::new(format!("invalid filter `{filter}`")).hint("write `--filter KEY=VALUE`"))
}

/// A filter that the command does not have.
pub(crate) fn unknown(filter: &str, known: &str) -> CliError {
    CliError::new(format!("invalid filter `{filter}`")).hint(format!("there are: {known}"))
}

/// `name` or `name=value` of a label.
pub(crate) fn label(value: &str) -> (String, Option<String>) {
    match value.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (value.to_owned(), None),
    }
}

/// The time of `until=`, in seconds since 1970.
pub(crate) fn until(value: &str) -> Result<i64, CliError> {
    parse_until(value).ok_or_else(|| {
        CliError::new(format!("invalid time `{value}`")).hint("write a time, or how long ago: `until=24h`")
    })
}

/// `true` or `false`, also as numbers.
pub(crate) fn boolean(filter: &str, value: &str) -> Result<bool, CliError> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(CliError::new(format!("invalid filter `{filter}`")).hint("`true` or `false` is meant")),
    }
}
