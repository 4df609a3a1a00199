//! Goes through the instructions of one stage and keeps what they have made of it so far.

use crate::environment::{Budget, Environment, Expander};
use crate::global_args::build_arg;
use crate::graph::{
    FilesystemState, HISTORY_COMMENT, ImageKey, PlanOptions, PlannedHistory, StageResult, StepId,
};
use crate::inspection::Inspection;
use crate::reach::NeededInstruction;
use crate::step::{FileSource, Operation, Step};
use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::instruction::{Instruction, InstructionKind, KeyValue};
use mica_oci::{ImageConfig, Platform};

/// Most ARGs of a stage: every RUN looks all of them up, and shows them in its history.
const ARGS_MAX: usize = 1_000;

/// What a stage is so far; a stage that begins with it takes a copy.
#[derive(Debug, Clone)]
pub(crate) struct StageState {
    /// Its files.
    pub files: FilesystemState,
    /// The image below all.
    pub base: Option<ImageKey>,
    /// What its image says.
    pub config: ImageConfig,
    /// ENV and ARG together: what a variable means here, and what RUN is given.
    pub environment: Environment,
    /// ARGs in the order of their first declaration, with their value at the last one.
    pub declared_args: Vec<(String, String)>,
    /// Entries after those of the base.
    pub history: Vec<PlannedHistory>,
}

impl StageState {
    /// About the bytes that a stage copies that begins with this one.
    pub fn size_bytes(&self) -> usize {
        let history: usize =
            self.history.iter().map(|entry| size_of_val(entry) + entry.created_by.len()).sum();
        let config = &self.config.config;
        let labels: usize = config.labels.iter().map(|(name, value)| 64 + name.len() + value.len()).sum();
        let names: usize =
            config.exposed_ports.keys().chain(config.volumes.keys()).map(|name| 64 + name.len()).sum();
        history + labels + names + 3 * self.environment.size_bytes()
    }

    /// The outcome, for the builder.
    pub fn into_result(self) -> StageResult {
        StageResult { state: self.files, base: self.base, config: self.config, history: self.history }
    }
}

/// What all stages of a file share.
pub(crate) struct Shared<'a> {
    /// The escape character of the file.
    pub escape: char,
    /// What is wanted.
    pub options: &'a PlanOptions,
    /// Variables of global scope.
    pub global_args: &'a Environment,
    /// Proxy variables for RUN.
    pub hidden_args: &'a [(String, String)],
    /// What may still be copied.
    pub budget: Budget,
    /// Looks at what is used of variables and of the context.
    pub inspection: Inspection<'a>,
}

/// One stage while it is planned.
pub(crate) struct StagePlanner<'a> {
    pub shared: &'a Shared<'a>,
    pub state: StageState,
    /// Position in the file.
    pub position: usize,
    /// For names of steps; empty when there is only one.
    pub name: String,
    /// Steps that names count up to.
    pub total: usize,
    /// Steps named so far.
    pub named: usize,
    pub platform: Platform,
    /// The FROM, which triggers are shown at.
    pub from_span: Span,
    /// Whether this stage itself has had a CMD: only then an ENTRYPOINT leaves it.
    pub has_cmd: bool,
    pub is_trigger: bool,
    pub steps: &'a mut Vec<Step>,
}

