//! HEALTHCHECK

use super::flag::{FlagKind, Flags};
use super::instruction::command;
use super::shorten;
use crate::duration::parse_duration;
use crate::instruction::{Command, Healthcheck};
use crate::node::Node;
use mica_diagnostic::Diagnostic;

/// Docker's shortest interval; zero means the default.
const DURATION_NS_MIN: i64 = 1_000_000;

pub(super) fn parse_healthcheck(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Healthcheck> {
    let Some((kind, args)) = node.args.split_first() else {
        let problem = Diagnostic::error(node.keyword.span, "HEALTHCHECK requires at least one argument");
        problems.push(problem.hint("write `HEALTHCHECK CMD command` or `HEALTHCHECK NONE`"));
        return None;
    };
    if kind.text.eq_ignore_ascii_case("NONE") {
        if let Some(extra) = args.first() {
            problems.push(Diagnostic::error(extra.span, "HEALTHCHECK NONE takes no arguments"));
            return None;
        }
        return Some(Healthcheck::None);
    }
    let durations = ["interval", "timeout", "start-period", "start-interval"];
    let known = durations.map(|name| (name, FlagKind::One));
    let flags = Flags::parse(node, &[&known[..], &[("retries", FlagKind::One)]].concat(), problems);
    if !kind.text.eq_ignore_ascii_case("CMD") {
        let message = format!("unknown type `{}` of HEALTHCHECK", shorten(&kind.text));
        problems.push(Diagnostic::error(kind.span, message).hint("write `HEALTHCHECK CMD command`"));
        return None;
    }
    let command = match command(args, node.json) {
        Command::Shell(text) if text.is_empty() => None,
        Command::Exec(words) if words.is_empty() => None,
        command => Some(command),
    };
    let Some(command) = command else {
        problems.push(Diagnostic::error(kind.span, "missing command behind HEALTHCHECK CMD"));
        return None;
    };
    let [interval_ns, timeout_ns, start_period_ns, start_interval_ns] = durations.map(|name| {
        let word = flags.one(name)?;
        let problem = match parse_duration(&word.value) {
            Some(0) => return None,
            Some(duration) if duration >= DURATION_NS_MIN => return Some(duration),
            Some(_) => format!("`--{name}` cannot be less than 1ms: `{}`", shorten(&word.value)),
            None => format!("invalid duration of `--{name}`: `{}`", shorten(&word.value)),
        };
        problems.push(
            Diagnostic::error(word.span, problem).hint("write a number and a unit, like `30s` or `1m30s`"),
        );
        None
    });
    let retries = flags.one("retries").and_then(|word| match word.value.parse::<i32>() {
        Ok(retries) if retries >= 0 => Some(retries),
        _ => {
            let message = format!("`--retries` must be a number, zero or more: `{}`", shorten(&word.value));
            problems.push(Diagnostic::error(word.span, message));
            None
        }
    });
    Some(Healthcheck::Check { interval_ns, timeout_ns, start_period_ns, start_interval_ns, retries, command })
}
