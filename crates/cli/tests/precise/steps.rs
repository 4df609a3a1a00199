//! Random instructions: each does something that a file system notices, and writes down what it saw.

use mica_testkit::Random;

use crate::scenario::{Item, Scenario};

const NAMES: [&str; 14] = [
    "one", "two", "Two", "three", "x.txt", "y.txt", "run.sh", "tool", "helper", ".hidden", "sub", "Sub",
    "a b", "deep",
];
/// Directories of bases where things happen: data, two places of the `PATH`, configuration.
pub const PLACES: [&str; 5] = ["srv", "opt/bin", "usr/local/bin", "etc/conf", "srv/lib"];

/// One of these.
pub fn pick<'a, T: ?Sized>(random: &mut Random, from: &[&'a T]) -> &'a T {
    from[random.below(from.len() as u64) as usize]
}

/// A path of one to three names below `place` (which may be empty).
pub fn new_path(random: &mut Random, place: &str) -> String {
    let mut path = place.to_owned();
    for _ in 0..=random.below(3).min(random.below(3)) {
        if !path.is_empty() {
            path.push('/');
        }
        path += pick(random, &NAMES);
    }
    path
}

/// A path that steps may look at, absolute: mostly one that is there, of base, context or an earlier step.
fn path(random: &mut Random, scenario: &Scenario) -> String {
    let existing = |random: &mut Random, items: &crate::scenario::Items, before: &str| {
        let position = random.below(items.len() as u64) as usize;
        items.keys().nth(position).map(|path| format!("{before}{path}"))
    };
    let found = match random.below(12) {
        0..=4 => existing(random, &scenario.context, "/app/"),
        5..=7 => existing(random, &scenario.base, "/"),
        8 => Some(format!("/work/{}", pick(random, &NAMES))),
        9 => Some(new_path(random, "/app")),
        10 => Some(format!("/{}", new_path(random, "").replacen("one", "etc/conf", 1))),
        _ => {
            let place = format!("/{}", pick(random, &PLACES));
            Some(new_path(random, &place))
        }
    };
    // Of `/etc` only what is ours: files that every container gets differ from one to the next.
    found.filter(|path| path != "/etc").unwrap_or_else(|| "/app".into())
}

/// A directory that steps may list.
fn directory(random: &mut Random, scenario: &Scenario) -> String {
    match random.below(4) {
        0 => "/app".into(),
        1 => format!("/{}", pick(random, &PLACES)),
        2 => format!("/app/{}", pick(random, &NAMES)),
        _ => {
            let path = path(random, scenario);
            path.rsplit_once('/')
                .map_or("/app", |(parent, _)| if matches!(parent, "" | "/etc") { "/srv" } else { parent })
                .into()
        }
    }
}

/// One thing that a shell does. It prints what it saw; times, inode numbers and orders of directories are left out, as two
/// builds without a cache differ in them.
fn operation(random: &mut Random, scenario: &Scenario) -> String {
    let p = format!("'{}'", path(random, scenario));
    let q = format!("'{}'", path(random, scenario));
    let d = format!("'{}'", directory(random, scenario));
    let w = format!("'/work/{}'", pick(random, &NAMES));
    let tool = pick(random, &["tool", "helper", "run.sh"]);
    let number = random.below(1000);
    match random.below(60) {
        0..=4 => format!("cat {p}"),
        5..=6 => format!("test -e {p} && echo there || echo absent"),
        7 => format!("for t in d f L x s h; do test -$t {p} && echo $t; done"),
        8..=9 => format!("[ -d {p} ] || stat -c '%F %a %u:%g %s %h' {p}"),
        10 => format!("stat -c '%F %a %u:%g' {p}"),
        11..=12 => format!("ls {d}"),
        13 => format!("ls -a {d}"),
        14 => format!("ls -R {d}"),
        15 => format!("find {d} -type f | sort"),
        16 => format!("find {d} -name '*.txt' -exec cat {{}} + | sort"),
        17 => format!("for f in {d}/*; do echo \"$f\"; done"),
        18 => format!("cat {d}/*.txt"),
        19 => format!("readlink {p}; readlink -f {p}"),
        20 => format!("(cd {d} && pwd -P && ls | wc -l)"),
        21 => format!("cp -a {p} {w}"),
        22 => format!("cp -r {d} {w}-copy"),
        23 => format!("[ -f {p} ] && cp -L {p} {w}"),
        24 => format!("ln {p} {w}"),
        25 => format!("ln -sf {p} {w}"),
        26 => format!("chmod {} {p}", pick(random, &["600", "755", "4711", "444"])),
        27 => format!("chown {}:{} {p}", random.below(3), random.below(3)),
        28..=29 => format!("[ -d {p} ] || echo appended-{number} >> {p}"),
        30 => format!("[ -d {p} ] || echo written-{number} > {p}"),
        31 => format!("rm -rf {p}"),
        32 => format!("rm -f {p}"),
        33 => format!("mv {p} {w}"),
        34 => format!("rm -rf {d} && mkdir {d} && echo {number} > {d}/again"),
        35 => format!("mkdir -p {p}"),
        36 => format!("rmdir {p}"),
        37 => format!("tar c -f - -C {d} . | tar t | sort"),
        38 => format!("mkdir -p {w}-tar && tar c -f - -C {d} . | tar x -f - -C {w}-tar"),
        39..=41 => tool.to_owned(),
        42 => format!("command -v {tool}"),
        43 => format!("sh {p}"),
        44 => format!("(. {p})"),
        45 => format!("grep -rl content {d} | sort"),
        46 => format!("find {d} -type f -exec md5sum {{}} + | sort"),
        47 => format!("sed -i s/content/edited-{number}/ {p}"),
        48 => format!("diff -r {p} {q}"),
        49 => format!("head -c 3 {p}; wc -c {p}"),
        50 => format!("cp {p} {q}"),
        51 => format!("[ -d {p} ] || {{ cat {p} > {w}; cmp {p} {w}; }}"),
        52 => format!("mkfifo /pipes/{number}"),
        53 => format!("find {d} -perm -4000 -o -user 1 | sort"),
        54 => "echo level $LEVEL $(id -u) $(pwd) $V $PATH".to_owned(),
        55 => "find / -xdev -type f -name '*.txt' | sort".to_owned(),
        56 => format!("touch {p}"),
        // Bounded: the step's own output is among them.
        57 => "head -c 200 /out/*".to_owned(),
        58 => format!(
            "chmod 2775 {d} && mkdir -p {d}/inherits && chmod {} {d}",
            pick(random, &["755", "1777", "700"])
        ),
        _ => format!("ln {p} {w}-a && ln {w}-a {w}-b && rm {p}"),
    }
}

