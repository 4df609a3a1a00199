//! How layers fare while an image is pulled or pushed: bars on a terminal, a line a change elsewhere.

use std::io::{self, IsTerminal, Write};
use std::sync::Mutex;

use mica_image::TransferEvent;

use super::printable;
use super::transfer_bars::Bars;
use super::transfer_lines::Lines;

/// Where progress is written: docker's `pull` and `push` write it to stdout, its `run` to stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stream {
    Out,
    Err,
    /// Nowhere; warnings go to stderr all the same.
    Quiet,
}

impl Stream {
    /// Writes text. Nobody may be reading it any more, which is no reason to end a transfer.
    pub fn write(self, text: &str) {
        let _ = match self {
            Self::Out => {
                let mut out = io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush())
            }
            Self::Err => io::stderr().lock().write_all(text.as_bytes()),
            Self::Quiet => Ok(()),
        };
    }

    /// Writes a line.
    pub fn line(self, text: &str) {
        self.write(&format!("{text}\n"));
    }

    /// Columns and lines, if it is a terminal.
    pub fn size(self) -> Option<(usize, usize)> {
        let size = match self {
            Self::Out if io::stdout().is_terminal() => rustix::termios::tcgetwinsize(io::stdout()),
            Self::Err if io::stderr().is_terminal() => rustix::termios::tcgetwinsize(io::stderr()),
            _ => return None,
        };
        Some(match size {
            Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
            _ => (80, 24),
        })
    }
}

/// The layers of one image on their way; may be told from several threads. Dropping it draws the last picture and ends
/// its thread.
pub(crate) struct Transfer {
    stream: Stream,
    show: Show,
}

enum Show {
    Lines(Mutex<Lines>),
    Bars(Bars),
    Nothing,
}

impl Transfer {
    /// Chooses by what the stream is. Nothing is written and no thread begins before the first layer.
    pub fn start(stream: Stream) -> Self {
        let show = match (stream, stream.size()) {
            (Stream::Quiet, _) => Show::Nothing,
            (_, Some(_)) => Show::Bars(Bars::new(stream)),
            (_, None) => Show::Lines(Mutex::default()),
        };
        Self { stream, show }
    }

    /// Shows an event.
    pub fn tell(&self, event: TransferEvent) {
        match (&self.show, event) {
            (Show::Bars(bars), event) => bars.tell(event),
            (_, TransferEvent::Warning(message)) => Stream::Err.write(&warning(&message)),
            (Show::Lines(lines), event) => {
                // Written under the lock, so that the lines of a layer stand in their order.
                let mut lines = lines.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                self.stream.write(&lines.text(event));
            }
            (Show::Nothing, _) => {}
        }
    }
}

/// A warning as a line.
pub(super) fn warning(message: &str) -> String {
    format!("warning: {}\n", printable(message))
}
