//! What was asked of a tree so far: a byte for each path, and a bounded set of names that were not there.

use std::collections::HashSet;

use mica_tree::compare_paths;

use crate::record::{TreeUse, Use, Value};
use crate::value::{Contents, value_at, value_of_root_without_entry};
use crate::view::View;

/// Its name was looked up, so attributes were shown.
const LOOKED_UP: u8 = 1;
/// Its names were listed.
const LISTED: u8 = 2;
/// Its content was read. Noted of the first name of a file that has several.
const READ: u8 = 4;

/// The longest path of a record, in bytes: PATH_MAX of Linux, as in an index.
const PATH_BYTES_MAX: usize = 4096;

/// What was asked of one tree, by slots of its [`View`].
#[derive(Debug)]
pub struct Observation {
    flags: Vec<u8>,
    // Slot of the directory, name.
    absent: HashSet<(u32, Box<[u8]>)>,
    uses_count: usize,
    uses_max: usize,
    is_overflown: bool,
}

impl Observation {
    /// Nothing was asked yet. At most `uses_max` paths will be noted.
    pub fn new(view: &View, uses_max: usize) -> Self {
        let flags = vec![0; view.slots_count()];
        let mut new = Self { flags, absent: HashSet::new(), uses_count: 0, uses_max, is_overflown: false };
        // The root of an overlay shows the attributes of the upper directory, which whoever made it took from this tree.
        new.looked_up(0);
        new
    }

    /// A path was looked up.
    pub fn looked_up(&mut self, slot: usize) {
        let Some(flags) = self.flags.get_mut(slot) else { return };
        if *flags & LOOKED_UP == 0 {
            *flags |= LOOKED_UP;
            self.count();
        }
    }

    /// A directory was listed.
    pub fn listed(&mut self, slot: usize) {
        if let Some(flags) = self.flags.get_mut(slot) {
            *flags |= LISTED;
        }
    }

    /// The content of the file with this first name was read.
    pub fn read(&mut self, slot: usize) {
        if let Some(flags) = self.flags.get_mut(slot) {
            *flags |= READ;
        }
    }

    /// A name was looked up in a directory that does not have it.
    pub fn absent(&mut self, directory: usize, directory_path: &[u8], name: &[u8]) {
        if self.is_overflown {
            return;
        }
        if directory_path.len() + 1 + name.len() > PATH_BYTES_MAX {
            // A record holds no such path, and so cannot tell all.
            self.overflow();
        } else if self.absent.insert((directory as u32, name.into())) {
            self.count();
        }
    }

    fn count(&mut self) {
        self.uses_count += 1;
        if self.uses_count > self.uses_max {
            self.overflow();
        }
    }

    fn overflow(&mut self) {
        self.is_overflown = true;
        self.absent = HashSet::new();
    }

    /// Whether more was asked than is noted.
    pub fn is_overflown(&self) -> bool {
        self.is_overflown
    }

    /// What was asked, with what was shown. An error is a content that cannot be told, with its position.
    pub fn into_uses(self, view: &View, contents: &dyn Contents) -> Result<TreeUse, (usize, std::io::Error)> {
        let path_in = |(directory, name): &(u32, Box<[u8]>)| {
            let directory = view.directory(*directory as usize).unwrap_or_default();
            let separator: &[u8] = if directory.is_empty() { b"" } else { b"/" };
            [directory, separator, name].concat()
        };
        let mut absent: Vec<Vec<u8>> = self.absent.iter().map(path_in).collect();
        absent.sort_unstable_by(|a, b| compare_paths(a, b));
        let mut absent = absent.into_iter().peekable();
        let mut uses = Vec::with_capacity(self.uses_count);
        for (slot, flags) in self.flags.iter().enumerate().filter(|(_, flags)| **flags & LOOKED_UP != 0) {
            let is_listed = flags & LISTED != 0;
            let Some(position) = view.position(slot) else {
                let value = value_of_root_without_entry(&view.tree, is_listed);
                uses.push(Use { path: Vec::new(), value });
                continue;
            };
            let path = &view.tree.entry(position).path;
            while let Some(path) = absent.next_if(|absent| compare_paths(absent, path).is_lt()) {
                uses.push(Use { path, value: Value::Absent });
            }
            let is_read = self.flags[view.slot(view.names.first(position))] & READ != 0;
            let value = value_at(&view.tree, &view.names, position, is_read, is_listed, contents)
                .map_err(|error| (position, error))?;
            uses.push(Use { path: path.clone(), value });
        }
        uses.extend(absent.map(|path| Use { path, value: Value::Absent }));
        Ok(TreeUse { uses })
    }
}
