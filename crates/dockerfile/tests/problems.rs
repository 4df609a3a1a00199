//! What is told about wrong Dockerfiles, and what any text does to the parser.

mod common;

use mica_diagnostic::{Diagnostic, Source, Span, render};
use mica_dockerfile::instruction::{Command, CopySource, Healthcheck, InstructionKind};
use mica_dockerfile::{
    Dockerignore, expand_word, expand_words, glob_match, parse_dockerfile, parse_run_mount, parse_trigger,
};
use proptest::prelude::*;

/// Line, underlined text, message and hint of each problem.
fn check(text: &str, expect: &[(usize, &str, &str, &str)]) {
    let source = Source::new("Dockerfile", text);
    let problems = parse_dockerfile(source.clone()).err().unwrap_or_default();
    let got = problems.iter().map(|problem| {
        let under = text.get(problem.span.range()).expect("span is in bounds");
        (
            source.line(problem.span.start),
            under,
            problem.message.as_str(),
            problem.hint.as_deref().unwrap_or(""),
        )
    });
    assert_eq!(got.collect::<Vec<_>>(), expect, "{text}");
}

#[test]
fn all_problems_in_order() {
    check(
        "FORM alpine\nFROM alpine AS 1x\nCOPPY a b\nRUN --mont=type=cache x\nCOPY a\n",
        &[
            (1, "FORM", "unknown instruction `FORM`", "did you mean `FROM`?"),
            (
                2,
                "1x",
                "invalid stage name: `1x`",
                "begin with a letter, then use letters, digits, `-`, `_` and `.` only",
            ),
            (3, "COPPY", "unknown instruction `COPPY`", "did you mean `COPY`?"),
            (4, "--mont=type=cache", "unknown flag `--mont` of RUN", "did you mean `--mount`?"),
            (5, "a", "COPY requires at least two arguments", "write `COPY SOURCE... DESTINATION`"),
        ],
    );
}

#[test]
fn files_without_stages() {
    check("", &[(1, "", "no instructions in this file", "begin with `FROM image`")]);
    check("# only\n", &[(1, "", "no instructions in this file", "begin with `FROM image`")]);
    check("ARG A=1\n", &[(1, "ARG A=1", "no build stage in this file", "add `FROM image`")]);
    check(
        "ARG A=1\nRUN x\nENV a=b\nFROM x\n",
        &[(
            2,
            "RUN",
            "RUN before the first FROM",
            "begin with `FROM image`; only ARG and comments may stand before it",
        )],
    );
}

#[test]
fn from() {
    let hint = "write `FROM image` or `FROM image AS name`";
    check("FROM\n", &[(1, "FROM", "FROM requires either one or three arguments", hint)]);
    check("FROM a b\n", &[(1, "FROM a b", "FROM requires either one or three arguments", hint)]);
    check(
        "FROM a IS b\n",
        &[(1, "IS", "expected `AS` behind the image, found `IS`", "write `FROM a AS name`")],
    );
    check(
        "FROM --platform a\n",
        &[(
            1,
            "--platform",
            "missing value of flag `--platform`",
            "write `--platform=VALUE`, without blanks",
        )],
    );
}

#[test]
fn flags() {
    check(
        "FROM a\nCOPY --link --link --chown=1 --chown=2 --parents=x a b\nUSER --x y\n",
        &[
            (2, "--link", "flag `--link` given twice", ""),
            (2, "--chown=2", "flag `--chown` given twice", ""),
            (2, "--parents=x", "flag `--parents` must be `true` or `false`, not `x`", ""),
            (3, "--x", "unknown flag `--x` of USER", "USER takes no flags"),
        ],
    );
    check(
        "FROM a\nRUN --network=nome x\n",
        &[(2, "nome", "invalid network mode: `nome`", "did you mean `none`?")],
    );
    check(
        "FROM a\nRUN --security=no x\n",
        &[(2, "no", "invalid security mode: `no`", "use `sandbox` or `insecure`")],
    );
    check(
        "FROM a\nCOPY --from=$X a b\n",
        &[(
            2,
            "$X",
            "variables are not expanded in `--from`",
            "define a stage with `FROM ${VARIABLE} AS name` and use its name",
        )],
    );
}

