//! How builds and transfers show their progress: live on a terminal, as plain lines elsewhere.

mod base_pull;
mod live;
mod plain;
mod transfer;
mod transfer_bars;
mod transfer_lines;

use std::io::IsTerminal;
use std::sync::Mutex;

use clap::ValueEnum;
use mica_build::Event;

pub(crate) use plain::seconds;
pub(crate) use transfer::{Stream, Transfer};

/// `--progress`
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Live on a terminal, plain elsewhere
    Auto,
    /// Lines, as they come
    Plain,
    /// Live
    Tty,
    /// Nothing but errors
    #[value(alias = "none")]
    Quiet,
}

/// Shows events as they come; may be told from several threads.
pub(crate) enum Progress {
    Plain(Mutex<plain::Plain>),
    Live(live::Live),
    Quiet,
}

impl Progress {
    /// Chooses by `kind` and by what standard error is.
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::Quiet => Self::Quiet,
            Kind::Tty => Self::Live(live::Live::start()),
            Kind::Auto if std::io::stderr().is_terminal() => Self::Live(live::Live::start()),
            Kind::Auto | Kind::Plain => Self::Plain(Mutex::default()),
        }
    }

    /// Shows an event.
    pub fn tell(&self, event: Event) {
        match self {
            Self::Plain(plain) => plain.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).tell(event),
            Self::Live(live) => live.tell(event),
            Self::Quiet => {}
        }
    }

    /// The build is over.
    pub fn finish(self, succeeded: bool) {
        if let Self::Live(live) = self {
            live.finish(succeeded);
        }
    }
}

/// Whether standard error takes colours.
pub(crate) fn is_color() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A line that a program wrote, safe to show on a terminal: control characters but tabs become visible.
pub(crate) fn printable(line: &str) -> String {
    line.chars()
        .map(|letter| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter })
        .collect()
}
