//! What a stack of layers shows.

use std::cmp::Ordering;
use std::sync::Arc;

use thiserror::Error;

use crate::entry::{Entry, Kind, compare_paths, parent};
use crate::index::Index;

mod flatten;
mod positions;

pub use flatten::Flat;

/// How many symbolic links are followed for one path; Linux gives up at 40 as well.
const LINKS_MAX: usize = 40;

/// Why a path cannot be followed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ResolveError {
    /// More links than Linux follows; mostly a loop.
    #[error("too many symbolic links")]
    TooManyLinks,
    /// Something on the way is not a directory.
    #[error("`/{path}` is not a directory")]
    NotADirectory {
        /// Which.
        path: String,
    },
}

/// An entry by layer and position in the layer's index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    layer: u32,
    position: u32,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved<'a> {
    /// The path without symbolic links.
    pub path: Vec<u8>,
    /// What stands there; `None` for a root that no layer has an entry for.
    pub entry: Option<&'a Entry>,
}

/// A stack of layers as one tree: whiteouts and opaque directories obeyed, what hides something hides all below it.
///
/// One list in index order. Adding a layer touches the stretches that it changes and copies the rest, so hundreds of
/// small layers over a large one stay cheap; every subtree is one contiguous stretch.
#[derive(Debug, Clone, Default)]
pub struct MergedIndex {
    layers: Vec<Arc<Index>>,
    places: Vec<Place>,
}

impl MergedIndex {
    /// The layers, lowest first.
    pub fn new(layers: impl IntoIterator<Item = Arc<Index>>) -> Self {
        let mut merged = Self::default();
        for layer in layers {
            merged.push(layer);
        }
        merged
    }

    /// Puts one more layer on top.
    pub fn push(&mut self, layer: Arc<Index>) {
        // Both numbers fit: an index of 2^32 entries does not fit into memory, and layers are counted in hundreds.
        let number = self.layers.len() as u32;
        let below = std::mem::take(&mut self.places);
        self.layers.push(layer.clone());
        let mut merged = Vec::with_capacity(below.len() + layer.entries().len());
        let mut rest: &[Place] = &below;
        for (position, entry) in layer.entries().iter().enumerate() {
            let before = rest.partition_point(|place| self.compare(*place, &entry.path) == Ordering::Less);
            merged.extend_from_slice(&rest[..before]);
            rest = &rest[before..];
            let place = Place { layer: number, position: position as u32 };
            let lower =
                rest.first().copied().filter(|place| self.compare(*place, &entry.path) == Ordering::Equal);
            if lower.is_some() {
                rest = &rest[1..];
            }
            let lower_is_directory = lower.is_some_and(|place| self.at(place).is_directory());
            let hides = match entry.kind {
                Kind::Directory { opaque, .. } => opaque || (lower.is_some() && !lower_is_directory),
                _ => true,
            };
            if hides {
                let inside = rest.partition_point(|place| is_below(&self.at(*place).path, &entry.path));
                rest = &rest[inside..];
            }
            match (&entry.kind, lower) {
                (Kind::Whiteout, _) => {}
                (Kind::Directory { implied: true, .. }, Some(lower)) if lower_is_directory => {
                    merged.push(lower)
                }
                _ => merged.push(place),
            }
        }
        merged.extend_from_slice(rest);
        self.places = merged;
    }

    /// How many paths there are.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether there is no path at all.
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    fn at(&self, place: Place) -> &Entry {
        &self.layers[place.layer as usize].entries()[place.position as usize]
    }

    fn compare(&self, place: Place, path: &[u8]) -> Ordering {
        compare_paths(&self.at(place).path, path)
    }

    fn find(&self, path: &[u8]) -> Result<usize, usize> {
        self.places.binary_search_by(|place| self.compare(*place, path))
    }

    /// The entry at a path, symbolic links not followed.
    pub fn get(&self, path: &[u8]) -> Option<&Entry> {
        self.find(path).ok().map(|found| self.at(self.places[found]))
    }

    /// The layer, counted from the lowest, whose entry is shown at a path.
    pub fn layer_of(&self, path: &[u8]) -> Option<usize> {
        self.find(path).ok().map(|found| self.places[found].layer as usize)
    }

