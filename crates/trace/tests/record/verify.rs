//! Which difference is found.

use std::cell::Cell;
use std::io;

use mica_trace::{Change, Contents, Difference, NoContents, changed_paths, verify};
use mica_tree::{Entry, Index, Kind, MergedIndex, Time, compare_paths};
use proptest::collection::vec;
use proptest::prelude::*;

use crate::trees::{
    Ask, ask, directory, entry, file, hard_link, known, link, naive_uses, naive_value, path, random_layer,
    tree, tree_of, uses,
};

fn base() -> Vec<Entry> {
    vec![
        directory("d"),
        file("d/a", 10, 1),
        hard_link("d/b", "d/a"),
        link("d/l", "a"),
        directory("e"),
        file("e/f", 20, 2),
        entry("e/dev", Kind::CharDevice { rdev: (1, 3) }, 0o666),
        entry("e/pipe", Kind::Fifo, 0o600),
    ]
}

/// Everything is looked at, all contents read, all directories listed, and some that is not there.
fn all() -> Vec<(Vec<u8>, Ask)> {
    let every = base().into_iter().map(|entry| (entry.path, Ask::Read));
    let listed = ["", "d", "e"].map(|path| (path.as_bytes().to_vec(), Ask::List));
    let absent = ["gone", "e/gone", "e/f/below"].map(|path| (path.as_bytes().to_vec(), Ask::Look));
    every.chain(listed).chain(absent).collect()
}

fn at<'e>(entries: &'e mut [Entry], path: &str) -> &'e mut Entry {
    entries.iter_mut().find(|entry| entry.path == path.as_bytes()).unwrap()
}

fn check(
    what: &str,
    asked: &[(Vec<u8>, Ask)],
    edit: &dyn Fn(&mut Vec<Entry>),
    expect: Option<(&str, Change)>,
) {
    let mut entries = base();
    edit(&mut entries);
    let found = verify(7, &uses(&tree([base()]), asked, &NoContents), &tree([entries]), &NoContents);
    let expect =
        expect.map(|(path, change)| Box::new(Difference { tree: 7, path: path.as_bytes().to_vec(), change }));
    assert_eq!(found.err(), expect, "{what}");
}

fn listing(name: &str, was_there: bool, is_there: bool) -> Change {
    Change::Listing { name: name.into(), was_there, is_there }
}

type Case<'a> = (&'a str, &'a dyn Fn(&mut Vec<Entry>), Option<(&'a str, Change)>);

