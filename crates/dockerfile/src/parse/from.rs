//! FROM

use super::flag::{FlagKind, Flags};
use super::instruction::word;
use super::shorten;
use crate::instruction::{From, Word};
use crate::node::{Node, Piece};
use mica_diagnostic::Diagnostic;

pub(super) fn parse_from(node: &Node, problems: &mut Vec<Diagnostic>) -> Option<From> {
    let flags = Flags::parse(node, &[("platform", FlagKind::One)], problems);
    let (base, name) = match node.args.as_slice() {
        [base] => (base, None),
        [base, as_word, name] if as_word.text.eq_ignore_ascii_case("as") => {
            (base, Some(parse_name(name, problems)?))
        }
        [base, as_word, _] => {
            let span = as_word.span;
            let message = format!("expected `AS` behind the image, found `{}`", shorten(&as_word.text));
            let hint = format!("write `FROM {} AS name`", shorten(&base.text));
            problems.push(Diagnostic::error(span, message).hint(hint));
            return None;
        }
        args => {
            let span = args.first().map_or(node.keyword.span, |_| node.span);
            let problem = Diagnostic::error(span, "FROM requires either one or three arguments");
            problems.push(problem.hint("write `FROM image` or `FROM image AS name`"));
            return None;
        }
    };
    Some(From { platform: flags.one("platform"), base: word(base), name })
}

/// A stage name: a letter, then letters, digits, `-`, `_`, `.`; lower-cased.
fn parse_name(name: &Piece, problems: &mut Vec<Diagnostic>) -> Option<Word> {
    let value = name.text.to_lowercase();
    let valid = value.starts_with(|c: char| c.is_ascii_lowercase())
        && value
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
    if !valid {
        let message = format!("invalid stage name: `{}`", shorten(&name.text));
        let hint = "begin with a letter, then use letters, digits, `-`, `_` and `.` only";
        problems.push(Diagnostic::error(name.span, message).hint(hint));
        return None;
    }
    Some(Word { value, span: name.span })
}
