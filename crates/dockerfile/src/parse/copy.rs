//! COPY and ADD

use super::flag::{FlagKind, Flags};
use super::instruction::{heredoc_value, word};
use crate::heredoc::parse_mark;
use crate::instruction::{Copy, CopySource};
use crate::node::Node;
use mica_diagnostic::Diagnostic;

pub(super) fn parse_copy(node: &Node, add: bool, problems: &mut Vec<Diagnostic>) -> Option<Copy> {
    let keyword = if add { "ADD" } else { "COPY" };
    let common = [
        ("chown", FlagKind::One),
        ("chmod", FlagKind::One),
        ("link", FlagKind::Switch),
        ("exclude", FlagKind::Many),
    ];
    let own: &[_] = if add {
        &[("checksum", FlagKind::One), ("keep-git-dir", FlagKind::Switch), ("unpack", FlagKind::Switch)]
    } else {
        &[("from", FlagKind::One), ("parents", FlagKind::Switch)]
    };
    let flags = Flags::parse(node, &[&common, own].concat(), problems);
    let from = flags.one("from");
    if let Some(from) = from.as_ref().filter(|from| from.value.contains('$')) {
        problems.push(
            Diagnostic::error(from.span, "variables are not expanded in `--from`")
                .hint("define a stage with `FROM ${VARIABLE} AS name` and use its name"),
        );
    }
    let (destination, sources) = match node.args.split_last() {
        Some((destination, sources)) if !sources.is_empty() => (destination, sources),
        args => {
            let span = args.map_or(node.keyword.span, |(only, _)| only.span);
            let problem = Diagnostic::error(span, format!("{keyword} requires at least two arguments"));
            problems.push(problem.hint(format!("write `{keyword} SOURCE... DESTINATION`")));
            return None;
        }
    };
    if !node.json && parse_mark(&destination.text).is_some() {
        let message = format!("{keyword} cannot have a heredoc as its destination");
        problems.push(Diagnostic::error(destination.span, message));
        return None;
    }
    let sources = sources.iter().map(|source| {
        let mark = if node.json { None } else { parse_mark(&source.text) };
        // Of several with one name the last body counts, as upstream.
        let body = mark.and_then(|mark| node.heredocs.iter().rfind(|heredoc| heredoc.name == mark.name));
        match body {
            Some(heredoc) => CopySource::Heredoc(heredoc_value(heredoc)),
            None => CopySource::Path(word(source)),
        }
    });
    Some(Copy {
        add,
        from,
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.switch("link").unwrap_or(false),
        parents: flags.switch("parents").unwrap_or(false),
        excludes: flags.many("exclude"),
        checksum: flags.one("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        sources: sources.collect(),
        destination: word(destination),
    })
}
