//! Plans of foreign Dockerfiles against what BuildKit made of them: config, history, and where the errors are.

mod common;

use common::{corpus, corpus_base, options, plan_text};
use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::parse_dockerfile;
use mica_plan::{Graph, PlanOptions};
use serde_json::{Map, Value, json};

#[derive(Default)]
struct Tally {
    passed: usize,
    skipped: usize,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, name: &str, outcome: Result<bool, String>) {
        match outcome {
            Ok(true) => self.passed += 1,
            Ok(false) => self.skipped += 1,
            Err(why) => self.failures.push(format!("{name}: {why}")),
        }
    }

    fn finish(self, what: &str) {
        println!("{what}: {} passed, {} failed, {} skipped", self.passed, self.failures.len(), self.skipped);
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        assert!(self.passed > 0, "nothing was tested");
    }
}

/// The graph's image as the corpus writes it.
fn image_of(graph: &Graph) -> Value {
    let target = &graph.target;
    let history: Vec<Value> = target
        .history
        .iter()
        .map(|entry| {
            let mut value = json!({"comment": entry.comment, "created_by": entry.created_by});
            if entry.empty_layer() {
                value["empty_layer"] = json!(true);
            }
            value
        })
        .collect();
    let mut image = serde_json::to_value(&target.config).expect("a config is JSON");
    if let Some(image) = image.as_object_mut() {
        image.remove("rootfs");
        if !history.is_empty() {
            image.insert("history".to_string(), Value::Array(history));
        }
    }
    image
}

fn difference(actual: &Value, expect: &Value, path: &str) -> Option<String> {
    match (actual, expect) {
        (Value::Object(left), Value::Object(right)) => {
            let keys: Map<String, Value> =
                left.iter().chain(right).map(|(key, _)| (key.clone(), Value::Null)).collect();
            keys.keys().find_map(|key| {
                let missing = Value::Null;
                difference(
                    left.get(key).unwrap_or(&missing),
                    right.get(key).unwrap_or(&missing),
                    &format!("{path}/{key}"),
                )
            })
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => left
            .iter()
            .zip(right)
            .enumerate()
            .find_map(|(at, (left, right))| difference(left, right, &format!("{path}/{at}"))),
        _ => (actual != expect).then(|| format!("{path}:\n   got      {actual}\n   expected {expect}")),
    }
}

fn text_of(errors: &[Diagnostic]) -> String {
    errors.iter().map(|error| error.message.as_str()).collect::<Vec<_>>().join("; ")
}

fn check_case(text: &str, expect: &Value, options: &PlanOptions) -> Result<bool, String> {
    let base = corpus_base();
    let planned = plan_text(text, options, &base);
    if let Some(image) = expect.get("image") {
        let graph = planned.map_err(|errors| format!("refused: {}", text_of(&errors)))?;
        return match difference(&image_of(&graph), image, "") {
            None => Ok(true),
            Some(difference) => Err(difference),
        };
    }
    // A lint rule made an error; not the business of planning.
    let is_lint = expect["convert_error"].as_str().is_some_and(|error| error.starts_with("lint violation"));
    // Some cases have only their lint recorded.
    let has_error =
        ["parse_error", "instr_error", "convert_error"].iter().any(|kind| expect.get(*kind).is_some());
    if is_lint || !has_error {
        return Ok(false);
    }
    let Err(errors) = planned else { return Err(format!("planned, but expected {expect}")) };
    let wants_line = expect.get("instr_error").is_none() && expect.get("parse_error").is_none();
    let places = expect["convert_error_at"].as_array().filter(|places| wants_line && !places.is_empty());
    if let Some(places) = places {
        let source = Source::new("Dockerfile", text);
        let number = |place: &Value, key: &str| place[key].as_u64().unwrap_or_default() as usize;
        let lines: Vec<usize> = errors.iter().map(|error| source.line(error.span.start)).collect();
        let is_there = |line: &usize| {
            places.iter().any(|place| (number(place, "start")..=number(place, "end")).contains(line))
        };
        if !lines.iter().any(is_there) {
            return Err(format!("error at {lines:?} ({}), expected {places:?}", text_of(&errors)));
        }
    }
    Ok(true)
}

#[test]
fn inline_dockerfiles() {
    let Some(path) = corpus("dockerfiles/inline.json") else { return };
    let text = std::fs::read_to_string(path).expect("corpus file is readable");
    let document: Value = serde_json::from_str(&text).expect("corpus file is JSON");
    let mut tally = Tally::default();
    for case in document["cases"].as_array().expect("cases") {
        let (id, text) = (case["id"].as_str().expect("id"), case["text"].as_str().expect("text"));
        tally.add(id, check_case(text, &case["expect"], &options()));
    }
    tally.finish("inline Dockerfiles");
}

#[test]
fn real_dockerfiles() {
    let Some(path) = corpus("dockerfiles/real") else { return };
    let mut tally = Tally::default();
    for folder in std::fs::read_dir(path).expect("corpus folder is readable") {
        let folder = folder.expect("corpus folder is readable").path();
        let text = std::fs::read_to_string(folder.join("Dockerfile")).expect("Dockerfile");
        let expect = std::fs::read_to_string(folder.join("expect.json")).expect("expect.json");
        let expect: Value = serde_json::from_str(&expect).expect("expect.json is JSON");
        tally.add(&folder.display().to_string(), check_case(&text, &expect, &options()));
    }
    tally.finish("real Dockerfiles");
}

fn check_build(case: &Value) -> Result<bool, String> {
    let file = case["dockerfile"].as_str().unwrap_or("Dockerfile");
    let files = case["files"].as_array().into_iter().flatten();
    let text = files.clone().find(|entry| entry["path"] == file).and_then(|entry| entry["content"].as_str());
    let expect = &case["expect"];
    let (Some(text), Some(true)) = (text, expect["ok"].as_bool()) else { return Ok(false) };
    let pairs = |value: &Value| -> Vec<(String, String)> {
        let pairs = value.as_object().into_iter().flatten();
        pairs.map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_string())).collect()
    };
    let options = PlanOptions {
        build_args: pairs(&case["build_args"]),
        labels: pairs(&case["labels"]),
        target: case["target"].as_str().map(str::to_string),
        ..options()
    };
    let base = corpus_base();
    let graph =
        plan_text(text, &options, &base).map_err(|errors| format!("refused: {}", text_of(&errors)))?;
    let config = serde_json::to_value(&graph.target.config.config).expect("a config is JSON");
    let history: Vec<Value> = graph
        .target
        .history
        .iter()
        .map(|entry| json!({"created_by": entry.created_by, "empty": entry.empty_layer()}))
        .collect();
    let actual = json!({"config": config, "history": history});
    let expect = json!({"config": expect["config"], "history": expect.get("history").cloned().unwrap_or_else(|| json!([]))});
    difference(&actual, &expect, "").map_or(Ok(true), Err)
}

