//! Text around keys: `-----BEGIN ...-----` (RFC 7468, and the headers of RFC 1421 that OpenSSL wrote).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::KeyProblem;

/// What stands between two such lines.
pub(crate) struct Pem {
    /// `OPENSSH PRIVATE KEY`
    pub label: String,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// The first piece of a text.
pub(crate) fn parse(text: &str) -> Result<Pem, KeyProblem> {
    let mut lines = text.lines().map(str::trim);
    let label = lines.find_map(|line| line.strip_prefix("-----BEGIN ")?.strip_suffix("-----"));
    let label = label.ok_or(KeyProblem::NotAKey)?.to_owned();
    let mut body = String::new();
    loop {
        match lines.next().ok_or(KeyProblem::NotAKey)? {
            line if line.starts_with("-----END ") => break,
            line if line.starts_with("Proc-Type:") && line.contains("ENCRYPTED") => {
                return Err(KeyProblem::Encrypted);
            }
            line if line.contains(':') => {}
            line => body.push_str(line),
        }
    }
    let bytes = STANDARD.decode(body).map_err(|_| KeyProblem::NotAKey)?;
    Ok(Pem { label, bytes })
}