impl StagePlanner<'_> {
    /// Does one instruction. `sources` are the files of stages and others that it reads, as in [`NeededInstruction::sources`].
    pub fn apply(
        &mut self,
        needed: &NeededInstruction,
        sources: &[Option<FileSource>],
    ) -> Result<(), Diagnostic> {
        self.is_trigger = needed.is_trigger;
        let instruction = &needed.instruction;
        let applied = match &instruction.kind {
            InstructionKind::Copy(copy) => self.copy(copy, instruction, sources),
            InstructionKind::Run(run) => self.run(run, instruction, sources),
            InstructionKind::Workdir(word) => self.workdir(word, instruction),
            InstructionKind::Arg(args) => self.arg(args, instruction),
            _ => self.change_config(instruction),
        };
        let place = if needed.is_trigger { Err(self.from_span) } else { Ok(instruction.span) };
        self.shared.inspection.undefined_variables(&self.state, place);
        let checked = applied
            .and_then(|()| self.shared.budget.check(instruction.span))
            .and_then(|()| self.state.environment.check(instruction.span));
        checked.map_err(|error| Diagnostic { span: self.place(error.span), ..error })
    }

    /// A place in the Dockerfile: the FROM for what stands in a trigger.
    pub fn place(&self, span: Span) -> Span {
        if self.is_trigger { self.from_span } else { span }
    }

    /// Expands words with the variables as they are now.
    pub fn expander(&self) -> Expander<'_> {
        Expander {
            escape: self.shared.escape,
            environment: &self.state.environment,
            budget: &self.shared.budget,
            undefined: Some(&self.shared.inspection.undefined),
        }
    }

    /// Adds a step, which the stage then stands on, with its entry in the history.
    pub fn add_step(
        &mut self,
        operation: Operation,
        text: &str,
        instruction: &Instruction,
        created_by: String,
    ) {
        let id = StepId(self.steps.len());
        let parent = std::mem::replace(&mut self.state.files, FilesystemState::Step(id));
        let name = self.step_name(text);
        let span = self.place(instruction.span);
        self.add_history(created_by.clone(), Some(id));
        let platform = self.platform.clone();
        self.steps.push(Step {
            id,
            parent,
            operation,
            name,
            stage: self.position,
            span,
            created_by,
            platform,
            policy: instruction.policy,
        });
    }

    /// Adds an entry to the history.
    pub fn add_history(&mut self, created_by: String, step: Option<StepId>) {
        self.state.history.push(PlannedHistory { created_by, step, comment: HISTORY_COMMENT });
    }

    /// `[stage 2/3] RUN make`
    fn step_name(&mut self, text: &str) -> String {
        self.named += 1;
        let mut name = String::from("[");
        if self.shared.options.multi_platform {
            name.push_str(&self.platform.to_string());
            name.push_str(&self.crossed_platform());
            name.push(' ');
        }
        if !self.name.is_empty() {
            name.push_str(&self.name);
            name.push(' ');
        }
        let width = self.total.to_string().len();
        name.push_str(&format!("{:width$}/{}] ", self.named, self.total));
        if self.is_trigger {
            name.push_str("ONBUILD ");
        }
        let (keyword, rest) = text.split_once(' ').unwrap_or((text, ""));
        name.push_str(&keyword.to_uppercase());
        if !rest.is_empty() {
            name.push(' ');
            name.push_str(rest);
        }
        name
    }

    /// `->arm64` when the stage has declared that it builds for another platform than it runs on.
    fn crossed_platform(&self) -> String {
        let value = |name| self.state.environment.get(name).unwrap_or_default();
        let mut target = match Platform::parse(value("TARGETPLATFORM")) {
            Ok(target) => target,
            Err(_) => Platform::with_variant(value("TARGETOS"), value("TARGETARCH"), value("TARGETVARIANT")),
        };
        if target.os.is_empty() {
            target.os.clone_from(&self.platform.os);
        }
        if target.architecture.is_empty() {
            target.architecture.clone_from(&self.platform.architecture);
        }
        let target = target.normalized();
        match (target.os == self.platform.os, target.architecture == self.platform.architecture) {
            (true, true) => String::new(),
            (true, false) => format!("->{}", target.to_string().split_once('/').map_or("", |(_, rest)| rest)),
            (false, _) => format!("->{target}"),
        }
    }

    /// ARG. The value from outside beats the default; without either, the ARG of global scope gives it.
    fn arg(&mut self, args: &[KeyValue], instruction: &Instruction) -> Result<(), Diagnostic> {
        let mut texts = Vec::with_capacity(args.len());
        for arg in args {
            let name = &arg.key.value;
            let value = match (build_arg(self.shared.options, name), &arg.value) {
                (Some(given), _) => Some(given),
                (None, Some(default)) => Some(self.expander().word(default)?),
                (None, None) => self.shared.global_args.get(name).map(str::to_string),
            };
            if let Some(value) = &value {
                self.state.environment.set(name, value);
            }
            texts.push(value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}")));
            let span = self.place(instruction.span);
            self.shared.inspection.declared(name, value.as_deref(), &instruction.comments, span);
            let declared = value.unwrap_or_default();
            match self.state.declared_args.iter_mut().find(|(other, _)| other == name) {
                Some((_, old)) => *old = declared,
                None => self.state.declared_args.push((name.clone(), declared)),
            }
            if self.state.declared_args.len() > ARGS_MAX {
                return Err(Diagnostic::error(
                    arg.key.span,
                    format!("the stage has more than {ARGS_MAX} build arguments"),
                ));
            }
        }
        self.add_history(format!("ARG {}", texts.join(" ")), None);
        Ok(())
    }

    /// `|2 A=1 B=2 `: the declared arguments as a RUN's history shows them, with what they are worth now.
    pub fn args_in_history(&self) -> String {
        if self.state.declared_args.is_empty() {
            return String::new();
        }
        let value = |name: &str, declared| self.state.environment.get(name).unwrap_or(declared);
        let declared = self.state.declared_args.iter();
        let texts: Vec<String> =
            declared.map(|(name, declared)| format!("{name}={}", value(name, declared.as_str()))).collect();
        format!("|{} {} ", texts.len(), texts.join(" "))
    }
}
