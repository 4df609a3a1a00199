//! A little space put by, so that a full disk does not keep anybody from freeing some: removing things writes, too.

use crate::store::Store;
use rustix::fs::{FallocateFlags, Mode, OFlags};

/// Enough for the log of a transaction that removes thousands of rows, and for a few directories.
const RESERVE_BYTES: u64 = 1 << 20;
/// Below this the disk counts as full.
const FULL_BYTES: u64 = 1 << 20;
/// The reserve is filled up again only where it does not matter.
const PLENTY_BYTES: u64 = 16 << 20;

/// Name of the reserve below the root.
pub(crate) const RESERVE_FILE: &str = "reserve";

impl Store {
    /// To be called before removing things: gives up the reserve when the disk is full. The next collection that finds
    /// space puts it by again.
    pub fn make_room(&self) {
        if self.free_bytes().is_some_and(|free| free < FULL_BYTES) {
            let _ = std::fs::remove_file(self.root().join(RESERVE_FILE));
        }
    }

    /// Puts the reserve by if it is not there. Without it everything works but the freeing of a full disk, so it is no
    /// error if it cannot be had.
    pub(crate) fn keep_reserve(&self) {
        let path = self.root().join(RESERVE_FILE);
        if path.exists() || self.free_bytes().is_none_or(|free| free < PLENTY_BYTES) {
            return;
        }
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let made = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR)
            .and_then(|file| rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, RESERVE_BYTES));
        if made.is_err() {
            // A file system that cannot promise space: an empty file would promise what is not there.
            let _ = std::fs::remove_file(&path);
        }
    }

    fn free_bytes(&self) -> Option<u64> {
        let status = rustix::fs::statvfs(self.root()).ok()?;
        Some(status.f_bavail.saturating_mul(status.f_frsize))
    }
}
