//! Problems in text that people wrote: where, what, and what to do.
//!
//! Here: a named source text with places in it, one problem as data, and the rendering of problems for people. Not
//! here: what can be wrong (rooms `dockerfile` and `plan`), exit codes and the choice of colour (`cli`).
//!
//! Nouns: a [`Source`] is a named text; a [`Span`] is a range of its bytes; a [`Diagnostic`] is one problem: severity,
//! message, span, notes (facts), hint (advice).
//!
//! Invariants
//! 1. Every message can be understood without colour: severity is a word, the place is a line of carets.
//! 2. What is rendered holds no control character but newlines and, if asked for, our own colours, whatever the source
//!    holds; a hostile Dockerfile cannot move the cursor or reverse the text.
//! 3. What is rendered is bounded: long lines are cut around the span, long spans after a few lines.
//! 4. Any span may be given, also one that is out of bounds; it is clamped.
//!
//! Everything is pure. Start at [`diagnostic::Diagnostic`], then [`render::render`]. Tested by tables of whole outputs
//! and by property tests of 2 to 4 in `tests/render.rs`.

pub mod diagnostic;
pub mod render;
pub mod span;

pub use diagnostic::{Diagnostic, Severity};
pub use render::render;
pub use span::{Source, Span};
