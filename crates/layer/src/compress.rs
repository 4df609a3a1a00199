//! Compressed streams: told by their first bytes, unfolded under limits.

use std::io::{self, BufReader, Cursor, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::{Bomb, Result};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// RFC 1952, any number of members.
    Gzip,
    /// RFC 8878, any number of frames.
    Zstd,
    /// For `ADD` of local archives only; no layer has it.
    Bzip2,
    /// For `ADD` of local archives only; no layer has it.
    Xz,
}

/// How many bytes [`Compression::detect`] wants to see.
pub const MAGIC_SIZE_BYTES: usize = 6;

impl Compression {
    /// What the first bytes of a stream say. Fewer than [`MAGIC_SIZE_BYTES`] are all there is.
    pub fn detect(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // RFC 8878 3.1.2: a skippable frame may come first (0x184D2A50 to 5F); pzstd and estargz tools write such.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', b'1'..=b'9', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }
}

/// How much a compressed stream may unfold to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of output in all.
    pub output_bytes_max: u64,
    /// Bytes of output per byte of input, looked at once there are [`Limits::ratio_free_bytes`] of output.
    pub ratio_max: u64,
    /// Output that may have any ratio: a file of zeros in a small layer is no attack.
    pub ratio_free_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        // No gzip exceeds 1032 to one; zstd of zeros does, beyond a gigabyte nobody but an attacker sends that.
        Self { output_bytes_max: 1 << 40, ratio_max: 2000, ratio_free_bytes: 1 << 30 }
    }
}

/// Memory that an xz stream may ask for: what `xz -9` needs is 65 MiB.
const XZ_MEMORY_BYTES_MAX: u64 = 256 << 20;

/// Unfolds `reader`, whatever it is compressed with, and says with what. A plain stream passes unchanged, under the same limit.
pub fn decompress<R: Read + Send + 'static>(
    mut reader: R,
    limits: Limits,
) -> Result<(Compression, Box<dyn Read + Send>)> {
    let mut start = Vec::with_capacity(MAGIC_SIZE_BYTES);
    reader.by_ref().take(MAGIC_SIZE_BYTES as u64).read_to_end(&mut start)?;
    let compression = Compression::detect(&start);
    let input_bytes = Arc::new(AtomicU64::new(0));
    let counted = Counted { reader: Cursor::new(start).chain(reader), bytes: Arc::clone(&input_bytes) };
    let inner: Box<dyn Read + Send> = match compression {
        Compression::None => Box::new(counted),
        Compression::Gzip => {
            Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::with_capacity(128 << 10, counted)))
        }
        Compression::Zstd => Box::new(zstd::Decoder::new(counted)?),
        Compression::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(counted)),
        Compression::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_BYTES_MAX,
                liblzma::stream::CONCATENATED,
            )
            .map_err(io::Error::from)?;
            Box::new(liblzma::read::XzDecoder::new_stream(counted, stream))
        }
    };
    Ok((compression, Box::new(Limited { inner, limits, input_bytes, output_bytes: 0 })))
}

struct Counted<R> {
    reader: R,
    bytes: Arc<AtomicU64>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size_bytes = self.reader.read(buffer)?;
        self.bytes.fetch_add(size_bytes as u64, Ordering::Relaxed);
        Ok(size_bytes)
    }
}

struct Limited {
    inner: Box<dyn Read + Send>,
    limits: Limits,
    input_bytes: Arc<AtomicU64>,
    output_bytes: u64,
}

impl Read for Limited {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let size_bytes = self.inner.read(buffer)?;
        self.output_bytes += size_bytes as u64;
        let Limits { output_bytes_max, ratio_max, ratio_free_bytes } = self.limits;
        if self.output_bytes > output_bytes_max {
            return Err(io::Error::new(io::ErrorKind::InvalidData, Bomb::Output { output_bytes_max }));
        }
        if self.output_bytes > ratio_free_bytes {
            let input_bytes = self.input_bytes.load(Ordering::Relaxed);
            if self.output_bytes / input_bytes.max(1) > ratio_max {
                let bomb = Bomb::Ratio { input_bytes, output_bytes: self.output_bytes, ratio_max };
                return Err(io::Error::new(io::ErrorKind::InvalidData, bomb));
            }
        }
        Ok(size_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::LayerError;
    use std::io::Write;

    fn folded(compression: Compression, content: &[u8]) -> Vec<u8> {
        match compression {
            Compression::None => content.to_vec(),
            Compression::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Zstd => zstd::encode_all(content, 1).unwrap(),
            Compression::Bzip2 => {
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
            Compression::Xz => {
                let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
                encoder.write_all(content).unwrap();
                encoder.finish().unwrap()
            }
        }
    }

    const ALL: [Compression; 5] =
        [Compression::None, Compression::Gzip, Compression::Zstd, Compression::Bzip2, Compression::Xz];

    #[test]
    fn every_form_unfolds_and_members_follow_each_other() {
        for compression in ALL {
            let mut stream = folded(compression, b"first ");
            stream.extend(folded(compression, b"second"));
            let (told, mut reader) = decompress(Cursor::new(stream), Limits::default()).unwrap();
            let mut content = String::new();
            reader.read_to_string(&mut content).unwrap();
            assert_eq!((told, content.as_str()), (compression, "first second"));
        }
    }

    #[test]
    fn short_streams_are_plain() {
        for content in [&b""[..], b"\x1f", b"BZ", b"hello"] {
            let (told, mut reader) = decompress(content, Limits::default()).unwrap();
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert_eq!((told, read.as_slice()), (Compression::None, content));
        }
    }

    #[test]
    fn bombs_are_named() {
        let zeros = vec![0; 4 << 20];
        for compression in ALL {
            let limits = Limits { output_bytes_max: 1 << 20, ..Limits::default() };
            let (_, reader) = decompress(Cursor::new(folded(compression, &zeros)), limits).unwrap();
            let error = LayerError::from(io::copy(&mut { reader }, &mut io::sink()).unwrap_err());
            assert!(
                matches!(error, LayerError::Bomb(Bomb::Output { output_bytes_max: 0x10_0000 })),
                "{error}"
            );
            if compression == Compression::None {
                continue;
            }
            let limits = Limits { ratio_max: 10, ratio_free_bytes: 1 << 20, ..Limits::default() };
            let (_, reader) = decompress(Cursor::new(folded(compression, &zeros)), limits).unwrap();
            let error = LayerError::from(io::copy(&mut { reader }, &mut io::sink()).unwrap_err());
            assert!(matches!(error, LayerError::Bomb(Bomb::Ratio { ratio_max: 10, .. })), "{error}");
        }
    }

    #[test]
    fn truncated_streams_fail() {
        for compression in &ALL[1..] {
            let mut stream = folded(*compression, &[7; 100_000]);
            stream.truncate(stream.len() - 5);
            let (_, mut reader) = decompress(Cursor::new(stream), Limits::default()).unwrap();
            assert!(io::copy(&mut reader, &mut io::sink()).is_err(), "{compression:?}");
        }
    }
}
