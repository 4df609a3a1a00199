//! Questions on a terminal: a name, a password that is not shown.

use std::io::{self, IsTerminal, Write};

use mica_sys::signal::SignalReader;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::error::CliError;

/// A terminal's line is not longer.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// What ends a program at a prompt.
const ENDS: [Signal; 4] = [Signal::INT, Signal::TERM, Signal::HUP, Signal::QUIT];

/// Whether somebody can be asked.
pub(crate) fn can_ask() -> bool {
    io::stdin().is_terminal()
}

/// Asks, and takes one line.
pub(crate) fn ask(question: &str) -> Result<String, CliError> {
    say(question)?;
    match read_line(None)? {
        Answer::Line(line) => Ok(line),
        Answer::Signal(_) => Ok(String::new()),
    }
}

/// Asks for something that is not shown while it is typed. The terminal shows again what is typed when this returns, and
/// also when a signal ends the program.
pub(crate) fn ask_secretly(question: &str) -> Result<String, CliError> {
    let shown = tcgetattr(io::stdin()).map_err(io::Error::from)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    // The end of the line is shown: the next output begins on a new one.
    hidden.local_modes.insert(LocalModes::ECHONL);
    // Signals first: one that came between would leave the terminal mute.
    let signals = SignalReader::new(&ENDS.map(Signal::as_raw))?;
    let answer = say(question).and_then(|()| set(&hidden)).and_then(|()| read_line(Some(&signals)));
    let restored = set(&shown);
    if let Ok(Answer::Signal(signal)) = answer {
        let signal = ENDS.into_iter().find(|known| known.as_raw() == signal);
        let _ = writeln!(io::stdout());
        // Blocked until now, it ends the program with the status that the shell expects.
        let _ = rustix::process::kill_process(rustix::process::getpid(), signal.unwrap_or(Signal::TERM));
    }
    signals.unblock();
    restored?;
    match answer? {
        Answer::Line(line) => Ok(line),
        Answer::Signal(_) => Err(CliError::new("interrupted")),
    }
}

/// What came.
enum Answer {
    Line(String),
    Signal(i32),
}

fn say(question: &str) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(question.as_bytes())?;
    Ok(stdout.flush()?)
}

fn set(modes: &Termios) -> Result<(), CliError> {
    // What was typed before the question is no answer to it, and was shown.
    Ok(tcsetattr(io::stdin(), OptionalActions::Flush, modes).map_err(io::Error::from)?)
}

/// One line without its end. Not through a buffer: what follows the line is another question's.
fn read_line(signals: Option<&SignalReader>) -> Result<Answer, CliError> {
    let (stdin, mut line) = (io::stdin(), Vec::new());
    loop {
        if let Some(signals) = signals {
            let mut fds = [PollFd::new(&stdin, PollFlags::IN), PollFd::new(signals, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if let Some(signal) = signals.next() {
                return Ok(Answer::Signal(signal));
            }
            if fds.first().is_none_or(|fd| fd.revents().is_empty()) {
                continue;
            }
        }
        let mut byte = [0];
        match rustix::io::read(&stdin, &mut byte) {
            Ok(0) => break,
            Ok(_) if byte == *b"\n" => break,
            Ok(_) => line.extend(byte),
            Err(Errno::INTR) => {}
            Err(error) => return Err(io::Error::from(error).into()),
        }
        if line.len() > ANSWER_BYTES_MAX {
            return Err(CliError::new(format!("an answer of more than {ANSWER_BYTES_MAX} bytes")));
        }
    }
    let line = String::from_utf8(line).map_err(|_| CliError::new("the answer is not UTF-8 text"))?;
    Ok(Answer::Line(line.trim_end_matches('\r').to_owned()))
}
