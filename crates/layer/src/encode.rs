//! Compressing a layer for others: gzip or zstd, on as many cores as there are, always the same bytes.
//!
//! The stream is cut into blocks of one size, and what comes of each is put together in order. Where a block begins depends
//! on the stream alone, so the number of threads shows nowhere. Gzip as pigz does it: each block is deflated by itself with
//! the 32 KiB before it as its dictionary, and all are one member. Zstd: each block is a frame of its own (RFC 8878, section
//! 3: a reader takes any number of them as one stream); its own threads would need a library built for them, and their bytes
//! are promised for one version only.
//!
//! The digest of a compressed layer is remembered and compared between machines, so the bytes are a format: whoever changes
//! the size of a block, the header or the library that compresses (its version too, if its bytes differ) gives the forms
//! another version ([`Form::name`]). A test holds the digests of known streams for that.

use std::io::{self, Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

pub use crate::form::{Algorithm, Form, FormError};

/// The name of the form that layers are pushed in unless something else is asked for.
pub const FORM: &str = "gzip-6.1";

/// Input of one block of gzip. Smaller ones cost size, larger ones memory; a small layer should still keep several cores busy.
const GZIP_BLOCK_SIZE_BYTES: usize = 512 << 10;
/// Input of one frame of zstd: nothing before it is referred to, so it is longer than the window of the usual levels (2 MiB).
const ZSTD_BLOCK_SIZE_BYTES: usize = 4 << 20;
/// Frames of zstd at the same time: each has some 16 MiB.
const ZSTD_THREADS_MAX: usize = 16;
/// From here on zstd looks for matches in tables of some 70 MiB a frame.
const ZSTD_LEVEL_LARGE: u8 = 13;
/// As many frames at the same time of those.
const ZSTD_LARGE_THREADS_MAX: usize = 8;
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
pub fn compress(
    form: Form,
    mut reader: impl Read + Send,
    out: impl Write,
    threads: usize,
) -> Result<Sizes, EncodeError<io::Error>> {
    compress_from(form, |plain| io::copy(&mut reader, plain).map(|_| ()), out, threads)
}

/// Compresses what `produce` writes, on `threads` threads beside the one that it runs on, into `out`.
///
/// When `out` fails, so does the next write of `produce`, and the error of `out` is what is told. Memory is bounded by the
/// number of threads, of which no more are used than are worth their memory.
pub fn compress_from<E: Send>(
    form: Form,
    produce: impl FnOnce(&mut Plain) -> Result<(), E> + Send,
    mut out: impl Write,
    threads: usize,
) -> Result<Sizes, EncodeError<E>> {
    let threads = threads.clamp(1, threads_max(form));
    let (to_work, jobs) = sync_channel(threads);
    let (to_order, in_order) = sync_channel(threads);
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for position in 0..threads {
            let worker = thread::Builder::new().spawn_scoped(scope, || encode_all(form, &jobs));
            // One does, slower.
            if let (Err(error), 0) = (worker, position) {
                return Err(EncodeError::Write(error));
            }
        }
        let producing = thread::Builder::new().spawn_scoped(scope, move || {
            let (block_size_bytes, window_size_bytes) = block_and_window(form);
            let mut plain =
                Plain { block: Vec::new(), start: 0, block_size_bytes, window_size_bytes, to_work, to_order };
            produce(&mut plain)?;
            // Nobody listens any more: then the other side knows why.
            let _ = plain.send();
            Ok(())
        });
        let producing = producing.map_err(EncodeError::Write)?;
        let written = write_in_order(form, in_order, &mut out);
        let produced = producing.join();
        match (written, produced) {
            (_, Err(panic)) => std::panic::resume_unwind(panic),
            (Err(error), _) => Err(EncodeError::Write(error)),
            (_, Ok(Err(error))) => Err(EncodeError::Produce(error)),
            (Ok(body), Ok(Ok(()))) => finish(form, &body, &mut out).map_err(EncodeError::Write),
        }
    })
}

fn threads_max(form: Form) -> usize {
    match form.algorithm() {
        // Each has two blocks of half a megabyte, and no disk gives more than so many take.
        Algorithm::Uncompressed | Algorithm::Gzip => 32,
        Algorithm::Zstd if form.level() < ZSTD_LEVEL_LARGE => ZSTD_THREADS_MAX,
        Algorithm::Zstd => ZSTD_LARGE_THREADS_MAX,
    }
}

fn block_and_window(form: Form) -> (usize, usize) {
    match form.algorithm() {
        Algorithm::Uncompressed => (GZIP_BLOCK_SIZE_BYTES, 0),
        Algorithm::Gzip => (GZIP_BLOCK_SIZE_BYTES, WINDOW_SIZE_BYTES),
        Algorithm::Zstd => (ZSTD_BLOCK_SIZE_BYTES, 0),
    }
}

/// A block on its way to be compressed: up to a window of what came before it, and from `start` on its own bytes.
struct Job {
    bytes: Vec<u8>,
    start: usize,
    done: SyncSender<io::Result<Encoded>>,
}

/// A block that is.
struct Encoded {
    bytes: Vec<u8>,
    /// Of the plain bytes, for gzip.
    crc: Crc,
    plain_size_bytes: usize,
}

