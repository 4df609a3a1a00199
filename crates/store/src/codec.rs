//! Identifiers as the database and the directories spell them.

use crate::error::{Result, StoreError};
use mica_oci::{Algorithm, ChainId, DiffId, Digest};
use rusqlite::ToSql;
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef};
use std::fmt::Display;
use std::path::PathBuf;
use std::str::FromStr;

/// Reads back an identifier this room wrote; anything else there is damage.
pub(crate) fn parse<T: FromStr>(text: &str, what: &'static str) -> Result<T> {
    text.parse().map_err(|_| StoreError::Corrupt {
        path: PathBuf::from("state.db"),
        reason: format!("`{text}` is not a {what}"),
    })
}

/// As [`parse`], where the empty string stands for none.
pub(crate) fn parse_option<T: FromStr>(text: &str, what: &'static str) -> Result<Option<T>> {
    if text.is_empty() { Ok(None) } else { parse(text, what).map(Some) }
}

/// The text of an identifier, or the empty string. Empty and not NULL: unique indexes do not compare NULLs.
pub(crate) fn text_or_empty<T: Display>(value: Option<&T>) -> String {
    value.map(T::to_string).unwrap_or_default()
}

/// Name of a layer's directory: the hex of its diff ID, or `chain-` and the hex of its chain ID. Algorithms
/// other than sha256 are spelled out.
pub(crate) fn layer_directory(diff_id: &DiffId, chain_id: Option<&ChainId>) -> String {
    match chain_id {
        None => plain(&diff_id.0),
        Some(chain_id) => format!("chain-{}", plain(&chain_id.0)),
    }
}

fn plain(digest: &Digest) -> String {
    match digest.algorithm() {
        Algorithm::Sha256 => digest.hex().to_owned(),
        other => format!("{other}-{}", digest.hex()),
    }
}

/// `<alg>/<hex>` of a digest, as below `blobs/`.
pub(crate) fn blob_path(digest: &Digest) -> PathBuf {
    PathBuf::from(digest.algorithm().name()).join(digest.hex())
}

/// A count or size in a column: SQLite's integers are signed.
#[derive(Clone, Copy)]
pub(crate) struct Count(pub(crate) u64);

impl ToSql for Count {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        // Nothing on a disk is larger; a lie of that size is cut.
        Ok(ToSqlOutput::from(i64::try_from(self.0).unwrap_or(i64::MAX)))
    }
}

impl FromSql for Count {
    fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
        let value = value.as_i64()?;
        u64::try_from(value).map(Count).map_err(|_| FromSqlError::OutOfRange(value))
    }
}
