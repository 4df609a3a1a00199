//! A base, a build context and a Dockerfile as values: changed in memory, written to disk incrementally as an editor does.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use mica_testkit::tar::{Entry, Writer};

/// One path of a base or a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// A directory.
    Dir { mode: u32 },
    /// A regular file.
    File { content: Vec<u8>, mode: u32 },
    /// A symbolic link.
    Link(String),
    /// Another name of a file.
    Hard(String),
}

/// An access control list: the owner and user 65534 may read and write, the group and others may read.
const ACL: [u8; 44] = {
    let mut bytes = [0; 44];
    // Version 2, then entries of tag, permissions and id, all little-endian.
    bytes[0] = 2;
    let entries = [(1, 6, u32::MAX), (2, 6, 65534), (4, 4, u32::MAX), (16, 6, u32::MAX), (32, 4, u32::MAX)];
    let mut position = 0;
    while position < entries.len() {
        let (tag, permissions, id): (u8, u8, u32) = entries[position];
        let start = 4 + position * 8;
        bytes[start] = tag;
        bytes[start + 2] = permissions;
        let id = id.to_le_bytes();
        (bytes[start + 4], bytes[start + 5], bytes[start + 6], bytes[start + 7]) =
            (id[0], id[1], id[2], id[3]);
        position += 1;
    }
    bytes
};

/// What only bases have: an owner and an extended attribute.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extra {
    /// Owner and group.
    pub owner: u32,
    /// The value of `user.note`, if it has one; 0 is an access control list in its place.
    pub note: Option<u8>,
}

/// Paths without a leading slash; every parent of a path is a directory of the same map.
pub type Items = BTreeMap<String, Item>;

/// An instruction that stays the same text wherever it stands.
pub type Line = String;

/// One stage of a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stage {
    /// The instructions after `FROM` and the preamble.
    pub lines: Vec<Line>,
}

/// All that a build is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scenario {
    /// What the base has besides busybox.
    pub base: Items,
    /// Owners and attributes of the base's paths.
    pub extra: BTreeMap<String, Extra>,
    /// The build context.
    pub context: Items,
    /// Lines of `.dockerignore`.
    pub ignored: Vec<String>,
    /// Stages, the last is built.
    pub stages: Vec<Stage>,
    /// The value of the build argument `LEVEL`.
    pub level: u64,
}

/// Puts an item at a path: what was there goes, parents become directories.
pub fn put(items: &mut Items, path: &str, item: Item) {
    let mut end = 0;
    while let Some(slash) = path[end..].find('/') {
        let parent = &path[..end + slash];
        if !matches!(items.get(parent), Some(Item::Dir { .. })) {
            remove(items, parent);
            items.insert(parent.to_owned(), Item::Dir { mode: 0o755 });
        }
        end += slash + 1;
    }
    if !matches!(item, Item::Dir { .. }) || !matches!(items.get(path), Some(Item::Dir { .. })) {
        remove(items, path);
    }
    items.insert(path.to_owned(), item);
}

/// Removes a path and all below it. Hard links to what is removed become files of their own.
pub fn remove(items: &mut Items, path: &str) -> Option<Item> {
    let below = format!("{path}/");
    let found = items.remove(path);
    let gone: Vec<String> = items.keys().filter(|other| other.starts_with(&below)).cloned().collect();
    let mut contents = BTreeMap::new();
    for (path, item) in
        found.iter().map(|item| (path.to_owned(), item.clone())).chain(gone.iter().filter_map(|path| {
            let item = items.get(path)?;
            Some((path.clone(), item.clone()))
        }))
    {
        contents.insert(path, item);
    }
    for path in &gone {
        items.remove(path);
    }
    for item in items.values_mut() {
        if let Item::Hard(target) = item
            && let Some(content) = contents.get(target)
        {
            *item = content.clone();
        }
    }
    found
}

impl Scenario {
    /// The text of the Dockerfile.
    pub fn dockerfile(&self) -> String {
        let mut text = String::from("ARG LEVEL=0\n");
        for (position, stage) in self.stages.iter().enumerate() {
            text +=
                &format!("FROM base:1 AS s{position}\nARG LEVEL\nENV PATH=/usr/local/bin:/opt/bin:/bin\n");
            // Whatever user a step has, it writes down what it saw.
            text += "RUN mkdir -p /out /work /pipes && chmod 1777 /out /work /pipes\n";
            for line in &stage.lines {
                text += line;
                text.push('\n');
            }
        }
        text
    }

