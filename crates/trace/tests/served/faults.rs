//! Servers that die, layers that are not what their index says, steps that use too much: nobody waits for ever, and nothing
//! is said of what was seen.

use std::fs;
use std::io::{self, Read as _};
use std::process::{Command, Stdio};
use std::sync::Arc;

use mica_trace::{Contents, Fault, Files, NoContents, ServeError, ServeOptions, Value, probe, serve};
use mica_tree::{Kind, MergedIndex};
use rustix::io::Errno;

use crate::support::{Stack, temporary_directory, words};
use crate::{Actor, Test};

pub const TESTS: &[Test] = &[
    ("a_server_that_fails_leaves_nobody_waiting", dying),
    ("a_server_that_is_killed_leaves_nobody_waiting", killed),
    ("a_server_that_panics_leaves_nobody_waiting", panicking),
    ("damaged_layers_are_told", damaged),
    ("rootless_damaged_layers_are_told", damaged),
    ("contents_without_digest_are_asked_for", contents),
    ("too_many_uses_are_told", too_many),
    ("too_long_paths_are_told", too_long),
    ("an_end_with_somebody_inside_waits_for_nobody", somebody_inside),
    ("servers_that_nobody_ends_end", dropped),
    ("what_is_missing_is_told", unavailable),
    ("rootless_what_is_missing_is_told", || assert!(probe().is_ok(), "{:?}", probe())),
];

/// Run by tests as processes of their own.
pub const BODIES: &[Test] = &[
    ("body of a server that fails", dying_body),
    ("body of a server that is killed", dying_body),
    ("body without a device", without_device),
    ("body without permission", without_permission),
];

pub const ACTORS: &[Actor] = &[
    ("look everywhere", look_everywhere),
    ("look at many", || (0..100).for_each(|number| assert!(!fs::exists(format!("none{number}")).unwrap()))),
    ("look from deep down", || look_from_deep_down(DEEP)),
    ("look from deeper down", || look_from_deep_down(DEEP + 1)),
    ("read all", read_all),
    ("wait", wait),
];

/// Walks whatever it can, errors or not.
fn look_everywhere() {
    let mut directories = vec![std::path::PathBuf::from(".")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
            let _ = fs::read(entry.path());
        }
    }
}

fn stack() -> Stack {
    let mut stack = Stack::new();
    let layer = stack.layer();
    for number in 0..20 {
        let directory = format!("dir{number:02}");
        layer.directory(directory.as_bytes()).file(format!("{directory}/file").as_bytes(), b"content");
    }
    stack
}

fn body(name: &str, fail_point: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.args(["test", name]).env("MICA_FAIL_POINT", fail_point);
    command
}

fn dying_body() {
    let (observed, output) = stack().observe("look everywhere");
    // Nothing hangs: the step ends, whatever it makes of the errors.
    drop(output);
    assert!(matches!(observed.fault, Some(Fault::Died { .. })), "{:?}", observed.fault);
    assert_eq!((observed.uses, observed.overflow), (None, false));
}

fn dying() {
    // The first request is the mount's own.
    for position in [1, 2, 3, 10, 50] {
        let status =
            body("body of a server that fails", &format!("trace.serve.request:{position}:fail")).status();
        assert!(status.unwrap().success(), "request {position}");
    }
}

fn killed() {
    for position in [2, 10, 50] {
        let mut command =
            body("body of a server that is killed", &format!("trace.serve.request:{position}:kill"));
        // Who is killed takes nothing away.
        let directory = temporary_directory();
        command.env("MICA_TEST_DIR", directory.path());
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        // The one inside has this stream as well: its end is the end of both.
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert!(!child.wait().unwrap().success(), "request {position}");
    }
}

struct Panicking;

impl Files for Panicking {
    fn open(&self, _: &MergedIndex, _: usize) -> io::Result<fs::File> {
        panic!("as the test wants it");
    }
}

