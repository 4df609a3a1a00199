//! Files are written without their zeros: a hole of the source, which a tar and a read both fill with zeros, stays one.

use std::io;
use std::os::fd::AsFd;

use rustix::fs::SeekFrom;

/// Stretches of zeros that are worth a hole. Shorter ones would cost more calls than blocks.
const HOLE_BYTES: usize = 64 * 1024;

static ZEROS: [u8; HOLE_BYTES] = [0; HOLE_BYTES];

/// Writes `bytes` at the file's offset, leaving out long zeros. Returns whether the last of them were left out: then the
/// file must be given its length when nothing follows.
pub(crate) fn write_with_holes(file: impl AsFd, bytes: &[u8]) -> io::Result<bool> {
    let file = file.as_fd();
    let mut written = 0;
    for (position, block) in bytes.chunks(HOLE_BYTES).enumerate() {
        if block == ZEROS {
            let start = position * HOLE_BYTES;
            write_all(file, &bytes[written..start])?;
            rustix::fs::seek(file, SeekFrom::Current(HOLE_BYTES as i64))?;
            written = start + HOLE_BYTES;
        }
    }
    write_all(file, &bytes[written..])?;
    Ok(written == bytes.len() && written > 0)
}

fn write_all(file: impl AsFd, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn zeros_take_no_blocks_and_read_as_zeros() {
        let check = |pieces: &[(u8, usize)], holes: bool| {
            let content: Vec<u8> = pieces.iter().flat_map(|(byte, count)| vec![*byte; *count]).collect();
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("file");
            let file = std::fs::File::create(&path).unwrap();
            // In two parts, as it comes from a stream.
            let (first, second) = content.split_at(content.len() / 2);
            write_with_holes(&file, first).unwrap();
            if write_with_holes(&file, second).unwrap() {
                file.set_len(content.len() as u64).unwrap();
            }
            assert_eq!(std::fs::read(&path).unwrap(), content, "{pieces:?}");
            let blocks = file.metadata().unwrap().blocks() * 512;
            assert_eq!(blocks < content.len() as u64, holes, "{pieces:?}: {blocks} bytes on disk");
        };
        check(&[(1, 300_000)], false);
        check(&[(0, 2_000_000)], true);
        check(&[(1, 100_000), (0, 1_000_000), (1, 10)], true);
        check(&[(1, 131_072), (0, 1_048_576)], true);
    }
}
