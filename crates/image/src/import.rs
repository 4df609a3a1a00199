//! A root filesystem in a tar becomes an image of one layer.

use std::io::Read;

use mica_layer::apply::Mapping;
use mica_oci::{History, ImageConfig, ImageId, Platform, Reference};
use mica_store::Store;

use crate::apply_into_store::{IngestError, Keep, ingest_layer};
use crate::built::{BuiltImage, put_built};
use crate::chain::Chain;
use crate::change::apply_change;
use crate::error::{ImageError, Result};

/// What an imported image is to be.
#[derive(Debug, Clone)]
pub struct ImportOptions {
    /// Its name.
    pub reference: Option<Reference>,
    /// Changes of the config, as instructions of a Dockerfile.
    pub changes: Vec<String>,
    /// Comment of the history; `Imported from -` if empty.
    pub message: String,
    /// Where the tar is from, for that comment: `-`, a file or an address.
    pub origin: String,
    /// What it runs on.
    pub platform: Platform,
    /// When, in RFC 3339.
    pub created: String,
    /// How the tree is written.
    pub mapping: Mapping,
}

/// Makes an image of the tar in `reader`, plain or compressed.
pub fn import(store: &Store, reader: impl Read + Send + 'static, options: &ImportOptions) -> Result<ImageId> {
    let mut config = ImageConfig::new(&options.platform);
    for change in &options.changes {
        apply_change(&mut config, change)?;
    }
    let lease = store.lease()?;
    let ingested = ingest_layer(store, reader, &Chain::default(), options.mapping, Keep::Nothing);
    let mut ingested = ingested.map_err(|error| match error {
        IngestError::Other(error) => error,
        IngestError::Layer(source) => ImageError::Archive { source },
    })?;
    ingested.make_explicit();
    let (_, diff_id, tar_size_bytes) = ingested.commit_canonical(store)?;
    config.created = Some(options.created.clone());
    config.rootfs.diff_ids.push(diff_id.clone());
    let comment = match options.message.as_str() {
        "" => format!("Imported from {}", options.origin),
        message => message.to_owned(),
    };
    let created = config.created.clone();
    config.history.push(History { created, comment: Some(comment), ..History::default() });
    let names: Vec<Reference> = options.reference.iter().cloned().collect();
    let built = BuiltImage { config, layers: vec![(diff_id, tar_size_bytes)] };
    let (id, _) = put_built(store, &built, &names)?;
    // The tar may have come from a pipe: it cannot be made again.
    store.make_durable()?;
    drop(lease);
    Ok(id)
}
