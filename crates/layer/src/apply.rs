//! Applying a layer: a tar becomes a tree as overlayfs wants its lower directories, and the list of what it holds.
//!
//! Everything is made beneath the handle of the tree. What stands where is known from what this layer made itself, never
//! asked from the disk; the kernel's own check (`openat2` without links) is the second lock on the same door.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::AsFd;
use std::rc::Rc;

use mica_tree::{Entry, Kind, Time, compare_paths, parent};

use crate::error::{LayerError, Result};
use crate::pipeline::{self, ChunkReader};
use crate::tar_entry::{TarEntry, TarLimits, TarReader};
use crate::tree_writer::TreeWriter;

/// What the layers below have, for the three places where a layer depends on them.
pub trait Parents {
    /// The directory at `path` (empty: the root), if the stack below shows one there.
    fn directory(&self, path: &[u8]) -> Option<Entry>;
    /// The regular file at `path` and its content, if the stack below shows one there.
    fn open_file(&self, path: &[u8]) -> Option<(Entry, File)>;
}

/// No layers below.
#[derive(Debug, Clone, Copy)]
pub struct NoParents;

impl Parents for NoParents {
    fn directory(&self, _: &[u8]) -> Option<Entry> {
        None
    }
    fn open_file(&self, _: &[u8]) -> Option<(Entry, File)> {
        None
    }
}

/// Who we are on this machine, and what follows for a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mapping {
    /// Root of the machine: owners and devices as they are, marks of the overlay in `trusted.overlay.*`.
    #[default]
    Root,
    /// Inside a user namespace or without any rights. Devices become empty files; the index keeps the truth.
    Rootless {
        /// The overlay will be mounted with `userxattr`: its marks go to `user.overlay.*`.
        userxattr: bool,
        /// Owners and attributes that cannot be set are left out in the tree; the index keeps the truth.
        ignore_unmapped: bool,
    },
}

/// What a layer is applied with.
#[derive(Clone, Copy)]
pub struct ApplyContext<'a> {
    /// The layers below.
    pub lower: &'a dyn Parents,
    /// How owners and marks are written.
    pub mapping: Mapping,
    /// What the tar may ask for.
    pub limits: TarLimits,
}

/// A layer that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// Every path of the layer, sorted by [`compare_paths`]. The root is among them only if the tar had it or made it opaque.
    pub entries: Vec<Entry>,
    /// SHA-256 of every byte of the stream, also behind the archive's end.
    pub diff_id: [u8; 32],
    /// Number of bytes of the stream.
    pub tar_size_bytes: u64,
    /// Some directory took its attributes from the layers below (or would have): the tree fits this stack only.
    pub implied_directories: bool,
    /// Some file was copied from the layers below: the tree fits this stack only.
    pub lower_hardlinks: bool,
}

/// Symbolic links that one path may lead through (`MAXSYMLINKS` of Linux).
const LINKS_FOLLOWED_MAX: u32 = 40;
const PATH_SIZE_BYTES_MAX: usize = 4095;
pub(crate) const WHITEOUT_PREFIX: &[u8] = b".wh.";
/// Beginning of the names that aufs kept for itself; only the opaque mark among them means something to a layer.
const AUFS_PREFIX: &[u8] = b".wh..wh.";
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// Applies the uncompressed tar `reader` to the empty directory `tree`. A failure leaves a part of the tree behind.
pub fn apply_layer(reader: impl Read + Send, tree: impl AsFd, context: &ApplyContext<'_>) -> Result<Applied> {
    let mut applier = Applier::new(TreeWriter::new(tree, context.mapping)?, context.lower);
    let digested = pipeline::run(reader, |chunks: &mut ChunkReader| {
        let mut tar = TarReader::new(chunks, context.limits);
        while let Some(entry) = tar.next_entry()? {
            applier.add(entry, &mut tar)?;
        }
        tar.drain()?;
        applier.finish()
    })?;
    Ok(Applied { diff_id: digested.sha256, tar_size_bytes: digested.size_bytes, ..digested.value })
}

