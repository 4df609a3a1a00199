//! Which paths a COPY or ADD makes: a source tree, a lower tree and the instruction in, the entries of the new layer out.
//!
//! Nothing here touches a disk, so every rule is a table in a test. The rules are BuildKit's: a directory gives its
//! contents; a file goes into the destination if that is a directory (or ends in `/`), else it becomes it; links on the
//! way to the destination are followed inside the root; what stands there is replaced by the same kind only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::Arc;

use mica_dockerfile::glob::glob_match;
use mica_plan::Chmod;
use mica_trace::Watched;
use mica_tree::{Entry, Kind, MergedIndex, ResolveError, Resolved, Time, parent};
use thiserror::Error;

use crate::chmod;
use crate::select::Selection;

/// Where the bytes of a placed file come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The entry is not a file.
    None,
    /// The file at this path of the source tree.
    Source(Vec<u8>),
    /// These bytes.
    Bytes(Arc<[u8]>),
    /// A file unpacked to this path beforehand.
    Spooled(PathBuf),
}

/// An entry of the new layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub entry: Entry,
    pub origin: Origin,
}

/// Why files cannot go where they were meant to.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PlaceError {
    /// The source does not exist.
    #[error("`{path}` was not found")]
    Missing {
        /// As written.
        path: String,
    },
    /// The pattern is malformed.
    #[error("`{pattern}` is not a valid pattern")]
    BadPattern {
        /// As written.
        pattern: String,
    },
    /// A file would replace a directory.
    #[error("cannot replace the directory `/{path}` with a file")]
    FileOverDirectory {
        /// Path in the image.
        path: String,
    },
    /// A directory would replace something else.
    #[error("cannot copy a directory to `/{path}`, which is not a directory")]
    DirectoryOverFile {
        /// Path in the image.
        path: String,
    },
    /// Too many symbolic links, or one that leads through a file.
    #[error("cannot follow `{path}`: {reason}")]
    Unresolvable {
        /// Path as asked for.
        path: String,
        /// What stopped it.
        reason: String,
    },
}

/// Owner, mode and time of what is placed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Attributes {
    /// Owner of everything; `None` keeps the source's.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`
    pub chmod: Option<Chmod>,
    /// Time of directories that nobody had.
    pub time: Time,
}

/// The layer as it takes shape.
pub(crate) struct Placement<'a> {
    /// Asked as little as possible: what is asked is what the result holds for.
    lower: &'a Watched<'a>,
    attributes: Attributes,
    /// Keyed by path with `/` as zero byte, which makes map order index order.
    placed: BTreeMap<Vec<u8>, Placed>,
    /// Paths of hard links by the path of the placed file that they are names of.
    links: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
    /// The directory of the last entry: neighbours mostly stand together.
    last_directory: Option<LastDirectory>,
    /// Directories that the lower tree does not have, so that nothing inside of them needs to be asked for.
    only_here: HashSet<Vec<u8>>,
    /// Where the files of the source are, if it is none of the step's own ([`Origin::Source`]).
    source_root: Option<PathBuf>,
}

/// A directory that is placed.
struct LastDirectory {
    path: Vec<u8>,
    /// Whether the lower tree has it as well, and so may have what is to be placed in it.
    is_in_lower: bool,
}

fn key(path: &[u8]) -> Vec<u8> {
    path.iter().map(|byte| if *byte == b'/' { 0 } else { *byte }).collect()
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

/// `a` and `b` as one path.
pub(crate) fn join(a: &[u8], b: &[u8]) -> Vec<u8> {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b.to_vec(),
        (_, true) => a.to_vec(),
        _ => [a, b"/", b].concat(),
    }
}

/// A path as written, relative to a root: `.`, `..`, doubled and leading slashes gone. `..` stops at the root.
pub(crate) fn clean(path: &str) -> Vec<u8> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/").into_bytes()
}

/// The path that the rules of `--exclude` see for `path`: relative to the directory that is copied, or the name of the file
/// that is copied by itself.
pub(crate) fn path_in<'p>(from: &[u8], path: &'p [u8]) -> &'p [u8] {
    match path.strip_prefix(from) {
        Some(b"") => path.rsplit(|byte| *byte == b'/').next().unwrap_or(path),
        Some(inside) => inside.strip_prefix(b"/").unwrap_or(inside),
        None => path,
    }
}

