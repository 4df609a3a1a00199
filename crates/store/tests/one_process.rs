//! What one process sees: values in, values out, and what is refused.

mod common;

use common::*;
use mica_oci::{ChainId, Digest, ImageId};
use mica_store::*;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;

fn open() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("root")).unwrap();
    (dir, store)
}

#[test]
fn a_new_store_is_private_and_opens_again() {
    let (_dir, store) = open();
    assert_eq!(std::fs::metadata(store.root()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(std::fs::read_to_string(store.root().join("format")).unwrap(), "1\n");
    Store::open(store.root()).unwrap();
    assert_eq!(store.sweep().unwrap(), Swept::default());
    check_store(store.root());
}

#[test]
fn a_newer_format_or_another_directory_is_refused() {
    let (dir, store) = open();
    std::fs::write(store.root().join("format"), "2\n").unwrap();
    let error = Store::open(store.root()).unwrap_err();
    assert!(matches!(error, StoreError::FormatTooNew { found: 2, supported: 1, .. }), "{error}");
    std::fs::write(store.root().join("format"), "rubbish").unwrap();
    assert!(matches!(Store::open(store.root()).unwrap_err(), StoreError::Corrupt { .. }));
    std::fs::create_dir(dir.path().join("home")).unwrap();
    std::fs::write(dir.path().join("home/letter"), "").unwrap();
    let error = Store::open(&dir.path().join("home")).unwrap_err();
    assert!(matches!(&error, StoreError::NotAStore { found, .. } if found == "letter"), "{error}");
}

#[test]
fn a_newer_or_damaged_database_is_refused() {
    let (_dir, store) = open();
    let path = store.root().join("state.db");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 9).unwrap();
    drop(database);
    let error = store.images().unwrap_err();
    assert!(matches!(error, StoreError::FormatTooNew { found: 9, .. }), "{error}");
    for name in ["state.db-wal", "state.db-shm"] {
        let _ = std::fs::remove_file(store.root().join(name));
    }
    std::fs::write(&path, "not a database, but long enough to look at".repeat(100)).unwrap();
    let error = Store::open(store.root()).unwrap().images().unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error}");
}

