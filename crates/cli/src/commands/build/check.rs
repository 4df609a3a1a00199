//! What is told of a Dockerfile instead of building it: mistakes, arguments, targets.

use std::io::IsTerminal as _;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use mica_build::{BuildError, BuildRequest, Inspected};
use mica_diagnostic::{Source, Span};
use mica_dockerfile::Rule;
use mica_dockerfile::lint::describes;
use mica_plan::{Graph, Operation, StepMount};
use serde_json::{Value, json};

use crate::error::CliError;
use crate::format::findings;
use crate::format::output::print;
use crate::format::table::Table;
use crate::progress;
use crate::session::Session;

use super::args::Args;
use super::{failure, fields};

/// `--call`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    Build,
    Check,
    Outline,
    Targets,
}

/// Reads the value of `--call`: a method, and whether it is to answer in JSON.
fn parse_call(text: &str) -> Result<(Method, bool), CliError> {
    let mut method = Method::Build;
    let mut is_json = false;
    for (at, field) in fields::split("--call", text)?.iter().enumerate() {
        let (key, value) = match field.split_once('=') {
            Some(pair) => pair,
            None if at == 0 => ("method", field.as_str()),
            None => return Err(CliError::new(format!("invalid value `{text}` for `--call`: `{field}`"))),
        };
        match (key, value) {
            ("method", "" | "build") => method = Method::Build,
            ("method", "check" | "lint") => method = Method::Check,
            ("method", "outline") => method = Method::Outline,
            ("method", "targets") => method = Method::Targets,
            ("format", "json") => is_json = true,
            ("format", "text") => is_json = false,
            ("method", _) => {
                let what = format!("`--call` knows nothing of `{value}`");
                return Err(CliError::new(what).hint("it takes build, check, outline or targets"));
            }
            _ => {
                let what = format!("invalid value `{text}` for `--call`: `{field}`");
                return Err(CliError::new(what).hint("beside the method there is `format=json`"));
            }
        }
    }
    Ok((method, is_json))
}

/// Does what `--check` or `--call` asks for; `None` when it is a build that was asked for.
pub(super) fn call(args: &Args, request: &BuildRequest, session: &Session) -> Result<Option<u8>, CliError> {
    let (method, is_json) = match (parse_call(&args.call)?, args.check) {
        ((Method::Build | Method::Check, is_json), true) => (Method::Check, is_json),
        (_, true) => return Err(CliError::new("`--check` and another `--call` exclude each other")),
        (call, false) => call,
    };
    if method == Method::Build {
        return Ok(None);
    }
    // A store helps, because base images have variables and triggers; it is not worth making one.
    let store = session.root.is_dir().then(|| session.read_store().ok()).flatten();
    let mut inspected = mica_build::inspect(store.as_ref(), request).map_err(failure::explain)?;
    let source = request.dockerfile.clone();
    if method == Method::Targets {
        let targets = targets(&inspected);
        print(&if is_json { pretty(&targets_json(&targets, &source)) } else { targets_text(&targets) })?;
        return Ok(Some(0));
    }
    let wrong =
        |diagnostics| failure::explain(BuildError::Dockerfile { source_text: source.clone(), diagnostics });
    if method == Method::Check {
        note_unknown_bases(&mut inspected);
        eprint!("{}", mica_diagnostic::render(&inspected.dockerfile.warnings, &source, progress::is_color()));
        let findings = &inspected.findings;
        let is_color =
            std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
        // A file that cannot be built is not told to be without fault.
        if inspected.graph.is_ok() || !findings.is_empty() {
            print(&match is_json {
                true => pretty(&findings_json(&inspected, &source)),
                false => findings::check(findings, &source, is_color),
            })?;
        }
        let code = u8::from(!findings.is_empty());
        inspected.graph.map_err(wrong)?;
        return Ok(Some(code));
    }
    let is_target = |name: &str| request.plan.target.as_deref() == Some(name);
    let targets = targets(&inspected);
    let target = targets.iter().rfind(|target| match &request.plan.target {
        Some(_) => is_target(&target.name) || is_target(&target.position.to_string()),
        None => target.is_default,
    });
    let graph = inspected.graph.as_ref().map_err(|errors| wrong(errors.clone()))?;
    let outline = Outline::of(graph);
    print(&match is_json {
        true => pretty(&outline.json(target, &source)),
        false => outline.text(target),
    })?;
    Ok(Some(0))
}

