//! Tars, stores and the corpus, for the tests of this room.
#![allow(dead_code, missing_docs)]

use std::io::Cursor;
use std::path::PathBuf;

use mica_image::{ImportOptions, import};
use mica_layer::write_tar::{END, encode_header, padding};
use mica_oci::{ImageId, Platform, Reference};
use mica_store::Store;
use mica_tree::{Entry, Kind, Time};

pub fn rootless() -> bool {
    !rustix::process::geteuid().is_root()
}

pub fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    (directory, store)
}

pub fn corpus(path: &str) -> Option<PathBuf> {
    let root = std::env::var_os("MICA_CORPUS").map_or_else(
        || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
        PathBuf::from,
    );
    if !root.is_dir() {
        println!("skipped: corpus is absent");
        return None;
    }
    Some(root.join(path))
}

pub fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let mtime = Time { seconds: 1_700_000_000, nanoseconds: 0 };
    Entry { path: path.as_bytes().to_vec(), kind, mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

/// A tar of entries with their content.
pub fn tar_of(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (entry, content) in entries {
        encode_header(entry, None, &mut out);
        out.extend_from_slice(content);
        out.resize(out.len() + padding(content.len() as u64), 0);
    }
    out.extend_from_slice(&END);
    out
}

/// A tar of files; a path that ends in `/` is a directory.
pub fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (path, content) in files {
        let directory = Kind::Directory { opaque: false, implied: false };
        let (entry, size) = match path.strip_suffix('/') {
            Some(path) => (entry(path, directory, 0o755), 0),
            None => {
                let size = content.len() as u64;
                (entry(path, Kind::File { size, content: None }, 0o644), size)
            }
        };
        encode_header(&entry, None, &mut out);
        out.extend_from_slice(content);
        out.resize(out.len() + padding(size), 0);
    }
    out.extend_from_slice(&END);
    out
}

pub fn options(name: &str, changes: &[&str]) -> ImportOptions {
    ImportOptions {
        reference: (!name.is_empty()).then(|| Reference::parse(name).unwrap()),
        changes: changes.iter().map(|change| (*change).to_owned()).collect(),
        message: String::new(),
        origin: "-".to_owned(),
        platform: Platform::host(),
        created: "2026-01-02T03:04:05Z".to_owned(),
        mapping: mica_image::mapping(rootless()),
    }
}

pub fn import_files(store: &Store, name: &str, files: &[(&str, &[u8])]) -> ImageId {
    import(store, Cursor::new(tar(files)), &options(name, &[])).unwrap()
}
