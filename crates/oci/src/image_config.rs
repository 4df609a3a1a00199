//! What an image runs and what it is made of.
//!
//! Fields stand in the order in which BuildKit writes them and are left out when it leaves them out, so that an image
//! that is built from the same values has the same ID. `null`, absent and empty read as docker reads them.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use crate::absent::{empty_as_none, is_blank, is_empty_list, is_false, is_zero, null_as_default};
use crate::diff_id::{ChainId, DiffId, ImageId, chain_id, image_id};
use crate::digest::shorten;
use crate::document::{DocumentError, DocumentKind, parse_json, to_compact_json, to_object};
use crate::history::History;
use crate::platform::Platform;

/// The value of a set that JSON writes as a map: `{}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Empty {}

impl<'de> Deserialize<'de> for Empty {
    /// Reads any object and `null`, as Go does.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Empty, D::Error> {
        Option::<BTreeMap<String, serde::de::IgnoredAny>>::deserialize(deserializer)?;
        Ok(Empty {})
    }
}

/// What an image runs and what it is made of (image spec, `config.md`, and docker's image spec).
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageConfig {
    /// CPU architecture in Go's spelling.
    #[serde(default, deserialize_with = "null_as_default")]
    pub architecture: String,
    /// Who made the image.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub author: Option<String>,
    /// How to run the image.
    #[serde(default, deserialize_with = "null_as_default")]
    pub config: ContainerConfig,
    /// When the image was made, in RFC 3339.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub created: Option<String>,
    /// What made the image, oldest first.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Operating system in Go's spelling.
    #[serde(default, deserialize_with = "null_as_default")]
    pub os: String,
    /// Required features of the operating system.
    #[serde(
        rename = "os.features",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub os_features: Vec<String>,
    /// Version of the operating system.
    #[serde(
        rename = "os.version",
        default,
        deserialize_with = "empty_as_none",
        skip_serializing_if = "is_blank"
    )]
    pub os_version: Option<String>,
    /// The layers.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rootfs: RootFs,
    /// Variant of the architecture.
    #[serde(default, deserialize_with = "empty_as_none", skip_serializing_if = "is_blank")]
    pub variant: Option<String>,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// The layers of an image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Digests of the uncompressed tars, lowest first.
    #[serde(default, deserialize_with = "null_as_default")]
    pub diff_ids: Vec<DiffId>,
}

impl RootFs {
    /// The only value of `type`.
    pub const LAYERS: &str = "layers";
}

impl Default for RootFs {
    fn default() -> RootFs {
        RootFs { kind: RootFs::LAYERS.to_owned(), diff_ids: Vec::new() }
    }
}

/// How to run an image. An empty text is an unset one, as in docker.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerConfig {
    /// `user[:group]`, names or numbers.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// Ports that the program listens on: `8080/tcp`.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// Environment, `NAME=value`, in order.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// First words of the command. `None`: never set, inherit; `Some([])`: set to nothing. Neither is written.
    #[serde(default, skip_serializing_if = "is_empty_list")]
    pub entrypoint: Option<Vec<String>>,
    /// Last words of the command, replaced by what the user gives; `None` and `Some([])` as in `entrypoint`.
    #[serde(default, skip_serializing_if = "is_empty_list")]
    pub cmd: Option<Vec<String>>,
    /// Directories that get a volume.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// Directory to run in.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// Notes.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Signal that asks the program to end.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Windows: the command is already one escaped line.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_false")]
    pub args_escaped: bool,
    /// How to see whether the program is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// Instructions that run when another image is built from this one.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub on_build: Vec<String>,
    /// Shell of the shell form.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Host name; old images have one.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// Domain name; old images have one.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// Seconds between asking the program to end and ending it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    /// Fields that are not known here, as they were (`AttachStdin`, `Tty`, `Image` of old images).
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// How to see whether a program is well. Zero means inherit or default.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", words..]`, `["CMD-SHELL", line]`; empty inherits.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Nanoseconds between checks.
    #[serde(
        rename = "Interval",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "is_zero"
    )]
    pub interval_ns: i64,
    /// Nanoseconds until a check has failed.
    #[serde(
        rename = "Timeout",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "is_zero"
    )]
    pub timeout_ns: i64,
    /// Nanoseconds at the start in which failures do not count.
    #[serde(
        rename = "StartPeriod",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "is_zero"
    )]
    pub start_period_ns: i64,
    /// Nanoseconds between checks in that time.
    #[serde(
        rename = "StartInterval",
        default,
        deserialize_with = "null_as_default",
        skip_serializing_if = "is_zero"
    )]
    pub start_interval_ns: i64,
    /// Failures in a row that mean unhealthy.
    #[serde(default, deserialize_with = "null_as_default", skip_serializing_if = "is_zero")]
    pub retries: i64,
    /// Fields that are not known here, as they were.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

