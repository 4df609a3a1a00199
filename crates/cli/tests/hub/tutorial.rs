//! What tutorials let people type about registries, word for word but for `docker`, and what they are told to expect.

use std::io::Write;
use std::process::Stdio;

use mica_testkit::images::TestIndex;
use mica_testkit::{FakeAuth, FakeOptions, FakeRegistry, Found, Mica, TokenRules};

use crate::support::{BINARY, World, busybox, by_layer, check_says, image_of, short};

/// A hub with the images of the tutorials: whoever logs in may push.
fn hub() -> Option<World> {
    let alpine = busybox()?;
    let found = |name: &str, official: bool| Found { name: name.into(), official, ..Found::default() };
    let world = World::with(FakeOptions {
        auth: FakeAuth::Token(TokenRules::default()),
        search: vec![
            found("ubuntu", true),
            found("ubuntu/squid", false),
            found("node", true),
            found("circleci/node", false),
        ],
        ..FakeOptions::default()
    });
    TestIndex::oci(vec![alpine.clone()]).put(&world.hub, "library/alpine", "latest");
    alpine.put(&world.hub, "library/nginx", "latest");
    image_of(&[&[("etc/version", b"18.04")]]).put(&world.hub, "library/ubuntu", "18.04");
    image_of(&[&[("etc/version", b"22.04")]]).put(&world.hub, "library/ubuntu", "22.04");
    alpine.put(&world.hub, "someone/name", "tag");
    Some(world)
}

/// Runs a line of a tutorial, which says `docker`.
fn typed(mica: &Mica, line: &str) -> mica_testkit::Outcome {
    let words: Vec<&str> = line.split_whitespace().skip(1).collect();
    mica.ok(&words)
}

#[test]
fn root_search_pull_run() {
    let Some(world) = hub() else { return };
    let typed = |line: &str| typed(&world.mica, line);
    let told = typed("docker search ubuntu").stdout;
    assert!(told.starts_with("NAME "), "{told}");
    assert_eq!(told.lines().count(), 3, "{told}");
    let told = typed("docker search --filter is-official=true node").stdout;
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("\nnode ") && told.ends_with("[OK]\n"), "{told}");

    let told = typed("docker pull nginx").stdout;
    assert!(told.starts_with("Using default tag: latest\nlatest: Pulling from library/nginx\n"), "{told}");
    assert!(told.contains(": Pull complete\nDigest: sha256:"), "{told}");
    let told = typed("docker pull nginx").stdout;
    assert!(told.contains("Status: Image is up to date for nginx:latest\n"), "{told}");
    typed("docker pull ubuntu:18.04");
    // The layer of nginx is here.
    let told = typed("docker pull someone/name:tag").stdout;
    assert!(!told.contains("Pulling fs layer"), "{told}");
    typed("docker pull -a ubuntu");
    let tags = typed("docker images --format {{.Tag}} ubuntu").stdout;
    assert_eq!(tags, "22.04\n18.04\n");

    let outcome = typed("docker container run --rm --network=none alpine echo hello");
    assert!(outcome.stderr.starts_with("Unable to find image 'alpine:latest' locally\n"), "{outcome}");
    assert_eq!(outcome.stdout, "hello\n");
    let told = typed("docker run --rm --network=none alpine cat /etc/group").stdout;
    assert!(told.starts_with("root:"), "{told}");
    let id = world.id("alpine");
    typed(&format!("docker tag {} alpine:v1.0", short(&id)));
    assert_eq!(world.id("alpine:v1.0"), id);
    typed("docker rmi alpine:v1.0");
}

#[test]
fn root_a_tag_that_moved_leaves_containers_as_they_are() {
    let Some(world) = hub() else { return };
    let typed = |line: &str| typed(&world.mica, line);
    typed("docker pull nginx");
    let old = world.id("nginx");
    typed("docker run -d --network=none --name web nginx sleep 1000");
    let newer = busybox()
        .expect("it was there")
        .with_config(|config| config["config"]["Labels"] = serde_json::json!({"n": "2"}));
    newer.put(&world.hub, "library/nginx", "latest");
    let told = typed("docker pull nginx").stdout;
    assert!(told.contains("Status: Downloaded newer image for nginx:latest\n"), "{told}");
    assert_eq!(world.id("nginx"), newer.id());
    assert_eq!(typed("docker inspect --format {{.Image}} web").stdout.trim(), old);
    let images = typed("docker images --no-trunc --format {{.ID}}_{{.Tag}}").stdout;
    assert!(images.contains(&format!("{old}_<none>")), "{images}");
    typed("docker rm -f web");
}

#[test]
fn root_login_tag_push() {
    let Some(world) = hub() else { return };
    let typed = |line: &str| typed(&world.mica, line);
    typed("docker pull nginx");
    typed("docker tag nginx tester/demo:v1.0");
    check_says(
        &world.mica.fails(&["push", "tester/demo:v1.0"], 1),
        &["push access denied for tester/demo", "`mica login`"],
    );
    let told = log_in(&world.mica, &["login", "--username=tester", "--password-stdin"]);
    assert!(told.contains("Login Succeeded"), "{told}");
    let told = typed("docker push tester/demo:v1.0").stdout;
    assert!(told.starts_with("The push refers to repository [docker.io/tester/demo]\n"), "{told}");
    assert!(told.contains("\nv1.0: digest: sha256:"), "{told}");
    // What the registry has is not sent again.
    let sent = || world.hub.received_bytes("/v2/tester/demo/blobs/");
    let before = sent();
    typed("docker tag nginx tester/demo:v1.1");
    let told = typed("docker push tester/demo:v1.1").stdout;
    assert!(by_layer(&told).values().flatten().any(|state| state == "Layer already exists"), "{told}");
    assert_eq!(sent(), before);
    assert_eq!(world.hub.tags("tester/demo"), ["v1.0", "v1.1"]);
    // Somebody else gets it.
    let other = Mica::new(BINARY);
    other.set_hub(&world.hub.host());
    let outcome = self::typed(&other, "docker run --rm --network=none tester/demo:v1.0 echo mine");
    assert_eq!(outcome.stdout, "mine\n", "{outcome}");
}

/// Gives the password on standard input.
fn log_in(mica: &Mica, words: &[&str]) -> String {
    let mut child = mica.command(words).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("mica");
    child
        .stdin
        .take()
        .expect("its input")
        .write_all(mica_testkit::PASSWORD.as_bytes())
        .expect("the password");
    let output = child.wait_with_output().expect("its end");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn root_a_registry_of_ones_own() {
    let Some(image) = busybox() else { return };
    let world = World::new();
    image.put(&world.hub, "library/alpine", "latest");
    let own = FakeRegistry::new();
    let name = format!("{}/alpine", own.host());
    let typed = |line: &str| typed(&world.mica, line);
    typed("docker pull alpine");
    typed(&format!("docker tag alpine {name}"));
    let told = typed(&format!("docker push {name}")).stdout;
    assert!(
        told.starts_with(&format!("Using default tag: latest\nThe push refers to repository [{name}]\n")),
        "{told}"
    );
    typed(&format!("docker rmi {name} alpine"));
    let told = typed(&format!("docker pull {name}")).stdout;
    assert!(
        told.ends_with(&format!("Status: Downloaded newer image for {name}:latest\n{name}:latest\n")),
        "{told}"
    );
    assert_eq!(world.id(&name), image.id());
}
