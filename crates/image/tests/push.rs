//! Pushes from a store to a registry: what is sent, under which digests, and what the store knows afterwards.

mod common;

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::Mutex;
use std::time::Duration;

use common::{import_files, rootless, store};
use mica_image::{
    BuiltImage, ImageError, LayerState, PushRequest, Pushed, Source, TransferEvent, load, put_built, tag,
};
use mica_layer::compress::{Limits, decompress};
use mica_oci::{
    Descriptor, DiffId, Digest, ImageConfig, ImageId, Index, Manifest, Platform, Reference, media_type,
};
use mica_registry_client::{Client, Patience, Settings};
use mica_store::{ImageCommit, Store};
use mica_testkit::{
    DockerRegistry, FakeRegistry, Fault, NEEDS_DOCKER_REGISTRY, Need, TestImage, TestLayer, When, missing,
};

fn client() -> Client {
    let patience = Patience {
        delay_first: Duration::from_millis(5),
        delay_max: Duration::from_millis(20),
        ..Patience::default()
    };
    Client::new(Settings { patience, ..Settings::default() })
}

/// A push and what it told: for each layer the words of its states, joined.
struct Told {
    result: Result<Pushed, ImageError>,
    layers: Vec<Digest>,
    states: BTreeMap<usize, Vec<LayerState>>,
    warnings: Vec<String>,
}

impl Told {
    fn last(&self) -> Vec<LayerState> {
        self.states.values().filter_map(|states| states.last().cloned()).collect()
    }
}

fn push_platform(store: &Store, name: &str, platform: Option<&str>) -> Told {
    let reference = Reference::parse(name).unwrap();
    let platform = platform.map(|platform| Platform::parse(platform).unwrap());
    let events = Mutex::new(Vec::new());
    let watch = |event| events.lock().unwrap().push(event);
    let request = PushRequest { reference: &reference, platform: platform.as_ref() };
    let result = mica_image::push(store, &client(), &request, &watch);
    let mut told = Told { result, layers: Vec::new(), states: BTreeMap::new(), warnings: Vec::new() };
    for event in events.into_inner().unwrap() {
        match event {
            TransferEvent::Layers(layers) => told.layers = layers,
            TransferEvent::Layer { position, state } => told.states.entry(position).or_default().push(state),
            TransferEvent::Warning(text) => told.warnings.push(text),
        }
    }
    told
}

fn push(store: &Store, name: &str) -> Told {
    push_platform(store, name, None)
}

#[track_caller]
fn pushed(told: &Told) -> Digest {
    told.result.as_ref().unwrap_or_else(|error| panic!("{error}")).digest.clone()
}

fn unfolded(blob: Vec<u8>) -> DiffId {
    let mut tar = Vec::new();
    let (_, mut reader) = decompress(std::io::Cursor::new(blob), Limits::default()).unwrap();
    reader.read_to_end(&mut tar).unwrap();
    DiffId(Digest::sha256(&tar))
}

/// The image that a repository has under a tag or digest: its manifest, compared with an image of the store.
#[track_caller]
fn check_image(
    registry: &FakeRegistry,
    repository: &str,
    reference: &str,
    store: &Store,
    id: &ImageId,
) -> Manifest {
    let (kind, bytes) = registry.manifest(repository, reference).expect("a manifest");
    let manifest = Manifest::parse(&bytes).unwrap();
    assert_eq!(manifest.media_type(), kind);
    assert_eq!(manifest.config.digest, id.0);
    let config = registry.blob(repository, id.0.as_str()).expect("the config");
    let diff_ids = ImageConfig::parse(&config).unwrap().rootfs.diff_ids;
    assert_eq!(diff_ids, store.image(id).unwrap().unwrap().layers);
    assert_eq!(manifest.layers.len(), diff_ids.len());
    for (layer, diff_id) in manifest.layers.iter().zip(&diff_ids) {
        let blob = registry.blob(repository, layer.digest.as_str()).expect("a layer");
        assert_eq!(blob.len() as u64, layer.size);
        assert_eq!(unfolded(blob), *diff_id);
    }
    manifest
}

