//! What is kept beside the image of how its steps came about.

use mica_oci::ImageId;
use mica_plan::{Operation, Step, StepId, StepMount};
use mica_store::Store;

use crate::build::{Build, lock};
use crate::error::BuildError;
use crate::outcomes::Outcomes;
use crate::request::BuiltPlatform;
use crate::verdict::{BuildReport, StepReport, Verdict};

/// The report of a finished build. That of each image is kept beside it, unless nothing was done: then the last one that has
/// something to say stays.
pub(crate) fn report(
    build: &Build<'_>,
    images: &[BuiltPlatform],
    outcomes: &Outcomes,
) -> Result<BuildReport, BuildError> {
    let report_of = |is_meant: &dyn Fn(StepId) -> bool| BuildReport {
        version: BuildReport::VERSION,
        dockerfile: build.request.dockerfile.name.to_string(),
        built_unix_s: build.request.now_seconds,
        steps: build
            .graph
            .steps
            .iter()
            .filter(|step| is_meant(step.id))
            .filter_map(|step| of_step(build, step, outcomes))
            .collect(),
    };
    // Kept beside the image.
    let kept = if build.request.keep_image { images } else { &[] };
    for (image, target) in kept.iter().zip(build.targets) {
        let report = report_of(&|id| target.steps.binary_search(&id).is_ok());
        keep_report(build.store, &image.image, &report)?;
    }
    Ok(report_of(&|_| true))
}

/// Keeps a report beside an image of the store, unless it says nothing and there is one.
pub fn keep_report(store: &Store, image: &ImageId, report: &BuildReport) -> Result<(), BuildError> {
    let says_nothing = report.steps.iter().all(|step| step.verdict == Verdict::Chain);
    if !says_nothing || store.build_report(image)?.is_none() {
        let bytes = serde_json::to_vec(report).unwrap_or_default();
        store.put_build_report(image, &bytes)?;
    }
    Ok(())
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
