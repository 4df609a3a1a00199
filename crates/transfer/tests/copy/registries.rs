//! Registries as source and destination: Debian's, the fake one that misbehaves, and skopeo on the other side.

use std::fs;
use std::sync::Mutex;

use mica_testkit::images::{Place as _, TestImage, TestIndex, TestLayer, digest, random_tar, tar_of};
use mica_testkit::{DockerRegistry, FakeRegistry, Fault, NEEDS_DOCKER_REGISTRY, Need, Peers, When, missing};
use mica_transfer::{BlobState, CopyEvent, CopyOptions, Place, copy};

use crate::support::*;

/// What a registry has under a tag or digest: the digest of its bytes.
fn stored(registry: &FakeRegistry, repository: &str, reference: &str) -> Option<String> {
    registry.manifest(repository, reference).map(|(_, bytes)| digest(&bytes))
}

fn check_all_there(registry: &FakeRegistry, repository: &str, index: &TestIndex) {
    for image in &index.images {
        assert_eq!(stored(registry, repository, &image.digest()), Some(image.digest()));
        assert_eq!(registry.blob(repository, &image.id()).as_deref(), Some(image.config.as_slice()));
        for layer in &image.layers {
            assert_eq!(registry.blob(repository, &layer.digest()).as_deref(), Some(layer.blob.as_slice()));
        }
    }
}

#[test]
fn an_index_goes_from_registry_to_registry_and_back_to_a_layout() {
    let (one, two) = (FakeRegistry::new(), FakeRegistry::new());
    let index = index();
    index.put(&one, "team/app", "1.0");
    let from = format!("docker://{}/team/app:1.0", one.host());
    let to = format!("docker://{}/other/app:2.0", two.host());
    assert_eq!(must_copy(&from, &to, None), index.digest());
    assert_eq!(stored(&two, "other/app", "2.0"), Some(index.digest()));
    check_all_there(&two, "other/app", &index);
    assert_eq!(two.tags("other/app"), ["2.0"], "children go by digest");

    // Again: nothing is fetched and nothing sent but the documents.
    one.clear_requests();
    two.clear_requests();
    assert_eq!(must_copy(&from, &to, None), index.digest());
    assert_eq!(two.count("POST", "/blobs/uploads/"), 0);
    assert_eq!(one.count("GET", "/blobs/"), 0);

    let layout = Layout::new();
    assert_eq!(must_copy(&to, &layout.place("x"), None), index.digest());
    for digest in digests(&index) {
        assert!(layout.has(&digest), "{digest}");
    }
    let third = FakeRegistry::new();
    let by_digest = format!("{}/back@{}", third.host(), index.digest());
    assert_eq!(must_copy(&layout.place("x"), &by_digest, None), index.digest());
    check_all_there(&third, "back", &index);
    assert!(third.tags("back").is_empty());
    let wrong = format!("{}/back@{}", third.host(), digest(b""));
    check_fails(&layout.place("x"), &wrong, None, "names another digest than the image has");
    let arm = must_copy(&to, &format!("{}/arm", third.host()), Some("linux/arm/v7"));
    assert_eq!((Some(arm.clone()), arm), (stored(&third, "arm", "latest"), index.images[1].digest()));
}

#[test]
fn within_a_registry_blobs_are_mounted() {
    let registry = FakeRegistry::new();
    let image = image("linux/amd64");
    image.put(&registry, "from", "1");
    let states: Mutex<Vec<BlobState>> = Mutex::default();
    let place = |name: &str| Place::parse(&format!("docker://{}/{name}", registry.host())).unwrap();
    copy(&client(), &place("from:1"), &place("to:1"), &CopyOptions::default(), &|event| {
        if let CopyEvent::Blob { state, .. } = event {
            states.lock().unwrap().push(state);
        }
    })
    .unwrap();
    let from = format!("{}/from", registry.host());
    let states = states.into_inner().unwrap();
    assert_eq!(states, vec![BlobState::MountedFrom(from); image.layers.len() + 1]);
    assert_eq!(registry.count("GET", "/blobs/sha256"), 0);
    assert_eq!(stored(&registry, "to", "1"), Some(image.digest()));
}

