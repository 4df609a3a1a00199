//! Trees of a few files: what is kept of them, what the layer holds, what is counted.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Seek, SeekFrom, Write};
use std::sync::Arc;

use mica_layer::assemble::Source;
use mica_oci::ContainerConfig;
use mica_tree::{Entry, Index, Kind, MergedIndex, Time};
use rustix::fs::MemfdFlags;

use crate::keep::{Kept, Rules, check_patterns, decide, mark};
use crate::pick::pick;
use crate::report::count;

/// `path`, `path/` a directory, `path -> target` a link, `path = target` a hard link; anything else after a space is
/// the content.
fn entry(text: &str) -> (Entry, Vec<u8>) {
    let mut content = Vec::new();
    let (path, kind) = if let Some((path, target)) = text.split_once(" -> ") {
        (path, Kind::Symlink { target: target.into() })
    } else if let Some((path, target)) = text.split_once(" = ") {
        (path, Kind::Hardlink { target: target.into() })
    } else if let Some(path) = text.strip_suffix('/') {
        (path, Kind::Directory { opaque: false, implied: false })
    } else {
        let (path, bytes) = text.split_once(' ').unwrap_or((text, ""));
        content = bytes.as_bytes().to_vec();
        (path, Kind::File { size: content.len() as u64, content: None })
    };
    let (mode, path) = (0o640, path.as_bytes().to_vec());
    (Entry { path, kind, mode, uid: 1, gid: 2, mtime: Time::default(), xattrs: Vec::new() }, content)
}

struct Sample {
    tree: MergedIndex,
    contents: BTreeMap<Vec<u8>, Vec<u8>>,
}

impl Sample {
    /// Directories come from the paths.
    fn new(lines: &[&str]) -> Self {
        let mut entries: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        let mut contents = BTreeMap::new();
        for line in lines {
            let (entry, content) = entry(line);
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            for (at, _) in path.match_indices('/') {
                let (directory, _) = self::entry(&format!("{}/", &path[..at]));
                entries.entry(directory.path.clone()).or_insert(directory);
            }
            contents.insert(entry.path.clone(), content);
            entries.insert(entry.path.clone(), entry);
        }
        let index = Index::new(entries.into_values().collect()).expect("an index");
        Self { tree: MergedIndex::new([Arc::new(index)]), contents }
    }

    fn keep(&self, used: &[&str], config: &ContainerConfig, rules: Rules<'_>) -> Kept {
        let mut flags = vec![false; self.tree.len()];
        for path in used {
            flags[self.tree.position(path.as_bytes()).expect("a path")] = true;
        }
        let open = |position: usize| {
            let bytes = &self.contents[&self.tree.entry(position).path];
            let mut file = File::from(rustix::fs::memfd_create("content", MemfdFlags::CLOEXEC)?);
            file.write_all(bytes)?;
            file.seek(SeekFrom::Start(0))?;
            Ok(file)
        };
        decide(&self.tree, &open, config, &flags, rules).expect("patterns")
    }

    /// What is kept but for directories that hold something kept.
    fn names(&self, kept: &Kept) -> Vec<String> {
        let mut names = Vec::new();
        for position in (0..self.tree.len()).filter(|position| kept.flags[*position]) {
            let inside = position + 1..self.tree.end_of(position);
            if !kept.flags[inside].contains(&true) {
                names.push(String::from_utf8_lossy(&self.tree.entry(position).path).into_owned());
            }
        }
        names
    }
}

const NONE: Rules<'static> = Rules { patterns: &[], defaults: false, packages: false };

