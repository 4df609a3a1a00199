//! Plain progress, line by line, as BuildKit's `--progress=plain` writes it.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::Duration;

use mica_build::Event;
use mica_image::TransferEvent;

use super::base_pull::BasePull;
use super::{printable, printable_output};
use crate::format::verdict;

/// Numbers steps as they appear, and says when the lines of another one begin.
#[derive(Default)]
pub(crate) struct Plain {
    names: Vec<String>,
    numbers: HashMap<usize, usize>,
    count: usize,
    /// Number of the export that is going on.
    export: usize,
    /// The step whose lines are being written.
    current: Option<usize>,
    /// Base images on their way, with the numbers of their lines.
    pulls: Vec<(BasePull, usize)>,
}

impl Plain {
    /// Writes what happened.
    pub fn tell(&mut self, event: Event) {
        eprint!("{}", self.text(event));
    }

    /// What happened, as lines.
    fn text(&mut self, event: Event) -> String {
        let mut text = String::new();
        let out = &mut text;
        // Writing to a string does not fail.
        let _ = match event {
            Event::Dockerfile { name, size_bytes } => {
                let number = self
                    .internal(out, &format!("[internal] load build definition from {}", printable(&name)));
                writeln!(out, "#{number} transferring dockerfile: {size_bytes}B done\n#{number} DONE 0.0s\n")
            }
            Event::Warning { message } => {
                self.count += 1;
                writeln!(out, "#{} WARN: {}\n", self.count, printable(&message))
            }
            Event::Base { name } => {
                let number = self.internal(out, &metadata_of(&name));
                writeln!(out, "#{number} DONE 0.0s\n")
            }
            Event::BaseFetch { name } => {
                let number = self.internal(out, &metadata_of(&name));
                self.pulls.push((BasePull::new(name), number));
                Ok(())
            }
            Event::BaseTransfer { name, event } => {
                self.transfer(out, &name, event);
                Ok(())
            }
            Event::BaseFailed { name, message } => {
                match self.pulls.iter().position(|(pull, _)| pull.name == name) {
                    Some(at) => {
                        let (_, number) = self.pulls.remove(at);
                        writeln!(out, "#{number} ERROR: {}\n", printable(&message))
                    }
                    None => Ok(()),
                }
            }
            Event::BaseFetched { name, target, elapsed } => self.fetched(out, &name, &target, elapsed),
            Event::Context { entries, elapsed } => {
                let number = self.internal(out, "[internal] load build context");
                writeln!(out, "#{number} looked at {entries} entries\n#{number} DONE {}\n", seconds(elapsed))
            }
            Event::Planned { names } => {
                self.names = names;
                Ok(())
            }
            Event::Graph { .. } | Event::StepResult { .. } => Ok(()),
            Event::StepCached { step, verdict } => {
                let number = self.number(out, step);
                self.current = None;
                writeln!(out, "#{number} {}\n", verdict::cached(&verdict))
            }
            Event::StepStarted { step, reason } => {
                let number = self.number(out, step);
                match verdict::again(&reason) {
                    Some(why) => writeln!(out, "#{number} {why}"),
                    None => Ok(()),
                }
            }
            Event::StepOutput { step, elapsed, line, .. } => {
                let number = self.number(out, step);
                writeln!(out, "#{number} {:.3} {}", elapsed.as_secs_f64(), printable_output(&line))
            }
            Event::StepFinished { step, elapsed } => {
                let number = self.number(out, step);
                self.current = None;
                writeln!(out, "#{number} DONE {}\n", seconds(elapsed))
            }
            Event::StepFailed { step, message } => {
                let number = self.number(out, step);
                self.current = None;
                writeln!(out, "#{number} ERROR: {}", printable(&message))
            }
            Event::StepCancelled { step } => {
                let number = self.number(out, step);
                self.current = None;
                writeln!(out, "#{number} CANCELED")
            }
            Event::Exported { manifest, config, names, elapsed } => {
                self.exported(out, &[(manifest, config)], None, &names, elapsed)
            }
            Event::ExportStarted { name } => {
                self.export = self.internal(out, &name);
                Ok(())
            }
            Event::ExportStep { what, elapsed } => {
                // As buildkit: what takes no time is not timed.
                let took =
                    if elapsed.as_millis() >= 10 { format!("{} ", seconds(elapsed)) } else { String::new() };
                writeln!(out, "#{} {} {took}done", self.export, printable(&what))
            }
            Event::ExportFinished { elapsed } => {
                writeln!(out, "#{} DONE {}\n", self.export, seconds(elapsed))
            }
            Event::ExportFailed { message } => {
                writeln!(out, "#{} ERROR: {}\n", self.export, printable(&message))
            }
            Event::ExportedIndex { images, index, names, elapsed } => {
                self.exported(out, &images, Some(&index), &names, elapsed)
            }
        };
        text
    }

