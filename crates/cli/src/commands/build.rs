//! `mica build`

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use mica_build::{BaseSource, BuildNetwork, BuildRequest, CacheMode, IgnoreFile};
use mica_diagnostic::Source;
use mica_image::{ImageError, PullRequest, Pulled, Watch};
use mica_oci::{Platform, Reference};
use mica_plan::PlanOptions;
use mica_store::Store;
use mica_sys::signal::SignalReader;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::Signal;

use crate::commands::build_error::explain;
use crate::commands::{push, remote, why};
use crate::error::CliError;
use crate::format::output::print;
use crate::format::verdict::explanation;
use crate::progress::{self, Progress, Stream};
use crate::session::Session;

/// The longest Dockerfile or ignore file that is read.
const DOCKERFILE_BYTES_MAX: u64 = 16 << 20;

/// Exit code of a process that a terminal's interrupt ended, as shells have it.
pub(crate) const INTERRUPTED: u8 = 130;

/// Variables that docker passes to RUN without being asked, in both cases.
const PROXY_VARIABLES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

/// Flags of `build`.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Dockerfile [default: PATH/Dockerfile]; `-` reads it from standard input
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Name and tag of the image; may be given several times
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Stage to build
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value of an ARG; without `=` the value of the environment
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
    /// Label of the image
    #[arg(long, value_name = "NAME=VALUE")]
    label: Vec<String>,
    /// Ask the registries for base images even if they are here
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pull: Option<bool>,
    /// Push the image under its names when it is built
    #[arg(long)]
    push: bool,
    /// Use no result of earlier builds
    #[arg(long)]
    no_cache: bool,
    /// Use no result of earlier builds for a stage; may be given several times
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,
    /// When an earlier result is used
    #[arg(long, value_name = "MODE", default_value = "precise")]
    cache: CacheFlag,
    /// Use no result that was made with the network longer ago: `90s`, `1h30m`, `7d`
    #[arg(long, value_name = "DURATION", value_parser = mica_dockerfile::parse_age)]
    cache_ttl: Option<u64>,
    /// Tell of every step why it was or was not done again
    #[arg(
        long,
        value_name = "FORMAT",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "text",
        conflicts_with = "quiet"
    )]
    explain: Option<ExplainFormat>,
    /// Network of RUN steps
    #[arg(long, value_name = "MODE", default_value = "default")]
    network: NetworkFlag,
    /// A line for /etc/hosts of RUN steps
    #[arg(long, value_name = "HOST:IP")]
    add_host: Vec<String>,
    /// Platform of the image
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<String>,
    /// Print the image ID and nothing else
    #[arg(short, long)]
    quiet: bool,
    /// How progress is shown
    #[arg(long, value_name = "KIND", default_value = "auto")]
    progress: progress::Kind,
    /// Write the image ID to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,
    /// Accepted for docker's sake: mica keeps nothing that would have to be removed
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true)]
    rm: Option<Option<bool>>,
    /// As `--rm`
    #[arg(long, hide = true)]
    force_rm: bool,
    /// Accepted for docker's sake: images always go to the store
    #[arg(long, hide = true)]
    load: bool,
    /// The build context: a directory, or `-` for a Dockerfile on standard input
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum CacheFlag {
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
enum NetworkFlag {
    /// A network of its own with a way out
    Default,
    /// The same
    Bridge,
    /// Loopback only
    None,
    /// The host's
    Host,
}

/// Builds.
pub(crate) fn run(args: Args, session: &Session) -> Result<u8, CliError> {
    let request = request(&args, session)?;
    let store = session.open_store()?;
    // Before the first thread of the build, so that no thread is killed by what this one waits for.
    let bases = Registry { store: &store, rootless: session.rootless, is_fetching: Arc::default() };
    let interrupted = interruption(bases.is_fetching.clone())?;
    let progress = Progress::start(if args.quiet { progress::Kind::Quiet } else { args.progress });
    let events = |event| progress.tell(event);
    let built = mica_build::build(&store, &request, &bases, &events, &interrupted);
    progress.finish(built.is_ok());
    let built = built.map_err(explain)?;
    if !built.warnings.is_empty() && !args.quiet {
        eprint!("{}", mica_diagnostic::render(&built.warnings, &request.dockerfile, progress::is_color()));
    }
    if let Some(path) = &args.iidfile {
        std::fs::write(path, built.image.to_string())
            .map_err(|error| CliError::new(format!("cannot write `{}`: {error}", path.display())))?;
    }
    if args.push {
        push_all(&store, &request.names, args.quiet)?;
    }
    if args.quiet {
        println!("{}", built.image);
    }
    match args.explain {
        Some(ExplainFormat::Text) => {
            print(&explanation(&built.report, &built.report.steps.iter().collect::<Vec<_>>()))?;
        }
        Some(ExplainFormat::Json) => why::print_json(&built.report)?,
        None => {}
    }
    Ok(0)
}

/// Base images from registries.
struct Registry<'a> {
    store: &'a Store,
    rootless: bool,
    /// How many are on their way.
    is_fetching: Arc<AtomicUsize>,
}

