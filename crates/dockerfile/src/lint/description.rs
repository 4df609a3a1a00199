//! Comments above FROM and ARG, which say what a stage or an argument is for.

use super::{Findings, Rule, is_keyword};
use crate::node::{Node, Piece};

/// What the comments above say of `name`: the rest of the first that begins with it.
pub fn describes(comments: &[String], name: &str) -> Option<String> {
    let mut told = comments.iter().filter_map(|comment| {
        let rest = comment.strip_prefix(name)?;
        rest.starts_with([' ', '\t']).then(|| rest.trim().to_owned())
    });
    told.next()
}

pub(super) fn check_node(node: &Node, findings: &mut Findings) {
    // What is said to a tool is no description.
    let is_told = |comment: &&String| !["check=", "mica:"].iter().any(|mark| comment.starts_with(mark));
    let Some(comment) = node.comments.iter().rfind(is_told) else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    let (names, example): (Vec<&Piece>, _) = if is_keyword(node, "FROM") {
        let [_, _, name] = node.args.as_slice() else { return };
        (vec![name], name.text.to_lowercase())
    } else if is_keyword(node, "ARG") {
        let Some(only) = node.args.first() else { return };
        let example = if node.args.len() > 1 { "NAME" } else { key(only) };
        (node.args.iter().collect(), example.to_owned())
    } else {
        return;
    };
    if names.iter().any(|name| key(name) == first) {
        return;
    }
    let keyword = node.keyword.text.to_ascii_uppercase();
    let message = format!("the comment above this {keyword} does not describe it");
    let hint = format!("write `# {example} <description>`, or put an empty comment line between");
    findings.add(Rule::InvalidDefinitionDescription, node.span, message, &hint);
}

fn key(arg: &Piece) -> &str {
    arg.text.split('=').next().unwrap_or_default()
}
