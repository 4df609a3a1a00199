//! Flags of `mica build`.

use std::path::PathBuf;

use clap::ValueEnum;

use crate::error::CliError;
use crate::progress;

/// Flags of `build`.
#[derive(Debug, clap::Args)]
#[command(override_usage = "mica build [OPTIONS] PATH | URL | -")]
pub(crate) struct Args {
    /// Dockerfile [default: PATH/Dockerfile]; `-` reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<PathBuf>,
    /// Name and tag of the image; may be given several times
    #[arg(short, long, value_name = "NAME")]
    pub(super) tag: Vec<String>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Value of an ARG; without `=` the value of the environment
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_arg: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) label: Vec<String>,
    /// Ask the registries for base images even if they are here
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub(super) pull: Option<bool>,
    /// Push the image under its names when it is built
    #[arg(long)]
    pub(super) push: bool,
    /// Use no result of earlier builds
    #[arg(long)]
    pub(super) no_cache: bool,
    /// Use no result of earlier builds for a stage; may be given several times
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub(super) no_cache_filter: Vec<String>,
    /// When an earlier result is used
    #[arg(long, value_name = "MODE", default_value = "precise")]
    pub(super) cache: CacheFlag,
    /// Use no result that was made with the network longer ago: `90s`, `1h30m`, `7d`
    #[arg(long, value_name = "DURATION", value_parser = mica_dockerfile::parse_age)]
    pub(super) cache_ttl: Option<u64>,
    /// Tell of every step why it was or was not done again
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text"
    )]
    pub(super) explain: Option<ExplainFormat>,
    /// Network of RUN steps
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: NetworkFlag,
    /// A line for /etc/hosts of RUN steps
    #[arg(long, value_name = "HOST:IP")]
    pub(super) add_host: Vec<String>,
    /// Platform of the image; several make one index
    #[arg(long, value_name = "OS/ARCH", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// Print the image ID and nothing else
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// How progress is shown
    #[arg(long, value_name = "KIND", env = "BUILDKIT_PROGRESS", default_value = "auto")]
    pub(super) progress: progress::Kind,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Where the result goes: `type=local|tar|oci|docker|image|registry,dest=PATH,...`, or a directory
    #[arg(short, long, value_name = "OUTPUT")]
    pub(super) output: Vec<String>,
    /// Put the image into the store besides other outputs (the default without `--output`)
    #[arg(long)]
    pub(super) load: bool,
    /// Annotation of the manifest, `[manifest|index,...:]KEY=VALUE`
    #[arg(long, value_name = "[TYPE:]KEY=VALUE")]
    pub(super) annotation: Vec<String>,
    /// Write what was built to a file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Make one layer of all that the build adds to its base image
    #[arg(long)]
    pub(super) squash: bool,
    /// Take results of earlier builds from elsewhere: `type=local|registry|s3,...`, or an image
    #[arg(long, value_name = "CACHE")]
    pub(super) cache_from: Vec<String>,
    /// Keep results for builds elsewhere: `type=local|inline|registry|s3,...`
    #[arg(long, value_name = "CACHE")]
    pub(super) cache_to: Vec<String>,
    /// Files or an image under a name that FROM and --from may use, `NAME=PATH|URL|docker-image://IMAGE|oci-layout://DIR`
    #[arg(long, value_name = "NAME=VALUE")]
    pub(super) build_context: Vec<String>,
    /// A secret that steps may mount, `id=NAME[,src=FILE|env=VARIABLE]`
    #[arg(long, value_name = "SECRET")]
    pub(super) secret: Vec<String>,
    /// An ssh agent that steps may use, `default|NAME[=SOCKET|KEY,...]`
    #[arg(long, value_name = "AGENT")]
    pub(super) ssh: Vec<String>,
    /// Let steps do what could harm the machine: `network.host`, `security.insecure`
    #[arg(long, value_name = "ENTITLEMENT")]
    pub(super) allow: Vec<String>,
    /// Size of /dev/shm in RUN steps
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Limit of RUN steps, `NAME=SOFT[:HARD]`
    #[arg(long, value_name = "LIMIT")]
    pub(super) ulimit: Vec<String>,
    /// Memory of RUN steps
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<String>,
    /// Memory and swap of RUN steps together
    #[arg(long, hide = true, value_name = "BYTES", allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// Microseconds in which processor time is counted
    #[arg(long, hide = true, value_name = "MICROSECONDS")]
    pub(super) cpu_period: Option<u64>,
    /// Microseconds of processor time in each period
    #[arg(long, hide = true, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<i64>,
    /// Weight of RUN steps beside other programs
    #[arg(short, long, hide = true, value_name = "SHARES")]
    pub(super) cpu_shares: Option<u64>,
    /// Processors of RUN steps
    #[arg(long, hide = true, value_name = "LIST")]
    pub(super) cpuset_cpus: Option<String>,
    /// Nodes of memory of RUN steps
    #[arg(long, hide = true, value_name = "LIST")]
    pub(super) cpuset_mems: Option<String>,
    /// Limits of RUN steps in one word
    #[arg(long, hide = true, value_name = "LIMIT")]
    pub(super) resource: Vec<String>,
    /// Accepted for docker's sake: steps are protected as they are
    #[arg(long, hide = true, value_name = "OPTION")]
    pub(super) security_opt: Vec<String>,
    /// Accepted for docker's sake: there is one way to isolate
    #[arg(long, hide = true, value_name = "WAY")]
    pub(super) isolation: Option<String>,
    /// Control group that RUN steps are put below
    #[arg(long, value_name = "GROUP")]
    pub(super) cgroup_parent: Option<String>,
    /// Look for mistakes instead of building
    #[arg(long)]
    pub(super) check: bool,
    /// Tell something of the Dockerfile instead of building: `check`, `outline`, `targets`
    #[arg(long, value_name = "METHOD", default_value = "build", alias = "print")]
    pub(super) call: String,
    /// Fix every time in the image, so that the same sources give the same digest
    #[arg(long)]
    pub(super) reproducible: bool,
    /// Build twice without earlier results, and tell what differs
    #[arg(long)]
    pub(super) verify: bool,
    /// When a step fails, open a shell in the state that it left
    #[arg(short = 'D', long)]
    pub(super) debug: bool,
    /// Write a page that shows the steps over time
    #[arg(long, value_name = "FILE.html")]
    pub(super) timings: Option<PathBuf>,
    /// Accepted for docker's sake: mica keeps nothing that would have to be removed
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    pub(super) rm: Option<Option<bool>>,
    /// As `--rm`
    #[arg(long, hide = true)]
    pub(super) force_rm: bool,
    /// Accepted for docker's sake: there is one builder
    #[arg(long, hide = true, value_name = "NAME")]
    pub(super) builder: Option<String>,
    /// Accepted for docker's sake: the context does not travel
    #[arg(long, hide = true)]
    pub(super) compress: bool,
    /// Attestations are not made
    #[arg(long, hide = true, value_name = "VALUE")]
    pub(super) provenance: Option<String>,
    /// Attestations are not made
    #[arg(long, hide = true, value_name = "VALUE")]
    pub(super) sbom: Option<String>,
    /// Attestations are not made
    #[arg(long, hide = true, value_name = "VALUE")]
    pub(super) attest: Vec<String>,
    /// The build context: a directory, an address of git or the web, or `-` for an archive or a Dockerfile on standard input
    #[arg(value_name = "PATH")]
    pub(super) path: Option<PathBuf>,
}

