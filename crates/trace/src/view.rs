//! A merged tree as nodes of a filesystem: their numbers, attributes and links.

use std::sync::Arc;

use mica_tree::{Entry, Kind, MergedIndex};

use crate::protocol::NodeAttributes;
use crate::record::ListedKind;
use crate::value::{Names, ROOT_MODE, listed_kind};

/// The time of all that is not a regular file: 1985-10-26T08:15:00Z, which npm gives to what it packs. Later than 1980,
/// because zip knows nothing before.
pub const TIME_SECONDS: i64 = 499_162_500;
/// Size that every directory shows.
const DIRECTORY_BYTES: u64 = 4096;

const S_IFSOCK: u32 = 0o140_000;
const S_IFLNK: u32 = 0o120_000;
const S_IFREG: u32 = 0o100_000;
const S_IFBLK: u32 = 0o060_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFCHR: u32 = 0o020_000;
const S_IFIFO: u32 = 0o010_000;

/// A merged tree as nodes.
///
/// Node 1 is the root, as the protocol has it; the others follow in the order of the index. So a node needs no table: it
/// is a *slot*, the number of a path counted from the root, which counts even where the index has no entry for it.
#[derive(Debug)]
pub struct View {
    /// The tree.
    pub tree: Arc<MergedIndex>,
    /// Which names are one file.
    pub names: Names,
    /// Whether any entry has extended attributes.
    pub has_xattrs: bool,
    /// Whether any entry has an access control list.
    pub has_acls: bool,
    owners: Owners,
    // 0 where the root has an entry, 1 where it has none.
    positions_start: usize,
}

impl View {
    /// The tree, with owners as this process can show them.
    pub fn new(tree: Arc<MergedIndex>, owners: Owners) -> Self {
        let names = Names::new(&tree);
        let is_acl = |(name, _): &(Vec<u8>, Vec<u8>)| name.starts_with(b"system.posix_acl_");
        let (mut has_xattrs, mut has_acls) = (false, false);
        for position in 0..tree.len() {
            let xattrs = &tree.entry(position).xattrs;
            has_xattrs |= !xattrs.is_empty();
            has_acls |= xattrs.iter().any(is_acl);
        }
        let has_root = !tree.is_empty() && tree.entry(0).path.is_empty();
        Self { tree, names, has_xattrs, has_acls, owners, positions_start: usize::from(!has_root) }
    }

    /// How many slots there are.
    pub fn slots_count(&self) -> usize {
        self.tree.len() + self.positions_start
    }

    /// The slot of a position.
    pub fn slot(&self, position: usize) -> usize {
        position + self.positions_start
    }

    /// The position of a slot; `None` for a root without entry and for what is no slot.
    pub fn position(&self, slot: usize) -> Option<usize> {
        slot.checked_sub(self.positions_start).filter(|position| *position < self.tree.len())
    }

    /// The slot of a node, if there is such a node.
    pub fn slot_of_node(&self, node: u64) -> Option<usize> {
        let slot = usize::try_from(node.checked_sub(1)?).ok()?;
        (slot < self.slots_count()).then_some(slot)
    }

    /// The node of a position: that of the first name for a file that has several.
    pub fn node(&self, position: usize) -> u64 {
        self.slot(self.names.first(position)) as u64 + 1
    }

    /// The node of the directory that a slot stands in; the root stands in itself.
    pub fn parent_node(&self, slot: usize) -> u64 {
        let path = self.position(slot).map(|position| self.tree.entry(position).path.as_slice());
        let parent = path.and_then(mica_tree::parent).and_then(|parent| self.tree.position(parent));
        parent.map_or(1, |position| self.slot(position) as u64 + 1)
    }

    /// The path of a slot, if a directory stands there.
    pub fn directory(&self, slot: usize) -> Option<&[u8]> {
        match self.position(slot).map(|position| self.tree.entry(position)) {
            None => (slot == 0).then_some(b""),
            Some(entry) => entry.is_directory().then_some(entry.path.as_slice()),
        }
    }

    /// The entry with the attributes of a slot: that of the file for a hard link. `None` for a root without entry and for
    /// a hard link to nothing.
    pub fn attributes_entry(&self, slot: usize) -> Option<&Entry> {
        self.tree.attributes_at(self.position(slot)?)
    }

