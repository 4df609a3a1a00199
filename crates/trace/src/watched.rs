//! A tree that notes what is asked of it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;

use mica_tree::{Entry, MergedIndex, ResolveError, Resolved, compare_paths};

use crate::record::{TreeUse, Use, Value};
use crate::value::{Contents, Names, value_at, value_of_root_without_entry};

/// What was asked of a path besides whether it is there.
#[derive(Debug, Clone, Copy, Default)]
struct Asked {
    read: bool,
    listed: bool,
}

/// A tree that notes what is asked of it, for steps that are not run over a served tree but look at it themselves:
/// whatever decides about their result has to be asked here.
#[derive(Debug)]
pub struct Watched<'t> {
    tree: &'t MergedIndex,
    noted: RefCell<Noted>,
}

#[derive(Debug, Default)]
struct Noted {
    /// By position; `None` for a root without entry.
    present: HashMap<Option<usize>, Asked>,
    absent: HashSet<Vec<u8>>,
}

impl<'t> Watched<'t> {
    /// Nothing was asked yet.
    pub fn new(tree: &'t MergedIndex) -> Self {
        Self { tree, noted: RefCell::default() }
    }

    /// The tree itself, for what needs no note: opening a file whose content is noted by
    /// [`Watched::note_content`].
    pub fn tree(&self) -> &'t MergedIndex {
        self.tree
    }

    /// The entry at a path, symbolic links not followed.
    pub fn get(&self, path: &[u8]) -> Option<&'t Entry> {
        self.note(path).map(|position| self.tree.entry(position))
    }

    /// Whether a directory stands at a path; the root is one always.
    pub fn is_directory(&self, path: &[u8]) -> bool {
        self.get(path).map_or(path.is_empty(), Entry::is_directory)
    }

    /// Whether something stands somewhere inside of a path, which may be there without an entry of its own.
    pub fn has_inside(&self, path: &[u8]) -> bool {
        self.get(path);
        let first = self.tree.walk(path).next();
        first.is_some_and(|first| self.get(&first.path).is_some())
    }

    /// The entry of the file that a hard link (an entry of this tree) is a name of.
    pub fn entry_of_link(&self, link: &Entry) -> Option<&'t Entry> {
        self.note(&link.path);
        self.tree.entry_of_link(link)
    }

    /// The entries directly in a directory, in order of names. Only names and kinds of them are noted.
    pub fn list(&self, directory: &[u8]) -> Vec<&'t Entry> {
        self.ask(directory, |asked| asked.listed = true);
        self.tree.list(directory)
    }

    /// As [`MergedIndex::resolve`]; every path on the way is noted.
    pub fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Option<Resolved<'t>>, ResolveError> {
        let (path, found) = self.follow(path, follow_last)?;
        Ok(found.then(|| Resolved { entry: self.get(&path), path }))
    }

    /// As [`MergedIndex::resolve_for_create`]; every path on the way is noted.
    pub fn resolve_for_create(&self, path: &[u8]) -> Result<Vec<u8>, ResolveError> {
        Ok(self.follow(path, true)?.0)
    }

    /// Notes that the content of the file at a path decides.
    pub fn note_content(&self, path: &[u8]) {
        self.ask(path, |asked| asked.read = true);
    }

    /// All that was asked, with what the tree shows there.
    pub fn finish(self, contents: &dyn Contents) -> io::Result<TreeUse> {
        let Noted { present, absent } = self.noted.into_inner();
        let names = Names::new(self.tree);
        let mut uses: Vec<_> = absent.into_iter().map(|path| Use { path, value: Value::Absent }).collect();
        for (position, asked) in present {
            let (path, value) = match position {
                Some(position) => (
                    self.tree.entry(position).path.clone(),
                    value_at(self.tree, &names, position, asked.read, asked.listed, contents)?,
                ),
                None => (Vec::new(), value_of_root_without_entry(self.tree, asked.listed)),
            };
            uses.push(Use { path, value });
        }
        uses.sort_unstable_by(|a, b| compare_paths(&a.path, &b.path));
        Ok(TreeUse { uses })
    }

    fn follow(&self, path: &[u8], follow_last: bool) -> Result<(Vec<u8>, bool), ResolveError> {
        mica_tree::merged::follow(path, follow_last, &mut |path| self.get(path))
    }

    fn note(&self, path: &[u8]) -> Option<usize> {
        self.ask(path, |_| {})
    }

    fn ask(&self, path: &[u8], add: impl FnOnce(&mut Asked)) -> Option<usize> {
        let mut noted = self.noted.borrow_mut();
        let position = self.tree.position(path);
        if position.is_none() && !path.is_empty() {
            if !noted.absent.contains(path) {
                noted.absent.insert(path.to_vec());
            }
            return None;
        }
        add(noted.present.entry(position).or_default());
        position
    }
}
