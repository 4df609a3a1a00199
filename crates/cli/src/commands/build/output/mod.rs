//! Where the result of a build goes: the store, registries, files. What the flags say (`spec`, `annotation`), doing it
//! (`deliver`), and what is told of it (`metadata`).

mod annotation;
mod deliver;
mod metadata;
mod spec;

use std::path::Path;

use mica_oci::{Platform, Reference};

use crate::error::CliError;

use super::args::Args;
use super::request;
pub(super) use deliver::Delivery;
use metadata::Metadata;
use spec::{Destination, ImageKeys, Output};

/// What the flags of output ask for.
#[derive(Debug)]
pub(super) struct Outputs {
    outputs: Vec<Output>,
    /// Position of the one that the build itself does: the image in the store, as it was built.
    kept: Option<usize>,
}

/// Reads the flags, before anything is built.
pub(super) fn outputs(args: &Args) -> Result<Outputs, CliError> {
    let mut outputs = args.output.iter().map(|text| spec::parse(text)).collect::<Result<Vec<_>, _>>()?;
    if args.push {
        let images = outputs.iter_mut().filter_map(|output| match output {
            Output::Image(image) => Some(image),
            _ => None,
        });
        let mut is_pushed = false;
        for image in images {
            (image.push, is_pushed) = (true, true);
        }
        if !is_pushed {
            outputs.push(Output::Image(ImageKeys { push: true, ..ImageKeys::default() }));
        }
    }
    let goes_to_store = |output: &Output| matches!(output, Output::Image(image) if !image.no_store);
    if outputs.is_empty() || (args.load && !outputs.iter().any(goes_to_store)) {
        outputs.push(Output::Image(ImageKeys::default()));
    }
    let tags = args.tag.iter().map(|name| request::parse_name(name)).collect::<Result<Vec<_>, _>>()?;
    let mut annotations = Vec::new();
    for text in &args.annotation {
        annotations.extend(annotation::parse_flag(text)?);
    }
    for output in &mut outputs {
        let (Output::Image(image) | Output::Oci { image, .. } | Output::Docker { image, .. }) = output else {
            continue;
        };
        for tag in &tags {
            if !image.names.contains(tag) {
                image.names.push(tag.clone());
            }
        }
        image.annotations.extend(annotations.iter().cloned());
    }
    check(args, &outputs)?;
    for path in [&args.iidfile, &args.metadata_file].into_iter().flatten() {
        check_file(path)?;
    }
    if asks_for_attestations(args) {
        eprintln!("warning: attestations are not made");
    }
    let kept = outputs.iter().position(|output| matches!(output, Output::Image(image) if image.is_plain()));
    Ok(Outputs { outputs, kept })
}

/// What does not go together, or cannot be written.
fn check(args: &Args, outputs: &[Output]) -> Result<(), CliError> {
    let mut seen: Vec<&Destination> = Vec::new();
    for output in outputs {
        let to = match output {
            Output::Image(image) if image.push && image.names.is_empty() => {
                return Err(CliError::new("tag is needed when pushing to registry")
                    .hint("name the image with `-t NAME`"));
            }
            Output::Image(_) => continue,
            Output::Local { into, .. } => {
                if into.exists() && !into.is_dir() {
                    return Err(CliError::new(format!("`{}` is not a directory", into.display())));
                }
                &Destination::Path(into.clone())
            }
            Output::Tar { to, .. } | Output::Oci { to, is_tar: true, .. } | Output::Docker { to, .. } => {
                if let Destination::Path(path) = to {
                    check_file(path)?;
                }
                to
            }
            Output::Oci { to, .. } => to,
        };
        match to {
            Destination::Stdout if seen.contains(&&Destination::Stdout) => {
                return Err(CliError::new("only one output can go to stdout"));
            }
            Destination::Stdout if args.explain.is_some() => {
                return Err(CliError::new("`--explain` writes to stdout, where an output goes already"));
            }
            Destination::Stdout if args.verify => {
                return Err(CliError::new("`--verify` writes to stdout, where an output goes already"));
            }
            Destination::Stdout => seen.push(&Destination::Stdout),
            Destination::Path(path) => {
                let is_same = |other: &&Output| destination(other) == Some(path);
                if outputs.iter().filter(is_same).count() > 1 {
                    return Err(CliError::new(format!("two outputs go to `{}`", path.display())));
                }
            }
        }
    }
    Ok(())
}

/// Whether `--provenance`, `--sbom` or `--attest` ask for more than to leave it.
fn asks_for_attestations(args: &Args) -> bool {
    let is_off = |value: &str| {
        value
            .split(',')
            .any(|field| matches!(field, "false" | "0" | "disabled" | "disabled=true" | "disabled=1"))
    };
    let flags = [&args.provenance, &args.sbom];
    flags.into_iter().flatten().chain(&args.attest).any(|value| !is_off(value))
}

fn destination(output: &Output) -> Option<&Path> {
    match output {
        Output::Local { into, .. } => Some(into),
        Output::Tar { to, .. } | Output::Oci { to, .. } | Output::Docker { to, .. } => match to {
            Destination::Path(path) => Some(path),
            Destination::Stdout => None,
        },
        Output::Image(_) => None,
    }
}

/// Whether a file can be made there: a build may take long.
fn check_file(path: &Path) -> Result<(), CliError> {
    if path.is_dir() {
        return Err(CliError::new(format!("destination file is a directory: `{}`", path.display())));
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() && !parent.is_dir() => {
            Err(CliError::new(format!("there is no directory `{}`", parent.display())))
        }
        _ => Ok(()),
    }
}

impl Outputs {
    /// Whether every platform that an annotation names is built: it would be lost without a word.
    pub fn check_annotations(&self, platforms: &[Platform]) -> Result<(), CliError> {
        let annotations = self.outputs.iter().flat_map(|output| match output {
            Output::Image(image) | Output::Oci { image, .. } | Output::Docker { image, .. } => {
                image.annotations.as_slice()
            }
            Output::Local { .. } | Output::Tar { .. } => &[],
        });
        for annotation in annotations {
            let Some(wanted) = &annotation.platform else { continue };
            if !platforms.iter().any(|platform| wanted.is_same(platform)) {
                let built: Vec<_> = platforms.iter().map(|platform| format!("`{platform}`")).collect();
                return Err(CliError::new(format!(
                    "the annotation `{}` is for `{wanted}`, which is not built",
                    annotation.key
                ))
                .hint(format!("built is {}", built.join(", "))));
            }
        }
        Ok(())
    }

    /// Whether the build itself is to keep the image in the store.
    pub fn keep_image(&self) -> bool {
        self.kept.is_some()
    }

    /// Whether standard output has a result, and so nothing else.
    fn is_stdout_taken(&self) -> bool {
        self.outputs.iter().any(|output| match output {
            Output::Tar { to, .. } | Output::Oci { to, .. } | Output::Docker { to, .. } => {
                *to == Destination::Stdout
            }
            Output::Local { .. } | Output::Image(_) => false,
        })
    }

    /// The names that it gives it then.
    pub fn names(&self) -> Vec<Reference> {
        match self.kept.and_then(|kept| self.outputs.get(kept)) {
            Some(Output::Image(image)) => image.names.clone(),
            _ => Vec::new(),
        }
    }
}