/// What a base image sets is not known without it.
fn note_unknown_bases(inspected: &mut Inspected) {
    let Some(name) = inspected.unknown_bases.first() else { return };
    let note = format!("`{name}` is not in the local store; what it sets is not known here");
    for finding in inspected.findings.iter_mut().filter(|finding| finding.rule == Rule::UndefinedVar) {
        finding.diagnostic.notes.push(note.clone());
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn encoded(source: &Source) -> Value {
    BASE64_STANDARD.encode(source.text.as_bytes()).into()
}

/// Lines from 1, as BuildKit's documents have them.
fn location(source: &Source, span: Span) -> Value {
    let (first, last) = source.lines(span);
    json!({"ranges": [{"start": {"line": first}, "end": {"line": last}}]})
}

fn findings_json(inspected: &Inspected, source: &Source) -> Value {
    let warnings = inspected.findings.iter().map(|finding| {
        let at = Span::new(finding.told_at, finding.told_at);
        json!({
            "ruleName": finding.rule.name(),
            "description": finding.rule.description(),
            "url": finding.rule.url(),
            "detail": finding.diagnostic.message,
            "hint": finding.diagnostic.hint,
            "location": location(source, at),
        })
    });
    json!({
        "warnings": warnings.collect::<Vec<_>>(),
        "sources": [{"fileName": &*source.name, "language": "Dockerfile", "data": encoded(source)}],
    })
}

/// A stage that can be built.
struct Target {
    name: String,
    position: usize,
    is_default: bool,
    description: Option<String>,
    base: String,
    platform: Option<String>,
    span: Span,
}

fn targets(inspected: &Inspected) -> Vec<Target> {
    let stages = &inspected.dockerfile.stages;
    let target = |stage: &mica_dockerfile::instruction::Stage| {
        let name = stage.from.name.as_ref().map(|name| name.value.clone()).unwrap_or_default();
        Target {
            description: describes(&stage.comments, &name).filter(|_| !name.is_empty()),
            name,
            position: stage.position,
            is_default: stage.position + 1 == stages.len(),
            base: stage.from.base.value.clone(),
            platform: stage.from.platform.as_ref().map(|platform| platform.value.clone()),
            span: stage.from_span,
        }
    };
    stages.iter().map(target).collect()
}

fn targets_text(targets: &[Target]) -> String {
    let mut table = Table::new(&["TARGET", "DESCRIPTION"]);
    for target in targets {
        let name = match (target.name.as_str(), target.is_default) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            ("", false) => target.position.to_string(),
            (name, false) => name.to_owned(),
        };
        table.push(vec![name, target.description.clone().unwrap_or_default()]);
    }
    table.render()
}

fn targets_json(targets: &[Target], source: &Source) -> Value {
    let targets = targets.iter().map(|target| {
        let mut value = json!({"base": target.base, "location": location(source, target.span)});
        let texts = [("name", Some(&target.name)), ("description", target.description.as_ref())];
        for (key, text) in texts.into_iter().chain([("platform", target.platform.as_ref())]) {
            if let Some(text) = text.filter(|text| !text.is_empty()) {
                value[key] = text.as_str().into();
            }
        }
        if target.is_default {
            value["default"] = true.into();
        }
        value
    });
    json!({"targets": targets.collect::<Vec<_>>(), "sources": [encoded(source)]})
}

/// What a target takes from outside.
struct Outline<'a> {
    graph: &'a Graph,
    /// Name, whether it must be there, and the RUN.
    secrets: Vec<(String, bool, Span)>,
    agents: Vec<(String, bool, Span)>,
}

