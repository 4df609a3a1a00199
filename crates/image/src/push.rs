//! Pushing: an image of the store goes to a registry.
//!
//! ```text
//! name -> index, all of it stored?    every manifest of it, then the index, byte for byte
//!         (one that was made here: each image as below, and an index of what comes of them)
//!      -> image: its manifest's bytes at hand or made again alike?   that manifest, byte for byte
//!                else a new one: kept layers as they are, others compressed now
//! layers (HEAD, mount, upload; several at once) -> configs -> manifests -> the tag
//! ```

pub(crate) mod bytes;
mod error;
pub(crate) mod plan;
pub(crate) mod send;

pub use error::PushError;

use mica_oci::{Descriptor, Digest, Manifest, Platform, Reference};
use mica_registry_client::Client;
use mica_store::{ImageCommit, Lease, Store};

use crate::error::Result;
use crate::resolve::record;
use crate::transfer_event::{TransferEvent, Watch};
use plan::{Plan, PlannedDocument, Remote, failed, plan};
use send::{Failure, Send};

/// What is pushed.
#[derive(Clone, Copy, Debug)]
pub struct PushRequest<'a> {
    /// A name with a tag that the store has.
    pub reference: &'a Reference,
    /// Only this platform of it.
    pub platform: Option<&'a Platform>,
}

/// An image that was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// What the tag leads to now: an index or a manifest.
    pub digest: Digest,
    /// Size of that document.
    pub size_bytes: u64,
}

/// Pushes an image. Bytes that came from a registry go back as they came; the tag moves only when all it refers to is there.
pub fn push(store: &Store, client: &Client, request: &PushRequest<'_>, watch: &Watch<'_>) -> Result<Pushed> {
    let reference = request.reference.with_default_tag();
    if reference.digest().is_some() {
        return Err(failed(&reference, PushError::Digest));
    }
    let lease = store.lease()?;
    let push = Push { store, client, lease: &lease, reference: &reference, request, watch };
    match push.once() {
        // What was remembered of a layer was wrong, and is right now.
        Err(Failure::Own(PushError::OtherBytes { .. })) => push.once(),
        pushed => pushed,
    }
    .map_err(|failure| failure.of(|source| failed(&reference, source)))
}

struct Push<'a> {
    store: &'a Store,
    client: &'a Client,
    lease: &'a Lease,
    reference: &'a Reference,
    request: &'a PushRequest<'a>,
    watch: &'a Watch<'a>,
}

impl Push<'_> {
    fn once(&self) -> std::result::Result<Pushed, Failure> {
        let by_digest = |digest: &Digest| self.reference.name_only().with_digest(digest.clone());
        let send = Send::new(self.store, self.client, self.lease, self.reference, self.watch);
        let remote = Remote {
            has_document: &|digest| Ok(self.client.has_manifest(&by_digest(digest))?),
            has_blob: &|descriptor| {
                send.has(descriptor).map_err(|failure| failure.of(|source| failed(self.reference, source)))
            },
        };
        let plan = plan(self.store, self.reference, self.request.platform, &remote)?;
        let sent = send_all(&send, &plan, Some(self.reference))?;
        let Some((digest, bytes)) = sent.last().map(|(descriptor, bytes)| (descriptor.digest.clone(), bytes))
        else {
            return Err(Failure::Own(PushError::Stopped));
        };
        self.keep(&plan, &sent)?;
        self.remember(&plan, &digest, bytes)?;
        if let Some(index) = &plan.instead_of {
            (self.watch)(TransferEvent::Warning(format!(
                "not all platforms of the index {index} are stored; only the image that is was pushed, as {digest}"
            )));
        }
        if let Some(earlier) = plan.remade.as_ref().filter(|earlier| **earlier != digest) {
            (self.watch)(TransferEvent::Warning(format!(
                "the layers of {earlier} are stored in another form than it has: they were pushed as {digest}; `mica copy` from where \
                 it was pulled keeps its digest"
            )));
        }
        Ok(Pushed { digest, size_bytes: bytes.len() as u64 })
    }

    /// The images of an index need the documents that it was pushed with: the next push sends the same ones.
    fn keep(&self, plan: &Plan, sent: &Sent) -> Result<()> {
        if plan.members.is_empty() {
            return Ok(());
        }
        for (_, bytes) in sent {
            self.store.put_blob(bytes)?;
        }
        let documents: Vec<Digest> = sent.iter().map(|(descriptor, _)| descriptor.digest.clone()).collect();
        for id in &plan.members {
            let Some(record) = self.store.image(id)? else { continue };
            self.store.commit_image(&record, &ImageCommit { blobs: &documents, ..ImageCommit::default() })?;
        }
        Ok(())
    }

    /// The name leads there now, and the image has a name with that digest.
    fn remember(&self, plan: &Plan, digest: &Digest, bytes: &[u8]) -> Result<()> {
        let store = self.store;
        let tag = self.reference.canonical();
        let name = self.reference.name_only().with_digest(digest.clone()).canonical();
        let Some(id) = &plan.image else {
            store.set_target(&tag, digest)?;
            store.copy_name(&tag, &name)?;
            return Ok(());
        };
        // It may have been removed meanwhile; then there is nothing to name.
        if store.image(id)?.is_none() {
            return Ok(());
        }
        store.put_blob(bytes)?;
        let record = record(store, id)?;
        let commit = ImageCommit {
            blobs: std::slice::from_ref(digest),
            names: &[&name],
            target: Some(digest),
            ..ImageCommit::default()
        };
        store.commit_image(&record, &commit)?;
        // A part of what the name has does not stand for the whole.
        let is_all = self.request.platform.is_none() && plan.instead_of.is_none();
        if is_all && store.name(&tag)?.as_ref() == Some(id) {
            store.set_target(&tag, digest)?;
        }
        Ok(())
    }
}

