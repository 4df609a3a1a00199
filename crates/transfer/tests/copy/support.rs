//! A layout that is written by hand, and how copies are made and compared.

use std::fs;
use std::path::{Path, PathBuf};

use mica_registry_client::{Client, Settings};
use mica_testkit::images::{self, TestImage, TestIndex, TestLayer, digest, tar_of};
use mica_transfer::{CopyError, CopyOptions, Place, copy};
use serde_json::{Value, json};
use tempfile::TempDir;

/// An OCI layout that says whatever it is told to.
pub struct Layout {
    pub dir: TempDir,
}

impl Layout {
    pub fn new() -> Layout {
        let layout = Layout { dir: tempfile::tempdir().unwrap() };
        layout.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
        layout.set_index(&[]);
        layout
    }

    /// The place, with `:TAG` if there is one.
    pub fn place(&self, tag: &str) -> String {
        place("oci", self.dir.path(), tag)
    }

    pub fn write(&self, path: &str, bytes: &[u8]) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub fn set_index(&self, entries: &[Value]) {
        let index = json!({ "schemaVersion": 2, "manifests": entries });
        self.write("index.json", index.to_string().as_bytes());
    }

    /// The entries of `index.json`.
    pub fn index(&self) -> Vec<Value> {
        let bytes = fs::read(self.dir.path().join("index.json")).unwrap();
        let index: Value = serde_json::from_slice(&bytes).unwrap();
        index["manifests"].as_array().unwrap().clone()
    }

    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.dir.path().join("blobs").join(digest.replace(':', "/"))
    }

    pub fn has(&self, digest: &str) -> bool {
        self.blob_path(digest).exists()
    }
}

impl images::Place for Layout {
    fn place_blob(&self, _: &str, bytes: &[u8]) {
        self.write(&format!("blobs/{}", digest(bytes).replace(':', "/")), bytes);
    }

    fn place_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        self.place_blob(repository, bytes);
        if reference.contains(':') {
            return;
        }
        let mut entry = images::descriptor(media_type, bytes);
        entry["annotations"] = json!({ "org.opencontainers.image.ref.name": reference });
        let mut entries = self.index();
        entries.push(entry);
        self.set_index(&entries);
    }
}

/// `scheme:path[:tag]`
pub fn place(scheme: &str, path: &Path, tag: &str) -> String {
    let tag = if tag.is_empty() { String::new() } else { format!(":{tag}") };
    format!("{scheme}:{}{tag}", path.display())
}

/// A client for tests that speak to no registry, or to one on loopback.
pub fn client() -> Client {
    Client::new(Settings::default())
}

/// Copies; answers the digest.
pub fn try_copy(from: &str, to: &str, platform: Option<&str>) -> Result<String, CopyError> {
    let options = CopyOptions { platform: platform.map(|name| name.parse().unwrap()), ..Default::default() };
    let place = |text: &str| Place::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
    copy(&client(), &place(from), &place(to), &options, &|_| {}).map(|copied| copied.digest.to_string())
}

pub fn must_copy(from: &str, to: &str, platform: Option<&str>) -> String {
    try_copy(from, to, platform).unwrap_or_else(|error| panic!("{from} to {to}: {error}"))
}

/// Checks that a copy fails with a message that has this in it.
pub fn check_fails(from: &str, to: &str, platform: Option<&str>, expect: &str) {
    match try_copy(from, to, platform) {
        Ok(digest) => panic!("{from} to {to} gave {digest}, not: {expect}"),
        Err(error) => assert!(error.to_string().contains(expect), "{error}\nis not: {expect}"),
    }
}

pub fn layer(name: &str) -> TestLayer {
    TestLayer::gzip(&tar_of(&[(name, name.as_bytes())]))
}

pub fn image(platform: &str) -> TestImage {
    TestImage::oci(platform, vec![layer("shared"), layer(platform), TestLayer::zstd(&tar_of(&[("z", b"z")]))])
}

/// Two platforms, an attestation about one of them, and an artifact.
pub fn index() -> TestIndex {
    let amd64 = image("linux/amd64");
    let mut attestation = TestImage::oci("unknown/unknown", vec![layer("attestation")]);
    attestation.platform = json!({ "os": "unknown", "architecture": "unknown" });
    let about = amd64.digest();
    let artifact = TestImage::artifact("application/vnd.example+json", b"{\"a\":1}");
    let mut index = TestIndex::oci(vec![amd64, image("linux/arm/v7"), attestation, artifact]);
    let mut value: Value = serde_json::from_slice(&index.bytes).unwrap();
    value["manifests"][2]["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": about,
    });
    index.bytes = serde_json::to_vec_pretty(&value).unwrap();
    index
}

/// All digests below an index, with its own.
pub fn digests(index: &TestIndex) -> Vec<String> {
    let mut digests = vec![index.digest()];
    for image in &index.images {
        digests.extend([image.digest(), image.id()]);
        digests.extend(image.layers.iter().map(TestLayer::digest));
    }
    digests.sort();
    digests.dedup();
    digests
}

/// Every file below a directory, relative, sorted.
pub fn files_below(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => waiting.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}