impl<'a> Outline<'a> {
    fn of(graph: &'a Graph) -> Self {
        let mut outline = Self { graph, secrets: Vec::new(), agents: Vec::new() };
        let add = |list: &mut Vec<(String, bool, Span)>, id: &str, required: bool, span| match list
            .iter_mut()
            .find(|(known, ..)| known == id)
        {
            Some((_, known, _)) => *known |= required,
            None => list.push((id.to_owned(), required, span)),
        };
        for step in &graph.steps {
            let Operation::Run(run) = &step.operation else { continue };
            for mount in &run.mounts {
                match mount {
                    StepMount::Secret { id, required, .. } => {
                        add(&mut outline.secrets, id, *required, step.span)
                    }
                    StepMount::Ssh { id, required, .. } => add(&mut outline.agents, id, *required, step.span),
                    _ => {}
                }
            }
        }
        outline
    }

    fn text(&self, target: Option<&Target>) -> String {
        let mut parts = Vec::new();
        let mut head = String::new();
        if let Some(target) = target {
            for (label, text) in
                [("TARGET:", Some(&target.name)), ("DESCRIPTION:", target.description.as_ref())]
            {
                if let Some(text) = text.filter(|text| !text.is_empty()) {
                    head.push_str(&format!("{label:15}{text}\n"));
                }
            }
        }
        parts.push(head);
        if !self.graph.args.is_empty() {
            let mut table = Table::new(&["BUILD ARG", "VALUE", "DESCRIPTION"]);
            for arg in &self.graph.args {
                let text = |text: &Option<String>| text.clone().unwrap_or_default();
                table.push(vec![arg.name.clone(), text(&arg.value), text(&arg.description)]);
            }
            parts.push(table.render());
        }
        for (label, list) in [("SECRET", &self.secrets), ("SSH", &self.agents)] {
            if !list.is_empty() {
                let mut table = Table::new(&[label, "REQUIRED"]);
                for (id, required, _) in list {
                    table.push(vec![id.clone(), if *required { "true".to_owned() } else { String::new() }]);
                }
                parts.push(table.render());
            }
        }
        parts.retain(|part| !part.is_empty());
        let lines = parts.join("\n");
        // Cells at the end of a row may be empty.
        lines.lines().map(|line| format!("{}\n", line.trim_end())).collect()
    }

    fn json(&self, target: Option<&Target>, source: &Source) -> Value {
        let mut value = json!({"sources": [encoded(source)]});
        let mut set = |key: &str, one: Value| match &one {
            Value::Null => {}
            Value::String(text) if text.is_empty() => {}
            Value::Array(all) if all.is_empty() => {}
            _ => value[key] = one,
        };
        if let Some(target) = target {
            set("name", target.name.as_str().into());
            set("description", target.description.clone().into());
        }
        let args = self.graph.args.iter().map(|arg| {
            let mut value = json!({"name": arg.name, "location": location(source, arg.span)});
            for (key, text) in [("value", &arg.value), ("description", &arg.description)] {
                if let Some(text) = text {
                    value[key] = text.as_str().into();
                }
            }
            value
        });
        set("args", args.collect());
        for (key, list) in [("secrets", &self.secrets), ("ssh", &self.agents)] {
            let list = list.iter().map(|(id, required, span)| {
                let mut value = json!({"name": id, "location": location(source, *span)});
                if *required {
                    value["required"] = true.into();
                }
                value
            });
            set(key, list.collect());
        }
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let check = |text: &str, expect: (Method, bool)| {
            assert_eq!(parse_call(text).unwrap(), expect, "{text}");
        };
        check("build", (Method::Build, false));
        check("check", (Method::Check, false));
        check("outline,format=json", (Method::Outline, true));
        check("format=json,method=targets", (Method::Targets, true));
        check("lint,format=text", (Method::Check, false));
        for wrong in ["nonsense", "check,json", "check,format=xml", "check,print=1"] {
            assert!(parse_call(wrong).is_err(), "{wrong}");
        }
    }
}
