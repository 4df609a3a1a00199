//! Base images that the store lacks, from registries.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mica_build::BaseSource;
use mica_image::{ImageError, PullRequest, Pulled, Watch};
use mica_oci::{Platform, Reference};
use mica_store::Store;

use crate::commands::remote;

/// Base images from registries.
pub(super) struct Registry<'a> {
    pub store: &'a Store,
    pub rootless: bool,
    /// How many are on their way.
    pub is_fetching: Arc<AtomicUsize>,
}

impl BaseSource for Registry<'_> {
    fn candidates(&self, as_written: &str) -> Result<Vec<Reference>, ImageError> {
        remote::candidates(&remote::registries()?, as_written)
    }

    fn fetch(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        watch: &Watch<'_>,
    ) -> Result<Pulled, ImageError> {
        self.is_fetching.fetch_add(1, Ordering::Relaxed);
        // A client for each: its threads end before the first container.
        let pulled = remote::client().map_err(ImageError::from).and_then(|client| {
            let request = PullRequest { reference, platform, rootless: self.rootless };
            mica_image::pull(self.store, &client, &request, watch)
        });
        self.is_fetching.fetch_sub(1, Ordering::Relaxed);
        pulled
    }
}
