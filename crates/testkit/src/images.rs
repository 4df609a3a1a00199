//! Images made without a store: layers in every form, manifests, configs and indexes, and how they get into a registry.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::tar::{Entry, Writer};
use crate::{FakeRegistry, Flattened, Random, RegistryHttp, Tree, sha256};

/// Media types of the two families.
pub mod media_type {
    /// OCI's index.
    pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// OCI's manifest.
    pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// OCI's config.
    pub const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    /// OCI's layer, not compressed.
    pub const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    /// docker's index.
    pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// docker's manifest.
    pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// docker's config.
    pub const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// docker's layer, gzip.
    pub const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    /// docker's layer that comes from elsewhere.
    pub const DOCKER_FOREIGN_LAYER: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
}

/// `sha256:` and the digest of bytes.
pub fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256(bytes))
}

/// Where blobs and manifests can be put: into a registry over HTTP, or into the fake one's memory.
pub trait Place {
    /// Puts a blob.
    fn place_blob(&self, repository: &str, bytes: &[u8]);
    /// Puts a manifest or index under a tag or digest.
    fn place_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]);
}

impl Place for FakeRegistry {
    fn place_blob(&self, repository: &str, bytes: &[u8]) {
        self.put_blob(repository, bytes);
    }

    fn place_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        self.put_manifest(repository, reference, media_type, bytes);
    }
}

impl Place for RegistryHttp {
    fn place_blob(&self, repository: &str, bytes: &[u8]) {
        self.put_blob(repository, bytes);
    }

    fn place_manifest(&self, repository: &str, reference: &str, media_type: &str, bytes: &[u8]) {
        self.put_manifest(repository, reference, media_type, bytes);
    }
}

/// A tar of files of root's, in this order.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::default();
    for (path, content) in files {
        writer.add(Entry::file(path), content);
    }
    writer.finish()
}

/// A tar of one file `name` of so many bytes that no compression makes smaller, the same for the same seed.
pub fn random_tar(name: &str, size_bytes: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut content = Vec::with_capacity(size_bytes + 8);
    while content.len() < size_bytes {
        content.extend_from_slice(&random.next_u64().to_le_bytes());
    }
    content.truncate(size_bytes);
    tar_of(&[(name, &content)])
}

/// A layer as a registry has it.
#[derive(Debug, Clone)]
pub struct TestLayer {
    /// What is fetched.
    pub blob: Vec<u8>,
    /// What it unpacks to.
    pub tar: Vec<u8>,
    /// The digest of the tar.
    pub diff_id: String,
    /// What the manifest calls it.
    pub media_type: String,
    /// Where else it can be fetched.
    pub urls: Vec<String>,
}

impl TestLayer {
    /// OCI's, gzip.
    pub fn gzip(tar: &[u8]) -> TestLayer {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(tar).expect("compressing");
        TestLayer::new(tar, encoder.finish().expect("compressing"), "+gzip")
    }

    /// OCI's, zstd.
    pub fn zstd(tar: &[u8]) -> TestLayer {
        TestLayer::new(tar, zstd::encode_all(tar, 1).expect("compressing"), "+zstd")
    }

    /// OCI's, not compressed.
    pub fn plain(tar: &[u8]) -> TestLayer {
        TestLayer::new(tar, tar.to_vec(), "")
    }

    /// docker's, gzip, that registries do not have: it comes from these URLs.
    pub fn foreign(tar: &[u8], urls: &[&str]) -> TestLayer {
        TestLayer {
            media_type: media_type::DOCKER_FOREIGN_LAYER.into(),
            urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            ..TestLayer::gzip(tar)
        }
    }

    /// The digest of what is fetched.
    pub fn digest(&self) -> String {
        digest(&self.blob)
    }

    /// As it stands in a manifest.
    pub fn descriptor(&self) -> Value {
        let mut value = descriptor(&self.media_type, &self.blob);
        if !self.urls.is_empty() {
            value["urls"] = json!(self.urls);
        }
        value
    }

    fn new(tar: &[u8], blob: Vec<u8>, suffix: &str) -> TestLayer {
        let media_type = format!("{}{suffix}", media_type::OCI_LAYER);
        TestLayer { blob, tar: tar.to_vec(), diff_id: digest(tar), media_type, urls: Vec::new() }
    }
}

