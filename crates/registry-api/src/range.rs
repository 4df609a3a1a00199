//! Parts of blobs: HTTP's `Range` and `Content-Range` (RFC 9110, section 14), and the registry's `a-b` of uploads.

use std::fmt;

/// The part of a blob that is asked for: `Range: bytes=5-`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ByteRange {
    /// From a position to the end.
    From(u64),
    /// From a position to another, both included.
    Between(u64, u64),
    /// So many bytes at the end.
    Last(u64),
}

impl ByteRange {
    /// Reads the value of a `Range` header. Several ranges at once are not read: a server may answer with the whole.
    pub fn parse(text: &str) -> Option<ByteRange> {
        let (unit, range) = text.trim().split_once('=')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (first, last) = range.trim().split_once('-')?;
        match (first, last) {
            ("", last) => Some(ByteRange::Last(number(last)?)),
            (first, "") => Some(ByteRange::From(number(first)?)),
            (first, last) => {
                let (first, last) = (number(first)?, number(last)?);
                (first <= last).then_some(ByteRange::Between(first, last))
            }
        }
    }

    /// First position and length within a blob of this size; `None` if nothing of it is there (status 416).
    pub fn within(self, size_bytes: u64) -> Option<(u64, u64)> {
        let (first, last) = match self {
            ByteRange::From(first) => (first, size_bytes.checked_sub(1)?),
            ByteRange::Between(first, last) => (first, last.min(size_bytes.checked_sub(1)?)),
            ByteRange::Last(0) => return None,
            ByteRange::Last(length) => (size_bytes.saturating_sub(length), size_bytes.checked_sub(1)?),
        };
        (first <= last).then(|| (first, last - first + 1))
    }
}

impl fmt::Display for ByteRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ByteRange::From(first) => write!(formatter, "bytes={first}-"),
            ByteRange::Between(first, last) => write!(formatter, "bytes={first}-{last}"),
            ByteRange::Last(length) => write!(formatter, "bytes=-{length}"),
        }
    }
}

/// The part that a reply with status 206 or 416 brings: `Content-Range: bytes 5-9/10`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ContentRange {
    /// First and last position; `None` if the range is not there (`bytes */10`).
    pub range: Option<(u64, u64)>,
    /// The size of the whole, if it is said.
    pub size_bytes: Option<u64>,
}

impl ContentRange {
    /// Reads the value of a `Content-Range` header of a reply.
    pub fn parse(text: &str) -> Option<ContentRange> {
        let text = text.trim();
        let unit_end = text.find([' ', '\t'])?;
        if !text[..unit_end].eq_ignore_ascii_case("bytes") {
            return None;
        }
        let (range, size) = text[unit_end..].trim().split_once('/')?;
        let size_bytes = match size.trim() {
            "*" => None,
            size => Some(number(size)?),
        };
        let range = match range.trim() {
            "*" => None,
            range => Some(UploadRange::parse_pair(range)?),
        };
        let is_inside = match (range, size_bytes) {
            (Some((_, last)), Some(size_bytes)) => last < size_bytes,
            (None, None) => false,
            _ => true,
        };
        is_inside.then_some(ContentRange { range, size_bytes })
    }
}

impl fmt::Display for ContentRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("bytes ")?;
        match self.range {
            Some((first, last)) => write!(formatter, "{first}-{last}/")?,
            None => formatter.write_str("*/")?,
        }
        match self.size_bytes {
            Some(size_bytes) => write!(formatter, "{size_bytes}"),
            None => formatter.write_str("*"),
        }
    }
}

/// The registry's own form for uploads: `0-99`, in `Content-Range` of a PATCH and in `Range` of a reply to one, without a
/// unit. What has arrived always begins at 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UploadRange {
    /// First position.
    pub first: u64,
    /// Last position, included.
    pub last: u64,
}

impl UploadRange {
    /// Reads either header; a unit in front is let pass, because some registries write one.
    pub fn parse(text: &str) -> Option<UploadRange> {
        let text = text.trim();
        let text = text.strip_prefix("bytes=").or_else(|| text.strip_prefix("bytes ")).unwrap_or(text);
        let (first, last) = Self::parse_pair(text.trim())?;
        Some(UploadRange { first, last })
    }

