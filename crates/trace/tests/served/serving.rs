//! What is shown: every byte and every attribute, on the mount itself and through an overlay.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use mica_trace::{NoContents, Value};
use mica_tree::{Kind, MergedIndex, Time};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use rustix::io::Errno;

use crate::support::{Stack, TIME};
use crate::{Actor, Test};

pub const TESTS: &[Test] = &[
    ("everything_is_shown", everything_is_shown),
    ("rootless_everything_is_shown", everything_is_shown),
    ("large_directories_are_listed_in_order", large_directories),
    ("extended_attributes_are_shown", extended_attributes),
    ("rootless_extended_attributes_are_shown", extended_attributes),
    ("a_tree_without_root_is_shown", without_root),
];

pub const ACTORS: &[Actor] =
    &[("walk", || print!("{}", walk(Path::new(".")))), ("extended attributes", print_extended_attributes)];

const READ_BYTES: usize = 1 << 20;

/// A line for each path: all that can be seen of it.
fn walk(directory: &Path) -> String {
    let mut lines = String::new();
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort_by(|a, b| a.as_os_str().as_bytes().cmp(b.as_os_str().as_bytes()));
    for path in paths {
        let seen = fs::symlink_metadata(&path).unwrap();
        let shown = path.strip_prefix(".").unwrap_or(&path).as_os_str().as_bytes().to_vec();
        let content = match seen.mode() & 0o170_000 {
            0o100_000 => blake3::hash(&fs::read(&path).unwrap()).to_hex().to_string(),
            0o120_000 => format!("{:?}", fs::read_link(&path).unwrap().as_os_str().as_bytes()),
            _ => String::new(),
        };
        let size = if seen.is_dir() { 0 } else { seen.size() };
        lines += &line(
            &shown,
            seen.mode(),
            seen.uid(),
            seen.gid(),
            size,
            seen.mtime(),
            seen.nlink(),
            seen.rdev(),
            &content,
        );
        if seen.is_dir() {
            lines += &walk(&path);
        }
    }
    lines
}

#[expect(clippy::too_many_arguments, reason = "one for each column")]
fn line(
    path: &[u8],
    mode: u32,
    uid: u32,
    gid: u32,
    size: u64,
    time: i64,
    links: u64,
    device: u64,
    content: &str,
) -> String {
    let path = path.escape_ascii();
    format!("{path} {mode:o} {uid}:{gid} {size} {time} {links} {device:x} {content}\n")
}

/// Whether files of root are all that there can be here.
fn has_one_owner() -> bool {
    let map = fs::read_to_string("/proc/self/uid_map").unwrap();
    map.split_whitespace().nth(2) == Some("1") && map.lines().count() == 1
}

/// What [`walk`] must print, from the index and what was written to the files.
fn expected(tree: &MergedIndex, contents: &BTreeMap<&[u8], &[u8]>) -> String {
    const CONSTANT: i64 = 499_162_500;
    let mut lines = String::new();
    for position in (0..tree.len()).filter(|position| !tree.entry(*position).path.is_empty()) {
        let path = tree.entry(position).path.as_slice();
        let Some(entry) = tree.attributes_at(position) else { continue };
        let same =
            |other: &usize| tree.file_at(*other).is_some() && tree.file_at(*other) == tree.file_at(position);
        let links = (0..tree.len()).filter(same).count().max(1) as u64;
        let (kind, size, time, device, content) = match &entry.kind {
            Kind::File { size, .. } => {
                let content = contents[entry.path.as_slice()];
                (0o100_000, *size, entry.mtime.seconds, 0, blake3::hash(content).to_hex().to_string())
            }
            Kind::Directory { .. } => (0o040_000, 0, CONSTANT, 0, String::new()),
            Kind::Symlink { target } => (0o120_000, target.len() as u64, CONSTANT, 0, format!("{target:?}")),
            Kind::CharDevice { rdev } => {
                (0o020_000, 0, CONSTANT, rustix::fs::makedev(rdev.0, rdev.1), String::new())
            }
            Kind::BlockDevice { rdev } => {
                (0o060_000, 0, CONSTANT, rustix::fs::makedev(rdev.0, rdev.1), String::new())
            }
            Kind::Fifo => (0o010_000, 0, CONSTANT, 0, String::new()),
            Kind::Socket => (0o140_000, 0, CONSTANT, 0, String::new()),
            Kind::Hardlink { .. } | Kind::Whiteout => unreachable!(),
        };
        let (uid, gid) = if has_one_owner() { (0, 0) } else { (entry.uid, entry.gid) };
        lines += &line(path, kind | entry.mode, uid, gid, size, time, links, device, &content);
    }
    lines
}

/// Bytes that are not the same anywhere.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

