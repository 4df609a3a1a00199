//! A cache in a directory.

use std::fs;

use mica_testkit::differences;

use crate::support::{How, Machine, STEPS, can_build, can_build_rootless, from_local, local_name, to_local};

#[test]
fn root_a_second_machine_has_the_same_hits() {
    if can_build() {
        check_second_machine();
    }
}

#[test]
fn rootless_a_second_machine_has_the_same_hits() {
    if can_build_rootless() {
        check_second_machine();
    }
}

fn check_second_machine() {
    let (here, cache) = (Machine::new(), tempfile::tempdir().unwrap());
    let first = here.build(&[&to_local(cache.path(), ",mode=max")]);
    first.check_all_ran();
    assert!(first.stderr.contains(": 6 results, "), "{}", first.stderr);

    let there = Machine::new();
    there.build(&[&from_local(cache.path())]).check_all_from(&local_name(cache.path()));
    let different = differences(&here.tree(), &there.tree(), |_| false);
    assert!(different.is_empty(), "{}", different.join("\n"));
    // What came is the store's own now: the cache is not asked any more.
    fs::rename(cache.path(), cache.path().with_extension("away")).unwrap();
    let again = there.build(&[&from_local(cache.path())]);
    assert_eq!(again.steps, vec![How::Chain; STEPS]);
    assert!(!again.stderr.contains("warning"), "{}", again.stderr);
    // And a later edit is found by the records that came.
    there.write("unused", "edited\n");
    let edited = there.build(&[]);
    assert_eq!(edited.steps[3..], [How::Record, How::Chain, How::Chain], "{:?}", edited.steps);
    fs::rename(cache.path().with_extension("away"), cache.path()).unwrap();
}

#[test]
fn root_an_unused_file_is_edited_before_the_cache_is_read() {
    if can_build() {
        check_unused_file();
    }
}

#[test]
fn rootless_an_unused_file_is_edited_before_the_cache_is_read() {
    if can_build_rootless() {
        check_unused_file();
    }
}

fn check_unused_file() {
    let (here, there) = (Machine::new(), Machine::new());
    let cache = tempfile::tempdir().unwrap();
    here.build(&[&to_local(cache.path(), ",mode=max")]);
    there.write("unused", "edited\n");
    let name = local_name(cache.path());
    let built = there.build(&[&from_local(cache.path())]);
    let (by_layers, by_record) = (How::FromCache(name.clone()), How::FromCacheByRecord(name));
    assert_eq!(built.steps[0], by_layers);
    assert!(built.steps[1].ran(), "{:?}", built.steps);
    let expect = [by_record.clone(), by_record, by_layers.clone(), by_layers];
    assert_eq!(built.steps[2..], expect, "{}", built.stderr);
    // The result of the step that ran is exported with those that came.
    let second = tempfile::tempdir().unwrap();
    there.build(&[&to_local(second.path(), ",mode=max")]);
    let third = Machine::new();
    third.write("unused", "edited\n");
    third.build(&[&from_local(second.path())]).check_all_from(&local_name(second.path()));
}

#[test]
fn root_a_used_file_is_edited_before_the_cache_is_read() {
    if !can_build() {
        return;
    }
    let (here, there) = (Machine::new(), Machine::new());
    let cache = tempfile::tempdir().unwrap();
    here.build(&[&to_local(cache.path(), ",mode=max")]);
    there.write("used", "edited\n");
    let layers = there.layers().len();
    let built = there.build(&[&from_local(cache.path())]);
    let paths = ["/app/used", "/app/out"].map(|path| How::Ran(path.to_owned()));
    assert_eq!(built.steps[2..4], paths, "{}", built.stderr);
    assert_eq!(built.steps[5], How::Ran("/out".to_owned()));
    // Only the layer of the one hit came; the others are of the steps that ran.
    assert_eq!(there.layers().len(), layers + STEPS);
    assert_eq!(built.steps.iter().filter(|step| step.ran()).count(), STEPS - 1);
}

