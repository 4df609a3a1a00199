//! The handle all else hangs from: where the store is, and one connection to its database.

use crate::error::{Result, StoreError};
use crate::format::Layout;
use mica_sys::error::ErrorAt;
use rusqlite::{Connection, Transaction, TransactionBehavior};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// An open store. Clones share one connection; threads take turns.
///
/// Do not use it across a fork: the child must open its own.
#[derive(Clone, Debug)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    layout: Layout,
    /// Opened at the first question: many commands only need a path.
    connection: Mutex<Option<Connection>>,
    boot_id: OnceLock<String>,
}

impl Store {
    /// Opens the store at `root`, and makes it if nothing is there.
    pub fn open(root: &Path) -> Result<Self> {
        let layout = Layout::prepare(root)?;
        let inner = Inner { layout, connection: Mutex::new(None), boot_id: OnceLock::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The directory of the store.
    pub fn root(&self) -> &Path {
        &self.inner.layout.root
    }

    /// Where stat caches of build contexts are kept, as opaque files.
    pub fn context_directory(&self) -> std::path::PathBuf {
        self.root().join("context")
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.inner.layout
    }

    fn connection(&self) -> Result<MutexGuard<'_, Option<Connection>>> {
        // A panic elsewhere left no transaction open: `Transaction` rolls back as it unwinds.
        let mut guard = self.inner.connection.lock().unwrap_or_else(PoisonError::into_inner);
        if guard.is_none() {
            *guard = Some(self.inner.layout.connect()?);
        }
        Ok(guard)
    }

    /// Asks the database; every question inside sees one state of it.
    pub(crate) fn read<T>(&self, ask: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        self.transact(TransactionBehavior::Deferred, |transaction| ask(transaction))
    }

    /// Changes the database, all or nothing. Other writers wait: renames inside are seen together with the rows.
    ///
    /// `change` must not use the store itself: the connection is taken.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&Transaction<'_>) -> Result<T>) -> Result<T> {
        self.transact(TransactionBehavior::Immediate, change)
    }

    fn transact<T>(
        &self,
        behavior: TransactionBehavior,
        run: impl FnOnce(&Transaction<'_>) -> Result<T>,
    ) -> Result<T> {
        let mut guard = self.connection()?;
        let Some(connection) = guard.as_mut() else {
            return Err(StoreError::Busy { path: self.inner.layout.database() });
        };
        let result = (|| {
            let transaction = connection.transaction_with_behavior(behavior)?;
            let value = run(&transaction)?;
            transaction.commit()?;
            Ok(value)
        })();
        result.map_err(|error: StoreError| error.in_database(&self.inner.layout.database()))
    }

    /// Runs `run` on the bare connection, for what must stand outside a transaction.
    pub(crate) fn bare<T>(&self, run: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let guard = self.connection()?;
        match guard.as_ref() {
            Some(connection) => {
                run(connection).map_err(|error| error.in_database(&self.inner.layout.database()))
            }
            None => Err(StoreError::Busy { path: self.inner.layout.database() }),
        }
    }

    /// The id of this boot of the machine.
    pub(crate) fn boot_id(&self) -> Result<&str> {
        if let Some(id) = self.inner.boot_id.get() {
            return Ok(id);
        }
        let path = "/proc/sys/kernel/random/boot_id";
        let text = std::fs::read_to_string(path).at("open", path)?;
        Ok(self.inner.boot_id.get_or_init(|| text.trim().to_owned()))
    }
}

/// Seconds since 1970, for "last used"; a clock before that counts as zero.
pub(crate) fn now_unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
