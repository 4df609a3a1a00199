//! The container's files: root filesystem, standard mounts, the caller's mounts, masked and read-only paths.
//!
//! Everything is done with descriptors while the host's files are still in view, and before [`pivot`]: nothing of it
//! is attached outside of the container's own mount namespace.
//!
//! [`pivot`]: mica_sys::mount::pivot_into

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use mica_sys::error::ErrorAt;
use mica_sys::mount::{self, MountAttrFlags, Overlay};
use rustix::fs::{CWD, Mode, OFlags};

use crate::MountPointKind;
use crate::device;
use crate::error::{AtStage, Failure, Stage};
use crate::spec::{ContainerSpec, Mount, Rootfs};
use crate::target::{Root, is_directory};
use crate::tree::Trees;

const NO_SUID_EXEC_DEV: MountAttrFlags = MountAttrFlags::MOUNT_ATTR_NOSUID
    .union(MountAttrFlags::MOUNT_ATTR_NOEXEC)
    .union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// Builds all of it; the namespaces are new, the host's root is still the root.
///
/// `trees` are the descriptors given to [`crate::spawn_with_trees`]. They are closed, and attached nowhere any more, when
/// anything else is mounted.
pub(crate) fn build(spec: &ContainerSpec, trees: Vec<OwnedFd>) -> Result<Root, Failure> {
    mount::make_all_private().stage(Stage::Rootfs)?;
    let mut trees = Trees::new(trees);
    let root = match &spec.rootfs {
        Rootfs::Overlay { lowers, upper, work, userxattr, volatile } => {
            let lowers = trees.lowers(lowers).stage(Stage::Rootfs)?;
            let overlay =
                Overlay { lowers: &lowers, upper, work, user_xattr: *userxattr, volatile: *volatile };
            // Over its own upper: the one directory that is certainly there, and a mount point only in this namespace.
            overlay.mount(upper).stage(Stage::Rootfs)?
        }
        Rootfs::Directory(path) => {
            let tree = mount::clone_tree(CWD, path, true).stage(Stage::Rootfs)?;
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let place = rustix::fs::openat(CWD, path, flags, Mode::empty())
                .at("openat", path)
                .stage(Stage::Rootfs)?;
            mount::attach(&tree, place, path).stage(Stage::Rootfs)?;
            tree
        }
    };
    let mut tree_mounts = Vec::new();
    for mount in &spec.mounts {
        tree_mounts.push(trees.clone_source(mount).stage(Stage::Mounts)?);
    }
    trees.detach().stage(Stage::Mounts)?;
    let mut root = Root::new(root).stage(Stage::Rootfs)?;
    mount_proc(&mut root, spec).stage(Stage::Mounts)?;
    let dev = device::mount_dev(&mut root, spec).stage(Stage::Devices)?;
    mount_sys(&mut root, spec).stage(Stage::Mounts)?;
    for (position, (mount, tree)) in spec.mounts.iter().zip(tree_mounts).enumerate() {
        mount_one(&mut root, mount, tree, position, &dev).stage(Stage::Mounts)?;
    }
    device::add_devices(&mut root, spec).stage(Stage::Devices)?;
    for (name, value) in &spec.sysctls {
        write_sysctl(&root, name, value).stage(Stage::Sysctls)?;
    }
    if !spec.process.privileged {
        protect_paths(&root, spec, &dev).stage(Stage::ProtectedPaths)?;
    }
    if spec.read_only {
        mount::set_attributes(root.fd(), MountAttrFlags::MOUNT_ATTR_RDONLY, false).stage(Stage::Rootfs)?;
    }
    Ok(root)
}

fn mount_proc(root: &mut Root, spec: &ContainerSpec) -> mica_sys::Result<()> {
    let target = root.place("/proc", MountPointKind::Directory)?;
    let proc = match mount::new_filesystem("proc", &[], NO_SUID_EXEC_DEV) {
        // A user namespace may only mount what it could already see; with the host's processes a bind shows the same.
        Err(error)
            if error.raw_os_error() == Some(libc::EPERM) && spec.rootless && spec.namespaces.pid_host =>
        {
            mount::clone_tree(CWD, "/proc", true)?
        }
        other => other?,
    };
    mount::attach(proc, target, Path::new("/proc"))
}

