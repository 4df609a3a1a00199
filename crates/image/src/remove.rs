//! Taking names and images away, by docker's rules.

use mica_oci::{ChainId, DiffId, Digest, ImageId, Platform, Reference, chain_ids};
use mica_store::{GcOptions, Store, StoreError};

use crate::error::{ImageError, Result};
use crate::resolve::{name_of, of_index, record, require, resolve_platform};

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

/// What is left to go once names and images went.
#[derive(Default)]
pub(crate) struct Leftovers {
    /// Of images that were removed; gone once they were collected.
    layers: Vec<(DiffId, ChainId)>,
    /// Images of other platforms that names had which went.
    images: Vec<ImageId>,
}

impl Leftovers {
    /// Removes a name of an image, unless somebody has let it lead to another since.
    pub fn untag(
        &mut self,
        store: &Store,
        name: &Reference,
        id: &ImageId,
        removed: &mut Vec<Removed>,
    ) -> Result<()> {
        let images = store.images_of(&name.canonical())?;
        if store.remove_name_of(&name.canonical(), id)? {
            removed.push(Removed::Untagged(name.familiar()));
            self.images.extend(images.into_iter().skip(1));
        }
        Ok(())
    }

    /// Removes the image itself, which lost its names before; if it has one again, somebody pulled or made it anew.
    pub fn delete(&mut self, store: &Store, id: &ImageId, removed: &mut Vec<Removed>) -> Result<()> {
        let layers = record(store, id)?.layers;
        if store.remove_unnamed_image(id)? {
            removed.push(Removed::Deleted(id.0.clone()));
            let chains = chain_ids(&layers);
            self.layers.extend(layers.into_iter().zip(chains).rev());
        }
        Ok(())
    }

    /// Removes the image itself, unless a container stands on it: one may have been made of it a moment ago.
    pub fn delete_unused(&mut self, store: &Store, id: &ImageId, removed: &mut Vec<Removed>) -> Result<()> {
        match self.delete(store, id, removed) {
            // Or somebody else removed it.
            Err(ImageError::Store(StoreError::ImageInUse { .. }) | ImageError::NotFound { .. }) => Ok(()),
            other => other,
        }
    }

    /// Collects what nothing needs any more; records of the build cache keep their layers. Answers what was freed.
    pub fn collect(mut self, store: &Store, keep_downloads: bool, removed: &mut Vec<Removed>) -> Result<u64> {
        for id in std::mem::take(&mut self.images) {
            if store.names_of(&id)?.is_empty() && store.other_names_of(&id)?.is_empty() {
                self.delete_unused(store, &id, removed)?;
            }
        }
        if keep_downloads && !removed.iter().any(|removed| matches!(removed, Removed::Deleted(_))) {
            return Ok(0);
        }
        let freed = store.gc(GcOptions { keep_cache: true, keep_downloads, ..GcOptions::default() })?;
        let mut told = std::collections::HashSet::new();
        for (diff_id, chain_id) in self.layers {
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
        // The digest of an index means all its images.
        let meant = match of_index(store, text)? {
            Some((_, images)) => {
                if let Err(error) = check_index(store, &images, force) {
                    removal.errors.push(error);
                    continue;
                }
                images.iter().map(ToString::to_string).collect()
            }
            None => vec![text.clone()],
        };
        for text in &meant {
            if let Err(error) = remove_one(store, text, force, &mut removal.removed, &mut leftovers) {
                removal.errors.push(error);
            }
        }
    }
    removal.reclaimed_bytes = leftovers.collect(store, true, &mut removal.removed)?;
    Ok(removal)
}

/// As [`remove`], but of a name that has images of several platforms only those of `platforms`.
pub fn remove_platforms(
    store: &Store,
    texts: &[String],
    platforms: &[Platform],
    force: bool,
) -> Result<Removal> {
    let mut removal = Removal::default();
    let mut leftovers = Leftovers::default();
    for text in texts {
        for platform in platforms {
            let removed = &mut removal.removed;
            if let Err(error) = remove_platform(store, text, platform, force, removed, &mut leftovers) {
                removal.errors.push(error);
            }
        }
    }
    removal.reclaimed_bytes = leftovers.collect(store, true, &mut removal.removed)?;
    Ok(removal)
}

fn remove_platform(
    store: &Store,
    text: &str,
    platform: &Platform,
    force: bool,
    removed: &mut Vec<Removed>,
    leftovers: &mut Leftovers,
) -> Result<()> {
    let id = resolve_platform(store, text, platform)?;
    let name = name_of(store, text)?.and_then(|name| Reference::parse(&name).ok());
    let Some(name) = name.filter(|name| store.images_of(&name.canonical()).is_ok_and(|of| of.len() > 1))
    else {
        return remove_one(store, text, force, removed, leftovers);
    };
    let user = user_of(store, &id)?;
    if let Some((container, running)) = &user
        && (*running || !force)
    {
        return Err(ImageError::UsedBy { id, container: container.clone(), running: *running });
    }
    // The digests of the same repository have it too; another repository keeps it.
    let mut names = names_of(store, &id)?;
    names.extend(parse(store.other_names_of(&id)?));
    for own in names.iter().filter(|own| own.name() == name.name()) {
        store.remove_image_of(&own.canonical(), &id)?;
    }
    let is_needed = !store.names_of(&id)?.is_empty() || !store.other_names_of(&id)?.is_empty();
    if is_needed || user.is_some() {
        return Ok(());
    }
    leftovers.delete(store, &id, removed)
}

/// Whether all images of an index may go: some of them without the others would be less than the index.
fn check_index(store: &Store, images: &[ImageId], force: bool) -> Result<()> {
    for id in images {
        if let Some((container, running)) = user_of(store, id)?
            && (running || !force)
        {
            return Err(ImageError::UsedBy { id: id.clone(), container, running });
        }
        let mut names = names_of(store, id)?;
        names.extend(parse(store.other_names_of(id)?));
        if !force && !is_single(&names) {
            return Err(ImageError::SeveralRepositories { id: id.clone() });
        }
    }
    Ok(())
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
    let named = name_of(store, text)?.filter(|_| !is_id_of(text, &id));
    if let Some(name) = named.and_then(|name| Reference::parse(&name).ok()) {
        for id in store.images_of(&name.canonical())?.into_iter().filter(|_| !force) {
            let mut names = names_of(store, &id)?;
            names.extend(parse(store.other_names_of(&id)?));
            if let (true, Some((container, _))) = (is_single(&names), user_of(store, &id)?) {
                return Err(ImageError::NameInUse { reference: text.to_owned(), id, container });
            }
        }
        leftovers.untag(store, &name, &id, removed)?;
        let left = names_of(store, &id)?;
        let (of_repository, others): (Vec<_>, Vec<_>) =
            left.into_iter().partition(|other| other.name() == name.name());
        // With the last tag go the digests under which the repository had it.
        let has_tag = of_repository.iter().any(|other| other.digest().is_none());
        if has_tag || name.digest().is_some() && !of_repository.is_empty() {
            return Ok(());
        }
        for digest in &of_repository {
            leftovers.untag(store, digest, &id, removed)?;
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
        leftovers.untag(store, name, &id, removed)?;
    }
    if user.is_some() {
        // A stopped container keeps the image itself alive, without a name.
        return Ok(());
    }
    leftovers.delete(store, &id, removed)
}

fn names_of(store: &Store, id: &ImageId) -> Result<Vec<Reference>> {
    Ok(parse(store.names_of(id)?))
}

fn parse(names: Vec<String>) -> Vec<Reference> {
    names.iter().filter_map(|name| Reference::parse(name).ok()).collect()
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
