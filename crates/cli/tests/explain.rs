//! `build --explain`, `why` and `inputs`: what they say of builds, of reports, and of images that have none.

use std::fs;
use std::path::PathBuf;

use mica_build::{BuildReport, Changed, Reason, StepReport, UnusedChanges, Verdict};
use mica_store::Store;
use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Mica, Need, bases, missing};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// A store with an image of one file, which no build made.
struct Bench {
    mica: Mica,
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Option<Bench> {
        if let Some(reason) = missing(&[Need::Root]) {
            println!("skipped: {reason}");
            return None;
        }
        let bench = Bench { mica: Mica::new(BINARY), dir: Mica::temporary_dir() };
        let tar = bench.write("base.tar", &Writer::default().add(Entry::file("a"), b"a").finish());
        bench.mica.import(&tar, "base:1");
        Some(bench)
    }

    fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.dir.path().join(name);
        fs::write(&path, content).expect("a file");
        path
    }

    fn put_report(&self, report: &[u8]) {
        let store = Store::open(self.mica.root()).expect("a store");
        let id = mica_image::require(&store, "base:1").expect("an image");
        store.put_build_report(&id, report).expect("a report");
    }

    /// The command must fail, say all of `expect` on stderr, and nothing on stdout.
    #[track_caller]
    fn check_fails(&self, arguments: &[&str], code: i32, expect: &[&str]) {
        let outcome = self.mica.fails(arguments, code);
        for text in expect {
            assert!(outcome.stderr.contains(text), "does not say `{text}`:\n{}", outcome.stderr);
        }
        assert_eq!(outcome.stdout, "", "errors are for stderr");
    }
}

fn report() -> BuildReport {
    let step = |name: &str, line: usize, verdict: Verdict, record: Option<i64>| StepReport {
        name: name.to_owned(),
        line,
        instruction: "RUN".to_owned(),
        verdict,
        diff_id: "sha256:00".to_owned(),
        record,
        network: Some(false),
        elapsed_ms: 2500,
        trees: vec![String::new()],
    };
    let [path, what, old, new] = ["/app/b.c", "changed", "blake3:ab", "blake3:cd"].map(str::to_owned);
    let reason = Reason::Changed(Changed { place: String::new(), path, what, old, new });
    let unused = Some(UnusedChanges { count: 2, first: vec!["/app/README.md".to_owned()] });
    BuildReport {
        version: BuildReport::VERSION,
        dockerfile: "Dockerfile".to_owned(),
        built_unix_s: 1,
        steps: vec![
            step("[2/4] COPY . /app", 2, Verdict::Chain, None),
            step("[3/4] RUN make a", 3, Verdict::Record { unused }, Some(77)),
            step("[4/4] RUN make b", 5, Verdict::Ran { reason }, None),
        ],
    }
}

#[test]
fn root_images_that_no_build_made_have_no_report() {
    let Some(bench) = Bench::new() else { return };
    for command in ["why", "inputs"] {
        bench.check_fails(&[command, "absent:1"], 1, &["absent:1", "hint: `mica images`"]);
        let expect = &["how `base:1` was built is not known", "hint: `mica build`"];
        bench.check_fails(&[command, "base:1"], 1, expect);
        bench.check_fails(&[command, "base:1", "2"], 1, expect);
        bench.check_fails(&[command, "--format", "yaml", "base:1"], 2, &["yaml", "text, json"]);
        bench.check_fails(&[command], 2, &["IMAGE"]);
    }
    bench.check_fails(&["inputs", "--kind", "written", "base:1"], 2, &["written", "absent"]);
    bench.check_fails(&["build", "--explain", "--quiet", "."], 2, &["--explain", "--quiet"]);
    bench.mica.check_nothing_left();
}

