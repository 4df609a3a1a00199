//! Transfers on a terminal: a row a layer, drawn over in place.
//!
//! The cursor is never hidden, and rests below the picture between two of them: whatever ends the process leaves the
//! terminal as it should be.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use mica_image::{LayerState, TransferEvent};

use super::transfer::{Stream, warning};
use super::transfer_lines::{is_done, names, words};
use crate::format::size::human_sum;

/// Time between two pictures: fast enough to look alive.
const PERIOD: Duration = Duration::from_millis(100);
/// The widest bar: docker's.
const BAR_COLUMNS_MAX: usize = 51;
/// A shorter bar tells nothing that the numbers do not.
const BAR_COLUMNS_MIN: usize = 8;

/// Draws from a thread of its own, which begins with the first layer.
pub(super) struct Bars {
    shared: Arc<Shared>,
    painter: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    stream: Stream,
    screen: Mutex<Screen>,
    over: Condvar,
}

#[derive(Default)]
struct Screen {
    names: Vec<String>,
    /// In the order in which they were first told of.
    rows: Vec<Row>,
    /// Where a layer's row is.
    places: HashMap<usize, usize>,
    /// What is to be written above the rows.
    notes: String,
    /// Lengths of the rows of the last picture.
    drawn: Vec<usize>,
    is_changed: bool,
    is_over: bool,
}

struct Row {
    name: String,
    state: LayerState,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Screen> {
        self.screen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn paint(&self, screen: &mut Screen, is_end: bool) {
        let (columns, lines) = self.stream.size().unwrap_or((80, 24));
        self.stream.write(&screen.paint(columns, lines, is_end));
    }
}

impl Bars {
    pub fn new(stream: Stream) -> Self {
        let shared = Shared { stream, screen: Mutex::default(), over: Condvar::new() };
        Self { shared: Arc::new(shared), painter: Mutex::default() }
    }

    pub fn tell(&self, event: TransferEvent) {
        if let TransferEvent::Layers(_) = &event {
            self.begin();
        }
        let mut screen = self.shared.lock();
        screen.take(event);
        // Nobody draws before there are layers.
        if screen.names.is_empty() {
            self.shared.paint(&mut screen, false);
        }
    }

    fn begin(&self) {
        let mut painter = self.painter.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let shared = self.shared.clone();
        painter.get_or_insert_with(|| {
            std::thread::spawn(move || {
                let mut screen = shared.lock();
                while !screen.is_over {
                    if std::mem::take(&mut screen.is_changed) {
                        shared.paint(&mut screen, false);
                    }
                    let waited = shared.over.wait_timeout(screen, PERIOD);
                    screen = waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0;
                }
            })
        });
    }
}

impl Drop for Bars {
    fn drop(&mut self) {
        {
            let mut screen = self.shared.lock();
            screen.is_over = true;
            self.shared.paint(&mut screen, true);
        }
        self.shared.over.notify_all();
        let painter = self.painter.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
        // It cannot have panicked with anything that matters.
        let _ = painter.map(JoinHandle::join);
    }
}

impl Screen {
    fn take(&mut self, event: TransferEvent) {
        self.is_changed = true;
        match event {
            TransferEvent::Layers(digests) => self.names = names(&digests),
            TransferEvent::Layer { position, state } => {
                let Some(name) = self.names.get(position) else { return };
                let rows = &mut self.rows;
                let place = *self.places.entry(position).or_insert_with(|| {
                    rows.push(Row { name: name.clone(), state: state.clone() });
                    rows.len() - 1
                });
                if let Some(row) = rows.get_mut(place) {
                    row.state = state;
                }
            }
            TransferEvent::Warning(message) => self.notes.push_str(&warning(&message)),
        }
    }

    /// What draws the next picture over the last one.
    fn paint(&mut self, columns: usize, lines: usize, is_end: bool) -> String {
        let mut text = String::new();
        // A terminal that was made narrower has broken long rows into several.
        let above: usize = self.drawn.iter().map(|length| length.div_ceil(columns).max(1)).sum();
        if above > 0 {
            let _ = write!(text, "\x1b[{above}A\r");
        }
        let notes = std::mem::take(&mut self.notes);
        for note in notes.lines() {
            let _ = writeln!(text, "\x1b[2K{note}");
        }
        let room = if is_end { usize::MAX } else { lines.saturating_sub(1).max(1) };
        let picture = self.picture(columns, room);
        // Erased before it is written: behind a row that ends in the last column, the cursor still stands on its last letter.
        for row in &picture {
            let _ = writeln!(text, "\x1b[2K{row}");
        }
        if above > 0 {
            text.push_str("\x1b[J");
        }
        self.drawn = picture.iter().map(|row| row.chars().count()).collect();
        text
    }

