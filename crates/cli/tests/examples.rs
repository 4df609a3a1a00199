//! The examples are real: they build, run and answer, and their trees are what buildah makes of them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use mica_testkit::{Mica, Need, Peers, SavedImage, bases, differences, examples, http, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
/// A server in an interpreter, on a machine that runs other tests.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);
const DIFFERENCES_SHOWN_MAX: usize = 40;

/// The Debian base, or `None` after saying why the test is skipped.
fn base(needs: &[Need]) -> Option<PathBuf> {
    // Asked once a program: the mirror may take its time to not answer.
    static MIRROR: OnceLock<Result<(), String>> = OnceLock::new();
    let reason = match missing(needs) {
        Some(reason) => reason,
        None => match MIRROR.get_or_init(bases::check_mirror).clone().and_then(|()| bases::debian()) {
            Ok(base) => return Some(base),
            Err(reason) => reason,
        },
    };
    println!("skipped: {reason}");
    None
}

/// Builds an example on the base and returns the store that has it.
fn build(name: &str, base: &std::path::Path) -> Mica {
    let mica = Mica::new(BINARY);
    mica.import(base, "debian:12");
    let built = mica.ok(&["build", "-t", name, &examples().join(name).to_string_lossy()]);
    println!("{name}: built in {:.1} s", built.time.as_secs_f64());
    mica
}

/// Runs the image as a server and fetches its page.
#[track_caller]
fn check_answers(mica: &Mica, image: &str, container_port: u16, expect: &str) {
    let port = http::free_port();
    let publish = format!("{port}:{container_port}");
    mica.ok(&["run", "-d", "--rm", "--name", "server", "-p", &publish, image]);
    let answer = http::get(port, SERVER_PATIENCE);
    let logs = mica.run(&["logs", "server"]);
    let listed = mica.run(&["ps"]);
    let stopped = mica.run(&["rm", "-f", "server"]);
    let answer = answer.unwrap_or_else(|error| panic!("{image} does not answer: {error}: {logs}"));
    assert!(answer.contains(expect), "{answer}");
    assert!(
        listed.stdout.contains("server") && listed.stdout.contains(&publish.replace(':', "->")),
        "{listed}"
    );
    assert_eq!(stopped.code, 0, "{stopped}");
    mica.check_nothing_left();
}

#[track_caller]
fn check_greets(mica: &Mica) {
    let greeting = mica.ok(&["run", "--rm", "--network=none", "multi-stage"]).stdout;
    assert!(greeting.to_lowercase().contains("hello") && greeting.contains("world"), "{greeting}");
    let greeting = mica.ok(&["run", "--rm", "--network=none", "multi-stage", "moon"]).stdout;
    assert!(greeting.contains("moon"), "{greeting}");
}

/// Builds the example with buildah, twice; ours must equal it wherever buildah equals itself.
#[track_caller]
fn check_same_tree(mica: &Mica, name: &str, base: &std::path::Path) {
    if let Some(reason) = missing(&[Need::Tool("buildah")]) {
        println!("skipped: {reason}");
        return;
    }
    let peers = Peers::new();
    peers.import(base, "debian:12");
    let context = examples().join(name);
    peers.build(&context, "one");
    peers.build(&context, "two");
    let (mut one, two) = (peers.image("one").tree, peers.image("two").tree);
    let mut ours = SavedImage::of(mica, name).tree;
    let unsteady: BTreeSet<String> = differences(&one, &two, |_| false)
        .iter()
        .filter_map(|line| line.split('`').nth(1).map(str::to_owned))
        .collect();
    // Content that differs between two runs (times in compiled files) is not compared, all else of these files is.
    for tree in [&mut one, &mut ours] {
        for path in &unsteady {
            if let Some(node) = tree.get_mut(path) {
                (node.size, node.sha256) = (0, String::new());
            }
        }
    }
    // What buildah mounts into a step's container and the base does not have, it leaves behind as an empty file.
    for path in ["etc/hosts", "etc/resolv.conf"] {
        if one.get(path).is_some_and(|node| node.size == 0) && !ours.contains_key(path) {
            one.remove(path);
        }
    }
    let in_one_run_only =
        |path: &str| unsteady.contains(path) && one.contains_key(path) != two.contains_key(path);
    let lines = differences(&one, &ours, in_one_run_only);
    let shown: Vec<&String> = lines.iter().take(DIFFERENCES_SHOWN_MAX).collect();
    assert!(lines.is_empty(), "{name}: {} of {} paths differ: {shown:#?}", lines.len(), one.len());
    println!("{name}: {} paths as buildah makes them, {} but for their content", one.len(), unsteady.len());
}

#[test]
fn root_hello_world_server_answers_and_equals_buildahs() {
    let Some(base) = base(&[Need::Root]) else { return };
    let mica = build("hello-world-server", &base);
    check_answers(&mica, "hello-world-server", 3000, "<H2>Hello World</H2>");
    check_same_tree(&mica, "hello-world-server", &base);
}

#[test]
fn root_flask_answers_and_equals_buildahs() {
    let Some(base) = base(&[Need::Root]) else { return };
    let mica = build("flask", &base);
    check_answers(&mica, "flask", 5000, "HTTP/1.1 200");
    check_same_tree(&mica, "flask", &base);
}

#[test]
fn root_multi_stage_greets_and_equals_buildahs() {
    let Some(base) = base(&[Need::Root]) else { return };
    let mica = build("multi-stage", &base);
    check_greets(&mica);
    check_same_tree(&mica, "multi-stage", &base);
}

#[test]
fn rootless_hello_world_server_answers() {
    let Some(base) = base(&[Need::Unprivileged, Need::Tool("pasta"), Need::Tool("newuidmap")]) else {
        return;
    };
    let mica = build("hello-world-server", &base);
    check_answers(&mica, "hello-world-server", 3000, "<H2>Hello World</H2>");
}

#[test]
fn rootless_flask_answers() {
    let Some(base) = base(&[Need::Unprivileged, Need::Tool("pasta"), Need::Tool("newuidmap")]) else {
        return;
    };
    let mica = build("flask", &base);
    check_answers(&mica, "flask", 5000, "HTTP/1.1 200");
}

#[test]
fn rootless_multi_stage_greets() {
    let Some(base) = base(&[Need::Unprivileged, Need::Tool("newuidmap")]) else { return };
    let mica = build("multi-stage", &base);
    check_greets(&mica);
}
