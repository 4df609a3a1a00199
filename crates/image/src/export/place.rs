//! Exports to the store and to registries.

use mica_oci::{Digest, Reference};
use mica_registry_client::Client;
use mica_store::{ImageCommit, ImageRecord};

use super::{Export, ExportContext, ExportSource};
use crate::built::{image_record, layers_size_bytes};
use crate::error::Result;
use crate::index_images::put_own_first;
use crate::push::plan::{Plan, PlannedDocument, failed};
use crate::push::send::Send;
use crate::push::{Pushed, send_all};
use crate::transfer_event::Watch;

/// Where an export is pushed.
#[derive(Clone, Copy, Debug)]
pub struct PushExport<'a> {
    /// Registry and repository, and the tag unless `by_digest`.
    pub reference: &'a Reference,
    /// Under its digest alone.
    pub by_digest: bool,
}

impl Export {
    /// Puts the images into the store, under these names. Their layers are there as trees; the manifests say in which form
    /// they are pushed.
    pub fn put(
        &self,
        context: &ExportContext<'_>,
        sources: &[ExportSource],
        names: &[Reference],
    ) -> Result<()> {
        let store = context.store;
        let names: Vec<String> = names.iter().map(Reference::canonical).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut blobs: Vec<Digest> = Vec::new();
        if let Some(index) = &self.index {
            blobs.push(store.put_blob(index)?);
        }
        let mut records: Vec<ImageRecord> = Vec::new();
        for (image, source) in self.images.iter().zip(sources) {
            store.put_blob(&image.config)?;
            store.put_blob(&image.manifest)?;
            let size_bytes = layers_size_bytes(store, &image.diff_ids)?;
            let manifest = image.descriptor.digest.clone();
            let record = image_record(image.id.clone(), manifest, &source.image.config, size_bytes);
            if !records.iter().any(|known| known.id == record.id) {
                records.push(record);
            }
        }
        put_own_first(&mut records);
        let target = Some(&self.root.digest);
        store.commit_images(
            &records,
            &ImageCommit { blobs: &blobs, names: &names, target, ..ImageCommit::default() },
        )?;
        Ok(())
    }

    /// Pushes it. The tag moves only when all it refers to is there.
    pub fn push(
        &self,
        context: &ExportContext<'_>,
        client: &Client,
        to: &PushExport<'_>,
        watch: &Watch<'_>,
    ) -> Result<Pushed> {
        let reference = to.reference.with_default_tag();
        let send = Send::new(context.store, client, context.lease, &reference, watch);
        let mut plan = Plan::default();
        for image in &self.images {
            context.store.put_blob(&image.config)?;
            for part in &image.parts {
                plan.add_layer(part.clone());
            }
            plan.add_config(&image.config_descriptor);
            plan.documents.push(PlannedDocument::Exact {
                digest: image.descriptor.digest.clone(),
                media_type: image.descriptor.media_type.clone(),
                bytes: image.manifest.clone(),
            });
        }
        if let Some(index) = &self.index {
            let (digest, media_type) = (self.root.digest.clone(), self.root.media_type.clone());
            plan.documents.push(PlannedDocument::Exact { digest, media_type, bytes: index.clone() });
        }
        let tag = (!to.by_digest).then_some(&reference);
        send_all(&send, &plan, tag).map_err(|failure| failure.of(|source| failed(&reference, source)))?;
        Ok(Pushed { digest: self.root.digest.clone(), size_bytes: self.root.size })
    }
}
