//! The error of a failed Linux call: it names the call and the path or object it was made on.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Result of a call in this room.
pub type Result<T> = std::result::Result<T, Error>;

/// A Linux call that failed, with what it was called on.
#[derive(Debug)]
pub struct Error {
    /// Name of the call, as its manual page spells it (`openat2`, `mount_setattr`).
    pub call: &'static str,
    /// The path, or another short name of the object, that the call was made on.
    pub path: PathBuf,
    /// What the kernel answered.
    pub source: io::Error,
}

impl Error {
    /// An error of `call` on `path`.
    pub fn new(call: &'static str, path: impl AsRef<Path>, source: impl Into<io::Error>) -> Self {
        Self { call, path: path.as_ref().to_path_buf(), source: source.into() }
    }

    /// The errno of the answer, if it came from the kernel.
    pub fn raw_os_error(&self) -> Option<i32> {
        self.source.raw_os_error()
    }

    /// The kind of the answer.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`: {}", self.call, self.path.display(), self.source)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Gives a failed call its name and object: `rustix::fs::mkdirat(..).at("mkdirat", path)`.
pub trait ErrorAt<T> {
    /// Attaches the call and what it was made on.
    fn at(self, call: &'static str, path: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: Into<io::Error>> ErrorAt<T> for std::result::Result<T, E> {
    fn at(self, call: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|error| Error::new(call, path, error))
    }
}
