//! Paths of an image as text: what is not text, and what would move a terminal's cursor, is escaped.

use std::fmt::Write as _;

/// Control characters, bytes that are not UTF-8 and backslashes as C has them, so that every path is one line and no two look
/// alike.
pub(crate) fn escaped(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '\\' => text.push_str("\\\\"),
                letter if letter.is_control() => {
                    escape(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes())
                }
                letter => text.push(letter),
            }
        }
        escape(&mut text, chunk.invalid());
    }
    text
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let _ = write!(text, "\\x{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_seen() {
        let check = |bytes: &[u8], expect: &str| assert_eq!(escaped(bytes), expect);
        check(b"", "");
        check("usr/lib/ä".as_bytes(), "usr/lib/ä");
        check(b"a\nb\x1b[2J\tc", "a\\x0ab\\x1b[2J\\x09c");
        check(b"a\xff\xfeb\\", "a\\xff\\xfeb\\\\");
        check("a\u{9b}".as_bytes(), "a\\xc2\\x9b");
    }
}
