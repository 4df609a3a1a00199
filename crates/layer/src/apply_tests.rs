//! Tests of applying layers: tables, hostile tars, and trees as they lie on disk.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use mica_sys::xattr;
use mica_tree::{Entry, Kind, Time};
use sha2::{Digest, Sha256};

use crate::apply::{Applied, ApplyContext, Mapping, NoParents, Parents, apply_layer, extract_archive};
use crate::error::{LayerError, Result};
use crate::tar_builder::TarBuilder;
use crate::tar_entry::TarLimits;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Root's form where we are root, else the one that needs no rights.
fn mapping() -> Mapping {
    if is_root() { Mapping::Root } else { Mapping::Rootless { userxattr: true, ignore_unmapped: true } }
}

fn apply_on(tar: &[u8], tree: &Path, lower: &dyn Parents) -> Result<Applied> {
    let limits = TarLimits {
        entries_max: 20_000,
        holes_size_bytes_max: 1 << 20,
        extensions_size_bytes_max: 1 << 20,
        ..TarLimits::default()
    };
    apply_layer(tar, File::open(tree).unwrap(), &ApplyContext { lower, mapping: mapping(), limits })
}

/// One line per entry, short enough for a table.
fn shown(applied: &Applied) -> Vec<String> {
    let line = |entry: &Entry| {
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        match &entry.kind {
            Kind::File { size, .. } => format!("{path} file {size}"),
            Kind::Directory { opaque, implied } => {
                format!(
                    "{path} dir{}{}",
                    if *opaque { " opaque" } else { "" },
                    if *implied { " implied" } else { "" }
                )
            }
            Kind::Symlink { target } => format!("{path} -> {}", String::from_utf8_lossy(target)),
            Kind::Hardlink { target } => format!("{path} = {}", String::from_utf8_lossy(target)),
            Kind::Whiteout => format!("{path} whiteout"),
            other => format!("{path} {other:?}"),
        }
    };
    applied.entries.iter().map(line).collect()
}

/// Applies, compares the entries with the table's, the tree on disk with the entries, and the digest with the bytes.
#[track_caller]
fn check(tar: TarBuilder, expect: &[&str]) -> Applied {
    let top = tempfile::tempdir().unwrap();
    let (tree, tar) = (top.path().join("tree"), tar.end());
    fs::create_dir(&tree).unwrap();
    let applied = apply_on(&tar, &tree, &NoParents).unwrap();
    assert_eq!(shown(&applied), expect);
    assert_eq!(applied.diff_id, <[u8; 32]>::from(Sha256::digest(&tar)));
    assert_eq!(applied.tar_size_bytes, tar.len() as u64);
    check_tree(&tree, &applied);
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1, "something was written beside the tree");
    applied
}

#[track_caller]
fn check_tree(tree: &Path, applied: &Applied) {
    let mut inodes = BTreeMap::new();
    for entry in &applied.entries {
        let path = tree.join(mica_sys::dir_at::bytes_path(&entry.path));
        let found = fs::symlink_metadata(&path).unwrap();
        inodes.insert(entry.path.clone(), found.ino());
        match &entry.kind {
            Kind::File { size, content } => {
                assert!(found.is_file());
                let read = fs::read(&path).unwrap();
                assert_eq!(read.len() as u64, *size);
                assert_eq!(Some(*blake3::hash(&read).as_bytes()), *content);
            }
            Kind::Directory { opaque, .. } => {
                assert!(found.is_dir());
                let name: &[u8] = if is_root() { b"trusted.overlay.opaque" } else { b"user.overlay.opaque" };
                let mark = xattr::get(File::open(&path).unwrap(), name).unwrap();
                assert_eq!(mark.as_deref() == Some(b"y"), *opaque, "{}", path.display());
            }
            Kind::Symlink { target } => {
                assert_eq!(fs::read_link(&path).unwrap(), mica_sys::dir_at::bytes_path(target));
            }
            Kind::Hardlink { target } => assert_eq!(Some(&found.ino()), inodes.get(target)),
            Kind::Whiteout => assert!(found.file_type().is_char_device() && found.rdev() == 0),
            _ => {}
        }
        if !matches!(entry.kind, Kind::Whiteout | Kind::Hardlink { .. } | Kind::Symlink { .. }) {
            assert_eq!(found.mode() & 0o7777, entry.mode, "{}", path.display());
        }
        if !matches!(entry.kind, Kind::Whiteout | Kind::Hardlink { .. }) {
            assert_eq!(
                (found.mtime(), found.mtime_nsec()),
                (entry.mtime.seconds, i64::from(entry.mtime.nanoseconds))
            );
        }
    }
    let mut count = 0;
    let mut waiting = vec![tree.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for found in fs::read_dir(directory).unwrap() {
            let found = found.unwrap();
            count += 1;
            if found.file_type().unwrap().is_dir() {
                waiting.push(found.path());
            }
        }
    }
    assert_eq!(count, applied.entries.iter().filter(|entry| !entry.path.is_empty()).count());
}

