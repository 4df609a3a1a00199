//! What is probably not meant, as far as values and the ignore file tell it: findings of lint rules.

use crate::environment::{Budget, Environment, Expander};
use crate::global_args::global_args;
use crate::graph::{DeclaredArg, PlanOptions};
use crate::stage_planner::StageState;
use crate::stage_table::StageTable;
use mica_diagnostic::Span;
use mica_dockerfile::expand::expand_word;
use mica_dockerfile::instruction::InstructionKind;
use mica_dockerfile::lint::describes;
use mica_dockerfile::suggest::suggest;
use mica_dockerfile::{Dockerfile, Dockerignore, Finding, Rule, lint};
use mica_oci::Reference;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

/// Set by scanners of what an image holds, and nothing that an instruction sees.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// More than these are not collected: nobody reads them.
const FINDINGS_MAX: usize = 1_000;

/// Most names that a similar one is looked for, and most that it is looked for among: it takes work in proportion to both.
const SUGGESTIONS_MAX: usize = 100;
const SUGGESTED_OF_MAX: usize = 1_000;

/// Most names that are noted of one instruction: a heredoc may hold millions.
pub(crate) const UNDEFINED_MAX: usize = 10_000;

/// The ignore file of the build context.
#[derive(Debug, Clone, Copy)]
pub struct IgnoreRules<'a> {
    /// Its name, for people.
    pub name: &'a str,
    /// Its lines.
    pub rules: &'a Dockerignore,
}

/// Watches the planning of a file.
pub(crate) struct Inspection<'a> {
    ignore: Option<IgnoreRules<'a>>,
    /// Names that were looked up in vain since the last instruction, with the place of the word.
    pub undefined: RefCell<Vec<(String, Span)>>,
    findings: RefCell<Vec<Finding>>,
    args: RefCell<Vec<DeclaredArg>>,
    suggestions_left: Cell<usize>,
}

impl<'a> Inspection<'a> {
    pub fn new(ignore: Option<IgnoreRules<'a>>) -> Self {
        Self {
            ignore,
            undefined: RefCell::default(),
            findings: RefCell::default(),
            args: RefCell::default(),
            suggestions_left: Cell::new(SUGGESTIONS_MAX),
        }
    }

    /// What was found.
    pub fn finish(self) -> Vec<Finding> {
        self.findings.into_inner()
    }

    /// Takes down an ARG. Of several of one name the last counts, with the last description.
    pub fn declared(&self, name: &str, value: Option<&str>, comments: &[String], span: Span) {
        let mut args = self.args.borrow_mut();
        if args.len() >= FINDINGS_MAX {
            return;
        }
        let earlier = args.iter().position(|arg| arg.name == name).map(|at| args.remove(at));
        let description = describes(comments, name).or(earlier.and_then(|arg| arg.description));
        let (name, value) = (name.to_owned(), value.map(str::to_owned));
        args.push(DeclaredArg { name, value, description, span });
    }

    /// The ARGs of needed stages, and those of global scope that these or their FROM lines use.
    pub fn args(
        &self,
        dockerfile: &Dockerfile,
        values: &Environment,
        is_needed: &dyn Fn(usize) -> bool,
    ) -> Vec<DeclaredArg> {
        let names_in = |text: &str| {
            let names = RefCell::new(Vec::new());
            let note = |name: &str| {
                names.borrow_mut().push(name.to_owned());
                values.get(name).map(str::to_owned)
            };
            // A word that cannot be expanded is told of elsewhere.
            let _ = expand_word(text, dockerfile.escape, &note);
            names.into_inner()
        };
        let mut used = HashSet::new();
        for stage in dockerfile.stages.iter().filter(|stage| is_needed(stage.position)) {
            for word in stage.from.platform.iter().chain([&stage.from.base]) {
                used.extend(names_in(&word.value));
            }
            for instruction in &stage.instructions {
                let InstructionKind::Arg(args) = &instruction.kind else { continue };
                let inherited = args.iter().filter(|arg| arg.value.is_none());
                used.extend(inherited.map(|arg| arg.key.value.clone()));
            }
        }
        // A default may be made of arguments above it.
        for arg in dockerfile.meta_args.iter().rev() {
            if let Some(default) = arg.value.value.as_ref().filter(|_| used.contains(&arg.value.key.value)) {
                used.extend(names_in(&default.value));
            }
        }
        let mut args = self.args.take();
        for arg in &dockerfile.meta_args {
            let name = &arg.value.key.value;
            if used.contains(name) && !args.iter().any(|known| known.span == arg.span && known.name == *name)
            {
                let comments = dockerfile.meta_comments.iter().find(|(span, _)| *span == arg.span);
                let description = comments.and_then(|(_, comments)| describes(comments, name));
                let value = values.get(name).map(str::to_owned);
                // The stage that takes it over says the same again.
                args.retain(|known| known.name != *name || known.value != value);
                args.push(DeclaredArg { name: name.clone(), value, description, span: arg.span });
            }
        }
        args.sort_by_key(|arg| arg.span.start);
        args
    }

    fn is_full(&self) -> bool {
        self.findings.borrow().len() >= FINDINGS_MAX
    }

    /// A name that was probably meant.
    fn similar(&self, name: &str, known: &[&str]) -> Option<String> {
        let left = self.suggestions_left.get().checked_sub(1)?;
        self.suggestions_left.set(left);
        suggest(name, known.get(..SUGGESTED_OF_MAX).unwrap_or(known)).map(str::to_owned)
    }

    fn add(&self, finding: Finding) {
        let mut findings = self.findings.borrow_mut();
        if findings.len() < FINDINGS_MAX {
            findings.push(finding);
        }
    }

