//! docker-registry, skopeo and podman: what mica pushed is read by them and what they pushed is read by mica, digest for
//! digest.

use std::fs;
use std::path::Path;

use mica_testkit::images::{digest, tar_of, this_platform};
use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{
    Certificates, DockerRegistry, DockerRegistryOptions, FakeRegistry, Mica, NEEDS_DOCKER_REGISTRY, Need,
    PASSWORD, Peers, SavedImage, TestImage, TestIndex, TestLayer, USER, bases, differences, missing,
};

use crate::support::{BINARY, check_absent, check_error, check_image, check_pushed, image_id, ok, run};

/// Puts a login where docker keeps it.
fn log_in(mica: &Mica, host: &str) {
    let auth = base64(&format!("{USER}:{PASSWORD}"));
    let config = serde_json::json!({ "auths": { host: { "auth": auth } } });
    fs::write(mica.settings().join("docker/config.json"), config.to_string()).expect("a login");
}

/// Lets mica trust an authority, and show a client's certificate, as docker's `certs.d` has them.
fn trust(mica: &Mica, host: &str, certificates: &Certificates) {
    let dir = mica.settings().join(format!("containerd/certs.d/{host}"));
    fs::create_dir_all(&dir).expect("a directory for settings");
    let text = format!(
        "server = \"https://{host}\"\nca = \"{}\"\nclient = [[\"{}\", \"{}\"]]\n",
        certificates.authority().display(),
        certificates.client().display(),
        certificates.client_key().display()
    );
    fs::write(dir.join("hosts.toml"), text).expect("settings");
}

fn base64(text: &str) -> String {
    let outcome = std::process::Command::new("sh")
        .args(["-c", "printf %s \"$0\" | base64 -w0", text])
        .output()
        .expect("base64");
    String::from_utf8_lossy(&outcome.stdout).into_owned()
}

/// Pull, push, mount, tags, delete.
fn check_registry(options: DockerRegistryOptions<'_>, context: &str) {
    let registry = DockerRegistry::start(options);
    let host = registry.host();
    let image = TestImage::random(&[200_000, 3_000_000], 30);
    image.put(registry.http(), "test/origin", "1");
    let origin = format!("{host}/test/origin:1");
    let mica = Mica::new(BINARY);

    if let Some(certificates) = options.tls {
        // Loopback is trusted as it is, as docker has it, until settings say what it must show.
        let other = Certificates::new();
        trust(&mica, &host, &other);
        let outcome = run(&mica, &["pull", &origin]);
        check_error(&outcome, &[&host, "test/origin", "hint: "], &format!("{context}: another authority"));
        check_absent(&mica, &origin, context);
        trust(&mica, &host, certificates);
    }
    // A stranger is told what to do.
    if options.login {
        let outcome = run(&mica, &["pull", &origin]);
        check_error(&outcome, &["pull access denied for", &host, "hint: ", "mica login"], context);
        check_absent(&mica, &origin, context);
        log_in(&mica, &host);
    }
    let said = ok(&mica, &["pull", &origin]).stdout;
    assert!(said.contains(&format!("Digest: {}", image.digest())), "{context}: {said}");
    assert!(said.contains("Status: Downloaded newer image for"), "{context}: {said}");
    check_image(&mica, &origin, &image, &image.digest(), context);

    // By digest, into the same store: nothing comes a second time.
    let before = registry.count("GET", "/blobs/");
    ok(&mica, &["pull", &format!("{host}/test/origin@{}", image.digest())]);
    assert_eq!(registry.count("GET", "/blobs/"), before, "{context}");

    // Another repository gets the layers by mounts.
    let copy = format!("{host}/test/copy:1");
    ok(&mica, &["tag", &origin, &copy]);
    let said = ok(&mica, &["push", &copy]).stdout;
    assert_eq!(said.matches("Mounted from test/origin").count(), 2, "{context}: {said}");
    assert_eq!(registry.count("PATCH", "/test/copy/"), 0, "{context}");
    check_pushed(registry.http(), "test/copy", "1", &image, context);

    // A store that knows nothing of that sends all; what is there is not sent again.
    let other = Mica::new(BINARY);
    let archive = Mica::temporary_dir();
    let file = archive.path().join("image.tar").to_string_lossy().into_owned();
    ok(&mica, &["save", "-o", &file, &copy]);
    ok(&other, &["load", "-i", &file]);
    if let Some(certificates) = options.tls {
        trust(&other, &host, certificates);
    }
    let fresh = format!("{host}/test/fresh:1");
    ok(&other, &["tag", &copy, &fresh]);
    if options.login {
        check_error(&run(&other, &["push", &fresh]), &[&host, "test/fresh", "hint: "], context);
        log_in(&other, &host);
    }
    ok(&other, &["push", &fresh]);
    let said = ok(&other, &["push", &fresh]).stdout;
    assert_eq!(said.matches("Layer already exists").count(), 2, "{context}: {said}");
    let again = Mica::new(BINARY);
    if let Some(certificates) = options.tls {
        trust(&again, &host, certificates);
    }
    log_in(&again, &host);
    ok(&again, &["pull", &fresh]);
    assert_eq!(image_id(&again, &fresh), Some(image.id()), "{context}");
    let different = differences(&image.tree(), &SavedImage::of(&again, &fresh).tree, |_| false);
    assert!(different.is_empty(), "{context}: {different:?}");

    for tag in ["2", "10", "latest"] {
        let name = format!("{host}/test/copy:{tag}");
        ok(&mica, &["tag", &origin, &name]);
        ok(&mica, &["push", "-q", &name]);
    }
    let tags = ok(&mica, &["tags", &format!("{host}/test/copy")]).stdout;
    let mut tags: Vec<&str> = tags.lines().map(str::trim).collect();
    tags.sort_unstable();
    assert_eq!(tags, ["1", "10", "2", "latest"], "{context}");
    let all = Mica::new(BINARY);
    if let Some(certificates) = options.tls {
        trust(&all, &host, certificates);
    }
    log_in(&all, &host);
    ok(&all, &["pull", "-a", &format!("{host}/test/copy")]);
    for tag in ["1", "2", "10", "latest"] {
        assert_eq!(image_id(&all, &format!("{host}/test/copy:{tag}")), Some(image.id()), "{context}: {tag}");
    }
}

