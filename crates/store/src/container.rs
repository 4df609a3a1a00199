//! Containers: a row, a directory, and a lock that a living monitor holds.
//!
//! `containers/<id>/lock` is held by the monitor for as long as the container runs, so "running" needs no pid
//! check: a row that says so while nobody holds the lock is a container whose monitor was killed.

use crate::codec;
use crate::error::{Result, StoreError};
use crate::ingest::Ingest;
use crate::store::Store;
use crate::trash::Trash;
use mica_oci::ImageId;
use mica_sys::atomic_file::{self, Durability, random_hex};
use mica_sys::error::ErrorAt;
use mica_sys::lock::{self, Lock, Sharing};
use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// What a process killed by SIGKILL exits with, as shells and docker count.
const CODE_KILLED: i32 = 137;

/// What is known of a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerRecord {
    /// 64 hex digits, see [`random_container_id`].
    pub id: String,
    /// Unique name.
    pub name: String,
    /// The image it stands on.
    pub image: ImageId,
    /// The image as the user called it.
    pub image_name: String,
    /// Nanoseconds since 1970.
    pub created_unix_ns: i64,
    /// Content of `config.json`.
    pub config: Vec<u8>,
    /// How far it got.
    pub state: ContainerState,
    /// Removed when it ends; by the next sweep, if its monitor died.
    pub remove_on_exit: bool,
    /// Names of the volumes it uses.
    pub volumes: Vec<String>,
}

/// How far a container got.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ContainerState {
    /// Never started.
    Created,
    /// Its first process runs.
    Running {
        /// That process.
        pid: i32,
        /// Nanoseconds since 1970.
        started_unix_ns: i64,
    },
    /// As running, but frozen.
    Paused {
        /// Its first process.
        pid: i32,
        /// Nanoseconds since 1970.
        started_unix_ns: i64,
    },
    /// It ended.
    Exited {
        /// Exit code, 128 and the signal for a killed one.
        code: i32,
        /// Nanoseconds since 1970; unknown if it was started by an older state.
        started_unix_ns: Option<i64>,
        /// Nanoseconds since 1970; unknown if nobody was alive to see it.
        finished_unix_ns: Option<i64>,
        /// The kernel killed it for memory.
        is_out_of_memory: bool,
    },
}

impl ContainerState {
    /// Whether a monitor should be alive.
    pub fn is_live(&self) -> bool {
        matches!(self, Self::Running { .. } | Self::Paused { .. })
    }
}

/// A container as found: its state is already corrected if its monitor died.
#[derive(Clone, Debug)]
pub struct Container {
    /// What is known of it.
    pub record: ContainerRecord,
    directory: PathBuf,
}

impl Container {
    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.directory
    }

    /// The file its monitor holds locked.
    pub fn lock_path(&self) -> PathBuf {
        self.directory.join("lock")
    }
}

/// A new container id: 64 hex digits.
pub fn random_container_id() -> Result<String> {
    Ok(random_hex(32)?)
}

/// In the directory of a container that was made to be started at once.
pub(crate) const STARTING_FILE: &str = "starting";

/// Held by whoever makes a container and starts it at once, until it runs.
#[derive(Debug)]
pub struct Starting {
    /// The lock on the container's directory, taken before anybody could see it.
    _directory: Ingest,
}

impl Store {
    /// Makes a container with its directory, empty but for `config.json`.
    pub fn create_container(&self, record: &ContainerRecord) -> Result<Container> {
        Ok(self.insert_container(record, false)?.0)
    }

    /// As [`Store::create_container`], for a container that its maker starts at once: if the maker dies before, and the
    /// container was to be removed on exit, the next sweep removes it. Keep what is returned until it runs.
    pub fn create_starting_container(&self, record: &ContainerRecord) -> Result<(Container, Starting)> {
        let (container, ingest) = self.insert_container(record, true)?;
        Ok((container, Starting { _directory: ingest }))
    }

