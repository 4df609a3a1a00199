//! Tags, page after page.

mod common;

use common::*;
use mica_registry_client::RegistryError;
use mica_testkit::{FakeOptions, FakeRegistry, Fault, When};

fn with_tags(count: usize, page_size: usize) -> (FakeRegistry, Vec<String>) {
    let registry = FakeRegistry::start(FakeOptions { page_size, ..Default::default() });
    let tags: Vec<String> = (0..count).map(|number| format!("v{number:04}")).collect();
    for tag in &tags {
        registry.put_manifest("a", tag, mica_oci::media_type::OCI_MANIFEST, &manifest());
    }
    (registry, tags)
}

#[test]
fn all_pages_in_order() {
    for (count, page_size, requests) in [(1, 1000, 1), (25, 10, 3), (20, 10, 2)] {
        let (registry, tags) = with_tags(count, page_size);
        assert_eq!(client().tags(&reference(&registry, "a:ignored")).unwrap(), tags);
        assert!(registry.requests().len() <= requests + 1, "{:?}", asked(&registry));
    }
    let registry = FakeRegistry::new();
    let error = client().tags(&reference(&registry, "a")).unwrap_err();
    assert!(matches!(error, RegistryError::NotFound { .. }), "{error:?}");
}

#[test]
fn lists_that_do_not_end_or_lead_away() {
    let check = |fault: Fault, expect: &str| {
        let (registry, _) = with_tags(3, 1000);
        registry.fault(When::always(), fault);
        let text = client().tags(&reference(&registry, "a")).unwrap_err().to_string();
        assert!(text.contains(expect) && text.contains(&format!("{}/a", registry.host())), "{text}");
        assert!(registry.requests().len() < 5);
    };
    let link = |target: &str| Fault::Header("Link", Some(format!("<{target}>; rel=\"next\"")));
    check(link("/v2/a/tags/list?last=v0002"), "circle");
    check(link("/v2/a/tags/list"), "circle");
    check(link("http://127.0.0.1:1/v2/a/tags/list"), "another host");
    check(link("http://["), "no URL");
    check(Fault::html(), "HTML");
    check(Fault::Body(b"{\"tags\":[\"\\u001b[2J\"]}".to_vec()), "\\u{1b}");
    check(Fault::Body(b"[]".to_vec()), "not a list of tags");
    check(Fault::Endless, "too large");
}