#[test]
fn root_only_layers_of_the_image_with_mode_min() {
    if !can_build() {
        return;
    }
    let (here, there) = (Machine::new(), Machine::new());
    let cache = tempfile::tempdir().unwrap();
    let built = here.build(&[&to_local(cache.path(), "")]);
    assert!(built.stderr.contains(": 2 results, "), "{}", built.stderr);
    let built = there.build(&[&from_local(cache.path())]);
    assert_eq!(
        built.steps.iter().filter(|step| step.ran()).count(),
        STEPS,
        "what they stand on is made anew: {:?}",
        built.steps
    );
    // The same with all steps known here: a build of nothing but hits exports the same.
    let again = tempfile::tempdir().unwrap();
    here.build(&[&to_local(again.path(), "")]).steps.iter().for_each(|step| assert_eq!(*step, How::Chain));
    let names = |path: &std::path::Path| {
        let mut names: Vec<_> = fs::read_dir(path.join("blobs/sha256"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(cache.path()), names(again.path()));
}

#[test]
fn root_rules_for_results_hold_for_those_of_caches() {
    if !can_build() {
        return;
    }
    let here = Machine::new();
    let cache = tempfile::tempdir().unwrap();
    here.build(&[&to_local(cache.path(), ",mode=max")]);
    let from = from_local(cache.path());
    let none = Machine::new().build(&[&from, "--no-cache"]);
    none.check_all_ran();
    let filtered = Machine::new().build(&[&from, "--no-cache-filter=one"]);
    assert!(filtered.steps[..4].iter().all(How::ran), "{:?}", filtered.steps);
    Machine::new().build(&[&from, "--cache=exact"]).check_all_from(&local_name(cache.path()));
    let there = Machine::new();
    there.write("unused", "edited\n");
    let exact = there.build(&[&from, "--cache=exact"]);
    assert!(exact.steps[1..4].iter().all(How::ran), "{:?}", exact.steps);
    // The age of a result travels: nobody looked whether steps on the host's network used it.
    let there = Machine::new();
    let (host, long_ago) = ("--network=host", tempfile::tempdir().unwrap());
    here.build(&[host, &to_local(long_ago.path(), ",mode=max")]);
    let from = from_local(long_ago.path());
    let fresh = Machine::new().build(&[host, &from, "--cache-ttl=1h"]);
    fresh.check_all_from(&local_name(long_ago.path()));
    age(long_ago.path(), 7200);
    let old = there.build(&[host, &from, "--cache-ttl=1h"]);
    assert!(matches!(&old.steps[2], How::Ran(why) if why.contains("Expired")), "{:?}", old.steps);
}

/// Makes every result of a cache older, as if it had been exported so long ago.
fn age(cache: &std::path::Path, seconds: i64) {
    use mica_oci::{Digest, Index, Manifest};
    let read = |digest: &Digest| fs::read(cache.join("blobs/sha256").join(digest.hex())).unwrap();
    let put = |bytes: &[u8]| {
        let digest = Digest::sha256(bytes);
        fs::write(cache.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        (digest, bytes.len() as u64)
    };
    let mut index = Index::parse(&fs::read(cache.join("index.json")).unwrap()).unwrap();
    let mut manifest = Manifest::parse(&read(&index.manifests[0].digest)).unwrap();
    let mut config: serde_json::Value = serde_json::from_slice(&read(&manifest.config.digest)).unwrap();
    for step in config["steps"].as_array_mut().unwrap() {
        step["made"] = (step["made"].as_i64().unwrap() - seconds).into();
    }
    (manifest.config.digest, manifest.config.size) = put(&serde_json::to_vec(&config).unwrap());
    (index.manifests[0].digest, index.manifests[0].size) = put(&manifest.to_canonical_json());
    fs::write(cache.join("index.json"), index.to_canonical_json()).unwrap();
}

#[test]
fn root_caches_that_are_damaged_or_not_there_cost_a_warning() {
    if !can_build() {
        return;
    }
    let here = Machine::new();
    let cache = tempfile::tempdir().unwrap();
    here.build(&[&to_local(cache.path(), ",mode=max")]);
    let absent = cache.path().join("absent");
    // Several at once: the first is not there, the second is whole.
    let built = Machine::new().build(&[&from_local(&absent), &from_local(cache.path())]);
    built.check_all_from(&local_name(cache.path()));
    let warned = format!("cache {} is not used: there is no cache", local_name(&absent));
    assert_eq!(built.stderr.matches(&warned).count(), 1, "{}", built.stderr);
    // Every blob of layers altered: each step is warned of, and runs.
    let there = Machine::new();
    for entry in fs::read_dir(cache.path().join("blobs/sha256")).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        if bytes.starts_with(&[0x1f, 0x8b]) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
            fs::write(&path, bytes).unwrap();
        }
    }
    let built = there.build(&[&from_local(cache.path())]);
    assert!(built.steps.iter().all(|step| step.ran()), "{:?}", built.steps);
    assert!(built.stderr.contains("is damaged: its bytes have the digest"), "{}", built.stderr);
    // An export writes them anew.
    let built = here.build(&[&to_local(cache.path(), ",mode=max")]);
    assert!(built.steps.iter().all(|step| *step == How::Chain));
    Machine::new().build(&[&from_local(cache.path())]).check_all_from(&local_name(cache.path()));
}

#[test]
fn root_exports_that_fail_are_warnings() {
    if !can_build() {
        return;
    }
    let here = Machine::new();
    let full = tempfile::tempdir().unwrap();
    fs::write(full.path().join("thesis.tex"), "x").unwrap();
    let good = tempfile::tempdir().unwrap();
    let built = here.build(&[&to_local(full.path(), ""), &to_local(good.path(), ",mode=max")]);
    let warned = format!("warning: cannot export the cache to {}: ", local_name(full.path()));
    assert!(built.stderr.contains(&warned), "{}", built.stderr);
    Machine::new().build(&[&from_local(good.path())]).check_all_from(&local_name(good.path()));
    let outcome = here.run(&[&to_local(full.path(), ",ignore-error=false")]);
    assert!(outcome.code == 1 && outcome.stderr.contains("error: cannot export the cache"), "{outcome}");
    assert!(here.mica.run(&["image", "inspect", "app:1"]).code == 0, "the image is there");
}