#[test]
fn blobs_are_what_their_digest_says() {
    let (_dir, store) = open();
    let digest = store.put_blob(b"hello").unwrap();
    assert_eq!(digest, Digest::sha256(b"hello"));
    assert_eq!(store.put_blob(b"hello").unwrap(), digest);
    assert!(!store.drop_damaged_blob(&digest).unwrap(), "it is whole");
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    assert!(matches!(store.read_blob(&digest, 4), Err(StoreError::BlobTooLarge { size_bytes: 5, .. })));
    let mut writer = store.blob_writer().unwrap().durable(true);
    writer.write_all(b"other").unwrap();
    assert!(matches!(writer.finish(Some(&digest)), Err(StoreError::DigestMismatch { .. })));
    assert!(!store.has_blob(&Digest::sha256(b"other")).unwrap());
    let expected = Digest::sha512(b"long");
    let mut writer = store.blob_writer_for(&expected).unwrap().durable(true);
    writer.write_all(b"long").unwrap();
    assert_eq!(writer.finish(Some(&expected)).unwrap(), (expected.clone(), 4));
    assert_eq!(store.read_blob(&expected, 100).unwrap(), b"long");
    // One byte altered on disk is noticed, and healed by storing it again.
    std::fs::write(store.blob_path(&digest), "hellO").unwrap();
    assert!(matches!(store.read_blob(&digest, 5), Err(StoreError::DigestMismatch { .. })));
    store.put_blob(b"hello").unwrap();
    assert_eq!(store.read_blob(&digest, 5).unwrap(), b"hello");
    std::fs::write(store.blob_path(&digest), "hell").unwrap();
    assert!(store.drop_damaged_blob(&digest).unwrap());
    assert!(!store.has_blob(&digest).unwrap() && !store.drop_damaged_blob(&digest).unwrap());
    assert!(matches!(store.open_blob(&Digest::sha256(b"x")), Err(StoreError::BlobMissing(_))));
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn layers_are_stored_once() {
    let (_dir, store) = open();
    let mut record = layer_record("a");
    record.origin = Some((digest("blob"), "application/x".into()));
    assert!(store.layer(&record.diff_id, None).unwrap().is_none());
    let layer = commit_layer(&store, &record).unwrap();
    assert!(layer.is_trusted && layer.tree_path().join("file").exists());
    let other = LayerRecord { origin: None, ..record.clone() };
    assert_eq!(commit_layer(&store, &other).unwrap().record, record, "the one that is there wins");
    let chain = ChainId(digest("chain"));
    let per_chain = LayerRecord { chain_id: Some(chain.clone()), ..layer_record("b") };
    commit_layer(&store, &per_chain).unwrap();
    assert!(store.layer(&per_chain.diff_id, None).unwrap().is_none());
    assert_eq!(store.layer(&per_chain.diff_id, Some(&chain)).unwrap().unwrap().record, per_chain);
    assert_eq!(store.layer(&record.diff_id, Some(&chain)).unwrap().unwrap().record, record);
    let ingest = store.ingest().unwrap();
    assert!(matches!(
        store.commit_layer(ingest, &layer_record("c")),
        Err(StoreError::IngestIncomplete { .. })
    ));
    check_store_has(&store, 2);
}

fn check_store_has(store: &Store, layers_count: usize) {
    assert_eq!(store.layers().unwrap().len(), layers_count);
    assert_eq!(std::fs::read_dir(store.root().join("layers")).unwrap().count(), layers_count);
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn a_layer_of_another_boot_needs_its_index_and_is_not_trusted() {
    let (_dir, store) = open();
    for name in ["whole", "torn", "synced"] {
        let layer = commit_layer(&store, &layer_record(name)).unwrap();
        if name == "torn" {
            std::fs::write(layer.index_path(), "").unwrap();
        }
        if name == "synced" {
            store.make_durable().unwrap();
            assert_eq!(count_at_risk(&store), 0);
            let database = rusqlite::Connection::open(store.root().join("state.db")).unwrap();
            let sql = "UPDATE layers SET boot_id='another boot' WHERE directory != ?1";
            database.execute(sql, [layer.record.diff_id.0.hex()]).unwrap();
        }
    }
    let get = |name| store.layer(&layer_record(name).diff_id, None).unwrap();
    assert!(get("torn").is_none());
    assert!(get("synced").unwrap().is_trusted);
    let whole = get("whole").unwrap();
    assert!(!whole.is_trusted);
    let ask = |name, answer| store.whole_layer(&layer_record(name).diff_id, None, |_, _| answer).unwrap();
    assert!(ask("whole", true).unwrap().is_trusted);
    assert!(get("whole").unwrap().is_trusted);
    assert!(ask("whole", false).is_some(), "what is trusted is not compared");
    let database = rusqlite::Connection::open(store.root().join("state.db")).unwrap();
    let torn = layer_record("synced").diff_id;
    database.execute("UPDATE layers SET boot_id='another boot' WHERE directory=?1", [torn.0.hex()]).unwrap();
    assert!(ask("synced", false).is_none());
    assert!(get("synced").is_none(), "a damaged layer is as absent");
    commit_layer(&store, &layer_record("torn")).unwrap();
    assert!(get("torn").unwrap().is_trusted);
    store.drop_layer(&whole).unwrap();
    assert!(get("whole").is_none());
    check_store(store.root());
}

#[test]
fn a_distrusted_layer_is_compared_or_replaced() {
    for comes_again in [false, true] {
        let (_dir, store) = open();
        let record = layer_record("a");
        let damaged = commit_layer(&store, &record).unwrap();
        store.make_durable().unwrap();
        std::fs::remove_file(damaged.tree_path().join("file")).unwrap();
        store.distrust_layer(&record.diff_id, None).unwrap();
        store.make_durable().unwrap();
        assert!(!store.layer(&record.diff_id, None).unwrap().unwrap().is_trusted);
        if comes_again {
            commit_layer(&store, &record).unwrap();
        }
        let whole = |tree: &std::path::Path, _: &std::path::Path| tree.join("file").exists();
        let layer = store.whole_layer(&record.diff_id, None, whole).unwrap();
        assert_eq!(layer.is_some_and(|layer| layer.is_trusted), comes_again);
        check_store(store.root());
    }
}

fn count_at_risk(store: &Store) -> i64 {
    let database = rusqlite::Connection::open(store.root().join("state.db")).unwrap();
    database.query_row("SELECT count(*) FROM layers WHERE boot_id != ''", [], |row| row.get(0)).unwrap()
}

#[test]
fn images_need_what_they_refer_to() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a", "b"]).unwrap();
    let mut wrong = image.clone();
    wrong.layers.push(layer_record("never").diff_id);
    assert!(matches!(store.put_image(&wrong), Err(StoreError::LayerMissing(_))));
    let wrong = ImageRecord { manifest: digest("never"), ..image.clone() };
    assert!(matches!(store.put_image(&wrong), Err(StoreError::BlobMissing(_))));
    let missing = ImageId(digest("never"));
    assert!(matches!(store.set_name("x", &missing), Err(StoreError::ImageMissing(_))));
    assert_eq!(store.image(&image.id).unwrap().unwrap(), image);
    assert_eq!(store.image_of_manifest(&image.manifest).unwrap().unwrap(), image.id);

    let two = commit_image(&store, "two", &["a"]).unwrap();
    assert_eq!(store.set_name("example.test/one:latest", &two.id).unwrap(), Some(image.id.clone()));
    let names = |id: &ImageId| {
        store.images().unwrap().into_iter().find(|image| image.record.id == *id).unwrap().names
    };
    assert_eq!(names(&two.id), ["example.test/one:latest", "example.test/two:latest"]);
    assert_eq!(names(&image.id), [""; 0]);
    assert_eq!(store.remove_name("example.test/one:latest").unwrap(), Some(two.id.clone()));
    assert_eq!(store.remove_name("example.test/one:latest").unwrap(), None);
    let hex = image.id.0.hex();
    for (prefix, count) in [(hex, 1), (&hex[..12], 1), ("", 0), ("xyz", 0), ("%", 0)] {
        assert_eq!(store.resolve_id_prefix(prefix).unwrap().len(), count, "{prefix}");
    }
    assert_eq!(store.resolve_id_prefix(&image.id.to_string()).unwrap(), std::slice::from_ref(&image.id));
    assert!(store.remove_image(&two.id).unwrap());
    assert!(!store.remove_image(&two.id).unwrap());
    assert_eq!(store.name("example.test/two:latest").unwrap(), None);
    check_store(store.root());
}

#[test]
fn cache_records_live_as_long_as_their_layer() {
    let (_dir, store) = open();
    let layer = commit_layer(&store, &layer_record("a")).unwrap();
    let record = CacheRecord::new([1; 32], layer.record.diff_id.clone(), None, b"extra".to_vec());
    assert!(!store.cache_has_shape(&[1; 32]).unwrap());
    store.cache_put(&[9; 32], &record).unwrap();
    assert!(store.cache_has_shape(&[1; 32]).unwrap());
    assert_eq!(store.cache_get(&[9; 32]).unwrap().unwrap(), record);
    assert_eq!(store.cache_get(&[8; 32]).unwrap(), None);
    let orphan = CacheRecord::new([1; 32], layer_record("never").diff_id, None, vec![]);
    assert!(matches!(store.cache_put(&[8; 32], &orphan), Err(StoreError::LayerMissing(_))));
    let old = CacheRecord { last_used_unix_s: 5, ..record.clone() };
    store.cache_put(&[7; 32], &old).unwrap();
    store.cache_get(&[7; 32]).unwrap();
    assert!(store.cache_get(&[7; 32]).unwrap().unwrap().last_used_unix_s > 5);
    store.drop_layer(&layer).unwrap();
    assert_eq!(store.cache_get(&[9; 32]).unwrap(), None);
    assert_eq!(store.cache_records().unwrap(), []);
}

#[test]
fn containers_by_name_id_and_prefix() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a"]).unwrap();
    let record = container_record('a', "first", &image);
    store.create_container(&record).unwrap();
    let again = container_record('b', "first", &image);
    assert!(
        matches!(store.create_container(&again), Err(StoreError::NameTaken { by, .. }) if by == record.id)
    );
    let mut second = container_record('b', "abc", &image);
    second.id.replace_range(0..3, "aab");
    second.volumes = vec!["data".into()];
    store.create_container(&second).unwrap();
    for (text, expect) in [
        ("first", Some("first")),
        ("abc", Some("abc")),
        ("aab", Some("abc")),
        ("aaaa", Some("first")),
        ("zz", None),
        ("", None),
    ] {
        let found = store.container(text).unwrap().map(|container| container.record.name);
        assert_eq!(found.as_deref(), expect, "{text}");
    }
    assert!(matches!(store.container("aa"), Err(StoreError::Ambiguous { ids, .. }) if ids.len() == 2));
    assert_eq!(store.container("abc").unwrap().unwrap().record, second);
    for bad in ["", "../x", "a/b", ".hidden", "a b"] {
        let record = container_record('c', bad, &image);
        assert!(matches!(store.create_container(&record), Err(StoreError::InvalidName { .. })), "{bad}");
    }
    let bad = ContainerRecord { id: "../../etc".into(), ..record.clone() };
    assert!(matches!(store.create_container(&bad), Err(StoreError::InvalidName { .. })));
    assert!(
        matches!(store.remove_image(&image.id), Err(StoreError::ImageInUse { users, .. }) if users.len() == 2)
    );
    store.create_volume("data").unwrap();
    assert!(matches!(store.remove_volume("data"), Err(StoreError::VolumeInUse { .. })));
    store.remove_container(&second.id).unwrap();
    store.remove_volume("data").unwrap();
    assert!(matches!(store.remove_container(&second.id), Err(StoreError::ContainerMissing(_))));
    assert_eq!(store.containers().unwrap().len(), 1);
    check_store(store.root());
}

