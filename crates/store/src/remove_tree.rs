//! Removes a directory tree without leaving it: no symlink is followed and no mount point is entered, so a
//! container's rootfs that is still mounted somewhere below loses nothing of what is mounted there.

use mica_sys::error::{Error, ErrorAt, Result};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Each level holds one descriptor; deeper directories are first moved up to the top.
const DEPTH_MAX: usize = 64;

/// Removes the file or directory tree `path`. What is not there is removed.
pub(crate) fn remove_tree(path: &Path) -> Result<()> {
    match rustix::fs::unlink(path) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(Error::new("unlink", path, error)),
    }
    let top = open_directory(CWD, path, path)?;
    let mut removal = Removal { top: &top, path, moved: 0 };
    // Each round empties all that is at most DEPTH_MAX deep, and moves the rest up; names moved up are new.
    loop {
        let before = removal.moved;
        removal.empty(top.as_fd(), 0)?;
        if removal.moved == before {
            break;
        }
    }
    rustix::fs::rmdir(path).at("rmdir", path)
}

struct Removal<'a> {
    top: &'a OwnedFd,
    path: &'a Path,
    moved: u64,
}

impl Removal<'_> {
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<()> {
        let entries: Vec<_> = Dir::read_from(directory)
            .at("getdents64", self.path)?
            .collect::<rustix::io::Result<_>>()
            .at("getdents64", self.path)?;
        for entry in entries {
            let name = entry.file_name();
            if name == c"." || name == c".." {
                continue;
            }
            if entry.file_type() != FileType::Directory && self.unlink(directory, name)? {
                continue;
            }
            if depth >= DEPTH_MAX {
                let up = format!(".deep-{}", self.moved);
                self.moved += 1;
                rustix::fs::renameat(directory, name, self.top, up).at("renameat", self.path)?;
                continue;
            }
            let child = open_directory(directory, name, self.path)?;
            self.empty(child.as_fd(), depth + 1)?;
            match rustix::fs::unlinkat(directory, name, AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(error) => return Err(Error::new("unlinkat", self.path, error)),
            }
        }
        Ok(())
    }

    /// Unlinks what is not a directory; `false` if it is one after all.
    fn unlink(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(true),
            Err(Errno::ISDIR) => Ok(false),
            Err(error) => Err(Error::new("unlinkat", self.path, error)),
        }
    }
}

/// Opens a directory on the same mount; one without permission for its owner is given it first (overlayfs
/// leaves its work directory with mode 000, and images hold such directories too).
fn open_directory(parent: impl AsFd, name: impl rustix::path::Arg + Copy, path: &Path) -> Result<OwnedFd> {
    let parent = parent.as_fd();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let inside = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
    // The top is named by a path of the user's, which may lead over mounts and symlinks.
    let resolve = if parent.as_raw() == CWD.as_raw() { ResolveFlags::empty() } else { inside };
    let open = || rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve);
    let writable = |fd: &OwnedFd| {
        rustix::fs::fstat(fd).is_ok_and(|stat| stat.st_mode & 0o300 == 0o300)
            || rustix::process::geteuid().is_root()
    };
    match open() {
        Ok(fd) if writable(&fd) => Ok(fd),
        Ok(_) | Err(Errno::ACCESS) => {
            rustix::fs::chmodat(parent, name, Mode::RWXU, AtFlags::empty()).at("fchmodat", path)?;
            open().at("openat2", path)
        }
        Err(error) => Err(Error::new("openat2", path, error)),
    }
}

trait AsRaw {
    fn as_raw(&self) -> i32;
}

impl AsRaw for BorrowedFd<'_> {
    fn as_raw(&self) -> i32 {
        std::os::fd::AsRawFd::as_raw_fd(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn removes_files_and_trees_and_nothing_behind_symlinks() {
        let dir = tempfile::tempdir().unwrap();
        let keep = dir.path().join("keep");
        fs::create_dir(&keep).unwrap();
        fs::write(keep.join("file"), "x").unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("a/b/c")).unwrap();
        fs::write(tree.join("a/file"), "x").unwrap();
        symlink(&keep, tree.join("a/link")).unwrap();
        fs::set_permissions(tree.join("a/b"), fs::Permissions::from_mode(0o000)).unwrap();
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
        assert!(keep.join("file").exists());
        remove_tree(&tree).unwrap();
        remove_tree(&keep.join("file")).unwrap();
        symlink(&keep, dir.path().join("link")).unwrap();
        remove_tree(&dir.path().join("link")).unwrap();
        assert!(keep.exists());
    }

    #[test]
    fn a_tree_deeper_than_descriptors_and_path_max() {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let mut at = open_directory(CWD, tree.as_path(), &tree).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
            at = open_directory(&at, c"d", &tree).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert!(!tree.exists());
    }
}
