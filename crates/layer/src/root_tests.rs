//! What only root can see: owners, devices, capabilities, and how overlayfs shows applied layers.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

use mica_sys::xattr;
use mica_tree::Kind;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen,
};

use crate::apply::{Applied, ApplyContext, Mapping, NoParents, apply_layer};
use crate::tar_builder::TarBuilder;
use crate::tar_entry::TarLimits;
use crate::tree_writer::TreeWriter;

fn skipped() -> bool {
    let skipped = !rustix::process::geteuid().is_root();
    if skipped {
        println!("skipped: needs root");
    }
    skipped
}

fn apply(tar: &[u8], tree: &Path) -> Applied {
    fs::create_dir(tree).unwrap();
    let context = ApplyContext { lower: &NoParents, mapping: Mapping::Root, limits: TarLimits::default() };
    apply_layer(tar, File::open(tree).unwrap(), &context).unwrap()
}

#[test]
fn root_owners_devices_and_attributes() {
    if skipped() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let tree = top.path().join("tree");
    // Version 2, effective, CAP_NET_RAW: `cap_net_raw+ep`.
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = TarBuilder::new()
        .owner(1234)
        .mode(0o4755)
        .pax(&[("SCHILY.xattr.security.capability", &capability)])
        .file("f", "x")
        .symlink("s", "nowhere")
        .mode(0o640)
        .raw(b'3', b"c", b"", 0, b"")
        .raw(b'4', b"b", b"", 0, b"")
        .raw(b'6', b"p", b"", 0, b"")
        .mode(0o2700)
        .dir("d")
        .end();
    let applied = apply(&tar, &tree);
    for entry in &applied.entries {
        let found = fs::symlink_metadata(tree.join(mica_sys::dir_at::bytes_path(&entry.path))).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mtime()), (1234, 1234, 1_600_000_000), "{entry:?}");
        if !matches!(entry.kind, Kind::Symlink { .. }) {
            assert_eq!(found.mode() & 0o7777, entry.mode, "{entry:?}");
        }
    }
    let device = |name: &str| fs::symlink_metadata(tree.join(name)).unwrap();
    assert!(device("c").file_type().is_char_device() && device("c").rdev() == rustix::fs::makedev(1, 3));
    assert!(device("b").file_type().is_block_device() && device("p").file_type().is_fifo());
    let file = File::open(tree.join("f")).unwrap();
    assert_eq!(xattr::get(&file, b"security.capability").unwrap().as_deref(), Some(&capability[..]));
}

/// A mount that stands nowhere: it is gone with its handle.
fn mount_overlay(upper: &Path, lower: &Path) -> Option<OwnedFd> {
    let mounted = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).and_then(|context| {
        fsconfig_set_string(&context, "lowerdir", format!("{}:{}", upper.display(), lower.display()))?;
        fsconfig_create(&context)?;
        fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
    });
    mounted.inspect_err(|error| println!("skipped: no overlayfs here: {error}")).ok()
}

#[test]
fn root_whiteouts_of_attributes_hide_too() {
    if skipped() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (lower, upper) = (top.path().join("lower"), top.path().join("upper"));
    let applied = apply(&TarBuilder::new().dir("d").file("d/gone", "").file("d/kept", "").end(), &lower);
    fs::create_dir(&upper).unwrap();
    let mut writer = TreeWriter::new(File::open(&upper).unwrap(), Mapping::Root).unwrap();
    writer.make_directory(b"d").unwrap();
    writer.make_whiteout_file(b"d/gone").unwrap();
    writer.finish_directory(&applied.entries[0]).unwrap();
    let Some(mounted) = mount_overlay(&upper, &lower) else { return };
    let shown = fs::read_dir(format!("/proc/self/fd/{}/d", mounted.as_raw_fd())).unwrap();
    let shown: Vec<_> = shown.map(|found| found.unwrap().file_name()).collect();
    if shown.len() == 2 {
        println!("skipped: whiteouts of attributes need Linux 6.7");
        return;
    }
    assert_eq!(shown, ["kept"]);
}

