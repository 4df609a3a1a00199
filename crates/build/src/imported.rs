//! Results that caches have: found as those of the store are, brought into it, and from then on its own; and the way back.

use std::sync::Arc;

use mica_cache::{ExportedStep, Found};
use mica_oci::ImageConfig;
use mica_plan::{Operation, Step, StepMount};
use mica_store::{CacheRecord, Layer, StepRecord};
use mica_trace::Record;

use crate::build::{Build, lock};
use crate::cache_mount::cache_name;
use crate::error::StepError;
use crate::filesystem::Chain;
use crate::outcomes::{Outcome, Outcomes};
use crate::policy::Policy;
use crate::reuse::{ChainFacts, Keys, Previous, PreviousLayer, RecordFacts, expired, step_trees};
use crate::verdict::{Reason, Verdict};

impl Build<'_> {
    /// A result that a cache has for just these layers.
    pub(crate) fn imported_exact(
        &self,
        keys: &Keys,
        parent: &Arc<Chain>,
        policy: &Policy,
        refused: &mut Option<Reason>,
    ) -> Result<Option<(Outcome, Verdict)>, StepError> {
        let Some(exact) = &keys.exact else { return Ok(None) };
        for found in self.caches.imports.by_exact(exact) {
            let said = found.step();
            if let Some(expired) = expired(policy, said.network, said.made) {
                refused.get_or_insert(expired);
                continue;
            }
            if let Some(outcome) = self.take_over(&found, None, keys, parent)? {
                let cache = found.cache().to_owned();
                return Ok(Some((outcome, Verdict::Imported { cache, by_record: false, unused: None })));
            }
        }
        self.tell_of_caches();
        Ok(None)
    }

    /// A result of a cache whose inputs all have the values that they had: verified before its layer is fetched.
    pub(crate) fn imported_by_record(
        &self,
        step: &Step,
        keys: &Keys,
        parent: &Arc<Chain>,
        outcomes: &Outcomes,
        policy: &Policy,
        refused: &mut Option<Reason>,
    ) -> Result<Option<(Outcome, Verdict)>, StepError> {
        let Some(key) = &keys.record else { return Ok(None) };
        let candidates = self.caches.imports.by_record(key);
        self.tell_of_caches();
        if candidates.is_empty() {
            return Ok(None);
        }
        let trees = step_trees(self, step, parent, outcomes)?;
        for found in candidates {
            let Some((facts, said)) = read_facts(&found) else { continue };
            let inputs = found.inputs();
            let reason = match self.refusal(step, &facts, said, outcomes, policy)? {
                Some(reason) => Some(reason),
                None => self.difference_of(inputs.as_deref(), &trees),
            };
            if let Some(reason) = reason {
                note_refused(refused, reason);
                continue;
            }
            if let Some(outcome) = self.take_over(&found, inputs, keys, parent)? {
                let unused = match self.request.explain {
                    true => self.unused_changes(&facts.parent, &trees),
                    false => None,
                };
                let cache = found.cache().to_owned();
                return Ok(Some((outcome, Verdict::Imported { cache, by_record: true, unused })));
            }
        }
        self.tell_of_caches();
        Ok(None)
    }

    /// Brings a result into the store, with all that a later build finds it by. `None` if it cannot be had; that was told.
    fn take_over(
        &self,
        found: &Found<'_>,
        inputs: Option<Vec<u8>>,
        keys: &Keys,
        parent: &Arc<Chain>,
    ) -> Result<Option<Outcome>, StepError> {
        let said = found.step();
        let inputs = match inputs {
            None if said.inputs.is_some() => match found.inputs() {
                Some(inputs) => Some(inputs),
                None => {
                    self.tell_of_caches();
                    return Ok(None);
                }
            },
            inputs => inputs,
        };
        let brought = found.layer(self.store, mica_image::mapping(self.request.rootless));
        self.tell_of_caches();
        let Some(brought) = brought else { return Ok(None) };
        let Some(layer) = self.stored(found.diff_id(), brought.record.chain_id.as_ref())? else {
            return Ok(None);
        };
        let diff_id = layer.record.diff_id.clone();
        let chain_id = layer.record.chain_id.clone();
        let mut outcome = Outcome {
            chain: Arc::new(parent.with(layer, diff_id.clone())),
            created_seconds: said.created,
            record: None,
            network: said.network,
            fresh: None,
        };
        // The record key of one that was found by its layers may be of a step that reads the context, whose contents nobody
        // has read here: then what the cache says of it is not looked up by.
        let key = keys.record.filter(|key| said.record.is_none_or(|said| said.0 == *key));
        if let (Some(key), Some((_, extra))) = (key, read_facts(found).zip(found.facts())) {
            let inputs = inputs.unwrap_or_default();
            if inputs.is_empty() || Record::decode(&inputs).is_ok() {
                let mut record = StepRecord::new(key, keys.family, diff_id, chain_id.clone(), extra);
                record.created_unix_s = said.made;
                let id = self.store.put_step_record(&record, &inputs)?;
                outcome.record = (!inputs.is_empty()).then_some(id);
            }
        }
        if let Some(exact) = &keys.exact {
            self.put_exact(exact, keys, &outcome, said.made)?;
        }
        Ok(Some(outcome))
    }

    /// What the last run of the same instruction left elsewhere, for an instruction that was never done here.
    pub(crate) fn imported_previous(&self, keys: &Keys) -> Option<Previous<'_>> {
        let mut found = self.caches.imports.by_family(&keys.family);
        // Many projects have a `COPY . /app`: one with the same names comes first.
        found.sort_by_key(|found| found.step().shape.0 != keys.shape);
        let previous = found.into_iter().find_map(|found| {
            let (facts, _) = read_facts(&found)?;
            let (index, created_seconds) = (Arc::new(found.index()?), facts.created_seconds);
            let layer = PreviousLayer::Imported(Box::new(found));
            Some(Previous { layer, index, created_seconds, written: facts.written })
        });
        self.tell_of_caches();
        previous
    }

    /// The layer of an earlier run, brought into the store.
    pub(crate) fn layer_of(&self, previous: &PreviousLayer<'_>) -> Result<Option<Layer>, StepError> {
        let found = match previous {
            PreviousLayer::Stored(layer) => return Ok(Some(layer.clone())),
            PreviousLayer::Imported(found) => found,
        };
        let brought = found.layer(self.store, mica_image::mapping(self.request.rootless));
        self.tell_of_caches();
        match brought {
            Some(layer) => self.stored(found.diff_id(), layer.record.chain_id.as_ref()),
            None => Ok(None),
        }
    }

    /// Fills the directory of a cache mount that was never used here with what a cache has for it.
    pub(crate) fn fill_mount(&self, id: &str) {
        let mapping = mica_image::mapping(self.request.rootless);
        // Two steps of this build that are the first to use it: the second one waits and finds it.
        let _one = lock(&self.mounts_lock);
        if let Err(error) = self.caches.imports.fill_mount(id, self.store, mapping) {
            self.warn_once(&format!("a cache mount is not filled: {error}"));
        }
        self.tell_of_caches();
    }

    /// Says what was wrong with caches.
    pub(crate) fn tell_of_caches(&self) {
        for warning in self.caches.imports.take_warnings() {
            self.warn_once(&warning);
        }
    }

    /// What a step was looked up by, for the time when the build is done.
    pub(crate) fn note_done(&self, step: &Step, keys: &Keys) {
        if self.caches.gather || self.caches.inline {
            lock(&self.done).insert(step.id, keys.clone());
        }
    }

    /// The results of all steps as the next build here would find them.
    pub(crate) fn gather_results(&self, outcomes: &Outcomes) -> Result<Vec<ExportedStep>, StepError> {
        let chain = |target: &mica_plan::PlatformTarget| self.chain(&target.result.state, outcomes);
        let images = self.targets.iter().map(chain).collect::<Result<Vec<_>, _>>()?;
        let done = lock(&self.done).clone();
        let mut results = Vec::new();
        for step in &self.graph.steps {
            let (Some(outcome), Some(keys)) = (outcomes.get(step.id), done.get(&step.id)) else { continue };
            let row = match &keys.exact {
                Some(exact) => self.store.cache_get(exact)?,
                None => None,
            };
            let row = row.and_then(|row| Some((ChainFacts::decode(&row.extra)?, row)));
            let id = row.as_ref().map_or(outcome.record, |(facts, _)| facts.record.or(outcome.record));
            let record = match id {
                Some(id) => self.store.step_record(id)?,
                None => None,
            };
            let mut one = Vec::new();
            match (row, record) {
                (Some((facts, row)), Some(record)) if row.diff_id == record.diff_id => {
                    let mut result = of_record(keys, &record);
                    result.exact = keys.exact;
                    result.network = facts.network;
                    one.push(result);
                }
                (row, record) => {
                    one.extend(row.map(|(facts, row)| of_row(keys, facts, &row)));
                    one.extend(record.map(|record| of_record(keys, &record)));
                }
            }
            for result in &mut one {
                result.is_in_image = images.iter().any(|image| image.diff_ids().contains(&result.diff_id));
            }
            results.extend(one);
        }
        Ok(results)
    }

    /// Lets an image carry the results that its layers are of.
    pub(crate) fn add_inline(&self, image: &mut ImageConfig, outcomes: &Outcomes) -> Result<(), StepError> {
        if !self.caches.inline {
            return Ok(());
        }
        let mut results = self.gather_results(outcomes)?;
        results.retain(|result| image.rootfs.diff_ids.contains(&result.diff_id));
        for result in &mut results {
            result.is_in_image = true;
            if let Some(time) = self.request.reproducible {
                result.made_unix_s = result.made_unix_s.min(time);
                result.facts = result.facts.take().and_then(|facts| without_place_and_time(&facts));
            }
        }
        match mica_cache::inline(self.store, &results) {
            Ok(Some(inline)) => {
                image.extra.insert(mica_cache::config::INLINE_FIELD.to_owned(), inline);
            }
            Ok(None) => {}
            Err(error) => {
                self.warn_once(&format!("the image does not carry the results of its steps: {error}"));
            }
        }
        Ok(())
    }

    /// Leaves the results of the build for exports.
    pub(crate) fn hand_results_over(&self, outcomes: &Outcomes) -> Result<(), StepError> {
        if !self.caches.gather {
            return Ok(());
        }
        let runs = self.graph.steps.iter().filter_map(|step| match &step.operation {
            Operation::Run(run) => Some(run),
            _ => None,
        });
        let mounts = runs.flat_map(|run| &run.mounts);
        let mounts = mounts.filter(|mount| matches!(mount, StepMount::Cache { .. }));
        let ids = mounts.map(|mount| cache_name(self, mount, outcomes)).collect::<Result<Vec<_>, _>>()?;
        self.caches.add(self.gather_results(outcomes)?, ids.into_iter());
        Ok(())
    }
}

