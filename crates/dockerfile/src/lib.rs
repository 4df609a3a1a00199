//! The Dockerfile language, and `.dockerignore`: text to values, and nothing else.
//!
//! Here: lines, directives, heredocs, instructions with their flags, stages; the expansion of words; path patterns; the
//! lint rules that need nothing but the text.
//! Not here: what an instruction does to an image or which stages are needed (room `plan`), files (room `context`),
//! how a problem looks (room `diagnostic`).
//!
//! Nouns: a *logical line* is an instruction's text with continuations joined; a [`node::Node`] is a line cut into
//! keyword, *flags* and arguments; an [`instruction::Instruction`] is a node understood; a [`instruction::Stage`] is a FROM and
//! what follows; a *word* is an argument with its quotes and variables still in it; a [`dockerignore::Rule`] is a line of
//! `.dockerignore`; a *remark* is a comment for mica.
//!
//! ```text
//! text --line--> logical lines --node, heredoc--> nodes --parse--> instructions, stages
//!                                                                  words --expand--> text
//!                                                          nodes --lint--> findings
//! ```
//!
//! Invariants
//! 1. Any text gives a tree or a list of problems, never a panic; all problems of a file are told at once, in order.
//! 2. Every span is inside the source and on character boundaries.
//! 3. What BuildKit accepts is accepted, with the same arguments, and what it refuses is refused. Deliberately different:
//!    mount options and ONBUILD triggers are checked when parsed, not when they are used.
//! 4. Work and memory are bounded: line length, nesting of substitutions, length of expanded text, size of patterns and
//!    number of problems have limits that are constants beside the code.
//! 5. Whether a path is ignored is the same asked alone ([`Dockerignore::matches`]) and asked on a walk
//!    ([`Dockerignore::matches_in`]).
//!
//! A comment directly above a RUN, COPY, ADD or WORKDIR says when its earlier result may be used; other builders see a
//! comment and nothing else ([`policy`]):
//!
//! ```text
//! # mica: never            always done again
//! # mica: exact            only on the same layers, as docker has it
//! # mica: ttl=1h30m        no result that is older
//! RUN apt-get update
//! ```
//!
//! Everything is pure: no files, no clock, no environment, no state. Start at [`parse_dockerfile`], then read
//! `parse/mod.rs`. Tested against trees, words and patterns of foreign projects (`tests/parse_corpus.rs`, `expand.rs`,
//! `dockerignore.rs`), by tables of messages and by random text (`problems.rs`).

pub mod dockerignore;
mod duration;
pub mod expand;
mod fields;
pub mod glob;
mod heredoc;
pub mod instruction;
mod line;
pub mod lint;
pub mod node;
mod parse;
pub mod policy;
pub mod suggest;

pub use dockerignore::Dockerignore;
pub use duration::{AgeError, parse_age};
pub use expand::{ExpandError, Expanded, expand_heredoc, expand_word, expand_words};
pub use fields::{FieldsError, split_fields};
pub use glob::{BadPattern, glob_match};
pub use line::EmptyContinuation;
pub use lint::{Checks, Finding, Rule, lint};
pub use parse::{MountError, Nodes, parse_nodes, parse_run_mount};
pub use policy::{CachePolicy, Reuse};

use instruction::{KeyValue, Spanned, Stage};
use mica_diagnostic::{Diagnostic, Source};

/// A parsed Dockerfile.
#[derive(Debug, Clone)]
pub struct Dockerfile {
    /// The text it was parsed from.
    pub source: Source,
    /// The escape character: a backslash, or a backtick by directive.
    pub escape: char,
    /// ARGs before the first FROM, in order.
    pub meta_args: Vec<Spanned<KeyValue>>,
    /// Comment lines above those ARGs, without their `#`, by the place of the instruction.
    pub meta_comments: Vec<(mica_diagnostic::Span, Vec<String>)>,
    /// The stages, at least one.
    pub stages: Vec<Stage>,
    /// Remarks that say nothing. What the rules find is told by [`lint()`].
    pub warnings: Vec<Diagnostic>,
}

/// Parses a whole Dockerfile, or tells all that is wrong with it, in order of lines.
pub fn parse_dockerfile(source: Source) -> Result<Dockerfile, Vec<Diagnostic>> {
    match parse::parse_file(source) {
        (Some(dockerfile), problems) if problems.is_empty() => Ok(dockerfile),
        (_, problems) => Err(problems),
    }
}

/// As [`parse_dockerfile`], with the readable rest beside the problems: further checks of it can tell more that is wrong.
pub fn parse_dockerfile_partially(source: Source) -> (Option<Dockerfile>, Vec<Diagnostic>) {
    parse::parse_file(source)
}

/// Parses the text of an ONBUILD trigger as an instruction of its own.
pub fn parse_trigger(source: Source) -> Result<instruction::Instruction, Vec<Diagnostic>> {
    parse::parse_single(&source)
}
