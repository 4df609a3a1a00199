//! Real overlays: what a step does is read back as a layer, and the layer does the same to the same lower tree.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use mica_sys::xattr;
use mica_tree::{Entry, Index, Kind, MergedIndex};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};
use sha2::{Digest as _, Sha256};

use crate::apply::{ApplyContext, Mapping, NoParents, apply_layer};
use crate::diff::{Diff, DiffOptions, diff_upper};
use crate::tar_builder::TarBuilder;
use crate::tar_entry::TarLimits;
use crate::write_tar::write_tar;

/// An overlay that stands nowhere: the mount is gone with its handle.
struct Overlay {
    top: tempfile::TempDir,
    lower: Arc<Index>,
    mounted: Option<OwnedFd>,
}

impl Overlay {
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return None;
        }
        let top = tempfile::tempdir().unwrap();
        for name in ["lower", "upper", "work"] {
            fs::create_dir(top.path().join(name)).unwrap();
        }
        let tar = TarBuilder::new()
            .dir("d")
            .file("d/e/f", "1")
            .file("d/x", "2")
            .dir("empty")
            .file("file", "old")
            .file("other", "other")
            .link("other link", "other")
            .mode(0o4755)
            .file("suid", "s")
            .symlink("link", "file")
            .end();
        let lower = apply(&tar, &top.path().join("lower"));
        let mounted = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
            for key in ["index", "metacopy", "redirect_dir"] {
                let _ = fsconfig_set_string(&context, key, "off");
            }
            for (key, name) in [("lowerdir", "lower"), ("upperdir", "upper"), ("workdir", "work")] {
                fsconfig_set_string(&context, key, top.path().join(name))?;
            }
            fsconfig_create(&context)?;
            fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
        });
        match mounted {
            Ok(mounted) => Some(Self { top, lower: Arc::new(lower), mounted: Some(mounted) }),
            Err(error) => {
                println!("skipped: no overlayfs here: {error}");
                None
            }
        }
    }

    fn root(&self) -> PathBuf {
        format!("/proc/self/fd/{}", self.mounted.as_ref().unwrap().as_raw_fd()).into()
    }

    fn diff(&mut self, mount_points: &[&str]) -> Diff {
        self.mounted = None;
        let mount_points = mount_points.iter().map(|path| path.as_bytes().to_vec()).collect();
        let upper = File::open(self.top.path().join("upper")).unwrap();
        let lower = MergedIndex::new([self.lower.clone()]);
        diff_upper(upper.as_fd(), &lower, &DiffOptions { mount_points, ..DiffOptions::default() }).unwrap()
    }
}

/// Our own tars name every directory, so nothing is taken from layers below.
fn apply(tar: &[u8], tree: &Path) -> Index {
    fs::create_dir_all(tree).unwrap();
    let context = ApplyContext { lower: &NoParents, mapping: Mapping::Root, limits: TarLimits::default() };
    Index::new(apply_layer(tar, File::open(tree).unwrap(), &context).unwrap().entries).unwrap()
}

/// As `path kind`, one word for each kind.
fn lines(index: &Index) -> Vec<String> {
    let line = |entry: &Entry| {
        let kind = match &entry.kind {
            Kind::File { size, .. } => format!("file {size}"),
            Kind::Directory { opaque: true, .. } => "opaque".into(),
            Kind::Directory { implied: true, .. } => "implied".into(),
            Kind::Directory { .. } => "directory".into(),
            Kind::Symlink { target } => format!("-> {}", target.escape_ascii()),
            Kind::Hardlink { target } => format!("= {}", target.escape_ascii()),
            Kind::CharDevice { rdev } => format!("char {rdev:?}"),
            Kind::BlockDevice { rdev } => format!("block {rdev:?}"),
            Kind::Fifo => "fifo".into(),
            Kind::Socket => "socket".into(),
            Kind::Whiteout => "gone".into(),
        };
        format!("{} {kind}", entry.path.escape_ascii())
    };
    index.entries().iter().map(line).collect()
}

/// What a stack shows, without what a tar cannot say.
fn shown(layers: [Arc<Index>; 2]) -> BTreeMap<Vec<u8>, Entry> {
    let merged = MergedIndex::new(layers);
    let plain = |entry: &Entry| {
        let mut entry = entry.clone();
        if let Kind::Directory { opaque, implied } = &mut entry.kind {
            (*opaque, *implied) = (false, false);
        }
        if let Kind::Hardlink { .. } = entry.kind {
            entry = Entry { kind: entry.kind, path: entry.path, ..merged_root() };
        }
        entry
    };
    merged.walk(b"").map(|entry| (entry.path.clone(), plain(entry))).collect()
}

