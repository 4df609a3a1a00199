//! `docker-credential-*` programs: JSON in, JSON out (docker-credential-helpers).
//!
//! Secrets go through pipes alone, never through arguments. A helper is waited for without threads, and not for ever.

use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mica_sys::error::ErrorAt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::Credential;
use crate::error::{HelperProblem, RegistryError, Result};
use crate::secret::Secret;

/// Helpers ask key rings and clouds, and sometimes people.
const PATIENCE: Duration = Duration::from_secs(60);
/// A reply is one small object.
const REPLY_BYTES_MAX: usize = 1 << 20;
/// Characters of a message that are told.
const MESSAGE_LENGTH_MAX: usize = 400;
/// How every program begins.
const PREFIX: &str = "docker-credential-";
/// The user of an identity token.
const TOKEN_USER: &str = "<token>";

/// How helpers are found and waited for.
#[derive(Clone, Debug)]
pub(crate) struct Helpers {
    /// As in `PATH`.
    pub search: Option<OsString>,
    /// How long one call may take.
    pub patience: Duration,
}

impl Default for Helpers {
    fn default() -> Helpers {
        Helpers { search: None, patience: PATIENCE }
    }
}

/// What a helper reads and writes.
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "PascalCase", default)]
#[derive(Default)]
struct Message {
    #[serde(rename = "ServerURL")]
    server_url: String,
    username: String,
    secret: String,
}

impl Helpers {
    /// The login that a helper has for a server.
    pub fn get(&self, name: &str, server: &str) -> Result<Option<Credential>> {
        let call = Call { helpers: self, name, verb: "get", server };
        let Some(reply) = call.run(server.as_bytes(), None)? else { return Ok(None) };
        // The parser's words could hold a part of the secret.
        let reply: Message =
            serde_json::from_slice(&reply).map_err(|_| call.error(HelperProblem::NotJson))?;
        Ok(match reply.username.as_str() {
            _ if reply.secret.is_empty() => None,
            TOKEN_USER => Some(Credential::IdentityToken(Secret::new(reply.secret))),
            _ => Some(Credential::basic(reply.username, reply.secret)),
        })
    }

    /// Gives a helper a login to keep.
    pub fn store(&self, name: &str, server: &str, username: Option<&str>, secret: &Secret) -> Result<()> {
        let call = Call { helpers: self, name, verb: "store", server };
        let message = Message {
            server_url: server.to_owned(),
            username: username.unwrap_or(TOKEN_USER).to_owned(),
            secret: secret.reveal().to_owned(),
        };
        let input = serde_json::to_vec(&message).map_err(|_| call.error(HelperProblem::NotJson))?;
        call.run(&input, Some(secret)).map(|_| ())
    }

    /// Takes a login from a helper.
    pub fn erase(&self, name: &str, server: &str) -> Result<()> {
        Call { helpers: self, name, verb: "erase", server }.run(server.as_bytes(), None).map(|_| ())
    }

    fn find(&self, program: &str) -> Option<PathBuf> {
        // A relative directory would run what lies where the user happens to be.
        std::env::split_paths(self.search.as_ref()?)
            .filter(|dir| dir.is_absolute())
            .map(|dir| dir.join(program))
            .find(|path| path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok())
    }
}

/// One call of a helper.
struct Call<'a> {
    helpers: &'a Helpers,
    name: &'a str,
    verb: &'static str,
    server: &'a str,
}

