//! Trees for the tests, and a slow second opinion of what stands in them.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use mica_trace::{Attributes, Contents, ListedKind, TreeUse, Use, Value, Watched};
use mica_tree::{Entry, Index, Kind, MergedIndex, Time, compare_paths, parent};
use proptest::collection::vec;
use proptest::prelude::*;

pub fn entry(path: &str, kind: Kind, mode: u32) -> Entry {
    let path = path.as_bytes().to_vec();
    Entry { path, kind, mode, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

pub fn directory(path: &str) -> Entry {
    entry(path, Kind::Directory { opaque: false, implied: false }, 0o755)
}

pub fn file(path: &str, size: u64, content: u8) -> Entry {
    entry(path, Kind::File { size, content: Some([content; 32]) }, 0o644)
}

pub fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Symlink { target: target.into() }, 0o777)
}

pub fn hard_link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Hardlink { target: target.into() }, 0)
}

pub fn tree(layers: impl IntoIterator<Item = Vec<Entry>>) -> MergedIndex {
    MergedIndex::new(layers.into_iter().map(|entries| Arc::new(Index::new(entries).unwrap())))
}

/// What one asks of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    Look,
    Read,
    List,
}

/// What a step that asks all that uses of `tree`.
pub fn uses(tree: &MergedIndex, asked: &[(Vec<u8>, Ask)], contents: &dyn Contents) -> TreeUse {
    let watched = Watched::new(tree);
    for (path, ask) in asked {
        match ask {
            Ask::Look => drop(watched.get(path)),
            Ask::Read => watched.note_content(path),
            Ask::List => drop(watched.list(path)),
        }
    }
    watched.finish(contents).unwrap()
}

/// Contents of files that the index has no digest of: the numbers that the layers were made with.
pub struct Known<'t> {
    pub tree: &'t MergedIndex,
    /// For each layer, by the path of the entry that holds the attributes.
    pub by_layer: Vec<BTreeMap<Vec<u8>, u8>>,
}

impl Known<'_> {
    fn of(&self, layer: usize, path: &[u8]) -> Option<[u8; 32]> {
        self.by_layer.get(layer)?.get(path).map(|content| [*content; 32])
    }
}

impl Contents for Known<'_> {
    fn content(&self, position: usize) -> io::Result<[u8; 32]> {
        let path = match &self.tree.entry(position).kind {
            Kind::Hardlink { target } => target,
            _ => &self.tree.entry(position).path,
        };
        self.of(self.tree.layer_at(position), path).ok_or(io::ErrorKind::NotFound.into())
    }
}

/// A layer as a real one is: every path below a directory of the same layer, hard links to files of it.
#[derive(Debug, Clone)]
pub struct RandomLayer {
    pub entries: Vec<Entry>,
    pub contents: BTreeMap<Vec<u8>, u8>,
}

/// Path, what, content, whether the index has a digest, attributes.
type Wish = (Vec<u8>, u8, u8, bool, u8);

fn layer_of_wishes(wishes: Vec<Wish>) -> RandomLayer {
    let mut entries: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
    let mut contents = BTreeMap::new();
    for (path, what, number, has_digest, attributes) in wishes {
        let above = std::iter::successors(parent(&path), |path| parent(path));
        let above: Vec<_> = above.filter(|path| !path.is_empty()).map(<[u8]>::to_vec).collect();
        let is_directory = |path: &Vec<u8>| entries.get(path).is_none_or(Entry::is_directory);
        let is_root = path.is_empty();
        if (is_root && what > 1) || entries.contains_key(&path) || !above.iter().all(is_directory) {
            continue;
        }
        for path in above {
            let kind = Kind::Directory { opaque: false, implied: true };
            let text = String::from_utf8(path.clone()).unwrap();
            entries.entry(path).or_insert_with(|| entry(&text, kind, 0o755));
        }
        // Links go to files that come later in the list of paths as well: the first in order is the file.
        let first = entries.values().find(|entry| matches!(entry.kind, Kind::File { .. }));
        let first = first.map(|entry| entry.path.clone()).filter(|first| first < &path);
        let kind = match (what, first) {
            (0 | 1, _) => Kind::Directory { opaque: what == 1 && !is_root, implied: false },
            (2, _) => Kind::Whiteout,
            (3, _) => Kind::Symlink { target: vec![b'a' + number] },
            (4, _) => Kind::Fifo,
            (5, _) => Kind::CharDevice { rdev: (1, u32::from(number)) },
            (6 | 7, Some(target)) => Kind::Hardlink { target },
            _ => {
                contents.insert(path.clone(), number);
                Kind::File { size: u64::from(number % 2), content: has_digest.then_some([number; 32]) }
            }
        };
        let text = String::from_utf8(path.clone()).unwrap();
        let mut entry = entry(&text, kind, if attributes == 1 { 0o700 } else { 0o755 });
        entry.uid = u32::from(attributes == 2);
        entry.mtime.seconds = i64::from(attributes == 3);
        entry.xattrs.extend((attributes == 4).then(|| (b"user.a".to_vec(), b"b".to_vec())));
        entries.insert(path, entry);
    }
    RandomLayer { entries: entries.into_values().collect(), contents }
}