/// `{"mediaType":…,"digest":…,"size":…}` of bytes.
pub fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() })
}

/// An image of one platform. Its fields can be changed, to make it wrong, before it is put.
#[derive(Debug, Clone)]
pub struct TestImage {
    /// The config's bytes.
    pub config: Vec<u8>,
    /// The lowest first.
    pub layers: Vec<TestLayer>,
    /// The manifest's bytes.
    pub manifest: Vec<u8>,
    /// The manifest's media type.
    pub media_type: String,
    /// As it stands in an index, such as `{"os":"linux","architecture":"amd64"}`.
    pub platform: Value,
}

impl TestImage {
    /// OCI's, for a platform such as `linux/arm/v7`.
    pub fn oci(platform: &str, layers: Vec<TestLayer>) -> TestImage {
        TestImage::new(platform, layers, [media_type::OCI_MANIFEST, media_type::OCI_CONFIG], &json!({}))
    }

    /// docker's: media types of docker for manifest, config and gzip layers.
    pub fn docker(platform: &str, layers: Vec<TestLayer>) -> TestImage {
        TestImage::of_docker(platform, layers, &json!({}))
    }

    /// Windows': docker's, with `os.version`.
    pub fn windows(layers: Vec<TestLayer>) -> TestImage {
        TestImage::of_docker("windows/amd64", layers, &json!({ "os.version": "10.0.20348.2700" }))
    }

    fn of_docker(platform: &str, mut layers: Vec<TestLayer>, more: &Value) -> TestImage {
        for layer in layers.iter_mut().filter(|layer| layer.media_type.ends_with("+gzip")) {
            layer.media_type = media_type::DOCKER_LAYER.into();
        }
        TestImage::new(platform, layers, [media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG], more)
    }

    /// For this machine, OCI, of layers of so many random bytes each, gzip.
    pub fn random(layer_sizes: &[usize], seed: u64) -> TestImage {
        let layers = layer_sizes.iter().enumerate().map(|(position, size)| {
            let tar = random_tar(&format!("file-{position}"), *size, seed * 1000 + position as u64);
            TestLayer::gzip(&tar)
        });
        TestImage::oci(&this_platform(), layers.collect())
    }

