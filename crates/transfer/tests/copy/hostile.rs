//! Layouts and archives that lie.

use std::fs;
use std::os::unix::fs::symlink;

use mica_testkit::images::{self, Place as _, TestImage, digest};
use serde_json::{Value, json};

use crate::support::*;

/// A layout with one image, of which `spoil` makes something else; copying it must fail with this message, and leave
/// nothing under a name.
fn check(spoil: impl Fn(&Layout, &TestImage), expect: &str) {
    let from = Layout::new();
    let image = image("linux/amd64");
    image.put(&from, "", "x");
    spoil(&from, &image);
    let to = Layout::new();
    check_fails(&from.place("x"), &to.place("x"), None, expect);
    assert!(to.index().is_empty(), "the name leads to something: {expect}");
    for path in files_below(to.dir.path()).iter().filter(|path| path.starts_with("blobs/")) {
        let bytes = fs::read(to.dir.path().join(path)).unwrap();
        assert_eq!(format!("blobs/{}", digest(&bytes).replace(':', "/")), *path, "a wrong blob has a name");
    }
    let work = tempfile::tempdir().unwrap();
    check_fails(&from.place("x"), &place("oci-archive", &work.path().join("x.tar"), ""), None, expect);
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "something is left: {expect}");
}

#[test]
fn links_lead_nowhere() {
    let secret = tempfile::tempdir().unwrap();
    let path = secret.path().to_path_buf();
    check(
        |layout, image| {
            let blob = layout.blob_path(&image.layers[0].digest());
            fs::rename(&blob, path.join("blob")).unwrap();
            symlink(path.join("blob"), &blob).unwrap();
        },
        "is behind a symbolic link",
    );
    check(
        |layout, _| {
            let blobs = layout.dir.path().join("blobs");
            fs::rename(&blobs, path.join("blobs")).unwrap();
            symlink(path.join("blobs"), &blobs).unwrap();
        },
        "is behind a symbolic link",
    );
    check(
        |layout, image| {
            let blob = layout.blob_path(&image.layers[0].digest());
            fs::remove_file(&blob).unwrap();
            fs::create_dir(&blob).unwrap();
        },
        "is not a file",
    );
    // A destination whose blobs would land elsewhere.
    let from = Layout::new();
    image("linux/amd64").put(&from, "", "x");
    let to = Layout::new();
    symlink(secret.path(), to.dir.path().join("blobs")).unwrap();
    let before = files_below(secret.path());
    check_fails(&from.place("x"), &to.place("x"), None, "blobs");
    assert_eq!(files_below(secret.path()), before);
    // A directory of somebody's files is not made a layout.
    let home = tempfile::tempdir().unwrap();
    fs::write(home.path().join("letter"), "dear").unwrap();
    check_fails(&from.place("x"), &place("oci", home.path(), "x"), None, "is not an OCI layout, nor empty");
    assert_eq!(files_below(home.path()), ["letter"]);
}

#[test]
fn wrong_bytes_are_named() {
    check(
        |layout, image| {
            let layer = &image.layers[1];
            let mut bytes = layer.blob.clone();
            bytes[20] ^= 1;
            fs::write(layout.blob_path(&layer.digest()), bytes).unwrap();
        },
        "sent other bytes for sha256:",
    );
    check(
        |layout, image| {
            let layer = &image.layers[1];
            fs::write(layout.blob_path(&layer.digest()), &layer.blob[1..]).unwrap();
        },
        "has fewer than",
    );
    check(
        |layout, image| {
            let layer = &image.layers[1];
            fs::write(layout.blob_path(&layer.digest()), [layer.blob.clone(), vec![0; 100]].concat())
                .unwrap();
        },
        "has more than",
    );
    check(|layout, image| fs::remove_file(layout.blob_path(&image.id())).unwrap(), "does not have it");
    check(|layout, image| fs::write(layout.blob_path(&image.digest()), b"{}").unwrap(), "has fewer than");
}

/// A layout whose tag `x` leads to these bytes.
fn check_root(media_type: &str, bytes: &[u8], expect: &str) {
    check(
        |layout, _| {
            layout.set_index(&[]);
            layout.place_manifest("", "x", media_type, bytes);
        },
        expect,
    );
}

