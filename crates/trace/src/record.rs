//! What a step used, as values: no layer, no position, no parent is named, so a record holds on any parent where its
//! values hold.

use mica_tree::Time;

/// All that a step used of the trees that it was given.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// The step's own lower tree first, then those of its bind mounts in the order of the instruction.
    pub trees: Vec<TreeUse>,
}

/// What was used of one tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TreeUse {
    /// In the order of [`mica_tree::compare_paths`], each path once.
    pub uses: Vec<Use>,
}

/// One path that was looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Use {
    /// As in an index: relative, clean, the root is the empty path.
    pub path: Vec<u8>,
    /// What was found there.
    pub value: Value,
}

/// What a path showed.
///
/// Times, sizes and link counts of directories, and times of all but regular files, are the same for every step
/// (`served_lower` makes them so), and are no part of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Nothing stood there.
    Absent,
    /// A directory.
    Directory {
        /// Mode, owner, extended attributes.
        attributes: Attributes,
        /// Its names, if they were listed.
        listing: Option<Listing>,
    },
    /// A regular file. Whoever looks it up has its size and time as well.
    File {
        /// Mode, owner, extended attributes.
        attributes: Attributes,
        /// Length.
        size_bytes: u64,
        /// Time of last change.
        /// Time of last change; `None` where it says nothing and the content counts instead: in a build context.
        mtime: Option<Time>,
        /// All names of the file in the tree in order, when it has more than one.
        names: Vec<Vec<u8>>,
        /// BLAKE3 of the content, if it was read.
        content: Option<[u8; 32]>,
    },
    /// A symbolic link.
    Symlink {
        /// Owner and extended attributes; the mode of a link means nothing and is 0o777.
        attributes: Attributes,
        /// What it says.
        target: Vec<u8>,
    },
    /// A device, pipe or socket.
    Special {
        /// Mode, owner, extended attributes.
        attributes: Attributes,
        /// Which.
        kind: ListedKind,
        /// Major and minor number of a device, zeros otherwise.
        rdev: (u32, u32),
    },
}

/// What every look at a path tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// Permission bits, 0..=0o7777.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// BLAKE3 of names and values, if there are any.
    pub xattrs: Option<[u8; 32]>,
}

/// The names in a directory, in order, each with what it is.
pub type Listing = Vec<(Vec<u8>, ListedKind)>;

/// What a listing tells of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ListedKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Value {
    /// What stands there: `file`, `directory`, ...
    pub fn kind_in_words(&self) -> &'static str {
        match self {
            Value::Absent => "nothing",
            Value::Directory { .. } => "directory",
            Value::File { .. } => "file",
            Value::Symlink { .. } => "symbolic link",
            Value::Special { kind, .. } => kind.in_words(),
        }
    }
}

impl ListedKind {
    /// `file`, `directory`, ...
    pub fn in_words(self) -> &'static str {
        match self {
            ListedKind::File => "file",
            ListedKind::Directory => "directory",
            ListedKind::Symlink => "symbolic link",
            ListedKind::CharDevice => "character device",
            ListedKind::BlockDevice => "block device",
            ListedKind::Fifo => "pipe",
            ListedKind::Socket => "socket",
        }
    }
}
