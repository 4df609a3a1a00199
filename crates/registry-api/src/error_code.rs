//! What a registry says when it refuses: `{"errors":[{"code","message","detail"}]}` (distribution spec, "Error Codes").

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::printable::printable;

/// Entries of one reply that are kept.
pub const ENTRIES_MAX: usize = 8;
/// Characters of a message that are kept.
pub const MESSAGE_LENGTH_MAX: usize = 300;
/// Bytes of a body that are looked at: whoever reads the reply need not take in more.
pub const BODY_SIZE_BYTES_MAX: usize = 64 << 10;

macro_rules! error_codes {
    ($($(#[$comment:meta])* $name:ident = $text:literal, $status:literal, $message:literal;)+) => {
        /// A code of the distribution spec, of docker's token protocol, or another one.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum ErrorCode {
            $($(#[$comment])* $name,)+
            /// One that is not in the spec, made printable.
            Other(String),
        }

        impl ErrorCode {
            /// Every code that is known.
            pub const KNOWN: &[ErrorCode] = &[$(ErrorCode::$name),+];

            /// The code of this text, in upper or lower case.
            pub fn parse(text: &str) -> ErrorCode {
                $(if text.eq_ignore_ascii_case($text) {
                    return ErrorCode::$name;
                })+
                ErrorCode::Other(printable(text, 64))
            }

            /// As it stands on the wire.
            pub fn as_str(&self) -> &str {
                match self {
                    $(ErrorCode::$name => $text,)+
                    ErrorCode::Other(text) => text,
                }
            }

            /// The status that a server sends with it.
            pub fn status(&self) -> u16 {
                match self {
                    $(ErrorCode::$name => $status,)+
                    ErrorCode::Other(_) => 400,
                }
            }

            /// The message that a server sends with it when it has nothing better to say.
            pub fn message(&self) -> &str {
                match self {
                    $(ErrorCode::$name => $message,)+
                    ErrorCode::Other(_) => "unknown error",
                }
            }
        }
    };
}

error_codes! {
    /// The blob is not there.
    BlobUnknown = "BLOB_UNKNOWN", 404, "blob unknown to registry";
    /// The upload went wrong.
    BlobUploadInvalid = "BLOB_UPLOAD_INVALID", 400, "blob upload invalid";
    /// The upload is not there (any more).
    BlobUploadUnknown = "BLOB_UPLOAD_UNKNOWN", 404, "blob upload unknown to registry";
    /// The digest is none, or not the one of the bytes.
    DigestInvalid = "DIGEST_INVALID", 400, "provided digest did not match uploaded content";
    /// A manifest names a blob that is not there.
    ManifestBlobUnknown = "MANIFEST_BLOB_UNKNOWN", 404, "manifest references a blob unknown to registry";
    /// The manifest is none.
    ManifestInvalid = "MANIFEST_INVALID", 400, "manifest invalid";
    /// The manifest is not there.
    ManifestUnknown = "MANIFEST_UNKNOWN", 404, "manifest unknown";
    /// The manifest has no good signature (schema 1).
    ManifestUnverified = "MANIFEST_UNVERIFIED", 400, "manifest failed signature verification";
    /// The repository's name is none.
    NameInvalid = "NAME_INVALID", 400, "invalid repository name";
    /// The repository is not there.
    NameUnknown = "NAME_UNKNOWN", 404, "repository name not known to registry";
    /// The page that was asked for is none.
    PaginationNumberInvalid = "PAGINATION_NUMBER_INVALID", 400, "invalid number of results requested";
    /// The range that was asked for is none.
    RangeInvalid = "RANGE_INVALID", 416, "invalid content range";
    /// The size is not the one of the bytes.
    SizeInvalid = "SIZE_INVALID", 400, "provided length did not match content length";
    /// The tag is none.
    TagInvalid = "TAG_INVALID", 400, "manifest tag did not match URI";
    /// A login is needed.
    Unauthorized = "UNAUTHORIZED", 401, "authentication required";
    /// The login is not enough.
    Denied = "DENIED", 403, "requested access to the resource is denied";
    /// The registry does not do this.
    Unsupported = "UNSUPPORTED", 405, "the operation is unsupported";
    /// Too much was asked.
    TooManyRequests = "TOOMANYREQUESTS", 429, "too many requests";
    /// The registry cannot answer now.
    Unavailable = "UNAVAILABLE", 503, "service unavailable";
    /// The registry cannot tell what is wrong.
    Unknown = "UNKNOWN", 500, "unknown error";
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(self.as_str())
    }
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorEntry {
    /// What, for programs; `None` where the reply has no code.
    pub code: Option<ErrorCode>,
    /// What, for people: printable, bounded, perhaps empty.
    pub message: String,
    /// More about it, as printable text; empty if nothing was said.
    pub detail: String,
}

impl fmt::Display for ErrorEntry {
    /// As docker shows it: the code in words, then the message.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = self.code.as_ref().map(|code| code.as_str().to_ascii_lowercase().replace('_', " "));
        let text = match (code, self.message.as_str()) {
            (Some(code), "") => code,
            (Some(code), message) => format!("{code}: {message}"),
            (None, message) => message.to_owned(),
        };
        formatter.pad(&text)
    }
}

/// All that a reply says is wrong; empty if it says nothing that can be understood.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ErrorReply {
    /// What is wrong, in the registry's order; at most [`ENTRIES_MAX`].
    pub entries: Vec<ErrorEntry>,
}

impl ErrorReply {
    /// Reads the body of a reply, whatever it is. Besides the spec's form this takes what token servers and proxies send:
    /// `message`, `details`, `error_description` and `error` at the top, or a line of plain text. HTML says nothing.
    pub fn parse(body: &[u8]) -> ErrorReply {
        let body = &body[..body.len().min(BODY_SIZE_BYTES_MAX)];
        let entries = match serde_json::from_slice::<Value>(body) {
            Ok(Value::Object(object)) => entries_of(&object),
            Ok(Value::String(text)) => vec![message_entry(&text)],
            Ok(_) => Vec::new(),
            Err(_) => plain_text(body).map(message_entry).into_iter().collect(),
        };
        ErrorReply { entries: entries.into_iter().filter(ErrorEntry::says_something).collect() }
    }

    /// Whether an entry has this code.
    pub fn has(&self, code: &ErrorCode) -> bool {
        self.entries.iter().any(|entry| entry.code.as_ref() == Some(code))
    }

    /// Whether the reply says nothing.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The body that a server sends for one code.
    pub fn body_of(code: &ErrorCode, message: &str, detail: Value) -> Vec<u8> {
        #[derive(Serialize)]
        struct Body<'a> {
            errors: [Entry<'a>; 1],
        }
        #[derive(Serialize)]
        struct Entry<'a> {
            code: &'a str,
            message: &'a str,
            #[serde(skip_serializing_if = "Value::is_null")]
            detail: Value,
        }
        let message = if message.is_empty() { code.message() } else { message };
        let body = Body { errors: [Entry { code: code.as_str(), message, detail }] };
        // Texts and values only: there is nothing in it that could fail to be written.
        serde_json::to_vec(&body).unwrap_or_default()
    }
}

