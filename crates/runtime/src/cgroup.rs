//! Resource limits of a container: one cgroup of its own, version 2 where the host has it, version 1 controllers
//! otherwise, none where neither can be written: limits are then not kept, which is reported as a fact, not an error.

use std::fs;
use std::path::{Path, PathBuf};

use crate::spec::CgroupSpec;

const MOUNT: &str = "/sys/fs/cgroup";
/// Below this stand the cgroups of containers that nobody wants elsewhere.
const OURS: &str = "mica";
/// In place of a control file: the cgroup is wanted, and nothing is to be set.
const NOTHING: &str = "";
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
        let parent = spec.parent.as_deref().unwrap_or(OURS).trim_matches('/');
        let parent_is_safe = parent.split('/').all(|part| !part.is_empty() && !part.starts_with('.'))
            && !parent.contains('\0');
        let name_is_safe = name_is_safe && parent_is_safe;
        let mut cgroup = Self { directories: Vec::new() };
        let mut unkept = Vec::new();
        for (controller, settings) in settings {
            if settings.is_empty() {
                continue;
            }
            let controller = Path::new(MOUNT).join(controller);
            let directory = controller.join(parent).join(&spec.name);
            let there = name_is_safe && controller.join("cgroup.procs").exists();
            if there && unified {
                enable_controllers(parent);
            }
            if there && controller.ends_with("cpuset") {
                let _ = fs::create_dir_all(&directory);
                inherit_cpuset(&controller, parent, &spec.name);
            }
            if !there || fs::create_dir_all(&directory).is_err() {
                unkept.extend(settings.iter().map(|(file, _)| *file));
                continue;
            }
            for (file, value) in settings {
                if file != NOTHING && fs::write(directory.join(file), value).is_err() {
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

/// Version 2: a cgroup has the controllers that all above it give on.
fn enable_controllers(parent: &str) {
    let mut directory = PathBuf::from(MOUNT);
    let _ = fs::create_dir_all(directory.join(parent));
    let below = parent.split('/').map(Some);
    for part in std::iter::once(None).chain(below) {
        directory.extend(part);
        for controller in ["+memory", "+pids", "+cpu", "+cpuset"] {
            let _ = fs::write(directory.join("cgroup.subtree_control"), controller);
        }
    }
}

/// Version 1: a new cgroup of this controller has no processors and no memory, and takes no process.
fn inherit_cpuset(controller: &Path, parent: &str, name: &str) {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut directory = controller.to_path_buf();
        let mut value = fs::read_to_string(directory.join(file)).unwrap_or_default();
        for part in parent.split('/').chain([name]) {
            directory.push(part);
            let own = fs::read_to_string(directory.join(file)).unwrap_or_default();
            if own.trim().is_empty() {
                let _ = fs::write(directory.join(file), value.trim());
            } else {
                value = own;
            }
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
    if let Some(shares) = spec.cpu_shares {
        settings.push(("cpu.weight", weight(shares).to_string()));
    }
    settings.extend(cpuset(spec));
    if settings.is_empty() && spec.parent.is_some() {
        // No limit of its own, but those of the cgroup above.
        settings.push((NOTHING, String::new()));
    }
    settings
}

type ControllerSettings = (&'static str, Vec<(&'static str, String)>);

fn settings_v1(spec: &CgroupSpec) -> [ControllerSettings; 4] {
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
    if let Some(shares) = spec.cpu_shares {
        cpu.push(("cpu.shares", shares.to_string()));
    }
    if spec.parent.is_some() {
        for settings in [&mut memory, &mut cpu] {
            settings.push((NOTHING, String::new()));
        }
    }
    [("memory", memory), ("pids", pids.into_iter().collect()), ("cpu", cpu), ("cpuset", cpuset(spec))]
}

fn cpuset(spec: &CgroupSpec) -> Vec<(&'static str, String)> {
    let cpus = spec.cpuset_cpus.clone().map(|cpus| ("cpuset.cpus", cpus));
    let mems = spec.cpuset_mems.clone().map(|mems| ("cpuset.mems", mems));
    cpus.into_iter().chain(mems).collect()
}

/// Shares of version 1 (2 to 262144) as weight of version 2 (1 to 10000), as runc and crun have it.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
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
    let controllers: &[&str] = if is_unified() { &[""] } else { &["memory", "pids", "cpu", "cpuset"] };
    for controller in controllers {
        let parent = Path::new(MOUNT).join(controller).join(OURS);
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
