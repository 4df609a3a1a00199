//! A layer made from files that stand elsewhere: COPY and ADD.
//!
//! Every file is read once. From that one read come the copy in the tree, the BLAKE3 digest for the index, and the tar
//! bytes whose SHA-256 is the diff ID. Creating files is what costs (about 30 µs each on ext4), so it runs on all cores;
//! the tar has an order, so the bytes are handed to one hashing thread batch by batch.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind, Time, compare_paths, parent};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use thiserror::Error;

use crate::apply::WHITEOUT_PREFIX;
use crate::holes::write_with_holes;
use crate::ordered::{BATCH_BYTES, Sink, append, batches, hash_in_order};
use crate::write_tar::{encode_header, padding};

/// A path of the layer to be made.
#[derive(Debug, Clone)]
pub struct Item {
    /// What is to stand there. A file's size must be right; its content digest is filled in.
    pub entry: Entry,
    /// Where a file's bytes come from.
    pub source: Source,
}

/// Where a file's bytes come from.
#[derive(Debug, Clone)]
pub enum Source {
    /// The entry is not a file.
    None,
    /// A file that `open` knows by this token.
    File {
        /// Given to `open`.
        token: usize,
        /// Whether the extended attributes of the open file are to be taken over.
        read_xattrs: bool,
    },
    /// These bytes.
    Bytes(Arc<[u8]>),
}

/// A layer that stands in its tree and waits to be committed.
#[derive(Debug)]
pub struct Assembled {
    /// What the layer holds.
    pub index: Index,
    /// SHA-256 of the layer's tar.
    pub diff_id: [u8; 32],
    /// Length of the layer's tar.
    pub tar_size_bytes: u64,
}