/// A bind mount, and what of the script is seen through it: `/app` in place of what was copied.
fn bind(random: &mut Random, stage: usize, script: &str) -> String {
    let (mount, place) = match random.below(5) {
        0 | 1 => ("--mount=type=bind,target=/bound".to_owned(), "'/bound"),
        2 => ("--mount=type=bind,source=sub,target=/bound".to_owned(), "'/bound"),
        3 if stage > 0 => (
            format!("--mount=type=bind,from=s{},source=/app,target=/bound", random.below(stage as u64)),
            "'/bound",
        ),
        _ => ("--mount=type=bind,from=base:1,target=/bound".to_owned(), "'/bound/srv"),
    };
    format!("RUN {mount} {} || true", script.replace("'/app", place))
}

/// A `RUN` of some operations, whose output is kept under a number that no other line has.
fn run(random: &mut Random, scenario: &Scenario, stage: usize, number: u64) -> String {
    let count = 1 + random.below(3);
    let operations: Vec<String> = (0..count).map(|_| operation(random, scenario)).collect();
    let script = format!("{{ {}; }} > /out/{number} 2>&1", operations.join("; "));
    match random.below(16) {
        // The status of the last operation is the step's: some builds fail.
        0 => format!("RUN {script}"),
        1 => format!("RUN <<EOF\n{script}\ntrue\nEOF"),
        2 => format!("RUN {}", serde_json::json!(["/bin/sh", "-c", format!("{script}; true")])),
        3..=5 => bind(random, stage, &script),
        _ => format!("RUN {script} || true"),
    }
}

/// The path of something in the context, or a pattern.
fn source(random: &mut Random, scenario: &Scenario) -> String {
    let paths: Vec<&str> =
        scenario.context.keys().map(String::as_str).filter(|path| !path.contains(' ')).collect();
    match random.below(5) {
        0 => "*.txt".into(),
        1 => "[ot]*".into(),
        2 => ".".into(),
        _ if paths.is_empty() => ".".into(),
        _ => pick(random, &paths).to_owned(),
    }
}

/// A random instruction for the stage at this position.
pub fn line(random: &mut Random, scenario: &Scenario, stage: usize, number: u64) -> String {
    let place =
        pick(random, &["/srv/", "/etc/conf/", "/app/sub/", "/opt/bin/", "/new/place/", "/work/copied/"]);
    let kind = random.below(30);
    match kind {
        0..=2 => {
            let flags = pick(random, &["", "", "--chown=1:2 ", "--chmod=750 "]);
            format!("COPY {flags}{} {place}", source(random, scenario))
        }
        3..=4 if stage > 0 => {
            let from = random.below(stage as u64);
            let what = pick(random, &["/work", "/out", "/srv", "/app", "/etc/conf"]);
            format!("COPY --from=s{from} {what} {place}")
        }
        5 => "ADD archive.tar /unpacked/".into(),
        6 => format!("WORKDIR {}", pick(random, &["/app", "/work/dir", "sub", "/srv/lib", "/"])),
        7 => format!("USER {}", pick(random, &["nobody", "1:2", "root", "daemon", "root"])),
        8 => format!(
            "ENV PATH={}",
            pick(
                random,
                &["/opt/bin:/usr/local/bin:/bin", "/app:/usr/local/bin:/opt/bin:/bin", "/app/sub:/bin"]
            )
        ),
        9 => format!("ENV V={}", random.below(4)),
        10 => format!("COPY <<EOF {place}inline\ninline {}\nEOF", random.below(4)),
        _ => run(random, scenario, stage, number),
    }
}

/// A file's content: short lines of equal length, so that sizes tell nothing, or a script.
pub fn content(random: &mut Random, scenario: &Scenario) -> Vec<u8> {
    let number = random.below(1000);
    match random.below(5) {
        0 => format!("#!/bin/sh\necho tool {number:03}\ncat '{}'\n", path(random, scenario)).into(),
        1 => format!("#!/bin/sh\necho tool {number:03}; ls '{}'\n", directory(random, scenario)).into(),
        2 => Vec::new(),
        _ => format!("content {number:03}\n").into(),
    }
}

/// A new item for a path.
pub fn item(random: &mut Random, scenario: &Scenario) -> Item {
    match random.below(8) {
        0 => Item::Dir { mode: 0o755 },
        1 => Item::Link(pick(random, &NAMES).to_owned()),
        2 => Item::Link(format!("../{}", pick(random, &NAMES))),
        3 => Item::Link(path(random, scenario)),
        _ => {
            let mode = if random.below(2) == 0 { 0o644 } else { 0o755 };
            Item::File { content: content(random, scenario), mode }
        }
    }
}
