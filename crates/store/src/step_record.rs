//! Records of steps: what a step made, and the values of what it used to make it; and reports of builds.
//!
//! A key has several records, one for each way its inputs were: they are kept in the order they were put, and only the
//! newest few. What is in a key, a family, the inputs and a report is the business of the build room. The inputs stand
//! in a table of their own: to say when a record was last used must not write them again.

use crate::codec::{self, Count};
use crate::error::{Result, StoreError};
use crate::layer;
use crate::store::{Store, now_unix_seconds};
use mica_oci::{ChainId, DiffId, ImageId};
use rusqlite::{Connection, OptionalExtension, Row, params};

/// The inputs of one record may not be larger. Those of a step that used 100,000 paths are a tenth of it.
pub const STEP_INPUTS_BYTES_MAX: u64 = 16 << 20;
/// The report of one build may not be larger.
pub const BUILD_REPORT_BYTES_MAX: u64 = 16 << 20;
/// What the build keeps beside the inputs is read with every question, and so is small.
pub const STEP_EXTRA_BYTES_MAX: u64 = 64 << 10;
/// So many records of a key are kept.
pub const STEP_RECORDS_MAX: u32 = 8;

/// "Last used" is written when it is older than this, as for the other records.
const TOUCH_AFTER_SECONDS: i64 = crate::build_cache::TOUCH_AFTER_SECONDS;

/// What a step made, and what it used to make it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepRecord {
    /// Given by the store and never given again; 0 for a new one.
    pub id: i64,
    /// All that is known of the step before it runs.
    pub key: [u8; 32],
    /// The part of the key that stays when what the step copies changes.
    pub family: [u8; 32],
    /// The layer it made.
    pub diff_id: DiffId,
    /// Set if the layer is kept per chain.
    pub chain_id: Option<ChainId>,
    /// Seconds since 1970.
    pub created_unix_s: i64,
    /// What else the build wants to know about it, at most [`STEP_EXTRA_BYTES_MAX`].
    pub extra: Vec<u8>,
    /// Size of the inputs, counted by the store.
    pub inputs_bytes: u64,
}

impl StepRecord {
    /// A record made now, to be put.
    pub fn new(
        key: [u8; 32],
        family: [u8; 32],
        diff_id: DiffId,
        chain_id: Option<ChainId>,
        extra: Vec<u8>,
    ) -> Self {
        let created_unix_s = now_unix_seconds();
        Self { id: 0, key, family, diff_id, chain_id, created_unix_s, extra, inputs_bytes: 0 }
    }
}