    /// Tells of the variables that an instruction used and that nothing has set. `place` is the instruction, or the FROM
    /// of a trigger.
    pub fn undefined_variables(&self, state: &StageState, place: Result<Span, Span>) {
        let mut seen = HashSet::new();
        for (name, word) in self.undefined.take() {
            if self.is_full() {
                break;
            }
            if !seen.insert(name.clone()) {
                continue;
            }
            // A declared argument without a value is meant to be nothing when it is not given.
            let is_declared = state.declared_args.iter().any(|(declared, _)| *declared == name);
            if is_declared || NOT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let known = state.environment.entries().iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
            let hint = match self.similar(&name, &known) {
                // It is there now: the instruction itself sets it.
                _ if known.contains(&name.as_str()) => {
                    "what an instruction sets counts from the next one on: use two".to_owned()
                }
                // Of a shell: `$1`, `$$`, `$@`.
                _ if !name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') => {
                    format!("for a `$` as it is, write `\\${name}`")
                }
                Some(similar) => format!("did you mean `${similar}`?"),
                None => format!("set it above with `ARG {name}` or `ENV {name}=...`"),
            };
            let (span, told_at) = match place {
                Err(from) => (from, from.start),
                Ok(instruction) => (word, instruction.start),
            };
            let finding = Finding::new(Rule::UndefinedVar, span, format!("`${name}` is not set"), hint);
            self.add(Finding { told_at, ..finding });
        }
    }

    /// Tells of a source of COPY or ADD that the ignore file hides.
    pub fn ignored_source(&self, add: bool, path: &str, span: Span, told_at: usize) {
        let Some(IgnoreRules { name, rules }) = self.ignore else { return };
        // What a `!` takes back in may be all that is meant.
        if rules.rules().iter().any(|rule| rule.reincludes) {
            return;
        }
        let path = crate::path::join("/", path);
        let path = path.trim_start_matches('/');
        let ignored = rules.matches(if path.is_empty() { "." } else { path });
        let Some(rule) = ignored.by.filter(|_| ignored.is_ignored) else { return };
        let keyword = if add { "ADD" } else { "COPY" };
        let message =
            format!("{keyword} of `{path}`, which `{name}` excludes in line {}: `{}`", rule.line, rule.text);
        let hint = format!("take the line out of `{name}`, or add `!{path}` below it");
        self.add(Finding { told_at, ..Finding::new(Rule::CopyIgnoredFile, span, message, hint) });
    }

    /// Tells of a base image that is for another platform than was asked for: its programs may not run.
    pub fn foreign_base(&self, span: Span, name: &str, found: &str, wanted: &str) {
        let message = format!("the base image `{name}` is for {found}, not for {wanted}");
        let hint = format!("use an image that there is for {wanted}, or build with `--platform {found}`");
        self.add(Finding::new(Rule::InvalidBaseImagePlatform, span, message, hint));
    }

    /// Looks at the text. Some rules say nothing of stages that are not needed.
    pub fn look_at_text(&self, dockerfile: &Dockerfile, is_needed: &dyn Fn(usize) -> bool) {
        for finding in lint(&dockerfile.source) {
            if self.is_full() {
                break;
            }
            let at = finding.diagnostic.span.start;
            let stage = dockerfile.stages.iter().rposition(|stage| stage.from_span.start <= at);
            if !finding.rule.is_of_needed_stages() || stage.is_none_or(is_needed) {
                self.add(finding);
            }
        }
    }

    /// Looks at the FROM lines, needed or not.
    pub fn look_at_from_lines(&self, dockerfile: &Dockerfile, options: &PlanOptions) {
        let Ok(args) = global_args(dockerfile, options) else { return };
        let without = PlanOptions { build_args: Vec::new(), ..options.clone() };
        let Ok(defaults) = global_args(dockerfile, &without) else { return };
        let mut ignored = Vec::new();
        let stages = StageTable::new(dockerfile, options, &args, &mut ignored);
        let declared = dockerfile.meta_args.iter().map(|arg| arg.value.key.value.as_str());
        let declared =
            declared.chain(args.entries().iter().map(|(name, _)| name.as_str())).collect::<Vec<_>>();
        let budget = Budget::new();
        let undefined = RefCell::default();
        for (position, stage) in dockerfile.stages.iter().enumerate() {
            if self.is_full() {
                break;
            }
            let from = &stage.from;
            let expander = |environment, undefined| Expander {
                escape: dockerfile.escape,
                environment,
                budget: &budget,
                undefined,
            };
            let used = expander(&args, Some(&undefined));
            for word in from.platform.iter().chain([&from.base]) {
                let _ = used.word(word);
            }
            for (name, word) in undefined.take() {
                if declared.contains(&name.as_str()) {
                    continue;
                }
                let hint = match self.similar(&name, &declared) {
                    Some(similar) => format!("did you mean `${similar}`?"),
                    None => format!("add `ARG {name}` before the first FROM"),
                };
                let message = format!("no ARG before the first FROM declares `${name}`");
                let finding = Finding::new(Rule::UndefinedArgInFrom, word, message, hint);
                self.add(Finding { told_at: stage.from_span.start, ..finding });
            }
            let Ok(name) = expander(&defaults, None).word(&from.base) else { continue };
            let is_named = stages.find_before(&name, position).is_some() || Reference::parse(&name).is_ok();
            if !is_named && from.base.value.contains('$') {
                let what = if name.is_empty() { "nothing".to_owned() } else { format!("`{name}`") };
                let message =
                    format!("without build arguments, `{}` names no image but {what}", from.base.value);
                let hint = "give the ARG a default that makes it a name";
                let finding = Finding::new(Rule::InvalidDefaultArgInFrom, from.base.span, message, hint);
                self.add(Finding { told_at: stage.from_span.start, ..finding });
            }
        }
    }
}
