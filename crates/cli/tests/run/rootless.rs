//! The same as an ordinary user, who has subordinate ids.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::support::{MICA, World, eventually, text};
use crate::world_or_skip;

/// A user made for the test, with the tun device made accessible; both are taken back.
struct User {
    name: String,
    id: u32,
    tun_mode: Option<u32>,
    program: tempfile::TempDir,
}

const TUN: &str = "/dev/net/tun";

impl User {
    fn new() -> Option<Self> {
        let name = format!("micatest{}", std::process::id());
        if !Path::new("/usr/bin/newuidmap").exists() {
            return None;
        }
        let made = Command::new("useradd").args(["-M", "-d", "/nonexistent", &name]).status();
        if !made.is_ok_and(|status| status.success()) {
            return None;
        }
        let id = text(&Command::new("id").args(["-u", &name]).output().unwrap().stdout).parse().unwrap();
        let tun_mode = fs::metadata(TUN).ok().map(|metadata| metadata.permissions().mode());
        if tun_mode.is_some() {
            fs::set_permissions(TUN, fs::Permissions::from_mode(0o666)).unwrap();
        }
        // A copy of the program where the user may reach it.
        let program = tempfile::tempdir().unwrap();
        fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(MICA, program.path().join("mica")).unwrap();
        Some(Self { name, id, tun_mode, program })
    }

    fn mica(&self, world: &World, arguments: &[&str]) -> Output {
        Command::new(self.program.path().join("mica"))
            .arg("--root")
            .arg(world.root())
            .args(arguments)
            .env("HOME", world.directory.path())
            .stdin(Stdio::null())
            .current_dir("/")
            .uid(self.id)
            .gid(self.id)
            .output()
            .unwrap()
    }

    fn ok(&self, world: &World, arguments: &[&str]) -> String {
        let output = self.mica(world, arguments);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        text(&output.stdout)
    }
}

impl Drop for User {
    fn drop(&mut self) {
        if let Some(mode) = self.tun_mode {
            let _ = fs::set_permissions(TUN, fs::Permissions::from_mode(mode & 0o7777));
        }
        let _ = Command::new("userdel").arg(&self.name).stderr(Stdio::null()).status();
    }
}

fn give_to(directory: &Path, id: u32) {
    lchown(directory, Some(id), Some(id)).unwrap();
    if directory.is_dir() && !directory.is_symlink() {
        for entry in fs::read_dir(directory).unwrap() {
            give_to(&entry.unwrap().path(), id);
        }
    }
}

#[test]
fn root_an_ordinary_user_runs_containers() {
    let world = world_or_skip!();
    let Some(user) = User::new() else {
        println!("skipped: useradd or newuidmap is not installed");
        return;
    };
    give_to(world.directory.path(), user.id);
    let run = |arguments: &[&str]| {
        let mut all = vec!["run", "--rm", "--network=none"];
        all.extend(arguments);
        user.ok(&world, &all)
    };
    assert_eq!(run(&["box", "id", "-u"]), "0");
    assert_eq!(run(&["-u", "anna", "box", "sh", "-c", "touch /tmp/x; stat -c %u /tmp/x"]), "1000");
    assert_eq!(run(&["-v", "vol:/data", "box", "cat", "/data/sub/file"]), "from the image");
    let output = user.mica(&world, &["run", "--rm", "--network=none", "box", "sh", "-c", "exit 3"]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");

    let id =
        user.ok(&world, &["run", "-d", "--network=none", "--name", "r", "-u", "anna", "box", "sleep", "60"]);
    assert_eq!(user.ok(&world, &["ps", "-q", "--no-trunc"]), id);
    assert_eq!(user.ok(&world, &["exec", "r", "id", "-u"]), "1000");
    assert_eq!(user.ok(&world, &["stop", "-t", "0", "r"]), "r");
    assert_eq!(user.ok(&world, &["rm", "r"]), "r");

    let output = user.mica(&world, &["run", "--rm", "box", "ls", "/sys/class/net"]);
    assert!(output.status.success(), "{output:?}");
    if Path::new("/usr/bin/pasta").exists() && user.tun_mode.is_some() {
        assert!(text(&output.stdout).contains("eth0"), "{output:?}");
        user.ok(
            &world,
            &[
                "run",
                "-d",
                "--name",
                "web",
                "-p",
                "127.0.0.1:18081:80",
                "box",
                "httpd",
                "-f",
                "-h",
                "/data/sub",
            ],
        );
        let fetch = || {
            Command::new("busybox")
                .args(["wget", "-q", "-O", "-", "http://127.0.0.1:18081/file"])
                .output()
                .unwrap()
        };
        eventually("an answer", || text(&fetch().stdout) == "from the image");
        user.ok(&world, &["rm", "-f", "web"]);
    } else {
        assert!(text(&output.stderr).contains("rootless network is not available"), "{output:?}");
    }
    assert_eq!(user.ok(&world, &["ps", "-aq"]), "");
}