#[test]
fn docker_registry_with_and_without_login_and_tls() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    let certificates = Certificates::new();
    let tls = Some(&certificates);
    check_registry(DockerRegistryOptions::default(), "plain");
    check_registry(DockerRegistryOptions { login: true, delete: true, ..Default::default() }, "with login");
    check_registry(DockerRegistryOptions { tls, ..Default::default() }, "over TLS");
    let options = DockerRegistryOptions { tls, login: true, client_certificate: true, delete: true };
    check_registry(options, "over TLS with client certificates and login");
}

#[test]
fn a_certificate_for_another_name_is_refused() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY]) {
        return println!("skipped: {reason}");
    }
    // It answers on 127.0.0.1, whose name is not in it: so the runner cannot see when it is ready, and skopeo's way is taken.
    let certificates = Certificates::for_names(&["127.0.0.1"]);
    let registry =
        DockerRegistry::start(DockerRegistryOptions { tls: Some(&certificates), ..Default::default() });
    let mica = Mica::new(BINARY);
    let host = format!("localhost:{}", registry.port());
    trust(&mica, &host, &certificates);
    let outcome = run(&mica, &["pull", &format!("{host}/test/image:1")]);
    check_error(&outcome, &[&host, "test/image", "hint: "], "a certificate for another name");
}

/// What skopeo has of an image in a registry, as files: the manifest, and each blob under its digest.
fn copied(peers: &Peers, host: &str, name: &str) -> std::path::PathBuf {
    let place = peers.file(&mica_testkit::sha256(name.as_bytes())[..12]);
    let (source, target) = (format!("docker://{host}/{name}"), format!("dir:{}", place.display()));
    peers.ok(
        "skopeo",
        &["copy", "-q", "--all", "--insecure-policy", "--src-tls-verify=false", &source, &target],
    );
    place
}

