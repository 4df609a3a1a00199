//! What a stack shows, against a model that applies one layer after the other to a map.

use std::collections::BTreeMap;
use std::sync::Arc;

use mica_tree::{Entry, Index, Kind, MergedIndex, ResolveError, Time, compare_paths, parent};
use proptest::collection::vec;
use proptest::prelude::*;

fn entry(path: &[u8], kind: Kind, mode: u32) -> Entry {
    let path = path.to_vec();
    Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

/// A layer as a real one is: every path below a directory of the same layer, no two kinds at one path.
fn layer(wishes: Vec<(Vec<u8>, u8)>, number: u32) -> Index {
    let mut entries: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for (path, what) in wishes {
        let above = std::iter::successors(parent(&path), |path| parent(path));
        let above: Vec<_> = above.filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect();
        let is_directory = |path: &Vec<u8>| entries.get(path).is_none_or(Entry::is_directory);
        if path.is_empty() || entries.contains_key(&path) || !above.iter().all(is_directory) {
            continue;
        }
        for path in above {
            let kind = Kind::Directory { opaque: false, implied: true };
            entries.entry(path.clone()).or_insert_with(|| entry(&path, kind, number));
        }
        let kind = match what {
            0 => Kind::Directory { opaque: false, implied: false },
            1 => Kind::Directory { opaque: true, implied: false },
            2 => Kind::Whiteout,
            3 => Kind::Symlink { target: b"a".to_vec() },
            _ => Kind::Fifo,
        };
        entries.insert(path.clone(), entry(&path, kind, number));
    }
    Index::new(entries.into_values().collect()).unwrap()
}

fn is_inside(path: &[u8], directory: &[u8]) -> bool {
    path.len() > directory.len() && path.starts_with(directory) && path[directory.len()] == b'/'
}

fn naive(layers: &[Index]) -> Vec<Entry> {
    let mut shown: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    for layer in layers {
        // First what the layer hides, then what it has.
        for entry in layer.entries() {
            let was_directory = shown.get(&entry.path).is_some_and(Entry::is_directory);
            let merges = matches!(entry.kind, Kind::Directory { opaque: false, .. }) && was_directory;
            if !merges {
                shown.retain(|path, _| !is_inside(path, &entry.path));
            }
            if matches!(entry.kind, Kind::Whiteout) {
                shown.remove(&entry.path);
            }
        }
        for entry in layer.entries() {
            let keeps = matches!(entry.kind, Kind::Directory { implied: true, .. })
                && shown.get(&entry.path).is_some_and(Entry::is_directory);
            if !keeps && !matches!(entry.kind, Kind::Whiteout) {
                shown.insert(entry.path.clone(), entry.clone());
            }
        }
    }
    let mut shown: Vec<_> = shown.into_values().collect();
    shown.sort_by(|a, b| compare_paths(&a.path, &b.path));
    shown
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just("a"), Just("b"), Just("a.b")], 0..4).prop_map(|names| names.join("/").into_bytes())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn positions_say_what_paths_say(wishes in vec(vec((path(), 0..7_u8), 0..8), 0..5), asked in vec(path(), 0..6)) {
        let layers: Vec<Index> = wishes.into_iter().zip(0..).map(|(wishes, number)| layer(wishes, number)).collect();
        let merged = MergedIndex::new(layers.into_iter().map(Arc::new));
        let entries: Vec<&Entry> = (0..merged.len()).map(|position| merged.entry(position)).collect();
        for (position, entry) in entries.iter().enumerate() {
            prop_assert_eq!(merged.position(&entry.path), Some(position));
            prop_assert_eq!(Some(merged.layer_at(position)), merged.layer_of(&entry.path));
            prop_assert_eq!(merged.attributes_at(position), Some(*entry));
            let children: Vec<&Entry> = merged.children(position).map(|child| merged.entry(child)).collect();
            prop_assert_eq!(children, merged.list(&entry.path));
            prop_assert_eq!(merged.end_of(position), position + 1 + merged.walk(&entry.path).count());
            for start in 0..=position + 1 {
                let expected = if start <= position { Ok(position) } else { Err(start) };
                prop_assert_eq!(merged.find_from(start, &entry.path), expected);
                for guess in 0..merged.len() + 2 {
                    prop_assert_eq!(merged.find_near(start, guess, &entry.path), expected);
                }
            }
        }
        let root: Vec<&Entry> = merged.children_from(b"", 0).map(|child| merged.entry(child)).collect();
        prop_assert_eq!(root, merged.list(b""));
        for path in asked {
            let naive = entries.partition_point(|entry| compare_paths(&entry.path, &path).is_lt());
            let expected = if entries.get(naive).is_some_and(|entry| entry.path == path) { Ok(naive) } else { Err(naive) };
            for start in 0..=naive {
                prop_assert_eq!(merged.find_from(start, &path), expected);
                for guess in 0..merged.len() + 2 {
                    prop_assert_eq!(merged.find_near(start, guess, &path), expected);
                }
            }
        }
    }
    #[test]
    fn a_stack_shows_what_its_layers_say(wishes in vec(vec((path(), 0..7_u8), 0..8), 0..5)) {
        let layers: Vec<_> = wishes.into_iter().zip(1..).map(|(wishes, number)| layer(wishes, number)).collect();
        let merged = MergedIndex::new(layers.iter().cloned().map(Arc::new));
        let shown = naive(&layers);
        prop_assert_eq!(merged.walk(b"").cloned().collect::<Vec<_>>(), shown.clone());
        prop_assert_eq!((merged.len(), merged.is_empty()), (shown.len(), shown.is_empty()));
        for directory in shown.iter().filter(|entry| entry.is_directory()).map(|entry| &entry.path[..]).chain([&b""[..]]) {
            let inside = |entry: &&Entry| directory.is_empty() || is_inside(&entry.path, directory);
            let below: Vec<_> = shown.iter().filter(inside).collect();
            prop_assert_eq!(merged.walk(directory).collect::<Vec<_>>(), below.clone());
            let listed: Vec<_> = below.into_iter().filter(|entry| entry.parent() == Some(directory)).collect();
            prop_assert_eq!(merged.list(directory), listed);
        }
        for entry in &shown {
            prop_assert_eq!(merged.get(&entry.path), Some(entry));
            // The mode tells the layer.
            prop_assert_eq!(merged.layer_of(&entry.path), Some(entry.mode as usize - 1));
        }
        prop_assert_eq!(merged.get(b"no/where"), None);
    }

    #[test]
    fn one_layer_shows_what_several_did(wishes in vec(vec((path(), 0..7_u8), 0..8), 0..5), first in 0..5_usize) {
        let layers: Vec<_> = wishes.into_iter().zip(1..).map(|(wishes, number)| layer(wishes, number)).collect();
        let merged = MergedIndex::new(layers.iter().cloned().map(Arc::new));
        let flat = merged.flatten(first);
        for (before, after) in flat.iter().zip(flat.iter().skip(1)) {
            prop_assert!(compare_paths(&before.entry.path, &after.entry.path).is_lt());
        }
        for entry in flat.iter().map(|flat| &flat.entry) {
            let above = entry.parent().filter(|above| !above.is_empty());
            prop_assert!(above.is_none_or(|above| flat.iter().any(|flat| flat.entry.path == above)));
            prop_assert!(first > 0 || entry.kind != Kind::Whiteout);
        }
        let one = Index::new(flat.into_iter().map(|flat| flat.entry).collect()).unwrap();
        let again = MergedIndex::new(layers.iter().take(first).cloned().chain([one]).map(Arc::new));
        // What hides is no matter of what is shown.
        let shown = |of: &MergedIndex| {
            let shown = |entry: &Entry| match entry.kind {
                Kind::Directory { .. } => {
                    let kind = Kind::Directory { opaque: false, implied: false };
                    Entry { kind, ..entry.clone() }
                }
                _ => entry.clone(),
            };
            of.walk(b"").map(shown).collect::<Vec<_>>()
        };
        prop_assert_eq!(shown(&again), shown(&merged));
    }

    #[test]
    fn links_never_lead_out_or_on_for_ever(links in vec((path(), "[ab./]{0,6}"), 0..6), asked in "[ab./]{0,12}") {
        let wishes = links.iter().map(|(path, _)| (path.clone(), 3)).collect();
        let mut entries = layer(wishes, 1).into_entries();
        for entry in &mut entries {
            let target = links.iter().find(|(path, _)| *path == entry.path).map(|(_, target)| target.clone());
            if let (Kind::Symlink { target }, Some(text)) = (&mut entry.kind, target) {
                *target = text.into_bytes();
            }
        }
        let merged = MergedIndex::new([Arc::new(Index::new(entries).unwrap())]);
        for follow_last in [false, true] {
            if let Ok(Some(found)) = merged.resolve(asked.as_bytes(), follow_last) {
                prop_assert_eq!(found.entry, merged.get(&found.path));
                prop_assert!(found.path.is_empty() || found.entry.is_some());
                let is_link = found.entry.is_some_and(|entry| matches!(entry.kind, Kind::Symlink { .. }));
                prop_assert!(!is_link || !follow_last);
            }
        }
        if let Ok(path) = merged.resolve_for_create(asked.as_bytes()) {
            prop_assert!(path.is_empty() || path.split(|byte| *byte == b'/').all(|name| !matches!(name, b"" | b"." | b"..")));
        }
    }
}

