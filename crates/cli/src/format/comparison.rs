//! What two builds of the same made differently, in words.

use mica_build::{Cause, Comparison, ContentDifference, DifferentPath, DifferentStep, PathDifference};
use mica_tree::Time;

use crate::advice::unreproducible::advice;
use crate::format::path::escaped;
use crate::progress::printable;

/// Digits of a digest that tell two files apart.
const DIGITS_SHOWN: usize = 12;
/// Paths that are named as what a step used.
const USED_NAMED: usize = 3;

/// Every path that differs, below the step that made it so, and a sum.
pub(crate) fn text(dockerfile: &str, comparison: &Comparison, ids: &[String; 2]) -> String {
    let mut text = String::new();
    let mut told = Vec::new();
    for step in &comparison.steps {
        text.push_str(&format!("{}:{}: {}\n", printable(dockerfile), step.line, printable(&step.name)));
        text.push_str(&cause(comparison, step));
        for path in &step.paths {
            text.push_str(&format!("  /{}{}\n", escaped(&path.path), differences(path)));
        }
        if let Cause::Own { .. } = step.cause {
            for hint in advice(step) {
                // Once in all: what is told of one step holds for the next.
                if !told.contains(&hint) {
                    text.push_str(&format!("  hint: {hint}\n"));
                    told.push(hint);
                }
            }
        }
        text.push('\n');
    }
    text.push_str(&format!("first build:  {}\nsecond build: {}\n{}\n", ids[0], ids[1], sum(comparison)));
    text
}

