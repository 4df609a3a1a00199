//! A diagnostic as text for people.
//!
//! ```text
//! error: unknown instruction `COPPY`
//!   --> Dockerfile:2:1
//!  2 | COPPY a /b
//!    | ^^^^^
//! hint: did you mean `COPY`?
//! ```

use crate::{Diagnostic, Severity, Source, Span};
use std::borrow::Cow;
use std::fmt::Write;

/// Lines of a long span that are shown.
const LINES_SHOWN_MAX: usize = 4;

/// Columns of a source line that are shown. Minified files have lines of megabytes.
const COLUMNS_SHOWN_MAX: usize = 140;

/// Columns kept in front of the span when a line is cut on the left.
const COLUMNS_BEFORE_SPAN: usize = 20;

/// Characters of a message, note or hint that are shown.
const TEXT_LENGTH_MAX: usize = 1000;

const RED: &str = "\x1b[1;31m";
const YELLOW: &str = "\x1b[1;33m";
const BLUE: &str = "\x1b[1;34m";
const CYAN: &str = "\x1b[1;36m";
const BOLD: &str = "\x1b[1m";
const RESET: &str = "\x1b[0m";

/// All diagnostics as text, in the order given, an empty line between two. Without `color` there is no escape sequence
/// in it, whatever the source holds.
pub fn render(diagnostics: &[Diagnostic], source: &Source, color: bool) -> String {
    let mut renderer = Renderer { source, color, text: String::new() };
    for (at, diagnostic) in diagnostics.iter().enumerate() {
        if at > 0 {
            renderer.text.push('\n');
        }
        renderer.push_diagnostic(diagnostic);
    }
    renderer.text
}

struct Renderer<'a> {
    source: &'a Source,
    color: bool,
    text: String,
}

impl Renderer<'_> {
    fn paint<'t>(&self, color: &str, text: &'t str) -> Cow<'t, str> {
        if self.color { format!("{color}{text}{RESET}").into() } else { text.into() }
    }

    fn push(&mut self, arguments: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = self.text.write_fmt(arguments);
    }

    fn push_diagnostic(&mut self, diagnostic: &Diagnostic) {
        let (color, label) = match diagnostic.severity {
            Severity::Error => (RED, "error"),
            Severity::Warning => (YELLOW, "warning"),
        };
        let message = format!(": {}", escape(&diagnostic.message));
        self.push(format_args!("{}{}\n", self.paint(color, label), self.paint(BOLD, &message)));
        self.push_source(diagnostic.span, color);
        for note in &diagnostic.notes {
            self.push(format_args!("{}: {}\n", self.paint(CYAN, "note"), escape(note)));
        }
        if let Some(hint) = &diagnostic.hint {
            self.push(format_args!("{}: {}\n", self.paint(CYAN, "hint"), escape(hint)));
        }
    }

    fn push_source(&mut self, span: Span, color: &str) {
        let length = self.source.text.len();
        let start = self.source.text.floor_char_boundary(span.start.min(length));
        let end = self.source.text.ceil_char_boundary(span.end.clamp(start, length));
        let (first, last) = self.source.lines(Span::new(start, end));
        let shown = last.min(first + LINES_SHOWN_MAX - 1);
        let width = shown.to_string().len();
        let arrow = format!("{}-->", " ".repeat(width + 1));
        let column = self.source.column(start);
        let name = escape(&self.source.name);
        self.push(format_args!("{} {name}:{first}:{column}\n", self.paint(BLUE, &arrow)));
        for line in first..=shown {
            let Some((line_start, text)) = self.source.line_text(line) else { break };
            let from = start.saturating_sub(line_start);
            let to = end.saturating_sub(line_start).min(text.len());
            let (shown_text, indent, carets) = window(text, from.min(to), to, line > first);
            let number = format!(" {line:>width$} |");
            let gutter = format!(" {:width$} |", "");
            let separator = if shown_text.is_empty() { "" } else { " " };
            self.push(format_args!("{}{separator}{shown_text}\n", self.paint(BLUE, &number)));
            let marks = "^".repeat(carets);
            self.push(format_args!(
                "{} {}{}\n",
                self.paint(BLUE, &gutter),
                " ".repeat(indent),
                self.paint(color, &marks)
            ));
        }
        if last > shown {
            let dots = format!(" {:width$} ... up to line {last}", "");
            self.push(format_args!("{}\n", self.paint(BLUE, &dots)));
        }
    }
}

/// The part of a line to show, the blanks before the carets, and the number of carets, in columns.
fn window(text: &str, from: usize, to: usize, skip_indent: bool) -> (String, usize, usize) {
    let mut pieces = Vec::new();
    let (mut before, mut under) = (0, 0);
    let mut leading = skip_indent;
    for (at, character) in text.char_indices() {
        let piece = escape_character(character);
        let width = piece.as_ref().map_or_else(|| column_width(character), |piece| piece.chars().count());
        leading &= character.is_whitespace();
        if at < from || (leading && under == 0) {
            before += width;
        } else if at < to {
            under += width;
        }
        pieces.push((piece.unwrap_or_else(|| character.to_string()), width));
        // What is far behind the span is cut anyway; do not look at megabytes of it.
        if at > to
            && before + under > COLUMNS_SHOWN_MAX
            && pieces.len() > text.len().min(before + COLUMNS_SHOWN_MAX)
        {
            break;
        }
    }
    let cut_left = if before + under.min(COLUMNS_SHOWN_MAX / 2) > COLUMNS_SHOWN_MAX {
        before.saturating_sub(COLUMNS_BEFORE_SPAN)
    } else {
        0
    };
    let mut shown = String::new();
    let (mut column, mut skipped, mut used) = (0, 0, 0);
    let mut cut_right = false;
    for (piece, width) in &pieces {
        if column < cut_left {
            column += width;
            skipped = column;
            continue;
        }
        if used + width > COLUMNS_SHOWN_MAX {
            cut_right = true;
            break;
        }
        shown.push_str(piece);
        used += width;
        column += width;
    }
    let mut indent = before.saturating_sub(skipped);
    if skipped > 0 {
        shown.insert_str(0, "...");
        indent += 3;
    }
    let carets = under.min((used + if skipped > 0 { 3 } else { 0 }).saturating_sub(indent)).max(1);
    if cut_right {
        shown.push_str("...");
    }
    (shown.trim_end().to_owned(), indent, carets)
}

/// Text without anything that a terminal would obey.
fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == TEXT_LENGTH_MAX {
            escaped.push_str("...");
            break;
        }
        match escape_character(character) {
            Some(piece) => escaped.push_str(&piece),
            None => escaped.push(character),
        }
    }
    escaped
}

/// How a character is shown, if not as itself: blanks for a tab, a code for what moves the cursor, changes colours or
/// reverses the direction of writing.
fn escape_character(character: char) -> Option<String> {
    match character {
        '\t' => Some("    ".to_owned()),
        '\r' => Some(String::new()),
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}' => {
            Some(character.escape_unicode().to_string())
        }
        c if c.is_control() => Some(c.escape_default().to_string()),
        _ => None,
    }
}

/// Columns of a character in a terminal, near enough to put carets in the right place.
fn column_width(character: char) -> usize {
    match character as u32 {
        0x300..=0x36f => 0,
        0x1100..=0x115f
        | 0x2e80..=0xa4cf
        | 0xac00..=0xd7a3
        | 0xf900..=0xfaff
        | 0xfe30..=0xfe6f
        | 0xff00..=0xff60
        | 0xffe0..=0xffe6
        | 0x1f300..=0x1faff
        | 0x20000..=0x3fffd => 2,
        _ => 1,
    }
}
