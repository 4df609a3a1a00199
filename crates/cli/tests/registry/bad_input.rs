//! Replies that no honest registry gives: each is a clear error that names registry, repository and digest and says what to
//! try, and leaves nothing unverified visible; and replies that are odd, but can be made sense of.

use std::io::Write as _;
use std::time::Duration;

use mica_testkit::images::{descriptor, digest, media_type, random_tar, tar_of, this_platform};
use mica_testkit::{
    FakeAuth, FakeOptions, FakeRegistry, Fault, Locations, Mica, TestImage, TestIndex, TestLayer, TokenRules,
    When,
};
use serde_json::{Value, json};

use crate::support::{BINARY, check_absent, check_error, check_image, check_pushed, for_each, ok, run};

const REPOSITORY: &str = "test/bad";
/// More requests than any number of sensible tries.
const REQUESTS_MAX: usize = 100;

fn good() -> TestImage {
    TestImage::random(&[300_000, 50_000], 1)
}

/// What a case changes, given the registry that has the good image as `test/bad:1`. It answers what the error must name
/// beside registry and repository: a digest, or the tag.
type Change = Box<dyn Fn(&FakeRegistry, &TestImage) -> String + Sync>;

fn case(
    name: &'static str,
    change: impl Fn(&FakeRegistry, &TestImage) -> String + Sync + 'static,
) -> (&'static str, Change) {
    (name, Box::new(change))
}

/// A fault in every answer about a manifest.
fn manifest_fault(name: &'static str, fault: Fault) -> (&'static str, Change) {
    case(name, move |registry, _| {
        registry.fault(When::is("*", "/manifests/"), fault.clone());
        ":1".into()
    })
}

/// A fault in every answer about the first layer.
fn layer_fault(name: &'static str, fault: Fault) -> (&'static str, Change) {
    case(name, move |registry, image| {
        let digest = image.layers[0].digest();
        registry.fault(When::get(&digest), fault.clone());
        digest
    })
}

/// A fault in every answer about the config.
fn config_fault(name: &'static str, fault: Fault) -> (&'static str, Change) {
    case(name, move |registry, image| {
        registry.fault(When::get(&image.id()), fault.clone());
        image.id()
    })
}

/// Another image in its place. The error names this.
fn other(
    name: &'static str,
    make: impl Fn(TestImage) -> (TestImage, String) + Sync + 'static,
) -> (&'static str, Change) {
    case(name, move |registry, image| {
        let (image, part) = make(image.clone());
        image.put(registry, REPOSITORY, "1");
        part
    })
}

/// Another manifest, as JSON. The error names the image by its tag or by its digest.
fn other_manifest(
    name: &'static str,
    change: impl Fn(&mut Value) + Sync + 'static,
) -> (&'static str, Change) {
    other(name, move |image| (image.with_manifest(&change), String::new()))
}

/// Any bytes as the manifest.
fn bytes_as_manifest(name: &'static str, media_type: &'static str, bytes: Vec<u8>) -> (&'static str, Change) {
    case(name, move |registry, _| {
        registry.put_manifest(REPOSITORY, "1", media_type, &bytes);
        String::new()
    })
}