fn merged_root() -> Entry {
    let mtime = mica_tree::Time::default();
    Entry { path: Vec::new(), kind: Kind::Fifo, mode: 0, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

/// Runs `step` in an overlay and compares the layer with `expect`; then the layer's tar must be the same layer.
fn check(step: impl FnOnce(&Path), mount_points: &[&str], expect: &[&str]) {
    let Some(mut overlay) = Overlay::new() else { return };
    step(&overlay.root());
    let diff = overlay.diff(mount_points);
    assert_eq!(lines(&diff.index), expect);

    let upper = overlay.top.path().join("upper");
    let tar = |index: &Index| {
        let mut tar = Vec::new();
        let mut open = |entry: &Entry| File::open(upper.join(mica_sys::dir_at::bytes_path(&entry.path)));
        let length = write_tar(index, &mut open, &mut tar).unwrap();
        assert_eq!(length, tar.len() as u64);
        tar
    };
    let bytes = tar(&diff.index);
    assert_eq!(
        (<[u8; 32]>::from(Sha256::digest(&bytes)), bytes.len() as u64),
        (diff.diff_id, diff.tar_size_bytes)
    );
    let decoded = Index::decode(&diff.index.encode()).unwrap();
    assert_eq!(decoded, diff.index);
    assert!(tar(&decoded) == bytes, "an index that was read back makes another tar");
    let again = overlay.diff(mount_points);
    assert_eq!((again.index, again.diff_id), (diff.index.clone(), diff.diff_id), "reading it twice");

    let applied = apply(&bytes, &overlay.top.path().join("applied"));
    assert_eq!(
        shown([overlay.lower.clone(), Arc::new(applied)]),
        shown([overlay.lower.clone(), Arc::new(diff.index)])
    );
    if let Ok(list) = Command::new("tar").arg("-tf").arg("-").stdin(file_of(&bytes)).output() {
        assert!(list.status.success() && list.stderr.is_empty(), "{}", String::from_utf8_lossy(&list.stderr));
    }
}

fn file_of(bytes: &[u8]) -> File {
    let mut file = tempfile::tempfile().unwrap();
    std::io::Write::write_all(&mut file, bytes).unwrap();
    std::io::Seek::rewind(&mut file).unwrap();
    file
}

fn node(path: &Path, kind: FileType, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device).unwrap();
}

#[test]
fn root_diff_of_nothing() {
    check(|_| {}, &[], &[]);
    // Copied up and equal.
    check(
        |root| {
            fs::set_permissions(root.join("d"), fs::metadata(root.join("d")).unwrap().permissions()).unwrap()
        },
        &[],
        &[],
    );
    // Made and gone, over nothing and in a directory that is copied up for it.
    let step = |root: &Path| {
        fs::write(root.join("d/e/new"), "x").unwrap();
        fs::remove_file(root.join("d/e/new")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        fs::remove_dir(root.join("new")).unwrap();
    };
    check(step, &[], &[]);
}

#[test]
fn root_diff_of_directories() {
    check(|root| fs::create_dir_all(root.join("n/m")).unwrap(), &[], &["n directory", "n/m directory"]);
    check(|root| fs::remove_dir_all(root.join("d")).unwrap(), &[], &["d gone"]);
    check(
        |root| fs::rename(root.join("d/x"), root.join("d/e/y")).unwrap(),
        &[],
        &["d implied", "d/e implied", "d/e/y file 1", "d/x gone"],
    );
    let mode =
        |root: &Path| fs::set_permissions(root.join("empty"), fs::Permissions::from_mode(0o700)).unwrap();
    check(mode, &[], &["empty directory"]);
    let remade = |root: &Path| {
        fs::remove_dir_all(root.join("d")).unwrap();
        // Equal to the hidden one in all that counts, and still not the hidden one.
        fs::create_dir_all(root.join("d/e")).unwrap();
        fs::set_permissions(root.join("d/e"), fs::Permissions::from_mode(0o755)).unwrap();
        std::os::unix::fs::chown(root.join("d/e"), Some(0), Some(0)).unwrap();
    };
    check(remade, &[], &["d opaque", "d/e directory"]);
    let file_to_directory = |root: &Path| {
        fs::remove_file(root.join("file")).unwrap();
        fs::create_dir(root.join("file")).unwrap();
    };
    check(file_to_directory, &[], &["file directory"]);
    let directory_to_file = |root: &Path| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d"), "").unwrap();
    };
    check(directory_to_file, &[], &["d file 0"]);
    let and_back = |root: &Path| {
        fs::remove_dir_all(root.join("d")).unwrap();
        fs::write(root.join("d"), "").unwrap();
        fs::remove_file(root.join("d")).unwrap();
        fs::create_dir(root.join("d")).unwrap();
    };
    check(and_back, &[], &["d opaque"]);
    let renamed = |root: &Path| {
        fs::create_dir(root.join("made")).unwrap();
        fs::write(root.join("made/in"), "12").unwrap();
        fs::rename(root.join("made"), root.join("empty")).unwrap();
    };
    check(renamed, &[], &["empty opaque", "empty/in file 2"]);
}

#[test]
fn root_diff_of_files() {
    check(|root| fs::remove_file(root.join("file")).unwrap(), &[], &["file gone"]);
    check(|root| fs::write(root.join("file"), "longer").unwrap(), &[], &["file file 6"]);
    let links = |root: &Path| {
        fs::write(root.join("z"), "12345").unwrap();
        fs::hard_link(root.join("z"), root.join("a")).unwrap();
        fs::hard_link(root.join("z"), root.join("d/l")).unwrap();
    };
    check(links, &[], &["a file 5", "d implied", "d/l = a", "z = a"]);
    check(
        |root| fs::hard_link(root.join("file"), root.join("more")).unwrap(),
        &[],
        &["file file 3", "more = file"],
    );
    let special = |root: &Path| {
        node(&root.join("c"), FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node(&root.join("b"), FileType::BlockDevice, rustix::fs::makedev(7, 300));
        node(&root.join("p"), FileType::Fifo, 0);
        symlink("no/where", root.join("s")).unwrap();
    };
    check(special, &[], &["b block (7, 300)", "c char (1, 3)", "p fifo", "s -> no/where"]);
    let socket = |root: &Path| {
        node(&root.join("new"), FileType::Socket, 0);
        fs::remove_file(root.join("file")).unwrap();
        node(&root.join("file"), FileType::Socket, 0);
    };
    check(socket, &[], &["file gone"]);
    let sparse = |root: &Path| {
        let file = File::create(root.join("sparse")).unwrap();
        file.write_all_at(b"x", 3 << 20).unwrap();
        file.set_len(4 << 20).unwrap();
    };
    check(sparse, &[], &["sparse file 4194304"]);
    let attributes = |root: &Path| {
        let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let file = File::create(root.join("f")).unwrap();
        xattr::set(&file, b"security.capability", &capability).unwrap();
        let _ = xattr::set(&file, b"user.a b\nc", b"v\nw=x\0");
        let _ = xattr::set(File::open(root.join("empty")).unwrap(), b"user.note", &[7; 300]);
        std::os::unix::fs::chown(root.join("suid"), Some(3_000_000), Some(4_000_000_000)).unwrap();
        fs::set_permissions(root.join("suid"), fs::Permissions::from_mode(0o6711)).unwrap();
        // A name that no PAX record can hold is no part of a layer.
        let _ = xattr::set(&file, b"user.a=b", b"");
        let old = std::time::UNIX_EPOCH - std::time::Duration::from_millis(1_500);
        file.set_modified(old).unwrap();
    };
    check(attributes, &[], &["empty directory", "f file 0", "suid file 1"]);
    let names = |root: &Path| {
        let long = root.join("l".repeat(200)).join("m".repeat(200));
        fs::create_dir_all(&long).unwrap();
        fs::write(long.join("\u{fc}ml\u{e4}ut"), "x").unwrap();
        fs::write(root.join(mica_sys::dir_at::bytes_path(b"\xff\xfe")), "").unwrap();
        symlink("t".repeat(300), root.join("s")).unwrap();
    };
    let long = format!("{}/{}", "l".repeat(200), "m".repeat(200));
    let (one, two) = (format!("{} directory", "l".repeat(200)), format!("{long} directory"));
    let (three, link) =
        (format!("{long}/\\xc3\\xbcml\\xc3\\xa4ut file 1"), format!("s -> {}", "t".repeat(300)));
    check(names, &[], &[&one, &two, &three, &link, "\\xff\\xfe file 0"]);
}

#[test]
fn root_diff_without_mount_points() {
    let step = |root: &Path| {
        fs::create_dir_all(root.join("run/secrets")).unwrap();
        fs::write(root.join("run/secrets/key"), "").unwrap();
        fs::create_dir(root.join("cache")).unwrap();
        fs::write(root.join("cache/kept"), "x").unwrap();
        fs::write(root.join("empty/kept"), "").unwrap();
    };
    let mount_points = ["run", "run/secrets", "run/secrets/key", "cache"];
    check(
        step,
        &mount_points,
        &["cache directory", "cache/kept file 1", "empty implied", "empty/kept file 0"],
    );
}

#[test]
fn root_diff_of_a_deep_tree() {
    let Some(mut overlay) = Overlay::new() else { return };
    // More than a process may have open files, mostly.
    let depth = 1_100;
    let mut path = overlay.root();
    for _ in 0..depth {
        path.push("n");
    }
    fs::create_dir_all(&path).unwrap();
    let diff = overlay.diff(&[]);
    assert_eq!(diff.index.entries().len(), depth);
    mica_sys::dir_at::remove_all(File::open(overlay.top.path().join("upper")).unwrap(), b"n").unwrap();
}

#[test]
fn root_diff_keeps_the_times_of_lower_directories() {
    let Some(mut overlay) = Overlay::new() else { return };
    let before = fs::metadata(overlay.top.path().join("lower/d")).unwrap().mtime();
    fs::write(overlay.root().join("d/new"), "x").unwrap();
    let diff = overlay.diff(&[]);
    assert_eq!(diff.index.get(b"d").unwrap().mtime.seconds, before);
    // Overlayfs left no notes in what is now a lower layer.
    let upper = File::open(overlay.top.path().join("upper")).unwrap();
    let names = xattr::list_at(&upper, b"d").unwrap();
    assert!(names.iter().all(|name| !name.starts_with(b"trusted.overlay.")), "{names:?}");
}
