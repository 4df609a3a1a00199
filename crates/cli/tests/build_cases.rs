//! Every foreign build case: the recorded tree, config and history against ours.
//!
//! A case that fails is a failure of this test, unless `build_cases_differ.txt` names it with the reason why ours is right. One
//! that must fail must do so for another reason than that something is not there yet.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use mica_testkit::{
    Kind, Mica, Need, Node, Outcome, SavedImage, Tree, bases, changed, corpus, missing, tree_of_tar,
};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
const DIFFER: &str = include_str!("build_cases_differ.txt");
const PATH_OF_BASE: &str = "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The times of the context's files, as the recorder had them.
const CONTEXT_TIME: u64 = 1_700_000_000;
/// A Dockerfile of the corpus names at most a handful of images.
const BASES_MAX: usize = 12;

enum Verdict {
    Passed,
    Failed(String),
}

struct Suite {
    mica: Mica,
    base: PathBuf,
    base_tree: Tree,
    base_history: usize,
    cases_dir: PathBuf,
}

#[test]
fn root_build_cases_give_the_recorded_images() {
    if let Some(reason) = missing(&[Need::Root, Need::Corpus, Need::Tool("busybox"), Need::Tool("gzip")]) {
        println!("skipped: {reason}");
        return;
    }
    let corpus = corpus().expect("the corpus");
    let suite = Suite::new(&corpus);
    let mut cases = Vec::new();
    let mut files: Vec<PathBuf> = fs::read_dir(corpus.join("build-cases"))
        .expect("build cases")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "jsonl")) {
        let text = fs::read_to_string(file).expect("build cases");
        cases.extend(text.lines().map(|line| serde_json::from_str::<Value>(line).expect("a case is JSON")));
    }
    if let Ok(only) = std::env::var("MICA_BUILD_CASE") {
        cases.retain(|case| word(&case["id"]).contains(&only));
    }

    let next = AtomicUsize::new(0);
    let verdicts = Mutex::new(BTreeMap::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let verdict = suite.check(case);
                    verdicts.lock().expect("verdicts").insert(word(&case["id"]), verdict);
                }
            });
        }
    });
    report(&verdicts.into_inner().expect("verdicts"));
}

fn report(verdicts: &BTreeMap<String, Verdict>) {
    let differ: BTreeMap<&str, &str> = DIFFER
        .lines()
        .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        .map(|line| line.split_once(": ").expect("`<case>: <reason>`"))
        .collect();
    let (mut passed, mut failed, mut on_purpose) = (0, Vec::new(), 0);
    for (id, verdict) in verdicts {
        match verdict {
            Verdict::Passed => passed += 1,
            Verdict::Failed(_) if differ.contains_key(id.as_str()) => {
                on_purpose += 1;
                println!("differs on purpose: {id}: {}", differ[id.as_str()]);
            }
            Verdict::Failed(reason) => failed.push(format!("{id}: {reason}")),
        }
    }
    println!("build cases: {passed} passed, {} failed, {on_purpose} differ on purpose", failed.len());
    assert!(failed.is_empty(), "{} build cases failed:\n{}", failed.len(), failed.join("\n"));
}

impl Suite {
    fn new(corpus: &Path) -> Suite {
        let base = bases::corpus_base(corpus).expect("the base of the corpus");
        let base_tree = tree_of_tar(&base).expect("the tree of the base");
        let suite = Suite {
            mica: Mica::new(BINARY),
            base,
            base_tree,
            base_history: 0,
            cases_dir: corpus.join("build-cases"),
        };
        suite.mica.ok(&[
            "import",
            "-c",
            PATH_OF_BASE,
            "-c",
            "CMD [\"sh\"]",
            &suite.base.to_string_lossy(),
            "base:base",
        ]);
        let imported = SavedImage::of(&suite.mica, "base:base");
        let base_history = imported.config["history"].as_array().map_or(0, Vec::len);
        Suite { base_tree: imported.tree, base_history, ..suite }
    }

    fn check(&self, case: &Value) -> Verdict {
        match self.compare(case) {
            Ok(()) => Verdict::Passed,
            Err(reason) => Verdict::Failed(reason),
        }
    }

    fn files(&self, case: &Value) -> Vec<Value> {
        let mut files = case["files"].as_array().cloned().unwrap_or_default();
        if let Some(also) = case["files_also"].as_str() {
            let text = fs::read_to_string(self.cases_dir.join(also)).expect("further files of a case");
            files.extend(serde_json::from_str::<Vec<Value>>(&text).expect("further files of a case"));
        }
        files
    }

