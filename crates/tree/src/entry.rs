//! One path of a layer or of a merged tree.

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Length in bytes.
        size: u64,
        /// BLAKE3 of the content; `None` while nobody has read it.
        content: Option<[u8; 32]>,
    },
    /// A directory.
    Directory {
        /// The layer hides everything that lower layers have inside (opaque whiteout).
        opaque: bool,
        /// The directory stands here only because something inside does: its attributes are those that the
        /// parent had when the layer was made, and were not changed by the layer.
        implied: bool,
    },
    /// A symbolic link and what it says.
    Symlink {
        /// The text of the link.
        target: Vec<u8>,
    },
    /// One more name of a regular file of the same layer, whose entry stands at `target` (the first name in sorted order).
    Hardlink {
        /// Path of the entry that holds the attributes.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major and minor number.
        rdev: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        rdev: (u32, u32),
    },
    /// A named pipe.
    Fifo,
    /// A socket. It never gets into a tar.
    Socket,
    /// The path is gone: lower layers' entry of this name, and all below it, is hidden.
    Whiteout,
}

/// Seconds and nanoseconds since 1970, UTC. Layers made by mica have whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub seconds: i64,
    /// 0..1_000_000_000
    pub nanoseconds: u32,
}

/// A path of a tree with everything that a layer keeps of it.
///
/// For hard links (kind [`Kind::Hardlink`]) and whiteouts the attributes mean nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Relative, without leading or trailing `/`, without `.` and `..`; the root itself is the empty path.
    pub path: Vec<u8>,
    /// What stands there.
    pub kind: Kind,
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of last change of the content.
    pub mtime: Time,
    /// Extended attributes, sorted by name; none of the overlay's own.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Entry {
    /// Last component of the path; empty for the root.
    pub fn name(&self) -> &[u8] {
        match self.path.iter().rposition(|byte| *byte == b'/') {
            Some(at) => &self.path[at + 1..],
            None => &self.path,
        }
    }

    /// The directory that the path stands in; `None` for the root.
    pub fn parent(&self) -> Option<&[u8]> {
        parent(&self.path)
    }

    /// Whether a directory stands here.
    pub fn is_directory(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}

/// The directory that `path` stands in; `None` for the root.
pub fn parent(path: &[u8]) -> Option<&[u8]> {
    if path.is_empty() {
        return None;
    }
    Some(match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => &path[..at],
        None => b"",
    })
}

/// Order of paths in an index: component by component, so that a directory is followed by all that is inside.
pub fn compare_paths(a: &[u8], b: &[u8]) -> std::cmp::Ordering {
    // `/` sorts below every byte that a name can hold, which makes component order a plain byte order.
    let key = |byte: u8| if byte == b'/' { 0 } else { byte };
    let at = first_difference(a, b);
    match (a.get(at), b.get(at)) {
        (Some(a), Some(b)) => key(*a).cmp(&key(*b)).then(a.cmp(b)),
        _ => a.len().cmp(&b.len()),
    }
}

/// Where two paths part, by words: paths share much, and this is asked very often.
fn first_difference(a: &[u8], b: &[u8]) -> usize {
    const WORD_BYTES: usize = 16;
    let length = a.len().min(b.len());
    let Some(last) = length.checked_sub(WORD_BYTES) else {
        return a.iter().zip(b).take_while(|(a, b)| a == b).count();
    };
    let word = |bytes: &[u8], at: usize| bytes[at..at + WORD_BYTES].try_into().map_or(0, u128::from_le_bytes);
    // The last word may overlap the one before it, which was the same.
    for at in (0..last).step_by(WORD_BYTES).chain([last]) {
        let difference = word(a, at) ^ word(b, at);
        if difference != 0 {
            return at + difference.trailing_zeros() as usize / 8;
        }
    }
    length
}