    /// The image that is in the store now.
    fn exported(
        &mut self,
        out: &mut String,
        images: &[(String, String)],
        index: Option<&str>,
        names: &[String],
        elapsed: Duration,
    ) -> std::fmt::Result {
        let number = self.internal(out, "exporting to image");
        for (manifest, config) in images {
            writeln!(out, "#{number} exporting manifest {manifest} done")?;
            writeln!(out, "#{number} exporting config {config} done")?;
        }
        if let Some(index) = index {
            writeln!(out, "#{number} exporting manifest list {index} done")?;
        }
        for name in names {
            writeln!(out, "#{number} naming to {name} done")?;
        }
        writeln!(out, "#{number} DONE {}\n", seconds(elapsed))
    }

    /// What happens to the layers of a base image.
    fn transfer(&mut self, out: &mut String, name: &str, event: TransferEvent) {
        let Some((pull, number)) = self.pulls.iter_mut().find(|(pull, _)| pull.name == name) else { return };
        let had_layers = pull.has_layers();
        let lines = pull.take(event);
        if !had_layers && pull.has_layers() {
            let _ = writeln!(out, "#{number} DONE {}\n", seconds(pull.elapsed()));
            self.count += 1;
            *number = self.count;
            self.current = None;
            let _ = writeln!(out, "#{number} {}", from_of(name));
        }
        for line in lines {
            let _ = writeln!(out, "#{number} {line}");
        }
    }

    fn fetched(&mut self, out: &mut String, name: &str, target: &str, elapsed: Duration) -> std::fmt::Result {
        let Some(at) = self.pulls.iter().position(|(pull, _)| pull.name == name) else { return Ok(()) };
        let (pull, number) = self.pulls.remove(at);
        let resolved = if name.contains('@') { String::new() } else { format!("@{target}") };
        if pull.has_layers() {
            let name = name.rsplit(' ').next().unwrap_or(name);
            writeln!(out, "#{number} resolve {name}{resolved} done")?;
        }
        writeln!(out, "#{number} DONE {}\n", seconds(elapsed))
    }

    fn internal(&mut self, out: &mut String, name: &str) -> usize {
        self.count += 1;
        self.current = None;
        let _ = writeln!(out, "#{} {name}", self.count);
        self.count
    }

    /// The step's number; its name is written when it appears, and again when its lines go on after another's.
    fn number(&mut self, out: &mut String, step: usize) -> usize {
        let known = self.numbers.get(&step).copied();
        let number = known.unwrap_or_else(|| {
            self.count += 1;
            self.numbers.insert(step, self.count);
            self.count
        });
        if self.current != Some(step) {
            if let Some(other) = self.current.and_then(|other| self.numbers.get(&other)) {
                let _ = writeln!(out, "#{other} ...\n");
            }
            let name = self.names.get(step).map(|name| printable(name)).unwrap_or_default();
            let _ = writeln!(out, "#{number} {name}");
            self.current = Some(step);
        }
        number
    }
}

/// The step that asks for a base image; of one of several platforms, which has its name before that of the image.
fn metadata_of(name: &str) -> String {
    match name.split_once(' ') {
        Some((platform, name)) => format!("[{platform} internal] load metadata for {name}"),
        None => format!("[internal] load metadata for {name}"),
    }
}

/// The step that brings its layers.
fn from_of(name: &str) -> String {
    match name.split_once(' ') {
        Some((platform, name)) => format!("[{platform}] FROM {name}"),
        None => format!("FROM {name}"),
    }
}

