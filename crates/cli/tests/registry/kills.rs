//! kill -9 at any moment of a pull or push: the store opens, what came stays, and the next try ends right.

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use mica_testkit::{
    ChaosProxy, DockerRegistry, FakeRegistry, Fault, Mica, NEEDS_DOCKER_REGISTRY, Random, TestImage,
    TestLayer, When, missing, run_bounded,
};

use crate::support::{BINARY, DEADLINE, check_image, check_pushed, check_store, image_id, ok};

/// Each round kills until one command comes through.
const ROUNDS: u64 = 10;
/// Kills before a round lets its command come through.
const KILLS_MAX: u32 = 5;
const SEED: u64 = 20_261_122;
const MEGABYTE: usize = 1 << 20;
/// What a kill of a pull may cost: what was read from sockets and not yet written, and what lay in them.
const LOST_PER_PULL: u64 = 1 << 20;
/// What a kill of a push may cost, beside what lay in sockets, of all layers that went at the same time.
const LOST_PER_PUSH: u64 = 1 << 18;

/// Starts a command and kills it after a while. False if it had ended before.
fn kill_after(mut command: Command, delay: Duration) -> bool {
    let mut child = command
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("starting mica");
    std::thread::sleep(delay);
    let had_ended = child.try_wait().expect("waiting").is_some();
    let _ = child.kill();
    child.wait().expect("waiting");
    !had_ended
}

/// Kills a command at random moments, several times; then lets it come through. Answers how often it was killed at work.
fn kill_often(mica: &Mica, arguments: &[&str], whole: Duration, random: &mut Random, context: &str) -> u32 {
    let mut killed = 0;
    for _ in 0..KILLS_MAX {
        let delay = Duration::from_micros(random.below(whole.as_micros() as u64 * 9 / 10));
        if !kill_after(mica.command(arguments), delay) {
            break;
        }
        killed += 1;
        // The store opens, and shows nothing that is not whole.
        ok(mica, &["images", "-a"]);
        check_store(mica, &format!("{context}, after {killed} kills, the last after {delay:?}"));
    }
    let outcome = run_bounded(mica.command(arguments), DEADLINE);
    assert!(outcome.code == 0, "{context}, after {killed} kills: {outcome}");
    killed
}

#[test]
fn killed_pulls_go_on_where_they_were() {
    let registry = FakeRegistry::new();
    let image = TestImage::random(&[3 * MEGABYTE, 2 * MEGABYTE, MEGABYTE, MEGABYTE], 20);
    image.put(&registry, "test/killed", "1");
    // Slow enough for there to be moments to be killed at.
    registry.fault(When::get("/blobs/"), Fault::Slow(64 << 10, Duration::from_millis(4)));
    let name = format!("{}/test/killed:1", registry.host());
    let start = Instant::now();
    ok(&Mica::new(BINARY), &["pull", &name]);
    let mut whole = start.elapsed();
    let mut random = Random::new(SEED);
    let mut kills = 0;
    for round in 0..ROUNDS {
        let context = format!("round {round} of seed {SEED}");
        registry.clear_requests();
        let mica = Mica::new(BINARY);
        let killed = kill_often(&mica, &["pull", &name], whole, &mut random, &context);
        kills += killed;
        if killed == 0 {
            // The machine was busier at first.
            whole = whole * 2 / 3;
        }
        check_image(&mica, &name, &image, &image.digest(), &context);
        let fetched = registry.sent_bytes("/blobs/");
        let most = image.layers_size_bytes() + u64::from(killed) * LOST_PER_PULL + (64 << 10);
        assert!(
            fetched <= most,
            "{context}: {killed} kills, {fetched} bytes were sent, at most {most} expected"
        );
    }
    println!("{kills} pulls were killed at work");
    assert!(kills >= ROUNDS as u32, "only {kills} pulls were killed at work");
}

