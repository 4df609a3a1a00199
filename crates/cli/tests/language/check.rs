//! Rules: behind a build, before it, and in its place.

use serde_json::Value;

use crate::support::Bench;

const FAULTY: &str = "FROM busybox\nENV A=$b\nMAINTAINER me\nCMD run\n";

#[test]
fn root_builds_tell_what_the_rules_find() {
    let Some(bench) = Bench::new() else { return };
    let outcome = bench.build(FAULTY, &[]).outcome;
    for text in [
        " 3 warnings found:\n",
        " - UndefinedVar: `$b` is not set (line 2)\n",
        "    2 | ENV A=$b\n      |       ^^\n   hint: set it above with `ARG b` or `ENV b=...`\n",
        " - JSONArgsRecommended: CMD in shell form: its process will not get signals (line 4)\n",
    ] {
        assert!(outcome.stderr.contains(text), "does not say `{text}`:\n{}", outcome.stderr);
    }
    // Also when there is nothing to do, but not when nothing is to be said.
    let again = bench.build(FAULTY, &[]).outcome;
    assert!(again.stderr.contains(" 3 warnings found:\n"), "{}", again.stderr);
    assert_eq!(bench.build(FAULTY, &["--quiet"]).outcome.stderr, "");
    let skipped = bench.build(FAULTY, &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"]).outcome;
    assert!(!skipped.stderr.contains("found:"), "{}", skipped.stderr);
    let one =
        bench.build("FROM busybox\n# check=skip=MaintainerDeprecated\nMAINTAINER a\nMAINTAINER b\n", &[]);
    assert!(
        one.outcome.stderr.contains(" 1 warning found:\n - MaintainerDeprecated"),
        "{}",
        one.outcome.stderr
    );
    assert!(one.outcome.stderr.contains("(line 4)"), "{}", one.outcome.stderr);
}

#[test]
fn root_findings_are_errors_when_the_file_wants_it() {
    let Some(bench) = Bench::new() else { return };
    let file = format!("# check=error=true\n{FAULTY}RUN echo > /dev/full\n");
    let rules = "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated, UndefinedVar";
    bench.fails(&file, &[rules, " - UndefinedVar: `$b` is not set (line 3)"]);
    let ran = bench.run(&file, &[]).stderr.contains("RUN echo");
    assert!(!ran, "a step was begun");
    bench.build(&format!("# check=error=true;skip=all\n{FAULTY}"), &[]);
    bench.build("# check=error=true\nFROM busybox\n", &[]);
}

#[test]
fn checks_in_place_of_a_build() {
    let Some(bench) = Bench::empty(&[]) else { return };
    for flags in [["--check"], ["--call=check"]] {
        let outcome = bench.run(FAULTY, &flags);
        assert_eq!(outcome.code, 1, "{}", outcome.stderr);
        let head =
            "Check complete, 3 warnings have been found!\n\nWARNING: UndefinedVar - https://docs.docker.com/";
        assert!(outcome.stdout.starts_with(head), "{}", outcome.stdout);
        assert!(outcome.stdout.contains("`busybox` is not in the local store"), "{}", outcome.stdout);
    }
    let outcome = bench.run("FROM busybox\nCMD [\"a\"]\n", &["--check"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (0, "Check complete, no warnings found.\n"));
    let outcome = bench.run("FROM busybox\nCOPPY a b\n", &["--check"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (1, ""), "{}", outcome.stderr);
    assert!(outcome.stderr.contains("unknown instruction `COPPY`"), "{}", outcome.stderr);
    let outcome = bench.run(FAULTY, &["--call=check,format=json"]);
    let found: Value = serde_json::from_str(&outcome.stdout).expect("JSON");
    let lines = found["warnings"].as_array().expect("warnings").iter().map(|warning| {
        let line = &warning["location"]["ranges"][0]["start"]["line"];
        format!("{} {line}", warning["ruleName"].as_str().unwrap_or_default())
    });
    let lines = lines.collect::<Vec<_>>();
    assert_eq!(lines, ["UndefinedVar 2", "MaintainerDeprecated 3", "JSONArgsRecommended 4"]);
    bench.write(".dockerignore", "*.log\n");
    let outcome = bench.run("FROM scratch\nCOPY a.log /\n", &["--check"]);
    assert!(outcome.stdout.contains("WARNING: CopyIgnoredFile"), "{}", outcome.stdout);
    assert!(!bench.mica.root().exists(), "a store was made");
}

const DESCRIBED: &str = "\
# IMAGE the base
ARG IMAGE=busybox
ARG OTHER=1
# app runs it
FROM $IMAGE AS app
# COLOUR of the sky
ARG COLOUR=blue
RUN --mount=type=secret,id=token,required --mount=type=ssh true
FROM scratch AS unused
ARG NOTHING
FROM app
";

#[test]
fn outlines_and_targets() {
    let Some(bench) = Bench::empty(&[]) else { return };
    let told = |flags: &[&str]| {
        let outcome = bench.run(DESCRIBED, flags);
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        outcome.stdout
    };
    assert_eq!(
        told(&["--call=outline", "--target=app", "--build-arg=COLOUR=red"]),
        "TARGET:        app\nDESCRIPTION:   runs it\n\n\
         BUILD ARG   VALUE     DESCRIPTION\nIMAGE       busybox   the base\nCOLOUR      red       of the sky\n\n\
         SECRET    REQUIRED\ntoken     true\n\nSSH       REQUIRED\ndefault\n"
    );
    let outline: Value = serde_json::from_str(&told(&["--call=outline,format=json"])).expect("JSON");
    assert_eq!(outline["args"][1]["name"], "COLOUR");
    assert_eq!(outline["args"][1]["location"]["ranges"][0]["start"]["line"], 7);
    assert_eq!(outline["secrets"][0]["required"], true);
    assert_eq!(
        told(&["--call=targets"]),
        "TARGET      DESCRIPTION\napp         runs it\nunused      \n(default)   \n"
    );
    let targets: Value = serde_json::from_str(&told(&["--call=targets,format=json"])).expect("JSON");
    assert_eq!(targets["targets"][0]["description"], "runs it");
    assert_eq!(targets["targets"][2]["default"], true);
    let outcome = bench.run(DESCRIBED, &["--call=nonsense"]);
    assert_eq!(outcome.code, 1);
    assert!(outcome.stderr.contains("check, outline or targets"), "{}", outcome.stderr);
}

#[test]
fn root_arguments_that_nothing_asked_for_are_told_of() {
    let Some(bench) = Bench::new() else { return };
    let told = |flags: &[&str]| bench.build("FROM busybox\nARG GOOD\n", flags).outcome.stderr;
    let text = told(&["--build-arg=GOOD=1", "--build-arg=BAD=1", "--build-arg=WORSE=2"]);
    assert!(text.contains("[Warning] One or more build-args [BAD WORSE] were not consumed\n"), "{text}");
    let text =
        told(&["--build-arg=GOOD=1", "--build-arg=HTTP_PROXY=", "--build-arg=BUILDKIT_INLINE_CACHE=0"]);
    assert!(!text.contains("consumed"), "{text}");
}
