//! Random edits, each built with the cache and without any: the images are equal, or a result was stale.
//!
//! `MICA_SEED` chooses the edits and `MICA_EDITS` their number; a failure names both, and `MICA_KEEP=1` keeps its files.

use std::fs;
use std::path::Path;
use std::time::Duration;

use mica_testkit::{
    Mica, Need, Outcome, Random, SavedImage, bases, changed, differences, missing, run_bounded,
};

use crate::edit;
use crate::progress::{Way, error, steps};
use crate::scenario::Scenario;

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
/// Enough for every kind of edit, few enough for a run by hand of all tests.
const EDITS: u64 = 80;
const SEED: u64 = 20_261_121;
/// What one build may take on a machine that runs other tests: the steps take no time, but compilers do.
const DEADLINE: Duration = Duration::from_secs(200);
/// Edits before a new scenario in new stores: a Dockerfile that was edited for long is an odd one.
const EDITS_PER_SCENARIO: u64 = 20;
/// What a failure prints of the differences.
const DIFFERENCES_SHOWN: usize = 12;

/// How the steps of all cached builds came to their results.
#[derive(Debug, Default)]
pub struct Counts {
    /// Steps that ran.
    pub ran: u64,
    /// Hits on the same parent.
    pub chain: u64,
    /// Hits because nothing used had changed.
    pub record: u64,
    /// Builds that failed with and without cache.
    pub failed_builds: u64,
    /// Paths on which two builds without cache did not agree.
    pub unsteady: u64,
    /// Builds with cache.
    pub edits: u64,
}

/// Two stores with the same bases: one lives long, the other builds everything anew.
pub struct Pair {
    /// The long-lived one.
    pub cached: Mica,
    /// The one that only builds with `--no-cache`.
    pub fresh: Mica,
}

impl Pair {
    pub fn new() -> Pair {
        Pair { cached: Mica::new(BINARY), fresh: Mica::new(BINARY) }
    }

    /// Builds the context in both stores. What differs is the error; false if both builds fail in the same way.
    pub fn compare(&self, context: &Path, flags: &[&str], counts: &mut Counts) -> Result<bool, String> {
        let cached = build(&self.cached, context, flags);
        let without: Vec<&str> = flags.iter().copied().chain(["--no-cache"]).collect();
        let fresh = build(&self.fresh, context, &without);
        counts.edits += 1;
        for step in steps(&cached.stderr) {
            match step.way {
                Way::Ran => counts.ran += 1,
                Way::Chain => counts.chain += 1,
                Way::Record => counts.record += 1,
                Way::Unfinished => {}
            }
        }
        // Of two stages that fail, the faster one is told.
        let is_same_error = error(&cached.stderr) == error(&fresh.stderr) || cached.stderr.contains("[s1 ");
        if cached.stderr.contains("panicked at") || cached.code != fresh.code || !is_same_error {
            return Err(format!("the builds end differently\nwith cache: {cached}\nwithout: {fresh}"));
        }
        if cached.code != 0 {
            counts.failed_builds += 1;
            return Ok(false);
        }
        let one = SavedImage::of(&self.cached, "built:1");
        let other = SavedImage::of(&self.fresh, "built:1");
        let mut found = differences(&other.tree, &one.tree, |_| false);
        if !found.is_empty() {
            // What two builds without cache do not agree on proves nothing.
            build(&self.fresh, context, &without);
            let third = SavedImage::of(&self.fresh, "built:1").tree;
            let (unsteady, gone) = changed(&other.tree, &third);
            found = differences(&other.tree, &one.tree, |path| {
                unsteady.contains_key(path) || gone.contains(path)
            });
            counts.unsteady += unsteady.len() as u64;
        }
        if !found.is_empty() {
            let shown = &found[..found.len().min(DIFFERENCES_SHOWN)];
            return Err(format!("{} paths differ:\n{}\nwith cache: {cached}", found.len(), shown.join("\n")));
        }
        let settings = |image: &SavedImage| image.config["config"].clone();
        if settings(&one) != settings(&other) {
            return Err(format!("the configs differ: {} and {}", settings(&one), settings(&other)));
        }
        Ok(true)
    }

