//! One build for several platforms: one graph, one index under one name, in the store and in registries.

use mica_testkit::images::tar_of;
use mica_testkit::{
    FakeRegistry, Mica, Need, SavedImage, TestImage, TestIndex, TestLayer, missing, run_bounded,
};
use serde_json::Value;

use crate::{BINARY, Project, mica_with_busybox, shown};

/// Files alone: no program of any platform runs.
const FILES: &str = "FROM scratch\nARG TARGETPLATFORM\nLABEL for=$TARGETPLATFORM\nCOPY f /f\nWORKDIR /w\n";

/// The file `for` is made on this machine, for each platform; `tools` is the same for all.
const CROSS: &str = "FROM --platform=$BUILDPLATFORM box AS tools\nRUN echo tool > /tool; echo made the tool\n\
    FROM tools AS cross\nARG TARGETARCH\nRUN echo $(cat /tool) $TARGETARCH > /for\n\
    FROM scratch\nCOPY --from=cross /for /for\n";

fn project(dockerfile: &str) -> Project {
    let project = Project::new(dockerfile);
    project.write("f", b"file\n");
    project
}

/// Each platform stands on its own image of one index, and the base's name goes on to mean this machine's.
#[test]
fn bases_are_fetched_for_each_platform() {
    let (mica, registry) = (Mica::new(BINARY), FakeRegistry::new());
    let platforms = ["linux/arm64", "linux/amd64", "linux/s390x", "linux/arm/v7"];
    let image = |platform: &&str| {
        let layer = TestLayer::gzip(&tar_of(&[("base", platform.as_bytes())]));
        TestImage::oci(platform, vec![layer])
    };
    let images: Vec<TestImage> = platforms.iter().map(image).collect();
    TestIndex::oci(images.clone()).put(&registry, "test/base", "1");
    let base = format!("{}/test/base:1", registry.host());
    let project = project(&format!("FROM {base}\nCOPY f /f\n"));
    project.ok(&mica, &["--platform", &platforms.join(","), "-t", "x"]);
    for (platform, image) in platforms.iter().zip(&images) {
        for name in [&base, "x"] {
            let layers = shown(&mica, &["--platform", platform, name], "{{json .RootFS.Layers}}");
            assert!(layers.starts_with(&format!("[\"{}\"", image.layers[0].diff_id)), "{platform}: {layers}");
        }
    }
    assert_eq!(shown(&mica, &[&base], "{{.Architecture}}"), "amd64");
    // A build for another machine alone does not change what the name means, either.
    let other = Mica::new(BINARY);
    other.ok(&["pull", &base]);
    project.ok(&other, &["--platform=linux/s390x"]);
    assert_eq!(shown(&other, &[&base], "{{.Architecture}}"), "amd64");
    let by_digest = shown(&other, &[&base], "{{index .RepoDigests 0}}");
    assert_eq!(shown(&other, &[&by_digest], "{{.Architecture}}"), "amd64");
    mica.check_nothing_left();
}

/// The digest that `-q` prints.
#[track_caller]
fn digest_of(said: &str) -> String {
    let digest = said.trim().to_owned();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{said:?}");
    digest
}

