//! One pass over the directories of a context: names and attributes of all that is not ignored.

use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Condvar, Mutex};

use mica_dockerfile::dockerignore::{Dockerignore, ParentInfo};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Kind, Time};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat};

use crate::error::ContextError;
use crate::stat_cache::StatKey;

/// Directories waiting before a second thread is worth its start.
const DIRECTORIES_PER_THREAD: usize = 16;

/// An entry and the attributes that tell whether its content can have changed.
#[derive(Debug)]
pub(crate) struct Found {
    pub entry: Entry,
    pub key: StatKey,
    /// More than one name: may be a hard link of another entry.
    pub links: u64,
    pub device: u64,
    /// A directory that is ignored, and stays only if something inside it was brought back.
    is_ignored: bool,
}

/// What one directory holds, in order of names.
#[derive(Default)]
struct Listing {
    children: Vec<(Found, Option<usize>)>,
}

/// A directory still to be read.
struct Pending {
    position: usize,
    path: Vec<u8>,
    ignore: Option<ParentInfo>,
}

struct State {
    pending: Vec<Pending>,
    listings: Vec<Listing>,
    busy: usize,
    failed: Option<ContextError>,
}

/// All entries below `root` that `ignore` lets through, in index order, the root itself not among them.
///
/// What is ignored is not opened; a directory that is ignored is entered only when a later rule may bring back
/// something inside it, and is listed only if something was.
pub(crate) fn walk(root: BorrowedFd<'_>, ignore: Option<&Dockerignore>) -> Result<Vec<Found>, ContextError> {
    let state = Mutex::new(State {
        pending: vec![Pending {
            position: 0,
            path: Vec::new(),
            ignore: ignore.map(|_| ParentInfo::default()),
        }],
        listings: vec![Listing::default()],
        busy: 0,
        failed: None,
    });
    let changed = Condvar::new();
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get().min(8));
    // The first directories are read here; whoever finds much to do starts the others.
    let mut reader = Reader { root, ignore, state: &state, changed: &changed };
    let wide = reader.run(true);
    if wide && threads > 1 {
        std::thread::scope(|scope| {
            for _ in 1..threads {
                let mut other = Reader { root, ignore, state: &state, changed: &changed };
                scope.spawn(move || other.run(false));
            }
            reader.run(false);
        });
    } else {
        reader.run(false);
    }
    let state = state.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    if let Some(error) = state.failed {
        return Err(error);
    }
    let mut listings = state.listings;
    let mut found = Vec::new();
    flatten(&mut listings, 0, &mut found);
    Ok(found)
}

/// Puts the listings one into the other, depth first, which is index order, and drops ignored directories in which nothing
/// was brought back. Iterative, because contexts may be deep.
fn flatten(listings: &mut [Listing], root: usize, found: &mut Vec<Found>) {
    let mut stack = vec![(std::mem::take(&mut listings[root].children).into_iter(), None)];
    while let Some((children, directory)) = stack.last_mut() {
        match children.next() {
            Some((child, listing)) => {
                found.push(child);
                if let Some(listing) = listing {
                    let children = std::mem::take(&mut listings[listing].children).into_iter();
                    stack.push((children, Some(found.len())));
                }
            }
            None => {
                let is_empty = *directory == Some(found.len());
                if is_empty && found.last().is_some_and(|last| last.is_ignored) {
                    found.pop();
                }
                stack.pop();
            }
        }
    }
}

struct Reader<'a> {
    root: BorrowedFd<'a>,
    ignore: Option<&'a Dockerignore>,
    state: &'a Mutex<State>,
    changed: &'a Condvar,
}

