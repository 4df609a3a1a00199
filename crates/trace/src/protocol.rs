//! What the kernel asks on `/dev/fuse` and how it is answered: the bytes, and nothing of what they mean here.
//!
//! Layouts and numbers are those of `linux/fuse.h`; all numbers are in the byte order of the machine. Only what a
//! read-only tree is asked is known: everything else is answered `ENOSYS`, which the kernel remembers for most operations.

use rustix::io::Errno;

/// Shortest read of the device that the kernel accepts is 8 KiB (`FUSE_MIN_READ_BUFFER`); a name has at most 1 KiB.
pub const REQUEST_BYTES_MAX: usize = 16 << 10;
/// The largest answer to READ: 256 pages, the most that kernels take without being told otherwise.
pub const READ_BYTES_MAX: usize = 1 << 20;
/// The protocol spoken here. Kernels speak all older ones.
const VERSION: (u32, u32) = (7, 31);
/// The oldest minor version that has all that is asked for in [`FLAGS`] (Linux 5.2).
const MINOR_MIN: u32 = 30;

/// `struct fuse_in_header`.
const IN_HEADER_BYTES: usize = 40;
/// `struct fuse_out_header`.
const OUT_HEADER_BYTES: usize = 16;

const ASYNC_READ: u32 = 1 << 0;
const NO_OPEN_SUPPORT: u32 = 1 << 17;
const PARALLEL_DIROPS: u32 = 1 << 18;
/// Access control lists count. Without it overlayfs neither obeys those of a lower tree nor takes them up with a file.
const POSIX_ACL: u32 = 1 << 20;
const MAX_PAGES: u32 = 1 << 22;
const CACHE_SYMLINKS: u32 = 1 << 23;
const NO_OPENDIR_SUPPORT: u32 = 1 << 24;
const EXPLICIT_INVAL_DATA: u32 = 1 << 25;
/// What the kernel is asked to do: no question for opening and closing, everything cached for as long as it likes.
const FLAGS: u32 = ASYNC_READ
    | NO_OPEN_SUPPORT
    | PARALLEL_DIROPS
    | MAX_PAGES
    | CACHE_SYMLINKS
    | NO_OPENDIR_SUPPORT
    | EXPLICIT_INVAL_DATA;
/// Without these an `ENOSYS` to OPEN or OPENDIR would be an error to the step.
const FLAGS_NEEDED: u32 = NO_OPEN_SUPPORT | NO_OPENDIR_SUPPORT;

/// Requests that the kernel sends on its own, to be worked on at the same time.
const BACKGROUND_MAX: u16 = 64;
/// Least value that the kernel takes; nothing is ever written.
const WRITE_BYTES_MAX: u32 = 4096;

/// Seconds for which names and attributes hold: for ever, without coming near the end of any counter.
const VALID_SECONDS: u64 = 1 << 40;

/// A question of the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// To be repeated in the answer.
    pub unique: u64,
    /// The node that is asked about.
    pub node: u64,
    /// What is asked.
    pub operation: Operation<'a>,
}

/// What is asked.
#[derive(Debug, PartialEq, Eq)]
pub enum Operation<'a> {
    /// The first question: who speaks there.
    Init {
        /// Major and minor version of the kernel.
        version: (u32, u32),
        /// How far the kernel reads ahead.
        readahead_bytes_max: u32,
        /// What the kernel can do.
        flags: u32,
    },
    /// What stands at a name in a directory.
    Lookup {
        /// The name.
        name: &'a [u8],
    },
    /// Attributes.
    GetAttributes,
    /// What a symbolic link says.
    ReadLink,
    /// Bytes of a file.
    Read {
        /// Where they begin.
        offset: u64,
        /// How many are wanted.
        size_bytes: u32,
    },
    /// Names in a directory.
    ReadDirectory {
        /// Behind which name, as said with that name; 0 at the beginning.
        offset: u64,
        /// How much room there is.
        size_bytes: u32,
    },
    /// The value of an extended attribute.
    GetXattr {
        /// Its name.
        name: &'a [u8],
        /// How much room there is; 0 asks for the length.
        size_bytes: u32,
    },
    /// The names of the extended attributes.
    ListXattr {
        /// How much room there is; 0 asks for the length.
        size_bytes: u32,
    },
    /// Numbers about the filesystem.
    Statistics,
    /// The kernel lets go of nodes, and waits for no answer.
    Forget,
    /// The kernel says goodbye.
    Destroy,
    /// Something that this tree does not have, like opening.
    Other,
}