fn everything_is_shown() {
    let odd: Vec<u8> = (1..=255).filter(|byte| *byte != b'/').collect();
    let longest = vec![b'n'; 255];
    let mut deep = b"deep".to_vec();
    let sizes = [0, 1, 4095, 4096, 4097, READ_BYTES - 1, READ_BYTES, READ_BYTES + 1, 3 * READ_BYTES + 123];
    let files: Vec<(Vec<u8>, Vec<u8>)> =
        sizes.iter().map(|size| (format!("sizes/{size}").into_bytes(), noise(*size))).collect();
    let sparse = [noise(5000), vec![0; 2 * READ_BYTES]].concat();
    let mut contents: BTreeMap<&[u8], &[u8]> = BTreeMap::new();

    let mut stack = Stack::new();
    let layer = stack.layer();
    layer.directory(b"deep").directory(b"sizes").directory(b"gone").directory(b"both").directory(b"hard");
    for _ in 0..15 {
        deep.push(b'/');
        deep.extend_from_slice(&longest[..200]);
        layer.directory(&deep);
    }
    deep.extend_from_slice(b"/end");
    layer.file(&deep, b"the end").file(&odd, b"odd").file(&longest, b"long");
    contents.extend([(deep.as_slice(), b"the end".as_slice()), (&odd, b"odd"), (&longest, b"long")]);
    for (path, content) in &files {
        layer.file(path, content);
        contents.insert(path, content);
    }
    layer
        .file(b"sizes/sparse", &sparse)
        .file(b"gone/x", b"x")
        .file(b"both/lower", b"lower")
        .file(b"both/changed", b"old");
    layer
        .file(b"hard/a", b"hard")
        .hard_link(b"hard/b", b"hard/a")
        .hard_link(b"hard/c", b"hard/a")
        .hard_link(b"hard/lost", b"nothing");
    layer.symlink(b"link", &[b'x'; 4000]).symlink(b"odd link", b"\xff\n");
    let path = stack.layer_directory(0).join("sizes/sparse");
    // On disk the tail is a hole.
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_len(5000).unwrap();
    file.set_len(sparse.len() as u64).unwrap();

    let layer = stack.layer();
    layer.directory(b"both").file(b"both/changed", b"new!").file(b"both/upper", b"upper");
    layer.add(b"gone", Kind::Directory { opaque: true, implied: false }, 0o1777);
    // The name with the attributes is hidden, the others are still one file.
    layer.directory(b"hard").add(b"hard/a", Kind::Whiteout, 0);
    layer.add(b"null", Kind::CharDevice { rdev: (1, 3) }, 0o666);
    layer.add(b"large numbers", Kind::BlockDevice { rdev: (0xabc, 0xf_edcb) }, 0o600);
    layer.add(b"pipe", Kind::Fifo, 0o622);
    layer.add(b"socket", Kind::Socket, 0o755);
    layer.file(b"set user id", b"s").file(b"old", b"old").file(b"owned", b"owned");
    layer.add(b"set user id", Kind::File { size: 1, content: None }, 0o6755);
    layer.add(b"old", Kind::File { size: 3, content: None }, 0).mtime = Time { seconds: -5, nanoseconds: 0 };
    let owned = layer.add(b"owned", Kind::File { size: 5, content: None }, 0o640);
    (owned.uid, owned.gid) = (1000, 50);
    contents.extend([
        (b"sizes/sparse".as_slice(), sparse.as_slice()),
        (b"both/lower", b"lower"),
        (b"both/changed", b"new!"),
        (b"both/upper", b"upper"),
        (b"hard/a", b"hard"),
        (b"set user id", b"s"),
        (b"old", b"old"),
        (b"owned", b"owned"),
    ]);

    let output = {
        let (observed, output) = stack.observe_with("walk", Default::default(), &Known);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let uses = observed.uses.unwrap();
        assert_eq!(mica_trace::verify(0, &uses, &stack.tree(), &Known), Ok(()));
        // Everything was looked up, listed or read.
        assert_eq!(uses.uses.len(), stack.tree().len() - 1, "all but the hard link to nothing");
        String::from_utf8(output.stdout).unwrap()
    };
    let expected = expected(&stack.tree(), &contents);
    let mut lines: Vec<String> = expected.lines().map(str::to_owned).collect();
    let mut seen: Vec<String> = output.lines().map(str::to_owned).collect();
    lines.sort();
    seen.sort();
    for (seen, expected) in seen.iter().zip(&lines) {
        assert_eq!(seen, expected);
    }
    assert_eq!(seen.len(), lines.len());
}

/// Digests for files that the index has none of; they are compared with themselves only.
struct Known;

impl mica_trace::Contents for Known {
    fn content(&self, position: usize) -> std::io::Result<[u8; 32]> {
        Ok([position as u8; 32])
    }
}

