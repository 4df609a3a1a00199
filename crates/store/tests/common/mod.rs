//! Small layers and images, and the invariants every store must have at every moment.

#![allow(dead_code)]

use mica_oci::{DiffId, Digest, ImageId};
use mica_store::*;
use std::path::Path;

pub fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

pub fn layer_record(text: &str) -> LayerRecord {
    LayerRecord {
        diff_id: DiffId(digest(text)),
        chain_id: None,
        size_bytes: 4096,
        tar_size_bytes: 1024,
        origin: None,
    }
}

pub fn commit_layer(store: &Store, record: &LayerRecord) -> Result<Layer> {
    let ingest = store.ingest()?;
    std::fs::write(ingest.tree().join("file"), record.diff_id.to_string())
        .map_err(|error| at("write", error))?;
    std::fs::write(ingest.index(), record.diff_id.to_string()).map_err(|error| at("write", error))?;
    store.commit_layer(ingest, record)
}

fn at(call: &'static str, error: std::io::Error) -> StoreError {
    mica_sys::Error::new(call, "ingest", error).into()
}

/// An image of `layers`, with a name and a build cache record for each layer.
pub fn commit_image(store: &Store, text: &str, layers: &[&str]) -> Result<ImageRecord> {
    let config = store.put_blob(format!("config {text}").as_bytes())?;
    let manifest = store.put_blob(format!("manifest {text}").as_bytes())?;
    let mut cache = Vec::new();
    let mut diff_ids = Vec::new();
    for layer in layers {
        let record = layer_record(layer);
        commit_layer(store, &record)?;
        let key = *blake(layer);
        cache.push((key, CacheRecord::new([7; 32], record.diff_id.clone(), None, vec![1])));
        diff_ids.push(record.diff_id);
    }
    let record = ImageRecord {
        id: ImageId(config),
        manifest,
        layers: diff_ids,
        parent: None,
        created: "2026-01-01T00:00:00Z".into(),
        size_bytes: 10,
        architecture: "amd64".into(),
        os: "linux".into(),
        variant: String::new(),
    };
    let name = format!("example.test/{text}:latest");
    store.commit_image(&record, &ImageCommit { names: &[&name], cache: &cache, ..ImageCommit::default() })?;
    Ok(record)
}

/// A record of a step that made the layer `text`.
pub fn step_record(key: [u8; 32], text: &str) -> StepRecord {
    StepRecord::new(key, [9; 32], DiffId(digest(text)), None, vec![1])
}

/// Any 32 bytes that depend on the text.
pub fn blake(text: &str) -> Box<[u8; 32]> {
    let mut key = [0u8; 32];
    for (place, byte) in key.iter_mut().zip(digest(text).hex().bytes()) {
        *place = byte;
    }
    Box::new(key)
}

pub fn container_record(id_digit: char, name: &str, image: &ImageRecord) -> ContainerRecord {
    ContainerRecord {
        id: id_digit.to_string().repeat(64),
        name: name.into(),
        image: image.id.clone(),
        image_name: "example".into(),
        created_unix_ns: 5,
        config: b"{}".to_vec(),
        state: ContainerState::Created,
        remove_on_exit: false,
        volumes: vec![],
    }
}

/// What must hold in any store that was swept, whatever happened to those who wrote to it.
pub fn check_store(root: &Path) {
    let store = Store::open(root).unwrap();
    store.sweep().unwrap();
    // But for downloads, which are gone on with.
    for entry in std::fs::read_dir(root.join("ingest")).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(name.to_string_lossy().starts_with("download-"), "{name:?} is left after a sweep");
    }
    for image in store.images().unwrap() {
        store.read_blob(&image.record.id.0, 1 << 20).unwrap();
        store.read_blob(&image.record.manifest, 1 << 20).unwrap();
        for diff_id in &image.record.layers {
            check_layer(&store, diff_id);
        }
        assert_eq!(store.image(&image.record.id).unwrap().unwrap(), image.record);
        for name in &image.names {
            assert_eq!(store.name(name).unwrap().unwrap(), image.record.id);
        }
    }
    for record in store.layers().unwrap() {
        check_layer(&store, &record.diff_id);
    }
    for (key, record) in store.cache_records().unwrap() {
        assert_eq!(store.cache_get(&key).unwrap().unwrap(), record);
    }
    for container in store.containers().unwrap() {
        assert!(container.path().join("config.json").exists());
    }
    let database = rusqlite::Connection::open(root.join("state.db")).unwrap();
    check_step_records(&store, &database);
    let integrity = database.query_row("PRAGMA integrity_check", [], |row| row.get::<_, String>(0)).unwrap();
    assert_eq!(integrity, "ok");
}

/// Records of steps are bounded, whole, and lead to a layer that is there; nothing refers to what is gone.
fn check_step_records(store: &Store, database: &rusqlite::Connection) {
    let mut statement = database.prepare("SELECT key, count(*) FROM step_records GROUP BY key").unwrap();
    let keys = statement.query_map([], |row| Ok((row.get::<_, [u8; 32]>(0)?, row.get::<_, u32>(1)?)));
    for (key, count) in keys.unwrap().map(rusqlite::Result::unwrap) {
        assert!(count <= STEP_RECORDS_MAX, "{count} records of one key");
        let records = store.step_records(&key).unwrap();
        assert_eq!(records.len(), count as usize, "every record has its layer");
        for record in records {
            let inputs = store.step_inputs(record.id).unwrap().unwrap();
            assert_eq!(inputs.len() as u64, record.inputs_bytes);
        }
    }
    let mut statement = database.prepare("PRAGMA foreign_key_check").unwrap();
    assert!(statement.query([]).unwrap().next().unwrap().is_none(), "a row refers to what is gone");
}

fn check_layer(store: &Store, diff_id: &DiffId) {
    let layer = store.layer(diff_id, None).unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(layer.index_path()).unwrap(), diff_id.to_string());
    assert_eq!(std::fs::read_to_string(layer.tree_path().join("file")).unwrap(), diff_id.to_string());
}
