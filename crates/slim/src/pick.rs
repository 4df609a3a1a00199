//! The entries of the result's one layer. Pure.

use std::collections::{HashMap, HashSet};

use mica_layer::assemble::{Item, Source};
use mica_tree::{Entry, Kind, MergedIndex};

use crate::keep::Kept;

/// The kept entries in the order of an index, with positions as tokens for their bytes. Names of one file stay names of one
/// file; the first that is kept has its attributes.
pub(crate) fn pick(tree: &MergedIndex, kept: &Kept) -> Vec<Item> {
    let mut items = Vec::new();
    let mut first_names: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
    let mut directories: HashSet<&[u8]> = HashSet::from([b"".as_slice()]);
    for position in (0..tree.len()).filter(|position| kept.flags[*position]) {
        let entry = tree.entry(position);
        // What stands in no directory, as malformed layers have it, was never seen.
        if entry.parent().is_some_and(|parent| !directories.contains(parent)) {
            continue;
        }
        let Some(attributes) = tree.attributes_at(position) else { continue };
        let mut copied = Entry { path: entry.path.clone(), ..attributes.clone() };
        let mut source = Source::None;
        match (&attributes.kind, tree.file_at(position)) {
            (Kind::Socket | Kind::Whiteout, _) => continue,
            (Kind::Directory { .. }, _) => {
                copied.kind = Kind::Directory { opaque: false, implied: false };
                directories.insert(&entry.path);
            }
            (Kind::File { .. }, _) if kept.replaced.contains_key(&position) => {
                let bytes = kept.replaced[&position].clone();
                copied.kind = Kind::File { size: bytes.len() as u64, content: None };
                source = Source::Bytes(bytes);
            }
            (Kind::File { .. }, Some(file)) => match first_names.get(&file) {
                Some(first) => copied.kind = Kind::Hardlink { target: first.clone() },
                None => {
                    first_names.insert(file, entry.path.clone());
                    source = Source::File { token: position, read_xattrs: false };
                }
            },
            _ => {}
        }
        items.push(Item { entry: copied, source });
    }
    items
}
