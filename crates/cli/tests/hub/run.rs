use mica_testkit::images::{TestImage, TestIndex, TestLayer, tar_of};

use mica_testkit::{FakeRegistry, Mica, Need};

use crate::support::{World, busybox, busybox_if, check_says, image_of, short};

#[test]
fn root_a_missing_image_is_pulled_on_stderr() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    let outcome = world.mica.ok(&["run", "--rm", "--network=none", "alpine", "echo", "hello"]);
    assert_eq!(outcome.stdout, "hello\n");
    let layer = image.layers[0].digest();
    let layer = short(&layer);
    assert_eq!(
        outcome.stderr,
        format!(
            "Unable to find image 'alpine:latest' locally\n\
             latest: Pulling from library/alpine\n\
             {layer}: Pulling fs layer\n\
             {layer}: Verifying Checksum\n\
             {layer}: Download complete\n\
             {layer}: Pull complete\n\
             Digest: {}\n\
             Status: Downloaded newer image for alpine:latest\n",
            image.digest()
        )
    );
    // It is here now: nobody is asked.
    world.hub.clear_requests();
    let outcome = world.mica.ok(&["run", "--rm", "--network=none", "alpine", "echo", "again"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("again\n", ""));
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn root_when_the_registry_is_asked() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    let run = |flags: &[&str]| {
        world
            .mica
            .run(&[&["run", "--rm", "--network=none"], flags, &["alpine", "cat", "/etc/version"]].concat())
    };
    let version = |text: &str| {
        let mut image = image.clone();
        image.layers.push(TestLayer::gzip(&tar_of(&[("etc/version", text.as_bytes())])));
        let config = TestImage::oci("linux/amd64", image.layers.clone()).with_config(|config| {
            config["config"] = serde_json::json!({ "Env": ["PATH=/bin:/usr/bin"] });
        });
        config.put(&world.hub, "library/alpine", "latest");
    };
    version("one\n");
    let outcome = run(&["--pull=never"]);
    assert_eq!(outcome.code, 125);
    check_says(&outcome, &["error: No such image: alpine:latest", "hint: run without `--pull=never`"]);
    assert!(!outcome.stderr.contains("Unable to find"), "{outcome}");
    assert_eq!(world.asked(), Vec::<String>::new());
    // Quietly.
    let outcome = run(&["-q"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("one\n", ""));
    version("two\n");
    assert_eq!(run(&[]).stdout, "one\n");
    assert_eq!(run(&["--pull=missing"]).stdout, "one\n");
    let outcome = run(&["--pull=always"]);
    assert_eq!(outcome.stdout, "two\n");
    assert!(outcome.stderr.starts_with("latest: Pulling from library/alpine\n"), "{outcome}");
    assert!(outcome.stderr.ends_with("Status: Downloaded newer image for alpine:latest\n"), "{outcome}");
    let outcome = run(&["--pull", "always"]);
    assert!(outcome.stderr.ends_with("Status: Image is up to date for alpine:latest\n"), "{outcome}");
    let outcome = run(&["--pull=sometimes"]);
    assert_eq!(outcome.code, 125, "{outcome}");
    // An ID is not asked for.
    let unknown = format!("sha256:{}", "0".repeat(64));
    let outcome = world.mica.fails(&["run", "--rm", &unknown], 125);
    check_says(&outcome, &[&format!("No such image: {unknown}"), "hint: `mica images`"]);
    let id = world.id("alpine");
    let outcome = world.mica.fails(&["run", "--rm", "--platform=linux/s390x", &id], 125);
    check_says(&outcome, &["does not provide the specified platform (linux/s390x)"]);
    world.hub.clear_requests();
    let outcome = world.mica.ok(&["run", "--rm", "--network=none", "--pull=always", &id, "true"]);
    assert_eq!(outcome.stderr, "");
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn root_create_pulls_and_fails_with_its_own_code() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "me/app", "1");
    let outcome = world.mica.ok(&["create", "--name", "c", "me/app:1", "true"]);
    assert!(
        outcome.stderr.starts_with("Unable to find image 'me/app:1' locally\n1: Pulling from me/app\n"),
        "{outcome}"
    );
    assert_eq!(outcome.stdout.trim().len(), 64, "{outcome}");
    world.mica.ok(&["rm", "c"]);
    check_says(
        &world.mica.fails(&["create", "absent"], 1),
        &["Unable to find image 'absent:latest' locally\n", "error: ", "absent"],
    );
    check_says(
        &world.mica.fails(&["run", "absent"], 125),
        &["Unable to find image 'absent:latest' locally\n"],
    );
}