#[track_caller]
fn check_error(tar: Vec<u8>, expect: &str) {
    let top = tempfile::tempdir().unwrap();
    let tree = top.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let error = apply_on(&tar, &tree, &NoParents).expect_err(expect).to_string();
    assert!(error.contains(expect), "`{error}` does not say `{expect}`");
    assert_eq!(fs::read_dir(top.path()).unwrap().count(), 1, "something was written beside the tree");
}

fn tar() -> TarBuilder {
    TarBuilder::new()
}

#[test]
fn plain_trees() {
    check(tar(), &[]);
    check(tar().dir("./").dir("./a/").file("./a/f", "hello"), &[" dir", "a dir", "a/f file 5"]);
    check(tar().file("/abs", "x").symlink("l", "/etc/passwd"), &["abs file 1", "l -> /etc/passwd"]);
    check(tar().file("a//b/./c", "x"), &["a dir implied", "a/b dir implied", "a/b/c file 1"]);
    check(tar().file("a-b", "").dir("a").file("a/b", ""), &["a dir", "a/b file 0", "a-b file 0"]);
    let long = "n".repeat(200);
    check(tar().file(&format!("d/{long}"), "x"), &["d dir implied", &format!("d/{long} file 1")]);
    check(tar().pax(&[("path", b"p/\xc3\xbc")]).file("x", "1"), &["p dir implied", "p/\u{fc} file 1"]);
}

#[test]
fn later_entries_win() {
    check(tar().file("a", "1").file("a", "22"), &["a file 2"]);
    check(tar().dir("a").file("a/b", "1").file("a", "22"), &["a file 2"]);
    check(tar().file("a", "1").dir("a").file("a/b", ""), &["a dir", "a/b file 0"]);
    check(tar().dir("a").file("a/b", "").dir("a"), &["a dir", "a/b file 0"]);
    check(tar().file("a/b", "").dir("a"), &["a dir", "a/b file 0"]);
    check(tar().file("a", "1").symlink("a", "b"), &["a -> b"]);
    check(tar().symlink("a", "b").file("a", "1"), &["a file 1"]);
    check(tar().symlink("a", "b").dir("a").file("a/f", ""), &["a dir", "a/f file 0"]);
    check(tar().file("a", "1").link("b", "a").file("a", "22"), &["a file 2", "b file 1"]);
    check(tar().dir("d/e").file("d/e/f", "").file("d-x", "").file("d", "1"), &["d file 1", "d-x file 0"]);
}

#[test]
fn hard_links() {
    check(tar().file("b", "1").link("a", "b").link("c", "./b"), &["a file 1", "b = a", "c = a"]);
    check(tar().file("a", "1").link("a", "a"), &["a file 1"]);
    check(tar().symlink("a", "x").link("b", "/a"), &["a -> x", "b -> x"]);
    check(
        tar().file("r/f", "1").symlink("d", "r").link("x", "d/f"),
        &["d -> r", "r dir implied", "r/f file 1", "x = r/f"],
    );
    check_error(tar().link("a", "missing").end(), "`a`: hard link to `missing`");
    check_error(tar().dir("d").link("a", "d").end(), "`a`: hard link to `d`");
    check_error(tar().link("a", "../../etc/passwd").end(), "`../../etc/passwd`");
    check_error(tar().link("a", "/etc/passwd").end(), "hard link to `etc/passwd`");
    check_error(tar().symlink("s", "/etc").link("a", "s/passwd").end(), "hard link to `s/passwd`");
    check_error(tar().dir("d").file("d/f", "").link("d", "d/f").end(), "hard link to `d/f`");
}

