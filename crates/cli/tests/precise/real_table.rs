//! One image made with apt, pip, npm, make and git after `COPY . /app`: which of its steps an edit makes run.

use crate::progress::{Way, steps};
use crate::project::{Project, file, first};
use crate::real_bench::{Bench, Directory};
use crate::scenario::{Item, put};

/// The instructions, each with a short name.
pub const LINES: [(&str, &str); 13] = [
    ("update", "RUN cp /app/apt/sources.list /etc/apt/sources.list && apt-get update"),
    ("install", "RUN apt-get install -y --no-install-recommends $(cat /app/apt/wanted)"),
    ("beta", "RUN beta > /out/apt"),
    ("pip", "RUN pip install --no-index --find-links /app/py/wheels -r /app/py/requirements.txt"),
    ("compile", "RUN python3 -m compileall -q /app/py/pkg"),
    ("app", "RUN cd /app/py && python3 app.py > /out/py"),
    ("npm", "RUN cd /app/js && npm ci --offline --no-audit --no-fund"),
    ("node", "RUN cd /app/js && node build.js"),
    ("make", "RUN make -C /app/c"),
    ("check", "RUN make -C /app/c check"),
    ("make install", "RUN make -C /app/c install"),
    ("prog", "RUN prog > /out/c"),
    ("git", "RUN cd /app/git && git init -q && git add -A && git commit -qm all && git log > /out/git"),
];

type Edit = fn(&mut Project);

fn write(project: &mut Project, path: &str, content: &str) {
    put(&mut project.context, path, file(content));
}

fn append(project: &mut Project, path: &str, more: &str) {
    let Some(Item::File { content, .. }) = project.context.get_mut(path) else { panic!("no `{path}`") };
    content.extend_from_slice(more.as_bytes());
}

/// Edits, and the names of the steps that run, besides the `COPY` of the context. Some of it is not obvious: what a step wrote anew
/// has a new time, which later steps see, so `check` and `make install` follow `make`, and `prog` follows `make install`; pip opens
/// sockets, so it follows the base, and lists `/etc`; Python lists the directories that it imports from.
#[rustfmt::skip]
const CASES: &[(&str, Edit, &[&str])] = &[
    ("nothing", |_| {}, &[]),
    ("README", |p| append(p, "README.md", "More.\n"), &[]),
    ("a new file at the top", |p| write(p, "LICENSE", "free\n"), &[]),
    ("a comment in one .c", |p| append(p, "c/src/f03.c", "/* why */\n"), &["make", "check", "make install"]),
    ("another number in one .c", |p| append(p, "c/src/f03.c", "int more = 1;\n"), &["make", "check", "make install", "prog"]),
    ("a comment in a header", |p| append(p, "c/include/one.h", "/* why */\n"), &["make", "check", "make install", "prog"]),
    ("a header that nobody includes", |p| append(p, "c/include/unused.h", "/* why */\n"), &["make install", "prog"]),
    ("a header that shadows another", |p| write(p, "c/local/one.h", "#define ONE 11\n"), &["make", "check", "make install", "prog"]),
    ("a header that shadows the system's", |p| write(p, "c/local/stdio.h", "#include_next <stdio.h>\n"), &["make", "check", "make install"]),
    ("what the tests read", |p| append(p, "c/tests/one.txt", "more\n"), &["check"]),
    ("a new test", |p| write(p, "c/tests/two.txt", "two\n"), &["check"]),
    ("a module", |p| append(p, "py/pkg/first.py", "VALUE = 2\n"), &["compile", "app"]),
    ("data of the program", |p| write(p, "py/data.json", "{\"key\": 2}\n"), &["app"]),
    ("another requirement", |p| p.wheels.wanted.push("gamma"), &["pip", "compile", "app"]),
    ("a wheel that is not wanted, other bytes", |p| { p.wheels.present.insert("delta", (1, 200)); }, &[]),
    ("a wheel that is not wanted, new version", |p| { p.wheels.present.insert("delta", (2, 200)); }, &["pip", "app"]),
    ("a source in JavaScript", |p| write(p, "js/src/util.js", "module.exports = 2;\n"), &["node"]),
    ("notes beside it", |p| append(p, "js/src/notes.txt", "more\n"), &[]),
    ("an npm package more", |p| p.modules.wanted.push("gamma"), &["npm", "node"]),
    ("an npm package that is not wanted", |p| { p.modules.present.insert("delta", (2, 200)); }, &[]),
    ("another Debian package wanted", |p| p.debs.wanted.push("gamma"), &["install", "pip", "app"]),
    ("a Debian package in the repository", |p| { p.debs.present.insert("delta", (2, 200)); }, &["update", "install"]),
    ("a tracked file", |p| append(p, "git/sub/two.txt", "more\n"), &["git"]),
    ("a file that git ignores", |p| write(p, "git/a.tmp", "\n"), &["git"]),
    ("a file of the base that nobody uses", |p| put(&mut p.base, "usr/share/base/release", file("2\n")), &["pip", "app"]),
    ("a header of the base", |p| put(&mut p.base, "usr/local/include/site.h", file("#define SITE 1\n")), &["pip", "app", "make", "check", "make install", "prog"]),
    ("a module of the base", |p| put(&mut p.base, "usr/lib/python3/dist-packages/extra.py", file("VALUE = 1\n")), &["pip", "compile", "app"]),
];

fn check(
    bench: &Bench,
    directory: &mut Directory,
    name: &str,
    edit: Edit,
    expect: &[&str],
) -> Result<(), String> {
    let lines: Vec<&str> = LINES.iter().map(|(_, line)| *line).collect();
    let mut project = first(&lines);
    let mut build = |project: &Project| -> Result<Vec<String>, String> {
        if directory.write(project) {
            bench.build_base(directory);
        }
        let outcome = bench.build(directory, &[]);
        if outcome.code != 0 {
            return Err(format!("{name}: {outcome}"));
        }
        let ran = steps(&outcome.stderr).into_iter().filter(|step| step.way == Way::Ran);
        let mut names = Vec::new();
        for step in ran {
            match LINES.iter().find(|(_, line)| step.text == *line) {
                Some((name, _)) => names.push((*name).to_owned()),
                None if step.text.starts_with("COPY") => {}
                None => names.push(step.text),
            }
        }
        Ok(names)
    };
    build(&project)?;
    // What is made again must not have the times that it had: they count whole seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    edit(&mut project);
    let ran = build(&project)?;
    println!("{name:<45} {}", if ran.is_empty() { "-".into() } else { ran.join(", ") });
    if ran == expect {
        return Ok(());
    }
    let why = bench.mica.run(&["why", "built:1"]).stdout;
    Err(format!("{name}: expected {expect:?} to run, ran {ran:?}\n{why}"))
}

#[test]
fn root_real_tools_run_again_only_for_what_they_use() {
    let bench = match Bench::new() {
        Ok(bench) => bench,
        Err(reason) => return println!("skipped: {reason}"),
    };
    let mut directory = Directory::with_minutes_between_edits();
    let failed: Vec<String> = CASES
        .iter()
        .filter_map(|(name, edit, expect)| check(&bench, &mut directory, name, *edit, expect).err())
        .collect();
    assert!(failed.is_empty(), "{} of {}:\n{}", failed.len(), CASES.len(), failed.join("\n"));
}
