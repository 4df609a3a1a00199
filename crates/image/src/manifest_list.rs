//! Manifest lists that are put together by hand: created, annotated, shown, pushed, removed.
//!
//! A list is kept in the store under its name until it is pushed or removed, with the manifests of its members as their
//! registries have them. A member is an image of a registry; an index among them gives all its manifests. Pushed is OCI's index
//! where one member is OCI's, and docker's manifest list where all are docker's: registries and old clients that know docker's
//! only get no more than that. The document is written as docker writes it: the same members in the same order have the digest
//! that docker's would have.

mod error;
mod remote;

use std::collections::BTreeSet;

use mica_oci::{Descriptor, Digest, Index, Manifest, Platform, Reference, indent_json, media_type};
use mica_registry_client::{Client, RegistryError};
use mica_store::Store;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::Result;

pub use error::ListError;
pub use remote::{RemoteManifest, remote_manifest};

/// How docker indents manifest lists.
const INDENT: &str = "   ";
/// Version of what is kept in the store.
const FORMAT: u32 = 1;
/// Manifests of one list.
const MEMBERS_MAX: usize = 1_000;

/// A manifest of a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListMember {
    /// Where it came from.
    pub reference: Reference,
    /// As the list will have it.
    pub descriptor: Descriptor,
    /// Its exact bytes, which are JSON.
    pub manifest: String,
}

/// A list that is being put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestList {
    /// What it will be pushed as.
    pub name: Reference,
    /// Its manifests, in the order in which they were given.
    pub members: Vec<ListMember>,
}

/// What is said of a member's platform; what is not said stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlatformChange {
    /// Architecture in Go's spelling.
    pub architecture: Option<String>,
    /// Operating system in Go's spelling.
    pub os: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features of the operating system, in addition to those that are there.
    pub os_features: Vec<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    version: u32,
    members: Vec<ListMember>,
}

impl ManifestList {
    /// The list of that name, if there is one.
    pub fn find(store: &Store, name: &Reference) -> Result<Option<ManifestList>> {
        let name = normalized(name);
        let Some(bytes) = store.manifest_list(&name.canonical())? else { return Ok(None) };
        let damaged = |problem: String| ListError::Damaged { list: name.canonical(), problem };
        let kept: Kept = serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if kept.version != FORMAT {
            return Err(damaged(format!("unknown version {}", kept.version)).into());
        }
        Ok(Some(ManifestList { name, members: kept.members }))
    }

    /// As [`ManifestList::find`]; nothing there is an error in docker's words.
    pub fn require(store: &Store, name: &Reference) -> Result<ManifestList> {
        let list = ManifestList::find(store, name)?;
        Ok(list.ok_or_else(|| ListError::Missing { list: normalized(name).canonical() })?)
    }

    /// Makes a list of images of registries, or with `amend` adds them to the one that is there. A member that is there with
    /// the same digest keeps what was said of it.
    pub fn create(
        store: &Store,
        client: &Client,
        name: &Reference,
        images: &[Reference],
        amend: bool,
    ) -> Result<ManifestList> {
        let mut list = match ManifestList::find(store, name)? {
            Some(_) if !amend => return Err(ListError::Exists { list: normalized(name).canonical() }.into()),
            Some(list) => list,
            None => ManifestList { name: normalized(name), members: Vec::new() },
        };
        for image in images {
            let image = normalized(image);
            let found = match remote_manifest(client, &image, true) {
                Err(crate::ImageError::Registry(RegistryError::NotFound { .. }))
                    if store.name(&image.canonical())?.is_some() =>
                {
                    return Err(ListError::NotPushed { image: image.familiar() }.into());
                }
                found => found?,
            };
            for member in found.members {
                list.put(member);
            }
            if list.members.len() > MEMBERS_MAX {
                return Err(ListError::TooMany { list: list.name.canonical(), max: MEMBERS_MAX }.into());
            }
        }
        list.keep(store)?;
        Ok(list)
    }

    fn put(&mut self, member: ListMember) {
        match self.members.iter_mut().find(|known| known.reference == member.reference) {
            Some(known) if known.descriptor.digest == member.descriptor.digest => {}
            Some(known) => *known = member,
            None => self.members.push(member),
        }
    }

