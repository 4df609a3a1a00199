//! Archives that are a build context: unpacked into a directory of ours, and nowhere else.
//!
//! The archive is a stranger's. Every path is opened beneath the directory without following any link; an entry that would
//! be written through one, or that is a name of something outside, is refused. Owners and extended attributes are not
//! taken over: a build context has none that count.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use mica_layer::LayerError;
use mica_layer::apply::extract_archive;
use mica_layer::compress::{Compression, Limits, decompress};
use mica_layer::tar_entry::{TarLimits, TarReader};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Kind, Time, parent};
use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use thiserror::Error;

/// An archive that cannot be a build context.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// It is damaged, too large, or has a name that climbs out.
    #[error("cannot unpack the archive: {0}")]
    Archive(#[from] LayerError),
    /// An entry stands below a symbolic link or a file of the same archive.
    #[error("cannot unpack the archive: `{path}` lies below something that is not a directory")]
    Through {
        /// Its name.
        path: String,
    },
    /// A hard link to what is not in the archive.
    #[error("cannot unpack the archive: `{path}` is a hard link to `{target}`, which is not in the archive")]
    LinkOutside {
        /// Its name.
        path: String,
        /// The other name.
        target: String,
    },
    /// A device, which a build context cannot have.
    #[error("cannot unpack the archive: `{path}` is a device")]
    Device {
        /// Its name.
        path: String,
    },
    /// A call failed.
    #[error(transparent)]
    System(#[from] mica_sys::Error),
}

/// Whether bytes are the beginning of a tar, or of something compressed: what a build context is taken for.
pub fn is_archive(start: &[u8]) -> bool {
    if Compression::detect(start) != Compression::None {
        return true;
    }
    let mut reader = TarReader::new(start, TarLimits::default());
    match reader.next_entry() {
        Ok(Some(_)) => true,
        Ok(None)
        | Err(LayerError::Header { .. } | LayerError::Truncated { .. } | LayerError::Read { .. }) => false,
        Err(_) => true,
    }
}

/// Unpacks a tar, compressed or not, into an empty directory.
pub(crate) fn unpack<R: Read + Send + 'static>(reader: R, directory: &Path) -> Result<(), UnpackError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(directory, flags, Mode::empty()).at("open", directory)?;
    let mut into = Into { root, directories: Vec::new() };
    let (_, content) = decompress(reader, Limits::default())?;
    extract_archive(content, TarLimits::default(), &mut |entry, content| into.put(&entry, content))?;
    into.finish()
}

struct Into {
    root: OwnedFd,
    /// Modes and times of directories, which are given when nothing is put into them any more.
    directories: Vec<(Vec<u8>, u32, Time)>,
}

