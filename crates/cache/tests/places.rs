//! What holds for every place a cache can be kept in, run for each driver.

mod support;

use std::io::Read as _;
use std::sync::Arc;

use mica_cache::{
    Algorithm, ExportOptions, Form, Imports, LocalPlace, LocalTarget, MemoryPlace, Mode, Place,
    RegistryPlace, S3Place, S3Settings, export,
};
use mica_oci::{Descriptor, Digest, Reference};
use mica_registry_client::{Client, Settings};
use mica_testkit::{DockerRegistry, FakeRegistry, NEEDS_DOCKER_REGISTRY, S3Server, missing};

use support::{Bench, MAPPING, key, noise};

/// Runs the contract. `open` gives another handle of the same place each time.
fn suite(open: &dyn Fn() -> Arc<dyn Place>) {
    nothing_is_there_at_first(open);
    what_goes_comes_back(open);
    what_is_there_is_not_sent_again(open);
    the_last_export_counts(open);
}

fn nothing_is_there_at_first(open: &dyn Fn() -> Arc<dyn Place>) {
    let imports = Imports::new(vec![open()]);
    assert!(imports.by_exact(&key("exact-a")).is_empty());
    let warnings = imports.take_warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains(open().name()), "{warnings:?}");
    assert!(!imports.has_shape(&key("shape")));
    assert!(imports.take_warnings().is_empty(), "it is told once");
}

fn what_goes_comes_back(open: &dyn Fn() -> Arc<dyn Place>) {
    let here = Bench::new();
    let large = noise(100_000);
    let steps = [here.step("a", b"small"), here.step("b", &large)];
    for algorithm in [Algorithm::Gzip, Algorithm::Zstd, Algorithm::Uncompressed] {
        for docker_media_types in [false, true] {
            let options = ExportOptions {
                mode: Mode::Max,
                form: Form::of(algorithm),
                docker_media_types,
                ..ExportOptions::default()
            };
            export(&*open(), &here.store, &steps, &[], &Imports::default(), &options).expect("an export");
            let there = Bench::new();
            let imports = Imports::new(vec![open()]);
            assert!(imports.has_shape(&key("shape")));
            assert!(!imports.has_shape(&key("another shape")));
            for (name, inputs) in [("a", &b"small"[..]), ("b", &large)] {
                for found in [
                    imports.by_exact(&key(&format!("exact-{name}"))),
                    imports.by_record(&key(&format!("record-{name}"))),
                ] {
                    let [found] = found.as_slice() else { panic!("{} results", found.len()) };
                    assert_eq!(found.inputs().as_deref(), Some(inputs));
                    assert_eq!(found.facts().as_deref(), Some(&br#"{"created_seconds":7}"#[..]));
                    let step = found.step();
                    assert_eq!((step.made, step.created, step.network), (11, 7, Some(true)));
                    let layer = found.layer(&there.store, MAPPING);
                    let layer = layer.unwrap_or_else(|| panic!("{:?}", imports.take_warnings()));
                    let original = here.store.layer(found.diff_id(), None).unwrap().unwrap();
                    assert_eq!(layer.record.diff_id, original.record.diff_id);
                    let index = |layer: &mica_store::Layer| std::fs::read(layer.index_path()).unwrap();
                    assert_eq!(index(&layer), index(&original), "implied directories are still implied");
                    let alone = found.index().map(|index| index.encode());
                    assert_eq!(alone, Some(index(&original)));
                    let content = std::fs::read(layer.tree_path().join(format!("etc/{name}"))).unwrap();
                    assert_eq!(content, format!("the content of {name}").into_bytes());
                }
            }
            assert!(imports.by_exact(&key("exact-c")).is_empty());
            assert_eq!(imports.take_warnings(), Vec::<String>::new());
        }
    }
}

fn what_is_there_is_not_sent_again(open: &dyn Fn() -> Arc<dyn Place>) {
    let here = Bench::new();
    let steps = [here.step("again", &noise(50_000))];
    let first = here.export(&*open(), &steps);
    assert!(first.sent >= 3, "layer, inputs, config: {first:?}");
    let second = here.export(&*open(), &steps);
    assert_eq!((second.sent, second.sent_bytes, second.steps), (0, 0, 1));
}

fn the_last_export_counts(open: &dyn Fn() -> Arc<dyn Place>) {
    let here = Bench::new();
    here.export(&*open(), &[here.step("old", b"x")]);
    here.export(&*open(), &[here.step("new", b"x")]);
    let imports = Imports::new(vec![open()]);
    assert!(imports.by_exact(&key("exact-old")).is_empty());
    assert_eq!(imports.by_exact(&key("exact-new")).len(), 1);
}

#[test]
fn memory() {
    let place = Arc::new(MemoryPlace::default());
    suite(&|| place.clone());
}

#[test]
fn registry_that_behaves_as_it_is_told() {
    let registry = FakeRegistry::new();
    let bench = Bench::new();
    suite(&|| Arc::new(registry_place(&registry.host(), &bench)));
}

#[test]
fn registry_that_people_run() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        println!("skipped: {reason}");
        return;
    }
    let registry = DockerRegistry::new();
    let bench = Bench::new();
    suite(&|| Arc::new(registry_place(&registry.host(), &bench)));
}

fn registry_place(host: &str, bench: &Bench) -> RegistryPlace {
    let reference = Reference::parse(&format!("{host}/team/app:cache")).unwrap();
    RegistryPlace::new(&reference, &bench.store, Box::new(|| Ok(Client::new(Settings::default()))))
}

