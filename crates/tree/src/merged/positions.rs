//! A merged tree by position: who serves the tree or goes through it in order names paths by number.
//!
//! Positions are those of the order of the index: 0 is the root where it has an entry. They are good for this very tree.

use std::cmp::Ordering;

use super::{MergedIndex, Place, is_below};
use crate::entry::{Entry, Kind};

impl MergedIndex {
    /// Position of a path, symbolic links not followed.
    pub fn position(&self, path: &[u8]) -> Option<usize> {
        self.find(path).ok()
    }

    /// Position of a path at `start` or later, or where it would stand. Quick where it is near: for paths asked for in
    /// order, each from the answer before.
    pub fn find_from(&self, start: usize, path: &[u8]) -> Result<usize, usize> {
        let start = start.min(self.places.len());
        let found = start + self.run_length(start, |place| self.compare(place, path) == Ordering::Less);
        self.is_at(found, path)
    }

    /// [`MergedIndex::find_from`] for somebody who has a guess: quick at `start` and near `guess`. In a large tree what counts
    /// is how many entries are looked at, since few of them are in the processor's cache.
    pub fn find_near(&self, start: usize, guess: usize, path: &[u8]) -> Result<usize, usize> {
        let is_before = |position: usize| {
            self.places.get(position).is_some_and(|place| self.compare(*place, path) == Ordering::Less)
        };
        if guess <= start || !is_before(start) {
            return self.find_from(start, path);
        }
        if is_before(guess) {
            return self.find_from(guess + 1, path);
        }
        // It stands after `low` and not after `high`.
        let (mut low, mut high, mut step) = (start, guess.min(self.places.len()), 1);
        while high - low > step {
            if is_before(high - step) {
                low = high - step;
                break;
            }
            high -= step;
            step *= 2;
        }
        let found = low
            + 1
            + self.places[low + 1..high]
                .partition_point(|place| self.compare(*place, path) == Ordering::Less);
        self.is_at(found, path)
    }

    fn is_at(&self, position: usize, path: &[u8]) -> Result<usize, usize> {
        match self.places.get(position) {
            Some(place) if self.at(*place).path == path => Ok(position),
            _ => Err(position),
        }
    }

    /// The entry at a position.
    ///
    /// # Panics
    /// If there is no such position; they end before [`MergedIndex::len`].
    pub fn entry(&self, position: usize) -> &Entry {
        self.at(self.places[position])
    }

    /// The layer, counted from the lowest, whose entry is shown at a position.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn layer_at(&self, position: usize) -> usize {
        self.places[position].layer as usize
    }

    /// The regular file that stands at a position, as layer and position in the index of that layer: the same for all
    /// names of a file. `None` for what is no regular file, and for a hard link to none, as malformed indexes have them.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn file_at(&self, position: usize) -> Option<(usize, usize)> {
        let (layer, position) = self.place_of_attributes(position)?;
        matches!(self.layers[layer].entries()[position].kind, Kind::File { .. }).then_some((layer, position))
    }

    /// The entry that holds the attributes of a position: its own, or that of the file that a hard link is a name of.
    /// `None` for a hard link to nothing.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn attributes_at(&self, position: usize) -> Option<&Entry> {
        let (layer, position) = self.place_of_attributes(position)?;
        self.layers[layer].entries().get(position)
    }

    /// The positions of hard links in the tree, in no order.
    pub fn hard_links(&self) -> Vec<usize> {
        let mut found = Vec::new();
        for (layer, index) in (0..).zip(&self.layers) {
            let mut next = 0;
            for link in index.hard_links() {
                let place = Place { layer, position: *link };
                match self.find_from(next, &self.at(place).path) {
                    Ok(position) => {
                        next = position;
                        found.extend((self.places[position] == place).then_some(position));
                    }
                    Err(position) => next = position,
                }
            }
        }
        found
    }

    fn place_of_attributes(&self, position: usize) -> Option<(usize, usize)> {
        let place = self.places[position];
        let layer = self.layers[place.layer as usize].as_ref();
        let position = match &self.at(place).kind {
            Kind::Hardlink { target } => layer.position(target)?,
            _ => place.position as usize,
        };
        // A link to a link has no attributes, as in `entry_of_link`.
        let has_attributes =
            !matches!(layer.entries()[position].kind, Kind::Hardlink { .. } | Kind::Whiteout);
        has_attributes.then_some((place.layer as usize, position))
    }

    /// The positions of what stands directly in a directory, in order of names.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn children(&self, directory: usize) -> impl Iterator<Item = usize> {
        self.children_from(&self.entry(directory).path, directory + 1)
    }

    /// The positions, not before `start`, of what stands directly in the directory `path`, in order of names. `start` is
    /// the position after the directory, or the [`MergedIndex::end_of`] of something in it.
    pub fn children_from<'a>(&'a self, path: &'a [u8], start: usize) -> impl Iterator<Item = usize> + 'a {
        let mut next = start;
        std::iter::from_fn(move || {
            loop {
                let entry = self.at(*self.places.get(next)?);
                if !is_below(&entry.path, path) {
                    return None;
                }
                let position = next;
                next = self.end_of(position);
                // An index may lack the entry of a directory that has something inside; what is inside is not shown then.
                if entry.parent() == Some(path) {
                    return Some(position);
                }
            }
        })
    }

    /// The position after all that is inside of what stands at `position`.
    ///
    /// # Panics
    /// If there is no such position.
    pub fn end_of(&self, position: usize) -> usize {
        let path = &self.entry(position).path;
        position + 1 + self.run_length(position + 1, |place| is_below(&self.at(place).path, path))
    }

    /// How many places from `start` on hold to a condition that holds up to some place and for none after it. The steps
    /// double, so that a near end is found near.
    fn run_length(&self, start: usize, holds: impl Fn(Place) -> bool) -> usize {
        let rest = &self.places[start..];
        let (mut low, mut step) = (0, 1);
        while let Some(place) = rest.get(low + step - 1) {
            if !holds(*place) {
                break;
            }
            low += step;
            step *= 2;
        }
        let high = rest.len().min(low + step - 1);
        low + rest[low..high].partition_point(|place| holds(*place))
    }
}
