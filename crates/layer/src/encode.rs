//! Compressing a layer for a registry: gzip, on as many cores as there are, always the same bytes.
//!
//! As pigz does it: the stream is cut into blocks of one size, each is deflated by itself with the 32 KiB before it as its
//! dictionary, and what comes out is put together in order, as one gzip member. Where a block begins depends on the stream
//! alone, so the number of threads shows nowhere.
//!
//! The digest of a compressed layer is remembered and compared between machines, so the bytes are a format: whoever changes
//! the size of a block, the level, the header or the library that deflates (its version too, if its bytes differ) gives
//! [`FORM`] another name. A test holds the digests of known streams for that.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Algorithm, level and version of what [`compress_gzip`] makes: equal names mean equal bytes of equal streams.
pub const FORM: &str = "gzip-6.1";

/// As gzip, docker and buildkit compress: the best that is not slow.
const LEVEL: u32 = 6;
/// Input of one block. Smaller ones cost size, larger ones memory; a small layer should still keep several cores busy.
const BLOCK_SIZE_BYTES: usize = 512 << 10;
/// How far back deflate can refer (RFC 1951, section 3.2.5).
const WINDOW_SIZE_BYTES: usize = 32 << 10;
/// RFC 1952, section 2.3: deflate, no name, no time, no remark about effort, an unknown system. Go writes the same.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// An empty last block with fixed codes (RFC 1951, section 3.2.6): so no block before it must know that it is the last one.
const LAST_BLOCK: [u8; 2] = [0x03, 0x00];

/// How long both sides of a compressed stream are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// What went in.
    pub plain_size_bytes: u64,
    /// What came out.
    pub compressed_size_bytes: u64,
}

/// Why a stream could not be compressed. `E` is what its maker says.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError<E> {
    /// The plain stream ended with an error.
    #[error(transparent)]
    Produce(E),
    /// The compressed stream could not be written.
    #[error("cannot write the compressed layer: {0}")]
    Write(#[source] io::Error),
}

/// Compresses what `reader` gives, on `threads` threads, into `out`.
pub fn compress_gzip(
    mut reader: impl Read + Send,
    out: impl Write,
    threads: usize,
) -> Result<Sizes, EncodeError<io::Error>> {
    compress_gzip_from(|plain| io::copy(&mut reader, plain).map(|_| ()), out, threads)
}

/// Compresses what `produce` writes, on `threads` threads beside the one that it runs on, into `out`.
///
/// When `out` fails, so does the next write of `produce`, and the error of `out` is what is told. Memory is bounded by the
/// number of threads.
pub fn compress_gzip_from<E: Send>(
    produce: impl FnOnce(&mut Plain) -> Result<(), E> + Send,
    mut out: impl Write,
    threads: usize,
) -> Result<Sizes, EncodeError<E>> {
    let threads = threads.max(1);
    let (to_work, jobs) = sync_channel(threads);
    let (to_order, in_order) = sync_channel(threads);
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for position in 0..threads {
            let worker = thread::Builder::new().spawn_scoped(scope, || deflate_all(&jobs));
            // One does, slower.
            if let (Err(error), 0) = (worker, position) {
                return Err(EncodeError::Write(error));
            }
        }
        let producing = thread::Builder::new().spawn_scoped(scope, move || {
            let mut plain = Plain { block: Vec::new(), start: 0, to_work, to_order };
            produce(&mut plain)?;
            // Nobody listens any more: then the other side knows why.
            let _ = plain.send();
            Ok(())
        });
        let producing = producing.map_err(EncodeError::Write)?;
        let written = write_in_order(in_order, &mut out);
        let produced = producing.join();
        match (written, produced) {
            (_, Err(panic)) => std::panic::resume_unwind(panic),
            (Err(error), _) => Err(EncodeError::Write(error)),
            (_, Ok(Err(error))) => Err(EncodeError::Produce(error)),
            (Ok(body), Ok(Ok(()))) => finish(&body, &mut out).map_err(EncodeError::Write),
        }
    })
}

/// A block on its way to be deflated: up to a window of what came before it, and from `start` on its own bytes.
struct Job {
    bytes: Vec<u8>,
    start: usize,
    done: SyncSender<io::Result<Deflated>>,
}