    fn compare(&self, case: &Value) -> Result<(), String> {
        let context = Mica::temporary_dir();
        self.materialise(case, context.path());
        let name = format!("case/{}", mica_testkit::sha256(word(&case["id"]).as_bytes()));
        let outcome = self.build(case, context.path(), &name);
        let expect = &case["expect"];
        if outcome.stderr.contains("panicked at") || !(0..=125).contains(&outcome.code) {
            return Err(format!("broke down with exit code {}: {}", outcome.code, short(&outcome.stderr)));
        }
        match (expect["ok"] == true, outcome.code == 0) {
            (false, false) if outcome.stderr.contains("not supported yet") => {
                return Err(format!("failed for want of a feature: {}", short(&outcome.stderr)));
            }
            (false, false) => return Ok(()),
            (false, true) => return Err(format!("built, but must fail: {}", word(&expect["error"]))),
            (true, false) => return Err(format!("build failed: {}", short(&outcome.stderr))),
            (true, true) => {}
        }
        let image = SavedImage::of(&self.mica, &name);
        let mut problems = self.compare_tree(expect, &image);
        problems.extend(self.compare_config(expect, &image));
        if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
    }

    /// Builds; a base that the store does not have is the one base under another name.
    fn build(&self, case: &Value, context: &Path, name: &str) -> Outcome {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let file = context.join(word(&case["dockerfile"]));
        let mut arguments = vec!["build".into(), "-t".into(), name.to_owned(), "-f".into(), text(&file)];
        for (flag, field) in [("--build-arg", "build_args"), ("--label", "labels")] {
            for (key, value) in case[field].as_object().into_iter().flatten() {
                arguments.extend([flag.into(), format!("{key}={}", word(value))]);
            }
        }
        if let Some(target) = case["target"].as_str() {
            arguments.extend(["--target".into(), target.into()]);
        }
        arguments.push(text(context));
        for _ in 0..BASES_MAX {
            let outcome = self.mica.run(&arguments);
            let Some(base) = absent_base(&outcome.stderr) else { return outcome };
            let tagged = self.mica.run(&["tag", "base:base", &base]);
            if outcome.code == 0 || tagged.code != 0 {
                return outcome;
            }
        }
        self.mica.run(&arguments)
    }

    fn materialise(&self, case: &Value, context: &Path) {
        let files = self.files(case);
        for file in &files {
            let path = in_context(context, file);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory of the context");
            match file["type"].as_str() {
                Some("dir") => fs::create_dir_all(&path).expect("a directory of the context"),
                Some("symlink") => {
                    std::os::unix::fs::symlink(word(&file["link"]), &path).expect("a symbolic link")
                }
                Some("hardlink") => {
                    fs::hard_link(context.join(word(&file["link"])), &path).expect("a hard link")
                }
                _ => {
                    let content = match file["content_b64"].as_str() {
                        Some(encoded) => parse_base64(encoded),
                        None => word(&file["content"]).into_bytes(),
                    };
                    fs::write(&path, content).expect("a file of the context");
                }
            }
        }
        // Modes and times last, from the deepest path up: making a file changes the time of its directory.
        let mut all = Vec::new();
        collect(context, &mut all);
        for path in all {
            let told = files.iter().find(|file| in_context(context, file) == path);
            let is_dir = path.is_dir();
            let mode =
                told.and_then(|file| file["mode"].as_u64()).unwrap_or(if is_dir { 0o755 } else { 0o644 });
            fs::set_permissions(&path, fs::Permissions::from_mode(mode as u32)).expect("a mode");
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(CONTEXT_TIME);
            File::open(&path).and_then(|file| file.set_modified(time)).expect("a time");
        }
    }

    fn compare_tree(&self, expect: &Value, image: &SavedImage) -> Vec<String> {
        let none = Tree::new();
        let base = if expect["base"] == "scratch" { &none } else { &self.base_tree };
        let (new, gone) = changed(base, &image.tree);
        let ignored: Vec<String> =
            expect["ignore_paths"].as_array().into_iter().flatten().map(|path| clean(&word(path))).collect();
        let is_ignored =
            |path: &str| ignored.iter().any(|one| path == one || path.starts_with(&format!("{one}/")));

        let recorded: BTreeMap<String, &Value> = expect["tree"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(path, node)| (clean(path), node))
            .collect();
        let mut problems = Vec::new();
        for (path, node) in &recorded {
            match image.tree.get(path) {
                _ if is_ignored(path) => {}
                None => problems.push(format!("`{path}` is absent")),
                Some(ours) => problems.extend(compare_node(path, node, ours)),
            }
        }
        for path in new.keys().filter(|path| !recorded.contains_key(*path) && !is_ignored(path)) {
            problems.push(format!(
                "`{path}` is too much: {:?} {:o}",
                image.tree[path].kind, image.tree[path].mode
            ));
        }
        let removed: Vec<String> =
            expect["removed"].as_array().into_iter().flatten().map(|path| clean(&word(path))).collect();
        if expect["base"] != "scratch" {
            let gone: Vec<&String> = gone.iter().filter(|path| !is_ignored(path)).collect();
            if gone != removed.iter().filter(|path| !is_ignored(path)).collect::<Vec<_>>() {
                problems.push(format!("removed {gone:?}, expected {removed:?}"));
            }
        }
        problems
    }

