//! What a step changed: an overlay's upper directory becomes a layer.
//!
//! The upper directory is already what overlayfs wants of a lower one, so nothing is copied: it is walked, put in
//! order where it says more than the layer should (mount points, overlay's own attributes, whiteouts of nothing), and
//! every file is read once for its digest and for the tar's.

use std::collections::{BTreeSet, HashMap};
use std::fs::File;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind, MergedIndex, Time, compare_paths, parent};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, Stat, Timespec, Timestamps};
use thiserror::Error;

use crate::apply::WHITEOUT_PREFIX;
use crate::ordered::{BATCH_BYTES, Sink, append, batches, hash_in_order};
use crate::write_tar::{encode_header, padding};

/// The longest attribute value that Linux allows.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Why an upper directory could not be read.
#[derive(Debug, Error)]
pub enum DiffError {
    /// A file changed while it was read: something still writes there.
    #[error("`{path}` changed while it was read")]
    Changed {
        /// Path in the layer.
        path: String,
    },
    /// A name that in a layer says that another one is gone.
    #[error("`{path}`: a layer cannot hold a file of this name, which would hide another one")]
    WhiteoutName {
        /// Path in the layer.
        path: String,
    },
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
}

/// What stands in the upper directory besides the step's changes.
#[derive(Debug, Clone, Default)]
pub struct DiffOptions {
    /// The overlay was mounted with `userxattr`.
    pub userxattr: bool,
    /// Paths that were made for mounts; dropped if they are still empty. With them go parents that were made for them.
    pub mount_points: Vec<Vec<u8>>,
    /// The time that the lower tree showed for everything but regular files. What still has it in the upper directory
    /// was brought there by a change of owner or mode, and keeps the time that it has in the lower tree.
    pub shown_time: Option<Time>,
    /// Which times the layer may not have; `None` when all may stay.
    pub fixed_time: Option<FixedTime>,
}

/// Takes times of the moment out of a layer, in the tree as well as in the index. What a program set to an earlier time is
/// part of what it made, and stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedTime {
    /// Later ones become `time`.
    pub later_than: Time,
    /// What they become. Directories that are there only for what is inside of them have it too, and whatever else but
    /// regular files has the time of the lower tree: no step sees that time, so a result may not depend on it.
    pub time: Time,
}

/// A layer that stands in its tree and waits to be committed.
#[derive(Debug)]
pub struct Diff {
    /// What the layer holds.
    pub index: Index,
    /// SHA-256 of the layer's tar.
    pub diff_id: [u8; 32],
    /// Length of the layer's tar.
    pub tar_size_bytes: u64,
}

/// Reads the upper directory `upper` of an overlay over `lower`, and makes it the tree of the layer that it is.
pub fn diff_upper(
    upper: BorrowedFd<'_>,
    lower: &MergedIndex,
    options: &DiffOptions,
) -> Result<Diff, DiffError> {
    let prefix: &[u8] = if options.userxattr { b"user.overlay." } else { b"trusted.overlay." };
    let mount_points = options.mount_points.iter().cloned().collect();
    let (shown_time, fixed_time) = (options.shown_time, options.fixed_time);
    let (waiting, seen) = (Vec::new(), Vec::new());
    let mut walk = Walk { upper, lower, prefix, mount_points, shown_time, fixed_time, waiting, seen };
    walk.waiting.push(Waiting { path: Vec::new(), sees_lower: true });
    while let Some(directory) = walk.waiting.pop() {
        walk.directory(&directory)?;
    }
    let mut entries = settle(upper, walk.seen)?;
    if let Some(fixed) = fixed_time {
        fix_times(upper, &mut entries, fixed)?;
    }
    restore_times(upper, &entries)?;
    let batches = batches(entries.iter());
    let hashed = hash_in_order(&batches, || (), |(), batch, sink| read_batch(upper, &entries, batch, sink))?;
    for (position, digest) in hashed.done {
        if let Kind::File { content, .. } = &mut entries[position].kind {
            *content = Some(digest);
        }
    }
    Ok(Diff {
        index: Index::from_sorted(entries),
        diff_id: hashed.diff_id,
        tar_size_bytes: hashed.size_bytes,
    })
}

