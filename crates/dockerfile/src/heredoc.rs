//! Here-documents: finding their marks in a line, reading their bodies.

use crate::expand::{self, Options};
use crate::line::{LineReader, LogicalLine};
use crate::node::{Node, RawHeredoc};
use mica_diagnostic::{Diagnostic, Span};

/// A word that begins a heredoc: `<<EOF`, `3<<-"EOF"`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mark {
    pub name: String,
    pub expand: bool,
    pub chomp: bool,
    pub file_descriptor: Option<u32>,
}

/// Reads a word as the mark of a heredoc, if it is one.
pub(crate) fn parse_mark(word: &str) -> Option<Mark> {
    let digits = word.find(|c: char| !c.is_ascii_digit())?;
    let (descriptor, rest) = word.split_at(digits);
    let rest = rest.strip_prefix("<<")?;
    let (chomp, delimiter) = match rest.strip_prefix('-') {
        Some(delimiter) => (true, delimiter),
        None => (false, rest),
    };
    let delimiter = delimiter.trim_start();
    if delimiter.contains('<') {
        return None;
    }
    let options = Options { keep_undefined: true, ..Options::default() };
    let raw = Options { keep_quotes: true, ..options };
    let words = expand::expand_words_with(delimiter, '\\', options, &|_| None).ok()?;
    let raw_words = expand::expand_words_with(delimiter, '\\', raw, &|_| None).ok()?;
    let ([name], [raw_name]) = (words.as_slice(), raw_words.as_slice()) else { return None };
    // Escaped quotes stand in both, so a difference means that something was really quoted.
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    let expand = quotes(name) == quotes(raw_name);
    let name = name.clone();
    Some(Mark { name, expand, chomp, file_descriptor: descriptor.parse().ok() })
}

/// All marks of a line.
pub(crate) fn marks(line: &str) -> Vec<Mark> {
    if !line.contains("<<") {
        return Vec::new();
    }
    let options =
        Options { keep_quotes: true, keep_escapes: true, keep_undefined: true, ignore_quotes: false };
    // A line that does not lex (an open quote) has no heredocs; the shell will complain about it.
    let words = expand::expand_words_with(line, '\\', options, &|_| None).unwrap_or_default();
    words.iter().filter_map(|word| parse_mark(word)).collect()
}

/// Whether the instruction (or its trigger) may be followed by bodies.
fn takes_heredocs(node: &Node) -> bool {
    let node = match &node.trigger {
        Some(trigger) if node.keyword.text.eq_ignore_ascii_case("ONBUILD") => trigger,
        _ => node,
    };
    ["ADD", "COPY", "RUN"].iter().any(|keyword| node.keyword.text.eq_ignore_ascii_case(keyword)) && !node.json
}

/// Reads the bodies that belong to `node`.
pub(crate) fn read_bodies(
    reader: &mut LineReader<'_>,
    line: &LogicalLine,
    node: &mut Node,
) -> Result<(), Diagnostic> {
    if !takes_heredocs(node) {
        return Ok(());
    }
    for mark in marks(&line.text) {
        let start = reader.position();
        let (content, end) = read_body(reader, &mark).ok_or_else(|| {
            let at = line.text.find("<<").unwrap_or_default();
            let word =
                line.text.get(at..).and_then(|rest| rest.split_whitespace().next()).unwrap_or_default();
            Diagnostic::error(
                line.span(at, at + word.len()),
                format!("unterminated heredoc: no line `{}`", mark.name),
            )
            .hint(format!("end it with a line that holds nothing but `{}`", mark.name))
        })?;
        node.span.end = node.span.end.max(end);
        node.heredocs.push(RawHeredoc {
            span: Span::new(start, start + content.len()),
            name: mark.name,
            content,
            expand: mark.expand,
            chomp: mark.chomp,
            file_descriptor: mark.file_descriptor,
        });
    }
    Ok(())
}

/// Steps over bodies behind a line that is not understood, so that they are not taken for instructions.
pub(crate) fn skip_bodies(reader: &mut LineReader<'_>, line: &LogicalLine) {
    for mark in marks(&line.text) {
        let start = reader.position();
        if read_body(reader, &mark).is_none() {
            reader.seek(start);
            return;
        }
    }
}

/// The body, and where its last line ends.
fn read_body(reader: &mut LineReader<'_>, mark: &Mark) -> Option<(String, usize)> {
    let mut content = String::new();
    while let Some(line) = reader.next_physical() {
        let candidate = if mark.chomp { line.text.trim_start_matches('\t') } else { line.text };
        if candidate == mark.name {
            return Some((content, line.start + line.text.len()));
        }
        content.push_str(line.raw);
    }
    None
}

/// A body without the tabs that lines begin with.
pub(crate) fn chomp(content: &str) -> String {
    content.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}
