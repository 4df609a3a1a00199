use mica_testkit::images::{TestImage, TestIndex, TestLayer, tar_of, this_platform};
use mica_testkit::{FakeAuth, FakeOptions, Fault, TokenRules, When};

use crate::support::{World, by_layer, check_says, image_of, other_lines, short};

#[test]
fn an_image_of_one_layer_is_told_line_for_line() {
    let world = World::new();
    let image = image_of(&[&[("a", b"one")]]);
    image.put(&world.hub, "library/node", "latest");
    let (layer, digest) = (image.layers[0].digest(), image.digest());
    let layer = short(&layer);
    assert_eq!(
        world.stdout(&["pull", "node"]),
        format!(
            "Using default tag: latest\n\
             latest: Pulling from library/node\n\
             {layer}: Pulling fs layer\n\
             {layer}: Verifying Checksum\n\
             {layer}: Download complete\n\
             {layer}: Pull complete\n\
             Digest: {digest}\n\
             Status: Downloaded newer image for node:latest\n\
             docker.io/library/node:latest\n"
        )
    );
    assert_eq!(world.id("node"), image.id());
    // Again: one request, and nothing changes.
    world.hub.clear_requests();
    assert_eq!(
        world.stdout(&["image", "pull", "node:latest"]),
        format!(
            "latest: Pulling from library/node\n\
             Digest: {digest}\n\
             Status: Image is up to date for node:latest\n\
             docker.io/library/node:latest\n"
        )
    );
    assert_eq!(world.asked(), ["HEAD /v2/library/node/manifests/latest"]);
    assert_eq!(world.stdout(&["pull", "-q", "node"]), "docker.io/library/node:latest\n");
    assert_eq!(
        world.stdout(&["pull", "-q", "--disable-content-trust", "node"]),
        "docker.io/library/node:latest\n"
    );
}

#[test]
fn a_moved_tag_brings_only_new_layers() {
    let world = World::new();
    let base: &[(&str, &[u8])] = &[("base", b"base")];
    let old = image_of(&[base, &[("a", b"one")]]);
    let new = image_of(&[base, &[("a", b"two")]]);
    old.put(&world.hub, "me/app", "1");
    world.stdout(&["pull", "me/app:1"]);
    new.put(&world.hub, "me/app", "1");
    let told = world.stdout(&["pull", "me/app:1"]);
    let layers = by_layer(&told);
    assert_eq!(layers[short(&new.layers[0].digest())], ["Already exists"]);
    assert_eq!(layers[short(&new.layers[1].digest())].last().map(String::as_str), Some("Pull complete"));
    assert_eq!(
        other_lines(&told),
        [
            "1: Pulling from me/app".to_owned(),
            format!("Digest: {}", new.digest()),
            "Status: Downloaded newer image for me/app:1".to_owned(),
            "docker.io/me/app:1".to_owned(),
        ]
    );
    let blob = format!("/v2/me/app/blobs/{}", new.layers[0].digest());
    assert_eq!(world.hub.count("GET", &blob), 1, "the layer that both have");
    assert_eq!(world.id("me/app:1"), new.id());
    let images = world.stdout(&["images", "--no-trunc"]);
    let left = images.lines().find(|line| line.contains(&old.id())).expect("the old image");
    assert!(left.contains("<none>"), "{images}");
}

#[test]
fn several_layers_end_in_order_and_quiet_is_quiet() {
    let world = World::new();
    let image = image_of(&[&[("a", b"1")], &[("b", b"2")], &[("c", b"3")], &[("d", b"4")], &[("e", b"5")]]);
    image.put(&world.hub, "library/many", "v1");
    let told = world.stdout(&["pull", "many:v1"]);
    let layers = by_layer(&told);
    assert_eq!(layers.len(), 5, "{told}");
    for (layer, states) in &layers {
        assert_eq!(states.first().map(String::as_str), Some("Pulling fs layer"), "{layer}: {told}");
        let end = ["Verifying Checksum", "Download complete", "Pull complete"];
        assert_eq!(states[states.len() - 3..], end, "{layer}: {told}");
    }
    // Each is announced before any of them ends.
    let lines: Vec<&str> = told.lines().collect();
    let announced = lines.iter().filter(|line| line.ends_with(": Pulling fs layer")).count();
    let last = lines.iter().rposition(|line| line.ends_with(": Pulling fs layer"));
    let first_end = lines.iter().position(|line| line.ends_with(": Download complete"));
    assert_eq!(announced, 5);
    assert!(last < first_end, "{told}");
}

#[test]
fn by_digest_and_by_both() {
    let world = World::new();
    let image = image_of(&[&[("a", b"one")]]);
    image.put(&world.hub, "library/alpine", "3");
    let name = format!("alpine@{}", image.digest());
    let canonical = format!("docker.io/library/{name}");
    assert_eq!(
        other_lines(&world.stdout(&["pull", &name])),
        [
            format!("{canonical}: Pulling from library/alpine"),
            format!("Digest: {}", image.digest()),
            format!("Status: Downloaded newer image for {name}"),
            canonical.clone(),
        ]
    );
    assert_eq!(world.id(&name), image.id());
    world.hub.clear_requests();
    let both = format!("alpine:3@{}", image.digest());
    let told = world.stdout(&["pull", &both]);
    assert!(told.contains(&format!("Status: Image is up to date for {name}\n")), "{told}");
    let written = format!("docker.io/library/{both}\n");
    assert!(told.ends_with(&written), "{told}");
    assert_eq!(world.asked(), Vec::<String>::new(), "a digest that is stored needs no registry");
    // Of a digest that the registry does not have.
    let other = format!("alpine@sha256:{}", "0".repeat(64));
    check_says(
        &world.mica.fails(&["pull", &other], 1),
        &[&format!("error: manifest for {other} not found: manifest unknown"), "hint: `mica tags alpine`"],
    );
}

