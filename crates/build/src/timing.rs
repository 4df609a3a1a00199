//! What is told of steps beside their names and verdicts, for a picture of the build. Costs a look at the store for each step,
//! so it is told only where the request asks for it.

use mica_plan::{FileSource, FilesystemState, Operation, Step, StepMount};

use crate::build::Build;
use crate::event::Event;
use crate::outcomes::Outcome;

/// A step of the graph as it was planned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedStep {
    /// Name of its stage, with the platform where there are several.
    pub stage: String,
    /// Line of the instruction in the Dockerfile, from 1.
    pub line: usize,
    /// What it has to wait for, the filesystem that it starts from first.
    pub inputs: Vec<StepInput>,
}

/// What a step waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepInput {
    /// An earlier step, by its position.
    Step(usize),
    /// A base image, by its canonical name.
    Image(String),
    /// The build context.
    Context,
    /// A named build context.
    NamedContext(String),
}

/// What is known of a step's result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepResult {
    /// Length of its layer as a tar.
    pub layer_bytes: u64,
    /// What it copied out of the build context, where it did that in this build.
    pub copied_bytes: Option<u64>,
    /// How long the run took that made the layer, in whole seconds, for a result of an earlier build.
    pub earlier_s: Option<u64>,
}

impl Build<'_> {
    /// Tells what the steps are.
    pub(crate) fn tell_graph(&self) {
        if self.request.timings {
            let steps = self.graph.steps.iter().map(|step| self.planned(step)).collect();
            (self.events)(Event::Graph { steps });
        }
    }

    fn planned(&self, step: &Step) -> PlannedStep {
        let stage = self.graph.stage_names.get(step.stage).cloned();
        let state = |state: &FilesystemState| match state {
            FilesystemState::Scratch => None,
            FilesystemState::Image(key) => Some(StepInput::Image(key.reference.canonical())),
            FilesystemState::NamedContext(name) => Some(StepInput::NamedContext(name.clone())),
            FilesystemState::Step(id) => Some(StepInput::Step(id.0)),
        };
        let mut inputs: Vec<StepInput> = step.inputs().into_iter().filter_map(state).collect();
        if reads_context(step) {
            inputs.push(StepInput::Context);
        }
        let stage = stage.unwrap_or_default();
        PlannedStep {
            stage: match self.request.platforms.len() {
                0 | 1 => stage,
                _ => format!("{stage} ({})", step.platform),
            },
            line: self.request.dockerfile.line(step.span.start),
            inputs,
        }
    }

    /// Tells what a step's result weighs and once took.
    pub(crate) fn tell_result(&self, step: &Step, outcome: &Outcome, ran: bool) {
        let Some((layer, _)) = outcome.chain.top_layer().filter(|_| self.request.timings) else { return };
        let copies = ran && matches!(step.operation, Operation::Copy(_)) && reads_context(step);
        let copied = copies.then(|| self.indexes.get(layer).ok()).flatten();
        let result = StepResult {
            layer_bytes: layer.record.tar_size_bytes,
            copied_bytes: copied.map(|index| index.content_size_bytes()),
            earlier_s: outcome.record.filter(|_| !ran).and_then(|record| self.run_took_s(record)),
        };
        (self.events)(Event::StepResult { step: step.id.0, result });
    }
}

fn reads_context(step: &Step) -> bool {
    match &step.operation {
        Operation::Copy(copy) => copy.from == FileSource::Context,
        Operation::Run(run) => {
            run.mounts.iter().any(|mount| matches!(mount, StepMount::Bind { from: FileSource::Context, .. }))
        }
        Operation::Workdir(_) => false,
    }
}
