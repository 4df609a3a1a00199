//! What comes out of each pair of places.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use mica_testkit::images::{TestImage, TestLayer, digest, tar_of};
use mica_testkit::tar;
use serde_json::{Value, json};

use crate::support::*;

#[test]
fn an_index_goes_through_every_kind_of_place_and_stays_the_same() {
    let from = Layout::new();
    let index = index();
    index.put(&from, "", "1.0");
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("a.tar");
    let again = work.path().join("b.tar");
    let second = work.path().join("new/layout");

    assert_eq!(must_copy(&from.place("1.0"), &place("oci", &second, "2.0"), None), index.digest());
    assert_eq!(
        must_copy(&place("oci", &second, "2.0"), &place("oci-archive", &archive, "3.0"), None),
        index.digest()
    );
    assert_eq!(
        must_copy(&archive.display().to_string(), &place("oci-archive", &again, "3.0"), None),
        index.digest()
    );
    assert_eq!(
        fs::read(&archive).unwrap(),
        fs::read(&again).unwrap(),
        "the same image gives the same archive"
    );

    let last = Layout::new();
    assert_eq!(must_copy(&place("oci-archive", &again, "3.0"), &last.place("4.0"), None), index.digest());
    for digest in digests(&index) {
        assert_eq!(fs::read(last.blob_path(&digest)).unwrap(), fs::read(from.blob_path(&digest)).unwrap());
    }
    let mut expect: Vec<String> =
        digests(&index).iter().map(|digest| format!("blobs/{}", digest.replace(':', "/"))).collect();
    expect.extend(["index.json".to_owned(), "oci-layout".to_owned()]);
    assert_eq!(files_below(last.dir.path()), expect, "nothing else lies there");
    assert_eq!(files_below(&second), expect);
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 3, "nothing is left beside the archives");
}

