//! The form on disk: what was written is read back, what was altered is refused.

use mica_tree::{Entry, Index, IndexError, Kind, Time, compare_paths};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b'a'), Just(b'.'), Just(b'-'), Just(1), Just(0xff), Just(b'0')], 1..4)
        .prop_filter("a name", |name| name != b"." && name != b"..")
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(name(), 0..4).prop_map(|names| names.join(&b'/'))
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>(), 0..20)
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        (any::<u64>(), any::<Option<[u8; 32]>>()).prop_map(|(size, content)| Kind::File { size, content }),
        (any::<bool>(), any::<bool>()).prop_map(|(opaque, implied)| Kind::Directory { opaque, implied }),
        bytes().prop_map(|target| Kind::Symlink { target }),
        path().prop_map(|target| Kind::Hardlink { target }),
        any::<(u32, u32)>().prop_map(|rdev| Kind::CharDevice { rdev }),
        any::<(u32, u32)>().prop_map(|rdev| Kind::BlockDevice { rdev }),
        Just(Kind::Fifo),
        Just(Kind::Socket),
        Just(Kind::Whiteout),
    ]
}

prop_compose! {
    fn attributes()(
        kind in kind(),
        mode in 0..=0o7777_u32,
        uid in any::<u32>(),
        gid in any::<u32>(),
        seconds in any::<i64>(),
        nanoseconds in 0..1_000_000_000_u32,
        xattrs in vec((bytes(), bytes()), 0..3),
    ) -> Entry {
        let entry = Entry { path: Vec::new(), kind, mode, uid, gid, mtime: Time { seconds, nanoseconds }, xattrs };
        match entry.kind {
            // Their attributes mean nothing and are not written down.
            Kind::Hardlink { .. } | Kind::Whiteout => bare(entry.kind),
            _ => entry,
        }
    }
}

fn bare(kind: Kind) -> Entry {
    Entry { path: Vec::new(), kind, mode: 0, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

fn index() -> impl Strategy<Value = Index> {
    btree_map(path(), attributes(), 0..12).prop_map(|entries| {
        let entries = entries.into_iter().map(|(path, entry)| Entry { path, ..entry }).collect();
        Index::new(entries).unwrap()
    })
}

/// The bytes with a checksum that is right: what somebody hostile would write.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = blake3::hash(&body);
    body.extend_from_slice(checksum.as_bytes());
    body
}

proptest! {
    #[test]
    fn what_was_written_is_read(index in index()) {
        let bytes = index.encode();
        prop_assert_eq!(Index::decode(&bytes).unwrap(), index.clone());
        prop_assert_eq!(Index::decode(&bytes).unwrap().encode(), bytes.clone());
        for end in 0..bytes.len() {
            prop_assert!(Index::decode(&bytes[..end]).is_err());
        }
        for entry in index.entries() {
            prop_assert_eq!(index.get(&entry.path), Some(entry));
        }
    }

    #[test]
    fn altered_bytes_are_an_error_or_an_index(index in index(), changes in vec((any::<usize>(), any::<u8>()), 1..4), cut in any::<bool>()) {
        let bytes = index.encode();
        let mut body = bytes[..bytes.len() - 32].to_vec();
        let mut unsealed = bytes.clone();
        for (position, value) in changes {
            let position = position % (body.len() - 8);
            body[8 + position] = value;
            unsealed[8 + position] = value;
            if cut {
                body.truncate(9 + position);
            }
        }
        if unsealed != bytes {
            prop_assert_eq!(Index::decode(&unsealed), Err(IndexError::Checksum));
        }
        if let Ok(read) = Index::decode(&sealed(body)) {
            prop_assert_eq!(Index::decode(&read.encode()).unwrap(), read);
        }
    }

    #[test]
    fn order_is_that_of_components(a in path(), b in path()) {
        fn split(path: &[u8]) -> Vec<&[u8]> {
            path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect()
        }
        prop_assert_eq!(compare_paths(&a, &b), split(&a).cmp(&split(&b)));
    }
}

#[test]
fn hostile_numbers() {
    let check = |body: &[u8], expect: Result<usize, ()>| {
        let decoded = Index::decode(&sealed([b"micaidx\x01", body].concat()));
        assert_eq!(decoded.map(|index| index.entries().len()).map_err(|_| ()), expect, "{body:x?}");
    };
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    check(&[0], Ok(0));
    check(&[1, 0, 1, b'a', 11], Ok(1));
    check(&[1, 0, 1, b'a', 12], Err(()));
    check(&[1, 1, 1, b'a', 11], Err(()));
    check(&[2, 0, 1, b'a', 11], Err(()));
    check(&[1, 0, 1, b'a', 11, 0], Err(()));
    // As many entries, as long a path, as many attributes as a number can say.
    check(&huge, Err(()));
    check(&[&[1, 0][..], &huge].concat(), Err(()));
    check(&[&[1][..], &huge, &[1, b'a', 11]].concat(), Err(()));
    check(&[&[1, 0, 1, b'a', 9, 0, 0, 0, 0, 0][..], &huge].concat(), Err(()));
    check(&[&[1, 0, 1, b'a', 5, 0, 0, 0, 0, 0, 0][..], &huge].concat(), Err(()));
    // A number in more than 64 bits, a mode, a time and a flag that cannot be.
    check(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02], Err(()));
    check(&[1, 0, 1, b'a', 9, 0x80, 0x20, 0, 0, 0, 0, 0], Err(()));
    check(&[1, 0, 1, b'a', 9, 0, 0, 0, 0, 0x80, 0x94, 0xeb, 0xdc, 0x03, 0], Err(()));
    check(&[1, 0, 1, b'a', 0, 0, 0, 0, 0, 0, 0, 1, 2], Err(()));
    // Out of order, twice, and paths that are not clean.
    check(&[2, 0, 1, b'b', 11, 0, 1, b'a', 11], Err(()));
    check(&[2, 0, 1, b'a', 11, 1, 0, 11], Err(()));
    for path in [&b"/a"[..], b"a/", b"a//b", b".", b"..", b"a/../b", b"./a", b"a\0"] {
        check(&[&[1, 0, path.len() as u8][..], path, &[11]].concat(), Err(()));
    }
    let long = vec![b'a'; 5000];
    check(&[&[1, 0, 0x88, 0x27][..], &long, &[11]].concat(), Err(()));
}

