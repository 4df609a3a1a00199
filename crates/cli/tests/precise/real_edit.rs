//! Random changes of a project, each what its authors or the maintainer of its base would do between two builds.

use mica_testkit::{Mica, Random};

use crate::project::{NAMES, Project, Shelf, file, first};
use crate::real_table::LINES;
use crate::scenario::{Item, put, remove};
use crate::steps::pick;

/// Instructions beside those of the table: other flags, other ways to the same files.
const MORE: [&str; 22] = [
    "RUN make -C /app/c CFLAGS=-O1 && /app/c/build/prog > /out/c1",
    "RUN make -C /app/c CPPFLAGS='-Iinclude -Ilocal' O=/tmp/other all && cp /tmp/other/prog /out/other && rm -r /tmp/other",
    "RUN --mount=type=bind,source=c,target=/src make -C /src O=/build all && /build/prog > /out/bound",
    "RUN --mount=type=bind,source=c,target=/src,rw cd /src && touch src/f00.c && make && build/prog > /out/bound-rw",
    "RUN gcc -I/app/c/local -I/app/c/include -c -o /out/f00.o /app/c/src/f00.c",
    "RUN gcc -E -I/app/c/local -I/app/c/include /app/c/src/main.c | grep -c . > /out/lines",
    "RUN cd /app/c && for f in src/*.c; do gcc -MM -Ilocal -Iinclude $f; done > /out/depends",
    "RUN make -C /app/c -q && echo up > /out/q || echo down > /out/q",
    "RUN make -C /app/c -n > /out/n",
    "RUN dpkg -i /app/apt/repo/gamma_*.deb",
    "RUN apt-get remove -y beta || true",
    "RUN dpkg -l | grep -E 'alpha|beta|gamma|delta' > /out/dpkg || true",
    "RUN cp /app/apt/sources.list /etc/apt/sources.list && apt-get update && apt-get install -y $(cat /app/apt/wanted)",
    "RUN apt-cache --no-generate policy beta gamma | sed 1,1d > /out/policy || true",
    "RUN --mount=type=bind,source=py,target=/py pip install --no-index --find-links /py/wheels -r /py/requirements.txt",
    "RUN python3 -c 'import importlib.metadata as m; print(sorted((d.name, d.version) for d in m.distributions()))' > /out/dists",
    "RUN python3 -m compileall -q --invalidation-mode checked-hash /app/py",
    "RUN cd /app/js && npm install --offline --no-audit --no-fund --no-save --no-package-lock ./vendor/gamma-*.tgz",
    "RUN cd /app/js && ls node_modules/.bin > /out/bin; for f in node_modules/.bin/*; do $f; done > /out/bins || true",
    "RUN cd /app/git && git status --porcelain > /out/status",
    "RUN cd /app && git init -q && git add -A c js/src py/pkg && git commit -qm part && git ls-tree -r HEAD > /out/tree",
    "RUN find /app /usr/local /etc -newer /app/README.md -name '*.h' -prune -o -type f -name '*.py' -print | sort > /out/found",
];

/// Files of the base that tools look for or that nobody does.
const OF_BASE: [(&str, &[&str]); 12] = [
    ("usr/share/base/release", &["1\n", "2\n", "3\n"]),
    ("usr/share/base/other", &["1\n", "2\n"]),
    ("usr/local/include/site.h", &["#define SITE 1\n", "#define SITE 2\n"]),
    ("usr/local/include/one.h", &["#define ONE 77\n"]),
    (
        "usr/local/include/stdio.h",
        &["#include_next <stdio.h>\n", "#include_next <stdio.h>\n#define SITE 3\n"],
    ),
    ("usr/lib/python3/dist-packages/extra.py", &["VALUE = 1\n", "VALUE = 2\n"]),
    ("usr/local/lib/python3.11/dist-packages/gamma.py", &["VALUE = 'of the base'\n"]),
    ("etc/apt/apt.conf.d/99local", &["APT::Install-Recommends \"false\";\n", "// nothing\n"]),
    ("etc/gitconfig", &["[core]\n\tabbrev = 12\n", "[core]\n\tautocrlf = input\n"]),
    ("etc/pip.conf", &["[install]\nno-compile = true\n", "# nothing\n"]),
    ("usr/local/bin/beta", &["#!/bin/sh\necho beta of the base\n"]),
    ("etc/beta.conf", &["number=of the base\n"]),
];

/// Groups of instructions that follow each other: positions in the table.
const GROUPS: [&[usize]; 5] = [&[0, 1, 2], &[3, 4, 5], &[6, 7], &[8, 9, 10, 11], &[12]];

/// A project that is built by two or three groups of instructions, in a random order of the groups.
pub fn start(random: &mut Random) -> Project {
    let mut groups: Vec<usize> = (0..GROUPS.len()).collect();
    for position in (1..groups.len()).rev() {
        groups.swap(position, random.below(position as u64 + 1) as usize);
    }
    groups.truncate(2 + random.below(2) as usize);
    let lines: Vec<&str> =
        groups.iter().flat_map(|group| GROUPS[*group]).map(|line| LINES[*line].1).collect();
    let mut project = first(&lines);
    if random.below(2) == 0 {
        project.last = vec![
            "COPY --from=work /usr/local /usr/local".into(),
            "COPY --from=work /out /from".into(),
            "RUN ls /usr/local/bin > /out/listed".into(),
            "RUN for f in /from/*; do wc -c < $f; done > /out/sizes".into(),
        ];
    }
    project
}

