//! Times that a layer may not have: in the index, in the tar by way of the index, and on disk. And what must not decide how
//! a layer looks: the order in which the kernel lists names, and numbers of inodes.

use std::fs::{self, File, FileTimes};
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use mica_tree::{Entry, Index, Kind, MergedIndex, Time};
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};

use crate::diff::{Diff, DiffOptions, FixedTime, diff_upper};

fn time(seconds: i64) -> Time {
    Time { seconds, nanoseconds: 0 }
}

fn set_time(path: &Path, seconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: 5 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn diff(upper: &Path, lower: &MergedIndex, fixed_time: Option<FixedTime>) -> Diff {
    let options = DiffOptions { fixed_time, shown_time: Some(time(400)), ..DiffOptions::default() };
    diff_upper(File::open(upper).unwrap().as_fd(), lower, &options).unwrap()
}

/// A file, a link, a pipe and a directory of that time, over a lower tree that has the directory `d` and the link `l` with the
/// time 700. `expect` are the times of `d`, `d/f`, `d/l`, `l`, `new`, `p`.
#[track_caller]
fn check(made: i64, fixed: Option<(i64, i64)>, expect: [i64; 6]) {
    let upper = tempfile::tempdir().unwrap();
    let at = |name: &str| upper.path().join(name);
    fs::create_dir(at("d")).unwrap();
    fs::create_dir(at("new")).unwrap();
    fs::write(at("d/f"), "f").unwrap();
    symlink("f", at("d/l")).unwrap();
    symlink("f", at("l")).unwrap();
    mknodat(CWD, at("p"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    for name in ["d/f", "d/l", "new", "p", "d"] {
        set_time(&at(name), made);
    }
    // Its owner was changed: it was brought up as the lower tree shows it.
    set_time(&at("l"), 400);
    let stat = fs::metadata(at("d")).unwrap();
    let entry = |path: &str, kind: Kind| Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: stat.mode() & 0o7777,
        uid: stat.uid(),
        gid: stat.gid(),
        mtime: time(700),
        xattrs: Vec::new(),
    };
    let directory = Kind::Directory { opaque: false, implied: false };
    let lower = vec![entry("d", directory), entry("l", Kind::Symlink { target: b"f".to_vec() })];
    let lower = MergedIndex::new([Arc::new(Index::new(lower).unwrap())]);
    let fixed = fixed.map(|(later_than, to)| FixedTime { later_than: time(later_than), time: time(to) });
    let found = diff(upper.path(), &lower, fixed).index;
    let times: Vec<_> = found.entries().iter().map(|entry| entry.mtime).collect();
    assert_eq!(times, expect.map(time), "{made} {fixed:?}");
    for entry in found.entries() {
        let name = std::str::from_utf8(&entry.path).unwrap();
        // A link to a lower one that nobody wrote is as it was on disk, and nobody sees it.
        if name != "l" || fixed.is_some() {
            assert_eq!(
                fs::symlink_metadata(at(name)).unwrap().mtime(),
                entry.mtime.seconds,
                "{name} on disk"
            );
        }
    }
    assert_eq!(diff(upper.path(), &lower, fixed).index, found, "reading it twice");
}

#[test]
fn later_times_become_the_fixed_one() {
    // Of the moment: all as it is, but what has the time of the lower tree.
    check(5000, None, [700, 5000, 5000, 700, 5000, 5000]);
    check(5000, Some((1000, 1000)), [1000; 6]);
    check(5000, Some((900, 900)), [900; 6]);
    // Set to something earlier: it stays, but nothing of the lower tree does.
    check(500, Some((1000, 1000)), [1000, 500, 500, 1000, 500, 500]);
    check(1000, Some((1000, 1000)), [1000; 6]);
    check(1001, Some((1000, 1000)), [1000; 6]);
    // The fixed time is in the future.
    check(5000, Some((4990, 9000)), [9000; 6]);
    check(4000, Some((4990, 9000)), [9000, 4000, 4000, 9000, 4000, 4000]);
    check(5000, Some((-7, -7)), [-7; 6]);
}

/// The same files, made in another order, so that listings and inodes are others.
#[test]
fn the_order_in_which_files_were_made_does_not_matter() {
    let names = ["z", "a", "m/x", "m/a", "b", "m.x", "m/y/1", "B", "m/y/0"];
    let make = |order: &[usize]| {
        let upper = tempfile::tempdir().unwrap();
        for number in order {
            let path = upper.path().join(names[*number]);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, names[*number]).unwrap();
        }
        // One file with four names, the first of which is made last or first.
        let links = ["q/2", "q/1", "c", "m/q"];
        fs::create_dir(upper.path().join("q")).unwrap();
        let first = upper.path().join(links[order[0] % links.len()]);
        fs::write(&first, "linked").unwrap();
        for link in links {
            let _ = fs::hard_link(&first, upper.path().join(link));
        }
        let times = FileTimes::new().set_modified(UNIX_EPOCH + Duration::from_secs(5000));
        File::open(&first).unwrap().set_times(times).unwrap();
        let fixed = FixedTime { later_than: time(9), time: time(9) };
        diff(upper.path(), &MergedIndex::default(), Some(fixed))
    };
    let orders = [
        [0, 1, 2, 3, 4, 5, 6, 7, 8],
        [8, 7, 6, 5, 4, 3, 2, 1, 0],
        [5, 0, 8, 2, 7, 1, 6, 3, 4],
        [2, 1, 0, 3, 5, 4, 8, 7, 6],
    ];
    let made: Vec<Diff> = orders.iter().map(|order| make(order)).collect();
    for diff in &made[1..] {
        assert_eq!(diff.index, made[0].index);
        assert_eq!(diff.diff_id, made[0].diff_id);
    }
    let first = made[0].index.get(b"c").map(|entry| &entry.kind);
    assert!(matches!(first, Some(Kind::File { .. })), "{first:?}");
}