#[test]
fn running_needs_a_monitor_that_lives() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a"]).unwrap();
    let record = ContainerRecord { remove_on_exit: true, ..container_record('a', "first", &image) };
    store.create_container(&record).unwrap();
    let running = ContainerState::Running { pid: 1, started_unix_ns: 3 };
    let monitor = store.hold_container(&record.id).unwrap();
    store.update_state(&record.id, &running).unwrap();
    assert_eq!(store.container("first").unwrap().unwrap().record.state, running);
    assert!(matches!(store.remove_container(&record.id), Err(StoreError::ContainerRunning(_))));
    assert_eq!(store.sweep().unwrap(), Swept::default());
    drop(monitor);
    let state = store.container("first").unwrap().unwrap().record.state;
    assert!(matches!(state, ContainerState::Exited { code: 137, finished_unix_ns: None, .. }), "{state:?}");
    assert_eq!(store.sweep().unwrap(), Swept { containers: 1, ..Swept::default() });
    assert!(store.container("first").unwrap().is_none());
    assert!(!store.root().join("containers").join(&record.id).exists());
}

#[test]
fn collection_keeps_what_is_needed() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a", "b"]).unwrap();
    let container = container_record('c', "c", &image);
    store.create_container(&container).unwrap();
    let loose = commit_layer(&store, &layer_record("loose")).unwrap();
    store.put_blob(b"loose").unwrap();
    std::fs::create_dir(store.root().join("layers/orphan")).unwrap();
    let freed = store.gc(GcOptions::default()).unwrap();
    assert_eq!((freed.layers, freed.blobs, freed.cache_records), (1, 1, 2));
    assert!(!loose.path().exists() && !store.root().join("layers/orphan").exists());
    check_store_has(&store, 2);
    store.remove_container(&container.id).unwrap();
    store.remove_image(&image.id).unwrap();
    let freed = store.gc(GcOptions::default()).unwrap();
    assert_eq!((freed.layers, freed.blobs), (2, 2));
    check_store_has(&store, 0);
    // A layer that only a record needs goes with the record.
    let image = commit_image(&store, "one", &["a"]).unwrap();
    store.remove_image(&image.id).unwrap();
    assert_eq!(store.gc(GcOptions { keep_cache: true, ..Default::default() }).unwrap().layers, 0);
    let unused_for = Some(std::time::Duration::from_secs(3600));
    assert_eq!(store.gc(GcOptions { cache_unused_for: unused_for, ..Default::default() }).unwrap().layers, 0);
    assert_eq!(store.gc(GcOptions::default()).unwrap().layers, 1);
    check_store(store.root());
}