#[track_caller]
fn check_pull_fails((name, change): &(&'static str, Change)) {
    let registry = FakeRegistry::new();
    let image = good();
    image.put(&registry, REPOSITORY, "1");
    let part = change(&registry, &image);
    let reference = format!("{}/{REPOSITORY}:1", registry.host());
    let mica = Mica::new(BINARY);
    let outcome = run(&mica, &["pull", &reference]);
    println!(
        "{name} ({} requests, {:?}): {}",
        registry.requests().len(),
        outcome.time,
        outcome.stderr.trim()
    );
    check_error(&outcome, &[&registry.host(), REPOSITORY, &part, "hint: "], name);
    check_absent(&mica, &reference, name);
    let count = registry.requests().len();
    assert!(count <= REQUESTS_MAX, "{name}: {count} requests");

    // Nothing of it stays in the way of what is right.
    registry.clear_faults();
    image.put(&registry, REPOSITORY, "1");
    ok(&mica, &["pull", &reference]);
    check_image(&mica, &reference, &image, &image.digest(), name);
}

#[test]
fn replies_that_are_not_what_was_asked_for() {
    let html = || Fault::html();
    let cases = [
        manifest_fault("an altered manifest", Fault::Flip(30)),
        manifest_fault("a shortened manifest", Fault::Truncate(100)),
        manifest_fault("a longer manifest", Fault::Append(10)),
        manifest_fault("a manifest without end", Fault::Endless),
        manifest_fault("a manifest with headers without end", Fault::EndlessHeaders),
        manifest_fault("a manifest that is a web page", html()),
        manifest_fault(
            "a manifest with the digest of another",
            Fault::Header("Docker-Content-Digest", Some(digest(b"x"))),
        ),
        manifest_fault(
            "a manifest of a wrong media type",
            Fault::Header("Content-Type", Some("application/x-other".into())),
        ),
        manifest_fault("a manifest that leads to itself", Fault::redirect("/v2/test/bad/manifests/1")),
        manifest_fault("a manifest that leads to a file", Fault::redirect("file:///etc/passwd")),
        manifest_fault("a manifest that is never sent", Fault::Close),
        manifest_fault("a manifest and an error of the server", Fault::error(500, "UNKNOWN", "oh")),
        manifest_fault("a manifest that comes tomorrow", Fault::too_many_requests("86400")),
        config_fault("an altered config", Fault::Flip(30)),
        config_fault("a shortened config", Fault::Truncate(100)),
        config_fault("a longer config", Fault::Append(10)),
        config_fault("a config without end", Fault::Endless),
        config_fault("a config that is a web page", html()),
        layer_fault("an altered layer", Fault::Flip(100_000)),
        layer_fault("a layer that is always cut at the same place", Fault::Cut(100)),
        layer_fault("a shortened layer", Fault::Truncate(100_000)),
        layer_fault("a longer layer", Fault::Append(1000)),
        layer_fault("a layer without end", Fault::Endless),
        layer_fault("a layer that starts over", Fault::StartOver(150_000)),
        layer_fault("a layer with headers without end", Fault::EndlessHeaders),
        layer_fault("a layer that is a web page", html()),
        layer_fault("a layer that leads to itself", Fault::redirect("/v2/test/bad/blobs/uploads")),
        case("a layer that goes on elsewhere after a cut", |registry, image| {
            let digest = image.layers[0].digest();
            registry.fault(When::get(&digest).once(), Fault::Cut(100_000));
            registry.fault(When::get(&digest).skip(1), Fault::WrongContentRange);
            digest
        }),
        layer_fault("a layer that is gone", Fault::error(404, "BLOB_UNKNOWN", "blob unknown")),
        layer_fault("a layer that is forbidden", Fault::error(403, "DENIED", "not for you")),
        layer_fault("a layer and an error of the server", Fault::status(503)),
        layer_fault("a layer with another status", Fault::status(299)),
    ];
    for_each(&cases, check_pull_fails);
}

/// A gzip stream of so many zeros after a whole tar.
fn bomb(zeros: usize) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(&tar_of(&[("a", b"b")])).expect("compressing");
    let piece = vec![0; 1 << 20];
    for _ in 0..zeros >> 20 {
        encoder.write_all(&piece).expect("compressing");
    }
    encoder.finish().expect("compressing")
}

/// The first layer has other bytes; the manifest says so, the config does not.
fn with_blob(mut image: TestImage, blob: Vec<u8>) -> (TestImage, String) {
    let (digest, size) = (digest(&blob), blob.len());
    image.layers[0].blob = blob;
    let part = digest.clone();
    let image = image.with_manifest(|manifest| {
        manifest["layers"][0]["digest"] = digest.into();
        manifest["layers"][0]["size"] = size.into();
    });
    (image, part)
}