/// Keeps the reason that says most: what is not known of a newer run says less than what changed since an older one.
pub(crate) fn note_refused(first_reason: &mut Option<Reason>, refused: Reason) {
    let says_more = matches!(first_reason, Some(Reason::Unrecorded { .. }))
        && !matches!(refused, Reason::Unrecorded { .. });
    if first_reason.is_none() || says_more {
        *first_reason = Some(refused);
    }
}

/// Facts as they are wherever and whenever the step runs.
fn without_place_and_time(facts: &[u8]) -> Option<Vec<u8>> {
    let mut facts: RecordFacts = serde_json::from_slice(facts).ok()?;
    (facts.context, facts.written) = (None, None);
    serde_json::to_vec(&facts).ok()
}

/// The facts of a result and when it was made; `None` for what another mica noted.
fn read_facts(found: &Found<'_>) -> Option<(RecordFacts, i64)> {
    let facts = serde_json::from_slice(&found.facts()?).ok()?;
    Some((facts, found.step().made))
}

fn of_record(keys: &Keys, record: &StepRecord) -> ExportedStep {
    let facts = serde_json::from_slice::<RecordFacts>(&record.extra).ok();
    ExportedStep {
        exact: None,
        record: Some(record.key),
        family: record.family,
        shape: keys.shape,
        diff_id: record.diff_id.clone(),
        chain_id: record.chain_id.clone(),
        made_unix_s: record.created_unix_s,
        created_seconds: facts.as_ref().map_or(0, |facts| facts.created_seconds),
        network: facts.and_then(|facts| facts.network),
        facts: Some(record.extra.clone()),
        inputs: Some(record.id),
        is_in_image: false,
    }
}

fn of_row(keys: &Keys, facts: ChainFacts, row: &CacheRecord) -> ExportedStep {
    ExportedStep {
        exact: keys.exact,
        record: None,
        family: keys.family,
        shape: keys.shape,
        diff_id: row.diff_id.clone(),
        chain_id: row.chain_id.clone(),
        made_unix_s: row.created_unix_s,
        created_seconds: facts.created_seconds,
        network: facts.network,
        facts: None,
        inputs: None,
        is_in_image: false,
    }
}
