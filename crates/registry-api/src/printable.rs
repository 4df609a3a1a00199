//! Foreign text made fit for a terminal.

/// The first `length_max` characters of a foreign text, with control characters and the ones that change the direction or
/// the look of what follows escaped, and runs of blanks made one.
pub fn printable(text: &str, length_max: usize) -> String {
    let mut result = String::new();
    let mut length = 0;
    let mut is_after_blank = true;
    for character in text.chars() {
        if length >= length_max {
            result.push_str("...");
            break;
        }
        if matches!(character, ' ' | '\n' | '\r' | '\t') {
            if !is_after_blank {
                result.push(' ');
                length += 1;
            }
            is_after_blank = true;
            continue;
        }
        is_after_blank = false;
        if is_harmless(character) {
            result.push(character);
            length += 1;
        } else {
            let escaped = character.escape_unicode();
            length += escaped.len();
            result.extend(escaped);
        }
    }
    result.truncate(result.trim_end().len());
    result
}

/// Whether a terminal shows a character as itself and nothing else.
fn is_harmless(character: char) -> bool {
    !(character.is_control()
        // Marks that reverse the writing direction, join, or are not seen at all.
        || matches!(character,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &str) {
        assert_eq!(printable(text, 12), expect, "{text:?}");
    }

    #[test]
    fn texts() {
        check("", "");
        check("denied", "denied");
        check("  a \r\n b  ", "a b");
        check("über uns", "über uns");
        check("\x1b[31mred", "\\u{1b}[31mre...");
        check("a\u{202e}b", "a\\u{202e}b");
        check("\u{9b}m", "\\u{9b}m");
        check("a\0b", "a\\u{0}b");
        check("twelve chars", "twelve chars");
        check("thirteen char", "thirteen cha...");
    }
}
