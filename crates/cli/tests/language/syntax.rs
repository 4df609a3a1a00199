//! Lines, directives and comments of whole files.

use serde_json::json;

use crate::support::Bench;

#[test]
fn root_lines_of_all_kinds() {
    let Some(bench) = Bench::new() else { return };
    bench.write("f", "f");
    // A mark of byte order, lines of Windows, directives, comments within an instruction, keywords in any case.
    let built = bench.build(
        "\u{feff}# syntax=docker/dockerfile:1\r\n# check=skip=all\r\n\r\n# a comment\r\nfrom busybox As one\r\n  Env A=1 \\\r\n  # within\r\n\r\n    B=2\r\n\
         RuN echo a && \\\r\n# at the start\r\n   \t# indented\r\n  echo b > /b\r\ncopy f \\\r\n /copied\r\n",
        &[],
    );
    assert_eq!(built.config("Env"), json!(["PATH=/bin", "A=1", "B=2"]));
    assert!(built.has("/b") && built.has("/copied"));
    // `#` is a comment at the start of a line only.
    let built = bench
        .build("FROM busybox\nRUN echo x # y > /z\nENV A=1#2\nRUN echo '\\\n# not there\n' > /kept\n", &[]);
    assert!(!built.has("/z") && built.has("/kept"));
    assert_eq!(built.config("Env"), json!(["PATH=/bin", "A=1#2"]));
}

#[test]
fn root_escapes() {
    let Some(bench) = Bench::new() else { return };
    bench.write("f", "f");
    let built = bench.build(
        "# escape=`\nFROM busybox\nENV A=a`\n  B=c:\\dir C=`$A D=\"`\"\"\nCOPY f `\n  /x\\y\nRUN echo `\n  one > /one\n",
        &[],
    );
    assert_eq!(built.config("Env"), json!(["PATH=/bin", "A=a", "B=c:\\dir", "C=$A", "D=\""]));
    assert!(built.has("/x\\y") && built.has("/one"));
    let built = bench.build("# ESCAPE = \\\nFROM busybox\nENV A=\\\\ B=\"a\\\nb\"\n", &[]);
    assert_eq!(built.config("Env"), json!(["PATH=/bin", "A=\\", "B=ab"]));
    bench.fails("# escape=x\nFROM busybox\n", &["invalid escape character", "Dockerfile:1:"]);
    bench.fails(
        "# escape=`\n# escape=`\nFROM busybox\n",
        &["only one `escape` parser directive", "Dockerfile:2:"],
    );
    // Behind anything else it is a comment.
    let built = bench.build("# a comment\n# escape=`\nFROM busybox\nENV A=1 \\\n B=`\n", &[]);
    assert_eq!(built.config("Env"), json!(["PATH=/bin", "A=1", "B=`"]));
}

#[test]
fn root_heredocs_of_all_kinds() {
    let Some(bench) = Bench::new() else { return };
    let built = bench.build(
        "FROM busybox\nARG A=value\n\
         COPY <<EOF <<-\"TABS\" /d/\n$A \"quoted\" 'single $A' \\$A ${A%ue}\n  # kept\n\\\nEOF\n\t$A\n\tTABS\n\
         COPY <<EOF /named\nEOF\nADD --chmod=755 --chown=7:8 <<run.sh /bin2/\n#!/bin/sh\nrun.sh\n\
         RUN <<EOF\nset -e\nfor i in 1 2; do\n  echo $i >> /loop\ndone\nEOF\n\
         RUN <<'ONE' cat - > /one && cat <<TWO > /two\n$A\nONE\n$A\nTWO\n\
         RUN <<-EOF\n\t\ttouch /tabs\n\tEOF\n\
         SHELL [\"/bin/sh\", \"-c\"]\nRUN <<#!/bin/sh\ntouch /odd-name\n#!/bin/sh\nRUN 3<<EOF cat <&3 > /three\nx\nEOF\nRUN grep -q '^$A$' /one && grep -q '^value$' /two\n",
        &[],
    );
    let content = "value \"quoted\" 'single value' $A val\n  # kept\n\n";
    assert_eq!(built.node("/d/EOF").sha256, mica_testkit::sha256(content.as_bytes()));
    assert_eq!(built.node("/d/TABS").size, 3);
    assert_eq!(built.node("/named").size, 0);
    assert_eq!(built.shape("/bin2/run.sh"), "755 7:8");
    for path in ["/loop", "/tabs", "/three"] {
        assert!(built.has(path), "{path}");
    }
    // A heredoc is no part of a string, and of no other instruction.
    let built = bench.build("FROM busybox\nENV A=\"<<EOF\"\nCMD cat <<EOF\nLABEL a=b\n", &[]);
    assert_eq!(built.config("Cmd"), json!(["/bin/sh", "-c", "cat <<EOF"]));
}

#[test]
fn root_files_that_are_wrong_tell_all_of_it() {
    let Some(bench) = Bench::new() else { return };
    bench.fails(
        "FROM busybox\nCOPPY a b\nRUN --mont=type=cache true\nEXPOSE\nFROM\n",
        &["Dockerfile:2:1", "Dockerfile:3:5", "Dockerfile:4:1", "Dockerfile:5:1", "did you mean `COPY`?"],
    );
    bench.fails("RUN true\nFROM busybox\n", &["RUN before the first FROM"]);
    bench.fails("ARG A=1\n", &["no build stage"]);
    bench.fails("", &["no instructions"]);
    bench.fails("FROM busybox AS 1st\n", &["invalid stage name"]);
    bench.fails("FROM $NONE\n", &["`NONE` has no value here"]);
}
