//! What images show, as files in a directory of the caller's.
//!
//! The image decides what stands there, so nothing of it is trusted: every path is opened beneath one handle of the
//! destination, links that are there already are followed only where they stay inside, and everything appears under its name
//! by a rename. A destination that is new appears whole.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use mica_sys::atomic_file::random_hex;
use mica_sys::dir_at::{bytes_path, read_names, remove_all};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Flat, Kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;

use super::files::{copy_file, size_of};
use super::{ExportContext, ExportError, FileTree};
use crate::error::Result;
use crate::remake::Stack;

/// What happens to what is in the destination and not in the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LocalMode {
    /// It stays.
    #[default]
    Copy,
    /// It goes.
    Delete,
}

/// What was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LocalWritten {
    /// How long the files together are.
    pub size_bytes: u64,
    /// How many devices there are in the image, which are no files.
    pub devices: usize,
}

/// Permission bits that are taken over. Set-ID bits are not: the files are the caller's, and programs of an image must not
/// run with the caller's rights for others.
const MODE_MASK: u32 = 0o1777;

/// Writes the files of images into the directory `into`, as the caller's own.
pub fn write_local(
    context: &ExportContext<'_>,
    files: &FileTree,
    into: &Path,
    mode: LocalMode,
) -> Result<LocalWritten> {
    if std::fs::symlink_metadata(into).is_ok() {
        let written = write_into(context, files, into, mode)?;
        if mode == LocalMode::Delete {
            delete_others(context, files, into)?;
        }
        return Ok(written);
    }
    let parent = match into.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).at("mkdir", parent)?;
    let part = beside(parent, into)?;
    std::fs::create_dir(&part).at("mkdir", &part)?;
    let written = write_into(context, files, &part, mode).and_then(|written| {
        std::fs::rename(&part, into).at("rename", into).map(|()| written).map_err(Into::into)
    });
    if written.is_err()
        && let (Ok(parent), Some(name)) = (open(parent), part.file_name())
    {
        // The first error is the one to tell.
        let _ = remove_all(parent, name.as_encoded_bytes());
    }
    written
}

fn beside(parent: &Path, into: &Path) -> Result<PathBuf> {
    let mut name = OsString::from(".");
    name.push(into.file_name().unwrap_or_default());
    name.push(format!(".{}", random_hex(6)?));
    Ok(parent.join(name))
}

fn open(path: &Path) -> mica_sys::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).at("open", path)
}

fn write_into(
    context: &ExportContext<'_>,
    files: &FileTree,
    into: &Path,
    mode: LocalMode,
) -> Result<LocalWritten> {
    let root = open(into)?;
    let mut written = LocalWritten::default();
    for (stack, flat) in &files.stacks {
        let mut writer = Writer { root: root.as_fd(), into, stack, mode, parent: None };
        for Flat { entry, position } in flat.iter().filter(|flat| !flat.entry.path.is_empty()) {
            context.check()?;
            match (&entry.kind, position) {
                (Kind::CharDevice { .. } | Kind::BlockDevice { .. }, _) => written.devices += 1,
                (Kind::Directory { .. }, _) => writer.directory(entry)?,
                (kind, position) => writer.node(entry, kind, *position)?,
            }
            written.size_bytes += size_of(entry);
        }
        // Last, and from the inside out: making entries changes times, and the final mode may forbid it.
        for Flat { entry, .. } in flat.iter().rev() {
            if entry.is_directory() && !entry.path.is_empty() {
                writer.finish(entry)?;
            }
        }
    }
    Ok(written)
}

