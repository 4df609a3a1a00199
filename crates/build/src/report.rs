//! What is kept beside the image of how its steps came about.

use mica_oci::ImageId;
use mica_plan::{Operation, Step, StepMount};

use crate::build::{Build, lock};
use crate::error::BuildError;
use crate::outcomes::Outcomes;
use crate::verdict::{BuildReport, StepReport, Verdict};

/// The report of a finished build. It is kept, unless nothing was done: then the last one that has something to say stays.
pub(crate) fn report(
    build: &Build<'_>,
    image: &ImageId,
    outcomes: &Outcomes,
) -> Result<BuildReport, BuildError> {
    let steps: Vec<_> = build.graph.steps.iter().filter_map(|step| of_step(build, step, outcomes)).collect();
    let report = BuildReport {
        version: BuildReport::VERSION,
        dockerfile: build.request.dockerfile.name.to_string(),
        built_unix_s: build.request.now_seconds,
        steps,
    };
    let says_nothing = report.steps.iter().all(|step| step.verdict == Verdict::Chain);
    if !says_nothing || build.store.build_report(image)?.is_none() {
        let bytes = serde_json::to_vec(&report).unwrap_or_default();
        build.store.put_build_report(image, &bytes)?;
    }
    Ok(report)
}

fn of_step(build: &Build<'_>, step: &Step, outcomes: &Outcomes) -> Option<StepReport> {
    let outcome = outcomes.get(step.id)?;
    let (verdict, elapsed_ms) = lock(&build.verdicts).get(&step.id).cloned()?;
    let mut trees = vec![String::new()];
    let instruction = match &step.operation {
        Operation::Run(run) => {
            trees.extend(run.mounts.iter().filter_map(|mount| match mount {
                StepMount::Bind { from, .. } => Some(build.place_name(from)),
                _ => None,
            }));
            "RUN"
        }
        Operation::Copy(copy) if copy.add => "ADD",
        Operation::Copy(_) => "COPY",
        Operation::Workdir(_) => "WORKDIR",
    };
    let (diff_id, _) = outcome.chain.top()?;
    Some(StepReport {
        name: step.name.clone(),
        line: build.request.dockerfile.line(step.span.start),
        instruction: instruction.to_owned(),
        verdict,
        diff_id: diff_id.to_string(),
        record: outcome.record,
        network: outcome.network,
        elapsed_ms,
        trees,
    })
}
