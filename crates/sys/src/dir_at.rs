//! Walking and changing a directory tree through file handles, so that no name can lead out of it.
//!
//! All paths are relative to a handle. Walks go through `openat2` with `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`
//! (Linux 5.6): the kernel refuses `..` above the handle and every symbolic link, also one that was made a moment ago.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, ResolveFlags, openat2, unlinkat};
use rustix::io::Errno;

use crate::error::{ErrorAt, Result};

/// Turns the bytes of a path into a path.
pub fn bytes_path(path: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(path))
}

/// Opens `path` (empty: the directory itself) beneath `directory`, through no symbolic link.
pub fn open_beneath(directory: impl AsFd, path: &[u8], flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let shown = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // The kernel answers EAGAIN when a rename happens anywhere during a walk that is bound to a root; a few tries are enough.
    let mut tries = 0;
    loop {
        match openat2(&directory, shown, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) if tries < 64 => tries += 1,
            answer => return answer.at("openat2", bytes_path(shown)),
        }
    }
}

/// A handle for `*at` calls on the directory `path` beneath `directory`.
pub fn open_directory_path(directory: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(directory, path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty())
}

/// A readable handle (for listing, `fchown`, `fsetxattr`) on the directory `path` beneath `directory`.
pub fn open_directory(directory: impl AsFd, path: &[u8]) -> Result<OwnedFd> {
    open_beneath(directory, path, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty())
}

/// Names in the open directory, without `.` and `..`, in the kernel's order, with their type if the file system tells it.
pub fn read_names(directory: impl AsFd) -> Result<Vec<(Vec<u8>, FileType)>> {
    let mut names = Vec::new();
    for found in Dir::read_from(directory).at("getdents64", ".")? {
        let found = found.at("getdents64", ".")?;
        let name = found.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((name.to_vec(), found.file_type()));
        }
    }
    Ok(names)
}

/// Removes `name` in the open directory `parent` with all that is inside; nothing there is no error.
///
/// Goes down without recursion on the stack of calls: a tree as deep as a path can be must not exhaust it.
pub fn remove_all(parent: impl AsFd, name: &[u8]) -> Result<()> {
    match unlinkat(&parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // Linux answers EISDIR; EPERM is what POSIX wants.
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error).at("unlinkat", bytes_path(name)),
    }
    // Paths below `parent` that are still to be emptied; one is removed when its turn comes a second time.
    let mut waiting = vec![(name.to_vec(), false)];
    while let Some((path, emptied)) = waiting.pop() {
        if emptied {
            remove_directory(&parent, &path)?;
            continue;
        }
        let directory = open_directory(&parent, &path)?;
        waiting.push((path.clone(), true));
        for (inner, _) in read_names(&directory)? {
            match unlinkat(&directory, inner.as_slice(), AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::ISDIR | Errno::PERM) => {
                    waiting.push(([path.as_slice(), b"/", &inner].concat(), false));
                }
                Err(error) => return Err(error).at("unlinkat", bytes_path(&inner)),
            }
        }
    }
    Ok(())
}

fn remove_directory(parent: impl AsFd, path: &[u8]) -> Result<()> {
    let (directory, name) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&b""[..], path),
    };
    let directory = open_directory_path(parent, directory)?;
    match unlinkat(directory, name, AtFlags::REMOVEDIR) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error).at("unlinkat", bytes_path(path)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn walks_stay_beneath() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("in/deep")).unwrap();
        fs::write(top.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink("..", top.path().join("in/up")).unwrap();
        std::os::unix::fs::symlink("deep", top.path().join("in/also")).unwrap();
        let root = fs::File::open(top.path().join("in")).unwrap();
        let check = |path: &str, expect: bool| {
            assert_eq!(
                open_beneath(&root, path.as_bytes(), OFlags::PATH, Mode::empty()).is_ok(),
                expect,
                "{path}"
            );
        };
        check("", true);
        check("deep", true);
        check("deep/..", true);
        check("../secret", false);
        check("/etc", false);
        check("up/secret", false);
        check("up", false);
        check("also", false);
    }

    #[test]
    fn removing_a_tree_does_not_follow_links() {
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b/c")).unwrap();
        fs::write(top.path().join("a/b/file"), "x").unwrap();
        fs::create_dir(top.path().join("kept")).unwrap();
        fs::write(top.path().join("kept/file"), "x").unwrap();
        std::os::unix::fs::symlink("../kept", top.path().join("a/link")).unwrap();
        let root = fs::File::open(top.path()).unwrap();
        remove_all(&root, b"a").unwrap();
        remove_all(&root, b"never was").unwrap();
        assert!(!top.path().join("a").exists());
        assert!(top.path().join("kept/file").exists());
    }
}
