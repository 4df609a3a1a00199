//! Digests of files that were read before, with the attributes that tell whether they still hold.
//!
//! A file need not be opened again when its size, times and inode are those it had when it was hashed. As in git, a
//! file whose last change is as young as the moment of hashing is not trusted: it may have been changed once more
//! within the same tick of the file system's clock.
//!
//! The file is a cache and nothing else: what cannot be read, or does not check, is as good as absent.

use std::path::Path;

/// `micastat`, then the version of this layout: a change of the layout changes the number.
const MAGIC: &[u8; 12] = b"micastat\x01\0\0\0";

/// A change less than this many nanoseconds before the hashing is not trusted. File systems stamp files by the tick
/// of the kernel's clock, at most 10 ms; coarser ones (FAT, some network file systems: 2 s) are not worth the
/// slowness for everybody, and they have no build contexts in practice.
const RACY_NS: i128 = 20_000_000;

/// What must be equal for a digest to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct StatKey {
    pub size: u64,
    pub inode: u64,
    pub mtime_ns: i128,
    pub ctime_ns: i128,
}

impl StatKey {
    pub fn of(stat: &rustix::fs::Stat) -> Self {
        let time =
            |seconds: i64, nanoseconds: u64| i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds);
        Self {
            size: stat.st_size as u64,
            inode: stat.st_ino,
            mtime_ns: time(stat.st_mtime, stat.st_mtime_nsec),
            ctime_ns: time(stat.st_ctime, stat.st_ctime_nsec),
        }
    }
}

/// The digest ([`crate::identity`]) of a file, and when it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub key: StatKey,
    pub content: [u8; 32],
}

/// Paths in index order with what is known of them.
#[derive(Debug, Default)]
pub(crate) struct StatCache {
    bytes: Vec<u8>,
    position: usize,
    current: Option<(Vec<u8>, Known)>,
}

impl StatCache {
    /// Reads the cache; an absent or damaged one is empty.
    pub fn read(path: &Path) -> Self {
        std::fs::read(path).map(Self::decode).unwrap_or_default()
    }

    /// The cache in these bytes.
    fn decode(bytes: Vec<u8>) -> Self {
        let Some(body) = bytes.len().checked_sub(32) else { return Self::default() };
        if !bytes.starts_with(MAGIC) || blake3::hash(&bytes[..body]).as_bytes() != &bytes[body..] {
            return Self::default();
        }
        let mut bytes = bytes;
        bytes.truncate(body);
        let mut cache = Self { bytes, position: MAGIC.len(), current: None };
        cache.advance();
        cache
    }

    /// What is known of `path`. Must be asked in index order.
    pub fn look_up(&mut self, path: &[u8]) -> Option<Known> {
        loop {
            let (known_path, known) = self.current.as_ref()?;
            match mica_tree::compare_paths(known_path, path) {
                std::cmp::Ordering::Less => self.advance(),
                std::cmp::Ordering::Equal => return Some(*known),
                std::cmp::Ordering::Greater => return None,
            }
        }
    }

    fn advance(&mut self) {
        let mut path = self.current.take().map(|(path, _)| path).unwrap_or_default();
        let read = |at: &mut usize, length: usize| -> Option<&[u8]> {
            let piece = self.bytes.get(*at..at.checked_add(length)?)?;
            *at += length;
            Some(piece)
        };
        let mut at = self.position;
        let mut next = || -> Option<Known> {
            let shared = u16::from_le_bytes(read(&mut at, 2)?.try_into().ok()?) as usize;
            let own = u16::from_le_bytes(read(&mut at, 2)?.try_into().ok()?) as usize;
            path.truncate(shared);
            path.extend_from_slice(read(&mut at, own)?);
            let key = StatKey {
                size: u64::from_le_bytes(read(&mut at, 8)?.try_into().ok()?),
                inode: u64::from_le_bytes(read(&mut at, 8)?.try_into().ok()?),
                mtime_ns: i128::from_le_bytes(read(&mut at, 16)?.try_into().ok()?),
                ctime_ns: i128::from_le_bytes(read(&mut at, 16)?.try_into().ok()?),
            };
            Some(Known { key, content: read(&mut at, 32)?.try_into().ok()? })
        };
        if let Some(known) = next() {
            self.current = Some((path, known));
        }
        self.position = at;
    }
}

