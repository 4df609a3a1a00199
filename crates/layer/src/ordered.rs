//! Work on many cores whose bytes have an order: batches are worked on in parallel and hashed in sequence.

use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Condvar, Mutex};

use mica_tree::{Entry, Kind, parent};
use sha2::{Digest as _, Sha256};

use crate::write_tar::END;

/// Content and headers of one batch. Larger batches gain nothing and cost memory.
pub(crate) const BATCH_BYTES: u64 = 1 << 20;
/// Entries of one batch.
const BATCH_ENTRIES: usize = 128;
/// A batch with this many entries ends with its directory: two cores that make files in one directory wait for each other.
const BATCH_ENTRIES_MIN: usize = 32;
/// How many batches may wait for the hashing thread: with [`BATCH_BYTES`], what bounds memory.
const BATCHES_AHEAD: usize = 16;
/// Pieces of one large file that may wait.
const PIECES_AHEAD: usize = 4;

/// What came out of all batches.
pub(crate) struct Hashed<D> {
    /// What the batches returned, in no order.
    pub done: Vec<D>,
    /// SHA-256 of all bytes and the end of the tar.
    pub diff_id: [u8; 32],
    /// How many bytes that were.
    pub size_bytes: u64,
}

/// Stretches of entries that are worked on as one.
pub(crate) fn batches<'e>(entries: impl Iterator<Item = &'e Entry>) -> Vec<Range<usize>> {
    let mut batches = Vec::new();
    let (mut start, mut bytes, mut end) = (0, 0, 0);
    let mut directory = None;
    for entry in entries {
        let size = if let Kind::File { size, .. } = entry.kind { size } else { 0 };
        let count = end - start;
        let moved = std::mem::replace(&mut directory, parent(&entry.path)) != directory;
        let is_full = bytes + size > BATCH_BYTES || count >= BATCH_ENTRIES;
        if end > start && (is_full || (moved && count >= BATCH_ENTRIES_MIN)) {
            batches.push(start..end);
            (start, bytes) = (end, 0);
        }
        bytes += size;
        end += 1;
    }
    if start < end {
        batches.push(start..end);
    }
    batches
}

/// Runs `work` for every batch on all cores; what it sends is hashed in the order of the batches. A worker keeps the
/// state that `state` made for it. The first error ends the whole.
pub(crate) fn hash_in_order<S, D: Send, E: Send>(
    batches: &[Range<usize>],
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, Range<usize>, &Sink<'_>) -> Result<Vec<D>, E> + Sync,
) -> Result<Hashed<D>, E> {
    let (senders, receivers): (Vec<_>, Vec<_>) = batches.iter().map(|_| sync_channel(PIECES_AHEAD)).unzip();
    let run = Run {
        senders: senders.into_iter().map(|sender| Mutex::new(Some(sender))).collect(),
        next: AtomicUsize::new(0),
        failed: AtomicBool::new(false),
        hashed: Mutex::new(0),
        advanced: Condvar::new(),
        spare: Mutex::default(),
    };
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let one = || -> Result<Vec<D>, E> {
        // Also when `work` panics: the hashing thread would wait for ever for batches that nobody takes.
        let guard = FailOnDrop(&run);
        let mut state = state();
        let mut done = Vec::new();
        while let Some((position, sender)) = run.take() {
            done.extend(work(&mut state, batches[position].clone(), &Sink { sender, spare: &run.spare })?);
        }
        std::mem::forget(guard);
        Ok(done)
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cores.min(batches.len())).map(|_| scope.spawn(one)).collect();
        let (diff_id, size_bytes) = run.hash(receivers);
        let mut done = Vec::new();
        for worker in workers {
            match worker.join() {
                Ok(result) => done.extend(result?),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(Hashed { done, diff_id, size_bytes })
    })
}

/// Where the bytes of a batch go.
pub(crate) struct Sink<'r> {
    sender: SyncSender<Vec<u8>>,
    spare: &'r Mutex<Vec<Vec<u8>>>,
}

impl Sink<'_> {
    /// An empty buffer: mostly one whose bytes were hashed, so that its memory is there already.
    pub fn buffer(&self) -> Vec<u8> {
        self.spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).pop().unwrap_or_default()
    }

    /// Hands the bytes to the hashing thread.
    pub fn send(&self, bytes: Vec<u8>) {
        // The receiver goes only when hashing is over.
        let _ = self.sender.send(bytes);
    }
}

