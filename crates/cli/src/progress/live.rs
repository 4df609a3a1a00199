//! Live progress on a terminal: a line a step, the last output of those that run.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mica_build::{Event, Reason};
use mica_image::TransferEvent;

use super::base_pull::BasePull;
use super::plain::seconds;
use super::{is_color, printable, printable_output};
use crate::format::verdict;

/// Time between two pictures: fast enough to look alive.
const PERIOD: Duration = Duration::from_millis(100);
/// Output lines shown of a running step.
const OUTPUT_LINES: usize = 5;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Waiting,
    Running(Instant),
    Cached,
    Done(Duration),
    Failed,
    Cancelled,
}

struct Row {
    name: String,
    state: State,
    /// Why it runs, or why it did not have to.
    note: Option<String>,
    output: VecDeque<String>,
}

/// A line of the picture, and which of its characters are dim.
#[derive(Default)]
struct Line {
    text: String,
    dim: Range<usize>,
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self { text, dim: 0..0 }
    }
}

impl Line {
    /// All of it is dim.
    fn aside(text: String) -> Self {
        let dim = 0..text.chars().count();
        Self { text, dim }
    }

    /// Cut to the width of the terminal.
    fn draw(&self, columns: usize, color: bool) -> String {
        let mut text = String::new();
        let mut is_dim = false;
        for (position, letter) in self.text.chars().take(columns).enumerate() {
            if color && self.dim.contains(&position) != is_dim {
                is_dim = !is_dim;
                text.push_str(if is_dim { "\x1b[2m" } else { "\x1b[22m" });
            }
            text.push(letter);
        }
        if is_dim {
            text.push_str("\x1b[22m");
        }
        text
    }
}

struct Screen {
    started: Instant,
    rows: Vec<Row>,
    /// Rows before the steps: what was loaded.
    notes: Vec<String>,
    /// Base images on their way.
    pulls: Vec<BasePull>,
    /// Rows after the steps: what became of the image.
    ends: Vec<String>,
    /// Lines of the last picture that may be drawn over.
    drawn: usize,
    over: bool,
}

/// Draws at a steady pace from a thread of its own.
pub(crate) struct Live {
    shared: Arc<(Mutex<Screen>, Condvar)>,
    painter: JoinHandle<()>,
}

