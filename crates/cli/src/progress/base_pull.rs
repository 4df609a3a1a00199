//! Base images on their way, as BuildKit shows them: `sha256:… 3.10MB / 3.41MB 0.2s done`, `extracting sha256:… 0.1s done`.

use std::time::{Duration, Instant};

use mica_image::{LayerState, TransferEvent};

use super::plain::seconds;

/// Time between two lines about one layer's bytes.
const LINE_PERIOD: Duration = Duration::from_secs(1);
/// Shorter times are not told.
const TIME_MIN: Duration = Duration::from_millis(10);

/// One base image that is being fetched.
pub(super) struct BasePull {
    pub name: String,
    started: Instant,
    layers: Vec<Layer>,
}

struct Layer {
    digest: String,
    phase: Phase,
    since: Instant,
    /// When a line was last written about its bytes.
    said: Instant,
}

#[derive(Clone, Copy)]
enum Phase {
    Waiting,
    Downloading(u64, u64),
    Downloaded,
    Extracting,
    Done,
}

impl BasePull {
    pub fn new(name: String) -> Self {
        Self { name, started: Instant::now(), layers: Vec::new() }
    }

    /// How long it has been on its way.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Whether the registry has answered and something has to be fetched.
    pub fn has_layers(&self) -> bool {
        !self.layers.is_empty()
    }

    /// Takes an event in; answers the lines that say it, without the step's number.
    pub fn take(&mut self, event: TransferEvent) -> Vec<String> {
        match event {
            TransferEvent::Layers(digests) => {
                let now = Instant::now();
                let layer = |digest: &mica_oci::Digest| Layer {
                    digest: digest.to_string(),
                    phase: Phase::Waiting,
                    since: now,
                    said: now,
                };
                self.layers = digests.iter().map(layer).collect();
                Vec::new()
            }
            TransferEvent::Layer { position, state } => {
                self.layers.get_mut(position).map(|layer| layer.take(state)).unwrap_or_default()
            }
            TransferEvent::Warning(message) => vec![format!("WARN: {}", super::printable(&message))],
        }
    }

    /// What moves, as rows: a text and for how long.
    pub fn rows(&self) -> Vec<(String, Duration)> {
        let row = |layer: &Layer| {
            let text = match layer.phase {
                Phase::Downloading(done, all) => format!("{} {}", layer.digest, amount(done, all)),
                Phase::Extracting => format!("extracting {}", layer.digest),
                Phase::Waiting | Phase::Downloaded | Phase::Done => return None,
            };
            Some((text, layer.since.elapsed()))
        };
        self.layers.iter().filter_map(row).collect()
    }

    /// Layers that are stored, and all layers.
    pub fn count(&self) -> (usize, usize) {
        let done = self.layers.iter().filter(|layer| matches!(layer.phase, Phase::Done)).count();
        (done, self.layers.len())
    }
}

impl Layer {
    fn take(&mut self, state: LayerState) -> Vec<String> {
        let mut lines = Vec::new();
        match state {
            LayerState::Downloading(done, all) => {
                if !matches!(self.phase, Phase::Downloading(..)) {
                    self.since = Instant::now();
                    self.said = self.since;
                }
                self.phase = Phase::Downloading(done, all);
                if self.said.elapsed() >= LINE_PERIOD {
                    self.said = Instant::now();
                    lines.push(format!("{} {}{}", self.digest, amount(done, all), self.time()));
                }
            }
            LayerState::DownloadComplete => {
                if let Phase::Downloading(_, all) = self.phase {
                    lines.push(format!("{} {}{} done", self.digest, amount(all, all), self.time()));
                }
                self.phase = Phase::Downloaded;
            }
            LayerState::Extracting(..) => {
                if !matches!(self.phase, Phase::Extracting) {
                    self.since = Instant::now();
                    lines.push(format!("extracting {}", self.digest));
                }
                self.phase = Phase::Extracting;
            }
            LayerState::PullComplete => {
                if let Phase::Extracting = self.phase {
                    lines.push(format!("extracting {}{} done", self.digest, self.time()));
                }
                self.phase = Phase::Done;
            }
            LayerState::Retrying(seconds) => {
                lines.push(format!("{} broke off, trying again in {seconds}s", self.digest));
                self.phase = Phase::Waiting;
            }
            LayerState::AlreadyExists => self.phase = Phase::Done,
            _ => {}
        }
        lines
    }

    fn time(&self) -> String {
        let elapsed = self.since.elapsed();
        if elapsed < TIME_MIN { String::new() } else { format!(" {}", seconds(elapsed)) }
    }
}

/// `3.10MB / 3.41MB`
fn amount(done: u64, all: u64) -> String {
    format!("{} / {}", bytes(done), bytes(all))
}

/// Two digits behind the point, as BuildKit has them.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let (mut size, mut unit) = (count as f64, 0);
    while size >= 1000.0 && unit < UNITS.len() - 1 {
        size /= 1000.0;
        unit += 1;
    }
    match unit {
        0 => format!("{count}B"),
        _ => format!("{size:.2}{}", UNITS.get(unit).unwrap_or(&"")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_oci::Digest;

    /// The lines of the states of one layer, its digest written as `D`.
    #[track_caller]
    fn check(states: &[LayerState], expect: &[&str]) {
        let digest = Digest::sha256(b"x");
        let mut pull = BasePull::new("n".to_owned());
        assert!(!pull.has_layers());
        assert_eq!(pull.take(TransferEvent::Layers(vec![digest.clone()])), Vec::<String>::new());
        let take = |state: &LayerState| pull.take(TransferEvent::Layer { position: 0, state: state.clone() });
        let lines: Vec<_> = states.iter().flat_map(take).collect();
        let lines: Vec<_> = lines.iter().map(|line| line.replace(digest.as_str(), "D")).collect();
        assert_eq!(lines, expect);
    }

    #[test]
    fn lines() {
        use LayerState::*;
        let all = 3_410_000;
        check(
            &[PullingFsLayer, Downloading(1, all), Downloading(all, all), DownloadComplete],
            &["D 3.41MB / 3.41MB done"],
        );
        check(
            &[DownloadComplete, Extracting(1, 2), Extracting(2, 2), PullComplete],
            &["extracting D", "extracting D done"],
        );
        check(&[AlreadyExists], &[]);
        check(&[Downloading(1, 2), Retrying(3)], &["D broke off, trying again in 3s"]);
    }

    #[test]
    fn rows_of_what_moves() {
        let digests: Vec<_> = [b"a", b"b", b"c"].iter().map(|text| Digest::sha256(*text)).collect();
        let mut pull = BasePull::new("n".to_owned());
        pull.take(TransferEvent::Layers(digests.clone()));
        let states =
            [LayerState::AlreadyExists, LayerState::Downloading(999, 1000), LayerState::Extracting(1, 2)];
        for (position, state) in states.into_iter().enumerate() {
            pull.take(TransferEvent::Layer { position, state });
        }
        let rows: Vec<_> = pull.rows().into_iter().map(|(text, _)| text).collect();
        assert_eq!(rows, [format!("{} 999B / 1.00kB", digests[1]), format!("extracting {}", digests[2])]);
        assert_eq!(pull.count(), (1, 3));
    }
}
