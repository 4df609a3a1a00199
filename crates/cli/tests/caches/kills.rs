//! kill -9 at any moment of an export or import, and several at once: what counts is whole.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::Random;

use crate::support::{How, Machine, STEPS, can_build, from_local, local_name, to_local};

const SEED: u64 = 20_261_121;
const KILLS: u32 = 12;

/// Starts a command and kills it after a while.
fn kill_after(mut command: Command, delay: Duration) {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let _ = child.kill();
    child.wait().unwrap();
}

/// A project whose cache takes a while to write and to read.
fn large(machine: &Machine) {
    let text: String =
        (0..200_000_u64).map(|number| format!("{:x}\n", number.wrapping_mul(0x9e37_79b9_7f4a))).collect();
    machine.write("unused", &text);
}

#[test]
fn root_kills_leave_whole_caches_and_stores() {
    if !can_build() {
        return;
    }
    let mut random = Random::new(SEED);
    let (here, cache) = (Machine::new(), tempfile::tempdir().unwrap());
    large(&here);
    let to = to_local(cache.path(), ",mode=max");
    let begin = Instant::now();
    here.build(&[]);
    let mut whole = begin.elapsed();
    for _ in 0..KILLS {
        kill_after(here.command(&[&to]), Duration::from_micros(random.below(whole.as_micros() as u64)));
        // Either there is no cache, or it is whole.
        let there = Machine::new();
        large(&there);
        let built = there.build(&[&from_local(cache.path())]);
        let from_cache = built.steps.iter().filter(|step| matches!(step, How::FromCache(_))).count();
        assert!(from_cache == STEPS || built.stderr.contains("there is no cache"), "{}", built.stderr);
        assert!(from_cache == STEPS || built.steps.iter().all(How::ran), "{:?}", built.steps);
    }
    here.build(&[&to]);
    let there = Machine::new();
    large(&there);
    let from = from_local(cache.path());
    let begin = Instant::now();
    let timed = Machine::new();
    large(&timed);
    timed.build(&[&from]);
    whole = whole.min(begin.elapsed());
    for _ in 0..KILLS {
        kill_after(there.command(&[&from]), Duration::from_micros(random.below(whole.as_micros() as u64)));
    }
    let built = there.build(&[&from]);
    let name = local_name(cache.path());
    let found = |step: &How| *step == How::Chain || *step == How::FromCache(name.clone());
    assert!(built.steps.iter().all(found), "{:?}\n{}", built.steps, built.stderr);
    let different = mica_testkit::differences(&here.tree(), &there.tree(), |_| false);
    assert!(different.is_empty(), "{}", different.join("\n"));
    there.mica.ok(&["builder", "prune", "-f"]);
    let left = std::fs::read_dir(there.mica.root().join("ingest")).unwrap().count();
    assert_eq!(left, 0, "something is left in `ingest`");
}

#[test]
fn root_several_exports_and_imports_at_once() {
    if !can_build() {
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let (one, two) = (Machine::new(), Machine::new());
    two.write("used", "other\n");
    for round in 0..4 {
        let to = to_local(cache.path(), &format!(",mode=max,reset=true,tag=t{}", round % 2));
        std::thread::scope(|scope| {
            scope.spawn(|| one.build(&[&to]));
            scope.spawn(|| two.build(&[&to_local(cache.path(), ",mode=max,reset=true")]));
        });
        // Both are whole, whoever was first to take away what nobody needs.
        let there = Machine::new();
        let from = format!("{},tag=t{}", from_local(cache.path()), round % 2);
        there.build(&[&from]).check_all_from(&format!("{}:t{}", local_name(cache.path()), round % 2));
        let there = Machine::new();
        there.write("used", "other\n");
        there.build(&[&from_local(cache.path())]).check_all_from(&local_name(cache.path()));
    }
    // Two builds in one store take over the same results.
    let there = Machine::new();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let from = format!("{},tag=t1", from_local(cache.path()));
                let built = there.build(&[&from]);
                assert!(!built.steps.iter().any(How::ran), "{:?}\n{}", built.steps, built.stderr);
            });
        }
    });
}
