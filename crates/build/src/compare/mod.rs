//! Two builds of the same thing, step by step: what differs, and which step made it so first.
//!
//! A step that was shown the same and made something else is a cause. A step that used what earlier steps had left
//! differently follows from them; the records of what steps used tell one from the other.

mod content;
mod layers;

use std::collections::BTreeMap;

use mica_oci::DiffId;
use mica_store::Store;
use mica_trace::{Change, Record};

use crate::error::BuildError;
use crate::verdict::{BuildReport, StepReport, Verdict};

pub use content::{ContentDifference, TextLines};
pub use layers::{DifferentPath, PathDifference};

/// In the name of a step that has a secret.
const SECRET_MOUNT: &str = "type=secret";

/// When a build ran, seconds since 1970: times in between are times of the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BuildSpan {
    /// Just before it began.
    pub start_unix_s: i64,
    /// Just after it ended.
    pub end_unix_s: i64,
}

impl BuildSpan {
    /// The clock that files are stamped by lags a little.
    fn has(self, seconds: i64) -> bool {
        (self.start_unix_s - 1..=self.end_unix_s).contains(&seconds)
    }
}

/// What two builds made differently.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Comparison {
    /// In the order of the steps.
    pub steps: Vec<DifferentStep>,
    /// How many paths have nothing but the time of the moment in which they were written.
    pub paths_of_the_moment: usize,
}

/// A step whose two results differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DifferentStep {
    /// `[2/3] RUN make`
    pub name: String,
    /// Line of the instruction in the Dockerfile, from 1.
    pub line: usize,
    /// `RUN`, `COPY`, `ADD`, `WORKDIR`
    pub instruction: String,
    /// Whether it opened a network socket in either build; `None` when nobody looked.
    pub network: Option<bool>,
    /// Why.
    pub cause: Cause,
    /// In order of paths.
    pub paths: Vec<DifferentPath>,
}

/// Why the two results of a step differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cause {
    /// It was shown the same, and made something else.
    Own {
        /// A path of which it saw another time, where times of the moment were not compared.
        other_time: Option<String>,
    },
    /// It was shown something else.
    Follows {
        /// What it used, with the step that made it differently, as a position in [`Comparison::steps`].
        used: Vec<(String, Option<usize>)>,
    },
    /// What it used is not known, and steps before it differ.
    Unknown,
}

/// Compares two builds of the same graph. Where `moments` are given, times of the moment are no difference.
pub fn compare_builds(
    store: &Store,
    first: &BuildReport,
    second: &BuildReport,
    moments: Option<(BuildSpan, BuildSpan)>,
) -> Result<Comparison, BuildError> {
    let mut comparison = Comparison::default();
    // The step that last made a path differently.
    let mut makers = Makers::default();
    let mut had_secrets = false;
    for (one, other) in first.steps.iter().zip(&second.steps) {
        let is_told_already = one.verdict == Verdict::Shared && other.verdict == Verdict::Shared;
        if one.diff_id == other.diff_id || is_told_already {
            continue;
        }
        let (Some(left), Some(right)) = (layer_id(one), layer_id(other)) else { continue };
        let (mut paths, of_the_moment) = layers::compare(store, &left, &right, moments)?;
        comparison.paths_of_the_moment += of_the_moment;
        if paths.is_empty() {
            continue;
        }
        let cause = cause(store, one, other, &paths, &makers, moments.is_some())?;
        // What was made with a secret may hold it, and so may what follows from that.
        had_secrets |= one.name.contains(SECRET_MOUNT);
        if had_secrets && (one.name.contains(SECRET_MOUNT) || !matches!(cause, Cause::Own { .. })) {
            paths.iter_mut().for_each(DifferentPath::hide_lines);
        }
        let position = comparison.steps.len();
        for path in &paths {
            makers.add(path, position);
        }
        let network = match (one.network, other.network) {
            (Some(one), Some(other)) => Some(one || other),
            _ => None,
        };
        comparison.steps.push(DifferentStep {
            name: one.name.clone(),
            line: one.line,
            instruction: one.instruction.clone(),
            network,
            cause,
            paths,
        });
    }
    Ok(comparison)
}

fn layer_id(step: &StepReport) -> Option<DiffId> {
    step.diff_id.parse().ok()
}

/// Which steps made what differently.
#[derive(Default)]
struct Makers {
    by_path: BTreeMap<Vec<u8>, usize>,
    /// By the digests of both contents: what COPY brings elsewhere is known by them.
    by_content: BTreeMap<[[u8; 32]; 2], (Vec<u8>, usize)>,
}

impl Makers {
    fn add(&mut self, path: &DifferentPath, step: usize) {
        self.by_path.insert(path.path.clone(), step);
        for difference in &path.differences {
            if let PathDifference::Content(content) = difference {
                self.by_content.entry(content.digests).or_insert((path.path.clone(), step));
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }
}

fn cause(
    store: &Store,
    one: &StepReport,
    other: &StepReport,
    paths: &[DifferentPath],
    makers: &Makers,
    ignore_times: bool,
) -> Result<Cause, BuildError> {
    let own = Cause::Own { other_time: None };
    if makers.is_empty() {
        return Ok(own);
    }
    let (Some(left), Some(right)) = (record(store, one)?, record(store, other)?) else {
        return Ok(Cause::Unknown);
    };
    let (mut used, mut other_time) = (Vec::new(), None);
    for (number, (left, right)) in left.trees.iter().zip(&right.trees).enumerate() {
        let found = mica_trace::compare_uses(left, right);
        let in_words = |path: &[u8]| match one.trees.get(number).map(String::as_str) {
            None | Some("") => format!("/{}", String::from_utf8_lossy(path)),
            Some(place) => format!("/{} in {place}", String::from_utf8_lossy(path)),
        };
        for (mut path, change) in found.changed {
            if let (Change::Time { .. }, true) = (&change, ignore_times) {
                other_time = other_time.or_else(|| Some(in_words(&path)));
                continue;
            }
            if let Change::Listing { name, .. } = &change {
                // The name says more than the directory.
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
            used.push((in_words(&path), makers.by_path.get(&path).copied()));
        }
        // What only one run looked for is mostly a name that was made up; unless it is one of those.
        for path in found.only_one {
            if let Some(maker) = makers.by_path.get(&path) {
                used.push((in_words(&path), Some(*maker)));
            }
        }
    }
    if one.instruction == "COPY" || one.instruction == "ADD" {
        used.extend(copied(paths, makers));
        // It makes nothing out of itself.
        if used.is_empty() && one.name.contains("--from=") {
            return Ok(Cause::Unknown);
        }
    }
    used.sort();
    used.dedup();
    Ok(if used.is_empty() { Cause::Own { other_time } } else { Cause::Follows { used } })
}

/// Files of earlier steps that have the same two contents as what was copied.
fn copied(paths: &[DifferentPath], makers: &Makers) -> Vec<(String, Option<usize>)> {
    let contents =
        paths.iter().flat_map(|path| &path.differences).filter_map(|difference| match difference {
            PathDifference::Content(content) => makers.by_content.get(&content.digests),
            _ => None,
        });
    contents.map(|(path, step)| (format!("/{}", String::from_utf8_lossy(path)), Some(*step))).collect()
}

fn record(store: &Store, step: &StepReport) -> Result<Option<Record>, BuildError> {
    let Some(id) = step.record else { return Ok(None) };
    let inputs = store.step_inputs(id)?;
    Ok(inputs.and_then(|inputs| Record::decode(&inputs).ok()))
}
