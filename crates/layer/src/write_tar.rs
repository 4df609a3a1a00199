//! A layer as tar: always the same bytes from the same tree (image-spec, layer.md).
//!
//! ustar headers; a PAX header before one only where ustar cannot hold a value: long or non-ASCII names, large numbers,
//! extended attributes. Whole seconds. No names of users. A change of a single byte here changes the diff ID of every
//! layer that is built afterwards, so it is a format break.

use std::fs::File;
use std::io::{self, Read, Write};

use mica_tree::{Entry, Index, Kind};
use thiserror::Error;

const BLOCK_BYTES: usize = 512;
/// The most that eleven octal digits hold.
const OCTAL_11_MAX: u64 = 0o77_777_777_777;
/// The most that seven octal digits hold.
const OCTAL_7_MAX: u32 = 0o7_777_777;

/// Why a layer could not be written as tar.
#[derive(Debug, Error)]
pub enum WriteTarError {
    /// A file of the tree is not as long as the index says.
    #[error("`{path}` is not as long as the layer's index says: expected {expected_bytes} bytes")]
    Length {
        /// Path in the layer.
        path: String,
        /// Length in the index.
        expected_bytes: u64,
    },
    /// A file of the tree could not be read.
    #[error("cannot read `{path}` of the layer: {source}")]
    Read {
        /// Path in the layer.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// The bytes could not be written.
    #[error("cannot write the layer: {source}")]
    Write {
        /// Why.
        source: io::Error,
    },
}

/// Writes the tar of a layer; returns its length. `open` gives the content of a file of the layer's tree.
pub fn write_tar(
    index: &Index,
    open: &mut dyn FnMut(&Entry) -> io::Result<File>,
    out: &mut impl Write,
) -> Result<u64, WriteTarError> {
    let failed = |source| WriteTarError::Write { source };
    let mut header = Vec::with_capacity(4 * BLOCK_BYTES);
    let mut buffer = vec![0; 256 * 1024];
    let mut length = 0;
    for entry in index.entries() {
        header.clear();
        encode_header(entry, first_name(index, entry), &mut header);
        out.write_all(&header).map_err(failed)?;
        length += header.len() as u64;
        let Kind::File { size, .. } = entry.kind else { continue };
        if size == 0 {
            continue;
        }
        let path = || String::from_utf8_lossy(&entry.path).into_owned();
        let wrong = || WriteTarError::Length { path: path(), expected_bytes: size };
        let mut file = open(entry).map_err(|source| WriteTarError::Read { path: path(), source })?;
        let mut left = size;
        loop {
            let count = match file.read(&mut buffer) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(WriteTarError::Read { path: path(), source }),
            };
            if count == 0 {
                break;
            }
            left = left.checked_sub(count as u64).ok_or_else(wrong)?;
            out.write_all(&buffer[..count]).map_err(failed)?;
        }
        if left != 0 {
            return Err(wrong());
        }
        out.write_all(&[0; BLOCK_BYTES][..padding(size)]).map_err(failed)?;
        length += size + padding(size) as u64;
    }
    out.write_all(&END).map_err(failed)?;
    Ok(length + END.len() as u64)
}

/// What ends a tar: two empty blocks.
pub const END: [u8; 2 * BLOCK_BYTES] = [0; 2 * BLOCK_BYTES];

/// Zero bytes that follow a content of `size` bytes.
pub fn padding(size: u64) -> usize {
    (BLOCK_BYTES - (size % BLOCK_BYTES as u64) as usize) % BLOCK_BYTES
}

/// The entry that holds the attributes of a hard link.
pub fn first_name<'i>(index: &'i Index, entry: &Entry) -> Option<&'i Entry> {
    match &entry.kind {
        Kind::Hardlink { target } => index.get(target),
        _ => None,
    }
}

/// Appends the header blocks of an entry: nothing for the root and for sockets, two headers for an opaque directory.
/// `first` is the entry that a hard link is one more name of: readers set owner and mode from every header.
pub fn encode_header(entry: &Entry, first: Option<&Entry>, out: &mut Vec<u8>) {
    if entry.path.is_empty() {
        if matches!(entry.kind, Kind::Directory { opaque: true, .. }) {
            marker(b".wh..wh..opq".to_vec(), out);
        }
        return;
    }
    let attributes = first.unwrap_or(entry);
    let mut header = Header {
        name: entry.path.clone(),
        link: Vec::new(),
        mode: attributes.mode,
        uid: attributes.uid,
        gid: attributes.gid,
        size: 0,
        seconds: attributes.mtime.seconds,
        kind: b'0',
        device: (0, 0),
        xattrs: &entry.xattrs,
    };
    match &entry.kind {
        Kind::File { size, .. } => header.size = *size,
        Kind::Directory { .. } => {
            header.name.push(b'/');
            header.kind = b'5';
        }
        Kind::Symlink { target } => {
            header.link.clone_from(target);
            header.kind = b'2';
        }
        Kind::Hardlink { target } => {
            header.link.clone_from(target);
            header.kind = b'1';
            header.xattrs = &[];
        }
        Kind::CharDevice { rdev } => (header.kind, header.device) = (b'3', *rdev),
        Kind::BlockDevice { rdev } => (header.kind, header.device) = (b'4', *rdev),
        Kind::Fifo => header.kind = b'6',
        Kind::Socket => return,
        Kind::Whiteout => {
            let name = entry.name().len();
            let at = entry.path.len() - name;
            header.name.splice(at..at, *b".wh.");
            return marker(header.name, out);
        }
    }
    header.encode(out);
    if let Kind::Directory { opaque: true, .. } = entry.kind {
        header.name.extend_from_slice(b".wh..wh..opq");
        marker(header.name, out);
    }
}

