//! Bad input: what a user reads, and that nothing outside the store changes.

use std::fs;
use std::path::{Path, PathBuf};

use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Mica, Need, bases, missing, sha256};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A store with a busybox base and a build context.
struct Bench {
    mica: Mica,
    context: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Bench> {
        if let Some(reason) = missing(&[Need::Root]) {
            println!("skipped: {reason}");
            return None;
        }
        let base = match bases::busybox() {
            Ok(base) => base,
            Err(reason) => {
                println!("skipped: {reason}");
                return None;
            }
        };
        let mica = Mica::new(BINARY);
        mica.import(&base, "base:1");
        Some(Bench { mica, context: Mica::temporary_dir() })
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context.path().join(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file");
        path
    }

    /// Builds this Dockerfile; it must fail with exit code 1 and say all of `expect` on stderr.
    #[track_caller]
    fn check(&self, dockerfile: &str, expect: &[&str]) {
        self.write("Dockerfile", dockerfile);
        let context = self.context.path().to_string_lossy().into_owned();
        let outcome = self.mica.fails(&["build", "-t", "never", &context], 1);
        check_says(&outcome.stderr, expect);
        assert_eq!(outcome.stdout, "", "errors are for stderr");
        self.mica.fails(&["image", "inspect", "never"], 1);
        self.mica.check_nothing_left();
    }
}

#[track_caller]
fn check_says(stderr: &str, expect: &[&str]) {
    assert!(!stderr.contains("panicked at"), "{stderr}");
    for text in expect {
        assert!(stderr.contains(text), "does not say `{text}`:\n{stderr}");
    }
}

#[test]
fn root_a_dockerfile_with_mistakes_lists_them_all() {
    let Some(bench) = Bench::new() else { return };
    bench.check(
        "FROM base:1\nRUNN true\nCOPY one\nEXPOSE banana\nENV\nUSER\n",
        &[
            "Dockerfile:2",
            "RUNN",
            "did you mean",
            "Dockerfile:3",
            "Dockerfile:4",
            "banana",
            "Dockerfile:5",
            "Dockerfile:6",
        ],
    );
    bench.check("FROM Ubuntu:18.04\n", &["Dockerfile:1", "lowercase", "`ubuntu:18.04`", "^^^"]);
    bench.check("", &["Dockerfile"]);
    bench.check("RUN true\n", &["Dockerfile:1", "FROM"]);
    bench.check("FROM base:1\nRUN <<EOT\ntrue\n", &["Dockerfile:2", "EOT"]);
    bench.check("FROM base:1\nCOPY --form=x a b\n", &["Dockerfile:2", "--form", "--from"]);
    bench.check("FROM base:1 AS a\nCOPY --from=b /x /y\n", &["b"]);
    bench.check(
        "FROM absent:1\nEXPOSE 99999\nCOPY --from=absent:2 a b\nSTOPSIGNAL nosig\n",
        &["`absent:1`", "Dockerfile:2", "99999", "`absent:2`", "Dockerfile:4", "nosig"],
    );
}

#[test]
fn root_a_missing_source_names_what_hid_it() {
    let Some(bench) = Bench::new() else { return };
    bench.check(
        "FROM base:1\nCOPY nothing /etc/\n",
        &["Dockerfile:2", "`nothing`", "not in the build context"],
    );
    bench.write("app/config.toml", "x");
    bench.write(".dockerignore", "# secrets\n\napp/*.toml\n");
    bench.check(
        "FROM base:1\nRUN true\nCOPY app/config.toml /etc/\n",
        &["Dockerfile:3", "app/config.toml", ".dockerignore", "line 3", "app/*.toml"],
    );
    bench.check(
        "FROM base:1 AS b\nFROM b\nRUN --mount=target=/c,source=app/config.toml true\n",
        &["Dockerfile:3:13", "`app/config.toml` is not in the build context", "line 3", "app/*.toml"],
    );
    bench.check(
        "FROM base:1 AS b\nFROM base:1\nRUN --mount=target=/c,source=/nothing,from=b true\n",
        &["Dockerfile:3:13", "`/nothing` is not in image `base:1`"],
    );
}

#[test]
fn root_a_failing_run_shows_output_lines_and_code() {
    let Some(bench) = Bench::new() else { return };
    bench.check(
        "FROM base:1\nRUN echo before; \\\n  echo on-stderr >&2; \\\n  exit 42\n",
        &["before", "on-stderr", "Dockerfile:2", "exit 42", "42"],
    );
    bench.check("FROM base:1\nRUN [\"/no/such/program\"]\n", &["Dockerfile:2", "/no/such/program"]);
    bench.check("FROM base:1\nUSER nobody-here\nRUN true\n", &["nobody-here"]);
    // A signal is no exit code; shells and docker count 128 and its number.
    bench.check("FROM base:1\nRUN sh -c 'kill -9 $$' || exit $?\n", &["Dockerfile:2", "137"]);
}

#[test]
fn root_an_absent_base_says_where_it_was_looked_for() {
    let Some(bench) = Bench::new() else { return };
    bench.check(
        "FROM absent:1\nRUN true\n",
        &["Dockerfile:1", "`absent:1`", "not in the local store", "mica import"],
    );
    let outcome = bench.mica.run(&["run", "--rm", "absent:1", "true"]);
    assert_eq!(outcome.code, 125, "{outcome}");
    check_says(&outcome.stderr, &["absent:1"]);
}

#[test]
fn root_arguments_that_make_no_sense_are_told() {
    let Some(bench) = Bench::new() else { return };
    let context = bench.context.path().to_string_lossy().into_owned();
    bench.write("Dockerfile", "FROM base:1 AS one\nRUN true\n");
    let cases: &[(&[&str], &[&str])] = &[
        (&["build", "--target", "two", &context], &["two"]),
        (&["build", "-t", "Upper:1", &context], &["Upper", "lowercase"]),
        (&["build", "--cache=exat", &context], &["exat", "exact"]),
        (&["build", "--cache-ttl=7", &context], &["`7d`"]),
        (&["build", "--cache-ttl=0", &context], &["shorter than a second"]),
        (&["build", "--explain=yaml", &context], &["yaml", "json"]),
        (&["build", "/no/such/context"], &["/no/such/context"]),
        (&["build", "-f", "/no/such/Dockerfile", &context], &["/no/such/Dockerfile"]),
        (&["tag", "absent", "other"], &["absent"]),
        (&["rmi", "absent"], &["absent"]),
        (&["history", "absent"], &["absent"]),
        (&["load", "-i", "/no/such/archive"], &["/no/such/archive"]),
        (&["import", "/no/such/tar", "a:1"], &["/no/such/tar"]),
    ];
    for (arguments, expect) in cases {
        let outcome = bench.mica.run(arguments);
        assert!((1..=125).contains(&outcome.code), "{arguments:?}: {outcome}");
        check_says(&outcome.stderr, expect);
    }
}

/// Archives that try to write outside; `victim` is a directory of ours that they aim at.
fn hostile_archives(victim: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let absolute = victim.join("owned").to_string_lossy().into_owned();
    let climbing = format!("{}{absolute}", "../".repeat(20).trim_end_matches('/'));
    let mut all = Vec::new();
    let mut archive = |name, write: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::default();
        write(&mut writer);
        all.push((name, writer.finish()));
    };
    archive("climbs", &|tar| {
        tar.add(Entry::file(&climbing), b"owned");
    });
    archive("absolute", &|tar| {
        tar.add(Entry::file(&absolute), b"owned");
    });
    archive("through a symbolic link", &|tar| {
        tar.add(Entry::symlink("link", &victim.to_string_lossy()), b"");
        tar.add(Entry::file("link/owned"), b"owned");
    });
    archive("through a climbing symbolic link", &|tar| {
        tar.add(Entry::symlink("link", &"../".repeat(20)), b"");
        tar.add(Entry::file(&format!("link{absolute}")), b"owned");
    });
    archive("a hard link to outside", &|tar| {
        let target = victim.join("treasure").to_string_lossy().into_owned();
        tar.add(
            Entry::hard_link("steal", &format!("{}{target}", "../".repeat(20).trim_end_matches('/'))),
            b"",
        );
        tar.add(Entry::file("steal"), b"owned");
    });
    archive("a whiteout of outside", &|tar| {
        tar.add(Entry::file(&format!("{}/.wh.treasure", climbing.trim_end_matches("/owned"))), b"");
    });
    archive("a whiteout of its parent", &|tar| {
        tar.add(Entry::file("dir/.wh..."), b"")
            .add(Entry::file("dir/.wh."), b"")
            .add(Entry::file(".wh..."), b"");
    });
    archive("a size that lies", &|tar| {
        tar.add_lying(Entry { size: 1 << 40, ..Entry::file("big") }, b"small");
    });
    archive("a header that is noise", &|tar| {
        tar.add(Entry { kind: b'Z', ..Entry::file("odd") }, b"");
        tar.add_lying(Entry { kind: b'x', size: 1 << 33, ..Entry::file("extension") }, b"12 path=");
    });
    all
}