    /// Fails the test, and keeps this directory and the stores if that is asked for.
    pub fn fail(self, dir: tempfile::TempDir, what: &str) -> ! {
        let kept = if std::env::var_os("MICA_KEEP").is_some() {
            let (cached, fresh) = (self.cached.root().to_owned(), self.fresh.root().to_owned());
            // Nothing of a kept failure is taken back, the stores included.
            std::mem::forget(self);
            format!("{}, {} and {}", dir.keep().display(), cached.display(), fresh.display())
        } else {
            "nothing (MICA_KEEP=1 keeps files)".into()
        };
        panic!("{what}\nkept: {kept}");
    }
}

fn build(mica: &Mica, context: &Path, flags: &[&str]) -> Outcome {
    let context = context.to_string_lossy().into_owned();
    let mut arguments = vec!["build", "--progress=plain", "-t", "built:1"];
    arguments.extend(flags);
    arguments.push(&context);
    run_bounded(mica.command(&arguments), DEADLINE)
}

/// Puts the scenario on disk, and its base into the stores if that is another than before.
fn write(pair: &Pair, dir: &Path, busybox: &[u8], old: Option<&Scenario>, new: &Scenario) {
    new.write(old, &dir.join("context")).expect("the context");
    if old.is_none_or(|old| (&old.base, &old.extra) != (&new.base, &new.extra)) {
        let tar = dir.join("base.tar");
        fs::write(&tar, new.base_tar(busybox)).expect("the base");
        pair.cached.import(&tar, "base:1");
        pair.fresh.import(&tar, "base:1");
    }
}

/// A number from the environment.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn run_scenario(busybox: &Path, seed: u64, edits: u64, counts: &mut Counts) {
    let pair = Pair::new();
    let dir = Mica::temporary_dir();
    let context = dir.path().join("context");
    fs::create_dir(&context).expect("a directory");
    let busybox = fs::read(busybox).expect("the base");
    let mut random = Random::new(seed);
    let mut counter = 0;
    let mut now = edit::first(&mut random, &mut counter);
    let mut old: Option<Scenario> = None;
    // States that built: an edit may go back to one, whose results are still in the store.
    let mut earlier: Vec<Scenario> = Vec::new();
    let mut names = vec!["first"];
    for round in 0..edits {
        write(&pair, dir.path(), &busybox, old.as_ref(), &now);
        let level = format!("--build-arg=LEVEL={}", now.level);
        let built = match pair.compare(&context, &[&level], counts) {
            Ok(built) => built,
            Err(what) => {
                let edit = names.join(", ");
                let name = format!("MICA_SEED={seed} MICA_EDITS={edits}, edit {round} ({edit})");
                pair.fail(dir, &format!("{name}: {what}\n--- Dockerfile\n{}", now.dockerfile()))
            }
        };
        old = Some(now.clone());
        if built {
            earlier.push(now.clone());
        }
        names.clear();
        if (!built && random.below(4) != 0 || random.below(12) == 0) && !earlier.is_empty() {
            now = earlier[random.below(earlier.len() as u64) as usize].clone();
            names.push("back");
        }
        if names.is_empty() || random.below(2) == 0 {
            for _ in 0..=random.below(3).saturating_sub(1) {
                names.push(edit::edit(&mut random, &mut now, &mut counter));
            }
        }
    }
    pair.cached.check_nothing_left();
}

#[test]
fn root_edited_builds_equal_builds_without_cache() {
    let base = match missing(&[Need::Root]) {
        Some(reason) => Err(reason),
        None => bases::busybox(),
    };
    let busybox = match base {
        Ok(base) => base,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let (seed, edits) = (number("MICA_SEED", SEED), number("MICA_EDITS", EDITS));
    let mut counts = Counts::default();
    let mut scenario = 0;
    while counts.edits < edits {
        let count = EDITS_PER_SCENARIO.min(edits - counts.edits);
        run_scenario(&busybox, seed + scenario, count, &mut counts);
        scenario += 1;
        if scenario.is_multiple_of(10) {
            println!("{counts:?}");
        }
    }
    println!("{counts:?}");
    assert!(counts.failed_builds * 2 < counts.edits, "too few builds succeed to show anything: {counts:?}");
    // About half of the steps are hits by record; far fewer would mean that nothing much was tested.
    assert!(counts.record * 4 > counts.ran && counts.chain > 0, "{counts:?}");
}
