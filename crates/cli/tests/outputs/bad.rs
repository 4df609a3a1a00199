//! What cannot be meant is told before anything is built.

use std::process::{Command, Stdio};

use mica_testkit::{Need, missing};

use crate::Bench;

#[test]
fn wrong_flags_are_told() {
    let bench = Bench::new();
    bench.dockerfile("FROM base\nCOPY not-there /\n");
    std::fs::write(bench.path("file"), b"").unwrap();
    let check = |flags: &[&str], expect: &str| {
        let said = bench.fails(flags);
        let at = format!("{}/", bench.dir.path().display());
        assert_eq!(said.replace(&at, "@").trim_end(), expect, "{flags:?}");
        assert_eq!(bench.left(), ["base.tar", "context", "file"], "{flags:?}");
    };
    check(&["-o", ""], "error: invalid value `` for `--output`: it is empty");
    check(
        &["-o", "dest=x,tar=true"],
        "error: type is required for output: `dest=x,tar=true`\n\
         hint: one of `local`, `tar`, `oci`, `docker`, `image`, `registry`",
    );
    check(
        &["-o", "type=loca,dest=x"],
        "error: invalid value `type=loca,dest=x` for `--output`: there is no output type `loca`\nhint: did you mean `type=local`?",
    );
    check(
        &["-o", "type=oci,dst=x"],
        "error: invalid value `type=oci,dst=x` for `--output`: `type=oci` has no key `dst`\nhint: did you mean `dest`?",
    );
    check(
        &["-o", "type=local,dest=x,compression=gzip"],
        "error: invalid value `type=local,dest=x,compression=gzip` for `--output`: `type=local` has no key `compression`\n\
         hint: it has `dest`, `platform-split`, `mode`",
    );
    check(&["-o", "type=tar,x"], "error: invalid value `type=tar,x` for `--output`: `x` is not `key=value`");
    check(
        &["-o", "type=tar,\"dest=x"],
        "error: invalid value `type=tar,\"dest=x` for `--output`: a quote is not closed",
    );
    check(
        &["-o", "type=local"],
        "error: dest is required for local output\nhint: `--output type=local,dest=DIRECTORY`",
    );
    check(
        &["-o", "type=oci,tar=false"],
        "error: dest is required for oci output with tar=false\nhint: `--output type=oci,tar=false,dest=DIRECTORY`",
    );
    check(
        &["-o", "type=oci,dest=@x,tar=maybe"],
        "error: invalid value `type=oci,dest=@x,tar=maybe` for `--output`: `tar` is `true` or `false`, not `maybe`",
    );
    check(
        &["-o", "type=oci,dest=@x,compression=estargz"],
        "error: invalid value `type=oci,dest=@x,compression=estargz` for `--output`: compression `estargz` is not supported; there \
         are `gzip`, `zstd` and `uncompressed`",
    );
    check(
        &["-o", "type=oci,dest=@x,compression=zstd,compression-level=23"],
        "error: invalid value `type=oci,dest=@x,compression=zstd,compression-level=23` for `--output`: compression level `23` of \
         zstd is not between 1 and 22",
    );
    check(
        &["-o", "type=local,dest=@x,mode=move"],
        "error: invalid value `type=local,dest=@x,mode=move` for `--output`: `mode` is `copy` or `delete`, not `move`",
    );
    check(&["-o", "@file"], "error: `@file` is not a directory");
    check(&["-o", "type=tar,dest=@context"], "error: destination file is a directory: `@context`");
    check(&["-o", "type=tar,dest=@no/x"], "error: there is no directory `@no`");
    check(&["--iidfile", "@no/x"], "error: there is no directory `@no`");
    check(&["--iidfile", "@file/x"], "error: there is no directory `@file`");
    check(&["--metadata-file", "@no/x"], "error: there is no directory `@no`");
    check(&["--metadata-file", "@context"], "error: destination file is a directory: `@context`");
    check(&["-o", "type=tar,dest=@x", "-o", "type=oci,dest=@x"], "error: two outputs go to `@x`");
    check(&["-o", "-", "-o", "type=oci"], "error: only one output can go to stdout");
    check(&["--verify", "-o", "-"], "error: `--verify` writes to stdout, where an output goes already");
    check(&["--explain", "-o", "-"], "error: `--explain` writes to stdout, where an output goes already");
    check(
        &["-o", "type=registry"],
        "error: tag is needed when pushing to registry\nhint: name the image with `-t NAME`",
    );
    check(&["--push"], "error: tag is needed when pushing to registry\nhint: name the image with `-t NAME`");
    check(
        &["-o", "type=image,name=UP"],
        "error: invalid image name `UP`: image name must be lowercase: `UP`\nhint: did you mean `up`?",
    );
    check(
        &["--platform", "linux/amd64,linux/arm64", "--annotation", "manifest[linux/s390x]:a=b"],
        "error: the annotation `a` is for `linux/s390x`, which is not built\nhint: built is `linux/amd64`, `linux/arm64`",
    );
    check(
        &[
            "--platform",
            "linux/amd64",
            "-o",
            "type=oci,dest=@x,annotation-manifest-descriptor[linux/arm64].c=d",
        ],
        "error: the annotation `c` is for `linux/arm64`, which is not built\nhint: built is `linux/amd64`",
    );
    check(&["--annotation", "a"], "error: invalid value `a` for `--annotation`: expected `KEY=VALUE`");
}

#[test]
fn one_image_has_no_index() {
    let bench = Bench::new();
    let said = bench.fails(&["-o", "type=oci,dest=@x.tar", "--annotation", "index:a=b"]);
    assert!(said.contains("index annotations not supported for single platform export: `a`"), "{said}");
    assert!(!bench.path("x.tar").exists());
}

#[test]
fn a_failed_build_writes_nothing() {
    let bench = Bench::new();
    bench.dockerfile("FROM base\nCOPY not-there /\n");
    bench.fails(&[
        "-o",
        "type=oci,dest=@x.tar",
        "-o",
        "@out",
        "--iidfile",
        "@id",
        "--metadata-file",
        "@meta",
    ]);
    assert_eq!(bench.left(), ["base.tar", "context"]);
}

#[test]
fn attestations_are_not_made_and_that_is_told() {
    let bench = Bench::new();
    for (flags, expect) in [
        (&["--provenance=false", "--sbom=false"][..], false),
        (&["--provenance=mode=max"], true),
        (&["--attest", "type=sbom"], true),
        (&["--attest", "type=provenance,disabled=true"], false),
    ] {
        let said = bench.build(flags).stderr;
        assert_eq!(
            said.matches("attestations are not made").count(),
            usize::from(expect),
            "{flags:?}: {said}"
        );
    }
}

#[test]
fn a_terminal_gets_no_archive() {
    if let Some(reason) = missing(&[Need::Tool("script")]) {
        return println!("skipped: {reason}");
    }
    let bench = Bench::new();
    for output in ["-", "type=oci", "type=tar,dest=-", "type=docker,dest=-"] {
        let root = bench.mica.root().display();
        let line = format!(
            "{} --root {root} build -o {output} {}",
            bench.mica.binary().display(),
            bench.text("context")
        );
        let said = Command::new("script")
            .args(["-qec", &line, "/dev/null"])
            .stdin(Stdio::null())
            .output()
            .expect("script");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("refusing to write to console"), "{output}: {said}");
    }
}