impl<'a> Request<'a> {
    /// The request in what was read from the device; `None` for what is none.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let length = u32_at(bytes, 0)? as usize;
        let opcode = u32_at(bytes, 4)?;
        let (unique, node) = (u64_at(bytes, 8)?, u64_at(bytes, 16)?);
        let body = bytes.get(IN_HEADER_BYTES..length)?;
        let operation = match opcode {
            1 => Operation::Lookup { name: text(body) },
            2 | 42 => Operation::Forget,
            3 => Operation::GetAttributes,
            5 => Operation::ReadLink,
            15 => Operation::Read { offset: u64_at(body, 8)?, size_bytes: u32_at(body, 16)? },
            17 => Operation::Statistics,
            22 => Operation::GetXattr { size_bytes: u32_at(body, 0)?, name: text(body.get(8..)?) },
            23 => Operation::ListXattr { size_bytes: u32_at(body, 0)? },
            26 => Operation::Init {
                version: (u32_at(body, 0)?, u32_at(body, 4)?),
                readahead_bytes_max: u32_at(body, 8)?,
                flags: u32_at(body, 12)?,
            },
            28 => Operation::ReadDirectory { offset: u64_at(body, 8)?, size_bytes: u32_at(body, 16)? },
            38 => Operation::Destroy,
            _ => Operation::Other,
        };
        Some(Self { unique, node, operation })
    }
}

/// The bytes up to the first zero.
fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or(b"")
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes)
}

/// Attributes of a node (`struct fuse_attr`).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NodeAttributes {
    /// Number of the node, and of the inode.
    pub node: u64,
    /// Length.
    pub size_bytes: u64,
    /// The one time that it has: seconds and nanoseconds.
    pub time: (i64, u32),
    /// Kind and permissions.
    pub mode: u32,
    /// How many names it has.
    pub links: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Major and minor number of a device.
    pub rdev: (u32, u32),
}

const BLOCK_BYTES: u64 = 512;
const PAGE_BYTES: u32 = 4096;

/// An answer in the making. One buffer serves all answers.
#[derive(Debug)]
pub struct Answer {
    // The header first; only the first `length` bytes count.
    bytes: Vec<u8>,
    length: usize,
}

impl Default for Answer {
    fn default() -> Self {
        Self { bytes: vec![0; OUT_HEADER_BYTES], length: OUT_HEADER_BYTES }
    }
}

impl Answer {
    /// The bytes to write to the device.
    pub fn finish(&mut self, unique: u64, result: Result<(), Errno>) -> &[u8] {
        let error = match result {
            Ok(()) => 0,
            Err(errno) => {
                self.length = OUT_HEADER_BYTES;
                -errno.raw_os_error()
            }
        };
        // The length of the largest answer fits many times.
        self.bytes[..4].copy_from_slice(&(self.length as u32).to_ne_bytes());
        self.bytes[4..8].copy_from_slice(&error.to_ne_bytes());
        self.bytes[8..16].copy_from_slice(&unique.to_ne_bytes());
        &self.bytes[..self.length]
    }

    /// Forgets what was put in.
    pub fn clear(&mut self) {
        self.length = OUT_HEADER_BYTES;
    }

    /// How many bytes were put in.
    pub fn len(&self) -> usize {
        self.length - OUT_HEADER_BYTES
    }

