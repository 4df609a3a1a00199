//! `--reproducible` and `--verify`

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mica_build::{BuildRequest, BuildSpan, Built, compare_builds};
use mica_store::Store;

use crate::error::CliError;
use crate::format::comparison;
use crate::format::output::print;

use super::args::Args;

/// 1980-01-01T00:00:00Z: the earliest that a zip archive can say, and packers of Java and Python refuse what is earlier.
const EARLIEST_OF_ZIP: i64 = 315_532_800;

/// Exit code of a `--verify` that found differences.
pub(super) const DIFFERS: u8 = 1;

/// The time that all times of the image are held to where SOURCE_DATE_EPOCH is not given, in seconds since 1970; `None` when
/// they may be what they are.
pub(super) fn fixed_time(args: &Args) -> Result<Option<i64>, CliError> {
    Ok(args.reproducible.then_some(EARLIEST_OF_ZIP))
}

/// Builds twice, each time without earlier results, and tells what differs. The first build if nothing does: only then
/// anything is named.
pub(super) fn build_twice(
    args: &Args,
    store: &Store,
    request: &BuildRequest,
    build: &dyn Fn(&BuildRequest) -> Result<Built, CliError>,
) -> Result<Option<Built>, CliError> {
    let mut once = BuildRequest { no_cache: true, names: Vec::new(), ..request.clone() };
    let (first, first_span) = timed(&once, build)?;
    wait_for_another_time();
    // A base that changes in between is no fault of a step.
    once.pull = false;
    let (second, second_span) = timed(&once, build)?;
    let moments = request.reproducible.is_none().then_some((first_span, second_span));
    let comparison =
        compare_builds(store, &first.report, &second.report, moments).map_err(super::failure::explain)?;
    let ids = [super::image_id(&first), super::image_id(&second)];
    if !comparison.steps.is_empty() {
        print(&comparison::text(&first.report.dockerfile, &comparison, &ids))?;
        return Ok(None);
    }
    let is_same = ids[0] == ids[1];
    if !is_same && moments.is_none() {
        print(&format!("no layer differs, but the images do: {} and {}\n", ids[0], ids[1]))?;
        return Ok(None);
    }
    // Elsewhere the names are those of what is written.
    for name in request.names.iter().filter(|_| request.keep_image) {
        mica_image::tag(store, &ids[0], &name.canonical())?;
    }
    if !args.quiet {
        // Two builds at one moment say nothing of those at another, unless somebody fixed the time.
        match is_same && first.source_date_epoch.is_some() {
            true => print(&format!("reproducible: {}\n", ids[0]))?,
            false => {
                print(&format!("the same but for times: {}\n", ids[0]))?;
                eprintln!("hint: `--reproducible` fixes every time, so that the digest is the same as well");
            }
        }
    }
    Ok(Some(first))
}

/// Until the clock shows something else than all that the first build may have written, or a fast build would pass for a
/// reproducible one. Two seconds are the finest that a zip archive tells.
fn wait_for_another_time() {
    const STEP: Duration = Duration::from_secs(2);
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let over = Duration::from_nanos((elapsed.as_nanos() % STEP.as_nanos()) as u64);
    std::thread::sleep(STEP.saturating_sub(over));
}

fn timed(
    request: &BuildRequest,
    build: &dyn Fn(&BuildRequest) -> Result<Built, CliError>,
) -> Result<(Built, BuildSpan), CliError> {
    let start_unix_s = now_unix_s();
    let built = build(request)?;
    Ok((built, BuildSpan { start_unix_s, end_unix_s: now_unix_s() }))
}

fn now_unix_s() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs() as i64)
}
