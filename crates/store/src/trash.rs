//! Removal in two steps: renamed out of sight inside a transaction, deleted after it.
//!
//! A kill in between leaves a trash directory whose entries say where they came from; [`Store::end_trash`] asks
//! the database which of them it still wants, and puts those back. So a row never loses its files.

use crate::error::{Result, StoreError};
use crate::ingest::Ingest;
use crate::remove_tree::remove_tree;
use crate::store::Store;
use mica_sys::error::{Error, ErrorAt};
use rusqlite::{Connection, OptionalExtension};
use rustix::io::Errno;
use std::path::{Path, PathBuf};

/// Between the parts of an entry's name: no directory or digest of ours holds it.
const SEPARATOR: char = '+';

/// A locked trash directory, made when the first thing is put in.
#[derive(Debug)]
pub(crate) struct Trash {
    store: Store,
    directory: Option<Ingest>,
}

impl Trash {
    pub(crate) fn new(store: &Store) -> Self {
        Self { store: store.clone(), directory: None }
    }

    /// Moves `<root>/<parts joined by />` in. `false` if nothing was there.
    pub(crate) fn take(&mut self, parts: &[&str]) -> Result<bool> {
        let place: PathBuf = self.store.root().join(parts.iter().collect::<PathBuf>());
        if is_missing(&place) {
            return Ok(false);
        }
        let directory = match self.directory.take() {
            Some(directory) => directory,
            None => self.store.locked_directory("trash")?,
        };
        let entry = directory.path().join(parts.join(&SEPARATOR.to_string()));
        self.directory = Some(directory);
        mica_sys::fail_point!("store.trash.rename")?;
        match rustix::fs::rename(&place, &entry) {
            Ok(()) => Ok(true),
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(Error::new("rename", &place, error).into()),
        }
    }

    /// After the transaction: deletes what is in, or puts it back if the transaction failed.
    pub(crate) fn end<T>(mut self, result: Result<T>) -> Result<T> {
        let Some(directory) = self.directory.take() else { return result };
        if result.is_err() && self.store.put_back(directory.path()).is_err() {
            // Some of it may still be wanted: the next sweep tries again. The first error is the one to tell.
            directory.keep();
            return result;
        }
        mica_sys::fail_point!("store.trash.remove")?;
        drop(directory);
        result
    }
}

impl Store {
    /// Ends the trash of a dead process: back what is wanted, away the rest.
    pub(crate) fn end_trash(&self, directory: &Path) -> Result<()> {
        self.put_back(directory)?;
        remove_tree(directory)?;
        Ok(())
    }

    /// Puts back those entries that the database still wants; the rest may be deleted once this is `Ok`.
    fn put_back(&self, directory: &Path) -> Result<()> {
        let entries = std::fs::read_dir(directory).at("readdir", directory)?;
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry.at("readdir", directory)?.file_name().to_string_lossy().into_owned());
        }
        if names.is_empty() {
            return Ok(());
        }
        let root = self.root();
        self.write(|transaction| {
            for name in &names {
                let place = root.join(name.split(SEPARATOR).collect::<PathBuf>());
                if !is_wanted(transaction, name)? || !is_missing(&place) {
                    continue;
                }
                rustix::fs::rename(directory.join(name), &place).at("rename", &place)?;
            }
            Ok(())
        })
    }
}

fn is_missing(path: &Path) -> bool {
    matches!(rustix::fs::lstat(path), Err(Errno::NOENT))
}

fn is_wanted(connection: &Connection, name: &str) -> Result<bool> {
    let parts: Vec<&str> = name.split(SEPARATOR).collect();
    let sql = match parts.first() {
        Some(&"layers") => "SELECT 1 FROM layers WHERE directory=?1",
        Some(&"containers") => "SELECT 1 FROM containers WHERE id=?1",
        Some(&"failed") => "SELECT 1 FROM failed_steps WHERE id=?1",
        Some(&"blobs") => crate::blob::NEEDED,
        _ => return Ok(false),
    };
    let object = match parts.as_slice() {
        [_, object] => (*object).to_owned(),
        [_, algorithm, hex] => format!("{algorithm}:{hex}"),
        _ => return Ok(false),
    };
    let found = connection.prepare_cached(sql)?.query_row([object], |_| Ok(())).optional();
    Ok(found.map_err(StoreError::from)?.is_some())
}