/// The side that takes the plain stream.
#[derive(Debug)]
pub struct Plain {
    block: Vec<u8>,
    /// Where the block itself begins, behind what came before it.
    start: usize,
    block_size_bytes: usize,
    window_size_bytes: usize,
    to_work: SyncSender<Job>,
    /// What comes of each block, in the order of the blocks.
    to_order: SyncSender<Receiver<io::Result<Encoded>>>,
}

impl Plain {
    fn send(&mut self) -> io::Result<()> {
        if self.block.len() == self.start {
            return Ok(());
        }
        let window = self.block.len().saturating_sub(self.window_size_bytes);
        let mut next = Vec::with_capacity(self.window_size_bytes + self.block_size_bytes);
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
        let room = (self.start + self.block_size_bytes).saturating_sub(self.block.len());
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

fn encode_all(form: Form, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        let Ok(Job { bytes, start, done }) = job else { return };
        let plain_size_bytes = bytes.len() - start.min(bytes.len());
        let encoded = match form.algorithm() {
            Algorithm::Uncompressed => Ok(Encoded { bytes, crc: Crc::new(), plain_size_bytes }),
            Algorithm::Gzip => {
                let (window, block) = bytes.split_at(start.min(bytes.len()));
                deflate_block(form.level(), window, block)
            }
            // A new context for each frame, for the same reason as below.
            Algorithm::Zstd => zstd::bulk::compress(&bytes, form.level().into()).map(|bytes| Encoded {
                bytes,
                crc: Crc::new(),
                plain_size_bytes,
            }),
        };
        // Nobody may be left to hear it.
        let _ = done.send(encoded);
    }
}

fn deflate_block(level: u8, window: &[u8], block: &[u8]) -> io::Result<Encoded> {
    let mut crc = Crc::new();
    crc.update(block);
    let plain_size_bytes = block.len();
    if level == 0 {
        return Ok(Encoded { bytes: stored(block), crc, plain_size_bytes });
    }
    // A new one for each block: one that is reset keeps the positions and bytes of earlier blocks in its tables, and what it
    // finds there depends on which blocks this thread has had.
    let mut deflate = Compress::new(Compression::new(level.into()), false);
    if !window.is_empty() {
        deflate.set_dictionary(window)?;
    }
    // What does not compress is stored, five bytes more for some 16 KiB; level 1 only knows fixed codes, of up to nine bits.
    let most = if level == 1 { block.len() / 4 } else { block.len() / 64 };
    let mut bytes = Vec::with_capacity(block.len() + most + 1024);
    let status = deflate.compress_vec(block, &mut bytes, FlushCompress::Sync)?;
    if status != Status::Ok || deflate.total_in() != block.len() as u64 || bytes.len() == bytes.capacity() {
        return Err(io::Error::other("a block did not fit after compression"));
    }
    if level == 1 && bytes.len() > block.len() + 1024 {
        bytes = stored(block);
    }
    Ok(Encoded { bytes, crc, plain_size_bytes })
}

/// Blocks that are not compressed (RFC 1951, section 3.2.4), none of them the last one.
fn stored(block: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(block.len() + block.len() / 1024 + 16);
    for chunk in block.chunks(u16::MAX.into()) {
        let length = chunk.len() as u16;
        bytes.push(0);
        bytes.extend_from_slice(&length.to_le_bytes());
        bytes.extend_from_slice(&(!length).to_le_bytes());
        bytes.extend_from_slice(chunk);
    }
    bytes
}

/// What stands between header and trailer.
#[derive(Default)]
struct Body {
    crc: Crc,
    plain_size_bytes: u64,
    encoded_size_bytes: u64,
}

fn write_in_order(
    form: Form,
    in_order: Receiver<Receiver<io::Result<Encoded>>>,
    out: &mut impl Write,
) -> io::Result<Body> {
    if form.algorithm() == Algorithm::Gzip {
        out.write_all(&HEADER)?;
    }
    let mut body = Body::default();
    for result in in_order {
        let stopped = |_| io::Error::other("a thread that compresses has stopped");
        let block = result.recv().map_err(stopped)??;
        out.write_all(&block.bytes)?;
        body.crc.combine(&block.crc);
        body.plain_size_bytes += block.plain_size_bytes as u64;
        body.encoded_size_bytes += block.bytes.len() as u64;
    }
    Ok(body)
}

fn finish(form: Form, body: &Body, out: &mut impl Write) -> io::Result<Sizes> {
    let mut around = 0;
    match form.algorithm() {
        Algorithm::Uncompressed => {}
        Algorithm::Gzip => {
            out.write_all(&LAST_BLOCK)?;
            out.write_all(&body.crc.sum().to_le_bytes())?;
            // RFC 1952: the size modulo 2^32.
            out.write_all(&(body.plain_size_bytes as u32).to_le_bytes())?;
            around = HEADER.len() + LAST_BLOCK.len() + 8;
        }
        // No frame at all is no stream of zstd.
        Algorithm::Zstd if body.plain_size_bytes == 0 => {
            let empty = zstd::bulk::compress(&[], form.level().into())?;
            out.write_all(&empty)?;
            around = empty.len();
        }
        Algorithm::Zstd => {}
    }
    out.flush()?;
    Ok(Sizes {
        plain_size_bytes: body.plain_size_bytes,
        compressed_size_bytes: body.encoded_size_bytes + around as u64,
    })
}
