//! Our side of an attached container: our terminal or streams, connected to its monitor.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use mica_sys::error::ErrorAt;
use mica_sys::signal::SignalReader;
use rustix::event::{PollFd, PollFlags};
use rustix::termios::{OptionalActions, Termios};

use crate::error::{ContainerError, Result};
use crate::frame::{self, FrameReader, Kind};
use crate::pump::{FORWARDED_SIGNALS, RESIZED, write_own};

/// Ctrl-P, Ctrl-Q: leave without ending.
const DETACH_KEYS: [u8; 2] = [16, 17];
/// What a killed monitor makes of its container.
const CODE_KILLED: i32 = 137;

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions {
    /// Pass our input on.
    pub stdin: bool,
    /// The container has a terminal: ours becomes a mere wire to it.
    pub tty: bool,
    /// Pass our signals on (without a terminal in between).
    pub forward_signals: bool,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The container ended with this exit code.
    Exited(i32),
    /// The container runs on without us.
    Detached,
}

/// Our terminal in raw mode, until this is dropped.
#[derive(Debug)]
pub(crate) struct RawTerminal {
    before: Termios,
}

impl RawTerminal {
    /// `None` if standard input is no terminal.
    pub fn new() -> Option<Self> {
        let before = rustix::termios::tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self { before })
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.before);
    }
}

/// Waits for the monitor's word, and then, with `options`, passes streams on until the end.
pub(crate) fn attach(
    stream: UnixStream,
    id: &str,
    options: Option<AttachOptions>,
    warn: &mut dyn FnMut(&str),
) -> Result<Attached> {
    let died = || ContainerError::MonitorDied { id: id.to_owned() };
    let mut reader = FrameReader::default();
    let warnings: Vec<String> = loop {
        match reader.next().map_err(|_| died())? {
            Some((Kind::Started, payload)) => break serde_json::from_slice(&payload).unwrap_or_default(),
            Some((Kind::Failed, payload)) => {
                let (code, message) = serde_json::from_slice(&payload).map_err(|_| died())?;
                return Err(ContainerError::MonitorFailed { message, code });
            }
            Some(_) => {}
            None => {
                if !reader.fill(&stream).at("read", "monitor")? {
                    return Err(died());
                }
            }
        }
    };
    warnings.iter().map(String::as_str).for_each(warn);
    let Some(options) = options else { return Ok(Attached::Detached) };
    let signals = if options.tty { &[RESIZED, 1, 15][..] } else { FORWARDED_SIGNALS };
    let signals = match options.tty || options.forward_signals {
        true => Some(SignalReader::new(signals)?),
        false => None,
    };
    let _raw = if options.tty && options.stdin { RawTerminal::new() } else { None };
    let mut client = Attachment { stream, reader, options, detach_matched: 0 };
    client.send_size()?;
    client.run(signals)
}

struct Attachment {
    stream: UnixStream,
    reader: FrameReader,
    options: AttachOptions,
    detach_matched: usize,
}