#[test]
fn skopeo_reads_what_mica_pushed_and_mica_what_skopeo_pushed() {
    if let Some(reason) = missing(&[NEEDS_DOCKER_REGISTRY, Need::Tool("skopeo")]) {
        return println!("skipped: {reason}");
    }
    let registry = DockerRegistry::new();
    let (host, http) = (registry.host(), registry.http());
    let peers = Peers::new();
    let tar = |text: &str| tar_of(&[(text, text.as_bytes()), ("etc/same", b"same")]);
    let layers = |text: &str| vec![TestLayer::gzip(&tar(text)), TestLayer::gzip(&tar("more"))];
    let here = TestImage::oci(&this_platform(), layers("here"));
    let docker = TestImage::docker(&this_platform(), layers("docker"));
    let windows = TestImage::windows(layers("Files"));
    let oci_index = TestIndex::oci(vec![TestImage::oci("linux/s390x", layers("s390x")), here.clone()]);
    let docker_list = TestIndex::docker(vec![docker.clone(), windows.clone()]);
    // name, what is put, the image of this platform in it, the digest that the name leads to
    let cases = [("single", &here, here.digest()), ("docker", &docker, docker.digest())];
    for (name, image, target) in cases {
        image.put(http, name, "1");
        check_both_ways(&peers, &registry, name, image, &target);
    }
    oci_index.put(http, "oci-index", "1");
    check_both_ways(&peers, &registry, "oci-index", &here, &oci_index.digest());
    docker_list.put(http, "docker-list", "1");
    check_both_ways(&peers, &registry, "docker-list", &docker, &docker_list.digest());

    // Windows cannot run here, and yet it is pulled, shown, saved and pushed.
    let mica = Mica::new(BINARY);
    let name = format!("{host}/docker-list:1");
    ok(&mica, &["pull", "--platform", "windows/amd64", &name]);
    let pushed = format!("{host}/windows:1");
    ok(&mica, &["tag", &name, &pushed]);
    ok(&mica, &["push", "--platform", "windows/amd64", &pushed]);
    check_pushed(http, "windows", "1", &windows, "windows");
    // With all its platforms here, the list goes back as it came.
    ok(&mica, &["pull", &name]);
    let whole = format!("{host}/whole-list:1");
    ok(&mica, &["tag", &name, &whole]);
    ok(&mica, &["push", &whole]);
    let place = copied(&peers, &host, "whole-list:1");
    let list = fs::read(place.join("manifest.json")).expect("a manifest");
    assert_eq!(digest(&list), docker_list.digest(), "the whole list");
    let inspected =
        peers.ok("skopeo", &["inspect", "--raw", "--tls-verify=false", &format!("docker://{pushed}")]);
    assert_eq!(digest(inspected.stdout.as_bytes()), windows.digest());
}

/// mica pulls what is there under `name:1` (put by the test and copied by skopeo), pushes it elsewhere, and skopeo finds the
/// same bytes there.
fn check_both_ways(peers: &Peers, registry: &DockerRegistry, name: &str, image: &TestImage, target: &str) {
    let host = registry.host();
    // As skopeo pushes it.
    let (source, copy) = (format!("docker://{host}/{name}:1"), format!("docker://{host}/skopeo/{name}:1"));
    let flags =
        ["copy", "-q", "--all", "--insecure-policy", "--src-tls-verify=false", "--dest-tls-verify=false"];
    peers.ok("skopeo", &[flags.as_slice(), &[&source, &copy]].concat());
    let mica = Mica::new(BINARY);
    let from = format!("{host}/skopeo/{name}:1");
    let said = ok(&mica, &["pull", &from]).stdout;
    assert!(said.contains(&format!("Digest: {target}")), "{name}: {said}");
    check_image(&mica, &from, image, target, name);

    let to = format!("{host}/mica/{name}:1");
    ok(&mica, &["tag", &from, &to]);
    ok(&mica, &["push", &to]);
    let place = copied(peers, &host, &format!("mica/{name}:1"));
    let pushed = fs::read(place.join("manifest.json")).expect("a manifest");
    // Of an index only this platform was pulled: its manifest is what is pushed then.
    assert_eq!(digest(&pushed), image.digest(), "{name}");
    for layer in &image.layers {
        let file = place.join(layer.digest().trim_start_matches("sha256:"));
        assert_eq!(fs::read(file).expect("a layer"), layer.blob, "{name}");
    }

    // The whole index, without the store in between.
    let copied_to = format!("docker://{host}/copied/{name}:1");
    ok(&mica, &["copy", "--all", &format!("docker://{from}"), &copied_to]);
    let reply = registry.http().manifest(&format!("copied/{name}"), "1");
    assert_eq!(digest(&reply.body), target, "{name}");
}

