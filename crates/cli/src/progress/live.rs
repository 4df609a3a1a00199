//! Live progress on a terminal: a line a step, the last output of those that run.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mica_build::Event;

use super::plain::seconds;
use super::printable;

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
    output: VecDeque<String>,
}

struct Screen {
    started: Instant,
    rows: Vec<Row>,
    /// Rows before the steps: what was loaded.
    notes: Vec<String>,
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
        let (rows, notes, ends) = (Vec::new(), Vec::new(), Vec::new());
        let screen = Screen { started: Instant::now(), rows, notes, ends, drawn: 0, over: false };
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
                let row = |name| Row { name, state: State::Waiting, output: VecDeque::new() };
                screen.rows = names.into_iter().map(row).collect();
            }
            Event::StepCached { step } => set(step, State::Cached),
            Event::StepStarted { step } => set(step, State::Running(Instant::now())),
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
            Event::Dockerfile { name, .. } => {
                screen.notes.push(format!("[internal] load build definition from {name}"))
            }
            Event::Base { name } => screen.notes.push(format!("[internal] load metadata for {name}")),
            Event::Context { entries, .. } => {
                screen.notes.push(format!("[internal] load build context: {entries} entries"));
            }
            Event::Warning { message } => screen.notes.push(format!("warning: {message}")),
            Event::Exported { config, .. } => screen.ends.push(format!("exporting to image {config}")),
            Event::Named { name } => screen.ends.push(format!("naming to {name}")),
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
    fn paint(&mut self, end: Option<bool>) {
        let (columns, lines_max) = size();
        let mut lines = Vec::new();
        let finished =
            self.rows.iter().filter(|row| matches!(row.state, State::Cached | State::Done(_))).count();
        let state = match end {
            Some(true) => " FINISHED",
            Some(false) => " FAILED",
            None => "",
        };
        lines.push(format!(
            "[+] Building {} ({finished}/{}){state}",
            seconds(self.started.elapsed()),
            self.rows.len()
        ));
        lines.extend(self.notes.iter().map(|note| format!(" => {}", printable(note))));
        for row in &self.rows {
            let (mark, time) = match row.state {
                State::Waiting => continue,
                State::Running(since) => ("", seconds(since.elapsed())),
                State::Cached => ("CACHED ", "0.0s".to_owned()),
                State::Done(elapsed) => ("", seconds(elapsed)),
                State::Failed => ("ERROR ", String::new()),
                State::Cancelled => ("CANCELED ", String::new()),
            };
            let name: String = printable(&row.name);
            let room = columns.saturating_sub(time.len() + 2);
            let left: String = format!(" => {mark}{name}").chars().take(room).collect();
            lines.push(format!("{left:<room$}  {time}"));
            if let State::Running(_) = row.state {
                lines.extend(row.output.iter().map(|line| format!(" => => # {}", printable(line))));
            }
        }
        lines.extend(self.ends.iter().map(|end| format!(" => {}", printable(end))));
        // What does not fit cannot be drawn over: while it runs the end of the picture is shown.
        if end.is_none() && lines.len() >= lines_max {
            lines.drain(1..=lines.len() - lines_max.max(2) + 1);
        }
        let mut text = String::new();
        if self.drawn > 0 {
            let _ = write!(text, "\x1b[{}A", self.drawn);
        }
        text.push_str("\r\x1b[J");
        for line in &lines {
            text.extend(line.chars().take(columns));
            text.push('\n');
        }
        self.drawn = lines.len();
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    }
}

/// Columns and lines of the terminal.
fn size() -> (usize, usize) {
    match rustix::termios::tcgetwinsize(std::io::stderr()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => (size.ws_col.into(), size.ws_row.into()),
        _ => (80, 24),
    }
}