#[test]
fn the_first_difference_is_named() {
    let set_content = |entry: &mut Entry, new_size: u64, number: u8| {
        entry.kind = Kind::File { size: new_size, content: Some([number; 32]) };
    };
    let content = |old: u8, new: u8| Change::Content { old: [old; 32], new: [new; 32] };
    let kind = |old, new| Change::Kind { old, new };
    let owner = Change::Owner { old: (0, 0), new: (5, 6) };
    let later = Time { seconds: 9, nanoseconds: 0 };
    let time = Change::Time { old: Time::default(), new: later };
    let cases: &[Case<'_>] = &[
        ("nothing", &|_| {}, None),
        ("time of a directory", &|tree| at(tree, "d").mtime = later, None),
        ("time of a link", &|tree| at(tree, "d/l").mtime = later, None),
        ("mode of a link", &|tree| at(tree, "d/l").mode = 0o700, None),
        ("attributes of a hard link's entry", &|tree| at(tree, "d/b").uid = 5, None),
        ("root with an entry", &|tree| tree.push(directory("")), None),
        ("implied", &|tree| at(tree, "d").kind = Kind::Directory { opaque: false, implied: true }, None),
        (
            "mode of the root",
            &|tree| tree.push(entry("", directory("").kind, 0o700)),
            Some(("", Change::Mode { old: 0o755, new: 0o700 })),
        ),
        ("new in the root", &|tree| tree.push(directory("dd")), Some(("", listing("dd", false, true)))),
        (
            "gone in the root",
            &|tree| tree.retain(|entry| !entry.path.starts_with(b"e")),
            Some(("", listing("e", true, false))),
        ),
        ("new in a directory", &|tree| tree.push(file("d/k", 1, 1)), Some(("d", listing("k", false, true)))),
        (
            "other kind in a directory",
            &|tree| *at(tree, "e/pipe") = file("e/pipe", 1, 1),
            Some(("e", listing("pipe", true, true))),
        ),
        ("content", &|tree| set_content(at(tree, "e/f"), 20, 3), Some(("e/f", content(2, 3)))),
        (
            "content, size and time",
            &|tree| {
                set_content(at(tree, "e/f"), 21, 3);
                at(tree, "e/f").mtime = later
            },
            Some(("e/f", content(2, 3))),
        ),
        ("content by all names", &|tree| set_content(at(tree, "d/a"), 10, 3), Some(("d/a", content(1, 3)))),
        (
            "the first path of two",
            &|tree| {
                at(tree, "e/f").uid = 5;
                set_content(at(tree, "d/a"), 10, 3)
            },
            Some(("d/a", content(1, 3))),
        ),
        ("time", &|tree| at(tree, "e/f").mtime = later, Some(("e/f", time))),
        (
            "mode",
            &|tree| at(tree, "e/f").mode = 0o600,
            Some(("e/f", Change::Mode { old: 0o644, new: 0o600 })),
        ),
        ("owner", &|tree| (at(tree, "e/f").uid, at(tree, "e/f").gid) = (5, 6), Some(("e/f", owner))),
        (
            "xattrs",
            &|tree| at(tree, "e").xattrs.push((b"user.a".to_vec(), vec![])),
            Some(("e", Change::Xattrs)),
        ),
        (
            "target",
            &|tree| *at(tree, "d/l") = link("d/l", "b"),
            Some(("d/l", Change::Target { old: "a".into(), new: "b".into() })),
        ),
        (
            "device",
            &|tree| at(tree, "e/dev").kind = Kind::CharDevice { rdev: (1, 5) },
            Some(("e/dev", Change::Device)),
        ),
        (
            "no name of the file any more",
            &|tree| *at(tree, "d/b") = file("d/b", 10, 1),
            Some(("d/a", Change::Names)),
        ),
    ];
    for (what, edit, expect) in cases {
        check(what, &all(), edit, expect.clone());
    }
    // Without the listings, which name most of these first.
    let looks: Vec<_> =
        all().into_iter().filter(|(_, ask)| *ask != Ask::List).map(|(path, _)| (path, Ask::Look)).collect();
    let cases: &[Case<'_>] = &[
        ("content", &|tree| set_content(at(tree, "e/f"), 20, 3), None),
        (
            "size",
            &|tree| {
                set_content(at(tree, "e/f"), 21, 3);
                at(tree, "e/f").mtime = later
            },
            Some(("e/f", Change::Size { old: 20, new: 21 })),
        ),
        ("new elsewhere", &|tree| tree.push(file("d/k", 1, 1)), None),
        ("appeared", &|tree| tree.push(link("e/gone", "f")), Some(("e/gone", Change::Appeared))),
        (
            "disappeared",
            &|tree| tree.retain(|entry| entry.path != b"d/l"),
            Some(("d/l", Change::Disappeared)),
        ),
        ("kind", &|tree| *at(tree, "e/f") = link("e/f", "x"), Some(("e/f", kind("file", "symbolic link")))),
        (
            "special kind",
            &|tree| at(tree, "e/pipe").kind = Kind::Socket,
            Some(("e/pipe", kind("pipe", "socket"))),
        ),
        (
            "below a file",
            &|tree| {
                *at(tree, "e/f") = directory("e/f");
                tree.push(file("e/f/below", 0, 0))
            },
            Some(("e/f", kind("file", "directory"))),
        ),
        (
            "a link to nothing",
            &|tree| *at(tree, "d/b") = hard_link("d/b", "d/none"),
            Some(("d/a", Change::Names)),
        ),
    ];
    for (what, edit, expect) in cases {
        check(what, &looks, edit, expect.clone());
    }
}

