//! A record as bytes, and bytes that are none.

use mica_trace::{Attributes, ListedKind, Record, RecordError, TreeUse, Use, Value};
use mica_tree::{Time, compare_paths};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const KINDS: [ListedKind; 7] = [
    ListedKind::File,
    ListedKind::Directory,
    ListedKind::Symlink,
    ListedKind::CharDevice,
    ListedKind::BlockDevice,
    ListedKind::Fifo,
    ListedKind::Socket,
];

const ATTRIBUTES: Attributes = Attributes { mode: 0o755, uid: 0, gid: 0, xattrs: None };

fn name() -> impl Strategy<Value = Vec<u8>> {
    vec(any::<u8>().prop_filter("of a name", |byte| !matches!(byte, 0 | b'/')), 1..6)
        .prop_filter("a name", |name| name != b"." && name != b"..")
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just(b"usr".to_vec()), Just(b"lib".to_vec()), name()], 0..5)
        .prop_map(|names| names.join(&b'/'))
}

fn sorted(mut paths: Vec<Vec<u8>>) -> Vec<Vec<u8>> {
    paths.sort_by(|a, b| compare_paths(a, b));
    paths.dedup();
    paths
}

fn value() -> impl Strategy<Value = Value> {
    let attributes = (0..0o10000_u32, any::<u32>(), any::<u32>(), option::of(any::<[u8; 32]>()))
        .prop_map(|(mode, uid, gid, xattrs)| Attributes { mode, uid, gid, xattrs });
    let listing = (vec(name(), 0..5), 0..7_usize).prop_map(|(names, kind)| {
        sorted(names).into_iter().zip(KINDS.into_iter().cycle().skip(kind)).collect()
    });
    let time =
        (any::<i64>(), 0..1_000_000_000_u32).prop_map(|(seconds, nanoseconds)| Time { seconds, nanoseconds });
    let file = (any::<u64>(), time, vec(path(), 0..4), option::of(any::<[u8; 32]>()));
    (0..5_u8, attributes, option::of(listing), file, vec(any::<u8>(), 0..9), 3..7_usize, any::<(u32, u32)>())
        .prop_map(|(which, attributes, listing, (size_bytes, mtime, names, content), target, kind, rdev)| {
            match which {
                0 => Value::Absent,
                1 => Value::Directory { attributes, listing },
                2 => Value::File {
                    attributes,
                    size_bytes,
                    mtime: (mtime.seconds % 3 != 0).then_some(mtime),
                    names: sorted(names),
                    content,
                },
                3 => Value::Symlink { attributes, target },
                _ => Value::Special { attributes, kind: KINDS[kind], rdev },
            }
        })
}

fn record() -> impl Strategy<Value = Record> {
    let uses = vec((path(), value()), 0..12).prop_map(|uses| {
        let mut uses: Vec<_> = uses.into_iter().map(|(path, value)| Use { path, value }).collect();
        uses.sort_by(|a, b| compare_paths(&a.path, &b.path));
        uses.dedup_by(|a, b| a.path == b.path);
        TreeUse { uses }
    });
    vec(uses, 0..4).prop_map(|trees| Record { trees })
}

/// `plain` as the inside of a record whose checksum is right.
fn wrapped(plain: &[u8]) -> Vec<u8> {
    sealed(&zstd::encode_all(plain, 1).unwrap())
}

fn sealed(compressed: &[u8]) -> Vec<u8> {
    [b"micarec\x01", blake3::hash(compressed).as_bytes().as_slice(), compressed].concat()
}