    /// The rows, at most `room`. Where there are more, what is done gives way first, then what waits.
    fn picture(&self, columns: usize, room: usize) -> Vec<String> {
        let mut shown = vec![true; self.rows.len()];
        let mut excess = self.rows.len().saturating_sub(room);
        if excess == 0 {
            return self.rows.iter().map(|row| row.draw(columns)).collect();
        }
        // One line says what is not shown.
        excess += 1;
        let is_moving = |row: &Row| words(&row.state).1.is_some();
        let done =
            (0..self.rows.len()).filter(|at| self.rows.get(*at).is_some_and(|row| is_done(&row.state)));
        let waiting = (0..self.rows.len())
            .rev()
            .filter(|at| self.rows.get(*at).is_some_and(|row| !is_done(&row.state) && !is_moving(row)));
        for at in done.chain(waiting).chain((0..self.rows.len()).rev()) {
            match shown.get_mut(at) {
                Some(shown) if *shown && excess > 0 => {
                    *shown = false;
                    excess -= 1;
                }
                _ => {}
            }
        }
        let hidden = || self.rows.iter().zip(&shown).filter(|(_, shown)| !**shown);
        let done = hidden().filter(|(row, _)| is_done(&row.state)).count();
        let summary = format!("... and {} more layers, {done} of them done", hidden().count());
        let rows = self.rows.iter().zip(&shown).filter(|(_, shown)| **shown);
        let summary = cut(&summary, columns);
        std::iter::once(summary).chain(rows.map(|(row, _)| row.draw(columns))).collect()
    }
}

impl Row {
    /// `a3ed95caeb02: Downloading [=====>     ]  12.3MB/45.6MB`, no wider than the terminal.
    fn draw(&self, columns: usize) -> String {
        let (word, amount) = words(&self.state);
        let mut text = format!("{}: {word}", self.name);
        if let Some((done, all)) = amount.filter(|(done, all)| *done > 0 || *all > 0) {
            let numbers = match done <= all {
                true => format!("{:>8}/{}", human_sum(done), human_sum(all)),
                // A total that cannot be right is better left out.
                false => format!("{:>8}", human_sum(done)),
            };
            // The widest numbers, so that the bar keeps its width while they change.
            let room =
                columns.saturating_sub(text.chars().count() + " [] ".len() + "1023.5MB/1023.5MB".len());
            if room >= BAR_COLUMNS_MIN && done <= all && all > 0 {
                let _ = write!(text, " {} {numbers}", bar(done, all, room.min(BAR_COLUMNS_MAX)));
            } else if text.chars().count() + 1 + numbers.trim_start().chars().count() <= columns {
                let _ = write!(text, " {}", numbers.trim_start());
            } else if done <= all {
                // Numbers that are cut would be other numbers.
                let _ = write!(text, " {}%", u128::from(done) * 100 / u128::from(all));
            }
        }
        cut(&text, columns)
    }
}

fn bar(done: u64, all: u64, columns: usize) -> String {
    let length = columns.saturating_sub(1);
    let filled = u128::from(done) * length as u128 / u128::from(all.max(1));
    let filled = usize::try_from(filled).unwrap_or(length).min(length);
    format!("[{}>{}]", "=".repeat(filled), " ".repeat(length - filled))
}

fn cut(text: &str, columns: usize) -> String {
    text.chars().take(columns.max(1)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::Digest;

    fn row(state: LayerState) -> Row {
        Row { name: "a3ed95caeb02".to_owned(), state }
    }

    #[test]
    fn rows_fit_the_terminal() {
        let check = |state: LayerState, columns: usize, expect: &str| {
            assert_eq!(row(state).draw(columns), expect);
        };
        let some = || LayerState::Downloading(12_300_000, 45_600_000);
        check(
            some(),
            120,
            "a3ed95caeb02: Downloading [=============>                                     ]   12.3MB/45.6MB",
        );
        check(some(), 80, "a3ed95caeb02: Downloading [========>                         ]   12.3MB/45.6MB");
        check(some(), 60, "a3ed95caeb02: Downloading [===>          ]   12.3MB/45.6MB");
        check(some(), 50, "a3ed95caeb02: Downloading 12.3MB/45.6MB");
        check(some(), 30, "a3ed95caeb02: Downloading 26%");
        check(some(), 0, "a");
        check(LayerState::Extracting(5, 5), 60, "a3ed95caeb02: Extracting [==============>]       5B/5B");
        check(LayerState::Downloading(0, 0), 80, "a3ed95caeb02: Downloading");
        check(LayerState::Downloading(1000, 0), 80, "a3ed95caeb02: Downloading 1kB");
        check(
            LayerState::Pushing(u64::MAX, u64::MAX),
            60,
            "a3ed95caeb02: Pushing [=================>]  18.45EB/18.45EB",
        );
        check(LayerState::PullComplete, 80, "a3ed95caeb02: Pull complete");
    }

    fn screen(states: Vec<LayerState>) -> Screen {
        let mut screen = Screen::default();
        screen.take(TransferEvent::Layers((0..states.len()).map(|at| Digest::sha256(&[at as u8])).collect()));
        for (position, state) in states.into_iter().enumerate() {
            screen.take(TransferEvent::Layer { position, state });
        }
        screen
    }

    #[test]
    fn what_is_done_gives_way_first() {
        use LayerState::*;
        let states =
            || vec![PullComplete, Downloading(1, 2), AlreadyExists, Waiting, Waiting, Downloading(1, 2)];
        let check = |room: usize, expect: &[&str]| {
            let picture = screen(states()).picture(40, room);
            let found: Vec<_> = picture
                .iter()
                .map(|line| line.split_once(": ").map_or(line.as_str(), |(_, state)| state))
                .collect();
            assert_eq!(found, expect, "{room}");
        };
        let moving = "Downloading 1B/2B";
        check(9, &["Pull complete", moving, "Already exists", "Waiting", "Waiting", moving]);
        check(6, &["Pull complete", moving, "Already exists", "Waiting", "Waiting", moving]);
        check(5, &["... and 2 more layers, 2 of them done", moving, "Waiting", "Waiting", moving]);
        check(3, &["... and 4 more layers, 2 of them done", moving, moving]);
        check(1, &["... and 6 more layers, 2 of them done"]);
    }

    #[test]
    fn pictures_are_drawn_over_the_last() {
        let mut screen = screen(vec![LayerState::Waiting, LayerState::Waiting]);
        let rows: Vec<String> = screen.rows.iter().map(|row| row.draw(80)).collect();
        let [first, second] = &rows[..] else { panic!("{rows:?}") };
        let body = format!("\x1b[2K{first}\n\x1b[2K{second}\n");
        assert_eq!(screen.paint(80, 24, false), body);
        assert_eq!(screen.paint(80, 24, false), format!("\x1b[2A\r{body}\x1b[J"));
        // A warning stays above.
        screen.take(TransferEvent::Warning("m\x1b".to_owned()));
        let note = "\x1b[2Kwarning: m\u{fffd}\n";
        assert_eq!(screen.paint(80, 24, false), format!("\x1b[2A\r{note}{body}\x1b[J"));
        // Rows of 21 characters take three lines of a terminal that is ten wide now.
        assert!(screen.paint(10, 24, false).starts_with("\x1b[6A\r"));
    }

    #[test]
    fn rows_stand_in_the_order_in_which_they_are_told_of() {
        let mut screen = Screen::default();
        screen.take(TransferEvent::Layers((0..3).map(|at| Digest::sha256(&[at])).collect()));
        for position in [2, 0, 1, 0] {
            screen.take(TransferEvent::Layer { position, state: LayerState::Preparing });
        }
        let names: Vec<_> = screen.rows.iter().map(|row| row.name.clone()).collect();
        assert_eq!(names, [2_u8, 0, 1].map(|at| Digest::sha256(&[at]).short().to_owned()));
        screen.take(TransferEvent::Layer { position: 3, state: LayerState::Preparing });
        assert_eq!(screen.rows.len(), 3);
    }
}