/// The documents of a plan as they were sent, the one that leads to all others last.
pub(crate) type Sent = Vec<(Descriptor, Vec<u8>)>;

/// Sends all of a plan. The last document goes under `tag`, or without one under its digest alone.
pub(crate) fn send_all(
    send: &Send<'_>,
    plan: &Plan,
    tag: Option<&Reference>,
) -> std::result::Result<Sent, Failure> {
    let layers = send.layers(&plan.layers)?;
    for config in &plan.configs {
        send.part(None, config)?;
    }
    let count = plan.documents.len();
    let mut sent = Sent::with_capacity(count);
    for (position, document) in plan.documents.iter().enumerate() {
        let (digest, media_type, bytes) = encode(document, &layers, &sent);
        let by_digest = || send.reference.name_only().with_digest(digest.clone());
        let to = tag.filter(|_| position + 1 == count).cloned().unwrap_or_else(by_digest);
        send.client.put_manifest(&to, &media_type, &bytes)?;
        sent.push((Descriptor::new(&media_type, digest, bytes.len() as u64), bytes));
    }
    Ok(sent)
}

/// The bytes of a document; `sent` are the documents before it.
fn encode(
    document: &PlannedDocument,
    layers: &[Descriptor],
    sent: &[(Descriptor, Vec<u8>)],
) -> (Digest, String, Vec<u8>) {
    match document {
        PlannedDocument::Exact { digest, media_type, bytes } => {
            (digest.clone(), media_type.clone(), bytes.clone())
        }
        PlannedDocument::Made { config, layers: positions, is_docker } => {
            let layers = positions.iter().filter_map(|position| layers.get(*position).cloned()).collect();
            let make = if *is_docker { Manifest::docker } else { Manifest::oci };
            let manifest = make((**config).clone(), layers);
            let bytes = manifest.to_canonical_json();
            (Digest::sha256(&bytes), manifest.media_type().to_owned(), bytes)
        }
        PlannedDocument::MadeIndex { index: own, bytes, members } => {
            let mut index = (**own).clone();
            for (descriptor, position) in index.manifests.iter_mut().zip(members) {
                if let Some((sent, _)) = sent.get(*position) {
                    descriptor.media_type.clone_from(&sent.media_type);
                    descriptor.digest.clone_from(&sent.digest);
                    descriptor.size = sent.size;
                }
            }
            let bytes = if index == **own { bytes.clone() } else { index.to_canonical_json() };
            (Digest::sha256(&bytes), index.media_type().to_owned(), bytes)
        }
    }
}