pub fn path() -> impl Strategy<Value = Vec<u8>> {
    vec(prop_oneof![Just("a"), Just("b"), Just("a.b")], 0..4).prop_map(|names| names.join("/").into_bytes())
}

pub fn random_layer() -> impl Strategy<Value = RandomLayer> {
    vec((path(), 0..12_u8, 0..4_u8, any::<bool>(), 0..8_u8), 0..8).prop_map(layer_of_wishes)
}

pub fn ask() -> impl Strategy<Value = (Vec<u8>, Ask)> {
    (path(), prop_oneof![Just(Ask::Look), Just(Ask::Read), Just(Ask::List)])
}

pub fn tree_of(layers: &[&RandomLayer]) -> MergedIndex {
    tree(layers.iter().map(|layer| layer.entries.clone()))
}

pub fn known<'t>(tree: &'t MergedIndex, layers: &[&RandomLayer]) -> Known<'t> {
    Known { tree, by_layer: layers.iter().map(|layer| layer.contents.clone()).collect() }
}

/// What stands at a path, found by going through everything.
pub fn naive_value(tree: &MergedIndex, path: &[u8], read: bool, listed: bool, known: &Known<'_>) -> Value {
    let file_of = |entry: &Entry| match &entry.kind {
        Kind::Hardlink { target } => (tree.layer_of(&entry.path), target.clone()),
        _ => (tree.layer_of(&entry.path), entry.path.clone()),
    };
    let dressed = |entry: &Entry| tree.entry_of_link(entry).unwrap_or(entry).clone();
    let kind_of = |entry: &Entry| match dressed(entry).kind {
        Kind::Directory { .. } => ListedKind::Directory,
        Kind::Symlink { .. } => ListedKind::Symlink,
        Kind::Fifo => ListedKind::Fifo,
        Kind::CharDevice { .. } => ListedKind::CharDevice,
        _ => ListedKind::File,
    };
    let listing = || {
        let mut names: Vec<_> = tree
            .walk(b"")
            .filter(|entry| !entry.path.is_empty() && entry.parent() == Some(path))
            .map(|entry| (entry.name().to_vec(), kind_of(entry)))
            .collect();
        names.sort();
        names
    };
    let Some(shown) = tree.get(path) else {
        return match path.is_empty() {
            true => Value::Directory {
                attributes: Attributes { mode: 0o755, uid: 0, gid: 0, xattrs: None },
                listing: listed.then(listing),
            },
            false => Value::Absent,
        };
    };
    let entry = dressed(shown);
    let xattrs = (!entry.xattrs.is_empty()).then(|| {
        let bytes = [&6_u64.to_le_bytes()[..], b"user.a", &1_u64.to_le_bytes(), b"b"].concat();
        *blake3::hash(&bytes).as_bytes()
    });
    let attributes = Attributes { mode: entry.mode, uid: entry.uid, gid: entry.gid, xattrs };
    match entry.kind {
        Kind::Directory { .. } => Value::Directory { attributes, listing: listed.then(listing) },
        Kind::File { size, .. } => {
            let file = file_of(shown);
            let mut names: Vec<_> = tree
                .walk(b"")
                .filter(|other| kind_of(other) == ListedKind::File && file_of(other) == file)
                .map(|other| other.path.clone())
                .collect();
            names.sort_by(|a, b| compare_paths(a, b));
            if names.len() == 1 {
                names.clear();
            }
            let content = read.then(|| known.of(file.0.unwrap(), &file.1).unwrap());
            Value::File { attributes, size_bytes: size, mtime: Some(entry.mtime), names, content }
        }
        Kind::Symlink { target } => {
            Value::Symlink { attributes: Attributes { mode: 0o777, ..attributes }, target }
        }
        Kind::Fifo => Value::Special { attributes, kind: ListedKind::Fifo, rdev: (0, 0) },
        Kind::CharDevice { rdev } => Value::Special { attributes, kind: ListedKind::CharDevice, rdev },
        kind => panic!("{kind:?} is not shown"),
    }
}

/// [`uses`], found by going through everything.
pub fn naive_uses(tree: &MergedIndex, asked: &[(Vec<u8>, Ask)], known: &Known<'_>) -> TreeUse {
    let mut paths: Vec<_> = asked.iter().map(|(path, _)| path.clone()).collect();
    paths.sort_by(|a, b| compare_paths(a, b));
    paths.dedup();
    let was = |path: &Vec<u8>, ask| asked.contains(&(path.clone(), ask));
    let value = |path: &Vec<u8>| naive_value(tree, path, was(path, Ask::Read), was(path, Ask::List), known);
    TreeUse { uses: paths.iter().map(|path| Use { value: value(path), path: path.clone() }).collect() }
}
