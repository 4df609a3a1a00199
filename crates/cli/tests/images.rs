//! Whole commands on images: stdout, stderr and exit code.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A store of its own, and an archive with known times.
struct Room {
    directory: tempfile::TempDir,
}

impl Room {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn run_with(&self, words: &[&str], input: &[u8]) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mica"))
            .arg("--root")
            .arg(self.path().join("store"))
            .args(words)
            .current_dir(self.path())
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command may end without reading.
        let _ = child.stdin.take().unwrap().write_all(input);
        child.wait_with_output().unwrap()
    }

    /// stdout of a command that works.
    fn ok(&self, words: &[&str]) -> String {
        self.ok_with(words, b"")
    }

    fn ok_with(&self, words: &[&str], input: &[u8]) -> String {
        let output = self.run_with(words, input);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Exit code and stderr of a command that does not.
    fn fails(&self, words: &[&str]) -> (i32, String) {
        let output = self.run_with(words, b"");
        assert!(!output.status.success(), "{words:?}");
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    }

    /// Loads an image of two layers, made three weeks ago; answers its ID.
    fn load(&self, name: &str) -> String {
        let archive = archive(name);
        let loaded = self.ok_with(&["load"], &archive);
        assert_eq!(loaded, format!("Loaded image: {name}\n"));
        self.ok(&["images", "-q", "--no-trunc", name]).trim().to_owned()
    }
}

const CREATED_AGO_S: u64 = 22 * 24 * 3600;