/// An image that mica built, of these layers of one file each.
fn built(store: &Store, name: &str, layers: &[(&str, usize)]) -> ImageId {
    let mut config = ImageConfig::default();
    let mut built = Vec::new();
    for (file, size_bytes) in layers {
        let content: Vec<u8> =
            (0..*size_bytes).map(|place| (place as u32).wrapping_mul(2_654_435_761) as u8).collect();
        let image = import_files(store, "", &[(file, &content)]);
        let record = store.image(&image).unwrap().unwrap();
        let diff_id = record.layers[0].clone();
        let tar_size_bytes = store.layer(&diff_id, None).unwrap().unwrap().record.tar_size_bytes;
        if built.is_empty() {
            config = mica_image::config(store, &image).unwrap();
            config.rootfs.diff_ids.clear();
        }
        config.rootfs.diff_ids.push(diff_id.clone());
        built.push((diff_id, tar_size_bytes));
    }
    let name = Reference::parse(name).unwrap();
    put_built(store, &BuiltImage { config, layers: built }, &[name]).unwrap().0
}

/// Loads images as an OCI layout has them: exactly these bytes are kept.
fn loaded(store: &Store, name: &str, image: &TestImage) -> ImageId {
    let directory = tempfile::tempdir().unwrap();
    let write = |path: &str, bytes: &[u8]| {
        let path = directory.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    };
    let blob = |bytes: &[u8]| write(&format!("blobs/sha256/{}", Digest::sha256(bytes).hex()), bytes);
    write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    blob(&image.config);
    blob(&image.manifest);
    image.layers.iter().for_each(|layer| blob(&layer.blob));
    let mut descriptor = Descriptor::of(&image.media_type, &image.manifest);
    descriptor.annotations.insert("io.containerd.image.name".to_owned(), name.to_owned());
    write("index.json", &Index::oci(vec![descriptor]).to_canonical_json());
    let directory = std::fs::File::open(directory.path()).unwrap().into();
    load(store, Source::Directory(directory), rootless()).unwrap();
    ImageId(Digest::parse(&image.id()).unwrap())
}

fn methods(registry: &FakeRegistry, method: &str, part: &str) -> usize {
    registry.count(method, part)
}

#[test]
fn a_built_image_is_compressed_once_and_keeps_its_digest() {
    let (directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/team/app:v1", registry.host());
    let id = built(&store, &name, &[("a", 3_000_000), ("b", 10), ("c", 700_000)]);
    let told = push(&store, &name);
    let digest = pushed(&told);
    let manifest = check_image(&registry, "team/app", "v1", &store, &id);
    assert_eq!(manifest.media_type(), media_type::OCI_MANIFEST);
    assert!(manifest.layers.iter().all(|layer| layer.media_type == media_type::OCI_LAYER_GZIP));
    let record = store.image(&id).unwrap().unwrap();
    // As docker tells them, the topmost first.
    assert_eq!(told.layers, record.layers.iter().rev().map(|diff_id| diff_id.0.clone()).collect::<Vec<_>>());
    assert_eq!(told.last(), [LayerState::Pushed, LayerState::Pushed, LayerState::Pushed]);
    assert_eq!(told.states[&0][0], LayerState::Preparing);
    // The store knows where it is now.
    let canonical = format!("{}/team/app", registry.host());
    assert_eq!(store.target_of(&format!("{canonical}:v1")).unwrap(), Some(digest.clone()));
    assert_eq!(store.name(&format!("{canonical}@{digest}")).unwrap(), Some(id.clone()));
    // Nothing is left behind, and what was made for the push is no blob.
    let ingest = std::fs::read_dir(directory.path().join("store").join("ingest")).unwrap().count();
    assert_eq!(ingest, 0);
    assert!(!store.has_blob(&manifest.layers[0].digest).unwrap());

    // Again: nothing is sent, and the digest is the same.
    registry.clear_requests();
    let told = push(&store, &name);
    assert_eq!(pushed(&told), digest);
    assert_eq!(
        told.last(),
        [LayerState::LayerAlreadyExists, LayerState::LayerAlreadyExists, LayerState::LayerAlreadyExists]
    );
    assert_eq!(methods(&registry, "POST", ""), 0);
    assert_eq!(registry.requests().len(), 5, "four HEAD, one PUT");

    // Under another name of the same registry: mounted.
    let other = format!("{}/other:v2", registry.host());
    tag(&store, &name, &other).unwrap();
    registry.clear_requests();
    let told = push(&store, &other);
    assert_eq!(pushed(&told), digest);
    let from = LayerState::MountedFrom("team/app".to_owned());
    assert_eq!(told.last(), [from.clone(), from.clone(), from]);
    assert_eq!(methods(&registry, "PATCH", "") + methods(&registry, "PUT", "/blobs/"), 0);

    // To another registry: made again, the very same bytes.
    let elsewhere = FakeRegistry::new();
    let there = format!("{}/app:v1", elsewhere.host());
    tag(&store, &name, &there).unwrap();
    assert_eq!(pushed(&push(&store, &there)), digest);
    check_image(&elsewhere, "app", "v1", &store, &id);

    // And where a layer was lost over there.
    registry.remove_blob(manifest.layers[0].digest.as_str());
    let told = push(&store, &name);
    assert_eq!(pushed(&told), digest);
    assert_eq!(
        told.last(),
        [LayerState::LayerAlreadyExists, LayerState::LayerAlreadyExists, LayerState::Pushed]
    );
    check_image(&registry, "team/app", "v1", &store, &id);
}

#[test]
fn a_layer_that_is_there_twice_is_sent_once() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let id = built(&store, &name, &[("a", 5000), ("b", 10), ("a", 5000)]);
    let told = push(&store, &name);
    pushed(&told);
    assert_eq!(told.layers.len(), 2);
    check_image(&registry, "app", "v1", &store, &id);
    assert_eq!(methods(&registry, "POST", ""), 3, "two layers and a config");
}

