//! `copy`, `manifest` and `tags`, as people use them.

use std::fs;
use std::process::Stdio;
use std::time::{Duration, Instant};

use mica_testkit::images::{TestImage, TestIndex, TestLayer, digest, tar_of};
use mica_testkit::{
    DockerRegistry, DockerRegistryOptions, FakeRegistry, Mica, NEEDS_DOCKER_REGISTRY, Need, Peers, Random,
    missing,
};
use serde_json::{Value, json};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

fn layer(name: &str) -> TestLayer {
    TestLayer::gzip(&tar_of(&[(name, name.as_bytes())]))
}

fn oci(platform: &str) -> TestImage {
    TestImage::oci(platform, vec![layer("shared"), layer(platform)])
}

fn docker(platform: &str) -> TestImage {
    TestImage::docker(platform, vec![layer("shared"), layer(platform)])
}

/// A line of stderr for each blob, in any order.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn copy_says_what_it_does_and_prints_the_digest() {
    let (registry, mica) = (FakeRegistry::new(), Mica::new(BINARY));
    let image = oci("linux/amd64");
    image.put(&registry, "app", "1");
    let dir = Mica::temporary_dir();
    let layout = format!("oci:{}/layout:1", dir.path().display());
    let from = format!("docker://{}/app:1", registry.host());
    let copied = mica.ok(&["copy", &from, &layout]);
    assert_eq!(copied.stdout, format!("{}\n", image.digest()));
    let short = |digest: String| digest["sha256:".len()..][..12].to_owned();
    let blobs = [image.id(), image.layers[0].digest(), image.layers[1].digest()].map(short);
    let mut expect: Vec<String> = blobs.iter().map(|blob| format!("Copying blob {blob} done")).collect();
    expect.push("Writing manifest to destination".to_owned());
    expect.sort();
    assert_eq!(sorted(&copied.stderr), expect);
    let again = mica.ok(&["copy", &from, &layout]);
    assert_eq!(again.stderr.matches("skipped: already exists").count(), 3, "{}", again.stderr);
    let quiet = mica.ok(&["copy", "-q", "--platform", "linux/amd64", &from, &layout]);
    assert_eq!((quiet.stdout, quiet.stderr.as_str()), (copied.stdout, ""));

    // A bare path is told by what lies there.
    let bare = format!("{}/layout", dir.path().display());
    let archive = format!("docker-archive:{}/app.tar:app:1", dir.path().display());
    assert_eq!(mica.ok(&["copy", "-q", &bare, &archive]).stdout, again.stdout);

    let check = |arguments: &[&str], expect: &str| {
        let failed = mica.fails(&[&["copy"], arguments].concat(), 1);
        assert!(failed.stderr.contains(expect), "{}\nlacks: {expect}", failed.stderr);
        assert_eq!(failed.stdout, "");
    };
    check(&["dir:/x", &layout], "error: `dir:` is not a kind of place that mica knows");
    check(&["dir:/x", &layout], "hint: places are `docker://NAME` or `NAME`, `oci:DIR[:TAG]`");
    check(&["/nowhere", &layout], "hint: say it before the path: `oci:/nowhere`");
    check(&[&from, "--platform", "linux/s390x", &layout], "hint: leave `--platform` out");
    let missing = format!("{}/app:none", registry.host());
    check(&[&missing, &layout], &format!("manifest for {missing} not found"));
    check(&[&format!("oci:{}/layout:2", dir.path().display()), &from], "hint: write it after a colon");
    // The store was not touched, and nothing of it was made.
    assert!(!mica.root().exists());
}

