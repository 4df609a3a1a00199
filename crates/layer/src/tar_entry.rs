//! Reading a tar entry by entry, from a stream, under limits.
//!
//! [`TarReader::next_entry`] gives a [`TarEntry`]; its content is then read through the same reader, or skipped by asking
//! for the next entry. Names come out clean; what cannot be cleaned is an error that names the entry.
//!
//! An own reader because a layer needs what ready ones do not give together: times before 1970 and parts of seconds, both
//! forms of extended attributes, an error for every malformed record, and Go's reading where programs disagree.

use std::collections::BTreeMap;
use std::io::{self, BufRead, Read};

use mica_tree::{Entry, Kind, Time};

use crate::error::{LayerError, Result};
use crate::sparse::{self, Segment};
use crate::tar_header::{self, BLOCK_SIZE_BYTES, Block, Header};

/// What a tar may ask of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TarLimits {
    /// Entries in all.
    pub entries_max: u64,
    /// Bytes of one PAX header; a value of an extended attribute can have 64 KiB, and a file some of them.
    pub pax_size_bytes_max: u64,
    /// Bytes of all extension headers (PAX, long names) together: they end up in memory.
    pub extensions_size_bytes_max: u64,
    /// Bytes in the holes of all sparse files together; they cost nothing in the tar, but time to hash.
    pub holes_size_bytes_max: u64,
}

impl Default for TarLimits {
    fn default() -> Self {
        Self {
            entries_max: 16_000_000,
            pax_size_bytes_max: 1 << 20,
            extensions_size_bytes_max: 4 << 30,
            holes_size_bytes_max: 64 << 30,
        }
    }
}

/// `PATH_MAX` of Linux, with its final NUL.
const PATH_SIZE_BYTES_MAX: usize = 4095;
/// `NAME_MAX` of Linux.
const NAME_SIZE_BYTES_MAX: usize = 255;
/// Headers of headers (long names, PAX) before an entry; real tars have three at most.
const EXTENSIONS_MAX: usize = 16;

/// An entry of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TarEntry {
    /// Everything but the content. The target of a hard link is a clean path; the root has the empty path.
    pub entry: Entry,
    /// Where the stored bytes belong if the file is sparse; all else between is holes.
    pub segments: Option<Vec<Segment>>,
}

/// Reads a tar from a stream.
#[derive(Debug)]
pub struct TarReader<R> {
    source: R,
    limits: TarLimits,
    offset_bytes: u64,
    /// Stored bytes of the current entry that nobody has read, and the padding behind them.
    remaining_bytes: u64,
    padding_bytes: u64,
    current_path: Vec<u8>,
    entries: u64,
    holes_size_bytes: u64,
    extensions_size_bytes: u64,
    globals: BTreeMap<Vec<u8>, Vec<u8>>,
    ended: bool,
}

/// What stood in headers before the header of an entry.
#[derive(Default)]
struct Extensions {
    pax: Option<Vec<u8>>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
}

impl<R: BufRead> TarReader<R> {
    /// A reader of an uncompressed tar.
    pub fn new(source: R, limits: TarLimits) -> Self {
        Self {
            source,
            limits,
            offset_bytes: 0,
            remaining_bytes: 0,
            padding_bytes: 0,
            current_path: Vec::new(),
            entries: 0,
            holes_size_bytes: 0,
            extensions_size_bytes: 0,
            globals: BTreeMap::new(),
            ended: false,
        }
    }

    /// The next entry; `None` at the end of the archive. Skips what is left of the content of the one before.
    pub fn next_entry(&mut self) -> Result<Option<TarEntry>> {
        let mut extensions = Extensions::default();
        for _ in 0..=EXTENSIONS_MAX {
            let Some((block, header)) = self.next_header()? else {
                if extensions.pax.is_some()
                    || extensions.long_name.is_some()
                    || extensions.long_link.is_some()
                {
                    return Err(self.header_error("the archive ends after an extension header"));
                }
                return Ok(None);
            };
            match header.type_flag {
                b'x' => self.keep_once(&header, |own| &mut own.pax, &mut extensions)?,
                b'L' => self.keep_once(&header, |own| &mut own.long_name, &mut extensions)?,
                b'K' => self.keep_once(&header, |own| &mut own.long_link, &mut extensions)?,
                b'g' => self.keep_globals(&header)?,
                // A label of the volume (GNU): names nothing.
                b'V' => self.set_content(&header.name, header.size)?,
                _ => {
                    self.entries += 1;
                    if self.entries > self.limits.entries_max {
                        return Err(LayerError::TooMany { what: "entries", max: self.limits.entries_max });
                    }
                    return self.entry_of(&block, header, &extensions).map(Some);
                }
            }
        }
        Err(self.header_error("too many extension headers in a row"))
    }

