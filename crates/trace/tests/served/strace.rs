//! A real program, watched by strace at the same time: what it asked for is what was noted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use mica_tree::{Kind, MergedIndex, parent};

use crate::support::{Stack, words};
use crate::{Actor, Test};

pub const TESTS: &[Test] = &[("nothing_that_strace_saw_is_missing", compare)];
pub const ACTORS: &[Actor] = &[("strace", run_strace)];

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: [&str; 20] = [
    "cat", "chmod", "cp", "cut", "find", "grep", "head", "ln", "ls", "md5sum", "mkdir", "mv", "readlink",
    "rm", "sed", "sh", "sort", "stat", "tail", "wc",
];

/// Absolute names only, because the trace below does not follow the working directory.
const SCRIPT: &str = r#"
cat /etc/passwd | grep root | cut -d: -f1
ls /usr/share /none /usr/share/absent
ls -l /var/log
test -e /etc/shadow || test -d /usr/lib || test -x /usr/bin/gcc
readlink /etc/mtab
cat /etc/alias /etc/loop /usr/share/doc/link/README
for n in 1 2 3 4 5 6 7 8 9; do test -f /opt/app/$n && cat /opt/app/$n; stat /opt/app/$n.conf; done
echo more >> /var/log/one
echo new > /var/log/two
mkdir -p /opt/new/deep && echo x > /opt/new/deep/x && cat /opt/new/deep/x
cp /etc/passwd /opt/copy
mv /opt/app/3 /opt/app/three
rm /opt/app/4
ln /opt/app/5 /opt/app/five
ln -s app/6 /opt/six && cat /opt/six
chmod 600 /opt/app/7
find /usr/share -name '*.txt' | sort | head -n 3
rm -r /usr/share/old
md5sum /usr/lib/hard1 /usr/lib/hard2
sed -n 1p /etc/hosts
/usr/bin/tool
exec 3< /etc/issue
"#;

const SYSCALLS: &str =
    "%file,read,pread64,readv,mmap,sendfile,copy_file_range,getdents64,dup,dup2,dup3,fcntl";

fn run_strace() {
    let root = std::env::current_dir().unwrap();
    let log = root.parent().unwrap().parent().unwrap().join("strace");
    let mut command = Command::new("strace");
    command
        .args(["-f", "-y", "-qq", "-s", "4096", "-e", "signal=none", "-e"])
        .arg(format!("trace={SYSCALLS}"));
    command.arg("-o").arg(&log).args(["chroot"]).arg(&root).args(["/bin/sh", "/script"]);
    command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.status().unwrap();
    println!("{}", root.display());
}

fn reason_to_skip() -> Option<&'static str> {
    let bytes = fs::read(BUSYBOX).unwrap_or_default();
    if bytes.is_empty() || bytes.windows(8).take(4096).any(|window| window == b"/lib64/l") {
        return Some("needs a statically linked busybox in /bin");
    }
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    (!traced.is_ok_and(|status| status.success())).then_some("needs strace, and ptrace allowed")
}

fn stack() -> Stack {
    let busybox = fs::read(BUSYBOX).unwrap();
    let mut stack = Stack::new();
    let layer = stack.layer();
    for path in [
        "bin",
        "etc",
        "none2",
        "opt",
        "opt/app",
        "proc",
        "usr",
        "usr/bin",
        "usr/lib",
        "usr/share",
        "usr/share/doc",
        "usr/share/doc/real",
        "usr/share/old",
        "usr/share/old/deep",
        "var",
        "var/log",
    ] {
        layer.directory(path.as_bytes());
    }
    layer.file(b"bin/busybox", &busybox).file(b"script", SCRIPT.as_bytes());
    for applet in APPLETS {
        layer.symlink(format!("bin/{applet}").as_bytes(), b"busybox");
    }
    layer
        .file(b"etc/passwd", b"root:x:0:0::/:/bin/sh\n")
        .file(b"etc/hosts", b"127.0.0.1 localhost\n")
        .file(b"etc/issue", b"x");
    layer
        .symlink(b"etc/mtab", b"/proc/mounts")
        .symlink(b"etc/alias", b"passwd")
        .symlink(b"etc/loop", b"loop");
    layer.symlink(b"usr/share/doc/link", b"real").file(b"usr/share/doc/real/README", b"read me");
    layer.file(b"usr/share/a.txt", b"a").file(b"usr/share/doc/b.txt", b"b").file(b"usr/share/old/x", b"x");
    layer.file(b"usr/share/old/deep/y", b"y").file(b"var/log/one", b"1").file(b"var/log/two", b"2");
    layer
        .file(b"usr/lib/hard1", b"hard")
        .hard_link(b"usr/lib/hard2", b"usr/lib/hard1")
        .hard_link(b"usr/lib/hard3", b"usr/lib/hard1");
    layer.file(b"usr/bin/tool", b"#!/bin/sh\nread line < /etc/hosts\n");
    for number in 1..8 {
        layer.file(format!("opt/app/{number}").as_bytes(), b"app");
    }
    stack
}

