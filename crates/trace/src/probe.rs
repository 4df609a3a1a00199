//! Whether trees can be served on this machine.

use std::fs::File;
use std::sync::Arc;

use mica_tree::MergedIndex;

use crate::error::{ServeError, Unavailable};
use crate::served::Files;
use crate::session::{ServeOptions, serve};
use crate::value::NoContents;

struct NoFiles;

impl Files for NoFiles {
    fn open(&self, _: &MergedIndex, _: usize) -> std::io::Result<File> {
        Err(std::io::ErrorKind::NotFound.into())
    }
}

/// Serves an empty tree for a moment: the kernel mounts it, and speaks a version of the protocol that is known here. Nothing
/// is looked up in it, because this process must not ask itself (see `session`). In a user namespace, call it after
/// entering.
pub fn probe() -> Result<(), Unavailable> {
    let served = serve(Arc::new(MergedIndex::default()), Arc::new(NoFiles), ServeOptions::default())?;
    let known = served.wait_for_kernel();
    let observed = served.finish(&NoContents);
    known.map_err(ServeError::NoAnswer)?;
    match observed.fault {
        None => Ok(()),
        Some(fault) => Err(ServeError::NoAnswer(std::io::Error::other(fault.to_string()))),
    }
}