/// Replaces times that are too late. Directories get theirs on disk with all others, at the end.
fn fix_times(upper: BorrowedFd<'_>, entries: &mut [Entry], fixed: FixedTime) -> Result<(), DiffError> {
    let time = Timespec { tv_sec: fixed.time.seconds, tv_nsec: i64::from(fixed.time.nanoseconds) };
    let times = Timestamps { last_access: time, last_modification: time };
    // Neighbours in the index mostly stand together.
    let mut directory: Option<(Vec<u8>, OwnedFd)> = None;
    for entry in entries {
        let has_time = !matches!(entry.kind, Kind::Hardlink { .. } | Kind::Whiteout);
        // What has the time already was given it in the index alone.
        if !has_time || (entry.mtime <= fixed.later_than && entry.mtime != fixed.time) {
            continue;
        }
        entry.mtime = fixed.time;
        if entry.is_directory() {
            continue;
        }
        let parent = entry.parent().unwrap_or_default();
        let directory = match &mut directory {
            Some((known, directory)) if known == parent => directory,
            other => &mut other.insert((parent.to_vec(), open_directory(upper, parent)?)).1,
        };
        rustix::fs::utimensat(directory, entry.name(), &times, AtFlags::SYMLINK_NOFOLLOW)
            .at("utimensat", path(&entry.path))?;
    }
    Ok(())
}

/// Gives directories the time that the layer's tar has for them, so that the image is the same here and where it is loaded.
/// Last of all: what was removed on the way has changed them.
fn restore_times(upper: BorrowedFd<'_>, entries: &[Entry]) -> Result<(), DiffError> {
    for entry in entries {
        if entry.is_directory() {
            let time = Timespec { tv_sec: entry.mtime.seconds, tv_nsec: i64::from(entry.mtime.nanoseconds) };
            let times = Timestamps { last_access: time, last_modification: time };
            let directory = open_directory(upper, &entry.path)?;
            rustix::fs::futimens(&directory, &times).at("futimens", path(&entry.path))?;
        }
    }
    Ok(())
}

/// Puts what was seen in order, makes hard links of further names, and drops directories that say nothing.
fn settle(upper: BorrowedFd<'_>, mut seen: Vec<Seen>) -> Result<Vec<Entry>, DiffError> {
    seen.sort_unstable_by(|a, b| compare_paths(&a.entry.path, &b.entry.path));
    let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
    for Seen { entry, inode, .. } in &mut seen {
        let Some(inode) = *inode else { continue };
        match first_names.get(&inode) {
            Some(first) => {
                *entry = bare(std::mem::take(&mut entry.path), Kind::Hardlink { target: first.clone() })
            }
            None => {
                first_names.insert(inode, entry.path.clone());
            }
        }
    }
    // From the end, so that whether anything inside a directory was kept is known when its turn comes.
    let mut kept: Vec<Entry> = Vec::with_capacity(seen.len());
    for Seen { entry, drop_if_empty, .. } in seen.into_iter().rev() {
        let is_inside = |inner: &Entry| inner.path.starts_with(&[entry.path.as_slice(), b"/"].concat());
        if drop_if_empty && !kept.last().is_some_and(is_inside) {
            remove_directory(upper, &entry.path)?;
        } else {
            kept.push(entry);
        }
    }
    kept.reverse();
    Ok(kept)
}

fn remove_directory(upper: BorrowedFd<'_>, path: &[u8]) -> Result<(), DiffError> {
    let directory = open_directory(upper, parent(path).unwrap_or_default())?;
    let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or(path);
    Ok(rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR).at("unlinkat", self::path(path))?)
}

/// Headers and contents of a batch, with the digest of each file.
fn read_batch(
    upper: BorrowedFd<'_>,
    entries: &[Entry],
    batch: std::ops::Range<usize>,
    sink: &Sink<'_>,
) -> Result<Vec<(usize, [u8; 32])>, DiffError> {
    let mut bytes = sink.buffer();
    let mut done = Vec::new();
    for position in batch {
        let entry = &entries[position];
        let first = match &entry.kind {
            Kind::Hardlink { target } => entries
                .binary_search_by(|entry| compare_paths(&entry.path, target))
                .ok()
                .map(|at| &entries[at]),
            _ => None,
        };
        encode_header(entry, first, &mut bytes);
        let Kind::File { size, .. } = entry.kind else { continue };
        let mut hasher = blake3::Hasher::new();
        if size > 0 {
            let changed = || DiffError::Changed { path: text(&entry.path) };
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = File::from(open(upper, &entry.path, flags)?);
            let mut left = size;
            while left > 0 {
                let take = left.min(BATCH_BYTES);
                let start = bytes.len();
                // The index and the tree must agree on the length, or the layer could never be written as tar again.
                let is_last = take == left;
                if !append(&file, &mut bytes, take as usize, is_last).at("read", path(&entry.path))? {
                    return Err(changed());
                }
                hasher.update(&bytes[start..]);
                left -= take;
                if left > 0 || bytes.len() as u64 > BATCH_BYTES {
                    sink.send(std::mem::replace(&mut bytes, sink.buffer()));
                }
            }
            bytes.resize(bytes.len() + padding(size), 0);
        }
        done.push((position, *hasher.finalize().as_bytes()));
    }
    sink.send(bytes);
    Ok(done)
}

