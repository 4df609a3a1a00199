//! JSON with other blanks: what it says, and how its numbers and texts are written, stays.

/// Writes JSON with `indent` for each level, as Go's `json.Indent` does: one field or item a line, nothing inside of empty
/// objects and lists. Bytes that are no JSON come out as something that is none either.
pub fn indent_json(json: &[u8], indent: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(json.len() * 2);
    let mut depth: usize = 0;
    let mut bytes = json.iter().copied().peekable();
    let mut is_empty = false;
    let new_line = |out: &mut Vec<u8>, depth: usize| {
        out.push(b'\n');
        for _ in 0..depth {
            out.extend_from_slice(indent.as_bytes());
        }
    };
    while let Some(byte) = bytes.next() {
        if byte.is_ascii_whitespace() {
            continue;
        }
        // What a bracket was opened for is here.
        if is_empty && !matches!(byte, b'}' | b']') {
            new_line(&mut out, depth);
        }
        let was_empty = std::mem::take(&mut is_empty);
        match byte {
            b'{' | b'[' => {
                out.push(byte);
                depth += 1;
                is_empty = true;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if !was_empty {
                    new_line(&mut out, depth);
                }
                out.push(byte);
            }
            b',' => {
                out.push(byte);
                new_line(&mut out, depth);
            }
            b':' => out.extend_from_slice(b": "),
            b'"' => {
                out.push(byte);
                let mut is_escaped = false;
                for byte in bytes.by_ref() {
                    out.push(byte);
                    match byte {
                        b'"' if !is_escaped => break,
                        byte => is_escaped = byte == b'\\' && !is_escaped,
                    }
                }
            }
            byte => out.push(byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(json: &str, expect: &str) {
        let out = String::from_utf8(indent_json(json.as_bytes(), "  ")).unwrap();
        assert_eq!(out, expect, "{json}");
        assert_eq!(indent_json(out.as_bytes(), "  "), expect.as_bytes(), "what is indented stays");
    }

    #[test]
    fn as_go_indents() {
        check("{}", "{}");
        check(" [ ] ", "[]");
        check(
            r#"{"a":1e3,"b":[1,2,{}],"c":{ }}"#,
            "{\n  \"a\": 1e3,\n  \"b\": [\n    1,\n    2,\n    {}\n  ],\n  \"c\": {}\n}",
        );
        check(r#"{"a:{\"b\\":"[ ,\\\" ]"}"#, "{\n  \"a:{\\\"b\\\\\": \"[ ,\\\\\\\" ]\"\n}");
        check("[[]]", "[\n  []\n]");
        check("null", "null");
        // No JSON, no end of it, no panic.
        check("", "");
        indent_json(b"]]]}}}\"\\", "\t");
        indent_json(&[b'['; 1000], "");
    }
}
