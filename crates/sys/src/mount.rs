//! Mounts as descriptors (the mount calls of Linux 5.2 and 5.12), and overlay mounts of any number of layers.
//!
//! A mount made here is attached nowhere until [`attach`]: an abandoned descriptor takes its mount with it.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
pub use rustix::mount::MountAttrFlags;
use rustix::mount::{FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags};

use crate::error::{Error, ErrorAt, Result};
use crate::namespace::check;

#[repr(C)]
#[derive(Default)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Adds `set` to the attributes of the mount `mount` stands for, and of those below it when `recursive`.
pub fn set_attributes(mount: impl AsFd, set: MountAttrFlags, recursive: bool) -> Result<()> {
    let attributes = MountAttributes { set: u64::from(set.bits()), ..MountAttributes::default() };
    mount_setattr(mount.as_fd(), c"", &attributes, recursive).at("mount_setattr", "mount")
}

/// Stops mount events from going into or out of this mount namespace.
pub fn make_all_private() -> Result<()> {
    let attributes = MountAttributes { propagation: libc::MS_PRIVATE, ..MountAttributes::default() };
    mount_setattr(CWD, c"/", &attributes, true).at("mount_setattr", "/")
}

fn mount_setattr(
    directory: BorrowedFd<'_>,
    path: &std::ffi::CStr,
    attributes: &MountAttributes,
    recursive: bool,
) -> rustix::io::Result<()> {
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path ends in a zero byte and `attributes` is a `struct mount_attr` of the size given.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            directory.as_raw_fd(),
            path.as_ptr(),
            flags,
            std::ptr::from_ref(attributes),
            std::mem::size_of::<MountAttributes>(),
        )
    })
    .map(drop)
}

/// Makes a mount of a filesystem that needs no device, attached nowhere.
pub fn new_filesystem(
    kind: &'static str,
    options: &[(&str, &str)],
    attributes: MountAttrFlags,
) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC).at("fsopen", kind)?;
    // What stands first in a line of /proc/mounts; programs look for it there.
    rustix::mount::fsconfig_set_string(context.as_fd(), "source", kind).at("fsconfig source", kind)?;
    for (key, value) in options {
        if value.is_empty() {
            rustix::mount::fsconfig_set_flag(context.as_fd(), *key)
                .at("fsconfig", format!("{kind} {key}"))?;
        } else {
            rustix::mount::fsconfig_set_string(context.as_fd(), *key, *value)
                .at("fsconfig", format!("{kind} {key}={value}"))?;
        }
    }
    rustix::mount::fsconfig_create(context.as_fd()).at("fsconfig create", kind)?;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at("fsmount", kind)
}

/// Makes a read-only mount of what a server will answer on `device` (`/dev/fuse`, opened in the user namespace of the
/// caller), attached nowhere. The root belongs to root of that namespace, and every user may look.
///
/// Set-user-id programs keep their bit: the files are those of a container. The kernel asks for attributes as the server
/// says (no `default_permissions`): the overlay above checks permissions.
pub fn new_fuse(device: BorrowedFd<'_>, read_bytes_max: u32) -> Result<OwnedFd> {
    let context = rustix::mount::fsopen("fuse", FsOpenFlags::FSOPEN_CLOEXEC).at("fsopen", "fuse")?;
    let options = [
        ("source", "mica".to_owned()),
        // By number: kernels before 6.10 take no descriptor here.
        ("fd", device.as_raw_fd().to_string()),
        ("rootmode", "40000".to_owned()),
        ("user_id", "0".to_owned()),
        ("group_id", "0".to_owned()),
        ("max_read", read_bytes_max.to_string()),
    ];
    for (key, value) in options {
        rustix::mount::fsconfig_set_string(context.as_fd(), key, value.as_str())
            .at("fsconfig", format!("fuse {key}={value}"))?;
    }
    // Read-only as a filesystem, not as a mount alone: else every read makes the kernel ask for the access time again.
    for flag in ["allow_other", "ro"] {
        rustix::mount::fsconfig_set_flag(context.as_fd(), flag).at("fsconfig", format!("fuse {flag}"))?;
    }
    rustix::mount::fsconfig_create(context.as_fd()).at("fsconfig create", "fuse")?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
    rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes).at("fsmount", "fuse")
}

