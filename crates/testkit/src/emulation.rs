//! Programs of another CPU: qemu registered with the kernel for as long as a test needs it, and not longer.

use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::needs::find_tool;

/// Magic and mask of 64-bit ARM programs, as qemu's own files for binfmt.d have them.
pub const AARCH64: &str = "\\x7fELF\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00:\
    \\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff";

/// Where the kernel shows what is registered.
const LIST: &str = "/proc/sys/fs/binfmt_misc";

/// A mount namespace in which the kernel's list of emulators can be seen. What is registered for it is taken back when the
/// value goes, also by the kill of this process.
#[derive(Debug)]
pub struct Emulation {
    keeper: Child,
    /// While it is open, the keeper stays.
    open: Option<ChildStdin>,
    /// The list is the machine's: one test at a time, of all checkouts.
    _lock: File,
}

impl Emulation {
    /// The list as it is. An error is a reason to skip.
    pub fn list() -> Result<Emulation, String> {
        Emulation::keep("")
    }

    /// Registers qemu for 64-bit ARM with these flags: `F` opens it now, else it must be in the container. `P` keeps the
    /// name that a program is called by, which busybox needs.
    pub fn of_arm64(flags: &str) -> Result<Emulation, String> {
        let qemu = qemu_arm64()?;
        let name = format!("mica-test-{}-{}", std::process::id(), flags.to_lowercase());
        let register = format!(
            "trap 'echo -1 >{LIST}/{name}' EXIT; printf %s ':{name}:M::{AARCH64}:{}:{flags}' >{LIST}/register || exit 1; ",
            qemu.display()
        );
        Emulation::keep(&register)
    }

    fn keep(register: &str) -> Result<Emulation, String> {
        for tool in ["unshare", "nsenter"] {
            find_tool(tool).ok_or_else(|| format!("`{tool}` is not installed"))?;
        }
        let directory = Path::new("/run/lock");
        let directory = if directory.is_dir() { directory.to_owned() } else { std::env::temp_dir() };
        let path = directory.join("mica-test-emulation");
        let told = |error: std::io::Error| format!("{}: {error}", path.display());
        let lock = File::create(&path).map_err(told)?;
        lock.lock().map_err(told)?;
        // Not `exec`: the trap is the shell's.
        let script = format!(
            "[ -e {LIST}/status ] || mount -t binfmt_misc none {LIST} || exit 1; {register}echo ready; cat >/dev/null"
        );
        let mut keeper = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("unshare: {error}"))?;
        let (open, output) = (keeper.stdin.take(), keeper.stdout.take());
        let mut line = String::new();
        let read = output.map(|output| BufReader::new(output).read_line(&mut line));
        match open {
            Some(open) if read.is_some_and(|read| read.is_ok()) && line == "ready\n" => {
                Ok(Emulation { keeper, open: Some(open), _lock: lock })
            }
            _ => {
                let _ = keeper.wait();
                Err("binfmt_misc cannot be mounted or written to here".to_owned())
            }
        }
    }

    /// Whether anything of this name is registered, such as `s390x`.
    pub fn has(&self, name: &str) -> bool {
        let mut command = Command::new("ls");
        command.arg(LIST);
        let listed = self.inside(&command).output().expect("a listing");
        String::from_utf8_lossy(&listed.stdout).contains(name)
    }

    /// The same command where the list can be seen. Outside, emulators work too.
    pub fn inside(&self, command: &Command) -> Command {
        let mut inside = Command::new("nsenter");
        inside.arg(format!("--mount=/proc/{}/ns/mnt", self.keeper.id()));
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }
}

impl Drop for Emulation {
    fn drop(&mut self) {
        // Then the keeper takes back what it registered, and its mount goes with it.
        drop(self.open.take());
        let _ = self.keeper.wait();
    }
}

/// The emulator, linked statically: it runs in any root.
pub fn qemu_arm64() -> Result<PathBuf, String> {
    find_tool("qemu-aarch64-static")
        .ok_or_else(|| "`qemu-aarch64-static` (Debian's qemu-user-static) is not installed".to_owned())
}