#[test]
fn whiteouts() {
    check(tar().dir("d").file("d/.wh.x", ""), &["d dir", "d/x whiteout"]);
    check(tar().dir("d").file("d/.wh..wh..opq", "").file("d/f", ""), &["d dir opaque", "d/f file 0"]);
    check(tar().file("d/f", "").file("d/.wh..wh..opq", ""), &["d dir opaque implied", "d/f file 0"]);
    check(tar().file(".wh..wh..opq", ""), &[" dir opaque implied"]);
    // Invariant 2.
    check(tar().file("x", "1").file(".wh.x", ""), &["x file 1"]);
    check(tar().file(".wh.x", "").file("x", "1"), &["x file 1"]);
    check(tar().file(".wh.x", "").dir("x"), &["x dir opaque"]);
    check(tar().dir("x").file("x/f", "").file(".wh.x", ""), &["x dir opaque", "x/f file 0"]);
    check(tar().file(".wh.x", "").file("x/f", ""), &["x dir opaque", "x/f file 0"]);
    check(tar().file(".wh..wh.plnk/1.2", "").dir(".wh..wh.aufs").file("a", ""), &["a file 0"]);
    check_error(tar().file("d/.wh.", "").end(), "`d/.wh.`: a whiteout of ``");
    check_error(tar().file("d/.wh..", "").end(), "a whiteout of `.`");
    check_error(tar().file("d/.wh...", "").end(), "a whiteout of `..`");
    check_error(tar().file(".wh.d/f", "").end(), "`.wh.d/f`");
    check_error(tar().file("d/../.wh.x", "").end(), "`..` in a name");
}

#[test]
fn links_are_followed_inside() {
    check(
        tar().symlink("lib", "usr/lib").file("lib/f", "1"),
        &["lib -> usr/lib", "usr dir implied", "usr/lib dir implied", "usr/lib/f file 1"],
    );
    check(tar().symlink("up", "../../..").file("up/f", "1"), &["f file 1", "up -> ../../.."]);
    check(tar().symlink("e", "/etc").file("e/f", "1"), &["e -> /etc", "etc dir implied", "etc/f file 1"]);
    check(tar().dir("d").symlink("d/s", "..").file("d/s/f", "1"), &["d dir", "d/s -> ..", "f file 1"]);
    check(
        tar().symlink("e", "/etc").file("e/.wh.x", ""),
        &["e -> /etc", "etc dir implied", "etc/x whiteout"],
    );
    check_error(tar().symlink("a", "b").symlink("b", "a").file("a/f", "").end(), "too many symbolic links");
    check_error(tar().file("a", "").file("a/f", "").end(), "`a/f`: `a` in its path is not a directory");
}

#[test]
fn names_and_headers_that_are_refused() {
    check_error(tar().file("../x", "").end(), "`../x`: `..` in a name");
    check_error(tar().file("a/../../x", "").end(), "`..` in a name");
    check_error(tar().file("..", "").end(), "`..` in a name");
    check_error(tar().file("", "").end(), "the name is empty");
    check_error(tar().file("/", "x").end(), "`/`: only a directory");
    check_error(tar().symlink("./", "x").end(), "only a directory");
    check_error(tar().pax(&[("path", b"a\0b")]).file("x", "").end(), "NUL");
    check_error(tar().file(&"n".repeat(256), "").end(), "longer than 255 bytes");
    check_error(tar().dir(&"n/".repeat(10_000)).end(), "longer than 4095 bytes");
    check_error(tar().symlink("s", "").end(), "target of a symbolic link");
    check_error(tar().owner(0o7_777_777).raw(b'Z', b"x", b"", 0, b"").end(), "type `Z`");
    check_error(tar().pax(&[("uid", b"4294967295")]).file("x", "").end(), "`x`: invalid owner");
    check_error(tar().pax(&[("uid", b"-1")]).file("x", "").end(), "invalid PAX `uid`");
    check_error(tar().pax(&[("size", b"99999999999999999999")]).file("x", "").end(), "invalid PAX `size`");
    check_error(tar().pax(&[("size", b"9223372036854775807")]).file("x", "").end(), "the content of `x`");
    check_error(tar().raw(b'0', b"x", b"", 1 << 32, b"short").end(), "the content of `x`");
    check_error(tar().raw(b'x', b"p", b"", 1 << 32, b"").end(), "bytes in an extension header");
    check_error(tar().extension(b'x', b"9 path=a\n12 path").file("x", "").end(), "PAX records");
    check_error(tar().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("x", "").end(), "twice");
    check_error(tar().pax(&[("path", b"a")]).end(), "ends after an extension header");
    check_error(tar().extension(b'V', b"").bytes.repeat(40), "too many extension headers");
    let large = vec![b'x'; 60_000];
    let many =
        (0..20).fold(tar(), |tar, _| tar.pax(&[("SCHILY.xattr.trusted.overlay.x", &large)]).file("x", ""));
    check_error(many.end(), "bytes in all extension headers");
    let mut lone = tar().file("a", "").bytes;
    lone.extend([0; 512]);
    lone.extend(tar().file("b", "").bytes);
    check_error(lone, "a lone block of zeros");
    let mut many = tar();
    for _ in 0..20_001 {
        many = many.dir("d");
    }
    check_error(many.end(), "more than 20000 entries");
}