impl ImageConfig {
    /// The config of an image without layers.
    pub fn new(platform: &Platform) -> ImageConfig {
        ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            os_features: platform.os_features.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        }
    }

    /// This config as the beginning of an image built on it: without fields that BuildKit does not know.
    ///
    /// Those are left-overs of old builders (`container_config`, `Hostname` of a build container), and speak of that
    /// image only. Not for `docker commit` and the like, which keep everything.
    pub fn to_base(&self) -> ImageConfig {
        let mut base = self.clone();
        base.extra.clear();
        base.config.extra.clear();
        base.config.hostname.clear();
        base.config.domainname.clear();
        base.config.stop_timeout = None;
        if let Some(healthcheck) = &mut base.config.healthcheck {
            healthcheck.extra.clear();
        }
        base.history.iter_mut().for_each(|line| line.extra.clear());
        base
    }

    /// Reads an image config.
    pub fn parse(bytes: &[u8]) -> Result<ImageConfig, DocumentError> {
        parse_json(DocumentKind::ImageConfig, bytes)
    }

    /// What the image runs on.
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            os_version: self.os_version.clone(),
            os_features: self.os_features.clone(),
            variant: self.variant.clone(),
        }
    }

    /// The chain ID of all layers; `None` for an image without layers.
    pub fn chain_id(&self) -> Option<ChainId> {
        chain_id(&self.rootfs.diff_ids)
    }

    /// Each line of the history with the diff ID of its layer, if it has one; histories that do not fit run out of
    /// diff IDs.
    pub fn history_with_layers(&self) -> impl Iterator<Item = (&History, Option<&DiffId>)> {
        let mut diff_ids = self.rootfs.diff_ids.iter();
        self.history.iter().map(move |line| (line, if line.empty_layer { None } else { diff_ids.next() }))
    }

    /// The bytes to store, stable for equal values: one line, keys of the outer object sorted, as BuildKit exports.
    ///
    /// For configs made here; the bytes of a foreign config are kept and never written again.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        let sorted: BTreeMap<String, Value> = to_object(self).into_iter().collect();
        to_compact_json(&sorted)
    }

    /// The image ID that the canonical bytes have.
    pub fn canonical_image_id(&self) -> ImageId {
        image_id(&self.to_canonical_json())
    }

    /// Holds the config against the image spec's schema.
    pub fn validate(&self) -> Result<(), DocumentError> {
        for (field, value) in [("architecture", &self.architecture), ("os", &self.os)] {
            if value.is_empty() {
                return Err(DocumentError::Missing { field });
            }
        }
        if self.rootfs.kind != RootFs::LAYERS {
            return Err(DocumentError::RootFsType { found: shorten(&self.rootfs.kind) });
        }
        Ok(())
    }
}

impl ContainerConfig {
    /// The value of an environment variable; the last one counts.
    pub fn env_value(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    }

