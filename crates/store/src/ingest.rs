//! What is on its way in or out: every entry of `ingest/` is locked by the process that works on it.
//!
//! | name | what | when its process died |
//! |---|---|---|
//! | `layer-<random>/` | a layer being made: `tree/` and `index` | removed |
//! | `blob-<random>` | a blob being written | removed |
//! | `download-<alg>-<hex>` | a blob being downloaded | kept for the next try: removed by collection, or after a week |
//! | `cache-<random>/` | a RUN cache mount being filled | removed |
//! | `container-<random>/` | a container directory being filled | removed |
//! | `lease-<random>` | a lease | ended |
//! | `trash-<random>/` | what is being removed | put back if the database still wants it, else removed |

use crate::error::Result;
use crate::remove_tree::remove_tree;
use crate::store::Store;
use mica_sys::atomic_file::random_hex;
use mica_sys::error::{Error, ErrorAt};
use mica_sys::lock::{Lock, Sharing};
use rustix::io::Errno;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// A layer being made in a directory of its own. Dropping it throws the layer away.
#[derive(Debug)]
pub struct Ingest {
    path: PathBuf,
    /// On the directory itself, so it moves along with it.
    _lock: Lock,
    keep: bool,
}

impl Store {
    /// A fresh directory for a layer to be made in, with an empty `tree/` of mode 0755.
    pub fn ingest(&self) -> Result<Ingest> {
        let ingest = self.locked_directory("layer")?;
        let tree = ingest.tree();
        std::fs::DirBuilder::new().mode(0o755).create(&tree).at("mkdir", &tree)?;
        // Again, as the umask may have taken bits from it.
        std::fs::set_permissions(&tree, std::fs::Permissions::from_mode(0o755)).at("chmod", &tree)?;
        Ok(ingest)
    }

    /// A fresh locked directory `ingest/<kind>-<random>`.
    pub(crate) fn locked_directory(&self, kind: &str) -> Result<Ingest> {
        // A sweeper may take the directory between its making and its locking; then another is made.
        for _ in 0..100 {
            let path = self.layout().ingest().join(format!("{kind}-{}", random_hex(8)?));
            mica_sys::fail_point!("store.ingest.mkdir")?;
            std::fs::DirBuilder::new().mode(0o700).create(&path).at("mkdir", &path)?;
            match Lock::directory(&path, Sharing::Exclusive) {
                Ok(lock) => return Ok(Ingest { path, _lock: lock, keep: false }),
                Err(error) if error.raw_os_error() == Some(Errno::NOENT.raw_os_error()) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new("mkdir", self.layout().ingest(), Errno::AGAIN).into())
    }
}

impl Ingest {
    /// The directory, on the filesystem of the store.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where the tree goes.
    pub fn tree(&self) -> PathBuf {
        self.path.join("tree")
    }

    /// Where the index goes.
    pub fn index(&self) -> PathBuf {
        self.path.join("index")
    }

    /// Lets go of the directory without removing it.
    pub(crate) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Gone if it was committed. What cannot be removed now is swept once the lock is released.
        if !self.keep {
            let _ = remove_tree(&self.path);
        }
    }
}