impl BaseSource for Registry<'_> {
    fn candidates(&self, as_written: &str) -> Result<Vec<Reference>, ImageError> {
        remote::candidates(&remote::registries()?, as_written)
    }

    fn fetch(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        watch: &Watch<'_>,
    ) -> Result<Pulled, ImageError> {
        self.is_fetching.fetch_add(1, Ordering::Relaxed);
        // A client for each: its threads end before the first container.
        let pulled = remote::client().map_err(ImageError::from).and_then(|client| {
            let request = PullRequest { reference, platform, rootless: self.rootless };
            mica_image::pull(self.store, &client, &request, watch)
        });
        self.is_fetching.fetch_sub(1, Ordering::Relaxed);
        pulled
    }
}

/// Pushes what was built, under each of its names. Progress is for stderr: stdout has the image ID.
fn push_all(store: &Store, names: &[Reference], quiet: bool) -> Result<(), CliError> {
    let stream = if quiet { Stream::Quiet } else { Stream::Err };
    let client = remote::client()?;
    for name in names {
        stream.line(&format!("The push refers to repository [{}]", name.name()));
        push::push(store, &client, name, None, stream)?;
    }
    Ok(())
}

/// A flag that the first SIGINT, SIGTERM or SIGHUP sets, so that the build ends in order; the second ends the process. While
/// base images are fetched, the first one does: nothing runs yet, and what has come is kept.
fn interruption(is_fetching: Arc<AtomicUsize>) -> Result<Arc<AtomicBool>, CliError> {
    let signals = [Signal::INT, Signal::TERM, Signal::HUP].map(Signal::as_raw);
    let reader = SignalReader::new(&signals)?;
    let flag = Arc::new(AtomicBool::new(false));
    let seen = flag.clone();
    std::thread::spawn(move || {
        loop {
            let _ = poll(&mut [PollFd::new(&reader, PollFlags::IN)], None);
            if reader.next().is_some()
                && (seen.swap(true, Ordering::Relaxed) || is_fetching.load(Ordering::Relaxed) > 0)
            {
                std::process::exit(INTERRUPTED.into());
            }
        }
    });
    Ok(flag)
}

