//! From a reference to the manifest of one platform.

use mica_oci::image_layout::ANNOTATION_REFERENCE_DIGEST;
use mica_oci::{Descriptor, Digest, Document, Index, Manifest, Platform, Reference};
use mica_registry_client::{Client, FetchedManifest, RegistryError};

use super::error::PullError;
use crate::error::{ImageError, Result};

/// Indexes inside of indexes; real ones have one level.
const NESTING_MAX: usize = 4;

/// What a registry has for a reference and a platform.
pub(super) struct Remote {
    /// Where blobs are fetched from: the repository, by the manifest's digest.
    pub reference: Reference,
    /// What the reference itself leads to.
    pub target: Digest,
    /// The manifest of the image.
    pub manifest: Manifest,
    pub manifest_digest: Digest,
    /// Whether an index led to the manifest.
    pub of_index: bool,
    /// What that index has beside the manifest: statements about it.
    pub attestations: Vec<Descriptor>,
    /// The exact bytes of all documents on the way, the manifest last.
    pub documents: Vec<(Digest, Vec<u8>)>,
}

/// Follows a reference through indexes to one manifest.
pub(super) fn resolve_remote(
    client: &Client,
    reference: &Reference,
    platform: Option<&Platform>,
) -> Result<Remote> {
    let failed = |source| ImageError::Pull { reference: reference.familiar(), source: Box::new(source) };
    let host = Platform::host();
    let wanted = platform.unwrap_or(&host);
    let mut at = reference.clone();
    let (mut documents, mut attestations) = (Vec::new(), Vec::new());
    for depth in 0..=NESTING_MAX {
        let fetched = client.manifest(&at).map_err(|error| match (&error, at.digest()) {
            // Not the name is wrong then, but what it leads to.
            (RegistryError::NotFound { .. }, Some(digest)) if depth > 0 => {
                let (digest, platform) = (digest.clone(), wanted.to_string());
                failed(PullError::ManifestMissing { digest, platform })
            }
            _ => error.into(),
        });
        let FetchedManifest { bytes, digest, media_type, .. } = fetched?;
        let document = Document::parse(&bytes, Some(&media_type))
            .map_err(|source| failed(PullError::Document { digest: digest.clone(), source }))?;
        documents.push((digest.clone(), bytes));
        at = reference.name_only().with_digest(digest.clone());
        match document {
            Document::Manifest(manifest) => {
                if !manifest.is_image() {
                    let media_type = manifest.artifact_type.unwrap_or(manifest.config.media_type);
                    return Err(failed(PullError::NotAnImage { digest, media_type }));
                }
                let target = documents.first().map_or_else(|| digest.clone(), |(target, _)| target.clone());
                return Ok(Remote {
                    reference: at,
                    target,
                    manifest,
                    manifest_digest: digest,
                    of_index: depth > 0,
                    attestations,
                    documents,
                });
            }
            Document::Index(index) => {
                let descriptor = select(&index, wanted).map_err(failed)?;
                attestations =
                    index.manifests.iter().filter(|other| is_about(other, descriptor)).cloned().collect();
                at = reference.name_only().with_digest(descriptor.digest.clone());
            }
        }
    }
    let digest = at.digest().cloned().unwrap_or_else(|| Digest::sha256(b""));
    Err(failed(PullError::Nesting { digest, max: NESTING_MAX }))
}

/// Whether a descriptor is of BuildKit's statements about an image.
fn is_about(statement: &Descriptor, image: &Descriptor) -> bool {
    statement.is_attestation()
        && statement.annotations.get(ANNOTATION_REFERENCE_DIGEST).map(String::as_str)
            == Some(image.digest.as_str())
}

fn select<'a>(index: &'a Index, wanted: &Platform) -> std::result::Result<&'a Descriptor, PullError> {
    index.select(wanted).ok_or_else(|| {
        let offered: Vec<String> = index.platforms().iter().map(Platform::to_string).collect();
        let offered = if offered.is_empty() { "none".to_owned() } else { offered.join(", ") };
        PullError::NoPlatform { platform: wanted.to_string(), offered }
    })
}
