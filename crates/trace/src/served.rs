//! What is answered to each question about a tree, and what is noted of it.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use mica_tree::{Kind, MergedIndex};
use rustix::io::Errno;

use crate::error::Fault;
use crate::observation::Observation;
use crate::protocol::{Answer, Operation, READ_BYTES_MAX, Request};
use crate::record::ListedKind;
use crate::view::{View, mode_of_kind};

/// Where the bytes of files come from.
pub trait Files: Send + Sync {
    /// Opens the bytes of the regular file, or the name of one, at a position.
    fn open(&self, tree: &MergedIndex, position: usize) -> std::io::Result<File>;
}

/// The longest name, as on most filesystems.
const NAME_BYTES_MAX: usize = 255;
/// Files that are kept open: a step reads few at the same time, and each is one of the process's descriptors.
const OPEN_FILES_MAX: usize = 64;
/// Offsets in a directory: 0 is the beginning, then `.`, `..`, and the slot of what comes next, counted from here.
const OFFSETS_START: u64 = 3;
/// The type in a listing is the upper bits of a mode.
const KIND_SHIFT: u32 = 12;
const DIRECTORY: u32 = mode_of_kind(ListedKind::Directory) >> KIND_SHIFT;

/// Answers the questions about one tree.
pub struct Served {
    view: View,
    files: Arc<dyn Files>,
    observation: Observation,
    // By slot, the one used last at the end.
    open: VecDeque<(usize, File)>,
    fault: Option<Fault>,
    // The path of a lookup, in one buffer for all.
    wanted: Vec<u8>,
}

impl Served {
    /// A tree that nobody has looked at; at most `uses_max` paths are noted.
    pub fn new(view: View, files: Arc<dyn Files>, uses_max: usize) -> Self {
        let observation = Observation::new(&view, uses_max);
        Self { view, files, observation, open: VecDeque::new(), fault: None, wanted: Vec::new() }
    }

    /// All that was seen.
    pub fn into_parts(self) -> (View, Observation, Option<Fault>) {
        (self.view, self.observation, self.fault)
    }

    /// Puts the answer to a request into `answer`; `None` when the kernel waits for none.
    pub fn answer(&mut self, request: &Request<'_>, answer: &mut Answer) -> Option<Result<(), Errno>> {
        answer.clear();
        Some(match request.operation {
            Operation::Forget => return None,
            Operation::Init { version, readahead_bytes_max, flags } => {
                answer.init(version, readahead_bytes_max, flags, self.view.has_acls)
            }
            Operation::Lookup { name } => self.look_up(request.node, name, answer),
            Operation::GetAttributes => self.attributes(request.node, answer),
            Operation::ReadLink => self.read_link(request.node, answer),
            Operation::Read { offset, size_bytes } => self.read(request.node, offset, size_bytes, answer),
            Operation::ReadDirectory { offset, size_bytes } => {
                self.read_directory(request.node, offset, size_bytes, answer)
            }
            Operation::GetXattr { name, size_bytes } => self.xattr(request.node, name, size_bytes, answer),
            Operation::ListXattr { size_bytes } => self.list_xattrs(request.node, size_bytes, answer),
            Operation::Statistics => {
                answer.statistics(NAME_BYTES_MAX as u32);
                Ok(())
            }
            Operation::Destroy => Ok(()),
            // Opening is one of these: the kernel then opens by itself and caches as it likes.
            Operation::Other => Err(Errno::NOSYS),
        })
    }

    fn slot(&self, node: u64) -> Result<usize, Errno> {
        self.view.slot_of_node(node).ok_or(Errno::STALE)
    }

