//! The layout of a store on disk, its version, and the tables of `state.db`.

use crate::error::{Result, StoreError};
use mica_sys::atomic_file::{self, Durability};
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Sharing};
use rusqlite::{Connection, OpenFlags, TransactionBehavior, config::DbConfig};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Version of the directory layout, in the file `format`. Raising it locks older builds out.
pub(crate) const FORMAT: u64 = 1;

/// Version of the tables, in `user_version`. Raising it needs a step in [`migrate`].
pub(crate) const SCHEMA: i64 = 4;

/// Writers wait this long for each other. A transaction here takes microseconds; collection of a large store
/// may take a second.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

/// Directories of a store, in the order they are made.
const DIRECTORIES: [&str; 8] =
    ["blobs", "ingest", "layers", "containers", "volumes", "cache", "context", "failed"];

/// Where things are.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: PathBuf,
}

impl Layout {
    pub(crate) fn blobs(&self) -> PathBuf {
        self.root.join("blobs")
    }
    pub(crate) fn ingest(&self) -> PathBuf {
        self.root.join("ingest")
    }
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }
    pub(crate) fn containers(&self) -> PathBuf {
        self.root.join("containers")
    }
    pub(crate) fn volumes(&self) -> PathBuf {
        self.root.join("volumes")
    }
    pub(crate) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }
    pub(crate) fn failed(&self) -> PathBuf {
        self.root.join("failed")
    }
    pub(crate) fn database(&self) -> PathBuf {
        self.root.join("state.db")
    }

    /// Makes the store if it is not there, checks its version if it is.
    pub(crate) fn prepare(root: &Path) -> Result<Self> {
        let layout = Self { root: root.to_path_buf() };
        match layout.read_format()? {
            Some(version) => layout.check_format(version)?,
            None => layout.create()?,
        }
        Ok(layout)
    }

    fn read_format(&self) -> Result<Option<u64>> {
        let path = self.root.join("format");
        match std::fs::read_to_string(&path) {
            Ok(text) => match text.trim().parse() {
                Ok(version) => Ok(Some(version)),
                Err(_) => Err(StoreError::Corrupt { path, reason: "not a version".to_owned() }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                Err(StoreError::Corrupt { path, reason: "not a version".to_owned() })
            }
            Err(error) => Err(mica_sys::Error::new("open", path, error).into()),
        }
    }

    fn check_format(&self, version: u64) -> Result<()> {
        if version > FORMAT {
            return Err(StoreError::FormatTooNew {
                path: self.root.clone(),
                found: version,
                supported: FORMAT,
            });
        }
        Ok(())
    }

    /// `format` is written last: while it is missing, the store is not made yet, whoever was killed making it.
    fn create(&self) -> Result<()> {
        let root = &self.root;
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(root).at("mkdir", root)?;
        let _one_maker = Lock::directory(root, Sharing::Exclusive)?;
        if let Some(version) = self.read_format()? {
            return self.check_format(version);
        }
        for entry in std::fs::read_dir(root).at("readdir", root)? {
            let name = entry.at("readdir", root)?.file_name().to_string_lossy().into_owned();
            let ours = DIRECTORIES.contains(&name.as_str())
                || name.starts_with("state.db")
                || name.starts_with(".tmp-")
                || name == "lost+found";
            if !ours {
                return Err(StoreError::NotAStore { path: root.clone(), found: name });
            }
        }
        std::fs::set_permissions(root, std::fs::Permissions::from_mode(0o700)).at("chmod", root)?;
        for name in DIRECTORIES {
            let path = root.join(name);
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("mkdir", &path)?;
        }
        let path = self.blobs().join("sha256");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path).at("mkdir", &path)?;
        mica_sys::fail_point!("store.create.database")?;
        drop(self.connect()?);
        mica_sys::fail_point!("store.create.format")?;
        let text = format!("{FORMAT}\n");
        atomic_file::write(root.join("format"), text.as_bytes(), 0o600, Durability::PowerCut)?;
        Ok(())
    }

    /// Opens the database, with its tables as this build knows them.
    pub(crate) fn connect(&self) -> Result<Connection> {
        let path = self.database();
        self.connect_unnamed(&path).map_err(|error| error.in_database(&path))
    }

    fn connect_unnamed(&self, path: &Path) -> Result<Connection> {
        // No URI and no internal mutex: the path is the user's, and `Store` holds its own mutex.
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE
            | OpenFlags::SQLITE_OPEN_CREATE
            | OpenFlags::SQLITE_OPEN_NO_MUTEX
            | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        // SQLite refuses a symlink anywhere in the path with NOFOLLOW; the root itself may well be below one.
        let real = std::fs::canonicalize(&self.root).at("realpath", &self.root)?.join("state.db");
        let mut connection = Connection::open_with_flags(real, flags)?;
        connection.busy_timeout(BUSY_TIMEOUT)?;
        // Or the last process to close would checkpoint, with two fsyncs, on the user's time.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if version != SCHEMA {
            if version > SCHEMA {
                return Err(StoreError::FormatTooNew {
                    path: path.to_path_buf(),
                    found: u64::try_from(version).unwrap_or(u64::MAX),
                    supported: SCHEMA.unsigned_abs(),
                });
            }
            migrate(&mut connection)?;
        }
        // 500 pages: the first to open after all have closed reads the whole log, which shall stay below 1 ms.
        connection.execute_batch(
            "PRAGMA synchronous=NORMAL; PRAGMA foreign_keys=ON; PRAGMA wal_autocheckpoint=500;",
        )?;
        connection.set_prepared_statement_cache_capacity(64);
        Ok(connection)
    }
}

