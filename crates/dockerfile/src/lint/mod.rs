//! Things that can be built but are probably not meant: BuildKit's rules.
//!
//! Here are those that need nothing but the text, and what a file says of rules ([`Checks`]). Rules that need values or
//! files (UndefinedVar, UndefinedArgInFrom, InvalidDefaultArgInFrom, InvalidBaseImagePlatform, CopyIgnoredFile) are looked
//! for where words are expanded, in `mica-plan`, and are findings of the same kind.

mod checks;
mod description;
mod stage;
mod value;

use crate::line::EmptyContinuation;
use crate::node::Node;
use crate::parse::parse_nodes;
use mica_diagnostic::{Diagnostic, Source, Span};

pub use checks::{CheckOptions, Checks};
pub(crate) use checks::{unknown_options, unknown_rules};
pub use description::describes;

/// A rule, named as BuildKit names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rule {
    /// Upper case in a stage name.
    StageNameCasing,
    /// `FROM x as y`
    FromAsCasing,
    /// An empty line inside an instruction.
    NoEmptyContinuation,
    /// `Copy`, or `copy` among `RUN`s.
    ConsistentInstructionCasing,
    /// Two stages of one name.
    DuplicateStageName,
    /// A stage named `scratch` or `context`.
    ReservedStageName,
    /// CMD or ENTRYPOINT in shell form.
    JsonArgsRecommended,
    /// MAINTAINER
    MaintainerDeprecated,
    /// A relative WORKDIR before any absolute one.
    WorkdirRelativePath,
    /// CMD, ENTRYPOINT or HEALTHCHECK that a later one replaces.
    MultipleInstructionsDisallowed,
    /// `ENV key value`
    LegacyKeyValueFormat,
    /// `FROM --platform=$TARGETPLATFORM`
    RedundantTargetPlatform,
    /// `ENV PASSWORD=...`
    SecretsUsedInArgOrEnv,
    /// `FROM --platform=linux/amd64`
    FromPlatformFlagConstDisallowed,
    /// `EXPOSE 80/TCP`
    ExposeProtoCasing,
    /// `EXPOSE 80:80`
    ExposeInvalidFormat,
    /// A variable that nothing has set.
    UndefinedVar,
    /// A variable of FROM that no ARG before the first FROM declares.
    UndefinedArgInFrom,
    /// A FROM that names nothing when no build argument is given.
    InvalidDefaultArgInFrom,
    /// A base image for another platform than was asked for.
    InvalidBaseImagePlatform,
    /// A source of COPY or ADD that the ignore file hides.
    CopyIgnoredFile,
    /// A comment above FROM or ARG that does not begin with the name. Only looked for when asked.
    InvalidDefinitionDescription,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 22] = [
        Self::StageNameCasing,
        Self::FromAsCasing,
        Self::NoEmptyContinuation,
        Self::ConsistentInstructionCasing,
        Self::DuplicateStageName,
        Self::ReservedStageName,
        Self::JsonArgsRecommended,
        Self::MaintainerDeprecated,
        Self::WorkdirRelativePath,
        Self::MultipleInstructionsDisallowed,
        Self::LegacyKeyValueFormat,
        Self::RedundantTargetPlatform,
        Self::SecretsUsedInArgOrEnv,
        Self::FromPlatformFlagConstDisallowed,
        Self::ExposeProtoCasing,
        Self::ExposeInvalidFormat,
        Self::UndefinedVar,
        Self::UndefinedArgInFrom,
        Self::InvalidDefaultArgInFrom,
        Self::InvalidBaseImagePlatform,
        Self::CopyIgnoredFile,
        Self::InvalidDefinitionDescription,
    ];

    /// The name people know it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::StageNameCasing => "StageNameCasing",
            Self::FromAsCasing => "FromAsCasing",
            Self::NoEmptyContinuation => "NoEmptyContinuation",
            Self::ConsistentInstructionCasing => "ConsistentInstructionCasing",
            Self::DuplicateStageName => "DuplicateStageName",
            Self::ReservedStageName => "ReservedStageName",
            Self::JsonArgsRecommended => "JSONArgsRecommended",
            Self::MaintainerDeprecated => "MaintainerDeprecated",
            Self::WorkdirRelativePath => "WorkdirRelativePath",
            Self::MultipleInstructionsDisallowed => "MultipleInstructionsDisallowed",
            Self::LegacyKeyValueFormat => "LegacyKeyValueFormat",
            Self::RedundantTargetPlatform => "RedundantTargetPlatform",
            Self::SecretsUsedInArgOrEnv => "SecretsUsedInArgOrEnv",
            Self::FromPlatformFlagConstDisallowed => "FromPlatformFlagConstDisallowed",
            Self::ExposeProtoCasing => "ExposeProtoCasing",
            Self::ExposeInvalidFormat => "ExposeInvalidFormat",
            Self::UndefinedVar => "UndefinedVar",
            Self::UndefinedArgInFrom => "UndefinedArgInFrom",
            Self::InvalidDefaultArgInFrom => "InvalidDefaultArgInFrom",
            Self::InvalidBaseImagePlatform => "InvalidBaseImagePlatform",
            Self::CopyIgnoredFile => "CopyIgnoredFile",
            Self::InvalidDefinitionDescription => "InvalidDefinitionDescription",
        }
    }

    /// What it is about, in one sentence.
    pub fn description(self) -> &'static str {
        match self {
            Self::StageNameCasing => "stage names should be lowercase",
            Self::FromAsCasing => "the AS of a FROM should be written like the FROM",
            Self::NoEmptyContinuation => "empty lines inside an instruction will become errors",
            Self::ConsistentInstructionCasing => "all instructions should be written in one case",
            Self::DuplicateStageName => "stage names should be unique",
            Self::ReservedStageName => "reserved words should not be stage names",
            Self::JsonArgsRecommended => "commands in exec form get signals",
            Self::MaintainerDeprecated => "MAINTAINER is deprecated, a label says who wrote the image",
            Self::WorkdirRelativePath => "a relative WORKDIR depends on the base image",
            Self::MultipleInstructionsDisallowed => {
                "of several CMD, ENTRYPOINT or HEALTHCHECK only the last counts"
            }
            Self::LegacyKeyValueFormat => "`KEY=VALUE` should be written instead of `KEY VALUE`",
            Self::RedundantTargetPlatform => "`--platform=$TARGETPLATFORM` is the default",
            Self::SecretsUsedInArgOrEnv => "secrets should not be in ARG or ENV, they stay in the image",
            Self::FromPlatformFlagConstDisallowed => "`--platform` of FROM should not be constant",
            Self::ExposeProtoCasing => "the protocol of EXPOSE should be lowercase",
            Self::ExposeInvalidFormat => "EXPOSE takes ports of the container only",
            Self::UndefinedVar => "variables should be set before they are used",
            Self::UndefinedArgInFrom => "FROM sees only arguments that are declared before the first FROM",
            Self::InvalidDefaultArgInFrom => {
                "defaults of arguments should give a base image that can be named"
            }
            Self::InvalidBaseImagePlatform => "the base image should be for the platform that is built",
            Self::CopyIgnoredFile => "what the ignore file hides cannot be copied",
            Self::InvalidDefinitionDescription => "a comment above FROM or ARG should begin with the name",
        }
    }

    /// Where BuildKit's documentation tells of it.
    pub fn url(self) -> String {
        let mut path = String::new();
        let mut before = 'A';
        for character in self.name().replace("JSON", "Json").chars() {
            if character.is_ascii_uppercase() && before.is_ascii_lowercase() {
                path.push('-');
            }
            path.push(character.to_ascii_lowercase());
            before = character;
        }
        format!("https://docs.docker.com/go/dockerfile/rule/{path}/")
    }

    /// Whether it says something of stages that are built, and nothing of those that the target does not need.
    pub fn is_of_needed_stages(self) -> bool {
        matches!(
            self,
            Self::JsonArgsRecommended
                | Self::WorkdirRelativePath
                | Self::MultipleInstructionsDisallowed
                | Self::LegacyKeyValueFormat
                | Self::SecretsUsedInArgOrEnv
                | Self::ExposeProtoCasing
                | Self::ExposeInvalidFormat
        )
    }

    /// Whether it is looked for only when `experimental=` names it.
    pub fn is_experimental(self) -> bool {
        self == Self::InvalidDefinitionDescription
    }
}

