//! The link to the next page of a list: `Link: </v2/a/tags/list?last=b&n=10>; rel="next"` (RFC 8288, RFC 5988).

use std::fmt::Write;

/// The target of the link to the next page in the values of `Link` headers, as it is written: relative or absolute.
///
/// It is foreign text. The caller resolves it against the URL that it asked, and decides whether it may lead to another
/// host (nothing of the spec needs that).
pub fn next_link<'a>(headers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    headers.into_iter().find_map(next_of_header)
}

/// The value of a `Link` header that leads to this path and query.
pub fn to_next_link(path_and_query: &str) -> String {
    let mut result = String::with_capacity(path_and_query.len() + 16);
    result.push('<');
    for character in path_and_query.chars() {
        // What would end the target early.
        if matches!(character, '<' | '>') || character.is_control() {
            for byte in character.to_string().bytes() {
                let _ = write!(result, "%{byte:02X}");
            }
        } else {
            result.push(character);
        }
    }
    result.push_str(">; rel=\"next\"");
    result
}

fn next_of_header(header: &str) -> Option<&str> {
    let mut rest = header;
    loop {
        let start = rest.find('<')?;
        let end = start + rest[start..].find('>')?;
        let target = rest[start + 1..end].trim();
        let (parameters, after) = split_parameters(&rest[end + 1..]);
        if parameters.iter().any(|parameter| is_next(parameter)) && !target.is_empty() {
            return Some(target);
        }
        rest = after;
    }
}

/// The parameters of one link, and what stands behind the comma that ends it. Commas and semicolons in quotes are text.
fn split_parameters(text: &str) -> (Vec<&str>, &str) {
    let mut parameters = Vec::new();
    let mut start = 0;
    let mut is_quoted = false;
    let mut is_escaped = false;
    for (position, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b';' | b',' if !is_quoted => {
                parameters.push(&text[start..position]);
                start = position + 1;
                if byte == b',' {
                    return (parameters, &text[start..]);
                }
            }
            _ => {}
        }
    }
    parameters.push(&text[start..]);
    (parameters, "")
}

/// `rel="next"`; a link may have several relations, with blanks between them.
fn is_next(parameter: &str) -> bool {
    parameter.split_once('=').is_some_and(|(name, value)| {
        let mut relations = value.trim().trim_matches('"').split_ascii_whitespace();
        name.trim().eq_ignore_ascii_case("rel")
            && relations.any(|relation| relation.eq_ignore_ascii_case("next"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[&str], expect: Option<&str>) {
        assert_eq!(next_link(headers.iter().copied()), expect, "{headers:?}");
    }

    #[test]
    fn links() {
        check(&[r#"</v2/a/tags/list?last=b&n=1>; rel="next""#], Some("/v2/a/tags/list?last=b&n=1"));
        check(&["<https://h/v2/a/tags/list?last=b>; rel=next"], Some("https://h/v2/a/tags/list?last=b"));
        check(&[r#"<p>; rel="prev", <n>; title="a, b; c"; REL="last NEXT""#], Some("n"));
        check(&[r#"<p>; rel=prev"#, "<n>;rel=next"], Some("n"));
        check(&["<n>"], None);
        check(&["<n>; rel=nextish"], None);
        check(&["<>; rel=next"], None);
        check(&["n; rel=next"], None);
        check(&["<n; rel=next"], None);
        check(&[r#"<p>; title="\"; rel=next", <n>; rel=next"#], Some("n"));
        check(&[r#"<p>; title="open, <n>; rel=next"#], None);
        check(&[""], None);
        check(&[], None);
    }

    #[test]
    fn written_links_read_back() {
        assert_eq!(to_next_link("/v2/_catalog?last=a&n=1"), r#"</v2/_catalog?last=a&n=1>; rel="next""#);
        assert_eq!(next_link([to_next_link("/a>b\n").as_str()]), Some("/a%3Eb%0A"));
    }
}
