//! A store with layers, and results that stand on them.
#![allow(dead_code, reason = "each test program uses its part")]

use std::fs::File;
use std::path::Path;

use mica_cache::{ExportOptions, ExportedStep, Imports, Mode, Place};
use mica_layer::apply::{ApplyContext, Mapping, NoParents, apply_layer};
use mica_layer::tar_entry::TarLimits;
use mica_layer::write_tar::write_tar;
use mica_oci::{DiffId, Digest};
use mica_store::{LayerRecord, StepRecord, Store};
use mica_testkit::tar::{Entry, Writer};
use mica_tree::{Index, Kind};
use sha2::{Digest as _, Sha256};

pub const MAPPING: Mapping = Mapping::Rootless { userxattr: true, ignore_unmapped: true };

pub struct Bench {
    pub dir: tempfile::TempDir,
    pub store: Store,
}

pub fn key(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

impl Bench {
    pub fn new() -> Bench {
        let dir = mica_testkit::Mica::temporary_dir();
        let store = Store::open(&dir.path().join("r")).expect("a store");
        Bench { dir, store }
    }

    /// A layer as a step leaves one: `etc` is there only for what is in it.
    pub fn layer(&self, name: &str, content: &[u8]) -> DiffId {
        let mut directory = Entry::dir("etc");
        directory.mode = 0o2750;
        let tar = Writer::default()
            .add(directory, b"")
            .add(Entry::file(&format!("etc/{name}")), content)
            .add(Entry::file("etc/.wh.gone"), b"")
            .finish();
        let ingest = self.store.ingest().expect("an ingest");
        let tree = File::open(ingest.tree()).expect("a tree");
        let context = ApplyContext { lower: &NoParents, mapping: MAPPING, limits: TarLimits::default() };
        let mut entries = apply_layer(&tar[..], &tree, &context).expect("a layer").entries;
        for entry in &mut entries {
            if let Kind::Directory { implied, .. } = &mut entry.kind {
                *implied = true;
            }
        }
        let index = Index::from_sorted(entries);
        let mut bytes = Vec::new();
        let path = ingest.tree();
        let mut open = |entry: &mica_tree::Entry| {
            File::open(path.join(std::str::from_utf8(&entry.path).expect("a name")))
        };
        write_tar(&index, &mut open, &mut bytes).expect("a tar");
        std::fs::write(ingest.index(), index.encode()).expect("an index");
        let diff_id = DiffId(Digest::sha256(&bytes));
        let record = LayerRecord {
            diff_id: diff_id.clone(),
            chain_id: None,
            size_bytes: 1,
            tar_size_bytes: bytes.len() as u64,
            origin: None,
        };
        self.store.commit_layer(ingest, &record).expect("a layer");
        diff_id
    }

    /// A result with a layer of its own, found by `exact-NAME` and `record-NAME`.
    pub fn step(&self, name: &str, inputs: &[u8]) -> ExportedStep {
        let diff_id = self.layer(name, format!("the content of {name}").as_bytes());
        let (record, family) = (key(&format!("record-{name}")), key("family"));
        let facts = br#"{"created_seconds":7}"#.to_vec();
        let kept = StepRecord::new(record, family, diff_id.clone(), None, facts.clone());
        let inputs = self.store.put_step_record(&kept, inputs).expect("a record");
        ExportedStep {
            exact: Some(key(&format!("exact-{name}"))),
            record: Some(record),
            family,
            shape: key("shape"),
            diff_id,
            chain_id: None,
            made_unix_s: 11,
            created_seconds: 7,
            network: Some(true),
            facts: Some(facts),
            inputs: Some(inputs),
            is_in_image: true,
        }
    }

    pub fn export(&self, place: &dyn Place, steps: &[ExportedStep]) -> mica_cache::Exported {
        let options = ExportOptions { mode: Mode::Max, threads: 2, ..ExportOptions::default() };
        mica_cache::export(place, &self.store, steps, &[], &Imports::default(), &options).expect("an export")
    }
}

/// Bytes that do not compress.
pub fn noise(size: usize) -> Vec<u8> {
    let blocks = (0..size.div_ceil(32)).flat_map(|at| key(&at.to_string()));
    blocks.take(size).collect()
}

/// All that a directory holds, and how long it is.
pub fn files(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .expect("a directory")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}
