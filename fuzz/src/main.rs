//! One program for all fuzz targets: `cargo xtask fuzz` builds it with the compiler's coverage counters and runs it once for
//! each target.
//!
//! One program, because linking a program for each of twenty targets takes longer than running them. Which target runs, the
//! environment says: the arguments are libFuzzer's.

#![no_main]

mod bytes;
mod documents;
mod language;
mod seeds;
mod settings;
mod values;
mod wire;

use std::process::exit;
use std::sync::OnceLock;

/// A parser under test.
struct Target {
    name: &'static str,
    /// Longest input; mistakes that need more are found by the tests that measure large inputs.
    length_max: usize,
    run: fn(&[u8]),
}

const fn target(name: &'static str, length_max: usize, run: fn(&[u8])) -> Target {
    Target { name, length_max, run }
}

const TARGETS: &[Target] = &[
    target("challenge", 1024, wire::challenge),
    target("compressed", 4096, bytes::compressed),
    target("docker_config", 2048, settings::docker_config),
    target("docker_daemon", 1024, settings::docker_daemon),
    target("dockerfile", 4096, language::dockerfile),
    target("dockerignore", 1024, language::dockerignore),
    target("documents", 4096, documents::documents),
    target("duration", 64, values::duration),
    target("fields", 256, language::fields),
    target("git", 512, language::git),
    target("glob", 256, language::glob),
    target("hosts_toml", 2048, settings::hosts_toml),
    target("index", 4096, bytes::index),
    target("limits", 128, values::limits),
    target("mount", 512, language::mount),
    target("platform", 256, documents::platform),
    target("published", 128, values::published),
    target("ranges", 128, wire::ranges),
    target("record", 4096, bytes::record),
    target("reference", 512, documents::reference),
    target("registries_conf", 2048, settings::registries_conf),
    target("replies", 2048, wire::replies),
    target("route", 512, wire::route),
    target("stat_cache", 4096, bytes::stat_cache),
    target("tar", 16384, bytes::tar),
    target("volume", 256, values::volume),
    target("words", 512, language::words),
];

static CHOSEN: OnceLock<&Target> = OnceLock::new();

/// Before the first input: what the environment asks for.
fn choose() {
    let variable = |name: &str| std::env::var(name).unwrap_or_default();
    let wanted = variable("MICA_FUZZ_TARGET");
    if wanted.is_empty() {
        // What `cargo xtask fuzz` goes by.
        for target in TARGETS {
            println!("{} {}", target.name, target.length_max);
        }
        exit(0);
    }
    let Some(target) = TARGETS.iter().find(|target| target.name == wanted) else {
        eprintln!("there is no fuzz target `{wanted}`");
        exit(2);
    };
    let seeds = variable("MICA_FUZZ_SEEDS");
    if !seeds.is_empty() {
        let corpus = variable("MICA_FUZZ_CORPUS");
        if let Err(error) = seeds::write(target.name, seeds.as_ref(), corpus.as_ref()) {
            eprintln!("the seeds of `{wanted}` cannot be written: {error}");
            exit(1);
        }
        exit(0);
    }
    let _ = CHOSEN.set(target);
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(target) = CHOSEN.get() {
        (target.run)(data);
    }
});
