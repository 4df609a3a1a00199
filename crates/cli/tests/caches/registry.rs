//! A cache in a registry, and results that travel inside an image.

use mica_testkit::{DockerRegistry, FakeRegistry, Fault, NEEDS_DOCKER_REGISTRY, When, missing};

use crate::support::{How, Machine, STEPS, can_build};

#[test]
fn root_a_second_machine_has_the_same_hits_through_registries() {
    if !can_build() {
        return;
    }
    let fake = FakeRegistry::new();
    through(&fake.host());
    match missing(&[NEEDS_DOCKER_REGISTRY]) {
        Some(reason) => println!("skipped: {reason}"),
        None => through(&DockerRegistry::new().host()),
    }
}

fn through(host: &str) {
    let here = Machine::new();
    let name = format!("{host}/team/app:cache");
    for more in ["", ",oci-mediatypes=false", ",image-manifest=true,compression=zstd"] {
        let built = here.build(&[&format!("--cache-to=type=registry,ref={name},mode=max{more}")]);
        assert!(built.stderr.contains(": 6 results, "), "{}", built.stderr);
        // A bare name is a registry's.
        for from in [format!("--cache-from={name}"), format!("--cache-from=type=registry,ref={name}")] {
            Machine::new().build(&[&from]).check_all_from(&format!("registry:{name}"));
        }
    }
    let there = Machine::new();
    there.write("unused", "edited\n");
    let built = there.build(&[&format!("--cache-from={name}")]);
    assert!(matches!(built.steps[2], How::FromCacheByRecord(_)), "{:?}", built.steps);
}

#[test]
fn root_registries_that_fail_cost_a_warning() {
    if !can_build() {
        return;
    }
    let registry = FakeRegistry::new();
    let here = Machine::new();
    let name = format!("{}/team/app:cache", registry.host());
    let (to, from) =
        (format!("--cache-to=type=registry,ref={name},mode=max"), format!("--cache-from={name}"));
    let built = Machine::new().build(&[&from]);
    built.check_all_ran();
    assert!(built.stderr.contains("there is no cache"), "{}", built.stderr);
    // An export that breaks off leaves nothing that counts.
    registry.fault(When::is("PUT", "/manifests/"), Fault::status(403));
    let built = here.build(&[&to]);
    assert!(built.stderr.contains("warning: cannot export the cache to registry:"), "{}", built.stderr);
    let outcome = here.run(&[&format!("{to},ignore-error=false")]);
    assert!(outcome.code == 1 && outcome.stderr.contains("error: cannot export"), "{outcome}");
    registry.clear_faults();
    Machine::new().build(&[&from]).check_all_ran();
    // What was sent before is not sent again.
    registry.clear_requests();
    here.build(&[&to]);
    assert_eq!(registry.count("PATCH", "/blobs/") + registry.count("POST", "/blobs/"), 0);
    // A blob that is gone costs its step alone.
    let (_, manifest) = registry.manifest("team/app", "cache").unwrap();
    let manifest = mica_oci::Manifest::parse(&manifest).unwrap();
    let layer = manifest.layers.iter().find(|blob| blob.media_type.contains("tar")).unwrap();
    registry.remove_blob(layer.digest.as_str());
    let there = Machine::new();
    let built = there.build(&[&from]);
    assert_eq!(built.steps.iter().filter(|step| step.ran()).count(), 1, "{:?}", built.steps);
    let missing = format!("blob {} is missing", layer.digest);
    assert!(built.stderr.contains(&missing), "{}", built.stderr);
    // Something that is no cache.
    let name = format!("{}/team/app:plain", registry.host());
    here.mica.ok(&["tag", "app:1", &name]);
    here.mica.ok(&["push", &name]);
    let built = Machine::new().build(&[&format!("--cache-from={name}")]);
    built.check_all_ran();
    assert!(built.stderr.contains("without `--cache-to type=inline`"), "{}", built.stderr);
}

#[test]
fn root_results_inside_an_image() {
    if !can_build() {
        return;
    }
    let registry = FakeRegistry::new();
    let name = format!("{}/team/app:1", registry.host());
    for ask in ["--cache-to=type=inline", "--build-arg=BUILDKIT_INLINE_CACHE=1"] {
        let here = Machine::new();
        here.build(&[ask]);
        let first = here.mica.ok(&["image", "inspect", "-f", "{{.Id}}", "app:1"]).stdout;
        here.build(&[ask]);
        let again = here.mica.ok(&["image", "inspect", "-f", "{{.Id}}", "app:1"]).stdout;
        assert_eq!(first, again, "an image that is built again is the same");
        here.mica.ok(&["tag", "app:1", &name]);
        here.mica.ok(&["push", &name]);
        // The image has two of the layers; what they stand on is made anew, and then they are not found by their layers, as
        // the first stage writes the time.
        let built = Machine::new().build(&[&format!("--cache-from={name}")]);
        assert!(!built.stderr.contains("WARN"), "{}", built.stderr);
        let there = Machine::new();
        there.write("Dockerfile", SIMPLE);
        here.write("Dockerfile", SIMPLE);
        here.build(&[ask]);
        here.mica.ok(&["tag", "app:1", &name]);
        here.mica.ok(&["push", &name]);
        let built = there.build(&[&format!("--cache-from=type=registry,ref={name}")]);
        built.check_all_from(&format!("registry:{name}"));
        let edited = Machine::new();
        edited.write("Dockerfile", SIMPLE);
        edited.write("unused", "edited\n");
        let built = edited.build(&[&format!("--cache-from={name}")]);
        assert!(matches!(built.steps[3], How::FromCacheByRecord(_)), "{:?}\n{}", built.steps, built.stderr);
        assert!(built.steps.len() < STEPS);
    }
}

const SIMPLE: &str = "\
FROM base:1
WORKDIR /app
COPY used /app/
COPY unused /app/
RUN cat used > out; date +%s%N >> out
";