/// Gives every entry of an uncompressed tar and its content to `sink`, in the tar's order; names are clean, whiteouts are
/// plain files. The end of the stream behind the archive is not read.
pub fn extract_archive<E: From<LayerError>>(
    reader: impl Read,
    limits: TarLimits,
    sink: &mut dyn FnMut(Entry, &mut dyn Read) -> std::result::Result<(), E>,
) -> std::result::Result<(), E> {
    let mut tar = TarReader::new(BufReader::with_capacity(256 << 10, reader), limits);
    while let Some(entry) = tar.next_entry()? {
        sink(entry.entry.clone(), &mut tar.content(&entry))?;
    }
    Ok(())
}

/// What this layer has at a path.
enum Node {
    /// A name of the file with this number in [`Applier::files`].
    File(usize),
    /// Anything else. Boxed, as most nodes are files and all take the room of the largest.
    Other(Box<Entry>),
}

impl Node {
    fn other(entry: Entry) -> Node {
        Node::Other(Box::new(entry))
    }

    /// What stands there, if it is no regular file.
    fn kind(&self) -> Option<&Kind> {
        match self {
            Node::File(_) => None,
            Node::Other(entry) => Some(&entry.kind),
        }
    }

    /// The opaque mark of a directory.
    fn opaque_mut(&mut self) -> Option<&mut bool> {
        match self {
            Node::Other(entry) => match &mut entry.kind {
                Kind::Directory { opaque, .. } => Some(opaque),
                _ => None,
            },
            Node::File(_) => None,
        }
    }
}

struct Applier<'a> {
    writer: TreeWriter,
    lower: &'a dyn Parents,
    /// By real path: no symbolic link is in it, and all that lies above is a directory node too. In byte order all that is
    /// inside a directory stands between `path/` and `path0`.
    nodes: BTreeMap<Vec<u8>, Node>,
    /// Attributes of each file, whatever number of names it has; names are in the nodes alone. Layers have hundreds of
    /// thousands of these, and each is handed on, not copied, when the layer is finished.
    #[expect(
        clippy::vec_box,
        reason = "a growing list of the entries themselves would be there twice while it moves"
    )]
    files: Vec<Box<Entry>>,
    /// Files copied from below by hard links, and their first name here, so that two links to one file stay one file.
    copied: HashMap<Vec<u8>, (usize, Vec<u8>)>,
    implied_directories: bool,
    lower_hardlinks: bool,
}

impl<'a> Applier<'a> {
    fn new(writer: TreeWriter, lower: &'a dyn Parents) -> Self {
        // What is below may still be on its way in: it is asked for the root's attributes only at the end.
        let root = implied_directory(b"", &NoParents);
        let nodes = BTreeMap::from([(Vec::new(), Node::other(root))]);
        let (files, copied) = (Vec::new(), HashMap::new());
        Self { writer, lower, nodes, files, copied, implied_directories: false, lower_hardlinks: false }
    }

    fn add<R: std::io::BufRead>(&mut self, tar_entry: TarEntry, tar: &mut TarReader<R>) -> Result<()> {
        let TarEntry { mut entry, segments } = tar_entry;
        let said = std::mem::take(&mut entry.path);
        let whiteout_error = |hidden: &[u8]| LayerError::Whiteout {
            path: said.as_slice().into(),
            hidden: hidden.escape_ascii().to_string(),
        };
        let directory = parent(&said).unwrap_or_default();
        for component in directory.split(|byte| *byte == b'/') {
            if component.starts_with(AUFS_PREFIX) {
                return Ok(());
            }
            if let Some(hidden) = component.strip_prefix(WHITEOUT_PREFIX) {
                return Err(whiteout_error(hidden));
            }
        }
        entry.xattrs.retain(|(name, _)| !is_overlay_xattr(name));
        if said.is_empty() {
            return self.set_directory(Vec::new(), entry);
        }
        let directory = self.real_directory(&said, directory)?;
        let name = said.get(said.len() - file_name(&said).len()..).unwrap_or_default();
        if name == OPAQUE_NAME {
            self.set_opaque(&directory);
            return Ok(());
        }
        if name.starts_with(AUFS_PREFIX) {
            return Ok(());
        }
        if let Some(hidden) = name.strip_prefix(WHITEOUT_PREFIX) {
            if matches!(hidden, b"" | b"." | b"..") {
                return Err(whiteout_error(hidden));
            }
            return self.hide(join(&said, &directory, hidden)?, entry);
        }
        let path = join(&said, &directory, name)?;
        entry.path.clone_from(&path);
        match &entry.kind {
            Kind::Directory { .. } => self.set_directory(path, entry),
            Kind::Hardlink { target } => {
                let target = target.clone();
                self.link(path, &target)
            }
            // To overlayfs this device is a whiteout, and other programs put such trees into tars.
            Kind::CharDevice { rdev: (0, 0) } => self.hide(path, entry),
            Kind::File { .. } => {
                self.remove(&path)?;
                let content = self.writer.write_file(&entry, segments.as_deref(), tar)?;
                self.keep_file(path, entry, content);
                Ok(())
            }
            _ => {
                self.remove(&path)?;
                self.writer.make_special(&entry)?;
                self.nodes.insert(path, Node::other(entry));
                Ok(())
            }
        }
    }