    /// The attributes of a slot; `None` for a hard link to nothing, as only malformed indexes have them.
    pub fn attributes(&self, slot: usize) -> Option<NodeAttributes> {
        let Some(position) = self.position(slot) else {
            let (node, time) = (slot as u64 + 1, (TIME_SECONDS, 0));
            let mode = S_IFDIR | ROOT_MODE;
            let directory = NodeAttributes {
                node,
                time,
                mode,
                links: 1,
                size_bytes: DIRECTORY_BYTES,
                ..Default::default()
            };
            return (slot == 0).then_some(directory);
        };
        let entry = self.tree.attributes_at(position)?;
        let kind = listed_kind(&self.tree, position)?;
        let (size_bytes, links) = match &entry.kind {
            Kind::File { size, .. } => (*size, self.names.count(position)),
            Kind::Symlink { target } => (target.len() as u64, 1),
            Kind::Directory { .. } => (DIRECTORY_BYTES, 1),
            _ => (0, 1),
        };
        let time = match entry.kind {
            Kind::File { .. } => (entry.mtime.seconds, entry.mtime.nanoseconds),
            _ => (TIME_SECONDS, 0),
        };
        let permissions = if kind == ListedKind::Symlink { 0o777 } else { entry.mode & 0o7777 };
        let rdev = match entry.kind {
            Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => rdev,
            _ => (0, 0),
        };
        Some(NodeAttributes {
            node: self.node(position),
            size_bytes,
            time,
            mode: mode_of_kind(kind) | permissions,
            links: u32::try_from(links).unwrap_or(u32::MAX),
            uid: self.owners.uid(entry.uid),
            gid: self.owners.gid(entry.gid),
            rdev,
        })
    }

    /// What a listing says of a position; `None` for a hard link to nothing.
    pub fn kind(&self, position: usize) -> Option<ListedKind> {
        listed_kind(&self.tree, position)
    }
}

/// The kind as the upper bits of a mode.
pub const fn mode_of_kind(kind: ListedKind) -> u32 {
    match kind {
        ListedKind::File => S_IFREG,
        ListedKind::Directory => S_IFDIR,
        ListedKind::Symlink => S_IFLNK,
        ListedKind::CharDevice => S_IFCHR,
        ListedKind::BlockDevice => S_IFBLK,
        ListedKind::Fifo => S_IFIFO,
        ListedKind::Socket => S_IFSOCK,
    }
}

/// Which owners there can be in the user namespace of this process. A layer on disk has root for all others, because
/// nobody could give the files away, so the served tree shows root as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    // First id and count.
    uids: Vec<(u32, u32)>,
    gids: Vec<(u32, u32)>,
}

impl Owners {
    /// Those of this process.
    pub fn of_this_process() -> std::io::Result<Self> {
        let read = |path: &str| std::fs::read_to_string(path).map(|text| Self::parse(&text));
        Ok(Self { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? })
    }

    /// Lines of `inside outside count`, user_namespaces(7).
    fn parse(text: &str) -> Vec<(u32, u32)> {
        let number = |field: Option<&str>| field?.parse().ok();
        text.lines()
            .filter_map(|line| {
                let mut fields = line.split_whitespace();
                Some((number(fields.next())?, number(fields.nth(1))?))
            })
            .collect()
    }

    fn shown(ranges: &[(u32, u32)], id: u32) -> u32 {
        if ranges.iter().any(|(first, count)| id.checked_sub(*first).is_some_and(|offset| offset < *count)) {
            id
        } else {
            0
        }
    }

    fn uid(&self, uid: u32) -> u32 {
        Self::shown(&self.uids, uid)
    }

    fn gid(&self, gid: u32) -> u32 {
        Self::shown(&self.gids, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::Owners;

    #[test]
    fn owners_that_cannot_be_are_root() {
        let maps = [
            ("0 0 4294967295\n", [0, 1, 5, 4_294_967_294, 0]),
            ("0 1000 1\n1 100000 5\n", [0, 1, 5, 0, 0]),
            ("", [0; 5]),
        ];
        for (map, expected) in maps {
            let ranges = Owners::parse(map);
            let shown = [0, 1, 5, 4_294_967_294, u32::MAX].map(|id| Owners::shown(&ranges, id));
            assert_eq!(shown, expected, "{map:?}");
        }
    }
}
