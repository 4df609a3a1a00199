//! The files of a layout or archive by their paths in it: of a directory beneath its handle, of a tar among its members.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use mica_layer::members::{Members, Range, SpoolError};
use mica_layer::tar_entry::clean_path;
use mica_oci::{Descriptor, DocumentKind, ImageLayout, check_size};
use mica_sys::dir_at::open_beneath;
use mica_sys::error::ErrorAt;
use rustix::fs::{Mode, OFlags};

use crate::error::{CopyError, Result};
use crate::place::Place;
use crate::verify::{check_bytes, read_error};

/// A directory or a tar.
pub(crate) struct Files {
    /// For messages.
    pub place: Place,
    kind: Kind,
}

enum Kind {
    Directory(OwnedFd),
    Tar(Members),
}

impl Files {
    /// A directory.
    pub fn of_directory(place: &Place, path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = rustix::fs::open(path, flags, Mode::empty()).at("open", path)?;
        Ok(Self { place: place.clone(), kind: Kind::Directory(directory) })
    }

    /// A tar; one that cannot be read at any place is unfolded into a file of `spool_dir` that has no name.
    pub fn of_archive(place: &Place, path: &Path, spool_dir: &Path) -> Result<Self> {
        let file = Arc::new(File::open(path).at("open", path)?);
        let archive_error = |source| CopyError::Archive { place: place.boxed(), source };
        let members = match Members::of_file(&file).map_err(archive_error)? {
            Some(members) => members,
            None => {
                let spool = tempfile::tempfile_in(spool_dir).at("open", spool_dir)?;
                Members::of_stream(Shared(file), spool).map_err(|error| match error {
                    SpoolError::Read(source) => archive_error(source),
                    SpoolError::Write(source) => mica_sys::Error::new("write", spool_dir, source).into(),
                })?
            }
        };
        Ok(Self { place: place.clone(), kind: Kind::Tar(members) })
    }

    /// Opens a file; `None` if there is nothing of that path.
    pub fn open(&self, path: &str) -> Result<Option<Range>> {
        let not_a_file =
            |what| CopyError::NotAFile { place: self.place.boxed(), member: path.to_owned(), what };
        match &self.kind {
            Kind::Tar(members) => members.open(path).map_err(|error| not_a_file(error.0)),
            Kind::Directory(directory) => {
                let Ok(clean) = clean_path(path.as_bytes()) else { return Ok(None) };
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let file = match open_beneath(directory, &clean, flags, Mode::empty()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    // ELOOP and EXDEV: a link stands in the way.
                    Err(error) if matches!(error.raw_os_error(), Some(40 | 18)) => {
                        return Err(not_a_file("behind a symbolic link"));
                    }
                    opened => File::from(opened?),
                };
                if !file.metadata().at("fstat", path)?.is_file() {
                    return Err(not_a_file("not a file"));
                }
                Ok(Some(Range::of_file(file).at("fstat", path)?))
            }
        }
    }

    /// As [`Files::open`]; nothing there is an error.
    pub fn require(&self, path: &str) -> Result<Range> {
        self.open(path)?
            .ok_or_else(|| CopyError::Missing { place: self.place.boxed(), member: path.to_owned() })
    }

    /// The bytes of a document; `None` if it is not there.
    pub fn document(&self, path: &str, kind: DocumentKind) -> Result<Option<Vec<u8>>> {
        let Some(range) = self.open(path)? else { return Ok(None) };
        check_size(kind, range.size_bytes()).map_err(|source| CopyError::Document {
            place: self.place.boxed(),
            member: path.to_owned(),
            source,
        })?;
        let mut bytes = Vec::new();
        // A file may grow while it is read.
        let mut reader = range.take(kind.size_bytes_max());
        reader.read_to_end(&mut bytes).map_err(|error| read_error(&self.place, error))?;
        Ok(Some(bytes))
    }

    /// The document that a descriptor names, held against it.
    pub fn blob_document(&self, descriptor: &Descriptor, kind: DocumentKind) -> Result<Vec<u8>> {
        let path = ImageLayout::blob_path(&descriptor.digest);
        let missing = || CopyError::Missing { place: self.place.boxed(), member: path.clone() };
        let bytes = self.document(&path, kind)?.ok_or_else(missing)?;
        check_bytes(&self.place, descriptor, &bytes)?;
        Ok(bytes)
    }
}

/// A file that others hold as well, from where its position is.
struct Shared(Arc<File>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}
