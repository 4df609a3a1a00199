//! What a step sees at a path of a tree, as a value: from the index alone, but for contents that it has no digest of.

use std::collections::HashMap;
use std::io;

use mica_tree::{Entry, Kind, MergedIndex};

use crate::record::{Attributes, ListedKind, Listing, Value};

/// The mode of a root that no layer has an entry for.
pub(crate) const ROOT_MODE: u32 = 0o755;

/// Digests of files that an index has none of.
pub trait Contents {
    /// BLAKE3 of the regular file at a position of the tree, which may be a hard link's.
    fn content(&self, position: usize) -> io::Result<[u8; 32]>;
}

/// For trees whose indexes have every digest.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoContents;

impl Contents for NoContents {
    fn content(&self, _position: usize) -> io::Result<[u8; 32]> {
        let reason = "the index has no digest of the content, and there is nothing to make one of";
        Err(io::Error::new(io::ErrorKind::Unsupported, reason))
    }
}

/// The files of a tree that have several names in it.
///
/// The names of a file stand in one layer. Layers above may hide any of them, also the one that holds the attributes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// Names of one file, as positions in order.
    files: Vec<Vec<usize>>,
    /// Which of the files is at a position.
    file_at: HashMap<usize, usize>,
}

impl Names {
    pub fn new(tree: &MergedIndex) -> Self {
        let mut names: HashMap<(usize, usize), Vec<usize>> = HashMap::new();
        for link in tree.hard_links() {
            let Some(file) = tree.file_at(link) else { continue };
            let known = names.entry(file).or_default();
            if known.is_empty()
                && let Kind::Hardlink { target } = &tree.entry(link).kind
                && let Some(first) = tree.position(target)
                && tree.file_at(first) == Some(file)
            {
                known.push(first);
            }
            known.push(link);
        }
        let mut files: Vec<_> = names.into_values().filter(|names| names.len() > 1).collect();
        files.iter_mut().for_each(|names| names.sort_unstable());
        let file_at = files
            .iter()
            .enumerate()
            .flat_map(|(file, names)| names.iter().map(move |position| (*position, file)))
            .collect();
        Self { files, file_at }
    }

    /// The positions of all names of the file at `position`, in order; empty when it has that one only.
    pub fn of(&self, position: usize) -> &[usize] {
        self.file_at.get(&position).map_or(&[], |file| &self.files[*file])
    }

    /// The first name of the file at `position`.
    pub fn first(&self, position: usize) -> usize {
        self.of(position).first().copied().unwrap_or(position)
    }

    /// How many names the file at `position` has.
    pub fn count(&self, position: usize) -> usize {
        self.of(position).len().max(1)
    }
}

/// What stands at a position. `read` adds the content of a regular file, `listed` the names in a directory.
///
/// A hard link to nothing, as a malformed index may have it, is absent.
pub(crate) fn value_at(
    tree: &MergedIndex,
    names: &Names,
    position: usize,
    read: bool,
    listed: bool,
    contents: &dyn Contents,
) -> io::Result<Value> {
    let mut value = value_without_content(tree, names, Some(position), listed);
    if let (true, Value::File { content, .. }) = (read, &mut value) {
        *content = Some(match content_in_index(tree, position) {
            Some(digest) => digest,
            None => contents.content(position)?,
        });
    }
    Ok(value)
}

/// The value of the root of a tree whose layers have no entry for it.
pub(crate) fn value_of_root_without_entry(tree: &MergedIndex, listed: bool) -> Value {
    value_without_content(tree, &Names::default(), None, listed)
}

/// What stands at a position, or at the root if that has none.
pub(crate) fn value_without_content(
    tree: &MergedIndex,
    names: &Names,
    position: Option<usize>,
    listed: bool,
) -> Value {
    let Some(position) = position else {
        let attributes = Attributes { mode: ROOT_MODE, uid: 0, gid: 0, xattrs: None };
        return Value::Directory { attributes, listing: listed.then(|| listing(tree, b"", 0)) };
    };
    let Some(entry) = tree.attributes_at(position) else { return Value::Absent };
    let attributes = attributes(entry);
    match &entry.kind {
        Kind::Directory { .. } => {
            let path = &tree.entry(position).path;
            Value::Directory { attributes, listing: listed.then(|| listing(tree, path, position + 1)) }
        }
        Kind::File { size, .. } => Value::File {
            attributes,
            size_bytes: *size,
            mtime: Some(entry.mtime),
            names: names.of(position).iter().map(|name| tree.entry(*name).path.clone()).collect(),
            content: None,
        },
        Kind::Symlink { target } => {
            Value::Symlink { attributes: Attributes { mode: 0o777, ..attributes }, target: target.clone() }
        }
        Kind::CharDevice { rdev } => Value::Special { attributes, kind: ListedKind::CharDevice, rdev: *rdev },
        Kind::BlockDevice { rdev } => {
            Value::Special { attributes, kind: ListedKind::BlockDevice, rdev: *rdev }
        }
        Kind::Fifo => Value::Special { attributes, kind: ListedKind::Fifo, rdev: (0, 0) },
        Kind::Socket => Value::Special { attributes, kind: ListedKind::Socket, rdev: (0, 0) },
        Kind::Hardlink { .. } | Kind::Whiteout => Value::Absent,
    }
}

/// The digest that the index has of the regular file at a position.
pub(crate) fn content_in_index(tree: &MergedIndex, position: usize) -> Option<[u8; 32]> {
    match tree.attributes_at(position)?.kind {
        Kind::File { content, .. } => content,
        _ => None,
    }
}

/// What a listing tells of a position; `None` for a hard link to nothing.
pub(crate) fn listed_kind(tree: &MergedIndex, position: usize) -> Option<ListedKind> {
    Some(match tree.attributes_at(position)?.kind {
        Kind::File { .. } => ListedKind::File,
        Kind::Directory { .. } => ListedKind::Directory,
        Kind::Symlink { .. } => ListedKind::Symlink,
        Kind::CharDevice { .. } => ListedKind::CharDevice,
        Kind::BlockDevice { .. } => ListedKind::BlockDevice,
        Kind::Fifo => ListedKind::Fifo,
        Kind::Socket => ListedKind::Socket,
        Kind::Hardlink { .. } | Kind::Whiteout => return None,
    })
}

fn listing(tree: &MergedIndex, path: &[u8], start: usize) -> Listing {
    let children = tree.children_from(path, start);
    let named = |position| Some((tree.entry(position).name().to_vec(), listed_kind(tree, position)?));
    children.filter_map(named).collect()
}

fn attributes(entry: &Entry) -> Attributes {
    Attributes { mode: entry.mode, uid: entry.uid, gid: entry.gid, xattrs: xattrs_digest(entry) }
}

fn xattrs_digest(entry: &Entry) -> Option<[u8; 32]> {
    if entry.xattrs.is_empty() {
        return None;
    }
    let mut hasher = blake3::Hasher::new();
    for (name, value) in &entry.xattrs {
        for bytes in [name, value] {
            hasher.update(&(bytes.len() as u64).to_le_bytes());
            hasher.update(bytes);
        }
    }
    Some(*hasher.finalize().as_bytes())
}
