//! What the flags of `mica build` ask for.

use std::time::{SystemTime, UNIX_EPOCH};

use mica_build::{BuildNetwork, BuildRequest, CacheMode};
use mica_oci::{Platform, Reference};
use mica_plan::PlanOptions;

use crate::commands::remote;
use crate::error::CliError;
use crate::progress;
use crate::session::Session;

use super::args::{Args, CacheFlag, NetworkFlag};
use super::platforms::Platforms;
use super::{context, limits, named, platforms, secrets, verify};

/// Variables that docker passes to RUN without being asked, in both cases.
const PROXY_VARIABLES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// What the flags ask for.
pub(super) fn request(args: &Args, session: &Session) -> Result<BuildRequest, CliError> {
    let secrets = secrets::secrets(args)?;
    let platforms = platforms::platforms(args)?;
    let mut files = context::files(args, session, &secrets)?;
    let named = named::named(args, session, &secrets, &platforms.all)?;
    files.fetched.extend(named.fetched);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64);
    Ok(BuildRequest {
        context: files.context,
        named_directories: named.directories,
        named_images: named.images,
        fetched: files.fetched,
        ignore: files.ignore,
        platforms: platforms.all.clone(),
        pull: args.pull.unwrap_or(false),
        no_cache: args.no_cache,
        explain: args.explain.is_some(),
        timings: args.timings.is_some() || args.progress == progress::Kind::Rawjson,
        no_cache_stages: args.no_cache_filter.clone(),
        cache: match args.cache {
            CacheFlag::Precise => CacheMode::Precise,
            CacheFlag::Exact => CacheMode::Exact,
        },
        cache_ttl_seconds: args.cache_ttl,
        network: match args.network {
            NetworkFlag::Default | NetworkFlag::Bridge => BuildNetwork::Default,
            NetworkFlag::None => BuildNetwork::None,
            NetworkFlag::Host => BuildNetwork::Host,
        },
        add_hosts: args.add_host.clone(),
        secrets,
        ssh: secrets::ssh(args)?,
        allow: secrets::entitlements(args)?,
        limits: limits::limits(args)?,
        squash: args.squash,
        keep_failed: true,
        reproducible: verify::fixed_time(args)?,
        rootless: session.rootless,
        now_seconds: now,
        ..BuildRequest::new(
            files.dockerfile,
            PlanOptions { named_contexts: named.contexts, ..plan_options(args, &platforms)? },
        )
    })
}

fn plan_options(args: &Args, platforms: &Platforms) -> Result<PlanOptions, CliError> {
    let platform = platforms.all.first().cloned().unwrap_or_else(Platform::host);
    let mut options = PlanOptions::for_platform(platform);
    options.build_platform = Platform::host();
    options.platform_is_given = platforms.is_given;
    options.multi_platform = platforms.is_index;
    options.target = args.target.clone();
    if let Ok(text) = std::env::var("SOURCE_DATE_EPOCH")
        && !text.is_empty()
    {
        match text.parse() {
            Ok(seconds) => options.source_date_epoch = Some(seconds),
            // `context`, say: what the argument may be as well. First, so that the flag goes before it.
            Err(_) => options.build_args.push(("SOURCE_DATE_EPOCH".to_owned(), text)),
        }
    }
    for (flag, values) in [("--build-arg", &args.build_arg), ("--label", &args.label)] {
        if let Some(text) = values.iter().find(|text| text.is_empty() || text.starts_with('=')) {
            return Err(CliError::new(format!("invalid value `{text}` for `{flag}`: the name is empty")));
        }
    }
    for argument in &args.build_arg {
        match argument.split_once('=') {
            Some((name, value)) => options.build_args.push((name.to_owned(), value.to_owned())),
            // As docker has it: a name alone takes the value of the environment, and nothing when there is none.
            None => {
                if let Ok(value) = std::env::var(argument) {
                    options.build_args.push((argument.clone(), value));
                }
            }
        }
    }
    for name in PROXY_VARIABLES {
        for name in [name.to_string(), name.to_lowercase()] {
            if let Ok(value) = std::env::var(&name)
                && !options.build_args.iter().any(|(given, _)| *given == name)
            {
                options.hidden_args.push((name, value));
            }
        }
    }
    for label in &args.label {
        let (name, value) = label.split_once('=').unwrap_or((label, ""));
        options.labels.push((name.to_owned(), value.to_owned()));
    }
    Ok(options)
}

/// A name for an image, with the tag that it gets by default.
pub(super) fn parse_name(text: &str) -> Result<Reference, CliError> {
    let name = remote::parse_reference(text)?;
    if name.digest().is_some() {
        let what = format!("`{text}` cannot be given to an image: a digest is no name");
        return Err(CliError::new(what).hint("use NAME:TAG"));
    }
    Ok(name.with_default_tag())
}