impl fmt::Display for ErrorReply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<String> = self.entries.iter().map(ErrorEntry::to_string).collect();
        formatter.pad(&texts.join("; "))
    }
}

impl ErrorEntry {
    fn says_something(&self) -> bool {
        self.code.is_some() || !self.message.is_empty()
    }
}

fn entries_of(object: &Map<String, Value>) -> Vec<ErrorEntry> {
    if let Some(Value::Array(errors)) = object.get("errors") {
        return errors.iter().take(ENTRIES_MAX).map(entry_of).collect();
    }
    let message = ["message", "details", "detail", "error_description"]
        .iter()
        .find_map(|name| object.get(*name)?.as_str());
    let error = object.get("error").or_else(|| object.get("code")).and_then(Value::as_str);
    match (error, message) {
        (Some(error), Some(message)) => vec![message_entry(&format!("{error}: {message}"))],
        (Some(text), None) | (None, Some(text)) => vec![message_entry(text)],
        (None, None) => Vec::new(),
    }
}

fn entry_of(value: &Value) -> ErrorEntry {
    let text = |name: &str| value.get(name).and_then(Value::as_str).unwrap_or_default();
    if let Some(text) = value.as_str() {
        return message_entry(text);
    }
    let code = Some(text("code")).filter(|code| !code.trim().is_empty()).map(ErrorCode::parse);
    let detail = match value.get("detail") {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => printable(text, MESSAGE_LENGTH_MAX),
        Some(other) => printable(&other.to_string(), MESSAGE_LENGTH_MAX),
    };
    ErrorEntry { code, message: printable(text("message"), MESSAGE_LENGTH_MAX), detail }
}

