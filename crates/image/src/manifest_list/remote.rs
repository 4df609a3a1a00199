//! Manifests as registries have them, with what they are for.

use mica_oci::{
    Descriptor, Document, DocumentError, DocumentKind, ImageConfig, Manifest, Reference, media_type,
};
use mica_registry_client::Client;

use super::{ListError, ListMember, MEMBERS_MAX};
use crate::error::Result;

/// Indexes inside of indexes; real ones have one level.
const NESTING_MAX: usize = 4;

/// A manifest or an index of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RemoteManifest {
    /// What it is.
    pub descriptor: Descriptor,
    /// Its exact bytes.
    pub bytes: Vec<u8>,
    /// Itself, or all manifests of the index. Empty if they were not asked for.
    pub members: Vec<ListMember>,
}

impl RemoteManifest {
    /// Whether it is an index or a manifest list.
    pub fn is_index(&self) -> bool {
        media_type::is_index(&self.descriptor.media_type)
    }
}

/// Fetches a manifest or index, and with `members` all manifests that it leads to, each with its platform.
pub fn remote_manifest(client: &Client, reference: &Reference, members: bool) -> Result<RemoteManifest> {
    let (descriptor, bytes, document) = fetch(client, &reference.resolvable())?;
    let mut remote = RemoteManifest { descriptor, bytes, members: Vec::new() };
    if !members {
        return Ok(remote);
    }
    let Document::Index(index) = document else {
        let member = describe(client, reference.clone(), remote.descriptor.clone(), &remote.bytes)?;
        remote.members.push(member);
        return Ok(remote);
    };
    let mut left: Vec<(Descriptor, usize)> =
        index.manifests.into_iter().rev().map(|child| (child, 1)).collect();
    while let Some((child, depth)) = left.pop() {
        if depth > NESTING_MAX {
            return Err(ListError::Nesting { image: reference.familiar() }.into());
        }
        if left.len() + remote.members.len() > MEMBERS_MAX {
            return Err(ListError::TooMany { list: reference.familiar(), max: MEMBERS_MAX }.into());
        }
        // With the tag, as docker shows it.
        let own = reference.with_digest(child.digest.clone());
        let (found, bytes, document) = fetch(client, &own.resolvable())?;
        match document {
            Document::Index(index) => {
                left.extend(index.manifests.into_iter().rev().map(|child| (child, depth + 1)));
            }
            // What the index says of it is more than it says itself.
            Document::Manifest(_) => {
                let descriptor = Descriptor { media_type: found.media_type, ..child };
                remote.members.push(describe(client, own, descriptor, &bytes)?);
            }
        }
    }
    Ok(remote)
}

fn fetch(client: &Client, reference: &Reference) -> Result<(Descriptor, Vec<u8>, Document)> {
    let fetched = client.manifest(reference)?;
    let document = Document::parse(&fetched.bytes, Some(&fetched.media_type))?;
    let announced = Some(fetched.media_type.as_str())
        .filter(|name| media_type::is_index(name) || media_type::is_manifest(name));
    let media_type = announced.unwrap_or(document.media_type()).to_owned();
    let descriptor = Descriptor::new(&media_type, fetched.digest, fetched.bytes.len() as u64);
    Ok((descriptor, fetched.bytes, document))
}

/// A member, with the platform that its config says if nothing else has said it.
fn describe(
    client: &Client,
    reference: Reference,
    mut descriptor: Descriptor,
    bytes: &[u8],
) -> Result<ListMember> {
    let manifest = Manifest::parse(bytes)?;
    if descriptor.platform.is_none() && manifest.is_image() {
        mica_oci::check_size(DocumentKind::ImageConfig, manifest.config.size)?;
        let config = client.blob_bytes(&reference, &manifest.config)?;
        descriptor.platform = Some(ImageConfig::parse(&config)?.platform());
    }
    let kind = DocumentKind::Manifest;
    let manifest = String::from_utf8(bytes.to_vec())
        .map_err(|error| DocumentError::Json { kind, source: serde::de::Error::custom(error) })?;
    Ok(ListMember { reference, descriptor, manifest })
}
