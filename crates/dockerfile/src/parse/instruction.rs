//! All instructions but those that have a file of their own.

use super::flag::Flags;
use super::{copy, healthcheck, parse_node_kind, run};
use crate::heredoc::chomp;
use crate::instruction::{Command, Heredoc, InstructionKind, KeyValue, Word};
use crate::node::{Node, Piece, RawHeredoc};
use mica_diagnostic::{Diagnostic, Span};

pub(super) fn word(piece: &Piece) -> Word {
    Word { value: piece.text.clone(), span: piece.span }
}

/// Exec form from JSON, otherwise shell form.
pub(super) fn command(args: &[Piece], json: bool) -> Command {
    let mut texts = args.iter().map(|arg| arg.text.clone());
    if json { Command::Exec(texts.collect()) } else { Command::Shell(texts.next().unwrap_or_default()) }
}

pub(super) fn heredoc_value(raw: &RawHeredoc) -> Heredoc {
    Heredoc {
        name: raw.name.clone(),
        content: if raw.chomp { chomp(&raw.content) } else { raw.content.clone() },
        expand: raw.expand,
        chomp: raw.chomp,
        file_descriptor: raw.file_descriptor,
        span: raw.span,
    }
}

pub(super) fn parse_instruction(
    keyword: &str,
    node: &Node,
    problems: &mut Vec<Diagnostic>,
) -> Option<InstructionKind> {
    match keyword {
        "ADD" | "COPY" => {
            return copy::parse_copy(node, keyword == "ADD", problems).map(InstructionKind::Copy);
        }
        "RUN" => return Some(InstructionKind::Run(run::parse_run(node, problems))),
        "HEALTHCHECK" => {
            return healthcheck::parse_healthcheck(node, problems).map(InstructionKind::Healthcheck);
        }
        _ => {}
    }
    Flags::parse(node, &[], problems);
    let needs_args = !matches!(keyword, "CMD" | "ENTRYPOINT");
    if needs_args && node.args.is_empty() && node.trigger.is_none() {
        let many = matches!(keyword, "ARG" | "ENV" | "EXPOSE" | "LABEL" | "ONBUILD" | "SHELL" | "VOLUME");
        let number = if many { "at least" } else { "exactly" };
        let message = format!("{keyword} requires {number} one argument");
        problems.push(Diagnostic::error(node.keyword.span, message));
        return None;
    }
    let first = || node.args.first().map(word);
    Some(match keyword {
        "CMD" => InstructionKind::Cmd(command(&node.args, node.json)),
        "ENTRYPOINT" => InstructionKind::Entrypoint(command(&node.args, node.json)),
        "ENV" => InstructionKind::Env(parse_pairs(keyword, node, problems)?),
        "LABEL" => InstructionKind::Label(parse_pairs(keyword, node, problems)?),
        "ARG" => InstructionKind::Arg(parse_arg(node, problems)?),
        "EXPOSE" => InstructionKind::Expose(node.args.iter().map(word).collect()),
        "MAINTAINER" => InstructionKind::Maintainer(first()?.value),
        "ONBUILD" => InstructionKind::Onbuild(parse_onbuild(node, problems)?),
        "SHELL" if node.json => {
            InstructionKind::Shell(node.args.iter().map(|arg| arg.text.clone()).collect())
        }
        "SHELL" => {
            let problem = Diagnostic::error(node.rest.span, "SHELL must be a JSON array");
            problems.push(problem.hint("write `SHELL [\"/bin/sh\", \"-c\"]`, with double quotes"));
            return None;
        }
        "STOPSIGNAL" => InstructionKind::Stopsignal(first()?),
        "USER" => InstructionKind::User(first()?),
        "VOLUME" => InstructionKind::Volume(parse_volume(node, problems)?),
        "WORKDIR" => InstructionKind::Workdir(first()?),
        _ => return None,
    })
}

fn blank_name(keyword: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, format!("{keyword} names cannot be blank")).hint("write a name before `=`")
}

fn parse_pairs(keyword: &str, node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Vec<KeyValue>> {
    let mut pairs = Vec::new();
    for triple in node.args.chunks_exact(3) {
        let [key, value, _] = triple else { continue };
        if key.text.is_empty() {
            let span = Span::new(key.span.start, value.span.end.max(key.span.end));
            problems.push(blank_name(keyword, span));
            return None;
        }
        pairs.push(KeyValue { key: word(key), value: Some(word(value)) });
    }
    Some(pairs)
}

fn parse_arg(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Vec<KeyValue>> {
    let mut args = Vec::new();
    for arg in &node.args {
        let (key, value) = match arg.text.split_once('=') {
            Some((key, value)) => (key, Some(value)),
            None => (arg.text.as_str(), None),
        };
        if key.is_empty() {
            problems.push(blank_name("ARG", arg.span));
            return None;
        }
        let key_end = (arg.span.start + key.len()).min(arg.span.end);
        let value_start = (key_end + 1).min(arg.span.end);
        args.push(KeyValue {
            key: Word { value: key.to_owned(), span: Span::new(arg.span.start, key_end) },
            value: value
                .map(|value| Word { value: value.to_owned(), span: Span::new(value_start, arg.span.end) }),
        });
    }
    Some(args)
}

fn parse_volume(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Vec<Word>> {
    let mut volumes = Vec::new();
    for arg in &node.args {
        let value = arg.text.trim();
        if value.is_empty() {
            problems.push(Diagnostic::error(arg.span, "VOLUME cannot be an empty string"));
            return None;
        }
        volumes.push(Word { value: value.to_owned(), span: arg.span });
    }
    Some(volumes)
}

/// Instructions that make no sense as a trigger.
pub(super) fn check_trigger(keyword: &Piece) -> Option<Diagnostic> {
    let name = keyword.text.to_ascii_uppercase();
    let message = match name.as_str() {
        "ONBUILD" => "ONBUILD cannot trigger another ONBUILD".to_owned(),
        "FROM" | "MAINTAINER" => format!("{name} is not allowed as an ONBUILD trigger"),
        _ => return None,
    };
    Some(Diagnostic::error(keyword.span, message))
}

fn parse_onbuild(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<String> {
    let trigger = node.trigger.as_deref()?;
    if let Some(problem) = check_trigger(&trigger.keyword) {
        problems.push(problem);
        return None;
    }
    let mut trigger = trigger.clone();
    trigger.heredocs.clone_from(&node.heredocs);
    parse_node_kind(&trigger, problems)?;
    let mut text = trigger.text;
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.content);
        text.push_str(&heredoc.name);
    }
    Some(text)
}
