use std::fs;

use mica_testkit::images::{TestImage, TestIndex, TestLayer, tar_of};
use mica_testkit::{FakeAuth, FakeOptions, Mica, Outcome, TokenRules};

use crate::support::{World, busybox, check_says, image_of};

/// A context with this Dockerfile, built.
fn build(world: &World, dockerfile: &str, flags: &[&str]) -> Outcome {
    let context = Mica::temporary_dir();
    fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
    let path = context.path().to_string_lossy().into_owned();
    world.mica.run(&[&["build", "--progress=plain", "--network=none"], flags, &[&path]].concat())
}

#[track_caller]
fn ok(world: &World, dockerfile: &str, flags: &[&str]) -> Outcome {
    let outcome = build(world, dockerfile, flags);
    assert_eq!(outcome.code, 0, "{outcome}");
    outcome
}

#[test]
fn root_an_absent_base_is_fetched_once() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    let outcome = ok(&world, "FROM alpine\nRUN echo built > /built\n", &["-t", "app"]);
    let (layer, digest) = (image.layers[0].digest(), image.digest());
    check_says(
        &outcome,
        &[
            "#2 [internal] load metadata for docker.io/library/alpine:latest\n#2 DONE ",
            "#3 FROM docker.io/library/alpine:latest\n",
            &format!("#3 {layer} "),
            &format!("#3 resolve docker.io/library/alpine:latest@{digest} done\n#3 DONE "),
            "#4 [2/2] RUN echo built",
        ],
    );
    assert_eq!(world.mica.ok(&["run", "--rm", "--network=none", "app", "cat", "/built"]).stdout, "built\n");
    // It has its name in the store, and is not asked for again.
    assert_eq!(world.id("alpine"), image.id());
    world.hub.clear_requests();
    ok(&world, "FROM alpine\nRUN echo built > /built\n", &[]);
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn root_pull_asks_again() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    let dockerfile = "FROM alpine\nRUN cat /version > /built || true\n";
    ok(&world, dockerfile, &["-t", "app"]);
    let mut layers = image.layers.clone();
    layers.push(TestLayer::gzip(&tar_of(&[("version", b"two\n")])));
    let newer = TestImage::oci("linux/amd64", layers).with_config(|config| {
        config["config"] = serde_json::json!({ "Env": ["PATH=/bin:/usr/bin"] });
    });
    newer.put(&world.hub, "library/alpine", "latest");
    ok(&world, dockerfile, &["-t", "app"]);
    assert_eq!(world.id("alpine"), image.id());
    ok(&world, dockerfile, &["--pull", "-t", "app"]);
    assert_eq!(world.id("alpine"), newer.id());
    assert_eq!(world.mica.ok(&["run", "--rm", "--network=none", "app", "cat", "/built"]).stdout, "two\n");
    // Nothing new: one request.
    world.hub.clear_requests();
    ok(&world, dockerfile, &["--pull"]);
    assert_eq!(world.asked(), ["HEAD /v2/library/alpine/manifests/latest"]);
    ok(&world, dockerfile, &["--pull=false"]);
    assert_eq!(world.asked().len(), 1);
}

#[test]
fn root_several_bases_come_at_the_same_time() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    image_of(&[&[("a", b"one")]]).put(&world.hub, "me/a", "1");
    image_of(&[&[("b", b"two")]]).put(&world.hub, "me/b", "1");
    let dockerfile = "FROM alpine\nCOPY --from=me/a:1 /a /a\nCOPY --from=me/b:1 /b /b\nCOPY --from=alpine /bin/busybox /again\n";
    ok(&world, dockerfile, &["-t", "app"]);
    let all = world.mica.ok(&["run", "--rm", "--network=none", "app", "cat", "/a", "/b"]).stdout;
    assert_eq!(all, "onetwo");
    let blob = format!("/blobs/{}", image.layers[0].digest());
    assert_eq!(world.hub.count("GET", &blob), 1);
}

