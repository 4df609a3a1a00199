//! What registries and their clients send each other.

use mica_registry_api::range::{ByteRange, ContentRange, UploadRange};
use mica_registry_api::{Challenge, ErrorReply, Route, TokenReply, pagination, printable};

/// `WWW-Authenticate`, `Link`
pub fn challenge(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for challenge in Challenge::parse(&text) {
        if let Challenge::Bearer(bearer) = challenge {
            bearer.scopes().for_each(drop);
        }
    }
    pagination::next_link([&*text]);
    assert!(!printable(&text, 100).chars().any(char::is_control));
}

/// `Range`, `Content-Range`: what is written reads back.
pub fn ranges(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(range) = ByteRange::parse(&text) {
        assert_eq!(ByteRange::parse(&range.to_string()), Some(range));
        for size_bytes in [0, 1, 10, u64::MAX] {
            if let Some((first, length_bytes)) = range.within(size_bytes) {
                assert!(length_bytes > 0 && length_bytes <= size_bytes - first);
            }
        }
    }
    if let Some(range) = ContentRange::parse(&text) {
        assert_eq!(ContentRange::parse(&range.to_string()), Some(range));
    }
    if let Some(range) = UploadRange::parse(&text) {
        range.received_bytes();
    }
}

/// Bodies of errors and tokens.
pub fn replies(data: &[u8]) {
    ErrorReply::parse(data);
    let _ = TokenReply::parse(data);
}

/// Paths under `/v2/`.
pub fn route(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (path, query) = text.split_once('?').unwrap_or((&text, ""));
    let Ok(route) = Route::parse(path, query) else { return };
    route.methods();
    let written = route.path_and_query();
    let (path, query) = written.split_once('?').unwrap_or((&written, ""));
    assert_eq!(Route::parse(path, query).as_ref(), Ok(&route), "{written}");
}