/// The paths that a stat cache in these bytes speaks of, with their digests; none where the bytes are damaged.
pub fn stat_cache_entries(bytes: Vec<u8>) -> Vec<(Vec<u8>, [u8; 32])> {
    let mut cache = StatCache::decode(bytes);
    let mut entries = Vec::new();
    while let Some((path, known)) = cache.current.clone() {
        entries.push((path, known.content));
        cache.advance();
    }
    entries
}

/// Builds the bytes of a cache; paths must come in index order.
pub(crate) struct StatCacheWriter {
    bytes: Vec<u8>,
    last: Vec<u8>,
    now_ns: i128,
}

impl StatCacheWriter {
    /// `now_ns` is the clock when hashing began.
    pub fn new(now_ns: i128) -> Self {
        Self { bytes: MAGIC.to_vec(), last: Vec::new(), now_ns }
    }

    /// Adds a file, unless it is too young to be trusted.
    pub fn push(&mut self, path: &[u8], known: &Known) {
        let youngest = known.key.mtime_ns.max(known.key.ctime_ns);
        if youngest + RACY_NS > self.now_ns || path.len() > usize::from(u16::MAX) {
            return;
        }
        let shared = self.last.iter().zip(path).take_while(|(a, b)| a == b).count();
        // Both fit: the path is at most u16::MAX long.
        self.bytes.extend_from_slice(&(shared as u16).to_le_bytes());
        self.bytes.extend_from_slice(&((path.len() - shared) as u16).to_le_bytes());
        self.bytes.extend_from_slice(&path[shared..]);
        self.bytes.extend_from_slice(&known.key.size.to_le_bytes());
        self.bytes.extend_from_slice(&known.key.inode.to_le_bytes());
        self.bytes.extend_from_slice(&known.key.mtime_ns.to_le_bytes());
        self.bytes.extend_from_slice(&known.key.ctime_ns.to_le_bytes());
        self.bytes.extend_from_slice(&known.content);
        self.last.clear();
        self.last.extend_from_slice(path);
    }

    /// The whole file.
    pub fn finish(mut self) -> Vec<u8> {
        let digest = blake3::hash(&self.bytes);
        self.bytes.extend_from_slice(digest.as_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(mtime_ns: i128) -> Known {
        Known {
            key: StatKey { size: 7, inode: 11, mtime_ns, ctime_ns: mtime_ns },
            content: [mtime_ns as u8; 32],
        }
    }

    #[test]
    fn what_was_written_is_found_and_the_young_is_not() {
        let mut writer = StatCacheWriter::new(1_000_000_000);
        writer.push(b"a", &known(1));
        writer.push(b"a/b", &known(2));
        writer.push(b"a/bc", &known(999_999_999));
        writer.push(b"b", &known(4));
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cache");
        let bytes = writer.finish();
        std::fs::write(&path, &bytes).unwrap();
        let mut cache = StatCache::read(&path);
        assert_eq!(cache.look_up(b"a"), Some(known(1)));
        assert_eq!(cache.look_up(b"a/a"), None);
        assert_eq!(cache.look_up(b"a/b"), Some(known(2)));
        assert_eq!(cache.look_up(b"a/bc"), None, "changed within the tick of hashing");
        assert_eq!(cache.look_up(b"b"), Some(known(4)));
        assert_eq!(cache.look_up(b"c"), None);

        for position in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[position] ^= 0x40;
            std::fs::write(&path, &damaged).unwrap();
            assert_eq!(StatCache::read(&path).look_up(b"a"), None, "byte {position} altered");
        }
    }
}