    /// The entry of the file that a hard link (an entry of this tree) is a name of.
    pub fn entry_of_link(&self, link: &Entry) -> Option<&Entry> {
        let Kind::Hardlink { target } = &link.kind else { return None };
        let layer = self.layers.get(self.layer_of(&link.path)?)?;
        layer.get(target).filter(|entry| !matches!(entry.kind, Kind::Hardlink { .. }))
    }

    /// All entries below a directory, not itself, in index order.
    pub fn walk(&self, directory: &[u8]) -> impl Iterator<Item = &Entry> {
        let start = match self.find(directory) {
            Ok(found) => found + 1,
            Err(start) => start,
        };
        let rest = &self.places[start..];
        let inside = rest.partition_point(|place| is_below(&self.at(*place).path, directory));
        rest[..inside].iter().map(|place| self.at(*place))
    }

    /// The entries directly in a directory, in order of names.
    pub fn list(&self, directory: &[u8]) -> Vec<&Entry> {
        let start = match self.find(directory) {
            Ok(found) => found + 1,
            Err(start) => start,
        };
        let mut rest = &self.places[start..];
        let mut entries = Vec::new();
        while let Some(place) = rest.first() {
            let entry = self.at(*place);
            if !is_below(&entry.path, directory) {
                break;
            }
            // An index may lack the entry of a directory that has something inside; what is inside is not listed then.
            if entry.parent() == Some(directory) {
                entries.push(entry);
            }
            let inside = rest[1..].partition_point(|place| is_below(&self.at(*place).path, &entry.path));
            rest = &rest[1 + inside..];
        }
        entries
    }

    /// Where a path leads for a process whose root this tree is: absolute links start at the root, `..` stops there.
    /// `None` when nothing is there.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Option<Resolved<'_>>, ResolveError> {
        let (path, found) = follow(path, follow_last, &mut |path| self.get(path))?;
        Ok(match found {
            true => Some(Resolved { entry: self.get(&path), path }),
            false => None,
        })
    }

    /// The path, free of symbolic links, at which something made at `path` would stand; it need not exist, and neither
    /// need its parents.
    pub fn resolve_for_create(&self, path: &[u8]) -> Result<Vec<u8>, ResolveError> {
        Ok(follow(path, true, &mut |path| self.get(path))?.0)
    }
}

/// Where a path leads in a tree that `look` tells of, and whether something is there: what [`MergedIndex::resolve`] does, for
/// those who want to know which paths it looks at. What stands below something absent is not asked for.
pub fn follow<'t>(
    path: &[u8],
    follow_last: bool,
    look: &mut dyn FnMut(&[u8]) -> Option<&'t Entry>,
) -> Result<(Vec<u8>, bool), ResolveError> {
    let mut todo: Vec<Vec<u8>> = parts(path).rev().map(<[u8]>::to_vec).collect();
    let mut done: Vec<u8> = Vec::new();
    let (mut links, mut exists) = (0, true);
    while let Some(part) = todo.pop() {
        if part == b".." {
            // Below what does not exist, `..` is taken by the letter.
            done.truncate(parent(&done).map_or(0, <[u8]>::len));
            exists = done.is_empty() || look(&done).is_some();
            continue;
        }
        let mut next = done.clone();
        if !next.is_empty() {
            next.push(b'/');
        }
        next.extend_from_slice(&part);
        let entry = exists.then(|| look(&next)).flatten();
        match entry.map(|entry| &entry.kind) {
            Some(Kind::Symlink { target }) if follow_last || !todo.is_empty() => {
                links += 1;
                if links > LINKS_MAX {
                    return Err(ResolveError::TooManyLinks);
                }
                if target.starts_with(b"/") {
                    done.clear();
                }
                todo.extend(parts(target).rev().map(<[u8]>::to_vec));
            }
            Some(Kind::Directory { .. }) => done = next,
            Some(_) if !todo.is_empty() => {
                return Err(ResolveError::NotADirectory {
                    path: String::from_utf8_lossy(&next).into_owned(),
                });
            }
            Some(_) => done = next,
            None => {
                exists = false;
                done = next;
            }
        }
    }
    Ok((done, exists))
}

fn parts(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b"."))
}

/// Whether `path` stands somewhere inside `directory`.
fn is_below(path: &[u8], directory: &[u8]) -> bool {
    if directory.is_empty() {
        return !path.is_empty();
    }
    path.len() > directory.len() && path.starts_with(directory) && path[directory.len()] == b'/'
}