fn request(args: &Args, session: &Session) -> Result<BuildRequest, CliError> {
    if args.push && args.tag.is_empty() {
        return Err(
            CliError::new("tag is needed when pushing to registry").hint("name the image with `-t NAME`")
        );
    }
    let Some(path) = &args.path else {
        return Err(
            CliError::new("no build context is given").hint("for the current directory: `mica build .`")
        );
    };
    let from_stdin = path.as_os_str() == "-";
    let context = (!from_stdin).then(|| path.clone());
    if let Some(context) = &context
        && !context.is_dir()
    {
        let text = context.display().to_string();
        let what = match text.contains("://") || text.starts_with("git@") {
            true => "a build context from elsewhere is not supported yet",
            false if context.exists() => "the build context is not a directory",
            false => "the build context does not exist",
        };
        return Err(CliError::new(format!("{what}: `{text}`")));
    }
    let dockerfile = read_dockerfile(args.file.as_deref(), context.as_deref())?;
    let ignore = match &context {
        Some(context) => read_ignore(args.file.as_deref(), context)?,
        None => None,
    };
    let epoch =
        match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) if !text.is_empty() => Some(text.parse::<i64>().map_err(|_| {
                CliError::new(format!("SOURCE_DATE_EPOCH is not a number of seconds: `{text}`"))
            })?),
            _ => None,
        };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64);
    Ok(BuildRequest {
        dockerfile,
        context,
        ignore,
        plan: plan_options(args, epoch)?,
        names: args.tag.iter().map(|name| parse_name(name)).collect::<Result<_, _>>()?,
        pull: args.pull.unwrap_or(false),
        no_cache: args.no_cache,
        explain: args.explain.is_some(),
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
        rootless: session.rootless,
        now_seconds: epoch.unwrap_or(now),
    })
}

fn plan_options(args: &Args, epoch: Option<i64>) -> Result<PlanOptions, CliError> {
    let platform = match &args.platform {
        Some(text) => Platform::parse(text)?,
        None => Platform::host(),
    };
    let mut options = PlanOptions::for_platform(platform);
    options.build_platform = Platform::host();
    options.platform_is_given = args.platform.is_some();
    options.target = args.target.clone();
    options.source_date_epoch = epoch;
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
pub(crate) fn parse_name(text: &str) -> Result<Reference, CliError> {
    let name = remote::parse_reference(text)?;
    if name.digest().is_some() {
        let what = format!("`{text}` cannot be given to an image: a digest is no name");
        return Err(CliError::new(what).hint("use NAME:TAG"));
    }
    Ok(name.with_default_tag())
}

fn read_dockerfile(file: Option<&Path>, context: Option<&Path>) -> Result<Source, CliError> {
    let from_stdin =
        file.is_some_and(|file| file.as_os_str() == "-") || (file.is_none() && context.is_none());
    if from_stdin {
        let mut text = Vec::new();
        std::io::stdin().lock().take(DOCKERFILE_BYTES_MAX).read_to_end(&mut text)?;
        return Ok(Source::new("-", &String::from_utf8_lossy(&text)));
    }
    let candidates: Vec<PathBuf> = match (file, context) {
        (Some(file), _) => vec![file.to_path_buf()],
        (None, Some(context)) => {
            ["Dockerfile", "dockerfile", "Containerfile"].iter().map(|name| context.join(name)).collect()
        }
        (None, None) => Vec::new(),
    };
    for path in &candidates {
        match read_text(path) {
            Ok(text) => {
                let inside =
                    context.filter(|_| file.is_none()).and_then(|context| path.strip_prefix(context).ok());
                let name = inside.or(path.strip_prefix("./").ok()).unwrap_or(path);
                return Ok(Source::new(&name.display().to_string(), &text));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::new(format!("cannot read `{}`: {error}", path.display()))),
        }
    }
    let wanted = candidates.first().map(|path| path.display().to_string()).unwrap_or_default();
    Err(CliError::new(format!("there is no `{wanted}`")).hint("name the Dockerfile with `-f FILE`"))
}

fn read_text(path: &Path) -> std::io::Result<String> {
    let mut text = Vec::new();
    std::fs::File::open(path)?.take(DOCKERFILE_BYTES_MAX).read_to_end(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The ignore file beside the Dockerfile, else the one of the context.
fn read_ignore(file: Option<&Path>, context: &Path) -> Result<Option<IgnoreFile>, CliError> {
    let own = file.filter(|file| file.as_os_str() != "-").map(|file| {
        let mut name = file.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    let own = own.unwrap_or_else(|| context.join("Dockerfile.dockerignore"));
    for path in [own, context.join(".dockerignore")] {
        match read_text(&path) {
            Ok(text) => {
                let name = path.strip_prefix(context).unwrap_or(&path).display().to_string();
                return Ok(Some(IgnoreFile { name, text }));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(CliError::new(format!("cannot read `{}`: {error}", path.display()))),
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

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
