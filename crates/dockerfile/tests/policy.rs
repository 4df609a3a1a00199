//! What `# mica:` comments say, and what is told of those that say nothing.

use mica_diagnostic::{Severity, Source};
use mica_dockerfile::instruction::InstructionKind;
use mica_dockerfile::{AgeError, CachePolicy, Reuse, parse_age, parse_dockerfile, parse_trigger};

const WORDS: &str = "write `never`, `exact` or `ttl=DURATION`";
const PLACE: &str = "put it directly above a RUN, COPY, ADD or WORKDIR";
const DURATION: &str = "write numbers with units, like `90s`, `10m`, `1h30m` or `7d`";

const PRECISE: CachePolicy = CachePolicy { reuse: Reuse::Precise, ttl_seconds: None };
const EXACT: CachePolicy = CachePolicy { reuse: Reuse::Exact, ttl_seconds: None };
const NEVER: CachePolicy = CachePolicy { reuse: Reuse::Never, ttl_seconds: None };

fn ttl(seconds: u64) -> CachePolicy {
    CachePolicy { reuse: Reuse::Precise, ttl_seconds: Some(seconds) }
}

/// The policies of all instructions, and line, underlined text, message and hint of each warning.
#[track_caller]
fn check(text: &str, policies: &[CachePolicy], expect: &[(usize, &str, &str, &str)]) {
    let source = Source::new("Dockerfile", text);
    let parsed = parse_dockerfile(source.clone()).unwrap_or_else(|problems| panic!("{text}: {problems:?}"));
    let instructions = parsed.stages.iter().flat_map(|stage| &stage.instructions);
    let got = instructions.map(|instruction| instruction.policy).collect::<Vec<_>>();
    assert_eq!(got, policies, "{text}");
    let warnings = parsed.warnings.iter().map(|warning| {
        assert_eq!(warning.severity, Severity::Warning);
        let under = text.get(warning.span.range()).expect("span is in bounds");
        let hint = warning.hint.as_deref().unwrap_or_default();
        (source.line(warning.span.start), under, warning.message.as_str(), hint)
    });
    assert_eq!(warnings.collect::<Vec<_>>(), expect, "{text}");
}

/// One comment above a RUN, and the RUN's policy.
#[track_caller]
fn check_words(comment: &str, policy: CachePolicy) {
    check(&format!("FROM a\n{comment}\nRUN x\n"), &[policy], &[]);
}

#[test]
fn words() {
    check_words("# mica: never", NEVER);
    check_words("# mica: exact", EXACT);
    check_words("# mica: ttl=90s", ttl(90));
    check_words("# mica: ttl=7d", ttl(7 * 86_400));
    check_words("# mica: exact ttl=1h30m", CachePolicy { ttl_seconds: Some(5_400), ..EXACT });
    check_words("# mica: ttl=10m,exact", CachePolicy { ttl_seconds: Some(600), ..EXACT });
    check_words("# mica: exact , ,\tttl=1.5s ,", CachePolicy { ttl_seconds: Some(1), ..EXACT });
    check_words("# mica: exact exact", EXACT);
    check_words("# mica: never never", NEVER);
}

#[test]
fn how_it_may_be_written() {
    for comment in [
        "#mica:never",
        "  #   MICA:   Never  ",
        "# Mica :never\r",
        "\t#mica\t:\tNEVER",
        "# mica: never\n# about the step",
        "# about the step\n# mica: never\n#\n#\n# more",
    ] {
        check_words(comment, NEVER);
    }
    for comment in ["# micas: never", "# mica never", "# see mica: never", "# mica=never", "## mica: never"] {
        check_words(comment, PRECISE);
    }
    check_words("# mica: exact\n# and\n# mica: ttl=1s", CachePolicy { ttl_seconds: Some(1), ..EXACT });
}

#[test]
fn which_instruction_it_is_for() {
    check(
        "FROM a\n# mica: never\nRUN x\nRUN y\n# mica: exact\nCOPY a b\n# mica: ttl=1s\nADD a b\n\
         # mica: exact\nworkdir /w\nRUN z\n",
        &[NEVER, PRECISE, EXACT, ttl(1), EXACT, PRECISE],
        &[],
    );
    // The first line of a file: as little a parser directive as any other comment, so it ends them.
    let behind = "no instruction follows this comment directly";
    check(
        "# mica: never\n\n# escape=`\nFROM a\nRUN x \\\n y\n",
        &[PRECISE],
        &[(1, "# mica: never", behind, PLACE)],
    );
    check(
        "# escape=`\n# mica: never\nFROM a\n# mica: exact\nRUN x `\n# mica: never\n y\n",
        &[EXACT],
        &[(2, "# mica: never", "a `# mica:` comment means nothing above FROM", PLACE)],
    );
    // In a heredoc, and between the lines of an instruction.
    check("FROM a\nRUN <<E\n# mica: never\nE\nRUN x\n", &[PRECISE, PRECISE], &[]);
    check("FROM a\nRUN x \\\n# mica: never\n# mica: nonsense\n y\nRUN z\n", &[PRECISE, PRECISE], &[]);
    check("FROM a\n# mica: never\nRUN <<E\nx\nE\n", &[NEVER], &[]);
}