/// The blob of a store.
#[track_caller]
fn blob(mica: &Mica, digest: &str) -> Value {
    let path = mica.root().join("blobs/sha256").join(digest.trim_start_matches("sha256:"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).expect("a document")
}

/// The platforms of an index in order, as `os/architecture/variant`.
fn platforms(index: &Value) -> Vec<String> {
    assert_eq!(index["mediaType"], "application/vnd.oci.image.index.v1+json");
    let manifests = index["manifests"].as_array().expect("manifests");
    let parts = |platform: &Value| {
        let parts = ["os", "architecture", "variant"].iter().filter_map(|part| platform[part].as_str());
        parts.collect::<Vec<_>>().join("/")
    };
    manifests.iter().map(|manifest| parts(&manifest["platform"])).collect()
}

#[test]
fn several_platforms_make_one_index() {
    let mica = Mica::new(BINARY);
    let project = project(FILES);
    let iid = project.path().join("iid").to_string_lossy().into_owned();
    let flags = [
        "--platform",
        "linux/arm64,linux/amd64",
        "--platform",
        "linux/arm64/v8",
        "--platform=linux/arm/v7",
        "-q",
    ];
    let said = project.ok(&mica, &[&flags[..], &["-t", "x:1", "-t", "y:2", "--iidfile", &iid]].concat());
    let digest = digest_of(&said.stdout);
    assert_eq!(std::fs::read_to_string(&iid).expect("the ID"), digest);
    assert_eq!(platforms(&blob(&mica, &digest)), ["linux/arm64", "linux/amd64", "linux/arm/v7"]);

    // A name is one image to look at, and each platform's when it is asked for.
    let listed = mica.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["x:1", "y:2"]);
    for (platform, expect) in [
        ("linux/arm64", "arm64 linux/arm64"),
        ("linux/arm/v7", "arm linux/arm/v7"),
        ("amd64", "amd64 linux/amd64"),
    ] {
        for name in ["x:1", "y:2", &digest] {
            let found =
                shown(&mica, &["--platform", platform, name], "{{.Architecture}} {{.Config.Labels.for}}");
            assert_eq!(found, expect, "{name}");
        }
    }
    assert_eq!(shown(&mica, &["x:1"], "{{.Architecture}}"), "amd64");
    assert_eq!(shown(&mica, &["x:1"], "{{.Descriptor.digest}}"), digest);
    let error = mica.fails(&["image", "inspect", "--platform", "linux/s390x", "x:1"], 1).stderr;
    assert!(error.contains("linux/arm64") && error.contains("linux/s390x"), "{error}");

    // The same again is all there, and one platform more is another index.
    let again = project.ok(&mica, &[&flags[..], &["-t", "x:1"]].concat());
    assert_eq!(digest_of(&again.stdout), digest);
    let said = project.ok(&mica, &["--platform=linux/amd64,linux/s390x", "-t", "x:1", "-q"]);
    assert_ne!(digest_of(&said.stdout), digest);
    mica.fails(&["image", "inspect", "--platform", "linux/arm64", "x:1"], 1);
    mica.ok(&["image", "inspect", "--platform", "linux/arm64", "y:2"]);
    // One platform is one image again.
    let said = project.ok(&mica, &["-t", "x:1", "-q"]);
    assert_eq!(shown(&mica, &["x:1"], "{{.Id}}"), digest_of(&said.stdout));
    mica.fails(&["image", "inspect", "--platform", "linux/s390x", "x:1"], 1);
    mica.check_nothing_left();
}

#[test]
fn an_index_of_one_platform_is_made_where_it_is_asked_for() {
    let mica = Mica::new(BINARY);
    let project = project(FILES);
    for (value, is_index) in [("1", true), ("true", true), ("0", false), ("yes", false)] {
        let argument = format!("BUILDKIT_MULTI_PLATFORM={value}");
        let said = project.ok(&mica, &["--build-arg", &argument, "--platform", "linux/arm64", "-q"]);
        let document = blob(&mica, &digest_of(&said.stdout));
        assert_eq!(document["manifests"].is_array(), is_index, "{value}: {document}");
    }
    // The name leads to an index while it was built as one.
    for (flags, kind) in [(&["--build-arg=BUILDKIT_MULTI_PLATFORM=1"][..], "index"), (&[], "manifest")] {
        project.ok(&mica, &[&["--platform=linux/arm64", "-t", "one"], flags].concat());
        let media_type = shown(&mica, &["one"], "{{.Descriptor.mediaType}}");
        assert_eq!(media_type, format!("application/vnd.oci.image.{kind}.v1+json"));
    }
    // docker's variable stands for the flag.
    let with_default = |platform: &str, arguments: &[&str]| {
        let mut command = mica.command(arguments);
        command.env("DOCKER_DEFAULT_PLATFORM", platform);
        run_bounded(command, crate::DEADLINE)
    };
    let path = project.path().to_string_lossy();
    let said = with_default("linux/arm64,linux/386", &["build", "-q", "-t", "x", &path]);
    assert_eq!(platforms(&blob(&mica, &digest_of(&said.stdout))), ["linux/arm64", "linux/386"]);
    let said = with_default("linux/arm64", &["create", "x", "program"]);
    let image = mica.ok(&["inspect", "-f", "{{.Image}}", said.stdout.trim()]).stdout;
    assert_eq!(image.trim(), shown(&mica, &["--platform=linux/arm64", "x"], "{{.Id}}"), "{said}");
    assert_eq!(with_default("linux/s390x", &["create", "--pull=never", "x", "program"]).code, 1);
}

