//! The runner of docker-registry in all its forms.

use mica_testkit::{
    Certificates, DockerRegistry, DockerRegistryOptions, NEEDS_DOCKER_REGISTRY, RegistryHttp, missing,
};

fn check(options: DockerRegistryOptions<'_>) {
    let registry = DockerRegistry::start(options);
    let http = registry.http();
    let digest = http.put_blob("some/thing", b"hello");
    assert_eq!(http.get(&format!("/v2/some/thing/blobs/{digest}")).text(), "hello");
    assert_eq!(std::fs::read(registry.blob_file(&digest)).expect("the file of a blob"), b"hello");
    assert_eq!(http.get("/v2/_catalog").text().trim(), "{\"repositories\":[\"some/thing\"]}");
    assert_eq!(registry.count("GET", "/blobs/sha256:"), 1, "{:?}", registry.requests());

    let removed =
        http.request("DELETE", &format!("/v2/some/thing/blobs/{digest}"), &[], b"").expect("a reply");
    assert_eq!(removed.status, if options.delete { 202 } else { 405 });

    let stranger = RegistryHttp::new(registry.port()).request("GET", "/v2/", &[], b"");
    let status = stranger.map(|reply| reply.status).unwrap_or(0);
    let expected = match (options.tls.is_some(), options.login) {
        (true, _) => 400,
        (false, true) => 401,
        (false, false) => 200,
    };
    assert_eq!(status, expected);
    assert!(registry.log().contains("listening on"));
}

#[test]
fn docker_registry_runs_with_and_without_login_and_tls() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let certificates = Certificates::new();
    let tls = Some(&certificates);
    check(DockerRegistryOptions::default());
    check(DockerRegistryOptions { login: true, delete: true, ..Default::default() });
    check(DockerRegistryOptions { tls, ..Default::default() });
    check(DockerRegistryOptions { tls, login: true, client_certificate: true, ..Default::default() });
}