    /// Sets an environment variable, in its place if it is there already.
    pub fn set_env(&mut self, name: &str, value: &str) {
        let entry = format!("{name}={value}");
        let is_this = |old: &&mut String| old.split_once('=').map_or(old.as_str(), |(name, _)| name) == name;
        match self.env.iter_mut().find(is_this) {
            Some(old) => *old = entry,
            None => self.env.push(entry),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn check(json: &str, expect: &str) {
        let actual = match ImageConfig::parse(json.as_bytes()) {
            Ok(config) => String::from_utf8(config.to_canonical_json()).unwrap(),
            Err(error) => error.to_string(),
        };
        assert_eq!(actual, expect, "{json}");
    }

    #[test]
    fn order_is_buildkits() {
        let zero = Digest::from_sha256([0; 32]);
        let expect = format!(
            r#"{{"architecture":"arm64","author":"me","config":{{"User":"u","ExposedPorts":{{"80/tcp":{{}}}},"Env":["A=1"],"Entrypoint":["e"],"Cmd":["c"],"Volumes":{{"/v":{{}}}},"WorkingDir":"/w","Labels":{{"a":"1","b":"2"}},"StopSignal":"9","ArgsEscaped":true,"Healthcheck":{{"Test":["CMD","x"],"Interval":1,"Timeout":2,"StartPeriod":3,"StartInterval":4,"Retries":5}},"OnBuild":["RUN x"],"Shell":["sh"]}},"created":"2024-01-01T00:00:00Z","history":[{{"created":"2024-01-01T00:00:00Z","created_by":"RUN a \u0026\u0026 b # buildkit","author":"me","comment":"buildkit.dockerfile.v0","empty_layer":true}}],"moby.buildkit.cache.v0":"x","os":"linux","os.features":["f"],"os.version":"1","rootfs":{{"type":"layers","diff_ids":["{zero}"]}},"variant":"v8"}}"#
        );
        check(&expect, &expect);
    }

    #[test]
    fn null_and_empty_are_absent() {
        let empty =
            r#"{"architecture":"amd64","config":{},"os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
        check(r#"{"architecture":"amd64","os":"linux"}"#, empty);
        check(
            r#"{"architecture":"amd64","os":"linux","author":"","created":null,"variant":"","config":null,"history":null,"rootfs":null}"#,
            empty,
        );
        check(
            r#"{"os":"linux","architecture":"amd64","rootfs":{"type":"layers","diff_ids":null},"config":{"User":null,"ExposedPorts":null,"Env":null,"Cmd":null,"Entrypoint":[],"Volumes":null,"Labels":null,"OnBuild":null,"Healthcheck":null,"WorkingDir":""}}"#,
            empty,
        );
    }

    #[test]
    fn never_set_and_set_to_nothing_differ() {
        let parse = |json: &str| ImageConfig::parse(json.as_bytes()).unwrap().config;
        assert_eq!(parse(r#"{"config":{"Entrypoint":null}}"#).entrypoint, None);
        assert_eq!(parse(r#"{"config":{}}"#).entrypoint, None);
        assert_eq!(parse(r#"{"config":{"Entrypoint":[]}}"#).entrypoint, Some(Vec::new()));
    }

    #[test]
    fn unknown_fields_survive() {
        check(
            r#"{"os":"linux","zebra":[1],"architecture":"amd64","config":{"Tty":false,"Hostname":"h"},"container":"abc","rootfs":{"type":"layers"}}"#,
            r#"{"architecture":"amd64","config":{"Hostname":"h","Tty":false},"container":"abc","os":"linux","rootfs":{"type":"layers","diff_ids":[]},"zebra":[1]}"#,
        );
    }

    #[test]
    fn a_base_leaves_old_builders_behind() {
        let json = r#"{"container":"abc","config":{"Hostname":"h","Tty":false,"StopTimeout":1,"User":"u"},"history":[{"x":1}]}"#;
        let base = ImageConfig::parse(json.as_bytes()).unwrap().to_base();
        assert_eq!(
            String::from_utf8(base.to_canonical_json()).unwrap(),
            r#"{"architecture":"","config":{"User":"u"},"history":[{}],"os":"","rootfs":{"type":"layers","diff_ids":[]}}"#
        );
    }

    #[test]
    fn history_finds_its_layers() {
        let layer = DiffId(Digest::sha256(b"layer"));
        let mut config = ImageConfig::new(&Platform::new("linux", "amd64"));
        config.rootfs.diff_ids.push(layer.clone());
        for empty_layer in [true, false, true, false] {
            config.history.push(History { empty_layer, ..History::default() });
        }
        let found: Vec<_> = config.history_with_layers().map(|(_, diff_id)| diff_id).collect();
        assert_eq!(found, [None, Some(&layer), None, None]);
        assert_eq!(config.chain_id().unwrap().0, layer.0);
        assert_eq!(config.canonical_image_id(), image_id(&config.to_canonical_json()));
    }

    #[test]
    fn environment() {
        let mut config = ContainerConfig::default();
        config.set_env("PATH", "/bin");
        config.set_env("PATHS", "x");
        config.set_env("PATH", "/sbin=1");
        assert_eq!(config.env, ["PATH=/sbin=1", "PATHS=x"]);
        assert_eq!(config.env_value("PATH"), Some("/sbin=1"));
        assert_eq!(config.env_value("PAT"), None);
    }
}
