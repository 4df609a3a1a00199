//! Which entries of a directory a COPY takes: what `--parents` names, without what `--exclude` names.

use mica_dockerfile::Dockerignore;
use mica_dockerfile::dockerignore::ParentInfo;
use mica_plan::{CopySourceSpec, CopyStep, PlannedSource};
use mica_tree::{Entry, MergedIndex};

use crate::place::{PlaceError, clean, follow, has_glob, matches, path_in};

/// Which entries of a directory are taken.
#[derive(Debug, Default)]
pub(crate) struct Selection {
    /// What is taken; all of it if nothing is said.
    include: Option<Dockerignore>,
    exclude: Dockerignore,
}

/// The directory that a source of `--parents` begins at, and what it takes inside of it: the source at its first `/./`.
fn split_at_pivot(word: &str) -> (&str, &str) {
    word.split_once("/./").unwrap_or(("/", word))
}

/// The directories that a source of `--parents` begins at.
pub(crate) fn beginnings(source: &MergedIndex, word: &str) -> Result<Vec<Vec<u8>>, PlaceError> {
    let (beginning, inside) = split_at_pivot(word);
    // What names one path must name one that is there.
    if !has_glob(word) && follow(source, &clean(&format!("{beginning}/{inside}")))?.is_none() {
        return Err(PlaceError::Missing { path: word.to_owned() });
    }
    let mut directories = matches(source, beginning)?;
    let mut is_directory = |path: &Vec<u8>| {
        let found = follow(source, path).ok().flatten();
        found.is_some_and(|found| found.entry.is_none_or(Entry::is_directory))
    };
    directories.retain(&mut is_directory);
    Ok(directories)
}

impl Selection {
    /// What an instruction takes of one of its sources.
    pub fn of(copy: &CopyStep, source: &PlannedSource) -> Result<Self, PlaceError> {
        let parents = match &source.spec {
            CopySourceSpec::Path(word) if copy.parents => Some(word.as_str()),
            _ => None,
        };
        Self::new(parents, &copy.excludes)
    }

    /// `parents` is the source where the directories that it stands in are kept.
    pub fn new(parents: Option<&str>, excludes: &[String]) -> Result<Self, PlaceError> {
        let exclude = patterns(excludes.iter().map(String::as_str))?;
        let Some(word) = parents else { return Ok(Self { include: None, exclude }) };
        let (_, inside) = split_at_pivot(word);
        let pattern = String::from_utf8_lossy(&clean(inside)).into_owned();
        let include = (!pattern.is_empty()).then(|| patterns([pattern.as_str()])).transpose()?;
        Ok(Self { include, exclude })
    }

    /// Whether a file is taken that is a source by itself.
    pub fn takes_file(&self, path: &[u8]) -> bool {
        let name = path_in(path, path);
        self.exclude.is_empty() || !self.exclude.matches(&String::from_utf8_lossy(name)).is_ignored
    }

    /// The entries inside of `directory` that are taken, in order, with the directories that they stand in.
    pub fn inside<'t>(&self, source: &'t MergedIndex, directory: &[u8]) -> Vec<&'t Entry> {
        let walk = source.walk(directory);
        if self.include.is_none() && self.exclude.is_empty() {
            return walk.collect();
        }
        let mut taken = Vec::new();
        // The directories that the walk is in: what the patterns say of them, and those that are not taken (yet).
        let mut above: Vec<Above<'t>> = Vec::new();
        for entry in walk {
            while above.last().is_some_and(|last| !is_inside(&entry.path, &last.entry.path)) {
                above.pop();
            }
            let path = String::from_utf8_lossy(path_in(directory, &entry.path));
            let none = ParentInfo::default();
            let parent = above.last().map_or((&none, &none), |last| (&last.included, &last.excluded));
            let (is_included, included) = match &self.include {
                Some(include) => include.matches_in(parent.0, &path),
                None => (true, ParentInfo::default()),
            };
            let (is_excluded, excluded) = self.exclude.matches_in(parent.1, &path);
            let is_taken = is_included && !is_excluded;
            if is_taken {
                for directory in above.iter_mut().filter(|directory| !directory.is_taken) {
                    directory.is_taken = true;
                    taken.push(directory.entry);
                }
                taken.push(entry);
            }
            if entry.is_directory() {
                above.push(Above { entry, is_taken, included, excluded });
            }
        }
        taken
    }
}

/// A directory that a walk is in.
struct Above<'t> {
    entry: &'t Entry,
    is_taken: bool,
    included: ParentInfo,
    excluded: ParentInfo,
}

fn is_inside(path: &[u8], directory: &[u8]) -> bool {
    path.strip_prefix(directory).is_some_and(|rest| rest.starts_with(b"/"))
}

/// Patterns as those of an ignore file: `**` is any number of directories, `!` takes back.
fn patterns<'p>(patterns: impl IntoIterator<Item = &'p str> + Clone) -> Result<Dockerignore, PlaceError> {
    let relative =
        |pattern: &'p str| pattern.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(pattern);
    Dockerignore::from_patterns(patterns.clone().into_iter().map(relative)).map_err(|_| {
        let pattern = patterns.into_iter().collect::<Vec<_>>().join(" ");
        PlaceError::BadPattern { pattern }
    })
}