fn panicking() {
    let stack = stack();
    let served = serve(stack.tree(), Arc::new(Panicking), ServeOptions::default()).unwrap();
    stack.command(&served, "look everywhere").output().unwrap();
    let observed = served.finish(&NoContents);
    assert_eq!(observed.fault, Some(Fault::Died { reason: "it panicked".into() }));
    assert_eq!(observed.uses, None);
}

/// Says of each file whether it could be read.
fn read_all() {
    for entry in fs::read_dir(".").unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        println!("{name} {:?}", fs::read(entry.path()).map_err(|error| error.raw_os_error()));
    }
}

fn damaged() {
    type Change = fn(&std::path::Path);
    let changes: [(&str, Change); 6] = [
        ("shorter", |path| fs::write(path, "conte").unwrap()),
        ("longer", |path| fs::write(path, "content and more").unwrap()),
        ("empty", |path| fs::write(path, "").unwrap()),
        ("gone", |path| fs::remove_file(path).unwrap()),
        ("a directory", |path| {
            fs::remove_file(path).unwrap();
            fs::create_dir(path).unwrap();
        }),
        ("a device", |path| {
            fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        }),
    ];
    for (name, change) in changes {
        let mut stack = Stack::new();
        stack.layer().file(b"whole", b"whole");
        stack.layer().file(b"broken", b"content");
        change(&stack.layer_directory(1).join("broken"));
        let (observed, output) = stack.observe("read all");
        let output = String::from_utf8(output.stdout).unwrap();
        // The step learns of it as of any broken disk, and goes on with the rest.
        let (broken, whole) = (
            format!("broken Err(Some({}))\n", Errno::IO.raw_os_error()),
            format!("whole Ok({:?})\n", b"whole"),
        );
        assert_eq!(output, broken + &whole, "{name}");
        let Some(Fault::Damaged { layer: 1, path, reason }) = observed.fault else {
            panic!("{name}: {:?}", observed.fault)
        };
        assert_eq!(path, b"broken");
        assert!(!reason.is_empty());
        assert_eq!(observed.uses, None, "{name}");
    }
}

struct ByPosition(usize);

impl Contents for ByPosition {
    fn content(&self, position: usize) -> io::Result<[u8; 32]> {
        assert_eq!(position, self.0, "only what was read is asked for");
        Ok([7; 32])
    }
}

