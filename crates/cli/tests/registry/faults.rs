//! A proxy that cuts, delays, drops, alters, repeats and reorders: what comes through is right, or there is a clear error and
//! nothing wrong in the store; what is cut goes on where it was cut.

use std::sync::atomic::{AtomicUsize, Ordering};

use mica_testkit::images::{digest, random_tar, this_platform};
use mica_testkit::{
    Certificates, Chaos, ChaosProxy, DockerRegistry, FakeOptions, FakeRegistry, Mica, NEEDS_DOCKER_REGISTRY,
    Need, Outcome, RegistryHttp, TestImage, TestIndex, TestLayer, Then, missing, sha256,
};

use crate::support::{
    BINARY, check_absent, check_error, check_image, check_pushed, check_store, for_seeds, ok, run,
};

/// Each seed is a store of its own.
const SEEDS: u64 = 16;
const MEGABYTE: u64 = 1 << 20;
/// Layers that mica sends at the same time.
const AT_ONCE_MAX: usize = 5;

/// A layer in each form.
fn mixed(seed: u64) -> TestImage {
    let tar = |name: &str, size| random_tar(name, size, seed);
    let layers = vec![
        TestLayer::gzip(&tar("gzip", 700_000)),
        TestLayer::zstd(&tar("zstd", 300_000)),
        TestLayer::plain(&tar("plain", 200_000)),
        TestLayer::gzip(&tar("small", 10)),
    ];
    TestImage::oci(&this_platform(), layers)
}

/// What has become of commands in chaos, so that it is seen that there was any.
#[derive(Default)]
struct Tally {
    disturbed: AtomicUsize,
    failed: AtomicUsize,
}

impl Tally {
    fn count(&self, proxy: &ChaosProxy, outcome: &Outcome) {
        self.disturbed.fetch_add(usize::from(!proxy.happened().is_empty()), Ordering::Relaxed);
        self.failed.fetch_add(usize::from(outcome.code != 0), Ordering::Relaxed);
    }

    #[track_caller]
    fn check(self, all: u64) {
        let (disturbed, failed) = (self.disturbed.into_inner(), self.failed.into_inner());
        println!("{disturbed} of {all} were disturbed, {failed} failed");
        assert!(disturbed as u64 * 2 > all, "only {disturbed} of {all} were disturbed");
        assert!((failed as u64) < all, "none came through");
    }
}

/// Pulls through chaos, and again without.
fn check_pull(port: u16, image: &TestImage, seed: u64, tally: &Tally) {
    let proxy = ChaosProxy::before(port);
    let host = proxy.host();
    let name = format!("{host}/test/mixed:1");
    let mica = Mica::new(BINARY);
    proxy.set(Chaos::Seeded { seed, budget: 1 + seed as usize % 10 });
    let outcome = run(&mica, &["pull", &name]);
    tally.count(&proxy, &outcome);
    let context = format!("seed {seed}: {:#?}\n{outcome}", proxy.happened());
    if outcome.code == 0 {
        check_image(&mica, &name, image, &image.digest(), &context);
    } else {
        check_error(&outcome, &[&host, "test/mixed", "hint: "], &context);
        check_absent(&mica, &name, &context);
    }
    proxy.set(Chaos::Calm);
    let again = run(&mica, &["pull", &name]);
    assert!(again.code == 0, "{context}\nand without chaos: {again}");
    check_image(&mica, &name, image, &image.digest(), &context);
}

#[test]
fn pulls_through_chaos_end_right_or_fail_clearly() {
    let registry = FakeRegistry::new();
    let image = mixed(1);
    image.put(&registry, "test/mixed", "1");
    let tally = Tally::default();
    for_seeds(0..SEEDS, |seed| check_pull(registry.port(), &image, seed, &tally));
    tally.check(SEEDS);
}

/// Over TLS nothing gets through that was altered; what is altered breaks connections, also before they stand.
#[test]
fn pulls_and_pushes_over_tls_through_chaos_end_right_or_fail_clearly() {
    let certificates = Certificates::new();
    let registry = FakeRegistry::start(FakeOptions { tls: Some(&certificates), ..FakeOptions::default() });
    let image = mixed(3);
    image.put(&registry, "test/mixed", "1");
    let tally = Tally::default();
    for_seeds(5000..5000 + SEEDS / 2, |seed| check_pull(registry.port(), &image, seed, &tally));
    for_seeds(6000..6000 + SEEDS / 2, |seed| {
        check_push(registry.port(), &registry.http(), &image, seed, &tally)
    });
    tally.check(SEEDS);
}