/// Brings the tables of an older build up to [`SCHEMA`], one step a version, in one transaction.
fn migrate(connection: &mut Connection) -> Result<()> {
    // Heeded only while there are no tables; files of version 1 get it in `gc`.
    connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
    // Stays with the file; changing it needs no transaction around.
    connection.pragma_update(None, "journal_mode", "WAL")?;
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let version: i64 = transaction.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if version < 1 {
        transaction.execute_batch(TABLES_1)?;
    }
    if version < 2 {
        transaction.execute_batch(TABLES_2)?;
    }
    if version < 3 {
        transaction.execute_batch(TABLES_3)?;
    }
    if version < 4 {
        transaction.execute_batch(TABLES_4)?;
    }
    if version < SCHEMA {
        transaction.pragma_update(None, "user_version", SCHEMA)?;
    }
    transaction.commit()?;
    Ok(())
}

/// The tables of version 1. Identifiers are text as people see them (`sha256:...`); the empty string stands for "none"
/// where a unique index compares it. `boot_id` is empty once the rows' files are known to be on disk.
const TABLES_1: &str = "
CREATE TABLE layers(
    id INTEGER PRIMARY KEY,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    directory TEXT NOT NULL UNIQUE,
    size_bytes INTEGER NOT NULL,
    tar_size_bytes INTEGER NOT NULL,
    index_size_bytes INTEGER NOT NULL,
    blob TEXT NOT NULL,
    media_type TEXT NOT NULL,
    boot_id TEXT NOT NULL,
    last_used INTEGER NOT NULL,
    UNIQUE(diff_id, chain_id)
);
CREATE INDEX layers_by_blob ON layers(blob) WHERE blob != '';
CREATE INDEX layers_of_boot ON layers(boot_id) WHERE boot_id != '';
CREATE TABLE images(
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    manifest TEXT NOT NULL,
    parent TEXT NOT NULL,
    created TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    architecture TEXT NOT NULL,
    os TEXT NOT NULL,
    variant TEXT NOT NULL
);
CREATE INDEX images_by_manifest ON images(manifest);
CREATE TABLE image_layers(
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    position INTEGER NOT NULL,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    PRIMARY KEY(image, position)
) WITHOUT ROWID;
CREATE INDEX image_layers_by_diff_id ON image_layers(diff_id);
CREATE TABLE image_blobs(
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    digest TEXT NOT NULL,
    PRIMARY KEY(image, digest)
) WITHOUT ROWID;
CREATE INDEX image_blobs_by_digest ON image_blobs(digest);
CREATE TABLE names(
    name TEXT PRIMARY KEY,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX names_by_image ON names(image);
CREATE TABLE cache(
    key BLOB PRIMARY KEY,
    shape BLOB NOT NULL,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    extra BLOB NOT NULL,
    FOREIGN KEY(diff_id, chain_id) REFERENCES layers(diff_id, chain_id) ON DELETE CASCADE
) WITHOUT ROWID;
CREATE INDEX cache_by_shape ON cache(shape);
CREATE INDEX cache_by_layer ON cache(diff_id, chain_id);
CREATE TABLE containers(
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    name TEXT NOT NULL UNIQUE,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE RESTRICT,
    image_name TEXT NOT NULL,
    created_unix_ns INTEGER NOT NULL,
    state TEXT NOT NULL,
    remove_on_exit INTEGER NOT NULL
);
CREATE INDEX containers_by_image ON containers(image);
CREATE INDEX containers_to_remove ON containers(id) WHERE remove_on_exit;
CREATE TABLE container_volumes(
    container TEXT NOT NULL REFERENCES containers(id) ON DELETE CASCADE,
    volume TEXT NOT NULL,
    PRIMARY KEY(container, volume)
) WITHOUT ROWID;
CREATE INDEX container_volumes_by_volume ON container_volumes(volume);
CREATE TABLE protections(
    lease TEXT NOT NULL,
    kind TEXT NOT NULL,
    object TEXT NOT NULL,
    PRIMARY KEY(kind, object, lease)
) WITHOUT ROWID;
";

/// What version 2 adds: records of steps and reports of builds. Ids are never given again (`AUTOINCREMENT`): who holds
/// that of a record that is gone must not read the inputs of another. `sequence` orders records, the newest last.
const TABLES_2: &str = "
CREATE TABLE step_records(
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sequence INTEGER NOT NULL UNIQUE,
    key BLOB NOT NULL,
    family BLOB NOT NULL,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    created INTEGER NOT NULL,
    last_used INTEGER NOT NULL,
    inputs_bytes INTEGER NOT NULL,
    extra BLOB NOT NULL,
    FOREIGN KEY(diff_id, chain_id) REFERENCES layers(diff_id, chain_id) ON DELETE CASCADE
);
CREATE INDEX step_records_by_key ON step_records(key, sequence);
CREATE INDEX step_records_by_family ON step_records(family, sequence);
CREATE INDEX step_records_by_layer ON step_records(diff_id, chain_id);
CREATE TABLE step_inputs(
    record INTEGER PRIMARY KEY REFERENCES step_records(id) ON DELETE CASCADE,
    inputs BLOB NOT NULL
);
CREATE TABLE build_reports(
    image TEXT PRIMARY KEY REFERENCES images(id) ON DELETE CASCADE,
    report BLOB NOT NULL
);
";

/// What version 3 adds: what names lead to in their registry, and what is known of registries. `name_images` has the images
/// of a name beside the one it leads to. The compressed forms of a layer go with the last row of it.
const TABLES_3: &str = "
ALTER TABLE names ADD COLUMN target TEXT NOT NULL DEFAULT '';
CREATE TABLE name_images(
    name TEXT NOT NULL REFERENCES names(name) ON DELETE CASCADE,
    image TEXT NOT NULL REFERENCES images(id) ON DELETE CASCADE,
    PRIMARY KEY(name, image)
) WITHOUT ROWID;
CREATE INDEX name_images_by_image ON name_images(image);
CREATE TABLE blob_sources(
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    digest TEXT NOT NULL,
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    UNIQUE(digest, registry, repository)
);
CREATE TABLE uploads(
    registry TEXT NOT NULL,
    repository TEXT NOT NULL,
    digest TEXT NOT NULL,
    location TEXT NOT NULL,
    begun INTEGER NOT NULL,
    PRIMARY KEY(registry, repository, digest)
) WITHOUT ROWID;
CREATE TABLE compressed_forms(
    diff_id TEXT NOT NULL,
    form TEXT NOT NULL,
    digest TEXT NOT NULL,
    size_bytes INTEGER NOT NULL,
    PRIMARY KEY(diff_id, form)
) WITHOUT ROWID;
CREATE INDEX compressed_forms_by_digest ON compressed_forms(digest);
CREATE TRIGGER compressed_forms_of_layer AFTER DELETE ON layers
    WHEN NOT EXISTS(SELECT 1 FROM layers WHERE diff_id=OLD.diff_id)
    BEGIN DELETE FROM compressed_forms WHERE diff_id=OLD.diff_id; END;
CREATE TABLE manifest_lists(
    name TEXT PRIMARY KEY,
    document BLOB NOT NULL
) WITHOUT ROWID;
";

/// What version 4 adds: what failed steps left, and the layers that they stand on.
const TABLES_4: &str = "
CREATE TABLE failed_steps(
    rowid INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    context TEXT NOT NULL,
    created INTEGER NOT NULL,
    description BLOB NOT NULL
);
CREATE TABLE failed_layers(
    failed TEXT NOT NULL REFERENCES failed_steps(id) ON DELETE CASCADE,
    diff_id TEXT NOT NULL,
    chain_id TEXT NOT NULL,
    PRIMARY KEY(failed, diff_id, chain_id)
) WITHOUT ROWID;
CREATE INDEX failed_layers_by_diff_id ON failed_layers(diff_id);
";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GcOptions, StepRecord, Store};
    use mica_oci::{ChainId, DiffId, Digest, ImageId};
    use rusqlite::params;

    /// A store as an older version left it: a layer with its directory, an image with a name, a build cache record.
    fn of_version(root: &Path, version: i64) -> (DiffId, ImageId) {
        drop(Store::open(root).unwrap());
        for name in ["state.db", "state.db-wal", "state.db-shm"] {
            let _ = std::fs::remove_file(root.join(name));
        }
        let (layer, image) = (Digest::sha256(b"layer"), Digest::sha256(b"image"));
        std::fs::create_dir(root.join("layers").join(layer.hex())).unwrap();
        let database = Connection::open(root.join("state.db")).unwrap();
        database.pragma_update(None, "journal_mode", "WAL").unwrap();
        for tables in [TABLES_1, TABLES_2, TABLES_3].into_iter().take(version.try_into().unwrap()) {
            database.execute_batch(tables).unwrap();
        }
        database.pragma_update(None, "user_version", version).unwrap();
        let (diff_id, id) = (layer.to_string(), image.to_string());
        let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| database.execute(sql, values).unwrap();
        run(
            "INSERT INTO layers VALUES(1, ?1, '', ?2, 1, 1, 1, '', '', '', 5)",
            params![diff_id, layer.hex()],
        );
        run("INSERT INTO images VALUES(1, ?1, ?1, '', '', 1, 'amd64', 'linux', '')", params![id]);
        run("INSERT INTO image_layers VALUES(?1, 0, ?2, ?3)", params![id, diff_id, diff_id]);
        run("INSERT INTO names(name, image) VALUES('name', ?1)", params![id]);
        run("INSERT INTO cache VALUES(?1, ?1, ?2, '', 5, 5, x'01')", params![[1u8; 32], diff_id]);
        (DiffId(layer), ImageId(image))
    }

    #[test]
    fn an_older_database_is_brought_up_by_whoever_is_first() {
        check_brought_up(1);
        check_brought_up(2);
        check_brought_up(3);
    }

    fn check_brought_up(version: i64) {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        let (diff_id, image) = of_version(&root, version);
        let put = |number: u8| {
            let store = Store::open(&root).unwrap();
            let record = StepRecord::new([2; 32], [3; 32], diff_id.clone(), None, vec![]);
            store.put_step_record(&record, &vec![number; 500_000]).unwrap();
        };
        std::thread::scope(|scope| {
            for number in 0..4 {
                scope.spawn(move || put(number));
            }
        });
        let store = Store::open(&root).unwrap();
        let version = store.bare(|connection| {
            Ok(connection.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?)
        });
        assert_eq!(version.unwrap(), SCHEMA);
        assert_eq!(store.step_records(&[2; 32]).unwrap().len(), 4);
        assert_eq!(store.name("name").unwrap(), Some(image.clone()));
        assert_eq!(store.target_of("name").unwrap(), None);
        store.set_target("name", &image.0).unwrap();
        assert_eq!(store.target_of("name").unwrap(), Some(image.0.clone()));
        assert_eq!(store.images_of("name").unwrap(), std::slice::from_ref(&image));
        store.put_blob_source(&image.0, "example.test", "a").unwrap();
        assert_eq!(store.blob_sources(&image.0, "example.test").unwrap(), ["a"]);
        assert_eq!(store.image(&image).unwrap().unwrap().layers, std::slice::from_ref(&diff_id));
        assert_eq!(store.cache_get(&[1; 32]).unwrap().unwrap().diff_id, diff_id);
        assert!(store.failed_steps().unwrap().is_empty());
        let ingest = store.ingest().unwrap();
        let failed = store.keep_failed_step(ingest, "context", b"{}", &[]).unwrap();
        assert_eq!(store.failed_steps().unwrap()[0].id, failed);
        store.put_build_report(&image, b"report").unwrap();
        assert_eq!(store.build_report(&image).unwrap().unwrap(), b"report");
        // The space of records is given back here too.
        store.gc(GcOptions::default()).unwrap();
        let size = std::fs::metadata(root.join("state.db")).unwrap().len();
        assert!(size < 500_000, "{size}");
        assert_eq!(store.step_records(&[2; 32]).unwrap(), []);
        assert!(store.layer(&diff_id, None::<&ChainId>).unwrap().is_some(), "the image needs it");
    }
}
