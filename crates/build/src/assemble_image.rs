//! The image out of the steps' results: config, history, names.

use std::time::Instant;

use mica_image::BuiltImage;
use mica_oci::{Digest, History, ImageId};

use crate::build::{BaseConfigs, Build, base_config};
use crate::error::{BuildError, StepError};
use crate::event::Event;
use crate::outcomes::Outcomes;

/// RFC 3339, UTC, whole seconds, as BuildKit writes it.
pub(crate) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Stores the image of the target and gives it its names.
///
/// Times come from the steps' records, so that a build that changed nothing gives the same image ID: an entry without
/// a layer has the time of the layer before it.
pub(crate) fn assemble_image(
    build: &Build<'_>,
    configs: &BaseConfigs,
    outcomes: &Outcomes,
) -> Result<(ImageId, Digest), BuildError> {
    let started = Instant::now();
    let target = &build.graph.target;
    let chain = build.chain(&target.state, outcomes).map_err(|error| match error {
        StepError::Build(error) => *error,
        _ => BuildError::Interrupted,
    })?;
    let base = base_config(configs, target.base.as_ref());
    let mut config = target.config.clone();
    config.history = base.map(|base| base.history.clone()).unwrap_or_default();
    let mut created = base
        .and_then(|base| base.history.last().and_then(|entry| entry.created.clone()).or(base.created.clone()))
        .unwrap_or_else(|| timestamp(build.request.now_seconds));
    for entry in &target.history {
        if let Some(outcome) = entry.step.and_then(|step| outcomes.get(step)) {
            created = timestamp(outcome.created_seconds);
        }
        config.history.push(History {
            created: Some(created.clone()),
            created_by: Some(entry.created_by.clone()),
            comment: Some(entry.comment.to_owned()),
            empty_layer: entry.empty_layer(),
            ..History::default()
        });
    }
    config.created = Some(created);
    config.rootfs.diff_ids = chain.diff_ids().to_vec();
    let built = BuiltImage { config, layers: chain.sizes() };
    let (image, manifest) = mica_image::put_built(build.store, &built, &build.request.names)?;
    (build.events)(Event::Exported {
        manifest: manifest.to_string(),
        config: image.to_string(),
        elapsed: started.elapsed(),
    });
    for name in &build.request.names {
        (build.events)(Event::Named { name: name.canonical() });
    }
    Ok((image, manifest))
}
