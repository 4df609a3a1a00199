//! Layers made from files: the digest is that of the tar that comes out later, whatever the sizes; changing sources end it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use mica_tree::{Entry, Index, Kind, Time};
use sha2::{Digest as _, Sha256};

use crate::assemble::{AssembleError, AssembleOptions, Assembled, Item, Source, assemble};
use crate::ordered::hash_in_order;
use crate::tar_entry::{TarLimits, TarReader};
use crate::write_tar::{WriteTarError, write_tar};

fn entry(path: &str, kind: Kind) -> Entry {
    let mtime = Time { seconds: 1_700_000_000, nanoseconds: 0 };
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry { path: path.into(), kind, mode: 0o644, uid, gid, mtime, xattrs: Vec::new() }
}

fn file(path: &str, size: usize) -> Item {
    let content: Vec<u8> = (0..size).map(|at| ((at * 31) >> 3) as u8).collect();
    let kind = Kind::File { size: size as u64, content: None };
    Item { entry: entry(path, kind), source: Source::Bytes(content.into()) }
}

fn other(path: &str, kind: Kind) -> Item {
    Item { entry: entry(path, kind), source: Source::None }
}

fn directory(path: &str) -> Item {
    let mut item = other(path, Kind::Directory { opaque: false, implied: false });
    item.entry.mode = 0o755;
    item
}

fn no_source(_: usize) -> io::Result<File> {
    Err(io::ErrorKind::NotFound.into())
}

fn make(
    tree: &Path,
    mut items: Vec<Item>,
    open: &crate::assemble::OpenSource<'_>,
) -> Result<Assembled, AssembleError> {
    items.sort_by(|a, b| mica_tree::compare_paths(&a.entry.path, &b.entry.path));
    fs::create_dir(tree).unwrap();
    assemble(File::open(tree).unwrap().as_fd(), items, open, AssembleOptions::default())
}

fn tar(index: &Index, tree: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut open = |entry: &Entry| File::open(tree.join(mica_sys::dir_at::bytes_path(&entry.path)));
    write_tar(index, &mut open, &mut bytes).unwrap();
    bytes
}

/// Assembles twice, compares with the tar, reads the tar back.
fn check(items: Vec<Item>) -> Index {
    let top = tempfile::tempdir().unwrap();
    let (one, two) = (top.path().join("one"), top.path().join("two"));
    let made = make(&one, items.clone(), &no_source).unwrap();
    let again = make(&two, items, &no_source).unwrap();
    assert_eq!((&made.index, made.diff_id), (&again.index, again.diff_id));
    let decoded = Index::decode(&made.index.encode()).unwrap();
    let bytes = tar(&decoded, &one);
    assert_eq!(<[u8; 32]>::from(Sha256::digest(&bytes)), made.diff_id);
    assert_eq!(bytes.len() as u64, made.tar_size_bytes);
    let mut reader = TarReader::new(&bytes[..], TarLimits::default());
    for entry in made.index.entries() {
        if entry.path.is_empty() || matches!(entry.kind, Kind::Socket) {
            continue;
        }
        let read = reader.next_entry().unwrap().unwrap();
        if matches!(entry.kind, Kind::Whiteout) {
            continue;
        }
        assert_eq!(read.entry.path.escape_ascii().to_string(), entry.path.escape_ascii().to_string());
        if let Kind::Directory { opaque: true, .. } = entry.kind {
            assert!(reader.next_entry().unwrap().unwrap().entry.path.ends_with(b".wh..wh..opq"));
        }
        if matches!(entry.kind, Kind::Hardlink { .. }) {
            continue;
        }
        let (read, expect) = (&read.entry, entry);
        assert_eq!(
            (read.mode, read.uid, read.gid, read.mtime, &read.xattrs),
            (expect.mode, expect.uid, expect.gid, expect.mtime, &expect.xattrs)
        );
    }
    made.index
}

#[test]
fn the_digest_is_that_of_the_tar_for_every_size() {
    check(Vec::new());
    let sizes = [0, 1, 511, 512, 513, 1023, 1024, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20];
    for size in sizes {
        check(vec![file("a", 3), file("b", size), file("c", 700)]);
    }
    check(sizes.iter().enumerate().map(|(at, size)| file(&format!("{at:02}"), *size)).collect());
}

