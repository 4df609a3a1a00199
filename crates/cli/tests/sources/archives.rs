//! Archives as build contexts.

use std::io::Write;
use std::process::{Command, Stdio};

use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Need, images, missing};

use crate::support::Bench;

const COPY_ALL: &[u8] = b"FROM scratch\nCOPY . /c/\n";

fn context() -> Vec<u8> {
    images::tar_of(&[("Dockerfile", COPY_ALL), ("a", b"1"), ("d/b", b"22")])
}

fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a compressor");
    let mut input = child.stdin.take().expect("its input");
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&bytes));
    let output = child.wait_with_output().expect("its output");
    writer.join().expect("a thread").expect("written");
    output.stdout
}

#[test]
fn compressions_are_told_by_content() {
    let bench = Bench::new();
    let expect = "d 755 c\nf 644 c/Dockerfile 24\nf 644 c/a 1\nd 755 c/d\nf 644 c/d/b 2\n";
    assert_eq!(bench.tree(&["-"], &context()), expect);
    for program in ["gzip", "bzip2", "xz", "zstd"] {
        match missing(&[Need::Tool(program)]) {
            Some(reason) => println!("skipped: {reason}"),
            None => assert_eq!(bench.tree(&["-"], &through(program, &context())), expect, "{program}"),
        }
    }
}

#[test]
fn entries_that_lead_out_are_refused() {
    let bench = Bench::new();
    let outside = bench.path("outside");
    std::fs::create_dir(&outside).unwrap();
    let outside_text = outside.to_string_lossy().into_owned();
    let check = |add: &dyn Fn(&mut Writer), expect: &str| {
        let mut writer = Writer::default();
        writer.add(Entry::file("Dockerfile"), COPY_ALL);
        add(&mut writer);
        bench.fails(&["-"], &writer.finish(), expect);
        assert_eq!(std::fs::read_dir(&outside).unwrap().count(), 0);
    };
    check(
        &|tar| {
            tar.add(Entry::file("../outside/x"), b"x");
        },
        "`..` in a name",
    );
    check(
        &|tar| {
            tar.add(Entry::symlink("out", &outside_text), b"");
            tar.add(Entry::file("out/x"), b"x");
        },
        "`out/x` lies below something that is not a directory",
    );
    check(
        &|tar| {
            tar.add(Entry::symlink("out", &outside_text), b"");
            tar.add(Entry::dir("out"), b"");
        },
        "not a directory",
    );
    check(
        &|tar| {
            tar.add(Entry::hard_link("x", "etc/passwd"), b"");
        },
        "which is not in the archive",
    );
    check(
        &|tar| {
            tar.add(Entry::hard_link("x", "../outside"), b"");
        },
        "`..` in a name",
    );
    let device = Entry { kind: b'3', device: (1, 3), ..Entry::file("null") };
    check(
        &|tar| {
            tar.add(device.clone(), b"");
        },
        "`null` is a device",
    );
    let mut cut = Writer::default().add(Entry::file("Dockerfile"), &[b'#'; 4096]).finish();
    cut.truncate(2048);
    bench.fails(&["-"], &cut, "cannot unpack the archive");
}

#[test]
fn an_archive_that_unfolds_without_end_is_refused() {
    let bench = Bench::new();
    // Ten kilobytes that become more than a gigabyte.
    let mut tar = Writer::default().add(Entry::file("Dockerfile"), COPY_ALL).finish();
    tar.truncate(1024);
    let header = Writer::default().add_lying(Entry { size: 7 << 30, ..Entry::file("zeros") }, b"").finish();
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.write_all(&tar).expect("written");
    encoder.write_all(&header[..512]).expect("written");
    let zeros = vec![0; 1 << 20];
    for _ in 0..1100 {
        encoder.write_all(&zeros).expect("written");
    }
    let bomb = encoder.finish().expect("a bomb");
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    bench.fails(&["-"], &bomb, "unfolds");
}

#[test]
fn links_that_only_point_out_are_copied_as_they_are() {
    let bench = Bench::new();
    let mut writer = Writer::default();
    writer.add(Entry::file("Dockerfile"), b"FROM scratch\nCOPY d /d/\n");
    writer.add(Entry::symlink("d/passwd", "/etc/passwd"), b"");
    writer.add(Entry { mode: 0o640, ..Entry::file("d/f") }, b"old");
    writer.add(Entry { mode: 0o600, ..Entry::file("d/f") }, b"f");
    writer.add(Entry::hard_link("d/g", "d/f"), b"");
    writer.add(Entry { mode: 0o500, ..Entry::dir("d/closed") }, b"");
    writer.add(Entry::file("d/closed/x"), b"x");
    let expect =
        "d 755 d\nd 500 d/closed\nf 644 d/closed/x 1\nf 600 d/f 1\nf 600 d/g 1\nl d/passwd -> /etc/passwd\n";
    assert_eq!(bench.tree(&["-"], &writer.finish()), expect);
    // A Dockerfile that points out is not read there.
    let mut writer = Writer::default();
    writer.add(Entry::symlink("Dockerfile", "/etc/hostname"), b"");
    bench.fails(&["-"], &writer.finish(), "there is no `Dockerfile`");
}