/// A block that is.
struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
    plain_size_bytes: usize,
}

/// The side that takes the plain stream.
#[derive(Debug)]
pub struct Plain {
    block: Vec<u8>,
    /// Where the block itself begins, behind what came before it.
    start: usize,
    to_work: SyncSender<Job>,
    /// What comes of each block, in the order of the blocks.
    to_order: SyncSender<Receiver<io::Result<Deflated>>>,
}

impl Plain {
    fn send(&mut self) -> io::Result<()> {
        if self.block.len() == self.start {
            return Ok(());
        }
        let window = self.block.len().saturating_sub(WINDOW_SIZE_BYTES);
        let mut next = Vec::with_capacity(WINDOW_SIZE_BYTES + BLOCK_SIZE_BYTES);
        next.extend_from_slice(self.block.get(window..).unwrap_or_default());
        let (done, result) = sync_channel(1);
        let start = std::mem::replace(&mut self.start, next.len());
        let job = Job { bytes: std::mem::replace(&mut self.block, next), start, done };
        let closed = || io::Error::from(io::ErrorKind::BrokenPipe);
        self.to_order.send(result).map_err(|_| closed())?;
        self.to_work.send(job).map_err(|_| closed())
    }
}

impl Write for Plain {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let room = (self.start + BLOCK_SIZE_BYTES).saturating_sub(self.block.len());
        let taken = bytes.get(..room).unwrap_or(bytes);
        self.block.extend_from_slice(taken);
        if taken.len() == room {
            self.send()?;
        }
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn deflate_all(jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok(Job { bytes, start, done }) = job else { return };
        let (window, block) = bytes.split_at(start.min(bytes.len()));
        // Nobody may be left to hear it.
        let _ = done.send(deflate_block(window, block));
    }
}

fn deflate_block(window: &[u8], block: &[u8]) -> io::Result<Deflated> {
    // A new one for each block: one that is reset keeps the positions and bytes of earlier blocks in its tables, and what it
    // finds there depends on which blocks this thread has had.
    let mut deflate = Compress::new(Compression::new(LEVEL), false);
    if !window.is_empty() {
        deflate.set_dictionary(window)?;
    }
    // What does not compress is stored, five bytes more for some 16 KiB.
    let mut bytes = Vec::with_capacity(block.len() + block.len() / 64 + 1024);
    let status = deflate.compress_vec(block, &mut bytes, FlushCompress::Sync)?;
    if status != Status::Ok || deflate.total_in() != block.len() as u64 || bytes.len() == bytes.capacity() {
        return Err(io::Error::other("a block did not fit after compression"));
    }
    let mut crc = Crc::new();
    crc.update(block);
    Ok(Deflated { bytes, crc, plain_size_bytes: block.len() })
}

/// What stands between header and trailer.
#[derive(Default)]
struct Body {
    crc: Crc,
    plain_size_bytes: u64,
    deflated_size_bytes: u64,
}

fn write_in_order(
    in_order: Receiver<Receiver<io::Result<Deflated>>>,
    out: &mut impl Write,
) -> io::Result<Body> {
    out.write_all(&HEADER)?;
    let mut body = Body::default();
    for result in in_order {
        let stopped = |_| io::Error::other("a thread that compresses has stopped");
        let block = result.recv().map_err(stopped)??;
        out.write_all(&block.bytes)?;
        body.crc.combine(&block.crc);
        body.plain_size_bytes += block.plain_size_bytes as u64;
        body.deflated_size_bytes += block.bytes.len() as u64;
    }
    Ok(body)
}

fn finish(body: &Body, out: &mut impl Write) -> io::Result<Sizes> {
    out.write_all(&LAST_BLOCK)?;
    out.write_all(&body.crc.sum().to_le_bytes())?;
    // RFC 1952: the size modulo 2^32.
    out.write_all(&(body.plain_size_bytes as u32).to_le_bytes())?;
    out.flush()?;
    let around = HEADER.len() + LAST_BLOCK.len() + 8;
    Ok(Sizes {
        plain_size_bytes: body.plain_size_bytes,
        compressed_size_bytes: body.deflated_size_bytes + around as u64,
    })
}
