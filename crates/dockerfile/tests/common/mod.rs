//! Finds the corpus of foreign test data.

use std::path::PathBuf;

/// A file or folder of the corpus, if it is there.
pub fn corpus(path: &str) -> Option<PathBuf> {
    let root = match std::env::var_os("MICA_CORPUS") {
        Some(root) => PathBuf::from(root),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpus")),
    };
    let path = root.join(path);
    if !path.exists() {
        println!("skipped: corpus is absent");
        return None;
    }
    Some(path)
}

/// A JSON file of the corpus.
#[allow(dead_code, reason = "not every test binary reads JSON")]
pub fn corpus_json(path: &str) -> Option<serde_json::Value> {
    let path = corpus(path)?;
    let text = std::fs::read_to_string(&path).expect("corpus file is readable");
    Some(serde_json::from_str(&text).expect("corpus file is JSON"))
}
