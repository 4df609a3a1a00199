//! The images that tests make are images to others, too: skopeo copies them and checks every digest and size.

use mica_testkit::images::{tar_of, this_platform};
use mica_testkit::{
    DockerRegistry, FakeRegistry, NEEDS_DOCKER_REGISTRY, Need, Peers, TestImage, TestIndex, TestLayer,
    missing,
};

fn check(peers: &Peers, host: &str, name: &str, digest: &str) {
    let source = format!("docker://{host}/{name}");
    let place = format!("dir:{}", peers.file("copied").display());
    let arguments = ["copy", "-q", "--all", "--insecure-policy", "--src-tls-verify=false", &source, &place];
    peers.ok("skopeo", &arguments);
    let manifest = std::fs::read(peers.file("copied/manifest.json")).expect("a manifest");
    assert_eq!(mica_testkit::images::digest(&manifest), digest, "{name}");
}

#[test]
fn skopeo_takes_what_we_make() {
    if let Some(reason) = missing(&[Need::Tool("skopeo"), NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let tar = tar_of(&[("a", b"one"), ("b", b"two")]);
    let layers = || vec![TestLayer::gzip(&tar), TestLayer::zstd(&tar), TestLayer::plain(&tar)];
    let single = TestImage::oci(&this_platform(), layers());
    let docker = TestImage::docker("linux/arm/v7", vec![TestLayer::gzip(&tar)]);
    let oci_index = TestIndex::oci(vec![single.clone(), TestImage::oci("linux/arm64/v8", layers())]);
    let docker_index =
        TestIndex::docker(vec![docker.clone(), TestImage::windows(vec![TestLayer::gzip(&tar)])]);
    let artifact = TestImage::artifact("application/x.test", b"anything");

    let real = DockerRegistry::new();
    let fake = FakeRegistry::new();
    let peers = Peers::new();
    for host in [real.host(), fake.host()] {
        macro_rules! put {
            ($what:expr, $tag:literal) => {
                if host == real.host() {
                    $what.put(real.http(), "test", $tag);
                } else {
                    $what.put(&fake, "test", $tag);
                }
                check(&peers, &host, concat!("test:", $tag), &$what.digest());
            };
        }
        put!(single, "oci");
        put!(docker, "docker");
        put!(oci_index, "oci-index");
        put!(docker_index, "docker-index");
        put!(artifact, "artifact");
    }
}