#[test]
fn root_what_is_copied_into_an_archive_is_loaded() {
    if let Some(reason) = missing(&[Need::Root]) {
        println!("skipped: {reason}");
        return;
    }
    let (registry, mica) = (FakeRegistry::new(), Mica::new(BINARY));
    let index = TestIndex::oci(vec![oci("linux/amd64"), oci("linux/arm64")]);
    index.put(&registry, "app", "1");
    let dir = Mica::temporary_dir();
    let file = format!("{}/app.tar", dir.path().display());
    let from = format!("{}/app:1", registry.host());
    mica.ok(&["copy", &from, &format!("docker-archive:{file}:a.b/app:1"), "--platform", "linux/amd64"]);
    assert_eq!(mica.ok(&["load", "-i", &file]).stdout, "Loaded image: a.b/app:1\n");
    let id = mica.ok(&["image", "inspect", "-f", "{{.Id}}", "a.b/app:1"]).stdout;
    assert_eq!(id.trim(), index.images[0].id());
    // What only the store has cannot be in a list.
    let local = format!("{}/local:1", registry.host());
    mica.ok(&["tag", "a.b/app:1", &local]);
    let failed = mica.fails(&["manifest", "create", "a.b/list", &local], 1);
    let expect = format!(
        "error: `{local}` is in the store, but its registry does not have it\nhint: push it first: `mica push"
    );
    assert!(failed.stderr.starts_with(&expect), "{}", failed.stderr);
    // And what mica saves is copied, layers uncompressed as they are.
    mica.ok(&["save", "-o", &file, "a.b/app:1"]);
    let to = format!("{}/saved:1", registry.host());
    let copied = mica.ok(&["copy", "-q", &file, &to]).stdout;
    let (_, manifest) = registry.manifest("saved", "1").expect("a manifest");
    assert_eq!(digest(&manifest), copied.trim());
}

#[test]
fn tags_are_listed() {
    let (registry, mica) = (FakeRegistry::new(), Mica::new(BINARY));
    let image = oci("linux/amd64");
    for tag in ["1.0", "latest", "1.1"] {
        image.put(&registry, "team/app", tag);
    }
    let name = format!("{}/team/app", registry.host());
    let listed = mica.ok(&["tags", &name]).stdout;
    assert_eq!(sorted(&listed), ["1.0", "1.1", "latest"]);
    let rows = mica.ok(&["tags", "--format", "json", &name]).stdout;
    let first: Value = serde_json::from_str(rows.lines().next().unwrap()).unwrap();
    assert_eq!(first, json!({ "Repository": name, "Tag": listed.lines().next().unwrap() }));
    assert_eq!(mica.ok(&["tags", "--format", "{{.Tag}}", &name]).stdout, listed);
    let failed = mica.fails(&["tags", &format!("{name}:1.0")], 1);
    assert!(
        failed.stderr.contains("is not a repository") && failed.stderr.contains("hint"),
        "{}",
        failed.stderr
    );
    let failed = mica.fails(&["tags", &format!("{}/none", registry.host())], 1);
    assert!(failed.stderr.contains("not found"), "{}", failed.stderr);
    assert!(!mica.root().exists());
}

#[test]
fn tags_are_deleted_where_the_registry_lets_us() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        println!("skipped: {reason}");
        return;
    }
    let mica = Mica::new(BINARY);
    let registry = DockerRegistry::start(DockerRegistryOptions { delete: true, ..Default::default() });
    oci("linux/amd64").put(registry.http(), "app", "1");
    oci("linux/arm64").put(registry.http(), "app", "2");
    let name = format!("{}/app", registry.host());
    let failed = mica.fails(&["tags", "--delete", &name], 1);
    assert!(failed.stderr.contains("has neither tag nor digest"), "{}", failed.stderr);
    let deleted = mica.ok(&["tags", "--delete", &format!("{name}:1")]).stdout;
    assert_eq!(deleted, format!("Deleted: {name}:1\n"));
    assert_eq!(mica.ok(&["tags", &name]).stdout, "2\n");
    mica.fails(&["pull", &format!("{name}:1")], 1);
    mica.fails(&["tags", "--delete", &format!("{name}:1")], 1);

    let locked = DockerRegistry::new();
    oci("linux/amd64").put(locked.http(), "app", "1");
    let failed = mica.fails(&["tags", "--delete", &format!("{}/app:1", locked.host())], 1);
    assert!(failed.stderr.contains("delet") && failed.stderr.contains("hint"), "{}", failed.stderr);
}