/// How often the step wrote its line; its name holds the same words.
fn runs_of_tool(said: &str) -> usize {
    said.lines().filter(|line| line.ends_with("made the tool") && !line.contains("RUN")).count()
}

#[test]
fn what_platforms_share_runs_once() {
    if let Some(reason) = missing(&[Need::Root]) {
        return println!("skipped: {reason}");
    }
    let mica = match mica_with_busybox() {
        Ok(mica) => mica,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let project = project(CROSS);
    let platforms = ["linux/amd64", "linux/arm64", "linux/riscv64"];
    let flag = platforms.join(",");
    let said = project.ok(&mica, &["--progress=plain", "--platform", &flag, "-t", "x"]).stderr;
    assert_eq!(runs_of_tool(&said), 1, "{said}");
    for line in [
        "[linux/amd64 internal] load metadata for docker.io/library/box:latest",
        "[linux/amd64 tools 2/2] RUN echo tool",
        "[linux/amd64 cross 1/1] RUN echo",
        "[linux/amd64->arm64 cross 1/1] RUN echo",
        "[linux/amd64->riscv64 cross 1/1] RUN echo",
        "[linux/riscv64 stage-2 1/1] COPY --from=cross",
        "exporting manifest list sha256:",
        "naming to docker.io/library/x:latest done",
    ] {
        assert!(said.contains(line), "no `{line}` in {said}");
    }
    for platform in platforms {
        let file = project.path().join("saved.tar");
        mica.ok(&["save", "--platform", platform, "-o", &file.to_string_lossy(), "x"]);
        let saved = SavedImage::read(&file).expect("an archive");
        let expect = format!("tool {}\n", platform.trim_start_matches("linux/"));
        assert_eq!(saved.tree["for"].sha256, mica_testkit::sha256(expect.as_bytes()), "{platform}");
        // Of each image the report of its own steps is kept, those that it shares among them.
        let id = shown(&mica, &["--platform", platform, "x"], "{{.Id}}");
        let why = mica.ok(&["why", &id]).stdout;
        assert!(why.contains("RUN echo tool"), "{why}");
        assert_eq!(why.contains("linux/amd64->arm64"), platform == "linux/arm64", "{why}");
    }
    let said = project.ok(&mica, &["--progress=plain", "--platform", &flag, "-t", "x"]).stderr;
    assert_eq!(runs_of_tool(&said), 0, "{said}");
    mica.check_nothing_left();
}

/// Every problem once, whatever the number of platforms.
#[test]
fn problems_are_told_once() {
    let mica = Mica::new(BINARY);
    let project = project("FROM scratch as base\nCOPY nothere /\nCOPY --from=nobody:1 /x /\nEXPOSE what\n");
    let flags = ["--platform", "linux/amd64,linux/arm64,linux/386"];
    let error = project.build(&mica, &flags);
    assert_eq!(error.code, 1, "{error}");
    assert_eq!(error.stderr.matches("EXPOSE what").count(), 1, "{error}");
    let project = self::project("FROM scratch as base\nCOPY f /\n");
    let said = project.ok(&mica, &flags).stderr;
    assert!(said.matches("FromAsCasing").count() <= 1, "{said}");
}

#[test]
fn an_index_is_tagged_and_removed_as_a_whole() {
    let mica = Mica::new(BINARY);
    let project = project(FILES);
    let digest = digest_of(&project.ok(&mica, &["--platform=linux/amd64,linux/arm64", "-q"]).stdout);
    assert_eq!(mica.ok(&["images", "-q"]).stdout.lines().count(), 2);
    mica.ok(&["tag", &digest, "x:1"]);
    mica.ok(&["tag", "x:1", "y:1"]);
    for name in ["x:1", "y:1"] {
        assert_eq!(shown(&mica, &["--platform=linux/arm64", name], "{{.Architecture}}"), "arm64");
    }
    let listed = mica.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"]).stdout;
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["x:1", "y:1"]);
    let arm = shown(&mica, &["--platform=linux/arm64", "x:1"], "{{.Id}}");
    mica.ok(&["rmi", "--platform", "linux/arm64", "x:1"]);
    mica.fails(&["image", "inspect", "--platform=linux/arm64", "x:1"], 1);
    assert_eq!(shown(&mica, &["--platform=linux/arm64", "y:1"], "{{.Id}}"), arm);
    mica.ok(&["rmi", "x:1"]);
    mica.ok(&["rmi", "y:1"]);
    assert_eq!(mica.ok(&["images", "-aq"]).stdout, "");
    mica.fails(&["image", "inspect", &digest], 1);
    // By its digest, without any name.
    let digest = digest_of(&project.ok(&mica, &["--platform=linux/amd64,linux/arm64", "-q"]).stdout);
    mica.ok(&["rmi", &digest]);
    assert_eq!(mica.ok(&["images", "-aq"]).stdout, "");
}