/// `1.2s`
pub(crate) fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_build::{Changed, Reason, Verdict};

    #[test]
    fn base_images() {
        use mica_image::LayerState;
        let mut plain = Plain::default();
        let mut check = |event: Event, expect: &str| assert_eq!(plain.text(event), expect);
        let digest = mica_oci::Digest::sha256(b"x");
        let fetch = |name: &str| Event::BaseFetch { name: name.to_owned() };
        let transfer = |name: &str, event| Event::BaseTransfer { name: name.to_owned(), event };
        let layer = |state| TransferEvent::Layer { position: 0, state };
        let fetched = |name: &str| {
            let elapsed = Duration::from_millis(1200);
            Event::BaseFetched { name: name.to_owned(), target: "sha256:t".to_owned(), elapsed }
        };
        check(fetch("r/a:1"), "#1 [internal] load metadata for r/a:1\n");
        check(fetch("r/b:1"), "#2 [internal] load metadata for r/b:1\n");
        let layers = TransferEvent::Layers(vec![digest.clone()]);
        check(transfer("r/a:1", layers), "#1 DONE 0.0s\n\n#3 FROM r/a:1\n");
        check(transfer("r/a:1", layer(LayerState::Downloading(5, 5))), "");
        let done = layer(LayerState::DownloadComplete);
        check(transfer("r/a:1", done), &format!("#3 {digest} 5B / 5B done\n"));
        check(fetched("r/b:1"), "#2 DONE 1.2s\n\n");
        check(fetched("r/a:1"), "#3 resolve r/a:1@sha256:t done\n#3 DONE 1.2s\n\n");
        check(transfer("r/a:1", TransferEvent::Warning("late".to_owned())), "");
        check(fetch("r/c:1"), "#4 [internal] load metadata for r/c:1\n");
        let failed = Event::BaseFailed { name: "r/c:1".to_owned(), message: "denied".to_owned() };
        check(failed, "#4 ERROR: denied\n\n");
    }

    #[test]
    fn an_image_has_its_names_before_it_is_done() {
        let mut plain = Plain::default();
        let mut check = |event: Event, expect: &str| assert_eq!(plain.text(event), expect);
        let [manifest, config, index] = ["m", "c", "i"].map(str::to_owned);
        let (names, elapsed) = (vec!["a:1".to_owned(), "b:1".to_owned()], Duration::ZERO);
        let images = vec![(manifest.clone(), config.clone())];
        check(
            Event::Exported { manifest, config, names: names.clone(), elapsed },
            "#1 exporting to image\n#1 exporting manifest m done\n#1 exporting config c done\n#1 naming to a:1 done\n\
             #1 naming to b:1 done\n#1 DONE 0.0s\n\n",
        );
        check(
            Event::ExportedIndex { images, index, names, elapsed },
            "#2 exporting to image\n#2 exporting manifest m done\n#2 exporting config c done\n\
             #2 exporting manifest list i done\n#2 naming to a:1 done\n#2 naming to b:1 done\n#2 DONE 0.0s\n\n",
        );
    }

    #[test]
    fn outputs() {
        let mut plain = Plain::default();
        let mut check = |event: Event, expect: &str| assert_eq!(plain.text(event), expect);
        let name = "exporting to oci image format".to_owned();
        check(Event::ExportStarted { name }, "#1 exporting to oci image format\n");
        let step =
            |what: &str, ms| Event::ExportStep { what: what.to_owned(), elapsed: Duration::from_millis(ms) };
        check(step("exporting layers", 1234), "#1 exporting layers 1.2s done\n");
        check(step("exporting config sha256:1", 0), "#1 exporting config sha256:1 done\n");
        check(Event::Warning { message: "late".to_owned() }, "#2 WARN: late\n\n");
        check(step("sending tarball", 9), "#1 sending tarball done\n");
        let elapsed = Duration::from_millis(1300);
        check(Event::ExportFinished { elapsed }, "#1 DONE 1.3s\n\n");
        check(Event::ExportStarted { name: "x".to_owned() }, "#3 x\n");
        check(Event::ExportFailed { message: "full\x1b".to_owned() }, "#3 ERROR: full\u{fffd}\n\n");
    }

    #[test]
    fn steps() {
        let mut plain = Plain::default();
        let mut check = |event: Event, expect: &str| assert_eq!(plain.text(event), expect);
        let names = ["[2/5] RUN a", "[3/5] RUN b", "[4/5] RUN c", "[5/5] RUN d"].map(str::to_owned);
        check(Event::Planned { names: names.into() }, "");
        check(Event::StepCached { step: 0, verdict: Verdict::Chain }, "#1 [2/5] RUN a\n#1 CACHED\n\n");
        check(
            Event::StepCached { step: 1, verdict: Verdict::Record { unused: None } },
            "#2 [3/5] RUN b\n#2 CACHED (nothing it used changed)\n\n",
        );
        check(Event::StepStarted { step: 2, reason: Reason::First }, "#3 [4/5] RUN c\n");
        let [place, path, what, old, new] = ["", "/p", "changed", "", ""].map(str::to_owned);
        let reason = Reason::Changed(Changed { place, path, what, old, new });
        check(Event::StepStarted { step: 3, reason }, "#3 ...\n\n#4 [5/5] RUN d\n#4 again: /p changed\n");
        let line = "x\x1by".to_owned();
        let elapsed = Duration::from_millis(1500);
        check(Event::StepOutput { step: 3, elapsed, line, bytes: Vec::new() }, "#4 1.500 x\u{fffd}y\n");
        check(Event::StepFinished { step: 3, elapsed }, "#4 DONE 1.5s\n\n");
        check(Event::StepCancelled { step: 2 }, "#3 [4/5] RUN c\n#3 CANCELED\n");
    }
}
