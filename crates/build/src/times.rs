//! Which times an image tells: those at which its steps ran, or the one that the caller wants to see.

use std::sync::Arc;
use std::time::SystemTime;

use mica_layer::diff::FixedTime;
use mica_plan::{CopySourceSpec, Graph, RunStep, SourceDateEpoch};
use mica_tree::{Entry, Index, Kind, Time};

use crate::error::BuildError;
use crate::event::{Event, Events};
use crate::remote::RemoteError;
use crate::request::BuildRequest;
use crate::reuse::unix_s;

/// What programs ask for the time that they are to tell.
const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The clock that files are stamped by lags behind the one that programs read, and somebody may set either.
const CLOCKS_DIFFER_S: i64 = 2;

/// The time of a context that was fetched. As BuildKit has it: a directory has none.
fn time_of(request: &BuildRequest, path: &std::path::Path) -> Option<i64> {
    request.fetched.iter().find(|fetched| fetched.path == path)?.time_unix_s
}

/// The times of one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Times {
    /// SOURCE_DATE_EPOCH, seconds since 1970.
    pub epoch: Option<i64>,
    /// `--reproducible`: no time in a layer is later than this one.
    pub fixed: Option<i64>,
    now_seconds: i64,
}

impl Times {
    /// What the request and the Dockerfile say of times.
    ///
    /// `fetch` asks for the time of something that is to be fetched.
    pub fn new(
        request: &BuildRequest,
        graph: &Graph,
        events: &Events<'_>,
        fetch: &dyn Fn(&CopySourceSpec) -> Result<Option<i64>, RemoteError>,
    ) -> Result<Self, BuildError> {
        let epoch = match &graph.source_date_epoch {
            None => None,
            Some(SourceDateEpoch::Seconds(seconds)) => Some(*seconds),
            Some(SourceDateEpoch::Context) => {
                request.context.as_deref().and_then(|path| time_of(request, path))
            }
            Some(SourceDateEpoch::NamedContext(name)) => {
                let given = request.named_directories.iter().find(|given| given.name == *name);
                given.and_then(|given| time_of(request, &given.path))
            }
            Some(SourceDateEpoch::Remote(source)) => {
                fetch(source).map_err(|source| BuildError::Epoch { source: Box::new(source) })?
            }
        };
        if let (None, Some(SourceDateEpoch::NamedContext(_) | SourceDateEpoch::Remote(_))) =
            (epoch, &graph.source_date_epoch)
        {
            let message = "what SOURCE_DATE_EPOCH names has no time; it is not set".to_owned();
            events(Event::Warning { message });
        }
        let fixed = request.reproducible.map(|default| epoch.unwrap_or(default));
        Ok(Self { epoch, fixed, now_seconds: request.now_seconds })
    }

    /// What config and history tell in place of when a step ran.
    pub fn told(&self) -> Option<i64> {
        self.fixed.or(self.epoch)
    }

    /// Of files that a step makes out of nothing.
    pub fn of_new_files(&self) -> Time {
        Time { seconds: self.told().unwrap_or(self.now_seconds), nanoseconds: 0 }
    }

    /// The latest time that a layer may hold.
    pub fn latest(&self) -> Option<Time> {
        self.fixed.map(|seconds| Time { seconds, nanoseconds: 0 })
    }

    /// For the layer of a program that was started then. Should the fixed time be in the future, times of the moment are
    /// times of the moment nevertheless.
    pub fn fixed_since(&self, started: SystemTime) -> Option<FixedTime> {
        let time = self.latest()?;
        let moment = Time { seconds: unix_s(started).saturating_sub(CLOCKS_DIFFER_S), nanoseconds: 0 };
        Some(FixedTime { later_than: time.min(moment), time })
    }

    /// A variable for RUN that its environment lacks.
    pub fn hidden_variable(&self, run: &RunStep) -> Option<String> {
        let seconds = self.fixed?;
        let is_given = run.environment.iter().any(|(name, _)| name == VARIABLE);
        (!is_given).then(|| format!("{VARIABLE}={seconds}"))
    }