    fn parse_pair(text: &str) -> Option<(u64, u64)> {
        let (first, last) = text.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        (first <= last).then_some((first, last))
    }

    /// How many bytes an upload has whose `Range` reads so.
    ///
    /// An empty upload is written `0-0`, which could also mean one byte: docker's registry writes it for none, so whoever
    /// has sent one byte only has to ask in another way.
    pub fn received_bytes(self) -> u64 {
        if self.last == 0 { 0 } else { self.last.saturating_add(1) }
    }
}

impl fmt::Display for UploadRange {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}-{}", self.first, self.last)
    }
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<u64> {
    let text = text.trim();
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_ranges() {
        let check = |text: &str, expect: Option<ByteRange>| {
            assert_eq!(ByteRange::parse(text), expect, "{text}");
            if let Some(range) = expect {
                assert_eq!(ByteRange::parse(&range.to_string()), Some(range), "{text}");
            }
        };
        check("bytes=5-", Some(ByteRange::From(5)));
        check(" Bytes = 0-9 ", Some(ByteRange::Between(0, 9)));
        check("bytes=-3", Some(ByteRange::Last(3)));
        check("bytes=9-0", None);
        check("bytes=-", None);
        check("bytes=0-1,3-4", None);
        check("bytes=+1-2", None);
        check("bytes=99999999999999999999-", None);
        check("items=0-1", None);
        check("", None);
    }

    #[test]
    fn ranges_within_a_blob() {
        let check = |range: ByteRange, size: u64, expect: Option<(u64, u64)>| {
            assert_eq!(range.within(size), expect, "{range} of {size}");
        };
        check(ByteRange::From(0), 10, Some((0, 10)));
        check(ByteRange::From(9), 10, Some((9, 1)));
        check(ByteRange::From(10), 10, None);
        check(ByteRange::From(0), 0, None);
        check(ByteRange::Between(2, 3), 10, Some((2, 2)));
        check(ByteRange::Between(2, u64::MAX), 10, Some((2, 8)));
        check(ByteRange::Between(10, 11), 10, None);
        check(ByteRange::Last(3), 10, Some((7, 3)));
        check(ByteRange::Last(30), 10, Some((0, 10)));
        check(ByteRange::Last(0), 10, None);
        check(ByteRange::Last(1), 0, None);
    }

    #[test]
    fn content_ranges() {
        let of = |range, size_bytes| Some(ContentRange { range, size_bytes });
        let check = |text: &str, expect: Option<ContentRange>| {
            assert_eq!(ContentRange::parse(text), expect, "{text}");
            if let Some(range) = expect {
                assert_eq!(ContentRange::parse(&range.to_string()), Some(range), "{text}");
            }
        };
        check("bytes 5-9/10", of(Some((5, 9)), Some(10)));
        check("bytes 5-9/*", of(Some((5, 9)), None));
        check("bytes */10", of(None, Some(10)));
        check("BYTES  0-0/1", of(Some((0, 0)), Some(1)));
        check("bytes */*", None);
        check("bytes 5-10/10", None);
        check("bytes 9-5/10", None);
        check("bytes 5-9", None);
        check("5-9/10", None);
        check("bytes", None);
        check("bytes a-b/c", None);
    }

    #[test]
    fn upload_ranges() {
        let check = |text: &str, expect: Option<(u64, u64, u64)>| {
            let actual = UploadRange::parse(text);
            let parts = actual.map(|range| (range.first, range.last, range.received_bytes()));
            assert_eq!(parts, expect, "{text}");
        };
        check("0-99", Some((0, 99, 100)));
        check("0-0", Some((0, 0, 0)));
        check("bytes=0-99", Some((0, 99, 100)));
        check("100-199", Some((100, 199, 200)));
        check("0-18446744073709551615", Some((0, u64::MAX, u64::MAX)));
        check("1-0", None);
        check("0--1", None);
        check("0", None);
        check("", None);
    }
}
