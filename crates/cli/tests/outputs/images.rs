//! `type=oci`, `type=docker` and `type=image`, and what goes into an image on its way.

use std::fs;

use mica_testkit::{Need, Peers, SavedImage, differences, missing};
use serde_json::Value;

use crate::{Bench, json};

/// What skopeo says of an image.
fn inspected(peers: &Peers, place: &str, what: &str) -> Value {
    let said = peers.ok("skopeo", &["inspect", what, place]).stdout;
    serde_json::from_str(&said).expect("JSON")
}

#[test]
fn other_tools_read_what_is_written() {
    if let Some(reason) = missing(&[Need::Tool("skopeo"), Need::Tool("umoci"), Need::Root]) {
        return println!("skipped: {reason}");
    }
    let (bench, peers) = (Bench::new(), Peers::new());
    bench.build(&["-t", "demo:1"]);
    let expect = SavedImage::of(&bench.mica, "demo:1");
    bench.build(&[
        "-t",
        "demo:2",
        "-o",
        "type=oci,dest=@oci.tar",
        "-o",
        "type=docker,dest=@docker.tar",
        "-o",
        "type=oci,tar=false,dest=@layout",
        "-o",
        "type=oci,tar=false,dest=@zstd,compression=zstd,compression-level=5",
        "-o",
        "type=oci,dest=@plain.tar,compression=uncompressed",
    ]);
    assert_eq!(bench.images(), "base:latest\ndemo:1\n", "no image of it is in the store");
    for place in [
        "oci-archive:@oci.tar:2",
        "docker-archive:@docker.tar",
        "oci:@layout:2",
        "oci:@zstd:2",
        "oci-archive:@plain.tar:2",
    ] {
        let place = place.replace('@', &format!("{}/", bench.dir.path().display()));
        let config = inspected(&peers, &place, "--config");
        assert_eq!(config, expect.config, "{place}");
        // All bytes are read and hashed, and unfolded by someone else.
        let copy = peers.file("copy").display().to_string();
        let _ = fs::remove_dir_all(&copy);
        peers.ok(
            "skopeo",
            &["copy", "--insecure-policy", "--dest-decompress", &place, &format!("dir:{copy}")],
        );
        for diff_id in expect.config["rootfs"]["diff_ids"].as_array().unwrap() {
            let hex = diff_id.as_str().unwrap().trim_start_matches("sha256:");
            let bytes = fs::read(peers.file("copy").join(hex))
                .unwrap_or_else(|error| panic!("{place}: {hex}: {error}"));
            assert_eq!(mica_testkit::sha256(&bytes), hex, "{place}");
        }
    }
    let found = SavedImage::read(&bench.path("docker.tar")).expect("an archive");
    assert_eq!(differences(&expect.tree, &found.tree, |_| false), Vec::<String>::new());
    let media_types = |place: &str| {
        let raw =
            inspected(&peers, &place.replace('@', &format!("{}/", bench.dir.path().display())), "--raw");
        let types = raw["layers"].as_array().unwrap().iter();
        types
            .map(|layer| layer["mediaType"].as_str().unwrap().rsplit('.').next().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(media_types("oci:@layout:2"), ["tar+gzip"; 3]);
    // What is not kept compressed is as it is asked for.
    assert_eq!(media_types("oci:@zstd:2"), ["tar+zstd"; 3]);
    assert_eq!(media_types("oci-archive:@plain.tar:2"), ["tar"; 3]);
    // umoci is strict about layouts.
    let (layout, bundle) = (bench.text("layout"), bench.text("bundle"));
    peers.ok("umoci", &["unpack", "--image", &format!("{layout}:2"), &bundle]);
    assert_eq!(fs::read(bench.path("bundle/rootfs/data/hello")).unwrap(), b"hello\n");
}

#[test]
fn podman_loads_and_mica_loads() {
    if let Some(reason) = missing(&[Need::Tool("podman"), Need::Root]) {
        return println!("skipped: {reason}");
    }
    let (bench, peers) = (Bench::new(), Peers::new());
    bench.build(&[
        "-t",
        "demo:2",
        "-o",
        "type=docker,dest=@docker.tar",
        "-o",
        "type=oci,dest=@oci.tar",
        "--iidfile",
        "@id",
    ]);
    let id = fs::read_to_string(bench.path("id")).unwrap();
    for name in ["docker.tar", "oci.tar"] {
        let said = peers.ok("podman", &["load", "-i", &bench.text(name)]).stdout;
        assert!(said.contains("demo:2"), "{name}: {said}");
        let found = peers.ok("podman", &["image", "inspect", "--format", "{{.Id}}", "demo:2"]).stdout;
        assert_eq!(format!("sha256:{}", found.trim()), id, "{name}");
        let said = bench.mica.ok(&["load", "-i", &bench.text(name)]).stdout;
        assert!(said.contains("demo:2"), "{name}: {said}");
        bench.mica.ok(&["rmi", "demo:2"]);
    }
}

#[test]
fn the_same_image_is_the_same_bytes() {
    let bench = Bench::new();
    for (name, kind) in [("oci", "oci"), ("docker", "docker"), ("zstd", "oci,compression=zstd")] {
        for turn in ["1", "2"] {
            bench.build(&["-t", "demo", "-o", &format!("type={kind},dest=@{name}{turn}")]);
        }
        let read = |turn: &str| fs::read(bench.path(&format!("{name}{turn}"))).unwrap();
        assert!(read("1") == read("2"), "{name}");
    }
}

#[test]
fn a_layout_takes_further_images() {
    let bench = Bench::new();
    let names = || {
        let index = json(&bench.path("layout/index.json"));
        let manifests = index["manifests"].as_array().unwrap().clone();
        let name =
            |of: &Value| of["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
        (manifests.iter().map(name).collect::<Vec<_>>(), manifests)
    };
    bench.build(&["-t", "demo:1", "-o", "type=oci,tar=false,dest=@layout"]);
    bench.write("hello", b"other\n");
    bench.build(&["-t", "demo:2", "-o", "type=oci,tar=false,dest=@layout"]);
    let (found, earlier) = names();
    assert_eq!(found, ["1", "2"]);
    bench.write("hello", b"third\n");
    bench.build(&["-t", "demo:1", "-o", "type=oci,tar=false,dest=@layout"]);
    let (found, later) = names();
    assert_eq!(found, ["2", "1"]);
    assert_eq!(later[0], earlier[1]);
    assert_ne!(later[1]["digest"], earlier[0]["digest"]);
    let said = bench.fails(&["-o", "type=oci,tar=false,dest=@context"]);
    assert!(said.contains("neither empty nor an OCI image layout"), "{said}");
}

#[test]
fn a_layout_takes_several_at_once() {
    let bench = Bench::new();
    bench.build(&["-t", "warm"]);
    let names: Vec<String> = (0..6).map(|number| format!("n{number}")).collect();
    let build = |name: &String| {
        let arguments =
            bench.arguments(&["-t", &format!("demo:{name}"), "-o", "type=oci,tar=false,dest=@layout"]);
        bench.mica.command(&arguments).stderr(std::process::Stdio::null()).spawn().expect("mica")
    };
    let children: Vec<_> = names.iter().map(build).collect();
    for mut child in children {
        assert!(child.wait().expect("mica").success());
    }
    let index = json(&bench.path("layout/index.json"));
    let name =
        |of: &Value| of["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap().to_owned();
    let mut found: Vec<_> = index["manifests"].as_array().unwrap().iter().map(name).collect();
    found.sort();
    assert_eq!(found, names);
}

#[test]
fn annotations_labels_and_metadata() {
    let bench = Bench::new();
    bench.build(&[
        "-t",
        "demo",
        "-o",
        "type=oci,tar=false,dest=@layout,annotation.org.Own=1",
        "--annotation",
        "a=b",
        "--annotation",
        "manifest-descriptor:c=d",
        "--label",
        "by=flag",
        "--metadata-file",
        "@meta.json",
        "--iidfile",
        "@id",
    ]);
    let index = json(&bench.path("layout/index.json"));
    let descriptor = &index["manifests"][0];
    assert_eq!(descriptor["annotations"]["c"], "d");
    assert_eq!(descriptor["platform"]["os"], "linux");
    let digest = descriptor["digest"].as_str().unwrap().to_owned();
    let blob = |digest: &str| json(&bench.path("layout/blobs").join(digest.replace(':', "/")));
    let manifest = blob(&digest);
    assert_eq!(manifest["annotations"], serde_json::json!({"a": "b", "org.Own": "1"}));
    let config_digest = manifest["config"]["digest"].as_str().unwrap();
    assert_eq!(blob(config_digest)["config"]["Labels"], serde_json::json!({"by": "flag", "made": "here"}));
    let metadata = json(&bench.path("meta.json"));
    assert_eq!(metadata["containerimage.config.digest"], config_digest);
    assert_eq!(metadata["containerimage.digest"], *digest);
    assert_eq!(metadata["containerimage.descriptor"]["annotations"]["c"], "d");
    assert_eq!(metadata["image.name"], "docker.io/library/demo:latest");
    assert_eq!(fs::read_to_string(bench.path("id")).unwrap(), config_digest);
    // Of the store's own image, and of files.
    bench.build(&["-t", "demo:s", "--metadata-file", "@meta.json", "-q"]);
    let metadata = json(&bench.path("meta.json"));
    assert_eq!(metadata["image.name"], "docker.io/library/demo:s");
    assert_eq!(metadata["containerimage.descriptor"]["platform"]["os"], "linux");
    bench.build(&["-o", "@out", "--metadata-file", "@meta.json"]);
    assert_eq!(json(&bench.path("meta.json")), serde_json::json!({}));
}

#[test]
fn one_layer_for_all_that_is_added() {
    let bench = Bench::new();
    bench.build(&["-t", "whole"]);
    bench.build(&["-t", "one", "--squash"]);
    let (whole, one) = (SavedImage::of(&bench.mica, "whole"), SavedImage::of(&bench.mica, "one"));
    assert_eq!(differences(&whole.tree, &one.tree, |_| false), Vec::<String>::new());
    assert_eq!(SavedImage::layers(&bench.mica, "one").len(), 2);
    let history = one.config["history"].as_array().unwrap();
    let comment = history.last().unwrap()["comment"].as_str().unwrap();
    assert!(comment.starts_with(&format!("merge {} to sha256:", whole.id)), "{comment}");
    let layers = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(layers, 2, "{history:?}");
    assert_eq!(one.config["config"], whole.config["config"]);
}

#[test]
fn one_layer_has_the_whiteouts_that_it_needs() {
    let base = match mica_testkit::bases::busybox() {
        Ok(base) => base,
        Err(reason) => return println!("skipped: {reason}"),
    };
    if let Some(reason) = missing(&[Need::Root]) {
        return println!("skipped: {reason}");
    }
    let bench = Bench::new();
    bench.mica.import(&base, "busybox");
    bench.dockerfile(
        "FROM busybox\nRUN mkdir -p /d && echo a > /d/a && rm -rf /etc/group /tmp\nRUN rm /d/a && echo b > /d/b && ln /d/b /d/c\n\
         RUN rm -rf /usr && mkdir -p /usr/new && rm /d/b\nCMD [\"x\"]\n",
    );
    bench.build(&["-t", "whole"]);
    bench.build(&["-t", "one", "--squash", "-o", "type=docker,dest=@one.tar"]);
    let whole = SavedImage::of(&bench.mica, "whole");
    let one = SavedImage::read(&bench.path("one.tar")).unwrap();
    assert_eq!(differences(&whole.tree, &one.tree, |_| false), Vec::<String>::new());
    assert!(!one.tree.contains_key("etc/group") && one.tree.contains_key("usr/new"));
    // The same again.
    bench.build(&["-t", "one", "--squash"]);
    assert_eq!(SavedImage::of(&bench.mica, "one").id, one.id);
    assert_eq!(SavedImage::layers(&bench.mica, "one").len(), 2);
}

#[test]
fn times_are_rewritten_above_the_base() {
    let bench = Bench::new();
    let run = |flags: &[&str]| {
        let mut command = bench.mica.command(&bench.arguments(flags));
        let output = command.env("SOURCE_DATE_EPOCH", "1000000000").output().expect("mica");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    run(&["-t", "demo", "-o", "type=docker,dest=@archive.tar,rewrite-timestamp=true"]);
    run(&["-t", "demo", "-o", "type=image,rewrite-timestamp=true"]);
    let image = SavedImage::read(&bench.path("archive.tar")).unwrap();
    assert_eq!(image.config["created"], "2001-09-09T01:46:40Z");
    assert_eq!(SavedImage::of(&bench.mica, "demo").id, image.id);
    let layers = SavedImage::layers(&bench.mica, "demo");
    let dir = mica_testkit::Mica::temporary_dir();
    let file = dir.path().join("saved.tar");
    bench.mica.ok(&["save", "-o", &file.to_string_lossy(), "demo"]);
    let mut times = std::collections::BTreeMap::new();
    mica_testkit::tar::read(fs::File::open(&file).unwrap(), |entry, content| {
        if layers.contains(&entry.path) {
            let is_base = entry.path == layers[0];
            mica_testkit::tar::read(content, |entry, _| {
                times.insert((is_base, entry.path.trim_matches('/').to_owned()), entry.mtime);
                Ok(())
            })?;
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(times[&(true, "bin/tool".to_owned())], 1_500_000_000, "the base stays");
    let added: Vec<_> = times.iter().filter(|((is_base, _), _)| !is_base).collect();
    assert!(!added.is_empty() && added.iter().all(|(_, time)| **time <= 1_000_000_000), "{added:?}");
}

#[test]
fn the_store_takes_images_in_other_forms() {
    let bench = Bench::new();
    bench.build(&["-t", "plain"]);
    let expect = SavedImage::of(&bench.mica, "plain");
    for keys in
        ["compression=zstd", "oci-mediatypes=false", "annotation.a=b", "compression=gzip,compression-level=9"]
    {
        bench.build(&["-o", &format!("type=image,name=other:1,{keys}")]);
        let found = SavedImage::of(&bench.mica, "other:1");
        assert_eq!(found.id, expect.id, "{keys}");
        assert_eq!(differences(&expect.tree, &found.tree, |_| false), Vec::<String>::new(), "{keys}");
    }
    bench.build(&["-t", "names:1", "-o", "type=image,name=names:2,name-canonical=true"]);
    let names = bench.images();
    assert!(names.contains("names:1") && names.contains("names:2"), "{names}");
    let digests =
        |name: &str| bench.mica.ok(&["image", "inspect", "--format", "{{json .RepoDigests}}", name]).stdout;
    assert!(digests("names:1").contains("names@sha256:"), "{}", digests("names:1"));
    bench.mica.ok(&["why", "names:1"]);
    bench.dockerfile("FROM base\nLABEL other=one\n");
    bench.build(&["-o", "type=image,dangling-name-prefix=dangling", "--iidfile", "@id"]);
    let id = fs::read_to_string(bench.path("id")).unwrap();
    assert!(digests(&id).contains("dangling@sha256:"), "{}", digests(&id));
    // Beside another output, `--load` keeps it as well; on its own that is what there is.
    bench.build(&["-t", "loaded", "--load", "-o", "type=tar,dest=@x.tar"]);
    assert!(bench.images().contains("loaded:latest"));
    bench.build(&["-o", "type=docker,name=docker:1"]);
    assert!(bench.images().contains("docker:1"));
    bench.build(&["-o", "type=image,name=not:1,store=false"]);
    assert!(!bench.images().contains("not:1"));
}

#[test]
fn several_platforms_stand_side_by_side() {
    let bench = Bench::new();
    bench.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY hello /$TARGETARCH\n");
    let two = ["--platform", "linux/amd64,linux/arm64"];
    let build = |flags: &[&str]| bench.build(&[&two[..], flags].concat());
    build(&[
        "-t",
        "demo",
        "-o",
        "@out",
        "-o",
        "type=tar,dest=@files.tar",
        "-o",
        "type=oci,tar=false,dest=@layout",
        "--annotation",
        "index:a=b",
    ]);
    assert_eq!(crate::names(&bench.path("out")), ["linux_amd64", "linux_arm64"]);
    assert!(bench.path("out/linux_arm64/arm64").exists());
    build(&["-o", "type=local,dest=@flat,platform-split=false"]);
    assert_eq!(crate::names(&bench.path("flat")), ["amd64", "arm64"]);
    let root =
        json(&bench.path("layout/index.json"))["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
    let index = json(&bench.path("layout/blobs").join(root));
    assert_eq!(index["annotations"]["a"], "b");
    let platforms: Vec<_> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|of| of["platform"]["architecture"].clone())
        .collect();
    assert_eq!(platforms, ["amd64", "arm64"]);
    let said = bench
        .mica
        .fails(&bench.arguments(&[&two[..], &["-o", "type=docker,dest=@d.tar"]].concat()), 1)
        .stderr;
    assert!(said.contains("docker exporter does not currently support exporting manifest lists"), "{said}");
    assert!(!bench.path("d.tar").exists());
    build(&["-o", "type=image,name=two:1,compression=zstd"]);
    assert!(bench.images().contains("two:1"));
}
