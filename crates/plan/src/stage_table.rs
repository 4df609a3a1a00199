//! The stages of a file: what each begins with, and whose files its instructions read.

use crate::base_name::{closest, parse_image_name};
use crate::environment::{Budget, Environment, Expander};
use crate::graph::{FilesystemState, ImageKey, NamedContext, PlanOptions};
use crate::platform_name::meant_platform;
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::Dockerfile;
use mica_dockerfile::expand::expand_word;
use mica_dockerfile::instruction::{Instruction, InstructionKind, RunMountKind, Stage, Word};
use mica_oci::{Platform, Reference};
use std::collections::HashMap;

/// What a stage begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StageBase {
    /// `FROM scratch`
    Scratch,
    /// An earlier stage.
    Stage(usize),
    /// An image.
    Image(ImageKey),
    /// A named context that is not an image.
    Files(String),
}

/// Whose files an instruction reads.
#[expect(
    clippy::large_enum_variant,
    reason = "there are as many as instructions, and a box would be in every pattern"
)]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SourceRef {
    /// What an earlier stage has when it is done.
    Stage(usize),
    /// Something that needs no planning.
    State(FilesystemState),
}

/// A stage as far as its FROM tells.
#[derive(Debug, Clone)]
pub(crate) struct StageEntry {
    /// The name after AS, or `stage-N`.
    pub name: String,
    /// What it begins with.
    pub base: StageBase,
    /// The base as written, variables expanded.
    pub base_text: String,
    /// What it is built for: `--platform`, or the base stage's, or the target.
    pub platform: Platform,
    /// A named context of its name stands for it: its instructions are not looked at.
    pub replaced: bool,
    /// Whether the name was written.
    named: bool,
}

/// All stages, in order of the file.
#[derive(Debug)]
pub(crate) struct StageTable<'a> {
    options: &'a PlanOptions,
    /// One per stage of the file.
    pub entries: Vec<StageEntry>,
    /// Positions of the stages of each name, in lower case.
    by_name: HashMap<String, Vec<usize>>,
}

impl<'a> StageTable<'a> {
    /// Resolves all FROMs; problems go to `errors`, and the stage counts as begun from nothing.
    pub fn new(
        dockerfile: &Dockerfile,
        options: &'a PlanOptions,
        global_args: &Environment,
        errors: &mut Vec<Diagnostic>,
    ) -> Self {
        let mut table =
            Self { options, entries: Vec::with_capacity(dockerfile.stages.len()), by_name: HashMap::new() };
        let budget = Budget::new();
        let expander = Expander {
            escape: dockerfile.escape,
            environment: global_args,
            budget: &budget,
            undefined: None,
        };
        for (position, stage) in dockerfile.stages.iter().enumerate() {
            let entry = table.entry(position, stage, &expander).unwrap_or_else(|error| {
                errors.push(error);
                StageEntry {
                    name: stage_name(position, stage),
                    base: StageBase::Scratch,
                    base_text: String::new(),
                    platform: options.platform.clone(),
                    replaced: false,
                    named: stage.from.name.is_some(),
                }
            });
            if entry.named {
                table.by_name.entry(entry.name.to_ascii_lowercase()).or_default().push(position);
            }
            table.entries.push(entry);
        }
        table
    }