#[test]
fn used_paths_and_patterns_are_kept() {
    let sample = Sample::new(&[
        "app/a",
        "app/b",
        "app/sub/c",
        "app/sub/d.txt",
        "data -> app/sub",
        "etc/loop -> loop",
        "lib -> usr/lib",
        "usr/lib/x.so",
        "usr/lib/y.so",
        "z\u{7}\n",
    ]);
    let check = |used: &[&str], patterns: &[&str], expect: &[&str], warnings: usize| {
        let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
        let kept = sample.keep(used, &ContainerConfig::default(), Rules { patterns: &patterns, ..NONE });
        assert_eq!(sample.names(&kept), expect, "{used:?} {patterns:?}");
        assert_eq!(kept.warnings.len(), warnings, "{:?}", kept.warnings);
    };
    check(&[], &[], &[], 0);
    check(&["app/a", "etc/loop"], &[], &["app/a", "etc/loop"], 0);
    // A directory that was only listed stands empty.
    check(&["app/sub"], &[], &["app/sub"], 0);
    check(&[], &["/app/sub"], &["app/sub/c", "app/sub/d.txt"], 0);
    check(&[], &["/app/sub/"], &["app/sub/c", "app/sub/d.txt"], 0);
    // Through links, which are kept with what they lead to.
    check(&[], &["/data"], &["app/sub/c", "app/sub/d.txt", "data"], 0);
    check(&[], &["/lib/x.so"], &["lib", "usr/lib/x.so"], 0);
    check(&[], &["/usr/lib/*.so"], &["usr/lib/x.so", "usr/lib/y.so"], 0);
    check(&[], &["/**/*.txt"], &["app/sub/d.txt"], 0);
    check(&[], &["/*/sub"], &["app/sub/c", "app/sub/d.txt"], 0);
    // The link that a glob finds leads to its target, and a loop nowhere.
    check(&[], &["/dat?"], &["app/sub", "data"], 0);
    check(&[], &["/etc/*"], &["etc/loop"], 0);
    check(&[], &["/etc/loop/x", "/nothing*", "/app/a/x"], &[], 3);
    let all = ["app/a", "app/b", "app/sub/c", "app/sub/d.txt", "data", "etc/loop", "lib"];
    let all: Vec<&str> = all.into_iter().chain(["usr/lib/x.so", "usr/lib/y.so", "z\u{7}\n"]).collect();
    check(&[], &["/"], &all, 0);
}

#[test]
fn bad_patterns_are_refused() {
    let check = |pattern: &str, expect: &str| {
        let found = check_patterns(&[pattern.to_owned()]).expect_err(pattern).to_string();
        assert!(found.contains(expect), "{found}");
    };
    check("app", "must begin with `/`");
    check("!/app", "must begin with `/`");
    check("/!a*", "without `!`");
    check("/[a", "no glob");
    check("", "must begin with `/`");
}

#[test]
fn defaults_keep_what_a_short_run_does_not_show() {
    let sample = Sample::new(&[
        "app/x",
        "etc/localtime -> /usr/share/zoneinfo/UTC",
        "etc/other",
        "etc/passwd root:x:0:0::/root:/bin/sh\nweb:x:7:7::/home/web:/bin/sh\n",
        "etc/ssl/certs/a.pem -> /usr/lib/certs/a.pem",
        "home/web/f",
        "home/x/f",
        "srv/volume/f",
        "tmp/f",
        "usr/lib/certs/a.pem",
        "usr/share/zoneinfo/UTC",
    ]);
    let mut config =
        ContainerConfig { working_dir: "/app".into(), user: "web:web".into(), ..Default::default() };
    config.volumes.insert("/srv/volume".into(), Default::default());
    let kept = sample.keep(&[], &config, Rules { defaults: true, ..NONE });
    let expect = [
        "app",
        "etc/localtime",
        "etc/passwd",
        "etc/ssl/certs/a.pem",
        "home/web",
        "srv/volume",
        "tmp",
        "usr/lib/certs/a.pem",
        "usr/share/zoneinfo/UTC",
    ];
    assert_eq!(sample.names(&kept), expect);
    assert!(sample.names(&sample.keep(&[], &config, NONE)).is_empty());
}

