//! What a COPY made the last time, beside what it is about to make: unchanged files keep the times they had there, so that
//! steps above which looked at them find them as they were, and the first change is what the step is explained by.

use std::collections::HashSet;
use std::io;

use mica_layer::assemble::AssembleError;
use mica_trace::Change;
use mica_tree::{Entry, Index, Kind, compare_paths};

use crate::error::StepError;
use crate::exec_copy::SourceTree;
use crate::place::{Origin, Placed, join};

/// How a placed entry stands to the earlier layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The earlier layer has nothing there.
    New,
    /// It has the same there in everything but the time: the position in its index.
    Same(usize),
    /// It has something else.
    Changed(Change),
    /// It differs in what the files below decide, not the source.
    Other,
}

/// How each of `placed` stands to `previous`. Files of the same length are compared by content; the context reads those that
/// it knows no digest of.
pub(crate) fn compare(
    source: &SourceTree,
    placed: &[Placed],
    previous: &Index,
) -> Result<Vec<Standing>, StepError> {
    let is_context = matches!(source, SourceTree::Context { .. });
    let mut standings = Vec::with_capacity(placed.len());
    // Placed, earlier, and in the context: files that may be the same.
    let mut to_read = Vec::new();
    let (mut next, mut next_read) = (0, 0);
    for (position, new) in placed.iter().enumerate() {
        let Some(earlier) = previous.position_near(&new.entry.path, next) else {
            let is_implied = matches!(new.entry.kind, Kind::Directory { implied: true, .. });
            standings.push(if is_implied { Standing::Other } else { Standing::New });
            continue;
        };
        next = earlier + 1;
        let old = &previous.entries()[earlier];
        let from_context = is_context && matches!(new.origin, Origin::Source(_));
        let mut standing = facts(&new.entry, old, from_context).unwrap_or(Standing::Same(earlier));
        if standing == Standing::Same(earlier)
            && let Kind::File { content: Some(old_content), .. } = old.kind
        {
            match (source, &new.origin) {
                (SourceTree::Context { directory, .. }, Origin::Source(path)) => {
                    match position_in(directory.index(), path, &mut next_read) {
                        Some(found) => to_read.push((position, earlier, found)),
                        None => standing = Standing::New,
                    }
                }
                _ => {
                    let content = content_of(source, new)?;
                    if content != old_content {
                        standing = Standing::Changed(Change::Content { old: old_content, new: content });
                    }
                }
            }
        } else if let (Standing::Same(_), Kind::File { .. }) = (&standing, &old.kind) {
            // Nothing is known of the earlier content.
            standing = Standing::New;
        }
        standings.push(standing);
    }
    if let SourceTree::Context { directory, .. } = source {
        let positions: Vec<usize> = to_read.iter().map(|(_, _, found)| *found).collect();
        for ((position, earlier, _), now) in to_read.iter().zip(directory.content(&positions)?) {
            let old = &previous.entries()[*earlier];
            let Kind::File { content: Some(content), .. } = old.kind else { continue };
            if mica_context::identity(content, &old.xattrs) != now {
                let change = match old.xattrs.is_empty() {
                    true => Change::Content { old: content, new: now },
                    // Of both together nothing more is known.
                    false => Change::Content { old: mica_context::identity(content, &old.xattrs), new: now },
                };
                standings[*position] = Standing::Changed(change);
            }
        }
    }
    Ok(standings)
}

/// Position of the file that has the name `path`, searched from `next` on first.
fn position_in(index: &Index, path: &[u8], next: &mut usize) -> Option<usize> {
    let found = index.position_near(path, *next)?;
    *next = found + 1;
    match &index.entries()[found].kind {
        Kind::Hardlink { target } => index.position(target),
        _ => Some(found),
    }
}