    fn entry(
        &self,
        position: usize,
        stage: &Stage,
        expander: &Expander<'_>,
    ) -> Result<StageEntry, Diagnostic> {
        let span = stage.from.base.span;
        let base_text = expander.word(&stage.from.base)?;
        if base_text.is_empty() {
            let message = format!("the base name `{}` is empty", stage.from.base.value);
            return Err(with_undefined(Diagnostic::error(span, message), &stage.from.base, expander));
        }
        let written_platform = match &stage.from.platform {
            None => None,
            Some(word) => {
                let text = expander.word(word)?;
                if text.is_empty() {
                    let message = format!("the platform `{}` is empty", word.value);
                    return Err(with_undefined(Diagnostic::error(word.span, message), word, expander));
                }
                Some(parse_platform(&text, word.span)?)
            }
        };
        let mut platform = written_platform.clone().unwrap_or_else(|| self.options.platform.clone());
        let name = stage_name(position, stage);
        let named = stage.from.name.is_some();
        let context = stage.from.name.as_ref().and_then(|name| self.named_context(&name.value, &platform));
        let replaced = context.is_some();
        let base = if let Some(context) = context {
            context_base(context, &platform)
        } else if let Some(base) = self.find_before(&base_text, position) {
            if let Some(entry) = self.entries.get(base) {
                platform = entry.platform.clone();
            }
            StageBase::Stage(base)
        } else if base_text == "scratch" {
            // BuildKit ignores --platform here: there is nothing to choose.
            platform = self.options.platform.clone();
            StageBase::Scratch
        } else if let Some(context) = self.named_context(&base_text, &platform) {
            context_base(context, &platform)
        } else {
            let reference = parse_image_name(&base_text, span, &|| self.names())
                .map_err(|error| with_undefined(error, &stage.from.base, expander))?;
            StageBase::Image(ImageKey { reference, platform: platform.clone() })
        };
        Ok(StageEntry { name, base, base_text, platform, replaced, named })
    }

    /// The stage to build.
    pub fn target(&self) -> Result<usize, Diagnostic> {
        let last = self.entries.len().saturating_sub(1);
        let Some(target) = &self.options.target else { return Ok(last) };
        if let Some(found) = self.find_before(target, self.entries.len()) {
            return Ok(found);
        }
        if let Some(number) = target.parse::<usize>().ok().filter(|number| *number < self.entries.len()) {
            return Ok(number);
        }
        let names = self.names();
        let diagnostic = Diagnostic::error(Span::default(), format!("there is no stage `{target}` to build"));
        Err(match closest(target, names.iter().map(String::as_str)) {
            Some(close) => diagnostic.hint(format!("did you mean `{close}`?")),
            None if names.is_empty() => diagnostic.hint("name a stage with `FROM IMAGE AS NAME`"),
            None => diagnostic.note(format!("stages: {}", names.join(", "))),
        })
    }

    /// The last stage of that name before `position`. Names are compared without case.
    pub fn find_before(&self, name: &str, position: usize) -> Option<usize> {
        let positions = self.by_name.get(&name.to_ascii_lowercase())?;
        let count = positions.partition_point(|other| *other < position);
        positions.get(count.checked_sub(1)?).copied()
    }

    /// Names that were given to stages.
    fn names(&self) -> Vec<String> {
        self.entries.iter().filter(|entry| entry.named).map(|entry| entry.name.clone()).collect()
    }

