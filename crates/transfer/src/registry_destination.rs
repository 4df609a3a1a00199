//! A registry as destination: what it has is not sent, what it can mount is mounted, the tag moves last.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use mica_layer::members::Range;
use mica_oci::{Descriptor, Reference};
use mica_registry_client::{Client, Content, Mounted, UploadWatch};
use mica_sys::error::ErrorAt;

use crate::destination::{Blobs, Destination};
use crate::error::{CopyError, Result};
use crate::event::BlobState;
use crate::place::Place;
use crate::plan::Plan;
use crate::source::{Blob, Source};
use crate::verify::stream;

/// A repository.
pub(crate) struct RegistryDestination<'a> {
    client: &'a Client,
    reference: Reference,
    place: Place,
    spool_dir: PathBuf,
}

impl<'a> RegistryDestination<'a> {
    /// Nothing is asked yet. A digest of the name must be the image's own.
    pub fn new(client: &'a Client, reference: &Reference, plan: &Plan, spool_dir: PathBuf) -> Result<Self> {
        let place = Place::Registry(reference.clone());
        if let (Some(named), Some(root)) = (reference.digest(), plan.root())
            && *named != root.digest
        {
            return Err(CopyError::DestinationDigest { place: place.boxed(), actual: root.digest.clone() });
        }
        Ok(Self { client, reference: reference.with_default_tag(), place, spool_dir })
    }

    /// The repository that blobs can be mounted from: another one of the same registry.
    fn mount_source<'s>(&self, source: &'s Source<'_>) -> Option<&'s Reference> {
        source.repository().filter(|from| {
            from.registry() == self.reference.registry() && from.repository() != self.reference.repository()
        })
    }
}

impl Destination for RegistryDestination<'_> {
    fn blob(&self, blobs: &Blobs<'_>, descriptor: &Descriptor) -> Result<BlobState> {
        if self.client.has_blob(&self.reference, &descriptor.digest)? {
            return Ok(BlobState::Exists);
        }
        let mut location = None;
        if let Some(from) = self.mount_source(blobs.source) {
            match self.client.mount_blob(&self.reference, &descriptor.digest, from.repository())? {
                Mounted::Yes => return Ok(BlobState::MountedFrom(from.familiar_name())),
                Mounted::Upload(opened) => location = Some(opened),
                Mounted::No => {}
            }
        }
        let place = blobs.source.place();
        let (range, is_checked) = match blobs.source.blob(descriptor)? {
            Blob::File(range) => (range, false),
            // An upload that breaks must be able to read again what it sent.
            Blob::Stream(reader) => (self.spool(blobs, descriptor, reader)?, true),
        };
        let content = Checked {
            place,
            descriptor,
            range,
            is_checked: AtomicBool::new(is_checked),
            stop: blobs.stop,
            failure: Mutex::default(),
        };
        let watch = Watched { blobs, descriptor };
        let uploaded =
            self.client.upload_blob(&self.reference, descriptor, &content, location.as_deref(), &watch);
        // What was wrong with the bytes is the cause; that the upload failed is its effect.
        if let Some(failure) = content.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
            return Err(failure);
        }
        uploaded?;
        Ok(BlobState::Copied)
    }

    fn finish(self: Box<Self>, plan: &Plan) -> Result<()> {
        let last = plan.documents.len().saturating_sub(1);
        for (position, document) in plan.documents.iter().enumerate() {
            let descriptor = &document.descriptor;
            let by_digest = self.reference.name_only().with_digest(descriptor.digest.clone());
            let reference = match (position == last, self.reference.tag()) {
                (true, Some(tag)) => match by_digest.with_tag(tag) {
                    Ok(tagged) => tagged,
                    Err(_) => self.reference.clone(),
                },
                _ => by_digest,
            };
            let actual = self.client.put_manifest(&reference, &descriptor.media_type, &document.bytes)?;
            if actual != descriptor.digest {
                let (place, expected) = (self.place.boxed(), descriptor.digest.clone());
                return Err(CopyError::DigestMismatch { place, expected, actual });
            }
        }
        Ok(())
    }
}

impl RegistryDestination<'_> {
    /// Fetches a blob into a file without a name; it is whole and right when this returns.
    fn spool(&self, blobs: &Blobs<'_>, descriptor: &Descriptor, reader: impl Read) -> Result<Range> {
        let dir = &self.spool_dir;
        let mut file = tempfile::tempfile_in(dir).at("open", dir)?;
        stream(blobs.source.place(), descriptor, reader, blobs.stop, |bytes, _| {
            io::Write::write_all(&mut file, bytes).at("write", dir)?;
            Ok(())
        })?;
        Ok(Range::of_file(file).at("fstat", dir)?)
    }
}

/// The bytes of a blob in a file. They are held against the descriptor before the first is sent, unless that is done already:
/// what a registry says of wrong bytes would not tell whose fault it is.
struct Checked<'a> {
    place: &'a Place,
    descriptor: &'a Descriptor,
    range: Range,
    is_checked: AtomicBool,
    stop: &'a AtomicBool,
    failure: Mutex<Option<CopyError>>,
}

impl Content for Checked<'_> {
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>> {
        if !self.is_checked.load(Ordering::Relaxed) {
            // A pass over the file first: it is in the page cache for the second one.
            let checked = stream(self.place, self.descriptor, self.range.clone(), self.stop, |_, _| Ok(()));
            if let Err(error) = checked {
                let message = error.to_string();
                *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            self.is_checked.store(true, Ordering::Relaxed);
        }
        Ok(Box::new(self.range.from(offset)))
    }
}

/// Hears how an upload goes.
struct Watched<'a> {
    blobs: &'a Blobs<'a>,
    descriptor: &'a Descriptor,
}

impl UploadWatch for Watched<'_> {
    fn sent(&self, bytes: u64) {
        self.blobs.progress(self.descriptor, bytes);
    }

    fn resumable(&self, _location: Option<&str>) {
        // The copy is this one process; nobody would take it up.
    }
}
