//! Files that are there whole or not at all: written beside their place, then renamed into it.
//!
//! A kill between the two leaves a file named `.tmp-...` next to the place; it is never mistaken for the file.

use crate::error::{Error, ErrorAt, Result};
use rustix::fs::{Mode, OFlags};
use rustix::rand::GetRandomFlags;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

/// What the bytes must survive once the call has returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The end of any process: rename is enough.
    Kill,
    /// A power cut: the file and its directory are synced as well.
    PowerCut,
}

/// Puts `bytes` at `path` with `mode`, replacing what is there in one step.
pub fn write(path: impl AsRef<Path>, bytes: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let path = path.as_ref();
    let temporary = beside(path)?;
    let written = write_new(&temporary, bytes, mode, durability)
        .and_then(|()| rustix::fs::rename(&temporary, path).at("rename", path))
        .and_then(|()| match (durability, path.parent()) {
            (Durability::PowerCut, Some(parent)) => sync_directory(parent),
            _ => Ok(()),
        });
    if written.is_err() {
        // The first error is the one to tell; after a rename the name is gone, which is fine too.
        let _ = rustix::fs::unlink(&temporary);
    }
    written
}

fn write_new(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<()> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = rustix::fs::open(path, flags, Mode::from_raw_mode(mode)).at("open", path)?;
    let mut file = File::from(fd);
    file.write_all(bytes).at("write", path)?;
    if durability == Durability::PowerCut {
        file.sync_all().at("fsync", path)?;
    }
    Ok(())
}

/// Makes the names in a directory survive a power cut.
pub fn sync_directory(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    open_directory(path)?.sync_all().at("fsync", path)
}

/// Makes everything written so far to the filesystem of `path` survive a power cut, with syncfs(2).
pub fn sync_filesystem(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    rustix::fs::syncfs(open_directory(path)?).at("syncfs", path)
}

fn open_directory(path: &Path) -> Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::empty()).at("open", path)?))
}

/// `bytes_count` bytes from the kernel as hex: names nobody else has.
pub fn random_hex(bytes_count: usize) -> Result<String> {
    let mut bytes = vec![0u8; bytes_count];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, GetRandomFlags::empty()).at("getrandom", "")?;
    }
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| char::from(DIGITS[usize::from(nibble & 15)]);
    Ok(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect())
}

fn beside(path: &Path) -> Result<PathBuf> {
    if path.file_name().is_none() {
        return Err(Error::new("open", path, rustix::io::Errno::INVAL));
    }
    Ok(path.with_file_name(format!(".tmp-{}", random_hex(8)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_whole_and_leaves_nothing_beside() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        for (bytes, durability) in
            [(&b"one"[..], Durability::Kill), (b"", Durability::PowerCut), (b"three", Durability::PowerCut)]
        {
            write(&path, bytes, 0o600, durability).unwrap();
            assert_eq!(std::fs::read(&path).unwrap(), bytes);
        }
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_error_names_call_and_path_and_cleans_up() {
        let dir = tempfile::tempdir().unwrap();
        let error = write(dir.path().join("missing/file"), b"", 0o600, Durability::Kill).unwrap_err();
        assert_eq!(error.call, "open");
        // A directory stands in the way: the rename fails, the temporary file goes.
        let taken = dir.path().join("taken");
        std::fs::create_dir(&taken).unwrap();
        assert_eq!(write(&taken, b"x", 0o600, Durability::Kill).unwrap_err().call, "rename");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn random_names_differ() {
        let (a, b) = (random_hex(16).unwrap(), random_hex(16).unwrap());
        assert_eq!(a.len(), 32);
        assert_ne!(a, b);
    }
}