impl Into {
    fn put(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), UnpackError> {
        let path = &entry.path;
        let shown = || String::from_utf8_lossy(path).into_owned();
        if let Kind::Directory { .. } = entry.kind {
            self.directories.push((path.clone(), entry.mode, entry.mtime));
            if path.is_empty() {
                return Ok(());
            }
            return match self.open_directory(path) {
                // The later of two entries counts, unless the earlier one leads elsewhere.
                Err(UnpackError::Through { path: through }) => {
                    let (directory, name) = self.directory_of(path)?;
                    let stat = rustix::fs::statat(&directory, &name, AtFlags::SYMLINK_NOFOLLOW);
                    let stat = stat.at("fstatat", shown())?;
                    if rustix::fs::FileType::from_raw_mode(stat.st_mode).is_symlink() {
                        return Err(UnpackError::Through { path: through });
                    }
                    rustix::fs::unlinkat(&directory, &name, AtFlags::empty()).at("unlinkat", shown())?;
                    self.open_directory(path).map(|_| ())
                }
                opened => opened.map(|_| ()),
            };
        }
        let (directory, c_name) = self.directory_of(path)?;
        // The later of two entries counts; a directory gives way to nothing.
        match rustix::fs::unlinkat(&directory, &c_name, AtFlags::empty()) {
            Ok(()) | Err(rustix::io::Errno::NOENT) => {}
            Err(rustix::io::Errno::ISDIR) => return Err(UnpackError::Through { path: shown() }),
            Err(error) => return Err(mica_sys::Error::new("unlinkat", shown(), error).into()),
        }
        match &entry.kind {
            Kind::File { .. } => {
                let flags =
                    OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&directory, &c_name, flags, Mode::RUSR | Mode::WUSR);
                let mut file = File::from(file.at("openat", shown())?);
                copy_with_holes(content, &mut file).map_err(|error| copy_error(error, &shown()))?;
                rustix::fs::fchmod(&file, Mode::from_raw_mode(entry.mode & 0o7777)).at("fchmod", shown())?;
            }
            Kind::Symlink { target } => {
                rustix::fs::symlinkat(target.as_slice(), &directory, &c_name).at("symlinkat", shown())?;
            }
            Kind::Hardlink { target } => self.link(entry, target, &directory, &c_name)?,
            Kind::Fifo => {
                let mode = Mode::from_raw_mode(entry.mode & 0o7777);
                rustix::fs::mknodat(&directory, &c_name, rustix::fs::FileType::Fifo, mode, 0)
                    .at("mknodat", shown())?;
            }
            Kind::CharDevice { .. } | Kind::BlockDevice { .. } => {
                return Err(UnpackError::Device { path: shown() });
            }
            // A tar has none.
            Kind::Socket | Kind::Whiteout | Kind::Directory { .. } => return Ok(()),
        }
        if !matches!(entry.kind, Kind::Hardlink { .. }) {
            let times = times(entry.mtime);
            rustix::fs::utimensat(&directory, &c_name, &times, AtFlags::SYMLINK_NOFOLLOW)
                .at("utimensat", shown())?;
        }
        Ok(())
    }

    /// The directory that an entry stands in, and its name there.
    fn directory_of(&self, path: &[u8]) -> Result<(OwnedFd, CString), UnpackError> {
        let through = || UnpackError::Through { path: String::from_utf8_lossy(path).into_owned() };
        let directory =
            self.open_directory(parent(path).unwrap_or_default()).map_err(|error| match error {
                UnpackError::Through { .. } => through(),
                error => error,
            })?;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        Ok((directory, CString::new(name).map_err(|_| through())?))
    }

    fn link(
        &self,
        entry: &Entry,
        target: &[u8],
        directory: &OwnedFd,
        name: &CString,
    ) -> Result<(), UnpackError> {
        let outside = || UnpackError::LinkOutside {
            path: String::from_utf8_lossy(&entry.path).into_owned(),
            target: String::from_utf8_lossy(target).into_owned(),
        };
        let target_directory =
            self.open_beneath(parent(target).unwrap_or_default()).map_err(|_| outside())?;
        let target_name = target.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let stat = rustix::fs::statat(&target_directory, target_name, AtFlags::SYMLINK_NOFOLLOW);
        let is_directory = |mode| rustix::fs::FileType::from_raw_mode(mode).is_dir();
        if stat.map_err(|_| outside()).map(|stat| is_directory(stat.st_mode))? {
            return Err(outside());
        }
        // Not through a link: the name itself gets another name.
        rustix::fs::linkat(&target_directory, target_name, directory, name.as_c_str(), AtFlags::empty())
            .at("linkat", String::from_utf8_lossy(&entry.path).as_ref())?;
        Ok(())
    }

    /// A directory, made with those above it where they are not there.
    fn open_directory(&self, path: &[u8]) -> Result<OwnedFd, UnpackError> {
        match self.open_beneath(path) {
            Ok(directory) => return Ok(directory),
            Err(rustix::io::Errno::NOENT) => {}
            Err(error) => return Err(self.not_opened(path, error)),
        }
        let above = self.open_directory(parent(path).unwrap_or_default())?;
        let name = path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
        let shown = || String::from_utf8_lossy(path).into_owned();
        let mode = Mode::from_raw_mode(0o755);
        match rustix::fs::mkdirat(&above, name, mode) {
            Ok(()) => rustix::fs::chmodat(&above, name, mode, AtFlags::empty()).at("chmodat", shown())?,
            // Below a name that cannot be opened as a directory.
            Err(rustix::io::Errno::EXIST) => return Err(UnpackError::Through { path: shown() }),
            Err(error) => return Err(mica_sys::Error::new("mkdirat", shown(), error).into()),
        }
        self.open_beneath(path).map_err(|error| self.not_opened(path, error))
    }

    fn not_opened(&self, path: &[u8], error: rustix::io::Errno) -> UnpackError {
        let shown = String::from_utf8_lossy(path).into_owned();
        match error {
            rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR | rustix::io::Errno::XDEV => {
                UnpackError::Through { path: shown }
            }
            error => mica_sys::Error::new("openat2", shown, error).into(),
        }
    }

    fn open_beneath(&self, path: &[u8]) -> Result<OwnedFd, rustix::io::Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        let path = if path.is_empty() { b".".as_slice() } else { path };
        rustix::fs::openat2(self.root.as_fd(), path, flags, Mode::empty(), resolve)
    }

    fn finish(self) -> Result<(), UnpackError> {
        // What lies deeper comes first, as a directory may keep us out once it has its mode.
        let mut directories = self.directories.iter().collect::<Vec<_>>();
        directories.sort_by_key(|(path, ..)| std::cmp::Reverse(path.len()));
        for (path, mode, time) in directories {
            let shown = || String::from_utf8_lossy(path).into_owned();
            // Replaced by a later entry.
            let Ok(directory) = self.open_beneath(path) else { continue };
            let mode = Mode::from_raw_mode(mode & 0o7777);
            rustix::fs::utimensat(&directory, c".", &times(*time), AtFlags::empty())
                .at("utimensat", shown())?;
            rustix::fs::chmodat(&directory, c".", mode, AtFlags::empty()).at("chmodat", shown())?;
        }
        Ok(())
    }
}

