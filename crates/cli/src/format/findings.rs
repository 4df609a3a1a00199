//! What the rules find in a Dockerfile, in words.

use std::fmt::Write as _;

use mica_diagnostic::{Source, render};
use mica_dockerfile::Finding;

use crate::progress;

/// Behind a build: docker's list, each line with its place underlined and how to mend it.
pub(crate) fn warnings(findings: &[Finding], source: &Source, color: bool) -> String {
    let mut text = String::new();
    if findings.is_empty() {
        return text;
    }
    let (number, s) = (findings.len(), if findings.len() == 1 { "" } else { "s" });
    let _ = writeln!(text, "\n {number} warning{s} found:");
    for finding in findings {
        let line = source.line(finding.told_at);
        let message = progress::printable(&finding.diagnostic.message);
        let _ = writeln!(text, " - {}: {message} (line {line})", finding.rule.name());
        push_place(&mut text, finding, source, color, "   ");
    }
    text
}

/// What `--check` prints.
pub(crate) fn check(findings: &[Finding], source: &Source, color: bool) -> String {
    let mut text = match findings.len() {
        0 => return "Check complete, no warnings found.\n".to_owned(),
        1 => "Check complete, 1 warning has been found!\n".to_owned(),
        number => format!("Check complete, {number} warnings have been found!\n"),
    };
    for finding in findings {
        let message = progress::printable(&finding.diagnostic.message);
        let _ = writeln!(text, "\nWARNING: {} - {}\n{message}", finding.rule.name(), finding.rule.url());
        push_place(&mut text, finding, source, color, "");
    }
    text
}

/// The lines of a diagnostic but the first, which says what the caller has said.
fn push_place(text: &mut String, finding: &Finding, source: &Source, color: bool, indent: &str) {
    let rendered = render(std::slice::from_ref(&finding.diagnostic), source, color);
    for line in rendered.lines().skip(1) {
        let _ = writeln!(text, "{indent}{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_diagnostic::Span;
    use mica_dockerfile::Rule;

    #[test]
    fn words() {
        let source = Source::new("Dockerfile", "FROM scratch\nMAINTAINER me\n");
        let finding =
            Finding::new(Rule::MaintainerDeprecated, Span::new(13, 23), "it is old", "write a label");
        assert_eq!(warnings(&[], &source, false), "");
        assert_eq!(
            warnings(std::slice::from_ref(&finding), &source, false),
            "\n 1 warning found:\n - MaintainerDeprecated: it is old (line 2)\n     --> Dockerfile:2:1\n    2 | MAINTAINER me\n      | ^^^^^^^^^^\n   hint: write a label\n"
        );
        assert!(
            warnings(&[finding.clone(), finding.clone()], &source, false).starts_with("\n 2 warnings found:")
        );
        assert_eq!(check(&[], &source, false), "Check complete, no warnings found.\n");
        assert_eq!(
            check(&[finding], &source, false),
            "Check complete, 1 warning has been found!\n\nWARNING: MaintainerDeprecated - https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/\nit is old\n  --> Dockerfile:2:1\n 2 | MAINTAINER me\n   | ^^^^^^^^^^\nhint: write a label\n"
        );
    }
}
