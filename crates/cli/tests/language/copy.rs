//! COPY and ADD with their flags.

use std::os::unix::net::UnixListener;
use std::process::Command;

use mica_testkit::Kind;

use crate::support::Bench;

/// A context of some files in directories with modes of their own.
fn project() -> Option<Bench> {
    let bench = Bench::new()?;
    for path in ["src/a/b/c.go", "src/a/d.txt", "src/e/c.go", "top.md", "README.md"] {
        bench.write(path, path);
    }
    bench.write_as("src/run.sh", "#!/bin/sh\n", 0o755);
    Some(bench)
}

#[test]
fn root_parents() {
    let Some(bench) = project() else { return };
    let built = bench.build("FROM scratch\nCOPY --parents src/a/b/c.go src/**/*.txt /n/\n", &[]);
    let tree = built.image.tree.keys().map(String::as_str).collect::<Vec<_>>();
    assert_eq!(tree, ["n", "n/src", "n/src/a", "n/src/a/b", "n/src/a/b/c.go", "n/src/a/d.txt"]);
    let built = bench.build(
        "FROM busybox AS one\nRUN mkdir -p /t/a/b /t/a/c && chmod 700 /t/a/b && touch /t/a/b/f /t/a/c/f\n\
         FROM scratch\nCOPY --parents --from=one /t/./a/*/f /out/\nCOPY --parents --exclude=**/*.txt src /x/\n",
        &[],
    );
    assert_eq!(built.shape("/out/a/b"), "700");
    assert!(built.has("/out/a/c/f") && built.has("/x/src/e/c.go") && !built.has("/x/src/a/d.txt"));
    assert!(!built.has("/out/t"));
    let history = built.image.config["history"].as_array().expect("history");
    let text = |at: usize| history[at]["created_by"].as_str().unwrap_or_default().to_owned();
    assert_eq!(text(0), "COPY --parents /t/./a/*/f /out/ # buildkit");
    bench.fails("FROM scratch\nCOPY --parents src/none /\n", &["`src/none` is not in the build context"]);
    // What is not taken is not part of the result's key.
    let file = "FROM scratch\nCOPY --parents src/**/*.go /\n";
    bench.build(file, &[]);
    bench.write("src/a/d.txt", "other");
    assert!(bench.build(file, &[]).outcome.stderr.contains("CACHED"));
    bench.write("src/e/c.go", "other");
    assert!(!bench.build(file, &[]).outcome.stderr.contains("CACHED"));
}

#[test]
fn root_excludes() {
    let Some(bench) = project() else { return };
    let built = bench.build(
        "FROM scratch\nCOPY --exclude=*.md --exclude=**/*.go . /all/\nCOPY --exclude=READ* *.md /md/\n\
         ADD --exclude=a --exclude=!a/d.txt src /src/\n",
        &[],
    );
    assert!(built.has("/all/src/a/d.txt") && built.has("/all/src/run.sh") && !built.has("/all/top.md"));
    assert!(!built.has("/all/src/e/c.go") && built.has("/all/src/e"));
    assert!(built.has("/md/top.md") && !built.has("/md/README.md"));
    assert!(built.has("/src/a/d.txt") && !built.has("/src/a/b") && built.has("/src/e/c.go"));
    let file = "FROM scratch\nCOPY --exclude=*.md . /\n";
    bench.build(file, &[]);
    bench.write("top.md", "other");
    assert!(bench.build(file, &[]).outcome.stderr.contains("CACHED"));
    bench.fails("FROM scratch\nCOPY --exclude=[a . /\n", &["`[a` is not a valid pattern"]);
}

#[test]
fn root_modes() {
    let Some(bench) = project() else { return };
    let built = bench.build(
        "FROM busybox\nCOPY --chmod=0644 src /octal\nCOPY --chmod=u=rwX,go-w,o-r src /symbolic\n\
         COPY --chmod=g=u,o= src/run.sh /one\nCOPY --chmod=u+s,+t src/run.sh /special\n\
         ARG M=4711\nADD --chmod=$M top.md /variable\nCOPY --chmod=600 <<EOF /inline\nx\nEOF\n",
        &[],
    );
    for (path, expect) in [
        ("/octal/a", "644"),
        ("/octal/a/d.txt", "644"),
        ("/symbolic/a", "751"),
        ("/symbolic/run.sh", "751"),
        ("/symbolic/a/d.txt", "640"),
        ("/one", "770"),
        ("/special", "5755"),
        ("/variable", "4711"),
        ("/inline", "600"),
    ] {
        assert_eq!(built.shape(path), expect, "{path}");
    }
    for wrong in ["10000", "u=q", "a+x,", "-1", "rwx"] {
        let text = format!("FROM scratch\nCOPY --chmod={wrong} top.md /\n");
        bench.fails(&text, &[&format!("`{wrong}` is not a mode"), "Dockerfile:2:"]);
    }
}

