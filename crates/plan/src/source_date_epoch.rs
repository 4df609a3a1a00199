//! SOURCE_DATE_EPOCH: a number, or the name of something that has a time.

use crate::copy::{remote_source, wrong_address};
use crate::environment::{Budget, Environment, Expander};
use crate::global_args::{SOURCE_DATE_EPOCH, build_arg};
use crate::graph::{PlanOptions, SourceDateEpoch};
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::Dockerfile;
use mica_dockerfile::instruction::{CopySource, InstructionKind, Stage};

/// From the year 1 to the year 9999: what an image can tell.
const IN_FOUR_DIGITS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;

/// What the argument means, wherever it was given.
pub(crate) fn resolve(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    global_args: &Environment,
) -> Result<Option<SourceDateEpoch>, Diagnostic> {
    let given = build_arg(options, SOURCE_DATE_EPOCH);
    let Some(text) = given
        .or_else(|| global_args.get(SOURCE_DATE_EPOCH).map(str::to_string))
        .filter(|text| !text.is_empty())
    else {
        return Ok(None);
    };
    if let Some(seconds) = text.parse::<i64>().ok().filter(|seconds| IN_FOUR_DIGITS.contains(seconds)) {
        return Ok(Some(SourceDateEpoch::Seconds(seconds)));
    }
    if text == "context" {
        return Ok(Some(SourceDateEpoch::Context));
    }
    if let Some(context) =
        options.named_contexts.iter().find(|context| context.name.eq_ignore_ascii_case(&text))
    {
        return Ok(Some(SourceDateEpoch::NamedContext(context.name.clone())));
    }
    let is_it =
        |stage: &&Stage| stage.from.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(&text));
    match dockerfile.stages.iter().find(is_it) {
        Some(stage) => stage_source(dockerfile, options, global_args, stage).map(Some),
        None => {
            let defined = dockerfile.meta_args.iter().find(|arg| arg.value.key.value == SOURCE_DATE_EPOCH);
            let span = defined.map_or(Span::default(), |arg| arg.span);
            Err(Diagnostic::error(span, format!("`{text}` is not a SOURCE_DATE_EPOCH"))
                .hint("give seconds since 1970, `context`, or the name of a stage or named context"))
        }
    }
}

/// The one thing that a stage of nothing but ARG and ADD fetches.
fn stage_source(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
    global_args: &Environment,
    stage: &Stage,
) -> Result<SourceDateEpoch, Diagnostic> {
    let wrong = |span: Span, message: &str| {
        Diagnostic::error(span, message).note("SOURCE_DATE_EPOCH names this stage, so it may only fetch one thing: `FROM scratch`, ARG and one ADD")
    };
    let mut variables = global_args.clone();
    if stage.from.base.value != "scratch" {
        return Err(wrong(
            stage.from.base.span,
            "the stage of SOURCE_DATE_EPOCH does not begin from scratch",
        ));
    }
    let budget = Budget::new();
    let mut found = None;
    for instruction in &stage.instructions {
        let expander =
            Expander { escape: dockerfile.escape, environment: &variables, budget: &budget, undefined: None };
        match &instruction.kind {
            InstructionKind::Arg(args) => {
                let mut values = Vec::new();
                for arg in args {
                    let default = arg.value.as_ref().map(|word| expander.word(word)).transpose()?;
                    values.extend(
                        build_arg(options, &arg.key.value)
                            .or(default)
                            .map(|value| (arg.key.value.clone(), value)),
                    );
                }
                values.iter().for_each(|(name, value)| variables.set(name, value));
            }
            InstructionKind::Copy(copy) if copy.add && found.is_none() => {
                let [CopySource::Path(word)] = copy.sources.as_slice() else {
                    return Err(wrong(
                        instruction.span,
                        "the stage of SOURCE_DATE_EPOCH adds more than one thing",
                    ));
                };
                let text = expander.word(word)?;
                let remote = remote_source(&text, copy.keep_git_dir.is_some())
                    .map_err(|error| Diagnostic::error(word.span, wrong_address(&text, &error)))?;
                found = Some(remote.ok_or_else(|| {
                    wrong(word.span, "the stage of SOURCE_DATE_EPOCH adds something that is not fetched")
                })?);
            }
            _ => {
                return Err(wrong(stage.from_span, "the stage of SOURCE_DATE_EPOCH does more than to fetch"));
            }
        }
    }
    found
        .map(SourceDateEpoch::Remote)
        .ok_or_else(|| wrong(stage.from_span, "the stage of SOURCE_DATE_EPOCH fetches nothing"))
}
