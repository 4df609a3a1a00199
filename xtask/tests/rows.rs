//! Rows hold: a crate uses only rows below its own, and pure rooms only pure rooms (ARCHITECTURE.md).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The row of each room; the pure ones stand below all others, in the order in which they may use each other.
const ROWS: &[(&str, i32)] = &[
    ("diagnostic", -3),
    ("oci", -3),
    ("tree", -3),
    ("registry-api", -2),
    ("dockerfile", -2),
    ("plan", -1),
    ("sys", 0),
    ("http", 0),
    ("store", 1),
    ("layer", 1),
    ("context", 1),
    ("runtime", 1),
    ("network", 1),
    ("ssh-agent", 1),
    ("trace", 1),
    ("registry-client", 1),
    ("image", 2),
    ("container", 2),
    ("transfer", 2),
    ("cache", 2),
    ("build", 3),
    ("slim", 3),
    ("cli", 4),
];

#[test]
fn every_room_uses_only_rows_below_its_own() {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let rows: BTreeMap<&str, i32> = ROWS.iter().copied().collect();
    let mut rooms = 0;
    for entry in fs::read_dir(&crates).expect("the folder of rooms") {
        let path = entry.expect("a room").path();
        let room = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // Never shipped, and free to use what it tests.
        if room == "testkit" {
            continue;
        }
        let row =
            rows.get(room.as_str()).unwrap_or_else(|| panic!("`{room}` has no row: add it to the table"));
        let manifest = fs::read_to_string(path.join("Cargo.toml")).expect("a manifest");
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap_or_default();
        let dependencies = dependencies.split("\n[").next().unwrap_or_default();
        for line in dependencies.lines() {
            let Some(used) = line.strip_prefix("mica-").and_then(|line| line.split(['.', ' ']).next()) else {
                continue;
            };
            let used_row =
                rows.get(used).unwrap_or_else(|| panic!("`{room}` uses `{used}`, which has no row"));
            assert!(used_row < row, "`{room}` (row {row}) uses `{used}` (row {used_row})");
            assert!(*row >= 0 || *used_row < 0, "`{room}` is pure and uses `{used}`, which is not");
        }
        rooms += 1;
    }
    assert_eq!(rooms, ROWS.len(), "the table names a room that is gone");
}
