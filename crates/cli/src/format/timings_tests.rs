//! The parts of the page that can be wrong without looking wrong.

use super::*;

fn bar(start_ms: u64, end_ms: u64, inputs: &[usize]) -> Bar {
    Bar { start_ms, end_ms, inputs: inputs.to_vec(), state: State::Ran, ..Bar::new("stage a", "RUN x") }
}

fn of(bars: Vec<Bar>) -> Page {
    let texts = ["Dockerfile", "", "now"].map(str::to_owned);
    let [dockerfile, tags, begun] = texts;
    Page { dockerfile, tags, begun, error: None, wall_ms: 100, bars }
}

#[test]
fn the_longest_chain_is_the_one_that_takes_longest() {
    let check = |bars: &[Bar], expect: &[usize]| assert_eq!(longest_chain(bars), expect);
    check(&[], &[]);
    check(&[bar(0, 5, &[])], &[0]);
    // Two ways to one end; what is done early and in between does not count.
    check(&[bar(0, 5, &[]), bar(0, 7, &[]), bar(7, 9, &[0, 1])], &[1, 2]);
    check(&[bar(0, 9, &[]), bar(0, 2, &[]), bar(2, 4, &[1])], &[0]);
    // What was not reached ends no chain.
    let waiting = Bar { state: State::Waiting, ..bar(0, 0, &[0]) };
    check(&[bar(0, 5, &[]), waiting], &[0]);
    // What a bar would wait for after itself is no input.
    check(&[bar(0, 5, &[1, 7]), bar(5, 6, &[0])], &[0, 1]);
    check(&[bar(0, u64::MAX, &[]), bar(0, u64::MAX, &[0])], &[0, 1]);
}

#[test]
fn times() {
    let check = |ms: u64, expect: &str| assert_eq!(duration(ms), expect);
    check(0, "0 ms");
    check(999, "999 ms");
    check(1000, "1 s");
    check(1250, "1.2 s");
    check(60_000, "1 min");
    check(125_900, "2 min 5 s");
    check(3_720_000, "1 h 2 min");
    let ticks_of = |end_ms: u64, expect: &[u64]| assert_eq!(ticks(end_ms), expect);
    ticks_of(1, &[0, 1]);
    ticks_of(1100, &[0, 200, 400, 600, 800, 1000]);
    ticks_of(90_000, &[0, 20_000, 40_000, 60_000, 80_000]);
    for end_ms in [0, 7, 12_345, 86_400_000, u64::MAX] {
        assert!(ticks(end_ms).len() <= 9, "{end_ms}");
    }
}

#[test]
fn hostile_texts_stay_texts() {
    let evil = "</style><script>alert(1)</script>\"'&\x1b\u{202e}";
    let mut page_of = of(vec![Bar { why: evil.to_owned(), ..Bar::new(evil, evil) }]);
    page_of.error = Some(evil.to_owned());
    (page_of.dockerfile, page_of.tags, page_of.begun) = (evil.to_owned(), evil.to_owned(), evil.to_owned());
    let text = page(&page_of);
    assert_eq!(text.matches("<script").count(), 1);
    assert_eq!(text.matches("</style").count(), 1);
    assert!(!text.contains('\x1b') && !text.contains('\u{202e}'));
    assert!(text.contains("&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#39;&amp;\u{fffd}\u{fffd}"));
    assert!(escaped(&"x".repeat(TEXT_LENGTH_MAX * 2)).len() <= TEXT_LENGTH_MAX);
}

#[test]
fn nothing_is_asked_of_the_network() {
    let text = page(&of(vec![bar(0, 5, &[])]));
    for wrong in ["http:", "https:", "//", " style=", " onclick="] {
        let found = text.replace("// On narrow", "").contains(wrong);
        assert!(!found, "{wrong}");
    }
    assert!(text.contains("default-src 'none'"));
    assert_eq!(fingerprint(""), "47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=");
}

#[test]
fn a_step_says_what_it_waited_for() {
    let check = |inputs: &[usize], start_ms: u64, expect: &str| {
        let bars = vec![bar(0, 500, &[]), bar(0, 900, &[])];
        let page = of(bars);
        assert_eq!(waited_for(&page, &bar(start_ms, start_ms + 1, inputs)), expect);
    };
    let (first, second) = ("<a href=\"#row-0\">#1</a>", "<a href=\"#row-1\">#2</a>");
    check(&[], 3000, "");
    check(&[0, 1, 0], 910, &format!("{second}, {first}"));
    check(&[0], 1900, &format!("{first}, then 1.4 s for its turn"));
}
