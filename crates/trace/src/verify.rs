//! Whether what a step used of one tree is what another tree shows.

use std::cmp::Ordering;

use mica_tree::{MergedIndex, compare_paths};

use crate::difference::{Change, Difference};
use crate::record::{Attributes, ListedKind, Listing, TreeUse, Use, Value};
use crate::value::{Contents, Names, content_in_index, value_without_content};

/// How far ahead the next use is looked for first, at most: after a leap most uses are near each other again.
const GAP_MAX: usize = 32;

/// The first difference, in order of paths, between `uses` and what `tree` shows. Of one path the content comes before the
/// size, and the size before the rest, because that explains most.
///
/// `number` is the position of the tree in the record. `contents` is asked only for files that were read and that the
/// index has no digest of.
pub fn verify(
    number: usize,
    uses: &TreeUse,
    tree: &MergedIndex,
    contents: &dyn Contents,
) -> Result<(), Box<Difference>> {
    let names = Names::new(tree);
    let (mut next, mut gap) = (0, 0);
    for used in &uses.uses {
        // Where uses are spread over a tree, the next one is about as far away as the last one was.
        let found = tree.find_near(next, next + gap, &used.path);
        let (Ok(position) | Err(position)) = found;
        gap = (position - next).min(GAP_MAX);
        next = position + usize::from(found.is_ok());
        if let Some(change) = change(used, tree, &names, found.ok(), contents) {
            return Err(Box::new(Difference { tree: number, path: used.path.clone(), change }));
        }
    }
    Ok(())
}

/// The paths that show something else to a step in `new` than in `old`, in order. A directory is not among them for the
/// names in it: these are themselves.
///
/// Where an index has no digest of a content, size and time stand for it.
pub fn changed_paths(old: &MergedIndex, new: &MergedIndex) -> Vec<Vec<u8>> {
    let (old_names, new_names) = (Names::new(old), Names::new(new));
    let mut changed = Vec::new();
    let (mut at_old, mut at_new) = (0, 0);
    while at_old < old.len() || at_new < new.len() {
        let order = match (at_old < old.len(), at_new < new.len()) {
            (true, true) => compare_paths(&old.entry(at_old).path, &new.entry(at_new).path),
            (true, false) => Ordering::Less,
            _ => Ordering::Greater,
        };
        let path = match order {
            Ordering::Greater => &new.entry(at_new).path,
            _ => &old.entry(at_old).path,
        };
        // Only the root may be there without an entry; everything else that one side has no entry for is new or gone.
        let side = |tree, names, position: usize, has: bool| match has {
            true => value_without_content(tree, names, Some(position), false),
            false if path.is_empty() => value_without_content(tree, names, None, false),
            false => Value::Absent,
        };
        let (has_old, has_new) = (order != Ordering::Greater, order != Ordering::Less);
        // Most layers are in both, and their entries are the very same.
        let is_same_entry = has_old
            && has_new
            && std::ptr::eq(old.entry(at_old), new.entry(at_new))
            && old_names.of(at_old).is_empty()
            && new_names.of(at_new).is_empty();
        let same_content = || match (content_in_index(old, at_old), content_in_index(new, at_new)) {
            (Some(old), Some(new)) => old == new,
            _ => true,
        };
        if !is_same_entry
            && (side(old, &old_names, at_old, has_old) != side(new, &new_names, at_new, has_new)
                || (has_old && has_new && !same_content()))
        {
            changed.push(path.clone());
        }
        at_old += usize::from(has_old);
        at_new += usize::from(has_new);
    }
    changed
}

