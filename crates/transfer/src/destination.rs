//! Where an image goes. Blobs come in any order and several at a time; only the end makes anything visible under a name.

use std::sync::atomic::AtomicBool;

use mica_oci::{Descriptor, Digest};

use crate::error::Result;
use crate::event::BlobState;
use crate::plan::Plan;
use crate::source::Source;

/// What a destination is told with a blob.
pub(crate) struct Blobs<'a> {
    /// Where the bytes are.
    pub source: &'a Source<'a>,
    /// Set once another blob has failed: what is in progress ends.
    pub stop: &'a AtomicBool,
    /// Who hears of progress.
    pub watch: &'a (dyn Fn(&Digest, BlobState) + Sync),
}

impl Blobs<'_> {
    /// Tells that so many bytes of a blob have been copied.
    pub fn progress(&self, descriptor: &Descriptor, bytes: u64) {
        (self.watch)(&descriptor.digest, BlobState::Copying(bytes, descriptor.size));
    }
}

/// A place that an image goes to.
pub(crate) trait Destination: Sync {
    /// Sees to it that the destination has a blob; tells how that came.
    fn blob(&self, blobs: &Blobs<'_>, descriptor: &Descriptor) -> Result<BlobState>;

    /// All blobs are there: puts the documents, and makes the name lead to the image.
    fn finish(self: Box<Self>, plan: &Plan) -> Result<()>;
}