#[test]
fn root_the_platform_of_a_base() {
    let Some(own) = busybox() else { return };
    let world = World::new();
    let arm = TestImage::oci("linux/arm64", vec![TestLayer::gzip(&tar_of(&[("arm", b"arm")]))]);
    TestIndex::oci(vec![arm.clone(), own.clone()]).put(&world.hub, "library/multi", "latest");
    arm.put(&world.hub, "me/arm", "1");
    // Of two platforms at once.
    let dockerfile =
        "FROM --platform=linux/arm64 multi AS other\nFROM multi\nCOPY --from=other /arm /arm\nRUN cat /arm\n";
    ok(&world, dockerfile, &["-t", "app"]);
    // The store has the name for another platform alone.
    world.stdout(&["rmi", "-f", "multi"]);
    world.stdout(&["pull", "-q", "--platform=linux/arm64", "multi"]);
    ok(&world, "FROM multi\nRUN true\n", &[]);
    let architecture =
        |name: &str| world.stdout(&["image", "inspect", "--format", "{{.Architecture}}", name]);
    ok(&world, "FROM multi\n", &["--platform=linux/arm64", "-t", "app:arm"]);
    assert_eq!(architecture("app:arm"), "arm64\n");
    // An image that is not of an index, for nothing that was asked for.
    let outcome = ok(&world, "FROM me/arm:1\n", &["-t", "foreign"]);
    check_says(&outcome, &["the base image `me/arm:1` is for linux/arm64, not for linux/amd64"]);
    let outcome = build(&world, "FROM --platform=linux/s390x multi\n", &[]);
    assert_eq!(outcome.code, 1);
    check_says(
        &outcome,
        &[
            "Dockerfile:1:29",
            "base image `multi` for linux/s390x cannot be pulled",
            "no matching manifest for linux/s390x in the manifest list entries",
            "note: the local store has it for",
        ],
    );
}

#[test]
fn root_failures_are_told_together_with_their_lines() {
    if busybox().is_none() {
        return;
    }
    let world = World::with(FakeOptions {
        auth: FakeAuth::Token(TokenRules { anonymous_pull: false, ..TokenRules::default() }),
        ..FakeOptions::default()
    });
    let dockerfile = "FROM me/private AS a\nEXPOSE 99999\nFROM 127.0.0.1:1/b\nCOPY --from=a /x /x\n";
    let outcome = build(&world, dockerfile, &[]);
    assert_eq!(outcome.code, 1);
    check_says(
        &outcome,
        &[
            "Dockerfile:1:6",
            "base image `me/private` is not in the local store, and cannot be pulled: pull access denied for me/private, \
             repository does not exist or may require 'docker login'",
            "`mica login`",
            "Dockerfile:2",
            "99999",
            "Dockerfile:3:6",
            "base image `127.0.0.1:1/b` is not in the local store, and cannot be pulled: ",
            "does a registry listen at `127.0.0.1:1`?",
            "`mica load -i ARCHIVE`",
        ],
    );
    let open = World::new();
    image_of(&[&[("a", b"1")]]).put(&open.hub, "library/base", "1");
    let outcome = build(&open, "FROM base:2\n", &[]);
    check_says(
        &outcome,
        &["Dockerfile:1:6", "manifest for base:2 not found: manifest unknown", "`mica tags base`"],
    );
    open.stdout(&["pull", "-q", "base:1"]);
    open.mica.set_hub("127.0.0.1:1");
    let outcome = build(&open, "FROM base:1\n", &["--pull"]);
    assert_eq!(outcome.code, 1);
    check_says(
        &outcome,
        &["base image `base:1` cannot be pulled", "without `--pull`, the image of the local store is used"],
    );
    ok(&open, "FROM base:1\n", &[]);
}

#[test]
fn root_what_was_built_is_pushed() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    let dockerfile = "FROM alpine\nRUN echo built > /built\n";
    let outcome = ok(&world, dockerfile, &["--push", "-t", "me/app:1", "-t", "me/app:2"]);
    check_says(
        &outcome,
        &[
            "The push refers to repository [docker.io/me/app]\n",
            "\n1: digest: sha256:",
            "\n2: digest: sha256:",
        ],
    );
    assert_eq!(world.hub.tags("me/app"), ["1", "2"]);
    let other = Mica::new(crate::support::BINARY);
    other.set_hub(&world.hub.host());
    assert_eq!(
        other.ok(&["run", "-q", "--rm", "--network=none", "me/app:1", "cat", "/built"]).stdout,
        "built\n"
    );
    let outcome = build(&world, dockerfile, &["--push"]);
    assert_eq!(outcome.code, 1);
    check_says(&outcome, &["tag is needed when pushing to registry"]);
    let outcome = ok(&world, dockerfile, &["-q", "--push", "-t", "me/app:3"]);
    assert_eq!(outcome.stdout.lines().count(), 1, "{outcome}");
}
