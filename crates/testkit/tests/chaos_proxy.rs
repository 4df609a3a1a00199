//! The proxy is calm when it should be, cuts where it says, and spoils the rest in every way.

use mica_testkit::{Chaos, ChaosProxy, FakeRegistry, RegistryHttp, Then};

/// A registry with a blob of so many bytes behind a proxy, and the blob's path.
fn made(size: usize) -> (FakeRegistry, ChaosProxy, String, Vec<u8>) {
    let registry = FakeRegistry::new();
    let proxy = ChaosProxy::before(registry.port());
    let content: Vec<u8> = (0..size).map(|number| (number % 251) as u8).collect();
    let digest = registry.put_blob("a", &content);
    (registry, proxy, format!("/v2/a/blobs/{digest}"), content)
}

#[test]
fn a_calm_proxy_changes_nothing() {
    let (registry, proxy, path, content) = made(300_000);
    let http = RegistryHttp::new(proxy.port());
    assert_eq!(http.get(&path).body, content);
    assert!((300_000..301_000).contains(&proxy.reply_bytes()), "{}", proxy.reply_bytes());
    let digest = http.put_blob("b", &content);
    assert_eq!(registry.blob("b", &digest), Some(content));
    assert!((300_000..301_000).contains(&proxy.request_bytes()), "{}", proxy.request_bytes());
    assert_eq!(proxy.happened(), Vec::<String>::new());
}

/// Gets the blob through a proxy that cuts. Answers what came of the reply, and whether a second try came through.
#[track_caller]
fn check_cut(chaos: Chaos, expected_bytes: std::ops::RangeInclusive<u64>, again: bool) {
    let (_registry, proxy, path, content) = made(200_000);
    proxy.set(chaos);
    let http = RegistryHttp::new(proxy.port());
    assert!(http.request("GET", &path, &[], b"").is_err(), "{chaos:?}");
    assert!(expected_bytes.contains(&proxy.reply_bytes()), "{chaos:?}: {}", proxy.reply_bytes());
    assert_eq!(proxy.happened().len(), 1);
    let second = http.request("GET", &path, &[], b"");
    assert_eq!(second.is_ok_and(|reply| reply.body == content), again, "{chaos:?}");
    proxy.set(Chaos::Calm);
    assert_eq!(http.get(&path).body, content, "{chaos:?}");
}

#[test]
fn cuts_are_where_they_are_said_to_be() {
    check_cut(Chaos::CutReplies { after: 1000, then: Then::Calm }, 1000..=1000, true);
    check_cut(Chaos::CutReplies { after: 1000, then: Then::Refuse }, 1000..=1000, false);
    // The head comes before the body.
    let body = |then| Chaos::CutReplyBody { percent: 90, size_bytes_min: 1000, then };
    check_cut(body(Then::Calm), 180_050..=180_400, true);
    check_cut(body(Then::Refuse), 180_050..=180_400, false);
    check_cut(Chaos::CutRequests { after: 10, then: Then::Calm }, 0..=0, true);
    check_cut(Chaos::CutAtRequest { method: "GET", number: 1, then: Then::Calm }, 0..=0, true);

    let (registry, proxy, _, content) = made(100_000);
    let http = RegistryHttp::new(proxy.port());
    proxy.set(Chaos::CutRequests { after: 50_000, then: Then::Calm });
    let upload = registry.http().request("POST", "/v2/a/blobs/uploads/", &[], b"").expect("a reply");
    let location = upload.header("location").expect("a location");
    let path = location.strip_prefix(&registry.base_url()).expect("a location here");
    assert!(http.request("PATCH", path, &[], &content).is_err());
    let status = registry.http().get(path);
    let range = status.header("range").expect("a range");
    assert!(range.starts_with("0-49"), "{range}");
}

#[test]
fn every_mischief_happens() {
    let (_registry, proxy, path, content) = made(100_000);
    let http = RegistryHttp::new(proxy.port());
    let (mut told, mut right) = (String::new(), 0);
    for seed in 0..60 {
        proxy.set(Chaos::Seeded { seed, budget: 3 });
        let upload = http.request("POST", "/v2/a/blobs/uploads/?digest=sha256:1", &[], &content);
        drop(upload);
        // The request is whole at least where nothing happened to it.
        if http.request("GET", &path, &[], b"").is_ok_and(|reply| reply.body == content) {
            right += 1;
        }
        assert!(proxy.happened().len() <= 3, "{:?}", proxy.happened());
        told.push_str(&proxy.happened().join("\n"));
    }
    let kinds = ["refused", ": cut", "delayed", "altered", "repeated", "dropped", "another order", "put in"];
    for kind in kinds {
        assert!(told.contains(kind), "{kind} never happened");
    }
    assert!((5..55).contains(&right), "{right} of 60 came through");
    proxy.set(Chaos::Calm);
    assert_eq!(http.get(&path).body, content);
}