impl Store {
    /// Keeps a record as the newest of its key, and forgets the oldest beyond [`STEP_RECORDS_MAX`]. One of the same
    /// key, layer and inputs is renewed instead. Of those without inputs only the newest stays. Answers its id.
    pub fn put_step_record(&self, record: &StepRecord, inputs: &[u8]) -> Result<i64> {
        check_size("the inputs of a step", inputs, STEP_INPUTS_BYTES_MAX)?;
        check_size("the notes of a build on a step", &record.extra, STEP_EXTRA_BYTES_MAX)?;
        self.write(|transaction| {
            // Inside, because collection may be running: it holds this same lock while it decides.
            if !layer::exists_exactly(transaction, &record.diff_id, record.chain_id.as_ref())? {
                return Err(StoreError::LayerMissing(record.diff_id.clone()));
            }
            let id = match find_same(transaction, record, inputs)? {
                Some(id) => {
                    renew(transaction, id, record)?;
                    id
                }
                None => insert(transaction, record, inputs)?,
            };
            mica_sys::fail_point!("store.step.evict")?;
            // Those of which only the layer is known are of use as the last one alone: they must not push out eight that
            // can be verified.
            transaction
                .prepare_cached(
                    "DELETE FROM step_records WHERE id IN(
                        SELECT id FROM step_records WHERE key=?1 AND inputs_bytes=0 ORDER BY sequence DESC LIMIT -1 OFFSET 1)",
                )?
                .execute(params![record.key])?;
            transaction
                .prepare_cached(
                    "DELETE FROM step_records WHERE id IN(
                        SELECT id FROM step_records WHERE key=?1 ORDER BY sequence DESC LIMIT -1 OFFSET ?2)",
                )?
                .execute(params![record.key, STEP_RECORDS_MAX])?;
            mica_sys::fail_point!("store.step.commit")?;
            Ok(id)
        })
    }

    /// The records of a key whose layer is there, the newest first.
    pub fn step_records(&self, key: &[u8; 32]) -> Result<Vec<StepRecord>> {
        self.with_layers(self.select_steps("key=?1", key)?)
    }

    fn with_layers(&self, mut records: Vec<StepRecord>) -> Result<Vec<StepRecord>> {
        let mut problem = None;
        records.retain(|record| {
            problem.is_none()
                && self.has_layer_of(record).unwrap_or_else(|error| {
                    problem = Some(error);
                    false
                })
        });
        problem.map_or(Ok(records), Err)
    }

    /// The records of a family whose layer is there, the newest first: what the same instruction made last, whatever it
    /// copied. At most [`STEP_RECORDS_MAX`].
    pub fn records_of_family(&self, family: &[u8; 32]) -> Result<Vec<StepRecord>> {
        self.with_layers(self.select_steps("family=?1", family)?)
    }

    /// The record of that id, wherever its layer is.
    pub fn step_record(&self, id: i64) -> Result<Option<StepRecord>> {
        self.read(|connection| {
            let sql = format!("SELECT {COLUMNS} FROM step_records WHERE id=?1");
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([id])?;
            rows.next()?.map(from_row).transpose()
        })
    }

    /// The inputs of the record of that id.
    pub fn step_inputs(&self, id: i64) -> Result<Option<Vec<u8>>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT inputs FROM step_inputs WHERE record=?1")?;
            Ok(statement.query_row([id], |row| row.get(0)).optional()?)
        })
    }

    /// Says that the result of a record was taken over: it is the last result of its instruction now, and the collection
    /// of what is long unused leaves it. Writes only where that changes something, of the time not more often than daily.
    pub fn touch_step_record(&self, id: i64) -> Result<()> {
        let now = now_unix_seconds();
        let stale = now.saturating_sub(TOUCH_AFTER_SECONDS);
        let is_stale = self.read(|connection| {
            let sql = "SELECT 1 FROM step_records AS r WHERE id=?1 AND (last_used<?2
                OR EXISTS(SELECT 1 FROM step_records AS o WHERE o.family=r.family AND o.sequence>r.sequence))";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row([id, stale], |_| Ok(())).optional()?.is_some())
        })?;
        if is_stale {
            self.write(|transaction| {
                let sql = format!("UPDATE step_records SET sequence={NEXT}, last_used=?1 WHERE id=?2");
                transaction.execute(&sql, [now, id])?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Keeps the report of the build of an image as long as the image, over an older one.
    pub fn put_build_report(&self, image: &ImageId, report: &[u8]) -> Result<()> {
        check_size("the lines of a build report", report, BUILD_REPORT_BYTES_MAX)?;
        let id = image.to_string();
        let is_known = self.read(|connection| {
            let sql = "SELECT 1 FROM build_reports WHERE image=?1 AND report=?2";
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.query_row(params![id, report], |_| Ok(())).optional()?.is_some())
        })?;
        if is_known {
            return Ok(());
        }
        self.write(|transaction| {
            let sql = "SELECT 1 FROM images WHERE id=?1";
            if transaction.prepare_cached(sql)?.query_row([&id], |_| Ok(())).optional()?.is_none() {
                return Err(StoreError::ImageMissing(image.clone()));
            }
            mica_sys::fail_point!("store.report.insert")?;
            let sql = "INSERT OR REPLACE INTO build_reports(image, report) VALUES(?1, ?2)";
            transaction.prepare_cached(sql)?.execute(params![id, report])?;
            Ok(())
        })
    }

    /// The report of the build of an image.
    pub fn build_report(&self, image: &ImageId) -> Result<Option<Vec<u8>>> {
        self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT report FROM build_reports WHERE image=?1")?;
            Ok(statement.query_row([image.to_string()], |row| row.get(0)).optional()?)
        })
    }

    fn select_steps(&self, condition: &'static str, value: &[u8; 32]) -> Result<Vec<StepRecord>> {
        self.read(|connection| {
            let sql = format!(
                "SELECT {COLUMNS} FROM step_records WHERE {condition} ORDER BY sequence DESC LIMIT {STEP_RECORDS_MAX}"
            );
            let mut statement = connection.prepare_cached(&sql)?;
            let mut rows = statement.query([value])?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                records.push(from_row(row)?);
            }
            Ok(records)
        })
    }

    /// The row may have outlived the directory: a power cut, or a kill in the middle of a collection.
    fn has_layer_of(&self, record: &StepRecord) -> Result<bool> {
        Ok(self.layer(&record.diff_id, record.chain_id.as_ref())?.is_some())
    }
}