    /// The named context that stands for `name`.
    fn named_context(&self, name: &str, platform: &Platform) -> Option<&'a NamedContext> {
        if name.eq_ignore_ascii_case("scratch") || name.eq_ignore_ascii_case("context") {
            return None;
        }
        let reference = Reference::parse(name).ok();
        let is_it = |given: &str| {
            given.eq_ignore_ascii_case(name)
                || (reference.is_some() && Reference::parse(given).ok() == reference)
        };
        let exact = self.options.named_contexts.iter().find(|context| {
            let Some((given, given_platform)) = context.name.split_once("::") else { return false };
            is_it(given) && Platform::parse(given_platform).is_ok_and(|given| given.is_same(platform))
        });
        exact.or_else(|| self.options.named_contexts.iter().find(|context| is_it(&context.name)))
    }

    /// Whose files `--from=name` means in stage `position`.
    pub fn source(&self, name: &str, position: usize, span: Span) -> Result<SourceRef, Diagnostic> {
        if !expand_word(name, '\\', &|_| None).is_ok_and(|expanded| expanded.text == name) {
            return Err(Diagnostic::error(span, format!("`from` takes no variable: `{name}`"))
                .hint("begin a stage with it instead (`FROM $NAME AS source`, with an ARG before the first FROM) and use that stage"));
        }
        if let Some(found) = self.find_before(name, position) {
            return Ok(SourceRef::Stage(found));
        }
        let later = self.find_before(name, self.entries.len());
        let number = name.parse::<usize>().ok();
        match (later.or(number), self.entries.len()) {
            (Some(found), _) if found == position => {
                return Err(Diagnostic::error(span, format!("stage `{name}` needs itself")));
            }
            // It may stand further down, as with BuildKit.
            (Some(found), count) if found < count => return Ok(SourceRef::Stage(found)),
            (Some(_), count) => {
                return Err(Diagnostic::error(
                    span,
                    format!("there is no stage `{name}`, the last one is {}", count.saturating_sub(1)),
                ));
            }
            (None, _) => {}
        }
        let platform = &self.options.platform;
        let state = if name == "scratch" {
            FilesystemState::Scratch
        } else if let Some(context) = self.named_context(name, platform) {
            match context_base(context, platform) {
                StageBase::Image(key) => FilesystemState::Image(key),
                _ => FilesystemState::NamedContext(context.name.clone()),
            }
        } else {
            let reference = parse_image_name(name, span, &|| self.names())?;
            FilesystemState::Image(ImageKey { reference, platform: platform.clone() })
        };
        Ok(SourceRef::State(state))
    }
}

/// A platform as written, and what it may have been meant to be.
fn parse_platform(text: &str, span: Span) -> Result<Platform, Diagnostic> {
    let parsed = Platform::parse(text).map_err(|error| Diagnostic::error(span, error.to_string()));
    match (parsed, meant_platform(text)) {
        (Ok(platform), None) => Ok(platform),
        (Ok(_), Some(meant)) => Err(Diagnostic::error(span, format!("nothing is known to run as `{text}`"))
            .hint(format!("did you mean `{meant}`?"))),
        (Err(error), Some(meant)) => Err(error.hint(format!("did you mean `{meant}`?"))),
        (Err(error), None) => Err(error),
    }
}

/// Tells which variables of a word in FROM have no value, since that is what is wrong then.
fn with_undefined(error: Diagnostic, word: &Word, expander: &Expander<'_>) -> Diagnostic {
    let Some(name) = expander.undefined(word).into_iter().next() else { return error };
    let platform_args = ["BUILDPLATFORM", "TARGETPLATFORM"];
    let hint = match closest(&name, platform_args) {
        Some(meant) => format!("did you mean `${meant}`?"),
        None => format!(
            "`{name}` has no value here: add `ARG {name}=VALUE` before the first FROM, or pass `--build-arg {name}=VALUE`"
        ),
    };
    Diagnostic { hint: None, ..error }.hint(hint)
}

fn stage_name(position: usize, stage: &Stage) -> String {
    stage.from.name.as_ref().map_or_else(|| format!("stage-{position}"), |name| name.value.clone())
}

fn context_base(context: &NamedContext, platform: &Platform) -> StageBase {
    match &context.image {
        Some(reference) => {
            StageBase::Image(ImageKey { reference: reference.clone(), platform: platform.clone() })
        }
        None => StageBase::Files(context.name.clone()),
    }
}

/// The `from` of an instruction, one per COPY or mount, in order; `None` for the build context or nothing.
pub(crate) fn source_names(instruction: &Instruction) -> Vec<Option<(&str, Span)>> {
    match &instruction.kind {
        InstructionKind::Copy(copy) => vec![copy.from.as_ref().map(|from| (from.value.as_str(), from.span))],
        InstructionKind::Run(run) => {
            let reads = |kind| matches!(kind, RunMountKind::Bind | RunMountKind::Cache);
            run.mounts
                .iter()
                .map(|mount| {
                    let name = mount
                        .value
                        .from
                        .as_deref()
                        .filter(|name| !name.is_empty() && reads(mount.value.kind));
                    name.map(|name| (name, mount.span))
                })
                .collect()
        }
        _ => Vec::new(),
    }
}