#[test]
fn a_manifest_list_is_made_annotated_shown_and_pushed() {
    let (registry, mica) = (FakeRegistry::new(), Mica::new(BINARY));
    let host = registry.host();
    let (amd64, arm) = (docker("linux/amd64"), docker("linux/arm"));
    amd64.put(&registry, "app", "amd64");
    arm.put(&registry, "other", "arm");
    let list = format!("{host}/app:1.0");
    let members = [format!("{host}/app:amd64"), format!("{host}/other:arm")];
    let [first, second] = &members;

    let failed = mica.fails(&["manifest", "inspect", &list], 1);
    assert!(failed.stderr.contains("not found"), "{}", failed.stderr);
    let created = mica.ok(&["manifest", "create", &list, first]);
    assert_eq!(created.stdout, format!("Created manifest list {list}\n"));
    let failed = mica.fails(&["manifest", "create", &list, second], 1);
    assert!(failed.stderr.contains("refusing to amend an existing manifest list with no --amend flag"));
    mica.ok(&["manifest", "create", "--amend", &list, first, second]);
    mica.ok(&[
        "manifest",
        "annotate",
        "--variant",
        "v7",
        "--os-version",
        "1.2",
        "--os-features",
        "a,b",
        &list,
        second,
    ]);

    let descriptor = |image: &TestImage, platform: Value| {
        json!({
            "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
            "digest": image.digest(),
            "size": image.manifest.len(),
            "platform": platform,
        })
    };
    let expect = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
        "manifests": [
            descriptor(&amd64, json!({ "architecture": "amd64", "os": "linux" })),
            descriptor(&arm, json!({
                "architecture": "arm", "os": "linux", "os.version": "1.2", "os.features": ["a", "b"], "variant": "v7",
            })),
        ],
    });
    let shown = mica.ok(&["manifest", "inspect", &list]).stdout;
    assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), expect);
    assert!(shown.starts_with("{\n   \"schemaVersion\": 2,\n"), "{shown}");
    let verbose = mica.ok(&["manifest", "inspect", "-v", &list, second]).stdout;
    let verbose: Value = serde_json::from_str(&verbose).unwrap();
    assert_eq!(verbose["Ref"], second.as_str());
    assert_eq!(verbose["Descriptor"]["platform"]["variant"], "v7");
    assert_eq!(verbose["SchemaV2Manifest"]["layers"].as_array().unwrap().len(), 2);

    let pushed = mica.ok(&["manifest", "push", "--purge", &list]).stdout;
    let (media_type, bytes) = registry.manifest("app", "1.0").expect("the list");
    assert_eq!(media_type, "application/vnd.docker.distribution.manifest.list.v2+json");
    assert_eq!(
        shown,
        format!("{}\n", String::from_utf8(bytes.clone()).unwrap()),
        "what was shown is what was pushed"
    );
    let arm_digest = arm.digest();
    assert_eq!(
        pushed,
        format!("Pushed ref {host}/app@{arm_digest} with digest: {arm_digest}\n{}\n", digest(&bytes))
    );
    assert_eq!(registry.blob("app", &arm.layers[1].digest()).as_deref(), Some(arm.layers[1].blob.as_slice()));
    assert_eq!(registry.count("PATCH", "/app/"), 0, "blobs of one registry are mounted");

    // The list is gone here, and there in the registry.
    let failed = mica.fails(&["manifest", "push", &list], 1);
    assert!(failed.stderr.contains(&format!("No such manifest: {list}")), "{}", failed.stderr);
    assert_eq!(mica.ok(&["manifest", "inspect", &list]).stdout, shown);
    let verbose = mica.ok(&["manifest", "inspect", "-v", &list]).stdout;
    let verbose: Vec<Value> = serde_json::from_str(&verbose).unwrap();
    assert_eq!(verbose[1]["Ref"], format!("{list}@{arm_digest}"));
    let single = mica.ok(&["manifest", "inspect", first]).stdout;
    assert!(single.starts_with("{\n\t\"schemaVersion\": 2,\n"), "{single}");
    let failed = mica.fails(&["manifest", "rm", &list, "other"], 1);
    assert_eq!(failed.stderr.matches("No such manifest").count(), 2, "{}", failed.stderr);
}

