//! Results of steps from other machines, and for them: `--cache-from` and `--cache-to`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mica_build::Caches;
use mica_cache::{
    ExportOptions, Form, Imports, LocalPlace, LocalTarget, Mode, Place, RegistryPlace, S3Place, S3Settings,
};
use mica_oci::{Digest, Reference};
use mica_store::Store;

use crate::commands::remote;
use crate::error::CliError;
use crate::format::size;

use super::args::Args;
use super::fields;

const FROM: &str = "--cache-from";
const TO: &str = "--cache-to";
/// Keys whose values are never shown.
const SECRET_KEYS: [&str; 3] = ["secret_access_key", "session_token", "access_key_id"];
/// Build argument that asks for results inside the image.
const INLINE_ARGUMENT: &str = "BUILDKIT_INLINE_CACHE";

/// What `--cache-from` and `--cache-to` ask for.
#[derive(Debug, Default)]
pub(super) struct Flags {
    from: Vec<Where>,
    to: Vec<To>,
    inline: bool,
}

/// Where a cache is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Where {
    /// A tag or digest of an OCI layout.
    Local { path: PathBuf, target: LocalTarget, reset: bool },
    /// A tag or digest in a registry.
    Registry { reference: Reference, insecure: bool },
    /// Names in a bucket.
    S3(S3Settings),
}

/// An export.
#[derive(Debug, Clone, PartialEq, Eq)]
struct To {
    place: Where,
    options: ExportOptions,
    mounts: Mounts,
    /// Whether the build succeeds when this fails.
    ignore_error: bool,
}

/// Which cache mounts' contents are exported.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Mounts {
    None,
    /// Of all steps.
    All,
    /// With these ids.
    Only(Vec<String>),
}

/// The caches of a build.
pub(super) struct Opened {
    /// What the build takes and leaves.
    pub results: Caches,
    to: Vec<(Arc<dyn Place>, To)>,
}

/// The keys of one value, each to be taken once.
struct Keys<'a> {
    flag: &'a str,
    text: &'a str,
    pairs: Vec<(String, String)>,
}

/// Reads the flags, before anything is built.
pub(super) fn flags(args: &Args) -> Result<Flags, CliError> {
    let mut flags = Flags::default();
    for text in &args.cache_from {
        if !text.contains('=') {
            for name in fields::split(FROM, text)? {
                let reference = remote::parse_reference(&name)?.with_default_tag();
                flags.from.push(Where::Registry { reference, insecure: false });
            }
            continue;
        }
        let mut keys = Keys::read(FROM, text)?;
        let kind = keys.need("type")?;
        if kind == "inline" {
            let why = "an image with results in it is read with `type=registry,ref=IMAGE`";
            return Err(keys.wrong(why));
        }
        flags.from.push(keys.place(&kind)?);
        keys.all_known()?;
    }
    for text in &args.cache_to {
        let mut keys = Keys::read(TO, text)?;
        let kind = keys.need("type")?;
        if kind == "inline" {
            // It goes with the image, and fails with it.
            flags.inline = true;
            keys.take("mode");
            keys.boolean("ignore-error")?;
            keys.all_known()?;
            continue;
        }
        let place = keys.place(&kind)?;
        let (options, ignore_error) = (keys.options()?, keys.boolean("ignore-error")?.unwrap_or(true));
        let mounts = match keys.take("mounts") {
            None => Mounts::None,
            Some(text) => match is_true(&text) {
                Some(true) => Mounts::All,
                Some(false) => Mounts::None,
                None => Mounts::Only(text.split(',').map(|id| id.trim().to_owned()).collect()),
            },
        };
        flags.to.push(To { place, options, mounts, ignore_error });
        keys.all_known()?;
    }
    // BuildKit's older spelling.
    let is_set = |argument: &String| matches!(argument.split_once('='), Some((INLINE_ARGUMENT, value)) if is_true(value) == Some(true));
    flags.inline |= args.build_arg.iter().any(is_set);
    Ok(flags)
}

/// A value as it may be shown. What is not even a list of keys is shown as its first word.
fn without_secrets(text: &str) -> String {
    if !SECRET_KEYS.iter().any(|key| text.to_lowercase().contains(key)) {
        return text.to_owned();
    }
    let Ok(fields) = fields::split("", text) else { return "…".to_owned() };
    let shown = fields.into_iter().map(|field| match field.split_once('=') {
        Some((key, _)) if SECRET_KEYS.contains(&key.trim().to_lowercase().as_str()) => format!("{key}=…"),
        _ => field,
    });
    shown.collect::<Vec<_>>().join(",")
}

