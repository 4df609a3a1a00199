//! A registry that stands in for Docker Hub, and a mica that knows no other.

use std::collections::BTreeMap;

use mica_testkit::images::{TestImage, TestLayer, tar_of, this_platform};
use mica_testkit::{FakeOptions, FakeRegistry, Mica, Need, Outcome, bases, missing};

pub const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A hub and a store.
pub struct World {
    pub hub: FakeRegistry,
    pub mica: Mica,
}

impl World {
    pub fn new() -> World {
        World::with(FakeOptions::default())
    }

    pub fn with(options: FakeOptions<'_>) -> World {
        let hub = FakeRegistry::start(options);
        let mica = Mica::new(BINARY);
        mica.set_hub(&hub.host());
        World { hub, mica }
    }

    /// What a command that works writes to stdout.
    #[track_caller]
    pub fn stdout(&self, words: &[&str]) -> String {
        self.mica.ok(words).stdout
    }

    /// The image ID of a name.
    #[track_caller]
    pub fn id(&self, name: &str) -> String {
        self.stdout(&["image", "inspect", "--format", "{{.Id}}", name]).trim().to_owned()
    }

    /// How many requests for manifests and blobs there were.
    pub fn asked(&self) -> Vec<String> {
        let requests = self.hub.requests();
        let shown = requests.iter().filter(|request| request.path.starts_with("/v2/"));
        // Without containerd's `?ns=`, which settings of a mirror add.
        let path = |path: &str| path.split('?').next().unwrap_or_default().to_owned();
        shown.map(|request| format!("{} {}", request.method, path(&request.path))).collect()
    }
}

/// An image of files, one layer each, for this machine.
pub fn image_of(layers: &[&[(&str, &[u8])]]) -> TestImage {
    TestImage::oci(&this_platform(), layers.iter().map(|files| TestLayer::gzip(&tar_of(files))).collect())
}

/// An image that can run: busybox, as the most common images have it. `None` with the reason printed where there is none.
pub fn busybox() -> Option<TestImage> {
    busybox_if(&[Need::Root])
}

/// The same where these needs are met.
pub fn busybox_if(needs: &[Need]) -> Option<TestImage> {
    if let Some(reason) = missing(needs) {
        println!("skipped: {reason}");
        return None;
    }
    match bases::busybox() {
        Ok(tar) => {
            let tar = std::fs::read(tar).expect("the base");
            let image = TestImage::oci(&this_platform(), vec![TestLayer::gzip(&tar)]);
            Some(image.with_config(|config| {
                config["config"] = serde_json::json!({ "Cmd": ["sh"], "Env": ["PATH=/bin:/usr/bin"] });
            }))
        }
        Err(reason) => {
            println!("skipped: {reason}");
            None
        }
    }
}

/// What lines call a digest.
pub fn short(digest: &str) -> &str {
    digest.split(':').nth(1).and_then(|hex| hex.get(..12)).unwrap_or(digest)
}

/// What is said of each layer, in its order.
pub fn by_layer(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut layers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        if let Some((id, state)) = line.split_once(": ")
            && id.len() == 12
            && id.bytes().all(|byte| byte.is_ascii_hexdigit())
        {
            layers.entry(id.to_owned()).or_default().push(state.to_owned());
        }
    }
    layers
}

/// The lines that are not about layers.
pub fn other_lines(text: &str) -> Vec<String> {
    let layers = by_layer(text);
    let is_of_layer = |line: &&str| line.split_once(": ").is_some_and(|(id, _)| layers.contains_key(id));
    text.lines().filter(|line| !is_of_layer(line)).map(str::to_owned).collect()
}

#[track_caller]
pub fn check_says(outcome: &Outcome, expect: &[&str]) {
    assert!(!outcome.stderr.contains("panicked at"), "{outcome}");
    for text in expect {
        assert!(outcome.stderr.contains(text), "does not say `{text}`: {outcome}");
    }
}
