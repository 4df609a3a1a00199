//! From lines to stages: runs the whole file through, collecting every problem on the way.

mod copy;
mod flag;
mod from;
mod healthcheck;
mod instruction;
mod mount;
mod run;

pub use mount::{MountError, parse_run_mount};

use crate::Dockerfile;
use crate::heredoc;
use crate::instruction::{Instruction, InstructionKind, KeyValue, Spanned, Stage};
use crate::line::{EmptyContinuation, LineReader};
use crate::lint;
use crate::node::{self, Node};
use crate::policy::{self, CachePolicy, Remark};
use crate::suggest::suggest;
use mica_diagnostic::{Diagnostic, Source, Span};

/// More problems than this are not collected: nobody reads them, and a binary file has one in every line.
const PROBLEMS_MAX: usize = 50;

/// All keywords.
pub(crate) const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// The instructions of a text, cut but not understood, with the escape character and the warnings found on the way.
#[derive(Debug, Clone)]
pub struct Nodes {
    /// In order.
    pub nodes: Vec<Node>,
    /// A backslash, or a backtick by directive.
    pub escape: char,
    /// Value of the `check` directive as written, and the place of the line.
    pub check: Option<(String, Span)>,
    /// Empty lines inside of instructions.
    pub empty_continuations: Vec<EmptyContinuation>,
    /// `# mica:` comments that no instruction follows directly.
    pub unattached: Vec<Remark>,
}

/// Cuts a text into instructions. Lines that cannot be cut are problems; the others are still there.
pub fn parse_nodes(source: &Source) -> (Nodes, Vec<Diagnostic>) {
    let mut reader = LineReader::new(source);
    let mut nodes = Vec::new();
    let mut problems = Vec::new();
    while let Some(line) = reader.next_logical() {
        match node::parse_node(&line, reader.escape) {
            Ok(mut node) => {
                // The line may go on behind the last text with comments and blank lines.
                node.span.end = node.span.end.max(line.span.end);
                if let Err(problem) = heredoc::read_bodies(&mut reader, &line, &mut node) {
                    problems.push(problem);
                } else {
                    if !is_keyword(&node.keyword.text) {
                        heredoc::skip_bodies(&mut reader, &line);
                    }
                    nodes.push(node);
                }
            }
            Err(error) => problems.push(Diagnostic::error(error.span(), error.to_string())),
        }
        if problems.len() + reader.problems.len() > PROBLEMS_MAX {
            break;
        }
    }
    problems.append(&mut reader.problems);
    let LineReader { escape, check, empty_continuations, unattached, .. } = reader;
    (Nodes { nodes, escape, check, empty_continuations, unattached }, problems)
}

fn is_keyword(text: &str) -> bool {
    KEYWORDS.iter().any(|keyword| keyword.eq_ignore_ascii_case(text))
}

/// What one node turned out to be.
pub(crate) enum Parsed {
    From(crate::instruction::From),
    Other(InstructionKind),
}