    /// An entry of a layer as it may be.
    pub fn entry(&self, entry: &Entry) -> Entry {
        let mut entry = entry.clone();
        if let Some(latest) = self.latest() {
            let is_implied = matches!(entry.kind, Kind::Directory { implied: true, .. });
            // What is there only for what is inside of it says nothing of the files below, not even their times.
            entry.mtime = if is_implied { latest } else { entry.mtime.min(latest) };
        }
        entry
    }

    /// What of a build context counts: times, and modes beyond those that git keeps, are a matter of who checked it out, and
    /// when, and with which umask.
    pub fn context(&self, index: &Arc<Index>) -> Arc<Index> {
        let Some(mtime) = self.latest() else { return index.clone() };
        let normal = |entry: &Entry| Entry { mode: git_mode(entry), mtime, ..entry.clone() };
        Arc::new(Index::from_sorted(index.entries().iter().map(normal).collect()))
    }

    /// As BuildKit has it, what a WORKDIR makes has the time that was asked for, and not that of an earlier build.
    pub fn key_of_directories(&self) -> Option<[u8; 32]> {
        let seconds = self.epoch.filter(|_| self.fixed.is_none())?;
        Some(*blake3::hash(&seconds.to_le_bytes()).as_bytes())
    }

    /// Files with one time, whatever they had: servers disagree about that of the same file.
    pub fn of_one_time(&self, index: &Arc<Index>) -> Arc<Index> {
        let Some(mtime) = self.latest() else { return index.clone() };
        let same = |entry: &Entry| Entry { mtime, ..entry.clone() };
        Arc::new(Index::from_sorted(index.entries().iter().map(same).collect()))
    }

    /// What of this is part of the key of a step.
    pub fn key(&self) -> Option<[u8; 32]> {
        let seconds = self.fixed?;
        let mut hasher = blake3::Hasher::new();
        // Another number whenever the same inputs give other layers.
        hasher.update(b"mica reproducible 1").update(&seconds.to_le_bytes());
        Some(*hasher.finalize().as_bytes())
    }
}

/// The mode that git gives a fresh checkout under the usual umask.
fn git_mode(entry: &Entry) -> u32 {
    const OWNER_EXECUTES: u32 = 0o100;
    match &entry.kind {
        Kind::Directory { .. } => 0o755,
        // Of a link it means nothing, and further names of a file have the mode of the first.
        Kind::Symlink { .. } | Kind::Hardlink { .. } => entry.mode,
        _ if entry.mode & OWNER_EXECUTES != 0 => 0o755,
        _ => 0o644,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mica_diagnostic::Source;
    use mica_oci::Platform;
    use mica_plan::PlanOptions;

    #[test]
    fn which_times_are_told() {
        let check = |arg: &str, reproducible: Option<i64>, expect: &str| {
            let text = format!("ARG SOURCE_DATE_EPOCH={arg}\nFROM scratch\nCOPY a b\n");
            let source = Source::new("Dockerfile", text.as_str());
            let plan = PlanOptions::for_platform(Platform::host());
            let mut request = BuildRequest::new(source.clone(), plan);
            request.now_seconds = 99;
            request.reproducible = reproducible;
            let dockerfile = mica_dockerfile::parse_dockerfile_partially(source).0.unwrap();
            let graph = mica_plan::plan(&dockerfile, &request.plan, &|_| None).unwrap();
            let times = Times::new(&request, &graph, &|_| {}, &|_| Ok(None)).unwrap();
            let latest = times.latest().map(|time| time.seconds);
            let found = format!("{:?} {} {latest:?}", times.told(), times.of_new_files().seconds);
            assert_eq!(found, expect, "{arg} {reproducible:?}");
        };
        check("", None, "None 99 None");
        check("5", None, "Some(5) 5 None");
        check("-5", None, "Some(-5) -5 None");
        check("context", None, "None 99 None");
        check("", Some(7), "Some(7) 7 Some(7)");
        check("5", Some(7), "Some(5) 5 Some(5)");
        check("context", Some(7), "Some(7) 7 Some(7)");
    }
}
