//! Tables: a Dockerfile, and the steps that it becomes.

mod common;

use common::{corpus_base, options, plan_text, plan_with};
use mica_diagnostic::{Source, Span};
use mica_dockerfile::instruction::{CacheSharing, RunNetwork};
use mica_dockerfile::{CachePolicy, Reuse, parse_dockerfile};
use mica_oci::{ImageConfig, Platform, Reference};
use mica_plan::{
    BaseImage, Chmod, CopySourceSpec, CopyStep, FileSource, FilesystemState, Graph, NamedContext, Operation,
    PlanOptions, RunStep, SourceDateEpoch, StepId, StepMount, needed_bases, needed_bases_with,
};

#[track_caller]
fn graph(text: &str) -> Graph {
    graph_with(text, &options())
}

#[track_caller]
fn graph_with(text: &str, options: &PlanOptions) -> Graph {
    plan_text(text, options, &corpus_base()).unwrap_or_else(|errors| panic!("{text}: {errors:?}"))
}

/// The steps' names, a line each.
#[track_caller]
fn check_names(text: &str, expect: &[&str]) {
    let graph = graph(text);
    let names: Vec<&str> = graph.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, expect, "{text}");
}

/// The messages and hints of all errors.
#[track_caller]
fn check_errors(text: &str, expect: &[&str]) {
    let errors = plan_text(text, &options(), &corpus_base()).err().unwrap_or_default();
    let found: Vec<String> = errors
        .iter()
        .map(|error| {
            let hint = error.hint.as_ref().map(|hint| format!(" | {hint}")).unwrap_or_default();
            let place = text.get(error.span.range()).unwrap_or_default().lines().next().unwrap_or_default();
            format!("{place}: {}{hint}", error.message)
        })
        .collect();
    assert_eq!(found, expect, "{text}");
}

#[track_caller]
fn run_of(graph: &Graph, id: usize) -> &RunStep {
    match &graph.steps[id].operation {
        Operation::Run(run) => run,
        other => panic!("step {id} is no RUN: {other:?}"),
    }
}

#[track_caller]
fn copy_of(graph: &Graph, id: usize) -> &CopyStep {
    match &graph.steps[id].operation {
        Operation::Copy(copy) => copy,
        other => panic!("step {id} is no COPY: {other:?}"),
    }
}

fn value<'a>(run: &'a RunStep, name: &str) -> Option<&'a str> {
    run.environment.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

#[test]
fn names_of_steps() {
    check_names("FROM a\nRUN make\nWORKDIR /\nWORKDIR x\nENV A=1", &["[2/4] RUN make", "[3/4] WORKDIR x"]);
    check_names("FROM scratch\ncopy a /b", &["[1/1] COPY a /b"]);
    check_names(
        "FROM a AS build\nRUN make\nFROM scratch\nCOPY --from=build /x /\nFROM c AS unused\nRUN no\nFROM 1\n"
            .trim_end_matches("FROM 1\n"),
        &["[unused 2/2] RUN no"],
    );
    check_names(
        "FROM a AS build\nRUN make\nFROM scratch\nCOPY --from=build /x /",
        &["[build 2/2] RUN make", "[stage-1 1/1] COPY --from=build /x /"],
    );
    check_names("FROM a AS b\nRUN x\nFROM b\nRUN y", &["[b 2/2] RUN x", "[stage-1 1/1] RUN y"]);
    check_names("FROM a\nCOPY --from=img /x /", &["[stage-0 2/2] COPY --from=img /x /"]);
    check_names("FROM a\nARG V=7\nRUN echo \"$V\" '$V' \\$V $W", &["[2/2] RUN echo \"7\" '$V' \\$V $W"]);
    check_names("FROM a\nRUN <<EOF\n echo 1\n echo 2\nEOF", &["[2/2] RUN <<EOF (echo 1...)"]);
    let many = format!("FROM a\n{}", "RUN x\n".repeat(10));
    assert_eq!(graph(&many).steps[0].name, "[ 2/11] RUN x");
    let options =
        PlanOptions { multi_platform: true, platform: Platform::new("linux", "arm64"), ..options() };
    let text = "FROM --platform=$BUILDPLATFORM a\nARG TARGETPLATFORM\nRUN x";
    assert_eq!(graph_with(text, &options).steps[0].name, "[linux/amd64->arm64 2/2] RUN x");
}