/// What a line of the trace shows to have been used; [`words`] of it.
struct Expected<'a> {
    tree: &'a MergedIndex,
    root: String,
    words: BTreeSet<String>,
    // Names that the step has changed: what is there now is its own.
    own: BTreeSet<Vec<u8>>,
}

impl Expected<'_> {
    fn line(&mut self, line: &str) {
        let Some((call, rest)) = line.split_once(' ').and_then(|(_, line)| line.trim_start().split_once('('))
        else {
            return;
        };
        let Some((arguments, result)) = rest.rsplit_once(" = ") else { return };
        let is_done = !result.starts_with("-1") && !result.starts_with('?');
        if !(is_done || result.contains("ENOENT")) {
            return;
        }
        // The second descriptor is the one that sendfile(2) reads from.
        let path = self.path_of_descriptor(arguments, usize::from(call == "sendfile"));
        match (call, path) {
            ("getdents64", Some(path)) => self.word('D', &path),
            ("read" | "pread64" | "readv" | "mmap" | "sendfile" | "copy_file_range", Some(path))
                if is_done =>
            {
                self.word('F', &path);
            }
            ("execve", _) if is_done => {
                let Some(path) = quoted(arguments).next() else { return };
                self.name(&path, true);
                if let Ok(Some(found)) = self.tree.resolve(path.as_bytes(), true) {
                    self.word('F', &found.path);
                }
            }
            ("rename" | "renameat" | "renameat2" | "link" | "linkat", _) => {
                quoted(arguments).for_each(|path| self.changed(&path))
            }
            ("symlink" | "symlinkat", _) => quoted(arguments).skip(1).for_each(|path| self.changed(&path)),
            ("unlink" | "unlinkat" | "rmdir" | "mkdir" | "mkdirat", _) => {
                quoted(arguments).for_each(|path| self.changed(&path))
            }
            ("open" | "openat", _) if arguments.contains("O_WRONLY") || arguments.contains("O_RDWR") => {
                quoted(arguments).for_each(|path| self.changed(&path));
            }
            (
                "open" | "openat" | "stat" | "access" | "faccessat" | "faccessat2" | "chmod" | "fchmodat"
                | "chdir",
                _,
            ) => {
                let follows = !arguments.contains("O_NOFOLLOW");
                quoted(arguments).take(1).for_each(|path| self.name(&path, follows));
            }
            ("newfstatat" | "statx", _) => {
                let follows = !arguments.contains("AT_SYMLINK_NOFOLLOW");
                quoted(arguments).take(1).for_each(|path| self.name(&path, follows));
            }
            ("lstat" | "readlink" | "readlinkat", _) => {
                quoted(arguments).take(1).for_each(|path| self.name(&path, false))
            }
            _ => {}
        }
    }

    /// The path, in the tree, of a descriptor among the arguments.
    fn path_of_descriptor(&self, arguments: &str, which: usize) -> Option<Vec<u8>> {
        let path = arguments.split('<').nth(which + 1)?.split_once('>')?.0.strip_prefix(&self.root)?;
        Some(path.trim_start_matches('/').as_bytes().to_vec())
    }

    fn is_own(&self, path: &[u8]) -> bool {
        std::iter::successors(Some(path), |path| parent(path)).any(|path| self.own.contains(path))
    }

    fn word(&mut self, letter: char, path: &[u8]) {
        if self.is_own(path) || self.tree.get(path).is_none() {
            return;
        }
        let path = String::from_utf8_lossy(path);
        self.words.insert(format!("{letter} {}", if path.is_empty() { "." } else { &path }));
    }

    /// A name was looked up, found or not.
    fn name(&mut self, path: &str, follows: bool) {
        if !path.starts_with('/') {
            return;
        }
        let asked = path.trim_matches('/').as_bytes();
        for follow in [false, follows] {
            let Ok(resolved) = self.tree.resolve(asked, follow) else { continue };
            match resolved {
                Some(found) => self.word(letter(found.entry.map(|entry| &entry.kind)), &found.path),
                None => {
                    let Ok(path) = self.tree.resolve_for_create(asked) else { continue };
                    let is_in_tree = parent(&path)
                        .and_then(|above| self.tree.get(above))
                        .is_some_and(mica_tree::Entry::is_directory);
                    if is_in_tree && !self.is_own(&path) {
                        self.words.insert(format!("- {}", String::from_utf8_lossy(&path)));
                    }
                }
            }
        }
    }

    /// A name was looked up and is the step's own from now on.
    fn changed(&mut self, path: &str) {
        self.name(path, false);
        let path = path.trim_matches('/').as_bytes();
        if let Ok(path) = self.tree.resolve_for_create(path) {
            self.own.insert(path);
        }
    }
}

