//! `--progress=rawjson`: one JSON object a line, in the shape of BuildKit's `SolveStatus`, for programs that watch a build.
//!
//! A *vertex* is a step or something else that takes time. Its digest is a name and no more: that of its name and place.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mica_build::{Event, PlannedStep, StepInput};
use mica_image::{LayerState, TransferEvent};
use mica_oci::Digest;
use serde::Serialize;

use crate::format::verdict;

/// The line of one event.
#[derive(Debug, Default, Serialize)]
struct Status {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vertexes: Vec<Vertex>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    statuses: Vec<VertexStatus>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    logs: Vec<Log>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<Warning>,
}

#[derive(Debug, Default, Clone, Serialize)]
struct Vertex {
    digest: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inputs: Vec<String>,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cached: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    error: String,
}

#[derive(Debug, Default, Serialize)]
struct VertexStatus {
    id: String,
    vertex: String,
    #[serde(skip_serializing_if = "is_zero")]
    total: u64,
    current: u64,
    timestamp: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    started: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    completed: Option<String>,
}

#[derive(Debug, Serialize)]
struct Log {
    vertex: String,
    /// 1 is standard output; a step's two streams are one here.
    stream: u8,
    data: String,
    timestamp: String,
}

#[derive(Debug, Serialize)]
struct Warning {
    #[serde(skip_serializing_if = "String::is_empty")]
    vertex: String,
    level: u8,
    short: String,
}

