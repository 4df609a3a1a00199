//! Packages that the demo and the tests need, installed only where they are missing and we may.

use std::path::Path;
use std::process::{Command, Stdio};

/// A program and the Debian package that brings it.
pub type Needed = (&'static str, &'static str);

/// What the demo needs.
pub const DEMO: &[Needed] = &[("mmdebstrap", "mmdebstrap")];

/// What the tests need.
pub const TESTS: &[Needed] = &[
    ("mmdebstrap", "mmdebstrap"),
    ("busybox", "busybox-static"),
    ("newuidmap", "uidmap"),
    ("pasta", "passt"),
    ("buildah", "buildah"),
    ("podman", "podman"),
    ("skopeo", "skopeo"),
    ("docker-registry", "docker-registry"),
    ("qemu-aarch64-static", "qemu-user-static"),
    ("umoci", "umoci"),
    ("getfattr", "attr"),
    ("setfacl", "acl"),
    ("setcap", "libcap2-bin"),
    ("runc", "runc"),
    ("crun", "crun"),
    ("mkfs.ext4", "e2fsprogs"),
    ("iptables", "iptables"),
    ("nft", "nftables"),
    ("gzip", "gzip"),
    ("xz", "xz-utils"),
    ("bzip2", "bzip2"),
    ("zstd", "zstd"),
    ("g++", "g++"),
    ("chromium", "chromium"),
];

/// Installs what is missing, or says what to install. Returns the programs that are missing still.
pub fn install(needed: &[Needed]) -> Vec<&'static str> {
    let absent: Vec<Needed> = needed.iter().copied().filter(|(program, _)| !is_there(program)).collect();
    if absent.is_empty() {
        return Vec::new();
    }
    let packages: Vec<&str> = absent.iter().map(|(_, package)| *package).collect();
    if !mica_testkit::is_root() || !is_there("apt-get") {
        println!("missing: install {} (apt-get install {0})", packages.join(" "));
        return absent.into_iter().map(|(program, _)| program).collect();
    }
    println!("installing {}", packages.join(" "));
    apt(&["update"]);
    // One at a time after a failure: a release may lack one of them, and the tests that need it skip themselves.
    if !apt(&[&["install"], &packages[..]].concat()) {
        for package in packages {
            apt(&["install", package]);
        }
    }
    absent.into_iter().map(|(program, _)| program).filter(|program| !is_there(program)).collect()
}

/// Installs moto, the S3 of the tests, into a directory of the build's own. It is of Python, and Debian has none.
pub fn install_moto() -> Result<(), String> {
    let dir = mica_testkit::moto_dir();
    if dir.join("bin/moto_server").is_file() {
        return Ok(());
    }
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match command.status().is_ok_and(|status| status.success()) {
            true => Ok(()),
            false => Err(format!("`{} {}` fails", program.display(), arguments.join(" "))),
        }
    };
    println!("installing moto");
    run(Path::new("python3"), &["-m", "venv", &dir.display().to_string()])?;
    run(&dir.join("bin/pip"), &["install", "--quiet", "moto[server]"])
}

fn apt(arguments: &[&str]) -> bool {
    let mut command = Command::new("apt-get");
    command.args(["-q", "-y", "--no-install-recommends"]).args(arguments);
    // At this runlevel a package that brings a service does not start it: the tests run registries of their own.
    command.env("RUNLEVEL", "1");
    command.env("DEBIAN_FRONTEND", "noninteractive").stdin(Stdio::null()).stdout(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn is_there(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/sbin", "/usr/bin", "/bin"])
        .any(|dir| Path::new(dir).join(program).is_file())
}