    /// Says of a member what it runs on.
    pub fn annotate(&mut self, store: &Store, image: &Reference, change: &PlatformChange) -> Result<()> {
        let image = normalized(image);
        let list = self.name.familiar();
        let Some(member) = self.members.iter_mut().find(|member| member.reference == image) else {
            return Err(ListError::NoMember { image: image.familiar(), list }.into());
        };
        let platform = member.descriptor.platform.get_or_insert_default();
        if let Some(os) = &change.os {
            platform.os.clone_from(os);
        }
        if let Some(architecture) = &change.architecture {
            platform.architecture.clone_from(architecture);
        }
        for feature in &change.os_features {
            if !platform.os_features.contains(feature) {
                platform.os_features.push(feature.clone());
            }
        }
        for (own, said) in
            [(&mut platform.variant, &change.variant), (&mut platform.os_version, &change.os_version)]
        {
            if said.is_some() {
                own.clone_from(said);
            }
        }
        if !is_known(&platform.os) || !is_known(&platform.architecture) {
            let (os, architecture) = (platform.os.clone(), platform.architecture.clone());
            return Err(ListError::UnknownPlatform { os, architecture }.into());
        }
        self.keep(store)
    }

    /// A member of the list.
    pub fn member(&self, image: &Reference) -> Result<&ListMember> {
        let image = normalized(image);
        let found = self.members.iter().find(|member| member.reference == image);
        Ok(found
            .ok_or_else(|| ListError::NoMember { image: image.familiar(), list: self.name.familiar() })?)
    }

    /// The document that is pushed: its media type and its bytes.
    pub fn document(&self) -> (&'static str, Vec<u8>) {
        let mut descriptors: Vec<Descriptor> = Vec::new();
        for member in &self.members {
            // Two names may lead to one manifest.
            if !descriptors.contains(&member.descriptor) {
                descriptors.push(member.descriptor.clone());
            }
        }
        let is_docker = descriptors.iter().all(|descriptor| media_type::is_docker(&descriptor.media_type));
        let (kind, bytes) = match is_docker {
            true => (media_type::DOCKER_MANIFEST_LIST, docker_json(&Index::docker(descriptors))),
            false => (media_type::OCI_INDEX, Index::oci(descriptors).to_canonical_json()),
        };
        (kind, indent_json(&bytes, INDENT))
    }

    /// Manifests that the repository of the list may not have yet: those of other repositories, each once. They must be
    /// copied there before the list is pushed.
    pub fn foreign_members(&self) -> Vec<&ListMember> {
        let mut seen = BTreeSet::new();
        self.members
            .iter()
            .filter(|member| member.reference.name() != self.name.name())
            .filter(|member| seen.insert(&member.descriptor.digest))
            .collect()
    }

    /// Holds the list against what registries and clients want of one, before anything is sent.
    pub fn check(&self) -> Result<()> {
        for member in &self.members {
            let is_image =
                Manifest::parse(member.manifest.as_bytes()).is_ok_and(|manifest| manifest.is_image());
            let platform = member.descriptor.platform.as_ref();
            let is_said =
                platform.is_some_and(|platform| !platform.os.is_empty() && !platform.architecture.is_empty());
            if is_image && !is_said {
                return Err(ListError::NoPlatform { image: member.reference.familiar() }.into());
            }
        }
        Ok(())
    }

    /// Puts the list into its repository, which must have all its manifests. Answers its digest.
    pub fn push(&self, client: &Client) -> Result<Digest> {
        self.check()?;
        let (media_type, bytes) = self.document();
        Ok(client.put_manifest(&self.name, media_type, &bytes)?)
    }

    /// Forgets the list.
    pub fn remove(store: &Store, name: &Reference) -> Result<()> {
        let name = normalized(name).canonical();
        match store.remove_manifest_list(&name)? {
            true => Ok(()),
            false => Err(ListError::Missing { list: name }.into()),
        }
    }

    fn keep(&self, store: &Store) -> Result<()> {
        let kept = Kept { version: FORMAT, members: self.members.clone() };
        let bytes = serde_json::to_vec(&kept).map_err(|error| ListError::Damaged {
            list: self.name.canonical(),
            problem: error.to_string(),
        })?;
        Ok(store.put_manifest_list(&self.name.canonical(), &bytes)?)
    }
}

/// A list with the fields of its descriptors in docker's order, so that the same list has the same digest from both.
fn docker_json(list: &Index) -> Vec<u8> {
    let bytes = list.to_canonical_json();
    let Ok(mut value) = serde_json::from_slice::<Value>(&bytes) else { return bytes };
    for descriptor in value.get_mut("manifests").and_then(Value::as_array_mut).into_iter().flatten() {
        let Some(fields) = descriptor.as_object_mut() else { continue };
        let mut ordered = Map::new();
        for field in ["mediaType", "size", "digest"] {
            ordered.extend(fields.shift_remove(field).map(|value| (field.to_owned(), value)));
        }
        ordered.append(fields);
        *fields = ordered;
    }
    value.to_string().into_bytes()
}

/// As docker names lists and members: tagged `latest` unless something is said.
fn normalized(name: &Reference) -> Reference {
    name.with_default_tag()
}