#[test]
fn mounts() {
    let mount = |value: &str, message: &str, hint: &str| {
        check(&format!("FROM a\nRUN --mount={value} x\n"), &[(2, value, message, hint)]);
    };
    mount("typ=tmpfs", "unexpected key `typ` in `typ=tmpfs`", "did you mean `type`?");
    mount("type=tmpf", "unsupported mount type `tmpf`", "did you mean `tmpfs`?");
    mount("type=bind,z", "invalid field `z` must be a key=value pair", "");
    mount("type=cache,sharing=lock", "unsupported sharing `lock`", "did you mean `locked`?");
    mount("type=cache,uid=root", "invalid value of `uid`: `root`", "");
    mount("type=bind,size=1m", "unexpected key `size` for mount type `bind`", "");
    mount("type=secret", "secret mount needs an id, a source or a target", "");
    let hint = "define a stage with `FROM ${VARIABLE} AS name` and use its name";
    mount("from=$X,target=/a", "variables are not expanded in `from`", hint);
    // Options with variables wait for their values.
    check("FROM a\nRUN --mount=type=$T,uid=$U,target=$X x\n", &[]);
    let mount = parse_run_mount("type=cache,uid=$U,size=x", &|value| Ok(value.replace("$U", "7")));
    assert_eq!(mount.map_err(|error| error.to_string()), Err("invalid value of `size`: `x`".to_owned()));
    let mount = parse_run_mount("type=cache,uid=$U,\"id=a,b\",ro", &|value| Ok(value.replace("$U", "7")))
        .expect("parses");
    assert_eq!((mount.uid, mount.id.as_deref(), mount.read_only), (Some(7), Some("a,b"), true));
}

#[test]
fn other_instructions() {
    check(
        "FROM a\nENV\nENV x\nENV =1\nENV a=1 b\nARG =1\nEXPOSE\nSHELL sh\nSHELL []\nVOLUME [\"\"]\nWORKDIR\nCMD\nENTRYPOINT\nRUN\n",
        &[
            (2, "ENV", "ENV requires at least one argument", ""),
            (3, "x", "ENV must have two arguments", ""),
            (4, "=1", "ENV names cannot be blank", "write a name before `=`"),
            (5, "b", "no `=` in `b`", ""),
            (6, "=1", "ARG names cannot be blank", "write a name before `=`"),
            (7, "EXPOSE", "EXPOSE requires at least one argument", ""),
            (
                8,
                "sh",
                "SHELL must be a JSON array",
                "write `SHELL [\"/bin/sh\", \"-c\"]`, with double quotes",
            ),
            (9, "SHELL", "SHELL requires at least one argument", ""),
            (10, "\"\"", "VOLUME cannot be an empty string", ""),
            (11, "WORKDIR", "WORKDIR requires exactly one argument", ""),
        ],
    );
    check(
        "FROM a\nONBUILD ONBUILD RUN x\nONBUILD FROM x\nONBUILD COPPY a b\nONBUILD\n",
        &[
            (2, "ONBUILD", "ONBUILD cannot trigger another ONBUILD", ""),
            (3, "FROM", "FROM is not allowed as an ONBUILD trigger", ""),
            (4, "COPPY", "unknown instruction `COPPY`", "did you mean `COPY`?"),
            (5, "ONBUILD", "ONBUILD requires at least one argument", ""),
        ],
    );
    check(
        "FROM a\nRUN [\"a\", 1]\n",
        &[(2, "[\"a\", 1]", "a JSON array of arguments must hold strings only", "")],
    );
}

