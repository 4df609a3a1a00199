//! Command lines that docker's own client was given, and whether it took them.

use std::path::PathBuf;

use crate::support::text;
use crate::world_or_skip;

/// What docker takes and this program does not, told clearly: no plan to run these the same way, or not yet.
const NOT_SUPPORTED: &[&str] = &[
    "unexpected argument",
    "not supported",
    "only `bridge`, `host` and `none` are supported",
    "is not a port",
    "not known",
    "requires a value",
    // Checked here when the container is made, by docker's daemon later.
    "bind source path does not exist",
    "must be absolute",
    "too many colons",
    "more than one of",
    "a tmpfs has no source",
    "the source must be an absolute path",
];

#[test]
fn root_docker_s_arguments_are_taken_or_refused_clearly() {
    let world = world_or_skip!();
    let corpus = std::env::var("MICA_CORPUS").map_or_else(
        |_| PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
        PathBuf::from,
    );
    let Ok(bytes) = std::fs::read(corpus.join("vectors/run-flags.json")) else {
        println!("skipped: corpus is absent");
        return;
    };
    world.derive_image("busybox", |_| {});
    let cases: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
    let work = world.directory.path().join("cwd");
    std::fs::create_dir(&work).unwrap();
    for (name, content) in cases["source"]["files"].as_object().unwrap() {
        std::fs::write(work.join(name), content.as_str().unwrap()).unwrap();
    }
    let (mut taken, mut refused, mut unsupported) = (0, 0, 0);
    for case in cases["cases"].as_array().unwrap() {
        let mut arguments: Vec<&str> =
            case["args"].as_array().unwrap().iter().filter_map(|v| v.as_str()).collect();
        // Only whether the options are taken: nothing is run, and nothing of the host is touched.
        arguments[0] = "create";
        arguments.retain(|argument| !matches!(*argument, "-d" | "--sig-proxy=false"));
        if arguments.iter().any(|argument| argument.starts_with("/a:") || argument.starts_with("/a,")) {
            continue;
        }
        let output = world.command(&arguments).current_dir(&work).output().unwrap();
        let stderr = text(&output.stderr);
        let docker_failed = case.get("error").is_some();
        match (docker_failed, output.status.success()) {
            (false, true) => taken += 1,
            (true, false) => refused += 1,
            (false, false) if NOT_SUPPORTED.iter().any(|known| stderr.contains(known)) => unsupported += 1,
            _ => println!("{arguments:?}: docker {case}: {stderr}"),
        }
        assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    }
    println!("{taken} taken, {refused} refused, {unsupported} not supported");
    assert!(taken > 20 && refused > 30, "{taken} {refused}");
}
