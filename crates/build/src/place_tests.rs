//! The rules of COPY as tables: a source tree, a lower tree, and what the layer holds.

use std::sync::Arc;

use mica_plan::Chmod;
use mica_trace::{NoContents, Use, Watched};
use mica_tree::{Entry, Index, Kind, MergedIndex, Time, parent};

use crate::place::{Attributes, Origin, PlaceError, Placement, has_glob, matches};
use crate::select::{Selection, beginnings};

/// Entries as words: `path/` a directory, `path -> text` a symbolic link, `path = first` a hard link, `!path` a whiteout, else
/// a file; `:mode:owner` behind a path. Directories above are made as needed.
fn layer(lines: &[&str]) -> Arc<Index> {
    let mut entries: Vec<Entry> = Vec::new();
    for line in lines {
        let (name, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (name, is_directory) = name.strip_suffix('/').map_or((name, false), |name| (name, true));
        let mut fields = name.split(':');
        let name = fields.next().unwrap();
        let mode = fields.next().map(|mode| u32::from_str_radix(mode, 8).unwrap());
        let uid = fields.next().map_or(7, |uid| uid.parse().unwrap());
        let (path, kind) = match rest.split_once(' ') {
            _ if is_directory => (name, Kind::Directory { opaque: false, implied: false }),
            Some(("->", target)) => (name, Kind::Symlink { target: target.into() }),
            Some(("=", target)) => (name, Kind::Hardlink { target: target.into() }),
            _ if name.starts_with('!') => (&name[1..], Kind::Whiteout),
            _ => (name, Kind::File { size: 1, content: None }),
        };
        let mode = mode.unwrap_or(if is_directory { 0o700 } else { 0o640 });
        let entry = |path: &[u8], kind, mode| Entry {
            path: path.to_vec(),
            kind,
            mode,
            uid,
            gid: uid,
            mtime: Time { seconds: 1, nanoseconds: 0 },
            xattrs: Vec::new(),
        };
        let mut above = parent(path.as_bytes()).unwrap_or_default();
        while !above.is_empty() {
            if !entries.iter().any(|entry| entry.path == above) {
                entries.push(entry(above, Kind::Directory { opaque: false, implied: false }, 0o711));
            }
            above = parent(above).unwrap_or_default();
        }
        entries.push(entry(path.as_bytes(), kind, mode));
    }
    Arc::new(Index::new(entries).unwrap())
}

fn tree(lines: &[&str]) -> MergedIndex {
    MergedIndex::new([layer(lines)])
}

fn lines(placement: Placement<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    for placed in placement.finish() {
        let entry = &placed.entry;
        let path = String::from_utf8_lossy(&entry.path).into_owned();
        let origin = match &placed.origin {
            Origin::Source(path) => String::from_utf8_lossy(path).into_owned(),
            Origin::Spooled(path) => path.display().to_string(),
            _ => String::new(),
        };
        lines.push(match &entry.kind {
            Kind::Directory { implied: true, .. } => format!("{path}/ implied"),
            Kind::Directory { .. } => format!("{path}/ {:o} {}", entry.mode, entry.uid),
            Kind::Symlink { target } => {
                format!("{path} -> {} {}", String::from_utf8_lossy(target), entry.uid)
            }
            Kind::Hardlink { target } => format!("{path} = {}", String::from_utf8_lossy(target)),
            Kind::File { .. } => format!("{path} {:o} {} < {origin}", entry.mode, entry.uid),
            kind => format!("{path} {kind:?}"),
        });
    }
    lines
}

struct Copy<'a> {
    source: &'a [&'a str],
    lower: &'a [&'a str],
    attributes: Attributes,
    excludes: &'a [&'a str],
    parents: bool,
}

impl Default for Copy<'_> {
    fn default() -> Self {
        let attributes = Attributes { owner: Some((0, 0)), ..Attributes::default() };
        Self { source: &[], lower: &[], attributes, excludes: &[], parents: false }
    }
}