#[test]
fn collection_keeps_what_a_living_lease_protects() {
    let (_dir, store) = open();
    let used = commit_layer(&store, &layer_record("used")).unwrap();
    let unused = commit_layer(&store, &layer_record("unused")).unwrap();
    let blob = store.put_blob(b"used").unwrap();
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(5000);
    let set_old = || {
        let database = rusqlite::Connection::open(store.root().join("state.db")).unwrap();
        database.execute("UPDATE layers SET last_used=5", []).unwrap();
        std::fs::File::open(store.blob_path(&blob)).unwrap().set_modified(old).unwrap();
    };
    set_old();
    let lease = store.lease().unwrap();
    assert!(lease.protect_layer(&used.record.diff_id, None).unwrap());
    assert!(!lease.protect_layer(&layer_record("never").diff_id, None).unwrap());
    assert!(lease.protect_blob(&blob).unwrap());
    let made = commit_layer(&store, &layer_record("made under it")).unwrap();
    let other = Store::open(store.root()).unwrap();
    assert_eq!(other.sweep().unwrap(), Swept::default());
    assert_eq!(other.gc(GcOptions::default()).unwrap().layers, 1);
    assert!(used.path().exists() && made.path().exists() && !unused.path().exists());
    assert!(store.has_blob(&blob).unwrap());
    drop(lease);
    let freed = other.gc(GcOptions::default()).unwrap();
    assert_eq!((freed.layers, freed.blobs), (2, 1));
}

