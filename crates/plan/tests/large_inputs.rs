//! Files that are large without being long: each line asks for a look at all lines before it.

use mica_diagnostic::Source;
use mica_dockerfile::parse_dockerfile;
use mica_oci::Platform;
use mica_plan::{Operation, PlanOptions, StepMount, plan};

fn options() -> PlanOptions {
    PlanOptions::for_platform(Platform::new("linux", "amd64"))
}

/// Found by fuzzing: they were counted when all of them had been looked for among all of them.
#[test]
fn too_many_global_arguments_are_refused_at_the_first_one_too_many() {
    let mut text: String = (0..20_000).map(|number| format!("ARG a{number}=b\n")).collect();
    text += "FROM scratch\n";
    let dockerfile = parse_dockerfile(Source::new("Dockerfile", &text)).expect("a Dockerfile");
    let problems = plan(&dockerfile, &options(), &|_| None).expect_err("too many");
    let [problem] = &problems[..] else { panic!("{problems:?}") };
    assert!(problem.message.contains("more than 10000 variables"), "{}", problem.message);
    let line = dockerfile.source.line(problem.span.start);
    assert!((9_990..10_010).contains(&line), "line {line}");
}

/// Found by fuzzing: the agents were counted anew for every mount.
#[test]
fn agents_of_a_step_with_thousands_of_mounts_are_numbered() {
    let mounts = "--mount=type=tmpfs,target=/a --mount=type=ssh \\\n".repeat(5_000);
    let text = format!("FROM scratch\nRUN {mounts} x\n");
    let dockerfile = parse_dockerfile(Source::new("Dockerfile", &text)).expect("a Dockerfile");
    let graph = plan(&dockerfile, &options(), &|_| None).expect("a graph");
    let Some(Operation::Run(run)) = graph.steps.first().map(|step| &step.operation) else { panic!("no RUN") };
    let Some(StepMount::Ssh { target, .. }) = run.mounts.last() else { panic!("no agent") };
    assert_eq!(target, "/run/buildkit/ssh_agent.4999");
}
