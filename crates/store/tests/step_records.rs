//! Records of steps and reports of builds: in which order they come, what renews, evicts and ends them; and what
//! becomes of a layer that is forgotten.

mod common;

use common::*;
use mica_oci::{ChainId, DiffId, ImageId};
use mica_store::*;
use std::time::Duration;

const HOUR: Option<Duration> = Some(Duration::from_secs(3600));
const ALL: GcOptions = GcOptions {
    keep_cache: false,
    cache_unused_for: None,
    cache_mounts: false,
    keep_downloads: false,
    failed_steps: false,
};

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    (dir, store)
}

fn alter(store: &Store, sql: &str) {
    rusqlite::Connection::open(store.root().join("state.db")).unwrap().execute(sql, []).unwrap();
}

/// What is done to a store. A record's layer and inputs are named by one letter each; keys are numbers.
enum Do {
    /// Key, family, layers and inputs of the records, two letters each, or one for a record without inputs.
    Put(u8, u8, &'static str),
    /// The directory of a layer vanishes, its row stays.
    Lose(&'static str),
    Forget(&'static str),
    Age,
    /// The record of key 1 with those inputs was used.
    Touch(&'static str),
    Gc(GcOptions),
}

#[test]
fn the_contract_of_records() {
    use Do::*;
    let keep = GcOptions { keep_cache: true, ..ALL };
    let old = GcOptions { cache_unused_for: HOUR, ..ALL };
    // Inputs of the records of key 1, the newest first, and of the newest of family 1.
    check("nothing", &[], "", "");
    check("the newest first", &[Put(1, 1, "Aa Bb Cc")], "c b a", "c");
    check("one layer, several inputs", &[Put(1, 1, "Aa Ab")], "b a", "b");
    check("the same inputs, several layers", &[Put(1, 1, "Aa Ba")], "a a", "a");
    check("renewed, not doubled", &[Put(1, 1, "Aa Bb Aa")], "a b", "a");
    check("eight are kept", &[Put(1, 1, "Aa Ab Ac Ad Ae Af Ag Ah Ai Aj")], "j i h g f e d c", "j");
    check("the renewed is kept", &[Put(1, 1, "Aa Ab Ac Ad Ae Af Ag Ah Aa Ai")], "i a h g f e d c", "i");
    check("one without inputs", &[Put(1, 1, "Aa A B C")], "- a", "-");
    check("it pushes out one", &[Put(1, 1, "Aa Ab Ac Ad Ae Af Ag Ah A B C")], "- h g f e d c b", "-");
    check("it gets old", &[Put(1, 1, "A Aa Ab Ac Ad Ae Af Ag Ah")], "h g f e d c b a", "h");
    check("keys apart", &[Put(1, 1, "Aa"), Put(2, 1, "Ab Ac Ad Ae Af Ag Ah Ai Aj")], "a", "j");
    check("families apart", &[Put(1, 1, "Aa"), Put(2, 2, "Ab")], "a", "a");
    check("the family is renewed too", &[Put(1, 2, "Aa"), Put(1, 1, "Aa")], "a", "a");
    check("a lost layer", &[Put(1, 1, "Aa Bb Cc"), Lose("B"), Lose("C")], "a", "a");
    check("a forgotten layer", &[Put(1, 1, "Aa Bb Ac"), Forget("A")], "b", "b");
    check("collected", &[Put(1, 1, "Aa Bb"), Gc(ALL)], "", "");
    check("kept", &[Put(1, 1, "Aa Bb"), Age, Gc(keep)], "b a", "b");
    check("young", &[Put(1, 1, "Aa Bb"), Gc(old)], "b a", "b");
    check("old", &[Put(1, 1, "Aa Bb"), Age, Gc(old)], "", "");
    check("old but used", &[Put(1, 1, "Aa Bb"), Age, Touch("a"), Gc(old)], "a", "a");
    check("old but renewed", &[Put(1, 1, "Aa Bb"), Age, Put(1, 1, "Aa"), Gc(old)], "a", "a");
}

fn check(name: &str, actions: &[Do], of_key: &str, of_family: &str) {
    let (_dir, store) = open();
    for action in actions {
        match action {
            Do::Put(key, family, records) => {
                for record in records.split(' ') {
                    let (layer, inputs) = record.split_at(1);
                    commit_layer(&store, &layer_record(layer)).unwrap();
                    let record = StepRecord { family: [*family; 32], ..step_record([*key; 32], layer) };
                    let id = store.put_step_record(&record, inputs.as_bytes()).unwrap();
                    let expected = StepRecord { id, inputs_bytes: inputs.len() as u64, ..record };
                    assert_eq!(store.step_record(id).unwrap(), Some(expected), "{name}");
                }
            }
            Do::Lose(layer) => {
                let layer = store.layer(&layer_record(layer).diff_id, None).unwrap().unwrap();
                std::fs::remove_dir_all(layer.path()).unwrap();
            }
            Do::Forget(layer) => {
                store.forget_layer(&layer_record(layer).diff_id, None).unwrap();
            }
            Do::Age => alter(&store, "UPDATE step_records SET last_used=5"),
            Do::Touch(inputs) => {
                for record in store.step_records(&[1; 32]).unwrap() {
                    if store.step_inputs(record.id).unwrap().unwrap() == inputs.as_bytes() {
                        store.touch_step_record(record.id).unwrap();
                    }
                }
            }
            Do::Gc(options) => {
                store.gc(*options).unwrap();
            }
        }
    }
    let inputs = |record: StepRecord| match store.step_inputs(record.id).unwrap().unwrap() {
        none if none.is_empty() => "-".to_owned(),
        inputs => String::from_utf8(inputs).unwrap(),
    };
    let records = store.step_records(&[1; 32]).unwrap();
    assert_eq!(records.into_iter().map(inputs).collect::<Vec<_>>().join(" "), of_key, "{name}");
    let newest = store.records_of_family(&[1; 32]).unwrap().into_iter().next();
    assert_eq!(newest.map(inputs).unwrap_or_default(), of_family, "{name}: the newest of the family");
    if !actions.iter().any(|action| matches!(action, Do::Lose(_))) {
        check_store(store.root());
    }
}

#[test]
fn ids_are_never_given_again_and_renewal_keeps_them() {
    let (_dir, store) = open();
    commit_layer(&store, &layer_record("a")).unwrap();
    let record = step_record([1; 32], "a");
    let put = |inputs: &[u8]| store.put_step_record(&record, inputs).unwrap();
    let (first, second) = (put(b"1"), put(b"2"));
    assert_eq!(put(b"1"), first);
    assert_ne!(first, second);
    store.gc(ALL).unwrap();
    commit_layer(&store, &layer_record("a")).unwrap();
    assert!(put(b"3") > second);
    assert_eq!(store.step_record(first).unwrap(), None);
    assert_eq!(store.step_inputs(first).unwrap(), None);
    store.touch_step_record(first).unwrap();
}

#[test]
fn last_used_is_not_written_more_often_than_daily() {
    let (_dir, store) = open();
    commit_layer(&store, &layer_record("a")).unwrap();
    let id = store.put_step_record(&step_record([1; 32], "a"), b"").unwrap();
    let last_used = || -> i64 {
        let database = rusqlite::Connection::open(store.root().join("state.db")).unwrap();
        database.query_row("SELECT last_used FROM step_records", [], |row| row.get(0)).unwrap()
    };
    let now = last_used();
    for (age_s, is_written) in [(3600, false), (23 * 3600, false), (25 * 3600, true)] {
        alter(&store, &format!("UPDATE step_records SET last_used={now}-{age_s}"));
        store.touch_step_record(id).unwrap();
        assert_eq!(last_used() >= now, is_written, "{age_s}");
    }
}

#[test]
fn what_is_too_large_or_leads_nowhere_is_refused() {
    let (_dir, store) = open();
    let record = step_record([1; 32], "a");
    assert!(matches!(store.put_step_record(&record, b""), Err(StoreError::LayerMissing(_))));
    let chained = StepRecord { chain_id: Some(ChainId(digest("chain"))), ..record.clone() };
    commit_layer(&store, &layer_record("a")).unwrap();
    assert!(matches!(store.put_step_record(&chained, b""), Err(StoreError::LayerMissing(_))));
    let nobody = ImageId(digest("never"));
    assert!(matches!(store.put_build_report(&nobody, b""), Err(StoreError::ImageMissing(_))));
    let mut bytes = vec![7; STEP_INPUTS_BYTES_MAX as usize];
    let id = store.put_step_record(&record, &bytes).unwrap();
    assert_eq!(store.step_inputs(id).unwrap().unwrap(), bytes);
    bytes.push(7);
    let large = StepRecord { extra: vec![0; STEP_EXTRA_BYTES_MAX as usize + 1], ..record.clone() };
    for refused in [
        store.put_step_record(&record, &bytes).map(|_| ()),
        store.put_step_record(&large, b"").map(|_| ()),
        store.put_build_report(&nobody, &bytes),
    ] {
        assert!(matches!(&refused, Err(StoreError::RecordTooLarge { .. })), "{refused:?}");
    }
    assert_eq!(store.step_records(&[1; 32]).unwrap().len(), 1);
}

#[test]
fn a_report_lives_as_long_as_its_image() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a"]).unwrap();
    assert_eq!(store.build_report(&image.id).unwrap(), None);
    for report in [&b"first"[..], b"", b"second", b"second"] {
        store.put_build_report(&image.id, report).unwrap();
        assert_eq!(store.build_report(&image.id).unwrap().unwrap(), report);
    }
    // The same image again keeps it.
    commit_image(&store, "one", &["a"]).unwrap();
    assert!(store.build_report(&image.id).unwrap().is_some());
    let watcher = rusqlite::Connection::open(store.root().join("state.db")).unwrap();
    let version = || -> i64 { watcher.pragma_query_value(None, "data_version", |row| row.get(0)).unwrap() };
    let before = version();
    store.put_build_report(&image.id, b"second").unwrap();
    assert_eq!(version(), before, "the same bytes are not written again");
    store.put_build_report(&image.id, b"third").unwrap();
    assert_ne!(version(), before);
    store.remove_image(&image.id).unwrap();
    assert_eq!(store.build_report(&image.id).unwrap(), None);
    check_store(store.root());
}

#[test]
fn a_record_keeps_its_layer_and_is_counted() {
    let (_dir, store) = open();
    commit_layer(&store, &layer_record("a")).unwrap();
    let inputs = vec![5; 3 << 20];
    store.put_step_record(&step_record([1; 32], "a"), &inputs).unwrap();
    assert_eq!(store.gc(GcOptions { keep_cache: true, ..ALL }).unwrap(), Freed::default());
    let disk = || tree_size_bytes(store.root()).unwrap();
    let sum = |usage: &Usage| {
        let kinds = [&usage.images, &usage.containers, &usage.volumes, &usage.cache];
        kinds.iter().map(|of| of.size_bytes).sum::<u64>() + usage.own_size_bytes
    };
    let Download::Partial(mut download) = store.download(&digest("cut short"), &mut || ()).unwrap() else {
        panic!("it is not stored");
    };
    download.append(&inputs).unwrap();
    drop(download);
    let usage = store.usage().unwrap();
    assert_eq!(usage.images.reclaimable_bytes, inputs.len() as u64);
    assert_eq!(usage.cache.count, 1);
    assert_eq!(usage.cache.size_bytes, 4096 + inputs.len() as u64);
    // The root, `layers`, `containers` and `volumes` themselves, and what a test's layer takes beside its 4096.
    assert!(sum(&usage).abs_diff(disk()) < 64 << 10, "{} {}", sum(&usage), disk());
    store.make_durable().unwrap();
    assert_eq!(store.gc(GcOptions { keep_cache: true, ..ALL }).unwrap().downloads, 1);
    let before = disk();
    let freed = store.gc(ALL).unwrap();
    assert_eq!((freed.cache_records, freed.layers), (1, 1));
    assert_eq!(freed.bytes, 4096 + inputs.len() as u64);
    assert!(before - disk() >= inputs.len() as u64, "the database shrinks: {before} {}", disk());
    assert_eq!(store.usage().unwrap().cache, UsageOf::default());
}

/// What a damaged layer stands for.
fn damage(store: &Store, diff_id: &DiffId) {
    let layer = store.layer(diff_id, None).unwrap().unwrap();
    std::fs::write(layer.tree_path().join("file"), "rubbish").unwrap();
}

#[test]
fn a_forgotten_layer_is_made_again_and_heals_its_images() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a", "b"]).unwrap();
    let unnamed = ImageRecord { id: ImageId(store.put_blob(b"other").unwrap()), ..image.clone() };
    store.put_image(&unnamed).unwrap();
    let record = layer_record("b");
    store.put_step_record(&step_record([1; 32], "b"), b"inputs").unwrap();
    store.put_step_record(&step_record([1; 32], "a"), b"inputs").unwrap();
    damage(&store, &record.diff_id);
    // Made again without being forgotten, the one that is there stays.
    commit_layer(&store, &record).unwrap();
    let text = |diff_id| {
        let layer = store.layer(diff_id, None).unwrap().unwrap();
        std::fs::read_to_string(layer.tree_path().join("file")).unwrap()
    };
    assert_eq!(text(&record.diff_id), "rubbish");

    let mut images = vec!["example.test/one:latest".to_owned(), unnamed.id.to_string()];
    images.sort();
    let removed = Forgotten::Removed { images, origin: None, records_count: 2 };
    assert_eq!(store.forget_layer(&record.diff_id, None).unwrap(), removed);
    assert_eq!(store.forget_layer(&record.diff_id, None).unwrap(), Forgotten::Absent);
    assert!(store.layer(&record.diff_id, None).unwrap().is_none());
    assert_eq!(store.image(&image.id).unwrap().unwrap(), image);
    assert_eq!(store.step_records(&[1; 32]).unwrap().len(), 1, "that of the other layer");
    assert_eq!(store.cache_get(&blake("b")).unwrap(), None);
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
    store.gc(GcOptions { keep_cache: true, ..ALL }).unwrap();

    commit_layer(&store, &record).unwrap();
    assert_eq!(text(&record.diff_id), record.diff_id.to_string());
    check_store(store.root());
}

#[test]
fn a_layer_under_a_running_container_is_not_pulled_away() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a"]).unwrap();
    store.put_step_record(&step_record([1; 32], "a"), b"inputs").unwrap();
    let container = container_record('a', "first", &image);
    store.create_container(&container).unwrap();
    let monitor = store.hold_container(&container.id).unwrap();
    let diff_id = &image.layers[0];
    let in_use = Forgotten::InUse { containers: vec![container.id.clone()], records_count: 2 };
    assert_eq!(store.forget_layer(diff_id, None).unwrap(), in_use);
    assert!(store.layer(diff_id, None).unwrap().is_some());
    assert_eq!(store.cache_get(&blake("a")).unwrap(), None);
    drop(monitor);
    let images = vec!["example.test/one:latest".to_owned()];
    let removed = Forgotten::Removed { images, origin: None, records_count: 0 };
    assert_eq!(store.forget_layer(diff_id, None).unwrap(), removed);
}

#[test]
fn a_layer_of_a_chain_is_forgotten_apart() {
    let (_dir, store) = open();
    let chain = |text| Some(ChainId(digest(text)));
    let origin = Some((digest("blob"), "application/x".to_owned()));
    for chain_id in [chain("one"), chain("two")] {
        let record = LayerRecord { chain_id, origin: origin.clone(), ..layer_record("a") };
        commit_layer(&store, &record).unwrap();
    }
    let diff_id = layer_record("a").diff_id;
    assert_eq!(store.forget_layer(&diff_id, None).unwrap(), Forgotten::Absent);
    let removed = Forgotten::Removed { images: vec![], origin, records_count: 0 };
    assert_eq!(store.forget_layer(&diff_id, chain("one").as_ref()).unwrap(), removed);
    assert!(store.layer(&diff_id, chain("one").as_ref()).unwrap().is_none());
    assert!(store.layer(&diff_id, chain("two").as_ref()).unwrap().is_some());
}
