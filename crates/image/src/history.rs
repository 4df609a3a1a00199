//! How an image came to be, the last step first.

use mica_oci::ImageId;
use mica_store::Store;

use crate::chain::{Chain, read_index};
use crate::error::Result;
use crate::resolve::config;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryRow {
    /// The image that the step made; known for the last one only.
    pub id: Option<ImageId>,
    /// When, in RFC 3339; empty if the image does not say.
    pub created: String,
    /// What did it.
    pub created_by: String,
    /// Size of the content of its layer.
    pub size_bytes: u64,
    /// Free text.
    pub comment: String,
}

/// The steps of an image. Layers that the history does not mention come last, without words.
pub fn history(store: &Store, id: &ImageId) -> Result<Vec<HistoryRow>> {
    let config = config(store, id)?;
    let chain = Chain::of_image(store, &config.rootfs.diff_ids)?;
    let mut layers = chain.layers().iter();
    let mut size_of_next = || match layers.next() {
        Some(layer) => read_index(layer).map(|index| index.content_size_bytes()),
        None => Ok(0),
    };
    let mut rows = Vec::new();
    for line in &config.history {
        rows.push(HistoryRow {
            id: None,
            created: line.created.clone().unwrap_or_default(),
            created_by: line.created_by.clone().unwrap_or_default(),
            size_bytes: if line.empty_layer { 0 } else { size_of_next()? },
            comment: line.comment.clone().unwrap_or_default(),
        });
    }
    let told = config.history.iter().filter(|line| !line.empty_layer).count();
    for _ in told..config.rootfs.diff_ids.len() {
        rows.push(HistoryRow {
            id: None,
            created: config.created.clone().unwrap_or_default(),
            created_by: String::new(),
            size_bytes: size_of_next()?,
            comment: String::new(),
        });
    }
    rows.reverse();
    if let Some(last) = rows.first_mut() {
        last.id = Some(id.clone());
    }
    Ok(rows)
}
