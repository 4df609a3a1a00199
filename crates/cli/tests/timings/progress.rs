//! `--progress`: each kind on real builds.

use mica_testkit::{Need, run_bounded};
use serde_json::Value;
use std::time::Duration;

use crate::support::Bench;

fn objects(text: &str) -> Vec<Value> {
    let parse = |line: &str| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    text.lines().map(parse).collect()
}

/// All that lists of this name hold, in order.
fn all<'a>(objects: &'a [Value], list: &str) -> Vec<&'a Value> {
    objects.iter().filter_map(|object| object.get(list)?.as_array()).flatten().collect()
}

#[test]
fn root_rawjson_is_one_object_a_line() {
    let Some(bench) = Bench::new(&[Need::Root]) else { return };
    bench.write(
        "context/Dockerfile",
        "FROM base:1 AS one\nRUN echo hello; printf 'a\\rb'\nFROM base:1\nCOPY --from=one /bin /b\nRUN exit 7\n",
    );
    let outcome = bench.mica.ok(&bench.build(&["--progress=rawjson", "--no-cache", "--target=one"]));
    assert_eq!(outcome.stdout, "");
    let lines = objects(&outcome.stderr);
    let vertexes = all(&lines, "vertexes");
    let text =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let last = |name: &str| {
        let of_name = |vertex: &&&Value| text(vertex, "name").contains(name);
        vertexes.iter().rev().find(of_name).copied().unwrap_or_else(|| panic!("no `{name}` in {vertexes:#?}"))
    };
    let run = last("RUN echo hello");
    assert!(text(run, "digest").starts_with("sha256:") && text(run, "digest").len() == 71);
    assert!(text(run, "started") <= text(run, "completed") && !text(run, "completed").is_empty());
    assert_eq!((run.get("cached"), run.get("error")), (None, None));
    let base = text(last("load metadata for docker.io/library/base:1"), "digest");
    assert_eq!(run.get("inputs").and_then(|inputs| inputs.get(0)?.as_str()), Some(base.as_str()));
    // Base64 of "hello\n" and of "a\rb": each byte that the program wrote, and nothing else.
    let logs: Vec<_> =
        all(&lines, "logs").iter().map(|log| (text(log, "vertex"), text(log, "data"))).collect();
    let digest = || text(run, "digest");
    assert_eq!(logs, [(digest(), "aGVsbG8K".to_owned()), (digest(), "YQ1i".to_owned())], "{lines:#?}");
    let statuses = all(&lines, "statuses");
    let again = |status: &&&Value| text(status, "id").starts_with("again: ");
    assert!(statuses.iter().any(|status| again(&status) && text(status, "vertex") == digest()), "{lines:#?}");
    assert!(statuses.iter().any(|status| text(status, "id").starts_with("exporting manifest sha256:")));

    let outcome = bench.mica.fails(&bench.build(&["--progress=rawjson"]), 1);
    let json: String = outcome
        .stderr
        .lines()
        .take_while(|line| line.starts_with('{'))
        .map(|l| l.to_owned() + "\n")
        .collect();
    let lines = objects(&json);
    let vertexes = all(&lines, "vertexes");
    let find = |name: &str| vertexes.iter().rev().find(|vertex| text(vertex, "name").contains(name));
    assert!(find("RUN exit 7").is_some_and(|vertex| text(vertex, "error").contains("exit code: 7")));
    assert!(find("RUN echo hello").is_some_and(|vertex| vertex.get("cached") == Some(&Value::Bool(true))));
}

#[test]
fn root_kinds_and_the_environment() {
    let Some(bench) = Bench::new(&[Need::Root]) else { return };
    bench
        .write("context/Dockerfile", "FROM base:1 AS one\nRUN echo hello\nFROM one AS two\nRUN echo there\n");
    // Flag, variable, words on standard error, and whether the image ID is on standard output.
    let check = |flag: &str, variable: Option<&str>, expect: Option<&str>, has_id: bool| {
        let mut flags = vec!["--no-cache"];
        flags.extend((!flag.is_empty()).then_some(flag));
        let mut command = bench.mica.command(&bench.build(&flags));
        command.env_remove("BUILDKIT_PROGRESS").envs(variable.map(|value| ("BUILDKIT_PROGRESS", value)));
        let outcome = run_bounded(command, Duration::from_secs(120));
        assert_eq!(outcome.code, 0, "{}", outcome.stderr);
        match expect {
            Some(expect) => {
                assert!(outcome.stderr.contains(expect), "{flag} {variable:?}: {}", outcome.stderr)
            }
            None => assert_eq!(outcome.stderr, "", "{flag} {variable:?}"),
        }
        assert_eq!(outcome.stdout.starts_with("sha256:"), has_id, "{flag} {variable:?}: {}", outcome.stdout);
    };
    // Names say the stage where there are several.
    check("", None, Some("[one 2/2] RUN echo hello\n"), false);
    check("--progress=plain", Some("rawjson"), Some(" hello\n"), false);
    check("--progress=auto", None, Some("[two 1/1] RUN echo there\n"), false);
    check("", Some("rawjson"), Some("{\"vertexes\":["), false);
    check("--progress=tty", None, Some("\x1b[J"), false);
    check("--progress=none", None, None, false);
    check("--progress=quiet", None, None, true);
    check("-q", Some("plain"), None, true);
    let outcome = bench.mica.fails(&bench.build(&["--progress=loud"]), 2);
    assert!(outcome.stderr.contains("auto, plain, tty, none, quiet, rawjson"), "{}", outcome.stderr);
}