/// Whether a word is a system or an architecture that there is.
fn is_known(word: &str) -> bool {
    !word.is_empty() && !word.contains(['/', '(']) && Platform::parse(word).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(name: &str, media_type: &str, platform: Option<&str>) -> ListMember {
        let manifest = format!("{{\"name\":\"{name}\"}}");
        ListMember {
            reference: Reference::parse(name).unwrap().with_default_tag(),
            descriptor: Descriptor {
                platform: platform.map(|platform| Platform::parse(platform).unwrap()),
                ..Descriptor::of(media_type, manifest.as_bytes())
            },
            manifest,
        }
    }

    fn list(members: Vec<ListMember>) -> ManifestList {
        ManifestList { name: Reference::parse("a.b/app:1").unwrap(), members }
    }

    #[test]
    fn kept_lists_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        let name = Reference::parse("a.b/app:1").unwrap();
        assert_eq!(ManifestList::find(&store, &name).unwrap(), None);
        let error = ManifestList::require(&store, &name).unwrap_err();
        assert_eq!(error.to_string(), "No such manifest: a.b/app:1");
        let mut made = list(vec![member("a.b/app:amd64", media_type::OCI_MANIFEST, Some("linux/amd64"))]);
        made.keep(&store).unwrap();
        assert_eq!(ManifestList::require(&store, &name).unwrap(), made);

        let change = |os: &str, architecture: &str| PlatformChange {
            os: Some(os.to_owned()),
            architecture: Some(architecture.to_owned()),
            os_features: vec!["f".to_owned(), "f".to_owned()],
            variant: Some("v7".to_owned()),
            ..PlatformChange::default()
        };
        let image = Reference::parse("a.b/app:amd64").unwrap();
        made.annotate(&store, &image, &change("freebsd", "arm")).unwrap();
        let kept = ManifestList::require(&store, &name).unwrap();
        let platform = kept.member(&image).unwrap().descriptor.platform.clone().unwrap();
        assert_eq!((platform.to_string().as_str(), platform.os_features.len()), ("freebsd/arm/v7", 1));

        let error = made.annotate(&store, &image, &change("toaster", "arm")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest entry for image has unsupported os/arch combination: toaster/arm"
        );
        assert_eq!(ManifestList::require(&store, &name).unwrap(), kept, "nothing was kept");
        let other = Reference::parse("a.b/other").unwrap();
        let error = made.annotate(&store, &other, &change("linux", "arm")).unwrap_err();
        assert_eq!(error.to_string(), "manifest for image a.b/other:latest does not exist in a.b/app:1");

        ManifestList::remove(&store, &name).unwrap();
        assert!(ManifestList::remove(&store, &name).is_err());
        store.put_manifest_list(&name.canonical(), b"{\"version\":9,\"members\":[]}").unwrap();
        assert!(ManifestList::find(&store, &name).unwrap_err().to_string().contains("unknown version 9"));
    }

    #[test]
    fn one_oci_member_makes_an_oci_index() {
        let docker = member("a.b/app:1", media_type::DOCKER_MANIFEST, Some("linux/amd64"));
        let oci = member("a.b/app:2", media_type::OCI_MANIFEST, Some("linux/arm64"));
        let (kind, bytes) = list(vec![docker.clone(), docker.clone()]).document();
        assert_eq!(kind, media_type::DOCKER_MANIFEST_LIST);
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(
            text.starts_with("{\n   \"schemaVersion\": 2,\n   \"mediaType\": \"application/vnd.docker."),
            "{text}"
        );
        assert_eq!(Index::parse(&bytes).unwrap().manifests, std::slice::from_ref(&docker.descriptor));
        assert_eq!(list(vec![docker, oci]).document().0, media_type::OCI_INDEX);
    }

    #[test]
    fn members_of_other_repositories_are_told() {
        let own = member("a.b/app:amd64", media_type::OCI_MANIFEST, Some("linux/amd64"));
        let other = member("a.b/other:1", media_type::OCI_MANIFEST, Some("linux/arm64"));
        let list = list(vec![own, other.clone()]);
        assert_eq!(list.foreign_members(), [&other]);
        list.check().unwrap();
    }

    #[test]
    fn a_member_needs_a_platform() {
        let mut unsaid = member("a.b/app:x", media_type::OCI_MANIFEST, None);
        unsaid.manifest = String::from_utf8(
            Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, b"{}"), Vec::new()).to_canonical_json(),
        )
        .unwrap();
        let error = list(vec![unsaid]).check().unwrap_err();
        assert_eq!(
            error.to_string(),
            "manifest a.b/app:x must have an OS and Architecture to be pushed to a registry"
        );
    }
}
