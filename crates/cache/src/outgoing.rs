//! A layer on its way out: written as tar, compressed, and hashed, into a file of the store's `ingest`.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use mica_layer::encode::{EncodeError, compress_from};
use mica_layer::hashing::Hashing;
use mica_layer::write_tar::{WriteTarError, write_tar};
use mica_oci::{Descriptor, DiffId, Digest};
use mica_registry_client::Content;
use mica_store::{Ingest, Layer, Store};
use mica_sys::dir_at::open_beneath;
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index};
use rustix::fs::{Mode, OFlags};

use crate::error::{CacheError, Result};
use crate::export::ExportOptions;

/// A compressed tar, gone when this is dropped.
pub(crate) struct Outgoing {
    /// What it is.
    pub blob: Descriptor,
    /// Digest of the plain tar.
    pub diff_id: DiffId,
    /// Length of the plain tar.
    pub tar_size_bytes: u64,
    file: FileContent,
    /// Holds the directory that the file is in.
    _ingest: Ingest,
}

impl Outgoing {
    /// The bytes.
    pub fn content(&self) -> &dyn Content {
        &self.file
    }
}

/// The tar of a stored layer. It must have the layer's diff ID, or the layer was altered since it was made.
pub(crate) fn of_layer(
    store: &Store,
    layer: &Layer,
    index: &Index,
    options: &ExportOptions,
) -> Result<Outgoing> {
    let path = layer.tree_path();
    let tree = File::open(&path).at("open", &path)?;
    let open = |entry: &Entry| open_file(&tree, &entry.path);
    let outgoing = write(store, index, &open, options)?;
    match outgoing.diff_id == layer.record.diff_id {
        true => Ok(outgoing),
        false => {
            Err(CacheError::LayerDiffers { expected: layer.record.diff_id.clone(), actual: outgoing.diff_id })
        }
    }
}

/// Opens a file of a tree, through no symbolic link.
pub(crate) fn open_file(tree: &File, path: &[u8]) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    Ok(open_beneath(tree, path, flags, Mode::empty()).map_err(|error| error.source)?.into())
}

/// Writes and compresses what an index has.
pub(crate) fn write(
    store: &Store,
    index: &Index,
    open: &(dyn Fn(&Entry) -> io::Result<File> + Sync),
    options: &ExportOptions,
) -> Result<Outgoing> {
    let ingest = store.ingest()?;
    let path = ingest.path().join("blob");
    let file = File::options().read(true).write(true).create_new(true).open(&path).at("open", &path)?;
    let mut out = Hashing::new(io::BufWriter::with_capacity(256 << 10, &file));
    let cannot = |source| CacheError::Io { what: "cannot write a compressed layer", source };
    let mut plain = None;
    let produce = |to: &mut mica_layer::encode::Plain| {
        plain = Some(write_plain(index, open, to)?);
        Ok::<(), WriteTarError>(())
    };
    compress_from(options.form, produce, &mut out, options.threads).map_err(|error| match error {
        EncodeError::Produce(error) => error.into(),
        EncodeError::Write(source) => cannot(source),
    })?;
    let (diff_id, tar_size_bytes) = plain.unwrap_or_else(|| (Digest::sha256(b""), 0));
    let (digest, size_bytes) = out.finish().map_err(cannot)?;
    Ok(Outgoing {
        blob: Descriptor::new(options.media_type(), Digest::from_sha256(digest), size_bytes),
        diff_id: DiffId(diff_id),
        tar_size_bytes,
        file: FileContent(Arc::new(file)),
        _ingest: ingest,
    })
}

fn write_plain(
    index: &Index,
    open: &(dyn Fn(&Entry) -> io::Result<File> + Sync),
    out: &mut impl Write,
) -> std::result::Result<(Digest, u64), WriteTarError> {
    let mut out = Hashing::new(out);
    write_tar(index, &mut |entry| open(entry), &mut out)?;
    let (digest, size_bytes) = out.finish().map_err(|source| WriteTarError::Write { source })?;
    Ok((Digest::from_sha256(digest), size_bytes))
}

/// Digest of the tar that mica writes of a tree, without keeping it.
pub(crate) fn digest_of(index: &Index, tree: &File) -> Result<DiffId> {
    let open = |entry: &Entry| open_file(tree, &entry.path);
    let mut sink = io::BufWriter::with_capacity(256 << 10, io::sink());
    Ok(DiffId(write_plain(index, &open, &mut sink)?.0))
}

/// A file as the content of a blob.
pub(crate) struct FileContent(pub Arc<File>);

impl Content for FileContent {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(ReadFrom { file: self.0.clone(), offset }))
    }
}

/// Reads at its own position: the file may be open several times over.
struct ReadFrom {
    file: Arc<File>,
    offset: u64,
}

impl Read for ReadFrom {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Bytes in memory as the content of a blob.
pub(crate) struct BytesContent(pub Arc<[u8]>);

impl Content for BytesContent {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        let mut reader = io::Cursor::new(self.0.clone());
        reader.set_position(offset);
        Ok(Box::new(reader))
    }
}
