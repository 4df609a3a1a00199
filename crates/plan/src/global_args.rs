//! Variables of global scope: what FROM lines see, and what `ARG NAME` in a stage takes over.

use crate::environment::{Budget, Environment, Expander};
use crate::graph::PlanOptions;
use mica_diagnostic::Diagnostic;
use mica_dockerfile::Dockerfile;
use mica_oci::Platform;

/// Name of the argument that sets all times of an image.
pub(crate) const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// Names of proxy variables, each in both cases.
const PROXY_NAMES: [(&str, &str); 5] = [
    ("HTTP_PROXY", "http_proxy"),
    ("HTTPS_PROXY", "https_proxy"),
    ("FTP_PROXY", "ftp_proxy"),
    ("NO_PROXY", "no_proxy"),
    ("ALL_PROXY", "all_proxy"),
];

/// The value given for a build argument from outside.
pub(crate) fn build_arg(options: &PlanOptions, name: &str) -> Option<String> {
    let given = options.build_args.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let epoch =
        || options.source_date_epoch.filter(|_| name == SOURCE_DATE_EPOCH).map(|seconds| seconds.to_string());
    given.or_else(epoch)
}

/// Whether a build argument has an effect that needs no ARG.
pub(crate) fn means_something(name: &str) -> bool {
    let is_platform = ["BUILD", "TARGET"].iter().any(|prefix| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| ["PLATFORM", "OS", "OSVERSION", "ARCH", "VARIANT", "STAGE"].contains(&rest))
    });
    is_platform
        || name == SOURCE_DATE_EPOCH
        || name.starts_with("BUILDKIT_")
        || PROXY_NAMES.iter().any(|(upper, lower)| [*upper, *lower].contains(&name))
}

/// Proxy variables for RUN, both cases of each, since programs disagree which one they read.
pub(crate) fn hidden_args(options: &PlanOptions) -> Vec<(String, String)> {
    let mut hidden = Vec::new();
    for (upper, lower) in PROXY_NAMES {
        let mut all = options.hidden_args.iter().chain(&options.build_args);
        let Some((_, value)) = all.rfind(|(key, _)| key.eq_ignore_ascii_case(upper)) else {
            continue;
        };
        hidden.push((upper.to_string(), value.clone()));
        hidden.push((lower.to_string(), value.clone()));
    }
    hidden
}

/// The platform arguments and the ARGs before the first FROM.
pub(crate) fn global_args(
    dockerfile: &Dockerfile,
    options: &PlanOptions,
) -> Result<Environment, Vec<Diagnostic>> {
    let last_name =
        dockerfile.stages.last().and_then(|stage| stage.from.name.as_ref()).map(|name| name.value.as_str());
    let target = options.target.as_deref().or(last_name).unwrap_or("default");
    let mut args = Environment::default();
    set_platform(&mut args, "BUILD", &options.build_platform);
    set_platform(&mut args, "TARGET", &options.platform);
    args.set("TARGETSTAGE", target);
    for name in args.entries().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>() {
        if let Some(value) = build_arg(options, &name) {
            args.set(&name, &value);
        }
    }
    let budget = Budget::new();
    let mut errors = Vec::new();
    for arg in &dockerfile.meta_args {
        let name = &arg.value.key.value;
        // Looked at here and not only at the end: each further one is looked for among all before it.
        if let Err(error) = args.check(arg.value.key.span) {
            return Err(vec![error]);
        }
        if let Some(value) = build_arg(options, name) {
            args.set(name, &value);
        } else if let Some(default) = &arg.value.value {
            match (Expander {
                escape: dockerfile.escape,
                environment: &args,
                budget: &budget,
                undefined: None,
            })
            .word(default)
            {
                Ok(value) => args.set(name, &value),
                Err(error) => errors.push(error),
            }
        }
    }
    if let Err(error) = args.check(mica_diagnostic::Span::default()) {
        errors.push(error);
    }
    if errors.is_empty() { Ok(args) } else { Err(errors) }
}

fn set_platform(args: &mut Environment, prefix: &str, platform: &Platform) {
    let mut set = |name: &str, value: &str| args.set(&format!("{prefix}{name}"), value);
    set("PLATFORM", &platform.to_string());
    set("OS", &platform.os);
    set("OSVERSION", platform.os_version.as_deref().unwrap_or_default());
    set("ARCH", &platform.architecture);
    set("VARIANT", platform.variant.as_deref().unwrap_or_default());
}
