//! Several graphs, one for each platform, as one: what two platforms do alike is one step.

use crate::cache_key::definition_key;
use crate::graph::{FilesystemState, Graph, SourceDateEpoch, StageResult, StepId};
use mica_diagnostic::Diagnostic;
use mica_oci::Platform;
use std::collections::HashMap;

/// What a joined graph makes for one platform.
#[derive(Debug, Clone)]
pub struct PlatformTarget {
    /// What it is for.
    pub platform: Platform,
    /// The stage that was asked for.
    pub result: StageResult,
    /// Its steps, in order of the graph.
    pub steps: Vec<StepId>,
    /// Where the times of its image come from, if SOURCE_DATE_EPOCH says so.
    pub source_date_epoch: Option<SourceDateEpoch>,
}

/// Makes one graph of those of several platforms, in their order. Its own target is the first one's. `None` for no graphs.
///
/// A step of a later graph that equals one of an earlier graph, on the same inputs, is that step: stages on the platform
/// that builds are the same for all, unless they use what they are built for.
pub fn join(graphs: Vec<(Platform, Graph)>) -> Option<(Graph, Vec<PlatformTarget>)> {
    let mut joined: Option<Graph> = None;
    let mut targets = Vec::with_capacity(graphs.len());
    let mut known: HashMap<[u8; 32], Vec<StepId>> = HashMap::new();
    for (platform, graph) in graphs {
        let Graph { steps, mut target, stage_names, source_date_epoch, unused_args, args } = graph;
        let into = joined.get_or_insert_with(|| Graph {
            steps: Vec::new(),
            target: target.clone(),
            stage_names,
            source_date_epoch: source_date_epoch.clone(),
            unused_args: unused_args.clone(),
            args,
        });
        into.unused_args.retain(|name| unused_args.contains(name));
        let is_first = targets.is_empty();
        let mut places = Vec::with_capacity(steps.len());
        let mut added = Vec::new();
        for mut step in steps {
            for state in step.inputs_mut() {
                moved(state, &places);
            }
            let key = definition_key(&step);
            let same = known.get(&key).into_iter().flatten().copied().find(|id| {
                into.steps.get(id.0).is_some_and(|other| {
                    step.id = *id;
                    *other == step
                })
            });
            let id = same.unwrap_or_else(|| {
                let id = StepId(into.steps.len());
                step.id = id;
                into.steps.push(step);
                added.push((key, id));
                id
            });
            places.push(id);
        }
        // Only now: two equal steps of one graph are two steps, as they are where there is one platform.
        for (key, id) in added {
            known.entry(key).or_default().push(id);
        }
        moved(&mut target.state, &places);
        for entry in &mut target.history {
            entry.step = entry.step.and_then(|step| places.get(step.0).copied());
        }
        if is_first {
            into.target = target.clone();
        }
        let mut steps = places;
        steps.sort_unstable();
        steps.dedup();
        targets.push(PlatformTarget { platform, result: target, steps, source_date_epoch });
    }
    joined.map(|graph| (graph, targets))
}

/// Adds the problems that are not told yet: most are the same for every platform.
pub fn add_new(problems: &mut Vec<Diagnostic>, more: Vec<Diagnostic>) {
    for problem in more {
        if !problems.contains(&problem) {
            problems.push(problem);
        }
    }
}

fn moved(state: &mut FilesystemState, places: &[StepId]) {
    if let FilesystemState::Step(id) = state
        && let Some(place) = places.get(id.0)
    {
        *id = *place;
    }
}