#[test]
fn bytes_go_back_as_they_came() {
    let tar = |name: &str| mica_testkit::images::tar_of(&[(name, b"content")]);
    let all = [
        TestImage::oci("linux/amd64", vec![TestLayer::gzip(&tar("a")), TestLayer::zstd(&tar("b"))]),
        TestImage::docker("linux/arm64", vec![TestLayer::gzip(&tar("a")), TestLayer::gzip(&tar("c"))]),
        // Fields that nobody knows, and blanks that nobody would write.
        TestImage::oci("linux/amd64", vec![TestLayer::gzip(&tar("d"))]).with_manifest(|value| {
            value["x-unknown"] = "kept".into();
        }),
        TestImage::windows(vec![TestLayer::gzip(&tar("Files/w"))]),
    ];
    for (number, image) in all.iter().enumerate() {
        let (_directory, store) = store();
        let registry = FakeRegistry::new();
        let name = format!("{}/app:v{number}", registry.host());
        let id = loaded(&store, &name, image);
        let told = push(&store, &name);
        assert_eq!(pushed(&told).as_str(), image.digest());
        assert_eq!(told.result.unwrap().size_bytes, image.manifest.len() as u64);
        assert_eq!(
            registry.manifest("app", &format!("v{number}")).unwrap(),
            (image.media_type.clone(), image.manifest.clone())
        );
        check_image(&registry, "app", &image.digest(), &store, &id);
    }
}

#[test]
fn layers_that_came_uncompressed_are_compressed() {
    // One whose tar mica writes alike, and one that it keeps.
    let canonical = common::tar(&[("a", b"content")]);
    let foreign = mica_testkit::images::tar_of(&[("b", b"content")]);
    for (make, expect) in [
        (TestImage::oci as fn(&str, Vec<TestLayer>) -> TestImage, media_type::OCI_LAYER_GZIP),
        (TestImage::docker, media_type::DOCKER_LAYER_GZIP),
    ] {
        let image = make("linux/amd64", vec![TestLayer::plain(&canonical), TestLayer::plain(&foreign)]);
        let (_directory, store) = store();
        let registry = FakeRegistry::new();
        let name = format!("{}/app:v1", registry.host());
        let id = loaded(&store, &name, &image);
        let digest = pushed(&push(&store, &name));
        let manifest = check_image(&registry, "app", "v1", &store, &id);
        assert_eq!(manifest.media_type(), image.media_type);
        assert!(manifest.layers.iter().all(|layer| layer.media_type == expect), "{:?}", manifest.layers);
        assert_eq!(pushed(&push(&store, &name)), digest);
    }
}

#[test]
fn foreign_layers_stay_where_they_are() {
    let tar = |name: &str| mica_testkit::images::tar_of(&[(name, b"content")]);
    let layers = vec![TestLayer::foreign(&tar("w"), &["https://example.com/w"]), TestLayer::gzip(&tar("a"))];
    let image = TestImage::windows(layers);
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    loaded(&store, &name, &image);
    let told = push(&store, &name);
    assert_eq!(pushed(&told).as_str(), image.digest());
    assert_eq!(told.last(), [LayerState::Pushed, LayerState::SkippedForeign]);
    assert!(registry.blob("app", &image.layers[0].digest()).is_none());
}

