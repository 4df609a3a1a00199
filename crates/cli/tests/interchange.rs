//! Archives between mica and the other tools of the field.

use std::fs;

use mica_testkit::{Mica, Need, Peers, SavedImage, bases, differences, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A store with an image `made:1` of several layers, with all that archives tend to lose.
fn made(needs: &[Need]) -> Option<Mica> {
    let base = match missing(needs) {
        Some(reason) => Err(reason),
        None => bases::busybox(),
    };
    let base = match base {
        Ok(base) => base,
        Err(reason) => {
            println!("skipped: {reason}");
            return None;
        }
    };
    let mica = Mica::new(BINARY);
    mica.import(&base, "base:1");
    let context = Mica::temporary_dir();
    let dockerfile = "FROM base:1\n\
        COPY file /app/file\n\
        RUN ln /app/file /app/linked && ln -s file /app/symbolic && chown 7:8 /app && chmod 4711 /app/file\n\
        RUN rm -r /var && mkdir /var && mknod /app/null c 1 3 && mkfifo /app/fifo\n\
        ENV GREETING=hello\nWORKDIR /app\nLABEL a=b\n\
        CMD [\"sh\", \"-c\", \"echo $GREETING $(cat file)\"]\n";
    fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
    fs::write(context.path().join("file"), "world").expect("a file");
    mica.ok(&["build", "-t", "made:1", &context.path().to_string_lossy()]);
    Some(mica)
}

#[test]
fn root_skopeo_and_umoci_take_what_mica_saves() {
    let needs = [Need::Root, Need::Tool("skopeo"), Need::Tool("umoci")];
    let Some(mica) = made(&needs) else { return };
    let peers = Peers::new();
    let archive = peers.file("saved.tar");
    mica.ok(&["save", "-o", &archive.to_string_lossy(), "made:1"]);
    let id = mica.ok(&["image", "inspect", "-f", "{{.Id}}", "made:1"]).stdout.trim().to_owned();

    for transport in ["docker-archive", "oci-archive"] {
        let source = format!("{transport}:{}", archive.display());
        let inspected = peers.ok("skopeo", &["inspect", &source]).stdout;
        assert!(
            inspected.contains("GREETING=hello") && inspected.contains("\"a\": \"b\""),
            "{transport}: {inspected}"
        );
        // Checks every digest and size on the way.
        let copy = peers.file(transport);
        peers.ok("skopeo", &["copy", "-q", "--insecure-policy", &source, &format!("dir:{}", copy.display())]);
        let config = id.trim_start_matches("sha256:");
        assert!(copy.join(config).is_file(), "{transport}: no config {id}");
    }

    let layout = peers.file("layout");
    fs::create_dir(&layout).expect("a directory");
    peers.ok("tar", &["-xf", &archive.to_string_lossy(), "-C", &layout.to_string_lossy()]);
    let index = fs::read(layout.join("index.json")).expect("the index");
    let index: serde_json::Value = serde_json::from_slice(&index).expect("the index is JSON");
    let name = index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str();
    let image = format!("{}:{}", layout.display(), name.expect("a name in the index"));
    let bundle = peers.file("bundle");
    peers.ok("umoci", &["unpack", "--image", &image, &bundle.to_string_lossy()]);
    // What umoci unpacked, packed by tar, is the tree that we saved.
    let packed = peers.file("rootfs.tar");
    let rootfs = bundle.join("rootfs");
    let tar = [
        "--xattrs",
        "--numeric-owner",
        "-cf",
        &packed.to_string_lossy(),
        "-C",
        &rootfs.to_string_lossy(),
        ".",
    ];
    peers.ok("tar", &tar);
    let theirs = mica_testkit::tree_of_tar(&packed).expect("umoci's tree");
    let lines = differences(&theirs, &SavedImage::read(&archive).expect("our archive").tree, |_| false);
    assert!(lines.is_empty(), "{lines:#?}");
}

#[test]
fn root_podman_runs_what_mica_saves_and_mica_what_podman_saves() {
    let needs = [Need::Root, Need::Tool("podman"), Need::Tool("buildah"), Need::Tool("crun")];
    let Some(mica) = made(&needs) else { return };
    let peers = Peers::new();
    let archive = peers.file("saved.tar");
    mica.ok(&["save", "-o", &archive.to_string_lossy(), "made:1"]);
    let id = mica.ok(&["image", "inspect", "-f", "{{.Id}}", "made:1"]).stdout.trim().to_owned();
    let policy = peers.file("policy.json");
    peers.ok(
        "podman",
        &["load", "-q", "--signature-policy", &policy.to_string_lossy(), "-i", &archive.to_string_lossy()],
    );
    let theirs =
        peers.ok("podman", &["image", "inspect", "-f", "{{.Id}}", "made:1"]).stdout.trim().to_owned();
    assert_eq!(format!("sha256:{theirs}"), id);
    let ran = peers.run_container("made:1");
    assert_eq!(ran.stdout, "hello world\n");

    for format in ["docker-archive", "oci-archive"] {
        let saved = peers.file(&format!("podman-{format}.tar"));
        peers.ok("podman", &["save", "-q", "--format", format, "-o", &saved.to_string_lossy(), "made:1"]);
        let other = Mica::new(BINARY);
        other.ok(&["load", "-i", &saved.to_string_lossy()]);
        let listed = other.ok(&["images", "-q", "--no-trunc"]).stdout;
        // podman writes the config of an OCI archive anew; of a docker archive it keeps the bytes.
        if format == "docker-archive" {
            assert_eq!(listed.trim(), id, "{format}");
        }
        let image = listed.trim().to_owned();
        let ran = other.ok(&["run", "--rm", "--network=none", &image]);
        assert_eq!(ran.stdout, "hello world\n", "{format}");
        let lines =
            differences(&SavedImage::of(&mica, "made:1").tree, &SavedImage::of(&other, &image).tree, |_| {
                false
            });
        assert!(lines.is_empty(), "{format}: {lines:#?}");
    }
}

#[test]
fn root_what_podman_builds_keeps_its_id() {
    let needs = [Need::Root, Need::Tool("podman"), Need::Tool("buildah")];
    let Some(mica) = made(&needs) else { return };
    let peers = Peers::new();
    peers.import(&bases::busybox().expect("the base"), "localhost/theirs:1");
    let saved = peers.file("theirs.tar");
    for format in ["docker-archive", "oci-archive"] {
        let _ = fs::remove_file(&saved);
        peers.ok(
            "podman",
            &["save", "-q", "--format", format, "-o", &saved.to_string_lossy(), "localhost/theirs:1"],
        );
        let id = match format {
            "docker-archive" => SavedImage::read(&saved).expect("podman's archive").id,
            _ => format!(
                "sha256:{}",
                peers.ok("podman", &["image", "inspect", "-f", "{{.Id}}", "theirs:1"]).stdout.trim()
            ),
        };
        let loaded = mica.ok(&["load", "-i", &saved.to_string_lossy()]);
        assert!(loaded.stdout.contains("Loaded image"), "{loaded}");
        let listed = mica.ok(&["images", "-q", "--no-trunc"]).stdout;
        assert!(listed.lines().any(|line| line == id), "{format}: no {id} in\n{listed}");
    }
}