fn large_directories() {
    const COUNT: usize = 50_000;
    let mut stack = Stack::new();
    let layer = stack.layer();
    layer.directory(b"many");
    for number in 0..COUNT {
        let path = format!("many/{number:05}-{}", "n".repeat(number % 40));
        match number % 3 {
            0 => layer.directory(path.as_bytes()).file_elsewhere(format!("{path}/inside").as_bytes(), b""),
            1 => layer.symlink(path.as_bytes(), b"x"),
            _ => layer.file_elsewhere(path.as_bytes(), b""),
        };
    }
    let served = stack.serve();
    let open = || {
        rustix::fs::openat(served.mount(), "many", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap()
    };
    let names = |dir: Dir| -> Vec<(Vec<u8>, i64)> {
        dir.map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().to_bytes().to_vec(), entry.offset()))
            .collect()
    };
    let all = names(Dir::read_from(open()).unwrap());
    assert_eq!(all.len(), COUNT + 2);
    assert_eq!((all[0].0.as_slice(), all[1].0.as_slice()), (b".".as_slice(), b"..".as_slice()));
    assert!(all[2..].is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1));
    let inode = |path| rustix::fs::statat(served.mount(), path, AtFlags::empty()).unwrap().st_ino;
    let first: Vec<u64> = Dir::read_from(open()).unwrap().map(|entry| entry.unwrap().ino()).take(3).collect();
    assert_eq!(first, [inode("many"), inode("."), inode("many/00000-")]);
    // From any offset the listing goes on with the name behind it.
    for at in [0, 1, 2, 3, 777, COUNT - 1, COUNT, COUNT + 1] {
        let mut dir = Dir::new(open()).unwrap();
        dir.seek(all[at].1).unwrap();
        assert_eq!(names(dir).first(), all.get(at + 1), "behind {at}");
    }
    let uses = served.finish(&NoContents).uses.unwrap().uses;
    let Value::Directory { listing: Some(listing), .. } = &uses[1].value else {
        panic!("{:?}", uses[1].path)
    };
    assert_eq!(listing.len(), COUNT);
}

fn print_extended_attributes() {
    for path in ["file", "link", "dir"] {
        let mut names = [0; 4096];
        let listed = match rustix::fs::llistxattr(path, &mut names[..]) {
            Ok(length) => names[..length].escape_ascii().to_string(),
            Err(error) => error.to_string(),
        };
        println!("{path} {listed}");
        for name in ["security.capability", "user.mine", "user.none", "user.overlay.opaque", "user.large"] {
            let mut value = vec![0; 70_000];
            let found = rustix::fs::lgetxattr(path, name, &mut value[..]);
            println!(
                "{name} {}",
                found.map_or_else(
                    |error| error.to_string(),
                    |length| blake3::hash(&value[..length]).to_string()
                )
            );
        }
    }
}

fn extended_attributes() {
    // VFS_CAP_REVISION_2 with cap_net_raw.
    let capability = [&0x0200_0001_u32.to_le_bytes()[..], &0x2000_u32.to_le_bytes(), &[0; 12]].concat();
    let large = vec![b'v'; 60_000];
    let mut stack = Stack::new();
    let layer = stack.layer();
    let xattrs: [(&[u8], &[u8]); 4] = [
        (b"security.capability", &capability),
        (b"user.large", &large),
        (b"user.mine", b"a\0b"),
        (b"user.overlay.opaque", b"y"),
    ];
    layer.file(b"file", b"").add(b"file", Kind::File { size: 0, content: None }, 0o755).xattrs =
        xattrs.map(|(name, value)| (name.to_vec(), value.to_vec())).to_vec();
    layer.directory(b"dir").symlink(b"link", b"dir");
    let (uses, output) = stack.uses("extended attributes");
    let hash = |value: &[u8]| blake3::hash(value).to_string();
    let none = Errno::NODATA.to_string();
    let output = String::from_utf8(output.stdout).unwrap();
    let (file, others) = output.split_once("link ").unwrap();
    let (names, values) = file.split_once('\n').unwrap();
    assert_eq!(names, "file security.capability\\x00user.large\\x00user.mine\\x00");
    let values: Vec<&str> = values.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(values[..4], [hash(&capability), hash(b"a\0b"), none.clone(), none]);
    assert_eq!(values[4], hash(&large));
    // A symbolic link may have no `user.` attributes, so that asking says so.
    assert!(!others.contains("security.capability\\x00"), "{others}");
    let file = uses.uses.iter().find(|used| used.path == b"file").unwrap();
    assert!(matches!(&file.value, Value::File { attributes, .. } if attributes.xattrs.is_some()), "{file:?}");
}

fn without_root() {
    let file = mica_tree::Entry {
        path: b"file".to_vec(),
        kind: Kind::File { size: 7, content: None },
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: TIME,
        xattrs: Vec::new(),
    };
    let tree = MergedIndex::new([std::sync::Arc::new(mica_tree::Index::new(vec![file]).unwrap())]);
    let tree = std::sync::Arc::new(tree);
    let stack = Stack::new();
    let served =
        mica_trace::serve(tree.clone(), std::sync::Arc::new(stack.store()), Default::default()).unwrap();
    let root = rustix::fs::fstat(served.mount()).unwrap();
    assert_eq!((root.st_mode, root.st_size, root.st_nlink), (0o040_755, 4096, 1));
    let found = rustix::fs::statat(served.mount(), "file", AtFlags::empty()).unwrap();
    assert_eq!((found.st_size, found.st_ino), (7, 2));
    let uses = served.finish(&NoContents).uses.unwrap();
    assert_eq!(crate::support::words(&uses), ["d .", "f file"]);
    assert_eq!(mica_trace::verify(0, &uses, &tree, &NoContents), Ok(()));
}