/// A copy of the mount at `path` below `directory` (of `directory` itself if empty), attached nowhere: a bind mount.
pub fn clone_tree(directory: impl AsFd, path: impl AsRef<Path>, recursive: bool) -> Result<OwnedFd> {
    let path = path.as_ref();
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    flags.set(OpenTreeFlags::AT_RECURSIVE, recursive);
    flags.set(OpenTreeFlags::AT_EMPTY_PATH, path.as_os_str().is_empty());
    rustix::mount::open_tree(directory, path, flags).at("open_tree", path)
}

/// Attaches `mount` over what `target` stands for (a descriptor opened with `O_PATH`).
pub fn attach(mount: impl AsFd, target: impl AsFd, name: &Path) -> Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(mount, "", target, "", flags).at("move_mount", name)
}

/// Takes the topmost mount at `path` away, with all below it; who has something of it open keeps it.
pub fn detach(path: &Path) -> Result<()> {
    let flags = rustix::mount::UnmountFlags::DETACH | rustix::mount::UnmountFlags::NOFOLLOW;
    rustix::mount::unmount(path, flags).at("umount2", path)
}

/// Makes `root` the root of this mount namespace and lets go of everything else that is mounted.
pub fn pivot_into(root: impl AsFd) -> Result<()> {
    rustix::process::fchdir(root).at("fchdir", "root")?;
    // The old root lands on top of the new one, where it is taken off again; see pivot_root(2), `pivot_root(".", ".")`.
    rustix::process::pivot_root(".", ".").at("pivot_root", ".")?;
    rustix::mount::unmount(".", rustix::mount::UnmountFlags::DETACH).at("umount2", ".")?;
    rustix::process::chdir("/").at("chdir", "/")
}

/// An overlay to be mounted.
#[derive(Clone, Debug)]
pub struct Overlay<'a> {
    /// Lower directories, topmost first.
    pub lowers: &'a [PathBuf],
    /// Directory that takes the changes.
    pub upper: &'a Path,
    /// Empty directory on the filesystem of `upper`.
    pub work: &'a Path,
    /// Use `user.overlay.*` attributes: the only ones that a user namespace may set.
    pub user_xattr: bool,
    /// Never sync: for an upper that is thrown away after a crash.
    pub volatile: bool,
}

/// Longest value that fsconfig(2) takes (`strndup_user(_value, 256)`).
const CONFIG_VALUE_BYTES_MAX: usize = 255;