#[test]
fn pulls_from_docker_registry_through_chaos_end_right_or_fail_clearly() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let image = mixed(1);
    image.put(registry.http(), "test/mixed", "1");
    let tally = Tally::default();
    for_seeds(1000..1000 + SEEDS / 2, |seed| check_pull(registry.port(), &image, seed, &tally));
    tally.check(SEEDS / 2);
}

/// A store with an image that came from a registry.
fn pulled(image: &TestImage) -> (Mica, String) {
    let origin = FakeRegistry::new();
    image.put(&origin, "origin/image", "1");
    let mica = Mica::new(BINARY);
    let name = format!("{}/origin/image:1", origin.host());
    ok(&mica, &["pull", "-q", &name]);
    (mica, name)
}

/// Pushes through chaos to a repository of its own, and again without.
fn check_push(port: u16, http: &RegistryHttp, image: &TestImage, seed: u64, tally: &Tally) {
    let (mica, source) = pulled(image);
    let proxy = ChaosProxy::before(port);
    let host = proxy.host();
    let repository = format!("test/pushed-{seed}");
    let name = format!("{host}/{repository}:1");
    ok(&mica, &["tag", &source, &name]);
    proxy.set(Chaos::Seeded { seed, budget: 1 + seed as usize % 10 });
    let outcome = run(&mica, &["push", &name]);
    tally.count(&proxy, &outcome);
    let context = format!("seed {seed}: {:#?}\n{outcome}", proxy.happened());
    if outcome.code == 0 {
        check_pushed(http, &repository, "1", image, &context);
    } else {
        check_error(&outcome, &[&host, &repository, "hint: "], &context);
    }
    check_store(&mica, &context);
    proxy.set(Chaos::Calm);
    let again = run(&mica, &["push", &name]);
    assert!(again.code == 0, "{context}\nand without chaos: {again}");
    check_pushed(http, &repository, "1", image, &context);
    check_image(&mica, &name, image, &image.digest(), &context);
}

#[test]
fn pushes_through_chaos_end_right_or_fail_clearly() {
    let registry = FakeRegistry::new();
    let image = mixed(2);
    let tally = Tally::default();
    for_seeds(2000..2000 + SEEDS, |seed| check_push(registry.port(), &registry.http(), &image, seed, &tally));
    tally.check(SEEDS);
}

#[test]
fn pushes_to_docker_registry_through_chaos_end_right_or_fail_clearly() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let image = mixed(2);
    let tally = Tally::default();
    for_seeds(3000..3000 + SEEDS / 2, |seed| {
        check_push(registry.port(), registry.http(), &image, seed, &tally)
    });
    tally.check(SEEDS / 2);
}

/// From one repository to another without the store, all platforms at once.
#[test]
fn copies_through_chaos_end_right_or_fail_clearly() {
    let registry = FakeRegistry::new();
    let index = TestIndex::oci(vec![mixed(4), TestImage::oci("linux/s390x", mixed(5).layers)]);
    index.put(&registry, "test/index", "1");
    let tally = Tally::default();
    for_seeds(7000..7000 + SEEDS, |seed| {
        let proxy = ChaosProxy::before(registry.port());
        let repository = format!("test/copied-{seed}");
        let source = format!("docker://{}/test/index:1", proxy.host());
        let target = format!("docker://{}/{repository}:1", proxy.host());
        let mica = Mica::new(BINARY);
        proxy.set(Chaos::Seeded { seed, budget: 1 + seed as usize % 10 });
        let outcome = run(&mica, &["copy", &source, &target]);
        tally.count(&proxy, &outcome);
        let context = format!("seed {seed}: {:#?}\n{outcome}", proxy.happened());
        if outcome.code != 0 {
            check_error(&outcome, &[&proxy.host(), "test/", "hint: "], &context);
        }
        proxy.set(Chaos::Calm);
        if outcome.code != 0 {
            ok(&mica, &["copy", &source, &target]);
        }
        let reply = registry.http().manifest(&repository, "1");
        assert_eq!(digest(&reply.body), index.digest(), "{context}");
        for image in &index.images {
            check_pushed(&registry.http(), &repository, &image.digest(), image, &context);
        }
    });
    tally.check(SEEDS);
}

