//! How reading, applying and writing a layer can fail.

use std::fmt;
use std::io;

/// A path of a tar or tree as a message shows it: escaped, and cut if it is very long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownPath(pub Vec<u8>);

impl fmt::Display for ShownPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN_BYTES_MAX: usize = 300;
        write!(f, "`{}", self.0.get(..SHOWN_BYTES_MAX).unwrap_or(&self.0).escape_ascii())?;
        f.write_str(if self.0.len() > SHOWN_BYTES_MAX { "...`" } else { "`" })
    }
}

impl From<&[u8]> for ShownPath {
    fn from(path: &[u8]) -> Self {
        Self(path.to_vec())
    }
}

/// A layer that could not be read, applied or written.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// The stream under the tar failed.
    #[error("cannot read the layer: {source}")]
    Read {
        /// What it answered.
        source: io::Error,
    },
    /// The compressed stream unfolds to more than it may.
    #[error("{0}")]
    Bomb(#[from] Bomb),
    /// The stream ended inside an entry.
    #[error("the tar ends inside {part} at byte {offset_bytes}")]
    Truncated {
        /// What was being read: the header or content of an entry.
        part: String,
        /// Where the stream ended.
        offset_bytes: u64,
    },
    /// A header block is not one.
    #[error("the header at byte {offset_bytes} of the tar is invalid: {reason}")]
    Header {
        /// Where the block begins.
        offset_bytes: u64,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A value of an entry is out of its range or malformed.
    #[error("{path}: invalid {field} in the tar")]
    Field {
        /// The entry.
        path: ShownPath,
        /// Which value.
        field: &'static str,
    },
    /// The name of an entry, or the target of a hard link, cannot be used.
    #[error("{path}: {reason}")]
    Name {
        /// The name as the tar says it.
        path: ShownPath,
        /// Which rule it breaks.
        reason: &'static str,
    },
    /// A whiteout names nothing that could be hidden.
    #[error("{path}: a whiteout of `{hidden}` is invalid")]
    Whiteout {
        /// The entry.
        path: ShownPath,
        /// What stands after `.wh.`.
        hidden: String,
    },
    /// The kind of an entry is not known.
    #[error("{path}: tar entries of type `{type_flag}` are not supported")]
    Type {
        /// The entry.
        path: ShownPath,
        /// The flag, escaped.
        type_flag: String,
    },
    /// A hard link whose target is neither in the layer nor below it.
    #[error("{path}: hard link to {target}, which is not there or not a file")]
    LinkTarget {
        /// The entry.
        path: ShownPath,
        /// What it wants to be linked to.
        target: ShownPath,
    },
    /// A name passes through something of the same layer that is not a directory.
    #[error("{path}: {through} in its path is not a directory")]
    NotDirectory {
        /// The entry.
        path: ShownPath,
        /// The component that is in the way.
        through: ShownPath,
    },
    /// The symbolic links of the layer lead in a circle.
    #[error("{path}: too many symbolic links in its path, the last is {through}")]
    LinkLoop {
        /// The entry.
        path: ShownPath,
        /// The last link that was followed.
        through: ShownPath,
    },
    /// There is more of something than the limits allow.
    #[error("the tar has more than {max} {what}")]
    TooMany {
        /// What there is too much of.
        what: &'static str,
        /// The limit.
        max: u64,
    },
    /// A call on the tree failed.
    #[error("{path}: {source}")]
    Sys {
        /// The entry that was being worked on.
        path: ShownPath,
        /// The call.
        source: mica_sys::Error,
    },
    /// The content of an entry could not be written.
    #[error("{path}: cannot write: {source}")]
    Write {
        /// The entry.
        path: ShownPath,
        /// What the kernel answered.
        source: io::Error,
    },
    /// The index of what was applied could not be made: a fault of this program.
    #[error("cannot make the index of the layer: {reason}")]
    Index {
        /// What the index says.
        reason: String,
    },
}

/// A compressed stream that unfolds to more than it may. Travels inside an [`io::Error`] through readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Bomb {
    /// More bytes than allowed in all.
    #[error("the compressed data unfolds to more than {output_bytes_max} bytes, the limit")]
    Output {
        /// The limit.
        output_bytes_max: u64,
    },
    /// More bytes from few than any layer would have.
    #[error(
        "the compressed data unfolds to {output_bytes} bytes from {input_bytes}, more than {ratio_max} to one"
    )]
    Ratio {
        /// Read so far.
        input_bytes: u64,
        /// Made so far.
        output_bytes: u64,
        /// The limit.
        ratio_max: u64,
    },
}

impl From<io::Error> for LayerError {
    fn from(source: io::Error) -> Self {
        if let Some(bomb) = source.get_ref().and_then(|inner| inner.downcast_ref::<Bomb>()) {
            return Self::Bomb(*bomb);
        }
        // A content reader hands out errors of the tar itself this way.
        match source.downcast::<LayerError>() {
            Ok(error) => error,
            Err(source) => Self::Read { source },
        }
    }
}

impl From<LayerError> for io::Error {
    fn from(error: LayerError) -> Self {
        match error {
            LayerError::Read { source } => source,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// Result of a call in this room.
pub type Result<T> = std::result::Result<T, LayerError>;

/// Names the entry that a failed call was made for.
pub(crate) trait EntryOf<T> {
    fn entry(self, path: &[u8]) -> Result<T>;
}

impl<T> EntryOf<T> for mica_sys::Result<T> {
    fn entry(self, path: &[u8]) -> Result<T> {
        self.map_err(|source| LayerError::Sys { path: path.into(), source })
    }
}
