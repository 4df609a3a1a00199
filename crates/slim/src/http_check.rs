//! What a server is asked to see that it works. Pure.

use thiserror::Error;

/// The longest path that is sent.
const PATH_BYTES_MAX: usize = 4096;

/// Why a text is no check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum HttpCheckError {
    /// Not `PORT`, `/PATH` or `PORT/PATH`.
    #[error("write `PORT`, `/PATH` or `PORT/PATH`, for example `8080/health`")]
    Form,
    /// The port is no number from 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
    /// The path cannot be sent as it is.
    #[error("a path holds no blanks and no control characters, and is not longer than 4096 bytes")]
    Path,
}

/// A page that must be answered with a status below 400.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// `None` for the only one that the image exposes.
    pub port: Option<u16>,
    /// Begins with `/`.
    pub path: String,
}

impl HttpCheck {
    /// Reads `8080`, `/health` or `8080/health`.
    pub fn parse(text: &str) -> Result<Self, HttpCheckError> {
        let (port, path) = match text.find('/') {
            Some(at) => text.split_at(at),
            None => (text, "/"),
        };
        if text.is_empty() || port.contains(':') {
            return Err(HttpCheckError::Form);
        }
        let port = match port {
            "" => None,
            port if !port.bytes().all(|byte| byte.is_ascii_digit()) => return Err(HttpCheckError::Form),
            port => match port.parse() {
                Ok(port) if port > 0 => Some(port),
                _ => return Err(HttpCheckError::Port),
            },
        };
        if path.len() > PATH_BYTES_MAX || path.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return Err(HttpCheckError::Path);
        }
        Ok(Self { port, path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_parse() {
        let check = |text: &str, expect: Result<(Option<u16>, &str), HttpCheckError>| {
            let found = HttpCheck::parse(text);
            let found = found.as_ref().map(|check| (check.port, check.path.as_str())).map_err(|error| *error);
            assert_eq!(found, expect, "{text:?}");
        };
        check("8080", Ok((Some(8080), "/")));
        check("8080/", Ok((Some(8080), "/")));
        check("8080/a/b?c=d", Ok((Some(8080), "/a/b?c=d")));
        check("/health", Ok((None, "/health")));
        check("/", Ok((None, "/")));
        check("", Err(HttpCheckError::Form));
        check("http://localhost/", Err(HttpCheckError::Form));
        check("web/", Err(HttpCheckError::Form));
        check("0", Err(HttpCheckError::Port));
        check("65536/", Err(HttpCheckError::Port));
        check("80/a b", Err(HttpCheckError::Path));
        check("80/a\r\nX: y", Err(HttpCheckError::Path));
        check(&format!("/{}", "a".repeat(PATH_BYTES_MAX)), Err(HttpCheckError::Path));
    }
}
