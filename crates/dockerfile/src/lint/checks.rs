//! What a file says of the rules: which are off, for all of it or for one instruction, and whether findings are errors.

use super::{Finding, Rule};
use crate::parse::{parse_nodes, shorten};
use crate::suggest::suggest;
use mica_diagnostic::{Diagnostic, Source, Span};

/// More unknown names than this are not told of: nobody reads them.
const UNKNOWN_MAX: usize = 20;
/// What the directive may say.
const OPTIONS: [&str; 3] = ["skip", "experimental", "error"];

/// What `check=skip=A,B;error=true;experimental=C` says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Names of rules that are off; `all` turns all off.
    pub skip: Vec<String>,
    /// Names of experimental rules that are on; `all` turns all on.
    pub experimental: Vec<String>,
    /// Findings fail the build.
    pub error: bool,
}

impl CheckOptions {
    /// Reads the value of the directive; what is not understood in it is ignored.
    pub fn parse(text: &str) -> Self {
        let mut options = Self::default();
        let names = |value: &str| value.split(',').map(|name| name.trim().to_owned()).collect::<Vec<_>>();
        for part in text.split(';') {
            match part.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
                Some((key, value)) if key.eq_ignore_ascii_case("skip") => options.skip.extend(names(value)),
                Some((key, value)) if key.eq_ignore_ascii_case("experimental") => {
                    options.experimental.extend(names(value));
                }
                Some((key, value)) if key.eq_ignore_ascii_case("error") => {
                    options.error = boolean(value).unwrap_or_default();
                }
                _ => {}
            }
        }
        options
    }

    fn counts(&self, rule: Rule) -> bool {
        let names = |list: &[String]| {
            list.iter().any(|name| name.eq_ignore_ascii_case("all") || name.eq_ignore_ascii_case(rule.name()))
        };
        !names(&self.skip) && (!rule.is_experimental() || names(&self.experimental))
    }
}

/// What is wrong with the value of the directive beyond names of rules. Who asks for errors should not get none for a slip.
pub(crate) fn unknown_options(value: &str, span: Span) -> Vec<Diagnostic> {
    let parts = value.split(';').map(str::trim).filter(|part| !part.is_empty()).take(UNKNOWN_MAX);
    let wrong = parts.filter_map(|part| {
        let (key, value) =
            part.split_once('=').map_or((part, None), |(key, value)| (key.trim(), Some(value)));
        let known = OPTIONS.iter().find(|known| known.eq_ignore_ascii_case(key));
        let shown = shorten(part);
        match (known, value.map(str::trim)) {
            (None, _) => {
                let problem = Diagnostic::error(span, format!("invalid check option `{}`", shorten(key)));
                Some(match suggest(key, &OPTIONS) {
                    Some(meant) => problem.hint(format!("did you mean `{meant}`?")),
                    None => problem.hint("there are `skip`, `experimental` and `error`"),
                })
            }
            (Some(_), None) => {
                Some(Diagnostic::error(span, format!("the check option `{shown}` has no value")))
            }
            (Some(&"error"), Some(value)) if boolean(value).is_none() => {
                let message = format!("invalid check option `{shown}`: neither `true` nor `false`");
                Some(Diagnostic::error(span, message))
            }
            _ => None,
        }
    });
    wrong.collect()
}

/// As Go reads it.
fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

/// Warns of names in the value of the directive that no rule has: what was meant is still on, or still off.
pub(crate) fn unknown_rules(value: &str, span: Span) -> Vec<Diagnostic> {
    let options = CheckOptions::parse(value);
    let known = Rule::ALL.map(Rule::name);
    let is_known = |name: &str| {
        name.is_empty()
            || name.eq_ignore_ascii_case("all")
            || known.iter().any(|known| name.eq_ignore_ascii_case(known))
    };
    let names = options.skip.iter().chain(&options.experimental);
    let unknown = names.filter(|name| !is_known(name)).take(UNKNOWN_MAX).map(|name| {
        let warning = Diagnostic::warning(span, format!("there is no rule `{}`", shorten(name)));
        match suggest(name, &known) {
            Some(meant) => warning.hint(format!("did you mean `{meant}`?")),
            None => warning,
        }
    });
    unknown.collect()
}

/// What counts in one file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// For all of the file.
    pub options: CheckOptions,
    /// For single instructions: their place, and what the comment right above says.
    above: Vec<(Span, CheckOptions)>,
}

impl Checks {
    /// Reads the directive and the comments of a file. `given` is the value of the build argument
    /// `BUILDKIT_DOCKERFILE_CHECK`, which stands in the place of the directive.
    pub fn new(source: &Source, given: Option<&str>) -> Self {
        let (cut, _) = parse_nodes(source);
        let options = given
            .or(cut.check.as_ref().map(|(value, _)| value.as_str()))
            .map(CheckOptions::parse)
            .unwrap_or_default();
        let above = cut.nodes.iter().filter_map(|node| {
            let mut texts = node.comments.iter().filter_map(|comment| comment.strip_prefix("check="));
            let mut options = CheckOptions::parse(texts.next()?);
            texts.for_each(|text| options.skip.extend(CheckOptions::parse(text).skip));
            Some((node.span, options))
        });
        Self { options, above: above.collect() }
    }