/// Why a layer could not be made.
#[derive(Debug, Error)]
pub enum AssembleError {
    /// A source is not as long as it was a moment ago.
    #[error("`{path}` changed while it was copied: expected {expected_bytes} bytes")]
    Changed {
        /// Path in the layer.
        path: String,
        /// Length when it was looked at first.
        expected_bytes: u64,
    },
    /// The source could not be opened.
    #[error("cannot read the source of `{path}`: {source}")]
    Source {
        /// Path in the layer.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// An entry stands below something that is not a directory.
    #[error("`{path}` stands in no directory of the layer")]
    NoParent {
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

/// How the tree is to be written.
#[derive(Debug, Clone, Copy, Default)]
pub struct AssembleOptions {
    /// Inside a user namespace: overlay attributes are `user.overlay.*`, device nodes become empty files.
    pub rootless: bool,
}

/// Opens sources by token.
pub type OpenSource<'a> = dyn Fn(usize) -> io::Result<File> + Sync + 'a;

/// Makes the layer that holds exactly `items` (in index order, every path below a directory among them or at the top)
/// in the empty directory `tree`. An item with the empty path is the root itself: it is set on the tree and kept in the
/// index.
pub fn assemble(
    tree: BorrowedFd<'_>,
    mut items: Vec<Item>,
    open: &OpenSource<'_>,
    options: AssembleOptions,
) -> Result<Assembled, AssembleError> {
    for item in &mut items {
        if item.entry.name().starts_with(WHITEOUT_PREFIX) {
            let path = String::from_utf8_lossy(&item.entry.path).into_owned();
            return Err(AssembleError::WhiteoutName { path });
        }
        // A tar holds no more, and a layer must be the same whether it was built here or pulled.
        item.entry.mtime.nanoseconds = 0;
    }
    let setter = Setter::new(tree, options)?;
    make_directories(tree, &items)?;
    let batches = batches(items.iter().map(|item| &item.entry));
    let hashed = hash_in_order(
        &batches,
        || Worker { tree, open, setter, parent: None },
        |worker, batch, sink| worker.batch(&items, batch, sink),
    )?;
    for done in hashed.done {
        if let Kind::File { content, .. } = &mut items[done.position].entry.kind {
            *content = Some(done.content);
        }
        if let Some(xattrs) = done.xattrs {
            items[done.position].entry.xattrs = xattrs;
        }
    }
    make_links(tree, &items)?;
    finish_directories(tree, &items, setter)?;
    let entries = items.into_iter().map(|item| item.entry).collect();
    Ok(Assembled {
        index: Index::from_sorted(entries),
        diff_id: hashed.diff_id,
        tar_size_bytes: hashed.size_bytes,
    })
}

/// What a worker learnt of a file.
struct Done {
    position: usize,
    content: [u8; 32],
    xattrs: Option<Vec<(Vec<u8>, Vec<u8>)>>,
}

fn file_size(entry: &Entry) -> u64 {
    match entry.kind {
        Kind::File { size, .. } => size,
        _ => 0,
    }
}

struct Worker<'a> {
    tree: BorrowedFd<'a>,
    open: &'a OpenSource<'a>,
    setter: Setter,
    /// The directory of the last file: neighbours in the index mostly stand together.
    parent: Option<(Vec<u8>, OwnedFd)>,
}

impl Worker<'_> {
    fn batch(
        &mut self,
        items: &[Item],
        batch: std::ops::Range<usize>,
        sink: &Sink<'_>,
    ) -> Result<Vec<Done>, AssembleError> {
        let mut done = Vec::new();
        let mut bytes = sink.buffer();
        for position in batch {
            let item = &items[position];
            match (&item.entry.kind, &item.source) {
                (Kind::File { .. }, _) => done.push(self.file(position, item, &mut bytes, sink)?),
                (Kind::Socket, _) => {}
                (Kind::Hardlink { target }, _) => {
                    let first = items.binary_search_by(|item| compare_paths(&item.entry.path, target)).ok();
                    encode_header(&item.entry, first.map(|first| &items[first].entry), &mut bytes);
                }
                (Kind::Directory { .. }, _) => encode_header(&item.entry, None, &mut bytes),
                _ => {
                    self.make_node(&item.entry)?;
                    encode_header(&item.entry, None, &mut bytes);
                }
            }
        }
        sink.send(bytes);
        Ok(done)
    }

    fn file(
        &mut self,
        position: usize,
        item: &Item,
        bytes: &mut Vec<u8>,
        sink: &Sink<'_>,
    ) -> Result<Done, AssembleError> {
        let entry = &item.entry;
        let size = file_size(entry);
        let changed = || AssembleError::Changed { path: display(&entry.path), expected_bytes: size };
        let failed = |source| AssembleError::Source { path: display(&entry.path), source };
        let file = match &item.source {
            Source::File { token, .. } => Some((self.open)(*token).map_err(failed)?),
            _ => None,
        };
        let xattrs = match (&file, &item.source) {
            (Some(file), Source::File { read_xattrs: true, .. }) => {
                let xattrs = mica_sys::xattr::read_portable(file)?;
                (!xattrs.is_empty()).then_some(xattrs)
            }
            _ => None,
        };
        match &xattrs {
            Some(xattrs) => encode_header(&Entry { xattrs: xattrs.clone(), ..entry.clone() }, None, bytes),
            None => encode_header(entry, None, bytes),
        }
        let has_mode = xattrs.is_none() && self.setter.creates_with_mode(entry);
        let target = self.create(entry, if has_mode { entry.mode } else { 0o600 })?;
        let mut hasher = blake3::Hasher::new();
        let mut left = size;
        let mut ends_in_hole = false;
        let write = |bytes: &[u8]| write_with_holes(&target, bytes).at("write", display(&entry.path));
        if let Source::Bytes(content) = &item.source {
            if content.len() as u64 != size {
                return Err(changed());
            }
            hasher.update(content);
            ends_in_hole = write(content)?;
            bytes.extend_from_slice(content);
            left = 0;
        }
        if let Some(file) = &file {
            loop {
                let take = left.min(BATCH_BYTES) as usize;
                let start = bytes.len();
                // A file that grew is as wrong as one that shrank.
                let is_last = take as u64 == left;
                if !append(file, bytes, take, is_last).map_err(failed)? {
                    return Err(changed());
                }
                hasher.update(&bytes[start..]);
                ends_in_hole = write(&bytes[start..])? || (ends_in_hole && bytes.len() == start);
                left -= take as u64;
                if is_last {
                    break;
                }
                sink.send(std::mem::replace(bytes, sink.buffer()));
            }
        }
        if left > 0 {
            return Err(changed());
        }
        if ends_in_hole {
            rustix::fs::ftruncate(&target, size).at("ftruncate", display(&entry.path))?;
        }
        bytes.resize(bytes.len() + padding(size), 0);
        match has_mode {
            true => set_time(target.as_fd(), entry)?,
            false => self.setter.set(target.as_fd(), entry, xattrs.as_ref().unwrap_or(&entry.xattrs))?,
        }
        Ok(Done { position, content: *hasher.finalize().as_bytes(), xattrs })
    }

    fn create(&mut self, entry: &Entry, mode: u32) -> Result<OwnedFd, AssembleError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let parent = self.parent(entry)?;
        Ok(rustix::fs::openat(parent, entry.name(), flags, Mode::from_raw_mode(mode))
            .at("openat", display(&entry.path))?)
    }

