//! What the target needs: stages, their instructions with the triggers of their bases, and images.

use crate::environment::Environment;
use crate::global_args::global_args;
use crate::graph::{BaseImage, BaseRequest, FilesystemState, ImageKey, PlanOptions};
use crate::stage_order;
use crate::stage_table::{SourceRef, StageBase, StageTable, source_names};
use mica_diagnostic::{Diagnostic, Source, Span};
use mica_dockerfile::instruction::{Instruction, InstructionKind};
use mica_dockerfile::{Dockerfile, parse_trigger};
use mica_oci::Reference;
use std::collections::HashMap;

/// Gives the images that are known.
pub(crate) type Bases<'b, 'a> = &'b dyn Fn(&ImageKey) -> Option<&'a BaseImage>;

/// Most triggers in one plan. Each stage repeats those of its base, so a small file could ask for any number.
const TRIGGERS_MAX: usize = 10_000;

/// An instruction of a needed stage.
#[derive(Debug, Clone)]
pub(crate) struct NeededInstruction {
    /// What is to be done.
    pub instruction: Instruction,
    /// Whether it is an ONBUILD trigger of the base, so its spans point into the trigger and not into the file.
    pub is_trigger: bool,
    /// As [`source_names`] has them.
    pub sources: Vec<Option<SourceRef>>,
}

/// All that the target needs.
pub(crate) struct Reach<'a> {
    /// The stages.
    pub table: StageTable<'a>,
    /// Variables of global scope.
    pub global_args: Environment,
    /// The stage that was asked for.
    pub target: usize,
    /// By stage; `None` where the target does not need it.
    pub needed: Vec<Option<Vec<NeededInstruction>>>,
    /// The needed stages, each behind those that it needs.
    pub order: Vec<usize>,
    /// Whether there is one stage only and no other source, so that names of steps leave the stage out.
    pub is_single: bool,
}

impl<'a> Reach<'a> {
    /// Follows bases and sources from the target. Triggers of images that `bases` does not know are not followed.
    pub fn new(
        dockerfile: &Dockerfile,
        options: &'a PlanOptions,
        bases: Bases<'_, '_>,
    ) -> Result<Self, Vec<Diagnostic>> {
        let global_args = global_args(dockerfile, options)?;
        let mut errors = Vec::new();
        let table = StageTable::new(dockerfile, options, &global_args, &mut errors);
        let mut own = Vec::with_capacity(dockerfile.stages.len());
        for (position, stage) in dockerfile.stages.iter().enumerate() {
            let mut instructions = Vec::with_capacity(stage.instructions.len());
            for instruction in &stage.instructions {
                match with_sources(&table, instruction.clone(), position, None) {
                    Ok(instruction) => instructions.push(instruction),
                    Err(error) => errors.push(error),
                }
            }
            own.push(instructions);
        }
        let target = match table.target() {
            Ok(target) if target < own.len() => target,
            Ok(_) => return Err(vec![Diagnostic::error(Span::default(), "there is no stage to build")]),
            Err(error) => {
                errors.push(error);
                return Err(errors);
            }
        };
        if !errors.is_empty() {
            return Err(errors);
        }
        let own: Vec<_> = own.into_iter().map(Some).collect();
        stage_order::order(dockerfile, &table, &own).map_err(|error| vec![error])?;
        let has_other_sources =
            own.iter().flatten().flatten().flat_map(|instruction| &instruction.sources).any(Option::is_some);
        let mut reach = Self {
            is_single: own.len() == 1 && !has_other_sources,
            table,
            global_args,
            target,
            needed: Vec::new(),
            order: Vec::new(),
        };
        reach.needed.resize_with(own.len(), || None);
        reach.follow(dockerfile, &own, bases)?;
        // Triggers may need more than the stages say.
        reach.order =
            stage_order::order(dockerfile, &reach.table, &reach.needed).map_err(|error| vec![error])?;
        Ok(reach)
    }