impl Call<'_> {
    fn error(&self, problem: HelperProblem) -> RegistryError {
        RegistryError::Helper {
            helper: format!("{PREFIX}{}", self.name),
            verb: self.verb,
            server: self.server.to_owned(),
            problem,
        }
    }

    /// What it writes; `None` if it says that it has nothing for the server.
    fn run(&self, input: &[u8], secret: Option<&Secret>) -> Result<Option<Vec<u8>>> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        if self.name.is_empty() || !self.name.bytes().all(is_name) {
            return Err(self.error(HelperProblem::InvalidName));
        }
        let program = self.helpers.find(&format!("{PREFIX}{}", self.name));
        let program = program.ok_or_else(|| self.error(HelperProblem::NotFound))?;
        // What it says besides its reply is for people: docker lets it through, too.
        let mut child = Command::new(&program)
            .arg(self.verb)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .at("execve", &program)?;
        let talked = self.talk(&mut child, input);
        if talked.is_err() {
            let _ = child.kill();
        }
        let status = child.wait().at("wait4", &program)?;
        let reply = talked?;
        if status.success() {
            return Ok(Some(reply));
        }
        let mut message = String::from_utf8_lossy(&reply).into_owned();
        if let Some(secret) = secret.filter(|secret| !secret.reveal().is_empty()) {
            message = message.replace(secret.reveal(), "***");
        }
        // The one message that helpers share: their library's `ErrCredentialsNotFound`.
        if self.verb != "store" && message.contains("credentials not found") {
            return Ok(None);
        }
        let message = message.trim().chars().take(MESSAGE_LENGTH_MAX);
        let message: String = message.map(|c| if c.is_control() { ' ' } else { c }).collect();
        let message = if message.is_empty() { status.to_string() } else { message };
        Err(self.error(HelperProblem::Failed { message }))
    }

    /// Writes and reads until the program has ended.
    fn talk(&self, child: &mut Child, mut input: &[u8]) -> Result<Vec<u8>> {
        let missing = || self.error(HelperProblem::NotJson);
        let (mut stdin, mut stdout) = (child.stdin.take(), child.stdout.take().ok_or_else(missing)?);
        let pid = Pid::from_raw(child.id().cast_signed()).ok_or_else(missing)?;
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).at("pidfd_open", "")?;
        rustix::io::ioctl_fionbio(&stdout, true).at("ioctl", "pipe")?;
        if let Some(stdin) = &stdin {
            rustix::io::ioctl_fionbio(stdin, true).at("ioctl", "pipe")?;
        }
        let begun = Instant::now();
        let (mut reply, mut is_open, mut has_ended) = (Vec::new(), true, false);
        loop {
            if let Some(pipe) = &mut stdin {
                match pipe.write(input) {
                    Ok(count) => input = input.get(count..).unwrap_or_default(),
                    Err(error) if is_patience(error.kind()) => {}
                    // It does not want to hear it all; its reply says whether that is well.
                    Err(_) => input = &[],
                }
                if input.is_empty() {
                    stdin = None;
                }
            }
            let mut buffer = [0; 4096];
            while is_open {
                match stdout.read(&mut buffer) {
                    Ok(0) => is_open = false,
                    Ok(count) => reply.extend_from_slice(buffer.get(..count).unwrap_or_default()),
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    Err(error) if is_patience(error.kind()) => break,
                    Err(error) => return Err(mica_sys::Error::new("read", "pipe", error).into()),
                }
                if reply.len() > REPLY_BYTES_MAX {
                    return Err(self.error(HelperProblem::TooLong { size_bytes_max: REPLY_BYTES_MAX }));
                }
            }
            if has_ended {
                // Another process may hold the pipe open: what it writes is no reply.
                return Ok(reply);
            }
            let left = self.helpers.patience.saturating_sub(begun.elapsed());
            if left.is_zero() {
                let seconds = self.helpers.patience.as_secs();
                return Err(self.error(HelperProblem::TimedOut { seconds }));
            }
            let mut fds = vec![PollFd::new(&pidfd, PollFlags::IN)];
            if is_open {
                fds.push(PollFd::new(&stdout, PollFlags::IN));
            }
            if let Some(stdin) = &stdin {
                fds.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::OUT));
            }
            let timeout =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) => has_ended = fds.first().is_some_and(|fd| !fd.revents().is_empty()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(mica_sys::Error::new("poll", "", error).into()),
            }
        }
    }
}

fn is_patience(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