#[test]
fn following() {
    let link =
        |path: &str, target: &str| entry(path.as_bytes(), Kind::Symlink { target: target.into() }, 0o777);
    let directory =
        |path: &str| entry(path.as_bytes(), Kind::Directory { opaque: false, implied: false }, 0o755);
    let merged = MergedIndex::new([Arc::new(
        Index::new(vec![
            directory("d"),
            directory("d/e"),
            entry(b"d/f", Kind::Fifo, 0),
            link("d/up", ".."),
            link("d/abs", "/d/e"),
            link("out", "../../../d"),
            link("self", "self"),
            link("ping", "pong"),
            link("pong", "/ping"),
            link("gone", "d/no/where"),
            link("root", "/"),
            link("empty", ""),
            link("file", "d/f/"),
        ])
        .unwrap(),
    )]);
    let check = |path: &str, follow_last: bool, expect: Option<&str>| {
        let found = merged.resolve(path.as_bytes(), follow_last).unwrap();
        let found = found.map(|found| String::from_utf8(found.path).unwrap());
        assert_eq!(found.as_deref(), expect, "{path} {follow_last}");
    };
    check("", true, Some(""));
    check("/", true, Some(""));
    check("..", true, Some(""));
    check("/../d/./e//", true, Some("d/e"));
    check("d/abs", true, Some("d/e"));
    check("d/abs", false, Some("d/abs"));
    check("d/abs/..", false, Some("d"));
    check("d/up/d/up/d/f", true, Some("d/f"));
    check("out/f", true, Some("d/f"));
    check("root/out", true, Some("d"));
    check("root", true, Some(""));
    check("file", true, Some("d/f"));
    check("gone", true, None);
    check("gone", false, Some("gone"));
    check("no/where", true, None);
    check("no/../d", true, Some("d"));
    let refused = |path: &str| merged.resolve(path.as_bytes(), true).unwrap_err();
    assert_eq!(refused("self"), ResolveError::TooManyLinks);
    assert_eq!(refused("ping/x"), ResolveError::TooManyLinks);
    assert_eq!(refused("d/f/x"), ResolveError::NotADirectory { path: "d/f".into() });
    assert_eq!(refused("d/f/.."), ResolveError::NotADirectory { path: "d/f".into() });
    let create =
        |path: &str| merged.resolve_for_create(path.as_bytes()).map(|path| String::from_utf8(path).unwrap());
    assert_eq!(create("gone").as_deref(), Ok("d/no/where"));
    assert_eq!(create("gone/x/../y").as_deref(), Ok("d/no/where/y"));
    assert_eq!(create("new/deep").as_deref(), Ok("new/deep"));
    assert_eq!(create("out/new").as_deref(), Ok("d/new"));
    assert_eq!(create("self"), Err(ResolveError::TooManyLinks));
    assert_eq!(create("d/f/x"), Err(ResolveError::NotADirectory { path: "d/f".into() }));
}

