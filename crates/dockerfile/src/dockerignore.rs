//! `.dockerignore`, with the semantics of moby/patternmatcher: a path is ignored if it or a directory above it
//! matches, lines with `!` take that back, and the last line that matches decides.

use crate::glob::Automaton;

/// Most lines with a pattern: each is compared with each path.
const RULES_MAX: usize = 10_000;

/// Why a line of a `.dockerignore` is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IgnoreError {
    /// `[a`
    #[error("line {line}: syntax error in pattern `{pattern}`")]
    BadPattern {
        /// From 1.
        line: usize,
        /// As written.
        pattern: String,
    },
    /// `!`
    #[error("line {line}: `!` without a pattern")]
    BareExclamation {
        /// From 1.
        line: usize,
    },
    /// An endless file.
    #[error("line {line}: more than {max} patterns")]
    TooMany {
        /// From 1.
        line: usize,
        /// The limit.
        max: usize,
    },
}

impl IgnoreError {
    /// The line that is refused, from 1.
    pub fn line(&self) -> usize {
        match self {
            Self::BadPattern { line, .. } | Self::BareExclamation { line } | Self::TooMany { line, .. } => {
                *line
            }
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// From 1.
    pub line: usize,
    /// As written, without blanks around.
    pub text: String,
    /// It begins with `!`.
    pub reincludes: bool,
    /// Cleaned, without `!`.
    pattern: String,
    kind: RuleKind,
    automaton: Automaton,
}

/// The shapes that most lines have need no automaton.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RuleKind {
    Exact,
    /// `**/name`
    Suffix,
    Other,
}

/// A parsed `.dockerignore`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dockerignore {
    rules: Vec<Rule>,
}

/// What a `.dockerignore` says about a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ignored<'a> {
    /// The path is not to be read.
    pub is_ignored: bool,
    /// The rule that decided; `None` if no rule says anything.
    pub by: Option<&'a Rule>,
}

/// What is known about a directory, for the paths in it. The default is right for the root of a walk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParentInfo {
    /// The rules that match the directory or one above it.
    matched: Vec<bool>,
}

impl Dockerignore {
    /// Parses the text of a `.dockerignore`, or tells all lines that are wrong.
    pub fn parse(text: &str) -> Result<Self, Vec<IgnoreError>> {
        Self::from_lines(clean_lines(text))
    }

    /// From patterns alone (`--exclude`); their positions, from 1, stand for lines.
    pub fn from_patterns<'a>(patterns: impl IntoIterator<Item = &'a str>) -> Result<Self, Vec<IgnoreError>> {
        let lines = patterns.into_iter().enumerate();
        Self::from_lines(lines.map(|(at, text)| (at + 1, text.to_owned(), text.to_owned())).collect())
    }

    /// Line, text as written, and pattern with its `!`.
    fn from_lines(lines: Vec<(usize, String, String)>) -> Result<Self, Vec<IgnoreError>> {
        let mut rules = Vec::new();
        let mut errors = Vec::new();
        for (line, text, pattern) in lines {
            if rules.len() >= RULES_MAX {
                errors.push(IgnoreError::TooMany { line, max: RULES_MAX });
                break;
            }
            match parse_rule(line, &text, &pattern) {
                Ok(rule) => rules.extend(rule),
                Err(error) => errors.push(error),
            }
        }
        if errors.is_empty() { Ok(Self { rules }) } else { Err(errors) }
    }

    /// Whether there is no rule.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is said about a path (relative, `/` between names), given nothing about the directories above it.
    pub fn matches(&self, path: &str) -> Ignored<'_> {
        let mut matched = vec![false; self.rules.len()];
        let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
        for end in ends {
            self.add_matches(path.get(..end).unwrap_or_default(), &mut matched);
        }
        self.decide(&matched)
    }

    /// The same during a walk: `parent` is what this gave for the directory that holds `path`.
    pub fn matches_in(&self, parent: &ParentInfo, path: &str) -> (bool, ParentInfo) {
        let (ignored, info) = self.explain_in(parent, path);
        (ignored.is_ignored, info)
    }

    /// [`Dockerignore::matches_in`] with the rule that decided.
    pub fn explain_in(&self, parent: &ParentInfo, path: &str) -> (Ignored<'_>, ParentInfo) {
        let mut matched = parent.matched.clone();
        matched.resize(self.rules.len(), false);
        self.add_matches(path, &mut matched);
        (self.decide(&matched), ParentInfo { matched })
    }

    /// Whether a path below an ignored directory may be taken back in; if not, the walk need not go there.
    pub fn may_reinclude_below(&self, directory: &str) -> bool {
        self.rules.iter().any(|rule| rule.reincludes && rule.automaton.may_match_below(directory))
    }

    fn add_matches(&self, path: &str, matched: &mut [bool]) {
        for (rule, matched) in self.rules.iter().zip(matched) {
            *matched = *matched || rule.matches(path);
        }
    }

    fn decide(&self, matched: &[bool]) -> Ignored<'_> {
        let mut result = Ignored { is_ignored: false, by: None };
        for (rule, matched) in self.rules.iter().zip(matched) {
            // A `!` says nothing about a path that was not ignored so far.
            if *matched && (result.is_ignored || !rule.reincludes) {
                result = Ignored { is_ignored: !rule.reincludes, by: Some(rule) };
            }
        }
        result
    }
}