impl Reader<'_> {
    /// Reads directories until none is left. `alone`: stops, with true, when there is work for more threads.
    fn run(&mut self, alone: bool) -> bool {
        let lock = || self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let mut state = lock();
        loop {
            if state.failed.is_some() {
                return false;
            }
            if alone && state.pending.len() > DIRECTORIES_PER_THREAD {
                return true;
            }
            let Some(next) = state.pending.pop() else {
                if state.busy == 0 {
                    self.changed.notify_all();
                    return false;
                }
                state = self.changed.wait(state).unwrap_or_else(|poisoned| poisoned.into_inner());
                continue;
            };
            state.busy += 1;
            drop(state);
            let outcome = self.read_directory(&next);
            state = lock();
            state.busy -= 1;
            match outcome {
                Ok(children) => {
                    let mut listing = Listing::default();
                    listing.children.reserve_exact(children.len());
                    for (child, ignore) in children {
                        let position = child.entry.is_directory().then(|| {
                            let position = state.listings.len();
                            state.listings.push(Listing::default());
                            let path = child.entry.path.clone();
                            state.pending.push(Pending { position, path, ignore });
                            position
                        });
                        listing.children.push((child, position));
                    }
                    state.listings[next.position] = listing;
                }
                Err(error) => state.failed = Some(error),
            }
            if !alone {
                self.changed.notify_all();
            }
        }
    }

    fn read_directory(&self, pending: &Pending) -> Result<Vec<(Found, Option<ParentInfo>)>, ContextError> {
        let directory = open_directory(self.root, &pending.path).map_err(ContextError::on)?;
        let mut names: Vec<CString> = Vec::new();
        let mut buffer = [MaybeUninit::<u8>::uninit(); 32 * 1024];
        let mut entries = RawDir::new(directory.as_fd(), &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.at("getdents64", display(&pending.path)).map_err(ContextError::on)?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                names.push(entry.file_name().to_owned());
            }
        }
        names.sort_unstable();
        let mut children = Vec::with_capacity(names.len());
        for name in &names {
            let mut path = Vec::with_capacity(pending.path.len() + 1 + name.as_bytes().len());
            path.extend_from_slice(&pending.path);
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(name.as_bytes());
            let (mut below, mut is_ignored) = (None, false);
            if let (Some(rules), Some(parent)) = (self.ignore, &pending.ignore) {
                let text = String::from_utf8_lossy(&path);
                let (ignored, info) = rules.matches_in(parent, &text);
                if ignored && !rules.may_reinclude_below(&text) {
                    continue;
                }
                (below, is_ignored) = (Some(info), ignored);
            }
            if let Some(found) = self.found(directory.as_fd(), name, path)?
                && (!is_ignored || found.entry.is_directory())
            {
                children.push((Found { is_ignored, ..found }, below));
            }
        }
        Ok(children)
    }

    fn found(
        &self,
        directory: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
    ) -> Result<Option<Found>, ContextError> {
        let stat = stat(directory, name, &path)?;
        let kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File { size: stat.st_size as u64, content: None },
            FileType::Directory => Kind::Directory { opaque: false, implied: false },
            FileType::Symlink => {
                let target = rustix::fs::readlinkat(directory, name, Vec::new())
                    .at("readlinkat", display(&path))
                    .map_err(ContextError::on)?;
                Kind::Symlink { target: target.into_bytes() }
            }
            FileType::Fifo => Kind::Fifo,
            FileType::CharacterDevice => Kind::CharDevice { rdev: device_numbers(stat.st_rdev) },
            FileType::BlockDevice => Kind::BlockDevice { rdev: device_numbers(stat.st_rdev) },
            // A socket means something only to the process that listens on it.
            _ => return Ok(None),
        };
        let key = StatKey::of(&stat);
        let entry = Entry {
            path,
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { seconds: stat.st_mtime, nanoseconds: stat.st_mtime_nsec as u32 },
            xattrs: Vec::new(),
        };
        Ok(Some(Found { entry, key, links: stat.st_nlink, device: stat.st_dev, is_ignored: false }))
    }
}

fn device_numbers(rdev: u64) -> (u32, u32) {
    (rustix::fs::major(rdev), rustix::fs::minor(rdev))
}

fn stat(directory: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<Stat, ContextError> {
    rustix::fs::statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)
        .at("newfstatat", display(path))
        .map_err(ContextError::on)
}

/// Opens a directory of the context; no symbolic link on the way is followed.
fn open_directory(root: BorrowedFd<'_>, path: &[u8]) -> mica_sys::Result<OwnedFd> {
    let name = if path.is_empty() { b".".as_slice() } else { path };
    rustix::fs::openat2(
        root,
        name,
        OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS,
    )
    .at("openat2", display(path))
}

/// A path of the context for an error.
pub(crate) fn display(path: &[u8]) -> std::path::PathBuf {
    use std::os::unix::ffi::OsStrExt;
    std::ffi::OsStr::from_bytes(if path.is_empty() { b"." } else { path }).into()
}
