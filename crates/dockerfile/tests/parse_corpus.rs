//! The parser against Dockerfiles and trees of the corpus.

mod common;

use mica_diagnostic::Source;
use mica_dockerfile::node::Node;
use mica_dockerfile::{parse_dockerfile, parse_nodes};
use serde_json::{Value, json};

#[derive(Default)]
struct Tally {
    passed: usize,
    failures: Vec<String>,
}

impl Tally {
    fn add(&mut self, id: &str, differences: &[String]) {
        if differences.is_empty() {
            self.passed += 1;
        } else {
            self.failures.push(format!("{id}: {}", differences.join("\n    ")));
        }
    }

    fn finish(self, what: &str) {
        println!("{what}: {} passed, {} failed, 0 skipped", self.passed, self.failures.len());
        assert!(self.failures.is_empty(), "{}", self.failures.join("\n"));
        assert!(self.passed > 0, "no case was run");
    }
}

/// A node as the corpus writes it.
fn node_json(source: &Source, node: &Node) -> Value {
    let texts =
        |pieces: &[mica_dockerfile::node::Piece]| pieces.iter().map(|p| p.text.clone()).collect::<Vec<_>>();
    let (start, end) = source.lines(node.span);
    let mut value = json!({"cmd": node.keyword.text, "args": texts(&node.args), "start": start, "end": end});
    if !node.flags.is_empty() {
        value["flags"] = json!(texts(&node.flags));
    }
    if node.json {
        value["attrs"] = json!({"json": true});
    }
    if !node.comments.is_empty() {
        value["comment"] = json!(node.comments);
    }
    if !node.heredocs.is_empty() {
        let heredocs = node.heredocs.iter().map(|heredoc| {
            json!({"name": heredoc.name, "content": heredoc.content, "expand": heredoc.expand,
                   "chomp": heredoc.chomp, "fd": heredoc.file_descriptor.unwrap_or(0)})
        });
        value["heredocs"] = heredocs.collect();
    }
    if let Some(trigger) = &node.trigger {
        let mut trigger = node_json(source, trigger);
        trigger["start"] = json!(0);
        trigger["end"] = json!(0);
        value["onbuild"] = trigger;
    }
    value
}

fn check(text: &str, expect: &Value) -> Vec<String> {
    let source = Source::new("Dockerfile", text);
    let mut differences = Vec::new();
    let (cut, problems) = parse_nodes(&source);
    if expect.get("parse_error").is_some() == problems.is_empty() {
        differences.push(format!("parse error: got {problems:?}, expected {:?}", expect.get("parse_error")));
    }
    if let Some(nodes) = expect["nodes"].as_array() {
        if nodes.len() != cut.nodes.len() {
            differences.push(format!("{} nodes, expected {}", cut.nodes.len(), nodes.len()));
        }
        for (node, expect) in cut.nodes.iter().zip(nodes) {
            let mut expect = expect.clone();
            let mut got = node_json(&source, node);
            // Upstream leaves the `#` of an indented comment.
            for comments in [&mut got, &mut expect].into_iter().filter_map(|node| node.get_mut("comment")) {
                let plain = |comment: &Value| {
                    json!(comment.as_str().unwrap_or_default().trim_start_matches(['#', ' ']))
                };
                *comments =
                    comments.as_array().map(Vec::as_slice).unwrap_or_default().iter().map(plain).collect();
            }
            if got["args"] == json!([]) && expect["args"] == json!([""]) {
                // Of unknown instructions upstream makes an empty argument.
                got["args"] = json!([""]);
            }
            if got != expect {
                differences.push(format!("got {got}\n    expected {expect}"));
            }
        }
    }
    if let Some(escape) = expect["escape"].as_str()
        && escape != cut.escape.to_string()
    {
        differences.push(format!("escape {}", cut.escape));
    }
    let warned = expect["parser_warnings"].as_array().map_or(0, Vec::len);
    if cut.empty_continuations.len() != warned {
        differences.push(format!("warnings {:?}", cut.empty_continuations));
    }
    let parsed = parse_dockerfile(source.clone());
    // An error of a later phase may be found by the parser already.
    let may_fail = expect.get("convert_error").is_some();
    match (&parsed, expect.get("instr_error").or_else(|| expect.get("parse_error"))) {
        (Ok(_), Some(error)) => differences.push(format!("accepted in spite of {error}")),
        (Err(problems), None) if !may_fail => differences.push(format!("refused: {problems:?}")),
        (Err(problems), error) => {
            let key = if error.is_some() { "instr_error_at" } else { "convert_error_at" };
            let lines = expect[key].as_array().map(Vec::as_slice).unwrap_or_default();
            let lines = lines.iter().filter_map(|range| range["start"].as_u64()).collect::<Vec<_>>();
            let first = problems.first().map(|problem| source.line(problem.span.start) as u64);
            if !lines.is_empty() && !first.is_some_and(|first| lines.contains(&first)) {
                differences.push(format!("error at {first:?}, expected {lines:?}: {problems:?}"));
            }
        }
        (Ok(dockerfile), None) => check_stages(dockerfile, expect, &mut differences),
    }
    differences
}

