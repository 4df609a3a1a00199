//! An instruction cut into keyword, flags and arguments, before anyone asks what they mean.

use crate::line::LogicalLine;
use crate::policy::Remark;
use mica_diagnostic::Span;
use std::ops::Range;

/// Deepest `ONBUILD ONBUILD ...` that is cut; one level is all that is ever valid.
const TRIGGER_DEPTH_MAX: usize = 2;

/// A piece of text and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// The text; of flags and JSON strings, unquoted.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// A heredoc as it stands in the source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawHeredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The body with all its tabs.
    pub content: String,
    /// The delimiter was not quoted.
    pub expand: bool,
    /// `<<-`
    pub chomp: bool,
    /// `3<<EOF`
    pub file_descriptor: Option<u32>,
    /// Place of the body.
    pub span: Span,
}

/// An instruction, cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// As written.
    pub keyword: Piece,
    /// `--name=value`, in order.
    pub flags: Vec<Piece>,
    /// What the keyword's grammar makes of the rest. ENV and LABEL: key, value and `=` or nothing, over and over.
    pub args: Vec<Piece>,
    /// The text behind the flags.
    pub rest: Piece,
    /// The arguments were a JSON array.
    pub json: bool,
    /// Bodies in order.
    pub heredocs: Vec<RawHeredoc>,
    /// What ONBUILD holds.
    pub trigger: Option<Box<Node>>,
    /// Comment lines in front of the instruction, without their `#`.
    pub comments: Vec<String>,
    /// `# mica:` comments directly above the instruction; a trigger has none.
    pub remarks: Vec<Remark>,
    /// The logical line without blanks around it.
    pub text: String,
    /// The whole instruction, heredoc bodies included.
    pub span: Span,
}

/// Why a line cannot be cut.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// `["a", 1]`
    #[error("a JSON array of arguments must hold strings only")]
    JsonNotStrings(Span),
    /// `ENV name`
    #[error("{keyword} must have two arguments")]
    NoValue {
        /// The instruction.
        keyword: String,
        /// Its argument.
        span: Span,
    },
    /// `ENV a=b c`
    #[error("no `=` in `{word}`")]
    NoEquals {
        /// The word.
        word: String,
        /// Its place.
        span: Span,
    },
}

impl NodeError {
    /// The piece that is wrong.
    pub fn span(&self) -> Span {
        match self {
            Self::JsonNotStrings(span) | Self::NoValue { span, .. } | Self::NoEquals { span, .. } => *span,
        }
    }
}

/// Cuts a logical line.
pub(crate) fn parse_node(line: &LogicalLine, escape: char) -> Result<Node, NodeError> {
    parse_range(line, 0..line.text.len(), escape, 0)
}

fn is_blank(character: char) -> bool {
    matches!(character, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ')
}

fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or_default();
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

fn piece(line: &LogicalLine, range: Range<usize>) -> Piece {
    let text = line.text.get(range.clone()).unwrap_or_default().to_owned();
    Piece { text, span: line.span(range.start, range.end) }
}

fn parse_range(
    line: &LogicalLine,
    range: Range<usize>,
    escape: char,
    depth: usize,
) -> Result<Node, NodeError> {
    let range = trim(&line.text, range);
    let text = line.text.get(range.clone()).unwrap_or_default();
    let keyword_length = text.find(is_blank).unwrap_or(text.len());
    let keyword = piece(line, range.start..range.start + keyword_length);
    let (flags, rest_start) = parse_flags(line, range.start + keyword_length..range.end);
    let rest_range = trim(&line.text, rest_start..range.end);
    let rest = piece(line, rest_range.clone());
    let mut node = Node {
        span: line.span(range.start, range.end),
        text: text.to_owned(),
        keyword,
        flags,
        args: Vec::new(),
        rest,
        json: false,
        heredocs: Vec::new(),
        trigger: None,
        comments: if depth == 0 { line.comments.clone() } else { Vec::new() },
        remarks: if depth == 0 { line.remarks.clone() } else { Vec::new() },
    };
    match node.keyword.text.to_ascii_uppercase().as_str() {
        "ADD" | "COPY" | "VOLUME" => match parse_json(line, rest_range.clone())? {
            Some(args) => (node.args, node.json) = (args, true),
            None => node.args = split_blanks(line, rest_range),
        },
        "CMD" | "ENTRYPOINT" | "RUN" | "SHELL" => {
            (node.args, node.json) = parse_command(line, rest_range)?;
        }
        "ENV" | "LABEL" => node.args = parse_pairs(line, rest_range, escape, &node.keyword.text)?,
        "ARG" => {
            let words = split_words(&line.text, rest_range, escape);
            node.args = words
                .into_iter()
                .map(|(text, range)| Piece { text, span: line.span(range.start, range.end) })
                .collect();
        }
        "EXPOSE" | "FROM" => node.args = split_blanks(line, rest_range),
        "HEALTHCHECK" => {
            let text = node.rest.text.as_str();
            let length = text.find(char::is_whitespace).unwrap_or(text.len());
            if length > 0 {
                node.args.push(piece(line, rest_range.start..rest_range.start + length));
                let command = trim(&line.text, rest_range.start + length..rest_range.end);
                let (args, json) = parse_command(line, command)?;
                node.args.extend(args);
                node.json = json;
            }
        }
        "MAINTAINER" | "STOPSIGNAL" | "USER" | "WORKDIR" if !rest_range.is_empty() => {
            node.args.push(node.rest.clone());
        }
        "ONBUILD" if depth < TRIGGER_DEPTH_MAX && !rest_range.is_empty() => {
            node.trigger = Some(Box::new(parse_range(line, rest_range, escape, depth + 1)?));
        }
        _ => {}
    }
    Ok(node)
}

/// `--flag` words with quotes and backslashes taken out, and where the rest begins.
fn parse_flags(line: &LogicalLine, range: Range<usize>) -> (Vec<Piece>, usize) {
    let mut flags = Vec::new();
    let mut at = range.start;
    loop {
        at = trim(&line.text, at..range.end).start;
        let text = line.text.get(at..range.end).unwrap_or_default();
        if !text.starts_with("--") {
            return (flags, at);
        }
        let mut word = String::new();
        let mut quote = None;
        let mut length = text.len();
        let mut characters = text.char_indices();
        while let Some((offset, character)) = characters.next() {
            match (quote, character) {
                (None, c) if c.is_whitespace() => {
                    length = offset;
                    break;
                }
                (None, '\'' | '"') => quote = Some(character),
                (Some(open), c) if c == open => quote = None,
                (_, '\\') => word.extend(characters.next().map(|(_, escaped)| escaped)),
                _ => word.push(character),
            }
        }
        let span = line.span(at, at + length);
        at += length;
        if word == "--" {
            return (flags, at);
        }
        flags.push(Piece { text: word, span });
    }
}

fn split_blanks(line: &LogicalLine, range: Range<usize>) -> Vec<Piece> {
    let text = line.text.get(range.clone()).unwrap_or_default();
    let mut pieces = Vec::new();
    let mut start = 0;
    for (at, character) in text.char_indices() {
        if is_blank(character) {
            if at > start {
                pieces.push(piece(line, range.start + start..range.start + at));
            }
            start = at + character.len_utf8();
        }
    }
    if start < text.len() {
        pieces.push(piece(line, range.start + start..range.end));
    }
    pieces
}

/// A JSON array of strings, `None` if it is not a JSON array.
fn parse_json(line: &LogicalLine, range: Range<usize>) -> Result<Option<Vec<Piece>>, NodeError> {
    let text = line.text.get(range.clone()).unwrap_or_default();
    if !text.starts_with('[') {
        return Ok(None);
    }
    let Ok(values) = serde_json::from_str::<Vec<serde_json::Value>>(text) else { return Ok(None) };
    let mut args = Vec::new();
    let mut at = 0;
    for value in values {
        let serde_json::Value::String(value) = value else {
            return Err(NodeError::JsonNotStrings(line.span(range.start, range.end)));
        };
        let (start, end) = next_json_string(text, at);
        at = end;
        args.push(Piece { text: value, span: line.span(range.start + start, range.start + end) });
    }
    Ok(Some(args))
}

/// Where the next string literal of valid JSON stands, quotes included.
fn next_json_string(text: &str, from: usize) -> (usize, usize) {
    let start = text.get(from..).and_then(|rest| rest.find('"')).map_or(text.len(), |at| from + at);
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(start + 1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return (start, at + 1),
            _ => {}
        }
    }
    (start, text.len())
}

