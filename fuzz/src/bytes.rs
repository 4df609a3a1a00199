//! Bytes: archives, compressed streams, and the formats of our own files. Where a format ends in a checksum, the harness
//! makes it, or nothing behind the check would ever be seen.

use std::io::{BufReader, Cursor, Read};

use mica_layer::LayerError;
use mica_layer::compress::{Limits, decompress};
use mica_layer::tar_entry::{TarLimits, TarReader};
use mica_trace::Record;
use mica_tree::{Index, MergedIndex};

/// More than any input may make of itself.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;

/// Reads all entries with their contents.
pub fn tar(data: &[u8]) {
    let limits = TarLimits { holes_size_bytes_max: OUTPUT_BYTES_MAX, ..TarLimits::default() };
    let mut reader = TarReader::new(BufReader::with_capacity(512, data), limits);
    let mut read = || -> Result<(), LayerError> {
        while let Some(entry) = reader.next_entry()? {
            assert!(mica_tree::index::is_clean(&entry.entry.path), "{:?}", entry.entry.path);
            let mut content = reader.content(&entry);
            let _ = std::io::copy(&mut content, &mut std::io::sink());
        }
        reader.drain()
    };
    let _ = read();
    assert!(reader.offset_bytes() <= data.len() as u64 + 512);
}

/// gzip, zstd, bzip2, xz, by their first bytes.
pub fn compressed(data: &[u8]) {
    let limits = Limits { output_bytes_max: OUTPUT_BYTES_MAX, ratio_max: 2000, ratio_free_bytes: 1 << 16 };
    let Ok((_, mut reader)) = decompress(Cursor::new(data.to_vec()), limits) else { return };
    let mut output = Vec::new();
    let _ = reader.read_to_end(&mut output);
    assert!(output.len() as u64 <= OUTPUT_BYTES_MAX + (1 << 16));
}

/// The index of a layer: what decodes is encoded to something that decodes to the same, and can be merged.
pub fn index(data: &[u8]) {
    let magic = Index::from_sorted(Vec::new()).encode();
    let body = [magic.get(..magic.len() - 33).unwrap_or_default(), data].concat();
    let checksum = blake3::hash(&body);
    let Ok(index) = Index::decode(&[&body, checksum.as_bytes().as_slice()].concat()) else { return };
    let again = Index::decode(&index.encode()).expect("what we encoded");
    assert_eq!(again.entries(), index.entries());
    let merged = MergedIndex::new([index.into(), again.into()]);
    let _ = merged.resolve(b"a/b/../c", true);
}

/// The record of what a step used.
pub fn record(data: &[u8]) {
    let empty = Record::default().encode();
    let compressed = zstd::bulk::compress(data, 1).expect("to memory");
    let checksum = blake3::hash(&compressed);
    let magic = empty.get(..empty.len() - 32 - zstd_length(&empty)).unwrap_or_default();
    let Ok(record) = Record::decode(&[magic, checksum.as_bytes(), &compressed].concat()) else { return };
    assert_eq!(Record::decode(&record.encode()).as_ref(), Ok(&record));
}

/// Length of the frame at the end of an encoded record.
fn zstd_length(record: &[u8]) -> usize {
    let magic = [0x28, 0xb5, 0x2f, 0xfd];
    record.windows(4).rposition(|window| window == magic).map_or(0, |start| record.len() - start)
}

/// What is remembered of the files of a build context.
pub fn stat_cache(data: &[u8]) {
    let body = [b"micastat\x01\0\0\0", data].concat();
    let checksum = blake3::hash(&body);
    mica_context::stat_cache_entries([&body, checksum.as_bytes().as_slice()].concat());
}