#[test]
fn documents_that_are_none() {
    let (manifest, index) = (images::media_type::OCI_MANIFEST, images::media_type::OCI_INDEX);
    check_root(manifest, b"[]", "invalid manifest");
    check_root(index, b"{\"schemaVersion\":2,\"manifests\":[],\"layers\":[]}", "ambiguous");
    check_root(index, b"{\"schemaVersion\":1,\"manifests\":[]}", "unsupported schema version");
    check_root(manifest, &vec![b' '; (4 << 20) + 1], "too large");
    check(|layout, _| layout.write("index.json", b"{"), "invalid index");
    check(
        |layout, _| layout.write("oci-layout", br#"{"imageLayoutVersion":"9"}"#),
        "unsupported image layout version",
    );
    check(
        |layout, _| fs::remove_file(layout.dir.path().join("index.json")).unwrap(),
        "it has no `index.json`",
    );
}

#[test]
fn numbers_are_bounded() {
    let blob = json!({ "mediaType": "a/b", "digest": digest(b""), "size": 0 });
    let other = json!({ "mediaType": "a/b", "digest": digest(b""), "size": 1 });
    let index = |entries: Value| {
        json!({ "schemaVersion": 2, "mediaType": images::media_type::OCI_INDEX, "manifests": entries })
            .to_string()
            .into_bytes()
    };
    check_root(images::media_type::OCI_INDEX, &index(json!([blob, other])), "two sizes: 0 and 1 bytes");
    // Indexes in indexes.
    check(
        |layout, _| {
            layout.set_index(&[]);
            let mut bytes = index(json!([]));
            for _ in 0..6 {
                layout.place_blob("", &bytes);
                bytes = index(json!([images::descriptor(images::media_type::OCI_INDEX, &bytes)]));
            }
            layout.place_manifest("", "x", images::media_type::OCI_INDEX, &bytes);
        },
        "nested more than 4 deep",
    );
    // Many descriptors, in several indexes as one document is bounded.
    check(
        |layout, _| {
            layout.set_index(&[]);
            let mut children = Vec::new();
            for number in 0..6 {
                let mut entries = vec![blob.clone(); 20_000];
                entries.push(json!({ "mediaType": "a/b", "digest": digest(&[number]), "size": 1 }));
                let bytes = index(entries.into());
                layout.place_blob("", &bytes);
                children.push(images::descriptor(images::media_type::OCI_INDEX, &bytes));
            }
            layout.place_manifest("", "x", images::media_type::OCI_INDEX, &index(children.into()));
        },
        "has more than 100000 descriptors",
    );
    // One manifest ten thousand times is read once.
    let from = Layout::new();
    let image = image("linux/amd64");
    image.put(&from, "", "");
    let bytes = index(vec![image.descriptor(); 10_000].into());
    from.place_manifest("", "x", images::media_type::OCI_INDEX, &bytes);
    assert_eq!(must_copy(&from.place("x"), &Layout::new().place("x"), None), digest(&bytes));
}

#[test]
fn archives_that_are_cut_or_are_none() {
    let from = Layout::new();
    image("linux/amd64").put(&from, "", "x");
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("x.tar");
    must_copy(&from.place("x"), &place("oci-archive", &archive, "x"), None);
    let bytes = fs::read(&archive).unwrap();
    let cut = work.path().join("cut.tar");
    let to = Layout::new();
    for length in [0, 100, 512, 700, bytes.len() / 2, bytes.len() - 1024 - 512] {
        fs::write(&cut, &bytes[..length]).unwrap();
        let outcome = try_copy(&place("oci-archive", &cut, "x"), &to.place("x"), None);
        assert!(outcome.is_err(), "cut at {length}");
        assert!(to.index().is_empty());
    }
    fs::write(&cut, b"hello").unwrap();
    check_fails(&place("docker-archive", &cut, ""), &to.place("x"), None, "cut.tar");
    check_fails(
        &place("oci-archive", &work.path().join("none.tar"), ""),
        &to.place("x"),
        None,
        "No such file",
    );
    check_fails(&place("docker-archive", &archive, ""), &to.place("x"), None, "it has no `manifest.json`");
    check_fails(&from.place("x"), "oci-archive:/dev/null", None, "is not a regular file");
}
