//! `type=local` and `type=tar`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::process::Command;

use mica_testkit::{Need, SavedImage, differences, missing, tree_of_tar};

use crate::{Bench, names};

#[test]
fn a_tar_has_what_the_image_shows() {
    let bench = Bench::new();
    bench.build(&["-t", "demo"]);
    bench.build(&["-o", "type=tar,dest=@files.tar"]);
    let expect = SavedImage::of(&bench.mica, "demo").tree;
    let found = tree_of_tar(&bench.path("files.tar")).expect("a tar");
    assert_eq!(differences(&expect, &found, |_| false), Vec::<String>::new());
    // Standard output is the same, and nothing else goes there.
    let out = fs::File::create(bench.path("piped.tar")).expect("a file");
    let status = bench.mica.command(&bench.arguments(&["-q", "-o", "-"])).stdout(out).status().expect("mica");
    assert!(status.success());
    let read = |name: &str| fs::read(bench.path(name)).expect("a file");
    assert!(read("piped.tar") == read("files.tar"));
    if let Some(reason) = missing(&[Need::Tool("tar")]) {
        return println!("skipped: {reason}");
    }
    let listed = Command::new("tar").arg("tvf").arg(bench.path("files.tar")).output().expect("tar");
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains("bin/twin link to bin/tool") && listed.contains("1000/1000"), "{listed}");
}

#[test]
fn a_directory_has_the_files_as_the_callers_own() {
    let bench = Bench::new();
    bench.build(&["-o", "@out"]);
    let file = |name: &str| fs::symlink_metadata(bench.path("out").join(name)).expect(name);
    assert_eq!(names(&bench.path("out")), ["bin", "data", "etc", "home"]);
    assert_eq!(file("home/own").uid(), rustix::process::geteuid().as_raw());
    // Set-ID bits would be the caller's.
    assert_eq!(file("bin/tool").permissions().mode() & 0o7777, 0o755);
    assert_eq!(file("home").permissions().mode() & 0o7777, 0o700);
    for name in ["bin/twin", "etc/tool"] {
        assert_eq!(file("bin/tool").ino(), file(name).ino(), "{name}");
    }
    assert_eq!(file("bin/tool").mtime(), 1_500_000_000);
    assert_eq!(fs::read_link(bench.path("out/bin/link")).unwrap().to_str(), Some("tool"));
    assert_eq!(fs::read(bench.path("out/data/hello")).unwrap(), b"hello\n");
    assert!(std::os::unix::fs::FileTypeExt::is_fifo(&file("etc/pipe").file_type()));
    // The store has no image of it, and nothing is left beside it.
    assert_eq!(bench.images(), "base:latest\n");
    assert_eq!(bench.left(), ["base.tar", "context", "out"]);
}

#[test]
fn a_directory_that_is_there_is_added_to_or_mirrored() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("out/data/old")).unwrap();
    fs::write(bench.path("out/data/old/x"), b"x").unwrap();
    fs::write(bench.path("out/data/hello"), b"before").unwrap();
    fs::write(bench.path("out/mine"), b"mine").unwrap();
    // A file stands where a directory is wanted.
    fs::write(bench.path("out/etc"), b"file").unwrap();
    bench.build(&["-o", "type=local,dest=@out"]);
    assert_eq!(names(&bench.path("out")), ["bin", "data", "etc", "home", "mine"]);
    assert_eq!(names(&bench.path("out/data")), ["big", "hello", "old"]);
    assert_eq!(fs::read(bench.path("out/data/hello")).unwrap(), b"hello\n");
    bench.build(&["-o", "type=local,dest=@out"]);
    // Names of one file stay that when another one takes its place.
    let file = |name: &str| fs::metadata(bench.path("out").join(name)).expect(name);
    assert_eq!((file("bin/tool").nlink(), file("etc/tool").ino()), (3, file("bin/tool").ino()));
    symlink("/etc", bench.path("out/outside")).unwrap();
    bench.build(&["-o", "type=local,dest=@out,mode=delete"]);
    assert_eq!(names(&bench.path("out")), ["bin", "data", "etc", "home"]);
    assert_eq!(names(&bench.path("out/data")), ["big", "hello"]);
    assert!(std::path::Path::new("/etc/passwd").exists());
    let said = bench.fails(&["-o", "type=local,dest=@context,mode=delete"]);
    assert!(said.contains("would remove"), "{said}");
    assert!(bench.path("context/Dockerfile").exists());
}

#[test]
fn links_in_the_destination_lead_nowhere_else() {
    let bench = Bench::new();
    fs::create_dir_all(bench.path("out/real")).unwrap();
    fs::create_dir(bench.path("victim")).unwrap();
    symlink("../victim", bench.path("out/data")).unwrap();
    let said = bench.fails(&["-o", "@out"]);
    assert!(said.contains("is a symbolic link that leads out of it"), "{said}");
    assert_eq!(names(&bench.path("victim")), Vec::<String>::new());
    // One that stays inside is followed, and one that is in the way of a file is replaced.
    fs::remove_file(bench.path("out/data")).unwrap();
    symlink("real", bench.path("out/data")).unwrap();
    symlink("../../victim/hello", bench.path("out/real/hello")).unwrap();
    bench.build(&["-o", "@out"]);
    assert_eq!(fs::read(bench.path("out/real/hello")).unwrap(), b"hello\n");
    assert_eq!(names(&bench.path("victim")), Vec::<String>::new());
    // A directory is not taken away for a file.
    fs::remove_file(bench.path("out/real/hello")).unwrap();
    fs::create_dir(bench.path("out/real/hello")).unwrap();
    let said = bench.fails(&["-o", "@out"]);
    assert!(said.contains("is a directory, and is none in the result"), "{said}");
    bench.build(&["-o", "type=local,dest=@out,mode=delete"]);
    assert!(bench.path("out/data/hello").is_file() && !bench.path("out/data").is_symlink());
    assert!(!bench.path("out/real").exists());
    fs::remove_file(bench.path("out/etc/conf")).unwrap();
    fs::create_dir_all(bench.path("out/etc/conf/deep")).unwrap();
    bench.build(&["-o", "type=local,dest=@out,mode=delete"]);
    assert_eq!(fs::read(bench.path("out/etc/conf")).unwrap(), b"below\n");
    let found = names(&bench.path("out/data"));
    let hidden: Vec<_> = found.into_iter().filter(|name| name.starts_with('.')).collect();
    assert_eq!(hidden, Vec::<String>::new());
}

#[test]
fn files_have_the_time_that_is_asked_for() {
    let bench = Bench::new();
    let mut command = bench.mica.command(&bench.arguments(&["-o", "@out", "-o", "type=tar,dest=@files.tar"]));
    assert!(command.env("SOURCE_DATE_EPOCH", "1000000000").status().expect("mica").success());
    for name in ["out/bin/tool", "out/data/hello", "out/data"] {
        assert_eq!(fs::metadata(bench.path(name)).unwrap().mtime(), 1_000_000_000, "{name}");
    }
    let file = fs::File::open(bench.path("files.tar")).unwrap();
    mica_testkit::tar::read(file, |entry, _| {
        assert_eq!(entry.mtime, 1_000_000_000, "{}", entry.path);
        Ok(())
    })
    .unwrap();
}
