//! What steps leave while a build goes on.

use std::sync::Arc;

use mica_tree::Index;

use crate::filesystem::Chain;

/// A layer that stands in an ingest directory and waits to be committed.
pub(crate) struct Made {
    /// What it holds.
    pub index: Arc<Index>,
    /// SHA-256 of its tar.
    pub diff_id: [u8; 32],
    /// Length of its tar.
    pub tar_size_bytes: u64,
}

/// A step's result.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The filesystem after it.
    pub chain: Arc<Chain>,
    /// When its layer was made, seconds since 1970.
    pub created_seconds: i64,
}

/// Where a step stands.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Not begun.
    Waiting,
    /// A thread works on it.
    Running,
    /// Done.
    Done(Outcome),
}