impl Args {
    /// Refuses flags that go against each other. Not clap's `conflicts_with`, which takes `--quiet=false` for `--quiet`.
    pub(super) fn check(&self) -> Result<(), CliError> {
        let refuse = |one: &str, other: &str| {
            Err(CliError::new(format!("`{one}` cannot be used with `{other}`")).code(2))
        };
        match self {
            Self { explain: Some(_), quiet: true, .. } => refuse("--explain", "--quiet"),
            Self { timings: Some(_), verify: true, .. } => refuse("--timings", "--verify"),
            _ => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum CacheFlag {
    /// Nothing that the step used is different
    Precise,
    /// Nothing at all is different, as docker has it
    Exact,
}

/// How `--explain` tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExplainFormat {
    /// For people
    Text,
    /// One JSON document
    Json,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum NetworkFlag {
    /// A network of its own with a way out
    Default,
    /// The same
    Bridge,
    /// Loopback only
    None,
    /// The host's
    Host,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::path::Path;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        args: Args,
    }

    /// What flags ask of earlier results: mode, limit, stages, explanation.
    #[track_caller]
    fn check(flags: &[&str], expect: &str) {
        let parsed = Flags::try_parse_from([&["build"], flags, &["."]].concat());
        let args = parsed.unwrap_or_else(|error| panic!("{flags:?}: {error}")).args;
        assert_eq!(args.path.as_deref(), Some(Path::new(".")), "{flags:?}");
        let stages = args.no_cache_filter.join(" ");
        let found = format!("{:?} {:?} [{stages}] {:?}", args.cache, args.cache_ttl, args.explain);
        assert_eq!(found, expect, "{flags:?}");
    }

    #[test]
    fn earlier_results() {
        check(&[], "Precise None [] None");
        check(&["--cache=exact"], "Exact None [] None");
        check(&["--cache", "precise", "--cache-ttl", "1h30m"], "Precise Some(5400) [] None");
        check(&["--cache-ttl=7d"], "Precise Some(604800) [] None");
        check(&["--no-cache-filter=a,b", "--no-cache-filter", "1"], "Precise None [a b 1] None");
        // Without `=` the next word is the context.
        check(&["--explain"], "Precise None [] Some(Text)");
        check(&["--explain=text"], "Precise None [] Some(Text)");
        check(&["--explain=json"], "Precise None [] Some(Json)");
    }
}
