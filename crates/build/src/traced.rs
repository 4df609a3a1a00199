//! The trees that a step sees: what they hold, where the bytes are, what people call them.
//!
//! The step's own lower tree comes first, then those of its bind mounts in the order of the instruction. The same list
//! serves a run and verifies a record, so that both speak of the same trees.

use std::fs::File;
use std::io;
use std::sync::Arc;

use mica_context::SourceDir;
use mica_plan::{FileSource, RunStep, StepMount};
use mica_trace::{Contents, Files, TreeUse, Value};
use mica_tree::{Entry, Index, Kind, MergedIndex};

use crate::build::Build;
use crate::error::{BuildError, StepError};
use crate::exec_copy;
use crate::filesystem::Chain;
use crate::outcomes::Outcomes;
use crate::place::{clean, follow};

/// Where the bytes of a tree's files are.
#[derive(Clone)]
pub(crate) enum TreeBytes {
    /// In the trees of layers.
    Layers(Arc<Chain>),
    /// In the build context.
    Context(Arc<SourceDir>),
}

/// A tree that a step sees.
#[derive(Clone)]
pub(crate) struct StepTree {
    /// In words; empty for the step's own files.
    pub name: String,
    /// What it shows.
    pub merged: Arc<MergedIndex>,
    /// Where its files are.
    pub bytes: TreeBytes,
}

impl StepTree {
    /// The step's own files.
    pub fn lower(chain: &Arc<Chain>, merged: Arc<MergedIndex>) -> Self {
        Self { name: String::new(), merged, bytes: TreeBytes::Layers(chain.clone()) }
    }

    /// What is wrong when the tree cannot be read as its index says.
    pub fn damaged(&self, layer: usize, path: &[u8], reason: &str) -> StepError {
        let path = self.path_in_words(path);
        match &self.bytes {
            TreeBytes::Layers(chain) => match chain.layer(layer) {
                Some(layer) => StepError::from(BuildError::damaged(layer, path, reason)),
                None => StepError::Cancelled,
            },
            TreeBytes::Context(_) => StepError::ContextChanged { path, reason: reason.to_owned() },
        }
    }

    /// Of files of the context the content counts in place of the time, as it does for COPY: a fresh checkout changes
    /// nothing. `None` if the content cannot be told, or is not known to be what the step saw.
    pub fn settle_times(&self, mut uses: TreeUse) -> Option<TreeUse> {
        let TreeBytes::Context(directory) = &self.bytes else { return Some(uses) };
        for used in &mut uses.uses {
            let Value::File { mtime, content, .. } = &mut used.value else { continue };
            *mtime = None;
            if content.is_none() {
                *content = Some(self.content(self.merged.position(&used.path)?).ok()?);
            }
            // Somebody may have written to the file while the step had it: then nobody knows which content it saw.
            directory.index().position(&used.path).filter(|position| directory.is_unchanged(*position))?;
        }
        Some(uses)
    }

    /// A path of the tree as people write it.
    pub fn path_in_words(&self, path: &[u8]) -> String {
        let path = String::from_utf8_lossy(path);
        match self.bytes {
            TreeBytes::Layers(_) => format!("/{path}"),
            TreeBytes::Context(_) => path.into_owned(),
        }
    }
}

impl TreeBytes {
    /// The layers, if it is layers.
    pub fn chain(&self) -> Option<&Arc<Chain>> {
        match self {
            Self::Layers(chain) => Some(chain),
            Self::Context(_) => None,
        }
    }
}

impl Files for TreeBytes {
    fn open(&self, tree: &MergedIndex, position: usize) -> io::Result<File> {
        let entry = tree.entry(position);
        match self {
            Self::Layers(chain) => chain.open_in_layer(tree.layer_at(position), &entry.path),
            Self::Context(directory) => {
                let entry = directory.index().get(&entry.path).ok_or(io::ErrorKind::NotFound)?;
                directory.open_file(entry).map_err(|error| io::Error::other(error.to_string()))
            }
        }
    }
}

impl Contents for StepTree {
    fn content(&self, position: usize) -> io::Result<[u8; 32]> {
        match &self.bytes {
            TreeBytes::Layers(_) => {
                let mut hasher = blake3::Hasher::new();
                hasher.update_reader(self.bytes.open(&self.merged, position)?)?;
                Ok(*hasher.finalize().as_bytes())
            }
            TreeBytes::Context(directory) => {
                // The digest of a file that has several names is known by the first one.
                let (path, index) = (&self.merged.entry(position).path, directory.index());
                let named = match &self.merged.entry(position).kind {
                    Kind::Hardlink { target } => target,
                    _ => path,
                };
                let position = index.position(named).ok_or(io::ErrorKind::NotFound)?;
                let digests =
                    directory.content(&[position]).map_err(|error| io::Error::other(error.to_string()))?;
                digests.first().copied().ok_or_else(|| io::ErrorKind::NotFound.into())
            }
        }
    }
}

/// The context as a container sees it: what it says of owners is about this machine.
pub(crate) fn without_owners(index: &Index) -> Index {
    let entry = |entry: &Entry| Entry { uid: 0, gid: 0, ..entry.clone() };
    Index::from_sorted(index.entries().iter().map(entry).collect())
}

/// The trees of a RUN step.
pub(crate) fn trees(
    build: &Build<'_>,
    run: &RunStep,
    parent: &Arc<Chain>,
    outcomes: &Outcomes,
) -> Result<Vec<StepTree>, StepError> {
    let mut trees = vec![StepTree::lower(parent, parent.merged(&build.indexes)?)];
    for mount in &run.mounts {
        let StepMount::Bind { from, source, span, .. } = mount else { continue };
        let tree = tree_of(build, from, outcomes)?;
        // The runtime would only tell a failed system call.
        if follow(&tree.merged, &clean(source))?.is_none() {
            let shown = source.strip_prefix('/').filter(|_| matches!(from, FileSource::Context));
            let path = shown.unwrap_or(source).to_owned();
            return Err(exec_copy::missing(build, from, &tree.merged, path, *span));
        }
        trees.push(tree);
    }
    Ok(trees)
}

/// What `from` of a mount names.
pub(crate) fn tree_of(
    build: &Build<'_>,
    from: &FileSource,
    outcomes: &Outcomes,
) -> Result<StepTree, StepError> {
    let name = build.place_name(from);
    Ok(match from {
        FileSource::Context => {
            let (directory, merged) = build.context_without_owners()?;
            StepTree { name, merged, bytes: TreeBytes::Context(directory) }
        }
        FileSource::State(state) => {
            let chain = build.chain(state, outcomes)?;
            StepTree { name, merged: chain.merged(&build.indexes)?, bytes: TreeBytes::Layers(chain) }
        }
    })
}
