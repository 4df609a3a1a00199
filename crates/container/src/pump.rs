//! One loop for everything a running process says and hears: its streams, our terminal, attached clients, signals.
//!
//! One thread, no blocking but in the poll, except for writing to our own standard streams: whoever reads those slowly
//! slows the container, as a pipe would.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use mica_runtime::{ExitStatus, Running};
use mica_sys::error::ErrorAt;
use mica_sys::signal::SignalReader;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::error::Result;
use crate::frame::{self, FrameReader, Kind};
use crate::launch::{Streams, resize};
use crate::log::LogWriter;

/// Output that a client has not read yet; more than this stops the container's output until it has.
const CLIENT_BYTES_MAX: usize = 1 << 20;
/// Input that the container has not read yet; more than this is left with who sends it.
const INPUT_BYTES_MAX: usize = 64 * 1024;
/// Our own signals that are passed on to the container.
pub(crate) const FORWARDED_SIGNALS: &[i32] = &[1, 2, 3, 10, 12, 15];
/// SIGWINCH.
pub(crate) const RESIZED: i32 = 28;
/// SIGINT and SIGTERM: who sends them three times means it.
const IMPATIENT_COUNT: u32 = 3;

/// Someone attached over a socket.
#[derive(Debug)]
pub(crate) struct Client {
    stream: UnixStream,
    reader: FrameReader,
    unsent: Vec<u8>,
    gone: bool,
}

impl Client {
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, reader: FrameReader::default(), unsent: Vec::new(), gone: false })
    }

    pub fn send(&mut self, kind: Kind, payload: &[u8]) {
        for part in payload.chunks(frame::PAYLOAD_BYTES_MAX).chain(payload.is_empty().then_some(payload)) {
            self.unsent.extend(frame::encode(kind, part));
        }
        self.flush();
    }

    fn flush(&mut self) {
        while !self.unsent.is_empty() && !self.gone {
            match rustix::net::send(&self.stream, &self.unsent, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.unsent.drain(..count.min(self.unsent.len()))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => break,
                Err(_) => self.gone = true,
            }
        }
    }

    /// Sends what is left, for a second at most.
    pub fn finish(mut self) {
        for _ in 0..100 {
            self.flush();
            if self.unsent.is_empty() || self.gone {
                break;
            }
            let timeout = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
            let _ = rustix::event::poll(&mut [PollFd::new(&self.stream, PollFlags::OUT)], Some(&timeout));
        }
    }
}

/// What stands around a running process.
#[derive(Debug, Default)]
pub(crate) struct Pump {
    pub streams: Streams,
    /// Output goes to our own streams too.
    pub to_own_streams: bool,
    /// Input comes from our own.
    pub from_own_stdin: bool,
    pub signals: Option<SignalReader>,
    pub listener: Option<UnixListener>,
    pub clients: Vec<Client>,
    pub unread: Vec<u8>,
    pub input_ended: bool,
    pub impatience: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Source {
    End,
    Output(usize),
    Terminal,
    Input,
    OwnInput,
    Signals,
    Listener,
    Client(usize),
}

impl Pump {
    /// Passes everything on until the process has ended and all its output is out.
    pub fn run(&mut self, running: &mut Running, log: &mut Option<LogWriter>) -> Result<ExitStatus> {
        loop {
            let ready = self.wait(Some(running.pidfd()), None)?;
            let mut ended = false;
            for (source, events) in ready {
                match source {
                    Source::End => ended = true,
                    Source::Output(position) => self.read_output(position, log),
                    Source::Terminal => {
                        if events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR) {
                            self.read_terminal(log);
                        }
                        if events.contains(PollFlags::OUT) {
                            self.write_input();
                        }
                    }
                    Source::Input => self.write_input(),
                    Source::OwnInput => self.read_own_input(),
                    Source::Signals => self.read_signals(running)?,
                    Source::Listener => self.accept(),
                    Source::Client(position) => self.serve_client(position, running)?,
                }
            }
            self.clients.retain(|client| !client.gone);
            if ended {
                let status = running.wait()?;
                self.drain(log)?;
                return Ok(status);
            }
        }
    }

