//! Reading ahead: one thread reads (and inflates), one hashes, the caller works on what was read.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use sha2::{Digest, Sha256};

use crate::error::Result;

/// Large enough that a buffer costs no time to hand on, small enough that a few stay in the processor's cache.
const CHUNK_SIZE_BYTES: usize = 256 << 10;
/// Buffers on their way to each side.
const CHUNKS_WAITING_MAX: usize = 8;

type Chunk = io::Result<Arc<Vec<u8>>>;

/// What a stream was, to its last byte.
pub(crate) struct Digested<T> {
    pub value: T,
    pub sha256: [u8; 32],
    pub size_bytes: u64,
}

/// Runs `work` on the stream while other threads read and hash it. `work` must read to the end if it succeeds.
pub(crate) fn run<T>(
    reader: impl Read + Send,
    work: impl FnOnce(&mut ChunkReader) -> Result<T>,
) -> Result<Digested<T>> {
    thread::scope(|scope| {
        let (to_work, chunks) = sync_channel(CHUNKS_WAITING_MAX);
        let (to_hash, hashed) = sync_channel(CHUNKS_WAITING_MAX);
        let (to_spare, spare) = channel();
        let spare_of_hash = to_spare.clone();
        let named = thread::Builder::new;
        named().spawn_scoped(scope, move || read_all(reader, &to_work, &to_hash, &spare))?;
        let hashing = named().spawn_scoped(scope, move || hash_all(&hashed, &spare_of_hash))?;
        let mut reader = ChunkReader { chunks, spare: to_spare, chunk: Arc::default(), position: 0 };
        let outcome = work(&mut reader);
        // Before the threads are waited for: the reading one stops when nobody takes its chunks.
        drop(reader);
        let value = outcome?;
        let Ok((sha256, size_bytes)) = hashing.join() else {
            return Err(io::Error::other("the hashing thread stopped").into());
        };
        Ok(Digested { value, sha256, size_bytes })
    })
}

/// Gives the buffer back when the other side is done with it too: fresh memory costs the kernel as much as the copy.
fn give_back(chunk: Arc<Vec<u8>>, spare: &Sender<Vec<u8>>) {
    if let Some(buffer) = Arc::into_inner(chunk) {
        // At the end nobody wants it any more.
        let _ = spare.send(buffer);
    }
}

fn read_all(
    mut reader: impl Read,
    to_work: &SyncSender<Chunk>,
    to_hash: &SyncSender<Arc<Vec<u8>>>,
    spare: &Receiver<Vec<u8>>,
) {
    loop {
        let mut chunk = spare.try_recv().unwrap_or_default();
        chunk.clear();
        chunk.reserve_exact(CHUNK_SIZE_BYTES);
        let read = reader.by_ref().take(CHUNK_SIZE_BYTES as u64).read_to_end(&mut chunk);
        if let Err(error) = read {
            // Nobody may be left to hear it.
            let _ = to_work.send(Err(error));
            return;
        }
        if chunk.is_empty() {
            return;
        }
        let chunk = Arc::new(chunk);
        if to_hash.send(Arc::clone(&chunk)).is_err() || to_work.send(Ok(chunk)).is_err() {
            return;
        }
    }
}

fn hash_all(chunks: &Receiver<Arc<Vec<u8>>>, spare: &Sender<Vec<u8>>) -> ([u8; 32], u64) {
    let (mut hasher, mut size_bytes) = (Sha256::new(), 0);
    for chunk in chunks {
        hasher.update(chunk.as_slice());
        size_bytes += chunk.len() as u64;
        give_back(chunk, spare);
    }
    (hasher.finalize().into(), size_bytes)
}

/// The stream as the working side sees it.
#[derive(Debug)]
pub(crate) struct ChunkReader {
    chunks: Receiver<Chunk>,
    spare: Sender<Vec<u8>>,
    chunk: Arc<Vec<u8>>,
    position: usize,
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position >= self.chunk.len() {
            // A closed channel is the end of the stream: errors come through it.
            let next = self.chunks.recv().unwrap_or_else(|_| Ok(Arc::default()))?;
            give_back(std::mem::replace(&mut self.chunk, next), &self.spare);
            self.position = 0;
        }
        Ok(self.chunk.get(self.position..).unwrap_or_default())
    }

    fn consume(&mut self, size_bytes: usize) {
        self.position += size_bytes;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size_bytes = self.fill_buf()?.read(buffer)?;
        self.consume(size_bytes);
        Ok(size_bytes)
    }
}