#[test]
fn images_that_contradict_themselves() {
    let nested = |depth: usize| {
        move |registry: &FakeRegistry, image: &TestImage| {
            let mut child = image.descriptor();
            for _ in 0..depth {
                let index =
                    json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [child] });
                let bytes = index.to_string().into_bytes();
                registry.put_manifest(REPOSITORY, "1", media_type::OCI_INDEX, &bytes);
                child = descriptor(media_type::OCI_INDEX, &bytes);
                child["platform"] = image.platform.clone();
            }
            String::new()
        }
    };
    let cases = [
        bytes_as_manifest("not JSON", media_type::OCI_MANIFEST, b"hello".to_vec()),
        bytes_as_manifest("an empty document", media_type::OCI_MANIFEST, b"{}".to_vec()),
        bytes_as_manifest("nothing", media_type::OCI_MANIFEST, Vec::new()),
        bytes_as_manifest("a list", media_type::OCI_MANIFEST, b"[]".to_vec()),
        bytes_as_manifest("brackets without end", media_type::OCI_MANIFEST, vec![b'['; 1 << 20]),
        bytes_as_manifest("too large", media_type::OCI_MANIFEST, {
            json!({ "schemaVersion": 2, "annotations": { "a": "x".repeat(5 << 20) } })
                .to_string()
                .into_bytes()
        }),
        bytes_as_manifest(
            "a manifest of 2015",
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            br#"{"schemaVersion":1,"name":"test/bad","tag":"1","fsLayers":[],"history":[],"signatures":[]}"#
                .to_vec(),
        ),
        case("a manifest that is called an index", |registry, image| {
            registry.put_manifest(REPOSITORY, "1", media_type::OCI_INDEX, &image.manifest);
            String::new()
        }),
        other_manifest("index and manifest in one", |manifest| {
            manifest["manifests"] =
                json!([{ "mediaType": media_type::OCI_MANIFEST, "digest": digest(b""), "size": 1 }]);
        }),
        other_manifest("a layer of unknown media type", |manifest| {
            manifest["layers"][0]["mediaType"] = "application/x-unknown".into();
        }),
        other_manifest("a layer without digest", |manifest| {
            manifest["layers"][0].as_object_mut().expect("a layer").remove("digest");
        }),
        other_manifest("a digest that climbs out", |manifest| {
            manifest["layers"][0]["digest"] = "sha256:../../../../etc/passwd".into();
        }),
        other_manifest("a digest of another kind", |manifest| {
            manifest["layers"][0]["digest"] = "md5:d41d8cd98f00b204e9800998ecf8427e".into();
        }),
        other_manifest("a negative size", |manifest| manifest["layers"][0]["size"] = (-1).into()),
        other_manifest("a size beyond all disks", |manifest| {
            manifest["layers"][0]["size"] = (i64::MAX).into();
        }),
        other_manifest("a layer that is larger than it is", |manifest| {
            manifest["layers"][0]["size"] = 1_000_000.into();
        }),
        other_manifest("a layer that is smaller than it is", |manifest| {
            manifest["layers"][0]["size"] = 1000.into();
        }),
        other_manifest("a config that is larger than it is", |manifest| {
            manifest["config"]["size"] = 100_000.into();
        }),
        other_manifest("a config beyond all memory", |manifest| {
            manifest["config"]["size"] = (1_u64 << 40).into();
        }),
        other_manifest("one layer too few", |manifest| {
            manifest["layers"].as_array_mut().expect("layers").pop();
        }),
        other_manifest("one layer twice", |manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"].as_array_mut().expect("layers").push(layer);
        }),
        other_manifest("layers in another order", |manifest| {
            manifest["layers"].as_array_mut().expect("layers").reverse();
        }),
        other_manifest("ten thousand layers", |manifest| {
            manifest["layers"] = vec![manifest["layers"][0].clone(); 10_000].into();
        }),
        other("an artifact", |_| (TestImage::artifact("application/x-thing", b"thing"), String::new())),
        other("a config that is not JSON", |mut image| {
            image.config = b"hello".to_vec();
            let (id, size) = (image.id(), image.config.len());
            let part = id.clone();
            let image = image.with_manifest(|manifest| {
                manifest["config"]["digest"] = id.into();
                manifest["config"]["size"] = size.into();
            });
            (image, part)
        }),
        other("a config with another diff ID", |image| {
            let part = image.layers[0].digest();
            (image.with_config(|config| config["rootfs"]["diff_ids"][0] = digest(b"x").into()), part)
        }),
        other("a config without layers", |image| {
            let image = image.with_config(|config| config["rootfs"]["diff_ids"] = json!([]));
            (image.clone(), image.id())
        }),
        other("a layer that is not compressed as it says", |image| {
            with_blob(image, random_tar("a", 1000, 3))
        }),
        other("a layer that is not a tar", |image| with_blob(image, TestLayer::gzip(&[b'x'; 10_000]).blob)),
        other("half of a gzip stream", |image| {
            let blob = image.layers[0].blob.clone();
            with_blob(image, blob[..blob.len() / 2].to_vec())
        }),
        other("a gzip bomb", |image| with_blob(image, bomb(600 << 20))),
        other("a zstd bomb", |mut image| {
            let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("compressing");
            encoder.window_log(30).expect("a window");
            encoder.long_distance_matching(true).expect("a window");
            let piece = vec![0; 1 << 20];
            for _ in 0..600 {
                encoder.write_all(&piece).expect("compressing");
            }
            image.layers[0].media_type = format!("{}+zstd", media_type::OCI_LAYER);
            let image = image.with_manifest(|manifest| {
                manifest["layers"][0]["mediaType"] = format!("{}+zstd", media_type::OCI_LAYER).into();
            });
            with_blob(image, encoder.finish().expect("compressing"))
        }),
        case("an index of other platforms", |registry, _| {
            let image = TestImage::oci("linux/s390x", vec![TestLayer::gzip(&tar_of(&[("a", b"b")]))]);
            TestIndex::oci(vec![image]).put(registry, REPOSITORY, "1");
            String::new()
        }),
        case("an index without its manifest", |registry, image| {
            let index =
                TestIndex::oci(vec![image.clone().with_manifest(|manifest| manifest["a"] = "b".into())]);
            registry.put_manifest(REPOSITORY, "1", &index.media_type, &index.bytes);
            index.images[0].digest()
        }),
        case("an index whose manifest is another", |registry, image| {
            let other = image.clone().with_manifest(|manifest| manifest["a"] = "b".into());
            let index = TestIndex::oci(vec![other.clone()]);
            registry.put_manifest(REPOSITORY, &other.digest(), &other.media_type, &image.manifest);
            registry.put_manifest(REPOSITORY, "1", &index.media_type, &index.bytes);
            other.digest()
        }),
        case("an index in an index in an index, and so on", nested(12)),
    ];
    for_each(&cases, check_pull_fails);
}

