//! `--platform`: what is built for.

use mica_oci::Platform;

use crate::commands::wanted_platform::default_platform;
use crate::error::CliError;

use super::args::Args;

/// Platforms of one build: each is planned by itself, and holds a graph of its own until they are joined.
const PLATFORMS_MAX: usize = 64;

/// The build argument that asks for an index even of one platform.
const MULTI_PLATFORM: &str = "BUILDKIT_MULTI_PLATFORM";

/// What is built for.
pub(super) struct Platforms {
    /// In order, each once; at least one.
    pub all: Vec<Platform>,
    /// Whether they were asked for.
    pub is_given: bool,
    /// Whether an index is made even of one.
    pub is_index: bool,
}

/// Reads the flag, else docker's variable, else takes this machine.
pub(super) fn platforms(args: &Args) -> Result<Platforms, CliError> {
    let given = match (args.platform.as_slice(), default_platform()) {
        ([], Some(default)) => default.split(',').map(str::to_owned).collect(),
        (given, _) => given.to_vec(),
    };
    let all = parse(&given)?;
    // As BuildKit reads it: what is no boolean is none.
    let argument = args
        .build_arg
        .iter()
        .rev()
        .find_map(|arg| arg.split_once('=').filter(|(name, _)| *name == MULTI_PLATFORM));
    let is_true = |value: &str| matches!(value, "1" | "t" | "T" | "true" | "TRUE" | "True");
    Ok(Platforms {
        is_given: !all.is_empty(),
        is_index: argument.is_some_and(|(_, value)| is_true(value)),
        all: if all.is_empty() { vec![Platform::host()] } else { all },
    })
}

/// A platform that somebody may have programs for.
fn known(text: &str) -> Result<Platform, CliError> {
    let platform = Platform::parse(text)?;
    match mica_plan::meant_platform(text) {
        None => Ok(platform),
        Some(meant) => Err(CliError::new(format!("nothing is known to run as `{text}`"))
            .hint(format!("did you mean `{meant}`?"))),
    }
}

/// Platforms in the order in which they are first named.
fn parse(given: &[String]) -> Result<Vec<Platform>, CliError> {
    let mut all: Vec<Platform> = Vec::new();
    for text in given {
        let platform = match text.trim() {
            "local" => Platform::host(),
            text => known(text)?,
        };
        // As buildx hands them on: `linux/arm` is v7 for TARGETVARIANT, and `linux/arm64/v8` is `linux/arm64`.
        let platform = platform.normalized();
        if !all.contains(&platform) {
            all.push(platform);
        }
    }
    if all.len() > PLATFORMS_MAX {
        let what = format!("more than {PLATFORMS_MAX} platforms in one build: {}", all.len());
        return Err(CliError::new(what));
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_once_in_order() {
        let check = |given: &[&str], expect: &str| {
            let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
            let found = match parse(&given) {
                Ok(all) => all.iter().map(Platform::to_string).collect::<Vec<_>>().join(" "),
                Err(error) => error.message,
            };
            assert_eq!(found, expect, "{given:?}");
        };
        check(&[], "");
        check(&["linux/arm64", "linux/amd64"], "linux/arm64 linux/amd64");
        check(&["linux/arm64", "linux/arm64/v8", "aarch64"], "linux/arm64");
        check(&["linux/arm/v7", " linux/arm", "linux/arm/v6"], "linux/arm/v7 linux/arm/v6");
        check(&["local", &Platform::host().to_string()], &Platform::host().to_string());
        check(&["windows(10.0.1)/amd64", "windows(10.0.2)/amd64"], "windows/amd64 windows/amd64");
        check(&["linx/amd64"], "nothing is known to run as `linx/amd64`");
        check(&["linux/amd64", ""], "invalid operating system `` in platform: ``");
        let many: Vec<String> = (0..65).map(|number| format!("linux/arm/v{number}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        check(&many, "more than 64 platforms in one build: 65");
    }
}
