//! Finding an earlier result of a step, by the layers below it or by what it used, and keeping the result of a new one.
//!
//! Three keys, each made of the one before it:
//!
//! | key      | is made of                                                     | finds                                   |
//! |----------|----------------------------------------------------------------|-----------------------------------------|
//! | family   | the instruction, the network, the hosts, the user namespace     | the last result of this instruction     |
//! | record   | family, contents that COPY and ADD bring from elsewhere         | results whose inputs are to be verified |
//! | exact    | record, the layers below, those of bind mounts                  | the result on just these layers         |
//!
//! A COPY that stands alone (`--link`) has no layers below in its exact key.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use mica_layer::verify;
use mica_oci::DiffId;
use mica_plan::{FileSource, Operation, Step, StepMount, definition_key, step_key};
use mica_store::{CacheRecord, Layer, StepRecord};
use mica_sys::error::ErrorAt;
use mica_trace::{Change, Difference, Record};
use mica_tree::{Entry, Index, Kind, Time};
use serde::{Deserialize, Serialize};

use crate::build::{Build, forget_damaged};
use crate::error::StepError;
use crate::exec_copy;
use crate::filesystem::Chain;
use crate::imported::note_refused;
use crate::materialize;
use crate::outcomes::{Outcome, Outcomes};
use crate::policy::{self, Policy};
use crate::request::BuildNetwork;
use crate::traced::{self, StepTree};
use crate::verdict::{Changed, Reason, UnusedChanges, Verdict};

/// How many paths an explanation names of those that changed and were not used.
const UNUSED_NAMED: usize = 8;

/// Bytes of indexes whose layers are looked at before they are taken over, in one build: a build of nothing but earlier
/// results should stay short on the largest images too.
const LOOKED_AT_BYTES_MAX: u64 = 4 << 20;

/// A digest that a result is kept under.
pub(crate) type Key = [u8; 32];

/// What a step is looked up by.
#[derive(Debug, Clone)]
pub(crate) struct Keys {
    /// The instruction and all that is not a file.
    pub family: Key,
    /// What it copies, without the contents of files; the family for all but COPY and ADD.
    pub shape: Key,
    /// With the contents it copies; `None` while nobody has read them.
    pub record: Option<Key>,
    /// With the layers below; `None` when that would mean reading contents that a record does without.
    pub exact: Option<Key>,
    /// Equal for steps of one build that do the same.
    pub once: Option<Key>,
    /// Which build context it copies from, as a digest of its path; no part of a key.
    pub context: Option<String>,
}

/// What is known of a step before it runs.
pub(crate) enum Known {
    /// Its result.
    Found(Outcome, Verdict),
    /// Why it has to run.
    Not(Reason),
}

/// What a cache record says beside its layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ChainFacts {
    pub created_seconds: i64,
    pub network: Option<bool>,
    pub record: Option<i64>,
}

impl ChainFacts {
    fn encode(self) -> Vec<u8> {
        let mut bytes = self.created_seconds.to_le_bytes().to_vec();
        bytes.push(self.network.map_or(2, u8::from));
        bytes.extend(self.record.unwrap_or_default().to_le_bytes());
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let number = |bytes: &[u8]| bytes.try_into().map(i64::from_le_bytes).ok();
        let network = match bytes.get(8)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        };
        let record = number(bytes.get(9..)?)?;
        Some(Self {
            created_seconds: number(bytes.get(..8)?)?,
            network,
            record: (record != 0).then_some(record),
        })
    }
}

/// What a step record says beside its layer and its inputs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RecordFacts {
    /// Time of the result in images, seconds since 1970.
    pub created_seconds: i64,
    /// Whether the step opened an IPv4 or IPv6 socket; `None` when nobody looked.
    pub network: Option<bool>,
    /// Chain ID of the base image, empty for none.
    base: String,
    /// The layers it ran on, lowest first.
    pub parent: Vec<String>,
    /// Which build context it copied from, as a digest of its path.
    pub context: Option<String>,
    /// Why there is nothing about what it used; such a record only tells what the last run made.
    unrecorded: Option<String>,
    /// When the run began and ended that wrote the layer.
    pub written: Option<Span>,
}

