//! Two layers, path by path.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fs::File;
use std::sync::Arc;

use mica_oci::DiffId;
use mica_store::Store;
use mica_tree::{Entry, Index, Kind, Time, compare_paths};

use crate::compare::BuildSpan;
use crate::compare::content::{ContentDifference, compare_files};
use crate::error::BuildError;
use crate::filesystem::Chain;

/// Permission bit of everybody to read.
const OTHERS_READ: u32 = 0o004;

/// A path that is not the same in both layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferentPath {
    /// As in an index.
    pub path: Vec<u8>,
    /// All that is different of it; at least one.
    pub differences: Vec<PathDifference>,
}

impl DifferentPath {
    /// Leaves digests of contents only.
    pub(super) fn hide_lines(&mut self) {
        for difference in &mut self.differences {
            if let PathDifference::Content(content) = difference {
                content.lines = None;
            }
        }
    }
}

/// What of a path is different: in the first layer, in the second.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathDifference {
    /// Only one has it.
    Only {
        /// Whether it is the first.
        first: bool,
        /// `file`, `directory`, `deletion`, ...
        kind: &'static str,
    },
    /// It is something else.
    Kind([&'static str; 2]),
    /// What is in a file.
    Content(ContentDifference),
    /// Permission bits.
    Mode([u32; 2]),
    /// Owner and group.
    Owner([(u32, u32); 2]),
    /// Time of last change.
    Time([Time; 2]),
    /// Names of extended attributes whose value or presence is different.
    Xattrs(Vec<Vec<u8>>),
    /// What a symbolic link says.
    Target([Vec<u8>; 2]),
    /// Of which file it is a further name.
    LinkOf([Vec<u8>; 2]),
    /// The numbers of a device.
    Device([(u32, u32); 2]),
    /// One of the directories hides what is below it.
    Opaque {
        /// Whether it is the first.
        first: bool,
    },
}

/// What differs, and how many paths differ only in a time of the moment, which is not counted as a difference.
pub(super) fn compare(
    store: &Store,
    first: &DiffId,
    second: &DiffId,
    moments: Option<(BuildSpan, BuildSpan)>,
) -> Result<(Vec<DifferentPath>, usize), BuildError> {
    let sides = [side(store, first)?, side(store, second)?];
    let failed = |path: &[u8], error| {
        let path = String::from_utf8_lossy(path).into_owned();
        BuildError::from(mica_sys::Error::new("read", path, error))
    };
    let open = |side: &Side, path: &[u8]| -> Result<File, BuildError> {
        side.chain.open_in_layer(0, path).map_err(|error| failed(path, error))
    };
    let contents = |one: &Entry, other: &Entry| -> Result<Option<ContentDifference>, BuildError> {
        if content(one) == content(other) && content(one).is_some() {
            return Ok(None);
        }
        let files = [open(&sides[0], &one.path)?, open(&sides[1], &other.path)?];
        compare_files(files).map_err(|error| failed(&one.path, error))
    };
    compare_indexes(&sides[0].index, &sides[1].index, moments, &contents)
}

struct Side {
    index: Arc<Index>,
    chain: Chain,
}

fn side(store: &Store, diff_id: &DiffId) -> Result<Side, BuildError> {
    let missing = || BuildError::LayerMissing { diff_id: diff_id.clone() };
    let layer = store.layer(diff_id, None)?.ok_or_else(missing)?;
    let index = mica_image::read_index(&layer)
        .map_err(|error| BuildError::damaged(&layer, "index".into(), &error.to_string()))?;
    Ok(Side { index: Arc::new(index), chain: Chain::default().with(layer, diff_id.clone()) })
}

fn content(entry: &Entry) -> Option<(u64, [u8; 32])> {
    match &entry.kind {
        Kind::File { size, content: Some(content) } => Some((*size, *content)),
        _ => None,
    }
}

/// Compares the files of two entries of the same path.
type Contents<'a> = dyn Fn(&Entry, &Entry) -> Result<Option<ContentDifference>, BuildError> + 'a;

fn compare_indexes(
    first: &Index,
    second: &Index,
    moments: Option<(BuildSpan, BuildSpan)>,
    contents: &Contents<'_>,
) -> Result<(Vec<DifferentPath>, usize), BuildError> {
    let (mut found, mut of_the_moment) = (Vec::new(), 0);
    let (mut left, mut right) = (first.entries().iter().peekable(), second.entries().iter().peekable());
    loop {
        let order = match (left.peek(), right.peek()) {
            (None, None) => return Ok((found, of_the_moment)),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => compare_paths(&one.path, &other.path),
        };
        let one = if order != Ordering::Greater { left.next() } else { None };
        let other = if order != Ordering::Less { right.next() } else { None };
        let mut differences = Vec::new();
        let path = match (one, other) {
            (Some(one), Some(other)) => {
                differences = compare_entries(one, other, contents)?;
                let is_of_the_moment = |difference: &PathDifference| match (difference, moments) {
                    (PathDifference::Time([one, other]), Some((first, second))) => {
                        first.has(one.seconds) && second.has(other.seconds)
                    }
                    _ => false,
                };
                let count = differences.len();
                differences.retain(|difference| !is_of_the_moment(difference));
                of_the_moment += usize::from(count > 0 && differences.is_empty());
                one
            }
            (one, other) => {
                let Some(entry) = one.or(other) else { continue };
                // It is there for what is inside of it, which is told.
                if !matches!(entry.kind, Kind::Directory { implied: true, .. }) {
                    differences
                        .push(PathDifference::Only { first: one.is_some(), kind: in_words(&entry.kind) });
                }
                entry
            }
        };
        if !differences.is_empty() {
            found.push(DifferentPath { path: path.path.clone(), differences });
        }
    }
}

fn compare_entries(
    one: &Entry,
    other: &Entry,
    contents: &Contents<'_>,
) -> Result<Vec<PathDifference>, BuildError> {
    let mut found = Vec::new();
    match (&one.kind, &other.kind) {
        (Kind::File { .. }, Kind::File { .. }) => {
            let mut content = contents(one, other)?;
            // A key must not stand in the log of a build that was only looked at.
            let is_public = [one, other].iter().all(|entry| entry.mode & OTHERS_READ != 0);
            if let (Some(content), false) = (&mut content, is_public) {
                content.lines = None;
            }
            found.extend(content.map(PathDifference::Content));
        }
        (Kind::Symlink { target: a }, Kind::Symlink { target: b }) if a != b => {
            found.push(PathDifference::Target([a.clone(), b.clone()]));
        }
        (Kind::Hardlink { target: a }, Kind::Hardlink { target: b }) => {
            // All else is told of the first name.
            let differs = (a != b).then(|| PathDifference::LinkOf([a.clone(), b.clone()]));
            return Ok(differs.into_iter().collect());
        }
        (Kind::CharDevice { rdev: a }, Kind::CharDevice { rdev: b })
        | (Kind::BlockDevice { rdev: a }, Kind::BlockDevice { rdev: b })
            if a != b =>
        {
            found.push(PathDifference::Device([*a, *b]));
        }
        (Kind::Directory { opaque: a, .. }, Kind::Directory { opaque: b, .. }) if a != b => {
            found.push(PathDifference::Opaque { first: *a });
        }
        (a, b) if std::mem::discriminant(a) != std::mem::discriminant(b) => {
            return Ok(vec![PathDifference::Kind([in_words(a), in_words(b)])]);
        }
        _ => {}
    }
    if one.mode != other.mode {
        found.push(PathDifference::Mode([one.mode, other.mode]));
    }
    let owners = [(one.uid, one.gid), (other.uid, other.gid)];
    if owners[0] != owners[1] {
        found.push(PathDifference::Owner(owners));
    }
    if one.xattrs != other.xattrs {
        let all: BTreeSet<&(Vec<u8>, Vec<u8>)> = one.xattrs.iter().chain(&other.xattrs).collect();
        let differs =
            |pair: &&&(Vec<u8>, Vec<u8>)| !(one.xattrs.contains(pair) && other.xattrs.contains(pair));
        let names: BTreeSet<Vec<u8>> = all.iter().filter(differs).map(|(name, _)| name.clone()).collect();
        found.push(PathDifference::Xattrs(names.into_iter().collect()));
    }
    if one.mtime != other.mtime {
        found.push(PathDifference::Time([one.mtime, other.mtime]));
    }
    Ok(found)
}

fn in_words(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } => "file",
        Kind::Hardlink { .. } => "hard link",
        Kind::Directory { .. } => "directory",
        Kind::Symlink { .. } => "symbolic link",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
        Kind::Whiteout => "deletion",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(path: &str, kind: Kind, seconds: i64) -> Entry {
        let mtime = Time { seconds, nanoseconds: 0 };
        Entry { path: path.as_bytes().to_vec(), kind, mode: 0o644, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }

    fn file(path: &str, byte: u8, seconds: i64) -> Entry {
        entry(path, Kind::File { size: 1, content: Some([byte; 32]) }, seconds)
    }

    fn symlink(path: &str, target: &str) -> Entry {
        entry(path, Kind::Symlink { target: target.into() }, 0)
    }

    /// The first build is of the time 100 to 110, the second of 120 to 130. `expect` are lines of path and differences, then
    /// how many paths are left out.
    #[track_caller]
    fn check(with_times: bool, first: Vec<Entry>, second: Vec<Entry>, expect: &[&str], of_the_moment: usize) {
        let span = |start_unix_s| BuildSpan { start_unix_s, end_unix_s: start_unix_s + 10 };
        let moments = (!with_times).then(|| (span(100), span(120)));
        let contents = |one: &Entry, other: &Entry| {
            Ok((content(one) != content(other)).then(|| ContentDifference {
                sizes_bytes: [1, 1],
                digests: [[0; 32], [1; 32]],
                offset: 0,
                starts: [vec![b'a'], vec![b'b']],
                lines: None,
            }))
        };
        let (first, second) = (Index::new(first).unwrap(), Index::new(second).unwrap());
        let (found, count) = compare_indexes(&first, &second, moments, &contents).unwrap();
        let word = |difference: &PathDifference| {
            let text = format!("{difference:?}");
            text.split([' ', '(']).next().unwrap_or_default().to_owned()
        };
        let line = |path: &DifferentPath| {
            let words: Vec<String> = path.differences.iter().map(word).collect();
            format!("{} {}", String::from_utf8_lossy(&path.path), words.join(" "))
        };
        assert_eq!(found.iter().map(line).collect::<Vec<_>>(), expect);
        assert_eq!(count, of_the_moment);
    }

    #[test]
    fn layers_side_by_side() {
        let directory = |implied| Kind::Directory { opaque: false, implied };
        check(true, vec![file("a", 1, 5)], vec![file("a", 1, 5)], &[], 0);
        check(true, vec![file("a", 1, 105)], vec![file("a", 1, 125)], &["a Time"], 0);
        check(false, vec![file("a", 1, 105)], vec![file("a", 1, 125)], &[], 1);
        check(false, vec![file("a", 1, 105)], vec![file("a", 2, 125)], &["a Content"], 0);
        // Set by a program to what no clock showed.
        check(false, vec![file("a", 1, 105)], vec![file("a", 1, 200)], &["a Time"], 0);
        check(false, vec![file("a", 1, 95)], vec![file("a", 1, 125)], &["a Time"], 0);
        check(
            true,
            vec![file("a", 1, 5), file("c", 1, 5)],
            vec![file("b", 1, 5), file("c", 2, 6)],
            &["a Only", "b Only", "c Content Time"],
            0,
        );
        check(
            true,
            vec![entry("d", directory(true), 5), file("d/a", 1, 5)],
            vec![entry("e", directory(false), 5)],
            &["d/a Only", "e Only"],
            0,
        );
        check(true, vec![symlink("l", "a")], vec![symlink("l", "b")], &["l Target"], 0);
        check(true, vec![symlink("l", "a")], vec![file("l", 1, 0)], &["l Kind"], 0);
        let changed = Entry {
            mode: 0o600,
            uid: 7,
            xattrs: vec![(b"user.a".to_vec(), b"1".to_vec())],
            ..file("a", 1, 5)
        };
        check(true, vec![file("a", 1, 5)], vec![changed], &["a Mode Owner Xattrs"], 0);
        let names = |first: &str, second: &str| {
            vec![file("a", 1, 0), file("b", 1, 0), entry(first, Kind::Hardlink { target: second.into() }, 0)]
        };
        check(true, names("c", "a"), names("c", "b"), &["c LinkOf"], 0);
    }
}
