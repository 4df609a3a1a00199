//! Containers of an ordinary user: a child of this program gives up root, enters a user namespace and runs them there.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;

use mica_runtime::spec::{Lower, Mount, Network, Rootfs, UserSpec};
use mica_runtime::{ContainerSpec, ProcessSpec, Stdio, Stream};
use mica_sys::{idmap, mount, namespace, process};

use crate::Test;
use crate::support::{Scratch, finish, piped, run, try_run_with_trees};
use crate::trees::new_tree;

pub const TESTS: &[Test] = &[
    ("root_an_ordinary_user_has_containers", root_an_ordinary_user_has_containers),
    ("root_an_ordinary_user_without_subordinate_ids", root_an_ordinary_user_without_subordinate_ids),
];

/// An id that no account of the machine has.
const USER: u32 = 54_321;

fn scratch_of_user() -> (Scratch, tempfile::TempDir) {
    let scratch = Scratch::new();
    for entry in walk(scratch.directory.path()) {
        std::os::unix::fs::lchown(&entry, Some(USER), Some(USER)).unwrap();
    }
    // A copy of this program where the user may reach it.
    let program = tempfile::tempdir().unwrap();
    fs::set_permissions(program.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/proc/self/exe", program.path().join("program")).unwrap();
    chown(program.path().join("program"), Some(USER), Some(USER)).unwrap();
    (scratch, program)
}

fn walk(directory: &Path) -> Vec<std::path::PathBuf> {
    let mut all = vec![directory.to_owned()];
    let mut position = 0;
    while let Some(path) = all.get(position).cloned() {
        if path.is_dir() && !path.is_symlink() {
            all.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        }
        position += 1;
    }
    all
}

fn run_child(mode: &str) -> String {
    let (scratch, program) = scratch_of_user();
    let output = Command::new(program.path().join("program"))
        .args(["rootless", mode])
        .arg(scratch.directory.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn root_an_ordinary_user_has_containers() {
    if !Path::new("/usr/bin/newuidmap").exists() || !Path::new("/etc/subuid").exists() {
        println!("skipped: newuidmap is not installed");
        return;
    }
    let text = run_child("full");
    assert_eq!(
        text,
        "map 0 54321 1, 1 700000 1000\n\
         0 0 box 00000000a80425fb 2\n\
         54321 made\n\
         1000 100 100 10\n\
         core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero\n\
         hosts\n\
         unshare: unshare(0x10000000): Operation not permitted\n\
         host network 1\n\
         joined box\n\
         of a tree of a tree\n\
         network used: false\n\
         network used: true\n"
    );
}

fn root_an_ordinary_user_without_subordinate_ids() {
    if !Path::new("/etc/subuid").exists() {
        println!("skipped: there is no /etc/subuid to hide");
        return;
    }
    let text = run_child("single");
    assert_eq!(
        text,
        "map 0 54321 1\nNoSubordinateIds { file: \"/etc/subuid\" }\n0 0 box 00000000a80425fb 2\n54321 made\n"
    );
}

/// The child's life: `rootless MODE DIRECTORY`.
pub fn child_main_if_requested() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, verb, mode, directory] = arguments.as_slice() else { return };
    if verb != "rootless" {
        return;
    }
    let directory = Path::new(directory);
    // The accounts that the test needs, in a mount namespace of its own.
    namespace::unshare(namespace::Namespaces::MOUNT).unwrap();
    mount::make_all_private().unwrap();
    let subordinate = if mode == "full" { "micatest:700000:1000\n".to_owned() } else { String::new() };
    let passwd =
        fs::read_to_string("/etc/passwd").unwrap() + &format!("micatest:x:{USER}:{USER}::/:/bin/false\n");
    for (file, content) in
        [("/etc/subuid", &subordinate), ("/etc/subgid", &subordinate), ("/etc/passwd", &passwd)]
    {
        let source = directory.join(file.replace('/', "_"));
        fs::write(&source, content).unwrap();
        rustix::mount::mount_bind(&source, file).unwrap();
    }
    process::set_groups(&[]).unwrap();
    process::set_ids(USER, USER).unwrap();
    process::set_dumpable(true).unwrap();
    let map = idmap::enter_user_namespace().unwrap();
    assert!(idmap::in_user_namespace());
    let ranges: Vec<String> =
        map.uids.iter().map(|range| format!("{} {} {}", range.inside, range.outside, range.count)).collect();
    println!("map {}", ranges.join(", "));
    if let Some(reason) = &map.single {
        println!("{reason:?}");
    }
    let container = |script: &str| -> ContainerSpec {
        let rootfs = Rootfs::Overlay {
            lowers: vec![Lower::Directory(directory.join("image"))],
            upper: directory.join("upper"),
            work: directory.join("work"),
            userxattr: true,
            volatile: false,
        };
        let mut spec = ContainerSpec::new(rootfs, ["/bin/sh", "-c", script].map(str::to_owned).to_vec());
        spec.rootless = true;
        spec.hostname = "box".to_owned();
        spec
    };
    let print = |spec: &ContainerSpec| print!("{}", run(spec).stdout);
    print(&container(
        "echo $(id -u) $(id -g) $(hostname) $(grep -E 'CapEff|^Seccomp:' /proc/self/status | cut -f2); echo made > /tmp/made",
    ));
    println!(
        "{} made",
        std::os::unix::fs::MetadataExt::uid(&directory.join("upper/tmp/made").metadata().unwrap()) + USER
    );
    if mode == "single" {
        std::process::exit(0);
    }
    let mut spec = container("echo $(id -u) $(id -g) $(id -G)");
    spec.process.user = UserSpec::Names("anna".to_owned());
    print(&spec);
    let mut spec = container("echo $(ls /dev); cat /etc/hosts; unshare -U true 2>&1");
    spec.mounts.push(Mount::File {
        target: "/etc/hosts".to_owned(),
        content: b"hosts\n".to_vec(),
        mode: 0o644,
    });
    print(&spec);
    let mut spec =
        container("echo host network $(ls -d /sys/class/net | wc -l); (echo x > /sys/kernel/x) 2>/dev/null");
    spec.namespaces.network = Network::Host;
    print(&spec);
    let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
    let mut running = mica_runtime::spawn(&container("sleep 60"), stdio).unwrap().start().unwrap();
    let process = ProcessSpec::new(["sh", "-c", "echo joined $(hostname)"].map(str::to_owned).to_vec());
    let (stdio, out, err) = piped();
    let joined = mica_runtime::exec_in(running.pid(), &process, true, stdio).unwrap();
    print!("{}", finish(joined, out, err).unwrap().stdout);
    running.kill(libc::SIGKILL).unwrap();
    assert_eq!(running.wait().unwrap().code(), 137);
    print_tree(directory, container("cat /of-tree /mounted/of-tree"));
    for command in ["logger x", "nc -w 1 127.0.0.1 9"] {
        let mut spec = container(&format!("busybox {command}"));
        spec.watch_sockets = true;
        println!("network used: {}", crate::sockets::used(&spec).0);
    }
    std::process::exit(0);
}

/// A tree, made in this user namespace, as a lower and as a mount.
fn print_tree(directory: &Path, mut spec: ContainerSpec) {
    let ((first, first_files), (second, second_files)) = (new_tree(), new_tree());
    fs::write(first_files.join("of-tree"), "of a tree ").unwrap();
    fs::write(second_files.join("of-tree"), "of a tree\n").unwrap();
    let make = |name: &str| {
        fs::create_dir(directory.join(name)).unwrap();
        directory.join(name)
    };
    if let Rootfs::Overlay { lowers, .. } = &mut spec.rootfs {
        lowers.insert(0, Lower::Tree { descriptor: 0, place: make("place") });
    }
    spec.mounts.push(Mount::Tree {
        descriptor: 1,
        place: make("other place"),
        upper: make("tree upper"),
        work: make("tree work"),
        userxattr: true,
        source: String::new(),
        target: "/mounted".to_owned(),
        read_only: true,
    });
    print!("{}", try_run_with_trees(&spec, &[first, second]).unwrap().stdout);
}