fn parse_command(line: &LogicalLine, range: Range<usize>) -> Result<(Vec<Piece>, bool), NodeError> {
    if range.is_empty() {
        return Ok((Vec::new(), false));
    }
    Ok(match parse_json(line, range.clone())? {
        Some(args) => (args, true),
        None => (vec![piece(line, range)], false),
    })
}

/// Words at blanks that are not quoted or escaped; quotes and escapes stay in.
fn split_words(text: &str, range: Range<usize>, escape: char) -> Vec<(String, Range<usize>)> {
    let part = text.get(range.clone()).unwrap_or_default();
    let mut words = Vec::new();
    let mut word = String::new();
    let mut start = None;
    let mut quote = None;
    let mut characters = part.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            if let Some(start) = start.take()
                && !word.is_empty()
            {
                words.push((std::mem::take(&mut word), range.start + start..range.start + at));
            }
            continue;
        }
        start.get_or_insert(at);
        match quote {
            Some(open) if character == open => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            _ => {}
        }
        if character == escape && quote != Some('\'') {
            // An escape at the very end is dropped.
            let Some((_, escaped)) = characters.next() else { break };
            word.push(character);
            word.push(escaped);
        } else {
            word.push(character);
        }
    }
    if let Some(start) = start
        && !word.is_empty()
    {
        words.push((word, range.start + start..range.end));
    }
    words
}

/// `KEY=VALUE ...`, or `KEY rest of the line`.
fn parse_pairs(
    line: &LogicalLine,
    range: Range<usize>,
    escape: char,
    keyword: &str,
) -> Result<Vec<Piece>, NodeError> {
    let words = split_words(&line.text, range.clone(), escape);
    let Some((first, _)) = words.first() else { return Ok(Vec::new()) };
    let mut args = Vec::new();
    if !first.contains('=') {
        let text = line.text.get(range.clone()).unwrap_or_default();
        let Some(length) = text.find(is_blank) else {
            let span = line.span(range.start, range.end);
            return Err(NodeError::NoValue { keyword: keyword.to_ascii_uppercase(), span });
        };
        let after = text.get(length..).unwrap_or_default();
        let value = range.start + length + (after.len() - after.trim_start_matches(is_blank).len());
        args.push(piece(line, range.start..range.start + length));
        args.push(piece(line, value..range.end));
        args.push(Piece { text: String::new(), span: line.span(value, value) });
        return Ok(args);
    }
    for (word, range) in words {
        let Some((key, value)) = word.split_once('=') else {
            let span = line.span(range.start, range.end);
            return Err(NodeError::NoEquals { word, span });
        };
        let equals = range.start + key.len();
        args.push(Piece { text: key.to_owned(), span: line.span(range.start, equals) });
        args.push(Piece { text: value.to_owned(), span: line.span(equals + 1, range.end.max(equals + 1)) });
        args.push(Piece { text: "=".to_owned(), span: line.span(equals, equals + 1) });
    }
    Ok(args)
}
