//! A layer's bytes become a stored layer: hashed, unfolded and applied in one pass.

use std::fs::File;
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex, PoisonError};

use mica_layer::LayerError;
use mica_layer::apply::{Applied, ApplyContext, Mapping, Parents, apply_layer};
use mica_layer::compress::{Compression, Limits, decompress};
use mica_layer::tar_entry::TarLimits;
use mica_layer::write_tar::{END, encode_header, first_name, padding, write_tar};
use mica_oci::{ChainId, DiffId, Digest};
use mica_store::{BlobWriter, Ingest, Layer, LayerRecord, Store, tree_size_bytes};
use mica_sys::error::ErrorAt;
use mica_tree::{Index, Kind};
use sha2::{Digest as _, Sha256};

use crate::chain::open_in_tree;
use crate::error::Result;

/// A layer that was applied and is not yet committed.
pub(crate) struct Ingested {
    ingest: Ingest,
    index: Index,
    applied: Applied,
    blob: Option<BlobWriter>,
    /// How the bytes came.
    pub compression: Compression,
}

/// How applying failed: by the layer's own fault, or by the store's.
pub(crate) enum IngestError {
    Layer(LayerError),
    Other(crate::error::ImageError),
}

impl<E: Into<crate::error::ImageError>> From<E> for IngestError {
    fn from(error: E) -> Self {
        Self::Other(error.into())
    }
}

/// The raw bytes on their way to the decoder, copied into a blob.
struct Tee<R> {
    reader: R,
    blob: Option<BlobWriter>,
}

struct SharedTee<R>(Arc<Mutex<Tee<R>>>);

impl<R: Read> Read for SharedTee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut tee = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let size_bytes = tee.reader.read(buffer)?;
        if let (Some(blob), Some(read)) = (&mut tee.blob, buffer.get(..size_bytes)) {
            blob.write_all(read)?;
        }
        Ok(size_bytes)
    }
}

/// Applies the layer in `reader` over `below`. With `expected`, the raw bytes are kept as well, and hashed with the
/// algorithm of that digest if it is known.
pub(crate) fn ingest_layer(
    store: &Store,
    reader: impl Read + Send + 'static,
    below: &dyn Parents,
    mapping: Mapping,
    keep: Keep<'_>,
) -> std::result::Result<Ingested, IngestError> {
    let blob = match keep {
        Keep::Nothing => None,
        Keep::Bytes => Some(store.blob_writer()?),
        Keep::BytesOf(digest) => Some(store.blob_writer_for(digest)?),
    };
    let ingest = store.ingest()?;
    let tree = ingest.tree();
    let tree = File::open(&tree).at("open", &tree)?;
    let tee = Arc::new(Mutex::new(Tee { reader, blob }));
    let (compression, unfolded) =
        decompress(SharedTee(Arc::clone(&tee)), Limits::default()).map_err(IngestError::Layer)?;
    let context = ApplyContext { lower: below, mapping, limits: TarLimits::default() };
    let mut applied = apply_layer(unfolded, &tree, &context).map_err(IngestError::Layer)?;
    // A decoder may stop before the end of its input; the digest of a blob covers all of it.
    io::copy(&mut SharedTee(Arc::clone(&tee)), &mut io::sink())
        .map_err(|source| IngestError::Layer(LayerError::from(source)))?;
    let blob = tee.lock().unwrap_or_else(PoisonError::into_inner).blob.take();
    let index = Index::from_sorted(std::mem::take(&mut applied.entries));
    Ok(Ingested { ingest, index, applied, blob, compression })
}

/// What happens to the bytes as they came.
#[derive(Clone, Copy)]
pub(crate) enum Keep<'a> {
    /// They are thrown away.
    Nothing,
    /// They become a blob, if mica would not write the same.
    Bytes,
    /// They become a blob with this digest.
    BytesOf(&'a Digest),
}

impl Ingested {
    /// Digest of the tar as it came.
    pub fn diff_id(&self) -> DiffId {
        DiffId(Digest::from_sha256(self.applied.diff_id))
    }

    /// Sum of the sizes of its files.
    pub fn content_size_bytes(&self) -> u64 {
        self.index.content_size_bytes()
    }

    /// Writes directories that are there only for what is in them into the layer itself: nothing is below it.
    pub fn make_explicit(&mut self) {
        let mut entries = std::mem::take(&mut self.index).into_entries();
        for entry in &mut entries {
            if let Kind::Directory { implied, .. } = &mut entry.kind {
                *implied = false;
            }
        }
        self.index = Index::from_sorted(entries);
        self.applied.implied_directories = false;
    }

