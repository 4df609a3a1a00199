//! Secrets and agents that a build was given. Their values are read when a step asks for them, kept nowhere, and shown by
//! nothing here: no `Debug`, no error, no key.

use std::fmt;
use std::io::Read;
use std::path::PathBuf;

use mica_ssh_agent::{Agent, AgentError};

/// BuildKit's limit of a secret.
pub const SECRET_BYTES_MAX: u64 = 500 * 1024;

/// `--secret id=...`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSource {
    /// What steps call it.
    pub id: String,
    /// Where its value is.
    pub place: SecretPlace,
}

/// Where the value of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretPlace {
    /// `src=FILE`
    File(PathBuf),
    /// `env=NAME`
    Variable(String),
}

/// `--ssh ID[=SOCKET|KEY,...]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SshSource {
    /// What steps call it.
    pub id: String,
    /// An agent's socket, or files of keys; empty for the agent of SSH_AUTH_SOCK.
    pub paths: Vec<PathBuf>,
}

/// The value of a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// The bytes.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret")
    }
}

/// Why a secret cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be read.
    #[error("cannot read secret `{id}` from `{}`", .path.display())]
    File {
        /// Name of the secret.
        id: String,
        /// Where it should be.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Larger than [`SECRET_BYTES_MAX`].
    #[error("secret `{id}` is larger than 500 KiB")]
    TooLarge {
        /// Name of the secret.
        id: String,
    },
}

impl SshSource {
    /// The agent, as it is now.
    pub fn open(&self) -> Result<Agent, AgentError> {
        let environment = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
        Agent::open(&self.paths, environment.as_deref())
    }
}

impl SecretSource {
    /// Reads the value.
    pub fn read(&self) -> Result<Secret, SecretError> {
        let id = || self.id.clone();
        let bytes = match &self.place {
            SecretPlace::File(path) => {
                let failed = |source| SecretError::File { id: id(), path: path.clone(), source };
                let mut bytes = Vec::new();
                let file = std::fs::File::open(path).map_err(failed)?;
                file.take(SECRET_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(failed)?;
                bytes
            }
            SecretPlace::Variable(variable) => {
                use std::os::unix::ffi::OsStringExt;
                // As docker has it: a variable that is not set is an empty secret.
                std::env::var_os(variable).unwrap_or_default().into_vec()
            }
        };
        match bytes.len() as u64 > SECRET_BYTES_MAX {
            true => Err(SecretError::TooLarge { id: id() }),
            false => Ok(Secret(bytes)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_and_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "s3cr3t").unwrap();
        let source = SecretSource { id: "t".into(), place: SecretPlace::File(path.clone()) };
        let secret = source.read().unwrap();
        assert_eq!(secret.expose(), b"s3cr3t");
        assert_eq!(format!("{secret:?}"), "Secret");
        std::fs::write(&path, vec![0; SECRET_BYTES_MAX as usize + 1]).unwrap();
        assert!(matches!(source.read(), Err(SecretError::TooLarge { .. })));
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(source.read(), Err(SecretError::File { .. })));
        let place = SecretPlace::Variable("MICA_TEST_NO_SUCH_VARIABLE".into());
        let source = SecretSource { id: "t".into(), place };
        assert_eq!(source.read().unwrap().expose(), b"");
    }
}