/// Understands one node.
pub(crate) fn parse_node_kind(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<Parsed> {
    let keyword = node.keyword.text.to_ascii_uppercase();
    if keyword == "FROM" {
        return from::parse_from(node, problems).map(Parsed::From);
    }
    if !KEYWORDS.contains(&keyword.as_str()) {
        problems.push(unknown_instruction(node));
        return None;
    }
    instruction::parse_instruction(&keyword, node, problems).map(Parsed::Other)
}

fn unknown_instruction(node: &Node) -> Diagnostic {
    let word = &node.keyword.text;
    let message = if word.is_empty() {
        "no instruction on this line".to_owned()
    } else {
        format!("unknown instruction `{}`", shorten(word))
    };
    let problem = Diagnostic::error(node.keyword.span, message);
    match suggest(word, &KEYWORDS) {
        Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
        None => problem,
    }
}

/// A text that is too long for a message, cut.
pub(crate) fn shorten(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((at, _)) => format!("{}...", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// The problems in order of lines, and what could be read in spite of them: nothing if a FROM is among the unreadable,
/// because instructions would be taken for those of another stage.
pub(crate) fn parse_file(source: Source) -> (Option<Dockerfile>, Vec<Diagnostic>) {
    let (cut, mut problems) = parse_nodes(&source);
    let mut meta_args: Vec<Spanned<KeyValue>> = Vec::new();
    let mut meta_comments = Vec::new();
    let mut stages: Vec<Stage> = Vec::new();
    let mut orphan = None;
    let mut has_from = false;
    let mut from_count = 0;
    let mut remark_warnings = policy::check_unattached(&cut.unattached);
    for node in &cut.nodes {
        if problems.len() > PROBLEMS_MAX {
            break;
        }
        let is_from = node.keyword.text.eq_ignore_ascii_case("FROM");
        has_from |= is_from;
        from_count += usize::from(is_from);
        if !has_from && is_keyword(&node.keyword.text) && !node.keyword.text.eq_ignore_ascii_case("ARG") {
            orphan.get_or_insert(node);
        }
        let policy = policy::of_node(node, &mut remark_warnings);
        match parse_node_kind(node, &mut problems) {
            Some(Parsed::From(from)) => stages.push(Stage {
                from,
                from_span: node.span,
                comments: node.comments.clone(),
                position: stages.len(),
                instructions: Vec::new(),
            }),
            Some(Parsed::Other(kind)) => match (stages.last_mut(), kind) {
                (None, InstructionKind::Arg(args)) => {
                    meta_args.extend(args.into_iter().map(|value| Spanned { value, span: node.span }));
                    meta_comments.push((node.span, node.comments.clone()));
                }
                (Some(stage), kind) => {
                    let text = node.text.clone();
                    let comments = node.comments.clone();
                    stage.instructions.push(Instruction { kind, span: node.span, text, policy, comments });
                }
                (None, _) => {}
            },
            None => {}
        }
    }
    if let Some(node) = orphan {
        let message = format!("{} before the first FROM", node.keyword.text.to_ascii_uppercase());
        let hint = "begin with `FROM image`; only ARG and comments may stand before it";
        problems.push(Diagnostic::error(node.keyword.span, message).hint(hint));
    } else if cut.nodes.is_empty() && problems.is_empty() {
        let problem = Diagnostic::error(Span::default(), "no instructions in this file");
        problems.push(problem.hint("begin with `FROM image`"));
    } else if !has_from && problems.is_empty() {
        let span = cut.nodes.last().map(|node| node.span).unwrap_or_default();
        problems.push(Diagnostic::error(span, "no build stage in this file").hint("add `FROM image`"));
    }
    if let Some((value, span)) = &cut.check {
        problems.extend(lint::unknown_options(value, *span));
    }
    problems.sort_by_key(|problem| problem.span.start);
    problems.truncate(PROBLEMS_MAX);
    let mut warnings = remark_warnings;
    if let Some((value, span)) = &cut.check {
        warnings.extend(lint::unknown_rules(value, *span));
    }
    warnings.sort_by_key(|warning| warning.span.start);
    let is_readable = has_from && stages.len() == from_count;
    let dockerfile = Dockerfile { source, escape: cut.escape, meta_args, meta_comments, stages, warnings };
    (is_readable.then_some(dockerfile), problems)
}

pub(crate) fn parse_single(source: &Source) -> Result<Instruction, Vec<Diagnostic>> {
    let (cut, mut problems) = parse_nodes(source);
    let whole = Span::new(0, source.text.len());
    let mut result = None;
    match cut.nodes.as_slice() {
        [node] => {
            if let Some(problem) = instruction::check_trigger(&node.keyword) {
                problems.push(problem);
            } else if let Some(Parsed::Other(kind)) = parse_node_kind(node, &mut problems) {
                // What an image says of its triggers is for all who build on it; how they cache is theirs to say.
                let policy = CachePolicy::default();
                let (text, comments) = (node.text.clone(), Vec::new());
                result = Some(Instruction { kind, span: node.span, text, policy, comments });
            }
        }
        [] if problems.is_empty() => {
            problems.push(Diagnostic::error(whole, "no instruction in this trigger"))
        }
        [] => {}
        _ => problems.push(Diagnostic::error(whole, "more than one instruction in a trigger")),
    }
    match result {
        Some(instruction) if problems.is_empty() => Ok(instruction),
        _ => {
            problems.sort_by_key(|problem| problem.span.start);
            Err(problems)
        }
    }
}
