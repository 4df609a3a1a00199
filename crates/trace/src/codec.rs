//! A record as bytes.
//!
//! ```text
//! magic    8   b"micarec" and the version of this layout, 1; a change of the layout changes the version
//! checksum 32  BLAKE3 of all after it
//! zstd frame of
//!   count    varint   trees, each:
//!     count    varint   uses, sorted by `compare_paths`, each:
//!       shared   varint   bytes of the path that are those of the use before
//!       rest     bytes    varint length, then the bytes
//!       tag      1        see `tag`; the bits above say which optional parts there are
//!       by tag
//! ```

use std::cmp::Ordering;
use std::io::Read;

use mica_tree::compact::{Malformed, Reader, put_bytes, put_signed, put_varint};
use mica_tree::index::{PATH_BYTES_MAX, is_clean};
use mica_tree::{Time, compare_paths};
use thiserror::Error;

use crate::record::{Attributes, ListedKind, Listing, Record, TreeUse, Use, Value};

const MAGIC: &[u8; 8] = b"micarec\x01";

/// Stands where nanoseconds stand when no time is recorded.
const NO_TIME: u32 = 1_000_000_000;

const CHECKSUM_BYTES: usize = 32;

const COMPRESSION_LEVEL: i32 = 3;

/// The largest window that is made for decompression, as a power of two; level 3 asks for 2^21.
const WINDOW_LOG_MAX: u32 = 23;

/// The longest record before compression. A use takes some fifty bytes, so this is far above what a step may use.
const PLAIN_BYTES_MAX: u64 = 256 << 20;

/// How much memory a record may take. Paths share their beginnings in the bytes but not in memory.
const MEMORY_BYTES_MAX: usize = 512 << 20;

/// Uses that room is made for at once when a record says that it has so many.
const USES_EXPECTED_MAX: usize = 1 << 16;

/// Which values have an optional part: the content of a file, or the listing of a directory.
const HAS_MORE: u8 = 0x40;
const HAS_XATTRS: u8 = 0x80;

/// Bytes that are not a record.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// It does not begin as a record does, or has a version that is not known here.
    #[error("not a record of a known version")]
    Magic,
    /// The checksum does not match: bytes were lost or altered.
    #[error("the checksum does not match")]
    Checksum,
    /// It cannot be decompressed.
    #[error("cannot be decompressed: {reason}")]
    Compression {
        /// Why.
        reason: String,
    },
    /// It would take more memory than any record may.
    #[error("too large")]
    TooLarge,
    /// The end came too early, or something stands where it cannot.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Paths or names are not in order, or one stands twice.
    #[error("`{path}` is out of order")]
    Order {
        /// Which.
        path: String,
    },
    /// A path is absolute, or has empty, `.` or `..` parts; or a name has a `/`.
    #[error("`{path}` is not a clean relative path")]
    Path {
        /// Which.
        path: String,
    },
}

impl Record {
    /// The bytes to keep. Paths have to be clean and in order, as [`TreeUse`] says.
    pub fn encode(&self) -> Vec<u8> {
        let mut plain =
            Vec::with_capacity(64 + self.trees.iter().map(|tree| tree.uses.len() * 64).sum::<usize>());
        put_varint(&mut plain, self.trees.len() as u64);
        for tree in &self.trees {
            put_varint(&mut plain, tree.uses.len() as u64);
            let mut last: &[u8] = b"";
            for used in &tree.uses {
                let shared = last.iter().zip(&used.path).take_while(|(a, b)| a == b).count();
                put_varint(&mut plain, shared as u64);
                put_bytes(&mut plain, &used.path[shared..]);
                put_value(&mut plain, &used.value);
                last = &used.path;
            }
        }
        // From memory to memory with a level that exists: only memory can be missing. What comes out then decodes to an
        // error, which is as good as no record.
        let compressed = zstd::encode_all(plain.as_slice(), COMPRESSION_LEVEL).unwrap_or_default();
        [MAGIC, blake3::hash(&compressed).as_bytes().as_slice(), &compressed].concat()
    }

    /// Reads what [`Record::encode`] wrote. Hostile bytes give an error, and take no more than some memory
    /// ([`RecordError::TooLarge`]).
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(RecordError::Magic)?;
        let (checksum, compressed) = rest.split_at_checked(CHECKSUM_BYTES).ok_or(RecordError::Checksum)?;
        if blake3::hash(compressed).as_bytes() != checksum {
            return Err(RecordError::Checksum);
        }
        let plain = decompress(compressed)?;
        let mut decoder = Decoder { reader: Reader::new(&plain, 0), memory_bytes: 0 };
        let record = decoder.record()?;
        match decoder.reader.is_at_end() {
            true => Ok(record),
            false => Err(decoder.reader.malformed().into()),
        }
    }
}

