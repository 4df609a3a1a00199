//! `--name=value` in front of arguments.

use super::shorten;
use crate::instruction::Word;
use crate::node::{Node, Piece};
use crate::suggest::suggest;
use mica_diagnostic::{Diagnostic, Span};

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FlagKind {
    /// `--name`, `--name=true`, `--name=false`
    Switch,
    /// `--name=value`, once.
    One,
    /// `--name=value`, any number of times.
    Many,
}

/// The flags of one instruction that are known and well-formed.
pub(super) struct Flags {
    values: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Checks the node's flags against what its instruction knows.
    pub fn parse(node: &Node, known: &[(&'static str, FlagKind)], problems: &mut Vec<Diagnostic>) -> Self {
        let mut flags = Self { values: Vec::new() };
        for flag in &node.flags {
            let text = flag.text.strip_prefix("--").unwrap_or(&flag.text);
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value)),
                None => (text, None),
            };
            let Some((name, kind)) = known.iter().copied().find(|(known, _)| *known == name) else {
                problems.push(unknown_flag(node, flag, name, known));
                continue;
            };
            if kind != FlagKind::Many && flags.values.iter().any(|(seen, _)| *seen == name) {
                problems.push(Diagnostic::error(flag.span, format!("flag `--{name}` given twice")));
                continue;
            }
            let value = match (kind, value) {
                (FlagKind::Switch, None) => "true".to_owned(),
                (FlagKind::Switch, Some(value))
                    if matches!(value.to_ascii_lowercase().as_str(), "true" | "false") =>
                {
                    value.to_ascii_lowercase()
                }
                (FlagKind::Switch, Some(value)) if !value.is_empty() => {
                    let message =
                        format!("flag `--{name}` must be `true` or `false`, not `{}`", shorten(value));
                    problems.push(Diagnostic::error(flag.span, message));
                    continue;
                }
                (FlagKind::One | FlagKind::Many, Some(value)) => value.to_owned(),
                _ => {
                    let problem = Diagnostic::error(flag.span, format!("missing value of flag `--{name}`"));
                    problems.push(problem.hint(format!("write `--{name}=VALUE`, without blanks")));
                    continue;
                }
            };
            // The value stands at the end of the flag unless it was quoted; then the whole flag is the better place.
            let start = flag.span.end.saturating_sub(value.len());
            let verbatim = flag.span.end - flag.span.start == flag.text.len() && kind != FlagKind::Switch;
            let span = if verbatim { Span::new(start, flag.span.end) } else { flag.span };
            flags.values.push((name, Word { value, span }));
        }
        flags
    }

    /// The flag's value, unless it is absent or empty.
    pub fn one(&self, name: &str) -> Option<Word> {
        let (_, word) = self.values.iter().find(|(known, _)| *known == name)?;
        (!word.value.is_empty()).then(|| word.clone())
    }

    /// All values of the flag.
    pub fn many(&self, name: &str) -> Vec<Word> {
        self.values.iter().filter(|(known, _)| *known == name).map(|(_, word)| word.clone()).collect()
    }

    /// The switch, if it was given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        self.values.iter().find(|(known, _)| *known == name).map(|(_, word)| word.value == "true")
    }
}

fn unknown_flag(node: &Node, flag: &Piece, name: &str, known: &[(&'static str, FlagKind)]) -> Diagnostic {
    let keyword = node.keyword.text.to_ascii_uppercase();
    let problem = Diagnostic::error(flag.span, format!("unknown flag `--{}` of {keyword}", shorten(name)));
    let names = known.iter().map(|(name, _)| *name).collect::<Vec<_>>();
    match suggest(name, &names) {
        Some(meant) => problem.hint(format!("did you mean `--{meant}`?")),
        None if names.is_empty() => problem.hint(format!("{keyword} takes no flags")),
        None => problem.hint(format!("{keyword} knows --{}", names.join(", --"))),
    }
}
