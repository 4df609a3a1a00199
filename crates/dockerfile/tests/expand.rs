//! Word expansion against the vectors of the corpus and a table of our own.

mod common;

use mica_dockerfile::expand::{ExpandError, expand_for_display, expand_heredoc, expand_word, expand_words};
use std::collections::{BTreeSet, HashMap};

#[test]
fn corpus_shell_words() {
    let Some(vectors) = common::corpus_json("vectors/shell-words.json") else { return };
    let mut failures = Vec::new();
    let cases = vectors["cases"].as_array().expect("cases");
    for case in cases {
        let input = case["in"].as_str().expect("in");
        let escape = case["escape"].as_str().and_then(|escape| escape.chars().next()).unwrap_or('\\');
        let env = case["env"].as_array().expect("env").iter().filter_map(|pair| pair.as_str()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        });
        let env = env.collect::<HashMap<_, _>>();
        let lookup = |name: &str| env.get(name).cloned();
        let word = expand_word(input, escape, &lookup);
        let words = expand_words(input, escape, &lookup);
        let mut fail = |what: &str| failures.push(format!("{what}: {case}\n   got {word:?} {words:?}"));
        if case.get("word_error").is_some() != word.is_err() {
            fail("word error");
        } else if let Ok(word) = &word {
            if word.text != case["word"].as_str().unwrap_or_default() {
                fail("word");
            }
            let expect = case["unused_or_unset"].as_array().map(Vec::as_slice).unwrap_or_default();
            let expect = expect.iter().filter_map(|name| name.as_str()).collect::<BTreeSet<_>>();
            if expect != word.undefined.iter().map(String::as_str).collect() {
                fail("undefined");
            }
        }
        if case.get("words_error").is_some() != words.is_err() {
            fail("words error");
        } else if let Ok(words) = &words {
            let expect = case["words"].as_array().map(Vec::as_slice).unwrap_or_default();
            if expect.iter().filter_map(|word| word.as_str()).ne(words.iter().map(String::as_str)) {
                fail("words");
            }
        }
    }
    println!("shell words: {} cases, {} failures", cases.len(), failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

fn lookup(name: &str) -> Option<String> {
    match name {
        "A" => Some("one two".to_owned()),
        "E" => Some(String::new()),
        "BIG" => Some("x".repeat(1 << 20)),
        _ => None,
    }
}

#[test]
fn display_keeps_what_people_wrote() {
    let check = |input: &str, expect: &str| {
        assert_eq!(
            expand_for_display(input, '\\', &lookup).map(|e| e.text).as_deref(),
            Ok(expect),
            "{input}"
        );
    };
    check(r#"COPY "$A" '$A' \$A $B ${B:-x}"#, r#"COPY "one two" '$A' \$A $B ${B:-x}"#);
}

#[test]
fn heredoc_bodies_have_no_quotes() {
    let check = |input: &str, expect: &str| {
        assert_eq!(expand_heredoc(input, &lookup).map(|e| e.text).as_deref(), Ok(expect), "{input}");
    };
    check("it's $A \"\n\\$A", "it's one two \"\n$A");
}

#[test]
fn hostile_words_end() {
    let deep = "${a:-".repeat(100_000);
    assert_eq!(expand_word(&deep, '\\', &lookup), Err(ExpandError::TooDeep { max: 64 }));
    let big = "$BIG".repeat(100);
    assert!(matches!(expand_word(&big, '\\', &lookup), Err(ExpandError::TooLong { .. })));
    let stars = format!("${{BIG##{}y}}", "*x".repeat(1000));
    assert!(matches!(expand_word(&stars, '\\', &lookup), Err(ExpandError::PatternTooLong { .. })));
}
