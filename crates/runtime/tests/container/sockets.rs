//! Whether a container opened a way to the network.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use mica_runtime::spec::{Mount, Seccomp, UserSpec};
use mica_runtime::{CapabilitySet, ContainerSpec, Stdio, Stream};
use mica_sys::process::BpfInstruction;
use rustix::net::{AddressFamily, SocketType};

use crate::Test;
use crate::support::{Scratch, finish, piped};

pub const TESTS: &[Test] = &[
    ("root_sockets_are_told_of_by_their_family", root_sockets_are_told_of_by_their_family),
    ("root_sockets_are_told_of_whoever_opens_them", root_sockets_are_told_of_whoever_opens_them),
    ("root_many_processes_open_many_sockets", root_many_processes_open_many_sockets),
    ("root_a_watch_leaves_no_descriptor_behind", root_a_watch_leaves_no_descriptor_behind),
    ("root_a_watch_ends_with_its_container", root_a_watch_ends_with_its_container),
    ("root_a_watch_ends_before_its_container", root_a_watch_ends_before_its_container),
    ("root_without_a_listener_there_is_no_watch", root_without_a_listener_there_is_no_watch),
];

/// Opens sockets: `open-sockets FAMILY COUNT PROCESSES`; each process tells when it has its first.
pub fn child_main_if_requested() {
    let arguments: Vec<String> = std::env::args().collect();
    let [program, verb, family, count, processes] = arguments.as_slice() else { return };
    if verb != "open-sockets" {
        return;
    }
    let processes: usize = processes.parse().unwrap();
    if processes > 1 {
        let start = |_| Command::new(program).args([verb, family, count, "1"]).spawn().unwrap();
        let mut children: Vec<_> = (0..processes).map(start).collect();
        assert!(children.iter_mut().all(|child| child.wait().unwrap().success()));
    } else {
        let family = AddressFamily::from_raw(family.parse().unwrap());
        for position in 0..count.parse::<usize>().unwrap() {
            drop(rustix::net::socket(family, SocketType::DGRAM, None).unwrap());
            if position == 0 {
                println!("opened");
            }
        }
    }
    std::process::exit(0);
}

/// This program in a container, with the libraries that it needs.
fn add_program(scratch: &Scratch, spec: &mut ContainerSpec) {
    fs::copy("/proc/self/exe", scratch.path("image/bin/program")).unwrap();
    for directory in ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|path| Path::new(path).exists()) {
        spec.mounts.push(Mount::Bind {
            source: directory.into(),
            target: directory.to_owned(),
            read_only: true,
            recursive: false,
        });
    }
}

pub fn used(spec: &ContainerSpec) -> (bool, i32) {
    let (stdio, out, err) = piped();
    let mut created = mica_runtime::spawn(spec, stdio).unwrap();
    let watch = created.sockets.take().unwrap();
    let outcome = finish(created, out, err).unwrap();
    (watch.used(), outcome.status.code())
}

fn root_sockets_are_told_of_by_their_family() {
    for (family, count, expected) in [
        (AddressFamily::INET, 0, false),
        (AddressFamily::UNIX, 3, false),
        (AddressFamily::INET, 1, true),
        (AddressFamily::INET6, 1, true),
        (AddressFamily::PACKET, 1, true),
    ] {
        let scratch = Scratch::new();
        let family = family.as_raw().to_string();
        let mut spec = scratch.spec(&["program", "open-sockets", &family, &count.to_string(), "1"]);
        add_program(&scratch, &mut spec);
        assert!(mica_runtime::spawn(&spec, Stdio::default()).unwrap().sockets.is_none());
        for name in ["upper", "work"] {
            fs::remove_dir_all(scratch.path(name)).unwrap();
            fs::create_dir(scratch.path(name)).unwrap();
        }
        spec.watch_sockets = true;
        assert_eq!(used(&spec), (expected, 0), "{family} {count}");
    }
}