#[test]
fn root_hostile_archives_change_nothing_outside() {
    let Some(bench) = Bench::new() else { return };
    let victim = Mica::temporary_dir();
    fs::write(victim.path().join("treasure"), "mine").expect("a file");
    for (name, archive) in hostile_archives(victim.path()) {
        let file = bench.write("hostile.tar", &archive);
        bench.write("Dockerfile", "FROM base:1\nADD hostile.tar /in/\n");
        let context = bench.context.path().to_string_lossy().into_owned();
        // Refused or kept inside: both are right, as long as nothing outside changes.
        let ways = [
            bench.mica.run(&["build", "-t", "hostile:1", &context]),
            bench.mica.run(&["import", &file.to_string_lossy(), "hostile:2"]),
            bench.mica.run(&["load", "-i", &loadable(&bench, &archive).to_string_lossy()]),
        ];
        for outcome in ways {
            assert!([0, 1].contains(&outcome.code), "{name}: {outcome}");
            assert!(!outcome.stderr.contains("panicked at"), "{name}: {outcome}");
            if outcome.code == 1 {
                assert!(outcome.stderr.contains("error"), "{name}: {outcome}");
            }
        }
        // What is no layer may be a file to ADD only if it is no tar either.
        let copied =
            bench.mica.run(&["run", "--rm", "--network=none", "hostile:1", "test", "-e", "/in/hostile.tar"]);
        assert_ne!(copied.code, 0, "{name}: taken for a plain file");
        let _ = bench.mica.run(&["rmi", "hostile:1"]);
        // What was let in must also be harmless when a container stands on it.
        let _ = bench.mica.run(&["run", "--rm", "--network=none", "hostile:1", "true"]);
        let inside: Vec<_> = fs::read_dir(victim.path())
            .expect("the victim")
            .flatten()
            .map(|entry| entry.file_name())
            .collect();
        assert_eq!(inside, ["treasure"], "{name}");
        assert_eq!(
            fs::read_to_string(victim.path().join("treasure")).expect("the treasure"),
            "mine",
            "{name}"
        );
    }
    bench.mica.ok(&["run", "--rm", "--network=none", "base:1", "true"]);
    bench.mica.check_nothing_left();
}