#[test]
fn root_overlayfs_shows_what_the_layers_say() {
    if skipped() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let (lower, upper) = (top.path().join("lower"), top.path().join("upper"));
    let files = ["gone", "kept", "opaque/old", "remade/old", "dir/gone", "dir/kept"];
    let tar = files.iter().fold(TarBuilder::new(), |tar, path| tar.file(path, "x")).end();
    apply(&tar, &lower);
    let tar = TarBuilder::new()
        .file(".wh.gone", "")
        .file("dir/.wh.gone", "")
        .file("opaque/.wh..wh..opq", "")
        .file("opaque/new", "")
        .file(".wh.remade", "")
        .dir("remade")
        .end();
    apply(&tar, &upper);
    let Some(mounted) = mount_overlay(&upper, &lower) else { return };
    let root = format!("/proc/self/fd/{}", mounted.as_raw_fd());
    let names = |path: &str| {
        let mut names: Vec<_> =
            fs::read_dir(format!("{root}/{path}")).unwrap().map(|found| found.unwrap().file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(names(""), ["dir", "kept", "opaque", "remade"]);
    assert_eq!(names("dir"), ["kept"]);
    assert_eq!(names("opaque"), ["new"]);
    assert_eq!(names("remade"), [""; 0]);
}

#[test]
fn root_trees_come_back_from_gnu_tar() {
    if skipped() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    let source = top.path().join("source");
    fs::create_dir_all(source.join("deep/er")).unwrap();
    fs::write(source.join("deep").join("n".repeat(180)), "long name").unwrap();
    fs::write(source.join("big"), vec![7; 700_000]).unwrap();
    fs::hard_link(source.join("big"), source.join("deep/er/also big")).unwrap();
    std::os::unix::fs::symlink("l".repeat(150), source.join("link")).unwrap();
    let sparse = File::create(source.join("sparse")).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"data", 1 << 20).unwrap();
    sparse.set_len(3 << 20).unwrap();
    let _ = xattr::set(&sparse, b"user.note", b"value");
    for (name, options) in [
        ("gnu", &["--format=gnu", "--sparse"][..]),
        ("pax", &["--format=pax", "--sparse", "--xattrs", "--xattrs-include=*"]),
        ("pax00", &["--format=pax", "--sparse", "--sparse-version=0.0"]),
        ("pax01", &["--format=pax", "--sparse", "--sparse-version=0.1"]),
    ] {
        let output =
            Command::new("tar").args(options).arg("-C").arg(&source).args(["-cf", "-", "."]).output();
        let Ok(output) = output else {
            println!("skipped: no tar");
            return;
        };
        let tree = top.path().join(name);
        let applied = apply(&output.stdout, &tree);
        assert_eq!(applied.entries.len(), 8, "{name}");
        assert!(!applied.implied_directories);
        let differ =
            Command::new("diff").arg("-r").arg("--no-dereference").arg(&source).arg(&tree).output().unwrap();
        assert!(differ.status.success(), "{name}: {}", String::from_utf8_lossy(&differ.stdout));
        let found = fs::metadata(tree.join("sparse")).unwrap();
        assert!(found.blocks() * 512 < 1 << 20, "{name}: the holes were filled");
        assert_eq!(fs::metadata(tree.join("big")).unwrap().nlink(), 2);
        if name == "pax" {
            let sparse = applied.entries.iter().find(|entry| entry.path == b"sparse").unwrap();
            assert!(
                sparse.xattrs.contains(&(b"user.note".to_vec(), b"value".to_vec())),
                "{:?}",
                sparse.xattrs
            );
        }
    }
}

#[test]
fn root_deep_trees() {
    if skipped() {
        return;
    }
    let top = tempfile::tempdir().unwrap();
    // As deep as a path can be; the parents first, then all at once.
    let deep = |depth: usize| vec!["d"; depth].join("/");
    let tar = (1..=2047).fold(TarBuilder::new(), |tar, depth| tar.dir(&deep(depth))).end();
    assert_eq!(apply(&tar, &top.path().join("a")).entries.len(), 2047);
    let tar = TarBuilder::new().file(&deep(2047), "").file("d", "").end();
    assert_eq!(apply(&tar, &top.path().join("b")).entries.len(), 1);
    mica_sys::dir_at::remove_all(File::open(top.path()).unwrap(), b"a").unwrap();
}