#[test]
fn tags_of_a_layout_stay_but_the_one_that_is_copied_to() {
    let from = Layout::new();
    let (one, two) = (image("linux/amd64"), image("linux/arm64"));
    one.put(&from, "", "one");
    two.put(&from, "", "two");
    let to = Layout::new();
    must_copy(&from.place("one"), &to.place("kept"), None);
    must_copy(&from.place("one"), &to.place("moved"), None);
    must_copy(&from.place("two"), &to.place("moved"), None);
    must_copy(&from.place("two"), &to.place(""), None);
    must_copy(&from.place("two"), &to.place(""), None);
    let entries: Vec<(String, String)> = to
        .index()
        .iter()
        .map(|entry| {
            let name = entry["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap_or_default();
            (name.to_owned(), entry["digest"].as_str().unwrap().to_owned())
        })
        .collect();
    let expect = [("kept", one.digest()), ("moved", two.digest()), ("", two.digest())];
    assert_eq!(entries, expect.map(|(name, digest)| (name.to_owned(), digest)));
    // What an older tool wrote into the index stays as it was.
    let mut index: Vec<Value> = to.index();
    index[0]["later"] = json!({ "deep": [1] });
    to.set_index(&index);
    must_copy(&from.place("one"), &to.place("more"), None);
    assert_eq!(to.index()[0]["later"], json!({ "deep": [1] }));
}

#[test]
fn one_platform_is_its_manifest() {
    let from = Layout::new();
    let index = index();
    index.put(&from, "", "1.0");
    let to = Layout::new();
    let digest = must_copy(&from.place("1.0"), &to.place("arm"), Some("linux/arm/v7"));
    assert_eq!(digest, index.images[1].digest());
    assert!(to.has(&digest) && !to.has(&index.digest()) && !to.has(&index.images[0].id()));
    assert_eq!(to.index()[0]["platform"]["architecture"], "arm");
    // A manifest that stands alone has its platform in its config.
    let last = Layout::new();
    assert_eq!(must_copy(&to.place("arm"), &last.place("x"), Some("linux/arm")), digest);
    let single = Layout::new();
    image("linux/amd64").put(&single, "", "x");
    let nowhere = Layout::new();
    check_fails(
        &single.place("x"),
        &nowhere.place("x"),
        Some("linux/s390x"),
        "is for linux/s390x; it has linux/amd64",
    );
    check_fails(
        &from.place("1.0"),
        &nowhere.place("x"),
        Some("linux/s390x"),
        "it has linux/amd64, linux/arm/v7",
    );
    assert!(nowhere.index().is_empty());
}

#[test]
fn the_image_that_is_meant() {
    let from = Layout::new();
    let to = Layout::new();
    check_fails(&from.place(""), &to.place("x"), None, "no image of that name; it has none");
    let one = image("linux/amd64");
    one.put(&from, "", "one");
    assert_eq!(must_copy(&from.place(""), &to.place("x"), None), one.digest());
    image("linux/arm64").put(&from, "", "two");
    check_fails(
        &from.place(""),
        &to.place("x"),
        None,
        "several images, say which one after a colon: `one`, `two`",
    );
    check_fails(&from.place("three"), &to.place("x"), None, "no image of that name; it has `one`, `two`");
    assert_eq!(must_copy(&from.place(&one.digest()), &to.place("x"), None), one.digest());
    // Several manifests of one name are one image for several platforms, which has no digest of its own.
    image("linux/s390x").put(&from, "", "two");
    let mut entries = from.index();
    entries[1]["platform"] = json!({ "os": "linux", "architecture": "arm64" });
    entries[2]["platform"] = json!({ "os": "linux", "architecture": "s390x" });
    from.set_index(&entries);
    check_fails(
        &from.place("two"),
        &to.place("x"),
        None,
        "several manifests have that name (linux/arm64, linux/s390x)",
    );
    assert_eq!(
        must_copy(&from.place("two"), &to.place("x"), Some("linux/s390x")),
        entries[2]["digest"].as_str().unwrap()
    );
    // Full names, as containerd writes them.
    entries[0]["annotations"] = json!({ "io.containerd.image.name": "docker.io/library/app:1" });
    from.set_index(&entries);
    assert_eq!(must_copy(&from.place("app:1"), &to.place("x"), None), one.digest());
}

#[test]
fn a_docker_archive_has_one_image_with_its_manifest() {
    let from = Layout::new();
    let index = index();
    index.put(&from, "", "1.0");
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("a.tar");
    let arm = &index.images[1];
    let to = place("docker-archive", &archive, "a.b/app");
    assert_eq!(must_copy(&from.place("1.0"), &to, Some("linux/arm/v7")), arm.digest());

    let mut members: Vec<(String, Vec<u8>)> = Vec::new();
    let bytes = fs::read(&archive).unwrap();
    tar::read(bytes.as_slice(), |entry, content| {
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes)?;
        members.push((entry.path, bytes));
        Ok(())
    })
    .unwrap();
    let content = |path: &str| members.iter().find(|(own, _)| own == path).map(|(_, bytes)| bytes.clone());
    let manifest: Value = serde_json::from_slice(&content("manifest.json").unwrap()).unwrap();
    let blob = |digest: &str| format!("blobs/{}", digest.replace(':', "/"));
    assert_eq!(manifest[0]["RepoTags"], json!(["a.b/app:latest"]));
    assert_eq!(manifest[0]["Config"], blob(&arm.id()));
    assert_eq!(manifest[0]["Layers"][2], blob(&arm.layers[2].digest()));
    assert_eq!(content(&blob(&arm.digest())).unwrap(), arm.manifest);

    // Out again by any of its names: the same manifest.
    for source in [
        place("docker-archive", &archive, ""),
        place("docker-archive", &archive, "a.b/app:latest"),
        place("oci-archive", &archive, "latest"),
    ] {
        let back = Layout::new();
        assert_eq!(must_copy(&source, &back.place("x"), None), arm.digest(), "{source}");
    }
    check_fails(
        &place("docker-archive", &archive, "other"),
        &from.place("x"),
        None,
        "it has `a.b/app:latest`",
    );
    // Out of an index without a platform: this machine's.
    must_copy(&from.place("1.0"), &to, Some("linux/amd64"));
    let artifact = from.place(&index.images[3].digest());
    index.images[3].put(&from, "", "artifact");
    check_fails(&artifact, &to, None, "is not an image");
}

/// What `docker save` wrote before version 25.
fn old_archive(layers: &[TestLayer], config: &[u8]) -> Vec<u8> {
    let mut writer = tar::Writer::default();
    let paths: Vec<String> = (0..layers.len()).map(|number| format!("layer{number}/layer.tar")).collect();
    for (path, layer) in paths.iter().zip(layers) {
        writer.add(tar::Entry::file(path), &layer.blob);
    }
    writer.add(tar::Entry::file("config.json"), config);
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["old:1", "old:2"], "Layers": paths }]);
    writer.add(tar::Entry::file("manifest.json"), manifest.to_string().as_bytes());
    writer.finish()
}

