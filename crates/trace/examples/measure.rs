//! How long it takes to decode a record of 20,000 uses, all over a tree of 200,000 paths, and to verify it.
//!
//! `cargo run --release --package mica-trace --example measure`

use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

use mica_trace::{Contents, NoContents, Record, Watched, verify};
use mica_tree::{Entry, Index, Kind, MergedIndex, Time};

const DIRECTORIES: usize = 10_000;
const FILES_IN_EACH: usize = 19;
const USES: usize = 20_000;
const TURNS: usize = 41;

fn main() {
    let mut entries = Vec::new();
    for directory in 0..DIRECTORIES {
        let (group, package) = (directory / 500, directory / 10);
        let path = format!("usr/lib/group{group:02}/package-{package}/part{}", directory % 10);
        let is_directory = Kind::Directory { opaque: false, implied: false };
        if directory % 500 == 0 {
            entries.push(entry(format!("usr/lib/group{group:02}"), is_directory.clone()));
        }
        if directory % 10 == 0 {
            entries.push(entry(format!("usr/lib/group{group:02}/package-{package}"), is_directory.clone()));
        }
        for file in 0..FILES_IN_EACH {
            let kind = Kind::File { size: 7, content: Some([file as u8; 32]) };
            entries.push(entry(format!("{path}/module_{}{file}.py", ["a", "init", "test"][file % 3]), kind));
        }
        entries.push(entry(path, is_directory));
    }
    for path in ["", "usr", "usr/lib"] {
        entries.push(entry(path.to_owned(), Kind::Directory { opaque: false, implied: false }));
    }
    let base = Arc::new(Index::new(entries).unwrap());
    let small = |number: usize| {
        let path = format!("usr/lib/group{number:02}/new");
        Arc::new(Index::new(vec![entry(path, Kind::File { size: 1, content: Some([9; 32]) })]).unwrap())
    };
    let tree = MergedIndex::new(std::iter::once(base).chain((0..5).map(small)));
    println!("{} paths", tree.len());

    let step = tree.len() as f64 / USES as f64;
    let spread: Vec<usize> = (0..USES).map(|use_| (use_ as f64 * step) as usize).collect();
    let first: Vec<usize> = (0..USES).collect();
    // Gaps of any length, 10 in the mean.
    let mut seed = 7_u64;
    let by_chance = (0..tree.len()).filter(|_| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33).is_multiple_of(step as u64)
    });
    let by_chance: Vec<usize> = by_chance.collect();
    for (name, positions) in
        [("evenly all over the tree", spread), ("by chance", by_chance), ("at its beginning", first)]
    {
        let watched = Watched::new(&tree);
        for (number, position) in positions.into_iter().enumerate() {
            let path = tree.entry(position).path.clone();
            match number % 5 {
                0 => drop(watched.get(&[path.as_slice(), b"-no"].concat())),
                1 => {
                    let is_file = watched.get(&path).is_some_and(|entry| !entry.is_directory());
                    if is_file {
                        watched.note_content(&path);
                    }
                }
                _ => drop(watched.get(&path)),
            }
        }
        let record = Record { trees: vec![watched.finish(&NoContents).unwrap()] };
        let bytes = record.encode();
        println!("{name}: {} uses, {} bytes", record.trees[0].uses.len(), bytes.len());
        time("encode", || drop(black_box(record.encode())));
        time("decode", || drop(black_box(Record::decode(&bytes).unwrap())));
        time("verify", || {
            let contents: &dyn Contents = &NoContents;
            verify(0, &record.trees[0], black_box(&tree), contents).unwrap();
        });
        time("both", || {
            let record = Record::decode(&bytes).unwrap();
            verify(0, &record.trees[0], black_box(&tree), &NoContents).unwrap();
        });
    }
}

fn entry(path: String, kind: Kind) -> Entry {
    let (path, mtime) = (path.into_bytes(), Time { seconds: 1_700_000_000, nanoseconds: 0 });
    Entry { path, kind, mode: 0o755, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

fn time(name: &str, mut work: impl FnMut()) {
    let mut times: Vec<Duration> = (0..TURNS)
        .map(|_| {
            let began = now();
            work();
            now() - began
        })
        .collect();
    times.sort_unstable();
    println!("  {name:8} least {:7.2?}  median {:7.2?}", times[0], times[TURNS / 2]);
}

/// Time of this thread on a processor, which tells the same on a busy machine.
fn now() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}