/// When a run began and ended, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Span {
    start_unix_s: i64,
    end_unix_s: i64,
}

impl Span {
    /// From that moment up to now.
    pub fn since(start: std::time::SystemTime) -> Self {
        Self { start_unix_s: unix_s(start), end_unix_s: now_unix_s() }
    }

    /// Whether a file that was written in the run may have that time. The clock that files are stamped by lags a little.
    fn has(self, time: Time) -> bool {
        (self.start_unix_s - 1..=self.end_unix_s).contains(&time.seconds)
    }
}

/// What the last run of an instruction left.
pub(crate) struct Previous<'b> {
    /// Its layer.
    pub layer: PreviousLayer<'b>,
    /// What the layer holds.
    pub index: Arc<Index>,
    /// Time of the result in images, seconds since 1970.
    pub created_seconds: i64,
    /// When the layer was written.
    pub written: Option<Span>,
}

/// The layer of a last run, which may be elsewhere.
pub(crate) enum PreviousLayer<'b> {
    /// In the store.
    Stored(Layer),
    /// In a cache.
    Imported(Box<mica_cache::Found<'b>>),
}

impl Previous<'_> {
    /// Whether a run that began and ended so made the same. Times may differ where each is of the moment in which it was
    /// written. One that a program set, as `touch -d`, `cp -p` and `tar` do, is part of what it made.
    pub fn is_same(&self, made: &Index, written: Span) -> bool {
        let same_time = |(new, old): (&Entry, &Entry)| {
            // Later steps do not see the times of anything else.
            !matches!(new.kind, Kind::File { .. })
                || new.mtime == old.mtime
                || (written.has(new.mtime) && self.written.is_some_and(|written| written.has(old.mtime)))
        };
        made.equals_but_times(&self.index) && made.entries().iter().zip(self.index.entries()).all(same_time)
    }
}

/// What a run told of itself.
#[derive(Debug, Clone, Default)]
pub(crate) struct Seen {
    /// What it used; `None` when that is not known.
    pub record: Option<Record>,
    /// Why it is not known.
    pub why_not: Option<String>,
    /// Whether it opened an IPv4 or IPv6 socket; `None` when nobody looked.
    pub network: Option<bool>,
    /// When its layer was written: earlier than it ran, if it made what was there.
    pub written: Option<Span>,
}

fn now_unix_s() -> i64 {
    unix_s(std::time::SystemTime::now())
}

pub(crate) fn unix_s(time: std::time::SystemTime) -> i64 {
    time.duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX))
}