#[test]
fn steps_stand_on_what_they_need() {
    let graph = graph(
        "FROM a AS one\nRUN 1\nRUN 2\nFROM scratch AS two\nCOPY --from=one /x /\nFROM one\nCOPY --from=1 /x /y\nENV A=1",
    );
    let parents: Vec<_> = graph.steps.iter().map(|step| step.parent.clone()).collect();
    let image = graph.target.base.clone().map(FilesystemState::Image).expect("a base");
    assert_eq!(
        parents,
        [image, FilesystemState::Step(StepId(0)), FilesystemState::Scratch, FilesystemState::Step(StepId(1))]
    );
    assert_eq!(
        graph.steps[3].inputs(),
        [&FilesystemState::Step(StepId(1)), &FilesystemState::Step(StepId(2))]
    );
    assert_eq!(graph.target.state, FilesystemState::Step(StepId(3)));
    for (number, step) in graph.steps.iter().enumerate() {
        assert_eq!(step.id, StepId(number));
        for input in step.inputs() {
            assert!(!matches!(input, FilesystemState::Step(StepId(input)) if *input >= number));
        }
    }
    let layers: Vec<_> = graph.target.history.iter().map(|entry| entry.step).collect();
    assert_eq!(layers, [Some(StepId(0)), Some(StepId(1)), Some(StepId(3)), None]);
}

#[test]
fn variables() {
    let base = PlanOptions { build_args: vec![("GIVEN".into(), "out".into())], ..options() };
    let text = "ARG GLOBAL=g\nARG GIVEN=in\nFROM a\nARG GLOBAL\nARG GIVEN=stage\nARG NONE\nARG D=$GLOBAL-d\nENV A=1\nENV A=2 B=$A\nARG A=3\nRUN x\nENV GIVEN=env\nRUN y";
    let graph = graph_with(text, &base);
    let run = run_of(&graph, 0);
    for (name, expect) in [
        ("GLOBAL", Some("g")),
        ("GIVEN", Some("out")),
        ("NONE", None),
        ("D", Some("g-d")),
        ("B", Some("1")),
        ("A", Some("3")),
    ] {
        assert_eq!(value(run, name), expect, "{name}");
    }
    assert_eq!(value(run_of(&graph, 1), "GIVEN"), Some("env"));
    assert_eq!(
        graph.steps[0].created_by,
        "RUN |5 GLOBAL=g GIVEN=out NONE= D=g-d A=3 /bin/sh -c x # buildkit"
    );
    // An ARG is not in the config.
    assert!(!graph.target.config.config.env.iter().any(|entry| entry.starts_with("GLOBAL")));
}

#[test]
fn stages_inherit_variables_and_drop_global_ones() {
    let graph =
        graph("ARG G=g\nFROM a AS one\nARG S=s\nENV E=e\nFROM one\nRUN echo $G $S $E\nLABEL l=$G.$S.$E");
    assert_eq!(graph.target.config.config.labels["l"], ".s.e");
    assert_eq!(value(run_of(&graph, 0), "S"), Some("s"));
    assert_eq!(value(run_of(&graph, 0), "G"), None);
}

#[test]
fn platform_arguments() {
    let options = PlanOptions {
        platform: Platform::with_variant("linux", "arm", "v7"),
        target: Some("x".into()),
        ..options()
    };
    let text = "FROM --platform=$BUILDPLATFORM a AS X\nARG TARGETPLATFORM TARGETVARIANT BUILDARCH TARGETSTAGE\nLABEL a=$TARGETPLATFORM b=$TARGETVARIANT c=$BUILDARCH d=$TARGETSTAGE e=$TARGETOS";
    let graph = graph_with(text, &options);
    let labels: Vec<_> = graph.target.config.config.labels.values().map(String::as_str).collect();
    assert_eq!(labels, ["linux/arm/v7", "v7", "amd64", "x", ""]);
    assert_eq!(graph.target.base.expect("a base").platform, Platform::new("linux", "amd64"));
}

