//! Whether a tree is what its index says: asked of layers that a power cut may have torn.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use mica_sys::dir_at::{bytes_path, open_beneath, open_directory, read_names};
use mica_sys::error::ErrorAt;
use mica_tree::{Entry, Index, Kind};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};

/// Bytes read at a time.
const BUFFER_BYTES: usize = 256 * 1024;

/// Reads the index at `index_path` and compares the tree at `tree_path` with it: names, types, modes, owners, links, and the
/// content of every file. Anything that cannot be read counts as different. Times are not compared: the index has
/// whole seconds, and nothing but mica writes there.
pub fn is_whole(tree_path: &Path, index_path: &Path) -> bool {
    let Ok(bytes) = std::fs::read(index_path) else { return false };
    let Ok(index) = Index::decode(&bytes) else { return false };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(tree) = rustix::fs::open(tree_path, flags, Mode::empty()) else { return false };
    has_names(tree.as_fd(), &index) && has_entries(tree.as_fd(), &index)
}

/// Whether no directory of the tree has changed since the index was written, which is done last. Tells names that somebody
/// took away or added by hand, at the price of a look at each directory; says nothing of contents.
pub fn is_untouched(tree_path: &Path, index_path: &Path, index: &Index) -> bool {
    let Ok(written) = rustix::fs::lstat(index_path) else { return false };
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(tree) = rustix::fs::open(tree_path, flags, Mode::empty()) else { return false };
    let directories = index.entries().iter().filter(|entry| entry.is_directory());
    std::iter::once(b"".as_slice()).chain(directories.map(|entry| entry.path.as_slice())).all(|path| {
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
        rustix::fs::statat(&tree, path, flags).is_ok_and(|stat| {
            (stat.st_ctime, stat.st_ctime_nsec) <= (written.st_mtime, written.st_mtime_nsec)
        })
    })
}

/// Says that a tree was compared with its index just now, so that [`is_untouched`] counts from here.
pub fn mark_untouched(index_path: &Path) -> mica_sys::Result<()> {
    let index = File::open(index_path).at("open", index_path)?;
    index.set_modified(std::time::SystemTime::now()).at("futimens", index_path)
}

/// Whether every directory holds exactly the names of the index.
fn has_names(tree: BorrowedFd<'_>, index: &Index) -> bool {
    let mut expected: BTreeSet<&[u8]> = index.entries().iter().map(|entry| entry.path.as_slice()).collect();
    expected.remove(b"".as_slice());
    let directories = index.entries().iter().filter(|entry| entry.is_directory() && !entry.path.is_empty());
    let directories = std::iter::once(b"".as_slice()).chain(directories.map(|entry| entry.path.as_slice()));
    for path in directories {
        let place = if path.is_empty() { b".".as_slice() } else { path };
        let Ok(names) = open_directory(tree, place).and_then(read_names) else { return false };
        for (name, _) in names {
            let child = if path.is_empty() { name } else { [path, b"/", name.as_slice()].concat() };
            if !expected.remove(child.as_slice()) {
                return false;
            }
        }
    }
    expected.is_empty()
}

/// Whether every entry is as the index says; on all cores, because contents are read.
fn has_entries(tree: BorrowedFd<'_>, index: &Index) -> bool {
    let next = AtomicUsize::new(0);
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(entry) = index.entries().get(next.fetch_add(1, Ordering::Relaxed)) {
            if !has_entry(tree, entry, &mut buffer).unwrap_or(false) {
                // Nobody need look further.
                next.store(index.entries().len(), Ordering::Relaxed);
                return false;
            }
        }
        true
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..cores).map(|_| scope.spawn(work)).collect();
        let own = work();
        others.into_iter().all(|other| other.join().unwrap_or(false)) && own
    })
}