impl Rule {
    fn matches(&self, path: &str) -> bool {
        match self.kind {
            RuleKind::Exact => path == self.pattern,
            RuleKind::Suffix => {
                let name = self.pattern.strip_prefix("**/").unwrap_or_default();
                path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with('/'))
            }
            RuleKind::Other => self.automaton.matches(path),
        }
    }
}

fn parse_rule(line: usize, text: &str, pattern: &str) -> Result<Option<Rule>, IgnoreError> {
    let trimmed = pattern.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    // Cleaned with its `!` in front, as upstream: `!./a` stays, and matches nothing.
    let cleaned = clean_path(trimmed);
    let (reincludes, pattern) = match cleaned.strip_prefix('!') {
        Some("") => return Err(IgnoreError::BareExclamation { line }),
        Some(pattern) => (true, pattern),
        None => (false, cleaned.as_str()),
    };
    let bad = |_| IgnoreError::BadPattern { line, pattern: text.chars().take(200).collect() };
    // Upstream asks Go's matcher whether the pattern is sound, and matches by itself.
    Automaton::parse_glob(pattern).map_err(bad)?;
    let automaton = Automaton::parse_ignore(pattern).map_err(bad)?;
    let is_plain = |text: &str| !text.contains(['*', '?', '[', ']', '\\']);
    let kind = match pattern.strip_prefix("**/") {
        _ if is_plain(pattern) => RuleKind::Exact,
        Some(name) if !name.is_empty() && is_plain(name) => RuleKind::Suffix,
        _ => RuleKind::Other,
    };
    Ok(Some(Rule {
        line,
        text: text.trim().to_owned(),
        reincludes,
        pattern: pattern.to_owned(),
        kind,
        automaton,
    }))
}

/// The patterns of a `.dockerignore`'s text with their line numbers, cleaned: line, text as written, pattern.
pub fn clean_lines(text: &str) -> Vec<(usize, String, String)> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lines = Vec::new();
    for (at, line) in text.split('\n').enumerate() {
        let written = line.trim();
        if line.starts_with('#') || written.is_empty() {
            continue;
        }
        let (mark, pattern) = match written.strip_prefix('!') {
            Some(pattern) => ("!", pattern.trim()),
            None => ("", written),
        };
        let cleaned = if pattern.is_empty() { String::new() } else { clean_path(pattern) };
        let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
        lines.push((at + 1, written.to_owned(), format!("{mark}{relative}")));
    }
    lines
}

/// Go's `filepath.Clean`.
fn clean_path(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut names: Vec<&str> = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => match names.last() {
                Some(last) if *last != ".." => {
                    names.pop();
                }
                _ if rooted => {}
                _ => names.push(".."),
            },
            name => names.push(name),
        }
    }
    let joined = names.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}
