//! Steps that want more than containers have: refused before anything runs, unless `--allow` says otherwise.

use mica_diagnostic::Diagnostic;
use mica_dockerfile::instruction::RunNetwork;
use mica_plan::{Graph, Operation};

use crate::request::{BuildNetwork, BuildRequest};

/// What steps want and may not have, in the order of the Dockerfile.
pub(crate) fn check(request: &BuildRequest, graph: &Graph) -> Result<(), Vec<Diagnostic>> {
    let mut problems = Vec::new();
    let network_host = request.allow.network_host || request.network == BuildNetwork::Host;
    for step in &graph.steps {
        let Operation::Run(run) = &step.operation else { continue };
        let refused = |what: &str, entitlement: &str| {
            Diagnostic::error(step.span, format!("{what} is not allowed"))
                .hint(format!("if you trust this Dockerfile, allow it with `--allow {entitlement}`"))
        };
        if run.network == RunNetwork::Host && !network_host {
            problems.push(refused("the network of the host (`--network=host`)", "network.host"));
        }
        if run.insecure && !request.allow.security_insecure {
            problems.push(refused("running without protection (`--security=insecure`)", "security.insecure"));
        }
        if let Some(device) = run.devices.first() {
            let what = format!("devices of steps are not supported yet: `--device={device}`");
            problems.push(Diagnostic::error(step.span, what));
        }
    }
    problems.sort_by_key(|problem| problem.span.start);
    problems.dedup_by(|one, other| one.span == other.span && one.message == other.message);
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}
