//! Base images: found in the store, or fetched by whoever asked for the build.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use mica_diagnostic::Source;
use mica_image::{ImageError, Pulled, Watch};
use mica_oci::{ImageId, Platform, Reference};
use mica_plan::{BaseImage, BaseRequest, ImageKey};
use mica_store::{Lease, Store};

use crate::build::BaseConfigs;
use crate::error::{BaseFailure, BuildError};
use crate::event::{Event, Events};
use crate::filesystem::Chain;
use crate::request::{BuildRequest, NamedImage};

/// Base images that are fetched at the same time; each of them has several layers on their way.
const FETCHES_MAX: usize = 3;

/// Where base images come from that the store lacks. The build decides when it is asked; how it is done is its own affair.
pub trait BaseSource: Sync {
    /// What a name may mean, the likeliest first. More than one where settings name several registries for short names.
    fn candidates(&self, as_written: &str) -> Result<Vec<Reference>, ImageError>;

    /// Brings the image of a platform into the store. `None` is this machine's.
    fn fetch(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        watch: &Watch<'_>,
    ) -> Result<Pulled, ImageError>;
}

/// The base images of a build, by [`image_name`].
#[derive(Default)]
pub(crate) struct Bases {
    pub configs: BaseConfigs,
    pub chains: HashMap<String, Arc<Chain>>,
}

/// What looking for base images needs.
pub(crate) struct Finder<'a> {
    pub store: &'a Store,
    pub request: &'a BuildRequest,
    pub source: &'a dyn BaseSource,
    pub lease: &'a Lease,
    pub events: &'a Events<'a>,
}

/// An image, and the name it was found under.
type Found = (String, BaseImage, Chain);