#[test]
fn entries_in_any_order_each_path_once() {
    let entry = |path: &str| Entry { path: path.into(), ..bare(Kind::Fifo) };
    let index = Index::new(vec![entry("a.b"), entry("a/b"), entry("a"), entry("")]).unwrap();
    let paths: Vec<_> = index.entries().iter().map(|entry| entry.path.clone()).collect();
    assert_eq!(paths, [&b""[..], b"a", b"a/b", b"a.b"]);
    assert!(matches!(Index::new(vec![entry("a"), entry("a")]), Err(IndexError::Order { .. })));
    assert!(matches!(Index::new(vec![entry("a/../b")]), Err(IndexError::Path { .. })));
}

#[test]
fn paths_are_compared_by_components_whatever_they_share() {
    let prefix = "usr/share/a-directory-with-a-long-name";
    let mut paths = vec![String::new()];
    for length in 0..prefix.len() {
        for end in ["", "/", "/a", "!", "!a", "a", "a/b", "b"] {
            paths.push(format!("{}{end}", &prefix[..length]));
        }
    }
    let key = |path: &str| path.replace('/', "\0").into_bytes();
    for a in &paths {
        for b in &paths {
            let expect = key(a).cmp(&key(b));
            assert_eq!(mica_tree::compare_paths(a.as_bytes(), b.as_bytes()), expect, "{a} {b}");
        }
    }
}

#[test]
fn a_position_is_found_wherever_it_is_looked_for_first() {
    let entry = |path: &str| mica_tree::Entry {
        path: path.into(),
        kind: mica_tree::Kind::Fifo,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: mica_tree::Time { seconds: 0, nanoseconds: 0 },
        xattrs: Vec::new(),
    };
    let index = mica_tree::Index::from_sorted(["a", "b", "c", "d", "e", "f", "g"].map(entry).into());
    for next in 0..10 {
        for (position, path) in ["a", "b", "c", "d", "e", "f", "g"].iter().enumerate() {
            assert_eq!(index.position_near(path.as_bytes(), next), Some(position));
        }
        assert_eq!(index.position_near(b"x", next), None);
    }
}

proptest! {
    #[test]
    fn order_of_paths_is_that_of_their_components(shared in "[a-c./]{0,40}", a in "[a-c./]{0,20}", b in "[a-c./]{0,20}") {
        let (a, b) = (format!("{shared}{a}"), format!("{shared}{b}"));
        prop_assert_eq!(compare_paths(a.as_bytes(), b.as_bytes()), a.split('/').cmp(b.split('/')));
    }
}