    /// Reads stored bytes of the current entry, without the holes of a sparse file; 0 at their end.
    pub fn read_stored(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let stored = self.stored()?;
        let size_bytes = stored.len().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..size_bytes), stored.get(..size_bytes)) {
            to.copy_from_slice(from);
        }
        self.consume_stored(size_bytes);
        Ok(size_bytes)
    }

    /// Stored bytes of the current entry as they lie in the source's buffer; empty at their end.
    pub fn stored(&mut self) -> Result<&[u8]> {
        if self.remaining_bytes == 0 {
            return Ok(&[]);
        }
        let remaining = usize::try_from(self.remaining_bytes).unwrap_or(usize::MAX);
        let (offset_bytes, path) = (self.offset_bytes, &self.current_path);
        let buffer = fill(&mut self.source)?;
        if buffer.is_empty() {
            let part = format!("the content of `{}`", path.escape_ascii());
            return Err(LayerError::Truncated { part, offset_bytes });
        }
        Ok(buffer.get(..remaining).unwrap_or(buffer))
    }

    /// Takes bytes that [`TarReader::stored`] showed.
    pub fn consume_stored(&mut self, size_bytes: usize) {
        self.source.consume(size_bytes);
        self.remaining_bytes = self.remaining_bytes.saturating_sub(size_bytes as u64);
        self.offset_bytes += size_bytes as u64;
    }

    /// A reader of the current entry's content, holes included.
    pub fn content<'a>(&'a mut self, entry: &'a TarEntry) -> Content<'a, R> {
        Content { reader: self, entry, position: 0, segment: 0 }
    }

    /// Reads the stream to its end, behind the end of the archive: a diff ID covers all bytes.
    pub fn drain(&mut self) -> Result<()> {
        loop {
            let size_bytes = fill(&mut self.source)?.len();
            if size_bytes == 0 {
                return Ok(());
            }
            self.source.consume(size_bytes);
            self.offset_bytes += size_bytes as u64;
        }
    }

    /// Bytes of the stream that were read so far.
    pub fn offset_bytes(&self) -> u64 {
        self.offset_bytes
    }

    fn header_error(&self, reason: &'static str) -> LayerError {
        LayerError::Header { offset_bytes: self.offset_bytes.saturating_sub(BLOCK_SIZE_BYTES as u64), reason }
    }

    fn next_header(&mut self) -> Result<Option<(Block, Header)>> {
        self.skip_content()?;
        if self.ended {
            return Ok(None);
        }
        // An archive may end without its two blocks of zeros, but not within a block.
        let Some(block) = self.read_block()? else {
            self.ended = true;
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return match self.read_block()? {
                Some(second) if second.iter().any(|byte| *byte != 0) => {
                    Err(self.header_error("a lone block of zeros before it"))
                }
                _ => Ok(None),
            };
        }
        let header = tar_header::parse_header(&block).map_err(|reason| self.header_error(reason))?;
        Ok(Some((block, header)))
    }

    fn read_block(&mut self) -> Result<Option<Block>> {
        let mut block = [0; BLOCK_SIZE_BYTES];
        let mut filled = 0;
        while let Some(rest) = block.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            let buffer = fill(&mut self.source)?;
            if buffer.is_empty() {
                if filled == 0 {
                    return Ok(None);
                }
                return Err(LayerError::Truncated {
                    part: "a header".into(),
                    offset_bytes: self.offset_bytes,
                });
            }
            let size_bytes = buffer.len().min(rest.len());
            if let (Some(to), Some(from)) = (rest.get_mut(..size_bytes), buffer.get(..size_bytes)) {
                to.copy_from_slice(from);
            }
            self.source.consume(size_bytes);
            self.offset_bytes += size_bytes as u64;
            filled += size_bytes;
        }
        Ok(Some(block))
    }

    fn set_content(&mut self, path: &[u8], size: i64) -> Result<()> {
        let size = u64::try_from(size).map_err(|_| self.header_error("the size is negative"))?;
        self.current_path = path.to_vec();
        self.remaining_bytes = size;
        self.padding_bytes = size.wrapping_neg() % BLOCK_SIZE_BYTES as u64;
        Ok(())
    }

    fn skip_content(&mut self) -> Result<()> {
        loop {
            let size_bytes = self.stored()?.len();
            if size_bytes == 0 {
                break;
            }
            self.consume_stored(size_bytes);
        }
        self.remaining_bytes = std::mem::take(&mut self.padding_bytes);
        while self.remaining_bytes > 0 {
            let size_bytes = self.stored()?.len();
            self.consume_stored(size_bytes);
        }
        Ok(())
    }

    fn read_extension(&mut self, header: &Header) -> Result<Vec<u8>> {
        self.set_content(&header.name, header.size)?;
        if self.remaining_bytes > self.limits.pax_size_bytes_max {
            let max = self.limits.pax_size_bytes_max;
            return Err(LayerError::TooMany { what: "bytes in an extension header", max });
        }
        self.extensions_size_bytes = self.extensions_size_bytes.saturating_add(self.remaining_bytes);
        if self.extensions_size_bytes > self.limits.extensions_size_bytes_max {
            let max = self.limits.extensions_size_bytes_max;
            return Err(LayerError::TooMany { what: "bytes in all extension headers", max });
        }
        let mut data = Vec::with_capacity(usize::try_from(self.remaining_bytes).unwrap_or(0));
        loop {
            let stored = self.stored()?;
            if stored.is_empty() {
                return Ok(data);
            }
            data.extend_from_slice(stored);
            let size_bytes = stored.len();
            self.consume_stored(size_bytes);
        }
    }

    fn keep_once(
        &mut self,
        header: &Header,
        place: impl Fn(&mut Extensions) -> &mut Option<Vec<u8>>,
        extensions: &mut Extensions,
    ) -> Result<()> {
        let mut data = self.read_extension(header)?;
        if header.type_flag != b'x' {
            data.truncate(tar_header::until_nul(&data).len());
        }
        if place(extensions).replace(data).is_some() {
            return Err(self.header_error("the same extension header twice for one entry"));
        }
        Ok(())
    }

    fn keep_globals(&mut self, header: &Header) -> Result<()> {
        let data = self.read_extension(header)?;
        let records =
            tar_header::parse_pax(&data).ok_or_else(|| self.header_error("malformed PAX records"))?;
        for (key, value) in records {
            // Only what makes sense for many entries; a name or size for all of them is an attack or a mistake.
            if matches!(key, b"uid" | b"gid" | b"mtime") {
                self.globals.insert(key.to_vec(), value.to_vec());
            }
        }
        Ok(())
    }

    fn entry_of(&mut self, block: &Block, mut header: Header, extensions: &Extensions) -> Result<TarEntry> {
        let pax_data = extensions.pax.as_deref().unwrap_or_default();
        let records = tar_header::parse_pax(pax_data)
            .ok_or_else(|| LayerError::Field { path: header.name.as_slice().into(), field: "PAX records" })?;
        let globals: Vec<_> = self.globals.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        let mut mtime = Time { seconds: header.mtime, nanoseconds: 0 };
        let mut xattrs = BTreeMap::new();
        let all = globals
            .iter()
            .map(|(key, value)| (key.as_slice(), value.as_slice()))
            .chain(records.iter().copied());
        for (key, value) in all {
            // POSIX: an empty value takes the record back, what the header says is valid again.
            if value.is_empty()
                && !key.starts_with(b"SCHILY.xattr.")
                && !key.starts_with(b"LIBARCHIVE.xattr.")
            {
                continue;
            }
            let name = header.name.clone();
            let invalid = |field| LayerError::Field { path: name.as_slice().into(), field };
            let number = |field| {
                let number = tar_header::decimal(value).and_then(|number| i64::try_from(number).ok());
                number.ok_or_else(|| invalid(field))
            };
            match key {
                b"path" => header.name = value.to_vec(),
                b"linkpath" => header.link_name = value.to_vec(),
                b"size" => header.size = number("PAX `size`")?,
                b"uid" => header.uid = number("PAX `uid`")?,
                b"gid" => header.gid = number("PAX `gid`")?,
                b"mtime" => {
                    let (seconds, nanoseconds) =
                        tar_header::parse_time(value).ok_or_else(|| invalid("PAX `mtime`"))?;
                    mtime = Time { seconds, nanoseconds };
                }
                _ => {
                    if let Some(xattr) = key.strip_prefix(b"SCHILY.xattr.") {
                        xattrs.insert(xattr.to_vec(), value.to_vec());
                    } else if let Some(xattr) = key.strip_prefix(b"LIBARCHIVE.xattr.") {
                        let xattr =
                            percent_decoded(xattr).ok_or_else(|| invalid("PAX `LIBARCHIVE.xattr`"))?;
                        let value = base64_decoded(value).ok_or_else(|| invalid("PAX `LIBARCHIVE.xattr`"))?;
                        // Both forms are there in tars of bsdtar, with the same value.
                        xattrs.entry(xattr).or_insert(value);
                    }
                }
            }
        }
        // GNU's long names win over PAX, as in Go.
        if let Some(name) = &extensions.long_name {
            header.name.clone_from(name);
        }
        if let Some(link) = &extensions.long_link {
            header.link_name.clone_from(link);
        }
        header.type_flag = match header.type_flag {
            // Tars from before 1988 know no directories but by their final slash.
            0 if header.name.ends_with(b"/") => b'5',
            // "Contiguous" files are files.
            0 | b'7' => b'0',
            other => other,
        };
        let is_file = matches!(header.type_flag, b'0' | b'S' | b'D');
        // As in Go: what has no content has none, whatever its size says.
        let size = if is_file { header.size } else { 0 };
        self.set_content(&header.name, size)?;
        let map = if is_file { self.sparse_map(block, &header, &records)? } else { None };
        if let Some(name) = map.as_ref().and_then(|map| map.name.as_ref()) {
            header.name.clone_from(name);
        }
        self.finish_entry(header, map, mtime, xattrs)
    }

    fn sparse_map(
        &mut self,
        block: &Block,
        header: &Header,
        pax: &[(&[u8], &[u8])],
    ) -> Result<Option<sparse::Map>> {
        let invalid = || LayerError::Field { path: header.name.as_slice().into(), field: "sparse map" };
        let mut read_block = || -> Result<Block> {
            self.read_block()?
                .ok_or(LayerError::Truncated { part: "a sparse map".into(), offset_bytes: self.offset_bytes })
        };
        let map = if header.type_flag == b'S' {
            if !header.is_gnu {
                return Err(invalid());
            }
            // The blocks of the map stand between header and content and are not counted in the size.
            Some(sparse::parse_gnu(block, &mut read_block)?.ok_or_else(invalid)?)
        } else {
            let mut map = sparse::parse_pax(pax).map_err(|()| invalid())?;
            if let Some(map) = map.as_mut().filter(|map| map.in_content) {
                let blocks = sparse::parse_pax_content(map, &mut read_block)?.ok_or_else(invalid)?;
                let map_size_bytes = blocks * BLOCK_SIZE_BYTES as u64;
                self.remaining_bytes =
                    self.remaining_bytes.checked_sub(map_size_bytes).ok_or_else(invalid)?;
            }
            map
        };
        if let Some(map) = &map {
            let holes = sparse::check(map, self.remaining_bytes).ok_or_else(invalid)?;
            self.holes_size_bytes = self.holes_size_bytes.saturating_add(holes);
            if self.holes_size_bytes > self.limits.holes_size_bytes_max {
                let max = self.limits.holes_size_bytes_max;
                return Err(LayerError::TooMany { what: "bytes in the holes of sparse files", max });
            }
        }
        Ok(map)
    }

    fn finish_entry(
        &mut self,
        header: Header,
        map: Option<sparse::Map>,
        mtime: Time,
        xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    ) -> Result<TarEntry> {
        let path = clean_path(&header.name)?;
        let invalid = |field| LayerError::Field { path: header.name.as_slice().into(), field };
        let id = |id: i64, field| u32::try_from(id).map_err(|_| invalid(field));
        let rdev = || -> Result<(u32, u32)> {
            Ok((id(header.device.0, "major device number")?, id(header.device.1, "minor device number")?))
        };
        let kind = match header.type_flag {
            b'0' | b'S' => {
                let size = map.as_ref().map_or(self.remaining_bytes, |map| map.size_bytes);
                Kind::File { size, content: None }
            }
            b'1' => Kind::Hardlink { target: clean_path(&header.link_name)? },
            b'2' => {
                if header.link_name.is_empty() || header.link_name.contains(&0) {
                    return Err(invalid("target of a symbolic link"));
                }
                if header.link_name.len() > PATH_SIZE_BYTES_MAX {
                    return Err(invalid("length of the target of a symbolic link"));
                }
                Kind::Symlink { target: header.link_name.clone() }
            }
            b'3' => Kind::CharDevice { rdev: rdev()? },
            b'4' => Kind::BlockDevice { rdev: rdev()? },
            // `D` is a directory with a list of names, from GNU's incremental backups.
            b'5' | b'D' => Kind::Directory { opaque: false, implied: false },
            b'6' => Kind::Fifo,
            other => {
                let type_flag = other.escape_ascii().to_string();
                return Err(LayerError::Type { path: header.name.as_slice().into(), type_flag });
            }
        };
        if path.is_empty() && !matches!(kind, Kind::Directory { .. }) {
            return Err(LayerError::Name {
                path: header.name.as_slice().into(),
                reason: "only a directory can be the root",
            });
        }
        for name in xattrs.keys() {
            if name.is_empty() || name.len() > NAME_SIZE_BYTES_MAX || name.contains(&0) {
                return Err(invalid("name of an extended attribute"));
            }
        }
        let owner = |owner, field| match id(owner, field)? {
            // The kernel keeps this one for "no change".
            u32::MAX => Err(invalid(field)),
            owner => Ok(owner),
        };
        let entry = Entry {
            path,
            kind,
            mode: u32::try_from(header.mode & 0o7777).unwrap_or(0),
            uid: owner(header.uid, "owner")?,
            gid: owner(header.gid, "group")?,
            mtime,
            xattrs: xattrs.into_iter().collect(),
        };
        Ok(TarEntry { entry, segments: map.map(|map| map.segments) })
    }
}

