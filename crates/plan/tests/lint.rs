//! Findings of all rules: against what BuildKit found in foreign Dockerfiles, and by a table of our own.

mod common;

use common::{corpus, corpus_base, options};
use mica_diagnostic::Source;
use mica_dockerfile::{Checks, Dockerignore, Finding, parse_dockerfile};
use mica_oci::{ImageConfig, Platform};
use mica_plan::{BaseImage, IgnoreRules, PlanOptions, plan_inspected};
use serde_json::Value;

/// What counts of a file, every image being `base`.
fn findings(text: &str, options: &PlanOptions, base: &BaseImage, ignore: Option<&str>) -> Vec<Finding> {
    let source = Source::new("Dockerfile", text);
    let dockerfile = parse_dockerfile(source.clone()).expect("it parses");
    let rules = ignore.map(|text| Dockerignore::parse(text).expect("an ignore file"));
    let ignore = rules.as_ref().map(|rules| IgnoreRules { name: ".dockerignore", rules });
    let (_, findings) = plan_inspected(&dockerfile, options, &|_| Some(base), ignore);
    Checks::new(&source, None).apply(findings)
}

/// Rule and line of each finding.
fn places(text: &str, findings: &[Finding]) -> Vec<(String, u64)> {
    let source = Source::new("Dockerfile", text);
    let mut places: Vec<(String, u64)> = findings
        .iter()
        .map(|finding| (finding.rule.name().to_owned(), source.line(finding.told_at) as u64))
        .collect();
    places.sort();
    places.dedup();
    places
}

fn cases() -> Vec<(String, String, Value)> {
    let mut cases = Vec::new();
    let Some(inline) = corpus("dockerfiles/inline.json") else { return cases };
    let read = |path: std::path::PathBuf| std::fs::read_to_string(path).expect("corpus file is readable");
    let inline: Value = serde_json::from_str(&read(inline)).expect("corpus file is JSON");
    for case in inline["cases"].as_array().expect("cases") {
        let text = |key: &str| case[key].as_str().expect("text").to_owned();
        cases.push((text("id"), text("text"), case["expect"].clone()));
    }
    let Some(real) = corpus("dockerfiles/real") else { return cases };
    for folder in std::fs::read_dir(real).expect("corpus folder is readable") {
        let folder = folder.expect("corpus folder is readable").path();
        let expect = serde_json::from_str(&read(folder.join("expect.json"))).expect("expect.json is JSON");
        cases.push((folder.display().to_string(), read(folder.join("Dockerfile")), expect));
    }
    cases
}