fn lock(screen: &Mutex<Screen>) -> std::sync::MutexGuard<'_, Screen> {
    screen.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Live {
    /// Begins to draw.
    pub fn start() -> Self {
        let (rows, notes, pulls, ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let screen = Screen { started: Instant::now(), rows, notes, pulls, ends, drawn: 0, over: false };
        let shared = Arc::new((Mutex::new(screen), Condvar::new()));
        let theirs = shared.clone();
        let painter = std::thread::spawn(move || {
            let (screen, changed) = &*theirs;
            let mut screen = lock(screen);
            while !screen.over {
                screen.paint(None);
                screen =
                    changed.wait_timeout(screen, PERIOD).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
            }
        });
        Self { shared, painter }
    }

    /// Takes an event into the next picture.
    pub fn tell(&self, event: Event) {
        let mut screen = lock(&self.shared.0);
        let screen = &mut *screen;
        let mut set = |step: usize, state: State| {
            if let Some(row) = screen.rows.get_mut(step) {
                row.state = state;
            }
        };
        match event {
            Event::Planned { names } => {
                let row = |name| Row { name, state: State::Waiting, note: None, output: VecDeque::new() };
                screen.rows = names.into_iter().map(row).collect();
            }
            Event::StepCached { step, verdict } => {
                set(step, State::Cached);
                let note = verdict::cached(&verdict).split_once(' ').map(|(_, note)| note.to_owned());
                screen.note(step, note);
            }
            Event::StepStarted { step, reason } => {
                set(step, State::Running(Instant::now()));
                // Whoever asked for it need not be told of every step.
                let note = verdict::again(&reason).filter(|_| reason != Reason::NoCache);
                screen.note(step, note);
            }
            Event::StepFinished { step, elapsed } => set(step, State::Done(elapsed)),
            Event::StepFailed { step, .. } => set(step, State::Failed),
            Event::StepCancelled { step } => set(step, State::Cancelled),
            Event::StepOutput { step, line, .. } => {
                if let Some(row) = screen.rows.get_mut(step) {
                    if row.output.len() == OUTPUT_LINES {
                        row.output.pop_front();
                    }
                    row.output.push_back(line);
                }
            }
            Event::Graph { .. } | Event::StepResult { .. } => {}
            Event::Dockerfile { name, .. } => {
                screen.notes.push(format!("[internal] load build definition from {name}"))
            }
            Event::Base { name } => screen.notes.push(format!("[internal] load metadata for {name}")),
            Event::BaseFetch { name } => screen.pulls.push(BasePull::new(name)),
            Event::BaseTransfer { name, event } => {
                if let TransferEvent::Warning(message) = &event {
                    screen.notes.push(format!("warning: {message}"));
                }
                if let Some(pull) = screen.pulls.iter_mut().find(|pull| pull.name == name) {
                    pull.take(event);
                }
            }
            Event::BaseFailed { name, .. } => {
                screen.pulls.retain(|pull| pull.name != name);
                screen.notes.push(format!("ERROR [internal] load metadata for {name}"));
            }
            Event::BaseFetched { name, elapsed, .. } => {
                let mut layers = 0;
                if let Some(at) = screen.pulls.iter().position(|pull| pull.name == name) {
                    layers = screen.pulls.remove(at).count().1;
                }
                screen.notes.push(match layers {
                    0 => format!("[internal] load metadata for {name}"),
                    _ => format!("FROM {name}: {layers} layers in {}", seconds(elapsed)),
                });
            }
            Event::Context { entries, .. } => {
                screen.notes.push(format!("[internal] load build context: {entries} entries"));
            }
            Event::Warning { message } => screen.notes.push(format!("warning: {message}")),
            Event::Exported { config, names, .. } => {
                screen.ends.push(format!("exporting to image {config}"));
                screen.ends.extend(names.iter().map(|name| format!("naming to {name}")));
            }
            Event::ExportStarted { name } => screen.ends.push(name),
            Event::ExportStep { what, .. } => screen.ends.push(format!("=> {what}")),
            Event::ExportFinished { .. } => {}
            Event::ExportFailed { message } => screen.ends.push(format!("ERROR {message}")),
            Event::ExportedIndex { index, names, .. } => {
                screen.ends.push(format!("exporting manifest list {index}"));
                screen.ends.extend(names.iter().map(|name| format!("naming to {name}")));
            }
        }
    }

    /// Draws the last picture.
    pub fn finish(self, succeeded: bool) {
        {
            let mut screen = lock(&self.shared.0);
            screen.over = true;
            screen.paint(Some(succeeded));
        }
        self.shared.1.notify_all();
        let _ = self.painter.join();
    }
}

impl Screen {
    fn note(&mut self, step: usize, note: Option<String>) {
        if let Some(row) = self.rows.get_mut(step) {
            row.note = note;
        }
    }

    fn paint(&mut self, end: Option<bool>) {
        let (columns, lines_max) = size();
        let lines = self.picture(columns, lines_max, end);
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        text.push_str("\r\x1b[J");
        let color = is_color();
        for line in &lines {
            text.push_str(&line.draw(columns, color));
            text.push('\n');
        }
        self.drawn = lines.len();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }

    fn picture(&self, columns: usize, lines_max: usize, end: Option<bool>) -> Vec<Line> {
        let mut lines: Vec<Line> = Vec::new();
        let finished =
            self.rows.iter().filter(|row| matches!(row.state, State::Cached | State::Done(_))).count();
        let state = match end {
            Some(true) => " FINISHED",
            Some(false) => " FAILED",
            None => "",
        };
        let elapsed = seconds(self.started.elapsed());
        lines.push(format!("[+] Building {elapsed} ({finished}/{}){state}", self.rows.len()).into());
        lines.extend(self.notes.iter().map(|note| format!(" => {}", printable(note)).into()));
        for pull in &self.pulls {
            draw_pull(pull, columns, &mut lines);
        }
        for row in &self.rows {
            row.draw(columns, &mut lines);
        }
        lines.extend(self.ends.iter().map(|end| format!(" => {}", printable(end)).into()));
        // What does not fit cannot be drawn over: while it runs the end of the picture is shown.
        if end.is_none() && lines.len() >= lines_max {
            lines.drain(1..=lines.len() - lines_max.max(2) + 1);
        }
        lines
    }
}

/// A base image on its way, and those of its layers that move.
fn draw_pull(pull: &BasePull, columns: usize, lines: &mut Vec<Line>) {
    let text = match pull.count() {
        (_, 0) => format!(" => [internal] load metadata for {}", pull.name),
        (done, all) => format!(" => FROM {} ({done}/{all} layers)", pull.name),
    };
    lines.push(timed(&printable(&text), pull.elapsed(), columns).into());
    for (text, elapsed) in pull.rows() {
        lines.push(timed(&format!(" => => {}", short_digest(&text)), elapsed, columns).into());
    }
}

/// A digest as short as tables have it: beside it stands what matters.
fn short_digest(text: &str) -> String {
    let is_hex = |word: &str| word.len() > 12 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let short = |word: &str| match word.split_once(':') {
        Some((algorithm, hex)) if is_hex(hex) => format!("{algorithm}:{}", hex.get(..12).unwrap_or(hex)),
        _ => word.to_owned(),
    };
    text.split(' ').map(short).collect::<Vec<_>>().join(" ")
}

/// A text with its time at the right.
fn timed(text: &str, elapsed: Duration, columns: usize) -> String {
    let time = seconds(elapsed);
    let room = columns.saturating_sub(time.len() + 2);
    let left: String = text.chars().take(room).collect();
    format!("{left:<room$}  {time}")
}

impl Row {
    fn draw(&self, columns: usize, lines: &mut Vec<Line>) {
        let (mark, time) = match self.state {
            State::Waiting => return,
            State::Running(since) => ("", seconds(since.elapsed())),
            State::Cached => ("CACHED ", "0.0s".to_owned()),
            State::Done(elapsed) => ("", seconds(elapsed)),
            State::Failed => ("ERROR ", String::new()),
            State::Cancelled => ("CANCELED ", String::new()),
        };
        let mut text = format!(" => {mark}");
        let mut dim = 0..0;
        // Beside the mark of a known result, and below the name of a step that runs, where output is cut first.
        if let (State::Cached, Some(note)) = (self.state, &self.note) {
            dim = text.chars().count()..text.chars().count() + note.chars().count();
            text.push_str(note);
            text.push(' ');
        }
        text.push_str(&printable(&self.name));
        let room = columns.saturating_sub(time.len() + 2);
        let left: String = text.chars().take(room).collect();
        lines.push(Line { text: format!("{left:<room$}  {time}"), dim });
        if let (true, Some(note)) = (self.state != State::Cached, &self.note) {
            lines.push(Line::aside(format!(" => => {note}")));
        }
        if let State::Running(_) = self.state {
            lines
                .extend(self.output.iter().map(|line| format!(" => => # {}", printable_output(line)).into()));
        }
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_images() {
        use mica_image::LayerState;
        let digest = mica_oci::Digest::sha256(b"x");
        let mut pull = BasePull::new("r/a:1".to_owned());
        let check = |pull: &BasePull, expect: &[&str]| {
            let mut lines = Vec::new();
            draw_pull(pull, 50, &mut lines);
            assert_eq!(lines.iter().map(|line| line.draw(50, false)).collect::<Vec<_>>(), expect);
        };
        check(&pull, &[" => [internal] load metadata for r/a:1        0.0s"]);
        pull.take(TransferEvent::Layers(vec![digest.clone()]));
        pull.take(TransferEvent::Layer { position: 0, state: LayerState::Downloading(1_000_000, 2_000_000) });
        let row = format!(" => => {} 1.00MB / 2.00MB    0.0s", &digest.as_str()[..19]);
        check(&pull, &[" => FROM r/a:1 (0/1 layers)                   0.0s", &row]);
    }

    #[test]
    fn rows() {
        let check = |state: State, note: Option<&str>, color: bool, expect: &str| {
            let note = note.map(str::to_owned);
            let row = Row { name: "[2/3] RUN make".to_owned(), state, note, output: VecDeque::new() };
            let mut lines = Vec::new();
            row.draw(30, &mut lines);
            let drawn: Vec<String> = lines.iter().map(|line| line.draw(30, color)).collect();
            assert_eq!(drawn.join("\n"), expect);
        };
        let done = State::Done(Duration::from_secs(1));
        check(State::Waiting, None, true, "");
        check(State::Cached, None, true, " => CACHED [2/3] RUN mak  0.0s");
        check(State::Cached, Some("(why)"), true, " => CACHED \x1b[2m(why)\x1b[22m [2/3] R  0.0s");
        check(State::Cached, Some("(why)"), false, " => CACHED (why) [2/3] R  0.0s");
        check(done, None, true, " => [2/3] RUN make        1.0s");
        let again = Some("again: /application/is/long changed");
        let (first, second) = (" => [2/3] RUN make        1.0s\n", " => => again: /application/is/");
        check(done, again, false, &format!("{first}{second}"));
        check(done, again, true, &format!("{first}\x1b[2m{second}\x1b[22m"));
    }
}
