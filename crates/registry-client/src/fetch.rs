//! Fetching manifests: whole, checked against their digest, and of a kind that is known.

use bytes::Bytes;
use mica_oci::{Algorithm, Digest, Document, DocumentError, MANIFEST_SIZE_BYTES_MAX, Reference, media_type};
use mica_registry_api::{Item, ManifestName};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};

pub use crate::blob::BlobReader;
use crate::client::Client;
use crate::endpoint::{Endpoint, Purpose};
use crate::error::{RegistryError, Result};
use crate::refusal::{Refusal, Subject};
use crate::transport::{At, Method, Request, Response, Target};

/// What a registry says the digest of a reply's bytes is.
pub(crate) const CONTENT_DIGEST: &str = "docker-content-digest";

/// What a registry says of a manifest without sending it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// Digest of its bytes as the registry says (`Docker-Content-Digest`).
    pub digest: Digest,
    /// As the registry says, without parameters.
    pub media_type: String,
    /// Its size, if the registry says.
    pub size_bytes: Option<u64>,
}

/// A manifest or an index as it was sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedManifest {
    /// The exact bytes, at most [`mica_oci::MANIFEST_SIZE_BYTES_MAX`].
    pub bytes: Vec<u8>,
    /// Digest of the bytes: computed, equal to what was asked for and to what the registry said.
    pub digest: Digest,
    /// As the registry says, without parameters; as the document says where the registry does not know better.
    pub media_type: String,
    /// Host that sent it: the registry or one of its mirrors.
    pub from: String,
}

