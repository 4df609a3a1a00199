//! What is mounted where, and what of it is left in the upper directory.

use std::fs;
use std::path::Path;
use std::process::Command;

use mica_runtime::MountPointKind;
use mica_runtime::spec::{Device, Mount, Rootfs};

use mica_sys::mount;

use crate::Test;
use crate::support::{Scratch, check_script, piped, run};

pub const TESTS: &[Test] = &[
    ("root_dev_has_what_programs_expect", root_dev_has_what_programs_expect),
    ("root_paths_are_masked_and_read_only", root_paths_are_masked_and_read_only),
    ("root_the_root_can_be_read_only", root_the_root_can_be_read_only),
    ("root_a_plain_directory_is_a_root", root_a_plain_directory_is_a_root),
    ("root_two_hundred_layers_are_mounted", root_two_hundred_layers_are_mounted),
    ("root_layer_names_may_be_long_and_odd", root_layer_names_may_be_long_and_odd),
    ("root_mounts_of_the_caller_are_there", root_mounts_of_the_caller_are_there),
    ("root_created_mount_points_are_reported", root_created_mount_points_are_reported),
    ("root_mount_targets_stay_inside", root_mount_targets_stay_inside),
    ("root_the_hosts_files_are_out_of_reach", root_the_hosts_files_are_out_of_reach),
];

fn root_dev_has_what_programs_expect() {
    check_script(
        |_| {},
        "ls /dev",
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero",
    );
    check_script(
        |_| {},
        "for n in null zero full random urandom tty; do stat -c %F:%a:%t:%T /dev/$n; done | sort -u",
        "character special file:666:1:3\ncharacter special file:666:1:5\ncharacter special file:666:1:7\ncharacter special file:666:1:8\ncharacter special file:666:1:9\ncharacter special file:666:5:0",
    );
    check_script(|_| {}, "for n in pts shm mqueue; do grep -c \" /dev/$n \" /proc/mounts; done", "1\n1\n1");
    check_script(
        |_| {},
        "stat -c %a /dev/shm /dev/pts/ptmx; grep ' /dev/shm ' /proc/mounts | grep -c size=65536k",
        "1777\n666\n1",
    );
    check_script(
        |spec| {
            spec.devices.push(Device { source: "/dev/zero".into(), target: "/dev/nil".to_owned() });
            spec.process.terminal = false;
        },
        "dd if=/dev/nil bs=4 count=1 2>/dev/null | wc -c",
        "4",
    );
}

fn root_paths_are_masked_and_read_only() {
    check_script(
        |_| {},
        "cat /proc/kcore | wc -c; ls /sys/firmware | wc -l; cat /proc/keys /proc/timer_list | wc -c",
        "0\n0\n0",
    );
    check_script(|_| {}, "mkdir /sys/firmware/x 2>&1 | grep -c 'Read-only'", "1");
    for path in ["/proc/sys/kernel/domainname", "/proc/sysrq-trigger", "/sys/kernel/mm/lru_gen/enabled"] {
        check_script(|_| {}, &format!("(echo x > {path}) 2>&1 | grep -c -E 'Read-only|nonexistent'"), "1");
    }
    check_script(
        |spec| spec.sysctls.push(("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())),
        "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
        "0",
    );
}

fn root_the_root_can_be_read_only() {
    check_script(
        |spec| {
            spec.read_only = true;
            spec.mounts.push(Mount::Tmpfs {
                target: "/scratch".to_owned(),
                size_bytes: Some(1 << 20),
                mode: 0o1777,
                executable: false,
            });
        },
        "(touch /x) 2>&1; touch /scratch/y && ls /scratch; stat -c %a /scratch; grep -o size=1024k /proc/mounts",
        "touch: /x: Read-only file system\ny\n1777\nsize=1024k",
    );
}

fn root_a_plain_directory_is_a_root() {
    let scratch = Scratch::new();
    let mut spec = scratch.script("echo hello > /tmp/file; cat /tmp/file");
    spec.rootfs = Rootfs::Directory(scratch.path("image"));
    assert_eq!(run(&spec).stdout, "hello\n");
    assert_eq!(fs::read_to_string(scratch.path("image/tmp/file")).unwrap(), "hello\n");
}

fn root_two_hundred_layers_are_mounted() {
    let scratch = Scratch::new();
    let mut lowers = Vec::new();
    for number in 0..200 {
        let layer = scratch.path(&format!("layers/{number}/{}", "x".repeat(100)));
        fs::create_dir_all(layer.join("layers")).unwrap();
        fs::write(layer.join("layers").join(number.to_string()), "").unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        lowers.push(layer);
    }
    lowers.push(scratch.path("image"));
    let mut spec = scratch.script("ls /layers | wc -l; cat /top");
    spec.rootfs = scratch.overlay(lowers);
    assert_eq!(run(&spec).stdout, "200\n0");
    // The way of older kernels, in a child because it needs a mount namespace of its own.
    let output =
        Command::new("/proc/self/exe").arg("option-string").arg(scratch.directory.path()).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout), "200 0\n", "{output:?}");
}

