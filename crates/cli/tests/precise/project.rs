//! A project of C, Python, JavaScript, Debian packages and git as values: files that people write and files made of them.

use std::collections::BTreeMap;

use crate::packages::Package;
use crate::scenario::{Item, Items, Scenario, put, remove};

/// What packages are called; each of `NEEDS` needs the one beside it.
pub const NAMES: [&str; 4] = ["alpha", "beta", "gamma", "delta"];
const NEEDS: [(&str, &str); 1] = [("beta", "alpha")];
/// Sources of the C project besides `main.c`.
const SOURCES: u64 = 16;

/// The packages of one kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shelf {
    /// Version and body by name.
    pub present: BTreeMap<&'static str, (u64, u64)>,
    /// What is to be installed.
    pub wanted: Vec<&'static str>,
}

impl Shelf {
    fn new() -> Shelf {
        Shelf { present: NAMES.into_iter().map(|name| (name, (1, 100))).collect(), wanted: vec!["beta"] }
    }

    /// The packages that are there.
    fn packages(&self) -> impl Iterator<Item = Package> {
        self.present.iter().map(|(name, (version, body))| {
            let needs = NEEDS.iter().find(|(who, _)| who == name).map(|(_, needed)| *needed);
            Package { name, version: *version, body: *body, needs }
        })
    }

    /// What is wanted and all that it needs, of what is there.
    fn closure(&self) -> Vec<Package> {
        let mut names = self.wanted.clone();
        names.extend(NEEDS.iter().filter(|(who, _)| self.wanted.contains(who)).map(|(_, needed)| *needed));
        self.packages().filter(|package| names.contains(&package.name)).collect()
    }
}

/// All that a build is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Project {
    /// What the base has beside the tools.
    pub base: Items,
    /// The files that people write; those of packages are made of the shelves.
    pub context: Items,
    /// The instructions of the first stage after `COPY . /app`.
    pub lines: Vec<String>,
    /// The instructions of a second stage that takes from the first; none without any.
    pub last: Vec<String>,
    pub debs: Shelf,
    pub wheels: Shelf,
    pub modules: Shelf,
    /// Whether the context has objects that it was not built with.
    pub has_objects: bool,
}

/// A file of mode 0644.
pub fn file(content: impl Into<Vec<u8>>) -> Item {
    Item::File { content: content.into(), mode: 0o644 }
}