#[test]
fn many_files_are_many_batches() {
    let mut items = vec![directory("d")];
    items.extend((0..1_000).map(|number| file(&format!("d/{number:04}"), number * 7)));
    items.push(other("e", Kind::Hardlink { target: b"d/0001".to_vec() }));
    items.push(other("f", Kind::Hardlink { target: b"d/0999".to_vec() }));
    check(items);
}

#[test]
fn names_and_numbers_that_ustar_cannot_hold() {
    let long = |length: usize| "n".repeat(length);
    let mut items = Vec::new();
    for length in [99, 100, 101, 155, 156, 255] {
        items.push(file(&long(length), 1));
    }
    let deep = format!("{}/{}", "d".repeat(155), "e".repeat(100));
    let deeper = format!("{deep}/{}", "f".repeat(200));
    items.push(directory(&"d".repeat(155)));
    items.push(directory(&deep));
    items.push(directory(&deeper));
    items.push(file(&format!("{deeper}/\u{20ac}"), 2));
    items.push(other("link", Kind::Symlink { target: long(101).into() }));
    items.push(other("link2", Kind::Symlink { target: "\u{20ac}".into() }));
    items.push(other("zz", Kind::Hardlink { target: long(101).into() }));
    for (position, seconds) in [-1, -(1_i64 << 40), 0, 1 << 33, (1 << 33) - 1].into_iter().enumerate() {
        let mut item = other(&format!("t{position}"), Kind::Fifo);
        item.entry.mtime.seconds = seconds;
        items.push(item);
    }
    // Not with files: few file systems hold such times.
    items.retain(|item| (-1 << 31..1 << 33).contains(&item.entry.mtime.seconds));
    check(items);
}

#[test]
fn root_owners_of_any_size_and_marks() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let mut items = vec![directory(""), directory("o"), file("o/f", 2), other("w", Kind::Whiteout)];
    items[1].entry.kind = Kind::Directory { opaque: true, implied: false };
    for (position, id) in [0, 0o7_777_777, 0o7_777_777 + 1, u32::MAX - 1].into_iter().enumerate() {
        let mut item = file(&format!("owner{position}"), 1);
        (item.entry.uid, item.entry.gid) = (id, id);
        item.entry.mode = 0o6755;
        items.push(item);
    }
    items.push(other("c", Kind::CharDevice { rdev: (1, 3) }));
    items.push(other("s", Kind::Socket));
    check(items);
}

#[test]
fn root_a_group_bit_above_the_tree_changes_nothing() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: needs root");
        return;
    }
    let top = tempfile::tempdir().unwrap();
    std::os::unix::fs::chown(top.path(), None, Some(1234)).unwrap();
    fs::set_permissions(top.path(), std::os::unix::fs::PermissionsExt::from_mode(0o2755)).unwrap();
    make(&top.path().join("tree"), vec![directory("d"), file("d/f", 1)], &no_source).unwrap();
    for path in ["tree/d", "tree/d/f"] {
        let found = fs::metadata(top.path().join(path)).unwrap();
        assert_eq!((found.gid(), found.mode() & 0o7000), (0, 0), "{path}");
    }
}

/// `content` for every token; runs in a thread, so that a hang is a failure and not a hang.
fn from_files(
    count: usize,
    size: u64,
    content: impl Fn(usize) -> io::Result<Vec<u8>> + Send + Sync + 'static,
) -> Result<Assembled, AssembleError> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let top = tempfile::tempdir().unwrap();
        let item = |token: usize| Item {
            entry: entry(&format!("{token:05}"), Kind::File { size, content: None }),
            source: Source::File { token, read_xattrs: true },
        };
        let open = |token: usize| {
            let mut file = tempfile::tempfile()?;
            file.write_all(&content(token)?)?;
            io::Seek::rewind(&mut file)?;
            Ok(file)
        };
        let _ = sender.send(make(&top.path().join("tree"), (0..count).map(item).collect(), &open));
    });
    receiver.recv_timeout(Duration::from_secs(60)).expect("it hangs")
}