    /// What the process has written last.
    fn drain(&mut self, log: &mut Option<LogWriter>) -> Result<()> {
        self.listener = None;
        self.from_own_stdin = false;
        loop {
            let ready = self.wait(None, Some(Timespec::default()))?;
            let mut progress = false;
            for (source, events) in ready {
                match source {
                    Source::Output(position) => {
                        self.read_output(position, log);
                        progress = true;
                    }
                    Source::Terminal if events.contains(PollFlags::IN) => {
                        self.read_terminal(log);
                        progress = true;
                    }
                    _ => {}
                }
            }
            if !progress {
                return Ok(());
            }
        }
    }

    fn wait(
        &self,
        end: Option<BorrowedFd<'_>>,
        timeout: Option<Timespec>,
    ) -> Result<Vec<(Source, PollFlags)>> {
        let draining = end.is_none();
        let congested = !draining && self.clients.iter().any(|client| client.unsent.len() > CLIENT_BYTES_MAX);
        let mut entries: Vec<(Source, BorrowedFd<'_>, PollFlags)> = Vec::with_capacity(8);
        let mut add = |source, fd, flags| entries.push((source, fd, flags));
        if !congested {
            for (position, output) in self.streams.outputs.iter().enumerate() {
                if let Some(output) = output {
                    add(Source::Output(position), output.as_fd(), PollFlags::IN);
                }
            }
        }
        if let Some(terminal) = &self.streams.terminal {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, !congested);
            flags.set(PollFlags::OUT, !self.unread.is_empty());
            if !flags.is_empty() {
                add(Source::Terminal, terminal.as_fd(), flags);
            }
        }
        if let Some(input) = self.streams.input.as_ref().filter(|_| !self.unread.is_empty()) {
            add(Source::Input, input.as_fd(), PollFlags::OUT);
        }
        let stdin = std::io::stdin();
        if !draining {
            if self.from_own_stdin && self.unread.len() < INPUT_BYTES_MAX {
                add(Source::OwnInput, stdin.as_fd(), PollFlags::IN);
            }
            if let Some(signals) = &self.signals {
                add(Source::Signals, signals.as_fd(), PollFlags::IN);
            }
            if let Some(listener) = &self.listener {
                add(Source::Listener, listener.as_fd(), PollFlags::IN);
            }
            for (position, client) in self.clients.iter().enumerate() {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, self.unread.len() < INPUT_BYTES_MAX);
                flags.set(PollFlags::OUT, !client.unsent.is_empty());
                add(Source::Client(position), client.stream.as_fd(), flags);
            }
            // Last, so that what was written before the end is read before it.
            if let Some(end) = end {
                add(Source::End, end, PollFlags::IN);
            }
        }
        let mut polls: Vec<PollFd<'_>> =
            entries.iter().map(|(_, fd, flags)| PollFd::from_borrowed_fd(*fd, *flags)).collect();
        rustix::io::retry_on_intr(|| rustix::event::poll(&mut polls, timeout.as_ref()))
            .at("poll", "container")?;
        let found = polls.iter().zip(&entries).filter(|(poll, _)| !poll.revents().is_empty());
        Ok(found.map(|(poll, (source, ..))| (*source, poll.revents())).collect())
    }

    fn read_output(&mut self, position: usize, log: &mut Option<LogWriter>) {
        let mut bytes = [0u8; 32 * 1024];
        let Some(Some(output)) = self.streams.outputs.get(position) else { return };
        match rustix::io::read(output, &mut bytes) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(count) if count > 0 => self.deliver(position, bytes.get(..count).unwrap_or_default(), log),
            _ => self.close_output(position),
        }
    }

    fn read_terminal(&mut self, log: &mut Option<LogWriter>) {
        let mut bytes = [0u8; 32 * 1024];
        let Some(terminal) = &self.streams.terminal else { return };
        match rustix::io::read(terminal, &mut bytes) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(count) if count > 0 => self.deliver(0, bytes.get(..count).unwrap_or_default(), log),
            // EIO: no process has the inner end open.
            _ => self.streams.terminal = None,
        }
    }

    fn deliver(&mut self, position: usize, bytes: &[u8], log: &mut Option<LogWriter>) {
        if let Some(log) = log {
            log.write(position, bytes);
        }
        let kind = if position == 0 { Kind::Output } else { Kind::ErrorOutput };
        for client in &mut self.clients {
            client.send(kind, bytes);
        }
        if self.to_own_streams && !write_own(position, bytes) && log.is_none() {
            // Nobody hears it any more: the program learns that as it would in a pipeline.
            self.close_output(position);
        }
    }

    fn close_output(&mut self, position: usize) {
        if let Some(output) = self.streams.outputs.get_mut(position) {
            *output = None;
        }
    }

    fn read_own_input(&mut self) {
        let mut bytes = [0u8; 16 * 1024];
        match rustix::io::read(std::io::stdin(), &mut bytes) {
            Err(Errno::INTR | Errno::AGAIN) => {}
            Ok(count) if count > 0 => self.take_input(bytes.get(..count).unwrap_or_default()),
            _ => {
                self.from_own_stdin = false;
                self.end_input();
            }
        }
    }

    fn take_input(&mut self, bytes: &[u8]) {
        if self.input_ended || self.streams.input.is_none() && self.streams.terminal.is_none() {
            return;
        }
        self.unread.extend_from_slice(bytes);
        self.write_input();
    }

    fn end_input(&mut self) {
        self.input_ended = true;
        self.write_input();
    }

    fn write_input(&mut self) {
        while !self.unread.is_empty() {
            let Some(input) = self.streams.terminal.as_ref().or(self.streams.input.as_ref()) else {
                self.unread.clear();
                break;
            };
            match rustix::io::write(input, &self.unread) {
                Ok(count) => drop(self.unread.drain(..count.min(self.unread.len()))),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                Err(_) => {
                    self.unread.clear();
                    self.streams.input = None;
                }
            }
        }
        // A terminal's input has no end; its programs are ended by a key.
        if self.input_ended {
            self.streams.input = None;
        }
    }

    fn read_signals(&mut self, running: &Running) -> Result<()> {
        while let Some(signal) = self.signals.as_ref().and_then(SignalReader::next) {
            if signal == RESIZED {
                if let (Some(terminal), Ok(size)) =
                    (&self.streams.terminal, rustix::termios::tcgetwinsize(std::io::stdout()))
                {
                    resize(terminal, (size.ws_row, size.ws_col));
                }
                continue;
            }
            if signal == 2 || signal == 15 {
                self.impatience += 1;
            }
            running.kill(if self.impatience >= IMPATIENT_COUNT { 9 } else { signal })?;
        }
        Ok(())
    }

    fn accept(&mut self) {
        let Some(listener) = &self.listener else { return };
        if let Ok((stream, _)) = listener.accept()
            && let Ok(mut client) = Client::new(stream)
        {
            client.send(Kind::Started, b"[]");
            self.clients.push(client);
        }
    }

    fn serve_client(&mut self, position: usize, running: &Running) -> Result<()> {
        let Some(client) = self.clients.get_mut(position) else { return Ok(()) };
        client.flush();
        let Client { stream, reader, gone, .. } = client;
        if !matches!(reader.fill(stream), Ok(true)) {
            *gone = true;
        }
        let mut frames = Vec::new();
        loop {
            match reader.next() {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(_) => {
                    *gone = true;
                    break;
                }
            }
        }
        for (kind, payload) in frames {
            match kind {
                Kind::Input => self.take_input(&payload),
                Kind::InputEnd => self.end_input(),
                Kind::Resize => {
                    if let (Some(terminal), Some(size)) = (&self.streams.terminal, frame::size(&payload)) {
                        resize(terminal, size);
                    }
                }
                Kind::Signal => {
                    if let Some(signal) = frame::number(&payload).filter(|number| (1..=64).contains(number)) {
                        running.kill(signal)?;
                    }
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Writes all to our stdout or stderr; `false` when nobody reads it.
pub(crate) fn write_own(position: usize, bytes: &[u8]) -> bool {
    let (stdout, stderr) = (std::io::stdout(), std::io::stderr());
    let own: BorrowedFd<'_> = if position == 0 { stdout.as_fd() } else { stderr.as_fd() };
    write_all(own, bytes)
}

fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another program made our stream non-blocking.
            Err(Errno::AGAIN) => {
                let _ = rustix::event::poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::OUT)], None);
            }
            Err(_) => return false,
        }
    }
    true
}