/// As Go reads them.
fn is_true(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

impl<'a> Keys<'a> {
    fn read(flag: &'a str, text: &'a str) -> Result<Self, CliError> {
        let shown = without_secrets(text);
        let mut pairs = fields::pairs(flag, text).map_err(|error| {
            if shown == text { error } else { CliError::new(format!("invalid value `{shown}` for `{flag}`")) }
        })?;
        for (position, (key, _)) in pairs.iter().enumerate() {
            if pairs.iter().take(position).any(|(before, _)| before == key) {
                return Err(CliError::new(format!(
                    "invalid value `{shown}` for `{flag}`: `{key}` is given twice"
                )));
            }
        }
        pairs.retain(|(key, _)| !key.is_empty());
        Ok(Self { flag, text, pairs })
    }

    fn wrong(&self, why: &str) -> CliError {
        CliError::new(format!("invalid value `{}` for `{}`: {why}", without_secrets(self.text), self.flag))
    }

    fn take(&mut self, key: &str) -> Option<String> {
        let position = self.pairs.iter().position(|(known, _)| known == key)?;
        Some(self.pairs.remove(position).1)
    }

    fn need(&mut self, key: &str) -> Result<String, CliError> {
        match self.take(key).filter(|value| !value.is_empty()) {
            Some(value) => Ok(value),
            None => Err(self.wrong(&format!("`{key}` is missing"))),
        }
    }

    fn boolean(&mut self, key: &str) -> Result<Option<bool>, CliError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some(value) => match is_true(value) {
                Some(value) => Ok(Some(value)),
                None => Err(self.wrong(&format!("`{key}` is `true` or `false`, not `{value}`"))),
            },
        }
    }

    fn place(&mut self, kind: &str) -> Result<Where, CliError> {
        match kind {
            "local" => self.local(),
            "registry" => {
                let reference = remote::parse_reference(&self.need("ref")?)?.with_default_tag();
                let insecure = self.boolean("registry.insecure")?.unwrap_or(false);
                if self.flag == TO && reference.digest().is_some() {
                    return Err(self.wrong("a cache is written under a tag, not a digest"));
                }
                Ok(Where::Registry { reference, insecure })
            }
            "s3" => self.s3(),
            "gha" | "azblob" => Err(CliError::new(format!(
                "cache type `{kind}` is not supported: `{}`",
                without_secrets(self.text)
            ))
            .hint("use `local`, `registry`, `inline` or `s3`")),
            _ => Err(self
                .wrong(&format!("`{kind}` is no type of a cache"))
                .hint("types are `local`, `registry`, `inline` and `s3`")),
        }
    }

    fn local(&mut self) -> Result<Where, CliError> {
        let is_export = self.flag == TO;
        let path = PathBuf::from(self.need(if is_export { "dest" } else { "src" })?);
        let digest = if is_export { None } else { self.take("digest") };
        let target = match (digest, self.take("tag")) {
            (Some(digest), _) => LocalTarget::Digest(
                Digest::parse(&digest).map_err(|error| self.wrong(&format!("`digest`: {error}")))?,
            ),
            (None, tag) => LocalTarget::Tag(tag.unwrap_or_else(|| "latest".to_owned())),
        };
        let reset = if is_export { self.boolean("reset")?.unwrap_or(false) } else { false };
        Ok(Where::Local { path, target, reset })
    }

    fn s3(&mut self) -> Result<Where, CliError> {
        let environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let mut or_environment = |key: &str, names: &[&str]| {
            self.take(key)
                .filter(|value| !value.is_empty())
                .or_else(|| names.iter().find_map(|name| environment(name)))
        };
        let bucket = or_environment("bucket", &["AWS_BUCKET"]);
        let region = or_environment("region", &["AWS_REGION", "AWS_DEFAULT_REGION"]);
        let endpoint_url = or_environment("endpoint_url", &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"]);
        let bucket = bucket.ok_or_else(|| self.wrong("`bucket` is missing"))?;
        if region.is_none() && endpoint_url.is_none() {
            return Err(self.wrong("`region` is missing"));
        }
        let (id, secret) = (self.take("access_key_id"), self.take("secret_access_key"));
        if id.is_some() != secret.is_some() {
            return Err(self.wrong("`access_key_id` and `secret_access_key` belong together"));
        }
        let names = self.take("name").unwrap_or_else(|| "mica".to_owned());
        let settings = S3Settings {
            bucket,
            region,
            endpoint_url,
            use_path_style: self.boolean("use_path_style")?.unwrap_or(false),
            names: names.split(';').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            prefix: self.take("prefix").unwrap_or_default(),
            blobs_prefix: self.take("blobs_prefix").unwrap_or_else(|| "blobs/".to_owned()),
            manifests_prefix: self.take("manifests_prefix").unwrap_or_else(|| "manifests/".to_owned()),
            access_key_id: id,
            secret_access_key: secret,
            session_token: self.take("session_token"),
        };
        // How BuildKit works, and no part of what is kept.
        for key in ["touch_refresh", "upload_parallelism"] {
            self.take(key);
        }
        Ok(Where::S3(settings))
    }

    fn options(&mut self) -> Result<ExportOptions, CliError> {
        let mode = match self.take("mode").as_deref() {
            None | Some("min") => Mode::Min,
            Some("max") => Mode::Max,
            Some(mode) => return Err(self.wrong(&format!("`mode` is `min` or `max`, not `{mode}`"))),
        };
        let (algorithm, level) = (self.take("compression"), self.take("compression-level"));
        let form = Form::parse(algorithm.as_deref().unwrap_or("gzip"), level.as_deref())
            .map_err(|error| self.wrong(&error.to_string()))?;
        self.boolean("force-compression")?;
        let docker_media_types = self.boolean("oci-mediatypes")? == Some(false);
        if self.boolean("image-manifest")? == Some(false) {
            let why = "a cache of mica is an image manifest, never an index";
            return Err(self.wrong(why).hint("leave `image-manifest=false` out"));
        }
        Ok(ExportOptions { mode, form, docker_media_types, ..ExportOptions::default() })
    }

    fn all_known(&self) -> Result<(), CliError> {
        match self.pairs.first() {
            Some((key, _)) => Err(self.wrong(&format!("`{key}` is not known for this type"))),
            None => Ok(()),
        }
    }
}