fn mount_sys(root: &mut Root, spec: &ContainerSpec) -> mica_sys::Result<()> {
    let target = root.place("/sys", MountPointKind::Directory)?;
    let mut attributes = NO_SUID_EXEC_DEV;
    attributes.set(MountAttrFlags::MOUNT_ATTR_RDONLY, !spec.process.privileged);
    match mount::new_filesystem("sysfs", &[], attributes) {
        Ok(sys) => mount::attach(sys, target, Path::new("/sys"))?,
        // sysfs belongs to the network namespace: one that a user namespace does not own cannot be mounted in it.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) && spec.rootless => {
            let sys = mount::clone_tree(CWD, "/sys", true)?;
            mount::set_attributes(&sys, MountAttrFlags::MOUNT_ATTR_RDONLY, true)?;
            return mount::attach(sys, target, Path::new("/sys"));
        }
        Err(error) => return Err(error),
    }
    if crate::cgroup::is_unified() {
        let place = root.open("/sys/fs/cgroup", OFlags::PATH)?;
        match mount::new_filesystem("cgroup2", &[], attributes) {
            Ok(cgroup) => mount::attach(cgroup, place, Path::new("/sys/fs/cgroup"))?,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) && spec.rootless => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn mount_one(
    root: &mut Root,
    mount: &Mount,
    tree: Option<OwnedFd>,
    position: usize,
    dev: &device::Dev,
) -> mica_sys::Result<()> {
    match mount {
        Mount::Bind { source, target, read_only, recursive } => {
            let tree = mount::clone_tree(CWD, source, *recursive)?;
            if *read_only {
                mount::set_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, *recursive)?;
            }
            attach_tree(root, tree, target)
        }
        Mount::Tree { target, .. } => match tree {
            Some(tree) => attach_tree(root, tree, target),
            None => Ok(()),
        },
        Mount::Tmpfs { target, size_bytes, mode, executable } => {
            let mut attributes = NO_SUID_EXEC_DEV;
            attributes.set(MountAttrFlags::MOUNT_ATTR_NOEXEC, !executable);
            let mode = format!("{mode:o}");
            let size = size_bytes.map(|size_bytes| size_bytes.to_string());
            let mut options = vec![("mode", mode.as_str())];
            options.extend(size.as_deref().map(|size| ("size", size)));
            let tmpfs = mount::new_filesystem("tmpfs", &options, attributes)?;
            mount::attach(tmpfs, root.place(target, MountPointKind::Directory)?, Path::new(target))
        }
        Mount::File { target, content, mode } => {
            let file = dev.hidden_file(&position.to_string(), content, *mode)?;
            mount::attach(file, root.place(target, MountPointKind::File)?, Path::new(target))
        }
        Mount::Secret { target, content, mode, uid, gid } => {
            let file = dev.secret_file(&position.to_string(), &content.0, *mode, (*uid, *gid))?;
            let read_only = NO_SUID_EXEC_DEV | MountAttrFlags::MOUNT_ATTR_RDONLY;
            mount::set_attributes(&file, read_only, false)?;
            mount::attach(file, root.place(target, MountPointKind::File)?, Path::new(target))
        }
    }
}

fn attach_tree(root: &mut Root, tree: OwnedFd, target: &str) -> mica_sys::Result<()> {
    let kind = if is_directory(&tree) { MountPointKind::Directory } else { MountPointKind::File };
    mount::attach(tree, root.place(target, kind)?, Path::new(target))
}

fn write_sysctl(root: &Root, name: &str, value: &str) -> mica_sys::Result<()> {
    // As sysctl(8) spells it: a name with a slash uses slashes between its parts, so that parts may have dots.
    let path = match name.find(['.', '/']) {
        Some(at) if name[at..].starts_with('.') => name.replace('.', "/"),
        _ => name.to_owned(),
    };
    let path = format!("/proc/sys/{path}");
    let file = root.open(&path, OFlags::WRONLY)?;
    rustix::io::write(file, value.as_bytes()).at("write", path).map(drop)
}

fn protect_paths(root: &Root, spec: &ContainerSpec, dev: &device::Dev) -> mica_sys::Result<()> {
    let find = |path: &str| -> mica_sys::Result<Option<OwnedFd>> {
        match root.open(path, OFlags::PATH) {
            Ok(target) => Ok(Some(target)),
            Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
            Err(error) => Err(error),
        }
    };
    for path in &spec.readonly_paths {
        if let Some(target) = find(path)? {
            let tree = mount::clone_tree(target.as_fd(), "", true)?;
            mount::set_attributes(&tree, MountAttrFlags::MOUNT_ATTR_RDONLY, true)?;
            mount::attach(tree, target, Path::new(path))?;
        }
    }
    for path in &spec.masked_paths {
        if let Some(target) = find(path)? {
            let mask = if is_directory(&target) { dev.empty_directory()? } else { dev.null()? };
            mount::attach(mask, target, Path::new(path))?;
        }
    }
    Ok(())
}
