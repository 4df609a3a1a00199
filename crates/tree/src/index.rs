//! All paths of one layer, and their form on disk.
//!
//! ```text
//! magic    8   b"micaidx" and the version of this layout, 1; a change of the layout changes the version
//! count    varint
//! entries  sorted by `compare_paths`, each:
//!          shared varint   bytes of the path that are those of the entry before
//!          rest   bytes    varint length, then the bytes
//!          kind   1        see `tag`
//!          mode uid gid    varints; not for hard links and whiteouts
//!          mtime           zigzag varint seconds, varint nanoseconds; not for hard links and whiteouts
//!          xattrs          varint count, then name and value as bytes; not for hard links and whiteouts
//!          by kind         file: varint size, 1 byte 0/1, 32 bytes digest if 1; links: target; devices: major, minor
//! checksum 32  BLAKE3 of all before it
//! ```

use std::cmp::Ordering;

use thiserror::Error;

use crate::compact::{Malformed, Reader, put_bytes, put_signed, put_varint};
use crate::entry::{Entry, Kind, Time, compare_paths};

const MAGIC: &[u8; 8] = b"micaidx\x01";

/// The longest path that an index holds, in bytes; PATH_MAX of Linux.
pub const PATH_BYTES_MAX: usize = 4096;

/// Bytes that are not an index.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum IndexError {
    /// It does not begin as an index does, or has a version that is not known here.
    #[error("not a layer index of a known version")]
    Magic,
    /// The checksum does not match: bytes were lost or altered.
    #[error("the checksum does not match")]
    Checksum,
    /// The end came too early, or something stands where it cannot.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// Paths are not in order, or one stands twice.
    #[error("`{path}` is out of order")]
    Order {
        /// Which.
        path: String,
    },
    /// A path is absolute, or has empty, `.` or `..` parts.
    #[error("`{path}` is not a clean relative path")]
    Path {
        /// Which.
        path: String,
    },
}

/// All paths of one layer, in the order of [`compare_paths`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    entries: Vec<Entry>,
    /// Positions of hard links: there are few, and whoever wants them should not have to go through everything.
    hard_links: Vec<u32>,
}

impl Index {
    /// An index of these entries, which may come in any order; each path once.
    pub fn new(mut entries: Vec<Entry>) -> Result<Self, IndexError> {
        entries.sort_by(|a, b| compare_paths(&a.path, &b.path));
        let index = Self::from_entries(entries);
        index.check()?;
        Ok(index)
    }

    /// An index of entries that are known to be in order, each path once.
    pub fn from_sorted(entries: Vec<Entry>) -> Self {
        debug_assert!(entries.is_sorted_by(|a, b| compare_paths(&a.path, &b.path) == Ordering::Less));
        Self::from_entries(entries)
    }

    fn from_entries(entries: Vec<Entry>) -> Self {
        let is_link = |entry: &Entry| matches!(entry.kind, Kind::Hardlink { .. });
        // The numbers fit: an index of 2^32 entries does not fit into memory.
        let hard_links = (0..).zip(&entries).filter(|(_, entry)| is_link(entry)).map(|(at, _)| at).collect();
        Self { entries, hard_links }
    }

    fn check(&self) -> Result<(), IndexError> {
        let text = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        for entry in &self.entries {
            if !is_clean(&entry.path) {
                return Err(IndexError::Path { path: text(&entry.path) });
            }
        }
        for pair in self.entries.windows(2) {
            if compare_paths(&pair[0].path, &pair[1].path) != Ordering::Less {
                return Err(IndexError::Order { path: text(&pair[1].path) });
            }
        }
        Ok(())
    }

    /// The entries in order.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The entries as a list of one's own.
    pub fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Positions of hard links in [`Index::entries`], in order.
    pub fn hard_links(&self) -> &[u32] {
        &self.hard_links
    }

