//! The page, as a browser sees it.

use std::process::Command;
use std::time::Duration;

use mica_testkit::{Need, run_bounded};

use crate::support::Bench;

/// What the browser made of a page, and what it complained of.
struct Seen {
    dom: String,
}

/// Opens a page without a network. Fails if the page asks for anything or its script or policy goes wrong.
fn open(bench: &Bench, name: &str) -> Seen {
    let text = bench.read(name);
    for attribute in ["src=", "href="] {
        for value in text.split(attribute).skip(1) {
            assert!(value.starts_with("\"#"), "{name} leads outside: {}", &value[..value.len().min(60)]);
        }
    }
    let mut command = Command::new(browser());
    command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]);
    command.args(["--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--dump-dom"]);
    command.arg(format!("--user-data-dir={}", bench.text("profile"))).env("HOME", bench.path(""));
    command.arg(format!("file://{}", bench.text(name)));
    let outcome = run_bounded(command, Duration::from_secs(120));
    assert_eq!(outcome.code, 0, "{}", outcome.stderr);
    let complaints: Vec<&str> = outcome
        .stderr
        .lines()
        .filter(|line| line.contains("CONSOLE") || line.contains("Refused to"))
        .collect();
    assert!(complaints.is_empty(), "{name}: {complaints:#?}");
    assert!(
        outcome.stdout.contains("data-ready=\""),
        "the script of {name} did not run:\n{}",
        outcome.stdout
    );
    Seen { dom: outcome.stdout }
}

const fn browser() -> &'static str {
    "chromium"
}

impl Seen {
    /// A number of the head of the page.
    fn total(&self, name: &str) -> &str {
        self.between(&format!("data-total=\"{name}\">"), "<")
    }

    fn between(&self, start: &str, end: &str) -> &str {
        let rest = self.dom.split(start).nth(1).unwrap_or_else(|| panic!("no `{start}` in\n{}", self.dom));
        rest.split(end).next().unwrap_or_default()
    }

    /// The row of the table that has this name of a step.
    #[track_caller]
    fn row(&self, name: &str) -> Row {
        let rows = self.dom.split("<tr id=\"row-").skip(1);
        let row = rows.filter_map(|row| row.split("</tr>").next()).find(|row| row.contains(name));
        let row = row.unwrap_or_else(|| panic!("no row of `{name}` in\n{}", self.dom));
        let number = |key: &str| {
            let text = row.split(&format!("data-{key}=\"")).nth(1).and_then(|rest| rest.split('"').next());
            text.and_then(|text| text.parse().ok()).expect("a number")
        };
        // Without tags.
        let words = row.split('<').filter_map(|piece| piece.split_once('>')).map(|(_, text)| text);
        Row { start_ms: number("start"), end_ms: number("end"), text: words.collect::<Vec<_>>().join("|") }
    }
}

struct Row {
    start_ms: u64,
    end_ms: u64,
    text: String,
}

impl Row {
    #[track_caller]
    fn says(&self, words: &[&str]) {
        for word in words {
            assert!(self.text.contains(word), "no `{word}` in {}", self.text);
        }
    }
}