#[test]
fn healthchecks() {
    let hint = "write a number and a unit, like `30s` or `1m30s`";
    check(
        "FROM a\nHEALTHCHECK NONE x\nHEALTHCHECK SHELL x\nHEALTHCHECK CMD\nHEALTHCHECK --timeout=1us --interval=5 --retries=-1 CMD x\n",
        &[
            (2, "x", "HEALTHCHECK NONE takes no arguments", ""),
            (3, "SHELL", "unknown type `SHELL` of HEALTHCHECK", "write `HEALTHCHECK CMD command`"),
            (4, "CMD", "missing command behind HEALTHCHECK CMD", ""),
            (5, "1us", "`--timeout` cannot be less than 1ms: `1us`", hint),
            (5, "5", "invalid duration of `--interval`: `5`", hint),
            (5, "-1", "`--retries` must be a number, zero or more: `-1`", ""),
        ],
    );
    let parsed = parse(
        "FROM a\nHEALTHCHECK --interval=1h1m1.5s --timeout=.25ms0s --start-period=1500000µs --start-interval=0 CMD [\"x\"]\n",
    );
    assert!(parsed.is_err(), "0.25 ms is too short");
    let parsed = parse(
        "FROM a\nHEALTHCHECK --interval=1h1m1.5s --start-period=1500000µs --start-interval=0 CMD [\"x\"]\n",
    );
    let InstructionKind::Healthcheck(Healthcheck::Check {
        interval_ns,
        start_period_ns,
        start_interval_ns,
        ..
    }) = &parsed.expect("parses")[0]
    else {
        panic!("a check")
    };
    assert_eq!(
        (*interval_ns, *start_period_ns, *start_interval_ns),
        (Some(3_661_500_000_000), Some(1_500_000_000), None)
    );
}

fn parse(text: &str) -> Result<Vec<InstructionKind>, Vec<Diagnostic>> {
    let parsed = parse_dockerfile(Source::new("Dockerfile", text))?;
    Ok(parsed
        .stages
        .into_iter()
        .flat_map(|stage| stage.instructions)
        .map(|instruction| instruction.kind)
        .collect())
}

#[test]
fn heredocs() {
    check(
        "FROM a\nRUN <<EOF\necho\n",
        &[(
            2,
            "<<EOF",
            "unterminated heredoc: no line `EOF`",
            "end it with a line that holds nothing but `EOF`",
        )],
    );
    check(
        "FROM a\nCOPY a <<EOF\nx\nEOF\n",
        &[(2, "<<EOF", "COPY cannot have a heredoc as its destination", "")],
    );
    // The body of an instruction that is not understood is not taken for instructions.
    check(
        "FROM a\nRUM <<EOF\necho\nEOF\n",
        &[(2, "RUM", "unknown instruction `RUM`", "did you mean `RUN`?")],
    );
    let parsed = parse(
        "FROM a\r\nRUN <<-EOF\r\n\t\tone\r\n\tEOF\r\nCOPY <<a <<'b' /x/\r\n$A\r\na\r\n$B\r\nb\r\nRUN cat <<EOF >x\nhi\nEOF\n",
    );
    let [InstructionKind::Run(first), InstructionKind::Copy(copy), InstructionKind::Run(last)] =
        <[InstructionKind; 3]>::try_from(parsed.expect("parses")).expect("three")
    else {
        panic!("RUN, COPY, RUN")
    };
    assert_eq!(
        (first.command, first.heredocs[0].content.as_str()),
        (Command::Shell(String::new()), "one\r\n")
    );
    assert_eq!(last.command, Command::Shell("cat <<EOF >x".to_owned()));
    let files = copy.sources.iter().map(|source| match source {
        CopySource::Heredoc(heredoc) => (heredoc.name.as_str(), heredoc.content.as_str(), heredoc.expand),
        CopySource::Path(word) => (word.value.as_str(), "", false),
    });
    assert_eq!(files.collect::<Vec<_>>(), [("a", "$A\r\n", true), ("b", "$B\r\n", false)]);
}