fn fill<R: BufRead>(source: &mut R) -> Result<&[u8]> {
    loop {
        match source.fill_buf() {
            // Asked again below: what this arm would return cannot be lent out of a loop (the compiler's known limit).
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(source.fill_buf()?)
}

/// The path of a tar entry without leading `/`, `.` components and doubled or final slashes.
pub fn clean_path(name: &[u8]) -> Result<Vec<u8>> {
    let wrong = |reason| Err(LayerError::Name { path: name.into(), reason });
    if name.is_empty() {
        return wrong("the name is empty");
    }
    if name.contains(&0) {
        return wrong("the name contains a NUL byte");
    }
    let mut path = Vec::with_capacity(name.len());
    for component in name.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => continue,
            b".." => return wrong("`..` in a name could lead out of the layer"),
            _ => {}
        }
        if component.len() > NAME_SIZE_BYTES_MAX {
            return wrong("a component of the name is longer than 255 bytes");
        }
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(component);
    }
    if path.len() > PATH_SIZE_BYTES_MAX {
        return wrong("the name is longer than 4095 bytes");
    }
    Ok(path)
}

fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        if *byte == b'%' {
            let high = (*bytes.next()? as char).to_digit(16)?;
            let low = (*bytes.next()? as char).to_digit(16)?;
            decoded.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            decoded.push(*byte);
        }
    }
    Some(decoded)
}

