//! Things that can be built but are probably not meant: BuildKit's rules that need nothing but the text.
//!
//! Not here, because they need values or files: UndefinedVar, UndefinedArgInFrom, InvalidDefaultArgInFrom (the rooms
//! that expand words know the absent names), InvalidBaseImagePlatform, CopyIgnoredFile, and the experimental
//! InvalidDefinitionDescription.

mod stage;
mod value;

use crate::node::Node;
use crate::parse::parse_nodes;
use mica_diagnostic::{Diagnostic, Source, Span};

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
}

impl Rule {
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
        }
    }
}

/// A violation of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: Rule,
    /// A warning, with its place.
    pub diagnostic: Diagnostic,
}

/// What `# check=skip=A,B;error=true` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Names of rules that are off; `all` turns all off.
    pub skip: Vec<String>,
    /// Findings fail the build.
    pub error: bool,
}

impl CheckOptions {
    /// Reads the value of the directive; what is not understood in it is ignored.
    pub fn parse(text: &str) -> Self {
        let mut options = Self::default();
        for part in text.split(';') {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) if key.eq_ignore_ascii_case("skip") => {
                    options.skip.extend(value.split(',').map(|name| name.trim().to_owned()));
                }
                Some((key, value)) if key.eq_ignore_ascii_case("error") => {
                    options.error = value.eq_ignore_ascii_case("true") || value == "1";
                }
                _ => {}
            }
        }
        options
    }

    fn skips(&self, rule: Rule) -> bool {
        self.skip
            .iter()
            .any(|name| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(rule.name()))
    }
}

/// Looks for violations in a text, in order of lines, with the options that its directive gives.
pub fn lint(source: &Source) -> (Vec<Finding>, CheckOptions) {
    let (cut, _) = parse_nodes(source);
    let options = cut.check.as_deref().map(CheckOptions::parse).unwrap_or_default();
    let mut findings = Findings(Vec::new());
    for warning in cut.warnings {
        findings.0.push(Finding { rule: Rule::NoEmptyContinuation, diagnostic: warning });
    }
    stage::check_stages(&cut.nodes, &mut findings);
    for node in &cut.nodes {
        value::check_node(node, &mut findings);
    }
    let mut findings = findings.0;
    // `# check=skip=Rule` right above an instruction is for that instruction.
    let above = cut.nodes.iter().filter_map(|node| {
        let text = node.comments.iter().find_map(|comment| comment.strip_prefix("check="))?;
        Some((node.span, CheckOptions::parse(text)))
    });
    let above = above.collect::<Vec<_>>();
    findings.retain(|finding| {
        let at = finding.diagnostic.span.start;
        !options.skips(finding.rule)
            && !above.iter().any(|(span, options)| span.range().contains(&at) && options.skips(finding.rule))
    });
    findings.sort_by_key(|finding| finding.diagnostic.span.start);
    (findings, options)
}

struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, rule: Rule, span: Span, message: String, hint: &str) {
        self.0.push(Finding { rule, diagnostic: Diagnostic::warning(span, message).hint(hint) });
    }
}

fn is_keyword(node: &Node, keyword: &str) -> bool {
    node.keyword.text.eq_ignore_ascii_case(keyword)
}
