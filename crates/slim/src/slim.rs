//! From an image to a slim one: trials, choice, layer, proof, name.

use std::sync::Arc;
use std::time::Duration;

use mica_container::{FoundImage, RunOptions, find_image};
use mica_oci::{ImageId, Reference};
use mica_store::Store;

use crate::error::SlimError;
use crate::keep::{self, Rules};
use crate::make;
use crate::report::{Slimmed, count};
use crate::stack::Stack;
use crate::trial::{Event, Trial, Trials};

/// The tag of a result that got no name.
const TAG: &str = "slim";

/// What is to be slimmed, and how.
#[derive(Debug, Clone)]
pub struct SlimRequest {
    /// Name or ID of the image.
    pub image: String,
    /// At least one; all must succeed, on the image and on the result.
    pub trials: Vec<Trial>,
    /// For the containers of all trials: environment, mounts, network.
    pub options: RunOptions,
    /// Patterns of what is kept though nobody used it.
    pub keep: Vec<String>,
    /// Whether certificates, time zones, names, licences and the like are kept as well.
    pub default_keep: bool,
    /// Whether packages are kept whole of which a file was used.
    pub keep_packages: bool,
    /// How long a command may run, or a server may take to answer.
    pub timeout: Duration,
    /// Name of the result.
    pub name: Reference,
    /// In a user namespace that mica entered.
    pub rootless: bool,
}

/// The name of a result that the user gave none: the image's own with the tag `slim`.
pub fn default_name(store: &Store, image: &str) -> Result<Reference, SlimError> {
    let missing = |reason| SlimError::NameMissing { reason };
    let id = mica_image::require(store, image)?;
    let names: Vec<Reference> =
        store.names_of(&id)?.iter().filter_map(|name| Reference::parse(name).ok()).collect();
    // As the user called it, if that is a name and not an ID.
    let called = Reference::parse(image).ok().map(|name| name.with_default_tag());
    let own = called.filter(|called| names.iter().any(|name| name.name() == called.name()));
    let own = own.or(names.first().cloned()).ok_or_else(|| missing("the image has none"))?;
    let slim = own.name_only().with_tag(TAG).map_err(|_| missing("none can be made of the image's"))?;
    match names.iter().any(|name| name.canonical() == slim.canonical()) {
        true => Err(missing("the image itself has the tag `slim`")),
        false => Ok(slim),
    }
}

/// Slims an image. The name moves only when all trials have succeeded on the result.
pub fn slim(
    store: &Store,
    request: &SlimRequest,
    events: &mut dyn FnMut(Event<'_>),
) -> Result<Slimmed, SlimError> {
    keep::check_patterns(&request.keep)?;
    let lease = store.lease()?;
    let image = find_image(store, &request.image)?;
    let stack = Arc::new(Stack::of_image(store, &image.record.layers, &lease)?);
    warn_of_health_check(&image, events);
    let mut trials = Trials {
        store,
        rootless: request.rootless,
        options: &request.options,
        timeout: request.timeout,
        events,
    };
    let tree = stack.merged.clone();
    let mut used = vec![false; tree.len()];
    for trial in &request.trials {
        let uses = trials.traced(trial, &image, &request.image, &stack)?;
        keep::mark(&tree, &uses, &mut used);
    }
    let rules =
        Rules { patterns: &request.keep, defaults: request.default_keep, packages: request.keep_packages };
    let open = |position: usize| stack.open_at(position);
    let kept = keep::decide(&tree, &open, &image.config.config, &used, rules)?;
    for text in &kept.warnings {
        (trials.events)(Event::Warning { text });
    }
    let layer = make::make_layer(store, &stack, &kept, request.rootless)?;
    let built = make::built_image(&image.record.id, &image.config, layer);
    let was_there = store.image(&mica_oci::image_id(&built.config.to_canonical_json()))?.is_some();
    let (id, _) = mica_image::put_built(store, &built, &[])?;
    let proven = prove(&mut trials, request, &id);
    if let Err(error) = proven {
        drop(lease);
        if !was_there {
            // If this fails, an image without a name is left, which `image prune` takes.
            let _ = mica_image::remove(store, &[id.to_string()], false);
        }
        return Err(error);
    }
    mica_image::put_built(store, &built, std::slice::from_ref(&request.name))?;
    let count = count(&tree, &kept.flags);
    Ok(Slimmed {
        image: id,
        name: request.name.clone(),
        source: image.record.id,
        kept: count.kept,
        all: count.all,
        removed: count.removed,
    })
}

fn prove(trials: &mut Trials<'_>, request: &SlimRequest, id: &ImageId) -> Result<(), SlimError> {
    let text = id.to_string();
    let result = find_image(trials.store, &text)?;
    request.trials.iter().try_for_each(|trial| trials.proof(trial, &result, &text))
}

/// Whoever runs the result with another engine has the image's health check run, and no trial does.
fn warn_of_health_check(image: &FoundImage, events: &mut dyn FnMut(Event<'_>)) {
    let check = image.config.config.healthcheck.as_ref();
    if check.is_some_and(|check| check.test.first().is_some_and(|word| word != "NONE")) {
        let text = "the image has a HEALTHCHECK, which is not run here: what only it uses is not kept; give it as a \
                    `--test`";
        events(Event::Warning { text });
    }
}
