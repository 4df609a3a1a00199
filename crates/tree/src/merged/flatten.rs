//! A stack of layers as one layer.

use std::collections::HashMap;

use super::MergedIndex;
use crate::entry::{Entry, Kind, compare_paths, parent};

/// An entry of the one layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flat {
    /// What stands there.
    pub entry: Entry,
    /// Its position in the merged tree; none for a whiteout.
    pub position: Option<usize>,
}

impl MergedIndex {
    /// What the layers from `first` on (counted from the lowest) change of what those below them show, as the entries of one
    /// layer, in index order: on the layers below, it shows what this tree shows. With 0 that is all of the tree, without a
    /// whiteout.
    ///
    /// Every entry stands in a directory of the layer. Of a file with several names, the first that is shown is the file.
    /// Sockets are left out: no tar holds them.
    pub fn flatten(&self, first: usize) -> Vec<Flat> {
        let below = Self::new(self.layers.iter().take(first).cloned());
        let mut is_in: Vec<bool> = (0..self.len()).map(|position| self.layer_at(position) >= first).collect();
        let mut gone = Vec::new();
        for position in 0..below.len() {
            let path = &below.entry(position).path;
            // Below what is gone itself, or is no directory any more, nothing needs to be said.
            let stood_in = parent(path).filter(|parent| self.is_shown_directory(parent));
            if self.get(path).is_none() && stood_in.is_some() {
                gone.push(path.clone());
            }
        }
        let inside = (0..self.len()).filter(|position| is_in.get(*position) == Some(&true));
        let paths: Vec<&[u8]> = inside
            .map(|position| self.entry(position).path.as_slice())
            .chain(gone.iter().map(Vec::as_slice))
            .collect();
        for path in paths {
            let mut above = parent(path);
            while let Some(directory) = above {
                let known = self.position(directory).and_then(|position| is_in.get_mut(position));
                if let Some(known) = known.filter(|_| !directory.is_empty()) {
                    *known = true;
                }
                above = parent(directory);
            }
        }
        let mut names: HashMap<(usize, usize), Vec<u8>> = HashMap::new();
        let mut flat = Vec::new();
        for position in (0..self.len()).filter(|position| is_in.get(*position) == Some(&true)) {
            let Some(attributes) = self.attributes_at(position) else { continue };
            let path = self.entry(position).path.clone();
            let mut entry = Entry { path: path.clone(), ..attributes.clone() };
            match &mut entry.kind {
                Kind::Socket => continue,
                Kind::Directory { opaque, implied } => (*opaque, *implied) = (false, false),
                Kind::File { .. } => {
                    if let Some(file) = self.file_at(position) {
                        match names.get(&file) {
                            Some(target) => entry.kind = Kind::Hardlink { target: target.clone() },
                            None => _ = names.insert(file, path),
                        }
                    }
                }
                _ => {}
            }
            flat.push(Flat { entry, position: Some(position) });
        }
        let whiteout = |path| Entry {
            path,
            kind: Kind::Whiteout,
            mode: 0,
            uid: 0,
            gid: 0,
            mtime: Default::default(),
            xattrs: Vec::new(),
        };
        flat.extend(gone.into_iter().map(|path| Flat { entry: whiteout(path), position: None }));
        flat.sort_by(|a, b| compare_paths(&a.entry.path, &b.entry.path));
        flat
    }

