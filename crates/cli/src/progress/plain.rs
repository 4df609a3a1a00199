//! Plain progress, line by line, as BuildKit's `--progress=plain` writes it.

use std::collections::HashMap;
use std::time::Duration;

use mica_build::Event;

use super::printable;

/// Numbers steps as they appear, and says when the lines of another one begin.
#[derive(Default)]
pub(crate) struct Plain {
    names: Vec<String>,
    numbers: HashMap<usize, usize>,
    count: usize,
    /// The step whose lines are being written.
    current: Option<usize>,
}

impl Plain {
    pub fn tell(&mut self, event: Event) {
        match event {
            Event::Dockerfile { name, size_bytes } => {
                let number =
                    self.internal(&format!("[internal] load build definition from {}", printable(&name)));
                eprintln!("#{number} transferring dockerfile: {size_bytes}B done\n#{number} DONE 0.0s\n");
            }
            Event::Warning { message } => {
                self.count += 1;
                eprintln!("#{} WARN: {}\n", self.count, printable(&message));
            }
            Event::Base { name } => {
                let number = self.internal(&format!("[internal] load metadata for {name}"));
                eprintln!("#{number} DONE 0.0s\n");
            }
            Event::Context { entries, elapsed } => {
                let number = self.internal("[internal] load build context");
                eprintln!("#{number} looked at {entries} entries\n#{number} DONE {}\n", seconds(elapsed));
            }
            Event::Planned { names } => self.names = names,
            Event::StepCached { step } => {
                let number = self.number(step);
                eprintln!("#{number} CACHED\n");
                self.current = None;
            }
            Event::StepStarted { step } => {
                self.number(step);
            }
            Event::StepOutput { step, elapsed, line } => {
                let number = self.number(step);
                eprintln!("#{number} {:.3} {}", elapsed.as_secs_f64(), printable(&line));
            }
            Event::StepFinished { step, elapsed } => {
                let number = self.number(step);
                eprintln!("#{number} DONE {}\n", seconds(elapsed));
                self.current = None;
            }
            Event::StepFailed { step, message } => {
                let number = self.number(step);
                eprintln!("#{number} ERROR: {}", printable(&message));
                self.current = None;
            }
            Event::StepCancelled { step } => {
                let number = self.number(step);
                eprintln!("#{number} CANCELED");
                self.current = None;
            }
            Event::Exported { manifest, config, elapsed } => {
                let number = self.internal("exporting to image");
                self.current = Some(usize::MAX);
                eprintln!(
                    "#{number} exporting manifest {manifest} done\n#{number} exporting config {config} done"
                );
                eprintln!("#{number} DONE {}", seconds(elapsed));
            }
            Event::Named { name } => eprintln!("#{} naming to {name} done", self.count),
        }
    }

    fn internal(&mut self, name: &str) -> usize {
        self.count += 1;
        self.current = None;
        eprintln!("#{} {name}", self.count);
        self.count
    }

    /// The step's number; its name is written when it appears, and again when its lines go on after another's.
    fn number(&mut self, step: usize) -> usize {
        let known = self.numbers.get(&step).copied();
        let number = known.unwrap_or_else(|| {
            self.count += 1;
            self.numbers.insert(step, self.count);
            self.count
        });
        if self.current != Some(step) {
            if let Some(other) = self.current.and_then(|other| self.numbers.get(&other)) {
                eprintln!("#{other} ...\n");
            }
            eprintln!("#{number} {}", self.names.get(step).map(|name| printable(name)).unwrap_or_default());
            self.current = Some(step);
        }
        number
    }
}

/// `1.2s`
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}
