//! The files of a tar by their paths in it, read in any order.
//!
//! A path is looked up among the members of the tar, never on the machine; links of the tar lead to its members only. A tar
//! that cannot be read at any place (a pipe, a compressed or sparse one) is first copied into a file that the caller gives.

use std::cell::Cell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::sync::Arc;

use mica_tree::{Kind, parent};

use crate::compress::{Compression, Limits, MAGIC_SIZE_BYTES, decompress};
use crate::error::LayerError;
use crate::tar_entry::{TarLimits, TarReader, clean_path};

/// Members of an archive: an image has hundreds of layers at most, an archive thousands of images.
const LIMITS: TarLimits = TarLimits {
    entries_max: 1_000_000,
    pax_size_bytes_max: 1 << 20,
    extensions_size_bytes_max: 256 << 20,
    holes_size_bytes_max: 64 << 30,
};

/// Links that one member may lead through.
const LINKS_MAX: usize = 16;

/// The files of a tar that can be read at any place.
#[derive(Debug)]
pub struct Members {
    file: Arc<File>,
    members: HashMap<Vec<u8>, Member>,
}

#[derive(Debug)]
enum Member {
    File { offset: u64, size_bytes: u64 },
    Link { target: Vec<u8> },
    Other,
}

/// Why the files of a tar could not be copied.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The tar cannot be read.
    #[error(transparent)]
    Read(#[from] LayerError),
    /// The copy cannot be written.
    #[error(transparent)]
    Write(io::Error),
}

/// A member is there, and is no file: what it is instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NotAFile(pub &'static str);

impl Members {
    /// Finds the files of a tar where they lie. `None` if they cannot be read there: the tar is compressed, or no regular file,
    /// or one of its files is sparse.
    pub fn of_file(file: &Arc<File>) -> Result<Option<Self>, LayerError> {
        if !file.metadata()?.is_file() {
            return Ok(None);
        }
        let mut start = [0; MAGIC_SIZE_BYTES];
        let count = file.read_at(&mut start, 0)?;
        if Compression::detect(start.get(..count).unwrap_or_default()) != Compression::None {
            return Ok(None);
        }
        let members = scan(file)?;
        Ok(members.map(|members| Self { file: Arc::clone(file), members }))
    }

    /// Copies the files of a tar, compressed or not, into `spool`, an empty file open for reading and writing.
    pub fn of_stream(reader: impl Read + Send + 'static, mut spool: File) -> Result<Self, SpoolError> {
        let (_, mut reader) = decompress(reader, Limits::default())?;
        let mut members = HashMap::new();
        let mut offset: u64 = 0;
        let mut tar = TarReader::new(io::BufReader::with_capacity(256 << 10, &mut reader), LIMITS);
        while let Some(entry) = tar.next_entry()? {
            let member = match &entry.entry.kind {
                Kind::File { .. } => {
                    let size_bytes = copy(&mut tar.content(&entry), &mut spool)?;
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
        Ok(Self { file: Arc::new(spool), members })
    }

    /// Opens the file of that path; `None` if there is nothing.
    pub fn open(&self, path: &str) -> Result<Option<Range>, NotAFile> {
        let Ok(mut clean) = clean_path(path.as_bytes()) else { return Ok(None) };
        for _ in 0..LINKS_MAX {
            match self.members.get(&clean) {
                None => return Ok(None),
                Some(Member::File { offset, size_bytes }) => {
                    let end = offset.saturating_add(*size_bytes);
                    return Ok(Some(Range { file: Arc::clone(&self.file), offset: *offset, end }));
                }
                Some(Member::Link { target }) => clean.clone_from(target),
                Some(Member::Other) => return Err(NotAFile("not a file")),
            }
        }
        Err(NotAFile("a link that leads in a circle"))
    }
}

/// Members where they lie in the file; `None` if one of them is sparse, so that it does not lie there.
fn scan(file: &File) -> Result<Option<HashMap<Vec<u8>, Member>>, LayerError> {
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

fn copy(from: &mut impl Read, to: &mut impl Write) -> Result<u64, SpoolError> {
    let mut buffer = vec![0; 256 << 10];
    let mut size_bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return Ok(size_bytes),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(SpoolError::Read(error.into())),
        };
        to.write_all(buffer.get(..count).unwrap_or_default()).map_err(SpoolError::Write)?;
        size_bytes += count as u64;
    }
}

/// A part of a file, read without moving the file's own position.
#[derive(Debug, Clone)]
pub struct Range {
    file: Arc<File>,
    offset: u64,
    end: u64,
}

impl Range {
    /// A whole file, as long as it is now.
    pub fn of_file(file: File) -> io::Result<Self> {
        let end = file.metadata()?.len();
        Ok(Self { file: Arc::new(file), offset: 0, end })
    }

    /// The same without its first `offset` bytes.
    pub fn from(&self, offset: u64) -> Self {
        Self {
            file: Arc::clone(&self.file),
            offset: self.offset.saturating_add(offset).min(self.end),
            end: self.end,
        }
    }

    /// How much is left of it.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar_builder::TarBuilder;

    fn archive() -> Vec<u8> {
        TarBuilder::new()
            .dir("d/")
            .file("d/a", "first")
            .symlink("d/up", "../e")
            .symlink("d/round", "round")
            .symlink("out", "../../etc/passwd")
            .symlink("root", "/etc/passwd")
            .file("./e", "second")
            .file("e", "third")
            .link("hard", "d/a")
            .end()
    }

    fn check(path: &str, expect: &str) {
        let spool = || tempfile::tempfile().unwrap();
        let mut file = spool();
        file.write_all(&archive()).unwrap();
        let there = Members::of_file(&Arc::new(file)).unwrap().unwrap();
        let copied = Members::of_stream(io::Cursor::new(archive()), spool()).unwrap();
        for members in [there, copied] {
            let found = match members.open(path) {
                Ok(None) => "nothing".to_owned(),
                Ok(Some(mut range)) => {
                    let mut content = String::new();
                    range.read_to_string(&mut content).unwrap();
                    content
                }
                Err(error) => error.to_string(),
            };
            assert_eq!(found, expect, "{path}");
        }
    }

    #[test]
    fn members_are_found_by_name_only() {
        check("d/a", "first");
        check("/d//a", "first");
        check("e", "third");
        check("d/up", "third");
        check("hard", "first");
        check("d", "not a file");
        check("d/round", "a link that leads in a circle");
        check("out", "not a file");
        check("root", "not a file");
        check("/etc/passwd", "nothing");
        check("../etc/passwd", "nothing");
        check("", "nothing");
    }

    #[test]
    fn what_cannot_be_read_in_place_is_said() {
        let mut file = tempfile::tempfile().unwrap();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&archive()).unwrap();
        file.write_all(&encoder.finish().unwrap()).unwrap();
        assert!(Members::of_file(&Arc::new(file)).unwrap().is_none());
    }
}
