//! The questions that an agent answers, and who answers them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use crate::error::{AgentError, KeyProblem};
use crate::private_key::PrivateKey;
use crate::reader::{Reader, put_string};

/// The longest message, as OpenSSH's agent has it (`AGENT_MAX_LEN`).
const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// No key comes near it.
const KEY_BYTES_MAX: u64 = 100 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// What answers: the user's own agent, or keys of files.
#[derive(Debug)]
pub struct Agent(Source);

#[derive(Debug)]
enum Source {
    Socket(PathBuf),
    Keys(Vec<PrivateKey>),
}

impl Agent {
    /// The agent of a socket, or one of key files; with no path that of `SSH_AUTH_SOCK`, whose value the caller knows.
    pub fn open(paths: &[PathBuf], environment: Option<&Path>) -> Result<Self, AgentError> {
        let of_environment = environment.filter(|path| !path.as_os_str().is_empty()).map(Path::to_owned);
        let paths = match paths {
            [] => &[of_environment.ok_or(AgentError::NoAgent)?],
            paths => paths,
        };
        let mut keys = Vec::new();
        for path in paths {
            let unreadable = |source| AgentError::Unreadable { path: path.clone(), source };
            let metadata = std::fs::metadata(path).map_err(unreadable)?;
            if metadata.file_type().is_socket() {
                return match paths.len() {
                    1 => Ok(Self(Source::Socket(path.clone()))),
                    _ => Err(AgentError::SocketAmongKeys { path: path.clone() }),
                };
            }
            let wrong = |problem| AgentError::Key { path: path.clone(), problem };
            if !metadata.is_file() {
                return Err(wrong(KeyProblem::NotAKey));
            }
            let mut bytes = Vec::new();
            let file = File::open(path).map_err(unreadable)?;
            file.take(KEY_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
            if bytes.len() as u64 > KEY_BYTES_MAX {
                return Err(wrong(KeyProblem::TooLarge));
            }
            let text = std::str::from_utf8(&bytes).map_err(|_| wrong(KeyProblem::NotAKey))?;
            keys.push(PrivateKey::parse(text).map_err(wrong)?);
        }
        Ok(Self(Source::Keys(keys)))
    }

    /// Answers a client until it ends. `started` is told of every connection made for it, so that somebody else can end it.
    pub(crate) fn talk(
        &self,
        client: &mut UnixStream,
        started: impl Fn(&UnixStream) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut agent = match &self.0 {
            Source::Socket(path) => {
                let agent = UnixStream::connect(path)?;
                started(&agent)?;
                Some(agent)
            }
            Source::Keys(_) => None,
        };
        while let Some(question) = read_message(client)? {
            let answer = match (&self.0, &mut agent) {
                (Source::Keys(keys), _) => answer(keys, &question),
                (_, Some(agent)) if is_harmless(&question) => {
                    write_message(agent, &question)?;
                    read_message(agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
                }
                _ => vec![FAILURE],
            };
            write_message(client, &answer)?;
        }
        Ok(())
    }
}

fn is_harmless(question: &[u8]) -> bool {
    matches!(question.first(), Some(&REQUEST_IDENTITIES | &SIGN_REQUEST))
}

fn answer(keys: &[PrivateKey], question: &[u8]) -> Vec<u8> {
    let mut reader = Reader(question);
    let answer = match reader.byte() {
        Some(REQUEST_IDENTITIES) => {
            let mut answer = vec![IDENTITIES_ANSWER];
            answer.extend(u32::try_from(keys.len()).unwrap_or_default().to_be_bytes());
            for key in keys {
                put_string(&mut answer, &key.public);
                put_string(&mut answer, key.comment.as_bytes());
            }
            Some(answer)
        }
        Some(SIGN_REQUEST) => sign(keys, &mut reader),
        _ => None,
    };
    answer.unwrap_or_else(|| vec![FAILURE])
}

fn sign(keys: &[PrivateKey], reader: &mut Reader<'_>) -> Option<Vec<u8>> {
    let (public, data, flags) = (reader.string()?, reader.string()?, reader.number()?);
    let key = keys.iter().find(|key| key.public == public)?;
    let mut answer = vec![SIGN_RESPONSE];
    put_string(&mut answer, &key.sign(data, flags)?);
    Some(answer)
}

/// A message without its length; `None` at the end.
fn read_message(stream: &mut UnixStream) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length == 0 || length > MESSAGE_BYTES_MAX {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = vec![0; length];
    stream.read_exact(&mut message)?;
    Ok(Some(message))
}

fn write_message(stream: &mut UnixStream, message: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(message.len() + 4);
    put_string(&mut bytes, message);
    stream.write_all(&bytes)
}