    /// Digest and size of the tar that mica writes of this layer.
    pub fn canonical(&self) -> Result<(DiffId, u64)> {
        let tree = self.ingest.tree();
        let tree = File::open(&tree).at("open", &tree)?;
        let mut hasher = Hashing(Sha256::new());
        let written = write_tar(
            &self.index,
            &mut |entry| open_in_tree(&tree, &entry.path).map_err(|error| error.source),
            &mut io::BufWriter::with_capacity(128 << 10, &mut hasher),
        );
        let size_bytes = written
            .map_err(|source| crate::error::ImageError::WriteLayer { diff_id: self.diff_id(), source })?;
        Ok((DiffId(Digest::from_sha256(hasher.0.finalize().into())), size_bytes))
    }

    /// Whether mica would write the very bytes that came, so that they need not be kept.
    fn is_canonical(&self) -> Result<bool> {
        let size_bytes = tar_size_bytes(&self.index);
        Ok(size_bytes == self.applied.tar_size_bytes && self.canonical()?.0 == self.diff_id())
    }

    /// Commits the layer with the bytes that came, under the digest of its tar; `expected` is the digest of the bytes.
    pub fn commit(
        mut self,
        store: &Store,
        chain_id: &ChainId,
        media_type: &str,
        expected: Option<&Digest>,
    ) -> Result<Layer> {
        let diff_id = self.diff_id();
        let blob = self.blob.take();
        let is_tar = self.compression == Compression::None;
        let is_expected = expected.is_none_or(|expected| *expected == diff_id.0);
        let blob = if is_tar && is_expected && self.is_canonical()? { None } else { blob };
        let origin = match blob {
            Some(blob) => Some((blob.finish(expected)?.0, media_type.to_owned())),
            None => None,
        };
        let tar_size_bytes = self.applied.tar_size_bytes;
        self.commit_as(store, diff_id, tar_size_bytes, chain_id, origin)
    }

    /// Commits a layer whose bytes are a blob of the store already: `blob` is its digest and media type. One that mica would
    /// write in the same bytes does not need it.
    pub fn commit_of_blob(self, store: &Store, chain_id: &ChainId, blob: (Digest, String)) -> Result<Layer> {
        let (diff_id, tar_size_bytes) = (self.diff_id(), self.applied.tar_size_bytes);
        let is_made_of_tree = blob.0 == diff_id.0 && self.is_canonical()?;
        let origin = (!is_made_of_tree).then_some(blob);
        self.commit_as(store, diff_id, tar_size_bytes, chain_id, origin)
    }

    /// Commits the layer as one that mica made: its tar is the one that mica writes.
    pub fn commit_canonical(self, store: &Store) -> Result<(Layer, DiffId, u64)> {
        let (diff_id, tar_size_bytes) = self.canonical()?;
        let chain_id = ChainId::of_first(&diff_id);
        let layer = self.commit_as(store, diff_id.clone(), tar_size_bytes, &chain_id, None)?;
        Ok((layer, diff_id, tar_size_bytes))
    }

    fn commit_as(
        self,
        store: &Store,
        diff_id: DiffId,
        tar_size_bytes: u64,
        chain_id: &ChainId,
        origin: Option<(Digest, String)>,
    ) -> Result<Layer> {
        let path = self.ingest.index();
        std::fs::write(&path, self.index.encode()).at("write", &path)?;
        let depends = self.applied.implied_directories || self.applied.lower_hardlinks;
        let record = LayerRecord {
            diff_id,
            chain_id: depends.then(|| chain_id.clone()),
            size_bytes: tree_size_bytes(self.ingest.path())?,
            tar_size_bytes,
            origin,
        };
        Ok(store.commit_layer(self.ingest, &record)?)
    }
}

/// Length of the tar that mica writes of an index.
pub(crate) fn tar_size_bytes(index: &Index) -> u64 {
    let mut header = Vec::new();
    let mut size_bytes = END.len() as u64;
    for entry in index.entries() {
        header.clear();
        encode_header(entry, first_name(index, entry), &mut header);
        size_bytes += header.len() as u64;
        if let Kind::File { size, .. } = entry.kind {
            size_bytes = size_bytes.saturating_add(size).saturating_add(padding(size) as u64);
        }
    }
    size_bytes
}

struct Hashing(Sha256);

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
