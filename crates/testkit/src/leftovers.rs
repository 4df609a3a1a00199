//! What an ended command left behind: mounts and processes that name its store.

use std::fs;
use std::path::Path;

/// Every mount and process of this machine that names `root`, as lines for a failure message.
///
/// Mounts are looked for in every mount namespace that a process holds, because a container's are private. A process of
/// another user's namespace may be unreadable; then it is not ours.
pub fn leftovers(root: &Path) -> Vec<String> {
    let needle = root.to_string_lossy().into_owned();
    let mut found = Vec::new();
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        if line.contains(&needle) {
            found.push(format!("mount: {line}"));
        }
    }
    let own_namespace = fs::read_link("/proc/self/ns/mnt").ok();
    let own_process = std::process::id().to_string();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name == own_process || !name.bytes().all(|byte| byte.is_ascii_digit()) {
            continue;
        }
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
        if command.contains(&needle) {
            found.push(format!("process {name}: {command}"));
            continue;
        }
        let namespace = fs::read_link(entry.path().join("ns/mnt")).ok();
        if namespace.is_some()
            && namespace != own_namespace
            && String::from_utf8_lossy(&read("mountinfo")).contains(&needle)
        {
            found.push(format!("process {name} with a mount of the store: {command}"));
        }
    }
    found
}