fn check_stages(dockerfile: &mica_dockerfile::Dockerfile, expect: &Value, differences: &mut Vec<String>) {
    let Some(stages) = expect["stages"].as_array() else { return };
    let got = dockerfile.stages.iter().map(|stage| {
        let text = |word: &Option<mica_dockerfile::instruction::Word>| {
            word.as_ref().map_or("", |w| w.value.as_str()).to_owned()
        };
        (
            stage.from.base.value.clone(),
            text(&stage.from.name),
            text(&stage.from.platform),
            stage.instructions.len(),
        )
    });
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let expected = stages.iter().map(|stage| {
        let commands = stage["commands"].as_array().map_or(0, Vec::len);
        (text(&stage["base"]), text(&stage["name"]), text(&stage["platform"]), commands)
    });
    let (got, expected) = (got.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    if got != expected {
        differences.push(format!("stages {got:?}, expected {expected:?}"));
    }
    let args = expect["meta_args"].as_array().map(Vec::as_slice).unwrap_or_default();
    let args = args.iter().map(|arg| (text(&arg["key"]), arg["value"].as_str().map(str::to_owned)));
    let got = dockerfile.meta_args.iter().map(|arg| &arg.value);
    let got = got.map(|arg| (arg.key.value.clone(), arg.value.as_ref().map(|value| value.value.clone())));
    let (got, expected) = (got.collect::<Vec<_>>(), args.collect::<Vec<_>>());
    if got.len() != expected.len() || got.iter().zip(&expected).any(|(got, expected)| got.0 != expected.0) {
        differences.push(format!("meta args {got:?}, expected {expected:?}"));
    }
}

#[test]
fn corpus_inline() {
    let Some(inline) = common::corpus_json("dockerfiles/inline.json") else { return };
    let mut tally = Tally::default();
    for case in inline["cases"].as_array().expect("cases") {
        let differences = check(case["text"].as_str().expect("text"), &case["expect"]);
        tally.add(case["id"].as_str().expect("id"), &differences);
    }
    tally.finish("inline");
}

/// Folders below a folder of the corpus: name, Dockerfile, path.
fn folders(path: &str) -> Vec<(String, String, std::path::PathBuf)> {
    let Some(root) = common::corpus(path) else { return Vec::new() };
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root).expect("corpus folder is readable") {
        let path = entry.expect("entry").path();
        let text = std::fs::read_to_string(path.join("Dockerfile")).expect("Dockerfile");
        folders.push((path.display().to_string(), text, path));
    }
    folders
}

#[test]
fn corpus_real() {
    let folders = folders("dockerfiles/real");
    if folders.is_empty() {
        return;
    }
    let mut tally = Tally::default();
    for (name, text, path) in folders {
        let expect = std::fs::read_to_string(path.join("expect.json")).expect("expect.json");
        tally.add(&name, &check(&text, &serde_json::from_str(&expect).expect("JSON")));
    }
    tally.finish("real");
}

/// The tree as upstream prints it.
fn dump(nodes: &[Node]) -> String {
    nodes.iter().map(|node| format!("({})\n", dump_node(node))).collect()
}

fn dump_node(node: &Node) -> String {
    let mut text = node.keyword.text.to_lowercase();
    if !node.flags.is_empty() {
        let flags = node.flags.iter().map(|flag| quote(&flag.text)).collect::<Vec<_>>();
        text.push_str(&format!(" [{}]", flags.join(" ")));
    }
    if let Some(trigger) = &node.trigger {
        text.push_str(&format!(" ({})", dump_node(trigger)));
    }
    for arg in &node.args {
        text.push_str(&format!(" {}", quote(&arg.text)));
    }
    text
}

/// Go's `strconv.Quote`, as far as the corpus needs it.
fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for character in text.chars() {
        match character {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            '\t' => quoted.push_str("\\t"),
            '\u{8}' => quoted.push_str("\\b"),
            '\u{c}' => quoted.push_str("\\f"),
            c if c.is_control() => quoted.push_str(&format!("\\x{:02x}", c as u32)),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

#[test]
fn corpus_parser_testfiles() {
    let folders = folders("dockerfiles/parser-testfiles");
    if folders.is_empty() {
        return;
    }
    let mut tally = Tally::default();
    for (name, text, path) in folders {
        let expect = std::fs::read_to_string(path.join("result")).expect("result");
        let (cut, problems) = parse_nodes(&Source::new("Dockerfile", &text));
        let got = dump(&cut.nodes);
        let mut differences = Vec::new();
        if !problems.is_empty() {
            differences.push(format!("{problems:?}"));
        }
        if got.trim() != expect.trim() {
            differences.push(format!("got\n{got}\nexpected\n{expect}"));
        }
        tally.add(&name, &differences);
    }
    tally.finish("parser-testfiles");
}

#[test]
fn corpus_parser_testfiles_negative() {
    let folders = folders("dockerfiles/parser-testfiles-negative");
    if folders.is_empty() {
        return;
    }
    let mut tally = Tally::default();
    for (name, text, _) in folders {
        let parsed = parse_dockerfile(Source::new("Dockerfile", &text));
        let accepted = parsed.is_ok().then(|| "accepted".to_owned());
        tally.add(&name, accepted.as_slice());
    }
    tally.finish("parser-testfiles-negative");
}
