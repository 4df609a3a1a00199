//! An OCI layout as destination: blobs under their digest first, then `index.json` in one rename, under a lock.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mica_oci::image_layout::ANNOTATION_REF_NAME;
use mica_oci::{Descriptor, DocumentKind, ImageLayout, Index};
use mica_sys::atomic_file::random_hex;
use mica_sys::dir_at::open_directory;
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Probe, Sharing};
use rustix::fs::Mode;
use rustix::io::Errno;

use crate::destination::{Blobs, Destination};
use crate::error::{CopyError, Result};
use crate::event::BlobState;
use crate::files::Files;
use crate::place::Place;
use crate::plan::Plan;
use crate::source::Blob;
use crate::verify::{check_bytes, stream};

/// How long another process may write its `index.json`.
const LOCK_WAIT_MAX: Duration = Duration::from_secs(60);
/// How often a file on its way may be swept before it is locked.
const TEMPORARY_TRIES_MAX: usize = 16;
/// Names of files that are not whole yet; their writers hold a lock on them.
const TEMPORARY_PREFIX: &str = ".tmp-";

/// A layout.
pub(crate) struct LayoutDestination {
    place: Place,
    /// Without symbolic links.
    path: PathBuf,
    directory: OwnedFd,
    files: Files,
    tag: Option<String>,
}

impl LayoutDestination {
    /// Makes the directory if it is not there. One with other things in it is not made a layout.
    pub fn open(place: &Place, path: &Path, tag: Option<&str>) -> Result<Self> {
        std::fs::create_dir_all(path).at("mkdir", path)?;
        let path = std::fs::canonicalize(path).at("realpath", path)?;
        let files = Files::of_directory(place, &path)?;
        let directory = File::open(&path).at("open", &path)?.into();
        let layout = Self { place: place.clone(), path, directory, files, tag: tag.map(str::to_owned) };
        match layout.files.document(ImageLayout::MARKER_FILE, DocumentKind::ImageLayout)? {
            Some(bytes) => {
                ImageLayout::parse(&bytes).map_err(|source| CopyError::Document {
                    place: place.boxed(),
                    member: ImageLayout::MARKER_FILE.to_owned(),
                    source,
                })?;
            }
            None => {
                if !layout.is_empty()? {
                    return Err(CopyError::NotThis {
                        place: place.boxed(),
                        what: "an OCI layout, nor empty",
                        file: ImageLayout::MARKER_FILE,
                    });
                }
                layout.put_file(ImageLayout::MARKER_FILE, &ImageLayout::current().to_json())?;
            }
        }
        layout.make_directory(None, ImageLayout::BLOBS_DIR)?;
        layout.sweep()?;
        Ok(layout)
    }

    /// Whether nothing is in it but what mica itself leaves on the way.
    fn is_empty(&self) -> Result<bool> {
        let names = mica_sys::dir_at::read_names(open_directory(&self.directory, b"")?)?;
        // The marker too: another copy may have made it a moment ago.
        let known = [ImageLayout::MARKER_FILE, ImageLayout::INDEX_FILE, ImageLayout::BLOBS_DIR];
        Ok(names.iter().all(|(name, _)| {
            name.starts_with(TEMPORARY_PREFIX.as_bytes())
                || known.iter().any(|known| known.as_bytes() == name.as_slice())
        }))
    }

    /// Takes away what a process that died has left half done.
    fn sweep(&self) -> Result<()> {
        for (name, _) in mica_sys::dir_at::read_names(open_directory(&self.directory, b"")?)? {
            let Some(name) =
                std::str::from_utf8(&name).ok().filter(|name| name.starts_with(TEMPORARY_PREFIX))
            else {
                continue;
            };
            let path = self.path.join(name);
            // What is no file, or held, or gone, is not ours to take.
            if let Ok(Probe::Taken(_lock)) = Lock::probe(&path) {
                let _ = rustix::fs::unlink(&path);
            }
        }
        Ok(())
    }