    fn follow(
        &mut self,
        dockerfile: &Dockerfile,
        own: &[Option<Vec<NeededInstruction>>],
        bases: Bases<'_, '_>,
    ) -> Result<(), Vec<Diagnostic>> {
        let mut errors = Vec::new();
        let mut triggers_left = TRIGGERS_MAX;
        // Each stage is gone through once, so this ends.
        let mut waiting = vec![self.target];
        while let Some(position) = waiting.pop() {
            let (Some(entry), Some(stage), Some(Some(own))) =
                (self.table.entries.get(position), dockerfile.stages.get(position), own.get(position))
            else {
                continue;
            };
            if self.needed.get(position).is_none_or(Option::is_some) {
                continue;
            }
            let mut instructions = Vec::new();
            let triggers = self.triggers(dockerfile, position, bases);
            triggers_left = triggers_left.saturating_sub(triggers.len());
            if triggers_left == 0 {
                errors.push(Diagnostic::error(
                    stage.from.base.span,
                    format!("the bases up to here have more than {TRIGGERS_MAX} triggers"),
                ));
                break;
            }
            for (number, text) in triggers.into_iter().enumerate() {
                let source = Source::new(&format!("trigger {} of {}", number + 1, entry.base_text), &text);
                match parse_trigger(source) {
                    Ok(instruction) => {
                        match with_sources(&self.table, instruction, position, Some(stage.from_span)) {
                            Ok(instruction) => instructions.push(instruction),
                            Err(error) => errors.push(error.note(format!("in the base's trigger: {text}"))),
                        }
                    }
                    Err(problems) => errors.extend(problems.into_iter().map(|problem| {
                        let note = format!("in the base's trigger: {text}");
                        Diagnostic { span: stage.from.base.span, ..problem }.note(note)
                    })),
                }
            }
            if !entry.replaced {
                instructions.extend_from_slice(own);
            }
            if let StageBase::Stage(base) = entry.base {
                waiting.push(base);
            }
            let stages =
                instructions.iter().flat_map(|instruction| &instruction.sources).filter_map(|source| {
                    match source {
                        Some(SourceRef::Stage(stage)) => Some(*stage),
                        _ => None,
                    }
                });
            waiting.extend(stages);
            if let Some(slot) = self.needed.get_mut(position) {
                *slot = Some(instructions);
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }

    /// Texts of the triggers that a stage's base left for it.
    fn triggers(&self, dockerfile: &Dockerfile, position: usize, bases: Bases<'_, '_>) -> Vec<String> {
        let Some(entry) = self.table.entries.get(position).filter(|entry| !entry.replaced) else {
            return Vec::new();
        };
        match &entry.base {
            StageBase::Image(key) => {
                bases(key).map(|base| base.config.config.on_build.clone()).unwrap_or_default()
            }
            StageBase::Stage(base) => {
                let replaced = self.table.entries.get(*base).is_none_or(|entry| entry.replaced);
                let instructions =
                    dockerfile.stages.get(*base).filter(|_| !replaced).map(|stage| &stage.instructions);
                let triggers =
                    instructions.into_iter().flatten().filter_map(|instruction| match &instruction.kind {
                        InstructionKind::Onbuild(text) => Some(text.clone()),
                        _ => None,
                    });
                triggers.collect()
            }
            StageBase::Scratch | StageBase::Files(_) => Vec::new(),
        }
    }

    /// The images among all that is needed, each once.
    pub fn images(&self, dockerfile: &Dockerfile) -> Vec<BaseRequest> {
        let mut requests: Vec<BaseRequest> = Vec::new();
        let mut places: HashMap<ImageKey, usize> = HashMap::new();
        let mut add = |key: &ImageKey, as_written: &str, span: Span, is_base: bool| {
            let place = *places.entry(key.clone()).or_insert(requests.len());
            match requests.get_mut(place) {
                Some(request) => request.is_base |= is_base,
                None => requests.push(BaseRequest {
                    key: key.clone(),
                    as_written: name_of(key, as_written),
                    span,
                    is_base,
                }),
            }
        };
        let stages = dockerfile.stages.iter().zip(&self.table.entries).zip(&self.needed);
        for ((stage, entry), needed) in stages {
            let Some(instructions) = needed else { continue };
            if let StageBase::Image(key) = &entry.base {
                add(key, &entry.base_text, stage.from.base.span, true);
            }
            for needed in instructions {
                for (source, name) in needed.sources.iter().zip(source_names(&needed.instruction)) {
                    if let (Some(SourceRef::State(FilesystemState::Image(key))), Some((name, span))) =
                        (source, name)
                    {
                        add(key, name, if needed.is_trigger { stage.from_span } else { span }, false);
                    }
                }
            }
        }
        requests
    }
}

/// The name that an image is looked for under: as written, unless a named context stands for that.
fn name_of(key: &ImageKey, as_written: &str) -> String {
    let written = Reference::parse(as_written).map(|written| written.with_default_tag());
    match written.is_ok_and(|written| written == key.reference.with_default_tag()) {
        true => as_written.to_string(),
        false => key.reference.familiar(),
    }
}

fn with_sources(
    table: &StageTable<'_>,
    instruction: Instruction,
    position: usize,
    trigger_span: Option<Span>,
) -> Result<NeededInstruction, Diagnostic> {
    let sources = source_names(&instruction)
        .into_iter()
        .map(|name| {
            name.map(|(name, span)| table.source(name, position, trigger_span.unwrap_or(span))).transpose()
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(NeededInstruction { sources, is_trigger: trigger_span.is_some(), instruction })
}
