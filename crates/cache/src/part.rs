//! Small things that travel compressed.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mica_oci::{Descriptor, Digest};

use crate::config::{PART_MEDIA_TYPE, Part};
use crate::error::{CacheError, Result};
use crate::place::Place;
use crate::verified::Verified;

/// What is no longer than this stands in the document: a request for it would take longer than its bytes.
pub(crate) const EMBEDDED_BYTES_MAX: usize = 8 << 10;
/// zstd's own choice.
const LEVEL: i32 = 3;

/// Compresses bytes, and says whether they stand in the document; else they go along as a blob.
pub(crate) fn fold(bytes: &[u8], embedded_bytes_max: usize) -> Result<(Part, Option<Vec<u8>>)> {
    let folded = zstd::bulk::compress(bytes, LEVEL)
        .map_err(|source| CacheError::Io { what: "cannot compress what a step used", source })?;
    let mut part = Part { size: bytes.len() as u64, blob: Descriptor::of(PART_MEDIA_TYPE, &folded) };
    if folded.len() > embedded_bytes_max {
        return Ok((part, Some(folded)));
    }
    part.blob.data = Some(STANDARD.encode(&folded));
    Ok((part, None))
}

/// The bytes of a part, at most so many.
pub(crate) fn unfold(place: &dyn Place, part: &Part, what: &'static str, bytes_max: u64) -> Result<Vec<u8>> {
    if part.size > bytes_max || part.blob.size > bytes_max {
        return Err(CacheError::TooLarge { what, size_bytes_max: bytes_max });
    }
    let wrong = |reason: String| CacheError::Malformed { what, reason };
    let folded = match &part.blob.data {
        Some(data) => {
            let bytes = STANDARD.decode(data).map_err(|error| wrong(error.to_string()))?;
            let actual = Digest::sha256(&bytes);
            if actual != part.blob.digest {
                return Err(CacheError::BlobDamaged { expected: part.blob.digest.clone(), actual });
            }
            bytes
        }
        None => Verified::open(place, &part.blob)?.whole(what, bytes_max)?,
    };
    let size = usize::try_from(part.size).map_err(|_| wrong("its size".to_owned()))?;
    // The buffer has the size that was said, so nothing unfolds to more.
    let bytes = zstd::bulk::decompress(&folded, size).map_err(|error| wrong(error.to_string()))?;
    if bytes.len() != size {
        return Err(wrong("it is shorter than it says".to_owned()));
    }
    Ok(bytes)
}
