//! Dockerfiles written the naive way, `COPY . .` first: which steps ran after an edit.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use mica_testkit::tar::{Entry, Writer};
use mica_testkit::{Mica, Need, bases, missing};

use crate::progress::{Step, Way, steps};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");

/// The context of every case.
const CONTEXT: [(&str, &str); 14] = [
    ("a.txt", "alpha\nbeta\n"),
    ("b.txt", "gamma\n"),
    ("unused.txt", "nobody reads this\n"),
    ("README.md", "# An application\n"),
    ("package.json", "{\"name\":\"app\"}\n"),
    ("package-lock.json", "left-pad 1.0.0\n"),
    ("requirements.txt", "flask\n"),
    ("src/main.c", "int main(void) { return 0; }\n"),
    ("src/util.c", "int util(void) { return 1; }\n"),
    ("docs/guide.md", "guide\n"),
    ("conf/app.conf", "port=80\n"),
    ("bin/run", "#!/bin/sh\necho run\n"),
    ("scripts/install.sh", "set -e\ncat package.json package-lock.json > node_modules\n"),
    (
        "scripts/make.sh",
        "set -e\nfor f in src/*.c; do tr a-z A-Z < \"$f\" > \"${f%.c}.o\"; done\ncat src/*.o > program\n",
    ),
];

/// Paths of the base beside busybox.
const BASE: [(&str, &str); 4] = [
    ("srv/used", "used\n"),
    ("srv/unused", "unused\n"),
    ("opt/bin/helper", "#!/bin/sh\necho helper of the base\n"),
    ("etc/app/default.conf", "port=0\n"),
];

struct Bench {
    mica: Mica,
    dir: tempfile::TempDir,
    busybox: PathBuf,
}

impl Bench {
    fn new() -> Result<Bench, String> {
        if let Some(reason) = missing(&[Need::Root]) {
            return Err(reason);
        }
        Ok(Bench { busybox: bases::busybox()?, mica: Mica::new(BINARY), dir: Mica::temporary_dir() })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("context").join(name)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
        fs::write(&path, content).expect("a file of the context");
    }

    /// Imports the base with one path more, or another content of one.
    fn import(&self, more: Option<(&str, &str)>) {
        let mut tar = Writer::from_archive(fs::read(&self.busybox).expect("busybox"));
        for (path, content) in
            BASE.into_iter().filter(|(path, _)| more.is_none_or(|more| more.0 != *path)).chain(more)
        {
            tar.add(Entry { mode: 0o755, ..Entry::file(path) }, content.as_bytes());
        }
        let file = self.dir.path().join("base.tar");
        fs::write(&file, tar.finish()).expect("the base");
        self.mica.import(&file, "base:1");
    }

    /// Builds; the instructions that ran.
    fn build(&self, flags: &[&str]) -> Result<Vec<Step>, String> {
        let context = self.path("").to_string_lossy().into_owned();
        let mut arguments = vec!["build", "--progress=plain", "-t", "built:1"];
        arguments.extend(flags);
        arguments.push(&context);
        let outcome = self.mica.run(&arguments);
        if outcome.code != 0 {
            return Err(outcome.to_string());
        }
        let ran = steps(&outcome.stderr).into_iter().filter(|step| step.way == Way::Ran);
        Ok(ran.collect())
    }
}

type Edit = fn(&Bench);

/// Builds, edits, builds again: exactly the steps that contain these words ran, in this order.
fn check(bench: &Bench, name: &str, dockerfile: &str, edit: Edit, expect: &[&str]) -> Result<(), String> {
    let _ = fs::remove_dir_all(bench.path(""));
    for (path, content) in CONTEXT {
        bench.write(path, content);
    }
    fs::set_permissions(bench.path("bin/run"), Permissions::from_mode(0o755)).expect("a mode");
    bench.write("Dockerfile", dockerfile);
    bench.import(None);
    bench.build(&[])?;
    let again = bench.build(&[])?;
    if !again.is_empty() {
        return Err(format!("{name}: without an edit {again:?} ran"));
    }
    edit(bench);
    let ran = bench.build(&[])?;
    let fits =
        ran.len() == expect.len() && ran.iter().zip(expect).all(|(step, words)| step.text.contains(words));
    if !fits {
        let ran: Vec<String> =
            ran.into_iter().map(|step| format!("{} ({})", step.text, step.reason)).collect();
        return Err(format!("{name}: expected {expect:?} to run, ran {ran:#?}"));
    }
    let again = bench.build(&[])?;
    if again.is_empty() { Ok(()) } else { Err(format!("{name}: the second time {again:?} ran")) }
}

