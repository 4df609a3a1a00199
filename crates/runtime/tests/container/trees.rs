//! Mounts that are attached nowhere as lowers. A tmpfs and a clone stand in for the filesystems that callers serve.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use mica_runtime::spec::{Lower, Mount};
use mica_runtime::{ContainerSpec, RuntimeError};
use mica_sys::mount::{self, MountAttrFlags};

use crate::Test;
use crate::support::{Outcome, Scratch, piped, try_run_with_trees};

pub const TESTS: &[Test] = &[
    ("root_a_tree_is_a_lower", root_a_tree_is_a_lower),
    ("root_a_tree_is_seen_through_the_overlay_only", root_a_tree_is_seen_through_the_overlay_only),
    ("root_paths_of_trees_are_mounted", root_paths_of_trees_are_mounted),
    ("root_mounts_of_one_tree_are_apart", root_mounts_of_one_tree_are_apart),
    ("root_trees_that_are_not_there_are_told", root_trees_that_are_not_there_are_told),
];

/// A tmpfs that is attached nowhere, and its files by way of its descriptor.
pub fn new_tree() -> (OwnedFd, PathBuf) {
    let tree = mount::new_filesystem("tmpfs", &[("mode", "755")], MountAttrFlags::empty()).unwrap();
    let path = PathBuf::from(format!("/proc/self/fd/{}", tree.as_raw_fd()));
    (tree, path)
}

fn write_files(root: &Path) {
    for directory in ["deep/er", "etc"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join("deep/er/file"), "deep").unwrap();
    fs::write(root.join("etc/passwd"), "of the tree").unwrap();
    for (name, target) in [
        ("to-file", "deep/er/file"),
        ("to-root", "/deep"),
        ("deep/up", "../../../../../../etc"),
        ("absolute", "/etc/passwd"),
        ("host", "/proc/self/root/etc"),
        ("loop", "loop"),
    ] {
        symlink(target, root.join(name)).unwrap();
    }
}

fn make(scratch: &Scratch, name: &str) -> PathBuf {
    let path = scratch.path(name);
    fs::create_dir_all(&path).unwrap();
    path
}

fn lower(scratch: &Scratch, descriptor: usize, place: &str) -> Lower {
    Lower::Tree { descriptor, place: make(scratch, place) }
}

/// A mount of the tree of descriptor 0, with changes in `changes`.
fn tree_mount(scratch: &Scratch, changes: &str, source: &str, target: &str, read_only: bool) -> Mount {
    Mount::Tree {
        descriptor: 0,
        place: make(scratch, "place"),
        upper: make(scratch, &format!("{changes}/up")),
        work: make(scratch, &format!("{changes}/work")),
        userxattr: false,
        source: source.to_owned(),
        target: target.to_owned(),
        read_only,
    }
}

fn run(spec: &ContainerSpec, trees: &[OwnedFd]) -> Outcome {
    try_run_with_trees(spec, trees).unwrap_or_else(|error| panic!("{error}"))
}

fn root_a_tree_is_a_lower() {
    for cloned in [false, true] {
        let scratch = Scratch::new();
        let (tmpfs, files) = new_tree();
        let source = if cloned { make(&scratch, "source") } else { files };
        write_files(&source);
        let tree = if cloned { mount::clone_tree(rustix::fs::CWD, &source, false).unwrap() } else { tmpfs };
        let below = mount::clone_tree(rustix::fs::CWD, scratch.path("image"), false).unwrap();
        let mut spec = scratch.script(
            "cat /etc/passwd /to-file /top; ls /bin | grep -c '^sh$'; echo changed > /deep/er/file; ls -d /proc/1/fd/[3-9]",
        );
        let top = make(&scratch, "top");
        fs::write(top.join("top"), "-top").unwrap();
        spec.rootfs = scratch.overlay_of(vec![
            Lower::Directory(top),
            lower(&scratch, 1, "place, with: odd\\name"),
            lower(&scratch, 0, "below"),
            // Again, at another place: it has one already.
            lower(&scratch, 1, "never"),
        ]);
        let outcome = run(&spec, &[below, tree]);
        assert_eq!(outcome.stdout, "of the treedeep-top1\n", "{outcome:?}");
        assert_eq!(fs::read_to_string(scratch.path("upper/deep/er/file")).unwrap(), "changed\n");
        if cloned {
            assert_eq!(fs::read_to_string(source.join("deep/er/file")).unwrap(), "deep");
        }
    }
}

fn mount_points(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mut points: Vec<_> =
        text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect();
    points.sort();
    points
}

fn root_a_tree_is_seen_through_the_overlay_only() {
    let before = mount_points("self");
    let inside = |with_trees: bool| {
        let scratch = Scratch::new();
        let ((first, _), (second, files)) = (new_tree(), new_tree());
        write_files(&files);
        let mut spec = scratch.script("true");
        if with_trees {
            let image = Lower::Directory(scratch.path("image"));
            spec.rootfs = scratch.overlay_of(vec![lower(&scratch, 1, "place-of-rootfs"), image]);
            spec.mounts.push(tree_mount(&scratch, "changes", "", "/tmp", false));
        } else {
            spec.mounts.push(Mount::Tmpfs {
                target: "/tmp".to_owned(),
                size_bytes: None,
                mode: 0o755,
                executable: false,
            });
        }
        // All of the host's mounts are cloned into the container: the trees' places must be empty by then.
        spec.mounts.push(Mount::Bind {
            source: scratch.directory.path().to_owned(),
            target: "/all".to_owned(),
            read_only: true,
            recursive: true,
        });
        let (stdio, ..) = piped();
        let trees = [first, second];
        let trees = trees.each_ref().map(std::os::fd::AsFd::as_fd);
        let created = mica_runtime::spawn_with_trees(&spec, stdio, &trees).unwrap();
        assert_eq!(mount_points("self"), before);
        let points = mount_points(&created.pid().to_string());
        assert_eq!(created.start().unwrap().wait().unwrap().code(), 0);
        points.into_iter().filter(|point| !point.ends_with("/upper")).collect::<Vec<_>>()
    };
    assert_eq!(inside(true), inside(false));
    assert_eq!(mount_points("self"), before);
}