/// Both kinds of registries, one after the other, the real one if it is installed.
fn with_registries(work: impl Fn(u16, &RegistryHttp, &str)) {
    let fake = FakeRegistry::new();
    work(fake.port(), &fake.http(), "the fake registry");
    match missing(&[NEEDS_DOCKER_REGISTRY]) {
        Some(reason) => println!("skipped: {reason}"),
        None => {
            let real = DockerRegistry::new();
            work(real.port(), real.http(), "docker-registry");
        }
    }
}

/// The bytes that came with a cut at 90 % are not fetched again: `whole` with the heads of all requests, and little more.
#[track_caller]
fn check_bytes(what: &str, bytes: u64, whole: u64) {
    assert!(bytes >= whole && bytes <= whole + whole / 50 + 64 * 1024, "{what}: {bytes} bytes of {whole}");
}

#[test]
fn a_pull_that_is_cut_at_90_percent_fetches_only_the_rest() {
    let one = TestImage::random(&[8 * MEGABYTE as usize], 5);
    let several = TestImage::random(&[2 * MEGABYTE as usize; 4], 6);
    with_registries(|port, http, kind| {
        for (image, repository) in [(&one, "test/one"), (&several, "test/several")] {
            image.put(http, repository, "1");
            let whole = image.layers_size_bytes();
            let proxy = ChaosProxy::before(port);
            let name = format!("{}/{repository}:1", proxy.host());
            for then in [Then::Calm, Then::Refuse] {
                let context = format!("{repository} of {kind}, then {then:?}");
                let mica = Mica::new(BINARY);
                proxy.set(match repository {
                    "test/one" => Chaos::CutReplyBody { percent: 90, size_bytes_min: MEGABYTE, then },
                    _ => Chaos::CutReplies { after: whole * 9 / 10, then },
                });
                let outcome = run(&mica, &["pull", &name]);
                assert_eq!(proxy.happened().len(), 1, "{context}: {outcome}");
                let mut bytes = proxy.reply_bytes();
                if then == Then::Refuse {
                    check_error(&outcome, &[&proxy.host(), repository], &context);
                    check_absent(&mica, &name, &context);
                    proxy.set(Chaos::Calm);
                    ok(&mica, &["pull", &name]);
                    bytes += proxy.reply_bytes();
                }
                check_image(&mica, &name, image, &image.digest(), &format!("{context}: {outcome}"));
                check_bytes(&context, bytes, whole);
            }
        }
    });
}

/// Pushes through a proxy that cuts once, and again without it if the first push cannot end. Answers the bytes of requests.
#[track_caller]
fn push_with_cut(
    port: u16,
    http: &RegistryHttp,
    image: &TestImage,
    chaos: Chaos,
    then: Then,
    context: &str,
) -> u64 {
    // A new store, which knows of no other repository that the layers could be mounted from.
    let (mica, source) = pulled(image);
    let proxy = ChaosProxy::before(port);
    let repository = format!("test/{}", sha256(context.as_bytes()));
    let name = format!("{}/{repository}:1", proxy.host());
    ok(&mica, &["tag", &source, &name]);
    proxy.set(chaos);
    let outcome = run(&mica, &["push", &name]);
    assert_eq!(proxy.happened().len(), 1, "{context}: {outcome}");
    let mut bytes = proxy.request_bytes();
    if then == Then::Refuse {
        check_error(&outcome, &[&proxy.host(), &repository], context);
        assert_ne!(http.manifest(&repository, "1").status, 200, "{context}");
        proxy.set(Chaos::Calm);
        ok(&mica, &["push", &name]);
        bytes += proxy.request_bytes();
    } else {
        assert!(outcome.code == 0, "{context}: {outcome}");
    }
    check_pushed(http, &repository, "1", image, &format!("{context}: {outcome}"));
    bytes
}