#[test]
fn build_cases() {
    let Some(folder) = corpus("build-cases") else { return };
    for file in ["bk", "moby", "buildah-bud"] {
        let text =
            std::fs::read_to_string(folder.join(format!("{file}.jsonl"))).expect("corpus file is readable");
        let mut tally = Tally::default();
        for line in text.lines() {
            let case: Value = serde_json::from_str(line).expect("a case is JSON");
            tally.add(case["id"].as_str().unwrap_or_default(), check_build(&case));
        }
        tally.finish(&format!("build cases {file}"));
    }
}

/// Whatever the text, planning ends with a graph or with diagnostics whose places are in the text.
#[test]
fn mutilated_dockerfiles_do_not_panic() {
    let Some(path) = corpus("dockerfiles/inline.json") else { return };
    let text = std::fs::read_to_string(path).expect("corpus file is readable");
    let document: Value = serde_json::from_str(&text).expect("corpus file is JSON");
    let base = corpus_base();
    for (number, case) in document["cases"].as_array().expect("cases").iter().enumerate() {
        let text = case["text"].as_str().expect("text");
        // Another part of each text is cut out, the same in every run.
        let (start, length) = (number * 7919 % text.len().max(1), 1 + number % 13);
        let cut: String = text.chars().take(start).chain(text.chars().skip(start + length)).collect();
        let Ok(dockerfile) = parse_dockerfile(Source::new("Dockerfile", &cut)) else { continue };
        if let Err(errors) = mica_plan::plan(&dockerfile, &options(), &|_| Some(&base)) {
            assert!(!errors.is_empty(), "no graph and no reason: {cut}");
            assert!(errors.iter().all(|error| error.span.end <= cut.len()), "{errors:?} in {cut}");
        }
    }
}