fn created() -> String {
    let output = Command::new("date")
        .args(["-u", "-d", &format!("-{CREATED_AGO_S} seconds"), "+%Y-%m-%dT%H:%M:%SZ"])
        .output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

/// A tar of files with content, made by hand: ustar, mode 0644.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, content) in files {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[108..115].copy_from_slice(b"0000000");
        header[116..123].copy_from_slice(b"0000000");
        header[124..135].copy_from_slice(format!("{:011o}", content.len()).as_bytes());
        header[136..147].copy_from_slice(b"14524770400");
        header[148..156].copy_from_slice(b"        ");
        header[156] = b'0';
        header[257..265].copy_from_slice(b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        out.extend_from_slice(&header);
        out.extend_from_slice(content);
        out.resize(out.len().next_multiple_of(512), 0);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn archive(name: &str) -> Vec<u8> {
    let layers = [tar(&[("hello", b"hello world\n")]), tar(&[("big", &[7; 1500])])];
    let ids = layers.each_ref().map(|layer| mica_oci::Digest::sha256(layer).to_string());
    let created = created();
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","created":"{created}","config":{{"Cmd":["/hello"],"Env":["A=b"],"Labels":{{"who":"me"}}}},"rootfs":{{"type":"layers","diff_ids":["{}","{}"]}},"history":[{{"created":"{created}","created_by":"COPY hello / # buildkit","comment":"buildkit.dockerfile.v0"}},{{"created":"{created}","created_by":"ENV A=b","comment":"buildkit.dockerfile.v0","empty_layer":true}},{{"created":"{created}","created_by":"RUN /bin/sh -c make a file with a long long name in it # buildkit"}}]}}"#,
        ids[0], ids[1]
    );
    let manifest = format!(r#"[{{"Config":"c.json","RepoTags":["{name}"],"Layers":["0.tar","1.tar"]}}]"#);
    tar(&[
        ("manifest.json", manifest.as_bytes()),
        ("c.json", config.as_bytes()),
        ("0.tar", &layers[0]),
        ("1.tar", &layers[1]),
    ])
}

fn no_such_image(name: &str) -> String {
    format!(
        "error: No such image: {name}\nhint: `mica images` lists all images; `mica pull NAME` or `mica load -i FILE` brings one in\n"
    )
}

fn short(id: &str) -> &str {
    &id["sha256:".len()..][..12]
}

#[test]
fn lists() {
    let room = Room::new();
    assert_eq!(room.ok(&["images"]), "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n");
    let id = room.load("demo:1");
    assert_eq!(room.ok(&["tag", "demo:1", "registry.test:5000/x/y"]), "");
    let id12 = short(&id);
    let expect = format!(
        "REPOSITORY               TAG       IMAGE ID       CREATED       SIZE\n\
         demo                     1         {id12}   3 weeks ago   1.51kB\n\
         registry.test:5000/x/y   latest    {id12}   3 weeks ago   1.51kB\n"
    );
    for words in [&["images"][..], &["image", "ls"], &["image", "list"], &["images", "-a"]] {
        assert_eq!(room.ok(words), expect, "{words:?}");
    }
    assert_eq!(room.ok(&["images", "-q", "demo"]), format!("{id12}\n"));
    assert_eq!(room.ok(&["images", "--format", "{{.Repository}}:{{.Tag}}", "demo"]), "demo:1\n");
    assert_eq!(
        room.ok(&["images", "--format", "table {{.ID}}\\t{{.Size}}", "demo:1"]),
        format!("IMAGE ID       SIZE\n{id12}   1.51kB\n")
    );
    assert_eq!(
        room.ok(&["images", "--digests", "demo"]),
        format!(
            "REPOSITORY   TAG       DIGEST    IMAGE ID       CREATED       SIZE\n\
             demo         1         <none>    {id12}   3 weeks ago   1.51kB\n"
        )
    );
    let json: serde_json::Value =
        serde_json::from_str(&room.ok(&["images", "--format", "json", "demo"])).unwrap();
    assert_eq!((&json["Repository"], &json["Size"]), (&"demo".into(), &"1.51kB".into()));
    for (filter, count) in [
        ("dangling=true", 0),
        ("label=who", 2),
        ("label=who=you", 0),
        ("reference=de*", 1),
        ("since=demo:1", 0),
        ("until=24h", 2),
    ] {
        assert_eq!(room.ok(&["images", "-q", "-f", filter]).lines().count(), count, "{filter}");
    }
    let (code, stderr) = room.fails(&["images", "-f", "nope=1"]);
    assert_eq!(
        (code, stderr.as_str()),
        (
            1,
            "error: invalid filter `nope=1`\nhint: there are: dangling, label, before, since, until, reference\n"
        )
    );
}

#[test]
fn histories() {
    let room = Room::new();
    let id = room.load("demo:1");
    let id12 = short(&id);
    let expect = format!(
        "IMAGE          CREATED       CREATED BY                                      SIZE      COMMENT\n\
         {id12}   3 weeks ago   RUN /bin/sh -c make a file with a long long …   1.5kB     \n\
         <missing>      3 weeks ago   ENV A=b                                         0B        buildkit.dockerfile.v0\n\
         <missing>      3 weeks ago   COPY hello / # buildkit                         12B       buildkit.dockerfile.v0\n"
    );
    assert_eq!(room.ok(&["history", "demo:1"]), expect);
    assert_eq!(room.ok(&["image", "history", id12]), expect);
    assert_eq!(room.ok(&["history", "-q", "demo:1"]), format!("{id12}\n<missing>\n<missing>\n"));
    assert_eq!(room.ok(&["history", "--human=false", "--format", "{{.Size}}", "demo:1"]), "1500\n0\n12\n");
    assert!(room.ok(&["history", "--no-trunc", "demo:1"]).contains("long name in it # buildkit"));
    assert_eq!(room.fails(&["history", "nope"]).1, no_such_image("nope:latest"));
}

#[test]
fn inspections() {
    let room = Room::new();
    let id = room.load("demo:1");
    let value: serde_json::Value = serde_json::from_str(&room.ok(&["inspect", "demo:1"])).unwrap();
    assert_eq!((&value[0]["Id"], &value[0]["Size"]), (&id.as_str().into(), &1512.into()));
    let check = |template: &str, expect: &str| {
        assert_eq!(
            room.ok(&["image", "inspect", "-f", template, "demo:1"]),
            format!("{expect}\n"),
            "{template}"
        );
    };
    check("{{.Config.Cmd}}", "[/hello]");
    check("{{json .Config.Env}}", r#"["A=b"]"#);
    check("{{index .RepoTags 0}} {{.Architecture}}", "demo:1 amd64");
    check("{{.Config.Entrypoint}}", "[]");
    let output = room.run_with(&["inspect", "nope"], b"");
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "[]\n");
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "error: No such object: nope\nhint: `mica images` and `mica ps -a` list what there is\n"
    );
}

#[test]
fn removals_and_prunes() {
    let room = Room::new();
    let id = room.load("demo:1");
    room.ok(&["tag", short(&id), "other"]);
    let (code, stderr) = room.fails(&["rmi", short(&id)]);
    assert_eq!(
        (code, stderr),
        (
            1,
            format!(
                "error: conflict: unable to delete {0} (must be forced) - image is referenced in multiple repositories\nhint: remove its names one by one, or all of them with `mica rmi -f {0}`\n",
                short(&id)
            )
        )
    );
    assert_eq!(room.ok(&["rmi", "other"]), "Untagged: other:latest\n");
    let text = room.ok(&["image", "rm", "demo:1"]);
    assert!(text.starts_with(&format!("Untagged: demo:1\nDeleted: {id}\nDeleted: sha256:")), "{text}");
    assert_eq!(text.lines().count(), 4);
    assert_eq!(room.fails(&["rmi", "demo:1"]).1, no_such_image("demo:1"));
    room.ok(&["rmi", "-f", "demo:1"]);

    let id = room.load("demo:1");
    assert_eq!(
        room.ok_with(&["image", "prune"], b"n\n"),
        "WARNING! This will remove all dangling images.\nAre you sure you want to continue? [y/N] "
    );
    assert_eq!(room.ok(&["image", "prune", "-f"]), "Total reclaimed space: 0B\n");
    let text = room.ok_with(&["image", "prune", "-a"], b"y\n");
    assert!(text.contains(&format!("Deleted Images:\nuntagged: demo:1\ndeleted: {id}\n")), "{text}");
    assert!(text.contains("\n\nTotal reclaimed space: "), "{text}");
    room.load("demo:1");
    let text = room.ok(&["system", "prune", "-af"]);
    assert!(text.contains("untagged: demo:1\n"), "{text}");
    let df = room.ok(&["system", "df"]);
    let lines: Vec<&str> = df.lines().collect();
    assert_eq!(
        lines[..2],
        [
            "TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE",
            "Images          0         0         0B        0B",
        ]
    );
    assert_eq!(lines.len(), 5);
}

#[test]
fn imports_saves_and_loads() {
    let room = Room::new();
    std::fs::write(room.path().join("root.tar"), tar(&[("bin/x", b"x")])).unwrap();
    let id = room.ok(&["import", "-c", "CMD [\"/bin/x\"]", "-m", "mine", "root.tar", "rootfs:1"]);
    assert_eq!(room.ok(&["images", "-q", "--no-trunc"]), id);
    assert_eq!(room.ok(&["history", "--format", "{{.Comment}}", "rootfs:1"]), "mine\n");
    room.ok(&["save", "-o", "a.tar", "rootfs:1"]);
    let first = std::fs::read(room.path().join("a.tar")).unwrap();
    assert_eq!(room.run_with(&["save", "rootfs:1"], b"").stdout, first);
    room.ok(&["rmi", "rootfs:1"]);
    assert_eq!(room.ok(&["load", "-i", "a.tar"]), "Loaded image: rootfs:1\n");
    assert_eq!(room.ok(&["images", "-q", "--no-trunc"]), id);
    let names = std::fs::read_dir(room.path()).unwrap().count();
    assert_eq!(names, 3, "nothing but the store and two tars");
    assert_eq!(
        room.fails(&["load", "-i", "root.tar"]).1,
        "error: not an image archive: there is neither `manifest.json` nor `index.json`\nhint: a tar of a root filesystem is made an image with `mica import FILE NAME`\n"
    );
    let (_, stderr) = room.fails(&["load", "-i", "nope.tar"]);
    assert!(stderr.starts_with("error: cannot read `nope.tar`: "), "{stderr}");
    assert_eq!(room.fails(&["save", "-o", "b.tar", "nope"]).1, no_such_image("nope:latest"));
    assert!(!room.path().join("b.tar").exists());
}

#[test]
fn versions() {
    let room = Room::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(room.ok(&["version", "--format", "{{.Client.Version}}"]), format!("{version}\n"));
    assert!(room.ok(&["version"]).starts_with("Client: mica\n Version:"));
    assert_eq!(room.ok(&["info", "-f", "{{.Images}} {{.Driver}}"]), "0 overlay2\n");
}

#[test]
fn prunes_the_build_cache() {
    let room = Room::new();
    let id = room.load("demo:1");
    for words in [&["builder", "prune", "-f"][..], &["buildx", "prune", "-af"]] {
        assert_eq!(room.ok(words), "Total:\t0B\n", "{words:?}");
    }
    // Nobody says yes.
    let asked =
        "WARNING! This will remove all dangling build cache.\nAre you sure you want to continue? [y/N] ";
    assert_eq!(room.ok(&["builder", "prune"]), asked);
    assert_eq!(room.ok(&["builder", "prune", "-f", "--filter", "until=24h"]), "Total:\t0B\n");
    assert_eq!(room.fails(&["builder", "prune", "-f", "--filter", "x=1"]).0, 1);
    assert_eq!(room.ok(&["images", "-q", "--no-trunc"]).trim(), id);
}

#[test]
fn every_command_says_what_it_does_in_one_voice() {
    let room = Room::new();
    for group in [&["--help"][..], &["image", "--help"], &["container", "--help"], &["builder", "--help"]] {
        let help = room.ok(group);
        let commands = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
        assert!(commands.lines().count() > 1, "{help}");
        for line in commands.lines() {
            let (_, about) = line.trim().split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            let verb = about.trim().split(' ').next().unwrap();
            assert!(verb.starts_with(|c: char| c.is_ascii_uppercase()) && !verb.ends_with('s'), "{line}");
        }
        assert!(!commands.contains("buildx"), "{help}");
    }
    let help = room.ok(&["--help"]);
    assert!(help.find("  run ").unwrap() < help.find("  attach ").unwrap(), "{help}");
}

#[test]
fn a_store_that_cannot_be_used_comes_with_a_hint() {
    let room = Room::new();
    let strange = room.path().join("store");
    std::fs::create_dir(&strange).unwrap();
    std::fs::write(strange.join("letter"), "x").unwrap();
    let (code, stderr) = room.fails(&["images"]);
    assert_eq!(code, 1);
    assert!(stderr.contains("is not a store: it holds `letter`\nhint: "), "{stderr}");
    assert!(stderr.contains("`--root DIR`"), "{stderr}");
}
