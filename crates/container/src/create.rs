//! Making a container: its image, its settings, its volumes, its row in the store.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use mica_layer::verify::is_whole;
use mica_oci::{AnyReference, Digest, ImageConfig, ImageId, Reference};
use mica_store::{Container, ContainerRecord, ContainerState, ImageRecord, Starting, Store, StoreError};

use crate::error::{ContainerError, Result};
use crate::image_files;
use crate::settings::{RunOptions, Settings};
use crate::volume_mount::MountSource;

/// Configs are documents; a larger one is a mistake or an attack.
const CONFIG_BYTES_MAX: u64 = 8 << 20;
/// A younger cgroup may be one that is about to be used.
const CGROUP_AGE_MIN: std::time::Duration = std::time::Duration::from_secs(60);
/// How often another random name is tried.
const NAMES_MAX: u32 = 10;

/// An image of the store.
#[derive(Clone, Debug)]
pub struct FoundImage {
    /// What the store knows.
    pub record: ImageRecord,
    /// How to run it.
    pub config: ImageConfig,
}

/// A container with its settings.
#[derive(Clone, Debug)]
pub struct MadeContainer {
    /// As stored.
    pub container: Container,
    /// Its settings.
    pub settings: Settings,
    /// For one that is to be started at once: kept until it runs.
    pub starting: Option<Arc<Starting>>,
}

/// The image of that name, id, or beginning of an id.
pub fn find_image(store: &Store, text: &str) -> Result<FoundImage> {
    let missing = || ContainerError::ImageMissing { name: text.to_owned() };
    let id = find_image_id(store, text)?.ok_or_else(missing)?;
    let record = store.image(&id)?.ok_or_else(missing)?;
    let digest = Digest::parse(&id.to_string()).map_err(|_| missing())?;
    let bytes = store.read_blob(&digest, CONFIG_BYTES_MAX)?;
    let config = ImageConfig::parse(&bytes).map_err(|error| ContainerError::Document {
        what: format!("config of image {text}"),
        reason: error.to_string(),
    })?;
    Ok(FoundImage { record, config })
}

