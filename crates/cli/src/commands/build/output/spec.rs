//! One value of `--output`, as buildx reads it.

use std::io::IsTerminal;
use std::path::PathBuf;

use mica_dockerfile::suggest::suggest;
use mica_image::{Annotation, Form, LocalMode};
use mica_oci::Reference;

use super::annotation;
use crate::commands::build::{fields, request};
use crate::error::CliError;

const FLAG: &str = "--output";

/// Where bytes go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Destination {
    Stdout,
    Path(PathBuf),
}

/// One place for the result.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Output {
    /// Files in a directory.
    Local { into: PathBuf, split: bool, mode: LocalMode },
    /// Files in a tar.
    Tar { to: Destination, split: bool },
    /// An image layout: in a tar, or in a directory.
    Oci { to: Destination, is_tar: bool, image: ImageKeys },
    /// What `docker load` reads.
    Docker { to: Destination, image: ImageKeys },
    /// The store, registries.
    Image(ImageKeys),
}

/// What is said of the image itself.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct ImageKeys {
    pub names: Vec<Reference>,
    pub form: Option<Form>,
    pub force_compression: bool,
    pub oci_types: Option<bool>,
    pub rewrite_timestamp: bool,
    pub annotations: Vec<Annotation>,
    /// Of the store and registries only.
    pub push: bool,
    pub push_by_digest: bool,
    pub insecure: bool,
    pub name_canonical: bool,
    pub dangling_prefix: Option<Reference>,
    pub no_store: bool,
}

impl ImageKeys {
    /// Whether the image is as the build keeps it, so that it is the store's already.
    pub fn is_plain(&self) -> bool {
        self.form.is_none()
            && !self.force_compression
            && self.oci_types != Some(false)
            && !self.rewrite_timestamp
            && self.annotations.is_empty()
            && !self.push_by_digest
            && !self.no_store
            && !self.name_canonical
            && self.dangling_prefix.is_none()
    }
}

const TYPES: &[&str] = &["local", "tar", "oci", "docker", "image", "registry"];
const OF_LOCAL: &[&str] = &["dest", "platform-split", "mode"];
const OF_TAR: &[&str] = &["dest", "platform-split"];
const OF_IMAGES: &[&str] = &[
    "name",
    "compression",
    "compression-level",
    "force-compression",
    "oci-mediatypes",
    "rewrite-timestamp",
    "annotation.KEY",
    "annotation-manifest.KEY",
    "annotation-index.KEY",
    "annotation-manifest-descriptor.KEY",
    "annotation-index-descriptor.KEY",
];
const OF_OCI: &[&str] = &["dest", "tar"];
const OF_DOCKER: &[&str] = &["dest"];
const OF_STORE: &[&str] =
    &["push", "push-by-digest", "insecure", "name-canonical", "dangling-name-prefix", "store", "unpack"];

/// Reads one value: `type=...`, a directory, or `-` for a tar on standard output.
pub(super) fn parse(text: &str) -> Result<Output, CliError> {
    let invalid = |why: String| CliError::new(format!("invalid value `{text}` for `{FLAG}`: {why}"));
    let fields = fields::split(FLAG, text)?;
    if let [only] = fields.as_slice()
        && !only.starts_with("type=")
    {
        return match only.as_str() {
            "" => Err(invalid("it is empty".to_owned())),
            "-" => Ok(Output::Tar { to: stdout("tar")?, split: true }),
            path => Ok(Output::Local { into: path.into(), split: true, mode: LocalMode::Copy }),
        };
    }
    let mut pairs = Vec::new();
    for field in &fields {
        let Some((key, value)) = field.split_once('=') else {
            return Err(invalid(format!("`{field}` is not `key=value`")));
        };
        pairs.push((lowered(key.trim()), value.to_owned()));
    }
    let Some((_, kind)) = pairs.iter().find(|(key, _)| key == "type") else {
        return Err(CliError::new(format!("type is required for output: `{text}`"))
            .hint(format!("one of {}", in_words(TYPES))));
    };
    let known: &[&[&str]] = match kind.as_str() {
        "local" => &[OF_LOCAL],
        "tar" => &[OF_TAR],
        "oci" => &[OF_OCI, OF_IMAGES],
        "docker" => &[OF_DOCKER, OF_IMAGES],
        "image" | "registry" => &[OF_STORE, OF_IMAGES],
        other => {
            let error = invalid(format!("there is no output type `{other}`"));
            return Err(error.hint(match suggest(other, TYPES) {
                Some(meant) => format!("did you mean `type={meant}`?"),
                None => format!("one of {}", in_words(TYPES)),
            }));
        }
    };
    let known: Vec<&str> = known.concat();
    let mut read =
        Read { text, kind, dest: None, level: None, compression: None, split: None, output: Keys::default() };
    for (key, value) in &pairs {
        if key == "type" {
            continue;
        }
        let is_annotation = key.starts_with("annotation") && known.contains(&"annotation.KEY");
        if !is_annotation && !known.contains(&key.as_str()) {
            let error = invalid(format!("`type={kind}` has no key `{key}`"));
            return Err(match suggest(key, &known) {
                Some(meant) => error.hint(format!("did you mean `{meant}`?")),
                None => error.hint(format!("it has {}", in_words(&known))),
            });
        }
        read.key(key, value)?;
    }
    read.finish()
}