#[test]
fn corpus_lint() {
    let (mut passed, mut failures, mut found) = (0, Vec::new(), 0);
    let cases = cases();
    for (id, text, expect) in &cases {
        // Without instructions there is nothing to look at.
        if parse_dockerfile(Source::new("Dockerfile", text)).is_err() {
            continue;
        }
        let got = places(text, &findings(text, &options(), &corpus_base(), None));
        let lint = expect["lint"].as_array().map(Vec::as_slice).unwrap_or_default();
        let word = |lint: &Value, key: &str| lint[key].as_str().unwrap_or_default().to_owned();
        let mut expected: Vec<(String, u64)> =
            lint.iter().map(|lint| (word(lint, "rule"), lint["line"].as_u64().unwrap_or_default())).collect();
        expected.sort();
        expected.dedup();
        // BuildKit stops at the first error, so there its findings are the first ones.
        let is_cut = expect.get("convert_error").is_some() || expect.get("instr_error").is_some();
        let same = got == expected || (is_cut && expected.iter().all(|finding| got.contains(finding)));
        found += expected.len();
        match same {
            true => passed += 1,
            false => failures.push(format!("{id}: got {got:?}\n    expected {expected:?}\n{text}")),
        }
    }
    println!("lint: {passed} files with {found} findings passed, {} failed", failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(cases.is_empty() || found > 0, "nothing was tested");
}

/// Rule, line, underlined text and hint.
#[track_caller]
fn check(text: &str, ignore: Option<&str>, expect: &[(&str, usize, &str, &str)]) {
    check_with(text, &options(), &corpus_base(), ignore, expect);
}

#[track_caller]
fn check_with(
    text: &str,
    options: &PlanOptions,
    base: &BaseImage,
    ignore: Option<&str>,
    expect: &[(&str, usize, &str, &str)],
) {
    let source = Source::new("Dockerfile", text);
    let findings = findings(text, options, base, ignore);
    let got = findings.iter().map(|finding| {
        let under = text.get(finding.diagnostic.span.range()).expect("the place is in the text");
        let hint = finding.diagnostic.hint.as_deref().unwrap_or_default();
        (finding.rule.name(), source.line(finding.told_at), under, hint)
    });
    assert_eq!(got.collect::<Vec<_>>(), expect, "{text}");
}

#[test]
fn variables_that_nothing_sets() {
    let rule = "UndefinedVar";
    check(
        "FROM busybox\nARG VERSION=1\nENV A=$VERSON\n",
        None,
        &[(rule, 3, "$VERSON", "did you mean `$VERSION`?")],
    );
    check(
        "FROM busybox\nCOPY $foo \\\n  $bar /\n",
        None,
        &[
            (rule, 2, "$foo", "set it above with `ARG foo` or `ENV foo=...`"),
            (rule, 2, "$bar", "set it above with `ARG bar` or `ENV bar=...`"),
        ],
    );
    // Declared without a value, set by the base, left to the shell, a heredoc that is not expanded, one that is.
    check("FROM busybox\nARG A\nENV B=$A:$PATH\nRUN echo $C\nCMD [\"$D\"]\n", None, &[]);
    check("FROM busybox\nCOPY <<'EOF' /a\n$a\nEOF\n", None, &[]);
    check(
        "FROM busybox\nCOPY <<EOF /a\n$a\nEOF\n",
        None,
        &[(rule, 2, "$a\n", "set it above with `ARG a` or `ENV a=...`")],
    );
    // Each variable once for an instruction.
    check(
        "FROM busybox\nLABEL a=$x b=$x\n",
        None,
        &[(rule, 2, "$x", "set it above with `ARG x` or `ENV x=...`")],
    );
    check(
        "FROM busybox\nONBUILD COPY $x /\nFROM scratch\nRUN --mount=type=bind,target=$t true\n",
        None,
        &[(rule, 4, "type=bind,target=$t", "set it above with `ARG t` or `ENV t=...`")],
    );
    // A stage that nothing needs is not looked at.
    check("FROM scratch\nCOPY $foo /\nFROM scratch\n", None, &[]);
}

#[test]
fn arguments_of_from() {
    check(
        "ARG VARIANT=1\nFROM busybox:${VARIAN}x\n",
        None,
        &[("UndefinedArgInFrom", 2, "busybox:${VARIAN}x", "did you mean `$VARIANT`?")],
    );
    check(
        "FROM --platform=$BUILDPLATFORM busybox\nFROM --platform=$BULDPLATFORM scratch AS x\nFROM busybox\n",
        None,
        &[("UndefinedArgInFrom", 2, "$BULDPLATFORM", "did you mean `$BUILDPLATFORM`?")],
    );
    let given = PlanOptions { build_args: vec![("TAG".into(), "1".into())], ..options() };
    let hint = "give the ARG a default that makes it a name";
    let text = "ARG TAG\nFROM busybox:$TAG\n";
    check_with(text, &given, &corpus_base(), None, &[("InvalidDefaultArgInFrom", 2, "busybox:$TAG", hint)]);
    check("ARG TAG=1\nFROM busybox:$TAG\n", None, &[]);
    check("ARG BASE=one\nFROM busybox AS one\nFROM $BASE\n", None, &[]);
}

#[test]
fn hidden_sources() {
    let found = |under, line, text: &str| {
        let text = format!("FROM scratch\n{text}\n");
        check(
            &text,
            Some("# all\n*.log\n/tmp\n"),
            &[(
                "CopyIgnoredFile",
                line,
                under,
                &*format!(
                    "take the line out of `.dockerignore`, or add `!{}` below it",
                    under.trim_matches(['/', '.'])
                ),
            )],
        );
    };
    found("a.log", 2, "COPY a.log /");
    found("tmp/x", 2, "ADD tmp/x /");
    found("/tmp", 2, "COPY /tmp /");
    found("./tmp/", 2, "COPY ok ./tmp/ /");
    let nothing =
        |text: &str, ignore: &str| check(&format!("FROM scratch AS a\n{text}\n"), Some(ignore), &[]);
    nothing("COPY a /", "*.log");
    nothing("COPY a.log /", "*.log\n!a.log");
    nothing("COPY a.log /", "*.log\n!other");
    nothing("FROM scratch\nCOPY --from=a a.log /", "*.log");
    nothing("COPY <<a.log /\na.log", "*.log");
}

#[test]
fn base_of_another_platform() {
    let base = BaseImage { config: ImageConfig::new(&Platform::new("linux", "arm64")) };
    check_with(
        "FROM busybox\n",
        &options(),
        &base,
        None,
        &[(
            "InvalidBaseImagePlatform",
            1,
            "busybox",
            "use an image that there is for linux/amd64, or build with `--platform linux/arm64`",
        )],
    );
}

#[test]
fn arguments_that_nothing_asks_for() {
    let unused = |text: &str, given: &[&str]| {
        let build_args = given.iter().map(|name| (name.to_string(), "1".to_string())).collect();
        let options = PlanOptions { build_args, ..options() };
        let graph = common::plan_text(text, &options, &corpus_base()).expect("a graph");
        graph.unused_args.join(" ")
    };
    assert_eq!(unused("ARG A\nFROM scratch\nARG B\n", &["A", "B"]), "");
    assert_eq!(unused("FROM scratch\nARG B\n", &["X", "B", "X", "Y"]), "X Y");
    let of_themselves =
        ["HTTP_PROXY", "no_proxy", "BUILDKIT_INLINE_CACHE", "TARGETARCH", "SOURCE_DATE_EPOCH"];
    assert_eq!(unused("FROM scratch\n", &of_themselves), "");
    // Of a stage that is not built, and of a trigger.
    assert_eq!(unused("FROM scratch\nARG A\nONBUILD ARG B\nFROM scratch\n", &["A", "B"]), "");
}

/// What is looked for must not take longer than the file is worth.
#[test]
fn files_that_are_wrong_everywhere() {
    let names = |from: usize, to: usize| (from..to).map(|at| format!("$n{at} ")).collect::<String>();
    let mut text = String::from("FROM busybox\n");
    for at in 0..2_000 {
        text.push_str(&format!("ENV v{at} x\n"));
    }
    text.push_str("COPY <<EOF /x\n");
    for line in 0..200 {
        text.push_str(&format!("{}\n", names(line * 500, line * 500 + 500)));
    }
    text.push_str("EOF\n");
    for at in 0..2_000 {
        text.push_str(&format!("FROM busybox:$t{at}\nCMD x\n"));
    }
    let found = findings(&text, &PlanOptions { target: Some("0".into()), ..options() }, &corpus_base(), None);
    assert!((100..=1_000).contains(&found.len()), "{}", found.len());
}

#[test]
fn arguments_of_a_target() {
    let args = |text: &str, target: Option<&str>| {
        let options = PlanOptions { target: target.map(str::to_owned), ..options() };
        let graph = common::plan_text(text, &options, &corpus_base()).expect("a graph");
        let args = graph.args.iter().map(|arg| {
            let description = arg.description.as_deref().unwrap_or_default();
            format!("{}={}|{description}", arg.name, arg.value.as_deref().unwrap_or("-"))
        });
        args.collect::<Vec<_>>().join(" ")
    };
    let text = "ARG in=box\nARG in2=box2\nARG unused=abc${in2}\n# sfx is a suffix\nARG sfx=\"usy${in}\"\n\
                FROM b${sfx} AS first\n# not of it\nARG FOO=123\n# BAR is a number\nARG BAR\nRUN true\n\
                FROM alpine${unused} AS second\nARG BAZ\nFROM first AS target\nCOPY --from=first /x /\nFROM second\n";
    assert_eq!(args(text, Some("target")), "in=box| sfx=usybox|is a suffix FOO=123| BAR=-|is a number");
    assert_eq!(args(text, None), "in2=box2| unused=abcbox2| BAZ=-|");
    assert_eq!(args("FROM a\n# A once\nARG A=1\nARG A=${A}2\n", None), "A=12|once");
    // What a stage takes over is the one of global scope.
    assert_eq!(args("# A of all\nARG A=1\nARG B=2\nFROM a\nARG A\n", None), "A=1|of all");
}
