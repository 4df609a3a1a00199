//! Build contexts on the command line.

use mica_testkit::{Need, Page, images, missing};

use crate::support::Bench;

const COPY_ALL: &[u8] = b"FROM scratch\nCOPY . /c/\n";

#[test]
fn standard_input() {
    let bench = Bench::new();
    bench.write("c/a", "1");
    // A Dockerfile alone has nothing to copy from.
    assert_eq!(bench.tree(&["-"], b"FROM scratch\nCOPY <<x /x\nhi\nx\n"), "f 644 x 3\n");
    bench.fails(&["-"], b"FROM scratch\nCOPY a /\n", "`a` is not in the build context");
    // The Dockerfile there, the context here.
    assert_eq!(bench.tree(&["-f", "-", "c"], COPY_ALL), "d 755 c\nf 644 c/a 1\n");
    bench.fails(&["-f", "-", "-"], b"", "cannot both be standard input");
    // The other way round.
    let archive = images::tar_of(&[("a", b"22"), ("build/Dockerfile", COPY_ALL)]);
    let tree = bench.tree(&["-f", "build/Dockerfile", "-"], &archive);
    assert_eq!(tree, "d 755 c\nf 644 c/a 2\nd 755 c/build\nf 644 c/build/Dockerfile 24\n");
    assert_eq!(bench.tree(&["-f", "./build/Dockerfile", "-"], &archive), tree);
    bench.fails(&["-"], &archive, "there is no `Dockerfile`");
}

#[test]
fn ignore_files() {
    let bench = Bench::new();
    bench.write("c/a", "1");
    bench.write("c/b", "1");
    bench.write("c/build/Dockerfile", COPY_ALL);
    bench.write("c/.dockerignore", "a\nbuild\n.dockerignore\n");
    assert_eq!(bench.tree(&["-f", "c/build/Dockerfile", "c"], b""), "d 755 c\nf 644 c/b 1\n");
    // The one beside the Dockerfile goes first, whichever that is.
    bench.write("c/build/Dockerfile.dockerignore", "b\nbuild\n.dockerignore\n");
    assert_eq!(bench.tree(&["-f", "c/build/Dockerfile", "c"], b""), "d 755 c\nf 644 c/a 1\n");
    bench.write("c/dockerfile", COPY_ALL);
    bench.write("c/dockerfile.dockerignore", "*\n!a\n");
    assert_eq!(bench.tree(&["c"], b""), "d 755 c\nf 644 c/a 1\n");
    // One that is fetched brings its own.
    let files: &[(&str, &[u8])] =
        &[("Dockerfile", COPY_ALL), (".dockerignore", b"*\n!a\n"), ("a", b"1"), ("b", b"1")];
    assert_eq!(bench.tree(&["-"], &images::tar_of(files)), "d 755 c\nf 644 c/a 1\n");
}

#[test]
fn the_web() {
    let bench = Bench::new();
    bench.web.put("/c.tar", Page::of(images::tar_of(&[("Dockerfile", COPY_ALL), ("a", b"1")])));
    bench.web.put("/Dockerfile", Page::of("FROM scratch\nCOPY <<x /x\nhi\nx\n"));
    let url = |path: &str| bench.web.url(path);
    assert_eq!(bench.tree(&[&url("/c.tar")], b""), "d 755 c\nf 644 c/Dockerfile 24\nf 644 c/a 1\n");
    assert_eq!(bench.tree(&[&url("/Dockerfile")], b""), "f 644 x 3\n");
    assert_eq!(bench.tree(&["-f", "-", &url("/c.tar")], b"FROM scratch\nCOPY a /\n"), "f 644 a 1\n");
    bench.fails(&[&url("/absent")], b"", "answered with status 404");
    bench.web.put("/owner/repo", Page::of("\n<!DOCTYPE html>\n<html></html>"));
    let told = bench.fails(&[&url("/owner/repo")], b"", "/owner/repo` is a web page, neither");
    assert!(told.contains("ends in `.git`"), "{told}");
    bench.fails(&["ftp://h/x"], b"", "cannot be fetched by `ftp`");
    bench.fails(&["nowhere"], b"", "the build context does not exist: `nowhere`");
    bench.write("file", "x");
    bench.fails(&["file"], b"", "the build context is not a directory: `file`");
}

#[test]
fn repositories() {
    if let Some(reason) = missing(&[Need::Tool("git")]) {
        println!("skipped: {reason}");
        return;
    }
    let bench = Bench::new();
    let repository = bench.repository("r");
    repository.write("Dockerfile", "FROM scratch\nCOPY a /a\n").write("a", "1");
    repository.write("d/Dockerfile", "FROM scratch\nCOPY b /b\n").write("d/b", "22");
    repository.publish();
    let url = repository.url();
    assert_eq!(bench.tree(&[&url], b""), "f 644 a 1\n");
    assert_eq!(bench.tree(&[&format!("{url}#main:d")], b""), "f 644 b 2\n");
    assert_eq!(bench.tree(&[&format!("{url}?subdir=d")], b""), "f 644 b 2\n");
    bench.fails(&["-f", "d/Dockerfile", &url], b"", "`b` is not in the build context");
    bench.fails(&[&format!("{url}?subdir=..")], b"", "leads out of the repository");
    bench.fails(&[&format!("{url}?nonsense=1")], b"", "unexpected query \"nonsense\"");
    let keep = ["--build-arg", "BUILDKIT_CONTEXT_KEEP_GIT_DIR=1", "-f", "-", &url];
    let tree = |arguments: &[&str]| bench.tree(arguments, b"FROM scratch\nCOPY . /\n");
    assert!(tree(&keep).contains("f 644 .git/HEAD"));
    assert!(!tree(&keep[2..]).contains(".git/"));
    // The same commit once more: nothing is done again, though the directory is another one.
    let again = bench.build(&["--progress=plain", &url], b"");
    assert!(again.stderr.contains("CACHED"), "{}", again.stderr);
}