fn decompress(compressed: &[u8]) -> Result<Vec<u8>, RecordError> {
    let failed = |error: std::io::Error| RecordError::Compression { reason: error.to_string() };
    let mut decoder = zstd::Decoder::with_buffer(compressed).map_err(failed)?;
    decoder.window_log_max(WINDOW_LOG_MAX).map_err(failed)?;
    let mut plain = Vec::new();
    decoder.take(PLAIN_BYTES_MAX + 1).read_to_end(&mut plain).map_err(failed)?;
    match plain.len() as u64 > PLAIN_BYTES_MAX {
        true => Err(RecordError::TooLarge),
        false => Ok(plain),
    }
}

fn tag(value: &Value) -> u8 {
    match value {
        Value::Absent => 0,
        Value::Directory { .. } => 1,
        Value::File { .. } => 2,
        Value::Symlink { .. } => 3,
        Value::Special { kind, .. } => 4 + kind_tag(*kind),
    }
}

const KINDS: [ListedKind; 7] = [
    ListedKind::File,
    ListedKind::Directory,
    ListedKind::Symlink,
    ListedKind::CharDevice,
    ListedKind::BlockDevice,
    ListedKind::Fifo,
    ListedKind::Socket,
];

fn kind_tag(kind: ListedKind) -> u8 {
    match kind {
        ListedKind::File => 0,
        ListedKind::Directory => 1,
        ListedKind::Symlink => 2,
        ListedKind::CharDevice => 3,
        ListedKind::BlockDevice => 4,
        ListedKind::Fifo => 5,
        ListedKind::Socket => 6,
    }
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    let (attributes, has_more) = match value {
        Value::Absent => (None, false),
        Value::Directory { attributes, listing } => (Some(attributes), listing.is_some()),
        Value::File { attributes, content, .. } => (Some(attributes), content.is_some()),
        Value::Symlink { attributes, .. } | Value::Special { attributes, .. } => (Some(attributes), false),
    };
    let xattrs = attributes.and_then(|attributes| attributes.xattrs);
    let more = if has_more { HAS_MORE } else { 0 };
    out.push(tag(value) | more | if xattrs.is_some() { HAS_XATTRS } else { 0 });
    if let Some(attributes) = attributes {
        put_varint(out, u64::from(attributes.mode));
        put_varint(out, u64::from(attributes.uid));
        put_varint(out, u64::from(attributes.gid));
        out.extend(xattrs.into_iter().flatten());
    }
    match value {
        Value::Absent => {}
        Value::Directory { listing, .. } => {
            if let Some(listing) = listing {
                put_varint(out, listing.len() as u64);
                for (name, kind) in listing {
                    put_bytes(out, name);
                    out.push(kind_tag(*kind));
                }
            }
        }
        Value::File { size_bytes, mtime, names, content, .. } => {
            put_varint(out, *size_bytes);
            put_signed(out, mtime.map_or(0, |mtime| mtime.seconds));
            put_varint(out, u64::from(mtime.map_or(NO_TIME, |mtime| mtime.nanoseconds)));
            put_varint(out, names.len() as u64);
            names.iter().for_each(|name| put_bytes(out, name));
            out.extend(content.iter().flatten());
        }
        Value::Symlink { target, .. } => put_bytes(out, target),
        Value::Special { rdev, .. } => {
            put_varint(out, u64::from(rdev.0));
            put_varint(out, u64::from(rdev.1));
        }
    }
}

struct Decoder<'a> {
    reader: Reader<'a>,
    /// What the record takes so far.
    memory_bytes: usize,
}