#[test]
fn proxies_are_hidden_until_declared() {
    let options = PlanOptions { hidden_args: vec![("http_proxy".into(), "p".into())], ..options() };
    let graph = graph_with("FROM a\nRUN x\nARG HTTP_PROXY=q\nRUN x", &options);
    let hidden =
        |id| run_of(&graph, id).hidden_environment.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>();
    assert_eq!(hidden(0), ["HTTP_PROXY", "http_proxy"]);
    assert_eq!(hidden(1), ["http_proxy"]);
    assert_eq!(graph.steps[0].created_by, "RUN /bin/sh -c x # buildkit");
}

#[test]
fn shells_and_heredocs() {
    let argv = |text: &str| {
        let graph = graph(&format!("FROM a\n{text}"));
        let run = run_of(&graph, 0);
        (run.argv.clone(), run.script.as_ref().map(|script| (script.path.clone(), script.content.clone())))
    };
    assert_eq!(argv("RUN [\"a\", \"b\"]").0, ["a", "b"]);
    assert_eq!(argv("SHELL [\"s\", \"-x\"]\nRUN a  b").0, ["s", "-x", "a  b"]);
    assert_eq!(argv("RUN <<EOF\na\nb\nEOF").0, ["/bin/sh", "-c", "a\nb\n"]);
    assert_eq!(argv("RUN cat <<A <<B\na\nA\nb\nB").0, ["/bin/sh", "-c", "cat <<A <<B\na\nA\nb\nB"]);
    let script = ("/dev/pipes/EOF".to_string(), "#!/usr/bin/env x\n1\n".to_string());
    assert_eq!(
        argv("RUN <<EOF\n#!/usr/bin/env x\n1\nEOF"),
        (vec!["/bin/sh".into(), "-c".into(), "/dev/pipes/EOF".into()], Some(script))
    );
}

/// Where the mount at this position stands.
#[track_caller]
fn span_of(run: &RunStep, position: usize) -> Span {
    let (StepMount::Bind { span, .. }
    | StepMount::Cache { span, .. }
    | StepMount::Secret { span, .. }
    | StepMount::Ssh { span, .. }) = &run.mounts[position]
    else {
        panic!("no place in the Dockerfile")
    };
    assert!(span.end > span.start);
    *span
}

#[test]
fn mounts_of_run() {
    let graph = graph(
        "FROM a AS b\nFROM a\nWORKDIR /w\nUSER 7:8\nARG T=t M=700\nRUN --network=none \
         --mount=target=x,source=../../s,from=b --mount=type=cache,target=/c,sharing=locked,mode=$M,uid=3 \
         --mount=type=secret,id=dir/s --mount=type=secret,id=e,env=E --mount=type=ssh --mount=type=tmpfs,target=/$T,size=1k make",
    );
    let run = run_of(&graph, 1);
    assert_eq!((run.directory.as_str(), run.user.as_str(), run.network), ("/w", "7:8", RunNetwork::None));
    let from = graph.target.base.clone().map(FilesystemState::Image).expect("a base");
    assert_eq!(
        run.mounts,
        [
            StepMount::Bind {
                target: "/w/x".into(),
                from: FileSource::State(from),
                source: "/s".into(),
                read_write: false,
                span: span_of(run, 0)
            },
            StepMount::Cache {
                target: "/c".into(),
                id: "/c".into(),
                from: None,
                source: "/".into(),
                sharing: CacheSharing::Locked,
                read_only: false,
                mode: 0o700,
                uid: 3,
                gid: 0,
                span: span_of(run, 1)
            },
            StepMount::Secret {
                id: "dir/s".into(),
                target: Some("/run/secrets/s".into()),
                environment_name: None,
                required: false,
                mode: 0o400,
                uid: 0,
                gid: 0,
                span: span_of(run, 2)
            },
            StepMount::Secret {
                id: "e".into(),
                target: None,
                environment_name: Some("E".into()),
                required: false,
                mode: 0o400,
                uid: 0,
                gid: 0,
                span: span_of(run, 3)
            },
            StepMount::Ssh {
                id: "default".into(),
                target: "/run/buildkit/ssh_agent.0".into(),
                required: false,
                mode: 0o600,
                uid: 0,
                gid: 0,
                span: span_of(run, 4)
            },
            StepMount::Tmpfs { target: "/t".into(), size_bytes: Some(1024) },
        ]
    );
    let Operation::Workdir(workdir) = &graph.steps[0].operation else { panic!("no WORKDIR") };
    assert_eq!((workdir.path.as_str(), workdir.user.as_str()), ("/w", ""));
}

