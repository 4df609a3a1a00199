//! The fake registry keeps to the specification where it is told nothing else, and each fault is what it says.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use mica_testkit::{
    Certificates, FakeAuth, FakeOptions, FakeRegistry, Fault, Locations, PASSWORD, RegistryHttp, TokenRules,
    USER, When, sha256,
};

/// A whole conversation: a blob and a manifest go in and come out.
fn check_conversation(options: FakeOptions<'_>) {
    let registry = FakeRegistry::start(options);
    let http = registry.http();
    let digest = http.put_blob("some/thing", b"hello world");
    let manifest = format!("{{\"layers\":[{{\"digest\":\"{digest}\"}}]}}");
    let named = http.put_manifest("some/thing", "1", "application/x", manifest.as_bytes());
    for reference in ["1", named.as_str()] {
        let reply = http.manifest("some/thing", reference);
        assert_eq!(reply.text(), manifest);
        assert_eq!(reply.header("docker-content-digest"), Some(named.as_str()));
        assert_eq!(reply.header("content-type"), Some("application/x"));
    }
    let path = format!("/v2/some/thing/blobs/{digest}");
    assert_eq!(http.get(&path).text(), "hello world");
    let reply = http.request("GET", &path, &[("Range", "bytes=6-")], b"").expect("a reply");
    assert_eq!((reply.status, reply.text().as_str()), (206, "world"));
    assert_eq!(reply.header("content-range"), Some("bytes 6-10/11"));
    let reply = http.request("GET", &path, &[("Range", "bytes=11-")], b"").expect("a reply");
    assert_eq!(reply.status, 416);
    let reply = http.request("HEAD", &path, &[], b"").expect("a reply");
    assert_eq!((reply.status, reply.header("content-length")), (200, Some("11")));

    let mount = format!("/v2/other/blobs/uploads/?mount={digest}&from=some%2Fthing");
    assert_eq!(http.request("POST", &mount, &[], b"").expect("a reply").status, 201);
    assert_eq!(registry.blob("other", &digest).as_deref(), Some(&b"hello world"[..]));
    assert_eq!(http.manifest("some/thing", "2").status, 404);
    assert_eq!(registry.open_uploads(), 0);
}

#[test]
fn a_conversation_without_faults() {
    let certificates = Certificates::new();
    check_conversation(FakeOptions::default());
    check_conversation(FakeOptions { auth: FakeAuth::Basic, ..FakeOptions::default() });
    check_conversation(FakeOptions { locations: Locations::Relative, ..FakeOptions::default() });
    check_conversation(FakeOptions { locations: Locations::Changing, ..FakeOptions::default() });
    let tls = Some(&certificates);
    check_conversation(FakeOptions { tls, client_certificate: true, ..FakeOptions::default() });
}

