use mica_testkit::images::{TestImage, digest, media_type};
use serde_json::json;

use mica_testkit::{FakeAuth, FakeOptions, TokenRules};

use crate::support::{World, by_layer, check_says, image_of, other_lines, short};

/// A store that pulled an image, which is named `me/app:v1` now.
fn with_image(world: &World) -> TestImage {
    let image = image_of(&[&[("a", b"1")], &[("b", b"2")]]);
    image.put(&world.hub, "library/source", "latest");
    world.stdout(&["pull", "-q", "source"]);
    world.stdout(&["tag", "source", "me/app:v1"]);
    image
}

#[test]
fn what_was_pulled_goes_back_as_it_came() {
    let world = World::new();
    let image = with_image(&world);
    let told = world.stdout(&["push", "me/app:v1"]);
    let size = image.manifest.len();
    assert_eq!(
        other_lines(&told),
        [
            "The push refers to repository [docker.io/me/app]".to_owned(),
            format!("v1: digest: {} size: {size}", image.digest()),
        ]
    );
    for layer in &image.layers {
        let states = &by_layer(&told)[short(&layer.diff_id)];
        assert_eq!(states.first().map(String::as_str), Some("Preparing"), "{told}");
        assert_eq!(states.last().map(String::as_str), Some("Mounted from library/source"), "{told}");
    }
    assert_eq!(world.hub.manifest("me/app", "v1").expect("the manifest").1, image.manifest);
    let again = world.stdout(&["push", "me/app:v1"]);
    for layer in &image.layers {
        let states = &by_layer(&again)[short(&layer.diff_id)];
        assert_eq!(states.last().map(String::as_str), Some("Layer already exists"), "{again}");
    }
    assert_eq!(world.stdout(&["push", "-q", "me/app:v1"]), "docker.io/me/app:v1\n");
}

#[test]
fn a_tag_by_default_and_all_of_them() {
    let world = World::with(FakeOptions { mounts: false, ..FakeOptions::default() });
    let image = with_image(&world);
    for tag in ["latest", "v2"] {
        world.stdout(&["tag", "source", &format!("me/app:{tag}")]);
    }
    let told = world.stdout(&["image", "push", "me/app"]);
    let refers = "The push refers to repository [docker.io/me/app]";
    let end = |tag: &str| format!("{tag}: digest: {} size: {}", image.digest(), image.manifest.len());
    assert_eq!(other_lines(&told), ["Using default tag: latest", refers, &end("latest")]);
    for layer in &image.layers {
        let states = &by_layer(&told)[short(&layer.diff_id)];
        assert_eq!(states.last().map(String::as_str), Some("Pushed"), "{told}");
    }
    assert_eq!(world.hub.tags("me/app"), ["latest"]);
    let told = world.stdout(&["push", "-a", "me/app"]);
    assert_eq!(other_lines(&told), [refers, &end("latest"), &end("v1"), &end("v2")]);
    assert_eq!(world.hub.tags("me/app"), ["latest", "v1", "v2"]);
    assert_eq!(world.stdout(&["push", "-aq", "me/app"]), "docker.io/me/app\n");
}

#[test]
fn errors_in_dockers_words() {
    let world = World::new();
    with_image(&world);
    let check = |words: &[&str], expect: &[&str]| check_says(&world.mica.fails(words, 1), expect);
    check(
        &["push", "me/absent"],
        &[
            "error: An image does not exist locally with the tag: me/absent",
            "hint: give an image that name with `mica tag IMAGE me/absent`",
        ],
    );
    check(&["push", "-a", "me/absent"], &["An image does not exist locally with the tag: me/absent"]);
    check(&["push", "me/app:v9"], &["error: tag does not exist: me/app:v9", "`mica push -a me/app`"]);
    check(&["push", "-a", "me/app:v1"], &["tag can't be used with --all-tags/-a"]);
    let digest = format!("me/app@sha256:{}", "0".repeat(64));
    check(&["push", &digest], &["cannot push a digest reference"]);
    check(
        &["push", "--platform=linux/s390x", "me/app:v1"],
        &["does not provide the specified platform (linux/s390x)"],
    );
}

#[test]
fn a_refused_push_says_who_may() {
    let world =
        World::with(FakeOptions { auth: FakeAuth::Token(TokenRules::default()), ..FakeOptions::default() });
    with_image(&world);
    check_says(
        &world.mica.fails(&["push", "me/app:v1"], 1),
        &["error: push access denied for me/app: ", "hint: `mica login`"],
    );
    assert_eq!(world.hub.tags("me/app"), Vec::<String>::new());
}

/// As BuildKit makes it: an image, and what it states about that image.
#[test]
fn an_index_goes_back_with_what_it_states_about_its_image() {
    let world = World::new();
    let image = image_of(&[&[("a", b"1")]]);
    image.put(&world.hub, "library/source", "image");
    let statement = b"{\"_type\":\"https://in-toto.io/Statement/v0.1\"}";
    let config = b"{\"architecture\":\"unknown\",\"os\":\"unknown\",\"config\":{},\"rootfs\":{\"type\":\"layers\",\"diff_ids\":[]}}";
    let descriptor = |media_type: &str, bytes: &[u8]| json!({ "mediaType": media_type, "digest": digest(bytes), "size": bytes.len() });
    for blob in [&statement[..], &config[..]] {
        world.hub.put_blob("library/source", blob);
    }
    let attestation = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": descriptor(media_type::OCI_CONFIG, config),
        "layers": [descriptor("application/vnd.in-toto+json", statement)],
    })
    .to_string();
    let mut about = descriptor(media_type::OCI_MANIFEST, attestation.as_bytes());
    about["platform"] = json!({ "architecture": "unknown", "os": "unknown" });
    about["annotations"] = json!({
        "vnd.docker.reference.type": "attestation-manifest",
        "vnd.docker.reference.digest": image.digest(),
    });
    let mut of_image = descriptor(&image.media_type, &image.manifest);
    of_image["platform"] = image.platform.clone();
    let index =
        json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [of_image, about] })
            .to_string();
    let put = |tag: &str, media_type: &str, bytes: &[u8]| {
        world.hub.put_manifest("library/source", tag, media_type, bytes)
    };
    put(&digest(attestation.as_bytes()), media_type::OCI_MANIFEST, attestation.as_bytes());
    put("whole", media_type::OCI_INDEX, index.as_bytes());
    world.stdout(&["pull", "-q", "source:whole"]);
    world.stdout(&["tag", "source:whole", "me/whole:v1"]);
    let told = world.stdout(&["push", "me/whole:v1"]);
    assert!(
        told.contains(&format!("v1: digest: {} size: {}", digest(index.as_bytes()), index.len())),
        "{told}"
    );
    assert_eq!(world.hub.manifest("me/whole", "v1").expect("the index").1, index.as_bytes());
    assert!(world.hub.blob("me/whole", &digest(statement)).is_some());
}