    fn keep_file(&mut self, path: Vec<u8>, mut entry: Entry, content: [u8; 32]) {
        if let Kind::File { content: known, .. } = &mut entry.kind {
            *known = Some(content);
        }
        entry.path = Vec::new();
        self.nodes.insert(path, Node::File(self.files.len()));
        self.files.push(Box::new(entry));
    }

    fn set_directory(&mut self, path: Vec<u8>, mut entry: Entry) -> Result<()> {
        let was_opaque = self.nodes.get_mut(&path).and_then(Node::opaque_mut).copied();
        let opaque = match was_opaque {
            Some(opaque) => opaque,
            None => {
                // The layer hid what is below, and then made a new directory: nothing from below may show in it.
                let hidden = self.is_whiteout(&path);
                self.remove(&path)?;
                self.writer.make_directory(&path)?;
                hidden
            }
        };
        entry.kind = Kind::Directory { opaque, implied: false };
        entry.path.clone_from(&path);
        self.nodes.insert(path, Node::other(entry));
        Ok(())
    }

    fn set_opaque(&mut self, path: &[u8]) {
        if let Some(opaque) = self.nodes.get_mut(path).and_then(Node::opaque_mut) {
            *opaque = true;
        }
    }

    fn is_whiteout(&self, path: &[u8]) -> bool {
        matches!(self.nodes.get(path).and_then(Node::kind), Some(Kind::Whiteout))
    }

    /// Hides what lower layers have at `path`. Image-spec `layer.md`: whiteouts apply to lower layers only, so what this
    /// layer itself has there stays, in whatever order the tar says it.
    fn hide(&mut self, path: Vec<u8>, entry: Entry) -> Result<()> {
        match self.nodes.get_mut(&path).map(Node::opaque_mut) {
            Some(Some(opaque)) => *opaque = true,
            Some(None) => {}
            None => {
                self.writer.make_whiteout(&path)?;
                let entry = Entry { path: path.clone(), kind: Kind::Whiteout, xattrs: Vec::new(), ..entry };
                self.nodes.insert(path, Node::other(entry));
            }
        }
        Ok(())
    }

    fn link(&mut self, path: Vec<u8>, said_target: &[u8]) -> Result<()> {
        let missing = || LayerError::LinkTarget { path: path.as_slice().into(), target: said_target.into() };
        let target = self.real_existing(said_target)?;
        if target.as_ref() == Some(&path) && matches!(self.nodes.get(&path), Some(Node::File(_))) {
            return Ok(());
        }
        self.remove(&path)?;
        match target.as_ref().and_then(|target| self.nodes.get(target)) {
            Some(Node::File(number)) => {
                let number = *number;
                self.writer.link(target.as_deref().unwrap_or_default(), &path)?;
                self.nodes.insert(path, Node::File(number));
                Ok(())
            }
            Some(Node::Other(entry)) => match entry.kind {
                Kind::Directory { .. } | Kind::Whiteout => Err(missing()),
                // Only files keep their links in an index; a second name of another thing is a second thing.
                _ => {
                    let entry = Entry { path: path.clone(), ..(**entry).clone() };
                    self.writer.make_special(&entry)?;
                    self.nodes.insert(path, Node::other(entry));
                    Ok(())
                }
            },
            None => self.link_lower(path.clone(), said_target)?.ok_or_else(missing),
        }
    }