#[test]
fn an_old_docker_archive_gets_a_manifest() {
    let layers = vec![
        TestLayer::plain(&tar_of(&[("a", b"a")])),
        TestLayer::gzip(&tar_of(&[("b", b"b")])),
        // One layer twice, as tools that make empty layers write it.
        TestLayer::plain(&tar_of(&[("a", b"a")])),
    ];
    let image = TestImage::oci("linux/amd64", layers.clone());
    let work = tempfile::tempdir().unwrap();
    let archive = work.path().join("old.tar");
    fs::write(&archive, old_archive(&layers, &image.config)).unwrap();
    let to = Layout::new();
    let digest = must_copy(&archive.display().to_string(), &to.place("x"), None);
    let manifest: Value = serde_json::from_slice(&fs::read(to.blob_path(&digest)).unwrap()).unwrap();
    assert_eq!(manifest["config"]["digest"], image.id());
    for (described, layer) in manifest["layers"].as_array().unwrap().iter().zip(&layers) {
        assert_eq!(described["digest"], layer.digest());
        assert_eq!(described["mediaType"], layer.media_type);
        assert_eq!(fs::read(to.blob_path(&layer.digest())).unwrap(), layer.blob);
    }
    let from = place("docker-archive", &archive, "old:2");
    assert_eq!(must_copy(&from, &to.place("y"), None), digest, "the same manifest each time");

    // Compressed as a whole.
    let packed = work.path().join("old.tar.zst");
    fs::write(&packed, zstd_of(&fs::read(&archive).unwrap())).unwrap();
    assert_eq!(must_copy(&place("docker-archive", &packed, ""), &to.place("z"), None), digest);

    // A layer that is another one than the config says.
    let mut wrong = layers;
    wrong[0] = TestLayer::plain(&tar_of(&[("a", b"A")]));
    wrong[2] = wrong[0].clone();
    fs::write(&archive, old_archive(&wrong, &image.config)).unwrap();
    let nowhere = Layout::new();
    check_fails(
        &place("docker-archive", &archive, ""),
        &nowhere.place("x"),
        None,
        "sent other bytes for sha256:",
    );
    assert!(nowhere.index().is_empty());
    fs::write(&archive, old_archive(&wrong[..2], &image.config)).unwrap();
    check_fails(
        &place("docker-archive", &archive, ""),
        &nowhere.place("x"),
        None,
        "lists 3 layers, but the archive 2",
    );
}

fn zstd_of(bytes: &[u8]) -> Vec<u8> {
    // A layer of the testkit is compressed just so.
    TestLayer::zstd(bytes).blob
}

#[test]
fn foreign_layers_stay_where_they_are_but_for_docker_archives() {
    let from = Layout::new();
    let foreign = TestLayer::foreign(&tar_of(&[("w", b"w")]), &["https://example.com/layer"]);
    let windows = TestImage::windows(vec![foreign.clone(), layer("own")]);
    windows.put(&from, "", "win");
    let to = Layout::new();
    assert_eq!(must_copy(&from.place("win"), &to.place("win"), None), windows.digest());
    assert!(!to.has(&foreign.digest()) && to.has(&windows.layers[1].digest()));
    let work = tempfile::tempdir().unwrap();
    let archive = place("docker-archive", &work.path().join("w.tar"), "");
    check_fails(&from.place("win"), &archive, None, "does not have it");
    assert_eq!(fs::read_dir(work.path()).unwrap().count(), 0, "nothing half done is left");
    from.write(&format!("blobs/{}", foreign.digest().replace(':', "/")), &foreign.blob);
    assert_eq!(must_copy(&from.place("win"), &archive, None), windows.digest());
}

#[test]
fn blobs_that_are_there_are_kept_if_they_are_right() {
    let from = Layout::new();
    let image = image("linux/amd64");
    image.put(&from, "", "x");
    let to = Layout::new();
    let (good, bad) = (image.layers[0].digest(), image.layers[1].digest());
    to.write(&format!("blobs/{}", good.replace(':', "/")), &image.layers[0].blob);
    // The right length, other bytes: what a power cut may leave.
    to.write(&format!("blobs/{}", bad.replace(':', "/")), &vec![0; image.layers[1].blob.len()]);
    // And what a killed copy leaves.
    to.write(".tmp-0123456789abcdef", b"half");
    let before = fs::metadata(to.blob_path(&good)).unwrap().modified().unwrap();
    must_copy(&from.place("x"), &to.place("x"), None);
    assert_eq!(fs::metadata(to.blob_path(&good)).unwrap().modified().unwrap(), before);
    assert_eq!(digest(&fs::read(to.blob_path(&bad)).unwrap()), bad);
    assert!(!to.dir.path().join(".tmp-0123456789abcdef").exists());
    // Others may read it, as the user's mask says.
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let usual = to.dir.path().join("usual");
    fs::write(&usual, "").unwrap();
    assert_eq!(mode(to.blob_path(&bad)), mode(usual));
}

#[test]
fn several_copies_into_one_layout_at_once() {
    let from = Layout::new();
    index().put(&from, "", "x");
    let to = tempfile::tempdir().unwrap();
    let dir = to.path().join("layout");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (from, dir) = (&from, &dir);
            scope.spawn(move || must_copy(&from.place("x"), &place("oci", dir, &format!("t{number}")), None));
        }
    });
    let layout = Layout { dir: to };
    let index: Value = serde_json::from_slice(&fs::read(dir.join("index.json")).unwrap()).unwrap();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 8, "no tag is lost");
    assert!(files_below(layout.dir.path()).iter().all(|path| !path.contains(".tmp-")));
}
