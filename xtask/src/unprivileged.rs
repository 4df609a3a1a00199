//! The tests named `rootless_*`, run as a user made for them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use mica_testkit::bases;

use crate::tally::Tally;
use crate::{cargo, test};

const USER: &str = "mica-test";
/// Devices that distributions open to every user; some virtual machines do not.
const DEVICES: [&str; 3] = ["/dev/fuse", "/dev/net/tun", "/dev/null"];
/// Far above what distributions give to people.
const SUBORDINATE_IDS: &str = "1500000000-1500065535";
/// What a build behind a proxy needs.
const KEPT_VARIABLES: [&str; 8] = [
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "MICA_BUILD_CASE",
    "RUST_BACKTRACE",
];

/// Everything that was changed for the run; dropping it takes the changes back.
#[derive(Default)]
struct Setup {
    dir: PathBuf,
    modes: Vec<(&'static str, u32)>,
    is_user_ours: bool,
}

/// Runs the tests; an error means that they could not be run at all.
pub fn run(tally: &mut Tally) -> Result<(), String> {
    let programs = cargo::executables(&["test", "--workspace", "--no-run"])?;
    // Dropping it in the middle of the set-up takes back what was done so far.
    let mut setup = Setup::default();
    setup.make()?;
    let (uid, gid) = ids()?;
    let mica = programs.iter().find(|path| path.ends_with("mica")).ok_or("cargo told no `mica`")?;
    let mica = setup.copy(mica, "mica")?;
    setup.copy_tree(&cargo::workspace().join("examples"), "examples")?;
    let bases_dir = setup.dir.join("bases");
    for base in [bases::busybox(), bases::debian()].into_iter().flatten() {
        let name = base.file_name().unwrap_or_default().to_string_lossy().into_owned();
        setup.copy(&base, &format!("bases/{name}"))?;
    }
    // The test programs make a base that is missing, and the lock beside it.
    for dir in [&bases_dir, &setup.dir.join("home"), &setup.dir.join("run")] {
        fs::create_dir_all(dir).map_err(|error| told(dir, error))?;
        fs::set_permissions(dir, Permissions::from_mode(0o700)).map_err(|error| told(dir, error))?;
        std::os::unix::fs::chown(dir, Some(uid), Some(gid)).map_err(|error| told(dir, error))?;
    }
    for (position, program) in programs.iter().filter(|path| path.components().any(is_deps)).enumerate() {
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let copied = setup.copy(program, &format!("test{position}"))?;
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            &uid.to_string(),
            "--regid",
            &gid.to_string(),
            "--init-groups",
            "--reset-env",
        ]);
        command.arg("env").current_dir(&setup.dir);
        let variable = |name: &str, value: &Path| format!("{name}={}", value.display());
        command.arg(variable("HOME", &setup.dir.join("home")));
        command.arg(variable("XDG_RUNTIME_DIR", &setup.dir.join("run")));
        command.arg(variable("MICA_BINARY", &mica));
        command.arg(variable("MICA_TEST_BASES", &bases_dir));
        command.arg(variable("MICA_EXAMPLES", &setup.dir.join("examples")));
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        for name in KEPT_VARIABLES {
            if let Ok(value) = std::env::var(name) {
                command.arg(format!("{name}={value}"));
            }
        }
        command.arg(&copied).args(["rootless_", "--show-output", "--test-threads=1"]);
        test::count(tally, &format!("{name} as an unprivileged user"), command);
        let _ = fs::remove_file(copied);
    }
    Ok(())
}

fn is_deps(component: std::path::Component<'_>) -> bool {
    component.as_os_str() == "deps"
}

impl Setup {
    fn make(&mut self) -> Result<(), String> {
        if ids().is_err() {
            command("useradd", &["--create-home", "--shell", "/bin/sh", USER])?;
            self.is_user_ours = true;
        }
        for (file, flag) in [("/etc/subuid", "--add-subuids"), ("/etc/subgid", "--add-subgids")] {
            let ranges = fs::read_to_string(file).unwrap_or_default();
            if !ranges.lines().any(|line| line.starts_with(&format!("{USER}:"))) {
                command("usermod", &[flag, SUBORDINATE_IDS, USER])?;
            }
        }
        for device in DEVICES {
            if let Ok(metadata) = fs::metadata(device) {
                self.modes.push((device, metadata.mode() & 0o7777));
                fs::set_permissions(device, Permissions::from_mode(0o666))
                    .map_err(|error| told(Path::new(device), error))?;
            }
        }
        // Not below the checkout, which may lie in a home that others cannot enter.
        let dir = PathBuf::from(format!("/var/tmp/mica-xtask-{}", std::process::id()));
        fs::create_dir(&dir).map_err(|error| told(&dir, error))?;
        self.dir = dir;
        fs::set_permissions(&self.dir, Permissions::from_mode(0o755)).map_err(|error| told(&self.dir, error))
    }

    fn copy(&self, from: &Path, name: &str) -> Result<PathBuf, String> {
        let to = self.dir.join(name);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(|error| told(parent, error))?;
        }
        fs::copy(from, &to).map_err(|error| told(&to, error))?;
        let is_program = fs::metadata(from).is_ok_and(|metadata| metadata.mode() & 0o100 != 0);
        let mode = if is_program { 0o755 } else { 0o644 };
        fs::set_permissions(&to, Permissions::from_mode(mode)).map_err(|error| told(&to, error))?;
        Ok(to)
    }

    fn copy_tree(&self, from: &Path, name: &str) -> Result<(), String> {
        for entry in fs::read_dir(from).map_err(|error| told(from, error))?.flatten() {
            let inner = format!("{name}/{}", entry.file_name().to_string_lossy());
            if entry.path().is_dir() {
                self.copy_tree(&entry.path(), &inner)?;
            } else {
                self.copy(&entry.path(), &inner)?;
            }
        }
        Ok(())
    }
}

impl Drop for Setup {
    fn drop(&mut self) {
        for (device, mode) in &self.modes {
            let _ = fs::set_permissions(device, Permissions::from_mode(*mode));
        }
        if !self.dir.as_os_str().is_empty() {
            let _ = fs::remove_dir_all(&self.dir);
        }
        if self.is_user_ours {
            let _ = command("userdel", &["--remove", USER]);
        }
    }
}

fn ids() -> Result<(u32, u32), String> {
    let text = fs::read_to_string("/etc/passwd").map_err(|error| told(Path::new("/etc/passwd"), error))?;
    let line = text.lines().find(|line| line.starts_with(&format!("{USER}:")));
    let fields: Vec<&str> = line.unwrap_or_default().split(':').collect();
    match (fields.get(2).and_then(|uid| uid.parse().ok()), fields.get(3).and_then(|gid| gid.parse().ok())) {
        (Some(uid), Some(gid)) => Ok((uid, gid)),
        _ => Err(format!("no user `{USER}`")),
    }
}

fn command(program: &str, arguments: &[&str]) -> Result<(), String> {
    let status = Command::new(program).args(arguments).stdin(Stdio::null()).stderr(Stdio::null()).status();
    match status {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("`{program} {}`: {status}", arguments.join(" "))),
        Err(error) => Err(format!("`{program}`: {error}")),
    }
}

fn told(path: &Path, error: std::io::Error) -> String {
    format!("{}: {error}", path.display())
}
