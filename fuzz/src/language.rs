//! The Dockerfile language: whatever the text, there is a graph or a list of problems, and every place is in the text.

use mica_diagnostic::{Diagnostic, Source, Span, render};
use mica_dockerfile::dockerignore::ParentInfo;
use mica_dockerfile::expand::{Options, expand_with, expand_words_with};
use mica_dockerfile::lint::CheckOptions;
use mica_dockerfile::{
    Dockerignore, expand_heredoc, expand_word, expand_words, glob_match, parse_run_mount, split_fields,
};
use mica_oci::{ImageConfig, Platform};
use mica_plan::{BaseImage, GitAddress, PlanOptions, definition_key, needed_bases_with, plan, without_login};

/// Parses, lints and plans with a base image that says nothing but a trigger.
pub fn dockerfile(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let source = Source::new("Dockerfile", &text);
    let findings = mica_dockerfile::lint(&source);
    for finding in findings {
        check_span(finding.diagnostic.span, &source);
    }
    let (dockerfile, problems) = mica_dockerfile::parse_dockerfile_partially(source.clone());
    check(&problems, &source);
    let Some(dockerfile) = dockerfile else {
        assert!(!problems.is_empty(), "neither a tree nor a problem");
        return;
    };
    check(&dockerfile.warnings, &source);
    let platform = Platform::new("linux", "amd64");
    let mut config = ImageConfig::new(&platform);
    config.config.on_build = ["RUN a", "COPY --from=b c d"].map(str::to_owned).to_vec();
    let base = BaseImage { config };
    let mut options = PlanOptions::for_platform(platform);
    options.build_args = vec![("A".to_owned(), "${B}".to_owned())];
    if let Err(problems) = needed_bases_with(&dockerfile, &options, &|_| Some(&base)) {
        check(&problems, &source);
    }
    match plan(&dockerfile, &options, &|_| Some(&base)) {
        Ok(graph) => {
            for (position, step) in graph.steps.iter().enumerate() {
                assert_eq!(step.id.0, position);
                check_span(step.span, &source);
                for input in step.inputs() {
                    if let mica_plan::FilesystemState::Step(id) = input {
                        assert!(id.0 < position, "a step before its input");
                    }
                }
                definition_key(step);
            }
        }
        Err(problems) => check(&problems, &source),
    }
}

fn check(problems: &[Diagnostic], source: &Source) {
    for problem in problems {
        check_span(problem.span, source);
    }
    render(problems, source, true);
}

fn check_span(span: Span, source: &Source) {
    assert!(source.text.get(span.range()).is_some(), "{span:?} is not in the text of {}", source.text.len());
}

/// A line of variables, then the word.
pub fn words(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (variables, word) = text.split_once('\n').unwrap_or(("a=b c=\"d e\"", &text));
    let lookup = |name: &str| {
        let mut pairs = variables.split('\t').filter_map(|pair| pair.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
    };
    let _ = expand_heredoc(word, &lookup);
    for escape in ['\\', '`'] {
        let _ = expand_word(word, escape, &lookup);
        let _ = expand_words(word, escape, &lookup);
        for bits in 0_u8..16 {
            let options = Options {
                keep_quotes: bits & 1 != 0,
                keep_escapes: bits & 2 != 0,
                ignore_quotes: bits & 4 != 0,
                keep_undefined: bits & 8 != 0,
            };
            let _ = expand_with(word, escape, options, &lookup);
            let _ = expand_words_with(word, escape, options, &lookup);
        }
    }
    CheckOptions::parse(word);
}

/// An ignore file, a NUL, and a path. Asked alone and asked on a walk gives one answer.
pub fn dockerignore(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (rules, path) = text.split_once('\0').unwrap_or((&text, "a/b/c"));
    let Ok(rules) = Dockerignore::parse(rules) else { return };
    let clean: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | "." | "..")).collect();
    let (mut parent, mut walked, mut so_far) = (ParentInfo::default(), String::new(), false);
    for name in clean {
        if !walked.is_empty() {
            walked.push('/');
        }
        walked.push_str(name);
        rules.may_reinclude_below(&walked);
        (so_far, parent) = rules.matches_in(&parent, &walked);
    }
    if walked.is_empty() {
        return;
    }
    assert_eq!(rules.matches(&walked).is_ignored, so_far, "`{walked}` alone and on a walk");
}

/// A pattern, a newline, and a name.
pub fn glob(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (pattern, name) = text.split_once('\n').unwrap_or((&text, "a.b"));
    let _ = glob_match(pattern, name);
}

/// Options of `RUN --mount`.
pub fn mount(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let lookup = |name: &str| (name == "a").then(|| "b,c".to_owned());
    let expand = |value: &str| expand_word(value, '\\', &lookup).map(|expanded| expanded.text);
    if let Err(error) = parse_run_mount(&text, &expand) {
        error.hint();
    }
}

/// Addresses of git. What is handed to git is never one of its options, and a login stays out of what is shown.
pub fn git(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for address in [GitAddress::parse(&text), GitAddress::parse_known(&text)] {
        let Ok(address) = address else { continue };
        assert!(!address.url().starts_with('-'), "{:?}", address.url());
        address.host();
        let (_, bare) = address.split_login();
        let is_web = bare.starts_with("http://") || bare.starts_with("https://");
        let authority = bare.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or_default();
        assert!(!is_web || !authority.contains('@'), "{bare}");
    }
    without_login(&text);
}

/// A record of comma separated values: what was read is what was meant.
pub fn fields(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let Ok(fields) = split_fields(&text) else { return };
    let quoted: Vec<String> =
        fields.iter().map(|field| format!("\"{}\"", field.replace('"', "\"\""))).collect();
    assert_eq!(split_fields(&quoted.join(",")).as_ref(), Ok(&fields));
}