#[test]
fn an_index_is_pushed_with_all_its_manifests() {
    let mica = Mica::new(BINARY);
    let registry = FakeRegistry::new();
    let project = project(FILES);
    let name = format!("{}/test/several:1", registry.host());
    let flags = ["--platform=linux/arm64,linux/amd64", "-t", &name, "--push", "-q"];
    project.ok(&mica, &flags);
    let (media_type, bytes) = registry.manifest("test/several", "1").expect("the tag");
    assert_eq!(media_type, "application/vnd.oci.image.index.v1+json");
    let index: Value = serde_json::from_slice(&bytes).expect("an index");
    assert_eq!(platforms(&index), ["linux/arm64", "linux/amd64"]);
    for manifest in index["manifests"].as_array().expect("manifests") {
        let digest = manifest["digest"].as_str().expect("a digest");
        let (_, bytes) = registry.manifest("test/several", digest).expect("the manifest");
        assert_eq!(Some(bytes.len() as u64), manifest["size"].as_u64());
        let document: Value = serde_json::from_slice(&bytes).expect("a manifest");
        for part in document["layers"].as_array().expect("layers").iter().chain([&document["config"]]) {
            assert!(registry.blob("test/several", part["digest"].as_str().expect("a digest")).is_some());
        }
        for layer in document["layers"].as_array().expect("layers") {
            assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        }
    }
    let digest = format!("sha256:{}", mica_testkit::sha256(&bytes));
    let known = shown(&mica, &[&name], "{{.RepoDigests}}");
    assert!(known.contains(&digest), "{known}");

    // The same bytes the second time, also under another name, and after the index that was built is gone.
    let pushed = |name: &str| mica.ok(&["push", name]).stdout;
    assert!(pushed(&name).contains(&format!("digest: {digest} ")));
    let other = format!("{}/test/other:2", registry.host());
    mica.ok(&["tag", &name, &other]);
    assert!(pushed(&other).contains(&format!("digest: {digest} ")));
    mica.ok(&["system", "prune", "-f"]);
    assert!(pushed(&other).contains(&format!("digest: {digest} ")));

    // Whoever pulls it has both, one after the other.
    let puller = Mica::new(BINARY);
    for (platform, architecture) in [("linux/arm64", "arm64"), ("linux/amd64", "amd64")] {
        puller.ok(&["pull", "--platform", platform, &name]);
        assert_eq!(shown(&puller, &["--platform", platform, &name], "{{.Architecture}}"), architecture);
    }
    assert!(puller.ok(&["push", &name]).stdout.contains(&format!("digest: {digest} ")));

    if let Some(reason) = missing(&[Need::Tool("skopeo")]) {
        return println!("skipped: {reason}");
    }
    let mut skopeo = std::process::Command::new("skopeo");
    skopeo.args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]);
    let said = run_bounded(skopeo, crate::DEADLINE);
    assert_eq!(said.stdout.as_bytes(), bytes, "{said}");
}