struct Writer<'a> {
    root: std::os::fd::BorrowedFd<'a>,
    into: &'a Path,
    stack: &'a Stack,
    mode: LocalMode,
    /// The directory of the last entry: neighbours mostly stand together.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Writer<'_> {
    fn shown(&self, path: &[u8]) -> String {
        self.into.join(bytes_path(path)).display().to_string()
    }

    fn failed(&self, path: &[u8], source: impl Into<io::Error>) -> ExportError {
        ExportError::Write { path: self.shown(path), source: source.into() }
    }

    /// A directory beneath the root; links on the way are followed while they stay inside.
    fn open(&self, path: &[u8]) -> std::result::Result<OwnedFd, Errno> {
        let name = if path.is_empty() { b".".as_slice() } else { path };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(self.root, name, flags, Mode::empty(), resolve)
    }

    fn open_or_tell(&self, path: &[u8]) -> Result<OwnedFd> {
        self.open(path).map_err(|error| match error {
            Errno::XDEV => ExportError::LeadsOutside { path: self.shown(path) }.into(),
            error => self.failed(path, error).into(),
        })
    }

    fn parent(&mut self, entry: &Entry) -> Result<OwnedFd> {
        let path = entry.parent().unwrap_or_default();
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            self.parent = Some((path.to_vec(), self.open_or_tell(path)?));
        }
        match &self.parent {
            Some((_, directory)) => Ok(directory.try_clone().at("dup", self.shown(path))?),
            None => Err(self.failed(path, Errno::NOENT).into()),
        }
    }

    fn directory(&mut self, entry: &Entry) -> Result<()> {
        let parent = self.parent(entry)?;
        let make = || rustix::fs::mkdirat(&parent, entry.name(), Mode::from_raw_mode(0o700));
        match make() {
            Err(Errno::EXIST) => {}
            made => return made.map_err(|error| self.failed(&entry.path, error).into()),
        }
        // What it leads to is not in the result, and would go.
        if self.mode == LocalMode::Delete && self.is_link(&parent, entry.name()) {
            return rustix::fs::unlinkat(&parent, entry.name(), AtFlags::empty())
                .and_then(|()| make())
                .map_err(|error| self.failed(&entry.path, error).into());
        }
        match self.open(&entry.path) {
            // It may forbid its owner to write; it gets its own mode in the end.
            Ok(directory) => {
                let _ = rustix::fs::fchmod(&directory, Mode::from_raw_mode(0o700));
                Ok(())
            }
            // No directory, or a link to nothing: it gives way.
            Err(Errno::NOTDIR | Errno::NOENT) => {
                rustix::fs::unlinkat(&parent, entry.name(), AtFlags::empty())
                    .and_then(|()| make())
                    .map_err(|error| self.failed(&entry.path, error).into())
            }
            Err(Errno::XDEV) => Err(ExportError::LeadsOutside { path: self.shown(&entry.path) }.into()),
            Err(error) => Err(self.failed(&entry.path, error).into()),
        }
    }

    fn is_link(&self, parent: &OwnedFd, name: &[u8]) -> bool {
        rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
            .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink)
    }

    /// Anything but a directory: made under another name, then renamed.
    fn node(&mut self, entry: &Entry, kind: &Kind, position: Option<usize>) -> Result<()> {
        let parent = self.parent(entry)?;
        let part = format!(".mica-{}", random_hex(8)?).into_bytes();
        let rename = || rustix::fs::renameat(&parent, part.as_slice(), &parent, entry.name());
        let made = self.make(entry, kind, position, &parent, &part).and_then(|()| match rename() {
            Err(Errno::ISDIR) if self.mode == LocalMode::Delete => {
                remove_all(&parent, entry.name())?;
                rename().map_err(|error| self.failed(&entry.path, error).into())
            }
            Err(Errno::ISDIR) => Err(ExportError::InTheWay { path: self.shown(&entry.path) }.into()),
            renamed => renamed.map_err(|error| self.failed(&entry.path, error).into()),
        });
        if made.is_err() || matches!(kind, Kind::Hardlink { .. }) {
            // A rename over another name of the same file does nothing, and leaves both.
            let _ = rustix::fs::unlinkat(&parent, part.as_slice(), AtFlags::empty());
        }
        made
    }

    fn make(
        &self,
        entry: &Entry,
        kind: &Kind,
        position: Option<usize>,
        parent: &OwnedFd,
        part: &[u8],
    ) -> Result<()> {
        let failed = |error: Errno| self.failed(&entry.path, error);
        let mode = Mode::from_raw_mode(entry.mode & MODE_MASK);
        match (kind, position) {
            (Kind::File { size, .. }, Some(position)) => self.copy(entry, *size, position, parent, part)?,
            (Kind::Symlink { target }, _) => {
                rustix::fs::symlinkat(target.as_slice(), parent, part).map_err(failed)?;
                rustix::fs::utimensat(parent, part, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)?;
            }
            (Kind::Hardlink { target }, position) => {
                let from = self.open_or_tell(mica_tree::parent(target).unwrap_or_default())?;
                let name = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                let linked = rustix::fs::linkat(from, name, parent, part, AtFlags::empty());
                let file = position
                    .and_then(|position| Some((position, self.stack.merged.attributes_at(position)?)));
                match (linked, file) {
                    // A file system without such links, or with no more of them.
                    (Err(Errno::PERM | Errno::MLINK | Errno::OPNOTSUPP), Some((position, file))) => {
                        let own = Entry { path: entry.path.clone(), ..file.clone() };
                        self.copy(&own, size_of(file), position, parent, part)?;
                    }
                    (linked, _) => linked.map_err(failed)?,
                }
            }
            (Kind::Fifo, _) => {
                rustix::fs::mknodat(parent, part, FileType::Fifo, mode, 0).map_err(failed)?;
                rustix::fs::chmodat(parent, part, mode, AtFlags::empty()).map_err(failed)?;
                rustix::fs::utimensat(parent, part, &times(entry), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(failed)?;
            }
            _ => {}
        }
        Ok(())
    }

    fn copy(
        &self,
        entry: &Entry,
        size_bytes: u64,
        position: usize,
        parent: &OwnedFd,
        part: &[u8],
    ) -> Result<()> {
        let failed = |error: Errno| self.failed(&entry.path, error);
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(parent, part, flags, Mode::from_raw_mode(0o600)).map_err(failed)?;
        let mut file = File::from(file);
        copy_file(self.stack, position, entry, size_bytes, &mut file)
            .map_err(|failure| failure.of(|source| self.failed(&entry.path, source).into()))?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & MODE_MASK)).map_err(failed)?;
        Ok(rustix::fs::futimens(&file, &times(entry)).map_err(failed)?)
    }

    fn finish(&self, entry: &Entry) -> Result<()> {
        let directory = self.open_or_tell(&entry.path)?;
        let failed = |error: Errno| self.failed(&entry.path, error);
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(entry.mode & MODE_MASK)).map_err(failed)?;
        Ok(rustix::fs::futimens(&directory, &times(entry)).map_err(failed)?)
    }
}