impl Client {
    /// What a tag or digest leads to, in one request (HEAD; GET where a registry answers HEAD badly). `None`: not there.
    pub fn head_manifest(&self, reference: &Reference) -> Result<Option<ManifestHead>> {
        let item = Item::Manifest(name_of(reference));
        let at = At::Reference(reference, purpose_of(reference));
        let subject = Subject::manifest(reference);
        let mut request = Request::new(Method::HEAD, at, Target::Item(&item), subject);
        request.headers.push((ACCEPT, accept()));
        match self.send(&request) {
            Ok(response) => {
                if let Some(head) = read_head(reference, &response) {
                    return Ok(Some(head));
                }
            }
            Err(RegistryError::NotFound { .. }) => return Ok(None),
            // A reply to HEAD has no words, and some registries refuse the method alone.
            Err(RegistryError::Denied { .. } | RegistryError::Status { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.manifest(reference) {
            Ok(fetched) => Ok(Some(ManifestHead {
                size_bytes: Some(fetched.bytes.len() as u64),
                digest: fetched.digest,
                media_type: fetched.media_type,
            })),
            Err(RegistryError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The manifest or index of a tag or digest. Where a reference has both, the digest counts.
    pub fn manifest(&self, reference: &Reference) -> Result<FetchedManifest> {
        let endpoints = self.endpoints(reference, purpose_of(reference))?;
        let mut last = None;
        for (position, endpoint) in endpoints.iter().enumerate() {
            match self.manifest_from(reference, endpoint) {
                Err(error) if endpoint.is_mirror && position + 1 < endpoints.len() => {
                    self.pass_over(endpoint, error);
                }
                result => {
                    last = Some(result);
                    break;
                }
            }
        }
        last.unwrap_or_else(|| {
            let refusal = Refusal { host: reference.registry().to_owned(), ..Refusal::default() };
            Err(RegistryError::NotFound { subject: Subject::manifest(reference), refusal })
        })
    }

    fn manifest_from(&self, reference: &Reference, endpoint: &Endpoint) -> Result<FetchedManifest> {
        let item = Item::Manifest(name_of(reference));
        let subject = Subject::manifest(reference);
        let mut request =
            Request::new(Method::GET, At::Endpoint(endpoint), Target::Item(&item), subject.clone());
        request.headers.push((ACCEPT, accept()));
        request.whole = Some(MANIFEST_SIZE_BYTES_MAX);
        let response = self.send(&request)?;
        let from = endpoint.host.clone();
        let content_type = media_type_of(&response);
        let told = response.header(CONTENT_DIGEST).and_then(|text| Digest::parse(text).ok());
        let bytes = response.bytes(MANIFEST_SIZE_BYTES_MAX)?;
        refuse_html(&subject, &from, &content_type, &bytes, "a manifest")?;
        let digest = check_digest(&subject, &from, reference.digest(), told, &bytes)?;
        let media_type = check_document(&subject, &from, &content_type, &bytes)?;
        Ok(FetchedManifest { bytes: bytes.into(), digest, media_type, from })
    }
}

/// What stands in the path: the digest if there is one.
fn name_of(reference: &Reference) -> ManifestName {
    match reference.digest() {
        Some(digest) => ManifestName::Digest(digest.clone()),
        None => ManifestName::Tag(reference.tag().unwrap_or(mica_oci::reference::DEFAULT_TAG).to_owned()),
    }
}

fn purpose_of(reference: &Reference) -> Purpose {
    if reference.digest().is_some() { Purpose::Pull } else { Purpose::Resolve }
}

fn accept() -> String {
    media_type::MANIFEST_ACCEPT.join(", ")
}

/// Without parameters, in lower case; empty if the reply does not say.
pub(crate) fn media_type_of(response: &Response) -> String {
    let content_type = response.header(CONTENT_TYPE.as_str()).unwrap_or_default();
    media_type::without_parameters(content_type).to_ascii_lowercase()
}

/// What can be taken from a reply to HEAD; `None` if that is not enough.
fn read_head(reference: &Reference, response: &Response) -> Option<ManifestHead> {
    let told = response.header(CONTENT_DIGEST).and_then(|text| Digest::parse(text).ok());
    let digest = match (reference.digest(), told) {
        (Some(asked), Some(told)) if *asked != told && asked.algorithm() == told.algorithm() => return None,
        (Some(asked), _) => asked.clone(),
        (None, told) => told?,
    };
    let media_type = media_type_of(response);
    if !media_type::is_manifest(&media_type) && !media_type::is_index(&media_type) {
        return None;
    }
    let size_bytes = response.header(CONTENT_LENGTH.as_str()).and_then(|text| text.parse().ok());
    Some(ManifestHead { digest, media_type, size_bytes })
}

/// Refuses a page for people: portals and proxies answer everything with one, and say 200.
pub(crate) fn refuse_html(
    subject: &Subject,
    host: &str,
    media_type: &str,
    bytes: &[u8],
    expected: &'static str,
) -> Result<()> {
    let start = bytes.trim_ascii_start();
    let is_html = matches!(media_type, "text/html" | "application/xhtml+xml") || start.starts_with(b"<");
    if !is_html {
        return Ok(());
    }
    Err(RegistryError::HtmlReply { subject: subject.clone(), host: host.to_owned(), expected })
}

/// The digest of the bytes: the one that was asked for, or else the one that the registry says, or else SHA-256.
fn check_digest(
    subject: &Subject,
    host: &str,
    asked: Option<&Digest>,
    told: Option<Digest>,
    bytes: &Bytes,
) -> Result<Digest> {
    for expected in asked.iter().copied().chain(&told) {
        let found = match expected.algorithm() {
            Algorithm::Sha256 => Digest::sha256(bytes),
            Algorithm::Sha512 => Digest::sha512(bytes),
            Algorithm::Blake3 => {
                return Err(RegistryError::InvalidReply {
                    subject: subject.clone(),
                    host: host.to_owned(),
                    problem: format!("digests of manifests cannot be of this algorithm: `{expected}`"),
                });
            }
        };
        if found != *expected {
            let (subject, host, expected) = (subject.clone(), host.to_owned(), expected.clone());
            return Err(RegistryError::DigestMismatch { subject, host, expected, found });
        }
    }
    Ok(asked.cloned().or(told).unwrap_or_else(|| Digest::sha256(bytes)))
}

/// The kind of the document: what the registry says, or what the document says where the registry does not know better.
fn check_document(subject: &Subject, host: &str, content_type: &str, bytes: &[u8]) -> Result<String> {
    let schema1 = [media_type::DOCKER_MANIFEST_SCHEMA1, media_type::DOCKER_MANIFEST_SCHEMA1_SIGNED];
    if schema1.contains(&content_type) {
        return Err(RegistryError::Schema1 { subject: subject.clone() });
    }
    let announced = Some(content_type).filter(|name| !name.is_empty());
    let document = Document::parse(bytes, announced).map_err(|source| match source {
        DocumentError::SchemaVersion { found: 1, .. } => RegistryError::Schema1 { subject: subject.clone() },
        source => RegistryError::Document { subject: subject.clone(), source },
    })?;
    let is_known = media_type::is_manifest(content_type) || media_type::is_index(content_type);
    if is_known {
        return Ok(content_type.to_owned());
    }
    let own = match &document {
        Document::Manifest(manifest) => manifest.media_type.clone(),
        Document::Index(index) => index.media_type.clone(),
    };
    // Neither says what it is: guessing by the shape is how one document comes to mean two things.
    own.ok_or_else(|| RegistryError::InvalidReply {
        subject: subject.clone(),
        host: host.to_owned(),
        problem: match content_type {
            "" => "the manifest has no media type".to_owned(),
            other => format!("the manifest has no media type but `{other}`"),
        },
    })
}
