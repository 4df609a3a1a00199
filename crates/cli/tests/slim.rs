//! `mica slim`: what is kept is enough, what goes was not used, and a result that does not work gets no name.

use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use mica_testkit::{Mica, Need, Outcome, SavedImage, Tree, bases, examples, http, missing};
use serde_json::Value;

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
/// A server in an interpreter, on a machine that runs other tests.
const SERVER_PATIENCE: Duration = Duration::from_secs(60);

fn skip(reason: &str) {
    println!("skipped: {reason}");
}

/// A store with a busybox base, and an image `app` made of this Dockerfile.
struct Bench {
    mica: Mica,
    // Kept for as long as the store.
    _context: tempfile::TempDir,
}

impl Bench {
    fn new(needs: &[Need], dockerfile: &str) -> Option<Bench> {
        let base = match missing(needs).map_or_else(bases::busybox, Err) {
            Ok(base) => base,
            Err(reason) => {
                skip(&reason);
                return None;
            }
        };
        // A user's namespaces and devices are the business of whoever set the machine up.
        if needs.contains(&Need::Unprivileged)
            && fs::OpenOptions::new().write(true).open("/dev/fuse").is_err()
        {
            skip("`/dev/fuse` is for root only");
            return None;
        }
        let mica = Mica::new(BINARY);
        mica.import(&base, "base:1");
        let context = Mica::temporary_dir();
        fs::write(context.path().join("Dockerfile"), dockerfile).expect("a Dockerfile");
        mica.ok(&["build", "-q", "-t", "app", &context.path().to_string_lossy()]);
        Some(Bench { mica, _context: context })
    }

    fn slim(&self, arguments: &[&str]) -> Outcome {
        self.mica.ok(&[&["slim"], arguments].concat())
    }

    /// Slimming fails with exit code 1 and says all of `expect`; nothing is left of it.
    #[track_caller]
    fn check_fails(&self, arguments: &[&str], expect: &[&str]) {
        let images = self.mica.ok(&["images", "-a", "-q"]).stdout;
        let outcome = self.mica.fails(&[&["slim"], arguments].concat(), 1);
        assert!(!outcome.stderr.contains("panicked at"), "{outcome}");
        for text in expect {
            assert!(outcome.stderr.contains(text), "does not say `{text}`: {outcome}");
        }
        assert_eq!(outcome.stdout, "", "errors are for stderr");
        assert_eq!(self.mica.ok(&["images", "-a", "-q"]).stdout, images);
        assert_eq!(self.mica.ok(&["ps", "-a", "-q"]).stdout, "");
        self.mica.check_nothing_left();
    }

    fn tree(&self, image: &str) -> Tree {
        SavedImage::of(&self.mica, image).tree
    }
}

/// All of the slim tree is in the whole one, with the same attributes and contents.
#[track_caller]
fn check_part_of(slim: &Tree, whole: &Tree) {
    for (path, node) in slim {
        let mut expect = whole.get(path).unwrap_or_else(|| panic!("`{path}` is new")).clone();
        // Another name of the file may be the first one now.
        expect.hardlink_to.clone_from(&node.hardlink_to);
        assert_eq!(*node, expect, "{path}");
    }
}

fn is_at_most_a_tenth(slimmed: &str) -> bool {
    let value: Value = serde_json::from_str(slimmed).expect("JSON");
    let number = |name: &str| value[name].as_u64().unwrap_or_else(|| panic!("`{name}`: {value}"));
    println!("{} of {} bytes", number("KeptBytes"), number("AllBytes"));
    number("KeptBytes") * 10 <= number("AllBytes")
}

const SCRIPT: &str = r#"FROM base:1
RUN mkdir -p /data/big /data/listed /srv/state && dd if=/dev/zero of=/data/big/x bs=1M count=5 2>/dev/null \
    && echo used > /data/first && ln /data/first /data/second && ln /data/first /data/third \
    && ln -s ../data/second /data/link && ln -s loop /data/loop && ln -s /data/loop/.. /data/deep \
    && echo odd > "$(printf '/data/a\nb \377\001')" && touch /data/listed/one && chmod 750 /data/listed \
    && echo seed > /srv/state/seed && mkfifo /data/pipe && chown 7:8 /data/first
RUN printf '#!/bin/sh\ncat /data/link /data/third /srv/state/seed; ls /data/listed > /dev/null\n\
cat "$(printf "/data/a\\nb \\377\\001")"\ncat /data/loop /data/deep/x 2> /dev/null\n\
test -e /nowhere || test -p /data/pipe && echo "works as $(whoami)"\n' > /run.sh && chmod 755 /run.sh
RUN echo 'web:x:7:8::/home/web:/bin/sh' >> /etc/passwd && mkdir -p /home/web && chown 7:8 /home/web
LABEL kept=yes
ENV GREETING=hello
VOLUME /srv/state
WORKDIR /work
USER web
EXPOSE 8080
CMD ["/run.sh"]
"#;