fn times(entry: &Entry) -> Timestamps {
    let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

/// Removes what is in the destination and not in the result. No link is followed.
fn delete_others(context: &ExportContext<'_>, files: &FileTree, into: &Path) -> Result<()> {
    let root = open(into)?;
    let entries = files.stacks.iter().flat_map(|(_, flat)| flat).map(|flat| &flat.entry);
    let is_file = |entry: &&Entry| !matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. });
    let wanted: HashSet<&[u8]> = entries.filter(is_file).map(|entry| entry.path.as_slice()).collect();
    let mut waiting: Vec<Vec<u8>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        context.check()?;
        let name = if path.is_empty() { b".".to_vec() } else { path.clone() };
        let directory = match mica_sys::dir_at::open_directory(&root, &name) {
            Ok(directory) => directory,
            // A link to a directory inside, which is looked at where it is.
            Err(_) => continue,
        };
        for (name, kind) in read_names(&directory)? {
            let inside = if path.is_empty() { name.clone() } else { [path.as_slice(), b"/", &name].concat() };
            if !wanted.contains(inside.as_slice()) {
                remove_all(&directory, &name)?;
            } else if matches!(kind, FileType::Directory | FileType::Unknown) {
                waiting.push(inside);
            }
        }
    }
    Ok(())
}
