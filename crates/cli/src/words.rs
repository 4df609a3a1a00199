//! The words of the command line, as docker reads them: where that is not how clap does.
//!
//! Flags that are on or off take a value after `=` (`--push=${PUSH}`), every one of them; what is wrong is told with the
//! usage of the command that was meant, in one line.

use std::ffi::OsString;

use clap::builder::ValueParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command};

/// What Go takes for true, and for false.
const TRUE: [&str; 6] = ["1", "t", "T", "TRUE", "true", "True"];
const FALSE: [&str; 6] = ["0", "f", "F", "FALSE", "false", "False"];

/// Reads words, the program's name among them.
pub(crate) fn parse(command: Command, words: &[OsString]) -> Result<ArgMatches, clap::Error> {
    // Only where it matters, as help would show a value for every flag.
    let command = match words.iter().any(gives_boolean) {
        true => with_boolean_values(command),
        false => command,
    };
    command.try_get_matches_from(words)
}

/// A Go boolean.
fn parse_boolean(text: &str) -> Result<bool, String> {
    match (TRUE.contains(&text), FALSE.contains(&text)) {
        (true, _) => Ok(true),
        (_, true) => Ok(false),
        _ => Err("neither `true` nor `false`".to_owned()),
    }
}

fn gives_boolean(word: &OsString) -> bool {
    let word = word.to_string_lossy();
    word.starts_with('-') && word.split_once('=').is_some_and(|(_, value)| parse_boolean(value).is_ok())
}

/// The same command, whose flags and its subcommands' take values.
fn with_boolean_values(command: Command) -> Command {
    command.mut_args(with_boolean_value).mut_subcommands(with_boolean_values)
}

fn with_boolean_value(arg: Arg) -> Arg {
    let is_boolean = arg.get_value_parser().type_id() == ValueParser::bool().type_id();
    match arg.get_action() {
        ArgAction::SetTrue => arg
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_name("BOOL")
            .value_parser(parse_boolean),
        // These take a value as they are, though not each of Go's.
        ArgAction::Set if is_boolean => arg.value_parser(parse_boolean),
        _ => arg,
    }
}

/// The names of the command that is meant: of `-D container run -it x`, `container` and `run`.
pub(crate) fn command_path(command: &Command, words: &[OsString]) -> Vec<String> {
    let mut path = Vec::new();
    let mut command = command;
    let mut words = words.iter().skip(1).map(|word| word.to_string_lossy());
    while let Some(word) = words.next() {
        if word.starts_with('-') && word.len() > 1 {
            if takes_next(command, &word) {
                words.next();
            }
            continue;
        }
        let Some(found) = command.find_subcommand(word.as_ref()) else { break };
        path.push(found.get_name().to_owned());
        command = found;
    }
    path
}

/// Whether the word after this flag is its value.
fn takes_next(command: &Command, flag: &str) -> bool {
    let find = |wanted: &dyn Fn(&Arg) -> bool| {
        let found = command.get_arguments().find(|arg| wanted(arg));
        found.is_some_and(|arg| arg.get_action().takes_values() && !arg.is_require_equals_set())
    };
    match flag.strip_prefix("--") {
        Some(long) => find(&|arg| arg.get_long() == Some(long)),
        None => {
            let mut shorts = flag.chars().skip(1);
            let takes = |short: char| find(&|arg: &Arg| arg.get_short() == Some(short));
            // Of `-Dl`, the last one; of `-ldebug`, what follows is the value.
            shorts.find(|&short| takes(short)).is_some() && shorts.next().is_none()
        }
    }
}

/// The error as it is shown. clap would list all flags that could stand beside those that were given.
pub(crate) fn with_short_usage(mut error: clap::Error, mut command: Command, path: &[String]) -> clap::Error {
    if error.get(ContextKind::Usage).is_none() {
        return error;
    }
    command.build();
    let mut meant = &mut command;
    for name in path {
        match meant.find_subcommand_mut(name) {
            Some(found) => meant = found,
            None => return error,
        }
    }
    error.insert(ContextKind::Usage, ContextValue::StyledStr(meant.render_usage()));
    error
}

/// docker's code for a line that makes no sense: scripts tell the engine's failures from the program's by it.
pub(crate) fn usage_code(path: &[String]) -> u8 {
    match path.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["run" | "create"] | ["container", "run" | "create"] => 125,
        _ => 2,
    }
}

#[cfg(test)]
mod tests;
