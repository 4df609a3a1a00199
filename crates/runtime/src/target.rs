//! Finding, and if need be creating, the place in the container's root where something is mounted.
//!
//! A path of the image may be a symlink, also a dangling one (/etc/resolv.conf often is): it is followed as the
//! container would follow it, never out of the root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use mica_sys::error::{Error, ErrorAt, Result};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use crate::{CreatedMountPoint, MountPointKind};

/// As many symlinks as the kernel follows in one path.
const SYMLINKS_MAX: usize = 40;

/// The root directory of the container while it is being set up, and what was created in it.
pub(crate) struct Root {
    fd: OwnedFd,
    device: u64,
    pub created: Vec<CreatedMountPoint>,
}

impl Root {
    pub fn new(fd: OwnedFd) -> Result<Self> {
        let device = rustix::fs::fstat(&fd).at("fstat", "/")?.st_dev;
        Ok(Self { fd, device, created: Vec::new() })
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Opens what is at `path`, following symlinks inside the root.
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd> {
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        rustix::fs::openat2(&self.fd, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
            .at("openat2", path)
    }

    /// The place at `path` to mount something of `kind` on, created if it is not there.
    pub fn place(&mut self, path: &str, kind: MountPointKind) -> Result<OwnedFd> {
        match self.open(path, OFlags::PATH) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => self.create(path, kind),
            other => other,
        }
    }

    fn create(&mut self, path: &str, kind: MountPointKind) -> Result<OwnedFd> {
        let mut remaining: VecDeque<OsString> = components(Path::new(path));
        // Directories from the root down to where the walk is, with their names: `..` goes back along them.
        let mut walked: Vec<(OsString, OwnedFd)> = Vec::new();
        let mut symlinks = 0;
        while let Some(name) = remaining.pop_front() {
            if name == ".." {
                walked.pop();
                continue;
            }
            let parent = walked.last().map_or(self.fd.as_fd(), |(_, fd)| fd.as_fd());
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let entry = match rustix::fs::openat(parent, name.as_os_str(), flags, Mode::empty()) {
                Ok(entry) => entry,
                Err(Errno::NOENT) => {
                    let last = remaining.is_empty();
                    let kind = if last { kind } else { MountPointKind::Directory };
                    create_entry(parent, &name, kind).at("create mount point", path)?;
                    if rustix::fs::fstat(parent).at("fstat", path)?.st_dev == self.device {
                        let path = walked.iter().map(|(name, _)| name).chain([&name]).collect::<PathBuf>();
                        self.created.push(CreatedMountPoint { path: Path::new("/").join(path), kind });
                    }
                    rustix::fs::openat(parent, name.as_os_str(), flags, Mode::empty()).at("openat", path)?
                }
                Err(error) => return Err(Error::new("openat", path, error)),
            };
            let file_type = FileType::from_raw_mode(rustix::fs::fstat(&entry).at("fstat", path)?.st_mode);
            if file_type == FileType::Symlink {
                symlinks += 1;
                if symlinks > SYMLINKS_MAX {
                    return Err(Error::new("openat", path, Errno::LOOP));
                }
                let link = rustix::fs::readlinkat(&entry, "", Vec::new()).at("readlinkat", path)?;
                let link = PathBuf::from(OsString::from_vec(link.into_bytes()));
                if link.is_absolute() {
                    walked.clear();
                }
                for name in components(&link).into_iter().rev() {
                    remaining.push_front(name);
                }
                continue;
            }
            if remaining.is_empty() {
                return Ok(entry);
            }
            walked.push((name, entry));
        }
        // Only `..` and nothing: the place is where the walk ended.
        match walked.pop() {
            Some((_, fd)) => Ok(fd),
            None => self.open(".", OFlags::PATH),
        }
    }
}

fn components(path: &Path) -> VecDeque<OsString> {
    path.as_os_str()
        .as_bytes()
        .split(|byte| *byte == b'/')
        .filter(|name| !name.is_empty() && *name != b".")
        .map(|name| OsStr::from_bytes(name).to_owned())
        .collect()
}

fn create_entry(parent: impl AsFd, name: &OsStr, kind: MountPointKind) -> rustix::io::Result<()> {
    match kind {
        MountPointKind::Directory => rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)),
        MountPointKind::File => {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o644)).map(drop)
        }
    }
}

/// Whether what `fd` stands for is a directory.
pub(crate) fn is_directory(fd: impl AsFd) -> bool {
    rustix::fs::statat(fd, "", AtFlags::EMPTY_PATH)
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}