const MAKEFILE: &str = "CC = gcc
CFLAGS = -O0
CPPFLAGS = -Ilocal -Iinclude
PREFIX = /usr/local
O = build
SRC = $(wildcard src/*.c)
OBJ = $(patsubst src/%.c,$(O)/%.o,$(SRC))

all: $(O)/prog

$(O)/prog: $(OBJ) Makefile
\t$(CC) -o $@ $(OBJ)

$(O)/%.o: src/%.c Makefile
\t@mkdir -p $(O)
\t$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

-include $(wildcard $(O)/*.d)

check: all
\tsh tests/run.sh $(O)/prog

install: all
\tinstall -D -m 755 $(O)/prog $(PREFIX)/bin/prog
\tinstall -d $(PREFIX)/include/prog
\tinstall -m 644 include/*.h $(PREFIX)/include/prog

.PHONY: all check install
";

const APP: &str = "import importlib, json, os, pkgutil, sys
import pkg
here = os.path.dirname(os.path.abspath(__file__))
for name in ['alpha', 'beta', 'gamma', 'delta', 'extra']:
    try:
        print(name, importlib.import_module(name).VALUE)
    except ImportError:
        print(name, 'absent')
for module in sorted(m.name for m in pkgutil.iter_modules(pkg.__path__)):
    print(module, getattr(importlib.import_module('pkg.' + module), 'VALUE', None))
with open(os.path.join(here, 'data.json')) as stream:
    print(json.dumps(json.load(stream), sort_keys=True))
";

const BUILD_JS: &str = "const fs = require('fs'), path = require('path');
const out = [];
for (const name of ['alpha', 'beta', 'gamma', 'delta']) {
  try { out.push(name + ' ' + require(name)); } catch (error) { out.push(name + ' ' + error.code); }
}
for (const name of fs.readdirSync('src').sort()) {
  if (name.endsWith('.js')) out.push(name + ' ' + require('./src/' + name));
}
fs.mkdirSync('dist', { recursive: true });
fs.writeFileSync('dist/bundle.js', out.join('\\n') + '\\n');
";

/// The project as it is before any edit, built by these instructions.
pub fn first(lines: &[&str]) -> Project {
    let mut context = Items::new();
    let mut add = |path: &str, content: &str| put(&mut context, path, file(content));
    add("README.md", "# A project\n");
    add("docs/guide.md", "guide\n");
    add("c/Makefile", MAKEFILE);
    add(
        "c/tests/run.sh",
        "set -e\n$1 > build/test.out\ngrep -q total build/test.out\ncat tests/*.txt > build/expected\n",
    );
    add("c/tests/one.txt", "one\n");
    add("c/local/local.h", "#define LOCAL 1\n");
    for (header, needed) in [("one", ""), ("two", "#include \"one.h\"\n"), ("three", ""), ("unused", "")] {
        let upper = header.to_uppercase();
        add(
            &format!("c/include/{header}.h"),
            &format!("#ifndef {upper}_H\n#define {upper}_H\n{needed}#define {upper} 10\n#endif\n"),
        );
    }
    let (mut declared, mut called) = (String::new(), String::new());
    for number in 0..SOURCES {
        let header = ["one", "two", "three"][number as usize % 3];
        add(
            &format!("c/src/f{number:02}.c"),
            &format!(
                "#include <{header}.h>\n#include \"local.h\"\nint f{number:02}(void) {{ return {} + LOCAL + {number}; }}\n",
                header.to_uppercase()
            ),
        );
        // Weak: a source may go.
        declared += &format!("__attribute__((weak)) int f{number:02}(void);\n");
        called += &format!("    if (f{number:02}) total += f{number:02}();\n");
    }
    add(
        "c/src/main.c",
        &format!(
            "#include <stdio.h>\n#if __has_include(<site.h>)\n#include <site.h>\n#endif\n#ifndef SITE\n#define SITE 0\n#endif\n\
             {declared}int main(void) {{\n    int total = SITE;\n{called}    printf(\"total %d\\n\", total);\n    return 0;\n}}\n"
        ),
    );
    add("py/app.py", APP);
    add("py/data.json", "{\"key\": 1}\n");
    add("py/pkg/__init__.py", "");
    for name in ["first", "second", "third"] {
        add(&format!("py/pkg/{name}.py"), "VALUE = 1\n");
    }
    add("js/build.js", BUILD_JS);
    for name in ["index.js", "util.js"] {
        add(&format!("js/src/{name}"), "module.exports = 1;\n");
    }
    add("js/src/notes.txt", "notes\n");
    for path in ["git/one.txt", "git/sub/two.txt", "git/sub/three.txt"] {
        add(path, "tracked\n");
    }
    add("git/.gitignore", "*.tmp\n");
    let mut base = Items::new();
    put(&mut base, "usr/share/base/release", file("1\n"));
    Project {
        base,
        context,
        lines: lines.iter().map(|line| (*line).to_owned()).collect(),
        last: Vec::new(),
        debs: Shelf::new(),
        wheels: Shelf::new(),
        modules: Shelf::new(),
        has_objects: false,
    }
}

impl Project {
    /// The text of the Dockerfile.
    pub fn dockerfile(&self) -> String {
        let preamble = "ENV DEBIAN_FRONTEND=noninteractive PIP_BREAK_SYSTEM_PACKAGES=1 PIP_ROOT_USER_ACTION=ignore \
             PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 npm_config_logs_max=0 npm_config_update_notifier=false \
             GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@localhost GIT_AUTHOR_DATE=@1700000000+0000 GIT_COMMITTER_NAME=a \
             GIT_COMMITTER_EMAIL=a@localhost GIT_COMMITTER_DATE=@1700000000+0000\nRUN mkdir -p /out\n";
        let mut text = format!("FROM base:1 AS work\n{preamble}COPY . /app\n{}\n", self.lines.join("\n"));
        if !self.last.is_empty() {
            text += &format!("FROM base:1\n{preamble}{}\n", self.last.join("\n"));
        }
        text
    }

    /// All files of the context, as something that can be written.
    pub fn scenario(&self) -> Scenario {
        let mut context = self.context.clone();
        let debs = &self.debs;
        for package in debs.packages() {
            put(&mut context, &format!("apt/repo/{}", package.deb_name()), file(package.deb()));
        }
        let paragraphs: String = debs.packages().map(|package| package.deb_paragraph()).collect();
        put(&mut context, "apt/repo/Packages", file(paragraphs));
        put(&mut context, "apt/sources.list", file("deb [trusted=yes] file:/app/apt/repo ./\n"));
        put(&mut context, "apt/wanted", file(lines(&debs.wanted)));
        for package in self.wheels.packages() {
            put(&mut context, &format!("py/wheels/{}", package.wheel_name()), file(package.wheel()));
        }
        put(&mut context, "py/requirements.txt", file(lines(&self.wheels.wanted)));
        for package in self.modules.packages() {
            put(&mut context, &format!("js/vendor/{}", package.tgz_name()), file(package.tgz()));
        }
        let depends: BTreeMap<&str, String> = self
            .modules
            .closure()
            .iter()
            .map(|package| (package.name, format!("file:vendor/{}", package.tgz_name())))
            .collect();
        let manifest = serde_json::json!({"name": "app", "version": "1.0.0", "dependencies": depends});
        put(&mut context, "js/package.json", file(manifest.to_string()));
        let mut installed = serde_json::Map::new();
        installed.insert("".into(), manifest);
        for package in self.modules.closure() {
            let value = serde_json::json!({
                "version": format!("{}.0.0", package.version),
                "resolved": format!("file:vendor/{}", package.tgz_name()),
                "bin": {package.name: "cli.js"},
            });
            installed.insert(format!("node_modules/{}", package.name), value);
        }
        let lock = serde_json::json!({"name": "app", "version": "1.0.0", "lockfileVersion": 3, "requires": true,
            "packages": installed});
        put(&mut context, "js/package-lock.json", file(lock.to_string()));
        Scenario { context, ..Scenario::default() }
    }

    /// The base's own files and the Dockerfile that puts them on the tools.
    pub fn base_scenario(&self) -> Scenario {
        let mut context = Items::new();
        put(&mut context, "root", Item::Dir { mode: 0o755 });
        for (path, item) in &self.base {
            put(&mut context, &format!("root/{path}"), item.clone());
        }
        Scenario { context, ..Scenario::default() }
    }

    /// Takes a path away, if it is there.
    pub fn delete(&mut self, path: &str) {
        remove(&mut self.context, path);
    }
}

fn lines(names: &[&str]) -> String {
    names.iter().map(|name| format!("{name}\n")).collect()
}