/// BLAKE3 of a placed file that is none of the context.
fn content_of(source: &SourceTree, placed: &Placed) -> Result<[u8; 32], StepError> {
    if let (Origin::Source(_), Kind::File { content: Some(content), .. }) =
        (&placed.origin, &placed.entry.kind)
    {
        return Ok(*content);
    }
    let name = || String::from_utf8_lossy(&placed.entry.path).into_owned();
    let failed = |error: io::Error| mica_sys::Error::new("read", name(), error);
    let file = match &placed.origin {
        Origin::Bytes(bytes) => return Ok(*blake3::hash(bytes).as_bytes()),
        Origin::Source(path) => source.open(path),
        Origin::Spooled(path) => std::fs::File::open(path),
        Origin::None => Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(file.map_err(failed)?).map_err(failed)?;
    Ok(*hasher.finalize().as_bytes())
}

/// What differs besides contents and times. The walk of a context does not know extended attributes of files: there the
/// digest of the content has them.
fn facts(new: &Entry, old: &Entry, ignore_xattrs: bool) -> Option<Standing> {
    let same_attributes = |mode: bool| (!mode || new.mode == old.mode) && owner(new) == owner(old);
    let change = match (&new.kind, &old.kind) {
        (Kind::Directory { implied: true, .. }, _) | (_, Kind::Directory { implied: true, .. }) => {
            let same = new.kind == old.kind && same_attributes(true) && new.xattrs == old.xattrs;
            return (!same).then_some(Standing::Other);
        }
        (Kind::Hardlink { target }, Kind::Hardlink { target: before }) => {
            return (target != before).then_some(Standing::Changed(Change::Names));
        }
        (Kind::Hardlink { .. }, Kind::File { .. }) | (Kind::File { .. }, Kind::Hardlink { .. }) => {
            Some(Change::Names)
        }
        (Kind::File { size, .. }, Kind::File { size: before, .. }) if size != before => {
            Some(Change::Size { old: *before, new: *size })
        }
        (Kind::Symlink { target }, Kind::Symlink { target: before }) if target != before => {
            Some(Change::Target { old: before.clone(), new: target.clone() })
        }
        (Kind::CharDevice { rdev }, Kind::CharDevice { rdev: before })
        | (Kind::BlockDevice { rdev }, Kind::BlockDevice { rdev: before })
            if rdev != before =>
        {
            Some(Change::Device)
        }
        (new, old) if std::mem::discriminant(new) != std::mem::discriminant(old) => {
            Some(Change::Kind { old: in_words(old), new: in_words(new) })
        }
        _ => None,
    };
    let has_mode = !matches!(new.kind, Kind::Symlink { .. });
    let change = change.or_else(|| {
        if has_mode && new.mode != old.mode {
            Some(Change::Mode { old: old.mode, new: new.mode })
        } else if owner(new) != owner(old) {
            Some(Change::Owner { old: owner(old), new: owner(new) })
        } else if !ignore_xattrs && new.xattrs != old.xattrs {
            Some(Change::Xattrs)
        } else {
            None
        }
    });
    change.map(Standing::Changed)
}

fn owner(entry: &Entry) -> (u32, u32) {
    (entry.uid, entry.gid)
}

fn in_words(kind: &Kind) -> &'static str {
    match kind {
        Kind::File { .. } | Kind::Hardlink { .. } => "file",
        Kind::Directory { .. } => "directory",
        Kind::Symlink { .. } => "symbolic link",
        Kind::CharDevice { .. } => "character device",
        Kind::BlockDevice { .. } => "block device",
        Kind::Fifo => "pipe",
        Kind::Socket => "socket",
        Kind::Whiteout => "nothing",
    }
}

/// Gives what is the same as in `previous` the time that it had there if so wished, and the extended attributes, which a context tells of
/// a file only when it is opened.
pub(crate) fn keep(placed: &mut [Placed], standings: &[Standing], previous: &Index, with_times: bool) {
    for (placed, standing) in placed.iter_mut().zip(standings) {
        if let Standing::Same(earlier) = standing {
            let earlier = &previous.entries()[*earlier];
            if with_times {
                placed.entry.mtime = earlier.mtime;
            }
            placed.entry.xattrs.clone_from(&earlier.xattrs);
        }
    }
}