/// Images of an index, stored as pulls of each platform store them.
fn indexed(store: &Store, name: &str, images: &[TestImage]) -> (Vec<ImageId>, Digest) {
    let ids: Vec<ImageId> = images.iter().map(|image| loaded(store, "x.io/x:x", image)).collect();
    let descriptors = images.iter().map(|image| {
        let value = image.descriptor();
        serde_json::from_value::<Descriptor>(value).unwrap()
    });
    let bytes = Index::oci(descriptors.collect()).to_canonical_json();
    let target = store.put_blob(&bytes).unwrap();
    let reference = Reference::parse(name).unwrap();
    let by_digest = reference.name_only().with_digest(target.clone()).canonical();
    for id in &ids {
        let record = store.image(id).unwrap().unwrap();
        let commit = ImageCommit {
            blobs: std::slice::from_ref(&target),
            names: &[&reference.canonical(), &by_digest],
            target: Some(&target),
            ..ImageCommit::default()
        };
        store.commit_image(&record, &commit).unwrap();
    }
    (ids, target)
}

fn two_platforms() -> Vec<TestImage> {
    let tar = |name: &str| mica_testkit::images::tar_of(&[(name, b"content")]);
    vec![
        TestImage::oci("linux/amd64", vec![TestLayer::gzip(&tar("same")), TestLayer::gzip(&tar("a"))]),
        TestImage::oci("linux/arm/v7", vec![TestLayer::gzip(&tar("same")), TestLayer::zstd(&tar("b"))]),
    ]
}

#[test]
fn a_whole_index_goes_as_it_is() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let images = two_platforms();
    let (ids, target) = indexed(&store, &name, &images);
    let told = push(&store, &name);
    assert_eq!(pushed(&told), target);
    assert_eq!(told.layers.len(), 3, "the layer of both is sent once");
    assert_eq!(told.warnings, Vec::<String>::new());
    for (image, id) in images.iter().zip(&ids) {
        check_image(&registry, "app", &image.digest(), &store, id);
    }
    assert_eq!(
        registry.manifest("app", "v1").unwrap().1,
        registry.manifest("app", target.as_str()).unwrap().1
    );
    assert_eq!(registry.tags("app"), ["v1"]);
    // One platform of it.
    let other = format!("{}/one:v1", registry.host());
    tag(&store, &name, &other).unwrap();
    let told = push_platform(&store, &other, Some("linux/arm/v7"));
    assert_eq!(pushed(&told).as_str(), images[1].digest());
    check_image(&registry, "one", "v1", &store, &ids[1]);
    // The name still stands for the whole.
    assert_eq!(
        store.target_of(&Reference::parse(&other).unwrap().canonical()).unwrap(),
        Some(target.clone())
    );
    let error = push_platform(&store, &name, Some("linux/s390x")).result.unwrap_err();
    assert!(error.to_string().contains("does not provide the specified platform (linux/s390x)"), "{error}");
}

#[test]
fn of_an_index_that_is_not_whole_one_image_goes() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let images = two_platforms();
    let (ids, target) = indexed(&store, &name, &images);
    let missing = Digest::parse(&images[1].layers[1].digest()).unwrap();
    std::fs::remove_file(store.blob_path(&missing)).unwrap();
    let told = push(&store, &name);
    assert_eq!(pushed(&told).as_str(), images[0].digest());
    check_image(&registry, "app", "v1", &store, &ids[0]);
    assert_eq!(told.warnings.len(), 1);
    assert!(told.warnings[0].contains(target.as_str()) && told.warnings[0].contains(&images[0].digest()));
    // The repository has the index: then it has all of it.
    for image in &images {
        image.put(&registry, "app", "");
    }
    let bytes = store.read_blob(&target, 1 << 20).unwrap();
    registry.put_manifest("app", target.as_str(), media_type::OCI_INDEX, &bytes);
    let told = push(&store, &name);
    assert_eq!(pushed(&told), target);
    assert_eq!(registry.manifest("app", "v1").unwrap().1, bytes);
}