#[test]
fn a_digest_that_was_asked_for_is_the_one_that_comes() {
    let registry = FakeRegistry::new();
    let image = good();
    image.put(&registry, REPOSITORY, "1");
    let asked = digest(b"something else");
    registry.put_manifest(REPOSITORY, &asked, &image.media_type, &image.manifest);
    let mica = Mica::new(BINARY);
    let reference = format!("{}/{REPOSITORY}@{asked}", registry.host());
    let outcome = run(&mica, &["pull", &reference]);
    check_error(&outcome, &[&registry.host(), REPOSITORY, &asked, "hint: "], "another manifest");
    check_absent(&mica, &format!("{}/{REPOSITORY}", registry.host()), "another manifest");
}

/// Odd, but all of it is there: it is pulled right.
#[test]
fn replies_that_can_be_made_sense_of() {
    let pieces = |fault: Fault| {
        move |registry: &FakeRegistry, image: &TestImage| {
            registry.fault(When::get("/blobs/").times(6), fault.clone());
            image.clone()
        }
    };
    let both = |first: Fault, then: Fault| {
        move |registry: &FakeRegistry, image: &TestImage| {
            let digest = image.layers[0].digest();
            registry.fault(When::get(&digest).once(), first.clone());
            registry.fault(When::get(&digest).skip(1).times(1), then.clone());
            image.clone()
        }
    };
    type Odd = Box<dyn Fn(&FakeRegistry, &TestImage) -> TestImage + Sync>;
    let cases: Vec<(&str, Odd)> = vec![
        ("chunks", Box::new(pieces(Fault::Chunked))),
        ("no length", Box::new(pieces(Fault::NoLength))),
        ("more than its length", Box::new(pieces(Fault::Trail(100)))),
        ("cuts", Box::new(pieces(Fault::Cut(20_000)))),
        (
            "lost replies",
            Box::new(|registry, image| {
                registry.fault(When::always().times(3), Fault::Close);
                image.clone()
            }),
        ),
        (
            "errors that pass",
            Box::new(|registry, image| {
                registry.fault(When::always().times(2), Fault::status(503));
                registry.fault(When::get("/blobs/").skip(1).once(), Fault::too_many_requests("1"));
                image.clone()
            }),
        ),
        ("an altered layer, once", Box::new(both(Fault::Flip(1000), Fault::Header("X-Odd", None)))),
        (
            "a layer that starts over, once",
            Box::new(both(Fault::StartOver(1000), Fault::Header("X-Odd", None))),
        ),
        ("a cut, and Range is not looked at", Box::new(both(Fault::Cut(100_000), Fault::IgnoreRange))),
        ("a cut, and no range will do", Box::new(both(Fault::Cut(100_000), Fault::status(416)))),
        (
            "a cut in the middle of chunks",
            Box::new(|registry, image| {
                registry.fault(When::get("/blobs/").times(2), Fault::Chunked);
                registry.fault(When::get("/blobs/").times(2), Fault::Cut(10_000));
                image.clone()
            }),
        ),
        ("slowly", Box::new(pieces(Fault::Slow(20_000, Duration::from_millis(20))))),
        (
            "no media type but in the manifest",
            Box::new(|registry, image| {
                registry.fault(When::is("*", "/manifests/"), Fault::Header("Content-Type", None));
                image.clone()
            }),
        ),
        (
            "a digest in the headers that is none",
            Box::new(|registry, image| {
                let text = Some("sha256:../x".into());
                registry.fault(When::is("*", "/manifests/"), Fault::Header("Docker-Content-Digest", text));
                image.clone()
            }),
        ),
        (
            "another platform",
            Box::new(|registry, image| {
                let image = image.clone().with_config(|config| config["architecture"] = "s390x".into());
                image.put(registry, REPOSITORY, "1");
                image
            }),
        ),
        (
            "no digest in the headers",
            Box::new(|registry, image| {
                registry.fault(When::is("*", "/manifests/"), Fault::Header("Docker-Content-Digest", None));
                image.clone()
            }),
        ),
        (
            "no HEAD",
            Box::new(|registry, image| {
                registry.fault(When::is("HEAD", ""), Fault::status(405));
                image.clone()
            }),
        ),
        (
            "the same layer three times",
            Box::new(|registry, image| {
                let layer = image.layers[0].clone();
                let image = TestImage::oci(&this_platform(), vec![layer.clone(), layer.clone(), layer]);
                image.put(registry, REPOSITORY, "1");
                image
            }),
        ),
        (
            "URLs that lead elsewhere",
            Box::new(|registry, image| {
                // The registry has it, and comes first.
                let mut layer = image.layers[0].clone();
                let url = format!("https://127.0.0.1:1/{}", layer.digest());
                layer.urls = vec![url, "file:///etc/passwd".into()];
                registry.put_blob(REPOSITORY, &layer.blob);
                let image = TestImage::oci(&this_platform(), vec![layer]);
                image.put(registry, REPOSITORY, "1");
                image
            }),
        ),
    ];
    for_each(&cases, |(name, change)| {
        let registry = FakeRegistry::new();
        let image = good();
        image.put(&registry, REPOSITORY, "1");
        let image = change(&registry, &image);
        let mica = Mica::new(BINARY);
        let reference = format!("{}/{REPOSITORY}:1", registry.host());
        let outcome = run(&mica, &["pull", &reference]);
        assert!(outcome.code == 0, "{name}: {outcome}");
        check_image(&mica, &reference, &image, &image.digest(), name);
        let mut layers: Vec<String> = image.layers.iter().map(TestLayer::digest).collect();
        layers.dedup();
        if *name == "the same layer three times" {
            assert_eq!(registry.count("GET", &layers[0]), 1, "{name}");
        }
    });
}