/// What was taken for unchanged must have been so when it was read to be copied as well.
pub(crate) fn check_unchanged(
    made: &Index,
    standings: &[Standing],
    previous: &Index,
) -> Result<(), AssembleError> {
    for (made, standing) in made.entries().iter().zip(standings) {
        let Standing::Same(earlier) = standing else { continue };
        if let (Kind::File { size, content, .. }, Kind::File { content: before, .. }) =
            (&made.kind, &previous.entries()[*earlier].kind)
            && content != before
        {
            let path = String::from_utf8_lossy(&made.path).into_owned();
            return Err(AssembleError::Changed { path, expected_bytes: *size });
        }
    }
    Ok(())
}

/// The first path that is not as in the earlier layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FirstChange {
    /// In the source if `in_source`, else in the layer.
    pub path: Vec<u8>,
    /// Whether the path is one of the source.
    pub in_source: bool,
    /// What is different.
    pub change: Change,
}

/// The first path in order that is new, gone or different.
pub(crate) fn first_change(
    placed: &[Placed],
    standings: &[Standing],
    previous: &Index,
) -> Option<FirstChange> {
    let changed = placed.iter().zip(standings).find_map(|(placed, standing)| match standing {
        Standing::New => Some((placed, Change::Appeared)),
        Standing::Changed(change) => Some((placed, change.clone())),
        Standing::Same(_) | Standing::Other => None,
    });
    let here: HashSet<&[u8]> = placed.iter().map(|placed| placed.entry.path.as_slice()).collect();
    let gone = previous.entries().iter().find(|entry| {
        !matches!(entry.kind, Kind::Directory { implied: true, .. }) && !here.contains(entry.path.as_slice())
    });
    let (path, change, origin) = match (changed, gone) {
        (Some((placed, _)), Some(gone)) if compare_paths(&gone.path, &placed.entry.path).is_lt() => {
            (&gone.path, Change::Disappeared, None)
        }
        (Some((placed, change)), _) => (&placed.entry.path, change, Some(&placed.origin)),
        (None, Some(gone)) => (&gone.path, Change::Disappeared, None),
        (None, None) => return None,
    };
    let in_source = match origin {
        Some(Origin::Source(path)) => Some(path.clone()),
        Some(Origin::Bytes(_) | Origin::Spooled(_)) => None,
        Some(Origin::None) | None => source_path(placed, path),
    };
    Some(match in_source {
        Some(path) => FirstChange { path, in_source: true, change },
        None => FirstChange { path: path.clone(), in_source: false, change },
    })
}

/// Where `path` of the layer stands or stood in the source, by the files around it that are copied.
fn source_path(placed: &[Placed], path: &[u8]) -> Option<Vec<u8>> {
    let pairs = placed.iter().filter_map(|placed| match &placed.origin {
        Origin::Source(from) => Some(without_common_end(&placed.entry.path, from)),
        _ => None,
    });
    let inside = pairs.filter_map(|(to, from)| {
        let rest = match to {
            b"" => path,
            to => path.strip_prefix(to)?.strip_prefix(b"/")?,
        };
        Some((to.len(), join(from, rest)))
    });
    inside.max_by_key(|(length, _)| *length).map(|(_, path)| path)
}

/// Two paths without the components at their ends that are the same.
fn without_common_end<'p>(mut a: &'p [u8], mut b: &'p [u8]) -> (&'p [u8], &'p [u8]) {
    let split = |path: &'p [u8]| match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (&path[..0], path),
    };
    while !a.is_empty() && !b.is_empty() {
        let ((a_directory, a_name), (b_directory, b_name)) = (split(a), split(b));
        if a_name != b_name {
            break;
        }
        (a, b) = (a_directory, b_directory);
    }
    (a, b)
}