    fn look_up(&mut self, node: u64, name: &[u8], answer: &mut Answer) -> Result<(), Errno> {
        let directory = self.slot(node)?;
        let path = self.view.directory(directory).ok_or(Errno::NOTDIR)?;
        if name.len() > NAME_BYTES_MAX {
            return Err(Errno::NAMETOOLONG);
        }
        if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') {
            return Err(Errno::INVAL);
        }
        self.wanted.clear();
        self.wanted.extend_from_slice(path);
        if !path.is_empty() {
            self.wanted.push(b'/');
        }
        self.wanted.extend_from_slice(name);
        // What is in a directory stands behind it, mostly near.
        let start = self.view.position(directory).map_or(0, |position| position + 1);
        let position = self.view.tree.find_from(start, &self.wanted).ok();
        // A hard link to nothing, as a malformed index may have it, is absent.
        let found = position.map(|position| self.view.slot(position));
        match found.and_then(|slot| Some((slot, self.view.attributes(slot)?))) {
            Some((slot, attributes)) => {
                self.observation.looked_up(slot);
                answer.entry(&attributes);
            }
            None => {
                self.observation.absent(directory, path, name);
                answer.absent();
            }
        }
        Ok(())
    }

    fn attributes(&mut self, node: u64, answer: &mut Answer) -> Result<(), Errno> {
        answer.attributes(&self.view.attributes(self.slot(node)?).ok_or(Errno::STALE)?);
        Ok(())
    }

    fn read_link(&mut self, node: u64, answer: &mut Answer) -> Result<(), Errno> {
        // The target is part of what a lookup of a link counts for.
        match self.view.attributes_entry(self.slot(node)?).map(|entry| &entry.kind) {
            Some(Kind::Symlink { target }) => answer.bytes(target),
            _ => return Err(Errno::INVAL),
        }
        Ok(())
    }

    fn read_directory(
        &mut self,
        node: u64,
        offset: u64,
        room: u32,
        answer: &mut Answer,
    ) -> Result<(), Errno> {
        let slot = self.slot(node)?;
        let view = &self.view;
        let path = view.directory(slot).ok_or(Errno::NOTDIR)?;
        self.observation.listed(slot);
        let own = [(1, node, b".".as_slice()), (2, view.parent_node(slot), b"..")];
        for (number, node, name) in own {
            if offset < number && !answer.name(room, node, number, DIRECTORY, name) {
                return Ok(());
            }
        }
        let first = view.position(slot).map_or(0, |position| position + 1);
        let start = match offset.checked_sub(OFFSETS_START) {
            None => first,
            Some(next) => {
                let next = usize::try_from(next).unwrap_or(usize::MAX);
                next.clamp(first, view.tree.len())
            }
        };
        for child in view.tree.children_from(path, start) {
            let Some(kind) = view.kind(child) else { continue };
            let name = view.tree.entry(child).name();
            // Longer names cannot be on a disk; a kernel that is told one gives up the whole listing.
            if name.len() > NAME_BYTES_MAX {
                continue;
            }
            let next = view.tree.end_of(child) as u64 + OFFSETS_START;
            if !answer.name(room, view.node(child), next, mode_of_kind(kind) >> KIND_SHIFT, name) {
                break;
            }
        }
        Ok(())
    }

    fn read(&mut self, node: u64, offset: u64, wanted: u32, answer: &mut Answer) -> Result<(), Errno> {
        let slot = self.slot(node)?;
        let entry = self.view.attributes_entry(slot).ok_or(Errno::STALE)?;
        let Kind::File { size, .. } = entry.kind else { return Err(Errno::INVAL) };
        self.observation.read(slot);
        let left = size.saturating_sub(offset);
        let wanted = u64::from(wanted).min(READ_BYTES_MAX as u64).min(left) as usize;
        if wanted == 0 {
            return Ok(());
        }
        match self.read_bytes(slot, size, offset, answer.room(wanted)) {
            Ok(()) => answer.keep(wanted),
            Err(reason) => return Err(self.damaged(slot, reason)),
        }
        Ok(())
    }

    /// Fills the buffer, which lies within the size that the index says.
    fn read_bytes(
        &mut self,
        slot: usize,
        size_bytes: u64,
        offset: u64,
        buffer: &mut [u8],
    ) -> Result<(), String> {
        let position = self.view.position(slot).ok_or("it has no place in the index")?;
        match self.open.iter().position(|(open, _)| *open == slot) {
            Some(at) => {
                let used = self.open.remove(at);
                self.open.extend(used);
            }
            None => {
                let file = self.files.open(&self.view.tree, position).map_err(|error| error.to_string())?;
                let metadata = file.metadata().map_err(|error| error.to_string())?;
                if !metadata.is_file() {
                    return Err("it is not a regular file any more".to_owned());
                }
                if metadata.len() != size_bytes {
                    return Err(format!("it has {} bytes in place of {size_bytes}", metadata.len()));
                }
                if self.open.len() >= OPEN_FILES_MAX {
                    self.open.pop_front();
                }
                self.open.push_back((slot, file));
            }
        }
        let (_, file) = self.open.back().ok_or("it is not open")?;
        file.read_exact_at(buffer, offset).map_err(|error| error.to_string())
    }

    fn xattr(&mut self, node: u64, name: &[u8], room: u32, answer: &mut Answer) -> Result<(), Errno> {
        if !self.view.has_xattrs {
            // The kernel does not ask again, which halves the questions of a walk.
            return Err(Errno::NOSYS);
        }
        let entry = self.view.attributes_entry(self.slot(node)?);
        let xattrs = entry.map_or(&[][..], |entry| &entry.xattrs);
        let found = xattrs.iter().find(|(other, _)| other == name && is_shown(other));
        answer.xattr(room, &found.ok_or(no_xattr(xattrs.is_empty(), name))?.1)
    }

    fn list_xattrs(&mut self, node: u64, room: u32, answer: &mut Answer) -> Result<(), Errno> {
        if !self.view.has_xattrs {
            return Err(Errno::NOSYS);
        }
        let entry = self.view.attributes_entry(self.slot(node)?);
        let xattrs = entry.map_or(&[][..], |entry| &entry.xattrs);
        if xattrs.is_empty() {
            return Err(Errno::OPNOTSUPP);
        }
        let shown = xattrs.iter().filter(|(name, _)| is_shown(name));
        answer
            .xattr(room, &shown.flat_map(|(name, _)| [name.as_slice(), b"\0"].concat()).collect::<Vec<u8>>())
    }

    /// Notes that the layer is not what its index says; the step sees an input/output error.
    fn damaged(&mut self, slot: usize, reason: String) -> Errno {
        if let (None, Some(position)) = (&self.fault, self.view.position(slot)) {
            let layer = self.view.tree.layer_at(position);
            let path = self.view.tree.entry(position).path.clone();
            self.fault = Some(Fault::Damaged { layer, path, reason });
        }
        Errno::IO
    }
}

/// What is answered where there is no such attribute. An entry without any has to look the same in a tree where nothing has
/// one, which makes `EOPNOTSUPP` of the `ENOSYS`: what a step sees of a path must not depend on other paths.
fn no_xattr(entry_has_none: bool, name: &[u8]) -> Errno {
    // The kernel takes any other error of an access control list for one of the access.
    match entry_has_none && !name.starts_with(b"system.posix_acl_") {
        true => Errno::OPNOTSUPP,
        false => Errno::NODATA,
    }
}

/// The marks of an overlay would be obeyed by the one above.
fn is_shown(name: &[u8]) -> bool {
    !name.starts_with(b"trusted.overlay.") && !name.starts_with(b"user.overlay.")
}