/// Copies a stream into an empty file, and leaves holes where there are only zeros: an archive of a few bytes can say that
/// it has a file of gigabytes.
pub(crate) fn copy_with_holes(content: &mut dyn Read, file: &mut File) -> io::Result<()> {
    const BLOCK_SIZE_BYTES: usize = 64 << 10;
    let mut block = vec![0; BLOCK_SIZE_BYTES];
    let mut length: u64 = 0;
    loop {
        let mut filled = 0;
        while filled < block.len() {
            match content.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        if filled == 0 {
            return file.set_len(length);
        }
        let bytes = &block[..filled];
        if bytes.iter().any(|byte| *byte != 0) {
            file.write_all_at(bytes, length)?;
        }
        length += filled as u64;
    }
}

/// The archive's own errors come through the reader of its content.
pub(crate) fn copy_error(error: io::Error, path: &str) -> UnpackError {
    match error.get_ref().is_some_and(|inner| inner.is::<LayerError>()) {
        true => UnpackError::Archive(error.into()),
        false if error.raw_os_error().is_none() => UnpackError::Archive(error.into()),
        false => mica_sys::Error::new("write", path, error).into(),
    }
}

fn times(time: Time) -> Timestamps {
    let time = Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_take_no_room() {
        use std::io::Seek;
        use std::os::unix::fs::MetadataExt;
        let mut file = tempfile::tempfile().unwrap();
        let mut content = io::repeat(0).take(64 << 20).chain(&b"end"[..]).chain(io::repeat(0).take(1 << 20));
        copy_with_holes(&mut content, &mut file).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), (65 << 20) + 3);
        assert!(metadata.blocks() * 512 < 1 << 20, "{}", metadata.blocks());
        let mut end = [0; 4];
        file.seek(io::SeekFrom::Start(64 << 20)).unwrap();
        file.read_exact(&mut end).unwrap();
        assert_eq!(&end, b"end\0");
    }
}