impl Copy<'_> {
    fn run(&self, words: &[&str], destination: &str) -> Result<Vec<String>, PlaceError> {
        let (source, lower) = (tree(self.source), tree(self.lower));
        let lower = Watched::new(&lower);
        let mut placement = Placement::new(&lower, self.attributes.clone());
        let target = placement.destination(destination)?;
        let excludes: Vec<String> = self.excludes.iter().map(|pattern| pattern.to_string()).collect();
        for word in words {
            let selection = Selection::new(self.parents.then_some(*word), &excludes)?;
            let paths = if self.parents { beginnings(&source, word)? } else { matches(&source, word)? };
            let into = destination.ends_with('/') || words.len() > 1 || (has_glob(word) && paths.len() > 1);
            for path in paths {
                placement.copy(&source, &path, &target, into, &selection)?;
            }
        }
        Ok(lines(placement))
    }

    fn check(&self, words: &[&str], destination: &str, expect: &[&str]) {
        assert_eq!(self.run(words, destination).unwrap(), expect, "{words:?} {destination}");
    }
}

#[test]
fn files() {
    let copy = Copy {
        source: &["a", "d/b", "d/e/c", "link -> d/b", "dlink -> d", "x:755"],
        lower: &["etc/", "file", "there -> etc", "gone -> opt/new", "up -> ../../../etc"],
        ..Copy::default()
    };
    copy.check(&["a"], "/", &["a 640 0 < a"]);
    copy.check(&["a"], "/b", &["b 640 0 < a"]);
    copy.check(&["a"], "/etc", &["etc/ implied", "etc/a 640 0 < a"]);
    copy.check(&["a"], "/etc/", &["etc/ implied", "etc/a 640 0 < a"]);
    copy.check(&["a"], "/new/", &["new/ 755 0", "new/a 640 0 < a"]);
    copy.check(&["a"], "/new/deep/b", &["new/ 755 0", "new/deep/ 755 0", "new/deep/b 640 0 < a"]);
    copy.check(&["a"], "/file", &["file 640 0 < a"]);
    copy.check(&["a", "x"], "/etc/", &["etc/ implied", "etc/a 640 0 < a", "etc/x 755 0 < x"]);
    // Links on the way and at the end of the destination.
    copy.check(&["a"], "/there", &["etc/ implied", "etc/a 640 0 < a"]);
    copy.check(&["a"], "/there/b", &["etc/ implied", "etc/b 640 0 < a"]);
    copy.check(&["a"], "/up/b", &["etc/ implied", "etc/b 640 0 < a"]);
    copy.check(&["a"], "/gone", &["opt/ 755 0", "opt/new 640 0 < a"]);
    copy.check(&["a"], "/gone/", &["opt/ 755 0", "opt/new/ 755 0", "opt/new/a 640 0 < a"]);
    // A source that is a link is followed, its own name is kept.
    copy.check(&["link"], "/", &["link 640 0 < d/b"]);
    copy.check(&["dlink/e/c"], "/", &["c 640 0 < d/e/c"]);
    // `..` stops at the root.
    copy.check(&["../../a"], "/../b", &["b 640 0 < a"]);
    copy.check(&["./d/../a"], "/./x/../b", &["b 640 0 < a"]);
}

#[test]
fn directories() {
    let copy = Copy {
        source: &["d:750:9/", "d/b", "d/s:711:9/", "d/s/c", "d/l -> ../a", "e/", "a", "dlink -> d"],
        lower: &["old:700:5/", "old/s:700:5/", "old/kept", "there -> old", "file"],
        ..Copy::default()
    };
    let inside = |at: &str| {
        vec![
            format!("{at}b 640 0 < d/b"),
            format!("{at}l -> ../a 0"),
            format!("{at}s/ 711 0"),
            format!("{at}s/c 640 0 < d/s/c"),
        ]
    };
    let check = |words: &[&str], destination: &str, first: &[&str], at: &str| {
        let expect = first.iter().map(|line| (*line).to_owned()).chain(inside(at)).collect::<Vec<_>>();
        assert_eq!(copy.run(words, destination).unwrap(), expect, "{words:?} {destination}");
    };
    check(&["d"], "/new", &["new/ 755 0"], "new/");
    check(&["d/"], "/new/", &["new/ 755 0"], "new/");
    check(&["dlink"], "/new", &["new/ 755 0"], "new/");
    check(&["d"], "/", &[], "");
    check(&["d"], "/n/m", &["n/ 755 0", "n/m/ 755 0"], "n/m/");
    // What was there keeps its attributes, a directory inside takes those of the source.
    check(&["d"], "/old", &["old/ implied"], "old/");
    check(&["d"], "/there/", &["old/ implied"], "old/");
    copy.check(&["e"], "/x", &["x/ 755 0"]);
    copy.check(&["e"], "/old", &["old/ implied"]);
    copy.check(&["e", "a"], "/x/", &["x/ 755 0", "x/a 640 0 < a"]);
    assert_eq!(copy.run(&["."], "/").unwrap().len(), 8);
    assert_eq!(copy.run(&[".."], "/").unwrap().len(), 8);
    assert_eq!(copy.run(&["/"], "/").unwrap().len(), 8);
}