/// Two images have the same layer in two forms: the store keeps the first one's bytes.
#[test]
fn a_form_that_is_not_kept_is_taken_from_the_registry() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let tar = mica_testkit::images::tar_of(&[("same", b"content")]);
    let images = [
        TestImage::oci("linux/amd64", vec![TestLayer::gzip(&tar)]),
        TestImage::oci("linux/amd64", vec![TestLayer::zstd(&tar)]).with_config(|config| {
            config["author"] = "another".into();
        }),
    ];
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    for (image, tag) in images.iter().zip(["v1", "v2"]) {
        image.put(&registry, "app", tag);
        let reference = Reference::parse(&name(tag)).unwrap();
        let request = mica_image::PullRequest { reference: &reference, platform: None, rootless: rootless() };
        mica_image::pull(&store, &client(), &request, &|_| {}).unwrap();
    }
    assert!(!store.has_blob(&Digest::parse(&images[1].layers[0].digest()).unwrap()).unwrap());
    // Where the registry has it, or mounts it, the manifest stays what it is.
    assert_eq!(pushed(&push(&store, &name("v2"))).as_str(), images[1].digest());
    let other = format!("{}/other:v2", registry.host());
    tag(&store, &name("v2"), &other).unwrap();
    assert_eq!(pushed(&push(&store, &other)).as_str(), images[1].digest());
    // Elsewhere the image goes in the form that is kept.
    let elsewhere = FakeRegistry::new();
    let there = format!("{}/app:v2", elsewhere.host());
    tag(&store, &name("v2"), &there).unwrap();
    assert_ne!(pushed(&push(&store, &there)).as_str(), images[1].digest());
    let id = ImageId(Digest::parse(&images[1].id()).unwrap());
    let manifest = check_image(&elsewhere, "app", "v2", &store, &id);
    assert_eq!(manifest.layers[0].digest.as_str(), images[0].layers[0].digest());
}

#[test]
fn what_cannot_be_pushed_is_said_in_dockers_words() {
    let (_directory, store) = store();
    built(&store, "docker.io/library/here:v1", &[("a", 1)]);
    let check = |name: &str, expect: &str| {
        let error = push(&store, name).result.unwrap_err();
        assert_eq!(error.to_string(), expect, "{name}");
    };
    check("nothing", "An image does not exist locally with the tag: nothing");
    check("localhost:1/a/b:v1", "An image does not exist locally with the tag: localhost:1/a/b");
    check("here", "tag does not exist: here:latest");
    let digest = Digest::sha256(b"x");
    check(&format!("here@{digest}"), &format!("here@{digest}: cannot push a digest reference"));
}

#[test]
fn a_push_that_fails_moves_no_tag() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    built(&store, &name, &[("a", 500_000), ("b", 10), ("c", 700_000)]);
    for fault in [
        Fault::error(403, "DENIED", "requested access to the resource is denied"),
        Fault::status(500),
        Fault::error(400, "DIGEST_INVALID", "provided digest did not match uploaded content"),
    ] {
        registry.clear_faults();
        registry.fault(When::is("PUT", "/blobs/").nth(2), fault.clone());
        registry.fault(When::is("PUT", "/blobs/").skip(2), fault);
        let told = push(&store, &name);
        let error = told.result.unwrap_err().to_string();
        assert!(error.contains(&registry.host()) && error.contains("app"), "{error}");
        assert_eq!(registry.tags("app"), Vec::<String>::new());
        assert_eq!(store.target_of(&Reference::parse(&name).unwrap().canonical()).unwrap(), None);
    }
    // What arrived is not sent again.
    registry.clear_faults();
    let told = push(&store, &name);
    pushed(&told);
    assert!(told.last().contains(&LayerState::LayerAlreadyExists), "{:?}", told.states);
}

#[test]
fn a_push_that_was_cut_is_taken_up_by_the_next() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let tar = mica_testkit::images::random_tar("a", 10_000_000, 7);
    let size_bytes = {
        let image = TestImage::oci("linux/amd64", vec![TestLayer::plain(&tar)]);
        loaded(&store, &name, &image);
        tar.len() as u64
    };
    registry.fault(When::is("PATCH", "").once(), Fault::CutRequest { after: 9_000_000, keeps: true });
    registry.fault(When::get("/uploads/"), Fault::Close);
    push(&store, &name).result.unwrap_err();
    assert_eq!(registry.received_bytes("/uploads/"), 9_000_000);
    registry.clear_faults();
    registry.clear_requests();
    // Another process: the layer is compressed again, to the same bytes, and only the rest is sent.
    pushed(&push(&store, &name));
    let rest = registry.received_bytes("/uploads/");
    assert!(rest < size_bytes / 5, "{rest} of {size_bytes}");
    assert!(registry.tags("app") == ["v1"]);
}

#[test]
fn what_is_remembered_wrongly_is_made_right() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let id = built(&store, &name, &[("a", 5000)]);
    let diff_id = store.image(&id).unwrap().unwrap().layers[0].clone();
    let wrong = mica_store::CompressedForm { digest: Digest::sha256(b"wrong"), size_bytes: 5 };
    store.put_compressed_form(&diff_id, mica_layer::encode::FORM, &wrong).unwrap();
    pushed(&push(&store, &name));
    check_image(&registry, "app", "v1", &store, &id);
}

