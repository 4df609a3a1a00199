//! Tables: a Dockerfile and platforms, and the one graph that they become.

mod common;

use common::{corpus_base, options, plan_text};
use mica_oci::Platform;
use mica_plan::{FilesystemState, Graph, PlanOptions, PlatformTarget, StepId, definition_key, join};

#[track_caller]
fn joined(text: &str, platforms: &[&str]) -> (Graph, Vec<PlatformTarget>) {
    let graph = |platform: &&str| {
        let platform = Platform::parse(platform).expect("a platform");
        let options = PlanOptions { platform: platform.clone(), multi_platform: true, ..options() };
        let graph = plan_text(text, &options, &corpus_base());
        (platform, graph.unwrap_or_else(|errors| panic!("{text}: {errors:?}")))
    };
    join(platforms.iter().map(graph).collect()).expect("a platform at least")
}

/// The steps' names, each with the steps that it stands on or reads from, and the steps of each platform.
#[track_caller]
fn check(text: &str, platforms: &[&str], expect: &[&str], expect_targets: &[&str]) {
    let (graph, targets) = joined(text, platforms);
    let number = |state: &&FilesystemState| match state {
        FilesystemState::Step(id) => Some(id.0.to_string()),
        _ => None,
    };
    let mut lines = Vec::new();
    for (position, step) in graph.steps.iter().enumerate() {
        assert_eq!(step.id, StepId(position), "{text}");
        let inputs: Vec<String> = step.inputs().iter().filter_map(number).collect();
        assert!(inputs.iter().all(|input| input.parse::<usize>().is_ok_and(|input| input < position)));
        lines.push(format!("{} <{}>", step.name, inputs.join(" ")));
    }
    assert_eq!(lines, expect, "{text}");
    let targets = targets.iter().map(|target| {
        let steps: Vec<String> = target.steps.iter().map(|id| id.0.to_string()).collect();
        let layers = target.result.history.iter().filter_map(|entry| entry.step);
        let layers: Vec<String> = layers.map(|id| id.0.to_string()).collect();
        let top = number(&&target.result.state).unwrap_or_default();
        format!("{}: {} = {} ^ {top}", target.platform, steps.join(" "), layers.join(" "))
    });
    assert_eq!(targets.collect::<Vec<_>>(), expect_targets, "{text}");
}

#[test]
fn each_platform_has_its_steps() {
    check(
        "FROM a\nRUN make\nCOPY x /",
        &["linux/arm64", "linux/amd64"],
        &[
            "[linux/arm64 2/3] RUN make <>",
            "[linux/arm64 3/3] COPY x / <0>",
            "[linux/amd64 2/3] RUN make <>",
            "[linux/amd64 3/3] COPY x / <2>",
        ],
        &["linux/arm64: 0 1 = 0 1 ^ 1", "linux/amd64: 2 3 = 2 3 ^ 3"],
    );
    check("FROM a\nENV A=1", &["linux/s390x"], &[], &["linux/s390x:  =  ^ "]);
}

#[test]
fn what_is_alike_is_one_step() {
    check(
        "FROM --platform=$BUILDPLATFORM a AS tools\nRUN tools\nRUN more\n\
         FROM tools AS cross\nARG TARGETARCH\nRUN build\n\
         FROM a\nRUN --mount=type=bind,from=tools,target=/t x\nCOPY --from=cross /x /",
        &["linux/amd64", "linux/arm64"],
        &[
            "[linux/amd64 tools 2/3] RUN tools <>",
            "[linux/amd64 tools 3/3] RUN more <0>",
            "[linux/amd64 cross 1/1] RUN build <1>",
            "[linux/amd64 stage-2 2/3] RUN --mount=type=bind,from=tools,target=/t x <1>",
            "[linux/amd64 stage-2 3/3] COPY --from=cross /x / <3 2>",
            "[linux/amd64->arm64 cross 1/1] RUN build <1>",
            "[linux/arm64 stage-2 2/3] RUN --mount=type=bind,from=tools,target=/t x <1>",
            "[linux/arm64 stage-2 3/3] COPY --from=cross /x / <6 5>",
        ],
        &["linux/amd64: 0 1 2 3 4 = 3 4 ^ 4", "linux/arm64: 0 1 5 6 7 = 6 7 ^ 7"],
    );
    // Equal instructions of one platform stay two steps, as in a build of one platform.
    check(
        "FROM --platform=linux/amd64 a\nRUN x\nRUN x",
        &["linux/amd64", "linux/arm64"],
        &["[linux/amd64 2/3] RUN x <>", "[linux/amd64 3/3] RUN x <0>"],
        &["linux/amd64: 0 1 = 0 1 ^ 1", "linux/arm64: 0 1 = 0 1 ^ 1"],
    );
}

#[test]
fn keys_and_configs_are_those_of_each_platform_alone() {
    let text = "FROM a AS one\nARG TARGETARCH\nRUN a\nFROM --platform=$BUILDPLATFORM a\nCOPY --from=one /x /\nRUN b\nENV P=$TARGETARCH";
    let platforms = ["linux/arm/v7", "linux/amd64", "linux/arm64"];
    let (graph, targets) = joined(text, &platforms);
    for (platform, target) in platforms.iter().zip(&targets) {
        let (alone, _) = joined(text, &[platform]);
        let keys: Vec<_> = alone.steps.iter().map(definition_key).collect();
        let found: Vec<_> =
            target.steps.iter().filter_map(|id| graph.step(*id)).map(definition_key).collect();
        assert_eq!(found, keys, "{platform}");
        assert_eq!(target.result.config, alone.target.config, "{platform}");
        assert_eq!(target.result.base, alone.target.base, "{platform}");
        let texts = |target: &mica_plan::StageResult| {
            target.history.iter().map(|entry| entry.created_by.clone()).collect::<Vec<_>>()
        };
        assert_eq!(texts(&target.result), texts(&alone.target), "{platform}");
    }
    assert_eq!(graph.target.config, targets[0].result.config);
    assert!(join(Vec::new()).is_none());
}