    /// Puts bytes in.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.truncate(self.length);
        self.bytes.extend_from_slice(bytes);
        self.length = self.bytes.len();
    }

    /// Room for the bytes of a file, filled from the beginning by the caller, who says in [`Answer::keep`] how many came.
    pub fn room(&mut self, size_bytes: usize) -> &mut [u8] {
        let end = OUT_HEADER_BYTES + size_bytes;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        &mut self.bytes[OUT_HEADER_BYTES..end]
    }

    /// Says how many bytes of [`Answer::room`] count.
    pub fn keep(&mut self, size_bytes: usize) {
        self.length = self.bytes.len().min(OUT_HEADER_BYTES + size_bytes);
    }

    fn u32(&mut self, value: u32) {
        self.bytes(&value.to_ne_bytes());
    }

    fn u64(&mut self, value: u64) {
        self.bytes(&value.to_ne_bytes());
    }

    /// To INIT (`struct fuse_init_out`). An error is a kernel that lacks what is needed. `has_acls` is asked for only where
    /// there are some, because the kernel then looks for them everywhere.
    pub fn init(
        &mut self,
        version: (u32, u32),
        readahead_bytes_max: u32,
        flags: u32,
        has_acls: bool,
    ) -> Result<(), Errno> {
        let (major, minor) = version;
        if major < VERSION.0
            || (major == VERSION.0 && (minor < MINOR_MIN || flags & FLAGS_NEEDED != FLAGS_NEEDED))
        {
            return Err(Errno::PROTO);
        }
        self.u32(VERSION.0);
        self.u32(VERSION.1);
        if major > VERSION.0 {
            // The kernel asks again in the version that it was told.
            return Ok(());
        }
        self.u32(readahead_bytes_max);
        self.u32((FLAGS | if has_acls { POSIX_ACL } else { 0 }) & flags);
        // Two of 16 bits: the most requests in the background, and at how many it counts as congested.
        self.bytes(&BACKGROUND_MAX.to_ne_bytes());
        self.bytes(&BACKGROUND_MAX.to_ne_bytes());
        self.u32(WRITE_BYTES_MAX);
        // Times are exact to the nanosecond.
        self.u32(1);
        let pages = READ_BYTES_MAX / PAGE_BYTES as usize;
        self.bytes(&(pages as u16).to_ne_bytes());
        self.bytes(&[0; 2 + 8 * 4]);
        Ok(())
    }

    /// To LOOKUP (`struct fuse_entry_out`).
    pub fn entry(&mut self, attributes: &NodeAttributes) {
        self.u64(attributes.node);
        self.u64(0);
        self.u64(VALID_SECONDS);
        self.u64(VALID_SECONDS);
        self.u64(0);
        self.attributes_only(attributes);
    }

    /// To LOOKUP of what is not there: node 0 with a time, because the kernel does not remember an `ENOENT`.
    pub fn absent(&mut self) {
        self.entry(&NodeAttributes::default());
    }

    /// To GETATTR (`struct fuse_attr_out`).
    pub fn attributes(&mut self, attributes: &NodeAttributes) {
        self.u64(VALID_SECONDS);
        self.u64(0);
        self.attributes_only(attributes);
    }

    fn attributes_only(&mut self, attributes: &NodeAttributes) {
        self.u64(attributes.node);
        self.u64(attributes.size_bytes);
        self.u64(attributes.size_bytes.div_ceil(BLOCK_BYTES));
        let (seconds, nanoseconds) = attributes.time;
        for _ in ["atime", "mtime", "ctime"] {
            self.u64(seconds as u64);
        }
        for _ in ["atime", "mtime", "ctime"] {
            self.u32(nanoseconds);
        }
        for value in [attributes.mode, attributes.links, attributes.uid, attributes.gid] {
            self.u32(value);
        }
        let (major, minor) = attributes.rdev;
        // As the kernel packs them (`new_encode_dev`).
        self.u32((minor & 0xff) | (major & 0xfff) << 8 | (minor & 0xfff00) << 12);
        self.u32(PAGE_BYTES);
        self.u32(0);
    }

    /// To READDIR, one more name (`struct fuse_dirent`), as long as all are not longer than `room`. `offset` continues
    /// behind it. Says whether it had room.
    pub fn name(&mut self, room: u32, node: u64, offset: u64, kind: u32, name: &[u8]) -> bool {
        const FIXED_BYTES: usize = 24;
        let padded = (FIXED_BYTES + name.len()).next_multiple_of(8);
        if self.len() + padded > (room as usize).min(READ_BYTES_MAX) {
            return false;
        }
        self.u64(node);
        self.u64(offset);
        self.u32(name.len() as u32);
        self.u32(kind);
        self.bytes(name);
        self.bytes(&[0; 8][..padded - FIXED_BYTES - name.len()]);
        true
    }

    /// To GETXATTR and LISTXATTR: the bytes, or their length if there was said to be no room.
    pub fn xattr(&mut self, room: u32, value: &[u8]) -> Result<(), Errno> {
        match room as usize {
            0 => {
                self.u32(value.len() as u32);
                self.u32(0);
            }
            room if room < value.len() => return Err(Errno::RANGE),
            _ => self.bytes(value),
        }
        Ok(())
    }

    /// To STATFS (`struct fuse_kstatfs`): the same for every tree. `name_bytes_max` is the longest name.
    pub fn statistics(&mut self, name_bytes_max: u32) {
        // Blocks: all, free, free for users; files: all, free. Nothing can be written, so nothing is free.
        for value in [1 << 20, 0, 0, 1 << 20, 0] {
            self.u64(value);
        }
        for value in [PAGE_BYTES, name_bytes_max, PAGE_BYTES, 0] {
            self.u32(value);
        }
        self.bytes(&[0; 6 * 4]);
    }
}
