//! Tidies up after processes that died. Called at the start of every command that writes.

use crate::container::STARTING_FILE;
use crate::download;
use crate::error::Result;
use crate::remove_tree::remove_tree;
use crate::store::Store;
use mica_sys::error::ErrorAt;
use mica_sys::lock::{self, Lock, Probe};

/// What dead processes had left.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Layers and containers that were being made, blobs that were being written.
    pub ingests: u64,
    /// Removals that were not finished.
    pub removals: u64,
    /// Leases.
    pub leases: u64,
    /// Containers to be removed on exit whose monitor died.
    pub containers: u64,
    /// What could not be removed now (still mounted, or owned by ids this process may not touch); the next sweep
    /// tries again.
    pub failed: u64,
}

impl Store {
    /// Removes what dead processes left. With nothing to do it costs one readdir and one indexed question.
    pub fn sweep(&self) -> Result<Swept> {
        let mut swept = self.sweep_ingest()?;
        let candidates: Vec<(String, bool)> = self.read(|connection| {
            let mut statement = connection
                .prepare_cached("SELECT id, state = '\"created\"' FROM containers WHERE remove_on_exit")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
            Ok(rows.collect::<rusqlite::Result<_>>()?)
        })?;
        for (id, is_created) in candidates {
            let directory = self.layout().containers().join(&id);
            if lock::is_held(directory.join("lock"))? || (is_created && !is_abandoned(&directory)?) {
                continue;
            }
            match self.remove_container(&id) {
                Ok(()) => swept.containers += 1,
                // Another sweeper was faster.
                Err(crate::StoreError::ContainerMissing(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(swept)
    }

    fn sweep_ingest(&self) -> Result<Swept> {
        let mut swept = Swept::default();
        let directory = self.layout().ingest();
        for entry in std::fs::read_dir(&directory).at("readdir", &directory)? {
            let entry = entry.at("readdir", &directory)?;
            let path = entry.path();
            let name = entry.file_name();
            let is_download = name.as_encoded_bytes().starts_with(download::PREFIX.as_bytes());
            // Not even locked for the look: whoever wants to go on with it shall not have to wait.
            if is_download && download::is_kept(&path) {
                continue;
            }
            let _lock: Lock = match Lock::probe(&path)? {
                Probe::Taken(lock) => lock,
                Probe::Held | Probe::Gone => continue,
            };
            mica_sys::fail_point!("store.sweep.remove")?;
            if is_download && download::is_kept(&path) {
                // Somebody went on with it and let go of it between our looks.
                continue;
            }
            if name.as_encoded_bytes().starts_with(b"trash-") {
                match self.end_trash(&path) {
                    Ok(()) => swept.removals += 1,
                    Err(_) => swept.failed += 1,
                }
            } else if remove_tree(&path).is_err() {
                // One stubborn leftover must not keep every later command from working.
                swept.failed += 1;
            } else if name.as_encoded_bytes().starts_with(b"lease-") {
                swept.leases += 1;
            } else {
                swept.ingests += 1;
            }
        }
        Ok(swept)
    }
}

/// Whether a container that never ran was to be started by somebody who is gone. One that was made to be started later
/// is as it should be.
fn is_abandoned(directory: &std::path::Path) -> Result<bool> {
    Ok(directory.join(STARTING_FILE).exists() && !lock::is_held(directory)?)
}
