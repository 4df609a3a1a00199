//! What a watched tree notes.

use mica_trace::{ListedKind, NoContents, Value, Watched};
use mica_tree::{Entry, MergedIndex};

use crate::trees::{directory, file, hard_link, link, tree};

fn example() -> MergedIndex {
    tree([vec![
        directory("d"),
        directory("d/e"),
        file("d/e/f", 1, 1),
        hard_link("d/e/g", "d/e/f"),
        link("l", "/d/./e"),
        link("loop", "loop"),
        file("without/entry", 1, 2),
    ]])
}

/// Paths with the kind, `+` for what was read or listed, or for a link the target.
fn check(ask: &dyn Fn(&Watched<'_>), expect: &[&str]) {
    let tree = example();
    let watched = Watched::new(&tree);
    ask(&watched);
    let uses = watched.finish(&NoContents).unwrap().uses;
    let in_words = |value: &Value| match value {
        Value::Directory { listing: Some(listing), .. } => {
            let name = |(name, kind): &(Vec<u8>, ListedKind)| {
                format!("{} {}", String::from_utf8_lossy(name), kind.in_words())
            };
            format!("[{}]", listing.iter().map(name).collect::<Vec<_>>().join(","))
        }
        Value::File { content: Some(content), .. } => format!("read {}", content[0]),
        Value::Symlink { target, .. } => format!("-> {}", String::from_utf8_lossy(target)),
        value => value.kind_in_words().to_owned(),
    };
    let uses: Vec<_> = uses
        .iter()
        .map(|used| format!("/{}: {}", String::from_utf8_lossy(&used.path), in_words(&used.value)))
        .collect();
    assert_eq!(uses, expect);
}

#[test]
fn all_that_is_asked_is_noted() {
    check(&|_| {}, &[]);
    check(&|tree| assert!(tree.get(b"").is_none()), &["/: directory"]);
    check(&|tree| assert!(tree.is_directory(b"")), &["/: directory"]);
    check(&|tree| assert!(!tree.is_directory(b"d/e/f")), &["/d/e/f: file"]);
    check(&|tree| assert!(!tree.is_directory(b"none")), &["/none: nothing"]);
    check(
        &|tree| {
            assert!(tree.get(b"none").is_none());
            assert!(tree.get(b"none").is_none());
            assert!(tree.get(b"d").is_some_and(Entry::is_directory));
        },
        &["/d: directory", "/none: nothing"],
    );
    check(
        &|tree| assert_eq!(tree.resolve(b"l/../e/f", true).unwrap().unwrap().path, b"d/e/f"),
        &["/d: directory", "/d/e: directory", "/d/e/f: file", "/l: -> /d/./e"],
    );
    check(&|tree| assert!(tree.resolve(b"l", false).unwrap().is_some()), &["/l: -> /d/./e"]);
    check(&|tree| assert!(tree.resolve(b"loop", true).is_err()), &["/loop: -> loop"]);
    check(
        &|tree| assert!(tree.resolve(b"d/e/f/x", true).is_err()),
        &["/d: directory", "/d/e: directory", "/d/e/f: file"],
    );
    // Nothing is below what is not there.
    check(
        &|tree| assert_eq!(tree.resolve_for_create(b"d/new/deep").unwrap(), b"d/new/deep"),
        &["/d: directory", "/d/new: nothing"],
    );
    check(
        &|tree| {
            tree.note_content(b"d/e/f");
            assert_eq!(tree.list(b"d/e").len(), 2);
            tree.get(b"d/e");
        },
        &["/d/e: [f file,g file]", "/d/e/f: read 1"],
    );
    check(&|tree| tree.note_content(b"none"), &["/none: nothing"]);
    check(&|tree| assert!(tree.list(b"none").is_empty()), &["/none: nothing"]);
    check(
        &|tree| {
            let link = tree.get(b"d/e/g").unwrap();
            assert_eq!(tree.entry_of_link(link).unwrap().path, b"d/e/f");
            tree.note_content(b"d/e/g");
        },
        &["/d/e/g: read 1"],
    );
    check(&|tree| assert!(tree.has_inside(b"without")), &["/without: nothing", "/without/entry: file"]);
    check(&|tree| assert!(!tree.has_inside(b"none")), &["/none: nothing"]);
}
