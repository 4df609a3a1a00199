//! Policies of steps as a table: what the build was told, what comments say, and what comes of both.

use mica_diagnostic::Source;
use mica_dockerfile::parse_dockerfile;
use mica_oci::{ImageConfig, Platform};
use mica_plan::{BaseImage, Graph, PlanOptions, plan};

use crate::policy::{CacheMode, Policy, of_step, unknown_stages};
use crate::request::BuildRequest;

const DOCKERFILE: &str = "FROM a AS Build
RUN plain
# mica: never
RUN never
# mica: exact
RUN exact
# mica: ttl=10m
RUN limited
FROM a
RUN other
COPY --from=build /x /x
";

fn request() -> BuildRequest {
    let source = Source::new("Dockerfile", DOCKERFILE);
    BuildRequest::new(source, PlanOptions::for_platform(Platform::new("linux", "amd64")))
}

fn graph(request: &BuildRequest) -> Graph {
    let dockerfile = parse_dockerfile(request.dockerfile.clone()).expect("it parses");
    let base = BaseImage { config: ImageConfig::new(&request.plan.platform) };
    plan(&dockerfile, &request.plan, &|_| Some(&base)).expect("it can be planned")
}

fn filter(stages: &[&str]) -> BuildRequest {
    let no_cache_stages = stages.iter().map(|stage| stage.to_string()).collect();
    BuildRequest { no_cache_stages, ..request() }
}

/// What is said of the steps `plain`, `never`, `exact`, `limited`, `other` and of the COPY: words and limits, the limit
/// of a step that used the network behind that of one that did not.
#[track_caller]
fn check(request: &BuildRequest, expect: [&str; 6]) {
    let graph = graph(request);
    let found = graph.steps.iter().map(|step| {
        let policy = of_step(request, &graph, step);
        let Policy { never, no_cache, exact, .. } = policy;
        let words = [(never, "never"), (no_cache, "no-cache"), (exact, "exact")];
        let mut words: Vec<String> =
            words.iter().filter(|(is, _)| *is).map(|(_, word)| word.to_string()).collect();
        assert_eq!(policy.ttl_seconds_of(None), policy.ttl_seconds_of(Some(true)));
        if let Some(network) = policy.ttl_seconds_of(Some(true)) {
            match policy.ttl_seconds_of(Some(false)) {
                Some(seconds) => words.push(format!("{seconds}/{network}")),
                None => words.push(format!("-/{network}")),
            }
        }
        words.join(" ")
    });
    assert_eq!(found.collect::<Vec<_>>(), expect, "{request:?}");
}

#[test]
fn flags_and_comments_together() {
    check(&request(), ["", "never", "exact", "600/600", "", ""]);
    let all = "no-cache";
    check(
        &BuildRequest { no_cache: true, ..request() },
        [all, "never no-cache", "no-cache exact", "no-cache 600/600", all, all],
    );
    check(
        &BuildRequest { cache: CacheMode::Exact, ..request() },
        ["exact", "never exact", "exact", "exact 600/600", "exact", "exact"],
    );
    // The shorter limit counts, each where it holds.
    check(
        &BuildRequest { cache_ttl_seconds: Some(60), ..request() },
        ["-/60", "never -/60", "exact -/60", "600/60", "-/60", "-/60"],
    );
    check(
        &BuildRequest { cache_ttl_seconds: Some(u64::MAX), ..request() },
        [
            "-/9223372036854775807",
            "never -/9223372036854775807",
            "exact -/9223372036854775807",
            "600/600",
            "-/9223372036854775807",
            "-/9223372036854775807",
        ],
    );
}

#[test]
fn stages_without_results_of_earlier_builds() {
    let first = ["no-cache", "never no-cache", "no-cache exact", "no-cache 600/600", "", ""];
    let second = ["", "never", "exact", "600/600", "no-cache", "no-cache"];
    for name in ["build", "BUILD", "0"] {
        check(&filter(&[name]), first);
    }
    for name in ["stage-1", "Stage-1", "1"] {
        check(&filter(&[name]), second);
    }
    check(&filter(&["buil", "2", "", "-1", "stage-0"]), ["", "never", "exact", "600/600", "", ""]);
    check(
        &filter(&["1", "build"]),
        ["no-cache", "never no-cache", "no-cache exact", "no-cache 600/600", "no-cache", "no-cache"],
    );
}

#[test]
fn names_that_no_stage_has() {
    let request = filter(&["build", "bild", "1", "7", "stage-1"]);
    let graph = graph(&request);
    let warnings = unknown_stages(&request, &graph);
    let told: Vec<_> =
        warnings.iter().map(|warning| (warning.message.as_str(), warning.hint.as_deref())).collect();
    assert_eq!(
        told,
        [
            (
                "`--no-cache-filter` names `bild`, which is no stage of this Dockerfile",
                Some("did you mean `build`?")
            ),
            (
                "`--no-cache-filter` names `7`, which is no stage of this Dockerfile",
                Some("its stages are build, stage-1")
            ),
        ]
    );
}
