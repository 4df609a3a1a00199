//! Invariants 1 and 2 with random input: no panic, bounded results, and what is written reads back.

use mica_oci::Digest;
use mica_registry_api::auth_challenge::{Bearer, CHALLENGES_MAX, Challenge};
use mica_registry_api::error_code::{ENTRIES_MAX, ErrorReply};
use mica_registry_api::range::{ByteRange, ContentRange, UploadRange};
use mica_registry_api::{Item, ManifestName, Page, Route, TokenReply, pagination, printable};
use proptest::prelude::*;

/// Text that is likely to hit the parsers' own characters.
fn wire_text() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<String>(),
        "[ -~]{0,60}",
        "((Basic|Bearer|realm|scope|rel|next|bytes|[=,;<>/\"\\\\ -]|[0-9a-z%+?&]|ü|\u{1b}){1,4}){0,20}",
    ]
}

fn split(text: &str) -> (&str, &str) {
    text.split_once('?').unwrap_or((text, ""))
}

proptest! {
    #[test]
    fn challenges_never_panic(text in wire_text()) {
        let challenges = Challenge::parse(&text);
        prop_assert!(challenges.len() <= CHALLENGES_MAX);
        for challenge in challenges {
            if let Challenge::Bearer(bearer) = &challenge {
                prop_assert!(bearer.scopes().all(|scope| !scope.is_empty()));
            }
        }
    }

    #[test]
    fn challenges_read_back(realm in ".{1,30}", service in proptest::option::of(".{0,30}"), scope in proptest::option::of(".{0,30}")) {
        let challenges = vec![
            Challenge::Bearer(Bearer { realm: realm.clone(), service, scope, error: None }),
            Challenge::Basic { realm },
        ];
        let text: Vec<String> = challenges.iter().map(Challenge::to_string).collect();
        prop_assert_eq!(Challenge::parse(&text.join(", ")), challenges);
    }

    #[test]
    fn routes_never_panic(path in wire_text(), query in wire_text()) {
        let _ = Route::parse(&path, &query);
        for item in ["blobs/uploads", "blobs", "manifests", "tags/list", "referrers"] {
            let _ = Route::parse(&format!("/v2/{path}/{item}"), &query);
            if let Ok(route) = Route::parse(&format!("/v2/a/{item}/{path}"), &query) {
                let text = route.path_and_query();
                let (path, query) = split(&text);
                prop_assert_eq!(Route::parse(path, query), Ok(route));
            }
        }
    }

    #[test]
    fn routes_read_back(
        repository in "[a-z0-9]{1,5}(/[a-z0-9]{1,5}){0,3}",
        tag in "[a-zA-Z0-9_][a-zA-Z0-9._-]{0,20}",
        last in proptest::option::of(".{1,20}"),
        limit in proptest::option::of(0u32..10_000),
        bytes in any::<Vec<u8>>(),
    ) {
        let digest = Digest::sha256(&bytes);
        for item in [
            Item::Blob(digest.clone()),
            Item::Manifest(ManifestName::Tag(tag)),
            Item::Manifest(ManifestName::Digest(digest.clone())),
            Item::Tags(Page { limit, last: last.clone() }),
            Item::Uploads { digest: None, mount: Some(digest.clone()), from: Some(repository.clone()) },
            Item::Referrers { digest, artifact_type: last },
        ] {
            let route = Route::Repository { repository: repository.clone(), item };
            let text = route.path_and_query();
            let (path, query) = split(&text);
            prop_assert_eq!(Route::parse(path, query), Ok(route));
        }
    }

    #[test]
    fn bodies_never_panic(bytes in any::<Vec<u8>>(), text in wire_text()) {
        for body in [&bytes[..], text.as_bytes(), format!(r#"{{"errors":[{{"code":"{text}"}}]}}"#).as_bytes()] {
            let reply = ErrorReply::parse(body);
            prop_assert!(reply.entries.len() <= ENTRIES_MAX);
            prop_assert!(!reply.to_string().contains(|character: char| character.is_control()));
            let _ = TokenReply::parse(body);
        }
    }

    #[test]
    fn headers_never_panic(text in wire_text()) {
        let _ = (ByteRange::parse(&text), ContentRange::parse(&text), UploadRange::parse(&text));
        let _ = pagination::next_link([text.as_str()]);
        let link = pagination::to_next_link(&format!("/{}", text.trim()));
        prop_assert!(pagination::next_link([link.as_str()]).is_some());
    }

    #[test]
    fn ranges_stay_inside(first in any::<u64>(), last in any::<u64>(), size in any::<u64>()) {
        for range in [ByteRange::From(first), ByteRange::Between(first.min(last), first.max(last)), ByteRange::Last(last)] {
            prop_assert_eq!(ByteRange::parse(&range.to_string()), Some(range));
            if let Some((start, length)) = range.within(size) {
                prop_assert!(length > 0 && start < size && length <= size - start);
            }
        }
    }

    #[test]
    fn shown_text_has_no_controls(text in any::<String>(), length in 0usize..50) {
        let shown = printable(&text, length);
        prop_assert!(!shown.contains(|character: char| character.is_control()));
        prop_assert!(shown.chars().count() <= length + 13);
    }
}
