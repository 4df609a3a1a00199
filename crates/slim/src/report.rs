//! What was kept and what went, in numbers.

use std::collections::{BTreeMap, HashSet};

use mica_oci::{ImageId, Reference};
use mica_tree::{Kind, MergedIndex};
use serde::Serialize;

/// How deep directories are told apart: `/usr/share/doc` is one, with all that is below.
const DEPTH: usize = 3;

/// A number of files and what they hold.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// All that is not a directory, each name counted.
    pub files: u64,
    /// Contents, each file counted once.
    pub bytes: u64,
}

/// What went of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RemovedDirectory {
    /// Absolute.
    pub path: String,
    /// What was below it and is not in the result.
    #[serde(flatten)]
    pub removed: Amount,
}

/// A slim image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slimmed {
    /// The result.
    pub image: ImageId,
    /// Its name.
    pub name: Reference,
    /// What it was made of.
    pub source: ImageId,
    /// What is left.
    pub kept: Amount,
    /// What was there.
    pub all: Amount,
    /// What went, the largest first.
    pub removed: Vec<RemovedDirectory>,
}

/// What is there, what is kept of it, and what goes by directories.
pub(crate) struct Count {
    pub all: Amount,
    pub kept: Amount,
    pub removed: Vec<RemovedDirectory>,
}

/// Counts by the flags of what is kept.
pub(crate) fn count(tree: &MergedIndex, flags: &[bool]) -> Count {
    let (mut all, mut kept) = (Amount::default(), Amount::default());
    let mut removed: BTreeMap<&[u8], Amount> = BTreeMap::new();
    let mut seen = HashSet::new();
    let kept_files: HashSet<(usize, usize)> = (0..tree.len())
        .filter(|position| flags[*position])
        .filter_map(|position| tree.file_at(position))
        .collect();
    for (position, is_kept) in flags.iter().enumerate() {
        let entry = tree.entry(position);
        if entry.is_directory() {
            continue;
        }
        let file = tree.file_at(position);
        let size = match tree.attributes_at(position).map(|attributes| &attributes.kind) {
            Some(Kind::File { size, .. }) if file.is_some_and(|file| seen.insert(file)) => *size,
            _ => 0,
        };
        all.add(size);
        let stays = file.is_some_and(|file| kept_files.contains(&file));
        if *is_kept {
            kept.files += 1;
        } else {
            let size = if stays { 0 } else { size };
            removed.entry(directory(&entry.path)).or_default().add(size);
        }
        // A file whose first name goes and whose second one stays has its bytes here all the same.
        if stays {
            kept.bytes = kept.bytes.saturating_add(size);
        }
    }
    let mut removed: Vec<RemovedDirectory> = removed
        .into_iter()
        .map(|(path, removed)| RemovedDirectory {
            path: format!("/{}", String::from_utf8_lossy(path)),
            removed,
        })
        .collect();
    removed.sort_by_key(|directory| std::cmp::Reverse((directory.removed.bytes, directory.removed.files)));
    Count { all, kept, removed }
}

impl Amount {
    fn add(&mut self, size_bytes: u64) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(size_bytes);
    }
}

/// The directory that a file is counted for.
fn directory(path: &[u8]) -> &[u8] {
    let ends: Vec<usize> =
        path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at).take(DEPTH).collect();
    &path[..ends.last().copied().unwrap_or(0)]
}
