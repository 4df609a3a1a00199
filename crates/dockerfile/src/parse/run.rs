//! RUN

use super::flag::{FlagKind, Flags};
use super::instruction::{command, heredoc_value};
use super::mount::parse_literal_mount;
use super::shorten;
use crate::heredoc::parse_mark;
use crate::instruction::{Command, Run, RunNetwork, Spanned};
use crate::node::Node;
use crate::suggest::suggest;
use mica_diagnostic::Diagnostic;

/// More would hide a step that never works.
const RETRIES_MAX: u32 = 100;

pub(super) fn parse_run(node: &Node, problems: &mut Vec<Diagnostic>) -> Run {
    let known = [
        ("mount", FlagKind::Many),
        ("network", FlagKind::One),
        ("security", FlagKind::One),
        ("device", FlagKind::Many),
        ("retry", FlagKind::One),
    ];
    let flags = Flags::parse(node, &known, problems);
    let mut mounts = Vec::new();
    for mount in flags.many("mount") {
        match parse_literal_mount(&mount.value) {
            Ok(value) => mounts.push(Spanned { value, span: mount.span }),
            Err(error) => {
                let problem = Diagnostic::error(mount.span, error.to_string());
                problems.push(match error.hint() {
                    Some(hint) => problem.hint(hint),
                    None => problem,
                });
            }
        }
    }
    let network = flags.one("network").and_then(|word| {
        let value = match word.value.as_str() {
            "default" => RunNetwork::Default,
            "none" => RunNetwork::None,
            "host" => RunNetwork::Host,
            other => {
                let problem =
                    Diagnostic::error(word.span, format!("invalid network mode: `{}`", shorten(other)));
                problems.push(match suggest(other, &["default", "none", "host"]) {
                    Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
                    None => problem.hint("use `default`, `none` or `host`"),
                });
                return None;
            }
        };
        Some(Spanned { value, span: word.span })
    });
    let insecure = flags.one("security").is_some_and(|word| match word.value.as_str() {
        "insecure" => true,
        "sandbox" => false,
        other => {
            let problem =
                Diagnostic::error(word.span, format!("invalid security mode: `{}`", shorten(other)));
            problems.push(problem.hint("use `sandbox` or `insecure`"));
            false
        }
    });
    let retries = flags.one("retry").map_or(0, |word| match word.value.parse::<u32>() {
        Ok(count) if count <= RETRIES_MAX => count,
        _ => {
            let what = format!("invalid number of retries: `{}`", shorten(&word.value));
            problems.push(Diagnostic::error(word.span, what).hint("use a number from 0 to 100"));
            0
        }
    });
    let heredocs = node.heredocs.iter().map(heredoc_value).collect::<Vec<_>>();
    let command = match command(&node.args, node.json) {
        Command::Shell(text) if heredocs.len() == 1 && parse_mark(&text).is_some() => {
            Command::Shell(String::new())
        }
        command => command,
    };
    Run {
        mounts,
        network,
        insecure,
        devices: flags.many("device"),
        retries,
        command,
        heredocs,
        text: node.rest.text.clone(),
    }
}