fn message_entry(text: &str) -> ErrorEntry {
    ErrorEntry { code: None, message: printable(text, MESSAGE_LENGTH_MAX), detail: String::new() }
}

/// The body as text, unless it is a page, a document or no text at all.
fn plain_text(body: &[u8]) -> Option<&str> {
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // The body may have been cut within a character.
        Err(error) if error.valid_up_to() + 4 > body.len() => {
            std::str::from_utf8(&body[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let text = text.trim();
    let is_markup = text.starts_with(['<', '{', '[']);
    (!is_markup && !text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: &str) {
        assert_eq!(ErrorReply::parse(body.as_bytes()).to_string(), expect, "{body}");
    }

    #[test]
    fn bodies() {
        check(
            r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
            "manifest unknown: manifest unknown",
        );
        check(r#"{"errors":[{"code":"denied","message":"no"},{"code":"X_Y"}]}"#, "denied: no; x y");
        check(r#"{"errors":[{"message":"only words"}]}"#, "only words");
        check(r#"{"errors":["words"]}"#, "words");
        check(r#"{"errors":[{}, 1, null]}"#, "");
        check(r#"{"errors":{"code":"DENIED"}}"#, "");
        check(r#"{"details":"incorrect username or password"}"#, "incorrect username or password");
        check(r#"{"error":"invalid_grant","error_description":"bad"}"#, "invalid_grant: bad");
        check(r#"{"message":"Not Found"}"#, "Not Found");
        check(r#""words""#, "words");
        check("[1]", "");
        check("", "");
        check("404 page not found\n", "404 page not found");
        check("<html><body>Bad Gateway</body></html>", "");
        check("  \n<!DOCTYPE html>", "");
        check("{\"errors\":[", "");
        check("{\"errors\":[{\"code\":\"DENIED\",\"message\":\"\\u001b[2J\\nx\"}]}", "denied: \\u{1b}[2J x");
    }

    #[test]
    fn bounded() {
        let entry = format!(r#"{{"code":"{}","message":"{}"}}"#, "C".repeat(1000), "m".repeat(5000));
        let body = format!(r#"{{"errors":[{}]}}"#, vec![entry; 10].join(","));
        let reply = ErrorReply::parse(body.as_bytes());
        assert_eq!(reply.entries.len(), ENTRIES_MAX);
        assert!(reply.to_string().len() < ENTRIES_MAX * (MESSAGE_LENGTH_MAX + 80));
        assert!(ErrorReply::parse(&vec![b'x'; 1 << 20]).to_string().len() < 400);
        // Cut within a character.
        let text = "ü".repeat(BODY_SIZE_BYTES_MAX);
        assert!(!ErrorReply::parse(&text.as_bytes()[..BODY_SIZE_BYTES_MAX - 1]).is_empty());
        assert!(ErrorReply::parse(b"\xff\xfe\xfd\xfc\xfb\xfa").is_empty());
    }

    #[test]
    fn what_a_server_writes_is_read() {
        for code in ErrorCode::KNOWN {
            let body = ErrorReply::body_of(code, "", Value::Null);
            let reply = ErrorReply::parse(&body);
            assert!(reply.has(code), "{code}");
            assert_eq!(reply.entries[0].message, code.message());
            assert_eq!(&ErrorCode::parse(&code.as_str().to_lowercase()), code);
            assert!((400..=503).contains(&code.status()));
        }
        let body = ErrorReply::body_of(&ErrorCode::Denied, "not you", serde_json::json!({"a": 1}));
        assert_eq!(ErrorReply::parse(&body).entries[0].detail, r#"{"a":1}"#);
    }
}