fn base64_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0_u32, 0);
    for byte in text.iter().filter(|byte| !matches!(byte, b'=' | b'\n')) {
        let digit = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(digit);
        count += 6;
        if count >= 8 {
            count -= 8;
            decoded.push((bits >> count & 0xff) as u8);
        }
    }
    Some(decoded)
}

/// The content of one entry, holes read as zeros.
#[derive(Debug)]
pub struct Content<'a, R> {
    reader: &'a mut TarReader<R>,
    entry: &'a TarEntry,
    position: u64,
    segment: usize,
}

impl<R: BufRead> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(segments) = &self.entry.segments else {
            return Ok(self.reader.read_stored(buffer)?);
        };
        let Kind::File { size, .. } = self.entry.entry.kind else { return Ok(0) };
        while segments
            .get(self.segment)
            .is_some_and(|segment| self.position >= segment.offset + segment.size_bytes)
        {
            self.segment += 1;
        }
        let (until, stored) = match segments.get(self.segment) {
            Some(segment) if self.position >= segment.offset => (segment.offset + segment.size_bytes, true),
            Some(segment) => (segment.offset, false),
            None => (size, false),
        };
        let wanted =
            usize::try_from(until.saturating_sub(self.position)).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..wanted).unwrap_or_default();
        let size_bytes = if stored {
            self.reader.read_stored(part)?
        } else {
            part.fill(0);
            wanted
        };
        self.position += size_bytes as u64;
        Ok(size_bytes)
    }
}