/// Empty for a step that saw the same and made something else: that is what is looked for.
fn cause(comparison: &Comparison, step: &DifferentStep) -> String {
    match &step.cause {
        Cause::Own { other_time: None } => String::new(),
        Cause::Own { other_time: Some(path) } => {
            format!("  (it also saw another time of {}, which `--reproducible` would fix)\n", printable(path))
        }
        Cause::Unknown => "  (may follow from a step above: what it used is not known)\n".to_owned(),
        Cause::Follows { used } => {
            let one = |(path, maker): &(String, Option<usize>)| {
                let maker = maker.and_then(|maker| comparison.steps.get(maker));
                match maker {
                    Some(maker) => format!("{} of {}", printable(path), number(&maker.name)),
                    None => printable(path),
                }
            };
            let named: Vec<String> = used.iter().take(USED_NAMED).map(one).collect();
            let more = match used.len().saturating_sub(USED_NAMED) {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            format!("  follows from what it used: {}{more}\n", named.join(", "))
        }
    }
}

/// `[2/3]` of `[2/3] RUN make`
fn number(name: &str) -> String {
    match name.split_once(']') {
        Some((number, _)) => printable(&format!("{number}]")),
        None => printable(name),
    }
}

fn sum(comparison: &Comparison) -> String {
    let follows = comparison.steps.iter().filter(|step| !matches!(step.cause, Cause::Own { .. })).count();
    let causes = comparison.steps.len() - follows;
    let paths: usize = comparison.steps.iter().map(|step| step.paths.len()).sum();
    let causes = match causes {
        1 => "1 step makes something else each time".to_owned(),
        causes => format!("{causes} steps make something else each time"),
    };
    let follows = match follows {
        0 => String::new(),
        1 => ", 1 follows from that".to_owned(),
        follows => format!(", {follows} follow from that"),
    };
    let paths = if paths == 1 { "1 path differs".to_owned() } else { format!("{paths} paths differ") };
    format!("not reproducible: {causes}{follows}; {paths}")
}

fn differences(path: &DifferentPath) -> String {
    let mut short = Vec::new();
    let mut lines = String::new();
    for difference in &path.differences {
        match difference {
            PathDifference::Content(content) => short.push(content_in_words(content, &mut lines)),
            PathDifference::Only { first, kind } => {
                let which = if *first { "first" } else { "second" };
                short.push(format!("{kind} only in the {which} build"));
            }
            PathDifference::Kind([one, other]) => short.push(format!("{one} / {other}")),
            PathDifference::Mode([one, other]) => short.push(format!("mode {one:04o} / {other:04o}")),
            PathDifference::Owner([one, other]) => {
                short.push(format!("owner {}:{} / {}:{}", one.0, one.1, other.0, other.1));
            }
            PathDifference::Time([one, other]) => {
                short.push(format!("time {} / {}", time_in_words(*one), time_in_words(*other)));
            }
            PathDifference::Xattrs(names) => {
                let names: Vec<String> = names.iter().map(|name| escaped(name)).collect();
                short.push(format!("extended attributes {}", names.join(", ")));
            }
            PathDifference::Target([one, other]) => {
                short.push(format!("leads to {} / {}", escaped(one), escaped(other)));
            }
            PathDifference::LinkOf([one, other]) => {
                short.push(format!("a further name of /{} / /{}", escaped(one), escaped(other)));
            }
            PathDifference::Device([one, other]) => {
                short.push(format!("device {}:{} / {}:{}", one.0, one.1, other.0, other.1));
            }
            PathDifference::Opaque { first } => {
                let which = if *first { "first" } else { "second" };
                short.push(format!("made anew in the {which} build only"));
            }
        }
    }
    format!(": {}{lines}", short.join("; "))
}

fn content_in_words(content: &ContentDifference, lines: &mut String) -> String {
    let [one, other] = content.sizes_bytes;
    let sizes = if one == other { format!("{one} bytes") } else { format!("{one} / {other} bytes") };
    match &content.lines {
        Some(found) => {
            for (mark, text) in ["-", "+"].iter().zip(&found.texts) {
                if let Some(text) = text {
                    lines.push_str(&format!("\n    {mark} {}", printable(text)));
                }
            }
            format!("content from byte {} in line {} on, {sizes}", content.offset, found.number)
        }
        None => {
            let digit = |digest: &[u8; 32]| hex(&digest[..DIGITS_SHOWN / 2]);
            let [one, other] = &content.digests;
            format!(
                "content from byte {} on, {sizes}, blake3:{} / blake3:{}",
                content.offset,
                digit(one),
                digit(other)
            )
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time_in_words(time: Time) -> String {
    jiff::Timestamp::from_second(time.seconds)
        .map_or_else(|_| time.seconds.to_string(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_build::TextLines;

    fn path(path: &str, differences: Vec<PathDifference>) -> DifferentPath {
        DifferentPath { path: path.as_bytes().to_vec(), differences }
    }

    fn content(lines: Option<[Option<&str>; 2]>) -> PathDifference {
        let lines =
            lines.map(|texts| TextLines { number: 3, texts: texts.map(|text| text.map(str::to_owned)) });
        let starts = [b"a".to_vec(), b"b".to_vec()];
        let sizes_bytes = [7, if lines.is_some() { 7 } else { 8 }];
        PathDifference::Content(ContentDifference {
            sizes_bytes,
            digests: [[0x11; 32], [0x22; 32]],
            offset: 5,
            starts,
            lines,
        })
    }

    #[test]
    fn every_difference_has_words() {
        let check = |difference: PathDifference, expect: &str| {
            assert_eq!(differences(&path("a", vec![difference])), format!(": {expect}"));
        };
        let time = |seconds| Time { seconds, nanoseconds: 0 };
        check(
            content(Some([Some("x\x1b[1"), Some("y")])),
            "content from byte 5 in line 3 on, 7 bytes\n    - x\u{fffd}[1\n    + y",
        );
        check(content(Some([None, Some("y")])), "content from byte 5 in line 3 on, 7 bytes\n    + y");
        check(
            content(None),
            "content from byte 5 on, 7 / 8 bytes, blake3:111111111111 / blake3:222222222222",
        );
        check(PathDifference::Only { first: true, kind: "file" }, "file only in the first build");
        check(PathDifference::Only { first: false, kind: "deletion" }, "deletion only in the second build");
        check(PathDifference::Kind(["file", "pipe"]), "file / pipe");
        check(PathDifference::Mode([0o644, 0o4755]), "mode 0644 / 4755");
        check(PathDifference::Owner([(0, 1), (2, 3)]), "owner 0:1 / 2:3");
        check(
            PathDifference::Time([time(0), time(i64::MAX)]),
            "time 1970-01-01T00:00:00Z / 9223372036854775807",
        );
        check(PathDifference::Xattrs(vec![b"user.a".to_vec()]), "extended attributes user.a");
        check(PathDifference::Target([b"a\n".to_vec(), b"b".to_vec()]), "leads to a\\x0a / b");
        check(PathDifference::LinkOf([b"a".to_vec(), b"b".to_vec()]), "a further name of /a / /b");
        check(PathDifference::Device([(1, 3), (1, 5)]), "device 1:3 / 1:5");
        check(PathDifference::Opaque { first: true }, "made anew in the first build only");
    }

    #[test]
    fn a_report() {
        let step = |name: &str, line: usize, cause: Cause, at: &str| DifferentStep {
            name: name.to_owned(),
            line,
            instruction: "RUN".to_owned(),
            network: Some(false),
            cause,
            paths: vec![path(at, vec![PathDifference::Mode([1, 2])])],
        };
        let used = vec![("/a".to_owned(), Some(0)), ("/b".to_owned(), None)];
        let comparison = Comparison {
            steps: vec![
                step("[2/4] RUN a", 2, Cause::Own { other_time: None }, "etc/machine-id"),
                step("[3/4] RUN b", 3, Cause::Follows { used }, "b"),
                step("[4/4] RUN c", 5, Cause::Unknown, "c"),
            ],
            paths_of_the_moment: 0,
        };
        let found = text("Dockerfile", &comparison, &["sha256:1".to_owned(), "sha256:2".to_owned()]);
        let lines: Vec<&str> = found.lines().filter(|line| !line.starts_with("  hint: ")).collect();
        assert_eq!(
            lines,
            [
                "Dockerfile:2: [2/4] RUN a",
                "  /etc/machine-id: mode 0001 / 0002",
                "",
                "Dockerfile:3: [3/4] RUN b",
                "  follows from what it used: /a of [2/4], /b",
                "  /b: mode 0001 / 0002",
                "",
                "Dockerfile:5: [4/4] RUN c",
                "  (may follow from a step above: what it used is not known)",
                "  /c: mode 0001 / 0002",
                "",
                "first build:  sha256:1",
                "second build: sha256:2",
                "not reproducible: 1 step makes something else each time, 2 follow from that; 3 paths differ",
            ]
        );
        assert_eq!(found.matches("  hint: ").count(), 1, "{found}");
    }
}
