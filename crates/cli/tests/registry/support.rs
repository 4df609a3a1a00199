//! What the tests of registries share: an image that came is the image that was there, and nothing else came.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use mica_testkit::images::digest;
use mica_testkit::{Mica, Outcome, RegistryHttp, SavedImage, TestImage, differences, run_bounded, sha256};

pub const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A pull or push of some megabytes, through all that goes wrong in tests, on a machine that does much else.
pub const DEADLINE: Duration = Duration::from_secs(240);

/// Runs a command that talks to a registry: it ends in time, whatever the registry does.
pub fn run(mica: &Mica, arguments: &[&str]) -> Outcome {
    run_bounded(mica.command(arguments), DEADLINE)
}

/// Runs it and insists on exit code 0.
#[track_caller]
pub fn ok(mica: &Mica, arguments: &[&str]) -> Outcome {
    let outcome = run(mica, arguments);
    assert!(outcome.code == 0, "`mica {}`: {outcome}", arguments.join(" "));
    outcome
}

/// An error of a registry: exit code 1, in red or not, with the names of what it is about, and no panic.
#[track_caller]
pub fn check_error(outcome: &Outcome, parts: &[&str], context: &str) {
    assert!(outcome.code == 1, "{context}: expected exit code 1: {outcome}");
    assert!(outcome.stderr.contains("error: "), "{context}: {outcome}");
    assert!(!outcome.stderr.contains("panicked"), "{context}: {outcome}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{context}: no `{part}` in it: {outcome}");
    }
}

/// The image's ID, `None` if there is no such image.
pub fn image_id(mica: &Mica, name: &str) -> Option<String> {
    let outcome = run(mica, &["image", "inspect", "-f", "{{.Id}}", name]);
    (outcome.code == 0).then(|| outcome.stdout.trim().to_owned())
}

/// The store has the image under this name, digest for digest and file for file.
#[track_caller]
pub fn check_image(mica: &Mica, name: &str, image: &TestImage, target: &str, context: &str) {
    assert_eq!(image_id(mica, name), Some(image.id()), "{context}: the ID of `{name}`");
    let digests = ok(mica, &["image", "inspect", "-f", "{{.RepoDigests}}", name]).stdout;
    assert!(digests.contains(&format!("@{target}")), "{context}: `{name}` does not know {target}: {digests}");
    let different = differences(&image.tree(), &SavedImage::of(mica, name).tree, |_| false);
    assert!(different.is_empty(), "{context}: `{name}` differs:\n{}", different.join("\n"));
    check_store(mica, context);
}

/// The store has nothing under this name, and what else it has is right.
#[track_caller]
pub fn check_absent(mica: &Mica, name: &str, context: &str) {
    assert_eq!(image_id(mica, name), None, "{context}: `{name}` is there");
    let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
    let listed = ok(mica, &["images", "-a", "--digests"]).stdout;
    assert!(!listed.contains(repository), "{context}: `{repository}` is listed: {listed}");
    check_store(mica, context);
}

/// Every blob that the store shows has the digest that it stands under.
#[track_caller]
pub fn check_store(mica: &Mica, context: &str) {
    for path in files(&mica.root().join("blobs/sha256")) {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let bytes = fs::read(&path).expect("a blob");
        assert_eq!(sha256(&bytes), name, "{context}: the blob {}", path.display());
    }
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
}

/// The registry has the image, digest for digest, under a tag.
#[track_caller]
pub fn check_pushed(http: &RegistryHttp, repository: &str, tag: &str, image: &TestImage, context: &str) {
    let reply = http.manifest(repository, tag);
    assert_eq!(reply.status, 200, "{context}: `{repository}:{tag}`: {}", reply.text());
    assert_eq!(digest(&reply.body), image.digest(), "{context}: `{repository}:{tag}`");
    let layers = image.layers.iter().map(|layer| (layer.digest(), layer.blob.clone()));
    for (expected, bytes) in layers.chain([(image.id(), image.config.clone())]) {
        let reply = http.get(&format!("/v2/{repository}/blobs/{expected}"));
        assert!(
            reply.status == 200 && reply.body == bytes,
            "{context}: the blob {expected}: {}",
            reply.status
        );
    }
}

/// Works on all of them in as many threads as fit a small machine, and tells at the end which failed.
pub fn for_each<T: Sync>(all: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let failed = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    // A panic has told on stderr what is wrong: the others are tried all the same.
                    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(one))).is_err() {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let failed = failed.into_inner();
    assert!(failed == 0, "{failed} of {} failed", all.len());
}

/// The same for numbers.
pub fn for_seeds(seeds: std::ops::Range<u64>, work: impl Fn(u64) + Sync) {
    let seeds: Vec<u64> = seeds.collect();
    for_each(&seeds, |seed| work(*seed));
}