fn has_entry(tree: BorrowedFd<'_>, entry: &Entry, buffer: &mut [u8]) -> mica_sys::Result<bool> {
    if entry.path.is_empty() {
        return Ok(true);
    }
    let path = bytes_path(&entry.path);
    let stat =
        rustix::fs::statat(tree, entry.path.as_slice(), AtFlags::SYMLINK_NOFOLLOW).at("newfstatat", path)?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let has_attributes = |stat: &Stat| {
        stat.st_mode & 0o7777 == entry.mode && (stat.st_uid, stat.st_gid) == (entry.uid, entry.gid)
    };
    Ok(match &entry.kind {
        Kind::File { size, content } => {
            kind == FileType::RegularFile
                && has_attributes(&stat)
                && stat.st_size as u64 == *size
                && content.is_none_or(|content| hash(tree, entry, buffer).is_ok_and(|found| found == content))
        }
        Kind::Directory { .. } => kind == FileType::Directory && has_attributes(&stat),
        Kind::Symlink { target } => {
            kind == FileType::Symlink
                && rustix::fs::readlinkat(tree, entry.path.as_slice(), Vec::new())
                    .is_ok_and(|found| found.as_bytes() == target)
        }
        Kind::Hardlink { target } => {
            let first = rustix::fs::statat(tree, target.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                .at("newfstatat", bytes_path(target))?;
            (first.st_dev, first.st_ino) == (stat.st_dev, stat.st_ino)
        }
        // A user namespace cannot have device nodes: an empty file stands in for one.
        Kind::CharDevice { .. } => matches!(kind, FileType::CharacterDevice | FileType::RegularFile),
        Kind::BlockDevice { .. } => matches!(kind, FileType::BlockDevice | FileType::RegularFile),
        Kind::Fifo => kind == FileType::Fifo,
        Kind::Socket => kind == FileType::Socket,
        // A device 0:0, or an empty file with an attribute.
        Kind::Whiteout => stat.st_rdev == 0 && stat.st_size == 0,
    })
}

fn hash(tree: BorrowedFd<'_>, entry: &Entry, buffer: &mut [u8]) -> mica_sys::Result<[u8; 32]> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = File::from(open_beneath(tree, &entry.path, flags, Mode::empty())?);
    let mut hasher = blake3::Hasher::new();
    loop {
        match file.read(buffer).at("read", bytes_path(&entry.path))? {
            0 => return Ok(*hasher.finalize().as_bytes()),
            count => {
                hasher.update(&buffer[..count]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_tree::Time;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_differs_from_the_index_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, index_path) = (directory.path().join("tree"), directory.path().join("index"));
        let entry = |path: &str, kind, mode| Entry {
            path: path.into(),
            kind,
            mode,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            mtime: Time::default(),
            xattrs: Vec::new(),
        };
        let content = Some(*blake3::hash(b"hello").as_bytes());
        let index = Index::new(vec![
            entry("d", Kind::Directory { opaque: false, implied: false }, 0o755),
            entry("d/f", Kind::File { size: 5, content }, 0o644),
            entry("d/h", Kind::Hardlink { target: b"d/f".to_vec() }, 0o644),
            entry("l", Kind::Symlink { target: b"d/f".to_vec() }, 0o777),
        ])
        .unwrap();
        std::fs::write(&index_path, index.encode()).unwrap();
        let make = || {
            let _ = std::fs::remove_dir_all(&tree);
            std::fs::create_dir_all(tree.join("d")).unwrap();
            std::fs::write(tree.join("d/f"), "hello").unwrap();
            std::fs::hard_link(tree.join("d/f"), tree.join("d/h")).unwrap();
            std::os::unix::fs::symlink("d/f", tree.join("l")).unwrap();
            for (path, mode) in [("d", 0o755), ("d/f", 0o644)] {
                std::fs::set_permissions(tree.join(path), PermissionsExt::from_mode(mode)).unwrap();
            }
        };
        let check = |what: &str, change: &dyn Fn(), expect: bool| {
            make();
            change();
            assert_eq!(is_whole(&tree, &index_path), expect, "{what}");
        };
        check("as it was", &|| {}, true);
        check("content", &|| std::fs::write(tree.join("d/f"), "hellO").unwrap(), false);
        check("cut", &|| std::fs::write(tree.join("d/f"), "").unwrap(), false);
        check("gone", &|| std::fs::remove_file(tree.join("d/h")).unwrap(), false);
        check("more", &|| std::fs::write(tree.join("d/x"), "").unwrap(), false);
        check(
            "mode",
            &|| std::fs::set_permissions(tree.join("d"), PermissionsExt::from_mode(0o700)).unwrap(),
            false,
        );
        let relink = || {
            std::fs::remove_file(tree.join("l")).unwrap();
            std::os::unix::fs::symlink("d/h", tree.join("l")).unwrap();
        };
        check("link", &relink, false);
        let unlink = || {
            std::fs::remove_file(tree.join("d/h")).unwrap();
            std::fs::write(tree.join("d/h"), "hello").unwrap();
        };
        check("no longer one file", &unlink, false);
        check("no index", &|| std::fs::remove_file(&index_path).unwrap(), false);
    }
}