/// Writes warnings that are known when the build is over.
pub(crate) fn warn(messages: &[String]) {
    let warning =
        |message: &String| Warning { vertex: String::new(), level: 1, short: STANDARD.encode(message) };
    let status = Status { warnings: messages.iter().map(warning).collect(), ..Status::default() };
    if let Ok(line) = serde_json::to_string(&status) {
        eprintln!("{line}");
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is in the store now: digests of manifests and configs, that of the index, names.
struct Stored<'a> {
    images: &'a [(String, String)],
    index: Option<&'a str>,
    names: &'a [String],
}

/// Remembers the vertexes that have begun.
#[derive(Default)]
pub(crate) struct Raw {
    steps: Vec<Vertex>,
    bases: Vec<(Vertex, Vec<Layer>)>,
    planned: Vec<PlannedStep>,
    last: Option<Vertex>,
}

/// A layer on its way: its digest, when it began, what was said last.
struct Layer {
    digest: String,
    started: Option<jiff::Timestamp>,
    /// When its bytes were told last: a line for each piece would be more than what is fetched.
    said: Option<jiff::Timestamp>,
}

/// Time between two lines about one layer's bytes.
const LINE_PERIOD_MS: i64 = 200;

impl Raw {
    /// Writes what happened.
    pub fn tell(&mut self, event: Event) {
        eprint!("{}", self.text(event, jiff::Timestamp::now()));
    }

    /// What happened, as a line, or nothing.
    fn text(&mut self, event: Event, now: jiff::Timestamp) -> String {
        let mut status = Status::default();
        self.take(event, now, &mut status);
        let is_empty = status.vertexes.is_empty()
            && status.statuses.is_empty()
            && status.logs.is_empty()
            && status.warnings.is_empty();
        match serde_json::to_string(&status) {
            Ok(line) if !is_empty => line + "\n",
            _ => String::new(),
        }
    }

    fn take(&mut self, event: Event, now: jiff::Timestamp, status: &mut Status) {
        let time = || Some(now.to_string());
        match event {
            Event::Dockerfile { name, size_bytes } => {
                let vertex =
                    whole(&format!("[internal] load build definition from {name}"), now, Duration::ZERO);
                status.statuses.push(VertexStatus {
                    id: "transferring dockerfile".to_owned(),
                    vertex: vertex.digest.clone(),
                    current: size_bytes,
                    timestamp: now.to_string(),
                    started: time(),
                    completed: time(),
                    ..VertexStatus::default()
                });
                status.vertexes.push(vertex);
            }
            Event::Warning { message } => status.warnings.push(Warning {
                vertex: String::new(),
                level: 1,
                short: STANDARD.encode(message),
            }),
            Event::Base { name } => {
                let vertex = whole(&metadata(&name), now, Duration::ZERO);
                self.bases.push((vertex.clone(), Vec::new()));
                status.vertexes.push(vertex);
            }
            Event::BaseFetch { name } => {
                let vertex = Vertex { started: time(), ..vertex(&metadata(&name)) };
                self.bases.push((vertex.clone(), Vec::new()));
                status.vertexes.push(vertex);
            }
            Event::BaseTransfer { name, event } => self.transfer(&name, event, now, status),
            Event::BaseFetched { name, .. } => self.end_base(&name, String::new(), now, status),
            Event::BaseFailed { name, message } => self.end_base(&name, message, now, status),
            Event::Context { entries, elapsed } => {
                let vertex = whole("[internal] load build context", now, elapsed);
                status.statuses.push(done(&vertex, format!("looked at {entries} entries"), now));
                status.vertexes.push(vertex);
            }
            Event::Planned { names } => {
                let step = |(position, name): (usize, &String)| Vertex {
                    digest: digest(&format!("{position} {name}")),
                    name: name.clone(),
                    ..Vertex::default()
                };
                self.steps = names.iter().enumerate().map(step).collect();
                self.planned.clear();
            }
            Event::Graph { steps } => {
                self.planned = steps;
                for position in 0..self.steps.len() {
                    let inputs = self.inputs(position);
                    if let Some(vertex) = self.steps.get_mut(position) {
                        vertex.inputs = inputs;
                    }
                }
                status.vertexes.extend(self.steps.iter().cloned());
            }
            Event::StepCached { step, verdict } => {
                self.step(step, status, |vertex| {
                    (vertex.started, vertex.completed, vertex.cached) = (time(), time(), true);
                });
                self.remark(step, verdict::sentence(&verdict), now, status);
            }
            Event::StepStarted { step, reason } => {
                self.step(step, status, |vertex| vertex.started = time());
                if let Some(why) = verdict::again(&reason) {
                    self.remark(step, why, now, status);
                }
            }
            Event::StepOutput { step, line, bytes, .. } => match self.steps.get(step) {
                Some(_) if bytes.is_empty() => self.remark(step, line, now, status),
                Some(vertex) => status.logs.push(log(&vertex.digest, &bytes, now)),
                None => {}
            },
            Event::StepFinished { step, .. } => self.step(step, status, |vertex| vertex.completed = time()),
            Event::StepFailed { step, message } => self.step(step, status, |vertex| {
                vertex.started.get_or_insert_with(|| now.to_string());
                (vertex.completed, vertex.error) = (time(), message);
            }),
            Event::StepCancelled { step } => self.step(step, status, |vertex| {
                // BuildKit's own words; its readers look for them.
                (vertex.completed, vertex.error) = (time(), "context canceled".to_owned());
            }),
            Event::Exported { manifest, config, names, elapsed } => {
                let images = [(manifest, config)];
                let stored = Stored { images: &images, index: None, names: &names };
                self.export(&stored, elapsed, now, status);
            }
            Event::ExportedIndex { images, index, names, elapsed } => {
                let stored = Stored { images: &images, index: Some(&index), names: &names };
                self.export(&stored, elapsed, now, status);
            }
            Event::ExportStarted { name } => {
                let vertex = Vertex { started: time(), ..vertex(&name) };
                self.last = Some(vertex.clone());
                status.vertexes.push(vertex);
            }
            Event::ExportStep { what, .. } => {
                if let Some(vertex) = &self.last {
                    status.statuses.push(done(vertex, what, now));
                }
            }
            Event::ExportFinished { .. } => self.end_export(String::new(), now, status),
            Event::ExportFailed { message } => self.end_export(message, now, status),
            Event::StepResult { .. } => {}
        }
    }

    fn export(&mut self, stored: &Stored<'_>, elapsed: Duration, now: jiff::Timestamp, status: &mut Status) {
        let vertex = whole("exporting to image", now, elapsed);
        for (manifest, config) in stored.images {
            status.statuses.push(done(&vertex, format!("exporting manifest {manifest}"), now));
            status.statuses.push(done(&vertex, format!("exporting config {config}"), now));
        }
        let index = stored.index.map(|index| format!("exporting manifest list {index}"));
        let names = stored.names.iter().map(|name| format!("naming to {name}"));
        status.statuses.extend(index.into_iter().chain(names).map(|what| done(&vertex, what, now)));
        self.last = Some(vertex.clone());
        status.vertexes.push(vertex);
    }

    fn end_export(&mut self, error: String, now: jiff::Timestamp, status: &mut Status) {
        if let Some(vertex) = &mut self.last {
            (vertex.completed, vertex.error) = (Some(now.to_string()), error);
            status.vertexes.push(vertex.clone());
        }
    }

    /// What mica says of a step. A log would be taken for what its program wrote.
    fn remark(&self, step: usize, what: String, now: jiff::Timestamp, status: &mut Status) {
        status.statuses.extend(self.steps.get(step).map(|vertex| done(vertex, what, now)));
    }

    fn step(&mut self, step: usize, status: &mut Status, change: impl FnOnce(&mut Vertex)) {
        if let Some(vertex) = self.steps.get_mut(step) {
            change(vertex);
            status.vertexes.push(vertex.clone());
        }
    }

    /// Digests of what a step waits for.
    fn inputs(&self, step: usize) -> Vec<String> {
        let inputs = self.planned.get(step).map(|step| step.inputs.as_slice()).unwrap_or_default();
        let digest_of = |input: &StepInput| match input {
            StepInput::Step(step) => self.steps.get(*step).map(|vertex| vertex.digest.clone()),
            StepInput::Image(name) => Some(digest(&metadata(name))),
            StepInput::Context => Some(digest("[internal] load build context")),
            StepInput::NamedContext(name) => Some(digest(&format!("[context {name}]"))),
        };
        inputs.iter().filter_map(digest_of).collect()
    }

    fn transfer(&mut self, name: &str, event: TransferEvent, now: jiff::Timestamp, status: &mut Status) {
        let name = metadata(name);
        let Some((vertex, layers)) = self.bases.iter_mut().rev().find(|(vertex, _)| vertex.name == name)
        else {
            return;
        };
        match event {
            TransferEvent::Layers(digests) => {
                let layer = |digest: &Digest| Layer { digest: digest.to_string(), started: None, said: None };
                *layers = digests.iter().map(layer).collect();
            }
            TransferEvent::Layer { position, state } => {
                let Some(layer) = layers.get_mut(position) else { return };
                let (id, current, total, completed) = match state {
                    LayerState::Downloading(done, all) => (layer.digest.clone(), done, all, None),
                    LayerState::DownloadComplete => (layer.digest.clone(), 0, 0, Some(now.to_string())),
                    LayerState::Extracting(done, all) => {
                        (format!("extracting {}", layer.digest), done, all, None)
                    }
                    LayerState::PullComplete => {
                        (format!("extracting {}", layer.digest), 0, 0, Some(now.to_string()))
                    }
                    _ => return,
                };
                let is_early = layer
                    .said
                    .is_some_and(|said| now.as_millisecond() - said.as_millisecond() < LINE_PERIOD_MS);
                if completed.is_none() && current != 0 && is_early {
                    return;
                }
                layer.said = Some(now);
                let started = Some(layer.started.get_or_insert(now).to_string());
                let (vertex, timestamp) = (vertex.digest.clone(), now.to_string());
                status.statuses.push(VertexStatus {
                    id,
                    vertex,
                    total,
                    current,
                    timestamp,
                    started,
                    completed,
                });
            }
            TransferEvent::Warning(message) => status.warnings.push(Warning {
                vertex: vertex.digest.clone(),
                level: 1,
                short: STANDARD.encode(message),
            }),
        }
    }

    fn end_base(&mut self, name: &str, error: String, now: jiff::Timestamp, status: &mut Status) {
        let name = metadata(name);
        if let Some((vertex, _)) = self.bases.iter_mut().rev().find(|(vertex, _)| vertex.name == name) {
            (vertex.completed, vertex.error) = (Some(now.to_string()), error);
            status.vertexes.push(vertex.clone());
        }
    }
}

fn metadata(name: &str) -> String {
    format!("[internal] load metadata for {name}")
}

fn digest(name: &str) -> String {
    Digest::sha256(name.as_bytes()).to_string()
}

fn vertex(name: &str) -> Vertex {
    Vertex { digest: digest(name), name: name.to_owned(), ..Vertex::default() }
}

/// One that is told of when it is over.
fn whole(name: &str, now: jiff::Timestamp, elapsed: Duration) -> Vertex {
    let started = now.checked_sub(elapsed).unwrap_or(now);
    Vertex { started: Some(started.to_string()), completed: Some(now.to_string()), ..vertex(name) }
}

fn done(vertex: &Vertex, id: String, now: jiff::Timestamp) -> VertexStatus {
    VertexStatus {
        id,
        vertex: vertex.digest.clone(),
        timestamp: now.to_string(),
        started: vertex.started.clone(),
        completed: Some(now.to_string()),
        ..VertexStatus::default()
    }
}

fn log(vertex: &str, bytes: &[u8], now: jiff::Timestamp) -> Log {
    Log { vertex: vertex.to_owned(), stream: 1, data: STANDARD.encode(bytes), timestamp: now.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_build::{Reason, Verdict};

    /// Events, and what their lines say: times cut, digests replaced by the names of their vertexes.
    #[track_caller]
    fn check(raw: &mut Raw, event: Event, expect: &str) {
        let now = "2024-01-02T03:04:05Z".parse().expect("a time");
        let mut text = raw.text(event, now).replace("2024-01-02T03:04:05Z", "NOW");
        let mut names = vec![digest("exporting to image"), digest("[internal] load build context")];
        names.extend(raw.steps.iter().map(|vertex| vertex.digest.clone()));
        for (number, digest) in names.iter().enumerate() {
            text = text.replace(digest, &format!("D{number}"));
        }
        assert_eq!(text.trim_end(), expect);
    }

    #[test]
    fn lines_of_a_build() {
        let mut raw = Raw::default();
        let names = ["[1/2] RUN a", "[2/2] COPY b c"].map(str::to_owned).to_vec();
        check(&mut raw, Event::Planned { names }, "");
        let step =
            |inputs: &[StepInput]| PlannedStep { stage: "a".to_owned(), line: 1, inputs: inputs.to_vec() };
        let steps = vec![step(&[]), step(&[StepInput::Step(0), StepInput::Context])];
        check(
            &mut raw,
            Event::Graph { steps },
            r#"{"vertexes":[{"digest":"D2","name":"[1/2] RUN a"},{"digest":"D3","inputs":["D2","D1"],"name":"[2/2] COPY b c"}]}"#,
        );
        check(
            &mut raw,
            Event::StepStarted { step: 0, reason: Reason::First },
            r#"{"vertexes":[{"digest":"D2","name":"[1/2] RUN a","started":"NOW"}]}"#,
        );
        let output = |step: usize, line: &str, bytes: &[u8]| {
            let (line, bytes) = (line.to_owned(), bytes.to_vec());
            Event::StepOutput { step, elapsed: Duration::ZERO, line, bytes }
        };
        check(
            &mut raw,
            output(0, "\"\u{1b}", b"a\r\"\x1b\n"),
            r#"{"logs":[{"vertex":"D2","stream":1,"data":"YQ0iGwo=","timestamp":"NOW"}]}"#,
        );
        // What mica says is no output.
        check(
            &mut raw,
            output(0, "try 2 of 3", b""),
            r#"{"statuses":[{"id":"try 2 of 3","vertex":"D2","current":0,"timestamp":"NOW","started":"NOW","completed":"NOW"}]}"#,
        );
        let reason = Reason::NoCache;
        check(
            &mut raw,
            Event::StepStarted { step: 0, reason },
            r#"{"vertexes":[{"digest":"D2","name":"[1/2] RUN a","started":"NOW"}],"statuses":[{"id":"again: earlier results are not used (`--no-cache` or its filter)","vertex":"D2","current":0,"timestamp":"NOW","started":"NOW","completed":"NOW"}]}"#,
        );
        check(
            &mut raw,
            Event::StepFailed { step: 0, message: "no".to_owned() },
            r#"{"vertexes":[{"digest":"D2","name":"[1/2] RUN a","started":"NOW","completed":"NOW","error":"no"}]}"#,
        );
        let text =
            raw.text(Event::StepCached { step: 1, verdict: Verdict::Chain }, jiff::Timestamp::UNIX_EPOCH);
        assert!(text.contains(r#""completed":"1970-01-01T00:00:00Z","cached":true}"#), "{text}");
        check(
            &mut raw,
            Event::Exported {
                manifest: "m".to_owned(),
                config: "c".to_owned(),
                names: vec!["n:1".to_owned()],
                elapsed: Duration::ZERO,
            },
            r#"{"vertexes":[{"digest":"D0","name":"exporting to image","started":"NOW","completed":"NOW"}],"statuses":[{"id":"exporting manifest m","vertex":"D0","current":0,"timestamp":"NOW","started":"NOW","completed":"NOW"},{"id":"exporting config c","vertex":"D0","current":0,"timestamp":"NOW","started":"NOW","completed":"NOW"},{"id":"naming to n:1","vertex":"D0","current":0,"timestamp":"NOW","started":"NOW","completed":"NOW"}]}"#,
        );
        check(
            &mut raw,
            Event::Warning { message: "w".to_owned() },
            r#"{"warnings":[{"level":1,"short":"dw=="}]}"#,
        );
        check(&mut raw, output(9, "x", b"x\n"), "");
    }
}
