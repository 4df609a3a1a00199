//! `.dockerignore` and globs against the vectors of the corpus and tables of our own.

mod common;

use mica_dockerfile::dockerignore::{Dockerignore, IgnoreError, ParentInfo, clean_lines};
use mica_dockerfile::{BadPattern, glob_match};

#[test]
fn corpus_ignorefile() {
    let Some(vectors) = common::corpus_json("vectors/ignorefile.json") else { return };
    let cases = vectors["cases"].as_array().expect("cases");
    for case in cases {
        let got = clean_lines(case["in"].as_str().expect("in"));
        let got = got.into_iter().map(|(_, _, pattern)| pattern).collect::<Vec<_>>();
        let expect = case["patterns"].as_array().map(Vec::as_slice).unwrap_or_default();
        assert_eq!(got, expect.iter().map(|p| p.as_str().unwrap_or_default()).collect::<Vec<_>>(), "{case}");
    }
    println!("ignorefile: {} passed", cases.len());
}

#[test]
fn corpus_ignore_patterns() {
    let Some(vectors) = common::corpus_json("vectors/ignore-patterns.json") else { return };
    let cases = vectors["cases"].as_array().expect("cases");
    let mut failures = Vec::new();
    for case in cases {
        let patterns = case["patterns"].as_array().expect("patterns").iter().filter_map(|p| p.as_str());
        let ignore = match Dockerignore::from_patterns(patterns) {
            Ok(ignore) if case.get("error").is_none() => ignore,
            Err(_) if case.get("error").is_some() => continue,
            other => {
                failures.push(format!("{other:?} for {case}"));
                continue;
            }
        };
        for (path, expect) in case["matches"].as_object().expect("matches") {
            let expect = expect.as_bool().expect("bool");
            let got = ignore.matches(path).is_ignored;
            let walked = walk(&ignore, path);
            if got != expect || walked != expect {
                failures.push(format!(
                    "{path:?}: got {got}, walked {walked}, expected {expect} by {}",
                    case["patterns"]
                ));
            }
        }
    }
    println!("ignore patterns: {} cases, {} failures", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// As a walk would find out, going through all directories.
fn walk(ignore: &Dockerignore, path: &str) -> bool {
    let mut parent = ParentInfo::default();
    let mut ignored = false;
    let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
    for end in ends {
        let is_last = end == path.len();
        let (now, info) = ignore.matches_in(&parent, &path[..end]);
        // A directory that is skipped must not hide anything.
        if now && !is_last && !ignore.may_reinclude_below(&path[..end]) {
            return true;
        }
        (ignored, parent) = (now, info);
    }
    ignored
}

#[test]
fn the_deciding_line_is_named() {
    let ignore = Dockerignore::parse("# comment\n\n/app/\n!app/keep\napp/keep/*.tmp\n").expect("parses");
    let check = |path: &str, expect: Option<(bool, usize, &str)>| {
        let ignored = ignore.matches(path);
        assert_eq!(
            ignored.by.map(|rule| (ignored.is_ignored, rule.line, rule.text.as_str())),
            expect,
            "{path}"
        );
    };
    check("app/a", Some((true, 3, "/app/")));
    check("app/keep/b", Some((false, 4, "!app/keep")));
    check("app/keep/b.tmp", Some((true, 5, "app/keep/*.tmp")));
    check("other", None);
}

#[test]
fn walks_skip_what_cannot_come_back() {
    let ignore = Dockerignore::parse("*\n!src/*.rs\n!**/keep.txt\n").expect("parses");
    assert!(ignore.may_reinclude_below("anything"));
    let ignore = Dockerignore::parse("*\n!src/*.rs\n!docs\n").expect("parses");
    assert!(ignore.may_reinclude_below("src"));
    assert!(!ignore.may_reinclude_below("src/deep"));
    assert!(!ignore.may_reinclude_below("node_modules"));
    assert!(!ignore.may_reinclude_below("docs"));
}

#[test]
fn all_wrong_lines_are_told() {
    let errors = Dockerignore::parse("a\n!\n[\n").expect_err("two lines are wrong");
    assert_eq!(
        errors,
        [
            IgnoreError::BareExclamation { line: 2 },
            IgnoreError::BadPattern { line: 3, pattern: "[".to_owned() }
        ]
    );
}

#[test]
fn globs_match_as_in_go() {
    let check = |pattern: &str, name: &str, expect: Option<bool>| {
        let expect = expect.ok_or_else(|| BadPattern { pattern: pattern.to_owned() });
        assert_eq!(glob_match(pattern, name), expect, "{pattern} {name}");
    };
    check("abc", "abc", Some(true));
    check("*", "abc", Some(true));
    check("*c", "abc", Some(true));
    check("a*", "ab/c", Some(false));
    check("a*/b", "a/c/b", Some(false));
    check("a*b*c*d*e*/f", "axbxcxdxexxx/f", Some(true));
    check("ab[^b-d]", "abc", Some(false));
    check("a\\*b", "ab", Some(false));
    check("a?b", "a☺b", Some(true));
    check("a[^a]b", "a/b", Some(true));
    check("a?b", "a/b", Some(false));
    check("[\\]a]", "]", Some(true));
    check("[]a]", "]", None);
    check("[-]", "-", None);
    check("[x-]", "x", None);
    check("[a-b-c]", "a", None);
    check("[", "a", None);
    check("[^", "a", None);
    check("[^bc", "a", None);
    check("a[", "ab", None);
    check("a\\", "a", None);
    check("*x", "xxx", Some(true));
}

#[test]
fn hostile_patterns_end() {
    let pattern = "*a".repeat(4000);
    assert_eq!(glob_match(&pattern, &"a".repeat(4096)), Ok(true));
    assert!(glob_match(&"*a".repeat(5000), "a").is_err());
}
