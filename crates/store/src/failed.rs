//! What the last failed steps left: the directory that a step wrote to, with what is needed to look at it again.
//!
//! Few are kept: one a build context, and the newest ones only. Their rows keep the layers that they stand on. A state in use
//! (its directory is locked) stays until it is not.

use crate::codec;
use crate::error::{Result, StoreError};
use crate::ingest::Ingest;
use crate::store::{Store, now_unix_seconds};
use crate::trash::Trash;
use mica_oci::{ChainId, DiffId};
use mica_sys::atomic_file::random_hex;
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Probe, Sharing};
use rusqlite::{Connection, params};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// States that are kept at once: each may be as large as a layer.
pub const FAILED_STEPS_MAX: usize = 4;

/// A description is a few pages of text: environment, command, mounts.
pub const FAILED_DESCRIPTION_BYTES_MAX: usize = 4 << 20;

/// What a failed step left.
#[derive(Debug)]
pub struct FailedStep {
    /// Twelve hex digits.
    pub id: String,
    /// Which builds it is one of: that of the next one takes its place.
    pub context: String,
    /// Seconds since 1970.
    pub created_unix_s: i64,
    /// What the build says of it.
    pub description: Vec<u8>,
    directory: PathBuf,
}

impl FailedStep {
    /// What the step had written, an overlay's upper directory.
    pub fn tree(&self) -> PathBuf {
        self.directory.join("tree")
    }

    /// Keeps it from being removed for as long as the lock lives; `None` if it is gone.
    pub fn hold(&self) -> Result<Option<Lock>> {
        match Lock::directory(&self.directory, Sharing::Shared) {
            Ok(lock) => Ok(Some(lock)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

impl Store {
    /// Keeps what a step left in `ingest`, in place of an older state of the same context, and answers its id.
    pub fn keep_failed_step(
        &self,
        ingest: Ingest,
        context: &str,
        description: &[u8],
        layers: &[(DiffId, Option<ChainId>)],
    ) -> Result<String> {
        if description.len() > FAILED_DESCRIPTION_BYTES_MAX {
            return Err(StoreError::RecordTooLarge {
                what: "description of a failed step",
                size_bytes: description.len() as u64,
                size_bytes_max: FAILED_DESCRIPTION_BYTES_MAX as u64,
            });
        }
        let (id, directory) = (random_hex(6)?, self.failed_directory()?);
        let place = directory.join(&id);
        let mut trash = Trash::new(self);
        let result = self.write(|transaction| {
            let newer = FAILED_STEPS_MAX - 1;
            let old: Vec<String> = transaction
                .prepare(
                    "SELECT id FROM failed_steps WHERE context=?1 OR id NOT IN
                        (SELECT id FROM failed_steps ORDER BY created DESC, rowid DESC LIMIT ?2)",
                )?
                .query_map(params![context, newer as i64], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for id in old {
                drop_failed(transaction, &directory, &id, &mut trash)?;
            }
            transaction.execute(
                "INSERT INTO failed_steps(id, context, created, description) VALUES(?1,?2,?3,?4)",
                params![id, context, now_unix_seconds(), description],
            )?;
            let mut insert = transaction
                .prepare("INSERT OR IGNORE INTO failed_layers(failed, diff_id, chain_id) VALUES(?1,?2,?3)")?;
            for (diff_id, chain_id) in layers {
                insert.execute(params![id, diff_id.to_string(), codec::text_or_empty(chain_id.as_ref())])?;
            }
            mica_sys::fail_point!("store.failed.rename")?;
            rustix::fs::rename(ingest.path(), &place).at("rename", &place)?;
            Ok(())
        });
        if result.is_err() {
            // Nothing may stand there without its row; if this fails too, gc removes it.
            let _ = rustix::fs::rename(&place, ingest.path());
        }
        trash.end(result)?;
        Ok(id)
    }

    /// What failed steps left, the newest first.
    pub fn failed_steps(&self) -> Result<Vec<FailedStep>> {
        let directory = self.layout().failed();
        self.read(|connection| {
            let mut statement = connection.prepare_cached(
                "SELECT id, context, created, description FROM failed_steps ORDER BY created DESC, rowid DESC",
            )?;
            let rows = statement.query_map([], |row| {
                let id: String = row.get(0)?;
                let directory = directory.join(&id);
                Ok(FailedStep {
                    id,
                    context: row.get(1)?,
                    created_unix_s: row.get(2)?,
                    description: row.get(3)?,
                    directory,
                })
            })?;
            let steps: Vec<FailedStep> = rows.collect::<rusqlite::Result<_>>()?;
            // A power cut may have left the row alone.
            Ok(steps.into_iter().filter(|step| step.tree().is_dir()).collect())
        })
    }

    /// Forgets what a failed build of that context left; a later one succeeded.
    pub fn forget_failed_steps(&self, context: &str) -> Result<()> {
        // Most builds follow one that succeeded: a question is cheaper than a turn at writing.
        let is_known = self.failed_steps()?.iter().any(|step| step.context == context);
        if !is_known {
            return Ok(());
        }
        self.drop_failed_steps(|step| step.context == context).map(drop)
    }

    /// Removes those that are meant and not in use; answers how many, and what they took.
    pub(crate) fn drop_failed_steps(&self, is_meant: impl Fn(&FailedStep) -> bool) -> Result<(u64, u64)> {
        let directory = self.layout().failed();
        let (mut count, mut bytes) = (0, 0);
        let mut trash = Trash::new(self);
        let steps = self.failed_steps()?;
        let result = self.write(|transaction| {
            for step in steps.iter().filter(|step| is_meant(step)) {
                let size_bytes = crate::usage::tree_size_bytes(&step.directory)?;
                if drop_failed(transaction, &directory, &step.id, &mut trash)? {
                    count += 1;
                    bytes += size_bytes;
                }
            }
            Ok(())
        });
        trash.end(result)?;
        Ok((count, bytes))
    }

    fn failed_directory(&self) -> Result<PathBuf> {
        let path = self.layout().failed();
        // A store of an older version has none.
        match std::fs::DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
                Err(mica_sys::Error::new("mkdir", path, error).into())
            }
            _ => Ok(path),
        }
    }
}

/// Takes one away unless somebody looks at it.
fn drop_failed(connection: &Connection, directory: &Path, id: &str, trash: &mut Trash) -> Result<bool> {
    let _unused = match Lock::probe(directory.join(id))? {
        Probe::Held => return Ok(false),
        Probe::Taken(lock) => Some(lock),
        Probe::Gone => None,
    };
    connection.execute("DELETE FROM failed_steps WHERE id=?1", [id])?;
    trash.take(&["failed", id])
}