    /// The findings that count, in order of lines, each once.
    pub fn apply(&self, mut findings: Vec<Finding>) -> Vec<Finding> {
        let skips = |options: &CheckOptions, rule| {
            let options = CheckOptions { experimental: vec!["all".to_owned()], ..options.clone() };
            !options.counts(rule)
        };
        findings.retain(|finding| {
            let at = finding.diagnostic.span.start;
            let is_off = |(span, options): &(Span, CheckOptions)| {
                span.range().contains(&at) && skips(options, finding.rule)
            };
            self.options.counts(finding.rule) && !self.above.iter().any(is_off)
        });
        findings.sort_by_key(Finding::place);
        let mut counted: Vec<Finding> = Vec::with_capacity(findings.len());
        for finding in findings {
            // Of several platforms, most find the same.
            let is_told = counted.iter().rev().take_while(|told| told.place() == finding.place());
            if !is_told.into_iter().any(|told| *told == finding) {
                counted.push(finding);
            }
        }
        counted
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lint::lint;

    #[track_caller]
    fn check(text: &str, given: Option<&str>, expect: &[(Rule, usize)]) {
        let source = Source::new("Dockerfile", text);
        let found = Checks::new(&source, given).apply(lint(&source));
        let found = found.iter().map(|finding| (finding.rule, source.line(finding.diagnostic.span.start)));
        assert_eq!(found.collect::<Vec<_>>(), expect, "{text}");
    }

    #[test]
    fn what_counts() {
        let text = "FROM scratch AS Base\nMAINTAINER me\nCMD x\n";
        let (casing, maintainer, json) =
            ((Rule::StageNameCasing, 1), (Rule::MaintainerDeprecated, 2), (Rule::JsonArgsRecommended, 3));
        check(text, None, &[casing, maintainer, json]);
        check(text, Some("skip=all"), &[]);
        check(text, Some("skip=StageNameCasing, maintainerdeprecated"), &[json]);
        let below = |directive: &str| format!("{directive}\n{text}");
        let later = |(rule, line): (Rule, usize)| (rule, line + 1);
        check(&below("# check=skip=all"), None, &[]);
        check(
            &below("# check=error=true;skip=JSONArgsRecommended"),
            None,
            &[later(casing), later(maintainer)],
        );
        // The build argument stands in the place of the directive.
        check(&below("# check=skip=all"), Some("skip=StageNameCasing"), &[later(maintainer), later(json)]);
        check(
            "FROM scratch\n# check=skip=MaintainerDeprecated\nMAINTAINER me\nMAINTAINER me\n",
            None,
            &[(Rule::MaintainerDeprecated, 4)],
        );
    }

    #[test]
    fn names_that_no_rule_has() {
        let told = |value: &str| {
            let unknown = unknown_rules(value, Span::default());
            unknown
                .into_iter()
                .map(|warning| (warning.message, warning.hint.unwrap_or_default()))
                .collect::<Vec<_>>()
        };
        assert_eq!(told("skip=all,stagenamecasing;experimental=all;error=true"), []);
        let meant = ("there is no rule `StageNameCase`".to_owned(), String::new());
        assert_eq!(told("skip=StageNameCase")[0].0, meant.0);
        assert_eq!(told("experimental=UndefinedVars")[0].1, "did you mean `UndefinedVar`?");
        assert_eq!(told(&format!("skip={}", "x,".repeat(100))).len(), UNKNOWN_MAX);
    }

    #[test]
    fn options_that_there_are_not() {
        let told = |value: &str| {
            let wrong = unknown_options(value, Span::default());
            wrong.into_iter().map(|problem| problem.message).collect::<Vec<_>>().join("; ")
        };
        for right in ["", "skip=all;error=true", "Skip=a,b; error = F;", "experimental=all"] {
            assert_eq!(told(right), "", "{right}");
        }
        assert_eq!(told("foo"), "invalid check option `foo`");
        assert_eq!(told("eror=true;skip=all"), "invalid check option `eror`");
        assert_eq!(told("error=maybe"), "invalid check option `error=maybe`: neither `true` nor `false`");
        assert_eq!(told("error"), "the check option `error` has no value");
    }

    #[test]
    fn each_finding_once() {
        let source = Source::new("Dockerfile", "FROM scratch\nMAINTAINER me\n");
        let one = |message: &str| Finding::new(Rule::UndefinedVar, Span::new(3, 5), message, "hint");
        let mut findings = vec![one("a"), one("b"), one("a"), one("b")];
        findings.extend(lint(&source));
        let counted = Checks::new(&source, None).apply(findings);
        let messages = counted.iter().map(|finding| finding.diagnostic.message.as_str()).collect::<Vec<_>>();
        assert_eq!(messages, ["a", "b", "MAINTAINER is deprecated"]);
    }

    #[test]
    fn errors() {
        let error = |text: &str| CheckOptions::parse(text).error;
        assert!(error("error=true") && error("skip=a;error=True") && error("error=1"));
        assert!(!error("") && !error("error=false") && !error("error"));
    }

    #[test]
    fn descriptions_only_when_asked() {
        let body =
            "# other\nFROM scratch AS base\n# wrong\nARG a=1\n# a is right\nARG a=1 b=2\n\n# far\n#\nARG c\n";
        let rule = Rule::InvalidDefinitionDescription;
        check(&format!("# check=skip=none\n{body}"), None, &[]);
        check(&format!("# check=experimental=all\n{body}"), None, &[(rule, 3), (rule, 5)]);
        check(
            &format!("# check=experimental=InvalidDefinitionDescription\n{body}"),
            None,
            &[(rule, 3), (rule, 5)],
        );
        check(&format!("# check=experimental=all;skip=all\n{body}"), None, &[]);
    }

    #[test]
    fn places_of_the_rules() {
        assert_eq!(
            Rule::JsonArgsRecommended.url(),
            "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"
        );
        assert_eq!(Rule::UndefinedVar.url(), "https://docs.docker.com/go/dockerfile/rule/undefined-var/");
    }
}
