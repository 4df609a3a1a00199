//! SOURCE_DATE_EPOCH: what it changes in an image, wherever it comes from.

use mica_testkit::{Mica, SavedImage};

use crate::support::{build, id, ok, project, store};

const DOCKERFILE: &str = "FROM base:1\nRUN echo a > /a\nENV A=1\nCOPY b /c/b\n";

/// Times that the image tells: of itself, of its last three entries; and whether those of the base are untouched.
fn times(mica: &Mica, name: &str) -> Vec<String> {
    let config = SavedImage::of(mica, name).config;
    let base = SavedImage::of(mica, "base:1").config;
    let count = base["history"].as_array().map_or(0, Vec::len);
    let created = |value: &serde_json::Value| value["created"].as_str().unwrap_or_default().to_owned();
    let history = config["history"].as_array().expect("a history");
    assert_eq!(
        history.get(..count).unwrap_or_default(),
        base["history"].as_array().map_or(&[][..], |all| all)
    );
    let mut times = vec![created(&config)];
    times.extend(history[count..].iter().map(created));
    times
}

#[test]
fn every_time_of_config_and_history_is_the_epoch() {
    let Some(mica) = store() else { return };
    let check = |environment: Option<&str>, flags: &[&str], global: &str, expect: &str| {
        let dir = project(&format!("{global}{DOCKERFILE}"), &[("b", "b")]);
        let mut command = build(&mica, dir.path(), &[&["-t", "e:1"], flags].concat());
        if let Some(value) = environment {
            command.env("SOURCE_DATE_EPOCH", value);
        }
        ok(command);
        let all = times(&mica, "e:1");
        assert_eq!(all.len(), 4, "{all:?}");
        match expect {
            // The time of the steps, which is that of this test.
            "" => assert!(all.iter().all(|time| time.as_str() > "2024"), "{all:?}"),
            expect => assert!(all.iter().all(|time| time == expect), "{all:?} is not {expect}"),
        }
    };
    let arg = "--build-arg=SOURCE_DATE_EPOCH=1000000000";
    // From the second line on, all steps are cached under the time of another build.
    check(Some("86400"), &[], "", "1970-01-02T00:00:00Z");
    check(None, &[], "", "");
    check(None, &[arg], "", "2001-09-09T01:46:40Z");
    check(Some("86400"), &[arg], "", "2001-09-09T01:46:40Z");
    check(Some("0"), &[], "ARG SOURCE_DATE_EPOCH=5\n", "1970-01-01T00:00:00Z");
    check(None, &[], "ARG SOURCE_DATE_EPOCH=5\n", "1970-01-01T00:00:05Z");
    check(Some(""), &[], "", "");
    check(None, &["--build-arg=SOURCE_DATE_EPOCH="], "ARG SOURCE_DATE_EPOCH=5\n", "");
    // A directory has no time, as with BuildKit.
    check(Some("context"), &[], "", "");
    check(Some("86400"), &["--no-cache"], "", "1970-01-02T00:00:00Z");
    check(None, &[], "", "");
}

#[test]
fn an_epoch_that_means_nothing_is_an_error() {
    let Some(mica) = store() else { return };
    let dir = project(DOCKERFILE, &[("b", "b")]);
    let mut command = build(&mica, dir.path(), &[]);
    command.env("SOURCE_DATE_EPOCH", "yesterday");
    let outcome = crate::support::run(command);
    assert_ne!(outcome.code, 0, "{outcome}");
    assert!(outcome.stderr.contains("`yesterday` is not a SOURCE_DATE_EPOCH"), "{outcome}");
}

#[test]
fn a_new_directory_has_the_epoch_of_its_build() {
    let Some(mica) = store() else { return };
    let dir = project("FROM base:1\nWORKDIR /new/dir\n", &[]);
    let build = |epoch: &str| {
        id(&mica, dir.path(), &["-t", "e:1", &format!("--build-arg=SOURCE_DATE_EPOCH={epoch}")])
    };
    let (first, second) = (build("1000"), build("2000"));
    assert_ne!(first, second);
    assert_eq!(first, build("1000"));
    mica.ok(&["tag", "e:1", "e:2"]);
    build("2000");
    let list =
        |name: &str| mica.ok(&["run", "--rm", "--network=none", name, "stat", "-c", "%Y", "/new/dir"]).stdout;
    assert_eq!((list("e:1").trim(), list("e:2").trim()), ("2000", "1000"));
}
