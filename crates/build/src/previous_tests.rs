//! What of a COPY is as it was the last time, as a table.

use std::sync::Arc;

use mica_context::SourceDir;
use mica_tree::{Entry, Index, Kind, MergedIndex, Time};

use crate::exec_copy::SourceTree;
use crate::filesystem::Chain;
use crate::place::{Origin, Placed};
use crate::previous::{Standing, check_unchanged, compare, first_change, keep};

/// `path`, `path/` or `path -> target` first, then in any order `=content`, `@seconds`, `:mode`, `.owner`, `<path in the
/// source`, `~` for a directory of the tree below.
fn placed(line: &str) -> Placed {
    let mut words = line.split(' ');
    let name = words.next().unwrap();
    let mut kind = match name.strip_suffix('/') {
        Some(_) => Kind::Directory { opaque: false, implied: false },
        None => Kind::File { size: 0, content: None },
    };
    let path = name.trim_end_matches('/').as_bytes().to_vec();
    let (mut mode, mut owner, mut seconds, mut origin) = (0o644, 0, 0, Origin::None);
    for word in words {
        let (mark, rest) = word.split_at(1);
        match mark {
            "=" => {
                let content = Some(*blake3::hash(rest.as_bytes()).as_bytes());
                kind = Kind::File { size: rest.len() as u64, content };
            }
            ">" => kind = Kind::Symlink { target: rest.into() },
            "@" => seconds = rest.parse().unwrap(),
            ":" => mode = u32::from_str_radix(rest, 8).unwrap(),
            "." => owner = rest.parse().unwrap(),
            "<" => origin = Origin::Source(rest.into()),
            "\"" => {
                kind = Kind::File { size: rest.len() as u64, content: None };
                origin = Origin::Bytes(rest.as_bytes().into());
            }
            "~" => kind = Kind::Directory { opaque: false, implied: true },
            _ => panic!("{line}"),
        }
    }
    let mtime = Time { seconds, nanoseconds: 0 };
    Placed { entry: Entry { path, kind, mode, uid: owner, gid: owner, mtime, xattrs: Vec::new() }, origin }
}

/// `now` and `before` in the order of an index. `times` are those of `now` afterwards; `first` is `path what`, with `in the
/// source` or `in the layer`.
fn check(now: &[&str], before: &[&str], times: &[i64], first: Option<&str>) {
    let source = SourceTree::State {
        chain: Arc::new(Chain::default()),
        merged: Arc::new(MergedIndex::new(std::iter::empty())),
    };
    let previous = Index::new(before.iter().map(|line| placed(line).entry).collect()).unwrap();
    let mut now: Vec<_> = now.iter().map(|line| placed(line)).collect();
    let standings = compare(&source, &now, &previous).unwrap();
    let found = first_change(&now, &standings, &previous).map(|first| {
        let place = if first.in_source { "source" } else { "layer" };
        format!("{} {} in the {place}", String::from_utf8_lossy(&first.path), first.change.what())
    });
    assert_eq!(found.as_deref(), first, "{now:?} {before:?}");
    keep(&mut now, &standings, &previous, true);
    let seconds: Vec<_> = now.iter().map(|placed| placed.entry.mtime.seconds).collect();
    assert_eq!(seconds, times, "{now:?} {before:?}");
}

#[test]
fn what_is_the_same_keeps_its_time() {
    check(&["a =x @9 <a"], &["a =x @1"], &[1], None);
    check(&["a =x @9 <a"], &[], &[9], Some("a new in the source"));
    check(&["a =y @9 <a"], &["a =x @1"], &[9], Some("a changed in the source"));
    check(&["a =xx @9 <a"], &["a =x @1"], &[9], Some("a changed in the source"));
    check(&["a =x @9 :755 <a"], &["a =x @1"], &[9], Some("a mode changed in the source"));
    check(&["a =x @9 .5 <a"], &["a =x @1"], &[9], Some("a owner changed in the source"));
    check(&["a >x @9"], &["a >x @1"], &[1], None);
    check(&["a >y @9"], &["a >x @1"], &[9], Some("a target changed in the layer"));
    check(&["a >y @9"], &["a =x @1"], &[9], Some("a another kind in the layer"));
    check(&["d/ @9", "d/f =x @9 <f"], &["d/ @1", "d/f =x @1"], &[1, 1], None);
    check(&["d/ @9 :700"], &["d/ @1"], &[9], Some("d mode changed in the layer"));
    // What nobody knew the content of counts as changed.
    check(&["a =x @9 <a"], &["a @1"], &[9], Some("a changed in the source"));
    check(&["a \"x @9"], &["a =x @1"], &[1], None);
    check(&["a \"y @9"], &["a =x @1"], &[9], Some("a changed in the layer"));
    // Directories of the tree below are not the source's doing.
    check(&["d/ ~ @9"], &["d/ ~ @1"], &[1], None);
    check(&["d/ ~ @9 :700"], &["d/ ~ @1"], &[9], None);
    check(&["d/ ~ @9"], &["d/ @1"], &[9], None);
    check(&["d/ @9"], &["d/ ~ @1"], &[9], None);
}