#[test]
fn registry_blobs_are_mounted_from_a_neighbour() {
    let registry = FakeRegistry::new();
    let here = Bench::new();
    let place = |name: &str| {
        let reference = Reference::parse(&format!("{}/{name}", registry.host())).unwrap();
        RegistryPlace::new(&reference, &here.store, Box::new(|| Ok(Client::new(Settings::default()))))
    };
    let steps = [here.step("a", &noise(50_000))];
    here.export(&place("one/app:cache"), &steps);
    registry.clear_requests();
    let second = here.export(&place("two/app:cache"), &steps);
    assert_eq!((second.sent, registry.count("PUT", "/blobs/")), (0, 0), "{:?}", registry.requests());
    let imports = Imports::new(vec![Arc::new(place("two/app:cache"))]);
    let there = Bench::new();
    assert!(imports.by_exact(&key("exact-a"))[0].layer(&there.store, MAPPING).is_some());
}

#[test]
fn bucket() {
    let server = match S3Server::start("caches") {
        Ok(server) => server,
        Err(reason) => {
            println!("skipped: {reason}");
            return;
        }
    };
    let settings = S3Settings {
        bucket: "caches".to_owned(),
        region: Some("eu-central-1".to_owned()),
        endpoint_url: Some(server.url()),
        use_path_style: true,
        names: vec!["main".to_owned(), "spare".to_owned()],
        prefix: "team/".to_owned(),
        blobs_prefix: "blobs/".to_owned(),
        manifests_prefix: "manifests/".to_owned(),
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        session_token: None,
    };
    suite(&|| Arc::new(S3Place::new(settings.clone())));
    // In parts.
    let place = S3Place::new(settings.clone());
    let bytes = noise(40 << 20);
    let blob = Descriptor::of("a/b", &bytes);
    struct Bytes(Vec<u8>);
    impl mica_registry_client::Content for Bytes {
        fn open(&self, offset: u64) -> std::io::Result<Box<dyn std::io::Read + Send>> {
            Ok(Box::new(std::io::Cursor::new(self.0[offset as usize..].to_vec())))
        }
    }
    assert!(!place.has(&blob).unwrap());
    place.put(&blob, &Bytes(bytes.clone())).unwrap();
    assert!(place.has(&blob).unwrap());
    let mut read = Vec::new();
    place.open(&blob).unwrap().read_to_end(&mut read).unwrap();
    assert!(read == bytes);
    // The spare name is asked where the first is not there, and a bucket that is not there is told.
    let spare = S3Settings { names: vec!["absent".to_owned(), "spare".to_owned()], ..settings.clone() };
    assert!(S3Place::new(spare).document(None).unwrap().is_some());
    let absent = S3Place::new(S3Settings { bucket: "absent".to_owned(), ..settings });
    let error = absent.put(&blob, &Bytes(b"x".to_vec())).unwrap_err().to_string();
    assert!(error.contains("NoSuchBucket"), "{error}");
}

#[test]
fn local() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep/cache");
    let tag = |tag: &str| LocalTarget::Tag(tag.to_owned());
    suite(&|| Arc::new(LocalPlace::new(&path, tag("latest"), false)));
    // Another tag of the same directory is another place.
    suite(&|| Arc::new(LocalPlace::new(&path, tag("other"), true)));
}

#[test]
fn local_reset_takes_away_what_no_manifest_needs() {
    let dir = tempfile::tempdir().unwrap();
    let open = |tag: &str, reset| LocalPlace::new(dir.path(), LocalTarget::Tag(tag.to_owned()), reset);
    let here = Bench::new();
    let count = || support::files(&dir.path().join("blobs/sha256")).len();
    here.export(&open("a", false), &[here.step("old", &noise(50_000))]);
    here.export(&open("b", false), &[here.step("kept", &noise(60_000))]);
    let before = count();
    here.export(&open("a", false), &[here.step("new", &noise(70_000))]);
    assert_eq!(count(), before + 4, "layer, inputs, config, manifest");
    std::fs::write(dir.path().join("blobs/sha256/.tmp-x"), b"left by a kill").unwrap();
    let held = open("b", false).begin().unwrap();
    here.export(&open("a", true), &[here.step("new", &noise(70_000))]);
    assert!(count() > before, "somebody else is exporting");
    drop(held);
    here.export(&open("a", true), &[here.step("new", &noise(70_000))]);
    assert_eq!(count(), before);
    for (tag, name) in [("a", "new"), ("b", "kept")] {
        let imports = Imports::new(vec![Arc::new(open(tag, false))]);
        let found = imports.by_record(&key(&format!("record-{name}")));
        assert!(found[0].inputs().is_some() && found[0].layer(&Bench::new().store, MAPPING).is_some());
    }
    // A manifest that cannot be read may need anything.
    let index = dir.path().join("index.json");
    let text = std::fs::read_to_string(&index).unwrap();
    let absent = Digest::sha256(b"absent");
    let alien = format!(r#""manifests":[{{"mediaType":"a/b","digest":"{absent}","size":1}},"#);
    let compact: String = text.split_whitespace().collect();
    std::fs::write(&index, compact.replace(r#""manifests":["#, &alien)).unwrap();
    std::fs::write(dir.path().join("blobs/sha256").join(absent.hex().replace('a', "b")), b"?").unwrap();
    here.export(&open("a", true), &[here.step("new", &noise(70_000))]);
    assert_eq!(count(), before + 1);
}

#[test]
fn local_directories_of_others_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("thesis.tex"), b"x").unwrap();
    let place = LocalPlace::new(dir.path(), LocalTarget::Tag("latest".into()), true);
    let error = place.begin().err().map(|error| error.to_string()).unwrap_or_default();
    assert!(error.contains("is no OCI layout, nor empty"), "{error}");
    assert_eq!(support::files(dir.path()), ["thesis.tex"]);
}