const COLUMNS: &str = "id, key, family, diff_id, chain_id, created, extra, inputs_bytes";

fn from_row(row: &Row<'_>) -> Result<StepRecord> {
    Ok(StepRecord {
        id: row.get(0)?,
        key: row.get(1)?,
        family: row.get(2)?,
        diff_id: codec::parse(row.get_ref(3)?.as_str().unwrap_or(""), "diff ID")?,
        chain_id: codec::parse_option(row.get_ref(4)?.as_str().unwrap_or(""), "chain ID")?,
        created_unix_s: row.get(5)?,
        extra: row.get(6)?,
        inputs_bytes: row.get::<_, Count>(7)?.0,
    })
}

fn check_size(what: &'static str, bytes: &[u8], size_bytes_max: u64) -> Result<()> {
    let size_bytes = bytes.len() as u64;
    if size_bytes > size_bytes_max {
        return Err(StoreError::RecordTooLarge { what, size_bytes, size_bytes_max });
    }
    Ok(())
}

/// The record that says the same. Bytes are compared only where the sizes are equal.
fn find_same(connection: &Connection, record: &StepRecord, inputs: &[u8]) -> Result<Option<i64>> {
    let mut statement = connection.prepare_cached(
        "SELECT id FROM step_records WHERE key=?1 AND diff_id=?2 AND chain_id=?3 AND inputs_bytes=?4
            AND EXISTS(SELECT 1 FROM step_inputs WHERE record=step_records.id AND inputs=?5)",
    )?;
    let id = statement.query_row(
        params![
            record.key,
            record.diff_id.to_string(),
            codec::text_or_empty(record.chain_id.as_ref()),
            Count(inputs.len() as u64),
            inputs
        ],
        |row| row.get(0),
    );
    Ok(id.optional()?)
}

/// Sequence numbers only order the records that are there; the next is above all of them.
const NEXT: &str = "(SELECT coalesce(max(sequence), 0) + 1 FROM step_records)";

fn renew(connection: &Connection, id: i64, record: &StepRecord) -> Result<()> {
    mica_sys::fail_point!("store.step.renew")?;
    connection
        .prepare_cached(&format!(
            "UPDATE step_records SET sequence={NEXT}, family=?2, created=?3, last_used=?4, extra=?5 WHERE id=?1"
        ))?
        .execute(params![id, record.family, record.created_unix_s, now_unix_seconds(), record.extra])?;
    Ok(())
}

fn insert(connection: &Connection, record: &StepRecord, inputs: &[u8]) -> Result<i64> {
    mica_sys::fail_point!("store.step.insert")?;
    connection
        .prepare_cached(&format!(
            "INSERT INTO step_records(sequence, key, family, diff_id, chain_id, created, last_used, inputs_bytes, extra)
             VALUES({NEXT},?1,?2,?3,?4,?5,?6,?7,?8)"
        ))?
        .execute(params![
            record.key,
            record.family,
            record.diff_id.to_string(),
            codec::text_or_empty(record.chain_id.as_ref()),
            record.created_unix_s,
            now_unix_seconds(),
            Count(inputs.len() as u64),
            record.extra
        ])?;
    let id = connection.last_insert_rowid();
    mica_sys::fail_point!("store.step.inputs")?;
    connection
        .prepare_cached("INSERT INTO step_inputs(record, inputs) VALUES(?1, ?2)")?
        .execute(params![id, inputs])?;
    Ok(id)
}