/// Changes something; the name of what it was is for failure messages.
pub fn edit(random: &mut Random, project: &mut Project) -> &'static str {
    match random.below(20) {
        0 => readme(random, project),
        1..=6 => change_source(random, project),
        7..=8 => header(random, project),
        9..=12 => shelf(random, project),
        13..=15 => base(random, project),
        16..=17 => dockerfile(random, project),
        18 => makefile(random, project),
        _ => objects(project),
    }
}

fn readme(random: &mut Random, project: &mut Project) -> &'static str {
    let path = pick(random, &["README.md", "docs/guide.md", "docs/new.md", "js/src/notes.txt", ".env"]);
    let number = random.below(1000);
    put(&mut project.context, path, file(format!("text {number:03}\n")));
    "text that nobody reads"
}

fn any_file(random: &mut Random, project: &Project) -> Option<String> {
    let places = ["c/src/", "c/tests/", "c/include/", "py/", "js/", "git/"];
    let place = pick(random, &places);
    let files: Vec<&String> = project
        .context
        .iter()
        .filter(|(path, item)| path.starts_with(place) && matches!(item, Item::File { .. }))
        .map(|(path, _)| path)
        .collect();
    (!files.is_empty()).then(|| files[random.below(files.len() as u64) as usize].clone())
}

/// A line that changes what the file means, one that does not, and one that breaks it: by the file's language.
fn line(random: &mut Random, path: &str) -> String {
    let number = random.below(1000);
    let end = path.rsplit('.').next().unwrap_or_default();
    match (end, random.below(8)) {
        ("c", 0) | ("h", 0) => "#error broken\n".into(),
        ("c", 1..=3) | ("h", 1..=4) => format!("/* why {number:03} */\n"),
        ("c", _) => format!("int more_{number:03} = {number};\n"),
        ("h", _) => format!("#undef ONE\n#define ONE {number}\n"),
        ("py", 0..=3) => format!("# why {number:03}\n"),
        ("py", _) => format!("VALUE = {number}\n"),
        ("js", 0..=3) => format!("// why {number:03}\n"),
        ("js", _) if path.starts_with("js/src") => format!("module.exports = {number};\n"),
        ("json", _) => "\n".into(),
        ("sh", _) => format!("echo {number} > build/told\n"),
        _ => format!("text {number:03}\n"),
    }
}

fn change_source(random: &mut Random, project: &mut Project) -> &'static str {
    let Some(path) = any_file(random, project) else { return "nothing" };
    let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
    match random.below(14) {
        0 => {
            project.delete(&path);
            "a deleted file"
        }
        1 => {
            if let Some(item) = remove(&mut project.context, &path) {
                let end = path.rsplit('.').next().unwrap_or("c").to_owned();
                put(&mut project.context, &format!("{parent}/renamed{}.{end}", random.below(4)), item);
            }
            "a renamed file"
        }
        2 => {
            let end = path.rsplit('.').next().unwrap_or("c").to_owned();
            let new = format!("{parent}/new{}.{end}", random.below(4));
            let line = line(random, &new);
            put(&mut project.context, &new, file(line));
            "a new file"
        }
        3 => {
            if let Some(Item::File { mode, .. }) = project.context.get_mut(&path) {
                *mode = if *mode == 0o644 { 0o755 } else { 0o644 };
            }
            "a mode"
        }
        4 => {
            let target = any_file(random, project).unwrap_or_default();
            let target = format!("{}{target}", "../".repeat(path.matches('/').count()));
            let new = format!("{parent}/link{}.{}", random.below(3), path.rsplit('.').next().unwrap_or("c"));
            put(&mut project.context, &new, Item::Link(target));
            "a symbolic link"
        }
        5 => {
            let end = pick(random, &["tmp", "o", "pyc", "swp"]);
            put(&mut project.context, &format!("{parent}/other.{end}"), file("no code\n"));
            "a file that tools ignore"
        }
        6 => {
            // As an editor: equal size, one byte other.
            if let Some(Item::File { content, .. }) = project.context.get_mut(&path)
                && let Some(digit) = content.iter_mut().rev().find(|byte| byte.is_ascii_digit())
            {
                *digit = if *digit == b'9' { b'1' } else { *digit + 1 };
            }
            "one digit"
        }
        _ => {
            let line = line(random, &path);
            if let Some(Item::File { content, .. }) = project.context.get_mut(&path) {
                if content.len() > 4000 {
                    content.truncate(2000);
                }
                content.extend_from_slice(line.as_bytes());
            }
            "a line"
        }
    }
}

