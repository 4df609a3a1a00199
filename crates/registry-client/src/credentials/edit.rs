//! Changing a file of logins: all that is not about the login stays as it is, in its order.
//!
//! Several at once: a change is made under a lock on the file's directory, and the new file takes the old one's place in
//! one step. A file that is not understood is never written over.

use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mica_sys::Error;
use mica_sys::atomic_file::{self, Durability};
use mica_sys::error::ErrorAt;
use mica_sys::lock::{Lock, Sharing};
use serde::Serialize;
use serde_json::{Map, Value};

use super::login_file::{LoginFile, wrong};
use crate::error::Result;

/// A change takes milliseconds: whoever holds the lock longer hangs.
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// Links that are followed, as the kernel has it.
const LINKS_MAX: usize = 40;

/// Changes a file; `change` says whether there is something to write. Makes the file and its directory if need be.
pub(crate) fn edit(
    path: &Path,
    change: impl FnOnce(&mut Map<String, Value>) -> Result<bool>,
) -> Result<bool> {
    let target = follow(path)?;
    let dir = match target.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).at("mkdir", dir)?;
    // The directory may be a link as well, which locks do not follow.
    let dir = std::fs::canonicalize(dir).at("realpath", dir)?;
    let target = dir.join(target.file_name().unwrap_or_default());
    let _lock = lock(&dir)?;
    let mut root = LoginFile::read(&target)?.into_values();
    if !change(&mut root)? {
        return Ok(false);
    }
    let mut bytes = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    root.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter))
        .map_err(|_| wrong(path, "", "JSON"))?;
    let before = std::fs::metadata(&target).ok();
    atomic_file::write(&target, &bytes, 0o600, Durability::PowerCut)?;
    // With sudo, the file stays the user's.
    if let Some(before) = before.filter(|before| before.uid() != rustix::process::geteuid().as_raw()) {
        let _ = std::os::unix::fs::chown(&target, Some(before.uid()), Some(before.gid()));
    }
    Ok(true)
}

/// `auths` of a file, made if need be.
pub(crate) fn logins<'a>(
    path: &Path,
    root: &'a mut Map<String, Value>,
) -> Result<&'a mut Map<String, Value>> {
    object(path, root, "auths", "auths")
}

/// One entry of `auths`, made if need be.
pub(crate) fn login<'a>(
    path: &Path,
    logins: &'a mut Map<String, Value>,
    key: &str,
) -> Result<&'a mut Map<String, Value>> {
    object(path, logins, key, &format!("auths.{key}"))
}

fn object<'a>(
    path: &Path,
    root: &'a mut Map<String, Value>,
    key: &str,
    shown: &str,
) -> Result<&'a mut Map<String, Value>> {
    let value = root.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    value.as_object_mut().ok_or_else(|| wrong(path, shown, "an object"))
}

/// People keep their settings elsewhere and link to them.
fn follow(path: &Path) -> Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match std::fs::read_link(&path) {
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            Err(_) => return Ok(path),
        }
    }
    Err(Error::new("readlink", path, rustix::io::Errno::LOOP).into())
}

/// `None` on filesystems without locks: a login must work there, too.
fn lock(dir: &Path) -> Result<Option<Lock>> {
    let begun = Instant::now();
    loop {
        match Lock::try_directory(dir, Sharing::Exclusive) {
            Ok(Some(lock)) => return Ok(Some(lock)),
            Ok(None) if begun.elapsed() > LOCK_WAIT => {
                return Err(Error::new("flock", dir, rustix::io::Errno::WOULDBLOCK).into());
            }
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(error) if error.call == "flock" => return Ok(None),
            Err(error) => return Err(error.into()),
        }
    }
}