/// Says the same of every file, and how often it was asked.
struct Answer(io::ErrorKind, u8, Cell<usize>);

impl Contents for Answer {
    fn content(&self, _position: usize) -> io::Result<[u8; 32]> {
        self.2.set(self.2.get() + 1);
        if self.1 == 0 { Err(self.0.into()) } else { Ok([self.1; 32]) }
    }
}

#[test]
fn a_content_without_digest_is_asked_for() {
    let check = |size: u64, answer: u8, is_read: Ask, expect: Option<Change>, asked: usize| {
        let recorded = uses(&tree([base()]), &[(b"e/f".to_vec(), is_read)], &NoContents);
        let mut now = base();
        at(&mut now, "e/f").kind = Kind::File { size, content: None };
        let contents = Answer(io::ErrorKind::NotFound, answer, Cell::new(0));
        let found = verify(0, &recorded, &tree([now]), &contents);
        assert_eq!(found.err().map(|difference| difference.change), expect);
        assert_eq!(contents.2.get(), asked);
    };
    let unreadable = Change::Unreadable { reason: io::Error::from(io::ErrorKind::NotFound).to_string() };
    check(20, 2, Ask::Read, None, 1);
    check(20, 3, Ask::Read, Some(Change::Content { old: [2; 32], new: [3; 32] }), 1);
    check(20, 0, Ask::Read, Some(unreadable), 1);
    check(20, 0, Ask::Look, None, 0);
    // Another size is another content without a look at it.
    check(21, 2, Ask::Read, Some(Change::Size { old: 20, new: 21 }), 0);
}

#[test]
fn names_of_a_file_are_those_that_are_shown() {
    let below = || vec![file("a", 1, 1), hard_link("b", "a"), hard_link("c", "a"), file("x", 1, 1)];
    let above = |entries: Vec<Entry>| tree([below(), entries]);
    let whiteout = |path: &str| entry(path, Kind::Whiteout, 0);
    let check = |tree: &MergedIndex, path: &str, expect: &[&str]| {
        let uses = uses(tree, &[(path.into(), Ask::Read)], &NoContents).uses;
        let mica_trace::Value::File { names, content, attributes, .. } = &uses[0].value else {
            panic!("{uses:?}")
        };
        assert_eq!(names, &expect.iter().map(|name| name.as_bytes()).collect::<Vec<_>>(), "{path}");
        assert_eq!((content, attributes.mode), (&Some([1; 32]), 0o644));
    };
    for path in ["a", "b", "c"] {
        check(&above(vec![]), path, &["a", "b", "c"]);
    }
    check(&above(vec![]), "x", &[]);
    check(&above(vec![whiteout("a")]), "b", &["b", "c"]);
    check(&above(vec![file("a", 1, 1)]), "a", &[]);
    check(&above(vec![file("a", 1, 1)]), "c", &["b", "c"]);
    check(&above(vec![file("a", 1, 1), hard_link("b", "a")]), "b", &["a", "b"]);
    check(&above(vec![file("a", 1, 1), hard_link("b", "a")]), "c", &[]);
    check(&above(vec![whiteout("b"), whiteout("c")]), "a", &[]);
}