/// Headers that come before or instead of others, and those that go.
fn header(random: &mut Random, project: &mut Project) -> &'static str {
    let name = pick(random, &["one.h", "two.h", "three.h", "local.h", "site.h", "stdio.h", "unused.h"]);
    let path = format!("c/{}/{name}", pick(random, &["local", "local", "include", "src"]));
    if random.below(3) == 0 && project.context.contains_key(&path) {
        project.delete(&path);
        return "a header less";
    }
    let number = random.below(100);
    let text = match name {
        "stdio.h" => "#include_next <stdio.h>\n".into(),
        "site.h" => format!("#define SITE {number}\n"),
        "local.h" => format!("#undef LOCAL\n#define LOCAL {number}\n"),
        _ => format!("#undef {0}\n#define {0} {number}\n", name.trim_end_matches(".h").to_uppercase()),
    };
    put(&mut project.context, &path, file(text));
    "a header that shadows"
}

fn shelf(random: &mut Random, project: &mut Project) -> &'static str {
    let shelf: &mut Shelf = match random.below(3) {
        0 => &mut project.debs,
        1 => &mut project.wheels,
        _ => &mut project.modules,
    };
    let name = NAMES[random.below(NAMES.len() as u64) as usize];
    match random.below(8) {
        0..=1 => {
            if let Some(position) = shelf.wanted.iter().position(|other| *other == name) {
                if shelf.wanted.len() > 1 {
                    shelf.wanted.remove(position);
                }
            } else {
                shelf.wanted.push(name);
            }
            "what is wanted"
        }
        2 => {
            if shelf.present.remove(name).is_none() {
                shelf.present.insert(name, (1, 100));
            }
            "a package goes or comes back"
        }
        3..=4 => {
            shelf.present.insert(name, (1 + random.below(3), 100 + random.below(100)));
            "a version"
        }
        _ => {
            if let Some((_, body)) = shelf.present.get_mut(name) {
                *body = 100 + random.below(100);
            }
            "other bytes of a version"
        }
    }
}

fn base(random: &mut Random, project: &mut Project) -> &'static str {
    let (path, contents) = OF_BASE[random.below(OF_BASE.len() as u64) as usize];
    if random.below(3) == 0 && project.base.len() > 4 && remove(&mut project.base, path).is_some() {
        return "a file of the base less";
    }
    let mode = if path.contains("/bin/") { 0o755 } else { 0o644 };
    put(&mut project.base, path, Item::File { content: pick(random, contents).into(), mode });
    "a file of the base"
}

fn dockerfile(random: &mut Random, project: &mut Project) -> &'static str {
    let lines = &mut project.lines;
    let position = random.below(lines.len() as u64) as usize;
    match random.below(5) {
        0 if lines.len() > 1 => {
            let position = random.below(lines.len() as u64 - 1) as usize;
            lines.swap(position, position + 1);
            "two instructions change places"
        }
        1 if lines.len() > 5 => {
            lines.remove(position);
            "an instruction less"
        }
        _ if lines.len() < 12 => {
            lines.insert(position + random.below(2) as usize, pick(random, &MORE).to_owned());
            "an instruction more"
        }
        _ => {
            lines[position] = pick(random, &MORE).to_owned();
            "another instruction"
        }
    }
}

fn makefile(random: &mut Random, project: &mut Project) -> &'static str {
    let Some(Item::File { content, .. }) = project.context.get_mut("c/Makefile") else { return "nothing" };
    let mut text = String::from_utf8_lossy(content).into_owned();
    let start = |text: &str, name: &str| {
        let from = text.find(&format!("{name} = "))?;
        Some((from, from + text[from..].find('\n')?))
    };
    let (name, values): (&str, &[&str]) = match random.below(3) {
        0 => ("CFLAGS", &["-O0", "-O1", "-O2", "-g", "-O0 -DLOCAL=9"]),
        1 => ("CPPFLAGS", &["-Ilocal -Iinclude", "-Iinclude -Ilocal", "-Ilocal -isystem include"]),
        _ => ("PREFIX", &["/usr/local", "/opt/prog"]),
    };
    if let Some((from, to)) = start(&text, name) {
        text.replace_range(from..to, &format!("{name} = {}", pick(random, values)));
    }
    *content = text.into_bytes();
    "flags"
}

/// Puts objects into the context as somebody has them who built outside, or takes them away.
fn objects(project: &mut Project) -> &'static str {
    if project.context.contains_key("c/build") {
        project.delete("c/build");
        return "no objects any more";
    }
    let dir = Mica::temporary_dir();
    if project.scenario().write(None, dir.path()).is_err() {
        return "nothing";
    }
    let make = std::process::Command::new("make").arg("-s").arg("-C").arg(dir.path().join("c")).output();
    if !make.is_ok_and(|output| output.status.success()) {
        return "nothing";
    }
    let mut entries: Vec<_> =
        std::fs::read_dir(dir.path().join("c/build")).into_iter().flatten().flatten().collect();
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name != "prog"
            && let Ok(content) = std::fs::read(entry.path())
        {
            put(&mut project.context, &format!("c/build/{name}"), file(content));
        }
    }
    project.has_objects = true;
    "objects of an earlier build"
}