#[test]
fn root_the_platform_that_is_asked_for_runs() {
    let Some(own) = busybox() else { return };
    let world = World::new();
    let other = |platform: &str| TestImage::oci(platform, vec![TestLayer::gzip(&tar_of(&[("x", b"x")]))]);
    let arm = other("linux/arm64");
    TestIndex::oci(vec![arm.clone(), own.clone()]).put(&world.hub, "library/multi", "latest");
    arm.put(&world.hub, "library/arm", "latest");
    world.stdout(&["pull", "-q", "--platform=linux/arm64", "multi"]);
    // The name leads to another platform's image: this machine's is fetched.
    let run = |words: &[&str]| world.mica.run(&[&["run", "--rm", "--network=none"], words].concat());
    let outcome = run(&["--platform", "linux/amd64", "multi", "echo", "own"]);
    assert_eq!(outcome.stdout, "own\n", "{outcome}");
    assert!(outcome.stderr.contains("Status: Downloaded newer image for multi:latest"), "{outcome}");
    // Both are here now.
    world.hub.clear_requests();
    assert_eq!(run(&["multi", "echo", "host"]).stdout, "host\n");
    assert_eq!(run(&["--platform", "linux/amd64", "multi", "echo", "own"]).stdout, "own\n");
    assert_eq!(world.asked(), Vec::<String>::new());
    let outcome = run(&["--pull=never", "--platform=linux/s390x", "multi", "true"]);
    assert_eq!(outcome.code, 125);
    check_says(&outcome, &["does not provide the specified platform (linux/s390x)"]);
    let outcome = run(&["--platform=linux/s390x", "multi", "true"]);
    assert_eq!(outcome.code, 125);
    check_says(&outcome, &["no matching manifest for linux/s390x"]);
    // Nobody asked for a platform, and there is only another.
    let outcome = run(&["arm", "/x"]);
    check_says(&outcome, &["platform (linux/arm64) does not match the detected host platform"]);
    assert_ne!(outcome.code, 0);
}

#[test]
fn root_another_systems_image_is_refused() {
    if busybox().is_none() {
        return;
    }
    let world = World::new();
    let windows = TestImage::windows(vec![TestLayer::gzip(&tar_of(&[("Files/x", b"x")]))]);
    windows.put(&world.hub, "me/nano", "latest");
    world.stdout(&["pull", "--platform=windows/amd64", "me/nano"]);
    assert_eq!(world.stdout(&["image", "inspect", "--format", "{{.Os}}", "me/nano"]), "windows\n");
    check_says(
        &world.mica.fails(&["run", "--rm", "me/nano"], 125),
        &["image operating system \"windows\" cannot be used on this platform: linux/", "hint: "],
    );
}

#[test]
fn root_an_unreachable_registry_is_named() {
    if busybox().is_none() {
        return;
    }
    let world = World::new();
    image_of(&[&[("a", b"1")]]).put(&world.hub, "library/alpine", "latest");
    world.mica.set_hub("127.0.0.1:1");
    check_says(
        &world.mica.fails(&["run", "--rm", "alpine"], 125),
        &[
            "Unable to find image 'alpine:latest' locally\n",
            "docker.io/library/alpine:latest",
            "127.0.0.1:1",
            "hint: ",
        ],
    );
}

#[test]
fn root_short_names_may_mean_another_registry() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    let other = FakeRegistry::new();
    image.put(&other, "tool", "latest");
    image_of(&[&[("a", b"1")]]).put(&world.hub, "library/tool", "latest");
    let settings = format!("unqualified-search-registries = [\"127.0.0.1:1\", \"{}\"]\n", other.host());
    std::fs::write(world.mica.settings().join("registries.conf"), settings).expect("settings");
    let outcome = world.mica.ok(&["run", "--rm", "--network=none", "tool", "echo", "other"]);
    assert_eq!(outcome.stdout, "other\n");
    assert!(outcome.stderr.contains(&format!("newer image for {}/tool:latest\n", other.host())), "{outcome}");
    // It is here under its own name, which the short name means as well.
    other.clear_requests();
    let outcome = world.mica.ok(&["run", "--rm", "--network=none", "tool", "echo", "again"]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str()), ("again\n", ""));
    let context = Mica::temporary_dir();
    std::fs::write(context.path().join("Dockerfile"), "FROM tool\nRUN echo built\n").expect("a Dockerfile");
    world.mica.ok(&["build", "--network=none", &context.path().to_string_lossy()]);
    assert_eq!(other.requests().len(), 0);
    assert_eq!(
        world.stdout(&["pull", "tool"]).lines().last(),
        Some(&*format!("{}/tool:latest", other.host()))
    );
    // None of them has it: the first one's reason is told.
    check_says(&world.mica.fails(&["pull", "absent"], 1), &["127.0.0.1:1/absent:latest"]);
    assert_eq!(world.asked(), Vec::<String>::new());
}

#[test]
fn rootless_a_missing_image_is_pulled_and_run() {
    let Some(image) = busybox_if(&[Need::Unprivileged]) else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    let outcome = world.mica.ok(&["run", "--rm", "--network=none", "alpine", "echo", "hello"]);
    assert_eq!(outcome.stdout, "hello\n");
    assert!(outcome.stderr.contains("Status: Downloaded newer image for alpine:latest\n"), "{outcome}");
    world.stdout(&["tag", "alpine", "me/app:1"]);
    world.stdout(&["push", "me/app:1"]);
    assert_eq!(world.hub.manifest("me/app", "1").expect("the manifest").1, image.manifest);
}