#[test]
fn root_owners() {
    let Some(bench) = project() else { return };
    let built = bench.build(
        "FROM busybox\nCOPY --chown=daemon top.md /n/name\nCOPY --chown=daemon:staff top.md /n/group\n\
         COPY --chown=7 top.md /number\nCOPY --chown=7:50 src /both\nCOPY --chown=:staff top.md /only\n\
         COPY --chown=7:staff <<EOF /inline\nEOF\nUSER daemon\nCOPY top.md /not-the-user\n",
        &[],
    );
    for (path, expect) in [
        ("/n", "755 1:1"),
        ("/n/name", "644 1:1"),
        ("/n/group", "644 1:50"),
        ("/number", "644 7:7"),
        ("/both", "755 7:50"),
        ("/both/a/d.txt", "644 7:50"),
        ("/only", "644 0:50"),
        ("/inline", "644 7:50"),
        ("/not-the-user", "644"),
    ] {
        assert_eq!(built.shape(path), expect, "{path}");
    }
    bench.fails("FROM busybox\nCOPY --chown=who top.md /\n", &["who", "/etc/passwd", "Dockerfile:2:"]);
}

#[test]
fn root_links_stand_alone() {
    let Some(bench) = project() else { return };
    let base = "FROM busybox AS base\nRUN mkdir -p /real /kept && chmod 700 /kept && chown 7:7 /kept && ln -s real /link\n";
    let built = bench.build(
        &format!(
            "{base}FROM base\nCOPY --link top.md /link/\nCOPY --link --chown=7 top.md /new/deep/file\n\
             WORKDIR /work\nCOPY --link top.md .\n"
        ),
        &[],
    );
    // Nothing of the destination is looked at: no link is followed, directories are those of a COPY into nothing.
    assert_eq!(built.node("/link").kind, Kind::Dir);
    assert!(built.has("/link/top.md") && !built.has("/real/top.md") && built.has("/work/top.md"));
    assert_eq!(built.shape("/new"), "755 7:7");
    let built = bench.build(&format!("{base}FROM base\nCOPY --link top.md /kept/\n"), &[]);
    assert_eq!(built.shape("/kept"), "755");
    // With a mode it is a plain COPY, and names are looked up below.
    let text = "FROM base\nCOPY --link --chmod=600 top.md /link/\nCOPY --link --chown=daemon top.md /x\n";
    let built = bench.build(&format!("{base}{text}"), &[]);
    assert_eq!((built.shape("/real/top.md"), built.shape("/x")), ("600".into(), "644 1:1".into()));
    let built = bench.build("FROM busybox\nCOPY --link=false top.md /bin/\n", &[]);
    assert!(built.has("/bin/top.md") && built.has("/bin/sh"));
}

#[test]
fn root_links_are_the_same_layer_on_any_base() {
    let Some(bench) = project() else { return };
    let on = |first: &str| format!("FROM busybox\nRUN echo {first} > /first\nCOPY --link src /usr/src/\n");
    let flags = ["--cache=exact"];
    bench.build(&on("one"), &flags);
    // Only equal layers count, and the layers below are others; this one does not stand on them.
    let again = bench.build(&on("two"), &flags).outcome.stderr;
    assert_eq!(again.matches("CACHED").count(), 1, "{again}");
    let plain = bench.build(&on("three").replace(" --link", ""), &flags).outcome.stderr;
    assert_eq!(plain.matches("CACHED").count(), 0, "{plain}");
    // Two stages with the same COPY have their own files below.
    let text = "FROM busybox AS a\nRUN echo a > /who\nCOPY --link top.md /x/\nFROM busybox AS b\nRUN echo b > /who\n\
                COPY --link top.md /x/\nFROM scratch\nCOPY --from=a /who /x/top.md /a/\nCOPY --from=b /who /b/\n";
    let built = bench.build(text, &["--no-cache"]);
    assert_ne!(built.node("/a/who").sha256, built.node("/b/who").sha256);
    assert!(built.has("/a/top.md"));
}

#[test]
fn root_special_files_and_names() {
    let Some(bench) = project() else { return };
    let ok = |program: &str, arguments: &[&str]| {
        let done = Command::new(program).args(arguments).current_dir(bench.context()).status();
        assert!(done.expect(program).success(), "{program}");
    };
    ok("mkfifo", &["src/pipe"]);
    ok("ln", &["top.md", "src/hard"]);
    ok("ln", &["src/hard", "src/hard2"]);
    ok("ln", &["-s", "../top.md", "src/soft"]);
    let _socket = UnixListener::bind(bench.context().join("src/socket")).expect("a socket");
    let built = bench.build("FROM busybox\nCOPY src /s\nCOPY src/soft /followed\n", &[]);
    assert_eq!(built.node("/s/pipe").kind, Kind::Fifo);
    assert_eq!(built.node("/s/hard2").hardlink_to.as_deref(), Some("s/hard"));
    // A tar cannot hold one.
    assert!(!built.has("/s/socket"));
    assert_eq!(built.node("/s/soft").link, "../top.md");
    assert_eq!(built.node("/followed").kind, Kind::File);
    let built = bench.build("FROM busybox AS a\nRUN mknod /x c 1 3\nFROM scratch\nCOPY --from=a /x /\n", &[]);
    assert_eq!((built.node("/x").kind, built.node("/x").device), (Kind::CharDevice, (1, 3)));
}