#[test]
fn a_push_that_is_cut_at_90_percent_sends_only_the_rest() {
    let one = TestImage::random(&[8 * MEGABYTE as usize], 7);
    let several = TestImage::random(&[2 * MEGABYTE as usize; 4], 8);
    let registry = FakeRegistry::new();
    for (image, layers) in [(&one, "one layer"), (&several, "several layers")] {
        let whole = image.layers_size_bytes();
        for then in [Then::Calm, Then::Refuse] {
            let context = format!("{layers}, then {then:?}");
            let chaos = Chaos::CutRequests { after: whole * 9 / 10, then };
            let bytes = push_with_cut(registry.port(), &registry.http(), image, chaos, then, &context);
            check_bytes(&context, bytes, whole);
        }
    }
}

/// docker-registry 2.x does not go on within a chunk (distribution #3755): a cut there costs the blob, but no other. Between
/// chunks it does.
#[test]
fn a_push_to_docker_registry_that_is_cut_sends_only_the_rest() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let push = |image: &TestImage, chaos, then, context: &str| {
        push_with_cut(registry.port(), registry.http(), image, chaos, then, context)
    };
    // Two chunks of 64 MiB at most.
    let chunked = TestImage::random(&[70 * MEGABYTE as usize], 10);
    let several = TestImage::random(&[2 * MEGABYTE as usize; 8], 11);
    for then in [Then::Calm, Then::Refuse] {
        let context = format!("between chunks, then {then:?}");
        let chaos = Chaos::CutAtRequest { method: "PATCH", number: 2, then };
        check_bytes(&context, push(&chunked, chaos, then, &context), chunked.layers_size_bytes());

        let context = format!("within chunks, then {then:?}");
        let whole = several.layers_size_bytes();
        let chaos = Chaos::CutRequests { after: whole * 9 / 10, then };
        let bytes = push(&several, chaos, then, &context);
        // As many as are on their way at the same time.
        let lost = several.layers.iter().take(AT_ONCE_MAX).map(|layer| layer.blob.len() as u64).sum::<u64>();
        check_bytes(&context, bytes.saturating_sub(lost).max(whole), whole);
    }
}

/// What mica made itself has no bytes from a registry: it is compressed for the push, always alike.
#[test]
fn root_a_built_image_is_pushed_through_chaos() {
    if let Some(reason) = missing(&[Need::Root]) {
        return println!("skipped: {reason}");
    }
    let registry = FakeRegistry::new();
    let mica = Mica::new(BINARY);
    let context = Mica::temporary_dir();
    let tar = context.path().join("base.tar");
    std::fs::write(&tar, random_tar("file", 3_000_000, 9)).expect("a tar");
    mica.import(&tar, "made:1");
    let mut digests = Vec::new();
    for seed in 4000..4006 {
        let proxy = ChaosProxy::before(registry.port());
        let name = format!("{}/made-{seed}:1", proxy.host());
        ok(&mica, &["tag", "made:1", &name]);
        proxy.set(Chaos::Seeded { seed, budget: 4 });
        let push = |chaos: &str| -> Outcome {
            let outcome = run(&mica, &["push", &name]);
            let context = format!("seed {seed}, {chaos}: {:#?}\n{outcome}", proxy.happened());
            assert!(outcome.code == 0 || outcome.code == 1, "{context}");
            outcome
        };
        if push("chaos").code != 0 {
            proxy.set(Chaos::Calm);
            let outcome = push("calm");
            assert!(outcome.code == 0, "seed {seed}: {outcome}");
        }
        let reply = registry.http().manifest(&format!("made-{seed}"), "1");
        assert_eq!(reply.status, 200, "seed {seed}");
        digests.push(mica_testkit::images::digest(&reply.body));
        // Fetched by another store, it is the tree that was pushed.
        let other = Mica::new(BINARY);
        let pulled = format!("{}/made-{seed}:1", registry.host());
        ok(&other, &["pull", &pulled]);
        let (there, here) =
            (mica_testkit::SavedImage::of(&other, &pulled), mica_testkit::SavedImage::of(&mica, "made:1"));
        assert_eq!(there.id, here.id, "seed {seed}");
        let different = mica_testkit::differences(&here.tree, &there.tree, |_| false);
        assert!(different.is_empty(), "seed {seed}: {different:?}");
    }
    digests.dedup();
    assert_eq!(digests.len(), 1, "the same image has several digests: {digests:?}");
}
