//! What the tests of this room share.

#![allow(dead_code, reason = "each test file uses some of it")]

use std::time::Duration;

use mica_oci::{Descriptor, Digest, Reference, media_type};
use mica_registry_client::{Client, Credentials, Paths, Patience, Registries, Settings};
use mica_testkit::FakeRegistry;
use tempfile::TempDir;

/// Tries as often as by default, but in a hurry.
pub fn hurry() -> Patience {
    Patience {
        connect: Duration::from_secs(5),
        idle: Duration::from_millis(500),
        answer: Duration::from_secs(5),
        delay_first: Duration::from_millis(2),
        delay_max: Duration::from_millis(20),
        retry_after_max: Duration::from_secs(3),
        total: Duration::from_secs(20),
        ..Patience::default()
    }
}

/// A client of nobody, with no settings of this machine.
pub fn client() -> Client {
    Client::new(Settings { patience: hurry(), ..Settings::default() })
}

/// A client with these settings of registries.
pub fn client_with_conf(text: &str) -> (Client, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("registries.conf");
    std::fs::write(&path, text).expect("settings");
    let paths = Paths { registries_conf: vec![path], ..Paths::default() };
    let registries = Registries::read(paths).expect("settings that can be read");
    (Client::new(Settings { registries, patience: hurry(), ..Settings::default() }), dir)
}

/// A client with this `config.json`.
pub fn client_with_login(text: &str) -> (Client, TempDir) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("config.json");
    std::fs::write(&path, text).expect("settings");
    let credentials = Credentials::of_docker_config(&path);
    (Client::new(Settings { credentials, patience: hurry(), ..Settings::default() }), dir)
}

pub fn reference(registry: &FakeRegistry, rest: &str) -> Reference {
    Reference::parse(&format!("{}/{rest}", registry.host())).expect("a reference")
}

/// Bytes that differ everywhere.
pub fn noise(size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(size_bytes + 8);
    while bytes.len() < size_bytes {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(size_bytes);
    bytes
}

pub fn layer(bytes: &[u8]) -> Descriptor {
    Descriptor::of(media_type::OCI_LAYER, bytes)
}

/// A manifest of one layer.
pub fn manifest() -> Vec<u8> {
    mica_oci::Manifest::oci(Descriptor::of(media_type::OCI_CONFIG, b"{}"), vec![layer(b"layer")])
        .to_canonical_json()
}

/// Puts a manifest under `a:latest` and answers its digest.
pub fn put_manifest(registry: &FakeRegistry, bytes: &[u8]) -> Digest {
    let digest = registry.put_manifest("a", "latest", media_type::OCI_MANIFEST, bytes);
    Digest::parse(&digest).expect("a digest")
}

/// Methods and paths of all requests so far.
pub fn asked(registry: &FakeRegistry) -> Vec<String> {
    registry.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
}
