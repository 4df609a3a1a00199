//! Volumes and the directories of RUN cache mounts: trees that outlive what uses them.

use crate::error::{Result, StoreError};
use crate::store::Store;
use crate::trash::Trash;
use mica_oci::Digest;
use mica_sys::error::{Error, ErrorAt};
use mica_sys::lock::{Lock, Sharing};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// `private` mounts of one id that may be in use at once.
const PRIVATE_COUNT_MAX: usize = 1024;

/// A volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// Where its data is.
    pub data_path: PathBuf,
    /// Seconds since 1970.
    pub created_unix_s: i64,
}

/// How a RUN cache mount is shared between steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CacheMountSharing {
    /// Any number of steps at once.
    Shared,
    /// One step; others wait.
    Locked,
    /// One step; others get another directory.
    Private,
}

/// The directory of a RUN cache mount, in use until this is dropped.
#[derive(Debug)]
pub struct CacheMount {
    path: PathBuf,
    _lock: Lock,
}

impl CacheMount {
    /// The directory to mount.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Store {
    /// Makes a volume, or finds it; `true` if it is new.
    pub fn create_volume(&self, name: &str) -> Result<(Volume, bool)> {
        if !is_plain_name(name) {
            return Err(StoreError::InvalidName { what: "volume name", value: name.to_owned() });
        }
        let path = self.layout().volumes().join(name);
        make_directory(&path, 0o711)?;
        let is_new = make_directory(&path.join("_data"), 0o755)?;
        Ok((read_volume(&path, name)?, is_new))
    }

    /// The volume of that name.
    pub fn volume(&self, name: &str) -> Result<Option<Volume>> {
        let path = self.layout().volumes().join(name);
        if !is_plain_name(name) || !path.join("_data").is_dir() {
            return Ok(None);
        }
        read_volume(&path, name).map(Some)
    }

    /// All volumes, by name.
    pub fn volumes(&self) -> Result<Vec<Volume>> {
        let directory = self.layout().volumes();
        let mut volumes = Vec::new();
        for entry in std::fs::read_dir(&directory).at("readdir", &directory)? {
            let name = entry.at("readdir", &directory)?.file_name().to_string_lossy().into_owned();
            volumes.extend(self.volume(&name)?);
        }
        volumes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(volumes)
    }

    /// IDs of the containers that use a volume.
    pub fn volume_users(&self, name: &str) -> Result<Vec<String>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT container FROM container_volumes WHERE volume=?1")?;
            let users = statement.query_map([name], |row| row.get(0))?;
            Ok(users.collect::<rusqlite::Result<_>>()?)
        })
    }

    /// Removes a volume that no container uses.
    pub fn remove_volume(&self, name: &str) -> Result<()> {
        if self.volume(name)?.is_none() {
            return Err(StoreError::VolumeMissing(name.to_owned()));
        }
        let users = self.volume_users(name)?;
        if !users.is_empty() {
            return Err(StoreError::VolumeInUse { name: name.to_owned(), users });
        }
        let mut trash = Trash::new(self);
        let result = trash.take(&["volumes", name]);
        trash.end(result.map(|_| ()))
    }

    /// The directory of the RUN cache mount `id` (any text), made with `mode` if it is new.
    pub fn cache_mount(&self, id: &str, sharing: CacheMountSharing, mode: u32) -> Result<CacheMount> {
        // The id is the user's and may hold anything: its digest names the directory.
        let name = Digest::sha256(id.as_bytes()).hex().to_owned();
        let open = |name: &str| -> Result<PathBuf> {
            let path = self.layout().cache().join(name);
            make_directory(&path, mode)?;
            Ok(path)
        };
        // Collection may take a directory between its making and its locking.
        for _ in 0..100 {
            let path = open(&name)?;
            let lock = match sharing {
                CacheMountSharing::Shared => Lock::directory(&path, Sharing::Shared),
                CacheMountSharing::Locked => Lock::directory(&path, Sharing::Exclusive),
                CacheMountSharing::Private => return self.private_mount(&name, open),
            };
            match lock {
                Ok(lock) => return Ok(CacheMount { path, _lock: lock }),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new("flock", self.layout().cache().join(name), rustix::io::Errno::AGAIN).into())
    }

    fn private_mount(&self, name: &str, open: impl Fn(&str) -> Result<PathBuf>) -> Result<CacheMount> {
        for position in 0..PRIVATE_COUNT_MAX {
            let path = if position == 0 { open(name)? } else { open(&format!("{name}-{position}"))? };
            if let Some(lock) = Lock::try_directory(&path, Sharing::Exclusive)? {
                return Ok(CacheMount { path, _lock: lock });
            }
        }
        Err(Error::new("flock", self.layout().cache().join(name), rustix::io::Errno::AGAIN).into())
    }
}

/// `[a-zA-Z0-9][a-zA-Z0-9_.-]*`, as docker names containers and volumes; so never `.`, `..` or a path.
pub(crate) fn is_plain_name(name: &str) -> bool {
    name.len() <= 255
        && name.starts_with(|first: char| first.is_ascii_alphanumeric())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

fn make_directory(path: &Path, mode: u32) -> Result<bool> {
    match std::fs::DirBuilder::new().mode(mode).create(path) {
        Ok(()) => {
            // The umask must not decide what a container may do.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).at("chmod", path)?;
            Ok(true)
        }
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::new("mkdir", path, error).into()),
    }
}

fn read_volume(path: &Path, name: &str) -> Result<Volume> {
    // Nothing but the making changes the outer directory, so its time is the time it was made.
    let created_unix_s = std::fs::symlink_metadata(path).at("lstat", path)?.mtime();
    Ok(Volume { name: name.to_owned(), data_path: path.join("_data"), created_unix_s })
}