const COPY: &str = "COPY . /app";

/// Two steps that read one file each.
const READERS: &str = "FROM base:1\nCOPY . /app\nRUN cat /app/a.txt > /one\nRUN wc -c < /app/b.txt > /two\n";
const LISTER: &str = "FROM base:1\nCOPY . /app\nRUN echo /app/src/* > /list\nRUN cat /app/a.txt > /one\n";
const NPM: &str =
    "FROM base:1\nWORKDIR /app\nCOPY . .\nRUN sh scripts/install.sh\nRUN cat src/*.c > bundle\n";
const PIP: &str = "FROM base:1\nCOPY . /app\nWORKDIR /app\nRUN while read p; do mkdir -p /lib/$p; done < requirements.txt\nRUN ls /lib > /installed\n";
const MAKE: &str =
    "FROM base:1\nCOPY . /app\nWORKDIR /app\nRUN sh scripts/make.sh\nRUN cp program /bin/program\n";
const CUTOFF: &str = "FROM base:1\nCOPY . /app\nRUN grep -c a /app/a.txt > /lines\nRUN cat /lines > /copy\n";
const OF_BASE: &str = "FROM base:1\nCOPY . /app\nRUN cat /srv/used > /one\nRUN cat /app/a.txt > /two\nWORKDIR /work\nRUN pwd > here\n";
const CONF_LAST: &str = "FROM base:1\nRUN cat /srv/used > /one\nCOPY conf /etc/app\nRUN cat /one > /two\nRUN cat /etc/app/app.conf > /three\n";
const EXECUTE: &str = "FROM base:1\nCOPY . /app\nENV PATH=/app/bin:/opt/bin:/bin\nRUN helper > /helped\nRUN cat /app/a.txt > /one\n";
const ABSENT: &str = "FROM base:1\nCOPY . /app\nRUN if test -e /app/.env; then cat /app/.env; else echo none; fi > /env\nRUN cat /app/a.txt > /one\n";
const STAGES: &str = "FROM base:1 AS build\nCOPY . /app\nRUN grep -c a /app/a.txt > /lines\n\
    FROM base:1\nCOPY --from=build /lines /lines\nRUN cat /lines > /copy\n";
const BIND: &str = "FROM base:1\nRUN --mount=type=bind,source=.,target=/src cat /src/a.txt > /one\n\
    RUN --mount=type=bind,source=src,target=/src ls /src > /two\n";
const BIND_FROM: &str = "FROM base:1 AS build\nCOPY . /app\n\
    FROM base:1\nRUN --mount=type=bind,from=build,source=/app,target=/src cat /src/a.txt > /one\n";
const LINKS: &str = "FROM base:1\nCOPY . /app\nRUN cat /app/link > /one || true\nRUN cat /app/b.txt > /two\n";
const TREE: &str = "FROM base:1\nCOPY . /app\nRUN cp -r /app/src /copy\nRUN rm -r /app/docs\n";
const MODES: &str = "FROM base:1\nCOPY . /app\nRUN /app/bin/run > /one || true\nRUN cat /app/a.txt > /two\n";
const NETWORK: &str =
    "FROM base:1\nCOPY . /app\nRUN wget -q http://127.0.0.1:1/ || true\nRUN cat /app/a.txt > /two\n";