impl Where {
    fn open(&self, store: &Store) -> Arc<dyn Place> {
        match self {
            Self::Local { path, target, reset } => Arc::new(LocalPlace::new(path, target.clone(), *reset)),
            Self::Registry { reference, insecure } => {
                let (name, insecure) = ([reference.clone()], *insecure);
                let make = Box::new(move || remote::client_for(insecure, &name));
                Arc::new(RegistryPlace::new(reference, store, make))
            }
            Self::S3(settings) => Arc::new(S3Place::new(settings.clone())),
        }
    }
}

impl Flags {
    /// Places to ask and to write to; none is asked yet. Downloads end when the flag is set.
    pub fn open(&self, store: &Store, interrupted: &Arc<AtomicBool>) -> Opened {
        let mut results = Caches::default();
        let from = self.from.iter().map(|from| from.open(store)).collect();
        results.imports = Imports::new(from).stopped_by(interrupted);
        results.gather = !self.to.is_empty();
        results.inline = self.inline;
        let to = self.to.iter().map(|to| (to.place.open(store), to.clone())).collect();
        Opened { results, to }
    }
}

impl Opened {
    /// Exports what the build left. A failure is a warning, unless it was asked to be more.
    pub fn export(&self, store: &Store, is_quiet: bool) -> Result<(), CliError> {
        let steps = self.results.results();
        let mut failed = None;
        for (place, to) in &self.to {
            let name = place.name();
            let mounts = match &to.mounts {
                Mounts::None => Vec::new(),
                Mounts::All => self.results.mounts(),
                Mounts::Only(ids) => {
                    let mut mounts = self.results.mounts();
                    mounts.retain(|name| ids.iter().any(|id| name.split('\0').next() == Some(id)));
                    mounts
                }
            };
            match mica_cache::export(&**place, store, &steps, &mounts, &self.results.imports, &to.options) {
                Ok(exported) if !is_quiet => {
                    let noun = if exported.steps == 1 { "result" } else { "results" };
                    let sent = size::human_size(exported.sent_bytes);
                    eprintln!("cache {name}: {} {noun}, {sent} written", exported.steps);
                }
                Ok(_) => {}
                Err(error) => {
                    let message = format!("cannot export the cache to {name}: {error}");
                    match to.ignore_error {
                        true => eprintln!("warning: {message}"),
                        false => failed = failed.or(Some(CliError::new(message))),
                    }
                }
            }
            for warning in self.results.imports.take_warnings() {
                eprintln!("warning: {warning}");
            }
        }
        failed.map_or(Ok(()), Err)
    }
}
