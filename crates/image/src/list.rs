//! Images as a list: one row for each name.

use jiff::Timestamp;
use mica_oci::{Digest, ImageId, Reference};
use mica_store::{ImageSummary, Store};

use crate::error::Result;
use crate::resolve::{config, record, require};

/// One name of an image, or an image without a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListRow {
    /// The image.
    pub id: ImageId,
    /// In familiar form.
    pub repository: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Digest under which the repository has it.
    pub digest: Option<Digest>,
    /// As the image config spells it.
    pub created: String,
    /// The same in seconds since 1970; 0 if the config does not say.
    pub created_unix_s: i64,
    /// Size of the content of its layers.
    pub size_bytes: u64,
    /// How many containers stand on it.
    pub containers_count: u64,
}

/// Which images; what is not set lets all pass.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListFilter {
    /// Without a tag, or with any name at all, be it by digest: as docker's filter.
    pub dangling: Option<bool>,
    /// Have all of these labels; with a value, this value.
    pub labels: Vec<(String, Option<String>)>,
    /// Made before each of these images.
    pub before: Vec<String>,
    /// Made after each of these images.
    pub since: Vec<String>,
    /// Made before this time.
    pub until_unix_s: Option<i64>,
    /// Names that fit any of these patterns, `*` within one component.
    pub references: Vec<String>,
}

/// Images and their names, the youngest first. A name with several images shows the one that it leads to.
pub fn list(store: &Store, filter: &ListFilter) -> Result<Vec<ListRow>> {
    let mut before = filter.until_unix_s;
    for text in &filter.before {
        let created = unix_seconds(&record(store, &require(store, text)?)?.created);
        before = Some(before.map_or(created, |known| known.min(created)));
    }
    let mut since = None;
    for text in &filter.since {
        let created = unix_seconds(&record(store, &require(store, text)?)?.created);
        since = Some(since.map_or(created, |known: i64| known.max(created)));
    }
    let mut rows = Vec::new();
    for image in store.images()? {
        let created = unix_seconds(&image.record.created);
        if before.is_some_and(|before| created >= before) || since.is_some_and(|since| created <= since) {
            continue;
        }
        if !filter.labels.is_empty() && !has_labels(store, &image.record.id, &filter.labels)? {
            continue;
        }
        let is_left_out = match filter.dangling {
            None => false,
            Some(true) => image.names.iter().any(|name| is_tag(name)),
            Some(false) => image.names.is_empty(),
        };
        if is_left_out {
            continue;
        }
        rows_of(store, &image, created, filter, &mut rows)?;
    }
    // Stable: images of one second stay as the store has them, the last stored first.
    rows.sort_by_key(|row| std::cmp::Reverse(row.created_unix_s));
    Ok(rows)
}

fn rows_of(
    store: &Store,
    image: &ImageSummary,
    created_unix_s: i64,
    filter: &ListFilter,
    rows: &mut Vec<ListRow>,
) -> Result<()> {
    let row = |name: Option<&Reference>, digest: Option<&Digest>| ListRow {
        id: image.record.id.clone(),
        repository: name.map(Reference::familiar_name),
        tag: name.and_then(Reference::tag).map(str::to_owned),
        digest: digest.cloned(),
        created: image.record.created.clone(),
        created_unix_s,
        size_bytes: image.record.size_bytes,
        containers_count: image.containers_count,
    };
    let names: Vec<Reference> = image.names.iter().filter_map(|name| Reference::parse(name).ok()).collect();
    let fits = |name: &Reference| {
        filter.references.is_empty() || filter.references.iter().any(|pattern| is_match(pattern, name))
    };
    if names.is_empty() && image.other_names.is_empty() && filter.references.is_empty() {
        rows.push(row(None, None));
    }
    for name in &names {
        let of_repository = |other: &&Reference| other.name() == name.name();
        // A digest is shown beside the tags of its repository, if there are any.
        let is_shown = match name.digest() {
            None => true,
            Some(_) => !names.iter().filter(of_repository).any(|other| other.digest().is_none()),
        };
        if !is_shown || !fits(name) {
            continue;
        }
        let digests: Vec<&Digest> = match name.digest() {
            Some(digest) => vec![digest],
            None => names.iter().filter(of_repository).filter_map(Reference::digest).collect(),
        };
        let digest = match digests.as_slice() {
            [] => None,
            [digest] => Some(*digest),
            // The same image was pulled under several: that of this tag.
            [first, ..] => {
                let target = store.target_of(&name.canonical())?;
                Some(
                    digests
                        .iter()
                        .find(|digest| target.as_ref() == Some(**digest))
                        .map_or(*first, |own| *own),
                )
            }
        };
        rows.push(row(Some(name), digest));
    }
    Ok(())
}

