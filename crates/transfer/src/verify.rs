//! Bytes on their way, held against their descriptor: digest and size are known when the last byte has passed.

use std::io::{self, Read};
use std::sync::atomic::{AtomicBool, Ordering};

use mica_oci::Algorithm;
use mica_oci::{Descriptor, Digest};
use mica_registry_client::RegistryError;
use sha2::{Digest as _, Sha256, Sha512};

use crate::error::{CopyError, Result};
use crate::place::Place;

/// What is held in memory of a blob on its way.
const BUFFER_SIZE_BYTES: usize = 256 << 10;

enum Hasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

/// What has passed so far of a blob.
pub(crate) struct Check<'a> {
    hasher: Hasher,
    size_bytes: u64,
    descriptor: &'a Descriptor,
    place: &'a Place,
}

impl<'a> Check<'a> {
    /// Nothing has passed. `place` is where the bytes come from, for the message.
    pub fn new(place: &'a Place, descriptor: &'a Descriptor) -> Result<Self> {
        let hasher = match descriptor.digest.algorithm() {
            Algorithm::Sha256 => Hasher::Sha256(Sha256::new()),
            Algorithm::Sha512 => Hasher::Sha512(Sha512::new()),
            Algorithm::Blake3 => {
                return Err(CopyError::Algorithm { place: place.boxed(), digest: descriptor.digest.clone() });
            }
        };
        Ok(Self { hasher, size_bytes: 0, descriptor, place })
    }

    /// The next bytes. More than there may be is an error at once: a reply that never ends must not fill the disk.
    pub fn pass(&mut self, bytes: &[u8]) -> Result<()> {
        self.size_bytes = self.size_bytes.saturating_add(bytes.len() as u64);
        if self.size_bytes > self.descriptor.size {
            return Err(self.wrong_size(true));
        }
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha512(hasher) => hasher.update(bytes),
        }
        Ok(())
    }

    /// So many bytes have passed.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// All has passed.
    pub fn finish(self) -> Result<()> {
        if self.size_bytes != self.descriptor.size {
            return Err(self.wrong_size(false));
        }
        let actual = match self.hasher {
            Hasher::Sha256(hasher) => Digest::from_sha256(hasher.finalize().into()),
            Hasher::Sha512(hasher) => Digest::from_sha512(hasher.finalize().into()),
        };
        if actual != self.descriptor.digest {
            let (place, expected) = (self.place.boxed(), self.descriptor.digest.clone());
            return Err(CopyError::DigestMismatch { place, expected, actual });
        }
        Ok(())
    }

    fn wrong_size(&self, is_longer: bool) -> CopyError {
        CopyError::SizeMismatch {
            place: self.place.boxed(),
            digest: self.descriptor.digest.clone(),
            expected: self.descriptor.size,
            is_longer,
        }
    }
}

/// Holds bytes in memory against their descriptor.
pub(crate) fn check_bytes(place: &Place, descriptor: &Descriptor, bytes: &[u8]) -> Result<()> {
    let mut check = Check::new(place, descriptor)?;
    check.pass(bytes)?;
    check.finish()
}

/// A failed read of a place. What a registry's stream has to say stays a registry's error.
pub(crate) fn read_error(place: &Place, error: io::Error) -> CopyError {
    match error.downcast::<RegistryError>() {
        Ok(error) => error.into(),
        Err(source) => CopyError::Read { place: place.boxed(), source },
    }
}

/// Reads a blob to its end and gives its bytes on, piece after piece. Once `stop` is set it ends early, with nothing said:
/// somebody else has an error to tell.
pub(crate) fn stream(
    place: &Place,
    descriptor: &Descriptor,
    mut reader: impl Read,
    stop: &AtomicBool,
    mut take: impl FnMut(&[u8], u64) -> Result<()>,
) -> Result<()> {
    let mut check = Check::new(place, descriptor)?;
    let mut buffer = vec![0; BUFFER_SIZE_BYTES];
    loop {
        if stop.load(Ordering::Relaxed) {
            return Err(read_error(place, io::ErrorKind::ConnectionAborted.into()));
        }
        let count = match reader.read(&mut buffer) {
            Ok(0) => return check.finish(),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(place, error)),
        };
        let bytes = buffer.get(..count).unwrap_or_default();
        check.pass(bytes)?;
        take(bytes, check.size_bytes())?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(descriptor: &Descriptor, bytes: &[u8], expect: &str) {
        let place = Place::Layout("x".into(), None);
        let mut taken = Vec::new();
        let streamed = stream(&place, descriptor, bytes, &AtomicBool::new(false), |bytes, _| {
            taken.extend_from_slice(bytes);
            Ok(())
        });
        let told =
            |outcome: Result<()>| outcome.map_or_else(|error| error.to_string(), |()| "fine".to_owned());
        let streamed = told(streamed);
        assert!(streamed.starts_with(expect), "{streamed}");
        assert_eq!(told(check_bytes(&place, descriptor, bytes)), streamed);
        assert!(taken.len() as u64 <= descriptor.size, "bytes were given on that there may not be");
    }

    #[test]
    fn only_the_right_bytes_pass() {
        let good = Descriptor::of("a/b", b"hello");
        check(&good, b"hello", "fine");
        check(&good, b"hellp", &format!("oci:x sent other bytes for {}: they have sha256:", good.digest));
        check(&good, b"hell", &format!("oci:x has fewer than 5 bytes of {}", good.digest));
        check(&good, b"hello!", &format!("oci:x has more than 5 bytes of {}", good.digest));
        check(&Descriptor::of("a/b", b""), b"", "fine");
        let other = Descriptor { digest: Digest::sha512(b"hello"), ..good.clone() };
        check(&other, b"hello", "fine");
        check(&other, b"Hello", "oci:x sent other bytes for sha512:");
        let unknown = Descriptor { digest: Digest::from_blake3([0; 32]), ..good };
        check(&unknown, b"hello", "oci:x: digests of `blake3:");
    }

    #[test]
    fn who_is_stopped_reads_no_more() {
        let descriptor = Descriptor::of("a/b", b"");
        let stopped = AtomicBool::new(true);
        let place = Place::Layout("x".into(), None);
        assert!(stream(&place, &descriptor, io::repeat(0), &stopped, |_, _| Ok(())).is_err());
    }
}