#[test]
fn size_of_a_link_is_no_content() {
    // GHSA of 2025 and 2026 about tar readers that disagree: the header inside must be seen as in Go.
    check(
        tar().file("a", "").raw(b'1', b"b", b"a", 512, b"").file("c", ""),
        &["a file 0", "b = a", "c file 0"],
    );
    let inner = tar().file("smuggled", "").bytes;
    let outer = tar().pax(&[("size", b"512")]).raw(b'0', b"x", b"", 0, &inner);
    check(outer.file("y", ""), &["x file 512", "y file 0"]);
}

#[test]
fn truncated_tars_fail_or_end_at_a_header() {
    let whole = tar().dir("d").file("d/f", "content").pax(&[("path", b"other")]).file("x", "1").end();
    for size_bytes in
        (0..whole.len() - 1024).filter(|size_bytes| size_bytes % 512 < 3 || size_bytes % 17 == 0)
    {
        let top = tempfile::tempdir().unwrap();
        let applied = apply_on(&whole[..size_bytes], top.path(), &NoParents);
        assert_eq!(applied.is_ok(), matches!(size_bytes, 0 | 512 | 1536), "{size_bytes}: {applied:?}");
    }
}

#[test]
fn altered_bytes_never_panic() {
    let whole = tar()
        .dir("d")
        .file("d/f", "content")
        .pax(&[("path", b"other"), ("mtime", b"12.5"), ("SCHILY.xattr.user.a", b"v")])
        .file("x", "1")
        .symlink("s", "d")
        .link("s/h", "d/f")
        .file("s/.wh.w", "")
        .end();
    let top = tempfile::tempdir().unwrap();
    let mut applied = 0;
    for position in 0..whole.len() - 1024 {
        // One of these per byte, another at each turn: all for all would take a minute.
        let values = [0, b'0', b'9', b'/', b'.', 0x80, 0xff];
        for value in [values[position % 7]] {
            let mut altered = whole.clone();
            altered[position] = value;
            // The checksum finds nearly all, so it is made to fit: what is behind it must hold alone.
            let header = position / 512 * 512;
            if whole[header + 257..header + 262] == *b"ustar" && !(148..156).contains(&(position % 512)) {
                let mut block =
                    TarBuilder { bytes: altered[header..header + 512].to_vec(), ..TarBuilder::new() };
                block.sum();
                altered[header..header + 512].copy_from_slice(&block.bytes);
            } else if value != 0x80 {
                continue;
            }
            let tree = top.path().join(format!("tree{position}"));
            fs::create_dir(&tree).unwrap();
            applied += usize::from(apply_on(&altered, &tree, &NoParents).is_ok());
            // Without root's rights an altered mode may forbid it.
            let _ = fs::remove_dir_all(&tree);
        }
    }
    assert!(applied > 500, "{applied}");
    for beside in fs::read_dir(top.path()).unwrap() {
        assert!(beside.unwrap().file_name().to_string_lossy().starts_with("tree"));
    }
}

struct Below {
    directory: std::path::PathBuf,
}

impl Parents for Below {
    fn directory(&self, path: &[u8]) -> Option<Entry> {
        let found = matches!(path, b"var" | b"");
        found.then(|| Entry { mode: 0o1777, mtime: Time { seconds: 77, nanoseconds: 5 }, ..entry(path) })
    }
    fn open_file(&self, path: &[u8]) -> Option<(Entry, File)> {
        let file = File::open(self.directory.join(mica_sys::dir_at::bytes_path(path))).ok()?;
        let kind = Kind::File { size: 5, content: None };
        Some((Entry { kind, mode: 0o4755, ..entry(path) }, file))
    }
}