/// A whiteout: an empty file whose name says what is gone.
fn marker(name: Vec<u8>, out: &mut Vec<u8>) {
    let (link, device) = (Vec::new(), (0, 0));
    Header { name, link, mode: 0, uid: 0, gid: 0, size: 0, seconds: 0, kind: b'0', device, xattrs: &[] }
        .encode(out);
}

struct Header<'e> {
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    seconds: i64,
    kind: u8,
    device: (u32, u32),
    xattrs: &'e [(Vec<u8>, Vec<u8>)],
}

impl Header<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut records: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: Vec<u8>| records.push((key.as_bytes().to_vec(), value));
        let split = split_name(&self.name);
        if split.is_none() {
            record("path", self.name.clone());
        }
        if self.link.len() > 100 || !self.link.is_ascii() {
            record("linkpath", self.link.clone());
        }
        if self.uid > OCTAL_7_MAX {
            record("uid", self.uid.to_string().into());
        }
        if self.gid > OCTAL_7_MAX {
            record("gid", self.gid.to_string().into());
        }
        if self.size > OCTAL_11_MAX {
            record("size", self.size.to_string().into());
        }
        let time = u64::try_from(self.seconds).ok().filter(|seconds| *seconds <= OCTAL_11_MAX);
        if time.is_none() {
            record("mtime", self.seconds.to_string().into());
        }
        for (name, value) in self.xattrs {
            records.push(([b"SCHILY.xattr.", name.as_slice()].concat(), value.clone()));
        }
        if !records.is_empty() {
            records.sort();
            encode_pax(&self.name, &records, out);
        }
        let (prefix, name) = split.unwrap_or((b"", &self.name[..self.name.len().min(100)]));
        let name = if name.is_ascii() { name } else { b"" };
        let link = if self.link.is_ascii() { &self.link[..self.link.len().min(100)] } else { b"" };
        let number = |value: u32| if value > OCTAL_7_MAX { 0 } else { u64::from(value) };
        let size = if self.size > OCTAL_11_MAX { 0 } else { self.size };
        let block = Block {
            name,
            prefix,
            link,
            mode: self.mode,
            uid: number(self.uid),
            gid: number(self.gid),
            size,
            seconds: time.unwrap_or(0),
            kind: self.kind,
            device: self.device,
        };
        block.encode(out);
    }
}

/// `(prefix, name)` as ustar holds them, if it can.
fn split_name(name: &[u8]) -> Option<(&[u8], &[u8])> {
    if !name.is_ascii() {
        return None;
    }
    if name.len() <= 100 {
        return Some((b"", name));
    }
    // The slash between the two is not stored; one at the very end belongs to the name.
    let last = name.len() - 1;
    let at = (0..last.min(156)).rev().find(|at| name[*at] == b'/')?;
    (at > 0 && name.len() - at - 1 <= 100).then(|| (&name[..at], &name[at + 1..]))
}

fn encode_pax(name: &[u8], records: &[(Vec<u8>, Vec<u8>)], out: &mut Vec<u8>) {
    let mut body = Vec::new();
    for (key, value) in records {
        // The length counts its own digits.
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length != rest + length.to_string().len() {
            length = rest + length.to_string().len();
        }
        body.extend_from_slice(length.to_string().as_bytes());
        body.push(b' ');
        body.extend_from_slice(key);
        body.push(b'=');
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    let base = trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or(trimmed);
    let mut pax_name = b"PaxHeaders.0/".to_vec();
    pax_name.extend(base.iter().copied().filter(u8::is_ascii).take(100 - pax_name.len()));
    Block {
        name: &pax_name,
        prefix: b"",
        link: b"",
        mode: 0,
        uid: 0,
        gid: 0,
        size: body.len() as u64,
        seconds: 0,
        kind: b'x',
        device: (0, 0),
    }
    .encode(out);
    out.extend_from_slice(&body);
    out.resize(out.len() + padding(body.len() as u64), 0);
}

/// One ustar header block, values known to fit.
struct Block<'a> {
    name: &'a [u8],
    prefix: &'a [u8],
    link: &'a [u8],
    mode: u32,
    uid: u64,
    gid: u64,
    size: u64,
    seconds: u64,
    kind: u8,
    device: (u32, u32),
}

impl Block<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let mut block = [0_u8; BLOCK_BYTES];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, self.name);
        put(100, octal(u64::from(self.mode), 7).as_slice());
        put(108, octal(self.uid, 7).as_slice());
        put(116, octal(self.gid, 7).as_slice());
        put(124, octal(self.size, 11).as_slice());
        put(136, octal(self.seconds, 11).as_slice());
        put(148, b"        ");
        put(156, &[self.kind]);
        put(157, self.link);
        put(257, b"ustar\x0000");
        put(329, octal(u64::from(self.device.0), 7).as_slice());
        put(337, octal(u64::from(self.device.1), 7).as_slice());
        put(345, self.prefix);
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        block[148..154].copy_from_slice(&octal(sum, 6));
        block[154] = 0;
        out.extend_from_slice(&block);
    }
}

/// `value` as exactly `digits` octal digits.
fn octal(value: u64, digits: usize) -> Vec<u8> {
    (0..digits).rev().map(|digit| b'0' + (value >> (3 * digit) & 7) as u8).collect()
}
