//! Extended attributes of an open file, and of a name in an open directory (also of a symbolic link).

use std::os::fd::{AsFd, AsRawFd};
use std::path::PathBuf;

use rustix::fs::{XattrFlags, fgetxattr, flistxattr, fsetxattr, lgetxattr, llistxattr, lsetxattr};
use rustix::io::Errno;

use crate::dir_at::bytes_path;
use crate::error::{ErrorAt, Result};

/// The kernel's own limit of a value and of a list of names (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const SIZE_BYTES_MAX: usize = 64 * 1024;

/// Sets an attribute of an open file (not of an `O_PATH` handle).
pub fn set(file: impl AsFd, name: &[u8], value: &[u8]) -> Result<()> {
    fsetxattr(file, name, value, XattrFlags::empty()).at("fsetxattr", bytes_path(name))
}

/// The attribute of an open file; `None` if it has none of that name or the file system keeps none.
pub fn get(file: impl AsFd, name: &[u8]) -> Result<Option<Vec<u8>>> {
    grown(|buffer| fgetxattr(&file, name, buffer)).at("fgetxattr", bytes_path(name))
}

/// Names of all attributes of an open file, sorted.
pub fn list(file: impl AsFd) -> Result<Vec<Vec<u8>>> {
    grown(|buffer| flistxattr(&file, buffer)).at("flistxattr", ".").map(split_names)
}

/// The attributes that belong to a file wherever it stands, sorted by name: the user's own, and its capabilities. Labels of
/// this machine's security modules and overlayfs' marks are not among them, nor names with `=`, which no tar can hold.
pub fn read_portable(file: impl AsFd) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut attributes = Vec::new();
    for name in list(&file)? {
        let is_portable = name == b"security.capability"
            || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay.") && !name.contains(&b'='));
        if let (true, Some(value)) = (is_portable, get(&file, &name)?) {
            attributes.push((name, value));
        }
    }
    Ok(attributes)
}

/// Sets an attribute of `name` in the open directory (`O_PATH` will do), without following a link.
pub fn set_at(directory: impl AsFd, path: &[u8], name: &[u8], value: &[u8]) -> Result<()> {
    lsetxattr(path_at(directory, path), name, value, XattrFlags::empty()).at("lsetxattr", bytes_path(path))
}

/// The attribute of `path` in the open directory, without following a link.
pub fn get_at(directory: impl AsFd, path: &[u8], name: &[u8]) -> Result<Option<Vec<u8>>> {
    let at = path_at(directory, path);
    grown(|buffer| lgetxattr(&at, name, buffer)).at("lgetxattr", bytes_path(path))
}

/// Names of all attributes of `path` in the open directory, sorted, without following a link.
pub fn list_at(directory: impl AsFd, path: &[u8]) -> Result<Vec<Vec<u8>>> {
    let at = path_at(directory, path);
    grown(|buffer| llistxattr(&at, buffer)).at("llistxattr", bytes_path(path)).map(split_names)
}

/// There is no `setxattrat` before Linux 6.13; the magic link of the directory's handle stands in for it. Only the last
/// component is not followed, so `path` is one name.
fn path_at(directory: impl AsFd, name: &[u8]) -> PathBuf {
    debug_assert!(!name.contains(&b'/'));
    let mut path = PathBuf::from(format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd()));
    path.push(bytes_path(name));
    path
}

fn grown(
    mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Option<Vec<u8>>> {
    let mut buffer = vec![0; 256];
    loop {
        match call(&mut buffer) {
            Ok(size_bytes) => {
                buffer.truncate(size_bytes);
                return Ok(Some(buffer));
            }
            Err(Errno::RANGE) if buffer.len() < SIZE_BYTES_MAX => buffer.resize(SIZE_BYTES_MAX, 0),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
            Err(error) => return Err(error),
        }
    }
}

fn split_names(list: Option<Vec<u8>>) -> Vec<Vec<u8>> {
    let list = list.unwrap_or_default();
    let mut names: Vec<_> =
        list.split(|byte| *byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn what_is_set_is_read_back() {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("file"), "x").unwrap();
        let file = fs::File::open(top.path().join("file")).unwrap();
        let root = fs::File::open(top.path()).unwrap();
        if set(&file, b"user.one", b"1")
            .is_err_and(|error| error.raw_os_error() == Some(Errno::OPNOTSUPP.raw_os_error()))
        {
            println!("skipped: the file system keeps no user attributes");
            return;
        }
        set_at(&root, b"file", b"user.long", &[7; 1000]).unwrap();
        assert_eq!(get_at(&root, b"file", b"user.one").unwrap().as_deref(), Some(&b"1"[..]));
        assert_eq!(get(&file, b"user.long").unwrap().unwrap().len(), 1000);
        assert_eq!(get(&file, b"user.none").unwrap(), None);
        let own = |names: Vec<Vec<u8>>| {
            names.into_iter().filter(|name| name.starts_with(b"user.")).collect::<Vec<_>>()
        };
        assert_eq!(own(list(&file).unwrap()), [&b"user.long"[..], b"user.one"]);
        assert_eq!(own(list_at(&root, b"file").unwrap()), [&b"user.long"[..], b"user.one"]);
    }
}
