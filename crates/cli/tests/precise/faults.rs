//! Broken stores, missing devices, builds at the same time: the build is right, slower at worst, and nothing stays behind.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use mica_testkit::{Mica, Need, Outcome, Random, SavedImage, bases, differences, missing, run_bounded};

use crate::progress::{Way, steps};

const BINARY: &str = env!("CARGO_BIN_EXE_mica");
const DEADLINE: Duration = Duration::from_secs(120);
const DOCKERFILE: &str = "FROM base:1\nCOPY . /app\nRUN cat /app/one > /made-one\nRUN cat /app/two /made-one > /made-two\n\
    RUN echo /app/* /bin/* > /listed; rm -rf /var\n";

struct Bench {
    mica: Mica,
    context: tempfile::TempDir,
}

impl Bench {
    /// A store with the base; a context of a Dockerfile and three files.
    fn new(needs: &[Need], dockerfile: &str) -> Option<Bench> {
        let base = match missing(needs) {
            Some(reason) => Err(reason),
            None => bases::busybox(),
        };
        let base = base.map_err(|reason| println!("skipped: {reason}")).ok()?;
        let bench = Bench { mica: Mica::new(BINARY), context: Mica::temporary_dir() };
        bench.mica.import(&base, "base:1");
        for (name, content) in [("Dockerfile", dockerfile), ("one", "1\n"), ("two", "2\n"), ("unused", "3\n")]
        {
            bench.write(name, content);
        }
        Some(bench)
    }

    fn write(&self, name: &str, content: &str) {
        fs::write(self.context.path().join(name), content).expect("a file of the context");
    }

    fn command(&self, flags: &[&str]) -> Command {
        let context = self.context.path().to_string_lossy().into_owned();
        let mut arguments = vec!["build", "--progress=plain", "-t", "built:1"];
        arguments.extend(flags);
        arguments.push(&context);
        self.mica.command(&arguments)
    }

    #[track_caller]
    fn build(&self, name: &str) -> Outcome {
        let outcome = run_bounded(self.command(&[]), DEADLINE);
        assert!(outcome.code == 0 && !outcome.stderr.contains("panicked"), "{name}: {outcome}");
        outcome
    }

    /// Insists that the image is what a build without cache in a new store makes, and that nothing is left.
    #[track_caller]
    fn check(&self, name: &str) {
        let fresh = Mica::new(BINARY);
        fresh.import(&bases::busybox().expect("the base"), "base:1");
        let context = self.context.path().to_string_lossy().into_owned();
        fresh.ok(&["build", "--no-cache", "-t", "built:1", &context]);
        let expect = SavedImage::of(&fresh, "built:1").tree;
        let found = differences(&expect, &SavedImage::of(&self.mica, "built:1").tree, |_| false);
        assert!(found.is_empty(), "{name}: {}", found.join("\n"));
        self.mica.check_nothing_left();
    }
}

/// The instructions that ran.
fn ran(outcome: &Outcome) -> Vec<String> {
    steps(&outcome.stderr).into_iter().filter(|step| step.way == Way::Ran).map(|step| step.text).collect()
}

/// The same command where `/dev/fuse` is another device.
fn without_fuse(command: &Command) -> Command {
    let mut inner = Command::new("unshare");
    inner.args(["--mount", "--propagation=private", "sh", "-c"]);
    inner.args(["mount --bind /dev/null /dev/fuse && exec \"$@\"", "sh"]);
    inner.arg(command.get_program()).args(command.get_args()).stdin(Stdio::null());
    inner
}

#[test]
fn root_without_fuse_records_are_used_and_none_are_made() {
    let needs = [Need::Root, Need::Tool("unshare")];
    let Some(bench) = Bench::new(&needs, DOCKERFILE) else { return };
    let info = |command: Command| run_bounded(command, DEADLINE).stdout;
    let untraced = info(without_fuse(&bench.mica.command(&["info"])));
    let traced = info(bench.mica.command(&["info"]));
    assert_ne!(traced, untraced, "`mica info` says whether the inputs of steps are known");
    assert!(untraced.contains("Tracing: no") && traced.contains("Tracing: fuse"), "{untraced}{traced}");

    let build = |name: &str| {
        let outcome = run_bounded(without_fuse(&bench.command(&[])), DEADLINE);
        assert_eq!(outcome.code, 0, "{name}: {outcome}");
        bench.check(name);
        ran(&outcome)
    };
    assert_eq!(build("first").len(), 4);
    assert_eq!(build("nothing changed").len(), 0);
    bench.write("unused", "4\n");
    assert_eq!(build("nothing is known of what steps used").len(), 4);
    bench.write("unused", "5\n");
    assert_eq!(ran(&bench.build("recorded")).len(), 4);
    bench.write("unused", "6\n");
    assert_eq!(build("a record of a traced run").len(), 1);
    bench.write("two", "7\n");
    assert_eq!(build("what a traced run used").len(), 2);
}

#[test]
fn root_builds_of_one_dockerfile_at_the_same_time() {
    let dockerfile = DOCKERFILE.replace("RUN cat", "RUN sleep 0.1; cat");
    let Some(bench) = Bench::new(&[Need::Root], &dockerfile) else { return };
    for round in 0..4 {
        bench.write("two", &format!("round {round}\n"));
        let spawn =
            || bench.command(&[]).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a build");
        let builds: Vec<_> = (0..3).map(|_| spawn()).collect();
        for mut build in builds {
            assert!(build.wait().expect("the end of a build").success(), "round {round}");
        }
        bench.check(&format!("round {round}"));
        assert!(ran(&bench.build("again")).is_empty(), "round {round}");
    }
}

