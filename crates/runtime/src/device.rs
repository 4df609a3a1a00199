//! /dev of a container: a tmpfs with the standard nodes, links, terminals, shared memory and message queues.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use mica_sys::error::{Error, ErrorAt, Result};
use mica_sys::mount::{self, MountAttrFlags};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;

use crate::MountPointKind;
use crate::spec::ContainerSpec;
use crate::target::Root;

/// Character devices every container has: name, major, minor (Documentation/admin-guide/devices.txt).
const NODES: &[(&str, u32, u32)] =
    &[("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];

const LINKS: &[(&str, &str)] = &[
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];

/// Directories of /dev that something is mounted on. What lies below those mounts is out of sight, which
/// [`Dev::hidden_file`] and [`Dev::empty_directory`] use instead of one more tmpfs.
const DIRECTORIES: &[&str] = &["pts", "shm", "mqueue"];

/// /dev, and the directories that its mounts hide.
pub(crate) struct Dev {
    fd: OwnedFd,
    below_pts: OwnedFd,
    below_mqueue: OwnedFd,
}

impl Dev {
    /// A mount of a file with this content.
    pub fn hidden_file(&self, name: &str, content: &[u8], mode: u32) -> Result<OwnedFd> {
        self.write_hidden(name, content, mode)?;
        mount::clone_tree(&self.below_pts, name, false)
    }

    /// The same with an owner, and permissions that no umask changes.
    pub fn secret_file(&self, name: &str, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<OwnedFd> {
        let file = self.write_hidden(name, content, 0o600)?;
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        rustix::fs::fchown(&file, Some(uid), Some(gid)).at("fchown", "secret")?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode)).at("fchmod", "secret")?;
        mount::clone_tree(&self.below_pts, name, false)
    }

    fn write_hidden(&self, name: &str, content: &[u8], mode: u32) -> Result<OwnedFd> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file =
            rustix::fs::openat(&self.below_pts, name, flags, Mode::from_raw_mode(mode)).at("openat", name)?;
        let mut rest = content;
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest)).at("write", name)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(file)
    }

    /// A read-only mount of a directory with nothing in it.
    pub fn empty_directory(&self) -> Result<OwnedFd> {
        let directory = mount::clone_tree(&self.below_mqueue, "", false)?;
        mount::set_attributes(&directory, MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
        Ok(directory)
    }

    /// A mount of /dev/null.
    pub fn null(&self) -> Result<OwnedFd> {
        mount::clone_tree(&self.fd, "null", false)
    }
}

pub(crate) fn mount_dev(root: &mut Root, spec: &ContainerSpec) -> Result<Dev> {
    let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
    let no_exec = nosuid | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let no_dev = no_exec | MountAttrFlags::MOUNT_ATTR_NODEV;
    let dev = mount::new_filesystem("tmpfs", &[("mode", "0755"), ("size", "65536k")], nosuid)?;
    for name in DIRECTORIES {
        rustix::fs::mkdirat(&dev, *name, Mode::from_raw_mode(0o755)).at("mkdirat", name)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(*target, &dev, *name).at("symlinkat", name)?;
    }
    if !spec.rootless {
        for (name, major, minor) in NODES {
            make_node(&dev, name, FileType::CharacterDevice, 0o666, rustix::fs::makedev(*major, *minor))?;
        }
    }
    let target = root.place("/dev", MountPointKind::Directory)?;
    mount::attach(&dev, target, Path::new("/dev"))?;
    if spec.rootless {
        for (name, ..) in NODES {
            bind_node(&dev, name, &Path::new("/dev").join(name))?;
        }
    }
    let below = |name: &'static str| -> Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&dev, name, flags, Mode::empty()).at("openat", name)
    };
    let (below_pts, below_mqueue) = (below("pts")?, below("mqueue")?);

    let base = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620")];
    let with_group: Vec<_> = base.iter().copied().chain([("gid", "5")]).collect();
    let terminals = match mount::new_filesystem("devpts", &with_group, no_exec) {
        // Group 5 (tty) need not be mapped in a user namespace.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            mount::new_filesystem("devpts", &base, no_exec)?
        }
        other => other?,
    };
    mount::attach(terminals, &below_pts, Path::new("/dev/pts"))?;

    let memory = if spec.namespaces.ipc_host {
        mount::clone_tree(CWD, "/dev/shm", true)?
    } else {
        let size = spec.shm_size_bytes.to_string();
        mount::new_filesystem("tmpfs", &[("mode", "1777"), ("size", size.as_str())], no_dev)?
    };
    mount::attach(memory, below("shm")?, Path::new("/dev/shm"))?;

    match mount::new_filesystem("mqueue", &[], no_dev) {
        Ok(queues) => mount::attach(queues, &below_mqueue, Path::new("/dev/mqueue"))?,
        // A kernel without message queues, or the host's in a user namespace.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EPERM)) => {}
        Err(error) => return Err(error),
    }
    Ok(Dev { fd: dev, below_pts, below_mqueue })
}