fn check_script(needs: &[Need]) {
    let Some(bench) = Bench::new(needs, SCRIPT) else { return };
    let before = bench.mica.ok(&["image", "inspect", "app"]).stdout;
    let outcome = bench.slim(&["app"]);
    assert!(outcome.stderr.contains("works as web"), "{outcome}");
    assert!(outcome.stdout.starts_with("Kept "), "{outcome}");
    assert!(outcome.stdout.contains("/data/big  (1 file)"), "{outcome}");
    assert_eq!(outcome.stdout.lines().last(), Some("app:slim"), "{outcome}");
    let ran = bench.mica.ok(&["run", "--rm", "app:slim"]).stdout;
    assert_eq!(ran, "used\nused\nseed\nodd\nworks as web\n");
    assert_eq!(bench.mica.ok(&["image", "inspect", "app"]).stdout, before, "the image itself is not touched");

    let (whole, slim) = (SavedImage::of(&bench.mica, "app"), SavedImage::of(&bench.mica, "app:slim"));
    check_part_of(&slim.tree, &whole.tree);
    let has = |path: &str| slim.tree.contains_key(path);
    for path in [
        "data/link",
        "data/second",
        "data/third",
        "data/listed",
        "data/loop",
        "data/pipe",
        "work",
        "home/web",
    ] {
        assert!(has(path), "{path}");
    }
    // Of all that the base brought, the one program is left.
    for path in ["data/first", "data/big", "data/listed/one", "bin/vi"] {
        assert!(!has(path), "{path}");
    }
    assert_eq!(slim.tree["data/third"].hardlink_to.as_deref(), Some("data/second"));
    let without = |config: &Value, names: &[&str]| {
        let mut config = config.clone();
        names.iter().for_each(|name| drop(config.as_object_mut().expect("an object").remove(*name)));
        config
    };
    let own = ["history", "rootfs"];
    assert_eq!(without(&slim.config, &own), without(&whole.config, &own));
    assert_eq!(slim.config["history"].as_array().map(Vec::len), Some(1));
    assert_eq!(slim.config["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(1));

    // The same uses give the same image.
    let again = bench.slim(&["-q", "-t", "again", "app"]);
    assert_eq!(again.stdout.trim(), slim.id, "{again}");
    assert!(!again.stderr.contains("Running"), "{again}");
    let none = bench.mica.ok(&["ps", "-a", "-q"]).stdout
        + &bench.mica.ok(&["images", "-q", "-f", "dangling=true"]).stdout;
    assert_eq!(none, "");
}

#[test]
fn root_a_script_keeps_what_it_uses() {
    check_script(&[Need::Root]);
}

#[test]
fn rootless_a_script_keeps_what_it_uses() {
    check_script(&[Need::Unprivileged, Need::Tool("newuidmap")]);
}

const SERVER: &str = r#"FROM base:1
RUN mkdir -p /www/cgi-bin && echo '<p>page</p>' > /www/index.html && echo late > /www/late.html && echo no > /www/unused
EXPOSE 8080
HEALTHCHECK CMD test -e /www/unused
CMD ["httpd", "-f", "-v", "-p", "8080", "-h", "/www"]
"#;

#[test]
fn root_a_server_is_asked_and_stopped() {
    check_server(&[Need::Root]);
}

#[test]
fn rootless_a_server_is_asked_and_stopped() {
    check_server(&[Need::Unprivileged, Need::Tool("newuidmap")]);
}

fn check_server(needs: &[Need]) {
    let Some(bench) = Bench::new(needs, SERVER) else { return };
    let outcome = bench.slim(&["--network=none", "--http", "/", "--http", "8080/late.html", "app"]);
    for text in ["Port 8080 answered 200 at `/`", "Port 8080 answered 200 at `/late.html`"] {
        // On the image and on the result.
        assert_eq!(outcome.stderr.matches(text).count(), 2, "{outcome}");
    }
    assert!(outcome.stderr.contains("warning: the image has a HEALTHCHECK"), "{outcome}");
    let tree = bench.tree("app:slim");
    assert!(tree.contains_key("www/late.html") && !tree.contains_key("www/unused"), "{:?}", tree.keys());
    // Tests beside the server; each has a container of its own.
    let tests = ["--test", "test -e /www/unused", "--test", "sh -c 'test -e /etc/group'"];
    bench.slim(&[&["--network=none", "-t", "more", "--http", "8080"], tests.as_slice(), &["app"]].concat());
    let tree = bench.tree("more");
    assert!(tree.contains_key("www/unused") && !tree.contains_key("www/late.html"), "{:?}", tree.keys());
    // Tests in place of it.
    bench.slim(&["-t", "tests", "--test", "cat /www/unused", "app"]);
    assert!(!bench.tree("tests").contains_key("www/index.html"));
    // A time in place of a page.
    bench.slim(&["-t", "timed", "--for", "1s", "app"]);
    let name = ["run", "--rm", "--network=none", "timed", "cat", "/www/index.html"];
    assert_ne!(bench.mica.run(&name).code, 0);
}

#[test]
fn root_what_fails_gets_no_name() {
    let dockerfile = "FROM base:1\nRUN mkdir /d && touch /d/a /d/b\nEXPOSE 80 81\nCMD [\"sh\", \"-c\", \"echo broken >&2; exit 3\"]\n";
    let Some(bench) = Bench::new(&[Need::Root], dockerfile) else { return };
    let check = |arguments: &[&str], expect: &[&str]| bench.check_fails(arguments, expect);
    check(&["app"], &["exit code 3", "broken", "hint: the image itself must work first"]);
    check(&["app", "no-such-program"], &["no-such-program", "hint:"]);
    check(&["--timeout", "1s", "app", "sleep", "100"], &["still ran after 1 s", "--http PORT/PATH"]);
    // A server that does not answer, one that answers badly, one that ends.
    let never = ["--network=none", "--timeout", "2s", "--http", "80", "app", "sleep", "100"];
    check(
        &never,
        &["no good answer from port 80, path `/`, in 2 s: nobody listens", "hint: see that it listens"],
    );
    let badly = [
        "--network=none",
        "--timeout",
        "3s",
        "--http",
        "80/none",
        "app",
        "httpd",
        "-f",
        "-p",
        "80",
        "-h",
        "/d",
    ];
    check(&badly, &["status 404"]);
    let ends = ["--network=none", "--http", "80", "app", "sh", "-c", "echo bye; exit 0"];
    check(&ends, &["ended with exit code 0 before it answered", "bye"]);
    let silent = [
        "--network=none",
        "--timeout",
        "2s",
        "--http",
        "80",
        "app",
        "nc",
        "-l",
        "-p",
        "80",
        "-e",
        "sleep",
        "60",
    ];
    check(&silent, &["it takes connections and does not answer"]);
    // Deaf to all signals, and told so by nobody.
    let deaf = [
        "--network=none",
        "--timeout",
        "2s",
        "--http",
        "81/x",
        "app",
        "sh",
        "-c",
        "trap '' TERM; while :; do sleep 1; done",
    ];
    check(&deaf, &["nobody listens"]);
    // The names in a directory that was listed are gone, and here they matter.
    check(&["app", "sh", "-c", "echo /d/* | grep b"], &["on the slim image: exit code 1", "--keep PATTERN"]);
    // One of two tests.
    check(&["--test", "true", "--test", "sh -c 'exit 4'", "app"], &["exit code 4"]);
    check(&["--http", "/", "app"], &["the image exposes 80/tcp, 81/tcp", "--http PORT/PATH"]);
    check(&["--keep", "relative", "app", "true"], &["bad pattern `relative`: it must begin with `/`"]);
    check(&["--keep", "/[a", "app", "true"], &["bad pattern `/[a`"]);
    check(&["--test", "'open", "app"], &["cannot be split into words"]);
    check(&["--format", "yaml", "app"], &["unknown format: `yaml`"]);
    check(&["absent"], &["No such image: absent"]);
    bench.mica.fails(&["slim", "--http", "http://x/", "app"], 2);
    bench.mica.fails(&["slim", "--timeout", "0", "app"], 2);
    // A name that would be taken from the image itself.
    bench.mica.ok(&["tag", "app", "app:slim"]);
    check(&["app", "true"], &["no name for the result", "--tag NAME"]);
}

#[test]
fn root_rules_keep_what_nobody_used() {
    let dockerfile = "FROM base:1\nRUN mkdir -p /etc/ssl/certs /opt/lib /usr/share/zoneinfo && touch /etc/ssl/certs/ca.pem \
                      /opt/lib/a.so /opt/lib/b.txt /usr/share/zoneinfo/UTC && ln -s /opt/lib /opt/link \
                      && chmod 1777 /tmp\nCMD [\"true\"]\n";
    let Some(bench) = Bench::new(&[Need::Root], dockerfile) else { return };
    let check = |arguments: &[&str], kept: &[&str], gone: &[&str], warning: Option<&str>| {
        let outcome = bench.slim(&[&["-t", "s"], arguments, &["app"]].concat());
        let tree = bench.tree("s");
        for path in kept {
            assert!(tree.contains_key(*path), "{arguments:?}: `{path}` is gone");
        }
        for path in gone {
            assert!(!tree.contains_key(*path), "{arguments:?}: `{path}` is kept");
        }
        let warned = outcome.stderr.contains("warning: ");
        assert_eq!(warned, warning.is_some(), "{outcome}");
        assert!(outcome.stderr.contains(warning.unwrap_or_default()), "{outcome}");
    };
    let defaults = ["etc/ssl/certs/ca.pem", "usr/share/zoneinfo/UTC", "etc/passwd", "tmp"];
    check(&[], &defaults, &["opt"], None);
    check(&["--no-default-keep"], &["bin/busybox"], &["etc/ssl", "usr/share", "tmp", "opt"], None);
    check(&["--keep", "/opt/*/*.so"], &["opt/lib/a.so"], &["opt/lib/b.txt"], None);
    check(&["--keep", "/opt/link"], &["opt/link", "opt/lib/a.so", "opt/lib/b.txt"], &[], None);
    check(&["--keep", "/absent/*"], &[], &["opt"], Some("`--keep /absent/*` keeps nothing"));
    check(&["--keep-packages"], &[], &["opt"], Some("`--keep-packages` keeps nothing"));
    assert_eq!(bench.tree("s")["tmp"].mode, 0o1777);
    // All of it.
    let outcome = bench.slim(&["-t", "s", "--keep", "/", "app"]);
    assert!(outcome.stdout.contains("(100.0%)"), "{outcome}");
    assert_eq!(bench.tree("s"), bench.tree("app"));
}

/// The Debian base, or `None` after saying why the test is skipped.
fn debian(needs: &[Need]) -> Option<PathBuf> {
    // Asked once a program: the mirror may take its time to not answer.
    static MIRROR: OnceLock<Result<(), String>> = OnceLock::new();
    let reason = match missing(needs) {
        Some(reason) => reason,
        None => match MIRROR.get_or_init(bases::check_mirror).clone().and_then(|()| bases::debian()) {
            Ok(base) => return Some(base),
            Err(reason) => reason,
        },
    };
    skip(&reason);
    None
}

/// Builds an example, slims it with the page that it answers, and asks the slim one for it.
fn check_example(base: &std::path::Path, name: &str, port: u16, expect: &str) {
    let mica = Mica::new(BINARY);
    mica.import(base, "debian:12");
    mica.ok(&["build", "-q", "-t", name, &examples().join(name).to_string_lossy()]);
    let slimmed = mica.ok(&["slim", "--http", "/", "--format", "json", name]);
    assert!(is_at_most_a_tenth(&slimmed.stdout), "{slimmed}");
    let own = http::free_port();
    let image = format!("{name}:slim");
    mica.ok(&["run", "-d", "--rm", "--name", "server", "-p", &format!("{own}:{port}"), &image]);
    let answer = http::get(own, SERVER_PATIENCE);
    let logs = mica.run(&["logs", "server"]);
    mica.ok(&["rm", "-f", "server"]);
    let answer = answer.unwrap_or_else(|error| panic!("{image} does not answer: {error}: {logs}"));
    assert!(answer.contains("200 OK") && answer.contains(expect), "{answer}");
    mica.check_nothing_left();
}

#[test]
fn root_a_slim_flask_is_a_tenth_and_answers() {
    let Some(base) = debian(&[Need::Root]) else { return };
    check_example(&base, "flask", 5000, "Hello from Flask");
}

#[test]
fn root_a_slim_express_is_a_tenth_and_answers() {
    let Some(base) = debian(&[Need::Root]) else { return };
    check_example(&base, "express", 3000, "<H2>Hello World</H2>");
}

#[test]
fn root_packages_are_kept_whole() {
    let base = match missing(&[Need::Root]).map_or_else(bases::debian, Err) {
        Ok(base) => base,
        Err(reason) => return skip(&reason),
    };
    let mica = Mica::new(BINARY);
    mica.import(&base, "debian:12");
    mica.ok(&["slim", "-t", "s", "--keep-packages", "debian:12", "cat", "/etc/hostname"]);
    let (whole, slim) = (SavedImage::of(&mica, "debian:12").tree, SavedImage::of(&mica, "s").tree);
    for path in ["usr/bin/ls", "usr/share/doc/coreutils/copyright", "var/lib/dpkg/info/coreutils.list"] {
        assert!(slim.contains_key(path), "{path}");
    }
    assert!(!slim.contains_key("usr/bin/perl"));
    assert!(slim["var/lib/dpkg/status"].size < whole["var/lib/dpkg/status"].size);
    mica.ok(&["slim", "-t", "s", "debian:12", "cat", "/etc/hostname"]);
    let slim = SavedImage::of(&mica, "s").tree;
    assert!(slim.contains_key("usr/share/doc/coreutils/copyright") && slim.contains_key("usr/bin/cat"));
    assert!(!slim.contains_key("usr/bin/ls") && !slim.contains_key("var/lib/dpkg/status"));
}
