//! Manifests: how many requests they take, and what is not taken for one.

mod common;

use common::*;
use mica_oci::{Digest, MANIFEST_SIZE_BYTES_MAX, Reference, media_type};
use mica_registry_client::RegistryError;
use mica_testkit::{FakeRegistry, Fault, When};

#[test]
fn a_look_at_what_is_there_is_one_request() {
    let registry = FakeRegistry::new();
    let bytes = manifest();
    let digest = put_manifest(&registry, &bytes);
    let head = client().head_manifest(&reference(&registry, "a:latest")).unwrap().unwrap();
    assert_eq!(head.digest, digest);
    assert_eq!(head.media_type, media_type::OCI_MANIFEST);
    assert_eq!(head.size_bytes, Some(bytes.len() as u64));
    assert_eq!(asked(&registry), ["HEAD /v2/a/manifests/latest"]);
    let accept = registry.requests()[0].header("accept").unwrap_or_default().to_owned();
    for kind in media_type::MANIFEST_ACCEPT {
        assert!(accept.contains(kind), "{accept}");
    }
}

#[test]
fn what_is_not_there_is_none() {
    let registry = FakeRegistry::new();
    assert_eq!(client().head_manifest(&reference(&registry, "a:latest")).unwrap(), None);
    let error = client().manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains(&format!("{}/a:latest", registry.host())) && text.contains("unknown"), "{text}");
}

#[test]
fn bytes_come_as_they_are() {
    let registry = FakeRegistry::new();
    let bytes = manifest();
    let digest = put_manifest(&registry, &bytes);
    let client = client();
    for name in ["a:latest".to_owned(), format!("a@{digest}"), format!("a:nothing@{digest}")] {
        let fetched = client.manifest(&reference(&registry, &name)).unwrap();
        assert_eq!(fetched.bytes, bytes, "{name}");
        assert_eq!(fetched.digest, digest);
        assert_eq!(fetched.media_type, media_type::OCI_MANIFEST);
        assert_eq!(fetched.from, registry.host());
    }
    // Where there are both, the digest counts.
    assert_eq!(asked(&registry)[2], format!("GET /v2/a/manifests/{digest}"));
}

#[test]
fn registries_that_answer_head_badly_are_asked_with_get() {
    let bytes = manifest();
    for fault in [
        Fault::status(405),
        Fault::status(400),
        Fault::status(403),
        Fault::Header("Docker-Content-Digest", None),
        Fault::Header("Docker-Content-Digest", Some("nonsense".into())),
        Fault::Header("Content-Type", Some("text/html".into())),
        Fault::Header("Content-Type", None),
    ] {
        let registry = FakeRegistry::new();
        let digest = put_manifest(&registry, &bytes);
        registry.fault(When::is("HEAD", "/manifests/"), fault.clone());
        let head = client().head_manifest(&reference(&registry, "a:latest")).unwrap().unwrap();
        assert_eq!((head.digest, head.size_bytes), (digest, Some(bytes.len() as u64)), "{fault:?}");
        assert_eq!(
            asked(&registry),
            ["HEAD /v2/a/manifests/latest", "GET /v2/a/manifests/latest"],
            "{fault:?}"
        );
    }
}

#[track_caller]
fn check(put: impl Fn(&FakeRegistry), fault: Option<Fault>, name: &str, expect: &str) {
    let registry = FakeRegistry::new();
    put(&registry);
    if let Some(fault) = fault {
        registry.fault(When::get("/manifests/"), fault);
    }
    let error = client().manifest(&reference(&registry, name)).unwrap_err();
    let text = error.to_string().replace(&registry.host(), "HOST");
    assert!(text.contains(expect), "expected `{expect}`: {text}");
    assert!(text.contains("HOST/a"), "names registry and repository: {text}");
}

fn put(media_type: &'static str, bytes: &'static str) -> impl Fn(&FakeRegistry) {
    move |registry| {
        registry.put_manifest("a", "latest", media_type, bytes.as_bytes());
    }
}

