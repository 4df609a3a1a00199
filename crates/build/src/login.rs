//! Logins for what is fetched: secrets of names that BuildKit gave them, read when they are needed and never kept.

use base64::Engine as _;

use crate::secret::{SecretError, SecretSource};

/// Value of `Authorization` for a host of the web: `HTTP_AUTH_TOKEN_<host>`, else `HTTP_AUTH_HEADER_<host>`.
pub(crate) fn for_web(secrets: &[SecretSource], url: &str) -> Result<Option<Vec<u8>>, SecretError> {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    // As BuildKit has it: without port, and without the brackets of an address.
    let name = match host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        Some((address, _)) => address,
        None => host.split_once(':').map_or(host, |(name, _)| name),
    };
    if let Some(token) = find(secrets, &format!("HTTP_AUTH_TOKEN_{name}"))? {
        return Ok(Some([b"Bearer ".as_slice(), &token].concat()));
    }
    find(secrets, &format!("HTTP_AUTH_HEADER_{name}"))
}

/// Value of `Authorization` for a host of git: `GIT_AUTH_HEADER` or `GIT_AUTH_TOKEN`, of the host before that of all.
pub(crate) fn for_git(secrets: &[SecretSource], host: &str) -> Result<Option<Vec<u8>>, SecretError> {
    for suffix in [format!(".{host}"), String::new()] {
        if let Some(header) = find(secrets, &format!("GIT_AUTH_HEADER{suffix}"))? {
            return Ok(Some(header));
        }
        if let Some(token) = find(secrets, &format!("GIT_AUTH_TOKEN{suffix}"))? {
            let login = [b"x-access-token:".as_slice(), &token].concat();
            let login = base64::engine::general_purpose::STANDARD.encode(login);
            return Ok(Some(format!("basic {login}").into_bytes()));
        }
    }
    Ok(None)
}

/// The value without the end of line that an editor leaves in a file.
fn find(secrets: &[SecretSource], id: &str) -> Result<Option<Vec<u8>>, SecretError> {
    let Some(source) = secrets.iter().find(|secret| secret.id == id) else { return Ok(None) };
    Ok(Some(source.read()?.expose().trim_ascii_end().to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::secret::SecretPlace;

    #[test]
    fn logins_are_for_their_hosts() {
        let directory = tempfile::tempdir().unwrap();
        let secret = |id: &str| {
            let path = directory.path().join(id);
            std::fs::write(&path, format!("<{id}>\n")).unwrap();
            SecretSource { id: id.into(), place: SecretPlace::File(path) }
        };
        let secrets = [
            secret("HTTP_AUTH_TOKEN_a.example"),
            secret("HTTP_AUTH_HEADER_b.example"),
            secret("GIT_AUTH_HEADER.h:8"),
            secret("GIT_AUTH_TOKEN"),
        ];
        let text = |value: Option<Vec<u8>>| value.map(|value| String::from_utf8(value).unwrap());
        let web = |url: &str| text(for_web(&secrets, url).unwrap());
        let git = |host: &str| text(for_git(&secrets, host).unwrap());
        assert_eq!(
            web("https://me@a.example:8443/x?y").as_deref(),
            Some("Bearer <HTTP_AUTH_TOKEN_a.example>")
        );
        assert_eq!(web("http://b.example/x").as_deref(), Some("<HTTP_AUTH_HEADER_b.example>"));
        assert_eq!(web("http://c.example/a.example"), None);
        assert_eq!(web("http://x.a.example/"), None);
        assert_eq!(git("h:8").as_deref(), Some("<GIT_AUTH_HEADER.h:8>"));
        let login = base64::engine::general_purpose::STANDARD.encode("x-access-token:<GIT_AUTH_TOKEN>");
        assert_eq!(git("other"), Some(format!("basic {login}")));
    }
}
