//! One build for several platforms: each is planned by itself, and all of them are one graph.

use mica_diagnostic::Diagnostic;
use mica_dockerfile::Dockerfile;
use mica_plan::{BaseImage, BaseRequest, ImageKey, PlanOptions, add_new, needed_bases_with};

use crate::request::BuildRequest;

type Known<'k, 'b> = &'k dyn Fn(&ImageKey) -> Option<&'b BaseImage>;

/// What is wanted for each platform, in the order of the request.
pub(crate) fn options(request: &BuildRequest) -> Vec<PlanOptions> {
    if request.platforms.is_empty() {
        return vec![request.plan.clone()];
    }
    let multi_platform = request.makes_index();
    let of_platform = |platform: &_| PlanOptions {
        platform: Clone::clone(platform),
        multi_platform,
        ..request.plan.clone()
    };
    request.platforms.iter().map(of_platform).collect()
}

/// The images that any of the platforms needs, each once.
pub(crate) fn needed_bases(
    dockerfile: &Dockerfile,
    every: &[PlanOptions],
    known: Known<'_, '_>,
) -> Result<Vec<BaseRequest>, Vec<Diagnostic>> {
    let mut requests: Vec<BaseRequest> = Vec::new();
    let mut problems = Vec::new();
    for options in every {
        match needed_bases_with(dockerfile, options, known) {
            Ok(more) => {
                for request in more {
                    match requests.iter_mut().find(|known| known.key == request.key) {
                        Some(known) => known.is_base |= request.is_base,
                        None => requests.push(request),
                    }
                }
            }
            Err(more) => add_new(&mut problems, more),
        }
    }
    if problems.is_empty() { Ok(requests) } else { Err(problems) }
}
