//! `mica build`: the flags (`args`), what they ask for (`request` and one file for each matter), and the order of it all.

mod args;
mod bases;
mod cache;
mod check;
mod context;
mod failure;
mod fields;
mod interruption;
mod limits;
mod named;
mod output;
mod platforms;
mod request;
mod secrets;
mod shell;
mod timings;
mod verify;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mica_build::{BuildError, BuildRequest, Built, Event, Outside};

use crate::commands::why;
use crate::error::CliError;
use crate::format::findings;
use crate::format::output::print;
use crate::format::verdict::explanation;
use crate::progress::{self, Progress};
use crate::session::Session;

pub(crate) use args::{Args, ExplainFormat};
pub(crate) use interruption::INTERRUPTED;
use output::Delivery;

/// Builds.
pub(crate) fn run(mut args: Args, session: &Session) -> Result<u8, CliError> {
    args.check()?;
    args.debug = shell::is_wanted(&args);
    args.quiet |= args.progress == progress::Kind::Quiet;
    let outputs = output::outputs(&args)?;
    let caches = cache::flags(&args)?;
    let timings = timings::Timings::of(&args)?;
    let mut request = request::request(&args, session)?;
    outputs.check_annotations(&request.platforms)?;
    request.keep_image = outputs.keep_image();
    request.names = outputs.names();
    if let Some(code) = check::call(&args, &request, session)? {
        return Ok(code);
    }
    let store = session.open_store()?;
    // Before the first thread of the build, so that no thread is killed by what this one waits for.
    let bases = bases::Registry { store: &store, rootless: session.rootless, is_fetching: Arc::default() };
    let interrupted = interruption::interruption(bases.is_fetching.clone())?;
    let caches = caches.open(&store, &interrupted);
    let outside = Outside { bases: &bases, caches: &caches.results };
    let delivery = Delivery {
        args: &args,
        store: &store,
        rootless: session.rootless,
        interrupted: &interrupted,
        is_transferring: &bases.is_fetching,
    };
    let build = |request: &BuildRequest| -> Result<_, Failed> {
        let progress = Progress::start(kind(&args));
        let events = |event| {
            if let Some(timings) = &timings {
                timings.take(&event);
            }
            progress.tell(event);
        };
        let built = mica_build::build(&store, request, &outside, &events, &interrupted);
        if let (Err(error), Some(timings)) = (&built, &timings) {
            timings.failed(error);
        }
        // Two builds to be compared go nowhere by themselves.
        let rest = match (&built, args.verify) {
            (Ok(built), false) => outputs.export(&delivery, request, built, &events).map(Some),
            _ => Ok(None),
        };
        progress.finish(built.is_ok() && rest.is_ok());
        Ok((built.map_err(Failed::Build)?, rest.map_err(Failed::Delivery)?))
    };
    let done = match args.verify {
        true => {
            let once = |request: &BuildRequest| Ok(build(request)?.0);
            match verify::build_twice(&args, &store, &request, &once)? {
                Some(built) => {
                    let progress = Progress::start(kind(&args));
                    let events = |event| progress.tell(event);
                    let rest = outputs.export(&delivery, &request, &built, &events);
                    progress.finish(rest.is_ok());
                    Ok((built, Some(rest?)))
                }
                None => return Ok(verify::DIFFERS),
            }
        }
        false => build(&request),
    };
    let (built, rest) = match done {
        Ok(done) => done,
        Err(failed) => {
            if let Some(timings) = timings {
                timings.write()?;
            }
            let state = failed.state();
            let error = CliError::from(failed);
            return match state {
                Some(id) if args.debug => shell::open(&error, &id, &store, &request, session),
                _ => Err(error),
            };
        }
    };
    match kind(&args) {
        progress::Kind::Quiet | progress::Kind::None => {}
        progress::Kind::Rawjson => warn_raw(&built),
        _ => warn(&built, &request),
    }
    let mut finished = Ok(());
    if let Some(rest) = rest {
        let pushing = timings.as_ref().filter(|_| rest.is_pushing());
        finished = timed(pushing, "pushing", || outputs.finish(&delivery, &built, rest));
    }
    // What is half there is no cache: the first signal may end the process.
    bases.is_fetching.fetch_add(1, Ordering::Relaxed);
    let exporting = timings.as_ref().filter(|_| !args.cache_to.is_empty());
    let export = || caches.export(&store, is_silent(&args));
    finished = finished.and_then(|()| timed(exporting, "exporting cache", export));
    if let Some(timings) = timings {
        timings.write()?;
    }
    finished?;
    match args.explain {
        Some(ExplainFormat::Text) => {
            print(&explanation(&built.report, &built.report.steps.iter().collect::<Vec<_>>()))?;
        }
        Some(ExplainFormat::Json) => why::print_json(&built.report)?,
        None => {}
    }
    Ok(0)
}

/// Does what comes after the build, and shows on the page of timings how long it took.
fn timed(
    timings: Option<&timings::Timings>,
    name: &str,
    work: impl FnOnce() -> Result<(), CliError>,
) -> Result<(), CliError> {
    let Some(timings) = timings else { return work() };
    let began = Instant::now();
    timings.take(&Event::ExportStarted { name: name.to_owned() });
    let done = work();
    timings.take(&match &done {
        Ok(()) => Event::ExportFinished { elapsed: began.elapsed() },
        Err(error) => Event::ExportFailed { message: error.message.clone() },
    });
    done
}

/// As [`warn`], for programs.
fn warn_raw(built: &Built) {
    let mut messages: Vec<String> = built.warnings.iter().map(|warning| warning.message.clone()).collect();
    messages.extend(built.findings.iter().map(|finding| finding.diagnostic.message.clone()));
    if !messages.is_empty() {
        progress::warn_raw(&messages);
    }
}

fn kind(args: &Args) -> progress::Kind {
    if args.quiet { progress::Kind::Quiet } else { args.progress }
}

/// Whether what follows the build says nothing of how it goes: it was not asked for, or its lines would stand among JSON.
fn is_silent(args: &Args) -> bool {
    matches!(kind(args), progress::Kind::Quiet | progress::Kind::None | progress::Kind::Rawjson)
}

/// What of a build failed.
enum Failed {
    Build(BuildError),
    Delivery(CliError),
}

impl Failed {
    /// What the failed step left, if it was kept.
    fn state(&self) -> Option<String> {
        match self {
            Self::Build(error) => shell::kept(error),
            Self::Delivery(_) => None,
        }
    }
}

impl From<Failed> for CliError {
    fn from(failed: Failed) -> Self {
        match failed {
            Failed::Build(error) => failure::explain(error),
            Failed::Delivery(error) => error,
        }
    }
}

/// Tells what is probably not meant.
fn warn(built: &Built, request: &BuildRequest) {
    let color = progress::is_color();
    eprint!("{}", mica_diagnostic::render(&built.warnings, &request.dockerfile, color));
    eprint!("{}", findings::warnings(&built.findings, &request.dockerfile, color));
    if !built.unused_args.is_empty() {
        let names = progress::printable(&built.unused_args.join(" "));
        eprintln!("[Warning] One or more build-args [{names}] were not consumed");
    }
}

/// What people know the result by: the image ID, or the digest of the index of several.
fn image_id(built: &Built) -> String {
    match (&built.index, built.images.first()) {
        (Some(index), _) => index.to_string(),
        (None, Some(image)) => image.image.to_string(),
        (None, None) => String::new(),
    }
}
