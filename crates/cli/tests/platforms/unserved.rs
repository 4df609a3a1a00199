//! Platforms that nobody serves, systems that do not run here, and words that name no platform.

use mica_testkit::{FakeRegistry, Mica, TestImage, TestIndex, TestLayer, images::tar_of};
use serde_json::Value;

use crate::{BINARY, Project, shown};

fn layer(text: &str) -> TestLayer {
    TestLayer::gzip(&tar_of(&[("file", text.as_bytes())]))
}

/// The exact error of a build.
#[track_caller]
fn check(mica: &Mica, dockerfile: &str, flags: &[&str], parts: &[&str]) {
    let outcome = Project::new(dockerfile).build(mica, flags);
    assert_eq!(outcome.code, 1, "{dockerfile}: {outcome}");
    for part in parts {
        assert!(outcome.stderr.contains(part), "{dockerfile}: no `{part}`: {outcome}");
    }
}

#[test]
fn an_index_without_the_platform_says_what_it_has() {
    let (mica, registry) = (Mica::new(BINARY), FakeRegistry::new());
    let image = |platform: &str| TestImage::oci(platform, vec![layer(platform)]);
    TestIndex::oci(vec![image("linux/amd64"), image("linux/arm/v7")]).put(&registry, "test/two", "1");
    let name = format!("{}/test/two:1", registry.host());
    let dockerfile = format!("FROM scratch\nFROM {name}\nWORKDIR /w\n");
    let parts = ["linux/s390x", "linux/amd64", "linux/arm/v7", &format!(" 2 | FROM {name}\n   |      ^^^^")];
    check(&mica, &dockerfile, &["--platform=linux/s390x"], &parts);
    // Of several platforms, those that are absent are told, and nothing is made.
    check(&mica, &dockerfile, &["--platform=linux/amd64,linux/s390x", "-t", "x"], &parts);
    mica.fails(&["image", "inspect", "x"], 1);
    // Also from the store, when the registry does not answer any more.
    mica.ok(&["pull", &name]);
    drop(registry);
    check(&mica, &dockerfile, &["--platform=linux/s390x"], &["the local store has it for linux/amd64"]);
}

#[test]
fn words_that_name_no_platform() {
    let mica = Mica::new(BINARY);
    let from = |platform: &str| format!("FROM --platform={platform} scratch\nCOPY Dockerfile /\n");
    let under = " 1 | FROM --platform=";
    check(&mica, &from("linx/amd64"), &[], &["`linx/amd64`", "hint: did you mean `linux/amd64`?", under]);
    check(
        &mica,
        &from("amd46"),
        &[],
        &["unknown operating system", "hint: did you mean `linux/amd64`?", under],
    );
    check(&mica, &from("arm64/v8"), &[], &["hint: did you mean `linux/arm64/v8`?", under]);
    check(&mica, &from("$BUILDPLATFROM"), &[], &["is empty", "hint: did you mean `$BUILDPLATFORM`?", under]);
    check(&mica, &from("$WHERE"), &[], &["is empty", "hint: `WHERE` has no value here", under]);
    check(&mica, &from("linux/*"), &[], &["wildcards are not supported", under]);
    let plain = "FROM scratch\nCOPY Dockerfile /\n";
    for (given, parts) in [
        ("linux/amd46", &["`linux/amd46`", "hint: did you mean `linux/amd64`?"][..]),
        ("linux/amd64,amd46", &["unknown operating system or architecture: `amd46`", "hint: did you mean"]),
        ("linux/amd64,", &["invalid operating system ``"]),
    ] {
        check(&mica, plain, &["--platform", given], parts);
    }
    let error = mica.fails(&["pull", "--platform", "amd46", "box"], 1).stderr;
    assert!(error.contains("hint: did you mean `linux/amd64`?"), "{error}");
}

#[test]
fn an_image_of_windows_is_built_without_run() {
    let (mica, registry) = (Mica::new(BINARY), FakeRegistry::new());
    let base = TestImage::windows(vec![layer("windows")]);
    let version = serde_json::from_slice::<Value>(&base.config).expect("a config")["os.version"].clone();
    base.put(&registry, "test/windows", "1");
    let from = format!("FROM {}/test/windows:1\n", registry.host());
    let flags = ["--platform=windows/amd64", "-t", "x"];
    Project::new(&format!("{from}COPY Dockerfile /file\nENV A=1\nLABEL b=c\nCMD [\"a.exe\"]\n"))
        .ok(&mica, &flags);
    let template = "{{.Os}} {{.OsVersion}} {{.Architecture}} {{.Config.Env}} {{.Config.Cmd}}";
    let version = version.as_str().expect("a version");
    assert_eq!(shown(&mica, &["x"], template), format!("windows {version} amd64 [A=1] [a.exe]"));
    check(
        &mica,
        &format!("{from}RUN dir\n"),
        &flags,
        &["RUN for windows/amd64 is not supported", " 2 | RUN dir\n   | ^^^^^^^", "hint: COPY, ADD"],
    );
    // An index keeps the version of the system, which Windows chooses by.
    let said = Project::new(&from)
        .ok(&mica, &["--platform=windows/amd64", "--build-arg=BUILDKIT_MULTI_PLATFORM=1", "-q"]);
    let index = said.stdout.trim().trim_start_matches("sha256:").to_owned();
    let index = std::fs::read(mica.root().join("blobs/sha256").join(index)).expect("the index");
    let index: Value = serde_json::from_slice(&index).expect("an index");
    assert_eq!(index["manifests"][0]["platform"]["os.version"], version);
    mica.check_nothing_left();
}