impl Attachment {
    fn run(&mut self, signals: Option<SignalReader>) -> Result<Attached> {
        let mut stdin_open = self.options.stdin;
        loop {
            while let Ok(Some((kind, payload))) = self.reader.next() {
                match kind {
                    Kind::Output => drop(write_own(0, &payload)),
                    Kind::ErrorOutput => drop(write_own(1, &payload)),
                    Kind::Exited => {
                        return Ok(Attached::Exited(frame::number(&payload).unwrap_or(CODE_KILLED)));
                    }
                    _ => {}
                }
            }
            let stdin = std::io::stdin();
            let mut polls = vec![PollFd::new(&self.stream, PollFlags::IN)];
            if let Some(signals) = &signals {
                polls.push(PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN));
            }
            if stdin_open {
                polls.push(PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN));
            }
            rustix::io::retry_on_intr(|| rustix::event::poll(&mut polls, None)).at("poll", "attach")?;
            let stdin_ready = stdin_open && polls.last().is_some_and(|poll| !poll.revents().is_empty());
            drop(polls);
            if let Some(signals) = &signals {
                while let Some(signal) = signals.next() {
                    match signal {
                        RESIZED => self.send_size()?,
                        signal => self.send(Kind::Signal, &signal.to_le_bytes())?,
                    }
                }
            }
            if stdin_ready {
                let mut bytes = [0u8; 16 * 1024];
                match rustix::io::read(&stdin, &mut bytes) {
                    Ok(0) | Err(rustix::io::Errno::IO) => {
                        stdin_open = false;
                        self.send(Kind::InputEnd, &[])?;
                    }
                    Ok(count) => {
                        if self.send_input(bytes.get(..count).unwrap_or_default())? {
                            return Ok(Attached::Detached);
                        }
                    }
                    Err(_) => {}
                }
            }
            let mut polls = [PollFd::new(&self.stream, PollFlags::IN)];
            let now = rustix::event::Timespec::default();
            if rustix::event::poll(&mut polls, Some(&now)) == Ok(1)
                && !matches!(self.reader.fill(&self.stream), Ok(true))
            {
                // Killed, and the container with it.
                return Ok(Attached::Exited(CODE_KILLED));
            }
        }
    }

    /// Sends input without the keys that mean to leave; `true` when these were complete.
    fn send_input(&mut self, bytes: &[u8]) -> Result<bool> {
        if !self.options.tty {
            self.send(Kind::Input, bytes)?;
            return Ok(false);
        }
        let (input, left) = filter_detach_keys(bytes, &mut self.detach_matched);
        if !input.is_empty() {
            self.send(Kind::Input, &input)?;
        }
        Ok(left)
    }

    fn send_size(&mut self) -> Result<()> {
        if self.options.tty
            && let Ok(size) = rustix::termios::tcgetwinsize(std::io::stdout())
        {
            let mut payload = size.ws_row.to_le_bytes().to_vec();
            payload.extend(size.ws_col.to_le_bytes());
            self.send(Kind::Resize, &payload)?;
        }
        Ok(())
    }

    fn send(&mut self, kind: Kind, payload: &[u8]) -> Result<()> {
        let bytes = frame::encode(kind, payload);
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            match rustix::net::send(&self.stream, rest, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => rest = rest.get(count..).unwrap_or_default(),
                Err(rustix::io::Errno::INTR) => {}
                // The end is seen where frames are read.
                Err(rustix::io::Errno::PIPE | rustix::io::Errno::CONNRESET) => return Ok(()),
                Err(error) => return Err(mica_sys::Error::new("send", "monitor", error).into()),
            }
        }
        Ok(())
    }
}

/// The input without the keys to leave; keys that began the sequence and did not go on are input after all.
pub(crate) fn filter_detach_keys(bytes: &[u8], matched: &mut usize) -> (Vec<u8>, bool) {
    let mut input = Vec::with_capacity(bytes.len());
    for byte in bytes {
        if DETACH_KEYS.get(*matched) == Some(byte) {
            *matched += 1;
            if *matched == DETACH_KEYS.len() {
                *matched = 0;
                return (input, true);
            }
            continue;
        }
        input.extend_from_slice(DETACH_KEYS.get(..*matched).unwrap_or_default());
        *matched = 0;
        if DETACH_KEYS.first() == Some(byte) {
            *matched = 1;
        } else {
            input.push(*byte);
        }
    }
    (input, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn detach_keys_are_found_across_reads() {
        let check = |reads: &[&[u8]], expect: &[u8], left: bool| {
            let (mut matched, mut all, mut found) = (0, Vec::new(), false);
            for read in reads {
                let (input, end) = filter_detach_keys(read, &mut matched);
                all.extend(input);
                found |= end;
            }
            assert_eq!((all.as_slice(), found), (expect, left), "{reads:?}");
        };
        check(&[b"ab"], b"ab", false);
        check(&[b"a\x10\x11"], b"a", true);
        check(&[b"a\x10", b"\x11"], b"a", true);
        check(&[b"a\x10", b"b"], b"a\x10b", false);
        check(&[b"\x10\x10\x11"], b"\x10", true);
    }
}
