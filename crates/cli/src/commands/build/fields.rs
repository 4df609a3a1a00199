//! Values of flags that are lists of `key=value`, with commas between them, as docker reads them: one record of CSV (RFC 4180).

use crate::error::CliError;

/// The fields of a record, quotes removed.
pub(super) fn split(flag: &str, text: &str) -> Result<Vec<String>, CliError> {
    mica_dockerfile::split_fields(text)
        .map_err(|why| CliError::new(format!("invalid value `{text}` for `{flag}`: {why}")))
}

/// The fields as keys, in lower case, and values.
pub(super) fn pairs(flag: &str, text: &str) -> Result<Vec<(String, String)>, CliError> {
    let pair = |field: String| match field.split_once('=') {
        Some((key, value)) => Ok((key.trim().to_lowercase(), value.to_owned())),
        None => {
            Err(CliError::new(format!("invalid value `{text}` for `{flag}`: `{field}` is not `key=value`")))
        }
    };
    split(flag, text)?.into_iter().map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_a_record() {
        let check = |text: &str, expect: &[&str]| assert_eq!(split("-o", text).unwrap(), expect, "{text}");
        check("", &[""]);
        check("a,b", &["a", "b"]);
        check("a,", &["a", ""]);
        check(r#""a,b",c"#, &["a,b", "c"]);
        check(r#""a""b""#, &["a\"b"]);
        for wrong in [r#""a"#, r#""a"b"#, r#"a"b"#] {
            assert!(split("-o", wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            pairs("-o", "Type=tar,dest=a=b").unwrap(),
            [("type".to_owned(), "tar".to_owned()), ("dest".to_owned(), "a=b".to_owned())]
        );
        assert!(pairs("-o", "type=tar,dest").is_err());
    }
}