/// Whether a source is a pattern rather than a name.
pub(crate) fn has_glob(path: &str) -> bool {
    path.contains(['*', '?', '[', '\\'])
}

/// The paths of `source` that a word of COPY names: one for a plain path, any number in order for a pattern.
pub(crate) fn matches(source: &MergedIndex, word: &str) -> Result<Vec<Vec<u8>>, PlaceError> {
    if !has_glob(word) {
        let path = clean(word);
        return match follow(source, &path)? {
            Some(_) => Ok(vec![path]),
            None => Err(PlaceError::Missing { path: word.to_owned() }),
        };
    }
    let bad = || PlaceError::BadPattern { pattern: word.to_owned() };
    let pattern = clean(word);
    let pattern = std::str::from_utf8(&pattern).map_err(|_| bad())?;
    glob_match(pattern, "").map_err(|_| bad())?;
    let mut found = vec![Vec::new()];
    for component in pattern.split('/') {
        let mut next = Vec::new();
        for directory in found {
            let Some(resolved) = follow(source, &directory)? else { continue };
            if !resolved.entry.is_none_or(Entry::is_directory) {
                continue;
            }
            for child in source.list(&resolved.path) {
                let Ok(name) = std::str::from_utf8(child.name()) else { continue };
                if glob_match(component, name).map_err(|_| bad())? {
                    next.push(join(&directory, child.name()));
                }
            }
        }
        found = next;
    }
    Ok(found)
}

/// Where a path of the tree leads, links followed, or nothing.
pub(crate) fn follow<'t>(tree: &'t MergedIndex, path: &[u8]) -> Result<Option<Resolved<'t>>, PlaceError> {
    match tree.resolve(path, true) {
        Ok(resolved) => Ok(resolved),
        // What stands below a file is as absent as what stands nowhere.
        Err(ResolveError::NotADirectory { .. }) => Ok(None),
        Err(error) => Err(PlaceError::Unresolvable { path: text(path), reason: error.to_string() }),
    }
}

/// `mode` after `--chmod`.
pub(crate) fn apply_chmod(chmod: &Chmod, mode: u32, directory: bool) -> u32 {
    match chmod {
        Chmod::Octal(mode) => *mode,
        Chmod::Symbolic(changes) => chmod::apply(changes, mode, directory),
    }
}

impl<'a> Placement<'a> {
    /// An empty layer over `lower`.
    pub fn new(lower: &'a Watched<'a>, attributes: Attributes) -> Self {
        Self {
            lower,
            attributes,
            placed: BTreeMap::new(),
            links: BTreeMap::new(),
            last_directory: None,
            only_here: HashSet::new(),
            source_root: None,
        }
    }

    /// The layer's entries in index order.
    pub fn finish(self) -> Vec<Placed> {
        self.placed.into_values().collect()
    }