    fn link_lower(&mut self, path: Vec<u8>, target: &[u8]) -> Result<Option<()>> {
        let known = self.copied.get(target).cloned().filter(
            |(number, held)| matches!(self.nodes.get(held), Some(Node::File(other)) if other == number),
        );
        if let Some((number, held)) = known {
            self.writer.link(&held, &path)?;
            self.nodes.insert(path, Node::File(number));
            return Ok(Some(()));
        }
        let Some((lower, mut file)) = self.lower.open_file(target) else { return Ok(None) };
        let Kind::File { .. } = lower.kind else { return Ok(None) };
        self.lower_hardlinks = true;
        let mut entry = Entry { path: path.clone(), ..lower };
        entry.xattrs.retain(|(name, _)| !is_overlay_xattr(name));
        let (content, size) = self.writer.copy_file(&entry, &mut file)?;
        entry.kind = Kind::File { size, content: None };
        self.copied.insert(target.to_vec(), (self.files.len(), path.clone()));
        self.keep_file(path, entry, content);
        Ok(Some(()))
    }

    /// Makes way for something new at `path`.
    fn remove(&mut self, path: &[u8]) -> Result<()> {
        if self.nodes.remove(path).is_none() {
            return Ok(());
        }
        self.writer.remove_all(path)?;
        let (first, after) = ([path, b"/"].concat(), [path, b"0"].concat());
        let inside: Vec<_> = self.nodes.range(first..after).map(|(inner, _)| inner.clone()).collect();
        for inner in inside {
            self.nodes.remove(&inner);
        }
        Ok(())
    }

    /// Where `target` really is, through this layer's links; `None` if the layer has no such directory.
    fn real_existing(&mut self, target: &[u8]) -> Result<Option<Vec<u8>>> {
        let Some(directory) = parent(target) else { return Ok(None) };
        Ok(match self.walk(target, directory, false)? {
            Some(directory) => Some(join(target, &directory, file_name(target))?),
            None => None,
        })
    }

    /// Where `directory` really is, through this layer's links; what is missing on the way is made.
    fn real_directory(&mut self, said: &[u8], directory: &[u8]) -> Result<Vec<u8>> {
        Ok(self.walk(said, directory, true)?.unwrap_or_default())
    }

    fn is_real_directory(&self, path: &[u8]) -> bool {
        matches!(self.nodes.get(path), Some(Node::Other(entry)) if entry.is_directory())
    }