#[test]
fn directives() {
    let problem = "only one `escape` parser directive can be used";
    check("# escape=`\n# ESCAPE = \\\nFROM a\n", &[(2, "# ESCAPE = \\", problem, "")]);
    let hint = "use a backslash or a backtick";
    check("# escape=x\nFROM a\n", &[(1, "# escape=x", "invalid escape character: `x`", hint)]);
    let escape = |text: &str, expect: char| {
        assert_eq!(
            parse_dockerfile(Source::new("Dockerfile", text)).map(|parsed| parsed.escape).ok(),
            Some(expect),
            "{text}"
        );
    };
    escape("\u{feff}# escape=`\nFROM a\n", '`');
    escape("#syntax=x/y\r\n#escape=`\r\nFROM a\r\n", '`');
    escape("# check=skip=all\n# escape=`\nFROM a\n", '`');
    escape("#!/usr/bin/env x\n# escape=`\nFROM a\n", '\\');
    escape("\n# escape=`\nFROM a\n", '\\');
    escape("FROM a\n# escape=`\n", '\\');
}

#[test]
fn continuations() {
    let text = "FROM a\nRUN one \\\n  # comment\n\n  two \\  \n  three\nRUN C:\\\\\nRUN x \\\n";
    let parsed = parse_dockerfile(Source::new("Dockerfile", text)).expect("parses");
    let texts = parsed.stages[0].instructions.iter().map(|i| i.text.as_str()).collect::<Vec<_>>();
    assert_eq!(texts, ["RUN one   two   three", "RUN C:\\\\", "RUN x"]);
    assert_eq!(parsed.source.lines(parsed.stages[0].instructions[0].span), (2, 6));
    let findings = mica_dockerfile::lint(&parsed.source);
    assert_eq!(findings.len(), 1);
    assert_eq!(parsed.source.line(findings[0].diagnostic.span.start), 4);
    assert_eq!(parsed.source.line(findings[0].told_at), 6);
}

#[test]
fn triggers() {
    let trigger = |text: &str| parse_trigger(Source::new("ONBUILD", text));
    assert!(matches!(trigger("COPY . /src").map(|i| i.kind), Ok(InstructionKind::Copy(_))));
    assert!(matches!(trigger("RUN <<EOF\nx\nEOF").map(|i| i.kind), Ok(InstructionKind::Run(_))));
    for text in ["", "FROM x", "ONBUILD RUN x", "MAINTAINER x", "RUN a\nRUN b", "NO x"] {
        assert!(trigger(text).is_err(), "{text}");
    }
    let parsed = parse("FROM a\nONBUILD RUN <<EOF\nx\nEOF\n").expect("parses");
    let [InstructionKind::Onbuild(text)] = parsed.as_slice() else { panic!("ONBUILD") };
    assert_eq!(text, "RUN <<EOF\nx\nEOF");
}

#[test]
fn hostile_sizes_end() {
    let long = format!("FROM a\nRUN {}\n", "x".repeat(70_000));
    assert!(parse(&long).is_err());
    assert!(parse(&format!("FROM a\nRUN {}\n", "x \\\n".repeat(100_000))).is_ok());
    assert!(parse(&format!("FROM a\n{}RUN x\n", "ONBUILD ".repeat(5_000))).is_err());
    assert!(parse(&format!("FROM a\nRUN {}{}\n", "[".repeat(30_000), "]".repeat(30_000))).is_ok());
    let problems = parse(&"\u{1}\n".repeat(100_000)).expect_err("garbage");
    assert!(problems.len() <= 50);
    let many = format!("FROM a\nRUN {}\n", "<<a ".repeat(5_000));
    assert!(parse(&many).is_err());
}

#[test]
fn corpus_build_cases() {
    let mut seen = 0;
    for file in ["bk", "moby", "buildah-bud"] {
        let Some(path) = common::corpus(&format!("build-cases/{file}.jsonl")) else { return };
        for line in std::fs::read_to_string(path).expect("corpus file is readable").lines() {
            let case: serde_json::Value = serde_json::from_str(line).expect("JSON");
            let name = case["dockerfile"].as_str().unwrap_or("Dockerfile");
            let files = case["files"].as_array().map(Vec::as_slice).unwrap_or_default();
            let content =
                files.iter().find(|file| file["path"] == name).and_then(|file| file["content"].as_str());
            let Some(content) = content else { continue };
            seen += 1;
            let parsed = parse_dockerfile(Source::new(name, content));
            let is_ok = case["expect"]["ok"].as_bool().unwrap_or(false);
            let error = case["expect"]["error"].as_str().unwrap_or_default();
            if is_ok {
                let problems =
                    parsed.err().map(|problems| render(&problems, &Source::new(name, content), false));
                assert_eq!(problems, None, "{file} {}", case["id"]);
            } else if error.contains("dockerfile parse error") {
                assert!(parsed.is_err(), "{file} {error}");
            }
        }
    }
    println!("build cases: {seen} passed");
}