    fn is_shown_directory(&self, path: &[u8]) -> bool {
        // The root is one, also where no layer has an entry for it.
        path.is_empty() || self.get(path).is_some_and(Entry::is_directory)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::index::Index;

    /// Paths of a layer: `d/` a directory, `d!/` an opaque one, `-p` a whiteout, `p=q` one more name of `q`, else a file whose
    /// content is told by its layer.
    fn layer(number: u8, words: &str) -> Arc<Index> {
        let entry = |word: &str| {
            let (path, kind) = match word {
                word if word.starts_with('-') => (&word[1..], Kind::Whiteout),
                word if word.ends_with("!/") => {
                    (&word[..word.len() - 2], Kind::Directory { opaque: true, implied: false })
                }
                word if word.ends_with('/') => {
                    (&word[..word.len() - 1], Kind::Directory { opaque: false, implied: false })
                }
                word => match word.split_once('=') {
                    Some((path, target)) => (path, Kind::Hardlink { target: target.into() }),
                    None => (word, Kind::File { size: 1, content: Some([number; 32]) }),
                },
            };
            let mode = number.into();
            Entry {
                path: path.into(),
                kind,
                mode,
                uid: 0,
                gid: 0,
                mtime: Default::default(),
                xattrs: Vec::new(),
            }
        };
        Arc::new(Index::new(words.split_whitespace().map(entry).collect()).unwrap())
    }

    fn words(flat: &[Flat]) -> String {
        let word = |flat: &Flat| {
            let path = String::from_utf8_lossy(&flat.entry.path).into_owned();
            match &flat.entry.kind {
                Kind::Whiteout => format!("-{path}"),
                Kind::Directory { .. } => format!("{path}/"),
                Kind::Hardlink { target } => format!("{path}={}", String::from_utf8_lossy(target)),
                _ => path,
            }
        };
        flat.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    #[track_caller]
    fn check(layers: &[&str], first: usize, expect: &str) {
        let indexes: Vec<_> = (1..).zip(layers).map(|(number, words)| layer(number, words)).collect();
        let merged = MergedIndex::new(indexes.clone());
        let flat = merged.flatten(first);
        assert_eq!(words(&flat), expect, "{layers:?} from {first}");
        // On the layers below, the one layer shows what all of them show.
        let one = Index::new(flat.into_iter().map(|flat| flat.entry).collect()).unwrap();
        let again = MergedIndex::new(indexes.into_iter().take(first).chain([Arc::new(one)]));
        let shown = |merged: &MergedIndex| {
            (0..merged.len())
                .map(|position| {
                    let attributes = merged.attributes_at(position).unwrap();
                    let content = match attributes.kind {
                        Kind::File { content, .. } => content,
                        _ => None,
                    };
                    (merged.entry(position).path.clone(), attributes.mode, attributes.is_directory(), content)
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(shown(&again), shown(&merged), "{layers:?} from {first}");
    }

    #[test]
    fn layers_become_one() {
        check(&["a/ a/x b"], 0, "a/ a/x b");
        check(&["a/ a/x b", "a/ a/y -b"], 0, "a/ a/x a/y");
        check(&["a/ a/x b", "a/ a/y -b"], 1, "a/ a/y -b");
        check(&["a/ a/x", "a/ a/y", "a/ -a/y a/z"], 1, "a/ a/z");
        check(&["a/ a/x", "a/ -a/x", "a/ a/x"], 1, "a/ a/x");
        // A directory that is gone takes one whiteout; one that came again hides what was in it.
        check(&["a/ a/d/ a/d/x a/d/y", "a/ -a/d"], 1, "a/ -a/d");
        check(&["d/ d/x d/y", "-d", "d/ d/z"], 1, "d/ -d/x -d/y d/z");
        check(&["d/ d/x d/e/ d/e/y", "d!/ d/z"], 1, "d/ -d/e -d/x d/z");
        // Kinds change.
        check(&["d/ d/x", "d"], 1, "d");
        check(&["d", "d/ d/x"], 1, "d/ d/x");
        check(&["d/ d/x", "d", "-d", "d/ d/z"], 1, "d/ -d/x d/z");
        // Names of a file.
        check(&["a b=a c=a"], 0, "a b=a c=a");
        check(&["x", "a b=a c=a", "-a"], 1, "b c=b");
        check(&["x", "a b=a", "a"], 1, "a b");
        check(&["a b=a", "-a"], 1, "-a");
        check(&[], 0, "");
        check(&["a"], 1, "");
    }
}
