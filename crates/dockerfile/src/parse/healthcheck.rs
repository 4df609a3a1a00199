//! HEALTHCHECK, and durations as Go writes them.

use super::flag::{FlagKind, Flags};
use super::instruction::command;
use super::shorten;
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

/// Go's `time.ParseDuration`: `[-+]` and numbers with units (`1h15m30.5s`), or `0`. In nanoseconds.
pub fn parse_duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    let mut total: i64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let whole_length = rest.find(|c: char| !c.is_ascii_digit())?;
        let (whole, after) = rest.split_at(whole_length);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => after.split_at(after.find(|c: char| !c.is_ascii_digit())?),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let unit_ns: i64 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole = if whole.is_empty() { 0 } else { whole.parse::<i64>().ok()? };
        total = total.checked_add(whole.checked_mul(unit_ns)?)?;
        // More digits than 18 are below a nanosecond of an hour.
        let digits = fraction.get(..fraction.len().min(18)).unwrap_or_default();
        if !digits.is_empty() {
            let scale = 10_i128.pow(u32::try_from(digits.len()).ok()?);
            let part = digits.parse::<i128>().ok()? * i128::from(unit_ns) / scale;
            total = total.checked_add(i64::try_from(part).ok()?)?;
        }
        rest = after;
    }
    Some(if negative { -total } else { total })
}
