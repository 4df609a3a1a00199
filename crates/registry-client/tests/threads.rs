//! The client's threads: none before the first call, none after the last clone. Alone in this file: it counts the threads of
//! its process.

mod common;

use std::io::Read;

use common::*;
use mica_testkit::FakeRegistry;

fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("the threads of this process");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim() == "mica-registry").count()
}

#[test]
fn the_threads_end_with_the_client() {
    let registry = FakeRegistry::new();
    let bytes = noise(1 << 20);
    registry.put_blob("a", &bytes);
    let client = client();
    assert_eq!(threads(), 0, "making a client costs nothing");
    let mut reader = client.clone().blob(&reference(&registry, "a"), &layer(&bytes), 0).unwrap();
    assert!(threads() > 0);
    drop(client);
    // The reader alone keeps them, in the middle of a transfer.
    reader.read_exact(&mut [0; 1000]).unwrap();
    assert!(threads() > 0);
    drop(reader);
    assert_eq!(threads(), 0);
}
