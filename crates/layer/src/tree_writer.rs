//! Making the files of an overlay-form tree: the calls, and how marks of the overlay look on disk.
//!
//! All paths here are real: directories all the way, which [`crate::apply`] has seen to.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::io::{BufRead, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use mica_sys::dir_at::{bytes_path, open_directory, open_directory_path, remove_all};
use mica_sys::error::ErrorAt;
use mica_sys::xattr;
use mica_tree::{Entry, Kind, Time, parent};
use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid, chmodat, chownat, fchmod,
    fchown, futimens, linkat, makedev, mkdirat, mknodat, openat, symlinkat, utimensat,
};
use rustix::io::Errno;

use crate::apply::{DirectoryHandle, Mapping};
use crate::error::{EntryOf, LayerError, Result};
use crate::holes::write_with_holes;
use crate::sparse::Segment;
use crate::tar_entry::TarReader;

/// Handles of directories kept open; neighbours in a tar share their parent.
const DIRECTORIES_OPEN_MAX: usize = 64;

pub(crate) struct TreeWriter {
    root: OwnedFd,
    mapping: Mapping,
    open: HashMap<Vec<u8>, DirectoryHandle>,
    /// Directories with whiteouts in the form of attributes, which want a mark of their own.
    marked: BTreeSet<Vec<u8>>,
}

impl TreeWriter {
    pub fn new(tree: impl AsFd, mapping: Mapping) -> Result<Self> {
        let root = open_directory(tree, b"").entry(b"")?;
        Ok(Self { root, mapping, open: HashMap::new(), marked: BTreeSet::new() })
    }

    fn overlay_xattr(&self, name: &str) -> Vec<u8> {
        let user = matches!(self.mapping, Mapping::Rootless { userxattr: true, .. });
        format!("{}.overlay.{name}", if user { "user" } else { "trusted" }).into_bytes()
    }

    fn ignores_unmapped(&self) -> bool {
        matches!(self.mapping, Mapping::Rootless { ignore_unmapped: true, .. })
    }

