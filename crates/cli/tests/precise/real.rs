//! Random edits of a project that real tools build, each built with the cache and without any: the images are equal.
//!
//! `MICA_SEED`, `MICA_EDITS` and `MICA_KEEP` as in `differential`.

use std::collections::BTreeSet;

use mica_testkit::{Outcome, Random, differences};

use crate::progress::{Way, error, steps};
use crate::project::Project;
use crate::real_bench::{Bench, Directory};
use crate::real_edit::{edit, start};

/// For a run of all tests: what a minute or two allow.
const EDITS: u64 = 8;
/// In whose first edits a cache is caught that takes no notice of names that were absent.
const SEED: u64 = 54;
/// Edits before a new project in the same stores.
const EDITS_PER_PROJECT: u64 = 15;
/// What a failure prints of the differences.
const DIFFERENCES_SHOWN: usize = 12;

/// How the steps of all cached builds came to their results.
#[derive(Debug, Default)]
struct Counts {
    edits: u64,
    failed_builds: u64,
    ran: u64,
    chain: u64,
    record: u64,
    ran_without_cache: u64,
    unsteady: BTreeSet<String>,
}

struct Run {
    cached: Bench,
    fresh: Bench,
    directory: Directory,
    counts: Counts,
}

impl Run {
    /// Builds the project twice; whether it can be built. What differs is the error.
    fn compare(&mut self) -> Result<bool, String> {
        let cached = self.cached.build(&self.directory, &[]);
        let fresh = self.fresh.build(&self.directory, &["--no-cache"]);
        let counts = &mut self.counts;
        counts.edits += 1;
        for step in steps(&cached.stderr) {
            match step.way {
                Way::Ran => counts.ran += 1,
                Way::Chain => counts.chain += 1,
                Way::Record => counts.record += 1,
                Way::Unfinished => {}
            }
        }
        counts.ran_without_cache +=
            steps(&fresh.stderr).iter().filter(|step| step.way == Way::Ran).count() as u64;
        let end = |outcome: &Outcome| (outcome.code, error(&outcome.stderr));
        if cached.stderr.contains("panicked at") || end(&cached) != end(&fresh) {
            return Err(format!("the builds end differently\nwith cache: {cached}\nwithout: {fresh}"));
        }
        if cached.code != 0 {
            counts.failed_builds += 1;
            return Ok(false);
        }
        let (one, other) = (self.cached.built(), self.fresh.built());
        let mut found = differences(&other, &one, |_| false);
        if !found.is_empty() {
            // What two builds without cache do not agree on proves nothing.
            self.fresh.build(&self.directory, &["--no-cache"]);
            let third = self.fresh.built();
            let unsteady: BTreeSet<&String> = other
                .keys()
                .chain(third.keys())
                .filter(|path| other.get(*path) != third.get(*path))
                .collect();
            found = differences(&other, &one, |path| unsteady.contains(&path.to_owned()));
            counts.unsteady.extend(unsteady.into_iter().cloned());
        }
        if found.is_empty() {
            return Ok(true);
        }
        let shown = &found[..found.len().min(DIFFERENCES_SHOWN)];
        Err(format!("{} paths differ:\n{}\nwith cache: {cached}", found.len(), shown.join("\n")))
    }

    fn fail(self, project: &Project, name: &str, what: &str) -> ! {
        let kept = if std::env::var_os("MICA_KEEP").is_some() {
            let roots = (self.cached.mica.root().to_owned(), self.fresh.mica.root().to_owned());
            let directory = self.directory.keep();
            // Nothing of a kept failure is taken back, the stores included.
            std::mem::forget((self.cached, self.fresh));
            format!("{}, {} and {}", directory.display(), roots.0.display(), roots.1.display())
        } else {
            "nothing (MICA_KEEP=1 keeps files)".into()
        };
        panic!("{name}: {what}\n--- Dockerfile\n{}\nkept: {kept}", project.dockerfile());
    }
}

fn run_project(mut run: Run, seed: u64, edits: u64) -> Run {
    let mut random = Random::new(seed);
    let mut now = start(&mut random);
    // States that built: an edit may go back to one, whose results are still in the store.
    let mut earlier: Vec<Project> = Vec::new();
    let mut names = vec!["first"];
    for round in 0..edits {
        if run.directory.write(&now) {
            run.cached.build_base(&run.directory);
            run.fresh.build_base(&run.directory);
        }
        let built = match run.compare() {
            Ok(built) => built,
            Err(what) => {
                let name =
                    format!("MICA_SEED={seed} MICA_EDITS={edits}, edit {round} ({})", names.join(", "));
                run.fail(&now, &name, &what)
            }
        };
        println!("{seed} {round}: {}{}", names.join(", "), if built { "" } else { " (fails)" });
        // Objects are older than the sources that they were not made of. An earlier state would come back with its old times
        // from the cache and with new ones from the disk, and make asks for nothing else.
        if built && !now.has_objects {
            earlier.push(now.clone());
        }
        names.clear();
        if (!built && random.below(8) != 0 || random.below(10) == 0) && !earlier.is_empty() {
            now = earlier[random.below(earlier.len() as u64) as usize].clone();
            names.push("back");
        }
        if names.is_empty() || random.below(2) == 0 {
            for _ in 0..=random.below(3).saturating_sub(1) {
                names.push(edit(&mut random, &mut now));
            }
        }
    }
    run
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn root_real_tools_build_the_same_without_cache() {
    let benches = Bench::new().and_then(|cached| Ok((cached, Bench::new()?)));
    let (cached, fresh) = match benches {
        Ok(benches) => benches,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let (seed, edits) = (number("MICA_SEED", SEED), number("MICA_EDITS", EDITS));
    let mut run = Run { cached, fresh, directory: Directory::new(), counts: Counts::default() };
    let mut project = 0;
    while run.counts.edits < edits {
        let count = EDITS_PER_PROJECT.min(edits - run.counts.edits);
        run = run_project(run, seed + project, count);
        println!("{:?}", run.counts);
        // Nothing of it is ever asked for again.
        run.fresh.mica.ok(&["builder", "prune", "--all", "--force"]);
        project += 1;
    }
    let counts = &run.counts;
    assert!(counts.failed_builds * 2 < counts.edits, "too few builds succeed to show anything: {counts:?}");
    assert!(counts.chain > 0 && counts.record > 0, "{counts:?}");
    run.cached.mica.check_nothing_left();
}
