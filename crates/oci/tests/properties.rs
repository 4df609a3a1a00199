//! Holds the room against itself: what is written reads back, and nothing panics.

use mica_oci::{Digest, Document, ImageConfig, Platform, Reference, ReferenceError};
use proptest::prelude::*;

fn digest() -> impl Strategy<Value = Digest> {
    prop_oneof![
        any::<[u8; 32]>().prop_map(Digest::from_sha256),
        any::<[u8; 32]>().prop_map(Digest::from_blake3),
        proptest::collection::vec(any::<u8>(), 0..9).prop_map(|bytes| Digest::sha512(&bytes)),
    ]
}

/// Texts that are names more often than not.
fn name() -> impl Strategy<Value = String> {
    let registry = prop_oneof![
        Just(""),
        Just("docker.io/"),
        Just("index.docker.io/"),
        Just("localhost/"),
        Just("localhost:5000/"),
        Just("[::1]:80/"),
        Just("a.b-c.d/"),
        Just("HOST/"),
    ];
    // With a dot and more after it, the first component would be a registry.
    let first = "[a-z0-9]{1,3}((_|__|-{1,3})[a-z0-9]{1,2}){0,2}";
    let other = "[a-z0-9]{1,3}((\\.|_|__|-{1,3})[a-z0-9]{1,2}){0,2}";
    let tag = prop_oneof![Just(String::new()), ":[A-Za-z0-9_][A-Za-z0-9_.-]{0,8}"];
    (registry, first, proptest::collection::vec(other, 0..3), tag, proptest::option::of(digest())).prop_map(
        |(registry, first, others, tag, digest)| {
            let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
            let others: String = others.iter().map(|other| format!("/{other}")).collect();
            format!("{registry}{first}{others}{tag}{digest}")
        },
    )
}

/// Bytes that a grammar of names gives meaning to, in any order.
const GRAMMATICAL: &str = "[a-cA-C0-9:/@._\\-\\[\\]é]{0,20}";

proptest! {
    // A failing input belongs into a table of its file, not into a file beside this one.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn digests_read_back(digest in digest()) {
        prop_assert_eq!(Digest::parse(&digest.to_string()), Ok(digest.clone()));
        prop_assert_eq!(digest.short().len(), 12);
    }

    #[test]
    fn names_read_back(text in name()) {
        let reference = Reference::parse(&text).unwrap();
        prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()));
        prop_assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
    }

    #[test]
    fn any_text_reads_back_or_is_refused(text in prop_oneof![Just(GRAMMATICAL), Just(".{0,40}")]
        .prop_flat_map(|pattern| pattern))
    {
        match Reference::parse(&text) {
            Ok(reference) => {
                prop_assert_eq!(Reference::parse(&reference.to_string()), Ok(reference.clone()));
                prop_assert_eq!(Reference::parse(&reference.familiar()), Ok(reference));
            }
            Err(ReferenceError::Uppercase { suggestion, .. }) => {
                prop_assert!(Reference::parse(&suggestion).is_ok());
            }
            Err(_) => {}
        }
        let _ = Digest::parse(&text);
    }

    #[test]
    fn platforms_read_back(text in "[a-zA-Z0-9_]{1,6}(\\([0-9.%+a]{0,5}\\))?/[a-z0-9]{1,5}(/[a-z0-9.]{1,3})?") {
        if let Ok(platform) = Platform::parse(&text) {
            let normalized = platform.normalized();
            prop_assert_eq!(&normalized.normalized(), &normalized);
            let again = Platform::parse(&platform.specifier()).unwrap();
            prop_assert_eq!(again.normalized(), normalized);
        }
    }

    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let _ = Document::parse(&bytes, None);
        let _ = ImageConfig::parse(&bytes);
    }
}

/// Found by fuzzing: a number too large for an integer was another one after each reading.
#[test]
fn numbers_of_unknown_fields_come_back() {
    let config = ImageConfig::parse(br#"{"x":8901234567890000000017390916765208234888}"#).unwrap();
    assert_eq!(ImageConfig::parse(&config.to_canonical_json()).unwrap(), config);
}
