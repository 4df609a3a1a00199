//! `WWW-Authenticate`: how a registry wants to be asked (RFC 9110, section 11; docker's token protocol).

use std::fmt;

use crate::printable::printable;

/// Challenges of one reply that are kept.
pub const CHALLENGES_MAX: usize = 16;
/// Parameters of one challenge that are kept.
const PARAMETERS_MAX: usize = 32;
/// Bytes of one header that are read.
const HEADER_SIZE_BYTES_MAX: usize = 16 << 10;

/// One way to prove who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// User and password with every request.
    Basic {
        /// What they are for, in words; nothing depends on it.
        realm: String,
    },
    /// A token that another server gives.
    Bearer(Bearer),
    /// Another way, which no registry uses alone.
    Other {
        /// Its name, printable.
        scheme: String,
    },
}

/// Where a token comes from and what it has to be good for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bearer {
    /// URL of the token server. Whether it may be trusted is for the caller to say.
    pub realm: String,
    /// Who the token is for.
    pub service: Option<String>,
    /// What it has to be good for: scopes with blanks between them.
    pub scope: Option<String>,
    /// Why the token that was sent is not good: `invalid_token`, `insufficient_scope`.
    pub error: Option<String>,
}

impl Bearer {
    /// The scopes, one by one.
    pub fn scopes(&self) -> impl Iterator<Item = &str> {
        self.scope.as_deref().unwrap_or_default().split_ascii_whitespace()
    }
}

impl Challenge {
    /// Reads one header; a reply may have several, and each of them several challenges. What is not understood is left out.
    pub fn parse(header: &str) -> Vec<Challenge> {
        let mut end = header.len().min(HEADER_SIZE_BYTES_MAX);
        while !header.is_char_boundary(end) {
            end -= 1;
        }
        let mut parser = Parser { rest: &header[..end] };
        let mut challenges = Vec::new();
        while challenges.len() < CHALLENGES_MAX {
            parser.skip_separators();
            let Some(scheme) = parser.token() else {
                if parser.rest.is_empty() {
                    break;
                }
                // Something that no challenge begins with; what follows may be one again.
                parser.skip_to_comma();
                continue;
            };
            challenges.extend(of_scheme(scheme, &parser.parameters()));
        }
        challenges
    }
}

fn of_scheme(scheme: &str, parameters: &[(&str, String)]) -> Option<Challenge> {
    let find = |name: &str| {
        let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.clone())
    };
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic { realm: find("realm").unwrap_or_default() });
    }
    if scheme.eq_ignore_ascii_case("bearer") {
        // Without a server there is nowhere to get a token.
        let realm = find("realm").filter(|realm| !realm.is_empty())?;
        let (service, scope, error) = (find("service"), find("scope"), find("error"));
        return Some(Challenge::Bearer(Bearer { realm, service, scope, error }));
    }
    Some(Challenge::Other { scheme: printable(scheme, 32) })
}

impl fmt::Display for Challenge {
    /// As a server sends it.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
        match self {
            Challenge::Basic { realm } => write!(formatter, "Basic realm=\"{}\"", quote(realm)),
            Challenge::Other { scheme } => formatter.write_str(scheme),
            Challenge::Bearer(bearer) => {
                write!(formatter, "Bearer realm=\"{}\"", quote(&bearer.realm))?;
                let parameters =
                    [("service", &bearer.service), ("scope", &bearer.scope), ("error", &bearer.error)];
                for (name, value) in parameters {
                    if let Some(value) = value {
                        write!(formatter, ",{name}=\"{}\"", quote(value))?;
                    }
                }
                Ok(())
            }
        }
    }
}