fn find_image_id(store: &Store, text: &str) -> Result<Option<ImageId>> {
    if let Ok(reference) = Reference::parse(text) {
        let found = match reference.digest() {
            Some(digest) => store.image_of_manifest(digest)?,
            None => store.name(&reference.with_default_tag().canonical())?,
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    if let Ok(AnyReference::Id(digest)) = AnyReference::parse(text) {
        if let Ok(id) = ImageId::parse(&digest.to_string())
            && store.image(&id)?.is_some()
        {
            return Ok(Some(id));
        }
        return Ok(store.image_of_manifest(&digest)?);
    }
    let mut ids = store.resolve_id_prefix(text)?;
    Ok(if ids.len() == 1 { ids.pop() } else { None })
}

/// The trees of an image's layers, topmost first.
pub fn image_layers(store: &Store, record: &ImageRecord) -> Result<Vec<PathBuf>> {
    let chains = mica_oci::chain_ids(&record.layers);
    let mut lowers = Vec::with_capacity(record.layers.len());
    for (diff_id, chain_id) in record.layers.iter().zip(&chains).rev() {
        let layer = store.whole_layer(diff_id, Some(chain_id), is_whole)?.ok_or_else(|| {
            ContainerError::LayerMissing { image: record.id.to_string(), diff_id: diff_id.to_string() }
        })?;
        lowers.push(layer.tree_path());
    }
    Ok(lowers)
}

/// Makes a container of `image`, which the user called `image_name`. Nothing of it runs yet.
pub fn create_container(
    store: &Store,
    image: &FoundImage,
    image_name: &str,
    options: &RunOptions,
) -> Result<MadeContainer> {
    let id = mica_store::random_container_id()?;
    let mut settings = Settings::decide(&id, &image.config.config, options, |name| std::env::var(name).ok())?;
    let mut anonymous = Vec::new();
    let made = prepare_mounts(store, image, &mut settings, &mut anonymous)
        .and_then(|volumes| insert(store, image, image_name, options, &settings, id, volumes));
    match made {
        Ok((container, starting)) => Ok(MadeContainer { container, settings, starting }),
        Err(error) => {
            for name in anonymous {
                let _ = store.remove_volume(&name);
            }
            Err(error)
        }
    }
}

fn insert(
    store: &Store,
    image: &FoundImage,
    image_name: &str,
    options: &RunOptions,
    settings: &Settings,
    id: String,
    volumes: Vec<String>,
) -> Result<(Container, Option<Arc<Starting>>)> {
    let create = |record: &ContainerRecord| match options.starts {
        true => {
            store.create_starting_container(record).map(|(made, starting)| (made, Some(Arc::new(starting))))
        }
        false => store.create_container(record).map(|made| (made, None)),
    };
    let mut record = ContainerRecord {
        id,
        name: options.name.clone().unwrap_or_default(),
        image: image.record.id.clone(),
        image_name: image_name.to_owned(),
        created_unix_ns: now_unix_ns(),
        config: settings.to_json(),
        state: ContainerState::Created,
        remove_on_exit: options.remove,
        volumes,
    };
    if options.name.is_some() {
        return Ok(create(&record)?);
    }
    for attempt in 0..NAMES_MAX {
        record.name = mica_store::random_name(attempt)?;
        match create(&record) {
            Err(StoreError::NameTaken { .. }) if attempt + 1 < NAMES_MAX => {}
            result => return Ok(result?),
        }
    }
    Err(StoreError::InvalidName { what: "container name", value: record.name }.into())
}

/// Makes paths absolute and volumes real; answers the names of all volumes.
fn prepare_mounts(
    store: &Store,
    image: &FoundImage,
    settings: &mut Settings,
    made_anonymous: &mut Vec<String>,
) -> Result<Vec<String>> {
    let mut volumes = Vec::new();
    for mount in &mut settings.mounts {
        match &mut mount.source {
            MountSource::Tmpfs { .. } => {}
            MountSource::Bind { path, create } => {
                let absolute = std::path::absolute(&*path)
                    .map_err(|error| mica_sys::Error::new("getcwd", &*path, error))?;
                if !absolute.exists() {
                    if !*create {
                        return Err(ContainerError::BindSourceMissing { path: absolute });
                    }
                    std::fs::create_dir_all(&absolute)
                        .map_err(|error| mica_sys::Error::new("mkdir", &absolute, error))?;
                }
                *path = absolute.to_string_lossy().into_owned();
            }
            MountSource::Volume { name, anonymous, copy } => {
                if *anonymous {
                    *name = mica_store::random_container_id()?;
                    made_anonymous.push(name.clone());
                }
                let (volume, is_new) = store.create_volume(name)?;
                // An empty one may be new from a container that was killed before it was filled.
                let is_empty =
                    || volume.data_path.read_dir().is_ok_and(|mut entries| entries.next().is_none());
                if *copy && (is_new || is_empty()) {
                    let lowers = image_layers(store, &image.record)?;
                    image_files::copy_directory(&lowers, &mount.target, &volume.data_path)?;
                }
                volumes.push(name.clone());
            }
        }
    }
    Ok(volumes)
}

/// Removes the volumes that were made for this container alone.
pub(crate) fn remove_anonymous_volumes(store: &Store, settings: &Settings) {
    for mount in &settings.mounts {
        if let MountSource::Volume { name, anonymous: true, .. } = &mount.source {
            // Another container may have taken it over by name.
            let _ = store.remove_volume(name);
        }
    }
}

/// The containers of these ids or names, or an error that names the first that is not there.
pub fn find_container(store: &Store, text: &str) -> Result<MadeContainer> {
    let container = store
        .container(text.strip_prefix('/').unwrap_or(text))?
        .ok_or_else(|| ContainerError::ContainerMissing { name: text.to_owned() })?;
    let settings = Settings::parse(&container.record.config)?;
    Ok(MadeContainer { container, settings, starting: None })
}

/// Tidies up after processes that died; to be called before anything is written. Cheap when there is nothing to do.
pub fn sweep(store: &Store, rootless: bool) -> Result<()> {
    let swept = store.sweep()?;
    if swept.containers > 0 {
        remove_orphaned_volumes(store)?;
    }
    mica_runtime::sweep_cgroups(CGROUP_AGE_MIN);
    if rootless {
        crate::network::sweep_networks(true, store.root())?;
    }
    Ok(())
}

/// Anonymous volumes are named by 64 hex digits; those that nobody uses were left by a removed container.
fn remove_orphaned_volumes(store: &Store) -> Result<()> {
    let users: HashMap<String, ()> = store
        .containers()?
        .into_iter()
        .flat_map(|container| container.record.volumes)
        .map(|name| (name, ()))
        .collect();
    for volume in store.volumes()? {
        let is_anonymous =
            volume.name.len() == 64 && volume.name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let age_s = now_unix_ns() / 1_000_000_000 - volume.created_unix_s;
        // A young one may belong to a container whose row is just being made.
        if is_anonymous && age_s > 60 && !users.contains_key(&volume.name) {
            let _ = store.remove_volume(&volume.name);
        }
    }
    Ok(())
}

pub(crate) fn now_unix_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}
