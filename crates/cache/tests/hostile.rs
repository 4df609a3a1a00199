//! Caches that lie, are damaged, or are half there: each is told, and costs what it is about and no more.

mod support;

use std::sync::Arc;

use mica_cache::config::Config;
use mica_cache::{Imports, MemoryPlace};
use mica_oci::{Descriptor, Digest, Manifest};
use serde_json::Value;

use support::{Bench, MAPPING, key, noise};

fn cache() -> (Bench, Arc<MemoryPlace>) {
    let here = Bench::new();
    let place = Arc::new(MemoryPlace::default());
    here.export(&*place, &[here.step("a", &noise(20_000)), here.step("b", b"inputs")]);
    (here, place)
}

fn config(place: &MemoryPlace) -> Value {
    let manifest = Manifest::parse(&place.manifest().unwrap()).unwrap();
    serde_json::from_slice(&place.blob(&manifest.config.digest).unwrap()).unwrap()
}

/// Puts another config there, under its right digest.
fn set_config(place: &MemoryPlace, value: &Value) {
    let mut manifest = Manifest::parse(&place.manifest().unwrap()).unwrap();
    let bytes = serde_json::to_vec(value).unwrap();
    manifest.config = Descriptor::of(&manifest.config.media_type, &bytes);
    place.set_blob(&manifest.config.digest, Some(bytes));
    place.set_manifest(&manifest.to_canonical_json());
}

/// What is warned of when everything of step `a` is asked for, and whether its layer came.
fn ask(place: &Arc<MemoryPlace>) -> (Vec<String>, bool) {
    let there = Bench::new();
    let imports = Imports::new(vec![place.clone()]);
    let found = imports.by_exact(&key("exact-a"));
    let inputs = found.first().map(|found| found.inputs());
    let found = found.first().filter(|_| matches!(inputs, Some(Some(_))));
    let layer = found.and_then(|found| found.layer(&there.store, MAPPING));
    let warnings = imports.take_warnings();
    if !warnings.is_empty() && inputs.is_some() {
        // What is spoilt is not offered again; the rest is.
        assert!(imports.by_exact(&key("exact-a")).is_empty(), "{warnings:?}");
        let other = imports.by_exact(&key("exact-b"));
        assert!(other[0].layer(&there.store, MAPPING).is_some(), "{:?}", imports.take_warnings());
    }
    let left = support::files(&there.dir.path().join("r/ingest"));
    assert!(left.is_empty(), "left behind: {left:?}");
    (warnings, layer.is_some())
}

#[track_caller]
fn check(place: &Arc<MemoryPlace>, expect: &str) {
    let (warnings, came) = ask(place);
    assert!(!came, "the layer came, though: {expect}");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(expect) && warnings[0].contains("memory"), "{warnings:?}");
}

#[test]
fn a_whole_cache_is_taken() {
    let (_here, place) = cache();
    assert_eq!(ask(&place), (vec![], true));
}

#[test]
fn documents_that_lie() {
    let (_here, place) = cache();
    let good = (place.manifest().unwrap(), config(&place));
    let alter = |change: &dyn Fn(&mut Value)| {
        place.set_manifest(&good.0);
        let mut value = good.1.clone();
        change(&mut value);
        set_config(&place, &value);
    };
    alter(&|value| value["version"] = 2.into());
    check(&place, "its format has version 2, and this mica reads 1");
    alter(&|value| value["version"] = Value::Null);
    check(&place, "it has no version");
    alter(&|value| value["steps"][0]["layer"] = 99.into());
    check(&place, "a step has layer 99 of 2");
    alter(&|value| value["steps"][0]["exact"] = "zz".into());
    check(&place, "a key has 64 hexadecimal digits");
    alter(&|value| value["layers"][0]["diffId"] = Digest::sha256(b"x").to_string().into());
    check(&place, "is not what the cache says: its tar has the digest");
    alter(&|value| value["layers"][0]["indexDigest"] = Digest::sha256(b"x").to_string().into());
    check(&place, "its index is another one");
    // A directory that was made by the step, said to be there only for what is in it: on another base it would be another.
    alter(&|value| value["layers"][0]["unsaid"] = value["steps"][1]["inputs"].clone());
    check(&place, "what is known of a layer cannot be read");
    alter(&|value| value["layers"][0]["unsaid"]["size"] = (1_u64 << 40).into());
    check(&place, "is larger than");
    alter(&|value| value["layers"][0]["tarSize"] = 512.into());
    check(&place, "unfolds to more than 512 bytes");
    alter(&|value| value["steps"][0]["inputs"]["size"] = 7.into());
    check(&place, "what a step used cannot be read");
    alter(&|value| value["layers"][0].as_object_mut().unwrap().remove("blob").map(drop).unwrap_or_default());
    check(&place, "is not in the store");
    place.set_manifest(b"{}");
    check(&place, "its manifest cannot be read");
    place.set_manifest(br#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{"mediaType":"application/vnd.helm.config","digest":"sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2},"layers":[]}"#);
    check(&place, "`application/vnd.helm.config`");
}

#[test]
fn every_blob_missing_cut_or_altered() {
    let (_here, place) = cache();
    let config: Config = serde_json::from_value(config(&place)).unwrap();
    let step = &config.steps[0];
    let layer = &config.layers[step.layer];
    let manifest = Manifest::parse(&place.manifest().unwrap()).unwrap();
    let blobs = [layer.blob.clone().unwrap(), step.inputs.clone().unwrap().blob, manifest.config];
    for blob in blobs {
        let bytes = place.blob(&blob.digest).unwrap();
        let mut altered = bytes.clone();
        *altered.last_mut().unwrap() ^= 1;
        let cut = bytes[..bytes.len() / 2].to_vec();
        let longer = [&bytes[..], b"more"].concat();
        for (spoilt, expect) in [
            (None, "is missing"),
            (Some(altered), "is damaged"),
            (Some(cut), "is damaged"),
            (Some(longer), "is damaged"),
            (Some(Vec::new()), "is damaged"),
        ] {
            place.set_blob(&blob.digest, spoilt);
            check(&place, expect);
        }
        place.set_blob(&blob.digest, Some(bytes));
        assert_eq!(ask(&place), (vec![], true));
    }
}

#[test]
fn downloads_end_with_the_build() {
    let (_here, place) = cache();
    let there = Bench::new();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let imports = Imports::new(vec![place]).stopped_by(&stop);
    let found = imports.by_exact(&key("exact-a"));
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    assert!(found[0].layer(&there.store, MAPPING).is_none());
    assert!(imports.take_warnings()[0].contains("the build was interrupted"));
}