#[test]
fn an_index_is_saved_and_loaded_as_a_whole() {
    let mica = Mica::new(BINARY);
    let project = project(FILES);
    let flags = ["--platform=linux/arm64,linux/amd64,linux/arm/v7", "-t", "x:1", "-t", "x:2", "-q"];
    let digest = digest_of(&project.ok(&mica, &flags).stdout);
    let file = project.path().join("saved.tar").to_string_lossy().into_owned();
    mica.ok(&["save", "-o", &file, "x"]);
    let other = Mica::new(BINARY);
    let said = other.ok(&["load", "-i", &file]).stdout;
    assert_eq!(said, "Loaded image: x:1\nLoaded image: x:2\n");
    let kept = |mica: &Mica, name: &str| {
        ["linux/arm64", "linux/amd64", "linux/arm/v7"]
            .map(|platform| shown(mica, &["--platform", platform, name], "{{.Id}} {{.RootFS.Layers}}"))
    };
    for name in ["x:1", "x:2", &digest] {
        assert_eq!(
            shown(&other, &[name], "{{.Descriptor.digest}} {{.Architecture}}"),
            format!("{digest} amd64")
        );
        assert_eq!(kept(&other, name), kept(&mica, "x:1"), "{name}");
    }
    // The same archive from the same images, on either side.
    let again = project.path().join("again.tar").to_string_lossy().into_owned();
    other.ok(&["save", "-o", &again, "x"]);
    assert!(std::fs::read(&file).ok() == std::fs::read(&again).ok());

    // One platform, of the archive or of the name.
    let one = Mica::new(BINARY);
    one.ok(&["load", "--platform=linux/arm64", "-i", &file]);
    assert_eq!(shown(&one, &["x:1"], "{{.Architecture}}"), "arm64");
    one.fails(&["image", "inspect", "--platform=linux/amd64", "x:1"], 1);
    mica.ok(&["save", "--platform=linux/arm/v7", "-o", &again, "x:1"]);
    let one = Mica::new(BINARY);
    one.ok(&["load", "-i", &again]);
    assert_eq!(shown(&one, &["x:1"], "{{.Architecture}}"), "arm");
    one.fails(&["image", "inspect", "--platform=linux/amd64", "x:1"], 1);

    // A name that lost one of its images is saved as the image that it leads to.
    mica.ok(&["rmi", "--platform=linux/arm64", "x:1"]);
    mica.ok(&["save", "-o", &again, "x:1"]);
    let one = Mica::new(BINARY);
    one.ok(&["load", "-i", &again]);
    assert_eq!(shown(&one, &["x:1"], "{{.Architecture}}"), "amd64");
    one.fails(&["image", "inspect", "--platform=linux/arm/v7", "x:1"], 1);

    if let Some(reason) = missing(&[Need::Tool("skopeo")]) {
        return println!("skipped: {reason}");
    }
    let raw = |place: &str| {
        let mut skopeo = std::process::Command::new("skopeo");
        skopeo.args(["inspect", "--raw", place]);
        run_bounded(skopeo, crate::DEADLINE)
    };
    let said = raw(&format!("oci-archive:{file}:1"));
    assert_eq!(format!("sha256:{}", mica_testkit::sha256(said.stdout.as_bytes())), digest, "{said}");
    let said = raw(&format!("docker-archive:{file}"));
    assert_eq!(said.code, 0, "{said}");
}

/// What was pulled with all its platforms goes on with them; with some of them, as the image of this machine.
#[test]
fn what_was_pulled_whole_is_saved_whole() {
    let (mica, registry) = (Mica::new(BINARY), FakeRegistry::new());
    let project = project(FILES);
    let name = format!("{}/test/several:1", registry.host());
    project.ok(&mica, &["--platform=linux/arm64,linux/amd64", "-t", &name, "--push", "-q"]);
    let (_, bytes) = registry.manifest("test/several", "1").expect("the tag");
    let digest = format!("sha256:{}", mica_testkit::sha256(&bytes));
    let puller = Mica::new(BINARY);
    let file = project.path().join("saved.tar").to_string_lossy().into_owned();
    let loaded = |expect: &str| {
        puller.ok(&["save", "-o", &file, &name]);
        let other = Mica::new(BINARY);
        other.ok(&["load", "-i", &file]);
        let platforms = ["linux/amd64", "linux/arm64"]
            .iter()
            .filter(|platform| other.run(&["image", "inspect", "--platform", platform, &name]).code == 0);
        assert_eq!(platforms.copied().collect::<Vec<_>>().join(" "), expect);
        shown(&other, &[&name], "{{.Descriptor.digest}}")
    };
    puller.ok(&["pull", &name]);
    loaded("linux/amd64");
    puller.ok(&["pull", "--platform=linux/arm64", &name]);
    assert_eq!(loaded("linux/amd64 linux/arm64"), digest);
}
