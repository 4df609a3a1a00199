//! When an earlier result of a step may be used: what the build was told and what the step's comments say, as one value.
//!
//! | | the build | the step |
//! |---|---|---|
//! | always done again | `--no-cache`, `--no-cache-filter STAGE` | `# mica: never` |
//! | only on the same layers | `--cache=exact` | `# mica: exact` |
//! | not when older | `--cache-ttl`, of steps that used the network | `# mica: ttl=...`, whatever it used |
//!
//! Nothing that a comment says takes back what a flag says: both make a build do more, never less.

use mica_diagnostic::{Diagnostic, Span};
use mica_dockerfile::Reuse;
use mica_dockerfile::suggest::suggest;
use mica_plan::{Graph, Step};

use crate::request::BuildRequest;

/// On which layers earlier results are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CacheMode {
    /// Where nothing that the step used is different.
    #[default]
    Precise,
    /// On the same layers only, as docker has it.
    Exact,
}

/// When an earlier result of one step may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Policy {
    /// Never, because a comment says so.
    pub never: bool,
    /// Never, because the build was told so.
    pub no_cache: bool,
    /// Only on the same layers.
    pub exact: bool,
    /// Not when it is older, whatever the step used: its own words.
    pub ttl_seconds: Option<i64>,
    /// Not when it is older, if it used the network: what the build was told.
    pub ttl_network_seconds: Option<i64>,
}

impl Policy {
    /// How old a result may be, the shorter one if two limits hold for it. `network` is whether its step used the
    /// network; one that nobody looked at may have.
    pub fn ttl_seconds_of(&self, network: Option<bool>) -> Option<i64> {
        let of_network = self.ttl_network_seconds.filter(|_| network != Some(false));
        [self.ttl_seconds, of_network].into_iter().flatten().min()
    }
}

/// The policy of one step.
pub(crate) fn of_step(request: &BuildRequest, graph: &Graph, step: &Step) -> Policy {
    let in_filter = |name: &String| is_stage(name, graph, step.stage);
    let seconds = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
    Policy {
        never: step.policy.reuse == Reuse::Never,
        no_cache: request.no_cache || request.no_cache_stages.iter().any(in_filter),
        exact: request.cache == CacheMode::Exact || step.policy.reuse == Reuse::Exact,
        ttl_seconds: step.policy.ttl_seconds.map(seconds),
        ttl_network_seconds: request.cache_ttl_seconds.map(seconds),
    }
}

/// Warns of names in `--no-cache-filter` that no stage has: what was to be done again would silently not be.
pub(crate) fn unknown_stages(request: &BuildRequest, graph: &Graph) -> Vec<Diagnostic> {
    let known = graph.stage_names.iter().map(String::as_str).collect::<Vec<_>>();
    let unknown = request
        .no_cache_stages
        .iter()
        .filter(|name| !(0..known.len()).any(|position| is_stage(name, graph, position)));
    let warn = |name: &String| {
        let message = format!("`--no-cache-filter` names `{name}`, which is no stage of this Dockerfile");
        let hint = match suggest(name, &known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("its stages are {}", known.join(", ")),
        };
        Diagnostic::warning(Span::default(), message).hint(hint)
    };
    unknown.map(warn).collect()
}

/// Whether a stage is meant by a name, in whatever case, or by its number.
fn is_stage(name: &str, graph: &Graph, position: usize) -> bool {
    let named = graph.stage_names.get(position).is_some_and(|stage| stage.eq_ignore_ascii_case(name));
    named || name.parse() == Ok(position)
}
