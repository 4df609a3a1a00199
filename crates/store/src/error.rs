//! The ways the store can fail, as facts; the command line turns them into hints.

use mica_oci::{DiffId, Digest, ImageId};
use std::path::{Path, PathBuf};

/// Result of a call of this room.
pub type Result<T> = std::result::Result<T, StoreError>;

/// A way the store can fail.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The disk or the user's quota is full. What was committed before is untouched; what was being written is
    /// thrown away.
    #[error("no space left for `{path}`; nothing that was stored before is lost")]
    DiskFull {
        /// What was being written.
        path: PathBuf,
    },
    /// The kernel refused access.
    #[error("permission denied: {call} `{path}`")]
    Permission {
        /// The call that was refused.
        call: &'static str,
        /// What it was made on.
        path: PathBuf,
    },
    /// A Linux call failed for another reason.
    #[error(transparent)]
    Io(mica_sys::Error),
    /// The store was written by a newer mica.
    #[error("the store `{path}` has format {found}, this mica knows formats up to {supported}")]
    FormatTooNew {
        /// The root of the store.
        path: PathBuf,
        /// The version found there.
        found: u64,
        /// The newest version this build reads.
        supported: u64,
    },
    /// The directory holds something else.
    #[error("`{path}` is not a store: it holds `{found}`")]
    NotAStore {
        /// The directory asked for.
        path: PathBuf,
        /// A name in it that no store has.
        found: String,
    },
    /// Something in the store is not what was written there.
    #[error("the store is damaged: `{path}`: {reason}")]
    Corrupt {
        /// The damaged file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Other processes held the database for the whole waiting time.
    #[error("the database `{path}` is held by another process")]
    Busy {
        /// The database.
        path: PathBuf,
    },
    /// The database answered something else.
    #[error("database `{path}`: {source}")]
    Database {
        /// The database.
        path: PathBuf,
        /// Its answer.
        source: rusqlite::Error,
    },
    /// Bytes are not what their digest says.
    #[error("digest mismatch: expected `{expected}`, got `{actual}`")]
    DigestMismatch {
        /// The digest asked for.
        expected: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
    /// A blob is not in the store.
    #[error("blob `{0}` is not in the store")]
    BlobMissing(Digest),
    /// A blob is larger than the caller allows.
    #[error("blob `{digest}` has {size_bytes} bytes, more than the {size_bytes_max} allowed")]
    BlobTooLarge {
        /// The blob.
        digest: Digest,
        /// Its size.
        size_bytes: u64,
        /// The size allowed.
        size_bytes_max: u64,
    },
    /// An image or record names a layer that is not in the store.
    #[error("layer `{0}` is not in the store")]
    LayerMissing(DiffId),
    /// An ingest was committed without its tree or index.
    #[error("incomplete ingest: `{path}` is missing")]
    IngestIncomplete {
        /// What is missing.
        path: PathBuf,
    },
    /// An image is not in the store.
    #[error("image `{0}` is not in the store")]
    ImageMissing(ImageId),
    /// A record is larger than is kept.
    #[error("{what} take {size_bytes} bytes, more than the {size_bytes_max} that are kept")]
    RecordTooLarge {
        /// What is too large.
        what: &'static str,
        /// Its size.
        size_bytes: u64,
        /// The size allowed.
        size_bytes_max: u64,
    },
    /// Containers stand on the image.
    #[error("image `{id}` is used by {} container(s), the first is `{}`", users.len(), users.first().map_or("", String::as_str))]
    ImageInUse {
        /// The image.
        id: ImageId,
        /// IDs of the containers.
        users: Vec<String>,
    },
    /// Another container has the name.
    #[error("the container name `{name}` is in use by container `{by}`")]
    NameTaken {
        /// The name asked for.
        name: String,
        /// ID of the container that has it.
        by: String,
    },
    /// No container has that id or name.
    #[error("no such container: `{0}`")]
    ContainerMissing(String),
    /// The container is running.
    #[error("container `{0}` is running")]
    ContainerRunning(String),
    /// A prefix fits more than one id.
    #[error("`{prefix}` is ambiguous: {} ids begin with it", ids.len())]
    Ambiguous {
        /// What was asked for.
        prefix: String,
        /// Ids that begin with it.
        ids: Vec<String>,
    },
    /// A string cannot be the id or name of such a thing.
    #[error("invalid {what}: `{value}`")]
    InvalidName {
        /// What it should have named.
        what: &'static str,
        /// What was given.
        value: String,
    },
    /// No volume has that name.
    #[error("no such volume: `{0}`")]
    VolumeMissing(String),
    /// Containers use the volume.
    #[error("volume `{name}` is used by {} container(s)", users.len())]
    VolumeInUse {
        /// The volume.
        name: String,
        /// IDs of the containers.
        users: Vec<String>,
    },
}

impl StoreError {
    /// Fills in where the database is; what comes from a statement does not know.
    pub(crate) fn in_database(self, path: &Path) -> Self {
        match self {
            Self::Database { source, .. } => {
                use rusqlite::ErrorCode as Code;
                let path = path.to_path_buf();
                match source.sqlite_error_code() {
                    Some(Code::DiskFull) => Self::DiskFull { path },
                    // A full disk shows as a failed write when the shared-memory file cannot grow.
                    Some(Code::SystemIoFailure) if is_full(&path) => Self::DiskFull { path },
                    Some(Code::CannotOpen | Code::PermissionDenied | Code::ReadOnly) => {
                        Self::Permission { call: "open", path }
                    }
                    Some(Code::DatabaseCorrupt | Code::NotADatabase) => {
                        Self::Corrupt { path, reason: source.to_string() }
                    }
                    Some(Code::DatabaseBusy | Code::DatabaseLocked) => Self::Busy { path },
                    _ => Self::Database { path, source },
                }
            }
            other => other,
        }
    }
}

fn is_full(path: &Path) -> bool {
    path.parent().and_then(|parent| rustix::fs::statvfs(parent).ok()).is_some_and(|stat| stat.f_bavail == 0)
}

impl From<rusqlite::Error> for StoreError {
    fn from(source: rusqlite::Error) -> Self {
        Self::Database { path: PathBuf::new(), source }
    }
}

impl From<mica_sys::Error> for StoreError {
    fn from(error: mica_sys::Error) -> Self {
        use rustix::io::Errno;
        let errno = error.raw_os_error().map(Errno::from_raw_os_error);
        match errno {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::DiskFull { path: error.path },
            Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => {
                Self::Permission { call: error.call, path: error.path }
            }
            _ => Self::Io(error),
        }
    }
}
