//! Rules about stages, and about instructions that depend on others of their stage.

use super::{Findings, Rule, is_keyword};
use crate::node::Node;
use std::collections::{HashMap, HashSet};

pub(super) fn check_stages(nodes: &[Node], findings: &mut Findings) {
    let first = nodes.iter().position(|node| is_keyword(node, "FROM")).unwrap_or(nodes.len());
    let nodes = nodes.get(first..).unwrap_or_default();
    check_casing(nodes, findings);
    let mut names = HashSet::new();
    // Stages in which an absolute WORKDIR or a SHELL was seen, for those that stand on them.
    let mut with_workdir: HashSet<String> = HashSet::new();
    let mut with_shell: HashSet<String> = HashSet::new();
    let mut stage = String::new();
    let (mut workdir, mut shell) = (false, false);
    let mut last: HashMap<&str, &Node> = HashMap::new();
    for node in nodes {
        let keyword = node.keyword.text.to_ascii_uppercase();
        match keyword.as_str() {
            "FROM" => {
                check_from(node, &mut names, findings);
                let base = node.args.first().map(|base| base.text.to_lowercase()).unwrap_or_default();
                workdir = with_workdir.contains(&base);
                shell = with_shell.contains(&base);
                stage = node.args.get(2).map(|name| name.text.to_lowercase()).unwrap_or_default();
                last.clear();
            }
            "SHELL" => shell = true,
            "WORKDIR" => {
                let path = node.args.first().map(|path| path.text.as_str()).unwrap_or_default();
                let path = path.trim_matches(['"', '\'']);
                if !workdir && !path.starts_with('/') && !path.contains('$') {
                    let message = format!("relative WORKDIR `{path}` depends on the base image");
                    findings.add(Rule::WorkdirRelativePath, node.span, message, "use an absolute path");
                }
                workdir = true;
            }
            "CMD" | "ENTRYPOINT" | "HEALTHCHECK" => {
                let kind = match keyword.as_str() {
                    "CMD" => "CMD",
                    "ENTRYPOINT" => "ENTRYPOINT",
                    _ => "HEALTHCHECK",
                };
                if let Some(earlier) = last.insert(kind, node) {
                    let message = format!("this {kind} has no effect: a later one replaces it");
                    findings.add(Rule::MultipleInstructionsDisallowed, earlier.span, message, "remove it");
                }
                if kind != "HEALTHCHECK" && !node.json && !node.args.is_empty() && !shell {
                    let message = format!("{kind} in shell form: its process will not get signals");
                    findings.add(Rule::JsonArgsRecommended, node.span, message, "write it as a JSON array");
                }
            }
            _ => {}
        }
        if workdir && !stage.is_empty() {
            with_workdir.insert(stage.clone());
        }
        if shell && !stage.is_empty() {
            with_shell.insert(stage.clone());
        }
    }
}

fn is_lower(text: &str) -> bool {
    text == text.to_lowercase()
}

fn is_upper(text: &str) -> bool {
    text == text.to_uppercase()
}

fn check_casing(nodes: &[Node], findings: &mut Findings) {
    let words = || nodes.iter().map(|node| node.keyword.text.as_str());
    let lower = words().filter(|word| is_lower(word)).count();
    let upper = words().filter(|word| is_upper(word)).count();
    let (wanted, fits): (_, fn(&str) -> bool) =
        if lower > upper { ("lowercase", is_lower) } else { ("uppercase", is_upper) };
    for node in nodes.iter().filter(|node| !fits(&node.keyword.text)) {
        let message = format!("`{}` should be {wanted}, like most instructions here", node.keyword.text);
        findings.add(Rule::ConsistentInstructionCasing, node.keyword.span, message, "write all alike");
    }
}

fn check_from(node: &Node, names: &mut HashSet<String>, findings: &mut Findings) {
    let name = match node.args.as_slice() {
        [_, as_word, name] => {
            let keyword = &node.keyword.text;
            let fits = (!is_lower(keyword) || is_lower(&as_word.text))
                && (!is_upper(keyword) || is_upper(&as_word.text));
            if !fits {
                let message = format!("`{}` and `{keyword}` differ in case", as_word.text);
                findings.add(Rule::FromAsCasing, as_word.span, message, "write both alike");
            }
            Some(name)
        }
        _ => None,
    };
    let lower = name.map(|name| name.text.to_lowercase()).unwrap_or_default();
    if let Some(name) = name {
        if !is_lower(&name.text) {
            let message = format!("stage name `{}` should be lowercase", name.text);
            findings.add(Rule::StageNameCasing, name.span, message, "case means nothing in stage names");
        }
        if matches!(lower.as_str(), "scratch" | "context") {
            let message = format!("stage name `{}` is reserved", name.text);
            findings.add(Rule::ReservedStageName, name.span, message, "choose another name");
        }
        if !names.insert(lower.clone()) {
            let message = format!("duplicate stage name `{}`", name.text);
            findings.add(
                Rule::DuplicateStageName,
                name.span,
                message,
                "only the last one can be referred to",
            );
        }
    }
    for flag in &node.flags {
        let Some(platform) = flag.text.strip_prefix("--platform=") else { continue };
        if matches!(platform, "$TARGETPLATFORM" | "${TARGETPLATFORM}") {
            let message = format!("`--platform={platform}` is the default");
            findings.add(Rule::RedundantTargetPlatform, flag.span, message, "remove the flag");
        } else if !platform.contains('$') && !platform.is_empty() {
            // A stage for one architecture, named for it, is meant.
            let meant =
                platform.split('/').any(|part| !part.is_empty() && lower.contains(&part.to_lowercase()));
            if !meant {
                let message = format!("constant platform `{platform}`");
                let hint = "use `$BUILDPLATFORM`, or choose the platform with `--platform` of the build";
                findings.add(Rule::FromPlatformFlagConstDisallowed, flag.span, message, hint);
            }
        }
    }
}
