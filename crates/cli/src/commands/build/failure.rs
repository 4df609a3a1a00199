//! Errors of a build as people see them.

use mica_build::{BaseFailure, BuildError, StepError};
use mica_diagnostic::{Diagnostic, Span};

use crate::advice::Advise;
use crate::advice::registry::is_unreachable;
use crate::error::CliError;
use crate::format::findings;
use crate::progress;

/// A build's error with its lines of the Dockerfile, the step's last output, and advice.
pub(super) fn explain(error: BuildError) -> CliError {
    let (source, diagnostics, output) = match error {
        BuildError::Dockerfile { source_text, diagnostics } => (source_text, diagnostics, None),
        BuildError::Checks { source_text, findings } => {
            let mut rules: Vec<&str> = findings.iter().map(|finding| finding.rule.name()).collect();
            rules.sort_unstable();
            rules.dedup();
            let mut text = findings::warnings(&findings, &source_text, progress::is_color());
            text.push_str(&format!("\nerror: lint violation found for rules: {}", rules.join(", ")));
            let hint = "the Dockerfile wants it so: `error=true` of its `# check=` line";
            return CliError { rendered: true, ..CliError::new(text.trim_start_matches('\n')) }.hint(hint);
        }
        BuildError::Bases { source_text, failures, mut diagnostics } => {
            diagnostics.extend(failures.iter().map(explain_base));
            diagnostics.sort_by_key(|problem| problem.span.start);
            (source_text, diagnostics, None)
        }
        BuildError::Step { source_text, span, name, cause, output } => {
            let output = (!output.is_empty()).then_some((name, output));
            (source_text, vec![explain_step(span, &cause)], output)
        }
        BuildError::Interrupted => {
            return CliError::new(
                "interrupted; what was finished is kept, and the next build goes on from there",
            )
            .code(crate::commands::build::INTERRUPTED);
        }
        error => return CliError::from(error),
    };
    let mut message = String::new();
    if let Some((name, lines)) = output {
        message.push_str(&format!("------\n > {}:\n", progress::printable(&name)));
        for line in lines {
            message.push_str(&progress::printable_output(&line));
            message.push('\n');
        }
        message.push_str("------\n");
    }
    let text = mica_diagnostic::render(&diagnostics, &source, progress::is_color());
    message.push_str(text.trim_end());
    CliError { rendered: true, ..CliError::new(message) }
}

fn explain_base(failure: &BaseFailure) -> Diagnostic {
    let name = &failure.as_written;
    let reason = failure.cause.message();
    let what = match (failure.present_platforms.is_empty(), failure.is_present) {
        (true, true) => format!("base image `{name}` cannot be pulled: {reason}"),
        (true, false) => {
            format!("base image `{name}` is not in the local store, and cannot be pulled: {reason}")
        }
        (false, _) => {
            format!("base image `{name}` for {} cannot be pulled: {reason}", failure.platform)
        }
    };
    let mut diagnostic = Diagnostic::error(failure.span, what);
    if !failure.present_platforms.is_empty() {
        let present = failure.present_platforms.join(", ");
        diagnostic = diagnostic.note(format!("the local store has it for {present}"));
    }
    if let Some(stage) = &failure.meant_stage {
        return diagnostic.hint(format!("did you mean the stage `{stage}`?"));
    }
    let mut hints: Vec<String> = failure.cause.advice().into_iter().collect();
    if failure.is_present {
        hints.push("without `--pull`, the image of the local store is used".to_owned());
    } else if is_unreachable(&failure.cause) {
        hints.push(format!(
            "without a registry: `mica load -i ARCHIVE` or `mica import ROOTFS.tar {name}` brings it in"
        ));
    }
    match hints.is_empty() {
        true => diagnostic,
        false => diagnostic.hint(hints.join("; ")),
    }
}

fn explain_step(span: Span, cause: &StepError) -> Diagnostic {
    match cause {
        StepError::SourceMissing { path, place, span, hidden_by, similar } => {
            let diagnostic = Diagnostic::error(*span, format!("`{path}` is not in {place}"));
            match (hidden_by, similar) {
                (Some(rule), _) => {
                    let (file, line, pattern) = &**rule;
                    diagnostic
                        .note(format!("excluded by `{file}`, line {line}: `{pattern}`"))
                        .hint(format!("add `!{}` to `{file}`", path.trim_start_matches("./")))
                }
                (None, Some(similar)) => diagnostic.hint(format!("did you mean `{similar}`?")),
                (None, None) => diagnostic,
            }
        }
        cause => {
            let mut diagnostic = Diagnostic::error(cause.span().unwrap_or(span), cause.to_string());
            let mut source = std::error::Error::source(cause);
            while let Some(deeper) = source {
                let text = deeper.to_string();
                if !diagnostic.message.contains(&text) {
                    diagnostic = diagnostic.note(text);
                }
                source = deeper.source();
            }
            match cause.advice() {
                Some(hint) => diagnostic.hint(hint),
                None => diagnostic,
            }
        }
    }
}