    fn parent_of<'p>(&mut self, path: &'p [u8]) -> Result<(DirectoryHandle, &'p [u8])> {
        let directory = parent(path).unwrap_or_default();
        let name = path.get(directory.len()..).unwrap_or_default();
        let name = name.strip_prefix(b"/").unwrap_or(name);
        if let Some(handle) = self.open.get(directory) {
            return Ok((Rc::clone(handle), name));
        }
        if self.open.len() >= DIRECTORIES_OPEN_MAX {
            self.open.clear();
        }
        let handle = Rc::new(open_directory_path(&self.root, directory).entry(path)?);
        self.open.insert(directory.to_vec(), Rc::clone(&handle));
        Ok((handle, name))
    }

    pub fn remove_all(&mut self, path: &[u8]) -> Result<()> {
        let (directory, name) = self.parent_of(path)?;
        // Handles of removed directories would still be good for calls, and what they make would be nowhere.
        self.open.clear();
        remove_all(directory, name).entry(path)
    }

    /// Makes a directory that only its owner can use; [`TreeWriter::finish_directory`] gives it its attributes.
    pub fn make_directory(&mut self, path: &[u8]) -> Result<()> {
        let (directory, name) = self.parent_of(path)?;
        mkdirat(directory, name, Mode::RWXU).at("mkdirat", bytes_path(path)).entry(path)
    }

    pub fn finish_directory(&mut self, entry: &Entry) -> Result<()> {
        let directory = open_directory(&self.root, &entry.path).entry(&entry.path)?;
        let mark: Option<&[u8]> = match entry.kind {
            Kind::Directory { opaque: true, .. } => Some(b"y"),
            _ => self.marked.contains(&entry.path).then_some(b"x"),
        };
        if let Some(mark) = mark {
            xattr::set(&directory, &self.overlay_xattr("opaque"), mark).entry(&entry.path)?;
        }
        self.set_attributes(&directory, entry)?;
        futimens(&directory, &timestamps(entry.mtime))
            .at("utimensat", bytes_path(&entry.path))
            .entry(&entry.path)
    }

    /// Writes the current entry of `tar`; gives the BLAKE3 of the content.
    pub fn write_file<R: BufRead>(
        &mut self,
        entry: &Entry,
        segments: Option<&[Segment]>,
        tar: &mut TarReader<R>,
    ) -> Result<[u8; 32]> {
        let file = self.create(&entry.path)?;
        let mut hasher = blake3::Hasher::new();
        let failed = |source| LayerError::Write { path: entry.path.as_slice().into(), source };
        match (segments, &entry.kind) {
            (Some(segments), Kind::File { size, .. }) => {
                file.set_len(*size).map_err(failed)?;
                let mut position = 0;
                for segment in segments {
                    hash_hole(&mut hasher, segment.offset.saturating_sub(position));
                    position = segment.offset;
                    let end = segment.offset.saturating_add(segment.size_bytes);
                    while position < end {
                        let stored = tar.stored()?;
                        let wanted = usize::try_from(end - position).unwrap_or(usize::MAX);
                        let part = stored.get(..wanted).unwrap_or(stored);
                        if part.is_empty() {
                            break;
                        }
                        file.write_all_at(part, position).map_err(failed)?;
                        hasher.update(part);
                        let size_bytes = part.len();
                        tar.consume_stored(size_bytes);
                        position += size_bytes as u64;
                    }
                }
                hash_hole(&mut hasher, size.saturating_sub(position));
            }
            _ => {
                let (mut length, mut ends_in_hole) = (0, false);
                loop {
                    let stored = tar.stored()?;
                    if stored.is_empty() {
                        break;
                    }
                    ends_in_hole = write_with_holes(&file, stored).map_err(failed)?;
                    hasher.update(stored);
                    let size_bytes = stored.len();
                    tar.consume_stored(size_bytes);
                    length += size_bytes as u64;
                }
                if ends_in_hole {
                    file.set_len(length).map_err(failed)?;
                }
            }
        }
        self.finish_file(&file, entry)?;
        Ok(*hasher.finalize().as_bytes())
    }

    /// Writes what `from` has; gives its BLAKE3 and length.
    pub fn copy_file(&mut self, entry: &Entry, from: &mut File) -> Result<([u8; 32], u64)> {
        let mut file = self.create(&entry.path)?;
        let (mut hasher, mut size) = (blake3::Hasher::new(), 0);
        let mut buffer = vec![0; 128 << 10];
        let failed = |source| LayerError::Write { path: entry.path.as_slice().into(), source };
        loop {
            let size_bytes = from.read(&mut buffer).map_err(failed)?;
            let Some(part) = buffer.get(..size_bytes).filter(|part| !part.is_empty()) else { break };
            file.write_all(part).map_err(failed)?;
            hasher.update(part);
            size += size_bytes as u64;
        }
        self.finish_file(&file, entry)?;
        Ok((*hasher.finalize().as_bytes(), size))
    }

    fn create(&mut self, path: &[u8]) -> Result<File> {
        let (directory, name) = self.parent_of(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(directory, name, flags, Mode::RUSR | Mode::WUSR)
            .at("openat", bytes_path(path))
            .entry(path)?;
        Ok(File::from(file))
    }

    fn finish_file(&self, file: &File, entry: &Entry) -> Result<()> {
        self.set_attributes(file, entry)?;
        futimens(file, &timestamps(entry.mtime)).at("utimensat", bytes_path(&entry.path)).entry(&entry.path)
    }

    /// Owner first: a change of owner takes away set-user-ID bits and capabilities. Mode last: without root's rights a
    /// read-only file takes no more attributes, and an access list would change the mode.
    fn set_attributes(&self, file: impl AsFd, entry: &Entry) -> Result<()> {
        let path = entry.path.as_slice();
        self.owned(fchown(&file, Some(uid(entry)), Some(gid(entry))), "fchown", path)?;
        for (name, value) in &entry.xattrs {
            self.attribute(xattr::set(&file, name, value), path)?;
        }
        fchmod(&file, Mode::from_raw_mode(entry.mode)).at("fchmod", bytes_path(path)).entry(path)
    }

    fn owned(&self, answer: rustix::io::Result<()>, call: &'static str, path: &[u8]) -> Result<()> {
        match answer {
            Err(Errno::INVAL | Errno::PERM) if self.ignores_unmapped() => Ok(()),
            answer => answer.at(call, bytes_path(path)).entry(path),
        }
    }

    fn attribute(&self, answer: mica_sys::Result<()>, path: &[u8]) -> Result<()> {
        match answer {
            // As docker: a file system without such attributes can hold a tree; the index keeps the truth.
            Err(error) if error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()) => Ok(()),
            Err(error)
                if self.ignores_unmapped()
                    && matches!(
                        error.kind(),
                        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::InvalidInput
                    ) =>
            {
                Ok(())
            }
            answer => answer.entry(path),
        }
    }

    /// One more name of a file.
    pub fn link(&mut self, target: &[u8], path: &[u8]) -> Result<()> {
        let (target_directory, target_name) = self.parent_of(target)?;
        let (directory, name) = self.parent_of(path)?;
        linkat(target_directory, target_name, directory, name, AtFlags::empty())
            .at("linkat", bytes_path(path))
            .entry(path)
    }

    /// Makes a symbolic link, device or pipe.
    pub fn make_special(&mut self, entry: &Entry) -> Result<()> {
        let path = entry.path.as_slice();
        let (directory, name) = self.parent_of(path)?;
        let node = |kind, (major, minor)| {
            // The tree of a user namespace cannot have devices: the bind mounts of a container bring the few it needs.
            let answer = mknodat(&directory, name, kind, Mode::RUSR | Mode::WUSR, makedev(major, minor));
            match answer {
                Err(Errno::PERM) if matches!(self.mapping, Mapping::Rootless { .. }) => {
                    mknodat(&directory, name, FileType::RegularFile, Mode::RUSR | Mode::WUSR, 0)
                }
                answer => answer,
            }
        };
        let is_link = match &entry.kind {
            Kind::Symlink { target } => {
                symlinkat(target.as_slice(), &directory, name)
                    .at("symlinkat", bytes_path(path))
                    .entry(path)?;
                true
            }
            Kind::CharDevice { rdev } => {
                node(FileType::CharacterDevice, *rdev).at("mknodat", bytes_path(path)).entry(path)?;
                false
            }
            Kind::BlockDevice { rdev } => {
                node(FileType::BlockDevice, *rdev).at("mknodat", bytes_path(path)).entry(path)?;
                false
            }
            Kind::Fifo => {
                node(FileType::Fifo, (0, 0)).at("mknodat", bytes_path(path)).entry(path)?;
                false
            }
            _ => return Ok(()),
        };
        let owned = chownat(&directory, name, Some(uid(entry)), Some(gid(entry)), AtFlags::SYMLINK_NOFOLLOW);
        self.owned(owned, "fchownat", path)?;
        if !is_link {
            // This call follows links, but what it finds here is the node made above.
            let mode = Mode::from_raw_mode(entry.mode);
            chmodat(&directory, name, mode, AtFlags::empty()).at("fchmodat", bytes_path(path)).entry(path)?;
        }
        for (xattr_name, value) in &entry.xattrs {
            self.attribute(xattr::set_at(&directory, name, xattr_name, value), path)?;
        }
        utimensat(&directory, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .at("utimensat", bytes_path(path))
            .entry(path)
    }

    /// Hides `path` of lower layers: a character device 0:0, or where that is denied an empty file with an attribute (Linux
    /// 6.7; `Documentation/filesystems/overlayfs.rst`, "Whiteouts and opaque directories").
    pub fn make_whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (directory, name) = self.parent_of(path)?;
        match mknodat(&directory, name, FileType::CharacterDevice, Mode::empty(), makedev(0, 0)) {
            Err(Errno::PERM) => self.make_whiteout_file(path),
            answer => answer.at("mknodat", bytes_path(path)).entry(path),
        }
    }

    /// The form of attributes; the directory gets its own mark when it is finished.
    pub fn make_whiteout_file(&mut self, path: &[u8]) -> Result<()> {
        self.create(path)?;
        let (directory, name) = self.parent_of(path)?;
        xattr::set_at(&directory, name, &self.overlay_xattr("whiteout"), b"y").entry(path)?;
        self.marked.insert(parent(path).unwrap_or_default().to_vec());
        Ok(())
    }
}

fn uid(entry: &Entry) -> Uid {
    Uid::from_raw(entry.uid)
}

fn gid(entry: &Entry) -> Gid {
    Gid::from_raw(entry.gid)
}

fn timestamps(mtime: Time) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.seconds, tv_nsec: mtime.nanoseconds.into() },
    }
}

fn hash_hole(hasher: &mut blake3::Hasher, mut size_bytes: u64) {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    while size_bytes > 0 {
        let part = usize::try_from(size_bytes).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(ZEROS.get(..part).unwrap_or_default());
        size_bytes -= part as u64;
    }
}