#[test]
fn the_first_change_is_told_in_words_of_the_source() {
    let before = ["app/", "app/a =1", "app/d/", "app/d/f =1", "app/z =1"];
    let now = |lines: &[&'static str]| [&["app/", "app/a =1 <a"], lines].concat();
    let check = |lines: &[&'static str], first: Option<&str>| {
        let now = now(lines);
        check(&now, &before, &vec![0; now.len()], first);
    };
    check(&["app/d/", "app/d/f =1 <d/f", "app/z =1 <z"], None);
    check(&["app/d/", "app/d/f =2 <d/f", "app/z =2 <z"], Some("d/f changed in the source"));
    check(&["app/d/", "app/d/e =1 <d/e", "app/z =1 <z"], Some("d/e new in the source"));
    check(&["app/d/", "app/d/g =1 <d/g", "app/z =1 <z"], Some("d/f gone in the source"));
    check(&["app/z =1 <z"], Some("d gone in the source"));
    check(&["app/d/", "app/d/f =1 <d/f"], Some("z gone in the source"));
    check(&["app/d/ :700", "app/d/f =1 <d/f", "app/z =1 <z"], Some("d mode changed in the source"));
}

#[test]
fn without_a_file_of_the_source_the_layer_says_where() {
    check(&["app/"], &["app/", "app/f =1"], &[0], Some("app/f gone in the layer"));
    check(&["b/f =1 <x/f"], &["b/f =1", "c/g =1"], &[0], Some("c/g gone in the layer"));
    // By the nearest of the files around it.
    check(
        &["b/f =1 <x/f", "c/h =1 <y/h"],
        &["b/f =1", "c/g =1", "c/h =1"],
        &[0, 0],
        Some("y/g gone in the source"),
    );
}

#[test]
fn files_of_a_context_are_compared_by_what_they_hold() {
    let context = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(context.path().join(name), content).unwrap();
    let placed_of = |directory: &SourceDir| -> Vec<Placed> {
        let entries = directory.index().entries().iter();
        let origin = |entry: &Entry| match entry.kind {
            Kind::File { .. } => Origin::Source(entry.path.clone()),
            _ => Origin::None,
        };
        let mut placed: Vec<_> =
            entries.map(|entry| Placed { origin: origin(entry), entry: entry.clone() }).collect();
        // Each by a name of its own, as when the first name is not copied along.
        for placed in &mut placed {
            if let Kind::Hardlink { target } = &placed.entry.kind {
                let first = directory.index().get(target).unwrap().kind.clone();
                (placed.entry.kind, placed.origin) = (first, Origin::Source(placed.entry.path.clone()));
            }
        }
        placed
    };
    let open = || {
        let directory = Arc::new(SourceDir::open(context.path(), None, None).unwrap());
        let placed = placed_of(&directory);
        let merged = Arc::new(MergedIndex::new([directory.index().clone()]));
        (placed, SourceTree::Context { directory, merged })
    };
    for (name, content) in [("a", "same"), ("b", "old!"), ("c", "linked"), ("e", "attr")] {
        write(name, content);
    }
    std::fs::hard_link(context.path().join("c"), context.path().join("d")).unwrap();
    let (before, source) = open();
    let before = before.into_iter().map(|placed| {
        let mut entry = placed.entry;
        let bytes =
            std::fs::read(context.path().join(String::from_utf8_lossy(&entry.path).as_ref())).unwrap();
        entry.kind = Kind::File { size: bytes.len() as u64, content: Some(*blake3::hash(&bytes).as_bytes()) };
        entry.mtime = Time { seconds: 1, nanoseconds: 0 };
        entry
    });
    let previous = Index::new(before.collect()).unwrap();
    drop(source);
    let check = |expect: &[(&str, bool)]| {
        let (mut now, source) = open();
        let standings = compare(&source, &now, &previous).unwrap();
        keep(&mut now, &standings, &previous, true);
        let kept: Vec<_> = now
            .iter()
            .map(|placed| (std::str::from_utf8(&placed.entry.path).unwrap(), placed.entry.mtime.seconds == 1))
            .collect();
        assert_eq!(kept, expect);
    };
    check(&[("a", true), ("b", true), ("c", true), ("d", true), ("e", true)]);
    // Written again with the same bytes, with others of the same length, by its other name, and with an attribute.
    write("a", "same");
    write("b", "new!");
    write("d", "LINKED");
    mica_sys::xattr::set(std::fs::File::open(context.path().join("e")).unwrap(), b"user.mica", b"1").unwrap();
    check(&[("a", true), ("b", false), ("c", false), ("d", false), ("e", false)]);
}

#[test]
fn a_file_that_changes_after_it_was_compared_is_told() {
    let previous = Index::new(vec![placed("a =x").entry, placed("b =x").entry]).unwrap();
    let made = Index::new(vec![placed("a =x").entry, placed("b =y").entry]).unwrap();
    let check = |standings: [Standing; 2], expect: Option<&str>| {
        let error = check_unchanged(&made, &standings, &previous).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), expect, "{standings:?}");
    };
    check([Standing::Same(0), Standing::New], None);
    check([Standing::Same(0), Standing::Same(1)], Some("`b` changed while it was copied: expected 1 bytes"));
}
