//! The files of an archive by their paths in it, whatever it is: a tar, a compressed or piped tar, a directory.
//!
//! A path of the archive is looked up among the members of the tar; of a directory, it is opened beneath its handle
//! through no symbolic link. A tar that cannot be read at any place is first copied into the ingest directory.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use mica_layer::members::{Members, Range, SpoolError};
use mica_layer::tar_entry::clean_path;
use mica_oci::{DocumentError, DocumentKind, check_size};
use mica_store::{Ingest, Store};
use mica_sys::dir_at::open_beneath;
use mica_sys::error::ErrorAt;
use rustix::fs::{Mode, OFlags};

use crate::error::{ImageError, Result};

/// An archive that can be read at any place.
pub(crate) enum Archive {
    Tar {
        members: Members,
        /// Holds the copy, if there is one.
        _ingest: Option<Ingest>,
    },
    Directory(OwnedFd),
}

impl Archive {
    /// An archive in a stream.
    pub fn of_stream(store: &Store, reader: impl Read + Send + 'static) -> Result<Self> {
        let ingest = store.ingest()?;
        let path = ingest.path().join("archive");
        let file = File::options().read(true).write(true).create_new(true).open(&path).at("open", &path)?;
        let members = Members::of_stream(reader, file).map_err(|error| match error {
            SpoolError::Read(source) => ImageError::Archive { source },
            SpoolError::Write(source) => mica_sys::Error::new("write", &path, source).into(),
        })?;
        Ok(Self::Tar { members, _ingest: Some(ingest) })
    }

    /// An archive in an open file: where it lies if that is possible, else copied.
    pub fn of_file(store: &Store, file: File) -> Result<Self> {
        let file = Arc::new(file);
        match Members::of_file(&file).map_err(|source| ImageError::Archive { source })? {
            Some(members) => Ok(Self::Tar { members, _ingest: None }),
            None => Self::of_stream(store, Shared(file)),
        }
    }

    /// An OCI layout in a directory.
    pub fn of_directory(directory: OwnedFd) -> Self {
        Self::Directory(directory)
    }

    /// Opens a member; `None` if there is none of that path.
    pub fn open(&self, path: &str) -> Result<Option<Range>> {
        let not_a_file = |what| ImageError::MemberKind { member: path.to_owned(), what };
        match self {
            Self::Tar { members, .. } => members.open(path).map_err(|error| not_a_file(error.0)),
            Self::Directory(directory) => {
                let Ok(clean) = clean_path(path.as_bytes()) else { return Ok(None) };
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let file = match open_beneath(directory, &clean, flags, Mode::empty()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    opened => File::from(opened?),
                };
                if !file.metadata().at("fstat", path)?.is_file() {
                    return Err(not_a_file("not a file"));
                }
                Ok(Some(Range::of_file(file).at("fstat", path)?))
            }
        }
    }

    /// As [`Archive::open`]; nothing there is an error.
    pub fn require(&self, path: &str) -> Result<Range> {
        self.open(path)?.ok_or_else(|| ImageError::MemberMissing { member: path.to_owned() })
    }

    /// The bytes of a document; `None` if it is not there.
    pub fn document(&self, path: &str, kind: DocumentKind) -> Result<Option<Vec<u8>>> {
        let Some(range) = self.open(path)? else { return Ok(None) };
        let wrong = |source: DocumentError| ImageError::Member { member: path.to_owned(), source };
        check_size(kind, range.size_bytes()).map_err(wrong)?;
        let mut bytes = Vec::new();
        let mut range = range;
        range.read_to_end(&mut bytes).at("read", path)?;
        Ok(Some(bytes))
    }
}

/// A file that others hold as well, from where its position is.
struct Shared(Arc<File>);

impl Read for Shared {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}
