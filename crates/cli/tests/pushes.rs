//! Pushes that are killed, and pushes over a line that cuts, spoils and repeats: what a tag leads to is always whole.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::{
    Chaos, ChaosProxy, DockerRegistry, Mica, NEEDS_DOCKER_REGISTRY, Need, Random, images, missing,
};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
const SEED: u64 = 20_261_121;
const KILLS: u64 = 15;
const SPOILT: u64 = 10;

/// An image of a layer that compresses badly, another for each number.
fn import(mica: &Mica, name: &str, number: u64) {
    let file = mica.root().with_extension("tar");
    std::fs::write(&file, images::random_tar("data", 3_000_000, number)).expect("a tar");
    mica.import(&file, name);
}

/// What the registry has under that tag is what the store says was pushed, with all its layers.
#[track_caller]
fn check_whole(registry: &DockerRegistry, repository: &str, round: &str) {
    let manifest = registry.http().manifest(repository, "v1");
    assert_eq!(manifest.status, 200, "{round}: {}", manifest.text());
    let manifest: serde_json::Value = serde_json::from_slice(&manifest.body).expect("a manifest");
    let layers = manifest["layers"].as_array().expect("layers");
    assert!(!layers.is_empty());
    for blob in layers.iter().chain([&manifest["config"]]) {
        let digest = blob["digest"].as_str().expect("a digest");
        let bytes = registry.http().get(&format!("/v2/{repository}/blobs/{digest}")).body;
        assert_eq!(format!("sha256:{}", mica_testkit::sha256(&bytes)), digest, "{round}");
    }
}

#[test]
fn pushes_that_are_killed_are_taken_up() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Root]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let mica = Mica::new(BINARY);
    let name = |round: &str| format!("{}/killed/{round}:v1", registry.host());
    import(&mica, &name("first"), SEED);
    let begun = Instant::now();
    mica.ok(&["push", &name("first")]);
    let mut whole = begun.elapsed();
    let mut random = Random::new(SEED);
    let mut killed = 0;
    for number in 0..KILLS {
        let repository = format!("round{number}");
        import(&mica, &name(&repository), SEED + 1 + number);
        for _ in 0..2 {
            let delay = Duration::from_micros(random.below(whole.as_micros() as u64));
            let mut command: Command = mica.command(&["push", &name(&repository)]);
            let mut child =
                command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("starting mica");
            std::thread::sleep(delay);
            let had_ended = child.try_wait().expect("waiting").is_some();
            let _ = child.kill();
            child.wait().expect("waiting");
            if had_ended {
                whole = (whole * 4 / 5).max(Duration::from_millis(5));
            } else {
                killed += 1;
            }
        }
        let round = format!("round {number}, seed {SEED}");
        let said = mica.ok(&["push", &name(&repository)]).stdout;
        assert!(said.contains("v1: digest: sha256:"), "{round}: {said}");
        check_whole(&registry, &format!("killed/{repository}"), &round);
        let left = std::fs::read_dir(mica.root().join("ingest")).expect("a store").count();
        assert_eq!(left, 0, "{round}");
    }
    println!("{killed} of {} pushes were killed at work", 2 * KILLS);
    assert!(killed > KILLS / 3, "only {killed} pushes were killed at work");
}

#[test]
fn pushes_over_a_bad_line_end_right_or_say_why_not() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Root]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let proxy = ChaosProxy::before(registry.port());
    let mica = Mica::new(BINARY);
    let mut failed = 0;
    for number in 0..SPOILT {
        let repository = format!("bad/round{number}");
        let name = format!("{}/{repository}:v1", proxy.host());
        import(&mica, &name, SEED + 1000 + number);
        proxy.set(Chaos::Seeded { seed: SEED + number, budget: 3 });
        let outcome = mica.run(&["push", &name]);
        let round = format!("round {number}: {:?}; {}", proxy.happened(), outcome.stderr);
        if outcome.code == 0 {
            check_whole(&registry, &repository, &round);
        } else {
            failed += 1;
            assert!(outcome.stderr.contains(&proxy.host()), "{round}");
        }
        proxy.set(Chaos::Calm);
        mica.ok(&["push", &name]);
        check_whole(&registry, &repository, &round);
    }
    println!("{failed} of {SPOILT} pushes failed");
}