    /// OCI's artifact: a manifest with the empty config and one blob that is no layer.
    pub fn artifact(artifact_type: &str, blob: &[u8]) -> TestImage {
        let config = b"{}".to_vec();
        let layer = TestLayer {
            blob: blob.to_vec(),
            tar: blob.to_vec(),
            diff_id: digest(blob),
            media_type: artifact_type.into(),
            urls: Vec::new(),
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "artifactType": artifact_type,
            "config": descriptor("application/vnd.oci.empty.v1+json", &config),
            "layers": [layer.descriptor()],
        });
        TestImage {
            config,
            layers: vec![layer],
            manifest: manifest.to_string().into_bytes(),
            media_type: media_type::OCI_MANIFEST.into(),
            platform: Value::Null,
        }
    }

    fn new(platform: &str, layers: Vec<TestLayer>, types: [&str; 2], more: &Value) -> TestImage {
        let mut parts = platform.split('/');
        let (os, architecture) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let mut place = json!({ "os": os, "architecture": architecture });
        if let Some(variant) = parts.next() {
            place["variant"] = variant.into();
        }
        for (key, value) in more.as_object().into_iter().flatten() {
            place[key] = value.clone();
        }
        let diff_ids: Vec<&str> = layers.iter().map(|layer| layer.diff_id.as_str()).collect();
        let history: Vec<Value> = (0..layers.len())
            .map(|number| json!({ "created": "2026-01-01T00:00:00Z", "created_by": format!("layer {number}") }))
            .collect();
        let mut config = place.clone();
        config["created"] = "2026-01-01T00:00:00Z".into();
        config["config"] = json!({ "Cmd": ["/bin/true"], "Env": ["A=b"] });
        config["rootfs"] = json!({ "type": "layers", "diff_ids": diff_ids });
        config["history"] = history.into();
        let mut image = TestImage {
            config: config.to_string().into_bytes(),
            layers,
            manifest: Vec::new(),
            media_type: types[0].into(),
            platform: place,
        };
        image.manifest = image.manifest_value(types[1]).to_string().into_bytes();
        image
    }

    /// Changes the manifest as JSON.
    pub fn with_manifest(mut self, change: impl FnOnce(&mut Value)) -> TestImage {
        let mut value = serde_json::from_slice(&self.manifest).expect("a manifest in JSON");
        change(&mut value);
        self.manifest = value.to_string().into_bytes();
        self
    }

    /// Changes the config as JSON, and what the manifest says of it.
    pub fn with_config(mut self, change: impl FnOnce(&mut Value)) -> TestImage {
        let mut value = serde_json::from_slice(&self.config).expect("a config in JSON");
        change(&mut value);
        self.config = value.to_string().into_bytes();
        let (digest, size) = (digest(&self.config), self.config.len());
        self.with_manifest(|manifest| {
            manifest["config"]["digest"] = digest.into();
            manifest["config"]["size"] = size.into();
        })
    }

    /// The digest of the manifest.
    pub fn digest(&self) -> String {
        digest(&self.manifest)
    }

    /// The image ID: the digest of the config.
    pub fn id(&self) -> String {
        digest(&self.config)
    }

    /// Bytes of all layers as they are fetched.
    pub fn layers_size_bytes(&self) -> u64 {
        self.layers.iter().map(|layer| layer.blob.len() as u64).sum()
    }

    /// Every path of it.
    pub fn tree(&self) -> Tree {
        let mut flattened = Flattened::default();
        for layer in &self.layers {
            flattened.apply(&layer.tar[..]).expect("a layer of a test");
        }
        flattened.finish()
    }

    /// As it stands in an index.
    pub fn descriptor(&self) -> Value {
        let mut value = descriptor(&self.media_type, &self.manifest);
        if !self.platform.is_null() {
            value["platform"] = self.platform.clone();
        }
        value
    }

    /// Puts its blobs (but those that come from elsewhere), and its manifest under a tag or, if that is empty, its digest.
    pub fn put(&self, place: &impl Place, repository: &str, tag: &str) {
        place.place_blob(repository, &self.config);
        for layer in self.layers.iter().filter(|layer| layer.urls.is_empty()) {
            place.place_blob(repository, &layer.blob);
        }
        let digest = self.digest();
        let reference = if tag.is_empty() { &digest } else { tag };
        place.place_manifest(repository, reference, &self.media_type, &self.manifest);
    }

    fn manifest_value(&self, config_type: &str) -> Value {
        json!({
            "schemaVersion": 2,
            "mediaType": self.media_type,
            "config": descriptor(config_type, &self.config),
            "layers": self.layers.iter().map(TestLayer::descriptor).collect::<Vec<_>>(),
        })
    }
}

/// An index of several images.
#[derive(Debug, Clone)]
pub struct TestIndex {
    /// In their order.
    pub images: Vec<TestImage>,
    /// The index's bytes.
    pub bytes: Vec<u8>,
    /// Its media type.
    pub media_type: String,
}

impl TestIndex {
    /// OCI's.
    pub fn oci(images: Vec<TestImage>) -> TestIndex {
        TestIndex::new(images, media_type::OCI_INDEX)
    }

    /// docker's.
    pub fn docker(images: Vec<TestImage>) -> TestIndex {
        TestIndex::new(images, media_type::DOCKER_LIST)
    }

    fn new(images: Vec<TestImage>, media_type: &str) -> TestIndex {
        let manifests: Vec<Value> = images.iter().map(TestImage::descriptor).collect();
        let value = json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": manifests });
        TestIndex { images, bytes: value.to_string().into_bytes(), media_type: media_type.into() }
    }

    /// The digest of the index.
    pub fn digest(&self) -> String {
        digest(&self.bytes)
    }

    /// Puts all images, and the index under a tag.
    pub fn put(&self, place: &impl Place, repository: &str, tag: &str) {
        for image in &self.images {
            image.put(place, repository, "");
        }
        place.place_manifest(repository, tag, &self.media_type, &self.bytes);
    }
}

/// This machine's, such as `linux/amd64`.
pub fn this_platform() -> String {
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    format!("linux/{architecture}")
}
