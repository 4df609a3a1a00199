//! The files of an archive by their paths in it, whatever it is: a tar, a compressed or piped tar, a directory.
//!
//! A path of the archive is looked up among the members of the tar; of a directory, it is opened beneath its handle
//! through no symbolic link. A tar that cannot be read at any place is first copied into the ingest directory.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use mica_layer::LayerError;
use mica_layer::compress::{Compression, Limits, MAGIC_SIZE_BYTES, decompress};
use mica_layer::tar_entry::{TarLimits, TarReader, clean_path};
use mica_oci::{DocumentError, DocumentKind, check_size};
use mica_store::{Ingest, Store};
use mica_sys::dir_at::open_beneath;
use mica_sys::error::ErrorAt;
use mica_tree::{Kind, parent};
use rustix::fs::{Mode, OFlags};

use crate::error::{ImageError, Result};

/// Members of an archive: an image has hundreds of layers at most, an archive thousands of images.
const LIMITS: TarLimits = TarLimits {
    entries_max: 1_000_000,
    pax_size_bytes_max: 1 << 20,
    extensions_size_bytes_max: 256 << 20,
    holes_size_bytes_max: 64 << 30,
};

/// Links that one member may lead through.
const LINKS_MAX: usize = 16;

/// An archive that can be read at any place.
pub(crate) enum Archive {
    Tar(TarArchive),
    Directory(OwnedFd),
}

pub(crate) struct TarArchive {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
    /// Holds the copy, if there is one.
    _ingest: Option<Ingest>,
}

enum Member {
    File { offset: u64, size_bytes: u64 },
    Link { target: Vec<u8> },
    Other,
}

impl Archive {
    /// An archive in a stream.
    pub fn of_stream(store: &Store, reader: impl Read + Send + 'static) -> Result<Self> {
        let archive_error = |source| ImageError::Archive { source };
        let (_, mut reader) = decompress(reader, Limits::default()).map_err(archive_error)?;
        let ingest = store.ingest()?;
        let path = ingest.path().join("archive");
        let mut file =
            File::options().read(true).write(true).create_new(true).open(&path).at("open", &path)?;
        let mut members = HashMap::new();
        let mut offset: u64 = 0;
        let mut tar = TarReader::new(io::BufReader::with_capacity(256 << 10, &mut reader), LIMITS);
        while let Some(entry) = tar.next_entry().map_err(archive_error)? {
            let member = match &entry.entry.kind {
                Kind::File { .. } => {
                    let mut content = tar.content(&entry);
                    let size_bytes = copy(&mut content, &mut file).map_err(|error| match error {
                        CopyError::Read(source) => archive_error(LayerError::from(source)),
                        CopyError::Write(source) => mica_sys::Error::new("write", &path, source).into(),
                    })?;
                    let member = Member::File { offset, size_bytes };
                    offset += size_bytes;
                    member
                }
                kind => other_member(&entry.entry.path, kind),
            };
            members.insert(entry.entry.path, member);
        }
        // Whoever writes into the pipe also writes what stands behind the archive, and must not fail at it.
        let _ = tar.drain();
        Ok(Self::Tar(TarArchive { file: Arc::new(file), members, _ingest: Some(ingest) }))
    }

    /// An archive in an open file: where it lies if that is possible, else copied.
    pub fn of_file(store: &Store, file: File) -> Result<Self> {
        let is_file = file.metadata().at("fstat", "archive")?.is_file();
        let mut start = [0; MAGIC_SIZE_BYTES];
        if !is_file {
            return Self::of_stream(store, file);
        }
        let count = file.read_at(&mut start, 0).at("pread", "archive")?;
        if Compression::detect(start.get(..count).unwrap_or_default()) != Compression::None {
            return Self::of_stream(store, file);
        }
        match scan(&file).map_err(|source| ImageError::Archive { source })? {
            Some(members) => Ok(Self::Tar(TarArchive { file: Arc::new(file), members, _ingest: None })),
            None => {
                let reader = Range { file: Arc::new(file), offset: 0, end: u64::MAX };
                Self::of_stream(store, reader)
            }
        }
    }

    /// An OCI layout in a directory.
    pub fn of_directory(directory: OwnedFd) -> Self {
        Self::Directory(directory)
    }