#[test]
fn all_tags() {
    let world = World::new();
    let (one, two) = (image_of(&[&[("a", b"1")]]), image_of(&[&[("a", b"2")]]));
    one.put(&world.hub, "me/app", "v1");
    two.put(&world.hub, "me/app", "v2");
    two.put(&world.hub, "me/app", "v3");
    assert_eq!(
        other_lines(&world.stdout(&["pull", "-a", "me/app"])),
        [
            "v1: Pulling from me/app".to_owned(),
            format!("Digest: {}", one.digest()),
            "v2: Pulling from me/app".to_owned(),
            format!("Digest: {}", two.digest()),
            "v3: Pulling from me/app".to_owned(),
            format!("Digest: {}", two.digest()),
            "Status: Downloaded newer image for me/app".to_owned(),
            "docker.io/me/app".to_owned(),
        ]
    );
    for (tag, image) in [("v1", &one), ("v2", &two), ("v3", &two)] {
        assert_eq!(world.id(&format!("me/app:{tag}")), image.id());
    }
    let again = world.stdout(&["pull", "-a", "-q", "me/app"]);
    assert_eq!(again, "docker.io/me/app\n");
    check_says(&world.mica.fails(&["pull", "-a", "me/app:v1"], 1), &["tag can't be used with --all-tags/-a"]);
    check_says(&world.mica.fails(&["pull", "-a", "me/absent"], 1), &["me/absent"]);
}

#[test]
fn platforms() {
    let world = World::new();
    let image = |platform: &str, text: &str| {
        TestImage::oci(platform, vec![TestLayer::gzip(&tar_of(&[("a", text.as_bytes())]))])
    };
    let own = image(&this_platform(), "own");
    let (old, new) = (image("linux/arm/v5", "v5"), image("linux/arm/v7", "v7"));
    let windows = TestImage::windows(vec![TestLayer::gzip(&tar_of(&[("w", b"w")]))]);
    let all = vec![windows.clone(), old, new.clone(), own.clone()];
    TestIndex::oci(all).put(&world.hub, "library/multi", "latest");
    world.stdout(&["pull", "multi"]);
    assert_eq!(world.id("multi"), own.id());
    world.stdout(&["pull", "--platform", "linux/arm/v7", "multi"]);
    assert_eq!(world.id("multi"), new.id());
    world.stdout(&["pull", "--platform=windows/amd64", "multi"]);
    assert_eq!(world.id("multi"), windows.id());
    check_says(
        &world.mica.fails(&["run", "--rm", "--platform=windows/amd64", "multi"], 125),
        &["image operating system \"windows\" cannot be used on this platform"],
    );
    check_says(
        &world.mica.fails(&["pull", "--platform=linux/s390x", "multi"], 1),
        &[
            "no matching manifest for linux/s390x in the manifest list entries",
            "linux/arm/v7",
            "hint: `--platform",
        ],
    );
    check_says(&world.mica.fails(&["pull", "--platform=a/b/c/d", "multi"], 1), &["a/b/c/d"]);
}

#[test]
fn errors_in_dockers_words() {
    let world = World::new();
    image_of(&[&[("a", b"1")]]).put(&world.hub, "library/node", "20");
    let check = |words: &[&str], expect: &[&str]| check_says(&world.mica.fails(words, 1), expect);
    check(
        &["pull", "node:nope"],
        &[
            "error: manifest for node:nope not found: manifest unknown",
            "hint: `mica tags node` lists the tags",
        ],
    );
    check(&["pull", "absent"], &["absent", "not found"]);
    check(&["pull", "Ubuntu:18.04"], &["lowercase", "did you mean `ubuntu:18.04`?"]);
    check(&["pull", "a:b:c"], &["a:b:c"]);
    world.mica.fails(&["pull"], 2);
    check(
        &["pull", "--platform=linux/s390x", "node:20"],
        &[
            "error: image with reference node:20 was found but its platform (linux/",
            "does not match the specified platform (linux/s390x)",
        ],
    );
    // Nothing of it stays.
    assert_eq!(world.stdout(&["images", "-q"]), "");
    // A tag that was pulled, and is gone.
    world.stdout(&["pull", "-q", "node:20"]);
    world.hub.fault(When::is("HEAD", "/manifests/20"), Fault::status(404));
    check(&["pull", "node:20"], &["error: manifest for node:20 not found: manifest unknown", "hint: "]);
    let closed = World::with(FakeOptions {
        auth: FakeAuth::Token(TokenRules { anonymous_pull: false, ..TokenRules::default() }),
        ..FakeOptions::default()
    });
    image_of(&[&[("a", b"1")]]).put(&closed.hub, "me/private", "latest");
    check_says(
        &closed.mica.fails(&["pull", "me/private"], 1),
        &[
            "error: pull access denied for me/private, repository does not exist or may require 'docker login': ",
            "`mica login`",
        ],
    );
    drop(closed.hub);
    check_says(&closed.mica.fails(&["pull", "me/private"], 1), &["docker.io/me/private:latest", "hint: "]);
}
