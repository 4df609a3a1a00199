//! The steps of a build: how far each is, and what it left.

use std::sync::{Arc, Condvar, Mutex};

use mica_plan::{FilesystemState, Graph, StepId};
use mica_tree::Index;

use crate::filesystem::Chain;
use crate::reuse::{Keys, Seen};

/// A layer that stands in an ingest directory and waits to be committed.
pub(crate) struct Made {
    /// What it holds.
    pub index: Arc<Index>,
    /// SHA-256 of its tar.
    pub diff_id: [u8; 32],
    /// Length of its tar.
    pub tar_size_bytes: u64,
}

/// A step's result.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The filesystem after it.
    pub chain: Arc<Chain>,
    /// When its layer was made, seconds since 1970.
    pub created_seconds: i64,
    /// Number of the record of what it used.
    pub record: Option<i64>,
    /// Whether it opened an IPv4 or IPv6 socket; `None` when nobody looked.
    pub network: Option<bool>,
    /// The stack with what steps really made in this build, where the stack above has equal layers of earlier runs.
    pub fresh: Option<Fresh>,
}

/// A stack in which the times are those of this build.
///
/// A step that made what it made before, times apart, hands on the earlier layer, so that what follows is found as it was.
/// But a program that runs on it compares times: it would find what was just made older than what it was made of. Such a
/// program runs on the fresh stack, and from there on that is the stack.
#[derive(Debug, Clone)]
pub(crate) struct Fresh {
    /// The stack.
    pub chain: Arc<Chain>,
    /// What is to be kept of the steps whose layers differ, as soon as a program has run on them.
    pub unkept: Vec<Arc<Unkept>>,
}

impl Fresh {
    /// With the topmost layer of `chain` on top.
    pub fn with_top_of(mut self, chain: &Chain) -> Self {
        if let Some((layer, diff_id)) = chain.top_layer() {
            self.chain = Arc::new(self.chain.with(layer.clone(), diff_id.clone()));
        }
        self
    }
}

/// A result that is kept only if something stands on it.
#[derive(Debug)]
pub(crate) struct Unkept {
    /// Which step.
    pub step: StepId,
    /// What it is looked up by.
    pub keys: Keys,
    /// What it ran on.
    pub parent: Arc<Chain>,
    /// What it left.
    pub outcome: Outcome,
    /// What it used.
    pub seen: Seen,
}

/// Where a step stands.
#[derive(Debug, Clone)]
pub(crate) enum Progress {
    /// Not begun.
    Waiting,
    /// A thread works on it.
    Running,
    /// Done.
    Done(Outcome),
}

/// The steps of a build and how far each is.
pub(crate) struct Outcomes {
    steps: Mutex<Vec<Progress>>,
    changed: Condvar,
}

impl Outcomes {
    pub fn new(count: usize) -> Self {
        Self { steps: Mutex::new(vec![Progress::Waiting; count]), changed: Condvar::new() }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Progress>> {
        self.steps.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The result of a step that is done.
    pub fn get(&self, id: StepId) -> Option<Outcome> {
        match self.lock().get(id.0) {
            Some(Progress::Done(outcome)) => Some(outcome.clone()),
            _ => None,
        }
    }

    pub fn has(&self, state: &FilesystemState) -> bool {
        match state {
            FilesystemState::Step(id) => self.get(*id).is_some(),
            _ => true,
        }
    }

    pub fn set(&self, id: StepId, progress: Progress) {
        if let Some(slot) = self.lock().get_mut(id.0) {
            *slot = progress;
        }
        self.changed.notify_all();
    }

    pub fn wake(&self) {
        drop(self.lock());
        self.changed.notify_all();
    }

    /// The next step whose inputs are done, marked as running; waits for one. `None` when all are done or begun, or
    /// the build is to stop.
    pub fn next(&self, graph: &Graph, stopped: &dyn Fn() -> bool) -> Option<StepId> {
        let mut steps = self.lock();
        loop {
            if stopped() || !steps.iter().any(|step| matches!(step, Progress::Waiting)) {
                return None;
            }
            let done = |state: &FilesystemState| match state {
                FilesystemState::Step(id) => matches!(steps.get(id.0), Some(Progress::Done(_))),
                _ => true,
            };
            let ready = graph.steps.iter().find(|step| {
                matches!(steps.get(step.id.0), Some(Progress::Waiting)) && step.inputs().into_iter().all(done)
            });
            if let Some(step) = ready {
                steps[step.id.0] = Progress::Running;
                return Some(step.id);
            }
            // A signal sets a flag and wakes nobody.
            let pause = std::time::Duration::from_millis(100);
            steps =
                self.changed.wait_timeout(steps, pause).unwrap_or_else(|poisoned| poisoned.into_inner()).0;
        }
    }
}