    fn compare_config(&self, expect: &Value, image: &SavedImage) -> Vec<String> {
        let mut problems = Vec::new();
        let mut compare = |what: &str, ours: Value, theirs: Value| {
            if ours != theirs {
                problems.push(format!("{what} is {ours}, expected {theirs}"));
            }
        };
        compare("config", without_empty(&image.config["config"]), without_empty(&expect["config"]));
        if !expect["author"].is_null() {
            compare("author", image.config["author"].clone(), expect["author"].clone());
        }
        let of_base = if expect["base"] == "scratch" { 0 } else { self.base_history };
        let ours = image.config["history"].as_array().cloned().unwrap_or_default();
        let ours: Vec<Value> = ours.into_iter().skip(of_base).collect();
        compare("history", history(&ours), history(expect["history"].as_array().map_or(&[], Vec::as_slice)));
        problems
    }
}

fn compare_node(path: &str, recorded: &Value, ours: &Node) -> Vec<String> {
    let kind = match ours.kind {
        Kind::File => "file",
        Kind::Dir => "dir",
        Kind::Symlink => "symlink",
        Kind::CharDevice => "char",
        Kind::BlockDevice => "block",
        Kind::Fifo => "fifo",
    };
    let mut problems = Vec::new();
    let mut compare = |field: &str, ours: String| {
        let Some(theirs) = recorded.get(field).filter(|value| !value.is_null()) else { return };
        if word(theirs) != ours {
            problems.push(format!("`{path}`: {field} is {ours}, expected {}", word(theirs)));
        }
    };
    compare("type", kind.into());
    if ours.kind != Kind::Symlink {
        compare("mode", format!("0o{:o}", ours.mode));
    }
    compare("uid", ours.uid.to_string());
    compare("gid", ours.gid.to_string());
    if ours.kind == Kind::File {
        compare("size", ours.size.to_string());
        compare("sha256", ours.sha256.clone());
    }
    compare("link", ours.link.clone());
    if let Some(first) = recorded["hardlink_to"].as_str() {
        let agrees = ours.hardlink_to.as_deref().is_some_and(|ours| ours == clean(first));
        if !agrees {
            problems.push(format!("`{path}` is no hard link to `{first}`: {:?}", ours.hardlink_to));
        }
    }
    problems
}

/// The created-by texts and whether each made a layer; the builder's name after `#` is not judged.
fn history(entries: &[Value]) -> Value {
    let one = |entry: &Value| {
        let text = word(&entry["created_by"]);
        let empty = entry["empty"] == true || entry["empty_layer"] == true;
        Value::from(format!(
            "{}{}",
            text.trim_end_matches(" # buildkit"),
            if empty { " (empty)" } else { "" }
        ))
    };
    entries.iter().map(one).collect()
}

fn without_empty(value: &Value) -> Value {
    let Value::Object(fields) = value else { return value.clone() };
    let kept = fields.iter().filter(|(_, value)| match value {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
        _ => true,
    });
    Value::Object(kept.map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// The name in "base image `X` is not in the local store".
fn absent_base(stderr: &str) -> Option<String> {
    let before =
        stderr.split("is not in the local store").next().filter(|before| before.len() < stderr.len())?;
    before.rsplit('`').nth(1).map(str::to_owned)
}

/// Where a file of a case belongs. Some are recorded with a leading slash.
fn in_context(context: &Path, file: &Value) -> PathBuf {
    let path = clean(&word(&file["path"]));
    assert!(path.split('/').all(|part| part != ".."), "a file outside the context: {path}");
    context.join(path)
}

fn collect(dir: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a directory of the context").flatten() {
        let file_type = entry.file_type().expect("a type");
        if file_type.is_dir() {
            collect(&entry.path(), all);
        }
        if !file_type.is_symlink() {
            all.push(entry.path());
        }
    }
}

fn parse_base64(text: &str) -> Vec<u8> {
    const ALPHABET: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for byte in text.bytes() {
        let Some(value) = ALPHABET.iter().position(|one| *one == byte) else { continue };
        bits = (bits << 6) | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    bytes
}

fn word(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| if value.is_null() { String::new() } else { value.to_string() }, str::to_owned)
}

fn clean(path: &str) -> String {
    path.trim_start_matches("./").trim_matches('/').to_owned()
}

/// The lines that tell an error, on one line.
fn short(stderr: &str) -> String {
    let lines: Vec<&str> =
        stderr.lines().filter(|line| line.starts_with("error") || line.starts_with("note")).collect();
    let lines = if lines.is_empty() { stderr.lines().rev().take(3).collect() } else { lines };
    lines.join(" | ").chars().take(400).collect()
}
