//! Small directories on disk: what is found, what is ignored, and when a digest still holds.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use mica_dockerfile::dockerignore::Dockerignore;
use mica_tree::Kind;

use crate::{ContextError, SourceDir, identity};

fn rules(text: &str) -> Dockerignore {
    Dockerignore::parse(text).unwrap()
}

fn paths(source: &SourceDir) -> Vec<String> {
    source.index().entries().iter().map(|entry| String::from_utf8(entry.path.clone()).unwrap()).collect()
}

fn make(top: &Path, files: &[&str]) {
    for file in files {
        let path = top.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if !file.ends_with('/') {
            fs::write(path, file).unwrap();
        } else {
            fs::create_dir_all(path).unwrap();
        }
    }
}

/// All of `top` that `rules` let through, by the definition: a path, and the directories above what is let through.
fn by_definition(top: &Path, rules: &Dockerignore) -> BTreeSet<String> {
    let output = Command::new("find").arg(top).args(["-mindepth", "1", "-printf", "%P\\n"]).output().unwrap();
    let mut kept = BTreeSet::new();
    for path in String::from_utf8(output.stdout).unwrap().lines() {
        if !rules.matches(path).is_ignored {
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            kept.extend(ends.map(|end| path[..end].to_owned()));
        }
    }
    kept
}

#[test]
fn the_walk_finds_what_find_finds() {
    let top = tempfile::tempdir().unwrap();
    let mut files = Vec::new();
    for a in ["a", "b", "a.c", "keep"] {
        for b in ["a", "x.md", "keep", ".hidden"] {
            for c in ["a", "y.md", "keep.md", "README.md"] {
                files.push(format!("{a}/d{b}/d{c}/f{a}.md"));
                files.push(format!("{a}/d{b}/{c}"));
            }
            files.push(format!("{a}/{b}"));
            files.push(format!("{a}/empty{b}/"));
        }
    }
    make(top.path(), &files.iter().map(String::as_str).collect::<Vec<_>>());
    for text in [
        "",
        "*",
        "**",
        "a",
        "*/d*",
        "**/*.md",
        "**/*.md\n!**/README.md",
        "*\n!keep",
        "*\n!**/keep.md",
        "*\n!a/da/da",
        "a\n!a/da",
        "a\n!a/da\na/da/da",
        "**/d*\n!**/fa.md",
        "*\n!nothing/at/all",
        "/a/\n!a/empty*",
        "**/dkeep/**\n!**/dkeep/da",
        "a/../b\n.//keep",
    ] {
        let rules = rules(text);
        let source = SourceDir::open(top.path(), Some(&rules), None).unwrap();
        let found = paths(&source);
        let set: BTreeSet<_> = found.iter().cloned().collect();
        assert_eq!(set, by_definition(top.path(), &rules), "{text:?}");
        assert_eq!(set.len(), found.len(), "{text:?}");
        let entries = source.index().entries();
        assert!(entries.is_sorted_by(|a, b| mica_tree::compare_paths(&a.path, &b.path).is_lt()), "{text:?}");
    }
}

