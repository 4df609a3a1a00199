//! One record of comma separated values (RFC 4180), as `--mount` and many flags of the command line are written.

/// Why a text is no record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FieldsError {
    /// `"a`
    #[error("a quote is not closed")]
    Unclosed,
    /// `"a"b`
    #[error("something follows a closing quote")]
    AfterQuote,
    /// `a"b`
    #[error("a quote stands inside a field")]
    InsideField,
}

/// The fields, quotes removed: a field that begins with a double quote ends with one, and holds it doubled.
pub fn split_fields(text: &str) -> Result<Vec<String>, FieldsError> {
    let mut fields = Vec::new();
    let mut rest = text;
    loop {
        let after = match rest.strip_prefix('"') {
            Some(quoted) => {
                let (field, after) = quoted_field(quoted)?;
                fields.push(field);
                match after.strip_prefix(',') {
                    None if !after.is_empty() => return Err(FieldsError::AfterQuote),
                    after => after,
                }
            }
            None => {
                let (field, after) = match rest.split_once(',') {
                    Some((field, after)) => (field, Some(after)),
                    None => (rest, None),
                };
                if field.contains('"') {
                    return Err(FieldsError::InsideField);
                }
                fields.push(field.to_owned());
                after
            }
        };
        match after {
            Some(after) => rest = after,
            None => return Ok(fields),
        }
    }
}

/// What stands up to the closing quote, and what follows it.
fn quoted_field(mut quoted: &str) -> Result<(String, &str), FieldsError> {
    let mut field = String::new();
    loop {
        let (inside, after) = quoted.split_once('"').ok_or(FieldsError::Unclosed)?;
        field.push_str(inside);
        match after.strip_prefix('"') {
            Some(after) => {
                field.push('"');
                quoted = after;
            }
            None => return Ok((field, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_record() {
        let check = |text: &str, expect: &[&str]| {
            assert_eq!(
                split_fields(text).as_deref(),
                Ok(&expect.iter().map(|s| s.to_string()).collect::<Vec<_>>()[..]),
                "{text}"
            );
        };
        check("", &[""]);
        check("a,b", &["a", "b"]);
        check("a,", &["a", ""]);
        check(r#""a","#, &["a", ""]);
        check(r#""a,b",c"#, &["a,b", "c"]);
        check(r#""a""b""#, &["a\"b"]);
        check(r#""""#, &[""]);
        let wrong = |text: &str, expect| assert_eq!(split_fields(text), Err(expect), "{text}");
        wrong(r#""a"#, FieldsError::Unclosed);
        wrong(r#""a"""#, FieldsError::Unclosed);
        wrong(r#""a"b"#, FieldsError::AfterQuote);
        wrong(r#"a"b"#, FieldsError::InsideField);
    }
}