#[test]
fn volumes_and_cache_mounts() {
    let (_dir, store) = open();
    for bad in ["", ".", "..", "a/b", "../x", "-x"] {
        assert!(matches!(store.create_volume(bad), Err(StoreError::InvalidName { .. })), "{bad}");
        assert!(store.volume(bad).unwrap().is_none());
    }
    let (volume, is_new) = store.create_volume("data").unwrap();
    assert!(is_new && volume.data_path.is_dir());
    assert_eq!(store.create_volume("data").unwrap(), (volume.clone(), false));
    assert_eq!(store.volumes().unwrap(), [volume]);
    store.remove_volume("data").unwrap();
    assert!(matches!(store.remove_volume("data"), Err(StoreError::VolumeMissing(_))));

    let begin = |directory: &std::path::Path| -> Result<_> {
        let path = directory.join("begun");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("first"), b"").unwrap();
        Ok(path)
    };
    let try_open = |sharing| store.try_cache_mount("/root/../.cache", sharing, &begin).unwrap();
    let open = |sharing| try_open(sharing).unwrap();
    let (a, b) = (open(CacheMountSharing::Shared), open(CacheMountSharing::Shared));
    assert_eq!(a.path(), b.path());
    assert!(a.path().join("first").exists());
    assert!(try_open(CacheMountSharing::Locked).is_none());
    let private = open(CacheMountSharing::Private);
    assert_ne!(a.path(), private.path());
    assert!(private.path().join("first").exists());
    drop(private);
    let failing = |_: &std::path::Path| -> Result<_> {
        Err(StoreError::InvalidName { what: "test", value: String::new() })
    };
    assert!(store.try_cache_mount("other", CacheMountSharing::Shared, &failing).is_err());
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
    std::fs::write(a.path().join("file"), vec![1; 5000]).unwrap();
    let options = GcOptions { cache_mounts: true, ..Default::default() };
    assert_eq!(store.gc(options).unwrap().cache_mounts, 1, "the one in use stays");
    assert!(a.path().join("file").exists());
    let path = a.path().to_path_buf();
    drop((a, b));
    assert_eq!(store.gc(options).unwrap().cache_mounts, 1);
    assert!(!path.exists());
}

#[test]
fn a_container_whose_maker_died_before_it_ran_is_swept() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a"]).unwrap();
    let record = |letter, name: &str| ContainerRecord {
        remove_on_exit: true,
        state: ContainerState::Created,
        ..container_record(letter, name, &image)
    };
    store.create_container(&record('a', "for-later")).unwrap();
    let (_, starting) = store.create_starting_container(&record('b', "at-once")).unwrap();
    assert_eq!(store.sweep().unwrap().containers, 0, "its maker is at work");
    drop(starting);
    assert_eq!(store.sweep().unwrap().containers, 1);
    assert!(store.container("at-once").unwrap().is_none());
    assert!(store.container("for-later").unwrap().is_some());
}

#[test]
fn usage_adds_up() {
    let (_dir, store) = open();
    let image = commit_image(&store, "one", &["a", "b"]).unwrap();
    commit_image(&store, "two", &["a"]).unwrap();
    let container = store.create_container(&container_record('c', "c", &image)).unwrap();
    std::fs::write(container.path().join("log"), vec![1; 10_000]).unwrap();
    let lonely = commit_layer(&store, &layer_record("cache only")).unwrap();
    store.cache_put(&[1; 32], &CacheRecord::new([1; 32], lonely.record.diff_id, None, vec![])).unwrap();
    let usage = store.usage().unwrap();
    assert_eq!((usage.images.count, usage.images.active_count), (2, 1));
    assert_eq!(usage.images.size_bytes - usage.blobs_size_bytes, 2 * 4096);
    // All but the image of the container: config and manifest of the other.
    assert_eq!(usage.images.reclaimable_bytes, usage.blobs_size_bytes / 2);
    assert_eq!((usage.containers.count, usage.containers.active_count), (1, 0));
    assert!(usage.containers.size_bytes >= 10_000);
    assert_eq!(usage.cache.count, 3);
    assert!(usage.cache.size_bytes >= 4096);
}