#[test]
fn a_source_that_changes_is_an_error() {
    let check = |size: u64, real: usize, is_right: bool| {
        let result = from_files(3, size, move |_| Ok(vec![7; real]));
        match result {
            Ok(_) => assert!(is_right, "{size} {real}"),
            Err(AssembleError::Changed { expected_bytes, .. }) => {
                assert!(!is_right, "{size} {real}");
                assert_eq!(expected_bytes, size);
            }
            Err(error) => panic!("{size} {real}: {error}"),
        }
    };
    check(10, 10, true);
    check(10, 9, false);
    check(10, 11, false);
    check(0, 1, false);
    check(1 << 20, (1 << 20) + 1, false);
    check((3 << 20) + 5, 1 << 20, false);
    check((3 << 20) + 5, (3 << 20) + 5, true);
}

#[test]
fn an_error_among_many_batches_ends_all() {
    for position in [0, 300, 599] {
        let result = from_files(600, 10, move |token| {
            if token == position { Err(io::ErrorKind::NotFound.into()) } else { Ok(vec![1; 10]) }
        });
        match result {
            Err(AssembleError::Source { path, .. }) => assert_eq!(path, format!("{position:05}")),
            result => panic!("{result:?}"),
        }
    }
    // Large files too, whose pieces wait for the hashing thread.
    let result = from_files(20, 2 << 20, |token| match token {
        7 => Ok(vec![1; 5]),
        _ => Ok(vec![1; 2 << 20]),
    });
    assert!(matches!(result, Err(AssembleError::Changed { .. })));
}

#[test]
fn a_panic_in_a_batch_ends_all() {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let batches: Vec<_> = (0..100).map(|at| at..at + 1).collect();
        let done = AtomicUsize::new(0);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            hash_in_order::<(), (), ()>(
                &batches,
                || (),
                |(), batch, _| {
                    done.fetch_add(1, Ordering::Relaxed);
                    assert!(batch.start < 3, "on purpose");
                    Ok(Vec::new())
                },
            )
            .is_ok()
        }));
        let _ = sender.send(outcome.is_err());
    });
    assert!(receiver.recv_timeout(Duration::from_secs(60)).expect("it hangs"));
}

#[test]
fn links_never_leave_the_tree() {
    let top = tempfile::tempdir().unwrap();
    let outside = top.path().join("outside");
    fs::create_dir(&outside).unwrap();
    let items = vec![
        file("0", 1),
        other("a", Kind::Symlink { target: outside.to_str().unwrap().into() }),
        other("a/escaped", Kind::Hardlink { target: b"0".to_vec() }),
    ];
    let result = make(&top.path().join("tree"), items, &no_source);
    assert!(matches!(result, Err(AssembleError::NoParent { .. })), "{result:?}");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
}

#[test]
fn a_tree_that_is_not_as_its_index_says() {
    let top = tempfile::tempdir().unwrap();
    let tree = top.path().join("tree");
    let index = make(&tree, vec![file("f", 1_000)], &no_source).unwrap().index;
    let write = || write_tar(&index, &mut |_| File::open(tree.join("f")), &mut io::sink());
    assert!(write().is_ok());
    for size in [0, 999, 1_001, 10_000_000] {
        File::options().write(true).open(tree.join("f")).unwrap().set_len(size).unwrap();
        assert!(matches!(write(), Err(WriteTarError::Length { expected_bytes: 1_000, .. })), "{size}");
    }
    fs::remove_file(tree.join("f")).unwrap();
    assert!(matches!(write(), Err(WriteTarError::Read { .. })));
}

#[test]
fn times_are_whole_seconds_in_tree_and_index() {
    let top = tempfile::tempdir().unwrap();
    let tree = top.path().join("tree");
    let mut item = file("f", 1);
    item.entry.mtime.nanoseconds = 999;
    let index = make(&tree, vec![item], &no_source).unwrap().index;
    assert_eq!(index.entries()[0].mtime.nanoseconds, 0);
    assert_eq!(fs::metadata(tree.join("f")).unwrap().mtime_nsec(), 0);
}
