//! Logical lines: physical lines with continuations joined and comments taken out, and the way back to the source.

use crate::policy::{self, Remark};
use mica_diagnostic::{Diagnostic, Source, Span};

/// BuildKit's limit for one physical line (the largest token of Go's line scanner).
const LINE_BYTES_MAX: usize = 65_535;

/// An empty line in the middle of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmptyContinuation {
    /// The first of such lines.
    pub blank: Span,
    /// The end of the instruction.
    pub told_at: usize,
}

/// One instruction's text on one line.
#[derive(Debug, Clone)]
pub(crate) struct LogicalLine {
    /// Continuations joined, comment lines removed.
    pub text: String,
    /// Where pieces of `text` begin: offset in `text`, offset in the source; ascending.
    pieces: Vec<(usize, usize)>,
    /// Comment lines in front, without their `#`; an empty comment forgets those before it.
    pub comments: Vec<String>,
    /// `# mica:` comments directly above.
    pub remarks: Vec<Remark>,
    /// First byte of the instruction to the last byte of its last physical line, newline excluded.
    pub span: Span,
}

impl LogicalLine {
    /// The source bytes behind `start..end` of the text.
    pub fn span(&self, start: usize, end: usize) -> Span {
        let end_source =
            if end > start { self.source_offset(end - 1) + 1 } else { self.source_offset(start) };
        let start_source = self.source_offset(start).min(end_source);
        Span::new(start_source.min(self.span.end), end_source.min(self.span.end))
    }

    fn source_offset(&self, offset: usize) -> usize {
        let after = self.pieces.partition_point(|(text_at, _)| *text_at <= offset);
        match after.checked_sub(1).and_then(|at| self.pieces.get(at)) {
            Some((text_at, source_at)) => source_at + (offset - text_at),
            None => self.span.start,
        }
    }
}

/// A physical line: its bytes without and with the newline.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PhysicalLine<'a> {
    pub start: usize,
    /// Without `\n` and `\r`.
    pub text: &'a str,
    /// With them.
    pub raw: &'a str,
}

/// Reads a source line by line, with directives.
pub(crate) struct LineReader<'a> {
    source: &'a Source,
    at: usize,
    pub escape: char,
    directives_done: bool,
    directives_seen: Vec<&'static str>,
    /// Value of the `check` directive, and its place.
    pub check: Option<(String, Span)>,
    pub problems: Vec<Diagnostic>,
    pub empty_continuations: Vec<EmptyContinuation>,
    /// `# mica:` comments that no instruction follows directly.
    pub unattached: Vec<Remark>,
}

impl<'a> LineReader<'a> {
    pub fn new(source: &'a Source) -> Self {
        Self {
            source,
            at: if source.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 },
            escape: '\\',
            directives_done: false,
            directives_seen: Vec::new(),
            check: None,
            problems: Vec::new(),
            empty_continuations: Vec::new(),
            unattached: Vec::new(),
        }
    }

    /// Where the next line begins.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Goes back (or on) to a position that was asked for before.
    pub fn seek(&mut self, position: usize) {
        self.at = position;
    }

    pub fn next_physical(&mut self) -> Option<PhysicalLine<'a>> {
        let rest = self.source.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let raw = rest.get(..length)?;
        let start = self.at;
        self.at += length;
        let text = raw.trim_end_matches(['\r', '\n']);
        if text.len() > LINE_BYTES_MAX {
            let message = format!("line of {} bytes is longer than the {LINE_BYTES_MAX} allowed", text.len());
            self.problems.push(Diagnostic::error(Span::new(start, start + text.len()), message));
        }
        Some(PhysicalLine { start, text, raw })
    }

    /// The next instruction's line.
    pub fn next_logical(&mut self) -> Option<LogicalLine> {
        let mut comments: Vec<String> = Vec::new();
        let mut remarks: Vec<Remark> = Vec::new();
        loop {
            let Some(line) = self.next_physical() else {
                self.unattached.append(&mut remarks);
                return None;
            };
            let trimmed = line.text.trim_start();
            let start = line.start + (line.text.len() - trimmed.len());
            let is_directive = self.read_directive(trimmed, start);
            if let Some(comment) = trimmed.strip_prefix('#').filter(|_| !is_directive) {
                match comment.trim() {
                    "" => comments.clear(),
                    comment => comments.push(comment.to_owned()),
                }
                remarks.extend(policy::parse_remark(trimmed, start));
            }
            if trimmed.is_empty() {
                self.unattached.append(&mut remarks);
            }
            let trimmed = if trimmed.starts_with('#') { "" } else { trimmed };
            let (piece, continued) = self.strip_continuation(trimmed);
            if piece.is_empty() && !continued {
                continue;
            }
            let mut logical = LogicalLine {
                text: piece.to_owned(),
                pieces: vec![(0, start)],
                comments: std::mem::take(&mut comments),
                remarks: std::mem::take(&mut remarks),
                span: Span::new(start, start + trimmed.len()),
            };
            let mut blank = None;
            let mut continued = continued;
            while continued {
                let Some(line) = self.next_physical() else { break };
                if line.text.trim_start().starts_with('#') {
                    continue;
                }
                if line.text.trim_start().is_empty() {
                    blank.get_or_insert(Span::new(line.start, line.start + line.text.len()));
                    logical.span.end = line.start + line.text.len();
                    continue;
                }
                let (piece, more) = self.strip_continuation(line.text);
                logical.pieces.push((logical.text.len(), line.start));
                logical.text.push_str(piece);
                logical.span.end = line.start + line.text.len();
                continued = more;
            }
            if let Some(span) = blank {
                let told_at = logical.span.end;
                self.empty_continuations.push(EmptyContinuation { blank: span, told_at });
            }
            return Some(logical);
        }
    }

    /// Cuts a continuation mark off. A doubled mark at the end is an escaped one and continues nothing.
    fn strip_continuation<'t>(&self, line: &'t str) -> (&'t str, bool) {
        let stripped = line.trim_end_matches([' ', '\t']);
        match stripped.strip_suffix(self.escape) {
            Some(before) if !before.ends_with(self.escape) => (before, true),
            _ => (line, false),
        }
    }

    /// `# name=value` lines at the very top; the first line that is none of them ends them.
    /// True if the line was one.
    fn read_directive(&mut self, line: &str, start: usize) -> bool {
        if self.directives_done {
            return false;
        }
        let Some((name, value)) = parse_directive(line) else {
            self.directives_done = true;
            return false;
        };
        let span = Span::new(start, start + line.trim_end().len());
        if self.directives_seen.contains(&name) {
            let message = format!("only one `{name}` parser directive can be used");
            self.problems.push(Diagnostic::error(span, message));
            return true;
        }
        self.directives_seen.push(name);
        if name == "check" {
            self.check = Some((value.to_owned(), span));
        }
        if name == "escape" {
            match value {
                "\\" => self.escape = '\\',
                "`" => self.escape = '`',
                other => self.problems.push(
                    Diagnostic::error(span, format!("invalid escape character: `{other}`"))
                        .hint("use a backslash or a backtick"),
                ),
            }
        }
        true
    }
}

/// Name and value, if the line is a directive that we know.
fn parse_directive(line: &str) -> Option<(&'static str, &str)> {
    let (name, value) = line.strip_prefix('#')?.split_once('=')?;
    let name = name.trim();
    let value = value.trim();
    let known = ["syntax", "escape", "check"].into_iter().find(|known| name.eq_ignore_ascii_case(known))?;
    (!value.is_empty()).then_some((known, value))
}