/// What is left of the header. Every step takes something away, so reading ends.
struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn skip_blanks(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    fn skip_separators(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', ',']);
    }

    fn skip_to_comma(&mut self) {
        self.rest = self.rest.find(',').map_or("", |comma| &self.rest[comma..]);
    }

    /// RFC 9110, section 5.6.2.
    fn token(&mut self) -> Option<&'a str> {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        let end = self.rest.bytes().position(|byte| !is_token(byte)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!token.is_empty()).then_some(token)
    }

    /// Parameters up to the next scheme: `name=value` with commas between, which also stand between challenges. A name
    /// without `=` is the next scheme.
    fn parameters(&mut self) -> Vec<(&'a str, String)> {
        let mut parameters = Vec::new();
        self.skip_blanks();
        // The other form of a challenge: one value with padding (`Negotiate YWJj==`).
        let is_token68 = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/".contains(&byte);
        let value =
            self.rest.trim_start_matches(|character: char| u8::try_from(character).is_ok_and(is_token68));
        let after = value.trim_start_matches('=').trim_start_matches([' ', '\t']);
        if value.len() < self.rest.len() && (after.is_empty() || after.starts_with(',')) {
            self.rest = after;
            return parameters;
        }
        loop {
            let before = self.rest;
            self.skip_separators();
            let name = self.token();
            self.skip_blanks();
            let Some((name, rest)) = name.zip(self.rest.strip_prefix('=')) else {
                // The next challenge, the end, or nothing that can be read.
                self.rest = before;
                if name.is_none() {
                    self.skip_separators();
                    if !self.rest.is_empty() {
                        self.skip_to_comma();
                        if parameters.len() < PARAMETERS_MAX && !self.rest.is_empty() {
                            continue;
                        }
                    }
                }
                return parameters;
            };
            self.rest = rest;
            self.skip_blanks();
            let value = self.value();
            if parameters.len() < PARAMETERS_MAX {
                parameters.push((name, value));
            }
        }
    }

    /// A quoted string or a token. Unquoted values are read up to a comma or blank: docker's own registry accepts URLs so.
    fn value(&mut self) -> String {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            let end = self.rest.find([',', ' ', '\t']).unwrap_or(self.rest.len());
            let (value, rest) = self.rest.split_at(end);
            self.rest = rest;
            return value.to_owned();
        };
        let mut value = String::new();
        let mut characters = quoted.char_indices();
        while let Some((position, character)) = characters.next() {
            match character {
                '"' => {
                    self.rest = &quoted[position + 1..];
                    return value;
                }
                '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
                character => value.push(character),
            }
        }
        // The quote is never closed: the rest is the value.
        self.rest = "";
        value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(header: &str, expect: &[&str]) {
        let actual: Vec<String> = Challenge::parse(header).iter().map(Challenge::to_string).collect();
        assert_eq!(actual, expect, "{header}");
        // What is written reads back (invariant 2).
        assert_eq!(Challenge::parse(&actual.join(", ")), Challenge::parse(header), "{header}");
    }

    #[test]
    fn of_real_registries() {
        check(
            r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#,
            &[
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:library/debian:pull""#,
            ],
        );
        check(r#"Basic realm="Registry Realm""#, &[r#"Basic realm="Registry Realm""#]);
        check(
            r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull",error="insufficient_scope""#,
            &[
                r#"Bearer realm="https://ghcr.io/token",service="ghcr.io",scope="repository:a/b:pull",error="insufficient_scope""#,
            ],
        );
    }

    #[test]
    fn forms() {
        check("", &[]);
        check("Basic", &[r#"Basic realm="""#]);
        check("basic REALM = \"a, b\"", &[r#"Basic realm="a, b""#]);
        check(r#"Basic realm="say \"hi\" \\""#, &[r#"Basic realm="say \"hi\" \\""#]);
        check("BEARER realm=https://a/t?x=1,service=b", &[r#"Bearer realm="https://a/t?x=1",service="b""#]);
        check(
            r#"Bearer realm="https://a/t" , , service="b", Basic realm="c""#,
            &[r#"Bearer realm="https://a/t",service="b""#, r#"Basic realm="c""#],
        );
        check(r#"Negotiate, Basic realm="c""#, &["Negotiate", r#"Basic realm="c""#]);
        check(r#"Negotiate YWJj==, Basic realm="c""#, &["Negotiate", r#"Basic realm="c""#]);
        check(r#"Digest realm="a", qop="auth,auth-int", Basic realm="c""#, &["Digest", r#"Basic realm="c""#]);
    }

    #[test]
    fn broken_ones() {
        check("Bearer", &[]);
        check("Bearer service=\"x\"", &[]);
        check("Bearer realm=\"\"", &[]);
        check(r#"Bearer realm="https://a/t"#, &[r#"Bearer realm="https://a/t""#]);
        check(r#"Basic realm="a\"#, &[r#"Basic realm="a""#]);
        check("=, \"x\", Basic realm=a", &[r#"Basic realm="a""#]);
        check("Basic =x, realm=b", &[r#"Basic realm="b""#]);
        assert_eq!(Challenge::parse(&"a,".repeat(100)).len(), CHALLENGES_MAX);
        assert_eq!(Challenge::parse(&"ü".repeat(HEADER_SIZE_BYTES_MAX)), []);
    }

    #[test]
    fn scopes() {
        let Challenge::Bearer(bearer) =
            &Challenge::parse(r#"Bearer realm="r",scope="repository:a:pull,push  registry:catalog:*""#)[0]
        else {
            panic!("not a bearer challenge");
        };
        assert_eq!(bearer.scopes().collect::<Vec<_>>(), ["repository:a:pull,push", "registry:catalog:*"]);
    }
}