#[test]
fn copies() {
    let graph = graph(
        "FROM a\nWORKDIR /w\nARG O=me\nADD --chown=$O:1 --chmod=u+x --exclude=*.md --link https://h/x.tar git@h:r.git ab d/\n\
         COPY --chmod=0640 <<A <<'B' .\n$O \"q\"\nA\n$O\nB\n",
    );
    let add = copy_of(&graph, 1);
    let specs = |copy: &CopyStep| copy.sources.iter().map(|source| source.spec.clone()).collect::<Vec<_>>();
    assert_eq!(
        specs(add),
        [
            CopySourceSpec::Url("https://h/x.tar".into()),
            CopySourceSpec::Git("git@h:r.git".into()),
            CopySourceSpec::Path("ab".into())
        ]
    );
    assert_eq!((add.destination.as_str(), add.chown.as_deref(), add.link), ("/w/d/", Some("me:1"), true));
    assert_eq!(
        (add.chmod.clone(), add.excludes.clone()),
        (Some(Chmod::Symbolic("u+x".into())), vec!["*.md".to_string()])
    );
    assert_eq!(
        graph.steps[1].created_by,
        "ADD --chown=me:1 --chmod=u+x https://h/x.tar git@h:r.git ab d/ # buildkit"
    );
    let inline =
        |name: &str, content: &str| CopySourceSpec::Heredoc { name: name.into(), content: content.into() };
    assert_eq!(specs(copy_of(&graph, 2)), [inline("A", "me \"q\"\n"), inline("B", "$O\n")]);
    assert_eq!(copy_of(&graph, 2).destination, "/w/");
    assert_eq!(copy_of(&graph, 2).chmod, Some(Chmod::Octal(0o640)));
}

#[test]
fn config_of_the_target() {
    let config = |text: &str| graph(text).target.config.config;
    assert_eq!(config("FROM a\nENTRYPOINT [\"e\"]").cmd, None);
    assert_eq!(config("FROM a\nCMD [\"c\"]\nENTRYPOINT [\"e\"]").cmd, Some(vec!["c".to_string()]));
    // Only a CMD of the stage itself stays.
    assert_eq!(config("FROM a AS b\nCMD [\"c\"]\nFROM b\nENTRYPOINT [\"e\"]").cmd, None);
    assert_eq!(config("FROM a\nWORKDIR a\nWORKDIR ../b/.").working_dir, "/b");
    assert_eq!(config("FROM a\nONBUILD RUN x").on_build, ["RUN x"]);
    let options = PlanOptions {
        labels: vec![("l".into(), "out".into())],
        platform: Platform::new("linux", "arm64"),
        platform_is_given: true,
        ..options()
    };
    let graph = graph_with("FROM a\nLABEL l=in", &options);
    assert_eq!(
        (graph.target.config.config.labels["l"].as_str(), graph.target.config.architecture.as_str()),
        ("out", "arm64")
    );
    assert!(graph.target.config.rootfs.diff_ids.is_empty() && graph.target.config.history.is_empty());
}

fn image(json: &str) -> BaseImage {
    BaseImage { config: ImageConfig::parse(json.as_bytes()).expect("a config") }
}

#[test]
fn triggers_run_in_the_child_only() {
    let onbuild = image(
        r#"{"architecture":"amd64","os":"linux","config":{"OnBuild":["RUN first","COPY --from=tools /t /","ENV A=1"]},"rootfs":{"type":"layers","diff_ids":["sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]}}"#,
    );
    let plain = corpus_base();
    let bases = |key: &mica_plan::ImageKey| {
        Some(if key.reference.familiar_name() == "onbuild" { &onbuild } else { &plain })
    };
    let text = "FROM alpine AS tools\nRUN t\nFROM onbuild\nRUN own $A\nFROM scratch";
    let dockerfile = parse_dockerfile(Source::new("Dockerfile", text)).expect("it parses");
    let options = PlanOptions { target: Some("1".into()), ..options() };
    let first = needed_bases(&dockerfile, &options).expect("bases");
    assert_eq!(first.iter().map(|base| base.as_written.as_str()).collect::<Vec<_>>(), ["onbuild"]);
    let second = needed_bases_with(&dockerfile, &options, &bases).expect("bases");
    assert_eq!(second.iter().map(|base| base.as_written.as_str()).collect::<Vec<_>>(), ["alpine", "onbuild"]);
    let graph = plan_with(text, &options, &bases).expect("a plan");
    let names: Vec<&str> = graph.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "[tools 2/2] RUN t",
            "[stage-1 2/5] ONBUILD RUN first",
            "[stage-1 3/5] ONBUILD COPY --from=tools /t /",
            "[stage-1 4/5] RUN own 1"
        ]
    );
    assert_eq!(&text[graph.steps[1].span.range()], "FROM onbuild");
    assert!(graph.target.config.config.on_build.is_empty());

    check_names(
        "FROM a AS p\nONBUILD RUN t\nRUN p\nFROM p AS c\nRUN c\nFROM c\nRUN g",
        &["[p 2/2] RUN p", "[c 1/2] ONBUILD RUN t", "[c 2/2] RUN c", "[stage-2 1/1] RUN g"],
    );
}