struct Walk<'a> {
    upper: BorrowedFd<'a>,
    lower: &'a MergedIndex,
    /// Of overlay's own attributes.
    prefix: &'static [u8],
    mount_points: BTreeSet<Vec<u8>>,
    shown_time: Option<Time>,
    fixed_time: Option<FixedTime>,
    /// Directories still to be read: no recursion, because a step may leave a tree as deep as a path can be.
    waiting: Vec<Waiting>,
    /// In no order.
    seen: Vec<Seen>,
}

/// A directory that is still to be read.
struct Waiting {
    path: Vec<u8>,
    /// Whether lower layers' entries of the same paths show through; not inside an opaque directory.
    sees_lower: bool,
}

/// An entry of the upper directory.
struct Seen {
    entry: Entry,
    /// Device and inode of a file that has several names.
    inode: Option<(u64, u64)>,
    /// A directory that is of no interest by itself.
    drop_if_empty: bool,
}

/// Attributes of a file: those that belong to it, and what overlay noted.
#[derive(Default)]
struct Attributes {
    own: Vec<(Vec<u8>, Vec<u8>)>,
    opaque: bool,
    whiteout: bool,
    /// Names of overlay's notes about where the file came from, which mean nothing in a lower layer.
    notes: Vec<Vec<u8>>,
}