/// All files below a directory.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => found.extend(files(&entry.path())),
            Ok(kind) if kind.is_file() => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

/// The one file of the layers with this name.
fn file_of_layers(bench: &Bench, name: &str) -> PathBuf {
    let mut found = files(&bench.mica.root().join("layers"));
    found.retain(|path| path.ends_with(name));
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

#[test]
fn root_files_of_the_store_are_removed_or_cut_by_hand() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 3] = [
        ("removed", |path| fs::remove_file(path).expect("removing")),
        ("cut", |path| fs::write(path, "").expect("cutting")),
        ("its directory removed", |path| {
            fs::remove_dir_all(path.parent().expect("a parent")).expect("removing");
        }),
    ];
    for name in ["tree/made-one", "index"] {
        for (damage, apply) in damages {
            let Some(bench) = Bench::new(&[Need::Root], DOCKERFILE) else { return };
            bench.build("first");
            let made = file_of_layers(&bench, "tree/made-one");
            let layer = made.ancestors().nth(2).expect("the layer").to_owned();
            apply(&layer.join(name));
            bench.write("two", "other\n");
            let name = format!("{name} {damage}");
            bench.build(&name);
            bench.check(&name);
        }
    }
    // No step looks at the file, and none has to run.
    for (damage, apply) in damages.into_iter().filter(|(damage, _)| *damage != "cut") {
        let Some(bench) = Bench::new(&[Need::Root], DOCKERFILE) else { return };
        bench.build("first");
        apply(&file_of_layers(&bench, "tree/made-one"));
        let name = format!("taken over, {damage}");
        bench.build(&name);
        bench.check(&name);
    }
}

/// Runs a statement of SQL on the store's database for every record, with a random position in its inputs.
fn alter(bench: &Bench, script: &str, seed: u64) {
    let database = bench.mica.root().join("state.db");
    let mut command = Command::new("python3");
    command.args(["-c", script]).arg(database).arg(seed.to_string());
    let outcome = run_bounded(command, DEADLINE);
    assert_eq!(outcome.code, 0, "{outcome}");
}

/// Changes one byte in, or cuts, the inputs of all records.
const ALTER: &str = "
import random, sqlite3, sys
random.seed(int(sys.argv[2]))
database = sqlite3.connect(sys.argv[1])
rows = list(database.execute('SELECT record, inputs FROM step_inputs WHERE length(inputs) > 0'))
assert rows
for record, inputs in rows:
    inputs = bytearray(inputs)
    position = random.randrange(len(inputs))
    if random.randrange(3) == 0:
        del inputs[position:]
    else:
        inputs[position] ^= 1 << random.randrange(8)
    database.execute('UPDATE step_inputs SET inputs = ? WHERE record = ?', (bytes(inputs), record))
database.commit()
";

#[test]
fn root_records_are_altered_by_hand() {
    let Some(bench) = Bench::new(&[Need::Root, Need::Tool("python3")], DOCKERFILE) else { return };
    bench.build("first");
    let mut random = Random::new(3);
    for round in 0..12 {
        alter(&bench, ALTER, round);
        let name = ["one", "two", "unused"][random.below(3) as usize];
        bench.write(name, &format!("round {round}\n"));
        bench.build(&format!("round {round}, {name}"));
        bench.check(&format!("round {round}, {name}"));
    }
}

#[test]
fn root_a_step_that_walks_everything_is_right() {
    let dockerfile = "FROM base:1\nCOPY . /app\nRUN find / -xdev -type f | sort | xargs md5sum > /sums 2>&1 || true\n\
        RUN tar c -f - -C / app bin etc | wc -c > /size\nRUN rm -rf /app /srv /usr; cp -a /bin /bin2\n";
    let Some(bench) =
        Bench::new(&[Need::Root], &dockerfile.replace("find / -xdev", "find /app /bin /var /usr"))
    else {
        return;
    };
    for round in ["first", "again"] {
        bench.write("unused", round);
        bench.build(round);
        bench.check(round);
    }
    assert!(ran(&bench.build("nothing changed")).is_empty());
}

#[test]
fn root_failed_and_killed_steps_leave_no_record() {
    let dockerfile = "FROM base:1\nCOPY . /app\nRUN cat /app/one > /made; sleep 0.5; grep -q fine /app/two\nRUN cat /made\n";
    let Some(bench) = Bench::new(&[Need::Root], dockerfile) else { return };
    for round in 0..3 {
        bench.write("unused", &format!("{round}\n"));
        let outcome = run_bounded(bench.command(&[]), DEADLINE);
        assert_eq!(outcome.code, 1, "round {round}: {outcome}");
        assert!(ran(&outcome).iter().all(|step| step.starts_with("COPY")), "round {round}: {outcome}");
        bench.mica.check_nothing_left();
    }
    bench.write("two", "fine\n");
    for (round, group) in [(0, true), (1, false), (2, true)] {
        bench.write("one", &format!("{round}\n"));
        let mut command = bench.command(&[]);
        command.process_group(0).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("a build");
        std::thread::sleep(Duration::from_millis(300));
        if group {
            let group = rustix::process::Pid::from_child(&child);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        let _ = child.kill();
        child.wait().expect("the end of a build");
        bench.mica.check_nothing_left();
        bench.build("after a kill");
        bench.check("after a kill");
    }
}
