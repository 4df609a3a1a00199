//! Resource limits of a container: one cgroup of its own, version 2 where the host has it, version 1 controllers
//! otherwise, none where neither can be written: limits are then not kept, which is reported as a fact, not an error.

use std::fs;
use std::path::{Path, PathBuf};

use crate::spec::CgroupSpec;

const MOUNT: &str = "/sys/fs/cgroup";
/// Magic number of cgroup version 2, linux/magic.h.
const CGROUP2_MAGIC: u64 = 0x6367_7270;
/// Processor time is given out in periods of this length.
const CPU_PERIOD_MICROSECONDS: u64 = 100_000;
/// How often a removal is tried while the last processes are still being cleared away, a millisecond apart.
const REMOVAL_TRIES: u32 = 100;

/// Whether /sys/fs/cgroup is the one tree of version 2, not version 1 or a mix.
pub(crate) fn is_unified() -> bool {
    rustix::fs::statfs(MOUNT).is_ok_and(|stat| u64::try_from(stat.f_type) == Ok(CGROUP2_MAGIC))
}

/// A container's cgroup: one directory, or one per controller with version 1.
#[derive(Debug)]
pub(crate) struct Cgroup {
    directories: Vec<PathBuf>,
}

impl Cgroup {
    /// Makes it and sets the limits; with it the names of those that the host does not let us set.
    pub fn create(spec: &CgroupSpec) -> (Option<Self>, Vec<&'static str>) {
        let unified = is_unified();
        let settings = if unified { vec![("", settings_v2(spec))] } else { settings_v1(spec).into() };
        let name_is_safe = !spec.name.is_empty() && !spec.name.contains('/') && !spec.name.starts_with('.');
        let mut cgroup = Self { directories: Vec::new() };
        let mut unkept = Vec::new();
        for (controller, settings) in settings {
            if settings.is_empty() {
                continue;
            }
            let controller = Path::new(MOUNT).join(controller);
            let directory = controller.join("mica").join(&spec.name);
            let there = name_is_safe && controller.join("cgroup.procs").exists();
            if there && unified {
                enable_controllers(&controller.join("mica"));
            }
            if !there || fs::create_dir_all(&directory).is_err() {
                unkept.extend(settings.iter().map(|(file, _)| *file));
                continue;
            }
            for (file, value) in settings {
                if fs::write(directory.join(file), value).is_err() {
                    unkept.push(file);
                }
            }
            cgroup.directories.push(directory);
        }
        ((!cgroup.directories.is_empty()).then_some(cgroup), unkept)
    }

    /// The files by which a process joins it.
    pub fn procs_files(&self) -> Vec<PathBuf> {
        self.directories.iter().map(|directory| directory.join("cgroup.procs")).collect()
    }

    /// Removes it; its processes have ended.
    pub fn remove(self) {
        for directory in &self.directories {
            for _ in 0..REMOVAL_TRIES {
                match fs::remove_dir(directory) {
                    Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                        std::thread::sleep(std::time::Duration::from_millis(1));
                    }
                    _ => break,
                }
            }
        }
    }
}

fn enable_controllers(parent: &Path) {
    let _ = fs::create_dir_all(parent);
    for directory in [Path::new(MOUNT), parent] {
        for controller in ["+memory", "+pids", "+cpu"] {
            let _ = fs::write(directory.join("cgroup.subtree_control"), controller);
        }
    }
}

fn settings_v2(spec: &CgroupSpec) -> Vec<(&'static str, String)> {
    let mut settings = Vec::new();
    if let Some(memory) = spec.memory_bytes {
        settings.push(("memory.max", memory.to_string()));
        if let Some(both) = spec.memory_swap_bytes {
            settings.push(("memory.swap.max", both.saturating_sub(memory).to_string()));
        }
    }
    if let Some(pids) = spec.pids {
        settings.push(("pids.max", pids.to_string()));
    }
    if let Some(millis) = spec.cpu_millis {
        settings.push(("cpu.max", format!("{} {CPU_PERIOD_MICROSECONDS}", quota(millis))));
    }
    settings
}

type ControllerSettings = (&'static str, Vec<(&'static str, String)>);

fn settings_v1(spec: &CgroupSpec) -> [ControllerSettings; 3] {
    let mut memory = Vec::new();
    if let Some(bytes) = spec.memory_bytes {
        memory.push(("memory.limit_in_bytes", bytes.to_string()));
        if let Some(both) = spec.memory_swap_bytes {
            memory.push(("memory.memsw.limit_in_bytes", both.to_string()));
        }
    }
    let pids = spec.pids.map(|pids| ("pids.max", pids.to_string()));
    let mut cpu = Vec::new();
    if let Some(millis) = spec.cpu_millis {
        cpu.push(("cpu.cfs_period_us", CPU_PERIOD_MICROSECONDS.to_string()));
        cpu.push(("cpu.cfs_quota_us", quota(millis).to_string()));
    }
    [("memory", memory), ("pids", pids.into_iter().collect()), ("cpu", cpu)]
}

fn quota(millis: u64) -> u64 {
    // The kernel takes no quota below a millisecond.
    (millis.saturating_mul(CPU_PERIOD_MICROSECONDS) / 1000).max(1000)
}

/// The files by which another process joins the cgroups of `pid`, those that are containers' only.
pub(crate) fn procs_files_of(pid: i32) -> Vec<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    text.lines()
        .filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let controller = if is_unified() { "" } else { controllers };
            let path =
                path.strip_prefix('/').filter(|path| path.starts_with("mica/") && !path.contains(".."))?;
            Some(Path::new(MOUNT).join(controller).join(path).join("cgroup.procs"))
        })
        .filter(|procs| procs.exists())
        .collect()
}

/// Removes containers' cgroups that no process is in: left behind when their parent was killed.
///
/// A cgroup that is in use cannot be removed. Between its making and its first process it looks like a leftover, so
/// those younger than `age_min` are left alone.
pub fn sweep_cgroups(age_min: std::time::Duration) {
    let controllers: &[&str] = if is_unified() { &[""] } else { &["memory", "pids", "cpu"] };
    for controller in controllers {
        let parent = Path::new(MOUNT).join(controller).join("mica");
        for entry in fs::read_dir(&parent).into_iter().flatten().flatten() {
            // Dozens of control files stand beside them: the listing tells what is a directory without asking for each.
            if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                continue;
            }
            let is_old = |metadata: fs::Metadata| {
                metadata.modified().is_ok_and(|time| time.elapsed().is_ok_and(|age| age >= age_min))
            };
            if entry.metadata().is_ok_and(is_old) {
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}