fn entry(path: &[u8]) -> Entry {
    let (kind, mtime) = (Kind::Directory { opaque: false, implied: false }, Time::default());
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Entry { path: path.to_vec(), kind, mode: 0o755, uid, gid, mtime, xattrs: Vec::new() }
}

#[test]
fn what_comes_from_below_is_marked() {
    let top = tempfile::tempdir().unwrap();
    fs::write(top.path().join("base"), "below").unwrap();
    let below = Below { directory: top.path().to_path_buf() };
    let check = |tar: TarBuilder, expect: &[&str], marks: (bool, bool)| {
        let tree = top.path().join("tree");
        fs::create_dir(&tree).unwrap();
        let applied = apply_on(&tar.end(), &tree, &below).unwrap();
        assert_eq!(shown(&applied), expect);
        assert_eq!((applied.implied_directories, applied.lower_hardlinks), marks);
        check_tree(&tree, &applied);
        assert_eq!(fs::metadata(&tree).unwrap().mode() & 0o7777, 0o1777);
        fs::remove_dir_all(&tree).unwrap();
        applied
    };
    let applied = check(tar().file("var/f", ""), &["var dir implied", "var/f file 0"], (true, false));
    assert_eq!((applied.entries[0].mode, applied.entries[0].mtime.seconds), (0o1777, 77));
    let applied = check(tar().file("usr/f", ""), &["usr dir implied", "usr/f file 0"], (true, false));
    assert_eq!((applied.entries[0].mode, applied.entries[0].mtime.seconds), (0o755, 0));
    check(tar().file("f", ""), &["f file 0"], (false, false));
    // Below says it, but this layer has hidden it.
    let applied = check(
        tar().file(".wh.var", "").file("var/f", ""),
        &["var dir opaque", "var/f file 0"],
        (false, false),
    );
    assert_eq!(applied.entries[0].mode, 0o755);
    let applied = check(tar().link("b", "base").link("a", "/base"), &["a file 5", "b = a"], (false, true));
    assert_eq!(applied.entries[0].mode, 0o4755);
}

#[test]
fn sparse_files() {
    let hello = |extra: TarBuilder| check(extra, &["s file 8192"]);
    let pax01 = [("GNU.sparse.name", &b"s"[..]), ("GNU.sparse.size", b"8192"), ("GNU.sparse.map", b"4096,5")];
    hello(tar().pax(&pax01).file("GNUSparseFile.0/s", "hello"));
    let pax00: [(&str, &[u8]); 3] =
        [("GNU.sparse.size", b"8192"), ("GNU.sparse.offset", b"4096"), ("GNU.sparse.numbytes", b"5")];
    hello(tar().pax(&pax00).file("s", "hello"));
    let pax10: [(&str, &[u8]); 4] = [
        ("GNU.sparse.major", b"1"),
        ("GNU.sparse.minor", b"0"),
        ("GNU.sparse.name", b"s"),
        ("GNU.sparse.realsize", b"8192"),
    ];
    let map = |text: &str| format!("{text:\0<512}hello");
    hello(tar().pax(&pax10).file("x", &map("1\n4096\n5\n")));
    let refused = |map: &[u8]| {
        let records = [("GNU.sparse.size", &b"8192"[..]), ("GNU.sparse.map", map)];
        check_error(tar().pax(&records).file("s", "hello").end(), "`s`: invalid sparse map");
    };
    for map in [
        &b"4096,4"[..],
        b"4096,6",
        b"8190,5",
        b"0,3,2,2",
        b"10,2,0,3",
        b"1",
        b"-1,5",
        b"18446744073709551615,5",
    ] {
        refused(map);
    }
    for text in ["1\n4096\n", "99999999999\n", "x\n", "2\n0\n5\n0\n0\n"] {
        check_error(tar().pax(&pax10).file("x", &map(text)).end(), "invalid sparse map");
    }
    let huge = [("GNU.sparse.size", &b"1152921504606846976"[..]), ("GNU.sparse.map", b"0,5")];
    check_error(tar().pax(&huge).file("s", "hello").end(), "bytes in the holes of sparse files");
}

