//! Blobs: exact bytes under the digest of those bytes, `blobs/<alg>/<hex>`.

use crate::codec;
use crate::error::{Result, StoreError};
use crate::store::Store;
use mica_oci::{Algorithm, Digest};
use mica_sys::atomic_file::{random_hex, sync_directory};
use mica_sys::error::{Error, ErrorAt};
use mica_sys::lock::{Lock, Sharing};
use rustix::fs::{AtFlags, Timespec, Timestamps, UTIME_NOW};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256, Sha512};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes hashed at a time.
const CHUNK_BYTES: usize = 1 << 16;

/// Whether any row needs the blob `?1`.
pub(crate) const NEEDED: &str = "
SELECT 1 WHERE EXISTS(SELECT 1 FROM images WHERE id=?1 OR manifest=?1)
    OR EXISTS(SELECT 1 FROM image_blobs WHERE digest=?1)
    OR EXISTS(SELECT 1 FROM layers WHERE blob=?1 AND blob != '')
    OR EXISTS(SELECT 1 FROM protections WHERE kind='blob' AND object=?1)";

impl Store {
    /// Stores `bytes` under their sha256.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest: Digest = Digest::sha256(bytes);
        if self.read_blob(&digest, bytes.len() as u64).is_ok() {
            self.touch_blob(&digest)?;
            return Ok(digest);
        }
        let mut writer = self.blob_writer()?;
        writer.write_all(bytes).at("write", &writer.path)?;
        Ok(writer.finish(Some(&digest))?.0)
    }

    /// A writer for a blob that will be named by its sha256.
    pub fn blob_writer(&self) -> Result<BlobWriter> {
        self.writer(Hasher::Sha256(Sha256::new()))
    }

    /// A writer for a blob whose digest is known: hashes with the algorithm of `expected`.
    pub fn blob_writer_for(&self, expected: &Digest) -> Result<BlobWriter> {
        self.writer(Hasher::of(expected))
    }

    fn writer(&self, hasher: Hasher) -> Result<BlobWriter> {
        let path = self.layout().ingest().join(format!("blob-{}", random_hex(8)?));
        let lock = Lock::file(&path, Sharing::Exclusive)?;
        let file = File::from(lock.into_fd());
        Ok(BlobWriter { store: self.clone(), file, path, hasher, size_bytes: 0, durable: false })
    }

    /// The bytes of a blob, checked against their digest.
    pub fn read_blob(&self, digest: &Digest, size_bytes_max: u64) -> Result<Vec<u8>> {
        let path = self.blob_path(digest);
        let file = self.open_blob(digest)?;
        let size_bytes = file.metadata().at("fstat", &path)?.len();
        if size_bytes > size_bytes_max {
            return Err(StoreError::BlobTooLarge { digest: digest.clone(), size_bytes, size_bytes_max });
        }
        let mut bytes = Vec::new();
        file.take(size_bytes_max.saturating_add(1)).read_to_end(&mut bytes).at("read", &path)?;
        let mut hasher = Hasher::of(digest);
        hasher.update(&bytes);
        let actual = hasher.finish();
        if actual != *digest {
            return Err(StoreError::DigestMismatch { expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// Removes a blob whose bytes are not what its digest says, as after a power cut, so that it can be stored anew: what
    /// needs it misses it until then. `false` if it is whole or not there.
    pub fn drop_damaged_blob(&self, digest: &Digest) -> Result<bool> {
        let path = self.blob_path(digest);
        let mut file = match self.open_blob(digest) {
            Err(StoreError::BlobMissing(_)) => return Ok(false),
            opened => opened?,
        };
        let mut hasher = Hasher::of(digest);
        hasher.read(&mut file).at("read", &path)?;
        if hasher.finish() == *digest {
            return Ok(false);
        }
        let damaged = file.metadata().at("fstat", &path)?;
        self.write(|_| {
            mica_sys::fail_point!("store.blob.drop")?;
            match std::fs::symlink_metadata(&path) {
                // A whole one may have taken its place since.
                Ok(there) if there.ino() == damaged.ino() => {
                    rustix::fs::unlink(&path).at("unlink", &path)?;
                    Ok(true)
                }
                _ => Ok(false),
            }
        })
    }

    /// Opens a blob for reading; the bytes are not checked.
    pub fn open_blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        match File::open(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Err(StoreError::BlobMissing(digest.clone()))
            }
            opened => Ok(opened.at("open", &path)?),
        }
    }

    /// Whether the blob is there.
    pub fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_size_bytes(digest)?.is_some())
    }

    /// Size of the blob, if it is there.
    pub fn blob_size_bytes(&self, digest: &Digest) -> Result<Option<u64>> {
        let path = self.blob_path(digest);
        match std::fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::new("lstat", &path, error).into()),
        }
    }

    /// Where the blob is or would be.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.layout().blobs().join(codec::blob_path(digest))
    }

    /// Marks a blob as used now, so that a collection beside a live lease takes it for new.
    pub(crate) fn touch_blob(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
        let times = Timestamps { last_access: now, last_modification: now };
        match rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => Ok(()),
            Err(Errno::NOENT) => Err(StoreError::BlobMissing(digest.clone())),
            Err(error) => Err(Error::new("utimensat", &path, error).into()),
        }
    }
}