fn plain(record: &Record) -> Vec<u8> {
    zstd::decode_all(&record.encode()[40..]).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn what_was_written_is_read(record in record()) {
        prop_assert_eq!(Record::decode(&record.encode()), Ok(record));
    }

    #[test]
    fn altered_bytes_are_noticed(record in record(), at in any::<prop::sample::Index>(), bit in 0..8_u32, cut in any::<bool>()) {
        let mut bytes = record.encode();
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] ^= 1 << bit }
        prop_assert!(Record::decode(&bytes).is_err());
    }

    /// With a right checksum: what is decoded at all is a record that could have been written.
    #[test]
    fn any_inside_is_a_record_or_an_error(record in record(), at in any::<prop::sample::Index>(), byte: u8, cut in any::<bool>()) {
        let mut bytes = plain(&record);
        let at = at.index(bytes.len());
        if cut { bytes.truncate(at) } else { bytes[at] = byte }
        if let Ok(decoded) = Record::decode(&wrapped(&bytes)) {
            prop_assert_eq!(Record::decode(&decoded.encode()), Ok(decoded));
        }
    }

    #[test]
    fn random_bytes_are_no_reason_to_panic(bytes in vec(any::<u8>(), 0..200)) {
        prop_assert!(Record::decode(&bytes).is_err());
        let _ = Record::decode(&sealed(&bytes));
        if let Ok(decoded) = Record::decode(&wrapped(&bytes)) {
            prop_assert_eq!(Record::decode(&decoded.encode()), Ok(decoded));
        }
    }
}

#[test]
fn what_is_no_record_is_refused() {
    let used = |path: &str| Use { path: path.into(), value: Value::Absent };
    let uses = |paths: &[&str]| Record {
        trees: vec![TreeUse { uses: paths.iter().map(|path| used(path)).collect() }],
    };
    let listing = |names: &[&str]| {
        let listing = names.iter().map(|name| (name.as_bytes().to_vec(), ListedKind::File)).collect();
        let value = Value::Directory { attributes: ATTRIBUTES, listing: Some(listing) };
        Record { trees: vec![TreeUse { uses: vec![Use { path: vec![], value }] }] }
    };
    let order = |path: &str| Err(RecordError::Order { path: path.into() });
    let unclean = |path: &str| Err(RecordError::Path { path: path.into() });
    let check = |record: Record, expect: Result<Record, RecordError>| {
        assert_eq!(Record::decode(&record.encode()), expect)
    };
    check(uses(&["", "a", "a/b", "a.b"]), Ok(uses(&["", "a", "a/b", "a.b"])));
    check(uses(&["a", "a.b", "a/b"]), order("a/b"));
    check(uses(&["a", "a"]), order("a"));
    check(uses(&["/a"]), unclean("/a"));
    check(uses(&["a/../b"]), unclean("a/../b"));
    check(uses(&["a//b"]), unclean("a//b"));
    check(listing(&["a", "b"]), Ok(listing(&["a", "b"])));
    check(listing(&["b", "a"]), order("a"));
    check(listing(&["a", "a"]), order("a"));
    check(listing(&["a/b"]), unclean("a/b"));
    check(listing(&[".."]), unclean(".."));
    check(listing(&[""]), unclean(""));
    let long = "x".repeat(4097);
    assert!(matches!(Record::decode(&uses(&[&long]).encode()), Err(RecordError::Malformed(_))));
    let mut other_version = uses(&[]).encode();
    other_version[7] = 2;
    assert_eq!(Record::decode(&other_version), Err(RecordError::Magic));
    assert_eq!(Record::decode(b""), Err(RecordError::Magic));
    assert_eq!(Record::decode(b"micarec\x01"), Err(RecordError::Checksum));
    assert!(matches!(Record::decode(&sealed(b"no frame")), Err(RecordError::Compression { .. })));
    assert!(matches!(
        Record::decode(&wrapped(&[plain(&uses(&[])), vec![0]].concat())),
        Err(RecordError::Malformed(_))
    ));
}

#[test]
fn little_that_would_be_much_is_refused() {
    // Zeros without end.
    let bomb = wrapped(&vec![0; (256 << 20) + 1]);
    assert!(bomb.len() < 1 << 20);
    assert_eq!(Record::decode(&bomb), Err(RecordError::TooLarge));
    // A long path, and then ever so many paths that share it.
    let mut plain = vec![1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0xa0, 0x1f];
    plain.extend(vec![b'a'; 4000]);
    plain.push(0);
    for number in 0..200_000_u32 {
        // Shared 4000 of it, then five digits as letters; they come in order.
        plain.extend([0xa0, 0x1f, 6]);
        plain.extend(format!("{number:06}").bytes());
        plain.push(0);
    }
    assert_eq!(Record::decode(&wrapped(&plain)), Err(RecordError::TooLarge));
}