#[test]
fn packages_follow_their_used_files() {
    let info = "var/lib/dpkg/info";
    let lines = [
        "lib -> usr/lib",
        "usr/bin/a",
        "usr/bin/b",
        "usr/lib/liba.so",
        "usr/share/doc/a/copyright",
        "usr/share/doc/a/changelog",
        "usr/share/doc/b/copyright",
        &format!(
            "{info}/a:amd64.list /.\n/lib\n/lib/liba.so\n/usr/bin/a\n/usr/share/doc/a/copyright\n/gone\n"
        ),
        &format!("{info}/a:amd64.md5sums"),
        &format!("{info}/ab.md5sums"),
        &format!("{info}/b.list /usr\n/usr/bin\n/usr/bin/b\n"),
        "var/lib/dpkg/status Package: a\nV: 1\n\nPackage: b\nV: 2\n",
    ];
    let sample = Sample::new(&lines);
    let config = ContainerConfig::default();
    let check = |used: &[&str], rules: Rules<'_>, expect: &[&str]| -> Kept {
        let kept = sample.keep(used, &config, rules);
        assert_eq!(sample.names(&kept), expect);
        kept
    };
    let with_defaults = Rules { defaults: true, ..NONE };
    // A used directory makes no package used.
    check(&["usr/bin"], with_defaults, &["usr/bin"]);
    check(&["usr/lib/liba.so"], with_defaults, &["usr/lib/liba.so", "usr/share/doc/a/copyright"]);
    let whole = Rules { packages: true, ..NONE };
    let kept = check(
        &["usr/lib/liba.so"],
        whole,
        &[
            "lib",
            "usr/bin/a",
            "usr/lib/liba.so",
            "usr/share/doc/a/copyright",
            "var/lib/dpkg/info/a:amd64.list",
            "var/lib/dpkg/info/a:amd64.md5sums",
            "var/lib/dpkg/status",
        ],
    );
    let items = pick(&sample.tree, &kept);
    let status = items.iter().find(|item| item.entry.path == b"var/lib/dpkg/status").expect("the database");
    match (&status.source, &status.entry.kind) {
        (Source::Bytes(bytes), Kind::File { size, .. }) => {
            assert_eq!((bytes.as_ref(), *size), (b"Package: a\nV: 1\n\n".as_slice(), 17));
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn alpine_packages_are_known() {
    let sample = Sample::new(&[
        "bin/a",
        "bin/b",
        "etc/a.conf",
        "lib/apk/db/installed P:a\nF:bin\nR:a\nF:etc\nR:a.conf\n\nP:b\nF:bin\nR:b\n\n",
        "usr/share/licenses/a/LICENSE",
        "usr/share/licenses/b/LICENSE",
    ]);
    let rules = Rules { defaults: true, packages: true, ..NONE };
    let kept = sample.keep(&["bin/a"], &ContainerConfig::default(), rules);
    let expect = ["bin/a", "etc/a.conf", "lib/apk/db/installed", "usr/share/licenses/a/LICENSE"];
    assert_eq!(sample.names(&kept), expect);
    let replaced: Vec<&[u8]> = kept.replaced.values().map(AsRef::as_ref).collect();
    assert_eq!(replaced, [b"P:a\nF:bin\nR:a\nF:etc\nR:a.conf\n\n".as_slice()]);
}

#[test]
fn names_of_one_file_stay_names_of_one_file() {
    let sample = Sample::new(&["a/1 12345", "a/2 = a/1", "a/3 = a/1", "b 67"]);
    let kept = sample.keep(&["a/2", "a/3"], &ContainerConfig::default(), NONE);
    let items = pick(&sample.tree, &kept);
    let shown: Vec<String> = items
        .iter()
        .map(|item| {
            let entry = &item.entry;
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            match &entry.kind {
                Kind::File { size, .. } => {
                    format!("{path} {size} {:o} {}:{}", entry.mode, entry.uid, entry.gid)
                }
                Kind::Hardlink { target } => format!("{path} = {}", String::from_utf8_lossy(target)),
                _ => path,
            }
        })
        .collect();
    assert_eq!(shown, ["a", "a/2 5 640 1:2", "a/3 = a/2"]);
    let count = count(&sample.tree, &kept.flags);
    assert_eq!((count.all.files, count.all.bytes, count.kept.files, count.kept.bytes), (4, 7, 2, 5));
    let removed: Vec<(&str, u64, u64)> = count
        .removed
        .iter()
        .map(|directory| (directory.path.as_str(), directory.removed.files, directory.removed.bytes))
        .collect();
    assert_eq!(removed, [("/", 1, 2), ("/a", 1, 0)]);
}

#[test]
fn uses_are_found_by_path() {
    use mica_trace::{TreeUse, Use, Value};
    let sample = Sample::new(&["a/b", "a/c", "d"]);
    let used = |path: &str| Use { path: path.into(), value: Value::Absent };
    let mut flags = vec![false; sample.tree.len()];
    mark(&sample.tree, &TreeUse { uses: vec![used("a/b"), used("a/x"), used("d"), used("e")] }, &mut flags);
    assert_eq!(flags, [false, true, false, true]);
}

#[test]
fn malformed_trees_give_a_sound_layer() {
    // No directory above, a name of nothing, a name of a name, a whole path below a file, a link that leads out.
    let lines = ["a/b/c", "f", "f/below", "h = gone", "i = h", "l -> ../../..", "s = l"];
    let entries: Vec<Entry> = lines.iter().map(|line| entry(line).0).collect();
    let index = Index::new(entries).expect("an index");
    let contents = BTreeMap::new();
    let sample = Sample { tree: MergedIndex::new([Arc::new(index)]), contents };
    let all = ["/".to_owned()];
    let kept = sample.keep(&[], &ContainerConfig::default(), Rules { patterns: &all, ..NONE });
    let items = pick(&sample.tree, &kept);
    let paths: Vec<&[u8]> = items.iter().map(|item| item.entry.path.as_slice()).collect();
    assert_eq!(paths, [b"f".as_slice(), b"l", b"s"]);
    assert!(matches!(&items[2].entry.kind, Kind::Symlink { target } if target == b"../../.."));
    assert_eq!(count(&sample.tree, &kept.flags).all.bytes, 0);
}