#[test]
fn killed_pushes_go_on_where_they_were() {
    let registry = FakeRegistry::new();
    let image = TestImage::random(&[3 * MEGABYTE, 2 * MEGABYTE, MEGABYTE / 2], 21);
    registry.fault(When::is("*", "/blobs/uploads/"), Fault::SlowRequest(Duration::from_millis(4)));
    let origin = FakeRegistry::new();
    image.put(&origin, "origin/image", "1");
    let mut random = Random::new(SEED + 1);
    let (mut kills, mut whole) = (0, Duration::from_millis(600));
    for round in 0..ROUNDS {
        let context = format!("round {round} of seed {}", SEED + 1);
        // A store of its own, that knows of no repository to mount from.
        let mica = Mica::new(BINARY);
        let source = format!("{}/origin/image:1", origin.host());
        ok(&mica, &["pull", "-q", &source]);
        let repository = format!("test/killed-{round}");
        let name = format!("{}/{repository}:1", registry.host());
        ok(&mica, &["tag", &source, &name]);
        let killed = kill_often(&mica, &["push", &name], whole, &mut random, &context);
        kills += killed;
        if killed == 0 {
            whole = whole * 2 / 3;
        }
        check_pushed(&registry.http(), &repository, "1", &image, &context);
        check_image(&mica, &name, &image, &image.digest(), &context);
        let received = registry.received_bytes(&repository);
        let most = image.layers_size_bytes() + u64::from(killed) * LOST_PER_PUSH + (64 << 10);
        assert!(
            received <= most,
            "{context}: {killed} kills, {received} bytes came, at most {most} expected"
        );
    }
    println!("{kills} pushes were killed at work");
    assert!(kills >= ROUNDS as u32, "only {kills} pushes were killed at work");
}

/// Through the whole life of a pull, not only its downloads: a small image, killed at a moment further on each time.
#[test]
fn pulls_are_killed_at_every_moment() {
    let registry = FakeRegistry::new();
    let image = TestImage::random(&[20_000, 10_000], 22);
    image.put(&registry, "test/small", "1");
    let name = format!("{}/test/small:1", registry.host());
    let start = Instant::now();
    ok(&Mica::new(BINARY), &["pull", &name]);
    let whole = start.elapsed();
    let mica = Mica::new(BINARY);
    let moments = 30;
    for moment in 0..moments {
        let delay = whole * moment / moments;
        let context = format!("killed after {delay:?}");
        kill_after(mica.command(&["pull", &name]), delay);
        check_store(&mica, &context);
        if moment % 10 == 9 {
            ok(&mica, &["pull", &name]);
            check_image(&mica, &name, &image, &image.digest(), &context);
            ok(&mica, &["rmi", &name]);
        }
    }
    ok(&mica, &["pull", &name]);
    check_image(&mica, &name, &image, &image.digest(), "at the end");
    ok(&mica, &["rmi", &name]);
    ok(&mica, &["system", "prune", "-a", "-f"]);
    let left: Vec<_> =
        std::fs::read_dir(mica.root().join("ingest")).into_iter().flatten().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
}

/// The same for pushes, to the registry that most people run: what it makes of what it has half of is its own business.
#[test]
fn pushes_are_killed_at_every_moment() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let image = TestImage::random(&[2 * MEGABYTE, 10_000], 26);
    image.put(registry.http(), "test/source", "1");
    let mica = Mica::new(BINARY);
    let source = format!("{}/test/source:1", registry.host());
    ok(&mica, &["pull", "-q", &source]);
    // The other way to know a layer is no way here: each round sends what the last one has not.
    let archive = Mica::temporary_dir();
    let file = archive.path().join("image.tar").to_string_lossy().into_owned();
    ok(&mica, &["save", "-o", &file, &source]);
    let moments = 30;
    let mut whole = Duration::from_millis(200);
    let mut mica = Mica::new(BINARY);
    for moment in 0..moments {
        let name = format!("{}/test/killed-{}:1", registry.host(), moment / 10);
        if moment % 10 == 0 {
            mica = Mica::new(BINARY);
            ok(&mica, &["load", "-q", "-i", &file]);
            ok(&mica, &["tag", &source, &name]);
        }
        let delay = whole * (moment % 10) / 10;
        let context = format!("killed after {delay:?}");
        if !kill_after(mica.command(&["push", &name]), delay) {
            whole = whole * 4 / 5;
        }
        check_store(&mica, &context);
        if moment % 10 == 9 {
            let start = Instant::now();
            ok(&mica, &["push", &name]);
            whole = start.elapsed().max(whole);
            let repository = format!("test/killed-{}", moment / 10);
            let reply = registry.http().manifest(&repository, "1");
            assert_eq!(reply.status, 200, "{context}: {}", reply.text());
            let other = Mica::new(BINARY);
            ok(&other, &["pull", "-q", &name]);
            assert_eq!(image_id(&other, &name), Some(image.id()), "{context}");
        }
    }
}

