//! What comments say about when a step's earlier result may be used.
//!
//! ```text
//! # mica: WORD...            words with blanks or commas between; upper and lower case are the same
//! ```
//!
//! | word | the step |
//! |---|---|
//! | `never` | is always done again |
//! | `exact` | takes over a result only on the same layers, as docker has it |
//! | `ttl=DURATION` | is done again when its result is older: `90s`, `10m`, `1h30m`, `7d` |
//!
//! Such a comment stands directly above a RUN, COPY, ADD or WORKDIR. There may be several, and other comments between
//! them; an empty line parts them from the instruction, as it does for a reader (docker lets comments reach across
//! empty lines, but a comment that changes what is built had better stand where it is seen). Inside an instruction, in a
//! heredoc and in a trigger they are nothing. What cannot be understood is a warning and never an error: to every other
//! builder it is a comment.

use crate::duration::parse_age;
use crate::node::{Node, Piece};
use crate::parse::shorten;
use crate::suggest::suggest;
use mica_diagnostic::{Diagnostic, Span};

/// More warnings than this are not collected: nobody reads them.
const WARNINGS_MAX: usize = 50;

/// What is understood; the last takes a value.
const WORDS: [&str; 3] = ["never", "exact", "ttl"];

const WORDS_HINT: &str = "write `never`, `exact` or `ttl=DURATION`";

const PLACE_HINT: &str = "put it directly above a RUN, COPY, ADD or WORKDIR";

/// When an earlier result of a step may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct CachePolicy {
    /// On which layers.
    pub reuse: Reuse,
    /// Not when it is older.
    pub ttl_seconds: Option<u64>,
}

/// On which layers an earlier result may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reuse {
    /// Where nothing that the step used is different. No comment says it: it is so unless something else is said.
    #[default]
    Precise,
    /// On the same layers only.
    Exact,
    /// On none.
    Never,
}

/// A `# mica:` comment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remark {
    /// What is behind the colon.
    pub words: Piece,
    /// The whole comment.
    pub span: Span,
}

/// Reads a comment, which begins with `#` at `start` of the source, as a remark if it is one.
pub(crate) fn parse_remark(comment: &str, start: usize) -> Option<Remark> {
    let comment = comment.trim_end();
    let (name, words) = comment.strip_prefix('#')?.split_once(':')?;
    if !name.trim().eq_ignore_ascii_case("mica") {
        return None;
    }
    let end = start + comment.len();
    let words = words.trim_start();
    let words = Piece { text: words.to_owned(), span: Span::new(end - words.len(), end) };
    Some(Remark { words, span: Span::new(start, end) })
}

/// Warns of remarks that stand above nothing.
pub(crate) fn check_unattached(remarks: &[Remark]) -> Vec<Diagnostic> {
    let warn = |remark: &Remark| {
        Diagnostic::warning(remark.span, "no instruction follows this comment directly").hint(PLACE_HINT)
    };
    remarks.iter().take(WARNINGS_MAX).map(warn).collect()
}

/// What the remarks above an instruction say; what they cannot mean goes to `warnings`.
pub(crate) fn of_node(node: &Node, warnings: &mut Vec<Diagnostic>) -> CachePolicy {
    let mut reader = Reader { warnings, never: None, exact: None, ttl: None };
    let keyword = node.keyword.text.to_ascii_uppercase();
    let is_step = matches!(keyword.as_str(), "RUN" | "COPY" | "ADD" | "WORKDIR");
    for remark in &node.remarks {
        if is_step {
            reader.read(remark);
        } else {
            let message = format!("a `# mica:` comment means nothing above {}", shorten(&keyword));
            reader.warn(remark.span, message, PLACE_HINT);
        }
    }
    reader.finish()
}

/// Collects the words of one instruction, with where they stand.
struct Reader<'a> {
    warnings: &'a mut Vec<Diagnostic>,
    never: Option<Span>,
    exact: Option<Span>,
    ttl: Option<(u64, Span)>,
}

impl Reader<'_> {
    fn warn(&mut self, span: Span, message: impl Into<String>, hint: &str) {
        if self.warnings.len() < WARNINGS_MAX {
            self.warnings.push(Diagnostic::warning(span, message).hint(hint));
        }
    }

    fn read(&mut self, remark: &Remark) {
        let Piece { text, span } = &remark.words;
        let mut is_empty = true;
        let mut start = 0;
        let is_between = |character: char| character.is_whitespace() || character == ',';
        for part in text.split_inclusive(is_between) {
            let word = part.trim_end_matches(is_between);
            if !word.is_empty() {
                is_empty = false;
                let at = span.start + start;
                self.word(word, Span::new(at, at + word.len()));
            }
            start += part.len();
        }
        if is_empty {
            self.warn(remark.span, "a `# mica:` comment that says nothing", WORDS_HINT);
        }
    }

    fn word(&mut self, word: &str, span: Span) {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (word, None),
        };
        let known = WORDS.iter().find(|known| known.eq_ignore_ascii_case(name));
        match (known.copied(), value) {
            (Some("never"), None) => self.never = Some(span),
            (Some("exact"), None) => self.exact = Some(span),
            (Some("ttl"), Some(value)) => self.time_to_live(value, span),
            (Some("ttl"), None) => self.warn(span, "`ttl` without a duration", "write it like `ttl=1h30m`"),
            (Some(name), _) => {
                self.warn(span, format!("`{name}` takes no value"), &format!("write `{name}`"));
            }
            (None, _) => {
                let hint = match suggest(name, &WORDS) {
                    Some("ttl") => "did you mean `ttl=DURATION`?".to_owned(),
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => WORDS_HINT.to_owned(),
                };
                self.warn(span, format!("unknown word `{}` in a `# mica:` comment", shorten(word)), &hint);
            }
        }
    }

    fn time_to_live(&mut self, value: &str, span: Span) {
        // The value alone: it is what is wrong.
        let value_span = Span::new(span.end - value.len(), span.end);
        match parse_age(value) {
            Ok(seconds) => {
                if self.ttl.is_some() {
                    self.warn(span, "`ttl` given twice", "the shorter one counts: remove the other");
                }
                if self.ttl.is_none_or(|(shortest, _)| seconds < shortest) {
                    self.ttl = Some((seconds, span));
                }
            }
            Err(crate::AgeError::TooShort) => {
                let message = format!("`ttl` cannot be less than a second: `{}`", shorten(value));
                self.warn(value_span, message, "for a step that is always done again write `never`");
            }
            Err(crate::AgeError::NotADuration) => {
                let message = format!("invalid duration of `ttl`: `{}`", shorten(value));
                let hint = "write numbers with units, like `90s`, `10m`, `1h30m` or `7d`";
                self.warn(value_span, message, hint);
            }
        }
    }

    fn finish(mut self) -> CachePolicy {
        let ttl_seconds = self.ttl.map(|(seconds, _)| seconds);
        if self.never.is_none() {
            let reuse = if self.exact.is_some() { Reuse::Exact } else { Reuse::Precise };
            return CachePolicy { reuse, ttl_seconds };
        }
        let idle = [self.exact.map(|span| ("exact", span)), self.ttl.map(|(_, span)| ("ttl", span))];
        for (word, span) in idle.into_iter().flatten() {
            self.warn(span, format!("`{word}` means nothing beside `never`"), "remove one of them");
        }
        CachePolicy { reuse: Reuse::Never, ttl_seconds: None }
    }
}
