//! `--timings`: what a build tells while it runs, kept with the time at which it was told, and written as a page at its end.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use mica_build::{BuildError, Event, PlannedStep, StepInput, Verdict};
use mica_image::{LayerState, TransferEvent};
use mica_sys::atomic_file::{self, Durability};

use crate::error::CliError;
use crate::format::timings::{Bar, Page, State, page};
use crate::format::verdict::sentence;

use super::args::Args;

/// The rows of what is no step stand under these.
const BEFORE: &str = "before the steps";
const AFTER: &str = "after the steps";

/// Takes events of a build, from several threads, and writes the page.
pub(super) struct Timings {
    path: PathBuf,
    timeline: Mutex<Timeline>,
}

impl Timings {
    /// What the flag asks for. A page that cannot be written is told before anything is built.
    pub fn of(args: &Args) -> Result<Option<Self>, CliError> {
        let Some(path) = &args.timings else { return Ok(None) };
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let wrong = match parent {
            _ if path.is_dir() => Some("it is a directory".to_owned()),
            Some(parent) if !parent.is_dir() => Some(format!("`{}` is no directory", parent.display())),
            _ => None,
        };
        if let Some(wrong) = wrong {
            return Err(CliError::new(format!("cannot write `{}`: {wrong}", path.display())));
        }
        let begun = jiff::Timestamp::now().strftime("%F %T UTC").to_string();
        let timeline = Timeline::new(Instant::now(), begun, args.tag.join(", "));
        Ok(Some(Self { path: path.clone(), timeline: Mutex::new(timeline) }))
    }

    /// Something happened.
    pub fn take(&self, event: &Event) {
        self.lock().take(event, Instant::now());
    }

    /// The build failed.
    pub fn failed(&self, error: &BuildError) {
        self.lock().error = Some(error.to_string());
    }

