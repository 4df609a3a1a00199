//! What the registry has and remembers.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sha2::Digest as _;

use super::auth::Token;
use super::{FakeOptions, Fault, Request, When};
use crate::{hex, sha256};

/// A manifest or index as it was put.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub media_type: String,
    pub bytes: Arc<[u8]>,
}

/// An upload that has begun.
#[derive(Debug, Default)]
pub(super) struct Upload {
    pub repository: String,
    pub bytes: Vec<u8>,
    /// Counts replies, for [`super::Locations::Changing`].
    pub version: u64,
    /// A chunk below the least length came: it must have been the last.
    pub had_short_chunk: bool,
    /// The connection whose bytes are taken. What an earlier one still brings, after its client was killed, is not.
    pub writer: usize,
}

#[derive(Debug, Default)]
struct Repository {
    blobs: BTreeSet<String>,
    manifests: BTreeMap<String, Manifest>,
    tags: BTreeMap<String, String>,
}

#[derive(Debug)]
pub(super) struct State {
    pub options: FakeOptions<'static>,
    pub rules: Vec<(When, Fault)>,
    pub log: Vec<Request>,
    pub uploads: HashMap<String, Upload>,
    pub uploads_begun: u64,
    pub tokens: HashMap<String, Token>,
    pub tokens_given: u64,
    blobs: HashMap<String, Arc<[u8]>>,
    repositories: BTreeMap<String, Repository>,
}

impl State {
    pub fn new(options: FakeOptions<'static>) -> State {
        State {
            options,
            rules: Vec::new(),
            log: Vec::new(),
            uploads: HashMap::new(),
            uploads_begun: 0,
            tokens: HashMap::new(),
            tokens_given: 0,
            blobs: HashMap::new(),
            repositories: BTreeMap::new(),
        }
    }

    /// The faults that meet this request.
    pub fn faults(&mut self, method: &str, path: &str) -> Vec<Fault> {
        let met = self.rules.iter_mut().filter_map(|(when, fault)| {
            // Every rule counts, whether or not an earlier one met.
            when.meets(method, path).then(|| fault.clone())
        });
        met.collect()
    }

    pub fn put_blob(&mut self, repository: &str, digest: &str, bytes: Arc<[u8]>) {
        self.blobs.insert(digest.into(), bytes);
        self.repositories.entry(repository.into()).or_default().blobs.insert(digest.into());
    }

    pub fn blob(&self, repository: &str, digest: &str) -> Option<Arc<[u8]>> {
        self.repositories.get(repository)?.blobs.get(digest)?;
        self.blobs.get(digest).cloned()
    }

    pub fn remove_blob(&mut self, digest: &str) -> bool {
        for repository in self.repositories.values_mut() {
            repository.blobs.remove(digest);
        }
        self.blobs.remove(digest).is_some()
    }

    /// Gives a repository a blob that another one has.
    pub fn mount(&mut self, from: &str, to: &str, digest: &str) -> bool {
        let is_there = self.blob(from, digest).is_some();
        if is_there {
            self.repositories.entry(to.into()).or_default().blobs.insert(digest.into());
        }
        is_there
    }

    /// Under its digest, and under `reference` if that is a tag.
    pub fn put_manifest(
        &mut self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: Arc<[u8]>,
    ) -> String {
        let digest = match reference.split_once(':') {
            Some(("sha512", _)) => format!("sha512:{}", hex(&sha2::Sha512::digest(&bytes))),
            _ => format!("sha256:{}", sha256(&bytes)),
        };
        let kept = Manifest { media_type: media_type.into(), bytes };
        let repository = self.repositories.entry(repository.into()).or_default();
        if reference.contains(':') {
            // Also where it is the digest of something else: a test wants that so.
            repository.manifests.insert(reference.into(), kept.clone());
        } else {
            repository.tags.insert(reference.into(), digest.clone());
        }
        repository.manifests.insert(digest.clone(), kept);
        digest
    }

    /// Digest and bytes of what a tag or digest leads to.
    pub fn manifest(&self, repository: &str, reference: &str) -> Option<(String, &Manifest)> {
        let repository = self.repositories.get(repository)?;
        let digest = if reference.contains(':') { reference } else { repository.tags.get(reference)? };
        repository.manifests.get(digest).map(|kept| (digest.to_owned(), kept))
    }

    /// Takes a tag away, or a manifest with all its tags.
    pub fn remove_manifest(&mut self, repository: &str, reference: &str) -> bool {
        let Some(repository) = self.repositories.get_mut(repository) else { return false };
        if reference.contains(':') {
            repository.tags.retain(|_, digest| digest != reference);
            repository.manifests.remove(reference).is_some()
        } else {
            repository.tags.remove(reference).is_some()
        }
    }

    pub fn has_repository(&self, repository: &str) -> bool {
        self.repositories.contains_key(repository)
    }

    pub fn repositories(&self) -> Vec<String> {
        self.repositories.keys().cloned().collect()
    }

    pub fn tags(&self, repository: &str) -> Vec<String> {
        let tags = self.repositories.get(repository).map(|repository| repository.tags.keys().cloned());
        tags.into_iter().flatten().collect()
    }

    /// The first thing that a manifest refers to and the repository lacks.
    pub fn missing_of_manifest(&self, repository: &str, bytes: &[u8]) -> Result<Option<String>, String> {
        let document: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|error| format!("not JSON: {error}"))?;
        let list = |field: &str| document[field].as_array().cloned().unwrap_or_default();
        for manifest in list("manifests") {
            let digest = manifest["digest"].as_str().unwrap_or_default();
            if self.manifest(repository, digest).is_none() {
                return Ok(Some(digest.into()));
            }
        }
        let config = document.get("config").cloned();
        for blob in config.into_iter().chain(list("layers")) {
            let digest = blob["digest"].as_str().unwrap_or_default();
            let is_foreign = blob["urls"].as_array().is_some_and(|urls| !urls.is_empty());
            if !is_foreign && self.blob(repository, digest).is_none() {
                return Ok(Some(digest.into()));
            }
        }
        Ok(None)
    }
}

/// Whether bytes have this digest; unknown algorithms do not fit.
pub(super) fn fits(digest: &str, bytes: &[u8]) -> bool {
    match digest.split_once(':') {
        Some(("sha256", expected)) => sha256(bytes) == expected,
        Some(("sha512", expected)) => hex(&sha2::Sha512::digest(bytes)) == expected,
        _ => false,
    }
}