#[rustfmt::skip]
const CASES: &[(&str, &str, Edit, &[&str])] = &[
    ("an unused file is edited", READERS, |b| b.write("unused.txt", "other\n"), &[COPY]),
    ("a used file is edited", READERS, |b| b.write("b.txt", "delta!\n"), &[COPY, "wc -c"]),
    ("a used file is edited, size and time kept", READERS, edit_keeping_times, &[COPY, "cat /app/a.txt"]),
    ("a new file in a directory that nobody lists", READERS, |b| b.write("docs/new", ""), &[COPY]),
    ("a new file in a listed directory", LISTER, |b| b.write("src/new.c", ""), &[COPY, "echo /app/src"]),
    ("a new file beside a listed directory", LISTER, |b| b.write("new.c", ""), &[COPY]),
    ("new content in a listed directory", LISTER, |b| b.write("src/main.c", "int x;\n"), &[COPY]),
    ("an unused file is deleted", READERS, |b| delete(b, "unused.txt"), &[COPY]),
    ("a listed file is deleted", LISTER, |b| delete(b, "src/util.c"), &[COPY, "echo /app/src"]),
    ("a comment in the Dockerfile", READERS, |b| b.write("Dockerfile", &format!("# why\n{READERS}")), &[COPY]),
    ("npm: the README", NPM, |b| b.write("README.md", "# More\n"), &["COPY . ."]),
    ("npm: a dependency", NPM, |b| b.write("package-lock.json", "left-pad 2\n"), &["COPY . .", "install.sh"]),
    ("npm: a source", NPM, |b| b.write("src/main.c", "int x;\n"), &["COPY . .", "bundle"]),
    ("pip: the README", PIP, |b| b.write("README.md", "# More\n"), &[COPY]),
    ("pip: another package", PIP, |b| b.write("requirements.txt", "flask\nflit\n"), &[COPY, "requirements", "ls /lib"]),
    ("make: the README", MAKE, |b| b.write("README.md", "# More\n"), &[COPY]),
    ("make: a source", MAKE, |b| b.write("src/main.c", "int x;\n"), &[COPY, "make.sh", "cp program"]),
    ("make: another letter case gives the same program", MAKE, |b| b.write("src/main.c", "INT main(void) { return 0; }\n"),
        &[COPY, "make.sh"]),
    ("a rerun step with an equal result", CUTOFF, |b| b.write("a.txt", "lambda\nrha\n"), &[COPY, "grep -c"]),
    ("a rerun step with another result", CUTOFF, |b| b.write("a.txt", "a\n"), &[COPY, "grep -c", "cat /lines"]),
    ("an unused path of the base", OF_BASE, |b| b.import(Some(("srv/unused", "other\n"))), &[]),
    ("a new path of the base", OF_BASE, |b| b.import(Some(("srv/new", "other\n"))), &[]),
    ("a used path of the base", OF_BASE, |b| b.import(Some(("srv/used", "other\n"))), &["cat /srv/used"]),
    ("the base has the directory of a WORKDIR", OF_BASE, |b| b.import(Some(("work/other", "\n"))), &["WORKDIR"]),
    ("configuration that is copied late", CONF_LAST, |b| b.write("conf/app.conf", "port=81\n"),
        &["COPY conf", "app.conf"]),
    ("a new file of configuration", CONF_LAST, |b| b.write("conf/new.conf", "\n"), &["COPY conf"]),
    ("the mode of an unused file", MODES, |b| chmod(b, "unused.txt", 0o600), &[COPY]),
    ("the mode of a used file", MODES, |b| chmod(b, "bin/run", 0o644), &[COPY, "bin/run"]),
    ("a name that comes earlier in PATH", EXECUTE, |b| { b.write("bin/helper", "#!/bin/sh\necho mine\n"); chmod(b, "bin/helper", 0o755); },
        &[COPY, "helper"]),
    ("another name in a directory of PATH", EXECUTE, |b| b.write("bin/other", ""), &[COPY]),
    ("a name that was absent appears", ABSENT, |b| b.write(".env", "A=1\n"), &[COPY, ".env"]),
    ("another spelling of an unused name", READERS, |b| rename(b, "unused.txt", "UNUSED.txt"), &[COPY]),
    ("another spelling of a listed name", LISTER, |b| rename(b, "src/main.c", "src/Main.c"), &[COPY, "echo /app/src"]),
    ("new times and nothing else", READERS, |b| touch(b, "a.txt"), &[]),
    ("another file, after an edit was taken back", READERS, edit_after_taking_back, &[COPY, "wc -c"]),
    ("new times of an unused file", READERS, |b| touch(b, "unused.txt"), &[]),
    ("a stage of which little is copied", STAGES, |b| b.write("unused.txt", "other\n"), &[COPY]),
    ("a stage with an equal result", STAGES, |b| b.write("a.txt", "lambda\nrha\n"), &[COPY, "grep -c"]),
    ("a stage with another result", STAGES, |b| b.write("a.txt", "a\n"), &[COPY, "grep -c", "COPY --from", "cat /lines"]),
    ("a bound context, unused", BIND, |b| b.write("unused.txt", "other\n"), &[]),
    ("a bound context, read", BIND, |b| b.write("a.txt", "other\n"), &["cat /src/a.txt"]),
    ("a bound context, listed", BIND, |b| b.write("src/new.c", ""), &["ls /src"]),
    ("a bound stage, unused", BIND_FROM, |b| b.write("unused.txt", "other\n"), &[COPY]),
    ("a bound stage, read", BIND_FROM, |b| b.write("a.txt", "other\n"), &[COPY, "cat /src/a.txt"]),
    ("a symbolic link appears", LINKS, |b| symlink("a.txt", b.path("link")).expect("a link"), &[COPY, "app/link"]),
    ("a copied tree, outside", TREE, |b| b.write("a.txt", "other\n"), &[COPY]),
    ("a copied tree, inside", TREE, |b| b.write("src/main.c", "int x;\n"), &[COPY, "cp -r"]),
    // `rm` looks at each file before it removes it.
    ("a removed tree, content", TREE, |b| b.write("docs/guide.md", "other\n"), &[COPY, "rm -r"]),
    ("a removed tree, another name", TREE, |b| b.write("docs/more.md", "other\n"), &[COPY, "rm -r"]),
    ("a step with network, edit", NETWORK, |b| b.write("unused.txt", "other\n"), &[COPY]),
    ("a step with network, base", NETWORK, |b| b.import(Some(("srv/unused", "other\n"))), &["wget"]),
];

