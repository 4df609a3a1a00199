//! The steps of a build, one after the other or side by side: each found among earlier results, or done.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use mica_oci::{DiffId, Digest};
use mica_plan::{FilesystemState, Operation, Step};
use mica_store::{Ingest, Layer, LayerRecord};
use mica_trace::{Record, Watched};
use mica_tree::{Entry, Index, Kind};

use crate::build::{Build, lock};
use crate::emulated;
use crate::error::{BuildError, StepError};
use crate::event::Event;
use crate::exec_copy;
use crate::exec_run;
use crate::filesystem::Chain;
use crate::outcomes::{Fresh, Made, Outcome, Outcomes, Progress, Unkept};
use crate::remote;
use crate::reuse::{Keys, Known, Previous, Seen, Span};
use crate::traced::StepTree;
use crate::verdict::{Reason, Verdict};
use crate::workdir;

/// Steps at the same time on the smallest machine: most of them wait for a network or a disk for most of their time, and
/// BuildKit, which people's Dockerfiles were written for, knows no limit.
const STEPS_MIN: usize = 8;

impl Build<'_> {
    /// Does all steps, those that are known first and without starting a thread.
    pub(crate) fn run(&self) -> Result<Outcomes, BuildError> {
        let outcomes = Outcomes::new(self.graph.steps.len());
        let mut open = 0;
        for step in &self.graph.steps {
            // What asks somebody elsewhere does so in a thread, beside others.
            let ready = step.inputs().into_iter().all(|state| outcomes.has(state)) && !remote::asks(step);
            match ready.then(|| self.look_up(step, &outcomes)).transpose() {
                Ok(Some(Some(outcome))) => {
                    self.tell_result(step, &outcome, false);
                    outcomes.set(step.id, Progress::Done(outcome));
                }
                Ok(_) => open += 1,
                Err(cause) => return Err(self.step_error(step, cause, Vec::new())),
            }
        }
        if open == 0 {
            return Ok(outcomes);
        }
        // Before an hour of work of other steps.
        let begins = |step: &&Step| lock(&self.looked_up).contains_key(&step.id);
        for step in self.graph.steps.iter().filter(begins) {
            emulated::check(self, step, &outcomes)
                .map_err(|cause| self.step_error(step, cause, Vec::new()))?;
        }
        let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
        let failed = Mutex::new(None);
        std::thread::scope(|scope| {
            for _ in 0..open.min((2 * cores).max(STEPS_MIN)) {
                scope.spawn(|| self.work(&outcomes, &failed));
            }
        });
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(BuildError::Interrupted);
        }
        match failed.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()) {
            Some(error) => Err(error),
            None => Ok(outcomes),
        }
    }

    /// One thread: takes steps whose inputs are done until none is left.
    fn work(&self, outcomes: &Outcomes, failed: &Mutex<Option<BuildError>>) {
        while let Some(id) = outcomes.next(self.graph, &|| self.stopped()) {
            let Some(step) = self.graph.step(id) else { return };
            let mut output = Vec::new();
            match self.perform(step, outcomes, &mut output) {
                Ok(outcome) => {
                    let ran = matches!(lock(&self.verdicts).get(&id), Some((Verdict::Ran { .. }, _)));
                    self.tell_result(step, &outcome, ran);
                    outcomes.set(id, Progress::Done(outcome));
                }
                Err(cause) => {
                    let first = !matches!(cause, StepError::Cancelled)
                        && !self.cancelled.swap(true, Ordering::Relaxed);
                    if first {
                        (self.events)(Event::StepFailed { step: id.0, message: cause.to_string() });
                        *failed.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) =
                            Some(self.step_error(step, cause, output));
                    } else {
                        (self.events)(Event::StepCancelled { step: id.0 });
                    }
                    outcomes.wake();
                    return;
                }
            }
        }
    }

    fn step_error(&self, step: &Step, cause: StepError, output: Vec<String>) -> BuildError {
        match cause {
            StepError::Build(error) if !matches!(*error, BuildError::System(_)) => *error,
            cause => BuildError::Step {
                source_text: self.request.dockerfile.clone(),
                span: step.span,
                name: step.name.clone(),
                cause: Box::new(cause),
                output,
            },
        }
    }

    /// The result of a step if an earlier build had it, found without running or reading much.
    fn look_up(&self, step: &Step, outcomes: &Outcomes) -> Result<Option<Outcome>, StepError> {
        let parent = self.chain(&step.parent, outcomes)?;
        let keys = self.keys(step, &parent, outcomes, false)?;
        let fresh = self.fresh(step, outcomes);
        let reason = match self.known(step, &keys, &parent, outcomes)? {
            Known::Found(mut outcome, verdict) => {
                outcome.fresh = fresh.map(|fresh| fresh.with_top_of(&outcome.chain));
                self.note_done(step, &keys);
                self.tell_cached(step, verdict);
                return Ok(Some(outcome));
            }
            Known::Not(reason) => reason,
        };
        let Some(fresh) = fresh.filter(|_| matches!(step.operation, Operation::Run(_))) else {
            lock(&self.looked_up).insert(step.id, (keys, reason));
            return Ok(None);
        };
        let keys = self.keys(step, &fresh.chain, outcomes, false)?;
        match self.known(step, &keys, &fresh.chain, outcomes)? {
            Known::Found(outcome, verdict) => {
                self.keep_all(&fresh, outcomes)?;
                self.note_done(step, &keys);
                self.tell_cached(step, verdict);
                Ok(Some(outcome))
            }
            Known::Not(_) => {
                lock(&self.looked_up).insert(step.id, (keys, reason));
                Ok(None)
            }
        }
    }

    /// The stack of a step's parent with the times of this build, where it is another one.
    fn fresh(&self, step: &Step, outcomes: &Outcomes) -> Option<Fresh> {
        match &step.parent {
            FilesystemState::Step(id) => outcomes.get(*id)?.fresh,
            _ => None,
        }
    }

    /// Keeps what is only kept if something stands on it.
    fn keep_all(&self, fresh: &Fresh, outcomes: &Outcomes) -> Result<(), StepError> {
        for unkept in &fresh.unkept {
            let Some(step) = self.graph.step(unkept.step) else { continue };
            let mut outcome = unkept.outcome.clone();
            self.keep(step, &unkept.keys, &unkept.parent, outcomes, &mut outcome, unkept.seen.clone())?;
        }
        Ok(())
    }

    fn tell_cached(&self, step: &Step, verdict: Verdict) {
        lock(&self.verdicts).insert(step.id, (verdict.clone(), 0));
        (self.events)(Event::StepCached { step: step.id.0, verdict });
    }

    fn perform(
        &self,
        step: &Step,
        outcomes: &Outcomes,
        output: &mut Vec<String>,
    ) -> Result<Outcome, StepError> {
        if !lock(&self.looked_up).contains_key(&step.id)
            && let Some(outcome) = self.look_up(step, outcomes)?
        {
            return Ok(outcome);
        }
        let Some((keys, reason)) = lock(&self.looked_up).remove(&step.id) else {
            return Err(StepError::Cancelled);
        };
        let fresh = self.fresh(step, outcomes);
        let parent = match &fresh {
            // A program compares times; COPY and WORKDIR do not.
            Some(fresh) if matches!(step.operation, Operation::Run(_)) => {
                self.keep_all(fresh, outcomes)?;
                fresh.chain.clone()
            }
            _ => self.chain(&step.parent, outcomes)?,
        };
        let slot = keys.once.map(|once| lock(&self.produced).entry(once).or_default().clone());
        let slot = slot.unwrap_or_default();
        let mut slot = lock(&slot);
        if let Some(outcome) = &*slot {
            self.note_done(step, &keys);
            self.tell_cached(step, Verdict::Shared);
            return Ok(outcome.clone());
        }
        let (mut outcome, made, seen) = self.execute(step, &keys, reason, &parent, outcomes, output)?;
        // A file of the context may have changed since the keys were made; what was copied is what counts.
        let keys = match &step.operation {
            Operation::Copy(_) => self.keys(step, &parent, outcomes, true)?,
            _ => keys,
        };
        let is_run = matches!(step.operation, Operation::Run(_));
        outcome.fresh = match (made, fresh) {
            (Some((chain, written)), _) => {
                let seen = Seen { written: Some(written), ..seen.clone() };
                Some(self.unkept(step, &keys, &parent, chain, seen))
            }
            (None, Some(fresh)) if !is_run => Some(fresh.with_top_of(&outcome.chain)),
            _ => None,
        };
        self.keep(step, &keys, &parent, outcomes, &mut outcome, seen)?;
        self.note_done(step, &keys);
        *slot = Some(outcome.clone());
        Ok(outcome)
    }

    /// Does the step. Besides its result: the stack with the layer that was really made, where an equal one is handed on.
    #[allow(clippy::type_complexity)]
    fn execute(
        &self,
        step: &Step,
        keys: &Keys,
        reason: Reason,
        parent: &Arc<Chain>,
        outcomes: &Outcomes,
        output: &mut Vec<String>,
    ) -> Result<(Outcome, Option<(Arc<Chain>, Span)>, Seen), StepError> {
        if self.stopped() {
            return Err(StepError::Cancelled);
        }
        let (started, started_at) = (Instant::now(), SystemTime::now());
        let tell_start =
            |reason: &Reason| (self.events)(Event::StepStarted { step: step.id.0, reason: reason.clone() });
        let mut reason = reason;
        let (ingest, made, mut seen) = match &step.operation {
            Operation::Run(run) => {
                tell_start(&reason);
                emulated::check(self, step, outcomes)?;
                exec_run::execute(self, step, run, parent, outcomes, output)
                    .map_err(|cause| emulated::of_refusal(step, cause))?
            }
            Operation::Workdir(workdir) => {
                tell_start(&reason);
                self.place(parent, |lower, ingest| workdir::execute(self, workdir, lower, parent, ingest))?
            }
            Operation::Copy(copy) => {
                let source = self.copy_source(copy, outcomes)?;
                let picked = exec_copy::pick(self, copy, &source)?;
                let previous = self.kept_from(step, keys)?;
                self.place(parent, |lower, ingest| {
                    let placing = exec_copy::place(self, copy, lower, parent, &source, &picked, ingest)?
                        .beside(&source, previous.as_ref().map(|previous| &*previous.index))?;
                    if let Reason::Unrecorded { .. } = reason
                        && let Some(changed) = placing.first_change(self, copy)
                    {
                        reason = Reason::Changed(changed);
                    }
                    tell_start(&reason);
                    placing.make(self, &source, ingest)
                })?
            }
        };
        let on_parent = |layer: Layer| {
            let diff_id = layer.record.diff_id.clone();
            Arc::new(parent.with(layer, diff_id))
        };
        let written = Span::since(started_at);
        seen.written = Some(written);
        let (chain, created_seconds, made) = match self.same_as_before(step, keys, &made, written)? {
            Some((previous, layer)) => {
                let made = on_parent(self.commit(ingest, made)?);
                let chain = on_parent(layer);
                let differs = made.chain_id() != chain.chain_id();
                seen.written = previous.written;
                (chain, previous.created_seconds, differs.then_some((made, written)))
            }
            None => (on_parent(self.commit(ingest, made)?), self.request.now_seconds, None),
        };
        let elapsed = started.elapsed();
        let elapsed_ms = u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX);
        lock(&self.verdicts).insert(step.id, (Verdict::Ran { reason }, elapsed_ms));
        (self.events)(Event::StepFinished { step: step.id.0, elapsed });
        let outcome = Outcome { chain, created_seconds, record: None, network: None, fresh: None };
        Ok((outcome, made, seen))
    }

    /// What a step really made, where an equal layer of an earlier run is handed on.
    fn unkept(&self, step: &Step, keys: &Keys, parent: &Arc<Chain>, chain: Arc<Chain>, seen: Seen) -> Fresh {
        let created_seconds = self.request.now_seconds;
        let outcome =
            Outcome { chain: chain.clone(), created_seconds, record: None, network: None, fresh: None };
        let (keys, parent) = (keys.clone(), parent.clone());
        let unkept = Unkept { step: step.id, keys, parent, outcome, seen };
        Fresh { chain, unkept: vec![Arc::new(unkept)] }
    }

    /// The layer of the last run of the same instruction, if this run made the same, times apart: what follows is then as
    /// it was. Only ever a whole layer: files of one layer may hold the times of others.
    fn same_as_before(
        &self,
        step: &Step,
        keys: &Keys,
        made: &Made,
        written: Span,
    ) -> Result<Option<(Previous<'_>, Layer)>, StepError> {
        let Operation::Run(_) = step.operation else { return Ok(None) };
        let previous = self.kept_from(step, keys)?;
        let Some(previous) = previous.filter(|previous| previous.is_same(&made.index, written)) else {
            return Ok(None);
        };
        let layer = self.layer_of(&previous.layer)?;
        Ok(layer.map(|layer| (previous, layer)))
    }

    /// The last run of the same instruction, for what of it is kept when the step is done again: nothing, where the build
    /// was told to take nothing over.
    fn kept_from(&self, step: &Step, keys: &Keys) -> Result<Option<Previous<'_>>, StepError> {
        let policy = self.policy(step);
        if policy.no_cache || policy.exact {
            return Ok(None);
        }
        self.previous(keys)
    }

    /// Makes a layer by looking at the files below; what is asked of them is the record.
    pub(crate) fn place(
        &self,
        parent: &Arc<Chain>,
        make: impl FnOnce(&Watched<'_>, &Ingest) -> Result<Made, StepError>,
    ) -> Result<(Ingest, Made, Seen), StepError> {
        let ingest = self.store.ingest()?;
        let tree = StepTree::lower(parent, parent.merged(&self.indexes)?);
        let lower = Watched::new(&tree.merged);
        let made = make(&lower, &ingest)?;
        // What cannot be read for the record is no fault of the step, which is done.
        let (record, why_not) = match lower.finish(&tree) {
            Ok(uses) => (Some(Record { trees: vec![uses] }), None),
            Err(error) => (None, Some(format!("what it used could not be read: {error}"))),
        };
        Ok((ingest, made, Seen { record, why_not, network: Some(false), written: None }))
    }

    pub(crate) fn commit(&self, ingest: Ingest, made: Made) -> Result<Layer, StepError> {
        let bytes = made.index.encode();
        std::fs::write(ingest.index(), &bytes)
            .map_err(|error| mica_sys::Error::new("write", ingest.index(), error))?;
        let record = LayerRecord {
            diff_id: DiffId(Digest::from_sha256(made.diff_id)),
            chain_id: None,
            size_bytes: disk_size_bytes(&made.index) + bytes.len() as u64,
            tar_size_bytes: made.tar_size_bytes,
            origin: None,
        };
        // The lease is older than the layer, so no collection takes it.
        let layer = self.store.commit_layer(ingest, &record)?;
        self.indexes.put(&layer, made.index);
        Ok(layer)
    }
}

/// What a tree takes on a disk with blocks of 4 KiB.
fn disk_size_bytes(index: &Index) -> u64 {
    const BLOCK_BYTES: u64 = 4096;
    let size = |entry: &Entry| match entry.kind {
        Kind::File { size, .. } => size.div_ceil(BLOCK_BYTES) * BLOCK_BYTES,
        Kind::Directory { .. } => BLOCK_BYTES,
        _ => 0,
    };
    index.entries().iter().map(size).sum()
}