/// Text that resembles a Dockerfile more often than chance would.
fn dockerfile_text() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "FROM a\n",
        "FROM",
        "RUN ",
        "COPY ",
        "ENV ",
        "ARG ",
        "LABEL ",
        "ONBUILD ",
        "HEALTHCHECK ",
        "VOLUME ",
        "SHELL ",
        "\n",
        "\r\n",
        "\\\n",
        "\\",
        "`",
        " ",
        "\t",
        "\"",
        "'",
        "=",
        "a",
        "$",
        "${",
        "}",
        ":-",
        "<<",
        "<<-",
        "EOF",
        "EOF\n",
        "[",
        "]",
        ",",
        "--",
        "--mount=",
        "type=cache",
        "--from=",
        "#",
        "# escape=`\n",
        "# mica:",
        " never",
        ",exact",
        " ttl=",
        "7d",
        "é",
        "漢",
        "\u{feff}",
        "\u{a0}",
        "%",
        "/",
        "*",
        "?",
        "CMD",
        "NONE",
        "--interval=1.5s",
    ]);
    prop_oneof![prop::collection::vec(pieces, 0..60).prop_map(|pieces| pieces.concat()), "(?s).{0,200}"]
}

fn in_bounds(text: &str, span: Span) -> bool {
    text.get(span.range()).is_some()
}

proptest! {
    #[test]
    fn any_text_parses_without_panic(text in dockerfile_text()) {
        let source = Source::new("Dockerfile", &text);
        match parse_dockerfile(source.clone()) {
            Ok(parsed) => {
                let warnings = &parsed.warnings;
                prop_assert!(warnings.iter().all(|warning| in_bounds(&text, warning.span)), "{warnings:?}");
                for stage in &parsed.stages {
                    prop_assert!(in_bounds(&text, stage.from_span) && in_bounds(&text, stage.from.base.span));
                    for instruction in &stage.instructions {
                        prop_assert!(in_bounds(&text, instruction.span));
                        for word in words(&instruction.kind) {
                            prop_assert!(in_bounds(&text, word), "{instruction:?}");
                        }
                    }
                }
            }
            Err(problems) => {
                prop_assert!(!problems.is_empty());
                prop_assert!(problems.iter().all(|problem| in_bounds(&text, problem.span)), "{problems:?}");
                render(&problems, &source, true);
            }
        }
        let _ = parse_trigger(source);
        let _ = Dockerignore::parse(&text).map(|ignore| ignore.matches("a/b").is_ignored);
        let _ = glob_match(&text, "a/b");
        let _ = expand_word(&text, '\\', &|_| Some("v".to_owned()));
        let _ = expand_words(&text, '`', &|_| None);
    }
}

fn words(kind: &InstructionKind) -> Vec<Span> {
    match kind {
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) | InstructionKind::Arg(pairs) => pairs
            .iter()
            .flat_map(|pair| [Some(pair.key.span), pair.value.as_ref().map(|v| v.span)])
            .flatten()
            .collect(),
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => {
            words.iter().map(|word| word.span).collect()
        }
        InstructionKind::Copy(copy) => {
            let sources = copy.sources.iter().map(|source| match source {
                CopySource::Path(word) => word.span,
                CopySource::Heredoc(heredoc) => heredoc.span,
            });
            sources.chain([copy.destination.span]).chain(copy.from.iter().map(|from| from.span)).collect()
        }
        InstructionKind::Run(run) => {
            run.mounts.iter().map(|mount| mount.span).chain(run.heredocs.iter().map(|h| h.span)).collect()
        }
        InstructionKind::Workdir(word) | InstructionKind::User(word) => vec![word.span],
        _ => Vec::new(),
    }
}
