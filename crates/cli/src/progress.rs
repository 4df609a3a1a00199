//! How builds and transfers show their progress: live on a terminal, as plain lines elsewhere.

mod base_pull;
mod live;
mod plain;
mod raw;
mod transfer;
mod transfer_bars;
mod transfer_lines;

use std::io::IsTerminal;
use std::sync::Mutex;

use clap::ValueEnum;
use mica_build::Event;

pub(crate) use plain::seconds;
pub(crate) use raw::warn as warn_raw;
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
    None,
    /// As `--quiet`: nothing but errors and the image ID
    Quiet,
    /// One JSON object a line, as BuildKit's clients read them
    Rawjson,
}

/// Shows events as they come; may be told from several threads.
pub(crate) enum Progress {
    Plain(Mutex<plain::Plain>),
    Live(live::Live),
    Raw(Mutex<raw::Raw>),
    Quiet,
}

impl Progress {
    /// Chooses by `kind` and by what standard error is.
    pub fn start(kind: Kind) -> Self {
        match kind {
            Kind::None | Kind::Quiet => Self::Quiet,
            Kind::Rawjson => Self::Raw(Mutex::default()),
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
            Self::Raw(raw) => raw.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).tell(event),
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

/// A name or a message, safe to show on a terminal: control characters but tabs become visible. Nothing is left out, so that no
/// path looks like another.
pub(crate) fn printable(text: &str) -> String {
    let shown = |letter: char| if letter.is_control() && letter != '\t' { '\u{fffd}' } else { letter };
    text.chars().map(shown).collect()
}

/// As [`printable`], a line that a program wrote.
///
/// Colours and other sequences of a terminal (ECMA-48, section 5.4, and strings that end with BEL or ST) are left out as a whole:
/// without their first letter they are noise.
pub(crate) fn printable_output(line: &str) -> String {
    let mut shown = String::with_capacity(line.len());
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('\u{1b}', Some('[')) => {
                letters.next();
                let is_inside = |letter: &char| matches!(letter, '\u{20}'..='\u{3f}');
                while letters.next_if(is_inside).is_some() {}
                letters.next_if(|letter| matches!(letter, '\u{40}'..='\u{7e}'));
            }
            ('\u{1b}', Some(']')) => {
                while let Some(inside) = letters.next() {
                    let is_end = inside == '\u{1b}' && letters.next_if_eq(&'\\').is_some();
                    if is_end || inside == '\u{7}' {
                        break;
                    }
                }
            }
            ('\t', _) => shown.push(letter),
            _ if letter.is_control() => shown.push('\u{fffd}'),
            _ => shown.push(letter),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        let check = |line: &str, expect: &str| assert_eq!(printable_output(line), expect, "{line:?}");
        check("plain\ttext é", "plain\ttext é");
        check("\u{1b}[31mred\u{1b}[0m", "red");
        check("\u{1b}[1;38;5;200mx\u{1b}[K\u{1b}[?25l", "x");
        check("\u{1b}]0;title\u{7}x\u{1b}]8;;http://a\u{1b}\\y", "xy");
        // What is not whole.
        check("\u{1b}[", "");
        check("\u{1b}]0;no end", "");
        check("\u{1b}", "\u{fffd}");
        check("\u{1b}cx\u{8}\r", "\u{fffd}cx\u{fffd}\u{fffd}");
        // A name stays another than the one without.
        assert_eq!(printable("a\u{1b}[2Jb\tc"), "a\u{fffd}[2Jb\tc");
    }
}