#[test]
fn what_breaks_is_mended_or_told() {
    let (one, two) = (FakeRegistry::new(), FakeRegistry::new());
    let tar = random_tar("big", 3 << 20, 7);
    let image = TestImage::oci("linux/amd64", vec![TestLayer::plain(&tar), layer("small")]);
    image.put(&one, "app", "1");
    let (from, to) = (format!("{}/app:1", one.host()), format!("{}/app:1", two.host()));
    let big = image.layers[0].digest();
    one.fault(When::get(&big).once(), Fault::Cut(1 << 20));
    two.fault(When::is("PATCH", "/blobs/uploads/").once(), Fault::status(503));
    assert_eq!(must_copy(&from, &to, None), image.digest());
    assert_eq!(two.blob("app", &big).unwrap(), tar);
    assert_eq!(two.open_uploads(), 0);

    // A source that lies.
    let third = FakeRegistry::new();
    let mut wrong = tar.clone();
    wrong[1 << 20] ^= 1;
    one.put_blob_as("app", &big, &wrong);
    let to = format!("{}/app:1", third.host());
    check_fails(&from, &to, None, &big);
    assert!(third.blob("app", &big).is_none() && third.tags("app").is_empty());
    let layout = Layout::new();
    check_fails(&from, &layout.place("x"), None, &big);
    assert!(layout.index().is_empty() && !layout.has(&big));
    // A layout that lies to a registry.
    let lying = Layout::new();
    image.put(&lying, "", "x");
    fs::write(lying.blob_path(&big), &wrong).unwrap();
    check_fails(&lying.place("x"), &to, None, "sent other bytes for sha256:");
    assert!(third.blob("app", &big).is_none() && third.tags("app").is_empty());
}

#[test]
fn an_index_of_which_only_some_platforms_are_there() {
    let registry = FakeRegistry::new();
    let index = index();
    index.images[0].put(&registry, "app", "");
    registry.place_manifest("app", "1", &index.media_type, &index.bytes);
    let from = format!("{}/app:1", registry.host());
    let layout = Layout::new();
    check_fails(&from, &layout.place("x"), None, &index.images[1].digest());
    assert_eq!(must_copy(&from, &layout.place("x"), Some("linux/amd64")), index.images[0].digest());
}

#[test]
fn skopeo_reads_what_is_copied_and_the_other_way_round() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Tool("skopeo")]) {
        println!("skipped: {reason}");
        return;
    }
    let registry = DockerRegistry::new();
    let peers = Peers::new();
    let host = registry.host();
    let mut images = vec![image("linux/amd64"), image("linux/arm/v7")];
    images.push(TestImage::oci("linux/s390x", vec![layer("s390x")]));
    let index = TestIndex::oci(images);
    let docker = TestIndex::docker(vec![
        TestImage::docker("linux/amd64", vec![TestLayer::gzip(&tar_of(&[("d", b"d")]))]),
        TestImage::docker("linux/arm64", vec![TestLayer::gzip(&tar_of(&[("e", b"e")]))]),
    ]);
    let raw = |reference: &str| {
        peers.ok("skopeo", &["inspect", "--raw", "--tls-verify=false", reference]).stdout.into_bytes()
    };
    for (name, index) in [("oci", &index), ("docker", &docker)] {
        // mica to the registry; skopeo reads, and copies on into a layout; mica reads that.
        let layout = Layout::new();
        index.put(&layout, "", "1");
        let there = format!("docker://{host}/{name}/a:1");
        assert_eq!(must_copy(&layout.place("1"), &there, None), index.digest());
        assert_eq!(raw(&there), index.bytes);
        let theirs = peers.file(&format!("{name}-layout"));
        let to = format!("oci:{}:x", theirs.display());
        let skopeo =
            ["copy", "-q", "--all", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
        if name == "oci" {
            // An OCI layout of skopeo's never holds docker's types: it would convert them.
            peers.ok("skopeo", &[&skopeo[..], &[&there, &to]].concat());
            let back = format!("docker://{host}/{name}/b:1");
            assert_eq!(must_copy(&to, &back, None), index.digest());
            assert_eq!(raw(&back), index.bytes);
        }
        // skopeo's own push is the same to mica.
        let pushed = format!("docker://{host}/{name}/c:1");
        peers.ok("skopeo", &[&skopeo[..], &[&there, &pushed]].concat());
        let last = Layout::new();
        assert_eq!(must_copy(&pushed, &last.place("x"), None), index.digest());
        for digest in digests(index) {
            assert_eq!(
                fs::read(last.blob_path(&digest)).unwrap(),
                fs::read(layout.blob_path(&digest)).unwrap()
            );
        }
    }
    // One platform as an archive of docker, which skopeo takes as it is.
    let archive = peers.file("app.tar");
    let to = place("docker-archive", &archive, "app:1");
    let digest = must_copy(&format!("docker://{host}/oci/a:1"), &to, Some("linux/amd64"));
    assert_eq!(digest, index.images[0].digest());
    let inspected = peers.ok("skopeo", &["inspect", "--config", &to]).stdout;
    assert!(inspected.contains("\"A=b\""), "{inspected}");
    let copied = peers.file("copied");
    let to_dir = format!("dir:{}", copied.display());
    peers.ok("skopeo", &["copy", "-q", "--insecure-policy", &to, &to_dir]);
    let archive = place("oci-archive", &archive, "1");
    peers.ok("skopeo", &["copy", "-q", "--insecure-policy", &archive, &to_dir]);
    assert_eq!(fs::read(copied.join("manifest.json")).unwrap(), index.images[0].manifest);
}
