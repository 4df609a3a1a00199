//! The image that `run` and `create` need: from the store, or else from a registry.

use clap::ValueEnum;
use mica_container::{ContainerError, FoundImage, find_image};
use mica_image::{ImageError, Pulled};
use mica_oci::{AnyReference, Platform, Reference};
use mica_store::Store;

use crate::advice::registry::is_unreachable;
use crate::commands::remote::{Puller, candidates, client, parse_reference, registries};
use crate::commands::run::{explain, refuse, warn};
use crate::error::CliError;
use crate::progress::Stream;
use crate::session::Session;

/// `--pull`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum When {
    /// Ask the registry each time
    Always,
    /// Only if it is not here
    Missing,
    /// Not at all
    Never,
}

/// What is asked for.
pub(crate) struct Need<'a> {
    /// A name or ID.
    pub name: &'a str,
    pub platform: Option<&'a Platform>,
    pub when: When,
    pub quiet: bool,
}

/// Finds the image, and pulls it if it has to. What is told of that goes to stderr: stdout is the container's.
pub(crate) fn needed_image(
    session: &Session,
    store: &Store,
    need: &Need<'_>,
) -> Result<FoundImage, CliError> {
    let image = match (find(store, need.name, need.platform)?, need.when) {
        (Some(image), When::Missing | When::Never) => image,
        (None, When::Never) => return Err(absent(store, need)),
        // An ID says nothing of where the image comes from.
        (Some(image), When::Always) if !is_name(need.name) => image,
        (None, _) if !is_name(need.name) => return Err(absent(store, need)),
        (fits, when) => pull(session, store, need, when == When::Missing && fits.is_none())?,
    };
    check_runs_here(&image, need)?;
    Ok(image)
}

/// The image that the store has: of this machine's platform if none is asked for and there is one.
fn find(store: &Store, name: &str, platform: Option<&Platform>) -> Result<Option<FoundImage>, CliError> {
    let wanted = platform.cloned().unwrap_or_else(Platform::host);
    let found = match mica_image::resolve_platform(store, name, &wanted) {
        Ok(id) => find_image(store, &id.to_string()),
        Err(_) if platform.is_none() => find_image(store, name),
        Err(ImageError::NotFound { .. } | ImageError::PlatformMissing { .. }) => return Ok(None),
        Err(error) => return Err(CliError::from(error).code(125)),
    };
    match found {
        Err(ContainerError::ImageMissing { .. }) => Ok(None),
        result => Ok(Some(result.map_err(explain)?)),
    }
}

fn pull(session: &Session, store: &Store, need: &Need<'_>, is_missing: bool) -> Result<FoundImage, CliError> {
    let reference = parse_reference(need.name).map_err(|error| error.code(125))?;
    let failed = |error: CliError| error.code(125);
    let registries = registries().map_err(|error| failed(error.into()))?;
    let candidates = candidates(&registries, need.name).map_err(|error| failed(error.into()))?;
    // A short name may stand for another registry's image, which is here already.
    if is_missing {
        for candidate in &candidates {
            if let Some(image) = find(store, &candidate.canonical(), need.platform)? {
                return Ok(image);
            }
        }
        if !need.quiet {
            eprintln!("Unable to find image '{}' locally", reference.with_default_tag().familiar());
        }
    }
    // Its threads must have ended before the container is made.
    let client = client().map_err(|error| failed(error.into()))?;
    let stream = if need.quiet { Stream::Quiet } else { Stream::Err };
    let puller = Puller { store, client: &client, rootless: session.rootless, stream };
    let pulled = puller.pull_any(&candidates, need.platform).map_err(|error| {
        let is_unreachable = is_unreachable(&error);
        let shown = failed(error.into());
        match is_unreachable {
            true => {
                let more = "without a registry: `mica load -i FILE` brings an image in";
                let hint = shown.hint.as_ref().map_or(more.to_owned(), |hint| format!("{hint}; {more}"));
                shown.hint(hint)
            }
            false => shown,
        }
    });
    let (_, Pulled { image, .. }) = pulled?;
    find_image(store, &image.to_string()).map_err(explain)
}

/// Whether a text can be a name that a registry is asked for.
fn is_name(text: &str) -> bool {
    matches!(AnyReference::parse(text), Ok(AnyReference::Name(_)))
}

/// Other systems' programs do not run here; other architectures' may, where the kernel knows an interpreter.
fn check_runs_here(image: &FoundImage, need: &Need<'_>) -> Result<(), CliError> {
    let found = image.config.platform();
    let host = Platform::host();
    if !found.os.is_empty() && found.os != host.os {
        let what = format!("image operating system \"{}\" cannot be used on this platform: {host}", found.os);
        return Err(refuse(what).hint(format!(
            "`{}` can be pulled, inspected, saved, copied and pushed here, and runs on a machine with {}",
            need.name, found.os
        )));
    }
    let is_for_host = found.architecture.is_empty() || host.runs().iter().any(|own| own.is_same(&found));
    if need.platform.is_none() && !is_for_host {
        warn(&format!(
            "the requested image's platform ({found}) does not match the detected host platform ({host}) and no \
             specific platform was requested"
        ));
    }
    Ok(())
}

/// What is said of an image that is not here and is not asked for elsewhere.
fn absent(store: &Store, need: &Need<'_>) -> CliError {
    let wanted = need.platform.cloned().unwrap_or_else(Platform::host);
    let shown = match mica_image::resolve_platform(store, need.name, &wanted) {
        Err(error @ ImageError::PlatformMissing { .. }) => CliError::from(error).code(125),
        _ => {
            let name = Reference::parse(need.name);
            let name = name.map_or(need.name.to_owned(), |name| name.with_default_tag().familiar());
            refuse(format!("No such image: {name}"))
        }
    };
    shown.hint(match need.when {
        When::Never => "run without `--pull=never` to fetch it; `mica images` lists all images that are here",
        _ => "`mica images` lists all images; by its name it could be pulled",
    })
}