    /// Makes a directory beneath the layout, through no symbolic link.
    fn make_directory(&self, parent: Option<&OwnedFd>, name: &str) -> Result<OwnedFd> {
        let parent = parent.unwrap_or(&self.directory);
        match rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error).at("mkdirat", self.path.join(name)).map_err(CopyError::from),
        }
        Ok(open_directory(parent, name.as_bytes())?)
    }

    /// A file that has no final name yet. Its lock tells others that somebody is writing.
    fn temporary(&self) -> Result<Temporary> {
        for _ in 0..TEMPORARY_TRIES_MAX {
            let path = self.path.join(format!("{TEMPORARY_PREFIX}{}", random_hex(8)?));
            // Made before it is locked, as a lock's own file would be for this user only, whatever the user's mask says.
            let made = File::create_new(&path).at("open", &path)?;
            let file = File::from(Lock::file(&path, Sharing::Exclusive)?.into_fd());
            let inode = |file: &File| rustix::fs::fstat(file).map(|stat| stat.st_ino).at("fstat", &path);
            if inode(&made)? == inode(&file)? {
                return Ok(Temporary { path, file, is_placed: false });
            }
            // Somebody who sweeps was faster than the lock; what the lock made instead goes with this value.
            drop(Temporary { path: path.clone(), file, is_placed: false });
        }
        Err(mica_sys::Error::new("flock", &self.path, io::Error::from(io::ErrorKind::WouldBlock)).into())
    }

    /// Puts bytes under a name of the layout's own directory.
    fn put_file(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let mut temporary = self.temporary()?;
        temporary.file.write_all(bytes).at("write", &temporary.path)?;
        temporary.file.sync_all().at("fsync", &temporary.path)?;
        temporary.place(&self.directory, name)
    }

    /// The directory that blobs of a digest's algorithm are in.
    fn blobs_directory(&self, descriptor: &Descriptor) -> Result<OwnedFd> {
        let blobs = self.make_directory(None, ImageLayout::BLOBS_DIR)?;
        self.make_directory(Some(&blobs), descriptor.digest.algorithm().name())
    }

    /// Whether the layout has a blob, whole and right: a power cut may have left one of the right length with other bytes.
    fn has(&self, blobs: Option<&Blobs<'_>>, descriptor: &Descriptor) -> Result<bool> {
        let member = ImageLayout::blob_path(&descriptor.digest);
        let Some(range) = self.files.open(&member)? else { return Ok(false) };
        if range.size_bytes() != descriptor.size {
            return Ok(false);
        }
        let never = std::sync::atomic::AtomicBool::new(false);
        let stop = blobs.map_or(&never, |blobs| blobs.stop);
        match stream(&self.place, descriptor, range, stop, |_, _| Ok(())) {
            Ok(()) => Ok(true),
            Err(CopyError::DigestMismatch { .. } | CopyError::SizeMismatch { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn lock(&self) -> Result<Lock> {
        let begin = Instant::now();
        loop {
            if let Some(lock) = Lock::try_directory(&self.path, Sharing::Exclusive)? {
                return Ok(lock);
            }
            if begin.elapsed() > LOCK_WAIT_MAX {
                let busy = io::Error::from(io::ErrorKind::WouldBlock);
                return Err(mica_sys::Error::new("flock", &self.path, busy).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// `index.json` as it is, with one more entry: in place of what had its tag.
    fn index_with(&self, root: &Descriptor) -> Result<Index> {
        let mut index = match self.files.document(ImageLayout::INDEX_FILE, DocumentKind::Index)? {
            None => Index::oci(Vec::new()),
            Some(bytes) => Index::parse(&bytes).map_err(|source| CopyError::Document {
                place: self.place.boxed(),
                member: ImageLayout::INDEX_FILE.to_owned(),
                source,
            })?,
        };
        let entry = layout_entry(root, self.tag.as_deref());
        index.manifests.retain(|known| {
            let name = known.annotations.get(ANNOTATION_REF_NAME);
            match &self.tag {
                Some(tag) => name != Some(tag),
                None => name.is_some() || known.digest != root.digest,
            }
        });
        index.manifests.push(entry);
        Ok(index)
    }
}

/// What `index.json` says of an image.
pub(crate) fn layout_entry(root: &Descriptor, tag: Option<&str>) -> Descriptor {
    let mut entry = Descriptor {
        platform: root.platform.clone(),
        artifact_type: root.artifact_type.clone(),
        ..Descriptor::new(&root.media_type, root.digest.clone(), root.size)
    };
    if let Some(tag) = tag {
        entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag.to_owned());
    }
    entry
}

impl Destination for LayoutDestination {
    fn blob(&self, blobs: &Blobs<'_>, descriptor: &Descriptor) -> Result<BlobState> {
        if self.has(Some(blobs), descriptor)? {
            return Ok(BlobState::Exists);
        }
        let directory = self.blobs_directory(descriptor)?;
        let mut temporary = self.temporary()?;
        let place = blobs.source.place();
        let take = |bytes: &[u8], so_far: u64| {
            temporary.file.write_all(bytes).at("write", &temporary.path)?;
            blobs.progress(descriptor, so_far);
            Ok(())
        };
        match blobs.source.blob(descriptor)? {
            Blob::File(range) => stream(place, descriptor, range, blobs.stop, take)?,
            Blob::Stream(reader) => stream(place, descriptor, reader, blobs.stop, take)?,
        }
        temporary.place(&directory, descriptor.digest.hex())?;
        Ok(BlobState::Copied)
    }

    fn finish(self: Box<Self>, plan: &Plan) -> Result<()> {
        let Some(root) = plan.root() else { return Ok(()) };
        for document in &plan.documents {
            check_bytes(&self.place, &document.descriptor, &document.bytes)?;
            if self.has(None, &document.descriptor)? {
                continue;
            }
            let directory = self.blobs_directory(&document.descriptor)?;
            let mut temporary = self.temporary()?;
            temporary.file.write_all(&document.bytes).at("write", &temporary.path)?;
            temporary.place(&directory, document.descriptor.digest.hex())?;
        }
        let _lock = self.lock()?;
        // All blobs before the first name that leads to them: a power cut keeps the order.
        rustix::fs::syncfs(&self.directory).at("syncfs", &self.path)?;
        self.put_file(ImageLayout::INDEX_FILE, &self.index_with(root)?.to_canonical_json())?;
        rustix::fs::fsync(&self.directory).at("fsync", &self.path)?;
        Ok(())
    }
}

/// A file on its way; gone when it is dropped before it has a name.
struct Temporary {
    path: PathBuf,
    file: File,
    is_placed: bool,
}

impl Temporary {
    /// Gives the file its name, in place of what has it.
    fn place(mut self, directory: &OwnedFd, name: &str) -> Result<()> {
        rustix::fs::renameat(rustix::fs::CWD, &self.path, directory, name).at("renameat", name)?;
        self.is_placed = true;
        Ok(())
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.is_placed {
            // The next writer takes it away if this fails.
            let _ = rustix::fs::unlink(&self.path);
        }
    }
}
