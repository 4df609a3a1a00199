//! Blobs on their way in from a registry: `ingest/download-<alg>-<hex>`, kept when the process dies, so that the next try
//! fetches only the rest.
//!
//! The name is the digest's, so one download of a blob is all there is: whoever holds the lock of that file fetches, the
//! others wait, and find the blob stored or take over what is there. Finishing is one rename of the locked file into
//! `blobs/`, so under the lock of a file that still has its name the blob is either stored or missing, never in between.
//! What lies in an unlocked file is trusted by nobody: it is hashed when it is taken up again, and the digest of all bytes
//! decides at the end.

use crate::blob::{Hasher, move_blob};
use crate::error::{Result, StoreError};
use crate::store::Store;
use mica_oci::Digest;
use mica_sys::atomic_file::sync_directory;
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Sharing};
use rustix::fs::{Mode, OFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What names in `ingest/` begin with.
pub(crate) const PREFIX: &str = "download-";

/// What nobody has gone on with for that long is swept. Registries keep blobs for longer, but who comes back after a
/// week starts anew as well.
const KEPT_FOR: Duration = Duration::from_secs(7 * 24 * 3600);

/// How often the lock may slip away before giving up. Each round needs another process that made a whole attempt of its
/// own and threw it away, or a collection at that moment.
const ROUNDS_MAX: usize = 10_000;

/// What became of the wish to download a blob.
#[derive(Debug)]
pub enum Download {
    /// It is stored already: perhaps since a moment, by another process.
    Stored,
    /// It is ours to fetch, from [`PartialBlob::size_bytes`] on.
    Partial(PartialBlob),
}

/// A blob being downloaded, under a lock that keeps all others from it. Dropping it keeps what is there for the next try.
#[derive(Debug)]
pub struct PartialBlob {
    store: Store,
    digest: Digest,
    path: PathBuf,
    /// Holds the lock as well.
    file: File,
    hasher: Box<Hasher>,
    size_bytes: u64,
    durable: bool,
    /// The path is ours no more.
    is_gone: bool,
}

impl Store {
    /// Begins the download of a blob, or takes one up again. While somebody else downloads it (another process, or another
    /// thread of this one) this calls `waiting` once and waits; the lock of a process that dies is free at once.
    ///
    /// Hold a lease: a blob that no image needs yet is otherwise taken by the next collection.
    pub fn download(&self, digest: &Digest, waiting: &mut dyn FnMut()) -> Result<Download> {
        let path = self.download_path(digest);
        let mut has_told = false;
        for _ in 0..ROUNDS_MAX {
            if self.use_blob(digest)? {
                return Ok(Download::Stored);
            }
            mica_sys::fail_point!("store.download.create")?;
            let lock = match Lock::try_file(&path, Sharing::Exclusive)? {
                Some(lock) => lock,
                None => {
                    if !has_told {
                        has_told = true;
                        waiting();
                    }
                    // Never makes the file: that is only for whoever has seen that the blob is missing.
                    match Lock::existing_file(&path, Sharing::Exclusive)? {
                        Some(lock) => lock,
                        None => continue,
                    }
                }
            };
            let partial = self.partial(digest, path.clone(), lock)?;
            // Again: it may have been stored since, and our file been made only after that.
            if self.use_blob(digest)? {
                partial.discard()?;
                return Ok(Download::Stored);
            }
            return partial.take_up().map(Download::Partial);
        }
        Err(mica_sys::Error::new("flock", path, Errno::AGAIN).into())
    }

    fn partial(&self, digest: &Digest, path: PathBuf, lock: Lock) -> Result<PartialBlob> {
        Ok(PartialBlob {
            store: self.clone(),
            digest: digest.clone(),
            path,
            file: File::from(lock.into_fd()),
            hasher: Box::new(Hasher::of(digest)),
            size_bytes: 0,
            durable: false,
            is_gone: false,
        })
    }

    fn download_path(&self, digest: &Digest) -> PathBuf {
        let name = format!("{PREFIX}{}-{}", digest.algorithm().name(), digest.hex());
        self.layout().ingest().join(name)
    }

    /// Marks a blob as used now, if it is there. A collection decides and takes under the lock of writers, so from here on
    /// a lease that began before protects it.
    fn use_blob(&self, digest: &Digest) -> Result<bool> {
        if !self.has_blob(digest)? {
            return Ok(false);
        }
        self.write(|_| match self.touch_blob(digest) {
            Ok(()) => Ok(true),
            Err(StoreError::BlobMissing(_)) => Ok(false),
            Err(error) => Err(error),
        })
    }
}

impl PartialBlob {
    /// The blob.
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Bytes that are there; all of them are hashed.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Whether the blob must survive a power cut once it is finished. A pulled one need not: it is checked on every read.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// The same file, opened again for reading from the start: to follow the bytes as they come in. It stays readable after
    /// [`PartialBlob::finish`].
    pub fn reader(&self) -> Result<File> {
        // Nobody else moves or removes a file that is locked.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let fd = rustix::fs::open(&self.path, flags, Mode::empty()).at("open", &self.path)?;
        Ok(File::from(fd))
    }

    /// Appends all of `bytes`; as the `Write` of this type, with the room's own errors.
    pub fn append(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.write_all(bytes).at("write", &self.path)?)
    }

    /// Throws away what is there and begins at 0 (in the same file, so only where nobody follows it).
    pub fn restart(&mut self) -> Result<()> {
        mica_sys::fail_point!("store.download.restart")?;
        self.file.set_len(0).at("ftruncate", &self.path)?;
        self.file.rewind().at("lseek", &self.path)?;
        *self.hasher = Hasher::of(&self.digest);
        self.size_bytes = 0;
        Ok(())
    }

    /// Checks the digest and makes the blob visible. If it does not match, the bytes are thrown away.
    pub fn finish(mut self) -> Result<u64> {
        let actual = self.hasher.finish();
        if actual != self.digest {
            let expected = self.digest.clone();
            self.discard()?;
            return Err(StoreError::DigestMismatch { expected, actual });
        }
        // All bytes may have been there for days: for a collection the blob is new.
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        rustix::fs::futimens(&self.file, &times).at("futimens", &self.path)?;
        if self.durable {
            self.file.sync_all().at("fsync", &self.path)?;
        }
        mica_sys::fail_point!("store.download.rename")?;
        let place = self.store.blob_path(&self.digest);
        move_blob(&self.path, &place)?;
        self.is_gone = true;
        if let (true, Some(parent)) = (self.durable, place.parent()) {
            sync_directory(parent)?;
        }
        Ok(self.size_bytes)
    }

    /// Throws it away.
    pub fn discard(mut self) -> Result<()> {
        mica_sys::fail_point!("store.download.discard")?;
        rustix::fs::unlink(&self.path).at("unlink", &self.path)?;
        self.is_gone = true;
        Ok(())
    }

    /// Hashes what is there already.
    fn take_up(mut self) -> Result<Self> {
        self.size_bytes = self.hasher.read(&mut self.file).at("read", &self.path)?;
        Ok(self)
    }
}

impl Write for PartialBlob {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        mica_sys::fail_point!("store.download.write").map_err(|error| error.source)?;
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for PartialBlob {
    fn drop(&mut self) {
        if !self.is_gone && self.size_bytes == 0 && self.file.metadata().is_ok_and(|file| file.len() == 0) {
            // Nothing to go on from.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}

/// Whether a download that nobody works on may still be gone on with.
pub(crate) fn is_kept(path: &Path) -> bool {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return true };
    let age = metadata.modified().ok().and_then(|time| SystemTime::now().duration_since(time).ok());
    // From the future after the clock was set back: new enough.
    metadata.is_file() && age.is_none_or(|age| age < KEPT_FOR)
}