fn contents() {
    let mut stack = Stack::new();
    stack.layer();
    let layer = stack.layer().without_digests();
    layer.file(b"a", b"content").add(b"b", Kind::Fifo, 0o600);
    layer.file_elsewhere(b"c", b"never read");
    let tree = stack.tree();
    for (contents, expected) in [
        (&ByPosition(tree.position(b"a").unwrap()) as &dyn Contents, Ok([7; 32])),
        (&NoContents, Err(Fault::Damaged { layer: 1, path: b"a".to_vec(), reason: String::new() })),
    ] {
        let served = stack.serve();
        let file =
            rustix::fs::openat(served.mount(), "a", rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
        let mut buffer = [0; 100];
        assert_eq!(rustix::io::read(file.unwrap(), &mut buffer).unwrap(), 7);
        let observed = served.finish(contents);
        match (expected, observed.fault) {
            (Ok(digest), None) => {
                let uses = observed.uses.unwrap();
                assert_eq!(words(&uses), ["d .", "F a"]);
                assert!(
                    matches!(uses.uses[1].value, Value::File { content: Some(content), .. } if content == digest)
                );
            }
            (
                Err(Fault::Damaged { layer, path, .. }),
                Some(Fault::Damaged { layer: seen, path: seen_path, .. }),
            ) => {
                assert_eq!((layer, path), (seen, seen_path));
            }
            other => panic!("{other:?}"),
        }
    }
}

fn too_many() {
    // The root is one use.
    for (limit_uses, expected) in [(101, false), (100, true), (5, true), (0, true)] {
        let (observed, output) =
            stack().observe_with("look at many", ServeOptions { limit_uses }, &NoContents);
        assert!(output.status.success(), "the step goes on");
        assert_eq!((observed.overflow, observed.uses.is_none()), (expected, expected), "{limit_uses}");
        assert_eq!(observed.fault, None);
        assert!(observed.requests > 100, "{}", observed.requests);
    }
}

const DEEP: usize = 19;

fn look_from_deep_down(depth: usize) {
    for _ in 0..depth {
        std::env::set_current_dir("n".repeat(200)).unwrap();
    }
    assert!(!fs::exists("m".repeat(255)).unwrap());
}

fn too_long() {
    let mut stack = Stack::new();
    let layer = stack.layer();
    let paths = (1..=DEEP).map(|count| vec!["n".repeat(200); count].join("/"));
    for path in paths {
        layer.directory(path.as_bytes());
    }
    let (observed, output) = stack.observe("look from deep down");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    // 19 names of 200 bytes and one of 255 with their separators are 4,074 bytes, which a record can hold.
    assert!(!observed.overflow && observed.uses.is_some());
    stack
        .layer()
        .directory(format!("{}/{}", vec!["n".repeat(200); DEEP].join("/"), "n".repeat(200)).as_bytes());
    let (observed, _) = stack.observe("look from deeper down");
    assert_eq!((observed.overflow, observed.uses), (true, None));
}

/// Says that it is there, and looks again when told to.
fn wait() {
    println!("ready");
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    println!("{:?}", fs::metadata("dir00/file").map_err(|error| error.raw_os_error()).map(drop));
}

fn somebody_inside() {
    let stack = stack();
    let served = stack.serve();
    let mut command = stack.command(&served, "wait");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut output = io::BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    io::BufRead::read_line(&mut output, &mut line).unwrap();
    assert_eq!(line, "ready\n");
    let observed = served.finish(&NoContents);
    assert_eq!((observed.fault, observed.overflow), (None, false));
    assert!(observed.uses.is_some());
    drop(child.stdin.take());
    let mut rest = String::new();
    output.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, format!("Err(Some({}))\n", Errno::NOTCONN.raw_os_error()));
    assert!(child.wait().unwrap().success());
}

fn dropped() {
    let stack = stack();
    for _ in 0..100 {
        drop(stack.serve());
    }
    // Each has a thread and three descriptors while it lives; the threads end by themselves.
    let alive = || fs::read_dir("/proc/self/task").unwrap().count();
    for _ in 0..1000 {
        if alive() == 1 {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(alive(), 1);
    assert!(fs::read_dir("/proc/self/fd").unwrap().count() < 10);
}

fn unavailable() {
    assert!(probe().is_ok(), "{:?}", probe());
    for name in ["body without a device", "body without permission"] {
        assert!(body(name, "").status().unwrap().success(), "{name}");
    }
}

fn without_device() {
    use mica_sys::mount;
    mica_sys::namespace::unshare(mica_sys::namespace::Namespaces::MOUNT).unwrap();
    mount::make_all_private().unwrap();
    let empty = mount::new_filesystem("tmpfs", &[], mount::MountAttrFlags::empty()).unwrap();
    let place = rustix::fs::open("/dev", rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
    mount::attach(empty, place, "/dev".as_ref()).unwrap();
    let error = probe().unwrap_err();
    assert!(matches!(error, ServeError::NoDevice), "{error:?}");
    assert!(error.to_string().contains("modprobe fuse"));
}

fn without_permission() {
    mica_sys::process::set_ids(54_321, 54_321).unwrap();
    let error = probe().unwrap_err();
    // Where everybody may open the device, it is the mount that is refused.
    assert!(matches!(error, ServeError::DeviceDenied | ServeError::Mount(_)), "{error:?}");
    assert!(error.to_string().contains("chmod") || error.to_string().contains("refuses"), "{error}");
}
