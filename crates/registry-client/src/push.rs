//! Pushing: blobs that the registry does not have, then manifests.

use std::io::{self, Read};

use bytes::Bytes;
use mica_oci::{Descriptor, Digest, Reference, media_type};
use mica_registry_api::{Item, ManifestName};
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE};

use crate::client::Client;
use crate::endpoint::Purpose;
use crate::error::{RegistryError, Result};
use crate::refusal::Subject;
use crate::transport::{Access, At, Body, Method, Request, Response, Target};
use crate::upload::upload;

/// Statuses of the removal of a tag that may mean that only digests can be removed; docker's registry 2.8 says 400.
const NO_TAG: &[u16] = &[400, 404, 405];

/// Tries of a manifest whose digest the registry says is another.
const PUTS_MAX: u32 = 3;

/// The bytes of a blob that is sent, from any offset, as often as needed.
pub trait Content: Sync {
    /// The bytes from `offset` to the end.
    fn open(&self, offset: u64) -> io::Result<Box<dyn Read + Send>>;
}

/// Hears how an upload goes.
pub trait UploadWatch: Sync {
    /// So many bytes of the blob are with the registry or on their way.
    fn sent(&self, bytes: u64);
    /// The upload can be taken up again at this location by another process; `None` once it cannot any more.
    fn resumable(&self, location: Option<&str>);
}

/// What became of the wish to mount a blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mounted {
    /// The registry has the blob now.
    Yes,
    /// It must be sent; the registry has opened an upload for it at this location.
    Upload(String),
    /// It must be sent, and no upload is open.
    No,
}

/// Statuses of a HEAD that mean that a blob is not there, or that the registry does not know HEAD: then it is sent.
const NO_BLOB: &[u16] = &[404, 405, 501];

impl Client {
    /// Whether the repository of `reference` has a blob. The registry itself is asked, not its mirrors.
    pub fn has_blob(&self, reference: &Reference, digest: &Digest) -> Result<bool> {
        let item = Item::Blob(digest.clone());
        let mut request = to_push(Method::HEAD, reference, &item);
        request.subject = Subject::blob(reference, digest);
        request.accepted = NO_BLOB;
        Ok(!NO_BLOB.contains(&self.send(&request)?.status))
    }

    /// Whether the repository has a manifest or index under the digest, or else the tag, of `reference`. The registry itself is
    /// asked, not its mirrors.
    pub fn has_manifest(&self, reference: &Reference) -> Result<bool> {
        let reference = reference.resolvable();
        let item = Item::Manifest(manifest_name(&reference));
        let mut request = to_push(Method::HEAD, &reference, &item);
        request.headers.push((ACCEPT, media_type::MANIFEST_ACCEPT.join(", ")));
        request.accepted = &[404];
        Ok(self.send(&request)?.status != 404)
    }

    /// Asks for a blob of another repository of the same registry (distribution spec, end-11).
    ///
    /// A registry that will not, for whatever reason of its own, is no failure: then the blob is sent.
    pub fn mount_blob(
        &self,
        reference: &Reference,
        digest: &Digest,
        from_repository: &str,
    ) -> Result<Mounted> {
        let from = Some(from_repository.to_owned());
        let item = Item::Uploads { digest: None, mount: Some(digest.clone()), from };
        let mut request = to_push(Method::POST, reference, &item);
        request.subject = Subject::blob(reference, digest);
        request.access = Access::Mount(from_repository);
        request.headers.push((CONTENT_LENGTH, "0".to_owned()));
        match self.send(&request) {
            Ok(response) if response.status == 201 => Ok(Mounted::Yes),
            Ok(response) => {
                Ok(response.location().map_or(Mounted::No, |location| Mounted::Upload(location.into())))
            }
            Err(RegistryError::NotFound { .. } | RegistryError::Denied { .. }) => Ok(Mounted::No),
            Err(RegistryError::Status { refusal, .. }) if (400..500).contains(&refusal.status) => {
                Ok(Mounted::No)
            }
            Err(error) => Err(error),
        }
    }

