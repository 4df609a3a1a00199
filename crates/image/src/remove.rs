//! Taking names and images away, by docker's rules.

use mica_oci::{Digest, ImageId, Reference, chain_ids};
use mica_store::{GcOptions, Store};

use crate::error::{ImageError, Result};
use crate::resolve::{record, require};

/// What went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// A name, in familiar form.
    Untagged(String),
    /// An image (its ID) or a layer (its chain ID).
    Deleted(Digest),
}

/// What went, and why other things did not.
#[derive(Debug, Default)]
pub struct Removal {
    /// In the order in which it went.
    pub removed: Vec<Removed>,
    /// One for each text that failed.
    pub errors: Vec<ImageError>,
    /// Space on disk that came back.
    pub reclaimed_bytes: u64,
}

/// Layers of images that were removed; gone once they were collected.
#[derive(Default)]
pub(crate) struct Leftovers(Vec<(mica_oci::DiffId, mica_oci::ChainId)>);

impl Leftovers {
    /// Removes the image itself.
    pub fn delete(&mut self, store: &Store, id: &ImageId, removed: &mut Vec<Removed>) -> Result<()> {
        let layers = record(store, id)?.layers;
        if store.remove_image(id)? {
            removed.push(Removed::Deleted(id.0.clone()));
            let chains = chain_ids(&layers);
            self.0.extend(layers.into_iter().zip(chains).rev());
        }
        Ok(())
    }

    /// Collects what nothing needs any more; records of the build cache keep their layers. Answers what was freed.
    pub fn collect(self, store: &Store, removed: &mut Vec<Removed>) -> Result<u64> {
        if !removed.iter().any(|removed| matches!(removed, Removed::Deleted(_))) {
            return Ok(0);
        }
        let freed = store.gc(GcOptions { keep_cache: true, ..GcOptions::default() })?;
        let mut told = std::collections::HashSet::new();
        for (diff_id, chain_id) in self.0 {
            if store.layer(&diff_id, Some(&chain_id))?.is_none() && told.insert(chain_id.clone()) {
                removed.push(Removed::Deleted(chain_id.0));
            }
        }
        Ok(freed.bytes)
    }
}

/// Removes what each of `texts` means: a name, or with its last name the image. One failure does not stop the others.
pub fn remove(store: &Store, texts: &[String], force: bool) -> Result<Removal> {
    let mut removal = Removal::default();
    let mut leftovers = Leftovers::default();
    for text in texts {
        if let Err(error) = remove_one(store, text, force, &mut removal.removed, &mut leftovers) {
            removal.errors.push(error);
        }
    }
    removal.reclaimed_bytes = leftovers.collect(store, &mut removal.removed)?;
    Ok(removal)
}

fn remove_one(
    store: &Store,
    text: &str,
    force: bool,
    removed: &mut Vec<Removed>,
    leftovers: &mut Leftovers,
) -> Result<()> {
    let id = require(store, text)?;
    let names = names_of(store, &id)?;
    let user = user_of(store, &id)?;
    let is_by_id = is_id_of(text, &id);
    let named = Reference::parse(text).ok().map(|name| name.resolvable());
    if let Some(name) = named.filter(|_| !is_by_id) {
        if let (false, true, Some((container, _))) = (force, is_single(&names), &user) {
            let (reference, container) = (text.to_owned(), container.clone());
            return Err(ImageError::NameInUse { reference, id, container });
        }
        untag(store, &name, removed)?;
        let left = names_of(store, &id)?;
        let (of_repository, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|other| other.name() == name.name());
        // With the last tag go the digests under which the repository had it.
        let has_tag = of_repository.iter().any(|other| other.digest().is_none());
        if has_tag || name.digest().is_some() && !of_repository.is_empty() {
            return Ok(());
        }
        for digest in &of_repository {
            untag(store, digest, removed)?;
        }
        if !others.is_empty() || user.is_some() {
            return Ok(());
        }
        return leftovers.delete(store, &id, removed);
    }
    if let Some((container, running)) = &user
        && (*running || !force)
    {
        return Err(ImageError::UsedBy { id, container: container.clone(), running: *running });
    }
    if !force && !is_single(&names) {
        return Err(ImageError::SeveralRepositories { id });
    }
    for name in &names {
        untag(store, name, removed)?;
    }
    if user.is_some() {
        // A stopped container keeps the image itself alive, without a name.
        return Ok(());
    }
    leftovers.delete(store, &id, removed)
}

pub(crate) fn untag(store: &Store, name: &Reference, removed: &mut Vec<Removed>) -> Result<()> {
    if store.remove_name(&name.canonical())?.is_some() {
        removed.push(Removed::Untagged(name.familiar()));
    }
    Ok(())
}

pub(crate) fn names_of(store: &Store, id: &ImageId) -> Result<Vec<Reference>> {
    Ok(store.names_of(id)?.iter().filter_map(|name| Reference::parse(name).ok()).collect())
}

/// At most one name, or one tag with digests of the same repository.
fn is_single(names: &[Reference]) -> bool {
    let Some(first) = names.first() else { return true };
    let tags = names.iter().filter(|name| name.digest().is_none()).count();
    tags <= 1 && names.iter().all(|name| name.name() == first.name())
}

fn is_id_of(text: &str, id: &ImageId) -> bool {
    let hex = text.strip_prefix("sha256:").unwrap_or(text);
    !hex.is_empty() && id.0.hex().starts_with(hex)
}

/// A container that uses the image, a running one first.
fn user_of(store: &Store, id: &ImageId) -> Result<Option<(String, bool)>> {
    let mut found = None;
    for user in store.image_users(id)? {
        let running = store.container(&user)?.is_some_and(|container| container.record.state.is_live());
        if running {
            return Ok(Some((user, true)));
        }
        found.get_or_insert((user, false));
    }
    Ok(found)
}
