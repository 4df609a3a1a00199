//! Reading a file while it is being written by another thread: the layer is applied while it is downloaded.
//!
//! The file, not memory, holds what the reading side has not got to yet; so memory does not depend on sizes, and a download
//! never waits for the layers below.

use std::fs::File;
use std::io::{self, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// How far a file is written.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
    /// Bytes that were read by the follower.
    read_bytes: AtomicU64,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    available_bytes: u64,
    end: Option<End>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Verified,
    Broken,
}

impl Progress {
    /// Of a file that is there as a whole.
    pub fn whole(size_bytes: u64) -> Progress {
        let progress = Progress::default();
        progress.advance(size_bytes);
        progress.verified();
        progress
    }

    /// So many bytes are there now.
    pub fn advance(&self, available_bytes: u64) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).available_bytes = available_bytes;
        self.changed.notify_all();
    }

    /// All bytes are there, and they match their digest. Only this ends the follower's stream.
    pub fn verified(&self) {
        self.end(End::Verified);
    }

    /// The rest will not come, or what came is wrong: the follower fails.
    pub fn broken(&self) {
        self.end(End::Broken);
    }

    fn end(&self, end: End) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).end.get_or_insert(end);
        self.changed.notify_all();
    }

    /// How far the follower is.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes.load(Ordering::Relaxed)
    }

    /// Waits until there is more than `position`, or the end: how many bytes there are.
    fn wait(&self, position: u64) -> io::Result<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match state.end {
                Some(End::Broken) => return Err(io::Error::other("the download broke off")),
                Some(End::Verified) => return Ok(state.available_bytes),
                None if state.available_bytes > position => return Ok(state.available_bytes),
                None => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

/// The bytes of a file as they come in.
pub(super) struct Follow<P> {
    pub file: File,
    pub progress: P,
    pub position: u64,
}

impl<P: std::ops::Deref<Target = Progress>> Read for Follow<P> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.progress.wait(self.position)?.saturating_sub(self.position);
        let wanted = usize::try_from(available).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read(buffer.get_mut(..wanted).unwrap_or_default())?;
        if count == 0 && wanted > 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file was cut while it was read"));
        }
        self.position += count as u64;
        self.progress.read_bytes.store(self.position, Ordering::Relaxed);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Seek, SeekFrom, Write};
    use std::sync::Arc;

    fn follow(end: impl FnOnce(&Progress) + Send + 'static) -> io::Result<Vec<u8>> {
        let mut file = tempfile::tempfile().unwrap();
        let progress = Arc::new(Progress::default());
        // The same description would share its position.
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file));
        let reader = File::open(path).unwrap();
        let mut follow = Follow { file: reader, progress: Arc::clone(&progress), position: 0 };
        let writer = std::thread::spawn(move || {
            for round in 1..=100_u64 {
                file.seek(SeekFrom::End(0)).unwrap();
                file.write_all(&[u8::try_from(round).unwrap(); 1000]).unwrap();
                progress.advance(round * 1000);
            }
            end(&progress);
        });
        let mut bytes = Vec::new();
        let read = follow.read_to_end(&mut bytes);
        writer.join().unwrap();
        read.map(|_| bytes)
    }

    #[test]
    fn all_bytes_come_in_order_and_end_only_when_verified() {
        let bytes = follow(Progress::verified).unwrap();
        assert_eq!(bytes.len(), 100_000);
        assert!(bytes.chunks(1000).zip(1..).all(|(chunk, round)| chunk.iter().all(|byte| *byte == round)));
        assert!(follow(Progress::broken).is_err());
    }
}