    /// The base as a tar: the busybox one with the items behind it.
    pub fn base_tar(&self, busybox: &[u8]) -> Vec<u8> {
        let mut tar = Writer::from_archive(busybox.to_vec());
        // Links come after what they name.
        let (links, items): (Vec<_>, Vec<_>) =
            self.base.iter().partition(|(_, item)| matches!(item, Item::Hard(_)));
        for (path, item) in items.into_iter().chain(links) {
            let extra = self.extra.get(path).copied().unwrap_or_default();
            let mut entry = match item {
                Item::Dir { mode } => Entry { mode: *mode, ..Entry::dir(path) },
                Item::File { mode, .. } => Entry { mode: *mode, ..Entry::file(path) },
                Item::Link(target) => Entry::symlink(path, target),
                Item::Hard(target) => Entry::hard_link(path, target),
            };
            (entry.uid, entry.gid) = (extra.owner, extra.owner);
            if let (Some(note), Item::File { .. }) = (extra.note, item) {
                let (name, value) = match note {
                    0 => ("system.posix_acl_access", ACL.to_vec()),
                    _ => ("user.note", vec![b'0' + note]),
                };
                entry.xattrs.insert(name.into(), value);
            }
            let content: &[u8] = if let Item::File { content, .. } = item { content } else { b"" };
            tar.add(entry, content);
        }
        tar.finish()
    }

    /// Makes the directory equal to the context and the Dockerfile; `old` is what it had been made equal to before.
    pub fn write(&self, old: Option<&Scenario>, dir: &Path) -> io::Result<()> {
        let none = Items::new();
        let before = old.map_or(&none, |old| &old.context);
        for (path, item) in before.iter().rev() {
            let same_kind = self
                .context
                .get(path)
                .is_some_and(|new| std::mem::discriminant(new) == std::mem::discriminant(item));
            if !same_kind
                || matches!(item, Item::Link(_) | Item::Hard(_)) && self.context.get(path) != Some(item)
            {
                let place = dir.join(path);
                match item {
                    Item::Dir { .. } => fs::remove_dir(place)?,
                    _ => fs::remove_file(place)?,
                }
            }
        }
        // Links come after what they name.
        let (links, items): (Vec<_>, Vec<_>) =
            self.context.iter().partition(|(_, item)| matches!(item, Item::Hard(_)));
        for (path, item) in items.into_iter().chain(links) {
            let was = before.get(path);
            if was == Some(item) {
                continue;
            }
            let place = dir.join(path);
            match item {
                Item::Dir { mode } => {
                    if !matches!(was, Some(Item::Dir { .. })) {
                        fs::create_dir(&place)?;
                    }
                    fs::set_permissions(&place, Permissions::from_mode(*mode))?;
                }
                Item::File { content, mode } => {
                    if !matches!(was, Some(Item::File { content: old, .. }) if old == content) {
                        // In place: the inode stays, and often the size.
                        fs::write(&place, content)?;
                    }
                    fs::set_permissions(&place, Permissions::from_mode(*mode))?;
                }
                Item::Link(target) => symlink(target, &place)?,
                Item::Hard(target) => fs::hard_link(dir.join(target), &place)?,
            }
        }
        fs::write(dir.join("Dockerfile"), self.dockerfile())?;
        fs::write(dir.join(".dockerignore"), self.ignored.join("\n") + "\n")
    }
}

#[test]
fn a_context_on_disk_follows_the_one_in_memory() {
    let dir = mica_testkit::Mica::temporary_dir();
    let file = |text: &str| Item::File { content: text.into(), mode: 0o644 };
    let mut old: Option<Scenario> = None;
    let mut scenario = Scenario::default();
    type Edit = fn(&mut Items, Item);
    let edits: [(&str, Edit, &str); 5] = [
        ("new", |items, item| put(items, "a/b/c", item), "a a/b a/b/c"),
        ("a directory becomes a file", |items, item| put(items, "a/b", item), "a a/b"),
        ("a file becomes a directory", |items, item| put(items, "a/b/d", item), "a a/b a/b/d"),
        ("a link", |items, _| put(items, "a/b", Item::Link("x".into())), "a a/b"),
        (
            "gone",
            |items, _| {
                remove(items, "a");
            },
            "",
        ),
    ];
    for (name, edit, expect) in edits {
        edit(&mut scenario.context, file(name));
        scenario.write(old.as_ref(), dir.path()).expect(name);
        let paths: Vec<&String> = scenario.context.keys().collect();
        assert_eq!(paths, expect.split_whitespace().collect::<Vec<_>>(), "{name}");
        for (path, item) in &scenario.context {
            let place = dir.path().join(path);
            match item {
                Item::File { content, .. } => assert_eq!(fs::read(place).expect(name), *content),
                Item::Link(target) => assert_eq!(fs::read_link(place).expect(name), Path::new(target)),
                _ => assert!(place.is_dir(), "{name}"),
            }
        }
        old = Some(scenario.clone());
    }
    assert_eq!(fs::read_dir(dir.path()).expect("the directory").count(), 2);
}
