//! Bytes that are held against their descriptor while they are read.

use std::io::{self, Read};
use std::sync::{Arc, Mutex, PoisonError};

use mica_oci::{Descriptor, Digest};
use sha2::{Digest as _, Sha256};

use crate::error::{CacheError, Result};
use crate::place::Place;

/// A stream that ends well only if all of it is what its descriptor says. Clones read the same stream, so that what a decoder
/// leaves behind its own end can be read as well.
#[derive(Clone)]
pub(crate) struct Verified {
    state: Arc<Mutex<State>>,
}

struct State {
    reader: Box<dyn Read + Send>,
    hasher: Sha256,
    seen: u64,
    blob: Descriptor,
    is_done: bool,
    problem: Option<CacheError>,
}

impl Verified {
    /// The bytes of a blob.
    pub fn open(place: &dyn Place, blob: &Descriptor) -> Result<Self> {
        Ok(Self::new(place.open(blob)?, blob))
    }

    pub fn new(reader: Box<dyn Read + Send>, blob: &Descriptor) -> Self {
        let state = State {
            reader,
            hasher: Sha256::new(),
            seen: 0,
            blob: blob.clone(),
            is_done: false,
            problem: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Reads to the end.
    pub fn drain(&mut self) -> Result<()> {
        if let Some(problem) = self.problem() {
            return Err(problem);
        }
        let copied = io::copy(self, &mut io::sink());
        match (self.problem(), copied) {
            (Some(problem), _) => Err(problem),
            (None, Err(source)) => Err(CacheError::Io { what: "cannot read a blob", source }),
            (None, Ok(_)) => Ok(()),
        }
    }

    /// What was wrong with the bytes; told once.
    pub fn problem(&self) -> Option<CacheError> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).problem.take()
    }

    /// All of it, where that is little.
    pub fn whole(mut self, what: &'static str, size_bytes_max: u64) -> Result<Vec<u8>> {
        let size = self.state.lock().unwrap_or_else(PoisonError::into_inner).blob.size;
        if size > size_bytes_max {
            return Err(CacheError::TooLarge { what, size_bytes_max });
        }
        let mut bytes = Vec::new();
        let read = self.read_to_end(&mut bytes);
        match (self.problem(), read) {
            (Some(problem), _) => Err(problem),
            (None, Err(source)) => Err(CacheError::Io { what: "cannot read a blob", source }),
            (None, Ok(_)) => Ok(bytes),
        }
    }
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        if state.is_done || buffer.is_empty() {
            return Ok(0);
        }
        let count = state.reader.read(buffer)?;
        state.seen += count as u64;
        state.hasher.update(buffer.get(..count).unwrap_or_default());
        let (digest, size_bytes) = (state.blob.digest.clone(), state.blob.size);
        let wrong_size = state.seen > size_bytes || (count == 0 && state.seen < size_bytes);
        if wrong_size {
            state.problem = Some(CacheError::BlobSize { digest, size_bytes });
        } else if count == 0 {
            state.is_done = true;
            let actual = Digest::from_sha256(std::mem::take(&mut state.hasher).finalize().into());
            if actual != digest {
                state.problem = Some(CacheError::BlobDamaged { expected: digest, actual });
            }
        }
        match &state.problem {
            Some(problem) => Err(io::Error::other(problem.to_string())),
            None => Ok(count),
        }
    }
}
