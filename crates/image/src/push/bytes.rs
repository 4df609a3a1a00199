//! The bytes of a blob that is pushed: kept ones, or a tar that is written and compressed into a file that nobody else sees.

use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mica_layer::encode::{Algorithm, EncodeError, Form, compress_from};
use mica_layer::hashing::Hashing;
use mica_layer::write_tar::{WriteTarError, write_tar};
use mica_oci::{DiffId, Digest};
use mica_registry_client::Content;
use mica_store::{Ingest, Store};
use mica_sys::error::ErrorAt;
use mica_tree::Entry;

use super::error::PushError;
use super::plan::Plain;
use super::send::Failure;
use crate::chain::{open_in_tree, read_index};
use crate::error::ImageError;

/// Threads that compress; the encoder takes fewer where they are not worth their memory.
const THREADS_MAX: usize = 32;

/// Bytes that were written to be sent. They go when this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Written {
    pub file: Arc<File>,
    pub digest: Digest,
    pub size_bytes: u64,
    /// Holds the directory that the file is in.
    _ingest: Arc<Ingest>,
}

/// Told how much of how much is done; answers whether to go on.
pub(crate) type Watch<'a> = dyn FnMut(u64, u64) -> bool + std::marker::Send + 'a;

/// Writes the tar of a layer in that form.
pub(crate) fn write(
    store: &Store,
    diff_id: &DiffId,
    plain: &Plain,
    form: Form,
    watch: &mut Watch<'_>,
) -> Result<Written, Failure> {
    let ingest = store.ingest()?;
    let path = ingest.path().join("compressed");
    let options = &mut File::options();
    let file = options.read(true).write(true).create_new(true).open(&path).at("open", &path)?;
    let mut out = Hashing::new(io::BufWriter::with_capacity(256 << 10, &file));
    match form.algorithm() {
        Algorithm::Uncompressed => produce(store, diff_id, plain, watch, &mut out)?,
        Algorithm::Gzip | Algorithm::Zstd => {
            let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(THREADS_MAX);
            let produce = |to: &mut mica_layer::encode::Plain| produce(store, diff_id, plain, watch, to);
            compress_from(form, produce, &mut out, threads).map_err(|error| match error {
                EncodeError::Produce(failure) => failure,
                EncodeError::Write(source) => {
                    Failure::Image(mica_sys::Error::new("write", &path, source).into())
                }
            })?;
        }
    }
    let (digest, size_bytes) = out.finish().at("write", &path)?;
    let digest = Digest::from_sha256(digest);
    Ok(Written { file: Arc::new(file), digest, size_bytes, _ingest: Arc::new(ingest) })
}

/// Writes a layer's tar into `out`, and compares it with the diff ID.
pub(crate) fn produce(
    store: &Store,
    diff_id: &DiffId,
    plain: &Plain,
    watch: &mut Watch<'_>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let compress = |source| PushError::Compress { digest: diff_id.0.clone(), source };
    let all = match plain {
        Plain::Tree(layer) => layer.record.tar_size_bytes,
        Plain::Blob(digest) => store.blob_size_bytes(digest)?.unwrap_or_default(),
    };
    let mut out = Hashing::new(Watched { out, watch, done: 0, all });
    match plain {
        Plain::Blob(digest) => {
            let mut file = store.open_blob(digest)?;
            io::copy(&mut file, &mut out).map_err(compress)?;
        }
        Plain::Tree(layer) => {
            let index = read_index(layer)?;
            let path = layer.tree_path();
            let tree = File::open(&path).at("open", &path)?;
            let mut open = |entry: &Entry| open_in_tree(&tree, &entry.path).map_err(|error| error.source);
            write_tar(&index, &mut open, &mut out).map_err(|source| match source {
                WriteTarError::Write { source } => Failure::Own(compress(source)),
                source => Failure::Image(ImageError::WriteLayer { diff_id: diff_id.clone(), source }),
            })?;
        }
    }
    let actual = Digest::from_sha256(out.finish().map_err(compress)?.0);
    if actual == diff_id.0 {
        return Ok(());
    }
    Err(Failure::Image(ImageError::LayerAltered { diff_id: diff_id.clone(), actual }))
}

/// Tells how far writing is.
struct Watched<'a, W> {
    out: W,
    watch: &'a mut Watch<'a>,
    done: u64,
    all: u64,
}

impl<W: Write> Write for Watched<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.done += count as u64;
        match (self.watch)(self.done, self.all) {
            true => Ok(count),
            false => Err(io::Error::other("it was told to stop")),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// A file as the content of an upload. Once `stop` is set, reading it fails, and with it the upload.
pub(super) struct FileContent {
    pub file: Arc<File>,
    pub stop: Arc<AtomicBool>,
}

impl Content for FileContent {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(ReadFrom { file: Arc::clone(&self.file), stop: Arc::clone(&self.stop), offset }))
    }
}

/// Reads at its own position: the file may be open several times over.
struct ReadFrom {
    file: Arc<File>,
    stop: Arc<AtomicBool>,
    offset: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("another layer failed"));
        }
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}