    /// Position of a path in [`Index::entries`].
    pub fn position(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| compare_paths(&entry.path, path)).ok()
    }

    /// [`Index::position`] for somebody who goes through paths in order: quick where it is `next` or a little later.
    pub fn position_near(&self, path: &[u8], next: usize) -> Option<usize> {
        let near = self.entries.get(next..).into_iter().flatten().take(4);
        match near.into_iter().position(|entry| entry.path == path) {
            Some(offset) => Some(next + offset),
            None => self.position(path),
        }
    }

    /// The entry at a path.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.position(path).map(|position| &self.entries[position])
    }

    /// Whether the two hold the same, times apart, and know the content of every file.
    pub fn equals_but_times(&self, other: &Self) -> bool {
        let same = |(a, b): (&Entry, &Entry)| {
            a.path == b.path
                && a.kind == b.kind
                && !matches!(a.kind, Kind::File { content: None, .. })
                && (a.mode, a.uid, a.gid) == (b.mode, b.uid, b.gid)
                && a.xattrs == b.xattrs
        };
        self.entries.len() == other.entries.len() && self.entries.iter().zip(&other.entries).all(same)
    }

    /// Sum of the sizes of all files.
    pub fn content_size_bytes(&self) -> u64 {
        let size = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        self.entries.iter().map(size).fold(0, u64::saturating_add)
    }

    /// The bytes on disk.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(64 + self.entries.len() * 80);
        out.extend_from_slice(MAGIC);
        put_varint(&mut out, self.entries.len() as u64);
        let mut last: &[u8] = b"";
        for entry in &self.entries {
            let shared = last.iter().zip(&entry.path).take_while(|(a, b)| a == b).count();
            put_varint(&mut out, shared as u64);
            put_bytes(&mut out, &entry.path[shared..]);
            out.push(tag(&entry.kind));
            if !matches!(entry.kind, Kind::Hardlink { .. } | Kind::Whiteout) {
                put_varint(&mut out, u64::from(entry.mode));
                put_varint(&mut out, u64::from(entry.uid));
                put_varint(&mut out, u64::from(entry.gid));
                put_signed(&mut out, entry.mtime.seconds);
                put_varint(&mut out, u64::from(entry.mtime.nanoseconds));
                put_varint(&mut out, entry.xattrs.len() as u64);
                for (name, value) in &entry.xattrs {
                    put_bytes(&mut out, name);
                    put_bytes(&mut out, value);
                }
            }
            match &entry.kind {
                Kind::File { size, content } => {
                    put_varint(&mut out, *size);
                    out.push(u8::from(content.is_some()));
                    out.extend_from_slice(content.as_ref().map_or(&[], |content| content.as_slice()));
                }
                Kind::Symlink { target } | Kind::Hardlink { target } => put_bytes(&mut out, target),
                Kind::CharDevice { rdev } | Kind::BlockDevice { rdev } => {
                    put_varint(&mut out, u64::from(rdev.0));
                    put_varint(&mut out, u64::from(rdev.1));
                }
                Kind::Directory { .. } | Kind::Fifo | Kind::Socket | Kind::Whiteout => {}
            }
            last = &entry.path;
        }
        let checksum = blake3::hash(&out);
        out.extend_from_slice(checksum.as_bytes());
        out
    }

    /// Reads what [`Index::encode`] wrote. Hostile bytes give an error; memory is bounded by their length, at worst a path of
    /// [`PATH_BYTES_MAX`] for every five bytes.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        if !bytes.starts_with(MAGIC) {
            return Err(IndexError::Magic);
        }
        let end =
            bytes.len().checked_sub(32).filter(|end| *end >= MAGIC.len()).ok_or(IndexError::Checksum)?;
        if blake3::hash(&bytes[..end]).as_bytes() != &bytes[end..] {
            return Err(IndexError::Checksum);
        }
        let mut reader = Reader::new(&bytes[..end], MAGIC.len());
        let count = reader.varint()?;
        // An entry takes at least four bytes.
        let mut entries = Vec::with_capacity(usize::try_from(count).unwrap_or(0).min(bytes.len() / 4));
        let mut path: Vec<u8> = Vec::new();
        for _ in 0..count {
            entries.push(reader.entry(&mut path)?);
        }
        if !reader.is_at_end() {
            return Err(reader.malformed().into());
        }
        let index = Self::from_entries(entries);
        index.check()?;
        Ok(index)
    }
}

/// Whether a path is one of an index: relative, no empty, `.` or `..` part, no NUL, not too long. The empty path is the root.
pub fn is_clean(path: &[u8]) -> bool {
    path.is_empty()
        || (path.len() <= PATH_BYTES_MAX
            && !path.contains(&0)
            && path.split(|byte| *byte == b'/').all(|part| !matches!(part, b"" | b"." | b"..")))
}

fn tag(kind: &Kind) -> u8 {
    match kind {
        Kind::File { .. } => 0,
        Kind::Directory { opaque, implied } => 1 + u8::from(*opaque) + 2 * u8::from(*implied),
        Kind::Symlink { .. } => 5,
        Kind::Hardlink { .. } => 6,
        Kind::CharDevice { .. } => 7,
        Kind::BlockDevice { .. } => 8,
        Kind::Fifo => 9,
        Kind::Socket => 10,
        Kind::Whiteout => 11,
    }
}

impl Reader<'_> {
    fn entry(&mut self, path: &mut Vec<u8>) -> Result<Entry, IndexError> {
        let shared = self.length()?;
        let rest = self.slice()?;
        if shared > path.len() || shared + rest.len() > PATH_BYTES_MAX {
            return Err(self.malformed().into());
        }
        path.truncate(shared);
        path.extend_from_slice(rest);
        let tag = self.byte()?;
        let mut entry = Entry {
            path: path.clone(),
            kind: Kind::Whiteout,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        if !matches!(tag, 6 | 11) {
            (entry.mode, entry.uid, entry.gid) = (self.number()?, self.number()?, self.number()?);
            let seconds = self.signed()?;
            let nanoseconds = self.number()?;
            if nanoseconds >= 1_000_000_000 || entry.mode > 0o7777 {
                return Err(self.malformed().into());
            }
            entry.mtime = Time { seconds, nanoseconds };
            for _ in 0..self.varint()? {
                entry.xattrs.push((self.slice()?.to_vec(), self.slice()?.to_vec()));
            }
        }
        entry.kind = match tag {
            0 => {
                let size = self.varint()?;
                let content = match self.byte()? {
                    0 => None,
                    1 => Some(self.digest()?),
                    _ => return Err(self.malformed().into()),
                };
                Kind::File { size, content }
            }
            1..=4 => Kind::Directory { opaque: (tag - 1) & 1 != 0, implied: (tag - 1) & 2 != 0 },
            5 => Kind::Symlink { target: self.slice()?.to_vec() },
            6 => Kind::Hardlink { target: self.slice()?.to_vec() },
            7 => Kind::CharDevice { rdev: (self.number()?, self.number()?) },
            8 => Kind::BlockDevice { rdev: (self.number()?, self.number()?) },
            9 => Kind::Fifo,
            10 => Kind::Socket,
            11 => Kind::Whiteout,
            _ => return Err(self.malformed().into()),
        };
        Ok(entry)
    }
}