#[test]
fn one_kind_does_not_replace_the_other() {
    let copy = Copy {
        source: &["d/x/", "d/y", "a"],
        lower: &["x", "y/", "file", "link -> y", "in/x -> /y", "loop -> loop"],
        ..Copy::default()
    };
    let check = |word: &str, destination: &str, expect: PlaceError| {
        assert_eq!(copy.run(&[word], destination), Err(expect), "{word} {destination}");
    };
    let over_file = |path: &str| PlaceError::DirectoryOverFile { path: path.into() };
    check("d", "/", over_file("x"));
    check("d", "/file", over_file("file"));
    check("d", "/in", over_file("in/x"));
    check("a", "/file/", over_file("file"));
    assert!(matches!(copy.run(&["a"], "/file/b"), Err(PlaceError::Unresolvable { .. })));
    assert!(matches!(copy.run(&["a"], "/loop"), Err(PlaceError::Unresolvable { .. })));
    let copy = Copy { source: &["d/y"], lower: &["y/"], ..Copy::default() };
    assert_eq!(copy.run(&["d"], "/"), Err(PlaceError::FileOverDirectory { path: "y".into() }));
    // A file replaces a link inside a directory that is copied, and does not write through it.
    let copy = Copy { source: &["d/y"], lower: &["y -> etc/passwd"], ..Copy::default() };
    copy.check(&["d"], "/", &["y 640 0 < d/y"]);
}

#[test]
fn patterns() {
    let copy = Copy {
        source: &["a.c", "b.c", "b.h", "d/x.c", "e/x.c", "[z]", "s/one/f", "s/two/f", "broken -> nowhere"],
        ..Copy::default()
    };
    copy.check(&["*.c"], "/o/", &["o/ 755 0", "o/a.c 640 0 < a.c", "o/b.c 640 0 < b.c"]);
    copy.check(&["b.[ch]"], "/o/", &["o/ 755 0", "o/b.c 640 0 < b.c", "o/b.h 640 0 < b.h"]);
    copy.check(&["a.?"], "/o", &["o 640 0 < a.c"]);
    copy.check(&["*/x.c"], "/o/", &["o/ 755 0", "o/x.c 640 0 < e/x.c"]);
    copy.check(&["s/*"], "/o/", &["o/ 755 0", "o/f 640 0 < s/two/f"]);
    copy.check(&["[[]z]"], "/", &["[z] 640 0 < [z]"]);
    copy.check(&["none*"], "/o/", &[]);
    let missing = |path: &str| Err(PlaceError::Missing { path: path.into() });
    assert_eq!(copy.run(&["none"], "/o/"), missing("none"));
    assert_eq!(copy.run(&["a.c/x"], "/o/"), missing("a.c/x"));
    assert_eq!(copy.run(&["broken"], "/o/"), missing("broken"));
    assert_eq!(copy.run(&["[a"], "/o/"), Err(PlaceError::BadPattern { pattern: "[a".into() }));
}

#[test]
fn owner_mode_and_excludes() {
    let source = ["d:750:9/", "d/b:644:9", "d/l -> b", "d/no", "d/s:700:9/", "d/s/no", "d/s/yes:755:9"];
    let mut copy = Copy { source: &source, excludes: &["**/no"], ..Copy::default() };
    copy.attributes.owner = None;
    copy.check(
        &["d"],
        "/x",
        &["x/ 755 0", "x/b 644 9 < d/b", "x/l -> b 7", "x/s/ 700 9", "x/s/yes 755 9 < d/s/yes"],
    );
    copy.attributes.owner = Some((3, 3));
    copy.attributes.chmod = Some(Chmod::Octal(0o604));
    copy.check(
        &["d"],
        "/n/x",
        &[
            "n/ 604 3",
            "n/x/ 604 3",
            "n/x/b 604 3 < d/b",
            "n/x/l -> b 3",
            "n/x/s/ 604 3",
            "n/x/s/yes 604 3 < d/s/yes",
        ],
    );
    copy.attributes.chmod = Some(Chmod::Symbolic("go=u,go-w".into()));
    copy.check(&["d/b"], "/", &["b 644 3 < d/b"]);
    copy.check(&["d/s"], "/x", &["x/ 755 3", "x/yes 755 3 < d/s/yes"]);
}

