//! Volumes and the directories of RUN cache mounts: trees that outlive what uses them.

use crate::error::{Result, StoreError};
use crate::ingest::Ingest;
use crate::store::Store;
use crate::trash::Trash;
use mica_oci::Digest;
use mica_sys::error::{Error, ErrorAt};
use mica_sys::lock::{Lock, Sharing};
use rustix::io::Errno;
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
    /// One step; others have to wait.
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

    /// The directory of the RUN cache mount `id` (any text); `None` while somebody else has it who does not share it.
    ///
    /// One that is not there yet is made by `begin`: it is given an empty directory to make another one in, whose place it
    /// answers, and which is seen by others when it is whole.
    pub fn try_cache_mount<E: From<StoreError>>(
        &self,
        id: &str,
        sharing: CacheMountSharing,
        begin: &dyn Fn(&Path) -> std::result::Result<PathBuf, E>,
    ) -> std::result::Result<Option<CacheMount>, E> {
        // The id is the user's and may hold anything: its digest names the directory.
        let name = Digest::sha256(id.as_bytes()).hex().to_owned();
        match sharing {
            CacheMountSharing::Shared => self.lock_cache(&name, Sharing::Shared, begin),
            CacheMountSharing::Locked => self.lock_cache(&name, Sharing::Exclusive, begin),
            CacheMountSharing::Private => {
                for position in 0..PRIVATE_COUNT_MAX {
                    let other = format!("{name}-{position}");
                    let name = if position == 0 { &name } else { &other };
                    if let Some(mount) = self.lock_cache(name, Sharing::Exclusive, begin)? {
                        return Ok(Some(mount));
                    }
                }
                Ok(None)
            }
        }
    }

    /// The directory of the RUN cache mount `id` as it is, to be read; `None` if it is not there, or a step has it for itself.
    pub fn existing_cache_mount(&self, id: &str) -> Result<Option<CacheMount>> {
        let path = self.cache_mount_path(id);
        let lock = Lock::try_directory(&path, Sharing::Shared)?;
        Ok(lock.map(|lock| CacheMount { path, _lock: lock }))
    }

    /// Whether the RUN cache mount `id` has nothing in it, or was never used.
    pub fn is_cache_mount_empty(&self, id: &str) -> Result<bool> {
        let path = self.cache_mount_path(id);
        match std::fs::read_dir(&path) {
            Ok(mut entries) => Ok(entries.next().is_none()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(true),
            Err(error) => Err(Error::new("readdir", &path, error).into()),
        }
    }

    /// Makes the tree of `ingest` the directory of the RUN cache mount `id`, in one step, unless something is in it or a
    /// step has it; then the tree is thrown away. Whether it was taken.
    pub fn fill_cache_mount(&self, id: &str, ingest: &Ingest) -> Result<bool> {
        use rustix::fs::{CWD, RenameFlags, rename, renameat_with};
        let (tree, path) = (ingest.tree(), self.cache_mount_path(id));
        mica_sys::fail_point!("store.cache_mount.fill")?;
        let renamed = match Lock::try_directory(&path, Sharing::Exclusive)? {
            // The kernel replaces a directory that is empty, and no other. Who waits for the lock looks again.
            Some(_lock) => rename(&tree, &path),
            // Held, or not there.
            None => renameat_with(CWD, &tree, CWD, &path, RenameFlags::NOREPLACE),
        };
        match renamed {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(Error::new("rename", &path, error).into()),
        }
    }

    /// The id is the user's and may hold anything: its digest names the directory.
    fn cache_mount_path(&self, id: &str) -> PathBuf {
        self.layout().cache().join(Digest::sha256(id.as_bytes()).hex())
    }

    fn lock_cache<E: From<StoreError>>(
        &self,
        name: &str,
        sharing: Sharing,
        begin: &dyn Fn(&Path) -> std::result::Result<PathBuf, E>,
    ) -> std::result::Result<Option<CacheMount>, E> {
        let path = self.layout().cache().join(name);
        // Collection may take a directory between its making and its locking.
        for _ in 0..100 {
            if !path.is_dir() {
                let ingest = self.locked_directory("cache")?;
                put_in_place(&begin(ingest.path())?, &path)?;
            }
            match Lock::try_directory(&path, sharing) {
                Ok(Some(lock)) => return Ok(Some(CacheMount { path, _lock: lock })),
                Ok(None) => return Ok(None),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(StoreError::from(error).into()),
            }
        }
        Err(StoreError::from(Error::new("flock", path, rustix::io::Errno::AGAIN)).into())
    }
}

/// Somebody else may have been faster: then theirs is the one.
fn put_in_place(made: &Path, place: &Path) -> Result<()> {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    mica_sys::fail_point!("store.cache_mount.rename")?;
    match renameat_with(CWD, made, CWD, place, RenameFlags::NOREPLACE) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
        Err(error) => Err(Error::new("renameat2", place, error).into()),
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