#[test]
fn root_only_steps_that_use_the_edit_run_again() {
    let bench = match Bench::new() {
        Ok(bench) => bench,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let failed: Vec<String> = CASES
        .iter()
        .filter_map(|(name, dockerfile, edit, expect)| check(&bench, name, dockerfile, *edit, expect).err())
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}

fn delete(bench: &Bench, name: &str) {
    fs::remove_file(bench.path(name)).expect("removing a file");
}

fn chmod(bench: &Bench, name: &str, mode: u32) {
    fs::set_permissions(bench.path(name), Permissions::from_mode(mode)).expect("a mode");
}

fn rename(bench: &Bench, old: &str, new: &str) {
    fs::rename(bench.path(old), bench.path(new)).expect("another name");
}

fn touch(bench: &Bench, name: &str) {
    set_time(&bench.path(name), SystemTime::now());
}

fn set_time(path: &Path, time: SystemTime) {
    let file = File::options().write(true).open(path).expect("opening a file");
    file.set_modified(time).expect("setting a time");
}

/// The last result is that of the state that was built again, not the one that was made last.
fn edit_after_taking_back(bench: &Bench) {
    let first = fs::read_to_string(bench.path("a.txt")).expect("a file");
    for content in ["for a while\n", &first] {
        bench.write("a.txt", content);
        bench.build(&[]).expect("a build");
    }
    bench.write("b.txt", "zeta!!\n");
    // Within a second, what was taken back and what was edited would be of one age.
    set_time(&bench.path("b.txt"), SystemTime::now() + Duration::from_secs(60));
}

/// What an unpacked archive may do: another content of equal size and time.
fn edit_keeping_times(bench: &Bench) {
    let path = bench.path("a.txt");
    let time = fs::metadata(&path).and_then(|metadata| metadata.modified()).expect("a time");
    fs::write(&path, "ALPHA\nBETA\n").expect("a file");
    set_time(&path, time);
}
