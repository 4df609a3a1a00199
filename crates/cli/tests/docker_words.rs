//! Command lines of scripts that were written for docker and buildx: `alias docker=mica`.

use mica_testkit::images::{TestImage, TestLayer, tar_of};
use mica_testkit::{FakeRegistry, Mica};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

#[test]
fn what_ci_scripts_begin_with_does_nothing_and_says_so() {
    let mica = Mica::new(BINARY);
    let check = |line: &str, stdout: &str, stderr: &str| {
        let outcome = mica.ok(&words(line));
        assert_eq!(outcome.stdout, stdout, "{line}");
        assert!(outcome.stderr.contains(stderr), "{line}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), usize::from(!stderr.is_empty()), "{line}");
    };
    let create =
        "buildx create --use --name ci --driver docker-container --driver-opt network=host --bootstrap";
    check(create, "ci\n", "nothing had to be made");
    check(
        "buildx create --platform linux/amd64,linux/arm64 --use=true",
        "default\n",
        "nothing had to be made",
    );
    check("builder create --buildkitd-flags --debug tcp://host:1234", "default\n", "nothing had to be made");
    check("buildx use ci", "", "`ci` is that one");
    check("buildx stop", "", "nothing runs");
    check("buildx rm -f ci", "", "nothing had to be removed");
    check("buildx version", concat!("mica ", env!("CARGO_PKG_VERSION"), "\n"), "");
    let listed = mica.ok(&["buildx", "ls"]).stdout;
    assert!(listed.starts_with("NAME/NODE") && listed.contains("\ndefault*"), "{listed}");
    let shown = mica.ok(&["buildx", "inspect", "--bootstrap", "ci"]).stdout;
    let host = if cfg!(target_arch = "aarch64") { "linux/arm64" } else { "linux/amd64" };
    assert!(shown.starts_with("Name:   ci\nDriver: mica\n"), "{shown}");
    assert!(shown.contains(&format!("\nPlatforms: {host}")), "{shown}");
    let failed = mica.fails(&["buildx", "bake", "-f", "docker-bake.hcl", "--push"], 1);
    assert!(failed.stderr.starts_with("error: `bake` is not supported\nhint: "), "{}", failed.stderr);
    // None of that needs a store.
    assert!(!mica.root().exists());
}

#[test]
fn flags_of_dockers_client_are_taken() {
    let mica = Mica::new(BINARY);
    let check = |line: &str, warning: &str| {
        let outcome = mica.ok(&words(line));
        assert!(outcome.stdout.contains(env!("CARGO_PKG_VERSION")), "{line}: {}", outcome.stdout);
        assert!(outcome.stderr.contains(warning), "{line}: {}", outcome.stderr);
        assert_eq!(outcome.stderr.lines().count(), usize::from(!warning.is_empty()), "{line}");
    };
    check("-D version", "");
    check("--debug=true --log-level debug version", "");
    check("-l warn --context default version", "");
    check(
        "-H unix:///var/run/docker.sock version",
        "warning: `--host unix:///var/run/docker.sock` is ignored",
    );
    check("--context=remote version", "warning: `--context remote` is ignored");
    check("buildx --builder ci -D version", "");
    mica.fails(&["--log-level", "loud", "version"], 2);
    let help = mica.ok(&["--help"]).stdout;
    assert!(!help.contains("--context") && !help.contains("--log-level"), "{help}");
}

#[test]
fn usage_errors_are_short_and_have_dockers_code() {
    let mica = Mica::new(BINARY);
    let check = |line: &str, code: i32, usage: &str| {
        let failed = mica.fails(&words(line), code);
        assert!(failed.stderr.starts_with("error: "), "{line}: {}", failed.stderr);
        assert!(failed.stderr.contains(&format!("\nUsage: {usage}\n")), "{line}: {}", failed.stderr);
    };
    check("build --nonsense .", 2, "mica build [OPTIONS] PATH | URL | -");
    check("-D run --nonsense image", 125, "mica run [OPTIONS] IMAGE [COMMAND] [ARG...]");
    check("create --nonsense image", 125, "mica create [OPTIONS] IMAGE [COMMAND] [ARG...]");
    check("buildx create --nonsense", 2, "mica buildx create [OPTIONS] [CONTEXT|ENDPOINT]");
    for line in [
        "build --quiet --explain .",
        "build --timings=x.html --verify=1 .",
        "copy -a --platform linux/arm64 oci:a oci:b",
    ] {
        let failed = mica.fails(&words(line), 2);
        assert!(failed.stderr.contains("cannot be used with"), "{line}: {}", failed.stderr);
    }
}

#[test]
fn imagetools_shows_and_joins_what_registries_have() {
    let (registry, mica) = (FakeRegistry::new(), Mica::new(BINARY));
    let image = |platform: &str| {
        let file = [(platform, platform.as_bytes())];
        TestImage::oci(platform, vec![TestLayer::gzip(&tar_of(&file))])
    };
    let (amd64, arm64) = (image("linux/amd64"), image("linux/arm64/v8"));
    amd64.put(&registry, "app", "amd64");
    arm64.put(&registry, "other", "arm64");
    let name = |repository: &str, tag: &str| format!("{}/{repository}:{tag}", registry.host());
    let (one, two, both) = (name("app", "amd64"), name("other", "arm64"), name("app", "both"));
    let tools = |rest: &[&str]| mica.ok(&[&["buildx", "imagetools"], rest].concat());

    let created = tools(&["create", "-t", &both, &one, &two]);
    assert_eq!(created.stdout, "");
    assert!(created.stderr.starts_with(&format!("Pushed {both}@sha256:")), "{}", created.stderr);
    let digest = tools(&["inspect", &both, "--format", "{{.Manifest.Digest}}"]).stdout;
    assert!(created.stderr.ends_with(&format!("@{digest}")), "{} {digest}", created.stderr);
    let text = tools(&["inspect", &both]).stdout;
    let head =
        format!("Name:      {both}\nMediaType: application/vnd.oci.image.index.v1+json\nDigest:    {digest}");
    assert!(text.starts_with(&head), "{text}");
    for (image, platform) in [(&amd64, "linux/amd64"), (&arm64, "linux/arm64/v8")] {
        let digest = image.digest();
        let block = format!(
            "  Name:      {both}@{digest}\n  MediaType: application/vnd.oci.image.manifest.v1+json\n  Platform:  {platform}\n"
        );
        assert!(text.contains(&block), "{text}\nlacks\n{block}");
    }
    let json = tools(&["inspect", &one, "--format", "{{json .Manifest}}"]).stdout;
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["digest"], *amd64.digest());
    let inspect = |name: &str, format: &str| tools(&["inspect", name, "--format", format]).stdout;
    assert_eq!(inspect(&one, "{{.Image.Architecture}}"), "amd64\n");
    assert_eq!(inspect(&both, r#"{{(index .Image "linux/arm64/v8").Os}}"#), "linux\n");
    let all: serde_json::Value = serde_json::from_str(&inspect(&both, "json")).expect("JSON");
    assert_eq!(all["manifest"]["manifests"].as_array().map(Vec::len), Some(2), "{all}");
    assert_eq!(all["image"]["linux/amd64"]["architecture"], "amd64", "{all}");
    let raw = tools(&["inspect", "--raw", &both]).stdout;
    assert_eq!(mica_testkit::images::digest(raw.as_bytes()), digest.trim());

    // An index alone goes under its new name as it is.
    let again = name("third", "copy");
    tools(&["create", "-t", &again, &both]);
    assert_eq!(tools(&["inspect", &again, "--format", "{{.Manifest.Digest}}"]).stdout, digest);
    // What is shown is what would be pushed.
    let dry = tools(&["create", "--dry-run", "-t", &name("app", "dry"), &one, &two]).stdout;
    assert_eq!(dry.trim_end(), raw.trim_end());
    mica.fails(&["buildx", "imagetools", "inspect", &name("app", "dry")], 1);
    let appended = name("app", "amd64");
    tools(&["create", "--append", "-t", &appended, &two]);
    assert_eq!(tools(&["inspect", &appended, "--format", "{{.Manifest.Digest}}"]).stdout, digest);
    let failed = mica.fails(&["buildx", "imagetools", "create", &one], 1);
    assert!(failed.stderr.contains("hint: say it with `--tag NAME`"), "{}", failed.stderr);
    // Nothing of it is kept here.
    assert!(!mica.root().exists());
}