    /// Follows links as in a chroot to the tree: `/` is its root, and `..` of the root is the root.
    fn walk(&mut self, said: &[u8], directory: &[u8], make: bool) -> Result<Option<Vec<u8>>> {
        // Nearly always the directory, or the one above, is there and no link is on the way; and a path of thousands of
        // components must not be looked up component by component for each of thousands of entries.
        let mut known = directory;
        while !self.is_real_directory(known) {
            known = parent(known).unwrap_or_default();
        }
        let mut real = known.to_vec();
        let rest = directory.get(known.len()..).unwrap_or_default();
        // Components still to go, the next one last.
        let mut waiting: Vec<Vec<u8>> = rest.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec).collect();
        let mut links_followed = 0;
        while let Some(component) = waiting.pop() {
            match component.as_slice() {
                b"" | b"." => continue,
                b".." => {
                    real = parent(&real).unwrap_or_default().to_vec();
                    continue;
                }
                _ => {}
            }
            let next = join(said, &real, &component)?;
            match self.nodes.get(&next).map(Node::kind) {
                Some(Some(Kind::Directory { .. })) => real = next,
                Some(Some(Kind::Symlink { target })) => {
                    links_followed += 1;
                    if links_followed > LINKS_FOLLOWED_MAX {
                        return Err(LayerError::LinkLoop {
                            path: said.into(),
                            through: next.as_slice().into(),
                        });
                    }
                    if target.starts_with(b"/") {
                        real.clear();
                    }
                    waiting.extend(target.split(|byte| *byte == b'/').rev().map(<[u8]>::to_vec));
                }
                None | Some(Some(Kind::Whiteout)) => {
                    if !make {
                        return Ok(None);
                    }
                    self.make_implied(&next)?;
                    real = next;
                }
                Some(_) if !make => return Ok(None),
                Some(_) => {
                    return Err(LayerError::NotDirectory {
                        path: said.into(),
                        through: next.as_slice().into(),
                    });
                }
            }
        }
        Ok(Some(real))
    }

    fn make_implied(&mut self, path: &[u8]) -> Result<()> {
        let entry = if self.is_whiteout(path) {
            // The lower directory is hidden by this layer, so this is a new one.
            let mut entry = implied_directory(path, &NoParents);
            entry.kind = Kind::Directory { opaque: true, implied: false };
            entry
        } else {
            self.implied_directories = true;
            implied_directory(path, self.lower)
        };
        self.remove(path)?;
        self.writer.make_directory(path)?;
        self.nodes.insert(path.to_vec(), Node::other(entry));
        Ok(())
    }

    /// The root that the tar did not speak of looks as the one below.
    fn finish_root(&mut self) {
        if let Some(Node::Other(root)) = self.nodes.get_mut(&b""[..])
            && let Kind::Directory { implied: true, opaque } = root.kind
        {
            **root = implied_directory(b"", self.lower);
            root.kind = Kind::Directory { implied: true, opaque };
        }
    }

    fn finish(&mut self) -> Result<Applied> {
        self.finish_root();
        let mut nodes: Vec<_> = std::mem::take(&mut self.nodes).into_iter().collect();
        nodes.sort_by(|(a, _), (b, _)| compare_paths(a, b));
        let mut files: Vec<Option<Box<Entry>>> =
            std::mem::take(&mut self.files).into_iter().map(Some).collect();
        // Where the first name of each file stands.
        let mut first: Vec<usize> = vec![0; files.len()];
        let mut entries: Vec<Entry> = Vec::with_capacity(nodes.len());
        for (path, node) in nodes {
            let number = match node {
                Node::Other(entry) => {
                    entries.push(*entry);
                    continue;
                }
                Node::File(number) => number,
            };
            let (Some(file), Some(first)) = (files.get_mut(number), first.get_mut(number)) else { continue };
            match file.take() {
                Some(file) => {
                    *first = entries.len();
                    entries.push(Entry { path, ..*file });
                }
                None => {
                    let Some(named) = entries.get(*first) else { continue };
                    let kind = Kind::Hardlink { target: named.path.clone() };
                    entries.push(Entry { path, kind, ..named.clone() });
                }
            }
        }
        // The last first, so that a directory is finished after all that is inside: later work in it would change its time.
        for entry in entries.iter().rev().filter(|entry| entry.is_directory()) {
            self.writer.finish_directory(entry)?;
        }
        let unsaid_root =
            |entry: &Entry| matches!(entry.kind, Kind::Directory { opaque: false, implied: true });
        if entries.first().is_some_and(|entry| entry.path.is_empty() && unsaid_root(entry)) {
            entries.remove(0);
        }
        let (implied_directories, lower_hardlinks) = (self.implied_directories, self.lower_hardlinks);
        Ok(Applied { entries, diff_id: [0; 32], tar_size_bytes: 0, implied_directories, lower_hardlinks })
    }
}

fn implied_directory(path: &[u8], lower: &dyn Parents) -> Entry {
    let kind = Kind::Directory { opaque: false, implied: true };
    match lower.directory(path).filter(Entry::is_directory) {
        Some(mut entry) => {
            entry.xattrs.retain(|(name, _)| !is_overlay_xattr(name));
            Entry { path: path.to_vec(), kind, ..entry }
        }
        None => {
            let (uid, gid, mtime, xattrs) = (0, 0, Time::default(), Vec::new());
            Entry { path: path.to_vec(), kind, mode: 0o755, uid, gid, mtime, xattrs }
        }
    }
}

/// A tar must not speak to overlayfs: `redirect` and `metacopy` would show files of other places.
fn is_overlay_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.")
}

fn file_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

fn join(said: &[u8], directory: &[u8], name: &[u8]) -> Result<Vec<u8>> {
    let path = if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() };
    if path.len() > PATH_SIZE_BYTES_MAX {
        return Err(LayerError::Name {
            path: said.into(),
            reason: "the real path is longer than 4095 bytes",
        });
    }
    Ok(path)
}

/// A shared handle of a directory of the tree.
pub(crate) type DirectoryHandle = Rc<std::os::fd::OwnedFd>;