#[test]
fn root_reports_that_cannot_be_read_are_told_of() {
    let Some(bench) = Bench::new() else { return };
    let good = serde_json::to_vec(&report()).expect("a report");
    let newer = String::from_utf8_lossy(&good).replace("\"version\":1", "\"version\":2");
    let cut = good.get(..good.len() / 2).unwrap_or_default();
    for (bytes, expect) in [
        (newer.as_bytes(), "its version is 2, and this mica reads 1"),
        (cut, "EOF"),
        (b"\xff\0", "expected value"),
    ] {
        bench.put_report(bytes);
        for command in ["why", "inputs"] {
            bench.check_fails(&[command, "base:1"], 1, &["`base:1` is not readable", expect, "hint: build"]);
        }
    }
}

#[test]
fn root_why_tells_of_all_steps_or_of_one() {
    let Some(bench) = Bench::new() else { return };
    bench.put_report(&serde_json::to_vec(&report()).expect("a report"));
    let one = "[4/4] RUN make b\n  ran again: /app/b.c changed (was blake3:ab, now blake3:cd)\n  Dockerfile:5, took 2.5s, \
               did not use the network\n";
    for step in ["4", ":5", "make b", "[4/4] RUN make b"] {
        assert_eq!(bench.mica.ok(&["why", "base:1", step]).stdout, one, "{step}");
    }
    let all = bench.mica.ok(&["why", "base:1"]);
    let others = "[2/4] COPY . /app\n  cached: the same step on the same layers was done before\n  Dockerfile:2\n\n\
                  [3/4] RUN make a\n  cached: nothing it used changed; below it 2 paths differ: /app/README.md, …\n  \
                  Dockerfile:3\n\n";
    let sum = "\n3 steps: 2 cached, 1 of them although layers below changed; 1 ran, 2.5s\n";
    assert_eq!((all.stdout, all.stderr), (format!("{others}{one}{sum}"), String::new()));
    let json = |arguments: &[&str]| {
        let text = bench.mica.ok(arguments).stdout;
        serde_json::from_str::<BuildReport>(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    };
    assert_eq!(json(&["why", "--format=json", "base:1"]), report());
    let of_one = json(&["why", "--format=json", "base:1", "make a"]);
    assert_eq!(of_one.steps, report().steps.into_iter().skip(1).take(1).collect::<Vec<_>>());
    let expect =
        &["`RUN` can be 2 steps; there are:\n  [3/4] RUN make a (:3)\n  [4/4] RUN make b (:5)\n", "hint: "];
    bench.check_fails(&["why", "base:1", "RUN"], 1, expect);
    bench.check_fails(
        &["inputs", "base:1", "9"],
        1,
        &["no step is `9`; there are:\n  [2/4] COPY . /app (:2)\n"],
    );
}

#[test]
fn root_steps_without_a_record_are_told_of() {
    let Some(bench) = Bench::new() else { return };
    bench.put_report(&serde_json::to_vec(&report()).expect("a report"));
    let none = "what `[4/4] RUN make b` used is not recorded";
    let gone = "the record of what `[3/4] RUN make a` used is gone";
    bench.check_fails(&["inputs", "base:1", "4"], 1, &[none, "hint: `--cache=exact`", "`mica info`"]);
    bench.check_fails(&["inputs", "base:1", "3"], 1, &[gone, "hint: `mica build --no-cache`"]);
    let all = bench.mica.ok(&["inputs", "base:1"]);
    assert!(
        all.stdout.starts_with("[2/4] COPY . /app\nwhat `[2/4] COPY . /app` used is not"),
        "{}",
        all.stdout
    );
    assert!(all.stdout.contains(&format!("\n\n[3/4] RUN make a\n{gone}")), "{}", all.stdout);
    assert!(all.stdout.contains(&format!("\n\n[4/4] RUN make b\n{none}\n")), "{}", all.stdout);
    let json = bench.mica.ok(&["inputs", "--format=json", "--kind=read", "--kind=absent", "base:1"]);
    assert_eq!(json.stdout, "[]\n");
    assert!(json.stderr.contains(gone) && json.stderr.contains(none), "{}", json.stderr);
}

/// Names of `use` in the JSON of `inputs`, with their paths.
fn uses(json: &str) -> Vec<(String, String)> {
    let value: serde_json::Value =
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
    let text = |object: &serde_json::Value, name: &str| object[name].as_str().unwrap_or_default().to_owned();
    let objects = value.as_array().expect("a list");
    objects.iter().map(|object| (text(object, "use"), text(object, "path"))).collect()
}

#[test]
fn root_a_build_tells_why_and_what_was_used() {
    let Some(bench) = Bench::new() else { return };
    let base = match bases::busybox() {
        Ok(base) => base,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mica = &bench.mica;
    if mica.ok(&["info", "-f", "{{.Tracing}}"]).stdout != "fuse\n" {
        return println!("skipped: steps cannot be traced here: {}", mica.ok(&["info"]).stdout);
    }
    mica.import(&base, "busybox:1");
    let used = "RUN cat /app/used* && ! test -e /etc/none && ls /bin/sh";
    let dockerfile = format!("FROM busybox:1\nCOPY . /app\n{used}\n\n# mica: never\nRUN true\n");
    bench.write("Dockerfile", dockerfile.as_bytes());
    bench.write("used", b"one");
    bench.write("unused", b"one");
    let context = bench.dir.path().to_string_lossy().into_owned();
    let build = |flags: &[&str]| {
        mica.ok(&[&["build", "--network=none", "--progress=plain", "-t", "app", &context], flags].concat())
    };
    let of_used = |stdout: &str| {
        let report: BuildReport =
            serde_json::from_str(stdout).unwrap_or_else(|error| panic!("{error}: {stdout}"));
        report.steps.into_iter().find(|step| step.line == 3).expect("the step").verdict
    };

    let first = build(&["--explain=json"]);
    assert_eq!(of_used(&first.stdout), Verdict::Ran { reason: Reason::First });
    assert!(first.stderr.contains(&format!("[3/4] {used}\n")), "{}", first.stderr);
    assert_eq!(first.stderr.matches(" again: ").count(), 1, "{}", first.stderr);

    bench.write("unused", b"two");
    let unused = build(&["--explain=json"]);
    let verdict = of_used(&unused.stdout);
    let Verdict::Record { unused: Some(changes) } = &verdict else { panic!("{verdict:?}") };
    assert!(changes.first.contains(&"/app/unused".to_owned()), "{changes:?}");
    for line in [" CACHED (nothing it used changed)\n", " again: its comment `# mica: never` says so\n"] {
        assert!(unused.stderr.contains(line), "{}", unused.stderr);
    }

    bench.write("used", b"two");
    let again = build(&["--explain"]);
    assert!(again.stderr.contains(" again: /app/used changed\n"), "{}", again.stderr);
    assert!(again.stdout.contains(&format!("[3/4] {used}\n  ran again: /app/used changed (was blake3:")));
    assert_eq!(mica.ok(&["why", "app"]).stdout, again.stdout);

    bench.write("used-too", b"two");
    assert!(build(&[]).stderr.contains(" again: /app/used-too is new\n"));

    let found = uses(&mica.ok(&["inputs", "--format=json", "app", ":3"]).stdout);
    for (kind, path) in [
        ("list", "/app"),
        ("read", "/app/used"),
        ("read", "/app/used-too"),
        ("absent", "/etc/none"),
        ("link", "/bin/sh"),
        ("read", "/bin/busybox"),
    ] {
        assert!(found.contains(&(kind.to_owned(), path.to_owned())), "{kind} {path} is not in {found:?}");
    }
    assert!(found.iter().all(|(_, path)| path != "/app/unused"), "{found:?}");
    let lists = mica.ok(&["inputs", "--kind=list", "app", ":3"]);
    assert_eq!(lists.stdout, "list   /app (5 names)\n");
    assert!(lists.stderr.ends_with(", network: no\n"), "{}", lists.stderr);
    mica.check_nothing_left();
}
