//! The files of an image that is not mounted: its layers read as one tree. For filling new volumes.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};

use mica_sys::error::ErrorAt;
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid};

use crate::error::Result;

/// Symbolic links followed in one path, as the kernel has it.
const LINKS_MAX: usize = 40;
/// Directories below one another; deeper ones cannot be named by a path of the kernel's.
const DEPTH_MAX: usize = 2048;

/// What stands under a name of the merged tree.
enum Node {
    /// The directories of that name that count, topmost first.
    Directory(Vec<PathBuf>),
    Other(PathBuf, Metadata),
}

/// Copies the directory `path` of the image into the empty directory `target`, with its owner and permissions.
/// Nothing is done when the image has no such directory.
pub(crate) fn copy_directory(lowers: &[PathBuf], path: &str, target: &Path) -> Result<()> {
    match find_directory(lowers, Path::new(path)) {
        Some(stack) => copy_merged(&stack, target, 0),
        None => Ok(()),
    }
}

/// The merged directory at `path`; links are followed inside the image only.
fn find_directory(lowers: &[PathBuf], path: &Path) -> Option<Vec<PathBuf>> {
    let mut ways = vec![lowers.to_vec()];
    let mut left: VecDeque<OsString> = parts(path);
    let mut links = 0;
    while let Some(part) = left.pop_front() {
        if part == ".." {
            if ways.len() > 1 {
                ways.pop();
            }
            continue;
        }
        match look_up(ways.last()?, &part)? {
            Node::Directory(stack) => ways.push(stack),
            Node::Other(file, metadata) if metadata.is_symlink() => {
                links += 1;
                if links > LINKS_MAX {
                    return None;
                }
                let link = fs::read_link(file).ok()?;
                if link.is_absolute() {
                    ways.truncate(1);
                }
                for part in parts(&link).into_iter().rev() {
                    left.push_front(part);
                }
            }
            Node::Other(..) => return None,
        }
    }
    ways.pop()
}

fn parts(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(part) => Some(part.to_owned()),
            Component::ParentDir => Some("..".into()),
            _ => None,
        })
        .collect()
}

fn look_up(stack: &[PathBuf], name: &OsStr) -> Option<Node> {
    let mut directories = Vec::new();
    for directory in stack {
        let path = directory.join(name);
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if is_whiteout(&path, &metadata) {
            break;
        }
        if !metadata.is_dir() {
            if directories.is_empty() {
                return Some(Node::Other(path, metadata));
            }
            break;
        }
        let is_opaque = has_mark(&path, "opaque");
        directories.push(path);
        if is_opaque {
            break;
        }
    }
    (!directories.is_empty()).then_some(Node::Directory(directories))
}

fn is_whiteout(path: &Path, metadata: &Metadata) -> bool {
    let kind = metadata.file_type();
    kind.is_char_device() && metadata.rdev() == 0
        || kind.is_file() && metadata.len() == 0 && has_mark(path, "whiteout")
}

fn has_mark(path: &Path, mark: &str) -> bool {
    ["trusted", "user"].iter().any(|space| {
        let mut value = [0u8; 4];
        let name = format!("{space}.overlay.{mark}");
        matches!(rustix::fs::lgetxattr(path, name.as_str(), &mut value), Ok(count) if count > 0)
    })
}

fn copy_merged(stack: &[PathBuf], target: &Path, depth: usize) -> Result<()> {
    let mut names = BTreeSet::new();
    for directory in stack {
        for entry in fs::read_dir(directory).at("readdir", directory)? {
            names.insert(entry.at("readdir", directory)?.file_name());
        }
    }
    for name in names.iter().filter(|_| depth < DEPTH_MAX) {
        let place = target.join(name);
        match look_up(stack, name) {
            None => {}
            Some(Node::Directory(stack)) => {
                fs::create_dir(&place).at("mkdir", &place)?;
                copy_merged(&stack, &place, depth + 1)?;
            }
            Some(Node::Other(file, metadata)) => copy_file(&file, &metadata, &place)?,
        }
    }
    match stack.first() {
        Some(topmost) => {
            let metadata = fs::symlink_metadata(topmost).at("lstat", topmost)?;
            copy_attributes(&metadata, target)
        }
        None => Ok(()),
    }
}

fn copy_file(file: &Path, metadata: &Metadata, place: &Path) -> Result<()> {
    let kind = metadata.file_type();
    if kind.is_symlink() {
        let link = fs::read_link(file).at("readlink", file)?;
        std::os::unix::fs::symlink(&link, place).at("symlink", place)?;
    } else if kind.is_file() {
        fs::copy(file, place).at("copy", file)?;
    } else {
        let kind = FileType::from_raw_mode(metadata.mode());
        match rustix::fs::mknodat(CWD, place, kind, Mode::from_raw_mode(0o600), metadata.rdev()) {
            // A user namespace may not make devices; a volume without them is better than none.
            Err(rustix::io::Errno::PERM) => return Ok(()),
            made => made.at("mknod", place)?,
        }
    }
    copy_attributes(metadata, place)
}

fn copy_attributes(metadata: &Metadata, place: &Path) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
    rustix::fs::chownat(CWD, place, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).at("fchownat", place)?;
    if !metadata.is_symlink() {
        let mode = fs::Permissions::from_mode(metadata.mode() & 0o7777);
        fs::set_permissions(place, mode).at("chmod", place)?;
    }
    let time = Timespec { tv_sec: metadata.mtime(), tv_nsec: metadata.mtime_nsec() };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, place, &times, AtFlags::SYMLINK_NOFOLLOW).at("utimensat", place)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_read_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let layer = |name: &str, files: &[(&str, &str)]| {
            let root = dir.path().join(name);
            for (path, text) in files {
                let path = root.join(path);
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, text).unwrap();
            }
            root
        };
        let below = layer("below", &[("d/a", "1"), ("d/b", "1"), ("d/sub/c", "1"), ("d/gone/x", "1")]);
        let above = layer("above", &[("d/a", "2"), ("d/sub/e", "2")]);
        fs::set_permissions(above.join("d"), fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::symlink("/l2/../d", above.join("l1")).unwrap();
        fs::create_dir(above.join("l2")).unwrap();
        std::os::unix::fs::symlink("loop", above.join("loop")).unwrap();
        let is_root = rustix::process::geteuid().is_root();
        if is_root {
            rustix::fs::mknodat(CWD, above.join("d/gone"), FileType::CharacterDevice, Mode::empty(), 0)
                .unwrap();
        }
        let lowers = [above, below];
        let target = dir.path().join("target");
        fs::create_dir(&target).unwrap();
        copy_directory(&lowers, "/l1", &target).unwrap();
        let read = |name: &str| fs::read_to_string(target.join(name)).ok();
        assert_eq!(read("a").as_deref(), Some("2"));
        assert_eq!(read("b").as_deref(), Some("1"));
        assert_eq!(read("sub/c").as_deref(), Some("1"));
        assert_eq!(read("sub/e").as_deref(), Some("2"));
        assert_eq!(target.join("gone").exists(), !is_root);
        assert_eq!(fs::metadata(&target).unwrap().mode() & 0o777, 0o750);
        for path in ["/absent", "/loop", "/d/a", "/../../etc/absent"] {
            assert!(find_directory(&lowers, Path::new(path)).is_none(), "{path}");
        }
    }
}