    /// Opens a member; `None` if there is none of that path.
    pub fn open(&self, path: &str) -> Result<Option<Range>> {
        let clean = match clean_path(path.as_bytes()) {
            Ok(clean) => clean,
            Err(_) => return Ok(None),
        };
        match self {
            Self::Tar(tar) => tar.open(path, clean),
            Self::Directory(directory) => {
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
                let file = match open_beneath(directory, &clean, flags, Mode::empty()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    opened => File::from(opened?),
                };
                let metadata = file.metadata().at("fstat", path)?;
                if !metadata.is_file() {
                    return Err(ImageError::MemberKind { member: path.to_owned(), what: "not a file" });
                }
                Ok(Some(Range { file: Arc::new(file), offset: 0, end: metadata.len() }))
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

impl TarArchive {
    fn open(&self, path: &str, mut clean: Vec<u8>) -> Result<Option<Range>> {
        let member = || path.to_owned();
        for _ in 0..LINKS_MAX {
            match self.members.get(&clean) {
                None => return Ok(None),
                Some(Member::File { offset, size_bytes }) => {
                    let end = offset.saturating_add(*size_bytes);
                    return Ok(Some(Range { file: Arc::clone(&self.file), offset: *offset, end }));
                }
                Some(Member::Link { target }) => clean.clone_from(target),
                Some(Member::Other) => {
                    return Err(ImageError::MemberKind { member: member(), what: "not a file" });
                }
            }
        }
        Err(ImageError::MemberKind { member: member(), what: "a link that leads in a circle" })
    }
}

/// Members where they lie in the file; `None` if one of them is sparse, so that it does not lie there.
fn scan(file: &File) -> std::result::Result<Option<HashMap<Vec<u8>, Member>>, LayerError> {
    let file_size_bytes = file.metadata()?.len();
    let skip_until = Rc::new(Cell::new(0));
    let mut members = HashMap::new();
    let mut tar = TarReader::new(Skipping::new(file, Rc::clone(&skip_until)), LIMITS);
    while let Some(entry) = tar.next_entry()? {
        if entry.segments.is_some() {
            return Ok(None);
        }
        let member = match &entry.entry.kind {
            Kind::File { size, .. } => {
                let offset = tar.offset_bytes();
                let end = offset.saturating_add(*size);
                if end <= file_size_bytes {
                    skip_until.set(end);
                }
                Member::File { offset, size_bytes: *size }
            }
            kind => other_member(&entry.entry.path, kind),
        };
        members.insert(entry.entry.path, member);
    }
    Ok(Some(members))
}

fn other_member(path: &[u8], kind: &Kind) -> Member {
    match kind {
        Kind::Hardlink { target } => Member::Link { target: target.clone() },
        Kind::Symlink { target } => match resolve_link(path, target) {
            Some(target) => Member::Link { target },
            None => Member::Other,
        },
        _ => Member::Other,
    }
}

/// Where a symbolic link of the archive leads within it.
fn resolve_link(path: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let directory = parent(path).unwrap_or_default();
    let mut parts: Vec<&[u8]> =
        directory.split(|byte| *byte == b'/').filter(|part| !part.is_empty()).collect();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join(&b'/'))
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(from: &mut impl Read, to: &mut impl Write) -> std::result::Result<u64, CopyError> {
    let mut buffer = vec![0; 256 << 10];
    let mut size_bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(size_bytes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(CopyError::Write)?;
        size_bytes += count as u64;
    }
}

/// A part of a file, read without moving the file's own position.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Range {
    pub fn size_bytes(&self) -> u64 {
        self.end.saturating_sub(self.offset)
    }
}

impl Read for Range {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let wanted = usize::try_from(self.size_bytes()).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(buffer.get_mut(..wanted).unwrap_or_default(), self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Reads a file, but for stretches that only have to be passed: there it says zeros and reads nothing, so that finding
/// the members of an archive does not read its layers.
struct Skipping<'a> {
    file: &'a File,
    skip_until: Rc<Cell<u64>>,
    at: u64,
    buffer: Vec<u8>,
    /// Where the buffer begins in the file.
    buffer_at: u64,
    zeros: Vec<u8>,
}

impl<'a> Skipping<'a> {
    fn new(file: &'a File, skip_until: Rc<Cell<u64>>) -> Self {
        Self { file, skip_until, at: 0, buffer: Vec::new(), buffer_at: 0, zeros: vec![0; 1 << 20] }
    }
}

const PIECE_SIZE_BYTES: usize = 16 << 10;

impl Read for Skipping<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let filled = self.fill_buf()?;
        let count = filled.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), filled.get(..count)) {
            to.copy_from_slice(from);
        }
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Skipping<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let skipped = self.skip_until.get().saturating_sub(self.at);
        if skipped > 0 {
            let count = usize::try_from(skipped).unwrap_or(usize::MAX).min(self.zeros.len());
            return Ok(self.zeros.get(..count).unwrap_or_default());
        }
        let is_inside = self.at >= self.buffer_at && self.at - self.buffer_at < self.buffer.len() as u64;
        if !is_inside {
            self.buffer.resize(PIECE_SIZE_BYTES, 0);
            let count = self.file.read_at(&mut self.buffer, self.at)?;
            self.buffer.truncate(count);
            self.buffer_at = self.at;
        }
        let position = usize::try_from(self.at - self.buffer_at).unwrap_or(usize::MAX);
        Ok(self.buffer.get(position..).unwrap_or_default())
    }

    fn consume(&mut self, count: usize) {
        self.at += count as u64;
    }
}