fn change(
    used: &Use,
    tree: &MergedIndex,
    names: &Names,
    position: Option<usize>,
    contents: &dyn Contents,
) -> Option<Change> {
    let listed = matches!(used.value, Value::Directory { listing: Some(_), .. });
    let now = match position {
        None if !used.path.is_empty() => Value::Absent,
        position => value_without_content(tree, names, position, listed),
    };
    if let (Some(position), Value::File { content: Some(old), size_bytes: old_size, .. }) =
        (position, &used.value)
        && let Value::File { size_bytes, .. } = now
    {
        let new = match content_in_index(tree, position) {
            Some(new) => Ok(new),
            // Nothing needs to be read to know that it is another content.
            None if size_bytes != *old_size => Ok(*old),
            None => contents.content(position),
        };
        match new {
            Ok(new) if new == *old => {}
            Ok(new) => return Some(Change::Content { old: *old, new }),
            Err(error) => return Some(Change::Unreadable { reason: error.to_string() }),
        }
    }
    compare(&used.value, &now)
}

/// How two values differ, contents of files aside.
pub(crate) fn compare(old: &Value, new: &Value) -> Option<Change> {
    match (old, new) {
        (Value::Absent, Value::Absent) => None,
        (Value::Absent, _) => Some(Change::Appeared),
        (_, Value::Absent) => Some(Change::Disappeared),
        (
            Value::Directory { attributes: old, listing: old_listing },
            Value::Directory { attributes: new, listing: new_listing },
        ) => compare_attributes(old, new).or_else(|| match (old_listing, new_listing) {
            (Some(old), Some(new)) => compare_listings(old, new),
            _ => None,
        }),
        (
            Value::File { attributes: old, size_bytes: old_size, mtime: old_time, names: old_names, .. },
            Value::File { attributes: new, size_bytes: new_size, mtime: new_time, names: new_names, .. },
        ) => {
            let (old_size, new_size, old_time, new_time) = (*old_size, *new_size, *old_time, *new_time);
            let size = (old_size != new_size).then_some(Change::Size { old: old_size, new: new_size });
            let times = || old_time.zip(new_time).filter(|(old, new)| old != new);
            let time = || times().map(|(old, new)| Change::Time { old, new });
            size.or_else(|| compare_attributes(old, new))
                .or_else(time)
                .or_else(|| (old_names != new_names).then_some(Change::Names))
        }
        (
            Value::Symlink { attributes: old, target: old_target },
            Value::Symlink { attributes: new, target: new_target },
        ) => match old_target == new_target {
            true => compare_attributes(old, new),
            false => Some(Change::Target { old: old_target.clone(), new: new_target.clone() }),
        },
        (
            Value::Special { attributes: old, kind: old_kind, rdev: old_rdev },
            Value::Special { attributes: new, kind: new_kind, rdev: new_rdev },
        ) if old_kind == new_kind => match old_rdev == new_rdev {
            true => compare_attributes(old, new),
            false => Some(Change::Device),
        },
        _ => Some(Change::Kind { old: old.kind_in_words(), new: new.kind_in_words() }),
    }
}

fn compare_attributes(old: &Attributes, new: &Attributes) -> Option<Change> {
    let (old_owner, new_owner) = ((old.uid, old.gid), (new.uid, new.gid));
    if old.mode != new.mode {
        Some(Change::Mode { old: old.mode, new: new.mode })
    } else if old_owner != new_owner {
        Some(Change::Owner { old: old_owner, new: new_owner })
    } else {
        (old.xattrs != new.xattrs).then_some(Change::Xattrs)
    }
}

/// The first name, in order, that is not in both lists with the same kind.
fn compare_listings(old: &Listing, new: &Listing) -> Option<Change> {
    let same = old.iter().zip(new).take_while(|(old, new)| old == new).count();
    let (old, new) = (old.get(same), new.get(same));
    let first: &(Vec<u8>, ListedKind) = match (old, new) {
        (Some(old), Some(new)) => old.min(new),
        (old, new) => old.or(new)?,
    };
    let has = |side: Option<&(Vec<u8>, ListedKind)>| side.is_some_and(|(name, _)| *name == first.0);
    Some(Change::Listing { name: first.0.clone(), was_there: has(old), is_there: has(new) })
}