#[test]
fn a_tree_that_was_altered_is_not_pushed() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let id = built(&store, &name, &[("a", 5000)]);
    let diff_id = store.image(&id).unwrap().unwrap().layers[0].clone();
    let layer = store.layer(&diff_id, None).unwrap().unwrap();
    std::fs::write(layer.tree_path().join("a"), vec![7; 5000]).unwrap();
    let error = push(&store, &name).result.unwrap_err();
    assert!(matches!(error, ImageError::LayerAltered { .. }), "{error}");
    assert_eq!(registry.tags("app"), Vec::<String>::new());
}

fn run(program: &str, arguments: &[&str]) -> Vec<u8> {
    let output = std::process::Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn skopeo_reads_what_was_pushed_to_dockers_registry() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Tool("skopeo")]) {
        return println!("skipped: {reason}");
    }
    let (_directory, store) = store();
    let registry = DockerRegistry::new();
    let place = tempfile::tempdir().unwrap();
    let copy = |name: &str, to: &str| {
        let (from, to) = (format!("docker://{name}"), format!("dir:{}/{to}", place.path().display()));
        run("skopeo", &["copy", "--insecure-policy", "--all", "--src-tls-verify=false", &from, &to]);
        place.path().join(to.trim_start_matches("dir:"))
    };
    // Built here, in chunks, with a layer that is there twice.
    let name = format!("{}/team/built:v1", registry.host());
    let id = built(&store, &name, &[("a", 20_000_000), ("b", 10), ("a", 20_000_000)]);
    let digest = pushed(&push(&store, &name));
    let manifest = std::fs::read(copy(&name, "built").join("manifest.json")).unwrap();
    assert_eq!(Digest::sha256(&manifest), digest);
    // Unfolded by Go's gzip, a layer is called by its diff ID.
    let (from, to) = (format!("docker://{name}"), format!("dir:{}/plain", place.path().display()));
    run("skopeo", &["copy", "--insecure-policy", "--src-tls-verify=false", "--dest-decompress", &from, &to]);
    for diff_id in &store.image(&id).unwrap().unwrap().layers {
        assert!(place.path().join("plain").join(diff_id.0.hex()).is_file(), "{diff_id}");
    }
    // As they came: an index, and a manifest of docker's.
    let name = format!("{}/team/index:v1", registry.host());
    let (_, target) = indexed(&store, &name, &two_platforms());
    assert_eq!(pushed(&push(&store, &name)), target);
    let index = std::fs::read(copy(&name, "index").join("manifest.json")).unwrap();
    assert_eq!(Digest::sha256(&index), target);
    let tar = mica_testkit::images::tar_of(&[("f", b"content")]);
    let image = TestImage::docker("linux/amd64", vec![TestLayer::gzip(&tar)]);
    let name = format!("{}/team/docker:v1", registry.host());
    loaded(&store, &name, &image);
    pushed(&push(&store, &name));
    assert_eq!(std::fs::read(copy(&name, "docker").join("manifest.json")).unwrap(), image.manifest);
    // To another repository: mounted.
    let other = format!("{}/other:v1", registry.host());
    tag(&store, &name, &other).unwrap();
    let told = push(&store, &other);
    assert_eq!(told.last(), [LayerState::MountedFrom("team/docker".to_owned())]);
    assert_eq!(std::fs::read(copy(&other, "other").join("manifest.json")).unwrap(), image.manifest);
}

#[test]
fn a_layer_that_the_registry_has_is_not_compressed_again() {
    let (_directory, store) = store();
    let registry = FakeRegistry::new();
    let name = format!("{}/app:v1", registry.host());
    let id = built(&store, &name, &[("a", 5000)]);
    let digest = pushed(&push(&store, &name));
    let diff_id = store.image(&id).unwrap().unwrap().layers[0].clone();
    // Whoever reads it now fails.
    let layer = store.layer(&diff_id, None).unwrap().unwrap();
    std::fs::remove_file(layer.tree_path().join("a")).unwrap();
    assert_eq!(pushed(&push(&store, &name)), digest);
    let other = format!("{}/other:v1", registry.host());
    tag(&store, &name, &other).unwrap();
    assert_eq!(pushed(&push(&store, &other)), digest);
}
