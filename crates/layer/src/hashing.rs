//! A writer that knows what it has written.

use std::io::{self, Write};

use sha2::{Digest as _, Sha256};

/// Hashes and counts what is written on its way.
#[derive(Debug)]
pub struct Hashing<W> {
    out: W,
    hasher: Sha256,
    size_bytes: u64,
}

impl<W: Write> Hashing<W> {
    /// Nothing is written yet.
    pub fn new(out: W) -> Self {
        Self { out, hasher: Sha256::new(), size_bytes: 0 }
    }

    /// SHA-256 of all that was written, and its length in bytes.
    pub fn finish(mut self) -> io::Result<([u8; 32], u64)> {
        self.out.flush()?;
        Ok((self.hasher.finalize().into(), self.size_bytes))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.out.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        self.size_bytes += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