    fn insert_container(&self, record: &ContainerRecord, starting: bool) -> Result<(Container, Ingest)> {
        check_id(&record.id)?;
        check_name(&record.name)?;
        let state = encode(&record.state)?;
        let ingest = self.locked_directory("container")?;
        let config = ingest.path().join("config.json");
        atomic_file::write(config, &record.config, 0o600, Durability::Kill)?;
        if starting {
            let path = ingest.path().join(STARTING_FILE);
            std::fs::File::create(&path).at("open", &path)?;
        }
        let place = self.layout().containers().join(&record.id);
        let mut trash = Trash::new(self);
        let result = self.write(|transaction| {
            let by: Option<String> = transaction
                .query_row("SELECT id FROM containers WHERE name=?1 OR id=?2", [&record.name, &record.id], |row| {
                    row.get(0)
                })
                .optional()?;
            if let Some(by) = by {
                return Err(StoreError::NameTaken { name: record.name.clone(), by });
            }
            let image = record.image.to_string();
            let known = transaction.query_row("SELECT 1 FROM images WHERE id=?1", [&image], |_| Ok(()));
            if known.optional()?.is_none() {
                return Err(StoreError::ImageMissing(record.image.clone()));
            }
            transaction
                .prepare_cached(
                    "INSERT INTO containers(id, name, image, image_name, created_unix_ns, state, remove_on_exit)
                     VALUES(?1,?2,?3,?4,?5,?6,?7)",
                )?
                .execute(params![
                    record.id,
                    record.name,
                    image,
                    record.image_name,
                    record.created_unix_ns,
                    state,
                    record.remove_on_exit
                ])?;
            for volume in &record.volumes {
                transaction
                    .prepare_cached("INSERT OR IGNORE INTO container_volumes(container, volume) VALUES(?1,?2)")?
                    .execute([&record.id, volume])?;
            }
            // Left by a kill between rename and commit: it has no row.
            trash.take(&["containers", &record.id])?;
            // Last: what can still fail after it is the commit alone, and gc removes what that leaves.
            mica_sys::fail_point!("store.container.rename")?;
            rustix::fs::rename(ingest.path(), &place).at("rename", &place)?;
            mica_sys::fail_point!("store.container.commit")?;
            Ok(())
        });
        trash.end(result)?;
        Ok((Container { record: record.clone(), directory: place }, ingest))
    }

    /// All containers, the newest first.
    pub fn containers(&self) -> Result<Vec<Container>> {
        let records = self.read(|connection| {
            let mut statement = connection
                .prepare_cached(&format!("SELECT {COLUMNS} FROM containers ORDER BY sequence DESC"))?;
            let mut rows = statement.query([])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push(from_row(connection, row)?);
            }
            Ok(records)
        })?;
        records.into_iter().map(|record| self.inspect(record)).collect()
    }

    /// The container of that id, name, or unambiguous beginning of an id.
    pub fn container(&self, id_or_name: &str) -> Result<Option<Container>> {
        let record = self.read(|connection| match resolve(connection, id_or_name)? {
            Some(id) => find(connection, &id),
            None => Ok(None),
        })?;
        record.map(|record| self.inspect(record)).transpose()
    }

    /// Keeps a new state.
    pub fn update_state(&self, id: &str, state: &ContainerState) -> Result<()> {
        let state = encode(state)?;
        let changed = self.write(|transaction| {
            Ok(transaction
                .prepare_cached("UPDATE containers SET state=?2 WHERE id=?1")?
                .execute([id, &state])?)
        })?;
        if changed == 0 { Err(StoreError::ContainerMissing(id.to_owned())) } else { Ok(()) }
    }

    /// Gives a container another name.
    pub fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        check_name(name)?;
        self.write(|transaction| {
            let by: Option<String> = transaction
                .query_row("SELECT id FROM containers WHERE name=?1 AND id!=?2", [name, id], |row| row.get(0))
                .optional()?;
            if let Some(by) = by {
                return Err(StoreError::NameTaken { name: name.to_owned(), by });
            }
            match transaction.execute("UPDATE containers SET name=?2 WHERE id=?1", [id, name])? {
                0 => Err(StoreError::ContainerMissing(id.to_owned())),
                _ => Ok(()),
            }
        })
    }

    /// Takes the lock that says the container's monitor is alive; take it before the state says "running".
    pub fn hold_container(&self, id: &str) -> Result<Lock> {
        check_id(id)?;
        let directory = self.layout().containers().join(id);
        if !directory.is_dir() {
            return Err(StoreError::ContainerMissing(id.to_owned()));
        }
        // Waiting, because a look at it takes the lock for a moment.
        Ok(Lock::file(directory.join("lock"), Sharing::Exclusive)?)
    }

    /// Removes a container and its directory; its monitor must have ended.
    pub fn remove_container(&self, id: &str) -> Result<()> {
        check_id(id)?;
        if lock::is_held(self.layout().containers().join(id).join("lock"))? {
            return Err(StoreError::ContainerRunning(id.to_owned()));
        }
        self.discard_container(id)
    }

    /// As [`Store::remove_container`], for a monitor that holds the lock itself and is done.
    pub fn discard_container(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let mut trash = Trash::new(self);
        let result = self.write(|transaction| {
            if transaction.execute("DELETE FROM containers WHERE id=?1", [id])? == 0 {
                return Err(StoreError::ContainerMissing(id.to_owned()));
            }
            trash.take(&["containers", id])?;
            mica_sys::fail_point!("store.container.removed")?;
            Ok(())
        });
        trash.end(result)
    }

    /// Adds what only the directory knows: the config, and whether the monitor is alive.
    fn inspect(&self, mut record: ContainerRecord) -> Result<Container> {
        let directory = self.layout().containers().join(&record.id);
        let config = directory.join("config.json");
        record.config = match std::fs::read(&config) {
            Ok(bytes) => bytes,
            // Removed by another process since the row was read: told as it was, without its config.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(mica_sys::Error::new("open", &config, error).into()),
        };
        if let ContainerState::Running { started_unix_ns, .. }
        | ContainerState::Paused { started_unix_ns, .. } = record.state
            && !lock::is_held(directory.join("lock"))?
        {
            // The monitor may have ended properly between the two looks: the row then says how.
            let again = self.read(|connection| find(connection, &record.id))?;
            record.state = match again {
                Some(again) if !again.state.is_live() => again.state,
                _ => ContainerState::Exited {
                    code: CODE_KILLED,
                    started_unix_ns: Some(started_unix_ns),
                    finished_unix_ns: None,
                    is_out_of_memory: false,
                },
            };
        }
        Ok(Container { record, directory })
    }
}