/// Appends the next `size_bytes` of a regular file to `bytes`; false if it has fewer, or, with `at_end`, more. One call
/// does for both questions, as a regular file gives less than was asked for only at its end.
pub(crate) fn append(
    mut file: &File,
    bytes: &mut Vec<u8>,
    size_bytes: usize,
    at_end: bool,
) -> io::Result<bool> {
    let start = bytes.len();
    let end = start + size_bytes;
    bytes.resize(end + usize::from(at_end), 0);
    let mut filled = start;
    loop {
        let count = match file.read(&mut bytes[filled..]) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += count;
        if count == 0 || filled >= end {
            bytes.truncate(end);
            return Ok(filled == end);
        }
    }
}

struct Run {
    senders: Vec<Mutex<Option<SyncSender<Vec<u8>>>>>,
    next: AtomicUsize,
    failed: AtomicBool,
    hashed: Mutex<usize>,
    advanced: Condvar,
    /// Buffers whose bytes were hashed.
    spare: Mutex<Vec<Vec<u8>>>,
}

/// Ends the run unless it is forgotten.
struct FailOnDrop<'r>(&'r Run);

impl Drop for FailOnDrop<'_> {
    fn drop(&mut self) {
        self.0.fail();
    }
}

impl Run {
    /// The next batch and where its bytes go; waits while too many batches are ahead of the hashing thread.
    fn take(&self) -> Option<(usize, SyncSender<Vec<u8>>)> {
        if self.failed.load(Ordering::Relaxed) {
            return None;
        }
        let position = self.next.fetch_add(1, Ordering::Relaxed);
        let mut hashed = self.hashed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        while position > *hashed + BATCHES_AHEAD {
            hashed = self.advanced.wait(hashed).unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        drop(hashed);
        let sender =
            self.senders.get(position)?.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take()?;
        Some((position, sender))
    }

    /// Drops every sender that is still here, so that the hashing thread comes to its end.
    fn fail(&self) {
        self.failed.store(true, Ordering::Relaxed);
        for sender in &self.senders {
            sender.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        }
    }

    fn hash(&self, receivers: Vec<Receiver<Vec<u8>>>) -> ([u8; 32], u64) {
        let mut hasher = Sha256::new();
        let mut length = 0;
        for (position, receiver) in receivers.into_iter().enumerate() {
            // Ends when the batch's sender is dropped.
            for mut piece in receiver {
                hasher.update(&piece);
                length += piece.len() as u64;
                piece.clear();
                self.spare.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(piece);
            }
            *self.hashed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = position + 1;
            self.advanced.notify_all();
        }
        hasher.update(END);
        (hasher.finalize().into(), length + END.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_as_long_as_it_should_be() {
        let top = tempfile::tempdir().unwrap();
        let path = top.path().join("file");
        std::fs::write(&path, b"0123456789").unwrap();
        let check = |size_bytes, at_end, expect: Option<&[u8]>| {
            let mut bytes = b"before".to_vec();
            let whole = append(&File::open(&path).unwrap(), &mut bytes, size_bytes, at_end).unwrap();
            assert_eq!(whole, expect.is_some(), "{size_bytes} {at_end}");
            if let Some(expect) = expect {
                assert_eq!(bytes, [b"before", expect].concat());
            }
        };
        check(10, true, Some(b"0123456789"));
        check(10, false, Some(b"0123456789"));
        check(4, false, Some(b"0123"));
        check(4, true, None);
        check(0, true, None);
        check(0, false, Some(b""));
        check(11, true, None);
        check(11, false, None);
    }

    #[test]
    fn batches_end_with_their_directory() {
        let entry = |path: String| Entry {
            path: path.into_bytes(),
            kind: Kind::Fifo,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: mica_tree::Time { seconds: 0, nanoseconds: 0 },
            xattrs: Vec::new(),
        };
        let entries: Vec<_> = ["a", "b"]
            .iter()
            .flat_map(|top| (0..60).map(move |at| entry(format!("{top}/{at:02}"))))
            .collect();
        assert_eq!(batches(entries.iter()), [0..60, 60..120]);
        // Small directories share one.
        let entries: Vec<_> = (0..20).map(|at| entry(format!("{at:02}/x"))).collect();
        assert_eq!(batches(entries.iter()).len(), 1);
    }
}