/// The child's life: `option-string DIRECTORY`.
pub fn child_main_if_requested() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, verb, directory] = arguments.as_slice() else { return };
    if verb != "option-string" {
        return;
    }
    let directory = Path::new(directory);
    mica_sys::namespace::unshare(mica_sys::namespace::Namespaces::MOUNT).unwrap();
    mount::make_all_private().unwrap();
    let lowers: Vec<_> =
        (0..200).map(|n| directory.join(format!("layers/{n}/{}", "x".repeat(100)))).collect();
    let (upper, work) = (directory.join("upper"), directory.join("work"));
    let overlay =
        mount::Overlay { lowers: &lowers, upper: &upper, work: &work, user_xattr: false, volatile: false };
    overlay.mount_with_option_string(&upper).unwrap();
    let count = fs::read_dir(upper.join("layers")).unwrap().count();
    println!("{count} {}", fs::read_to_string(upper.join("top")).unwrap());
    std::process::exit(0);
}

fn root_layer_names_may_be_long_and_odd() {
    let scratch = Scratch::new();
    for name in [
        "with:colon",
        "with,comma",
        "with\\backslash",
        "with space",
        &format!("{0}/{0}/{0}", "y".repeat(120)),
    ] {
        let layer = scratch.path(name);
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join("odd"), "odd").unwrap();
        let mut spec = scratch.spec(&["cat", "/odd"]);
        spec.rootfs = scratch.overlay(vec![layer, scratch.path("image")]);
        assert_eq!(run(&spec).stdout, "odd", "{name}");
    }
}

fn root_mounts_of_the_caller_are_there() {
    let scratch = Scratch::new();
    let shared = scratch.path("shared");
    fs::create_dir(&shared).unwrap();
    fs::write(shared.join("data"), "data").unwrap();
    let bind = |target: &str, read_only| Mount::Bind {
        source: shared.clone(),
        target: target.to_owned(),
        read_only,
        recursive: true,
    };
    let mut spec = scratch.script(
        "cat /ro/data /etc/hosts; (touch /ro/x) 2>&1; touch /rw/y; stat -c %a /etc/hosts; echo more >> /etc/hosts; wc -l /etc/hosts",
    );
    fs::write(scratch.path("image/etc/hosts"), "of the image").unwrap();
    spec.mounts = vec![
        bind("/ro", true),
        bind("/rw", false),
        Mount::File { target: "/etc/hosts".to_owned(), content: b"::1 localhost\n".to_vec(), mode: 0o644 },
    ];
    let outcome = run(&spec);
    assert_eq!(outcome.stdout, "data::1 localhost\ntouch: /ro/x: Read-only file system\n644\n2 /etc/hosts\n");
    assert!(shared.join("y").exists());
    assert_eq!(fs::read_to_string(scratch.path("image/etc/hosts")).unwrap(), "of the image");
    assert!(!scratch.path("upper/etc/hosts").exists());
}

fn root_created_mount_points_are_reported() {
    let scratch = Scratch::new();
    std::os::unix::fs::symlink("../run/resolve/stub.conf", scratch.path("image/etc/resolv.conf")).unwrap();
    fs::create_dir(scratch.path("image/proc")).unwrap();
    let mut spec = scratch.spec(&["cat", "/etc/resolv.conf"]);
    spec.mounts = vec![
        Mount::File {
            target: "/etc/resolv.conf".to_owned(),
            content: b"nameserver ::1\n".to_vec(),
            mode: 0o644,
        },
        Mount::Tmpfs { target: "/a/b/".to_owned(), size_bytes: None, mode: 0o755, executable: false },
        Mount::Tmpfs { target: "/dev/inside".to_owned(), size_bytes: None, mode: 0o755, executable: false },
    ];
    let (stdio, out, err) = piped();
    let created = mica_runtime::spawn(&spec, stdio).unwrap();
    let points: Vec<(String, MountPointKind)> = created
        .created_mount_points
        .iter()
        .map(|point| (point.path.to_str().unwrap().to_owned(), point.kind))
        .collect();
    use MountPointKind::{Directory, File};
    let expected = [
        ("/dev", Directory),
        ("/sys", Directory),
        ("/run", Directory),
        ("/run/resolve", Directory),
        ("/run/resolve/stub.conf", File),
        ("/a", Directory),
        ("/a/b", Directory),
    ];
    assert_eq!(points, expected.map(|(path, kind)| (path.to_owned(), kind)));
    assert_eq!(crate::support::finish(created, out, err).unwrap().stdout, "nameserver ::1\n");
}

fn root_mount_targets_stay_inside() {
    let scratch = Scratch::new();
    let outside = scratch.path("outside");
    fs::create_dir(&outside).unwrap();
    std::os::unix::fs::symlink(&outside, scratch.path("image/out")).unwrap();
    std::os::unix::fs::symlink("loop", scratch.path("image/loop")).unwrap();
    let file = |target: &str| Mount::File { target: target.to_owned(), content: b"in".to_vec(), mode: 0o644 };
    let mut spec = scratch.script(&format!("cat /x {}/new", outside.display()));
    spec.mounts = vec![file("/../../../x"), file("/out/new")];
    assert_eq!(run(&spec).stdout, "inin");
    assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    spec.mounts = vec![file("/loop/new")];
    assert!(crate::support::try_run(&spec).is_err());
}

fn root_the_hosts_files_are_out_of_reach() {
    check_script(
        |_| {},
        "ls /; ls /../..; ls -d /work /home /usr 2>/dev/null | wc -l",
        "bin\ndev\netc\nproc\nroot\nsys\ntmp\nbin\ndev\netc\nproc\nroot\nsys\ntmp\n0",
    );
    check_script(|_| {}, "cut -d' ' -f2 /proc/mounts | grep -c -v -E '^/(|proc.*|dev.*|sys.*)$'", "0");
}
