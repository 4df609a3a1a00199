//! What changes a step's key, and what does not.

mod common;

use common::{corpus_base, options, plan_text};
use mica_plan::{PlanOptions, definition_key, step_key};
use std::collections::HashSet;

/// Definition of the last step.
#[track_caller]
fn key_with(text: &str, options: &PlanOptions) -> [u8; 32] {
    let graph =
        plan_text(text, options, &corpus_base()).unwrap_or_else(|errors| panic!("{text}: {errors:?}"));
    definition_key(graph.steps.last().expect("a step"))
}

#[track_caller]
fn key(text: &str) -> [u8; 32] {
    key_with(text, &options())
}

#[track_caller]
fn check(left: &str, right: &str, same: bool) {
    assert_eq!(key(left) == key(right), same, "{left:?} and {right:?}");
}

#[test]
fn what_does_not_matter() {
    check("FROM a\nRUN x", "FROM b AS c\nRUN y\nRUN x", true);
    check("FROM a\nRUN x", "FROM a\n# comment\nLABEL a=b\nEXPOSE 80\nCMD y\nRUN x", true);
    check("FROM a\nRUN a \\\n b", "FROM a\nrun a  b", true);
    check("FROM a AS s\nFROM a\nCOPY --from=s x y", "FROM a AS t\nFROM a\nCOPY --from=0 x y", true);
    check("FROM a\nARG A=1\nCOPY x y", "FROM a\nARG A=2\nCOPY x y", true);
    check("FROM a\nUSER b\nCOPY x /y", "FROM a\nUSER c\nCOPY x /y", true);
    for policy in ["never", "exact", "ttl=1h"] {
        let with_policy = |instruction| format!("FROM a\n# mica: {policy}\n{instruction}");
        for instruction in ["RUN x", "COPY x y", "ADD x y", "WORKDIR /x"] {
            check(&format!("FROM a\n{instruction}"), &with_policy(instruction), true);
        }
    }
    let hidden = PlanOptions { hidden_args: vec![("HTTP_PROXY".into(), "p".into())], ..options() };
    assert_eq!(key_with("FROM a\nRUN x", &hidden), key("FROM a\nRUN x"));
}

#[test]
fn what_matters() {
    let texts = [
        "FROM a\nRUN x",
        "FROM a\nRUN y",
        "FROM a\nRUN [\"x\"]",
        "FROM a\nRUN [\"x\", \"\"]",
        "FROM a\nSHELL [\"s\"]\nRUN x",
        "FROM a\nENV A=1\nRUN x",
        "FROM a\nENV A=2\nRUN x",
        "FROM a\nENV A=1 B=\nRUN x",
        "FROM a\nARG A=3\nRUN x",
        "FROM a\nUSER u\nRUN x",
        "FROM a\nWORKDIR /w\nRUN x",
        "FROM a\nRUN --network=none x",
        "FROM a\nRUN --network=host x",
        "FROM a\nRUN --security=insecure x",
        "FROM a\nRUN --mount=target=/t x",
        "FROM a\nRUN --mount=target=/t,rw x",
        "FROM a\nRUN --mount=target=/t,source=s x",
        "FROM a\nRUN --mount=from=a,target=/t x",
        "FROM a\nRUN --mount=type=cache,target=/t x",
        "FROM a\nRUN --mount=type=cache,target=/t,id=i x",
        "FROM a\nRUN --mount=type=cache,target=/t,sharing=locked x",
        "FROM a\nRUN --mount=type=tmpfs,target=/t x",
        "FROM a\nRUN --mount=type=secret,id=s x",
        "FROM a\nRUN --mount=type=secret,id=s,env=E x",
        "FROM a\nRUN --mount=type=ssh x",
        "FROM a\nRUN <<EOF\n#!/x\nEOF",
        "FROM a\nRUN <<EOF\n#!/y\nEOF",
        "FROM a\nCOPY x y",
        "FROM a\nADD x y",
        "FROM a\nCOPY x y/",
        "FROM a\nCOPY x z y/",
        "FROM a\nCOPY --chown=1 x y",
        "FROM a\nCOPY --chmod=1 x y",
        "FROM a\nCOPY --chmod=+x x y",
        "FROM a\nCOPY --link x y",
        "FROM a\nCOPY --parents x y",
        "FROM a\nCOPY --exclude=z x y",
        "FROM a\nCOPY --from=b x y",
        "FROM a\nCOPY <<x y\n1\nx",
        "FROM a\nCOPY <<x y\n2\nx",
        "FROM a\nADD https://h/x y",
        "FROM a\nADD --unpack=true x y",
        "FROM a\nADD --unpack=false x y",
        "FROM a\nWORKDIR /x",
        "FROM a\nUSER u\nWORKDIR /x",
    ];
    let keys: HashSet<[u8; 32]> = texts.iter().map(|text| key(text)).collect();
    assert_eq!(keys.len(), texts.len());
    let arm = PlanOptions { platform: mica_oci::Platform::new("linux", "arm64"), ..options() };
    assert_ne!(key_with("FROM a\nRUN x", &arm), key("FROM a\nRUN x"));
}

#[test]
fn keys_of_steps_are_unambiguous() {
    let [a, b] = [[1u8; 32], [2u8; 32]];
    let keys = [
        step_key(None, &a, &[]),
        step_key(Some(&a), &a, &[]),
        step_key(Some(&b), &a, &[]),
        step_key(Some(&a), &b, &[]),
        step_key(None, &a, &[a]),
        step_key(None, &a, &[a, b]),
        step_key(None, &a, &[b, a]),
        step_key(Some(&a), &a, &[a]),
    ];
    assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
}

/// A change here is a change of format: raise the version in `cache_key.rs`, then pin the new value.
#[test]
fn keys_stay_the_same_between_releases() {
    let hex: String = key("FROM a\nRUN x").iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "7d60de838500bc6eae8499f776cfc1c30b289e905da895cda66648207ebd0b12");
}