#[test]
fn uploads_in_pieces() {
    let registry = FakeRegistry::new();
    let http = registry.http();
    let begin = || {
        let reply = http.request("POST", "/v2/a/blobs/uploads/", &[], b"").expect("a reply");
        let location = reply.header("location").expect("a location");
        location.strip_prefix(&registry.base_url()).expect("a location here").to_owned()
    };
    let digest = format!("sha256:{}", sha256(b"abcdef"));
    let path = begin();
    let patch = |path: &str, range: &str, body: &[u8]| {
        http.request("PATCH", path, &[("Content-Range", range)], body).map(|reply| (reply.status, reply))
    };
    assert_eq!(patch(&path, "0-2", b"abc").expect("a reply").0, 202);
    let (status, reply) = patch(&path, "4-5", b"ef").expect("a reply");
    assert_eq!((status, reply.header("range")), (416, Some("0-2")));
    let reply = http.request("GET", &path, &[], b"").expect("a reply");
    assert_eq!((reply.status, reply.header("range")), (204, Some("0-2")));
    // The connection breaks after two more bytes, which are kept.
    registry.fault(When::is("PATCH", "").once(), Fault::CutRequest { after: 2, keeps: true });
    assert!(patch(&path, "3-5", b"def").is_err());
    let put = format!("{path}?digest={digest}");
    let wrong = http.request("PUT", &put, &[("Content-Range", "3-5")], b"def").expect("a reply");
    assert_eq!((wrong.status, wrong.header("range")), (416, Some("0-4")));
    assert_eq!(http.request("PUT", &put, &[], b"f").expect("a reply").status, 201);
    assert_eq!(registry.blob("a", &digest).as_deref(), Some(&b"abcdef"[..]));

    let path = begin();
    registry.fault(When::is("PATCH", "").once(), Fault::CutRequest { after: 2, keeps: false });
    assert!(patch(&path, "0-2", b"abc").is_err());
    let reply = http.request("GET", &path, &[], b"").expect("a reply");
    assert_eq!(reply.header("range"), Some("0-0"));
    let wrong = http.request("PUT", &format!("{path}?digest={digest}"), &[], b"x").expect("a reply");
    assert_eq!(wrong.status, 400);
    assert_eq!(registry.open_uploads(), 0);

    let mut stream = TcpStream::connect(("127.0.0.1", registry.port())).expect("a connection");
    let path = begin();
    let head = format!("PATCH {path} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n");
    stream.write_all(format!("{head}3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n").as_bytes()).expect("a request");
    // The same connection goes on.
    let put = format!("PUT {path}?digest={digest} HTTP/1.1\r\nConnection: close\r\n\r\n");
    stream.write_all(put.as_bytes()).expect("a request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("replies");
    assert!(text.starts_with("HTTP/1.1 202 ") && text.contains("HTTP/1.1 201 "), "{text}");
}

#[test]
fn pages_of_tags() {
    let registry = FakeRegistry::start(FakeOptions { page_size: 2, ..FakeOptions::default() });
    for tag in ["c", "a", "b"] {
        registry.put_manifest("x/y", tag, "application/x", b"{}");
    }
    let http = registry.http();
    let first = http.get("/v2/x/y/tags/list");
    assert_eq!(first.text(), "{\"tags\":[\"a\",\"b\"],\"name\":\"x/y\"}");
    assert_eq!(first.header("link"), Some("</v2/x/y/tags/list?last=b&n=2>; rel=\"next\""));
    let second = http.get("/v2/x/y/tags/list?last=b&n=2");
    assert_eq!(
        (second.text().as_str(), second.header("link")),
        ("{\"tags\":[\"c\"],\"name\":\"x/y\"}", None)
    );
    assert_eq!(http.get("/v2/none/tags/list").status, 404);
}

#[test]
fn tokens_are_given_and_expire() {
    let rules = TokenRules { uses: Some(2), refresh: true, anonymous_pull: false, ..TokenRules::default() };
    let registry =
        FakeRegistry::start(FakeOptions { auth: FakeAuth::Token(rules), ..FakeOptions::default() });
    registry.put_manifest("a/b", "1", "application/x", b"{}");
    let stranger = RegistryHttp::new(registry.port());
    let refused = stranger.get("/v2/a/b/manifests/1");
    let challenge = format!(
        "Bearer realm=\"{}/token\",service=\"fake\",scope=\"repository:a/b:pull\"",
        registry.base_url()
    );
    assert_eq!((refused.status, refused.header("www-authenticate")), (401, Some(challenge.as_str())));

    let token_of = |http: &RegistryHttp, query: &str| {
        let reply = http.get(&format!("/token?service=fake{query}"));
        let value: serde_json::Value = serde_json::from_slice(&reply.body).expect("JSON");
        (
            value["token"].as_str().unwrap_or_default().to_owned(),
            value["refresh_token"].as_str().map(str::to_owned),
        )
    };
    let with_token = |token: &str| {
        let text = format!("Bearer {token}");
        let reply = stranger.request("GET", "/v2/a/b/manifests/1", &[("Authorization", &text)], b"");
        reply.expect("a reply").status
    };
    let (token, refresh) = token_of(&registry.http(), "&scope=repository:a/b:pull&offline_token=true");
    assert_eq!([with_token(&token), with_token(&token), with_token(&token)], [200, 200, 401]);
    let (token, _) = token_of(&stranger, "&scope=repository:a/b:pull");
    assert_eq!(with_token(&token), 401);
    let wrong = RegistryHttp::new(registry.port()).with_login(USER, "wrong");
    assert_eq!(wrong.get("/token?scope=repository:a/b:pull").status, 401);

    let post = |form: String| stranger.request("POST", "/token", &[], form.as_bytes()).expect("a reply");
    let scope = "scope=repository%3Aa%2Fb%3Apull";
    let reply =
        post(format!("grant_type=refresh_token&refresh_token={}&{scope}", refresh.expect("a refresh token")));
    assert_eq!(reply.status, 200, "{}", reply.text());
    assert_eq!(post(format!("grant_type=password&username={USER}&password={PASSWORD}&{scope}")).status, 200);
    assert_eq!(post(format!("grant_type=password&username={USER}&password=wrong&{scope}")).status, 401);
}

#[test]
fn redirects_lead_elsewhere() {
    let elsewhere = FakeRegistry::new();
    let options = FakeOptions { redirect_blobs: Some(elsewhere.base_url()), ..FakeOptions::default() };
    let registry = FakeRegistry::start(options);
    let reply = registry.http().get("/v2/a/blobs/sha256:1");
    assert_eq!(reply.status, 307);
    assert_eq!(
        reply.header("location"),
        Some(format!("{}/v2/a/blobs/sha256:1", elsewhere.base_url()).as_str())
    );
}

/// The raw bytes of the answer to a GET of a blob of the ten digits, up to `limit` or the end.
fn raw(registry: &FakeRegistry, head: &str, limit: u64) -> String {
    let digest = registry.put_blob("a", b"0123456789");
    let mut stream = TcpStream::connect(("127.0.0.1", registry.port())).expect("a connection");
    // Only an answer that is meant to stall takes that long.
    stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    let request = format!("GET /v2/a/blobs/{digest} HTTP/1.1\r\nConnection: close\r\n{head}\r\n");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut bytes = Vec::new();
    let _ = stream.take(limit).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

#[track_caller]
fn check(fault: Fault, expected: &[&str]) {
    check_range(fault, "", expected);
}

/// The answer to a request that meets the fault has these parts; it begins and ends with the first and the last of them.
#[track_caller]
fn check_range(fault: Fault, head: &str, expected: &[&str]) {
    let registry = FakeRegistry::new();
    registry.fault(When::get("/blobs/"), fault.clone());
    let answer = raw(&registry, head, 100_000);
    let fits = expected.iter().all(|part| answer.contains(part))
        && answer.starts_with(expected[0])
        && expected.last().is_some_and(|last| answer.ends_with(last));
    assert!(fits, "{fault:?}: {:?}", &answer[..answer.len().min(2000)]);
}

#[test]
fn each_fault_is_what_it_says() {
    const OK: &str = "HTTP/1.1 200 OK\r\n";
    const LENGTH: &str = "\r\nContent-Length: 10\r\n\r\n";
    check(Fault::Slow(3, Duration::from_millis(1)), &[OK, LENGTH, "\r\n0123456789"]);
    check(Fault::Cut(4), &[OK, LENGTH, "\r\n0123"]);
    check(Fault::Stall(4), &[OK, LENGTH, "\r\n0123"]);
    check(Fault::Flip(1), &[OK, LENGTH, "\r\n0d23456789"]);
    check(Fault::StartOver(4), &[OK, LENGTH, "\r\n0123012345"]);
    check(Fault::Truncate(4), &[OK, "Content-Length: 4\r\n", "\r\n0123"]);
    check(Fault::Append(2), &[OK, "Content-Length: 12\r\n", "\r\n0123456789++"]);
    check(Fault::Trail(2), &[OK, LENGTH, "\r\n0123456789++"]);
    check(Fault::NoLength, &[OK, "Connection: close\r\n\r\n0123456789"]);
    check(Fault::Chunked, &[OK, "Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"]);
    check(Fault::Endless, &[OK, "Connection: close\r\n\r\n0123456789\0\0", "\0\0\0"]);
    check(Fault::EndlessHeaders, &[OK, "X-Filler-9: fff", ""]);
    check(Fault::Close, &[""]);
    check(Fault::LoseReply, &[""]);
    check(Fault::Body(b"other".to_vec()), &[OK, "Content-Length: 5\r\n", "\r\nother"]);
    check(Fault::Header("Content-Type", None), &["HTTP/1.1 200 OK\r\nDocker-Content-Digest", LENGTH, "9"]);
    check(Fault::html(), &["HTTP/1.1 200 OK\r\nContent-Type: text/html", "</html>"]);
    check(Fault::too_many_requests("3"), &["HTTP/1.1 429 ", "\r\nRetry-After: 3\r\n", "]}"]);
    check(Fault::redirect("http://x/"), &["HTTP/1.1 307 ", "\r\nLocation: http://x/\r\n", "\r\n\r\n"]);
    let range = "Range: bytes=4-5\r\n";
    check_range(Fault::IgnoreRange, range, &[OK, LENGTH, "\r\n0123456789"]);
    check_range(
        Fault::WrongContentRange,
        range,
        &["HTTP/1.1 206 ", "Content-Range: bytes 5-6/10\r\n", "\r\n45"],
    );
    check_range(Fault::Cut(1), range, &["HTTP/1.1 206 ", "Content-Range: bytes 4-5/10\r\n", "\r\n4"]);
}

#[test]
fn the_log_tells_what_came_and_what_went() {
    let registry = FakeRegistry::new();
    registry.fault(When::get("/blobs/").once(), Fault::Cut(4));
    raw(&registry, "X-Test: 1\r\n", 1000);
    raw(&registry, "", 1000);
    let requests = registry.requests();
    assert_eq!(requests.len(), 2);
    assert_eq!((requests[0].header("x-test"), requests[0].sent_bytes), (Some("1"), 4));
    assert_eq!((requests[1].status, requests[1].sent_bytes), (200, 10));
    assert_eq!((registry.count("GET", "/blobs/"), registry.sent_bytes("/blobs/")), (2, 14));
}