#[test]
fn excludes_are_relative_to_what_is_copied() {
    let copy =
        Copy { source: &["d/s/a.md", "d/a.md", "d/b", "a.md"], excludes: &["a.md"], ..Copy::default() };
    copy.check(&["d"], "/n", &["n/ 755 0", "n/b 640 0 < d/b", "n/s/ 711 0", "n/s/a.md 640 0 < d/s/a.md"]);
    copy.check(&["*.md"], "/n/", &[]);
    copy.check(&["d/s"], "/n", &["n/ 755 0"]);
}

#[test]
fn excludes_take_back() {
    let copy = Copy {
        source: &["d:700/", "d/deep:710/", "d/deep/keep.md", "d/deep/no.md", "d/other/x", "d/z.txt"],
        excludes: &["**/*.md", "other", "!deep/keep.md"],
        ..Copy::default()
    };
    copy.check(
        &["d"],
        "/n",
        &["n/ 755 0", "n/deep/ 710 0", "n/deep/keep.md 640 0 < d/deep/keep.md", "n/z.txt 640 0 < d/z.txt"],
    );
    // The directory of what is taken back comes along as it is.
    let copy = Copy { excludes: &["*", "!deep/keep.md"], ..copy };
    copy.check(&["d"], "/n", &["n/ 755 0", "n/deep/ 710 0", "n/deep/keep.md 640 0 < d/deep/keep.md"]);
    let copy = Copy { excludes: &["/z.txt", "deep/", "other/**"], ..copy };
    copy.check(&["d"], "/n", &["n/ 755 0", "n/other/ 711 0"]);
    assert_eq!(
        Copy { excludes: &["[a"], ..copy }.run(&["d"], "/n"),
        Err(PlaceError::BadPattern { pattern: "[a".into() })
    );
}

#[test]
fn parents_keep_the_directories_of_the_source() {
    let source = [
        "x/a:700:4/",
        "x/a/b:750:4/",
        "x/a/b/c.go",
        "x/a/b/d.txt",
        "x/a/e/c.go:600",
        "x/link -> a",
        "y/c.go",
        "top",
    ];
    let copy = Copy { source: &source, parents: true, ..Copy::default() };
    let go = |head: &str| {
        [
            format!("{head}x/ 711 0"),
            format!("{head}x/a/ 700 0"),
            format!("{head}x/a/b/ 750 0"),
            format!("{head}x/a/b/c.go 640 0 < x/a/b/c.go"),
        ]
    };
    let check = |words: &[&str], destination: &str, expect: &[String]| {
        assert_eq!(copy.run(words, destination).unwrap(), expect, "{words:?} {destination}");
    };
    check(&["x/a/b/c.go"], "/", &go(""));
    check(&["./x/a/b/c.go"], "/", &go(""));
    check(&["/x/../x/a/b/c.go"], "/", &go(""));
    check(&["x/a/b/c.go"], "/n", &[&["n/ 755 0".to_owned()], &go("n/")[..]].concat());
    copy.check(&["top"], "/n/", &["n/ 755 0", "n/top 640 0 < top"]);
    // The pivot: what is in front of it stays behind.
    let tail = ["n/ 755 0", "n/b/ 750 0", "n/b/c.go 640 0 < x/a/b/c.go"];
    copy.check(&["x/a/./b/c.go"], "/n/", &tail);
    copy.check(&["x/a/./b/./c.go"], "/n/", &tail);
    copy.check(&["x/link/./b/*.go"], "/n/", &tail);
    copy.check(&["x/*/./b/*.go"], "/n/", &tail);
    // A directory with all that is in it.
    copy.check(&["x/a/./b"], "/n/", &[&tail[..], &["n/b/d.txt 640 0 < x/a/b/d.txt"]].concat());
    copy.check(&["x/a/./b/"], "/n/", &[&tail[..], &["n/b/d.txt 640 0 < x/a/b/d.txt"]].concat());
    let all = ["n/ 755 0", "n/x/ 711 0", "n/x/a/ 700 0", "n/x/a/b/ 750 0", "n/x/a/b/c.go 640 0 < x/a/b/c.go"];
    let all = [&all[..], &["n/x/a/e/ 711 0", "n/x/a/e/c.go 600 0 < x/a/e/c.go"]].concat();
    copy.check(&["x/**/*.go"], "/n/", &all);
    copy.check(&["**/c.go"], "/n/", &[&all[..], &["n/y/ 711 0", "n/y/c.go 640 0 < y/c.go"]].concat());
    copy.check(
        &["x/a/./b/../e/c.go", "y/c.go"],
        "/",
        &["e/ 711 0", "e/c.go 600 0 < x/a/e/c.go", "y/ 711 0", "y/c.go 640 0 < y/c.go"],
    );
    // Patterns may match nothing, names must be there.
    copy.check(&["x/*.none"], "/n/", &["n/ 755 0"]);
    copy.check(&["none*/./c"], "/n/", &[]);
    let missing = |path: &str| Err(PlaceError::Missing { path: path.into() });
    assert_eq!(copy.run(&["x/none"], "/"), missing("x/none"));
    assert_eq!(copy.run(&["none/./c"], "/"), missing("none/./c"));
    // Excludes are relative to the pivot.
    let without = Copy { excludes: &["x/a/b", "c.go"], ..copy };
    without.check(
        &["x/**/*.go"],
        "/",
        &["x/ 711 0", "x/a/ 700 0", "x/a/e/ 711 0", "x/a/e/c.go 600 0 < x/a/e/c.go"],
    );
    without.check(&["x/a/b/./c.go"], "/n/", &["n/ 755 0"]);
}