fn root_sockets_are_told_of_whoever_opens_them() {
    type Change = (&'static str, fn(&mut ContainerSpec));
    let changes: [Change; 7] = [
        ("as it is", |_| {}),
        ("privileged", |spec| spec.process.privileged = true),
        ("unconfined", |spec| spec.process.seccomp = Seccomp::Unconfined),
        ("anna", |spec| spec.process.user = UserSpec::Names("anna".to_owned())),
        ("no capabilities", |spec| spec.process.capabilities = CapabilitySet::NONE),
        ("no new privileges", |spec| spec.process.no_new_privileges = true),
        ("init", |spec| spec.init = true),
    ];
    for (name, change) in changes {
        for (script, expected) in [
            ("true", false),
            ("busybox logger x", false),
            ("busybox nc -w 1 127.0.0.1 9", true),
            ("busybox nc -w 1 ::1 9", true),
            ("(sh -c 'sh -c \"busybox nc -w 1 127.0.0.1 9\"' & wait) | cat", true),
        ] {
            let scratch = Scratch::new();
            let mut spec = scratch.script(&format!("{script}; exit 7"));
            spec.watch_sockets = true;
            change(&mut spec);
            assert_eq!(used(&spec), (expected, 7), "{name}: {script}");
        }
    }
    // Two descriptors come with the report then.
    let scratch = Scratch::new();
    let mut spec = scratch.script("busybox nc -w 1 127.0.0.1 9 </dev/null; exit 7");
    spec.watch_sockets = true;
    spec.process.terminal = true;
    let created = mica_runtime::spawn(&spec, Stdio::default()).unwrap();
    assert!(rustix::termios::isatty(created.terminal.as_ref().unwrap()));
    let mut running = created.start().unwrap();
    assert_eq!(running.wait().unwrap().code(), 7);
    assert!(running.sockets.take().unwrap().used());
}

fn root_many_processes_open_many_sockets() {
    for watch in [false, true] {
        let scratch = Scratch::new();
        let mut spec = scratch.spec(&["program", "open-sockets", "2", "2000", "16"]);
        add_program(&scratch, &mut spec);
        spec.watch_sockets = watch;
        let begin = Instant::now();
        let (stdio, out, err) = piped();
        let mut created = mica_runtime::spawn(&spec, stdio).unwrap();
        let sockets = created.sockets.take();
        let outcome = finish(created, out, err).unwrap();
        println!("16 processes, 2000 sockets each, watched {watch}: {:?}", begin.elapsed());
        assert_eq!(outcome.status.code(), 0, "{outcome:?}");
        assert_eq!(sockets.map(mica_runtime::SocketWatch::used), watch.then_some(true));
    }
}

fn root_a_watch_leaves_no_descriptor_behind() {
    for init in [false, true] {
        let scratch = Scratch::new();
        let all = CapabilitySet::DEFAULT.with(CapabilitySet::parse_name("SYS_PTRACE").unwrap());
        let mut spec = scratch.script("readlink /proc/1/fd/* /proc/self/fd/* | grep -c seccomp");
        spec.process.capabilities = all;
        spec.watch_sockets = true;
        spec.init = init;
        let (stdio, out, err) = piped();
        assert_eq!(
            finish(mica_runtime::spawn(&spec, stdio).unwrap(), out, err).unwrap().stdout,
            "0\n",
            "{init}"
        );
    }
    let watches = || {
        let fds = fs::read_dir("/proc/self/fd").unwrap().flatten();
        fds.filter(|fd| {
            fs::read_link(fd.path()).is_ok_and(|link| link.ends_with("anon_inode:seccomp notify"))
        })
        .count()
    };
    assert_eq!(watches(), 0);
}

/// A container is killed, or let go of, while it opens sockets and its watch is wherever it is.
fn root_a_watch_ends_with_its_container() {
    for way in ["killed", "dropped", "not started", "not there"] {
        let scratch = Scratch::new();
        let mut spec = scratch.spec(&["program", "open-sockets", "2", "1000000", "4"]);
        add_program(&scratch, &mut spec);
        spec.watch_sockets = true;
        if way == "not there" {
            spec.process.argv = vec!["nothing".to_owned()];
        }
        let stdio = Stdio { stdin: Stream::Null, stdout: Stream::Null, stderr: Stream::Null };
        let Ok(mut created) = mica_runtime::spawn(&spec, stdio) else {
            assert_eq!(way, "not there");
            continue;
        };
        match way {
            "not started" => {
                let watch = created.sockets.take().unwrap();
                drop(created);
                assert!(!watch.used());
            }
            "dropped" => drop(created.start().unwrap()),
            _ => {
                let mut running = created.start().unwrap();
                let watch = running.sockets.take().unwrap();
                running.kill(libc::SIGKILL).unwrap();
                assert_eq!(running.wait().unwrap().code(), 137);
                watch.used();
            }
        }
    }
}

/// Processes under the filter may live on (in the host's pid namespace): that is nothing to wait for.
fn root_a_watch_ends_before_its_container() {
    for (command, expected) in
        [("echo; sleep 60", false), ("program open-sockets 2 1000000 8 || sleep 60", true)]
    {
        let scratch = Scratch::new();
        let mut spec = scratch.script(command);
        add_program(&scratch, &mut spec);
        spec.watch_sockets = true;
        let (stdio, mut out, _err) = piped();
        let mut running = mica_runtime::spawn(&spec, stdio).unwrap().start().unwrap();
        out.read_exact(&mut [0]).unwrap();
        let watch = running.sockets.take().unwrap();
        assert_eq!(watch.used(), expected);
        running.kill(libc::SIGKILL).unwrap();
        assert_eq!(running.wait().unwrap().code(), 137, "{command}");
    }
}

fn root_without_a_listener_there_is_no_watch() {
    // Filters are of a thread and of what it starts: this one has a listener, and no second may have one.
    let status = std::thread::spawn(|| {
        let allow = BpfInstruction { code: 6, jump_true: 0, jump_false: 0, value: 0x7fff_0000 };
        let _listener = mica_sys::process::load_seccomp_listener(&[allow]).unwrap();
        let scratch = Scratch::new();
        let mut spec = scratch.script("busybox nc -w 1 127.0.0.1 9 </dev/null 2>/dev/null; exit 7");
        spec.watch_sockets = true;
        let created = mica_runtime::spawn(&spec, Stdio::default()).unwrap();
        assert!(created.sockets.is_none());
        created.start().unwrap().wait().unwrap().code()
    });
    assert_eq!(status.join().unwrap(), 7);
}
