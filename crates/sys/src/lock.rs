//! Locks that say "someone alive holds this", on files and directories.
//!
//! They are flock(2) locks: they belong to the open file description, so the kernel drops them when the last
//! descriptor closes, however the process ended. That is the whole of dead-holder detection: no pid is written
//! down, none is compared. All descriptors are close-on-exec, but a *fork* without exec shares the lock: a child
//! that lives on must close what it inherited.
//!
//! A path may be unlinked or renamed away between the open and the lock (that is how a sweeper takes what a dead
//! process left); every function here looks again after locking and never returns a lock on a path that is gone.

use crate::error::{Error, ErrorAt, Result};
use rustix::fs::{FlockOperation, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How often a path that vanishes under us is opened again before giving up. Each round needs another process
/// to remove the path in a window of microseconds.
const ROUNDS_MAX: usize = 100;

/// Whether others may hold the lock as well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Any number of holders, none of them exclusive.
    Shared,
    /// One holder.
    Exclusive,
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A regular file, created if it is missing.
    File,
    /// A regular file; never created.
    ExistingFile,
    /// A directory that exists.
    Directory,
    /// Whatever is there; never created.
    Existing,
}

/// A lock that is held until this value is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    fd: OwnedFd,
    path: PathBuf,
}

/// What a look at a path without waiting found.
#[derive(Debug)]
pub enum Probe {
    /// Someone alive holds it.
    Held,
    /// Nothing has that name (any more).
    Gone,
    /// Nobody held it; now we do, exclusively.
    Taken(Lock),
}

impl Lock {
    /// Locks the file `path`, created with mode 0600 if missing; waits for other holders.
    pub fn file(path: impl AsRef<Path>, sharing: Sharing) -> Result<Self> {
        let path = path.as_ref();
        match lock(path, Kind::File, sharing, true)? {
            Probe::Taken(lock) => Ok(lock),
            _ => Err(Error::new("flock", path, Errno::AGAIN)),
        }
    }

    /// As [`Lock::file`], but `None` instead of waiting.
    pub fn try_file(path: impl AsRef<Path>, sharing: Sharing) -> Result<Option<Self>> {
        match lock(path.as_ref(), Kind::File, sharing, false)? {
            Probe::Taken(lock) => Ok(Some(lock)),
            _ => Ok(None),
        }
    }

    /// Locks the file `path` if it is there, waiting for other holders; `None` when it is gone, perhaps since the wait.
    pub fn existing_file(path: impl AsRef<Path>, sharing: Sharing) -> Result<Option<Self>> {
        match lock(path.as_ref(), Kind::ExistingFile, sharing, true)? {
            Probe::Taken(lock) => Ok(Some(lock)),
            _ => Ok(None),
        }
    }

    /// Locks the directory `path`, which must exist; waits for other holders.
    pub fn directory(path: impl AsRef<Path>, sharing: Sharing) -> Result<Self> {
        let path = path.as_ref();
        match lock(path, Kind::Directory, sharing, true)? {
            Probe::Taken(lock) => Ok(lock),
            _ => Err(Error::new("flock", path, Errno::NOENT)),
        }
    }

    /// As [`Lock::directory`], but `None` instead of waiting, and when the directory is gone.
    pub fn try_directory(path: impl AsRef<Path>, sharing: Sharing) -> Result<Option<Self>> {
        match lock(path.as_ref(), Kind::Directory, sharing, false)? {
            Probe::Taken(lock) => Ok(Some(lock)),
            _ => Ok(None),
        }
    }

    /// Takes the exclusive lock of a file or directory if nobody holds it; never waits, never creates.
    pub fn probe(path: impl AsRef<Path>) -> Result<Probe> {
        lock(path.as_ref(), Kind::Existing, Sharing::Exclusive, false)
    }