/// Whether a name has a tag, not a digest.
pub(crate) fn is_tag(name: &str) -> bool {
    Reference::parse(name).is_ok_and(|name| name.digest().is_none())
}

/// Whether a name fits a pattern, with its tag or without.
fn is_match(pattern: &str, name: &Reference) -> bool {
    glob(pattern, &name.familiar()) || glob(pattern, &name.familiar_name())
}

/// Go's `path.Match`: `*` and `?` within one component, `[a-z]`, backslash.
pub(crate) fn glob(pattern: &str, text: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let text: Vec<char> = text.chars().collect();
    // Positions in the text that a beginning of the pattern can reach: no backtracking, whatever the pattern.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    let mut at = 0;
    while let Some(symbol) = pattern.get(at) {
        at += 1;
        let mut next = vec![false; text.len() + 1];
        if *symbol == '*' {
            let mut open = false;
            for (position, is_reached) in reached.iter().enumerate() {
                open = open || *is_reached;
                next[position] = open;
                open = open && text.get(position).is_some_and(|c| *c != '/');
            }
        } else {
            let matcher: Box<dyn Fn(char) -> bool> = match symbol {
                '?' => Box::new(|c| c != '/'),
                '[' => {
                    let Some(end) = pattern.get(at..).and_then(|rest| rest.iter().position(|c| *c == ']'))
                    else {
                        return false;
                    };
                    let class: Vec<char> = pattern.get(at..at + end).unwrap_or_default().to_vec();
                    at += end + 1;
                    Box::new(move |c| in_class(&class, c))
                }
                '\\' => {
                    let Some(literal) = pattern.get(at).copied() else { return false };
                    at += 1;
                    Box::new(move |c| c == literal)
                }
                literal => {
                    let literal = *literal;
                    Box::new(move |c| c == literal)
                }
            };
            for (position, c) in text.iter().enumerate() {
                next[position + 1] = reached[position] && matcher(*c);
            }
        }
        reached = next;
    }
    reached[text.len()]
}

fn in_class(class: &[char], c: char) -> bool {
    let (negated, mut left) = match class {
        ['^', rest @ ..] => (true, rest),
        class => (false, class),
    };
    let mut found = false;
    while let [first, rest @ ..] = left {
        let (last, rest) = match rest {
            ['-', last, rest @ ..] => (last, rest),
            rest => (first, rest),
        };
        found = found || (*first <= c && c <= *last);
        left = rest;
    }
    found != negated && c != '/'
}

/// Whether the image has all these labels.
pub(crate) fn has_labels(store: &Store, id: &ImageId, labels: &[(String, Option<String>)]) -> Result<bool> {
    let own = config(store, id)?.config.labels;
    Ok(labels.iter().all(|(name, value)| match own.get(name) {
        None => false,
        Some(found) => value.as_ref().is_none_or(|value| value == found),
    }))
}

/// A time in RFC 3339 as seconds since 1970; 0 if it is none.
pub(crate) fn unix_seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().map_or(0, |time| time.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let check = |pattern: &str, text: &str, expect: bool| {
            assert_eq!(glob(pattern, text), expect, "{pattern} {text}")
        };
        check("busy*", "busybox", true);
        check("busy*", "busybox/x", false);
        check("*/*", "a/b", true);
        check("*", "a/b", false);
        check("a?c", "abc", true);
        check("[a-c]x", "bx", true);
        check("[^a-c]x", "bx", false);
        check("[a", "a", false);
        check("", "", true);
        check("***************************x", &"a".repeat(5000), false);
        check("\\*", "*", true);
    }
}