impl Overlay<'_> {
    /// Mounts it at `target` and returns a descriptor of its root.
    pub fn mount(&self, target: &Path) -> Result<OwnedFd> {
        match self.new_mount() {
            Ok(mount) => {
                let place = open_directory(target)?;
                attach(&mount, place, target)?;
                Ok(mount)
            }
            // `lowerdir+` came with Linux 6.7; older kernels refuse the key.
            Err(error)
                if error.call == "fsconfig lowerdir+" && error.raw_os_error() == Some(libc::EINVAL) =>
            {
                self.mount_with_option_string(target)
            }
            Err(error) => Err(error),
        }
    }

    /// Mounts it with one option string, for kernels without `lowerdir+`.
    ///
    /// The string has room for one page, so the layers are named by descriptor numbers relative to `/proc/self/fd`.
    pub fn mount_with_option_string(&self, target: &Path) -> Result<OwnedFd> {
        let directories: Vec<OwnedFd> = self
            .distinct_lowers()
            .into_iter()
            .chain([self.upper, self.work])
            .map(open_directory)
            .collect::<Result<_>>()?;
        let numbers: Vec<String> = directories.iter().map(|fd| fd.as_raw_fd().to_string()).collect();
        let (lowers, rest) = numbers.split_at(numbers.len().saturating_sub(2));
        let mut options = format!("lowerdir={}", lowers.join(":"));
        if let [upper, work] = rest {
            options.push_str(&format!(",upperdir={upper},workdir={work}"));
        }
        options.push_str(",index=off,metacopy=off");
        options.push_str(if self.user_xattr { ",userxattr" } else { ",redirect_dir=off" });
        if self.volatile {
            options.push_str(",volatile");
        }
        let options = CString::new(options).map_err(|_| Error::new("mount", target, Errno::INVAL))?;
        rustix::process::chdir("/proc/self/fd").at("chdir", "/proc/self/fd")?;
        rustix::mount::mount(
            "overlay",
            target,
            "overlay",
            rustix::mount::MountFlags::empty(),
            options.as_c_str(),
        )
        .at("mount overlay", target)?;
        rustix::process::chdir("/").at("chdir", "/")?;
        open_directory(target)
    }

    /// The lowers, each once: overlayfs refuses a directory that it already has (ELOOP), and two steps that changed the
    /// same, or nothing, are one directory. The topmost place is the one that counts: it decides about every path that
    /// the layer has, so the same layer further down can no longer be seen.
    fn distinct_lowers(&self) -> Vec<&Path> {
        let mut seen = std::collections::HashSet::new();
        self.lowers.iter().map(PathBuf::as_path).filter(|lower| seen.insert(*lower)).collect()
    }

    fn new_mount(&self) -> Result<OwnedFd> {
        let context =
            rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).at("fsopen", "overlay")?;
        let context = context.as_fd();
        rustix::mount::fsconfig_set_string(context, "source", "overlay").at("fsconfig source", "overlay")?;
        let mut held = Vec::new();
        for lower in self.distinct_lowers() {
            set_directory(context, "lowerdir+", "fsconfig lowerdir+", lower, &mut held)?;
        }
        set_directory(context, "upperdir", "fsconfig upperdir", self.upper, &mut held)?;
        set_directory(context, "workdir", "fsconfig workdir", self.work, &mut held)?;
        // What another tool must not find in the upper when it becomes a layer: renames and copies as references. A
        // kernel built without one of these does not do it either, so a refusal is no loss.
        for key in ["index", "metacopy", "xino", "nfs_export"] {
            let _ = rustix::mount::fsconfig_set_string(context, key, "off");
        }
        if self.user_xattr {
            rustix::mount::fsconfig_set_flag(context, "userxattr").at("fsconfig userxattr", "overlay")?;
        } else {
            let _ = rustix::mount::fsconfig_set_string(context, "redirect_dir", "off");
        }
        if self.volatile {
            rustix::mount::fsconfig_set_flag(context, "volatile").at("fsconfig volatile", "overlay")?;
        }
        rustix::mount::fsconfig_create(context).at("fsconfig create", self.upper)?;
        rustix::mount::fsmount(context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            .at("fsmount", "overlay")
    }
}

/// Gives the overlay a directory by name, or by descriptor when the name is too long or has characters of the option
/// syntax; the descriptor stays in `held` until the mount is made.
fn set_directory(
    context: BorrowedFd<'_>,
    key: &'static str,
    call: &'static str,
    path: &Path,
    held: &mut Vec<OwnedFd>,
) -> Result<()> {
    let bytes = path.as_os_str().as_bytes();
    if bytes.len() <= CONFIG_VALUE_BYTES_MAX && !bytes.iter().any(|byte| b"\\:,".contains(byte)) {
        return rustix::mount::fsconfig_set_string(context, key, path).at(call, path);
    }
    let directory = open_directory(path)?;
    let name = format!("/proc/self/fd/{}", directory.as_raw_fd());
    held.push(directory);
    rustix::mount::fsconfig_set_string(context, key, name.as_str()).at(call, path)
}

/// The directory at `path`, as a place to mount on.
pub fn open_directory(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .at("openat", path)
}
