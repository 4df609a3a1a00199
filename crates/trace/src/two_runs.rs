//! What two runs of one step were shown differently: why they may have made something else.

use std::cmp::Ordering;

use mica_tree::compare_paths;

use crate::difference::Change;
use crate::record::{TreeUse, Use, Value};
use crate::verify::compare;

/// What two runs of one step used of a tree, as far as it is not the same.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UsedDifferently {
    /// Paths that both used and that were not the same, in order.
    pub changed: Vec<(Vec<u8>, Change)>,
    /// Paths that only one of them used, in order.
    pub only_one: Vec<Vec<u8>>,
}

/// Compares what was used of one tree in two runs. A content counts if both read it.
pub fn compare_uses(first: &TreeUse, second: &TreeUse) -> UsedDifferently {
    let mut found = UsedDifferently::default();
    let (mut first, mut second) = (first.uses.iter().peekable(), second.uses.iter().peekable());
    loop {
        let order = match (first.peek(), second.peek()) {
            (None, None) => return found,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(one), Some(other)) => compare_paths(&one.path, &other.path),
        };
        let one = if order != Ordering::Greater { first.next() } else { None };
        let other = if order != Ordering::Less { second.next() } else { None };
        match (one, other) {
            (Some(one), Some(other)) => {
                found.changed.extend(change(one, other).map(|change| (one.path.clone(), change)));
            }
            (one, other) => found.only_one.extend(one.or(other).map(|used| used.path.clone())),
        }
    }
}

fn change(first: &Use, second: &Use) -> Option<Change> {
    if let (Value::File { content: Some(old), .. }, Value::File { content: Some(new), .. }) =
        (&first.value, &second.value)
        && old != new
    {
        return Some(Change::Content { old: *old, new: *new });
    }
    compare(&first.value, &second.value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Attributes, ListedKind};
    use mica_tree::Time;

    fn file(size_bytes: u64, seconds: i64, content: Option<u8>) -> Value {
        Value::File {
            attributes: Attributes { mode: 0o644, uid: 0, gid: 0, xattrs: None },
            size_bytes,
            mtime: Some(Time { seconds, nanoseconds: 0 }),
            names: Vec::new(),
            content: content.map(|byte| [byte; 32]),
        }
    }

    fn listed(names: &[&str]) -> Value {
        let listing = names.iter().map(|name| (name.as_bytes().to_vec(), ListedKind::File)).collect();
        let attributes = Attributes { mode: 0o755, uid: 0, gid: 0, xattrs: None };
        Value::Directory { attributes, listing: Some(listing) }
    }

    /// `expect` are the changed paths with what changed, and the paths of one run alone.
    #[track_caller]
    fn check(first: &[(&str, Value)], second: &[(&str, Value)], expect: &[&str]) {
        let uses = |all: &[(&str, Value)]| {
            let one =
                |(path, value): &(&str, Value)| Use { path: path.as_bytes().to_vec(), value: value.clone() };
            TreeUse { uses: all.iter().map(one).collect() }
        };
        let found = compare_uses(&uses(first), &uses(second));
        let name = |path: &[u8]| String::from_utf8_lossy(path).into_owned();
        let mut lines: Vec<String> =
            found.changed.iter().map(|(path, change)| format!("{} {}", name(path), change.what())).collect();
        lines.extend(found.only_one.iter().map(|path| format!("{} once", name(path))));
        assert_eq!(lines, expect);
    }

    #[test]
    fn two_runs() {
        check(&[], &[], &[]);
        check(&[("a", file(1, 1, None))], &[("a", file(1, 1, None))], &[]);
        check(&[("a", file(1, 1, None))], &[("a", file(1, 2, None))], &["a time changed"]);
        check(&[("a", file(1, 1, Some(1)))], &[("a", file(2, 2, Some(2)))], &["a changed"]);
        check(&[("a", file(1, 1, Some(1)))], &[("a", file(1, 1, None))], &[]);
        check(&[("a", Value::Absent)], &[("a", file(1, 1, None))], &["a new"]);
        check(&[("", listed(&["a"]))], &[("", listed(&["a", "b"]))], &[" new name"]);
        check(
            &[("a", Value::Absent), ("c", Value::Absent), ("d", Value::Absent)],
            &[("b", Value::Absent), ("c", Value::Absent)],
            &["a once", "b once", "d once"],
        );
    }
}