impl Decoder<'_> {
    fn malformed<T>(&self) -> Result<T, RecordError> {
        Err(self.reader.malformed().into())
    }

    /// One more `T` with bytes of its own. Lists grow by doubling, so `T` counts twice.
    fn charge<T>(&mut self, own_bytes: usize) -> Result<(), RecordError> {
        self.memory_bytes = self.memory_bytes.saturating_add(2 * size_of::<T>()).saturating_add(own_bytes);
        match self.memory_bytes > MEMORY_BYTES_MAX {
            true => Err(RecordError::TooLarge),
            false => Ok(()),
        }
    }

    fn record(&mut self) -> Result<Record, RecordError> {
        let mut record = Record::default();
        for _ in 0..self.reader.varint()? {
            self.charge::<TreeUse>(0)?;
            let count = self.reader.varint()?;
            // Whoever claims more than that has to show them.
            let mut uses: Vec<Use> =
                Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(USES_EXPECTED_MAX));
            let mut path = Vec::new();
            for _ in 0..count {
                let shared = self.path(&mut path)?;
                // What both begin with makes no difference.
                let is_after =
                    |last: &Use| compare_paths(&last.path[shared..], &path[shared..]) == Ordering::Less;
                if uses.last().is_some_and(|last| !is_after(last)) {
                    return Err(RecordError::Order { path: text(&path) });
                }
                self.charge::<Use>(path.len())?;
                uses.push(Use { path: path.clone(), value: self.value()? });
            }
            record.trees.push(TreeUse { uses });
        }
        Ok(record)
    }

    /// Makes the path before, which is clean, to the next one. Returns how many bytes of it were said to be the same.
    fn path(&mut self, path: &mut Vec<u8>) -> Result<usize, RecordError> {
        let shared = self.reader.length()?;
        let rest = self.reader.slice()?;
        if shared > path.len() || shared + rest.len() > PATH_BYTES_MAX {
            return self.malformed();
        }
        path.truncate(shared);
        path.extend_from_slice(rest);
        // The components before the one that both share a part of are clean already. An empty rest behind one of them is not.
        let start = path[..shared].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        match start > 0 && start == path.len() || !is_clean(&path[start..]) {
            true => Err(RecordError::Path { path: text(path) }),
            false => Ok(shared),
        }
    }

    fn value(&mut self) -> Result<Value, RecordError> {
        let tag = self.reader.byte()?;
        let (has_more, has_xattrs, tag) = (tag & HAS_MORE != 0, tag & HAS_XATTRS != 0, tag & 0x3f);
        if (has_more && !matches!(tag, 1 | 2)) || (has_xattrs && tag == 0) {
            return self.malformed();
        }
        if tag == 0 {
            return Ok(Value::Absent);
        }
        let (mode, uid, gid) = (self.reader.number()?, self.reader.number()?, self.reader.number()?);
        if mode > 0o7777 {
            return self.malformed();
        }
        let xattrs = if has_xattrs { Some(self.reader.digest()?) } else { None };
        let attributes = Attributes { mode, uid, gid, xattrs };
        Ok(match tag {
            1 => {
                Value::Directory { attributes, listing: if has_more { Some(self.listing()?) } else { None } }
            }
            2 => {
                let size_bytes = self.reader.varint()?;
                let mtime = Time { seconds: self.reader.signed()?, nanoseconds: self.reader.number()? };
                if mtime.nanoseconds > NO_TIME {
                    return self.malformed();
                }
                let names = self.names()?;
                let content = if has_more { Some(self.reader.digest()?) } else { None };
                let mtime = (mtime.nanoseconds < NO_TIME).then_some(mtime);
                Value::File { attributes, size_bytes, mtime, names, content }
            }
            3 => {
                let target = self.reader.slice()?.to_vec();
                self.charge::<u8>(target.len())?;
                Value::Symlink { attributes, target }
            }
            tag => match KINDS.get(usize::from(tag - 4)) {
                Some(kind)
                    if !matches!(kind, ListedKind::File | ListedKind::Directory | ListedKind::Symlink) =>
                {
                    let rdev = (self.reader.number()?, self.reader.number()?);
                    Value::Special { attributes, kind: *kind, rdev }
                }
                _ => return self.malformed(),
            },
        })
    }

    fn listing(&mut self) -> Result<Listing, RecordError> {
        let mut listing = Listing::new();
        for _ in 0..self.reader.varint()? {
            let name = self.reader.slice()?;
            if name.is_empty() || name.contains(&b'/') {
                return Err(RecordError::Path { path: text(name) });
            }
            check_clean(name)?;
            if listing.last().is_some_and(|(last, _)| last.as_slice() >= name) {
                return Err(RecordError::Order { path: text(name) });
            }
            let Some(kind) = KINDS.get(usize::from(self.reader.byte()?)) else { return self.malformed() };
            self.charge::<(Vec<u8>, ListedKind)>(name.len())?;
            listing.push((name.to_vec(), *kind));
        }
        Ok(listing)
    }

    fn names(&mut self) -> Result<Vec<Vec<u8>>, RecordError> {
        let mut names: Vec<Vec<u8>> = Vec::new();
        for _ in 0..self.reader.varint()? {
            let name = self.reader.slice()?;
            check_clean(name)?;
            if names.last().is_some_and(|last| compare_paths(last, name) != Ordering::Less) {
                return Err(RecordError::Order { path: text(name) });
            }
            self.charge::<Vec<u8>>(name.len())?;
            names.push(name.to_vec());
        }
        Ok(names)
    }
}

fn check_clean(path: &[u8]) -> Result<(), RecordError> {
    match is_clean(path) {
        true => Ok(()),
        false => Err(RecordError::Path { path: text(path) }),
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