#[test]
fn archives_are_given_entry_by_entry() {
    let tar = tar()
        .file("d/.wh.x", "plain")
        .pax(&[("GNU.sparse.size", b"10"), ("GNU.sparse.map", b"2,5")])
        .file("s", "hello")
        .file("unread", "content")
        .link("l", "s")
        .end();
    let mut seen = Vec::new();
    extract_archive::<LayerError>(tar.as_slice(), TarLimits::default(), &mut |entry, content| {
        let mut read = String::new();
        if entry.path != b"unread" {
            content.read_to_string(&mut read)?;
        }
        seen.push((String::from_utf8_lossy(&entry.path).into_owned(), read));
        Ok(())
    })
    .unwrap();
    let expect = [("d/.wh.x", "plain"), ("s", "\0\0hello\0\0\0"), ("unread", ""), ("l", "")];
    assert_eq!(seen, expect.map(|(path, content)| (path.to_owned(), content.to_owned())));
    let cut = &tar[..600];
    let sink = &mut |_, content: &mut dyn Read| Ok(std::io::copy(content, &mut std::io::sink()).map(|_| ())?);
    let error = extract_archive::<LayerError>(cut, TarLimits::default(), sink).unwrap_err();
    assert!(matches!(error, LayerError::Truncated { .. }), "{error}");
}

#[test]
fn values_of_extension_records() {
    let applied = check(
        tar()
            .extension(b'g', b"14 mtime=1111\n")
            .pax(&[
                ("mtime", b"-1.5"),
                ("SCHILY.xattr.user.b", b"\0\n="),
                ("LIBARCHIVE.xattr.user.%61", b"aGk"),
            ])
            .file("a", "")
            .pax(&[
                ("SCHILY.xattr.trusted.overlay.redirect", b"/x"),
                ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ])
            .file("b", ""),
        &["a file 0", "b file 0"],
    );
    let [a, b] = applied.entries.as_slice() else { panic!() };
    assert_eq!(a.mtime, Time { seconds: -2, nanoseconds: 500_000_000 });
    assert_eq!(a.xattrs, [(b"user.a".to_vec(), b"hi".to_vec()), (b"user.b".to_vec(), b"\0\n=".to_vec())]);
    assert_eq!((b.mtime.seconds, b.xattrs.len()), (1111, 0));
}

#[test]
fn a_read_error_is_told() {
    struct Failing;
    impl Read for Failing {
        fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
            Err(std::io::Error::other("broken line"))
        }
    }
    let top = tempfile::tempdir().unwrap();
    let context = ApplyContext { lower: &NoParents, mapping: mapping(), limits: TarLimits::default() };
    let error = apply_layer(Failing, File::open(top.path()).unwrap(), &context).unwrap_err();
    assert!(error.to_string().contains("broken line"), "{error}");
}

#[test]
fn foreign_layers() {
    let corpus = std::env::var_os("MICA_CORPUS").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpus"),
        std::path::PathBuf::from,
    );
    let Ok(archives) = fs::read_dir(corpus.join("archives")) else {
        println!("skipped: corpus is absent");
        return;
    };
    for archive in archives.map(|archive| archive.unwrap().path()) {
        if archive.extension().is_none_or(|extension| extension != "tar") {
            continue;
        }
        // docker-save archives: each inner tar is a layer.
        let (mut layers, mut links) = (0, 0);
        extract_archive::<LayerError>(
            File::open(&archive).unwrap(),
            TarLimits::default(),
            &mut |entry, content| {
                links += usize::from(matches!(entry.kind, Kind::Symlink { .. }));
                let mut bytes = Vec::new();
                content.read_to_end(&mut bytes)?;
                let (_, mut plain) =
                    crate::compress::decompress(std::io::Cursor::new(bytes), Default::default())?;
                let mut tar = Vec::new();
                plain.read_to_end(&mut tar)?;
                if tar.get(257..262) == Some(b"ustar") {
                    let tree = tempfile::tempdir().unwrap();
                    let applied = apply_on(&tar, tree.path(), &NoParents)?;
                    check_tree(tree.path(), &applied);
                    layers += 1;
                }
                Ok(())
            },
        )
        .unwrap();
        assert!(layers > 0 || links > 0, "{}", archive.display());
    }
}
