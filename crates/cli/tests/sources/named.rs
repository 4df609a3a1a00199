//! `--build-context`

use mica_testkit::{Need, Page, images, missing};

use crate::support::Bench;

#[test]
fn files_under_a_name() {
    let bench = Bench::new();
    bench.write("n/a", "1");
    bench.write("n/b", "1");
    bench.write("n/d/e", "1");
    bench.write("n/.dockerignore", "b\n.dockerignore\n");
    let from = |text: &str| format!("FROM scratch\n{text}\n").into_bytes();
    let named = ["--build-context", "N=n", "-"];
    let all = "f 644 a 1\nd 755 d\nf 644 d/e 1\n";
    assert_eq!(bench.tree(&named, &from("COPY --from=n / /")), all);
    assert_eq!(bench.tree(&named, &from("COPY --from=n d /x/")), "d 755 x\nf 644 x/e 1\n");
    // A stage may begin with it.
    assert_eq!(bench.tree(&named, b"FROM n\nCOPY --from=n a /z\n"), format!("{all}f 644 z 1\n"));
    assert_eq!(bench.tree(&named, b"FROM nowhere AS n\n"), all);
    // The image tells of each of its layers.
    let image = bench.image(&named, b"FROM n\nCOPY --from=n a /z\n");
    assert_eq!(image.config["history"].as_array().map(Vec::len), Some(2));
    assert_eq!(image.config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2));
    bench.write("n/a", "22");
    assert_eq!(bench.tree(&named, b"FROM n\n"), all.replace("a 1", "a 2"));
    let told = bench.fails(&named, &from("COPY --from=n b /"), "`b` is not in build context `N`");
    assert!(told.contains("-:2:") && told.contains("excluded by `.dockerignore`, line 1: `b`"), "{told}");
    bench.fails(
        &["--build-context", "n=absent", "-"],
        b"FROM n\n",
        "build context `n`: the directory does not exist",
    );
    bench.fails(&["--build-context", "n", "-"], b"FROM n\n", "it is not `NAME=VALUE`");
    bench.fails(&["--build-context", "n=-", "-"], b"FROM n\n", "only the build context itself");
}

#[test]
fn a_name_may_be_for_one_platform() {
    let bench = Bench::new();
    bench.write("n/a", "1");
    bench.write("m/a", "22");
    let arguments = ["--build-context", "n=n", "--build-context", "n::linux/s390x=m", "--platform"];
    let tree = |platform: &str| bench.tree(&[&arguments[..], &[platform, "-"]].concat(), b"FROM n\n");
    assert_eq!((tree("linux/amd64").as_str(), tree("linux/s390x").as_str()), ("f 644 a 1\n", "f 644 a 2\n"));
}

#[test]
fn what_is_mounted_in_a_run() {
    if let Some(reason) = missing(&[Need::Root, Need::Tool("busybox")]) {
        println!("skipped: {reason}");
        return;
    }
    let bench = Bench::new();
    let base = mica_testkit::bases::busybox().expect("busybox");
    bench.mica.import(&base, "box");
    bench.write("n/a", "hello");
    let dockerfile = b"FROM box\nRUN --mount=from=n,target=/n cp /n/a /copy\n";
    let image = bench.image(&["--build-context", "n=n", "-"], dockerfile);
    assert_eq!(image.tree["copy"].size, 5);
}

#[test]
fn the_web_and_git() {
    let bench = Bench::new();
    bench.web.put("/c.tar", Page::of(images::tar_of(&[("a", b"1")])));
    bench.web.put("/file", Page::of("22"));
    let named = |value: &str| format!("n={value}");
    let copy = b"FROM scratch\nCOPY --from=n / /\n";
    let tree = |value: &str| bench.tree(&["--build-context", &named(value), "-"], copy);
    assert_eq!(tree(&bench.web.url("/c.tar")), "f 644 a 1\n");
    assert_eq!(tree(&bench.web.url("/file")), "f 644 file 2\n");
    let absent = named(&bench.web.url("/absent"));
    bench.fails(&["--build-context", &absent, "-"], copy, "build context `n`: cannot fetch");
    if let Some(reason) = missing(&[Need::Tool("git")]) {
        println!("skipped: {reason}");
        return;
    }
    let repository = bench.repository("r");
    repository.write("d/g", "333").publish();
    assert_eq!(tree(&format!("{}#:d", repository.url())), "f 644 g 3\n");
}

#[test]
fn images_of_registries_and_layouts() {
    let bench = Bench::new();
    bench.write("tree/a", "1");
    bench.write("Dockerfile", "FROM scratch\nCOPY tree /\nENV X=1\n");
    bench.image(&["."], b"");
    bench.mica.ok(&["tag", "made", "other.example/base:v1"]);
    let tree = |value: &str| {
        bench.tree(&["--build-context", value, "-"], b"FROM busybox\nCOPY --from=busybox a /b\n")
    };
    let expect = "f 644 a 1\nf 644 b 1\n";
    assert_eq!(tree("busybox=docker-image://other.example/base:v1"), expect);
    // A layout that no name in the store leads to.
    bench.mica.ok(&["tag", "other.example/base:v1", "keep"]);
    let archive = bench.path("layout.tar");
    bench.mica.ok(&["save", "-o", &archive.to_string_lossy(), "other.example/base:v1"]);
    std::fs::create_dir(bench.path("layout")).unwrap();
    let untar = std::process::Command::new("tar")
        .args(["-xf", &archive.to_string_lossy(), "-C"])
        .arg(bench.path("layout"))
        .status();
    assert!(untar.expect("tar").success());
    bench.mica.ok(&["rmi", "-f", "made", "keep", "other.example/base:v1"]);
    assert_eq!(tree("busybox=oci-layout://layout"), expect);
    assert_eq!(tree("busybox=oci-layout://layout:v1"), expect);
    let image = bench.image(&["--build-context", "b=oci-layout://layout", "-"], b"FROM b\n");
    assert!(image.config["config"]["Env"].to_string().contains("X=1"), "{}", image.config);
    let names = bench.mica.ok(&["images", "--format", "{{.Repository}}"]).stdout;
    assert!(!names.contains("layout") && !names.contains("other.example"), "{names}");
    let told =
        bench.fails(&["--build-context", "b=oci-layout://layout:v9", "-"], b"FROM b\n", "has no image `v9`");
    assert!(told.contains("build context `b`"), "{told}");
    bench.fails(&["--build-context", "b=oci-layout://absent", "-"], b"FROM b\n", "the layout does not exist");
}