    fn parent(&mut self, entry: &Entry) -> Result<BorrowedFd<'_>, AssembleError> {
        let path = entry.parent().unwrap_or_default();
        if path.is_empty() {
            return Ok(self.tree);
        }
        if self.parent.as_ref().is_none_or(|(known, _)| known != path) {
            self.parent = None;
            let directory = open_directory(self.tree, path)
                .map_err(|_| AssembleError::NoParent { path: display(&entry.path) })?;
            self.parent = Some((path.to_vec(), directory));
        }
        match &self.parent {
            Some((_, directory)) => Ok(directory.as_fd()),
            None => Err(AssembleError::NoParent { path: display(&entry.path) }),
        }
    }

    fn make_node(&mut self, entry: &Entry) -> Result<(), AssembleError> {
        let setter = self.setter;
        let parent = self.parent(entry)?;
        make_node(parent, entry, setter)?;
        Ok(())
    }
}

/// Makes a link, pipe, device or whiteout named by the last component of `entry` in `parent`.
fn make_node(parent: BorrowedFd<'_>, entry: &Entry, setter: Setter) -> mica_sys::Result<()> {
    use rustix::fs::{FileType, mknodat};
    let name = entry.name();
    let path = || display(&entry.path);
    let mode = Mode::from_raw_mode(entry.mode);
    let make = |kind, mode, device| mknodat(parent, name, kind, mode, device).at("mknodat", path());
    match &entry.kind {
        Kind::Symlink { target } => {
            rustix::fs::symlinkat(target.as_slice(), parent, name).at("symlinkat", path())?;
        }
        Kind::Whiteout => return make(FileType::CharacterDevice, Mode::empty(), 0),
        Kind::Fifo => make(FileType::Fifo, mode, 0)?,
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } if setter.rootless => {
            // Not to be had in a user namespace; the index keeps the truth.
            make(FileType::RegularFile, mode, 0)?;
        }
        Kind::CharDevice { rdev } => {
            make(FileType::CharacterDevice, mode, rustix::fs::makedev(rdev.0, rdev.1))?;
        }
        Kind::BlockDevice { rdev } => {
            make(FileType::BlockDevice, mode, rustix::fs::makedev(rdev.0, rdev.1))?;
        }
        _ => return Ok(()),
    }
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    rustix::fs::chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
        .at("fchownat", path())?;
    if !matches!(entry.kind, Kind::Symlink { .. }) {
        // After chown, which clears set-id bits; mknod also applied the umask.
        rustix::fs::chmodat(parent, name, mode, AtFlags::empty()).at("fchmodat", path())?;
    }
    for (xattr_name, value) in &entry.xattrs {
        setter.tolerate(mica_sys::xattr::set_at(parent, name, xattr_name, value))?;
    }
    rustix::fs::utimensat(parent, name, &timestamps(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
        .at("utimensat", path())
}

/// Sets owner, mode, extended attributes and time.
#[derive(Debug, Clone, Copy)]
struct Setter {
    rootless: bool,
    /// Who owns what this process makes in the tree; `None` if a set-group-ID bit above or a mount option decides.
    maker: Option<(u32, u32)>,
    /// Permission bits that a new file does not get; `None` if an access list decides instead.
    umask: Option<u32>,
}

impl Setter {
    fn new(tree: BorrowedFd<'_>, options: AssembleOptions) -> mica_sys::Result<Self> {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let inherited = rustix::fs::fstat(tree).at("fstat", ".")?.st_gid;
        let list = mica_sys::xattr::get(tree, b"system.posix_acl_default")?;
        Ok(Self {
            rootless: options.rootless,
            maker: (inherited == gid).then_some((uid, gid)),
            umask: if list.is_none() { umask() } else { None },
        })
    }

    /// Whether a file that is created with the mode of `entry` lacks nothing but its content and time.
    fn creates_with_mode(self, entry: &Entry) -> bool {
        self.maker == Some((entry.uid, entry.gid))
            && entry.xattrs.is_empty()
            && self.umask.is_some_and(|umask| entry.mode & (umask | !0o777) == 0)
    }

    fn set(self, fd: BorrowedFd<'_>, entry: &Entry, xattrs: &[(Vec<u8>, Vec<u8>)]) -> mica_sys::Result<()> {
        let path = || display(&entry.path);
        if self.maker != Some((entry.uid, entry.gid)) || entry.path.is_empty() {
            rustix::fs::fchown(fd, Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
                .at("fchown", path())?;
        }
        // After chown, which clears set-id bits and capabilities.
        rustix::fs::fchmod(fd, Mode::from_raw_mode(entry.mode)).at("fchmod", path())?;
        for (name, value) in xattrs {
            self.tolerate(mica_sys::xattr::set(fd, name, value))?;
        }
        set_time(fd, entry)
    }

    /// As when a tar is applied: what the file system or a user namespace cannot hold stays in the index alone.
    fn tolerate(self, answer: mica_sys::Result<()>) -> mica_sys::Result<()> {
        match answer {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            Err(error)
                if self.rootless
                    && matches!(
                        error.kind(),
                        io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidInput
                    ) =>
            {
                Ok(())
            }
            answer => answer,
        }
    }
}

/// The umask of this process, read where reading does not change it.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}

fn set_time(fd: BorrowedFd<'_>, entry: &Entry) -> mica_sys::Result<()> {
    rustix::fs::futimens(fd, &timestamps(entry.mtime)).at("futimens", display(&entry.path))
}

fn timestamps(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.seconds, tv_nsec: i64::from(mtime.nanoseconds) };
    Timestamps { last_access: time, last_modification: time }
}

fn make_directories(tree: BorrowedFd<'_>, items: &[Item]) -> Result<(), AssembleError> {
    for Item { entry, .. } in items {
        if entry.is_directory() && !entry.path.is_empty() {
            rustix::fs::mkdirat(tree, entry.path.as_slice(), Mode::from_raw_mode(0o700)).map_err(
                |error| match error {
                    rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR => {
                        AssembleError::NoParent { path: display(&entry.path) }
                    }
                    error => mica_sys::Error::new("mkdirat", display(&entry.path), error).into(),
                },
            )?;
        }
    }
    Ok(())
}

/// Parents are opened first: `linkat` itself would follow a symbolic link among them out of the tree.
fn make_links(tree: BorrowedFd<'_>, items: &[Item]) -> Result<(), AssembleError> {
    let name = |path: &[u8]| path.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    for Item { entry, .. } in items {
        if let Kind::Hardlink { target } = &entry.kind {
            let no_parent = |_| AssembleError::NoParent { path: display(&entry.path) };
            let from = open_directory(tree, parent(target).unwrap_or_default()).map_err(no_parent)?;
            let to = open_directory(tree, entry.parent().unwrap_or_default()).map_err(no_parent)?;
            rustix::fs::linkat(from, name(target), to, entry.name(), AtFlags::empty())
                .at("linkat", display(&entry.path))?;
        }
    }
    Ok(())
}

/// Attributes of directories come last: making entries changes times, and the final mode may forbid it.
fn finish_directories(tree: BorrowedFd<'_>, items: &[Item], setter: Setter) -> Result<(), AssembleError> {
    let opaque_name = if setter.rootless { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    for Item { entry, .. } in items.iter().rev() {
        let Kind::Directory { opaque, .. } = entry.kind else { continue };
        let directory = open_directory(tree, &entry.path)?;
        if opaque {
            rustix::fs::fsetxattr(&directory, opaque_name, b"y", XattrFlags::empty())
                .at("fsetxattr", display(&entry.path))?;
        }
        setter.set(directory.as_fd(), entry, &entry.xattrs)?;
    }
    Ok(())
}

fn open_directory(tree: BorrowedFd<'_>, path: &[u8]) -> mica_sys::Result<OwnedFd> {
    use rustix::fs::ResolveFlags;
    let name = if path.is_empty() { b".".as_slice() } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    rustix::fs::openat2(tree, name, flags, Mode::empty(), resolve).at("openat2", display(path))
}

fn display(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
