//! Whole outputs, and properties for any input.

use mica_diagnostic::{Diagnostic, Source, Span, render};
use proptest::prelude::*;

fn check(text: &str, diagnostic: Diagnostic, expect: &str) {
    let source = Source::new("Dockerfile", text);
    assert_eq!(render(&[diagnostic], &source, false), expect);
}

#[test]
fn one_line() {
    let diagnostic = Diagnostic::error(Span::new(22, 37), "`app/config.toml` is not in the build context")
        .note("excluded by `.dockerignore`, line 3: `app/*.toml`")
        .hint("add `!app/config.toml` to `.dockerignore`");
    check(
        "FROM alpine\nRUN a\nCOPY app/config.toml /etc/\n",
        Diagnostic { span: Span::new(23, 38), ..diagnostic },
        "\
error: `app/config.toml` is not in the build context
  --> Dockerfile:3:6
 3 | COPY app/config.toml /etc/
   |      ^^^^^^^^^^^^^^^
note: excluded by `.dockerignore`, line 3: `app/*.toml`
hint: add `!app/config.toml` to `.dockerignore`
",
    );
}

#[test]
fn several_lines() {
    check(
        "RUN a \\\n  && b \\\n  && c\n",
        Diagnostic::warning(Span::new(0, 23), "slow"),
        "\
warning: slow
  --> Dockerfile:1:1
 1 | RUN a \\
   | ^^^^^^^
 2 |   && b \\
   |   ^^^^^^
 3 |   && c
   |   ^^^^
",
    );
    let text = "x\n".repeat(20);
    check(
        &text,
        Diagnostic::error(Span::new(16, 40), "long"),
        "\
error: long
  --> Dockerfile:9:1
  9 | x
    | ^
 10 | x
    | ^
 11 | x
    | ^
 12 | x
    | ^
    ... up to line 20
"
        .replace("  --> ", "   --> ")
        .as_str(),
    );
}

#[test]
fn hostile_text_is_shown_not_obeyed() {
    check(
        "RUN \x1b[2J\u{202e}\tx 漢y",
        Diagnostic::error(Span::new(17, 18), "bad \x1b[31m"),
        "\
error: bad \\u{1b}[31m
  --> Dockerfile:1:18
 1 | RUN \\u{1b}[2J\\u{202e}    x 漢y
   |                              ^
",
    );
}

#[test]
fn long_lines_are_cut_around_the_span() {
    let text = format!("{}wrong{}", "a".repeat(10_000), "b".repeat(10_000));
    let source = Source::new("Dockerfile", &text);
    let rendered = render(&[Diagnostic::error(Span::new(10_000, 10_005), "here")], &source, false);
    assert!(rendered.lines().all(|line| line.len() < 170), "{rendered}");
    let lines = rendered.lines().collect::<Vec<_>>();
    let at = lines[2].find("wrong").expect("the span is shown");
    assert_eq!(lines[3].find('^'), Some(at));
    assert_eq!(lines[3].matches('^').count(), 5);
}

#[test]
fn colour_adds_nothing_but_colour() {
    let source = Source::new("Dockerfile", "FROM x\n");
    let diagnostics = [Diagnostic::error(Span::new(5, 6), "no").hint("yes")];
    let mut plain = String::new();
    let colored = render(&diagnostics, &source, true);
    let mut rest = colored.as_str();
    while let Some((before, after)) = rest.split_once('\x1b') {
        plain.push_str(before);
        rest = after.split_once('m').expect("colour ends").1;
    }
    plain.push_str(rest);
    assert_eq!(plain, render(&diagnostics, &source, false));
}

proptest! {
    #[test]
    fn any_span_of_any_text(text in "(?s).{0,300}", start in 0_usize..400, length in 0_usize..400) {
        let source = Source::new("Dockerfile", &text);
        let diagnostic = Diagnostic::error(Span::new(start, start + length), text.clone());
        let rendered = render(&[diagnostic], &source, false);
        prop_assert!(!rendered.chars().any(|c| c.is_control() && c != '\n'));
        prop_assert!(rendered.len() < 20_000);
    }
}
