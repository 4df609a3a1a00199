//! A pull where a power cut has spoilt what an earlier one had stored.

mod common;

use common::{rootless, store};
use mica_image::{PullRequest, Pulled, manifest, pull};
use mica_oci::Reference;
use mica_registry_client::{Client, Settings};
use mica_store::Store;
use mica_testkit::{FakeRegistry, TestImage, TestLayer};

fn pulled(store: &Store, registry: &FakeRegistry) -> Pulled {
    let reference = Reference::parse(&format!("{}/a:1", registry.host())).unwrap();
    let request = PullRequest { reference: &reference, platform: None, rootless: rootless() };
    pull(store, &Client::new(Settings::default()), &request, &|_| {})
        .unwrap_or_else(|error| panic!("{error}"))
}

/// What becomes of a blob's bytes.
type Spoil = fn(&mut Vec<u8>);

#[test]
fn a_spoilt_blob_comes_anew() {
    let cases: [(&str, Spoil); 4] = [
        ("whole", |_| {}),
        ("empty", Vec::clear),
        ("cut short", |bytes| bytes.truncate(bytes.len() / 2)),
        ("zeros at the end", |bytes| {
            let half = bytes.len() / 2;
            bytes[half..].fill(0);
        }),
    ];
    for (what, spoil) in cases {
        let registry = FakeRegistry::new();
        let tars = ["a", "b"].map(|name| mica_testkit::images::random_tar(name, 30_000, 5));
        let layers = vec![TestLayer::gzip(&tars[0]), TestLayer::gzip(&tars[1])];
        let platform = mica_testkit::images::this_platform();
        TestImage::oci(&platform, layers).put(&registry, "a", "1");
        let (_directory, store) = store();
        let first = pulled(&store, &registry);
        let (_, manifest) = manifest(&store, &first.image).unwrap();
        let diff_ids = store.image(&first.image).unwrap().unwrap().layers;
        let lost = &manifest.layers[1].digest;
        store.forget_layer(&diff_ids[1], None).unwrap();
        let mut bytes = std::fs::read(store.blob_path(lost)).unwrap();
        spoil(&mut bytes);
        std::fs::write(store.blob_path(lost), bytes).unwrap();
        registry.clear_requests();
        assert_eq!(pulled(&store, &registry).image, first.image, "{what}");
        assert!(store.layer(&diff_ids[1], None).unwrap().is_some(), "{what}");
        let size_bytes = manifest.layers[1].size;
        assert_eq!(store.read_blob(lost, size_bytes).unwrap().len() as u64, size_bytes, "{what}");
        let is_spoilt = what != "whole";
        assert_eq!(registry.count("GET", lost.as_str()), usize::from(is_spoilt), "{what}");
        assert_eq!(registry.count("GET", manifest.layers[0].digest.as_str()), 0, "{what}");
    }
}