    /// Writes the page, whatever became of the build. Where the build failed, that is the error that counts.
    pub fn write(self) -> Result<(), CliError> {
        let timeline = self.timeline.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        let has_failed = timeline.error.is_some();
        let text = page(&timeline.into_page(Instant::now()));
        match atomic_file::write(&self.path, text.as_bytes(), 0o644, Durability::Kill) {
            Ok(()) => Ok(()),
            Err(wrong) if !has_failed => Err(CliError::new(wrong)),
            Err(wrong) => {
                eprintln!("warning: the page of `--timings` was not written: {wrong}");
                Ok(())
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Timeline> {
        self.timeline.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// What is known so far. Times are measured from the start.
struct Timeline {
    started: Instant,
    begun: String,
    tags: String,
    dockerfile: String,
    /// Base images by name, with the bytes of each layer that came.
    bases: Vec<(Bar, BTreeMap<usize, u64>)>,
    context: Option<Bar>,
    steps: Vec<Bar>,
    planned: Vec<PlannedStep>,
    ends: Vec<Bar>,
    error: Option<String>,
}

impl Timeline {
    fn new(started: Instant, begun: String, tags: String) -> Self {
        let (bases, steps, planned, ends) = Default::default();
        let (dockerfile, context, error) = Default::default();
        Self { started, begun, tags, dockerfile, bases, context, steps, planned, ends, error }
    }

    fn ms(&self, at: Instant) -> u64 {
        millis(at.saturating_duration_since(self.started))
    }

    fn take(&mut self, event: &Event, now: Instant) {
        let now_ms = self.ms(now);
        let before = |elapsed: &Duration| now_ms.saturating_sub(millis(*elapsed));
        match event {
            Event::Dockerfile { name, .. } => self.dockerfile = name.clone(),
            Event::Base { name } => {
                let bar =
                    Bar { why: "the store has it".to_owned(), state: State::Cached, ..base(name, now_ms) };
                self.bases.push((bar, BTreeMap::new()));
            }
            Event::BaseFetch { name } => {
                let bar = Bar { why: "fetched from its registry".to_owned(), ..base(name, now_ms) };
                self.bases.push((Bar { state: State::Running, ..bar }, BTreeMap::new()));
            }
            Event::BaseTransfer { name, event } => {
                if let TransferEvent::Layer { position, state: LayerState::Downloading(done, _) } = event
                    && let Some((_, layers)) = self.base(name)
                {
                    let most = layers.entry(*position).or_default();
                    *most = (*most).max(*done);
                }
            }
            Event::BaseFetched { name, .. } => self.end_base(name, State::Ran, now_ms),
            Event::BaseFailed { name, message } => {
                self.end_base(name, State::Failed, now_ms);
                if let Some((bar, _)) = self.base(name) {
                    bar.why = message.clone();
                }
            }
            Event::Context { entries, elapsed } => {
                let bar = Bar::new(BEFORE, "looking at the build context");
                let why = format!("{entries} entries");
                let (start_ms, end_ms) = (before(elapsed), now_ms);
                self.context = Some(Bar { start_ms, end_ms, why, state: State::Ran, ..bar });
            }
            // A build that found a damaged layer begins again.
            Event::Planned { names } => {
                self.steps = names.iter().map(|name| Bar::new("", name)).collect();
                self.planned.clear();
            }
            Event::Graph { steps } => {
                for (bar, planned) in self.steps.iter_mut().zip(steps) {
                    (bar.stage, bar.line) = (planned.stage.clone(), Some(planned.line));
                }
                self.planned = steps.clone();
            }
            Event::StepCached { step, verdict } => self.step(*step, |bar| {
                (bar.start_ms, bar.end_ms) = (now_ms, now_ms);
                (bar.state, bar.why) = (State::Cached, sentence(verdict));
            }),
            Event::StepStarted { step, reason } => self.step(*step, |bar| {
                (bar.start_ms, bar.end_ms, bar.state) = (now_ms, now_ms, State::Running);
                bar.why = sentence(&Verdict::Ran { reason: reason.clone() });
            }),
            Event::StepFinished { step, elapsed } => self.step(*step, |bar| {
                (bar.start_ms, bar.end_ms, bar.state) = (before(elapsed), now_ms, State::Ran);
            }),
            Event::StepFailed { step, message } => self.step(*step, |bar| {
                // A COPY may fail before it is said to begin.
                bar.start_ms = if bar.state == State::Running { bar.start_ms } else { now_ms };
                (bar.end_ms, bar.state) = (now_ms, State::Failed);
                bar.why = [bar.why.as_str(), message].join("; ").trim_start_matches("; ").to_owned();
            }),
            Event::StepCancelled { step } => self.step(*step, |bar| {
                bar.start_ms = if bar.state == State::Running { bar.start_ms } else { now_ms };
                (bar.end_ms, bar.state) = (now_ms, State::Cancelled);
            }),
            Event::StepResult { step, result } => self.step(*step, |bar| {
                bar.bytes_out = Some(result.layer_bytes);
                bar.bytes_in = result.copied_bytes;
                bar.saved_ms = result.earlier_s.map(|seconds| seconds.saturating_mul(1000));
            }),
            Event::Exported { elapsed, .. } | Event::ExportedIndex { elapsed, .. } => {
                let bar = Bar::new(AFTER, "storing the image");
                let (start_ms, end_ms) = (before(elapsed), now_ms);
                self.ends.push(Bar { start_ms, end_ms, state: State::Ran, ..bar });
            }
            Event::Warning { .. }
            | Event::StepOutput { .. }
            // Measured as a whole.
            | Event::ExportStep { .. } => {}
            Event::ExportStarted { name } => {
                let bar = Bar { start_ms: now_ms, end_ms: now_ms, ..Bar::new(AFTER, name) };
                self.ends.push(Bar { state: State::Running, ..bar });
            }
            Event::ExportFinished { .. } => self.end_export(State::Ran, "", now_ms),
            Event::ExportFailed { message } => self.end_export(State::Failed, message, now_ms),
        }
    }

    fn base(&mut self, name: &str) -> Option<&mut (Bar, BTreeMap<usize, u64>)> {
        self.bases.iter_mut().rev().find(|(bar, _)| bar.name == name)
    }

    fn end_base(&mut self, name: &str, state: State, now_ms: u64) {
        if let Some((bar, layers)) = self.base(name) {
            (bar.state, bar.end_ms) = (state, now_ms);
            bar.bytes_in = Some(layers.values().fold(0, |sum, bytes| sum.saturating_add(*bytes)));
        }
    }

    fn end_export(&mut self, state: State, why: &str, now_ms: u64) {
        if let Some(bar) = self.ends.iter_mut().rev().find(|bar| bar.state == State::Running) {
            (bar.state, bar.end_ms, bar.why) = (state, now_ms, why.to_owned());
        }
    }

    fn step(&mut self, step: usize, change: impl FnOnce(&mut Bar)) {
        if let Some(bar) = self.steps.get_mut(step) {
            change(bar);
        }
    }

    fn into_page(self, now: Instant) -> Page {
        let wall_ms = self.ms(now);
        let mut bars: Vec<Bar> = self.bases.into_iter().map(|(bar, _)| bar).collect();
        let images: HashMap<String, usize> =
            bars.iter().enumerate().map(|(position, bar)| (bar.name.clone(), position)).collect();
        let context = self.context.map(|bar| {
            bars.push(bar);
            bars.len() - 1
        });
        let first = bars.len();
        for (position, mut bar) in self.steps.into_iter().enumerate() {
            let inputs = self.planned.get(position).map(|step| step.inputs.as_slice()).unwrap_or_default();
            let places = inputs.iter().filter_map(|input| match input {
                StepInput::Step(step) => Some(first + step),
                StepInput::Image(name) => images.get(name).copied(),
                StepInput::Context => context,
                StepInput::NamedContext(_) => None,
            });
            bar.inputs = places.collect();
            bars.push(bar);
        }
        // What comes after the steps waits for those that nothing else waits for.
        let used: Vec<usize> = bars.iter().flat_map(|bar| bar.inputs.clone()).collect();
        let mut last: Vec<usize> = (first..bars.len()).filter(|position| !used.contains(position)).collect();
        for bar in self.ends {
            bars.push(Bar { inputs: std::mem::replace(&mut last, vec![bars.len()]), ..bar });
        }
        for bar in &mut bars {
            if bar.state == State::Running {
                (bar.state, bar.end_ms) = (State::Cancelled, wall_ms);
            }
        }
        let Self { begun, tags, dockerfile, error, .. } = self;
        Page { dockerfile, tags, begun, error, wall_ms, bars }
    }
}

fn base(name: &str, now_ms: u64) -> Bar {
    Bar { start_ms: now_ms, end_ms: now_ms, ..Bar::new(BEFORE, name) }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_build::{Reason, StepResult};

    /// Events with their times in milliseconds, and the bars that they give: name, state, start, end, inputs.
    #[track_caller]
    fn check(events: &[(u64, Event)], expect: &[&str]) -> Page {
        let started = Instant::now();
        let mut timeline = Timeline::new(started, String::new(), String::new());
        let at = |ms: u64| started + Duration::from_millis(ms);
        for (ms, event) in events {
            timeline.take(event, at(*ms));
        }
        let page = timeline.into_page(at(9000));
        let line = |bar: &Bar| {
            format!("{} {:?} {}-{} {:?}", bar.name, bar.state, bar.start_ms, bar.end_ms, bar.inputs)
        };
        assert_eq!(page.bars.iter().map(line).collect::<Vec<_>>(), expect);
        page
    }

    fn planned(names: &[&str], inputs: &[&[StepInput]]) -> [Event; 2] {
        let step =
            |inputs: &&[StepInput]| PlannedStep { stage: "a".to_owned(), line: 1, inputs: inputs.to_vec() };
        [
            Event::Planned { names: names.iter().map(|name| (*name).to_owned()).collect() },
            Event::Graph { steps: inputs.iter().map(step).collect() },
        ]
    }

    #[test]
    fn a_build_that_ends_well() {
        use StepInput::{Context, Image, Step};
        let image = || Image("docker.io/library/a:1".to_owned());
        let name = || "docker.io/library/a:1".to_owned();
        let [names, graph] =
            planned(&["one", "two", "three"], &[&[image()], &[image(), Context], &[Step(0), Step(1)]]);
        let loaded = |position, done| Event::BaseTransfer {
            name: name(),
            event: TransferEvent::Layer { position, state: LayerState::Downloading(done, 50) },
        };
        let elapsed = Duration::from_millis;
        let result = |copied_bytes, earlier_s| StepResult { layer_bytes: 7, copied_bytes, earlier_s };
        let events = [
            (5, Event::BaseFetch { name: name() }),
            (6, loaded(0, 10)),
            (7, loaded(1, 5)),
            (8, loaded(0, 20)),
            (900, Event::BaseFetched { name: name(), target: String::new(), elapsed: elapsed(895) }),
            (901, names),
            (901, graph),
            (902, Event::StepCached { step: 0, verdict: Verdict::Chain }),
            (902, Event::StepResult { step: 0, result: result(None, Some(3)) }),
            (1000, Event::Context { entries: 3, elapsed: elapsed(50) }),
            // A COPY is told when it is known why; it began before that.
            (1100, Event::StepStarted { step: 1, reason: Reason::First }),
            (1200, Event::StepFinished { step: 1, elapsed: elapsed(260) }),
            (1200, Event::StepResult { step: 1, result: result(Some(4), None) }),
            (1300, Event::StepStarted { step: 2, reason: Reason::NoCache }),
            (4000, Event::StepFinished { step: 2, elapsed: elapsed(2700) }),
            (
                4100,
                Event::Exported {
                    manifest: String::new(),
                    config: String::new(),
                    names: Vec::new(),
                    elapsed: elapsed(20),
                },
            ),
            (4200, Event::ExportStarted { name: "out".to_owned() }),
            (4300, Event::ExportFinished { elapsed: elapsed(100) }),
            (4300, Event::ExportStarted { name: "away".to_owned() }),
            (4400, Event::ExportFailed { message: "no".to_owned() }),
        ];
        let page = check(
            &events,
            &[
                "docker.io/library/a:1 Ran 5-900 []",
                "looking at the build context Ran 950-1000 []",
                "one Cached 902-902 [0]",
                "two Ran 940-1200 [0, 1]",
                "three Ran 1300-4000 [2, 3]",
                "storing the image Ran 4080-4100 [4]",
                "out Ran 4200-4300 [5]",
                "away Failed 4300-4400 [6]",
            ],
        );
        let bytes: Vec<_> = page.bars.iter().map(|bar| (bar.bytes_in, bar.bytes_out, bar.saved_ms)).collect();
        let none = (None, None, None);
        let steps = [(None, Some(7), Some(3000)), (Some(4), Some(7), None), none];
        assert_eq!(bytes, [&[(Some(25), None, None), none], &steps[..], &[none; 3]].concat());
    }

    #[test]
    fn a_build_that_fails() {
        let [names, graph] = planned(&["one", "two", "three"], &[&[], &[], &[StepInput::Step(0)]]);
        let events = [
            (10, names),
            (10, graph),
            (20, Event::StepStarted { step: 0, reason: Reason::First }),
            (20, Event::StepStarted { step: 1, reason: Reason::First }),
            (70, Event::StepFailed { step: 1, message: "it failed".to_owned() }),
            (80, Event::StepCancelled { step: 0 }),
        ];
        let expect = ["one Cancelled 20-80 []", "two Failed 20-70 []", "three Waiting 0-0 [0]"];
        let page = check(&events, &expect);
        let why = page.bars.get(1).map(|bar| bar.why.as_str());
        assert_eq!(why, Some("ran: no earlier result of it is known; it failed"));
    }

    #[test]
    fn what_was_going_on_when_it_ended() {
        let fetch = Event::BaseFetch { name: "a".to_owned() };
        check(&[(10, fetch)], &["a Cancelled 10-9000 []"]);
        check(&[], &[]);
    }
}