#[test]
fn root_sources_and_destinations() {
    let Some(bench) = project() else { return };
    bench.write("with blank", "b");
    bench.write("[x]", "x");
    let built = bench.build(
        "FROM busybox\nCOPY none* /none/\nCOPY [\"with blank\", \"/a b/\"]\nCOPY [[]x] /bracket\n\
         COPY ../../top.md /../up\nWORKDIR /w\nCOPY top.md README.md ./\nCOPY src/../top.md sub/file\n",
        &[],
    );
    for path in ["/a b/with blank", "/bracket", "/up", "/w/top.md", "/w/README.md", "/w/sub/file"] {
        assert!(built.has(path), "{path}");
    }
    let outcome = bench.build("FROM busybox\nCOPY *.md /one\n", &[]).outcome;
    assert!(outcome.stderr.contains("the last one stays; write `/one/`"), "{}", outcome.stderr);
    bench.fails(
        "FROM scratch\nCOPY topp.md /\n",
        &["`topp.md` is not in the build context", "Dockerfile:2:6"],
    );
    bench.fails(
        "FROM busybox\nCOPY top.md /bin/\nCOPY src/a /bin/top.md\n",
        &["not a directory", "Dockerfile:3:"],
    );
    bench.fails(
        "FROM busybox\nCOPY --chwon=1 top.md /\n",
        &["unknown flag `--chwon` of COPY", "did you mean `--chown`?"],
    );
}

#[test]
fn root_stages_as_sources() {
    let Some(bench) = project() else { return };
    let built = bench.build(
        "FROM scratch\nCOPY top.md /zero\nFROM scratch AS one\nCOPY --from=0 /zero /one\n\
         FROM scratch\nCOPY --from=ONE /one /two\nCOPY --from=busybox /etc/group /\n",
        &[],
    );
    assert!(built.has("/two") && built.has("/group"));
    // A stage may stand further down.
    let built = bench.build(
        "FROM scratch AS out\nCOPY --from=late /x /got\nFROM busybox AS late\nRUN echo > /x\nFROM out\n",
        &[],
    );
    assert!(built.has("/got"));
    bench.fails(
        "FROM scratch AS a\nCOPY --from=b /x /\nFROM scratch AS b\nCOPY --from=a /x /\n",
        &["stages need each other: `a` needs `b` needs `a`", "Dockerfile:4:13"],
    );
    bench.fails("FROM scratch AS me\nCOPY --from=me /x /\n", &["stage `me` needs itself", "Dockerfile:2:13"]);
    bench.fails("FROM scratch\nCOPY --from=0 /x /\n", &["stage `0` needs itself"]);
    bench.fails("FROM scratch\nCOPY --from=5 /x /\n", &["there is no stage `5`"]);
    bench.fails("FROM busybox AS a\nFROM scratch\nCOPY --from=a /none /\n", &["`/none` is not in"]);
}

#[test]
fn root_heredocs() {
    let Some(bench) = project() else { return };
    let built = bench.build(
        "FROM busybox\nARG WHO=you\nCOPY <<one <<'two' top.md <<-three /d/\nhi $WHO ${NONE:-none} \\$WHO\none\n$WHO\ntwo\n\t\ttabs\n\tthree\n\
         RUN [ \"$(cat /d/one)\" = 'hi you none $WHO' ] && [ \"$(cat /d/two)\" = '$WHO' ] && [ \"$(cat /d/three)\" = tabs ]\n\
         RUN <<EOF\ncd /d\ntouch made\nEOF\nRUN <<A cat > /d/both && cat <<B >> /d/both\na\nA\nb\nB\n\
         RUN <<EOF\n#!/bin/sh\necho script > /d/script\nEOF\nRUN [ \"$(cat /d/script)\" = script ]\n\
         RUN cat <<'Q' > /d/quoted\n$WHO\nQ\nRUN [ \"$(cat /d/quoted)\" = '$WHO' ]\n",
        &[],
    );
    for path in ["/d/one", "/d/top.md", "/d/made", "/d/both"] {
        assert!(built.has(path), "{path}");
    }
    assert_eq!(built.node("/d/both").size, 4);
    bench.fails("FROM busybox\nRUN <<EOF\necho\n", &["unterminated heredoc"]);
}
