//! What a Dockerfile says, and what its rules find in it, without building it.

use std::collections::HashMap;

use mica_diagnostic::{Diagnostic, Source};
use mica_dockerfile::{Checks, Dockerfile, Dockerignore, Finding};
use mica_oci::ImageConfig;
use mica_plan::{
    BaseImage, Graph, IgnoreRules, ImageKey, PlanOptions, PlatformTarget, add_new, join, needed_bases_with,
    plan_inspected,
};
use mica_store::Store;

use crate::base::{image_name, stored_config};
use crate::build::{parse, parse_ignore};
use crate::error::BuildError;
use crate::platforms;
use crate::request::BuildRequest;

/// What is known of a Dockerfile that is not built.
#[derive(Debug)]
pub struct Inspected {
    /// As parsed.
    pub dockerfile: Dockerfile,
    /// What its rules find, in order.
    pub findings: Vec<Finding>,
    /// What would be built, or why it cannot be. Images that the store lacks count as images that say nothing.
    pub graph: Result<Graph, Vec<Diagnostic>>,
    /// Names of those images.
    pub unknown_bases: Vec<String>,
}

/// What the rules find, and what the file says of them.
pub(crate) struct Found {
    findings: Vec<Finding>,
    checks: Checks,
}

impl Found {
    /// The findings that count; an error if the file wants that.
    pub fn into_findings(self, source: &Source) -> Result<Vec<Finding>, BuildError> {
        let findings = self.checks.apply(self.findings);
        if self.checks.options.error && !findings.is_empty() {
            return Err(BuildError::Checks { source_text: source.clone(), findings });
        }
        Ok(findings)
    }
}

/// A graph of all platforms with what it makes for each, or all that is wrong.
pub(crate) type Planned = Result<(Graph, Vec<PlatformTarget>), Vec<Diagnostic>>;

/// Plans for each platform, and looks for what is probably not meant.
pub(crate) fn plan<'a>(
    dockerfile: &Dockerfile,
    request: &BuildRequest,
    every: &[PlanOptions],
    ignore: Option<&Dockerignore>,
    bases: &dyn Fn(&ImageKey) -> Option<&'a BaseImage>,
) -> (Planned, Found) {
    let file = request.ignore.as_ref();
    let ignore = ignore.zip(file).map(|(rules, file)| IgnoreRules { name: &file.name, rules });
    let (mut graphs, mut problems, mut findings) = (Vec::with_capacity(every.len()), Vec::new(), Vec::new());
    for options in every {
        let (graph, more) = plan_inspected(dockerfile, options, bases, ignore);
        for finding in more {
            // Most are the same for every platform.
            if !findings.contains(&finding) {
                findings.push(finding);
            }
        }
        match graph {
            Ok(graph) => graphs.push((options.platform.clone(), graph)),
            Err(more) => add_new(&mut problems, more),
        }
    }
    let planned = match join(graphs) {
        Some(joined) if problems.is_empty() => Ok(joined),
        _ => Err(problems),
    };
    let args = request.plan.build_args.iter().rev();
    let given = args.clone().find(|(name, _)| name == "BUILDKIT_DOCKERFILE_CHECK").map(|(_, value)| value);
    let checks = Checks::new(&dockerfile.source, given.map(String::as_str));
    (planned, Found { findings, checks })
}

/// Looks at the Dockerfile of a request. Base images are looked up in the store, if there is one; none is fetched.
pub fn inspect(store: Option<&Store>, request: &BuildRequest) -> Result<Inspected, BuildError> {
    let source_text = request.dockerfile.clone();
    let wrong = |diagnostics| BuildError::Dockerfile { source_text: source_text.clone(), diagnostics };
    let dockerfile = parse(&request.dockerfile, &request.plan).map_err(wrong)?;
    let ignore = parse_ignore(request)?;
    let mut configs: HashMap<String, BaseImage> = HashMap::new();
    let mut unknown_bases = Vec::new();
    loop {
        let known = |key: &ImageKey| configs.get(&image_name(key));
        // What is wrong with it is told by the plan.
        let requests = needed_bases_with(&dockerfile, &request.plan, &known).unwrap_or_default();
        let new = |base: &&mica_plan::BaseRequest| !configs.contains_key(&image_name(&base.key));
        let Some(base) = requests.iter().find(new) else { break };
        let config = store.and_then(|store| stored_config(store, base)).unwrap_or_else(|| {
            unknown_bases.push(base.as_written.clone());
            BaseImage { config: ImageConfig::new(&base.key.platform) }
        });
        configs.insert(image_name(&base.key), config);
    }
    let known = |key: &ImageKey| configs.get(&image_name(key));
    let (planned, found) = plan(&dockerfile, request, &platforms::options(request), ignore.as_ref(), &known);
    let graph = planned.map(|(graph, _)| graph);
    let findings = found.checks.apply(found.findings);
    Ok(Inspected { dockerfile, findings, graph, unknown_bases })
}
