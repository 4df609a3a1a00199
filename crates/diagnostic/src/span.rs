//! Places in a source text.

use std::ops::Range;
use std::sync::Arc;

/// A half-open range of bytes in a [`Source`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}

impl Span {
    /// The bytes `start..end`.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// As a standard range, for slicing.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }
}

/// A named text with fast byte-to-line lookup.
#[derive(Debug, Clone)]
pub struct Source {
    /// Name shown to people (`Dockerfile`, `-`).
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
    line_starts: Arc<[usize]>,
}

impl Source {
    /// A source of that name and text.
    pub fn new(name: &str, text: &str) -> Self {
        let line_starts =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect::<Vec<_>>();
        Self { name: name.into(), text: text.into(), line_starts: line_starts.into() }
    }

    /// The line, counted from 1, that holds the byte at `offset`.
    pub fn line(&self, offset: usize) -> usize {
        self.line_starts.partition_point(|start| *start <= offset).max(1)
    }

    /// The column, counted from 1 in bytes, of the byte at `offset`.
    pub fn column(&self, offset: usize) -> usize {
        offset - self.line_starts[self.line(offset) - 1] + 1
    }

    /// First and last line, counted from 1, that `span` touches.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        (self.line(span.start), self.line(span.end.saturating_sub(1).max(span.start)))
    }

    /// Where a line, counted from 1, begins, and its text without the line end.
    pub fn line_text(&self, line: usize) -> Option<(usize, &str)> {
        let start = *self.line_starts.get(line.checked_sub(1)?)?;
        let end = self.line_starts.get(line).copied().unwrap_or(self.text.len());
        let text = self.text.get(start..end)?;
        Some((start, text.trim_end_matches(['\r', '\n'])))
    }
}
