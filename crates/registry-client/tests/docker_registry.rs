//! Against the registry that most people run: Debian's `docker-registry`.

mod common;

use std::io::Read;

use common::*;
use mica_oci::{Digest, Reference, media_type};
use mica_registry_client::RegistryError;
use mica_testkit::{Certificates, DockerRegistry, DockerRegistryOptions, NEEDS_DOCKER_REGISTRY, missing};

#[test]
fn fetches_from_docker_registry() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        println!("skipped: {reason}");
        return;
    }
    let certificates = Certificates::new();
    for (login, tls) in
        [(false, None), (true, None), (false, Some(&certificates)), (true, Some(&certificates))]
    {
        let registry = DockerRegistry::start(DockerRegistryOptions { login, tls, ..Default::default() });
        let bytes = noise(3 << 20);
        registry.http().put_blob("a/b", &bytes);
        registry.http().put_blob("a/b", b"{}");
        registry.http().put_blob("a/b", b"layer");
        let put = registry.http().request(
            "PUT",
            "/v2/a/b/manifests/v1",
            &[("Content-Type", media_type::OCI_MANIFEST)],
            &manifest(),
        );
        assert_eq!(put.unwrap().status, 201);
        let auths = format!(r#"{{"auths":{{"{}":{{"auth":"dGVzdGVyOnN3b3JkZmlzaA=="}}}}}}"#, registry.host());
        let (client, _dir) = client_with_login(&auths);
        let name = |rest: &str| Reference::parse(&format!("{}/{rest}", registry.host())).unwrap();
        let head = client.head_manifest(&name("a/b:v1")).unwrap().unwrap();
        assert_eq!(head.digest, Digest::sha256(&manifest()));
        assert_eq!(client.head_manifest(&name("a/b:v2")).unwrap(), None);
        assert_eq!(client.manifest(&name("a/b:v1")).unwrap().bytes, manifest());
        assert_eq!(client.tags(&name("a/b")).unwrap(), ["v1"]);
        for offset in [0, 1, 1 << 20] {
            let mut found = Vec::new();
            client
                .blob(&name("a/b"), &layer(&bytes), offset as u64)
                .unwrap()
                .read_to_end(&mut found)
                .unwrap();
            assert!(found == bytes[offset..]);
        }
        if login {
            let error = common::client().head_manifest(&name("a/b:v1")).unwrap_err();
            assert!(matches!(error, RegistryError::Denied { .. }), "{error:?}");
        }
        if !login && tls.is_none() {
            assert_eq!(registry.count("HEAD", "/v2/a/b/manifests/v1"), 1);
            assert!(
                registry.requests().iter().all(|access| access.path != "/v2/"),
                "nobody is asked whether he is there"
            );
        }
    }
}