impl Walk<'_> {
    fn directory(&mut self, Waiting { path, sees_lower }: &Waiting) -> Result<(), DiffError> {
        let directory = open_directory(self.upper, path)?;
        for entry in Dir::read_from(&directory).at("getdents64", self::path(path))? {
            let entry = entry.at("getdents64", self::path(path))?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let mut child = path.to_vec();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name.to_bytes());
            let stat = rustix::fs::statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW)
                .at("newfstatat", self::path(&child))?;
            self.entry(child, name.to_bytes(), &directory, &stat, *sees_lower)?;
        }
        Ok(())
    }

    fn push(&mut self, entry: Entry) {
        self.seen.push(Seen { entry, inode: None, drop_if_empty: false });
    }

    fn entry(
        &mut self,
        path: Vec<u8>,
        name: &[u8],
        directory: &OwnedFd,
        stat: &Stat,
        sees_lower: bool,
    ) -> Result<(), DiffError> {
        let remove =
            || rustix::fs::unlinkat(directory, name, AtFlags::empty()).at("unlinkat", self::path(&path));
        let lower = self.lower.get(&path).filter(|_| sees_lower);
        let kind = FileType::from_raw_mode(stat.st_mode);
        let is_whiteout = kind == FileType::CharacterDevice && stat.st_rdev == 0;
        let is_mount_point = self.mount_points.contains(&path);
        if kind == FileType::Socket || (is_mount_point && kind == FileType::RegularFile && stat.st_size == 0)
        {
            remove()?;
            if lower.is_some() {
                // What the socket replaced must not come back.
                rustix::fs::mknodat(directory, name, FileType::CharacterDevice, Mode::empty(), 0)
                    .at("mknodat", self::path(&path))?;
                self.push(bare(path, Kind::Whiteout));
            }
            return Ok(());
        }
        let attributes =
            if is_whiteout { Attributes::default() } else { self.attributes(directory, name, &path)? };
        if is_whiteout || attributes.whiteout {
            match lower {
                Some(_) => self.push(bare(path, Kind::Whiteout)),
                None => remove()?,
            }
            return Ok(());
        }
        if name.starts_with(WHITEOUT_PREFIX) {
            return Err(DiffError::WhiteoutName { path: self::path(&path).display().to_string() });
        }
        let mut entry = Entry {
            path,
            kind: Kind::Fifo,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { seconds: stat.st_mtime, nanoseconds: 0 },
            xattrs: attributes.own,
        };
        let mut inode = None;
        if kind != FileType::RegularFile
            && let Some(lower) = lower
            && (self.shown_time == Some(entry.mtime) || lower.mtime.seconds == entry.mtime.seconds)
        {
            entry.mtime = self.time_of_lower(lower);
        }
        entry.kind = match kind {
            FileType::RegularFile => {
                inode = (stat.st_nlink > 1).then_some((stat.st_dev, stat.st_ino));
                Kind::File { size: stat.st_size as u64, content: None }
            }
            FileType::Directory => {
                let lower = lower.filter(|lower| lower.is_directory()).cloned();
                return self.add_directory(entry, attributes.opaque, is_mount_point, sees_lower, lower);
            }
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .at("readlinkat", self::path(&entry.path))?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::CharacterDevice => Kind::CharDevice { rdev: numbers(stat.st_rdev) },
            FileType::BlockDevice => Kind::BlockDevice { rdev: numbers(stat.st_rdev) },
            _ => Kind::Fifo,
        };
        self.seen.push(Seen { entry, inode, drop_if_empty: false });
        Ok(())
    }

    /// The time of what has that of the lower tree.
    fn time_of_lower(&self, lower: &Entry) -> Time {
        match self.fixed_time {
            Some(fixed) => fixed.time,
            None => Time { seconds: lower.mtime.seconds, nanoseconds: 0 },
        }
    }

    /// `lower` is the directory below that this one is merged with or hides.
    fn add_directory(
        &mut self,
        mut entry: Entry,
        opaque: bool,
        is_mount_point: bool,
        sees_lower: bool,
        lower: Option<Entry>,
    ) -> Result<(), DiffError> {
        // Without a directory below there is nothing to hide.
        let hides = opaque && lower.is_some();
        if opaque && !hides {
            let own = open_directory(self.upper, &entry.path)?;
            let name = [self.prefix, b"opaque"].concat();
            rustix::fs::fremovexattr(&own, name.as_slice()).at("fremovexattr", path(&entry.path))?;
        }
        let implied = lower.filter(|_| !hides).is_some_and(|lower| {
            let equal = (lower.mode, lower.uid, lower.gid) == (entry.mode, entry.uid, entry.gid)
                && lower.xattrs == entry.xattrs;
            if equal {
                entry.mtime = self.time_of_lower(&lower);
            }
            equal
        });
        entry.kind = Kind::Directory { opaque: hides, implied };
        self.waiting.push(Waiting { path: entry.path.clone(), sees_lower: sees_lower && !hides });
        self.seen.push(Seen { entry, inode: None, drop_if_empty: implied || (is_mount_point && !hides) });
        Ok(())
    }

    /// Reads the extended attributes of `name`, and removes what overlay noted for itself.
    fn attributes(&self, directory: &OwnedFd, name: &[u8], path: &[u8]) -> Result<Attributes, DiffError> {
        // There are no *at calls for attributes before Linux 6.13; the magic link leads to the directory itself.
        let place = [format!("/proc/self/fd/{}/", directory.as_raw_fd()).as_bytes(), name].concat();
        let mut attributes = Attributes::default();
        let mut names = [0_u8; 1024];
        let names = match rustix::fs::llistxattr(place.as_slice(), &mut names) {
            Ok(length) => names[..length].to_vec(),
            Err(rustix::io::Errno::NOTSUP) => return Ok(attributes),
            Err(rustix::io::Errno::RANGE) => {
                let mut names = vec![0; XATTR_BYTES_MAX];
                let length = rustix::fs::llistxattr(place.as_slice(), &mut names[..])
                    .at("llistxattr", self::path(path))?;
                names.truncate(length);
                names
            }
            Err(error) => return Err(mica_sys::Error::new("llistxattr", self::path(path), error).into()),
        };
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            if let Some(note) = name.strip_prefix(self.prefix) {
                match note {
                    // `x` says that the directory holds whiteouts in attribute form, and hides nothing.
                    b"opaque" => {
                        let mut value = [0; 1];
                        let length = rustix::fs::lgetxattr(place.as_slice(), name, &mut value[..])
                            .at("lgetxattr", self::path(path))?;
                        attributes.opaque = value[..length] == *b"y";
                    }
                    b"whiteout" => attributes.whiteout = true,
                    _ => attributes.notes.push(name.to_vec()),
                }
                continue;
            }
            // A PAX record cannot hold a name with `=`. The security module's own labels belong to this machine, marks for overlayfs to nobody.
            if name == b"security.selinux"
                || name.starts_with(b"trusted.")
                || name.starts_with(b"user.overlay.")
                || name.contains(&b'=')
            {
                continue;
            }
            let mut value = vec![0; XATTR_BYTES_MAX];
            let length = rustix::fs::lgetxattr(place.as_slice(), name, &mut value[..])
                .at("lgetxattr", self::path(path))?;
            value.truncate(length);
            attributes.own.push((name.to_vec(), value));
        }
        attributes.own.sort();
        for note in &attributes.notes {
            rustix::fs::lremovexattr(place.as_slice(), note.as_slice())
                .at("lremovexattr", self::path(path))?;
        }
        Ok(attributes)
    }
}

/// An entry whose attributes mean nothing.
fn bare(path: Vec<u8>, kind: Kind) -> Entry {
    Entry { path, kind, mode: 0, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

fn numbers(rdev: u64) -> (u32, u32) {
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

fn open(upper: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> mica_sys::Result<OwnedFd> {
    let name = if path.is_empty() { b".".as_slice() } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(upper, name, flags, Mode::empty(), resolve).at("openat2", self::path(path))
}

fn open_directory(upper: BorrowedFd<'_>, path: &[u8]) -> mica_sys::Result<OwnedFd> {
    open(upper, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC)
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn path(path: &[u8]) -> PathBuf {
    text(path).into()
}