#[test]
fn hard_links() {
    let copy = Copy { source: &["d/a", "d/b = d/a", "d/c = d/a", "x/a", "x/z"], ..Copy::default() };
    copy.check(&["d"], "/n", &["n/ 755 0", "n/a 640 0 < d/a", "n/b = n/a", "n/c = n/a"]);
    // Without the first name the next one is the file.
    let without = Copy { excludes: &["a"], ..copy };
    without.check(&["d"], "/n", &["n/ 755 0", "n/b 640 0 < d/b", "n/c = n/b"]);
    let copy = Copy { source: without.source, ..Copy::default() };
    copy.check(&["d/c"], "/n", &["n 640 0 < d/c"]);
    // A later source replaces one name and not the file behind the others.
    copy.check(
        &["d", "x"],
        "/n/",
        &["n/ 755 0", "n/a 640 0 < x/a", "n/b 640 0 < d/a", "n/c = n/b", "n/z 640 0 < x/z"],
    );
    copy.check(
        &["x", "d"],
        "/n/",
        &["n/ 755 0", "n/a 640 0 < d/a", "n/b = n/a", "n/c = n/a", "n/z 640 0 < x/z"],
    );
}

#[test]
fn a_hard_link_whose_first_name_is_gone() {
    let source = MergedIndex::new([layer(&["a", "b = a"]), layer(&["!a"])]);
    let lower = MergedIndex::default();
    let lower = Watched::new(&lower);
    let mut placement = Placement::new(&lower, Attributes::default());
    placement.copy(&source, b"b", b"n", false, &Selection::default()).unwrap();
    assert_eq!(lines(placement), ["n 640 7 < b"]);
}

