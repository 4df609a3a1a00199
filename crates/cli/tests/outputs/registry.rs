//! `type=registry`, and pushes of `type=image`.

use mica_testkit::{DockerRegistry, NEEDS_DOCKER_REGISTRY, missing};
use serde_json::Value;

use crate::{Bench, json};

fn manifest(registry: &DockerRegistry, repository: &str, reference: &str) -> Value {
    let reply = registry.http().manifest(repository, reference);
    assert_eq!(reply.status, 200, "{repository}:{reference}: {}", reply.text());
    serde_json::from_slice(&reply.body).expect("JSON")
}

#[test]
fn registries_get_what_is_asked_for() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let (bench, registry) = (Bench::new(), DockerRegistry::new());
    let name = |repository: &str| format!("{}/{repository}:v1", registry.host());
    let check = |repository: &str, keys: &str, layer: &str, of: &str| {
        let output = format!("type=registry,name={}{keys}", name(repository));
        bench.build(&["-o", &output, "--metadata-file", "@meta.json"]);
        let found = manifest(&registry, repository, "v1");
        assert_eq!(found["mediaType"], of, "{keys}");
        let types: Vec<_> =
            found["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].clone()).collect();
        assert_eq!(types, vec![layer; 3], "{keys}");
        let digest = json(&bench.path("meta.json"))["containerimage.digest"].as_str().unwrap().to_owned();
        manifest(&registry, repository, &digest);
        found
    };
    let (oci, docker) = (
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    );
    check("plain", "", "application/vnd.oci.image.layer.v1.tar+gzip", oci);
    assert!(bench.images().contains("plain:v1"), "the store has it as well");
    check("zstd", ",compression=zstd", "application/vnd.oci.image.layer.v1.tar+zstd", oci);
    check("tars", ",compression=uncompressed", "application/vnd.oci.image.layer.v1.tar", oci);
    check("docker", ",oci-mediatypes=false", "application/vnd.docker.image.rootfs.diff.tar.gzip", docker);
    let annotated = check("words", ",annotation.a=b", "application/vnd.oci.image.layer.v1.tar+gzip", oci);
    assert_eq!(annotated["annotations"]["a"], "b");
    // What the store keeps of it is pushed in the same form.
    bench.mica.ok(&["tag", &name("zstd"), &name("again")]);
    bench.mica.ok(&["push", &name("again")]);
    assert_eq!(manifest(&registry, "again", "v1"), manifest(&registry, "zstd", "v1"));
}

#[test]
fn layers_of_the_base_stay_as_they_came() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let (bench, registry) = (Bench::new(), DockerRegistry::new());
    let base = format!("{}/base:v1", registry.host());
    bench.mica.ok(&["tag", "base", &base]);
    bench.mica.ok(&["push", &base]);
    let expect = manifest(&registry, "base", "v1")["layers"][0].clone();
    bench.mica.ok(&["rmi", "-f", &base, "base"]);
    bench.mica.ok(&["system", "prune", "-a", "-f"]);
    bench.dockerfile(&format!("FROM {base}\nCOPY hello /\n"));
    let layers = |keys: &str| {
        let _ = std::fs::remove_dir_all(bench.path("layout"));
        bench.build(&["-o", &format!("type=oci,tar=false,dest=@layout,{keys}")]);
        let index = json(&bench.path("layout/index.json"));
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        json(&bench.path("layout/blobs").join(digest))["layers"].clone()
    };
    let kind = |layer: &Value| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned();
    let found = layers("compression=zstd");
    assert_eq!(found[0], expect);
    assert_eq!(kind(&found[1]), "tar+zstd");
    let found = layers("compression=zstd,force-compression=true");
    assert_eq!([kind(&found[0]), kind(&found[1])], ["tar+zstd", "tar+zstd"]);
    let found = layers("compression=uncompressed,force-compression=true");
    assert_eq!([kind(&found[0]), kind(&found[1])], ["tar", "tar"]);
}

#[test]
fn a_push_says_as_much_as_the_build() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let (bench, registry) = (Bench::new(), DockerRegistry::new());
    // Flags of progress, and what each line of standard error begins with; the last is the one of a push.
    for (number, (flag, begin)) in [
        ("--progress=plain", None),
        ("--progress=none", Some("?")),
        ("-q", Some("?")),
        ("--progress=rawjson", Some("{")),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("{}/said{number}:v1", registry.host());
        let said = bench.build(&[flag, "-t", &name, "--push", "--metadata-file", "@meta.json"]).stderr;
        match begin {
            None => assert!(said.contains("The push refers to repository"), "{flag}: {said}"),
            Some(begin) => assert!(said.lines().all(|line| line.starts_with(begin)), "{flag}: {said}"),
        }
        let descriptor = json(&bench.path("meta.json"))["containerimage.descriptor"].clone();
        let digest = descriptor["digest"].as_str().unwrap_or_default();
        assert_eq!(manifest(&registry, &format!("said{number}"), digest)["schemaVersion"], 2);
        assert_eq!(descriptor["platform"]["os"], "linux", "{descriptor}");
    }
}

#[test]
fn nothing_but_the_registry_has_it_if_so_asked() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let (bench, registry) = (Bench::new(), DockerRegistry::new());
    let repository = format!("{}/only/digest", registry.host());
    let output = format!("type=image,name={repository},push=true,push-by-digest=true,store=false");
    bench.build(&["-o", &output, "--metadata-file", "@meta.json"]);
    assert_eq!(bench.images(), "base:latest\n");
    let digest = json(&bench.path("meta.json"))["containerimage.digest"].as_str().unwrap().to_owned();
    manifest(&registry, "only/digest", &digest);
    assert_eq!(json(&bench.path("meta.json"))["image.name"], *repository);
    assert_eq!(registry.http().manifest("only/digest", "latest").status, 404);
    // Several platforms: the tag leads to their index.
    bench.dockerfile("FROM scratch\nCOPY hello /\n");
    let name = format!("{}/two:v1", registry.host());
    let output = format!("type=registry,name={name},compression=zstd,store=false");
    bench.build(&["--platform", "linux/amd64,linux/arm64", "-o", &output]);
    let index = manifest(&registry, "two", "v1");
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2, "{index}");
}