    /// The path as it was when it was locked.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The descriptor that holds the lock, to hand to a child that keeps it alive.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

impl AsFd for Lock {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Whether someone alive holds the exclusive lock of `path`. A missing path is not held.
///
/// The look takes a shared lock for a moment: several may look at once, but a holder-to-be must use the waiting
/// [`Lock::file`], or it may mistake a look for a holder.
pub fn is_held(path: impl AsRef<Path>) -> Result<bool> {
    Ok(matches!(lock(path.as_ref(), Kind::Existing, Sharing::Shared, false)?, Probe::Held))
}

fn lock(path: &Path, kind: Kind, sharing: Sharing, wait: bool) -> Result<Probe> {
    let operation = match (sharing, wait) {
        (Sharing::Shared, true) => FlockOperation::LockShared,
        (Sharing::Shared, false) => FlockOperation::NonBlockingLockShared,
        (Sharing::Exclusive, true) => FlockOperation::LockExclusive,
        (Sharing::Exclusive, false) => FlockOperation::NonBlockingLockExclusive,
    };
    // NONBLOCK: whatever stands at the path, a fifo must not make us wait for its other end.
    let common = OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let flags = match kind {
        Kind::File => common | OFlags::RDWR | OFlags::CREATE,
        Kind::ExistingFile => common | OFlags::RDWR,
        Kind::Directory => common | OFlags::RDONLY | OFlags::DIRECTORY,
        Kind::Existing => common | OFlags::RDONLY,
    };
    for _ in 0..ROUNDS_MAX {
        let fd = match rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR) {
            Ok(fd) => fd,
            Err(Errno::NOENT) if kind != Kind::File => return Ok(Probe::Gone),
            Err(error) => return Err(Error::new("open", path, error)),
        };
        loop {
            match rustix::fs::flock(&fd, operation) {
                Ok(()) => break,
                Err(Errno::INTR) => {}
                Err(Errno::WOULDBLOCK) => return Ok(Probe::Held),
                Err(error) => return Err(Error::new("flock", path, error)),
            }
        }
        let ours = rustix::fs::fstat(&fd).at("fstat", path)?;
        match rustix::fs::lstat(path) {
            Ok(there) if same(&ours, &there) => {
                return Ok(Probe::Taken(Lock { fd, path: path.to_path_buf() }));
            }
            Ok(_) | Err(Errno::NOENT) => {}
            Err(error) => return Err(Error::new("lstat", path, error)),
        }
    }
    Err(Error::new("flock", path, Errno::STALE))
}

fn same(a: &Stat, b: &Stat) -> bool {
    a.st_dev == b.st_dev && a.st_ino == b.st_ino
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exclusive_keeps_others_out_until_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        assert!(!is_held(&path).unwrap());
        let held = Lock::file(&path, Sharing::Exclusive).unwrap();
        assert!(is_held(&path).unwrap());
        assert!(Lock::try_file(&path, Sharing::Exclusive).unwrap().is_none());
        assert!(Lock::try_file(&path, Sharing::Shared).unwrap().is_none());
        assert!(matches!(Lock::probe(&path).unwrap(), Probe::Held));
        drop(held);
        assert!(!is_held(&path).unwrap());
        assert!(matches!(Lock::probe(&path).unwrap(), Probe::Taken(_)));
    }

    #[test]
    fn shared_holders_live_together() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::directory(dir.path(), Sharing::Shared).unwrap();
        let second = Lock::try_directory(dir.path(), Sharing::Shared).unwrap().unwrap();
        assert!(Lock::try_directory(dir.path(), Sharing::Exclusive).unwrap().is_none());
        assert!(!is_held(dir.path()).unwrap(), "a shared holder is not an exclusive one");
        drop((first, second));
        assert!(Lock::try_directory(dir.path(), Sharing::Exclusive).unwrap().is_some());
    }

    #[test]
    fn a_lock_is_never_on_a_path_that_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = Lock::file(&path, Sharing::Exclusive).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| Lock::file(&path, Sharing::Exclusive).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::remove_file(&path).unwrap();
            drop(first);
            let second = waiting.join().unwrap();
            assert!(path.exists());
            assert!(is_held(&path).unwrap());
            let waiting = scope.spawn(|| Lock::existing_file(&path, Sharing::Exclusive).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            std::fs::remove_file(&path).unwrap();
            drop(second);
            assert!(waiting.join().unwrap().is_none());
            assert!(!path.exists(), "it was not made again");
        });
        drop(Lock::file(&path, Sharing::Exclusive).unwrap());
        assert!(Lock::existing_file(&path, Sharing::Exclusive).unwrap().is_some());
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(Lock::probe(&path).unwrap(), Probe::Gone));
    }

    #[test]
    fn symlinks_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        assert!(Lock::file(&path, Sharing::Exclusive).is_err());
    }
}