#[test]
fn random_names_are_names() {
    for attempt in 0..20 {
        let name = random_name(attempt).unwrap();
        assert!(name.split_once('_').is_some_and(|(a, b)| !a.is_empty() && !b.is_empty()), "{name}");
    }
    assert_eq!(random_container_id().unwrap().len(), 64);
}

#[test]
fn root_removal_does_not_enter_a_mount() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: not root");
        return;
    }
    let (dir, store) = open();
    let image = commit_image(&store, "one", &["a"]).unwrap();
    let container = store.create_container(&container_record('a', "first", &image)).unwrap();
    let outside = dir.path().join("outside");
    std::fs::create_dir_all(outside.join("precious")).unwrap();
    let inside = container.path().join("merged");
    std::fs::create_dir(&inside).unwrap();
    // The same filesystem, so the device number alone would not tell.
    if let Err(error) = rustix::mount::mount_bind(&outside, &inside) {
        println!("skipped: no mounts: {error}");
        return;
    }
    let removed = store.remove_container(&container.record.id);
    let swept = store.sweep();
    let kept = outside.join("precious").exists();
    let trash = std::fs::read_dir(store.root().join("ingest")).unwrap().next().unwrap().unwrap().path();
    let moved = trash.join(format!("containers+{}", container.record.id)).join("merged");
    rustix::mount::unmount(&moved, rustix::mount::UnmountFlags::DETACH).unwrap();
    removed.unwrap();
    assert!(kept, "removal went through the mount");
    assert_eq!(swept.unwrap(), Swept { failed: 1, ..Swept::default() });
    assert_eq!(store.sweep().unwrap(), Swept { removals: 1, ..Swept::default() });
    check_store(store.root());
}

#[test]
fn failed_steps_are_few_and_keep_what_they_stand_on() {
    let (_dir, store) = open();
    let below = commit_layer(&store, &layer_record("below")).unwrap().record.diff_id;
    let keep = |context: &str| {
        let ingest = store.ingest().unwrap();
        std::fs::write(ingest.tree().join("left"), context).unwrap();
        store.keep_failed_step(ingest, context, context.as_bytes(), &[(below.clone(), None)]).unwrap()
    };
    let contexts = || {
        let steps = store.failed_steps().unwrap();
        steps.iter().map(|step| step.context.clone()).collect::<Vec<_>>().join(" ")
    };
    keep("a");
    let newer = keep("a");
    assert_eq!(contexts(), "a");
    let step = store.failed_steps().unwrap().remove(0);
    assert_eq!((step.id, step.description), (newer, b"a".to_vec()));
    for context in ["b", "c", "d", "e"] {
        keep(context);
    }
    assert_eq!(contexts(), "e d c b");
    store.forget_failed_steps("d").unwrap();
    store.forget_failed_steps("x").unwrap();
    assert_eq!(contexts(), "e c b");
    assert_eq!(store.gc(GcOptions::default()).unwrap().layers, 0, "they stand on it");
    // Somebody looks at one.
    let step = store.failed_steps().unwrap().remove(1);
    assert_eq!(std::fs::read_to_string(step.tree().join("left")).unwrap(), "c");
    let held = step.hold().unwrap().unwrap();
    let all = GcOptions { failed_steps: true, ..GcOptions::default() };
    let freed = store.gc(all).unwrap();
    assert_eq!((freed.failed_steps, freed.layers), (2, 0));
    assert_eq!(contexts(), "c");
    drop(held);
    let freed = store.gc(all).unwrap();
    assert_eq!((freed.failed_steps, freed.layers), (1, 1));
    assert!(step.hold().unwrap().is_none());
    let too_long = vec![0; FAILED_DESCRIPTION_BYTES_MAX + 1];
    let refused = store.keep_failed_step(store.ingest().unwrap(), "a", &too_long, &[]);
    assert!(matches!(refused, Err(StoreError::RecordTooLarge { .. })));
    assert_eq!(std::fs::read_dir(store.root().join("ingest")).unwrap().count(), 0);
}