#[test]
fn members_come_from_other_registries_and_from_indexes() {
    let (one, two, mica) = (FakeRegistry::new(), FakeRegistry::new(), Mica::new(BINARY));
    let index = TestIndex::oci(vec![oci("linux/amd64"), oci("linux/arm64")]);
    let arm = docker("linux/arm");
    index.put(&one, "app", "both");
    arm.put(&one, "app", "arm");
    let list = format!("{}/made:1", two.host());
    let members = ["both", "arm"].map(|tag| format!("{}/app:{tag}", one.host()));
    mica.ok(&["manifest", "create", &list, &members[0], &members[1]]);
    let pushed = mica.ok(&["manifest", "push", &list]).stdout;
    assert_eq!(pushed.matches("Pushed ref ").count(), 3, "{pushed}");
    let (media_type, bytes) = two.manifest("made", "1").expect("the list");
    assert_eq!(media_type, "application/vnd.oci.image.index.v1+json", "one member is OCI's");
    let made: Value = serde_json::from_slice(&bytes).unwrap();
    let digests: Vec<&str> =
        made["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].as_str().unwrap()).collect();
    assert_eq!(digests, [index.images[0].digest(), index.images[1].digest(), arm.digest()]);
    assert_eq!(two.blob("made", &arm.id()).as_deref(), Some(arm.config.as_slice()));
    mica.ok(&["manifest", "rm", &list]);
    mica.fails(&["manifest", "rm", &list], 1);
}

#[test]
fn skopeo_and_docker_registry_take_a_list() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Tool("skopeo")]) {
        println!("skipped: {reason}");
        return;
    }
    let (registry, mica, peers) = (DockerRegistry::new(), Mica::new(BINARY), Peers::new());
    let host = registry.host();
    for (tag, image) in [("amd64", oci("linux/amd64")), ("arm64", oci("linux/arm64"))] {
        image.put(registry.http(), &format!("part/{tag}"), tag);
    }
    let list = format!("{host}/whole:1");
    let parts = ["amd64", "arm64"].map(|tag| format!("{host}/part/{tag}:{tag}"));
    mica.ok(&["manifest", "create", &list, &parts[0], &parts[1]]);
    let pushed = mica.ok(&["manifest", "push", &list]).stdout;
    let raw =
        peers.ok("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{list}")]).stdout;
    assert_eq!(pushed.lines().last(), Some(digest(raw.as_bytes()).as_str()));
    let to = peers.file("layout");
    let to = format!("oci:{}:x", to.display());
    let from = format!("docker://{list}");
    peers.ok("skopeo", &["copy", "-q", "--all", "--insecure-policy", "--src-tls-verify=false", &from, &to]);
    assert_eq!(sorted(&mica.ok(&["tags", &format!("{host}/whole")]).stdout), ["1"]);
}