/// A docker archive whose one layer is this tar.
fn loadable(bench: &Bench, layer: &[u8]) -> PathBuf {
    let diff_id = sha256(layer);
    let config = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["sha256:{diff_id}"]}}}}"#
    );
    let config_name = format!("{}.json", sha256(config.as_bytes()));
    let manifest =
        format!(r#"[{{"Config":"{config_name}","RepoTags":["hostile:3"],"Layers":["layer.tar"]}}]"#);
    let mut tar = Writer::default();
    tar.add(Entry::file(&config_name), config.as_bytes());
    tar.add(Entry::file("layer.tar"), layer);
    tar.add(Entry::file("manifest.json"), manifest.as_bytes());
    bench.write("loadable.archive", tar.finish())
}

#[test]
fn root_broken_archives_end_in_an_error() {
    let Some(bench) = Bench::new() else { return };
    let good = loadable(&bench, &Writer::default().add(Entry::file("a"), b"1").finish());
    bench.mica.ok(&["load", "-i", &good.to_string_lossy()]);
    let bytes = fs::read(&good).expect("the archive");
    let cases: [(&str, Vec<u8>); 5] = [
        ("empty", Vec::new()),
        ("noise", b"not an archive at all".repeat(100)),
        ("cut", bytes[..bytes.len() / 2].to_vec()),
        ("no manifest", Writer::default().add(Entry::file("x"), b"").finish()),
        ("null manifest", Writer::default().add(Entry::file("manifest.json"), b"null").finish()),
    ];
    for (name, archive) in cases {
        let file = bench.write("broken.archive", archive);
        let outcome = bench.mica.run(&["load", "-i", &file.to_string_lossy()]);
        assert_eq!(outcome.code, 1, "{name}: {outcome}");
        check_says(&outcome.stderr, &["error"]);
    }
    // A digest that does not match its bytes, of a layer that the store does not have yet.
    let layer = Writer::default().add(Entry::file("b"), b"1").finish();
    let other = Writer::default().add(Entry::file("b"), b"2").finish();
    let mut archive = fs::read(loadable(&bench, &layer)).expect("the archive");
    let place =
        archive.windows(layer.len()).position(|window| window == layer).expect("the layer in the archive");
    archive[place..place + other.len()].copy_from_slice(&other);
    let file = bench.write("broken.archive", archive);
    let outcome = bench.mica.fails(&["load", "-i", &file.to_string_lossy()], 1);
    check_says(&outcome.stderr, &["sha256:"]);
}