#[test]
fn where_it_means_nothing() {
    let behind = "no instruction follows this comment directly";
    check(
        "FROM a\n  # mica: never \n\nRUN x\n# mica: ttl=é\n",
        &[PRECISE],
        &[(2, "# mica: never", behind, PLACE), (5, "# mica: ttl=é", behind, PLACE)],
    );
    check(
        "FROM a\n# mica: exact\n \t\n# mica: never\nRUN x\n",
        &[NEVER],
        &[(2, "# mica: exact", behind, PLACE)],
    );
    check(
        "# mica: nonsense\nARG A\n# mica: exact\nFROM a\n# mica: never\nENV a=b\n# mica: never\nONBUILD RUN x\n",
        &[PRECISE, PRECISE],
        &[
            (1, "# mica: nonsense", "a `# mica:` comment means nothing above ARG", PLACE),
            (3, "# mica: exact", "a `# mica:` comment means nothing above FROM", PLACE),
            (5, "# mica: never", "a `# mica:` comment means nothing above ENV", PLACE),
            (7, "# mica: never", "a `# mica:` comment means nothing above ONBUILD", PLACE),
        ],
    );
}

#[test]
fn words_that_mean_nothing() {
    let cases: &[(&str, CachePolicy, &str, &str, &str)] = &[
        ("nevr", PRECISE, "nevr", "unknown word `nevr` in a `# mica:` comment", "did you mean `never`?"),
        ("exat,never", NEVER, "exat", "unknown word `exat` in a `# mica:` comment", "did you mean `exact`?"),
        (
            "tll=1m exact",
            EXACT,
            "tll=1m",
            "unknown word `tll=1m` in a `# mica:` comment",
            "did you mean `ttl=DURATION`?",
        ),
        ("exact  ünsinn", EXACT, "ünsinn", "unknown word `ünsinn` in a `# mica:` comment", WORDS),
        ("ttl", PRECISE, "ttl", "`ttl` without a duration", "write it like `ttl=1h30m`"),
        ("never=1", PRECISE, "never=1", "`never` takes no value", "write `never`"),
        ("ttl=", PRECISE, "", "invalid duration of `ttl`: ``", DURATION),
        ("ttl=10 exact", EXACT, "10", "invalid duration of `ttl`: `10`", DURATION),
        ("ttl=1w", PRECISE, "1w", "invalid duration of `ttl`: `1w`", DURATION),
        (
            "ttl=0",
            PRECISE,
            "0",
            "`ttl` cannot be less than a second: `0`",
            "for a step that is always done again write `never`",
        ),
        ("never exact", NEVER, "exact", "`exact` means nothing beside `never`", "remove one of them"),
        ("ttl=1m never", NEVER, "ttl=1m", "`ttl` means nothing beside `never`", "remove one of them"),
        ("ttl=1m ttl=2m", ttl(60), "ttl=2m", "`ttl` given twice", "the shorter one counts: remove the other"),
    ];
    for (words, policy, under, message, hint) in cases {
        let text = format!("FROM a\n# mica: {words}\nRUN x\n");
        check(&text, &[*policy], &[(2, under, message, hint)]);
    }
    check(
        "FROM a\n# mica: \nRUN x\n",
        &[PRECISE],
        &[(2, "# mica:", "a `# mica:` comment that says nothing", WORDS)],
    );
}

/// Invariant 4: prose behind `mica:` is not told word by word without end.
#[test]
fn the_number_of_warnings_is_bounded() {
    let text = format!("FROM a\n# mica:{}\nRUN x\n", " prose".repeat(1_000));
    let parsed = parse_dockerfile(Source::new("Dockerfile", &text)).expect("comments are never errors");
    assert_eq!(parsed.warnings.len(), 50);
}

#[test]
fn triggers_have_none() {
    let trigger = parse_trigger(Source::new("image", "# mica: never\nRUN x")).expect("a trigger");
    assert!(matches!(trigger.kind, InstructionKind::Run(_)));
    assert_eq!(trigger.policy, CachePolicy::default());
}

#[test]
fn ages() {
    for (text, expect) in [
        ("1s", Ok(1)),
        ("90s", Ok(90)),
        ("10m", Ok(600)),
        ("1h30m", Ok(5_400)),
        ("7d", Ok(604_800)),
        ("1d12h", Ok(129_600)),
        ("1.5d", Ok(129_600)),
        ("1999ms", Ok(1)),
        ("+1s", Ok(1)),
        ("0", Err(AgeError::TooShort)),
        ("999ms", Err(AgeError::TooShort)),
        ("-1h", Err(AgeError::TooShort)),
        ("", Err(AgeError::NotADuration)),
        ("10", Err(AgeError::NotADuration)),
        ("d", Err(AgeError::NotADuration)),
        ("1 s", Err(AgeError::NotADuration)),
        ("1y", Err(AgeError::NotADuration)),
        ("106752d", Err(AgeError::NotADuration)),
        ("99999999999999999999s", Err(AgeError::NotADuration)),
    ] {
        assert_eq!(parse_age(text), expect, "{text}");
    }
    // docker knows no days.
    let text = "FROM a\nHEALTHCHECK --interval=1d CMD x\n";
    assert!(parse_dockerfile(Source::new("Dockerfile", text)).is_err());
}
