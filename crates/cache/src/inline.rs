//! Results that an image carries for its own layers.
//!
//! They stand in a field of the image's config, because that goes wherever the image goes: through every registry, copy,
//! archive and mirror, under every name. A referrer would leave the image's digest alone, but it is lost by all of them, and
//! asks the registry for an API of its own. The price: an image with results has another digest than one without.

use mica_store::Store;
use serde_json::Value;

use crate::config::{Config, VERSION};
use crate::error::Result;
use crate::export::{ExportedStep, Parts, Sent, stored};

/// An image's config is fetched by everybody who pulls the image, and no registry wants more than a few megabytes.
const INLINE_BYTES_MAX: usize = 1 << 20;

/// The document for the layers of an image, to stand in its config; `None` if there is nothing to say. What would make it too
/// long is left out: first what steps used, so that they are found by their layers alone, then whole results.
pub fn inline(store: &Store, steps: &[ExportedStep]) -> Result<Option<Value>> {
    let mut config = Config { version: VERSION, steps: Vec::new(), layers: Vec::new(), mounts: Vec::new() };
    let mut parts = Parts::new(usize::MAX);
    for step in steps.iter().filter(|step| step.is_in_image) {
        let known = config.layers.iter().position(|layer| layer.diff_id == step.diff_id);
        let layer = match known {
            Some(position) => position,
            None => {
                let Some((layer, index, encoded)) = stored(store, step)? else { continue };
                let (diff_id, tar_size_bytes) = (step.diff_id.clone(), layer.record.tar_size_bytes);
                let sent = Sent { diff_id, tar_size_bytes, blob: None, index, encoded };
                config.layers.push(parts.layer(sent, false)?);
                config.layers.len() - 1
            }
        };
        let step = parts.step(store, step, layer)?;
        if !config.steps.contains(&step) {
            config.steps.push(step);
        }
    }
    shorten(&mut config, INLINE_BYTES_MAX);
    Ok((!config.steps.is_empty()).then(|| serde_json::to_value(&config).unwrap_or_default()))
}

/// Leaves out what is longest until the rest is short enough.
fn shorten(config: &mut Config, bytes_max: usize) {
    let mut length = config.to_json().len();
    while length > bytes_max {
        let sizes = config.steps.iter().map(|step| step.inputs.as_ref().map_or(0, |part| part.blob.size));
        let longest = sizes.enumerate().filter(|(_, size)| *size > 0).max_by_key(|(_, size)| *size);
        match longest.and_then(|(position, _)| config.steps.get_mut(position)) {
            // Without what it used, what is noted of the run is of no use.
            Some(step) => (step.inputs, step.facts, step.record) = (None, None, None),
            None => {
                if config.steps.pop().is_none() {
                    return;
                }
                let needed = config.steps.iter().map(|step| step.layer + 1).max().unwrap_or_default();
                config.layers.truncate(needed);
            }
        }
        length = config.to_json().len();
    }
}

#[cfg(test)]
mod tests {
    use mica_oci::{Descriptor, DiffId, Digest};

    use super::*;
    use crate::config::{Key, Layer, PART_MEDIA_TYPE, Part, Step};

    fn part(size: usize) -> Part {
        let mut blob = Descriptor::new(PART_MEDIA_TYPE, Digest::sha256(b"x"), size as u64);
        blob.data = Some("A".repeat(size));
        Part { size: 1, blob }
    }

    #[test]
    fn what_is_longest_goes_first() {
        let step = |layer, size| Step {
            exact: Some(Key([layer as u8; 32])),
            record: Some(Key([9; 32])),
            family: Key([0; 32]),
            shape: Key([0; 32]),
            layer,
            made: 0,
            created: 0,
            network: None,
            facts: Some(Value::Bool(true)),
            inputs: Some(part(size)),
        };
        let diff_id = DiffId(Digest::sha256(b"d"));
        let layer = Layer {
            diff_id,
            tar_size: 1,
            blob: None,
            unsaid: part(10),
            index_digest: Digest::sha256(b"i"),
            index: None,
        };
        let whole = Config {
            version: VERSION,
            steps: vec![step(0, 100), step(1, 90_000), step(2, 3000)],
            layers: vec![layer.clone(), layer.clone(), layer],
            mounts: Vec::new(),
        };
        let check = |bytes_max: usize, expect: &[bool]| {
            let mut config = whole.clone();
            shorten(&mut config, bytes_max);
            let with_inputs: Vec<bool> = config.steps.iter().map(|step| step.inputs.is_some()).collect();
            assert_eq!(with_inputs, expect, "{bytes_max}");
            assert!(config.to_json().len() <= bytes_max.max(100));
            assert!(config.steps.iter().all(|step| step.layer < config.layers.len()));
            assert_eq!(config.layers.len(), config.steps.len());
        };
        check(1 << 20, &[true, true, true]);
        check(50_000, &[true, false, true]);
        check(4000, &[true, false, false]);
        check(1500, &[false, false]);
        check(10, &[]);
    }
}