impl Build<'_> {
    /// The rules for reusing results of a step.
    pub(crate) fn policy(&self, step: &Step) -> Policy {
        policy::of_step(self.request, self.graph, step)
    }

    /// The keys of a step. `read` allows reading files of the context whose digest is not known.
    pub(crate) fn keys(
        &self,
        step: &Step,
        parent: &Chain,
        outcomes: &Outcomes,
        read: bool,
    ) -> Result<Keys, StepError> {
        let mut definition = definition_key(step);
        if let Some(times) = self.times.key() {
            definition = combine(&definition, &times);
        }
        let below = parent.chain_id().map(|chain| *blake3::hash(chain.to_string().as_bytes()).as_bytes());
        let below = below.as_ref();
        Ok(match &step.operation {
            Operation::Workdir(_) => {
                let definition =
                    self.times.key_of_directories().map_or(definition, |key| combine(&definition, &key));
                let exact = Some(step_key(below, &definition, &[]));
                let record = Some(step_key(None, &definition, &[]));
                Keys { family: definition, shape: definition, record, exact, once: exact, context: None }
            }
            Operation::Run(run) => {
                let mut family = self.run_family(&definition)?;
                for mount in &run.mounts {
                    // What is in a cache is no input; what a new one begins with is, as for BuildKit.
                    if let StepMount::Cache { from: Some(FileSource::State(state)), .. } = mount {
                        let chain = self.chain(state, outcomes)?.chain_id();
                        let chain = chain.map(|chain| chain.to_string()).unwrap_or_default();
                        family = combine(&family, blake3::hash(chain.as_bytes()).as_bytes());
                    }
                }
                let policy = self.policy(step);
                let (mut contents, mut layers, mut complete) = (Vec::new(), Vec::new(), true);
                for mount in &run.mounts {
                    let StepMount::Bind { from, source, span, .. } = mount else { continue };
                    match from {
                        FileSource::State(state) => {
                            let chain = self.chain(state, outcomes)?.chain_id();
                            let chain = chain.map(|chain| chain.to_string()).unwrap_or_default();
                            let digest = *blake3::hash(chain.as_bytes()).as_bytes();
                            contents.push(digest);
                            layers.push(digest);
                        }
                        // What a step reads of the context is recorded; without records all of it counts.
                        FileSource::Context
                            if policy.exact || run.insecure || self.why_untraced().is_some() =>
                        {
                            contents.push(materialize::context_contents(self, source, *span, outcomes)?);
                        }
                        FileSource::Context => complete = false,
                    }
                }
                let record = Some(step_key(None, &family, &[]));
                let exact = complete.then(|| step_key(below, &family, &contents));
                let once = Some(step_key(below, &family, &layers));
                Keys { family, shape: family, record, exact, once, context: None }
            }
            Operation::Copy(copy) => {
                let source = self.copy_source(copy, outcomes)?;
                let picked = exec_copy::pick(self, copy, &source)?;
                let mut found = exec_copy::contents(copy, &source, &picked, read)?;
                let shape = combine(&definition, &found.shape);
                let is_asked = found.digest.is_none() && !self.request.no_cache;
                if is_asked && (self.store.cache_has_shape(&shape)? || self.caches.imports.has_shape(&shape))
                {
                    found = exec_copy::contents(copy, &source, &picked, true)?;
                }
                let record = found.digest.map(|digest| step_key(None, &definition, &[digest]));
                let once = found.digest.map(|digest| step_key(below, &definition, &[digest]));
                let exact = match exec_copy::asks_nothing(copy) {
                    true => found.digest.map(|digest| step_key(None, &definition, &[digest])),
                    false => once,
                };
                let context = match &copy.from {
                    FileSource::Context => self.context_name(),
                    FileSource::State(_) => None,
                };
                Keys { family: definition, shape, record, exact, once, context }
            }
        })
    }

    /// The instruction with what the build gives to every RUN.
    fn run_family(&self, definition: &Key) -> Result<Key, StepError> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(definition);
        let network = match self.request.network {
            BuildNetwork::Default => 0,
            BuildNetwork::None => 1,
            BuildNetwork::Host => 2,
        };
        hasher.update(&[network, u8::from(self.request.rootless)]);
        for host in &self.request.add_hosts {
            hasher.update(&(host.len() as u64).to_le_bytes());
            hasher.update(host.as_bytes());
        }
        if let Some(name) = self.request.host_name() {
            hasher.update(b"host name");
            hasher.update(&(name.len() as u64).to_le_bytes());
            hasher.update(name.as_bytes());
        }
        if self.request.rootless {
            // Which owners there can be: others cannot be given, and are shown as root.
            for map in ["/proc/self/uid_map", "/proc/self/gid_map"] {
                let text = std::fs::read_to_string(map).at("read", map)?;
                hasher.update(&owners_inside(&text));
            }
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// The result of a step if an earlier build had it, or why there is none.
    pub(crate) fn known(
        &self,
        step: &Step,
        keys: &Keys,
        parent: &Arc<Chain>,
        outcomes: &Outcomes,
    ) -> Result<Known, StepError> {
        let policy = self.policy(step);
        if policy.no_cache {
            return Ok(Known::Not(Reason::NoCache));
        }
        if policy.never {
            return Ok(Known::Not(Reason::Never));
        }
        let mut reason = None;
        if let Some(exact) = &keys.exact
            && let Some(record) = self.store.cache_get(exact)?
            && let Some(facts) = ChainFacts::decode(&record.extra)
        {
            match expired(&policy, facts.network, record.created_unix_s) {
                Some(expired) => reason = Some(expired),
                None => {
                    let found = self.stored(&record.diff_id, record.chain_id.as_ref())?;
                    if let Some(layer) = found {
                        // Else what was made in between would be the last result, and COPY would take its times from that.
                        if let Some(record) = facts.record {
                            self.store.touch_step_record(record)?;
                        }
                        let outcome = Outcome {
                            chain: Arc::new(parent.with(layer, record.diff_id)),
                            created_seconds: facts.created_seconds,
                            record: facts.record,
                            network: facts.network,
                            fresh: None,
                        };
                        return Ok(Known::Found(outcome, Verdict::Chain));
                    }
                }
            }
        }
        let mut refused = None;
        if policy.exact {
            if let Some((outcome, verdict)) = self.imported_exact(keys, parent, &policy, &mut reason)? {
                return Ok(Known::Found(outcome, verdict));
            }
            return Ok(Known::Not(match reason {
                Some(reason) => reason,
                None if self.ran_before(keys)? => Reason::Unrecorded {
                    why: "no result is known for just these layers, and only equal layers count".into(),
                },
                None => Reason::First,
            }));
        }
        let found = match self.by_record(step, keys, parent, outcomes, &policy, &mut refused)? {
            Some(found) => Some(found),
            None if self.caches.imports.is_empty() => None,
            None => match self.imported_exact(keys, parent, &policy, &mut refused)? {
                Some(found) => Some(found),
                None => self.imported_by_record(step, keys, parent, outcomes, &policy, &mut refused)?,
            },
        };
        if let Some((outcome, verdict)) = found {
            return Ok(Known::Found(outcome, verdict));
        }
        Ok(Known::Not(match reason.or(refused) {
            Some(reason) => reason,
            None => self.why_unknown(step, keys)?,
        }))
    }

    /// A result whose inputs all have the values that they had. Without one, `first_reason` says what spoke first against
    /// the newest, if there is any.
    fn by_record(
        &self,
        step: &Step,
        keys: &Keys,
        parent: &Arc<Chain>,
        outcomes: &Outcomes,
        policy: &Policy,
        first_reason: &mut Option<Reason>,
    ) -> Result<Option<(Outcome, Verdict)>, StepError> {
        let Some(key) = &keys.record else { return Ok(None) };
        let records = self.store.step_records(key)?;
        if records.is_empty() {
            return Ok(None);
        }
        let trees = step_trees(self, step, parent, outcomes)?;
        for record in records {
            // What cannot be read is as if it were not there: the step runs.
            let Ok(facts) = serde_json::from_slice::<RecordFacts>(&record.extra) else { continue };
            let refused = match self.refusal(step, &facts, record.created_unix_s, outcomes, policy)? {
                Some(refused) => Some(refused),
                None => self.difference_of(self.store.step_inputs(record.id)?.as_deref(), &trees),
            };
            if let Some(refused) = refused {
                note_refused(first_reason, refused);
                continue;
            }
            let Some(layer) = self.stored(&record.diff_id, record.chain_id.as_ref())? else { continue };
            let outcome = Outcome {
                chain: Arc::new(parent.with(layer, record.diff_id.clone())),
                created_seconds: facts.created_seconds,
                record: Some(record.id),
                network: facts.network,
                fresh: None,
            };
            self.store.touch_step_record(record.id)?;
            if let Some(exact) = &keys.exact {
                self.put_exact(exact, keys, &outcome, record.created_unix_s)?;
            }
            let unused = match self.request.explain {
                true => self.unused_changes(&facts.parent, &trees),
                false => None,
            };
            return Ok(Some((outcome, Verdict::Record { unused })));
        }
        Ok(None)
    }

    /// Why a result is not even compared with what it used.
    pub(crate) fn refusal(
        &self,
        step: &Step,
        facts: &RecordFacts,
        made_unix_s: i64,
        outcomes: &Outcomes,
        policy: &Policy,
    ) -> Result<Option<Reason>, StepError> {
        Ok(match expired(policy, facts.network, made_unix_s) {
            Some(expired) => Some(expired),
            None if let Some(why) = &facts.unrecorded => {
                Some(Reason::Unrecorded { why: format!("what its last run used is not known: {why}") })
            }
            None if facts.network != Some(false) && facts.base != self.base_of(step, outcomes)? => {
                Some(Reason::NewBase)
            }
            None => None,
        })
    }

    /// What of a record does not hold.
    pub(crate) fn difference_of(&self, inputs: Option<&[u8]>, trees: &[StepTree]) -> Option<Reason> {
        let unreadable = |why: &str| Some(Reason::Unrecorded { why: why.to_owned() });
        let Some(inputs) = inputs else {
            return unreadable("the record of what it used is gone");
        };
        let Ok(inputs) = Record::decode(inputs) else {
            return unreadable("the record of what it used is damaged");
        };
        if inputs.trees.len() != trees.len() {
            return unreadable("the record of what it used is of another kind");
        }
        let mut both = inputs.trees.iter().zip(trees).enumerate();
        both.find_map(|(position, (uses, tree))| {
            let difference = mica_trace::verify(position, uses, &tree.merged, tree).err()?;
            Some(Reason::Changed(in_words(&difference, tree)))
        })
    }

    /// Why a step without any record has to run.
    fn why_unknown(&self, step: &Step, keys: &Keys) -> Result<Reason, StepError> {
        if let Operation::Copy(_) = &step.operation {
            // Which file it is, is found when they are placed.
            return Ok(match self.last_record(keys)? {
                Some((_, facts)) if facts.context == keys.context => {
                    Reason::Unrecorded { why: "what it copies changed".into() }
                }
                _ => Reason::First,
            });
        }
        match self.ran_before(keys)? {
            true => Ok(Reason::Unrecorded {
                why: "the layers below changed, and what its last run used is not known".into(),
            }),
            false => Ok(Reason::First),
        }
    }

    fn ran_before(&self, keys: &Keys) -> Result<bool, StepError> {
        Ok(self.store.cache_has_shape(&keys.shape)? || self.last_record(keys)?.is_some())
    }

    /// The newest record of the same instruction: of this build context, where there is one, because many projects have a
    /// `COPY . /app`; else of any, because the same project may be checked out anew elsewhere.
    fn last_record(&self, keys: &Keys) -> Result<Option<(StepRecord, RecordFacts)>, StepError> {
        let records = self.store.records_of_family(&keys.family)?.into_iter();
        let mut records = records.filter_map(|record| {
            let facts: RecordFacts = serde_json::from_slice(&record.extra).ok()?;
            Some((record, facts))
        });
        let Some(newest) = records.next() else { return Ok(None) };
        if newest.1.context == keys.context {
            return Ok(Some(newest));
        }
        Ok(Some(records.find(|(_, facts)| facts.context == keys.context).unwrap_or(newest)))
    }

    /// What the last run of the same instruction left.
    pub(crate) fn previous(&self, keys: &Keys) -> Result<Option<Previous<'_>>, StepError> {
        let Some((record, facts)) = self.last_record(keys)? else { return Ok(self.imported_previous(keys)) };
        let Some(layer) = self.stored(&record.diff_id, record.chain_id.as_ref())? else { return Ok(None) };
        // Only times would have been taken from a layer that cannot be read.
        let Ok(index) = self.indexes.get(&layer) else { return Ok(None) };
        let (layer, written) = (PreviousLayer::Stored(layer), facts.written);
        Ok(Some(Previous { layer, index, created_seconds: facts.created_seconds, written }))
    }

    /// How long the run took that wrote the layer of a record, in whole seconds.
    pub(crate) fn run_took_s(&self, record: i64) -> Option<u64> {
        let record = self.store.step_record(record).ok()??;
        let facts: RecordFacts = serde_json::from_slice(&record.extra).ok()?;
        let written = facts.written?;
        u64::try_from(written.end_unix_s.checked_sub(written.start_unix_s)?).ok()
    }

    /// A layer of an earlier result, protected for as long as this build lives.
    pub(crate) fn stored(
        &self,
        diff_id: &DiffId,
        chain_id: Option<&mica_oci::ChainId>,
    ) -> Result<Option<Layer>, StepError> {
        let Some(layer) = self.store.whole_layer(diff_id, chain_id, verify::is_whole)? else {
            return Ok(None);
        };
        // Gone in this moment, by a collection of another process: as if it had never been.
        if !self.lease.protect_layer(diff_id, chain_id)? {
            return Ok(None);
        }
        Ok(self.is_as_left(&layer)?.then_some(layer))
    }

    /// Whether nobody took files out of a layer by hand. One that is damaged is forgotten: the step makes it again.
    fn is_as_left(&self, layer: &Layer) -> Result<bool, StepError> {
        let (tree, index_path) = (layer.tree_path(), layer.index_path());
        let size_bytes = std::fs::symlink_metadata(&index_path).map_or(0, |metadata| metadata.len());
        if self.looked_at_bytes.fetch_add(size_bytes, Ordering::Relaxed) > LOOKED_AT_BYTES_MAX {
            return Ok(true);
        }
        let index = self.indexes.get(layer);
        if index.is_ok_and(|index| verify::is_untouched(&tree, &index_path, &index)) {
            return Ok(true);
        }
        if verify::is_whole(&tree, &index_path) {
            verify::mark_untouched(&index_path)?;
            return Ok(true);
        }
        let record = &layer.record;
        forget_damaged(self.store, &record.diff_id, record.chain_id.as_ref())?;
        self.warn_once(&format!("layer {} was damaged; its step runs again", record.diff_id));
        Ok(false)
    }

    /// Chain ID of the base image that a step stands on; empty for none.
    fn base_of(&self, step: &Step, outcomes: &Outcomes) -> Result<String, StepError> {
        let Some(key) = self.graph.base_of(&step.parent) else { return Ok(String::new()) };
        let state = mica_plan::FilesystemState::Image(key.clone());
        Ok(self.chain(&state, outcomes)?.chain_id().map(|chain| chain.to_string()).unwrap_or_default())
    }

    /// Keeps the result of a step that ran, and gives it the number of its record.
    pub(crate) fn keep(
        &self,
        step: &Step,
        keys: &Keys,
        parent: &Chain,
        outcomes: &Outcomes,
        outcome: &mut Outcome,
        seen: Seen,
    ) -> Result<(), StepError> {
        let Some((diff_id, chain_id)) = outcome.chain.top() else { return Ok(()) };
        if let Some(key) = keys.record {
            let facts = RecordFacts {
                created_seconds: outcome.created_seconds,
                network: seen.network,
                base: self.base_of(step, outcomes)?,
                parent: parent.diff_ids().iter().map(ToString::to_string).collect(),
                context: keys.context.clone(),
                unrecorded: seen.why_not,
                written: seen.written,
            };
            let extra = serde_json::to_vec(&facts).unwrap_or_default();
            let record = StepRecord::new(key, keys.family, diff_id.clone(), chain_id.cloned(), extra);
            let inputs = seen.record.as_ref().map(Record::encode).unwrap_or_default();
            match self.store.put_step_record(&record, &inputs) {
                Ok(id) => outcome.record = seen.record.is_some().then_some(id),
                // Too large to be kept: the step is found by its layers.
                Err(mica_store::StoreError::RecordTooLarge { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        outcome.network = seen.network;
        match &keys.exact {
            Some(exact) => self.put_exact(exact, keys, outcome, now_unix_s()),
            None => Ok(()),
        }
    }

    pub(crate) fn put_exact(
        &self,
        exact: &Key,
        keys: &Keys,
        outcome: &Outcome,
        made_unix_s: i64,
    ) -> Result<(), StepError> {
        let Some((diff_id, chain_id)) = outcome.chain.top() else { return Ok(()) };
        let facts = ChainFacts {
            created_seconds: outcome.created_seconds,
            network: outcome.network,
            record: outcome.record,
        };
        let mut record = CacheRecord::new(keys.shape, diff_id.clone(), chain_id.cloned(), facts.encode());
        record.created_unix_s = made_unix_s;
        Ok(self.store.cache_put(exact, &record)?)
    }

    /// What changed below a step since the run whose result it takes over; `None` when that run's layers are gone.
    pub(crate) fn unused_changes(&self, before: &[String], trees: &[StepTree]) -> Option<UnusedChanges> {
        let tree = trees.first()?;
        let before: Vec<DiffId> = before.iter().map(|id| id.parse().ok()).collect::<Option<_>>()?;
        let before = Chain::of_image(self.store, &before).ok()?.merged(&self.indexes).ok()?;
        let paths = mica_trace::changed_paths(&before, &tree.merged);
        let first = paths.iter().take(UNUSED_NAMED).map(|path| tree.path_in_words(path)).collect();
        Some(UnusedChanges { count: paths.len(), first })
    }
}

/// The trees that a step sees.
pub(crate) fn step_trees(
    build: &Build<'_>,
    step: &Step,
    parent: &Arc<Chain>,
    outcomes: &Outcomes,
) -> Result<Vec<StepTree>, StepError> {
    match &step.operation {
        Operation::Run(run) => traced::trees(build, run, parent, outcomes),
        _ => Ok(vec![StepTree::lower(parent, parent.merged(&build.indexes)?)]),
    }
}

/// Why a result of that age is not taken.
pub(crate) fn expired(policy: &Policy, network: Option<bool>, made_unix_s: i64) -> Option<Reason> {
    let ttl_seconds = policy.ttl_seconds_of(network)?;
    let age_seconds = now_unix_s().saturating_sub(made_unix_s);
    (age_seconds > ttl_seconds).then_some(Reason::Expired { age_seconds, ttl_seconds })
}

/// The owners of a user namespace, from lines of `inside outside count`: who they are outside makes no difference inside.
fn owners_inside(map: &str) -> Vec<u8> {
    let inside = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        format!("{} {}\n", fields.first().unwrap_or(&""), fields.get(2).unwrap_or(&""))
    };
    let lines: String = map.lines().map(inside).collect();
    [&(lines.len() as u64).to_le_bytes(), lines.as_bytes()].concat()
}

/// Two digests as one.
fn combine(a: &Key, b: &Key) -> Key {
    let mut hasher = blake3::Hasher::new();
    hasher.update(a).update(b);
    *hasher.finalize().as_bytes()
}

fn in_words(difference: &Difference, tree: &StepTree) -> Changed {
    let Difference { path, change, .. } = difference;
    let (mut path, mut what) = (path.clone(), change.what().to_owned());
    if let Change::Listing { name, was_there, is_there } = change {
        // The name that made the listing another one says more than the directory.
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        what = match (was_there, is_there) {
            (false, _) => "is new",
            (true, false) => "is gone",
            (true, true) => "is something else",
        }
        .to_owned();
    }
    Changed {
        place: tree.name.clone(),
        path: tree.path_in_words(&path),
        what,
        old: change.old_in_words(),
        new: change.new_in_words(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_a_chain_come_back() {
        for network in [None, Some(true), Some(false)] {
            for record in [None, Some(7)] {
                let facts = ChainFacts { created_seconds: -3, network, record };
                assert_eq!(ChainFacts::decode(&facts.encode()), Some(facts));
            }
        }
        assert_eq!(ChainFacts::decode(&[]), None);
        assert_eq!(ChainFacts::decode(&[1; 16]), None);
    }
}
