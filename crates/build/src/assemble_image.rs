//! The image out of the steps' results: config, history, names.

use std::sync::atomic::Ordering;
use std::time::Instant;

use mica_image::{BasePart, BuiltImage};
use mica_oci::{Digest, History};
use mica_plan::StageResult;

use crate::build::{BaseConfigs, Build, base_config, of_step};
use crate::error::BuildError;
use crate::event::Event;
use crate::outcomes::Outcomes;
use crate::request::BuiltPlatform;

/// RFC 3339, UTC, whole seconds, as BuildKit writes it.
pub(crate) fn timestamp(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn be_no_later(created: &mut Option<String>, seconds: i64) {
    let is_later =
        |text: &String| text.parse::<jiff::Timestamp>().is_ok_and(|time| time.as_second() >= seconds);
    if created.as_ref().is_some_and(is_later) {
        *created = Some(timestamp(seconds));
    }
}

/// Makes the image of each platform, and of several an index as well. If they are to be kept, stores them and gives the whole
/// its names.
pub(crate) fn assemble_images(
    build: &Build<'_>,
    configs: &BaseConfigs,
    outcomes: &Outcomes,
) -> Result<(Vec<BuiltPlatform>, Option<Digest>), BuildError> {
    let started = Instant::now();
    let names = &build.request.names;
    let (mut made, mut parts) = (Vec::new(), Vec::new());
    for target in build.targets {
        let (content, part) = assemble_image(build, configs, outcomes, &target.result)?;
        made.push((target.platform.clone(), content));
        parts.push(part);
    }
    // Squashing takes its time; what was interrupted gets no name.
    if build.interrupted.load(Ordering::Relaxed) {
        return Err(BuildError::Interrupted);
    }
    let is_kept = build.request.keep_image;
    let (ids, index) = match made.as_slice() {
        images if !is_kept => (images.iter().map(|(_, image)| image.digests()).collect(), None),
        [(_, image)] if !build.request.makes_index() => {
            (vec![mica_image::put_built(build.store, image, names)?], None)
        }
        several => {
            let (ids, index) = mica_image::put_built_index(build.store, several, names)?;
            (ids, Some(index))
        }
    };
    let images = made.into_iter().zip(parts).zip(ids);
    let images: Vec<_> = images
        .map(|(((platform, content), base), (image, manifest))| BuiltPlatform {
            platform,
            image,
            manifest,
            content,
            base,
            lease: build.lease.clone(),
        })
        .collect();
    if !is_kept {
        return Ok((images, index));
    }
    let elapsed = started.elapsed();
    let digests = images.iter().map(|image| (image.manifest.to_string(), image.image.to_string()));
    let names: Vec<String> = names.iter().map(|name| name.canonical()).collect();
    match &index {
        None => digests.for_each(|(manifest, config)| {
            (build.events)(Event::Exported { manifest, config, names: names.clone(), elapsed })
        }),
        Some(index) => {
            let (images, index) = (digests.collect(), index.to_string());
            (build.events)(Event::ExportedIndex { images, index, names, elapsed });
        }
    }
    Ok((images, index))
}

/// The image of a target.
///
/// Times come from the steps' records, so that a build that changed nothing gives the same image ID: an entry without
/// a layer has the time of the layer before it. SOURCE_DATE_EPOCH stands in for all of them, also of those that were
/// recorded under another one; entries of the base image stay as they are, unless every time is to be fixed.
fn assemble_image(
    build: &Build<'_>,
    configs: &BaseConfigs,
    outcomes: &Outcomes,
    target: &StageResult,
) -> Result<(BuiltImage, BasePart), BuildError> {
    let chain = build.chain(&target.state, outcomes).map_err(of_step)?;
    let base = base_config(configs, target.base.as_ref());
    let mut config = target.config.clone();
    config.history = base.map(|base| base.history.clone()).unwrap_or_default();
    if let Some(fixed) = build.times.fixed {
        // Else a root filesystem that two machines imported would be two bases.
        config.history.iter_mut().for_each(|entry| be_no_later(&mut entry.created, fixed));
    }
    let mut created = base
        .and_then(|base| base.history.last().and_then(|entry| entry.created.clone()).or(base.created.clone()))
        .unwrap_or_else(|| {
            // What is said before the first layer has that layer's time: the same again must be the same image.
            let mut made = target.history.iter().filter_map(|entry| outcomes.get(entry.step?));
            timestamp(made.next().map_or(build.request.now_seconds, |outcome| outcome.created_seconds))
        });
    let told = build.times.told().map(timestamp);
    if let Some(told) = &told {
        created = told.clone();
    }
    for entry in &target.history {
        if told.is_none()
            && let Some(outcome) = entry.step.and_then(|step| outcomes.get(step))
        {
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
    // A stage that begins with files has their layer, which no instruction tells of. As BuildKit, but where it belongs.
    let told_layers = config.history.iter().filter(|entry| !entry.empty_layer).count();
    if base.is_none() && told_layers + 1 == chain.diff_ids().len() {
        let entry = History {
            created: config.history.first().map_or(Some(created.clone()), |entry| entry.created.clone()),
            created_by: Some("FROM build context".to_owned()),
            comment: Some("buildkit.exporter.image.v0".to_owned()),
            ..History::default()
        };
        config.history.insert(0, entry);
    }
    config.created = Some(created);
    config.rootfs.diff_ids = chain.diff_ids().to_vec();
    let mut content = BuiltImage { config, layers: chain.sizes() };
    let mut part = BasePart {
        id: target.base.as_ref().and_then(|key| build.base_image(key)),
        layers: base.map_or(0, |base| base.rootfs.diff_ids.len()),
        history: base.map_or(0, |base| base.history.len()),
    };
    // A base that fails to say where its layers come from cannot be told from what was added to it.
    part.layers = part.layers.min(content.layers.len());
    if build.request.squash {
        let (store, lease, rootless) = (build.store, &build.lease, build.rootless());
        content = mica_image::squash(store, lease, &content, &part, rootless)?;
        // Directories on the way have times of the base.
        if let Some(fixed) = build.times.fixed {
            content = mica_image::rewrite_image_times(store, lease, &content, &part, fixed, rootless)?;
        }
    }
    build.add_inline(&mut content.config, outcomes).map_err(of_step)?;
    Ok((content, part))
}