#[test]
fn manifest_says_and_pushes_what_docker_does() {
    // docker's client needs no daemon for these.
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Tool("docker")]) {
        println!("skipped: {reason}");
        return;
    }
    let (registry, mica, peers) = (DockerRegistry::new(), Mica::new(BINARY), Peers::new());
    let host = registry.host();
    docker("linux/amd64").put(registry.http(), "part/a", "1");
    docker("linux/arm").put(registry.http(), "part/b", "1");
    oci("linux/arm64").put(registry.http(), "part/c", "1");
    let settings = peers.file("docker-config").display().to_string();
    let check = |line: &str| {
        let words: Vec<String> = line.split(' ').map(|word| word.replace("HOST", &host)).collect();
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let theirs = peers.run("docker", &[&["--config", &settings, "manifest"], &words[..]].concat());
        let ours = mica.run(&[&["manifest"], &words[..]].concat());
        assert_eq!(
            (ours.code, ours.stdout),
            (theirs.code, theirs.stdout),
            "{line}: {} {}",
            ours.stderr,
            theirs.stderr
        );
    };
    for line in [
        "inspect --insecure HOST/part/a:1",
        "inspect --insecure -v HOST/part/a:1",
        "inspect --insecure -v HOST/part/c:1",
        "inspect --insecure HOST/part/none:1",
        "create --insecure HOST/whole:1 HOST/part/a:1",
        "create --insecure HOST/whole:1 HOST/part/b:1",
        "create --insecure --amend HOST/whole:1 HOST/part/b:1",
        "inspect HOST/whole:1",
        "inspect -v HOST/whole:1",
        "annotate --arch arm --variant v7 --os-version 1 --os-features x,y HOST/whole:1 HOST/part/b:1",
        "annotate --os toaster HOST/whole:1 HOST/part/b:1",
        "annotate HOST/whole:1 HOST/part/c:1",
        "inspect HOST/whole:1 HOST/part/b:1",
        "inspect -v HOST/whole:1 HOST/part/b:1",
        "inspect HOST/whole:1",
        "push --insecure HOST/whole:1",
        "push --insecure --purge HOST/whole:1",
        "push --insecure HOST/whole:1",
        "inspect --insecure HOST/whole:1",
        "inspect --insecure -v HOST/whole:1",
        "rm HOST/whole:1 HOST/none",
    ] {
        check(line);
    }
}

/// Copies that are killed, and rounds until there are as many.
const CUT_WANTED: usize = 20;
const ROUNDS_MAX: usize = 400;

#[test]
fn a_killed_copy_leaves_a_whole_layout_or_none() {
    let (registry, mica) = (FakeRegistry::new(), Mica::new(BINARY));
    let image = TestImage::random(&[3 << 20, 2 << 20, 2 << 20, 1 << 20], 11);
    image.put(&registry, "app", "1");
    let dir = Mica::temporary_dir();
    let layout = dir.path().join("layout");
    let archive = dir.path().join("app.tar");
    let places = [format!("oci:{}:1", layout.display()), format!("oci-archive:{}:1", archive.display())];
    let from = format!("{}/app:1", registry.host());
    let begin = Instant::now();
    mica.ok(&["copy", "-q", &from, &places[1]]);
    let whole = fs::read(&archive).expect("an archive");
    // The shortest time that a whole copy has taken: most kills must come before it.
    let mut window = begin.elapsed();
    fs::remove_file(&archive).expect("removing");
    let mut random = Random::new(5);
    let mut cut = 0;
    for round in 0..ROUNDS_MAX {
        if cut == CUT_WANTED {
            break;
        }
        let begin = Instant::now();
        let mut copy = mica.command(&["copy", "-q", &from, &places[round % 2]]);
        let mut copy = copy.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a copy");
        // The kill comes at any moment; which one it is decides nothing that is asserted.
        let until = Duration::from_micros(random.next_u64() % window.as_micros().max(1) as u64);
        let is_over = loop {
            match copy.try_wait().expect("wait") {
                Some(_) => break true,
                None if begin.elapsed() >= until => break false,
                None => std::thread::sleep(Duration::from_micros(200)),
            }
        };
        copy.kill().expect("kill");
        copy.wait().expect("wait");
        match is_over {
            true => window = window.min(begin.elapsed()),
            false => cut += 1,
        }
        if let Ok(bytes) = fs::read(&archive) {
            assert!(bytes == whole, "round {round}: the archive has its name and is not whole");
            fs::remove_file(&archive).expect("removing");
        }
        if layout.join("index.json").exists() {
            let check =
                mica.ok(&["copy", "-q", &places[0], &format!("oci:{}/check{round}:1", dir.path().display())]);
            assert_eq!(check.stdout.trim(), image.digest());
            fs::remove_dir_all(&layout).expect("removing");
        }
    }
    assert_eq!(cut, CUT_WANTED, "too few copies were cut, so the test tells nothing");
    assert_eq!(mica.ok(&["copy", "-q", &from, &places[0]]).stdout.trim(), image.digest());
    let left: Vec<_> =
        fs::read_dir(&layout).expect("a layout").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 3, "what the killed left is gone: {left:?}");
}