    /// Where an absolute destination leads inside the lower tree, links followed, ending in `/` or not as given.
    pub fn destination(&self, destination: &str) -> Result<Vec<u8>, PlaceError> {
        self.lower.resolve_for_create(&clean(destination)).map_err(|error| PlaceError::Unresolvable {
            path: destination.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Whether a directory stands at `path`, in this layer or below.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        path.is_empty() || self.kind_at(path).is_some_and(|directory| directory)
    }

    /// `Some(true)` for a directory, `Some(false)` for anything else.
    fn kind_at(&self, path: &[u8]) -> Option<bool> {
        match self.placed_at(path) {
            Some(placed) => Some(placed.entry.is_directory()),
            None => self.below(path).map(Entry::is_directory),
        }
    }

    /// What this layer has at `path`.
    fn placed_at(&self, path: &[u8]) -> Option<&Placed> {
        let key = key(path);
        self.may_be_placed(&key).then(|| self.placed.get(&key)).flatten()
    }

    /// Most of what is placed comes in order, and then nothing needs to be looked for.
    fn may_be_placed(&self, key: &[u8]) -> bool {
        self.placed.last_key_value().is_some_and(|(last, _)| key <= last.as_slice())
    }

    /// Whether `path` stands in a directory that the lower tree does not have.
    fn is_only_here(&self, path: &[u8]) -> bool {
        let directory = parent(path).unwrap_or_default();
        match &self.last_directory {
            Some(last) if last.path == directory => !last.is_in_lower,
            _ => self.only_here.contains(directory),
        }
    }

    /// What the lower tree has at `path`. It is asked only if it may have something there.
    fn below(&self, path: &[u8]) -> Option<&'a Entry> {
        if self.is_only_here(path) { None } else { self.lower.get(path) }
    }

    /// Whether the lower tree has the directory `path`, or something inside of it: an index may lack its entry. If not,
    /// nothing inside of it is asked for any more.
    fn is_in_lower(&mut self, path: &[u8]) -> bool {
        if path.is_empty() {
            return true;
        }
        let found =
            !self.is_only_here(path) && (self.lower.get(path).is_some() || self.lower.has_inside(path));
        if !found {
            self.only_here.insert(path.to_vec());
        }
        found
    }

    /// Makes sure that `path` and its parents are directories; new ones are 0755 and owned as everything placed.
    pub fn make_directory(&mut self, path: &[u8]) -> Result<(), PlaceError> {
        if self.last_directory.as_ref().is_some_and(|last| last.path == path) {
            return Ok(());
        }
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain((!path.is_empty()).then_some(path.len())) {
            let path = &path[..end];
            match self.placed_at(path) {
                Some(placed) if placed.entry.is_directory() => continue,
                Some(_) => return Err(PlaceError::DirectoryOverFile { path: text(path) }),
                None => {}
            }
            let entry = match self.below(path) {
                Some(entry) if entry.is_directory() => {
                    Entry { kind: Kind::Directory { opaque: false, implied: true }, ..entry.clone() }
                }
                Some(_) => return Err(PlaceError::DirectoryOverFile { path: text(path) }),
                None => {
                    self.is_in_lower(path);
                    let (uid, gid) = self.attributes.owner.unwrap_or_default();
                    Entry {
                        path: path.to_vec(),
                        kind: Kind::Directory { opaque: false, implied: false },
                        // As BuildKit: `--chmod` holds for the directories on the way as well.
                        mode: self
                            .attributes
                            .chmod
                            .as_ref()
                            .map_or(0o755, |chmod| apply_chmod(chmod, 0o755, true)),
                        uid,
                        gid,
                        mtime: self.attributes.time,
                        xattrs: Vec::new(),
                    }
                }
            };
            self.insert(Placed { entry, origin: Origin::None });
        }
        let is_in_lower = self.is_in_lower(path);
        self.last_directory = Some(LastDirectory { path: path.to_vec(), is_in_lower });
        Ok(())
    }

    /// Puts an entry at its path as it is, its parents made as needed.
    pub fn put(&mut self, entry: Entry, origin: Origin) -> Result<(), PlaceError> {
        self.make_directory(parent(&entry.path).unwrap_or_default())?;
        match (self.kind_at(&entry.path), entry.is_directory()) {
            (Some(true), false) => return Err(PlaceError::FileOverDirectory { path: text(&entry.path) }),
            (Some(false), true) => return Err(PlaceError::DirectoryOverFile { path: text(&entry.path) }),
            _ => {}
        }
        if entry.is_directory() {
            self.is_in_lower(&entry.path);
        }
        self.insert(Placed { entry, origin });
        Ok(())
    }

    /// Puts an entry of an archive at its path as it is; unlike a copy, an archive replaces what stands there, and
    /// follows links in the names of directories.
    pub fn put_unpacked(&mut self, mut entry: Entry, origin: Origin) -> Result<(), PlaceError> {
        let directory = self.real_path(parent(&entry.path).unwrap_or_default())?;
        let mut path = join(&directory, entry.name());
        if entry.is_directory() {
            self.make_directory(&directory)?;
            let real = self.real_path(&path)?;
            if self.is_directory(&real) {
                path = real;
            }
        }
        if let Kind::Hardlink { target } = &mut entry.kind {
            let name = target.rsplit(|byte| *byte == b'/').next().unwrap_or(target);
            let real = join(&self.real_path(parent(target).unwrap_or_default())?, name);
            let first = match self.placed.get(&key(&real)).map(|placed| &placed.entry.kind) {
                Some(Kind::Hardlink { target: first }) => first.clone(),
                Some(Kind::File { .. }) => real,
                _ => return Err(PlaceError::Missing { path: text(target) }),
            };
            if first == path {
                return Ok(());
            }
            *target = first;
        }
        entry.path = path;
        // A link may have led elsewhere.
        self.make_directory(parent(&entry.path).unwrap_or_default())?;
        if entry.is_directory() {
            self.is_in_lower(&entry.path);
        } else {
            // What the archive itself put inside a directory goes with it.
            let below = [key(&entry.path), vec![0]].concat();
            let inside = self.placed.range(below.clone()..).take_while(|(key, _)| key.starts_with(&below));
            let inside: Vec<_> = inside.map(|(_, placed)| placed.entry.path.clone()).collect();
            for path in inside {
                self.remove(&path);
            }
        }
        self.insert(Placed { entry, origin });
        Ok(())
    }

    fn real_path(&self, path: &[u8]) -> Result<Vec<u8>, PlaceError> {
        self.lower
            .resolve_for_create(path)
            .map_err(|error| PlaceError::Unresolvable { path: text(path), reason: error.to_string() })
    }

    /// Puts `new` at its path whatever stands there. A file with several names keeps its other names, and the first of the
    /// names in order holds the content, as an index wants it.
    fn insert(&mut self, mut new: Placed) {
        self.remove(&new.entry.path);
        if let Kind::Hardlink { target } = &new.entry.kind {
            let target = target.clone();
            self.links.entry(target.clone()).or_default().insert(new.entry.path.clone());
            if key(&target) > key(&new.entry.path) {
                let path = std::mem::take(&mut new.entry.path);
                self.move_file(&target, path);
                return;
            }
        }
        self.placed.insert(key(&new.entry.path), new);
    }

    /// Takes away what this layer has at `path`; if it was a file with more names, the next one becomes the file.
    fn remove(&mut self, path: &[u8]) {
        let key_of_path = key(path);
        if !self.may_be_placed(&key_of_path) {
            return;
        }
        if self.last_directory.as_ref().is_some_and(|last| last.path == path) {
            self.last_directory = None;
        }
        if let Some(next) = self.links.get(path).and_then(|names| names.iter().min_by_key(|name| key(name))) {
            let next = next.clone();
            self.move_file(path, next);
        }
        if let Some(Placed { entry: Entry { kind: Kind::Hardlink { target }, .. }, .. }) =
            self.placed.remove(&key_of_path)
            && let Some(names) = self.links.get_mut(&target)
        {
            names.remove(path);
        }
    }

    /// Makes `to`, one of the names of the file at `from`, the one that holds the content.
    fn move_file(&mut self, from: &[u8], to: Vec<u8>) {
        let Some(file) = self.placed.remove(&key(from)) else { return };
        let mut names = self.links.remove(from).unwrap_or_default();
        names.remove(&to);
        names.insert(from.to_vec());
        for name in &names {
            let kind = Kind::Hardlink { target: to.clone() };
            let entry = Entry { path: name.clone(), kind, ..file.entry.clone() };
            self.placed.insert(key(name), Placed { entry, origin: Origin::None });
        }
        self.links.insert(to.clone(), names);
        let entry = Entry { path: to, ..file.entry };
        self.placed.insert(key(&entry.path), Placed { entry, origin: file.origin });
    }

    /// Gives an entry the owner that the instruction names, if it names one.
    pub fn give_owner(&self, entry: &mut Entry) {
        if let Some((uid, gid)) = self.attributes.owner {
            (entry.uid, entry.gid) = (uid, gid);
        }
    }

    /// `entry` of a source with the owner and mode that the instruction gives, at `path`.
    fn dressed(&self, entry: &Entry, path: Vec<u8>) -> Entry {
        let mut entry = Entry { path, ..entry.clone() };
        self.give_owner(&mut entry);
        let directory = entry.is_directory();
        if !matches!(entry.kind, Kind::Symlink { .. })
            && let Some(chmod) = &self.attributes.chmod
        {
            entry.mode = apply_chmod(chmod, entry.mode, directory);
        }
        if let Kind::Directory { opaque, implied } = &mut entry.kind {
            (*opaque, *implied) = (false, false);
        }
        entry
    }

    /// Copies what stands at `from` in `source` to `destination`: a directory gives its contents. `into` says that the
    /// destination was written as a directory; `selection` which entries are taken.
    pub fn copy(
        &mut self,
        source: &MergedIndex,
        from: &[u8],
        destination: &[u8],
        into: bool,
        selection: &Selection,
    ) -> Result<(), PlaceError> {
        let Some(Resolved { path: real, entry }) = follow(source, from)? else {
            return Err(PlaceError::Missing { path: text(from) });
        };
        let Some(entry) = entry.filter(|entry| !entry.is_directory()) else {
            return self.copy_directory(source, &real, destination, selection);
        };
        if !selection.takes_file(from) {
            return Ok(());
        }
        if into {
            self.make_directory(destination)?;
        }
        let target = if into || self.is_directory(destination) {
            let name = from.rsplit(|byte| *byte == b'/').next().unwrap_or(from);
            join(destination, name)
        } else {
            destination.to_vec()
        };
        self.put_from(source, entry, target, &mut BTreeMap::new())
    }

    /// Files that are placed from now on are those of a directory on disk; `None` for the step's own source.
    pub fn take_from(&mut self, root: Option<PathBuf>) {
        self.source_root = root;
    }

    fn origin(&self, path: &[u8]) -> Origin {
        use std::os::unix::ffi::OsStrExt;
        match &self.source_root {
            Some(root) => Origin::Spooled(root.join(std::ffi::OsStr::from_bytes(path))),
            None => Origin::Source(path.to_vec()),
        }
    }

    fn copy_directory(
        &mut self,
        source: &MergedIndex,
        from: &[u8],
        destination: &[u8],
        selection: &Selection,
    ) -> Result<(), PlaceError> {
        // As BuildKit: only the contents are copied, the directory that receives them is any new directory.
        self.make_directory(destination)?;
        let linked = |entry: &Entry| match &entry.kind {
            Kind::Hardlink { target } => Some((target.clone(), None)),
            _ => None,
        };
        let mut links: BTreeMap<_, _> = source.walk(from).filter_map(linked).collect();
        for entry in selection.inside(source, from) {
            self.put_from(source, entry, join(destination, path_in(from, &entry.path)), &mut links)?;
        }
        Ok(())
    }

    /// Places one entry of the source. `links` knows, by the path of the first name in the source, the files with several
    /// names, and where they were placed, so that the names stay one file.
    fn put_from(
        &mut self,
        source: &MergedIndex,
        entry: &Entry,
        target: Vec<u8>,
        links: &mut BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    ) -> Result<(), PlaceError> {
        let Kind::Hardlink { target: first } = &entry.kind else {
            if let Kind::File { .. } = entry.kind {
                if let Some(placed) = links.get_mut(&entry.path) {
                    *placed = Some(target.clone());
                }
                let dressed = self.dressed(entry, target);
                return self.put(dressed, self.origin(&entry.path));
            }
            if let (Kind::Directory { .. }, Some(false)) = (&entry.kind, self.kind_at(&target)) {
                return Err(PlaceError::DirectoryOverFile { path: text(&target) });
            }
            let dressed = self.dressed(entry, target);
            return self.put(dressed, Origin::None);
        };
        if let Some(Some(placed)) = links.get(first) {
            let placed = placed.clone();
            let link = Entry { kind: Kind::Hardlink { target: placed }, ..self.dressed(entry, target) };
            return self.put(link, Origin::None);
        }
        // The first name is not copied along: this one becomes the file.
        let Some(file) = source.entry_of_link(entry) else {
            return Err(PlaceError::Missing { path: text(first) });
        };
        links.insert(first.clone(), Some(target.clone()));
        let dressed = self.dressed(file, target);
        // By this name: what stands at the first one may be hidden by a layer above.
        self.put(dressed, self.origin(&entry.path))
    }
}
