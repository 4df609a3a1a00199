//! The order in which stages can be planned: each behind those that it needs, else as in the file.

use crate::reach::NeededInstruction;
use crate::stage_table::{SourceRef, StageBase, StageTable, source_names};
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::Dockerfile;

/// Why a stage needs another one.
struct Need {
    /// The other one.
    stage: usize,
    /// The place that says so.
    span: Span,
}

/// The stages that have instructions in `instructions`, in order. It is an error if some need each other: an instruction
/// may read from a stage that stands further down.
pub(crate) fn order(
    dockerfile: &Dockerfile,
    table: &StageTable<'_>,
    instructions: &[Option<Vec<NeededInstruction>>],
) -> Result<Vec<usize>, Diagnostic> {
    let mut order = Vec::with_capacity(instructions.len());
    let mut is_done = vec![false; instructions.len()];
    let mut is_on_way = vec![false; instructions.len()];
    for first in (0..instructions.len()).filter(|stage| matches!(instructions.get(*stage), Some(Some(_)))) {
        // Stages on the way, each with what it still needs.
        let mut way: Vec<(usize, Vec<Need>)> = Vec::new();
        let mut next = Some(first);
        loop {
            if let Some(stage) = next.take().filter(|stage| !is_done.get(*stage).copied().unwrap_or(true)) {
                let mut needs = needs(dockerfile, table, instructions, stage);
                // They are taken from the end.
                needs.reverse();
                way.push((stage, needs));
                set(&mut is_on_way, stage, true);
            }
            let Some((stage, needs)) = way.last_mut() else { break };
            let stage = *stage;
            let Some(need) = needs.pop() else {
                set(&mut is_done, stage, true);
                set(&mut is_on_way, stage, false);
                order.push(stage);
                way.pop();
                continue;
            };
            if is_on_way.get(need.stage).copied().unwrap_or(false) {
                let way = way.iter().map(|(stage, _)| *stage);
                let circle: Vec<usize> = way.skip_while(|stage| *stage != need.stage).collect();
                return Err(circular(table, &circle, need.span));
            }
            next = Some(need.stage);
        }
    }
    Ok(order)
}

fn set(flags: &mut [bool], stage: usize, value: bool) {
    if let Some(flag) = flags.get_mut(stage) {
        *flag = value;
    }
}

fn needs(
    dockerfile: &Dockerfile,
    table: &StageTable<'_>,
    instructions: &[Option<Vec<NeededInstruction>>],
    stage: usize,
) -> Vec<Need> {
    let from_span = dockerfile.stages.get(stage).map(|stage| stage.from_span).unwrap_or_default();
    let mut needs = Vec::new();
    if let Some(StageBase::Stage(base)) = table.entries.get(stage).map(|entry| &entry.base) {
        needs.push(Need { stage: *base, span: from_span });
    }
    for needed in instructions.get(stage).and_then(Option::as_ref).into_iter().flatten() {
        for (source, name) in needed.sources.iter().zip(source_names(&needed.instruction)) {
            if let (Some(SourceRef::Stage(other)), Some((_, span))) = (source, name) {
                let span = if needed.is_trigger { from_span } else { span };
                needs.push(Need { stage: *other, span });
            }
        }
    }
    needs
}

fn circular(table: &StageTable<'_>, circle: &[usize], span: Span) -> Diagnostic {
    let name = |stage: &usize| table.entries.get(*stage).map(|entry| entry.name.as_str()).unwrap_or_default();
    let mut names: Vec<String> = circle.iter().map(|stage| format!("`{}`", name(stage))).collect();
    names.extend(names.first().cloned());
    let message = format!("stages need each other: {}", names.join(" needs "));
    Diagnostic::error(span, message).hint("put what both need into a stage of its own")
}