#[test]
fn layers_that_come_from_elsewhere_are_not_fetched_from_anywhere() {
    let elsewhere = FakeRegistry::new();
    let registry = FakeRegistry::new();
    let mica = Mica::new(BINARY);
    // A registry that is not on this machine, as far as its name tells.
    mica.set_hub(&registry.host());
    let reference = "docker.io/test/bad:1";
    let layer = TestLayer::gzip(&tar_of(&[("a", b"b")]));
    elsewhere.put_blob("x", &layer.blob);
    let url = format!("{}/v2/x/blobs/{}", elsewhere.base_url(), layer.digest());
    let image = TestImage::oci(&this_platform(), vec![TestLayer { urls: vec![url], ..layer.clone() }]);
    for urls in
        [image.layers[0].urls.clone(), vec!["file:///etc/passwd".into(), String::new(), "\u{1}".into()]]
    {
        let image = image.clone().with_manifest(|manifest| manifest["layers"][0]["urls"] = json!(urls));
        image.put(&registry, REPOSITORY, "1");
        let outcome = run(&mica, &["pull", reference]);
        check_error(&outcome, &["docker.io", REPOSITORY, &layer.digest(), "hint: "], &format!("{urls:?}"));
        check_absent(&mica, reference, &format!("{urls:?}"));
        assert_eq!(elsewhere.requests().len(), 0, "an address of this machine out of a manifest was asked");
    }
}

