//! A place whose streams end when the build is told to.

use std::any::Any;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mica_oci::{Descriptor, Manifest};
use mica_registry_client::Content;

use crate::error::Result;
use crate::place::Place;

pub(crate) struct Interruptible {
    pub place: Arc<dyn Place>,
    pub stop: Arc<AtomicBool>,
}

impl Place for Interruptible {
    fn name(&self) -> &str {
        self.place.name()
    }

    fn document(&self, child: Option<&Descriptor>) -> Result<Option<Vec<u8>>> {
        self.place.document(child)
    }

    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(Stream { reader: self.place.open(blob)?, stop: self.stop.clone() }))
    }

    fn begin(&self) -> Result<Box<dyn Any + Send>> {
        self.place.begin()
    }

    fn has(&self, blob: &Descriptor) -> Result<bool> {
        self.place.has(blob)
    }

    fn put(&self, blob: &Descriptor, content: &dyn Content) -> Result<()> {
        self.place.put(blob, content)
    }

    fn publish(&self, manifest: &Manifest) -> Result<()> {
        self.place.publish(manifest)
    }

    fn tidy(&self) -> Result<()> {
        self.place.tidy()
    }
}

struct Stream {
    reader: Box<dyn Read + Send>,
    stop: Arc<AtomicBool>,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.stop.load(Ordering::Relaxed) {
            return Err(io::Error::other("the build was interrupted"));
        }
        self.reader.read(buffer)
    }
}