#[test]
fn root_a_build_is_pictured() {
    let Some(bench) = Bench::new(&[Need::Root, Need::Tool(browser())]) else { return };
    bench.write("context/a.txt", "12345");
    bench.write(
        "context/Dockerfile",
        "FROM base:1 AS one\nCOPY a.txt /a\nRUN echo '<script>alert(1)</script>' > /b\n\
         FROM base:1 AS two\nRUN echo two > /two\n\
         FROM one\nCOPY --from=two /two /two\n",
    );
    let page = bench.text("page.html");
    bench.mica.ok(&bench.build(&["-t", "pictured:1", "--timings", &page]));
    let seen = open(&bench, "page.html");
    assert_eq!((seen.total("steps"), seen.total("ran"), seen.total("cached")), ("4", "4", "0"));
    assert!(seen.dom.contains("<h1>pictured:1</h1>") && seen.dom.contains(">built</strong>"));
    let (copy, run) = (seen.row("COPY a.txt /a"), seen.row("RUN echo '&lt;script"));
    copy.says(&["|ran|", "no earlier result", "Dockerfile:2, one", "|5B|"]);
    assert!(copy.end_ms <= run.start_ms, "what waits begins later: {} {}", copy.end_ms, run.start_ms);
    let last = seen.row("COPY --from=two");
    last.says(&["|yes|"]);
    assert!(seen.row("RUN echo two").end_ms <= last.start_ms);
    seen.row("docker.io/library/base:1").says(&["the store has it"]);
    seen.row("looking at the build context").says(&["|before the steps|"]);
    seen.row("storing the image").says(&["|after the steps|"]);

    bench.mica.ok(&bench.build(&["-t", "pictured:1", "--timings", &page]));
    let seen = open(&bench, "page.html");
    assert_eq!((seen.total("steps"), seen.total("ran"), seen.total("cached")), ("4", "0", "4"));
    assert!(seen.total("saved").starts_with("about "));
    seen.row("RUN echo two").says(&["|cached|", "the same step on the same layers was done before"]);
    bench.mica.check_nothing_left();
}

#[test]
fn root_a_build_that_fails_is_pictured_too() {
    let Some(bench) = Bench::new(&[Need::Root, Need::Tool(browser())]) else { return };
    bench.write("context/Dockerfile", "FROM base:1\nRUN echo secret-in-the-log; exit 3\nRUN true\n");
    let page = bench.text("page.html");
    bench.mica.fails(&bench.build(&["--timings", &page]), 1);
    let seen = open(&bench, "page.html");
    assert!(seen.dom.contains(">failed</strong>"));
    seen.row("RUN echo secret-in-the-log").says(&["|failed|", "exit code: 3"]);
    seen.row("RUN true").says(&["|not reached|"]);
    // What programs print is not on the page: it may hold what only the terminal's owner should see.
    assert!(!seen.dom.contains(">secret-in-the-log<"));

    bench.write("context/Dockerfile", "FROM base:1\nNONSENSE\n");
    bench.mica.fails(&bench.build(&["--timings", &page]), 1);
    assert!(open(&bench, "page.html").dom.contains("No step was planned."));
    let names: Vec<_> = std::fs::read_dir(bench.path("")).expect("a directory").flatten().collect();
    let left = names.iter().any(|entry| entry.file_name().to_string_lossy().starts_with(".tmp"));
    assert!(!left, "{names:?}");
}

#[test]
fn root_a_large_build_is_pictured() {
    let Some(bench) = Bench::new(&[Need::Root, Need::Tool(browser())]) else { return };
    let mut dockerfile = String::new();
    for stage in 0..30 {
        dockerfile += &format!("FROM base:1 AS s{stage}\n");
        for step in 0..9 {
            dockerfile += &format!("WORKDIR /w{stage}/{step}\n");
        }
    }
    dockerfile += "FROM base:1\n";
    for stage in 0..30 {
        dockerfile += &format!("COPY --from=s{stage} /w{stage} /w{stage}\n");
    }
    bench.write("context/Dockerfile", &dockerfile);
    let page = bench.text("page.html");
    bench.mica.ok(&bench.build(&["--timings", &page]));
    let seen = open(&bench, "page.html");
    assert_eq!(seen.total("steps"), "300");
    let rows: usize = seen.between("data-ready=\"", "\"").parse().expect("a number");
    assert_eq!(rows, 302, "the steps, the base image, and the image");
}

#[test]
fn root_a_page_that_cannot_be_written_is_told_before_the_build() {
    let Some(bench) = Bench::new(&[Need::Root]) else { return };
    bench.write("context/Dockerfile", "FROM base:1\nRUN echo done > /done\n");
    let check = |path: &str, expect: &str| {
        let outcome = bench.mica.fails(&bench.build(&["--timings", path]), 1);
        assert!(outcome.stderr.contains(expect), "{}", outcome.stderr);
        assert!(!outcome.stderr.contains("RUN echo"), "{}", outcome.stderr);
    };
    check(&bench.text("absent/page.html"), "is no directory");
    check(&bench.text("context"), "it is a directory");
}