#[test]
fn changes_have_words() {
    let check = |change: Change, what: &str, old: &str, new: &str| {
        assert_eq!((change.what(), &*change.old_in_words(), &*change.new_in_words()), (what, old, new));
    };
    let time = |seconds, nanoseconds| Time { seconds, nanoseconds };
    check(Change::Appeared, "new", "", "");
    check(Change::Disappeared, "gone", "", "");
    check(Change::Mode { old: 0o644, new: 0o4755 }, "mode changed", "0644", "4755");
    check(Change::Owner { old: (0, 0), new: (33, 34) }, "owner changed", "0:0", "33:34");
    check(Change::Size { old: 1, new: 20 }, "changed", "1 byte", "20 bytes");
    let old = [0xab; 32];
    check(Change::Content { old, new: [1; 32] }, "changed", "blake3:abababababab", "blake3:010101010101");
    let change = Change::Time { old: time(0, 500_000_000), new: time(499_162_500, 0) };
    check(change, "time changed", "1970-01-01T00:00:00.5Z", "1985-10-26T08:15:00Z");
    let change = Change::Time { old: time(i64::MAX, 0), new: time(-1, 0) };
    check(change, "time changed", "9223372036854775807", "1969-12-31T23:59:59Z");
    check(listing("k", false, true), "new name", "", "k");
    check(listing("k", true, false), "name gone", "k", "");
    check(listing("k", true, true), "name of another kind", "k", "k");
    check(Change::Unreadable { reason: "why".into() }, "unreadable", "", "why");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]
    #[test]
    fn a_record_holds_where_its_values_hold(
        below in random_layer(),
        old in random_layer(),
        new in random_layer(),
        bottom in random_layer(),
        asked in vec(ask(), 0..10),
        shape in 0..4_u8,
    ) {
        let old_layers = [&below, &old];
        let new_layers = match shape {
            0 => vec![&below, &new],
            1 => vec![&bottom, &below, &old],
            2 => vec![&below],
            _ => vec![&below, &old, &new],
        };
        let (old_tree, new_tree) = (tree_of(&old_layers), tree_of(&new_layers));
        let (old_known, new_known) = (known(&old_tree, &old_layers), known(&new_tree, &new_layers));
        let recorded = uses(&old_tree, &asked, &old_known);
        prop_assert_eq!(&recorded, &naive_uses(&old_tree, &asked, &old_known));
        prop_assert_eq!(verify(0, &recorded, &old_tree, &old_known), Ok(()));

        let now = naive_uses(&new_tree, &asked, &new_known);
        let first = recorded.uses.iter().zip(&now.uses).find(|(old, new)| old != new).map(|(old, _)| old.path.clone());
        let found = verify(0, &recorded, &new_tree, &new_known).err().map(|difference| difference.path);
        prop_assert_eq!(found, first);
    }

    #[test]
    fn changed_paths_are_those_with_another_value(below in random_layer(), old in random_layer(), new in random_layer()) {
        let (old_layers, new_layers) = ([&below, &old], [&below, &new]);
        let (old_tree, new_tree) = (tree_of(&old_layers), tree_of(&new_layers));
        let (old_known, new_known) = (known(&old_tree, &old_layers), known(&new_tree, &new_layers));
        let digest = |tree: &MergedIndex, path: &[u8]| {
            let file = tree.position(path).and_then(|position| tree.attributes_at(position));
            file.is_some_and(|file| matches!(file.kind, Kind::File { content: Some(_), .. }))
        };
        let mut paths: Vec<_> = old_tree.walk(b"").chain(new_tree.walk(b"")).map(|entry| entry.path.clone()).collect();
        paths.push(Vec::new());
        paths.sort_by(|a, b| compare_paths(a, b));
        paths.dedup();
        paths.retain(|path| {
            let read = digest(&old_tree, path) && digest(&new_tree, path);
            naive_value(&old_tree, path, read, false, &old_known) != naive_value(&new_tree, path, read, false, &new_known)
        });
        prop_assert_eq!(changed_paths(&old_tree, &new_tree), paths);
        prop_assert_eq!(changed_paths(&old_tree, &old_tree), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn malformed_links_are_no_reason_to_panic(links in vec((path(), path()), 0..8), asked in vec(ask(), 0..8)) {
        let mut entries: Vec<_> = links
            .iter()
            .map(|(path, target)| hard_link(std::str::from_utf8(path).unwrap(), std::str::from_utf8(target).unwrap()))
            .collect();
        entries.push(directory("a"));
        entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
        entries.dedup_by(|a, b| a.path == b.path);
        let tree = tree([Index::new(entries).unwrap().into_entries()]);
        let recorded = uses(&tree, &asked, &NoContents);
        prop_assert_eq!(verify(0, &recorded, &tree, &NoContents), Ok(()));
    }
}