#[test]
fn what_is_not_a_manifest_is_refused() {
    let good = |registry: &FakeRegistry| {
        put_manifest(registry, &manifest());
    };
    let other = Digest::sha256(b"other");
    check(good, Some(Fault::html()), "a:latest", "answered with HTML, not a manifest");
    check(good, Some(Fault::Flip(20)), "a:latest", "differs");
    check(good, Some(Fault::Header("Docker-Content-Digest", Some(other.to_string()))), "a:latest", "differs");
    check(good, Some(Fault::Header("Content-Type", Some("text/css".into()))), "a:latest", "text/css");
    check(good, Some(Fault::Endless), "a:latest", "too large");
    check(good, Some(Fault::Append(MANIFEST_SIZE_BYTES_MAX)), "a:latest", "too large");
    check(good, Some(Fault::Header("Content-Type", Some(media_type::OCI_INDEX.into()))), "a:latest", "index");
    check(put(media_type::DOCKER_MANIFEST_SCHEMA1_SIGNED, "{}"), None, "a:latest", "schema 1");
    check(put(media_type::OCI_MANIFEST, r#"{"schemaVersion":1}"#), None, "a:latest", "schema 1");
    check(put(media_type::OCI_MANIFEST, "not json"), None, "a:latest", "invalid manifest");
    check(
        put(media_type::OCI_INDEX, r#"{"schemaVersion":2,"manifests":[],"config":{},"layers":[]}"#),
        None,
        "a:latest",
        "ambiguous",
    );
    // A host of HTML that says it is JSON.
    check(put(media_type::OCI_MANIFEST, "<html>sign in</html>"), None, "a:latest", "answered with HTML");
}

#[test]
fn other_bytes_than_those_of_the_digest_are_refused() {
    let registry = FakeRegistry::new();
    let asked = Digest::sha256(b"asked");
    registry.put_manifest("a", asked.as_str(), media_type::OCI_MANIFEST, &manifest());
    let error = client().manifest(&reference(&registry, &format!("a@{asked}"))).unwrap_err();
    assert!(
        matches!(&error, RegistryError::DigestMismatch { expected, .. } if *expected == asked),
        "{error:?}"
    );
}

#[test]
fn a_document_may_say_itself_what_it_is() {
    let bytes = manifest();
    for (content_type, expect) in
        [(None, true), (Some("application/octet-stream"), true), (Some("text/plain"), true)]
    {
        let registry = FakeRegistry::new();
        put_manifest(&registry, &bytes);
        registry.fault(When::always(), Fault::Header("Content-Type", content_type.map(str::to_owned)));
        let result = client().manifest(&reference(&registry, "a:latest"));
        assert_eq!(result.is_ok(), expect, "{content_type:?} {result:?}");
        assert_eq!(result.unwrap().media_type, media_type::OCI_MANIFEST);
    }
    // But somebody has to say it.
    let mut anonymous = mica_oci::Manifest::parse(&bytes).unwrap();
    anonymous.media_type = None;
    let registry = FakeRegistry::new();
    put_manifest(&registry, &anonymous.to_canonical_json());
    client().manifest(&reference(&registry, "a:latest")).unwrap();
    registry.fault(When::always(), Fault::Header("Content-Type", None));
    let error = client().manifest(&reference(&registry, "a:latest")).unwrap_err();
    assert!(error.to_string().contains("no media type"), "{error}");
}

#[test]
fn broken_replies_are_asked_for_again() {
    let bytes = manifest();
    for fault in [
        Fault::Close,
        Fault::Cut(10),
        Fault::LoseReply,
        Fault::Stall(10),
        Fault::status(503),
        Fault::status(429),
    ] {
        let registry = FakeRegistry::new();
        let digest = put_manifest(&registry, &bytes);
        registry.fault(When::get("/manifests/").times(2), fault.clone());
        let fetched = client().manifest(&reference(&registry, "a:latest")).unwrap();
        assert_eq!(fetched.digest, digest, "{fault:?}");
    }
}

#[test]
fn tries_are_bounded() {
    for (fault, requests) in
        [(Fault::status(503), 5), (Fault::status(404), 1), (Fault::status(400), 1), (Fault::status(501), 1)]
    {
        let registry = FakeRegistry::new();
        registry.fault(When::always(), fault.clone());
        client().manifest(&reference(&registry, "a:latest")).unwrap_err();
        assert_eq!(registry.requests().len(), requests, "{fault:?}");
    }
}

#[test]
fn the_registrys_words_cannot_control_a_terminal() {
    let registry = FakeRegistry::new();
    let message = format!("\u{1b}]0;owned\u{7}{}", "x".repeat(10_000));
    registry.fault(When::always(), Fault::error(400, "MANIFEST_INVALID", &message));
    let text = client().manifest(&reference(&registry, "a:latest")).unwrap_err().to_string();
    assert!(!text.contains(char::is_control) && text.len() < 1000, "{text:?}");
    assert!(text.contains("manifest invalid: \\u{1b}]0;owned"), "{text}");
}

#[test]
fn nobody_there_is_said_at_once() {
    let port = mica_testkit::http::free_port();
    let name = Reference::parse(&format!("127.0.0.1:{port}/a:latest")).unwrap();
    let begun = std::time::Instant::now();
    let patience = mica_registry_client::Patience::default();
    let client = mica_registry_client::Client::new(mica_registry_client::Settings {
        patience: patience.clone(),
        ..Default::default()
    });
    let error = client.manifest(&name).unwrap_err();
    assert!(matches!(error, RegistryError::Connection { .. }), "{error:?}");
    assert!(error.to_string().contains("connection refused"), "{error}");
    // Not a single pause for breath.
    assert!(begun.elapsed() < patience.delay_first / 2 + std::time::Duration::from_secs(1));
}