#[test]
fn deep_directories() {
    let top = tempfile::tempdir().unwrap();
    // More than a process may have open files, mostly.
    let depth = 1_100;
    let deep = "d/".repeat(depth);
    // Through a relative path, because the temporary directory adds to the length.
    fs::create_dir_all(top.path().join(&deep)).unwrap();
    fs::write(top.path().join(&deep).join("keep"), "x").unwrap();
    for (ignore, expect) in
        [("", depth + 1), ("*\n!**/keep", depth + 1), ("*\n!**/other", 0), ("d\n!d/d", depth + 1), ("d", 0)]
    {
        let source = SourceDir::open(top.path(), Some(&rules(ignore)), None).unwrap();
        assert_eq!(source.index().entries().len(), expect, "{ignore:?}");
        let positions: Vec<_> = (0..expect).collect();
        assert_eq!(source.content(&positions).unwrap().len(), expect);
    }
    // Deeper than any path can name: an error and nothing worse.
    let mut directory = File::open(top.path().join(&deep)).unwrap();
    for _ in 0..1_100 {
        rustix::fs::mkdirat(&directory, "e", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::DIRECTORY;
        let inner = rustix::fs::openat(&directory, "e", flags, rustix::fs::Mode::empty()).unwrap();
        directory = inner.into();
    }
    assert!(matches!(SourceDir::open(top.path(), None, None), Err(ContextError::System(_))));
    assert!(Command::new("rm").arg("-rf").arg(top.path().join("d")).status().unwrap().success());
}

#[test]
fn what_is_ignored_is_not_opened() {
    let nobody = 65_534;
    let top = tempfile::tempdir().unwrap();
    make(top.path(), &["secret/file", "secret file", "open"]);
    let closed =
        |path: &str| fs::set_permissions(top.path().join(path), fs::Permissions::from_mode(0o000)).unwrap();
    closed("secret file");
    closed("secret");
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = top.path().to_path_buf();
    let (ignored, named) = std::thread::spawn(move || {
        if rustix::process::geteuid().is_root() {
            // Of this thread alone; the file system's checks follow it.
            let uid = rustix::fs::Uid::from_raw(nobody);
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        }
        let ignored = SourceDir::open(&path, Some(&rules("secret*")), None)
            .map(|source| (paths(&source), source.content(&[0]).unwrap().len()));
        (ignored, SourceDir::open(&path, None, None).err())
    })
    .join()
    .unwrap();
    assert_eq!(ignored.unwrap(), (vec!["open".to_owned()], 1));
    assert!(matches!(named, Some(ContextError::Denied { path }) if path == Path::new("secret")));
    fs::set_permissions(top.path().join("secret"), fs::Permissions::from_mode(0o700)).unwrap();
}

/// Opens with a cache, reads everything, and gives which files were known before.
fn known_before(top: &Path, cache: &Path) -> Vec<String> {
    let source = SourceDir::open(top, None, Some(cache)).unwrap();
    let entries = source.index().entries();
    let known = entries.iter().enumerate().filter(|(position, _)| source.known_content(*position).is_some());
    let known = known.map(|(_, entry)| String::from_utf8(entry.path.clone()).unwrap()).collect();
    source.content(&(0..entries.len()).collect::<Vec<_>>()).unwrap();
    source.save();
    known
}

/// Lets the clock of the file system tick away from the last change.
fn wait() {
    std::thread::sleep(Duration::from_millis(60));
}

#[test]
fn digests_hold_until_the_file_changes() {
    let top = tempfile::tempdir().unwrap();
    let (context, cache) = (top.path().join("context"), top.path().join("cache"));
    make(&context, &["a", "d/b", "d/c", "z"]);
    fs::hard_link(context.join("z"), context.join("zz")).unwrap();
    symlink("a", context.join("link")).unwrap();
    let all = ["a", "d/b", "d/c", "z"];
    let check = |change: &dyn Fn(), still_known: &[&str]| {
        wait();
        assert_eq!(known_before(&context, &cache), all, "before");
        change();
        wait();
        assert_eq!(known_before(&context, &cache), still_known);
        wait();
    };
    known_before(&context, &cache);
    wait();
    // Young files were not written down the first time.
    known_before(&context, &cache);
    check(&|| {}, &all);
    let times = |path: &str| fs::metadata(context.join(path)).unwrap().modified().unwrap();
    // The same size and the same time.
    let sneaky = || {
        let before = times("a");
        fs::write(context.join("a"), "A").unwrap();
        File::options().write(true).open(context.join("a")).unwrap().set_modified(before).unwrap();
    };
    check(&sneaky, &["d/b", "d/c", "z"]);
    let touch = || {
        File::options()
            .write(true)
            .open(context.join("d/b"))
            .unwrap()
            .set_modified(SystemTime::now())
            .unwrap()
    };
    check(&touch, &["a", "d/c", "z"]);
    let swap = || {
        fs::rename(context.join("d/b"), context.join("tmp")).unwrap();
        fs::rename(context.join("d/c"), context.join("d/b")).unwrap();
        fs::rename(context.join("tmp"), context.join("d/c")).unwrap();
    };
    check(&swap, &["a", "z"]);
    let replace = || {
        fs::write(context.join("new"), "Z").unwrap();
        fs::rename(context.join("new"), context.join("z")).unwrap();
        fs::remove_file(context.join("zz")).unwrap();
    };
    check(&replace, &["a", "d/b", "d/c"]);
    let note =
        || mica_sys::xattr::set(File::open(context.join("a")).unwrap(), b"user.note", b"1").unwrap_or(());
    if mica_sys::xattr::set(File::open(&context).unwrap(), b"user.note", b"1").is_ok() {
        check(&note, &["d/b", "d/c", "z"]);
    }
}

#[test]
fn young_files_are_not_trusted() {
    let top = tempfile::tempdir().unwrap();
    let (context, cache) = (top.path().join("context"), top.path().join("cache"));
    make(&context, &["a"]);
    let stamp = fs::metadata(context.join("a")).unwrap();
    known_before(&context, &cache);
    let age = SystemTime::now().duration_since(stamp.modified().unwrap()).unwrap();
    let known = known_before(&context, &cache);
    assert!(known.is_empty() || age > Duration::from_millis(20), "{known:?} {age:?}");
    // From the future: never.
    let file = File::options().write(true).open(context.join("a")).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    wait();
    known_before(&context, &cache);
    assert!(known_before(&context, &cache).is_empty());
}

#[test]
fn digests_are_of_content_and_attributes() {
    let top = tempfile::tempdir().unwrap();
    make(top.path(), &["a"]);
    let digest = || SourceDir::open(top.path(), None, None).unwrap().content(&[0]).unwrap()[0];
    let content = *blake3::hash(b"a").as_bytes();
    assert_eq!(digest(), content);
    if mica_sys::xattr::set(File::open(top.path().join("a")).unwrap(), b"user.note", b"1").is_err() {
        println!("skipped: no attributes here");
        return;
    }
    assert_eq!(digest(), identity(content, &[(b"user.note".to_vec(), b"1".to_vec())]));
    assert_ne!(digest(), content);
}

#[test]
fn hard_links_and_special_files() {
    let top = tempfile::tempdir().unwrap();
    make(top.path(), &["b", "hidden", "d/"]);
    fs::hard_link(top.path().join("b"), top.path().join("a")).unwrap();
    fs::hard_link(top.path().join("b"), top.path().join("d/c")).unwrap();
    fs::hard_link(top.path().join("hidden"), top.path().join("shown")).unwrap();
    symlink("/etc/passwd", top.path().join("link")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(top.path().join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        top.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let source = SourceDir::open(top.path(), Some(&rules("hidden")), None).unwrap();
    let kinds: Vec<_> = source.index().entries().iter().map(|entry| entry.kind.clone()).collect();
    let file = |size| Kind::File { size, content: None };
    let link = || Kind::Hardlink { target: b"a".to_vec() };
    let directory = Kind::Directory { opaque: false, implied: false };
    let symlink = Kind::Symlink { target: b"/etc/passwd".to_vec() };
    assert_eq!(paths(&source), ["a", "b", "d", "d/c", "link", "pipe", "shown"]);
    assert_eq!(kinds, [file(1), link(), directory, link(), symlink, Kind::Fifo, file(6)]);
    // Neither followed nor waited for.
    let entry = |path: &str| source.index().get(path.as_bytes()).unwrap();
    assert!(source.open_file(entry("link")).is_err());
    assert!(source.open_file(entry("b")).is_ok());
    let inodes = fs::metadata(top.path().join("a")).unwrap().nlink();
    assert_eq!(inodes, 3);
}

#[test]
fn files_that_change_are_errors() {
    let top = tempfile::tempdir().unwrap();
    make(top.path(), &["a", "b", "c", "d"]);
    let source = SourceDir::open(top.path(), None, None).unwrap();
    fs::write(top.path().join("a"), "longer").unwrap();
    fs::write(top.path().join("b"), "").unwrap();
    fs::remove_file(top.path().join("c")).unwrap();
    fs::remove_file(top.path().join("d")).unwrap();
    symlink("/etc/passwd", top.path().join("d")).unwrap();
    for position in 0..3 {
        assert!(matches!(source.content(&[position]), Err(ContextError::Changed { .. })), "{position}");
    }
    assert!(source.content(&[3]).is_err());
    let open = |path: &Path| SourceDir::open(path, None, None).err();
    assert!(matches!(open(&top.path().join("nowhere")), Some(ContextError::Missing { .. })));
    assert!(matches!(open(&top.path().join("a")), Some(ContextError::NotADirectory { .. })));
}