fn root_paths_of_trees_are_mounted() {
    let missing = |source: &str| format!("error: container set-up failed at mounts: openat2 `{source}`: ");
    for (source, script, expected) in [
        ("", "cat /m/deep/er/file", "deep".to_owned()),
        ("/", "ls /m", "absolute\ndeep\netc\nhost\nloop\nto-file\nto-root".to_owned()),
        ("deep", "ls /m", "er\nup".to_owned()),
        ("/deep/er/", "ls /m", "file".to_owned()),
        ("../../deep/er/file", "cat /m; test -f /m", "deep".to_owned()),
        ("to-file", "cat /m", "deep".to_owned()),
        ("to-root", "ls /m", "er\nup".to_owned()),
        ("absolute", "cat /m", "of the tree".to_owned()),
        ("deep/up", "cat /m/passwd", "of the tree".to_owned()),
        ("deep/up/passwd", "cat /m", "of the tree".to_owned()),
        ("host", "true", missing("host") + "no such file or directory"),
        ("loop", "true", missing("loop") + "too many levels of symbolic links"),
        ("no/such", "true", missing("no/such") + "no such file or directory"),
        ("to-file/below", "true", missing("to-file/below") + "not a directory"),
    ] {
        let (scratch, (tree, files)) = (Scratch::new(), new_tree());
        write_files(&files);
        let mut spec = scratch.script(script);
        spec.mounts.push(tree_mount(&scratch, "changes", source, "/m", true));
        let outcome = match try_run_with_trees(&spec, &[tree]) {
            Ok(outcome) => outcome.stdout.trim_end().to_owned(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(outcome, expected, "{source}");
    }
    for (read_only, source, script, expected) in [
        (true, "deep", "echo x > /m/new", "Read-only file system"),
        (true, "deep/er/file", "echo x > /m", "Read-only file system"),
        (false, "deep", "echo x > /m/new && cat /m/new", "x"),
        (false, "deep/er/file", "echo x > /m && cat /m", "x"),
    ] {
        let (scratch, (tree, files)) = (Scratch::new(), new_tree());
        write_files(&files);
        let mut spec = scratch.script(&format!("({script}) 2>&1"));
        spec.mounts.push(tree_mount(&scratch, "changes", source, "/m", read_only));
        let outcome = run(&spec, &[tree]);
        assert!(outcome.stdout.trim_end().ends_with(expected), "{source} {script}: {outcome:?}");
        let changed = ["changes/up/deep/new", "changes/up/deep/er/file"];
        assert_eq!(changed.iter().any(|path| scratch.path(path).exists()), !read_only, "{script}");
    }
}

fn root_mounts_of_one_tree_are_apart() {
    let (scratch, (tree, files)) = (Scratch::new(), new_tree());
    write_files(&files);
    let mut spec = scratch.script("echo x > /a/file; cat /b; cat /etc/passwd");
    let image = Lower::Directory(scratch.path("image"));
    spec.rootfs = scratch.overlay_of(vec![lower(&scratch, 0, "rootfs"), image]);
    spec.mounts.push(tree_mount(&scratch, "first", "deep/er", "/a", false));
    spec.mounts.push(tree_mount(&scratch, "second", "deep/er/file", "/b", false));
    assert_eq!(run(&spec, &[tree]).stdout, "deepof the tree");
}

fn root_trees_that_are_not_there_are_told() {
    let scratch = Scratch::new();
    let mut spec = scratch.script("true");
    spec.mounts.push(tree_mount(&scratch, "changes", "", "/m", false));
    let error = try_run_with_trees(&spec, &[]).unwrap_err().to_string();
    assert!(error.contains("move_mount `tree 0`: bad file descriptor"), "{error}");
    let file = OwnedFd::from(fs::File::open("/dev/null").unwrap());
    let error = try_run_with_trees(&spec, &[file]).unwrap_err().to_string();
    assert!(error.contains("move_mount `"), "{error}");
    let (tree, _) = new_tree();
    if let Mount::Tree { place, .. } = &mut spec.mounts[0] {
        *place = scratch.path("no-such-place");
    }
    let error = try_run_with_trees(&spec, &[tree]).unwrap_err().to_string();
    assert!(error.contains("no-such-place`: no such file"), "{error}");
    let many: Vec<_> = (0..250).map(|_| OwnedFd::from(fs::File::open("/dev/null").unwrap())).collect();
    let error = try_run_with_trees(&scratch.script("true"), &many).unwrap_err();
    assert!(matches!(error, RuntimeError::TooManyTrees { count: 250, max: 249 }), "{error}");
    run(&scratch.script("true"), &many[..249]);
}