#[test]
fn two_pulls_of_one_image_fetch_each_layer_once() {
    let registry = FakeRegistry::new();
    let image = TestImage::random(&[2 * MEGABYTE, MEGABYTE, 100_000, 10], 23);
    image.put(&registry, "test/twice", "1");
    registry.fault(When::get("/blobs/"), Fault::Slow(64 << 10, Duration::from_millis(3)));
    let name = format!("{}/test/twice:1", registry.host());
    for round in 0..3 {
        registry.clear_requests();
        let mica = Mica::new(BINARY);
        let outcomes = std::thread::scope(|scope| {
            let pull = || run_bounded(mica.command(&["pull", &name]), DEADLINE);
            let pulls = [scope.spawn(pull), scope.spawn(pull), scope.spawn(pull)];
            pulls.map(|pull| pull.join().expect("a pull"))
        });
        for outcome in &outcomes {
            assert!(outcome.code == 0, "round {round}: {outcome}");
        }
        check_image(&mica, &name, &image, &image.digest(), "three at a time");
        for layer in &image.layers {
            let count = registry.count("GET", &layer.digest());
            assert_eq!(count, 1, "round {round}: the layer {} was fetched {count} times", layer.digest());
        }
    }
}

/// Two images that share a layer, pulled at the same time; one of the pulls is killed while the other waits for it.
#[test]
fn a_pull_takes_over_from_one_that_is_killed() {
    let registry = FakeRegistry::new();
    let shared = TestImage::random(&[2 * MEGABYTE], 24).layers.remove(0);
    let made = |name: &str| {
        let own = TestLayer::gzip(&mica_testkit::images::tar_of(&[(name, name.as_bytes())]));
        let image = TestImage::oci(&mica_testkit::images::this_platform(), vec![shared.clone(), own]);
        image.put(&registry, name, "1");
        (image, format!("{}/{name}:1", registry.host()))
    };
    let ((_, first), (image, second)) = (made("first"), made("second"));
    registry.fault(When::get(&shared.digest()), Fault::Slow(64 << 10, Duration::from_millis(10)));
    let mica = Mica::new(BINARY);
    let mut child =
        mica.command(&["pull", &first]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("mica");
    let deadline = Instant::now() + Duration::from_secs(60);
    while registry.sent_bytes(&shared.digest()) < 200_000 {
        assert!(Instant::now() < deadline, "the first pull does not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    let outcome = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| run_bounded(mica.command(&["pull", &second]), DEADLINE));
        while registry.sent_bytes(&shared.digest()) < 1_200_000 {
            assert!(Instant::now() < deadline, "the first pull does not go on");
            std::thread::sleep(Duration::from_millis(2));
        }
        let _ = child.kill();
        let _ = child.wait();
        waiting.join().expect("a pull")
    });
    assert!(outcome.code == 0, "{outcome}");
    check_image(&mica, &second, &image, &image.digest(), "taken over");
    assert_eq!(registry.count("GET", &shared.digest()), 2, "one began, one went on");
    let sent = registry.sent_bytes(&shared.digest());
    assert!(sent <= shared.blob.len() as u64 + LOST_PER_PULL, "{sent} bytes were sent");
}

/// A pull of what is there asks one thing and fetches nothing, and so does a push of it, all but the manifest.
#[test]
fn what_is_there_is_not_fetched_again() {
    let registry = FakeRegistry::new();
    let proxy = ChaosProxy::before(registry.port());
    let image = TestImage::random(&[100_000, 10_000], 25);
    image.put(&registry, "test/there", "1");
    let name = format!("{}/test/there:1", proxy.host());
    let mica = Mica::new(BINARY);
    ok(&mica, &["pull", &name]);
    registry.clear_requests();
    let said = ok(&mica, &["pull", &name]).stdout;
    assert!(said.contains("Status: Image is up to date for"), "{said}");
    let asked: Vec<(String, String)> =
        registry.requests().into_iter().map(|request| (request.method, request.path)).collect();
    assert_eq!(asked, [("HEAD".to_owned(), "/v2/test/there/manifests/1".to_owned())]);

    registry.clear_requests();
    let said = ok(&mica, &["push", &name]).stdout;
    assert!(said.contains("Layer already exists"), "{said}");
    assert_eq!(registry.received_bytes("/blobs/"), 0);
    assert_eq!(registry.count("POST", ""), 0);
    assert_eq!(registry.manifest("test/there", "1").expect("a manifest").1, image.manifest);
}
