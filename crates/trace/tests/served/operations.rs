//! One operation each on a fresh mount, and what of the tree it uses.

use std::fs::{self, File};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt, symlink};
use std::process::Command;

use mica_tree::Kind;
use rustix::fs::{CWD, Mode, OFlags};

use crate::support::{Stack, words};
use crate::{Actor, Test};

pub const TESTS: &[Test] = &[("operations", operations), ("rootless_operations", operations)];

/// Name, what is done, and what that uses, in the order of an index. The root is always used.
type Operation = (&'static str, fn(), &'static [&'static str]);

const OPERATIONS: &[Operation] = &[
    ("nothing", || {}, &[]),
    ("a name that is not there", || assert!(!fs::exists("none").unwrap()), &["- none"]),
    (
        "the same name again and again",
        || (0..9).for_each(|_| assert!(!fs::exists("none").unwrap())),
        &["- none"],
    ),
    ("a name not there further down", || assert!(!fs::exists("dir/none").unwrap()), &["d dir", "- dir/none"]),
    ("a name below a file", || assert!(fs::metadata("dir/a/b").is_err()), &["d dir", "f dir/a"]),
    ("stat", || assert_eq!(fs::metadata("dir/a").unwrap().len(), 9), &["d dir", "f dir/a"]),
    ("open without reading", || drop(File::open("dir/a").unwrap()), &["d dir", "f dir/a"]),
    (
        "open as a path",
        || drop(rustix::fs::open("dir/a", OFlags::PATH, Mode::empty()).unwrap()),
        &["d dir", "f dir/a"],
    ),
    ("read", || assert_eq!(fs::read("dir/a").unwrap(), b"content a"), &["d dir", "F dir/a"]),
    ("read one byte", || File::open("dir/a").unwrap().read_exact(&mut [0]).unwrap(), &["d dir", "F dir/a"]),
    ("execute", || assert!(Command::new("bin/true").status().unwrap().success()), &["d bin", "F bin/true"]),
    ("open a directory", || drop(File::open("dir").unwrap()), &["d dir"]),
    ("list", || assert_eq!(list("dir"), ["a", "b", "sub"]), &["D dir"]),
    ("list the root", || assert_eq!(list(".").len(), 6), &["D ."]),
    (
        "list and stat",
        || assert!(fs::read_dir("dir").unwrap().all(|entry| entry.unwrap().metadata().is_ok())),
        &["D dir", "f dir/a", "f dir/b", "d dir/sub"],
    ),
    (
        "change the working directory",
        || std::env::set_current_dir("dir/sub").unwrap(),
        &["d dir", "d dir/sub"],
    ),
    ("what a link says", || assert_eq!(fs::read_link("link").unwrap().as_os_str(), "dir/a"), &["l link"]),
    ("stat a link", || assert_eq!(fs::symlink_metadata("link").unwrap().len(), 5), &["l link"]),
    ("through a link", || assert_eq!(fs::read("link").unwrap().len(), 9), &["d dir", "F dir/a", "l link"]),
    ("append", || append("dir/a"), &["d dir", "F dir/a"]),
    ("overwrite", || fs::write("dir/a", "new").unwrap(), &["d dir", "f dir/a"]),
    (
        "read what was written",
        || {
            fs::write("dir/a", "new").unwrap();
            assert_eq!(fs::read("dir/a").unwrap(), b"new")
        },
        &["d dir", "f dir/a"],
    ),
    (
        "change the mode",
        || fs::set_permissions("dir/a", PermissionsExt::from_mode(0o600)).unwrap(),
        &["d dir", "F dir/a"],
    ),
    ("remove", || fs::remove_file("dir/a").unwrap(), &["d dir", "f dir/a"]),
    ("remove a directory", || fs::remove_dir("empty").unwrap(), &["D empty"]),
    ("remove a full directory", || assert!(fs::remove_dir("dir").is_err()), &["D dir"]),
    ("make a file", || fs::write("dir/new", "").unwrap(), &["d dir", "- dir/new"]),
    ("make a link", || symlink("a", "dir/new").unwrap(), &["d dir", "- dir/new"]),
    ("in one's own directory", own_directory, &["- own"]),
    (
        "rename over another",
        || {
            fs::write("new", "").unwrap();
            fs::rename("new", "dir/a").unwrap()
        },
        &["d dir", "f dir/a", "- new"],
    ),
    ("rename to a new name", || fs::rename("dir/a", "dir/c").unwrap(), &["d dir", "F dir/a", "- dir/c"]),
    ("rename a directory", || assert!(fs::rename("dir", "other").is_err()), &["d dir", "- other"]),
    (
        "one name of a file of three",
        || assert_eq!(fs::read("hard/b").unwrap(), b"hard"),
        &["d hard", "F hard/b"],
    ),
    (
        "two names of a file of three",
        || {
            fs::metadata("hard/c").unwrap();
            fs::read("hard/a").unwrap();
        },
        &["d hard", "F hard/a", "F hard/c"],
    ),
    (
        "a device",
        || assert!(fs::metadata("hard/null").unwrap().file_type().is_char_device()),
        &["d hard", "s hard/null"],
    ),
    (
        "a pipe",
        || assert!(fs::metadata("hard/pipe").unwrap().file_type().is_fifo()),
        &["d hard", "s hard/pipe"],
    ),
    ("numbers of the filesystem", || assert!(rustix::fs::statfs(".").is_ok()), &[]),
];

pub const ACTORS: &[Actor] = &{
    let mut actors: [Actor; OPERATIONS.len()] = [("", || {}); OPERATIONS.len()];
    let mut position = 0;
    while position < OPERATIONS.len() {
        actors[position] = (OPERATIONS[position].0, OPERATIONS[position].1);
        position += 1;
    }
    actors
};

fn list(path: &str) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn append(path: &str) {
    File::options().append(true).open(path).unwrap().write_all(b"more").unwrap();
    assert_eq!(fs::read(path).unwrap(), b"content amore");
}

fn own_directory() {
    fs::create_dir("own").unwrap();
    assert!(!fs::exists("own/x").unwrap());
    fs::write("own/x", "").unwrap();
    assert_eq!(list("own"), ["x"]);
    rustix::fs::renameat(CWD, "own/x", CWD, "own/y").unwrap();
}

fn operations() {
    let mut stack = Stack::new();
    let program = fs::read("/bin/true").unwrap();
    let layer = stack.layer();
    layer.directory(b"bin").file(b"bin/true", &program);
    layer.directory(b"dir").file(b"dir/a", b"content a").file(b"dir/b", b"bb").directory(b"dir/sub");
    layer.directory(b"empty").symlink(b"link", b"dir/a");
    layer
        .directory(b"hard")
        .file(b"hard/a", b"hard")
        .hard_link(b"hard/b", b"hard/a")
        .hard_link(b"hard/c", b"hard/a");
    layer.add(b"hard/null", Kind::CharDevice { rdev: (1, 3) }, 0o666);
    layer.add(b"hard/pipe", Kind::Fifo, 0o666);
    layer.directory(b"z");
    let mut wrong = Vec::new();
    for (name, _, expected) in OPERATIONS {
        let (uses, _) = stack.uses(name);
        let mut seen = words(&uses);
        // Whoever makes the upper directory takes the attributes of its root from the tree.
        if seen[0] == "d ." {
            seen.remove(0);
        }
        if seen != *expected {
            wrong.push(format!("{name}: {seen:?} in place of {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