const COLUMNS: &str = "id, name, image, image_name, created_unix_ns, state, remove_on_exit";

fn from_row(connection: &Connection, row: &Row<'_>) -> Result<ContainerRecord> {
    let id: String = row.get(0)?;
    let mut statement = connection
        .prepare_cached("SELECT volume FROM container_volumes WHERE container=?1 ORDER BY volume")?;
    let volumes = statement.query_map([&id], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    let state: String = row.get(5)?;
    Ok(ContainerRecord {
        name: row.get(1)?,
        image: codec::parse(row.get_ref(2)?.as_str().unwrap_or(""), "image ID")?,
        image_name: row.get(3)?,
        created_unix_ns: row.get(4)?,
        config: Vec::new(),
        state: serde_json::from_str(&state).map_err(|error| StoreError::Corrupt {
            path: PathBuf::from("state.db"),
            reason: format!("state of container `{id}`: {error}"),
        })?,
        remove_on_exit: row.get(6)?,
        volumes,
        id,
    })
}

fn find(connection: &Connection, id: &str) -> Result<Option<ContainerRecord>> {
    let mut statement =
        connection.prepare_cached(&format!("SELECT {COLUMNS} FROM containers WHERE id=?1"))?;
    let mut rows = statement.query([id])?;
    rows.next()?.map(|row| from_row(connection, row)).transpose()
}

fn resolve(connection: &Connection, text: &str) -> Result<Option<String>> {
    let exact: Option<String> = connection
        .prepare_cached("SELECT id FROM containers WHERE id=?1 OR name=?1 ORDER BY id!=?1 LIMIT 1")?
        .query_row([text], |row| row.get(0))
        .optional()?;
    let is_hex = !text.is_empty() && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if exact.is_some() || !is_hex {
        return Ok(exact);
    }
    let mut statement =
        connection.prepare_cached("SELECT id FROM containers WHERE id>=?1 AND id<?2 LIMIT 16")?;
    let ids: Vec<String> = statement
        .query_map([text, &format!("{text}g")], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    if ids.len() > 1 {
        return Err(StoreError::Ambiguous { prefix: text.to_owned(), ids });
    }
    Ok(ids.into_iter().next())
}

fn encode(state: &ContainerState) -> Result<String> {
    serde_json::to_string(state)
        .map_err(|error| StoreError::Corrupt { path: PathBuf::from("state.db"), reason: error.to_string() })
}

/// The id becomes the name of a directory.
fn check_id(id: &str) -> Result<()> {
    if id.len() == 64 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(());
    }
    Err(StoreError::InvalidName { what: "container id", value: id.to_owned() })
}

fn check_name(name: &str) -> Result<()> {
    if crate::volume::is_plain_name(name) {
        return Ok(());
    }
    Err(StoreError::InvalidName { what: "container name", value: name.to_owned() })
}