impl Finder<'_> {
    /// Finds the images, fetching those that are absent; all that cannot be had are told at once.
    pub fn find_all(&self, requests: &[BaseRequest], bases: &mut Bases) -> Result<(), BuildError> {
        let mut failures = Vec::new();
        for some in requests.chunks(FETCHES_MAX) {
            let found: Vec<Result<Found, BuildError>> = match some {
                [request] => vec![self.find(request)],
                _ => std::thread::scope(|scope| {
                    let threads: Vec<_> =
                        some.iter().map(|request| scope.spawn(move || self.find(request))).collect();
                    let found = threads.into_iter().map(|thread| thread.join());
                    found
                        .map(|found| found.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                        .collect()
                }),
            };
            for (request, found) in some.iter().zip(found) {
                match found {
                    Ok((_, config, chain)) => {
                        bases.chains.insert(image_name(&request.key), Arc::new(chain));
                        bases.configs.insert(image_name(&request.key), config);
                    }
                    Err(BuildError::Image(cause)) => failures.push(self.failure(request, cause)),
                    Err(error) => return Err(error),
                }
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => {
                let source_text: Source = self.request.dockerfile.clone();
                Err(BuildError::Bases { source_text, failures, diagnostics: Vec::new() })
            }
        }
    }

    fn failure(&self, request: &BaseRequest, cause: ImageError) -> BaseFailure {
        let (text, platform) = (&in_store(&request.as_written), &request.key.platform);
        // Looking again cannot fail in a way that is worth more than what failed before.
        let present = mica_image::resolve_platform(self.store, text, platform);
        let present_platforms = match &present {
            Err(ImageError::PlatformMissing { offered, .. }) => offered.clone(),
            _ => Vec::new(),
        };
        BaseFailure {
            as_written: request.as_written.clone(),
            meant_stage: None,
            span: request.span,
            platform: platform.to_string(),
            // If it was not asked for, it was not there a moment ago, whoever brought it since.
            is_present: self.request.pull && present.is_ok(),
            present_platforms,
            cause: Box::new(cause),
        }
    }

    fn find(&self, request: &BaseRequest) -> Result<Found, BuildError> {
        let ImageKey { reference, platform } = &request.key;
        let is_it = |named: &&NamedImage| named.reference == *reference && named.platform.is_same(platform);
        if let Some(named) = self.request.named_images.iter().find(is_it) {
            return self.open(reference.familiar(), &named.image);
        }
        if !self.request.pull {
            match self.find_in_store(&request.as_written, &request.key.platform) {
                Ok(Some(found)) => {
                    (self.events)(Event::Base { name: self.label(&found.0, &request.key.platform) });
                    return Ok(found);
                }
                // Of an image that is not whole, the rest can be fetched.
                Ok(None) | Err(BuildError::Image(ImageError::LayerMissing { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        let candidates = self.source.candidates(&request.as_written)?;
        if !self.request.pull {
            for reference in &candidates {
                let text = reference.canonical();
                if let Ok(Some(found)) = self.find_in_store(&text, &request.key.platform) {
                    (self.events)(Event::Base { name: self.label(&found.0, &request.key.platform) });
                    return Ok(found);
                }
            }
        }
        let mut first = None;
        for reference in &candidates {
            match self.fetch(reference, &request.key.platform) {
                Ok(found) => return Ok(found),
                // Another registry cannot mend what is wrong here.
                Err(error) if !matches!(error, BuildError::Image(ImageError::Registry(_))) => {
                    return Err(error);
                }
                // What was most likely meant is told.
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| ImageError::NotFound { text: request.as_written.clone() }.into()))
    }

    /// The image, if the store has it for the platform. What does not say its platform does for all.
    fn find_in_store(&self, text: &str, platform: &Platform) -> Result<Option<Found>, BuildError> {
        let text = &in_store(text);
        let id = match mica_image::resolve_platform(self.store, text, platform) {
            Ok(id) => id,
            Err(ImageError::NotFound { .. }) => return Ok(None),
            Err(ImageError::PlatformMissing { .. }) => {
                let id = mica_image::require(self.store, text)?;
                let found = mica_image::config(self.store, &id)?.platform();
                match found.os.is_empty() || found.architecture.is_empty() {
                    true => id,
                    false => return Ok(None),
                }
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(self.open(name_of(text), &id)?))
    }

    fn fetch(&self, reference: &Reference, platform: &Platform) -> Result<Found, BuildError> {
        let name = self.label(&reference.canonical(), platform);
        let started = Instant::now();
        (self.events)(Event::BaseFetch { name: name.clone() });
        let watch = |event| (self.events)(Event::BaseTransfer { name: name.clone(), event });
        // An image that is not of an index is taken as it is where nobody asked for a platform, with a warning of the plan.
        let asked = (!platform.is_same(&Platform::host())).then_some(platform);
        let pulled = self.source.fetch(reference, asked, &watch).inspect_err(|error| {
            (self.events)(Event::BaseFailed { name: name.clone(), message: error.to_string() });
        })?;
        // A build for another machine does not change what people mean by the name.
        let by_digest = reference.name_only().with_digest(pulled.target.clone());
        for name in [reference, &by_digest] {
            mica_image::lead_to_own(self.store, name)?;
        }
        let target = pulled.target.to_string();
        (self.events)(Event::BaseFetched { name: name.clone(), target, elapsed: started.elapsed() });
        self.open(reference.canonical(), &pulled.image)
    }

    /// What events know an image by.
    fn label(&self, name: &str, platform: &Platform) -> String {
        match self.request.makes_index() {
            true => format!("{platform} {name}"),
            false => name.to_owned(),
        }
    }

    fn open(&self, name: String, id: &ImageId) -> Result<Found, BuildError> {
        let config = mica_image::config(self.store, id)?;
        let chain = Chain::of_image(self.store, &config.rootfs.diff_ids)?.named(id);
        // Another process may remove the image while this build stands on it.
        chain.protect(self.lease)?;
        Ok((name, BaseImage { config }, chain))
    }
}

/// What a text of a Dockerfile is looked up as in the store: a name, or a whole ID. The beginning of an ID is a name too,
/// and which image that would be depends on what else happens to be in the store.
fn in_store(text: &str) -> String {
    let is_id = text.strip_prefix("sha256:").unwrap_or(text).len() == 64;
    if is_id { text.to_owned() } else { name_of(text) }
}

/// The canonical name that a text means, or the text where it is an ID.
fn name_of(text: &str) -> String {
    Reference::parse(text).map_or_else(|_| text.to_owned(), |name| name.with_default_tag().canonical())
}

/// The config of an image that is in the store for that platform.
pub(crate) fn stored_config(store: &Store, request: &BaseRequest) -> Option<BaseImage> {
    let id = mica_image::resolve_platform(store, &request.as_written, &request.key.platform).ok()?;
    Some(BaseImage { config: mica_image::config(store, &id).ok()? })
}

/// What a base is known by inside one build.
pub(crate) fn image_name(key: &ImageKey) -> String {
    format!("{} {}", key.reference.canonical(), key.platform)
}