/// The devices asked for; all of the host's when privileged.
pub(crate) fn add_devices(root: &mut Root, spec: &ContainerSpec) -> Result<()> {
    for device in &spec.devices {
        let stat = rustix::fs::stat(&device.source).at("stat", &device.source)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if !matches!(kind, FileType::CharacterDevice | FileType::BlockDevice) {
            return Err(Error::new("mknod", &device.source, Errno::NOTBLK));
        }
        let target = root.place(&device.target, MountPointKind::File)?;
        let tree = mount::clone_tree(CWD, &device.source, false)?;
        mount::attach(tree, target, Path::new(&device.target))?;
    }
    if spec.process.privileged && !spec.rootless {
        let dev = root.open("/dev", OFlags::RDONLY | OFlags::DIRECTORY)?;
        for entry in std::fs::read_dir("/dev").at("opendir", "/dev")? {
            let entry = entry.at("readdir", "/dev")?;
            let Ok(stat) = rustix::fs::lstat(entry.path()) else { continue };
            let kind = FileType::from_raw_mode(stat.st_mode);
            let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
            // The console is the container's own terminal or nothing.
            if !is_device || entry.file_name() == "console" {
                continue;
            }
            let name = entry.file_name();
            let mode = Mode::from_raw_mode(stat.st_mode);
            match rustix::fs::mknodat(&dev, &name, kind, mode, stat.st_rdev) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(Error::new("mknodat", entry.path(), error)),
            }
        }
    }
    Ok(())
}

/// Opens a new terminal of the container: the outer end, and the end for the process, which is /dev/console too.
pub(crate) fn open_terminal(root: &Root) -> Result<(OwnedFd, OwnedFd)> {
    open_inner(root.open("/dev/pts/ptmx", OFlags::RDWR | OFlags::NOCTTY)?)
}

fn open_inner(outer: OwnedFd) -> Result<(OwnedFd, OwnedFd)> {
    rustix::pty::unlockpt(&outer).at("unlockpt", "/dev/pts/ptmx")?;
    let flags =
        rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY | rustix::pty::OpenptFlags::CLOEXEC;
    let inner = rustix::pty::ioctl_tiocgptpeer(&outer, flags).at("ioctl TIOCGPTPEER", "/dev/pts/ptmx")?;
    Ok((outer, inner))
}

/// Opens a new terminal of the container that this process has joined.
pub(crate) fn open_joined_terminal() -> Result<(OwnedFd, OwnedFd)> {
    let path = "/dev/pts/ptmx";
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    open_inner(rustix::fs::openat(CWD, path, flags, Mode::empty()).at("openat", path)?)
}

/// Mounts the terminal over /dev/console.
pub(crate) fn mount_console(root: &mut Root, outer: &OwnedFd) -> Result<()> {
    let target = root.place("/dev/console", MountPointKind::File)?;
    let path = rustix::pty::ptsname(outer, Vec::new()).at("ioctl TIOCGPTN", "/dev/pts/ptmx")?;
    let path = path.to_string_lossy();
    let Some(number) = path.rsplit('/').next() else { return Ok(()) };
    let node = root.open(&format!("/dev/pts/{number}"), OFlags::PATH)?;
    mount::attach(mount::clone_tree(node, "", false)?, target, Path::new("/dev/console"))
}

fn make_node(directory: impl AsFd, name: &str, kind: FileType, mode: u32, device: u64) -> Result<()> {
    rustix::fs::mknodat(directory, name, kind, Mode::from_raw_mode(mode), device).at("mknodat", name)
}

fn bind_node(directory: &OwnedFd, name: &str, source: &Path) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(directory, name, flags, Mode::from_raw_mode(0o666)).at("openat", name)?;
    let tree = mount::clone_tree(CWD, source, false)?;
    let place = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(directory, name, place, Mode::empty()).at("openat", name)?;
    mount::attach(tree, place, source)
}