    /// Sends a blob. `resume` is the location of an upload that was begun earlier: it is asked how much it has. An upload that
    /// breaks is taken up again at the registry's offset, or begun again, within bounds.
    pub fn upload_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        content: &dyn Content,
        resume: Option<&str>,
        watch: &dyn UploadWatch,
    ) -> Result<()> {
        upload(self, reference, descriptor, content, resume, watch)
    }

    /// Puts a manifest or index under the tag of `reference`, or else under its digest. Answers its digest.
    pub fn put_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Digest> {
        let item = Item::Manifest(manifest_name(reference));
        let body = Bytes::copy_from_slice(bytes);
        let mut request = to_push(Method::PUT, reference, &item);
        request.headers.push((CONTENT_TYPE, media_type.to_owned()));
        request.body = Body::Bytes(&body);
        let digest = match reference.digest() {
            Some(digest) if digest.matches(bytes) == Some(true) => digest.clone(),
            _ => Digest::sha256(bytes),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let response = refuse_html(self.send(&request)?, "a stored manifest")?;
            // Not all registries say it. One that says another digest has stored something else, and the tag leads there now:
            // perhaps the line has spoilt the bytes, then it can be made good.
            let said = response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
            let Some(found) = said.filter(|said| said.matches(bytes) == Some(false)) else {
                return Ok(digest);
            };
            if tries == PUTS_MAX {
                let (host, subject) = (response.host(), response.subject);
                return Err(RegistryError::DigestMismatch { subject, host, expected: digest, found });
            }
        }
    }

    /// Takes a tag or manifest away.
    ///
    /// Registries that only delete by digest (docker's before version 3) lose the manifest that the tag leads to, and with it
    /// all its tags.
    pub fn delete_manifest(&self, reference: &Reference) -> Result<()> {
        let reference = reference.resolvable();
        let status = self.delete(&reference)?;
        if reference.digest().is_some() || !NO_TAG.contains(&status) {
            return Ok(());
        }
        let item = Item::Manifest(manifest_name(&reference));
        let mut request = to_push(Method::HEAD, &reference, &item);
        request.headers.push((ACCEPT, media_type::MANIFEST_ACCEPT.join(", ")));
        let response = self.send(&request)?;
        let digest = response.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        let Some(digest) = digest else {
            return Err(RegistryError::InvalidReply {
                host: response.host(),
                subject: response.subject,
                problem: "it does not say the digest that the tag leads to (`Docker-Content-Digest`)"
                    .to_owned(),
            });
        };
        self.delete(&reference.name_only().with_digest(digest)).map(|_| ())
    }

    /// Asks for the removal; of a tag, the statuses that mean that only digests can be removed are answers.
    fn delete(&self, reference: &Reference) -> Result<u16> {
        let item = Item::Manifest(manifest_name(reference));
        let mut request = to_push(Method::DELETE, reference, &item);
        request.access = Access::Delete;
        request.accepted = if reference.digest().is_none() { NO_TAG } else { &[] };
        match self.send(&request) {
            Ok(response) => Ok(response.status),
            Err(RegistryError::Status { subject, refusal }) if refusal.status == 405 => {
                Err(RegistryError::DeletionDisabled { subject, refusal })
            }
            Err(error) => Err(error),
        }
    }
}

/// A request to the registry itself, with the right to write.
pub(crate) fn to_push<'a>(method: Method, reference: &'a Reference, item: &'a Item) -> Request<'a> {
    let at = At::Reference(reference, Purpose::Push);
    let mut request = Request::new(method, at, Target::Item(item), Subject::manifest(reference));
    request.access = Access::PullPush;
    request
}

fn manifest_name(reference: &Reference) -> ManifestName {
    match (reference.tag(), reference.digest()) {
        (None, Some(digest)) => ManifestName::Digest(digest.clone()),
        (tag, _) => ManifestName::Tag(tag.unwrap_or(mica_oci::reference::DEFAULT_TAG).to_owned()),
    }
}

/// A page for people, where a registry would have answered: something else stands before it.
pub(crate) fn refuse_html(response: Response, expected: &'static str) -> Result<Response> {
    let kind = response.header("content-type").map(media_type::without_parameters).unwrap_or_default();
    if !kind.eq_ignore_ascii_case("text/html") || !(200..300).contains(&response.status) {
        return Ok(response);
    }
    Err(RegistryError::HtmlReply { host: response.host(), subject: response.subject, expected })
}

/// What a registry says is the digest of what it stored just now, if that is another than ours.
pub(crate) fn other_digest(response: &Response, ours: &Digest) -> Option<Digest> {
    let said = Digest::parse(response.header("docker-content-digest")?).ok()?;
    (said.algorithm() == ours.algorithm() && said != *ours).then_some(said)
}