/// A blob being written; hashed as it goes by. Dropping it without [`BlobWriter::finish`] throws it away.
#[derive(Debug)]
pub struct BlobWriter {
    store: Store,
    /// Holds the lock as well.
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size_bytes: u64,
    durable: bool,
}

impl BlobWriter {
    /// Whether the blob must survive a power cut once it is finished: for bytes that cannot be made again.
    pub fn durable(mut self, durable: bool) -> Self {
        self.durable = durable;
        self
    }

    /// Bytes written so far.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Checks the digest and puts the blob in its place.
    pub fn finish(mut self, expected: Option<&Digest>) -> Result<(Digest, u64)> {
        let digest = self.hasher.finish();
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(StoreError::DigestMismatch { expected: expected.clone(), actual: digest });
        }
        if self.durable {
            self.file.sync_all().at("fsync", &self.path)?;
        }
        let place = self.store.blob_path(&digest);
        mica_sys::fail_point!("store.blob.rename")?;
        move_blob(&self.path, &place)?;
        if let (true, Some(parent)) = (self.durable, place.parent()) {
            sync_directory(parent)?;
        }
        Ok((digest, self.size_bytes))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = self.file.write(bytes)?;
        if let Some(written) = bytes.get(..count) {
            self.hasher.update(written);
        }
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        // Gone if it was finished; otherwise a sweep would take it later.
        let _ = rustix::fs::unlink(&self.path);
    }
}

/// Renames a finished file to where blobs are, over what is there: these bytes are checked, those may have suffered.
pub(crate) fn move_blob(from: &Path, place: &Path) -> Result<()> {
    let moved = match rustix::fs::rename(from, place) {
        Err(Errno::NOENT) if place.parent().is_some_and(|parent| !parent.exists()) => {
            let parent = place.parent().unwrap_or(place);
            std::fs::create_dir_all(parent).at("mkdir", parent)?;
            rustix::fs::rename(from, place)
        }
        moved => moved,
    };
    Ok(moved.at("rename", place)?)
}

/// A hash in progress, of the algorithm a digest names.
#[derive(Clone, Debug)]
pub(crate) enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    pub(crate) fn of(digest: &Digest) -> Self {
        match digest.algorithm() {
            Algorithm::Sha512 => Self::Sha512(Sha512::new()),
            // A blake3 digest is nothing a registry names blobs by: it never matches, and is refused as such.
            Algorithm::Sha256 | Algorithm::Blake3 => Self::Sha256(Sha256::new()),
        }
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    /// Hashes all that comes, and answers how much that was.
    pub(crate) fn read(&mut self, from: &mut impl Read) -> std::io::Result<u64> {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut size_bytes = 0;
        loop {
            match from.read(&mut chunk) {
                Ok(0) => return Ok(size_bytes),
                Ok(count) => {
                    self.update(chunk.get(..count).unwrap_or_default());
                    size_bytes += count as u64;
                }
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    pub(crate) fn finish(&mut self) -> Digest {
        match self {
            Self::Sha256(hasher) => Digest::from_sha256(hasher.finalize_reset().into()),
            Self::Sha512(hasher) => Digest::from_sha512(hasher.finalize_reset().into()),
        }
    }
}