#[test]
fn archives() {
    let check = |lower: &[&str], archive: &[&str], expect: Result<&[&str], PlaceError>| {
        let lower = tree(lower);
        let lower = Watched::new(&lower);
        let mut placement = Placement::new(&lower, Attributes::default());
        let mut result = Ok(());
        // One by one, because an archive has an order and may say things twice.
        for line in archive {
            let entry = layer(&[line]).entries().last().unwrap().clone();
            let origin = match entry.kind {
                Kind::File { .. } => Origin::Spooled((*line).into()),
                _ => Origin::None,
            };
            result = result.and_then(|()| placement.put_unpacked(entry, origin));
        }
        let expect = expect.map(|lines| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>());
        assert_eq!(result.map(|()| lines(placement)), expect, "{archive:?}");
    };
    check(&[], &["d:700/", "d/f"], Ok(&["d/ 700 7", "d/f 640 7 < d/f"]));
    check(
        &["lib -> usr/lib", "usr/lib/"],
        &["lib/", "lib/f"],
        Ok(&["usr/ implied", "usr/lib/ 700 7", "usr/lib/f 640 7 < lib/f"]),
    );
    check(&["lib -> usr/lib", "usr/lib/"], &["lib/"], Ok(&["usr/ implied", "usr/lib/ 700 7"]));
    // What stands there is replaced, also by another kind.
    check(&["d/"], &["d"], Ok(&["d 640 7 < d"]));
    check(&["d"], &["d/", "d/f"], Ok(&["d/ 700 7", "d/f 640 7 < d/f"]));
    check(&[], &["d/", "d/s/f", "d.x", "d -> /etc"], Ok(&["d -> /etc 7", "d.x 640 7 < d.x"]));
    // Hard links: through links below, before their file in order, chained, and of nothing.
    let through = ["lib/a", "lib/b = lib/a"];
    check(
        &["lib -> usr/lib", "usr/lib/"],
        &through,
        Ok(&["usr/ implied", "usr/lib/ implied", "usr/lib/a 640 7 < lib/a", "usr/lib/b = usr/lib/a"]),
    );
    check(&[], &["z", "a = z", "m = z"], Ok(&["a 640 7 < z", "m = a", "z = a"]));
    check(&[], &["b", "c = b", "a = c"], Ok(&["a 640 7 < b", "b = a", "c = a"]));
    check(&[], &["a", "a = a"], Ok(&["a 640 7 < a"]));
    check(&[], &["a", "b = a", "a:755"], Ok(&["a 755 7 < a:755", "b 640 7 < a"]));
    check(&[], &["a", "b = a", "c = a", "b/", "a/"], Ok(&["a/ 700 7", "b/ 700 7", "c 640 7 < a"]));
    check(&[], &["b = a"], Err(PlaceError::Missing { path: "a".into() }));
    check(&[], &["s -> /etc", "s/passwd = s"], Err(PlaceError::Missing { path: "s".into() }));
    check(&[], &["f", "s -> /etc", "s/x = f"], Err(PlaceError::DirectoryOverFile { path: "s".into() }));
}

/// What was asked of the tree, with the kind of what stands there.
fn noted(watched: Watched<'_>) -> Vec<String> {
    let uses = watched.finish(&NoContents).unwrap().uses;
    let line = |used: &Use| format!("{} {}", String::from_utf8_lossy(&used.path), used.value.kind_in_words());
    uses.iter().map(line).collect()
}

#[test]
fn only_what_decides_is_noted() {
    let check = |source: &[&str], lower: &[&str], destination: &str, expect: &[&str]| {
        let (words, source, below) =
            (format!("{:?} {lower:?}", &source[..source.len().min(3)]), tree(source), tree(lower));
        let watched = Watched::new(&below);
        let mut placement = Placement::new(&watched, Attributes::default());
        let target = placement.destination(destination).unwrap();
        let _ = placement.copy(&source, b"", &target, destination.ends_with('/'), &Selection::default());
        assert_eq!(noted(watched), expect, "{words} {destination}");
    };
    let unpacked = |archive: &[&str], lower: &[&str], expect: &[&str]| {
        let below = tree(lower);
        let watched = Watched::new(&below);
        let mut placement = Placement::new(&watched, Attributes::default());
        for entry in layer(archive).entries() {
            placement.put_unpacked(entry.clone(), Origin::None).unwrap();
        }
        assert_eq!(noted(watched), expect, "{archive:?} {lower:?}");
    };
    unpacked(&["a/b/c", "a/b/d", "a/e/f"], &["other"], &["a nothing"]);
    unpacked(&["a/b/c", "a/d"], &["a/"], &["a directory", "a/b nothing"]);
    unpacked(&["l/b/c"], &["l -> a", "a/"], &["a directory", "a/b nothing", "l symbolic link"]);
    let source: Vec<String> = (0..300).map(|at| format!("d{}/e/f{at}", at % 7)).collect();
    let source: Vec<&str> = source.iter().map(String::as_str).collect();
    // Nothing stands inside of what is absent.
    check(&source, &["other"], "/app/", &["app nothing"]);
    check(&source, &["other"], "/app/in/it", &["app nothing"]);
    check(&["d/e/f", "g"], &["app/"], "/app", &["app directory", "app/d nothing", "app/g nothing"]);
    check(
        &["d/e/f", "d/g"],
        &["app/d/x", "app/z"],
        "/app",
        &["app directory", "app/d directory", "app/d/e nothing", "app/d/g nothing"],
    );
    // Links on the way, and what is replaced or stands in the way.
    check(&["f"], &["l -> a", "a/"], "/l", &["a directory", "a/f nothing", "l symbolic link"]);
    check(&["f"], &["a/f"], "/a", &["a directory", "a/f file"]);
    check(&["f"], &["a/f/"], "/a", &["a directory", "a/f directory"]);
    check(&["f"], &["a"], "/a/", &["a file"]);
}