fn letter(kind: Option<&Kind>) -> char {
    match kind {
        None | Some(Kind::Directory { .. }) => 'd',
        Some(Kind::Symlink { .. }) => 'l',
        Some(Kind::File { .. } | Kind::Hardlink { .. }) => 'f',
        Some(_) => 's',
    }
}

/// The strings among the arguments.
fn quoted(arguments: &str) -> impl Iterator<Item = String> + '_ {
    arguments.split('"').skip(1).step_by(2).map(str::to_owned)
}

fn compare() {
    if let Some(reason) = reason_to_skip() {
        println!("skipped: {reason}");
        return;
    }
    let stack = stack();
    let (uses, output) = stack.uses("strace");
    let root = String::from_utf8(output.stdout).unwrap().lines().last().unwrap().to_owned();
    assert!(Path::new(&root).is_dir());
    let log = fs::read_to_string(stack.directory.path().join("strace")).unwrap();
    let tree = stack.tree();
    let mut expected = Expected { tree: &tree, root, words: BTreeSet::new(), own: BTreeSet::new() };
    // What comes before is chroot(1), outside.
    for line in joined(&log).iter().skip_while(|line| !line.contains(" chroot(")) {
        expected.line(line);
    }
    let seen: BTreeSet<String> = words(&uses).into_iter().collect();
    // Whatever was read or listed was looked up as well.
    let is_seen = |word: &String| {
        let (letter, path) = word.split_at(1);
        seen.contains(word)
            || matches!(letter, "f" | "d") && seen.contains(&format!("{}{path}", letter.to_uppercase()))
    };
    let missing: Vec<&String> = expected.words.iter().filter(|word| !is_seen(word)).collect();
    assert!(missing.is_empty(), "strace saw {missing:?}\nnoted: {seen:?}");
    for (letter, least) in [('-', 15), ('f', 8), ('F', 15), ('d', 5), ('D', 6), ('l', 6)] {
        let count = expected.words.iter().filter(|word| word.starts_with(letter)).count();
        assert!(
            count >= least,
            "{count} of `{letter}`: the comparison sees too little: {:?}",
            expected.words
        );
    }
}

/// The lines of the trace, those that were interrupted by another process put together.
fn joined(log: &str) -> Vec<String> {
    let mut unfinished: BTreeMap<&str, &str> = BTreeMap::new();
    let mut lines = Vec::new();
    for line in log.lines() {
        let Some((process, call)) = line.split_once(' ') else { continue };
        if let Some(begin) = call.strip_suffix(" <unfinished ...>") {
            unfinished.insert(process, begin);
        } else if let Some((_, end)) =
            call.split_once(" resumed>").filter(|_| call.trim_start().starts_with("<..."))
        {
            lines.push(format!("{process} {}{end}", unfinished.remove(process).unwrap_or_default()));
        } else {
            lines.push(line.to_owned());
        }
    }
    lines
}
