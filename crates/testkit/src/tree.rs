//! The files of an image, flattened out of its layers, and what differs between two such trees.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

use crate::tar::{self, Entry};

/// What a path is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
}

/// One path of a tree: all that two builders must agree on. Times are left out, they differ from run to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: Kind,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Size of a file's content.
    pub size: u64,
    /// Hash of a file's content, empty for all else.
    pub sha256: String,
    /// Target of a symbolic link.
    pub link: String,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes, values in hexadecimal.
    pub xattrs: BTreeMap<String, String>,
    /// For all but the first name of a file with several: the first one.
    pub hardlink_to: Option<String>,
}

/// Every path of an image without a leading slash; the root itself is not among them.
pub type Tree = BTreeMap<String, Node>;

/// Layers put one on another. A copy saves reading again what several images stand on.
#[derive(Debug, Default, Clone)]
pub struct Flattened {
    // Next to each node the number of its file, which all its names share.
    nodes: BTreeMap<String, (Node, u64)>,
    next_file: u64,
}

impl Flattened {
    /// Puts a layer's uncompressed tar on top.
    pub fn apply(&mut self, layer: impl Read) -> io::Result<()> {
        // Whiteouts speak of the layers below, wherever in the tar they stand, so the layer's own paths go in at the end.
        let mut own = Vec::new();
        let mut below_removed = Vec::new();
        tar::read(layer, |entry, content| {
            let path = clean(&entry.path);
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
            if name == ".wh..wh..opq" {
                below_removed.push((parent.to_owned(), true));
            } else if let Some(hidden) = name.strip_prefix(".wh.") {
                below_removed.push((join(parent, hidden), false));
            } else if !path.is_empty() {
                own.push((path.clone(), node(&entry, content)?, clean(&entry.link)));
            }
            Ok(())
        })?;
        for (path, only_children) in below_removed {
            self.remove(&path, only_children);
        }
        for (path, node, target) in own {
            match node {
                Some(node) => self.insert(path, node),
                None => self.link(path, &target)?,
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &str, only_children: bool) {
        if path.is_empty() {
            return self.nodes.clear();
        }
        // By range: a look at every path for every path of a layer takes minutes for a whole distribution.
        let prefix = format!("{path}/");
        let below = self.nodes.range(prefix.clone()..).map(|(other, _)| other);
        let gone: Vec<String> = below.take_while(|other| other.starts_with(&prefix)).cloned().collect();
        for other in gone {
            self.nodes.remove(&other);
        }
        if !only_children {
            self.nodes.remove(path);
        }
    }

    fn insert(&mut self, path: String, node: Node) {
        if node.kind != Kind::Dir {
            self.remove(&path, false);
        }
        let mut parent = path.as_str();
        while let Some((upper, _)) = parent.rsplit_once('/') {
            parent = upper;
            if !self.nodes.contains_key(parent) {
                let implied = Node { kind: Kind::Dir, mode: 0o755, ..Node::empty() };
                self.nodes.insert(parent.into(), (implied, 0));
            }
        }
        self.next_file += 1;
        self.nodes.insert(path, (node, self.next_file));
    }

    fn link(&mut self, path: String, target: &str) -> io::Result<()> {
        let Some(found) = self.nodes.get(target).cloned() else {
            return Err(io::Error::other(format!("hard link `{path}` to `{target}`, which is not there")));
        };
        self.nodes.insert(path, found);
        Ok(())
    }

    /// The tree, hard links named.
    pub fn finish(self) -> Tree {
        let mut first_names: BTreeMap<u64, String> = BTreeMap::new();
        let mut tree = Tree::new();
        for (path, (mut node, file)) in self.nodes {
            if file != 0 && node.kind == Kind::File {
                let first = first_names.entry(file).or_insert_with(|| path.clone());
                node.hardlink_to = (*first != path).then(|| first.clone());
            }
            tree.insert(path, node);
        }
        tree
    }
}

impl Node {
    fn empty() -> Node {
        Node {
            kind: Kind::File,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            sha256: String::new(),
            link: String::new(),
            device: (0, 0),
            xattrs: BTreeMap::new(),
            hardlink_to: None,
        }
    }

    fn describe(&self) -> String {
        let mut line = format!("{:?} {:04o} {}:{}", self.kind, self.mode, self.uid, self.gid);
        if self.kind == Kind::File {
            line += &format!(" {} bytes sha256:{}", self.size, self.sha256.get(..12).unwrap_or_default());
        }
        if self.kind == Kind::Symlink {
            line += &format!(" -> {}", self.link);
        }
        if matches!(self.kind, Kind::CharDevice | Kind::BlockDevice) {
            line += &format!(" device {}:{}", self.device.0, self.device.1);
        }
        for (name, value) in &self.xattrs {
            line += &format!(" {name}=0x{value}");
        }
        if let Some(first) = &self.hardlink_to {
            line += &format!(" (the same file as {first})");
        }
        line
    }
}

/// `None` for a hard link, which has no node of its own.
fn node(entry: &Entry, content: &mut dyn Read) -> io::Result<Option<Node>> {
    let kind = match entry.kind {
        b'0' => Kind::File,
        b'1' => return Ok(None),
        b'2' => Kind::Symlink,
        b'3' => Kind::CharDevice,
        b'4' => Kind::BlockDevice,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        other => return Err(io::Error::other(format!("`{}`: type `{}`", entry.path, char::from(other)))),
    };
    let xattrs = entry.xattrs.iter().map(|(name, value)| (name.clone(), crate::hex(value))).collect();
    let mut node = Node { kind, mode: entry.mode, uid: entry.uid, gid: entry.gid, xattrs, ..Node::empty() };
    match kind {
        Kind::File => {
            let mut hasher = Sha256::new();
            let mut buffer = vec![0; 1 << 16];
            loop {
                let count = content.read(&mut buffer)?;
                if count == 0 {
                    break;
                }
                node.size += count as u64;
                hasher.update(&buffer[..count]);
            }
            node.sha256 = crate::hex(&hasher.finalize());
        }
        // Linux has no permissions on a symbolic link; tools write 0777 or nothing.
        Kind::Symlink => (node.link, node.mode) = (entry.link.clone(), 0o777),
        Kind::CharDevice | Kind::BlockDevice => node.device = entry.device,
        Kind::Dir | Kind::Fifo => {}
    }
    Ok(Some(node))
}

fn clean(path: &str) -> String {
    path.split('/').filter(|part| !part.is_empty() && *part != ".").collect::<Vec<_>>().join("/")
}

fn join(parent: &str, name: &str) -> String {
    if parent.is_empty() { name.into() } else { format!("{parent}/{name}") }
}

/// The paths of `tree` that are new or different against `base`, and the paths of `base` that are gone.
pub fn changed(base: &Tree, tree: &Tree) -> (Tree, BTreeSet<String>) {
    let new = tree.iter().filter(|(path, node)| base.get(*path) != Some(*node));
    let gone = base.keys().filter(|path| !tree.contains_key(*path));
    (new.map(|(path, node)| (path.clone(), node.clone())).collect(), gone.cloned().collect())
}

/// What differs, one line a path, without the paths that `ignore` names.
pub fn differences(expect: &Tree, actual: &Tree, ignore: impl Fn(&str) -> bool) -> Vec<String> {
    let paths: BTreeSet<&String> = expect.keys().chain(actual.keys()).collect();
    paths
        .into_iter()
        .filter(|path| !ignore(path))
        .filter_map(|path| match (expect.get(path), actual.get(path)) {
            (Some(one), None) => Some(format!("`{path}` is absent, expected {}", one.describe())),
            (None, Some(other)) => Some(format!("`{path}` is too much: {}", other.describe())),
            (Some(one), Some(other)) if one != other => {
                Some(format!("`{path}` is {}, expected {}", other.describe(), one.describe()))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Writer;

    fn flatten(layers: &[&dyn Fn(&mut Writer)]) -> Tree {
        let mut flattened = Flattened::default();
        for layer in layers {
            let mut writer = Writer::default();
            layer(&mut writer);
            flattened.apply(&writer.finish()[..]).unwrap();
        }
        flattened.finish()
    }

    #[test]
    fn whiteouts_hide_what_is_below_and_spare_their_own_layer() {
        let tree = flatten(&[
            &|layer| {
                layer
                    .add(Entry::dir("./d/"), b"")
                    .add(Entry::file("./d/old"), b"1")
                    .add(Entry::file("gone"), b"2");
                layer.add(Entry::hard_link("e/name", "d/old"), b"");
            },
            &|layer| {
                layer.add(Entry::file("d/new"), b"3").add(Entry::file("d/.wh..wh..opq"), b"");
                layer.add(Entry::file(".wh.gone"), b"");
            },
        ]);
        assert_eq!(tree.keys().map(String::as_str).collect::<Vec<_>>(), ["d", "d/new", "e/name"]);
    }

    #[test]
    fn names_of_one_file_know_each_other() {
        let tree = flatten(&[&|layer| {
            layer
                .add(Entry::file("b"), b"1")
                .add(Entry::hard_link("a", "b"), b"")
                .add(Entry::file("c"), b"1");
        }]);
        assert_eq!(tree["a"].hardlink_to, None);
        assert_eq!(tree["b"].hardlink_to.as_deref(), Some("a"));
        assert_eq!(tree["c"].hardlink_to, None);
    }

    #[test]
    fn a_difference_names_path_and_both_sides() {
        let one = flatten(&[&|layer| {
            layer.add(Entry::file("a"), b"1");
        }]);
        let other = flatten(&[&|layer| {
            layer.add(Entry { mode: 0o755, ..Entry::file("a") }, b"1");
        }]);
        assert!(differences(&one, &one, |_| false).is_empty());
        assert!(differences(&one, &other, |path| path == "a").is_empty());
        let lines = differences(&one, &other, |_| false);
        assert!(lines[0].starts_with("`a` is File 0755 0:0 1 bytes"), "{lines:?}");
        let (new, gone) = changed(&one, &other);
        assert_eq!((new.len(), gone.len()), (1, 0));
    }
}