#[test]
fn hard_links_belong_to_their_layer() {
    let file = |size| Kind::File { size, content: None };
    let link = entry(b"b", Kind::Hardlink { target: b"a".to_vec() }, 0);
    let below = Index::new(vec![entry(b"a", file(1), 0), link]).unwrap();
    let above = Index::new(vec![entry(b"a", file(2), 0)]).unwrap();
    let merged = MergedIndex::new([Arc::new(below), Arc::new(above)]);
    let size = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
    assert_eq!(merged.get(b"a").map(size), Some(2));
    assert_eq!(merged.entry_of_link(merged.get(b"b").unwrap()).map(size), Some(1));
    assert_eq!(merged.entry_of_link(merged.get(b"a").unwrap()), None);
}

#[test]
fn all_names_of_a_file_are_one_file() {
    let file = |path: &[u8]| entry(path, Kind::File { size: 1, content: None }, 1);
    let link = |path: &[u8], target: &[u8]| entry(path, Kind::Hardlink { target: target.to_vec() }, 0);
    let symlink = entry(b"s", Kind::Symlink { target: b"a".to_vec() }, 3);
    let lower = vec![
        file(b"a"),
        link(b"b", b"a"),
        link(b"c", b"a"),
        link(b"lost", b"nothing"),
        link(b"loop", b"loop"),
    ];
    let lower = Index::new(lower.into_iter().chain([symlink, link(b"t", b"s")]).collect()).unwrap();
    // The entry with the attributes is hidden; the other names live on.
    let upper = Index::new(vec![file(b"a"), link(b"d", b"a")]).unwrap();
    let merged = MergedIndex::new([Arc::new(lower), Arc::new(upper)]);
    for (path, file, attributes) in [
        ("a", Some((1, 0)), Some("a")),
        ("b", Some((0, 0)), Some("a")),
        ("c", Some((0, 0)), Some("a")),
        ("d", Some((1, 0)), Some("a")),
        ("lost", None, None),
        ("loop", None, None),
        ("s", None, Some("s")),
        ("t", None, Some("s")),
    ] {
        let position = merged.position(path.as_bytes()).unwrap();
        assert_eq!(merged.file_at(position), file, "{path}");
        let found = merged.attributes_at(position).map(|entry| entry.path.as_slice());
        assert_eq!(found, attributes.map(str::as_bytes), "{path}");
    }
}