#[test]
fn tokens_and_redirects() {
    let token = |rules| FakeOptions { auth: FakeAuth::Token(rules), ..FakeOptions::default() };
    let image = good();
    let pull = |registry: &FakeRegistry| {
        image.put(registry, REPOSITORY, "1");
        let mica = Mica::new(BINARY);
        let reference = format!("{}/{REPOSITORY}:1", registry.host());
        let outcome = run(&mica, &["pull", &reference]);
        (mica, reference, outcome)
    };

    // Tokens expire in the middle of the work.
    let registry = FakeRegistry::start(token(TokenRules { uses: Some(2), ..TokenRules::default() }));
    let (mica, reference, outcome) = pull(&registry);
    assert!(outcome.code == 0, "tokens that expire: {outcome}");
    check_image(&mica, &reference, &image, &image.digest(), "tokens that expire");

    let loops = TokenRules { never: true, ..TokenRules::default() };
    let page = |registry: &FakeRegistry| registry.fault(When::get("/token"), Fault::html());
    let nothing = |_: &FakeRegistry| {};
    let broken = |registry: &FakeRegistry| registry.fault(When::get("/token"), Fault::Body(b"{}".to_vec()));
    let endless = |registry: &FakeRegistry| registry.fault(When::get("/token"), Fault::Endless);
    let strange = TokenRules { realm: Some("file:///etc/passwd".into()), ..TokenRules::default() };
    type Prepare<'a> = &'a (dyn Fn(&FakeRegistry) + Sync);
    let cases: [(&str, TokenRules, Prepare<'_>); 5] = [
        ("no token is good enough", loops, &nothing),
        ("a web page for a token", TokenRules::default(), &page),
        ("no token in the reply", TokenRules::default(), &broken),
        ("a token without end", TokenRules::default(), &endless),
        ("a realm that is a file", strange, &nothing),
    ];
    for_each(&cases, |(name, rules, prepare)| {
        let registry = FakeRegistry::start(token(rules.clone()));
        prepare(&registry);
        let (mica, reference, outcome) = pull(&registry);
        println!("{name}: {}", outcome.stderr.trim());
        check_error(&outcome, &[&registry.host(), REPOSITORY, "hint: "], name);
        check_absent(&mica, &reference, name);
        assert!(registry.requests().len() <= REQUESTS_MAX, "{name}: {} requests", registry.requests().len());
    });

    // Blobs come from another host, which must not learn who asks.
    let elsewhere = FakeRegistry::new();
    image.put(&elsewhere, REPOSITORY, "");
    let redirect_blobs = Some(elsewhere.base_url());
    let registry = FakeRegistry::start(FakeOptions { redirect_blobs, ..token(TokenRules::default()) });
    let (mica, reference, outcome) = pull(&registry);
    assert!(outcome.code == 0, "blobs from another host: {outcome}");
    check_image(&mica, &reference, &image, &image.digest(), "blobs from another host");
    assert_eq!(elsewhere.count("GET", "/blobs/"), 3);
    for request in elsewhere.requests() {
        assert_eq!(request.header("authorization"), None, "{request:?}");
    }
}

#[test]
fn tags_that_do_not_end() {
    let registry = FakeRegistry::new();
    good().put(&registry, REPOSITORY, "1");
    let name = format!("{}/{REPOSITORY}", registry.host());
    let mica = Mica::new(BINARY);
    let next = format!("</v2/{REPOSITORY}/tags/list?n=1>; rel=\"next\"");
    let list = || When::get("/tags/list");
    let cases = [
        ("a page that leads to itself", Fault::Header("Link", Some(next))),
        ("tags that are a web page", Fault::html()),
        ("tags without end", Fault::Endless),
        ("tags that are none", Fault::Body(b"{\"tags\":[\"../x\",7]}".to_vec())),
    ];
    for (case, fault) in cases {
        registry.clear_faults();
        registry.clear_requests();
        registry.fault(list(), fault);
        for command in [["tags", &name].as_slice(), &["pull", "-a", &name]] {
            let outcome = run(&mica, command);
            println!("{case}: {}", outcome.stderr.trim());
            check_error(&outcome, &[&registry.host(), REPOSITORY], case);
        }
        assert!(registry.requests().len() <= REQUESTS_MAX, "{case}: {} requests", registry.requests().len());
    }
}

/// A store with an image to push, and its name at the registry.
fn to_push(registry: &FakeRegistry, image: &TestImage) -> (Mica, String) {
    let origin = FakeRegistry::new();
    image.put(&origin, "origin", "1");
    let mica = Mica::new(BINARY);
    let source = format!("{}/origin:1", origin.host());
    ok(&mica, &["pull", "-q", &source]);
    let name = format!("{}/{REPOSITORY}:1", registry.host());
    ok(&mica, &["tag", &source, &name]);
    (mica, name)
}

#[test]
fn pushes_to_a_registry_that_misbehaves() {
    let image = good();
    let forever: Vec<(&str, When, Fault)> = vec![
        ("uploads that are refused", When::is("POST", ""), Fault::error(403, "DENIED", "not for you")),
        ("uploads that lead nowhere", When::is("POST", ""), Fault::Header("Location", None)),
        (
            "uploads that lead to a file",
            When::is("POST", ""),
            Fault::Header("Location", Some("file:///x".into())),
        ),
        ("uploads that are a web page", When::is("POST", ""), Fault::html()),
        ("chunks that are lost", When::is("P", ""), Fault::status(500)),
        ("manifests that are too large", When::is("PUT", "/manifests/"), Fault::status(413)),
        ("manifests that are a web page", When::is("PUT", "/manifests/"), Fault::html()),
        (
            "manifests that are stored as others",
            When::is("PUT", "/manifests/"),
            Fault::Header("Docker-Content-Digest", Some(digest(b"x"))),
        ),
        ("blobs that are never right", When::is("PUT", "/blobs/"), Fault::error(400, "DIGEST_INVALID", "no")),
        ("headers without end", When::is("HEAD", ""), Fault::EndlessHeaders),
        ("replies that are lost", When::is("PUT", "/manifests/"), Fault::LoseReply),
        ("patience", When::is("POST", ""), Fault::too_many_requests("86400")),
    ];
    for_each(&forever, |(name, when, fault)| {
        let registry = FakeRegistry::new();
        let (mica, reference) = to_push(&registry, &image);
        let when =
            if *name == "chunks that are lost" { When::is("PUT", "/blobs/uploads/") } else { when.clone() };
        registry.fault(when, fault.clone());
        let outcome = run(&mica, &["push", &reference]);
        println!("{name} ({} requests): {}", registry.requests().len(), outcome.stderr.trim());
        check_error(&outcome, &[&registry.host(), REPOSITORY, "hint: "], name);
        assert!(registry.requests().len() <= REQUESTS_MAX, "{name}: {} requests", registry.requests().len());
        registry.clear_faults();
        ok(&mica, &["push", &reference]);
        check_pushed(&registry.http(), REPOSITORY, "1", &image, name);
    });
}

#[test]
fn pushes_to_a_registry_that_is_odd() {
    let image = TestImage::random(&[5_000_000, 50_000], 2);
    let token = |rules| FakeOptions { auth: FakeAuth::Token(rules), ..FakeOptions::default() };
    let anybody = TokenRules { anonymous_pull: true, ..TokenRules::default() };
    let cut = |keeps| (When::is("PATCH", "").once(), Fault::CutRequest { after: 2_000_000, keeps });
    type Odd<'a> = (&'a str, FakeOptions<'a>, Vec<(When, Fault)>);
    let cases: Vec<Odd<'_>> = vec![
        ("relative", FakeOptions { locations: Locations::Relative, ..FakeOptions::default() }, vec![]),
        ("changing", FakeOptions { locations: Locations::Changing, ..FakeOptions::default() }, vec![]),
        (
            "changing, with a cut",
            FakeOptions { locations: Locations::Changing, ..FakeOptions::default() },
            vec![cut(true)],
        ),
        ("least chunks", FakeOptions { chunk_min_length: Some(1 << 20), ..FakeOptions::default() }, vec![]),
        (
            "large least chunks",
            FakeOptions { chunk_min_length: Some(100 << 20), ..FakeOptions::default() },
            vec![],
        ),
        ("a cut that is kept", FakeOptions::default(), vec![cut(true)]),
        ("a cut that is lost", FakeOptions::default(), vec![cut(false)]),
        ("416", FakeOptions::default(), vec![(When::is("PATCH", "").once(), Fault::status(416))]),
        ("no chunks", FakeOptions::default(), vec![(When::is("PATCH", ""), Fault::status(405))]),
        ("no HEAD", FakeOptions::default(), vec![(When::is("HEAD", ""), Fault::status(405))]),
        (
            "a moment",
            FakeOptions::default(),
            vec![(When::is("PUT", "").once(), Fault::too_many_requests("1"))],
        ),
        ("lost replies", FakeOptions::default(), vec![(When::is("PUT", "").times(2), Fault::LoseReply)]),
        (
            "no digest",
            FakeOptions::default(),
            vec![(When::is("PUT", ""), Fault::Header("Docker-Content-Digest", None))],
        ),
        ("no pushes without login", token(anybody), vec![]),
    ];
    for_each(&cases, |(name, options, faults)| {
        let registry = FakeRegistry::start(options.clone());
        for (when, fault) in faults {
            registry.fault(when.clone(), fault.clone());
        }
        let (mica, reference) = to_push(&registry, &image);
        let outcome = run(&mica, &["push", &reference]);
        if *name == "no pushes without login" {
            check_error(&outcome, &[&registry.host(), REPOSITORY, "hint: "], name);
            return;
        }
        assert!(outcome.code == 0, "{name}: {outcome}");
        let kept = registry.manifest(REPOSITORY, "1").unwrap_or_else(|| panic!("{name}: no manifest"));
        assert_eq!(kept.1, image.manifest, "{name}");
        for layer in &image.layers {
            assert!(registry.blob(REPOSITORY, &layer.digest()).is_some(), "{name}: {}", layer.digest());
        }
    });
}

/// Nothing comes for a while, and then the rest.
#[test]
fn a_stalled_download_goes_on() {
    let registry = FakeRegistry::new();
    let image = good();
    image.put(&registry, REPOSITORY, "1");
    registry.fault(When::get(&image.layers[0].digest()).once(), Fault::Stall(200_000));
    let mica = Mica::new(BINARY);
    let reference = format!("{}/{REPOSITORY}:1", registry.host());
    let outcome = run(&mica, &["pull", &reference]);
    assert!(outcome.code == 0, "{outcome}");
    check_image(&mica, &reference, &image, &image.digest(), "stalled");
    let sent = registry.sent_bytes(&image.layers[0].digest());
    // The last buffer may be lost with the connection.
    assert!(sent < 340_000, "{sent} bytes were sent: {:#?}", registry.requests());
}
