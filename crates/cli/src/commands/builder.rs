//! `mica builder ...`: builds under their long name, and making the build cache smaller. Scripts call it `buildx` too.

use std::time::Duration;

use mica_store::{Freed, GcOptions};

use crate::commands::{build, buildx, filter, imagetools};
use crate::error::CliError;
use crate::format::ago::now_unix_s;
use crate::format::output::{confirm, print};
use crate::format::size::human_sum;
use crate::session::Session;

/// Arguments of `mica builder`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub(crate) struct Args {
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true, value_name = "NAME")]
    builder: Option<String>,
    /// Accepted for docker's sake: errors say what there is to say
    #[arg(short = 'D', long, hide = true)]
    debug: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    #[command(alias = "b")]
    Build(Box<build::Args>),
    /// Show what the build cache takes
    Du(buildx::DuArgs),
    /// Show and make manifests and indexes of registries
    Imagetools(imagetools::Args),
    /// Remove build cache
    Prune(PruneArgs),
    /// Show the version
    Version,
    // What follows is for scripts that were written for buildx.
    #[command(hide = true, alias = "f")]
    Bake(buildx::BakeArgs),
    #[command(hide = true)]
    Create(buildx::CreateArgs),
    #[command(hide = true)]
    Inspect(buildx::InspectArgs),
    #[command(hide = true)]
    Ls(buildx::LsArgs),
    #[command(hide = true)]
    Rm(buildx::RmArgs),
    #[command(hide = true)]
    Stop(buildx::StopArgs),
    #[command(hide = true)]
    Use(buildx::UseArgs),
}

impl Args {
    /// Whether files of the store are touched.
    pub(crate) fn needs_user_namespace(&self) -> bool {
        matches!(self.command, Command::Build(_) | Command::Du(_) | Command::Prune(_))
    }
}

#[derive(Debug, clap::Args)]
struct PruneArgs {
    /// Remove all build cache, not just what no build can reach
    #[arg(short, long)]
    all: bool,
    /// Which of it: until=, unused-for=
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

/// Runs the command that is meant.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    match args.command {
        Command::Build(args) => build::run(*args, session),
        Command::Prune(args) => prune(&args, session),
        Command::Bake(args) => buildx::bake(&args),
        Command::Create(args) => buildx::create(&args),
        Command::Du(args) => buildx::du(&args, session),
        Command::Imagetools(args) => imagetools::run(args),
        Command::Inspect(args) => buildx::inspect(&args),
        Command::Ls(args) => buildx::ls(&args),
        Command::Rm(args) => buildx::rm(&args),
        Command::Stop(args) => buildx::stop(&args),
        Command::Use(args) => buildx::choose(&args),
        Command::Version => buildx::version(),
    }
}

fn prune(args: &PruneArgs, session: &Session) -> Result<u8, CliError> {
    let unused_for = unused_for(&args.filter, now_unix_s())?;
    let warning = match args.all {
        true => "WARNING! This will remove all build cache.",
        false => "WARNING! This will remove all dangling build cache.",
    };
    if !args.force && !confirm(warning)? {
        return Ok(0);
    }
    let freed = session.open_store_to_free()?.gc(options(args.all, unused_for))?;
    print(&format!("{}Total:\t{}\n", text(&freed), human_sum(freed.bytes)))?;
    Ok(0)
}

/// How long a record must have been unused for all filters to hold.
fn unused_for(filters: &[String], now_unix_s: i64) -> Result<Option<Duration>, CliError> {
    let mut longest = None;
    for text in filters {
        let (key, value) = filter::split(text)?;
        let until = match key {
            "until" | "unused-for" => filter::until(value)?,
            _ => return Err(filter::unknown(text, "until, unused-for")),
        };
        let seconds = u64::try_from(now_unix_s.saturating_sub(until)).unwrap_or(0);
        longest = longest.max(Some(Duration::from_secs(seconds)));
    }
    Ok(longest)
}

/// Every record of the cache is reachable by a build, so without `-a` or a filter only layers and blobs that nothing
/// refers to go.
fn options(all: bool, unused_for: Option<Duration>) -> GcOptions {
    GcOptions {
        keep_cache: !all && unused_for.is_none(),
        cache_unused_for: unused_for,
        // Their age is not known.
        cache_mounts: all && unused_for.is_none(),
        keep_downloads: unused_for.is_some(),
        failed_steps: unused_for.is_none(),
    }
}

/// What went; empty if nothing did.
fn text(freed: &Freed) -> String {
    let kinds = [
        ("records", freed.cache_records),
        ("layers", freed.layers),
        ("blobs", freed.blobs),
        ("cache mounts", freed.cache_mounts),
        ("downloads", freed.downloads),
        ("states of failed steps", freed.failed_steps),
    ];
    kinds
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("Deleted {kind}: {count}\n"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_say_how_long_unused() {
        let check = |filters: &[&str], expect: Option<Option<u64>>| {
            let filters: Vec<String> = filters.iter().map(|&filter| filter.to_owned()).collect();
            let found = unused_for(&filters, 1000).ok();
            assert_eq!(found, expect.map(|age| age.map(Duration::from_secs)), "{filters:?}");
        };
        check(&[], Some(None));
        check(&["until=400"], Some(Some(600)));
        check(&["until=400", "unused-for=100"], Some(Some(900)));
        check(&["until=2000"], Some(Some(0)));
        check(&["until=soon"], None);
        check(&["type=x"], None);
        check(&["until"], None);
    }

    #[test]
    fn only_what_was_asked_for_goes() {
        let hour = Some(Duration::from_secs(3600));
        let check = |all, age, keep_cache, cache_mounts| {
            let options = options(all, age);
            assert_eq!(
                (options.keep_cache, options.cache_mounts),
                (keep_cache, cache_mounts),
                "{all} {age:?}"
            );
            assert_eq!(options.cache_unused_for, age);
        };
        check(false, None, true, false);
        check(true, None, false, true);
        check(false, hour, false, false);
        check(true, hour, false, false);
    }

    #[test]
    fn says_what_went() {
        assert_eq!(text(&Freed::default()), "");
        let freed = Freed { cache_records: 2, layers: 1, ..Freed::default() };
        assert_eq!(text(&freed), "Deleted records: 2\nDeleted layers: 1\n");
    }
}