#[test]
fn root_podman_runs_what_mica_pushed_and_mica_what_podman_pushed() {
    let needs = [Need::Root, NEEDS_DOCKER_REGISTRY, Need::Tool("podman"), Need::Tool("crun")];
    let base = match missing(&needs) {
        Some(reason) => Err(reason),
        None => bases::busybox(),
    };
    let base = match base {
        Ok(base) => base,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let registry = DockerRegistry::new();
    let host = registry.host();
    let peers = Peers::new();
    let mica = Mica::new(BINARY);
    let made = built(&mica, &base, &host);
    let pushed = ok(&mica, &["push", &made]).stdout;
    let target =
        pushed.split("digest: ").nth(1).and_then(|text| text.split(' ').next()).expect("a digest").to_owned();
    peers.ok("podman", &["pull", "-q", "--tls-verify=false", &made]);
    let digests =
        peers.ok("podman", &["image", "inspect", "--format", "{{.Id}} {{.RepoDigests}}", &made]).stdout;
    assert!(digests.contains(&format!("@{target}")), "{digests}");
    assert!(
        digests.starts_with(image_id(&mica, &made).expect("an ID").trim_start_matches("sha256:")),
        "{digests}"
    );
    assert_eq!(peers.run_container(&made).stdout, "hello from mica\n");

    // Back again, in a form of podman's own.
    for format in ["oci", "v2s2"] {
        let back = format!("{host}/podman/{format}:1");
        let flags =
            ["push", "-q", "--tls-verify=false", "--format", format, "--digestfile", "digest", &made, &back];
        peers.ok("podman", &flags);
        let target = fs::read_to_string(peers.file("digest")).expect("a digest");
        let other = Mica::new(BINARY);
        let said = ok(&other, &["pull", &back]).stdout;
        assert!(said.contains(&format!("Digest: {}", target.trim())), "{format}: {said}");
        let (here, there) = (SavedImage::of(&other, &back), SavedImage::of(&mica, &made));
        let different = differences(&there.tree, &here.tree, |_| false);
        assert!(different.is_empty(), "{format}: {different:?}");
        assert_eq!(ok(&other, &["run", "--rm", "--network=none", &back]).stdout, "hello from mica\n");
    }
}

/// An image that mica built, under a name of the registry.
fn built(mica: &Mica, base: &Path, host: &str) -> String {
    mica.import(base, "base:1");
    let context = Mica::temporary_dir();
    let dockerfile = "FROM base:1\nCOPY greeting /\nRUN chown 7:8 /greeting && ln /greeting /other && rm -r /var\n\
         CMD [\"cat\", \"/greeting\"]\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
    fs::write(context.path().join("greeting"), "hello from mica\n").expect("a file");
    let name = format!("{host}/made/by-mica:1");
    ok(mica, &["build", "-t", &name, &context.path().to_string_lossy()]);
    name
}

#[test]
fn rootless_pulls_and_pushes() {
    if let Some(reason) = missing(&[Need::Unprivileged]) {
        return println!("skipped: {reason}");
    }
    let registry = FakeRegistry::new();
    let tar = tar_of(&[("etc/file", b"content")]);
    let mut writer = Writer::default();
    writer.add(Entry { uid: 7, gid: 8, mode: 0o4755, ..Entry::file("owned") }, b"by another");
    let owned = writer.finish();
    let layers = vec![
        TestLayer::gzip(&tar),
        TestLayer::zstd(&owned),
        TestLayer::plain(&tar_of(&[("etc/.wh.file", b"")])),
    ];
    let image = TestImage::oci(&this_platform(), layers);
    image.put(&registry, "test/image", "1");
    let mica = Mica::new(BINARY);
    let name = format!("{}/test/image:1", registry.host());
    ok(&mica, &["pull", &name]);
    check_image(&mica, &name, &image, &image.digest(), "rootless");
    let copy = format!("{}/test/copy:1", registry.host());
    ok(&mica, &["tag", &name, &copy]);
    registry.remove_blob(&image.layers[1].digest());
    ok(&mica, &["push", &copy]);
    check_pushed(&registry.http(), "test/copy", "1", &image, "rootless");
}