/// A violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// A warning, with its place.
    pub diagnostic: Diagnostic,
    /// The byte whose line it is known by: the beginning of the place, but for an empty line the end of the instruction that
    /// it stands in, as BuildKit has it.
    pub told_at: usize,
}

impl Finding {
    /// What findings are ordered by.
    fn place(&self) -> (usize, Rule) {
        (self.diagnostic.span.start, self.rule)
    }

    /// A finding of a rule, with how to mend it.
    pub fn new(rule: Rule, span: Span, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { rule, diagnostic: Diagnostic::warning(span, message).hint(hint), told_at: span.start }
    }
}

/// Looks for violations in a text, of all rules that need nothing else. [`Checks::apply`] says which of them count.
pub fn lint(source: &Source) -> Vec<Finding> {
    let (cut, _) = parse_nodes(source);
    let mut findings = Findings(Vec::new());
    for EmptyContinuation { blank, told_at } in cut.empty_continuations {
        let hint = "remove the empty line, or make it a comment";
        let finding = Finding::new(Rule::NoEmptyContinuation, blank, "empty continuation line", hint);
        findings.0.push(Finding { told_at, ..finding });
    }
    stage::check_stages(&cut.nodes, &mut findings);
    for node in &cut.nodes {
        value::check_node(node, &mut findings);
        description::check_node(node, &mut findings);
    }
    findings.0
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: Rule, span: Span, message: String, hint: &str) {
        self.0.push(Finding::new(rule, span, message, hint));
    }
}

fn is_keyword(node: &Node, keyword: &str) -> bool {
    node.keyword.text.eq_ignore_ascii_case(keyword)
}