/// Keys of annotations are the user's own behind the first dot.
fn lowered(key: &str) -> String {
    match key.split_once('.') {
        Some((place, own)) => format!("{}.{own}", place.to_lowercase()),
        None => key.to_lowercase(),
    }
}

fn in_words(known: &[&str]) -> String {
    known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// Standard output, unless somebody sits before it.
fn stdout(kind: &str) -> Result<Destination, CliError> {
    if std::io::stdout().is_terminal() {
        let what = format!("dest file is required for {kind} exporter. refusing to write to console");
        return Err(CliError::new(what).hint(format!("`{FLAG} type={kind},dest=FILE`, or redirect")));
    }
    Ok(Destination::Stdout)
}

/// Keys that belong to one type or another.
#[derive(Default)]
struct Keys {
    image: ImageKeys,
    mode: LocalMode,
    is_tar: Option<bool>,
}

struct Read<'t> {
    text: &'t str,
    kind: &'t str,
    dest: Option<String>,
    level: Option<String>,
    compression: Option<String>,
    split: Option<bool>,
    output: Keys,
}

impl Read<'_> {
    fn invalid(&self, why: String) -> CliError {
        CliError::new(format!("invalid value `{}` for `{FLAG}`: {why}", self.text))
    }

    fn is(&self, key: &str, value: &str) -> Result<bool, CliError> {
        // As Go's strconv.ParseBool, and an empty value is yes.
        match value {
            "" | "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
            "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
            _ => Err(self.invalid(format!("`{key}` is `true` or `false`, not `{value}`"))),
        }
    }

    fn key(&mut self, key: &str, value: &str) -> Result<(), CliError> {
        let mut image = std::mem::take(&mut self.output.image);
        match key {
            "dest" => self.dest = Some(value.to_owned()),
            "platform-split" => self.split = Some(self.is(key, value)?),
            "mode" => {
                self.output.mode = match value {
                    "copy" => LocalMode::Copy,
                    "delete" => LocalMode::Delete,
                    _ => return Err(self.invalid(format!("`mode` is `copy` or `delete`, not `{value}`"))),
                }
            }
            "tar" => self.output.is_tar = Some(self.is(key, value)?),
            "name" => {
                for name in value.split(',').map(str::trim).filter(|name| !name.is_empty()) {
                    image.names.push(request::parse_name(name)?);
                }
            }
            "compression" => self.compression = Some(value.to_owned()),
            "compression-level" => self.level = Some(value.to_owned()),
            "force-compression" => image.force_compression = self.is(key, value)?,
            "oci-mediatypes" => image.oci_types = Some(self.is(key, value)?),
            "rewrite-timestamp" => image.rewrite_timestamp = self.is(key, value)?,
            "push" => image.push = self.is(key, value)?,
            "push-by-digest" => image.push_by_digest = self.is(key, value)?,
            "insecure" => image.insecure = self.is(key, value)?,
            "name-canonical" => image.name_canonical = self.is(key, value)?,
            "store" => image.no_store = !self.is(key, value)?,
            // Layers stand in the store as trees.
            "unpack" => _ = self.is(key, value)?,
            "dangling-name-prefix" => {
                image.dangling_prefix = Some(crate::commands::remote::parse_reference(value)?.name_only());
            }
            annotation => image.annotations.push(annotation::parse_key(self.text, annotation, value)?),
        }
        self.output.image = image;
        Ok(())
    }

    fn finish(mut self) -> Result<Output, CliError> {
        let mut image = std::mem::take(&mut self.output.image);
        if self.compression.is_some() || self.level.is_some() {
            let algorithm = self.compression.as_deref().unwrap_or("gzip");
            let form = Form::parse(algorithm, self.level.as_deref());
            image.form = Some(form.map_err(|error| self.invalid(error.to_string()))?);
        }
        let split = self.split.unwrap_or(true);
        let file = |kind: &str, dest: Option<&str>| match dest {
            None | Some("" | "-") => stdout(kind),
            Some(path) => Ok(Destination::Path(path.into())),
        };
        let dest = self.dest.as_deref();
        Ok(match self.kind {
            "local" => match dest {
                None | Some("") => {
                    return Err(CliError::new("dest is required for local output")
                        .hint(format!("`{FLAG} type=local,dest=DIRECTORY`")));
                }
                Some("-") => {
                    return Err(
                        self.invalid("files go into a directory; `type=tar` goes to stdout".to_owned())
                    );
                }
                Some(path) => Output::Local { into: path.into(), split, mode: self.output.mode },
            },
            "tar" => Output::Tar { to: file("tar", dest)?, split },
            "oci" => {
                let is_tar = self.output.is_tar.unwrap_or(true);
                let to = match dest {
                    None | Some("" | "-") if !is_tar => {
                        return Err(CliError::new("dest is required for oci output with tar=false")
                            .hint(format!("`{FLAG} type=oci,tar=false,dest=DIRECTORY`")));
                    }
                    dest => file("oci", dest)?,
                };
                Output::Oci { to, is_tar, image }
            }
            "docker" => match dest {
                // What `docker load` would do with it.
                None | Some("") => Output::Image(image),
                dest => Output::Docker { to: file("docker", dest)?, image },
            },
            "registry" => Output::Image(ImageKeys { push: true, ..image }),
            _ => Output::Image(image),
        })
    }
}