#[test]
fn images_that_are_needed() {
    let text = "ARG V=1\nFROM a:$V AS one\nFROM --platform=linux/arm64 a:1 AS two\nFROM unused\nFROM scratch AS t\nCOPY --from=one / /\nCOPY --from=team/x / /\nRUN --mount=from=two,target=/t --mount=from=team/x,target=/u y\nFROM other";
    let dockerfile = parse_dockerfile(Source::new("Dockerfile", text)).expect("it parses");
    let options = PlanOptions { target: Some("T".into()), ..options() };
    let needed = needed_bases(&dockerfile, &options).expect("bases");
    let shown: Vec<String> = needed
        .iter()
        .map(|base| {
            format!(
                "{} {} {} {}",
                base.as_written,
                base.key.reference.canonical(),
                base.key.platform,
                base.is_base
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "a:1 docker.io/library/a:1 linux/amd64 true",
            "a:1 docker.io/library/a:1 linux/arm64 true",
            "team/x docker.io/team/x:latest linux/amd64 false"
        ]
    );
}

#[test]
fn named_contexts_stand_for_stages_and_images() {
    let context = |name: &str, image: Option<&str>| NamedContext {
        name: name.into(),
        image: image.map(|image| Reference::parse(image).expect("a reference")),
    };
    let options = PlanOptions {
        named_contexts: vec![
            context("alpine:3", None),
            context("stage", Some("other")),
            context("files", None),
        ],
        ..options()
    };
    let text = "FROM unused AS stage\nRUN no\nFROM alpine:3\nCOPY --from=files a /\nCOPY --from=stage b /";
    let graph = graph_with(text, &options);
    assert_eq!(graph.steps.len(), 2);
    assert_eq!(graph.steps[0].parent, FilesystemState::NamedContext("alpine:3".into()));
    assert_eq!(copy_of(&graph, 0).from, FileSource::State(FilesystemState::NamedContext("files".into())));
    let FileSource::State(FilesystemState::Image(key)) = &copy_of(&graph, 1).from else { panic!("no image") };
    assert_eq!(key.reference.familiar_name(), "other");
}

#[test]
fn errors_say_what_to_do() {
    check_errors(
        "FROM Ubuntu:18.04",
        &[
            "Ubuntu:18.04: `Ubuntu:18.04` is not an image name: a repository name is lowercase | did you mean `ubuntu:18.04`?",
        ],
    );
    check_errors(
        "FROM a AS b\nARG V\nFROM a:$V",
        &[
            "a:$V: invalid tag `` in image name: `a:` | `V` has no value here: add `ARG V=VALUE` before the first FROM, or pass `--build-arg V=VALUE`",
        ],
    );
    check_errors(
        "FROM a AS b\nCOPY --from=later /x /\nCOPY --from=b /x /\nCOPY --from=9 /x /\nFROM a AS later",
        &["b: stage `b` needs itself", "9: there is no stage `9`, the last one is 1"],
    );
    check_errors(
        "FROM a\nCOPY https://h/x /\nEXPOSE x\nSTOPSIGNAL no\nRUN --mount=target=/ x",
        &[
            "https://h/x: COPY takes files, not a URL | use ADD to fetch it",
            "x: `x` is not a port | write `PORT`, `PORT-PORT` or `PORT/PROTOCOL`",
            "no: `no` is not a signal",
            "target=/: a mount cannot hide everything: the target `/` is `/`",
        ],
    );
    // What is not needed may be wrong.
    assert_eq!(graph("FROM a\nEXPOSE x\nFROM b\nRUN y").steps.len(), 1);
    let options = PlanOptions { target: Some("biuld".into()), ..options() };
    let errors = plan_text("FROM a AS build", &options, &corpus_base()).expect_err("no such stage");
    assert_eq!(errors[0].hint.as_deref(), Some("did you mean `build`?"));
    let unknown = plan_with("FROM a", &common::options(), &|_| None).expect_err("no base");
    assert_eq!(unknown[0].message, "the base image `a` is not known");
}

#[test]
fn stages_by_name_and_number() {
    let steps = |target: &str| {
        let options = PlanOptions { target: Some(target.into()), ..options() };
        graph_with("FROM a AS one\nRUN 1\nFROM a AS two\nRUN 2\nFROM a AS one\nRUN 3", &options).steps[0]
            .name
            .clone()
    };
    assert_eq!(steps("ONE"), "[one 2/2] RUN 3");
    assert_eq!(steps("0"), "[one 2/2] RUN 1");
    assert_eq!(steps("two"), "[two 2/2] RUN 2");
}

#[test]
fn times_from_source_date_epoch() {
    let epoch = |text: &str, given: Option<i64>| {
        graph_with(text, &PlanOptions { source_date_epoch: given, ..options() }).source_date_epoch
    };
    assert_eq!(epoch("FROM a", None), None);
    assert_eq!(epoch("FROM a", Some(5)), Some(SourceDateEpoch::Seconds(5)));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=7\nFROM a", None), Some(SourceDateEpoch::Seconds(7)));
    assert_eq!(epoch("ARG SOURCE_DATE_EPOCH=context\nFROM a", None), Some(SourceDateEpoch::Context));
    let most = 253_402_300_799;
    assert_eq!(epoch("FROM a", Some(most)), Some(SourceDateEpoch::Seconds(most)));
    for wrong in [most + 1, i64::MAX, i64::MIN] {
        let options = PlanOptions { source_date_epoch: Some(wrong), ..options() };
        let errors = plan_text("FROM a", &options, &corpus_base()).expect_err("no such year");
        assert!(errors[0].message.ends_with("is not a SOURCE_DATE_EPOCH"), "{}", errors[0].message);
    }
    assert_eq!(
        epoch(
            "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nARG V=1\nADD https://h/$V.tar /\nFROM a",
            None
        ),
        Some(SourceDateEpoch::Remote(CopySourceSpec::Url("https://h/1.tar".into())))
    );
}

/// Doubling a value per line must not fill the memory.
#[test]
fn hostile_growth_is_refused() {
    let mut text = String::from("FROM a\nENV V=0123456789\n");
    for _ in 0..60 {
        text.push_str("ENV V=$V$V\n");
    }
    let errors = plan_text(&text, &options(), &corpus_base()).expect_err("too large");
    assert!(errors[0].message.starts_with("variables add more than"), "{}", errors[0].message);
    let ports = format!("FROM a\nEXPOSE {}", "1-65535 ".repeat(1000));
    let errors = plan_text(&ports, &options(), &corpus_base()).expect_err("too many");
    assert!(errors[0].message.starts_with("more than"), "{}", errors[0].message);
    // Variables in every RUN, a shell in every CMD, stages and triggers repeated by the stages that begin with them.
    let big = "x".repeat(100_000);
    let chain: String = (0..3_000).map(|number| format!("FROM s{number} AS s{}\n", number + 1)).collect();
    let users: String = (0..200).map(|number| format!("FROM p AS c{number}\n")).collect();
    let copies: String = (0..200).map(|number| format!("COPY --from=c{number} / /\n")).collect();
    for text in [
        format!("FROM a\nENV V={big}\n{}", "RUN x\n".repeat(2_000)),
        format!("FROM a\nSHELL [\"{big}\"]\n{}", "CMD x\n".repeat(3_000)),
        format!("FROM a AS s0\nLABEL l={big}\n{chain}"),
        format!("FROM a AS p\n{}{users}FROM a\n{copies}", "ONBUILD RUN x\n".repeat(100)),
        format!("FROM a\nENV {}", (0..10_100).map(|number| format!("V{number}=1 ")).collect::<String>()),
        format!("FROM a\nARG {}", (0..1_100).map(|number| format!("V{number} ")).collect::<String>()),
        format!("FROM a\n{}", format!("WORKDIR {}\n", "d".repeat(200)).repeat(30)),
    ] {
        let start: String = text.chars().take(40).collect();
        assert!(plan_text(&text, &options(), &corpus_base()).is_err(), "{start}");
    }
}

#[test]
fn policies_of_steps() {
    let never = CachePolicy { reuse: Reuse::Never, ttl_seconds: None };
    let exact = CachePolicy { reuse: Reuse::Exact, ttl_seconds: Some(60) };
    let free = CachePolicy::default();
    let text = "FROM a\n# mica: never\nRUN x\nRUN y\n# mica: exact ttl=1m\nCOPY a b\n# mica: never\nADD a b\n\
                # mica: exact ttl=1m\nWORKDIR /w";
    let policies: Vec<CachePolicy> = graph(text).steps.iter().map(|step| step.policy).collect();
    assert_eq!(policies, [never, free, exact, never, exact]);
    // A trigger has none, whatever stands above it or in it.
    let mut base = corpus_base();
    base.config.config.on_build = vec!["# mica: never\nRUN t".to_string()];
    let text = "FROM a AS p\n# mica: never\nONBUILD RUN x\nFROM p\nRUN y";
    let graph = plan_text(text, &options(), &base).expect("a plan");
    assert_eq!(graph.steps.len(), 3);
    assert!(graph.steps.iter().all(|step| step.policy == free));
}

#[test]
fn bases_and_names_of_stages() {
    let graph = graph(
        "FROM a AS Build\nRUN x\nRUN y\nFROM scratch\nCOPY --from=build x /x\nRUN z\nFROM b AS unused\nRUN u\n\
         FROM build AS last\nCOPY --from=1 x /x\nRUN last",
    );
    assert_eq!(graph.stage_names, ["build", "stage-1", "unused", "last"]);
    let base = |state: &FilesystemState| graph.base_of(state).map(|key| key.reference.familiar());
    let of_steps: Vec<_> = graph.steps.iter().map(|step| (step.stage, base(&step.parent))).collect();
    let a = Some("a:latest".to_string());
    assert_eq!(
        of_steps,
        [(0, a.clone()), (0, a.clone()), (1, None), (1, None), (3, a.clone()), (3, a.clone())]
    );
    assert_eq!(base(&graph.target.state), a);
    assert_eq!(base(&FilesystemState::NamedContext("files".to_string())), None);
    assert_eq!(base(&FilesystemState::Step(StepId(99))), None);
}

#[test]
fn stages_that_stand_further_down() {
    let graph = graph("FROM a AS target\nCOPY --from=build /x /\nFROM a AS build\nRUN make\nFROM target");
    let names: Vec<&str> = graph.steps.iter().map(|step| step.name.as_str()).collect();
    assert_eq!(names, ["[build 2/2] RUN make", "[target 2/2] COPY --from=build /x /"]);
    for step in &graph.steps {
        let is_before = |state: &&mica_plan::FilesystemState| match state {
            mica_plan::FilesystemState::Step(id) => *id < step.id,
            _ => true,
        };
        assert!(step.inputs().iter().all(is_before), "an input stands behind {}", step.name);
    }
    let error = |text: &str| {
        let errors = plan_text(text, &options(), &corpus_base()).expect_err("a circle");
        let under = text.get(errors[0].span.range()).unwrap_or_default();
        (under.to_owned(), errors[0].message.clone())
    };
    assert_eq!(
        error("FROM a AS b\nCOPY --from=c /x /\nFROM a AS c\nCOPY --from=d /x /\nFROM b AS d\nFROM a"),
        ("FROM b AS d".into(), "stages need each other: `b` needs `c` needs `d` needs `b`".into())
    );
    assert_eq!(
        error("FROM a\nRUN --mount=from=1,target=/m x\nFROM a\nCOPY --from=0 /x /"),
        ("0".into(), "stages need each other: `stage-0` needs `stage-1` needs `stage-0`".into())
    );
    // A trigger can close the circle.
    assert_eq!(
        error("FROM a AS b\nONBUILD COPY --from=d /x /\nFROM b AS c\nFROM c AS d"),
        ("FROM c AS d".into(), "stages need each other: `c` needs `d` needs `c`".into())
    );
}
